from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from pipeline import LEADS, Calibration, EcgRecord, Lead
from pipeline.datatypes import in_order
from pipeline.evaluation.evaluate import PageScore, judge_estimate, left_in_silence, score_page
from pipeline.evaluation.metrics import pooled_db, power_ratio, score_lead
from pipeline.evaluation.tables import estimate_table, layouts_counted, silent_pages, tables, worst_pages
from pipeline.evaluation.truth import PageTruth
from pipeline.output.files import read_csv, to_csv
from pipeline.training.recordings.simulate import simulate_ecg

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
    rate, leads, back = read_csv(path)
    assert rate == pytest.approx(500) and leads == LEADS
    assert np.array_equal(np.isfinite(back), np.isfinite(signal))
    assert np.nanmax(np.abs(back - signal)) < 6e-5
    path.write_text("t,I\n0,1\n")
    with pytest.raises(ValueError, match="time_s"):
        read_csv(path)


def test_a_csv_has_a_column_more_for_every_other_lead_of_the_page(tmp_path: Path) -> None:
    leads = (Lead.V9, *LEADS, Lead.V3R)
    signal = np.vstack([ECG[:1] * 2, ECG, ECG[:1] * 3])
    record = EcgRecord(
        signal_mv=signal,
        confidence=np.ones_like(signal),
        leads=leads,
        sampling_frequency_hz=500.0,
        calibration=Calibration(),
    )
    path = tmp_path / "page.csv"
    path.write_text(to_csv(record))
    _, read, back = read_csv(path)
    assert read == (*LEADS, Lead.V3R, Lead.V9)
    assert np.abs(back[-2] - 3 * ECG[0]).max() < 6e-5
    truth = PageTruth(signal_mv=signal, leads=leads)
    score = score_page(path, truth, in_order(back, read, truth.leads))
    assert len(score.leads) == 14 and min(lead.snr_db for lead in score.leads.values()) > 40


KNOWN = PageTruth(signal_mv=ECG, layout="3x4", paper_speed_mm_per_s=50.0, gain_mm_per_mv=5.0)


def printed(*shown: Table) -> str:
    console = Console(width=160)
    with console.capture() as captured:
        for table in shown:
            console.print(table)
    return captured.get()


def judged(name: str, layout: str, certain: bool, estimated_snr_db: float = 0.0, noise: float = 0.0) -> PageScore:
    read = (ECG + noise * RNG.normal(0, 1, ECG.shape)).astype(np.float32)
    score = score_page(Path(name), KNOWN, read)
    return replace(
        score,
        layout=layout,
        certain=certain,
        estimated_snr_db=estimated_snr_db,
        speed_mm_per_s=50.0,
        gain_mm_per_mv=10.0,
    )


def test_tables_have_a_row_for_every_lead_kind_layout_speed_and_gain() -> None:
    good = score_page(Path("scans/1_a.png"), KNOWN, ECG)
    lost = score_page(Path("photos/1_b.png"), replace(KNOWN, layout="12x1", paper_speed_mm_per_s=None), None)
    second = score_page(Path("photos/1_b.pdf"), KNOWN, None, kind="faxes", page_number=2)
    assert good.snr_db > 60 and lost.snr_db == 0
    assert tuple(good.leads) == LEADS
    text = printed(*tables([good, lost, second]))
    assert all(f"{lead} " in text for lead in LEADS)
    for row in ("scans (1)", "photos (1)", "faxes (1)", "all (3)", "3x4 (2)", "12x1 (1)", "50 mm/s (2)", "5 mm/mV (3)"):
        assert row in text, row
    assert "By gain" not in printed(*tables([score_page(Path("a/1.png"), PageTruth(signal_mv=ECG), ECG)]))
    worst = printed(worst_pages([good, lost, second], count=2))
    assert "1_b.png" in worst and "1_b.pdf p2" in worst and "1_a.png" not in worst


def test_wrong_layouts_are_counted_with_those_that_were_flagged() -> None:
    pages = [
        judged("a/1.png", "3x4", True),
        judged("a/2.png", "3x4", False),
        judged("a/3.png", "12x1", False),
        judged("a/4.png", "6x2", True),
        judged("a/5.png", "6x2", True),
    ]
    lines = printed(layouts_counted([*pages, score_page(Path("a/6.png"), KNOWN, None)])).splitlines()
    layout = next(line for line in lines if "layout" in line)
    assert layout.replace("│", "").split() == ["layout", "2", "3", "1", "1", "of", "3"]
    assert next(line for line in lines if "speed" in line).replace("│", "").split() == ["speed", "5", "0"]
    assert next(line for line in lines if "gain" in line).replace("│", "").split() == ["gain", "0", "5"]
    assert "6x2 (is 3x4)" in printed(worst_pages(pages)) and "10 (is 5)" in printed(worst_pages(pages))


def test_the_estimate_is_ranked_against_the_truth() -> None:
    pages = [judged(f"a/{k}.png", "3x4", True, 20.0 - k, 0.01 * 2**k) for k in range(5)]
    assert judge_estimate(pages).rank_correlation == pytest.approx(1)
    turned = judge_estimate([replace(page, estimated_snr_db=-page.estimated_snr_db) for page in pages])
    assert turned.rank_correlation < -0.99
    assert np.isnan(judge_estimate(pages[:2]).rank_correlation) and np.isnan(judge_estimate([]).bias_db)


def test_bias_and_percentile_of_the_estimate() -> None:
    page = judged("a/1.png", "3x4", True, noise=0.1)
    pages = [replace(page, estimated_snr_db=page.snr_db + off) for off in (*[1.0] * 9, -2.0, 10.0)]
    of = judge_estimate([*pages, score_page(Path("a/9.png"), KNOWN, None)])
    assert of.pages == 11  # the one that failed has no estimate
    assert of.bias_db == pytest.approx(17 / 11) and of.mean_error_db == pytest.approx(21 / 11)
    assert of.error_10th_db == pytest.approx(-1)
    families = [replace(one, family="tall") for one in pages[:9]] + [replace(pages[-1], family="paced")]
    text = printed(estimate_table(families))
    assert "+1.00" in next(line for line in text.splitlines() if "family tall" in line)
    assert "+10.00" in next(line for line in text.splitlines() if "family paced" in line)


def test_poor_pages_that_left_without_a_warning_are_named() -> None:
    poor = replace(judged("a/poor.png", "3x4", True, 18.0, noise=1.0), coverage=1.0)
    assert poor.snr_db < 10 and not poor.held
    held = [
        replace(poor, path=Path(f"a/held{k}.png"), **change)  # type: ignore[arg-type]
        for k, change in enumerate(
            ({"certain": False}, {"warnings": ("the grid",)}, {"estimated_snr_db": 7.9}, {"coverage": 0.79})
        )
    ]
    good = replace(judged("a/good.png", "3x4", True, 18.0), coverage=1.0)
    failed = score_page(Path("a/failed.png"), KNOWN, None)
    pages = [poor, *held, good, failed]
    assert [page.name for page in left_in_silence(pages)] == ["poor.png"]
    text = printed(silent_pages(pages))
    assert "poor.png" in text and "held" not in text and "good.png" not in text
    assert "none" in printed(silent_pages([good, failed]))
