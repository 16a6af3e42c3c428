from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from pipeline import LEADS, Calibration, EcgRecord, Lead
from pipeline.evaluation.evaluate import read_truth, score_page, tables, truth_of
from pipeline.evaluation.metrics import pooled_db, power_ratio, score_lead
from pipeline.output import read_csv, to_csv
from pipeline.training.simulate import simulate_ecg

RNG = np.random.default_rng(0)
ECG = simulate_ecg(np.random.default_rng(1), disease="none")


def test_a_perfect_lead_has_no_error_whatever_its_level() -> None:
    score = score_lead(ECG[1], ECG[1] + 0.7, 500.0)
    assert score is not None
    assert score.snr_db > 90 and score.rmse_uv < 0.01
    assert score.correlation == pytest.approx(1) and score.coverage == 1 and score.shift_ms == 0


def test_known_noise_gives_the_known_ratio() -> None:
    noise = RNG.normal(0, 1, 5000)
    noise *= 0.1 * np.std(ECG[1]) / np.std(noise)
    score = score_lead(ECG[1], (ECG[1] + noise).astype(np.float32), 500.0)
    assert score is not None
    assert score.snr_db == pytest.approx(20, abs=0.01)
    assert score.rmse_uv == pytest.approx(100 * np.std(ECG[1]), rel=0.01)


@pytest.mark.parametrize(("samples", "snr_above"), [(40, 60.0), (-50, 60.0)])
def test_a_shift_up_to_a_tenth_of_a_second_is_forgiven(samples: int, snr_above: float) -> None:
    window = np.full(5000, np.nan, np.float32)
    window[1250:2500] = ECG[4, 1250:2500]
    score = score_lead(window, np.roll(ECG[4], samples), 500.0)
    assert score is not None
    assert score.snr_db > snr_above and score.shift_ms == 2.0 * samples
    late = score_lead(window, np.roll(ECG[4], 70), 500.0)
    assert late is not None and late.snr_db < 10


def test_what_was_not_read_counts_as_zero() -> None:
    nothing = score_lead(ECG[0], np.full(5000, np.nan, np.float32), 500.0)
    assert nothing is not None and nothing.snr_db == 0 and nothing.coverage == 0
    half = ECG[0].copy()
    half[2500:] = np.nan
    score = score_lead(ECG[0], half, 500.0, max_shift_s=0.0)
    assert score is not None
    assert score.coverage == 0.5
    centred = ECG[0] - ECG[0].mean()
    read = np.where(np.isfinite(half), half - np.nanmean(half), 0)
    assert score.snr_db == pytest.approx(10 * np.log10((centred**2).sum() / ((centred - read) ** 2).sum()), abs=1e-3)


def test_a_lead_that_is_not_printed_has_no_score() -> None:
    window = np.full(5000, np.nan, np.float32)
    window[:200] = 0.0
    assert score_lead(window, ECG[0], 500.0) is None


def test_the_pooled_metric_is_one_ratio_a_page_and_bounded() -> None:
    assert power_ratio(ECG, ECG, 500.0) == 384.0
    assert pooled_db([384.0]) == pytest.approx(25.84, abs=0.01)
    assert power_ratio(ECG, np.full_like(ECG, np.nan), 500.0) == pytest.approx(1.0, rel=0.2)
    noisy = ECG + RNG.normal(0, 0.1 * np.sqrt(np.mean(ECG**2)), ECG.shape).astype(np.float32)
    assert power_ratio(ECG, noisy, 500.0) == pytest.approx(100, rel=0.05)
    assert power_ratio(ECG, ECG + 0.5, 500.0) == 384.0
    assert power_ratio(ECG, np.roll(ECG, 60, axis=1), 500.0) > 30
    assert power_ratio(ECG, np.roll(ECG, 150, axis=1), 500.0) < 3
    assert pooled_db([100.0, 1.0]) == pytest.approx(10 * np.log10(50.5))


def test_signals_go_to_csv_and_back(tmp_path: Path) -> None:
    signal = ECG.copy()
    signal[3, 100:200] = np.nan
    record = EcgRecord(
        signal_mv=signal,
        confidence=np.isfinite(signal).astype(np.float32),
        leads=LEADS,
        sampling_frequency_hz=500.0,
        calibration=Calibration(),
    )
    path = tmp_path / "page.csv"
    path.write_text(to_csv(record))
    lines = path.read_text().splitlines()
    assert lines[0] == "time_s,I,II,III,aVR,aVL,aVF,V1,V2,V3,V4,V5,V6"
    assert lines[1].startswith("0,") and lines[2].startswith("0.002,")
    assert lines[151].split(",")[4] == ""
    rate, back = read_csv(path)
    assert rate == pytest.approx(500)
    assert np.array_equal(np.isfinite(back), np.isfinite(signal))
    assert np.nanmax(np.abs(back - signal)) < 6e-5
    path.write_text("t,I\n0,1\n")
    with pytest.raises(ValueError, match="time_s"):
        read_csv(path)


def archive(path: Path) -> Path:
    counts = np.round(ECG * 1000).astype(np.int16)
    counts[0, 1250:] = -32768
    np.savez(path, r00017=counts, info=np.array("a note"))
    return path


def test_truth_is_found_by_the_page_s_id(tmp_path: Path) -> None:
    truth = read_truth(archive(tmp_path / "truth.npz"))
    signal = truth_of(Path("photos/00017_hr-0.jpg"), truth)
    assert np.isfinite(signal[0]).sum() == 1250
    assert signal[1] == pytest.approx(ECG[1], abs=6e-4)
    with pytest.raises(KeyError, match="no truth for id 99"):
        truth_of(Path("99_hr.jpg"), truth)
    np.savez(tmp_path / "empty.npz", info=np.array("a note"))
    with pytest.raises(ValueError, match="no array"):
        read_truth(tmp_path / "empty.npz")


def test_tables_have_a_row_for_every_lead_and_kind() -> None:
    good = score_page(Path("scans/1_a.png"), ECG, ECG)
    lost = score_page(Path("photos/1_b.png"), ECG, None)
    assert good.snr_db > 60 and lost.snr_db == 0
    assert list(good.leads) == list(Lead)
    console = Console(width=140)
    with console.capture() as captured:
        for table in tables([good, lost]):
            console.print(table)
    text = captured.get()
    assert all(f"{lead} " in text for lead in Lead)
    assert "scans (1)" in text and "photos (1)" in text and "all (2)" in text
