"""The process that reads untrusted files: for each of them it forks a child, with the bounds of its budget.

`bounded` starts it and sends requests.  It reads nothing itself: it imports what the children need, once, and forks, so
that a child costs milliseconds, and what a file does to a child ends with the child.  When the last process that may
send requests is gone, it ends too, with all children.
"""

from __future__ import annotations

import math
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, NoReturn

import cv2

from pipeline.datatypes import FileBudget
from pipeline.errors import DEFECTS

Request = tuple[Callable[[bytes], Iterator[object]], tuple[type[Exception], ...], FileBudget]
Items = list[tuple[bytes, list[tuple[int, int]]]]  # each pickled, with the places of its arrays in the shared file

REPORT = struct.Struct("<iq")  # exit code of a child, negative where a signal ended it; its largest memory in KiB
LENGTH = struct.Struct("<Q")  # at the end of the shared file: of the pickled outcome before it

_MAXIMUM_REQUEST_BYTES = 65536
_ALIGNMENT_BYTES = 64


def serve(control: socket.socket) -> NoReturn:
    """Fork a child for each request, until nobody can send one."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGALRM, signal.SIGXCPU):
        signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):  # who reads a file decides when it is enough
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(1)
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, _MAXIMUM_REQUEST_BYTES, 2)
        if not message:
            os.killpg(0, signal.SIGKILL)
        request: Request = pickle.loads(message)  # imports what the children need
        if os.fork() == 0:
            control.close()
            _attend(request, *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _attend(request: Request, shared: int, report: int) -> NoReturn:
    """Wait for the child that reads the file, and report how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        os.close(report)
        _read(request, shared)
    _, status, usage = os.wait4(child, 0)
    with suppress(BrokenPipeError):  # who asked has ended, or has stopped waiting
        os.write(report, REPORT.pack(os.waitstatus_to_exitcode(status), usage.ru_maxrss))
    os._exit(0)


def _read(request: Request, shared: int) -> NoReturn:
    """Replace the bytes of the shared file by what was read from them."""
    read, errors, budget = request
    caught: tuple[type[Exception], ...] = (*errors, *DEFECTS, cv2.error)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_CPU, budget.processor_s)
    _limit(resource.RLIMIT_DATA, budget.memory_mib << 20)
    signal.setitimer(signal.ITIMER_REAL, budget.seconds)
    items: Items = []
    error: Exception | None = None
    where = ""
    with open(shared, "r+b") as file:
        data = file.read()
        file.seek(0)
        file.truncate()
        try:
            for item in read(data):
                buffers: list[pickle.PickleBuffer] = []
                head = pickle.dumps(item, protocol=5, buffer_callback=buffers.append)
                items.append((head, [_append(file, buffer) for buffer in buffers]))
                _limit(resource.RLIMIT_CPU, math.ceil(time.process_time()) + budget.processor_s)
        except caught as raised:
            error = MemoryError() if getattr(raised, "code", None) == cv2.Error.StsNoMem else raised
            where = "" if isinstance(raised, errors) else _where(raised)
        outcome = pickle.dumps((items, error, where))
        file.seek(0, os.SEEK_END)
        file.write(outcome + LENGTH.pack(len(outcome)))
    os._exit(0)


def _append(file: IO[bytes], buffer: pickle.PickleBuffer) -> tuple[int, int]:
    """Write an array behind the others; return where it begins and ends."""
    start = -(-file.tell() // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
    file.seek(start)
    file.write(buffer.raw())
    return start, file.tell()


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _where(error: Exception) -> str:
    """Return the place in the code where an error was raised, from its cause to us."""
    frames = reversed(traceback.extract_tb(error.__traceback__))
    return ", ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
