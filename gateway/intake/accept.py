"""What every way in does alike: bytes to the spool, a row to the store, and only then the acknowledgement.

The C-STORE SCP, the folder watcher and `gateway submit` all call `Intake.accept`.  When it returns, the object is
fsynced and its job is committed; when it raises, the sender is refused and may try again.  A repeat (same SOP
Instance UID, or same file from the same source under the same identity) is answered like the first and makes
nothing new.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import replace

from gateway.domain.context import StudyContext
from gateway.domain.identity import Evidence
from gateway.domain.received import Accepted, ReceivedObject
from gateway.domain.status import JobStatus
from gateway.errors import IntakeError
from gateway.identity.decide import decide
from gateway.identity.orders import search
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.store.tables import Job

logger = logging.getLogger(__name__)

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"BM", "image/bmp"),
)


class Intake:
    """The one door into the gateway."""

    def __init__(self, spool: Spool, store: Store) -> None:
        self._spool = spool
        self._store = store

    def accept(self, received: ReceivedObject, evidence: Evidence | None = None) -> Accepted:
        """Take one object; it is safe when this returns.

        Parameters
        ----------
        evidence
            What else is known about its identity.  An object without patient ID gets the patient of the order it names;
            one that names neither, or contradicts its order or its patient's record, waits for a person.

        Raises
        ------
        StorageError
            Spool or database cannot take it now.
        """
        known = self._store.jobs.find(received.source_key)
        if known is not None:
            return self._duplicate(known.id)
        evidence = replace(evidence or Evidence(), registered=received.media_type == "application/dicom")
        decision = decide(received.context, search(self._store.patients, received.context, evidence))
        job = Job(
            source=received.source,
            source_key=received.source_key,
            media_type=received.media_type,
            status=JobStatus.NEEDS_REVIEW if decision.hold_reason else JobStatus.QUEUED,
            reason=decision.hold_reason,
            context=decision.context,
            destinations_json=json.dumps(received.destinations),
            unmatched=decision.unmatched,
        )
        self._spool.write_source(job.id, received.data)
        stored, created = self._store.jobs.submit(job, received.actor)  # a failure leaves an orphan, never acknowledged
        if not created:
            self._spool.remove(job.id)
            return self._duplicate(stored.id)
        logger.info("Accepted %s from %s", job.media_type, job.source, extra={"action": "accept", "job_id": job.id})
        return Accepted(job_id=job.id, duplicate=False)

    def keep(self, received: ReceivedObject) -> Accepted:
        """Take an object that a DICOM peer sent; without Patient ID it always waits for a person."""
        return self.accept(received, Evidence(sent_by_peer=True))

    def sweep(self, retention_days: int) -> list[str]:
        """Delete files nobody needs: those without a job after a day, those of finished jobs after `retention_days`.

        Returns
        -------
        list[str]
            The jobs that have no files any more.
        """
        day_s = 86400.0
        useless = self._spool.orphans(self._store.jobs.exists, day_s)
        useless += self._spool.orphans(self._store.jobs.needs_files, retention_days * day_s)
        for job_id in dict.fromkeys(useless):
            self._spool.remove(job_id)
            logger.info("Removed the files of a job", extra={"action": "sweep", "job_id": job_id})
        return list(dict.fromkeys(useless))

    def _duplicate(self, job_id: str) -> Accepted:
        logger.info("Received a duplicate", extra={"action": "duplicate", "job_id": job_id})
        return Accepted(job_id=job_id, duplicate=True)


def file_key(source: str, context: StudyContext, data: bytes) -> str:
    """Return the key of a file that has no UID: the same bytes under another identity are another job.

    A page that was dropped with the wrong identity, or none, can so be dropped again with the right one.
    """
    identity = "\0".join((source, context.model_dump_json(exclude_defaults=True), ""))
    return hashlib.sha256(identity.encode() + data).hexdigest()


def media_type_of(data: bytes) -> str:
    """Return the media type the bytes themselves show; a file's name proves nothing.

    Raises
    ------
    IntakeError
        The file is empty, or none of DICOM (PS3.10 section 7.1), PDF, PNG, JPEG, TIFF, BMP.
    """
    if not data:
        raise IntakeError("the file is empty")
    if data[128:132] == b"DICM":
        return "application/dicom"
    if b"%PDF-" in data[:1024]:
        return "application/pdf"
    for signature, media_type in _SIGNATURES:
        if data.startswith(signature):
            return media_type
    raise IntakeError("the file is no DICOM, PDF, PNG, JPEG, TIFF or BMP")
