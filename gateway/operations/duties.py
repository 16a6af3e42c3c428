"""What one node does for all: which of the duties are this one's now.

The outbox of a destination, a watched folder, the upkeep: two nodes at the same would send twice, or in the wrong
order.  Each is a lease in the database (`gateway.store.queue.nodes`).  A thread of its own extends the leases, so that
a send of minutes keeps its own; where that fails, this node stops before another one may begin.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

from gateway import __version__
from gateway.errors import StorageError
from gateway.store.queue.nodes import Nodes
from gateway.store.tables import Node
from gateway.threads import Threads

logger = logging.getLogger(__name__)

LEASE_S = 20.0
_BEAT_S = 4.0
_MARGIN_S = 6.0  # of a lease that is not used: an answer of the database may take its time
_ASK_S = 2.0  # how often a duty that another node has is asked for


class Duties(Threads):
    """The duties of this node between `start` and `stop`.

    Parameters
    ----------
    name : str
        Of this node (`[storage] node`).
    root : Path
        Its storage path.
    """

    def __init__(self, nodes: Nodes, name: str, root: Path) -> None:
        super().__init__({"duties": self._run})
        self._nodes = nodes
        place = f"{socket.gethostname()}:{root.resolve()}"
        self._node = Node(name=name, instance=uuid.uuid4().hex, place=place, version=__version__)
        self._lock = threading.Lock()
        self._held: set[str] = set()
        self._asked: dict[str, float] = {}  # of others' duties: when it was, monotonic
        self._sure_until = 0.0  # monotonic

    def start(self) -> None:
        """Enter this node; raise StorageError where another one has its name."""
        began = time.monotonic()
        self._nodes.begin(self._node, LEASE_S)
        self._sure_until = began + LEASE_S - _MARGIN_S
        super().start()

    def stop(self) -> None:
        """Give back every duty: what has one must have ended."""
        super().stop()
        try:
            self._nodes.end(self._node)
        except StorageError as error:
            logger.warning("The duties end with their leases: %s", error, extra={"action": "duty"})

    def of(self, duty: str) -> Callable[[], bool]:
        """Return what tells, each time it is called, whether a duty is this node's now; it asks for it."""
        return partial(self._is_mine, duty)

    def _is_mine(self, duty: str) -> bool:
        now = time.monotonic()
        with self._lock:
            if duty in self._held:
                return now < self._sure_until
            if now < self._asked.get(duty, 0.0) + _ASK_S or now >= self._sure_until:
                return False
            self._asked[duty] = now
        try:
            taken = self._nodes.take(duty, self._node, LEASE_S)
        except StorageError as error:
            logger.error("Cannot ask for a duty: %s", error, extra={"action": "duty"})
            return False
        if taken:
            with self._lock:
                self._held.add(duty)
            logger.info("This node has taken: %s", duty, extra={"action": "duty"})
        return taken

    def _run(self) -> None:
        while not self._stopping.wait(_BEAT_S):
            began = time.monotonic()
            try:
                mine = self._nodes.seen(self._node, os.getloadavg()[0] / (os.cpu_count() or 1), LEASE_S)
            except StorageError as error:
                logger.error("This node cannot be heard of: %s", error, extra={"action": "duty"})
                continue
            if mine is None:
                logger.critical("Another process runs as node %r", self._node.name, extra={"action": "duty"})
                return
            with self._lock:
                for lost in self._held.difference(mine):
                    logger.warning("Another node has taken: %s", lost, extra={"action": "duty"})
                self._held = set(mine)
                self._sure_until = began + LEASE_S - _MARGIN_S
