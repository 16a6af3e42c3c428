"""What a person states about the rows: where they run, lines drawn over the ink, and stretches nobody can read.

A drawn line follows the pen: every column of it moves to the middle of the dark ink near it, and stays where there is
none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipeline.datatypes import Act, Corrections, LayoutMatch, PagePoint, RectifiedPage, RowBand, TraceSet
from pipeline.errors import BrokenRule, CorrectionError
from pipeline.sheet.paper import Sheet, page_to_paper, raster

Float64 = npt.NDArray[np.float64]

_LEAST_MM = 1.0  # between rows, and between columns


@dataclass(frozen=True, eq=False, slots=True)
class _Edit:
    """One statement about a stretch of a printed row."""

    field: str  # of the corrections
    row: int  # printed, from 0
    first: int  # column of the traces
    stop: int
    y_mm: Float64 | None  # (stop - first,) of a drawn line; None: nobody can read it


def stated_rows(points_px: Sequence[PagePoint], rectified: RectifiedPage, found: Sequence[RowBand]) -> list[RowBand]:
    """Return rows with the zero lines that a person states, as long as the rows that were found.

    Parameters
    ----------
    points_px : sequence of (x, y)
        A point on each zero line, top to bottom.
    rectified : RectifiedPage
        The map of the page that the points are on.
    found : sequence of RowBand
        If there are none, the rows are as long as the sheet.

    Returns
    -------
    list of RowBand

    Raises
    ------
    CorrectionError
        The rows do not go from top to bottom.
    """
    y_mm = page_to_paper(rectified, np.array(points_px))[:, 1]
    if (np.diff(y_mm) < _LEAST_MM).any():
        rule = f"rows must go from top to bottom, {_LEAST_MM:g} mm apart at least"
        raise CorrectionError([BrokenRule("row_baselines_px", _in_words(points_px), rule)])
    x0_mm = min((row.x0_mm for row in found), default=0.0)
    x1_mm = max((row.x1_mm for row in found), default=rectified.pixels.shape[1] / rectified.px_per_mm)
    return [RowBand(baseline_mm=float(y), x0_mm=x0_mm, x1_mm=x1_mm) for y in y_mm]


def put_where_stated(
    match: LayoutMatch, traces: TraceSet, rectified: RectifiedPage, corrections: Corrections
) -> LayoutMatch:
    """Put rows and columns where a person states them.

    Parameters
    ----------
    match : LayoutMatch
    traces : TraceSet
        Of the stated rows, if there are any.
    rectified : RectifiedPage
        The map of the page that the points of the corrections are on.
    corrections : Corrections

    Returns
    -------
    LayoutMatch

    Raises
    ------
    CorrectionError
        The columns do not go from left to right.
    """
    if corrections.row_baselines_px is not None:
        y_mm = page_to_paper(rectified, np.array(corrections.row_baselines_px))[:, 1].astype(np.float32)
        found = [np.flatnonzero(traces.baseline_mm == y) for y in y_mm]
        empty = sum(at.size == 0 for at in found)
        reasons = match.reasons + ((f"nothing was traced in {empty} of {len(found)} rows",) if empty else ())
        index = tuple(int(at[0]) if at.size else -1 for at in found)
        match = replace(match, row_index=index, reasons=reasons, certain=not reasons)
    if corrections.column_edges_px is not None:
        x_mm = page_to_paper(rectified, np.array(corrections.column_edges_px))[:, 0]
        if (np.diff(x_mm) < _LEAST_MM).any():
            rule = f"columns must go from left to right, {_LEAST_MM:g} mm apart at least"
            raise CorrectionError([BrokenRule("column_edges_px", _in_words(corrections.column_edges_px), rule)])
        match = replace(match, column_mm=tuple(zip(x_mm[:-1].tolist(), x_mm[1:].tolist(), strict=True)))
    return match


def lay_by_hand(
    traces: TraceSet, match: LayoutMatch, sheet: Sheet, rectified: RectifiedPage, corrections: Corrections
) -> tuple[TraceSet, LayoutMatch]:
    """Lay drawn lines into their rows, and take out what nobody can read.

    Parameters
    ----------
    traces : TraceSet
    match : LayoutMatch
        Says which traced row is which printed row.
    sheet : Sheet
        With the ink that lines snap to.
    rectified : RectifiedPage
        The map of the page that the points of the corrections are on.
    corrections : Corrections

    Returns
    -------
    traces : TraceSet
        With `by_person`.
    match : LayoutMatch
        A printed row that was not traced has a row of its own if a line was drawn in it.

    Raises
    ------
    CorrectionError
        A line does not run along time or leaves the rows, or two statements are about the same stretch.
    """
    if not corrections.lines and not corrections.unreadable:
        return traces, match
    edits = [*_lines(traces, rectified, corrections), *_unreadable(traces, rectified, corrections)]
    _refuse_overlaps(edits)
    traces, match = _with_missing_rows(traces, match, edits)
    row_mm, confidence, by_person = (
        traces.row_mm.copy(),
        traces.confidence.copy(),
        np.zeros(traces.row_mm.shape, np.uint8),
    )
    doubt_mm = np.zeros_like(row_mm) if traces.doubt_mm is None else traces.doubt_mm.copy()
    touched, spikes = set(), list(traces.spikes)
    for edit in edits:
        at = match.rows[edit.row]
        if at < 0:
            continue  # unreadable, and not traced anyway
        touched.add(at)
        part = np.s_[at, edit.first : edit.stop]
        spikes = [each for each in spikes if each.row != at or not _within(each.x_mm, traces, edit)]
        if edit.y_mm is None:
            row_mm[part], confidence[part], by_person[part] = np.nan, 0.0, Act.UNREADABLE
        else:
            x_mm = traces.x0_mm + np.arange(edit.first, edit.stop) / traces.columns_per_mm
            row_mm[part], confidence[part], by_person[part] = snap(x_mm, edit.y_mm, sheet), 1.0, Act.DRAWN
        doubt_mm[part] = 0.0
    edited = replace(
        traces,
        row_mm=row_mm,
        confidence=confidence,
        doubt_mm=doubt_mm,
        by_person=by_person,
        lines=tuple(line for line in traces.lines if line.row not in touched),
        spikes=tuple(spikes),
    )
    return edited, match


def snap(
    x_mm: Float64,
    y_mm: Float64,
    sheet: Sheet,
    *,
    reach_mm: float = 0.9,
    near_mm: float = 0.45,
    least: float = 0.35,
    px_per_mm: float = 12.0,
) -> Float64:
    """Move a line to the middle of the ink near it.

    Parameters
    ----------
    x_mm, y_mm : (n,) float
        Evenly spaced columns, and the line's paper y at each.
    sheet : Sheet
    reach_mm : float
        Ink farther off does not count.
    near_mm : float
        Ink counts the less the farther off it is: standard deviation of the weight.
    least : float
        Ink is what is darker than this share of the way from the paper to the darkest pen.
    px_per_mm : float
        Of the raster that ink is looked for on.

    Returns
    -------
    (n,) float
    """
    rows_mm = raster(float(y_mm.min()) - reach_mm, float(y_mm.max()) + reach_mm, px_per_mm)
    light = sheet.pixels(x_mm, rows_mm).max(2).astype(np.float64)  # of a coloured grid line nearly as high as paper's
    paper, pen = np.quantile(light, [0.7, 0.002])
    dark = np.clip((paper - light) / max(paper - pen, 20.0) - least, 0.0, 1.0 - least)
    off = rows_mm[:, None] - y_mm
    weight = dark * np.exp(-0.5 * (off / near_mm) ** 2) * (np.abs(off) <= reach_mm)
    total = weight.sum(0)
    moved = (weight * off).sum(0) / np.maximum(total, 1e-9)
    return np.asarray(y_mm + np.where(total > 0.05, moved, 0.0), np.float64)


def _lines(traces: TraceSet, rectified: RectifiedPage, corrections: Corrections) -> Iterator[_Edit]:
    """Lay every drawn line on the columns of the traces."""
    for k, line in enumerate(corrections.lines):
        field = f"lines[{k}].points_px"
        xy_mm = page_to_paper(rectified, np.array(line.points_px))
        xy_mm = xy_mm if xy_mm[-1, 0] >= xy_mm[0, 0] else xy_mm[::-1]
        if np.diff(xy_mm[:, 0]).min() < -0.5:
            raise CorrectionError([BrokenRule(field, _in_words(line.points_px), "must run along time, not back")])
        along = np.maximum.accumulate(xy_mm[:, 0])
        first, stop = _columns(traces, along[0], along[-1])
        if stop <= first:
            rule = "must lie within the rows and be as long as a column of the trace (0.05 mm) at least"
            raise CorrectionError([BrokenRule(field, _in_words(line.points_px), rule)])
        x_mm = traces.x0_mm + np.arange(first, stop) / traces.columns_per_mm
        yield _Edit(field, line.row - 1, first, stop, np.interp(x_mm, along, xy_mm[:, 1]))


def _unreadable(traces: TraceSet, rectified: RectifiedPage, corrections: Corrections) -> Iterator[_Edit]:
    for k, part in enumerate(corrections.unreadable):
        x_mm = np.sort(page_to_paper(rectified, np.array([part.from_px, part.to_px]))[:, 0])
        yield _Edit(f"unreadable[{k}]", part.row - 1, *_columns(traces, x_mm[0], x_mm[1]), None)


def _columns(traces: TraceSet, x0_mm: float, x1_mm: float) -> tuple[int, int]:
    """Return the columns of the traces from one paper x to another: the first, and the first behind them."""
    first, last = ((x - traces.x0_mm) * traces.columns_per_mm for x in (x0_mm, x1_mm))
    return max(int(np.ceil(first)), 0), min(int(np.floor(last)) + 1, traces.row_mm.shape[1])


def _within(x_mm: float, traces: TraceSet, edit: _Edit) -> bool:
    """Tell whether a paper x lies in the stretch of an edit."""
    return edit.first <= (x_mm - traces.x0_mm) * traces.columns_per_mm < edit.stop


def _refuse_overlaps(edits: Sequence[_Edit]) -> None:
    for k, one in enumerate(edits):
        for other in edits[:k]:
            if one.row == other.row and one.first < other.stop and other.first < one.stop:
                value = f"columns {one.first} to {one.stop} of row {one.row + 1}"
                raise CorrectionError([BrokenRule(one.field, value, f"must not overlap {other.field}")])


def _with_missing_rows(traces: TraceSet, match: LayoutMatch, edits: Sequence[_Edit]) -> tuple[TraceSet, LayoutMatch]:
    """Add an empty row to the traces for each printed row that was not traced and has a drawn line."""
    index = list(match.rows)
    for edit in edits:
        if edit.y_mm is None or 0 <= index[edit.row] < len(traces.row_mm):
            continue
        index[edit.row] = len(traces.row_mm)
        empty = np.zeros((1, traces.row_mm.shape[1]), np.float32)
        traces = replace(
            traces,
            row_mm=np.concatenate([traces.row_mm, empty + np.float32(np.nan)]),
            confidence=np.concatenate([traces.confidence, empty]),
            baseline_mm=np.append(traces.baseline_mm, np.float32(np.median(edit.y_mm))),
            doubt_mm=None if traces.doubt_mm is None else np.concatenate([traces.doubt_mm, empty]),
        )
    return traces, replace(match, row_index=tuple(index))


def _in_words(points: Sequence[PagePoint]) -> str:
    return " ".join(f"({x:g}, {y:g})" for x, y in points)
