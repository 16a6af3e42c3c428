"""The thread that tells the audit repository what happened: from the database, when the repository takes it.

Nobody waits for it.  What it is to tell is committed with what happened, or by who let it happen, and stays in the
database until it was told; a repository that is down for a week is told a week later.  A crash between a send and its
record tells a message twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress

from gateway.audit.syslog import Sender, frame
from gateway.audit.words import Told, Words, rendered
from gateway.domain.audit import AuditKind
from gateway.errors import NotFound, NotReached, StorageError
from gateway.settings import AuditSettings, Settings
from gateway.store.store import Store
from gateway.store.tables import AuditEntry, Job
from gateway.threads import OnDuty, Threads, always

logger = logging.getLogger(__name__)

_BATCH = 100
_LONGEST_PAUSE_S = 60.0


class AuditForwarder(Threads):
    """Tells what waits until it is stopped.

    Parameters
    ----------
    current
        Returns the settings in effect.
    poll_s
        How often it looks for what waits, in s.
    on_duty
        Tells whether this node tells what waits.
    """

    def __init__(
        self, store: Store, current: Callable[[], Settings], poll_s: float = 1.0, on_duty: OnDuty = always
    ) -> None:
        super().__init__({"audit": self._run})
        self._store = store
        self._current = current
        self._poll_s = poll_s
        self._on_duty = on_duty
        self._settings: AuditSettings | None = None  # that the sender was made with
        self._sender = Sender(AuditSettings())
        self._failures = 0
        self._next_try = 0.0
        self.problem = ""  # in words; "" while the repository takes what it is told

    def run_once(self) -> bool:
        """Tell what waits, up to a number of messages; return whether there was any.

        Raises
        ------
        NotReached
            The repository takes nothing now.
        """
        settings = self._current()
        self._follow(settings.audit)
        if settings.audit.transport == "none":
            return False
        entries, events = self._store.trail.entries(_BATCH), self._store.trail.events(_BATCH)
        if not entries and not events:
            return False
        words = Words(settings)
        told = [words.entry(entry, self._job(entry.job_id)) for entry in entries]
        lines = [words.line(line, job) for line in events if (job := self._job(line.job_id)) is not None]
        messages = [self._message(each, words) for each in (*told, *lines) if each is not None]
        if messages:
            self._sender.send(messages)
        self._store.trail.told(entries, events)
        return True

    def start(self) -> None:
        """Begin to tell: first, that the gateway starts."""
        self._follow(self._current().audit)
        self._store.trail.record(AuditEntry(kind=AuditKind.START, name="gateway"))
        super().start()

    def stop(self) -> None:
        """Stop; what waits is told after the next start."""
        super().stop()
        with suppress(StorageError):
            self._store.trail.record(AuditEntry(kind=AuditKind.STOP, name="gateway"))
        with suppress(NotReached, StorageError):
            if self._on_duty():
                self.run_once()  # that we stop is among it
        self._sender.close()

    def _run(self) -> None:
        while not self._stopping.wait(self._poll_s):
            if time.monotonic() < self._next_try or not self._on_duty():
                continue
            try:
                while self.run_once() and not self._stopping.is_set():
                    pass
                if self.problem:
                    logger.info("The audit repository takes messages again", extra={"action": "audit"})
                self.problem, self._failures = "", 0
            except NotReached as error:
                if not self.problem:
                    logger.warning("%s", error, extra={"action": "audit"})
                self._failures += 1
                self._next_try = time.monotonic() + min(2.0**self._failures, _LONGEST_PAUSE_S)
                self.problem = str(error)
            except StorageError as error:
                logger.error("Storage is not usable: %s", error, extra={"action": "audit"})

    def _follow(self, settings: AuditSettings) -> None:
        if settings == self._settings:
            return
        self._sender.close()
        self._sender = Sender(settings)
        if settings.transport == "none":
            self._store.trail.end()
        else:
            self._store.trail.begin()
        self._settings = settings

    def _job(self, job_id: str) -> Job | None:
        try:
            return self._store.jobs.get(job_id) if job_id else None
        except NotFound:
            return None

    def _message(self, told: Told, words: Words) -> bytes:
        event = told.event
        return frame(rendered(told, words.source), event.at, event.outcome, words.source[0])
