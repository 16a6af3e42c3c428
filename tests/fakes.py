"""Stand-ins for what is outside the gateway."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gateway.delivery.kind import Kind, Objects
from gateway.delivery.steps import Step
from gateway.domain.artefact import Artefact
from gateway.domain.clock import utc_now
from gateway.domain.digitized_page import DigitizedPage
from gateway.settings import RetrySettings
from gateway.store.store import Store
from gateway.store.tables import Delivery
from tests.waiting import PATIENCE_S

_YES = {"dicom": "0x0000", "hl7": "AA", "folder": "stored"}


@dataclass(frozen=True, kw_only=True)
class Sent:
    """One attempt a destination saw."""

    artefact: str
    data: bytes
    identifier: str


class FakeDestination(Kind):
    """A destination of one kind ("dicom", "hl7", "folder") that plays a script, then says yes.

    Parameters
    ----------
    script : Sequence[Exception or str]
        What the first attempts end with: an exception to raise, or an answer to return.
    open : bool
        False: every send waits until `gate` is set.
    """

    def __init__(self, kind: str = "dicom", script: Sequence[Exception | str] = (), open: bool = True) -> None:
        self.name, self.word, self.retry = "", kind, RetrySettings()
        self.sent: list[Sent] = []
        self.sending = threading.Event()
        self.gate = threading.Event()
        self._script = list(script)
        if open:
            self.gate.set()

    def artefacts(self, page: DigitizedPage, objects: Objects, earlier: Sequence[Delivery]) -> Iterator[Artefact]:
        yield from ()

    def check(self) -> Iterator[Step]:
        yield from ()

    def send(self, path: Path, delivery: Delivery) -> str:
        self.sending.set()
        assert self.gate.wait(PATIENCE_S)
        self.sent.append(Sent(artefact=delivery.artefact, data=path.read_bytes(), identifier=delivery.identifier))
        answer = self._script.pop(0) if self._script else _YES[self.word]
        if isinstance(answer, Exception):
            raise answer
        return answer


def due_anywhere(store: Store, now: datetime | None = None) -> list[Delivery]:
    """Return what may be sent to any destination, now or at another time."""
    names = sorted({name for _status, name in store.deliveries.counts_by_destination()})
    return [each for name in names for each in store.deliveries.due(now or utc_now(), name, limit=100)]


def make_unreadable(path: Path) -> None:
    """Put in the place of a file what no process can open, and what is not gone."""
    path.unlink()
    path.symlink_to(path.name)
