"""What waits for a person: jobs without identity, and merges that the archive must follow."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from starlette.concurrency import run_in_threadpool

from gateway.domain.clock import utc_now
from gateway.store.store import Store
from gateway.web.access import CurrentUser
from gateway.web.audit import shows_patients
from gateway.web.forms import Number, back_to, read_form
from gateway.web.pages.words import age_in_words, clock, source_in_words
from gateway.web.site import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmatchedRow:
    """A job that waits for its identity."""

    id: str
    age: str
    source: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeRow:
    """A job delivered under an identity that was merged; the identities are "" where patients are not shown."""

    number: int
    job_id: str
    when: str
    prior: str
    surviving: str


def routes(site: Site) -> APIRouter:
    """Return the list of unmatched jobs and merges, and the target of its forms."""
    router, store = APIRouter(), site.store

    @router.get("/unmatched", response_class=HTMLResponse)
    def unmatched(request: Request, user: CurrentUser) -> Response:
        show_patient = user.sees_patients
        if show_patient:
            shows_patients(request, [notice.job_id for notice in store.patients.merge_notices()])
        rows = {"jobs": unmatched_rows(store), "merges": merge_rows(store, show_patient)}
        return site.templates.TemplateResponse(request, "unmatched.html", rows | {"show_patient": show_patient})

    @router.post("/merges/{number}/settled")
    async def settle(request: Request, number: Number, user: CurrentUser) -> Response:
        await read_form(request)
        await run_in_threadpool(store.patients.settle_merge, number, user.name)
        return back_to("/unmatched")

    return router


def unmatched_rows(store: Store) -> tuple[UnmatchedRow, ...]:
    """Return the jobs that wait for an identity, oldest first."""
    return tuple(
        UnmatchedRow(
            id=job.id,
            age=age_in_words((utc_now() - job.created_at).total_seconds()),
            source=source_in_words(job.source),
            reason=job.reason,
        )
        for job in store.jobs.unmatched()
    )


def merge_rows(store: Store, show_patient: bool) -> tuple[MergeRow, ...]:
    """Return the merges that the archive must follow, oldest first."""
    return tuple(
        MergeRow(
            number=notice.id or 0,
            job_id=notice.job_id,
            when=clock(notice.created_at),
            prior=f"{notice.prior_patient_id} {notice.prior_issuer}".strip() if show_patient else "",
            surviving=f"{notice.surviving_patient_id} {notice.surviving_issuer}".strip() if show_patient else "",
        )
        for notice in store.patients.merge_notices()
    )
