"""Storage commitment: peers are asked to commit what they were sent, and modalities are answered what they ask.

Commitment is of PS3.4 annex J.  A *commitment result* says which objects are committed and which are not.

As SCU: a request names the deliveries that are STORED at a destination with `storage_commitment` (several in one
request); where no result arrives, they are asked about again.  The result settles each: committed is DELIVERED; an
object that the peer does not have is sent again; a class that it never commits is REFUSED; any other failure is asked
about again.

As SCP: a modality's request is kept in the database, and its result is sent on an association of our own until the
modality takes it.  An object is committed if its job is in the database and its file in the spool.

A destination has a thread of its own, so a slow one delays nobody else; all results to modalities share one thread.
"""

from __future__ import annotations

import json
import logging
import random
import re
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial

from pydicom.filereader import read_file_meta_info
from pydicom.uid import generate_uid

from gateway.delivery.kind import JITTER
from gateway.delivery.outbox import backoff_s
from gateway.dicom.images.pixels import DECODE_ERRORS
from gateway.dicom.network import commitment
from gateway.dicom.network.commitment import (
    FAILURE_REASONS,
    NOT_AUTHORIZED,
    PROCESSING_FAILURE,
    SUCCESS,
    CommitmentResult,
    Reference,
)
from gateway.dicom.network.scp import is_from
from gateway.domain.clock import utc_now
from gateway.domain.status import DeliveryAction
from gateway.errors import DeliveryDeferred, DeliveryError, DeliveryRefused, StorageError, UnreadableFile
from gateway.settings import CallerSettings, DicomDestination, DicomSettings, RetrySettings
from gateway.spool.folder import Spool
from gateway.store.commitments import Settlement, references
from gateway.store.store import Store
from gateway.store.tables import CommitmentRequest, Delivery
from gateway.threads import OnDuty, Threads, always

logger = logging.getLogger(__name__)

_POLL_S = 0.5  # how often an idle thread looks for work
_MAXIMUM_ASKED = 100  # objects in one request of ours
_REPORT_DELAY = timedelta(seconds=1)  # the modality takes our answer first
_SEND_AGAIN = {0x0112}
_NEVER = {0x0119, 0x0122}
_RETRY = RetrySettings()  # of results to modalities


class _Repeated(Threads):
    """A thread that works, and waits a moment where there was nothing to do."""

    def __init__(self, name: str, work: Callable[[], bool], on_duty: OnDuty) -> None:
        self._work = work
        self._on_duty = on_duty
        super().__init__({name: self._run})

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                worked = self._on_duty() and self._work()
            except StorageError as error:
                logger.error("Storage commitment waits: %s", error, extra={"action": "commitment"})
                worked = False
            if not worked:
                self._stopping.wait(_POLL_S)


class Committer(_Repeated):
    """Asks peers and answers modalities between `start` and `stop`; the listener calls the two `..._received`.

    Parameters
    ----------
    destinations : Sequence[DicomDestination]
        Those that are asked.
    rng : random.Random
        Where the jitter comes from.
    on_duty
        Tells whether this node asks and answers.
    """

    def __init__(
        self,
        store: Store,
        spool: Spool,
        dicom: DicomSettings,
        destinations: Sequence[DicomDestination],
        rng: random.Random,
        on_duty: OnDuty = always,
    ) -> None:
        self._store = store
        self._spool = spool
        self._dicom = dicom
        self._destinations = {destination.name: destination for destination in destinations}
        self._rng = rng
        self._on_duty = on_duty
        self._asking = {name: self._asker(destination) for name, destination in self._destinations.items()}
        self._retired: list[_Repeated] = []
        self._lock = threading.Lock()  # of the exchange of askers
        super().__init__("commitment-results", self._send_results, on_duty)

    @property
    def alive(self) -> bool:
        """Whether every thread runs; False before `start` and after `stop` too."""
        with self._lock:
            return super().alive and all(asker.alive for asker in self._asking.values())

    def start(self) -> None:
        """Begin to ask and to answer."""
        super().start()
        for asker in self._asking.values():
            asker.start()

    def replace(self, dicom: DicomSettings, destinations: Sequence[DicomDestination]) -> None:
        """Ask these from now on, and answer the callers of `dicom`."""
        with self._lock:
            before, self._dicom = self._destinations, dicom
            self._destinations = {destination.name: destination for destination in destinations}
            for name in before.keys() | self._destinations.keys():
                if before.get(name) == self._destinations.get(name):
                    continue
                if name in before:
                    self._retired.append(self._asking.pop(name))
                    self._retired[-1].retire()
                if name in self._destinations:
                    self._asking[name] = self._asker(self._destinations[name])
                    self._asking[name].start()

    def stop(self) -> None:
        """Stop; return when what is being asked or answered has ended."""
        askers = [*self._asking.values(), *self._retired]
        for asker in askers:
            asker.retire()
        super().stop()
        for asker in askers:
            asker.stop()

    def _asker(self, destination: DicomDestination) -> _Repeated:
        return _Repeated(f"commitment-{destination.name}", partial(self._ask, destination), self._on_duty)

    # -- called by the listener -----------------------------------------------------------------------------------

    def expects(self, calling_ae_title: str, called_ae_title: str, address: str) -> bool:
        """Return whether a peer that is asked to commit may report so: from its host, to the AE title that asks it."""
        return any(
            destination.ae_title.strip() == calling_ae_title.strip()
            and called_ae_title.strip() in {self._calling(destination).strip(), self._dicom.ae_title.strip()}
            and is_from(address, destination.host)
            for destination in self._destinations.values()
        )

    def request_received(self, ae_title: str, host: str, transaction_uid: str, asked: tuple[Reference, ...]) -> int:
        """Keep a modality's request, and return the status of the answer."""
        if self._caller(ae_title) is None:
            logger.warning(
                "Refused a commitment request of %s from %s: it has no [dicom.callers.commitment]",
                *(ae_title, host),
                extra={"action": "commitment_refuse"},
            )
            return NOT_AUTHORIZED
        request = CommitmentRequest(
            ae_title=ae_title,
            host=host,
            transaction_uid=transaction_uid,
            references_json=json.dumps([(each.sop_class_uid, each.sop_instance_uid) for each in asked]),
            next_attempt_at=utc_now() + _REPORT_DELAY,
        )
        try:
            self._store.commitments.add_request(request)
        except StorageError as error:
            logger.error("Cannot keep a commitment request: %s", error, extra={"action": "commitment_refuse"})
            return PROCESSING_FAILURE
        logger.info(
            "%s requests commitment of %d objects", ae_title, len(asked), extra={"action": "commitment_request"}
        )
        return SUCCESS

    def result_received(self, result: CommitmentResult) -> int:
        """Take a peer's result, and return the status of the answer: success once it is in the database."""
        try:
            deliveries = self._store.commitments.asked_for(result.transaction_uid)
            if not deliveries:
                logger.warning(
                    "Refused a commitment result: transaction unknown", extra={"action": "commitment_report"}
                )
                return commitment.INVALID_ARGUMENT_VALUE
            settlements = self._settlements(deliveries, result)
            self._store.commitments.settle(result.transaction_uid, settlements)
        except StorageError as error:
            logger.error("Cannot record a commitment result: %s", error, extra={"action": "commitment_report"})
            return PROCESSING_FAILURE
        logger.info(
            "%s committed %d objects, not %d",
            *(deliveries[0].destination, len(result.committed), len(result.failed)),
            extra={"action": "commitment_report"},
        )
        return SUCCESS

    # -- of what we sent ------------------------------------------------------------------------------------------

    def _ask(self, destination: DicomDestination) -> bool:
        """Ask about what is due; return whether anything was."""
        due = self._store.commitments.due(utc_now(), destination.name, _MAXIMUM_ASKED)
        spent = [delivery for delivery in due if delivery.asked >= destination.retry.attempts]
        if spent:
            self._store.commitments.settle("", [_given_up(delivery, destination) for delivery in spent])
        asked = {
            reference: delivery
            for delivery in due
            if delivery not in spent
            for reference in self._named(destination, delivery)
        }
        if asked:
            self._request(destination, asked)
        return bool(due)

    def _calling(self, destination: DicomDestination) -> str:
        return destination.calling_ae_title or self._dicom.ae_title

    def _named(self, destination: DicomDestination, delivery: Delivery) -> list[Reference]:
        """Return how a delivery's object is named; settle it where its file is gone, or cannot be read now."""
        assert delivery.id is not None
        try:
            with self._spool.fetched(delivery.job_id, delivery.artefact) as path:
                if path is None:
                    raise FileNotFoundError
                sop_class = str(read_file_meta_info(path).MediaStorageSOPClassUID)
        except UnreadableFile as error:
            self._store.commitments.settle("", [self._later(destination, delivery, str(error))])
            return []
        except DECODE_ERRORS:
            gone = Settlement(
                delivery=delivery.id, action=DeliveryAction.GIVE_UP, reason="the file that was sent is gone"
            )
            self._store.commitments.settle("", [gone])
            return []
        return [Reference(sop_class_uid=sop_class, sop_instance_uid=delivery.identifier)]

    def _request(self, destination: DicomDestination, asked: dict[Reference, Delivery]) -> None:
        deliveries = {delivery.id: delivery for delivery in asked.values() if delivery.id is not None}
        transaction_uid = str(generate_uid(prefix=None))
        again = utc_now() + timedelta(seconds=destination.commitment_wait_s)
        self._store.commitments.ask(transaction_uid, list(deliveries), again)
        try:
            commitment.ask(destination, self._calling(destination), transaction_uid, list(asked), self.result_received)
        except DeliveryRefused as error:
            logger.error("%s", error, extra={"action": "commitment_ask"})
            settled = [self._refused(identity, str(error)) for identity in deliveries]
        except DeliveryDeferred as error:
            logger.warning("%s", error, extra={"action": "commitment_ask"})
            settled = [self._later(destination, delivery, str(error)) for delivery in deliveries.values()]
        else:
            return
        self._store.commitments.settle(transaction_uid, settled)

    def _settlements(self, deliveries: Sequence[Delivery], result: CommitmentResult) -> list[Settlement]:
        committed = {reference.sop_instance_uid for reference in result.committed}
        failed = {reference.sop_instance_uid: reason for reference, reason in result.failed.items()}
        settled = []
        for delivery in deliveries:
            assert delivery.id is not None
            if delivery.identifier in failed:
                settled.append(self._failed(delivery, failed[delivery.identifier]))
            elif delivery.identifier in committed:
                settled.append(Settlement(delivery=delivery.id, action=DeliveryAction.DELIVER))
        return settled

    def _failed(self, delivery: Delivery, code: int) -> Settlement:
        assert delivery.id is not None
        reason = f"not committed: 0x{code:04X}, {FAILURE_REASONS.get(code, 'a reason of the peer')}"
        destination = self._destinations.get(delivery.destination)
        if destination is None or code in _NEVER:
            return self._refused(delivery.id, reason, code)
        if delivery.asked >= destination.retry.attempts:
            return Settlement(
                delivery=delivery.id,
                action=DeliveryAction.GIVE_UP,
                failure_reason=f"0x{code:04X}",
                reason=reason,
            )
        return self._later(destination, delivery, reason, code)

    def _later(
        self, destination: DicomDestination, delivery: Delivery, reason: str, code: int | None = None
    ) -> Settlement:
        assert delivery.id is not None
        pause = timedelta(seconds=backoff_s(destination.retry, delivery.asked, self._rng))
        return Settlement(
            delivery=delivery.id,
            action=DeliveryAction.DEFER if code in _SEND_AGAIN else None,
            failure_reason="" if code is None else f"0x{code:04X}",
            reason=reason,
            next_attempt_at=utc_now() + pause,
        )

    @staticmethod
    def _refused(identity: int, reason: str, code: int | None = None) -> Settlement:
        failure_reason = "" if code is None else f"0x{code:04X}"
        return Settlement(delivery=identity, action=DeliveryAction.REFUSE, failure_reason=failure_reason, reason=reason)

    # -- of what we received --------------------------------------------------------------------------------------

    def _send_results(self) -> bool:
        """Send the results that are due; return whether there were any."""
        due = self._store.commitments.due_requests(utc_now(), _RETRY.maximum_s * (1 + JITTER))
        for request in due:
            if self._stopping.is_set():
                break
            self._send_result(request)
        return bool(due)

    def _send_result(self, request: CommitmentRequest) -> None:
        assert request.id is not None
        caller = self._caller(request.ae_title)
        if caller is None or caller.commitment is None:  # taken off the list meanwhile
            self._store.commitments.result_failed(request.id, "the caller is not configured any more", None)
            return
        peer = DicomDestination(
            name=re.sub(r"[^A-Za-z0-9_-]", "-", request.ae_title.strip()),
            host=caller.commitment.host or request.host,
            port=caller.commitment.port,
            ae_title=request.ae_title,
            timeout_s=self._dicom.timeout_s,
            tls=caller.commitment.tls,
        )
        try:
            commitment.send_result(peer, self._dicom.ae_title, self._result(request))
        except DeliveryError as error:
            logger.warning("Commitment result not sent: %s", error, extra={"action": "commitment_answer"})
            last = request.attempts + 1 >= _RETRY.attempts
            pause = timedelta(seconds=backoff_s(_RETRY, request.attempts, self._rng))
            self._store.commitments.result_failed(request.id, str(error), None if last else utc_now() + pause)
            return
        logger.info("Commitment result sent to %s", request.ae_title, extra={"action": "commitment_answer"})
        self._store.commitments.result_sent(request.id)

    def _result(self, request: CommitmentRequest) -> CommitmentResult:
        committed: list[Reference] = []
        failed: dict[Reference, int] = {}
        for sop_class, sop_instance in references(request):
            reference = Reference(sop_class_uid=sop_class, sop_instance_uid=sop_instance)
            reason = self._missing(reference)
            if reason:
                failed[reference] = reason
            else:
                committed.append(reference)
        return CommitmentResult(transaction_uid=request.transaction_uid, committed=tuple(committed), failed=failed)

    def _missing(self, reference: Reference) -> int:
        """Return 0 where we hold the object, or the Failure Reason."""
        job = self._store.jobs.find(reference.sop_instance_uid)
        if job is None or not self._spool.has(job.id):
            return commitment.NO_SUCH_OBJECT_INSTANCE
        same = job.context.source_sop_class_uid == reference.sop_class_uid
        return 0 if same else commitment.CLASS_INSTANCE_CONFLICT

    def _caller(self, ae_title: str) -> CallerSettings | None:
        """Return the caller of that AE title that may ask us to commit."""
        for caller in self._dicom.callers:
            if caller.ae_title.strip() == ae_title.strip() and caller.commitment is not None:
                return caller
        return None


def _given_up(delivery: Delivery, destination: DicomDestination) -> Settlement:
    assert delivery.id is not None
    reason = (
        delivery.reason
        or f"no storage commitment result after {delivery.asked} requests: "
        f"does it know our address, and does it report as {destination.ae_title} from {destination.host}?"
    )
    return Settlement(delivery=delivery.id, action=DeliveryAction.GIVE_UP, reason=reason)
