"""The heart rate: right where beats are plain, silent where they are not."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline import LEADS, Calibration, EcgRecord, PrintedValues, heart_rate_per_minute
from pipeline.signal.heart_rate import check_printed_rate

FS = 500


def ecg(intervals_s: list[float], *, t_wave_mv: float = 0.3, noise_mv: float = 0.02, columns: int = 1) -> EcgRecord:
    """Ten seconds of twelve leads: QRS complexes of 1 mV and T waves; `columns` > 1 leaves each lead its share."""
    t = np.arange(10 * FS) / FS
    beat = np.zeros_like(t)
    for at in np.cumsum([0.3, *intervals_s]):
        beat += np.exp(-(((t - at) / 0.012) ** 2)) - 0.25 * np.exp(-(((t - at - 0.03) / 0.012) ** 2))
        beat += t_wave_mv * np.exp(-(((t - at - 0.28) / 0.05) ** 2))
    signal = beat * np.linspace(0.5, 1.5, 12)[:, None] + noise_mv * np.random.default_rng(1).normal(size=(12, t.size))
    for k in range(12):
        start = k * columns // 12 * t.size // columns
        signal[k, :start] = signal[k, start + t.size // columns :] = np.nan
    return EcgRecord(
        signal_mv=signal.astype(np.float32),
        confidence=np.ones((12, t.size), np.float32),
        leads=LEADS,
        sampling_frequency_hz=FS,
        calibration=Calibration(),
    )


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("rate", [45, 72, 110, 150])
def test_regular_rhythms(rate: int, columns: int) -> None:
    found = heart_rate_per_minute(ecg([60 / rate] * 30, columns=columns))
    assert found is not None
    assert abs(found - rate) < 1


def test_short_columns_go_together_or_say_nothing_where_they_cut_a_beat() -> None:
    rates = range(40, 160, 10)
    found = [heart_rate_per_minute(ecg([60 / rate] * 30, columns=4)) for rate in rates]
    told = [abs(rate - wanted) for rate, wanted in zip(found, rates, strict=True) if rate is not None]
    assert max(told) < 1
    assert len(told) >= 6


def test_an_irregular_rhythm_has_its_mean() -> None:
    intervals = [0.7, 0.9, 0.65, 1.0, 0.8, 0.72, 0.95, 0.68, 0.85, 0.9, 0.7]
    found = heart_rate_per_minute(ecg(intervals))
    assert found is not None
    assert abs(found - 60 / np.mean(intervals)) < 1


def test_noise_a_wave_and_a_flat_line_have_none() -> None:
    record = ecg([])
    rng = np.random.default_rng(3)
    t = np.arange(10 * FS) / FS
    noise, wave = 0.3 * rng.normal(size=(12, t.size)), np.tile(np.sin(2 * np.pi * 5 * t), (12, 1))
    for signal in (noise, wave, np.zeros_like(wave)):
        made = EcgRecord(
            signal_mv=signal.astype(np.float32),
            confidence=record.confidence,
            leads=LEADS,
            sampling_frequency_hz=FS,
            calibration=Calibration(),
        )
        assert heart_rate_per_minute(made) is None


def test_a_pause_that_may_hide_a_beat_and_a_short_record_have_none() -> None:
    assert heart_rate_per_minute(ecg([0.8, 0.8, 0.8, 1.6, 0.8, 0.8, 0.8, 0.8, 0.8])) is None
    record = ecg([0.8] * 12)
    record.signal_mv[:, 2000:] = np.nan
    assert heart_rate_per_minute(record) is None


@pytest.mark.parametrize(
    ("printed", "reasons"),
    [
        (None, ()),
        (72, ()),
        (78, ()),
        (81, ("a heart rate of 81/min is printed, and 72/min measured",)),
        (
            144,
            ("a heart rate of 144/min is printed, and 72/min measured: the paper speed may be 50 mm/s, not 25 mm/s",),
        ),
        (
            36,
            ("a heart rate of 36/min is printed, and 72/min measured: the paper speed may be 12.5 mm/s, not 25 mm/s",),
        ),
    ],
)
def test_a_printed_rate_that_differs_is_a_reason_for_a_review(printed: float | None, reasons: tuple[str, ...]) -> None:
    record = check_printed_rate(ecg([60 / 72] * 30), PrintedValues(heart_rate_per_minute=printed))
    assert record.calibration.reasons == reasons
    assert record.calibration.paper_speed_mm_per_s == 25.0  # a person decides


def test_a_rate_that_cannot_be_measured_contradicts_no_print() -> None:
    assert check_printed_rate(ecg([]), PrintedValues(heart_rate_per_minute=72)).calibration.reasons == ()
