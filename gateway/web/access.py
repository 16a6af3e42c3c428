"""Who asks, and whether he may: everything but log-in and probes needs a user, and a form its token.

A user has logged in (`pages.login`), and his browser sends the id of his session in a cookie.  While there is no
account, whoever uses this machine is the user, under the name that the system gives him; nobody else reaches the page.

A form that arrives without a session, or from a page that was made for another session, is not lost: the person logs
in, sees what was typed and whom it goes out as, and sends it himself (`LogInNeeded`, `PageIsStale`).

Pages take the user from `current_user`; templates have `user`, `csrf` (a form's hidden field, a script's header
`X-CSRF-Token`) and `root` (before every path).
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated
from urllib.parse import quote

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from gateway.domain.account import AccountRole, Origin, User
from gateway.errors import StorageError
from gateway.operations.listeners import peer_user
from gateway.security.passwords import digest, new_secret
from gateway.settings import WebSettings, is_loopback
from gateway.store.accounts import SessionLimits
from gateway.store.tables import Account, WebSession
from gateway.web.forms import check_origin, read_body
from gateway.web.proxies import by_proxy, proxy_user
from gateway.web.site import Site

COOKIE = "ecg_gateway"
_UPLOAD = "/upload"
_HEALTH = "/healthz"
_PROBES = {_HEALTH, "/metrics"}  # without patient data, and open: a monitor has no account
_PUBLIC = {"/login", "/first/{token}", "/invited/{token}", "/oidc/start", "/oidc/callback"}
_EVERYBODYS = {
    "/logout",
    "/account",
    "/account/tokens",
    "/account/tokens/{number}/revoke",
}  # forms that change only what is one's own
_UNTIL_CHANGED = {"/logout", "/account", "/session"}  # what a password of another person opens
_FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Where a person wanted to go, without the root path, and the form that was sent there; None: none was."""

    target: str
    form: dict[str, str] | None = None


class LogInNeeded(Exception):
    """There is no session; `kept` is what was asked for."""

    def __init__(self, kept: Kept) -> None:
        super().__init__()
        self.kept = kept


class PageIsStale(Exception):
    """The form comes from a page of another session of this browser."""

    def __init__(self, kept: Kept) -> None:
        super().__init__()
        self.kept = kept


class PasswordMustChange(Exception):
    """Another person has set the password: first the person sets one."""


def current_user(request: Request) -> User:
    """Return who asks; for a page that needs nobody, raise HTTPException."""
    user: User | None = getattr(request.state, "user", None)
    if user is None:
        raise HTTPException(401, "Log in first.")
    return user


CurrentUser = Annotated[User, Depends(current_user)]


def limits(web: WebSettings) -> SessionLimits:
    """Return when a session ends."""
    return SessionLimits(idle=timedelta(minutes=web.session_idle_minutes), longest=timedelta(hours=web.session_hours))


def cookie_of(request: Request) -> str:
    """Return the browser's secret: the id of its session, or what its forms are known by before there is one."""
    secret = getattr(request.state, "new_cookie", "") or request.cookies.get(COOKIE, "")
    if not secret:
        give_cookie(request, secret := new_secret())
    return secret


def give_cookie(request: Request, secret: str) -> None:
    """Have the answer set the browser's cookie."""
    request.state.new_cookie = secret


def csrf_token(request: Request) -> str:
    """Return what a form must send to be one of a page that this browser was shown in this session."""
    return hmac.new(cookie_of(request).encode(), b"form", hashlib.sha256).hexdigest()


def address_of(request: Request) -> str:
    """Return where a request came from."""
    return request.client.host if request.client else ""


def path_of(request: Request, root: str) -> str:
    """Return the path that was asked for, with its query, without the root path."""
    path = request.scope["path"]
    path = path.removeprefix(root) if path.startswith(f"{root}/") else path
    query = request.url.query
    return quote(path) + (f"?{query}" if query else "")


class Access:
    """The dependency of every route: sets the user of a request, or ends it."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def __call__(self, request: Request) -> None:
        """Let a request through, or raise LogInNeeded, PageIsStale or HTTPException."""
        route = request.scope["route"].path
        request.state.route, request.state.job_id = route, request.path_params.get("job_id", "")
        if route in _PROBES:
            if route == _HEALTH:
                request.state.user = await run_in_threadpool(self._identify_if_any, request)
            return
        changes = request.method not in ("GET", "HEAD")
        if changes:
            check_origin(request)
            if route != _UPLOAD:  # it may be large, and its token is in a header
                await read_body(request)
        request.state.user = user = await run_in_threadpool(self._identify, request)
        if user is None and route not in _PUBLIC:
            self._end_without_user(request, keeps=route not in _EVERYBODYS)
        if changes:
            self._check_token(request, route)
            if user is not None and route not in _PUBLIC | _EVERYBODYS and not user.decides:
                raise HTTPException(403, f"{user.shown}, a {user.role}, may not do this.")
        if getattr(request.state, "must_change", False) and route not in _PUBLIC | _UNTIL_CHANGED:
            raise PasswordMustChange

    def log_in_needed(self) -> bool:
        """Return whether nobody is a user without a log-in."""
        web = self._site.settings.web
        return not is_loopback(web.host) or web.logs_in_elsewhere or self._site.store.accounts.exist()

    def _identify_if_any(self, request: Request) -> User | None:
        """Return who asks for what everybody gets; None for nobody, and while the database cannot be read."""
        try:
            return self._identify(request)
        except (HTTPException, StorageError):
            return None

    def _identify(self, request: Request) -> User | None:
        web = self._site.settings.web
        cookie = request.cookies.get(COOKIE)
        found = self._site.store.accounts.session(digest(cookie), limits(web)) if cookie else None
        if found is not None:
            session, account = found
            if not (request.method == "GET" and "hx-request" in request.headers):  # a page that renews itself
                self._site.store.accounts.saw(session)
            request.state.must_change = account is not None and account.must_change
            return session_user(session, account, address_of(request), web)
        return self._proxy_user(request, web) or (None if self.log_in_needed() else self._machine_user(request))

    def _proxy_user(self, request: Request, web: WebSettings) -> User | None:
        """Return who has logged in at a proxy, with what an account of the same name says."""
        try:
            user = proxy_user(request, web)
        except ValueError as error:
            raise HTTPException(403, f"The proxy states a name that nobody can have: {error}.") from None
        if user is None:
            if by_proxy(request) and web.proxy_user_header and request.headers.get(web.proxy_user_header):
                raise HTTPException(403, "You have logged in, but you have no role here. Ask your administrator.")
            return None
        account = self._site.store.accounts.get(user.name)
        if account is not None and account.disabled:
            raise HTTPException(403, f"The account {user.name} is disabled.")
        return user

    def _machine_user(self, request: Request) -> User | None:
        """Return who uses this machine; None for a request that another machine's may be, by way of a proxy."""
        if by_proxy(request) or any(header in request.headers for header in _FORWARDED):
            return None
        client, server = request.scope.get("client"), request.scope.get("server")
        name = peer_user(client[1], server[1]) if client and server else ""
        return User(
            name=f"{name}@localhost" if name else "localhost",
            role=AccountRole.REVIEWER,
            origin=Origin.MACHINE,
            address=address_of(request),
            sees_patients=self._site.settings.web.show_patient,
        )

    def _end_without_user(self, request: Request, *, keeps: bool) -> None:
        if is_script(request):
            raise HTTPException(401, "Your session has ended. Log in in another tab, then do this again.")
        raise LogInNeeded(self._kept(request, getattr(request.state, "form", None) if keeps else None))

    def _check_token(self, request: Request, route: str) -> None:
        form: dict[str, str] | None = getattr(request.state, "form", None)
        sent = request.headers.get("x-csrf-token") or (form or {}).pop("csrf", "")
        if hmac.compare_digest(sent.encode(), csrf_token(request).encode()):
            return
        if is_script(request) or route in _PUBLIC | _EVERYBODYS or form is None:
            raise HTTPException(403, "The page is of another session: load it again.")
        raise PageIsStale(self._kept(request, form))

    def _kept(self, request: Request, form: dict[str, str] | None) -> Kept:
        if form is not None:
            form = {name: value for name, value in form.items() if name != "csrf"}
        return Kept(target=path_of(request, self._site.settings.web.root_path), form=form)


def session_user(session: WebSession, account: Account | None, address: str, web: WebSettings) -> User:
    """Return the user of a session; what his account says now counts."""
    person = account or session
    return User(
        name=session.name,
        full_name=person.full_name,
        role=person.role,
        origin=session.origin,
        address=address,
        sees_patients=web.show_patient or person.role.covers(AccountRole.REVIEWER),
    )


def is_script(request: Request) -> bool:
    """Return whether a script asks, which shows an answer in its page and keeps what was typed."""
    return "hx-request" in request.headers or request.headers.get("sec-fetch-mode") in ("cors", "same-origin")
