"""Log-in at an OpenID provider: who gets in, with which role, and which tokens count for nothing."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from joserfc.jwk import RSAKey

from gateway.domain.account import AccountRole
from gateway.domain.audit import AuditKind
from gateway.domain.status import JobStatus
from gateway.errors import SettingsError
from gateway.intake.accept import Intake
from gateway.operations.check import closed_web
from gateway.settings import OidcSettings, Settings, WebSettings, load_settings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from tests.fake_digitizer import page_png
from tests.gateway.web.browsing import Browser, add_account, browser, served, site
from tests.gateway.web.openid_provider import CLIENT, SECRET, OpenIdProvider
from tests.gateway.web.test_web_decisions import submit
from tests.gateway.web.test_web_log_in import age_sessions, send_again


@pytest.fixture(scope="module")
def key() -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": "1", "use": "sig"}, auto_kid=False)


@pytest.fixture
def provider(key: RSAKey) -> Iterator[OpenIdProvider]:
    provider = OpenIdProvider(key=key)
    provider.claims = {"preferred_username": "Ann", "name": "Dr Ann Lee", "groups": ["staff", "ecg"]}
    with served(provider.app()) as url:
        provider.issuer = url
        yield provider


@pytest.fixture
def web(provider: OpenIdProvider, tmp_path: Path) -> WebSettings:
    (tmp_path / "secret").write_text(SECRET + "\n")
    oidc = OidcSettings(issuer=provider.issuer, client_id=CLIENT, client_secret_file=tmp_path / "secret")
    return WebSettings(oidc=oidc, roles={"ecg": "reviewer", "staff": "viewer"})


@pytest.fixture
def client(store: Store, spool: Spool, web: WebSettings) -> Iterator[Browser]:
    with site(store, spool, Settings(web=web)) as url, browser(url) as client:
        yield client


@pytest.fixture
def job(intake: Intake) -> str:
    return submit(intake, page_png(), patient_name="Secret^Ada", accession_number="A1")


def test_person_of_the_provider(client, store, job):
    store.trail.begin()
    asked = client.get(f"/jobs/{job}")
    assert asked.status_code == 401 and "Use the hospital&#39;s log-in" in asked.text
    (link,) = re.findall(r'href="(/oidc/start[^"]*)"', asked.text)
    page = client.get(link)
    assert page.url.path == f"/jobs/{job}" and "Secret Ada" in page.text and "Dr Ann Lee" in page.text
    client.post(f"/jobs/{job}/identity", data={"patient_id": "P1"})
    assert ("IDENTIFY", "ann") in [(event.action, event.actor) for event in store.jobs.events(job)]
    assert (AuditKind.LOG_IN, "ann", False) in [(e.kind, e.name, e.failed) for e in store.trail.entries(10)]
    client.post("/logout")
    assert client.get("/").status_code == 401


def test_form_is_kept_on_the_way(client, store, job):
    client.get("/oidc/start")
    age_sessions(store, seen_at=timedelta(hours=1))
    asked = client.post(f"/jobs/{job}/identity", data={"patient_id": "P7"})
    form = asked.text.rpartition("<form")[2]
    hidden = dict(re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', form))
    there = client.post("/oidc/start", data={name: html.unescape(value) for name, value in hidden.items()})
    (link,) = re.findall(rf'href="({re.escape("http")}[^"]*/auth[^"]*)"', there.text)
    shown = client.get(html.unescape(link))
    assert shown.status_code == 409 and "Send it as Dr Ann Lee" in shown.text
    assert store.jobs.get(job).status == JobStatus.NEEDS_REVIEW
    send_again(client, shown.text)
    assert store.jobs.get(job).context.patient_id == "P7"


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"aud": "another"}, "is not valid: InvalidClaimError"),
        ({"iss": "https://evil.example"}, "is not valid: InvalidClaimError"),
        ({"nonce": "another"}, "is not valid: InvalidClaimError"),
        ({"exp": int(time.time()) - 3600}, "is not valid: ExpiredTokenError"),
        ({"azp": "another", "aud": [CLIENT, "another"]}, "is not valid: InvalidClaimError"),
        ({"preferred_username": ""}, "has no preferred_username"),
        ({"preferred_username": "scp"}, "the name of a part of the gateway"),
        ({"groups": ["others"]}, "you have no role here"),
        ({"groups": None}, "you have no role here"),
        ({"preferred_username": "bob"}, "account bob is disabled"),
    ],
)
def test_token_that_counts_for_nothing(client, store, provider, claims, words):
    add_account(store, "bob", AccountRole.ADMIN, disabled=True)
    provider.claims |= claims
    answer = client.get("/oidc/start")
    assert answer.status_code == 401 and words.lower() in answer.text.lower()
    assert client.get("/").status_code == 401


def test_token_of_another_key(client, provider):
    provider.signer = RSAKey.generate_key(2048, {"kid": "1"}, auto_kid=False)
    assert "BadSignatureError" in client.get("/oidc/start").text


def test_provider_that_refuses_or_is_another(client, provider):
    provider.refuses = "access_denied"
    assert "has not let you in: access_denied" in client.get("/oidc/start").text
    provider.states = {"issuer": "https://evil.example"}
    assert "calls itself https://evil.example" in client.get("/oidc/start").text
    provider.states = {"token_endpoint": None}
    assert "states no token_endpoint" in client.get("/oidc/start").text


def test_wrong_secret(client, web):
    web.oidc.client_secret_file.write_text("wrong")
    assert "answers 400 invalid_grant" in client.get("/oidc/start").text
    web.oidc.client_secret_file.unlink()
    assert "cannot be asked" in client.get("/oidc/start").text


def test_log_in_that_began_in_another_browser_ends_nowhere(client):
    """A link with somebody else's code must not log a person in as somebody else."""
    begun = client.get("/oidc/start", follow_redirects=False)
    there = client.get(begun.headers["location"], follow_redirects=False)
    with browser(str(client.base_url)) as victim:
        assert "did not begin here" in victim.get(there.headers["location"]).text
    assert "did not begin here" in client.get(there.headers["location"]).text  # and it ends once


def test_account_that_is_disabled_later(client, store):
    client.get("/oidc/start")
    assert client.get("/").status_code == 200
    add_account(store, "ann", AccountRole.VIEWER, disabled=True)
    assert client.get("/").status_code == 401


def test_provider_opens_pages_beyond_this_machine(web):
    assert not closed_web(web.model_copy(update={"host": "0.0.0.0"}), exist=False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('issuer = "http://login.hospital"', "by https only"),
        ('issuer = "login.hospital"', "must be an http"),
        ('issuer = "https://login.hospital"\nscopes = ["profile"]', "must contain openid"),
    ],
)
def test_settings_that_cannot_be(tmp_path, text, words):
    file = tmp_path / "gateway.toml"
    file.write_text(f'[web.oidc]\nclient_id = "x"\nclient_secret_file = "/x"\n{text}\n')
    with pytest.raises(SettingsError, match=words):
        load_settings(file)
