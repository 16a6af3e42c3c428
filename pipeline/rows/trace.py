"""Rows of the sheet -> TraceSet: the centre line of every printed row, at sub-pixel, with its confidence.

The trace network sees one row at a time, cut from the original page through the composed map: 30 mm above and below
the row's baseline, so that a neighbour's tall wave is seen for what it is.  It answers with a distribution over y for
every column of 0.05 mm.  The columns together, as one line that a pen drew, give a posterior over y.  Its mean is the
value: the estimate with the least expected squared error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import label, maximum_filter1d

from pipeline.datatypes import ByteArray, FloatArray, RowBand, TraceSet
from pipeline.errors import TraceNotFound
from pipeline.networks.inference import Network
from pipeline.networks.specification import ROW_BINS, ROW_COLUMNS_PER_MM, TRACE
from pipeline.rows.crossing import Flags, directed_posterior, hidden, on_own_ink, touching
from pipeline.rows.drawing import explained_rows
from pipeline.rows.uprights import upright_lines, without_lines
from pipeline.runs import runs_as_one, runs_of
from pipeline.sheet.paper import Sheet
from pipeline.threads import side_by_side

_BIN_MM = TRACE.cell_mm


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class RowReadings:
    """What the network says of the rows; columns at ROW_COLUMNS_PER_MM."""

    y_bin: FloatArray  # (n_rows, n) bins below the strip's top edge
    mass: FloatArray  # (n_rows, n) probability within reach of y_bin
    doubt_bin: FloatArray  # (n_rows, n) what a column by itself would say, off y_bin
    presence: FloatArray  # (n_rows, n) probability that anything is printed here
    log_p: FloatArray | None = None  # (n_rows, bins, n) of every bin; None: not known, and no row is read again


Posterior = Callable[[FloatArray], FloatArray]  # of `posterior`
RowReader = Callable[[ByteArray, Network], RowReadings]  # of `read_rows`


def posterior(log_p: FloatArray, *, price: float = 0.1, least: float = 1e-6) -> FloatArray:
    """Return the probability of y in each column, given all columns: (columns, rows, bins), bins sum to 1.

    The network answers column by column; a pen moves on from where it was.  A step over d bins is exp(-`price` d) times
    as likely as none, so a QRS may be as steep as it likes at its price (forward-backward over a hidden Markov chain).

    Parameters
    ----------
    log_p : (rows, bins, columns)
        Log probability of every bin, column by column.
    price : float
        Per bin moved.
    least : float
        What a column leaves to every bin, relative to its best: a column may be wrong.
    """
    bins = np.arange(log_p.shape[1])
    step = np.exp(-np.float32(price) * np.abs(bins[:, None] - bins)).astype(np.float32)
    step /= step.sum(0)
    seen = np.ascontiguousarray(np.exp(log_p - log_p.max(1, keepdims=True)).transpose(2, 0, 1)) + np.float32(least)
    past, future = np.empty_like(seen), np.empty_like(seen)
    past[0], future[-1] = seen[0], 1
    n_rows = seen.shape[1]
    both = np.concatenate([seen[0], seen[-1]])  # on the way forth from the first column, and back from the last
    reached, total = np.empty_like(both), np.empty((2 * n_rows, 1), np.float32)
    forth, back = reached[:n_rows], reached[n_rows:]
    for k in range(1, len(seen)):
        np.matmul(both, step, out=reached)
        forth *= seen[k]
        np.add.reduce(reached, axis=1, keepdims=True, out=total)  # as np.sum, without its checks
        reached /= total
        past[k], future[-1 - k] = forth, back
        both[:n_rows] = forth
        np.multiply(back, seen[-1 - k], out=both[n_rows:])
    past *= future
    past /= past.sum(2, keepdims=True)
    return past


def read_rows(strips: ByteArray, network: Network, *, smooth: Posterior = posterior, reach: float = 3.0) -> RowReadings:
    """Read rows from their strips.

    Parameters
    ----------
    strips : (n_rows, 2 * bins, w, 3) uint8
    network : Network
        The trace network.
    smooth : callable
        Makes one line of the columns' own answers; `posterior`.
    reach : float
        Bins around a value whose probability counts as its `mass`.
    """
    n = strips.shape[2] * 2
    columns, logits = network.run(strips)
    log_p = torch.log_softmax(columns[..., :n], 1).numpy()
    return _readings(log_p, logits[:, :n].sigmoid().numpy(), smooth, reach)


def _readings(
    log_p: FloatArray, presence: FloatArray, smooth: Posterior = posterior, reach: float = 3.0
) -> RowReadings:
    """Make one line of the columns' own answers (rows, bins, columns)."""
    p = smooth(log_p)
    bins = np.arange(p.shape[2], dtype=np.float32)
    y_bin = p @ bins
    some = zip(np.array_split(p, 32), np.array_split(y_bin[..., None], 32), strict=True)  # for the processor's cache
    mass = np.concatenate(side_by_side(lambda part: np.where(np.abs(bins - part[1]) <= reach, part[0], 0).sum(2), some))
    doubt_bin = own_doubt(log_p, y_bin.T)
    return RowReadings(y_bin=y_bin.T, mass=mass.T, doubt_bin=doubt_bin, presence=presence, log_p=log_p)


def own_doubt(log_p: FloatArray, y_bin: FloatArray) -> FloatArray:
    """Return how far from `y_bin` (rows, columns) each column of `log_p` (rows, bins, columns) by itself would be."""
    own = np.tensordot(np.exp(log_p), np.arange(log_p.shape[1], dtype=np.float32), (1, 0))
    return np.asarray(np.abs(own - y_bin), np.float32)


def _present(
    presence: FloatArray, *, sure: float = 0.5, likely: float = 0.12, bridge_mm: float = 3.0, shortest_mm: float = 3.0
) -> npt.NDArray[np.bool_]:
    """Threshold presence (n,) with hysteresis: likely columns count where they touch sure ones.

    Short holes are bridged and short islands dropped; what is faint stays in the trace with its low confidence.
    """
    runs, _ = label(presence > likely)
    flags = np.isin(runs, np.setdiff1d(runs[presence > sure], 0))
    for value, length_mm in ((False, bridge_mm), (True, shortest_mm)):
        for start, stop in runs_of(flags == value):
            inner = value or (start > 0 and stop < len(flags))
            if inner and stop - start < length_mm * ROW_COLUMNS_PER_MM:
                flags[start:stop] = not value
    return flags


def _distinct(
    y_mm: FloatArray, confidence: FloatArray, *, same_mm: float = 0.5, share: float = 0.6, shortest: float = 0.35
) -> list[int]:
    """Rows of (n_rows, n) to keep.

    A row that runs on another's trace was that row seen twice, and the surer reading is kept; one much shorter than the
    longest is print or an edge; a straight one is a rule of the form.
    """
    kept: list[int] = []
    longest = int(np.isfinite(y_mm).sum(1).max())
    for k in np.argsort(-confidence.sum(1), kind="stable").tolist():
        row = y_mm[k]
        own = max(int(np.isfinite(row).sum()), 1)
        if (
            own >= shortest * longest
            and not _straight(row)
            and all((np.abs(row - y_mm[other]) < same_mm).sum() < share * own for other in kept)
        ):
            kept.append(k)
    return sorted(kept)


def _straight(row: FloatArray, *, within_mm: float = 0.15) -> bool:
    """Tell whether a row (n,) is a straight line, which no ECG is."""
    at = np.flatnonzero(np.isfinite(row))
    if at.size < 2:
        return False
    line = np.polynomial.Polynomial.fit(at, row[at], 1)
    return bool(np.quantile(np.abs(row[at] - line(at)), 0.98) < within_mm)


def _width(across_mm: tuple[float, float]) -> int:
    """Return the width of a strip in pixels."""
    return int(np.ceil((across_mm[1] - across_mm[0]) * TRACE.px_per_mm_x))


def _columns_mm(across_mm: tuple[float, float]) -> npt.NDArray[np.float64]:
    """Return paper x of the columns of a row."""
    n = round(_width(across_mm) * ROW_COLUMNS_PER_MM / TRACE.px_per_mm_x)
    return across_mm[0] + (np.arange(n, dtype=np.float64) + 0.5) / ROW_COLUMNS_PER_MM


def _cut_strips(
    sheet: Sheet, rows: Sequence[RowBand], across_mm: tuple[float, float], bins: int
) -> tuple[npt.NDArray[np.float64], ByteArray]:
    """Cut a strip `bins` tall out of the page for every row: paper y of their tops, pixels; no upright grid lines."""
    x_mm = across_mm[0] + (np.arange(_width(across_mm), dtype=np.float64) + 0.5) / TRACE.px_per_mm_x
    tops = np.array([row.baseline_mm - bins * _BIN_MM / 2 for row in rows])
    lines = (np.arange(2 * bins) + 0.5) / TRACE.px_per_mm_y
    strips = np.stack(side_by_side(lambda top: sheet.pixels(x_mm, top + lines), tops))
    return tops, without_lines(strips, upright_lines(strips))


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Row:
    """One row as read, on the paper."""

    y_mm: FloatArray  # (n,) NaN = nothing printed
    confidence: FloatArray  # (n,)
    doubt_mm: FloatArray  # (n,)
    cut: bool  # the line reaches the strip's edge
    top_mm: float = 0.0  # paper y of the strip
    log_p: FloatArray | None = None  # (bins, n) of the strip; None: not known
    presence: FloatArray | None = None  # (n,) of the strip


def _rows_on_paper(readings: RowReadings, tops: npt.NDArray[np.float64], bins: int, *, edge: float = 4.0) -> list[_Row]:
    rows = []
    for k, top in enumerate(tops.tolist()):
        presence, y_bin = readings.presence[k], readings.y_bin[k]
        there = _present(presence)
        rows.append(
            _Row(
                y_mm=np.where(there, top + (y_bin + 0.5) * _BIN_MM, np.nan).astype(np.float32),
                confidence=np.where(there, readings.mass[k] * presence, 0).astype(np.float32),
                doubt_mm=readings.doubt_bin[k] * np.float32(_BIN_MM),
                cut=bool((np.abs(y_bin[there] - (bins - 1) / 2) > (bins - 1) / 2 - edge).any()),
                top_mm=top,
                log_p=None if readings.log_p is None else readings.log_p[k],
                presence=presence,
            )
        )
    return rows


def trace_rows(
    sheet: Sheet,
    rows: Sequence[RowBand],
    network: Network,
    *,
    read: RowReader = read_rows,
    margin_mm: float = 5.0,
) -> TraceSet:
    """Trace every row.

    Parameters
    ----------
    sheet : Sheet
    rows : sequence of RowBand
        Top to bottom.
    network : Network
        The trace network.
    read : callable
        Reads the rows' strips; `read_rows`.
    margin_mm : float
        Paper that is traced before the first row's start and behind the last row's end.

    Returns
    -------
    TraceSet

    Raises
    ------
    TraceNotFound
        There are no rows, or nothing is printed in any.
    """
    if not rows:
        raise TraceNotFound("no row of an ECG was found on the page")
    across_mm = (min(row.x0_mm for row in rows) - margin_mm, max(row.x1_mm for row in rows) + margin_mm)
    found = _read_on_paper(sheet, rows, across_mm, network, read)
    y, confidence = (np.stack([getattr(row, part) for row in found]) for part in ("y_mm", "confidence"))
    if not np.isfinite(y).any():
        raise TraceNotFound("rows were found, but no trace is printed in them")
    kept = _distinct(y, confidence)
    if not kept:
        raise TraceNotFound("rows were found, but only straight lines are printed in them")
    read_again = _apart(sheet, _with_direction([found[k] for k in kept]), _columns_mm(across_mm))
    return TraceSet(
        row_mm=np.stack([row.y_mm for row in read_again]),
        confidence=np.stack([row.confidence for row in read_again]),
        baseline_mm=np.array([rows[k].baseline_mm for k in kept], np.float32),
        x0_mm=float(across_mm[0] + 0.5 / ROW_COLUMNS_PER_MM),
        columns_per_mm=ROW_COLUMNS_PER_MM,
        doubt_mm=np.stack([row.doubt_mm for row in read_again]),
    )


def _with_direction(
    rows: Sequence[_Row],
    *,
    sure: float = 0.5,
    share: tuple[float, float] = (0.02, 0.07),
    beside: int = 10,
    around: int = 20,
    longest: int = 100,
    at_once: int = 6,
) -> list[_Row]:
    """Read tall strokes of rows that touch others again where they are unsure, as lines that keep their direction.

    Parameters
    ----------
    rows : sequence of _Row
    sure : float
        Confidence below this counts as unsure.
    share : tuple of float
        Least and most of these rows that is unsure.  Below the first, all rows stay as they are; above the second too:
        strokes take less of a row, so something else is unclear.
    beside, around : int
        Columns on both sides that are read again as well, and those beyond that a line starts and ends in.
    longest : int
        Columns that a stroke may be unsure in; a longer stretch is noise.
    at_once : int
        Rows, for memory.
    """
    bins = {k: len(row.log_p) for k, row in enumerate(rows) if row.log_p is not None}
    crossing = [k for k in touching(np.stack([row.y_mm for row in rows])) if k in bins]
    there = {k: np.isfinite(rows[k].y_mm) for k in crossing}
    unsure = {k: there[k] & (rows[k].confidence < sure) for k in crossing}
    columns = sum(int(flags.sum()) for flags in there.values())
    if not share[0] * columns <= sum(int(flags.sum()) for flags in unsure.values()) <= share[1] * columns:
        return list(rows)
    again = list(rows)
    near = {k: maximum_filter1d(unsure[k], 2 * beside + 1) & there[k] for k in crossing}
    for flags in near.values():
        for start, stop in runs_of(flags):
            flags[start:stop] = stop - start <= longest
    for height in sorted({bins[k] for k in crossing}):
        alike = [k for k in crossing if bins[k] == height]
        for some in (alike[first : first + at_once] for first in range(0, len(alike), at_once)):
            for start, stop in runs_of(maximum_filter1d(np.any([near[k] for k in some], 0), 2 * around + 1)):
                readings = _read_again([rows[k] for k in some], slice(start, stop), directed_posterior)
                for n, k in enumerate(some):
                    where = _tall(near[k][start:stop], rows[k].y_mm[start:stop], readings.y_bin[n] * _BIN_MM)
                    again[k] = _replaced(again[k], start, readings, n, where)
    return again


def _tall(where: Flags, *lines_mm: FloatArray, least_mm: float = 10.0) -> Flags:
    """Keep the stretches (n,) in which one of some lines rises or falls by so much."""
    kept = np.zeros_like(where)
    for start, stop in runs_of(where):
        kept[start:stop] = max(np.ptp(line[start:stop]) for line in lines_mm) >= least_mm
    return kept


def _read_again(rows: Sequence[_Row], part: slice, smooth: Posterior) -> RowReadings:
    """Make other lines of what was seen in some columns of rows that are known."""
    seen, presence = ([getattr(row, name)[..., part] for row in rows] for name in ("log_p", "presence"))
    return _readings(np.stack(seen), np.stack(presence), smooth)


def _replaced(row: _Row, start: int, readings: RowReadings, n: int, where: Flags, *, inferred: float = 1.0) -> _Row:
    """Put the `n`th row that was read again from a column on in its place, `where` it counts; it becomes no surer."""
    y_mm, confidence, doubt_mm = row.y_mm.copy(), row.confidence.copy(), row.doubt_mm.copy()
    new = np.flatnonzero(where)
    at = start + new
    y_mm[at] = row.top_mm + (readings.y_bin[n, new] + 0.5) * _BIN_MM
    mass = readings.mass[n, new] * readings.presence[n, new] * np.float32(inferred)
    confidence[at] = np.minimum(confidence[at], mass)
    doubt_mm[at] = readings.doubt_bin[n, new] * np.float32(_BIN_MM)
    return replace(row, y_mm=y_mm, confidence=confidence, doubt_mm=doubt_mm)


def _apart(
    sheet: Sheet,
    rows: Sequence[_Row],
    x_mm: npt.NDArray[np.float64],
    *,
    near_mm: float = 0.5,
    shortest_mm: float = 1.5,
    beside_mm: float = 2.0,
    least: float = 0.7,
    margin: float = 0.4,
    inferred: float = 0.6,
) -> list[_Row]:
    """Read a row again that follows another's ink, if it has ink of its own and the other clearly has none.

    Parameters
    ----------
    sheet : Sheet
    rows : sequence of _Row
    x_mm : (n,)
        Paper x of the columns.
    near_mm, shortest_mm : float
        Rows that run so near for so long follow the same ink.
    beside_mm : float
        Beyond both ends of such a stretch, at most, the row is read again until it meets its line.
    least, margin : float
        Share of the stretch in which the row has ink of its own, and by how much that is more than the other's.
    inferred : float
        Its confidence, of what it were otherwise.
    """
    rows = list(rows)
    beside = round(beside_mm * ROW_COLUMNS_PER_MM)
    for pair in combinations([k for k, row in enumerate(rows) if row.log_p is not None], 2):
        lines = (rows[k].y_mm for k in pair)
        for start, stop in runs_as_one(*lines, near=near_mm, shortest=shortest_mm * ROW_COLUMNS_PER_MM):
            first = max(start - beside, 0)
            part, shared = slice(first, stop + beside), slice(start - first, stop - first)
            tried = []
            for row, other in (pair, pair[::-1]):
                readings, own = _by_itself(sheet, rows, row, other, x_mm, part)
                tried.append((float(own[shared].mean()), row, readings))
            (fewer, _, _), (share, row, readings) = sorted(tried, key=lambda one: one[0])
            if share >= least and share - fewer >= margin:
                where = _until_it_meets(rows[row], readings, first, shared)
                rows[row] = _replaced(rows[row], first, readings, 0, where, inferred=inferred)
    return rows


def _by_itself(
    sheet: Sheet, rows: Sequence[_Row], k: int, other: int, x_mm: npt.NDArray[np.float64], part: slice
) -> tuple[RowReadings, Flags]:
    """Read some columns of a row without another's ink: the reading, and where (n,) it lies on ink of its own."""
    row, others_mm = rows[k], np.stack([each.y_mm[part] for j, each in enumerate(rows) if j != k])
    assert row.log_p is not None and row.presence is not None
    at_mm = row.top_mm + (np.arange(len(row.log_p), dtype=np.float32) + 0.5) * np.float32(_BIN_MM)
    left = hidden(row.log_p[:, part], at_mm, rows[other].y_mm[part])
    readings = _readings(left[None], row.presence[None, part])
    y_bin = readings.y_bin[0]
    y_mm = row.top_mm + (y_bin + 0.5) * np.float32(_BIN_MM)
    return readings, on_own_ink(sheet.ink(x_mm[part], at_mm)[..., 1], y_bin, y_mm, others_mm)


def _until_it_meets(row: _Row, readings: RowReadings, first: int, shared: slice, *, near_mm: float = 1.0) -> Flags:
    """Mark the columns (n,) read again from `first` on, from those `shared` on to where the row meets its line."""
    y_mm = row.y_mm[first : first + readings.y_bin.shape[1]]
    away = np.abs(row.top_mm + (readings.y_bin[0] + 0.5) * _BIN_MM - y_mm) > near_mm
    away[shared] = True
    runs, _ = label(away)
    return np.asarray((runs == runs[shared.start]) & np.isfinite(y_mm))


def _read_on_paper(
    sheet: Sheet, rows: Sequence[RowBand], across_mm: tuple[float, float], network: Network, read: RowReader
) -> list[_Row]:
    """Read every row that is not drawn, and those that reach the edge of their strip again in one twice as tall."""
    found = {k: _drawn(y_mm) for k, y_mm in explained_rows(sheet, rows, _columns_mm(across_mm)).items()}
    waiting = [k for k in range(len(rows)) if k not in found]
    for bins in (ROW_BINS, 2 * ROW_BINS):
        if waiting:
            tops, strips = _cut_strips(sheet, [rows[k] for k in waiting], across_mm, bins)
            found |= dict(zip(waiting, _rows_on_paper(read(strips, network), tops, bins), strict=True))
            waiting = [k for k in waiting if found[k].cut]
    return [found[k] for k in range(len(rows))]


def _drawn(y_mm: FloatArray) -> _Row:
    """Return a row that is known from the page's own lines."""
    known = np.isfinite(y_mm).astype(np.float32)
    return _Row(y_mm=y_mm, confidence=known, doubt_mm=np.zeros_like(known), cut=False)
