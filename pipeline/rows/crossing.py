"""Rows that touch or cross: lines that keep their direction, and ink that is a row's own.

Where strokes of several rows lie over each other, a column by itself hardly says which of them is the row's.  A pen on
its way up or down goes on, through the ink of other rows, until it turns.  So a turn has its price, and a tall stroke
costs little more than a low one.  Rows that touch no other row are read well without this, and stay as they are.

Where two rows follow the same ink for long, one of them left its own.  That one finds ink of its own where the other's
is hidden; the other finds the edge of what was hidden.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter1d, minimum_filter1d

from pipeline.datatypes import ByteArray, FloatArray

Flags = npt.NDArray[np.bool_]


def touching(y_mm: FloatArray, *, near_mm: float = 0.5, most: float = 0.1) -> list[int]:
    """List the rows whose lines (n_rows, n) come near another row's; NaN = not there.

    A line reaches over its neighbouring columns, so that strokes that cross within a column are found too.

    Parameters
    ----------
    y_mm : (n_rows, n)
    near_mm : float
        Between them, less than that.
    most : float
        Share of their columns in which they do, at most: rows that run on one trace for longer are not two that cross.
    """
    upper = minimum_filter1d(np.nan_to_num(y_mm, nan=np.inf), 3, axis=1)
    lower = maximum_filter1d(np.nan_to_num(y_mm, nan=-np.inf), 3, axis=1)
    there = np.isfinite(y_mm)
    found = set()
    for one, other in combinations(range(len(y_mm)), 2):
        both = there[one] & there[other]
        apart = np.maximum(upper[other, both] - lower[one, both], upper[one, both] - lower[other, both])
        if 0 < (apart < near_mm).sum() <= most * apart.size:
            found |= {one, other}
    return sorted(found)


def hidden(
    log_p: FloatArray, at_mm: FloatArray, line_mm: FloatArray, *, beside_mm: float = 0.8, floor: float = -14.0
) -> FloatArray:
    """Return the answers (bins, n) of a row at paper y `at_mm` (bins,) without the ink of another line (n,)."""
    upper = minimum_filter1d(np.nan_to_num(line_mm, nan=np.inf), 5) - beside_mm
    lower = maximum_filter1d(np.nan_to_num(line_mm, nan=-np.inf), 5) + beside_mm
    taken = (at_mm[:, None] > upper) & (at_mm[:, None] < lower)
    left: FloatArray = np.where(taken, np.float32(floor), log_p)
    return left


def on_own_ink(
    ink: ByteArray, y_bin: FloatArray, y_mm: FloatArray, others_mm: FloatArray, *, hint: int = 64, apart_mm: float = 1.5
) -> Flags:
    """Tell in which columns (n,) a line lies on ink that is away from all other lines.

    Parameters
    ----------
    ink : (bins, n)
        Of the page network's trace class.
    y_bin, y_mm : (n,)
        The line.
    others_mm : (n_lines, n)
    hint : int
        Of 255, that counts as ink.
    apart_mm : float
    """
    near = maximum_filter1d(ink, 5, axis=0)
    under = near[np.clip(y_bin.round().astype(np.intp), 0, len(ink) - 1), np.arange(y_bin.size)] > hint
    upper = minimum_filter1d(np.nan_to_num(others_mm, nan=np.inf), 3, axis=1) - apart_mm
    lower = maximum_filter1d(np.nan_to_num(others_mm, nan=-np.inf), 3, axis=1) + apart_mm
    return np.asarray(under & ~((y_mm > upper) & (y_mm < lower)).any(0))


def directed_posterior(
    log_p: FloatArray, *, price: float = 0.02, turn: float = 0.002, least: float = 1e-6
) -> FloatArray:
    """Return the probability of y in each column, given all columns: (columns, rows, bins), bins sum to 1.

    As `trace.posterior`, but the pen is on its way up or down: it moves only that way, until it turns (forward-backward
    over y and direction).

    Parameters
    ----------
    log_p : (rows, bins, columns)
        Log probability of every bin, column by column.
    price : float
        Per bin moved.
    turn : float
        Chance that the pen turns before it moves on.
    least : float
        What a column leaves to every bin, relative to its best: a column may be wrong.
    """
    down = np.exp(log_p - log_p.max(1, keepdims=True)).transpose(2, 0, 1) + np.float32(least)
    seen = np.stack([down[..., ::-1], down], axis=1)  # (columns, direction, row, bin): its bins as the pen meets them
    grown = np.exp(np.float32(price) * np.arange(seen.shape[3], dtype=np.float32))

    def moved(weights: FloatArray) -> FloatArray:
        """Sum over the bins behind the pen, exp(-price) a bin."""
        result: FloatArray = np.cumsum(weights * grown, axis=2) / grown
        return result

    past = np.empty_like(seen)
    past[0] = _scaled(seen[0])
    for k in range(1, len(seen)):
        past[k] = _scaled(moved((1 - turn) * past[k - 1] + turn * _other_way(past[k - 1])) * seen[k])
    p: FloatArray = np.empty_like(down)
    future = np.ones_like(past[0])
    for k in range(len(seen) - 1, -1, -1):
        both = past[k] * future
        p[k] = both[1] + both[0, :, ::-1]
        came = _other_way(moved(_other_way(future * seen[k])))
        future = _scaled((1 - turn) * came + turn * _other_way(came))
    p /= p.sum(2, keepdims=True)
    return p


def _scaled(weights: FloatArray) -> FloatArray:
    """Scale the weights (direction, row, bin) of every row to a sum of 1."""
    scaled: FloatArray = weights / weights.sum((0, 2), keepdims=True)
    return scaled


def _other_way(weights: FloatArray) -> FloatArray:
    """Return the weights (direction, row, bin) of a pen at the same bins on its way back."""
    return weights[::-1, :, ::-1]
