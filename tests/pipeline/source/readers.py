"""What the child processes of `test_bounded` do instead of reading a file; they import it, and little else."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

from pipeline.errors import TraceNotFound


def sleep(data: bytes) -> Iterator[None]:
    time.sleep(600)
    yield None


def compute(data: bytes) -> Iterator[None]:
    while True:
        pass
    yield None


def compute_a_while(data: bytes) -> Iterator[int]:
    """Yield items of 0.8 s of processor time each."""
    for number in range(4):
        end = time.process_time() + 0.8
        while time.process_time() < end:
            pass
        yield number


def allocate(data: bytes) -> Iterator[int]:
    yield len(bytearray(1 << 33))


def crash(data: bytes) -> Iterator[None]:
    os.kill(os.getpid(), signal.SIGSEGV)
    yield None


def end(data: bytes) -> Iterator[None]:
    yield None
    os._exit(3)


def break_down(data: bytes) -> Iterator[int]:
    yield 1
    yield int("")


def refuse(data: bytes) -> Iterator[None]:
    yield None
    raise TraceNotFound("there is no trace")


def parent(data: bytes) -> Iterator[int]:
    """The process that forked this one, which leads a session of its own."""
    yield os.getsid(0)
