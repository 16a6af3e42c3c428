"""Which speed and gain are believed when print, pulses and columns agree, contradict each other or are missing."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline import Calibration, GridScale, LayoutMatch
from pipeline.datatypes import Beats, InkAudit, PrintedMarks, PulseBox, StatedScale, TextLine
from pipeline.layout.file import load_layouts
from pipeline.layout.identify import identify_layout
from pipeline.printing.statements import stated_scale
from pipeline.signal.calibrate import calibrate
from pipeline.signal.calibration import infer_calibration, true_scale
from pipeline.signal.quality import assess
from pipeline.training.recordings.simulate import simulate_ecg
from tests.pipeline.paper_samples import labels_of, printed

LAYOUTS = load_layouts()
NAMED = {layout.name: layout for layout in LAYOUTS}


def matched(name: str, speed: float, column_seconds: float | None = None) -> LayoutMatch:
    traces = printed(
        NAMED[name],
        simulate_ecg(np.random.default_rng(9), seconds=20),
        speed=speed,
        column_seconds=column_seconds,
    )
    pace = speed * (column_seconds or NAMED[name].column_seconds) / NAMED[name].column_seconds
    return identify_layout(labels_of(NAMED[name], traces, speed=pace), traces, LAYOUTS)


def pulses(*sizes_mm: tuple[float, float]) -> PrintedMarks:
    """Pulses of these widths and heights, each with a foot of 1 mm on both sides."""
    boxes = (PulseBox(x0_mm=3.0, x1_mm=5.0 + w, y0_mm=10.0, y1_mm=10.0 + h, top_mm=w) for w, h in sizes_mm)
    return PrintedMarks(rows=(), pulses=tuple(boxes))


def stated(*texts: str) -> StatedScale:
    return stated_scale(
        [
            TextLine(text=text, x0_mm=5.0, x1_mm=60.0, y0_mm=150.0 + 5 * k, y1_mm=152.5 + 5 * k, score=0.98)
            for k, text in enumerate(texts)
        ]
    )


@pytest.mark.parametrize(
    ("name", "speed", "marks", "expected"),
    [
        ("3x4", 50.0, pulses(), (50.0, "columns", 10.0, "default")),
        ("3x4", 25.0, pulses((5.3, 10.4), (5.2, 9.8)), (25.0, "columns", 10.0, "pulse")),
        ("12x1", 50.0, pulses((10.3, 5.2), (9.9, 5.3), (4.0, 9.0)), (50.0, "pulse", 5.0, "pulse")),
        ("12x1", 25.0, pulses((7.2, 13.8)), (25.0, "default", 10.0, "default")),
        ("12x1", 25.0, pulses((5.1, 20.9), (5.2, 10.1)), (25.0, "pulse", 10.0, "default")),
        ("12x1", 25.0, pulses(), (25.0, "default", 10.0, "default")),
        ("12x1", 25.0, pulses((2.1, 10.9), (2.1, 11.1)), (25.0, "default", 10.0, "pulse")),  # short, as on some carts
        ("3x4", 25.0, pulses((2.1, 10.9), (3.2, 10.9), (3.2, 10.2)), (25.0, "columns", 10.0, "pulse")),
    ],
)
def test_without_print(name: str, speed: float, marks: PrintedMarks, expected: tuple[float, str, float, str]) -> None:
    usual = Beats(qrs_mm=0.032 * speed, rr_mm=0.85 * speed, height_mm=11.0)
    found = infer_calibration(replace(matched(name, speed), beats=usual), marks, stated(), Calibration())
    values = (found.paper_speed_mm_per_s, found.speed_source, found.gain_mm_per_mv, found.gain_source)
    assert values == expected
    assert found.reasons == ()


@pytest.mark.parametrize(
    ("name", "speed", "text", "marks", "expected"),
    [
        ("12x1", 25.0, "50 mm/s 5 mm/mV", pulses(), (50.0, 5.0)),
        ("12x1", 12.5, "12.5mm/s 10mm/mV", pulses((2.6, 10.3)), (12.5, 10.0)),
        ("3x4+1R", 12.5, "12,5 mm/s 20 mm/mV", pulses((2.6, 20.4)), (12.5, 20.0)),
        ("3x4", 25.0, "25mm/s 10mm/mV", pulses((2.4, 10.2)), (25.0, 10.0)),  # a pulse of 0.1 s contradicts nobody
        ("3x4", 50.0, "50 mm/s 10 mm/mV", pulses((5.2, 10.2)), (50.0, 10.0)),  # nor one drawn 5 mm wide at any speed
    ],
)
def test_print_that_fits_is_believed(
    name: str, speed: float, text: str, marks: PrintedMarks, expected: tuple[float, float]
) -> None:
    found = infer_calibration(matched(name, speed), marks, stated(text), Calibration())
    assert (found.paper_speed_mm_per_s, found.gain_mm_per_mv) == expected
    assert (found.speed_source, found.gain_source) == ("text", "text")
    assert found.reasons == ()


def test_print_tells_half_columns_at_50_from_whole_ones_at_25() -> None:
    match = matched("3x4", 50.0, column_seconds=1.25)
    alone = infer_calibration(match, pulses(), stated(), Calibration())
    assert (alone.paper_speed_mm_per_s, alone.speed_source) == (50.0, "beats")
    assert "50 mm/s is not certain: the columns are 62.5 mm apart and the beats are" in alone.reasons[0]
    blind = replace(match, beats=None)
    assert infer_calibration(blind, pulses(), stated(), Calibration()).paper_speed_mm_per_s == 25.0
    told = infer_calibration(match, pulses((10.1, 10.2)), stated("50 mm/s"), Calibration())
    assert (told.paper_speed_mm_per_s, told.speed_source, told.reasons) == (50.0, "text", ())
    pulse_only = infer_calibration(blind, pulses((10.1, 10.2)), stated(), Calibration())
    assert pulse_only.paper_speed_mm_per_s == 50.0
    assert "50 mm/s is not certain" in pulse_only.reasons[0]
    assert infer_calibration(match, pulses((10.1, 10.2)), stated(), Calibration()).reasons == ()


def test_columns_alone_do_not_silence_beats_that_are_as_long_as_at_another_speed() -> None:
    page = replace(
        matched("3x4+1R", 25.0), beats=Beats(qrs_mm=1.305, rr_mm=18.7, height_mm=10.7, t_wave_mm=(9.5, 18.8))
    )
    read = infer_calibration(page, pulses(), stated(), Calibration())
    assert read.paper_speed_mm_per_s == 25.0
    assert "25 mm/s is not certain: the columns are 62.5 mm apart and the beats are" in read.reasons[0]


def test_t_waves_tell_a_wide_complex_at_25_from_a_usual_one_at_50() -> None:
    """A T wave follows its complex after 0.26 s at 70 beats a minute, and after 0.36 s at 35."""
    match = matched("3x4", 50.0, column_seconds=1.25)
    wide = Beats(qrs_mm=1.25, rr_mm=42.5, height_mm=11.0)
    fast = replace(wide, t_wave_mm=(0.255 * 50, 42.5))
    slow = replace(wide, t_wave_mm=(0.345 * 25, 42.5))
    read = [infer_calibration(replace(match, beats=beats), pulses(), stated(), Calibration()) for beats in (fast, slow)]
    assert [found.paper_speed_mm_per_s for found in read] == [50.0, 25.0]
    assert "50 mm/s is not certain" in read[0].reasons[0]


@pytest.mark.parametrize(("qrs_mm", "rr_mm"), [(1.4, 30.0), (1.55, 38.0)])
def test_a_t_wave_silences_no_doubt(qrs_mm: float, rr_mm: float) -> None:
    """On a page printed at 50 mm/s another hump may be taken for a T wave of 25 mm/s, as a short pulse may."""
    match = matched("12x1", 50.0)
    long = Beats(qrs_mm=qrs_mm, rr_mm=rr_mm, height_mm=11.0)
    plain, with_t = (
        infer_calibration(replace(match, beats=beats), pulses((5.0, 10.0)), stated(), Calibration())
        for beats in (long, replace(long, t_wave_mm=(0.345 * 25, rr_mm)))
    )
    assert plain.reasons and with_t.reasons
    assert with_t.paper_speed_mm_per_s == 25.0 and with_t.speed_score < 0.8


def beating(*, qrs_mm: float, rr_mm: float | None, height_mm: float) -> LayoutMatch:
    """A page of one column that shows nothing but its beats."""
    return replace(matched("12x1", 25.0), beats=Beats(qrs_mm=qrs_mm, rr_mm=rr_mm, height_mm=height_mm))


@pytest.mark.parametrize(
    ("beats", "taken"),
    [
        ({"qrs_mm": 0.8, "rr_mm": 21.0, "height_mm": 11.0}, (25.0, 10.0)),
        ({"qrs_mm": 0.8, "rr_mm": None, "height_mm": 11.0}, (25.0, 10.0)),
        ({"qrs_mm": 1.1, "rr_mm": 15.0, "height_mm": 10.0}, (25.0, 10.0)),  # broad and fast
    ],
)
def test_usual_beats_confirm_what_is_configured(beats: dict[str, float], taken: tuple[float, float]) -> None:
    found = infer_calibration(beating(**beats), pulses(), stated(), Calibration())
    assert (found.paper_speed_mm_per_s, found.gain_mm_per_mv) == taken
    assert (found.speed_source, found.gain_source, found.reasons) == ("default", "default", ())


@pytest.mark.parametrize(
    ("beats", "speed", "gain", "words"),
    [
        ({"qrs_mm": 1.6, "rr_mm": 45.0, "height_mm": 11.0}, 50.0, 10.0, "a paper speed of 50 mm/s was taken"),
        ({"qrs_mm": 0.8, "rr_mm": 21.0, "height_mm": 3.5}, 25.0, 5.0, "a gain of 5 mm/mV was taken"),
        ({"qrs_mm": 0.8, "rr_mm": 21.0, "height_mm": 5.5}, 25.0, 10.0, "a gain of 10 mm/mV was taken"),
        ({"qrs_mm": 0.8, "rr_mm": 21.0, "height_mm": 30.0}, 25.0, 20.0, "a gain of 20 mm/mV was taken"),
    ],
)
def test_other_beats_are_doubtful_where_nothing_states_the_scale(
    beats: dict[str, float], speed: float, gain: float, words: str
) -> None:
    found = infer_calibration(beating(**beats), pulses(), stated(), Calibration())
    assert (found.paper_speed_mm_per_s, found.gain_mm_per_mv) == (speed, gain)
    assert [reason for reason in found.reasons if "nothing on the page states it" in reason and words in reason]


def test_beats_do_not_object_to_print_or_pulse() -> None:
    match = beating(qrs_mm=2.0, rr_mm=60.0, height_mm=3.0)  # broad, slow and low: a finding
    found = infer_calibration(match, pulses(), stated("25 mm/s 10 mm/mV"), Calibration())
    assert (found.paper_speed_mm_per_s, found.gain_mm_per_mv, found.reasons) == (25.0, 10.0, ())
    found = infer_calibration(match, pulses((5.1, 10.2)), stated("25 mm/s"), Calibration())
    assert (found.gain_mm_per_mv, found.gain_source, found.reasons) == (10.0, "pulse", ())


def test_agreement_raises_the_score() -> None:
    match = matched("3x4", 25.0)
    scores = [
        infer_calibration(match, marks, text, Calibration()).speed_score
        for marks, text in [
            (pulses(), stated()),
            (pulses((5.1, 10.2)), stated()),
            (pulses((5.1, 10.2)), stated("25 mm/s")),
        ]
    ]
    assert scores[0] < scores[1] < scores[2]
    assert 0.7 < scores[0] and scores[2] <= 1.0


@pytest.mark.parametrize(
    ("name", "speed", "text", "marks", "taken", "words"),
    [
        (
            "3x4",
            50.0,
            "25 mm/s",
            pulses(),
            (25.0, 10.0),
            "the columns are 125.0 mm apart, but a paper speed of 25 mm/s",
        ),
        ("3x4", 25.0, "25 mm/s", pulses((10.2, 10.1)), (25.0, 10.0), "pulse is 10.2 mm wide, but a paper speed of 25"),
        ("3x4", 25.0, "10 mm/mV", pulses((5.1, 5.2)), (25.0, 10.0), "pulse is 5.2 mm high, but a gain of 10 mm/mV"),
        ("12x1", 25.0, "20 mm/mV", pulses((5.1, 10.2)), (25.0, 20.0), "pulse is 10.2 mm high, but a gain of 20 mm/mV"),
        ("12x1", 25.0, "25 mm/s 50 mm/s", pulses(), (25.0, 10.0), "several paper speeds are printed: 25 and 50 mm/s"),
        ("12x1", 25.0, "5 mm/mV 10 mm/mV", pulses(), (25.0, 10.0), "several gains are printed: 5 and 10 mm/mV"),
    ],
)
def test_contradictions_are_named_and_go_to_review(
    name: str, speed: float, text: str, marks: PrintedMarks, taken: tuple[float, float], words: str
) -> None:
    match = matched(name, speed)
    found = infer_calibration(match, marks, stated(text), Calibration())
    assert (found.paper_speed_mm_per_s, found.gain_mm_per_mv) == taken
    assert any(words in reason for reason in found.reasons), found.reasons
    traces = printed(NAMED[name], simulate_ecg(np.random.default_rng(9), seconds=20), speed=speed)
    grid = GridScale(px_per_mm_x=8.0, px_per_mm_y=8.0, score=1.0, source="grid")
    quality = assess(calibrate(traces, match, found), match, traces, grid, InkAudit())
    assert set(found.reasons) <= set(quality.warnings)


def test_a_lost_digit_is_no_other_speed() -> None:
    found = infer_calibration(matched("12x1", 25.0), pulses(), stated("5 mm/s"), Calibration())
    assert found.paper_speed_mm_per_s == 25.0
    assert found.reasons[0] == "5 mm/s is printed, but a paper speed of 25 mm/s was taken"


def test_what_is_configured_holds_where_the_page_says_nothing() -> None:
    site = Calibration(paper_speed_mm_per_s=50.0, gain_mm_per_mv=5.0, chest_gain_mm_per_mv=2.5)
    found = infer_calibration(matched("12x1", 50.0), pulses(), stated(), site)
    assert (found.paper_speed_mm_per_s, found.gain_mm_per_mv, found.chest_gain_mm_per_mv) == (50.0, 5.0, 2.5)
    assert (found.speed_source, found.gain_source) == ("default", "default")
    assert "nothing on the page states it, and the beats leave doubt: a gain of 5 mm/mV was taken" in found.reasons


def test_chest_leads_have_the_gain_printed_for_them() -> None:
    match = matched("3x4+1R", 25.0)
    text = stated("Limb: 10 mm/mV  Chest: 5 mm/mV")
    for marks in (pulses(), pulses((5.1, 10.2)), pulses((5.1, 5.1))):  # the pulse may show either
        found = infer_calibration(match, marks, text, Calibration())
        assert (found.gain_mm_per_mv, found.chest_gain_mm_per_mv, found.reasons) == (10.0, 5.0, ())
    alone = infer_calibration(match, pulses((5.1, 10.2)), stated("Chest: 5 mm/mV"), Calibration())
    assert (alone.gain_mm_per_mv, alone.chest_gain_mm_per_mv) == (10.0, 5.0)  # the pulse states the limb leads' gain
    site = replace(Calibration(), chest_gain_mm_per_mv=5.0)
    assert infer_calibration(match, pulses(), stated("10 mm/mV"), site).chest_gain_mm_per_mv is None


@pytest.mark.parametrize(
    ("name", "guess", "marks", "print_", "true"),
    [
        ("3x4", 1.1, pulses(), (), 1.1),  # columns of 2.5 s at the configured speed
        ("3x4", 1.1, pulses((5 / 1.1, 10 / 1.1)), (), 1.1),
        ("3x4", 1.1, pulses((10 / 2.2, 10 / 2.2)), ("50 mm/s",), 2.2),
        ("3x4", 0.55, pulses((10 / 1.1, 10 / 1.1)), (), 1.1),  # pulses as high as they should be at 50 mm/s
        ("3x4", 1.1, pulses((5 / 1.1, 11.0), (4.0, 11.5)), ("25 mm/s 20 mm/mV",), 1.1),  # two pulses in one box
        ("12x1", 1.1, pulses(), (), 1.1),
        ("12x1", 1.1, pulses(), ("50 mm/s",), 1.1),  # half as long
        ("12x1", 0.55, pulses((5.0, 20.0)), (), 0.55),
    ],
)
def test_a_guessed_scale_is_mended_by_columns_and_pulses(
    name: str, guess: float, marks: PrintedMarks, print_: tuple[str, ...], true: float
) -> None:
    match = matched(name, 25.0)
    match = replace(
        match,
        column_mm=tuple((a / guess, b / guess) for a, b in match.column_mm),
        labels=tuple(replace(label, x_mm=label.x_mm / guess) for label in match.labels),
    )
    assert true_scale(match, marks, stated(*print_), Calibration()) == pytest.approx(true, rel=0.02)


@pytest.mark.parametrize("column_seconds", [1.25, 2.5])
@pytest.mark.parametrize("marks", [pulses(), pulses((9.9, 10.1))])
def test_pulses_or_beats_tell_whole_columns_from_halves(marks: PrintedMarks, column_seconds: float) -> None:
    match = matched("3x4", 50.0, column_seconds)
    assert true_scale(match, marks, stated("50 mm/s"), Calibration()) == pytest.approx(1.0, abs=0.01)


def test_names_printed_off_their_columns_change_no_scale() -> None:
    match = matched("3x4", 25.0)
    off = [replace(label, x_mm=label.x_mm - 8.0 * (label.x_mm < 20.0)) for label in match.labels]
    match = replace(match, labels=tuple(off))
    assert true_scale(match, pulses(), stated(), Calibration()) == pytest.approx(1.0, abs=0.005)


@pytest.mark.parametrize(
    ("rate", "speed", "certain"),
    [
        (70.0, 25.0, True),
        (140.0, 50.0, False),  # 25 mm/s is configured: only the beats speak for 50 mm/s, and a person decides
        (35.0, 12.5, False),
        (None, 25.0, True),
    ],
)
def test_a_printed_heart_rate_and_the_beats_distance_tell_the_speed(
    rate: float | None, speed: float, certain: bool
) -> None:
    page = beating(qrs_mm=0.8 * speed / 25, rr_mm=21.4, height_mm=11.0)
    found = infer_calibration(page, pulses(), replace(stated(), heart_rate_per_minute=rate), Calibration())
    assert found.paper_speed_mm_per_s == speed
    assert any(f"a paper speed of {speed:g} mm/s was taken" in reason for reason in found.reasons) == (not certain)


def test_a_printed_heart_rate_overrules_no_stated_speed() -> None:
    page = beating(qrs_mm=0.8, rr_mm=21.4, height_mm=11.0)
    said = replace(stated("25 mm/s"), heart_rate_per_minute=140.0)
    found = infer_calibration(page, pulses((5.1, 10.2)), said, Calibration())
    assert (found.paper_speed_mm_per_s, found.speed_source, found.reasons) == (25.0, "text", ())


def test_two_beats_taken_for_one_beside_a_printed_heart_rate_do_not_change_the_speed() -> None:
    """An irregular rhythm repeats best after two beats: the columns decide, as without a printed rate."""
    page = replace(matched("3x4", 25.0), beats=Beats(qrs_mm=0.9, rr_mm=2 * 22.4, height_mm=11.0))
    found = infer_calibration(page, pulses(), replace(stated(), heart_rate_per_minute=67.0), Calibration())
    assert found.paper_speed_mm_per_s == 25.0
