"""What a page costs: seconds and memory of every stage, and how they grow with the page and with the batch.

A digitizer is measured as a copy: each of its stages, and what is inside the expensive ones, is wrapped in a function
that reads the clocks on the way in and out.  A stage's figures leave out those of the stages it calls, so that they
add up to the page's.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import partial, wraps
from pathlib import Path
from statistics import median
from typing import Annotated, ParamSpec, TypeVar

import cv2
import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from pipeline.datatypes import ByteArray, PageImage
from pipeline.digitizer import Digitizer
from pipeline.errors import DigitizationError
from pipeline.networks.inference import Network
from pipeline.networks.specification import PAGE
from pipeline.output.overlay import draw_overlay, write_png
from pipeline.rows.trace import posterior, read_rows
from pipeline.training.drawing.capture import Capture
from pipeline.training.drawing.render import photograph
from pipeline.training.drawing.sample import draw_sample

P = ParamSpec("P")
T = TypeVar("T")

PAGE_WIDTH_PX = 2200
_WIDTHS_PX = (1100, 2200, 3300, 4400)
_ELSEWHERE = "between the stages"
_SCAN = Capture(
    kind="scan", blur_mm=0.06, motion_mm=0.0, noise=4.0, jpeg_quality=85, gamma=1.0, contrast=1.0, cast=(1.0, 1.0, 1.0),
    grey=False, threshold=0.0, light=0.05, shadows=0, creases=1, glare=0.0, native_px_per_mm=8.0,
)  # fmt: skip


@dataclass(slots=True)
class Cost:
    """What one stage costs on one page, without the stages inside it."""

    wall_s: float = 0.0
    cpu_s: float = 0.0  # user and system time of all threads: comparable on a busy machine
    peak_mib: float = 0.0  # resident memory of the whole process at its highest while the stage ran; 0 = not known
    device_mib: float = 0.0  # memory of the GPU at its highest


@dataclass(slots=True)
class Recorder:
    """Reads the clocks at every change of stage and adds what passed to the stage that ran."""

    costs: dict[str, Cost] = field(default_factory=dict)
    _running: list[str] = field(default_factory=lambda: [_ELSEWHERE])
    _since: tuple[float, float] = (0.0, 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the cost of the block to `name`."""
        self._book()
        self._running.append(name)
        try:
            yield
        finally:
            self._book()
            self._running.pop()

    def wrap(self, function: Callable[P, T], name: str) -> Callable[P, T]:
        """Return `function` as a stage."""

        @wraps(function)
        def timed(*args: P.args, **kwargs: P.kwargs) -> T:
            with self.stage(name):
                return function(*args, **kwargs)

        return timed

    def start(self) -> None:
        """Forget the past; the clocks start now."""
        self._book()
        self.costs = {}

    def stop(self) -> dict[str, Cost]:
        """Return the cost of every stage, most expensive first."""
        self._book()
        return dict(sorted(self.costs.items(), key=lambda item: -item[1].cpu_s))

    def _book(self) -> None:
        cost = self.costs.setdefault(self._running[-1], Cost())
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            cost.device_mib = max(cost.device_mib, torch.cuda.max_memory_allocated() / 2**20)
            torch.cuda.reset_peak_memory_stats()
        wall, cpu = time.perf_counter(), _cpu_seconds()
        cost.wall_s += wall - self._since[0]
        cost.cpu_s += cpu - self._since[1]
        cost.peak_mib = max(cost.peak_mib, _peak_mib())
        self._since = (time.perf_counter(), _cpu_seconds())


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _peak_mib() -> float:
    """Highest resident memory since the last call; Linux only, 0 elsewhere."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return 0.0
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Timed(Network):
    """A network whose runs count as a stage."""

    recorder: Recorder

    def run(self, pixels: ByteArray) -> tuple[Tensor, ...]:
        """Run, and record the cost."""
        with self.recorder.stage(f"{self.name} network"):
            return Network.run(self, pixels)  # a class with slots has no bare super()


def recorded(digitizer: Digitizer, recorder: Recorder) -> Digitizer:
    """Return a copy of a digitizer whose stages and networks are measured by a recorder."""
    stages = digitizer.stages
    if stages.read_rows is read_rows:
        stages = replace(stages, read_rows=partial(read_rows, smooth=recorder.wrap(posterior, "posterior")))
    timed = {part.name: recorder.wrap(getattr(stages, part.name), part.name) for part in fields(stages)}

    def timed_network(network: Network) -> Network:
        parts = {part.name: getattr(network, part.name) for part in fields(Network) if part.init}
        return _Timed(**parts, recorder=recorder)

    return replace(digitizer.with_networks(timed_network), stages=replace(stages, **timed))


def draw_scan(width_px: int = PAGE_WIDTH_PX, seed: int = 1) -> PageImage:
    """Draw a scan of a 3x4 sheet with a rhythm strip: `width_px` wide, 17/22 of that high, no one's data."""
    page = draw_sample(seed)
    rng = np.random.default_rng(seed)
    pixels: ByteArray = photograph(page, _SCAN, width_px / page.style.width_mm, rng)
    height = round(width_px * 17 / 22)
    missing = max(height - pixels.shape[0], 0)
    framed = cv2.copyMakeBorder(pixels, 0, missing, 0, 0, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    return PageImage(pixels=np.ascontiguousarray(framed[:height]), page_number=1)


def total(costs: Iterable[Cost]) -> Cost:
    """Sum of the times, highest of the peaks."""
    costs = list(costs)
    return Cost(
        wall_s=sum(cost.wall_s for cost in costs),
        cpu_s=sum(cost.cpu_s for cost in costs),
        peak_mib=max((cost.peak_mib for cost in costs), default=0.0),
        device_mib=max((cost.device_mib for cost in costs), default=0.0),
    )


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(**{name.name: median(getattr(cost, name.name) for cost in costs) for name in fields(Cost)})


def measure_stages(digitizer: Digitizer, page: PageImage, runs: int) -> dict[str, Cost]:
    """Digitize a page once to warm up, then `runs` times; return each stage's median cost, most expensive first.

    The overlay a person is shown, and writing it as PNG, are measured as well.
    """
    recorder, found = Recorder(), []
    timed = recorded(digitizer, recorder)
    for _ in range(runs + 1):
        recorder.start()
        result = timed.digitize(page)
        with recorder.stage("overlay"):
            picture = draw_overlay(result)
        with recorder.stage("PNG"):
            write_png(picture)
        found.append(recorder.stop())
    return {name: _median([costs.get(name, Cost()) for costs in found[1:]]) for name in found[-1]}


def measure_batch(digitizer: Digitizer, page: PageImage, count: int, runs: int) -> Cost:
    """Digitize `count` copies of a page as a batch; return the median cost of one page."""
    recorder, found = Recorder(), []
    for _ in range(runs + 1):
        recorder.start()
        digitizer.digitize_batch([page] * count)
        found.append(total(recorder.stop().values()))
    cost = _median(found[1:])
    return replace(cost, wall_s=cost.wall_s / count, cpu_s=cost.cpu_s / count)


def _table(title: str, first: str) -> Table:
    table = Table(first, title=title)
    for name in ("seconds", "CPU seconds", "peak MiB", "GPU MiB"):
        table.add_column(name, justify="right")
    return table


def _add(table: Table, name: str, cost: Cost, *more: str) -> None:
    memory = (f"{mib:.0f}" if mib else "-" for mib in (cost.peak_mib, cost.device_mib))
    table.add_row(name, f"{cost.wall_s:.3f}", f"{cost.cpu_s:.3f}", *memory, *more)


def report(digitizer: Digitizer, *, runs: int, widths: Sequence[int], batches: Sequence[int]) -> Iterator[Table]:
    """Measure and yield the tables: stages of one page, growth with its size, growth with the batch."""
    where = digitizer.networks[PAGE].device.type
    page = draw_scan()
    stages = measure_stages(digitizer, page, runs)
    size = "x".join(str(side) for side in page.pixels.shape[1::-1])
    table = _table(f"One page of {size}, {where}, {torch.get_num_threads()} threads, median of {runs}", "stage")
    for name, cost in stages.items():
        _add(table, name, cost)
    table.add_section()
    _add(table, "page", total(stages.values()))
    yield table
    table = _table("Growth with the page", "page")
    for width in widths:
        grown = draw_scan(width)
        size = "x".join(str(side) for side in grown.pixels.shape[1::-1])
        _add(table, size, total(measure_stages(digitizer, grown, runs).values()))
    yield table
    table = _table(f"Growth with the batch, {digitizer.pages_at_once} at once, per page", "pages")
    table.add_column("pages a minute", justify="right")
    for count in batches:
        cost = measure_batch(digitizer, page, count, runs)
        _add(table, str(count), cost, f"{60 / cost.wall_s:.1f}")
    yield table


def bench(
    runs: Annotated[int, typer.Option(min=1, help="Runs whose median is shown; one more warms up.")] = 3,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Print seconds and memory of every stage, how they grow with page and batch, and one worker's pages a minute."""
    try:
        digitizer = Digitizer.load(device=device)
    except (DigitizationError, ValueError) as error:
        Console(stderr=True).print(str(error))
        raise typer.Exit(2) from error
    console = Console(width=max(Console().width, 100))
    batches = (1, 2, 4) if digitizer.pages_at_once == 1 else (1, 4, 16)
    for table in report(digitizer, runs=runs, widths=_WIDTHS_PX, batches=batches):
        console.print(table)
