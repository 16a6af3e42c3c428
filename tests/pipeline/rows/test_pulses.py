"""How wide the tops of calibration pulses are, whatever feet they stand on."""

import cv2
import numpy as np
import pytest

from pipeline import GridScale, PageImage, RectifiedPage, SegmentationMap
from pipeline.datatypes import PrintedMarks, PulseBox
from pipeline.rows.marks import apart, measure_pulses
from pipeline.sheet.paper import Sheet

PX_PER_MM = 6.0


def drawn(*points_mm: tuple[float, float]) -> Sheet:
    """The sheet of a page of 60 x 40 mm, with one line on its text map."""
    ink = np.zeros((round(40 * PX_PER_MM), round(60 * PX_PER_MM)), np.uint8)
    points = np.round((np.array(points_mm) * PX_PER_MM - 0.5) * 16).astype(np.int32)
    cv2.polylines(ink, [points], False, 255, 2, cv2.LINE_AA, shift=4)
    nothing = np.zeros(ink.shape, np.float32)
    maps = SegmentationMap(grid=nothing, trace=nothing, text=(ink / 255).astype(np.float32), scale=1.0)
    page = PageImage(pixels=np.full((*ink.shape, 3), 255, np.uint8))
    return Sheet(page=page, segmentation=maps, rectified=rectified())


def rectified() -> RectifiedPage:
    i, j = np.mgrid[0:9, 0:13]
    return RectifiedPage(
        node_xy=np.stack([j * 5 * PX_PER_MM - 0.5, i * 5 * PX_PER_MM - 0.5], -1).astype(np.float32),
        node_mm=5.0,
        pixels=np.full((160, 240, 3), 255, np.uint8),
        px_per_mm=4.0,
        grid_scale=GridScale(px_per_mm_x=PX_PER_MM, px_per_mm_y=PX_PER_MM, score=1.0, source="grid"),
        homography=np.diag([PX_PER_MM, PX_PER_MM, 1.0]),
    )


def box(x0_mm: float, x1_mm: float) -> PrintedMarks:
    return PrintedMarks(rows=(), pulses=(PulseBox(x0_mm=x0_mm, x1_mm=x1_mm, y0_mm=10.0, y1_mm=20.0),))


@pytest.mark.parametrize("foot_mm", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("top_mm", [2.0, 2.5, 5.0, 10.0])
def test_the_top_is_measured_without_the_feet(top_mm: float, foot_mm: float) -> None:
    left, right = 10.0 + foot_mm, 10.0 + foot_mm + top_mm
    line = drawn((10.0, 20.0), (left, 20.0), (left, 10.0), (right, 10.0), (right, 20.0), (right + foot_mm, 20.0))
    (pulse,) = measure_pulses(line, box(9.8, right + foot_mm + 0.2)).pulses
    assert pulse.top_mm == pytest.approx(top_mm, abs=0.2)
    assert (pulse.x0_mm, pulse.y1_mm) == (9.8, 20.0)


def test_half_a_pulse_has_no_width() -> None:
    line = drawn((0.0, 10.0), (12.0, 10.0), (12.0, 20.0), (30.0, 20.0))
    (pulse,) = measure_pulses(line, box(6.0, 13.0)).pulses
    assert pulse.top_mm is None


def test_what_stands_upright_beside_a_pulse_is_not_its_flank() -> None:
    seen = drawn((10, 20), (12, 20), (12, 10), (17, 10), (17, 20), (19, 20), (19, 12), (19.2, 12), (19.2, 20), (40, 20))
    (pulse,) = measure_pulses(seen, box(10.0, 19.5)).pulses
    assert pulse.top_mm == pytest.approx(5.0, abs=0.3)


def test_pulses_of_close_rows_are_taken_apart() -> None:
    stacked = PulseBox(x0_mm=5.0, x1_mm=13.0, y0_mm=10.0, y1_mm=43.0)
    single = PulseBox(x0_mm=5.0, x1_mm=13.0, y0_mm=60.0, y1_mm=70.5)
    boxes = apart([stacked, single], [20.5, 31.7, 43.2, 70.4])
    assert [box.y1_mm for box in boxes] == [20.5, 31.7, 43.0, 70.5]
    assert [box.y1_mm - box.y0_mm for box in boxes] == pytest.approx([10.5] * 4)
    assert apart([single], [66.8, 70.0]) == [single]  # no room for another
