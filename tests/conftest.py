"""A PostgreSQL server and an object store for the tests that need one, and databases and buckets in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import URL

from gateway.store.store import Store
from tests.postgresql import Server, running_server

if TYPE_CHECKING:
    from tests.object_store import ObjectStore


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


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    from tests.object_store import running_object_store  # loads the client, which only these tests need

    with running_object_store() as store:
        yield store


@pytest.fixture
def bucket(object_store: ObjectStore) -> Iterator[dict[str, Any]]:
    """The settings of a spool in a bucket of its own."""
    with object_store.bucket() as settings:
        yield settings
