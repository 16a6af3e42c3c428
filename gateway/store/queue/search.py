"""Jobs found by a filter: one page of them, all in turn, and how many there are.

Whoever may not see patients searches what names none: ids and UIDs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_
from sqlmodel import Session, col, select

from gateway.domain.status import UNDELIVERED, DeliveryStatus, JobStatus
from gateway.store.database import Database
from gateway.store.tables import Delivery, Job, JobEvent, Page

IDS_AT_ONCE = 500  # parameters of one statement


class Order(StrEnum):
    """How jobs are sorted."""

    FAILURES = "failures"  # those with something that went wrong, then the others; each the newest first
    NEWEST = "newest"
    OLDEST = "oldest"
    CHANGED = "changed"  # what changed last, first
    PATIENT = "patient"
    SOURCE = "source"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs; every part that is given must hold.

    Parameters
    ----------
    text
        Words that a job must all have somewhere in its patient ID, accession number, name, file name, UIDs or id.  A
        word alone may also be the UID of a waveform, or the identifier of a delivery.
    sees_patients
        Whether `text` is looked for in what may name a patient.
    since, until
        When the job was received: from `since` on, and before `until`.
    source
        As in `Job.source`.
    delivery, destination
        The job has a delivery in this state, to this destination.
    """

    text: str = ""
    sees_patients: bool = True
    since: datetime | None = None
    until: datetime | None = None
    source: str = ""
    status: JobStatus | None = None
    delivery: DeliveryStatus | None = None
    destination: str = ""


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class FoundJob:
    """One job with its pages and deliveries."""

    job: Job
    pages: Sequence[Page]
    deliveries: Sequence[Delivery]


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """How much a filter matches.

    Parameters
    ----------
    by_status
        Jobs, whatever status the filter names; zeros included.
    deliveries
        Of the jobs that match, by status and destination; pairs without any are left out.
    """

    jobs: int
    pages: int
    by_status: Mapping[JobStatus, int]
    deliveries: Mapping[tuple[DeliveryStatus, str], int]


class Search:
    """Finds the jobs of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, wanted: JobFilter, order: Order, limit: int, offset: int = 0) -> list[FoundJob]:
        """Return one page of the jobs that match."""
        with self._database.read() as session:
            if order == Order.FAILURES:
                ids = _failures_first(session, wanted, limit, offset)
            else:
                found = select(Job.id).where(*conditions(wanted)).order_by(*_SORTED[order])
                ids = list(session.exec(found.limit(limit).offset(offset)).all())
            return _found(session, ids)

    def after(self, wanted: JobFilter, cursor: tuple[datetime, str] | None, limit: int) -> list[FoundJob]:
        """Return the next jobs that match, the newest first; `cursor` is receipt and id of the last one so far."""
        found = select(Job.id).where(*conditions(wanted)).order_by(*_SORTED[Order.NEWEST])
        if cursor is not None:
            at, job_id = cursor
            found = found.where(or_(col(Job.created_at) < at, and_(col(Job.created_at) == at, col(Job.id) < job_id)))
        with self._database.read() as session:
            return _found(session, session.exec(found.limit(limit)).all())

    def all(self, wanted: JobFilter) -> Iterator[FoundJob]:
        """Yield every job that matches, the newest first; nobody waits meanwhile."""
        cursor = None
        while found := self.after(wanted, cursor, IDS_AT_ONCE):
            yield from found
            cursor = found[-1].job.created_at, found[-1].job.id

    def ids(self, wanted: JobFilter) -> list[str]:
        """Return the ids of all jobs that match, the newest first."""
        with self._database.read() as session:
            return list(session.exec(select(Job.id).where(*conditions(wanted)).order_by(*_SORTED[Order.NEWEST])).all())

    def totals(self, wanted: JobFilter) -> Totals:
        """Return how much matches."""
        every = replace(wanted, status=None)
        statuses = select(Job.status, func.count()).where(*conditions(every)).group_by(col(Job.status))
        pages, deliveries = select(func.count()).select_from(Page), _delivery_counts()
        if wanted != JobFilter(sees_patients=wanted.sees_patients):
            matching = select(Job.id).where(*conditions(wanted))
            pages = pages.where(col(Page.job_id).in_(matching))
            deliveries = deliveries.where(col(Delivery.job_id).in_(matching))
        with self._database.read() as session:
            by_status = dict.fromkeys(JobStatus, 0) | {JobStatus(s): n for s, n in session.exec(statuses).all()}
            return Totals(
                jobs=by_status[wanted.status] if wanted.status else sum(by_status.values()),
                pages=session.exec(pages).one(),
                by_status=by_status,
                deliveries={(DeliveryStatus(s), name): n for s, name, n in session.exec(deliveries).all()},
            )

    def sources(self) -> list[str]:
        """Return where jobs came from."""
        with self._database.read() as session:
            return list(session.exec(select(Job.source).distinct().order_by(col(Job.source))).all())

    def newest_event(self) -> int:
        """Return the number of the newest line of the trail: where it is the same, nothing has happened."""
        with self._database.read() as session:
            return session.exec(select(func.max(JobEvent.id))).one() or 0


def conditions(wanted: JobFilter) -> tuple[ColumnElement[bool], ...]:
    """Return a filter as conditions on `Job`."""
    found: list[Any] = [_mentions(word, wanted) for word in wanted.text.split()]
    if wanted.since is not None:
        found.append(col(Job.created_at) >= wanted.since)
    if wanted.until is not None:
        found.append(col(Job.created_at) < wanted.until)
    if wanted.source:
        found.append(Job.source == wanted.source)
    if wanted.status is not None:
        found.append(Job.status == wanted.status)
    if wanted.delivery is not None or wanted.destination:
        having = select(Delivery.job_id)
        if wanted.delivery is not None:
            having = having.where(Delivery.status == wanted.delivery)
        if wanted.destination:
            having = having.where(Delivery.destination == wanted.destination)
        found.append(col(Job.id).in_(having))
    return tuple(found)


def _mentions(word: str, wanted: JobFilter) -> ColumnElement[bool]:
    """Return the condition that a job has this word."""
    ways: list[Any] = [col(Job.id).startswith(word.lower(), autoescape=True), Job.source_key == word]
    if wanted.text.split() == [word]:
        ways.append(col(Job.id).in_(select(Page.job_id).where(Page.waveform_sop_instance_uid == word)))
        ways.append(col(Job.id).in_(select(Delivery.job_id).where(Delivery.identifier == word)))
    if wanted.sees_patients:
        ways.append(col(Job.search_text).contains(word.lower(), autoescape=True))
    return or_(*ways)


def went_wrong() -> ColumnElement[bool]:
    """Return the condition that a job, or a delivery of it, failed or was refused."""
    failed = select(Delivery.job_id).where(col(Delivery.status).in_(UNDELIVERED))
    return or_(col(Job.status) == JobStatus.FAILED, col(Job.id).in_(failed))


def _delivery_counts() -> Any:
    state = col(Delivery.status), col(Delivery.destination)
    return select(*state, func.count()).group_by(*state)


_NEWEST = (col(Job.created_at).desc(), col(Job.id).desc())
_SORTED: dict[Order, tuple[Any, ...]] = {
    Order.NEWEST: _NEWEST,
    Order.OLDEST: (col(Job.created_at), col(Job.id)),
    Order.CHANGED: (col(Job.updated_at).desc(), col(Job.id).desc()),
    Order.PATIENT: (col(Job.patient_id), *_NEWEST),
    Order.SOURCE: (col(Job.source), *_NEWEST),
}


def _failures_first(session: Session, wanted: JobFilter, limit: int, offset: int) -> list[str]:
    """Return the ids of one page: what went wrong is sought by its index, so that not every job is looked at."""
    matching = conditions(wanted)
    wrong = session.exec(select(func.count()).select_from(Job).where(*matching, went_wrong())).one()
    ids: list[str] = []
    if offset < wrong:
        first = select(Job.id).where(*matching, went_wrong()).order_by(*_NEWEST)
        ids += session.exec(first.limit(limit).offset(offset)).all()
    if len(ids) < limit:
        rest = select(Job.id).where(*matching, ~went_wrong()).order_by(*_NEWEST)
        ids += session.exec(rest.limit(limit - len(ids)).offset(max(0, offset - wrong))).all()
    return ids


def _found(session: Session, ids: Sequence[str]) -> list[FoundJob]:
    """Return these jobs, in this order, with what belongs to them."""
    jobs = {job.id: job for job in session.exec(select(Job).where(col(Job.id).in_(ids))).all()}
    pages: dict[str, list[Page]] = {job_id: [] for job_id in ids}
    for page in session.exec(select(Page).where(col(Page.job_id).in_(ids)).order_by(col(Page.page_number))).all():
        pages[page.job_id].append(page)
    deliveries: dict[str, list[Delivery]] = {job_id: [] for job_id in ids}
    for sent in session.exec(select(Delivery).where(col(Delivery.job_id).in_(ids)).order_by(col(Delivery.id))).all():
        deliveries[sent.job_id].append(sent)
    return [FoundJob(job=jobs[each], pages=pages[each], deliveries=deliveries[each]) for each in ids]
