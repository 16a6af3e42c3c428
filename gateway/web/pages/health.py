"""The truth about the gateway's health: what is checked, and what Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gateway import __version__
from gateway.domain.clock import utc_now
from gateway.errors import StorageError
from gateway.security.certificates import certificates
from gateway.settings import Settings, WorkerSettings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.web.site import Site

_SILENCE_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that must hold; `detail` says in words what does not."""

    name: str
    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """All checks, and how long the oldest queued job has waited in s (None: the database cannot be read)."""

    checks: tuple[Check, ...]
    oldest_queued_age_s: float | None

    @property
    def ok(self) -> bool:
        """Whether every check holds."""
        return all(check.ok for check in self.checks)


def routes(site: Site) -> APIRouter:
    """Return the probes: /healthz, with its details for who has logged in, and /metrics for Prometheus."""
    router = APIRouter()
    registry = metrics_registry(site.store, site.spool, site.current)

    @router.get("/healthz")
    def healthz(request: Request) -> Response:
        health = check_health(site.store, site.spool, site.alive, site.settings)
        body: dict[str, object] = {"status": "ok" if health.ok else "failing"}
        if getattr(request.state, "user", None) is not None:
            body |= {
                "version": __version__,
                "checks": [asdict(check) for check in health.checks],
                "oldest_queued_age_s": health.oldest_queued_age_s,
            }
        return JSONResponse(body, status_code=200 if health.ok else 503)

    @router.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return router


def check_health(store: Store, spool: Spool, alive: Callable[[], list[str]], settings: Settings) -> Health:
    """Try what the gateway needs: database, space, a queue that moves, every thread and worker running, certificates.

    A certificate that expires soon, and files in quarantine, are named in the detail of a check that still passes.

    Parameters
    ----------
    alive
        Returns, in words, what should be running and is not; empty when everything is alive.
    """
    dead = alive()
    known = certificates(settings, utc_now())
    checks = (
        _attempt("database", store.database.ping),
        _check_spool(spool),
        _attempt("queue", partial(_check_queue, store, silence_s(settings.worker))),
        Check(name="running", ok=not dead, detail="; ".join(dead)),
        Check(
            name="certificates",
            ok=all(certificate.usable for certificate in known),
            detail="; ".join(certificate.problem for certificate in known if certificate.problem),
        ),
    )
    try:
        age_s = store.jobs.oldest_queued_age_s()
    except StorageError:
        age_s = None
    return Health(checks=checks, oldest_queued_age_s=age_s)


def _check_spool(spool: Spool) -> Check:
    try:
        spool.check_space()
        count = len(spool.quarantined())
    except StorageError as error:
        return Check(name="spool", ok=False, detail=str(error))
    detail = f"{count} files in quarantine belong to no job: `ecg-gateway recover --list`" if count else ""
    return Check(name="spool", ok=True, detail=detail)


def silence_s(worker: WorkerSettings) -> float:
    """Return after how long without a sign of a worker something is wrong, in s: one gives three in a lease."""
    return max(_SILENCE_S, 3 * worker.lease_s)


def _check_queue(store: Store, bound_s: float) -> None:
    """Raise StorageError where jobs wait and nothing becomes of any."""
    waited_s = store.jobs.oldest_queued_age_s()
    if waited_s > bound_s:
        moved_at = store.jobs.moved_at()
        if moved_at is None or (utc_now() - moved_at).total_seconds() > bound_s:
            raise StorageError(f"the oldest job has waited for {waited_s:.0f} s, and none ended for {bound_s:.0f} s")


def _attempt(name: str, action: Callable[[], None]) -> Check:
    try:
        action()
    except StorageError as error:
        return Check(name=name, ok=False, detail=str(error))
    return Check(name=name, ok=True)


class _StoreCollector(Collector):
    """Reads every figure from the store when it is scraped: nothing is counted twice, nothing lost by a restart."""

    def __init__(self, store: Store, spool: Spool, current: Callable[[], Settings]) -> None:
        self._store = store
        self._spool = spool
        self._current = current

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; raise StorageError where the database cannot be read."""
        jobs = GaugeMetricFamily("ecg_gateway_jobs", "Jobs by status", labels=["status"])
        for status, count in self._store.jobs.counts().items():
            jobs.add_metric([status.value], count)
        yield jobs
        deliveries = GaugeMetricFamily(
            "ecg_gateway_deliveries", "Deliveries by status and destination", labels=["status", "destination"]
        )
        for (delivery_status, destination), count in self._store.deliveries.counts_by_destination().items():
            deliveries.add_metric([delivery_status.value, destination], count)
        yield deliveries
        yield from self._destinations()
        yield GaugeMetricFamily(
            "ecg_gateway_oldest_queued_age_seconds",
            "How long the oldest queued job has waited; 0 when none waits",
            value=self._store.jobs.oldest_queued_age_s(),
        )
        yield GaugeMetricFamily(
            "ecg_gateway_spool_free_bytes",
            "Free space for what is on its way, and for the files of jobs where they are on disk",
            value=self._spool.free_bytes(),
        )
        expiry = GaugeMetricFamily(
            "ecg_gateway_certificate_not_after_timestamp_seconds", "When a certificate file ends", labels=["file"]
        )
        for certificate in certificates(self._current(), utc_now()):
            if certificate.not_after is not None:
                expiry.add_metric([str(certificate.file)], certificate.not_after.timestamp())
        yield expiry
        seen = GaugeMetricFamily(
            "ecg_gateway_node_seen_timestamp_seconds", "When a node was last heard of", labels=["node", "version"]
        )
        load = GaugeMetricFamily("ecg_gateway_node_load", "Runnable processes a processor", labels=["node"])
        for node in self._store.nodes.known():
            seen.add_metric([node.name, node.version], node.seen_at.timestamp())
            load.add_metric([node.name], node.load)
        yield seen
        yield load
        duties = GaugeMetricFamily("ecg_gateway_duty", "Which node does what one does for all", labels=["duty", "node"])
        for duty in self._store.nodes.duties():
            duties.add_metric([duty.name, duty.node], 1)
        yield duties
        pages, seconds = self._store.jobs.digitization_seconds()
        yield SummaryMetricFamily(
            "ecg_gateway_digitization_seconds", "Digitization time of the pages", count_value=pages, sum_value=seconds
        )

    def _destinations(self) -> Iterator[Metric]:
        """Yield how each destination of the settings fares."""
        now, states, backlogs = utc_now(), self._store.destinations.states(), self._store.destinations.backlogs()
        paused = GaugeMetricFamily(
            "ecg_gateway_destination_paused", "1 while a person has paused a destination", labels=["destination"]
        )
        oldest = GaugeMetricFamily(
            "ecg_gateway_destination_oldest_waiting_seconds",
            "Age of the oldest delivery that has not arrived; 0 when none waits",
            labels=["destination"],
        )
        success = GaugeMetricFamily(
            "ecg_gateway_destination_last_success_timestamp_seconds",
            "When something last arrived",
            labels=["destination"],
        )
        for name in (destination.name for destination in self._current().destinations):
            state, backlog = states.get(name), backlogs.get(name)
            first = backlog.oldest if backlog else None
            paused.add_metric([name], int(state is not None and state.paused_at is not None))
            oldest.add_metric([name], max(0.0, (now - first).total_seconds()) if first else 0.0)
            if state is not None and state.delivered_at is not None:
                success.add_metric([name], state.delivered_at.timestamp())
        yield from (paused, oldest, success)


def metrics_registry(store: Store, spool: Spool, current: Callable[[], Settings]) -> CollectorRegistry:
    """Return a registry of its own that reads the store, and the certificates, at every scrape."""
    registry = CollectorRegistry()
    registry.register(_StoreCollector(store, spool, current))
    return registry
