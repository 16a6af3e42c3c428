"""Leads that say the same: where one row is unsure, the rows that it must agree with tell.

At any time the six limb leads hold two numbers, and a rhythm strip repeats its short lead.  Where strokes of several
rows lie over each other, the tracer is often unsure of one row and sure of those that lie elsewhere.  There the row is
taken from all of them together, and what contradicts the others counts less.  Rows that touch no other stay as read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter1d, minimum_filter1d

from pipeline.datatypes import LIMB_LEADS, FloatArray, LayoutMatch, TraceSet

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Print:
    """One printed stretch of a lead."""

    row: int  # of the traces
    columns: slice
    zero: float  # column at which its time is zero
    terms: tuple[float, ...]  # by which it is a sum of the numbers that its group of leads holds
    y_mm: Float64  # (n,) its line, its median at zero; NaN = none
    error_mm: Float64  # (n,) expected

    def at(self, times: Float64) -> tuple[Float64, Float64]:
        """Return line and expected error at times in columns; NaN where nothing is printed."""
        columns, there = times + self.zero, np.arange(self.columns.start, self.columns.stop)
        y_mm = np.interp(columns, there, self.y_mm, left=np.nan, right=np.nan)
        return y_mm - (np.nanmedian(y_mm) if np.isfinite(y_mm).any() else 0.0), np.interp(columns, there, self.error_mm)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Beside:
    """Stretches of a group at the same times."""

    lines_mm: Float64  # (m, n), NaN = none
    errors_mm: Float64  # (m, n) expected
    terms: Float64  # (m, 1 or 2)


def tell_from_others(traces: TraceSet, match: LayoutMatch, *, unsure: float = 0.5) -> TraceSet:
    """Take rows from the rows that they must agree with, where another row touches them, they are unsure, those surer.

    Parameters
    ----------
    traces : TraceSet
    match : LayoutMatch
    unsure : float
        Confidence below this; what is told has no more.

    Returns
    -------
    TraceSet
        The same one if nothing is told.
    """
    row_mm, confidence = traces.row_mm.copy(), traces.confidence.copy()
    touched = _touched(traces)
    if traces.by_person is not None:
        touched &= traces.by_person == 0
    for group in _groups(traces, match):
        for k, one in enumerate(group):
            part = one.row, one.columns
            unknown = (one.error_mm > _error_mm(np.float64(unsure))) & np.isfinite(one.y_mm) & touched[part]
            if not unknown.any():
                continue
            others = _beside(one, [*group[:k], *group[k + 1 :]])
            if (level_mm := _level(one, others, traces.columns_per_mm)) is not None:
                moved_mm = _moved(one, others, level_mm, unknown, traces.columns_per_mm)
                told = moved_mm != 0
                row_mm[part] += moved_mm
                confidence[part][told] = np.minimum(confidence[part][told], np.float32(unsure))
    same = np.array_equal(row_mm, traces.row_mm, equal_nan=True)
    return traces if same else replace(traces, row_mm=row_mm, confidence=confidence)


def _touched(traces: TraceSet, *, near_mm: float = 0.5, beside_mm: float = 10.0) -> npt.NDArray[np.bool_]:
    """Mark where rows (n_rows, n) have another row's line nearer than `near_mm`, and `beside_mm` around.

    A line reaches over its neighbouring columns, so that strokes that cross within a column are found too.
    """
    upper = minimum_filter1d(np.nan_to_num(traces.row_mm, nan=np.inf), 3, axis=1) - near_mm / 2
    lower = maximum_filter1d(np.nan_to_num(traces.row_mm, nan=-np.inf), 3, axis=1) + near_mm / 2
    found = np.zeros(traces.row_mm.shape, bool)
    for one, other in combinations(range(len(found)), 2):
        near = (upper[one] < lower[other]) & (upper[other] < lower[one])
        found[one] |= near
        found[other] |= near
    return np.asarray(maximum_filter1d(found, 2 * round(beside_mm * traces.columns_per_mm) + 1, axis=1))


def _level(
    one: _Print,
    others: _Beside,
    columns_per_mm: float,
    *,
    sure_mm: float = 0.6,
    agree: float = 0.05,
    least_mm: float = 10.0,
) -> float | None:
    """Return how far below what other stretches tell a line lies; None where that is not known, or they contradict it.

    Parameters
    ----------
    one : _Print
    others : _Beside
    columns_per_mm : float
    sure_mm : float
        Expected error of what is sure.
    agree : float
        Share of the line's power by which the others may miss it where all are sure; beyond, the layout may be another.
    least_mm : float
        Paper on which all must be sure.
    """
    line_mm, doubt_mm = _fitted(others, one.terms, rounds=0)
    both = (one.error_mm < sure_mm) & (doubt_mm < sure_mm) & np.isfinite(one.y_mm)
    if both.sum() < least_mm * columns_per_mm:
        return None
    rest_mm = (one.y_mm - line_mm)[both]
    level_mm = float(np.median(rest_mm))
    return level_mm if np.mean((rest_mm - level_mm) ** 2) <= agree * np.var(one.y_mm[both]) else None


def _moved(
    one: _Print,
    others: _Beside,
    level_mm: float,
    unknown: npt.NDArray[np.bool_],
    columns_per_mm: float,
    *,
    surer: float = 0.5,
    alone_mm: float = 2.0,
    apart_mm: float = 0.5,
) -> FloatArray:
    """Return how far a line (n,) is moved where it is `unknown`, towards what all stretches tell together.

    Parameters
    ----------
    one : _Print
    others : _Beside
    level_mm : float
    unknown : (n,) bool
    columns_per_mm : float
    surer : float
        The error expected of what they tell, at most, as a share of the line's own.
    alone_mm : float
        That error at most if there is one line more than numbers: no other line then says which of them is wrong.
    apart_mm : float
        A line stays where what is told is nowhere, within so much along time, farther off than that.
    """
    every = _Beside(
        lines_mm=np.concatenate([others.lines_mm, [one.y_mm - level_mm]])[:, unknown],
        errors_mm=np.concatenate([others.errors_mm, [one.error_mm]])[:, unknown],
        terms=np.concatenate([others.terms, [one.terms]]),
    )
    line_mm, doubt_mm = _fitted(every, one.terms)
    off_mm = np.zeros(unknown.size, np.float32)
    alone = len(every.terms) - len(one.terms) == 1
    surely = doubt_mm < np.minimum(surer * one.error_mm[unknown], alone_mm if alone else np.inf)
    off_mm[unknown] = np.where(surely, line_mm + level_mm - one.y_mm[unknown], 0.0)
    far = maximum_filter1d(np.abs(off_mm), 2 * round(apart_mm * columns_per_mm) + 1) > apart_mm
    return np.asarray(np.where(far, off_mm, np.float32(0)))


def _error_mm(confidence: Float64 | np.float64) -> Float64:
    """Return the error to expect of a line that was read with some confidence; by hand."""
    return np.asarray(0.2 + 10.0 * (1.0 - confidence) ** 2)


def _groups(traces: TraceSet, match: LayoutMatch, *, beside: int = 5) -> Iterator[list[_Print]]:
    """List the stretches that hold the same numbers: the limb leads', and those of each other lead that is repeated.

    A column is as unsure as the least sure of those up to `beside` away.
    """
    n_rows, n = traces.row_mm.shape
    error_mm = _error_mm(minimum_filter1d(traces.confidence.astype(np.float64), 2 * beside + 1, axis=1))
    groups: dict[str, list[_Print]] = {}
    for lead, row, span in match.stretches():
        start, stop = ((edge - traces.x0_mm) * traces.columns_per_mm for edge in span)
        part = slice(max(round(start), 0), min(round(stop), n))
        if 0 <= row < n_rows and np.isfinite(traces.row_mm[row, part]).any():
            y_mm = traces.row_mm[row, part].astype(np.float64)
            short = row in match.rows[: len(match.layout.rows)]
            sign = -1.0 if short and lead in match.layout.inverted else 1.0
            one = _Print(
                row=row,
                columns=part,
                zero=0.0 if match.layout.sequential else start,
                terms=tuple(sign * term for term in LIMB_LEADS.get(lead, (1.0,))),
                y_mm=y_mm - np.nanmedian(y_mm),
                error_mm=error_mm[row, part],
            )
            groups.setdefault("limb" if lead in LIMB_LEADS else lead, []).append(one)
    yield from (group for group in groups.values() if len(group) > 1)


def _beside(one: _Print, others: Sequence[_Print]) -> _Beside:
    """Return other stretches at the times of one."""
    times = np.arange(one.columns.start, one.columns.stop) - one.zero
    lines_mm, errors_mm = zip(*(other.at(times) for other in others), strict=True)
    return _Beside(
        lines_mm=np.stack(lines_mm), errors_mm=np.stack(errors_mm), terms=np.array([other.terms for other in others])
    )


def _fitted(lines: _Beside, wanted: tuple[float, ...], *, rounds: int = 5) -> tuple[Float64, Float64]:
    """Fit the numbers that lines hold in each column: the `wanted` sum of them, and the error expected of it.

    After the first fit the weights are those of Student's t with one degree of freedom: what is far off was misread.
    """
    known, y_mm, terms = np.isfinite(lines.lines_mm), np.nan_to_num(lines.lines_mm), lines.terms
    weights = np.where(known, lines.errors_mm**-2, 0.0)
    for k in range(rounds + 1):
        moments = np.einsum("mn,mi,mj->nij", weights, terms, terms) + 1e-9 * np.eye(terms.shape[1])
        inverse = np.linalg.inv(moments)
        numbers = np.einsum("nij,mn,mj->ni", inverse, weights * y_mm, terms)
        if k < rounds:
            weights = np.where(known, 2.0 / (lines.errors_mm**2 + (y_mm - terms @ numbers.T) ** 2), 0.0)
    own = np.array(wanted)
    return numbers @ own, np.sqrt(np.einsum("i,nij,j->n", own, inverse, own))
