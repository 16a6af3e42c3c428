"""The queue: every job in one line, newest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse

from gateway.domain.clock import utc_now
from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.store.store import Store
from gateway.store.tables import Delivery, Job
from gateway.web.pages.words import (
    DELIVERY_WORDS,
    STATUS_WORDS,
    Badge,
    age_in_words,
    delivery_tone,
    job_badge,
    per_cent,
    source_in_words,
)
from gateway.web.site import Site

_JOBS_PER_PAGE = 50
_MOST_URGENT_FIRST = (
    DeliveryStatus.REFUSED,
    DeliveryStatus.FAILED,
    DeliveryStatus.PENDING,
    DeliveryStatus.STORED,
    DeliveryStatus.CANCELLED,
    DeliveryStatus.DELIVERED,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """One status to filter the queue by; None is every status."""

    status: JobStatus | None
    words: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """One line of the queue."""

    id: str
    status: Badge
    received_at: datetime
    age: str
    source: str
    layout: str
    estimated_snr: str
    coverage: str
    deliveries: tuple[Badge, ...]
    reason: str


def routes(site: Site) -> APIRouter:
    """Return the route of the queue."""
    router, store = APIRouter(), site.store

    @router.get("/", response_class=HTMLResponse)
    def queue(
        request: Request,
        status: JobStatus | None = None,
        page: Annotated[int, Query(ge=1, le=100_000)] = 1,
        refresh: Literal["on", "off"] = "on",
    ) -> Response:
        jobs = store.jobs.newest(status, limit=_JOBS_PER_PAGE + 1, offset=(page - 1) * _JOBS_PER_PAGE)
        shown = {
            "filters": filters(store),
            "chosen": status,
            "totals": delivery_totals(store),
            "rows": [job_row(store, job) for job in jobs[:_JOBS_PER_PAGE]],
            "page": page,
            "more": len(jobs) > _JOBS_PER_PAGE,
            "refresh": refresh,
        }
        return site.templates.TemplateResponse(request, "queue.html", shown)

    return router


def filters(store: Store) -> tuple[Filter, ...]:
    """Return the queue's filters with their counts, "All" first."""
    counts = store.jobs.counts()
    every = Filter(status=None, words="All", count=sum(counts.values()))
    return (every, *(Filter(status=s, words=STATUS_WORDS[s], count=n) for s, n in counts.items()))


def delivery_totals(store: Store) -> tuple[Badge, ...]:
    """Return how many deliveries stand in each status that has any."""
    counts = store.deliveries.counts()
    return tuple(
        Badge(words=f"{count} {DELIVERY_WORDS[status]}", tone=delivery_tone(status))
        for status, count in counts.items()
        if count
    )


def job_row(store: Store, job: Job) -> JobRow:
    """Return one job as a line of the queue; of several pages the worst figures."""
    pages = store.jobs.pages(job.id)
    layouts = list(dict.fromkeys(page.layout for page in pages if page.layout))
    snrs = [page.estimated_snr_db for page in pages if page.estimated_snr_db is not None]
    coverages = [page.coverage for page in pages if page.coverage is not None]
    return JobRow(
        id=job.id,
        status=job_badge(job.status),
        received_at=job.created_at,
        age=age_in_words((utc_now() - job.created_at).total_seconds()),
        source=source_in_words(job.source),
        layout=", ".join(layouts) + (f" ({len(pages)} pages)" if len(pages) > 1 else ""),
        estimated_snr=f"{min(snrs):.1f} dB" if snrs else "",
        coverage=per_cent(min(coverages)) if coverages else "",
        deliveries=_by_destination(store.deliveries.of_job(job.id)),
        reason=job.reason,
    )


def _by_destination(deliveries: Sequence[Delivery]) -> tuple[Badge, ...]:
    """Return one badge a destination: its most urgent status, and of how many deliveries where there are several."""
    badges = []
    for destination in dict.fromkeys(delivery.destination for delivery in deliveries):
        statuses = [delivery.status for delivery in deliveries if delivery.destination == destination]
        status = next(status for status in _MOST_URGENT_FIRST if status in statuses)
        share = f" {statuses.count(status)}/{len(statuses)}" if len(statuses) > 1 else ""
        words = f"{destination} {DELIVERY_WORDS[status]}{share}"
        badges.append(Badge(words=words, tone=delivery_tone(status)))
    return tuple(badges)
