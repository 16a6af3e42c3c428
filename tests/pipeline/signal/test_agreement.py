from dataclasses import replace

import numpy as np
import pytest

from pipeline import Calibration, EcgRecord, GridScale, LayoutMatch, Lead, TraceSet
from pipeline.datatypes import Act, InkAudit
from pipeline.layout.file import load_layouts
from pipeline.layout.identify import identify_layout
from pipeline.signal.agreement import tell_from_others
from pipeline.signal.calibrate import calibrate
from pipeline.signal.quality import assess
from pipeline.training.recordings.simulate import simulate_ecg
from tests.pipeline.paper_samples import labels_of, printed

LAYOUTS = load_layouts()
NAMED = {layout.name: layout for layout in LAYOUTS}
GRID = GridScale(px_per_mm_x=8.0, px_per_mm_y=8.0, score=0.9, source="grid", doubt_mm=0.01)
READ = Calibration(speed_source="columns", gain_source="pulse")


def page(name: str) -> tuple[TraceSet, LayoutMatch]:
    traces = printed(NAMED[name], simulate_ecg(np.random.default_rng(1), disease="none"))
    return traces, identify_layout(labels_of(NAMED[name], traces), traces, LAYOUTS)


def misread(traces: TraceSet, row: int, part: slice, off_mm: float | None = None, confidence: float = 0.1) -> TraceSet:
    """Move a row by so much; None: on the line of the row beside it."""
    row_mm, sure = traces.row_mm.copy(), traces.confidence.copy()
    row_mm[row, part] = (
        row_mm[row, part] + off_mm if off_mm is not None else traces.row_mm[row + 1 if row == 0 else row - 1, part]
    )
    sure[row, part] = confidence
    return replace(traces, row_mm=row_mm, confidence=sure)


def off_mm(found: TraceSet, traces: TraceSet) -> float:
    return float(np.nanmax(np.abs(found.row_mm - traces.row_mm)))


def stretch(match: LayoutMatch, traces: TraceSet, lead: Lead, *, after_mm: float = 20.0) -> tuple[int, slice]:
    """Find the row and two millimetres of the first print of a lead."""
    row, (start, _) = next((row, span) for name, row, span in match.stretches() if name == lead)
    first = round((start + after_mm - traces.x0_mm) * traces.columns_per_mm)
    return row, slice(first, first + 40)


@pytest.mark.parametrize(
    ("name", "lead"),
    [
        ("3x4", Lead.II),
        ("3x4", Lead.AVR),
        ("3x4+1R", Lead.AVL),
        ("3x4 Cabrera", Lead.AVR),  # printed upside down
        ("6x2", Lead.AVF),
        ("12x1", Lead.III),
    ],
)
def test_a_limb_lead_is_told_by_the_others(name: str, lead: Lead) -> None:
    traces, match = page(name)
    row, part = stretch(match, traces, lead)
    found = tell_from_others(misread(traces, row, part), match)
    assert off_mm(found, traces) < 0.35
    assert found.confidence[row, part].max() <= 0.5


def test_a_strip_and_its_short_lead_tell_each_other() -> None:
    traces, match = page("3x4+3R")
    repeated = next(lead for lead in match.rhythm if lead in (Lead.V1, Lead.V2, Lead.V5))
    row, part = stretch(match, traces, repeated)
    assert off_mm(tell_from_others(misread(traces, row, part), match), traces) < 0.35


def test_columns_recorded_together_tell_each_other() -> None:
    traces, match = page("3x4 simultaneous")
    assert not match.layout.sequential
    row, part = stretch(match, traces, Lead.AVL)
    other, beneath = stretch(match, traces, Lead.AVF)
    found = tell_from_others(misread(misread(traces, row, part), other, beneath), match)  # in one column
    assert off_mm(found, traces) < 0.6


def test_one_other_print_tells_only_if_it_is_sure() -> None:
    traces, match = page("3x4+3R")
    lead = next(lead for lead in match.rhythm if lead in (Lead.V1, Lead.V2, Lead.V5))
    prints = [(row, span) for name, row, span in match.stretches() if name == lead]
    wrong = traces
    for (row, _), confidence in zip(prints, (0.1, 0.45), strict=True):
        first = round((prints[0][1][0] + 20 - traces.x0_mm) * traces.columns_per_mm)
        wrong = misread(wrong, row, slice(first, first + 40), confidence=confidence)
    assert tell_from_others(wrong, match) is wrong


def test_two_of_three_rows_cannot_be_told() -> None:
    traces, match = page("3x4")
    row, part = stretch(match, traces, Lead.II)
    other, _ = stretch(match, traces, Lead.III)
    both = misread(misread(traces, row, part), other, part)
    assert tell_from_others(both, match) is both


@pytest.mark.parametrize("lead", [Lead.V1, Lead.V6])
def test_a_chest_lead_that_is_printed_once_stays(lead: Lead) -> None:
    traces, match = page("3x4")
    wrong = misread(traces, *stretch(match, traces, lead))
    assert tell_from_others(wrong, match) is wrong


def test_rows_that_are_sure_or_touch_no_other_stay() -> None:
    traces, match = page("3x4")
    row, part = stretch(match, traces, Lead.II)
    for kept in (traces, misread(traces, row, part, confidence=0.6), misread(traces, row, part, 8.0)):
        assert tell_from_others(kept, match) is kept


def test_leads_of_another_layout_tell_nothing() -> None:
    traces, match = page("3x4")
    rows = (match.rows[1], match.rows[0], match.rows[2])  # II, I, III do not add up
    wrong = misread(traces, *stretch(match, traces, Lead.II))
    other = replace(match, row_index=rows)
    assert tell_from_others(wrong, other) is wrong


def test_what_a_person_drew_stays() -> None:
    traces, match = page("3x4")
    row, part = stretch(match, traces, Lead.II)
    acts = np.zeros(traces.row_mm.shape, np.uint8)
    acts[row, part] = Act.DRAWN
    drawn = replace(misread(traces, row, part), by_person=acts)
    assert tell_from_others(drawn, match) is drawn


def records(lead: Lead) -> tuple[EcgRecord, EcgRecord, LayoutMatch, TraceSet]:
    traces, match = page("6x2")
    wrong = misread(traces, *stretch(match, traces, lead))
    told = tell_from_others(wrong, match)
    return calibrate(told, match, READ), calibrate(wrong, match, READ), match, wrong


def test_what_is_told_raises_no_estimate_and_is_named() -> None:
    record, read, match, traces = records(Lead.AVF)
    before = assess(read, match, traces, GRID, InkAudit())
    after = assess(record, match, traces, GRID, InkAudit(), read)
    assert after.estimated_snr_db <= before.estimated_snr_db
    assert after.limb_leads_agree == before.limb_leads_agree
    assert after.einthoven_residual_mv == before.einthoven_residual_mv
    assert set(before.warnings) < set(after.warnings)
    (told,) = set(after.warnings) - set(before.warnings)
    assert told == "lead aVF is taken from the leads that it must agree with at 0.8 s"
