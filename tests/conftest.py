"""A PostgreSQL server for the tests that need one, and databases in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import URL

from gateway.store.store import Store
from tests.postgresql import Server, running_server


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture
def postgresql_url(postgresql_server: Server) -> Iterator[URL]:
    """A database of the newest schema, without rows; its user owns it and may do nothing else."""
    with postgresql_server.database() as url:
        yield url


@pytest.fixture
def postgresql_store(postgresql_url: URL) -> Iterator[Store]:
    store = Store(postgresql_url)
    yield store
    store.close()
