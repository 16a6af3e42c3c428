"""Lead names and rows on the paper against the places a layout has for them.

Algorithm 1 of the method's paper: the scale and shift that lay a layout best over the names that were found, where a
name that is missing costs a fixed 0.5.  The candidates come from every two names, and from the rows' own pitch with
every single one, so that one name is enough to place a layout and a false one misleads only itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipeline.datatypes import ALL_LEADS, EXTRA_LEADS, FloatArray, Layout, LeadLabel, TraceSet
from pipeline.layout.columns import traced_span
from pipeline.layout.weights import PLACEMENT, RULE

Float64 = npt.NDArray[np.float64]

_EXTRA = [ALL_LEADS.index(lead) for lead in EXTRA_LEADS]


def is_rule(row_mm: FloatArray) -> bool:
    """Tell whether a row (n,) is a form's rule that waves cross here and there.

    Its pieces are level, each by itself, and most of them stand on one straight line; no lead is so flat.
    """
    at = np.flatnonzero(np.isfinite(row_mm))
    if at.size < RULE.least_columns:
        return False
    pieces = np.array_split(at, RULE.pieces)
    x, y = (np.array([np.median(values[piece]) for piece in pieces]) for values in (np.arange(row_mm.size), row_mm))
    slope = np.median([(y[j] - y[i]) / (x[j] - x[i]) for i in range(RULE.pieces) for j in range(i)])
    level = y - slope * x
    on_line = np.abs(level - np.median(level)) < RULE.off_line * RULE.within_mm
    flat = np.concatenate([np.abs(row_mm[p] - m - slope * (p - k)) for p, m, k in zip(pieces, y, x, strict=True)])
    return bool(on_line.mean() >= RULE.share and (flat < RULE.within_mm).mean() >= RULE.share)


@dataclass(frozen=True, slots=True)
class Found:
    """The labels and rows of the page as arrays, ready to be compared with every layout."""

    labels: tuple[LeadLabel, ...]
    lead: npt.NDArray[np.int64]  # (m,) index into ALL_LEADS
    x_mm: Float64  # (m,)
    y_mm: Float64  # (m,)
    score: Float64  # (m,)
    baseline_mm: Float64  # (n_rows,)
    coverage: Float64  # (n_rows,) share of the page's width that the row is traced on
    rule: npt.NDArray[np.bool_]  # (n_rows,) the row is a form's rule
    width_mm: float  # of the traces; of the labels where nothing is traced
    pitch_mm: float  # median distance of the rows; 0 = unknown

    @classmethod
    def of(cls, labels: Sequence[LeadLabel], traces: TraceSet) -> Found:
        """Measure what was found."""
        lead = np.array([ALL_LEADS.index(label.lead) for label in labels], np.int64)
        x_mm = np.array([label.x_mm for label in labels], np.float64)
        n_rows = traces.row_mm.shape[0]
        spans = [traced_span(row, traces.columns_per_mm) for row in traces.row_mm]
        width = max((span[1] - span[0] + 1 for span in spans if span), default=0)
        coverage = np.zeros(n_rows)
        for index, span in enumerate(spans):
            if span:
                coverage[index] = np.isfinite(traces.row_mm[index, span[0] : span[1] + 1]).sum() / width
        baseline_mm = traces.baseline_mm.astype(np.float64)
        rule = np.array([is_rule(row) for row in traces.row_mm], bool)
        solid = baseline_mm[(coverage > PLACEMENT.solid) & ~rule]
        return cls(
            labels=tuple(labels),
            lead=lead,
            x_mm=x_mm,
            y_mm=np.array([label.y_mm for label in labels], np.float64),
            score=np.array([label.score for label in labels], np.float64),
            baseline_mm=baseline_mm,
            coverage=coverage,
            rule=rule,
            width_mm=width / traces.columns_per_mm
            if width
            else float(np.ptp(x_mm)) * 1.3 + 1.0
            if x_mm.size
            else 250.0,
            pitch_mm=float(np.median(np.diff(np.sort(solid)))) if solid.size > 1 else 0.0,
        )

    def only(self, rows: npt.NDArray[np.int64]) -> Found:
        """Return the same page with these rows only."""
        kept = (self.baseline_mm[rows], self.coverage[rows], self.rule[rows])
        return replace(self, baseline_mm=kept[0], coverage=kept[1], rule=kept[2])


@dataclass(frozen=True, slots=True)
class Slots:
    """Where a layout prints names: one slot a short lead, then one a rhythm strip (any lead's name fits there).

    Any name of an extra lead fits the slot of another one.
    """

    lead: npt.NDArray[np.int64]  # (k,), -1 = any
    column: Float64  # (k,)
    row: Float64  # (k,)
    weight: Float64  # (k,) how much a missing name counts: strips are often unnamed
    n_columns: int
    n_rows: int

    @property
    def extra(self) -> npt.NDArray[np.bool_]:
        """Mark the slots of extra leads (k,)."""
        return np.isin(self.lead, _EXTRA)

    @property
    def near(self) -> float:
        """How far from its slot a name may stand, in page sizes: no nearer to another row's."""
        return min(PLACEMENT.near, PLACEMENT.near_rows / self.n_rows)

    @classmethod
    def of(cls, layout: Layout) -> Slots:
        """List the slots of a layout."""
        n_columns, n_short = len(layout.rows[0]), len(layout.rows)
        strips = len(layout.rhythm)
        return cls(
            lead=np.array([*(ALL_LEADS.index(lead) for lead in layout.leads), *[-1] * strips], np.int64),
            column=np.array([*(c for _ in layout.rows for c in range(n_columns)), *[0] * strips], np.float64),
            row=np.array(
                [*(r for r in range(n_short) for _ in range(n_columns)), *range(n_short, layout.n_rows)], float
            ),
            weight=np.array([1.0] * (n_short * n_columns) + [PLACEMENT.strip_name] * strips),
            n_columns=n_columns,
            n_rows=layout.n_rows,
        )


@dataclass(frozen=True, slots=True)
class LabelFit:
    """The best scale and shift of a layout onto the labels: x = pitch_x * column + x0, y = pitch_y * row + y0."""

    cost: float  # Algorithm 1, in page sizes
    pitch_x: float
    x0: float
    pitch_y: float
    y0: float
    slot_label: npt.NDArray[np.int64]  # (k,) label of each slot, -1 = missing
    unexplained: npt.NDArray[np.int64]  # labels that no slot explains


def _hypotheses(found: Found, slots: Slots) -> Float64:
    """List scale and shift candidates (h, 4): from every two labels, and from the rows' pitch with every single one."""
    short = np.flatnonzero(slots.lead >= 0)
    slot_of = {int(slots.lead[k]): k for k in short}
    rows: list[tuple[float, float, float, float]] = []
    named = [(i, slot_of[int(lead)]) for i, lead in enumerate(found.lead) if int(lead) in slot_of]
    pitch_x = found.width_mm / slots.n_columns
    column, line = slots.column.tolist(), slots.row.tolist()
    x_mm, y_mm = found.x_mm.tolist(), found.y_mm.tolist()
    for n, (i, a) in enumerate(named):
        for j, b in named[n + 1 :]:
            columns, lines = column[b] - column[a], line[b] - line[a]
            if lines == 0 or (columns == 0 and slots.n_columns > 1):
                continue
            px = (x_mm[j] - x_mm[i]) / columns if columns else pitch_x
            py = (y_mm[j] - y_mm[i]) / lines
            rows.append((px, x_mm[i] - px * column[a], py, y_mm[i] - py * line[a]))
    if found.pitch_mm:
        for i, lead in enumerate(found.lead):
            for k in np.flatnonzero((slots.lead == lead) | (slots.lead < 0)).tolist():
                x0, y0 = x_mm[i] - pitch_x * column[k], y_mm[i] - found.pitch_mm * line[k]
                rows.append((pitch_x, x0, found.pitch_mm, y0))
    table = np.array(rows, np.float64).reshape(-1, 4)
    plausible = (table[:, 0] > PLACEMENT.least_stretch * pitch_x) & (table[:, 0] < PLACEMENT.most_stretch * pitch_x)
    plausible &= table[:, 2] > PLACEMENT.least_pitch_mm
    if found.pitch_mm:
        plausible &= table[:, 2] > PLACEMENT.least_pitch * found.pitch_mm
        plausible &= table[:, 2] < PLACEMENT.most_pitch * found.pitch_mm
    return table[plausible]


def _distances(found: Found, slots: Slots, table: Float64) -> Float64:
    """Distance of every label from every slot under every hypothesis (h, k, m), in page sizes; inf for other leads."""
    x_mm = table[:, 0, None] * slots.column + table[:, 1, None]
    y_mm = table[:, 2, None] * slots.row + table[:, 3, None]
    dx = (x_mm[:, :, None] - found.x_mm) / (table[:, 0] * slots.n_columns)[:, None, None]
    dy = (y_mm[:, :, None] - found.y_mm) / (table[:, 2] * slots.n_rows)[:, None, None]
    fits = (slots.lead[:, None] == found.lead) | (slots.lead[:, None] < 0)
    other = slots.extra[:, None] & np.isin(found.lead, _EXTRA)
    return np.hypot(dx, dy) + np.where(fits, 0.0, np.where(other, PLACEMENT.other_extra, np.inf))


def _costs(found: Found, slots: Slots, distance: Float64) -> Float64:
    """Cost of Algorithm 1 for each hypothesis (h,): mean over the slots, and over the labels no slot is near."""
    to_slot = distance.min(axis=2)
    slot_cost = np.where(to_slot < slots.near, to_slot, PLACEMENT.missing_name) * slots.weight
    stray = np.where(distance.min(axis=1) < slots.near, 0.0, found.score)
    return np.asarray((slot_cost.sum(1) + PLACEMENT.missing_name * stray.sum(1)) / (slots.weight.sum() + stray.sum(1)))


def _refined(found: Found, slots: Slots, row: Float64, distance: Float64) -> Float64:
    """Fit scale and shift again, by least squares over the labels that agree; (1, 4)."""
    k, m = np.nonzero((distance == distance.min(axis=1, keepdims=True)) & (distance < slots.near))
    out = row.copy()
    for at, position, value in ((0, slots.column[k], found.x_mm[m]), (2, slots.row[k], found.y_mm[m])):
        if k.size and np.ptp(position) > 0:
            out[at], out[at + 1] = np.polyfit(position, value, 1)
        elif k.size:
            out[at + 1] = np.mean(value - row[at] * position)
    return out[None]


def fit_labels(found: Found, slots: Slots) -> LabelFit | None:
    """Find the best place of a layout on the labels.

    Parameters
    ----------
    found : Found
        The labels of the page.
    slots : Slots
        Where the layout prints names.

    Returns
    -------
    LabelFit, or None if no label fits the layout anywhere.
    """
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
    slot_label = np.where(distance[pick].min(axis=1) < slots.near, nearest, -1)
    if not (slot_label >= 0).any():
        return None
    unexplained = np.flatnonzero(distance[pick].min(axis=0) >= slots.near)
    pitch_x, x0, pitch_y, y0 = (float(value) for value in both[pick])
    return LabelFit(float(costs[pick]), pitch_x, x0, pitch_y, y0, slot_label, unexplained)


@dataclass(frozen=True, slots=True)
class RowFit:
    """Which traced row is which printed row."""

    cost: float  # in [0, 1]
    row_index: tuple[int, ...]  # per printed row, -1 = missing
    spare: tuple[int, ...]  # traced rows that are no printed row


def fit_rows(found: Found, n_short: int, n_rows: int, labels: LabelFit | None) -> RowFit:
    """Lay the printed rows, evenly spaced, over the traced ones.  Strips may stand further down; rules are no rows.

    Parameters
    ----------
    found : Found
        The traced rows of the page.
    n_short, n_rows : int
        Printed rows of short leads, and all printed rows.
    labels : LabelFit, optional
        Where the names of the layout stand: rows are near them.

    Returns
    -------
    RowFit
    """
    if found.rule.any():
        real = np.flatnonzero(~found.rule)
        fit = fit_rows(found.only(real), n_short, n_rows, labels)
        index = tuple(int(real[i]) if i >= 0 else -1 for i in fit.row_index)
        return RowFit(fit.cost, index, tuple(int(real[i]) for i in fit.spare))
    n = found.baseline_mm.size
    pitches = {round(p, 2) for p in (found.pitch_mm, labels.pitch_y if labels else 0.0) if p > 0}
    if n == 0 or not pitches:
        index = tuple(range(min(n, n_rows))) + (-1,) * max(n_rows - n, 0)
        return RowFit(abs(n - n_rows) / n_rows if n else 0.0, index, tuple(range(n_rows, n)))
    printed = np.arange(n_rows)
    grid = [(p, b - p * r) for p in pitches for b in found.baseline_mm for r in range(n_rows)]
    table = np.array(grid, np.float64)  # (h, 2): y = pitch * row + y0
    distance = (
        np.abs(table[:, :1, None] * printed[:, None] + table[:, 1:, None] - found.baseline_mm) / table[:, :1, None]
    )
    nearest = distance.min(axis=2)
    used = distance.min(axis=1) < PLACEMENT.own_row
    cost = np.where(nearest < PLACEMENT.own_row, PLACEMENT.spread * nearest, 1.0).sum(1) + np.where(
        used, 0.0, found.coverage
    ).sum(1)
    misplaced = np.zeros(len(table))
    if labels is not None:  # names stand within their own row, a little above or below the trace
        apart = np.abs(table[:, 1] - labels.y0) / table[:, 0]
        misplaced = np.clip((apart - PLACEMENT.name_off) / PLACEMENT.name_off_ramp, 0.0, 1.0)
        cost += n_rows * misplaced + PLACEMENT.name_distance * apart
    best = int(np.argmin(cost))
    order = [
        int(i) if d < PLACEMENT.own_row else -1 for i, d in zip(distance[best].argmin(1), nearest[best], strict=True)
    ]
    spare = [i for i in range(n) if i not in order]
    below = [i for i in spare if i > max(order[:n_short])]
    for strip in range(n_short, n_rows):
        if order[strip] < 0 and below:
            order[strip] = below.pop(0)
            spare.remove(order[strip])
    missing = sum(i < 0 for i in order)
    left = float(sum(found.coverage[i] for i in spare))
    spread = float(np.mean([d for d in nearest[best] if d < PLACEMENT.own_row] or [PLACEMENT.own_row]))
    cost_of_all = (missing + left) / n_rows + PLACEMENT.spread * spread + float(misplaced[best])
    return RowFit(min(1.0, cost_of_all), tuple(order), tuple(spare))
