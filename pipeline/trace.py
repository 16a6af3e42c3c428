"""Rows of the sheet -> TraceSet: the centre line of every printed row, at sub-pixel, with its confidence.

The trace network sees one row at a time, cut from the original page through the composed map: 30 mm above and below
the row's baseline, so that a neighbour's tall wave is seen for what it is.  It answers with a distribution over y for
every column of 0.05 mm; the most probable connected path through it is the trace (a column of ink has no memory, a
pen has), and the soft-argmax around the path its value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import label

from pipeline.datatypes import ByteArray, FloatArray, RowBand, TraceSet
from pipeline.errors import TraceNotFound
from pipeline.inference import Network
from pipeline.unet import ROW_BINS, ROW_HEIGHT_MM, TRACE_COLUMNS_PER_MM, TRACE_PX_PER_MM_X, TRACE_PX_PER_MM_Y

Sampler = Callable[[npt.NDArray[np.float64], npt.NDArray[np.float64]], ByteArray]  # x_mm (w,), y_mm (h,) -> (h, w, 3)
_BIN_MM = ROW_HEIGHT_MM / ROW_BINS


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class RowReadings:
    """What the network says of the rows; columns at TRACE_COLUMNS_PER_MM."""

    y_bin: FloatArray  # (n_rows, n) bins below the strip's top edge
    mass: FloatArray  # (n_rows, n) probability within reach of the path
    presence: FloatArray  # (n_rows, n) probability that anything is printed here


def best_path(log_p: FloatArray, *, price: float = 0.1) -> npt.NDArray[np.intp]:
    """Return the path through (rows, bins, columns) that maximises log probability less `price` per bin moved.

    A Viterbi pass whose transition is a distance transform, so a step may be as long as it likes at its price: a QRS
    is steep, and the ink under it pays for it.
    """
    rows, bins, columns = log_p.shape
    slope = price * np.arange(bins, dtype=np.float32)
    score = log_p[..., 0].copy()
    back = np.empty((columns, rows, bins), np.int16)
    index = np.arange(bins)
    for k in range(1, columns):
        up = score + slope  # best from above: max over j <= i of score[j] + price * j, less price * i
        down = score - slope
        best_up = np.maximum.accumulate(up, 1)
        best_down = np.maximum.accumulate(down[:, ::-1], 1)[:, ::-1]
        from_up = np.maximum.accumulate(np.where(up == best_up, index, 0), 1)
        from_down = np.minimum.accumulate(np.where(down == best_down, index, bins - 1)[:, ::-1], 1)[:, ::-1]
        a, b = best_up - slope, best_down + slope
        take = a >= b
        back[k] = np.where(take, from_up, from_down)
        score = np.where(take, a, b) + log_p[..., k]
    path = np.empty((rows, columns), np.intp)
    path[:, -1] = score.argmax(1)
    for k in range(columns - 1, 0, -1):
        path[:, k - 1] = back[k, np.arange(rows), path[:, k]]
    return path


def read_rows(strips: ByteArray, network: Network, *, reach: int = 3, batch: int = 3) -> RowReadings:
    """Read rows from their strips (n_rows, 2 * ROW_BINS, w, 3); `batch` rows at a time bound the memory."""
    n = strips.shape[2] * 2
    parts = [network.run(strips[k : k + batch]) for k in range(0, len(strips), batch)]
    log_p = torch.log_softmax(torch.cat([columns[..., :n] for columns, _ in parts]), 1)
    presence = torch.cat([logits[:, :n] for _, logits in parts]).sigmoid()
    path = torch.from_numpy(best_path(log_p.clamp(-12.0).numpy()))
    index = path[:, None] + torch.arange(-reach, reach + 1)[None, :, None]
    near = log_p.gather(1, index.clamp(0, ROW_BINS - 1)).exp() * ((index >= 0) & (index < ROW_BINS))
    mass = near.sum(1)
    value = torch.where(mass > 1e-3, (near * index).sum(1) / mass.clamp(1e-6), path.float())
    return RowReadings(y_bin=value.numpy(), mass=mass.numpy(), presence=presence.numpy())


def _present(
    presence: FloatArray, *, sure: float = 0.5, likely: float = 0.12, bridge_mm: float = 3.0, shortest_mm: float = 3.0
) -> npt.NDArray[np.bool_]:
    """Threshold presence (n,) with hysteresis: likely columns count where they touch sure ones.

    Short holes are bridged and short islands dropped; what is faint stays in the trace with its low confidence.
    """
    runs, _ = label(presence > likely)
    flags = np.isin(runs, np.setdiff1d(runs[presence > sure], 0))
    for value, length_mm in ((False, bridge_mm), (True, shortest_mm)):
        edges = np.flatnonzero(np.diff(flags.astype(np.int8))) + 1
        for start, stop in zip(np.r_[0, edges], np.r_[edges, len(flags)], strict=True):
            inner = value or (start > 0 and stop < len(flags))
            if flags[start] == value and inner and stop - start < length_mm * TRACE_COLUMNS_PER_MM:
                flags[start:stop] = not value
    return flags


def _distinct(y_mm: FloatArray, *, same_mm: float = 0.5, share: float = 0.6, shortest: float = 0.35) -> list[int]:
    """Rows of (n_rows, n) to keep.

    A row that runs on another's trace was that row seen twice; one much shorter than the longest is print or an edge.
    """
    kept: list[int] = []
    longest = int(np.isfinite(y_mm).sum(1).max())
    for k, row in enumerate(y_mm):
        own = max(int(np.isfinite(row).sum()), 1)
        if own >= shortest * longest and all(
            (np.abs(row - y_mm[other]) < same_mm).sum() < share * own for other in kept
        ):
            kept.append(k)
    return kept


def trace_rows(sample: Sampler, rows: Sequence[RowBand], network: Network, *, margin_mm: float = 5.0) -> TraceSet:
    """Trace every row.

    Parameters
    ----------
    sample : callable
        Gives the page's own pixels on any paper raster.
    rows : sequence of RowBand
        Top to bottom.
    network : Network
        The trace network.

    Raises
    ------
    TraceNotFound
        There are no rows, or nothing is printed in any.
    """
    if not rows:
        raise TraceNotFound("no row of an ECG was found on the page")
    x0 = min(row.x0_mm for row in rows) - margin_mm
    width = int(np.ceil((max(row.x1_mm for row in rows) + margin_mm - x0) * TRACE_PX_PER_MM_X))
    x_mm = x0 + (np.arange(width, dtype=np.float64) + 0.5) / TRACE_PX_PER_MM_X
    tops = np.array([row.baseline_mm - ROW_HEIGHT_MM / 2 for row in rows])
    lines = (np.arange(2 * ROW_BINS) + 0.5) / TRACE_PX_PER_MM_Y
    readings = read_rows(np.stack([sample(x_mm, top + lines) for top in tops]), network)
    there = np.stack([_present(presence) for presence in readings.presence])
    y = np.where(there, tops[:, None] + (readings.y_bin + 0.5) * _BIN_MM, np.nan).astype(np.float32)
    confidence = np.where(there, readings.mass * readings.presence, 0).astype(np.float32)
    if not np.isfinite(y).any():
        raise TraceNotFound("rows were found, but no trace is printed in them")
    kept = _distinct(y)
    return TraceSet(
        row_mm=y[kept],
        confidence=confidence[kept],
        baseline_mm=np.array([rows[k].baseline_mm for k in kept], np.float32),
        x0_mm=float(x0 + 0.5 / TRACE_COLUMNS_PER_MM),
        columns_per_mm=TRACE_COLUMNS_PER_MM,
    )
