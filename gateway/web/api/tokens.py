"""The page of tokens: a person makes them for programs of his own, and an administrator sees and ends everybody's."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from gateway.domain.account import AccountRole, ApiScope, Origin, User
from gateway.domain.audit import AuditKind
from gateway.domain.clock import utc_now
from gateway.errors import AccountError
from gateway.operations.tokens import LONGEST_DAYS, new_token
from gateway.store.tables import ApiToken
from gateway.web.access import CurrentUser
from gateway.web.audit import audit_entry
from gateway.web.forms import Number, back_to, read_form
from gateway.web.site import Site

logger = logging.getLogger(__name__)

_DAYS = 365


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """A token, in words."""

    number: int
    name: str
    owner: str
    scopes: str
    expires: str
    used: str
    valid: bool


def routes(site: Site) -> APIRouter:
    """Return the page and the targets of its forms."""
    router, tokens = APIRouter(), site.store.tokens

    @router.get("/account/tokens", response_class=HTMLResponse)
    def show(request: Request, user: CurrentUser) -> Response:
        return _page(site, request, user)

    @router.post("/account/tokens", response_class=HTMLResponse)
    async def make(request: Request, user: CurrentUser) -> Response:
        return await run_in_threadpool(_made, site, request, user, await read_form(request))

    @router.post("/account/tokens/{number}/revoke")
    async def revoke(request: Request, number: Number, user: CurrentUser) -> Response:
        await read_form(request)
        _check(user)
        owner = None if user.role == AccountRole.ADMIN else user.name
        ended = await run_in_threadpool(tokens.revoke, number, owner)
        await run_in_threadpool(_tell, site, user, f"token {ended.name} of {ended.owner} was revoked")
        return back_to("/account/tokens")

    return router


def _made(site: Site, request: Request, user: User, form: dict[str, str]) -> Response:
    """Make a token, and show it this once."""
    _check(user)
    scopes = [scope for scope in ApiScope if form.get(f"scope_{scope}")]
    days = form.get("days", "")
    try:
        if not (days.isascii() and days.isdecimal() and len(days) < 6):
            raise AccountError(f"a token is valid for 1 to {LONGEST_DAYS} days, got {days}")
        secret, token = new_token(form.get("name", ""), user.name, scopes, int(days), user.name)
        if above := [scope for scope in scopes if not user.role.covers(scope.role)]:
            raise AccountError(f"a {user.role} cannot give the scope {', '.join(above)}.")
        site.store.tokens.add(token)
    except AccountError as error:
        return _page(site, request, user, form=form, words=_sentence(error))
    _tell(site, user, f"token {token.name} of {token.owner} was made: {token.scopes}")
    return _page(site, request, user, secret=secret)


def _tell(site: Site, user: User, detail: str) -> None:
    site.store.trail.record(audit_entry(AuditKind.ACCOUNT, user, detail=detail))
    logger.info("%s: %s", user.name, detail, extra={"action": "token"})


def _check(user: User) -> None:
    """Raise HTTPException for a person whose role we would not hear of: who was dismissed elsewhere kept the token."""
    if user.origin not in (Origin.ACCOUNT, Origin.MACHINE):
        raise HTTPException(403, "You log in elsewhere: your administrator makes tokens, by command.")


def _page(site: Site, request: Request, user: User, **more: object) -> Response:
    _check(user)
    owner = None if user.role == AccountRole.ADMIN else user.name
    shown: dict[str, object] = {
        "tokens": [_row(token) for token in site.store.tokens.all(owner)],
        "scopes": [scope for scope in ApiScope if user.role.covers(scope.role)],
        "days": _DAYS,
        "longest": LONGEST_DAYS,
        "form": {},
        "secret": "",
        "words": "",
    }
    return site.templates.TemplateResponse(
        request, "tokens.html", shown | more, status_code=422 if more.get("words") else 200
    )


def _row(token: ApiToken) -> TokenRow:
    ended = token.revoked_at or (token.expires_at if token.expires_at <= utc_now() else None)
    return TokenRow(
        number=token.id or 0,
        name=token.name,
        owner=token.owner,
        scopes=token.scopes,
        expires=f"{token.expires_at:%Y-%m-%d}" if ended is None else f"ended {ended:%Y-%m-%d}",
        used="never" if token.used_at is None else f"{token.used_at:%Y-%m-%d %H:%M} UTC",
        valid=ended is None,
    )


def _sentence(error: AccountError) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."
