"""Lines of a drawing take the place of what was traced along them."""

import json
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from pipeline import LEADS, Calibration, GridScale, PageImage, RectifiedPage, TraceSet
from pipeline.datatypes import ByteArray, FloatArray, RowBand, SegmentationMap
from pipeline.digitizer import Digitizer
from pipeline.layout.file import load_layouts
from pipeline.layout.identify import identify_layout
from pipeline.networks.inference import Network
from pipeline.output.files import to_json
from pipeline.rows.drawing import explained_rows, follow_strokes
from pipeline.rows.trace import RowReadings
from pipeline.sheet.paper import Sheet
from pipeline.signal.calibrate import calibrate
from pipeline.training.recordings.simulate import simulate_ecg
from tests.pipeline.drawn_pages import STANDARD, ecg_page, snr_of_short_leads_db
from tests.pipeline.paper_samples import blank_map, labels_of, printed

Float64 = npt.NDArray[np.float64]

LAYOUTS = load_layouts()


def flat_sheet() -> RectifiedPage:
    at = np.stack(np.meshgrid(np.arange(31), np.arange(21)), -1) * 100.0
    return RectifiedPage(
        node_xy=(at - 0.5).astype(np.float32),
        node_mm=10.0,
        pixels=np.zeros((10, 10, 3), np.uint8),
        px_per_mm=10.0,
        grid_scale=GridScale(px_per_mm_x=10.0, px_per_mm_y=10.0, score=0.9, source="grid"),
        homography=np.diag([10.0, 10.0, 1.0]),
    )


def sheet_with(*lines_mm: Float64) -> Sheet:
    page = PageImage(pixels=np.zeros((2000, 3000, 3), np.uint8), strokes=tuple(line * 10.0 - 0.5 for line in lines_mm))
    return Sheet(page=page, segmentation=blank_map(), rectified=flat_sheet())


def lines_of(traces: TraceSet, row: int, first_mm: float, last_mm: float) -> Float64:
    x_mm = traces.x0_mm + np.arange(traces.row_mm.shape[1]) / traces.columns_per_mm
    there = (x_mm >= first_mm - 1e-6) & (x_mm <= last_mm + 1e-6) & np.isfinite(traces.row_mm[row])
    return np.column_stack([x_mm[there], traces.row_mm[row, there]]).astype(np.float64)


def misread(traces: TraceSet, seed: int = 3) -> TraceSet:
    noise = np.random.default_rng(seed).normal(0, 0.08, traces.row_mm.shape).astype(np.float32)
    return TraceSet(
        row_mm=traces.row_mm + noise,
        confidence=traces.confidence,
        baseline_mm=traces.baseline_mm,
        x0_mm=traces.x0_mm,
        columns_per_mm=traces.columns_per_mm,
    )


def standard_page() -> tuple[TraceSet, FloatArray]:
    signal_mv = simulate_ecg(np.random.default_rng(4), disease="none")
    return printed(STANDARD, signal_mv, x0_mm=12.0), signal_mv


def test_lines_take_the_place_of_what_was_traced_along_them() -> None:
    true, _ = standard_page()
    lines = [lines_of(true, row, 12 + 62.5 * k, 12 + 62.5 * (k + 1) - 0.05) for row in range(3) for k in range(4)]
    lines += [lines_of(true, 3, 12, 262)[::-1]]  # drawn from right to left
    followed = follow_strokes(misread(true), sheet_with(*lines))
    assert len(followed.lines) == 13
    there = np.isfinite(true.row_mm)
    assert np.array_equal(followed.drawn() & there, there)
    assert np.abs(followed.row_mm - true.row_mm)[there].max() < 0.02
    assert followed.doubt_mm is not None
    assert followed.doubt_mm[there].max() == 0


def test_a_line_between_columns_is_moved_onto_them() -> None:
    true, _ = standard_page()
    line = lines_of(true, 3, 12, 262)
    followed = follow_strokes(misread(true), sheet_with(line + np.array([0.02, 0.0])))
    there = followed.drawn()[3]
    assert np.abs(followed.row_mm[3] - true.row_mm[3])[there].max() < 0.02


def test_lines_nothing_was_traced_along_are_left_alone() -> None:
    true, _ = standard_page()
    strip = lines_of(true, 3, 12, 262)
    pulse = strip[:200]
    elsewhere = strip + np.array([0.0, 60.0])
    other_signal = np.column_stack([strip[:, 0], 95.0 + 3 * np.sin(strip[:, 0])])
    beyond = strip * np.array([1e30, 1.0])
    frame = np.array([[10.0, 10.0], [200.0, 10.0], [200.0, 100.0], [10.0, 100.0], [10.0, 10.0]])
    traces = misread(true)
    assert follow_strokes(traces, sheet_with(pulse, elsewhere, other_signal, beyond, frame)) is traces
    assert follow_strokes(traces, sheet_with()) is traces


def test_an_end_behind_the_next_leads_start_is_kept() -> None:
    true, signal_mv = standard_page()
    lines = []
    for row in range(3):
        for k in range(4):  # columns closer than their leads are long
            line = lines_of(true, row, 12 + 62.5 * k, 12 + 62.5 * (k + 1) - 0.05)
            lines.append(line - np.array([0.5 * k, 0.0]))
    overlapping = true.row_mm.copy()
    for row in range(3):
        for k in (1, 2, 3):
            begins, shift = round((4 + 62.5 * k) * 20), 10 * k
            overlapping[row, begins - shift : begins - shift + 1250] = true.row_mm[row, begins : begins + 1250]
        overlapping[row, -80 - 30 :] = np.nan
    traces = TraceSet(
        row_mm=overlapping,
        confidence=true.confidence,
        baseline_mm=true.baseline_mm,
        x0_mm=true.x0_mm,
        columns_per_mm=true.columns_per_mm,
    )
    followed = follow_strokes(traces, sheet_with(*lines, lines_of(true, 3, 12, 262)))
    match = identify_layout(labels_of(STANDARD, followed), followed, LAYOUTS)
    assert np.allclose([start for start, _ in match.column_mm], [12, 74, 136, 198], atol=0.01)
    record = calibrate(followed, match, Calibration())
    for column in range(4):
        lead = LEADS.index(STANDARD.rows[0][column])
        part = np.s_[lead, 1250 * column : 1250 * (column + 1)]
        read, told = record.signal_mv[part], signal_mv[part]
        assert np.isfinite(read).all()
        assert np.abs((read - read.mean()) - (told - told.mean())).max() < 0.005


def inked(sheet: Sheet, *lines_mm: Float64) -> Sheet:
    """The same sheet, with these lines on the page network's map."""
    trace = np.zeros((2000, 3000), np.float32)
    for line in lines_mm:
        cv2.polylines(trace, [np.round(line * 10).astype(np.int32)], False, 1.0, 3)
    return replace(sheet, segmentation=SegmentationMap(grid=0 * trace, trace=trace, text=0 * trace, scale=1.0))


def test_rows_are_explained_by_lines_that_are_seen_and_whole() -> None:
    true, _ = standard_page()
    x_mm = true.x0_mm + np.arange(true.row_mm.shape[1]) / true.columns_per_mm
    bands = [RowBand(baseline_mm=float(y), x0_mm=12.0, x1_mm=262.0) for y in true.baseline_mm]
    leads = [[lines_of(true, row, 12 + 62.5 * k, 12.2 + 62.5 * (k + 1)) for k in range(4)] for row in range(3)]
    strip = lines_of(true, 3, 12, 262)
    every = [line for row in leads for line in row] + [strip]
    found = explained_rows(inked(sheet_with(*every), *every), bands, x_mm)
    assert sorted(found) == [0, 1, 2, 3]
    for row, y_mm in found.items():
        assert np.nanmax(np.abs(y_mm - true.row_mm[row])) < 0.02

    unseen = explained_rows(inked(sheet_with(*every), *every[:7]), bands, x_mm)
    missing = explained_rows(inked(sheet_with(*every[:6], *every[7:]), *every), bands, x_mm)
    beside = [*every, leads[0][2] + np.array([0.0, 0.5])]
    twice = explained_rows(inked(sheet_with(*beside), *beside), bands, x_mm)
    assert (sorted(unseen), sorted(missing), sorted(twice)) == ([0], [0, 2, 3], [1, 2, 3])
    assert explained_rows(inked(sheet_with(), *every), bands, x_mm) == {}


def test_a_drawn_page_gives_its_signals_back_without_the_trace_network() -> None:
    def unwanted(strips: ByteArray, network: Network) -> RowReadings:
        pytest.fail(f"{len(strips)} rows were read by the {network.name} network")

    signal_mv = simulate_ecg(np.random.default_rng(4), disease="none")
    digitizer = Digitizer.load(device="cpu")
    digitizer = replace(digitizer, stages=replace(digitizer.stages, read_rows=unwanted))
    result = digitizer.digitize(ecg_page(signal_mv))
    assert result.layout_match.layout.name == "3x4+1R"
    assert json.loads(to_json(result))["traces"]["share_from_drawing"] > 0.99
    assert result.quality.estimated_snr_db > 28
    for leads in STANDARD.rows:
        for k, lead in enumerate(leads):
            assert np.isfinite(result.record.signal_mv[LEADS.index(lead), 1250 * k : 1250 * (k + 1)]).all(), lead
    for lead, snr_db in snr_of_short_leads_db(signal_mv, result).items():
        assert snr_db > 30, lead
