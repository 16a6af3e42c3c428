"""Steep stretches of a row's line, fitted to their ink.

The trace network's line is the mean of what may be, and a mean rounds off: tips are read too low, and what goes up and
down within a millimetre too flat.  The ink says where the line ran.  A steep stretch is drawn with the row's own pen
and compared with the page: every edge of the drawing is the edge of the pen at one point of the line, so the ink that
is missing there, or is too much, says how far to move this point.  This is done a few times (analysis by synthesis).

Edges within reach of another row's line say nothing, and a drawing that does not become more like the page is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt
from scipy.linalg import solveh_banded
from scipy.ndimage import binary_dilation, binary_erosion, maximum_filter1d, minimum_filter1d, uniform_filter1d
from scipy.signal import find_peaks
from scipy.special import erfinv

from pipeline.datatypes import FloatArray
from pipeline.rows.pen import PX_PER_MM_X, PX_PER_MM_Y, Flags, InkStrip, Pen
from pipeline.runs import runs_of

Float64 = npt.NDArray[np.float64]

_FINE = 3  # points of the line for every column
_BESIDE = 10  # columns on each side of a steep stretch, which stay where they are
_ROUNDS = 8
_MOST = 0.35  # of a wave's height that a point may move
_PEN_PX = 10  # beside a line, where its own ink is


def with_steep(
    row: InkStrip,
    others_px: FloatArray,
    *,
    steep_mm: float = 0.8,
    least_mm: float = 1.5,
    trembling: float = 0.55,
    longest: int = 400,
) -> FloatArray:
    """Return a row's line (n,) in pixels, fitted to its ink where it is steep.

    Parameters
    ----------
    row : InkStrip
    others_px : (n_others, n) float32
        The lines of the page's other rows, in pixels of this strip; NaN = none.
    steep_mm : float
        A stretch is steep if the line rises or falls by so much within 0.6 mm.
    least_mm : float
        Height of a stretch that is fitted.
    trembling : float
        Turns of half a millimetre for every mm from which on a row is left as it was read: noise hides its pen.
    longest : int
        Columns that are fitted together, at most.
    """
    line = row.y_px.astype(np.float64)
    known = row.there
    near = 2 * round(0.3 * PX_PER_MM_X) + 1
    steep = maximum_filter1d(line, near) - minimum_filter1d(line, near) > steep_mm * PX_PER_MM_Y
    steep = binary_dilation(steep, np.ones(near + 8, bool)) & known
    moved = row.y_px.copy()
    pen = _measured(row, known)
    turns = find_peaks(-line, prominence=0.5 * PX_PER_MM_Y)[0].size / max(known.sum() / PX_PER_MM_X, 1)
    if pen is None or turns > trembling:
        return moved
    patches = []
    for start, stop in runs_of(steep):
        edges = np.linspace(start, stop, max(1, round((stop - start) / longest)) + 1).astype(int).tolist()
        for first, last in pairwise(edges):
            part = slice(first - _BESIDE, last + _BESIDE)
            inside = part.start >= 0 and part.stop <= len(line) and known[part].all()
            if inside and np.ptp(line[first:last]) >= least_mm * PX_PER_MM_Y:
                patches.append(_patch(row, part, others_px, pen.darkness))
    pen = _likeliest(pen, patches)
    for patch in patches:
        moved[patch.part.start + _BESIDE : patch.part.stop - _BESIDE] = _fitted(patch, pen)
    return moved


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Patch:
    """A steep stretch of a row with `_BESIDE` columns on each side."""

    part: slice  # columns of the strip
    top: int  # its first row in the strip
    seen: FloatArray  # (h, n) 1 = covered by the pen
    read_px: Float64  # (n,) the line, from `top`
    others_px: FloatArray  # (n_others, n) the lines of other rows, from `top`


def _patch(row: InkStrip, part: slice, others_px: FloatArray, darkness: float) -> _Patch:
    read = row.y_px[part].astype(np.float64)
    margin = 2 * PX_PER_MM_Y + _MOST * np.ptp(read)
    top, bottom = int(max(read.min() - margin, 0)), int(min(read.max() + margin + 1, len(row.ink)))
    seen = _cover(row, part, top, bottom, darkness)
    return _Patch(part=part, top=top, seen=seen, read_px=read - top, others_px=others_px[:, part] - np.float32(top))


def _likeliest(pen: Pen, patches: Sequence[_Patch], *, most: int = 4) -> Pen:
    """Return the pen that draws the tallest patches most like they are: paler and wider, or sharper, with as much ink.

    Its darkness is that of the patches.
    """
    tallest = sorted(patches, key=lambda patch: -float(np.ptp(patch.read_px)))[:most]
    found, least = replace(pen, darkness=1.0), np.inf
    for darker in (1.0, 0.9, 0.8):
        for softer in (1.0, 0.7):
            other = Pen(width_mm=pen.width_mm / darker, blur_mm=pen.blur_mm * softer, darkness=darker)
            unlike = 0.0
            for patch in tallest:
                edges = _edges(patch.read_px, other)
                seen = patch.seen / np.float32(darker)
                unlike += _unlike(edges, seen, seen - _drawn(edges, len(seen), other))
            if unlike < least:
                found, least = other, unlike
    return found


def _measured(row: InkStrip, known: Flags, *, reach: int = 7, least_mm: float = 0.04) -> Pen | None:
    """Measure the pen where its line is thinnest: one that trembles is taller than its pen; None if it is not seen."""
    at = np.flatnonzero(known & (row.y_px > reach + 1) & (row.y_px < len(row.ink) - reach - 2))
    offsets = np.arange(-reach, reach + 1)
    across = row.ink[np.round(row.y_px[at]).astype(np.int64)[:, None] + offsets, at[:, None]].astype(np.float64)
    across = (across - across[:, [0, -1]].min(1, keepdims=True)).clip(0)
    total, peak = across.sum(1), across.max(1)
    seen = peak > 0.6
    if seen.sum() < 10 * PX_PER_MM_X:
        return None
    total, peak, across = total[seen], peak[seen], across[seen]
    thin = total <= np.quantile(total, 0.15)
    centre = across[thin] @ offsets / total[thin]
    variance = float(np.median((across[thin] * (offsets - centre[:, None]) ** 2).sum(1) / total[thin])) / PX_PER_MM_Y**2
    darkness = max(float(np.quantile(peak, 0.75)), float(np.median(peak[thin])))
    width = float(np.median(total[thin])) / PX_PER_MM_Y / darkness
    pale = min(float(np.median(peak[thin])) / darkness, 0.995)
    blur = min(np.sqrt(max(variance - width**2 / 12, 0.0)), width / (2 * np.sqrt(2) * float(erfinv(pale))))
    return Pen(width_mm=width, blur_mm=float(max(blur, least_mm)), darkness=darkness)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Edges:
    """The edges of a line that is drawn with a pen, at `_FINE` points a column."""

    upper: Float64  # (m,) pixels
    lower: Float64  # (m,)
    upper_at: npt.NDArray[np.intp]  # (m,) the column whose point draws it
    lower_at: npt.NDArray[np.intp]  # (m,)


_ROUND = np.linspace(-np.pi / 2, np.pi / 2, 9)  # points of a round pen


def _edges(y_px: Float64, pen: Pen) -> _Edges:
    n = len(y_px)
    at = (np.arange(n * _FINE) + 0.5) / _FINE - 0.5
    places = at + np.sin(_ROUND)[:, None] * (pen.width_mm / 2 * PX_PER_MM_X)
    line = np.interp(places, np.arange(n), y_px)
    round_px = np.cos(_ROUND)[:, None] * (pen.width_mm / 2 * PX_PER_MM_Y)
    above, below = line - round_px, line + round_px
    highest, lowest = above.argmin(0), below.argmax(0)
    points = np.arange(len(at))
    columns = np.round(places).astype(np.intp).clip(0, n - 1)
    return _Edges(
        upper=above[highest, points],
        lower=below[lowest, points],
        upper_at=columns[highest, points],
        lower_at=columns[lowest, points],
    )


def _drawn(edges: _Edges, height: int, pen: Pen) -> FloatArray:
    """Draw what lies between the edges: (height, n), 1 = covered."""
    rows = np.arange(height, dtype=np.float32)[:, None]
    upper, lower = edges.upper.astype(np.float32), edges.lower.astype(np.float32)
    cover = np.minimum(rows + np.float32(0.5), lower) - np.maximum(rows - np.float32(0.5), upper)
    np.clip(cover, 0, 1, out=cover)
    sharp = sum(cover[:, k::_FINE] for k in range(_FINE)) / np.float32(_FINE)
    sigma_x, sigma_y = pen.blur_mm * PX_PER_MM_X, pen.blur_mm * PX_PER_MM_Y
    return np.asarray(cv2.GaussianBlur(sharp, (0, 0), sigma_x, sigmaY=sigma_y, borderType=cv2.BORDER_REPLICATE))


def _fitted(
    patch: _Patch,
    pen: Pen,
    *,
    unlike: float = 0.35,
    better: float = 0.85,
    local: float = 0.85,
    thin_mm: float = 0.45,
    limb: float = 8.0,
) -> Float64:
    """Return the line of a steep stretch in pixels of the strip, without `_BESIDE` columns on each side.

    Parameters
    ----------
    patch : _Patch
    pen : Pen
    unlike, better : float
        The drawing may differ from the page by so much, and by so much of what it differed by at first.
    local : float
        The same within 0.45 mm: other columns stay as they were read.
    thin_mm, limb : float
        Limbs of waves, so many mm/mm steep, stay under a pen that is broader: its edge says less when they were
        drawn than the network.
    """
    seen, read = patch.seen / np.float32(pen.darkness), patch.read_px
    others = _others(patch.others_px, len(seen), pen)
    line = read
    tried: list[tuple[float, Float64, FloatArray]] = []  # how unlike a line's drawing is, the line, and by column
    for _ in range(_ROUNDS):
        edges = _edges(line, pen)
        drawing = np.maximum(_drawn(edges, len(seen), pen), others)
        shade = float(np.clip((seen * drawing).sum() / max(float((drawing**2).sum()), 1e-9), 0.8, 1.1))
        missing = (seen / np.float32(shade) - drawing) * (1 - others)
        error = _unlike(edges, seen, missing)
        tried.append((error, line, (missing**2).sum(0)))
        least = min(one[0] for one in tried)
        steps = _steps(edges, seen, missing, others, line - read, min(1.0, 5 * error))
        if tried[0][0] > 2 * unlike or error > 1.2 * least or np.abs(steps).max() < 0.25:
            break
        line = line + steps
    first, _, before = tried[0]
    least, line, after = min(tried, key=lambda one: one[0])
    moved = line - read
    if least > min(unlike, better * first) or np.abs(moved).max() > _MOST * np.ptp(read):
        moved = np.zeros_like(moved)  # print, or two lines
    clearer = uniform_filter1d(after, 9) < local * uniform_filter1d(before, 9)
    if pen.width_mm + 2 * pen.blur_mm > thin_mm:
        slopes = np.stack([np.gradient(read), np.gradient(line)]) * PX_PER_MM_X / PX_PER_MM_Y
        limbs = (np.abs(slopes).min(0) > limb) & (slopes[0] * slopes[1] > 0)
        clearer &= ~binary_erosion(limbs, np.ones(5, bool))  # their ends belong to the tips
    moved *= uniform_filter1d(clearer.astype(np.float64), 5)
    return np.asarray((read + moved)[_BESIDE:-_BESIDE] + patch.top)


def _unlike(edges: _Edges, seen: FloatArray, missing: FloatArray, *, around_px: float = 5.0) -> float:
    """Return how much of the ink around a line differs from its drawing: 0 = nothing."""
    rows = np.arange(len(seen), dtype=np.float32)[:, None]
    upper, lower = edges.upper.reshape(-1, _FINE).min(1), edges.lower.reshape(-1, _FINE).max(1)
    around = (rows > upper.astype(np.float32) - around_px) & (rows < lower.astype(np.float32) + around_px)
    return float((missing**2 * around).sum() / max(float((seen**2 * around).sum()), 1e-9))


def _cover(
    row: InkStrip, part: slice, top: int, bottom: int, darkness: float, *, beside: int = 160, above: int = 80
) -> FloatArray:
    """Return how far the pixels of a patch are covered by the pen, (bottom - top, n): without the grid's own ink.

    The grid's lines run on beside the patch, above and below it.
    """
    end = min(part.stop + beside, row.ink.shape[1])
    columns = np.r_[max(part.start - beside, 0) : part.start : 4, part.stop : end : 4]
    across = row.ink[top:bottom, columns]
    across = np.where(np.abs(np.arange(top, bottom)[:, None] - row.y_px[columns]) < _PEN_PX, np.nan, across)
    sides = [row.ink[max(top - above, 0) : top : 2, part], row.ink[bottom : bottom + above : 2, part]]
    upright = np.minimum(*(np.median(side, 0) if len(side) > 20 else np.zeros(side.shape[1]) for side in sides))
    level = np.nan_to_num(_median(across))
    grid = np.maximum(level[:, None], upright).clip(0, 0.7 * darkness)
    return np.asarray(((row.ink[top:bottom, part] - grid) / (darkness - grid)).clip(-1, 1), np.float32)


def _median(values: FloatArray) -> FloatArray:
    """Return the median of every row of (h, n) over what is not NaN; NaN where there is nothing."""
    if not values.shape[1]:
        return np.full(len(values), np.nan, np.float32)
    kept = np.isfinite(values).sum(1)
    ordered = np.sort(values, axis=1)  # NaN last
    return np.asarray(np.take_along_axis(ordered, np.maximum(kept - 1, 0)[:, None] // 2, 1)[:, 0])


def _others(lines_px: FloatArray, height: int, pen: Pen) -> FloatArray:
    """Draw the lines of other rows, (height, n)."""
    cover = np.zeros((height, lines_px.shape[1]), np.float32)
    for y_px in lines_px:
        there = np.isfinite(y_px)
        if there.any() and np.nanmax(y_px) > -PX_PER_MM_Y and np.nanmin(y_px) < height + PX_PER_MM_Y:
            at = np.arange(len(y_px))
            filled = np.interp(at, at[there], y_px[there]).astype(np.float64)
            cover = np.maximum(cover, _drawn(_edges(filled, pen), height, pen))
    return cover


def _steps(
    edges: _Edges,
    seen: FloatArray,
    missing: FloatArray,
    others: FloatArray,
    moved_px: Float64,
    doubt: float,
    *,
    reach: int = 12,
    stiff: float = 0.25,
    smooth: float = 0.5,
) -> Float64:
    """Return how far to move the points of a line (n,), in pixels.

    Parameters
    ----------
    edges : _Edges
    seen, missing, others : (h, n) float32
        Ink of the page, what of it the drawing lacks, and ink of other rows.
    moved_px : (n,) float64
        How far the points were moved already.
    doubt : float
        In [0, 1]: the worse the drawing fits, the less do steep edges say, which err most.
    reach : int
        Pixels on each side of an edge.
    stiff, smooth : float
        Price of bends in this step, and in all that was moved.
    """
    height, n = seen.shape
    columns, offsets = np.arange(n)[:, None], np.arange(-reach, reach + 1)
    upper, lower = (edge.reshape(n, _FINE).mean(1) for edge in (edges.upper, edges.lower))
    middle = ((upper + lower) / 2)[:, None]
    votes, trusts = [], []
    for edge, sign in ((upper, -1), (lower, 1)):
        rows = np.round(edge).astype(np.int64)[:, None] + sign * offsets  # from within outwards
        inside = (rows >= 0) & (rows < height)
        rows = rows.clip(0, height - 1)
        ends = (offsets > 2) & (seen[rows, columns] < 0.2)  # paper: what follows is another line's
        own = inside & ~np.logical_or.accumulate(ends, axis=1)
        half = np.clip(0.5 + sign * (rows - middle), 0, 1) * own
        votes.append((missing[rows, columns] * half).sum(1))
        trusts.append(1.0 * (others[rows, columns].max(1) < 0.1))
    alone = np.minimum(*votes) < 0.5 * reach  # not where ink runs on up and down
    longer = [np.sqrt(1 + (np.gradient(edge) * PX_PER_MM_X / PX_PER_MM_Y) ** 2) for edge in (upper, lower)]
    wider = float(np.median([vote / long for vote, long in zip(votes, longer, strict=True)]))  # the pen than drawn
    votes = [vote - wider * long for vote, long in zip(votes, longer, strict=True)]
    weight, pull = np.full(n, 0.05), -smooth * np.convolve(moved_px, [1, -4, 6, -4, 1], "same")
    for vote, trust, edge, at, sign in (
        (votes[0], trusts[0], edges.upper, edges.upper_at, -1),
        (votes[1], trusts[1], edges.lower, edges.lower_at, 1),
    ):
        slope = doubt * np.gradient(edge) * _FINE * PX_PER_MM_X / PX_PER_MM_Y
        share = np.repeat(trust * alone, _FINE) / np.sqrt(1 + slope**2) / _FINE
        weight += np.bincount(at, share, minlength=n)
        pull += np.bincount(at, share * np.repeat(sign * vote, _FINE), minlength=n)
    weight[:_BESIDE] = weight[-_BESIDE:] = 1e3
    pull[:_BESIDE] = pull[-_BESIDE:] = 0
    bands = np.empty((3, n))  # weight + bends squared, above the diagonal and on it
    bands[0], bands[1], bands[2] = stiff + smooth, -4 * (stiff + smooth), weight + 6 * (stiff + smooth)
    return np.asarray(solveh_banded(bands, pull).clip(-reach, reach))
