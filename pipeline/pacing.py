"""When a pacemaker must have fired besides where it was seen to: at one place of every beat, or in turn."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

_LEAST_BEATS = 3  # that make a pattern


def awaited(
    fired: Sequence[float],
    beats: npt.NDArray[np.intp],
    *,
    around: tuple[float, float],
    same: float,
    share: float = 0.0,
) -> list[float]:
    """Return where a pacemaker must have fired besides where it was seen to.

    Parameters
    ----------
    fired : sequence of float
        Where it was seen to, in order; in columns or samples, as all that follows.
    beats : (n,) int
    around : tuple of float
        How far before and after its beat a pacemaker fires.
    same : float
        Within which places are alike.
    share : float
        Of the beats, that have a firing at a place if all must have one there.
    """
    if len(fired) < _LEAST_BEATS:
        return []
    places: list[float] = []
    for at in (*_at_beats(np.array(fired), beats, around, same, share), *_in_turn(np.array(fired))):
        if all(abs(at - other) > 2 * same for other in (*fired, *places)):
            places.append(at)
    return places


def _at_beats(
    fired: npt.NDArray[np.float64],
    beats: npt.NDArray[np.intp],
    around: tuple[float, float],
    same: float,
    share: float,
) -> list[float]:
    """Return the beats without a firing at a place where `_LEAST_BEATS` beats have one."""
    off = np.subtract.outer(fired, beats)  # (firings, beats)
    left = (off >= -around[0]) & (off <= around[1])
    places: list[float] = []
    while left.any():
        close = np.abs(off[left][:, None] - off[left][None]) <= same
        middle = float(np.median(off[left][close[close.sum(1).argmax()]]))
        alike = left & (np.abs(off - middle) <= 2 * same)
        left &= ~alike
        paced = alike.any(0)
        if paced.sum() >= max(_LEAST_BEATS, share * len(beats)):
            places += (beats[~paced] + middle).tolist()
    return places


def _in_turn(fired: npt.NDArray[np.float64], *, same: float = 0.04) -> list[float]:
    """Return what is left out of firings that follow each other at one interval, whatever the heart does."""
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
