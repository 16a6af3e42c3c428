"""Error budget: what each stage of the digitizer costs in dB, measured against what was drawn.

A drawn page is scored six times.  First the drawn line itself is calibrated, which shows what resampling and the metric
leave; then one stage after the other takes the place of the truth, so that the difference of two scores is what that
stage cost:

    drawn line             truth throughout
    trace                  trace network and path; true sheet, rows, columns, speed and gain
    + geometry             the sheet as rectified (turned upright, if need be)
    + rows                 the rows as found, and which way up
    + layout and columns   the layout and its columns as found
    + speed and gain       everything as found: what `digitize` gives
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from rich.table import Table

from pipeline.datatypes import (
    Calibration,
    Digitization,
    LayoutMatch,
    PageImage,
    RectifiedPage,
    SegmentationMap,
    TraceSet,
    in_order,
)
from pipeline.digitizer import Digitizer
from pipeline.errors import DigitizationError
from pipeline.evaluation.drawn import Drawn, same_print
from pipeline.evaluation.metrics import score_lead
from pipeline.networks.specification import LAYOUT, PAGE, TRACE
from pipeline.rows.trace import trace_rows
from pipeline.sheet.paper import Sheet, turn
from pipeline.sheet.rectify import rectify
from pipeline.sheet.segment import segment
from pipeline.signal.calibrate import calibrate
from pipeline.training.drawing.render import Picture

LEVELS = ("drawn line", "trace", "+ geometry", "+ rows", "+ layout and columns", "+ speed and gain")
_HZ = 500.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """How far a flattened sheet is from the drawn one, over the area of the signals."""

    scale_x: float  # found pixels a millimetre over the true ones, less 1
    scale_y: float
    quarter_turns: int  # that would set it upright
    bend_mm: float  # root mean square of what no affine map explains


@dataclass(frozen=True, slots=True, kw_only=True)
class PageBudget:
    """One page; what was not reached because an earlier stage gave up is None or 0 dB."""

    picture: Picture
    snr_db: tuple[float, ...]  # one for each of LEVELS, mean over the printed leads
    trace_mm: float  # median distance of the traced from the drawn line, true sheet and rows; NaN = nothing traced
    trace_95_mm: float
    coverage: float  # share of the drawn columns that were traced, true sheet and rows
    geometry: Geometry | None = None
    rows_found: int = 0
    rows_extra: int = 0
    layout_found: str = ""
    layout_right: bool = False
    certain: bool = False
    speed_right: bool = False
    gain_right: bool = False
    failure: str = ""


def measure_geometry(drawn: Drawn, rectified: RectifiedPage) -> Geometry | None:
    """Compare a flattened sheet with the drawn one; None if its nodes hardly touch the signals."""
    n_i, n_j = rectified.node_xy.shape[:2]
    i, j = np.mgrid[:n_i, :n_j]
    found_mm = np.stack([j.ravel(), i.ravel()], -1) * rectified.node_mm
    xy_px = rectified.node_xy.reshape(-1, 2).astype(np.float64)
    height, width = drawn.picture.pixels.shape[:2]
    true_mm = drawn.paper(xy_px).astype(np.float64)
    page = drawn.picture.page
    baselines = [row.baseline_mm for row in page.rows]
    low = np.array([page.rows[0].segments[0].x0_mm, min(baselines) - 10])
    high = np.array([page.rows[0].segments[-1].x1_mm, max(baselines) + 10])
    on_picture = (xy_px > 0).all(1) & (xy_px < [width - 1, height - 1]).all(1)
    use = on_picture & (true_mm > low).all(1) & (true_mm < high).all(1)
    if use.sum() < 8:
        return None
    design = np.column_stack([found_mm[use], np.ones(use.sum())])
    affine = np.linalg.lstsq(design, true_mm[use], rcond=None)[0]
    off = np.linalg.norm(true_mm[use] - design @ affine, axis=1)
    (xx, xy), _ = affine[:2]  # where the found x axis points on the drawn sheet
    lengths = np.linalg.norm(affine[:2], axis=1)
    # counter-clockwise turns that bring the drawn x axis, seen in the found frame, back to the right
    turns = round(float(np.arctan2(xy, xx)) / (np.pi / 2)) % 4
    return Geometry(
        scale_x=float(lengths[0] - 1),
        scale_y=float(lengths[1] - 1),
        quarter_turns=-turns % 4,
        bend_mm=float(np.sqrt(np.mean(off**2))),
    )


def _snr_db(drawn: Drawn, traces: TraceSet, match: LayoutMatch, calibration: Calibration) -> float:
    """Mean SNR of the printed leads after calibrating `traces`; 0 where nothing is traced."""
    page = drawn.picture.page
    truth = page.signal_mv
    try:
        record = calibrate(traces, match, calibration)
        estimate = in_order(record.signal_mv, record.leads, page.leads)
    except DigitizationError:
        estimate = np.full_like(truth, np.nan)
    scores = [score_lead(lead, read, _HZ) for lead, read in zip(truth, estimate, strict=True)]
    return float(np.mean([score.snr_db for score in scores if score is not None]))


def _trace_error(traces: TraceSet, lines: TraceSet, index: Sequence[int]) -> tuple[float, float, float]:
    """Median and 95th percentile of |traced - drawn| in mm, levels removed row by row, and the share traced."""
    off, drawn, traced = [], 0, 0
    for row, found in enumerate(index):
        line = lines.row_mm[row]
        drawn += int(np.isfinite(line).sum())
        if found >= 0:
            difference = traces.row_mm[found] - line
            difference = difference[np.isfinite(difference)]
            traced += difference.size
            if difference.size:
                off.append(np.abs(difference - np.median(difference)))
    if not traced:
        return float("nan"), float("nan"), 0.0
    every = np.concatenate(off)
    return float(np.median(every)), float(np.quantile(every, 0.95)), traced / drawn


def _trace(
    drawn: Drawn, digitizer: Digitizer, segmentation: SegmentationMap, frame: RectifiedPage | None = None
) -> TraceSet:
    """Trace the drawn rows on a sheet (None: the drawn one)."""
    sheet = Sheet(page=drawn.image, segmentation=segmentation, rectified=frame or drawn.sheet)
    return trace_rows(sheet, drawn.rows(frame), digitizer.networks[TRACE])


def _sheet_found(drawn: Drawn, segmentation: SegmentationMap, result: Digitization | None) -> RectifiedPage | None:
    """Return the sheet as rectified, also where a later stage gave up; None if there is none."""
    if result is not None:
        return result.rectified
    try:
        return rectify(drawn.image, segmentation, LAYOUT.px_per_mm).rectified
    except DigitizationError:
        return None


def _gains(calibration: Calibration) -> tuple[float, float]:
    """Gain of the limb and of the chest leads."""
    chest = calibration.chest_gain_mm_per_mv
    return calibration.gain_mm_per_mv, calibration.gain_mm_per_mv if chest is None else chest


def _digitized(page: PageImage, digitizer: Digitizer) -> tuple[Digitization | None, str]:
    """Digitize a page: what was read or None, and the reason of the failure or nothing."""
    try:
        return digitizer.digitize(page), ""
    except DigitizationError as error:
        return None, str(error)


def measure_page(picture: Picture, digitizer: Digitizer) -> PageBudget:
    """Score every stage on one drawn page; it is digitized once and traced twice more."""
    drawn = Drawn(picture)
    true = picture.page.calibration
    segmentation = segment(drawn.image, digitizer.networks[PAGE])
    traces = _trace(drawn, digitizer, segmentation)
    lines = drawn.lines(traces)
    snr = [
        _snr_db(drawn, lines, drawn.match(lines), true),
        _snr_db(drawn, traces, drawn.match(traces), true),
    ]
    result, failure = _digitized(drawn.image, digitizer)
    sheet = _sheet_found(drawn, segmentation, result)
    geometry = None if sheet is None else measure_geometry(drawn, sheet)
    if sheet is not None and geometry is not None:
        upright = turn(sheet, geometry.quarter_turns)
        on_sheet = _trace(drawn, digitizer, segmentation, upright)
        snr.append(_snr_db(drawn, on_sheet, drawn.match(on_sheet, upright), true))
    trace_mm, trace_95_mm, coverage = _trace_error(traces, lines, drawn.row_index(traces))
    reached = PageBudget(
        picture=picture,
        snr_db=(*snr, *[0.0] * (len(LEVELS) - len(snr))),
        trace_mm=trace_mm,
        trace_95_mm=trace_95_mm,
        coverage=coverage,
        geometry=geometry,
        failure=failure or "no geometry to speak of",
    )
    return reached if result is None or geometry is None else _complete(reached, drawn, result, snr)


def _complete(reached: PageBudget, drawn: Drawn, result: Digitization, snr: Sequence[float]) -> PageBudget:
    """Add what only a page that was read to the end has; `snr` are the levels before."""
    true = drawn.picture.page.calibration
    found, match, read = result.traces, result.layout_match, result.record.calibration
    known = drawn.match(found, result.rectified)
    rest = [
        _snr_db(drawn, found, known, true),
        _snr_db(drawn, found, match, true),
        _snr_db(drawn, found, match, read),
    ]
    n_found = sum(index >= 0 for index in known.row_index)
    return replace(
        reached,
        snr_db=(*snr, *rest),
        rows_found=n_found,
        rows_extra=found.row_mm.shape[0] - n_found,
        layout_found=match.layout.name,
        layout_right=same_print(match.layout, match.rhythm, drawn.picture.page.layout),
        certain=match.certain,
        speed_right=read.paper_speed_mm_per_s == true.paper_speed_mm_per_s,
        gain_right=_gains(read) == _gains(true),
        failure="",
    )


def page_table(pages: Sequence[PageBudget]) -> Table:
    """Return a table with one row a page."""
    table = Table(title="Pages")
    headings = ("page", "layout", "mm/s", "mm/mV", "px/mm", "scale x, y %", "bend mm", "rows", "layout found")
    for heading in (*headings, "speed", "gain", "trace mm", *LEVELS):
        table.add_column(heading)
    for page in pages:
        drawn, sheet = page.picture.page, page.geometry
        chest = "" if drawn.style.chest_gain == 1 else f"/{drawn.style.gain_mm_per_mv * drawn.style.chest_gain:g}"
        turned = f" turned {sheet.quarter_turns}" if sheet and sheet.quarter_turns else ""
        flag = "" if page.certain else " ?"
        table.add_row(
            page.picture.name,
            drawn.layout.name,
            f"{drawn.style.speed_mm_per_s:g}",
            f"{drawn.style.gain_mm_per_mv:g}{chest}",
            f"{page.picture.px_per_mm:.1f}",
            f"{100 * sheet.scale_x:+.2f} {100 * sheet.scale_y:+.2f}{turned}" if sheet else "-",
            f"{sheet.bend_mm:.2f}" if sheet else "-",
            f"{page.rows_found}/{len(drawn.rows)}" + (f" +{page.rows_extra}" if page.rows_extra else ""),
            page.failure or f"{'right' if page.layout_right else page.layout_found}{flag}",
            "right" if page.speed_right else "wrong",
            "right" if page.gain_right else "wrong",
            f"{page.trace_mm:.2f} {page.trace_95_mm:.2f}",
            *(f"{level:.1f}" for level in page.snr_db),
        )
    return table


def budget_table(pages: Sequence[PageBudget]) -> Table:
    """Return the error budget: mean and median SNR with each stage at work, and what the stage cost."""
    table = Table(title=f"Error budget of {len(pages)} pages")
    table.add_column("up to here as found")
    for heading in ("mean dB", "median dB", "costs dB", "most on one page"):
        table.add_column(heading, justify="right")
    snr = np.array([page.snr_db for page in pages])
    for level, name in enumerate(LEVELS):
        cost, most = "", ""
        if level:
            lost = snr[:, level - 1] - snr[:, level]
            cost = f"{lost.mean():.2f}"
            most = f"{lost.max():.1f} ({pages[int(lost.argmax())].picture.name})"
        table.add_row(name, f"{snr[:, level].mean():.2f}", f"{np.median(snr[:, level]):.2f}", cost, most)
    return table


def count_table(pages: Sequence[PageBudget]) -> Table:
    """Return what can be counted: rows, layouts, speeds and gains that were right, and geometry in numbers."""
    table = Table(title="Stages")
    table.add_column("stage")
    table.add_column("result")
    sheets = [page.geometry for page in pages if page.geometry is not None]
    good = [sheet for sheet in sheets if max(abs(sheet.scale_x), abs(sheet.scale_y)) < 0.02]
    n, drawn_rows = len(pages), sum(len(page.picture.page.rows) for page in pages)
    wrong = [page for page in pages if not page.layout_right and not page.failure]
    table.add_row("sheet found, scale within 2 %", f"{len(good)} of {n}")
    table.add_row("of these upright", f"{sum(not sheet.quarter_turns for sheet in good)}")
    if good:
        scales = np.abs([[sheet.scale_x, sheet.scale_y] for sheet in good]) * 100
        bends = [sheet.bend_mm for sheet in good]
        table.add_row("|scale error| x, y, median", f"{np.median(scales[:, 0]):.3f} %, {np.median(scales[:, 1]):.3f} %")
        table.add_row("bend left over, median, largest", f"{np.median(bends):.3f} mm, {max(bends):.3f} mm")
    rows = sum(page.rows_found for page in pages)
    table.add_row("rows found", f"{rows} of {drawn_rows}, and {sum(page.rows_extra for page in pages)} that are none")
    table.add_row("layouts right", f"{sum(page.layout_right for page in pages)} of {n}")
    table.add_row("layouts wrong, sent to review", f"{sum(not page.certain for page in wrong)} of {len(wrong)}")
    table.add_row("pages given up", str(sum(bool(page.failure) for page in pages)))
    table.add_row("speeds right", f"{sum(page.speed_right for page in pages)} of {n}")
    table.add_row("gains right", f"{sum(page.gain_right for page in pages)} of {n}")
    table.add_row("trace on the true sheet, median error", f"{np.nanmedian([page.trace_mm for page in pages]):.3f} mm")
    table.add_row("trace on the true sheet, coverage", f"{np.mean([page.coverage for page in pages]):.3f}")
    return table
