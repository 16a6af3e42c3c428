"""The REST interface: pages in once, jobs and results out, decisions by the workbench's rules; errors are problems."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from pydicom import dcmread

from gateway.domain.account import AccountRole, ApiScope
from gateway.domain.audit import AuditKind
from gateway.domain.status import JobStatus
from gateway.results.decisions import carry_out
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.web import forms
from gateway.web.api import body, jobs
from tests.fake_digitizer import Behaviour, page_png
from tests.gateway.dicom.samples import part10, secondary_capture
from tests.gateway.web.browsing import add_account
from tests.gateway.web.rest import SETTINGS, Program, ended, program, token

NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def client(store: Store, spool: Spool) -> Iterator[Program]:
    store.trail.begin()
    with program(store, spool) as client:
        yield client


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """Return the problem that a response is, without patient data."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    told: dict[str, Any] = response.json()
    assert told["status"] == status and told["title"] and told["detail"] and told["type"]
    assert "SECRET" not in response.text
    return told


def names(client: Program) -> list[str]:
    return [entry.detail for entry in client.store.trail.entries(1000) if entry.kind == AuditKind.LOG_IN]


# -- access -----------------------------------------------------------------------------------------------------------


def test_a_token_must_be_known_and_valid(client: Program, store: Store) -> None:
    add_account(store, "vera", AccountRole.VIEWER)
    add_account(store, "rita", AccountRole.REVIEWER, disabled=True)
    problems = {
        "": "Send a token",
        "ecgw_wrong": "The token is not known",
        token(store, name="old", expires_at=ended()): "The token old has expired on",
        token(store, name="gone", revoked_at=ended()): "The token gone was revoked on",
        token(store, name="hers", owner="rita"): "The token hers is of the account rita, which is disabled",
    }
    for secret, words in problems.items():
        with client.with_token(secret) as other:
            refused = other.get("/jobs")
        assert words in problem(refused, 401)["detail"]
        assert refused.headers["www-authenticate"].startswith("Bearer")
    assert len(names(client)) == 4 and all("ecgw" not in words for words in names(client))
    assert {known.digest for known in store.tokens.all()}.isdisjoint(problems)


def test_a_token_does_what_its_scopes_say_and_no_more_than_its_owner_may(client: Program, store: Store) -> None:
    job_id = client.digitized()
    add_account(store, "vera", AccountRole.VIEWER)
    with client.with_token(token(store, owner="vera")) as hers:
        assert hers.get(f"/jobs/{job_id}").json()["patient"] is None
        assert "lacks the scope pages:submit" in problem(hers.submit(), 403)["detail"]
        assert "lacks the scope results:read" in problem(hers.get(f"/jobs/{job_id}/pages/1/result.csv"), 403)["detail"]
    with client.with_token(token(store, ApiScope.PAGES_SUBMIT, name="scanner")) as scanner:
        assert scanner.submit(page_png(seed=1)).status_code == 201
        problem(scanner.get("/jobs"), 403)
        problem(scanner.decide(job_id, "ACCEPT", 1), 403)
    alerts = [entry.detail for entry in store.trail.entries(100) if entry.kind == AuditKind.ALERT]
    assert "refused: GET /api/v1/jobs/{job_id}/pages/{number}/result.csv" in alerts


def test_wrong_tokens_are_counted_by_address(client: Program) -> None:
    with client.with_token("ecgw_guess") as guesser:
        for _ in range(20):
            problem(guesser.get("/jobs"), 401)
        blocked = guesser.get("/jobs")
    assert "Too many wrong tokens" in problem(blocked, 429)["detail"] and blocked.headers["retry-after"] == "900"


def test_cookies_and_forms_have_no_say_here(client: Program, store: Store) -> None:
    """Nobody's account: the pages are open to this machine, the interface is not."""
    with httpx.Client(base_url=client.address, trust_env=False) as machine:
        assert machine.get("/").status_code == 200
        problem(machine.get("/api/v1/jobs"), 401)
    assert "set-cookie" not in client.get("/jobs").headers


def test_every_error_is_a_problem(client: Program) -> None:
    problem(client.get("/nothing"), 404)
    assert "errors" in problem(client.get("/jobs/a%0Ab"), 422)
    assert client.delete("/jobs").headers["allow"]
    problem(client.delete("/jobs"), 405)
    problem(client.get(f"/jobs/{NOBODY}"), 404)
    assert problem(client.get("/jobs/x"), 422)["errors"][0]["field"] == "job_id"
    problem(client.post(f"/jobs/{NOBODY}/decisions", content="{", headers={"Content-Type": "application/json"}), 422)
    odd = '{"version": 1, "decision": "\\ud800"}'  # half a character
    problem(client.post(f"/jobs/{NOBODY}/decisions", content=odd, headers={"Content-Type": "application/json"}), 422)
    long = json.dumps({"version": 1, "decision": "REJECT", "reason": "x" * body._MOST_JSON_BYTES})
    problem(client.post(f"/jobs/{NOBODY}/decisions", content=long, headers={"Content-Type": "application/json"}), 413)
    problem(client.decide(NOBODY, "REJECT", 1, reason="no ECG"), 404)


# -- pages in ---------------------------------------------------------------------------------------------------------


def test_a_page_is_a_job_with_its_identity_before_it_is_acknowledged(client: Program, store: Store) -> None:
    answer = client.submit(destination="pacs")
    assert answer.status_code == 201 and answer.json()["duplicate"] is False
    job = store.jobs.get(answer.json()["job_id"])
    assert (job.source, job.media_type, job.patient_id) == ("api:lab", "image/png", "MRN-SECRET")
    assert job.destinations_json == '["pacs"]'
    assert store.jobs.events(job.id)[0].actor == "api:mirth/lab"
    assert client.get(answer.headers["location"].removeprefix("/api/v1")).json()["id"] == job.id
    assert client.spool.read(job.id) == page_png()
    again = client.submit(destination="pacs")
    assert (again.status_code, again.json()) == (200, {"job_id": job.id, "duplicate": True})


def test_bodies_that_are_no_form(client: Program, store: Store) -> None:
    data = part10(secondary_capture())
    for content, media_type in (
        (data, "application/dicom"),
        (page_png(), "image/png"),
        (data, "application/octet-stream"),
    ):
        answer = client.post("/jobs", content=content, headers={"Content-Type": media_type})
        assert answer.status_code in (200, 201), answer.text
        job = store.jobs.get(answer.json()["job_id"])
        assert job.media_type == ("image/png" if content == page_png() else "application/dicom")
    assert store.jobs.find(str(dcmread(io.BytesIO(data)).SOPInstanceUID)) is not None


def test_a_body_that_is_no_whole_page(client: Program, store: Store) -> None:
    cut = page_png()[:-20]
    for data, words in ((b"", "is empty"), (b"no picture", "is no DICOM, PDF"), (cut, "is cut short")):
        assert f"the file {words}" in problem(client.submit(data), 422)["detail"]
    assert store.jobs.newest() == [] and not any(client.spool.path.iterdir())


def test_what_is_stated_must_have_its_form(client: Program, store: Store) -> None:
    assert problem(client.submit(destination="mars"), 422)["errors"] == [
        {"field": "destination", "value": "mars", "rule": "must be one of pacs, ehr"}
    ]
    assert problem(client.submit(patient_birthday="x"), 422)["errors"][0]["field"] == "patient_birthday"
    assert "patient_sex must be" in problem(client.submit(patient_sex="Z"), 422)["detail"]
    assert problem(client.submit(patient_id=["A", "B"]), 422)["errors"][0]["rule"] == "is stated twice"
    problem(client.post("/jobs", content=b"x", headers={"Content-Type": "text/html"}), 415)
    assert store.jobs.newest() == []


def test_a_form_that_is_none(client: Program) -> None:
    for broken in (
        b"",
        b"no boundary in it",
        b"--b\r\nContent-Disposition: form-data; name=file\r\n\r\nhello",
        b"--b\r\n\r\nhello\r\n--b--\r\n",
        b"--b",
    ):
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        problem(client.post("/jobs", content=broken, headers=headers), 400)
    problem(client.post("/jobs", content=b"x", headers={"Content-Type": "multipart/form-data"}), 400)


def test_a_form_needs_one_file(client: Program) -> None:
    problem(client.post("/jobs", files={"x": (None, b"y")}), 422)
    two = [("file", ("a.png", page_png())), ("file", ("b.png", page_png(seed=1)))]
    assert "one file" in problem(client.post("/jobs", files=two), 422)["detail"]


def test_a_body_that_is_too_long(client: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "MAXIMUM_BYTES", 1000)
    headers = {"Content-Type": "image/png"}
    problem(client.post("/jobs", content=b"x" * 1001, headers=headers), 413)
    problem(client.post("/jobs", content=iter([b"x" * 600, b"x" * 600]), headers=headers), 413)


def test_an_idempotency_key_stands_for_one_page(client: Program, store: Store) -> None:
    key = {"Idempotency-Key": "order-4711"}
    first = client.submit(headers=key)
    assert client.submit(headers=key).json() == {"job_id": first.json()["job_id"], "duplicate": True}
    for other in (client.submit(page_png(seed=1), key), client.submit(headers=key, accession_number="A2")):
        assert "another page, identity or destination" in problem(other, 422)["detail"]
    with client.with_token(token(store, name="other")) as theirs:
        assert theirs.submit(page_png(seed=2), key).status_code == 201  # it is another program's key
    assert len(store.jobs.newest()) == 2
    problem(client.submit(headers={"Idempotency-Key": "x" * 200}), 422)


def test_a_key_that_comes_twice_at_the_same_time_takes_one_page(client: Program, store: Store) -> None:
    answers: list[int] = []

    def send(seed: int) -> None:
        answers.append(client.submit(page_png(seed=seed), {"Idempotency-Key": "one"}).status_code)

    threads = [threading.Thread(target=send, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [201, 422, 422, 422] and len(store.jobs.newest()) == 1


# -- jobs -------------------------------------------------------------------------------------------------------------


def test_list_goes_on_at_its_cursor_while_jobs_come(client: Program) -> None:
    ids = [client.submit(page_png(seed=n)).json()["job_id"] for n in range(5)]
    seen, cursor = [], ""
    while cursor is not None:
        part = client.get("/jobs", params={"limit": 2, "cursor": cursor}).json()
        seen += [job["id"] for job in part["jobs"]]
        cursor = part["next"]
        client.submit(page_png(seed=len(seen) + 20))
    assert seen == ids[::-1]


def test_list_is_filtered(client: Program, store: Store) -> None:
    done, other = client.digitized(), client.submit(page_png(seed=1), patient_id="MRN2").json()["job_id"]

    def found(**wanted: Any) -> list[str]:
        return [job["id"] for job in client.get("/jobs", params=wanted).raise_for_status().json()["jobs"]]

    assert found(status="QUEUED") == [other] and found(text="mrn2") == [other] and found(text=done[:8]) == [done]
    assert found(destination="pacs", delivery="PENDING") == [done]
    assert found(source="api:lab") == [other, done] and found(since="2999-01-01") == []
    with client.with_token(token(store, ApiScope.JOBS_READ, name="monitor")) as monitor:
        assert monitor.get("/jobs", params={"text": "mrn2"}).json() == {"jobs": [], "next": None}
        assert "SECRET" not in monitor.get("/jobs").text


def test_a_filter_that_is_none(client: Program) -> None:
    for field, value in (
        ("colour", "red"),
        ("status", "LOST"),
        ("since", "yesterday"),
        ("limit", 0),
        ("text", "a\0b"),
        ("cursor", "here"),
        ("cursor", "MjAyNiB4"),
    ):
        told = problem(client.get("/jobs", params={field: value}), 422)
        assert told["errors"][0]["field"] == field and told["errors"][0]["rule"] and field in told["detail"]


def test_a_look_at_patients_is_in_the_audit_trail(client: Program, store: Store) -> None:
    job_id = client.digitized()
    with client.with_token(token(store, ApiScope.JOBS_READ, name="monitor", owner="nagios")) as monitor:
        assert "SECRET" not in monitor.get(f"/jobs/{job_id}").text
    assert client.get(f"/jobs/{job_id}").json()["patient"]["patient_name"] == "Secret^Ada"
    client.get(f"/jobs/{job_id}/pages/1/result.json")
    views = [entry for entry in store.trail.entries(100) if entry.kind == AuditKind.VIEW]
    assert [(each.name, each.full_name, each.job_id) for each in views] == [("mirth", "mirth, token lab", job_id)]


# -- results ----------------------------------------------------------------------------------------------------------


def test_a_result_in_every_form(client: Program, store: Store) -> None:
    job_id = client.digitized()
    forms = {
        name: client.get(f"/jobs/{job_id}/pages/1/{name}")
        for name in ("result.json", "result.csv", "result.npz", "result.dcm", "report.pdf", "result.fhir.json")
    }
    assert {form.headers["ecg-result"] for form in forms.values()} == {"preliminary"}
    assert "-page-1-preliminary.csv" in forms["result.csv"].headers["content-disposition"]
    with np.load(io.BytesIO(forms["result.npz"].content)) as arrays:
        signal_mv, leads = arrays["signal_mv"], arrays["leads"].tolist()
    told = forms["result.json"].json()
    assert (told["final"], told["needs_review"], told["sampling_frequency_hz"]) == (False, False, 500)
    assert [each["lead"] for each in told["leads"]] == leads
    as_floats = np.array([[np.nan if v is None else v for v in each["signal_mv"]] for each in told["leads"]])
    np.testing.assert_allclose(as_floats, signal_mv, atol=5e-5)
    assert forms["result.csv"].text.splitlines()[0] == ",".join(["time_s", *leads])
    assert len(forms["result.csv"].text.splitlines()) == signal_mv.shape[1] + 1
    (sent,) = [each for each in store.deliveries.of_job(job_id) if each.kind == "dicom"]
    assert forms["result.dcm"].content == client.spool.read(job_id, sent.artefact)
    assert forms["report.pdf"].content.startswith(b"%PDF-")
    assert (forms["result.fhir.json"].json()["resourceType"], forms["result.fhir.json"].headers["content-type"]) == (
        "Bundle",
        "application/fhir+json",
    )


def test_what_is_doubtful_says_so(client: Program) -> None:
    job_id = client.digitized(page_png(Behaviour.DOUBTFUL))
    told = client.get(f"/jobs/{job_id}/pages/1/result.json")
    assert told.headers["ecg-result"] == "doubtful"
    assert told.json()["needs_review"] and "estimated SNR" in told.json()["reason"]


def test_what_is_no_result(client: Program, store: Store) -> None:
    waits = client.submit(page_png(seed=1)).json()["job_id"]
    assert "it is QUEUED" in problem(client.get(f"/jobs/{waits}/pages/1/result.csv"), 409)["detail"]
    client.work()
    problem(client.get(f"/jobs/{waits}/pages/2/result.csv"), 404)
    problem(client.get(f"/jobs/{waits}/pages/0/result.csv"), 422)
    failed = client.digitized(page_png(Behaviour.NO_ECG))
    problem(client.get(f"/jobs/{failed}/pages/1/result.csv"), 409)
    store.jobs.retry(waits, "test")
    problem(client.get(f"/jobs/{waits}/pages/1/result.json"), 409)  # it is being read again
    nobody = client.digitized(page_png(seed=3), patient_id="", patient_name="", patient_birth_date="")
    assert store.jobs.get(nobody).status == JobStatus.NEEDS_REVIEW


# -- corrections and decisions ----------------------------------------------------------------------------------------


def test_corrections_are_read_again(client: Program) -> None:
    job_id = client.digitized()
    version = client.get(f"/jobs/{job_id}").json()["version"]
    stated = {"version": version, "corrections": {"paper_speed_mm_per_s": 50, "left_out": ["V6"]}}
    answer = client.put(f"/jobs/{job_id}/pages/1/corrections", json=stated)
    assert (answer.status_code, answer.json()["status"]) == (202, "QUEUED")
    client.work()
    told = client.get(f"/jobs/{job_id}/pages/1/result.json").json()
    assert (told["paper_speed_source"], told["needs_review"]) == ("person", True)
    assert [(each["act"], each["lead"]) for each in told["by_person"]] == [("left_out", "V6")]
    kept = client.get(f"/jobs/{job_id}/corrections").json()["pages"]
    assert kept == {"1": {"paper_speed_mm_per_s": 50.0, "left_out": ["V6"]}}
    late = problem(client.put(f"/jobs/{job_id}/pages/1/corrections", json=stated), 409)
    assert late["type"] == "urn:ecg-gateway:problem:job-has-changed"
    assert [each["action"] for each in late["changes"]][:2] == ["CORRECT", "CLAIM"]
    assert late["changes"][0]["actor"] == "api:mirth/lab"


def test_corrections_that_break_a_rule(client: Program) -> None:
    job_id = client.digitized()
    path, version = f"/jobs/{job_id}/pages/1/corrections", client.get(f"/jobs/{job_id}").json()["version"]
    wrong = {"version": version, "corrections": {"paper_speed_mm_per_s": -1, "colour": "red"}}
    told = problem(client.put(path, json=wrong), 422)
    assert [each["field"] for each in told["errors"]] and all(each["rule"] for each in told["errors"])
    problem(client.put(path, json={"corrections": {}}), 422)
    problem(client.put(path, json={"version": version, "corrections": {}, "force": True}), 422)
    problem(client.put(f"/jobs/{job_id}/pages/7/corrections", json={"version": version, "corrections": {}}), 404)
    assert client.get(f"/jobs/{job_id}").json()["version"] == version


def test_a_result_is_final_after_two_agreements(client: Program, store: Store) -> None:
    job_id = client.digitized()
    assert "only if its traces agree" in problem(client.decide(job_id, "ACCEPT"), 409)["detail"]
    assert client.decide(job_id, "TRACES_AGREE").json()["traces_agreed_by"] == "api:mirth/lab"
    wrong = problem(client.decide(job_id, "PATIENT_AGREE", patient_id="MRN-OTHER"), 422)
    assert wrong["errors"][0]["field"] == "patient_id"
    assert client.decide(job_id, "PATIENT_AGREE", patient_id="MRN-SECRET").status_code == 200
    accepted = client.decide(job_id, "ACCEPT").json()
    assert (accepted["decision"]["verdict"], accepted["final"]) == ("ACCEPT", False)
    assert client.delete(f"/jobs/{job_id}/decisions").json()["decision"] is None
    problem(client.delete(f"/jobs/{job_id}/decisions"), 409)
    assert client.decide(job_id, "ACCEPT").status_code == 200
    (decision,) = store.review.due(ended(-1))
    for due in (decision,):
        store.review.settle(job_id)
        store.review.decide(job_id, store.review.version(job_id), _due(due))
    carry_out(store, client.spool, SETTINGS)
    job = client.get(f"/jobs/{job_id}").json()
    assert (job["final"], job["confirmed_by"], job["status"]) == (True, "api:mirth/lab", "DONE")
    assert client.get(f"/jobs/{job_id}/pages/1/report.pdf").headers["ecg-result"] == "final"


def _due(decision: Any) -> Any:
    """Return a decision whose time has come."""
    return type(decision)(**decision.model_dump() | {"due_at": ended()})


def test_a_stale_decision_changes_nothing_and_says_what_happened(client: Program, store: Store) -> None:
    job_id = client.digitized()
    seen = client.get(f"/jobs/{job_id}").json()["version"]
    store.review.agree(job_id, seen, "rita", traces=True)
    told = problem(client.decide(job_id, "TRACES_OPEN", seen), 409)
    assert [(each["action"], each["actor"]) for each in told["changes"]] == [("TRACES_AGREE", "rita")]
    assert store.jobs.get(job_id).traces_agreed_by == "rita"
    store.review.claim(job_id, "rita")
    told = problem(client.decide(job_id, "TRACES_OPEN"), 409)
    assert "rita has this job open" in told["detail"] and "changes" not in told


def test_a_rejection_needs_a_reason(client: Program) -> None:
    job_id = client.digitized()
    assert problem(client.decide(job_id, "REJECT"), 422)["errors"][0]["field"] == "reason"
    assert client.decide(job_id, "SCAN_AGAIN", reason="folded").json()["decision"]["reason"] == "scan again: folded"
    problem(client.decide(job_id, "DELETE_ALL", 1), 422)


# -- events -----------------------------------------------------------------------------------------------------------


def events(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in response.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "data" in fields:
            found.append(json.loads(fields["data"]))
            assert (fields["id"], fields["event"]) == (str(found[-1]["id"]), found[-1]["action"])
    return found


def test_events_go_on_after_the_last_one(client: Program) -> None:
    job_id = client.digitized()
    every = events(client.get("/events", params={"since": 0, "wait": 0}))
    kept = client.store.jobs.events(job_id)
    assert [(each["id"], each["action"], each["actor"]) for each in every] == [(e.id, e.action, e.actor) for e in kept]
    assert (every[0]["action"], every[-1]["action"]) == ("RECEIVED", "COMPLETE")
    assert {each["job_id"] for each in every} == {job_id}
    last = str(every[0]["id"])
    rest = client.get("/events", params={"since": 0, "wait": 0}, headers={"Last-Event-ID": last})
    assert events(rest) == every[1:]
    assert events(client.get("/events", params={"wait": 0})) == []
    problem(client.get("/events", params={"since": -1}), 422)
    problem(client.get("/events", params={"colour": "red"}), 422)
    problem(client.get("/events", headers={"Last-Event-ID": "x"}), 422)


def test_events_come_as_they_happen(client: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_BETWEEN_S", 0.05)
    client.submit()
    with client.stream("GET", "/events", params={"since": 0}) as response:
        lines = response.iter_lines()
        assert next(line for line in lines if line.startswith("event")) == "event: RECEIVED"
        client.work()
        assert next(line for line in lines if line.startswith("event")) == "event: CLAIM"
