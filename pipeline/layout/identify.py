"""Which layout a page is printed in: lead names and rows found on the paper against the layouts of the file.

The paper's Algorithm 1 gives each layout the cost of its best scale and shift onto the names that were found; a name
that is missing costs a fixed 0.5.  Three kinds of evidence it leaves out decide where names are few, false or doubled:
the traced rows (number and spacing), the sums that limb leads obey, and whether columns beat in step.  Every doubt that
remains is stated in words, and the match is then not `certain`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.corrections import broken_by_layout
from pipeline.datatypes import (
    EXTRA_LEADS,
    NAMED_LEADS,
    OTHER_SYSTEMS,
    UNNAMED_LEADS,
    Corrections,
    Layout,
    LayoutMatch,
    Lead,
    LeadLabel,
    Spans,
    TraceSet,
)
from pipeline.errors import CorrectionError, LayoutUnknown
from pipeline.layout.beats import measure_beats, measure_rhythm
from pipeline.layout.columns import locate_columns
from pipeline.layout.evidence import limb_residual, measure_step
from pipeline.layout.placement import Found, LabelFit, RowFit, Slots, fit_labels, fit_rows
from pipeline.layout.strips import name_strips
from pipeline.layout.weights import DECISION, PLACEMENT


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One layout with all evidence for and against it; the lower `total`, the better."""

    layout: Layout
    labels: LabelFit | None
    rows: RowFit
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
        before_mm = -DECISION.names_before_mm - off_mm
        inside_mm = off_mm - DECISION.names_inside * width_mm / len(self.columns)
        return float(np.clip(max(before_mm, inside_mm) / width_mm, 0.0, 1.0))

    @property
    def names_misspaced(self) -> float:
        """How far the distance of the names is from that of the columns, beyond what carts do: relative, in [0, 1]."""
        if not self.labels or len(self.columns) < 2 or not _names_columns(self.labels, self.layout):
            return 0.0
        pitch_mm = self.columns[1][0] - self.columns[0][0]
        off = abs(float(np.log(self.labels.pitch_x / pitch_mm)))
        return float(np.clip(off - DECISION.names_spaced, 0.0, 1.0))

    def plainly_beats(self, other: _Candidate) -> bool:
        """Tell whether the evidence leaves no doubt between the two.

        Layouts whose names stand at the same places differ only in the signals: in the sign of a lead, or in whether
        the columns were recorded together.  Carts print one column after the other, so that only the contrary needs
        evidence; what is no evidence either way is a doubt.
        """
        if self.layout.rows == other.layout.rows and len(self.layout.rhythm) == len(other.layout.rhythm):
            if self.layout.inverted != other.layout.inverted and self.residual is not None:
                return (other.residual or 0.0) > DECISION.inverted_ratio * self.residual + DECISION.inverted_margin
            return self.in_step <= DECISION.apart if self.layout.sequential else self.in_step > DECISION.together
        return other.total - self.total >= DECISION.margin

    @property
    def n_labels(self) -> int:
        """How many names agree with the layout."""
        return int((self.labels.slot_label >= 0).sum()) if self.labels else 0

    @property
    def total(self) -> float:
        """Cost of all evidence: names, rows, limb-lead sums, place and step of the columns."""
        cost = self.labels.cost if self.labels else PLACEMENT.missing_name
        signals = DECISION.sums * min(1.0, self.residual or 0.0)
        cost += DECISION.rows * self.rows.cost + signals + self.names_outside + self.names_misspaced
        together = self.in_step - DECISION.together  # what a regular rhythm shows by chance is no evidence
        return cost + DECISION.step * float(np.clip(together if self.layout.sequential else -together, 0.0, 1.0))


def _names_columns(labels: LabelFit, layout: Layout) -> bool:
    """Tell whether names of more than one column are found, so that their distance is that of the columns."""
    return bool(np.ptp(Slots.of(layout).column[labels.slot_label >= 0]) > 0)


def _short_rows(layout: Layout, rows: RowFit) -> tuple[int, ...]:
    """List the traced rows that hold a layout's short leads."""
    return tuple(index for index in rows.row_index[: len(layout.rows)] if index >= 0)


def _weigh(
    layout: Layout, traces: TraceSet, fit: tuple[LabelFit | None, RowFit], columns: Spans, rr_mm: float | None
) -> _Candidate:
    """Add the evidence of the signals to the fit of names and rows; `rr_mm` is from one beat to the next."""
    labels, rows = fit
    n_short = len(layout.rows)
    short, strips = rows.row_index[:n_short], rows.row_index[n_short:]
    residual = limb_residual(traces, layout, short, columns)
    step = measure_step(traces, layout, short, strips, columns, rr_mm, residual or 0.0) if columns else 0.0
    return _Candidate(layout, labels, rows, columns, residual, step)


def _columns(
    layout: Layout, traces: TraceSet, fit: tuple[LabelFit | None, RowFit], seen_mm: Sequence[float], guessed: bool
) -> Spans:
    """Lay the columns of a layout over its rows."""
    labels, rows = fit
    short, strips = rows.row_index[: len(layout.rows)], rows.row_index[len(layout.rows) :]
    pitch = labels.pitch_x if labels is not None and _names_columns(labels, layout) else None
    return locate_columns(traces, layout, short, strips, label_pitch_mm=pitch, seen_mm=seen_mm, guessed=guessed)


def _candidates(
    layouts: Sequence[Layout], found: Found, traces: TraceSet, seen_mm: Sequence[float], guessed: bool
) -> list[_Candidate]:
    """Fit every layout to names and rows, and weigh those near the best by the signals too; best first."""
    fits: dict[tuple[object, int], tuple[LabelFit | None, RowFit]] = {}  # layouts with the same places share one
    for layout in layouts:
        places = (layout.rows, len(layout.rhythm))
        if places not in fits:
            labels = fit_labels(found, Slots.of(layout))
            fits[places] = (labels, fit_rows(found, len(layout.rows), layout.n_rows, labels))
    cost = {
        places: (labels.cost if labels else PLACEMENT.missing_name) + DECISION.rows * rows.cost
        for places, (labels, rows) in fits.items()
    }
    limit = min(cost.values(), default=0.0) + DECISION.reach
    near = [layout for layout in layouts if cost[layout.rows, len(layout.rhythm)] <= limit]
    columns: dict[tuple[object, ...], Spans] = {}
    rr_mm: dict[tuple[int, ...], float | None] = {}  # of the rows, wherever their columns stand
    weighed: dict[tuple[object, ...], _Candidate] = {}
    for layout in near:
        places = (layout.rows, len(layout.rhythm))
        laid = (*places, layout.column_seconds)
        if laid not in columns:
            columns[laid] = _columns(layout, traces, fits[places], seen_mm, guessed)
        short = _short_rows(layout, fits[places][1])
        if short not in rr_mm:
            rhythm = measure_rhythm(traces, short)
            rr_mm[short] = rhythm.rr_mm if rhythm else None
        signals = (*laid, layout.inverted)  # whether columns were recorded together changes no evidence
        if signals not in weighed:
            weighed[signals] = _weigh(layout, traces, fits[places], columns[laid], rr_mm[short])
    candidates = [
        replace(weighed[layout.rows, len(layout.rhythm), layout.column_seconds, layout.inverted], layout=layout)
        for layout in near
    ]
    return sorted(candidates, key=lambda candidate: candidate.total)


def _doubts(best: _Candidate, others: Sequence[_Candidate], found: Found, together: bool | None) -> list[str]:
    """Say in words why a person should look at the layout; `together` is what one stated about the columns."""
    reasons = []
    n_names = best.n_labels
    if n_names <= DECISION.few_names and n_names < DECISION.few_share * len(best.layout.leads):
        reasons.append(f"only {n_names} lead name{'' if n_names == 1 else 's'} found")
    elif n_names < DECISION.names_share * len(best.layout.leads):
        reasons.append(f"only {n_names} of {len(best.layout.leads)} lead names found")
    places = (best.layout.rows, len(best.layout.rhythm), best.layout.inverted)
    close = [
        other.layout.name
        for other in others
        if not best.plainly_beats(other)
        and (together is None or (other.layout.rows, len(other.layout.rhythm), other.layout.inverted) != places)
    ]
    if close:
        reasons.append(f"layout {close[0]} fits nearly as well")
    reasons += _doubtful_rows(best, found)
    if best.residual is not None and best.residual > DECISION.lawless:
        reasons.append("the limb leads do not obey Einthoven's law in this order")
    reasons += _doubtful_names(best, found)
    if together is None and not best.layout.sequential and best.in_step < DECISION.together_sure:
        reasons.append("the columns beat in step and are taken as recorded together")
    return reasons


def _doubtful_rows(best: _Candidate, found: Found) -> list[str]:
    """Say which rows are missing or left over."""
    reasons = []
    missing = sum(index < 0 for index in best.rows.row_index)
    spare = sum(found.coverage[index] > DECISION.solid_row for index in best.rows.spare)
    if missing:
        reasons.append(f"{missing} of {best.layout.n_rows} rows not found")
    if spare:
        reasons.append(f"{spare} more row{'' if spare == 1 else 's'} traced than the layout has")
    return reasons


def _doubtful_names(best: _Candidate, found: Found) -> list[str]:
    """Say where names stand that the layout does not explain."""
    if best.labels is None:
        return []
    reasons = []
    stray = best.labels.unexplained
    stray = stray[
        (found.score[stray] > DECISION.stray_score) & (found.lead[stray] > 2)
    ]  # steep waves pass for I, II and III
    printed = found.baseline_mm[[index for index in best.rows.row_index if index >= 0]]
    if printed.size:  # what stands above and below the rows is a header's or a footer's
        around = DECISION.around_rows * found.pitch_mm
        stray = stray[(found.y_mm[stray] > printed.min() - around) & (found.y_mm[stray] < printed.max() + around)]
    # where most names agree, print misleads
    most = best.n_labels >= DECISION.most_names * len(best.layout.leads)
    if len(stray) > (best.n_labels if most else min(DECISION.stray_names, best.n_labels - 1)):
        reasons.append(f"{len(stray)} lead names stand where the layout has none")
    if _name_below(best.labels, best.layout.n_rows, found):
        reasons.append("a lead name stands below the last row: a row may be missing")
    return reasons


def _name_below(fit: LabelFit, n_rows: int, found: Found) -> bool:
    """Tell whether a name stands where the next row of the first column would have its own."""
    next_mm = fit.y0 + fit.pitch_y * n_rows
    stray = fit.unexplained[(found.score[fit.unexplained] > DECISION.below_score) & (found.lead[fit.unexplained] > 2)]
    near = np.abs(found.x_mm[stray] - fit.x0) < DECISION.below_x_mm
    near &= np.abs(found.y_mm[stray] - next_mm) < DECISION.below_rows * fit.pitch_y
    return bool(near.any())


def _refuse_unknown(best: _Candidate, found: Found) -> None:
    """Raise LayoutUnknown if the best candidate explains the page badly."""
    lawful = best.rows.cost < DECISION.lawful_rows and (
        best.residual is not None and best.residual < DECISION.lawful_sums
    )
    if best.n_labels == 0 and not lawful:
        raise LayoutUnknown("no ECG layout to be seen: no lead name was found, and the rows alone fit no layout")
    if best.n_labels < DECISION.least_names and best.rows.cost > DECISION.unfit_rows:
        n_rows = found.baseline_mm.size
        raise LayoutUnknown(f"no ECG layout to be seen: {best.n_labels} lead names and {n_rows} rows fit no layout")


def _stated(layout: Layout, stated: Corrections) -> Layout:
    """Return a layout with the lead names and the order of the columns that a person states."""
    broken = list(broken_by_layout(stated, layout))
    if broken:
        raise CorrectionError(broken)
    if stated.leads is None and stated.together is None:
        return layout
    return replace(
        layout,
        rows=layout.rows if stated.leads is None else stated.leads,
        sequential=layout.sequential if stated.together is None else not stated.together,
    )


def _with_printed_extras(layout: Layout, fit: LabelFit | None, found: Found) -> tuple[Layout, list[str]]:
    """Give the places of extra leads the names that are printed there; a place without one has a lead without a name.

    Which extra leads a cart prints is for its user to choose, and no sum or strip tells one from another.
    """
    places = [k for k, lead in enumerate(layout.leads) if lead in EXTRA_LEADS]
    labels = [int(fit.slot_label[k]) if fit else -1 for k in places]
    names: dict[int, Lead] = {}
    named = [(found.labels[label], k) for label, k in zip(labels, places, strict=True) if label >= 0]
    for label, k in sorted(named, key=lambda pair: -pair[0].score):
        if label.lead not in names.values():
            names[k] = label.lead
    unread = dict(zip((k for k in places if k not in names), UNNAMED_LEADS, strict=False))
    leads = [(names | unread).get(k, lead) for k, lead in enumerate(layout.leads)]
    n = len(layout.rows[0])
    rows = tuple(tuple(leads[first : first + n]) for first in range(0, len(leads), n))
    reasons = [f"leads whose names were not read are {', '.join(unread.values())} in the record"] if unread else []
    return (layout if rows == layout.rows else replace(layout, rows=rows)), reasons


def _other_systems(layout: Layout) -> list[str]:
    """Name the leads of a layout that belong to no system of standard leads."""
    reasons = []
    for system, leads in OTHER_SYSTEMS.items():
        there = [lead for lead in layout.leads if lead in leads]
        if there:
            reasons.append(f"{', '.join(there)} are {system}'s leads, which are unknown here")
    return reasons


def identify_layout(
    labels: Sequence[LeadLabel],
    traces: TraceSet,
    layouts: Sequence[Layout],
    *,
    seen_mm: Sequence[float] = (),
    guessed: bool = False,
    stated: Corrections | None = None,
) -> LayoutMatch:
    """Find the layout a page is printed in.

    Parameters
    ----------
    labels : sequence of LeadLabel
        Lead names found on the canvas; false ones and several candidates for a lead may be among them.
    traces : TraceSet
        The rows, top to bottom; some may be missing or spurious.
    layouts : sequence of Layout
        In order of preference if the page does not decide.
    seen_mm : sequence of float
        Paper x where the layout network saw a lead's stretch begin; empty if it was not asked.
    guessed : bool
        The scale of the page is a guess, so that the widths which carts print say nothing about its columns.
    stated : Corrections, optional
        A layout, lead names or an order of the columns that a person states are taken as certain.

    Returns
    -------
    LayoutMatch
        With the traced row of every printed row and the columns on the paper.  `cost` is Algorithm 1's, `score` sums up
        all evidence, `reasons` say why a person should look.

    Raises
    ------
    LayoutUnknown
        If no layout explains the page.
    CorrectionError
        If what is stated does not have the shape of the layout.
    """
    stated = stated or Corrections()
    found = Found.of(labels, traces)
    likely = [layout for layout in layouts if stated.layout in (None, layout.name)]
    candidates = _candidates(likely, found, traces, seen_mm, guessed)
    if not candidates:
        raise LayoutUnknown("there is no layout to compare the page with")
    best = candidates[0]
    if stated.layout is None:
        _refuse_unknown(best, found)
    layout, unread = _with_printed_extras(best.layout, best.labels, found)
    layout = _stated(layout, stated)
    others = _other_systems(layout)
    if not set(layout.leads) & set(NAMED_LEADS):
        raise LayoutUnknown(f"no layout that is known: {others[0]}")
    if stated.layout is None and stated.leads is None:
        doubts = _doubts(best, candidates[1:], found, stated.together)
    else:
        doubts = _doubtful_rows(best, found)
    if stated.row_baselines_px is not None:
        doubts = [doubt for doubt in doubts if doubt not in _doubtful_rows(best, found)]
    doubts += [*others, *(unread if stated.leads is None else ())]
    if stated.rhythm is None:
        rhythm, reasons = name_strips(traces, layout, best.labels, found, best.rows.row_index, best.columns)
        doubts += reasons
    else:
        rhythm = stated.rhythm
    believed = best.labels.slot_label[best.labels.slot_label >= 0] if best.labels else np.zeros(0, np.int64)
    return LayoutMatch(
        layout=layout,
        cost=best.labels.cost if best.labels else PLACEMENT.missing_name,
        score=float(np.clip(1.0 - best.total / PLACEMENT.missing_name, 0.0, 1.0)),
        certain=not doubts,
        labels=tuple(found.labels[int(index)] for index in believed),
        rhythm=rhythm,
        reasons=tuple(doubts),
        row_index=best.rows.row_index,
        column_mm=best.columns,
        beats=measure_beats(traces, _short_rows(best.layout, best.rows), best.columns),
    )
