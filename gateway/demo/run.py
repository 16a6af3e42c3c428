"""The demonstration from start to end."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from gateway.demo.daemon import free_ports, running, settings_text, wait_for_echo
from gateway.demo.outcome import N_JOBS, collect, report
from gateway.demo.pages import draw, drop, send
from gateway.demo.peers import Ehr, Pacs
from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.store.tables import Delivery, Job

_WORK_TIMEOUT_S = 300.0
_SERVE = (sys.executable, "-m", "gateway", "serve", "--config")


def run_demo(out: Path = Path("demo-out"), daemon_command: Sequence[str] = _SERVE) -> int:
    """Run the demonstration and leave its results in `out`.

    Parameters
    ----------
    daemon_command
        Starts the gateway; the path of a settings file is added.

    Returns
    -------
    int
        0 when both pages reached both receivers; 1 when anything is missing, which is then printed.
    """
    console = Console(highlight=False)
    out.mkdir(parents=True, exist_ok=True)
    console.print("Drawing two pages of simulated patients")
    page_png, page_pdf = out / "c-store.page.png", out / "folder.page.pdf"
    draw(page_png, seed=1)
    draw(page_pdf, seed=2)
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ecg-gateway-demo-")))
        pacs, ehr = Pacs(), Ehr()
        stack.callback(pacs.stop)
        stack.callback(ehr.stop)
        dicom_port, web_port = free_ports(2)
        config = root / "gateway.toml"
        config.write_text(settings_text(root, dicom_port, web_port, pacs.port, ehr.port), encoding="utf-8")
        console.print("Starting the gateway, a receiving PACS and an HL7 listener")
        daemon = stack.enter_context(running([*daemon_command, str(config)], out / "gateway.log"))
        problem = wait_for_echo(daemon, dicom_port)
        if not problem:
            console.print("Sending one page by C-STORE, dropping the other into the watched folder")
            send(page_png, dicom_port)
            drop(page_pdf, root / "inbox")
            console.print(f"Waiting for both; the queue is at http://127.0.0.1:{web_port}/ meanwhile")
            store = Store(root / "var" / "gateway.db")
            stack.callback(store.close)
            problem = wait_until_settled(daemon, store)
            spool = Spool(root / "var" / "spool", minimum_free_mib=0)
            outcomes = [collect(job, store, spool, pacs, ehr, out) for job in reversed(store.jobs.newest())]
        else:
            outcomes = []
    return report(console, out, outcomes, problem)


def wait_until_settled(daemon: subprocess.Popen[bytes], store: Store) -> str:
    """Return "" as soon as both jobs have ended and nothing is left to deliver, or why that did not happen."""
    deadline = time.monotonic() + _WORK_TIMEOUT_S
    while time.monotonic() < deadline:
        jobs = store.jobs.newest()
        if len(jobs) >= N_JOBS and all(_is_settled(job, store.deliveries.of_job(job.id)) for job in jobs):
            return ""
        if daemon.poll() is not None:
            return f"the gateway ended with exit status {daemon.returncode}"
        time.sleep(0.3)
    return f"the jobs did not end within {_WORK_TIMEOUT_S:g} s"


def _is_settled(job: Job, deliveries: list[Delivery]) -> bool:
    working = job.status in (JobStatus.QUEUED, JobStatus.RUNNING)
    return not working and all(delivery.status != DeliveryStatus.PENDING for delivery in deliveries)
