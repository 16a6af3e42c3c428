"""What beats on paper measure: at twice the speed everything is twice as long, at twice the gain twice as tall."""

import numpy as np
import pytest

from pipeline import TraceSet
from pipeline.layout.beats import measure_beats
from pipeline.layout.file import load_layouts
from pipeline.training.recordings.simulate import simulate_ecg
from tests.pipeline.paper_samples import printed

NAMED = {layout.name: layout for layout in load_layouts()}


def beats_of(speed: float = 25.0, gain: float = 10.0, seed: int = 3):  # type: ignore[no-untyped-def]
    signal = simulate_ecg(np.random.default_rng(seed), seconds=12, disease="none")
    traces = printed(NAMED["6x1 limb"], signal, speed=speed, gain=gain)
    return measure_beats(traces, range(6), ((12.0, 12.0 + 10 * speed),))


def test_length_grows_with_the_speed_and_height_with_the_gain() -> None:
    once, twice = beats_of(25.0, 10.0), beats_of(50.0, 20.0)
    assert once is not None and twice is not None
    assert once.qrs_mm / 25.0 == pytest.approx(0.04, rel=0.4)
    assert twice.qrs_mm == pytest.approx(2 * once.qrs_mm, rel=0.15)
    assert twice.rr_mm == pytest.approx(2 * once.rr_mm, rel=0.05)
    assert twice.height_mm == pytest.approx(2 * once.height_mm, rel=0.02)


def test_where_no_beat_stands_out_there_is_nothing_to_measure() -> None:
    n = 5000
    empty = TraceSet(
        row_mm=np.full((2, n), np.nan, np.float32),
        confidence=np.zeros((2, n), np.float32),
        baseline_mm=np.array([20.0, 40.0], np.float32),
        x0_mm=0.0,
        columns_per_mm=20.0,
    )
    assert measure_beats(empty, (0, 1), ((0.0, 250.0),)) is None
    assert measure_beats(empty, (), ()) is None


@pytest.mark.parametrize("speed", [25.0, 50.0])
@pytest.mark.parametrize("t_s", [0.2, 0.3])
def test_the_top_of_the_t_wave_is_found(speed: float, t_s: float) -> None:
    rate = 20 * speed  # columns a second
    at_s = np.arange(round(10 * rate)) / rate
    row = np.zeros(at_s.size)
    for beat_s in np.arange(0.4, 10, 0.8):
        row -= 10 * np.exp(-0.5 * ((at_s - beat_s) / 0.012) ** 2) + 3 * np.exp(
            -0.5 * ((at_s - beat_s - t_s) / 0.04) ** 2
        )
    rows = np.stack([row, -0.7 * row]).astype(np.float32)
    traces = TraceSet(
        row_mm=rows, confidence=np.ones_like(rows), baseline_mm=np.zeros(2, np.float32), x0_mm=12.0, columns_per_mm=20.0
    )
    beats = measure_beats(traces, (0, 1), ((12.0, 12.0 + 5 * speed), (12.0 + 5 * speed, 12.0 + 10 * speed)))
    assert beats is not None
    assert beats.t_wave_mm == pytest.approx((t_s * speed, 0.8 * speed), abs=0.02 * speed)
