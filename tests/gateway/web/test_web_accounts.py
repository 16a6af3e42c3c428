"""The accounts page: who may use it, what it does, and the one-time link."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from gateway.domain.account import AccountRole
from gateway.domain.audit import AuditKind
from gateway.settings import Settings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from tests.gateway.web.browsing import PASSWORD, Browser, add_account, browser, site

OWN = "an owl, a ladder, a lamp"


@pytest.fixture
def url(store: Store, spool: Spool) -> Iterator[str]:
    store.trail.begin()
    add_account(store, "ada", AccountRole.ADMIN)
    add_account(store, "rita", AccountRole.REVIEWER)
    with site(store, spool, Settings()) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[Browser]:
    with browser(url) as client:
        client.log_in("ada")
        yield client


def link_of(html: str) -> str:
    return str(re.search(r'<code id="link">http://[^/]*(/invited/[\w-]+)<', html)[1])


def test_account_is_added_with_a_link_that_works_once(client, url, store):
    added = client.post("/accounts", data={"name": " Nia", "full_name": "Nia <b>Ng</b>", "role": "reviewer"})
    assert added.status_code == 200 and "Nia &lt;b&gt;Ng&lt;/b&gt;" in added.text
    link = link_of(added.text)
    assert link not in client.get("/accounts").text
    with browser(url) as nia:
        assert nia.log_in("nia", "").status_code == 401
        assert "<strong>nia</strong>" in nia.get(link).text
        short = nia.post(link, data={"new_password": "short", "again": "short"})
        assert short.status_code == 422 and "12 to 256 characters" in short.text
        nia.post(link, data={"new_password": OWN, "again": OWN})
        assert nia.get(link).status_code == 404
        assert nia.post(link, data={"new_password": PASSWORD, "again": PASSWORD}).status_code == 404
        assert "Nia &lt;b&gt;Ng" in nia.log_in("nia", OWN).text
    account = store.accounts.get("nia")
    assert (account.role, account.must_change) == (AccountRole.REVIEWER, False)
    told = [each.detail for each in store.trail.entries(100) if each.kind == AuditKind.ACCOUNT]
    assert told == ["nia was added as reviewer", "nia set a password by a link"]


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"name": "rita", "role": "viewer"}, "There is an account rita already."),
        ({"name": "two words", "role": "viewer"}, "A name has 1 to 64 letters"),
    ],
)
def test_account_that_cannot_be_added_is_refused_and_what_was_typed_stays(client, form, words):
    refused = client.post("/accounts", data=form | {"full_name": "Rita Ray"})
    assert refused.status_code == 422 and words in refused.text
    assert 'value="Rita Ray"' in refused.text and f'value="{form["name"]}"' in refused.text


def test_role_disable_and_a_new_link(client, url, store):
    with browser(url) as rita:
        rita.log_in("rita")
        client.post("/accounts/rita", data={"action": "role", "role": "viewer"})
        assert rita.get("/review").status_code == 403
        link = link_of(client.post("/accounts/rita", data={"action": "link"}).text)
        assert rita.get("/").status_code == 401 and rita.log_in("rita").status_code == 401
        client.post("/accounts/rita", data={"action": "disable"})
        assert rita.get(link).status_code == 404 and store.accounts.get("rita").disabled
        assert client.post("/accounts/rita", data={"action": "link"}).status_code == 422
        client.post("/accounts/rita", data={"action": "enable"})
        assert not store.accounts.get("rita").disabled
    assert client.post("/accounts/nobody", data={"action": "disable"}).status_code == 404


def test_own_account_is_not_shut_by_mistake(client, store):
    refused = client.post("/accounts/ada", data={"action": "disable"})
    assert refused.status_code == 422 and "Your own account" in refused.text
    assert not store.accounts.get("ada").disabled


def test_nobody_else_looks_after_accounts(url, store):
    with browser(url) as rita:
        rita.log_in("rita")
        assert "/accounts" not in rita.get("/").text
        assert rita.get("/accounts").status_code == 403
        assert rita.post("/accounts", data={"name": "eve", "role": "admin"}).status_code == 403
        assert rita.post("/accounts/ada", data={"action": "disable"}).status_code == 403
    assert store.accounts.get("eve") is None
