"""What every way in does alike: bytes to the spool, a row to the store, and only then the acknowledgement.

The C-STORE SCP, the folder watcher and `gateway submit` all call `Intake.accept`.  When it returns, the object is
fsynced and its job is committed; when it raises, the sender is refused and may try again.

What comes under the key of a job (its SOP Instance UID, or the hash of a file with its source and identity) is
compared with what was received first:

    the same object, source at hand          a repeat: answered like the first, nothing is new
    the same object, source gone or FAILED   the source is replaced, the job is queued
    another object, job FAILED or its        the same if it is of the same patient and study: a file that was cut
      source gone before it ran              short comes again whole
    any other object                         a job of its own, held for a person; both are kept
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import BinaryIO

from gateway.dicom.images.difference import data_set_digest, differences
from gateway.domain.context import StudyContext
from gateway.domain.identity import Decision, Evidence
from gateway.domain.received import Accepted, Data, ReceivedObject, digest_of, opened
from gateway.domain.status import JobStatus
from gateway.errors import IntakeError, StorageError, UndecodableDataset, UnreadableFile
from gateway.identity.decide import decide
from gateway.identity.orders import search
from gateway.spool.folder import Spool
from gateway.spool.place import RESULTS
from gateway.store.store import Store
from gateway.store.tables import Job, new_id

logger = logging.getLogger(__name__)

_DICOM = "application/dicom"
_REPLACEABLE = (JobStatus.FAILED, JobStatus.QUEUED, JobStatus.RUNNING)  # nothing was made of their source yet
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"BM", "image/bmp"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arrival:
    """An object, what else is known about it, and the digest of what was received."""

    received: ReceivedObject
    evidence: Evidence
    digest: str


class Intake:
    """The one door into the gateway."""

    def __init__(self, spool: Spool, store: Store) -> None:
        self._spool = spool
        self.store = store
        self._comparing = threading.Lock()  # one at a time: each takes the memory of two data sets

    def accept(self, received: ReceivedObject, evidence: Evidence | None = None, job_id: str = "") -> Accepted:
        """Take one object; it is safe when this returns.

        Parameters
        ----------
        evidence
            What else is known about its identity.  An object without patient ID gets the patient of the order it names;
            one that names neither, or contradicts its order or its patient's record, waits for a person.
        job_id
            What a new job is called, where its files are in the spool already.

        Raises
        ------
        StorageError
            Spool or database cannot take it now.
        """
        evidence = replace(evidence or Evidence(), registered=received.media_type == _DICOM)
        digest = source_digest(received.media_type, received.data)
        return self._take(_Arrival(received=received, evidence=evidence, digest=digest), job_id)

    def _take(self, arrival: _Arrival, job_id: str = "") -> Accepted:
        known = self.store.jobs.find(arrival.received.source_key)
        if known is not None:
            return self._again(known, arrival)
        return self._new(arrival, self._decide(arrival), job_id)

    def _new(self, arrival: _Arrival, decision: Decision, job_id: str = "") -> Accepted:
        received = arrival.received
        job = Job(
            id=job_id or new_id(),
            source=received.source,
            source_key=received.source_key,
            source_digest=arrival.digest,
            media_type=received.media_type,
            file_name=received.file_name,
            status=JobStatus.NEEDS_REVIEW if decision.hold_reason else JobStatus.QUEUED,
            reason=decision.hold_reason,
            context=decision.context,
            destinations_json=json.dumps(received.destinations),
            unmatched=decision.unmatched,
            imported=bool(received.results),
        )
        try:
            self._spool.write_source(job.id, received.data)
            if received.results:
                self._spool.write_artefact(job.id, RESULTS, received.results)
            stored, created = self.store.jobs.submit(job, received.actor, decide)
        except StorageError:
            if not job_id:
                self._forget(job.id)
            raise
        if not created:
            self._spool.remove(job.id)
            return self._again(stored, arrival)
        logger.info("Accepted %s from %s", job.media_type, job.source, extra={"action": "accept", "job_id": job.id})
        return Accepted(job_id=job.id, duplicate=False)

    def has(self, source_key: str) -> bool:
        """Return whether nothing would be gained by receiving this again: it is a job's, and so is its source."""
        known = self.store.jobs.find(source_key)
        if known is None:
            return False
        with self._kept(known) as kept:
            return not self._lacks_source(known, kept)

    def is_known(self, sop_instance_uid: str) -> bool:
        """Return whether an object is a job's already, or one that we made and sent."""
        return self.has(sop_instance_uid) or self.store.deliveries.made_here(sop_instance_uid)

    def queued(self) -> int:
        """Return how many jobs wait for a worker."""
        return self.store.jobs.counts()[JobStatus.QUEUED]

    # -- what comes under the key of a job ------------------------------------------------------------------------

    def _again(self, known: Job, arrival: _Arrival) -> Accepted:
        received = arrival.received
        with self._kept(known) as kept:
            difference = self._difference(known, kept, arrival)
            broken = known.status == JobStatus.FAILED or self._lacks_source(known, kept)
            if not difference and not broken:
                logger.info("Received a duplicate", extra={"action": "duplicate", "job_id": known.id})
                return Accepted(job_id=known.id, duplicate=True)
            same_owner = _same_owner(known.context, received.context)
            if difference and not (broken and same_owner and known.status in _REPLACEABLE):
                return self._beside(known, arrival, difference)
            if difference and kept is not None:
                name = f"earlier-source-{source_digest(known.media_type, kept)[:16]}"
                self._spool.write_artefact(known.id, name, kept)
        self._spool.write_source(known.id, received.data)
        decision = self._decide(arrival) if difference else None
        if not self.store.jobs.renew_source(known, arrival.digest, received.actor, decision):
            return self._take(arrival)  # a worker or a person was faster: look again
        logger.warning("Replaced the source of a job", extra={"action": "renew", "job_id": known.id})
        return Accepted(job_id=known.id, duplicate=True)

    def _beside(self, known: Job, arrival: _Arrival, difference: str) -> Accepted:
        """Keep another object with the key of a job as a job of its own, which only a person can let go on."""
        key = f"{arrival.received.source_key}:{arrival.digest[:32]}"
        second = replace(arrival, received=replace(arrival.received, source_key=key))
        repeat = self.store.jobs.find(key)
        if repeat is not None:
            return self._again(repeat, second)
        reason = f"another object with the SOP Instance UID of job {known.id} was received; {difference}"
        logger.warning("Received another object under the UID of a job", extra={"action": "hold", "job_id": known.id})
        contradictions = (*arrival.evidence.contradictions, reason)
        second = replace(second, evidence=replace(arrival.evidence, contradictions=contradictions))
        return self._new(second, replace(self._decide(second), unmatched=False))

    def _forget(self, job_id: str) -> None:
        """Remove the source of a job that was not committed, if that is certain: its sender is refused."""
        with suppress(StorageError):
            if not self.store.jobs.exists(job_id):
                self._spool.remove(job_id)

    def _decide(self, arrival: _Arrival) -> Decision:
        context = arrival.received.context
        return decide(context, search(self.store.patients, context, arrival.evidence))

    @contextmanager
    def _kept(self, job: Job) -> Iterator[BinaryIO | None]:
        """Have the source of a job open; None where it is gone, cannot be read, or is not what was received."""
        try:
            file = self._spool.open_file(job.id)
        except UnreadableFile:
            file = None
        if file is None:
            yield None
            return
        with file:
            try:
                whole = job.source_digest in ("", source_digest(job.media_type, file))
            except OSError:
                whole = False
            yield file if whole else None

    def _lacks_source(self, job: Job, kept: BinaryIO | None) -> bool:
        return kept is None and self.store.jobs.needs_files(job.id)

    def _difference(self, known: Job, kept: BinaryIO | None, arrival: _Arrival) -> str:
        """Return in words in what an object differs from the one of a job; "" where it is the same."""
        received = arrival.received
        if received.media_type != _DICOM or known.source_digest == arrival.digest:  # a file's key is made of its bytes
            return ""
        if kept is None:
            return "it cannot be compared: the bytes of that job are not kept any more"
        if not known.source_digest and source_digest(known.media_type, kept) == arrival.digest:
            return ""
        with self._comparing:
            found = differences(kept, received.data)
        return f"it differs in: {', '.join(found)}" if found else ""


def source_digest(media_type: str, data: Data) -> str:
    """Return the SHA-256 of what was received: of a DICOM object its transfer syntax and data set, else all bytes."""
    try:
        return data_set_digest(data) if media_type == _DICOM else digest_of(opened(data))
    except UndecodableDataset:
        return digest_of(opened(data))


def _same_owner(one: StudyContext, other: StudyContext) -> bool:
    """Return whether two contexts name the same patient and study, or one of them none."""
    pairs = ((one.patient_id, other.patient_id), (one.study_instance_uid, other.study_instance_uid))
    return all(not first or not second or first == second for first, second in pairs)


def file_key(source: str, context: StudyContext, data: Data) -> str:
    """Return the key of a file that has no UID: the same bytes under another identity are another job.

    A page that was dropped with the wrong identity, or none, can so be dropped again with the right one.
    """
    identity = "\0".join((source, context.model_dump_json(exclude_defaults=True), ""))
    return digest_of(opened(data), identity.encode())


def media_type_of(data: Data) -> str:
    """Return the media type the bytes themselves show; a file's name proves nothing.

    Raises
    ------
    IntakeError
        The file is empty, or none of DICOM (PS3.10 section 7.1), PDF, PNG, JPEG, TIFF, BMP.
    """
    begin = opened(data).read(1024)
    if not begin:
        raise IntakeError("the file is empty")
    if begin[128:132] == b"DICM":
        return "application/dicom"
    if b"%PDF-" in begin:
        return "application/pdf"
    for signature, media_type in _SIGNATURES:
        if begin.startswith(signature):
            return media_type
    raise IntakeError("the file is no DICOM, PDF, PNG, JPEG, TIFF or BMP")
