"""PostgreSQL under the store, through psycopg 3.

Writers run READ COMMITTED and lock what they decide on (docs/decisions/0012-postgresql.md); readers see one snapshot.
Whatever the server's defaults are, a commit waits for the disk, and no statement waits without end.  Date-times are
stored without a time zone, in UTC, so that the server's time zone changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from sqlalchemy import URL, Connection, Executable, Integer, Table, create_engine, func, select
from sqlmodel import Session

from gateway.store.backends.ear import Ear

_POOL = 5  # connections a process keeps
_POOL_OVERFLOW = 10  # and opens beside them while all are in use
_STATEMENT_S = 30.0  # for one statement, and for a transaction that does nothing
_QUEUED = "ecg_gateway_queued"
_SILENT_PEER_S = 30.0  # for a server that does not acknowledge what was sent to it


class Postgresql:
    """One PostgreSQL database.

    Parameters
    ----------
    url : URL
        `postgresql+psycopg://USER@HOST:PORT/NAME`; its query holds options of libpq, which replace ours.
    busy_timeout_s : float
        How long a writer waits for a lock, and anybody for a connection, before it fails.
    """

    def __init__(self, url: URL, busy_timeout_s: float) -> None:
        engine = create_engine(
            url,
            connect_args=_connection_options(url, busy_timeout_s),
            pool_size=_POOL,
            max_overflow=_POOL_OVERFLOW,
            pool_timeout=busy_timeout_s,
            pool_pre_ping=True,  # a connection that was lost is replaced
            hide_parameters=True,  # parameters hold patient data; errors reach the log
        )
        self.writer = engine.execution_options(isolation_level="READ COMMITTED")
        self.reader = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    def ear(self) -> Ear:
        """Return what hears that a job was queued, on a connection of its own."""
        from gateway.store.backends.listening import Listening  # loads the driver, which SQLite does not need

        return Listening(self.writer, _QUEUED)

    def take_turn(self, session: Session, name: str) -> None:
        """Wait until no other transaction has the turn of this name, and keep it until the transaction ends."""
        session.connection().execute(_lock(name))

    def now(self) -> datetime | None:
        """Return what the server's clock shows."""
        with self.reader.connect() as connection:
            shown: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
        return shown.astimezone(UTC)

    def size_bytes(self) -> int:
        """Return what the database takes on the server."""
        with self.reader.connect() as connection:
            return int(connection.execute(select(func.pg_database_size(func.current_database()))).scalar_one())

    def number_on(self, connection: Connection, table: Table) -> None:
        """Let new rows have numbers behind those that are in a table; a table whose key is no number has none."""
        key = table.primary_key.columns[0]
        if isinstance(key.type, Integer):
            sequence = func.pg_get_serial_sequence(table.name, key.name)
            connection.execute(select(func.setval(sequence, func.max(key))))

    @contextmanager
    def migrating(self) -> Iterator[Connection]:
        """Open a transaction while other processes that open the database wait, as long as it takes."""
        with self.writer.begin() as connection:
            for timeout in ("lock_timeout", "statement_timeout"):
                connection.execute(select(func.set_config(timeout, "0", True)))
            connection.execute(_lock("migration"))
            yield connection


def announce(session: Session) -> None:
    """Tell those who listen, at the commit, that a job was queued; on SQLite nobody listens."""
    if session.get_bind().dialect.name == "postgresql":
        session.connection().execute(select(func.pg_notify(_QUEUED, "")))


def describe(error: BaseException) -> str:
    """Return what went wrong without the values of a row.

    The server's DETAIL, HINT and CONTEXT quote keys and parameters, and so may the message of a data exception
    (SQLSTATE class 22): only the kind of such an error is named.
    """
    code = getattr(error, "sqlstate", None)
    if code is None:  # not from the server: it is not reached, or was not asked
        return " ".join(str(error).split())
    kind = f"{type(error).__name__} ({code})"
    message = getattr(getattr(error, "diag", None), "message_primary", None)
    return kind if code.startswith("22") or not message else f"{kind}: {message}"


def _connection_options(url: URL, busy_timeout_s: float) -> dict[str, object]:
    session = {
        "lock_timeout": round(busy_timeout_s * 1000),
        "statement_timeout": round(max(_STATEMENT_S, 2 * busy_timeout_s) * 1000),
        "idle_in_transaction_session_timeout": round(_STATEMENT_S * 1000),
        "synchronous_commit": "on",
    }
    options = {
        "connect_timeout": max(2, round(busy_timeout_s)),  # libpq takes less than 2 s for 2 s
        "application_name": "ecg-gateway",
        "client_encoding": "utf8",
        "tcp_user_timeout": round(_SILENT_PEER_S * 1000),
    }
    own = {name: value for name, value in options.items() if name not in url.query}
    settings = " ".join(f"-c {name}={value}" for name, value in session.items())
    return own | {"options": f"{settings} {url.query.get('options', '')}".strip()}


def _lock(name: str) -> Executable:
    """Return the statement that takes the advisory lock of a name."""
    key = int.from_bytes(hashlib.sha256(f"ecg-gateway {name}".encode()).digest()[:8], "big", signed=True)
    return select(func.pg_advisory_xact_lock(key))
