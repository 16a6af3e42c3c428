"""Traced rows -> the same rows, fitted to the page's own ink: tips of sharp waves, and pacing spikes.

The trace network's line is the mean of what may be, and a mean rounds off: the tip of an R wave is read too low.  The
ink says where the tip is.  A wave is drawn with the row's own pen at several heights; the height whose drawing agrees
best with the page is taken (analysis by synthesis).  A tip that ends at another row's line stays as it was read: the
ink there may be either's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.ndimage import maximum_filter1d, minimum_filter1d
from scipy.signal import find_peaks

from pipeline.datatypes import ByteArray, FloatArray, LayoutMatch, PulseBox, SpikeMark, TextLine, TraceSet
from pipeline.networks.inference import Network
from pipeline.rows.firings import Likely, Stretch, Strip, by_pattern, of_a_pacemaker, stretch_at, stretches_of
from pipeline.rows.pen import PX_PER_MM_X, PX_PER_MM_Y, Flags, Float64, InkStrip, drawn, ink_strip
from pipeline.rows.spikes import chances, is_mark, marks_of, middle_of, pictures, strokes_of, without_spikes
from pipeline.rows.steep import with_steep
from pipeline.sheet.paper import Sheet, print_boxes
from pipeline.threads import side_by_side

_MARGINS_MM = (12.0, 36.0)  # paper above and below a row's waves; the second where ink runs on beyond the first
_REACH = round(0.8 * PX_PER_MM_X)  # columns on each side of a tip
_SHIFTS = np.arange(-0.5, 1.51, 0.25) * PX_PER_MM_Y  # a tip may move, outwards


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
    likely = _without_marks(_judged(strips, shown, stretches, network), strips)
    likely = [replace(one, printed=_in_print(boxes, x_mm, one)) for one in likely]
    owned = by_pattern(of_a_pacemaker(likely), likely, strips, stretches)
    own = {k: [(one.column, one.sign) for one in owned if one.row == k] for k in strips}

    def line_px(k: int) -> FloatArray:
        strip, top_mm = strips[k].ink, strips[k].top_mm
        line = _line(strip, own[k], others_px(k), traces.confidence[k])
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


def _without_marks(likely: Sequence[Likely], strips: dict[int, Strip]) -> list[Likely]:
    """Leave out what is no spike, but a mark that the cart printed below the rows."""
    rows = {one.row for one in likely if one.logit > 0 or one.chance >= 0.5}
    marks = {k: marks_of(strips[k].ink) for k in rows}

    def is_no_mark(one: Likely) -> bool:
        strip = strips[one.row]
        foot_px, tip_px = ((y_mm - strip.top_mm) * PX_PER_MM_Y for y_mm in (one.foot_mm, one.tip_mm))
        return one.row not in marks or not is_mark(strip.ink, marks[one.row], foot_px, tip_px)

    return [one for one in likely if is_no_mark(one)]


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


def _line(
    strip: InkStrip, spikes: Sequence[tuple[int, int]], others_px: FloatArray, confidence: FloatArray
) -> FloatArray:
    """Return the line of a row (n,) in pixels, its tips fitted, beside its spikes: column and sign of each."""
    alone = replace(strip, y_px=without_spikes(strip, spikes))
    return with_tips(alone, _beside(spikes, strip.there), others_px, confidence)


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


def with_tips(
    row: InkStrip,
    paced: Flags,
    others_px: FloatArray,
    confidence: FloatArray,
    *,
    least_mm: float = 1.0,
    sure: float = 0.5,
) -> FloatArray:
    """Return a row's line (n,) in pixels, with the tips of its waves where their ink ends.

    Parameters
    ----------
    row : InkStrip
    paced : (n,) bool
        Where a pacing spike stands: no tip is fitted there.
    others_px : (n_others, n) float32
        The lines of the page's other rows, in pixels of this strip; NaN = none.
    confidence : (n,) float32
        Of the line.
    least_mm : float
        Prominence of a wave that is looked at.
    sure : float
        Mean confidence of a tip from which on its ink does not go on beyond all heights that are tried, if another
        row's line is near: that ink is the other's.
    """
    line = np.where(row.there, row.y_px, np.median(row.y_px[row.there]))
    upper = minimum_filter1d(np.nan_to_num(others_px, nan=np.inf), 3, axis=1)  # a line reaches to the columns beside
    lower = maximum_filter1d(np.nan_to_num(others_px, nan=-np.inf), 3, axis=1)
    moved = row.y_px.copy()
    for sign in (-1, 1):
        for tip in find_peaks(sign * line, prominence=least_mm * PX_PER_MM_Y)[0].tolist():
            first, stop = tip - _REACH, tip + _REACH + 1
            inside = first >= 0 and stop <= len(line) and row.there[first:stop].all()
            if not inside or paced[tip]:
                continue
            here, around = (
                [sign * (edge - line[tip]) for edge in (upper[:, part].min(1), lower[:, part].max(1))[::sign]]
                for part in (slice(tip, tip + 1), slice(max(first - _REACH, 0), stop + _REACH))
            )
            if not _meets(*here):
                shift = _shift(row, first, sign)
                longest = np.abs(shift).max() >= _SHIFTS[-1] and _meets(*around, outer_mm=4.0)
                if not (longest and confidence[first:stop][shift != 0].mean() > sure):
                    moved[first:stop] += shift
    return moved


def _meets(least_px: FloatArray, most_px: FloatArray, *, inner_mm: float = 1.5, outer_mm: float = 2.0) -> bool:
    """Tell whether another row's line, which runs from `least_px` to `most_px` outside of a tip, is within reach."""
    return bool(((most_px > -inner_mm * PX_PER_MM_Y) & (least_px < outer_mm * PX_PER_MM_Y)).any())


def _shift(
    row: InkStrip, first: int, sign: int, *, share: float = 0.6, least_px: float = 6.0, unlike: float = 0.3
) -> Float64:
    """Return how far to move the columns of the wave (2 * _REACH + 1,) that begins in column `first`, in pixels.

    The upper `share` of the wave is stretched, the more the nearer to its tip; `sign` is -1 for a wave up.
    """
    stop = first + 2 * _REACH + 1
    y = row.y_px[first:stop].astype(np.float64)
    still = np.zeros_like(y)
    below = sign * (y[_REACH] - y)  # of the tip
    depth = min(below[:_REACH].max(), below[_REACH + 1 :].max())
    if depth < least_px:
        return still
    stretch = np.clip(1 - below / (share * depth), 0, 1) ** 2
    feet = np.flatnonzero(stretch == 0)
    left, right = feet[feet < _REACH].max(initial=-1) + 1, feet[feet > _REACH].min(initial=len(y))
    stretch[:left] = stretch[right:] = 0
    if stretch.mean() > 0.5:
        return still  # a wave this broad is read well
    seen, top = _patch(row, first, sign, y[_REACH], min(share * depth, 3 * PX_PER_MM_Y))
    if seen is None:
        return still
    x = np.arange(len(y), dtype=np.float64)
    near = slice(max(left - 2, 0), right + 2)
    as_drawn = drawn(x, y + sign * _SHIFTS[:, None] * stretch - top, seen.shape, row.pen)
    errors = ((seen - as_drawn)[..., near] ** 2).sum((1, 2)).astype(np.float64)
    if errors.min() > unlike * (seen[:, near] ** 2).sum():
        return still  # print, or two lines
    errors += 0.02 * (row.pen.darkness * _SHIFTS / PX_PER_MM_Y) ** 2
    return np.asarray(sign * _lowest(errors) * stretch)


def _patch(row: InkStrip, first: int, sign: int, tip_px: float, inner_px: float) -> tuple[FloatArray | None, int]:
    """Return the ink around a tip without the lines that run on beside it, and its first row; None at the edge."""
    outside, inside = tip_px + sign * (_SHIFTS[-1] + 4), tip_px - sign * inner_px
    top, bottom = int(np.floor(min(outside, inside))), int(np.ceil(max(outside, inside))) + 1
    if top < 0 or bottom > len(row.ink):
        return None, 0
    stop = first + 2 * _REACH + 1
    part = row.ink[top:bottom]
    beside = np.concatenate([part[:, max(first - 20, 0) : first], part[:, stop : stop + 20]], 1)
    return part[:, first:stop] - np.median(beside, 1)[:, None] if beside.size else part[:, first:stop], top


def _lowest(errors: Float64) -> float:
    """Return the shift of least error, between the shifts tried (a parabola through three)."""
    best = int(errors.argmin())
    if not 0 < best < len(errors) - 1:
        return float(_SHIFTS[best])
    before, here, after = errors[best - 1 : best + 2]
    return float(_SHIFTS[best] + 0.5 * (before - after) / (before - 2 * here + after) * (_SHIFTS[1] - _SHIFTS[0]))
