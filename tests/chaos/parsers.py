"""Mutated input for every parser of untrusted bytes, in processes of their own, as fast as they take it.

A parser may return or raise what it declares.  Anything else, an end of the process, a hang and a long computation are
faults; the input is kept, and its number repeats it:

    python -m tests.chaos.parsers TARGET --seed N --number N
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import re
import resource
import select
import signal
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

from gateway.dicom.images.difference import differences
from gateway.dicom.images.pages import read_context
from gateway.domain.patients import PatientData
from gateway.domain.received import InboundMessage
from gateway.errors import IntakeError
from gateway.hl7.inbound.acknowledgement import scan_acknowledgement
from gateway.hl7.inbound.receiver import Receiver
from gateway.hl7.transport.frames import FrameParser, FrameTooLong, frame
from gateway.identity.filename import read_filename
from gateway.identity.sidecar import read_sidecar
from gateway.intake.accept import file_key, media_type_of, source_digest
from gateway.intake.whole import what_is_missing
from gateway.worker.decode import decode_object
from pipeline.errors import DigitizationError
from pipeline.source.page import decode_pages
from tests.acceptance.conftest import ROOT
from tests.acceptance.peers import CR, FS, VT
from tests.chaos import mutate
from tests.chaos.report import Row

HANG_S = 60.0  # of the wall clock
LONG_S = 10.0  # of the processor, for one input
_MEMORY_BYTES = 6 << 30
_STATE = struct.Struct("=QQQ")  # inputs begun, taken, refused
_PATTERN = re.compile(r"(?P<patient_id>.+)_(?P<study_date>\d{8})")


class _Records:
    """Keeps nothing: the whole way of an inbound HL7 message up to the database."""

    def answer_to(self, message: InboundMessage) -> bytes | None:
        return None

    def is_outdated(self, updates: Sequence[PatientData], made_at: datetime) -> bool:
        return False

    def receive(self, message: InboundMessage, updates: Sequence[PatientData], made_at: datetime) -> Sequence[str]:
        return [update.model_dump_json() if hasattr(update, "model_dump_json") else "" for update in updates]


_receiver = Receiver(_Records(), "UNICODE UTF-8")


def _header(data: bytes) -> None:
    """What the service does with an object before it answers."""
    source_digest("application/dicom", data)
    read_context(data).model_dump_json()
    differences(_first_dicom(), data)


@cache
def _first_dicom() -> bytes:
    return mutate.dicom_corpus()[0]


def _pages(data: bytes) -> None:
    for _ in decode_object(data):  # what the child of a worker does: a fault here is seen, there it is contained
        pass


def _picture(data: bytes) -> None:
    for _ in decode_pages(mutate.with_right_checksums(data)):
        pass


def _file(data: bytes) -> None:
    """What the watched folder does before it takes a file."""
    what_is_missing(media_type_of(data), data)


def _sidecar(data: bytes) -> None:
    read_sidecar(data).model_dump_json()


def _name(data: bytes) -> None:
    stem = data.decode("utf-8", "replace")  # a name that is not UTF-8 is rejected as it is
    if (context := read_filename(_PATTERN, stem)) is not None:
        file_key("folder:x", context, b"")


def _hl7(data: bytes) -> None:
    scan_acknowledgement(data)
    for answer in _receiver(data.replace(VT, b"").replace(FS, b"")):  # a frame holds neither
        frame(answer)


def _frames(data: bytes) -> None:
    parser, at = FrameParser(4096), 0
    for size in (1, 2, 3, 100, 5000) * (len(data) // 100 + 1):
        parser.feed(data[at : at + size])
        at += size


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A parser, what it may raise, and what its inputs are made of; `weight` is its share of the time."""

    parse: Callable[[bytes], None]
    declares: tuple[type[Exception], ...]
    corpus: Callable[[], tuple[bytes, ...]]
    weight: float


TARGETS = {
    "dicom header": Target(parse=_header, declares=(IntakeError,), corpus=mutate.dicom_corpus, weight=3),
    "dicom pages": Target(
        parse=_pages, declares=(IntakeError, DigitizationError, MemoryError), corpus=mutate.dicom_corpus, weight=3
    ),
    "pictures": Target(
        parse=_picture, declares=(DigitizationError, MemoryError), corpus=mutate.picture_corpus, weight=3
    ),
    "files": Target(
        parse=_file,
        declares=(IntakeError,),
        corpus=lambda: mutate.picture_corpus() + mutate.dicom_corpus()[:3],
        weight=1,
    ),
    "hl7": Target(parse=_hl7, declares=(), corpus=mutate.hl7_corpus, weight=3),
    "mllp frames": Target(
        parse=_frames,
        declares=(FrameTooLong,),
        corpus=lambda: (*(VT + message + FS + CR for message in mutate.hl7_corpus()), VT * 5 + FS * 3),
        weight=1,
    ),
    "sidecars": Target(parse=_sidecar, declares=(IntakeError,), corpus=mutate.sidecar_corpus, weight=1),
    "file names": Target(parse=_name, declares=(IntakeError,), corpus=mutate.name_corpus, weight=1),
}


def run_all(root: Path, seconds: float, seed: int) -> Iterator[Row]:
    """Run every target in a process of its own, as many at once as there are processors; about `seconds` in all."""
    root.mkdir(parents=True)
    at_once = os.cpu_count() or 1
    total = sum(target.weight for target in TARGETS.values())

    def run(name: str) -> Row:
        time_s = seconds * at_once * TARGETS[name].weight / total
        command = [sys.executable, "-m", "tests.chaos.parsers", name, "--seed", str(seed), "--seconds", f"{time_s:.1f}"]
        began = time.monotonic()
        done = subprocess.run([*command, "--keep", str(root)], cwd=ROOT, capture_output=True, text=True, check=False)
        row = Row(name=f"parsers: {name}", seconds=time.monotonic() - began)
        if done.returncode:
            row.problems.append(f"exit status {done.returncode}:\n{done.stderr[-2000:]}")
        else:
            row.done, row.inputs, row.problems = json.loads(done.stdout)
        return row

    with ThreadPoolExecutor(at_once) as pool:
        yield from pool.map(run, TARGETS)


def fuzz(name: str, seed: int, seconds: float, keep: Path) -> tuple[str, int, list[str]]:
    """Parse mutated inputs for `seconds`; return what became of them, how many there were, and what was wrong."""
    state = mmap.mmap(-1, _STATE.size)
    end, problems = time.monotonic() + seconds, []
    while time.monotonic() < end and len(problems) < 20:
        fault = _run_child(name, seed, end, state)
        if fault:
            number = _STATE.unpack(state[:])[0] - 1
            problems.append(f"{fault}\n    python -m tests.chaos.parsers '{name}' --seed {seed} --number {number}")
            (keep / f"{name.replace(' ', '-')}-{number}.bin").write_bytes(_input(name, seed, number))
    begun, taken, refused = _STATE.unpack(state[:])
    return f"{taken:,} read, {refused:,} refused", begun, problems


def _run_child(name: str, seed: int, end: float, state: mmap.mmap) -> str:
    """Parse in a child from the input after the last one on; return what was wrong with the one it ended at."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _parse_until(name, seed, end, state, writer)
        os._exit(0)
    os.close(writer)
    last, moved_at = -1, time.monotonic()
    while not select.select([reader], [], [], 0.5)[0]:
        begun = _STATE.unpack(state[:])[0]
        if begun != last:
            last, moved_at = begun, time.monotonic()
        elif time.monotonic() - moved_at > HANG_S:
            os.kill(pid, signal.SIGKILL)
            break
    with open(reader, encoding="utf-8") as pipe:
        words = pipe.read()
    _, status = os.waitpid(pid, 0)
    if words or not status:
        return words
    if os.WIFSIGNALED(status):
        killed = os.WTERMSIG(status) == signal.SIGKILL
        return f"HANG: more than {HANG_S:.0f} s" if killed else f"CRASH: signal {os.WTERMSIG(status)}"
    return f"CRASH: exit status {os.WEXITSTATUS(status)}"


def _parse_until(name: str, seed: int, end: float, state: mmap.mmap, writer: int) -> None:
    """Parse one input after the other until the time is over or one is a fault, which is written to `writer`."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    null = os.open(os.devnull, os.O_WRONLY)  # libraries in C write about every broken picture
    os.dup2(null, 1)
    os.dup2(null, 2)
    begun, taken, refused = _STATE.unpack(state[:])
    fault = ""
    while not fault and time.monotonic() < end:
        data = _input(name, seed, begun)
        state[:] = _STATE.pack(begun + 1, taken, refused)
        fault, was_taken = _judge(name, data)
        begun, taken, refused = begun + 1, taken + was_taken, refused + (not was_taken)
        state[:] = _STATE.pack(begun, taken, refused)
    with open(writer, "w", encoding="utf-8") as pipe:
        pipe.write(fault)


def _judge(name: str, data: bytes) -> tuple[str, bool]:
    """Return what is wrong, "" where nothing is, and whether the input was read."""
    target, began = TARGETS[name], time.process_time()
    fault, taken = "", True
    try:
        target.parse(data)
    except target.declares:
        taken = False
    except Exception as error:  # noqa: BLE001  a fault, whatever it is
        frames = traceback.extract_tb(error.__traceback__)[::-1][:5]
        where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
        fault = f"UNDECLARED {type(error).__name__} ({str(error)[:80]}): {where}"
    took = time.process_time() - began
    return fault or (f"LONG: {took:.1f} s of processor time" if took > LONG_S else ""), taken


def _input(name: str, seed: int, number: int) -> bytes:
    return mutate.mutated(name, seed, number, _corpus(name))


@cache
def _corpus(name: str) -> tuple[bytes, ...]:
    return TARGETS[name].corpus()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.parsers")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--number", type=int, help="parse this input alone, and let its exception through")
    parser.add_argument("--keep", type=Path, default=Path(), help="where inputs that are faults are kept")
    asked = parser.parse_args()
    if asked.number is not None:
        TARGETS[asked.target].parse(_input(asked.target, asked.seed, asked.number))
        return
    print(json.dumps(fuzz(asked.target, asked.seed, asked.seconds, asked.keep)))


if __name__ == "__main__":
    main()
