"""Traced rows -> the same rows, fitted to the page's own ink: tips of sharp waves, and pacing spikes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pipeline.datatypes import ByteArray, FloatArray, LayoutMatch, PulseBox, SpikeMark, TextLine, TraceSet
from pipeline.networks.inference import Network
from pipeline.rows.pacing import awaited, beats_of
from pipeline.rows.pen import PX_PER_MM_X, PX_PER_MM_Y, Flags, Float64, InkStrip, ink_strip
from pipeline.rows.spikes import Stroke, chances, level_of, middle_of, pictures, strokes_of, without_spikes
from pipeline.rows.steep import with_steep
from pipeline.rows.tips import with_tips
from pipeline.sheet.paper import Sheet, print_boxes
from pipeline.threads import side_by_side

_MARGINS_MM = (12.0, 36.0)  # paper above and below a row's waves; the second where ink runs on beyond the first
_APART_MM = 1.2  # no pacemaker fires twice within


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

    likely = _judged(strips, [pictures(strips[k].ink, strips[k].strokes, others_px(k)) for k in strips], network)
    likely = [replace(one, printed=_in_print(boxes, x_mm, one)) for one in likely]
    leads = _leads(match, x_mm)
    owned = _completed(_with_awaited(_of_a_pacemaker(likely), likely, strips, leads), strips, leads)
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


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Strip:
    """A row's strip as ink, and the strokes on its line."""

    ink: InkStrip
    top_mm: float  # paper y of its first row
    strokes: list[Stroke]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Likely:
    """A stroke that the network does not rule out, on the paper."""

    row: int
    column: int
    middle: float  # of its ink, in columns
    sign: int  # -1 above the row's line, 1 below it
    foot_mm: float
    tip_mm: float
    logit: float  # that it is a spike of its row, by itself
    chance: float  # the same among all strokes of the page, in [0, 1]
    printed: bool = False  # it lies in print

    @property
    def height_mm(self) -> float:
        """From its foot; below the line is positive."""
        return self.tip_mm - self.foot_mm


def _judged(strips: dict[int, _Strip], shown: Sequence[ByteArray], network: Network) -> list[_Likely]:
    """Ask the network about all strokes of a page; what it rules out is left away."""
    strokes = [(k, strip, stroke) for k, strip in strips.items() for stroke in strip.strokes]
    if not strokes:
        return []
    (answers,) = network.run(np.concatenate(shown))
    logit, share = answers.numpy().T
    foot, tip = np.array([(one.foot_px, one.tip_px) for _, _, one in strokes]).T / PX_PER_MM_Y
    row, column, sign = np.array([(k, one.column, one.sign) for k, _, one in strokes]).T
    chance = chances(row, column, sign * np.abs(tip - foot), logit)
    return [
        _Likely(
            row=k,
            column=one.column,
            middle=middle_of(strip.ink, one),
            sign=one.sign,
            foot_mm=strip.top_mm + foot[n],
            tip_mm=strip.top_mm + foot[n] + (tip[n] - foot[n]) * _share(float(share[n])),
            logit=float(logit[n]),
            chance=float(chance[n]),
        )
        for n, (k, strip, one) in enumerate(strokes)
        if chance[n] > 0
    ]


def _share(answer: float) -> float:
    """Return the part of a stroke that is the spike; it ends where its ink ends, unless clearly before."""
    return 1.0 if answer > 0.85 else max(answer, 0.3)


def _of_a_pacemaker(strokes: Sequence[_Likely], *, fewest: int = 4) -> list[_Likely]:
    """Keep the strokes that are a pacemaker's: the likeliest of each place, if they repeat and are `fewest` or more.

    Others are left to the audit.  In print, only those that other rows have one beside.
    """
    kept: list[_Likely] = []
    for one in sorted(strokes, key=lambda each: -each.chance):
        apart = all(abs(one.column - other.column) > _APART_MM * PX_PER_MM_X for other in kept if other.row == one.row)
        if one.chance >= 0.5 and apart:
            kept.append(one)
    plain = [one for one in kept if not one.printed]
    kept = [one for one in kept if not one.printed or any(_at_once(one, other) for other in plain)]
    kept = [_in_time(one, kept) for one in kept] if len(kept) >= fewest and _repeats(kept) else []
    return sorted(kept, key=lambda one: (one.row, one.column))


def _repeats(spikes: Sequence[_Likely], *, ratio: float = 0.65, least_mm: float = 2.5) -> bool:
    """Tell whether spikes stand in several rows at once, twice, or are alike in one row, three times and `least_mm`.

    Notches of waves are alike in one row too, but small.
    """
    shared = {one.column for one in spikes if any(_at_once(one, other) for other in spikes)}
    twice = any(abs(one - other) > _APART_MM * PX_PER_MM_X for one in shared for other in shared)
    tall = [one for one in spikes if abs(one.height_mm) >= least_mm]
    heights = [np.array([each.height_mm / one.height_mm for each in tall if each.row == one.row]) for one in tall]
    return twice or any(((times >= ratio) & (times <= 1 / ratio)).sum() >= 3 for times in heights)


def _in_time(one: _Likely, strokes: Sequence[_Likely], *, same: int = 6) -> _Likely:
    """Put a spike where the strokes of its firing stand in all rows: their middles are surer than its own."""
    middle = float(np.median([other.middle for other in strokes if abs(other.column - one.column) <= same]))
    return replace(one, column=round(middle), middle=middle)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Firing:
    """What a pacemaker printed at one time."""

    middle: float  # of its strokes, in columns
    spikes: dict[tuple[int, int], _Likely]  # by row and by the stretch of the row that is one lead

    @property
    def column(self) -> int:
        """The nearest column."""
        return round(self.middle)


def _leads(match: LayoutMatch, x_mm: Float64) -> dict[int, npt.NDArray[np.int64]]:
    """Tell which stretch of its row is one lead, by a number for every column (n,); -1 outside."""
    leads: dict[int, npt.NDArray[np.int64]] = {}
    for n, (_, row, (start, end)) in enumerate(match.stretches()):
        leads.setdefault(row, np.full(len(x_mm), -1))[(x_mm >= start) & (x_mm <= end)] = n
    return leads


def _firings(spikes: Sequence[_Likely], leads: dict[int, npt.NDArray[np.int64]], *, same: int = 6) -> list[_Firing]:
    """Put spikes together that stand at one time."""
    ordered = sorted((one for one in spikes if one.row in leads), key=lambda one: one.column)
    starts = [n for n, one in enumerate(ordered) if not n or one.column - ordered[n - 1].column > same]
    groups = [ordered[start:stop] for start, stop in pairwise([*starts, len(ordered)])]
    return [
        _Firing(
            middle=float(np.median([one.middle for one in group])),
            spikes={(one.row, int(leads[one.row][one.column])): one for one in group},
        )
        for group in groups
    ]


def _with_awaited(
    spikes: list[_Likely],
    strokes: Sequence[_Likely],
    strips: dict[int, _Strip],
    leads: dict[int, npt.NDArray[np.int64]],
    *,
    near: int = 8,
    same: int = 3,
) -> list[_Likely]:
    """Add the strokes that the network by itself takes for spikes where the pacemaker must have fired, unseen so far.

    A stroke must go the way of its lead's other spikes.
    """
    if not spikes:
        return []
    own = {k: [(one.column, one.sign) for one in spikes if one.row == k] for k in strips}
    lines_px = [without_spikes(strip.ink, own[k]) for k, strip in strips.items()]
    beats = beats_of(lines_px, [strip.ink.there for strip in strips.values()])
    signs = {(one.row, int(leads[one.row][one.column]), one.sign) for one in spikes if one.row in leads}
    believed = [
        one
        for one in strokes
        if one.logit > 0
        and not one.printed
        and one.row in leads
        and (one.row, int(leads[one.row][one.column]), -one.sign) not in signs
    ]
    added: list[_Likely] = []
    for at in awaited([firing.middle for firing in _firings(spikes, leads)], beats):
        close = sorted((one for one in believed if abs(one.middle - at) <= near), key=lambda one: -one.logit)
        group = [one for one in close if abs(one.middle - close[0].middle) <= same]
        group = [one for n, one in enumerate(group) if one.row not in {other.row for other in group[:n]}]
        added += [_in_time(one, group) for one in group]
    return sorted([*spikes, *added], key=lambda one: (one.row, one.column))


def _likeness(one: _Firing, other: _Firing, *, ratio: float = 0.5) -> float | None:
    """Return how tall a firing's spikes are beside another's; None if they are not of one kind, NaN if nobody knows."""
    times = [own.height_mm / other.spikes[lead].height_mm for lead, own in one.spikes.items() if lead in other.spikes]
    alike = [each for each in times if ratio <= each <= 1 / ratio]
    if 3 * len(alike) < 2 * len(times):
        return None
    return float(np.median(alike)) if alike else float("nan")


def _expected(
    firing: _Firing, lead: tuple[int, int], others: Sequence[_Firing], *, ratio: float = 0.65
) -> float | None:
    """Return the height in mm that a firing has in a lead by what others have there; None if nobody knows."""
    heights = [(_likeness(firing, other), other.spikes[lead].height_mm) for other in others if lead in other.spikes]
    known = [times * height for times, height in heights if times is not None and np.isfinite(times)]
    if known:
        return float(np.median(known))
    all_heights = np.array([height for times, height in heights if times is not None])
    alike = all_heights.size and np.all(all_heights / all_heights[np.abs(all_heights).argmax()] > ratio)
    return float(np.median(all_heights)) if alike else None


def _completed(
    spikes: list[_Likely], strips: dict[int, _Strip], leads: dict[int, npt.NDArray[np.int64]]
) -> list[_Likely]:
    """Add the spikes that firings lack in leads that have such spikes at other times, where ink stands there.

    A row's own wave, another row or a separator hides a stroke; the pattern then says what its ink is.
    """
    firings = _firings(spikes, leads)
    added = []
    for firing in firings:
        for row in leads.keys() & strips.keys():
            lead = row, int(leads[row][firing.column])
            if lead in firing.spikes or lead[1] < 0 or not strips[row].ink.there[firing.column]:
                continue
            height_mm = _expected(firing, lead, firings)
            stroke = None if height_mm is None else _hidden(strips[row], firing.column, height_mm)
            if stroke is not None:
                foot_mm, tip_mm = (strips[row].top_mm + y_px / PX_PER_MM_Y for y_px in (stroke.foot_px, stroke.tip_px))
                least = min(firing.spikes.values(), key=lambda one: one.chance)
                changed = replace(least, row=row, column=firing.column, middle=firing.middle, sign=stroke.sign)
                added.append(replace(changed, foot_mm=foot_mm, tip_mm=tip_mm))
    return sorted([*spikes, *added], key=lambda one: (one.row, one.column))


def _hidden(strip: _Strip, column: int, height_mm: float, *, ink: float = 0.3, near: int = 4) -> Stroke | None:
    """Return the stroke that stands where a spike is expected, or as much ink as it has; None if that is missing."""
    sign = 1 if height_mm > 0 else -1
    height_px = height_mm * PX_PER_MM_Y
    alike = [
        (abs(float(np.log((one.tip_px - one.foot_px) / height_px))), n)
        for n, one in enumerate(strip.strokes)
        if one.sign == sign and abs(one.column - column) <= near
    ]
    off, nearest = min(alike, default=(np.inf, 0))
    if off <= np.log(1.6):
        return strip.strokes[nearest]
    foot_px = float(level_of(strip.ink.y_px, sign)[column])
    rows = np.round(foot_px + height_px * np.linspace(0.2, 0.9, 29)).astype(np.int64).clip(0, len(strip.ink.ink) - 1)
    dark = strip.ink.ink[rows][:, max(column - 1, 0) : column + 2].mean(1) > ink
    if dark.mean() < 0.5 or dark[len(dark) // 2 :].mean() < 0.8:  # faded ink is missing at the foot
        return None
    return Stroke(column=column, sign=sign, foot_px=foot_px, tip_px=foot_px + height_px)


def _marks(strokes: Sequence[_Likely], x_mm: Float64) -> tuple[SpikeMark, ...]:
    at_mm = np.interp([one.middle for one in strokes], np.arange(len(x_mm)), x_mm).tolist()
    return tuple(
        SpikeMark(row=one.row, x_mm=at, tip_mm=one.tip_mm, score=min(one.chance, 0.9))
        for one, at in zip(strokes, at_mm, strict=True)
    )


def _at_once(one: _Likely, other: _Likely, *, same: int = 5) -> bool:
    """Tell whether two rows have a stroke at the same paper x."""
    return other.row != one.row and abs(other.column - one.column) <= same


def _several_times(strokes: Sequence[_Likely], *, fewest: int = 4, same: int = 5) -> list[_Likely]:
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


def _strip(sheet: Sheet, x_mm: Float64, row: FloatArray, there: Flags) -> _Strip | None:
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
        found = _Strip(ink=ink, top_mm=top_mm, strokes=whole)
        if not any(one.thin for one in strokes if one not in whole):
            break
    return found


def _in_print(boxes: Float64, x_mm: Float64, one: _Likely, *, share: float = 0.4) -> bool:
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
