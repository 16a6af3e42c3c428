"""The columns of a page, laid roughly, are settled on all that shows where they begin and end, to a part of a sample.

Carts print columns of a whole number of samples at their paper speed: on a scan with a grid the width of a column is
known to 0.01 mm before it is measured.  So every edge of every row speaks for the one start.  Start, pitch, width and
how far each kind of edge stands off its sample are fitted together; each kind counts as far as it agrees with itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pipeline.datatypes import LayoutMatch, TraceSet
from pipeline.layout.columns import PACES_MM_PER_S
from pipeline.layout.edges import ENDS, STARTS, Edge, Kind, ends, steps
from pipeline.layout.weights import SETTLE
from pipeline.sheet.paper import Sheet

Float64 = npt.NDArray[np.float64]

_KINDS = tuple(Kind)
_START, _PITCH, _WIDTH, _PEN, _SEEN = range(5)  # what is fitted, besides an offset for every kind of edge
_OFFSETS = 5
_INK = frozenset({Kind.INK_START, Kind.INK_END})
_SIDES = STARTS | ENDS


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Columns:
    """Columns as they were laid, and what carts print."""

    start_mm: float
    pitch_mm: float
    width_mm: float
    n: int
    usual_mm: float  # the width that carts print which is nearest
    usual_spread_mm: float
    sample_mm: float  # of the page, at 500 Hz
    guessed: bool  # the scale, so that no width is a usual one

    @property
    def gapped(self) -> bool:
        """Tell whether they were laid with gaps."""
        return self.pitch_mm - self.width_mm > SETTLE.least_gap_mm and self.n > 1

    @property
    def usual(self) -> bool:
        """Tell whether they may be as wide as carts print them."""
        near = SETTLE.near if self.n > 1 else SETTLE.near_alone
        return not self.guessed and abs(self.width_mm / self.usual_mm - 1.0) < near


def settle_columns(
    match: LayoutMatch,
    traces: TraceSet,
    sheet: Sheet,
    seen_mm: Sequence[float],
    speed_mm_per_s: float | None = None,
) -> LayoutMatch:
    """Settle the columns of a page on their edges.

    Parameters
    ----------
    match : LayoutMatch
        With columns to about a millimetre.
    traces : TraceSet
    sheet : Sheet
    seen_mm : sequence of float
        Paper x where the layout network saw a lead's stretch begin.
    speed_mm_per_s : float, optional
        Of the paper; as the columns' width has it if not given, which may be a factor of two off.

    Returns
    -------
    LayoutMatch
        As it is where a drawing's own lines say where columns stand.  Starts stand between two of the tracer's columns
        only on a sheet whose map is as exact as that.  Where the scale is a guess, columns have any width.
    """
    settled = _settled(match, traces, sheet, seen_mm, speed_mm_per_s)
    doubt_mm = sheet.rectified.grid_scale.doubt_mm
    if doubt_mm is not None and doubt_mm <= SETTLE.exact_map_mm:
        return settled
    column_mm = np.array(settled.column_mm).reshape(-1, 2)
    at = np.round((column_mm - traces.x0_mm) * traces.columns_per_mm) / traces.columns_per_mm + traces.x0_mm
    return replace(settled, column_mm=tuple((start, end) for start, end in at.tolist()))


def _settled(
    match: LayoutMatch, traces: TraceSet, sheet: Sheet, seen_mm: Sequence[float], speed_mm_per_s: float | None
) -> LayoutMatch:
    """Settle the columns of a page on their edges, to any part of a sample."""
    short, rows = _traced(match, traces)
    source = sheet.rectified.grid_scale.source
    if not match.column_mm or not rows or any(line.row in rows for line in traces.lines):
        return match
    laid = _laid(match, source, speed_mm_per_s)
    if not laid.guessed:
        laid = _by_marks(laid, np.asarray(seen_mm, np.float64))
    if source in ("default", "columns"):
        laid = _with_gap(laid, traces, sheet, short)
    edges = _edges(traces, sheet, short, rows, laid)
    if laid.guessed and laid.n > 1:  # the last column may be cut, or run into a pulse, and measures no width
        edges = [edge for edge in edges if edge.kind not in (Kind.SEEN_END, Kind.INK_END) or edge.column < laid.n - 1]
    marks = [] if laid.gapped or laid.n == 1 else _marks(seen_mm, laid)
    regular = _is_regular(marks, laid)
    if regular and not _agree([edge for edge in edges if edge.kind == Kind.STEP], laid):
        edges = [edge for edge in edges if edge.kind == Kind.STEP]  # separators hide where rows begin and end
    # marks of the last column's end come early where nothing is printed there
    edges += marks if regular else [mark for mark in marks if mark.column < laid.n]
    if not edges:
        return match
    start_mm, pitch_mm, width_mm = _fit(edges, laid, regular)
    moved_mm = [start_mm - laid.start_mm, *([pitch_mm - laid.pitch_mm] if laid.n > 1 else [])]
    if np.abs(moved_mm).max() > SETTLE.most_mm:
        return match
    gapped = pitch_mm - width_mm > SETTLE.least_gap_mm
    starts = [start_mm + k * pitch_mm for k in range(laid.n)]
    stops = [start + (width_mm if gapped else pitch_mm) for start in starts[:-1]]
    stops.append(max(match.column_mm[-1][1], starts[-1] + 1.0))
    return replace(match, column_mm=tuple(zip(starts, stops, strict=True)))


def measure_lean(match: LayoutMatch, traces: TraceSet, sheet: Sheet) -> float:
    """Measure how far the edges of the columns lean: a sheet without a grid is turned level by its rows, which wander.

    Parameters
    ----------
    match : LayoutMatch
        With settled columns.
    traces : TraceSet
    sheet : Sheet

    Returns
    -------
    float
        By how many millimetres an edge moves to the right for each one down; 0 where too few rows agree.
    """
    short, rows = _traced(match, traces)
    if not match.column_mm or not rows:
        return 0.0
    groups: dict[tuple[Kind, int], list[Edge]] = {}
    for edge in _edges(traces, sheet, short, rows, _laid(match, sheet.rectified.grid_scale.source)):
        groups.setdefault((edge.kind, edge.column), []).append(edge)
    slopes: list[float] = []
    for edges in groups.values():
        x_mm = np.array([edge.x_mm for edge in edges])
        y_mm = traces.baseline_mm[[edge.row for edge in edges]].astype(np.float64)
        i, j = np.triu_indices(len(edges), 1)
        far = np.abs(y_mm[j] - y_mm[i]) >= SETTLE.lean_over_mm
        slopes += ((x_mm[j] - x_mm[i])[far] / (y_mm[j] - y_mm[i])[far]).tolist()
    if len(slopes) < SETTLE.least_slopes:
        return 0.0
    lean, spread = float(np.median(slopes)), _spread(np.array(slopes))
    return lean if spread < SETTLE.lean_spread and abs(lean) < SETTLE.most_lean else 0.0


def _traced(match: LayoutMatch, traces: TraceSet) -> tuple[list[int], list[int]]:
    """List the traced rows of short leads, and these with the rhythm strips."""
    n = len(match.layout.rows)
    there = [[row for row in part if 0 <= row < len(traces.row_mm)] for part in (match.rows[:n], match.rows[n:])]
    return there[0], there[0] + there[1]


def _laid(match: LayoutMatch, source: str, speed_mm_per_s: float | None = None) -> _Columns:
    """Say how the columns of a match were laid."""
    spans, seconds = match.column_mm, match.layout.column_seconds
    n = len(spans)
    pitch_mm = (spans[-1][0] - spans[0][0]) / (n - 1) if n > 1 else spans[0][1] - spans[0][0]
    gap_mm = float(np.median([after[0] - before[1] for before, after in pairwise(spans)] or [0.0]))
    known_s = {seconds, SETTLE.page_s / n} if n > 1 else {seconds}
    widths_mm = sorted(pace * known for pace in PACES_MM_PER_S for known in known_s)
    usual_mm = min(widths_mm, key=lambda width: abs(width / (pitch_mm - gap_mm) - 1))
    guessed = source == "default"
    if gap_mm > SETTLE.least_gap_mm and abs((pitch_mm - gap_mm) / usual_mm - 1) < SETTLE.near and not guessed:
        gap_mm = pitch_mm - usual_mm  # a gap is seen to half a millimetre only
    pace_mm = min(PACES_MM_PER_S, key=lambda pace: abs(pace * seconds / usual_mm - 1))
    spread = SETTLE.usual_spread_guessed if source == "columns" else SETTLE.usual_spread
    return _Columns(
        start_mm=spans[0][0],
        pitch_mm=pitch_mm,
        width_mm=pitch_mm - gap_mm,
        n=n,
        usual_mm=usual_mm,
        usual_spread_mm=spread * usual_mm,
        sample_mm=(speed_mm_per_s or pace_mm) / 500.0,
        guessed=guessed,
    )


def _with_gap(laid: _Columns, traces: TraceSet, sheet: Sheet, short: Sequence[int]) -> _Columns:
    """Give columns of a width that no grid measured the gap that enough rows show between them."""
    starts = [(k, laid.start_mm + k * laid.pitch_mm) for k in range(1, laid.n)]
    aside_mm = SETTLE.beside_gap_mm
    last = ends(traces, sheet, short, [(k, x - aside_mm) for k, x in starts], (Kind.SEEN_LAST, Kind.INK_END), -1)
    again = ends(traces, sheet, short, [(k, x + aside_mm) for k, x in starts], (Kind.SEEN_AGAIN, Kind.INK_START), 1)
    ended_mm = {(edge.row, edge.column): edge.x_mm for edge in last if edge.kind == Kind.SEEN_LAST}
    began = [edge for edge in again if edge.kind == Kind.SEEN_AGAIN and (edge.row, edge.column) in ended_mm]
    gaps_mm = np.array([edge.x_mm - ended_mm[edge.row, edge.column] for edge in began])
    if gaps_mm.size < max(2.0, SETTLE.rows_with_gap * len(short) * (laid.n - 1)):
        return laid
    gap_mm, middle_mm = float(np.median(gaps_mm)), np.array([edge.x_mm for edge in began]) - gaps_mm / 2
    if gap_mm < SETTLE.least_seen_gap_mm or _spread(gaps_mm) > SETTLE.gaps_agree_mm:
        return laid
    pitch_mm = float(np.median((middle_mm - laid.start_mm + gap_mm / 2) / [edge.column for edge in began]))
    return replace(laid, pitch_mm=pitch_mm, width_mm=pitch_mm - gap_mm)


def _by_marks(laid: _Columns, seen_mm: Float64) -> _Columns:
    """Lay columns of the usual width where many more marks stand at their boundaries than as they were laid.

    A row that runs on into its calibration pulse starts too early by up to the pulse's width.
    """
    if laid.n == 1 or seen_mm.size == 0:
        return laid
    columns = np.arange(laid.n + 1)

    def explained(start_mm: float, pitch_mm: float) -> int:
        off_mm = np.abs(seen_mm[:, None] - start_mm - columns * pitch_mm).min(1)
        return int((off_mm < SETTLE.at_mark_mm).sum())

    near = [float(x_mm - k * laid.usual_mm) for x_mm in seen_mm for k in columns]
    near = [start_mm for start_mm in near if abs(start_mm - laid.start_mm) < SETTLE.pulse_mm]
    ways = [(explained(start_mm, laid.usual_mm), -abs(start_mm - laid.start_mm), start_mm) for start_mm in near]
    most, _, start_mm = max(ways, default=(0, 0.0, laid.start_mm))
    if most < SETTLE.more_marks * explained(laid.start_mm, laid.pitch_mm) + 2:
        return laid
    return replace(laid, start_mm=start_mm, pitch_mm=laid.usual_mm, width_mm=laid.usual_mm)


def _edges(traces: TraceSet, sheet: Sheet, short: Sequence[int], rows: Sequence[int], laid: _Columns) -> list[Edge]:
    """Find the edges of the columns, beside gaps those within the page too."""
    starts = [laid.start_mm + k * laid.pitch_mm for k in range(laid.n)]
    inner = [(k, start) for k, start in enumerate(starts) if k and laid.gapped]
    inner_ends = [(k - 1, start - laid.pitch_mm + laid.width_mm) for k, start in inner]
    last = [(laid.n - 1, starts[-1] + laid.width_mm)]
    found = ends(traces, sheet, rows, [(0, laid.start_mm)], (Kind.SEEN_START, Kind.INK_START), 1)
    found += ends(traces, sheet, short, inner, (Kind.SEEN_AGAIN, Kind.INK_START), 1)
    found += ends(traces, sheet, rows, last, (Kind.SEEN_END, Kind.INK_END), -1)
    found += ends(traces, sheet, short, inner_ends, (Kind.SEEN_LAST, Kind.INK_END), -1)
    pens_mm = [edge.pen_mm for edge in found if edge.kind in _INK]
    pen_mm = float(np.median(pens_mm)) if pens_mm else 0.0
    like = [edge for edge in found if edge.kind not in _INK or pen_mm / 2 <= edge.pen_mm <= pen_mm * 2]
    return like + ([] if laid.gapped else steps(traces, short, starts))


def _marks(seen_mm: Sequence[float], laid: _Columns) -> list[Edge]:
    """List the marks near the starts of columns behind the first, and near the end of the last."""
    columns = ((round((x_mm - laid.start_mm) / laid.pitch_mm), x_mm) for x_mm in seen_mm)
    return [
        Edge(Kind.MARK, k, x_mm)
        for k, x_mm in columns
        if 1 <= k <= laid.n and abs(x_mm - laid.start_mm - k * laid.pitch_mm) < SETTLE.mark_reach_mm
    ]


def _is_regular(marks: Sequence[Edge], laid: _Columns) -> bool:
    """Tell whether marks stand as evenly as columns are printed: those of separators do, others hardly ever."""
    if len({mark.column for mark in marks}) < SETTLE.least_boundaries:
        return False
    column, x_mm = np.array([(mark.column, mark.x_mm) for mark in marks]).T
    design = np.stack([column, np.ones_like(column)], 1)
    line = np.array([laid.usual_mm, float(np.median(x_mm - column * laid.usual_mm))])
    for _ in range(20):
        weight = 1 / (1 + ((x_mm - design @ line) / SETTLE.mark_spread_mm) ** 2) ** 2
        line = np.linalg.solve(design.T @ (design * weight[:, None]), design.T @ (weight * x_mm))
    off_mm = float(np.median(np.abs(x_mm - design @ line)))
    stretch_mm = abs(float(line[0]) - laid.usual_mm) * float(np.ptp(column))
    return off_mm <= SETTLE.mark_spread_mm and stretch_mm <= SETTLE.mark_stretch_mm


def _spread(values: Float64) -> float:
    """Return the standard deviation of values, less than half of which are outliers."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def _step_spread(found: Sequence[Edge], laid: _Columns) -> float:
    """How far steps are off evenly spaced columns."""
    close = abs(laid.pitch_mm / laid.usual_mm - 1.0) < SETTLE.usual_pitch
    pitch_mm = laid.usual_mm if close else laid.pitch_mm
    return _spread(np.array([edge.x_mm - edge.column * pitch_mm for edge in found]))


def _agree(found: Sequence[Edge], laid: _Columns) -> bool:
    """Tell whether rows step where evenly spaced columns begin."""
    return len(found) >= SETTLE.least_steps and _step_spread(found, laid) <= SETTLE.steps_agree_mm


def _spreads(edges: Sequence[Edge], laid: _Columns) -> dict[Kind, float]:
    """Measure how far the edges of a kind scatter about those of their column."""
    spreads = {}
    for kind in _KINDS:
        of_kind = [edge for edge in edges if edge.kind == kind]
        off: list[float] = []
        for column in {edge.column for edge in of_kind}:
            x_mm = np.array([edge.x_mm for edge in of_kind if edge.column == column])
            off += (x_mm - np.median(x_mm)).tolist() if x_mm.size > 1 else []
        spreads[kind] = 1.4826 * float(np.median(np.abs(off))) if len(off) >= 2 else SETTLE.lone_spread_mm
        if kind == Kind.STEP and len(of_kind) > 1:
            spreads[kind] = _step_spread(of_kind, laid)
            few = len(of_kind) < SETTLE.least_steps or len({edge.column for edge in of_kind}) < min(2, laid.n - 1)
            if few:  # of one boundary alone they agree, and may all be late
                spreads[kind] = max(spreads[kind], SETTLE.lone_spread_mm)
    return spreads


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Equations:
    """Edges as linear equations of start, pitch, width and offsets, and what is known of those beforehand."""

    design: Float64  # (n_edges, n_unknowns)
    x_mm: Float64  # (n_edges,)
    spread_mm: Float64  # (n_edges,)
    mean: Float64  # (n_unknowns,)
    doubt: Float64  # (n_unknowns,) standard deviation

    def solve(self, together: bool) -> tuple[Float64, float]:
        """Fit robustly, wide at first; `together` ties pitch and width.  Returns the unknowns and their evidence."""
        fitted = self.mean.copy()
        tie = np.zeros(fitted.size)
        tie[[_PITCH, _WIDTH]] = [1.0 / SETTLE.tie_mm, -1.0 / SETTLE.tie_mm] if together else 0.0
        for step in range(SETTLE.steps):
            off = self.x_mm - self.design @ fitted
            width = np.maximum(np.maximum(3 * self.spread_mm, SETTLE.least_width_mm), 0.6 * 0.7**step)
            weight = np.exp(-0.5 * (off / width) ** 2) / self.spread_mm**2
            normal = self.design.T @ (self.design * weight[:, None]) + np.diag(self.doubt**-2) + np.outer(tie, tie)
            known = self.mean / self.doubt**2
            fitted = np.asarray(np.linalg.solve(normal, self.design.T @ (weight * self.x_mm) + known), np.float64)
        off = (self.x_mm - self.design @ fitted) / np.maximum(self.spread_mm, SETTLE.floor_mm)
        chance = (1 - SETTLE.wrong) / (2.5 * np.maximum(self.spread_mm, SETTLE.floor_mm))
        evidence = float(np.log(chance * np.exp(-0.5 * off**2) + SETTLE.wrong / 2).sum())
        unlike = np.delete((fitted - self.mean) / self.doubt, [_PITCH, _WIDTH])
        return fitted, evidence - 0.5 * float(np.minimum(unlike**2, 20.0).sum())


def _equations(edges: Sequence[Edge], laid: _Columns, regular: bool) -> _Equations:
    """Write the edges as equations."""
    design = np.zeros((len(edges), _OFFSETS + len(_KINDS)))
    x_mm = np.array([edge.x_mm for edge in edges])
    spreads = _spreads(edges, laid)
    for i, edge in enumerate(edges):
        design[i, _START], design[i, _PITCH] = 1.0, edge.column if laid.n > 1 else 0.0
        design[i, _OFFSETS + _KINDS.index(edge.kind)] = 1.0
        if edge.kind in ENDS:
            design[i, _WIDTH] = 1.0
            x_mm[i] += laid.sample_mm  # a column ends with its last sample
        if edge.kind in _SIDES:
            design[i, _PEN if edge.kind in _INK else _SEEN] = 1.0 if edge.kind in ENDS else -1.0
    offsets = dict(zip(_KINDS, zip(SETTLE.offset_mm, SETTLE.offset_doubt_mm, strict=True), strict=True))
    doubts = {
        kind: max(doubt, SETTLE.doubt_per_spread * min(spreads[kind], 0.4)) for kind, (_, doubt) in offsets.items()
    }
    spread_mm = {kind: min(max(spread, 0.012), 0.2) for kind, spread in spreads.items()}
    means = {kind: mean for kind, (mean, _) in offsets.items()}
    if regular:
        means[Kind.MARK], doubts[Kind.MARK], spread_mm[Kind.MARK] = 0.0, 0.03, 0.03
    pens = [edge.pen_mm for edge in edges if edge.kind in _INK]
    pen_mm = float(np.median(pens)) if pens else 0.7
    beyond = [SETTLE.pen_mm + SETTLE.pen_share * pen_mm, SETTLE.seen_mm]
    return _Equations(
        design=design,
        x_mm=x_mm,
        spread_mm=np.array([spread_mm[edge.kind] for edge in edges]),
        mean=np.array([laid.start_mm, laid.pitch_mm, laid.width_mm, *beyond, *means.values()]),
        doubt=np.array([SETTLE.start_doubt_mm, 0.5, 0.5, SETTLE.pen_doubt_mm, SETTLE.seen_doubt_mm, *doubts.values()]),
    )


def _fit(edges: Sequence[Edge], laid: _Columns, regular: bool) -> tuple[float, float, float]:
    """Fit start, pitch and width to edges, in the way that has the most evidence.

    Columns are as wide as carts print them, without a gap or with one; another width needs much evidence.
    """
    free = _equations(edges, laid, regular)
    ways = []
    if laid.usual:
        mean, doubt = free.mean.copy(), free.doubt.copy()
        mean[_WIDTH], doubt[_WIDTH] = laid.usual_mm, laid.usual_spread_mm
        if laid.n > 1:  # a step lies anywhere in a gap
            wide = doubt.copy()
            wide[[_OFFSETS + _KINDS.index(kind) for kind in (Kind.STEP, Kind.MARK)]] = SETTLE.in_gap_mm
            fitted, evidence = replace(free, mean=mean, doubt=wide).solve(together=False)
            gap_mm = fitted[_PITCH] - fitted[_WIDTH]
            if laid.gapped or SETTLE.least_hidden_mm < gap_mm < SETTLE.most_gap_mm:
                ways.append((evidence - (0.0 if laid.gapped else SETTLE.cost_of_gap), fitted))
        if not laid.gapped:
            mean = mean.copy()
            mean[_PITCH] = laid.usual_mm
            fitted, evidence = replace(free, mean=mean, doubt=doubt).solve(together=True)
            ways.append((evidence, fitted))
    if not ways or not laid.gapped:
        fitted, evidence = free.solve(together=not laid.gapped)
        ways.append((evidence - (SETTLE.cost_of_width if laid.usual else 0.0), fitted))
    _, best = max(ways, key=lambda way: way[0])
    return float(best[_START]), float(best[_PITCH]), float(best[_WIDTH])
