"""The database under the store: its schema, its sessions, and the steps every table's code shares.

It is a SQLite file or a PostgreSQL database.  A writer decides on no stale state: on SQLite writers take turns; on
PostgreSQL each locks the job that it changes, which is the lock of everything that belongs to the job, and one that
changes several jobs or has no job yet takes a named turn first (docs/decisions/0012-postgresql.md).  Rows come back
detached: plain values that follow no later change.  Any failure of the database is a `StorageError`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, ColumnElement, Connection, column, or_, table, update
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session, col, select

from gateway.domain.clock import follow, utc_now
from gateway.domain.identity import Decision
from gateway.domain.review import Verdict
from gateway.domain.status import (
    ARRIVED,
    CANCELLABLE,
    DeliveryAction,
    DeliveryStatus,
    JobAction,
    JobStatus,
    next_delivery_status,
    next_job_status,
)
from gateway.errors import IllegalTransition, NotFound, StorageError
from gateway.store.backends.ear import Ear
from gateway.store.backends.postgresql import Postgresql, announce, describe
from gateway.store.backends.sqlite import Sqlite
from gateway.store.tables import Delivery, Job, JobEvent, MergeNotice, ReviewDecision

NOTHING_DELIVERED = "nothing was delivered"  # who settles a merge notice that concerns nobody
SEVERAL_JOBS = "several jobs"  # the turn of who locks more than one job: so no two of them wait for each other
_VERSION = table("alembic_version", column("version_num"))


class Database:
    """One database; safe to share between threads, and to open in several processes.

    Parameters
    ----------
    where : Path or URL
        A SQLite file, which is made where it is missing together with its folder; or the URL of a PostgreSQL
        database with its password.  The schema is brought up to date.
    busy_timeout_s : float
        How long a writer waits for its turn, or for a lock, before it fails.

    Raises
    ------
    StorageError
        The database cannot be opened, is none, or is of a newer version of the gateway.
    """

    def __init__(self, where: Path | URL, busy_timeout_s: float = 10.0) -> None:
        self.url = where if isinstance(where, URL) else URL.create("sqlite", database=str(where))
        self._backend = open_backend(self.url, busy_timeout_s)
        try:
            migrate(self._backend)
            self.follow_clock()
        except StorageError:
            self.close()
            raise

    def close(self) -> None:
        """Close the connections of this process."""
        self._backend.reader.dispose()

    def ping(self) -> None:
        """Commit a write that changes nothing; raise StorageError where the database cannot take one."""
        with self.write() as session:
            session.connection().execute(update(_VERSION).values(version_num=_VERSION.c.version_num))

    def follow_clock(self) -> None:
        """Go by the clock of the database's server: what one machine writes, others compare with their now."""
        with as_storage_error():
            before = datetime.now(UTC)
            shown = self._backend.now()
            after = datetime.now(UTC)
        if shown is not None:
            follow(shown, before + (after - before) / 2)

    def ear(self) -> Ear:
        """Return what one worker waits with until a job may be there."""
        return self._backend.ear()

    def size_bytes(self) -> int:
        """Return how much space the database takes."""
        with as_storage_error():
            return self._backend.size_bytes()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a session that only reads, all of it at one moment."""
        with as_storage_error(), Session(self._backend.reader, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self, *turns: str) -> Iterator[Session]:
        """Open a session that writes: it is committed at its end, or rolled back by an error.

        Parameters
        ----------
        turns
            What no other writer may do at the same time: the key of a row that may not be there yet and cannot be
            locked, `SEVERAL_JOBS`.  Whoever takes both takes the key first.
        """
        with (
            as_storage_error(),
            Session(self._backend.writer, expire_on_commit=False) as session,
            session.begin(),
        ):
            session.connection()  # the transaction begins: what the block takes for now comes after the wait for it
            for turn in turns:
                self._backend.take_turn(session, turn)
            yield session


def migrate(backend: Sqlite | Postgresql) -> None:
    """Bring the schema of a database up to date; processes that start together take turns."""
    config = _migrations()
    with as_storage_error(), backend.migrating() as connection:
        check_version(version_of(connection), "database")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def open_backend(url: URL, busy_timeout_s: float = 10.0) -> Sqlite | Postgresql:
    """Return a database as it is: its schema may be an older one, or none."""
    match url.get_backend_name():
        case "sqlite":
            return Sqlite(url, busy_timeout_s)
        case "postgresql":
            try:
                return Postgresql(url, busy_timeout_s)
            except ModuleNotFoundError as error:
                raise StorageError(
                    f"database: {error.name} is missing: pip install 'ecg-gateway[postgresql]'"
                ) from error
        case other:
            raise StorageError(f"database: {other} is neither sqlite nor postgresql")


def version_of(connection: Connection) -> str | None:
    """Return the version of a database's schema; None where it has none yet."""
    return MigrationContext.configure(connection).get_current_revision()


def newest_version() -> str:
    """Return the version of the schema that this gateway works with."""
    return str(ScriptDirectory.from_config(_migrations()).get_current_head())


def check_version(found: str | None, what: str) -> None:
    """Raise StorageError, with both versions, where this gateway does not know the version of a schema."""
    script = ScriptDirectory.from_config(_migrations())
    if found is not None and found not in {known.revision for known in script.walk_revisions()}:
        raise StorageError(
            f"{what}: it has version {found}, of a newer gateway; this gateway knows versions up to {newest_version()}"
        )


def _migrations() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    return config


@contextmanager
def as_storage_error() -> Iterator[None]:
    """Raise every failure of the database as `StorageError`, without the driver's text, which may quote values."""
    try:
        yield
    except SQLAlchemyError as error:
        original = getattr(error, "orig", None)
        what = type(error).__name__ if original is None else describe(original)
        raise StorageError(f"database: {what}").with_traceback(error.__traceback__) from None
    except (CommandError, OSError, sqlite3.Error) as error:
        raise StorageError(f"database: {error}") from error


def log_event(session: Session, job_id: str, action: str, actor: str, detail: str) -> None:
    """Add a line to a job's audit trail."""
    session.add(JobEvent(job_id=job_id, action=str(action), actor=actor, detail=detail))


def changes_after(session: Session, job_id: str, version: int) -> Sequence[JobEvent]:
    """Return what happened to a job after a version of it, oldest first; a delivery changes nothing of its result."""
    since = (JobEvent.job_id == job_id, col(JobEvent.id) > version, ~col(JobEvent.action).like("DELIVERY_%"))
    return session.exec(select(JobEvent).where(*since).order_by(col(JobEvent.id))).all()


def job_version(session: Session, job_id: str) -> int:
    """Return the number of the last thing that changed a job's result; what happens after it has a larger one."""
    return max((event.id or 0 for event in changes_after(session, job_id, 0)), default=0)


def find_job(session: Session, job_id: str) -> Job:
    """Return a job to read; raise NotFound where there is none."""
    job = session.get(Job, job_id)
    if job is None:
        raise NotFound(f"no job {job_id}")
    return job


def lock_job(session: Session, job_id: str) -> Job:
    """Return a job that nobody else changes, nor its pages, deliveries and notices, until the session ends.

    Rows that refer to the job may still be inserted.  NotFound is raised where there is no such job.
    """
    job = session.get(Job, job_id, with_for_update={"key_share": True})
    if job is None:
        raise NotFound(f"no job {job_id}")
    return job


def check_files(job: Job) -> None:
    """Raise IllegalTransition where the files of a job were deleted: it cannot run, be confirmed or be kept."""
    if job.purged_at is not None:
        raise IllegalTransition(f"the files of job {job.id} were deleted on {job.purged_at:%Y-%m-%d %H:%M} UTC")


def advance_job(session: Session, job: Job, action: JobAction, actor: str, reason: str) -> None:
    """Change a locked job's status by the table of transitions, end its lease, and say so in the trail."""
    job.status = next_job_status(job.status, action)
    job.reason = reason
    job.worker = ""
    job.lease_expires_at = None
    job.updated_at = utc_now()
    if job.status == JobStatus.QUEUED:
        announce(session)
    log_event(session, job.id, action, actor, reason)


def lock_delivery(session: Session, delivery_id: int) -> Delivery:
    """Return a delivery whose job is locked; raise NotFound where there is none."""
    job_id = session.exec(select(Delivery.job_id).where(Delivery.id == delivery_id)).one_or_none()
    if job_id is None:
        raise NotFound(f"no delivery {delivery_id}")
    lock_job(session, job_id)
    return session.get_one(Delivery, delivery_id)


def advance_delivery(session: Session, delivery: Delivery, action: DeliveryAction, actor: str, detail: str) -> None:
    """Change the status of a locked job's delivery by the table of transitions, and say so in its job's trail."""
    if delivery.status == DeliveryStatus.CANCELLED and action != DeliveryAction.RENEW:
        _arrives_after_all(session, delivery.job_id)
    delivery.status = next_delivery_status(delivery.status, action)
    where = f"{delivery.destination}, page {delivery.page_number}"
    log_event(session, delivery.job_id, f"DELIVERY_{action}", actor, f"{where}: {detail}" if detail else where)


def _arrives_after_all(session: Session, job_id: str) -> None:
    """Treat what was on its way when it was cancelled: a merge concerns the archive, and a rejection is repeated."""
    waits = (MergeNotice.job_id == job_id, MergeNotice.settled_by == NOTHING_DELIVERED)
    for notice in session.exec(select(MergeNotice).where(*waits)).all():
        notice.settled_by = ""
    trail = select(JobEvent).where(JobEvent.job_id == job_id).order_by(col(JobEvent.id).desc())
    rejection = session.exec(trail.where(JobEvent.action == JobAction.REJECT)).first()
    if rejection is not None and session.get_one(Job, job_id).status == JobStatus.CANCELLED:
        session.merge(
            ReviewDecision(
                job_id=job_id,
                verdict=Verdict.REJECT,
                reason=rejection.detail,
                actor=rejection.actor,
                version=job_version(session, job_id),
                due_at=utc_now(),
            )
        )


def arrived() -> ColumnElement[bool]:
    """Return the condition that a delivery arrived at some time: `gateway.domain.status.has_arrived` as SQL."""
    return or_(col(Delivery.status).in_(ARRIVED), col(Delivery.asked) > 0)


def cancel_undelivered(session: Session, job_id: str, actor: str, *conditions: bool, detail: str = "") -> None:
    """Cancel what a job has not delivered: what waits, and what was refused or given up and could be sent again."""
    undelivered = select(Delivery).where(Delivery.job_id == job_id, col(Delivery.status).in_(CANCELLABLE), *conditions)
    for delivery in session.exec(undelivered).all():
        advance_delivery(session, delivery, DeliveryAction.CANCEL, actor, detail)


def apply_decision(
    session: Session, job: Job, decision: Decision, actor: str, detail: str = "", *, event: str = "IDENTIFY"
) -> None:
    """Give a locked job the identity that was decided: it continues, is queued, or waits (`Jobs.decide`)."""
    if job.status == JobStatus.RUNNING and job.worker == actor:
        if decision.context != job.context:
            job.context = decision.context
            log_event(session, job.id, event, actor, detail)
        if decision.hold_reason:
            job.unmatched = decision.unmatched
            advance_job(session, job, JobAction.HOLD, actor, decision.hold_reason)
    elif decision.hold_reason:
        if decision.hold_reason != job.reason:
            job.reason = decision.hold_reason
            log_event(session, job.id, "LOOKUP", actor, decision.hold_reason)
    elif job.status == JobStatus.DONE:
        raise IllegalTransition(f"a {job.status} job has its identity")
    else:
        job.context = decision.context
        job.unmatched = False
        log_event(session, job.id, event, actor, detail)
        queue_again(session, job, actor)


def queue_again(session: Session, job: Job, actor: str, action: JobAction = JobAction.RETRY, detail: str = "") -> None:
    """Queue a locked job for another run, with fresh attempts; the result of one that delivered is a new revision."""
    check_files(job)
    delivered = select(Delivery.id).where(Delivery.job_id == job.id, arrived())
    job.attempts = 0
    job.confirmed_by = job.traces_agreed_by = ""
    advance_job(session, job, action, actor, detail)
    job.reason = ""
    cancel_undelivered(session, job.id, actor)
    if session.exec(delivered.limit(1)).first() is not None:
        job.revision += 1


def read_again(session: Session, job: Job, actor: str, detail: str = "") -> None:
    """Queue a locked job because a person wants its pages read again: what an archive run has read is left aside."""
    queue_again(session, job, actor, detail=detail)
    job.imported = False
