"""Whether a grid was made up: rows that are straight on the picture are not bent by paper.

Where a page shows no grid, one may still be found in noise or in print.  Laid flat by it, all rows bend alike, while
the sheet has straight ones if it is laid flat by its rows alone.  A sheet that is really bent is the other way round.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.datatypes import TraceSet

Float64 = npt.NDArray[np.float64]


def bend_of_rows(traces: TraceSet, *, piece_mm: float = 2.5, solid: float = 0.3) -> float | None:
    """Measure how far the rows of a sheet bend alike.

    Parameters
    ----------
    traces : TraceSet
    piece_mm : float
        Pieces of the rows, of each of which the median counts.
    solid : float
        Share of the pieces that a row must have to count.

    Returns
    -------
    float or None
        Root mean square in mm of what is common to the rows, their straight lines taken off; None of fewer than two.
    """
    width = max(round(piece_mm * traces.columns_per_mm), 1)
    n = traces.row_mm.shape[1] // width
    bent: list[Float64] = []
    for row in traces.row_mm[:, : n * width].astype(np.float64):
        pieces = row.reshape(n, width)
        seen = np.isfinite(pieces).mean(1) > 0.5
        if seen.mean() <= solid or seen.sum() < 3:
            continue
        at, level_mm = np.flatnonzero(seen), np.nanmedian(pieces[seen], axis=1)
        off_mm = np.full(n, np.nan)
        off_mm[seen] = level_mm - np.polyval(np.polyfit(at, level_mm, 1), at)
        bent.append(off_mm)
    if len(bent) < 2:
        return None
    off = np.stack(bent)
    common_mm = np.nanmedian(off[:, np.isfinite(off).sum(0) >= 2], axis=0)
    return float(np.sqrt(np.mean(common_mm**2))) if common_mm.size else None
