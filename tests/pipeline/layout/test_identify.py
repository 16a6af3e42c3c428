from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from pipeline import LEADS, Calibration, Layout, Lead, LeadLabel, TraceSet
from pipeline.datatypes import EXTRA_LEADS, NAMED_LEADS
from pipeline.errors import LayoutUnknown
from pipeline.layout.beats import measure_rhythm
from pipeline.layout.evidence import limb_residual, measure_step
from pipeline.layout.file import load_layouts
from pipeline.layout.identify import identify_layout
from pipeline.layout.weights import DECISION
from pipeline.signal.calibrate import calibrate
from pipeline.training.recordings.simulate import simulate_ecg
from tests.pipeline.paper_samples import labels_of, printed

LAYOUTS = load_layouts()
KNOWN = [layout for layout in LAYOUTS if set(layout.leads) <= set(NAMED_LEADS)]
NAMED = {layout.name: layout for layout in LAYOUTS}


def without_rows(traces: TraceSet, rows: list[int]) -> TraceSet:
    keep = [index for index in range(traces.row_mm.shape[0]) if index not in rows]
    return TraceSet(
        row_mm=traces.row_mm[keep],
        confidence=traces.confidence[keep],
        baseline_mm=traces.baseline_mm[keep],
        x0_mm=traces.x0_mm,
        columns_per_mm=traces.columns_per_mm,
    )


def patient(seed: int, disease: str | None = None) -> np.ndarray:  # type: ignore[type-arg]
    return simulate_ecg(np.random.default_rng(seed), seconds=12, disease=disease)


@pytest.mark.parametrize("speed", [25.0, 50.0])
@pytest.mark.parametrize("layout", KNOWN, ids=lambda layout: layout.name)
def test_every_layout_is_told_from_its_own_names_and_rows(layout: Layout, speed: float) -> None:
    rng = np.random.default_rng(len(layout.name))
    traces = printed(layout, patient(4, "none"), speed=speed)
    match = identify_layout(labels_of(layout, traces, rng=rng, jitter_mm=1.5, speed=speed), traces, LAYOUTS)
    assert match.layout is layout
    assert match.rhythm == layout.rhythm
    assert match.row_index == tuple(range(layout.n_rows))
    assert match.score > 0.9 and match.cost < 0.05
    assert match.certain or "in step" in match.reasons[0]
    starts_mm = [start for start, _ in match.column_mm]
    pitch_mm = layout.column_seconds * speed
    assert starts_mm == pytest.approx([12 + k * pitch_mm for k in range(len(layout.rows[0]))], abs=0.11)
    assert match.column_mm[-1][1] == pytest.approx(12 + len(layout.rows[0]) * pitch_mm, abs=0.11)


@pytest.mark.parametrize("layout", [x for x in KNOWN if len(x.leads) >= 12], ids=lambda layout: layout.name)
def test_four_names_missing_and_two_false_ones_do_not_mislead(layout: Layout) -> None:
    rng = np.random.default_rng(7)
    traces = printed(layout, patient(5, "none"))
    labels = labels_of(layout, traces, rng=rng, jitter_mm=1.5)
    for index in sorted(rng.choice(len(labels), 4, replace=False).tolist(), reverse=True):
        del labels[index]
    for lead in rng.choice(12, 2, replace=False):
        x_mm, y_mm = rng.uniform(10, 250), rng.uniform(0, 20 + 25 * layout.n_rows)
        labels.append(LeadLabel(lead=LEADS[lead], x_mm=x_mm, y_mm=y_mm, score=0.6))
    match = identify_layout(labels, traces, LAYOUTS)
    assert match.layout.name == layout.name
    for found, printed_lead in zip(chain(*match.layout.rows), chain(*layout.rows), strict=True):
        assert found == printed_lead or (printed_lead in EXTRA_LEADS and found.startswith("?"))  # never another's name
    assert match.row_index == tuple(range(layout.n_rows))


@pytest.mark.parametrize("above_mm", [-8.0, 0.0, 12.0])
def test_names_may_stand_below_beside_or_above(above_mm: float) -> None:
    traces = printed(NAMED["3x4+1R"], patient(1))
    match = identify_layout(labels_of(NAMED["3x4+1R"], traces, above_mm=above_mm), traces, LAYOUTS)
    assert match.layout.name == "3x4+1R" and match.certain


def test_names_spaced_wider_than_their_columns_do_not_stretch_the_columns() -> None:
    layout = NAMED["3x4+1R"]
    traces = printed(layout, patient(2, "none"))
    labels = [
        LeadLabel(lead=label.lead, x_mm=12 + (label.x_mm - 12) * 1.12, y_mm=label.y_mm, score=0.9)
        for label in labels_of(layout, traces)
    ]
    match = identify_layout(labels, traces, LAYOUTS)
    assert match.layout is layout
    assert [start for start, _ in match.column_mm] == pytest.approx([12, 74.5, 137, 199.5], abs=0.11)


def test_columns_with_gaps_are_measured() -> None:
    layout = NAMED["3x4+1R"]
    traces = printed(layout, patient(2, "none"), gap_mm=2.0)
    match = identify_layout(labels_of(layout, traces), traces, LAYOUTS)
    assert [start for start, _ in match.column_mm] == pytest.approx([12, 76.5, 141, 205.5], abs=0.11)
    assert [end for _, end in match.column_mm] == pytest.approx([74.5, 139, 203.5, 268], abs=0.11)


def test_a_page_cut_at_the_right_keeps_its_columns() -> None:
    layout = NAMED["3x4"]
    traces = printed(layout, patient(2, "none"))
    traces.row_mm[:, -(18 * 20) :] = np.nan
    match = identify_layout(labels_of(layout, traces), traces, LAYOUTS)
    assert [start for start, _ in match.column_mm] == pytest.approx([12, 74.5, 137, 199.5], abs=0.11)


def test_a_calibration_pulse_before_the_rows_is_not_signal() -> None:
    layout = NAMED["3x4"]
    traces = printed(layout, patient(2, "none"), margin_mm=12.0)
    for row in range(3):
        base = traces.baseline_mm[row]
        traces.row_mm[row, 100:240] = base  # 5 mm to 12 mm: the pulse's feet
        traces.row_mm[row, 120:220] = base - 10.0  # 6 mm to 11 mm: its top
    match = identify_layout(labels_of(layout, traces), traces, LAYOUTS)
    assert match.column_mm[0][0] == pytest.approx(12, abs=0.6)


@pytest.mark.parametrize(("name", "lead"), [("3x4+1R", Lead.V1), ("6x2+1R", Lead.AVL)])
def test_a_strip_without_a_name_is_known_by_its_lead(name: str, lead: Lead) -> None:
    layout = NAMED[name]
    traces = printed(layout, patient(3, "none"), rhythm=[lead])
    labels = [label for label in labels_of(layout, traces) if label.y_mm < traces.baseline_mm[-1] - 10]
    match = identify_layout(labels, traces, LAYOUTS)
    assert match.layout is layout and match.certain
    assert match.rhythm == (lead,)


def test_a_strip_s_own_name_wins() -> None:
    layout = NAMED["3x4+1R"]
    traces = printed(layout, patient(3), rhythm=[Lead.V1])
    match = identify_layout(labels_of(layout, traces, rhythm=[Lead.V1]), traces, LAYOUTS)
    assert match.rhythm == (Lead.V1,)


def test_places_of_extra_leads_take_the_names_that_are_printed_there() -> None:
    shown = replace(
        NAMED["3x5"],
        rows=tuple((*row[:4], lead) for row, lead in zip(NAMED["3x5"].rows, ("V4R", "V8", "V9"), strict=True)),
    )
    shown = replace(shown, rows=tuple(tuple(Lead(lead) for lead in row) for row in shown.rows))
    traces = printed(shown, patient(3, "none"))
    match = identify_layout(labels_of(shown, traces), traces, LAYOUTS)
    assert match.certain and match.layout.name == "3x5"
    assert match.layout.rows == shown.rows
    record = calibrate(traces, match, Calibration())
    assert record.leads == (*LEADS, Lead.V4R, Lead.V8, Lead.V9)
    assert all(np.isfinite(signal).sum() == 1000 for signal in record.signal_mv)


def test_an_extra_lead_without_a_name_is_a_doubt() -> None:
    layout = NAMED["3x5"]
    traces = printed(layout, patient(3, "none"))
    labels = [label for label in labels_of(layout, traces) if label.lead != Lead.V4R]
    match = identify_layout(labels, traces, LAYOUTS)
    assert match.layout.name == layout.name and match.layout.rows[1][-1] == Lead.UNNAMED_1
    assert match.reasons == ("leads whose names were not read are ?1 in the record",)
    record = calibrate(traces, match, Calibration())
    assert (
        record.leads == (*LEADS, Lead.V3R, Lead.V7, Lead.UNNAMED_1) and np.isfinite(record.signal_mv[-1]).sum() == 1000
    )


def test_leads_of_other_systems_are_named_and_doubted() -> None:
    layout = NAMED["3x5 Nehb"]
    traces = printed(layout, patient(3, "none"))
    match = identify_layout(labels_of(layout, traces), traces, LAYOUTS)
    assert match.layout is layout and not match.certain
    assert match.reasons[0].startswith("D, A, J are Nehb's leads")
    frank = NAMED["3x1 Frank"]
    traces = printed(frank, patient(3, "none"))
    with pytest.raises(LayoutUnknown, match="X, Y, Z are Frank's leads"):
        identify_layout(labels_of(frank, traces), traces, LAYOUTS)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("6x1 limb Cabrera", "half of a recording (page 1 of 2): limb leads only, no chest leads"),
        ("3x2 chest", "half of a recording (page 2 of 2): chest leads only, no limb leads"),
        ("3x1 V4-V6", "a part of a recording: chest leads only, no limb leads"),
        ("3x4 right", ""),
        ("15x1", ""),
    ],
)
def test_a_page_of_one_half_of_the_leads_says_so(name: str, part: str) -> None:
    assert NAMED[name].part == part


def test_a_missing_row_leaves_the_others_in_place() -> None:
    layout = NAMED["3x4+1R"]
    full = printed(layout, patient(3, "none"))
    match = identify_layout(labels_of(layout, full), without_rows(full, [1]), LAYOUTS)
    assert match.layout is layout
    assert match.row_index == (0, -1, 1, 2)
    assert not match.certain and "1 of 4 rows not found" in match.reasons


def test_a_spurious_row_is_left_out() -> None:
    layout = NAMED["3x4+1R"]
    clean = printed(layout, patient(3, "none"))
    scrap = np.full((1, clean.row_mm.shape[1]), np.nan, np.float32)
    scrap[0, 300:900] = 2.0
    traces = TraceSet(
        row_mm=np.vstack([scrap, clean.row_mm]),
        confidence=np.vstack([np.isfinite(scrap).astype(np.float32), clean.confidence]),
        baseline_mm=np.concatenate([np.array([2.0], np.float32), clean.baseline_mm]),
        x0_mm=clean.x0_mm,
        columns_per_mm=clean.columns_per_mm,
    )
    match = identify_layout(labels_of(layout, clean), traces, LAYOUTS)
    assert match.layout is layout
    assert match.row_index == (1, 2, 3, 4)


def test_two_names_are_too_few_to_be_certain() -> None:
    layout = NAMED["3x4+1R"]
    traces = printed(layout, patient(3, "none"))
    labels = [label for label in labels_of(layout, traces) if label.lead in (Lead.AVR, Lead.V5)]
    match = identify_layout(labels, traces, LAYOUTS)
    assert match.layout is layout
    assert not match.certain and match.reasons[0] == "only 2 lead names found"


def test_two_names_of_three_tell_a_layout_of_three_leads() -> None:
    layout = NAMED["3x1 V1-V3"]
    traces = printed(layout, patient(3, "none"))
    labels = [label for label in labels_of(layout, traces) if label.lead != Lead.V2]
    match = identify_layout(labels, traces, LAYOUTS)
    assert match.layout is layout
    assert not [reason for reason in match.reasons if "lead names found" in reason]


@pytest.mark.parametrize(("others", "doubts"), [(1, []), (2, ["2 lead names stand where the layout has none"])])
def test_two_names_of_three_are_doubted_where_as_many_others_stand(others: int, doubts: list[str]) -> None:
    """V7, V8 and V9 may be read as V1, V3 and V3."""
    layout = NAMED["3x1 V1-V3"]
    traces = printed(layout, patient(3, "none"))
    first, second, third = labels_of(layout, traces)
    wrong = [replace(second, lead=lead) for lead in (Lead.V3, Lead.AVR)[:others]]
    match = identify_layout([first, *wrong, third], traces, LAYOUTS)
    assert match.layout is layout
    assert [reason for reason in match.reasons if "where the layout has none" in reason] == doubts


def test_a_layout_of_more_columns_is_no_rival_where_names_are_spaced_otherwise() -> None:
    """Strokes that pass for an I make every layout costly, and the difference between two of them small."""
    layout = NAMED["6x2"]
    traces = printed(layout, patient(3, "none"))
    strokes = [
        LeadLabel(lead=Lead.I, x_mm=20.0 + 9.0 * (k % 26), y_mm=float(traces.baseline_mm[k % 4]) - 11.0, score=0.7)
        for k in range(52)
    ]
    match = identify_layout([*labels_of(layout, traces), *strokes], traces, LAYOUTS)
    assert (match.layout, match.reasons) == (layout, ())


def test_no_name_at_all_is_a_guess_that_says_so() -> None:
    layout = NAMED["3x4+1R"]
    match = identify_layout([], printed(layout, patient(3, "none")), LAYOUTS)
    assert not match.certain
    assert match.layout.n_rows == 4


def test_rows_that_fit_no_layout_are_refused() -> None:
    noise = np.random.default_rng(0).normal(0, 3, (9, 4000)).astype(np.float32)
    baseline = np.arange(9, dtype=np.float32) * 12
    traces = TraceSet(
        row_mm=noise + baseline[:, None],
        confidence=np.ones_like(noise),
        baseline_mm=baseline,
        x0_mm=0.0,
        columns_per_mm=20.0,
    )
    with pytest.raises(LayoutUnknown, match="no lead name was found"):
        identify_layout([], traces, LAYOUTS)


def test_cabrera_order_and_the_sign_of_avr_are_told_by_the_limb_leads() -> None:
    for name in ("6x1 limb Cabrera", "6x1 limb Cabrera order, aVR upright"):
        traces = printed(NAMED[name], patient(6, "none"))
        assert identify_layout(labels_of(NAMED[name], traces), traces, LAYOUTS).layout.name == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[layout]", "Expected"),
        ("", r"must hold \[\[layout\]\] tables"),
        ('[[layout]]\nrows = [["I"]]', "layout 1 has no name"),
        ('[[layout]]\nname = "x"\nrows = [["I"], ["V10"]]', "layout 'x': row 2: 'V10' is no lead"),
        ('[[layout]]\nname = "x"\nrows = [["I"], ["II", "V1"]]', "same number of columns"),
        ('[[layout]]\nname = "x"\nrows = [["I"], ["I"]]', "I stands in rows more than once"),
        ('[[layout]]\nname = "x"\nrows = [["I"]]\ncolumns = 3', "unknown key columns"),
        ('[[layout]]\nname = "x"\nrows = [["I"]]\ncolumn_seconds = -1', "column_seconds must be a number above 0"),
        ('[[layout]]\nname = "x"\nrows = [["I"]]\ninverted = ["aVR"]', "inverted names leads"),
        ('[[layout]]\nname = "x"\nrows = [["I"]]\n[[layout]]\nname = "x"\nrows = [["II"]]', "used more than once"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "layouts.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        load_layouts(path)
    assert str(caught.value).startswith(str(path))


def test_a_site_s_own_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "layouts.toml"
    path.write_text('[[layout]]\nname = "ours"\nrows = [["II"], ["aVR"]]\ninverted = ["aVR"]\nsequential = false')
    (layout,) = load_layouts(path)
    assert layout.rows == ((Lead.II,), (Lead.AVR,))
    assert layout.inverted == {Lead.AVR} and not layout.sequential and layout.column_seconds == 2.5


@pytest.mark.parametrize("name", ["6x2", "3x4", "3x2 limb", "4x3"])
@pytest.mark.parametrize("together", [False, True])
def test_columns_recorded_together_are_told_without_a_strip(name: str, together: bool) -> None:
    layout = replace(NAMED[name], name="drawn", sequential=not together)
    both = (NAMED[name], replace(NAMED[name], name="together", sequential=False))
    traces = printed(layout, patient(8, "none"))
    match = identify_layout(labels_of(layout, traces), traces, both)
    assert match.layout.sequential is not together
    assert match.certain or (together and "in step" in match.reasons[0])


def test_a_rhythm_that_fills_the_columns_with_whole_beats_leaves_doubt() -> None:
    layout = NAMED["6x2"]
    beat = patient(8, "none")[:, 1000:1400]
    regular = np.tile(beat, 13)[:, :5000]  # 6.25 beats in 5 s
    traces = printed(layout, regular)
    match = identify_layout(labels_of(layout, traces), traces, LAYOUTS)
    assert match.layout.sequential and match.certain
    whole = np.tile(beat[:, np.linspace(0, 399, 500).astype(int)], 10)  # 5 beats in 5 s
    traces = printed(layout, whole)
    match = identify_layout(labels_of(layout, traces), traces, LAYOUTS)
    assert not match.certain
    assert "simultaneous fits nearly" in match.reasons[0] or "taken as recorded together" in match.reasons[0]


@pytest.mark.parametrize("together", [False, True])
def test_an_irregular_rhythm_that_fills_the_columns_by_chance_tells_columns_recorded_together(together: bool) -> None:
    """Most beats are 0.71 s apart, seven of which fill a column; but only the same beats stand as irregularly."""
    layout = NAMED["6x2 simultaneous" if together else "6x2"]
    beat = patient(8, "none")[:, 1000:1353]
    pause = np.repeat(beat[:, -1:], 735 - 353, axis=1)
    five_s = np.concatenate([beat, beat, beat, pause, beat, beat, beat], axis=1)
    following = np.concatenate([beat, pause, beat, beat, beat, beat, beat], axis=1)
    traces = printed(layout, np.concatenate([five_s, following], axis=1))
    match = identify_layout(labels_of(layout, traces), traces, LAYOUTS)
    assert match.layout.name == layout.name and (match.certain or not together)


@pytest.mark.parametrize("name", ["3x4", "3x4+1R"])
def test_a_regular_rhythm_does_not_make_columns_simultaneous(name: str) -> None:
    """Beats that fill the columns fulfil the limb leads' sums across them nearly, but not as the columns do."""
    layout = NAMED[name]
    beat = patient(8, "none")[:, 1000:1417]  # three fill 2.5 s but for 2 ms
    regular = np.tile(beat, 13)[:, :5000]
    regular = regular * np.linspace(1.0, 4.0, 5000, dtype=np.float32)  # breathing, or another beat
    traces = printed(layout, regular)
    match = identify_layout(labels_of(layout, traces), traces, LAYOUTS)
    assert match.layout is layout


@pytest.mark.parametrize(("beats", "late_mm"), [(2.0, 0.0), (2.6, 0.0), (2.6, 0.5)])
def test_limb_sums_tell_columns_recorded_together_whatever_the_rhythm(beats: float, late_mm: float) -> None:
    """Also where whole beats fill the columns, and where the first column is seen to start late."""
    layout = NAMED["3x4 simultaneous"]
    beat = patient(8, "none")[:, 1000 : 1000 + round(1250 / beats)]
    traces = printed(layout, np.tile(beat, 13)[:, :5000])
    begins = np.flatnonzero(np.isfinite(traces.row_mm[0]))[0]
    traces.row_mm[:3, begins : begins + round(late_mm * traces.columns_per_mm)] = np.nan
    match = identify_layout(labels_of(layout, traces), traces, LAYOUTS)
    assert match.layout is layout
    assert match.certain


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("3x4", -1.0, DECISION.apart),
        ("3x4 simultaneous", DECISION.together_sure, 1.0),  # limb leads stand in two columns, and their sums tell
        ("6x2", -1.0, DECISION.apart),
        ("6x2 simultaneous", DECISION.apart + 0.01, DECISION.together),  # beats alone leave it open
    ],
)
def test_columns_that_were_laid_off_are_no_proof_of_columns_one_after_the_other(
    name: str, least: float, most: float
) -> None:
    """As gaps that the pen covers lead to."""
    layout = NAMED[name]
    traces = printed(layout, patient(3, "none"))
    pitch_mm, n = layout.column_seconds * 25.0 + 0.8, len(layout.rows[0])
    columns = tuple((12.0 + k * pitch_mm, 12.0 + (k + 1) * pitch_mm) for k in range(n))
    rows = range(len(layout.rows))
    rhythm, misread = measure_rhythm(traces, rows), limb_residual(traces, layout, rows, columns)
    assert rhythm is not None and misread is not None
    assert least <= measure_step(traces, layout, rows, (), columns, rhythm.rr_mm, misread) <= most


def test_beats_that_nearly_fill_the_columns_do_not_make_them_simultaneous() -> None:
    """Three beats are 0.55 mm short of a column: moved by that, limb leads of different beats fulfil their sums."""
    layout = NAMED["3x4+1R"]
    traces = printed(layout, np.tile(patient(8, "none")[:, 1000:1413], 13)[:, :5000])
    match = identify_layout(labels_of(layout, traces), traces, LAYOUTS)
    assert match.layout is layout


def test_a_rule_that_waves_cross_is_no_row() -> None:
    layout = NAMED["6x2"]
    traces = printed(layout, patient(4, "none"))
    rule = np.full(traces.row_mm.shape[1], traces.baseline_mm[-1] + 25.0, np.float32)
    for start in range(200, rule.size - 60, 500):
        rule[start : start + 40] -= 6.0
    more = TraceSet(
        row_mm=np.vstack([traces.row_mm, rule]),
        confidence=np.vstack([traces.confidence, np.full_like(rule, 0.9)]),
        baseline_mm=np.append(traces.baseline_mm, traces.baseline_mm[-1] + 25.0).astype(np.float32),
        x0_mm=traces.x0_mm,
        columns_per_mm=traces.columns_per_mm,
    )
    match = identify_layout(labels_of(layout, traces), more, LAYOUTS)
    assert match.layout is layout and match.row_index == (0, 1, 2, 3, 4, 5)
    assert not [reason for reason in match.reasons if "row" in reason]


def test_a_name_below_the_last_row_says_that_a_row_is_missing() -> None:
    layout = NAMED["3x4+3R"]
    traces = printed(layout, patient(4, "none"))
    match = identify_layout(labels_of(layout, traces), without_rows(traces, [5]), LAYOUTS)
    assert not match.certain
    assert [reason for reason in match.reasons if "a row may be missing" in reason or "rows not found" in reason]


def test_names_in_a_header_are_no_doubt() -> None:
    layout = NAMED["6x2"]
    traces = printed(layout, patient(4, "none"))
    header = [LeadLabel(lead=LEADS[k % 9 + 3], x_mm=20.0 + 9 * k, y_mm=-12.0, score=0.9) for k in range(20)]
    match = identify_layout([*labels_of(layout, traces), *header], traces, LAYOUTS)
    assert match.layout is layout
    assert not [reason for reason in match.reasons if "names stand" in reason]


def test_a_strip_named_iii_that_repeats_iii_is_iii() -> None:
    layout = NAMED["3x4+1R"]
    signal = patient(4, "none")
    signal[LEADS.index(Lead.I)] *= 0.05  # II and III are alike
    signal[LEADS.index(Lead.III)] = signal[LEADS.index(Lead.II)] - signal[LEADS.index(Lead.I)]
    traces = printed(layout, signal, rhythm=[Lead.III])
    match = identify_layout(labels_of(layout, traces, rhythm=[Lead.III]), traces, LAYOUTS)
    assert match.rhythm == (Lead.III,)


def test_names_below_close_rows_are_not_taken_for_the_next_rows() -> None:
    traces = printed(NAMED["12x1"], patient(6, "none"), row_pitch_mm=12.3)
    rows_mm = np.array([17.0, 29.4, 41.9, 54.4, 66.9, 78.8, 91.0, 102.6, 115.7, 128.6, 140.7, 152.1], np.float32)
    traces = replace(traces, row_mm=traces.row_mm + (rows_mm - traces.baseline_mm)[:, None], baseline_mm=rows_mm)
    seen = [  # on a drawn scan
        ("I", 17, 21.5, 0.88), ("I", 16, 33.5, 0.41), ("I", 17, 46.5, 0.82), ("I", 17, 132.6, 0.51),
        ("II", 18, 33.6, 0.74), ("III", 183, 8.5, 0.6), ("III", 21, 46.3, 0.94), ("aVR", 23, 58.7, 0.89),
        ("aVL", 22, 71.5, 0.86), ("aVF", 22, 83.2, 0.95), ("V1", 25, 71.3, 0.73), ("V1", 21, 95.6, 0.9),
        ("V2", 20, 107.1, 0.99), ("V3", 20, 120.3, 0.98), ("V4", 21, 133.0, 0.99), ("V5", 20, 145.2, 0.98),
        ("V6", 20, 156.5, 0.96),
    ]  # fmt: skip
    labels = [LeadLabel(lead=Lead(name), x_mm=x_mm, y_mm=y_mm, score=score) for name, x_mm, y_mm, score in seen]
    match = identify_layout(labels, traces, LAYOUTS)
    assert match.row_index == tuple(range(12))
    assert match.certain
