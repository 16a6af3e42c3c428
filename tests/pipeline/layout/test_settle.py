"""Rows drawn at a known place, and columns laid roughly: they are settled to a hundredth of a millimetre."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from pipeline import GridScale, Layout, LayoutMatch, PageImage, RectifiedPage, TraceSet
from pipeline.datatypes import DrawnLine
from pipeline.layout.file import load_layouts
from pipeline.layout.settle import measure_lean, settle_columns
from pipeline.sheet.paper import Sheet
from pipeline.training.recordings.simulate import simulate_ecg
from tests.pipeline.paper_samples import blank_map, printed

NAMED = {layout.name: layout for layout in load_layouts()}
PX = 8.0


def traced(name: str, start_mm: float, *, gap_mm: float = 0.0, seconds: float | None = None) -> TraceSet:
    """Rows that start at `start_mm`, between two columns of the tracer; it bridges gaps and doubts them."""
    layout = NAMED[name]
    signal_mv = simulate_ecg(np.random.default_rng(6), seconds=20, disease="none")
    traces = printed(layout, signal_mv, gap_mm=gap_mm, x0_mm=start_mm, column_seconds=seconds)
    rows = traces.row_mm.copy()
    for row in rows:
        known = np.flatnonzero(np.isfinite(row))
        inside = np.s_[known[0] : known[-1] + 1]
        row[inside] = np.interp(np.arange(known[0], known[-1] + 1), known, row[known])
    return replace(traces, row_mm=rows)


def drawn(name: str, traces: TraceSet, *, source: str = "grid", doubt_mm: float = 0.003) -> Sheet:
    """The page these rows were traced on."""
    height_mm = float(np.nanmax(traces.row_mm)) + 20.0
    pixels = np.full((round(height_mm * PX), round(300 * PX), 3), 250, np.uint8)
    pixels[:: round(5 * PX)], pixels[:, :: round(5 * PX)] = (240, 150, 150), (240, 150, 150)
    x_mm = traces.x0_mm + np.arange(traces.row_mm.shape[1]) / traces.columns_per_mm
    n_short = len(NAMED[name].rows)
    for k, (row, sure) in enumerate(zip(traces.row_mm, traces.confidence, strict=True)):
        ink = np.isfinite(row) & ((sure > 0) | (k >= n_short))
        cuts = np.flatnonzero(np.diff(ink.astype(int)))
        for first, stop in zip(cuts[::2] + 1, cuts[1::2] + 1, strict=True):
            points = np.round((np.stack([x_mm[first:stop], row[first:stop]], 1) * PX - 0.5) * 16).astype(np.int32)
            cv2.polylines(pixels, [points], False, (20, 20, 20), 3, cv2.LINE_AA, shift=4)
    i, j = np.mgrid[0 : round(height_mm / 5) + 2, 0:61]
    rectified = RectifiedPage(
        node_xy=np.stack([j * 5.0 * PX - 0.5, i * 5.0 * PX - 0.5], -1).astype(np.float32),
        node_mm=5.0,
        pixels=np.full((10, 10, 3), 255, np.uint8),
        px_per_mm=1.0,
        grid_scale=GridScale(px_per_mm_x=PX, px_per_mm_y=PX, score=1.0, source=source, doubt_mm=doubt_mm),
        homography=np.diag([PX, PX, 1.0]),
    )
    pixels = cv2.GaussianBlur(pixels, (0, 0), 0.8)
    return Sheet(page=PageImage(pixels=pixels), segmentation=blank_map(), rectified=rectified)


def laid(layout: Layout, start_mm: float, pitch_mm: float, width_mm: float) -> LayoutMatch:
    n = len(layout.rows[0])
    spans = tuple((start_mm + k * pitch_mm, start_mm + k * pitch_mm + width_mm) for k in range(n))
    return LayoutMatch(
        layout=layout, cost=0.0, score=1.0, certain=True, labels=(), rhythm=layout.rhythm, column_mm=spans
    )


def starts(match: LayoutMatch) -> list[float]:
    return [start for start, _ in match.column_mm]


@pytest.mark.parametrize("start_mm", [14.0, 14.02])
@pytest.mark.parametrize(("name", "gap_mm"), [("3x4+1R", 0.0), ("3x4+1R", 1.5), ("6x2", 0.0), ("12x1", 0.0)])
def test_columns_laid_a_quarter_millimetre_off_are_settled_to_two_hundredths(
    name: str, gap_mm: float, start_mm: float
) -> None:
    layout, traces = NAMED[name], traced(name, start_mm, gap_mm=gap_mm)
    width_mm = 25.0 * layout.column_seconds
    off = laid(layout, start_mm + 0.25, width_mm + gap_mm + 0.06, width_mm + 0.06)
    settled = settle_columns(off, traces, drawn(name, traces), ())
    true_mm = start_mm + (width_mm + gap_mm) * np.arange(len(layout.rows[0]))
    assert starts(settled) == pytest.approx(true_mm, abs=0.025)
    if gap_mm:
        assert [end - start for start, end in settled.column_mm[:-1]] == pytest.approx([width_mm] * 3, abs=0.01)


def test_a_gap_that_was_not_seen_is_told_from_the_page_s_own_ends() -> None:
    traces = traced("3x4+1R", 14.0, gap_mm=0.5)
    off = laid(NAMED["3x4+1R"], 14.0, 62.9, 62.9)
    settled = settle_columns(off, traces, drawn("3x4+1R", traces), ())
    assert starts(settled) == pytest.approx(14.0 + 63.0 * np.arange(4), abs=0.06)
    assert settled.column_mm[0][1] == pytest.approx(76.5, abs=0.06)


def test_columns_of_an_unusual_width_stay_so() -> None:
    traces = traced("3x4+1R", 14.0, seconds=2.46)
    settled = settle_columns(laid(NAMED["3x4+1R"], 14.1, 61.55, 61.55), traces, drawn("3x4+1R", traces), ())
    assert starts(settled) == pytest.approx(14.0 + 61.5 * np.arange(4), abs=0.06)


def test_one_row_that_starts_elsewhere_moves_nothing() -> None:
    traces = traced("12x1", 14.0)
    rows = traces.row_mm.copy()
    rows[3, : round((14.5 - traces.x0_mm) * traces.columns_per_mm)] = np.nan
    traces = replace(traces, row_mm=rows)
    settled = settle_columns(laid(NAMED["12x1"], 14.2, 250.0, 250.0), traces, drawn("12x1", traces), ())
    assert starts(settled) == pytest.approx([14.0], abs=0.025)


def test_a_column_ends_one_sample_of_the_page_s_own_speed_behind_its_last_ink() -> None:
    traces = traced("12x1", 14.0)
    match, sheet = laid(NAMED["12x1"], 14.2, 250.0, 250.0), drawn("12x1", traces)
    slow, fast = (starts(settle_columns(match, traces, sheet, (), speed))[0] for speed in (25.0, 50.0))
    assert slow == starts(settle_columns(match, traces, sheet, ()))[0]  # 10 s at 25 mm/s, or 5 s at 50 mm/s
    assert fast - slow == pytest.approx(0.022, abs=0.006)


def test_marks_of_separators_place_columns_where_rows_do_not_agree() -> None:
    traces = traced("3x4+1R", 14.0)
    rows = traces.row_mm.copy()
    rows[:, : round((14.3 - traces.x0_mm) * traces.columns_per_mm)] = np.nan  # all start late
    for k, boundary_mm in enumerate([76.5, 139.0, 201.5]):  # each row runs on for another while
        first = round((boundary_mm - traces.x0_mm) * traces.columns_per_mm)
        for row, late in zip(rows, (3 + 4 * k, 9 - k, 14 - 2 * k), strict=False):
            row[first : first + late] = row[first - 1]
    traces = replace(traces, row_mm=rows)
    sheet, match = drawn("3x4+1R", traces), laid(NAMED["3x4+1R"], 14.1, 62.5, 62.5)
    seen_mm = np.repeat(14.0 + 62.5 * np.arange(1, 5), 3) + np.tile([-0.02, 0.0, 0.02], 4)
    assert abs(starts(settle_columns(match, traces, sheet, ()))[0] - 14.0) > 0.05
    assert starts(settle_columns(match, traces, sheet, seen_mm.tolist())) == pytest.approx(
        14.0 + 62.5 * np.arange(4), abs=0.03
    )


def test_columns_laid_from_within_a_pulse_are_laid_anew_where_marks_say_so() -> None:
    traces = traced("6x2", 14.0)
    match, sheet = laid(NAMED["6x2"], 10.0, 127.0, 127.0), drawn("6x2", traces)
    seen_mm = np.repeat([14.0, 139.0, 264.0], 6) + np.tile(np.linspace(-0.3, 0.2, 6), 3)
    assert starts(settle_columns(match, traces, sheet, seen_mm.tolist())) == pytest.approx([14.0, 139.0], abs=0.03)


def test_a_drawing_s_own_lines_say_where_columns_stand() -> None:
    traces = traced("6x2", 14.0)
    line = DrawnLine(row=0, first=80, y_mm=traces.row_mm[0, 80:2580])
    match = laid(NAMED["6x2"], 14.3, 125.0, 125.0)
    assert settle_columns(match, replace(traces, lines=(line,)), drawn("6x2", traces), ()) is match


@pytest.mark.parametrize("seconds", [5.0, 5.2])
def test_on_a_guessed_scale_a_gap_is_no_time(seconds: float) -> None:
    """Columns may have any width there, and the last one may be cut."""
    traces = traced("6x2", 14.0, gap_mm=1.2, seconds=seconds)
    laid_mm = 25.0 * seconds + 0.6  # half of the page
    match, sheet = laid(NAMED["6x2"], 14.0, laid_mm, laid_mm), drawn("6x2", traces, source="default")
    (start_mm, end_mm), (second_mm, _) = settle_columns(match, traces, sheet, ()).column_mm
    assert [start_mm, end_mm - start_mm] == pytest.approx([14.0, 25.0 * seconds], abs=0.1)
    assert second_mm - end_mm == pytest.approx(1.2, abs=0.15)


@pytest.mark.parametrize("lean", [0.0, 0.004, -0.006])
def test_edges_say_by_how_much_a_sheet_leans(lean: float) -> None:
    traces = traced("6x2", 14.0)
    rows = [np.roll(row, round(lean * 25.0 * k * traces.columns_per_mm)) for k, row in enumerate(traces.row_mm)]
    traces = replace(traces, row_mm=np.stack(rows))
    match = laid(NAMED["6x2"], 14.0, 125.0, 125.0)
    assert measure_lean(match, traces, drawn("6x2", traces, source="default")) == pytest.approx(lean, abs=4e-4)


def test_columns_without_rows_stay() -> None:
    traces = traced("6x2", 14.0)
    match = replace(laid(NAMED["6x2"], 14.3, 125.0, 125.0), row_index=(-1,) * 6)
    assert settle_columns(match, traces, drawn("6x2", traces), ()) is match


def test_on_a_map_that_is_less_exact_starts_stand_on_the_tracer_s_columns() -> None:
    traces = traced("3x4+1R", 14.02)
    match = laid(NAMED["3x4+1R"], 14.2, 62.55, 62.55)
    settled = settle_columns(match, traces, drawn("3x4+1R", traces, doubt_mm=0.01), ())
    at = [(start - traces.x0_mm) * traces.columns_per_mm for start in starts(settled)]
    assert at == pytest.approx(np.round(at), abs=1e-6)
    assert starts(settled) == pytest.approx(14.02 + 62.5 * np.arange(4), abs=0.05)
