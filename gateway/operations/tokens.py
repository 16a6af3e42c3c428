"""New tokens for programs: what may be one.  Only its digest is kept, so that it can be shown once."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import timedelta

from gateway.domain.account import ApiScope, outside_name
from gateway.domain.clock import utc_now
from gateway.errors import AccountError
from gateway.security.passwords import digest, new_secret
from gateway.store.tables import ApiToken

LONGEST_DAYS = 3650
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,63}")


def new_token(name: str, owner: str, scopes: Collection[ApiScope], days: int, actor: str) -> tuple[str, ApiToken]:
    """Return a token, and what is kept of it.

    Parameters
    ----------
    name
        What it is for.
    owner
        Who answers for it.
    actor
        Who makes it.

    Raises
    ------
    AccountError
        It cannot be one; the message has the rule.
    """
    name = name.strip()
    if _NAME.fullmatch(name) is None:
        raise AccountError("a token's name has 1 to 64 letters a-z, digits, spaces and . _ -, and begins with no sign")
    if not scopes:
        raise AccountError(f"a token needs a scope: {', '.join(ApiScope)}")
    if not 1 <= days <= LONGEST_DAYS:
        raise AccountError(f"a token is valid for 1 to {LONGEST_DAYS} days, got {days}")
    secret, now = f"ecgw_{new_secret()}", utc_now()
    kept = ApiToken(
        digest=digest(secret),
        name=name,
        owner=owner,
        scopes=" ".join(scope for scope in ApiScope if scope in scopes),
        created_by=actor,
        created_at=now,
        expires_at=now + timedelta(days=days),
    )
    return secret, kept


def owner_name(text: str) -> str:
    """Return the name of a token's owner; raise AccountError where nobody can have it."""
    try:
        return outside_name(text)
    except ValueError as error:
        raise AccountError(str(error)) from None
