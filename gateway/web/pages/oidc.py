"""Log-in at the site's OpenID provider: there, and back."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool

from gateway.domain.account import AccountRole, Origin, outside_name
from gateway.errors import AccountError
from gateway.security.oidc import Asked, Provider
from gateway.security.passwords import digest, new_secret
from gateway.settings import OidcSettings
from gateway.store.tables import Account
from gateway.web.access import Kept, address_of, cookie_of, give_cookie
from gateway.web.forms import read_form
from gateway.web.kept import after_log_in, kept_form, log_in_page
from gateway.web.pages.login import LogIn
from gateway.web.proxies import role_of
from gateway.web.site import Site

_LONGEST_S = 600.0
_MOST = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    """A log-in that is under way, in one browser."""

    browser: str  # the digest of its cookie
    asked: Asked
    kept: Kept
    until_s: float


class _Underway:
    """The log-ins that are under way, by their state; each ends once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun: OrderedDict[str, _Begun] = OrderedDict()

    def add(self, state: str, begun: _Begun) -> None:
        with self._lock:
            self._begun[state] = begun
            if len(self._begun) > _MOST:
                self._begun.popitem(last=False)

    def take(self, state: str, browser: str) -> _Begun:
        """Return a log-in of this browser; raise AccountError where it began none with this state."""
        with self._lock:
            begun = self._begun.pop(state, None)
        if begun is None or begun.browser != browser or time.monotonic() > begun.until_s:
            raise AccountError("this log-in did not begin here, or took too long")
        return begun


def routes(site: Site, login: LogIn, settings: OidcSettings) -> APIRouter:
    """Return the way to the provider and back."""
    router, provider, underway = APIRouter(), Provider(settings), _Underway()

    def begin(request: Request, kept: Kept) -> str:
        """Return where the browser goes to; raise AccountError."""
        state = new_secret()
        host, scheme = request.headers.get("host", ""), request.url.scheme
        redirect_uri = f"{scheme}://{host}{site.settings.web.root_path}/oidc/callback"
        address, asked = provider.begin(redirect_uri, state)
        until_s = time.monotonic() + _LONGEST_S
        begun = _Begun(browser=digest(cookie_of(request)), asked=asked, kept=kept, until_s=until_s)
        underway.add(state, begun)
        return address

    @router.get("/oidc/start")
    def start(request: Request, to: Annotated[str, Query(max_length=2000)] = "/") -> Response:
        kept = Kept(target=to)
        try:
            return RedirectResponse(begin(request, kept), status_code=303)
        except AccountError as error:
            return log_in_page(site, request, kept, _sentence(error))

    @router.post("/oidc/start", response_class=HTMLResponse)
    async def start_with_a_form(request: Request) -> Response:
        kept = kept_form(await read_form(request))
        try:
            address = await run_in_threadpool(begin, request, kept)
        except AccountError as error:
            return log_in_page(site, request, kept, _sentence(error))
        shown = {"address": address, "title": settings.title}  # a form may not lead to another place, a link may
        return site.templates.TemplateResponse(request, "elsewhere.html", shown)

    @router.get("/oidc/callback", response_class=HTMLResponse)
    def callback(request: Request, state: str = "", code: str = "", error: str = "") -> Response:
        kept = Kept(target="/")
        try:
            begun = underway.take(state, digest(cookie_of(request)))
            kept = begun.kept
            if error or not code:
                raise AccountError(f"the provider has not let you in: {error[:64] or 'no code'}")
            person = provider.end(begun.asked, code)
            account = _account(site, person.name, person.full_name, list(person.groups))
        except (AccountError, ValueError) as problem:
            login.refused("an unknown name", address_of(request), str(problem))
            return log_in_page(site, request, kept, _sentence(problem))
        give_cookie(request, login.open(account, cookie_of(request), address_of(request), Origin.OIDC))
        return after_log_in(site, request, kept, account.full_name or account.name)

    return router


def _account(site: Site, name: str, full_name: str, groups: list[str]) -> Account:
    """Return what a session is opened with; raise AccountError where the person has no role, or ValueError."""
    name = outside_name(name)
    role: AccountRole | None = role_of(groups, site.settings.web)
    known = site.store.accounts.get(name)
    if known is not None and known.disabled:
        raise AccountError(f"the account {name} is disabled")
    if role is None:
        raise AccountError("you have logged in, but you have no role here: ask your administrator")
    return Account(name=name, full_name=full_name, role=role, password_hash="")


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[:1].upper() + text[1:].rstrip(".") + "."
