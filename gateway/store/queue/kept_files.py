"""Which jobs keep their files: until everything is delivered and decided, while a legal hold lasts, and for a time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, func, or_
from sqlmodel import Session, col, select

from gateway.domain.clock import utc_now
from gateway.domain.status import UNDELIVERED, UNSETTLED, JobStatus
from gateway.store.database import Database, check_files, lock_job, log_event
from gateway.store.tables import Delivery, Job, MergeNotice

_FINISHED = (JobStatus.DONE, JobStatus.CANCELLED)
_IDS_AT_ONCE = 500  # parameters of one statement


class KeptFiles:
    """The jobs of one database, as far as their files are concerned."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def purgeable(self, before: datetime, limit: int) -> list[str]:
        """Return jobs whose files nobody needs any more, those that ended first at the beginning.

        Such a job is DONE or CANCELLED, all its deliveries arrived or were cancelled, both before `before`; no merge
        of its patient waits for a person, and there is no legal hold.
        """
        oldest = select(Job.id).where(*_purgeable(before)).order_by(col(Job.updated_at), col(Job.id)).limit(limit)
        with self._database.read() as session:
            return list(session.exec(oldest).all())

    def purge(self, job_id: str, before: datetime, actor: str, detail: str) -> bool:
        """Record that the files of a job are deleted now; False if they are needed after all.

        The row and its trail stay, so that the object is known when it is received again.
        """
        with self._database.write() as session:
            job = lock_job(session, job_id)
            if session.exec(select(Job.id).where(Job.id == job_id, *_purgeable(before))).first() is None:
                return False
            job.purged_at = utc_now()
            log_event(session, job_id, "PURGE", actor, detail)
            return True

    def purged(self, job_ids: Sequence[str]) -> list[str]:
        """Return those of these jobs whose files were deleted, or should have been when the process ended."""
        found: list[str] = []
        with self._database.read() as session:
            for start in range(0, len(job_ids), _IDS_AT_ONCE):
                some = col(Job.id).in_(job_ids[start : start + _IDS_AT_ONCE])
                found += session.exec(select(Job.id).where(some, col(Job.purged_at).is_not(None))).all()
        return found

    def count(self) -> int:
        """Return how many jobs have their files."""
        with self._database.read() as session:
            return session.exec(select(func.count()).select_from(Job).where(col(Job.purged_at).is_(None))).one()

    def hold(self, job_id: str, actor: str) -> None:
        """Keep the files of a job until `release`; IllegalTransition is raised where they are deleted already."""
        with self._database.write() as session:
            job = lock_job(session, job_id)
            check_files(job)
            _set_hold(session, job, actor, on=True)

    def release(self, job_id: str, actor: str) -> None:
        """End the legal hold of a job."""
        with self._database.write() as session:
            _set_hold(session, lock_job(session, job_id), actor, on=False)


def _set_hold(session: Session, job: Job, actor: str, *, on: bool) -> None:
    if job.legal_hold != on:
        job.legal_hold = on
        log_event(session, job.id, "LEGAL_HOLD" if on else "LEGAL_HOLD_END", actor, "")


def _purgeable(before: datetime) -> tuple[ColumnElement[bool], ...]:
    unfinished = or_(col(Delivery.status).in_((*UNSETTLED, *UNDELIVERED)), col(Delivery.delivered_at) >= before)
    merged = select(MergeNotice.id).where(MergeNotice.job_id == Job.id, MergeNotice.settled_by == "")
    return (
        col(Job.purged_at).is_(None),
        col(Job.status).in_(_FINISHED),
        col(Job.updated_at) < before,
        ~col(Job.legal_hold),
        ~select(Delivery.id).where(Delivery.job_id == Job.id, unfinished).exists(),
        ~merged.exists(),
    )
