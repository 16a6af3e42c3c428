"""The truth about the gateway's health: what is checked, and what Prometheus reads."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gateway.errors import StorageError
from gateway.spool import Spool
from gateway.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that must hold; `detail` says in words what does not."""

    name: str
    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """All checks, and how long the oldest queued job has waited in s (None: the database cannot tell)."""

    checks: tuple[Check, ...]
    oldest_queued_age_s: float | None

    @property
    def ok(self) -> bool:
        """Whether every check holds."""
        return all(check.ok for check in self.checks)


def check_health(store: Store, spool: Spool, alive: Callable[[], list[str]]) -> Health:
    """Try what the gateway needs: a write to the database, free space, and every thread and worker running.

    Parameters
    ----------
    alive
        Returns, in words, what should be running and is not; empty when everything is alive.
    """
    dead = alive()
    checks = (
        _attempt("database", store.ping),
        _attempt("spool", spool.check_space),
        Check(name="running", ok=not dead, detail="; ".join(dead)),
    )
    try:
        age_s = store.oldest_queued_age_s()
    except StorageError:
        age_s = None
    return Health(checks=checks, oldest_queued_age_s=age_s)


def _attempt(name: str, action: Callable[[], None]) -> Check:
    try:
        action()
    except StorageError as error:
        return Check(name=name, ok=False, detail=str(error))
    return Check(name=name, ok=True)


class _StoreCollector(Collector):
    """Reads every figure from the store when it is scraped: nothing is counted twice, nothing lost by a restart."""

    def __init__(self, store: Store, spool: Spool) -> None:
        self._store = store
        self._spool = spool

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; raise StorageError where the database cannot be read."""
        jobs = GaugeMetricFamily("ecg_gateway_jobs", "Jobs by status", labels=["status"])
        for status, count in self._store.counts().items():
            jobs.add_metric([status.value], count)
        yield jobs
        deliveries = GaugeMetricFamily(
            "ecg_gateway_deliveries", "Deliveries by status and destination", labels=["status", "destination"]
        )
        for (delivery_status, destination), count in self._store.delivery_counts_by_destination().items():
            deliveries.add_metric([delivery_status.value, destination], count)
        yield deliveries
        yield GaugeMetricFamily(
            "ecg_gateway_oldest_queued_age_seconds",
            "How long the oldest queued job has waited; 0 when none waits",
            value=self._store.oldest_queued_age_s(),
        )
        yield GaugeMetricFamily(
            "ecg_gateway_spool_free_bytes",
            "Free space where the spool is",
            value=shutil.disk_usage(self._spool.path).free,
        )
        pages, seconds = self._store.digitization_seconds()
        yield SummaryMetricFamily(
            "ecg_gateway_digitization_seconds", "Digitization time of the pages", count_value=pages, sum_value=seconds
        )


def metrics_registry(store: Store, spool: Spool) -> CollectorRegistry:
    """Return a registry of its own that reads the store at every scrape."""
    registry = CollectorRegistry()
    registry.register(_StoreCollector(store, spool))
    return registry
