"""Log-in and log-out, and what becomes of a form that arrived without its session."""

from __future__ import annotations

import logging
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.concurrency import run_in_threadpool

from gateway.domain.account import Origin, User
from gateway.domain.audit import AuditKind
from gateway.errors import AccountError
from gateway.security.attempts import FailedAttempts
from gateway.security.passwords import (
    digest,
    hash_password,
    is_outdated,
    is_password,
    new_secret,
)
from gateway.store.accounts import LOCKED_FOR, MOST_FAILURES
from gateway.store.tables import Account, AuditEntry, WebSession
from gateway.web.access import (
    CurrentUser,
    Kept,
    address_of,
    cookie_of,
    csrf_token,
    give_cookie,
    limits,
)
from gateway.web.forms import back_to, read_form
from gateway.web.kept import account_page, after_log_in, kept_form, log_in_page
from gateway.web.site import Site

logger = logging.getLogger(__name__)

_FAILURES_OF_AN_ADDRESS = 20
_WINDOW_S = 900.0
_WRONG = (
    f"The name or the password is wrong. After {MOST_FAILURES} wrong passwords an account is locked for "
    f"{LOCKED_FOR.seconds // 60} minutes."
)


class LogIn:
    """Checks passwords, and opens sessions."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._attempts = FailedAttempts(_FAILURES_OF_AN_ADDRESS, _WINDOW_S)

    def check(self, name: str, password: str, address: str) -> Account:
        """Return the account of a name and its password.

        Raises
        ------
        AccountError
            They do not belong together, or there were too many attempts; the message is for who tries.
        """
        accounts = self._site.store.accounts
        if self._attempts.too_many(address):
            self._refuse(name, address, "too many attempts from this address")
            raise AccountError("Too many attempts from your address. Wait a quarter of an hour.")
        key = name.strip().lower()
        account = accounts.get(key)
        locked = account is not None and not accounts.begin_attempt(key)
        right = is_password(account.password_hash if account and not locked else None, password)
        if account is None or not right or account.disabled:
            self._attempts.add(address)
            reason = "the account is locked" if locked else "disabled" if right else "wrong name or password"
            self._refuse(name, address, reason)
            raise AccountError(_WRONG)  # the same for all, so that nobody learns which names there are
        accounts.succeed(key)
        if is_outdated(account.password_hash):
            accounts.rehash(key, account.password_hash, hash_password(password))
        return account

    def open(self, account: Account, before: str, address: str, origin: Origin = Origin.ACCOUNT) -> str:
        """Open a session and return its id; the one that the browser had before ends."""
        secret = new_secret()
        self._site.store.accounts.end_session(digest(before))
        session = WebSession(
            digest=digest(secret),
            name=account.name,
            full_name=account.full_name,
            role=account.role,
            origin=origin,
        )
        self._site.store.accounts.open_session(session, limits(self._site.settings.web))
        self._tell(AuditKind.LOG_IN, account.name, address, full_name=account.full_name)
        logger.info("%s logged in", account.name, extra={"action": "login"})
        return secret

    def close(self, user: User | None, secret: str) -> None:
        """End a session."""
        self._site.store.accounts.end_session(digest(secret))
        if user is not None:
            self._tell(AuditKind.LOG_OUT, user.name, user.address, full_name=user.full_name)

    def _refuse(self, name: str, address: str, reason: str) -> None:
        known = self._site.store.accounts.get(name.strip().lower()) is not None  # else it may be a password
        self.refused(name.strip().lower() if known else "an unknown name", address, reason)

    def refused(self, who: str, address: str, reason: str) -> None:
        """Say that somebody was not let in."""
        self._tell(AuditKind.LOG_IN, who, address, detail=reason, failed=True)
        logger.warning("Log-in of %s from %s refused: %s", who, address, reason, extra={"action": "login_refused"})

    def _tell(self, kind: AuditKind, name: str, address: str, **more: Any) -> None:
        self._site.store.trail.record(AuditEntry(kind=kind, name=name, address=address, **more))


def routes(site: Site, login: LogIn) -> APIRouter:
    """Return log-in, log-out, and what a script asks for its token."""
    router = APIRouter()

    @router.get("/login", response_class=HTMLResponse)
    def ask(request: Request, to: Annotated[str, Query(max_length=2000)] = "/") -> Response:
        return log_in_page(site, request, Kept(target=to), status=200)

    @router.post("/login", response_class=HTMLResponse)
    async def log_in(request: Request) -> Response:
        form = await read_form(request)
        kept = kept_form(form)
        try:
            account = await run_in_threadpool(
                login.check, form.get("name", ""), form.get("password", ""), address_of(request)
            )
        except AccountError as error:
            return log_in_page(site, request, kept, str(error), name=form.get("name", ""))
        secret = await run_in_threadpool(login.open, account, cookie_of(request), address_of(request))
        give_cookie(request, secret)
        request.state.user = None
        if account.must_change:
            return account_page(site, request, kept, "Choose a password that only you know.")
        return after_log_in(site, request, kept, account.full_name or account.name)

    @router.post("/logout")
    async def log_out(request: Request, user: CurrentUser) -> Response:
        await run_in_threadpool(login.close, user, cookie_of(request))
        give_cookie(request, new_secret())
        return back_to("/login")

    @router.get("/session")
    def session(request: Request, user: CurrentUser) -> Response:
        return JSONResponse({"name": user.name, "role": user.role, "csrf": csrf_token(request)})

    return router
