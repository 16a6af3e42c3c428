"""The decisions of a reviewer: that the traces agree, that a result is accepted or rejected, and what is taken back."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from gateway.domain.review import Verdict
from gateway.errors import IllegalTransition
from gateway.results.confirmation import check_confirmable
from gateway.store.review import new_decision
from gateway.web.forms import back_to, read_form
from gateway.web.review.bench import Answer, me, neighbours, show
from gateway.web.site import Site


def routes(site: Site) -> APIRouter:
    """Return the targets of the workbench's forms that decide."""
    router, store = APIRouter(), site.store

    @router.post("/review/{job_id}/traces")
    async def traces(request: Request, job_id: str) -> Response:
        answer = Answer(request=request, job_id=job_id, form=await read_form(request))
        return await run_in_threadpool(_agree, site, answer)

    @router.post("/review/{job_id}/decision")
    async def decision(request: Request, job_id: str) -> Response:
        answer = Answer(request=request, job_id=job_id, form=await read_form(request))
        return await run_in_threadpool(_decide, site, answer)

    @router.post("/review/{job_id}/undo")
    async def undo(request: Request, job_id: str) -> Response:
        await read_form(request)
        if not await run_in_threadpool(store.review.undo, job_id, me(request)):
            raise IllegalTransition("the decision was carried out already")
        return back_to(f"/review/{job_id}")

    @router.post("/review/{job_id}/read")
    async def read(request: Request, job_id: str) -> Response:
        await read_form(request)
        await run_in_threadpool(store.jobs.retry, job_id, me(request))
        return back_to(f"/review/{job_id}")

    @router.post("/review/{job_id}/take-over")
    async def take_over(request: Request, job_id: str) -> Response:
        await read_form(request)
        await run_in_threadpool(store.review.take_over, job_id, me(request))
        return back_to(f"/review/{job_id}")

    return router


def _agree(site: Site, answer: Answer) -> Response:
    """Record that the traces agree with the page, or that this is open again."""
    agreed = answer.form.get("agree") == "yes"
    try:
        site.store.review.agree(answer.job_id, answer.version, me(answer.request), traces=agreed)
    except IllegalTransition as error:
        return show(site, answer.refused(error))
    return back_to(answer.address)


def _decide(site: Site, answer: Answer) -> Response:
    """Record a decision, and go on to the next job."""
    form, store, actor = answer.form, site.store, me(answer.request)
    try:
        verdict = Verdict(form.get("verdict", ""))
    except ValueError:
        return show(site, answer.wrong(verdict="Choose what to do."))
    reason = "; ".join(part for part in (form.get("reason", ""), form.get("words", "").strip()) if part)
    if verdict == Verdict.ACCEPT:
        reason = ""
    elif not reason:
        return show(site, answer.wrong(reason="Choose a reason, or say it in words."))
    elif verdict == Verdict.SCAN_AGAIN:
        reason = f"scan again: {reason}"
    after = neighbours(store, answer.job_id, actor).after
    try:
        if verdict == Verdict.ACCEPT:
            check_confirmable(store, site.spool, site.settings, answer.job_id)
        store.review.decide(answer.job_id, answer.version, new_decision(answer.job_id, verdict, actor, reason))
    except IllegalTransition as error:
        return show(site, answer.refused(error))
    return back_to(f"/review/{after}" if after else "/review")
