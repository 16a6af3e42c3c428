"""Runs of a mask: where it is true without a gap; and where two lines run as one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def runs_of(mask: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """List the runs of true values in a mask.

    Parameters
    ----------
    mask : (n,) bool

    Returns
    -------
    list of (start, stop)
        In ascending order; `stop` is the first index behind the run.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def runs_as_one(
    one: npt.NDArray[np.floating[Any]], other: npt.NDArray[np.floating[Any]], *, near: float, shortest: float
) -> list[tuple[int, int]]:
    """List where two lines run as one.

    Parameters
    ----------
    one, other : (n,) float
        NaN = not there.
    near : float
        Between them, less than that.
    shortest : float
        Places in a row, at least: two lines that cross are as near for fewer.

    Returns
    -------
    list of (start, stop)
    """
    return [(start, stop) for start, stop in runs_of(np.abs(one - other) < near) if stop - start >= shortest]
