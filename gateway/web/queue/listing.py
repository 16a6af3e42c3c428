"""The queue: jobs by a filter, what went wrong first, with their totals; and the same as CSV.

A page that renews itself is answered 204 while nothing has happened, which costs next to nothing.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, StreamingResponse

from gateway.domain.account import User
from gateway.domain.audit import AuditKind
from gateway.domain.clock import utc_now
from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.store.queue.search import FoundJob, JobFilter, Totals
from gateway.store.store import Store
from gateway.store.tables import Delivery
from gateway.web.access import CurrentUser
from gateway.web.audit import audit_entry, shows_patients
from gateway.web.pages.words import (
    DELIVERY_WORDS,
    STATUS_WORDS,
    Badge,
    age_in_words,
    delivery_tone,
    job_badge,
    per_cent,
    person_name,
    source_in_words,
)
from gateway.web.queue.query import QueueQuery, read_query
from gateway.web.site import Site

_JOBS_PER_PAGE = 50
_ROWS_AT_ONCE = 200  # of CSV
_AGES_S = 60  # how often a page is renewed although nothing happened: it says how old jobs are
_MOST_URGENT_FIRST = (
    DeliveryStatus.REFUSED,
    DeliveryStatus.FAILED,
    DeliveryStatus.PENDING,
    DeliveryStatus.STORED,
    DeliveryStatus.CANCELLED,
    DeliveryStatus.DELIVERED,
)
_COLUMNS = (
    "job",
    "received",
    "status",
    "reason",
    "source",
    "pages",
    "layout",
    "estimated_snr_db",
    "coverage",
    "deliveries",
    "attempts",
    "revision",
    "confirmed_by",
    "last_change",
)
_PATIENT_COLUMNS = ("file_name", "patient_id", "patient_name", "accession_number")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # a spreadsheet would compute what begins so


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How many there are of something, and the address that shows them."""

    name: str
    badge: Badge
    count: int
    address: str
    chosen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """One line of the queue; `patient` and `file_name` are "" where patients are not shown."""

    id: str
    status: Badge
    urgent: bool
    received_at: datetime
    age: str
    source: str
    file_name: str
    patient: str
    layout: str
    estimated_snr: str
    coverage: str
    deliveries: tuple[Badge, ...]
    reason: str


def routes(site: Site) -> APIRouter:
    """Return the routes of the queue."""
    router, store = APIRouter(), site.store

    @router.get("/", response_class=HTMLResponse)
    def queue(request: Request, user: CurrentUser) -> Response:
        stamp = f"{store.search.newest_event()}.{int(time.time() // _AGES_S)}"
        if request.query_params.get("seen") == stamp and "hx-request" in request.headers:
            return Response(status_code=204)
        query = read_query(request.query_params, user)
        shown = {
            "query": query,
            "stamp": stamp,
            "sources": [(source, source_in_words(source)) for source in store.search.sources()],
            "destinations": [destination.name for destination in site.settings.destinations],
            "states": {status: DELIVERY_WORDS[status] for status in DeliveryStatus},
            "paused": sorted(name for name, state in store.destinations.states().items() if state.paused_at),
        }
        if query.errors:
            shown |= {"rows": [], "totals": None, "page": 1, "last": 1}
            return site.templates.TemplateResponse(request, "queue.html", shown, status_code=422)
        totals = store.search.totals(query.wanted)
        last = max(1, ceil(totals.jobs / _JOBS_PER_PAGE))
        page = min(query.page, last)
        found = store.search.page(query.wanted, query.order, _JOBS_PER_PAGE, (page - 1) * _JOBS_PER_PAGE)
        if user.sees_patients:
            shows_patients(request, [each.job.id for each in found])
        shown |= {
            "rows": [job_row(each, user) for each in found],
            "totals": totals,
            "filters": _status_counts(query, totals),
            "deliveries": _delivery_counts(query, totals),
            "page": page,
            "last": last,
            "past_the_end": f"There is no page {query.page}: this is the last one." if query.page > last else "",
        }
        return site.templates.TemplateResponse(request, "queue.html", shown)

    @router.get("/queue.csv")
    def as_csv(request: Request, user: CurrentUser) -> Response:
        query = read_query(request.query_params, user)
        if query.errors:
            return Response(" ".join(query.errors.values()), status_code=422, media_type="text/plain")
        name = f"ecg-queue-{utc_now():%Y%m%d-%H%M%S}.csv"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        lines = _audited_csv(store, query.wanted, user)
        return StreamingResponse(lines, media_type="text/csv; charset=utf-8", headers=headers)

    return router


def _status_counts(query: QueueQuery, totals: Totals) -> tuple[Count, ...]:
    """Return the queue's states with their counts, "All" first."""
    chosen = query.wanted.status
    every = Badge(words="All", tone="idle")
    counts = [Count(name="All", badge=every, count=sum(totals.by_status.values()), address=query.address(status=""),
                    chosen=chosen is None)]  # fmt: skip
    for status in JobStatus:
        counts.append(
            Count(
                name=STATUS_WORDS[status].replace(" ", "-"),
                badge=Badge(words=STATUS_WORDS[status], tone=job_badge(status).tone),
                count=totals.by_status[status],
                address=query.address(status=status),
                chosen=chosen == status,
            )
        )
    return tuple(counts)


def _delivery_counts(query: QueueQuery, totals: Totals) -> tuple[Count, ...]:
    """Return how many deliveries stand in each state at each destination, the most urgent first."""
    order = {status: number for number, status in enumerate(_MOST_URGENT_FIRST)}
    return tuple(
        Count(
            name=f"{destination}-{status.lower()}",
            badge=Badge(words=f"{destination} {DELIVERY_WORDS[status]}", tone=delivery_tone(status)),
            count=count,
            address=query.address(delivery=status, destination=destination),
            chosen=(query.wanted.delivery, query.wanted.destination) == (status, destination),
        )
        for (status, destination), count in sorted(
            totals.deliveries.items(), key=lambda each: (order[each[0][0]], each[0][1])
        )
    )


def job_row(found: FoundJob, user: User) -> JobRow:
    """Return one job as a line of the queue; of several pages the worst figures."""
    job, pages = found.job, found.pages
    layouts = list(dict.fromkeys(page.layout for page in pages if page.layout))
    snrs = [page.estimated_snr_db for page in pages if page.estimated_snr_db is not None]
    coverages = [page.coverage for page in pages if page.coverage is not None]
    named = (person_name(job.context.patient_name), job.patient_id) if user.sees_patients else ()
    return JobRow(
        id=job.id,
        status=job_badge(job.status),
        urgent=job.urgent and job.status == JobStatus.QUEUED,
        received_at=job.created_at,
        age=age_in_words((utc_now() - job.created_at).total_seconds()),
        source=source_in_words(job.source),
        file_name=job.file_name if user.sees_patients else "",
        patient=", ".join(part for part in named if part),
        layout=", ".join(layouts) + (f" ({len(pages)} pages)" if len(pages) > 1 else ""),
        estimated_snr=f"{min(snrs):.1f} dB" if snrs else "",
        coverage=per_cent(min(coverages)) if coverages else "",
        deliveries=_by_destination(found.deliveries),
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


# -- CSV --------------------------------------------------------------------------------------------------------------


def _audited_csv(store: Store, wanted: JobFilter, user: User) -> Iterator[str]:
    """Yield the lines of every job that matches; what names patients is in the audit trail before it leaves."""
    detail = "list of jobs as CSV"
    store.trail.record(audit_entry(AuditKind.EXPORT, user, detail=detail))
    yield "\ufeff" + _csv([[*_COLUMNS, *(_PATIENT_COLUMNS if user.sees_patients else ())]])
    part: list[FoundJob] = []

    def flush() -> str:
        if user.sees_patients:
            store.trail.record(
                *(audit_entry(AuditKind.EXPORT, user, job_id=each.job.id, detail=detail) for each in part)
            )
        return _csv([_csv_row(each, user) for each in part])

    for found in store.search.all(wanted):
        part.append(found)
        if len(part) == _ROWS_AT_ONCE:
            yield flush()
            part.clear()
    if part:
        yield flush()


def _csv(rows: Sequence[Sequence[str]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\r\n").writerows([[_plain(value) for value in row] for row in rows])
    return file.getvalue()


def _plain(value: str) -> str:
    """Return a value that a spreadsheet shows as text: an apostrophe stands before what it would compute."""
    return f"'{value}" if value.startswith(_FORMULA) else value


def _csv_row(found: FoundJob, user: User) -> list[str]:
    job, pages = found.job, found.pages
    snrs = [page.estimated_snr_db for page in pages if page.estimated_snr_db is not None]
    coverages = [page.coverage for page in pages if page.coverage is not None]
    row = [
        job.id,
        job.created_at.isoformat(timespec="seconds"),
        job.status.value,
        job.reason,
        source_in_words(job.source),
        str(len(pages)),
        " ".join(dict.fromkeys(page.layout for page in pages if page.layout)),
        f"{min(snrs):.1f}" if snrs else "",
        f"{min(coverages):.3f}" if coverages else "",
        "; ".join(badge.words for badge in _by_destination(found.deliveries)),
        str(job.attempts),
        str(job.revision),
        job.confirmed_by,
        job.updated_at.isoformat(timespec="seconds"),
    ]
    if user.sees_patients:
        row += [job.file_name, job.patient_id, person_name(job.context.patient_name), job.accession_number]
    return row
