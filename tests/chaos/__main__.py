"""`python -m tests.chaos [--seconds N] [--seed N] [--stall S] [--only FAULT ...]`: run the faults, print the table.

The exit status is 1 where anything acknowledged was lost, came twice or under another patient, where a healthy peer
waited longer than `--stall` or was refused without need, and where a traceback or a patient is in a log.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.chaos import faults, parsers, wire
from tests.chaos.healthy import ALL
from tests.chaos.lab import Lab
from tests.chaos.report import Done, Row, table

_MARK = ".chaos-run"  # in a folder that may be emptied
_DISK_MIB = 64
_OVERHEAD_S = 45.0  # for starts, stops and settling
_PARSERS_SHARE = 0.12


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault, its share of the time, and what the healthy peer may be refused meanwhile: it cannot be had then."""

    name: str
    act: Callable[[Lab, float], Done]
    share: float
    may_refuse: tuple[str, ...] = ()


ON_A_DISK = (
    Fault(name="kill -9", act=faults.kill_9, share=0.28, may_refuse=ALL),
    Fault(name="stopped worker", act=faults.stopped_worker, share=0.07, may_refuse=("health",)),
    Fault(name="locked database", act=faults.locked_database, share=0.06, may_refuse=ALL),
    Fault(name="failing writes", act=faults.no_file_grows, share=0.04, may_refuse=ALL),
    Fault(name="bad peers", act=faults.bad_peers, share=0.08),
    Fault(name="wrong clock", act=faults.clock_jumps, share=0.08, may_refuse=ALL),
    *(Fault(name=f"fuzz: {name}", act=act, share=0.04) for name, act in wire.FUZZERS.items()),
)
ON_A_SMALL_DISK = (
    Fault(name="full disk", act=faults.full_disk, share=0.05, may_refuse=ALL),
    Fault(name="read-only spool", act=faults.read_only_spool, share=0.03, may_refuse=ALL),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line asks for."""

    seconds: float
    seed: int
    stall_s: float
    root: Path
    only: list[str]

    def wants(self, name: str) -> bool:
        return not self.only or any(word in name for word in self.only)

    def time_of(self, share: float) -> float:
        return max(3.0, share * (self.seconds - _OVERHEAD_S))


def main() -> int:
    asked = _asked()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that gateway and disk are taken down
    shutil.rmtree(asked.root, ignore_errors=True)
    asked.root.mkdir(parents=True)
    (asked.root / _MARK).touch()
    began, rows = time.monotonic(), []
    for row in _rows(asked):
        rows.append(row)
        print(f"{row.name}: {row.done} [{row.seconds:.0f} s]", flush=True)
        for problem in row.problems:
            print(f"    {problem}", flush=True)
    print(f"\n{table(rows)}\n")
    failed = [row.name for row in rows if row.problems]
    inputs = sum(row.inputs for row in rows)
    print(f"{inputs:,} mutated inputs, seed {asked.seed}, {time.monotonic() - began:.0f} s, logs in {asked.root}")
    print(f"FAILED: {', '.join(failed)}" if failed else "All faults passed.")
    return 1 if failed else 0


def _rows(asked: Asked) -> Iterator[Row]:
    if asked.wants("parsers"):
        yield from parsers.run_all(asked.root / "parsers", asked.time_of(_PARSERS_SHARE), asked.seed)
    if wanted := [fault for fault in ON_A_DISK if asked.wants(fault.name)]:
        with Lab(asked.root / "disk", asked.seed, asked.stall_s) as lab:
            yield from _run(lab, wanted, asked)
    if wanted := [fault for fault in ON_A_SMALL_DISK if asked.wants(fault.name)]:
        try:
            with _small_lab(asked) as lab:
                yield from _run(lab, wanted, asked)
        except PermissionError as error:
            yield from (Row(name=fault.name, done=f"skipped, no disk may be mounted: {error}") for fault in wanted)


@contextmanager
def _small_lab(asked: Asked) -> Iterator[Lab]:
    disk = asked.root / "small-disk"
    with faults.small_disk(disk, _DISK_MIB):
        storage = {"path": str(disk / "var"), "minimum_free_mib": 0}
        with Lab(asked.root / "small", asked.seed, asked.stall_s, storage=storage) as lab:
            yield lab


def _run(lab: Lab, wanted: list[Fault], asked: Asked) -> Iterator[Row]:
    for fault in wanted:
        yield lab.run(fault.name, fault.act, asked.time_of(fault.share), may_refuse=fault.may_refuse)
    yield lab.end()


def _asked() -> Asked:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="The gateway under faults.")
    parser.add_argument("--seconds", type=float, default=120.0, help="about how long all of it takes")
    parser.add_argument("--seed", type=int, default=1, help="of loads, kills and mutations")
    parser.add_argument("--stall", type=float, default=2.0, help="a healthy answer may take so many seconds")
    parser.add_argument("--root", type=Path, default=Path("chaos-run"), help="a folder for states and logs; emptied")
    parser.add_argument("--only", nargs="+", default=[], metavar="FAULT", help="only faults whose names hold a word")
    words = parser.parse_args()
    root = words.root.resolve()
    if root.exists() and not (root / _MARK).exists():
        parser.error(f"--root {root} is a folder that was not made by this program")
    return Asked(seconds=words.seconds, seed=words.seed, stall_s=words.stall, root=root, only=words.only)


if __name__ == "__main__":
    sys.exit(main())
