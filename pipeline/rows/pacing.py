"""What is known of a pacemaker by its spikes: when it fires besides, and how tall it is in other limb leads.

It fires at the same place of every beat, or at one interval.  Places are columns of the rows' strips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter1d
from scipy.signal import find_peaks

from pipeline.datatypes import FloatArray, Lead
from pipeline.rows.pen import PX_PER_MM_X, Flags, Float64

_BEFORE_MM, _AFTER_MM = 8.75, 1.25  # how far from its beat a pacemaker fires
_SAME = 6  # columns within which places are alike
_LEAST_BEATS = 3  # that make a pattern
_QRS_MM, _BEATS_MM = 1.25, 6.25  # a QRS complex is as wide; beats are farther apart
_OF_I_AND_II = {
    Lead.I: (1.0, 0.0),
    Lead.II: (0.0, 1.0),
    Lead.III: (-1.0, 1.0),
    Lead.AVR: (-0.5, -0.5),
    Lead.AVL: (1.0, -0.5),
    Lead.AVF: (-0.5, 1.0),
}


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


def awaited(fired: Sequence[float], beats: npt.NDArray[np.intp]) -> list[float]:
    """Return where a pacemaker must have fired besides where it was seen to.

    Parameters
    ----------
    fired : sequence of float
        Where it was seen to, in order.
    beats : (n,) int
    """
    places: list[float] = []
    for at in (*_at_beats(np.array(fired), beats), *_in_turn(np.array(fired))):
        if all(abs(at - other) > 2 * _SAME for other in (*fired, *places)):
            places.append(at)
    return places


def _at_beats(fired: Float64, beats: npt.NDArray[np.intp]) -> list[float]:
    """Return the beats without a firing at a place where `_LEAST_BEATS` beats have one."""
    off = np.subtract.outer(fired, beats)  # (firings, beats)
    left = (off >= -_BEFORE_MM * PX_PER_MM_X) & (off <= _AFTER_MM * PX_PER_MM_X)
    places: list[float] = []
    while left.any():
        close = np.abs(off[left][:, None] - off[left][None]) <= _SAME
        middle = float(np.median(off[left][close[close.sum(1).argmax()]]))
        alike = left & (np.abs(off - middle) <= 2 * _SAME)
        left &= ~alike
        paced = alike.any(0)
        if paced.sum() >= _LEAST_BEATS:
            places += (beats[~paced] + middle).tolist()
    return places


def _in_turn(fired: Float64, *, same: float = 0.04) -> list[float]:
    """Return what is left out of firings that follow each other at one interval, whatever the heart does."""
    if len(fired) < _LEAST_BEATS:
        return []
    apart = np.diff(fired)
    interval = float(np.median(apart[apart <= (1 + 3 * same) * apart.min()]))
    turns = np.round(apart / interval)
    if (turns == 1).sum() < _LEAST_BEATS - 1 or (np.abs(apart / interval - turns) > same).any():
        return []
    between = [
        start + (stop - start) * k / count
        for (start, stop), count in zip(pairwise(fired.tolist()), turns.astype(int).tolist(), strict=True)
        for k in range(1, count)
    ]
    return [float(fired[0]) - interval, *between, float(fired[-1]) + interval]


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
    known = [other for other in heights if other in _OF_I_AND_II]
    if lead not in _OF_I_AND_II or len(known) < fewest:
        return None
    parts, seen = np.array([_OF_I_AND_II[other] for other in known]), np.array([heights[other] for other in known])
    both = np.linalg.lstsq(parts, seen, rcond=None)[0]
    if np.abs(parts @ both - seen).max() > off * np.abs(seen).max():
        return None
    return float(np.dot(_OF_I_AND_II[lead], both))
