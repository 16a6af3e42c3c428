"""Hear from PostgreSQL that a job was queued: LISTEN on a connection of its own, through psycopg 3."""

from __future__ import annotations

import threading

import psycopg
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

_PATIENCE = 4  # who hears polls so much less often


class Listening:
    """Waits for a job on any machine.

    What it hears is a hint: a job is found without it, too, as behind a pooler that gives each transaction another
    connection.

    Parameters
    ----------
    engine : Engine
        Of the database; the connection is taken from it, and kept.
    channel : str
        What `announce` tells.
    """

    def __init__(self, engine: Engine, channel: str) -> None:
        self._engine = engine
        self._channel = channel
        self._connection: psycopg.Connection | None = None

    def wait(self, stopping: threading.Event, seconds: float) -> None:
        """Return when a job was queued since the last call, at `stopping`, and after four times `seconds` at most."""
        try:
            if self._connection is None:
                self._connection = self._listen()
                return  # what was queued before it listens is there to be asked for
            for _ in range(_PATIENCE):
                if list(self._connection.notifies(timeout=seconds, stop_after=1)) or stopping.is_set():
                    return
        except (psycopg.Error, SQLAlchemyError):  # the database is away: who asks it for a job next says so
            self.close()
            stopping.wait(seconds)

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _listen(self) -> psycopg.Connection:
        lent = self._engine.raw_connection()
        connection = lent.driver_connection
        lent.detach()
        assert isinstance(connection, psycopg.Connection)
        connection.rollback()
        connection.autocommit = True
        connection.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(self._channel)))
        return connection
