from dataclasses import replace

import numpy as np
import pytest

from pipeline import Calibration, EcgRecord, GridScale, LayoutMatch, Lead, Quality, TraceSet
from pipeline.datatypes import InkAudit
from pipeline.layout.file import load_layouts
from pipeline.layout.identify import identify_layout
from pipeline.signal.calibrate import calibrate
from pipeline.signal.quality import assess, features
from pipeline.training.recordings.simulate import simulate_ecg
from tests.pipeline.paper_samples import labels_of, printed

LAYOUTS = load_layouts()
NAMED = {layout.name: layout for layout in LAYOUTS}
GRID = GridScale(px_per_mm_x=8.0, px_per_mm_y=8.0, score=0.9, source="grid", doubt_mm=0.01)
READ = Calibration(speed_source="columns", gain_source="pulse")


def page(name: str = "3x4+1R", seed: int = 1) -> tuple[TraceSet, LayoutMatch]:
    traces = printed(NAMED[name], simulate_ecg(np.random.default_rng(seed), disease="none"))
    return traces, identify_layout(labels_of(NAMED[name], traces), traces, LAYOUTS)


def judged(traces: TraceSet, match: LayoutMatch, grid: GridScale = GRID) -> tuple[EcgRecord, Quality]:
    record = calibrate(traces, match, READ)
    return record, assess(record, match, traces, grid, InkAudit())


def test_a_clean_page_has_nothing_to_warn_of() -> None:
    traces, match = page()
    record, quality = judged(traces, match)
    assert quality.warnings == ()
    assert quality.limb_leads_agree
    assert list(quality.coverage) == list(record.leads)
    assert min(quality.coverage.values()) > 0.998
    assert quality.confidence[Lead.V3] == pytest.approx(0.9, abs=1e-3)
    assert quality.einthoven_residual_mv is not None and quality.einthoven_residual_mv < 0.03
    assert quality.estimated_snr_db > 15


def test_coverage_counts_what_is_printed_only() -> None:
    traces, match = page()
    first = round((12 + 62.5 - traces.x0_mm) * 20)
    traces.row_mm[1, first : first + 625] = np.nan  # half of aVL
    _, quality = judged(traces, match)
    assert quality.coverage[Lead.AVL] == pytest.approx(0.5, abs=0.01)
    assert quality.coverage[Lead.V2] > 0.99
    assert any("only 50 % of lead aVL" in warning for warning in quality.warnings)


def test_leads_that_are_not_printed_are_not_judged() -> None:
    _, quality = judged(*page("6x1 chest"))
    assert list(quality.coverage) == [Lead.V1, Lead.V2, Lead.V3, Lead.V4, Lead.V5, Lead.V6]
    assert quality.einthoven_residual_mv is None and quality.limb_leads_agree is None


def test_a_row_the_tracer_lost_counts_as_unread() -> None:
    traces, match = page("12x1")
    match = replace(match, row_index=(*match.row_index[:5], -1, *match.row_index[6:]))
    _, quality = judged(traces, match)
    assert quality.coverage[Lead.AVF] == 0.0
    assert quality.confidence[Lead.AVF] == 0.0


def test_swapped_rows_break_the_law_of_einthoven() -> None:
    traces, match = page("12x1", seed=3)
    clean_record, clean = judged(traces, match)
    index = list(match.row_index)
    index[0], index[9] = index[9], index[0]  # I and V4
    swapped_match = replace(match, row_index=tuple(index))
    record, swapped = judged(traces, swapped_match)
    assert any("Einthoven" in warning for warning in swapped.warnings)
    assert clean.limb_leads_agree and swapped.limb_leads_agree is False
    assert swapped.einthoven_residual_mv is not None and clean.einthoven_residual_mv is not None
    assert swapped.einthoven_residual_mv > 2 * clean.einthoven_residual_mv
    assert (
        features(record, swapped_match, traces, GRID).limb_db < features(clean_record, match, traces, GRID).limb_db - 6
    )
    assert swapped.estimated_snr_db < clean.estimated_snr_db


def test_a_strip_that_is_another_lead_is_noticed() -> None:
    traces, match = page()
    _, quality = judged(traces, replace(match, rhythm=(Lead.V2,)))
    assert any("rhythm strip V2 differs" in warning for warning in quality.warnings)
    assert judged(traces, match)[1].warnings == ()


def test_doubt_of_tracer_and_geometry_lowers_the_estimate() -> None:
    traces, match = page()
    sure = judged(traces, match)[1].estimated_snr_db
    doubtful = replace(traces, doubt_mm=np.full(traces.row_mm.shape, 0.5, np.float32))
    assert judged(doubtful, match)[1].estimated_snr_db < sure - 4
    assert judged(traces, match, replace(GRID, doubt_mm=0.1))[1].estimated_snr_db < sure - 4
    assert judged(traces, match, replace(GRID, doubt_mm=None))[1].estimated_snr_db < sure


def test_doubt_of_the_gain_lowers_the_estimate() -> None:
    traces, match = page()
    estimates = []
    for gain_score in (0.99, 0.7, 0.5):
        record = calibrate(traces, match, replace(READ, speed_score=1.0, gain_score=gain_score))
        estimates.append(assess(record, match, traces, GRID, InkAudit()).estimated_snr_db)
    assert estimates[0] > estimates[1] + 4 > estimates[2] + 7


def test_jitter_lowers_the_estimate_though_the_tracer_is_sure() -> None:
    traces, match = page()
    jitter = np.random.default_rng(5).normal(0, 0.1, traces.row_mm.shape).astype(np.float32)
    rough = replace(traces, row_mm=traces.row_mm + jitter)
    smooth_db, rough_db = (features(judged(each, match)[0], match, each, GRID).smooth_db for each in (traces, rough))
    assert rough_db < smooth_db - 3


def test_a_page_without_limb_leads_is_judged_by_what_it_has() -> None:
    """All of them had counted as if their limb leads left a sixteenth over, however well they were read."""
    traces, match = page("6x1 chest")
    doubtful = replace(traces, doubt_mm=np.full(traces.row_mm.shape, 0.5, np.float32))
    sure_db, doubtful_db = (features(judged(each, match)[0], match, each, GRID).limb_db for each in (traces, doubtful))
    assert sure_db > doubtful_db + 10


def test_spikes_that_were_read_lower_the_estimate() -> None:
    """Others of theirs may not have been read; the limb-lead sums do not show it where all leads lost one."""
    traces, match = page()
    record, quality = judged(traces, match)
    beats = record.signal_mv[record.leads.index(Lead.V2)]
    paced = replace(record, pacing=((Lead.V2, int(np.nanargmax(np.abs(beats)))),))
    assert assess(paced, match, traces, GRID, InkAudit()).estimated_snr_db < quality.estimated_snr_db - 0.1


@pytest.mark.parametrize(("height_mv", "told"), [(1.5, True), (0.2, False)])
def test_spikes_that_are_much_of_the_signal_are_told(height_mv: float, told: bool) -> None:
    """A page whose spikes stood 2 ms off left at 9.2 dB without a word; its waves were read at 25 dB."""
    traces, match = page("6x1 chest")
    record, _ = judged(traces, match)
    signal_mv = record.signal_mv.copy()
    pacing = tuple((lead, at) for lead in record.leads[-6:] for at in range(200, 5000, 400))
    for lead, at in pacing:
        signal_mv[record.leads.index(lead), at] += height_mv
    quality = assess(replace(record, signal_mv=signal_mv, pacing=pacing), match, traces, GRID, InkAudit())
    assert quality.estimated_snr_db > 10
    assert any("placed to a sample" in warning for warning in quality.warnings) is told


def test_noise_lowers_the_estimate() -> None:
    estimates = []
    for noise_mm in (0.0, 0.2, 0.8):
        traces, match = page("3x4+1R", seed=4)
        traces.row_mm[:] += np.random.default_rng(0).normal(0, noise_mm, traces.row_mm.shape).astype(np.float32)
        estimates.append(judged(traces, match)[1].estimated_snr_db)
    assert estimates[0] > estimates[1] + 1 > estimates[2] + 2


def test_a_grid_that_may_be_made_up_is_told() -> None:
    """The bend network doubts lines that it does not see: a page without any was read 3 % too wide, without a word."""
    traces, match = page()
    warnings = judged(traces, match, replace(GRID, doubt_mm=0.061))[1].warnings
    assert warnings == ("the grid is hardly visible; the scale is doubtful",)


def test_doubts_about_grid_layout_speed_and_gain_are_told() -> None:
    traces, match = page()
    guess = GridScale(px_per_mm_x=10.0, px_per_mm_y=8.0, score=0.0, source="columns")
    doubtful = replace(match, certain=False, reasons=("only 2 lead names found",))
    record = calibrate(traces, match, Calibration(gain_mm_per_mv=0.5))
    text = " / ".join(assess(record, doubtful, traces, guess, InkAudit()).warnings)
    assert "layout 3x4+1R is uncertain: only 2 lead names found" in text
    assert "the grid is hardly visible; the scale is taken from columns and pulses" in text
    assert "its grid is not square" in text
    assert "the gain may be another" in text
    assert "the columns fit no usual paper speed; 25 mm/s was assumed" in text
