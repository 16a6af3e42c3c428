"""Log-in, sessions, roles, tokens: who gets in, who does not, and that what was typed survives."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import text

from gateway.domain.account import AccountRole
from gateway.domain.clock import utc_now
from gateway.domain.status import JobStatus
from gateway.intake.accept import Intake
from gateway.security.passwords import digest, new_secret
from gateway.settings import Settings, WebSettings
from gateway.spool.folder import Spool
from gateway.store.accounts import LOCKED_FOR, MOST_FAILURES
from gateway.store.store import Store
from gateway.web.access import COOKIE
from gateway.web.app import create_app
from tests.fake_digitizer import page_png
from tests.gateway.web.browsing import PASSWORD, Browser, add_account, browser, site
from tests.gateway.web.test_web_decisions import submit

NEW = "quite another staple, horse"


@pytest.fixture
def url(store: Store, spool: Spool) -> Iterator[str]:
    add_account(store, "vera", AccountRole.VIEWER)
    add_account(store, "rita", AccountRole.REVIEWER, full_name="Dr Rita Ray")
    with site(store, spool, Settings(web=WebSettings())) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[Browser]:
    with browser(url) as client:
        yield client


@pytest.fixture
def job(intake: Intake) -> str:
    return submit(intake, page_png(), patient_name="Secret^Ada", accession_number="A1")


def age_sessions(store: Store, **columns: timedelta) -> None:
    with store.database.write() as session:
        for column, age in columns.items():
            moment = (utc_now() - age).replace(tzinfo=None)
            session.connection().execute(text(f"UPDATE web_session SET {column} = :at"), {"at": moment})


def send_again(client: Browser, page: str) -> str:
    """Press the button of a page that shows a form to be sent again; return its answer."""
    target = re.findall(r'<form method="post" action="([^"]*)"', page)[-1]
    fields = dict(re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', page.rpartition("<form")[2]))
    return client.post(html.unescape(target), data={name: html.unescape(value) for name, value in fields.items()}).text


def test_every_page_but_probes_and_log_in_needs_a_session(store, spool, job):
    add_account(store, "rita", AccountRole.REVIEWER)
    app = create_app(Intake(spool, store), spool, Settings, list, digest("x"))
    open_paths, checked = {"/login", "/healthz", "/metrics", "/first/{token}", "/invited/{token}"}, []
    with site(store, spool, Settings()) as url, browser(url) as client:
        for path, methods in app.openapi()["paths"].items():
            if path in open_paths:
                continue
            for method in methods:
                answer = client.request(method, path.format(job_id=job, number=1, token="x", name="x", page=1))
                assert answer.status_code == 401, (method, path)
                checked.append(path)
    assert {"/", "/jobs/{job_id}", "/jobs/{job_id}/source", "/unmatched"} <= set(checked)


def test_log_in_leads_to_the_page_that_was_asked_for_and_log_out_ends_it(client, job):
    asked = client.get(f"/jobs/{job}")
    assert asked.status_code == 401 and "Secret" not in asked.text
    assert f'name="target" value="/jobs/{job}"' in asked.text
    answer = client.post("/login", data={"name": " Rita", "password": PASSWORD, "target": f"/jobs/{job}"})
    assert answer.status_code == 200 and answer.url.path == f"/jobs/{job}"
    assert "Dr Rita Ray" in answer.text and "Secret Ada" in answer.text
    secret = client.cookies[COOKIE]
    client.post("/logout")
    client.cookies.set(COOKIE, secret)
    assert client.get("/").status_code == 401


def test_session_has_a_new_id_that_the_database_does_not_hold(client, store):
    client.get("/login")
    before = client.cookies[COOKIE]
    client.log_in("rita")
    after = client.cookies[COOKIE]
    assert before != after
    with store.database.read() as session:
        kept = session.connection().execute(text("SELECT digest FROM web_session")).scalars().all()
    assert kept == [digest(after)]


def test_cookie_is_out_of_reach_of_scripts_and_other_sites(client):
    (header,) = client.get("/login").headers.get_list("set-cookie")
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(header.split("; ")) and "Secure" not in header


@pytest.mark.parametrize(
    "target", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:x", "/login"]
)
def test_log_in_leads_nowhere_else(url, target):
    with browser(url, follow_redirects=False) as client:
        answer = client.post("/login", data={"name": "rita", "password": PASSWORD, "target": target})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_decision_carries_the_name(client, store, job):
    client.log_in("rita")
    client.post(f"/jobs/{job}/identity", data={"patient_id": "P1"})
    assert ("IDENTIFY", "rita") in [(event.action, event.actor) for event in store.jobs.events(job)]


def test_viewer_sees_no_patient_and_decides_nothing(client, store, job):
    client.log_in("vera")
    page = client.get(f"/jobs/{job}")
    assert page.status_code == 200 and "Secret" not in page.text and "Set the patient" not in page.text
    for path in ("source", "pages/1/page.png", "pages/1/overlay.png"):
        assert client.get(f"/jobs/{job}/{path}").status_code == 403
    answer = client.post(f"/jobs/{job}/identity", data={"patient_id": "P1"})
    assert answer.status_code == 403 and "a viewer, may not do this" in answer.text
    assert store.jobs.get(job).status == JobStatus.NEEDS_REVIEW


def test_role_counts_as_it_is_now(client, store, job):
    client.log_in("rita")
    store.accounts.set_role("rita", AccountRole.VIEWER)
    assert "Secret" not in client.get(f"/jobs/{job}").text
    store.accounts.set_disabled("rita", disabled=True)
    assert client.get("/").status_code == 401
    assert "wrong" in client.log_in("rita").text


@pytest.mark.parametrize(("column", "age"), [("seen_at", timedelta(minutes=31)), ("opened_at", timedelta(hours=13))])
def test_session_ends(client, store, column, age):
    client.log_in("rita")
    assert client.get("/").status_code == 200
    age_sessions(store, **{column: age})
    assert client.get("/").status_code == 401


def test_page_that_renews_itself_does_not_keep_a_session(client, store):
    client.log_in("rita")
    age_sessions(store, seen_at=timedelta(minutes=20))
    assert client.get("/", headers={"HX-Request": "true"}).status_code == 200
    age_sessions(store, seen_at=timedelta(minutes=29))
    assert client.get("/").status_code == 200
    with store.database.read() as session:
        (seen,) = session.connection().execute(text("SELECT seen_at FROM web_session")).scalars()
    assert str(seen) > str((utc_now() - timedelta(minutes=1)).replace(tzinfo=None))


def test_script_is_told_and_its_page_stays(client, job):
    for headers in ({"HX-Request": "true"}, {"Sec-Fetch-Mode": "cors"}):
        answer = client.get(f"/jobs/{job}", headers=headers)
        assert answer.status_code == 401 and "<form" not in answer.text.replace("<form id", "")


def test_expired_session_keeps_what_was_typed(client, store, job):
    client.log_in("rita")
    age_sessions(store, seen_at=timedelta(hours=1))
    told = {"patient_id": "P<1>", "patient_name": 'Müster^"Zoë"'}
    asked = client.post(f"/jobs/{job}/identity", data=told)
    assert asked.status_code == 401 and "what you typed is kept" in asked.text
    hidden = dict(re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', asked.text))
    fields = {name: html.unescape(value) for name, value in hidden.items()} | {"name": "rita", "password": PASSWORD}
    shown = client.post("/login", data=fields)
    assert shown.status_code == 409 and "Send it as Dr Rita Ray" in shown.text
    assert "P&lt;1&gt;" in shown.text and "Müster^&#34;Zoë&#34;" in shown.text
    assert store.jobs.get(job).status == JobStatus.NEEDS_REVIEW  # nothing is sent unseen
    send_again(client, shown.text)
    assert store.jobs.get(job).context.patient_name == 'Müster^"Zoë"'


def test_form_of_another_persons_page_is_shown_before_it_counts(client, store, job):
    client.log_in("rita")
    token = client.token()
    add_account(store, "bob", AccountRole.REVIEWER)
    client.log_in("bob")
    told = {"patient_id": "P1", "csrf": token}
    shown = client.post(f"/jobs/{job}/identity", data=told, headers={"X-CSRF-Token": ""})
    assert shown.status_code == 409 and "Send it as bob" in shown.text
    assert store.jobs.get(job).status == JobStatus.NEEDS_REVIEW
    send_again(client, shown.text)
    assert ("IDENTIFY", "bob") in [(event.action, event.actor) for event in store.jobs.events(job)]


def test_passwords_that_were_typed_are_not_shown_again(client, store):
    client.log_in("rita")
    age_sessions(store, seen_at=timedelta(hours=1))
    typed = {"password": PASSWORD, "new_password": NEW, "again": NEW}
    assert NEW not in client.post("/account", data=typed).text


def test_log_in_of_another_site_is_refused(client):
    data = {"name": "rita", "password": PASSWORD}
    assert client.post("/login", data=data, headers={"Origin": "http://evil.example"}).status_code == 403
    assert client.post("/login", data=data, headers={"X-CSRF-Token": "0" * 64}).status_code == 403


def test_account_is_locked_after_wrong_passwords_and_opens_again(client, store, caplog):
    for _ in range(MOST_FAILURES):
        assert "The name or the password is wrong" in client.log_in("rita", "wrong").text
    answer = client.log_in("rita")
    assert answer.status_code == 401 and "locked for 15 minutes" in answer.text
    assert client.log_in("nobody", "wrong").text.count("locked") == answer.text.count("locked")
    assert "of rita from 127.0.0.1 refused: the account is locked" in caplog.text
    with store.database.write() as session:
        before = (utc_now() - LOCKED_FOR).replace(tzinfo=None)
        session.connection().execute(text("UPDATE account SET locked_until = :at"), {"at": before})
    assert client.log_in("rita").status_code == 200
    assert store.accounts.get("rita").failures == 0


def test_right_passwords_in_between_do_not_lock(client, store):
    for _ in range(3):
        client.log_in("rita", "wrong")
        client.log_in("rita")
        client.post("/logout")
    assert store.accounts.get("rita").failures == 0


def test_address_that_fails_too_often_must_wait(client, caplog):
    for number in range(20):
        client.log_in(f"nobody-{number}", "wrong")
    assert "Too many attempts" in client.log_in("rita").text
    assert "nobody" not in caplog.text  # it may be a password


def test_password_is_changed_and_other_sessions_end(client, url, store):
    with browser(url) as other:
        other.log_in("rita")
        client.log_in("rita")
        typed = {"password": PASSWORD, "new_password": NEW, "again": NEW}
        assert client.post("/account", data=typed).status_code == 200
        assert (client.get("/").status_code, other.get("/").status_code) == (200, 401)
        assert other.log_in("rita").status_code == 401
        assert other.log_in("rita", NEW).status_code == 200


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ({"new_password": "short", "again": "short"}, "12 to 256 characters"),
        ({"new_password": NEW, "again": NEW + "x"}, "typed in two ways"),
        ({"new_password": "I am Rita, you see", "again": "I am Rita, you see"}, "does not contain the name"),
        ({"new_password": "a" * 20, "again": "a" * 20}, "five different characters"),
        ({"new_password": PASSWORD, "again": PASSWORD}, "is the old one"),
        ({"new_password": NEW, "again": NEW, "password": "wrong"}, "is wrong"),
    ],
)
def test_password_that_cannot_be(client, typed, words):
    client.log_in("rita")
    answer = client.post("/account", data={"password": PASSWORD} | typed)
    assert answer.status_code == 422 and words in answer.text


def test_password_that_another_person_has_set_is_changed_first(client, store):
    add_account(store, "nora", AccountRole.REVIEWER, must_change=True)
    assert "Choose a password that only you know" in client.log_in("nora").text
    assert client.get("/").url.path == "/account"
    client.post("/account", data={"password": PASSWORD, "new_password": NEW, "again": NEW})
    assert client.get("/").url.path == "/"


def test_first_administrator(store, spool):
    secret = new_secret()
    with site(store, spool, Settings(), list, digest(secret)) as url, browser(url) as client:
        assert client.get("/").status_code == 200  # this machine, while there are no accounts
        assert client.get("/first/x").status_code == 404
        typed = {"name": "Worker-1", "full_name": "Ann Admin", "new_password": NEW, "again": NEW}
        assert "the name of a part of the gateway" in client.post(f"/first/{secret}", data=typed).text
        client.post(f"/first/{secret}", data=typed | {"name": "ann"})
        assert store.accounts.get("ann").role == AccountRole.ADMIN
        assert client.get("/").status_code == 401
        assert client.get(f"/first/{secret}").status_code == 404
        assert client.post(f"/first/{secret}", data=typed | {"name": "eve"}).status_code == 404
        assert client.log_in("ann", NEW).status_code == 200


def test_proxy_in_front_of_a_page_without_accounts_opens_nothing(store, spool):
    with site(store, spool, Settings()) as url, browser(url) as client:
        assert client.get("/").status_code == 200
        for header in ("X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"):
            assert client.get("/", headers={header: "10.1.2.3"}).status_code == 401


def test_every_form_has_its_token(client, store, job):
    client.log_in("rita")
    for path in ("/", f"/jobs/{job}", "/unmatched", "/account"):
        page = client.get(path).text
        for form in re.findall(r'<form[^>]*method="post".*?</form>', page, re.S):
            assert 'name="csrf"' in form, path
