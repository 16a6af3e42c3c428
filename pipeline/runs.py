"""Runs of a mask: where it is true without a gap."""

from __future__ import annotations

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
