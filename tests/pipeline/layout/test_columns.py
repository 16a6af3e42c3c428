from dataclasses import replace

import numpy as np
import pytest

from pipeline import TraceSet
from pipeline.layout.columns import locate_columns
from pipeline.layout.file import load_layouts
from pipeline.training.recordings.simulate import simulate_ecg
from tests.pipeline.paper_samples import printed

LAYOUT = next(layout for layout in load_layouts() if layout.name == "3x4+1R")
TRUE_MM = 12.0 + 62.5 * np.arange(4)


def traced_late(late_mm: float = 0.4) -> TraceSet:
    """Rows whose every lead starts late: the line of the lead before it runs on."""
    traces = printed(LAYOUT, simulate_ecg(np.random.default_rng(4), seconds=20, disease="none"))
    rows = traces.row_mm.copy()
    for start_mm in TRUE_MM[1:]:
        first = round((start_mm - traces.x0_mm) * traces.columns_per_mm)
        late = round(late_mm * traces.columns_per_mm)
        rows[:3, first : first + late] = rows[:3, first - 1, None]
    rows[:, : round((12.0 + late_mm - traces.x0_mm) * traces.columns_per_mm)] = np.nan
    return replace(traces, row_mm=rows)


def located(seen_mm: list[float]) -> list[float]:
    return [start for start, _ in locate_columns(traced_late(), LAYOUT, [0, 1, 2], [3], seen_mm=seen_mm)]


def off_mm(seen_mm: list[float]) -> float:
    return float(np.abs(np.array(located(seen_mm)) - TRUE_MM).max())


@pytest.mark.parametrize("seed", range(4))
def test_marks_place_the_columns_to_a_few_hundredths_of_a_millimetre(seed: int) -> None:
    rng = np.random.default_rng(seed)
    boundaries = 12.0 + 62.5 * np.repeat([1, 2, 3, 4], 3)
    seen = boundaries + rng.normal(0.0, 0.03, 12)
    seen[[1, 5]] += 0.35  # wrong ones
    late = 12.0 + rng.uniform(0.7, 1.5, 3)  # of the first boundary
    assert off_mm([]) > 0.3
    assert off_mm([*seen, *late]) < 0.06


def test_marks_that_do_not_agree_move_nothing() -> None:
    boundaries = 12.0 + 62.5 * np.repeat([1, 2, 3, 4], 3)
    scattered = boundaries - 0.2 + np.tile([-0.2, 0.0, 0.15], 4)
    assert located([*scattered]) == pytest.approx(located([]), abs=0.1)


def test_marks_of_one_boundary_move_nothing() -> None:
    assert located([12.0 + 62.5] * 3) == pytest.approx(located([]), abs=0.1)


def bridged(gap_mm: float, least_confidence: float = 0.1) -> TraceSet:
    """Rows with a gap between the columns that the tracer runs through, as it does, with little confidence."""
    traces = printed(LAYOUT, simulate_ecg(np.random.default_rng(4), seconds=20, disease="none"), gap_mm=gap_mm)
    rows, confidence = traces.row_mm.copy(), traces.confidence.copy()
    for row, sure in zip(rows[:3], confidence[:3], strict=True):
        known = np.flatnonzero(np.isfinite(row))
        inside = np.s_[known[0] : known[-1] + 1]
        empty = ~np.isfinite(row[inside])
        row[inside] = np.interp(np.arange(known[0], known[-1] + 1), known, row[known])
        sure[inside][empty] = least_confidence
    return replace(traces, row_mm=rows, confidence=confidence)


@pytest.mark.parametrize("gap_mm", [0.0, 1.0, 2.0, 3.0])
def test_columns_stand_a_gap_apart_also_where_the_tracer_runs_through_it(gap_mm: float) -> None:
    columns = locate_columns(bridged(gap_mm), LAYOUT, [0, 1, 2], [3])
    starts, ends = np.array(columns).T
    assert starts == pytest.approx(12.0 + (62.5 + gap_mm) * np.arange(4), abs=0.06)
    assert ends[:3] - starts[:3] == pytest.approx(np.full(3, 62.5), abs=0.1)


def test_a_doubted_stretch_without_a_gap_moves_no_column() -> None:
    traces = bridged(0.0)
    confidence = traces.confidence.copy()
    for start_mm in TRUE_MM[1:]:  # one of three rows is hard to read where the leads change
        at = round((start_mm - traces.x0_mm) * traces.columns_per_mm)
        confidence[0, at - 30 : at + 10] = 0.1
    columns = locate_columns(replace(traces, confidence=confidence), LAYOUT, [0, 1, 2], [3])
    assert [start for start, _ in columns] == pytest.approx(TRUE_MM, abs=0.06)


@pytest.mark.parametrize("scale", [0.96, 0.985, 1.04])
def test_on_a_guessed_scale_no_usual_width_is_preferred(scale: float) -> None:
    signal_mv = simulate_ecg(np.random.default_rng(4), seconds=20, disease="none")
    traces = printed(LAYOUT, signal_mv, speed=25.0 * scale)
    starts = [start for start, _ in locate_columns(traces, LAYOUT, [0, 1, 2], [3], guessed=True)]
    assert np.diff(starts) == pytest.approx(np.full(3, 62.5 * scale), abs=0.08)


@pytest.mark.parametrize("gap_mm", [0.0, 1.5, 3.0])
def test_on_a_guessed_scale_the_strip_tells_gaps_from_wider_columns(gap_mm: float) -> None:
    traces = printed(LAYOUT, simulate_ecg(np.random.default_rng(4), seconds=20, disease="none"), gap_mm=gap_mm)
    rows = traces.row_mm.copy()
    rows[3, round((12.0 + 250.0 - traces.x0_mm) * traces.columns_per_mm) :] = np.nan  # a strip has no gaps
    columns = locate_columns(replace(traces, row_mm=rows), LAYOUT, [0, 1, 2], [3], guessed=True)
    assert [end - start for start, end in columns[:3]] == pytest.approx(np.full(3, 62.5), abs=0.15)
