"""Which layout a page is printed in: lead names and rows found on the paper against the layouts of the file.

The paper's Algorithm 1 gives each layout the cost of its best scale and shift onto the names that were found; a name
that is missing costs a fixed 0.5.  Three kinds of evidence it leaves out decide where names are few, false or doubled:
the traced rows (number and spacing), the sums that limb leads obey, and whether columns beat in step.  Whatever stays
doubtful is said in words, and the match is then not `certain`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.datatypes import Beats, Layout, LayoutMatch, Lead, LeadLabel, Spans, TraceSet
from pipeline.errors import LayoutUnknown
from pipeline.layout.beats import measure_beats
from pipeline.layout.columns import locate_columns
from pipeline.layout.file import load_layouts
from pipeline.layout.placement import MISSING_COST, Found, LabelFit, RowFit, Slots, fit_labels, fit_rows

__all__ = ["identify_layout", "load_layouts"]

Float64 = npt.NDArray[np.float64]

_LIMB_BARS = frozenset({Lead.I, Lead.II})  # names that a steep stroke, or two, may be taken for
_AUGMENTED = frozenset({Lead.AVR, Lead.AVL, Lead.AVF})  # hardly ever printed as strips
_TOGETHER = 0.15  # from here on columns count as recorded together
_APART = 0.05  # up to here there is no doubt that they were not
_IN_STEP = 4  # tenths of a millimetre by which beats recorded at the same time stand apart at most

# Limb leads as sums of I and II (Einthoven, Goldberger).
_LIMB = {
    Lead.I: (1.0, 0.0),
    Lead.II: (0.0, 1.0),
    Lead.III: (-1.0, 1.0),
    Lead.AVR: (-0.5, -0.5),
    Lead.AVL: (1.0, -0.5),
    Lead.AVF: (-0.5, 1.0),
}


def _stretch(traces: TraceSet, index: int, start_mm: float, end_mm: float, n: int) -> Float64 | None:
    """Sample a row between two paper x at `n` points, upward positive, level removed; None if mostly missing."""
    if index < 0 or n < 20:
        return None
    columns = np.round((start_mm - traces.x0_mm) * traces.columns_per_mm + np.arange(n) * traces.columns_per_mm / 10.0)
    inside = (columns >= 0) & (columns < traces.row_mm.shape[1])
    values = np.full(n, np.nan)
    values[inside] = -traces.row_mm[index, columns[inside].astype(np.int64)]
    values[np.arange(n) / 10.0 > end_mm - start_mm] = np.nan
    known = np.isfinite(values)
    return np.asarray(values - np.median(values[known])) if known.mean() > 0.5 else None


def _left_over(signals: Sequence[Float64], sums: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """Power of limb leads that their sums leave over, and all of it; None if there is no such sum."""
    if len(signals) < 3:
        return None
    x = np.stack(signals)
    x = x[:, np.isfinite(x).all(0)]
    if x.shape[1] < 100:
        return None
    x = x - np.median(x, axis=1, keepdims=True)
    basis = np.array(sums)
    rest = x - basis @ np.linalg.pinv(basis) @ x
    return float((rest**2).sum()), float((x**2).sum())


def _limb_leads(
    traces: TraceSet, layout: Layout, rows: Sequence[int], column: int, start_mm: float, n: int
) -> tuple[list[Float64], list[tuple[float, float]]]:
    """Return the limb leads of a column, each (n,), and what they are sums of."""
    signals: list[Float64] = []
    sums: list[tuple[float, float]] = []
    for leads, index in zip(layout.rows, rows, strict=False):
        lead = leads[column]
        values = _stretch(traces, index, start_mm, start_mm + n / 10, n) if lead in _LIMB else None
        if values is not None:
            signals.append(-values if lead in layout.inverted else values)
            sums.append(_LIMB[lead])
    return signals, sums


def _limb_residual(traces: TraceSet, layout: Layout, rows: Sequence[int], columns: Spans) -> float | None:
    """Share of the limb leads' power that Einthoven's and Goldberger's sums leave over; None if there is no such sum.

    Near 0 for the right order, some tenths for a wrong one.
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
    """Measure `_limb_residual` over all columns as if they were recorded together; None if one holds all limb leads.

    The others may stand by up to `reach_mm` nearer to the first column, or further.
    """
    n = int(min(end - start - 1.0 for start, end in columns) * 10)
    residuals = []
    for shift_mm in np.arange(-reach_mm, reach_mm + 0.1, 0.2):
        signals: list[Float64] = []
        sums: list[tuple[float, float]] = []
        n_columns = 0
        for c, (start_mm, _) in enumerate(columns):
            found, terms = _limb_leads(traces, layout, rows, c, start_mm + 0.5 + (shift_mm if c else 0.0), n)
            signals, sums, n_columns = signals + found, sums + terms, n_columns + bool(found)
        powers = _left_over(signals, sums) if n_columns > 1 else None
        if powers and powers[1] > 0:
            residuals.append(powers[0] / powers[1])
    return min(residuals, default=None)


def _activity(traces: TraceSet, rows: Sequence[int], start_mm: float, n: int) -> Float64:
    """How much the rows move at each tenth of a millimetre from `start_mm`: QRS complexes stand out."""
    moves = [
        np.abs(np.diff(v, prepend=v[:1])) for i in rows if (v := _stretch(traces, i, start_mm, np.inf, n)) is not None
    ]
    if not moves:
        return np.zeros(n)
    return np.convolve(np.nan_to_num(np.mean(np.nan_to_num(moves), axis=0)), np.ones(10) / 10.0, "same")


def _correlation(a: Float64, b: Float64, reach: int = 0) -> float:
    """Compute the best correlation of two stretches over shifts of at most `reach` samples, NaN left out."""
    best = -1.0
    for shift in range(-reach, reach + 1):
        x = a[max(shift, 0) : a.size + min(shift, 0)]
        y = b[max(-shift, 0) : b.size + min(-shift, 0)]
        both = np.isfinite(x) & np.isfinite(y)
        if both.sum() <= 50:
            continue
        x, y = x[both] - x[both].mean(), y[both] - y[both].mean()
        power = float((x @ x) * (y @ y))
        if power > 0:
            best = max(best, float(x @ y) / power**0.5)
    return best


def _at_lag(a: Float64, b: Float64, lag: int) -> float:
    """Correlation of two stretches, the second moved by `lag` samples."""
    return _correlation(a[max(lag, 0) : a.size + min(lag, 0)], b[max(-lag, 0) : b.size + min(-lag, 0)])


def _whole_beats(pitch_mm: float, rr_mm: float | None, within_mm: float = 2.0) -> bool:
    """Tell whether a whole number of beats fills a column, so that the next one beats in step in either case."""
    return rr_mm is not None and abs((pitch_mm / rr_mm + 0.5) % 1.0 - 0.5) * rr_mm < within_mm


def _beat_together(own: Sequence[Float64], pitch_mm: float, rr_mm: float | None) -> float:
    """Evidence in [-1, 1] that columns were recorded together, from where their beats stand.

    Together, all beats stand where those of the first column do.  One after the other they do so by chance, in a
    regular rhythm of which a whole number of beats fills a column: then this is no evidence.
    """
    reach = min(round(5.0 * (rr_mm or 12.0)), own[0].size // 3)
    lags = np.arange(-reach, reach + 1)
    alike = np.array([[_at_lag(own[0], other, int(lag)) for lag in lags] for other in own[1:]])
    here = alike[:, np.abs(lags) <= _IN_STEP].max(1)
    if (here < alike.max(1) - 0.07).any():
        return -1.0
    together = float(here.min())
    if _whole_beats(pitch_mm, rr_mm):
        exact = bool((np.abs(lags[alike.argmax(1)]) <= _IN_STEP // 2).all())
        return 0.3 if exact and together > 0.9 else 0.1
    return float(np.clip(2.5 * (together - 0.6), -1.0, 1.0))


def _in_step(
    traces: TraceSet, layout: Layout, rows: Sequence[int], strips: Sequence[int], columns: Spans, rr_mm: float | None
) -> float:
    """Evidence in [-1, 1] that the columns were recorded together (1) and not one after the other (-1).

    Limb leads that stand in several columns obey their sums across them only if they were recorded together.  Else a
    rhythm strip tells: each column is compared with the strip above or below it and with the strip's start.  Without
    one, columns recorded together must beat in step with the first.
    """
    n = int(min(end - start for start, end in columns) * 10) - 5
    if len(columns) < 2 or n < 100:
        return 0.0
    whole = _whole_beats(columns[1][0] - columns[0][0], rr_mm)
    # The first column's start is less sure than the pitch; but moved, beats that fill the columns fit by chance.
    across = _limb_residual_across(traces, layout, rows, columns, 0.0 if whole else 0.6)
    if across is not None:  # a regular rhythm leaves over little as well, but more than misreading does
        misread = _limb_residual(traces, layout, rows, columns) or 0.0
        together = float(np.clip((0.05 + 2.0 * misread - across) / 0.05, -1.0, 1.0))
        exactly = misread < 0.02 and across < 1.5 * misread + 0.006  # no rhythm is as regular
        if whole and not exactly:
            return min(together, 0.3 if together > 0.5 else 0.1)
        return together
    own = [_activity(traces, rows, start + 0.3, n) for start, _ in columns]
    strips = [index for index in strips if index >= 0]
    if strips:
        strip = [_activity(traces, strips, start + 0.3, n) for start, _ in columns]
        after = float(np.mean([_correlation(own[k], strip[k], _IN_STEP) for k in range(1, len(columns))]))
        at_start = float(np.mean([_correlation(own[k], strip[0], 2 * _IN_STEP) for k in range(1, len(columns))]))
        if at_start > max(0.6, after - 0.1):  # beats stand there in either case
            return max(at_start - after, 0.1)
        return at_start - after
    return _beat_together(own, columns[1][0] - columns[0][0], rr_mm)


def _likeness(
    traces: TraceSet, layout: Layout, row_index: Sequence[int], strip: int, columns: Spans
) -> dict[Lead, float]:
    """Compare a strip with every short lead printed at the same time, in shape and height; 1 = the same."""
    likeness: dict[Lead, float] = {}
    for c, (start_mm, end_mm) in enumerate(columns):
        n = int((end_mm - start_mm) * 10)
        own_mm = start_mm if layout.sequential else columns[0][0]
        long = _stretch(traces, strip, own_mm, own_mm + end_mm - start_mm, n)
        for r, leads in enumerate(layout.rows):
            short = _stretch(traces, row_index[r], start_mm, end_mm, n)
            if long is None or short is None:
                continue
            a, b = float(np.nanstd(short)), float(np.nanstd(long))
            alike = 2 * a * b / max(a * a + b * b, 1e-9)
            likeness[leads[c]] = alike * _correlation(-short if leads[c] in layout.inverted else short, long, 10)
    return likeness


def _surest_there(found: Found, index: int) -> LeadLabel:
    """Return the label seen most surely at the place of one: "II" is seen in every "III"."""
    here = (np.abs(found.x_mm - found.x_mm[index]) < 5.0) & (np.abs(found.y_mm - found.y_mm[index]) < 3.0)
    return found.labels[int(np.argmax(np.where(here, found.score, -1.0)))]


def _name_strips(
    traces: TraceSet, layout: Layout, labels: LabelFit | None, found: Found, row_index: Sequence[int], columns: Spans
) -> tuple[tuple[Lead, ...], list[str]]:
    """Name each rhythm strip: by the short lead it repeats and by its label, else by the layout's custom.

    A label is believed unless the strip plainly repeats another lead: its name may be a steep wave's or a pulse's.
    """
    names, reasons = [], []
    n_short = len(layout.rows)
    for number, usual in enumerate(layout.rhythm):
        at = int(labels.slot_label[len(layout.leads) + number]) if labels else -1
        label = _surest_there(found, at) if at >= 0 else None
        likeness = _likeness(traces, layout, row_index, row_index[n_short + number], columns)
        evidence = {
            lead: alike + (0.25 if lead == usual else -0.1 if lead in _AUGMENTED else 0.0)
            for lead, alike in likeness.items()
        }
        if label is not None:
            weight = 0.05 if label.lead in _LIMB_BARS else 0.3
            evidence[label.lead] = evidence.get(label.lead, 0.6) + weight * label.score
        best = max(evidence, key=lambda lead: evidence[lead], default=usual)
        rival = max(likeness, key=lambda lead: likeness[lead], default=best)
        if likeness.get(rival, 0.0) > likeness.get(best, 0.0) + 0.1 and (label is None or best != label.lead):
            reasons.append(f"rhythm strip {number + 1} resembles {rival} more than {best}")
        if label is not None and best != label.lead and label.score > 0.8 and label.lead not in _LIMB_BARS:
            reasons.append(f"rhythm strip {number + 1} is named {label.lead} and resembles {best}")
        elif label is None and likeness.get(best, 0.0) < 0.7:
            best = usual
            reasons.append(f"rhythm strip {number + 1} has no name and resembles no lead; taken as {usual}")
        if best in names:
            reasons.append(f"two rhythm strips resemble {best}: a row may be read twice")
        names.append(best)
    return tuple(names), reasons


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One layout with all evidence for and against it; the lower `total`, the better."""

    layout: Layout
    labels: LabelFit | None
    rows: RowFit
    columns: Spans
    residual: float | None
    in_step: float
    beats: Beats | None

    @property
    def names_outside(self) -> float:
        """How far the first column's names stand from its start, beyond what carts do: in [0, 1] page widths."""
        if not self.labels or not self.columns:
            return 0.0
        start_mm, width_mm = self.columns[0][0], self.columns[-1][1] - self.columns[0][0]
        off_mm = self.labels.x0 - start_mm
        return float(np.clip(max(-20.0 - off_mm, off_mm - 0.3 * width_mm / len(self.columns)) / width_mm, 0.0, 1.0))

    def plainly_beats(self, other: _Candidate, margin: float = 0.03) -> bool:
        """Tell whether the evidence leaves no doubt between the two.

        Layouts whose names stand at the same places differ only in the signals: in the sign of a lead, or in whether
        the columns were recorded together.  Carts print one column after the other, so that only the contrary needs
        evidence; what is no evidence either way is a doubt.
        """
        if self.layout.rows == other.layout.rows and len(self.layout.rhythm) == len(other.layout.rhythm):
            if self.layout.inverted != other.layout.inverted and self.residual is not None:
                return (other.residual or 0.0) > 2.0 * self.residual + 0.003
            return self.in_step <= _APART if self.layout.sequential else self.in_step > _TOGETHER
        return other.total - self.total >= margin

    @property
    def n_labels(self) -> int:
        """How many names agree with the layout."""
        return int((self.labels.slot_label >= 0).sum()) if self.labels else 0

    @property
    def total(self) -> float:
        """Cost of all evidence: names, rows, limb-lead sums, step of the columns."""
        cost = self.labels.cost if self.labels else MISSING_COST
        cost += 0.35 * self.rows.cost + 0.2 * min(1.0, self.residual or 0.0) + self.names_outside
        together = self.in_step - _TOGETHER  # what a regular rhythm shows by chance is no evidence
        return cost + 0.05 * float(np.clip(together if self.layout.sequential else -together, 0.0, 1.0))


def _weigh(
    layout: Layout, found: Found, traces: TraceSet, fit: tuple[LabelFit | None, RowFit], seen_mm: Sequence[float]
) -> _Candidate:
    """Add the evidence of the signals to the fit of names and rows."""
    labels, rows = fit
    n_short = len(layout.rows)
    short, strips = rows.row_index[:n_short], rows.row_index[n_short:]
    slots = Slots.of(layout)
    columns_named = labels is not None and np.ptp(slots.column[labels.slot_label >= 0]) > 0
    pitch = labels.pitch_x if labels is not None and columns_named else None
    columns = locate_columns(traces, layout, short, strips, label_pitch_mm=pitch, seen_mm=seen_mm)
    residual = _limb_residual(traces, layout, short, columns)
    beats = measure_beats(traces, [index for index in short if index >= 0], columns)
    in_step = _in_step(traces, layout, short, strips, columns, beats.rr_mm if beats else None) if columns else 0.0
    return _Candidate(layout, labels, rows, columns, residual, in_step, beats)


def _candidates(
    layouts: Sequence[Layout], found: Found, traces: TraceSet, seen_mm: Sequence[float], reach: float = 0.2
) -> list[_Candidate]:
    """Fit every layout to names and rows, and weigh those within `reach` of the best by the signals too; best first."""
    fits: dict[tuple[object, int], tuple[LabelFit | None, RowFit]] = {}  # layouts with the same places share one
    for layout in layouts:
        places = (layout.rows, len(layout.rhythm))
        if places not in fits:
            labels = fit_labels(found, Slots.of(layout))
            fits[places] = (labels, fit_rows(found, len(layout.rows), layout.n_rows, labels))
    cost = {
        places: (labels.cost if labels else MISSING_COST) + 0.35 * rows.cost for places, (labels, rows) in fits.items()
    }
    limit = min(cost.values(), default=0.0) + reach
    near = [layout for layout in layouts if cost[layout.rows, len(layout.rhythm)] <= limit]
    weighed = [_weigh(layout, found, traces, fits[layout.rows, len(layout.rhythm)], seen_mm) for layout in near]
    return sorted(weighed, key=lambda candidate: candidate.total)


def _doubts(best: _Candidate, others: Sequence[_Candidate], found: Found) -> list[str]:
    """Say in words why a person should look at the layout."""
    reasons = []
    n_names = best.n_labels
    if n_names <= 2:
        reasons.append(f"only {n_names} lead name{'' if n_names == 1 else 's'} found")
    elif n_names < 0.5 * len(best.layout.leads):
        reasons.append(f"only {n_names} of {len(best.layout.leads)} lead names found")
    close = [other.layout.name for other in others if not best.plainly_beats(other)]
    if close:
        reasons.append(f"layout {close[0]} fits nearly as well")
    missing = sum(index < 0 for index in best.rows.row_index)
    spare = sum(found.coverage[index] > 0.3 for index in best.rows.spare)
    if missing:
        reasons.append(f"{missing} of {best.layout.n_rows} rows not found")
    if spare:
        reasons.append(f"{spare} more row{'' if spare == 1 else 's'} traced than the layout has")
    if best.residual is not None and best.residual > 0.25:
        reasons.append("the limb leads do not obey Einthoven's law in this order")
    reasons += _doubtful_names(best, found)
    if not best.layout.sequential and best.in_step < 0.5:
        reasons.append("the columns beat in step and are taken as recorded together")
    return reasons


def _doubtful_names(best: _Candidate, found: Found) -> list[str]:
    """Say where names stand that the layout does not explain."""
    if best.labels is None:
        return []
    reasons = []
    stray = best.labels.unexplained
    stray = stray[(found.score[stray] > 0.6) & (found.lead[stray] > 2)]  # steep waves pass for I, II and III
    printed = found.baseline_mm[[index for index in best.rows.row_index if index >= 0]]
    if printed.size:  # what stands above and below the rows is a header's or a footer's
        around = 0.8 * found.pitch_mm
        stray = stray[(found.y_mm[stray] > printed.min() - around) & (found.y_mm[stray] < printed.max() + around)]
    # where most names agree, print misleads
    if len(stray) > (2 if best.n_labels < 0.8 * len(best.layout.leads) else best.n_labels):
        reasons.append(f"{len(stray)} lead names stand where the layout has none")
    if _name_below(best.labels, best.layout.n_rows, found):
        reasons.append("a lead name stands below the last row: a row may be missing")
    return reasons


def _name_below(fit: LabelFit, n_rows: int, found: Found) -> bool:
    """Tell whether a name stands where the next row of the first column would have its own."""
    next_mm = fit.y0 + fit.pitch_y * n_rows
    stray = fit.unexplained[(found.score[fit.unexplained] > 0.8) & (found.lead[fit.unexplained] > 2)]
    near = (np.abs(found.x_mm[stray] - fit.x0) < 6.0) & (np.abs(found.y_mm[stray] - next_mm) < 0.35 * fit.pitch_y)
    return bool(near.any())


def identify_layout(
    labels: Sequence[LeadLabel], traces: TraceSet, layouts: Sequence[Layout], *, seen_mm: Sequence[float] = ()
) -> LayoutMatch:
    """Find the layout a page is printed in.

    Parameters
    ----------
    labels : sequence of LeadLabel
        Lead names found on the canvas; false ones and several candidates for a lead may be among them.
    traces : TraceSet
        The rows, top to bottom; some may be missing or spurious.
    layouts : sequence of Layout
        In order of preference where the page cannot tell.
    seen_mm : sequence of float
        Paper x where a lead's stretch was seen to begin, if something saw it.

    Returns
    -------
    LayoutMatch
        With the traced row of every printed row and the columns on the paper.  `cost` is Algorithm 1's, `score` sums up
        all evidence, `reasons` say why a person should look.

    Raises
    ------
    LayoutUnknown
        If no layout explains the page.
    """
    found = Found.of(labels, traces)
    candidates = _candidates(layouts, found, traces, seen_mm)
    if not candidates:
        raise LayoutUnknown("there is no layout to compare the page with")
    best = candidates[0]
    lawful = best.rows.cost < 0.3 and best.residual is not None and best.residual < 0.15
    if best.n_labels == 0 and not lawful:
        raise LayoutUnknown("no ECG layout to be seen: no lead name was found, and the rows alone fit no layout")
    if best.n_labels < 3 and best.rows.cost > 0.6:
        n_rows = found.baseline_mm.size
        raise LayoutUnknown(f"no ECG layout to be seen: {best.n_labels} lead names and {n_rows} rows fit no layout")
    rhythm, reasons = _name_strips(traces, best.layout, best.labels, found, best.rows.row_index, best.columns)
    doubts = [*_doubts(best, candidates[1:], found), *reasons]
    believed = best.labels.slot_label[best.labels.slot_label >= 0] if best.labels else np.zeros(0, np.int64)
    return LayoutMatch(
        layout=best.layout,
        cost=best.labels.cost if best.labels else MISSING_COST,
        score=float(np.clip(1.0 - best.total / MISSING_COST, 0.0, 1.0)),
        certain=not doubts,
        labels=tuple(found.labels[int(index)] for index in believed),
        rhythm=rhythm,
        reasons=tuple(doubts),
        row_index=best.rows.row_index,
        column_mm=best.columns,
        beats=best.beats,
    )
