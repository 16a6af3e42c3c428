from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from gateway.domain.account import AccountRole
from gateway.domain.clock import utc_now
from gateway.domain.status import JobStatus
from gateway.settings import DicomSettings, DicomTlsSettings, ReviewSettings, Settings, WebSettings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.store.tables import Page
from gateway.web.pages.job import findings_of
from gateway.web.pages.words import age_in_words
from tests.gateway.web.browsing import add_account, browser, site
from tests.tls_samples import Authority
from tests.waiting import PATIENCE_S

SECRETS = ("MRN-SECRET", "Secret", "Ada", "19610504", "ACC-SECRET")


@contextmanager
def client_for(
    store: Store,
    spool: Spool,
    problems: list[str] | None = None,
    dicom: DicomSettings | None = None,
    **web: object,
) -> Iterator[httpx.Client]:
    """Serve the application on a free port; paths are sent as they are written."""
    settings = Settings(web=WebSettings(**web), dicom=dicom or DicomSettings())
    with (
        site(store, spool, settings, lambda: problems or []) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE_S) as client,
    ):
        yield client


@pytest.fixture
def client(store: Store, spool: Spool) -> Iterator[httpx.Client]:
    with client_for(store, spool) as client:
        yield client


def words(html: str) -> str:
    """Return a page's text, as read aloud."""
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def test_empty_queue(client):
    answer = client.get("/")
    assert answer.status_code == 200
    assert "No job here" in answer.text
    assert "<table" not in answer.text


def test_queue_shows_every_job_with_its_figures(client, sample):
    html = client.get("/").text
    rows = [words(row) for row in re.findall(r"<tr role=\"row\" class.*?</tr>", html, re.S)]
    assert [row.split()[0] for row in rows] == [
        job[:8] for job in (sample.failed, sample.done, sample.queued, sample.running, sample.review)
    ]
    assert rows[1] == (
        f"{sample.done[:8]} Done 50 min DICOM CART1 3x4+1 17.3 dB 99 % pacs delivered ehr refused archive pending"
    )
    assert rows[4].startswith(f"{sample.review[:8]} Needs review lead V3 was read to 42 % 40 min Folder ward 3 3x4+1")
    assert "42 % pacs pending" in rows[4]
    assert rows[0].startswith(f"{sample.failed[:8]} Failed there is no ECG grid on the page 30 min DICOM CART2")
    assert "All 5 Queued 1 Running 1 Done 1 Needs review 1 Failed 1 Cancelled 0" in words(html)
    assert "Deliveries: ehr refused 1 archive pending 2 ehr pending 1 pacs pending 1 pacs delivered 1" in words(html)


def test_filter_by_status(client, sample):
    html = client.get("/?status=FAILED").text
    assert sample.failed in html
    assert sample.done not in html
    assert 'aria-current="page">Failed' in html
    assert 'hx-get="/?status=FAILED&amp;page=1&amp;seen=' in html  # the refresh keeps the filter


def test_queue_refreshes_itself_unless_paused(client, sample):
    assert 'hx-trigger="every 3s"' in client.get("/").text
    assert "hx-trigger" not in client.get("/?refresh=off").text


@pytest.mark.parametrize("query", ["status=NONSENSE", "page=0", "page=x", "refresh=maybe", "page=999999999999999999"])
def test_nonsense_query(client, query):
    assert client.get(f"/?{query}").status_code == 422


def test_queue_in_pages(client, store, spool, add_job):
    ids = [add_job(f"dicom:C{n}", 60 - n) for n in range(52)]
    first, second = client.get("/").text, client.get("/?page=2").text
    assert ids[51] in first
    assert ids[1] not in first
    assert 'id="older"' in first
    assert 'id="newer"' not in first
    assert ids[1] in second
    assert ids[51] not in second
    assert 'id="newer"' in second
    assert 'id="older"' not in second


@pytest.mark.parametrize(
    ("agree", "words", "tone"),
    [
        (True, "the limb leads add up", "good"),
        (False, "the limb leads do not add up", "warn"),
        (None, "", "idle"),
    ],
)
def test_the_limb_leads_are_judged_once(agree: bool | None, words: str, tone: str) -> None:
    """A small I + III - II is not green beside the digitizer's warning that the limb leads do not add up."""
    kept = json.dumps({"einthoven_residual_mv": 0.01, "limb_leads_agree": agree})
    page = Page(job_id="J", page_number=1, status=JobStatus.NEEDS_REVIEW, quality_json=kept)
    (found,) = findings_of(page, ReviewSettings())
    assert (found.name, found.words, found.tone) == ("I + III - II", words, tone)


def test_job_page(client, sample):
    html = client.get(f"/jobs/{sample.done}?pictures=on").text
    text = words(html)
    assert "Estimated SNR 17.3 dB good" in text
    assert "Signal read 99 % good" in text
    assert "Layout 3x4+1 rhythm strip II, score 0.93" in text
    assert "I + III - II 0.021 mV the limb leads add up" in text
    assert "Paper speed 25 mm/s printed on the page" in text
    assert "Gain 10 mm/mV measured on the calibration pulse" in text
    assert "Waveform SOP Instance UID 2.25.1234567890" in text
    assert "pacs 1 DICOM C-STORE delivered 1 0x0000" in text
    assert "ehr 1 HL7 refused 1 AR ehr: answered AR" in text
    assert "archive 1 folder pending 1 \u2013 archive: no space next attempt" in text
    for action in ("RECEIVED", "CLAIM", "COMPLETE", "DELIVERY_DELIVER", "DELIVERY_REFUSE", "DELIVERY_DEFER"):
        assert action in text
    for picture in ("page.png", "overlay.png"):
        source = f"/jobs/{sample.done}/pages/1/{picture}"
        assert f'src="{source}"' in html
        answer = client.get(source)
        assert answer.headers["content-type"] == "image/png"
        assert answer.content.startswith(b"\x89PNG")


def test_doubtful_page_says_so(client, sample):
    text = words(client.get(f"/jobs/{sample.review}").text)
    assert "Signal read 42 % under the limit of 80 %" in text
    assert "Warnings lead V3 was read to 42 %" in text
    assert "42 % (low)" in text


def test_job_page_refreshes_only_what_may_change(client, sample):
    assert client.get(f"/jobs/{sample.running}").text.count("hx-trigger") == 2
    assert client.get(f"/jobs/{sample.done}").text.count("hx-trigger") == 1  # a delivery is pending
    assert client.get(f"/jobs/{sample.failed}").text.count("hx-trigger") == 0


def test_failed_page_has_no_pictures(client, sample):
    html = client.get(f"/jobs/{sample.failed}").text
    assert "there is no ECG grid on the page" in html
    assert "<img loading" not in html
    assert client.get(f"/jobs/{sample.failed}/pages/1/overlay.png").status_code == 404


def test_deleted_files_and_a_legal_hold_are_shown(client, store, spool, sample):
    store.files.hold(sample.review, "cli")
    assert "Legal hold the files are kept" in words(client.get(f"/jobs/{sample.review}").text)
    _, ehr, archive = store.deliveries.of_job(sample.done)
    for delivery in (ehr, archive):
        if delivery.status == "REFUSED":
            store.deliveries.retry(delivery.id, "cli")
        store.deliveries.delivered(delivery.id, "AA")
    assert store.files.purge(sample.done, utc_now(), "retention", "3 files with 9 bytes were deleted: too old")
    spool.remove(sample.done)
    page = client.get(f"/jobs/{sample.done}")
    assert re.search(r"\d{4}-\d\d-\d\d .*: 3 files with 9 bytes were deleted: too old\.", words(page.text))
    assert "The file as received" not in page.text and "Confirm the result" not in page.text
    assert page.text.count("PURGE") == 1
    gone = client.get(f"/jobs/{sample.done}/source")
    assert gone.status_code == 404 and "were deleted: too old" in gone.text


def test_patient_is_hidden_by_default(client, sample):
    paths = ["/", "/metrics", "/healthz"] + [f"/jobs/{job}" for job in vars(sample).values()]
    for path in paths:
        html = client.get(path).text
        assert not [secret for secret in SECRETS if secret in html], path
    html = client.get(f"/jobs/{sample.done}").text
    assert "Hidden: log in" in html
    assert "<img loading" not in html  # the picture, with the name that may be printed on it, is not loaded unasked
    assert f'href="/jobs/{sample.done}?pictures=on#page-1"' in html


def test_patient_is_shown_where_configured(store, spool, sample):
    with client_for(store, spool, show_patient=True) as client:
        text = words(client.get(f"/jobs/{sample.done}").text)
        assert "Patient ID MRN-SECRET Name Secret Ada Birth date 19610504 Accession number ACC-SECRET" in text
        assert "<img loading" in client.get(f"/jobs/{sample.done}").text
        assert "<img loading" not in client.get(f"/jobs/{sample.done}?pictures=off").text
        assert "Secret Ada, MRN-SECRET" in client.get("/").text


@pytest.mark.parametrize(
    "path",
    [
        "/jobs/nonsense",
        "/jobs/00000000-0000-0000-0000-000000000000",
        "/jobs/nonsense/pages/1/page.png",
        "/jobs/../pages/1/page.png",
        "/jobs/%2e%2e/pages/1/overlay.png",
        "/jobs/{done}/pages/2/page.png",
        "/jobs/{done}/pages/-1/page.png",
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/docs",
        "/openapi.json",
    ],
)
def test_what_is_not_there(client, sample, path):
    answer = client.get(path.format(done=sample.done))
    assert answer.status_code == 404
    assert "text/html" in answer.headers["content-type"]


@pytest.mark.parametrize(
    "path", ["/", "/jobs/{done}", "/jobs/{done}/pages/1/page.png", "/jobs/x", "/healthz", "/metrics"]
)
def test_headers(client, sample, path):
    headers = client.get(path.format(done=sample.done)).headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]


class Outside(HTMLParser):
    """Collects what the Content-Security-Policy would block, or what comes from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        if tag == "style" or (tag == "script" and "src" not in names):
            self.found.append(tag)
        self.found += [f"{tag} {name}" for name in names if name == "style" or name.startswith("on")]
        for name in ("src", "href", "hx-get"):
            if not (names.get(name) or "/").startswith(("/", "#")):
                self.found.append(f"{tag} {names[name]}")


@pytest.mark.parametrize("path", ["/", "/jobs/{done}", "/jobs/{running}", "/jobs/x"])
def test_nothing_inline_and_nothing_from_elsewhere(client, sample, path):
    parser = Outside()
    parser.feed(client.get(path.format(**vars(sample))).text)
    assert parser.found == []


@pytest.mark.parametrize("path", ["/", "/jobs/{done}"])
def test_landmarks_and_table_headers(client, sample, path):
    html = client.get(path.format(done=sample.done)).text
    assert '<html lang="en">' in html
    for landmark in ("<header", "<main", "<footer", "<nav aria-label="):
        assert landmark in html
    assert html.count("<h1") == 1
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    for table in re.findall(r"<table.*?</table>", html, re.S):
        assert 'scope="col"' in table
    assert not re.search(r"<img(?![^>]*\balt=)", html)


def test_peers_words_are_escaped(client, store, sample):
    delivery = store.deliveries.of_job(sample.review)[0]
    store.deliveries.refuse(delivery.id, "<script>alert(1)</script>", "0xC000")
    html = client.get(f"/jobs/{sample.review}").text
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert" in html


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/", "/jobs/{done}", "/healthz"])
def test_read_only(client, sample, method, path):
    assert client.request(method, path.format(done=sample.done)).status_code == 405


def test_a_name_of_the_worlds_does_not_reach_a_loopback_page(client):
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400
    assert client.get("/", headers={"Host": "localhost:8080"}).status_code == 200


def test_any_name_reaches_a_page_that_is_offered_to_the_network(store, spool):
    with client_for(store, spool, host="0.0.0.0") as client:
        assert client.get("/login", headers={"Host": "gateway.hospital.example"}).status_code == 200


@pytest.mark.parametrize(
    ("seconds", "in_words"),
    [(-1, "0 s"), (0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3600, "1 h"), (86399, "23 h"), (200000, "2 d")],
)
def test_ages(seconds, in_words):
    assert age_in_words(seconds) == in_words


def test_healthy(client, sample):
    answer = client.get("/healthz")
    assert answer.status_code == 200
    body = answer.json()
    assert body["status"] == "ok"
    assert {check["name"]: check["ok"] for check in body["checks"]} == {
        "database": True,
        "spool": True,
        "queue": True,
        "running": True,
        "certificates": True,
    }
    assert body["oldest_queued_age_s"] == pytest.approx(600, abs=30)


def test_health_has_no_details_for_who_has_not_logged_in(store, spool):
    with site(store, spool, Settings(), lambda: ["outbox"]) as url, browser(url) as client:
        assert "checks" in client.get("/healthz").json()
        add_account(store, "vic", AccountRole.VIEWER)
        answer = client.get("/healthz")
        assert (answer.status_code, answer.json()) == (503, {"status": "failing"})
        client.log_in("vic")
        assert "outbox" in client.get("/healthz").text


def test_dead_thread_is_told(store, spool):
    with client_for(store, spool, problems=["outbox", "worker 0 is not running"]) as client:
        answer = client.get("/healthz")
    assert answer.status_code == 503
    failing = [check for check in answer.json()["checks"] if not check["ok"]]
    assert failing == [{"name": "running", "ok": False, "detail": "outbox; worker 0 is not running"}]


@pytest.mark.parametrize(
    ("days", "status", "words"), [(300, 200, ""), (20, 200, "expires on"), (-2, 503, "expired on")]
)
def test_a_certificate_that_ends_is_told(store, spool, tmp_path, days, status, words):
    identity = Authority(tmp_path / "ca").issue("gateway", days=days)
    tls = DicomTlsSettings(certificate_file=identity.certificate_file, private_key_file=identity.private_key_file)
    with client_for(store, spool, dicom=DicomSettings(tls=tls)) as client:
        answer, metrics = client.get("/healthz"), client.get("/metrics").text
    assert answer.status_code == status
    (check,) = [check for check in answer.json()["checks"] if check["name"] == "certificates"]
    assert check["ok"] is (status == 200)
    assert words in check["detail"] and bool(words) == bool(check["detail"])
    name = f'ecg_gateway_certificate_not_after_timestamp_seconds{{file="{identity.certificate_file}"}} '
    (value,) = [line.removeprefix(name) for line in metrics.splitlines() if line.startswith(name)]
    assert float(value) == pytest.approx(time.time() + days * 86400, abs=600)


def test_full_spool_is_told(store, tmp_path):
    with client_for(store, Spool(tmp_path / "full", minimum_free_mib=10**9)) as client:
        answer = client.get("/healthz")
    assert answer.status_code == 503
    assert [check["name"] for check in answer.json()["checks"] if not check["ok"]] == ["spool"]


def test_broken_database_is_told(client, store, sample):
    store.close()
    path = Path(store.database.url.database)
    for name in (path, *path.parent.glob(path.name + "-*")):
        name.write_bytes(b"this is no database" * 1000)
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json()) == (503, {"status": "failing"})  # nobody can be known
    page = client.get("/")
    assert page.status_code == 503
    assert "database" in page.text
    assert client.get("/metrics").status_code == 503


def test_metrics(client, sample):
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = answer.text.splitlines()
    assert 'ecg_gateway_jobs{status="DONE"} 1.0' in lines
    assert 'ecg_gateway_jobs{status="CANCELLED"} 0.0' in lines
    assert 'ecg_gateway_deliveries{destination="ehr",status="REFUSED"} 1.0' in lines
    assert 'ecg_gateway_deliveries{destination="pacs",status="DELIVERED"} 1.0' in lines
    assert "ecg_gateway_digitization_seconds_count 2.0" in lines
    assert "ecg_gateway_digitization_seconds_sum 6.5" in lines
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert 590 < float(values["ecg_gateway_oldest_queued_age_seconds"]) < 640
    assert float(values["ecg_gateway_spool_free_bytes"]) > 1e6


def luminance(colour: str) -> float:
    """Return the relative luminance of #rrggbb or #rgb (WCAG 2.2)."""
    digits = colour.lstrip("#")
    digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(
    ("text", "ground"),
    [(tone, f"{tone}-ground") for tone in ("good", "busy", "warn", "bad", "idle")]
    + [("ink", "ground"), ("quiet", "ground"), ("quiet", "card"), ("accent", "grid"), ("quiet", "bad-ground")],
)
def test_contrast(client, text, ground):
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+);", client.get("/static/style.css").text))
    light, dark = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_htmx_comes_with_its_licence(client):
    assert "Zero-Clause BSD" in client.get("/static/htmx.LICENSE.txt").text
    assert client.get("/static/htmx.min.js").headers["content-type"].startswith("text/javascript")


@pytest.mark.parametrize("number", ["9" * 20, "9" * 110, "9" * 5000, "-1", "0", "1e3", str(2**63), str(2**31)])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/jobs/{job}/pages/{number}/page.png"),
        ("GET", "/jobs/{job}/pages/{number}/overlay.png"),
        ("POST", "/jobs/{job}/deliveries/{number}/again"),
        ("POST", "/merges/{number}/settled"),
    ],
)
def test_number_that_no_row_can_have_is_not_found(client, sample, method, path, number):
    token = client.get("/session").json()["csrf"]
    headers = {"Origin": str(client.base_url).rstrip("/"), "X-CSRF-Token": token}
    answer = client.request(method, path.format(job=sample.done, number=number), headers=headers)
    assert answer.status_code == 404
    assert "There is no such page." in answer.text


@pytest.mark.parametrize("query", ["page=" + "9" * 25, "page=" + "9" * 5000, "page=-1", "status=X", "refresh=x"])
def test_value_that_is_not_allowed_is_answered_beside_its_field(client, sample, query):
    answer = client.get(f"/?{query}")
    assert answer.status_code == 422
    assert f'id="problem-{query.partition("=")[0]}">' in answer.text


@pytest.mark.parametrize("job", ["x", "..%2f..", "%00", "%ff%fe", "a" * 5000, "%F0%9F%92%A9"])
def test_odd_job_id_is_not_found(client, sample, job):
    for path in (f"/jobs/{job}", f"/jobs/{job}/source", f"/jobs/{job}/pages/1/page.png"):
        assert client.get(path).status_code == 404


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "//", "null", "http://\xff"])
def test_odd_origin_is_refused(client, sample, origin):
    answer = client.post("/merges/1/settled", headers={"Origin": origin.encode("latin-1")})
    assert answer.status_code == 403
