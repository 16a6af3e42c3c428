"""Jobs: one, a list with filters and a cursor, and the trail as it grows, as server-sent events."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from gateway.domain.account import ApiScope
from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.store.queue.search import JobFilter
from gateway.store.tables import Job
from gateway.store.trail import Trail
from gateway.web.api.access import Caller, CurrentCaller, TokenAccess
from gateway.web.api.models import DecisionAnswer, EventAnswer, JobAnswer, JobId, JobList, NoNul, summary
from gateway.web.api.problems import ApiProblem, Fault, answers
from gateway.web.audit import shows_patients
from gateway.web.site import Site

_LONGEST_STREAM_S = 100  # the server closes what takes longer than two minutes
_BETWEEN_S = 1.0
_ALIVE_S = 15.0
_LINES_AT_ONCE = 500
_NEWEST_ID = 2**63 - 1  # what a database's integer holds


class Wanted(BaseModel):
    """Which jobs are listed; every part that is given must hold."""

    model_config = ConfigDict(extra="forbid")

    text: NoNul = Field(
        default="",
        description="Words that are all in the job's id, UIDs, patient ID, accession number, name or file name. "
        "Without the scope results:read: its id or a UID.",
    )
    since: datetime | None = Field(
        default=None, description="When it was received: from then on. UTC if it has no zone."
    )
    until: datetime | None = Field(default=None, description="Before then.")
    source: NoNul = Field(default="", description='As the job has it, e.g. "dicom:CART1".')
    status: JobStatus | None = None
    delivery: DeliveryStatus | None = Field(default=None, description="It has a delivery in this state.")
    destination: NoNul = Field(default="", description="It has a delivery to this destination.")
    cursor: str = Field(default="", max_length=200, description="`next` of the list before.")
    limit: int = Field(default=50, ge=1, le=500)


class Followed(BaseModel):
    """Which part of the trail is sent."""

    model_config = ConfigDict(extra="forbid")

    since: int | None = Field(
        default=None, ge=0, le=_NEWEST_ID, description="Lines after this number. Not given: what comes from now on."
    )
    wait: int = Field(default=_LONGEST_STREAM_S, ge=0, le=_LONGEST_STREAM_S, description="End after so many s.")


def routes(site: Site, access: TokenAccess) -> APIRouter:
    """Return the routes of jobs and of the trail."""
    router, store = APIRouter(tags=["Jobs"]), site.store
    reads = [access.needs(ApiScope.JOBS_READ)]

    @router.get("/jobs", dependencies=reads, responses=answers())
    def list_jobs(request: Request, caller: CurrentCaller, wanted: Annotated[Wanted, Query()]) -> JobList:
        """List jobs, the newest first. Scope `jobs:read`."""
        found = store.search.after(_filter(wanted, caller), _read_cursor(wanted.cursor), wanted.limit + 1)
        shown = found[: wanted.limit]
        if caller.sees_patients:
            shows_patients(request, [each.job.id for each in shown])
        return JobList(
            jobs=[summary(each.job, each.pages, each.deliveries, patient=caller.sees_patients) for each in shown],
            next=_cursor(shown[-1].job) if len(found) > len(shown) else None,
        )

    @router.get("/jobs/{job_id}", dependencies=reads, responses=answers(404))
    def get_job(job_id: JobId, caller: CurrentCaller) -> JobAnswer:
        """Return a job with its pages, deliveries and trail. Scope `jobs:read`."""
        return job_answer(site, job_id, caller)

    documented = {200: {"description": "Lines of the trail.", "content": {"text/event-stream": {}}}, **answers()}

    @router.get("/events", dependencies=reads, responses=documented, response_class=StreamingResponse)
    async def events(
        followed: Annotated[Followed, Query()],
        last_event_id: Annotated[
            str, Header(pattern=r"^(\d{1,18})?$", description="Of the stream before; it goes before `since`.")
        ] = "",
    ) -> Response:
        """Send the trail of all jobs as it grows, as server-sent events. Scope `jobs:read`.

        An event has the number of its line as `id`, and the line as JSON. The stream ends after `wait` seconds; a
        client comes again with `Last-Event-ID`, and nothing is left out.
        """
        number = int(last_event_id) if last_event_id else followed.since
        if number is None:
            number = (await run_in_threadpool(store.trail.moment)).newest
        unbuffered = {"X-Accel-Buffering": "no"}  # nginx passes each event on at once
        return StreamingResponse(
            _stream(store.trail, number, followed.wait), headers=unbuffered, media_type="text/event-stream"
        )

    return router


def job_answer(site: Site, job_id: str, caller: Caller) -> JobAnswer:
    """Return a job with everything that the caller may see of it; raise NotFound where there is none."""
    store, version = site.store, site.store.review.version(job_id)  # first: what comes later is not taken for known
    job = store.jobs.get(job_id)
    parts = summary(job, store.jobs.pages(job_id), store.deliveries.of_job(job_id), patient=caller.sees_patients)
    return JobAnswer(
        **dict(parts),
        version=version,
        traces_agreed_by=job.traces_agreed_by,
        patient_agreed_by=job.patient_agreed_by,
        confirmed_by=job.confirmed_by,
        decision=DecisionAnswer.of(store.review.decision(job_id)),
        events=[EventAnswer.of(event) for event in store.jobs.events(job_id)],
    )


def _filter(wanted: Wanted, caller: Caller) -> JobFilter:
    return JobFilter(
        text=wanted.text,
        sees_patients=caller.sees_patients,
        since=_utc(wanted.since),
        until=_utc(wanted.until),
        source=wanted.source,
        status=wanted.status,
        delivery=wanted.delivery,
        destination=wanted.destination,
    )


def _utc(at: datetime | None) -> datetime | None:
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at


def _cursor(job: Job) -> str:
    """Return where a list goes on after a job."""
    return base64.urlsafe_b64encode(f"{job.created_at.isoformat()} {job.id}".encode()).decode()


def _read_cursor(text: str) -> tuple[datetime, str] | None:
    """Return receipt and id of the last job of the list before; None where there was none."""
    if not text:
        return None
    try:
        at, _, job_id = base64.urlsafe_b64decode(text.encode("ascii")).decode("ascii").partition(" ")
        moment = datetime.fromisoformat(at)
        if moment.tzinfo is None or not job_id.isprintable():
            raise ValueError
    except ValueError:
        rule = "must be `next` of a list"
        raise ApiProblem(422, f"cursor: {rule}", [Fault(field="cursor", value=text[:60], rule=rule)]) from None
    return moment, job_id


async def _stream(trail: Trail, number: int, wait_s: float) -> AsyncIterator[str]:
    """Yield the lines after `number` as they are committed, for so long."""
    end = time.monotonic() + wait_s
    spoke = time.monotonic()
    yield "retry: 2000\n\n"
    moment = await run_in_threadpool(trail.moment)
    while True:
        if await run_in_threadpool(trail.is_whole, moment):
            while lines := await run_in_threadpool(trail.lines, number, moment.newest, _LINES_AT_ONCE):
                for line in lines:
                    number, spoke = line.id or number, time.monotonic()
                    data = EventAnswer.of(line).model_dump_json()
                    yield f"id: {number}\nevent: {line.action}\ndata: {data}\n\n"
            moment = await run_in_threadpool(trail.moment)
        left_s = end - time.monotonic()
        if left_s <= 0:
            return
        if time.monotonic() - spoke > _ALIVE_S:
            spoke = time.monotonic()
            yield ": nothing yet\n\n"
        await asyncio.sleep(min(_BETWEEN_S, left_s))
