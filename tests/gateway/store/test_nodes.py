"""Nodes and their duties, on each database."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from gateway.domain import clock
from gateway.errors import StorageError
from gateway.store.queue import nodes
from gateway.store.store import Store
from gateway.store.tables import Node

LEASE_S = 30.0


def node(name: str, place: str = "", instance: str = "") -> Node:
    return Node(name=name, instance=instance or f"{name}-1", place=place or f"{name}:/srv", version="1")


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let the time be so much later for the nodes."""

    def set_to(seconds: float) -> None:
        monkeypatch.setattr(nodes, "utc_now", lambda: datetime.now(UTC) + timedelta(seconds=seconds))

    return set_to


def test_one_node_at_a_time_has_a_duty(store: Store) -> None:
    a, b = node("a"), node("b")
    assert store.nodes.take("outbox PACS", a, LEASE_S)
    assert store.nodes.take("outbox PACS", a, LEASE_S)
    assert not store.nodes.take("outbox PACS", b, LEASE_S)
    assert store.nodes.take("outbox EHR", b, LEASE_S)
    assert [(duty.name, duty.node) for duty in store.nodes.duties()] == [("outbox EHR", "b"), ("outbox PACS", "a")]


def test_a_silent_node_loses_its_duties_and_finds_out(store: Store, later: Callable[[float], None]) -> None:
    a, b = node("a"), node("b")
    store.nodes.begin(a, LEASE_S)
    assert store.nodes.take("upkeep", a, LEASE_S)
    assert store.nodes.take("audit", a, LEASE_S)
    later(LEASE_S + 1)
    assert store.nodes.take("upkeep", b, LEASE_S)
    assert list(store.nodes.seen(a, 0.5, LEASE_S) or ()) == ["audit"]
    later(2 * LEASE_S)
    assert not store.nodes.take("audit", b, LEASE_S)  # it was extended


def test_a_node_that_stops_gives_its_duties_back(store: Store) -> None:
    a, b = node("a"), node("b")
    store.nodes.begin(a, LEASE_S)
    assert store.nodes.take("upkeep", a, LEASE_S)
    store.nodes.end(a)
    assert store.nodes.take("upkeep", b, LEASE_S)
    assert [each.stopped for each in store.nodes.known()] == [True]


def test_a_node_that_starts_again_has_its_duties_at_once(store: Store) -> None:
    before, after = node("a", instance="before"), node("a", instance="after")
    store.nodes.begin(before, LEASE_S)
    assert store.nodes.take("upkeep", before, LEASE_S)
    store.nodes.begin(after, LEASE_S)
    assert store.nodes.take("upkeep", after, LEASE_S)
    assert store.nodes.seen(before, 0.0, LEASE_S) is None  # should it run still, it is told to end


@pytest.mark.interop
def test_a_name_is_one_machines(postgresql_store: Store, later: Callable[[float], None]) -> None:
    store = postgresql_store
    store.nodes.begin(node("a", place="one:/srv"), LEASE_S)
    other = node("a", place="two:/srv", instance="other")
    with pytest.raises(StorageError, match=r"node 'a' \(at one:/srv, heard of \d+ s ago\).*own \[storage\] node"):
        store.nodes.begin(other, LEASE_S)
    later(LEASE_S + 1)
    store.nodes.begin(other, LEASE_S)
    assert [each.place for each in store.nodes.known()] == ["two:/srv"]


def test_the_databases_clock_counts() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    try:
        assert clock.follow(now + timedelta(seconds=60), now) == timedelta(seconds=60)
        assert clock.utc_now() - datetime.now(UTC) > timedelta(seconds=59)
        assert clock.follow(now + timedelta(seconds=60.2), now) == timedelta(seconds=60)  # the way there and back
    finally:
        assert clock.follow(now, now) == timedelta(0)
