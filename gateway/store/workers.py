"""Workers: when each was last seen at work, or ready for it."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import func
from sqlmodel import col, delete, select

from gateway.domain.clock import utc_now
from gateway.store.database import Database
from gateway.store.tables import WorkerSeen

_FORGOTTEN = timedelta(days=1)
_CLOCKS = timedelta(minutes=1)  # between the clocks of two machines; what is later was written by a wrong one


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
