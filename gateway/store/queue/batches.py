"""Many jobs changed by one decision: how many it would change, and the change itself.

The jobs are changed in transactions of a bounded size, each of them whole or not at all, so that nobody who receives
waits for long.  What a job's state does not allow any more at that moment is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import func
from sqlmodel import Session, col, select

from gateway.domain.status import JOB_TRANSITIONS, UNDELIVERED, JobAction, JobStatus
from gateway.store.database import SEVERAL_JOBS, Database, advance_job, cancel_undelivered, log_event, read_again
from gateway.store.deliveries import send_again
from gateway.store.queue.search import IDS_AT_ONCE
from gateway.store.tables import Delivery, Job

_JOBS_AT_ONCE = 100  # in one transaction


class BatchAction(StrEnum):
    """What is done to many jobs."""

    RETRY = "retry"
    CANCEL = "cancel"
    SEND = "send"  # again, what was refused or given up
    FIRST = "first"  # before the others that wait
    IN_TURN = "in-turn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A decision about many jobs; of `destination`, SEND sends what goes there only ("": everywhere)."""

    action: BatchAction
    job_ids: Sequence[str]
    destination: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """How many jobs a batch would change, by their status; how many it would leave; and how much it would send."""

    by_status: dict[JobStatus, int]
    left: int
    deliveries: int

    @property
    def jobs(self) -> int:
        """How many jobs it would change."""
        return sum(self.by_status.values())


class Batches:
    """Changes the jobs of one database, many at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def preview(self, batch: Batch) -> Preview:
        """Return what a batch would change now."""
        by_status: dict[JobStatus, int] = {}
        deliveries = 0
        with self._database.read() as session:
            for ids in _in_parts(batch.job_ids, IDS_AT_ONCE):
                jobs = select(Job.status, func.count()).where(col(Job.id).in_(ids), *_may_change(batch))
                for status, count in session.exec(jobs.group_by(col(Job.status))).all():
                    by_status[JobStatus(status)] = by_status.get(JobStatus(status), 0) + count
                sent = select(func.count()).select_from(Delivery).where(col(Delivery.job_id).in_(ids))
                deliveries += session.exec(sent.where(*_undelivered(batch.destination))).one()
        left = len(batch.job_ids) - sum(by_status.values())
        return Preview(by_status=by_status, left=left, deliveries=deliveries)

    def apply(self, batch: Batch, actor: str) -> list[str]:
        """Carry out a batch; return the ids of the jobs that were changed."""
        changed: list[str] = []
        detail = f"one of {len(batch.job_ids)} jobs" if len(batch.job_ids) > 1 else ""
        for ids in _in_parts(batch.job_ids, _JOBS_AT_ONCE):
            found = select(Job).where(col(Job.id).in_(ids), *_may_change(batch)).order_by(col(Job.id))
            with self._database.write(SEVERAL_JOBS) as session:
                jobs = session.exec(found.with_for_update(key_share=True)).all()
                for job in jobs:
                    _change(session, job, batch, actor, detail)
                done = [job.id for job in jobs]
            changed += done
        return changed


def _in_parts(ids: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), size):
        yield ids[start : start + size]


def _undelivered(destination: str) -> tuple[Any, ...]:
    undelivered: Any = col(Delivery.status).in_(UNDELIVERED)
    return (undelivered, Delivery.destination == destination) if destination else (undelivered,)


def _may_change(batch: Batch) -> tuple[Any, ...]:
    """Return the conditions on a job that its state allows the action."""
    match batch.action:
        case BatchAction.RETRY:
            return col(Job.status).in_(_allowed(JobAction.RETRY)), col(Job.purged_at).is_(None)
        case BatchAction.CANCEL:
            return (col(Job.status).in_(_allowed(JobAction.CANCEL)),)
        case BatchAction.SEND:
            return (col(Job.id).in_(select(Delivery.job_id).where(*_undelivered(batch.destination))),)
        case BatchAction.FIRST | BatchAction.IN_TURN:
            first = batch.action == BatchAction.FIRST
            return Job.status == JobStatus.QUEUED, col(Job.urgent).is_(not first)


def _allowed(action: JobAction) -> list[JobStatus]:
    return [status for status, possible in JOB_TRANSITIONS if possible == action]


def _change(session: Session, job: Job, batch: Batch, actor: str, detail: str) -> None:
    match batch.action:
        case BatchAction.RETRY:
            read_again(session, job, actor, detail)
        case BatchAction.CANCEL:
            advance_job(session, job, JobAction.CANCEL, actor, detail)
            job.reason = ""
            cancel_undelivered(session, job.id, actor)
        case BatchAction.SEND:
            for delivery in session.exec(
                select(Delivery).where(Delivery.job_id == job.id, *_undelivered(batch.destination))
            ).all():
                send_again(session, delivery, actor, detail)
        case BatchAction.FIRST | BatchAction.IN_TURN:
            job.urgent = batch.action == BatchAction.FIRST
            words = "before the others" if job.urgent else "in its turn"
            log_event(session, job.id, "PRIORITY", actor, f"{words}, {detail}" if detail else words)
