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

from pipeline.columns import Spans, locate_columns, traced_span
from pipeline.datatypes import LEADS, Layout, LayoutMatch, Lead, LeadLabel, TraceSet
from pipeline.errors import LayoutUnknown
from pipeline.layout_file import load_layouts

__all__ = ["identify_layout", "load_layouts"]

Float64 = npt.NDArray[np.float64]

MISSING_COST = 0.5  # lambda of Algorithm 1: half the page

# Limb leads as sums of I and II (Einthoven, Goldberger).
_LIMB = {
    Lead.I: (1.0, 0.0),
    Lead.II: (0.0, 1.0),
    Lead.III: (-1.0, 1.0),
    Lead.AVR: (-0.5, -0.5),
    Lead.AVL: (1.0, -0.5),
    Lead.AVF: (-0.5, 1.0),
}


@dataclass(frozen=True, slots=True)
class _Found:
    """The labels and rows of the page as arrays, ready to be compared with every layout."""

    labels: tuple[LeadLabel, ...]
    lead: npt.NDArray[np.int64]  # (m,) index into LEADS
    x_mm: Float64  # (m,)
    y_mm: Float64  # (m,)
    score: Float64  # (m,)
    baseline_mm: Float64  # (n_rows,)
    coverage: Float64  # (n_rows,) share of the page's width that the row is traced on
    width_mm: float  # of the traces; of the labels where nothing is traced
    pitch_mm: float  # median distance of the rows; 0 = unknown

    @classmethod
    def of(cls, labels: Sequence[LeadLabel], traces: TraceSet) -> _Found:
        """Measure what was found."""
        lead = np.array([LEADS.index(label.lead) for label in labels], np.int64)
        x_mm = np.array([label.x_mm for label in labels], np.float64)
        n_rows = traces.row_mm.shape[0]
        spans = [traced_span(row, traces.columns_per_mm) for row in traces.row_mm]
        width = max((span[1] - span[0] + 1 for span in spans if span), default=0)
        coverage = np.zeros(n_rows)
        for index, span in enumerate(spans):
            if span:
                coverage[index] = np.isfinite(traces.row_mm[index, span[0] : span[1] + 1]).sum() / width
        baseline_mm = traces.baseline_mm.astype(np.float64)
        solid = baseline_mm[coverage > 0.3]
        return cls(
            labels=tuple(labels),
            lead=lead,
            x_mm=x_mm,
            y_mm=np.array([label.y_mm for label in labels], np.float64),
            score=np.array([label.score for label in labels], np.float64),
            baseline_mm=baseline_mm,
            coverage=coverage,
            width_mm=width / traces.columns_per_mm
            if width
            else float(np.ptp(x_mm)) * 1.3 + 1.0
            if x_mm.size
            else 250.0,
            pitch_mm=float(np.median(np.diff(np.sort(solid)))) if solid.size > 1 else 0.0,
        )


@dataclass(frozen=True, slots=True)
class _Slots:
    """Where a layout prints names: one slot a short lead, then one a rhythm strip (any lead's name fits there)."""

    lead: npt.NDArray[np.int64]  # (k,), -1 = any
    column: Float64  # (k,)
    row: Float64  # (k,)
    weight: Float64  # (k,) how much a missing name counts: strips are often unnamed
    n_columns: int
    n_rows: int

    @classmethod
    def of(cls, layout: Layout) -> _Slots:
        """List the slots of a layout."""
        n_columns, n_short = len(layout.rows[0]), len(layout.rows)
        strips = len(layout.rhythm)
        return cls(
            lead=np.array([*(LEADS.index(lead) for lead in layout.leads), *[-1] * strips], np.int64),
            column=np.array([*(c for _ in layout.rows for c in range(n_columns)), *[0] * strips], np.float64),
            row=np.array(
                [*(r for r in range(n_short) for _ in range(n_columns)), *range(n_short, layout.n_rows)], float
            ),
            weight=np.array([1.0] * (n_short * n_columns) + [0.3] * strips),
            n_columns=n_columns,
            n_rows=layout.n_rows,
        )


@dataclass(frozen=True, slots=True)
class _LabelFit:
    """The best scale and shift of a layout onto the labels: x = pitch_x * column + x0, y = pitch_y * row + y0."""

    cost: float  # Algorithm 1, in page sizes
    pitch_x: float
    x0: float
    pitch_y: float
    y0: float
    slot_label: npt.NDArray[np.int64]  # (k,) label of each slot, -1 = missing
    unexplained: npt.NDArray[np.int64]  # labels that no slot explains


def _hypotheses(found: _Found, slots: _Slots) -> Float64:
    """List scale and shift candidates (h, 4): from every two labels, and from the rows' pitch with every single one."""
    short = np.flatnonzero(slots.lead >= 0)
    slot_of = {int(slots.lead[k]): k for k in short}
    rows: list[tuple[float, float, float, float]] = []
    named = [(i, slot_of[int(lead)]) for i, lead in enumerate(found.lead) if int(lead) in slot_of]
    pitch_x = found.width_mm / slots.n_columns
    for n, (i, a) in enumerate(named):
        for j, b in named[n + 1 :]:
            columns, lines = slots.column[b] - slots.column[a], slots.row[b] - slots.row[a]
            if lines == 0 or (columns == 0 and slots.n_columns > 1):
                continue
            px = (found.x_mm[j] - found.x_mm[i]) / columns if columns else pitch_x
            py = (found.y_mm[j] - found.y_mm[i]) / lines
            rows.append((px, found.x_mm[i] - px * slots.column[a], py, found.y_mm[i] - py * slots.row[a]))
    if found.pitch_mm:
        for i, lead in enumerate(found.lead):
            for k in np.flatnonzero((slots.lead == lead) | (slots.lead < 0)):
                x0 = found.x_mm[i] - pitch_x * slots.column[k]
                rows.append((pitch_x, x0, found.pitch_mm, found.y_mm[i] - found.pitch_mm * slots.row[k]))
    table = np.array(rows, np.float64).reshape(-1, 4)
    plausible = (table[:, 0] > 0.6 * pitch_x) & (table[:, 0] < 1.6 * pitch_x) & (table[:, 2] > 4.0)
    if found.pitch_mm:
        plausible &= (table[:, 2] > 0.5 * found.pitch_mm) & (table[:, 2] < 2.0 * found.pitch_mm)
    return table[plausible]


def _distances(found: _Found, slots: _Slots, table: Float64) -> Float64:
    """Distance of every label from every slot under every hypothesis (h, k, m), in page sizes; inf for other leads."""
    x_mm = table[:, 0, None] * slots.column + table[:, 1, None]
    y_mm = table[:, 2, None] * slots.row + table[:, 3, None]
    dx = (x_mm[:, :, None] - found.x_mm) / (table[:, 0] * slots.n_columns)[:, None, None]
    dy = (y_mm[:, :, None] - found.y_mm) / (table[:, 2] * slots.n_rows)[:, None, None]
    distance = np.hypot(dx, dy)
    fits = (slots.lead[:, None] == found.lead) | (slots.lead[:, None] < 0)
    return np.where(fits, distance, np.inf)


def _costs(found: _Found, slots: _Slots, distance: Float64, near: float = 0.12) -> Float64:
    """Cost of Algorithm 1 for each hypothesis (h,): mean over the slots, and over the labels no slot is near."""
    to_slot = distance.min(axis=2)
    slot_cost = np.where(to_slot < near, to_slot, MISSING_COST) * slots.weight
    stray = np.where(distance.min(axis=1) < near, 0.0, found.score)
    return np.asarray((slot_cost.sum(1) + MISSING_COST * stray.sum(1)) / (slots.weight.sum() + stray.sum(1)))


def _refined(found: _Found, slots: _Slots, row: Float64, distance: Float64, near: float = 0.12) -> Float64:
    """Fit scale and shift again, by least squares over the labels that agree; (1, 4)."""
    k, m = np.nonzero((distance == distance.min(axis=1, keepdims=True)) & (distance < near))
    out = row.copy()
    for at, position, value in ((0, slots.column[k], found.x_mm[m]), (2, slots.row[k], found.y_mm[m])):
        if k.size and np.ptp(position) > 0:
            out[at], out[at + 1] = np.polyfit(position, value, 1)
        elif k.size:
            out[at + 1] = np.mean(value - row[at] * position)
    return out[None]


def _fit_labels(found: _Found, slots: _Slots, near: float = 0.12) -> _LabelFit | None:
    """Find the layout's best place on the labels; None if no label fits it anywhere."""
    if not found.labels:
        return None
    table = _hypotheses(found, slots)
    if not len(table):
        return None
    best = table[int(np.argmin(_costs(found, slots, _distances(found, slots, table))))]
    both = np.vstack([best[None], _refined(found, slots, best, _distances(found, slots, best[None])[0])])
    distance = _distances(found, slots, both)
    costs = _costs(found, slots, distance)
    pick = int(np.argmin(costs))
    nearest = np.argmin(distance[pick], axis=1)
    slot_label = np.where(distance[pick].min(axis=1) < near, nearest, -1)
    if not (slot_label >= 0).any():
        return None
    unexplained = np.flatnonzero(distance[pick].min(axis=0) >= near)
    pitch_x, x0, pitch_y, y0 = (float(value) for value in both[pick])
    return _LabelFit(float(costs[pick]), pitch_x, x0, pitch_y, y0, slot_label, unexplained)


@dataclass(frozen=True, slots=True)
class _RowFit:
    """Which traced row is which printed row."""

    cost: float  # in [0, 1]
    row_index: tuple[int, ...]  # per printed row, -1 = missing
    spare: tuple[int, ...]  # traced rows that are no printed row


def _fit_rows(found: _Found, n_short: int, n_rows: int, labels: _LabelFit | None) -> _RowFit:
    """Lay the printed rows, evenly spaced, over the traced ones; strips may stand further down."""
    n = found.baseline_mm.size
    pitches = {round(p, 2) for p in (found.pitch_mm, labels.pitch_y if labels else 0.0) if p > 0}
    if n == 0 or not pitches:
        index = tuple(range(min(n, n_rows))) + (-1,) * max(n_rows - n, 0)
        return _RowFit(abs(n - n_rows) / n_rows if n else 0.0, index, tuple(range(n_rows, n)))
    printed = np.arange(n_rows)
    grid = [(p, b - p * r) for p in pitches for b in found.baseline_mm for r in range(n_rows)]
    table = np.array(grid, np.float64)  # (h, 2): y = pitch * row + y0
    distance = (
        np.abs(table[:, :1, None] * printed[:, None] + table[:, 1:, None] - found.baseline_mm) / table[:, :1, None]
    )
    nearest = distance.min(axis=2)
    used = distance.min(axis=1) < 0.4
    cost = np.where(nearest < 0.4, 0.5 * nearest, 1.0).sum(1) + np.where(used, 0.0, found.coverage).sum(1)
    if labels is not None:  # names stand within their own row, a little above or below the trace
        cost += n_rows * np.clip(np.abs(table[:, 1] - labels.y0) / table[:, 0] - 0.6, 0.0, 1.0)
        cost += 0.05 * np.abs(table[:, 1] - labels.y0) / table[:, 0]
    best = int(np.argmin(cost))
    order = [int(i) if d < 0.4 else -1 for i, d in zip(distance[best].argmin(1), nearest[best], strict=True)]
    spare = [i for i in range(n) if i not in order]
    below = [i for i in spare if i > max(order[:n_short])]
    for strip in range(n_short, n_rows):
        if order[strip] < 0 and below:
            order[strip] = below.pop(0)
            spare.remove(order[strip])
    missing = sum(i < 0 for i in order)
    left = float(sum(found.coverage[i] for i in spare))
    spread = float(np.mean([d for d in nearest[best] if d < 0.4] or [0.4]))
    return _RowFit(min(1.0, (missing + left) / n_rows + 0.5 * spread), tuple(order), tuple(spare))


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


def _limb_residual(traces: TraceSet, layout: Layout, rows: Sequence[int], columns: Spans) -> float | None:
    """Share of the limb leads' power that Einthoven's and Goldberger's sums leave over; None if there is no such sum.

    Near 0 for the right order, some tenths for a wrong one.
    """
    left, total = 0.0, 0.0
    for c, (start_mm, end_mm) in enumerate(columns):
        n = int((end_mm - start_mm - 1.0) * 10)
        signals, sums = [], []
        for r, index in enumerate(rows):
            lead = layout.rows[r][c]
            values = _stretch(traces, index, start_mm + 0.5, end_mm - 0.5, n) if lead in _LIMB else None
            if values is not None:
                signals.append(-values if lead in layout.inverted else values)
                sums.append(_LIMB[lead])
        if len(signals) < 3:
            continue
        x = np.stack(signals)
        x = x[:, np.isfinite(x).all(0)]
        if x.shape[1] < 100:
            continue
        x = x - np.median(x, axis=1, keepdims=True)
        basis = np.array(sums)
        rest = x - basis @ np.linalg.pinv(basis) @ x
        left += float((rest**2).sum())
        total += float((x**2).sum())
    return left / total if total > 0 else None


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


def _in_step(traces: TraceSet, rows: Sequence[int], strips: Sequence[int], columns: Spans) -> float:
    """Evidence in [-1, 1] that the columns were recorded together (1) and not one after the other (-1).

    With a rhythm strip each column is compared with the strip above or below it and with the strip's start; without
    one, columns recorded together must beat in step with the first.
    """
    n = int(min(end - start for start, end in columns) * 10) - 5
    if len(columns) < 2 or n < 100:
        return 0.0
    own = [_activity(traces, rows, start + 0.3, n) for start, _ in columns]
    strips = [index for index in strips if index >= 0]
    if strips:
        strip = [_activity(traces, strips, start + 0.3, n) for start, _ in columns]
        after = np.mean([_correlation(own[k], strip[k], 10) for k in range(1, len(columns))])
        together = np.mean([_correlation(own[k], strip[0], 10) for k in range(1, len(columns))])
        return float(together - after)
    together = np.min([_correlation(own[k], own[0], 5) for k in range(1, len(columns))])
    return float(2.0 * together - 1.3)


def _name_strips(
    traces: TraceSet, layout: Layout, labels: _LabelFit | None, found: _Found, row_index: Sequence[int], columns: Spans
) -> tuple[tuple[Lead, ...], list[str]]:
    """Name each rhythm strip: by its label, else by the short lead it resembles, else by the layout's custom."""
    names, reasons = [], []
    n_short = len(layout.rows)
    for number, usual in enumerate(layout.rhythm):
        label = int(labels.slot_label[len(layout.leads) + number]) if labels else -1
        if label >= 0:
            names.append(found.labels[label].lead)
            continue
        likeness: dict[Lead, float] = {}
        for c, (start_mm, end_mm) in enumerate(columns if layout.sequential else columns[:1]):
            n = int((end_mm - start_mm) * 10)
            strip = _stretch(traces, row_index[n_short + number], start_mm, end_mm, n)
            for r in range(n_short):
                short = _stretch(traces, row_index[r], start_mm, end_mm, n)
                if strip is not None and short is not None:
                    lead = layout.rows[r][c]
                    likeness[lead] = _correlation(-short if lead in layout.inverted else short, strip, 10)
        best = max(likeness, key=lambda lead: likeness[lead] + (0.03 if lead == usual else 0.0), default=usual)
        if likeness.get(best, 0.0) < 0.8:
            best = usual
            reasons.append(f"rhythm strip {number + 1} has no name and resembles no lead; taken as {usual}")
        names.append(best)
    return tuple(names), reasons


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One layout with all evidence for and against it; the lower `total`, the better."""

    layout: Layout
    labels: _LabelFit | None
    rows: _RowFit
    columns: Spans
    residual: float | None
    in_step: float

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
        the columns were recorded together.
        """
        if self.layout.rows == other.layout.rows and len(self.layout.rhythm) == len(other.layout.rhythm):
            if self.layout.inverted != other.layout.inverted and self.residual is not None:
                return (other.residual or 0.0) > 2.0 * self.residual + 0.003
            return abs(self.in_step) > 0.15
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
        return cost + 0.05 * float(np.clip(self.in_step if self.layout.sequential else -self.in_step, 0.0, 1.0))


def _weigh(
    layout: Layout, found: _Found, traces: TraceSet, fit: tuple[_LabelFit | None, _RowFit], seen_mm: Sequence[float]
) -> _Candidate:
    """Add the evidence of the signals to the fit of names and rows."""
    labels, rows = fit
    n_short = len(layout.rows)
    short, strips = rows.row_index[:n_short], rows.row_index[n_short:]
    slots = _Slots.of(layout)
    columns_named = labels is not None and np.ptp(slots.column[labels.slot_label >= 0]) > 0
    pitch = labels.pitch_x if labels is not None and columns_named else None
    columns = locate_columns(traces, layout, short, strips, label_pitch_mm=pitch, seen_mm=seen_mm)
    residual = _limb_residual(traces, layout, short, columns)
    in_step = _in_step(traces, short, strips, columns) if columns else 0.0
    return _Candidate(layout, labels, rows, columns, residual, in_step)


def _candidates(
    layouts: Sequence[Layout], found: _Found, traces: TraceSet, seen_mm: Sequence[float], reach: float = 0.2
) -> list[_Candidate]:
    """Fit every layout to names and rows, and weigh those within `reach` of the best by the signals too; best first."""
    fits: dict[tuple[object, int], tuple[_LabelFit | None, _RowFit]] = {}  # layouts with the same places share one
    for layout in layouts:
        places = (layout.rows, len(layout.rhythm))
        if places not in fits:
            labels = _fit_labels(found, _Slots.of(layout))
            fits[places] = (labels, _fit_rows(found, len(layout.rows), layout.n_rows, labels))
    cost = {
        places: (labels.cost if labels else MISSING_COST) + 0.35 * rows.cost for places, (labels, rows) in fits.items()
    }
    limit = min(cost.values(), default=0.0) + reach
    near = [layout for layout in layouts if cost[layout.rows, len(layout.rhythm)] <= limit]
    weighed = [_weigh(layout, found, traces, fits[layout.rows, len(layout.rhythm)], seen_mm) for layout in near]
    return sorted(weighed, key=lambda candidate: candidate.total)


def _doubts(best: _Candidate, others: Sequence[_Candidate], found: _Found) -> list[str]:
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
    if best.labels is not None and found.score[best.labels.unexplained].sum() > 2.0:
        reasons.append(f"{best.labels.unexplained.size} lead names stand where the layout has none")
    if not best.layout.sequential and not best.layout.rhythm:
        reasons.append("the columns beat in step and are taken as recorded together")
    return reasons


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
    found = _Found.of(labels, traces)
    candidates = _candidates(layouts, found, traces, seen_mm)
    if not candidates:
        raise LayoutUnknown("there is no layout to compare the page with")
    best = candidates[0]
    lawful = best.rows.cost < 0.3 and best.residual is not None and best.residual < 0.15
    if best.n_labels == 0 and not lawful:
        raise LayoutUnknown("no lead name was found, and the rows alone fit no layout")
    if best.n_labels < 3 and best.rows.cost > 0.6:
        raise LayoutUnknown(f"{best.n_labels} lead names and {found.baseline_mm.size} rows fit no layout")
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
    )
