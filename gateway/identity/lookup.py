"""Queries a worklist or an archive for the patients of unmatched pages of a folder, until they are known.

A page that came with an accession number or a patient ID alone waits as an unmatched job.  One thread asks the folder's
peer about each, soon at first, then less and less often: an order may be entered late, and a peer may be down.  Its
answer goes through the same rules as an order that came by HL7: it completes what the page says, or contradicts it.
A person, or a message, may be faster; then the answer is dropped.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from gateway.dicom.network.worklist import ask
from gateway.domain.account import User
from gateway.domain.audit import AuditKind
from gateway.domain.context import StudyContext
from gateway.domain.identity import Evidence, PeerAnswer
from gateway.errors import DeliveryError, StorageError
from gateway.identity.decide import decide
from gateway.identity.orders import search
from gateway.settings import LookupSettings
from gateway.store.store import Store
from gateway.store.tables import AuditEntry, Job
from gateway.store.trail import Trail
from gateway.threads import OnDuty, always

logger = logging.getLogger(__name__)

_ACTOR = "lookup"
_POLL_S = 1.0
_MAXIMUM_S = 1800.0

Ask = Callable[[LookupSettings, str, StudyContext], Sequence[StudyContext]]


class Lookup:
    """One thread that asks for every source that has a peer to ask.

    Parameters
    ----------
    peers : Mapping[str, LookupSettings]
        For each source ("folder:<path>"), whom to ask.
    calling_ae_title : str
        Our AE title, where a peer's settings name none.
    first_s : float
        How long to wait after the first answer that did not settle it, doubled up to half an hour.
    on_duty
        Tells whether this node asks.
    """

    def __init__(
        self,
        store: Store,
        peers: Mapping[str, LookupSettings],
        calling_ae_title: str,
        *,
        ask: Ask = ask,
        first_s: float = 15.0,
        on_duty: OnDuty = always,
    ) -> None:
        self._store = store
        self._peers = peers
        self._calling_ae_title = calling_ae_title
        self._ask = ask
        self._first_s = first_s
        self._on_duty = on_duty
        self._waits: dict[str, tuple[float, float]] = {}  # job or source -> asked again when (monotonic), wait then
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lookup", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether it asks; False before `start` and after `stop` too."""
        return self._thread.is_alive() and not self._stopping.is_set()

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def replace(self, peers: Mapping[str, LookupSettings]) -> None:
        """Ask these from now on."""
        self._peers = peers

    def stop(self) -> None:
        """Stop; return when no query is under way any more."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def run_once(self) -> None:
        """Ask about every job that is due."""
        peers = self._peers
        jobs = [job for job in self._store.jobs.unmatched(limit=1000) if job.source in peers] if peers else []
        known = {job.id for job in jobs} | set(peers)
        self._waits = {key: value for key, value in self._waits.items() if key in known}
        for job in jobs:
            context = job.context
            if self._stopping.is_set():
                return
            if (context.accession_number or context.patient_id) and self._is_due(job.source) and self._is_due(job.id):
                self._look_up(job, peers[job.source])

    def _run(self) -> None:
        while not self._stopping.wait(_POLL_S):
            try:
                if self._on_duty():
                    self.run_once()
            except StorageError as error:
                logger.error("Storage is not usable: %s", error, extra={"action": "lookup"})

    def _look_up(self, job: Job, settings: LookupSettings) -> None:
        peer = "worklist" if settings.model == "worklist" else "archive"
        try:
            found = self._ask(settings, self._calling_ae_title, job.context)
        except DeliveryError as error:
            logger.warning("Not looked up: %s", error, extra={"action": "lookup", "job_id": job.id})
            self._wait(job.source)  # all other jobs of this peer wait with it
            decision = decide(job.context, Evidence(answer=PeerAnswer(peer=peer, problem=str(error))))
            self._store.jobs.decide(job, decision, _ACTOR)
            return
        self._waits.pop(job.source, None)
        decision = decide(job.context, Evidence(answer=PeerAnswer(peer=peer, found=tuple(found))))
        if not decision.hold_reason:  # what HL7 messages said may contradict it
            decision = decide(decision.context, search(self._store.patients, decision.context))
        self._wait(job.id)
        self._store.jobs.decide(job, decision, _ACTOR)
        outcome = "waits" if decision.hold_reason else "found"
        logger.info("Looked up: %s", outcome, extra={"action": "lookup", "job_id": job.id})

    def _is_due(self, key: str) -> bool:
        return key not in self._waits or time.monotonic() >= self._waits[key][0]

    def _wait(self, key: str) -> None:
        wait_s = self._waits[key][1] if key in self._waits else self._first_s
        self._waits[key] = (time.monotonic() + wait_s, min(2 * wait_s, _MAXIMUM_S))


def audited_ask(
    trail: Trail, settings: LookupSettings, calling_ae_title: str, context: StudyContext, user: User | None = None
) -> Sequence[StudyContext]:
    """Ask a peer, for a person where there is one, and have the audit repository, where there is one, told of it."""
    number = context.accession_number
    keys = f"AccessionNumber={number}" if number else f"PatientID={context.patient_id}"
    failed = True
    try:
        found = ask(settings, calling_ae_title, context)
        failed = False
        return found
    finally:
        entry = AuditEntry(
            kind=AuditKind.QUERY,
            name=user.name if user else _ACTOR,
            full_name=user.shown if user else "",
            address=settings.host,
            detail=f"{settings.model} {keys}",
            failed=failed,
        )
        trail.record(entry)
