"""A gateway as real processes: started, stopped, killed, and started again on the same state."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.settings import load_settings
from gateway.store.store import Store
from gateway.store.tables import Job
from tests.acceptance.peers import Ehr, Pacs, free_port
from tests.waiting import PATIENCE_S, wait_for

ROOT = Path(__file__).resolve().parents[2]
FAKE = (sys.executable, "-m", "tests.fake_digitizer")
REAL = (sys.executable, "-m", "gateway")
PROCESSES_S = 3 * PATIENCE_S  # for what several processes have to start, load and work for
QUICK_RETRY = {"first_s": 0.2, "maximum_s": 1.0}


class Gateway:
    """The daemon, its configuration and its state."""

    def __init__(self, root: Path, command: tuple[str, ...] = FAKE, **settings: Any) -> None:
        self.root = root
        self.port = free_port()
        self.web_port = free_port()
        self.hl7_port = free_port()
        self.inbox = root / "inbox"
        self.log_path = root / "log.txt"
        self.config = root / "gateway.toml"
        tree: dict[str, Any] = {
            "dicom": {"port": self.port},
            "web": {"port": self.web_port},
            "hl7": {"port": self.hl7_port},
            "storage": {"path": str(root / "var"), "minimum_free_mib": 0},
            "folders": [{"path": str(self.inbox), "create": True, "settle_s": 0.2, "incomplete_s": 1.0}],
        }
        for name, section in settings.items():
            tree[name] = tree.get(name, {}) | section if isinstance(section, dict) else section
        self.config.write_text(to_toml(tree), encoding="utf-8")
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._store: Store | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def store(self) -> Store:
        if self._store is None:
            self._store = Store.open(load_settings(self.config).storage)
        return self._store

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def start(self, limits: tuple[int, int] | None = None) -> None:
        """Start the service; `limits` of open files, soft and hard."""
        self.spawn(limits)
        wait_for("the gateway to receive", self.is_ready, PROCESSES_S)

    def spawn(self, limits: tuple[int, int] | None = None) -> None:
        """Start the service, and wait for nothing."""
        arguments = ["serve", "--config", str(self.config)] if self._command == REAL else ["serve", str(self.config)]
        self._started = self.log_path.stat().st_size if self.log_path.exists() else 0
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # as gateway.cli, before there are threads
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen([*self._command, *arguments], cwd=ROOT, stdout=log, stderr=log)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if limits is not None:
            resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE, limits)

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log
        return "Receiving as" in self.log_path.read_bytes()[self._started :].decode("utf-8", "replace")

    def kill(self) -> None:
        """kill -9 of the service; its workers see that they are alone."""
        self.process.kill()
        self.process.wait()

    def stop(self, timeout_s: float = PROCESSES_S) -> int:
        """SIGTERM; return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def workers(self) -> list[int]:
        """Process ids of the service's workers."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        children: set[int] = set()
        for task in path.parents[1].iterdir():  # a child belongs to the thread that started it
            with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended meanwhile
                children |= {int(pid) for pid in (task / "children").read_text().split()}
        return sorted(children)

    def jobs(self) -> list[Job]:
        return self.store.jobs.newest(limit=1000)

    def wait_for_job(self, status: JobStatus, timeout_s: float = PROCESSES_S) -> Job:
        """Return the first job found in `status`."""
        return wait_for(f"a {status} job", lambda: next(iter(self.store.jobs.newest(status=status)), None), timeout_s)

    def wait_until_settled(self, n_jobs: int, timeout_s: float = PROCESSES_S) -> list[Job]:
        """Return all jobs when there are `n_jobs`, none waits or runs, and nothing is left to deliver."""

        def settled() -> list[Job]:
            jobs = self.jobs()
            busy = any(job.status in (JobStatus.QUEUED, JobStatus.RUNNING) for job in jobs)
            pending = any(
                d.status == DeliveryStatus.PENDING for job in jobs for d in self.store.deliveries.of_job(job.id)
            )
            return [] if busy or pending or len(jobs) < n_jobs else jobs

        jobs = wait_for(f"{n_jobs} settled jobs", settled, timeout_s)
        assert len(jobs) == n_jobs
        return jobs

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            workers = self.workers()
            self.kill()
            for pid in workers:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        if self._store is not None:
            self._store.close()


def to_toml(tree: dict[str, Any]) -> str:
    """TOML of a tree of two levels; deeper tables are written inline."""
    lines: list[str] = []
    for name, section in tree.items():
        for table in section if isinstance(section, list) else [section]:
            lines.append(f"[[{name}]]" if isinstance(section, list) else f"[{name}]")
            lines += [f"{key} = {_value(value)}" for key, value in table.items()]
    return "\n".join(lines)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_value(inner)}" for key, inner in value.items()) + "}"
    return json.dumps(value)


def destinations(pacs: Pacs, ehr: Ehr) -> list[dict[str, Any]]:
    local = {"host": "127.0.0.1", "timeout_s": PATIENCE_S, "retry": QUICK_RETRY}
    return [
        {"kind": "dicom", "name": "pacs", "port": pacs.port, "ae_title": "PACS", **local},
        {"kind": "hl7", "name": "ehr", "port": ehr.port, **local},
    ]


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    pacs = Pacs()
    yield pacs
    pacs.stop()


@pytest.fixture
def ehr() -> Iterator[Ehr]:
    ehr = Ehr()
    yield ehr
    ehr.stop()


@pytest.fixture
def make_gateway(tmp_path: Path, pacs: Pacs, ehr: Ehr) -> Iterator[Callable[..., Gateway]]:
    made: list[Gateway] = []

    def make(**settings: Any) -> Gateway:
        made.append(Gateway(tmp_path, **{"destinations": destinations(pacs, ehr)} | settings))
        return made[-1]

    yield make
    for gateway in made:
        gateway.close()
