"""Files in the spool that no job explains: what is told about them, and how they become jobs again.

They are what an interrupted intake left, or the database was lost, or restored from an older copy.  The folder keeps
its name, so the job gets the id that it had, and what is made of it gets the same UIDs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.dicom.images.pages import read_context
from gateway.domain.context import StudyContext
from gateway.domain.identity import Evidence
from gateway.domain.received import Accepted, ReceivedObject
from gateway.errors import IntakeError, StorageError, UnreadableFile
from gateway.intake.accept import Intake, file_key, media_type_of
from gateway.spool.folder import Spool
from gateway.store.store import Store

logger = logging.getLogger(__name__)

HELD = "recovered from the spool: it is not known any more whose ECG it is, and where its result goes"
_ON_THE_WAY_S = 600.0  # younger files may be on their way in
_INTERRUPTED = 50  # more sources than this are not what a crash leaves


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What became of one folder: its job, or why there is none."""

    job_id: str
    accepted: Accepted | None = None
    problem: str = ""


def unexplained(spool: Spool, store: Store) -> list[str]:
    """Return the folders in the spool that no job explains, without those that may be on their way in."""
    return store.jobs.unknown(spool.unchanged(_ON_THE_WAY_S))


def check_origin(spool: Spool, store: Store) -> None:
    """Raise StorageError where the database cannot be the one that the spool was filled with.

    It is empty, or results in the spool belong to no job, or more sources than an interrupted intake leaves.
    """
    found = unexplained(spool, store)
    if not found:
        return
    empty = not store.jobs.newest(limit=1)
    if empty or len(found) > _INTERRUPTED or any(spool.holds_results(job_id) for job_id in found):
        state = "is empty" if empty else "may be older than the spool"
        raise StorageError(
            f"the database {store.database.url.render_as_string(hide_password=True)} {state}: the spool "
            f"{spool.where()} holds files of {len(found)} jobs that it does not know. Restore the database, or "
            "make jobs of these files with `ecg-gateway recover`, or start without them with `serve --new`"
        )
    logger.warning("The files of %d jobs in the spool belong to no job", len(found), extra={"action": "start"})


def recover(intake: Intake, spool: Spool, store: Store) -> Iterator[Recovered]:
    """Make a job of every folder that no job explains, and yield what became of each.

    A DICOM object has its identity; any other file waits for a person.  What cannot become a job stays in quarantine.
    StorageError is raised while a backup is written: it must not miss what moves.
    """
    with spool.may_delete() as allowed:
        if not allowed:
            raise StorageError("a backup is being written, or old files are deleted: try again later")
        yield from _recover(intake, spool, store)


def _recover(intake: Intake, spool: Spool, store: Store) -> Iterator[Recovered]:
    for job_id in unexplained(spool, store):
        spool.quarantine(job_id)
    for job_id in spool.quarantined():
        try:
            data = spool.read_quarantined(job_id)
            if data is None:
                raise IntakeError("there is no source")
            received, evidence = _received(data)
        except (IntakeError, UnreadableFile) as error:
            yield Recovered(job_id=job_id, problem=str(error))
            continue
        spool.release(job_id)
        accepted = intake.accept(received, evidence, job_id)
        if accepted.job_id != job_id:  # the same object is a job's already
            spool.remove(job_id)
        logger.info("Recovered a file", extra={"action": "recover", "job_id": accepted.job_id})
        yield Recovered(job_id=job_id, accepted=accepted)


def _received(data: bytes) -> tuple[ReceivedObject, Evidence]:
    media_type = media_type_of(data)
    is_dicom = media_type == "application/dicom"
    context = read_context(data) if is_dicom else StudyContext()
    source_key = context.source_sop_instance_uid if is_dicom else file_key("recover", context, data)
    if not source_key:
        raise IntakeError("the DICOM file has no SOP Instance UID")
    received = ReceivedObject(
        source="recover", source_key=source_key, media_type=media_type, data=data, context=context, actor="recover"
    )
    return received, Evidence(contradictions=() if is_dicom else (HELD,))
