"""What shows to a hundredth of a millimetre where columns begin and end.

The tracer's presence rises where a row begins and falls where it ends; the ink itself does the same, half a pen further
out; where no gap is left between columns, rows step from one lead to the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from pipeline.datatypes import FloatArray, TraceSet
from pipeline.layout.weights import EDGES
from pipeline.sheet.paper import Sheet

Float64 = npt.NDArray[np.float64]

_PX_PER_MM = (40.0, 10.0)  # of the patches in which the ink's edge is measured, along time and across


class Kind(StrEnum):
    """What an edge is, and so how far it stands from the sample that begins or ends a column."""

    SEEN_START = "seen start"  # of the page's rows, by the tracer
    SEEN_AGAIN = "seen again"  # behind a gap; the tracer bridges gaps
    SEEN_END = "seen end"
    SEEN_LAST = "seen last"  # before a gap
    INK_START = "ink start"
    INK_END = "ink end"
    STEP = "step"  # of a row from one lead to the next
    MARK = "mark"  # of the layout network


STARTS = frozenset({Kind.SEEN_START, Kind.SEEN_AGAIN, Kind.INK_START})
ENDS = frozenset({Kind.SEEN_END, Kind.SEEN_LAST, Kind.INK_END})


@dataclass(frozen=True, slots=True)
class Edge:
    """One edge: of column `column` where it begins or ends, or the step or mark at its start."""

    kind: Kind
    column: int
    x_mm: float
    pen_mm: float = 0.0  # height of a level line's ink, for edges of ink
    row: int = -1  # the traced row; -1 of marks


@dataclass(frozen=True, eq=False, slots=True)
class _Rows:
    """The traced rows seen from one side: `sign` 1 from the left, -1 from the right, where x runs the other way."""

    traces: TraceSet
    sign: int

    def seen(self, row: int, at_mm: float, *, outer: bool) -> float | None:
        """Return paper x where the tracer's presence of a row rises, going inwards, near `at_mm`.

        Parameters
        ----------
        row : int
        at_mm : float
        outer : bool
            Nothing of the row may be seen outside of it.
        """
        scale, level, reach = self.traces.columns_per_mm, EDGES.seen, EDGES.reach_mm
        seen = np.where(np.isfinite(self.traces.row_mm[row]), self.traces.confidence[row], 0.0)[:: self.sign]
        at = (at_mm - self.traces.x0_mm) * scale
        at = at if self.sign > 0 else seen.size - 1 - at
        k = np.arange(max(int(at - reach * scale), 1), min(int(at + reach * scale) + 1, seen.size))
        rises = k[(seen[k - 1] < level) & (seen[k] >= level)]
        if outer:
            before = round(0.4 * scale)
            rises = rises[[bool(np.mean(seen[max(i - 1 - before, 0) : i] < level) > 0.8) for i in rises]]
        if not rises.size:
            return None
        k = rises[-1]
        at = k - 1 + (level - seen[k - 1]) / (seen[k] - seen[k - 1])
        return float(self.traces.x0_mm + (at if self.sign > 0 else seen.size - 1 - at) / scale)

    def ink(self, row: int, seen_mm: float, sheet: Sheet) -> tuple[float, float] | None:
        """Return paper x where the ink of a row's line reaches half of its height, near `seen_mm`, and that height."""
        outside, inside = EDGES.outside_mm, EDGES.inside_mm
        u_mm = np.arange(-outside, inside, 1 / _PX_PER_MM[0])  # inwards
        x_mm = seen_mm + self.sign * u_mm
        columns_mm = self.traces.x0_mm + np.arange(self.traces.row_mm.shape[1]) / self.traces.columns_per_mm
        line_mm = np.interp(x_mm, columns_mm, self.traces.row_mm[row].astype(np.float64), left=np.nan, right=np.nan)
        first = int(np.searchsorted(u_mm, EDGES.settled_mm))
        if not np.isfinite(line_mm[first:]).all():
            return None
        line_mm[:first] = line_mm[first]
        y_mm = np.arange(line_mm.min() - EDGES.beside_mm, line_mm.max() + EDGES.beside_mm, 1 / _PX_PER_MM[1])
        patch = sheet.pixels(x_mm[:: self.sign], y_mm)[:, :: self.sign].astype(np.float64)
        across = np.round((line_mm - y_mm[0]) * _PX_PER_MM[1]).astype(np.intp)
        reach = np.arange(-round(EDGES.beside_mm * _PX_PER_MM[1]) + 1, round(EDGES.beside_mm * _PX_PER_MM[1]))
        band = patch[np.clip(across + reach[:, None], 0, y_mm.size - 1), np.arange(u_mm.size)]
        slope = np.abs(np.gradient(line_mm[first:]))
        level = first + np.flatnonzero(slope <= np.median(slope))
        ink = _ink(band, reach, level)
        if ink is None:
            return None
        on, beside = np.abs(reach) <= EDGES.line_px, np.abs(reach) > EDGES.line_px + 1
        height = ink[on].sum(0) - on.sum() * np.median(ink[beside], axis=0)
        whole = float(np.median(height[first + 4 :]))
        if whole <= 0:
            return None
        k = first + 6
        while k > 0 and height[k] >= whole / 2:
            k -= 1
        if k in (0, first + 6):  # ink throughout, or none where the line is seen
            return None
        edge_mm = u_mm[k] + (whole / 2 - height[k]) / (height[k + 1] - height[k]) / _PX_PER_MM[0]
        near = abs(edge_mm + EDGES.ink_ahead_mm) <= EDGES.ink_near_mm
        return (float(seen_mm + self.sign * edge_mm), whole / _PX_PER_MM[1]) if near else None


def _ink(band: Float64, reach: npt.NDArray[np.intp], level: npt.NDArray[np.intp]) -> Float64 | None:
    """Return the ink of a band (h, w, 3) along a line, 1 = the line, 0 = the paper and grid beside it.

    At the columns `level` the line is printed and level.  None where it is no darker than the paper.
    """
    line = band[np.flatnonzero(reach == 0)[0], level].reshape(-1, 3)
    beside = band[np.abs(reach) > EDGES.line_px + 3][:, level].reshape(-1, 3)
    paper = np.median(beside, axis=0)
    towards = paper - line.mean(0)
    weights = np.linalg.solve(np.cov(beside.T) + 16 * np.eye(3), towards)
    plain = float(towards @ weights)
    return None if plain < 1 else np.asarray((paper - band) @ weights / plain, np.float64)


def _step(row: FloatArray, at: float, reach: int, *, span: int = 12) -> float | None:
    """Return the column, between two, at which a row steps from one level to another near `at`; None if it does not."""
    low = round(at) - reach - span
    part = row[max(low, 0) : round(at) + reach + span].astype(np.float64)
    if low < 0 or part.size < 2 * (reach + span) or not np.isfinite(part).all():
        return None
    k = np.arange(span, part.size - span)
    left = np.stack([part[k - i] for i in range(4, 11)])
    right = np.stack([part[k + i] for i in range(4, 11)])
    levels = np.stack([left.mean(0), right.mean(0)])
    beyond = np.abs(levels[1] - levels[0]) - np.ptp(left, axis=0) - np.ptp(right, axis=0)
    best = int(np.argmax(beyond))
    if beyond[best] <= EDGES.step_mm:
        return None
    side = (part - levels[:, best].mean()) * np.sign(levels[1, best] - levels[0, best])
    near = np.arange(k[best] - 4, k[best] + 5)
    crossed = near[(side[near - 1] < 0) & (side[near] >= 0)]
    if not crossed.size:
        return None
    i = crossed[np.argmin(np.abs(crossed - k[best]))]
    return float(low + i - 1 - side[i - 1] / (side[i] - side[i - 1]))


def steps(traces: TraceSet, rows: Sequence[int], starts_mm: Iterable[float]) -> list[Edge]:
    """Find where rows step at the starts of columns.

    Parameters
    ----------
    traces : TraceSet
    rows : sequence of int
    starts_mm : iterable of float
        Roughly, of every column; nothing steps at the first.

    Returns
    -------
    list of Edge
    """
    scale, found = traces.columns_per_mm, []
    for column, start_mm in enumerate(starts_mm):
        for row in rows if column else ():
            at = _step(traces.row_mm[row], (start_mm - traces.x0_mm) * scale, round(EDGES.reach_mm * scale))
            if at is not None:
                found.append(Edge(Kind.STEP, column, traces.x0_mm + at / scale, row=row))
    return found


def ends(
    traces: TraceSet,
    sheet: Sheet,
    rows: Sequence[int],
    edges_mm: Sequence[tuple[int, float]],
    kinds: tuple[Kind, Kind],
    sign: int,
) -> list[Edge]:
    """Find where the rows of columns begin (`sign` 1) or end (-1).

    Parameters
    ----------
    traces : TraceSet
    sheet : Sheet
    rows : sequence of int
    edges_mm : sequence of (column, paper x)
        Roughly.
    kinds : tuple of Kind
        Of what the tracer sees and of the ink.
    sign : int

    Returns
    -------
    list of Edge
    """
    seen, found = _Rows(traces, sign), []
    for column, at_mm in edges_mm:
        for row in rows:
            x_mm = seen.seen(row, at_mm, outer=kinds[0] == Kind.SEEN_START)
            if x_mm is None:
                continue
            found.append(Edge(kinds[0], column, x_mm, row=row))
            ink = seen.ink(row, x_mm, sheet)
            if ink is not None:
                found.append(Edge(kinds[1], column, *ink, row))
    return found
