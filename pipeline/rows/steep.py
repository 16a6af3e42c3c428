"""Steep stretches of a row's line, fitted to their ink.

The trace network's line is the mean of what may be, and a mean rounds off: tips are read too low, and what goes up and
down within a millimetre too flat.  The ink says where the line ran.  A steep stretch is drawn with the row's own pen
and compared with the page: every edge of the drawing is the edge of the pen at one point of the line, so the ink that
is missing there, or is too much, says how far to move this point.  This is done a few times (analysis by synthesis).

This needs a pen that is thinner than a QRS complex is wide.  Under a broad pen, or a blur of three samples, the two
limbs of a wave are one stroke, and what its edges say about them is mostly the error of the pen.  Such rows stay as
they were read.  Edges within reach of another row's line say nothing, a drawing that does not become more like the
page is dropped, and so are columns whose best drawing still differs much from the page: their ink is not of the line
alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt
from scipy.linalg import solveh_banded
from scipy.ndimage import binary_dilation, maximum_filter1d, minimum_filter1d, uniform_filter1d
from scipy.signal import find_peaks
from scipy.special import erfinv

from pipeline.datatypes import FloatArray
from pipeline.rows.pen import PX_PER_MM_X, PX_PER_MM_Y, Flags, InkStrip, Pen
from pipeline.runs import runs_of

Float64 = npt.NDArray[np.float64]

_FINE = 3  # points of the line for every column
_BESIDE = 10  # columns on each side of a steep stretch, which stay where they are
_ROUNDS = 4
_SOFTEST = 0.7  # of a pen's measured blur, which trembling adds to
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
    broad_mm: float = 0.6,
    most_blur_mm: float = 0.15,
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
    broad_mm, most_blur_mm : float
        Rows whose pen is seen broader (its width and twice its blur), or more blurred, are left as they were read.
    """
    line = row.y_px.astype(np.float64)
    known = row.there
    near = 2 * round(0.3 * PX_PER_MM_X) + 1
    steep = maximum_filter1d(line, near) - minimum_filter1d(line, near) > steep_mm * PX_PER_MM_Y
    steep = binary_dilation(steep, np.ones(near, bool)) & known
    moved = row.y_px.copy()
    pen = _measured(row, known)  # its blur is too large by 30 % where lines tremble
    turns = find_peaks(-line, prominence=0.5 * PX_PER_MM_Y)[0].size / max(known.sum() / PX_PER_MM_X, 1)
    if pen is None or turns > trembling or pen.width_mm + 2 * _SOFTEST * pen.blur_mm > broad_mm:
        return moved
    parts = []
    for start, stop in runs_of(steep):
        edges = np.linspace(start, stop, max(1, round((stop - start) / longest)) + 1).astype(int).tolist()
        for first, last in pairwise(edges):
            part = slice(first - _BESIDE, last + _BESIDE)
            inside = part.start >= 0 and part.stop <= len(line) and known[part].all()
            if inside and np.ptp(line[first:last]) >= least_mm * PX_PER_MM_Y:
                parts.append(part)
    if not parts:
        return moved
    parts.sort(key=lambda part: -float(np.ptp(line[part])))
    likeliest = _likeliest(pen, _joined(row, parts[:4], others_px[:0], pen.darkness))
    if likeliest.blur_mm > most_blur_mm or likeliest.width_mm + 2 * likeliest.blur_mm > broad_mm:
        return moved
    for alike in _by_height([float(np.ptp(line[part])) for part in parts]):
        stretches = _joined(row, parts[alike], others_px, pen.darkness)
        fitted = _fitted(stretches, likeliest) + stretches.top
        inner = np.flatnonzero(~stretches.still)
        moved[stretches.columns[inner]] = fitted[inner]
    return moved


def _by_height(heights_px: Sequence[float], *, ratio: float = 0.7) -> list[slice]:
    """Split stretches, the tallest first, where one is much lower than those before: the others are drawn together."""
    found, first = [], 0
    for k, height in enumerate(heights_px):
        if height + 6 * PX_PER_MM_Y < ratio * (heights_px[first] + 6 * PX_PER_MM_Y):
            found.append(slice(first, k))
            first = k
    return [*found, slice(first, len(heights_px))]


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Stretches:
    """Steep stretches of a row, one after the other, each with `_BESIDE` columns on both sides."""

    starts: npt.NDArray[np.intp]  # (k,) the first of each, of n columns
    of: npt.NDArray[np.intp]  # (n,) which stretch a column belongs to
    columns: npt.NDArray[np.intp]  # (n,) of the strip
    still: Flags  # (n,) on both sides of a stretch
    top: npt.NDArray[np.intp]  # (n,) the stretch's first row in the strip
    heights: npt.NDArray[np.intp]  # (n,) its rows
    seen: FloatArray  # (n, h) by column: 1 = covered by the pen
    read_px: Float64  # (n,) the line, from `top`
    others_px: FloatArray  # (n_others, n) the lines of other rows, from `top`

    def sums(self, columns: FloatArray) -> Float64:
        """Add up values of columns (n,) by stretch, (k,)."""
        return np.add.reduceat(columns.astype(np.float64), self.starts)

    def most(self, columns: Float64) -> Float64:
        """Return the largest value of columns (n,) by stretch, (k,)."""
        return np.maximum.reduceat(columns, self.starts)

    def only(self, kept: Flags) -> _Stretches:
        """Keep some of the stretches (k,)."""
        at = kept[self.of]
        of = (np.cumsum(kept) - 1)[self.of[at]]
        return _Stretches(
            starts=np.flatnonzero(np.diff(of, prepend=-1)),
            of=of,
            columns=self.columns[at],
            still=self.still[at],
            top=self.top[at],
            heights=self.heights[at],
            seen=self.seen[at],
            read_px=self.read_px[at],
            others_px=self.others_px[:, at],
        )


def _joined(row: InkStrip, parts: Sequence[slice], others_px: FloatArray, darkness: float) -> _Stretches:
    lengths = [part.stop - part.start for part in parts]
    of = np.repeat(np.arange(len(parts)), lengths)
    columns = np.concatenate([np.arange(part.start, part.stop) for part in parts])
    spans = []
    for part in parts:
        read = row.y_px[part]
        margin = 2 * PX_PER_MM_Y + _MOST * float(np.ptp(read))
        spans.append((int(max(read.min() - margin, 0)), int(min(read.max() + margin + 1, len(row.ink)))))
    top, heights = np.array([first for first, _ in spans])[of], np.array([stop - first for first, stop in spans])[of]
    seen = np.zeros((len(columns), heights.max()), np.float32)
    starts = np.cumsum([0, *lengths[:-1]])
    for part, (first, stop), start in zip(parts, spans, starts.tolist(), strict=True):
        seen[start : start + part.stop - part.start, : stop - first] = _cover(row, part, first, stop, darkness).T
    return _Stretches(
        starts=starts,
        of=of,
        columns=columns,
        still=np.concatenate([np.minimum(np.arange(k), np.arange(k)[::-1]) < _BESIDE for k in lengths]),
        top=top,
        heights=heights,
        seen=seen,
        read_px=row.y_px[columns].astype(np.float64) - top,
        others_px=others_px[:, columns] - top.astype(np.float32),
    )


def _likeliest(pen: Pen, tall: _Stretches) -> Pen:
    """Return the pen that draws tall stretches most like they are: paler and wider, or sharper, with as much ink.

    Its darkness is that of the stretches.
    """
    found, least = replace(pen, darkness=1.0), np.inf
    for darker in (1.0, 0.9, 0.8):
        for softer in (1.0, _SOFTEST):
            other = Pen(width_mm=pen.width_mm / darker, blur_mm=pen.blur_mm * softer, darkness=darker)
            edges = _edges(tall, tall.read_px, other)
            seen = tall.seen / np.float32(darker)
            unlike = float(_unlike(tall, edges, seen, seen - _drawn(tall, edges, other)).sum())
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


def _edges(stretches: _Stretches, y_px: Float64, pen: Pen) -> _Edges:
    n = len(y_px)
    at = (np.arange(n * _FINE) + 0.5) / _FINE - 0.5
    places = at + np.sin(_ROUND)[:, None] * (pen.width_mm / 2 * PX_PER_MM_X)
    ends = np.append(stretches.starts[1:], n) - 1
    places = places.clip(*(np.repeat(end[stretches.of], _FINE) for end in (stretches.starts, ends)))
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


def _drawn(stretches: _Stretches, edges: _Edges, pen: Pen) -> FloatArray:
    """Draw what lies between the edges: (n, h), 1 = covered."""
    n, height = stretches.seen.shape
    first = (np.arange(n * _FINE) // _FINE) * (height + 2)
    places, weights = [], []
    for edge, sign in ((edges.upper, 1), (edges.lower, -1)):
        at = edge.clip(-0.5, height - 0.5) + 0.5
        whole = at.astype(np.intp)
        part = (sign / _FINE) * (whole + 1 - at)  # of the pixel in which the edge lies
        places += [first + whole, first + whole + 1]
        weights += [part, sign / _FINE - part]
    steps = np.bincount(np.concatenate(places), np.concatenate(weights), n * (height + 2))
    sharp = np.cumsum(steps.reshape(n, -1)[:, :height].astype(np.float32), axis=1)
    sigmas = pen.blur_mm * PX_PER_MM_Y, pen.blur_mm * PX_PER_MM_X
    size = [2 * int(np.ceil(3 * sigma)) + 1 for sigma in sigmas]
    soft = np.empty_like(sharp)
    for start, stop in pairwise([*stretches.starts.tolist(), n]):
        soft[start:stop] = cv2.GaussianBlur(
            sharp[start:stop], size, sigmas[0], sigmaY=sigmas[1], borderType=cv2.BORDER_REPLICATE
        )
    return soft


def _fitted(
    stretches: _Stretches,
    pen: Pen,
    *,
    unlike: float = 0.35,
    better: float = 0.85,
    local: float = 0.85,
    soon: float = 0.92,
    unread: float = 0.25,
) -> Float64:
    """Return the line of stretches (n,) in pixels from their tops.

    Parameters
    ----------
    stretches : _Stretches
    pen : Pen
    unlike, better : float
        The drawing may differ from the page by so much, and by so much of what it differed by at first.
    local : float
        The same as `better` within 0.45 mm: other columns stay as they were read.
    soon : float
        The same as `better` after one step: a drawing that differs by more does not become like the page.
    unread : float
        Share of the ink within 0.45 mm by which the best drawing may differ: other columns stay as they were read.
    """
    read = stretches.read_px
    least = np.full(len(stretches.starts), np.inf)
    found = read.copy()
    after = np.zeros(len(read), np.float32)
    now, line, at, which = stretches, read, np.arange(len(read)), np.arange(len(least))
    seen, others = now.seen / np.float32(pen.darkness), _others(now, pen)
    for k in range(_ROUNDS):
        edges = _edges(now, line, pen)
        drawing = np.maximum(_drawn(now, edges, pen), others)
        shade = now.sums((seen * drawing).sum(1)) / np.maximum(now.sums((drawing**2).sum(1)), 1e-9)
        missing = (seen / shade.clip(0.8, 1.1).astype(np.float32)[now.of, None] - drawing) * (1 - others)
        error = _unlike(now, edges, seen, missing)
        columns = (missing**2).sum(1)
        if k == 0:
            first, before = error, columns
        closer = error < least[which]
        least[which[closer]] = error[closer]
        kept = closer[now.of]
        found[at[kept]], after[at[kept]] = line[kept], columns[kept]
        going = error <= np.minimum(2 * unlike, soon * first[which]) if k else first <= 2 * unlike
        if k == _ROUNDS - 1 or not going.any():
            break
        steps = _steps(now, edges, seen, missing, others, line - now.read_px, np.minimum(1.0, 5 * error))
        going &= now.most(np.abs(steps)) >= 0.25
        if not going.any():
            break
        kept = going[now.of]
        line, seen, others, at = (line + steps)[kept], seen[kept], others[kept], at[kept]
        now, which = now.only(going), which[going]
    moved = found - read
    height = stretches.most(read) + stretches.most(-read)
    ink = (stretches.seen**2).sum(1)
    at_most = np.minimum(local * uniform_filter1d(before, 9), unread * uniform_filter1d(ink, 9))
    wrong = (least > np.minimum(unlike, better * first)) | (stretches.most(np.abs(moved)) > _MOST * height)
    clearer = (uniform_filter1d(after, 9) < at_most) & ~wrong[stretches.of]  # print, or two lines
    return np.asarray(read + moved * uniform_filter1d(clearer.astype(np.float64), 5))


def _unlike(
    stretches: _Stretches, edges: _Edges, seen: FloatArray, missing: FloatArray, *, around_px: float = 5.0
) -> Float64:
    """Return how much of the ink around the line differs from its drawing, by stretch: 0 = nothing."""
    rows = np.arange(seen.shape[1], dtype=np.float32)
    upper, lower = edges.upper.reshape(-1, _FINE).min(1), edges.lower.reshape(-1, _FINE).max(1)
    around = rows > upper.astype(np.float32)[:, None] - around_px
    around &= rows < lower.astype(np.float32)[:, None] + around_px
    ink, lacks = (stretches.sums(np.einsum("ij,ij,ij->i", x, x, around)) for x in (seen, missing))
    return np.asarray(lacks / np.maximum(ink, 1e-9))


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


def _others(stretches: _Stretches, pen: Pen) -> FloatArray:
    """Draw the lines of other rows, (n, h)."""
    cover = np.zeros_like(stretches.seen)
    at = np.arange(len(cover))
    for y_px in stretches.others_px:
        there = np.isfinite(y_px)
        near = there & (y_px > -PX_PER_MM_Y) & (y_px < stretches.heights + PX_PER_MM_Y)
        if near.any():
            filled = np.interp(at, at[there], y_px[there]).astype(np.float64)
            cover = np.maximum(cover, _drawn(stretches, _edges(stretches, filled, pen), pen) * there[:, None])
    return cover


def _steps(
    stretches: _Stretches,
    edges: _Edges,
    seen: FloatArray,
    missing: FloatArray,
    others: FloatArray,
    moved_px: Float64,
    doubt: Float64,
    *,
    reach: int = 12,
    stiff: float = 0.25,
    smooth: float = 0.5,
) -> Float64:
    """Return how far to move the points of a line (n,), in pixels.

    Parameters
    ----------
    stretches : _Stretches
    edges : _Edges
    seen, missing, others : (n, h) float32
        Ink of the page, what of it the drawing lacks, and ink of other rows.
    moved_px : (n,) float64
        How far the points were moved already.
    doubt : (k,) float64
        In [0, 1], by stretch: the worse the drawing fits, the less do steep edges say, which err most.
    reach : int
        Pixels on each side of an edge.
    stiff, smooth : float
        Price of bends in this step, and in all that was moved.
    """
    n, height = seen.shape
    columns, offsets = np.arange(n)[:, None], np.arange(-reach, reach + 1)
    upper, lower = (edge.reshape(n, _FINE).mean(1) for edge in (edges.upper, edges.lower))
    middle = ((upper + lower) / 2)[:, None]
    votes, trusts = [], []
    for edge, sign in ((upper, -1), (lower, 1)):
        rows = np.round(edge).astype(np.int64)[:, None] + sign * offsets  # from within outwards
        inside = (rows >= 0) & (rows < stretches.heights[:, None])
        rows = rows.clip(0, height - 1)
        ends = (offsets > 2) & (seen[columns, rows] < 0.2)  # paper: what follows is another line's
        own = inside & ~np.logical_or.accumulate(ends, axis=1)
        half = np.clip(0.5 + sign * (rows - middle), 0, 1) * own
        votes.append((missing[columns, rows] * half).sum(1))
        trusts.append(1.0 * (others[columns, rows].max(1) < 0.1))
    alone = np.minimum(*votes) < 0.5 * reach  # not where ink runs on up and down
    longer = [np.sqrt(1 + (np.gradient(edge) * PX_PER_MM_X / PX_PER_MM_Y) ** 2) for edge in (upper, lower)]
    each = np.stack([vote / long for vote, long in zip(votes, longer, strict=True)])
    wider = [np.median(part) for part in np.split(each, stretches.starts[1:], axis=1)]  # the pen than drawn
    votes = [vote - np.asarray(wider)[stretches.of] * long for vote, long in zip(votes, longer, strict=True)]
    weight, pull = np.full(n, 0.05), -smooth * np.convolve(moved_px, [1, -4, 6, -4, 1], "same")
    for vote, trust, edge, at, sign in (
        (votes[0], trusts[0], edges.upper, edges.upper_at, -1),
        (votes[1], trusts[1], edges.lower, edges.lower_at, 1),
    ):
        slope = np.repeat(doubt[stretches.of], _FINE) * np.gradient(edge) * _FINE * PX_PER_MM_X / PX_PER_MM_Y
        share = np.repeat(trust * alone, _FINE) / np.sqrt(1 + slope**2) / _FINE
        weight += np.bincount(at, share, minlength=n)
        pull += np.bincount(at, share * np.repeat(sign * vote, _FINE), minlength=n)
    weight[stretches.still], pull[stretches.still] = 1e3, 0
    bands = np.empty((3, n))  # weight + bends squared, above the diagonal and on it
    bands[0], bands[1], bands[2] = stiff + smooth, -4 * (stiff + smooth), weight + 6 * (stiff + smooth)
    return np.asarray(solveh_banded(bands, pull).clip(-reach, reach))
