"""Pages without a grid: read at the scale that columns and pulses tell, and always with a person's look."""

import cv2
import numpy as np
import pytest
from drawn_pages import STANDARD, ecg_page

from pipeline import LEADS, PageImage
from pipeline.digitize import Digitizer
from pipeline.errors import DigitizationError
from pipeline.training.simulate import simulate_ecg


@pytest.fixture(scope="module")
def digitizer() -> Digitizer:
    return Digitizer.load(device="cpu")


def test_columns_give_the_scale_of_a_page_without_a_grid(digitizer: Digitizer) -> None:
    signal_mv = simulate_ecg(np.random.default_rng(4), disease="none")
    picture = ecg_page(signal_mv, grid=False).pixels
    height, width = picture.shape[:2]
    tilt = cv2.getRotationMatrix2D((width / 2, height / 2), 1.5, 0.7)
    tilted = cv2.warpAffine(picture, tilt, (width, height), flags=cv2.INTER_AREA, borderValue=(255, 255, 255))
    result = digitizer.digitize(PageImage(pixels=np.ascontiguousarray(tilted)))
    scale = result.rectified.grid_scale
    assert (scale.source, scale.score) == ("columns", 0.0)
    assert scale.px_per_mm_x == pytest.approx(0.7 * width / 297, rel=0.01)
    assert any("scale is taken from columns" in warning for warning in result.quality.warnings)
    assert result.layout_match.layout.name == STANDARD.name
    snr_db = []
    for leads in STANDARD.rows:
        for k, lead in enumerate(leads):
            told = signal_mv[LEADS.index(lead), 1250 * k : 1250 * (k + 1)]
            read = result.record.signal_mv[LEADS.index(lead), 1250 * k : 1250 * (k + 1)]
            error = np.nan_to_num(read - np.nanmean(read)) - (told - told.mean())
            snr_db.append(10 * np.log10(np.var(told) / np.mean(error**2)))
    assert np.mean(snr_db) > 12


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
