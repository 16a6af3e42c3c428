"""A healthy peer in a process of its own: a C-STORE, an order and a look at the health, over and over, each timed.

As a program it speaks from 127.0.0.2 (the attackers have other addresses) until its input ends:

    python -m tests.chaos.healthy DICOM_PORT HL7_PORT WEB_PORT FIRST_NUMBER
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from tests.acceptance.conftest import ROOT
from tests.acceptance.peers import secondary_capture
from tests.chaos.account import Ledger
from tests.chaos.clients import NAME, c_store, mllp, order, scanner
from tests.fake_digitizer import page_pixels

HOST = "127.0.0.2"
EVERY_S = 1.0
WELL = {"C-STORE": "0x0000", "MLLP": "AA", "health": "200"}
ALL = (*WELL,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer, "" where none came: when it was asked for (monotonic, s) and how long it took."""

    kind: str
    at: float
    seconds: float
    answer: str
    key: str  # SOP Instance UID, or accession number
    patient_id: str

    @property
    def well(self) -> bool:
        return self.answer == WELL[self.kind]


class HealthyPeer:
    """Runs the program and collects its answers; what is acknowledged to it goes into the ledger too."""

    def __init__(self, ports: tuple[int, int, int], ledger: Ledger, first_number: int) -> None:
        self.answers: list[Answer] = []
        self._ledger = ledger
        command = [sys.executable, "-m", "tests.chaos.healthy", *map(str, (*ports, first_number))]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
        )
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._thread.join()

    def _collect(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = Answer(**json.loads(line))
            if answer.kind != "health":
                self._ledger.sent.add(answer.patient_id)
            if answer.well and answer.kind == "C-STORE":
                self._ledger.objects[answer.key] = answer.patient_id
            if answer.well and answer.kind == "MLLP":
                self._ledger.orders[answer.key] = answer.patient_id
            self.answers.append(answer)


def timed(kind: str, key: str, patient_id: str, ask: Callable[[], str]) -> None:
    at = time.monotonic()
    answer = ask()
    taken = Answer(
        kind=kind, at=at, seconds=time.monotonic() - at, answer=answer, key=key, patient_id=patient_id
    )  # fmt: skip
    print(json.dumps(asdict(taken)), flush=True)


def look(web_port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", web_port, timeout=30, source_address=(HOST, 0))
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        failing = [check["name"] for check in json.loads(answer.read()).get("checks", ()) if not check["ok"]]
        return " ".join([str(answer.status), *failing])
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()


def main() -> None:
    port, hl7_port, web_port, number = map(int, sys.argv[1:])
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    ae = scanner("HEALTHY")
    while not ended.wait(EVERY_S):
        number += 1
        patient_id = f"PIDXH{number}"
        page = secondary_capture(page_pixels(seed=number), patient_id=patient_id, patient_name=NAME)

        def store(page=page) -> str:  # type: ignore[no-untyped-def]
            (status,) = c_store(ae, port, [page], HOST)
            return "" if status is None else f"0x{status:04X}"

        told = order(f"H{number}", f"H{number}", patient_id)
        timed("C-STORE", str(page.SOPInstanceUID), patient_id, store)
        timed("MLLP", f"H{number}", patient_id, lambda told=told: mllp(hl7_port, told, HOST).decode())  # type: ignore[misc]
        timed("health", "", "", lambda: look(web_port))


if __name__ == "__main__":
    main()
