"""Behind a reverse proxy: what a listed one states counts, what others state does not; hosts, sub-path, cookies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gateway.domain.account import AccountRole
from gateway.domain.audit import AuditKind
from gateway.errors import SettingsError
from gateway.intake.accept import Intake
from gateway.operations.check import closed_web
from gateway.settings import Settings, WebSettings, load_settings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from tests.fake_digitizer import page_png
from tests.gateway.web.browsing import PASSWORD, Browser, add_account, browser, site
from tests.gateway.web.test_web_decisions import submit

HOST = "ecg.hospital.example"
LOG_IN = {
    "proxies": ("127.0.0.1",),
    "proxy_user_header": "X-Remote-User",
    "proxy_name_header": "X-Remote-Name",
    "proxy_groups_header": "X-Remote-Groups",
    "roles": {"ecg": "reviewer", "house": "viewer"},
}


@contextmanager
def opened(store: Store, spool: Spool, **web: Any) -> Iterator[Browser]:
    with site(store, spool, Settings(web=WebSettings(**web))) as url, browser(url) as client:
        yield client


@pytest.fixture
def job(intake: Intake) -> str:
    return submit(intake, page_png(), patient_name="Secret^Ada", accession_number="A1")


def test_listed_proxy_states_client_scheme_and_host(store, spool, job):
    add_account(store, "rita", AccountRole.REVIEWER)
    store.trail.begin()
    web = {"proxies": ("127.0.0.0/8", "10.9.0.0/16"), "allowed_hosts": (HOST,)}
    with opened(store, spool, **web) as client:
        client.headers.update(
            {
                "X-Forwarded-For": "6.6.6.6, 10.1.2.3:4711, 10.9.0.7",
                "X-Forwarded-Proto": "https",
                "X-Forwarded-Host": HOST,
                "Origin": f"https://{HOST}",
            }
        )
        answer = client.get("/login")
        assert "Secure" in answer.headers["set-cookie"]
        cookie = answer.headers["set-cookie"].partition(";")[0]
        token = re.search(r'csrf-token" content="(\w+)"', answer.text)[1]
        data = {"name": "rita", "password": PASSWORD, "csrf": token}
        answer = super(Browser, client).post("/login", data=data, headers={"Cookie": cookie}, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
    (entry,) = store.trail.entries(10)
    assert (entry.kind, entry.address) == (AuditKind.LOG_IN, "10.1.2.3")


def test_what_others_state_does_not_count(store, spool):
    add_account(store, "rita", AccountRole.REVIEWER)
    store.trail.begin()
    with opened(store, spool, **LOG_IN | {"proxies": ("10.9.0.7",)}) as client:
        client.headers.update({"X-Forwarded-For": "10.1.2.3", "X-Forwarded-Proto": "https", "X-Forwarded-Host": HOST})
        client.headers.update({"X-Remote-User": "boss", "X-Remote-Groups": "ecg"})
        answer = client.get("/")
        assert answer.status_code == 401 and "Secure" not in answer.headers["set-cookie"]
        client.log_in("rita")
    assert store.trail.entries(10)[0].address == "127.0.0.1"


def test_hosts(store, spool):
    with opened(store, spool, host="0.0.0.0", allowed_hosts=(HOST,)) as client:
        assert client.get("/login").status_code == 400
        assert client.get("/login", headers={"Host": HOST}).status_code == 200
        assert client.get("/login", headers={"Host": f"{HOST}:8443"}).status_code == 200


@pytest.mark.parametrize("strips", [False, True])
def test_sub_path(store, spool, job, strips):
    """Whether the proxy leaves the path as it is or takes the root path away, every address has it."""
    add_account(store, "rita", AccountRole.REVIEWER)
    before = "" if strips else "/ecg"
    with opened(store, spool, root_path="/ecg") as client:
        asked = client.get(f"{before}/jobs/{job}")
        assert asked.status_code == 401 and f'name="target" value="/jobs/{job}"' in asked.text
        token = re.search(r'csrf-token" content="(\w+)"', asked.text)[1]
        assert "Path=/ecg" in asked.headers["set-cookie"]
        cookie = {"Cookie": asked.headers["set-cookie"].partition(";")[0], "X-CSRF-Token": token}
        data = {"name": "rita", "password": PASSWORD, "target": f"/jobs/{job}"}
        answer = super(Browser, client).post(f"{before}/login", data=data, headers=cookie, follow_redirects=False)
        assert answer.headers["location"] == f"/ecg/jobs/{job}"
        page = client.get(f"{before}/jobs/{job}", headers={"Cookie": answer.headers["set-cookie"].partition(";")[0]})
        assert page.status_code == 200
        for address in re.findall(r'(?:href|src|action|hx-get)="(/[^"]*)"', page.text):
            assert address.startswith("/ecg/"), address
        assert client.get(f"{before}/static/style.css").status_code == 200


def test_person_of_a_proxy(store, spool, job):
    with opened(store, spool, **LOG_IN) as client:
        assert client.get("/").status_code == 401
        client.headers.update(
            {
                "X-Remote-User": "Ann",
                "X-Remote-Name": "Dr Ann Müller".encode(),
                "X-Remote-Groups": "x, ecg",
            }
        )
        page = client.get(f"/jobs/{job}").text
        assert "Dr Ann Müller" in page and "Secret Ada" in page and "Log out" not in page
        client.post(f"/jobs/{job}/identity", data={"patient_id": "P1"})
    assert ("IDENTIFY", "ann") in [(event.action, event.actor) for event in store.jobs.events(job)]


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"X-Remote-User": "ann", "X-Remote-Groups": "others"}, "you have no role here"),
        ({"X-Remote-User": "ann"}, "you have no role here"),
        ({"X-Remote-User": "worker-1", "X-Remote-Groups": "ecg"}, "a part of the gateway"),
        ({"X-Remote-User": "cli:ann", "X-Remote-Groups": "ecg"}, "no colon"),
        ({"X-Remote-User": "bob", "X-Remote-Groups": "ecg"}, "is disabled"),
    ],
)
def test_person_of_a_proxy_who_does_not_get_in(store, spool, headers, words):
    add_account(store, "bob", AccountRole.ADMIN, disabled=True)
    with opened(store, spool, **LOG_IN) as client:
        answer = client.get("/", headers=headers)
        assert answer.status_code == 403 and words in answer.text


def test_highest_role_counts_and_others_may_have_one(store, spool, job):
    with opened(store, spool, **LOG_IN | {"other_role": "viewer"}) as client:
        client.headers.update({"X-Remote-User": "ann"})
        assert client.get("/session", headers={"X-Remote-Groups": "house,ecg"}).json()["role"] == "reviewer"
        assert client.get("/session", headers={"X-Remote-Groups": "none"}).json()["role"] == "viewer"


def test_proxy_log_in_opens_pages_beyond_this_machine():
    assert closed_web(WebSettings(host="0.0.0.0"), exist=False)
    assert not closed_web(WebSettings(host="0.0.0.0", **LOG_IN), exist=False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('proxies = ["0.0.0.0/0"]', "every machine would be a proxy"),
        ('proxies = ["proxy.hospital"]', "must be an IP address or a network"),
        ('proxy_user_header = "X-User"', "proxy_user_header needs proxies"),
        ('proxies = ["10.1.2.3"]\nproxy_groups_header = "X-Groups"', "needs proxy_user_header"),
        ('proxies = ["10.1.2.3"]\nproxy_user_header = "X User"', "must be the name of an HTTP header"),
        ('root_path = "/ecg/"', "without a / at its end"),
        ('roles = { "ecg" = "boss" }', "viewer"),
        ('allowed_hosts = ["https://ecg"]', "must be an IP address or a host name"),
    ],
)
def test_settings_that_cannot_be(tmp_path, text, words):
    file = tmp_path / "gateway.toml"
    file.write_text(f"[web]\n{text}\n")
    with pytest.raises(SettingsError, match=re.escape(words)):
        load_settings(file)


def test_person_of_a_proxy_is_told_once_a_session(store, spool, job):
    store.trail.begin()
    with opened(store, spool, **LOG_IN) as client:
        client.headers.update({"X-Remote-User": "Ann", "X-Remote-Name": "Dr Ann", "X-Remote-Groups": "ecg"})
        for _ in range(3):
            assert client.get("/").status_code == 200
        client.headers["X-Remote-User"] = "Bob"
        client.get("/")
    entries = store.trail.entries(10)
    told = [each for each in entries if each.kind == AuditKind.LOG_IN]
    assert [(each.name, each.full_name) for each in told] == [("ann", "Dr Ann"), ("bob", "Dr Ann")]
    assert {each.detail for each in told} == {"at the reverse proxy"}
