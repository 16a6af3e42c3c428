"""`python -m tests.scale [--nodes 1 2 4 8] [--rows N] [--seconds S] [--kill S] [--sqlite]`: run, print the tables.

Each run starts its nodes on a database that holds `--rows` finished jobs, queues as many as the nodes can do in
`--seconds`, and waits for the last one.  `--kill` then lets nodes die at random (SIGKILL) and start again.  The exit
status is 1 where a job is lost or was done twice.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from sqlalchemy import URL, func, insert, select
from sqlmodel import col

from gateway.domain.clock import utc_now
from gateway.domain.context import StudyContext
from gateway.domain.received import ReceivedObject
from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.intake.accept import Intake
from gateway.settings import load_settings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.store.tables import Delivery, Job, JobEvent, Page, new_id
from tests.fake_digitizer import page_png
from tests.postgresql import PASSWORD, running_server
from tests.scale.node import PAGE_S

_LEASE_S = 3.0
_ROWS_AT_ONCE = 5000
_FIRST_JOB_S = 60.0  # until a node has started


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one run measured."""

    nodes: int
    jobs: int
    seconds: float
    claims_ms: tuple[float, float]  # median, 99th percentile

    @property
    def rate(self) -> float:
        """Jobs/s."""
        return self.jobs / self.seconds


class Site:
    """One database, one spool, and nodes on both."""

    def __init__(self, root: Path, url: URL | None) -> None:
        self.root = root
        self.config = root / "gateway.toml"
        storage = {"path": str(root / "var"), "minimum_free_mib": 0}
        if url is not None:
            (root / "database.pw").write_text(PASSWORD + "\n")
            address = url._replace(password=None).render_as_string()
            storage |= {"database": address, "database_password_file": str(root / "database.pw")}
        text = ["[storage]", *(f"{key} = {json.dumps(value)}" for key, value in storage.items())]
        folder = f'[[destinations]]\nkind = "folder"\nname = "out"\npath = {json.dumps(str(root / "out"))}'
        self.config.write_text("\n".join([*text, f"[worker]\nlease_s = {_LEASE_S}", folder]) + "\n")
        settings = load_settings(self.config)
        self.store = Store.open(settings.storage)
        self.spool = Spool(settings.storage.path / "spool", 0)
        self.nodes: list[subprocess.Popen[bytes]] = []
        self._started = 0
        self._queued = 0

    def fill(self, rows: int) -> None:
        """Let so many jobs have been done before, in the last year."""
        now = utc_now()
        for start in range(0, rows, _ROWS_AT_ONCE):
            many = [
                Job(id=new_id(), source="dicom:CART", source_key=f"1.2.{start + n}", media_type="application/dicom")
                for n in range(min(_ROWS_AT_ONCE, rows - start))
            ]
            for job in many:
                job.status, job.context = JobStatus.DONE, StudyContext(patient_id=f"P{random.Random(job.id).random()}")
                job.patient_id = job.context.patient_id
            pages = [{"job_id": job.id, "page_number": 1, "status": JobStatus.DONE} for job in many]
            events = [{"job_id": job.id, "action": "COMPLETE", "actor": "before", "at": now} for job in many]
            with self.store.database.write() as session:
                session.execute(insert(Job), [dict(job) for job in many])
                session.execute(insert(Page), pages)
                session.execute(insert(JobEvent), events)

    def queue(self, count: int) -> list[str]:
        """Receive so many pages; return their jobs."""
        intake = Intake(self.spool, self.store)
        jobs = []
        for n in range(self._queued, self._queued + count):
            received = ReceivedObject(
                source="submit",
                source_key=f"page-{n}",
                media_type="image/png",
                data=page_png(seed=n),
                context=StudyContext(patient_id=f"P{n}", study_date="20260301"),
                actor="scale",
            )
            jobs.append(intake.accept(received).job_id)
        self._queued += count
        return jobs

    def start(self, count: int) -> None:
        """Start so many nodes."""
        for _ in range(count):
            self._started += 1
            name = f"node-{self._started}"
            command = [sys.executable, "-m", "tests.scale.node", str(self.config), name, str(self.root / f"{name}.txt")]
            with (self.root / "log.txt").open("ab") as log:
                self.nodes.append(subprocess.Popen(command, stdout=log, stderr=log))

    def stop(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            node.terminate()
        for node in self.nodes:
            node.wait()
        self.nodes.clear()

    def left(self) -> int:
        """Return how many jobs are not done."""
        waiting = (JobStatus.QUEUED, JobStatus.RUNNING)
        with self.store.database.read() as session:
            return session.exec(select(func.count()).where(col(Job.status).in_(waiting))).scalar_one()

    def wait(self, limit_s: float, *, rescue: bool = False) -> None:
        """Wait until nothing is left to do."""
        until = time.monotonic() + limit_s
        while self.left():
            if time.monotonic() > until:
                raise SystemExit(f"{self.left()} jobs are not done after {limit_s:.0f} s: see {self.root}/log.txt")
            if rescue:
                self.store.jobs.rescue(1000)
            time.sleep(0.1)

    def claims_ms(self) -> tuple[float, float]:
        """Return median and 99th percentile of what the claims took, and begin anew."""
        took: list[float] = []
        for file in self.root.glob("node-*.txt"):
            took += [float(line) * 1000 for line in file.read_text().split()]
            file.unlink()
        return float(np.median(took)), float(np.percentile(took, 99))


def measure(site: Site, nodes: int, seconds: float) -> Run:
    """Let so many nodes do what they can in about so many seconds."""
    warm = site.queue(nodes)
    site.start(nodes)
    site.wait(_FIRST_JOB_S)
    time.sleep(2.0)  # those that found no job have started, too
    site.claims_ms()
    jobs = site.queue(max(nodes, round(nodes * seconds / (PAGE_S * 4))))
    began = time.monotonic()
    site.wait(20 * seconds + _FIRST_JOB_S)
    took = time.monotonic() - began
    claims = site.claims_ms()
    site.stop()
    check(site, warm + jobs)
    return Run(nodes=nodes, jobs=len(jobs), seconds=took, claims_ms=claims)


def kill(site: Site, nodes: int, seconds: float, rng: random.Random) -> tuple[int, int]:
    """Kill nodes at random for so long; return how many jobs were done, and how many nodes died."""
    site.start(nodes)
    jobs: list[str] = []
    deaths, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        jobs += site.queue(20)
        time.sleep(rng.uniform(0.2, 1.5))
        site.store.jobs.rescue(1000)
        victim = site.nodes.pop(rng.randrange(len(site.nodes)))
        victim.kill()
        victim.wait()
        deaths += 1
        site.start(1)
    site.wait(_FIRST_JOB_S + 10 * _LEASE_S + len(jobs), rescue=True)
    site.stop()
    check(site, jobs)
    return len(jobs), deaths


def check(site: Site, jobs: list[str]) -> None:
    """End with status 1 where one of these jobs is lost, or was completed or is delivered twice."""
    wrong = []
    for job_id in jobs:
        job = site.store.jobs.get(job_id)
        done = [event for event in site.store.jobs.events(job_id) if event.action in ("COMPLETE", "HOLD", "FAIL")]
        deliveries = site.store.deliveries.of_job(job_id)
        keys = {(delivery.page_number, delivery.artefact) for delivery in deliveries}
        if job.status != JobStatus.DONE or len(done) != 1 or not deliveries or len(keys) != len(deliveries):
            wrong.append(f"{job_id}: {job.status}, {job.reason}, ended {len(done)} times, {len(deliveries)} deliveries")
    with site.store.database.write() as session:  # nobody sends them; the next run begins with an empty outbox
        for delivery in session.exec(select(Delivery).where(col(Delivery.job_id).in_(jobs))).scalars():
            delivery.status = DeliveryStatus.CANCELLED
    if wrong:
        raise SystemExit("\n".join(wrong))


@contextmanager
def sites(sqlite: bool) -> Iterator[Site]:
    """Make a site, and remove it."""
    with tempfile.TemporaryDirectory(prefix="ecg-gateway-scale-") as folder:
        if sqlite:
            yield Site(Path(folder), None)
            return
        with running_server() as server, server.database() as url:
            yield Site(Path(folder), url)


def main() -> None:
    """Measure, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--kill", type=float, default=0.0, help="for how many seconds nodes die at random")
    parser.add_argument("--sqlite", action="store_true", help="one SQLite file instead of a PostgreSQL server")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    table = Table(title=f"{'SQLite' if asked.sqlite else 'PostgreSQL'}, {asked.rows} jobs in the table")
    for heading in ("nodes", "jobs/s", "of linear", "claim, median ms", "claim, 99 % ms"):
        table.add_column(heading, justify="right")
    with sites(asked.sqlite) as site:
        site.fill(asked.rows)
        runs = [measure(site, nodes, asked.seconds) for nodes in asked.nodes]
        for run in runs:
            linear = runs[0].rate / runs[0].nodes * run.nodes
            cells = (f"{run.rate:.1f}", f"{run.rate / linear:.0%}", *(f"{value:.1f}" for value in run.claims_ms))
            table.add_row(str(run.nodes), *cells)
        Console().print(table)
        if asked.kill:
            jobs, deaths = kill(site, max(asked.nodes), asked.kill, random.Random(asked.seed))
            Console().print(f"{deaths} nodes killed: {jobs} jobs, none lost, none done twice")


if __name__ == "__main__":
    main()
