"""The machines that run the service on one database, and the duties of which one of them at a time has each.

A duty is a lease: its node extends it, gives it back when it stops, and loses it when it is not heard of any more.
A node that starts again takes its own duties at once: the lock of its folder says that the process before is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlmodel import col, delete, select, update

from gateway.domain.clock import utc_now
from gateway.errors import StorageError
from gateway.store.database import Database
from gateway.store.tables import Duty, Node

_FORGOTTEN = timedelta(days=30)


class Nodes:
    """The nodes of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._shared = database.url.get_backend_name() == "postgresql"  # SQLite: the lock of its folder is enough

    def begin(self, node: Node, lease_s: float) -> None:
        """Enter a node that starts; what it did before a crash is its own again.

        Raises
        ------
        StorageError
            Another machine, or another storage path, runs under this name now.
        """
        with self._database.write(f"node {node.name}") as session:
            known = session.get(Node, node.name) if self._shared else None
            if known is not None and known.place != node.place and not known.stopped:
                silent = utc_now() - known.seen_at
                if silent < timedelta(seconds=lease_s):
                    raise StorageError(
                        f"database: a gateway runs on it already as node {node.name!r} (at {known.place}, heard of "
                        f"{silent.total_seconds():.0f} s ago): give each machine its own [storage] node"
                    )
            session.merge(node)
            session.exec(update(Duty).where(col(Duty.node) == node.name).values(instance=node.instance))
            session.exec(delete(Node).where(col(Node.seen_at) < utc_now() - _FORGOTTEN))

    def seen(self, node: Node, load: float, lease_s: float) -> Sequence[str] | None:
        """Record that a node runs, and extend its duties; return them, None if another process has taken its name."""
        self._database.follow_clock()
        with self._database.write(f"node {node.name}") as session:
            known = session.get(Node, node.name)
            if known is None or known.instance != node.instance:
                return None
            now = utc_now()
            known.seen_at, known.load = now, load
            until = now + timedelta(seconds=lease_s)
            mine = update(Duty).where(col(Duty.instance) == node.instance).values(until=until)
            return session.exec(mine.returning(col(Duty.name))).scalars().all()

    def take(self, duty: str, node: Node, lease_s: float) -> bool:
        """Take a duty that nobody has, or keep it; False where another node has it."""
        with self._database.write(f"duty {duty}") as session:
            now = utc_now()
            until = now + timedelta(seconds=lease_s)
            held = session.get(Duty, duty, with_for_update=True)
            if held is None:
                session.add(Duty(name=duty, node=node.name, instance=node.instance, until=until))
            elif held.instance == node.instance or held.until < now:
                held.node, held.instance, held.until = node.name, node.instance, until
            else:
                return False
            return True

    def end(self, node: Node) -> None:
        """Give back the duties of a node that stops, so that others need not wait."""
        with self._database.write(f"node {node.name}") as session:
            known = session.get(Node, node.name)
            if known is not None and known.instance == node.instance:
                known.seen_at, known.stopped = utc_now(), True
            session.exec(delete(Duty).where(col(Duty.instance) == node.instance))

    def known(self) -> Sequence[Node]:
        """Return the nodes of the last month, by name."""
        with self._database.read() as session:
            return session.exec(select(Node).order_by(col(Node.name))).all()

    def duties(self) -> Sequence[Duty]:
        """Return who does what, by duty; a lease that has ended is nobody's."""
        with self._database.read() as session:
            return session.exec(select(Duty).where(col(Duty.until) >= utc_now()).order_by(col(Duty.name))).all()
