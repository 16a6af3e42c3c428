"""How fast the gateway acknowledges, and what it needs for it: `python -m tests.chaos.intake`.

C-STORE of objects of 2 MB over 1, 4 and 8 associations and orders by MLLP over 1 and 4 connections.  Every sender is a
process of its own; every object is fsynced and every job and order committed before it is acknowledged.  Nothing is
digitized meanwhile.  Prints Markdown tables, with the memory, threads and file descriptors of the service.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median

import numpy as np
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from pynetdicom import AE

from tests.acceptance.conftest import Gateway
from tests.acceptance.peers import CR, FS, VT, free_port, secondary_capture
from tests.waiting import PATIENCE_S

SIDE = 816  # pixels of an RGB page of 2 MB
SERVE = (sys.executable, "-m", "gateway")
SAMPLE_S = 0.05

Times = list[tuple[float, float]]  # of one acknowledged object: when it was begun and answered, as time.time()
Usage = tuple[int, int, int]  # resident memory in MiB, threads, file descriptors


_begin: Barrier | None = None  # in a sender's process


def take_barrier(barrier: Barrier) -> None:
    """Begin a sender's process."""
    global _begin
    _begin = barrier


def send_objects(port: int, number: int, count: int) -> Times:
    """Send objects over one association."""
    page = secondary_capture(np.random.default_rng(number).integers(0, 255, (SIDE, SIDE, 3), np.uint8))
    ae = AE(f"CART{number}")
    ae.add_requested_context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = PATIENCE_S
    association = ae.associate("127.0.0.1", port, ae_title="ECGGW")
    assert association.is_established
    wait_for_others()
    times = []
    for _ in range(count):
        page.SOPInstanceUID = generate_uid(prefix=None)
        started = time.time()
        if getattr(association.send_c_store(page), "Status", None) == 0x0000:
            times.append((started, time.time()))
    association.release()
    return times


def send_orders(port: int, number: int, count: int) -> Times:
    """Send orders over one connection."""
    times, run = [], time.time_ns() // 1000
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as connection:
        wait_for_others()
        for each in range(count):
            name = f"{number}{run % 10**8:08}{each}"  # SH: at most 16 characters
            message = (
                f"MSH|^~\\&|RIS|H|ECGGW|H|20260101120000||ORM^O01|{name}|P|2.3.1\rPID|1||P{name}^^^H^MR||DOE^JANE\r"
                f"ORC|NW|PL{name}|FI{name}\rOBR|1|PL{name}|FI{name}|ECG^12 lead||||||||||||||A{name}\r"
            )
            started, answer = time.time(), b""
            connection.sendall(VT + message.encode() + FS + CR)
            while FS not in answer and (data := connection.recv(65536)):
                answer += data
            if b"\rMSA|AA|" in answer:
                times.append((started, time.time()))
    return times


def wait_for_others() -> None:
    assert _begin is not None
    _begin.wait(PATIENCE_S)


def measure(send: Callable[[int, int, int], Times], port: int, senders: int, count: int) -> str:
    """Return the row of a table: so many senders at once, `count` objects or messages in all."""
    each = max(count // senders, 1)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(senders, spawn, take_barrier, (spawn.Barrier(senders),)) as pool:
        sent = [pool.submit(send, port, number, each) for number in range(senders)]
        times = [pair for sender in sent for pair in sender.result()]
    if not times:
        return f"{senders} | 0 of {senders * each} | - | - | - |"
    took_ms = [1000 * (answered - started) for started, answered in times]
    rate = len(times) / (max(answered for _, answered in times) - min(started for started, _ in times))
    return f"{senders} | {len(times)} of {senders * each} | {rate:.1f} | {median(took_ms):.0f} | {max(took_ms):.0f} |"


class Usages:
    """Samples what the service uses."""

    def __init__(self, pid: int) -> None:
        self._process = Path(f"/proc/{pid}")
        self.peak = self.now()

    def now(self) -> Usage:
        status = dict(
            line.split(":\t") for line in (self._process / "status").read_text().splitlines() if ":\t" in line
        )
        resident_kib = int(status["VmRSS"].split()[0])
        return resident_kib >> 10, int(status["Threads"]), len(os.listdir(self._process / "fd"))

    @contextmanager
    def sampled(self) -> Iterator[None]:
        """Keep the greatest of each figure inside the block."""
        ended = threading.Event()

        def sample() -> None:
            while not ended.wait(SAMPLE_S):
                memory, threads, descriptors = self.now()
                self.peak = max(self.peak[0], memory), max(self.peak[1], threads), max(self.peak[2], descriptors)

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.intake", description=__doc__)
    parser.add_argument("--objects", type=int, default=96, help="of 2 MB, for each number of associations")
    parser.add_argument("--messages", type=int, default=1000, help="by MLLP, for each number of connections")
    parser.add_argument(
        "--folder", type=Path, default=None, help="on the disk that is measured; default: temporary files"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="intake-", dir=options.folder) as folder:
        hl7 = {"enabled": True, "port": free_port()}
        gateway = Gateway(Path(folder), command=SERVE, worker={"processes": 0}, hl7=hl7)
        gateway.start()
        try:
            report(gateway, int(hl7["port"]), options.objects, options.messages)
        finally:
            gateway.close()


def report(gateway: Gateway, hl7_port: int, objects: int, messages: int) -> None:
    usages = Usages(gateway.process.pid)
    rest = usages.now()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start\n")
    print("| | senders | acknowledged | a second | median ms | longest ms |\n|---|---|---|---|---|---|")
    with usages.sampled():
        for senders in (1, 4, 8):
            print(f"| C-STORE, 2 MB | {measure(send_objects, gateway.port, senders, objects)}", flush=True)
        for senders in (1, 4):
            print(f"| MLLP order | {measure(send_orders, hl7_port, senders, messages)}", flush=True)
    print("\n| service | memory (MiB) | threads | descriptors |\n|---|---|---|---|")
    for name, (memory, threads, descriptors) in (("at rest", rest), ("peak", usages.peak), ("after", usages.now())):
        print(f"| {name} | {memory} | {threads} | {descriptors} |")


if __name__ == "__main__":
    main()
