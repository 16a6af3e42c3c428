"""How long the tests wait: no machine, however loaded, may fail one that is right.

What must come is waited for with `PATIENCE_S`.  That nothing is held up is shown by its coming within `SOON_S` where
what might hold it up takes `PATIENCE_S` or longer; so both are far from what a slow machine can confuse.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE_S = 60.0
SOON_S = 20.0

T = TypeVar("T")


def wait_for(what: str, probe: Callable[[], T], timeout_s: float = PATIENCE_S) -> T:
    """Return the first true value of `probe`; fail, naming `what`, when the time is over."""
    deadline = time.monotonic() + timeout_s
    while not (value := probe()):
        assert time.monotonic() < deadline, f"timed out waiting for {what}"
        time.sleep(0.02)
    return value


def eventually(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    """Return when the condition holds."""
    wait_for("what should have happened", condition, timeout_s)
