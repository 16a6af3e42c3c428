"""The password of one's own account, and the one-time link of the first administrator."""

from __future__ import annotations

import logging

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from gateway.domain.account import AccountRole, Origin, account_name
from gateway.domain.audit import AuditKind
from gateway.errors import AccountError
from gateway.security.passwords import SHORTEST, check_password, digest, hash_password
from gateway.store.tables import Account, AuditEntry
from gateway.web.access import CurrentUser, Kept, address_of, cookie_of
from gateway.web.audit import audit_entry
from gateway.web.forms import back_to, read_form
from gateway.web.kept import account_page, after_log_in, kept_form
from gateway.web.pages.login import LogIn
from gateway.web.site import Site

logger = logging.getLogger(__name__)


def routes(site: Site, login: LogIn) -> APIRouter:
    """Return the page of one's own account."""
    router = APIRouter()

    @router.get("/account", response_class=HTMLResponse)
    def account(request: Request, user: CurrentUser) -> Response:
        return account_page(site, request, Kept(target="/"))

    @router.post("/account", response_class=HTMLResponse)
    async def change_password(request: Request, user: CurrentUser) -> Response:
        form = await read_form(request)
        kept = kept_form(form)
        if user.origin != Origin.ACCOUNT:
            raise HTTPException(403, "Your password is not ours to change.")
        try:
            new = new_password(form, user.name)
            before = await run_in_threadpool(login.check, user.name, form.get("password", ""), address_of(request))
            if form.get("password") == new:
                raise AccountError("The new password is the old one.")
        except AccountError as error:
            return account_page(site, request, kept, str(error))
        hashed = await run_in_threadpool(hash_password, new)
        keep = digest(cookie_of(request))
        await run_in_threadpool(
            lambda: site.store.accounts.set_password(before.name, hashed, must_change=False, keep=keep)
        )
        entry = audit_entry(AuditKind.ACCOUNT, user, detail=f"{user.name} changed the password")
        await run_in_threadpool(site.store.trail.record, entry)
        logger.info("%s changed the password", user.name, extra={"action": "password"})
        return after_log_in(site, request, kept, user.shown)

    return router


def first_admin(site: Site, first: str) -> APIRouter:
    """Return the page behind the one-time link that makes the first account.

    Parameters
    ----------
    first
        The digest of the secret in the link.
    """
    router = APIRouter()

    def check(token: str) -> None:
        if digest(token) != first or site.store.accounts.exist():
            raise HTTPException(404, "This link was used, or is of an earlier start of the gateway.")

    def page(request: Request, words: str = "", name: str = "") -> Response:
        shown = {"words": words, "name": name, "shortest": SHORTEST}
        return site.templates.TemplateResponse(request, "first.html", shown, status_code=422 if words else 200)

    @router.get("/first/{token}", response_class=HTMLResponse)
    def ask(request: Request, token: str) -> Response:
        check(token)
        return page(request)

    @router.post("/first/{token}", response_class=HTMLResponse)
    async def make(request: Request, token: str) -> Response:
        await run_in_threadpool(check, token)
        form = await read_form(request)
        try:
            account = Account(
                name=account_name(form.get("name", "")),
                full_name=form.get("full_name", "").strip()[:64],
                role=AccountRole.ADMIN,
                password_hash="",
            )
            new = new_password(form, account.name)
            account.password_hash = await run_in_threadpool(hash_password, new)
            await run_in_threadpool(site.store.accounts.add_first, account)
        except (AccountError, ValueError) as error:
            return page(request, sentence(error), form.get("name", ""))
        entry = AuditEntry(
            kind=AuditKind.ACCOUNT,
            name=account.name,
            address=address_of(request),
            detail=f"{account.name} is the first administrator",
        )
        await run_in_threadpool(site.store.trail.record, entry)
        logger.info("%s is the first administrator", account.name, extra={"action": "account"})
        return back_to("/login")

    return router


def new_password(form: dict[str, str], name: str) -> str:
    """Return the password that was typed twice; raise AccountError where it cannot be one."""
    new = form.get("new_password", "")
    if new != form.get("again", ""):
        raise AccountError("The new password was typed in two ways.")
    try:
        check_password(new, name)
    except AccountError as error:
        raise AccountError(sentence(error)) from None
    return new


def sentence(error: Exception) -> str:
    """Return what an error says as a sentence."""
    text = str(error)
    return text[:1].upper() + text[1:].rstrip(".") + "."
