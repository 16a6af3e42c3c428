"""A gateway as real processes, its peers and its load, and the healthy peer; each fault is judged in `run`.

After a fault the load ends, everything that was acknowledged must arrive, and the service must come to rest.
"""

from __future__ import annotations

import os
import random
import re
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.acceptance.conftest import PROCESSES_S, Gateway
from tests.acceptance.peers import free_port
from tests.chaos.account import Account, Ledger, account, missing
from tests.chaos.clients import NAME
from tests.chaos.daemon import VARIABLE
from tests.chaos.healthy import Answer, HealthyPeer
from tests.chaos.load import PREFIX, Load
from tests.chaos.peers import SEND_TIMEOUT_S, FlakyEhr, FlakyPacs
from tests.chaos.report import Done, Row
from tests.waiting import PATIENCE_S, wait_for

COMMAND = (sys.executable, "-m", "tests.chaos.daemon")
PAGE_TIMEOUT_S = 15.0
STANDSTILL_S = 2 * PATIENCE_S  # what was acknowledged and did not arrive by then is lost
REST_S = 30.0  # for connections and threads to end
MORE_THREADS, MORE_DESCRIPTORS, MORE_MIB = 10, 40, 150  # than at the beginning: caches and pools, not a leak
_IN_LOG = re.compile("|".join([*NAME.split("^"), rf"{PREFIX}[SFQH]\d"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """What the service holds."""

    mib: float
    threads: int
    descriptors: int

    def __str__(self) -> str:
        return f"{self.mib:.0f}, {self.threads}, {self.descriptors}"


class Lab:
    """The gateway under test, between `__enter__` and `__exit__`.

    Parameters
    ----------
    root : Path
        Holds configuration, inbox, log and, unless `settings` say otherwise, the storage.
    stall_s : float
        A healthy answer that takes longer is a stall.
    """

    def __init__(self, root: Path, seed: int, stall_s: float, **settings: Any) -> None:
        root.mkdir(parents=True)
        self.seed = str(seed)
        self.rng = random.Random(seed)
        self._stall_s = stall_s
        self.pacs = FlakyPacs(random.Random(f"{seed} PACS"), 0.06)
        self.ehr = FlakyEhr(random.Random(f"{seed} EHR"), 0.06)
        self.hl7_port = free_port()
        retry = {"first_s": 0.2, "maximum_s": 1.0, "attempts": 1000}
        local = {"host": "127.0.0.1", "timeout_s": SEND_TIMEOUT_S, "retry": retry}
        tree: dict[str, Any] = {
            "dicom": {"timeout_s": 5.0, "maximum_connections_per_host": 40},  # so that a fuzzer is heard
            "hl7": {"enabled": True, "port": self.hl7_port, "idle_timeout_s": 5.0, "maximum_connections_per_host": 40},
            "worker": {"processes": 2, "lease_s": 4.0, "page_timeout_s": PAGE_TIMEOUT_S},
            "destinations": [
                {"kind": "dicom", "name": "pacs", "port": self.pacs.port, "ae_title": "PACS", **local},
                {"kind": "hl7", "name": "ehr", "port": self.ehr.port, **local},
            ],
        }
        self.clock = root / "clock"
        os.environ[VARIABLE] = str(self.clock)
        self.gateway = Gateway(root, COMMAND, **tree | settings)
        self.gateway.inbox.mkdir()
        self.storage = Path(settings.get("storage", {}).get("path", root / "var"))
        self.ledger = Ledger()
        self.load = Load(self.gateway, self.hl7_port, self.ledger, seed, self.backlog, pause_s=0.8)
        self._outages: list[tuple[float, float]] = []
        self._before = Account()

    def __enter__(self) -> Self:
        with ExitStack() as running:
            running.callback(self.pacs.stop)
            running.callback(self.ehr.stop)
            running.callback(self.gateway.close)
            self.gateway.start()
            ports = self.gateway.port, self.hl7_port, self.gateway.web_port
            self.healthy = HealthyPeer(ports, self.ledger, first_number=1_000_000)
            running.callback(self.healthy.stop)
            wait_for("healthy rounds", lambda: sum(answer.well for answer in self.healthy.answers) >= 9, PROCESSES_S)
            wait_for("the workers", lambda: len(self.gateway.workers()) == 2, PROCESSES_S)
            self._rested = self.rest()
            self._running = running.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    # -- one fault ------------------------------------------------------------------------------------------------

    def run(
        self, name: str, fault: Callable[[Lab, float], Done], seconds: float, may_refuse: Collection[str] = ()
    ) -> Row:  # fmt: skip
        """Do `fault` for about `seconds` under load, let everything settle, and judge.

        `may_refuse` has the kinds of answers that may be a refusal meanwhile: what they need is taken away.
        """
        row, began = Row(name=name), time.monotonic()
        log_at, known = self.gateway.log_path.stat().st_size, self.ledger.size()
        self.load.start()
        try:
            done = fault(self, seconds)
            row.done, row.inputs, row.problems = done.words, done.inputs, list(done.problems)
        except (AssertionError, OSError, sqlite3.Error) as error:
            row.problems.append(f"{type(error).__name__}: {str(error)[-2000:]}")
        finally:
            self.load.stop()
        ledger = self.ledger.copy()  # the healthy peer goes on
        self._settle(row, ledger)
        self._count(row, ledger, known)
        self._measure(row, began, may_refuse)
        self._rest_again(row)
        self._read_log(row, log_at)
        row.seconds = time.monotonic() - began
        return row

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Say that the healthy peer cannot be served inside the block, and for a moment after it."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._outages.append((began, time.monotonic() + 1.0))

    def end(self) -> Row:
        """Stop the gateway as systemd does, and check what it leaves."""
        row, log_at = Row(name="stop"), self.gateway.log_path.stat().st_size
        self.healthy.stop()
        status = self.gateway.stop()
        row.done = f"SIGTERM: exit status {status}"
        row.problems += [f"exit status {status} after SIGTERM"] if status else []
        row.problems += [f"integrity_check: {text}" for (text,) in self.query("pragma integrity_check") if text != "ok"]
        self._read_log(row, log_at)
        return row

    # -- what is looked at ----------------------------------------------------------------------------------------

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with sqlite3.connect(f"file:{self.storage}/gateway.db?mode=ro", uri=True, timeout=20) as database:
            return database.execute(sql, values).fetchall()

    def backlog(self) -> int:
        """Return how many jobs wait; 0 where the database cannot be read now."""
        try:
            return int(self.query("select count(*) from job where status in ('QUEUED', 'RUNNING')")[0][0])
        except sqlite3.Error:
            return 0

    def rest(self) -> Rest:
        process = Path(f"/proc/{self.gateway.process.pid}")
        kib = re.search(r"VmRSS:\s+(\d+)", (process / "status").read_text())
        return Rest(
            mib=int(kib[1]) / 1024 if kib else 0.0,
            threads=len(os.listdir(process / "task")),
            descriptors=len(os.listdir(process / "fd")),
        )

    def _settle(self, row: Row, ledger: Ledger) -> None:
        """Wait until everything that was acknowledged has arrived, as long as some of it arrives."""
        if self.gateway.process.poll() is not None:
            row.problems.append(f"the service ended with status {self.gateway.process.returncode}")
            self.gateway.start()
        deadline, least = time.monotonic() + STANDSTILL_S, sys.maxsize
        while (count := len(missing(ledger, self.pacs.objects, self.ehr.messages))) and time.monotonic() < deadline:
            if count < least:
                deadline, least = time.monotonic() + STANDSTILL_S, count
            time.sleep(0.2)

    def _count(self, row: Row, ledger: Ledger, known: int) -> None:
        jobs = [key for (key,) in self.query("select source_key from job")]
        orders = [number for (number,) in self.query("select accession_number from patient_order")]
        now = account(ledger, self.pacs.objects, self.ehr.messages, jobs, orders)
        new, self._before = now.since(self._before), now
        row.acknowledged = ledger.size() - known
        row.lost, row.twice, row.wrong = len(new.lost), len(new.twice), len(new.wrong)
        for what, found in (("LOST", new.lost), ("TWICE", new.twice), ("WRONG PATIENT", new.wrong)):
            row.problems += [f"{what}: {words}" for words in sorted(found)[:5]]

    def _measure(self, row: Row, began: float, may_refuse: Collection[str]) -> None:
        answers = [answer for answer in list(self.healthy.answers) if answer.at >= began]
        inside = [answer for answer in answers if any(a <= answer.at <= b for a, b in self._outages)]
        outside = [answer for answer in answers if answer not in inside]
        refused = Counter(f"{a.kind} {a.answer or 'no answer'}" for a in answers if not a.well)
        row.refused = refused.total()
        row.slowest_s = max((answer.seconds for answer in outside), default=None)
        row.outage_s = max((answer.seconds for answer in inside), default=None)
        for answer in sorted(outside, key=lambda answer: -answer.seconds)[:3]:
            if answer.seconds > self._stall_s:
                row.problems.append(f"STALL: {answer.kind} took {answer.seconds:.1f} s")
        if unfair := [words for words in refused if words.partition(" ")[0] not in may_refuse]:
            row.problems.append(f"the healthy peer was refused: {unfair}")
        if not any(_is_recent(answer) and answer.well for answer in answers):
            row.problems.append("the healthy peer is not served any more")

    def _rest_again(self, row: Row) -> None:
        first, deadline = self._rested, time.monotonic() + REST_S
        while True:
            now = self.rest()
            more = [
                f"{what}: {number:.0f} at the beginning, {held:.0f} now"
                for what, number, held, allowed in (
                    ("memory in MiB", first.mib, now.mib, MORE_MIB),
                    ("threads", first.threads, now.threads, MORE_THREADS),
                    ("descriptors", first.descriptors, now.descriptors, MORE_DESCRIPTORS),
                )
                if held > number + allowed
            ]
            if not more or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        row.rest = f"{now} (before: {first})"
        row.problems += [f"NOT AT REST: {words}" for words in more]

    def _read_log(self, row: Row, log_at: int) -> None:
        with self.gateway.log_path.open("rb") as file:
            file.seek(log_at)
            log = file.read().decode("utf-8", "replace")
        if count := log.count("Traceback (most recent call last)"):
            first = log[log.index("Traceback (most recent call last)") :][:1500]
            row.problems.append(f"{count} TRACEBACKS in the log, first:\n{first}")
        row.problems += [f"CRITICAL: {line}" for line in log.splitlines() if " CRITICAL " in line][:5]
        row.problems += [f"PATIENT IN THE LOG: {found}" for found in sorted(set(_IN_LOG.findall(log)))[:5]]


def _is_recent(answer: Answer) -> bool:
    return answer.at > time.monotonic() - PATIENCE_S
