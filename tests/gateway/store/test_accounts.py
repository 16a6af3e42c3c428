"""Accounts, sessions and what waits for the audit repository, on every database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from gateway.domain.account import AccountRole, Origin
from gateway.domain.audit import AuditKind
from gateway.domain.clock import utc_now
from gateway.errors import AccountError, NotFound
from gateway.store.accounts import MOST_FAILURES, SessionLimits, accounts_exist
from gateway.store.database import log_event
from gateway.store.store import Store
from gateway.store.tables import Account, ApiToken, AuditEntry, Job, SubmissionKey, WebSession

LIMITS = SessionLimits(idle=timedelta(minutes=30), longest=timedelta(hours=12))
REVIEWER = AccountRole.REVIEWER


def account(name: str, **more: object) -> Account:
    return Account(name=name, role=REVIEWER, password_hash="h", **more)


def test_accounts_exist_once_one_can_log_in(store: Store) -> None:
    assert not store.accounts.exist() and not accounts_exist(store.database.url)
    store.accounts.add(account("ann", disabled=True))
    assert not store.accounts.exist()
    store.accounts.set_disabled("ann", disabled=False)
    assert store.accounts.exist() and accounts_exist(store.database.url)


def test_name_is_taken(store: Store) -> None:
    store.accounts.add(account("ann"))
    with pytest.raises(AccountError, match="there is an account ann already"):
        store.accounts.add(account("ann"))
    with pytest.raises(AccountError, match="there is an account already"):
        store.accounts.add_first(account("bob"))
    with pytest.raises(NotFound):
        store.accounts.set_role("bob", AccountRole.ADMIN)


def test_only_one_first_account(store: Store) -> None:
    def add(number: int) -> bool:
        try:
            store.accounts.add_first(account(f"ann{number}"))
        except AccountError:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(add, range(4))) == 1


def test_attempts_at_the_same_time_get_no_more_tries(store: Store) -> None:
    store.accounts.add(account("ann"))
    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(lambda _: store.accounts.begin_attempt("ann"), range(12))) == MOST_FAILURES
    assert store.accounts.begin_attempt("nobody")


def test_sessions(store: Store) -> None:
    store.accounts.add(account("ann"))
    for digest, name, origin in (("a", "ann", Origin.ACCOUNT), ("b", "ann", Origin.ACCOUNT), ("c", "eve", Origin.OIDC)):
        store.accounts.open_session(WebSession(digest=digest, name=name, role=REVIEWER, origin=origin), LIMITS)
    assert store.accounts.session("x", LIMITS) is None
    found, owner = store.accounts.session("c", LIMITS)
    assert (found.name, owner) == ("eve", None)
    store.accounts.set_password("ann", "new", must_change=False, keep="a")
    assert store.accounts.session("a", LIMITS) is not None and store.accounts.session("b", LIMITS) is None
    store.accounts.end_session("c")
    assert store.accounts.session("c", LIMITS) is None
    none = SessionLimits(idle=timedelta(0), longest=timedelta(hours=12))
    assert store.accounts.session("a", none) is None


def test_trail_is_told_from_its_beginning_on(store: Store) -> None:
    store.jobs.submit(Job(source="s", source_key="1", media_type="image/png"), "scp")
    store.trail.record(AuditEntry(kind=AuditKind.LOG_IN))
    assert store.trail.waiting() == 0  # nobody is told
    store.trail.begin()
    store.trail.record(AuditEntry(kind=AuditKind.LOG_IN))
    store.jobs.submit(Job(source="s", source_key="2", media_type="image/png"), "scp")
    assert store.trail.waiting() == 2
    store.trail._settled = timedelta(0)  # else a line of PostgreSQL is two minutes old first
    entries, events = store.trail.entries(10), store.trail.events(10)
    assert ([entry.kind for entry in entries], [line.action for line in events]) == ([AuditKind.LOG_IN], ["RECEIVED"])
    store.trail.told(entries, events)
    assert store.trail.waiting() == 0 and store.trail.events(10) == []
    store.trail.end()


def test_young_lines_wait_where_a_transaction_may_commit_late(store: Store) -> None:
    store.trail.begin()
    store.jobs.submit(Job(source="s", source_key="1", media_type="image/png"), "scp")
    store.trail._settled = timedelta(minutes=2)
    assert store.trail.events(10) == [] and store.trail.waiting() == 1


def token(digest: str, name: str = "lab", **more: object) -> ApiToken:
    made = {"owner": "mirth", "scopes": "jobs:read", "created_by": "cli", "expires_at": utc_now() + timedelta(days=1)}
    return ApiToken(digest=digest, name=name, **made | more)


def test_tokens_are_found_used_and_revoked(store: Store) -> None:
    number = store.tokens.add(token("a")).id
    with pytest.raises(AccountError, match="mirth has a token lab already"):
        store.tokens.add(token("b"))
    found, owner = store.tokens.find("a") or pytest.fail("not found")
    assert (found.id, owner, found.used_at) == (number, None, None)
    store.tokens.saw(found)
    first = store.tokens.all()[0].used_at
    store.tokens.saw(store.tokens.all()[0])
    assert first is not None and store.tokens.all()[0].used_at == first  # once a minute
    with pytest.raises(NotFound):
        store.tokens.revoke(number, "rita")
    assert store.tokens.revoke(number, "mirth").revoked_at is not None
    with pytest.raises(NotFound):
        store.tokens.revoke(number)
    store.tokens.add(token("b"))
    assert store.tokens.find("c") is None and len(store.tokens.all("mirth")) == 2 and not store.tokens.all("rita")


def test_a_key_stands_for_one_thing_until_it_is_forgotten(store: Store) -> None:
    number, other = store.tokens.add(token("a")).id, store.tokens.add(token("b", "other")).id
    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(lambda digest: store.tokens.take_key(number, "k", digest), "1234"))
    assert sum(taken) == 1
    assert store.tokens.take_key(number, "k", "1234"[taken.index(True)])
    assert store.tokens.take_key(other, "k", "5")
    with store.database.write() as session:
        session.get_one(SubmissionKey, (number, "k")).created_at = utc_now() - timedelta(days=31)
    assert store.tokens.take_key(number, "k", "6")


def test_the_trail_leaves_out_no_line_that_is_committed_late(store: Store) -> None:
    """On PostgreSQL a transaction that began earlier may commit later, with a smaller number."""
    job, _ = store.jobs.submit(Job(source="submit", source_key="k", media_type="image/png"), "test")
    if store.database.url.get_backend_name() == "sqlite":  # writers take turns
        moment = store.trail.moment()
        assert store.trail.is_whole(moment)
        assert [line.action for line in store.trail.lines(0, moment.newest, 10)] == ["RECEIVED"]
        return
    with store.database.write() as late:
        log_event(late, job.id, "LATE", "test", "")
        late.flush()
        with store.database.write() as early:
            log_event(early, job.id, "EARLY", "test", "")
        moment = store.trail.moment()
        assert not store.trail.is_whole(moment)
    assert store.trail.is_whole(moment)
    assert [line.action for line in store.trail.lines(0, moment.newest, 10)] == ["RECEIVED", "LATE", "EARLY"]
