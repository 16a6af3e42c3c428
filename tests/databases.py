"""The fixture `store` on each database, for the rooms whose conftest imports it."""

from __future__ import annotations

import pytest

from gateway.store.store import Store


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.interop)])
def store(request: pytest.FixtureRequest) -> Store:
    """A new store; on PostgreSQL only where `make interop` runs."""
    store = request.getfixturevalue(f"{request.param}_store")
    assert isinstance(store, Store)
    return store
