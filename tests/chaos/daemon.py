"""The gateway with the fake digitizer and a wall clock that a file moves, as a program: `serve FILE` or `worker FILE`.

The file that `CHAOS_CLOCK` names holds the seconds by which service and workers see the clock ahead (or behind).
"""

from __future__ import annotations

import os
import time
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from types import SimpleNamespace

import gateway.domain.clock
import gateway.spool.folder
from tests.fake_digitizer import main

VARIABLE = "CHAOS_CLOCK"
_now = datetime.now


def ahead_s() -> float:
    """Return by how much the clock is ahead, in s."""
    try:
        return float(Path(os.environ[VARIABLE]).read_text(encoding="ascii"))
    except FileNotFoundError:
        return 0.0


class ShiftedDatetime(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return _now(tz) + timedelta(seconds=ahead_s())


if __name__ == "__main__":
    gateway.domain.clock.datetime = ShiftedDatetime  # type: ignore[misc, attr-defined]
    gateway.spool.folder.time = SimpleNamespace(time=lambda: time.time() + ahead_s())  # type: ignore[assignment]
    main("tests.chaos.daemon")
