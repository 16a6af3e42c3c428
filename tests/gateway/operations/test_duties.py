"""The duties of one node: asked for, kept, lost and given back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import StorageError
from gateway.operations import duties
from gateway.operations.duties import Duties
from gateway.store.store import Store
from tests.waiting import wait_for


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"_BEAT_S": 0.05, "_ASK_S": 0.05}.items():
        monkeypatch.setattr(duties, name, seconds)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "gateway.db")
    yield store
    store.close()


def test_a_duty_goes_over_to_another_node(store: Store, tmp_path: Path) -> None:
    a, b = Duties(store.nodes, "a", tmp_path), Duties(store.nodes, "b", tmp_path)
    a.start()
    b.start()
    try:
        assert a.of("upkeep")()
        assert not b.of("upkeep")()
        a.stop()
        wait_for("the other node to take it", b.of("upkeep"))
    finally:
        b.stop()
    assert not store.nodes.duties()


def test_nothing_is_done_before_the_start(store: Store, tmp_path: Path) -> None:
    assert not Duties(store.nodes, "a", tmp_path).of("upkeep")()


def test_a_second_process_of_its_name_ends_the_first(store: Store, tmp_path: Path) -> None:
    first, second = Duties(store.nodes, "a", tmp_path), Duties(store.nodes, "a", tmp_path)
    first.start()
    second.start()
    try:
        wait_for("the first to end", lambda: not first.alive)
        assert second.alive
    finally:
        first.stop()
        second.stop()


def test_a_node_without_its_database_does_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duties, "LEASE_S", 1.0)
    monkeypatch.setattr(duties, "_MARGIN_S", 0.8)
    a = Duties(store.nodes, "a", tmp_path)
    a.start()
    on_duty = a.of("upkeep")
    try:
        wait_for("the duty", on_duty)

        def away(*_: object) -> None:
            raise StorageError("database: away")

        seen = store.nodes.seen
        monkeypatch.setattr(store.nodes, "seen", away)
        wait_for("it to stop", lambda: not on_duty())
        monkeypatch.setattr(store.nodes, "seen", seen)
        wait_for("it to go on", on_duty)
    finally:
        a.stop()
