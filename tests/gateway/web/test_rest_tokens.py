"""The page of tokens: shown once, lets do no more than the owner may, is ended by him or an administrator."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

import httpx
import pytest

from gateway.domain.account import AccountRole
from gateway.domain.audit import AuditKind
from gateway.security.passwords import digest
from gateway.settings import Settings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from tests.gateway.web.browsing import Browser, add_account, browser, site

FORM = {"name": "lab system", "days": "30", "scope_jobs:read": "on"}


@pytest.fixture
def client(store: Store, spool: Spool) -> Iterator[Browser]:
    store.trail.begin()
    for name, role in (("vera", AccountRole.VIEWER), ("rita", AccountRole.REVIEWER), ("ada", AccountRole.ADMIN)):
        add_account(store, name, role)
    with site(store, spool, Settings()) as url, browser(url) as client:
        yield client


def make(client: Browser, **form: str) -> httpx.Response:
    return client.post("/account/tokens", data=FORM | form)


def test_a_token_is_shown_once_and_works(client: Browser, store: Store) -> None:
    client.log_in("rita")
    shown = make(client, **{"scope_review:write": "on"})
    found = re.search(r'value="(ecgw_[\w-]+)"', shown.text)
    assert shown.status_code == 200 and found is not None
    (kept,) = store.tokens.all()
    assert (kept.digest, kept.owner, kept.scopes) == (digest(found[1]), "rita", "jobs:read review:write")
    page = client.get("/account/tokens").text
    assert "lab system" in page and "jobs:read review:write" in page and found[1] not in page
    bearer = {"Authorization": f"Bearer {found[1]}"}
    assert client.get("/api/v1/jobs", headers=bearer).status_code == 200
    client.post(f"/account/tokens/{kept.id}/revoke")
    assert client.get("/api/v1/jobs", headers=bearer).status_code == 401
    told = [entry.detail for entry in store.trail.entries(100) if entry.kind == AuditKind.ACCOUNT]
    assert told == [
        "token lab system of rita was made: jobs:read review:write",
        "token lab system of rita was revoked",
    ]


def test_what_cannot_be_a_token(client: Browser, store: Store) -> None:
    client.log_in("vera")
    for form, words in (
        ({"days": "0"}, "A token is valid for 1 to 3650 days"),
        ({"days": "soon"}, "A token is valid for 1 to 3650 days, got soon"),
        ({"scope_jobs:read": ""}, "A token needs a scope"),
        ({"scope_review:write": "on"}, "A viewer cannot give the scope review:write"),
        ({"name": "<b>"}, "A token's name has 1 to 64 letters"),
    ):
        refused = make(client, **form)
        assert refused.status_code == 422 and words in html.unescape(refused.text)
    assert not store.tokens.all()


def test_only_an_administrator_sees_and_ends_the_tokens_of_others(client: Browser, store: Store) -> None:
    client.log_in("vera")
    make(client)
    (kept,) = store.tokens.all()
    client.log_in("rita")
    assert "lab system" not in client.get("/account/tokens").text
    assert client.post(f"/account/tokens/{kept.id}/revoke").status_code == 404
    client.log_in("ada")
    assert "lab system" in client.get("/account/tokens").text
    assert client.post(f"/account/tokens/{kept.id}/revoke").status_code == 200
    assert store.tokens.all()[0].revoked_at is not None
