"""The beats of a lead: where they stand, and whether one of them is unlike the others."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.signal import find_peaks

from pipeline.signal.weights import BEATS, GRID_LINES

Float64 = npt.NDArray[np.float64]


def find_beats(height_mm: Float64, columns_per_mm: float) -> npt.NDArray[np.intp]:
    """Find the columns of a lead (n,) at which its beats are highest, or lowest; none where no beat stands out.

    Parameters
    ----------
    height_mm : (n,) float64
        Upward positive; NaN = not traced.
    columns_per_mm : float
    """
    off = np.nan_to_num(height_mm - np.nanmedian(height_mm))
    low, high = np.quantile(off, [1 - GRID_LINES.highest, GRID_LINES.highest])
    off = off if high > -low else -off
    highest = max(float(high), -float(low))
    if highest < GRID_LINES.least_beat_mm:
        return np.zeros(0, np.intp)
    distance = GRID_LINES.apart_mm * columns_per_mm
    return np.asarray(find_peaks(off, height=GRID_LINES.least_peak * highest, distance=distance)[0], np.intp)


def is_unlike_others(height_mm: Float64, columns_per_mm: float, start: int, stop: int) -> bool:
    """Tell whether a short stretch of a lead goes another way than the lead's other beats at the same place.

    The others are laid over the beat by what stands before and behind the stretch.  They must agree with each other.

    Parameters
    ----------
    height_mm : (n,) float64
        The lead at `columns_per_mm`, upward positive; NaN = not traced.
    columns_per_mm : float
    start, stop : int
        Columns of the stretch.

    Returns
    -------
    bool
        False also where fewer than two other beats can be laid over this one.
    """
    at = find_beats(height_mm, columns_per_mm)
    around, reach = (round(mm * columns_per_mm) for mm in (BEATS.around_mm, BEATS.shift_mm))
    if at.size < 3:
        return False
    known = np.flatnonzero(np.isfinite(height_mm))
    first, end = max(start - around, int(known[0])), min(stop + around, int(known[-1]) + 1)
    beside = np.r_[first:start, stop:end]
    own = int(np.abs(at - (start + stop) / 2).argmin())
    others = []
    for beat in np.delete(at, own) - at[own]:
        moves = [beat + shift for shift in range(-reach, reach + 1)]
        moves = [move for move in moves if first + move >= known[0] and end + move <= known[-1] + 1]
        off = [height_mm[first + move : end + move] - height_mm[first:end] for move in moves]
        off = [one - np.nanmedian(one[beside - first]) for one in off if np.isfinite(one).sum() >= 0.8 * one.size]
        if off:
            others.append(min(off, key=lambda one: float(np.nanmean(np.abs(one[beside - first])))))
    if len(others) < 2:
        return False
    there = np.nan_to_num(np.stack(others))[:, start - first : stop - first]
    typical = np.median(there, axis=0)
    spread = float(np.median(np.abs(there - typical).max(axis=1)))
    return bool(np.abs(typical).max() >= max(BEATS.least_mm, BEATS.ratio * spread))
