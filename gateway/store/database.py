"""The database under the store: one SQLite file, its schema, its sessions, and the steps every table's code shares.

The database is in WAL mode with `synchronous=FULL`: what is committed outlives a power cut.  Writers begin with
`BEGIN IMMEDIATE`, so threads and processes take turns and nobody decides on a state that is no longer true.  Rows
come back detached: plain values that follow no later change.  Any failure of the database is a `StorageError`.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import ColumnElement, Connection, create_engine, event, or_, text
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session, col, select

from gateway.domain.clock import utc_now
from gateway.domain.status import (
    ARRIVED,
    CANCELLABLE,
    DeliveryAction,
    DeliveryStatus,
    JobAction,
    next_delivery_status,
    next_job_status,
)
from gateway.errors import NotFound, StorageError
from gateway.store.tables import Delivery, Job, JobEvent, MergeNotice

NOTHING_DELIVERED = "nothing was delivered"  # who settles a merge notice that concerns nobody


class Database:
    """One SQLite file; safe to share between threads, and to open in several processes.

    Parameters
    ----------
    path : Path
        The database file; it and its folder are made where missing, and the schema is brought up to date.
    busy_timeout_s : float
        How long a writer waits for its turn before it gives up.

    Raises
    ------
    StorageError
        The file cannot be opened, is no database, or is of a newer version of the gateway.
    """

    def __init__(self, path: Path, busy_timeout_s: float = 10.0) -> None:
        self.path = path
        self._engine = create_engine(
            f"sqlite:///{path}",
            connect_args={"timeout": busy_timeout_s, "isolation_level": None},
            max_overflow=-1,
            hide_parameters=True,  # parameters hold patient data; errors reach the log
        )
        event.listen(self._engine, "connect", _set_pragmas)
        event.listen(self._engine, "begin", _begin)
        self._writer = self._engine.execution_options(writes=True)
        self._migrate()

    def close(self) -> None:
        """Close the connections of this process."""
        self._engine.dispose()

    def ping(self) -> None:
        """Commit a write that changes nothing; raise StorageError where the database cannot take one."""
        with self.write() as session:
            session.connection().execute(text("UPDATE alembic_version SET version_num = version_num"))

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a session that only reads."""
        with _as_storage_error(), Session(self._engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Open a session that writes: it is committed at its end, or rolled back by an error."""
        with _as_storage_error(), Session(self._writer, expire_on_commit=False) as session, session.begin():
            session.connection()  # BEGIN IMMEDIATE: what the block takes for now comes after the wait for our turn
            yield session

    def _migrate(self) -> None:
        """Bring the schema up to date; processes that start together take turns."""
        config = Config()
        migrations = Path(__file__).with_name("migrations")
        config.set_main_option("script_location", str(migrations).replace("%", "%%"))
        with _as_storage_error():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self.path.with_name(self.path.name + ".lock")):
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
                with closing(sqlite3.connect(self.path)) as plain:  # the mode cannot change inside a transaction
                    plain.execute("PRAGMA journal_mode=WAL")
                with self._writer.begin() as connection:
                    config.attributes["connection"] = connection
                    command.upgrade(config, "head")


@contextmanager
def _as_storage_error() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise StorageError(f"database: {getattr(error, 'orig', None) or type(error).__name__}") from error
    except (CommandError, OSError, sqlite3.Error) as error:
        raise StorageError(f"database: {error}") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _set_pragmas(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


def log_event(session: Session, job_id: str, action: str, actor: str, detail: str) -> None:
    """Add a line to a job's audit trail."""
    session.add(JobEvent(job_id=job_id, action=str(action), actor=actor, detail=detail))


def find_job(session: Session, job_id: str) -> Job:
    """Return a job; raise NotFound where there is none."""
    job = session.get(Job, job_id)
    if job is None:
        raise NotFound(f"no job {job_id}")
    return job


def advance_job(session: Session, job: Job, action: JobAction, actor: str, reason: str) -> None:
    """Change a job's status by the table of transitions, end its lease, and say so in the trail."""
    job.status = next_job_status(job.status, action)
    job.reason = reason
    job.worker = ""
    job.lease_expires_at = None
    job.updated_at = utc_now()
    log_event(session, job.id, action, actor, reason)


def find_delivery(session: Session, delivery_id: int) -> Delivery:
    """Return a delivery; raise NotFound where there is none."""
    delivery = session.get(Delivery, delivery_id)
    if delivery is None:
        raise NotFound(f"no delivery {delivery_id}")
    return delivery


def advance_delivery(session: Session, delivery: Delivery, action: DeliveryAction, actor: str, detail: str) -> None:
    """Change a delivery's status by the table of transitions, and say so in its job's trail.

    What was on its way when a merge cancelled it, and has arrived, concerns the archive after all.
    """
    if delivery.status == DeliveryStatus.CANCELLED and action != DeliveryAction.RENEW:
        waits = (MergeNotice.job_id == delivery.job_id, MergeNotice.settled_by == NOTHING_DELIVERED)
        for notice in session.exec(select(MergeNotice).where(*waits)).all():
            notice.settled_by = ""
    delivery.status = next_delivery_status(delivery.status, action)
    where = f"{delivery.destination}, page {delivery.page_number}"
    log_event(session, delivery.job_id, f"DELIVERY_{action}", actor, f"{where}: {detail}" if detail else where)


def arrived() -> ColumnElement[bool]:
    """Return the condition that a delivery arrived at some time: `gateway.domain.status.has_arrived` as SQL."""
    return or_(col(Delivery.status).in_(ARRIVED), col(Delivery.asked) > 0)


def cancel_undelivered(session: Session, job_id: str, actor: str, *conditions: bool, detail: str = "") -> None:
    """Cancel what a job has not delivered: what waits, and what was refused or given up and could be sent again."""
    undelivered = select(Delivery).where(Delivery.job_id == job_id, col(Delivery.status).in_(CANCELLABLE), *conditions)
    for delivery in session.exec(undelivered).all():
        advance_delivery(session, delivery, DeliveryAction.CANCEL, actor, detail)
