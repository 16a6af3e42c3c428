"""The common base of the parts that run in their own threads: alive, start, stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

OnDuty = Callable[[], bool]  # whether this node does now what one node does for all (`gateway.operations.duties`)


def always() -> bool:
    """Be on duty: there is no other node."""
    return True


class Threads:
    """Threads that run from `start` until `stop`.

    Parameters
    ----------
    works : Mapping[str, Callable[[], None]]
        The work of each thread, by its name; it must return soon after `_stopping` is set.
    """

    def __init__(self, works: Mapping[str, Callable[[], None]]) -> None:
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=work, name=name, daemon=True) for name, work in works.items()]

    @property
    def alive(self) -> bool:
        """Whether every thread runs; False before `start` and after `stop` too."""
        return all(thread.is_alive() for thread in self._threads) and not self._stopping.is_set()

    def start(self) -> None:
        """Start all threads."""
        for thread in self._threads:
            thread.start()

    def retire(self) -> None:
        """Have all threads end after their current work; `stop` waits for that."""
        self._stopping.set()

    def stop(self) -> None:
        """Stop all threads; return when their current work is done."""
        self.retire()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
