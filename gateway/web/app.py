"""The web application: its pages (see `pages`), what protects them, and how errors are shown; `api` is beside them.

The server renders everything; htmx only fetches a page again and swaps a part of it.  `gateway.web.access` lets a
request through, so a new page is closed to everybody who has not logged in.  Patient fields are shown to whom they may
be shown to; otherwise the pictures of a page, on which a name may be printed, are shown on request only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from gateway import __version__
from gateway.errors import AccountError, DeliveryRefused, IllegalTransition, IntakeError, NotFound, StorageError
from gateway.intake.accept import Intake
from gateway.settings import Settings
from gateway.settings.section import is_loopback
from gateway.spool.folder import Spool
from gateway.web.access import COOKIE, Access, csrf_token
from gateway.web.api import tokens
from gateway.web.api.application import mounted
from gateway.web.audit import RequestAudit
from gateway.web.kept import explain_sessions
from gateway.web.pages import (
    account,
    accounts,
    destinations,
    downloads,
    health,
    job,
    login,
    oidc,
    statistics,
    system,
    unmatched,
)
from gateway.web.proxies import Proxies
from gateway.web.queue import batch, listing, upload
from gateway.web.review import correct, decide, patient, pictures, worklist
from gateway.web.site import Site

_HERE = Path(__file__).parent
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def create_app(
    intake: Intake, spool: Spool, current: Callable[[], Settings], alive: Callable[[], list[str]], first: str = ""
) -> FastAPI:
    """Return the web application.

    Parameters
    ----------
    intake
        Takes what is uploaded.
    current
        Returns the settings in effect; those of `[web]` that belong to its socket stay until a restart.
    alive
        Returns, in words, what should be running and is not (threads, workers); empty when everything is alive.
    first
        The digest of the secret in the link that makes the first account; "": there is no such link.
    """
    web, store = current().web, intake.store
    templates = Jinja2Templates(directory=_HERE / "templates", context_processors=[_facts_of_request])
    templates.env.globals |= {"version": __version__, "root": web.root_path, "oidc": web.oidc}
    site = Site(store=store, spool=spool, current=current, templates=templates, alive=alive, intake=intake)
    app = FastAPI(
        title="ECG gateway",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(Access(site))],
    )
    # a page of the world must not reach us through a name of its own
    ours = ["127.0.0.1", "localhost", "[::1]"] if is_loopback(web.host) else ["*"]
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(web.allowed_hosts) or ours, www_redirect=False)
    app.router.routes.append(mounted(site))
    app.mount("/static", StaticFiles(directory=_HERE / "static"), name="static")
    _protect(app, web.root_path, RequestAudit(store.trail, lambda: 60.0 * current().web.session_idle_minutes))
    app.add_middleware(Proxies, root=web.root_path, current=lambda: current().web)
    _explain_errors(app, templates)
    explain_sessions(app, site)
    log_in = login.LogIn(site)
    app.include_router(login.routes(site, log_in))
    app.include_router(account.routes(site, log_in))
    app.include_router(tokens.routes(site))
    app.include_router(accounts.routes(site))
    if web.oidc is not None:
        app.include_router(oidc.routes(site, log_in, web.oidc))
    if first:
        app.include_router(account.first_admin(site, first))
    for part in (listing, batch, job, downloads, upload, destinations, statistics, system):
        app.include_router(part.routes(site))
    for part in (worklist, pictures, patient, correct, decide):
        app.include_router(part.routes(site))
    app.include_router(unmatched.routes(site))
    app.include_router(job.decisions(site))
    app.include_router(health.routes(site))
    return app


def _facts_of_request(request: Request) -> dict[str, object]:
    """Return what every template has: who asks (None before the log-in), and the token of this browser's forms."""
    return {"user": getattr(request.state, "user", None), "csrf": csrf_token(request)}


def _protect(app: FastAPI, root: str, audit: RequestAudit) -> None:
    @app.middleware("http")
    async def add_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        await run_in_threadpool(audit.answered, request, response.status_code)
        response.headers.update(_HEADERS)
        if response.headers.get("location", "").startswith("/"):
            response.headers["location"] = root + response.headers["location"]
        if secret := getattr(request.state, "new_cookie", ""):
            secure = request.url.scheme == "https"
            response.set_cookie(COOKIE, secret, path=root or "/", secure=secure, httponly=True, samesite="lax")
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

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        if any(problem["loc"][0] == "path" for problem in error.errors()):
            return explain(request, 404, "There is no such page.")
        return explain(request, 422, "The address has a value that is not allowed.")

    @app.exception_handler(HTTPException)
    def http_error(request: Request, error: HTTPException) -> Response:
        return explain(request, error.status_code, str(error.detail))

    @app.exception_handler(IntakeError)
    @app.exception_handler(IllegalTransition)
    @app.exception_handler(DeliveryRefused)
    @app.exception_handler(AccountError)
    def refused(request: Request, error: Exception) -> Response:
        return explain(request, 409, f"Nothing was changed: {error}.")
