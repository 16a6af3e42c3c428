"""The digitizer on the command line: `ecg-digitize digitize | layouts`, and the commands that measure it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from pipeline import __version__
from pipeline.archive.cli import archive
from pipeline.corrections import parse_pages
from pipeline.datatypes import Calibration, Corrections, Digitization, Layout, PageImage
from pipeline.digitizer import Digitizer
from pipeline.errors import DEFECTS, CorrectionError, DigitizationError
from pipeline.evaluation.bench import bench
from pipeline.evaluation.cli import ablate, budget, evaluate, evaluate_audit, evaluate_print
from pipeline.layout.file import load_layouts
from pipeline.output.files import to_csv, to_json
from pipeline.output.overlay import draw_overlay, write_png
from pipeline.source.page import load_pages

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 done; 1 a page could not be read, the reason is on standard error; 2 the command line, the "
    "file of layouts or the truth is wrong; 130 interrupted by Ctrl-C.",
)

Pages = Annotated[list[Path], typer.Argument(metavar="PAGE...", help="PNG, JPEG, TIFF, BMP or PDF files.")]
Config = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Your own file of layouts. Not set: the one that comes with the program."),
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Speed = Annotated[float, typer.Option(help="In mm/s, for a page that does not state it.")]
Gain = Annotated[float, typer.Option(help="In mm/mV, for a page that does not state it.")]


@dataclass
class _Batch:
    """One run over many files: digitizes them one by one and keeps the reasons of those that failed."""

    digitizer: Digitizer
    calibration: Calibration
    corrections: dict[int, Corrections] = field(default_factory=dict)  # by page
    failed: dict[str, str] = field(default_factory=dict)

    def pages(self, path: Path) -> Iterator[tuple[str, Digitization]]:
        """Digitize every page of a file; yields the stem of its results, -p2, -p3... from the second page on."""
        try:
            pages = load_pages(path.read_bytes())
        except (DigitizationError, OSError) as error:
            self.failed[str(path)] = str(error)
            return
        self._name_missing_pages(path, len(pages))
        for page in pages:
            suffix = "" if page.page_number == 1 else f"-p{page.page_number}"
            where = str(path) if len(pages) == 1 else f"{path} page {page.page_number}"
            try:
                yield path.stem + suffix, self._digitize(page)
            except DigitizationError as error:
                self.failed[where] = str(error)
            except DEFECTS as error:
                self.failed[where] = f"{type(error).__name__}: {error}"

    def _name_missing_pages(self, path: Path, n: int) -> None:
        """Name the corrections of pages that the file does not have."""
        missing = [str(number) for number in self.corrections if number > n]
        if missing:
            self.failed[f"{path}: corrections"] = f"page {', '.join(missing)}: the file has {n}"

    def _digitize(self, page: PageImage) -> Digitization:
        corrections = self.corrections.get(page.page_number)
        return self.digitizer.digitize(page, default_calibration=self.calibration, corrections=corrections)

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


def _read_corrections(path: Path | None, pages: list[Path]) -> dict[int, Corrections]:
    """Read a file of corrections, by page; one that breaks a rule ends the program with field, value and rule."""
    if path is None:
        return {}
    try:
        if len(pages) > 1:
            raise ValueError(f"--corrections is for one file, got {len(pages)}")
        return parse_pages(json.loads(path.read_text(encoding="utf-8")))
    except CorrectionError as error:
        for each in error.broken:
            print(f"{path}: {each}", file=sys.stderr)
        raise typer.Exit(2) from error
    except (OSError, ValueError) as error:
        print(f"{path}: {error}", file=sys.stderr)
        raise typer.Exit(2) from error


@app.command()
def digitize(
    pages: Pages,
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    config: Config = None,
    device: Device = "auto",
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Write STEM.overlay.png, too: the signals drawn over the page.")
    ] = False,
    paper_speed: Speed = 25.0,
    gain: Gain = 10.0,
    corrections: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON: what is to be corrected on the page, or page by page.")
    ] = None,
) -> None:
    """Write STEM.csv (the signals in mV) and STEM.json (how the page was read) for each page."""
    stated = _read_corrections(corrections, pages)
    out.mkdir(parents=True, exist_ok=True)
    batch = replace(_load(device, config, paper_speed, gain), corrections=stated)
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
    check: Annotated[bool, typer.Option("--check", help="Sketch every layout, for a person to check.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the layouts that a page may have."""
    try:
        known = load_layouts(config)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error
    if as_json:
        print(json.dumps([asdict(layout) | {"inverted": sorted(layout.inverted)} for layout in known], indent=2))
        return
    for layout in known:
        print(_sketch(layout) + "\n" if check else layout.name)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"ecg-digitize {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Turn pictures of ECG pages into signals."""


app.command()(archive)
app.command()(evaluate)
app.command()(evaluate_audit)
app.command()(evaluate_print)
app.command()(budget)
app.command()(ablate)
app.command()(bench)
