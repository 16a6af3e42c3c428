"""Pacing spikes: thin upright strokes of ink that stand on a row's line; the line may leave them out or follow them.

A spike is ink as wide as the pen, and one or two samples of the record: it is an object with a tip, not a place of the
line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import maximum_filter1d, minimum_filter1d

from pipeline.datatypes import FloatArray
from pipeline.rows.pen import PX_PER_MM_X, PX_PER_MM_Y, InkStrip, Pen
from pipeline.runs import runs_of

_INK = 0.3  # a faint spike of a thin pen is no darker
_GAP = 3  # pixels without ink that end a stroke
_WIDEST_MM = 0.3  # of what the line follows of a spike


@dataclass(frozen=True, slots=True, kw_only=True)
class Spike:
    """A stroke on a row's line; places in pixels from the strip's first row."""

    column: int
    foot_px: float  # of the line, without what it follows of the stroke
    tip_px: float  # the end of the stroke
    behind_px: float  # where its ink ends on the other side of the line; `foot_px` if it does not go on there
    cut: bool  # it reaches the strip's edge
    followed: float  # share of it that the line follows
    score: float  # in [0, 1]
    sure: bool = True  # nothing speaks against it; else it is one only where other rows have one

    @property
    def up(self) -> bool:
        """Whether it stands above the line."""
        return self.tip_px < self.foot_px


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Side:
    """What stands above (-1) or below (1) a row's line, in every column (n,)."""

    sign: int
    level: FloatArray  # the line without what stands out of it, as narrow as a spike
    edge: FloatArray  # where the line's own ink ends
    length: FloatArray  # how far ink goes on from there, in pixels


def spikes_of(row: InkStrip, *, least_mm: float = 2.0) -> list[Spike]:
    """Find the upright strokes of a row that may be pacing spikes, left to right.

    One that is pale, that goes on beyond its ends or that stands on a wave is not sure.

    Parameters
    ----------
    row : InkStrip
    least_mm : float
        Length of the shortest, beyond the line's own ink.
    """
    above, below = _side(row, -1), _side(row, 1)
    found = [
        _spike(row, side, other, run)
        for side, other in ((above, below), (below, above))
        for run in runs_of(side.length >= least_mm * PX_PER_MM_Y)
    ]
    spikes = sorted((spike for spike in found if spike is not None), key=lambda spike: spike.column)
    sure = [one for one in spikes if one.sure]
    sure = [one for one in sure if not any(_are_limbs(one, other) for other in sure)]
    sure = [one for one in sure if not _is_wave(one, [other.followed for other in sure if other.up == one.up])]
    return [one if one in sure else replace(one, sure=False) for one in spikes]


def _is_wave(one: Spike, followed: Sequence[float]) -> bool:
    """Tell whether a stroke is a sharp wave: the line runs along it, and along most strokes of its row or hardly any.

    Parameters
    ----------
    one : Spike
    followed : sequence of float
        Of all strokes of its row on its side.
    """
    usually = float(np.median(followed))
    return usually > 0.7 or (usually < 0.3 and one.followed > 0.75)


def _are_limbs(one: Spike, other: Spike, *, apart_mm: float = 1.2) -> bool:
    """Tell whether two strokes are the limbs of one wave: no pacemaker fires twice within 1.2 mm."""
    return one is not other and one.up == other.up and abs(one.column - other.column) < apart_mm * PX_PER_MM_X


def level_of(y_px: FloatArray, sign: int) -> FloatArray:
    """Return a line (n,) without what stands out of it upwards (-1) or downwards (1) and is as narrow as a spike."""
    size = 2 * round(_WIDEST_MM * PX_PER_MM_X / 2) + 1
    inwards, outwards = (maximum_filter1d, minimum_filter1d) if sign < 0 else (minimum_filter1d, maximum_filter1d)
    return np.asarray(outwards(inwards(y_px, size), size), np.float32)


def _side(row: InkStrip, sign: int) -> _Side:
    """Look at the ink beyond the line's own."""
    level = level_of(row.y_px, sign)
    beside = 2 * round((0.5 * row.pen.width_mm + 2 * row.pen.blur_mm) * PX_PER_MM_X) + 1
    outermost = minimum_filter1d if sign < 0 else maximum_filter1d
    half_px = (0.5 * row.pen.width_mm + row.pen.blur_mm) * PX_PER_MM_Y
    edge = np.asarray(outermost(level, beside) + sign * half_px, np.float32)
    return _Side(sign=sign, level=level, edge=edge, length=_stroke_px(row, edge, sign))


def _stroke_px(row: InkStrip, edge: FloatArray, sign: int, *, block: int = 32) -> FloatArray:
    """Return how far ink goes on beyond the line's own, which ends at `edge`, in every column (n,); 0: it does not."""
    height = len(row.ink)
    start = np.round(edge).astype(np.int64)
    ahead = start if sign > 0 else height - 1 - start  # of the strip's first row, in the direction of the ink
    length = np.minimum(height, height - ahead) - np.maximum(0, -ahead)  # to the strip's edge
    length = np.where(row.there, length.clip(0), 0).astype(np.float32)
    going_on = np.flatnonzero(row.there)
    for first in range(0, height - _GAP, block):  # most columns end in the first block
        starts = np.arange(first, min(first + block, height - _GAP))
        rows = start[going_on] + sign * np.arange(first, starts[-1] + _GAP)[:, None]
        blank = (row.ink[rows.clip(0, height - 1), going_on] < _INK) & (rows >= 0) & (rows < height)
        gone = np.logical_and.reduce([blank[k : k + len(starts)] for k in range(_GAP)])
        ends = gone.any(0)
        length[going_on[ends]] = starts[gone[:, ends].argmax(0)]
        going_on = going_on[~ends]
        if not going_on.size:
            break
    return length


def _widest_mm(pen: Pen) -> float:
    """Return how wide a spike's ink may be."""
    return pen.width_mm + 2.5 * pen.blur_mm + 0.15


def _spike(
    row: InkStrip,
    side: _Side,
    other: _Side,
    run: tuple[int, int],
    *,
    faintest: float = 0.25,
    hint: float = 0.12,
    beside: float = 0.35,
    going_on: float = 0.4,
    wave: float = 0.4,
    moved_mm: float = 0.08,
) -> Spike | None:
    """Judge the stroke in columns `run`: a spike is thin, plain and upright, has an end, and is no tip of a wave.

    Parameters
    ----------
    side, other : _Side
        Where the stroke stands, and behind the line.
    faintest : float
        Ink of the faintest, beyond the paper beside it.
    hint : float
        The same, of one that is not sure.
    beside : float
        Share of its length that the columns beside it may have.
    going_on : float
        Share of its ink that the paper beyond its ends may have, for 1 mm and for the next: a line of the grid goes on,
        another row's spike begins or ends.
    wave : float
        Lengths that the line may come out beneath the stroke.
    moved_mm : float
        How far its edge may move from end to foot, on the side where it moves less: a wave's tip grows on both sides,
        its limb leans.
    """
    (start, stop), length, sign = run, side.length, side.sign
    tallest = float(length[start:stop].max())
    tall = start + np.flatnonzero(length[start:stop] >= 0.7 * tallest)
    column = round(float(tall.mean()))
    widest = _widest_mm(row.pen) * PX_PER_MM_X
    off = round(0.5 * widest + 0.2 * PX_PER_MM_X)
    if not off + 2 <= column < len(length) - off - 2 or (length[start:stop] > 0.25 * tallest).sum() > widest:
        return None
    if any(part.min() > beside * tallest for part in (length[column - off - 2 :][:3], length[column + off :][:3])):
        return None
    sure = _wave_px(side.level, column, sign) <= wave * tallest
    foot, behind = float(side.edge[column]), float(other.edge[column])
    on = float(other.length[tall].max())
    level, end = float(side.level[column]), foot + sign * tallest
    ends = (end, behind - sign * on)
    cut = not all(2 <= at < len(row.ink) - 2 for at in ends)
    if not cut:
        stroke, noise = _contrast(row, column, off, foot, end)
        plain = float(np.quantile(stroke, 0.25))
        pairs = zip(ends, (sign, -sign), strict=True)
        beyond = [_contrast(row, column, off, at + 3 * to, at + 19 * to)[0] for at, to in pairs]
        most = max(min(float(np.median(half)) for half in np.array_split(part, 2) if half.size) for part in beyond)
        if plain < hint:
            return None
        sure &= plain >= max(faintest, min(4 * noise, 0.6)) and most <= going_on * plain
        if _moved_mm(row, column, foot, end) > moved_mm:
            return None
    return Spike(
        column=column,
        foot_px=level,
        tip_px=end - sign * 0.5 * row.pen.width_mm * PX_PER_MM_Y,
        behind_px=ends[1] if on > max(beside * tallest, 6) else level,
        cut=cut,
        followed=float((sign * (row.y_px - side.level))[column - 3 : column + 4].max()) / tallest,
        score=0.0 if cut else float(np.clip(plain, 0.3, 0.9)),
        sure=sure,
    )


def _moved_mm(row: InkStrip, column: int, foot_px: float, end_px: float, *, reach_mm: float = 0.35) -> float:
    """Return how far a stroke's edge moves between its foot and its end, on the side where it moves less."""
    rows = np.round(np.linspace(foot_px, end_px, max(int(abs(end_px - foot_px)), 6) + 1)[1:-1]).astype(np.int64)
    reach = round((0.5 * row.pen.width_mm + 2 * row.pen.blur_mm + reach_mm) * PX_PER_MM_X)
    columns = np.clip(column + np.arange(-reach - 6, reach + 7), 0, row.ink.shape[1] - 1)
    part = row.ink[rows.clip(0, len(row.ink) - 1)][:, columns]
    halves = (part[:, : reach + 6], part[:, : -(reach + 7) : -1])  # each with its own paper first
    third = max(len(rows) // 3, 2)
    grown = []
    for half in halves:
        own = (half - np.median(half[:, :6], 1)[:, None]).clip(0)[:, 6:].sum(1)
        grown.append(float(np.median(own[:third]) - np.median(own[-third:])))
    middle = part[:, reach + 6] - np.median(np.concatenate([part[:, :6], part[:, -6:]], 1), 1)
    return min(map(abs, grown)) / max(float(np.median(middle)), 0.1) / PX_PER_MM_X


def _wave_px(y_px: FloatArray, column: int, sign: int, *, reach_mm: float = 1.2) -> float:
    """Return how far the line itself comes out towards a stroke's end, near its column."""
    reach = round(reach_mm * PX_PER_MM_X)
    first = max(column - reach, 0)
    out = sign * y_px[first : column + reach + 1]
    at = column - first
    return float(out[max(at - 4, 0) : at + 5].max() - max(out[: at + 1].min(), out[at:].min()))


def _contrast(row: InkStrip, column: int, side: int, from_px: float, to_px: float) -> tuple[FloatArray, float]:
    """Return how much darker than the paper beside it a column is, row by row, and how uneven that paper is."""
    rows = np.round(np.linspace(from_px, to_px, max(int(abs(to_px - from_px)), 2) + 1)[1:-1]).astype(np.int64)
    rows = rows[(rows >= 0) & (rows < len(row.ink))]
    if not rows.size:
        return np.zeros(1, np.float32), 0.0
    columns = np.concatenate([np.arange(column - side - 12, column - side + 1), np.arange(side, side + 13) + column])
    beside = row.ink[rows][:, columns.clip(0, row.ink.shape[1] - 1)]
    paper = np.median(beside, 1)
    uneven = float(np.median(np.abs(beside - paper[:, None])))
    return row.ink[rows, column - 1 : column + 2].max(1) - paper, 1.5 * uneven


def without_spikes(row: InkStrip, spikes: Sequence[tuple[int, int]], *, least_mm: float = 0.2) -> FloatArray:
    """Return the line (n,) in pixels without what it follows of spikes.

    Parameters
    ----------
    row : InkStrip
    spikes : sequence of tuple
        Column and sign: -1 for one that stands above the line.
    least_mm : float
        A line that still comes out towards a spike by this much goes straight on there.
    """
    line = row.y_px.copy()
    reach, side = round(_WIDEST_MM * PX_PER_MM_X), round((0.5 * row.pen.width_mm + 0.2) * PX_PER_MM_X)
    levels = {sign: level_of(line, sign) for sign in {sign for _, sign in spikes}}
    for column, sign in spikes:
        near, part = (slice(column - off, column + off + 1) for off in (max(reach, side), side))
        if near.start < 0 or near.stop > len(line) or not row.there[near].all():
            continue
        line[near] = levels[sign][near]
        out, ends = sign * line[column - 2 : column + 3], sign * line[[part.start, part.stop - 1]]
        if out.max() - ends.max() > least_mm * PX_PER_MM_Y:
            line[part] = np.linspace(line[part.start], line[part.stop - 1], 2 * side + 1)
    return line
