"""The store: what the gateway knows, by subject, on one database."""

from __future__ import annotations

from pathlib import Path

from gateway.store.commitments import Commitments
from gateway.store.database import Database
from gateway.store.deliveries import Deliveries
from gateway.store.jobs import Jobs
from gateway.store.patients import Patients


class Store:
    """The one truth for state; who needs one subject is given that one.

    Parameters
    ----------
    path : Path
        The database file (see `Database`).
    busy_timeout_s : float
        How long a writer waits for its turn before it gives up.

    Raises
    ------
    StorageError
        The file cannot be opened, is no database, or is of a newer version of the gateway.
    """

    def __init__(self, path: Path, busy_timeout_s: float = 10.0) -> None:
        self.database = Database(path, busy_timeout_s)
        self.jobs = Jobs(self.database)
        self.deliveries = Deliveries(self.database)
        self.patients = Patients(self.database)
        self.commitments = Commitments(self.database)

    def close(self) -> None:
        """Close the connections of this process."""
        self.database.close()
