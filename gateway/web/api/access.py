"""Who asks, and whether the token lets him: a bearer token (RFC 6750) with the scope that a route names.

A token ends with its time, when it is revoked, or with the account of its owner; and it never lets do what the role of
that account does not.  Wrong tokens are counted by address, as wrong passwords are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from gateway.domain.account import AccountRole, ApiScope, Origin, User
from gateway.domain.audit import AuditKind
from gateway.domain.clock import utc_now
from gateway.security.attempts import FailedAttempts
from gateway.security.passwords import digest
from gateway.store.tables import Account, ApiToken, AuditEntry
from gateway.web.access import address_of
from gateway.web.api.problems import ApiProblem
from gateway.web.site import Site

logger = logging.getLogger(__name__)

PREFIX = "/api/v1"
_FAILURES_OF_AN_ADDRESS = 20
_WINDOW_S = 900.0
_bearer = HTTPBearer(auto_error=False, description="A token of `ecg-gateway token add`, or of the page of an account.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The program behind a request.

    Parameters
    ----------
    token
        The number of its token.
    name
        What the token is for.
    """

    user: User
    token: int
    name: str
    scopes: frozenset[ApiScope]

    @property
    def actor(self) -> str:
        """Who it is in the trail of a job."""
        return f"api:{self.user.name}/{self.name}"

    @property
    def sees_patients(self) -> bool:
        """Whether it may be told whose an ECG is."""
        return ApiScope.RESULTS_READ in self.scopes


def current_caller(request: Request) -> Caller:
    """Return who asks."""
    caller: Caller = request.state.caller
    return caller


CurrentCaller = Annotated[Caller, Depends(current_caller)]


class TokenAccess:
    """Lets a request through by its token, or ends it."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._attempts = FailedAttempts(_FAILURES_OF_AN_ADDRESS, _WINDOW_S)

    def needs(self, scope: ApiScope) -> Any:
        """Return the dependency of a route that needs a scope."""
        return Depends(self._check(scope))

    def _check(self, scope: ApiScope) -> Callable[..., None]:
        def check(
            request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)] = None
        ) -> None:
            caller = self._caller(request, given)
            state, job_id = request.state, request.path_params.get("job_id", "")
            state.caller, state.user, state.route = caller, caller.user, PREFIX + request.scope["route"].path
            changes = request.method not in ("GET", "HEAD")
            if scope not in caller.scopes:
                state.job_id = job_id
                raise ApiProblem(
                    403,
                    f"The token {caller.name} of {caller.user.name} lacks the scope {scope}.",
                    WWW_Authenticate=f'Bearer error="insufficient_scope", scope="{scope}"',
                )
            state.job_id = job_id if changes or caller.sees_patients else ""  # what is not shown was not seen

        return check

    def _caller(self, request: Request, given: HTTPAuthorizationCredentials | None) -> Caller:
        """Return whose token it is; raise ApiProblem where it is nobody's, or not valid any more."""
        address = address_of(request)
        if self._attempts.too_many(address):
            raise ApiProblem(
                429, "Too many wrong tokens from your address. Wait a quarter of an hour.", Retry_After="900"
            )
        if given is None:
            raise ApiProblem(401, "Send a token: `Authorization: Bearer TOKEN`.", WWW_Authenticate="Bearer")
        found = self._site.store.tokens.find(digest(given.credentials))
        if found is None:
            raise self._refused("an unknown token", address, "The token is not known.")
        token, account = found
        if reason := _ended(token, account, utc_now()):
            raise self._refused(token.owner, address, f"The token {token.name} {reason}.")
        self._site.store.tokens.saw(token)
        return _caller_of(token, account, address)

    def _refused(self, who: str, address: str, words: str) -> ApiProblem:
        self._attempts.add(address)
        entry = AuditEntry(kind=AuditKind.LOG_IN, name=who, address=address, detail=words, failed=True)
        self._site.store.trail.record(entry)
        logger.warning("Token of %s from %s refused: %s", who, address, words, extra={"action": "token_refused"})
        return ApiProblem(401, words, WWW_Authenticate='Bearer error="invalid_token"')


def scopes_of(token: ApiToken, account: Account | None) -> frozenset[ApiScope]:
    """Return what a token lets do now: its scopes, as far as the role of its owner's account goes."""
    scopes = map(ApiScope, token.scopes.split())
    return frozenset(each for each in scopes if account is None or account.role.covers(each.role))


def _ended(token: ApiToken, account: Account | None, now: datetime) -> str:
    """Return why a token is not valid any more, in words; "" where it is."""
    if token.revoked_at is not None:
        return f"was revoked on {token.revoked_at:%Y-%m-%d}"
    if token.expires_at <= now:
        return f"has expired on {token.expires_at:%Y-%m-%d}"
    if account is not None and account.disabled:
        return f"is of the account {account.name}, which is disabled"
    return ""


def _caller_of(token: ApiToken, account: Account | None, address: str) -> Caller:
    scopes = scopes_of(token, account)
    owner = account.full_name if account is not None else ""
    user = User(
        name=token.owner,
        full_name=f"{owner or token.owner}, token {token.name}",
        role=account.role if account is not None else AccountRole.REVIEWER,
        origin=Origin.TOKEN,
        address=address,
        sees_patients=ApiScope.RESULTS_READ in scopes,
    )
    return Caller(user=user, token=token.id or 0, name=token.name, scopes=scopes)
