"""Accounts, their lock after wrong passwords, the sessions of those who have logged in, and the tokens of programs.

A session is found by the digest of the id in a browser's cookie; the id itself is nowhere.  Its role is that of its
account as it is now, so what an administrator changes holds from the next request on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import URL, inspect
from sqlmodel import col, delete, or_, select

from gateway.domain.account import AccountRole, Origin
from gateway.domain.clock import utc_now
from gateway.errors import AccountError, NotFound
from gateway.store.database import Database, as_storage_error, open_backend
from gateway.store.tables import Account, ApiToken, SubmissionKey, WebSession

MOST_FAILURES = 5
LOCKED_FOR = timedelta(minutes=15)
_usable = select(Account.name).where(~col(Account.disabled)).limit(1)
_SEEN_AGAIN = timedelta(minutes=1)  # a write for every request would be too many
_KEYS_KEPT = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLimits:
    """After how long without a sign of the person, and how long after the log-in, a session ends."""

    idle: timedelta
    longest: timedelta


class Accounts:
    """The accounts of one database, and who has logged in."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def exist(self) -> bool:
        """Return whether anybody can log in with a password."""
        with self._database.read() as session:
            return session.exec(_usable).first() is not None

    def all(self) -> Sequence[Account]:
        """Return every account, by name."""
        with self._database.read() as session:
            return session.exec(select(Account).order_by(Account.name)).all()

    def get(self, name: str) -> Account | None:
        """Return the account of a name; None where there is none."""
        with self._database.read() as session:
            return session.get(Account, name)

    def add(self, account: Account) -> None:
        """Add an account; raise AccountError where its name is taken."""
        with self._database.write(f"account {account.name}") as session:
            if session.get(Account, account.name) is not None:
                raise AccountError(f"there is an account {account.name} already")
            session.add(account)

    def add_first(self, account: Account) -> None:
        """Add the first account that can log in; raise AccountError where there is one."""
        with self._database.write("first account") as session:
            if session.exec(_usable).first() is not None:
                raise AccountError("there is an account already")
            if session.get(Account, account.name) is not None:
                raise AccountError(f"there is an account {account.name}, which is disabled")
            session.add(account)

    def set_password(self, name: str, password_hash: str, *, must_change: bool, keep: str = "") -> None:
        """Give an account another password and end its lock and its sessions, but the one with the digest `keep`."""
        with self._database.write() as session:
            account = _locked(session.get(Account, name, with_for_update=True), name)
            account.password_hash = password_hash
            account.must_change = must_change
            account.failures, account.locked_until = 0, None
            session.exec(delete(WebSession).where(col(WebSession.name) == name, col(WebSession.digest) != keep))

    def rehash(self, name: str, before: str, after: str) -> None:
        """Keep another hash of the same password, unless the password was changed meanwhile."""
        with self._database.write() as session:
            account = _locked(session.get(Account, name, with_for_update=True), name)
            if account.password_hash == before:
                account.password_hash = after

    def set_disabled(self, name: str, *, disabled: bool) -> None:
        """Let an account log in no more, or again; its sessions end."""
        with self._database.write() as session:
            account = _locked(session.get(Account, name, with_for_update=True), name)
            account.disabled = disabled
            account.failures, account.locked_until = 0, None
            session.exec(delete(WebSession).where(col(WebSession.name) == name))

    def set_role(self, name: str, role: AccountRole) -> None:
        """Give an account another role."""
        with self._database.write() as session:
            _locked(session.get(Account, name, with_for_update=True), name).role = role

    # -- log-in ---------------------------------------------------------------------------------------------------

    def begin_attempt(self, name: str) -> bool:
        """Count an attempt to log in as failed, before its password is looked at; return False where it is locked.

        So attempts at the same time get no more tries than attempts one after the other.
        """
        with self._database.write() as session:
            account = session.get(Account, name, with_for_update=True)
            if account is None:
                return True
            now = utc_now()
            if account.locked_until is not None and now < account.locked_until:
                return False
            account.failures = 1 if account.locked_until is not None else account.failures + 1
            account.locked_until = now + LOCKED_FOR if account.failures >= MOST_FAILURES else None
            return True

    def succeed(self, name: str) -> None:
        """Forget the attempts before a right password."""
        with self._database.write() as session:
            account = _locked(session.get(Account, name, with_for_update=True), name)
            account.failures, account.locked_until = 0, None

    # -- sessions -------------------------------------------------------------------------------------------------

    def open_session(self, session_: WebSession, limits: SessionLimits) -> None:
        """Keep a session; those that have ended are forgotten."""
        with self._database.write() as session:
            now = utc_now()
            ended = or_(col(WebSession.seen_at) < now - limits.idle, col(WebSession.opened_at) < now - limits.longest)
            session.exec(delete(WebSession).where(ended))
            session.add(session_)

    def session(self, digest: str, limits: SessionLimits) -> tuple[WebSession, Account | None] | None:
        """Return a session that has not ended, with its account; None for any other."""
        now = utc_now()
        with self._database.read() as session:
            found = session.get(WebSession, digest)
            if found is None or not _lasts(found, now, limits):
                return None
            account = session.get(Account, found.name)
            if account is not None and account.disabled:
                return None
            if found.origin != Origin.ACCOUNT:
                return found, None
            return None if account is None else (found, account)

    def saw(self, session_: WebSession) -> None:
        """Record that the person of a session did something now."""
        now = utc_now()
        if now - session_.seen_at < _SEEN_AGAIN:
            return
        with self._database.write() as session:
            row = session.get(WebSession, session_.digest, with_for_update=True)
            if row is not None:
                row.seen_at = now

    def end_session(self, digest: str) -> None:
        """Forget a session."""
        with self._database.write() as session:
            session.exec(delete(WebSession).where(col(WebSession.digest) == digest))


class ApiTokens:
    """The tokens of one database, and the idempotency keys of what was submitted with them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, token: ApiToken) -> ApiToken:
        """Keep a token; return it with its number.

        Raises
        ------
        AccountError
            Its owner has one of this name that is still valid.
        """
        with self._database.write(f"tokens of {token.owner}") as session:
            same = (ApiToken.owner == token.owner, ApiToken.name == token.name, col(ApiToken.revoked_at).is_(None))
            if session.exec(select(ApiToken.id).where(*same, col(ApiToken.expires_at) > utc_now())).first() is not None:
                raise AccountError(f"{token.owner} has a token {token.name} already")
            session.add(token)
        return token

    def all(self, owner: str | None = None) -> Sequence[ApiToken]:
        """Return the tokens of `owner`, or of everybody, the newest first."""
        mine = [] if owner is None else [ApiToken.owner == owner]
        with self._database.read() as session:
            return session.exec(select(ApiToken).where(*mine).order_by(col(ApiToken.id).desc())).all()

    def find(self, digest: str) -> tuple[ApiToken, Account | None] | None:
        """Return a token by its digest, valid or not, with the account of its owner, where he has one."""
        with self._database.read() as session:
            token = session.exec(select(ApiToken).where(ApiToken.digest == digest)).one_or_none()
            return None if token is None else (token, session.get(Account, token.owner))

    def saw(self, token: ApiToken) -> None:
        """Record that a token is used now."""
        now = utc_now()
        if token.used_at is not None and now - token.used_at < _SEEN_AGAIN:
            return
        with self._database.write() as session:
            session.get_one(ApiToken, token.id, with_for_update=True).used_at = now

    def revoke(self, number: int, owner: str | None = None) -> ApiToken:
        """End a token of `owner`, or of anybody; raise NotFound where there is none that is valid."""
        with self._database.write() as session:
            token = session.get(ApiToken, number, with_for_update=True)
            if token is None or token.revoked_at is not None or owner not in (None, token.owner):
                raise NotFound(f"no valid token {number}")
            token.revoked_at = utc_now()
            return token

    def take_key(self, token: int, key: str, digest: str) -> bool:
        """Have an idempotency key stand for what has this digest; return False where it stands for something else."""
        with self._database.write(f"key {token} {key}") as session:
            session.exec(delete(SubmissionKey).where(col(SubmissionKey.created_at) < utc_now() - _KEYS_KEPT))
            known = session.get(SubmissionKey, (token, key))
            if known is None:
                session.add(SubmissionKey(token=token, key=key, digest=digest))
            return known is None or known.digest == digest


def accounts_exist(url: URL) -> bool:
    """Return whether anybody can log in with a password; a database that is missing or older is not touched.

    Raises
    ------
    StorageError
        The database cannot be read.
    """
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        return False
    backend = open_backend(url)
    try:
        with as_storage_error(), backend.reader.connect() as connection:
            if not inspect(connection).has_table("account"):
                return False
            return connection.execute(_usable).first() is not None
    finally:
        backend.reader.dispose()


def _lasts(session: WebSession, now: datetime, limits: SessionLimits) -> bool:
    return now - session.seen_at < limits.idle and now - session.opened_at < limits.longest


def _locked(account: Account | None, name: str) -> Account:
    if account is None:
        raise NotFound(f"no account {name}")
    return account
