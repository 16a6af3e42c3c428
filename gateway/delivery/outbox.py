"""Deliveries on their way out: due delivery -> sender -> delivered, later, or never.

Every destination has a thread of its own, so a slow or dead peer holds up nobody else, and its deliveries leave in
the order they were made.  What is sent is the artefact file, the same bytes on every attempt.  A crash between a
send and its record repeats the send; the peer knows the repeat by its SOP Instance UID or MSH-10.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial

from gateway.delivery.kind import Kind
from gateway.domain.clock import utc_now
from gateway.errors import DeliveryDeferred, DeliveryRefused, IllegalTransition, StorageError
from gateway.logs import bind_job
from gateway.settings import RetrySettings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.store.tables import Delivery
from gateway.threads import Threads

logger = logging.getLogger(__name__)


class Outbox(Threads):
    """Sends what is due until it is stopped.

    Parameters
    ----------
    destinations : Sequence[Kind]
        What is sent to: each sends one artefact at a time.
    rng : random.Random
        Where the jitter comes from.
    poll_s : float
        How often an idle destination looks for work, in s.
    """

    def __init__(
        self,
        store: Store,
        spool: Spool,
        destinations: Sequence[Kind],
        rng: random.Random,
        poll_s: float = 0.5,
    ) -> None:
        self._store = store
        self._spool = spool
        self._destinations = {kind.name: kind for kind in destinations}
        self._rng = rng
        self._poll_s = poll_s
        super().__init__({f"outbox-{name}": partial(self._run, name) for name in self._destinations})

    def _run(self, destination: str) -> None:
        while not self._stopping.is_set():
            try:
                due = self._store.deliveries.due(utc_now(), limit=1, destination=destination)
            except StorageError as error:
                logger.error("Cannot look for deliveries: %s", error, extra={"action": "outbox"})
                due = []
            for delivery in due:
                with bind_job(delivery.job_id):
                    self._record(self._attempt(delivery))
            if not due:
                self._stopping.wait(self._poll_s)

    def _attempt(self, delivery: Delivery) -> Callable[[], None]:
        """Send once; return the call that records the outcome."""
        assert delivery.id is not None
        identity, destination = delivery.id, delivery.destination
        kind = self._destinations[destination]
        path = self._spool.artefact_path(delivery.job_id, delivery.artefact)
        if not path.is_file():
            return lambda: self._store.deliveries.give_up(identity, "the file to send is gone")
        try:
            response = kind.send(path, delivery)
        except DeliveryRefused as error:
            refusal, answer = str(error), error.response
            logger.error("%s refused: %s", destination, refusal, extra={"action": "refuse"})
            return lambda: self._store.deliveries.refuse(identity, refusal, answer)
        except DeliveryDeferred as error:
            logger.warning("%s not reached: %s", destination, error, extra={"action": "defer"})
            return self._later(delivery, str(error))
        except Exception as error:  # one bad delivery must not stop those behind it; it is recorded and retried
            logger.exception("Sending to %s broke", destination, extra={"action": "defer"})
            return self._later(delivery, f"internal error: {type(error).__name__}")
        if kind.committing is not None:  # STORED until the peer commits (`gateway.delivery.committer`)
            logger.info("Stored at %s: %s", destination, response, extra={"action": "store"})
            return lambda: self._store.deliveries.stored(identity, response)
        logger.info("Delivered to %s: %s", destination, response, extra={"action": "deliver"})
        return lambda: self._store.deliveries.delivered(identity, response)

    def _later(self, delivery: Delivery, reason: str) -> Callable[[], None]:
        """Return the step that follows a failed attempt: another one after a pause, or none."""
        assert delivery.id is not None
        identity, retry = delivery.id, self._destinations[delivery.destination].retry
        if delivery.attempts + 1 >= retry.attempts:
            return lambda: self._store.deliveries.give_up(identity, reason)
        when = utc_now() + timedelta(seconds=backoff_s(retry, delivery.attempts, self._rng))
        return lambda: self._store.deliveries.defer(identity, reason, when)

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
    return min(doubled, retry.maximum_s) * rng.uniform(0.75, 1.25)
