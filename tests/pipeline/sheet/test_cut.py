"""The sheet as a person states it: every pixel of it is a pixel of the page, and the map says which."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from pipeline import GridScale, PageImage, RectifiedPage, parse_corrections
from pipeline.sheet.cut import cut_sheet, in_original
from pipeline.sheet.paper import apply_homography, page_to_paper, paper_to_page

RNG = np.random.default_rng(0)
PAGE = PageImage(pixels=RNG.integers(0, 255, (40, 60, 3), np.uint8), px_per_mm_hint=5.0)


def cut(page: PageImage = PAGE, **content: Any) -> tuple[PageImage, np.ndarray]:
    return cut_sheet(page, parse_corrections(content))


@pytest.mark.parametrize("quarter_turns", [0, 1, 2, 3])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("crop_px", [None, [5, 3, 25, 33]])
def test_every_pixel_is_the_page_s_own(quarter_turns: int, mirrored: bool, crop_px: list[int] | None) -> None:
    sheet, to_original = cut(quarter_turns=quarter_turns, mirrored=mirrored, crop_px=crop_px)
    height, width = sheet.pixels.shape[:2]
    assert {height, width} == ({40, 60} if crop_px is None else {30, 20})
    xy = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)
    x, y = np.moveaxis(np.round(apply_homography(to_original, xy)).astype(int), -1, 0)
    assert np.array_equal(sheet.pixels, PAGE.pixels[y, x])
    assert sheet.px_per_mm_hint == 5.0


def test_a_page_that_is_not_corrected_is_the_page_itself() -> None:
    sheet, to_original = cut(gain_mm_per_mv=5)
    assert sheet is PAGE and np.array_equal(to_original, np.eye(3))


def test_one_turn_is_counter_clockwise() -> None:
    sheet, _ = cut(quarter_turns=1)
    assert np.array_equal(sheet.pixels, np.rot90(PAGE.pixels))


def test_the_lines_of_a_drawing_turn_with_it() -> None:
    page = PageImage(pixels=PAGE.pixels, strokes=(np.array([[0.0, 0.0], [59.0, 0.0]]),))
    (stroke,) = cut(page, quarter_turns=1)[0].strokes
    assert stroke == pytest.approx(np.array([[0.0, 59.0], [0.0, 0.0]]))


def test_corners_become_a_rectangle() -> None:
    pixels = cv2.GaussianBlur(RNG.integers(0, 255, (300, 400, 3), np.uint8), (0, 0), 6)
    corners = [[30, 20], [360, 40], [380, 280], [20, 250]]
    sheet, to_original = cut(PageImage(pixels=pixels, px_per_mm_hint=5.0), corners_px=corners)
    height, width = sheet.pixels.shape[:2]
    assert (width, height) == pytest.approx((347, 237), abs=2)
    edges = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]])
    assert apply_homography(to_original, edges) == pytest.approx(np.array(corners), abs=1e-3)
    x, y = np.round(apply_homography(to_original, np.array([100.0, 50.0]))).astype(int)
    assert sheet.pixels[50, 100].astype(int) == pytest.approx(pixels[y, x].astype(int), abs=6)
    assert sheet.px_per_mm_hint is None


def test_a_part_without_an_ecg_becomes_paper() -> None:
    pixels = np.full((100, 100, 3), (250, 240, 230), np.uint8)
    pixels[10:30, 10:30] = 0
    sheet, _ = cut(PageImage(pixels=pixels), not_ecg_px=[[[5, 5], [35, 5], [35, 35], [5, 35]]])
    assert (sheet.pixels == (250, 240, 230)).all()
    assert pixels[20, 20, 0] == 0  # the page stays as it is


def test_paper_leads_to_the_page_as_it_came_in() -> None:
    page = PageImage(pixels=np.zeros((400, 600, 3), np.uint8))
    sheet, to_original = cut(page, quarter_turns=1, mirrored=True, crop_px=[50, 20, 550, 320])
    n_i, n_j = (side // 20 for side in sheet.pixels.shape[:2])
    nodes = np.stack(np.meshgrid(np.arange(n_j), np.arange(n_i)), -1) * 20.0
    flat = RectifiedPage(
        node_xy=nodes.astype(np.float32),
        node_mm=5.0,
        pixels=sheet.pixels,
        px_per_mm=4.0,
        grid_scale=GridScale(px_per_mm_x=4.0, px_per_mm_y=4.0, score=1.0, source="grid"),
        homography=np.diag([4.0, 4.0, 1.0]),
    )
    rectified = in_original(flat, to_original, 1)
    points = np.array([[10.0, 20.0], [33.3, 7.0]])
    expected = apply_homography(to_original, points * 4)
    assert paper_to_page(rectified, points) == pytest.approx(expected, abs=1e-3)
    assert page_to_paper(rectified, expected) == pytest.approx(points, abs=1e-3)
    assert rectified.quarter_turns == 1
    assert in_original(flat, np.eye(3)) is flat
