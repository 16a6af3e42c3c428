"""An untrusted file is read by a child process with bounds: its bytes go in, what was read comes out.

A picture of a few kilobytes can keep a decoder busy for minutes, and a decoder that is at its end may take its process
along.  What can be known from a file's headers is checked by its reader; this is the net under it.  Arrays come back in
memory that the child filled, without a copy.
"""

from __future__ import annotations

import atexit
import logging
import mmap
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import cache
from typing import TypeVar

from pipeline.datatypes import BUDGET, FileBudget
from pipeline.errors import DigitizationError, PageUnreadable, TransientError
from pipeline.source.child import LENGTH, REPORT, Items, Request

logger = logging.getLogger(__name__)

T = TypeVar("T")

_MARGIN_S = 10.0  # beyond the budget: the kernel ends the child before
_TIMES = 2  # the process that forks may have been killed; its successor may not
_FULL = 0.6  # of its memory a child has touched when PDFium, or code in Rust, gets no more of it and aborts


def read_bounded(
    read: Callable[[bytes], Iterator[T]],
    data: bytes,
    *,
    errors: tuple[type[Exception], ...] = (DigitizationError,),
    budget: FileBudget = BUDGET,
) -> list[T]:
    """Return what `read(data)` yields, computed in a child process.

    Parameters
    ----------
    read : callable
        A function of a module; what it yields can be pickled.
    data : bytes
        The whole file.
    errors : tuple of exception types
        What `read` raises on purpose: raised here again.
    budget : FileBudget
        Its time and memory bound the child.

    Raises
    ------
    PageUnreadable
        The file took more time or memory than the budget allows, or ended the child.
    TransientError
        No child could be started: the machine lacks something.
    """
    for _ in range(_TIMES):
        with open(os.memfd_create("file"), "r+b") as shared:
            shared.write(data)
            shared.seek(0)
            report = _processes().run((read, errors, budget), shared.fileno())
            if report is not None:
                _check(*report, budget)
                return _outcome(shared.fileno(), budget)
    raise TransientError("the process that reads files cannot be started, or was killed")


def _check(exit_code: int, peak_kib: int, budget: FileBudget) -> None:
    """Raise where a child did not end by itself."""
    peak_mib = peak_kib >> 10
    if exit_code == -signal.SIGXCPU:
        raise PageUnreadable(f"reading a page took longer than {budget.processor_s} s of processor time")
    if exit_code == -signal.SIGALRM:
        raise PageUnreadable(f"reading it took longer than {budget.seconds:g} s")
    if exit_code == -signal.SIGABRT and peak_mib >= _FULL * budget.memory_mib:
        raise PageUnreadable(_memory(budget))
    if exit_code:
        how = signal.Signals(-exit_code).name if exit_code < 0 else f"exit code {exit_code}"
        raise PageUnreadable(f"reading it ended with {how}, at {peak_mib} of {budget.memory_mib} MiB of memory")


def _memory(budget: FileBudget) -> str:
    return f"reading it takes more than {budget.memory_mib} MiB of memory"


def _outcome(shared: int, budget: FileBudget) -> list[T]:
    """Return what a child left in the shared file; the arrays lie in its memory."""
    view = memoryview(mmap.mmap(shared, 0))
    end = len(view) - LENGTH.size
    (length,) = LENGTH.unpack(view[end:])
    items: Items
    items, error, where = pickle.loads(view[end - length : end])
    if isinstance(error, MemoryError):
        raise PageUnreadable(_memory(budget))
    if error is not None:
        if where:
            logger.error("%s in the process that read the file, at %s", type(error).__name__, where)
        raise error
    return [pickle.loads(head, buffers=[view[start:stop] for start, stop in places]) for head, places in items]


class _Processes:
    """The process that forks a child for each file; it is started with the first one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def run(self, request: Request, shared: int) -> tuple[int, int] | None:
        """Return exit code and largest memory of the child that was asked; None where nobody answers."""
        reading, writing = os.pipe()
        try:
            try:
                self._send(pickle.dumps(request), [shared, writing])
            except OSError as error:
                logger.error("No process reads files: %s", error.strerror)
                return None
            finally:
                os.close(writing)
            return self._wait(reading, request[2].seconds + _MARGIN_S)
        finally:
            os.close(reading)

    def _send(self, message: bytes, descriptors: list[int]) -> None:
        with self._lock:
            try:
                socket.send_fds(self._control or self._start(), [message], descriptors)
            except ConnectionError:  # it was killed
                socket.send_fds(self._start(), [message], descriptors)

    def _wait(self, reading: int, seconds: float) -> tuple[int, int] | None:
        poll = select.poll()
        poll.register(reading, select.POLLIN)
        if not poll.poll(1000 * seconds):
            return -signal.SIGALRM, 0
        report = os.read(reading, REPORT.size)
        return REPORT.unpack(report) if report else None

    def _start(self) -> socket.socket:
        self.stop()
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control = control
        path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
        one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # a process that forks has no others
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "pipeline.source.child", str(theirs.fileno())],
                env={**os.environ, **one_thread, "PYTHONPATH": path},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        return control

    def stop(self) -> None:
        """End the process; the next file starts another one."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@cache
def _processes() -> _Processes:
    processes = _Processes()
    atexit.register(processes.stop)
    return processes
