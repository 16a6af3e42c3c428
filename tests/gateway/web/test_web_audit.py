"""Each look at a patient, each decision and each refusal on the pages is kept for the audit repository."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from gateway.domain.account import AccountRole
from gateway.domain.audit import AuditKind
from gateway.intake.accept import Intake
from gateway.settings import Settings, WebSettings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from tests.fake_digitizer import page_png
from tests.gateway.web.browsing import Browser, add_account, browser, site
from tests.gateway.web.test_web_decisions import submit


@pytest.fixture
def client(store: Store, spool: Spool) -> Iterator[Browser]:
    store.trail.begin()
    add_account(store, "vera", AccountRole.VIEWER)
    add_account(store, "rita", AccountRole.REVIEWER, full_name="Dr Rita Ray")
    with site(store, spool, Settings(web=WebSettings())) as url, browser(url) as client:
        yield client


@pytest.fixture
def job(intake: Intake) -> str:
    return submit(intake, page_png(), patient_name="Secret^Ada", accession_number="A1")


@pytest.fixture
def kept(store: Store) -> Callable[[], list[tuple[AuditKind, str, str, bool]]]:
    def take() -> list[tuple[AuditKind, str, str, bool]]:
        entries = store.trail.entries(1000)
        assert all(entry.address == "127.0.0.1" for entry in entries)
        assert {entry.full_name for entry in entries if entry.name == "rita" and not entry.failed} <= {"Dr Rita Ray"}
        store.trail.told(entries, [])
        return [(entry.kind, entry.name, entry.detail, entry.failed) for entry in entries]

    return take


def test_log_in_and_out(client, kept):
    client.log_in("rita", "wrong")
    client.log_in("my secret password", "x")
    client.log_in("rita")
    client.post("/logout")
    assert kept() == [
        (AuditKind.LOG_IN, "rita", "wrong name or password", True),
        (AuditKind.LOG_IN, "an unknown name", "wrong name or password", True),
        (AuditKind.LOG_IN, "rita", "", False),
        (AuditKind.LOG_OUT, "rita", "", False),
    ]


def test_look_at_a_patient_is_kept_once_a_minute(client, intake, job, kept):
    client.log_in("rita")
    assert (AuditKind.VIEW, "rita", "", False) in kept()  # the queue has shown the patient
    client.get("/")
    client.get(f"/jobs/{job}")
    assert kept() == []
    second = submit(intake, page_png(), patient_name="Secret^Eva", accession_number="A2", patient_sex="F")
    for path in (f"/jobs/{second}", f"/jobs/{second}/source", f"/jobs/{second}"):
        assert client.get(path).status_code == 200
    client.get(f"/jobs/{second}", headers={"HX-Request": "true"})
    assert kept() == [(AuditKind.VIEW, "rita", "", False)]


def test_viewer_sees_no_patient_and_a_refusal_is_kept(client, job, kept):
    client.log_in("vera")
    kept()
    client.get(f"/jobs/{job}")
    assert kept() == []
    client.get(f"/jobs/{job}/source")
    assert kept() == [(AuditKind.ALERT, "vera", "refused: GET /jobs/{job_id}/source", True)]


def test_decisions(client, job, kept):
    client.log_in("rita")
    kept()
    client.post(f"/jobs/{job}/identity", data={"patient_id": "P1"})
    client.post(f"/review/{job}/decision", data={"verdict": "ACCEPT", "version": "0"})
    assert [each for each in kept() if each[0] != AuditKind.VIEW] == [
        (AuditKind.DECIDE, "rita", "identity", False),
        (AuditKind.DECIDE, "rita", "decision", True),  # it runs again
    ]


def test_without_a_repository_nothing_is_kept(client, store, job):
    client.log_in("rita")
    store.trail.end()
    client.get(f"/jobs/{job}")
    assert store.trail.entries(10) == []
