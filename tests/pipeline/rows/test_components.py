"""The paper's ink-to-lines conversion on drawn pages."""

import cv2
import numpy as np
import pytest

from pipeline.rows.components import ink_lines, rows_of_ink
from pipeline.training.drawing.style import PageStyle, training_layouts
from pipeline.training.drawing.synth import INK_PX_PER_MM, TRACE, draw_page
from pipeline.training.recordings.simulate import simulate_ecg

LAYOUTS = {layout.name: layout for layout, _ in training_layouts()}


@pytest.mark.parametrize("name", ["3x4+1R", "6x2", "6x1 chest", "3x1 limb"])
def test_lines_are_the_rows(name: str) -> None:
    rng = np.random.default_rng(1)
    page = draw_page(0.5 * simulate_ecg(rng), LAYOUTS[name], PageStyle(top_mm=20), rng)
    ink = cv2.resize((page.classes == TRACE).astype(np.float32), None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA)
    bands = rows_of_ink(ink_lines(ink), INK_PX_PER_MM * 0.4)
    assert len(bands) == LAYOUTS[name].n_rows
    for band, row in zip(bands, page.rows, strict=True):
        assert abs(band.baseline_mm - row.baseline_mm) < 0.5
        assert abs(band.x1_mm - row.segments[-1].x1_mm) < 2


def test_crossing_rows_are_snipped_apart() -> None:
    x = np.arange(600)
    ink = np.zeros((120, 600), np.float32)
    for base, wave in ((40, 24 * np.exp(-(((x - 300) / 6) ** 2))), (60, 0 * x)):
        for column, y in enumerate(np.rint(base + wave).astype(int)):
            ink[y - 1 : y + 2, column] = 1
    lines = ink_lines(ink)
    heights = sorted(float(np.nanmedian(line.y)) for line in lines)
    assert len(lines) == 2
    assert abs(heights[0] - 40) < 2 and abs(heights[1] - 60) < 2


def test_an_empty_map_has_no_lines() -> None:
    assert ink_lines(np.zeros((50, 50), np.float32)) == []
