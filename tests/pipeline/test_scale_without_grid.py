"""Pages whose grid does not tell the scale: columns and pulses do, or the size of the lead names."""

import cv2
import numpy as np
import pytest
from drawn_pages import STANDARD, ecg_page

from pipeline import LEADS, Digitization, PageImage
from pipeline.datatypes import FloatArray
from pipeline.digitize import Digitizer
from pipeline.errors import DigitizationError
from pipeline.training.simulate import simulate_ecg


@pytest.fixture(scope="module")
def digitizer() -> Digitizer:
    return Digitizer.load(device="cpu")


def mean_snr_db(signal_mv: FloatArray, result: Digitization) -> float:
    snr_db = []
    for leads in STANDARD.rows:
        for k, lead in enumerate(leads):
            told = signal_mv[LEADS.index(lead), 1250 * k : 1250 * (k + 1)]
            read = result.record.signal_mv[LEADS.index(lead), 1250 * k : 1250 * (k + 1)]
            error = np.nan_to_num(read - np.nanmean(read)) - (told - told.mean())
            snr_db.append(10 * np.log10(np.var(told) / np.mean(error**2)))
    return float(np.mean(snr_db))


def test_columns_give_the_scale_of_a_page_without_a_grid(digitizer: Digitizer) -> None:
    signal_mv = simulate_ecg(np.random.default_rng(4), disease="none")
    picture = ecg_page(signal_mv, lines_mm=()).pixels
    height, width = picture.shape[:2]
    tilt = cv2.getRotationMatrix2D((width / 2, height / 2), 1.5, 0.7)
    tilted = cv2.warpAffine(picture, tilt, (width, height), flags=cv2.INTER_AREA, borderValue=(255, 255, 255))
    result = digitizer.digitize(PageImage(pixels=np.ascontiguousarray(tilted)))
    scale = result.rectified.grid_scale
    assert (scale.source, scale.score) == ("columns", 0.0)
    assert scale.px_per_mm_x == pytest.approx(0.7 * width / 297, rel=0.01)
    assert any("scale is taken from columns" in warning for warning in result.quality.warnings)
    assert result.layout_match.layout.name == STANDARD.name
    assert mean_snr_db(signal_mv, result) > 12


def test_lines_of_5_mm_do_not_pass_for_lines_of_1_mm_on_a_long_sheet(digitizer: Digitizer) -> None:
    signal_mv = simulate_ecg(np.random.default_rng(4), disease="none")
    picture = ecg_page(signal_mv, speed=50.0, lines_mm=(5,)).pixels
    small = cv2.resize(picture, None, fx=0.45, fy=0.45, interpolation=cv2.INTER_AREA)
    result = digitizer.digitize(PageImage(pixels=small))
    assert result.rectified.grid_scale.px_per_mm_x == pytest.approx(small.shape[1] / 547, rel=0.01)
    assert result.record.calibration.paper_speed_mm_per_s == 50.0
    assert mean_snr_db(signal_mv, result) > 15


def test_curves_without_grid_and_lead_names_are_no_ecg(digitizer: Digitizer) -> None:
    rng = np.random.default_rng(1)
    pixels = np.full((1200, 1600, 3), 255, np.uint8)
    x = np.arange(1400)
    for row in range(3):
        y = 200 + 400 * row + 100 * np.sin(x / 60 * (row + 1)) + rng.normal(0, 5, x.size)
        cv2.polylines(pixels, [np.column_stack([x + 100, y]).astype(np.int32)], False, (30, 30, 200), 3, cv2.LINE_AA)
    cv2.line(pixels, (100, 50), (100, 1150), (0, 0, 0), 2)
    with pytest.raises(DigitizationError, match=r"few lead names|no lead name"):
        digitizer.digitize(PageImage(pixels=pixels))
