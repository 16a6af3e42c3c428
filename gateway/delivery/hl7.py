"""HL7 v2 as a destination: an EHR or interface engine gets one ORU^R01 or MDM^T02 a page, over MLLP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from gateway.delivery.kind import Kind, Objects, Withdrawn
from gateway.delivery.sample_ecg import sample_page
from gateway.delivery.steps import Step, reach, sent_test
from gateway.domain.artefact import WITHDRAWN, Artefact, Role, version_of
from gateway.domain.digitized_page import DigitizedPage
from gateway.hl7.outbound.messages import PageMessage, ResultStatus, build_message, message_control_id
from gateway.hl7.outbound.withdrawal import build_withdrawal
from gateway.hl7.transport.client import MllpClient
from gateway.settings import Hl7CodeSettings, Hl7Destination
from gateway.store.tables import Delivery


class Hl7Kind(Kind):
    """A receiver of messages; its connection is kept open between them."""

    def __init__(self, destination: Hl7Destination, codes: Hl7CodeSettings) -> None:
        super().__init__(destination)
        self._destination = destination
        self._codes = codes
        self._client = MllpClient(destination)

    def artefacts(self, page: DigitizedPage, objects: Objects, earlier: Sequence[Delivery]) -> Iterator[Artefact]:
        """Yield the one message about the page."""
        yield message_about(page, self._destination, self._codes, earlier)

    @property
    def withdraws(self) -> bool:
        """Whether it can be told that what it has is rejected: by a message."""
        return True

    def withdrawal(self, withdrawn: Withdrawn) -> Iterator[Artefact]:
        """Yield the message that withdraws another."""
        yield withdrawal_of(withdrawn, self._destination, self._codes)

    def send(self, path: Path, delivery: Delivery) -> str:
        """Send the message and return its acknowledgement code, "AA" or "CA"."""
        return self._client.send(path.read_bytes())

    def check(self) -> Iterator[Step]:
        """Yield the steps to a connection: nothing in HL7 asks a receiver whether it would take a message."""
        destination = self._destination
        yield from reach(destination.host, destination.port, destination.timeout_s, destination.tls)

    def send_test(self) -> Iterator[Step]:
        """Yield the steps of `check`, then send a message about the test ECG."""
        return sent_test(self.check(), self._destination.message, self._send_test)

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    def _send_test(self) -> str:
        page = sample_page(self.name)
        control_id = message_control_id(page.job_id, page.page_number, self.name)
        message = PageMessage(page=page, message_control_id=control_id)
        client = MllpClient(self._destination)
        try:
            return client.send(build_message(message, self._destination, self._codes))
        finally:
            client.close()


def message_about(
    page: DigitizedPage, destination: Hl7Destination, codes: Hl7CodeSettings, earlier: Sequence[Delivery]
) -> Artefact:
    """Return the message about one page for one destination.

    It is preliminary until a person has confirmed the result, then final; it is a correction where the destination
    received a message about an earlier result (HL7 table 0123).

    Raises
    ------
    DeliveryRefused
        The message cannot be made as the destination wants it.
    """
    corrects = any(message.revision != page.revision for message in earlier)
    status: ResultStatus = "C" if corrects else "F" if page.final else "P"
    message = PageMessage(
        page=page,
        message_control_id=message_control_id(page.job_id, page.page_number, destination.name, page.version),
        status=status,
        replaces=earlier[-1].identifier if earlier else "",
    )
    return Artefact(
        page_number=page.page_number,
        role=Role.MESSAGE,
        data=build_message(message, destination, codes),
        variant=destination.name,
        revision=page.revision,
        final=page.final,
        identifier=message.message_control_id,
        result_status=status,
        ending="hl7",
    )


def withdrawal_of(withdrawn: Withdrawn, destination: Hl7Destination, codes: Hl7CodeSettings) -> Artefact:
    """Return the message that withdraws one that arrived; raise DeliveryRefused where it cannot be made."""
    before, version = withdrawn.delivery, version_of(withdrawn.revision, final=False)
    control_id = message_control_id(before.job_id, before.page_number, destination.name, version)
    return Artefact(
        page_number=before.page_number,
        role=Role.MESSAGE,
        data=build_withdrawal(withdrawn.sent, control_id, withdrawn.reason, withdrawn.at, destination, codes),
        variant=destination.name,
        revision=withdrawn.revision,
        identifier=control_id,
        result_status=WITHDRAWN,
        ending="hl7",
    )
