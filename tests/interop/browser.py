"""Debian's chromium at the pages of the real daemon: for tests that work as a person does."""

from __future__ import annotations

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
from gateway.demo.peers import Ehr
from gateway.domain.status import JobStatus
from gateway.settings import Settings, load_settings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from tests.drawn_digitizer import PX_PER_MM, drawn_page
from tests.gateway.web.browsing import PASSWORD
from tests.waiting import PATIENCE_S, SOON_S, eventually, wait_for

CHROMIUM = "/usr/bin/chromium"
WIDE, NARROW = (1280, 900), (390, 844)


@contextmanager
def chromium_browser():
    """Start the browser; skip where it, or its driver, is not installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not os.path.exists(CHROMIUM):
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Bench:
    """The daemon, its files, and the listener that gets its messages."""

    url: str
    root: Path
    settings: Settings
    store: Store
    ehr: Ehr

    @property
    def spool(self) -> Spool:
        return Spool(self.settings.storage.path / "spool", minimum_free_mib=0)

    def submit(self, seed: int = 0, page: bytes = b"", timeout_s: float = PATIENCE_S, **identity: str) -> str:
        """Have a page read; return its job."""
        identity = {"patient_id": "P1000", "patient_name": "Muster^Zoe", "accession_number": "A1"} | identity
        known = {job.id for job in self.store.jobs.newest()}
        name = f"page-{seed}-{len(known)}.png"
        (self.root / "inbox" / f"{name}.json").write_text(json.dumps(identity), encoding="utf-8")
        (self.root / "inbox" / f".{name}").write_bytes(page or drawn_page(seed))
        (self.root / "inbox" / f".{name}").rename(self.root / "inbox" / name)
        new = wait_for("the job", lambda: [job.id for job in self.store.jobs.newest() if job.id not in known])
        self.ended(new[0], timeout_s)
        return new[0]

    def ended(self, job_id: str, timeout_s: float = PATIENCE_S) -> None:
        """Wait until a job is not read any more."""
        eventually(lambda: self.store.jobs.get(job_id).status not in (JobStatus.QUEUED, JobStatus.RUNNING), timeout_s)

    def actions(self, job_id: str) -> list[str]:
        return [event.action for event in self.store.jobs.events(job_id)]


@contextmanager
def start(root: Path, program: str, more: str = "") -> Iterator[Bench]:
    """Run the daemon with the digitizer of `program`, and `more` settings."""
    ehr = Ehr()
    dicom_port, web_port = free_ports(2)
    config = root / "gateway.toml"
    config.write_text(
        f"""
dicom.port = {dicom_port}
web.port = {web_port}
web.show_patient = true
review.undated = "receipt"
storage.path = {json.dumps(str(root / "var"))}
{more}
[[folders]]
path = {json.dumps(str(root / "inbox"))}
create = true
settle_s = 0.2
[[destinations]]
kind = "hl7"
name = "ehr"
host = "127.0.0.1"
port = {ehr.port}
""",
        encoding="utf-8",
    )
    with open(root / "daemon.log", "wb") as log:
        daemon = subprocess.Popen(
            [
                sys.executable,
                "-m",
                *program.split(),
                "serve",
                *(["--config"] if "gateway" in program else []),
                str(config),
            ],
            stdout=log,
            stderr=log,
        )
        store = None
        try:
            eventually(lambda: b"Receiving as" in (root / "daemon.log").read_bytes() or daemon.poll() is not None)
            assert daemon.poll() is None, (root / "daemon.log").read_text()
            settings = load_settings(config)
            store = Store.open(settings.storage)
            yield Bench(f"http://127.0.0.1:{web_port}", root, settings, store, ehr)
        finally:
            daemon.terminate()
            daemon.wait(PATIENCE_S)
            ehr.stop()
            if store:
                store.close()


@contextmanager
def opened(chromium, url: str, size=WIDE, **options):
    """Open a page; fail for every error of a script, and for all that the policy of contents forbade."""
    context = chromium.new_context(base_url=url, viewport=dict(zip(("width", "height"), size, strict=True)), **options)
    context.set_default_timeout(1000 * SOON_S)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("dialog", lambda dialog: errors.append(f"dialog {dialog.message}") or dialog.dismiss())
    page.on("console", lambda said: errors.append(said.text) if "Content Security Policy" in said.text else None)
    yield page
    context.close()
    assert errors == []


def show(page, job_id: str) -> None:
    page.goto(f"/review/{job_id}")
    ready(page)


def ready(page) -> None:
    page.wait_for_selector("#bench[data-ready=true]")


def at(page, canvas: str, x_mm: float, y_mm: float) -> tuple[float, float]:
    """Where a paper point of the drawn page is on the screen."""
    return page.evaluate(
        """([canvas, x, y]) => {
            const box = document.getElementById(canvas).getBoundingClientRect();
            const [sx, sy] = document.getElementById(canvas).viewport.toScreen([x, y]);
            return [box.left + sx, box.top + sy];
        }""",
        [canvas, x_mm * PX_PER_MM, y_mm * PX_PER_MM],
    )


def log_in(page, name: str, path: str = "/login") -> None:
    page.goto(path)
    page.locator("input[name=name]").fill(name)
    page.locator("input[name=password]").fill(PASSWORD)
    page.locator("main button").click()
    page.wait_for_selector("#user")
