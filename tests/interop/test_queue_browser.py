"""The queue in Debian's chromium, with the real daemon: find, send again, pause, upload, take away, export."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.demo.daemon import free_ports
from gateway.domain.account import AccountRole
from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.settings import load_settings
from gateway.store.queue.search import JobFilter
from gateway.store.store import Store
from tests.drawn_digitizer import drawn_page
from tests.gateway.web.browsing import PASSWORD, add_account
from tests.interop.browser import NARROW, WIDE, chromium_browser, opened
from tests.many_jobs import fill
from tests.waiting import PATIENCE_S, eventually

COUNT = 2000

pytestmark = pytest.mark.interop


@dataclass
class Gateway:
    url: str
    root: Path
    config: Path
    store: Store


@contextmanager
def running(root: Path, config: Path) -> Iterator[None]:
    """Run the daemon with the drawn digitizer."""
    log = root / "daemon.log"
    with open(log, "wb") as file:
        command = [sys.executable, "-m", "tests.drawn_digitizer", "serve", str(config)]
        daemon = subprocess.Popen(command, stdout=file, stderr=file)
        try:
            eventually(lambda: b"Receiving as" in log.read_bytes() or daemon.poll() is not None)
            assert daemon.poll() is None, log.read_text()
            yield
        finally:
            daemon.terminate()
            daemon.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway of years, before its daemon starts: `ehr` is a folder that is not there."""
    root = tmp_path_factory.mktemp("queue")
    dicom_port, web_port = free_ports(2)
    config = root / "gateway.toml"
    config.write_text(
        f"""
dicom.port = {dicom_port}
web.port = {web_port}
review.undated = "receipt"
review.deliver_doubtful = true
storage.path = {json.dumps(str(root / "var"))}
[[folders]]
path = {json.dumps(str(root / "inbox"))}
create = true
[[destinations]]
kind = "folder"
name = "ehr"
path = {json.dumps(str(root / "ehr"))}
create = true
[[destinations]]
kind = "folder"
name = "pacs"
path = {json.dumps(str(root / "pacs"))}
create = true
""",
        encoding="utf-8",
    )
    store = Store.open(load_settings(config).storage)
    fill(store, COUNT)
    add_account(store, "ann", AccountRole.ADMIN, full_name="Dr Ann Lee")
    yield Gateway(f"http://127.0.0.1:{web_port}", root, config, store)
    store.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    with chromium_browser() as browser:
        yield browser


def log_in(page) -> None:
    page.goto("/login")
    page.fill("[name=name]", "ann")
    page.fill("[name=password]", PASSWORD)
    page.click("main button[type=submit]")
    page.wait_for_selector("#queue")


def picture(page, name: str) -> None:
    """Keep a picture for a person who asks for them."""
    if folder := os.environ.get("ECG_SCREENSHOTS"):
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


def test_an_administrator_works_in_the_queue(gateway: Gateway, chromium) -> None:
    store = gateway.store
    with running(gateway.root, gateway.config), opened(chromium, gateway.url, WIDE) as page:
        log_in(page)
        picture(page, "queue")
        # one patient's page among many
        page.fill("[name=q]", "P001234")
        page.click("#search button")
        page.wait_for_url("**q=P001234**")
        assert page.locator("#chosen tbody tr").count() == 1
        assert "scan_001234.png" in page.locator("#chosen tbody").inner_text()
        # everything that one destination refused; it is paused, so that nothing leaves
        page.goto("/destinations")
        page.locator("#destination-ehr button", has_text="Pause").click()
        page.wait_for_selector("#destination-ehr button:has-text('Resume')")
        refused = store.search.ids(JobFilter(delivery=DeliveryStatus.REFUSED, destination="ehr"))
        page.goto("/")
        page.click("#deliveries-ehr-refused")
        page.wait_for_url("**delivery=REFUSED**")
        page.check("#all")
        page.locator("#chosen button", has_text="Send again").click()
        assert f"{len(refused)} jobs will send again" in page.locator("#words").inner_text()
        picture(page, "batch")
        page.click("#do")
        page.wait_for_selector("#done")
        assert store.search.ids(JobFilter(delivery=DeliveryStatus.PENDING, destination="ehr")) == refused
        # the list is not renewed under a person who chooses
        page.goto("/")
        page.check("#chosen input[name=job] >> nth=0")
        page.wait_for_timeout(3500)
        assert page.locator("#chosen input[name=job]").first.is_checked()
        # CSV
        page.goto("/?destination=ehr&delivery=PENDING")
        with page.expect_download() as caught:
            page.click("#csv")
        with open(caught.value.path(), encoding="utf-8-sig", newline="") as file:
            assert [row["job"] for row in csv.DictReader(file)] == refused
        page.goto("/statistics")
        picture(page, "statistics")
        page.goto("/system")
        picture(page, "system")
        page.goto("/destinations")
        picture(page, "destinations")
    with running(gateway.root, gateway.config), opened(chromium, gateway.url, WIDE) as page:  # after a restart
        log_in(page)
        assert page.locator("#paused").is_visible()
        assert store.search.ids(JobFilter(delivery=DeliveryStatus.PENDING, destination="ehr")) == refused
        job_id = uploads(page, gateway)
        downloads(page, gateway, job_id)
        if "ECG_SCREENSHOTS" in os.environ:
            looks(gateway, chromium)
        page.goto("/destinations")
        page.locator("#destination-ehr button", has_text="Resume").click()
        page.wait_for_selector("#destination-ehr button:has-text('Pause')")
        # what was refused has no file any more; what was uploaded arrives
        eventually(lambda: not store.search.ids(JobFilter(delivery=DeliveryStatus.PENDING, destination="ehr")))
        assert list((gateway.root / "ehr").glob(f"{job_id}-*"))


def uploads(page, gateway: Gateway) -> str:
    """Upload a page and a file that is none; return the page's job."""
    good, bad = gateway.root / "Müller <1>.png", gateway.root / "notes.txt"
    good.write_bytes(drawn_page(0))
    bad.write_text("no ECG")
    page.goto("/")
    page.click("#upload > summary")
    page.click("#drop summary")
    page.fill("[data-field=patient_id]", "UP-1")
    page.fill("[data-field=patient_name]", "Müller^Zoe")
    page.set_input_files("#files", [str(good), str(bad)])
    page.wait_for_selector("#uploads li.bad")
    assert "the file is no DICOM, PDF, PNG" in page.locator("#uploads li.bad").inner_text()
    link = page.locator("#uploads li.good a")
    link.wait_for()
    picture(page, "upload")
    job_id = link.get_attribute("href").rpartition("/")[2]
    eventually(lambda: gateway.store.jobs.get(job_id).status not in (JobStatus.QUEUED, JobStatus.RUNNING))
    assert gateway.store.jobs.get(job_id).file_name == good.name
    return job_id


def downloads(page, gateway: Gateway, job_id: str) -> None:
    """Take away every form of a result."""
    page.goto(f"/jobs/{job_id}")
    picture(page, "job")
    links = page.locator("#downloads-1 a")
    names = [links.nth(number).get_attribute("href").rpartition("/")[2] for number in range(links.count())]
    assert len(names) == 7
    for name in names:
        with page.expect_download() as caught:
            page.locator(f"#downloads-1 a[href$='{name}']").click()
        assert caught.value.suggested_filename.endswith(name)
        assert Path(caught.value.path()).stat().st_size > 100, name


def looks(gateway: Gateway, chromium) -> None:
    """Keep pictures of the pages as others see them."""
    for name, size, scheme in (("phone", NARROW, "light"), ("dark", WIDE, "dark")):
        with opened(chromium, gateway.url, size, color_scheme=scheme) as page:
            log_in(page)
            for path in ("", "destinations", "statistics"):
                page.goto(f"/{path}")
                picture(page, f"{name}-{path or 'queue'}")
