"""Asks a worklist or an archive whose the unmatched pages of a folder are, until it knows.

A page that came with an accession number or a patient ID alone waits as an unmatched job.  One thread asks the folder's
peer about each, soon at first, then less and less often: an order may be entered late, and a peer may be down.  What it
answers goes through the same rules as an order that came by HL7: it completes what the page says, or contradicts it.
A person, or a message, may be faster; then the answer is dropped.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gateway.dicom.network.worklist import ask
from gateway.domain.clock import utc_now
from gateway.domain.context import StudyContext
from gateway.errors import DeliveryError, StorageError
from gateway.identity.orders import Match, match
from gateway.settings import LookupSettings
from gateway.store.store import Store
from gateway.store.tables import Job, Order, Patient

logger = logging.getLogger(__name__)

NOT_FOUND = "the {} that was asked does not know this {}: it is asked again, or a person says whose it is"
AMBIGUOUS = "the {} that was asked has several patients under this {}"
NO_ANSWER = "the {} could not be asked whose it is: {}"

_STUDY_FIELDS = ("study_instance_uid", "study_date", "study_time", "study_id", "study_description")
_NUMBERS = ("placer_order_number", "placer_order_issuer", "filler_order_number", "filler_order_issuer")
_ORDER_FIELDS = (*_NUMBERS, "referring_physician_name", "request_attributes_json")
_POLL_S = 1.0

Ask = Callable[[LookupSettings, str, StudyContext], Sequence[StudyContext]]


@dataclass(frozen=True, slots=True)
class _Answer:
    """One patient and one order that a peer named, as a directory of just these."""

    found: StudyContext

    def patient(self, patient_id: str, issuer: str = "") -> Patient | None:
        """Return the patient; the peer knows no other."""
        if patient_id != self.found.patient_id:
            return None
        fields = ("patient_id", "issuer_of_patient_id", "patient_name", "patient_birth_date", "patient_sex")
        return Patient(**{name: getattr(self.found, name) for name in fields}, told_at=utc_now())

    def order(self, number: str) -> tuple[Order, Patient] | None:
        """Return the order and its patient."""
        patient = self.patient(self.found.patient_id)
        assert patient is not None
        fields = ("accession_number", *_NUMBERS, "referring_physician_name")
        return Order(**{name: getattr(self.found, name) for name in fields}, patient=0, told_at=utc_now()), patient


def resolve(context: StudyContext, found: Sequence[StudyContext], what: str) -> Match:
    """Return what is known of a page after a peer has answered, and why it must wait on ("" = it need not).

    Parameters
    ----------
    context
        What the page came with: an accession number, or a patient ID.
    found
        The peer's answers, all under the number that was asked for.
    what
        Whom was asked, in words.

    Notes
    -----
    Only an accession number leads to a study: of a patient known by number the rest of the record is taken, and no
    order or study, for nothing says which of them the page belongs to.
    """
    number = "accession number" if context.accession_number else "patient ID"
    if not found:
        return Match(context, NOT_FOUND.format(what, number))
    if len({(one.patient_id, one.issuer_of_patient_id) for one in found}) > 1:
        return Match(context, AMBIGUOUS.format(what, number))
    matched = match(context, _Answer(found[0]))
    if matched.hold_reason or not context.accession_number:
        return matched
    fields = list(_ORDER_FIELDS if len(found) == 1 else ())
    if len({one.study_instance_uid for one in found}) == 1:
        fields += _STUDY_FIELDS
    told = {name: value for name in fields if (value := getattr(found[0], name)) and not getattr(context, name)}
    return Match(matched.context.model_copy(update=told), "")


class Lookup:
    """One thread that asks for every source that has a peer to ask.

    Parameters
    ----------
    peers : Mapping[str, LookupSettings]
        For each source ("folder:<path>"), whom to ask.
    calling_ae_title : str
        Our AE title, where a peer's settings name none.
    first_s, maximum_s : float
        How long to wait after the first answer that did not settle it, doubled up to the maximum.
    """

    def __init__(
        self,
        store: Store,
        peers: Mapping[str, LookupSettings],
        calling_ae_title: str,
        *,
        ask: Ask = ask,
        first_s: float = 15.0,
        maximum_s: float = 1800.0,
    ) -> None:
        self._store = store
        self._peers = peers
        self._calling_ae_title = calling_ae_title
        self._ask = ask
        self._first_s = first_s
        self._maximum_s = maximum_s
        self._waits: dict[str, tuple[float, float]] = {}  # job or source -> asked again when (monotonic), wait then
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lookup", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether it asks, or has nobody to ask; False after `stop`."""
        return (self._thread.is_alive() or not self._peers) and not self._stopping.is_set()

    def start(self) -> None:
        """Begin to ask."""
        if self._peers:
            self._thread.start()

    def stop(self) -> None:
        """Stop; return when no query is under way any more."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def run_once(self) -> None:
        """Ask about every job whose time has come."""
        jobs = [job for job in self._store.jobs.unmatched(limit=1000) if job.source in self._peers]
        known = {job.id for job in jobs} | set(self._peers)
        self._waits = {key: value for key, value in self._waits.items() if key in known}
        for job in jobs:
            context = job.context
            if self._stopping.is_set():
                return
            if (context.accession_number or context.patient_id) and self._is_due(job.source) and self._is_due(job.id):
                self._look_up(job, context)

    def _run(self) -> None:
        while not self._stopping.wait(_POLL_S):
            try:
                self.run_once()
            except StorageError as error:
                logger.error("Storage is not usable: %s", error, extra={"action": "lookup"})

    def _look_up(self, job: Job, context: StudyContext) -> None:
        settings = self._peers[job.source]
        what = "worklist" if settings.model == "worklist" else "archive"
        try:
            found = self._ask(settings, self._calling_ae_title, context)
        except DeliveryError as error:
            logger.warning("Not looked up: %s", error, extra={"action": "lookup", "job_id": job.id})
            self._wait(job.source)  # whoever else waits for this peer
            self._store.jobs.looked_up(job, context, NO_ANSWER.format(what, error))
            return
        self._waits.pop(job.source, None)
        resolved = resolve(context, found, what)
        if not resolved.hold_reason:  # what HL7 messages told may contradict it
            resolved = match(resolved.context, self._store.patients)
        self._wait(job.id)
        self._store.jobs.looked_up(job, resolved.context, resolved.hold_reason)
        outcome = "waits" if resolved.hold_reason else "found"
        logger.info("Looked up: %s", outcome, extra={"action": "lookup", "job_id": job.id})

    def _is_due(self, key: str) -> bool:
        return key not in self._waits or time.monotonic() >= self._waits[key][0]

    def _wait(self, key: str) -> None:
        wait_s = self._waits[key][1] if key in self._waits else self._first_s
        self._waits[key] = (time.monotonic() + wait_s, min(2 * wait_s, self._maximum_s))
