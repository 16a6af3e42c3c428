"""The admin page: the queue, one job's trail with its pages, health and metrics; decisions are in `decisions`.

Everything is rendered here; htmx only fetches a page again and swaps a part of it.  No patient field is shown unless
`[web] show_patient` says so; the pictures of a page, on which a name may be printed, then wait until asked for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from gateway import __version__
from gateway.domain.artefact import Role, kept_name
from gateway.domain.status import JobStatus
from gateway.errors import NotFound, StorageError
from gateway.settings import Settings
from gateway.settings.addresses import is_loopback
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.web.decisions import add_decisions
from gateway.web.health import check_health, metrics_registry
from gateway.web.views import delivery_totals, filters, job_row, job_view

_HERE = Path(__file__).parent
_JOBS_PER_PAGE = 50
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def create_app(store: Store, spool: Spool, settings: Settings, alive: Callable[[], list[str]]) -> FastAPI:
    """Return the web application.

    Parameters
    ----------
    alive
        Returns, in words, what should be running and is not (threads, workers); empty when everything is alive.
    """
    app = FastAPI(title="ECG gateway", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    if is_loopback(settings.web.host):  # a page of the world must not reach us through a name of its own
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])
    app.mount("/static", StaticFiles(directory=_HERE / "static"), name="static")
    templates = Jinja2Templates(directory=_HERE / "templates")
    templates.env.globals["version"] = __version__
    _protect(app)
    _explain_errors(app, templates)
    decides = is_loopback(settings.web.host)
    templates.env.globals["decides"] = decides
    _add_pages(app, templates, store, spool, settings)
    if decides:
        add_decisions(app, templates, store, spool, settings)
    _add_probes(app, store, spool, alive, settings)
    return app


def _protect(app: FastAPI) -> None:
    @app.middleware("http")
    async def add_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        response.headers.update(_HEADERS)
        return response


def _explain_errors(app: FastAPI, templates: Jinja2Templates) -> None:
    def explain(request: Request, status: int, words: str) -> Response:
        return templates.TemplateResponse(request, "error.html", {"status": status, "words": words}, status_code=status)

    @app.exception_handler(NotFound)
    def not_found(request: Request, _: NotFound) -> Response:
        return explain(request, 404, "There is no such job.")

    @app.exception_handler(StorageError)
    def storage_error(request: Request, _: StorageError) -> Response:
        return explain(request, 503, "The database cannot be read now.")

    @app.exception_handler(HTTPException)
    def http_error(request: Request, error: HTTPException) -> Response:
        return explain(request, error.status_code, str(error.detail))


def _add_pages(app: FastAPI, templates: Jinja2Templates, store: Store, spool: Spool, settings: Settings) -> None:
    @app.get("/", response_class=HTMLResponse)
    def queue(
        request: Request,
        status: JobStatus | None = None,
        page: Annotated[int, Query(ge=1, le=100_000)] = 1,
        refresh: Literal["on", "off"] = "on",
    ) -> Response:
        jobs = store.jobs.newest(status, limit=_JOBS_PER_PAGE + 1, offset=(page - 1) * _JOBS_PER_PAGE)
        return templates.TemplateResponse(
            request,
            "queue.html",
            {
                "filters": filters(store),
                "chosen": status,
                "totals": delivery_totals(store),
                "rows": [job_row(store, job) for job in jobs[:_JOBS_PER_PAGE]],
                "page": page,
                "more": len(jobs) > _JOBS_PER_PAGE,
                "refresh": refresh,
            },
        )

    @app.get("/jobs/{job_id}", response_class=HTMLResponse)
    def job(request: Request, job_id: str, pictures: Literal["on", "off"] | None = None) -> Response:
        show_patient = settings.web.show_patient
        view = job_view(store, spool, store.jobs.get(job_id), settings.review, show_patient)
        shown = pictures == "on" or (pictures is None and show_patient)
        return templates.TemplateResponse(request, "job.html", {"job": view, "pictures": "on" if shown else "off"})

    @app.get("/jobs/{job_id}/source")
    def source(job_id: str) -> Response:
        job = store.jobs.get(job_id)
        path = spool.source_path(job.id)
        if not path.is_file():
            raise HTTPException(404, "The file is gone.")
        return FileResponse(path, media_type=job.media_type, filename=job.id)

    @app.get("/jobs/{job_id}/pages/{number}/page.png")
    def page_image(job_id: str, number: int) -> Response:
        return _picture(store, spool, job_id, kept_name(number, Role.PAGE_PICTURE))

    @app.get("/jobs/{job_id}/pages/{number}/overlay.png")
    def overlay_image(job_id: str, number: int) -> Response:
        return _picture(store, spool, job_id, kept_name(number, Role.OVERLAY_PICTURE))


def _picture(store: Store, spool: Spool, job_id: str, name: str) -> Response:
    path = spool.artefact_path(store.jobs.get(job_id).id, name)
    if not path.is_file():
        raise HTTPException(404, "There is no such picture.")
    return FileResponse(path, media_type="image/png")


def _add_probes(app: FastAPI, store: Store, spool: Spool, alive: Callable[[], list[str]], settings: Settings) -> None:
    registry = metrics_registry(store, spool, settings)

    @app.get("/healthz")
    def healthz() -> Response:
        health = check_health(store, spool, alive, settings)
        body = {
            "status": "ok" if health.ok else "failing",
            "version": __version__,
            "checks": [asdict(check) for check in health.checks],
            "oldest_queued_age_s": health.oldest_queued_age_s,
        }
        return JSONResponse(body, status_code=200 if health.ok else 503)

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
