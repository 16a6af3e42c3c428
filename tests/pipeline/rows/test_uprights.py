import numpy as np
import pytest

from pipeline import PageImage
from pipeline.datatypes import ByteArray
from pipeline.rows.uprights import upright_lines, without_lines
from pipeline.sheet.paper import Sheet
from tests.pipeline.paper_samples import blank_map, digitization

PX_PER_MM = 10.0
PAPER, LINE, INK = (235, 235, 230), (190, 110, 110), (40, 40, 45)
X_MM = 20.0 + (np.arange(600) + 0.5) / PX_PER_MM  # 60 mm
Y_MM = 30.0 + (np.arange(480) + 0.5) / 8.0


def lines(page: ByteArray) -> None:
    """Draw lines 0.2 mm wide every 5 mm, both ways."""
    for axis in (0, 1):
        for at in range(0, page.shape[axis], 50):
            page[(slice(None), slice(at, at + 2))[:: 1 if axis else -1]] = LINE


def sheet(*, grid: bool, stroke_mm: float | None = None, tall_mm: tuple[float, ...] = (55.0, 75.0)) -> Sheet:
    """A sheet seen straight; a wave's stroke, 0.3 mm wide, at one paper x."""
    sample = digitization(PX_PER_MM)
    page = np.full((1300, 2900, 3), PAPER, np.uint8)
    if grid:
        lines(page)
    if stroke_mm is not None:
        left = round(stroke_mm * PX_PER_MM)
        for top, end in zip(tall_mm[::2], tall_mm[1::2], strict=True):
            page[round(top * PX_PER_MM) : round(end * PX_PER_MM), left : left + 3] = INK
    return Sheet(page=PageImage(pixels=page, page_number=1), segmentation=blank_map(), rectified=sample.rectified)


def bare(seen: Sheet) -> tuple[ByteArray, ByteArray]:
    strip = seen.pixels(X_MM, Y_MM)[None]
    return strip[0], without_lines(strip, upright_lines(strip))[0]


def test_upright_lines_go_and_level_ones_stay() -> None:
    before, after = bare(sheet(grid=True))
    clear = slice(24, 36)  # 33 to 34.4 mm: between two level lines
    assert before[clear, :, 1].min() < 150
    assert after[clear, :, 1].min() > 215
    level = round((35.05 - 30.0) * 8 - 0.5)
    assert np.abs(after[level].astype(int) - before[level]).max(1).mean() < 12


@pytest.mark.parametrize("beside_mm", [0.0, 0.1, 0.2, 1.0])
def test_a_stroke_beside_a_line_stays_and_looks_as_it_does_without_the_line(beside_mm: float) -> None:
    lined, after = bare(sheet(grid=True, stroke_mm=45.0 + beside_mm))
    _, plain = bare(sheet(grid=False, stroke_mm=45.0 + beside_mm))
    rows = slice(206, 233)  # 55.8 to 59.1 mm: on the stroke, between level lines
    x = np.arange(600)

    def centre(strip: ByteArray) -> float:
        dark = np.clip(220.0 - strip[rows, :, 1].mean(0), 0, None) * (np.abs(x - 250 - 10 * beside_mm) < 8)
        return float((dark * x).sum() / dark.sum())

    assert abs(centre(after) - centre(plain)) < 0.12
    if 0 < beside_mm < 0.5:
        assert abs(centre(lined) - centre(plain)) > 2 * abs(centre(after) - centre(plain))


def test_waves_one_above_the_other_are_no_line() -> None:
    seen = sheet(grid=False, stroke_mm=45.0, tall_mm=(30.0, 40.0, 50.0, 60.0, 70.0, 80.0))
    before, after = bare(seen)
    assert np.array_equal(before, after)


@pytest.mark.parametrize("grid", [False, True])
@pytest.mark.parametrize("at_mm", [45.0, 46.3])
def test_pacing_spikes_at_one_place_in_every_row_are_no_line(grid: bool, at_mm: float) -> None:
    spikes = tuple(edge for top in range(30, 90, 12) for edge in (top, top + 10.0))  # more than 80 % of the height
    before, after = bare(sheet(grid=grid, stroke_mm=at_mm, tall_mm=spikes))
    column = round((at_mm + 0.15 - 20.0) * PX_PER_MM - 0.5)
    rows = slice(26, 34)  # on the first spike, between level lines
    assert after[rows, column].max() < before[rows, column].max() + 12 < 80


def test_strips_without_lines_are_left_alone() -> None:
    seen = sheet(grid=False)
    strip = seen.pixels(X_MM, Y_MM)[None]
    assert without_lines(strip, upright_lines(strip)) is strip
