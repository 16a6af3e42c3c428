"""What every part of the service that works in threads of its own has in common: alive, start, stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping


class Threads:
    """Threads that run from `start` until `stop`.

    Parameters
    ----------
    works : Mapping[str, Callable[[], None]]
        What each thread does, by its name; it has to return soon once `_stopping` is set.
    """

    def __init__(self, works: Mapping[str, Callable[[], None]]) -> None:
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=work, name=name, daemon=True) for name, work in works.items()]

    @property
    def alive(self) -> bool:
        """Whether every thread runs; False before `start` and after `stop` too."""
        return all(thread.is_alive() for thread in self._threads) and not self._stopping.is_set()

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop; return when what was under way is done."""
        self._stopping.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
