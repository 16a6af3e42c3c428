"""The generator: what it says is drawn is drawn, and the truth follows every geometric step."""

import cv2
import numpy as np
import pytest

from pipeline.networks.specification import ROW_BINS
from pipeline.training.drawing.augment import (
    bend_sample,
    finger,
    label_samples,
    layout_sample,
    page_samples,
    row_samples,
)
from pipeline.training.drawing.style import PageStyle, random_style, training_layouts
from pipeline.training.drawing.synth import (
    INK_PX_PER_MM,
    TRACE,
    DrawnPage,
    draw_page,
    random_page,
    system_fonts,
    text_mask,
)
from pipeline.training.recordings.simulate import simulate_ecg


@pytest.fixture(scope="module")
def page() -> DrawnPage:
    rng = np.random.default_rng(5)
    layout = next(layout for layout, _ in training_layouts() if layout.name == "3x4+1R")
    return draw_page(simulate_ecg(rng), layout, PageStyle(), rng)


def test_rows_run_where_the_trace_is_painted(page: DrawnPage) -> None:
    for row in page.rows:
        there = np.isfinite(row.y_mm)
        i = np.clip((row.y_mm[there] * INK_PX_PER_MM).astype(int), 0, page.classes.shape[0] - 1)
        j = np.clip((row.x_mm[there] * INK_PX_PER_MM).astype(int), 0, page.classes.shape[1] - 1)
        assert (page.classes[i, j] == TRACE).mean() > 0.98


def test_signal_is_what_the_rows_show(page: DrawnPage) -> None:
    rhythm = page.rows[-1]
    lead_2 = page.signal_mv[1]
    drawn = (rhythm.y_mm[0] - rhythm.y_mm) / page.calibration.gain_mm_per_mv
    n = min(len(drawn), 5000)
    assert np.allclose(drawn[:n] - drawn[0], lead_2[:n] - lead_2[0], atol=1e-3)
    assert np.isfinite(page.signal_mv[6]).sum() == 1250  # V1 is printed for 2.5 s


def test_same_seed_same_page() -> None:
    def make() -> DrawnPage:
        rng = np.random.default_rng(9)
        return random_page([simulate_ecg(rng) for _ in range(2)], rng, ())

    first, second = make(), make()
    assert np.array_equal(first.pixels, second.pixels)
    assert np.array_equal(first.signal_mv, second.signal_mv, equal_nan=True)


def test_every_layout_can_be_drawn() -> None:
    rng = np.random.default_rng(2)
    signal = simulate_ecg(rng)
    for layout, _ in training_layouts():
        drawn = draw_page(signal, layout, PageStyle(), rng)
        assert len(drawn.rows) == layout.n_rows, layout.name
        assert {label.lead for label in drawn.labels} >= set(layout.leads), layout.name


def test_row_crops_carry_the_centre_line(page: DrawnPage) -> None:
    """In crops with black ink on white paper the truth lies on dark pixels, whatever the warp and rotation."""
    rng = np.random.default_rng(11)
    darkness = []
    for sample in row_samples(page, 320, 24, rng):
        columns = np.flatnonzero(np.isfinite(sample.y_bin))
        if columns.size < 100:
            continue
        grey = sample.pixels.min(axis=2)
        y = np.clip(np.rint((sample.y_bin[columns] + 0.5) * 2 - 0.5).astype(int), 0, 2 * ROW_BINS - 1)
        on, off = grey[y, columns // 2], grey[np.clip(y + 30, 0, 2 * ROW_BINS - 1), columns // 2]
        darkness.append(np.median(off.astype(float)) - np.median(on.astype(float)))
    assert len(darkness) > 15
    assert np.quantile(darkness, 0.2) > 40


def test_bend_crops_know_where_the_grid_went() -> None:
    """Paper that the truth says lies on a 5 mm line is darker than paper between, whichever way up the crop is."""
    rng = np.random.default_rng(6)
    style = PageStyle(grid_phase=(1.7, 3.2), grid_minor=0.0, grid_major_mm=0.4, grid_colour=(60.0, 60.0, 60.0))
    layout = next(layout for layout, _ in training_layouts() if layout.name == "3x4")
    ruled = draw_page(np.zeros((12, 5000), np.float32), layout, style, rng)
    contrast, moved = [], []
    for _ in range(16):
        sample = bend_sample(ruled, 256, rng)
        at = (np.arange(256) + 0.5) / 8
        shift = cv2.resize(sample.shift_mm, (256, 256), interpolation=cv2.INTER_LINEAR)
        off = [np.abs((place + 2.5) % 5 - 2.5) for place in (at[None] + shift[..., 0], at[:, None] + shift[..., 1])]
        grey = sample.pixels.mean(2)
        between = grey[(off[0] > 1) & (off[1] > 1)].mean()
        contrast.append(between - max(grey[(off[k] < 0.1) & (off[1 - k] > 1)].mean() for k in (0, 1)))
        moved.append(np.abs(sample.shift_mm).max())
    assert np.median(contrast) > 30 and np.quantile(contrast, 0.1) > 5
    assert max(moved) > 0.5


def test_page_and_layout_crops_have_their_truth(page: DrawnPage) -> None:
    rng = np.random.default_rng(3)
    shares = np.stack([s.classes for s in page_samples(page, 128, 12, rng)])
    assert shares.shape == (12, 128, 128, 3)
    assert (shares.reshape(-1, 3).max(0) > 200).all()
    layouts = [layout_sample(page, 192, rng) for _ in range(12)]
    assert any((s.bands[..., 2] > 200).any() and (s.bands[..., 0] > 200).any() for s in layouts)


def test_a_finger_reaches_in_from_a_side() -> None:
    rng = np.random.default_rng(8)
    for _ in range(8):
        hidden = finger(256, 8.0, rng)
        rim = np.concatenate([hidden[0], hidden[-1], hidden[:, 0], hidden[:, -1]])
        assert hidden.min() == 0 and hidden.max() > 0.99 and rim.max() > 0.9


def test_label_windows_show_their_name(page: DrawnPage) -> None:
    """A window with a name holds more ink around its centre than the paper has on average."""
    rng = np.random.default_rng(4)
    samples = [s for _ in range(10) for s in label_samples(page, rng)]
    assert {s.lead for s in samples} == set(range(13))
    named = [s.pixels[12:36, 24:72].astype(float).std() for s in samples if s.lead]
    assert np.median(named) > 20


def test_a_gain_of_their_own_for_the_chest_leads_is_always_stated() -> None:
    rng = np.random.default_rng(5)
    layout = training_layouts()[0][0]
    styles = [random_style(rng, layout, ()) for _ in range(300)]
    assert any(style.footer == "none" for style in styles)
    assert {style.footer for style in styles if style.chest_gain != 1} == {"bottom", "top"}


def test_no_lead_is_printed_far_off_its_row() -> None:
    rng = np.random.default_rng(6)
    signal = simulate_ecg(rng)
    signal[1] += 2.5
    drawn = draw_page(signal, training_layouts()[0][0], PageStyle(), rng)
    levels = np.nanmedian(drawn.signal_mv, axis=1)
    assert np.abs(levels[np.isfinite(levels)]).max() < 0.5


def test_no_font_prints_all_letters_as_one_box() -> None:
    """Icon fonts do: nobody could read the lead names of such a page."""
    for font in ("", *system_fonts()):
        assert len({text_mask(letter, 3.0, font).tobytes() for letter in "IVaRLF"}) == 6, font
