"""The state that the lanes of one worker process share: their turns, and the timer of the kernel."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


class Turns:
    """Who may work beside whom in this process.

    First attempts work side by side.  A job that was tried before may be what ended the process, and a page may have
    lacked only the memory that its neighbours had: those work alone, so that nobody pays for another's page.
    """

    def __init__(self, lanes: int = 1) -> None:
        self.lanes = lanes
        self._changed = threading.Condition()
        self._working = 0
        self._wanting_alone = 0

    @contextmanager
    def take(self, *, alone: bool) -> Iterator[None]:
        """Wait for a turn and hold it inside the block."""
        with self._changed:
            self._wanting_alone += alone
            self._changed.wait_for(lambda: self._working == 0 if alone else self._wanting_alone == 0)
            self._working += 1
        try:
            yield
        finally:
            with self._changed:
                self._working -= 1
                self._wanting_alone -= alone
                self._changed.notify_all()


class Alarms:
    """One kernel timer for all lanes: it goes off when the first of them is due."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._due: dict[int, float] = {}

    def set(self, lane: int, seconds: float) -> None:
        """End this process in so many seconds, unless the lane sets another time before; 0 = no longer."""
        with self._lock:
            now = time.monotonic()
            self._due.pop(lane, None)
            if seconds > 0:
                self._due[lane] = now + seconds
            first = min(self._due.values(), default=now)
            signal.setitimer(signal.ITIMER_REAL, max(first - now, 0.001) if self._due else 0.0)


def _no_alarm(_seconds: float) -> None:
    """Set no alarm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """The place of one worker in its process.

    Parameters
    ----------
    alarm
        Tells the kernel to end this process in so many seconds (0 = no longer): the last resort for code that hangs
        without letting any other thread run.
    turns
        Shared by all lanes of the process.
    """

    alarm: Callable[[float], object] = _no_alarm
    turns: Turns = field(default_factory=Turns)
