"""Heights of beats, time shifts and spikes on records of which the answer is known."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.datatypes import FloatArray
from pipeline.evaluation.evaluate import PageScore, score_page
from pipeline.evaluation.measures import Beats, SpikeCount, count_spikes, figures, find_spikes, shift_figures
from pipeline.evaluation.tables import leads_of, measured, tables, to_json
from pipeline.evaluation.truth import PageTruth, read_archive
from tests.pipeline.evaluation.test_evaluate import printed

BEAT_AT = np.arange(300, 4800, 400)
NO_SPIKES = np.zeros((0, 2), np.int32)
NONE = np.zeros(0, np.int32)


def triangles(r_mv: float = 1.0, st_mv: float = 0.1) -> FloatArray:
    """A heart of triangles in all leads: an R wave 40 ms wide, then an ST level of 160 ms."""
    lead = np.zeros(5000)
    for at in BEAT_AT:
        lead[at - 10 : at + 11] += r_mv * (1 - np.abs(np.arange(-10, 11)) / 10)
        lead[at + 25 : at + 105] += st_mv
    return np.repeat(lead[None], 12, 0).astype(np.float32)


def scored(estimate_mv: FloatArray, truth_mv: FloatArray | None = None, **known: object) -> PageScore:
    truth = PageTruth(signal_mv=triangles() if truth_mv is None else truth_mv, **known)  # type: ignore[arg-type]
    return score_page(Path("scans/1.png"), truth, estimate_mv)


def of_all(*pages: PageScore) -> "tuple[list[float], ...]":
    heights = measured(leads_of(pages)["all"]).heights
    return (
        [h.median_error_uv for h in heights],
        [h.within_limits for h in heights],
        [h.bias_share for h in heights],
    )


def test_a_perfect_reading_has_no_error_at_every_beat() -> None:
    error, within, bias = of_all(scored(triangles() + 0.4))
    assert np.allclose(error, 0, atol=0.1) and within == [1, 1, 1] and np.allclose(bias, 0, atol=1e-3)
    assert measured(leads_of([scored(triangles())])["all"]).heights[0].beats == 12 * len(BEAT_AT)


def test_a_qrs_read_too_small_is_a_bias_of_its_size() -> None:
    """R waves of 1 mV read 8 % small: 80 uV off, beyond 50 uV; ST is as recorded."""
    error, within, bias = of_all(scored(triangles(r_mv=0.92)))
    assert error[:2] == pytest.approx([80, 80], abs=0.5) and error[2] == pytest.approx(0, abs=0.1)
    assert within == [0, 0, 1]
    assert bias[:2] == pytest.approx([-0.08, -0.08], abs=0.001)
    lost = [scored(triangles(r_mv=0.92))] * 3 + [scored(triangles(r_mv=0.0, st_mv=0.0))]
    qrs = measured(leads_of(lost)["all"]).heights[0]  # a page whose waves are all gone moves the mean, not the median
    assert qrs.median_bias_share == pytest.approx(-0.08, abs=0.001) and qrs.bias_share < -0.3
    _, within, bias = of_all(scored(triangles(r_mv=0.96)))  # 40 uV: within 5 %
    assert within[0] == 1 and bias[0] == pytest.approx(-0.04, abs=0.001)


def test_the_largest_deflection_has_a_sign_and_st_is_measured_from_the_level_before() -> None:
    error, within, _ = of_all(scored(triangles(st_mv=0.13)))
    assert error[2] == pytest.approx(30, abs=0.5) and within[2] == 0
    page = scored(-triangles(), -triangles())
    assert page.beats[next(iter(page.beats))].true_uv[0] == pytest.approx([1000, -1000, -100], abs=1)


def test_the_largest_deflection_of_a_reading_is_that_of_the_truth() -> None:
    """An S wave read a little deeper than the R wave, which is the taller one in truth, is not taken for it."""
    truth, read = triangles(), triangles()
    for at in BEAT_AT:
        truth[:, at + 12] = -0.98
        read[:, at + 12] = -1.02
    beats = scored(read, truth).beats
    assert all(one.read_uv[:, 1] == pytest.approx(1000, abs=1) for one in beats.values())


def test_what_was_not_read_is_beyond_the_limits_and_no_bias() -> None:
    half = triangles()
    half[:, 2500:] = np.nan
    (qrs, *_) = measured(leads_of([scored(half)])["all"]).heights
    assert qrs.within_limits == pytest.approx(np.mean(BEAT_AT < 2400), abs=0.05)
    assert qrs.bias_share == pytest.approx(0, abs=1e-3)
    lost = measured(leads_of([score_page(Path("a/1.png"), PageTruth(signal_mv=triangles()), None)])["all"])
    assert lost.heights[0].within_limits == 0 and np.isnan(lost.heights[0].bias_share) and np.isnan(lost.shift_ms[0])


def test_columns_printed_one_after_the_other_are_measured_where_they_are() -> None:
    truth = np.full((12, 5000), np.nan, np.float32)
    for row in range(12):
        column = np.s_[row, 1250 * (row // 3) : 1250 * (row // 3 + 1)]
        truth[column] = triangles()[column]
    page = scored(triangles(r_mv=0.9), truth)
    assert of_all(page)[2][0] == pytest.approx(-0.1, abs=0.002)
    assert all(1 <= len(beats.true_uv) <= 3 for beats in page.beats.values())


def test_a_late_reading_is_measured_at_its_own_beats_and_the_shift_is_reported() -> None:
    pages = [scored(np.roll(triangles(), shift, axis=1)) for shift in (2, -4)]
    assert np.allclose(of_all(*pages)[0], 0, atol=0.1)
    assert measured(leads_of(pages)["all"]).shift_ms == pytest.approx((-2, 6, 6))
    assert np.isnan(shift_figures([])).all() and shift_figures([1.0]) == (1, 1, 0)


def paced(height_mv: float = 1.0, width: int = 1) -> FloatArray:
    signal = triangles()
    for k in range(width):
        signal[:, BEAT_AT - 30 + k] += height_mv
    return signal


def test_spikes_are_found_by_height_and_sign() -> None:
    spikes = np.column_stack([BEAT_AT - 30, np.full(BEAT_AT.size, 1000)]).astype(np.int32)
    n = BEAT_AT.size
    assert count_spikes(paced()[0], spikes, NONE, 0) == SpikeCount(tall=n, tall_found=n)
    assert count_spikes(paced(0.6, width=2)[0], spikes, NONE, 0).tall_found == n
    assert count_spikes(paced(0.4)[0], spikes, NONE, 0).tall_found == 0
    assert count_spikes(paced(-1.0)[0], spikes, NONE, 0) == SpikeCount(tall=n)
    assert count_spikes(triangles()[0], spikes, NONE, 0) == SpikeCount(tall=n)
    assert count_spikes(np.full(5000, np.nan, np.float32), spikes, NONE, 0) == SpikeCount(tall=n)
    late = np.roll(paced()[0], 20)
    assert count_spikes(late, spikes, NONE, 20).tall_found == n
    assert count_spikes(late, spikes, NONE, 0) == SpikeCount(tall=n, invented=n)


def test_strokes_where_no_spike_is_are_invented() -> None:
    assert count_spikes(paced()[0], NO_SPIKES, NONE, 0) == SpikeCount(invented=BEAT_AT.size)
    assert count_spikes(triangles()[0], NO_SPIKES, NONE, 0) == SpikeCount()
    assert count_spikes(paced()[0], NO_SPIKES, BEAT_AT - 30, 0) == SpikeCount()  # the recording has them
    small = np.array([[270, 120]], np.int32)
    assert count_spikes(paced(0.12)[0], small, NONE, 0) == SpikeCount(small=1, small_found=1)


def test_spikes_that_no_list_names_are_found_in_the_recording() -> None:
    spikes = find_spikes(paced())
    assert len(spikes) == 12 * BEAT_AT.size and set(spikes[:, 2]) == {1000}
    assert not len(find_spikes(triangles()))
    page = scored(triangles(), paced())
    assert SpikeCount.total(page.spikes.values()) == SpikeCount(tall=12 * BEAT_AT.size)
    assert of_all(page)[0] == pytest.approx([0, 0, 0], abs=0.5)  # the spike is no part of the QRS


def test_tables_and_json_have_every_group(tmp_path: Path) -> None:
    pages = [scored(triangles(r_mv=0.9), family="tall"), scored(triangles(), paced(), family="paced")]
    text = printed(*tables(pages))
    for row in ("family tall", "family paced", "kind scans", "all", "-10.0", "144"):
        assert row in text, row
    known = json.loads(to_json(pages))
    assert set(known["groups"]) >= {"all", "kind scans", "family tall", "family paced", "V6"}
    tall = known["groups"]["family tall"]
    assert tall["heights"]["QRS peak to peak"]["bias_share"] == pytest.approx(-0.1, abs=0.002)
    assert known["groups"]["family paced"]["spikes"]["tall_found"] == 0
    lost = score_page(Path("scans/2.png"), PageTruth(signal_mv=triangles()), None)
    assert json.loads(to_json([lost]))["groups"]["all"]["shift_ms"]["mean"] is None
    assert figures(Beats.joined([]))[0].beats == 0


def test_an_archive_lists_its_spikes_and_families(tmp_path: Path) -> None:
    counts = np.rint(paced() * 1000).astype(np.int16)
    info = json.dumps([{"id": "1", "family": "paced"}])
    np.savez(tmp_path / "truth.npz", info=info, r1=counts, s1=np.array([[0, 270, 1000]], np.int32), r2=counts)
    truth = read_archive(tmp_path / "truth.npz")
    known = truth.records["1"]()
    assert known.family == "paced" and known.spikes is not None and known.spikes.tolist() == [[0, 270, 1000]]
    assert truth.records["2"]().spikes is None
