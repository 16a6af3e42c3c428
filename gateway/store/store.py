"""The store: what the gateway knows, by subject, on one database."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from gateway.errors import StorageError
from gateway.settings import StorageSettings
from gateway.store.accounts import Accounts, ApiTokens
from gateway.store.commitments import Commitments
from gateway.store.database import Database
from gateway.store.deliveries import Deliveries
from gateway.store.jobs import Jobs, Workers
from gateway.store.patients import Patients
from gateway.store.queue.batches import Batches
from gateway.store.queue.destinations import Destinations
from gateway.store.queue.kept_files import KeptFiles
from gateway.store.queue.nodes import Nodes
from gateway.store.queue.search import Search
from gateway.store.queue.statistics import Statistics
from gateway.store.review import Review
from gateway.store.trail import Trail


class Store:
    """The one truth for state; who needs one subject is given that one.

    Parameters
    ----------
    where : Path or URL
        The database (see `Database`).
    busy_timeout_s : float
        How long a writer waits for its turn before it gives up.

    Raises
    ------
    StorageError
        The database cannot be opened, is none, or is of a newer version of the gateway.
    """

    def __init__(self, where: Path | URL, busy_timeout_s: float = 10.0) -> None:
        self.database = Database(where, busy_timeout_s)
        self.jobs = Jobs(self.database)
        self.files = KeptFiles(self.database)
        self.search = Search(self.database)
        self.batches = Batches(self.database)
        self.destinations = Destinations(self.database)
        self.statistics = Statistics(self.database)
        self.deliveries = Deliveries(self.database)
        self.patients = Patients(self.database)
        self.commitments = Commitments(self.database)
        self.workers = Workers(self.database)
        self.nodes = Nodes(self.database)
        self.review = Review(self.database)
        self.accounts = Accounts(self.database)
        self.tokens = ApiTokens(self.database)
        self.trail = Trail(self.database)

    @classmethod
    def open(cls, settings: StorageSettings) -> Self:
        """Open the database that the settings name."""
        return cls(database_url(settings))

    def close(self) -> None:
        """Close the connections of this process."""
        self.database.close()


def database_url(settings: StorageSettings) -> URL:
    """Return where the settings say that the database is: the file `gateway.db` in `path`, or a PostgreSQL server."""
    if not settings.database:
        return URL.create("sqlite", database=str(settings.path / "gateway.db"))
    try:
        url = make_url(settings.database)
        if settings.database_password_file:
            url = url.set(password=settings.database_password_file.read_text(encoding="utf-8").rstrip("\r\n"))
    except (ArgumentError, OSError, UnicodeDecodeError) as error:
        raise StorageError(f"database: {error}") from error
    return url
