"""What strokes of a page are a pacemaker's: it fires in all leads at once, again and again, and hidden spikes follow.

The network's answers for single strokes come in; the page's spikes go out, with those that the pattern of firings
tells where a wave, another row or broken ink hides them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter1d
from scipy.signal import find_peaks

from pipeline.datatypes import LIMB_LEADS, FloatArray, LayoutMatch, Lead
from pipeline.pacing import awaited
from pipeline.rows.pen import PX_PER_MM_X, PX_PER_MM_Y, Flags, Float64, InkStrip
from pipeline.rows.spikes import Stroke, level_of, without_spikes

_APART_MM = 1.2  # no pacemaker fires twice within
_AROUND = 8.75 * PX_PER_MM_X, 1.25 * PX_PER_MM_X  # columns before and after its beat in which a pacemaker fires
_LEAST_SHARED = 2  # firings that several leads show make a pattern
_SAME = 6  # columns within which places are alike
_QRS_MM, _BEATS_MM = 1.25, 6.25  # a QRS complex is as wide; beats are farther apart


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Strip:
    """A row's strip as ink, and the strokes on its line."""

    ink: InkStrip
    top_mm: float  # paper y of its first row
    strokes: list[Stroke]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """One lead's part of a row."""

    row: int
    lead: Lead | None  # None where no lead is
    up: int  # -1 if it is printed upside down
    first: int  # column
    stop: int
    later: int  # columns by which it is printed to the right of what was recorded with it in the first column


def stretches_of(match: LayoutMatch, x_mm: Float64) -> list[Stretch]:
    """List the leads' parts of rows.

    Parameters
    ----------
    match : LayoutMatch
    x_mm : (n,) float64
        Of the strips' columns.
    """
    parts = []
    for lead, row, (start, end) in match.stretches():
        later = 0.0 if match.layout.sequential else start - match.column_mm[0][0]
        inverted = lead in match.layout.inverted and row in match.rows[: len(match.layout.rows)]
        part = Stretch(
            row=row,
            lead=lead,
            up=-1 if inverted else 1,
            first=int(np.searchsorted(x_mm, start)),
            stop=int(np.searchsorted(x_mm, end, "right")),
            later=round(later * PX_PER_MM_X),
        )
        parts.append(part)
    return parts


def stretch_at(stretches: Sequence[Stretch], row: int, column: int) -> Stretch:
    """Return the part of a row that a column lies in, the last if two meet there; an empty one where no lead is.

    Parameters
    ----------
    stretches : sequence of Stretch
    row, column : int
    """
    outside = Stretch(row=row, lead=None, up=1, first=0, stop=0, later=0)
    return next((one for one in reversed(stretches) if one.row == row and one.first <= column < one.stop), outside)


@dataclass(frozen=True, slots=True, kw_only=True)
class Likely:
    """A stroke that the network does not rule out, on the paper."""

    stretch: Stretch
    column: int
    middle: float  # of its ink, in columns
    sign: int  # -1 above the row's line, 1 below it
    foot_mm: float
    tip_mm: float
    logit: float  # that it is a spike of its row, by itself
    chance: float  # the same among all strokes of the page, in [0, 1]
    printed: bool = False  # it lies in print

    @property
    def row(self) -> int:
        """Of the trace set."""
        return self.stretch.row

    @property
    def time(self) -> int:
        """When it was recorded: the column of the page's first that shows this time."""
        return self.column - self.stretch.later

    @property
    def height_mm(self) -> float:
        """From its foot; below the line is positive."""
        return self.tip_mm - self.foot_mm


def of_a_pacemaker(strokes: Sequence[Likely], *, fewest: int = 4) -> list[Likely]:
    """Keep the strokes that are a pacemaker's: the likeliest of each place, if they repeat and are `fewest` or more.

    Others are left to the audit.  In print, only those that other rows have one beside.

    Parameters
    ----------
    strokes : sequence of Likely
    fewest : int
    """
    kept: list[Likely] = []
    for one in sorted(strokes, key=lambda each: -each.chance):
        apart = all(abs(one.column - other.column) > _APART_MM * PX_PER_MM_X for other in kept if other.row == one.row)
        if one.chance >= 0.5 and apart:
            kept.append(one)
    plain = [one for one in kept if not one.printed]
    kept = [one for one in kept if not one.printed or any(_at_once(one, other) for other in plain)]
    kept = [_in_time(one, kept) for one in kept] if len(kept) >= fewest and _repeats(kept) else []
    return sorted(kept, key=lambda one: (one.row, one.column))


def _repeats(spikes: Sequence[Likely], *, ratio: float = 0.65, least_mm: float = 2.5) -> bool:
    """Tell whether spikes stand in several rows at once, twice, or are alike in one row, three times and `least_mm`.

    Notches of waves are alike in one row too, but small.
    """
    shared = {one.time for one in spikes if any(_at_once(one, other) for other in spikes)}
    twice = any(abs(one - other) > _APART_MM * PX_PER_MM_X for one in shared for other in shared)
    tall = [one for one in spikes if abs(one.height_mm) >= least_mm]
    heights = [np.array([each.height_mm / one.height_mm for each in tall if each.row == one.row]) for one in tall]
    return twice or any(((times >= ratio) & (times <= 1 / ratio)).sum() >= 3 for times in heights)


def _in_time(one: Likely, strokes: Sequence[Likely], *, same: int = 6) -> Likely:
    """Put a spike where the strokes of its firing stand in all rows: their middles are surer than its own."""
    near = [other for other in strokes if max(abs(other.column - one.column), abs(other.time - one.time)) <= same]
    middle = float(np.median([other.middle for other in near]))
    return replace(one, column=round(middle), middle=middle)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Firing:
    """What a pacemaker printed at one time."""

    time: float  # in columns; the middle of its strokes
    spikes: dict[Stretch, Likely]


def _firings(spikes: Sequence[Likely], *, same: int = 6) -> list[_Firing]:
    """Put spikes together that were recorded at one time."""
    ordered = sorted((one for one in spikes if one.stretch.stop), key=lambda one: one.time)
    starts = [n for n, one in enumerate(ordered) if not n or one.time - ordered[n - 1].time > same]
    groups = [ordered[start:stop] for start, stop in pairwise([*starts, len(ordered)])]
    return [
        _Firing(
            time=float(np.median([one.middle - one.stretch.later for one in group])),
            spikes={one.stretch: one for one in group},
        )
        for group in groups
    ]


def by_pattern(
    spikes: list[Likely], strokes: Sequence[Likely], strips: dict[int, Strip], stretches: Sequence[Stretch]
) -> list[Likely]:
    """Add to a page's spikes what the pattern of its pacemaker says of other strokes and of hidden ones.

    Parameters
    ----------
    spikes, strokes : sequence of Likely
        As `of_a_pacemaker` keeps them, and all.  Nothing is added if one lead alone shows each: waves are alike too.
    strips : dict
        By row.
    stretches : sequence of Stretch
    """
    if sum(len(firing.spikes) > 1 for firing in _firings(spikes)) < _LEAST_SHARED:
        return spikes
    beats = _beats(spikes, strips, stretches)
    seen = _lengthened(_with_awaited(spikes, strokes, beats), strips)
    return _completed(seen, strips, stretches, beats)


def _with_awaited(
    spikes: list[Likely], strokes: Sequence[Likely], beats: npt.NDArray[np.intp], *, near: int = 8, same: int = 3
) -> list[Likely]:
    """Add the strokes that the network by itself takes for spikes where the pacemaker must have fired, unseen so far.

    A stroke must go the way of its lead's other spikes; in print it must be likely among all strokes, too.
    """
    signs = {(one.stretch, one.sign) for one in spikes}
    believed = [
        one
        for one in strokes
        if one.logit > 0 and (not one.printed or one.chance >= 0.5)
        if one.stretch.stop and (one.stretch, -one.sign) not in signs
    ]
    added: list[Likely] = []
    for at in awaited([firing.time for firing in _firings(spikes)], beats, around=_AROUND, same=_SAME):
        close = sorted((one for one in believed if abs(one.time - at) <= near), key=lambda one: -one.logit)
        group = {one.stretch: one for one in reversed(close) if abs(one.time - close[0].time) <= same}
        added += [_in_time(one, list(group.values())) for one in group.values()]
    return sorted([*spikes, *added], key=lambda one: (one.row, one.column))


def _beats(spikes: Sequence[Likely], strips: dict[int, Strip], stretches: Sequence[Stretch]) -> npt.NDArray[np.intp]:
    """Return when the heart beats, in columns, by the lines of all leads without their spikes."""
    bare = {
        k: without_spikes(s.ink, [(one.column, one.sign) for one in spikes if one.row == k]) for k, s in strips.items()
    }
    lines_px, there = [], []
    for part in (each for each in stretches if each.row in strips):
        printed = np.zeros(len(bare[part.row]), bool)
        printed[part.first : part.stop] = strips[part.row].ink.there[part.first : part.stop]
        lines_px.append(np.roll(bare[part.row], -part.later))
        there.append(np.roll(printed, -part.later))
    return beats_of(lines_px, there)


def _likeness(one: _Firing, other: _Firing, *, ratio: float = 0.5) -> float | None:
    """Return how tall a firing's spikes are beside another's; None if they are not of one kind, NaN if nobody knows."""
    times = [own.height_mm / other.spikes[lead].height_mm for lead, own in one.spikes.items() if lead in other.spikes]
    alike = [each for each in times if ratio <= each <= 1 / ratio]
    if 3 * len(alike) < 2 * len(times):
        return None
    return float(np.median(alike)) if alike else float("nan")


def _expected(firing: _Firing, lead: Stretch, others: Sequence[_Firing], *, ratio: float = 0.65) -> float | None:
    """Return the height in mm that a firing has in a lead by what others have there; None if nobody knows."""
    heights = [(_likeness(firing, other), other.spikes[lead].height_mm) for other in others if lead in other.spikes]
    known = [times * height for times, height in heights if times is not None and np.isfinite(times)]
    if known:
        return float(np.median(known))
    all_heights = np.array([height for times, height in heights if times is not None])
    alike = all_heights.size and np.all(all_heights / all_heights[np.abs(all_heights).argmax()] > ratio)
    return float(np.median(all_heights)) if alike else None


def _by_law(
    firing: _Firing, lead: Stretch, firings: Sequence[_Firing], stretches: Sequence[Stretch], *, least_mm: float = 2.0
) -> float | None:
    """Return the height in mm that a firing has in a limb lead by the other limb leads; None if that is not known."""
    if lead.lead is None or any(lead in each.spikes for each in firings):
        return None
    known: dict[Lead, float] = {}
    for part in stretches:
        own = firing.spikes.get(part)
        height_mm = _expected(firing, part, firings) if own is None else own.height_mm
        if part.lead is not None and height_mm is not None:
            known.setdefault(part.lead, -part.up * height_mm)
    height_mm = by_limb_leads(known, lead.lead)
    return None if height_mm is None or abs(height_mm) < least_mm else -lead.up * height_mm


def _lengthened(spikes: list[Likely], strips: dict[int, Strip], *, short: float = 0.65) -> list[Likely]:
    """Make spikes as tall as the pattern has them where their ink is broken and goes on."""
    firings = _firings(spikes)
    longer = {}
    for firing in firings:
        others = [other for other in firings if other is not firing]
        for lead, one in firing.spikes.items():
            beside = {other: each for other, each in firing.spikes.items() if other is not lead}
            height_mm = _expected(replace(firing, spikes=beside), lead, others)
            if height_mm and 0 < one.height_mm / height_mm < short and _goes_on(strips[lead.row], one, height_mm):
                longer[one] = replace(one, tip_mm=one.foot_mm + height_mm)
    return [longer.get(one, one) for one in spikes]


def _dark(strip: Strip, column: int, y_px: Float64, *, ink: float = 0.3) -> Flags:
    """Tell where ink stands in a column and those beside it, at some heights (n,)."""
    rows = np.round(y_px).astype(np.int64).clip(0, len(strip.ink.ink) - 1)
    return np.asarray(strip.ink.ink[rows][:, max(column - 1, 0) : column + 2].mean(1) > ink)


def _goes_on(strip: Strip, one: Likely, height_mm: float) -> bool:
    """Tell whether half of the places between a spike's end and the height it should have are inked, and its tip is."""
    reach_mm = np.linspace(one.height_mm, 0.95 * height_mm, 24)
    dark = _dark(strip, one.column, (one.foot_mm + reach_mm - strip.top_mm) * PX_PER_MM_Y)
    return bool(dark.mean() >= 0.5 and dark[-6:].mean() >= 0.5)


def _completed(
    spikes: list[Likely],
    strips: dict[int, Strip],
    stretches: Sequence[Stretch],
    beats: npt.NDArray[np.intp],
    *,
    near: int = 8,
) -> list[Likely]:
    """Add the spikes that firings lack in leads that have such spikes at other times, where ink stands there.

    A row's own wave, another row or a separator hides a stroke; the pattern then says what its ink is.  A firing seen
    in one lead only must stand where the others await one.
    """
    firings = _firings(spikes)
    added = []
    for firing in firings:
        others = [other.time for other in firings if other is not firing]
        if len(firing.spikes) < 2:
            expected = awaited(others, beats, around=_AROUND, same=_SAME)
            if all(abs(at - firing.time) > near for at in expected):
                continue
        for lead in (each for each in stretches if each.row in strips and each not in firing.spikes):
            strip, middle = strips[lead.row], _middle_in(firing, lead)
            if not lead.first <= round(middle) < lead.stop or not strip.ink.there[round(middle)]:
                continue
            by_law_mm = _by_law(firing, lead, firings, stretches)
            height_mm = _expected(firing, lead, firings) if by_law_mm is None else by_law_mm
            stroke = None if height_mm is None else _hidden(strip, round(middle), height_mm)
            if stroke is not None and by_law_mm is not None:  # its ink may go on into another row's
                stroke = replace(stroke, tip_px=stroke.foot_px + by_law_mm * PX_PER_MM_Y)
            if stroke is not None:
                foot_mm, tip_mm = (strip.top_mm + y_px / PX_PER_MM_Y for y_px in (stroke.foot_px, stroke.tip_px))
                least = min(firing.spikes.values(), key=lambda one: one.chance)
                changed = replace(least, stretch=lead, column=round(middle), middle=middle, sign=stroke.sign)
                added.append(replace(changed, foot_mm=foot_mm, tip_mm=tip_mm))
    return sorted([*spikes, *added], key=lambda one: (one.row, one.column))


def _middle_in(firing: _Firing, lead: Stretch) -> float:
    """Return where a firing stands in a lead: where it stands in the leads above and below, if it was seen there."""
    beside = [one.middle for other, one in firing.spikes.items() if other.later == lead.later]
    return float(np.median(beside)) if beside else firing.time + lead.later


def _hidden(strip: Strip, column: int, height_mm: float, *, near: int = 4) -> Stroke | None:
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
    dark = _dark(strip, column, foot_px + height_px * np.linspace(0.2, 0.9, 29))
    if dark.mean() < 0.5 or dark[len(dark) // 2 :].mean() < 0.8:  # faded ink is missing at the foot
        return None
    return Stroke(column=column, sign=sign, foot_px=foot_px, tip_px=foot_px + height_px)


def _at_once(one: Likely, other: Likely, *, same: int = 5) -> bool:
    """Tell whether two leads have a stroke at the same time."""
    elsewhere = (other.row, other.stretch.later) != (one.row, one.stretch.later)
    return elsewhere and abs(other.time - one.time) <= same


def beats_of(lines_px: Sequence[FloatArray], there: Sequence[Flags]) -> npt.NDArray[np.intp]:
    """Return the columns of the beats: where all rows together are steepest.

    Parameters
    ----------
    lines_px : sequence of (n,) float32
        Of the rows, without their spikes.
    there : sequence of (n,) bool
        Where each is printed.
    """
    steep = np.zeros(len(lines_px[0]))
    for line, printed in zip(lines_px, there, strict=True):
        steep[1:] += np.abs(np.diff(line)) * (printed[1:] & printed[:-1])
    smooth = uniform_filter1d(steep, round(_QRS_MM * PX_PER_MM_X))
    least = 0.35 * float(np.quantile(smooth, 0.99))
    peaks, _ = find_peaks(smooth, height=least, distance=round(_BEATS_MM * PX_PER_MM_X))
    return np.asarray(peaks, np.intp)


def by_limb_leads(heights: Mapping[Lead, float], lead: Lead, *, fewest: int = 3, off: float = 0.15) -> float | None:
    """Return the height that a spike has in a limb lead by those in other limb leads, which are sums of two of them.

    None if it is no limb lead, or the others are fewer than `fewest`, or contradict each other by a share `off` of the
    tallest: a cart that draws spikes itself draws them alike in all leads.

    Parameters
    ----------
    heights : mapping of Lead to float
        Of the spikes that are known, up is positive.
    lead : Lead
    """
    known = [other for other in heights if other in LIMB_LEADS]
    if lead not in LIMB_LEADS or len(known) < fewest:
        return None
    parts, seen = np.array([LIMB_LEADS[other] for other in known]), np.array([heights[other] for other in known])
    both = np.linalg.lstsq(parts, seen, rcond=None)[0]
    if np.abs(parts @ both - seen).max() > off * np.abs(seen).max():
        return None
    return float(np.dot(LIMB_LEADS[lead], both))
