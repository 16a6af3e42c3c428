from dataclasses import replace

import numpy as np
import pytest

from pipeline import LEADS, Calibration, EcgRecord, Layout, LayoutMatch, Lead, TraceSet
from pipeline.datatypes import ALL_LEADS, NAMED_LEADS, FloatArray, PrintedMarks, SpikeMark, StatedScale, record_leads
from pipeline.errors import TraceNotFound
from pipeline.layout.file import load_layouts
from pipeline.layout.identify import identify_layout
from pipeline.signal.calibrate import calibrate, redraw
from pipeline.signal.calibration import infer_calibration
from pipeline.training.recordings.simulate import every_lead, simulate_ecg
from tests.pipeline.paper_samples import labels_of, printed, sinc_at

LAYOUTS = load_layouts()
KNOWN = [layout for layout in LAYOUTS if set(layout.leads) & set(NAMED_LEADS)]
NAMED = {layout.name: layout for layout in LAYOUTS}


def digitized(
    layout: Layout, signal_mv: FloatArray, speed: float = 25.0, gain: float = 10.0, columns_per_mm: float = 20.0
) -> tuple[TraceSet, LayoutMatch, EcgRecord]:
    traces = printed(layout, signal_mv, speed=speed, gain=gain, columns_per_mm=columns_per_mm)
    match = identify_layout(labels_of(layout, traces, speed=speed), traces, LAYOUTS)
    record = calibrate(traces, match, Calibration(paper_speed_mm_per_s=speed, gain_mm_per_mv=gain))
    return traces, match, record


def snr_db(truth: FloatArray, estimate: FloatArray) -> float:
    known = np.isfinite(truth)
    error = np.nan_to_num(estimate[known] - np.nanmean(estimate[known])) - (truth[known] - truth[known].mean())
    return float(10 * np.log10(np.sum((truth[known] - truth[known].mean()) ** 2) / max(np.sum(error**2), 1e-12)))


def on_paper(layout: Layout, signal_mv: FloatArray, n: int) -> FloatArray:
    """What is printed of `signal_mv`, on the record's time axis."""
    leads_of_page = record_leads((*layout.leads, *layout.rhythm))
    truth = np.full((len(leads_of_page), n), np.nan, np.float32)
    every = every_lead(signal_mv)
    length = round(layout.column_seconds * 500)
    for leads in layout.rows:
        for c, lead in enumerate(leads):
            start = c * length if layout.sequential else 0
            part = slice(start, start + length)
            truth[leads_of_page.index(lead), part] = every[ALL_LEADS.index(lead), part]
    for lead in layout.rhythm:
        truth[LEADS.index(lead)] = signal_mv[LEADS.index(lead), :n]
    return truth


@pytest.mark.parametrize(
    ("speed", "gain", "columns_per_mm"), [(25.0, 5.0, 20.0), (25.0, 20.0, 20.0), (50.0, 10.0, 10.0)]
)
@pytest.mark.parametrize("layout", KNOWN, ids=lambda layout: layout.name)
def test_signals_survive_the_paper(layout: Layout, gain: float, speed: float, columns_per_mm: float) -> None:
    signal_mv = simulate_ecg(np.random.default_rng(11), seconds=20, disease="none")
    _, match, record = digitized(layout, signal_mv, speed, gain, columns_per_mm)
    assert match.layout is layout
    if len(layout.rows[0]) > 1:
        read = infer_calibration(match, PrintedMarks(rows=(), pulses=()), StatedScale(), Calibration())
        assert (read.paper_speed_mm_per_s, read.speed_source) == (speed, "columns")
    truth = on_paper(layout, signal_mv, record.signal_mv.shape[1])
    for row, lead in enumerate(record.leads):
        if np.isfinite(truth[row]).any():
            assert snr_db(truth[row], record.signal_mv[row]) > 30, lead
            assert np.mean(np.isfinite(record.signal_mv[row, np.isfinite(truth[row])])) > 0.998
        else:
            assert not np.isfinite(record.signal_mv[row]).any()


def test_columns_finer_than_samples_are_resampled() -> None:
    signal_mv = simulate_ecg(np.random.default_rng(12), disease="none")
    _, _, record = digitized(NAMED["3x4+1R"], signal_mv, speed=50.0, columns_per_mm=20.0)
    assert record.signal_mv.shape == (12, 5000)
    assert snr_db(on_paper(NAMED["3x4+1R"], signal_mv, 5000)[6], record.signal_mv[6]) > 30


def test_samples_are_exact_where_a_column_is_a_sample() -> None:
    signal_mv = simulate_ecg(np.random.default_rng(2), disease="none")
    _, _, record = digitized(NAMED["12x1"], signal_mv)
    assert record.signal_mv.shape == (12, 5000) and record.leads == LEADS
    difference = record.signal_mv - signal_mv
    assert np.ptp(difference, axis=1).max() < 1e-5  # the zero line may differ, nothing else


@pytest.mark.parametrize("samples", [0.4, -0.4])
def test_a_lead_that_starts_between_two_columns_is_read_between_them(samples: float) -> None:
    signal_mv = simulate_ecg(np.random.default_rng(2), disease="none")
    traces, match, _ = digitized(NAMED["12x1"], signal_mv)
    ((start_mm, end_mm),) = match.column_mm
    record = calibrate(traces, replace(match, column_mm=((start_mm + samples / 20, end_mm),)), Calibration())
    at = np.arange(5, 4990)
    for lead, read in zip(signal_mv, record.signal_mv, strict=True):
        assert snr_db(sinc_at(lead, at + samples), read[at]) > 35


def test_a_spike_of_one_sample_is_drawn_back_at_its_height_between_columns() -> None:
    traces, match, _ = digitized(NAMED["12x1"], simulate_ecg(np.random.default_rng(2), disease="none"))
    ((start_mm, end_mm),) = match.column_mm
    between = replace(match, column_mm=((start_mm + 0.02, end_mm),))
    record = calibrate(traces, between, Calibration())
    spike = record.signal_mv.copy()
    spike[0, 1000] += 2.0
    flat, drawn = (redraw(replace(record, signal_mv=mv), between, traces)[0].y_mm for mv in (record.signal_mv, spike))
    assert np.nanmax(flat - drawn) == pytest.approx(20.0, abs=0.2)


def test_spikes_keep_their_distance_where_the_start_is_half_a_sample_off() -> None:
    traces, match, _ = digitized(NAMED["12x1"], simulate_ecg(np.random.default_rng(2), disease="none"))
    ((start_mm, _),) = match.column_mm
    true = np.arange(400, 4800, 401)
    seen = true + 0.52 + np.random.default_rng(3).uniform(-0.15, 0.15, true.size)
    spikes = tuple(SpikeMark(row=0, x_mm=start_mm + at / 20, tip_mm=0.0, score=0.9) for at in seen.tolist())
    paced = calibrate(replace(traces, spikes=spikes), match, Calibration()).pacing
    assert set(np.diff([at for _, at in paced])) == {401} and len(paced) == true.size


def test_columns_beside_gaps_start_at_their_own_time() -> None:
    """Six columns of 10 s, a gap of 2.3 mm between them: a column is as long as its ink, not as its pitch."""
    _, match, _ = digitized(NAMED["3x6"], simulate_ecg(np.random.default_rng(2), seconds=20, disease="none"))
    width_mm = 250.0 / 6
    spans = tuple((12.0 + k * (width_mm + 2.3), 12.0 + k * (width_mm + 2.3) + width_mm) for k in range(6))
    starts_s = [start for start, _ in replace(match, column_mm=spans).column_times(25.0)]
    assert starts_s == pytest.approx([k * 10.0 / 6 for k in range(6)])


def test_the_zero_line_is_the_isoelectric_one() -> None:
    signal_mv = simulate_ecg(np.random.default_rng(3), disease="none") + 0.4
    _, _, record = digitized(NAMED["12x1"], signal_mv)
    quiet = np.median(record.signal_mv, axis=1)
    assert np.abs(quiet).max() < 0.06


def test_column_k_starts_at_its_own_time_and_is_empty_elsewhere() -> None:
    signal_mv = simulate_ecg(np.random.default_rng(4), disease="none")
    _, _, record = digitized(NAMED["3x4"], signal_mv)
    known = np.isfinite(record.signal_mv)
    for lead, first in ((Lead.I, 0), (Lead.AVL, 1250), (Lead.V3, 2500), (Lead.V6, 3750)):
        row = known[LEADS.index(lead)]
        assert np.flatnonzero(row)[[0, -1]].tolist() == pytest.approx([first, first + 1249], abs=2)
    assert (record.confidence[~known] == 0).all()
    assert record.confidence[known].min() > 0.85


def test_a_strip_fills_the_lead_and_its_holes_are_filled_from_the_short_print() -> None:
    signal_mv = simulate_ecg(np.random.default_rng(5), disease="none")
    layout = NAMED["3x4+1R"]
    traces = printed(layout, signal_mv)
    traces.row_mm[3, 600:900] = np.nan  # inside the first column, where lead II is printed twice
    traces.baseline_mm[1] += 3.0  # the short print stands at another level
    match = identify_layout(labels_of(layout, traces), traces, LAYOUTS)
    record = calibrate(traces, match, Calibration())
    lead_ii = record.signal_mv[LEADS.index(Lead.II)]
    assert np.isfinite(lead_ii).all()
    assert snr_db(signal_mv[1], lead_ii) > 30
    (second,) = record.second_prints
    assert (second.lead, second.first_sample, second.used) == (Lead.II, 0, False) and second.agreement_db > 30
    assert np.nanmax(np.abs(second.signal_mv - lead_ii[: second.signal_mv.size])) < 0.05


def test_what_was_not_traced_stays_unknown() -> None:
    signal_mv = simulate_ecg(np.random.default_rng(6), disease="none")
    layout = NAMED["12x1"]
    traces = printed(layout, signal_mv, speed=50.0, columns_per_mm=20.0)
    first = 4 * 20
    traces.row_mm[7, first + 2000 : first + 3000] = np.nan  # 2 s to 3 s of V2
    match = identify_layout(labels_of(layout, traces), traces, LAYOUTS)
    record = calibrate(traces, match, Calibration(paper_speed_mm_per_s=50.0))
    unknown = np.flatnonzero(~np.isfinite(record.signal_mv[LEADS.index(Lead.V2)]))
    assert unknown[[0, -1]].tolist() == pytest.approx([1000, 1499], abs=1)
    assert np.isfinite(record.signal_mv[LEADS.index(Lead.V1)]).all()


def test_inverted_leads_are_turned_and_chest_leads_have_their_own_gain() -> None:
    signal_mv = simulate_ecg(np.random.default_rng(7), disease="none")
    traces, match, record = digitized(NAMED["12x1 Cabrera"], signal_mv)
    assert snr_db(signal_mv[3], record.signal_mv[3]) > 40
    half = calibrate(traces, match, replace(Calibration(), chest_gain_mm_per_mv=20.0))
    assert np.ptp(half.signal_mv[6]) == pytest.approx(np.ptp(record.signal_mv[6]) / 2, rel=1e-4)
    assert np.ptp(half.signal_mv[0]) == pytest.approx(np.ptp(record.signal_mv[0]), rel=1e-4)


def test_nothing_traced_is_an_error() -> None:
    layout = NAMED["3x4"]
    traces = printed(layout, simulate_ecg(np.random.default_rng(8)))
    match = identify_layout(labels_of(layout, traces), traces, LAYOUTS)
    traces.row_mm[:] = np.nan
    with pytest.raises(TraceNotFound):
        calibrate(traces, match, Calibration())
