"""The commands that measure: `ecg-digitize evaluate | budget | ablate`."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from pipeline.datatypes import ByteArray, Calibration, Digitization, FloatArray, Layout, Lead, PageImage, in_order
from pipeline.digitizer import Digitizer
from pipeline.errors import DEFECTS, DigitizationError
from pipeline.evaluation.ablation import read_every_way
from pipeline.evaluation.budget import budget_table, count_table, measure_page, page_table
from pipeline.evaluation.drawn import audit_tables, measure_audit, print_table
from pipeline.evaluation.evaluate import Example, PageScore, describe, fit_estimate, score_page
from pipeline.evaluation.tables import (
    compared,
    estimate_table,
    layouts_counted,
    silent_pages,
    tables,
    to_json,
    worst_pages,
)
from pipeline.evaluation.truth import PageTruth, Truth, printed_as, read_truth, to_truth_rate
from pipeline.layout.file import load_layouts
from pipeline.output.files import read_csv
from pipeline.output.overlay import draw_overlay
from pipeline.source.page import load_pages
from pipeline.training.drawing.families import CHOICE
from pipeline.training.drawing.families import family as named
from pipeline.training.drawing.render import draw_pictures
from pipeline.training.recordings.records import load_records
from pipeline.training.recordings.simulate import simulate_ecg

Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Signals = Annotated[
    Path | None,
    typer.Option(help="Folder of recordings to draw; those that were held back are used. Not set: simulated ECGs."),
]
_WIDTH = 150  # of a table at least; a pipe says 80, which would wrap every row


def _jpeg(pixels: ByteArray) -> bytes:
    """Encode an (H, W, 3) RGB picture: a photograph as PNG would make a report of tens of megabytes."""
    return bytes(cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1])


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Reading:
    """What was read of one page of a file; nothing where it failed."""

    page_number: int = 1
    leads: tuple[Lead, ...] = ()
    signal_mv: FloatArray | None = None
    digitization: Digitization | None = None

    @classmethod
    def of(cls, result: Digitization) -> _Reading:
        """Return what was read of a page."""
        record, number = result.record, result.page.page_number
        return cls(page_number=number, leads=record.leads, signal_mv=record.signal_mv, digitization=result)

    def rows_of(self, truth: PageTruth) -> FloatArray | None:
        """Return what was read of the leads of a truth, in its order."""
        return None if self.signal_mv is None else in_order(self.signal_mv, self.leads, truth.leads)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Scorer:
    """Reads pages, or what was read of them before, and scores them; keeps the reasons of those that failed."""

    truth: Truth
    printed: Layout | None  # what a page shows of a whole recording; None = the truth says it
    digitizer: Digitizer | None  # None = there are only CSVs to score
    calibration: Calibration
    failed: dict[str, str] = field(default_factory=dict)

    def true(self, path: Path, page_number: int = 1) -> PageTruth:
        """Return the truth of one page of a file; raises KeyError where there is none."""
        found = self.truth.find(path, page_number)
        return found if self.printed is None else printed_as(found, self.printed)

    def read(self, path: Path) -> Iterator[_Reading]:
        """Read every page of a file; a file that cannot be opened is one page that failed."""
        if self.digitizer is None or path.suffix == ".csv":
            rate, leads, signal_mv = read_csv(path)
            yield _Reading(leads=leads, signal_mv=to_truth_rate(signal_mv, rate))
            return
        try:
            pages = load_pages(path.read_bytes())
        except (DigitizationError, OSError) as error:
            self.failed[str(path)] = str(error)
            yield _Reading()
            return
        for page in pages:
            where = str(path) if len(pages) == 1 else f"{path} page {page.page_number}"
            try:
                result = self.digitizer.digitize(page, default_calibration=self.calibration)
            except DigitizationError as error:
                self.failed[where] = str(error)
            except DEFECTS as error:
                self.failed[where] = f"{type(error).__name__}: {error}"
            else:
                yield _Reading.of(result)
                continue
            yield _Reading(page_number=page.page_number)

    def score(self, path: Path) -> Iterator[PageScore]:
        """Score every page of a file."""
        kind = self.truth.kind(path)
        for reading in self.read(path):
            number = reading.page_number
            try:
                truth = self.true(path, number)
            except (OSError, ValueError) as error:
                self.failed[f"truth of {path}"] = str(error)
                continue
            score = score_page(path, truth, reading.rows_of(truth), kind=kind, page_number=number)
            yield score if reading.digitization is None else describe(score, reading.digitization)

    def score_every_way(self, path: Path) -> Iterator[tuple[str, PageScore]]:
        """Score the first page of a file in every reading of an ablation; a CSV was read already, so it has none."""
        try:
            page = load_pages(path.read_bytes())[0]
        except (DigitizationError, OSError) as error:
            self.failed[str(path)] = str(error)
            return
        if self.digitizer is not None:
            truth = self.true(path)
            for name, result in read_every_way(page, self.digitizer, self.calibration):
                reading = _Reading() if result is None else _Reading.of(result)
                score = score_page(path, truth, reading.rows_of(truth))
                yield name, score if result is None else describe(score, result)

    def leave(self) -> None:
        """Name every failure on stderr and leave with status 1 if there is one."""
        for where, reason in self.failed.items():
            print(f"{where}: {reason}", file=sys.stderr)
        if self.failed:
            raise typer.Exit(1)

    def example(self, title: str, score: PageScore) -> Example:
        """Read one page again for the report."""
        reading = next((r for r in self.read(score.path) if r.page_number == score.page_number), _Reading())
        overlay = None if reading.digitization is None else _jpeg(draw_overlay(reading.digitization))
        truth = self.true(score.path, score.page_number)
        return Example(
            title=title,
            score=score,
            truth=truth,
            estimate_mv=reading.rows_of(truth),
            overlay_jpeg=overlay,
        )


def _scorer(
    truth: Path,
    pages: list[Path] | None,
    printed: str | None,
    config: Path | None,
    device: str,
    calibration: Calibration,
) -> tuple[_Scorer, Sequence[Path]]:
    """Read the truth, find the pages and load the networks they need; raises what says why it cannot."""
    known = read_truth(truth)
    layouts = {layout.name: layout for layout in load_layouts(config)}
    if printed is not None and printed not in layouts:
        raise ValueError(f"there is no layout {printed!r}: `ecg-digitize layouts` lists them")
    paths: Sequence[Path] = pages or known.pages
    if not paths:
        raise ValueError(f"{truth}: no pages beside it, and none named")
    for path in paths:
        known.name_of(path)
    digitizer = Digitizer.load(device=device, layouts=config) if any(path.suffix != ".csv" for path in paths) else None
    layout = None if printed is None else layouts[printed]
    return _Scorer(truth=known, printed=layout, digitizer=digitizer, calibration=calibration), paths


def _report(file: Path, title: str, scorer: _Scorer, scores: Sequence[PageScore], summary: Sequence[Table]) -> None:
    """Write the HTML report, with the best, the median and the worst page read again to be shown."""
    # only a report needs matplotlib, which comes with the `evaluation` extra
    from pipeline.evaluation.report import html_report

    ordered = sorted(scores, key=lambda score: score.snr_db, reverse=True)
    places = {"Best page": 0, "Median page": len(ordered) // 2, "Worst page": len(ordered) - 1}
    examples = [scorer.example(name, ordered[place]) for name, place in places.items()]
    file.write_text(html_report(title, scores, summary, examples), encoding="utf-8")
    file.with_suffix(".json").write_text(to_json(scores), encoding="utf-8")


def evaluate(
    truth: Annotated[
        Path, typer.Argument(help="truth.npz, the competition's folder, or a folder of WFDB or DICOM waveforms.")
    ],
    pages: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[PAGE...]",
            help="Pages named after their record, or CSV files of `digitize`. None: those beside the truth.",
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Your own file of layouts.")] = None,
    device: Device = "auto",
    paper_speed: Annotated[float, typer.Option(help="In mm/s, for a page that does not state it.")] = 25.0,
    gain: Annotated[float, typer.Option(help="In mm/mV, for a page that does not state it.")] = 10.0,
    printed: Annotated[
        str | None, typer.Option(help="The layout of the pages, if the truth is the whole recording.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write tables, plots and three example pages to this HTML file, and the figures beside it as JSON.",
        ),
    ] = None,
    fit: Annotated[bool, typer.Option("--fit", help="Fit the estimated SNR to these pages and print it.")] = False,
) -> None:
    """Score pages against the truth by lead, kind, layout, speed and gain. A page that cannot be read scores 0 dB."""
    calibration = Calibration(paper_speed_mm_per_s=paper_speed, gain_mm_per_mv=gain)
    try:
        scorer, paths = _scorer(truth, pages, printed, config, device, calibration)
    except (DigitizationError, OSError, ValueError, KeyError) as error:
        print(error.args[0] if isinstance(error, KeyError) else error, file=sys.stderr)
        raise typer.Exit(2) from error
    scores: list[PageScore] = []
    with Progress(console=Console(stderr=True), disable=len(paths) < 2, transient=True) as progress:
        for path in progress.track(paths, description="scoring"):
            for score in scorer.score(path):
                scores.append(score)
                doubt = "" if score.certain or not score.layout else " (not certain)"
                own = f", estimated {score.estimated_snr_db:.1f}  {score.layout}{doubt}" if score.layout else ""
                print(f"{score.name}  {score.snr_db:.2f} dB{own}")
    if not scores:
        scorer.leave()
    summary = [*tables(scores), worst_pages(scores)]
    if any(score.true_layout for score in scores):
        summary.insert(-1, layouts_counted(scores))
    if any(score.layout for score in scores):
        summary += [estimate_table(scores), silent_pages(scores)]
    console = Console(width=max(Console().width, _WIDTH))
    for table in summary:
        console.print(table)
    if fit:
        intercept, coefficients, left_out = fit_estimate(scores)
        console.print(f"intercept_db={intercept:.2f}, coefficients_db={[round(float(c), 3) for c in coefficients]}")
        console.print(f"rank correlation, each page left out of its own fit: {left_out:.3f}")
    if report is not None:
        _report(report, f"{len(scores)} pages against {truth.name}", scorer, scores, summary)
    scorer.leave()


def ablate(
    truth: Annotated[
        Path, typer.Argument(help="truth.npz, the competition's folder, or a folder of WFDB or DICOM waveforms.")
    ],
    pages: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PAGE...]", help="Pages named after their record. None: those beside the truth."),
    ] = None,
    device: Device = "auto",
    paper_speed: Annotated[float, typer.Option(help="In mm/s, for a page that does not state it.")] = 25.0,
    gain: Annotated[float, typer.Option(help="In mm/mV, for a page that does not state it.")] = 10.0,
    family: Annotated[str, typer.Option(help="Only the drawn pages of this family, as the truth states it.")] = "",
) -> None:
    """Read the same pages with one stage at a time replaced by that of the original paper, and compare."""
    calibration = Calibration(paper_speed_mm_per_s=paper_speed, gain_mm_per_mv=gain)
    try:
        scorer, paths = _scorer(truth, pages, None, None, device, calibration)
        if family:
            paths = [path for path in paths if scorer.true(path).family == family]
            if not paths:
                raise ValueError(f"{truth}: no page of family {family!r}")
    except (DigitizationError, OSError, ValueError, KeyError) as error:
        print(error.args[0] if isinstance(error, KeyError) else error, file=sys.stderr)
        raise typer.Exit(2) from error
    scores: dict[str, list[PageScore]] = defaultdict(list)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for path in progress.track(paths, description="reading"):
            for name, score in scorer.score_every_way(path):
                scores[name].append(score)
                print(f"{score.name}  {name}: {score.snr_db:.2f} dB", flush=True)
    console = Console(width=max(Console().width, _WIDTH))
    console.print(compared(f"{len(paths)} files against {truth}", scores))
    scorer.leave()


def _recordings(signals: Path | None) -> list[FloatArray]:
    """Return what is drawn: recordings of a folder that no network was trained on, or simulated hearts."""
    if signals is not None:
        return load_records(signals, "validation")
    return [simulate_ecg(np.random.default_rng(seed)) for seed in range(20)]


def _check_family(name: str) -> None:
    """Raise BadParameter for a family of pages that there is not."""
    try:
        named(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def budget(
    kind: Annotated[str, typer.Option(help="clean, scan, copy or photo.")] = "scan",
    count: Annotated[int, typer.Option(help="How many pages.")] = 8,
    seed: Annotated[int, typer.Option(help="The seed of the drawing.")] = 0,
    family: Annotated[str, typer.Option(help=f"{CHOICE}.")] = "",
    signals: Signals = None,
    device: Device = "auto",
) -> None:
    """Draw pages and measure what each stage costs in dB: geometry, rows, layout, speed and gain, trace."""
    _check_family(family)
    records = _recordings(signals)
    digitizer = Digitizer.load(device=device)
    pages = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        pictures = draw_pictures(records, count=count, kind=kind, seed=seed, family=family)
        for picture in progress.track(pictures, total=count, description="measuring"):
            pages.append(measure_page(picture, digitizer))
    console = Console(width=max(Console().width, 2 * _WIDTH))
    for table in (page_table(pages), budget_table(pages), count_table(pages)):
        console.print(table)


def evaluate_audit(
    kind: Annotated[str, typer.Option(help="clean, scan, copy or photo.")] = "scan",
    count: Annotated[int, typer.Option(help="How many pages.")] = 8,
    seed: Annotated[int, typer.Option(help="The seed of the drawing.")] = 0,
    family: Annotated[str, typer.Option(help=f"{CHOICE}.")] = "",
    signals: Signals = None,
    device: Device = "auto",
) -> None:
    """Draw pages, take known things out of their records, and count what the ink audit finds."""
    _check_family(family)
    records = _recordings(signals)
    digitizer = Digitizer.load(device=device)
    pages = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        pictures = draw_pictures(records, count=count, kind=kind, seed=seed, family=family)
        for number, picture in enumerate(progress.track(pictures, total=count, description="measuring")):
            page = measure_audit(picture, digitizer, np.random.default_rng([seed, number]))
            pages += [] if page is None else [page]
    console = Console(width=max(Console().width, _WIDTH))
    for table in audit_tables(pages):
        console.print(table)
    if len(pages) < count:
        console.print(f"pages that could not be read: {count - len(pages)}")


def evaluate_print(
    kind: Annotated[str, typer.Option(help="clean, scan, copy or photo.")] = "scan",
    count: Annotated[int, typer.Option(help="How many pages.")] = 8,
    seed: Annotated[int, typer.Option(help="The seed of the drawing.")] = 0,
    signals: Signals = None,
    device: Device = "auto",
) -> None:
    """Draw pages with headers of known values, and count what is read of them, right and wrong."""
    records = _recordings(signals)
    digitizer = Digitizer.load(device=device)
    read = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        pictures = draw_pictures(records, count=count, kind=kind, seed=seed, headed=True)
        for picture in progress.track(pictures, total=count, description="measuring"):
            try:
                read.append((picture.page.style.stated, digitizer.read_print(PageImage(pixels=picture.pixels))))
            except DigitizationError:
                continue
    console = Console(width=max(Console().width, _WIDTH))
    console.print(print_table(read))
    if len(read) < count:
        console.print(f"pages that could not be read: {count - len(read)}")
