"""What a person may decide on the admin page: whose ECG a held job is, that a result is right, that a merge is done.

The page knows no log-in, so decisions are taken only where it listens on loopback, by forms of our own pages.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.templating import Jinja2Templates
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from gateway.domain.context import StudyContext
from gateway.errors import DeliveryRefused, IllegalTransition, IntakeError, NotFound
from gateway.identity.person import identify
from gateway.results.confirmation import confirm
from gateway.settings import Settings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.web.views import merge_rows, unmatched_rows

_ACTOR = "web"
_MAXIMUM_FORM_BYTES = 64 * 1024
_FIELDS = (
    "patient_id",
    "issuer_of_patient_id",
    "patient_name",
    "patient_birth_date",
    "patient_sex",
    "accession_number",
)


def add_decisions(app: FastAPI, templates: Jinja2Templates, store: Store, spool: Spool, settings: Settings) -> None:
    """Add the list of unmatched jobs and merges, and the forms' targets."""

    @app.get("/unmatched", response_class=HTMLResponse)
    def unmatched(request: Request) -> Response:
        show_patient = settings.web.show_patient
        rows = {"jobs": unmatched_rows(store), "merges": merge_rows(store, show_patient)}
        return templates.TemplateResponse(request, "unmatched.html", rows | {"show_patient": show_patient})

    @app.post("/jobs/{job_id}/identity")
    async def give_identity(request: Request, job_id: str) -> Response:
        form = await _form(request)
        told = StudyContext(**{name: form.get(name, "").strip() for name in _FIELDS})
        await run_in_threadpool(identify, store, job_id, told, _ACTOR)
        return _back_to(f"/jobs/{job_id}")

    @app.post("/jobs/{job_id}/confirmation")
    async def give_confirmation(request: Request, job_id: str) -> Response:
        await _form(request)
        await run_in_threadpool(confirm, store, spool, settings, job_id, _ACTOR)
        return _back_to(f"/jobs/{job_id}")

    @app.post("/jobs/{job_id}/deliveries/{number}/again")
    async def send_again(request: Request, job_id: str, number: int) -> Response:
        await _form(request)
        if number not in {delivery.id for delivery in await run_in_threadpool(store.deliveries.of_job, job_id)}:
            raise NotFound(f"job {job_id} has no delivery {number}")
        await run_in_threadpool(store.deliveries.retry, number, _ACTOR)
        return _back_to(f"/jobs/{job_id}")

    @app.post("/merges/{number}/settled")
    async def settle(request: Request, number: int) -> Response:
        await _form(request)
        await run_in_threadpool(store.patients.settle_merge, number, _ACTOR)
        return _back_to("/unmatched")

    @app.exception_handler(IntakeError)
    @app.exception_handler(IllegalTransition)
    @app.exception_handler(DeliveryRefused)
    def refused(request: Request, error: Exception) -> Response:
        shown = {"status": 409, "words": f"Nothing was changed: {error}."}
        return templates.TemplateResponse(request, "error.html", shown, status_code=409)


async def _form(request: Request) -> dict[str, str]:
    """Return a form's fields; raise HTTPException where it did not come from a page of ours."""
    same_site = request.headers.get("sec-fetch-site", "same-origin") == "same-origin"
    origin = request.headers.get("origin", "")
    if not (same_site and origin and urlsplit(origin).netloc == request.headers.get("host")):
        raise HTTPException(403, "The form did not come from this page.")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAXIMUM_FORM_BYTES:
            raise HTTPException(413, "The form is too long.")
    return dict(parse_qsl(body.decode("utf-8", "replace")))


def _back_to(path: str) -> Response:
    return RedirectResponse(path, status_code=303)
