"""What the gateway has done lately, in figures: pages a day, their quality, times, reasons, sources and layouts."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

from sqlalchemy import case, func
from sqlmodel import Session, col, select

from gateway.domain.status import DeliveryStatus, JobAction, JobStatus
from gateway.store.database import Database
from gateway.store.tables import Delivery, Job, JobEvent, Page

SNR_EDGES_DB = (0, 4, 8, 12, 16, 20)  # of the classes of estimated SNR; the first is below, the last above
_TIMED_JOBS = 500  # the newest: enough for a median
_IDS_AT_ONCE = 250
_REASONS_READ = 2000
_ENDS = (JobAction.COMPLETE, JobAction.HOLD, JobAction.FAIL)
_FIGURE = re.compile(r"\d+(\.\d+)?|\b(aVR|aVL|aVF|III|II|I|V\d)\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """The pages that were received on one day (UTC), by what became of them."""

    day: str
    pages: dict[JobStatus, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The pages of one source or layout."""

    name: str
    pages: int
    mean_snr_db: float | None
    not_done: int  # need review, or failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """How long one stage took: half of the jobs or pages took less than the median, a tenth more than `slow_s`."""

    name: str
    count: int
    median_s: float
    slow_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """All figures since a moment."""

    days: tuple[Day, ...]
    quality: tuple[int, ...]  # pages in each class of `SNR_EDGES_DB`
    stages: tuple[Stage, ...]
    reasons: tuple[tuple[str, int], ...]  # figures and leads left out
    sources: tuple[Group, ...]
    layouts: tuple[Group, ...]


class Statistics:
    """The figures of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def since(self, start: datetime) -> Summary:
        """Return the figures of the jobs that were received since `start`."""
        with self._database.read() as session:
            return Summary(
                days=_days(session, start),
                quality=_quality(session, start),
                stages=_stages(session, start),
                reasons=_reasons(session, start),
                sources=_groups(session, start, Job.source),
                layouts=_groups(session, start, Page.layout),
            )


def _of_pages(start: datetime, *columns: Any) -> Any:
    return (
        select(*columns)
        .select_from(Page)
        .join(Job, col(Page.job_id) == col(Job.id))
        .where(col(Job.created_at) >= start)
    )


def _days(session: Session, start: datetime) -> tuple[Day, ...]:
    day = func.date(Job.created_at)
    rows = session.exec(
        _of_pages(start, day, Page.status, func.count(col(Page.id))).group_by(day, col(Page.status))
    ).all()
    found: dict[str, dict[JobStatus, int]] = defaultdict(dict)
    for at, status, count in rows:
        found[str(at)][JobStatus(status)] = count
    return tuple(Day(day=at, pages=found[at]) for at in sorted(found))


def _quality(session: Session, start: datetime) -> tuple[int, ...]:
    snr = col(Page.estimated_snr_db)
    steps = [(snr < edge, number) for number, edge in enumerate(SNR_EDGES_DB)]
    number = case(*steps, else_=len(SNR_EDGES_DB)).label("number")
    rows = session.exec(
        _of_pages(start, number, func.count(col(Page.id))).where(snr.is_not(None)).group_by("number")
    ).all()
    found = dict(rows)
    return tuple(found.get(each, 0) for each in range(len(SNR_EDGES_DB) + 1))


def _groups(session: Session, start: datetime, by: Any) -> tuple[Group, ...]:
    done = func.sum(case((col(Page.status) == JobStatus.DONE, 1), else_=0))
    figures = func.count(col(Page.id)), func.avg(Page.estimated_snr_db), done
    rows = session.exec(_of_pages(start, by, *figures).group_by(by)).all()
    groups = [
        Group(name=name, pages=pages, mean_snr_db=snr, not_done=pages - ended) for name, pages, snr, ended in rows
    ]
    return tuple(sorted(groups, key=lambda group: (-group.pages, group.name)))


def _reasons(session: Session, start: datetime) -> tuple[tuple[str, int], ...]:
    """Return why jobs wait or have failed, most frequent first; reasons that differ in figures or leads are one."""
    open_ones = (JobStatus.NEEDS_REVIEW, JobStatus.FAILED)
    asked = select(Job.reason, func.count()).where(col(Job.created_at) >= start, col(Job.status).in_(open_ones))
    rows = session.exec(asked.group_by(col(Job.reason)).order_by(func.count().desc()).limit(_REASONS_READ)).all()
    counts: Counter[str] = Counter()
    for reason, count in rows:
        for part in {_FIGURE.sub("…", each).strip() for each in reason.split(";")} - {""}:
            counts[part] += count
    return tuple(counts.most_common(12))


def _stages(session: Session, start: datetime) -> tuple[Stage, ...]:
    """Return how long the newest jobs took from one event to the next."""
    newest = select(Job.id, Job.created_at).where(col(Job.created_at) >= start, Job.status != JobStatus.QUEUED)
    jobs = dict(session.exec(newest.order_by(col(Job.created_at).desc()).limit(_TIMED_JOBS)).all())
    spans: dict[str, list[float]] = {
        name: [] for name in ("Wait for a worker", "Digitization", "Delivery", "Decision of a person")
    }
    ids = list(jobs)
    for part in (ids[first : first + _IDS_AT_ONCE] for first in range(0, len(ids), _IDS_AT_ONCE)):
        _add_events(session, part, jobs, spans)
        sent = select(Delivery.created_at, Delivery.delivered_at).where(
            col(Delivery.job_id).in_(part), Delivery.status == DeliveryStatus.DELIVERED
        )
        spans["Delivery"] += [(done - made).total_seconds() for made, done in session.exec(sent).all() if done]
    return tuple(
        Stage(name=name, count=len(each), median_s=median(each), slow_s=sorted(each)[int(0.9 * (len(each) - 1))])
        for name, each in spans.items()
        if each
    )


def _add_events(
    session: Session, ids: Sequence[str], received: dict[str, datetime], spans: dict[str, list[float]]
) -> None:
    asked = select(JobEvent.job_id, JobEvent.action, JobEvent.at).where(col(JobEvent.job_id).in_(ids))
    first: dict[str, dict[str, datetime]] = defaultdict(dict)
    for job_id, action, at in session.exec(asked.order_by(col(JobEvent.id))).all():
        first[job_id].setdefault("END" if action in _ENDS else action, at)
        if action in (JobAction.CONFIRM, JobAction.REJECT):
            first[job_id].setdefault("DECIDED", at)
    for job_id, events in first.items():
        steps = (
            ("Wait for a worker", received[job_id], events.get(JobAction.CLAIM)),
            ("Digitization", events.get(JobAction.CLAIM), events.get("END")),
            ("Decision of a person", events.get("END"), events.get("DECIDED")),
        )
        for name, begin, end in steps:
            if begin is not None and end is not None and end >= begin:
                spans[name].append((end - begin).total_seconds())
