"""Deliveries on their way out: due delivery -> sender -> delivered, later, or never.

Every destination has a thread of its own, so a slow or dead peer holds up nobody else.  A delivery that fails twice
steps aside until its own time comes, so that one object holds up nobody behind it (`Deliveries.due`); a peer that is
not reached at all is left in peace with everything that waits for it, for a time that doubles up to its maximum.
What is sent is the artefact file, the same bytes on every attempt.  A crash between a
send and its record repeats the send; the peer knows the repeat by its SOP Instance UID or MSH-10.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

from gateway.delivery.kind import JITTER, Kind
from gateway.domain.clock import utc_now
from gateway.errors import (
    DeliveryDeferred,
    DeliveryRefused,
    IllegalTransition,
    NotReached,
    StorageError,
    UnreadableFile,
)
from gateway.logs import bind_job
from gateway.settings import RetrySettings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.store.tables import Delivery
from gateway.threads import OnDuty, Threads, always

logger = logging.getLogger(__name__)

_SPOOL_POLLS = 10  # how long a spool that cannot be read is left in peace


class _Reach:
    """Whether a destination is reached now, and until when it is left in peace where it is not."""

    def __init__(self) -> None:
        self._failures = 0
        self._until = 0.0

    @property
    def paused(self) -> bool:
        return time.monotonic() < self._until

    def failed(self, retry: RetrySettings, rng: random.Random, wait_s: float) -> None:
        """Begin a pause, or a longer one, of `wait_s` at least."""
        self._until = time.monotonic() + max(backoff_s(retry, self._failures, rng), wait_s)
        self._failures += 1

    def restored(self) -> None:
        """Forget what was."""
        self._failures, self._until = 0, 0.0


class Outbox:
    """Sends what is due until it is stopped.

    Parameters
    ----------
    destinations : Sequence[Kind]
        What is sent to: each sends one artefact at a time.
    rng : random.Random
        Where the jitter comes from.
    poll_s : float
        How often an idle destination looks for work, in s.
    on_duty
        Returns, for a destination, what tells whether this node sends to it.
    """

    def __init__(
        self,
        store: Store,
        spool: Spool,
        destinations: Sequence[Kind],
        rng: random.Random,
        poll_s: float = 0.5,
        on_duty: Callable[[str], OnDuty] = lambda _destination: always,
    ) -> None:
        self._on_duty = on_duty
        self._make_sender = partial(_Sender, store, spool, rng, poll_s)
        self._senders = {kind.name: self._sender(kind) for kind in destinations}
        self._retired: list[_Sender] = []
        self._stopped = False
        self._lock = threading.Lock()  # of the exchange of senders

    @property
    def alive(self) -> bool:
        """Whether every destination is sent to; False before `start` and after `stop` too."""
        with self._lock:
            return not self._stopped and all(sender.alive for sender in self._senders.values())

    def start(self) -> None:
        """Begin to send."""
        for sender in self._senders.values():
            sender.start()

    def replace(self, destinations: Sequence[Kind]) -> None:
        """Send to these from now on; one that is another object than before begins when the old one has ended."""
        with self._lock:
            before = self._senders
            self._senders = {kind.name: self._successor(before.get(kind.name), kind) for kind in destinations}
            gone = [sender for name, sender in before.items() if self._senders.get(name) is not sender]
            for sender in gone:
                sender.retire()
            self._retired = [sender for sender in self._retired if sender.ends] + gone
            for name, sender in self._senders.items():
                if before.get(name) is not sender:
                    sender.start()

    def _sender(self, kind: Kind, after: _Sender | None = None) -> _Sender:
        sender = self._make_sender(kind, self._on_duty(kind.name))
        sender.after = after
        return sender

    def _successor(self, sender: _Sender | None, kind: Kind) -> _Sender:
        return sender if sender is not None and sender.kind is kind else self._sender(kind, after=sender)

    def stop(self) -> None:
        """Stop; return when what is being sent has ended."""
        self._stopped = True
        senders = [*self._senders.values(), *self._retired]
        for sender in senders:
            sender.retire()
        for sender in senders:
            sender.stop()


class _Sender(Threads):
    """The thread of one destination; `after`: the one that sent to it before."""

    def __init__(
        self,
        store: Store,
        spool: Spool,
        rng: random.Random,
        poll_s: float,
        kind: Kind,
        on_duty: OnDuty,
    ) -> None:
        self.kind = kind
        self._on_duty = on_duty
        self._store = store
        self._spool = spool
        self._rng = rng
        self._poll_s = poll_s
        self._reach = _Reach()
        self.after: _Sender | None = None
        super().__init__({f"outbox-{kind.name}": self._run})

    @property
    def ends(self) -> bool:
        """Whether it was told to end and still sends."""
        return any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        if self.after is not None:
            self.after.stop()
            self.after = None
        while not self._stopping.is_set():
            if self._reach.paused or not self._on_duty():
                self._stopping.wait(self._poll_s)
                continue
            try:
                due = self._store.deliveries.due(utc_now(), self.kind.name)
            except StorageError as error:
                logger.error("Cannot look for deliveries: %s", error, extra={"action": "outbox"})
                due = []
            for delivery in due:
                with bind_job(delivery.job_id):
                    self._record(self._attempt(delivery))
            if not due:
                self._stopping.wait(self._poll_s)
        self.kind.close()

    def _attempt(self, delivery: Delivery) -> Callable[[], None]:
        """Send once; return the call that records the outcome."""
        try:
            with self._spool.fetched(delivery.job_id, delivery.artefact) as path:
                return self._send(path, delivery)
        except UnreadableFile as error:
            return self._later(delivery, f"the file to send cannot be read: {error}")
        except StorageError as error:  # no fault of the delivery, nor of its peer: no attempt is counted
            logger.error("Cannot read what is to be sent: %s", error, extra={"action": "outbox"})
            self._stopping.wait(_SPOOL_POLLS * self._poll_s)
            return lambda: None

    def _send(self, path: Path | None, delivery: Delivery) -> Callable[[], None]:
        assert delivery.id is not None
        identity, destination = delivery.id, delivery.destination
        kind, reach = self.kind, self._reach
        if path is None:
            return lambda: self._store.deliveries.give_up(identity, "the file to send is gone")
        try:
            response = kind.send(path, delivery)
        except NotReached as error:
            logger.warning("%s not reached: %s", destination, error, extra={"action": "defer"})
            if self._is_last(delivery):
                reach.restored()  # a person looks at it now, and may send again what waits for the next try
            reach.failed(kind.retry, self._rng, self._asked_s(error))
            return self._later(delivery, str(error), self._asked_s(error))
        except DeliveryRefused as error:
            reach.restored()
            refusal, answer = str(error), error.response
            logger.error("%s refused: %s", destination, refusal, extra={"action": "refuse"})
            return lambda: self._store.deliveries.refuse(identity, refusal, answer)
        except DeliveryDeferred as error:
            reach.restored()
            logger.warning("%s did not take it: %s", destination, error, extra={"action": "defer"})
            return self._later(delivery, str(error), self._asked_s(error))
        except Exception as error:  # one bad delivery must not stop those behind it; it is recorded and retried
            logger.exception("Sending to %s broke", destination, extra={"action": "defer"})
            return self._later(delivery, f"internal error: {type(error).__name__}")
        reach.restored()
        if kind.committing is not None:  # STORED until the peer commits (`gateway.delivery.committer`)
            logger.info("Stored at %s: %s", destination, response, extra={"action": "store"})
            return lambda: self._store.deliveries.stored(identity, response)
        logger.info("Delivered to %s: %s", destination, response, extra={"action": "deliver"})
        return lambda: self._store.deliveries.delivered(identity, response)

    def _asked_s(self, error: DeliveryDeferred) -> float:
        """Return how long the peer asks us to wait, as far as we do."""
        return min(error.wait_s, self.kind.longest_pause_s)

    def _later(self, delivery: Delivery, reason: str, wait_s: float = 0.0) -> Callable[[], None]:
        """Return the step that follows a failed attempt: another one after a pause of `wait_s` at least, or none."""
        assert delivery.id is not None
        identity, retry = delivery.id, self.kind.retry
        if self._is_last(delivery):
            return lambda: self._store.deliveries.give_up(identity, reason)
        when = utc_now() + timedelta(seconds=max(backoff_s(retry, delivery.attempts, self._rng), wait_s))
        return lambda: self._store.deliveries.defer(identity, reason, when)

    def _is_last(self, delivery: Delivery) -> bool:
        return delivery.attempts + 1 >= self.kind.retry.attempts

    def _record(self, step: Callable[[], None]) -> None:
        """Tell the store, however long it takes: what is not recorded would be sent again at once."""
        while True:
            try:
                return step()
            except IllegalTransition as error:  # cancelled by a person meanwhile
                return logger.warning("Not recorded: %s", error, extra={"action": "outbox"})
            except StorageError as error:
                logger.error("Cannot record a delivery: %s", error, extra={"action": "outbox"})
                if self._stopping.wait(self._poll_s):
                    return None


def backoff_s(retry: RetrySettings, attempts: int, rng: random.Random) -> float:
    """Return the pause after `attempts` + 1 failed attempts, in s: doubled each time, capped, then +-25 %."""
    doubled = retry.first_s * 2.0 ** min(attempts, 60)
    return min(doubled, retry.maximum_s) * rng.uniform(1 - JITTER, 1 + JITTER)
