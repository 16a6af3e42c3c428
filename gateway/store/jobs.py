"""Jobs, their pages and their audit trail, and the workers that were seen.

Intake submits a job; a worker claims it under a lease and completes it together with its pages and deliveries.  A
change of status is looked up in the table of `gateway.domain.status` and leaves a `JobEvent` in the same transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import and_, case, func, update
from sqlmodel import Session, col, delete, select

from gateway.domain.clock import utc_now
from gateway.domain.context import StudyContext
from gateway.domain.identity import Decide, Decision
from gateway.domain.status import UNSETTLED, JobAction, JobStatus, next_job_status
from gateway.errors import IllegalTransition, NotFound
from gateway.store.backends.postgresql import announce
from gateway.store.database import (
    SEVERAL_JOBS,
    Database,
    advance_job,
    apply_decision,
    cancel_undelivered,
    changes_after,
    check_files,
    find_job,
    lock_job,
    log_event,
    queue_again,
    read_again,
)
from gateway.store.deliveries import put_delivery
from gateway.store.patients import match_order
from gateway.store.tables import Delivery, Job, JobEvent, Page, WorkerSeen

_FORGOTTEN = timedelta(days=1)
_CLOCKS = timedelta(minutes=1)  # between the clocks of two machines; what is later was written by a wrong one
_IDS_AT_ONCE = 500  # parameters of one statement
_RESULT_ACTIONS = {
    JobStatus.DONE: JobAction.COMPLETE,
    JobStatus.NEEDS_REVIEW: JobAction.HOLD,
    JobStatus.FAILED: JobAction.FAIL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """What a run of a job gave; `status` is DONE, NEEDS_REVIEW or FAILED."""

    status: JobStatus
    reason: str = ""
    pages: Sequence[Page] = ()
    deliveries: Sequence[Delivery] = ()
    notes: Sequence[str] = ()  # for the trail, without patient data


class Jobs:
    """The jobs of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def submit(self, job: Job, actor: str, decide: Decide | None = None) -> tuple[Job, bool]:
        """Insert a job, or find the one that already has its `source_key`.

        One that waits for an order looks for it once more, in the turn of the orders: either it finds the order, or
        the order that comes finds the job.

        Parameters
        ----------
        job : Job
            QUEUED, or NEEDS_REVIEW with its reason where it must wait for a person.
        decide : Decide or None
            Decides about a job that waits for its order; None where none is looked for.

        Returns
        -------
        tuple[Job, bool]
            The job as stored, and whether it is new.
        """
        if job.status not in (JobStatus.QUEUED, JobStatus.NEEDS_REVIEW):
            raise IllegalTransition(f"a job cannot start {job.status}")
        waits = job.unmatched and decide is not None
        with self._database.write(f"job {job.source_key}", *([SEVERAL_JOBS] if waits else [])) as session:
            known = session.exec(select(Job).where(Job.source_key == job.source_key)).one_or_none()
            if known is not None:
                return known, False
            new = Job(**dict(job))
            session.add(new)
            session.flush()
            log_event(session, new.id, "RECEIVED", actor, new.source)
            if new.status == JobStatus.QUEUED:
                announce(session)
            else:
                log_event(session, new.id, JobAction.HOLD, actor, new.reason)
            if waits and decide is not None:
                match_order(session, new, decide)
            return new, True

    def find(self, source_key: str) -> Job | None:
        """Return the job that was made for `source_key`, if any."""
        with self._database.read() as session:
            return session.exec(select(Job).where(Job.source_key == source_key)).one_or_none()

    def claim(self, worker: str, lease_s: float) -> Job | None:
        """Take a queued job under a lease, the oldest first; None when nothing waits.

        One that a person waits for comes before all, in its first attempt; one that was imported after all others.  One
        that was tried and ended its worker waits behind those that waited when it came back, so that it delays none of
        them; it does not wait behind those that come later, which may never end.
        The attempt is counted here, so that a page that kills its worker is counted too; `rescue` gives such a job
        up when its attempts are used.
        """
        oldest = (
            select(Job.id)
            .where(Job.status == JobStatus.QUEUED)
            .order_by(
                case((and_(col(Job.urgent), col(Job.attempts) == 0), 0), (col(Job.imported), 2), else_=1),
                case((col(Job.attempts) > 0, Job.updated_at), else_=Job.created_at),
                col(Job.id),
            )
            .limit(1)
            .with_for_update(key_share=True, skip_locked=True)  # PostgreSQL: what another worker takes now is not free
            .scalar_subquery()
        )
        with self._database.write() as session:
            now = utc_now()  # the lease begins when it is our turn to write, however long that took
            statement = (
                update(Job)
                .where(col(Job.id) == oldest)
                .values(
                    status=next_job_status(JobStatus.QUEUED, JobAction.CLAIM),
                    attempts=Job.attempts + 1,
                    worker=worker,
                    lease_expires_at=now + timedelta(seconds=lease_s),
                    updated_at=now,
                )
                .returning(Job)
            )
            job = session.scalars(statement).one_or_none()
            if job is not None:
                log_event(session, job.id, JobAction.CLAIM, worker, f"attempt {job.attempts}")
            return job

    def heartbeat(self, job_id: str, worker: str, lease_s: float) -> bool:
        """Extend the lease; False when it was lost, and the worker must drop the job."""
        with self._database.write() as session:
            try:
                job = _leased(session, job_id, worker)
            except (NotFound, IllegalTransition):
                return False
            job.updated_at = utc_now()
            job.lease_expires_at = job.updated_at + timedelta(seconds=lease_s)
            return True

    def extend(self, job_id: str, worker: str, lease_s: float, silence_s: float) -> None:
        """Extend the lease for a worker that cannot do it itself now, unless it was silent for `silence_s`."""
        with self._database.write() as session:
            try:
                job = _leased(session, job_id, worker)
            except (NotFound, IllegalTransition):
                return
            now = utc_now()
            if now - job.updated_at < timedelta(seconds=silence_s):
                job.lease_expires_at = now + timedelta(seconds=lease_s)

    def holds(self, job: Job, worker: str) -> bool:
        """Return whether `worker` still holds a job as it claimed it; a merge takes it away for another patient."""
        with self._database.read() as session:
            now = session.get(Job, job.id)
            return now is not None and _is_held(now, worker, job.context)

    def release(self, job_id: str, worker: str, reason: str, *, counted: bool = False) -> None:
        """Put a job back unfinished; the attempt does not count, or it waits behind the others as after a crash.

        Raises
        ------
        IllegalTransition
            The lease is not `worker`'s any more.
        """
        with self._database.write() as session:
            job = _leased(session, job_id, worker)
            job.attempts -= not counted
            advance_job(session, job, JobAction.RELEASE, worker, reason)

    def rescue(self, maximum_attempts: int) -> list[str]:
        """Take back every job with an expired lease: QUEUED again, or FAILED when its attempts are used up.

        Returns
        -------
        list[str]
            The ids of these jobs.
        """
        expired = select(Job).where(Job.status == JobStatus.RUNNING, col(Job.lease_expires_at) < utc_now())
        with self._database.write() as session:  # a job that somebody changes now is not silent
            jobs = session.exec(expired.with_for_update(key_share=True, skip_locked=True)).all()
            for job in jobs:
                reason = f"worker {job.worker} stopped answering in attempt {job.attempts} of {maximum_attempts}"
                used_up = job.attempts >= maximum_attempts
                advance_job(session, job, JobAction.FAIL if used_up else JobAction.RELEASE, "rescue", reason)
            return [job.id for job in jobs]

    def bound_leases(self, lease_s: float) -> list[str]:
        """End leases within `lease_s` that last longer: a clock stood ahead when they began.  Return the jobs' ids."""
        with self._database.write() as session:
            latest = utc_now() + timedelta(seconds=lease_s)
            longer = select(Job).where(
                Job.status == JobStatus.RUNNING, col(Job.lease_expires_at) > latest + timedelta(seconds=1)
            )
            jobs = session.exec(longer.with_for_update(key_share=True, skip_locked=True)).all()
            for job in jobs:
                job.lease_expires_at = latest
            return [job.id for job in jobs]

    def complete(
        self,
        job_id: str,
        worker: str,
        result: JobResult,
        context: StudyContext | None = None,
    ) -> None:
        """Store a job's result, its new status and its deliveries, in one transaction.

        The result of an earlier run is replaced; a delivery that already arrived stays as it is.

        Parameters
        ----------
        context : StudyContext or None
            The job's when it was claimed, where the result was made for that patient.

        Raises
        ------
        IllegalTransition
            The lease is not `worker`'s any more, or the job is another patient's: nothing is stored.
        """
        if result.status not in _RESULT_ACTIONS:
            raise IllegalTransition(f"a job cannot end {result.status}")
        with self._database.write() as session:
            job = _leased(session, job_id, worker)
            if context is not None and job.context != context:
                raise IllegalTransition(f"job {job_id} is another patient's now")
            session.exec(delete(Page).where(col(Page.job_id) == job_id))
            session.add_all(Page(**page.model_dump(exclude={"id"})) for page in result.pages)
            for delivery in result.deliveries:
                put_delivery(session, delivery)
            job.unmatched = job.unmatched or not job.patient_id
            job.urgent = False
            for note in result.notes:
                log_event(session, job_id, "NOTE", worker, note)
            advance_job(session, job, _RESULT_ACTIONS[result.status], worker, result.reason)

    def fail(self, job_id: str, worker: str, reason: str) -> None:
        """End a claimed job FAILED without a result."""
        self.complete(job_id, worker, JobResult(status=JobStatus.FAILED, reason=reason))

    def decide(
        self, job: Job, decision: Decision, actor: str, detail: str = "", *, by_person: bool = False
    ) -> Job | None:
        """Apply what was decided about the identity of a job.

        A job that `actor` holds as a worker continues, or waits from now on.  A job that waits is queued, or gets the
        new reason to wait.

        Parameters
        ----------
        job : Job
            The job that the decision was made for.
        detail : str
            What the audit trail says about the source of the identity.
        by_person : bool
            `actor` is a person who says that this is the patient: a job that has ended well runs again for that one.

        Returns
        -------
        Job or None
            The job as it is now; None if it is not `job` any more: then nothing is changed.

        Raises
        ------
        IllegalTransition
            The job has ended well, or runs or waits in the queue without being held by `actor`.
        """
        with self._database.write() as session:
            now = lock_job(session, job.id)
            if _state(now) != _state(job):
                return None
            if by_person and now.status == JobStatus.DONE:
                queue_again(session, now, actor)
                now.context = decision.context
                log_event(session, now.id, "IDENTIFY", actor, detail)
            else:
                apply_decision(session, now, decision, actor, detail)
            if by_person:
                now.patient_agreed_by, now.urgent = actor, True
            return now

    def renew_source(self, job: Job, digest: str, actor: str, decision: Decision | None = None) -> bool:
        """Record that the source of a job was replaced by what was received again, and queue the job.

        A job that waits for a person goes on to wait.

        Parameters
        ----------
        job : Job
            The job that this was decided for.
        decision : Decision or None
            The identity, where other bytes than the first ones were received.

        Returns
        -------
        bool
            False if the job has another state now: then nothing is changed.
        """
        with self._database.write() as session:
            now = lock_job(session, job.id)
            if _state(now) != _state(job):
                return False
            what = "the same bytes" if decision is None else "other bytes"
            log_event(session, now.id, "RECEIVED", actor, f"again, {what}: the source was replaced")
            now.source_digest, now.purged_at = digest, None
            if decision is not None:
                now.context, now.unmatched = decision.context, decision.unmatched
                now.corrections_json, now.imported = "{}", False  # they were made for other pages
            if now.status in (JobStatus.FAILED, JobStatus.DONE):
                queue_again(session, now, actor)
            elif now.status == JobStatus.RUNNING:  # its worker may have read what was there before
                advance_job(session, now, JobAction.RELEASE, actor, "the source was replaced")
            if decision is not None and decision.hold_reason:
                advance_job(session, now, JobAction.HOLD, actor, decision.hold_reason)
            return True

    def retry(self, job_id: str, actor: str) -> None:
        """Queue a job for another run with fresh attempts; what it has not delivered yet is cancelled.

        Where something was delivered, the run makes a new revision of the job's result.  Imported results are left
        aside: the pages are read again.  A job whose files were deleted cannot run again: IllegalTransition.
        """
        with self._database.write() as session:
            read_again(session, lock_job(session, job_id), actor)

    def correct(self, job: Job, corrections_json: str, actor: str, detail: str, version: int | None) -> None:
        """Replace what a person corrected on the pages of a job, and queue it before the others.

        Parameters
        ----------
        job : Job
            That the corrections were checked for.
        corrections_json : str
            Of all its pages.
        detail : str
            What the audit trail says: no patient data.
        version : int or None
            Of the job (`version`) that the person saw; None where any will do.

        Raises
        ------
        IllegalTransition
            The job has changed since: the error says what happened.  Or it runs, waits in the queue or was cancelled,
            or its files were deleted.
        """
        with self._database.write() as session:
            now = lock_job(session, job.id)
            if version is not None and (since := changes_after(session, job.id, version)):
                done = ", ".join(f"{event.action} by {event.actor} at {event.at:%H:%M:%S} UTC" for event in since)
                raise IllegalTransition(f"job {job.id} has changed in the meantime: {done}")
            if _state(now) != _state(job):
                raise IllegalTransition(f"job {job.id} has just changed: it is {now.status}")
            queue_again(session, now, actor, JobAction.CORRECT, detail)
            now.corrections_json, now.urgent = corrections_json, True

    def version(self, job_id: str) -> int:
        """Return what a form must name to say which state of a job it was filled in for."""
        with self._database.read() as session:
            return max((event.id or 0 for event in changes_after(session, job_id, 0)), default=0)

    def confirm(self, job_id: str, deliveries: Sequence[Delivery], actor: str) -> None:
        """Record that a person found the result right, and send it as final.

        Messages that did not arrive to say that it is preliminary are cancelled; what has arrived stays.

        Raises
        ------
        IllegalTransition
            The job has no result, or its files were deleted.
        """
        with self._database.write() as session:
            job = lock_job(session, job_id)
            check_files(job)
            advance_job(session, job, JobAction.CONFIRM, actor, "")
            job.confirmed_by = actor
            cancel_undelivered(session, job_id, actor, Delivery.result_status != "", detail="the result is final")
            for delivery in deliveries:
                put_delivery(session, delivery)

    def cancel(self, job_id: str, actor: str) -> None:
        """Drop a job and what it has not delivered yet."""
        with self._database.write() as session:
            advance_job(session, lock_job(session, job_id), JobAction.CANCEL, actor, "")
            cancel_undelivered(session, job_id, actor)

    def get(self, job_id: str) -> Job:
        """Return a job; raise NotFound where there is none."""
        with self._database.read() as session:
            return find_job(session, job_id)

    def exists(self, job_id: str) -> bool:
        """Return whether this id is a job's."""
        with self._database.read() as session:
            return session.get(Job, job_id) is not None

    def unknown(self, job_ids: Sequence[str]) -> list[str]:
        """Return those of these ids that are no job's."""
        found: set[str] = set()
        with self._database.read() as session:
            for start in range(0, len(job_ids), _IDS_AT_ONCE):
                some = job_ids[start : start + _IDS_AT_ONCE]
                found |= set(session.exec(select(Job.id).where(col(Job.id).in_(some))).all())
        return [job_id for job_id in job_ids if job_id not in found]

    def ids(self, beginning: str, limit: int = 100) -> list[str]:
        """Return the job ids that begin with these characters, in upper or lower case, newest job first."""
        begins = func.lower(col(Job.id)).startswith(beginning.lower(), autoescape=True)
        statement = select(Job.id).where(begins).order_by(col(Job.created_at).desc(), col(Job.id)).limit(limit)
        with self._database.read() as session:
            return list(session.exec(statement).all())

    def newest(self, status: JobStatus | None = None, limit: int = 100, offset: int = 0) -> list[Job]:
        """Return jobs, newest first."""
        statement = select(Job).order_by(col(Job.created_at).desc(), col(Job.id)).limit(limit).offset(offset)
        if status is not None:
            statement = statement.where(Job.status == status)
        with self._database.read() as session:
            return list(session.exec(statement).all())

    def unmatched(self, limit: int = 100) -> list[Job]:
        """Return the jobs that wait for their identity, oldest first."""
        statement = select(Job).where(col(Job.unmatched), Job.status == JobStatus.NEEDS_REVIEW)
        with self._database.read() as session:
            return list(session.exec(statement.order_by(col(Job.created_at), col(Job.id)).limit(limit)).all())

    def pages(self, job_id: str) -> list[Page]:
        """Return a job's pages in page order."""
        with self._database.read() as session:
            return list(session.exec(select(Page).where(Page.job_id == job_id).order_by(col(Page.page_number))).all())

    def events(self, job_id: str) -> list[JobEvent]:
        """Return a job's audit trail, oldest first."""
        with self._database.read() as session:
            return list(
                session.exec(select(JobEvent).where(JobEvent.job_id == job_id).order_by(col(JobEvent.id))).all()
            )

    def counts(self) -> dict[JobStatus, int]:
        """Return how many jobs stand in each status, zeros included."""
        with self._database.read() as session:
            found = dict(session.exec(select(Job.status, func.count()).group_by(col(Job.status))).all())
        return {status: found.get(status, 0) for status in JobStatus}

    def digitization_seconds(self) -> tuple[int, float]:
        """Return how many pages were digitized, and the time they took together, in s."""
        with self._database.read() as session:
            pages, seconds = session.exec(select(func.count(col(Page.seconds)), func.sum(col(Page.seconds)))).one()
        return pages, seconds or 0.0

    def oldest_queued_age_s(self) -> float:
        """Return how long the oldest queued job has waited, in s; 0 where none waits."""
        with self._database.read() as session:
            oldest = session.exec(
                select(Job.created_at).where(Job.status == JobStatus.QUEUED).order_by(col(Job.created_at)).limit(1)
            ).one_or_none()
        return 0.0 if oldest is None else max(0.0, (utc_now() - oldest).total_seconds())

    def moved_at(self) -> datetime | None:
        """Return when a job last ended, or a worker last said that it is at one."""
        ended = select(JobEvent.at).where(col(JobEvent.action).in_(_RESULT_ACTIONS.values()))
        running = select(func.max(Job.updated_at)).where(Job.status == JobStatus.RUNNING)
        with self._database.read() as session:
            last = session.exec(ended.order_by(col(JobEvent.id).desc()).limit(1)).one_or_none()
            times = [time for time in (last, session.exec(running).one()) if time is not None]
        return max(times, default=None)

    def needs_files(self, job_id: str) -> bool:
        """Return whether a job's files may still be asked for: it is not DONE or CANCELLED, or has to deliver yet.

        Of files that no job explains nobody knows: they may.
        """
        pending = select(Delivery.id).where(Delivery.job_id == job_id, col(Delivery.status).in_(UNSETTLED))
        with self._database.read() as session:
            job = session.get(Job, job_id)
            finished = job is not None and job.status in (JobStatus.DONE, JobStatus.CANCELLED)
            return not finished or session.exec(pending.limit(1)).first() is not None


class Workers:
    """The workers of one database, whoever started them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def seen(self, name: str) -> None:
        """Record that a worker works, or looked for work, now."""
        with self._database.write(f"worker {name}") as session:
            now = utc_now()
            worker = session.get(WorkerSeen, name)
            if worker is None:
                session.add(WorkerSeen(name=name, seen_at=now))
                session.exec(delete(WorkerSeen).where(col(WorkerSeen.seen_at) < now - _FORGOTTEN))
            else:
                worker.seen_at = now

    def last_seen(self) -> datetime | None:
        """Return when any worker was seen last; None where none was within a day."""
        until = utc_now() + _CLOCKS
        with self._database.read() as session:
            return session.exec(select(func.max(WorkerSeen.seen_at)).where(col(WorkerSeen.seen_at) < until)).one()

    def all(self) -> list[tuple[WorkerSeen, Job | None]]:
        """Return every worker that was seen within a day, the last one first, with the job that it is at."""
        busy = and_(col(Job.worker) == col(WorkerSeen.name), col(Job.status) == JobStatus.RUNNING)
        found = select(WorkerSeen, Job).outerjoin(Job, busy).order_by(col(WorkerSeen.seen_at).desc())
        with self._database.read() as session:
            return [(worker, job) for worker, job in session.exec(found).all()]


def _is_held(job: Job, worker: str, context: StudyContext) -> bool:
    return job.status == JobStatus.RUNNING and job.worker == worker and job.context == context


def _leased(session: Session, job_id: str, worker: str) -> Job:
    job = lock_job(session, job_id)
    if job.status != JobStatus.RUNNING or job.worker != worker:
        raise IllegalTransition(f"job {job_id} is {job.status}, not leased to {worker}")
    return job


def _state(job: Job) -> tuple[JobStatus, str, bool, StudyContext]:
    return job.status, job.worker, job.unmatched, job.context
