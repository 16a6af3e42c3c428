"""What the audit repository has not been told yet: entries of their own, and lines of the jobs' trail.

An entry is deleted when it was told.  The jobs' trail stays, so only the newest line that was told is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, text
from sqlmodel import col, delete, select

from gateway.domain.clock import utc_now
from gateway.store.database import Database
from gateway.store.tables import AuditEntry, AuditPosition, JobEvent

_SETTLED = timedelta(minutes=2)  # a transaction of PostgreSQL may commit after one with later numbers
_NEXT_TRANSACTION = "SELECT CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text) AS bigint)"
_OLDEST_TRANSACTION = "SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint)"  # that runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """How far the jobs' trail goes at some time: its newest line, and a transaction that had not begun then."""

    newest: int
    before: int


class Trail:
    """What waits to be told, on one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._settled = _SETTLED if database.url.get_backend_name() == "postgresql" else timedelta(0)

    def record(self, *entries: AuditEntry) -> None:
        """Keep entries until they were told; where nobody is told, keep nothing."""
        with self._database.read() as session:
            if session.get(AuditPosition, 1) is None:
                return
        with self._database.write() as session:
            session.add_all(entries)

    def begin(self) -> None:
        """Tell the jobs' trail from now on, where it was not told before."""
        with self._database.write("audit position") as session:
            if session.get(AuditPosition, 1) is None:
                newest = session.exec(select(func.max(JobEvent.id))).one() or 0
                session.add(AuditPosition(id=1, event=newest))

    def end(self) -> None:
        """Tell nothing any more: what waits is forgotten."""
        with self._database.write("audit position") as session:
            session.exec(delete(AuditPosition))
            session.exec(delete(AuditEntry))

    def entries(self, limit: int) -> Sequence[AuditEntry]:
        """Return entries that wait, oldest first."""
        with self._database.read() as session:
            return session.exec(select(AuditEntry).order_by(col(AuditEntry.id)).limit(limit)).all()

    def events(self, limit: int) -> Sequence[JobEvent]:
        """Return lines of the jobs' trail that wait, oldest first."""
        until = utc_now() - self._settled
        with self._database.read() as session:
            position = session.get(AuditPosition, 1)
            if position is None:
                return []
            later = select(JobEvent).where(col(JobEvent.id) > position.event).order_by(col(JobEvent.id)).limit(limit)
            found = session.exec(later).all()
        young = next((n for n, line in enumerate(found) if self._settled and line.at > until), len(found))
        return found[:young]

    def moment(self) -> Moment:
        """Return how far the jobs' trail goes now."""
        with self._database.read() as session:
            newest = session.exec(select(func.max(JobEvent.id))).one() or 0
            later = session.connection().scalar(text(_NEXT_TRANSACTION)) if self._settled else 0
            return Moment(newest=newest, before=later or 0)

    def is_whole(self, moment: Moment) -> bool:
        """Return whether no line will come before the newest one of a moment any more: what ran then has ended."""
        if not self._settled:
            return True
        with self._database.read() as session:
            return bool(session.connection().scalar(text(_OLDEST_TRANSACTION)) >= moment.before)

    def lines(self, after: int, until: int, limit: int) -> Sequence[JobEvent]:
        """Return the lines of the jobs' trail between two numbers, the second one included, oldest first."""
        some = select(JobEvent).where(col(JobEvent.id) > after, col(JobEvent.id) <= until)
        with self._database.read() as session:
            return session.exec(some.order_by(col(JobEvent.id)).limit(limit)).all()

    def told(self, entries: Sequence[AuditEntry], events: Sequence[JobEvent]) -> None:
        """Record that the repository was told these."""
        with self._database.write() as session:
            session.exec(delete(AuditEntry).where(col(AuditEntry.id).in_([entry.id for entry in entries])))
            position = session.get(AuditPosition, 1, with_for_update=True)
            if events and position is not None:
                position.event = events[-1].id or position.event

    def waiting(self) -> int:
        """Return how much waits."""
        with self._database.read() as session:
            position = session.get(AuditPosition, 1)
            entries = session.exec(select(func.count()).select_from(AuditEntry)).one()
            if position is None:
                return entries
            later = select(func.count()).select_from(JobEvent).where(col(JobEvent.id) > position.event)
            return entries + session.exec(later).one()
