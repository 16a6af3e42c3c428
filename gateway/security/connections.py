"""How many connections may be open, in all and from one address."""

from __future__ import annotations

import logging
import threading
from collections import Counter

logger = logging.getLogger(__name__)


class ConnectionLimit:
    """Counts open connections, on all ports that share it.

    Parameters
    ----------
    what
        What they are for, in the log.
    """

    def __init__(self, what: str, maximum: int, maximum_per_host: int) -> None:
        self._what = what
        self._maximum = maximum
        self._maximum_per_host = maximum_per_host
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()
        self._full = False

    def change(self, maximum: int, maximum_per_host: int) -> None:
        """Admit so many from now on; connections that are open stay."""
        self._maximum, self._maximum_per_host = maximum, maximum_per_host

    def admit(self, host: str) -> bool:
        """Count a connection from `host`, or return False: there are too many."""
        with self._lock:
            full = self._open[host] >= self._maximum_per_host or self._open.total() >= self._maximum
            if full and not self._full:  # said once: a flood of connections must not become one of log lines
                logger.warning(
                    "Closing %s connections: %d are open, %d of them from %s",
                    *(self._what, self._open.total(), self._open[host], host),
                    extra={"action": "connection_refused"},
                )
            self._full = full
            if not full:
                self._open[host] += 1
            return not full

    def leave(self, host: str) -> None:
        """Take back a connection that was admitted and is about to be closed."""
        with self._lock:
            self._open[host] -= 1
            if not self._open[host]:
                del self._open[host]
