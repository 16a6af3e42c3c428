"""A job's lease while it is worked on: extended until the work ends, and the end of the process where a page hangs."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from typing import Self

from gateway.errors import IllegalTransition, StorageError
from gateway.settings import Settings
from gateway.store.store import Store
from gateway.store.tables import Job

logger = logging.getLogger(__name__)

EXIT_PAGE_TIMEOUT = 75
_ALARM_MARGIN_S = 10.0  # what the lease thread gets to end the process in order, before the kernel ends it


class Lease:
    """Keeps a job ours while it is worked on, and ends the process when a piece of the work takes too long."""

    def __init__(
        self, store: Store, job: Job, worker: str, settings: Settings, alarm: Callable[[float], object]
    ) -> None:
        self._store = store
        self._job = job
        self._worker = worker
        self._settings = settings.worker
        self._alarm = alarm
        self._work = ("", time.monotonic() + self._settings.page_timeout_s)  # what is done now, and its deadline
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self.lost = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._alarm(0.0)
        self._thread.join()

    def begin(self, what: str) -> None:
        """Start the clock for the next piece of work."""
        timeout_s = self._settings.page_timeout_s
        self._work = (what, time.monotonic() + timeout_s)
        self._alarm(timeout_s + _ALARM_MARGIN_S)

    def rest(self) -> None:
        """Stop the clock: what comes now waits for the store."""
        self._work = ("", math.inf)
        self._alarm(0.0)

    def _run(self) -> None:
        beat_s = self._settings.lease_s / 3
        next_beat = time.monotonic() + beat_s
        while not self._done.wait(min(max(next_beat - time.monotonic(), 0.0), 0.5)):
            what, deadline = self._work
            now = time.monotonic()
            if now > deadline:
                self._time_out(what)
            if now >= next_beat:
                next_beat = now + (beat_s if self._beat() else min(beat_s, 0.5))

    def _beat(self) -> bool:
        """Extend the lease; return False where that has to be tried again soon, as long as it still may be in time."""
        try:
            self.lost = self.lost or not self._store.jobs.heartbeat(self._job.id, self._worker, self._settings.lease_s)
            self._store.workers.seen(self._worker)
        except StorageError as error:
            logger.error("The lease was not extended: %s", error, extra={"action": "heartbeat", "job_id": self._job.id})
            return False
        return True

    def _time_out(self, what: str) -> None:
        """End the process; the last attempt takes the job with it, an earlier one leaves it to be tried again."""
        reason = f"{what} took longer than {self._settings.page_timeout_s:g} s"
        logger.error("Ending this worker: %s", reason, extra={"action": "page_timeout", "job_id": self._job.id})
        try:
            if self._job.attempts >= self._settings.maximum_attempts:
                self._store.jobs.fail(self._job.id, self._worker, reason)
        except (IllegalTransition, StorageError) as error:
            logger.error("Not recorded: %s", error, extra={"action": "page_timeout", "job_id": self._job.id})
        finally:
            os._exit(EXIT_PAGE_TIMEOUT)  # the page's thread cannot be interrupted
