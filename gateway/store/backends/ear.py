"""How a worker waits for a job: until it hears of one, or for a pause."""

from __future__ import annotations

import threading
from typing import Protocol


class Ear(Protocol):
    """What tells a worker that a job may wait."""

    def wait(self, stopping: threading.Event, seconds: float) -> None:
        """Return when it is time to ask for a job, or at `stopping`."""

    def close(self) -> None:
        """End what it holds."""


class Deaf:
    """Hears nothing, so that it is time to ask after every pause."""

    def wait(self, stopping: threading.Event, seconds: float) -> None:
        """Return after so many seconds, or at `stopping`."""
        stopping.wait(seconds)

    def close(self) -> None:
        """Do nothing: it holds nothing."""
