"""The queue that an administrator works in: search, totals, many jobs at once, CSV, destinations, upload, downloads."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from sqlalchemy import Engine, event

from gateway.domain.account import AccountRole
from gateway.domain.audit import AuditKind
from gateway.domain.clock import utc_now
from gateway.domain.context import StudyContext
from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.intake.accept import Intake
from gateway.settings import FolderDestination, FolderSettings, Settings, WebSettings
from gateway.spool.folder import Spool
from gateway.store.queue.search import JobFilter
from gateway.store.store import Store
from gateway.store.tables import Node
from gateway.worker.worker import Worker
from tests.fake_digitizer import FakeDigitizer, page_png
from tests.fakes import due_anywhere
from tests.gateway.web.browsing import Browser, add_account, browser, site
from tests.many_jobs import fill

COUNT = 120


def words(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def ids(html: str) -> list[str]:
    return re.findall(r'id="job-([^"]+)"', html)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        web=WebSettings(),
        folders=(FolderSettings(path=tmp_path / "inbox"),),
        destinations=(FolderDestination(name="ehr", path=tmp_path / "out"),),
    )


@pytest.fixture
def many(store: Store) -> Store:
    fill(store, COUNT)
    for role in AccountRole:
        add_account(store, f"{role}1", role, full_name=f"Dr {role.title()}")
    return store


@pytest.fixture
def admin(many: Store, spool: Spool, settings: Settings) -> Iterator[Browser]:
    with site(many, spool, settings) as url, browser(url) as client:
        client.log_in("admin1")
        yield client


def test_a_page_is_found_by_what_is_known_of_it_and_counts_are_links(admin: Browser, many: Store) -> None:
    first = admin.get("/")
    assert "120 jobs, 120 pages" in words(first.text)
    failed = many.search.ids(JobFilter(status=JobStatus.FAILED))
    refused = many.search.ids(JobFilter(delivery=DeliveryStatus.REFUSED))
    assert set(ids(first.text)[: len(failed) + len(refused)]) == {*failed, *refused}  # what went wrong comes first
    one = ids(admin.get("/?q=p000042").text)
    assert one == many.search.ids(JobFilter(text="P000042"))
    link = re.search(r'id="deliveries-ehr-refused"[^>]*href="([^"]+)"', first.text)
    assert link is not None
    assert set(ids(admin.get(link[1].replace("&amp;", "&")).text)) == set(refused)
    today = utc_now().astimezone()
    day = (today - timedelta(days=1)).strftime("%Y-%m-%d")
    assert ids(admin.get(f"/?until={day}&q=P000001").text) == []
    assert len(ids(admin.get(f"/?since={day}&q=P000001").text)) == 1
    assert "scan_000042.png" in admin.get("/?q=p000042").text and "DICOM CART1" in first.text


def test_what_cannot_be_answered_says_so_beside_its_field(admin: Browser) -> None:
    for query, field, sentence in (
        ("colour=red", "q", "There is no filter named colour. The filters are q, since"),
        ("status=NONSENSE", "status", "NONSENSE is no state of a job: it is one of QUEUED"),
        ("delivery=x", "delivery", "x is no state of a delivery"),
        ("since=yesterday", "since", "yesterday is no day: write it as 2026-11-30."),
        ("since=2026-02-02&until=2026-02-01", "until", "The last day is before the first."),
        ("page=0", "page", "0 is no number of a page"),
        ("sort=shoe", "sort", "shoe is no order: it is one of failures"),
        ("q=" + "a+" * 9, "q", "At most 8 words"),
    ):
        answer = admin.get(f"/?{query}")
        assert answer.status_code == 422
        said = re.search(rf'id="problem-{field}">([^<]+)', answer.text)
        assert said is not None and sentence in said[1]
        assert ids(answer.text) == []
        assert admin.get(f"/queue.csv?{query}").status_code == 422


def test_a_page_past_the_end_is_the_last_one(admin: Browser) -> None:
    answer = admin.get("/?page=9")
    assert "There is no page 9: this is the last one." in answer.text and "Page 3 of 3" in answer.text
    assert len(ids(answer.text)) == 20


@contextmanager
def statements() -> Iterator[list[str]]:
    """Collect the statements that any database is sent."""
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def test_a_page_costs_a_few_statements_and_nothing_new_costs_next_to_nothing(admin: Browser, many: Store) -> None:
    with statements() as sent:
        assert len(ids(admin.get("/").text)) == 50
    assert len([each for each in sent if each.startswith("SELECT")]) <= 16  # whatever the number of jobs
    seen = re.search(r'hx-get="([^"]+)"', admin.get("/").text)
    assert seen is not None
    again = seen[1].replace("&amp;", "&")
    answers = {admin.get(again, headers={"HX-Request": "true"}).status_code for _ in range(2)}
    with statements() as sent:
        admin.get(again, headers={"HX-Request": "true"})
    assert len([each for each in sent if each.startswith("SELECT")]) <= 4 or 204 not in answers
    assert 204 in answers  # unless the minute has just ended
    many.jobs.cancel(many.search.ids(JobFilter(status=JobStatus.FAILED))[0], "cli")
    assert admin.get(again, headers={"HX-Request": "true"}).status_code == 200


def test_roles(many: Store, spool: Spool, settings: Settings) -> None:
    with site(many, spool, settings) as url, browser(url) as viewer, browser(url) as reviewer:
        viewer.log_in("viewer1")
        reviewer.log_in("reviewer1")
        page = viewer.get("/").text
        assert "P000042" not in page and "scan_0000" not in page and ids(viewer.get("/?q=P000042").text) == []
        assert "You may not see patients" in viewer.get("/?sort=patient").text
        table = viewer.get("/queue.csv").text
        assert "P000042" not in table and "scan_0000" not in table and "patient_id" not in table
        for client in (viewer, reviewer):
            assert client.get("/queue/batch?action=retry&all=on&query=").status_code == 403
            assert client.post("/queue/batch", data={"action": "retry", "all": "on", "count": "1"}).status_code == 403
            assert client.post("/destinations/ehr/pause").status_code == 403
        assert viewer.post("/upload", content=page_png()).status_code == 403
        assert not many.destinations.states().get("ehr") or not many.destinations.states()["ehr"].paused_at


def confirm(admin: Browser, address: str) -> httpx.Response:
    """Look at a batch, then have it done."""
    page = admin.get(address)
    assert page.status_code == 200, page.text
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page.text.split("<main")[1]))
    fields = {name: value.replace("&amp;", "&") for name, value in fields.items() if name != "csrf"}
    return admin.post("/queue/batch", data=fields)


def test_all_that_one_destination_refused_is_sent_again(admin: Browser, many: Store) -> None:
    many.trail.begin()
    refused = many.search.ids(JobFilter(delivery=DeliveryStatus.REFUSED, destination="ehr"))
    query = quote("?delivery=REFUSED&destination=ehr")
    page = admin.get(f"/queue/batch?action=send&all=on&query={query}")
    assert f"{len(refused)} jobs will send again" in words(page.text)
    assert f"These are {len(refused)} deliveries to ehr" in words(page.text)
    assert many.search.totals(JobFilter(delivery=DeliveryStatus.REFUSED)).jobs == len(refused)  # nothing is done yet
    done = confirm(admin, f"/queue/batch?action=send&all=on&query={query}")
    assert f"{len(refused)} jobs send again." in words(done.text)
    assert many.search.ids(JobFilter(delivery=DeliveryStatus.PENDING, destination="ehr")) == refused
    event = many.jobs.events(refused[0])[-1]
    assert (event.action, event.actor) == ("DELIVERY_RETRY", "admin1") and f"one of {len(refused)} jobs" in event.detail
    entries = [entry for entry in many.trail.entries(1000) if entry.kind == AuditKind.DECIDE]
    assert {entry.job_id for entry in entries} == set(refused) and {entry.name for entry in entries} == {"admin1"}
    assert "Dr Admin" in admin.get(f"/jobs/{refused[0]}").text


def test_chosen_jobs_are_retried_cancelled_and_put_first(admin: Browser, many: Store) -> None:
    failed = many.search.ids(JobFilter(status=JobStatus.FAILED))
    done = many.search.ids(JobFilter(status=JobStatus.DONE))[:2]
    chosen = "&".join(f"job={each}" for each in (*failed, *done))
    page = words(admin.get(f"/queue/batch?action=cancel&{chosen}").text)
    assert (
        f"{len(failed)} jobs will be cancelled" in page and "2 others of those chosen are in no state for this" in page
    )
    page = words(admin.get(f"/queue/batch?action=retry&{chosen}").text)
    assert f"{len(failed) + 2} jobs will be digitized again" in page and "2 of them are done" in page
    assert "are queued again" in confirm(admin, f"/queue/batch?action=retry&{chosen}").text
    assert {many.jobs.get(each).status for each in (*failed, *done)} == {JobStatus.QUEUED}
    assert many.jobs.get(done[0]).revision == 1 and many.jobs.get(done[0]).reason == ""
    confirm(admin, f"/queue/batch?action=first&job={done[1]}")
    claimed = many.jobs.claim("w", 60)
    assert claimed is not None and claimed.id == done[1]
    confirm(admin, f"/queue/batch?action=cancel&job={failed[0]}")
    assert many.jobs.get(failed[0]).status == JobStatus.CANCELLED
    assert many.jobs.events(failed[0])[-1].actor == "admin1"
    assert "No job was chosen" in admin.get("/queue/batch?action=retry&query=").text
    assert admin.get("/queue/batch?action=explode&all=on").status_code == 422


def test_a_number_that_has_changed_changes_nothing(admin: Browser, many: Store) -> None:
    failed = many.search.ids(JobFilter(status=JobStatus.FAILED))
    form = {"action": "retry", "all": "on", "query": "?status=FAILED", "count": str(len(failed))}
    many.jobs.cancel(failed[0], "cli")
    answer = admin.post("/queue/batch", data=form)
    assert answer.status_code == 409
    assert f"Nothing was changed: the page said {len(failed)} jobs, and now there are {len(failed) - 1}." in answer.text
    assert many.jobs.get(failed[1]).status == JobStatus.FAILED


def test_csv_has_what_is_shown_without_formulas_and_is_audited(admin: Browser, many: Store) -> None:
    one = many.search.ids(JobFilter(text="P000042"))[0]
    with many.database.write() as session:
        job = session.get_one(type(many.jobs.get(one)), one)
        job.file_name, job.context = "=cmd|' /C calc'!A0.png", StudyContext(patient_id="@SUM(1)", patient_name="+Ä^B")
    many.trail.begin()
    answer = admin.get(f"/queue.csv?q={one}")
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.content.startswith(b"\xef\xbb\xbf")
    (row,) = csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig")))
    assert row["job"] == one and row["file_name"] == "'=cmd|' /C calc'!A0.png"
    assert row["patient_id"] == "'@SUM(1)" and row["patient_name"] == "'+Ä B"
    exported = [entry for entry in many.trail.entries(100) if entry.kind == AuditKind.EXPORT]
    assert [entry.job_id for entry in exported] == ["", one]
    rows = list(csv.DictReader(io.StringIO(admin.get("/queue.csv?delivery=REFUSED").content.decode("utf-8-sig"))))
    assert [each["job"] for each in rows] == many.search.ids(JobFilter(delivery=DeliveryStatus.REFUSED))
    assert {each["deliveries"] for each in rows} == {"pacs delivered; ehr refused"}


def test_a_destination_is_paused_and_resumed(admin: Browser, many: Store, tmp_path: Path) -> None:
    refused = many.search.ids(JobFilter(delivery=DeliveryStatus.REFUSED, destination="ehr"))
    confirm(admin, "/queue/batch?action=send&all=on&query=" + quote("?delivery=REFUSED"))
    assert many.deliveries.due(utc_now(), "ehr")
    page = admin.post("/destinations/ehr/pause")
    assert "paused since" in words(page.text) and "by admin1" in page.text
    assert many.deliveries.due(utc_now(), "ehr") == due_anywhere(many) == []
    assert f"{len(refused)} pending" in words(page.text)
    assert 'id="paused"' in admin.get("/").text
    assert 'ecg_gateway_destination_paused{destination="ehr"} 1.0' in admin.get("/metrics").text
    assert admin.post("/destinations/ehr/pause").status_code == 409
    admin.post("/destinations/ehr/resume")
    assert many.deliveries.due(utc_now(), "ehr")
    assert admin.post("/destinations/nobody/pause").status_code == 404
    assert "is no folder we can write to" in admin.post("/destinations/ehr/test").text
    (tmp_path / "out").mkdir()
    assert "can be written to" in admin.post("/destinations/ehr/test").text


def test_rejected_files_and_workers_are_listed(admin: Browser, many: Store, tmp_path: Path) -> None:
    rejected = tmp_path / "inbox" / "rejected"
    rejected.mkdir(parents=True)
    (rejected / "Secret_Ada.png").write_bytes(b"x")
    (rejected / "Secret_Ada.png.reason.txt").write_text("the file is no DICOM, PDF, PNG, JPEG, TIFF or BMP\n")
    many.workers.seen("worker-a-1")
    text = words(admin.get("/system").text)
    assert "inbox Secret_Ada.png" in text and "the file is no DICOM, PDF" in text
    assert re.search(r"worker-a-1 \d+ s ago", text) and "Nodes" not in text
    admin.post("/logout")
    admin.log_in("viewer1")
    assert "Secret" not in admin.get("/system").text


def test_nodes_are_listed_with_what_they_do_for_all(admin: Browser, many: Store) -> None:
    one, two = (Node(name=name, instance=name, place=f"{name}:/srv", version="0.1.0") for name in ("ecg1", "ecg2"))
    for node in (one, two):
        many.nodes.begin(node, 20.0)
    many.nodes.take("outbox ehr", one, 20.0)
    many.nodes.end(two)
    text = words(admin.get("/system").text)
    assert re.search(r"ecg1 0\.1\.0 0\.0 \d+ s ago outbox ehr", text)
    assert re.search(r"ecg2 0\.1\.0 0\.0 stopped \d+ s ago", text)


def test_statistics(admin: Browser) -> None:
    text = words(admin.get("/statistics").text)
    assert "there is no ECG grid on the page" in text and "Folder ward 3 30" in text and "12x1 30" in text
    assert admin.get("/statistics?days=5").status_code == 422


def test_an_upload_is_a_job_when_it_is_answered(
    admin: Browser, many: Store, spool: Spool, settings: Settings, tmp_path: Path
) -> None:
    identity = quote(json.dumps({"patient_id": "UP1", "patient_name": "Grün^Åse"}))
    headers = {"X-File-Name": quote("Åse 1.png"), "X-Identity": identity}
    answer = admin.post("/upload", content=page_png(), headers=headers).json()
    job = many.jobs.get(answer["job"])
    assert (job.source, job.file_name, job.patient_id) == ("upload", "Åse 1.png", "UP1")
    assert many.jobs.events(job.id)[0].actor == "admin1"
    assert admin.post("/upload", content=page_png(), headers=headers).json() == {"job": job.id, "duplicate": True}
    for data, problem in ((b"", "the file is empty"), (b"text", "the file is no DICOM, PDF"), (page_png()[:-20], "")):
        refused = admin.post("/upload", content=data, headers={"X-File-Name": "x"})
        assert refused.status_code == 422 and problem in refused.json()["problem"]
    wrong = {"X-Identity": quote(json.dumps({"patient_birth_date": "1961"}))}
    assert "patient_birth_date must be" in admin.post("/upload", content=page_png(), headers=wrong).json()["problem"]
    assert admin.post("/upload", content=b"x", headers={"X-CSRF-Token": "no"}).status_code == 403
    # it is read, and every form of the result can be taken away
    assert Worker(settings, many, spool, FakeDigitizer(), name="w").run_once()
    page = admin.get(f"/jobs/{job.id}")
    links = re.findall(r'href="([^"]+/download/[^"]+)"', page.text)
    assert len(links) == 7
    starts = {"dcm": b"", "pdf": b"%PDF", "png": b"\x89PNG", "csv": b"time_s,", "json": b"{", "hl7": b"MSH|"}
    for link in links:
        file = admin.get(link)
        assert file.status_code == 200, (link, file.text)
        assert file.content.startswith(starts[link.rpartition(".")[2]]), link
        assert "attachment" in file.headers["content-disposition"]
    assert b"UP1" in admin.get(next(link for link in links if link.endswith("hl7"))).content
    assert admin.get(f"/jobs/{job.id}/pages/1/download/x.doc").status_code == 404
    assert Intake(spool, many).has(job.source_key)
