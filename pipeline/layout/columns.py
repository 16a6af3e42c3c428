"""Where the columns of a page stand, in paper millimetres.

The rows of a page start together and change leads together.  Labels are printed somewhere near the start of their
column, so they show the order and roughly the pitch.  The exact places follow from the ends of the rows, their common
jumps and gaps, and the paper speeds of carts (12.5, 25 and 50 mm/s).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pipeline.datatypes import FloatArray, Layout, Spans, TraceSet
from pipeline.layout.weights import COLUMNS
from pipeline.runs import runs_of

PACES_MM_PER_S = (12.5, 25.0, 50.0)  # paper speeds that pages of several columns are printed at

Float64 = npt.NDArray[np.float64]


def traced_span(row: FloatArray, columns_per_mm: float) -> tuple[int, int] | None:
    """Find where a row's trace runs, leaving out stray specks at its ends.

    Parameters
    ----------
    row : (n_columns,) float32
        Paper y, NaN = no trace.
    columns_per_mm : float

    Returns
    -------
    (first, last) column, inclusive
        The first (last) traced column counts if most of the paper behind (before) it is traced, see
        `ColumnWeights.span_window_mm`; None if there is no such run.
    """
    known = np.isfinite(row)
    window = max(min(round(COLUMNS.span_window_mm * columns_per_mm), known.size), 1)
    total = np.concatenate([[0], np.cumsum(known)])
    share_after = (total[window:] - total[:-window]) / window  # of the window that starts at each column
    first = np.flatnonzero(known[: share_after.size] & (share_after >= COLUMNS.span_share))
    last = np.flatnonzero(known[window - 1 :] & (share_after >= COLUMNS.span_share)) + window - 1
    if first.size == 0 or last.size == 0 or last[-1] <= first[0]:
        return None
    return int(first[0]), int(last[-1])


def _bell(off: Float64) -> Float64:
    """Return a bell curve of height 1 over distances in standard deviations."""
    return np.asarray(np.exp(-0.5 * off**2), np.float64)


def _pulse_columns(height_mm: FloatArray, columns_per_mm: float) -> int:
    """Columns to drop from the start of a row because they draw a calibration pulse; 0 if they do not.

    A pulse is a flat top above the zero line, entered and left within half a millimetre.
    """
    head = height_mm[: round(COLUMNS.pulse_within_mm * columns_per_mm)]
    step = max(round(0.5 * columns_per_mm), 1)
    high = np.nan_to_num(head, nan=0.0) > COLUMNS.pulse_height_mm
    for first, stop in runs_of(high):
        top = head[first + step : stop - step]
        if (
            stop - first < COLUMNS.pulse_top_mm * columns_per_mm
            or top.size == 0
            or np.nanpercentile(np.abs(top - np.median(top)), 95) > COLUMNS.pulse_level_mm
        ):
            continue
        after = height_mm[stop + step : stop + 4 * step]
        if after.size and np.median(np.nan_to_num(after, nan=0.0)) < COLUMNS.pulse_fall * np.median(top):
            return stop + step
    return 0


def _common_edge(edges: Float64) -> float:
    """Find the outermost (smallest) edge that several rows share; one row alone is believed if there is no second."""
    ordered = np.sort(edges)
    for edge in ordered:
        together = ordered[np.abs(ordered - edge) <= COLUMNS.edge_tolerance_mm]
        if together.size >= min(2, ordered.size):
            return float(np.quantile(together, COLUMNS.edge_quantile))  # a tracer starts late rather than early
    return float(np.median(ordered))


@lru_cache(maxsize=16)  # layouts share them
def page_span(traces: TraceSet, rows: tuple[int, ...]) -> tuple[float, float] | None:
    """Find where the signals of a page start and end; calibration pulses do not count.

    Parameters
    ----------
    traces : TraceSet
    rows : tuple of int
        Traced rows that belong to the layout.

    Returns
    -------
    (start, end) paper x in mm; None if none of the rows holds a trace.
    """
    starts, ends = [], []
    for index in rows:
        row = traces.row_mm[index]
        span = traced_span(row, traces.columns_per_mm)
        if span is None:
            continue
        first, last = span
        height_mm = traces.baseline_mm[index] - row[first : last + 1]
        first += _pulse_columns(height_mm, traces.columns_per_mm)
        last -= _pulse_columns(height_mm[::-1], traces.columns_per_mm)
        while first < last and not np.isfinite(row[first]):
            first += 1
        starts.append(first)
        ends.append(last + 1)
    if not starts:
        return None
    scale = traces.columns_per_mm
    start = _common_edge(np.asarray(starts) / scale)
    end = -_common_edge(-np.asarray(ends) / scale)
    return traces.x0_mm + start, traces.x0_mm + end


def _jumps(traces: TraceSet, rows: Sequence[int], centre_mm: float, reach_mm: float) -> tuple[Float64, Float64]:
    """Measure how far each row jumps at each column near `centre_mm`, beyond what its waves explain.

    Returns paper x (m,) and the jumps (n_rows, m) in mm, at least 0.
    """
    scale = traces.columns_per_mm
    near, far = max(round(0.15 * scale), 1), max(round(0.8 * scale), 5)
    columns = np.arange(
        max(round((centre_mm - reach_mm - traces.x0_mm) * scale), far),
        min(round((centre_mm + reach_mm - traces.x0_mm) * scale), traces.row_mm.shape[1] - far) + 1,
    )
    jumps = np.zeros((len(rows), columns.size))
    for number, index in enumerate(rows):
        row = traces.row_mm[index].astype(np.float64)
        left = np.stack([row[columns - step] for step in range(near, far)])
        right = np.stack([row[columns + step] for step in range(near - 1, far - 1)])
        jump = np.abs(right[:3].mean(0) - left[:3].mean(0)) - np.ptp(left, axis=0) - np.ptp(right, axis=0)
        jumps[number] = np.clip(np.nan_to_num(jump, nan=0.0), 0.0, COLUMNS.most_jump_mm)
    return traces.x0_mm + columns / scale, jumps


def _gap(traces: TraceSet, rows: Sequence[int], centre_mm: float, reach_mm: float) -> tuple[float, float] | None:
    """Find a gap that most rows share near `centre_mm`: paper x of its two sides."""
    scale = traces.columns_per_mm
    first = max(round((centre_mm - reach_mm - traces.x0_mm) * scale), 0)
    window = traces.row_mm[list(rows), first : round((centre_mm + reach_mm - traces.x0_mm) * scale)]
    empty = np.mean(~np.isfinite(window), axis=0) > COLUMNS.gap_share
    gaps = [
        (start, stop)
        for start, stop in runs_of(empty)
        if COLUMNS.gap_mm * scale <= stop - start and start > 0 and stop < empty.size
    ]
    if not gaps:
        return None
    start, stop = max(gaps, key=lambda gap: gap[1] - gap[0])
    return traces.x0_mm + (first + start) / scale, traces.x0_mm + (first + stop) / scale


def _blank(traces: TraceSet, rows: Sequence[int]) -> Float64:
    """Share of the rows that show nothing at each column (n,): the tracer bridges gaps, with little confidence."""
    seen = np.where(np.isfinite(traces.row_mm[list(rows)]), traces.confidence[list(rows)], 0.0)
    return np.asarray(1.0 - np.clip(seen.astype(np.float64), 0.0, 1.0).mean(0))


def _blank_mm(traces: TraceSet, blank: Float64, start_mm: Float64, end_mm: Float64) -> Float64:
    """How many mm between two paper x speak for a gap there; below 0 if most of it shows a trace."""
    edges_mm = traces.x0_mm + (np.arange(blank.size + 1) - 0.5) / traces.columns_per_mm
    total = np.concatenate([[0.0], np.cumsum(blank - COLUMNS.gap_blank)]) / traces.columns_per_mm
    return np.asarray(np.interp(end_mm, edges_mm, total) - np.interp(start_mm, edges_mm, total))


@lru_cache(maxsize=16)  # layouts share them
def _lay_columns(
    traces: TraceSet,
    rows: tuple[int, ...],
    coarse: tuple[float, float],
    n: int,
    usual: tuple[float, ...],
    span: tuple[float, float],
    seen_mm: tuple[float, ...],
) -> tuple[float, float, float]:
    """Lay `n` evenly spaced columns over all that shows where they stand; (start, pitch, gap) in mm.

    Carts space columns evenly to a hundredth of a millimetre, so that every boundary speaks for all: the jumps or gaps
    the rows share there, the marks that the layout network saw, and the first and last ink.  Columns are as wide as
    carts print them, or as the page is; between them some carts leave a gap.
    """
    reach_mm = COLUMNS.reach_mm
    widths = [width for width in usual if abs(width / coarse[1] - 1.0) < COLUMNS.other_width]
    start = coarse[0] + np.arange(-reach_mm, reach_mm + 0.01, 0.05)[:, None]
    stretches = 1 + np.arange(-COLUMNS.stretch, COLUMNS.stretch + 1e-4, 0.0008)
    other = [width * stretches for width in widths if abs(width / coarse[1] - 1.0) > COLUMNS.stretch]
    gaps_mm = np.arange(COLUMNS.gap_mm, COLUMNS.widest_gap_mm, 0.05)
    tried = [(pitch, 0 * pitch) for pitch in (coarse[1] * stretches, *other)]
    tried += [(width + gaps_mm, gaps_mm) for width in widths]
    first_mm, last_mm = (float(edge([edge(pitch) for pitch, _ in tried])) for edge in (np.min, np.max))
    marks = np.asarray(seen_mm, np.float64)
    blank = _blank(traces, rows)
    steps = [
        _jumps(traces, rows, coarse[0] + k * (first_mm + last_mm) / 2, reach_mm + k * (last_mm - first_mm) / 2)
        for k in range(1, n)
    ]
    best = (-np.inf, coarse[0], coarse[1], 0.0)
    spread = COLUMNS.strange_spread if usual else COLUMNS.guessed_spread
    for pitch, gap in tried:
        plain = not gap.any()
        strangeness = np.min([np.abs((pitch - gap) / known - 1) for known in (coarse[1], *usual)], axis=0)
        score = COLUMNS.start_ink * _bell((start - span[0]) / COLUMNS.start_ink_spread_mm)
        score = score + COLUMNS.end_ink * _bell((start + n * pitch - gap - span[1]) / COLUMNS.end_ink_spread_mm)
        score = score - COLUMNS.strange * np.minimum((strangeness / spread) ** 2, COLUMNS.strange_most)
        for k in range(n + 1):
            at = start + k * pitch
            if marks.size and (plain or k in (0, n)):
                score += COLUMNS.mark * _bell((at[..., None] - marks) / COLUMNS.mark_spread_mm).sum(-1) / len(rows)
            if 0 < k < n:
                x_mm, jump_mm = steps[k - 1]
                shared = np.clip(jump_mm.mean(0), 0.0, 1.0)
                score += np.interp(at, x_mm, shared, left=0.0, right=0.0) if x_mm.size else 0.0
                if not plain:
                    score += COLUMNS.gap * _blank_mm(traces, blank, at - gap, at)
        i, j = np.unravel_index(int(np.argmax(score)), score.shape)
        if score[i, j] > best[0]:
            best = (float(score[i, j]), float(start[i, 0]), float(pitch[j]), float(gap[j]))
    _, start_mm, pitch_mm, gap_mm = best
    if gap_mm:
        width_mm = pitch_mm - gap_mm
        start_mm, pitch_mm = _settle_gaps(traces, rows, (start_mm, pitch_mm, gap_mm), n, usual, span)
        return start_mm, pitch_mm, pitch_mm - width_mm
    start_mm = _steepest(traces, rows, start_mm, pitch_mm, n)
    return (*_settle(start_mm, pitch_mm, n, usual, seen_mm), 0.0)


def _steepest(
    traces: TraceSet, rows: Sequence[int], start_mm: float, pitch_mm: float, n: int, *, reach_mm: float = 0.3
) -> float:
    """Move `start_mm` by at most `reach_mm` to where the rows step most at the column starts, to the column."""
    scale = traces.columns_per_mm
    y_mm = traces.row_mm[list(rows)].astype(np.float64)
    steps = np.abs(np.diff(y_mm, axis=1, prepend=np.nan))
    begins = np.isnan(np.roll(y_mm, 1, axis=1)) & np.isfinite(y_mm)
    step = np.where(begins, 1.0, np.nan_to_num(steps, nan=0.0).clip(0.0, 1.0)).sum(0)
    offsets = np.arange(-round(reach_mm * scale), round(reach_mm * scale) + 1)
    at = np.round((start_mm + pitch_mm * np.arange(1, n)[:, None] - traces.x0_mm) * scale).astype(np.int64) + offsets
    total = np.where((at >= 0) & (at < step.size), step[at.clip(0, step.size - 1)], 0.0).sum(0)
    best = int(np.argmax(total * np.exp(-2.0 * (offsets / (reach_mm * scale)) ** 2)))
    return traces.x0_mm + float(at[0, best]) / scale - pitch_mm


def _settle(
    start_mm: float, pitch_mm: float, n: int, usual: Sequence[float], seen_mm: Sequence[float]
) -> tuple[float, float]:
    """Move evenly spaced columns onto the marks near their boundaries; (start, pitch) in mm.

    Where separators are printed, marks show a boundary to some hundredths of a millimetre; steps of the rows do not,
    because the tracer follows separators.  Without separators it is the reverse: marks scatter, and nothing moves.  The
    first boundary does not count: no separator stands there, and its marks may come late.  Wrong marks get no weight,
    and a pitch next to one that carts print is drawn towards it.
    """
    marks = np.asarray(seen_mm, np.float64)
    usual_mm = min(usual, key=lambda known: abs(known / pitch_mm - 1), default=0.0)
    usual_spread_mm = COLUMNS.settle_pitch * usual_mm
    settled = np.array([start_mm, pitch_mm])
    for step in range(COLUMNS.settle_steps):
        column = np.round((marks - settled[0]) / settled[1])
        off_mm = marks - settled[0] - column * settled[1]
        near = (column >= 1) & (column <= n) & (np.abs(off_mm) <= COLUMNS.settle_near_mm)
        if len(np.unique(column[near & (column < n)])) < 2:
            return start_mm, pitch_mm
        spread_mm = COLUMNS.settle_spread_mm * (3.0 if 2 * step < COLUMNS.settle_steps else 1.0)
        weight = near / (1 + (off_mm / spread_mm) ** 2) ** 2
        usual_off_mm = usual_mm - settled[1]
        pull = (
            (spread_mm / usual_spread_mm) ** 2 / (1 + (usual_off_mm / (2 * usual_spread_mm)) ** 2) ** 2
            if usual
            else 0.0
        )
        design = np.stack([np.ones_like(column), column])
        normal = design * weight @ design.T + np.diag([0.0, pull])
        settled += np.linalg.solve(normal, design @ (weight * off_mm) + [0.0, pull * usual_off_mm])
    agree = float(np.median(np.abs(off_mm[near]))) <= COLUMNS.settle_spread_mm
    return (float(settled[0]), float(settled[1])) if agree else (start_mm, pitch_mm)


def _settle_gaps(
    traces: TraceSet,
    rows: Sequence[int],
    laid: tuple[float, float, float],
    n: int,
    usual: Sequence[float],
    span: tuple[float, float],
) -> tuple[float, float]:
    """Move evenly spaced columns to where most rows are seen again behind their gaps; (start, pitch) in mm.

    A row may run on through its gap, and be doubted elsewhere near it: where most
    agree decides, and a width next to one that carts print is drawn towards it.
    """
    start_mm, pitch_mm, gap_mm = laid
    scale, near_mm, spread_mm = traces.columns_per_mm, COLUMNS.settle_near_mm, COLUMNS.settle_spread_mm
    votes = [(0.0, span[0] + COLUMNS.ink_early_mm)]
    for k in range(n):
        at_mm = start_mm + k * pitch_mm
        first = max(round((at_mm - near_mm - traces.x0_mm) * scale), 1)
        window = np.s_[list(rows), first - 1 : max(round((at_mm + near_mm - traces.x0_mm) * scale), first)]
        there = traces.confidence[window] > COLUMNS.seen if k else np.isfinite(traces.row_mm[window])
        again = (np.flatnonzero(~row[:-1] & row[1:]) for row in there)
        early_mm = traces.x0_mm + (0.0 if k else COLUMNS.ink_early_mm)
        votes += [(float(k), early_mm + (first + found[-1]) / scale) for found in again if found.size]
    column, x_mm = np.array(votes).T
    off_mm = x_mm - start_mm - column * pitch_mm
    moves = np.arange(-COLUMNS.settle_reach_mm, COLUMNS.settle_reach_mm + 1e-9, 0.02)[:, None]
    stretches = moves.T / (n - 1)
    usual_mm = min(usual, key=lambda width: abs(width + gap_mm - pitch_mm))
    usual_spread_mm = COLUMNS.settle_pitch * usual_mm
    agree = sum(_bell((off - moves - k * stretches) / spread_mm) for k, off in zip(column, off_mm, strict=True))
    agree = agree + 1 / (1 + ((pitch_mm - gap_mm + stretches - usual_mm) / (2 * usual_spread_mm)) ** 2)
    best = np.unravel_index(int(np.argmax(agree * np.exp(-0.5 * (moves / COLUMNS.settle_reach_mm) ** 2))), agree.shape)
    settled = np.array([start_mm + moves[best[0], 0], pitch_mm + stretches[0, best[1]]])
    design = np.stack([np.ones_like(column), column])
    for _ in range(COLUMNS.settle_steps):
        off_mm = x_mm - settled @ design
        weight = _bell(off_mm / spread_mm)
        usual_off_mm = usual_mm + gap_mm - settled[1]
        pull = (spread_mm / usual_spread_mm) ** 2 / (1 + (usual_off_mm / (2 * usual_spread_mm)) ** 2) ** 2
        normal = design * weight @ design.T + np.diag([1e-6, pull])
        settled += np.linalg.solve(normal, design @ (weight * off_mm) + [0.0, pull * usual_off_mm])
    return float(settled[0]), float(settled[1])


def _gap_of_strips(traces: TraceSet, strips: Sequence[int], span: tuple[float, float], n: int) -> float:
    """Return how far `n` columns stand apart, in mm: a strip as long as all of them has no gaps and ends earlier."""
    of_strips = page_span(traces, tuple(index for index in strips if index >= 0))
    if of_strips is None or abs(of_strips[0] - span[0]) > COLUMNS.edge_tolerance_mm:
        return 0.0
    earlier_mm = span[1] - of_strips[1]
    gap_mm = earlier_mm / (n - 1)
    told = earlier_mm >= COLUMNS.strip_ends_mm and COLUMNS.gap_mm <= gap_mm <= COLUMNS.widest_gap_mm
    return gap_mm if told else 0.0


def _pitch(n: int, usual: Sequence[float], extent_mm: float, label_pitch_mm: float | None) -> float:
    """Choose the distance of column starts: what carts print, what the rows measure, or what the labels say.

    A page may be cut at the right, its trace may run into a pulse, and labels may be spaced wider than their columns:
    each explanation costs what it leaves unexplained.
    """
    candidates = [*usual, extent_mm / n, *([label_pitch_mm] if label_pitch_mm else [])]

    def cost(pitch_mm: float) -> float:
        over_mm = extent_mm - n * pitch_mm
        cut, short = min(1.0, over_mm / COLUMNS.cut_mm), COLUMNS.short * min(1.0, -over_mm / COLUMNS.short_mm)
        penalty = cut if over_mm > 0 else short
        if label_pitch_mm:
            off = abs(label_pitch_mm / pitch_mm - 1.0)
            penalty += COLUMNS.label_pitch * min(1.0, off / COLUMNS.label_pitch_spread)
        return penalty + (0.0 if pitch_mm in usual else COLUMNS.unusual_pitch)

    best = min(candidates, key=cost)
    # A whole page measures its own pitch better than the grid's scale knows it.
    return extent_mm / n if abs(extent_mm / (n * best) - 1.0) <= COLUMNS.whole_page else best


def _start_of_marks(start_mm: float, pitch_mm: float, n_columns: int, seen_mm: Sequence[float]) -> float:
    """Shift the start of the columns to where most boundary marks are explained by it.

    A row's first wave may be too faint to be traced, while separators and the other rows' ends still show the raster.
    The start moves only if the marks speak for it plainly.
    """
    marks = np.asarray(seen_mm, np.float64)
    if marks.size < 3:
        return start_mm
    near_mm, reach_mm = COLUMNS.shift_near_mm, COLUMNS.shift_reach_mm
    shifts = np.arange(-reach_mm, reach_mm + 0.01, 0.25)
    lines = start_mm + shifts[:, None] + pitch_mm * np.arange(n_columns)[None, :]
    support = np.clip(1 - np.abs(lines[:, :, None] - marks) / near_mm, 0, None).max(1).sum(1)
    best = int(np.argmax(support - 0.01 * np.abs(shifts)))
    here = float(support[np.argmin(np.abs(shifts))])
    if support[best] < COLUMNS.shift_least or support[best] < COLUMNS.shift_ratio * here + 1.0:
        return start_mm
    near = marks[np.abs(lines[best][:, None] - marks).min(0) < near_mm]
    offsets = near[:, None] - lines[best]
    return float(start_mm + shifts[best] + np.median(offsets[np.arange(len(near)), np.abs(offsets).argmin(1)]))


def _drawn(traces: TraceSet, rows: Sequence[int], at_mm: float) -> float:
    """Return where lines of a drawing begin near `at_mm` in these rows; `at_mm` itself if none does."""
    starts = [traces.x0_mm + line.first / traces.columns_per_mm for line in traces.lines if line.row in rows]
    near = [start for start in starts if abs(start - at_mm) <= COLUMNS.drawn_reach_mm]
    return float(np.median(near)) if near else at_mm


def locate_columns(
    traces: TraceSet,
    layout: Layout,
    rows: Sequence[int],
    strips: Sequence[int],
    *,
    label_pitch_mm: float | None = None,
    seen_mm: Sequence[float] = (),
    guessed: bool = False,
) -> Spans:
    """Find where each column of a page starts and ends.

    Parameters
    ----------
    traces : TraceSet
    layout : Layout
    rows, strips : sequence of int
        Traced rows of the short columns and of the rhythm strips; -1 = missing.
    label_pitch_mm : float, optional
        Distance of the labels of neighbouring columns.
    seen_mm : sequence of float
        Paper x where the layout network saw a lead's stretch begin.
    guessed : bool
        The scale of the page is a guess: then no width is one that carts print.

    Returns
    -------
    tuple of (start, end), one a column, paper x in mm; empty if nothing is traced.
    """
    short = [index for index in rows if index >= 0]
    span = page_span(traces, (*short, *(index for index in strips if index >= 0)))
    if span is None:
        return ()
    start_mm, end_mm = span
    n = len(layout.rows[0])
    if n == 1 or not short:
        start_mm = _start_of_marks(start_mm, end_mm - start_mm, 1, seen_mm)
        start_mm = _drawn(traces, [*short, *strips], start_mm)
        width_mm = (end_mm - start_mm) / n
        return tuple((start_mm + k * width_mm, start_mm + (k + 1) * width_mm) for k in range(n))
    usual = [] if guessed else [layout.column_seconds * speed for speed in PACES_MM_PER_S]
    told_mm = _gap_of_strips(traces, strips, span, n) if guessed else 0.0
    end_mm += told_mm  # as if a gap followed the last column, too
    pitch_mm = _pitch(n, usual, end_mm - start_mm, label_pitch_mm)
    start_mm = _start_of_marks(start_mm, pitch_mm, n, seen_mm)
    start_mm, pitch_mm, gap_mm = _lay_columns(
        traces, tuple(short), (start_mm, pitch_mm), n, tuple(usual), (span[0], end_mm), tuple(seen_mm)
    )
    gap_mm = max(gap_mm, told_mm)
    starts = [_drawn(traces, short, start_mm + k * pitch_mm) for k in range(n)]
    gaps = [_gap(traces, short, start, 3.0) for start in starts[1:]]
    bridged_mm = max(gap_mm - COLUMNS.ink_early_mm, 0.0)  # the ink ends half a pen behind the line
    ends = [
        start - bridged_mm if gap is None else min(gap[0], start) for start, gap in zip(starts[1:], gaps, strict=True)
    ]
    ends.append(max(min(end_mm, start_mm + n * pitch_mm - gap_mm + 1.0), starts[-1]))
    return tuple(zip(starts, ends, strict=True))
