"""SQLite under the store: one file, nothing to set up.

The file is in WAL mode with `synchronous=FULL`: what is committed survives a power cut.  Writers begin with
`BEGIN IMMEDIATE`, so threads and processes take turns, and no writer decides on a state that is no longer true.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

from sqlalchemy import URL, Connection, create_engine, event
from sqlmodel import Session

from gateway.store.backends.ear import Deaf, Ear


class Sqlite:
    """One SQLite file.

    Parameters
    ----------
    url : URL
        `sqlite:///PATH`.
    busy_timeout_s : float
        How long a writer waits for its turn before it fails.
    """

    def __init__(self, url: URL, busy_timeout_s: float) -> None:
        self._path = Path(url.database or "")
        self.reader = create_engine(
            url,
            connect_args={"timeout": busy_timeout_s, "isolation_level": None},
            max_overflow=-1,
            hide_parameters=True,  # parameters hold patient data; errors reach the log
        )
        event.listen(self.reader, "connect", _set_pragmas)
        event.listen(self.reader, "begin", _begin)
        self.writer = self.reader.execution_options(writes=True)

    def ear(self) -> Ear:
        """Return one that hears nothing: the processes of one machine ask the file, which costs little."""
        return Deaf()

    def take_turn(self, session: Session, name: str) -> None:
        """Do nothing: every writer has its turn since `BEGIN IMMEDIATE`."""

    def now(self) -> datetime | None:
        """Return None: the file is on this machine, whose clock counts."""

    def size_bytes(self) -> int:
        """Return what the file and its log hold."""
        files = (self._path.with_name(self._path.name + end) for end in ("", "-wal", "-shm"))
        return sum(file.stat().st_size for file in files if file.exists())

    @contextmanager
    def migrating(self) -> Iterator[Connection]:
        """Make the file where it is missing, and open a transaction while other processes wait for a lock file."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(self._path.with_name(self._path.name + ".lock")):
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            with closing(sqlite3.connect(self._path)) as plain:  # the mode cannot change inside a transaction
                plain.execute("PRAGMA journal_mode=WAL")
            with self.writer.begin() as connection:
                yield connection


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
