"""Beats that differ where a grid line runs, and only there."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline import TraceSet
from pipeline.datatypes import LayoutMatch
from pipeline.layout.file import load_layouts
from pipeline.layout.identify import identify_layout
from pipeline.signal.grid_lines import beats_cut_by_lines
from pipeline.training.recordings.simulate import simulate_ecg
from tests.pipeline.paper_samples import labels_of, printed

LAYOUTS = load_layouts()
LAYOUT = next(layout for layout in LAYOUTS if layout.name == "6x2+1R")
STRIP = LAYOUT.n_rows - 1


def page(seed: int, noise_mm: float = 0.05) -> tuple[TraceSet, LayoutMatch]:
    rng = np.random.default_rng(seed)
    traces = printed(LAYOUT, simulate_ecg(rng, disease="none"), x0_mm=12.0 + rng.uniform(0, 5))
    row_mm = (traces.row_mm + rng.normal(0, noise_mm, traces.row_mm.shape)).astype(np.float32)
    match = identify_layout(labels_of(LAYOUT, traces), traces, LAYOUTS)
    return replace(traces, row_mm=row_mm), match


def highest_near_a_line(traces: TraceSet, row: int, x_mm: np.ndarray, within_mm: float) -> int:
    """The highest column of a row that is near a 5 mm line."""
    near = np.abs((x_mm + 2.5) % 5 - 2.5) < within_mm
    height = np.where(near, np.nan_to_num(traces.baseline_mm[row] - traces.row_mm[row]), -np.inf)
    return int(height.argmax())


@pytest.mark.parametrize("seed", range(12))
def test_equal_beats_say_nothing(seed: int) -> None:
    traces, match = page(seed)
    assert beats_cut_by_lines(match, traces, 25.0) == []


def test_a_peak_that_a_line_cut_off_is_named_with_its_time() -> None:
    found = tried = 0
    for seed in range(12):
        traces, match = page(seed)
        x_mm = traces.x0_mm + np.arange(traces.row_mm.shape[1]) / traces.columns_per_mm
        column = highest_near_a_line(traces, STRIP, x_mm, 0.2)
        row, line = traces.row_mm[STRIP], round(float(x_mm[column]) / 5) * 5
        height_mm = float(traces.baseline_mm[STRIP] - row[column])
        if height_mm < 8.0:  # no beat of this heart stands on a line
            continue
        tried += 1
        under = np.abs(x_mm - line) < 0.4
        row[under] = np.maximum(row[under], traces.baseline_mm[STRIP] - 0.6 * height_mm)
        said = beats_cut_by_lines(match, traces, 25.0)
        at_s = (float(x_mm[column]) - match.column_mm[0][0]) / 25
        found += any(f"lead {match.rhythm[0]} " in words and f"{at_s:.1f}" in words for words in said)
    assert tried >= 4 and found >= tried - 1


def test_a_beat_that_is_lower_as_a_whole_is_no_matter_of_lines() -> None:
    traces, match = page(3)
    row = traces.row_mm[STRIP]
    middle = row.size // 2
    row[middle : middle + 600] = traces.baseline_mm[STRIP] + 0.6 * (
        row[middle : middle + 600] - traces.baseline_mm[STRIP]
    )
    assert beats_cut_by_lines(match, traces, 25.0) == []
