"""Who may use the web pages and the REST interface: roles, scopes, and the person behind a request."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
_PARTS = "cli commitment folder gateway hl7 lookup outbox pull recover retention scp web".split()


class AccountRole(StrEnum):
    """What an account may do; each role may do what the ones before it may."""

    VIEWER = "viewer"  # see the queue; patients only where `[web] show_patient` says so
    REVIEWER = "reviewer"  # see patients, correct and decide
    ADMIN = "admin"  # pause destinations, decide about many jobs at once

    def covers(self, other: AccountRole) -> bool:
        """Return whether this role may do what the other may."""
        roles = list(AccountRole)
        return roles.index(self) >= roles.index(other)


class Origin(StrEnum):
    """Who says that a person is who he says he is."""

    ACCOUNT = "account"  # a password of ours
    OIDC = "oidc"  # an OpenID provider
    PROXY = "proxy"  # a reverse proxy in front of us
    MACHINE = "machine"  # the system: whoever uses this machine, while there are no accounts
    TOKEN = "token"  # a program with a token


class ApiScope(StrEnum):
    """What a program may do with a token."""

    JOBS_READ = "jobs:read"  # see jobs, deliveries and the trail, without patients
    PAGES_SUBMIT = "pages:submit"  # hand in pages
    RESULTS_READ = "results:read"  # read results, and whose they are
    REVIEW_WRITE = "review:write"  # correct and decide

    @property
    def role(self) -> AccountRole:
        """What the account of its owner must be."""
        return AccountRole.VIEWER if self is ApiScope.JOBS_READ else AccountRole.REVIEWER


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """The person behind a request.

    Parameters
    ----------
    name
        In the audit trail.
    address
        Where the request came from.
    sees_patients
        Whether patient data may be shown.
    """

    name: str
    role: AccountRole
    origin: Origin
    full_name: str = ""
    address: str = ""
    sees_patients: bool = False

    @property
    def shown(self) -> str:
        """How a page names the person."""
        return self.full_name or self.name

    @property
    def decides(self) -> bool:
        """Whether the person may decide about a job."""
        return self.role.covers(AccountRole.REVIEWER)

    @property
    def administers(self) -> bool:
        """Whether the person may pause destinations and decide about many jobs at once."""
        return self.role.covers(AccountRole.ADMIN) or self.origin == Origin.MACHINE

    @property
    def opens_pages(self) -> bool:
        """Whether the person may open what was received, and its pictures: a name may be printed there."""
        return self.sees_patients or self.decides


def account_name(text: str) -> str:
    """Return the name of an account as it is kept: in lower case.

    Raises
    ------
    ValueError
        It is no name of an account; the message has the rule.
    """
    name = text.strip().lower()
    if _NAME.fullmatch(name) is None:
        raise ValueError("a name has 1 to 64 letters a-z, digits and . _ @ -, and begins with a letter or digit")
    if name in _PARTS or name.startswith("worker"):
        raise ValueError(f"{name} is the name of a part of the gateway in the audit trail")
    return name


def outside_name(text: str) -> str:
    """Return the name of a person who has logged in elsewhere, in lower case.

    Raises
    ------
    ValueError
        Such a name cannot be in the trail; the message has the rule.
    """
    name = text.strip().lower()
    if not 1 <= len(name) <= 64 or not name.isprintable() or ":" in name or name.endswith("@localhost"):
        raise ValueError("a name has 1 to 64 characters that can be printed, no colon, and no @localhost at its end")
    if name in _PARTS or name.startswith("worker"):
        raise ValueError(f"{name} is the name of a part of the gateway in the audit trail")
    return name
