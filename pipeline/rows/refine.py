"""Traced rows -> the same rows, fitted to the page's own ink: tips of sharp waves, and pacing spikes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from pipeline.datatypes import FloatArray, LayoutMatch, PulseBox, SpikeMark, TextLine, TraceSet
from pipeline.rows.pen import PX_PER_MM_X, PX_PER_MM_Y, Flags, Float64, InkStrip, ink_strip
from pipeline.rows.spikes import Spike, level_of, spikes_of, without_spikes
from pipeline.rows.steep import with_steep
from pipeline.rows.tips import with_tips
from pipeline.sheet.paper import Sheet, print_boxes
from pipeline.threads import side_by_side

_MARGINS_MM = (12.0, 36.0)  # paper above and below a row's waves; the second where ink runs on beyond the first
_RETURNS_MM, _STEPS_PER_MM = 20, 10  # on both sides of a stroke, for lines of the grid


def fit_ink(
    traces: TraceSet,
    sheet: Sheet,
    match: LayoutMatch,
    pulses: Sequence[PulseBox],
    text: Sequence[TextLine],
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
        Calibration pulses and print: a stroke that lies in one of them is no spike.
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
    level_mm = _levels(row_mm)
    strips: dict[int, tuple[InkStrip, float]] = {}
    strokes: list[_Stroke] = []
    printed = []
    for k, row in enumerate(row_mm):
        there = np.isfinite(row) & clear
        for line in traces.lines:
            if line.row == k:
                there[line.first : line.stop] = False
        printed.append(there)
    rows = list(zip(row_mm, printed, strict=True))
    for k, found in enumerate(side_by_side(lambda row: _strip(sheet, x_mm, *row) if row[1].any() else None, rows)):
        if found is not None:
            strip, top_mm, spikes = found
            strips[k] = strip, top_mm
            strokes += [_on_paper(k, spike, x_mm, top_mm) for spike in spikes]
    strokes = [one for one in strokes if not _is_line(np.delete(level_mm, one.row, 0), one)]
    strokes = [replace(one, seen=_is_trace(sheet, x_mm, one), printed=_in_print(boxes, x_mm, one)) for one in strokes]

    sure = [one for one in _owned([one for one in strokes if one.sure], level_mm) if not _is_grid(sheet, x_mm, one)]
    owned = _of_a_pacemaker(sure)
    hints = _owned(_at_firings([one for one in strokes if not one.sure], owned), level_mm)
    owned += [one for one in hints if one.alone and not _is_grid(sheet, x_mm, one)]
    own = {k: [(one.column, one.sign) for one in owned if one.row == k] for k in strips}

    def line_px(k: int) -> FloatArray:
        strip, top_mm = strips[k]
        others_px = (np.delete(traces.row_mm, k, 0) - np.float32(top_mm)) * np.float32(PX_PER_MM_Y)
        line = _line(strip, own[k], others_px)
        alone = strip.there & ~_beside(own[k], strip.there) & ~_behind(boxes, x_mm, top_mm + line / PX_PER_MM_Y)
        return with_steep(replace(strip, y_px=line, there=alone), others_px)

    lines = side_by_side(line_px, strips)
    for (k, (strip, top_mm)), fitted in zip(strips.items(), lines, strict=True):
        row_mm[k, strip.there] = top_mm + fitted[strip.there] / PX_PER_MM_Y
    left = [] if owned else _several_times([one for one in strokes if one.sure and not _is_grid(sheet, x_mm, one)])
    return replace(traces, row_mm=row_mm, spikes=_marks(owned, x_mm), strokes=_marks(left, x_mm))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stroke:
    """An upright stroke on the paper, as one row sees it."""

    row: int
    column: int
    foot_mm: float
    tip_mm: float
    behind_mm: float  # where its ink ends on the other side of the row's line; `foot_mm` if it does not go on there
    score: float
    sure: bool = True  # seen in its row alone
    seen: bool = False  # the page network takes it for trace
    printed: bool = False  # print is near
    alone: bool = True  # it touches no other row

    @property
    def sign(self) -> int:
        """-1 above the row's line, 1 below it."""
        return -1 if self.tip_mm < self.foot_mm else 1

    @property
    def height_mm(self) -> float:
        """Its length from the row's line."""
        return abs(self.tip_mm - self.foot_mm)

    @property
    def ends_mm(self) -> tuple[float, float]:
        """Paper y of the upper and of the lower end of the ink."""
        return min(self.tip_mm, self.behind_mm), max(self.tip_mm, self.behind_mm)


def _on_paper(row: int, spike: Spike, x_mm: Float64, top_mm: float) -> _Stroke:
    foot, tip, behind = (top_mm + at / PX_PER_MM_Y for at in (spike.foot_px, spike.tip_px, spike.behind_px))
    return _Stroke(
        row=row, column=spike.column, foot_mm=foot, tip_mm=tip, behind_mm=behind, score=spike.score, sure=spike.sure
    )


def _marks(strokes: Sequence[_Stroke], x_mm: Float64) -> tuple[SpikeMark, ...]:
    return tuple(
        SpikeMark(row=one.row, x_mm=float(x_mm[one.column]), tip_mm=one.tip_mm, score=one.score) for one in strokes
    )


def _levels(row_mm: FloatArray) -> FloatArray:
    """Return the rows' lines (n_rows, n) without what stands out of them and is as narrow as a spike."""
    at = np.arange(row_mm.shape[1])
    out = np.full_like(row_mm, np.nan)
    for level, row in zip(out, row_mm, strict=True):
        there = np.isfinite(row)
        if there.any():
            level[there] = level_of(level_of(np.interp(at, at[there], row[there]), -1), 1)[there]
    return out


def _owned(strokes: Sequence[_Stroke], level_mm: FloatArray, *, same: int = 5) -> list[_Stroke]:
    """Say which row each stroke belongs to.

    Rows that are crossed by one stroke all see it.

    Parameters
    ----------
    strokes : sequence of _Stroke
    level_mm : (n_rows, n)
        The rows' lines without spikes.
    same : int
        Columns within which strokes are one.
    """
    left = sorted(strokes, key=lambda one: one.column)
    owned: list[_Stroke] = []
    while left:
        first = left[0]
        group = [
            one
            for one in left
            if one.column - first.column <= same
            and one.ends_mm[0] <= first.ends_mm[1]
            and first.ends_mm[0] <= one.ends_mm[1]
        ]
        left = [one for one in left if one not in group]
        owned += _shared_out(group, level_mm)
    return owned


def _shared_out(
    group: Sequence[_Stroke], level_mm: FloatArray, *, pen_mm: float = 0.6, least_mm: float = 1.5, most_mm: float = 32.0
) -> list[_Stroke]:
    """Share the ink of one upright out among the rows that it touches: one spike each at most, and all of it explained.

    An end that stands out beyond the outermost row belongs to the row farthest away that may reach it.  Ink between two
    rows that no such spike covers is of the one that has none yet; if neither has, each gets half, which is at least
    half of its height.
    """
    top, bottom = min(one.ends_mm[0] for one in group), max(one.ends_mm[1] for one in group)
    column = group[0].column
    near = level_mm[:, max(column - 8, 0) : column + 9]
    levels = [(float(np.nanmedian(row)), k) for k, row in enumerate(near) if np.isfinite(row).any()]
    feet = sorted((foot, k) for foot, k in levels if top - pen_mm <= foot <= bottom + pen_mm)
    if not feet:
        return []
    up, down = feet[0][0] - top >= least_mm, bottom - feet[-1][0] >= least_mm
    tips: dict[int, float] = {}  # by the row's place among `feet`
    for stands_out, tip, order in ((up, top, reversed(range(len(feet)))), (down, bottom, iter(range(len(feet))))):
        reach = [k for k in order if k not in tips and abs(tip - feet[k][0]) <= most_mm]
        if stands_out and not reach:
            return []
        if stands_out:
            tips[reach[0]] = tip
    for k, ((upper, _), (lower, _)) in enumerate(pairwise(feet)):
        spans = [(min(feet[of][0], tip), max(feet[of][0], tip)) for of, tip in tips.items()]
        if any(start <= upper + pen_mm and lower - pen_mm <= end for start, end in spans):
            continue
        takers = [of for of in (k, k + 1) if of not in tips]
        middle = (upper + lower) / 2
        for of in takers:
            tips[of] = middle if len(takers) == 2 else (lower if of == k else upper)
        if not takers:
            return []
    strongest = max(group, key=lambda one: one.score)
    alone = len(feet) == 1
    return [
        _Stroke(
            row=row,
            column=next((one.column for one in group if one.row == row), column),
            foot_mm=foot,
            tip_mm=tips[k],
            behind_mm=foot,
            score=strongest.score if alone else 0.6 * strongest.score,
            seen=any(one.seen for one in group),
            printed=any(one.printed for one in group),
            alone=alone,
        )
        for k, (foot, row) in enumerate(feet)
        if k in tips and abs(tips[k] - foot) <= most_mm
    ]


def _of_a_pacemaker(strokes: Sequence[_Stroke], *, fewest: int = 4) -> list[_Stroke]:
    """Keep the strokes that are a pacemaker's: a page is paced if nothing speaks against some, or if many are alike.

    Those that stand in several rows at once, several times, are alike as well.  A stroke that lies in print or that the
    page network does not take for trace is kept if others are like it.

    Parameters
    ----------
    strokes : sequence of _Stroke
    fewest : int
        Strokes that make a page a paced one; fewer are left to the audit.
    """
    at_once = _at_one_time([one for one in strokes if not one.printed])
    if sum(_rows(group) >= 2 for group in at_once) < 2 and len(at_once) < fewest:  # edges of pulses stand at one time
        return []
    plain = [one for one in strokes if one.alone and not one.printed]
    together = sum(_rows(group) >= 2 for group in _at_one_time(plain))  # a QRS complex that crosses rows is one stroke
    sure = sum(one.seen for one in plain)
    alike = sum(_alike(one, plain) >= 2 for one in plain)
    if sure < fewest and together < fewest and (alike < 2 * fewest or 4 * alike < len(strokes)):
        return []
    return [one for one in strokes if _is_spike(one, [other for other in strokes if not other.printed])]


def _at_firings(hints: Sequence[_Stroke], spikes: Sequence[_Stroke]) -> list[_Stroke]:
    """Keep the strokes, none of them in print, that other rows have spikes beside: a pacemaker's stand at one time."""
    kept = []
    for one in hints:
        columns = [other.column for other in spikes if _at_once(one, other)]
        if columns and not one.printed and not any(_same_place(one, other) for other in spikes):
            kept.append(replace(one, column=round(float(np.median(columns)))))
    return kept


def _same_place(one: _Stroke, other: _Stroke, *, same: int = 24) -> bool:
    """Tell whether a row's two strokes are at one time."""
    return one.row == other.row and abs(one.column - other.column) <= same


def _at_one_time(strokes: Sequence[_Stroke], *, same: int = 5) -> list[list[_Stroke]]:
    """Put together the strokes that stand at one time."""
    left = sorted(strokes, key=lambda one: one.column)
    groups = []
    while left:
        groups.append([one for one in left if one.column - left[0].column <= same])
        left = left[len(groups[-1]) :]
    return groups


def _rows(strokes: Sequence[_Stroke]) -> int:
    return len({one.row for one in strokes})


def _several_times(strokes: Sequence[_Stroke], *, fewest: int = 4) -> list[_Stroke]:
    """Keep the strokes that stand in several rows at once, if they do at `fewest` times: waves and grids do not."""
    groups = [group for group in _at_one_time([one for one in strokes if not one.printed]) if _rows(group) >= 2]
    return [one for group in groups for one in group] if len(groups) >= fewest else []


def _is_spike(one: _Stroke, plain: Sequence[_Stroke]) -> bool:
    """Tell whether a stroke of a paced page is a spike; in print it is one only if another row has one at its time."""
    if one.printed:
        return any(_at_once(one, other) for other in plain)
    return one.seen or _alike(one, plain) >= 1


def _at_once(one: _Stroke, other: _Stroke, *, same: int = 5) -> bool:
    """Tell whether two rows have a stroke at the same paper x."""
    return other.row != one.row and abs(other.column - one.column) <= same


def _alike(one: _Stroke, strokes: Sequence[_Stroke], *, ratio: float = 0.65) -> int:
    """Count the strokes like one: at its time in other rows, or as tall in its own."""
    count = 0
    for other in strokes:
        if other.row == one.row and other.sign == one.sign and other is not one:
            count += ratio * other.height_mm <= one.height_mm <= other.height_mm / ratio
        else:
            count += _at_once(one, other)
    return count


def _line(strip: InkStrip, spikes: Sequence[tuple[int, int]], others_px: FloatArray) -> FloatArray:
    """Return the line of a row (n,) in pixels, its tips fitted, beside its spikes: column and sign of each."""
    return with_tips(replace(strip, y_px=without_spikes(strip, spikes)), _beside(spikes, strip.there), others_px)


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
        found = strip, top_mm, [spike for spike in spikes if not spike.cut]
        if not any(spike.sure and spike.cut for spike in spikes):
            break
    return found


def _is_trace(sheet: Sheet, x_mm: Float64, one: _Stroke) -> bool:
    """Tell whether the page network takes a stroke neither for print nor for grid."""
    y_mm = np.linspace(one.foot_mm, one.tip_mm, 12)[3:]
    text, trace, grid = np.median(sheet.ink(x_mm[one.column - 2 : one.column + 3], y_mm).max(1), 0)
    return bool(text < 0.3 * 255 and trace > grid)


def _is_grid(
    sheet: Sheet,
    x_mm: Float64,
    one: _Stroke,
    *,
    beyond_mm: float = 8.0,
    as_dark: float = 0.75,
    share: float = 0.4,
    beside: float = 0.5,
) -> bool:
    """Tell whether a stroke is a heavy line of the grid: the page is about as dark every 5 mm on both sides of it.

    Lines may be dashed, so they are looked at `beyond_mm` further than the stroke, and need be dark on a `share` only,
    or on a share of what is `beside` the stroke.
    """
    upper, lower = min(one.foot_mm, one.tip_mm), max(one.foot_mm, one.tip_mm)
    y_mm = np.arange(upper - beyond_mm, lower + beyond_mm, 0.25)
    steps = np.arange(-_RETURNS_MM * _STEPS_PER_MM - 2, _RETURNS_MM * _STEPS_PER_MM + 3)
    dark = 255.0 - sheet.pixels(x_mm[one.column] + steps / _STEPS_PER_MM, y_mm).min(2)
    dark -= np.median(dark)
    lines = [dark[:, np.abs(steps - _STEPS_PER_MM * mm) <= 2].max(1) for mm in range(-_RETURNS_MM, _RETURNS_MM + 1, 5)]
    middle = len(lines) // 2
    own = float(np.median(lines[middle][(y_mm >= upper) & (y_mm <= lower)]))
    lined = np.delete(lines, middle, axis=0) >= as_dark * own
    return bool(lined.mean() >= share or lined[:, (y_mm >= upper) & (y_mm <= lower)].mean() >= beside)


def _is_line(others_mm: FloatArray, one: _Stroke, *, pen_mm: float = 0.5, share: float = 0.3) -> bool:
    """Tell whether a stroke is another row's line: one of (n_rows, n) runs along much of it."""
    upper, lower = min(one.foot_mm, one.tip_mm), max(one.foot_mm, one.tip_mm)
    for other in others_mm[:, max(one.column - 6, 0) : one.column + 7]:
        if np.isfinite(other).any():
            first, last = float(np.nanmin(other)) - pen_mm, float(np.nanmax(other)) + pen_mm
            if min(last, lower) - max(first, upper) > share * (lower - upper):
                return True
    return False


def _in_print(boxes: Float64, x_mm: Float64, one: _Stroke, *, share: float = 0.4) -> bool:
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
