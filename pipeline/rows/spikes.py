"""Pacing spikes: thin upright strokes of ink that stand on a row's line and that the line leaves out.

A spike is ink as wide as the pen, and one or two samples of the record: it is an object with a tip, not a place of the
line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import maximum_filter1d, minimum_filter1d

from pipeline.datatypes import FloatArray
from pipeline.rows.pen import PX_PER_MM_X, PX_PER_MM_Y, InkStrip, Pen
from pipeline.runs import runs_of

_INK = 0.3  # a faint spike of a thin pen is no darker
_GAP = 3  # pixels without ink that end a stroke


@dataclass(frozen=True, slots=True, kw_only=True)
class Spike:
    """A stroke on a row's line."""

    column: int
    tip_px: float  # its end, in pixels from the strip's first row
    cut: bool  # it reaches the strip's edge
    score: float  # in [0, 1]


def spikes_of(row: InkStrip, *, least_mm: float = 2.0) -> list[Spike]:
    """Find the pacing spikes of a row, left to right.

    Parameters
    ----------
    row : InkStrip
    least_mm : float
        Length of the shortest, beyond the line's own ink.
    """
    edges = {sign: _edge(row, sign) for sign in (-1, 1)}
    lengths = {sign: _stroke_px(row, edge, sign) for sign, edge in edges.items()}
    found = [
        _spike(row, sign, run, edges, lengths)
        for sign, length in lengths.items()
        for run in runs_of(length >= least_mm * PX_PER_MM_Y)
    ]
    return sorted((spike for spike in found if spike is not None), key=lambda spike: spike.column)


def _edge(row: InkStrip, sign: int) -> FloatArray:
    """Return where the line's own ink ends above (-1) or below (1) it, in every column (n,)."""
    beside = 2 * round((0.5 * row.pen.width_mm + 2 * row.pen.blur_mm) * PX_PER_MM_X) + 1
    outermost = minimum_filter1d if sign < 0 else maximum_filter1d
    half_px = (0.5 * row.pen.width_mm + row.pen.blur_mm) * PX_PER_MM_Y
    return np.asarray(outermost(row.y_px, beside) + sign * half_px, np.float32)


def _stroke_px(row: InkStrip, edge: FloatArray, sign: int) -> FloatArray:
    """Return how far ink goes on beyond the line's own, which ends at `edge`, in every column (n,); 0: it does not."""
    height = len(row.ink)
    rows = np.round(edge).astype(np.int64) + sign * np.arange(height)[:, None]
    inside = (rows >= 0) & (rows < height)
    blank = (np.take_along_axis(row.ink, rows.clip(0, height - 1), 0) < _INK) & inside
    gone = blank[: height - _GAP].copy()
    for k in range(1, _GAP):
        gone &= blank[k : height - _GAP + k]
    length = np.where(gone.any(0), gone.argmax(0), inside.sum(0))
    return np.where(row.there, length, 0).astype(np.float32)


def _widest_mm(pen: Pen) -> float:
    """Return how wide a spike's ink may be."""
    return pen.width_mm + 2.5 * pen.blur_mm + 0.15


def _spike(
    row: InkStrip,
    sign: int,
    run: tuple[int, int],
    edges: Mapping[int, FloatArray],
    lengths: Mapping[int, FloatArray],
    *,
    faintest: float = 0.25,
    beside: float = 0.35,
    going_on: float = 0.4,
    wave: float = 2.5,
) -> Spike | None:
    """Judge the stroke in columns `run`: a spike is thin and plain, has one end, and is no tip of a wave.

    Parameters
    ----------
    edges, lengths : mapping
        What `_edge` and `_stroke_px` return for up (-1) and down (1).
    faintest : float
        Ink of the faintest, beyond the paper beside it.
    beside : float
        Share of its length that the columns beside it, and those on the other side of the line, may have.
    going_on : float
        Share of its ink that the paper beyond its end and behind the line may have: a line of the grid goes on there.
    wave : float
        Lengths that the line itself may come out.
    """
    (start, stop), length, opposite = run, lengths[sign], lengths[-sign]
    tallest = float(length[start:stop].max())
    tall = start + np.flatnonzero(length[start:stop] >= 0.7 * tallest)
    column = round(float(tall.mean()))
    widest = _widest_mm(row.pen) * PX_PER_MM_X
    side = round(0.5 * widest + 0.2 * PX_PER_MM_X)
    if not side + 2 <= column < len(length) - side - 2 or (length[start:stop] > 0.25 * tallest).sum() > widest:
        return None
    sides = (length[column - side - 2 : column - side + 1], length[column + side : column + side + 3])
    if any(part.min() > beside * tallest for part in sides):
        return None
    if opposite[tall].max() > max(beside * tallest, 6) or _wave_px(row.y_px, column, sign) > wave * tallest:
        return None
    foot, behind = (float(edges[to][column]) for to in (sign, -sign))
    end = foot + sign * tallest
    if not 2 <= end < len(row.ink) - 2:
        return Spike(column=column, tip_px=end, cut=True, score=0.0)
    stroke, noise = _contrast(row, column, side, foot, end)
    on = [_contrast(row, column, side, at + 3 * to, at + 19 * to)[0] for at, to in ((end, sign), (behind, -sign))]
    plain = float(np.quantile(stroke, 0.25))
    if plain < max(faintest, 4 * noise) or max(float(np.median(part)) for part in on) > going_on * plain:
        return None
    tip = end - sign * 0.5 * row.pen.width_mm * PX_PER_MM_Y
    return Spike(column=column, tip_px=tip, cut=False, score=float(np.clip(plain, 0.3, 0.9)))


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


def without_spikes(row: InkStrip, spikes: Sequence[Spike], *, least_mm: float = 0.2) -> FloatArray:
    """Return the line (n,) in pixels straight on where it bends towards a spike by `least_mm` or more."""
    line = row.y_px.copy()
    side = round((0.5 * row.pen.width_mm + 0.2) * PX_PER_MM_X)
    for spike in spikes:
        part = slice(spike.column - side, spike.column + side + 1)
        if part.start < 0 or part.stop > len(line) or not row.there[part].all():
            continue
        straight = np.linspace(line[part.start], line[part.stop - 1], 2 * side + 1)
        towards = np.sign(spike.tip_px - straight[side]) * (line[part] - straight)
        if towards.max() > least_mm * PX_PER_MM_Y:
            line[part] = straight
    return line
