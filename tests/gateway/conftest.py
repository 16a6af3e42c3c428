"""A store and a spool on real files, fresh for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.intake import Intake
from gateway.spool import Spool
from gateway.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "gateway.db")
    yield store
    store.close()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", minimum_free_mib=0)


@pytest.fixture
def intake(spool: Spool, store: Store) -> Intake:
    return Intake(spool, store)
