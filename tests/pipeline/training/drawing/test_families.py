"""Families of pages: what each is to show is drawn, its truth is known, and the usual page stays the most common."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.datatypes import LEADS, FloatArray
from pipeline.networks.specification import ROW_BINS, TRACE
from pipeline.training.drawing.augment import row_samples
from pipeline.training.drawing.carts import CARTS
from pipeline.training.drawing.families import FAMILIES, dress, family, random_families
from pipeline.training.drawing.render import render_pages
from pipeline.training.drawing.style import PageStyle, training_layouts
from pipeline.training.drawing.synth import GRID, TEXT, DrawnPage, draw_page, random_page
from pipeline.training.drawing.synth import TRACE as TRACE_INK
from pipeline.training.recordings.simulate import simulate_ecg

HEARTS = [simulate_ecg(np.random.default_rng(seed), disease="none") for seed in range(3)]
STANDARD = next(layout for layout, _ in training_layouts() if layout.name == "3x4+1R")


def pages(name: str, count: int = 6) -> list[DrawnPage]:
    return [random_page(HEARTS, np.random.default_rng([7, k]), (), family(name)) for k in range(count)]


def plain(spikes_mv: FloatArray | None = None, **style: object) -> DrawnPage:
    rng = np.random.default_rng(1)
    return draw_page(HEARTS[0], STANDARD, PageStyle(**style), rng, spikes_mv)  # type: ignore[arg-type]


def darkness_at(page: DrawnPage, x_mm: float, y_mm: float) -> float:
    """How much darker than the paper the darkest pixel around a point is."""
    i, j = round(y_mm * page.px_per_mm), round(x_mm * page.px_per_mm)
    around = page.pixels[max(i - 2, 0) : i + 3, max(j - 2, 0) : j + 3].max(2)
    return float(np.max(page.style.paper) - around.min())


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_can_be_drawn_and_says_so(name: str) -> None:
    for page in pages(name, 3):
        assert page.style.families == {name}
        assert page.pixels.shape[:2] == page.classes.shape
        assert (page.classes == TRACE_INK).any() and np.isfinite(page.signal_mv).any()
    assert all(not page.style.families and not page.spikes for page in pages("", 2))


def test_a_family_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"'slow' is no family of pages; there are carts, .*paced"):
        family("slow")
    assert [family("all", k) for k in (0, 1, len(FAMILIES))] == [{"carts"}, {"fine"}, {"carts"}]


def test_most_pages_are_as_usual_and_every_family_has_its_share() -> None:
    rng = np.random.default_rng(3)
    drawn = [random_families(rng) for _ in range(2000)]
    assert np.mean([not families for families in drawn]) > 0.45
    for name in FAMILIES:
        assert 0.06 < np.mean([name in families for families in drawn]) < 0.25, name


def test_spikes_are_printed_where_the_truth_has_them() -> None:
    found = 0
    for page in pages("paced"):
        for spike in page.spikes:
            row, lead, at = page.rows[spike.row], page.signal_mv[LEADS.index(spike.lead)], spike.sample
            assert abs(spike.height_mv) <= 3.05
            k = int(np.abs(row.x_mm - spike.x_mm).argmin())
            level = np.ptp(row.line_mm[max(k - 4, 0) : k + 5]) < 0.5  # not inside a QRS
            if abs(spike.height_mv) > 0.3 and level and spike.tip_mm > 2:
                found += 1
                assert lead[at] - lead[at - 1] == pytest.approx(spike.height_mv, rel=0.1, abs=0.06)
                assert abs(lead[at + 2] - lead[at - 1]) < 0.1
                assert darkness_at(page, spike.x_mm, (spike.foot_mm + spike.tip_mm) / 2) > 20
    assert found > 40


def test_a_spike_is_a_thin_stroke_out_and_back() -> None:
    spikes_mv = np.zeros((12, 5000), np.float32)
    spikes_mv[1, 3000] = 2.0
    page = plain(spikes_mv, spike_mm=0.2)
    (spike,) = page.spikes
    assert spike.row == 3 and spike.sample == 3000 and spike.height_mv == pytest.approx(2.0)
    assert spike.foot_mm - spike.tip_mm == pytest.approx(20.0)
    i = round((spike.tip_mm + 5) * page.px_per_mm)
    j = round(spike.x_mm * page.px_per_mm)
    across = page.classes[i, j - 20 : j + 20] == TRACE_INK
    assert 1 <= across.sum() <= 4  # 0.2 mm, not a wave
    row = page.rows[3]
    assert np.abs(row.y_mm - row.line_mm).max() == pytest.approx(20.0)
    assert (row.y_mm != row.line_mm).sum() == 1


def test_a_spike_is_drawn_as_wide_as_its_samples_last() -> None:
    widths_mm = []
    for samples in (1, 2):
        spikes_mv = np.zeros((12, 5000), np.float32)
        spikes_mv[1, 3000 : 3000 + samples] = 2.0
        quiet = {"spike_mm": 0.2, "grid_minor": 0.0, "grid_major": 0.0, "ink_px_per_mm": 20.0}
        page = plain(spikes_mv, **quiet)
        (spike,) = page.spikes
        ink = 1 - page.pixels[..., 0] / page.style.paper[0]
        row, column = round((spike.foot_mm + spike.tip_mm) / 2 * 20), round(spike.x_mm * 20)
        across = ink[row - 20 : row + 20, column - 20 : column + 20].mean(0) / (1 - page.style.ink[0] / 255)
        widths_mm.append(float(across.sum()) / 20)
        middle_mm = (float(across @ (np.arange(40) + 0.5)) / float(across.sum()) + column - 20) / 20
        assert middle_mm == pytest.approx(spike.x_mm, abs=0.01)
    assert widths_mm[1] - widths_mm[0] == pytest.approx(0.05, abs=0.005)  # a sample at 25 mm/s


def test_row_crops_carry_spikes_beside_the_line() -> None:
    spikes_mv = np.zeros((12, 5000), np.float32)
    spikes_mv[:, 100:4900:250] = 1.5
    page = plain(spikes_mv, spike_mm=0.3)
    samples = row_samples(page, 320, 30, np.random.default_rng(2))
    dark, heights = [], []
    for sample in samples:
        assert sample.spike_bin.shape == (*sample.y_bin.shape, 2)
        grey = sample.pixels.min(axis=2).astype(float)
        for column in np.flatnonzero(np.isfinite(sample.spike_bin[:, 0])):
            foot, tip = sample.spike_bin[column]
            heights.append((foot - tip) * TRACE.height_mm / ROW_BINS)
            if 4 <= column < len(sample.y_bin) - 4 and np.isfinite(sample.y_bin[column]):
                assert foot == pytest.approx(sample.y_bin[column], abs=3)
                row = round(((foot + tip) / 2 + 0.5) * grey.shape[0] / ROW_BINS)
                x = round((column + 0.5) * grey.shape[1] / len(sample.y_bin))
                dark.append(np.median(grey[row]) - grey[row, max(x - 2, 0) : x + 3].min())
    assert len(heights) > 30
    assert np.median(heights) == pytest.approx(15.0, abs=0.5)
    assert np.quantile(dark, 0.25) > 30


def test_tall_waves_are_tall_and_wander_wanders() -> None:
    usual = [np.nanmax(np.abs(page.signal_mv)) for page in pages("", 8)]
    tall = [np.nanmax(np.abs(page.signal_mv)) for page in pages("tall", 8)]
    assert np.median(tall) > 1.5 * np.median(usual) and max(tall) <= 6.6
    steepest = []
    for page in pages("wander", 4):
        for row in page.rows:
            level = np.array([np.median(part) for part in np.array_split(row.line_mm[np.isfinite(row.line_mm)], 20)])
            steepest.append(np.ptp(level))
    assert 5 < max(steepest) < 40


def test_crossing_rows_are_close_and_reach_into_each_other() -> None:
    crossed = 0
    for page in pages("crossing"):
        levels = np.array([row.baseline_mm for row in page.rows])
        assert np.diff(levels).mean() < 18
        highest = np.array([np.nanmin(row.y_mm) for row in page.rows])
        crossed += int((highest[1:] < levels[:-1]).any())
    assert crossed >= 3


def test_heavy_grids_are_as_dark_as_ink_and_marks_are_print() -> None:
    for page in pages("grid", 4):
        lines = page.pixels[page.classes == GRID].max(-1)
        assert np.quantile(lines, 0.02) < 235
        assert page.style.grid_major_mm >= 0.25
    marked = plain(marks="strokes", families=frozenset({"names"}))
    assert (marked.classes == TEXT).sum() > (plain(families=frozenset({"names"})).classes == TEXT).sum()


def test_a_copy_is_black_and_white_and_a_fine_page_fine() -> None:
    for page in pages("dashed", 3):
        assert set(np.unique(page.pixels)) <= {0, 255}
    for page in pages("fine", 2):
        assert page.px_per_mm == 20 and 0.1 <= page.style.stroke_mm <= 0.25
        coarse = page.coarse()
        assert coarse.px_per_mm == 10 and coarse.classes.shape[0] == pytest.approx(page.classes.shape[0] / 2, abs=1)
        assert coarse.coarse() is coarse


def test_thermal_ink_fades() -> None:
    ink = [np.mean(page.style.paper) - page.pixels[page.classes == TRACE_INK].mean() for page in pages("fade")]
    assert 20 < np.mean(ink) < 130


@pytest.mark.parametrize("cart", CARTS)
def test_every_cart_has_its_look(cart: str) -> None:
    rng = np.random.default_rng(4)
    style = CARTS[cart](PageStyle(), rng)
    assert style != PageStyle()
    assert len(draw_page(HEARTS[0], STANDARD, style, rng).rows) == 4


def test_families_dress_one_page_together() -> None:
    style = dress(PageStyle(), STANDARD, frozenset({"paced", "grid", "fine"}), np.random.default_rng(0))
    assert style.families == {"paced", "grid", "fine"}
    assert style.ink_px_per_mm == 20 and style.grid_major_mm >= 0.25 and style.spike_mm <= style.stroke_mm


def test_rendered_pages_state_family_and_spikes(tmp_path: Path) -> None:
    render_pages(HEARTS, tmp_path, count=1, kind="scan", seed=5, family="paced")
    with np.load(tmp_path / "truth.npz") as truth:
        (info,) = json.loads(str(truth["info"]))
        spikes, signal = truth["s0000"], truth["r0000"]
    assert info["family"] == "paced"
    assert spikes.shape[1] == 3 and len(spikes) > 5
    lead, sample, height = spikes[np.abs(spikes[:, 2]).argmax()]
    step = int(signal[lead, sample]) - int(signal[lead, sample - 1])
    assert step == pytest.approx(height, rel=0.3)
