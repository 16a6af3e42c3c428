"""One job's workbench as a page, whose it is while it is open, and what its scripts draw."""

from __future__ import annotations

import json
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from gateway.domain.artefact import Role, kept_name
from gateway.domain.status import JobStatus
from gateway.results.kept import read_result
from gateway.web.access import CurrentUser
from gateway.web.forms import Number, read_form
from gateway.web.pages.job import check_opens
from gateway.web.review.bench import Answer, me, page_of, show
from gateway.web.site import Site
from pipeline import EcgRecord


def routes(site: Site) -> APIRouter:
    """Return the routes of the workbench and of what its pictures are made of."""
    router, store, spool = APIRouter(), site.store, site.spool

    @router.get("/review/{job_id}", response_class=HTMLResponse)
    def workbench(request: Request, job_id: str, page: Annotated[int, Query(ge=1, le=100_000)] = 1) -> Response:
        store.review.claim(job_id, me(request))
        return show(site, Answer(request=request, job_id=job_id, form={"page": str(page)}))

    @router.get("/review/{job_id}/claim")
    def claim(request: Request, job_id: str) -> Response:
        """Extend a claim: asked by an open page, which is no deed of a person."""
        holder = store.review.claim(job_id, me(request))
        return JSONResponse({"reviewer": holder, "mine": holder == me(request)})

    @router.post("/review/{job_id}/leave")
    async def leave(request: Request, job_id: str) -> Response:
        await read_form(request)
        await run_in_threadpool(store.review.leave, job_id, me(request))
        return Response(status_code=204)

    @router.get("/review/{job_id}/state")
    def state(request: Request, job_id: str) -> Response:
        me(request)
        job = store.jobs.get(job_id)
        working = job.status in (JobStatus.QUEUED, JobStatus.RUNNING)
        return JSONResponse({"working": working, "version": store.review.version(job_id)})

    @router.get("/jobs/{job_id}/pages/{number}/geometry.json")
    def geometry(job_id: str, number: Number, user: CurrentUser) -> Response:
        check_opens(user)
        kept = spool.read(store.jobs.get(job_id).id, kept_name(number, Role.GEOMETRY))
        if kept is None:
            raise HTTPException(404, "The geometry of this page was not kept.")
        return Response(kept, media_type="application/json")

    @router.get("/jobs/{job_id}/pages/{number}/record.json")
    def record(job_id: str, number: Number, user: CurrentUser) -> Response:
        check_opens(user)
        row = page_of(store.jobs.pages(store.jobs.get(job_id).id), number)
        npz = spool.read(job_id, kept_name(number, Role.RECORD))
        if row is None or row.status == JobStatus.FAILED or npz is None:
            raise HTTPException(404, "There is no record of this page.")
        kept, _ = read_result(npz, row.quality_json)
        return Response(_record_json(kept), media_type="application/json")

    return router


def _record_json(record: EcgRecord) -> str:
    """Return a record for the page's scripts: of each lead its known stretch in microvolts, null within it."""
    leads = []
    for lead, signal_mv in zip(record.leads, record.signal_mv, strict=True):
        known = np.flatnonzero(np.isfinite(signal_mv))
        if known.size:
            part = signal_mv[known[0] : known[-1] + 1]
            uv = [None if np.isnan(value) else round(1000 * value) for value in part.tolist()]
            leads.append({"lead": lead.value, "first": int(known[0]), "uv": uv})
    content = {"sampling_frequency_hz": record.sampling_frequency_hz, "leads": leads}
    return json.dumps(content, separators=(",", ":"))
