"""One node as a process: `python -m tests.scale.node SETTINGS NAME CLAIMS`, a worker with a digitizer of 50 ms.

The time that each claim took is appended to the file CLAIMS, in s.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from gateway.settings import load_settings
from gateway.spool.folder import Spool
from gateway.store.jobs import Jobs
from gateway.store.store import Store
from gateway.store.tables import Job
from gateway.worker.process import CurrentSettings, run_worker
from pipeline import Calibration, Digitization, PageImage
from tests.fake_digitizer import FakeDigitizer

PAGE_S = 0.05


class SteadyDigitizer(FakeDigitizer):
    """Takes the same time for every page, and no processor."""

    def digitize(self, page: PageImage, *, default_calibration: Calibration, **more: Any) -> Digitization:
        """Wait, then return the fake's result."""
        time.sleep(PAGE_S)
        return super().digitize(page, default_calibration=default_calibration, **more)


class TimedJobs(Jobs):
    """Jobs that write down how long each claim took that found one."""

    claims: Path

    def claim(self, worker: str, lease_s: float) -> Job | None:
        """Claim as ever."""
        began = time.perf_counter()
        job = super().claim(worker, lease_s)
        if job is not None:
            with self.claims.open("a", encoding="ascii") as file:
                file.write(f"{time.perf_counter() - began:.6f}\n")
        return job


def main() -> None:
    """Be a node until SIGTERM."""
    config, name, claims = sys.argv[1:]
    settings = load_settings(Path(config))
    store = Store.open(settings.storage)
    store.jobs = TimedJobs(store.database)
    store.jobs.claims = Path(claims)
    spool = Spool(settings.storage.path / "spool", settings.storage.minimum_free_mib)
    current = CurrentSettings(settings, partial(load_settings, Path(config)))
    run_worker(current, store, spool, name=name, digitizer=SteadyDigitizer())


if __name__ == "__main__":
    main()
