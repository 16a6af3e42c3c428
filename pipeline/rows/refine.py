"""Traced rows -> the same rows, fitted to the page's own ink: tips of sharp waves, and pacing spikes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipeline.datatypes import ByteArray, FloatArray, LayoutMatch, PulseBox, SpikeMark, TextLine, TraceSet
from pipeline.networks.inference import Network
from pipeline.rows.firings import Likely, Stretch, Strip, by_pattern, of_a_pacemaker, stretch_at, stretches_of
from pipeline.rows.pen import PX_PER_MM_X, PX_PER_MM_Y, Flags, Float64, InkStrip, ink_strip
from pipeline.rows.spikes import chances, middle_of, pictures, strokes_of, without_spikes
from pipeline.rows.steep import with_steep
from pipeline.rows.tips import with_tips
from pipeline.sheet.paper import Sheet, print_boxes
from pipeline.threads import side_by_side

_MARGINS_MM = (12.0, 36.0)  # paper above and below a row's waves; the second where ink runs on beyond the first


def fit_ink(
    traces: TraceSet,
    sheet: Sheet,
    match: LayoutMatch,
    pulses: Sequence[PulseBox],
    text: Sequence[TextLine],
    network: Network,
    *,
    print_mm: float = 1.5,
) -> TraceSet:
    """Fit the tips of the rows' waves to their ink, and find the pacing spikes on the rows.

    What was taken from a drawing's lines stays as it is.

    Parameters
    ----------
    traces : TraceSet
    sheet : Sheet
    match : LayoutMatch
    pulses, text : sequence
        Calibration pulses and print: a stroke in one of them is a spike only where another row has one.
    network : Network
        The spike network.
    print_mm : float
        Around the start of a column, where separators are printed: nothing is fitted there.

    Returns
    -------
    TraceSet
    """
    row_mm = traces.row_mm.copy()
    x_mm = traces.x0_mm + np.arange(row_mm.shape[1]) / traces.columns_per_mm
    clear = np.all([np.abs(x_mm - start) > print_mm for start, _ in match.column_mm], axis=0)
    boxes = np.reshape(print_boxes(match, pulses, text, pulse_margin_mm=0.5), (-1, 4))
    printed = []
    for k, row in enumerate(row_mm):
        there = np.isfinite(row) & clear
        for line in traces.lines:
            if line.row == k:
                there[line.first : line.stop] = False
        printed.append(there)
    rows = list(zip(row_mm, printed, strict=True))
    found = side_by_side(lambda row: _strip(sheet, x_mm, *row) if row[1].any() else None, rows)
    strips = {k: one for k, one in enumerate(found) if one is not None}

    def others_px(k: int) -> FloatArray:
        return (np.delete(traces.row_mm, k, 0) - np.float32(strips[k].top_mm)) * np.float32(PX_PER_MM_Y)

    shown = [pictures(strips[k].ink, strips[k].strokes, others_px(k)) for k in strips]
    stretches = stretches_of(match, x_mm)
    likely = _judged(strips, shown, stretches, network)
    likely = [replace(one, printed=_in_print(boxes, x_mm, one)) for one in likely]
    owned = by_pattern(of_a_pacemaker(likely), likely, strips, stretches)
    own = {k: [(one.column, one.sign) for one in owned if one.row == k] for k in strips}

    def line_px(k: int) -> FloatArray:
        strip, top_mm = strips[k].ink, strips[k].top_mm
        line = _line(strip, own[k], others_px(k))
        alone = strip.there & ~_beside(own[k], strip.there) & ~_behind(boxes, x_mm, top_mm + line / PX_PER_MM_Y)
        return with_steep(replace(strip, y_px=line, there=alone), others_px(k))

    for k, fitted in zip(strips, side_by_side(line_px, strips), strict=True):
        there = strips[k].ink.there
        row_mm[k, there] = strips[k].top_mm + fitted[there] / PX_PER_MM_Y
    left = [] if owned else _several_times(likely)
    return replace(traces, row_mm=row_mm, spikes=_marks(owned, x_mm), strokes=_marks(left, x_mm))


def _judged(
    strips: dict[int, Strip], shown: Sequence[ByteArray], stretches: Sequence[Stretch], network: Network
) -> list[Likely]:
    """Ask the network about all strokes of a page; what it rules out is left away."""
    strokes = [(k, strip, stroke) for k, strip in strips.items() for stroke in strip.strokes]
    if not strokes:
        return []
    (answers,) = network.run(np.concatenate(shown))
    logit, share = answers.numpy().T
    foot, tip = np.array([(one.foot_px, one.tip_px) for _, _, one in strokes]).T / PX_PER_MM_Y
    parts = [stretch_at(stretches, k, one.column) for k, _, one in strokes]
    # rows whose columns were recorded together have as many leads at a time as there are columns
    row = np.array([part.row if not part.later else -1 - stretches.index(part) for part in parts])
    time, sign = np.array(
        [(one.column - part.later, one.sign) for (_, _, one), part in zip(strokes, parts, strict=True)]
    ).T
    chance = chances(row, time, sign * np.abs(tip - foot), logit)
    return [
        Likely(
            stretch=parts[n],
            column=one.column,
            middle=middle_of(strip.ink, one),
            sign=one.sign,
            foot_mm=strip.top_mm + foot[n],
            tip_mm=strip.top_mm + foot[n] + (tip[n] - foot[n]) * _share(float(share[n])),
            logit=float(logit[n]),
            chance=float(chance[n]),
        )
        for n, (_, strip, one) in enumerate(strokes)
        if chance[n] > 0
    ]


def _share(answer: float) -> float:
    """Return the part of a stroke that is the spike; it ends where its ink ends, unless clearly before."""
    return 1.0 if answer > 0.85 else max(answer, 0.3)


def _marks(strokes: Sequence[Likely], x_mm: Float64) -> tuple[SpikeMark, ...]:
    at_mm = np.interp([one.middle for one in strokes], np.arange(len(x_mm)), x_mm).tolist()
    return tuple(
        SpikeMark(row=one.row, x_mm=at, tip_mm=one.tip_mm, score=min(one.chance, 0.9))
        for one, at in zip(strokes, at_mm, strict=True)
    )


def _several_times(strokes: Sequence[Likely], *, fewest: int = 4, same: int = 5) -> list[Likely]:
    """Keep the strokes that stand in several rows at once, if they do at `fewest` times: waves and grids do not."""
    left = sorted((one for one in strokes if one.logit > 0 and not one.printed), key=lambda one: one.column)
    groups = []
    while left:
        groups.append([one for one in left if one.column - left[0].column <= same])
        left = left[len(groups[-1]) :]
    groups = [group for group in groups if len({one.row for one in group}) >= 2]
    return [one for group in groups for one in group] if len(groups) >= fewest else []


def _line(strip: InkStrip, spikes: Sequence[tuple[int, int]], others_px: FloatArray) -> FloatArray:
    """Return the line of a row (n,) in pixels, its tips fitted, beside its spikes: column and sign of each."""
    return with_tips(replace(strip, y_px=without_spikes(strip, spikes)), _beside(spikes, strip.there), others_px)


def _strip(sheet: Sheet, x_mm: Float64, row: FloatArray, there: Flags) -> Strip | None:
    """Cut a row's strip out of the page, tall enough for its thin strokes."""
    found, seen = None, np.empty((0, len(x_mm), 3), np.uint8)
    for margin_mm in _MARGINS_MM:
        top_mm = float(row[there].min()) - margin_mm
        lines_mm = np.arange(top_mm, float(row[there].max()) + margin_mm, 1 / PX_PER_MM_Y)
        above = (len(lines_mm) - len(seen)) // 2  # what was cut before lies in the middle
        beyond = lines_mm[:above], lines_mm[above + len(seen) :]
        seen = np.concatenate([sheet.pixels(x_mm, beyond[0]), seen, sheet.pixels(x_mm, beyond[1])])
        y_px = np.where(there, (row - top_mm) * np.float32(PX_PER_MM_Y), 0).astype(np.float32)
        ink = ink_strip(seen, y_px, there)
        if ink is None:
            return None
        strokes = strokes_of(ink)
        whole = [one for one in strokes if 2 <= one.tip_px < len(ink.ink) - 2]
        found = Strip(ink=ink, top_mm=top_mm, strokes=whole)
        if not any(one.thin for one in strokes if one not in whole):
            break
    return found


def _in_print(boxes: Float64, x_mm: Float64, one: Likely, *, share: float = 0.4) -> bool:
    """Tell whether much of an upright stroke lies in one of the boxes (n, 4)."""
    upper, lower = min(one.foot_mm, one.tip_mm), max(one.foot_mm, one.tip_mm)
    inside = np.minimum(boxes[:, 3], lower) - np.maximum(boxes[:, 1], upper)
    at = x_mm[one.column]
    return bool(((boxes[:, 0] <= at) & (at <= boxes[:, 2]) & (inside > share * (lower - upper))).any())


def _behind(boxes: Float64, x_mm: Float64, y_mm: FloatArray) -> Flags:
    """Mark the columns (n,) where a row's line runs through print: boxes (m, 4)."""
    x0, y0, x1, y1 = boxes.T[..., None]
    return np.asarray(((x0 <= x_mm) & (x_mm <= x1) & (y0 <= y_mm) & (y_mm <= y1)).any(0))


def _beside(spikes: Sequence[tuple[int, int]], there: Flags, *, reach_mm: float = 0.6) -> Flags:
    """Mark the columns (n,) where a spike stands: what ink goes on there is the spike's."""
    near = np.zeros_like(there)
    for column, _ in spikes:
        reach = round(reach_mm * PX_PER_MM_X)
        near[max(column - reach, 0) : column + reach + 1] = True
    return near
