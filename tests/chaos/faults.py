"""What is done to the gateway.  Every fault takes the lab and about how many seconds it has, and says what it did."""

from __future__ import annotations

import os
import random
import resource
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from tests.acceptance.conftest import PROCESSES_S, Gateway
from tests.chaos.lab import PAGE_TIMEOUT_S, Lab
from tests.chaos.report import Done
from tests.fake_digitizer import Behaviour
from tests.waiting import wait_for

_KILLS = {"service": 40, "worker": 20, "both": 22, "service at its start": 13, "SIGTERM": 5}
_HANGS_S = PAGE_TIMEOUT_S + 30.0  # the supervisor's bound for a worker that does nothing
_HOUR = 3600
_JUMPS_S = (2 * _HOUR, 0, -2 * _HOUR, 0, 48 * _HOUR, -24 * _HOUR, 40 * 24 * _HOUR, 0)


# -- processes --------------------------------------------------------------------------------------------------------


def kill_9(lab: Lab, seconds: float) -> Done:
    """Kill service, workers or both at random moments, also while they start, and start the service again."""
    counts: Counter[str] = Counter()
    for _ in _until(seconds):
        time.sleep(lab.rng.uniform(0.05, 4.0))
        how = lab.rng.choices([*_KILLS], [*_KILLS.values()])[0]
        _kill(lab.gateway, how, lab.rng)
        counts[how] += 1
    killed = counts.total() - counts["SIGTERM"]
    return Done(words=f"{killed} kills: " + ", ".join(f"{count} {how}" for how, count in counts.items()))


def _kill(gateway: Gateway, how: str, rng: random.Random) -> None:
    workers = gateway.workers()
    if how == "worker":
        _signal(rng.choice(workers) if workers else 0, signal.SIGKILL)
        return
    if how == "SIGTERM":
        gateway.stop()
    else:
        gateway.kill()
    if how == "both":
        for pid in workers:
            _signal(pid, signal.SIGKILL)
    if how == "service at its start":
        gateway.spawn()
        time.sleep(rng.uniform(0.0, 2.5))
        gateway.kill()
    gateway.start()


def stopped_worker(lab: Lab, seconds: float) -> Done:
    """SIGSTOP a worker in the middle of a page: another must do the page, and the stopped one's result is dropped.

    With enough time it stays stopped until the service has replaced it.
    """
    page = lab.load.page(Behaviour.SLOW)
    lab.load.send(page, attempts=100)
    key = str(page.SOPInstanceUID)
    (name,) = wait_for("the page to be worked on", lambda: _job(lab, key, "worker", "RUNNING"), PROCESSES_S)
    pid = next(pid for pid in lab.gateway.workers() if name in Path(f"/proc/{pid}/cmdline").read_text())
    began = time.monotonic()
    _signal(pid, signal.SIGSTOP)
    try:
        wait_for("another worker to do the page", lambda: _job(lab, key, "id", "DONE"), PROCESSES_S)
        words = f"SIGSTOP in a page: done by another worker after {time.monotonic() - began:.0f} s"
        time.sleep(max(0.0, began + min(seconds, _HANGS_S) - time.monotonic()))
        if seconds > _HANGS_S:
            wait_for("the worker to be replaced", lambda: pid not in lab.gateway.workers(), PROCESSES_S)
            words += f", worker replaced after {time.monotonic() - began:.0f} s"
    finally:
        _signal(pid, signal.SIGCONT)
    return Done(words=words)


def _job(lab: Lab, key: str, column: str, status: str) -> list[str]:
    rows = lab.query(f"select {column} from job where source_key = ? and status = ?", key, status)
    return [str(value) for (value,) in rows]


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        if pid:
            os.kill(pid, number)


# -- storage ----------------------------------------------------------------------------------------------------------


def locked_database(lab: Lab, seconds: float) -> Done:
    """Another process holds the write lock of the database, as a backup tool does."""
    with closing(sqlite3.connect(lab.storage / "gateway.db", isolation_level=None, timeout=20)) as database:
        database.execute("BEGIN IMMEDIATE")
        with lab.outage():
            time.sleep(seconds)
            database.execute("ROLLBACK")
    return Done(words=f"write lock held for {seconds:.0f} s")


def no_file_grows(lab: Lab, seconds: float) -> Done:
    """No file of service and workers may grow (RLIMIT_FSIZE): every write fails, with EFBIG instead of ENOSPC."""
    processes = [lab.gateway.process.pid, *lab.gateway.workers()]
    with lab.outage():
        _limit_files(processes, 0)
        time.sleep(seconds)
        _limit_files([*processes, *lab.gateway.workers()], None)
    return Done(words=f"every write failed for {seconds:.0f} s")


def _limit_files(processes: list[int], size: int | None) -> None:
    for pid in processes:
        with suppress(ProcessLookupError):
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard if size is None else size, hard))


@contextmanager
def small_disk(path: Path, mib: int) -> Iterator[None]:
    """Mount a disk of its own on `path`; raise PermissionError where that is not allowed."""
    path.mkdir(parents=True)
    if os.geteuid() != 0:
        raise PermissionError("not root")
    _mount("-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(path))
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=False)


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PermissionError(done.stderr.strip())


def full_disk(lab: Lab, seconds: float) -> Done:
    """Fill the disk of the storage to its last byte, and keep it full."""
    disk, filler = lab.storage.parent, lab.storage.parent / "filler"
    end = time.monotonic() + seconds
    with lab.outage():
        with filler.open("ab", buffering=0) as file:
            while time.monotonic() < end:
                try:
                    file.write(b"x" * max(1, min(os.statvfs(disk).f_bavail * 4096, 1 << 20)))
                except OSError:
                    time.sleep(0.05)
        filler.unlink()
    return Done(words=f"no byte free for {seconds:.0f} s")


def read_only_spool(lab: Lab, seconds: float) -> Done:
    """Remount the spool read-only while the gateway runs."""
    spool = str(lab.storage / "spool")
    _mount("--bind", spool, spool)
    try:
        with lab.outage():
            _mount("-o", "remount,ro,bind", spool)
            time.sleep(seconds)
            _mount("-o", "remount,rw,bind", spool)
    finally:
        subprocess.run(["umount", "-l", spool], check=False)
    return Done(words=f"spool read-only for {seconds:.0f} s")


# -- peers and clocks -------------------------------------------------------------------------------------------------


def bad_peers(lab: Lab, seconds: float) -> Done:
    """PACS and EHR are slow, then slower than the time-out, then mute or gone; then well again."""
    lab.pacs.delay_s = 0.7
    time.sleep(seconds / 4)
    lab.pacs.delay_s, lab.ehr.mute = 7.0, True
    time.sleep(seconds / 4)
    lab.pacs.stop()
    time.sleep(seconds / 2)
    lab.pacs.delay_s, lab.ehr.mute = 0.0, False
    lab.pacs.start()
    return Done(words="PACS slow, slower than the time-out, gone; EHR mute")


def clock_jumps(lab: Lab, seconds: float) -> Done:
    """Move the wall clock by hours and days; kill a worker, and restart the service, while it is wrong."""
    for number, ahead_s in enumerate(_JUMPS_S):
        new = lab.clock.with_suffix(".new")
        new.write_text(str(ahead_s), encoding="ascii")
        new.rename(lab.clock)
        time.sleep(seconds / len(_JUMPS_S))
        if ahead_s < 0 and (workers := lab.gateway.workers()):
            _signal(workers[0], signal.SIGKILL)
        if number == len(_JUMPS_S) - 2:
            lab.gateway.stop()
            lab.gateway.start()
    return Done(words="clock moved by 2 h, 2 days, 40 days, back and forth; a worker killed, the service restarted")


def _until(seconds: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
