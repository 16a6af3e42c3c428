"""The one truth for state: jobs, pages, deliveries and their audit trail.

Intake submits a job; a worker claims it under a lease and completes it together with its pages and deliveries; the
outbox advances each delivery.  A change of status is looked up in the tables of `gateway.models` and leaves a
`JobEvent` in the same transaction.  What HL7 messages tell is in `gateway.store_orders`, storage commitment in
`gateway.store_commitments`, the file itself in `gateway.database`; these four hold every SQL statement of the gateway.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, or_, update
from sqlmodel import Session, col, delete, select

from gateway.domain.clock import utc_now
from gateway.domain.context import StudyContext
from gateway.domain.status import DeliveryAction, DeliveryStatus, JobAction, JobStatus, next_job_status
from gateway.errors import IllegalTransition
from gateway.store.commitments import CommitmentStore
from gateway.store.database import advance_delivery, advance_job, cancel_undelivered, find_delivery, find_job, log_event
from gateway.store.tables import Delivery, Job, JobEvent, Page

_RESULT_ACTIONS = {
    JobStatus.DONE: JobAction.COMPLETE,
    JobStatus.NEEDS_REVIEW: JobAction.HOLD,
    JobStatus.FAILED: JobAction.FAIL,
}


class Store(CommitmentStore):
    """Jobs and deliveries in one SQLite file; see `Database` for how it is opened."""

    # -- jobs: intake ---------------------------------------------------------------------------------------------

    def submit(self, job: Job, actor: str) -> tuple[Job, bool]:
        """Insert a job, or find the one that already has its `source_key`.

        Parameters
        ----------
        job : Job
            QUEUED, or NEEDS_REVIEW with its reason where it must wait for a person.

        Returns
        -------
        tuple[Job, bool]
            The job as stored, and whether it is new.
        """
        if job.status not in (JobStatus.QUEUED, JobStatus.NEEDS_REVIEW):
            raise IllegalTransition(f"a job cannot start {job.status}")
        with self._write() as session:
            known = session.exec(select(Job).where(Job.source_key == job.source_key)).one_or_none()
            if known is not None:
                return known, False
            new = Job(**job.model_dump())
            session.add(new)
            session.flush()
            log_event(session, new.id, "RECEIVED", actor, new.source)
            if new.status == JobStatus.NEEDS_REVIEW:
                log_event(session, new.id, JobAction.HOLD, actor, new.reason)
            return new, True

    def find(self, source_key: str) -> Job | None:
        """Return the job that was made for `source_key`, if any."""
        with self._read() as session:
            return session.exec(select(Job).where(Job.source_key == source_key)).one_or_none()

    # -- jobs: the worker -----------------------------------------------------------------------------------------

    def claim(self, worker: str, lease_s: float) -> Job | None:
        """Take the oldest queued job under a lease; None when nothing waits.

        The attempt is counted here, so that a page that kills its worker is counted too; `rescue` gives such a job
        up when its attempts are used.
        """
        oldest = (
            select(Job.id)
            .where(Job.status == JobStatus.QUEUED)
            .order_by(col(Job.created_at), col(Job.id))
            .limit(1)
            .scalar_subquery()
        )
        with self._write() as session:
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
        held = (col(Job.id) == job_id, col(Job.status) == JobStatus.RUNNING, col(Job.worker) == worker)
        with self._write() as session:
            until = utc_now() + timedelta(seconds=lease_s)
            statement = update(Job).where(*held).values(lease_expires_at=until).returning(col(Job.id))
            return session.scalars(statement).one_or_none() is not None

    def holds(self, job: Job, worker: str) -> bool:
        """Tell whether `worker` still holds a job as it claimed it; a merge takes it away for another patient."""
        with self._read() as session:
            now = session.get(Job, job.id)
            return now is not None and _is_held(now, worker, job.study_context_json)

    def release(self, job_id: str, worker: str, reason: str) -> None:
        """Put a job back unfinished on a clean stop; the attempt does not count.

        Raises
        ------
        IllegalTransition
            The lease is not `worker`'s any more.
        """
        with self._write() as session:
            job = _leased(session, job_id, worker)
            job.attempts -= 1
            advance_job(session, job, JobAction.RELEASE, worker, reason)

    def rescue(self, maximum_attempts: int) -> list[str]:
        """Take back every job whose lease expired: QUEUED again, or FAILED when its attempts are used up.

        Returns
        -------
        list[str]
            The ids of these jobs.
        """
        expired = select(Job).where(Job.status == JobStatus.RUNNING, col(Job.lease_expires_at) < utc_now())
        with self._write() as session:
            jobs = session.exec(expired).all()
            for job in jobs:
                reason = f"worker {job.worker} stopped answering in attempt {job.attempts} of {maximum_attempts}"
                used_up = job.attempts >= maximum_attempts
                advance_job(session, job, JobAction.FAIL if used_up else JobAction.RELEASE, "rescue", reason)
            return [job.id for job in jobs]

    def complete(
        self,
        job_id: str,
        worker: str,
        pages: Sequence[Page],
        deliveries: Sequence[Delivery],
        status: JobStatus,
        reason: str = "",
        context_json: str | None = None,
    ) -> None:
        """Store a job's result, its new status and its deliveries, in one transaction.

        The result of an earlier run is replaced; a delivery that already arrived stays as it is.

        Parameters
        ----------
        status : JobStatus
            DONE, NEEDS_REVIEW or FAILED.
        context_json : str or None
            The job's `study_context_json` when it was claimed, where the result was made for that patient.

        Raises
        ------
        IllegalTransition
            The lease is not `worker`'s any more, or the job is another patient's: nothing is stored.
        """
        if status not in _RESULT_ACTIONS:
            raise IllegalTransition(f"a job cannot end {status}")
        with self._write() as session:
            job = _leased(session, job_id, worker)
            if context_json is not None and job.study_context_json != context_json:
                raise IllegalTransition(f"job {job_id} is another patient's now")
            session.exec(delete(Page).where(col(Page.job_id) == job_id))
            session.add_all(Page(**page.model_dump(exclude={"id"})) for page in pages)
            for delivery in deliveries:
                _put_delivery(session, delivery)
            advance_job(session, job, _RESULT_ACTIONS[status], worker, reason)

    def hold(self, job_id: str, worker: str, reason: str) -> None:
        """End a claimed job NEEDS_REVIEW without a result."""
        self.complete(job_id, worker, (), (), JobStatus.NEEDS_REVIEW, reason)

    def fail(self, job_id: str, worker: str, reason: str) -> None:
        """End a claimed job FAILED without a result."""
        self.complete(job_id, worker, (), (), JobStatus.FAILED, reason)

    # -- jobs: whose they are -------------------------------------------------------------------------------------

    def tell(self, job: Job, worker: str, context: StudyContext, unmatched: str) -> Job:
        """Record whose ECG the page of a claimed job itself says it is.

        Parameters
        ----------
        unmatched
            Why it must wait all the same, until somebody says more; "" where the worker goes on.

        Returns
        -------
        Job
            The job as it is now.

        Raises
        ------
        IllegalTransition
            The lease is not `worker`'s any more, or the job is another patient's.
        """
        with self._write() as session:
            now = _leased(session, job.id, worker)
            if now.study_context_json != job.study_context_json:
                raise IllegalTransition(f"job {job.id} is another patient's now")
            if context != StudyContext.model_validate_json(now.study_context_json):
                now.study_context_json = context.model_dump_json(exclude_defaults=True)
                log_event(session, job.id, "IDENTIFY", worker, "a code on the page")
            if unmatched:
                now.unmatched = True
                advance_job(session, now, JobAction.HOLD, worker, unmatched)
            return now

    def looked_up(self, job: Job, context: StudyContext, unmatched: str) -> bool:
        """Record what a look-up found for an unmatched job: it is queued, or waits on because of `unmatched`.

        Returns
        -------
        bool
            Whether the job was still as it was when the look-up began; nothing is changed otherwise.
        """
        with self._write() as session:
            now = find_job(session, job.id)
            waits = now.status == JobStatus.NEEDS_REVIEW and now.unmatched
            if not waits or now.study_context_json != job.study_context_json:
                return False
            if unmatched:
                if unmatched != now.reason:
                    now.reason = unmatched
                    log_event(session, job.id, "LOOKUP", "lookup", unmatched)
                return True
            now.study_context_json = context.model_dump_json(exclude_defaults=True)
            now.unmatched = False
            log_event(session, job.id, "IDENTIFY", "lookup", "")
            _queue_again(session, now, "lookup", "")
            return True

    # -- jobs: a person -------------------------------------------------------------------------------------------

    def retry_job(self, job_id: str, actor: str) -> None:
        """Queue a job for another run with fresh attempts; what it has not delivered yet is cancelled.

        Where something was delivered, the run makes a new revision of the job's result.
        """
        with self._write() as session:
            _queue_again(session, find_job(session, job_id), actor, "")

    def identify(self, job_id: str, context: StudyContext, actor: str) -> None:
        """Say whose ECG a held job is, and queue it again.

        Parameters
        ----------
        context
            Everything that is known now; it takes the place of what the job had.

        Raises
        ------
        IllegalTransition
            The job runs, waits in the queue, or has ended well.
        """
        with self._write() as session:
            job = find_job(session, job_id)
            if job.status == JobStatus.DONE:
                raise IllegalTransition(f"a {job.status} job has its identity")
            job.study_context_json = context.model_dump_json(exclude_defaults=True)
            job.unmatched = False
            log_event(session, job_id, "IDENTIFY", actor, "")
            _queue_again(session, job, actor, "")

    def confirm(self, job_id: str, deliveries: Sequence[Delivery], actor: str) -> None:
        """Record that a person found the result right, and send it as final.

        Messages that did not arrive to say that it is preliminary are cancelled; what has arrived stays.

        Raises
        ------
        IllegalTransition
            The job has no result.
        """
        with self._write() as session:
            job = find_job(session, job_id)
            advance_job(session, job, JobAction.CONFIRM, actor, "")
            job.confirmed_by = actor
            cancel_undelivered(session, job_id, actor, Delivery.result_status != "", detail="the result is final")
            for delivery in deliveries:
                _put_delivery(session, delivery)

    def cancel_job(self, job_id: str, actor: str) -> None:
        """Drop a job and what it has not delivered yet."""
        with self._write() as session:
            advance_job(session, find_job(session, job_id), JobAction.CANCEL, actor, "")
            cancel_undelivered(session, job_id, actor)

    # -- deliveries -----------------------------------------------------------------------------------------------

    def due_deliveries(self, now: datetime, limit: int = 100, destination: str | None = None) -> list[Delivery]:
        """Return what may be sent now: at most the oldest pending delivery of each destination, to keep its order.

        A deferred delivery blocks those behind it; one that was refused or given up does not.
        """
        oldest = select(func.min(Delivery.id)).where(Delivery.status == DeliveryStatus.PENDING)
        if destination is not None:
            oldest = oldest.where(Delivery.destination == destination)
        due = select(Delivery).where(
            col(Delivery.id).in_(oldest.group_by(col(Delivery.destination))), Delivery.next_attempt_at <= now
        )
        with self._read() as session:
            return list(session.exec(due.order_by(col(Delivery.id)).limit(limit)).all())

    def delivered(self, delivery_id: int, response: str) -> None:
        """Record that the peer took it."""
        now = utc_now()
        self._attempted(delivery_id, DeliveryAction.DELIVER, response=response, reason="", delivered_at=now)

    def defer(self, delivery_id: int, reason: str, next_attempt_at: datetime) -> None:
        """Record that it did not arrive and is to be tried again at `next_attempt_at`."""
        self._attempted(delivery_id, DeliveryAction.DEFER, reason=reason, next_attempt_at=next_attempt_at)

    def refuse(self, delivery_id: int, reason: str, response: str) -> None:
        """Record that the peer will never take it as it stands."""
        self._attempted(delivery_id, DeliveryAction.REFUSE, reason=reason, response=response)

    def give_up(self, delivery_id: int, reason: str) -> None:
        """Record that the last attempt failed."""
        self._attempted(delivery_id, DeliveryAction.GIVE_UP, reason=reason)

    def retry_delivery(self, delivery_id: int, actor: str) -> None:
        """Send again what was refused or given up, with fresh attempts.

        Raises
        ------
        IllegalTransition
            It waits, has arrived, or another result took its place.
        """
        with self._write() as session:
            delivery = find_delivery(session, delivery_id)
            delivery.attempts = delivery.asked = 0
            delivery.next_attempt_at = utc_now()
            advance_delivery(session, delivery, DeliveryAction.RETRY, actor, "")

    def _attempted(self, delivery_id: int, action: DeliveryAction, **changes: Any) -> None:
        """Record how one attempt ended."""
        with self._write() as session:
            delivery = find_delivery(session, delivery_id)
            delivery.sqlmodel_update(changes)
            delivery.attempts += 1
            detail = " ".join(part for part in (changes.get("response"), changes["reason"]) if part)
            advance_delivery(session, delivery, action, "outbox", detail)

    # -- readers --------------------------------------------------------------------------------------------------

    def job(self, job_id: str) -> Job:
        """Return a job; raise NotFound where there is none."""
        with self._read() as session:
            return find_job(session, job_id)

    def has_job(self, job_id: str) -> bool:
        """Tell whether this id is a job's."""
        with self._read() as session:
            return session.get(Job, job_id) is not None

    def jobs(self, status: JobStatus | None = None, limit: int = 100, offset: int = 0) -> list[Job]:
        """Return jobs, newest first."""
        statement = select(Job).order_by(col(Job.created_at).desc(), col(Job.id)).limit(limit).offset(offset)
        if status is not None:
            statement = statement.where(Job.status == status)
        with self._read() as session:
            return list(session.exec(statement).all())

    def unmatched_jobs(self, limit: int = 100) -> list[Job]:
        """Return the jobs that wait until somebody says whose ECG they are, oldest first."""
        statement = select(Job).where(col(Job.unmatched), Job.status == JobStatus.NEEDS_REVIEW)
        with self._read() as session:
            return list(session.exec(statement.order_by(col(Job.created_at), col(Job.id)).limit(limit)).all())

    def pages(self, job_id: str) -> list[Page]:
        """Return a job's pages in page order."""
        with self._read() as session:
            return list(session.exec(select(Page).where(Page.job_id == job_id).order_by(col(Page.page_number))).all())

    def deliveries(self, job_id: str) -> list[Delivery]:
        """Return a job's deliveries in the order they were made."""
        with self._read() as session:
            return list(
                session.exec(select(Delivery).where(Delivery.job_id == job_id).order_by(col(Delivery.id))).all()
            )

    def undelivered(self, destination: str | None = None, job_id: str | None = None) -> list[Delivery]:
        """Return what was refused or given up, of one destination and one job or of all, oldest first."""
        statement = select(Delivery).where(col(Delivery.status).in_((DeliveryStatus.REFUSED, DeliveryStatus.FAILED)))
        if destination is not None:
            statement = statement.where(Delivery.destination == destination)
        if job_id is not None:
            statement = statement.where(Delivery.job_id == job_id)
        with self._read() as session:
            return list(session.exec(statement.order_by(col(Delivery.id))).all())

    def made_here(self, identifier: str) -> bool:
        """Tell whether an object of this SOP Instance UID, or a message of this MSH-10, is one of ours."""
        with self._read() as session:
            return (
                session.exec(select(Delivery.id).where(Delivery.identifier == identifier).limit(1)).first() is not None
            )

    def events(self, job_id: str) -> list[JobEvent]:
        """Return a job's audit trail, oldest first."""
        with self._read() as session:
            return list(
                session.exec(select(JobEvent).where(JobEvent.job_id == job_id).order_by(col(JobEvent.id))).all()
            )

    def counts(self) -> dict[JobStatus, int]:
        """Return how many jobs stand in each status, zeros included."""
        with self._read() as session:
            found = dict(session.exec(select(Job.status, func.count()).group_by(col(Job.status))).all())
        return {status: found.get(status, 0) for status in JobStatus}

    def delivery_counts(self) -> dict[DeliveryStatus, int]:
        """Return how many deliveries stand in each status, zeros included."""
        counts = dict.fromkeys(DeliveryStatus, 0)
        for (status, _destination), count in self.delivery_counts_by_destination().items():
            counts[status] += count
        return counts

    def delivery_counts_by_destination(self) -> dict[tuple[DeliveryStatus, str], int]:
        """Return how many deliveries to each destination stand in each status; pairs without any are left out."""
        statement = select(Delivery.status, Delivery.destination, func.count()).group_by(
            col(Delivery.status), col(Delivery.destination)
        )
        with self._read() as session:
            rows = session.exec(statement).all()
        return {(DeliveryStatus(status), destination): count for status, destination, count in rows}

    def waiting_for_others(self, destinations: Collection[str]) -> dict[str, int]:
        """Return how many deliveries wait for each destination that is none of these."""
        waiting: dict[str, int] = {}
        for (status, destination), count in self.delivery_counts_by_destination().items():
            if status in (DeliveryStatus.PENDING, DeliveryStatus.STORED) and destination not in destinations:
                waiting[destination] = waiting.get(destination, 0) + count
        return waiting

    def digitization_seconds(self) -> tuple[int, float]:
        """Return how many pages were digitized, and the time they took together, in s."""
        with self._read() as session:
            pages, seconds = session.exec(select(func.count(col(Page.seconds)), func.sum(col(Page.seconds)))).one()
        return pages, seconds or 0.0

    def oldest_queued_age_s(self) -> float:
        """Return how long the oldest queued job has waited, in s; 0 where none waits."""
        with self._read() as session:
            oldest = session.exec(
                select(Job.created_at).where(Job.status == JobStatus.QUEUED).order_by(col(Job.created_at)).limit(1)
            ).one_or_none()
        return 0.0 if oldest is None else max(0.0, (utc_now() - oldest).total_seconds())

    def needs_files(self, job_id: str) -> bool:
        """Tell whether a job's files may still be asked for: it is not DONE or CANCELLED, or has to deliver yet."""
        unsettled = col(Delivery.status).in_((DeliveryStatus.PENDING, DeliveryStatus.STORED))
        pending = select(Delivery.id).where(Delivery.job_id == job_id, unsettled)
        with self._read() as session:
            job = session.get(Job, job_id)
            finished = job is None or job.status in (JobStatus.DONE, JobStatus.CANCELLED)
            return not finished or session.exec(pending.limit(1)).first() is not None


def _is_held(job: Job, worker: str, context_json: str) -> bool:
    return job.status == JobStatus.RUNNING and job.worker == worker and job.study_context_json == context_json


def _leased(session: Session, job_id: str, worker: str) -> Job:
    job = find_job(session, job_id)
    if job.status != JobStatus.RUNNING or job.worker != worker:
        raise IllegalTransition(f"job {job_id} is {job.status}, not leased to {worker}")
    return job


def _queue_again(session: Session, job: Job, actor: str, reason: str) -> None:
    stands = col(Delivery.status).in_((DeliveryStatus.DELIVERED, DeliveryStatus.STORED))
    delivered = select(Delivery.id).where(Delivery.job_id == job.id, or_(stands, col(Delivery.asked) > 0))
    job.attempts = 0
    job.confirmed_by = ""
    advance_job(session, job, JobAction.RETRY, actor, reason)
    cancel_undelivered(session, job.id, actor)
    if session.exec(delivered.limit(1)).first() is not None:
        job.revision += 1


def _put_delivery(session: Session, new: Delivery) -> None:
    """Insert a delivery, or renew the one of an earlier run that did not arrive."""
    old = session.exec(
        select(Delivery).where(
            Delivery.job_id == new.job_id,
            Delivery.page_number == new.page_number,
            Delivery.destination == new.destination,
            Delivery.artefact == new.artefact,
        )
    ).one_or_none()
    if old is None:
        session.add(Delivery(**new.model_dump(exclude={"id"})))
    elif old.status not in (DeliveryStatus.DELIVERED, DeliveryStatus.STORED, DeliveryStatus.PENDING):
        renewed = {"attempts": 0, "asked": 0, "next_attempt_at": utc_now(), "identifier": new.identifier, "reason": ""}
        old.sqlmodel_update(renewed | {"result_status": new.result_status})
        advance_delivery(session, old, DeliveryAction.RENEW, "worker", "")
