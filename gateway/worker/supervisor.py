"""The worker processes that `serve` starts: one that dies is started again, and its job goes back at once.

One that gets on keeps its job: its own heartbeat is a thread beside code that computes, and on a busy machine may wait
long for its turn.  To run is not enough: a process that is stopped, or hangs without computing, loses its lease; it is
killed and replaced when it has done nothing for longer than a page may take.  And where its own heartbeat was not heard
for that time, the process works at something else: then the lease ends too.

The waiting time before a restart doubles each time a worker dies young, so that one that cannot start (weights
missing, no memory) does not keep the machine busy.  Where a job was at hand it may have been the job, whose attempts
are bounded: the next worker, with the jobs that wait, is not kept back for long.  A worker ends by itself when
this process is gone.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from gateway.domain.clock import utc_now
from gateway.domain.status import JobStatus
from gateway.settings import WorkerSettings
from gateway.store.store import Store
from gateway.store.tables import Job

logger = logging.getLogger(__name__)

_FIRST_RESTART_S = 0.25
_MAXIMUM_RESTART_S = 60.0
_MAXIMUM_RESTART_AFTER_A_JOB_S = 1.0
_MARGIN_S = 30.0  # beyond the time a page may take: the worker and the kernel end what hangs before
_YOUNG_S = 60.0  # a worker that lived longer did some work: its death says nothing about the next one's


class _Slot:
    """One place for a worker, and the process that fills it now."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.name = ""
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self.restart_s = _FIRST_RESTART_S
        self.restart_at = 0.0
        self.progress: str | None = None
        self.moved_at = 0.0

    def look(self) -> bool:
        """Return whether the process did anything since the last look."""
        before, self.progress = self.progress, _progress(self.process.pid) if self.process else None
        if self.progress is None or self.progress == before:
            return False
        self.moved_at = time.monotonic()
        return True


class WorkerPool:
    """Keeps the worker processes of the settings running.

    Parameters
    ----------
    command
        How to start a worker; `--name NAME --parent PID` is added.
    inherited
        A file that every worker inherits.
    """

    def __init__(
        self, command: Sequence[str], store: Store, settings: WorkerSettings, inherited: tuple[int, ...] = ()
    ) -> None:
        self._command = tuple(command)
        self._inherited = inherited
        self._slots = [_Slot(number) for number in range(settings.processes)]
        self._store = store
        self._settings = settings
        self._silence_s = settings.page_timeout_s + _MARGIN_S

    def start(self) -> None:
        """Start every worker."""
        for slot in self._slots:
            self._spawn(slot)

    def take_up(self, settings: WorkerSettings) -> None:
        """Follow changed limits, and have every worker read its settings again."""
        self._settings = settings
        self._silence_s = settings.page_timeout_s + _MARGIN_S
        for slot in self._slots:
            if (process := slot.process) is not None:
                process.send_signal(signal.SIGHUP)  # it ends none: see `_spawn`

    def check(self) -> None:
        """Start again what died, when its time has come; raise StorageError where its job cannot be given back."""
        for slot in self._slots:
            if slot.process is None:
                if time.monotonic() >= slot.restart_at:
                    self._spawn(slot)
            elif (status := slot.process.poll()) is not None:
                self._bury(slot, status)

    def extend(self) -> None:
        """Extend the leases of workers that get on, where they did not do it themselves for a third of one.

        One that did nothing for longer than a page may take is killed; `check` replaces it.
        """
        due = utc_now() + timedelta(seconds=self._settings.lease_s * 2 / 3)
        for slot in self._slots:
            if slot.process is None or slot.process.poll() is not None:
                continue
            if slot.look():
                for job in self._held_by(slot.name):
                    if job.lease_expires_at is None or job.lease_expires_at < due:
                        self._store.jobs.extend(job.id, slot.name, self._settings.lease_s, self._silence_s)
            elif time.monotonic() - slot.moved_at > self._silence_s:
                logger.error("Killing %s: it hangs", slot.name, extra={"action": "worker_hangs"})
                slot.process.kill()

    def problems(self) -> list[str]:
        """Return, in words, which workers do not run now."""
        return [f"worker {slot.number} is not running" for slot in self._slots if slot.process is None]

    def stop(self, grace_s: float) -> None:
        """End every worker: asked first, killed after `grace_s`; a job that was cut short goes back to the queue."""
        running = [slot for slot in self._slots if slot.process is not None and slot.process.poll() is None]
        for slot in running:
            assert slot.process is not None
            slot.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        for slot in running:
            assert slot.process is not None
            try:
                slot.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                slot.process.kill()
                slot.process.wait()
                self._put_back(slot.name)

    def _spawn(self, slot: _Slot) -> None:
        slot.name = f"worker-{slot.number}-{uuid.uuid4().hex[:8]}"
        slot.started_at = slot.moved_at = time.monotonic()
        slot.progress = None
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # from its first moment on
        try:
            command = [*self._command, "--name", slot.name, "--parent", str(os.getpid())]
            slot.process = subprocess.Popen(command, pass_fds=self._inherited)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _bury(self, slot: _Slot, status: int) -> None:
        held = self._held_by(slot.name)
        young = time.monotonic() - slot.started_at < _YOUNG_S
        maximum_s = _MAXIMUM_RESTART_AFTER_A_JOB_S if held else _MAXIMUM_RESTART_S
        slot.restart_s = min(2 * slot.restart_s, maximum_s) if young else _FIRST_RESTART_S
        slot.restart_at = time.monotonic() + slot.restart_s
        slot.process = None
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        logger.error("%s ended with %s", slot.name, how, extra={"action": "worker_died"})
        for job in held:  # end the lease now: nobody extends it any more
            self._store.jobs.heartbeat(job.id, slot.name, 0.0)
        self._store.jobs.rescue(self._settings.maximum_attempts)

    def _put_back(self, name: str) -> None:
        for job in self._held_by(name):
            self._store.jobs.release(job.id, name, "the worker was stopped")

    def _held_by(self, name: str) -> list[Job]:
        return [job for job in self._store.jobs.newest(status=JobStatus.RUNNING, limit=1000) if job.worker == name]


def _progress(pid: int) -> str | None:
    """Return the processor time of a process and its children that ended (proc(5)); None where it cannot run."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "TtZ" else " ".join(fields[11:15])
