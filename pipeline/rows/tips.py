"""The tips of sharp waves, fitted to their ink.

The trace network's line is the mean of what may be, and a mean rounds off: the tip of an R wave is read too low.  The
ink says where the tip is.  A wave is drawn with the row's own pen at several heights; the height whose drawing agrees
best with the page is taken (analysis by synthesis).  A tip that ends at another row's line stays as it was read: the
ink there may be either's.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter1d, minimum_filter1d
from scipy.signal import find_peaks

from pipeline.datatypes import FloatArray
from pipeline.rows.pen import PX_PER_MM_X, PX_PER_MM_Y, Flags, InkStrip, drawn

Float64 = npt.NDArray[np.float64]

_REACH = round(0.8 * PX_PER_MM_X)  # columns on each side of a tip
_SHIFTS = np.arange(-0.5, 1.51, 0.25) * PX_PER_MM_Y  # a tip may move, outwards


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
