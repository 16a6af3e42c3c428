"""How often an address has failed to log in, within a span of time."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from ipaddress import ip_address, ip_network

_MOST_ADDRESSES = 10_000


class FailedAttempts:
    """Counts failures by address; an IPv6 network of 64 bits, which one subscriber has, is one address.

    Parameters
    ----------
    maximum
        How many failures within `window_s` are too many.
    clock
        Returns the time in s.
    """

    def __init__(self, maximum: int, window_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._maximum = maximum
        self._window_s = window_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def too_many(self, address: str) -> bool:
        """Return whether an address must wait."""
        with self._lock:
            failures = self._failures.get(_key(address))
            while failures and failures[0] < self._clock() - self._window_s:
                failures.popleft()
            return failures is not None and len(failures) >= self._maximum

    def add(self, address: str) -> None:
        """Count a failure."""
        key = _key(address)
        with self._lock:
            self._failures.setdefault(key, deque(maxlen=self._maximum)).append(self._clock())
            self._failures.move_to_end(key)
            if len(self._failures) > _MOST_ADDRESSES:
                self._failures.popitem(last=False)


def _key(address: str) -> str:
    try:
        known = ip_address(address)
    except ValueError:
        return address
    return address if known.version == 4 else str(ip_network((known, 64), strict=False))
