"""Many jobs changed at once: first the page says how many and which, then an administrator has it done.

The jobs are those that were ticked, or all that match the filter.  If another number of them can be changed when the
form arrives than the page had said, nothing is changed, and the page says the new number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from gateway.domain.account import User
from gateway.domain.status import JobStatus
from gateway.store.queue.batches import Batch, BatchAction, Preview
from gateway.web.access import CurrentUser
from gateway.web.audit import decides_about
from gateway.web.forms import read_form
from gateway.web.pages.words import Badge, job_badge
from gateway.web.queue.query import QueueQuery, read_query
from gateway.web.site import Site

_MOST_TICKED = 1000
ACTIONS = {
    BatchAction.RETRY: ("Digitize again", "will be digitized again", "are queued again"),
    BatchAction.CANCEL: ("Cancel", "will be cancelled, with what they have not delivered", "are cancelled"),
    BatchAction.SEND: ("Send again", "will send again what was refused or given up", "send again"),
    BatchAction.FIRST: ("Before the others", "will be digitized before the others", "come before the others"),
    BatchAction.IN_TURN: ("In turn", "will be digitized in their turn", "wait for their turn"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What a person wants done."""

    action: BatchAction
    query: QueueQuery
    everything: bool  # that matches the query
    ticked: tuple[str, ...]


def routes(site: Site) -> APIRouter:
    """Return the routes of decisions about many jobs."""
    router = APIRouter()

    @router.get("/queue/batch", response_class=HTMLResponse)
    def look(request: Request, user: CurrentUser) -> Response:
        _check(user)
        parameters = dict(request.query_params)
        asked = _asked(parameters, tuple(request.query_params.getlist("job")), user)
        batch = _batch(site, asked)
        return _page(site, request, asked, site.store.batches.preview(batch))

    @router.post("/queue/batch", response_class=HTMLResponse)
    async def carry_out(request: Request, user: CurrentUser) -> Response:
        _check(user)
        form = await read_form(request)
        asked = _asked(form, tuple(form.get("jobs", "").split()), user)
        return await run_in_threadpool(_carry_out, site, request, asked, form.get("count", ""))

    return router


def _check(user: User) -> None:
    if not user.administers:
        raise HTTPException(403, f"{user.shown}, a {user.role}, may not decide about many jobs at once.")


def _asked(fields: Mapping[str, str], ticked: tuple[str, ...], user: User) -> _Asked:
    try:
        action = BatchAction(fields.get("action", ""))
    except ValueError:
        known = ", ".join(BatchAction)
        raise HTTPException(422, f"{fields.get('action', '')[:40]} cannot be done: it is one of {known}.") from None
    query = read_query(dict(parse_qsl(fields.get("query", "").removeprefix("?"))), user)
    if query.errors:
        raise HTTPException(422, " ".join(query.errors.values()))
    if len(ticked) > _MOST_TICKED:
        raise HTTPException(
            422, f"{len(ticked)} jobs are chosen: at most {_MOST_TICKED} can be; choose all that match."
        )
    return _Asked(action=action, query=query, everything=fields.get("all") == "on", ticked=ticked)


def _batch(site: Site, asked: _Asked) -> Batch:
    ids = site.store.search.ids(asked.query.wanted) if asked.everything else asked.ticked
    destination = asked.query.wanted.destination if asked.action == BatchAction.SEND else ""
    return Batch(action=asked.action, job_ids=list(dict.fromkeys(ids)), destination=destination)


def _carry_out(site: Site, request: Request, asked: _Asked, count: str) -> Response:
    batch, user = _batch(site, asked), request.state.user
    preview = site.store.batches.preview(batch)
    if count != str(preview.jobs):
        words = f"Nothing was changed: the page said {count[:10]} jobs, and now there are {preview.jobs}."
        return _page(site, request, asked, preview, problem=words)
    done = site.store.batches.apply(batch, user.name)
    decides_about(request, done, f"{asked.action}, one of {len(done)} jobs")
    left = preview.jobs - len(done)
    words = f"{_jobs(len(done))} {ACTIONS[asked.action][2]}."
    words += f" {_jobs(left)} changed meanwhile and were left as they are." if left else ""
    shown = {"done": words, "query": asked.query, "title": ACTIONS[asked.action][0]}
    return site.templates.TemplateResponse(request, "batch.html", shown)


def _page(site: Site, request: Request, asked: _Asked, preview: Preview, problem: str = "") -> Response:
    """Return the page that says what would be done."""
    title, will, _ = ACTIONS[asked.action]
    shown = {
        "title": title,
        "action": asked.action,
        "query": asked.query,
        "everything": asked.everything,
        "ticked": " ".join(asked.ticked),
        "words": f"{_jobs(preview.jobs)} {will}.",
        "jobs": preview.jobs,
        "deliveries": preview.deliveries if asked.action == BatchAction.SEND else None,
        "destination": asked.query.wanted.destination,
        "badges": [
            Badge(words=f"{count} {job_badge(status).words}", tone=job_badge(status).tone)
            for status, count in preview.by_status.items()
        ],
        "corrections": preview.by_status.get(JobStatus.DONE, 0) if asked.action == BatchAction.RETRY else 0,
        "left": preview.left,
        "problem": problem,
    }
    return site.templates.TemplateResponse(request, "batch.html", shown, status_code=409 if problem else 200)


def _jobs(count: int) -> str:
    return f"{count} job{'' if count == 1 else 's'}"
