"""`python -m tests.archive_rates [--pages FOLDER] [--fake N] [--simulated N]`: what an archive run costs, as tables.

    real        the pages of FOLDER (8 drawn ones) with the shipped digitizer on 1 and on 2 actors
    actors      fake pages of 50 ms on 1, 2, 4 and 8 actors
    Ray         fake pages of 0 ms without Ray, and with it on one actor: the difference is what Ray costs a page
    memory      N fake pages (5,000) on two actors; private memory of all processes at every fifth of the run
    growth      manifests of up to N files (100,000) that are not there: all that a run does besides reading and
                digitizing pages, from the list to the report

Every part says how long it took; `--only` runs some of them.  On two quiet cores all of it takes five minutes.  It is a
program of the tests; the product has no such option.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline import Calibration, Digitization, PageImage
from pipeline.archive.child import AnyDigitizer
from pipeline.archive.flow import Crew, digitize, open_run
from pipeline.archive.guard import Guard
from pipeline.archive.manifest import Entry, Manifest, read_source
from pipeline.archive.output import Output
from pipeline.archive.report import summarise
from pipeline.archive.rows import to_parquet
from pipeline.digitizer import Digitizer
from tests.fake_digitizer import fake_digitization, page_pixels, page_png
from tests.memory import forget_peak, peak_mib

PARTS = ("real", "actors", "ray", "memory", "growth")
_SETTINGS = {"version": "test"}
_FAKE_S = 0.05
_HOLD = """
import sys, ray
ray.init("local", num_cpus=8, include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
ray.shutdown()
"""


class SmallRecords:
    """Gives every page the same record of one second, so that rows cost little; a page takes as long as is wanted."""

    pages_at_once = 1

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        whole = fake_digitization(PageImage(pixels=page_pixels()), Calibration())
        record = replace(
            whole.record, signal_mv=whole.record.signal_mv[:, :500], confidence=whole.record.confidence[:, :500]
        )
        self._result = replace(whole, record=record)

    def digitize(self, page: PageImage, *, default_calibration: Calibration) -> Digitization:
        time.sleep(self._seconds)
        return replace(self._result, page=page)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One run."""

    pages: int
    seconds: float  # from the first written part to the last: loading is not counted
    whole_s: float  # all of it

    @property
    def rate(self) -> float:
        """Pages/s between the first and the last part."""
        return self.pages / self.seconds if self.seconds else float("nan")


@contextmanager
def running_ray() -> Iterator[str]:
    """Start a Ray with eight cores, as it believes; yield its address."""
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_gcs_server_port_wait_time_s": "120"}
    for _ in range(3):  # on a busy machine it may not start at once
        holder = subprocess.Popen(
            [sys.executable, "-c", _HOLD],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert holder.stdout is not None
        if address := holder.stdout.readline().strip():
            try:
                yield address
            finally:
                holder.communicate(timeout=120)  # it reads the end of its input
            return
        holder.communicate(timeout=120)
    sys.exit("Ray cannot start its processes on this machine")


class Bench:
    """Runs over lists of files, each in a folder of its own."""

    def __init__(self, root: Path, address: str) -> None:
        self.root, self.address = root, address
        self._runs = 0

    def fake_pages(self, count: int) -> list[Entry]:
        """Return as many files, all of them one small page."""
        folder = self.root / f"pages-{count}"
        if not folder.exists():
            folder.mkdir()
            first = folder / "0.png"
            first.write_bytes(page_png())
            for number in range(1, count):
                os.link(first, folder / f"{number}.png")
        return [Entry(str(folder / f"{number}.png")) for number in range(count)]

    def output(self) -> Output:
        """Return an empty output folder."""
        self._runs += 1
        return Output(str(self.root / f"out-{self._runs}"))

    def run(
        self,
        entries: list[Entry],
        load: Callable[[], AnyDigitizer],
        actors: int,
        written: Callable[[int], None] = lambda pages: None,
    ) -> Measured:
        """Digitize a list; `written` is called after every part, with the number of pages so far."""
        run = open_run(self.output(), Manifest(tuple(entries)), _SETTINGS)
        crew = Crew(load=load, calibration=Calibration(), page_s=300, actors=actors, address=self.address)
        began = time.monotonic()
        times, pages = list[float](), list[int]()
        for part in digitize(run, crew):
            times.append(time.monotonic())
            pages.append(part.pages.total())
            written(sum(pages))
        skip = min(actors, len(times) - 1)  # the first part of each actor was waited for while it loaded
        return Measured(pages=sum(pages[skip:]), seconds=times[-1] - times[skip - 1], whole_s=time.monotonic() - began)


def real(bench: Bench, folder: Path | None) -> Table:
    """Measure the shipped digitizer."""
    if folder is None:
        folder = bench.root / "drawn"
        folder.mkdir()
        for seed in range(8):
            command = [sys.executable, "-m", "pipeline.training.drawing.sample", folder / f"{seed}.png"]
            subprocess.run([*command, "--seed", str(seed)], check=True, timeout=300)
    entries = list(read_source(folder).entries)
    table = Table("actors", "pages", "pages/s", "s with loading", title="real pages, shipped digitizer")
    for actors in (1, 2):
        found = bench.run(entries, partial(Digitizer.load, "cpu"), actors)
        table.add_row(str(actors), str(len(entries)), f"{found.rate:.3f}", f"{found.whole_s:.0f}")
    return table


def many_actors(bench: Bench) -> Table:
    """Measure how the rate grows with the actors where a page takes time, but no processor."""
    table = Table("actors", "pages", "pages/s", "of the ideal", "s with loading", title="fake pages of 50 ms")
    for actors in (1, 2, 4, 8):
        found = bench.run(bench.fake_pages(1024), partial(SmallRecords, _FAKE_S), actors)
        share = found.rate * _FAKE_S / actors
        table.add_row(str(actors), "1024", f"{found.rate:.1f}", f"{share:.0%}", f"{found.whole_s:.0f}")
    return table


def cost_of_ray(bench: Bench) -> Table:
    """Measure one actor's work with Ray and without."""
    entries = bench.fake_pages(1024)
    table = Table("", "pages", "ms a page", title="Ray's own cost, fake pages of 0 ms, one actor")
    output = bench.output()
    with closing(Guard(SmallRecords, Calibration(), 300)) as guard:
        began = time.monotonic()
        for number, start in enumerate(range(0, len(entries), 16)):
            output.write_part(number, to_parquet(guard.digitize(entries[start : start + 16])))
        alone_s = time.monotonic() - began
    found = bench.run(entries, SmallRecords, 1)
    ms = {"without Ray": 1000 * alone_s / len(entries), "with Ray": 1000 / found.rate}
    for name, value in ms.items():
        table.add_row(name, str(len(entries)), f"{value:.2f}")
    table.add_row("difference", "", f"{ms['with Ray'] - ms['without Ray']:.2f}")
    return table


def memory(bench: Bench, count: int) -> Table:
    """Measure the private memory of this process and all below it while many pages pass."""
    table = Table("pages", "MiB of all processes", title=f"memory, {count} fake pages on two actors")
    steps = [count * k // 5 for k in range(1, 6)]
    most, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            most[0] = max(most[0], _private_mib())

    def written(pages: int) -> None:
        while steps and pages >= steps[0]:
            table.add_row(str(steps.pop(0)), str(most[0]))
            most[0] = 0

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    found = bench.run(bench.fake_pages(count), SmallRecords, 2, written)
    ended.set()
    thread.join()
    table.caption = f"{found.rate:.0f} pages/s"
    return table


def growth(bench: Bench, most: int) -> Table:
    """Measure what a run costs besides its pages, by the length of its list."""
    heads = ("files", "list s", "begin s", "run s", "ms a file", "resume s", "report s", "peak MiB")
    table = Table(*heads, title="growth: files that are not there, one actor")
    for count in [size for size in (1000, 10_000, 100_000, 1_000_000) if size <= most]:
        source = bench.root / f"{count}.csv"
        source.write_text("path,patient\n" + "".join(f"/nowhere/{k:07d}.png,P{k}\n" for k in range(count)))
        forget_peak()
        times = [time.monotonic()]
        manifest = read_source(source)
        times.append(time.monotonic())
        output = bench.output()
        run = open_run(output, manifest, _SETTINGS)
        times.append(time.monotonic())
        crew = Crew(load=SmallRecords, calibration=Calibration(), page_s=300, actors=1, address=bench.address)
        assert sum(part.files for part in digitize(run, crew)) == count
        times.append(time.monotonic())
        assert open_run(output, manifest, _SETTINGS).left() == []
        times.append(time.monotonic())
        assert summarise(output).outcomes.total() == count
        times.append(time.monotonic())
        spans = [after - before for before, after in pairwise(times)]
        words = [f"{each:.1f}" for each in spans]
        table.add_row(str(count), *words[:3], f"{1000 * spans[2] / count:.2f}", *words[3:], str(peak_mib()))
    return table


def _private_mib() -> int:
    """Return the memory that this process and all its descendants share with nobody."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    waiting, pages = [os.getpid()], 0
    while waiting:
        process = waiting.pop()
        waiting += parents.get(process, [])
        try:
            _, resident, shared, *_ = map(int, Path(f"/proc/{process}/statm").read_text().split())
        except OSError:
            continue
        pages += resident - shared
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=Path, help="folder of real pages; not set: eight are drawn")
    parser.add_argument("--fake", type=int, default=5000, help="pages of the memory's run")
    parser.add_argument("--simulated", type=int, default=100_000, help="files of the longest list")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    asked = parser.parse_args()
    measures: dict[str, Callable[[Bench], Table]] = {
        "real": lambda bench: real(bench, asked.pages),
        "actors": many_actors,
        "ray": cost_of_ray,
        "memory": lambda bench: memory(bench, asked.fake),
        "growth": lambda bench: growth(bench, asked.simulated),
    }
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as root, running_ray() as address:
        bench = Bench(Path(root), address)
        for name in asked.only:
            began = time.monotonic()
            console.print(measures[name](bench))
            console.print(f"{name}: {time.monotonic() - began:.0f} s\n")


if __name__ == "__main__":
    from tests.archive_rates import main as imported  # the digitizer is found by this name in other processes

    imported()
