"""What the signals say about a layout: sums that limb leads obey, and whether columns beat in step.

Einthoven's and Goldberger's sums hold in the right order of the leads and in no other.  Whether columns were recorded
together shows in the sums across columns, else beside a rhythm strip, else in the beats.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pipeline.datatypes import LIMB_LEADS, Layout, Spans, TraceSet
from pipeline.layout.weights import SIGNALS

Float64 = npt.NDArray[np.float64]


@lru_cache(maxsize=256)
def stretch(traces: TraceSet, index: int, start_mm: float, end_mm: float, n: int) -> Float64 | None:
    """Sample a row between two paper x, ten times a millimetre, upward positive, level removed.

    Layouts share most of their stretches, and the result is shared between calls: not to be written to.

    Parameters
    ----------
    traces : TraceSet
    index : int
        Traced row; negative = missing.
    start_mm, end_mm : float
        Paper x.
    n : int
        Number of samples; those behind `end_mm` are NaN.

    Returns
    -------
    (n,) float64 in mm, NaN = not traced; None if the row is missing or mostly not traced.
    """
    if index < 0 or n < 20:
        return None
    columns = np.round((start_mm - traces.x0_mm) * traces.columns_per_mm + np.arange(n) * traces.columns_per_mm / 10.0)
    inside = (columns >= 0) & (columns < traces.row_mm.shape[1])
    values = np.full(n, np.nan)
    values[inside] = -traces.row_mm[index, columns[inside].astype(np.int64)]
    values[np.arange(n) / 10.0 > end_mm - start_mm] = np.nan
    known = np.isfinite(values)
    return np.asarray(values - np.median(values[known])) if known.mean() > SIGNALS.least_known else None


def _left_over(signals: Sequence[Float64], sums: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """Power of limb leads that their sums leave over, and all of it; None if there is no such sum."""
    if len(signals) < 3:
        return None
    x = np.stack(signals)
    x = x[:, np.isfinite(x).all(0)]
    if x.shape[1] < SIGNALS.least_common:
        return None
    x = x - np.median(x, axis=1, keepdims=True)
    rest = x - _obeying(tuple(sums)) @ x
    return float((rest**2).sum()), float((x**2).sum())


@lru_cache(maxsize=64)
def _obeying(sums: tuple[tuple[float, float], ...]) -> Float64:
    """Return the matrix that keeps of limb leads what obeys their sums."""
    basis = np.array(sums)
    return np.asarray(basis @ np.linalg.pinv(basis))


def _limb_leads(
    traces: TraceSet, layout: Layout, rows: Sequence[int], column: int, start_mm: float, n: int
) -> tuple[list[Float64], list[tuple[float, float]]]:
    """Return the limb leads of a column, each (n,), and what they are sums of."""
    signals: list[Float64] = []
    sums: list[tuple[float, float]] = []
    for leads, index in zip(layout.rows, rows, strict=False):
        lead = leads[column]
        values = stretch(traces, index, start_mm, start_mm + n / 10, n) if lead in LIMB_LEADS else None
        if values is not None:
            signals.append(-values if lead in layout.inverted else values)
            sums.append(LIMB_LEADS[lead])
    return signals, sums


def limb_residual(traces: TraceSet, layout: Layout, rows: Sequence[int], columns: Spans) -> float | None:
    """Share of the limb leads' power that Einthoven's and Goldberger's sums leave over.

    Near 0 for the right order, some tenths for a wrong one.

    Parameters
    ----------
    traces : TraceSet
    layout : Layout
    rows : sequence of int
        Traced row of every row of short leads, -1 = missing.
    columns : Spans
        Paper x of the columns, mm.

    Returns
    -------
    float in [0, 1]; None if no column holds limb leads that obey a sum.
    """
    left, total = 0.0, 0.0
    for c, (start_mm, end_mm) in enumerate(columns):
        powers = _left_over(*_limb_leads(traces, layout, rows, c, start_mm + 0.5, int((end_mm - start_mm - 1.0) * 10)))
        if powers is not None:
            left, total = left + powers[0], total + powers[1]
    return left / total if total > 0 else None


def _limb_residual_across(
    traces: TraceSet, layout: Layout, rows: Sequence[int], columns: Spans, reach_mm: float
) -> float | None:
    """Measure `limb_residual` over all columns as if they were recorded together; None if one holds all limb leads.

    The others may stand by up to `reach_mm` nearer to the first column, or further.
    """
    n = int(min(end - start - 1.0 for start, end in columns) * 10)

    def residual(shift_mm: float) -> float:
        signals: list[Float64] = []
        sums: list[tuple[float, float]] = []
        n_columns = 0
        for c, (start_mm, _) in enumerate(columns):
            found, terms = _limb_leads(traces, layout, rows, c, start_mm + 0.5 + (shift_mm if c else 0.0), n)
            signals, sums, n_columns = signals + found, sums + terms, n_columns + bool(found)
        powers = _left_over(signals, sums) if n_columns > 1 else None
        return powers[0] / powers[1] if powers and powers[1] > 0 else np.inf

    steps = round(reach_mm / 0.2)
    coarse = {step: residual(0.2 * step) for step in range(-steps, steps + 1)}
    best = min(coarse, key=lambda step: coarse[step])
    fine = [residual(0.2 * best + aside_mm) for aside_mm in ((-0.1, 0.1) if steps else ())]
    least = min([coarse[best], *fine])
    return least if np.isfinite(least) else None


def _activity(traces: TraceSet, rows: Sequence[int], start_mm: float, n: int) -> Float64:
    """How much the rows move at each tenth of a millimetre from `start_mm`: QRS complexes stand out."""
    moves = [
        np.abs(np.diff(v, prepend=v[:1])) for i in rows if (v := stretch(traces, i, start_mm, np.inf, n)) is not None
    ]
    if not moves:
        return np.zeros(n)
    return np.convolve(np.nan_to_num(np.mean(np.nan_to_num(moves), axis=0)), np.ones(10) / 10.0, "same")


def correlation(a: Float64, b: Float64, reach: int = 0) -> float:
    """Compute the best correlation of two stretches over shifts of at most `reach` samples; NaN samples do not count.

    Parameters
    ----------
    a, b : (n,) float64
    reach : int
        Samples.

    Returns
    -------
    float in [-1, 1]; -1 also if the stretches share too few samples.
    """
    best = -1.0
    for shift in range(-reach, reach + 1):
        x = a[max(shift, 0) : a.size + min(shift, 0)]
        y = b[max(-shift, 0) : b.size + min(-shift, 0)]
        both = np.isfinite(x) & np.isfinite(y)
        if both.sum() <= SIGNALS.least_pair:
            continue
        x, y = x[both] - x[both].mean(), y[both] - y[both].mean()
        power = float((x @ x) * (y @ y))
        if power > 0:
            best = max(best, float(x @ y) / power**0.5)
    return best


def _at_lag(a: Float64, b: Float64, lag: int) -> float:
    """Correlation of two stretches, the second moved by `lag` samples."""
    return correlation(a[max(lag, 0) : a.size + min(lag, 0)], b[max(-lag, 0) : b.size + min(-lag, 0)])


def _whole_beats(pitch_mm: float, rr_mm: float | None) -> bool:
    """Tell whether a whole number of beats fills a column, so that the next one beats in step in either case."""
    return rr_mm is not None and abs((pitch_mm / rr_mm + 0.5) % 1.0 - 0.5) * rr_mm < SIGNALS.whole_beats_mm


def _beat_together(own: Sequence[Float64], pitch_mm: float, rr_mm: float | None) -> float:
    """Evidence in [-1, 1] that columns were recorded together, from where their beats stand.

    Together, all beats stand where those of the first column do.  One after the other they do so by chance, in a
    regular rhythm of which a whole number of beats fills a column: then this is no evidence.  Of an irregular rhythm
    only the same beats stand so: one beat further on they do not.
    """
    reach = min(round(5.0 * (rr_mm or 12.0)), own[0].size // 3)
    lags = np.arange(-reach, reach + 1)
    alike = np.array([[_at_lag(own[0], other, int(lag)) for lag in lags] for other in own[1:]])
    elsewhere = alike.max(1) - SIGNALS.disagree
    near = alike[:, np.abs(lags) <= round(10 * SIGNALS.laid_off_mm)].max(1)
    in_doubt = SIGNALS.chance if near.min() > SIGNALS.alike and (near >= elsewhere).all() else -1.0
    here = alike[:, np.abs(lags) <= SIGNALS.in_step].max(1)
    if (here < elsewhere).any():
        return in_doubt
    together = float(here.min())
    if _whole_beats(pitch_mm, rr_mm) and not _only_here(own, here, rr_mm or 0.0):
        exact = bool((np.abs(lags[alike.argmax(1)]) <= SIGNALS.in_step // 2).all())
        return SIGNALS.likely_chance if exact and together > SIGNALS.agree else SIGNALS.chance
    return float(np.clip(SIGNALS.beats_slope * (together - SIGNALS.beats_centre), in_doubt, 1.0))


def _only_here(own: Sequence[Float64], here: Float64, rr_mm: float) -> bool:
    """Tell whether the beats of all columns agree exactly as they stand, and clearly less one beat further on."""
    one = round(10.0 * rr_mm)
    lags = [way * (one + late) for way in (-1, 1) for late in range(-2 * SIGNALS.in_step, 2 * SIGNALS.in_step + 1)]
    next_beat = np.array([max(_at_lag(own[0], other, lag) for lag in lags) for other in own[1:]])
    return bool((here > SIGNALS.agree).all() and (here - next_beat > SIGNALS.irregular).all())


def _sums_together(across: float, misread: float) -> float:
    """Evidence in [-1, 1] that columns were recorded together, from what their sums leave across and within columns.

    A regular rhythm leaves over little as well, but more than misreading does.
    """
    margin = SIGNALS.misread_margin
    return float(np.clip((margin + SIGNALS.misread * misread - across) / margin, -1.0, 1.0))


def _vanishes(across: float, misread: float) -> bool:
    """Tell whether sums leave as little across columns as within them: no rhythm is as regular."""
    return misread < SIGNALS.exact_within and across < SIGNALS.exact_ratio * misread + SIGNALS.exact_margin


def _sums_laid_off(together: float, near: float, misread: float, whole: bool) -> float:
    """Add to the evidence of the sums what they leave where columns are moved by more: a doubt, or proof."""
    if _vanishes(near, misread) and not whole:
        return max(together, _sums_together(near, misread))
    return max(together, SIGNALS.chance) if _sums_together(near, misread) > SIGNALS.likely else together


def measure_step(
    traces: TraceSet,
    layout: Layout,
    rows: Sequence[int],
    strips: Sequence[int],
    columns: Spans,
    rr_mm: float | None,
    misread: float,
) -> float:
    """Evidence in [-1, 1] that the columns were recorded together (1) and not one after the other (-1).

    Limb leads that stand in several columns obey their sums across them only if they were recorded together.  Without
    such leads a rhythm strip decides: each column is compared with the strip above or below it and with the strip's
    start.  Without a strip, columns recorded together must beat in step with the first.

    Parameters
    ----------
    traces : TraceSet
    layout : Layout
    rows, strips : sequence of int
        Traced rows of the short leads and of the rhythm strips, -1 = missing.
    columns : Spans
        Paper x of the columns, mm.
    rr_mm : float, optional
        Distance of the beats.
    misread : float
        `limb_residual` of the columns; 0 if there is none.
    """
    n = int(min(end - start for start, end in columns) * 10) - 5
    if len(columns) < 2 or n < SIGNALS.least_common:
        return 0.0
    whole = _whole_beats(columns[1][0] - columns[0][0], rr_mm)
    # The first column's start is less sure than the pitch; but moved, beats that fill the columns fit by chance.
    across = _limb_residual_across(traces, layout, rows, columns, 0.0 if whole else SIGNALS.late_mm)
    if across is not None:
        together = _sums_together(across, misread)
        if whole and not _vanishes(across, misread):
            together = min(together, SIGNALS.likely_chance if together > SIGNALS.likely else SIGNALS.chance)
        near = _limb_residual_across(traces, layout, rows, columns, SIGNALS.laid_off_mm)
        return together if near is None else _sums_laid_off(together, near, misread, whole)
    own = [_activity(traces, rows, start + 0.3, n) for start, _ in columns]
    strips = [index for index in strips if index >= 0]
    if strips:
        strip = [_activity(traces, strips, start + 0.3, n) for start, _ in columns]
        after = float(np.mean([correlation(own[k], strip[k], SIGNALS.in_step) for k in range(1, len(columns))]))
        at_start = float(np.mean([correlation(own[k], strip[0], 2 * SIGNALS.in_step) for k in range(1, len(columns))]))
        if at_start > max(SIGNALS.strip_start, after - SIGNALS.strip_margin):  # beats stand there in either case
            return max(at_start - after, SIGNALS.chance)
        return at_start - after
    return _beat_together(own, columns[1][0] - columns[0][0], rr_mm)
