"""The workbench's pages and forms: what they show, what they record, and that nothing typed is lost by a refusal."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest

from gateway.domain.audit import AuditKind
from gateway.domain.clock import utc_now
from gateway.domain.context import StudyContext
from gateway.domain.received import ReceivedObject
from gateway.domain.review import UNDO, Verdict
from gateway.domain.status import JobStatus
from gateway.hl7.inbound.receiver import Receiver
from gateway.identity.orders import Records
from gateway.results import decisions
from gateway.settings import Hl7Destination, ReviewSettings, Settings, WebSettings
from gateway.store.review import new_decision
from gateway.worker.worker import Worker
from pipeline import PrintedValues, TextLine
from tests.fake_digitizer import Behaviour, FakeDigitizer, page_png
from tests.gateway.web.browsing import browser, site

EHR = Hl7Destination(name="ehr", host="127.0.0.1", port=2575)
SETTINGS = Settings(web=WebSettings(show_patient=True), destinations=(EHR,), review=ReviewSettings(undated="receipt"))
MARKUP = "<script>alert(1)</script>"


class Printing(FakeDigitizer):
    """Finds print on every page."""

    def __init__(self, *texts: str) -> None:
        self._texts = texts

    def digitize(self, page, **asked):
        made = super().digitize(page, **asked)
        lines = [
            TextLine(text=t, x0_mm=5, y0_mm=4 * k, x1_mm=35, y1_mm=4 * k + 3, score=0.99)
            for k, t in enumerate(self._texts)
        ]
        return replace(made, text=tuple(lines))


class Undated(FakeDigitizer):
    """Finds no date on any page."""

    def digitize(self, page, **asked):
        return replace(super().digitize(page, **asked), printed=PrintedValues())


@pytest.fixture
def client(store, spool):
    with site(store, spool, SETTINGS) as url, browser(url) as client:
        yield client


@pytest.fixture
def read(store, spool, intake):
    """Submit a page and have it read."""

    def submit(*printed, behaviour=Behaviour.GOOD, seed=0, source="folder:/scans", **context):
        context = {"patient_id": "P1", "patient_name": "Müster^Zoë"} | context
        data = page_png(behaviour, seed)
        received = ReceivedObject(
            source=source,
            source_key=f"key-{seed}-{sorted(context.items())}",
            media_type="image/png",
            data=data,
            context=StudyContext(**context),
            destinations=None,
            actor="folder",
        )
        job_id = intake.accept(received).job_id
        if store.jobs.get(job_id).status == JobStatus.QUEUED:
            run(store, spool, *printed)
        return job_id

    return submit


def run(store, spool, *printed):
    assert Worker(SETTINGS, store, spool, Printing(*printed), name="w").run_once()


def later(monkeypatch, store, spool, settings=SETTINGS):
    """Carry out what is decided, when its minute has passed."""
    with monkeypatch.context() as patch:
        patch.setattr("gateway.store.review.utc_now", lambda: utc_now() + UNDO)
        decisions.carry_out(store, spool, settings)


def send(client, store, job_id, what, **form):
    fields = {"version": str(store.review.version(job_id))} | form
    return client.post(f"/review/{job_id}/{what}", data=fields)


def agree(client, store, job_id):
    assert send(client, store, job_id, "traces", agree="yes").status_code == 200
    assert send(client, store, job_id, "patient", action="agree").status_code == 200


def test_worklist_shows_the_worst_first(client, read):
    fine, low = read(seed=1), read(seed=2, behaviour=Behaviour.DOUBTFUL)
    html = client.get("/review").text
    assert 0 < html.index(f"/review/{low}") < html.index(f"/review/{fine}")
    assert "Low estimate" in html and "Müster Zoë, P1" in html
    assert fine not in client.get("/review?show=doubtful").text


def test_pictures_of_the_workbench_agree_with_the_record(client, store, spool, read):
    job_id = read()
    assert "The traces agree" in client.get(f"/review/{job_id}").text
    record = client.get(f"/jobs/{job_id}/pages/1/record.json").json()
    kept = np.load(BytesIO(spool.read(job_id, "page-1.record.npz")))
    leads = {each["lead"]: each for each in record["leads"]}
    for lead, signal_mv in zip(kept["leads"].tolist(), kept["signal_mv"], strict=True):
        first = leads[lead]["first"]
        shown = np.array(leads[lead]["uv"]) / 1000
        assert np.allclose(signal_mv[first : first + shown.size], shown, atol=0.0006)
        assert np.isnan(signal_mv[:first]).all() and np.isnan(signal_mv[first + shown.size :]).all()
    assert client.get(f"/jobs/{job_id}/pages/1/geometry.json").json()["width"] == 80
    assert client.get(f"/jobs/{job_id}/pages/2/record.json").status_code == 404


def test_final_needs_two_decisions_and_a_minute(client, store, spool, read, monkeypatch):
    job_id = read()
    refused = send(client, store, job_id, "decision", verdict="ACCEPT")
    assert refused.status_code == 409 and "final only if its traces agree" in refused.text
    agree(client, store, job_id)
    send(client, store, job_id, "decision", verdict="ACCEPT")
    decisions.carry_out(store, spool, SETTINGS)
    assert store.jobs.get(job_id).confirmed_by == ""
    assert "is accepted. Nothing leaves for" in client.get("/review").text
    later(monkeypatch, store, spool)
    assert store.jobs.get(job_id).confirmed_by.endswith("@localhost")
    assert [each.result_status for each in store.deliveries.of_job(job_id)] == ["P", "F"]
    assert store.review.decision(job_id) is None


def test_decision_taken_back_leaves_nothing(client, store, spool, read, monkeypatch):
    job_id = read()
    agree(client, store, job_id)
    send(client, store, job_id, "decision", verdict="ACCEPT")
    assert client.post(f"/review/{job_id}/undo").url.path == f"/review/{job_id}"
    later(monkeypatch, store, spool)
    assert store.jobs.get(job_id).confirmed_by == ""
    assert client.post(f"/review/{job_id}/undo").status_code == 409


def test_result_that_changed_after_the_decision_is_not_sent_as_final(client, store, spool, read, monkeypatch):
    job_id = read()
    agree(client, store, job_id)
    send(client, store, job_id, "decision", verdict="ACCEPT")
    store.jobs.retry(job_id, "cli")
    run(store, spool)
    later(monkeypatch, store, spool)
    job = store.jobs.get(job_id)
    assert (job.confirmed_by, job.traces_agreed_by) == ("", "")
    (event,) = [each for each in store.jobs.events(job_id) if each.action == "NOT_CARRIED_OUT"]
    assert "has changed after the decision" in event.detail
    assert job_id in client.get("/review").text


@pytest.mark.parametrize(
    ("verdict", "reason"), [("REJECT", "not readable"), ("SCAN_AGAIN", "scan again: not readable")]
)
def test_rejection_has_a_reason(client, store, spool, read, monkeypatch, verdict, reason):
    job_id = read()
    nameless = send(client, store, job_id, "decision", verdict=verdict)
    assert nameless.status_code == 422 and "Choose a reason" in nameless.text
    send(client, store, job_id, "decision", verdict=verdict, reason="not readable")
    later(monkeypatch, store, spool)
    job = store.jobs.get(job_id)
    assert (job.status, job.reason) == (JobStatus.CANCELLED, reason)


def test_rejection_is_told_to_who_has_the_result_already(client, store, spool, read, monkeypatch):
    job_id = read()
    store.deliveries.delivered(store.deliveries.of_job(job_id)[0].id, "AA")
    html = client.get(f"/review/{job_id}").text
    assert "Already sent to ehr. They are told" in html and "cannot be told" not in html
    send(client, store, job_id, "decision", verdict="REJECT", words="smudged")
    later(monkeypatch, store, spool)
    (event,) = [each for each in store.jobs.events(job_id) if each.action == "WITHDRAW"]
    assert event.detail == "to ehr"
    assert "HL7, withdrawn" in client.get(f"/jobs/{job_id}").text


def test_page_names_who_cannot_be_told_of_a_rejection(store, spool, read):
    job_id = read()
    store.deliveries.delivered(store.deliveries.of_job(job_id)[0].id, "AA")
    without = Settings(web=SETTINGS.web)
    with site(store, spool, without) as url, browser(url) as client:
        assert "ehr cannot be told by the gateway" in client.get(f"/review/{job_id}").text


def test_stale_form_says_what_changed_and_keeps_what_was_typed(client, store, read):
    job_id = read()
    version = store.review.version(job_id)
    store.review.agree(job_id, version, "bob", traces=True)
    form = {"version": str(version), "verdict": "REJECT", "words": "half of V4 is <b>torn</b>"}
    answer = client.post(f"/review/{job_id}/decision", data=form)
    assert answer.status_code == 409
    assert "the job has changed since this page was loaded" in answer.text
    assert "TRACES_AGREE by bob" in answer.text
    assert "half of V4 is &lt;b&gt;torn&lt;/b&gt;</textarea>" in answer.text


def test_other_reviewer_is_named_and_keeps_the_job(client, store, read):
    job_id = read()
    store.review.claim(job_id, "bob")
    assert "bob has it open" in client.get("/review").text
    assert "<strong>bob</strong> has this job open" in client.get(f"/review/{job_id}").text
    refused = send(client, store, job_id, "traces", agree="yes")
    assert refused.status_code == 409 and "bob has this job open" in refused.text
    client.post(f"/review/{job_id}/take-over")
    assert send(client, store, job_id, "traces", agree="yes").status_code == 200


def test_print_of_another_patient_asks_for_a_choice(client, store, spool, read):
    job_id = read("Patient ID: XR55231", "Name: OTHERMAN, JOE", "Date 2026-03-14 09:32", accession_number="A1")
    html = client.get(f"/review/{job_id}").text
    assert html.count('class="differs"') == 2
    assert 'value="2026-03-01"' in html and 'value="10:00:00"' in html and "as printed on the page" in html
    missing = send(client, store, job_id, "patient", action="agree")
    assert missing.status_code == 422 and missing.text.count("Which is right?") == 2
    assert store.jobs.get(job_id).patient_agreed_by == ""
    right = {"choice_patient_id": "record", "choice_patient_name": "record"}
    send(client, store, job_id, "patient", action="agree", **right)
    assert store.jobs.get(job_id).patient_agreed_by.endswith("@localhost")


def test_page_is_right_leads_to_the_patient_whom_it_names(client, store, spool, read):
    Receiver(Records(store), "ASCII")(
        b"MSH|^~\\&|A|B|C|D|||ADT^A08|1|P|2.5\rPID|1||XR55231||Otherman^Joe||19700101|M\r"
    )
    job_id = read("Patient ID: XR55231", accession_number="A1")
    found = send(client, store, job_id, "patient", action="agree", choice_patient_id="page")
    assert "Otherman Joe" in found.text and "patients received" in found.text
    taken = {"patient_id": "XR55231", "patient_name": "Otherman^Joe", "patient_birth_date": "19700101"}
    send(client, store, job_id, "patient", action="take", **taken, date="2026-03-14", time="09:32")
    job = store.jobs.get(job_id)
    assert (job.status, job.patient_id, job.accession_number) == (JobStatus.QUEUED, "XR55231", "")
    assert job.context.acquisition_date_time == "20260314093200"
    assert job.patient_agreed_by.endswith("@localhost")
    run(store, spool, "Patient ID: XR55231")
    assert store.jobs.get(job_id).patient_agreed_by


def test_result_of_another_patient_that_was_sent_is_corrected(client, store, spool, read):
    job_id = read()
    store.deliveries.delivered(store.deliveries.of_job(job_id)[0].id, "AA")
    send(client, store, job_id, "patient", action="take", patient_id="P2", patient_name="Other^Ann")
    job = store.jobs.get(job_id)
    assert (job.status, job.revision, job.patient_id) == (JobStatus.QUEUED, 1, "P2")


def test_entry_that_breaks_a_form_comes_back(client, store, read):
    job_id = read()
    wrong = {"patient_id": "P2", "patient_name": "A" * 70, "patient_birth_date": "1961-05-04"}
    answer = send(client, store, job_id, "patient", action="take", **wrong)
    assert answer.status_code == 422
    assert "patient_name must be a DICOM name" in answer.text
    assert f'value="{"A" * 70}"' in answer.text
    nobody = send(client, store, job_id, "patient", action="take", patient_name="Known^Only")
    assert "A patient ID is needed." in nobody.text and 'value="Known^Only"' in nobody.text
    assert store.jobs.get(job_id).patient_id == "P1"


def test_page_without_a_patient_is_read_for_the_reviewer(client, store, spool, read):
    job_id = read(patient_id="", patient_name="")
    assert "Read the page now" in client.get(f"/review/{job_id}").text
    client.post(f"/review/{job_id}/read")
    assert client.get(f"/review/{job_id}/state").json()["working"]
    run(store, spool, "MRN: 778899")
    assert store.jobs.get(job_id).status == JobStatus.NEEDS_REVIEW
    html = client.get(f"/review/{job_id}").text
    assert "778899" in html
    refused = send(client, store, job_id, "patient", action="agree")
    assert refused.status_code == 422 and "search for one, or enter it" in refused.text


def test_markup_in_names_files_and_print_is_shown_as_text(client, store, spool, read):
    job_id = read(
        f"Name: {MARKUP}, JOE",
        patient_name=f"{MARKUP}^Joe",
        accession_number="<i>A</i>",
        source="folder:/scans/<img src=x onerror=alert(1)>",
    )
    Receiver(Records(store), "ASCII")(f"MSH|^~\\&|A|B|C|D|||ADT^A08|1|P|2.5\rPID|1||H7||{MARKUP}^Hl7\r".encode())
    pages = [client.get(path).text for path in ("/review", f"/review/{job_id}", "/")]
    pages.append(send(client, store, job_id, "patient", action="search", number="H7").text)
    pages.append(send(client, store, job_id, "patient", action="search", number='"><script>x</script>').text)
    pages.append(send(client, store, job_id, "decision", verdict="REJECT", reason=MARKUP).text)
    for html in pages:
        assert "alert(1)<" not in html and "<script>" not in html and "<img src=x" not in html and "<i>A" not in html
        assert not re.search(r"<script(?![^>]*src=)", html)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in pages[1] and "&lt;script&gt;" in pages[3]
    geometry = client.get(f"/jobs/{job_id}/pages/1/geometry.json")
    assert geometry.headers["content-type"] == "application/json"
    assert geometry.headers["x-content-type-options"] == "nosniff"


def test_hidden_patients_are_shown_on_request_only(store, spool, read):
    job_id = read()
    hidden = Settings(web=WebSettings(show_patient=False), destinations=(EHR,))
    with site(store, spool, hidden) as url, browser(url) as client:
        assert "Müster" not in client.get("/review").text
        assert "Müster" not in client.get(f"/review/{job_id}").text
        assert "Müster Zoë" in client.get(f"/review/{job_id}?pictures=on").text


def test_page_of_which_nobody_knows_the_time_is_accepted_with_one(store, spool, intake, read):
    dated = Settings(web=SETTINGS.web, destinations=(EHR,))
    job_id = read()
    store.jobs.retry(job_id, "cli")
    assert Worker(dated, store, spool, Undated(), name="w").run_once()
    with site(store, spool, dated) as url, browser(url) as client:
        agree(client, store, job_id)
        refused = send(client, store, job_id, "decision", verdict="ACCEPT")
        assert refused.status_code == 409 and "the time of recording is not known" in refused.text
        send(client, store, job_id, "patient", action="agree", date="2026-03-14", time="09:32")
        assert Worker(dated, store, spool, Undated(), name="w").run_once()
        send(client, store, job_id, "traces", agree="yes")
        assert send(client, store, job_id, "decision", verdict="ACCEPT").status_code == 200
    assert store.jobs.get(job_id).context.acquisition_date_time == "20260314093200"
    assert store.review.decision(job_id) is not None


def test_decisions_of_a_reviewer_are_carried_out_in_turn(store, spool, read, monkeypatch):
    first, second = read(seed=1), read(seed=2)
    for job_id in (first, second):
        store.review.decide(job_id, store.review.version(job_id), new_decision(job_id, Verdict.REJECT, "ann", "x"))
    later(monkeypatch, store, spool)
    assert {store.jobs.get(each).status for each in (first, second)} == {JobStatus.CANCELLED}


def test_lines_that_overlap_are_refused_beside_their_field(client, store, read):
    job_id = read()
    line = {"row": 1, "points_px": [[10, 20], [30, 22]]}
    part = {"row": 1, "from_px": [25, 20], "to_px": [40, 20]}
    stated = json.dumps({"lines": [line, line], "unreadable": [part]})
    refused = send(client, store, job_id, "corrections", corrections=stated)
    assert refused.status_code == 422
    (beside,) = re.findall(r'id="error-lines" role="alert">([^<]*)<', refused.text)
    assert beside == "No. 2: a line in row 1 must not overlap what is stated there already"
    assert "No. 1: an unreadable part of row 1 must not overlap what is stated there already" in refused.text
    assert store.jobs.get(job_id).status == JobStatus.DONE


def test_lead_that_is_not_on_the_page_is_not_left_out(client, store, read):
    refused = send(client, store, read(), "corrections", corrections='{"left_out": ["V7"]}')
    assert refused.status_code == 422 and "V7 must be on the page" in refused.text


def test_search_at_a_peer_is_told_with_the_name_of_the_reviewer(store, spool, tmp_path, read):
    lookup = {"model": "worklist", "host": "127.0.0.1", "port": 9, "ae_title": "RIS", "timeout_s": 1}
    folder = {
        "path": tmp_path / "in",
        "lookup": lookup,
        "identity": "filename",
        "filename_pattern": "(?P<patient_id>.+)",
    }
    settings = Settings.model_validate({"web": SETTINGS.web, "folders": [folder]})
    job_id = read(source=f"folder:{tmp_path / 'in'}")
    store.trail.begin()
    with site(store, spool, settings) as url, browser(url) as client:
        assert "could not be asked" in send(client, store, job_id, "patient", action="search", number="H7").text
    (entry,) = [each for each in store.trail.entries(100) if each.kind == AuditKind.QUERY]
    assert entry.full_name.endswith("@localhost") and entry.full_name == entry.name
    assert (entry.address, entry.detail, entry.failed) == ("127.0.0.1", "worklist PatientID=H7", True)


def test_printed_time_that_is_left_as_it_is_asks_for_no_new_reading(client, store, read):
    job_id = read()
    assert 'value="2026-03-01"' in client.get(f"/review/{job_id}").text
    send(client, store, job_id, "traces", agree="yes")
    send(client, store, job_id, "patient", action="agree", date="2026-03-01", time="10:00")
    job = store.jobs.get(job_id)
    assert job.status == JobStatus.DONE and job.traces_agreed_by and job.patient_agreed_by
    assert job.context.acquisition_date_time == ""
    send(client, store, job_id, "patient", action="agree", date="2026-03-01", time="10:01")
    assert store.jobs.get(job_id).context.acquisition_date_time == "20260301100100"
