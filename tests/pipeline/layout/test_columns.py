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
