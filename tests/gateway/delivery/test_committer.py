"""Storage commitment over real sockets: delivered is what the peer says it keeps, and a modality gets its answer."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage, TwelveLeadECGWaveformStorage, generate_uid
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from gateway.delivery import committer
from gateway.delivery.committer import Committer
from gateway.dicom.network.scp import StorageScp
from gateway.dicom.network.transport import Requestor
from gateway.domain.account import AccountRole, Origin, User
from gateway.domain.artefact import Role
from gateway.domain.context import StudyContext
from gateway.domain.received import ReceivedObject
from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.intake.accept import Intake
from gateway.settings import (
    CallerSettings,
    DicomDestination,
    DicomSettings,
    ReportSettings,
    RetrySettings,
    ReviewSettings,
)
from gateway.spool.folder import Spool
from gateway.store.jobs import JobResult
from gateway.store.store import Store
from gateway.store.tables import Delivery
from gateway.web.pages.job import job_view
from tests.gateway.dicom.samples import part10, secondary_capture
from tests.waiting import PATIENCE_S, eventually

QUICK = RetrySettings(first_s=0.05, maximum_s=0.05, attempts=3)
ANN = User(name="ann", role=AccountRole.REVIEWER, origin=Origin.ACCOUNT)


@pytest.fixture(autouse=True)
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for work at once."""
    monkeypatch.setattr(committer, "_POLL_S", 0.02)


class Peer:
    """A PACS that answers N-ACTION with `status`, and reports `failures` (UID -> reason) to `report_to`.

    As a modality it takes N-EVENT-REPORT.
    """

    def __init__(self) -> None:
        self.status = 0x0000
        self.failures: list[int | None] = []  # one a request; None: no report; 0: all committed
        self.report_to = 0
        self.asked: list[Dataset] = []
        self.answers: list[int | None] = []
        self.reports: list[tuple[int, Dataset]] = []
        self.report_status = 0x0000
        self.reporting: list[threading.Thread] = []
        self._ae = AE(ae_title="PACS")
        self._ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        self._server = self._ae.start_server(
            ("127.0.0.1", 0),
            block=False,
            evt_handlers=[(evt.EVT_N_ACTION, self._action), (evt.EVT_N_EVENT_REPORT, self._reported)],
        )
        self.port = int(self._server.server_address[1])

    def _action(self, event: evt.Event) -> tuple[int, None]:
        information = event.action_information
        self.asked.append(information)
        failure = self.failures.pop(0) if self.failures else 0
        if self.status == 0 and failure is not None:
            self.reporting.append(threading.Thread(target=self.report, args=(information, failure)))
            self.reporting[-1].start()
        return self.status, None

    def report(self, asked: Dataset, failure: int = 0) -> None:
        answer = Dataset()
        answer.TransactionUID = asked.TransactionUID
        items = list(asked.ReferencedSOPSequence)
        if failure:
            for item in items:
                item.FailureReason = failure
            answer.FailedSOPSequence = items
        else:
            answer.ReferencedSOPSequence = items
        ae = Requestor(ae_title="PACS")
        association = ae.associate(
            "127.0.0.1",
            self.report_to,
            [build_context(StorageCommitmentPushModel)],
            ae_title="ECGGW",
            ext_neg=[build_role(StorageCommitmentPushModel, scp_role=True)],
        )
        assert association.is_established
        status, _ = association.send_n_event_report(
            answer, 2 if failure else 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        association.release()
        self.answers.append(status.get("Status"))

    def _reported(self, event: evt.Event) -> tuple[int, None]:
        self.reports.append((event.event_type, event.event_information))
        return self.report_status, None

    def close(self) -> None:
        for thread in self.reporting:
            thread.join(PATIENCE_S)
        self._server.shutdown()


class House:
    """Store, spool, listener and committer, and one PACS that commits."""

    def __init__(self, store: Store, spool: Spool, peer: Peer) -> None:
        self.store, self.spool, self.peer = store, spool, peer
        self.intake = Intake(spool, store)
        self.destination = DicomDestination(
            name="pacs",
            host="127.0.0.1",
            port=peer.port,
            ae_title="PACS",
            storage_commitment=True,
            commitment_wait_s=600.0,
            retry=QUICK,
            timeout_s=PATIENCE_S,
        )
        self.dicom = dicom = DicomSettings(
            port=0,
            timeout_s=PATIENCE_S,
            callers=(
                CallerSettings(ae_title="CART", commitment=ReportSettings(port=peer.port)),
                CallerSettings(ae_title="NOBODY"),
            ),
        )
        self.committer = Committer(store, spool, dicom, [self.destination], random.Random(1))
        self.scp = StorageScp(dicom, self.intake.accept, spool, self.committer)
        self.scp.start()
        peer.report_to = self.scp.port

    def wait_for_reports(self, wait_s: float) -> None:
        """Ask again after `wait_s` instead of 600 s."""
        impatient = self.destination.model_copy(update={"commitment_wait_s": wait_s})
        self.committer = Committer(self.store, self.spool, self.dicom, [impatient], random.Random(1))
        self.scp._commitments = self.committer

    def stored_delivery(self) -> Delivery:
        """A delivery whose C-STORE has just been answered."""
        job_id = self.intake.accept(
            ReceivedObject(
                source="submit",
                source_key="1",
                media_type="image/png",
                data=b"page",
                context=StudyContext(patient_id="4711"),
                destinations=None,
                actor="test",
            )
        ).job_id
        waveform = secondary_capture(SOPClassUID=TwelveLeadECGWaveformStorage, SOPInstanceUID="2.25.77")
        self.spool.write_artefact(job_id, "page-1.dcm", part10(waveform))
        assert self.store.jobs.claim("w", 60)
        made = Delivery(
            job_id=job_id,
            role=Role.WAVEFORM,
            page_number=1,
            destination="pacs",
            kind="dicom",
            artefact="page-1.dcm",
            identifier="2.25.77",
        )
        self.store.jobs.complete(job_id, "w", JobResult(status=JobStatus.DONE, deliveries=[made]))
        (delivery,) = self.store.deliveries.of_job(job_id)
        assert delivery.id
        self.store.deliveries.stored(delivery.id, "0x0000")
        (delivery,) = self.store.deliveries.of_job(job_id)
        assert delivery.status == DeliveryStatus.STORED
        return delivery

    def now(self, delivery: Delivery) -> Delivery:
        (found,) = self.store.deliveries.of_job(delivery.job_id)
        return found

    def wait_for(self, delivery: Delivery, status: DeliveryStatus) -> Delivery:
        eventually(lambda: self.now(delivery).status == status)
        return self.now(delivery)

    def ask(self, *references: tuple[str, str], calling: str = "CART", transaction: str = "2.25.999") -> int | None:
        """Ask the gateway to commit, as a modality does."""
        information = Dataset()
        information.TransactionUID = transaction
        information.ReferencedSOPSequence = []
        for sop_class, sop_instance in references:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
            information.ReferencedSOPSequence.append(item)
        association = Requestor(ae_title=calling).associate(
            "127.0.0.1", self.scp.port, [build_context(StorageCommitmentPushModel)], ae_title="ECGGW"
        )
        assert association.is_established
        status, _ = association.send_n_action(
            information, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        association.release()
        code: int | None = status.get("Status")
        return code


@pytest.fixture
def house(store: Store, spool: Spool) -> Iterator[House]:
    peer = Peer()
    house = House(store, spool, peer)
    yield house
    house.committer.stop()
    peer.close()
    house.scp.stop(grace_s=0.0)


# ---- we ask


def test_delivered_when_committed(house: House) -> None:
    delivery = house.stored_delivery()
    house.committer.start()
    delivery = house.wait_for(delivery, DeliveryStatus.DELIVERED)
    (asked,) = house.peer.asked
    (item,) = asked.ReferencedSOPSequence
    assert (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) == (TwelveLeadECGWaveformStorage, "2.25.77")
    assert delivery.delivered_at is not None and delivery.response == "0x0000"
    eventually(lambda: house.peer.answers == [0x0000])
    trail = [event.action for event in house.store.jobs.events(delivery.job_id)]
    assert trail[-3:] == ["DELIVERY_STORE", "COMMITMENT_ASK", "DELIVERY_DELIVER"]


def test_destinations_and_callers_come_and_go_while_it_runs(house: House) -> None:
    delivery = house.stored_delivery()
    committer = Committer(house.store, house.spool, house.dicom, [], random.Random(1))
    house.scp._commitments = house.committer = committer
    committer.start()
    committer.replace(house.dicom, [house.destination])
    assert committer.alive
    house.wait_for(delivery, DeliveryStatus.DELIVERED)
    committer.replace(DicomSettings(), [])
    assert committer.alive and house.ask(("1.2", "2.25.1")) == 0x0124
    committer.replace(house.dicom, [house.destination])
    assert committer.alive and house.ask(("1.2", "2.25.1")) == 0x0000


def test_without_a_report_it_is_asked_again_then_given_up(house: House) -> None:
    house.peer.failures = [None, None, None]
    house.wait_for_reports(0.2)
    delivery = house.stored_delivery()
    house.committer.start()
    delivery = house.wait_for(delivery, DeliveryStatus.FAILED)
    assert "no storage commitment result after 3 requests" in delivery.reason
    assert len({str(asked.TransactionUID) for asked in house.peer.asked}) == 3
    house.peer.report(house.peer.asked[0])  # a report that comes late still counts
    assert house.wait_for(delivery, DeliveryStatus.DELIVERED).reason == ""


def test_an_object_the_peer_has_lost_is_sent_again(house: House) -> None:
    house.peer.failures = [0x0112]
    delivery = house.stored_delivery()
    house.committer.start()
    delivery = house.wait_for(delivery, DeliveryStatus.PENDING)
    assert delivery.reason == "not committed: 0x0112, the peer does not have the object"
    (shown,) = job_view(
        house.store, house.spool, house.store.jobs.get(delivery.job_id), ReviewSettings(), ANN
    ).deliveries
    assert (shown.reason, shown.status.words) == (delivery.reason, "pending")
    assert house.store.jobs.needs_files(delivery.job_id)


def test_a_class_the_peer_will_not_commit_is_refused(house: House) -> None:
    house.peer.failures = [0x0122]
    delivery = house.stored_delivery()
    house.committer.start()
    assert "0x0122" in house.wait_for(delivery, DeliveryStatus.REFUSED).reason


def test_a_failure_that_passes_is_asked_about_again(house: House) -> None:
    house.peer.failures = [0x0213, 0]
    delivery = house.stored_delivery()
    house.committer.start()
    assert house.wait_for(delivery, DeliveryStatus.DELIVERED).asked == 2


@pytest.mark.parametrize(("status", "end"), [(0x0122, DeliveryStatus.REFUSED), (0x0213, DeliveryStatus.FAILED)])
def test_a_request_that_is_not_taken(house: House, status: int, end: DeliveryStatus) -> None:
    house.peer.status = status
    delivery = house.stored_delivery()
    house.committer.start()
    assert f"0x{status:04X}" in house.wait_for(delivery, end).reason
    assert len(house.peer.asked) == (1 if end == DeliveryStatus.REFUSED else 3)


def test_a_restart_forgets_no_request(house: House) -> None:
    house.peer.failures = [None]
    delivery = house.stored_delivery()
    house.committer.start()
    eventually(lambda: len(house.peer.asked) == 1)
    (shown,) = job_view(
        house.store, house.spool, house.store.jobs.get(delivery.job_id), ReviewSettings(), ANN
    ).deliveries
    assert shown.status.words == "stored, not committed yet" and shown.when.startswith("asked again")
    house.committer.stop()
    again = Committer(house.store, house.spool, DicomSettings(), [house.destination], random.Random(1))
    house.scp._commitments = again
    house.peer.report(house.peer.asked[0])
    assert house.now(delivery).status == DeliveryStatus.DELIVERED


def test_a_report_nobody_asked_for_changes_nothing(house: House) -> None:
    delivery = house.stored_delivery()
    stranger = Dataset()
    stranger.TransactionUID = generate_uid()
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = TwelveLeadECGWaveformStorage, "2.25.77"
    stranger.ReferencedSOPSequence = [item]
    house.peer.report(stranger)
    assert house.peer.answers == [0x0115]
    assert house.now(delivery).status == DeliveryStatus.STORED


# ---- a modality asks


def received(house: House) -> tuple[str, str]:
    data = part10(secondary_capture(SOPInstanceUID="2.25.42"))
    house.intake.accept(
        ReceivedObject(
            source="dicom:CART1",
            source_key="2.25.42",
            media_type="application/dicom",
            data=data,
            context=StudyContext(patient_id="1", source_sop_class_uid=SecondaryCaptureImageStorage),
            destinations=None,
            actor="test",
        )
    )
    return SecondaryCaptureImageStorage, "2.25.42"


def test_what_we_hold_is_committed(house: House) -> None:
    house.committer.start()
    assert house.ask(received(house)) == 0x0000
    eventually(lambda: len(house.peer.reports) == 1)
    ((event_type, report),) = house.peer.reports
    assert (event_type, report.TransactionUID) == (1, "2.25.999")
    assert [item.ReferencedSOPInstanceUID for item in report.ReferencedSOPSequence] == ["2.25.42"]
    assert "FailedSOPSequence" not in report
    time.sleep(0.2)
    assert len(house.peer.reports) == 1 and house.store.commitments.due_requests(far_away(), 0) == []


def far_away() -> datetime:
    return datetime.max.replace(tzinfo=UTC)


def test_what_we_do_not_hold_is_named_with_its_reason(house: House) -> None:
    held = received(house)
    house.committer.start()
    unknown, other_class = (SecondaryCaptureImageStorage, "2.25.43"), (TwelveLeadECGWaveformStorage, "2.25.42")
    assert house.ask(held, unknown, transaction="2.25.1") == 0x0000
    assert house.ask(other_class, transaction="2.25.2") == 0x0000
    eventually(lambda: len(house.peer.reports) == 2)
    failed = {
        str(report.TransactionUID): [
            (item.ReferencedSOPInstanceUID, item.FailureReason) for item in report.FailedSOPSequence
        ]
        for event_type, report in house.peer.reports
        if event_type == 2
    }
    assert failed == {"2.25.1": [("2.25.43", 0x0112)], "2.25.2": [("2.25.42", 0x0119)]}


def test_a_report_is_sent_until_it_is_taken(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.delivery.committer._RETRY", QUICK)
    house.peer.report_status = 0x0110
    house.committer.start()
    assert house.ask(received(house)) == 0x0000
    eventually(lambda: len(house.peer.reports) >= 1)
    house.peer.report_status = 0x0000
    eventually(lambda: len(house.peer.reports) >= 2)


def test_requests_that_break_the_standard_and_strangers_are_told_no(house: House) -> None:
    assert house.ask() == 0x0115
    assert house.ask((SecondaryCaptureImageStorage, "not a uid")) == 0x0115
    assert house.ask((SecondaryCaptureImageStorage, "2.25.42"), calling="NOBODY") == 0x0124
    assert house.store.commitments.due_requests(far_away(), 0) == []
