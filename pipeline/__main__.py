"""The digitizer on the command line: `python -m pipeline digitize | evaluate | layouts`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from pipeline.datatypes import Calibration, Digitization, Layout
from pipeline.digitizer import Digitizer
from pipeline.errors import DEFECTS, DigitizationError
from pipeline.evaluation.bench import bench
from pipeline.evaluation.cli import ablate, budget, evaluate
from pipeline.layout.file import load_layouts
from pipeline.output.files import to_csv, to_json
from pipeline.output.overlay import draw_overlay, write_png
from pipeline.source.page import load_pages

app = typer.Typer(add_completion=False, no_args_is_help=True, help="ECG pages to signals.")

Pages = Annotated[list[Path], typer.Argument(help="PNG, JPEG, TIFF, BMP or PDF files.")]
Config = Annotated[Path | None, typer.Option(help="A layouts file of your own instead of config/layouts.toml.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Speed = Annotated[float, typer.Option(help="mm/s where the page does not say.")]
Gain = Annotated[float, typer.Option(help="mm/mV where the page does not say.")]


@dataclass
class _Batch:
    """One run over many files: digitizes them one by one and keeps the reasons of those that failed."""

    digitizer: Digitizer
    calibration: Calibration
    failed: dict[str, str] = field(default_factory=dict)

    def pages(self, path: Path) -> Iterator[tuple[str, Digitization]]:
        """Digitize every page of a file; yields the stem of its results, -p2, -p3... from the second page on."""
        try:
            pages = load_pages(path.read_bytes())
        except (DigitizationError, OSError) as error:
            self.failed[str(path)] = str(error)
            return
        for page in pages:
            suffix = "" if page.page_number == 1 else f"-p{page.page_number}"
            where = str(path) if len(pages) == 1 else f"{path} page {page.page_number}"
            try:
                yield path.stem + suffix, self.digitizer.digitize(page, default_calibration=self.calibration)
            except DigitizationError as error:
                self.failed[where] = str(error)
            except DEFECTS as error:
                self.failed[where] = f"{type(error).__name__}: {error}"

    def report(self) -> None:
        """Name every failure on stderr and leave with status 1 if there is one."""
        for where, reason in self.failed.items():
            print(f"{where}: {reason}", file=sys.stderr)
        if self.failed:
            raise typer.Exit(1)


def _load(device: str, config: Path | None, paper_speed: float, gain: float) -> _Batch:
    """Load networks and layouts; a wrong setting ends the program with its reason."""
    try:
        digitizer = Digitizer.load(device=device, layouts=config)
    except (DigitizationError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error
    return _Batch(digitizer, Calibration(paper_speed_mm_per_s=paper_speed, gain_mm_per_mv=gain))


@app.command()
def digitize(
    pages: Pages,
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    config: Config = None,
    device: Device = "auto",
    overlay: Annotated[bool, typer.Option("--overlay", help="Draw what was read over the page.")] = False,
    paper_speed: Speed = 25.0,
    gain: Gain = 10.0,
) -> None:
    """Turn pages into STEM.csv (mV) and STEM.json (how it was read), and with --overlay STEM.overlay.png."""
    out.mkdir(parents=True, exist_ok=True)
    batch = _load(device, config, paper_speed, gain)
    written: dict[str, Path] = {}
    with Progress(console=Console(stderr=True), disable=len(pages) < 2, transient=True) as progress:
        for path in progress.track(pages, description="digitizing"):
            for stem, result in batch.pages(path):
                if stem in written:
                    batch.failed[str(path)] = f"its results would overwrite those of {written[stem]}"
                    break
                written[stem] = path
                (out / f"{stem}.csv").write_text(to_csv(result.record), encoding="utf-8")
                (out / f"{stem}.json").write_text(to_json(result), encoding="utf-8")
                if overlay:
                    (out / f"{stem}.overlay.png").write_bytes(write_png(draw_overlay(result)))
    batch.report()


def _sketch(layout: Layout) -> str:
    """Draw a layout in text: a line a row, its leads where they start; -aVR for an inverted lead."""
    order = "one after the other" if layout.sequential else "recorded together"
    columns = len(layout.rows[0])
    width = 60 // columns
    lines = [f"{layout.name}: {columns} x {layout.column_seconds:g} s" + (f", {order}" if columns > 1 else "")]
    for leads in layout.rows:
        names = [f"-{lead}" if lead in layout.inverted else str(lead) for lead in leads]
        lines.append("  |" + "|".join(f"{name} ".ljust(width, "~") for name in names) + "|")
    lines += ["  |" + f"{lead} ".ljust(width * columns + columns - 1, "~") + "|" for lead in layout.rhythm]
    return "\n".join(lines)


@app.command()
def layouts(
    config: Config = None,
    check: Annotated[bool, typer.Option("--check", help="Draw every layout, so that a person can check them.")] = False,
) -> None:
    """List the layouts pages may have; status 2 and the reason if the file breaks a rule."""
    try:
        known = load_layouts(config)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error
    for layout in known:
        print(_sketch(layout) + "\n" if check else layout.name)


app.command()(evaluate)
app.command()(budget)
app.command()(ablate)
app.command()(bench)


if __name__ == "__main__":
    app()
