"""The worklist: the jobs that wait for a person, those with most at stake first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse

from gateway.domain.clock import utc_now
from gateway.store.store import Store
from gateway.store.tables import Job
from gateway.web.access import current_user
from gateway.web.audit import shows_patients
from gateway.web.pages.words import Badge, age_in_words, job_badge, per_cent, person_name, source_in_words
from gateway.web.review.bench import me, other_reviewer, revocable, stake_badge
from gateway.web.site import Site

_JOBS_PER_PAGE = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkRow:
    """One job that waits for a person; `patient` is "" where patients are not shown."""

    id: str
    stake: Badge
    status: Badge
    reason: str
    patient: str
    age: str
    source: str
    figures: str
    reviewer: str  # another person who has it open


def routes(site: Site) -> APIRouter:
    """Return the route of the worklist."""
    router, store = APIRouter(), site.store

    @router.get("/review", response_class=HTMLResponse)
    def worklist(
        request: Request,
        show: Literal["doubtful", "all"] = "all",
        page: Annotated[int, Query(ge=1, le=100_000)] = 1,
    ) -> Response:
        doubtful = show == "doubtful"
        jobs = store.review.worklist(_JOBS_PER_PAGE + 1, (page - 1) * _JOBS_PER_PAGE, doubtful=doubtful)
        if current_user(request).sees_patients:
            shows_patients(request, [job.id for job in jobs[:_JOBS_PER_PAGE]])
        shown = {
            "rows": [
                work_row(store, job, me(request), current_user(request).sees_patients) for job in jobs[:_JOBS_PER_PAGE]
            ],
            "counts": {"all": store.review.count(), "doubtful": store.review.count(doubtful=True)},
            "revocable": revocable(store, me(request)),
            "show": show,
            "page": page,
            "more": len(jobs) > _JOBS_PER_PAGE,
        }
        return site.templates.TemplateResponse(request, "worklist.html", shown)

    return router


def work_row(store: Store, job: Job, me: str, show_patient: bool) -> WorkRow:
    """Return one job as a line of the worklist; of several pages the worst figures."""
    pages = store.jobs.pages(job.id)
    snrs = [page.estimated_snr_db for page in pages if page.estimated_snr_db is not None]
    coverages = [page.coverage for page in pages if page.coverage is not None]
    figures = [*dict.fromkeys(page.layout for page in pages if page.layout)]
    figures += [f"{min(snrs):.0f} dB"] if snrs else []
    figures += [f"{per_cent(min(coverages))} read"] if coverages else []
    named = [person_name(job.context.patient_name), job.context.patient_id]
    return WorkRow(
        id=job.id,
        stake=stake_badge(job),
        status=job_badge(job.status),
        reason=job.reason,
        patient=", ".join(part for part in named if part) if show_patient else "",
        age=age_in_words((utc_now() - job.created_at).total_seconds()),
        source=source_in_words(job.source),
        figures=" · ".join(figures),
        reviewer=other_reviewer(job, me),
    )
