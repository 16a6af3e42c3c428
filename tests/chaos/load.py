"""The load: two scanners that send until they are answered, a watched folder, an ordering system."""

from __future__ import annotations

import itertools
import json
import random
import threading
from collections.abc import Callable

from pydicom import Dataset

from tests.acceptance.conftest import Gateway
from tests.acceptance.peers import secondary_capture
from tests.chaos.account import Ledger
from tests.chaos.clients import NAME, c_store, mllp, order, scanner
from tests.fake_digitizer import Behaviour, page_pixels, page_png

MOST_WAITING = 15  # jobs: with more the senders wait, so that a slow machine keeps up
PREFIX = "PIDX"  # every patient ID begins with it: it must not be in a log


class Load:
    """Sends pages and orders between `start` and `stop`, and writes down what is acknowledged."""

    def __init__(
        self, gateway: Gateway, hl7_port: int, ledger: Ledger, seed: int, backlog: Callable[[], int], pause_s: float
    ) -> None:
        self._gateway, self._hl7_port, self._ledger = gateway, hl7_port, ledger
        self._seed, self._backlog, self._pause_s = seed, backlog, pause_s
        self._numbers = itertools.count(1)
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        self._stopping.clear()
        works = (self._scan, self._scan, self._drop, self._order)
        self._threads = [
            threading.Thread(target=work, args=(random.Random(f"{self._seed} {number}"),), daemon=True)
            for number, work in enumerate(works)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def page(self, behaviour: Behaviour = Behaviour.GOOD) -> Dataset:
        """Return a page of a new patient."""
        number = next(self._numbers)
        patient_id = f"{PREFIX}S{number}"
        self._ledger.sent.add(patient_id)
        return secondary_capture(page_pixels(behaviour, seed=number), patient_id=patient_id, patient_name=NAME)

    def send(self, *pages: Dataset, attempts: int = 1) -> None:
        """Send pages; those that are acknowledged are in the ledger then."""
        ae, left = scanner("SCANNER"), list(pages)
        for _ in range(attempts):
            for page, status in zip(left, c_store(ae, self._gateway.port, left), strict=True):
                if status == 0:
                    self._ledger.objects[str(page.SOPInstanceUID)] = str(page.PatientID)
            left = [page for page in pages if str(page.SOPInstanceUID) not in self._ledger.objects]
            if not left or self._stopping.wait(0.3):
                return

    def _scan(self, rng: random.Random) -> None:
        while not self._stopping.is_set():
            pages = [
                self.page(Behaviour.SLOW if rng.random() < 0.01 else Behaviour.GOOD) for _ in range(rng.randint(1, 4))
            ]
            self.send(*pages, attempts=200)
            if rng.random() < 0.1:
                self.send(*pages)  # a modality that sends all of it again
            self._rest(rng)

    def _drop(self, rng: random.Random) -> None:
        """Put pages into the folder; half of them know their patient by an order that comes before or after."""
        while not self._stopping.is_set():
            number = next(self._numbers)
            patient_id, name, accession = f"{PREFIX}F{number}", f"{PREFIX}F{number} {NAME}.png", f"L{number}"
            self._ledger.sent.add(patient_id)
            by_order, first = rng.random() < 0.5, rng.random() < 0.5
            if by_order and first:
                self._tell(number, patient_id)
            told = {"accession_number": accession} if by_order else {"patient_id": patient_id}
            inbox = self._gateway.inbox
            (inbox / f"{name}.json").write_text(json.dumps(told), encoding="utf-8")
            (inbox / f".{name}").write_bytes(page_png(seed=number))
            (inbox / f".{name}").rename(inbox / name)
            if by_order and not first:
                self._tell(number, patient_id)
            self._ledger.files[name] = patient_id
            self._rest(rng)

    def _order(self, rng: random.Random) -> None:
        while not self._stopping.is_set():
            number = next(self._numbers)
            self._tell(number, f"{PREFIX}Q{number}")
            self._rest(rng)

    def _tell(self, number: int, patient_id: str) -> None:
        """Send an order until it is taken, also after the stop: a page may wait for it."""
        for _ in range(400):
            if mllp(self._hl7_port, order(f"M{number}", f"L{number}", patient_id)) == b"AA":
                self._ledger.orders[f"L{number}"] = patient_id
                return
            threading.Event().wait(0.3)
        raise TimeoutError(f"order L{number} was not taken in 400 attempts")

    def _rest(self, rng: random.Random) -> None:
        while self._backlog() > MOST_WAITING and not self._stopping.wait(0.5):
            pass
        self._stopping.wait(self._pause_s * (0.5 + rng.random()))
