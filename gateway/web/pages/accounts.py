"""The accounts, for administrators: who may log in, as what; and the one-time links by which a person sets a password.

A link is made for one account, works once, for a day, and ends with the process: only its digest is kept, in memory.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from gateway.domain.account import AccountRole, User, account_name
from gateway.domain.audit import AuditKind
from gateway.domain.clock import utc_now
from gateway.errors import AccountError
from gateway.security.passwords import SHORTEST, digest, hash_password, new_secret
from gateway.store.tables import Account, AuditEntry
from gateway.web.access import CurrentUser, address_of
from gateway.web.audit import audit_entry
from gateway.web.forms import back_to, read_form
from gateway.web.pages.account import new_password, sentence
from gateway.web.site import Site

logger = logging.getLogger(__name__)

LINK_S = 86400.0


class Links:
    """The one-time links that were made and not used."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: dict[str, tuple[str, float]] = {}  # digest of the secret: account, until when

    def make(self, name: str) -> str:
        """Return the secret of a new link for an account; one that was made for it before ends."""
        secret = new_secret()
        with self._lock:
            self._names = {key: each for key, each in self._names.items() if each[0] != name}
            self._names[digest(secret)] = (name, time.monotonic() + LINK_S)
        return secret

    def name_of(self, secret: str) -> str:
        """Return whose link it is; raise HTTPException for one that does not work."""
        with self._lock:
            name, until = self._names.get(digest(secret), ("", 0.0))
        if time.monotonic() >= until:
            raise HTTPException(404, "This link was used, is too old, or is of an earlier start of the gateway.")
        return name

    def take(self, secret: str) -> str:
        """Return whose link it is, which does not work any more; raise HTTPException for one that does not work."""
        name = self.name_of(secret)
        with self._lock:
            if self._names.pop(digest(secret), None) is None:
                raise HTTPException(404, "This link was used.")
        return name

    def end(self, name: str) -> None:
        """Let no link of an account work any more."""
        with self._lock:
            self._names = {key: each for key, each in self._names.items() if each[0] != name}


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRow:
    """One account."""

    name: str
    full_name: str
    role: AccountRole
    state: str
    disabled: bool
    mine: bool


class Administration:
    """What administrators do with accounts, and the answer to it."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._accounts = site.store.accounts
        self.links = Links()

    def page(
        self,
        request: Request,
        user: User,
        *,
        words: str = "",
        form: Mapping[str, str] | None = None,
        link: tuple[str, str] | None = None,
    ) -> Response:
        """Return the page.

        Parameters
        ----------
        words
            Why something was refused.
        form
            What was typed.
        link
            The secret of a new link, and whom it is for.
        """
        rows = [_row(account, user) for account in self._accounts.all()]
        shown = {"rows": rows, "roles": list(AccountRole), "link": link, "words": words, "form": form or {}}
        status = 422 if words else 200
        return self._site.templates.TemplateResponse(request, "accounts.html", shown, status_code=status)

    def add(self, request: Request, user: User, form: dict[str, str]) -> Response:
        """Add an account without a password, and make its link."""
        try:
            account = Account(
                name=account_name(form.get("name", "")),
                full_name=form.get("full_name", "").strip()[:64],
                role=_role(form),
                password_hash="",  # no password is that of this hash
                must_change=True,
            )
            self._accounts.add(account)
        except (AccountError, ValueError) as error:
            return self.page(request, user, words=sentence(error), form=form)
        self._tell(user, f"{account.name} was added as {account.role}")
        return self.page(request, user, link=(self.links.make(account.name), account.name))

    def change(self, request: Request, user: User, name: str, form: dict[str, str]) -> Response:
        """Change an account that is another person's."""
        account = self._accounts.get(name)
        if account is None:
            raise HTTPException(404, "There is no such account.")
        action = form.get("action", "")
        if name == user.name:
            return self.page(
                request, user, words="Your own account is changed by another administrator, or by command."
            )
        if action == "role":
            role = _role(form)
            self._accounts.set_role(name, role)
            self._tell(user, f"{name} is {role} now")
        elif action in ("disable", "enable"):
            self._accounts.set_disabled(name, disabled=action == "disable")
            self.links.end(name)
            self._tell(user, f"{name} was {action}d")
        elif action == "link" and not account.disabled:
            self._accounts.set_password(name, "", must_change=True)
            self._tell(user, f"{name} was given a link for another password")
            return self.page(request, user, link=(self.links.make(name), name))
        else:
            return self.page(request, user, words=f"Nothing was changed: {name} is disabled, or the button is unknown.")
        return back_to("/accounts")

    def set_password(self, request: Request, token: str, form: dict[str, str]) -> Response:
        """Set the password of the account that a link is for."""
        name = self.links.name_of(token)
        try:
            hashed = hash_password(new_password(form, name))
        except AccountError as error:
            return self.invited(request, name, str(error))
        self._accounts.set_password(self.links.take(token), hashed, must_change=False)
        address, words = address_of(request), f"{name} set a password by a link"
        self._site.store.trail.record(AuditEntry(kind=AuditKind.ACCOUNT, name=name, address=address, detail=words))
        logger.info("%s", words, extra={"action": "password"})
        return back_to("/login")

    def invited(self, request: Request, name: str, words: str = "") -> Response:
        """Return the page behind a link."""
        shown = {"name": name, "words": words, "shortest": SHORTEST}
        return self._site.templates.TemplateResponse(request, "invited.html", shown, status_code=422 if words else 200)

    def _tell(self, user: User, words: str) -> None:
        self._site.store.trail.record(audit_entry(AuditKind.ACCOUNT, user, detail=words))
        logger.info("%s, by %s", words, user.name, extra={"action": "account"})


def routes(site: Site) -> APIRouter:
    """Return the administrators' page, the targets of its forms, and the page behind a link."""
    router, administration = APIRouter(), Administration(site)

    @router.get("/accounts", response_class=HTMLResponse)
    def show(request: Request, user: CurrentUser) -> Response:
        _check_admin(user)
        return administration.page(request, user)

    @router.post("/accounts", response_class=HTMLResponse)
    async def add(request: Request, user: CurrentUser) -> Response:
        _check_admin(user)
        return await run_in_threadpool(administration.add, request, user, await read_form(request))

    @router.post("/accounts/{name}", response_class=HTMLResponse)
    async def change(request: Request, user: CurrentUser, name: str) -> Response:
        _check_admin(user)
        return await run_in_threadpool(administration.change, request, user, name, await read_form(request))

    @router.get("/invited/{token}", response_class=HTMLResponse)
    def ask(request: Request, token: str) -> Response:
        return administration.invited(request, administration.links.name_of(token))

    @router.post("/invited/{token}", response_class=HTMLResponse)
    async def answer(request: Request, token: str) -> Response:
        return await run_in_threadpool(administration.set_password, request, token, await read_form(request))

    return router


def _check_admin(user: User) -> None:
    if user.role is not AccountRole.ADMIN:
        raise HTTPException(403, f"{user.shown}, a {user.role}, does not look after accounts.")


def _role(form: dict[str, str]) -> AccountRole:
    try:
        return AccountRole(form.get("role", ""))
    except ValueError:
        raise HTTPException(422, f"A role is {', '.join(AccountRole)}.") from None


def _row(account: Account, user: User) -> AccountRow:
    locked = account.locked_until is not None and account.locked_until > utc_now()
    states = ((account.disabled, "disabled"), (locked, "locked"), (account.must_change, "must set a password"))
    return AccountRow(
        name=account.name,
        full_name=account.full_name,
        role=account.role,
        state=next((words for holds, words in states if holds), ""),
        disabled=account.disabled,
        mine=account.name == user.name,
    )
