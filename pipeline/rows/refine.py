"""Traced rows -> the same rows, fitted to the page's own ink: tips of sharp waves, and pacing spikes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipeline.datatypes import FloatArray, LayoutMatch, PulseBox, SpikeMark, TextLine, TraceSet
from pipeline.rows.pen import PX_PER_MM_X, PX_PER_MM_Y, Flags, Float64, InkStrip, ink_strip
from pipeline.rows.spikes import Spike, spikes_of, without_spikes
from pipeline.rows.tips import with_tips
from pipeline.sheet.paper import Sheet, print_boxes

_MARGINS_MM = (12.0, 36.0)  # paper above and below a row's waves; the second where ink runs on beyond the first


def fit_ink(
    traces: TraceSet,
    sheet: Sheet,
    match: LayoutMatch,
    pulses: Sequence[PulseBox],
    text: Sequence[TextLine],
    *,
    print_mm: float = 1.5,
    fewest: int = 4,
) -> TraceSet:
    """Fit the tips of the rows' waves to their ink, and find the pacing spikes on the rows.

    What was taken from a drawing's lines stays as it is.

    Parameters
    ----------
    traces : TraceSet
    sheet : Sheet
    match : LayoutMatch
    pulses, text : sequence
        Calibration pulses and print: a stroke that lies in one of them is no spike.
    print_mm : float
        Around the start of a column, where separators are printed: nothing is fitted there.
    fewest : int
        Strokes that make a page a paced one; fewer are left to the audit.

    Returns
    -------
    TraceSet
    """
    usual_mm, paced_mm = traces.row_mm.copy(), traces.row_mm.copy()
    x_mm = traces.x0_mm + np.arange(usual_mm.shape[1]) / traces.columns_per_mm
    clear = np.all([np.abs(x_mm - start) > print_mm for start, _ in match.column_mm], axis=0)
    boxes = np.reshape(print_boxes(match, pulses, text, pulse_margin_mm=0.5), (-1, 4))
    marks: list[SpikeMark] = []
    for k, row in enumerate(traces.row_mm):
        there = np.isfinite(row) & clear
        for line in traces.lines:
            if line.row == k:
                there[line.first : line.stop] = False
        found = _strip(sheet, x_mm, row, there) if there.any() else None
        if found is None:
            continue
        strip, top_mm, spikes = found
        others_mm = np.delete(traces.row_mm, k, 0)
        spikes = [
            spike
            for spike in spikes
            if _is_trace(sheet, x_mm, top_mm, strip, spike)
            and not _is_line(others_mm, top_mm, strip, spike)
            and not _in_print(boxes, float(x_mm[spike.column]), _ends_mm(strip, top_mm, spike))
        ]
        usual_mm[k, there] = top_mm + _line(strip, [])[there] / PX_PER_MM_Y
        paced_mm[k, there] = top_mm + _line(strip, spikes)[there] / PX_PER_MM_Y if spikes else usual_mm[k, there]
        marks += [
            SpikeMark(
                row=k,
                x_mm=float(x_mm[spike.column]),
                tip_mm=top_mm + spike.tip_px / PX_PER_MM_Y,
                score=spike.score,
            )
            for spike in spikes
        ]
    if len(marks) < fewest:
        return replace(traces, row_mm=usual_mm)
    return replace(traces, row_mm=paced_mm, spikes=tuple(marks))


def _line(strip: InkStrip, spikes: Sequence[Spike]) -> FloatArray:
    """Return the line of a row (n,) in pixels, its tips fitted, beside its spikes."""
    return with_tips(replace(strip, y_px=without_spikes(strip, spikes)), _beside(spikes, strip.there))


def _strip(sheet: Sheet, x_mm: Float64, row: FloatArray, there: Flags) -> tuple[InkStrip, float, list[Spike]] | None:
    """Cut a row's strip out of the page, tall enough for its spikes: the strip, paper y of its first row, spikes."""
    found = None
    for margin_mm in _MARGINS_MM:
        top_mm = float(row[there].min()) - margin_mm
        lines_mm = np.arange(top_mm, float(row[there].max()) + margin_mm, 1 / PX_PER_MM_Y)
        y_px = np.where(there, (row - top_mm) * np.float32(PX_PER_MM_Y), 0).astype(np.float32)
        strip = ink_strip(sheet.pixels(x_mm, lines_mm), y_px, there)
        if strip is None:
            return None
        spikes = spikes_of(strip)
        whole = [spike for spike in spikes if not spike.cut]
        found = strip, top_mm, whole
        if whole == spikes:
            break
    return found


def _is_trace(sheet: Sheet, x_mm: Float64, top_mm: float, row: InkStrip, spike: Spike) -> bool:
    """Tell whether the page network takes a stroke neither for print nor for grid."""
    columns_mm = x_mm[spike.column - 2 : spike.column + 3]
    y_mm = top_mm + np.linspace(row.y_px[spike.column], spike.tip_px, 12)[3:] / PX_PER_MM_Y
    text, trace, grid = np.median(sheet.ink(columns_mm, y_mm).max(1), 0)
    return bool(text < 0.3 * 255 and trace > grid)


def _ends_mm(row: InkStrip, top_mm: float, spike: Spike) -> tuple[float, float]:
    """Return paper y of a stroke's upper and lower end."""
    foot, tip = (top_mm + at / PX_PER_MM_Y for at in (float(row.y_px[spike.column]), spike.tip_px))
    return min(foot, tip), max(foot, tip)


def _is_line(
    others_mm: FloatArray, top_mm: float, row: InkStrip, spike: Spike, *, pen_mm: float = 0.5, share: float = 0.3
) -> bool:
    """Tell whether a stroke is another row's line (n_rows, n): it ends on one, or one runs along much of it."""
    upper, lower = _ends_mm(row, top_mm, spike)
    tip = top_mm + spike.tip_px / PX_PER_MM_Y
    for other in others_mm[:, max(spike.column - 6, 0) : spike.column + 7]:
        if np.isfinite(other).any():
            first, last = float(np.nanmin(other)) - pen_mm, float(np.nanmax(other)) + pen_mm
            if first - 0.5 <= tip <= last + 0.5 or min(last, lower) - max(first, upper) > share * (lower - upper):
                return True
    return False


def _in_print(boxes: Float64, x_mm: float, ends_mm: tuple[float, float], *, share: float = 0.4) -> bool:
    """Tell whether much of an upright stroke lies in one of the boxes (n, 4)."""
    upper, lower = ends_mm
    inside = np.minimum(boxes[:, 3], lower) - np.maximum(boxes[:, 1], upper)
    return bool(((boxes[:, 0] <= x_mm) & (x_mm <= boxes[:, 2]) & (inside > share * (lower - upper))).any())


def _beside(spikes: Sequence[Spike], there: Flags, *, reach_mm: float = 0.6) -> Flags:
    """Mark the columns (n,) where a spike stands: what ink goes on there is the spike's."""
    near = np.zeros_like(there)
    for spike in spikes:
        reach = round(reach_mm * PX_PER_MM_X)
        near[max(spike.column - reach, 0) : spike.column + reach + 1] = True
    return near
