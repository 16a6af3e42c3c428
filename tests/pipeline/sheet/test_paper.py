"""A sheet shows the page's pixels and the page network's maps at the same paper points."""

from __future__ import annotations

import numpy as np

from pipeline import GridScale, PageImage, RectifiedPage, SegmentationMap
from pipeline.sheet.paper import Sheet

PX_PER_MM = 8.0


def sheet() -> Sheet:
    """A page of 80 x 40 mm seen straight; a black square of 10 mm at (20, 10) mm, which the network calls trace."""
    pixels = np.full((320, 640, 3), 200, np.uint8)
    pixels[80:160, 160:240] = 0
    trace = np.zeros((160, 320), np.float32)  # the maps have half the page's resolution
    trace[40:80, 80:120] = 1.0
    nothing = np.zeros_like(trace)
    j, i = np.meshgrid(np.arange(17), np.arange(9))
    return Sheet(
        page=PageImage(pixels=pixels),
        segmentation=SegmentationMap(grid=nothing, trace=trace, text=nothing, scale=0.5),
        rectified=RectifiedPage(
            node_xy=(np.stack([j, i], -1) * 5 * PX_PER_MM - 0.5).astype(np.float32),
            node_mm=5.0,
            pixels=np.zeros((160, 320, 3), np.uint8),
            px_per_mm=4.0,
            grid_scale=GridScale(px_per_mm_x=PX_PER_MM, px_per_mm_y=PX_PER_MM, score=1.0, source="grid"),
            homography=np.diag([PX_PER_MM, PX_PER_MM, 1.0]),
        ),
    )


def test_pixels_and_ink_are_sampled_at_the_same_place() -> None:
    x_mm, y_mm = np.arange(15.25, 35.0, 0.5), np.arange(5.25, 25.0, 0.5)
    seen = sheet()
    inside = (np.abs(x_mm - 25) < 5)[None] & (np.abs(y_mm - 15) < 5)[:, None]
    edge = (np.abs(np.abs(x_mm - 25) - 5) < 0.5)[None] | (np.abs(np.abs(y_mm - 15) - 5) < 0.5)[:, None]
    dark = seen.pixels(x_mm, y_mm)[..., 0] < 100
    ink = seen.ink(x_mm, y_mm)
    assert np.array_equal(dark[~edge], inside[~edge])
    assert np.array_equal((ink[..., 1] > 127)[~edge], inside[~edge])
    assert not ink[..., 0].any() and not ink[..., 2].any()


def test_outside_the_picture_is_white_paper_without_ink() -> None:
    x_mm, y_mm = np.arange(100.0, 110.0, 0.5), np.arange(0.0, 10.0, 0.5)
    assert (sheet().pixels(x_mm, y_mm) == 255).all()
    assert not sheet().ink(x_mm, y_mm).any()


def test_a_canvas_covers_the_whole_sheet() -> None:
    canvas = sheet().canvas(2.0)
    assert canvas.shape == (80, 160, 3)
    assert (canvas[21:39, 41:59] == 0).all() and (canvas[:, 62:] == 200).all()
