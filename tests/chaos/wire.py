"""Mutated input for the living gateway, from an address of its own, over every way in.

A fuzzer goes on for the time it has, with several connections at once; input `number` of a seed is always the same.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from io import BytesIO
from pathlib import Path

from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE

from tests.acceptance.peers import CR, FS, VT, secondary_capture
from tests.chaos.clients import c_store, scanner
from tests.chaos.lab import Lab
from tests.chaos.load import MOST_WAITING
from tests.chaos.mutate import dicom_corpus, hl7_corpus, mutate, picture_corpus, small_pdf
from tests.chaos.report import Done
from tests.fake_digitizer import page_pixels, page_png
from tests.waiting import PATIENCE_S

HOST = "127.0.0.3"
_AT_ONCE = 6
_PATHS = (
    *("/", "/?status=QUEUED", "/?page=2", "/jobs/x", "/unmatched", "/healthz", "/metrics", "/static/style.css"),
    *("/jobs/JOB", "/jobs/JOB/source", "/jobs/JOB/pages/1/page.png", "/jobs/JOB/pages/1/overlay.png"),
    *("/static/../../../etc/passwd", "/static/%2e%2e/%2e%2e/app.py", "/static/..%2f..%2fapp.py", "/jobs/%00/source"),
    *("/jobs/..%2f..%2fgateway.db/source", "/jobs/' OR 1=1--/source", "/?status=DONE' OR '1'='1", "/?page=-1"),
    *(
        "/?page=1e9",
        "/?page=" + "9" * 5000,
        "/jobs/JOB/pages/-1/page.png",
        "/jobs/JOB/pages/" + "9" * 110 + "/page.png",
    ),
    *("/" + "A" * 70000, "//evil.example/", "/jobs/%ff%fe", "/?status=%ff", "/jobs/" + "%2e" * 500, "/.git/config"),
    *("http://evil.example/", "/healthz%0d%0aX:1", "/jobs/JOB?pictures=<script>alert(1)</script>"),
    *("/merges/" + "9" * 30 + "/settled", "/jobs/JOB/identity", "/jobs/JOB/confirmation"),
)
_METHODS = ("GET", "GET", "GET", "POST", "HEAD", "PUT", "OPTIONS", "TRACE", "FOO")
_HEADERS = (
    *(
        b"",
        b"",
        b"",
        b"Content-Length: 99999999999999\r\n",
        b"Content-Length: -1\r\n",
        b"Transfer-Encoding: chunked\r\n",
    ),
    *(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"Range: bytes=0-,0-,0-\r\n", b"\0\r\n"),
    *(b"X: " + b"y" * 70000 + b"\r\n", b"Cookie: a\r\n" * 500, b"Origin: null\r\nSec-Fetch-Site: cross-site\r\n"),
)
_NAMES = (
    "a\nb%d",
    "\u202egnp.%d",
    "x" * 230 + "%d",
    "..%d",
    " %d",
    "'; DROP TABLE job;--%d",
    "<b>%d</b>",
    "-rf %d",
    "é%d",
)


def _fuzz(
    seconds: float,
    one: Callable[[int, random.Random], str],
    *,
    name: str,
    seed: str,
    at_once: int = _AT_ONCE,
    ready: Callable[[], bool] = lambda: True,
) -> tuple[int, Counter[str]]:
    """Do `one` again and again, where `ready`; return how often, and what it returned how often."""
    numbers, answers, end = itertools.count(), Counter[str](), time.monotonic() + seconds

    def work(_: int) -> int:
        count = 0
        while time.monotonic() < end:
            if not ready():
                time.sleep(0.1)
                continue
            number = next(numbers)
            try:
                answer = one(number, random.Random(f"{name} {seed} {number}"))
            except OSError as error:
                answer = type(error).__name__
            answers[answer] += 1
            count += 1
        return count

    with ThreadPoolExecutor(at_once) as pool:
        return sum(pool.map(work, range(at_once))), answers


def _keeps_up(lab: Lab) -> bool:
    return lab.backlog() <= MOST_WAITING and len(os.listdir(lab.gateway.inbox)) <= 200


def _words(answers: Counter[str]) -> str:
    return "answers: " + ", ".join(f"{count} {answer}" for answer, count in answers.most_common(6))


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), 5, source_address=(HOST, 0))
    connection.settimeout(0.7)
    return connection


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except OSError:
        return b""


# -- DICOM ------------------------------------------------------------------------------------------------------------


def fuzz_pdus(lab: Lab, seconds: float) -> Done:
    """Send broken, shuffled, repeated and cut PDUs of a scanner that stores one object."""
    pdus = _recorded(lab)

    def one(number: int, rng: random.Random) -> str:
        with _connect(lab.gateway.port) as connection:
            for data in _broken(pdus, rng):
                connection.sendall(data)
                if rng.random() < 0.3:
                    _receive(connection)
            if rng.random() < 0.5:
                connection.shutdown(socket.SHUT_WR)
            answer = _receive(connection)
        return f"PDU type {answer[0]}" if answer else "silence or end"

    inputs, answers = _fuzz(seconds, one, name="pdus", seed=lab.seed)
    return Done(words=_words(answers), inputs=inputs)


def _broken(pdus: list[bytes], rng: random.Random) -> list[bytes]:
    request, *rest = pdus
    how = rng.randrange(7)
    if how == 0:
        return [rng.randbytes(rng.choice((1, 6, 10, 100, 5000)))]
    if how == 1:
        return [mutate(rng, request, rng.choice(pdus))]
    if how == 2:
        rng.shuffle(rest)
        return [request, *rest]
    if how == 3:
        return [request, *rest * rng.choice((2, 5))]
    if how == 4:
        return [request, *(pdu[: rng.randrange(1, len(pdu))] if rng.random() < 0.3 else pdu for pdu in rest)]
    if how == 5:  # one byte a PDV
        context, body = rest[0][10:11], rest[0][12:212]
        head = b"\x04\0" + (7).to_bytes(4, "big") + (3).to_bytes(4, "big") + context + b"\x01"
        return [request, *(head + body[at : at + 1] for at in range(len(body)))]
    return [request, *(mutate(rng, pdu, rng.choice(pdus)) if rng.random() < 0.6 else pdu for pdu in rest)]


def _recorded(lab: Lab) -> list[bytes]:
    """Return the PDUs that a scanner sends to store one object."""
    taken: list[bytes] = []

    def pump(source: socket.socket, target: socket.socket, *, keep: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 20):
                if keep:
                    taken.append(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    with socket.create_server(("127.0.0.1", 0)) as server:

        def relay() -> None:
            scanner_side, _ = server.accept()
            with scanner_side, socket.create_connection(("127.0.0.1", lab.gateway.port)) as gateway_side:
                back = threading.Thread(target=partial(pump, gateway_side, scanner_side, keep=False))
                back.start()
                pump(scanner_side, gateway_side, keep=True)
                back.join()

        thread = threading.Thread(target=relay)
        thread.start()
        page = secondary_capture(page_pixels(seed=77), patient_id="Z77")
        assert c_store(scanner("RECORDED"), server.getsockname()[1], [page]) == [0]
        thread.join()
    data, pdus = b"".join(taken), []
    while len(data) >= 6:
        length = 6 + int.from_bytes(data[2:6], "big")
        pdus.append(data[:length])
        data = data[length:]
    return pdus


def fuzz_data_sets(lab: Lab, seconds: float) -> Done:
    """Store mutated data sets over whole associations; one that is acknowledged must become a job."""
    corpus = dicom_corpus()
    local = threading.local()

    def one(number: int, rng: random.Random) -> str:
        association = getattr(local, "association", None)
        if association is None or not association.is_established:
            association = local.association = scanner("FUZZ").associate(
                "127.0.0.1", lab.gateway.port, ae_title="ECGGW", bind_address=(HOST, 0)
            )
            if not association.is_established:
                time.sleep(0.2)
                return "not associated"
        page = secondary_capture(page_pixels(seed=number), patient_id=f"Z{number}")
        page.SOPInstanceUID = f"2.25.{rng.getrandbits(120)}"
        status = _store(association, page, mutate(rng, _encoded(page), rng.choice(corpus)[300:]))
        if status == 0:
            lab.ledger.mutated.add(str(page.SOPInstanceUID))
        return "no answer" if status is None else f"0x{status:04X}"

    keeps_up = partial(_keeps_up, lab)
    inputs, answers = _fuzz(seconds, one, name="data sets", seed=lab.seed, at_once=3, ready=keeps_up)
    return Done(words=_words(answers), inputs=inputs)


def _encoded(dataset: Dataset) -> bytes:
    file = DicomBytesIO()
    file.is_little_endian, file.is_implicit_VR = True, False
    write_dataset(file, dataset)
    return file.getvalue()


def _store(association: Association, page: Dataset, body: bytes) -> int | None:
    """Send any bytes as the data set of a C-STORE; return the status."""
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = page.SOPClassUID, page.SOPInstanceUID
    request.DataSet = BytesIO(body)
    context = next(c for c in association.accepted_contexts if c.abstract_syntax == page.SOPClassUID)
    association._reactor_checkpoint.clear()
    try:
        association.dimse.send_msg(request, context.context_id)
        _, answer = association.dimse.get_msg(block=True)
    finally:
        association._reactor_checkpoint.set()
    return None if answer is None else answer.Status


# -- HL7, HTTP, files -------------------------------------------------------------------------------------------------


def fuzz_mllp(lab: Lab, seconds: float) -> Done:
    """Send mutated messages, framed well or not."""
    corpus = hl7_corpus()

    def one(number: int, rng: random.Random) -> str:
        message = mutate(rng, rng.choice(corpus), rng.choice(corpus))
        data = VT + message + FS + CR
        if rng.random() < 0.2:
            data = mutate(rng, data, message)
        if rng.random() < 0.005:
            data = data[:200] + rng.choice((b"X", b"~", b"^", b"\\", b"&", b"\rORC|NW|1")) * (1 << 20) + FS + CR
        with _connect(lab.hl7_port) as connection:
            connection.sendall(data)
            if rng.random() < 0.5:
                connection.shutdown(socket.SHUT_WR)
            code = re.search(rb"MSA.(AA|AE|AR|CA|CE|CR)", _receive(connection), re.DOTALL)
        return code[1].decode() if code else "silence or end"

    inputs, answers = _fuzz(seconds, one, name="mllp", seed=lab.seed)
    return Done(words=_words(answers), inputs=inputs)


def fuzz_http(lab: Lab, seconds: float) -> Done:
    """Send mutated requests for what there is and what there is not; no answer may be 500 or show a file."""
    (job,) = lab.query("select id from job where status = 'DONE' limit 1")[0]
    problems: Counter[str] = Counter()

    def one(number: int, rng: random.Random) -> str:
        path, method = rng.choice(_PATHS).replace("JOB", job), rng.choice(_METHODS)
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{lab.gateway.web_port}\r\nConnection: close\r\n".encode()
        data = head + rng.choice(_HEADERS) + b"\r\n" + rng.choice((b"", b"a=b", b"5\r\nhello\r\n0\r\n\r\n"))
        if rng.random() < 0.5:
            data = mutate(rng, data, head)
        with _connect(lab.gateway.web_port) as connection:
            connection.sendall(data)
            answer = b""
            while received := _receive(connection):
                answer += received
        status = answer[9:12].decode("latin-1") if answer.startswith(b"HTTP/") else "none"
        if status == "500":
            problems[f"HTTP 500: input {number}, {method} {path[:60]!r}"] += 1
        for mark in (b"root:x:", b"SQLite format", b"from __future__"):
            if mark in answer:
                problems[f"HTTP shows {mark!r}: input {number}, {path[:60]!r}"] += 1
        return status

    inputs, answers = _fuzz(seconds, one, name="http", seed=lab.seed)
    return Done(words=_words(answers), inputs=inputs, problems=[*problems][:5])


def fuzz_folder(lab: Lab, seconds: float) -> Done:
    """Drop mutated files with odd names and sidecars, links and pipes; all files must leave the folder."""
    corpus = (*picture_corpus(), *dicom_corpus(), small_pdf())
    inbox = lab.gateway.inbox
    special = _special_files(inbox)

    def one(number: int, rng: random.Random) -> str:
        name = f"z{number}." + rng.choice(("png", "dcm", "pdf", "tif", "jpg"))
        chance = rng.random()
        path = os.fsencode(inbox / (rng.choice(_NAMES) % number if chance < 0.1 else name))
        if chance > 0.95:
            path = os.fsencode(inbox) + b"/\xff\xfe%d" % number
        told = json.dumps({"patient_id": f"Z{number}"}).encode()
        if rng.random() < 0.7:
            Path(os.fsdecode(path + b".json")).write_bytes(mutate(rng, told, told) if rng.random() < 0.4 else told)
        Path(os.fsdecode(path)).write_bytes(mutate(rng, rng.choice(corpus), rng.choice(corpus)))
        return "file"

    inputs, _ = _fuzz(seconds, one, name="folder", seed=lab.seed, at_once=1, ready=partial(_keeps_up, lab))
    end = time.monotonic() + PATIENCE_S
    while (left := _left(inbox)) and time.monotonic() < end:
        time.sleep(0.2)
    for path in special:
        path.unlink()
    return Done(
        words=f"{inputs} files dropped", inputs=inputs, problems=[f"left in the inbox: {left[:5]}"] if left else []
    )


def _special_files(inbox: Path) -> list[Path]:
    """Make links and pipes, which are no files of a scanner, and sidecars that are such."""
    paths = [inbox / f"special{number}.png" for number in range(4)] + [inbox / "pipe.png.json", inbox / "link.png.json"]
    for path, target in zip(paths[:3], ("/etc/passwd", "/dev/zero", paths[2].name), strict=True):
        path.symlink_to(target)
    os.mkfifo(paths[3])
    os.mkfifo(paths[4])
    paths[5].symlink_to("/etc/shadow")
    for name in ("pipe.png", "link.png"):
        (inbox / name).write_bytes(page_png(seed=4))
    return paths


def _left(inbox: Path) -> list[str]:
    """Return the files that are still to be taken: neither hidden nor sidecars nor links nor pipes."""
    names = [name for name in os.listdir(inbox) if (inbox / name).is_file() and not (inbox / name).is_symlink()]
    names = [name for name in names if not name.startswith(".") and not name.endswith((".json", ".part", "~"))]
    return names + os.listdir(inbox / "processing")


FUZZERS: dict[str, Callable[[Lab, float], Done]] = {
    "PDUs": fuzz_pdus,
    "data sets": fuzz_data_sets,
    "MLLP": fuzz_mllp,
    "HTTP": fuzz_http,
    "folder": fuzz_folder,
}
