"""Files go in, rows come out, whatever a page does to the process that digitizes it.

The process (`child`) digitizes several files at a time on a GPU, one on a processor.  If it ends, or is silent for
longer than a page may take, it is replaced.  What it had in hand is tried again, each file alone: so the guilty page is
known, and the others lose nothing.  A page that takes too long is not tried again if nothing ran beside it.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

from pipeline.archive.child import Again, Answer, AnyDigitizer, Closed, Decode, Done, Opened, Task
from pipeline.archive.manifest import Entry
from pipeline.archive.rows import CRASHED, TIMED_OUT, Row, failure
from pipeline.datatypes import Calibration
from pipeline.errors import DigitizationError
from pipeline.source.page import load_pages

_LOADING_S = 600.0
# Not -m: what the process sends must be of this module, and not of `__main__`.
_PROGRAM = "import sys; from pipeline.archive import child; child.serve(child.Connection(int(sys.argv[1])))"
_STARTS = 3  # a process that ends while it loads may have lacked memory


@dataclass(eq=False, slots=True)
class _Job:
    """A file, and how far it is."""

    number: int
    entry: Entry
    page: int = 1  # the next one, or the one in hand
    pages: int | None = None  # not known yet
    alone: bool = False
    heard_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Lost:
    """The process is gone."""

    cause: str
    reason: str


class Guard:
    """The process that digitizes, and its replacements.

    Parameters
    ----------
    load : callable
        Returns the digitizer; it is called in the process.
    calibration : Calibration
        Speed and gain where a page does not state them.
    page_s : float
        How long a page may take.
    decode : callable
        Returns the pages of a file; it is called in the process.

    Raises
    ------
    DigitizationError
        The digitizer cannot be loaded.
    """

    def __init__(
        self,
        load: Callable[[], AnyDigitizer],
        calibration: Calibration,
        page_s: float,
        decode: Decode = load_pages,
    ) -> None:
        self._load = pickle.dumps((load, calibration, decode))
        self._page_s = page_s
        self._start()

    def digitize(self, entries: Sequence[Entry]) -> list[Row]:
        """Return one row a page, in the order of the files."""
        rows: list[list[Row]] = [[] for _ in entries]
        waiting = deque(_Job(number, entry) for number, entry in enumerate(entries))
        suspects: deque[_Job] = deque()
        running: dict[int, _Job] = {}
        while waiting or suspects or running:
            self._hand_out(waiting, suspects, running)
            answer = self._receive(running)
            if isinstance(answer, _Lost):
                for job in running.values():
                    if job.alone or (answer.cause == TIMED_OUT and len(running) == 1):
                        waiting.extendleft(_blame(job, answer, rows[job.number]))
                    else:
                        suspects.append(job)
                running.clear()
                self._start()
                continue
            job = running[answer.number]
            job.heard_s = time.monotonic()
            match answer:
                case Opened(pages=pages):
                    job.pages = pages
                case Done(row=row):
                    rows[job.number].append(row)
                    job.page += 1
                case Again():
                    suspects.append(running.pop(job.number))
                case Closed():
                    del running[job.number]
        return [row for of_file in rows for row in of_file]

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        _kill(self._process)

    def _hand_out(self, waiting: deque[_Job], suspects: deque[_Job], running: dict[int, _Job]) -> None:
        """Give the process what it can take: a suspect alone, others as many as it has lanes."""
        while not any(job.alone for job in running.values()):
            if suspects and not running:
                job = suspects.popleft()
                job.alone = True
            elif waiting and not suspects and len(running) < self._lanes:
                job = waiting.popleft()
            else:
                return
            self._give(job)
            running[job.number] = job

    def _give(self, job: _Job) -> None:
        task = Task(job.number, job.entry, job.page, job.alone)
        try:
            self._connection.send(task)
        except OSError:  # it has ended while it was idle
            self._start()
            self._connection.send(task)
        job.heard_s = time.monotonic()

    def _receive(self, running: dict[int, _Job]) -> Answer | _Lost:
        """Wait for an answer as long as a page may take."""
        deadline = min(job.heard_s for job in running.values()) + self._page_s
        if not self._connection.poll(max(0.0, deadline - time.monotonic())):
            return _Lost(TIMED_OUT, f"the page took longer than {self._page_s:g} s")
        try:
            answer: Answer = self._connection.recv()
        except (EOFError, OSError):
            code = self._process.wait()
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            return _Lost(CRASHED, f"the page ended the process that digitized it ({how}), twice")
        return answer

    def _start(self) -> None:
        """Start the process in place of the one before."""
        for _ in range(_STARTS):
            if hasattr(self, "_process"):
                self.close()
            self._spawn()
            try:
                answer = self._connection.recv() if self._connection.poll(_LOADING_S) else None
            except (EOFError, OSError):
                continue
            if isinstance(answer, int):
                self._lanes = answer
                return
            if isinstance(answer, str):
                self.close()
                raise DigitizationError(answer)
        self.close()
        raise DigitizationError("the process that digitizes ends while it loads, or does not answer")

    def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM, str(theirs.fileno())],
                env={**os.environ, "PYTHONPATH": path},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                process_group=0,
            )
        self._connection = Connection(ours.detach())
        self._connection.send_bytes(self._load)


def _blame(job: _Job, lost: _Lost, rows: list[Row]) -> list[_Job]:
    """Write the row of the page in hand; return the job if pages of its file are left."""
    rows.append(failure(job.entry, job.page if job.pages else None, lost.cause, lost.reason))
    job.page, job.alone = job.page + 1, False
    return [job] if job.pages and job.page <= job.pages else []


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with all that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
