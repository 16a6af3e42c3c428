"""Which lead each rhythm strip shows: the short lead it repeats, its label, or the custom of the layout."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.datatypes import Layout, Lead, LeadLabel, Spans, TraceSet
from pipeline.layout.evidence import correlation, stretch
from pipeline.layout.placement import Found, LabelFit
from pipeline.layout.weights import STRIPS

_LIMB_BARS = frozenset({Lead.I, Lead.II})  # names that a steep stroke, or two, may be taken for
_AUGMENTED = frozenset({Lead.AVR, Lead.AVL, Lead.AVF})  # hardly ever printed as strips


def _likeness(
    traces: TraceSet, layout: Layout, row_index: Sequence[int], strip: int, columns: Spans
) -> dict[Lead, float]:
    """Compare a strip with every short lead printed at the same time, in shape and height; 1 = the same."""
    likeness: dict[Lead, float] = {}
    for c, (start_mm, end_mm) in enumerate(columns):
        n = int((end_mm - start_mm) * 10)
        own_mm = start_mm if layout.sequential else columns[0][0]
        long = stretch(traces, strip, own_mm, own_mm + end_mm - start_mm, n)
        for r, leads in enumerate(layout.rows):
            short = stretch(traces, row_index[r], start_mm, end_mm, n)
            if long is None or short is None:
                continue
            a, b = float(np.nanstd(short)), float(np.nanstd(long))
            alike = 2 * a * b / max(a * a + b * b, 1e-9)
            likeness[leads[c]] = alike * correlation(-short if leads[c] in layout.inverted else short, long, STRIPS.lag)
    return likeness


def _surest_there(found: Found, index: int) -> LeadLabel:
    """Return the label with the highest score at the place of a label: every "III" contains a "II"."""
    here = np.abs(found.x_mm - found.x_mm[index]) < STRIPS.place_x_mm
    here &= np.abs(found.y_mm - found.y_mm[index]) < STRIPS.place_y_mm
    return found.labels[int(np.argmax(np.where(here, found.score, -1.0)))]


def name_strips(
    traces: TraceSet, layout: Layout, labels: LabelFit | None, found: Found, row_index: Sequence[int], columns: Spans
) -> tuple[tuple[Lead, ...], list[str]]:
    """Name each rhythm strip: by the short lead it repeats and by its label, else by the layout's custom.

    A label counts unless the strip clearly repeats another lead: a steep wave or a pulse may pass for a name.

    Parameters
    ----------
    traces : TraceSet
    layout : Layout
    labels : LabelFit, optional
        Which label stands at which place of the layout.
    found : Found
        The labels of the page.
    row_index : sequence of int
        Traced row of every printed row, -1 = missing.
    columns : Spans
        Paper x of the columns, mm.

    Returns
    -------
    rhythm : tuple of Lead
        The lead of each strip, top to bottom.
    reasons : list of str
        Doubts, in words.
    """
    names, reasons = [], []
    n_short = len(layout.rows)
    for number, usual in enumerate(layout.rhythm):
        at = int(labels.slot_label[len(layout.leads) + number]) if labels else -1
        label = _surest_there(found, at) if at >= 0 else None
        likeness = _likeness(traces, layout, row_index, row_index[n_short + number], columns)
        evidence = {
            lead: alike + (STRIPS.usual if lead == usual else STRIPS.augmented if lead in _AUGMENTED else 0.0)
            for lead, alike in likeness.items()
        }
        if label is not None:
            weight = STRIPS.bar_label if label.lead in _LIMB_BARS else STRIPS.label
            evidence[label.lead] = evidence.get(label.lead, STRIPS.unseen) + weight * label.score
        best = max(evidence, key=lambda lead: evidence[lead], default=usual)
        rival = max(likeness, key=lambda lead: likeness[lead], default=best)
        if likeness.get(rival, 0.0) > likeness.get(best, 0.0) + STRIPS.rival and (label is None or best != label.lead):
            reasons.append(f"rhythm strip {number + 1} resembles {rival} more than {best}")
        if (
            label is not None
            and best != label.lead
            and label.score > STRIPS.sure_label
            and label.lead not in _LIMB_BARS
        ):
            reasons.append(f"rhythm strip {number + 1} is named {label.lead} and resembles {best}")
        elif label is None and likeness.get(best, 0.0) < STRIPS.alike:
            best = usual
            reasons.append(f"rhythm strip {number + 1} has no name and resembles no lead; taken as {usual}")
        if best in names:
            reasons.append(f"two rhythm strips resemble {best}: a row may be read twice")
        names.append(best)
    return tuple(names), reasons
