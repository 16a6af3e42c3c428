"""Reviews: which job is next, who has it open, the two decisions that make a result final, and their carrying out.

A decision waits until its time (`gateway.domain.review.UNDO`): before, it can be taken back, and nothing has left.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, update
from sqlmodel import Session, col, or_, select

from gateway.domain.artefact import WITHDRAWALS, Role
from gateway.domain.clock import utc_now
from gateway.domain.review import CLAIM, UNDO, Stake, Verdict
from gateway.domain.status import JobAction, JobStatus
from gateway.errors import IllegalTransition
from gateway.store.database import (
    Database,
    advance_job,
    arrived,
    cancel_undelivered,
    changes_after,
    check_files,
    find_job,
    job_version,
    lock_job,
    log_event,
)
from gateway.store.deliveries import put_delivery
from gateway.store.tables import Delivery, Job, JobEvent, ReviewDecision

_OPEN = (JobStatus.NEEDS_REVIEW, JobStatus.FAILED, JobStatus.DONE)


class Review:
    """The jobs that a person must see, and what he decided."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def worklist(self, limit: int = 100, offset: int = 0, *, doubtful: bool = False) -> list[Job]:
        """Return the jobs without a decision, by what is at stake, then the oldest first.

        Parameters
        ----------
        doubtful
            Leave out those that nothing is doubtful about.
        """
        statement = select(Job).where(*_waiting(doubtful))
        statement = statement.order_by(col(Job.stake), col(Job.created_at), col(Job.id)).limit(limit).offset(offset)
        with self._database.read() as session:
            return list(session.exec(statement).all())

    def count(self, *, doubtful: bool = False) -> int:
        """Return how many jobs the worklist has."""
        with self._database.read() as session:
            return session.exec(select(func.count()).select_from(Job).where(*_waiting(doubtful))).one()

    def claim(self, job_id: str, reviewer: str) -> str:
        """Make a job a reviewer's for a while, unless it is another's; return whose it is.

        Raises
        ------
        NotFound
            There is no such job.
        """
        now = utc_now()
        free = or_(col(Job.reviewer).in_(["", reviewer]), col(Job.reviewer_until) <= now)
        with self._database.write() as session:
            claim = update(Job).where(col(Job.id) == job_id, free)
            session.execute(claim.values(reviewer=reviewer, reviewer_until=now + CLAIM))
            return find_job(session, job_id).reviewer

    def take_over(self, job_id: str, reviewer: str) -> None:
        """Make a job a reviewer's that another has open; the trail says so."""
        with self._database.write() as session:
            job = lock_job(session, job_id)
            if job.reviewer and job.reviewer != reviewer:
                log_event(session, job_id, "TAKE_OVER", reviewer, f"from {job.reviewer}")
            job.reviewer, job.reviewer_until = reviewer, utc_now() + CLAIM

    def leave(self, job_id: str, reviewer: str) -> None:
        """Give a job back that a reviewer has open."""
        mine = (col(Job.id) == job_id, col(Job.reviewer) == reviewer)
        with self._database.write() as session:
            session.execute(update(Job).where(*mine).values(reviewer="", reviewer_until=None))

    def version(self, job_id: str) -> int:
        """Return what a form must name to say which state of the job it was filled in for."""
        with self._database.read() as session:
            return job_version(session, job_id)

    def changes(self, job_id: str, version: int) -> list[JobEvent]:
        """Return what happened to a job after a version of it, oldest first."""
        with self._database.read() as session:
            return list(changes_after(session, job_id, version))

    def check(self, job_id: str, version: int, actor: str) -> None:
        """Raise IllegalTransition where a reviewer may not change a job: see `agree`."""
        with self._database.write() as session:
            self._mine(session, job_id, version, actor)

    def agree(self, job_id: str, version: int, actor: str, **agreed: bool) -> None:
        """Record that the `traces` or the `patient` of a job agree with its page, or do not any more.

        Raises
        ------
        IllegalTransition
            The job has changed since `version`, has no result or no patient, or is another reviewer's.
        """
        with self._database.write() as session:
            job = self._mine(session, job_id, version, actor)
            if agreed.get("patient") and not job.patient_id:
                raise IllegalTransition("the job has no patient ID yet")
            if agreed.get("traces") and job.status not in (JobStatus.DONE, JobStatus.NEEDS_REVIEW):
                raise IllegalTransition("the job has no traces yet")
            for what, yes in agreed.items():
                setattr(job, f"{what}_agreed_by", actor if yes else "")
                log_event(session, job_id, f"{what.upper()}_{'AGREE' if yes else 'OPEN'}", actor, "")

    def decide(self, job_id: str, version: int, decision: ReviewDecision) -> None:
        """Record a reviewer's decision; it is carried out when its time for an undo has passed.

        Raises
        ------
        IllegalTransition
            The job has changed since `version`, is another reviewer's, or one of the two agreements is missing.
        """
        with self._database.write() as session:
            job = self._mine(session, job_id, version, decision.actor)
            check_files(job)
            if decision.verdict == Verdict.ACCEPT and not (job.traces_agreed_by and job.patient_agreed_by):
                raise IllegalTransition("a result is final only if its traces agree and its patient is right")
            log_event(session, job_id, f"DECIDE_{decision.verdict}", decision.actor, decision.reason)
            session.flush()
            decision.version = job_version(session, job_id)
            session.add(decision)

    def undo(self, job_id: str, actor: str) -> bool:
        """Take back a decision before its time; return whether there was one that could be."""
        with self._database.write() as session:
            lock_job(session, job_id)
            decision = session.get(ReviewDecision, job_id)
            if decision is None or decision.due_at <= utc_now():
                return False
            session.delete(decision)
            log_event(session, job_id, "UNDO", actor, "")
            return True

    def decision(self, job_id: str) -> ReviewDecision | None:
        """Return the decision about a job that waits to be carried out, if any."""
        with self._database.read() as session:
            return session.get(ReviewDecision, job_id)

    def revocable(self, actor: str) -> list[ReviewDecision]:
        """Return the decisions of a reviewer that he can still take back, the newest first."""
        statement = select(ReviewDecision).where(ReviewDecision.actor == actor, ReviewDecision.due_at > utc_now())
        with self._database.read() as session:
            return list(session.exec(statement.order_by(col(ReviewDecision.due_at).desc())).all())

    def due(self, now: datetime | None = None) -> list[ReviewDecision]:
        """Return the decisions whose time has come, oldest first."""
        statement = select(ReviewDecision).where(ReviewDecision.due_at <= (now or utc_now()))
        with self._database.read() as session:
            return list(session.exec(statement.order_by(col(ReviewDecision.due_at))).all())

    def settle(self, job_id: str, problem: str = "") -> None:
        """Forget a decision that was carried out, or could not be: `problem` says why, and the job waits again."""
        with self._database.write() as session:
            job = lock_job(session, job_id)
            if (decision := session.get(ReviewDecision, job_id)) is not None:
                session.delete(decision)
            if problem:
                log_event(session, job_id, "NOT_CARRIED_OUT", "review", problem)
                job.traces_agreed_by = ""

    def reject(self, job_id: str, reason: str, actor: str, deliveries: Sequence[Delivery] = ()) -> list[str]:
        """End a job without a result, and what it has not delivered.

        Parameters
        ----------
        deliveries
            What tells the destinations that have a result that it is rejected.

        Returns
        -------
        list of str
            The destinations that have a result and are not told.
        """
        with self._database.write() as session:
            job = lock_job(session, job_id)
            advance_job(session, job, JobAction.REJECT, actor, reason)
            if (decision := session.get(ReviewDecision, job_id)) is not None:
                session.delete(decision)
            cancel_undelivered(session, job_id, actor, detail="the page was rejected")
            told = sorted({each.destination for each in deliveries})
            untold = [name for name in _holders(session, job_id) if name not in told]
            for delivery in deliveries:
                put_delivery(session, delivery)
            if told:
                job.revision += 1  # what is made of the page after this has other identifiers
                log_event(session, job_id, "WITHDRAW", actor, f"to {', '.join(told)}")
            if untold:
                log_event(session, job_id, "NOT_TOLD", actor, f"these have a result of the page: {', '.join(untold)}")
            return untold

    def holders(self, job_id: str) -> list[str]:
        """Return the destinations that have a result of a job, and were not told that it is rejected."""
        with self._database.read() as session:
            return _holders(session, job_id)

    @staticmethod
    def _mine(session: Session, job_id: str, version: int, actor: str) -> Job:
        job = lock_job(session, job_id)
        if job_version(session, job_id) != version:
            raise IllegalTransition("the job has changed since this page was loaded")
        if job.reviewer not in ("", actor) and (job.reviewer_until or utc_now()) > utc_now():
            raise IllegalTransition(f"{job.reviewer} has this job open")
        if session.get(ReviewDecision, job_id) is not None:
            raise IllegalTransition("the job is decided already")
        return job


def new_decision(job_id: str, verdict: Verdict, actor: str, reason: str = "") -> ReviewDecision:
    """Return a decision that is taken now."""
    now = utc_now()
    return ReviewDecision(job_id=job_id, verdict=verdict, actor=actor, reason=reason, decided_at=now, due_at=now + UNDO)


def _waiting(doubtful: bool) -> Sequence[Any]:
    """Return the conditions of a job that waits for a reviewer."""
    decided = select(ReviewDecision.job_id).where(ReviewDecision.job_id == Job.id).exists()
    conditions = [col(Job.status).in_(_OPEN), Job.confirmed_by == "", col(Job.purged_at).is_(None), ~decided]
    return [*conditions, Job.stake != Stake.NONE] if doubtful else conditions


def _holders(session: Session, job_id: str) -> list[str]:
    """Return the destinations at which the newest that arrived is a result, and no withdrawal after it."""
    newest: dict[str, list[int]] = {}  # destination: twice the newest revision of a result, and of what rejects one
    for each in session.exec(select(Delivery).where(Delivery.job_id == job_id, arrived())).all():
        withdraws = each.result_status in WITHDRAWALS
        rejects = withdraws or each.role == Role.REJECTION
        found = newest.setdefault(each.destination, [-1, -1])
        found[rejects] = max(found[rejects], 2 * each.revision + withdraws)  # a correction's note has its revision
    return sorted(name for name, (result, rejection) in newest.items() if result >= rejection)
