"""Rows of a page that is a drawing: TraceSet in, TraceSet out, with the drawing's own lines where rows were traced.

A drawn page is first read like any other.  Then lines that run where a row was traced take its place: their points are
exact.  A line under which nothing was traced is left out: what is not seen on the page is not in the record.

A row that lines explain wholly, and under which the page network sees a trace throughout, need not be traced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.datatypes import DrawnLine, FloatArray, RectifiedPage, RowBand, TraceSet
from pipeline.sheet.paper import Sheet, paper_to_page

Float64 = npt.NDArray[np.float64]


def follow_strokes(
    traces: TraceSet, sheet: Sheet, *, shortest_mm: float = 15.0, near_mm: float = 0.3, share: float = 0.7
) -> TraceSet:
    """Replace what was traced along the page's own lines by these lines.

    Parameters
    ----------
    traces : TraceSet
    sheet : Sheet
        The sheet the rows were traced on.
    shortest_mm : float
        Shorter lines are left out: pulses, frames, print.
    near_mm, share : float
        A line belongs to a row that was traced along at least half of it, with `share` of that within `near_mm`.

    Returns
    -------
    TraceSet
        Every line begins on a column: it is moved by up to half of one, so that samples are points of the drawing.
        Where lines overlap, the later one counts from its start.
    """
    if not sheet.page.strokes:
        return traces
    flat = _to_flat_paper(sheet.rectified)
    drawn = []
    for stroke in sheet.page.strokes:
        points = _along_time(stroke @ flat[:2] + flat[2], shortest_mm)
        line = None if points is None else _along_row(points, traces, near_mm, share)
        drawn += [] if line is None else [line]
    if not drawn:
        return traces
    drawn.sort(key=lambda line: line.first)
    row_mm, confidence = traces.row_mm.copy(), traces.confidence.copy()
    doubt_mm = np.zeros_like(row_mm) if traces.doubt_mm is None else traces.doubt_mm.copy()
    for line in drawn:
        span = np.s_[line.row, line.first : line.stop]
        row_mm[span], confidence[span], doubt_mm[span] = line.y_mm, 1.0, 0.0
    return replace(traces, row_mm=row_mm, confidence=confidence, doubt_mm=doubt_mm, lines=tuple(drawn))


def explained_rows(
    sheet: Sheet,
    rows: Sequence[RowBand],
    x_mm: Float64,
    *,
    shortest_mm: float = 15.0,
    level_mm: float = 6.0,
    covered: float = 0.98,
    seen: float = 0.95,
    overlap_mm: float = 1.0,
) -> dict[int, FloatArray]:
    """Find the rows that the page's own lines explain wholly.

    Parameters
    ----------
    sheet : Sheet
    rows : sequence of RowBand
    x_mm : (n,) float
        Paper x of the columns.
    shortest_mm : float
        Shorter lines are left out.
    level_mm : float
        From the median of a line to the baseline of its row, at most.
    covered : float
        Share of a row's length that has a line.
    seen : float
        Share of its lines under which the page network sees a trace.
    overlap_mm : float
        Lines of one row that run beside each other for longer explain nothing.

    Returns
    -------
    dict
        Paper y (n,) of each such row, by its place in `rows`; NaN where there is no line.
    """
    if not sheet.page.strokes:
        return {}
    flat = _to_flat_paper(sheet.rectified)
    levels = np.array([row.baseline_mm for row in rows])
    lines = [_along_time(stroke @ flat[:2] + flat[2], shortest_mm) for stroke in sheet.page.strokes]
    y_mm = np.full((len(rows), x_mm.size), np.nan, np.float32)
    doubled = np.zeros(len(rows))  # columns
    for line in sorted((line for line in lines if line is not None), key=lambda line: float(line[0, 0])):
        off = np.abs(levels - np.median(line[:, 1]))
        row = int(off.argmin())
        if off[row] <= level_mm:
            y = np.interp(x_mm, line[:, 0], line[:, 1], left=np.nan, right=np.nan)
            doubled[row] = max(doubled[row], (np.isfinite(y) & np.isfinite(y_mm[row])).sum())
            y_mm[row] = np.where(np.isfinite(y), y, y_mm[row])
    found = {}
    for k, band in enumerate(rows):
        known, inside = np.isfinite(y_mm[k]), (x_mm >= band.x0_mm) & (x_mm <= band.x1_mm)
        single = doubled[k] * (x_mm[1] - x_mm[0]) <= overlap_mm
        if single and known[inside].mean() >= covered and _seen(sheet, x_mm[known], y_mm[k, known]) >= seen:
            found[k] = y_mm[k]
    return found


def _seen(sheet: Sheet, x_mm: Float64, y_mm: FloatArray, *, sure: float = 0.5) -> float:
    """Return the share of paper points (n,) at or beside which the page network sees a trace."""
    maps = sheet.segmentation
    at = (paper_to_page(sheet.rectified, np.stack([x_mm, y_mm], -1)) + 0.5) * maps.scale - 0.5
    around = cv2.dilate(maps.trace, np.ones((5, 5), np.uint8))
    x, y = (at[:, axis].astype(np.float32)[None] for axis in (0, 1))
    return float((cv2.remap(around, x, y, cv2.INTER_NEAREST) > sure).mean())


def _along_row(line: Float64, traces: TraceSet, near_mm: float, share: float) -> DrawnLine | None:
    """Lay a line (n, 2) in paper mm on the columns of the row that was traced along it; None if none was."""
    column = (line[:, 0] - traces.x0_mm) * traces.columns_per_mm
    beat = np.exp(2j * np.pi * column).mean()  # long where all points but a pulse's are whole columns apart
    column -= np.angle(beat) / (2 * np.pi) if abs(beat) > 0.7 else column[0] - round(column[0])
    first, last = max(round(column[0]), 0), min(int(column[-1] + 1e-2), traces.row_mm.shape[1] - 1)
    if first > last:
        return None
    y_mm = np.interp(np.arange(first, last + 1), column, line[:, 1]).astype(np.float32)
    rows = traces.row_mm[:, first : first + y_mm.size]
    traced, near = np.isfinite(rows).sum(1), (np.abs(rows - y_mm) < near_mm).sum(1)
    row = int(np.argmax(near))
    if 2 * traced[row] < y_mm.size or near[row] < share * traced[row]:
        return None
    return DrawnLine(row=row, first=first, y_mm=y_mm)


def _along_time(line: Float64, shortest_mm: float) -> Float64 | None:
    """Return a line (n, 2) in paper mm from left to right; None if it is short or does not run along time."""
    if line[-1, 0] < line[0, 0]:
        line = line[::-1]
    if line[-1, 0] - line[0, 0] < shortest_mm or np.diff(line[:, 0]).min() < -0.05:
        return None
    return np.column_stack([np.maximum.accumulate(line[:, 0]), line[:, 1]])


def _to_flat_paper(rectified: RectifiedPage) -> Float64:
    """Return the affine map (3, 2) from page pixels to paper mm: one for the whole lattice, a drawing has no bends."""
    n_i, n_j = rectified.node_xy.shape[:2]
    paper = np.stack(np.meshgrid(np.arange(n_j), np.arange(n_i)), -1).reshape(-1, 2) * rectified.node_mm
    terms = np.column_stack([rectified.node_xy.reshape(-1, 2).astype(np.float64), np.ones(len(paper))])
    kept = np.ones(len(paper), bool)
    for _ in range(5):
        fit, *_ = np.linalg.lstsq(terms[kept], paper[kept], rcond=None)
        off = np.linalg.norm(terms @ fit - paper, axis=1)
        kept = off <= 3 * np.median(off[kept]) + 1e-6
    return np.asarray(fit)
