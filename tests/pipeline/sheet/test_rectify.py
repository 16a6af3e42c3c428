"""Sheets drawn through known maps: the lattice must find its way back, to a tenth of a millimetre."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from pipeline.datatypes import PageImage, RectifiedPage, SegmentationMap
from pipeline.errors import GridNotFound
from pipeline.sheet.paper import lean_back, page_to_paper, paper_to_page, rescale, turn
from pipeline.sheet.rectify import rectify
from tests.pipeline.paper_samples import digitization

Array = npt.NDArray[np.float64]
SHEET_MM = (160.0, 110.0)
SIZE = (800, 620)
PX_PER_MM = 4.0


def sheet_map(
    degrees: float = 0.0, perspective: tuple[float, float] = (0.0, 0.0), sagitta_mm: tuple[float, float] = (0.0, 0.0)
) -> Callable[[Array], Array]:
    """Paper mm (..., 2) -> page px: curl by `sagitta_mm`, then rotation, then perspective."""
    centre, angle = np.array(SHEET_MM) / 2, np.deg2rad(degrees)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])

    def to_page(paper: Array) -> Array:
        mm = paper - centre
        u = mm / centre
        mm = mm + np.stack([sagitta_mm[0] * (1 - u[..., 1] ** 2), sagitta_mm[1] * (1 - u[..., 0] ** 2)], axis=-1)
        mm = mm @ rotation
        depth = 1 + mm @ np.array(perspective) / SHEET_MM[0]
        return PX_PER_MM * mm / depth[..., None] + (np.array(SIZE) - 1) / 2

    return to_page


def invert(to_page: Callable[[Array], Array], pixels: Array, start: Array, steps: int = 20) -> Array:
    """Paper mm of page pixels (n, 2) by Newton's method."""
    paper = start.copy()
    for _ in range(steps):
        miss = pixels - to_page(paper)
        along, down = ((to_page(paper + step) - to_page(paper)) / 1e-3 for step in ([1e-3, 0.0], [0.0, 1e-3]))
        determinant = along[:, 0] * down[:, 1] - along[:, 1] * down[:, 0]
        step_x = (miss[:, 0] * down[:, 1] - miss[:, 1] * down[:, 0]) / determinant
        step_y = (along[:, 0] * miss[:, 1] - along[:, 1] * miss[:, 0]) / determinant
        paper = paper + np.clip(np.stack([step_x, step_y], axis=-1), -20, 20)
    return paper


def draw(
    to_page: Callable[[Array], Array],
    degrees: float,
    *,
    major: float = 1.0,
    minor: float = 0.5,
    noise: float = 0.1,
    level: float = 0.0,
) -> SegmentationMap:
    """Grid and four rows of beats on a sheet seen through `to_page`, at one map pixel per page pixel."""
    x, y = np.meshgrid(np.arange(SIZE[0], dtype=float), np.arange(SIZE[1], dtype=float))
    pixels = np.stack([x, y], axis=-1).reshape(-1, 2)
    angle = np.deg2rad(degrees)
    back = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    start = (pixels - (np.array(SIZE) - 1) / 2) / PX_PER_MM @ back + np.array(SHEET_MM) / 2
    paper = invert(to_page, pixels, start, steps=6).reshape(SIZE[1], SIZE[0], 2)
    inside = np.all((paper > -0.3) & (paper < np.array(SHEET_MM) + 0.3), axis=-1)

    def lines(period: float, width: float) -> Array:
        distance = paper - np.round(paper / period) * period
        return np.exp(-0.5 * (distance / width) ** 2).max(axis=-1)

    grid = np.maximum(major * lines(5.0, 0.16), minor * lines(1.0, 0.12)) * inside
    beat = (paper[..., 0] + 3) % 20 - 10
    rows = [22.0 + 22 * k - 7 * np.exp(-0.5 * (beat / 0.7) ** 2) for k in range(4)]
    width = 0.35 + 1.5 * np.exp(-0.5 * (beat / 1.2) ** 2)
    across = (paper[..., 0] > 8) & (paper[..., 0] < SHEET_MM[0] - 8)
    trace = np.any([np.abs(paper[..., 1] - row) < width for row in rows], axis=0) & across
    grid = np.where(trace, 0.0, level + grid) + noise * np.random.default_rng(7).normal(size=grid.shape)
    return SegmentationMap(
        grid=np.clip(grid, 0, 1).astype(np.float32),
        trace=trace.astype(np.float32),
        text=np.zeros(grid.shape, np.float32),
        scale=1.0,
    )


def as_page(segmentation: SegmentationMap, px_per_mm_hint: float | None = None) -> PageImage:
    grey = (255 * (1 - np.maximum(segmentation.grid, segmentation.trace))).astype(np.uint8)
    return PageImage(pixels=np.repeat(grey[..., None], 3, axis=2), px_per_mm_hint=px_per_mm_hint)


def true_paper(rectified: RectifiedPage, to_page: Callable[[Array], Array]) -> tuple[Array, Array]:
    """Nodes on the sheet: their paper mm in the result's frame, and where they truly lie on the drawn sheet."""
    corner = np.stack(np.meshgrid(np.arange(-20, SHEET_MM[0] + 21, 2.0), np.arange(-20, SHEET_MM[1] + 21, 2.0)), -1)
    corner = corner.reshape(-1, 2)
    seen = to_page(corner)
    pixels = rectified.node_xy.reshape(-1, 2).astype(np.float64)
    nearest = ((pixels[:, None] - seen) ** 2).sum(-1).argmin(axis=1)
    truth = invert(to_page, pixels, corner[nearest])
    j, i = np.meshgrid(np.arange(rectified.node_xy.shape[1]), np.arange(rectified.node_xy.shape[0]))
    nodes = np.stack([j, i], axis=-1).reshape(-1, 2) * rectified.node_mm
    on_sheet = np.all((truth > 0) & (truth < np.array(SHEET_MM)), axis=-1)
    return nodes[on_sheet], truth[on_sheet]


def rms_mm(rectified: RectifiedPage, to_page: Callable[[Array], Array], grid_mm: float = 5.0) -> float:
    """Root mean square error over the sheet, after the best half turn and shift by whole grid lines."""
    nodes, truth = true_paper(rectified, to_page)
    errors = []
    for sign in (1, -1):
        offset = np.median(truth - sign * nodes, axis=0)
        miss = truth - sign * nodes - np.round(offset / grid_mm) * grid_mm
        errors.append(float(np.sqrt(np.mean(np.sum(miss**2, axis=-1)))))
    return min(errors)


@pytest.mark.parametrize("degrees", [0.0, 7.0, 38.0, 90.0, 171.0, -95.0])
def test_flat_sheet_at_any_angle(degrees: float) -> None:
    to_page = sheet_map(degrees)
    segmentation = draw(to_page, degrees)
    rectified = rectify(as_page(segmentation), segmentation).rectified
    assert rms_mm(rectified, to_page) < 0.05
    assert rectified.grid_scale.px_per_mm_x == pytest.approx(PX_PER_MM, rel=0.005)
    assert rectified.grid_scale.px_per_mm_y == pytest.approx(PX_PER_MM, rel=0.005)
    assert rectified.grid_scale.source == "grid"


@pytest.mark.parametrize("perspective", [(0.2, 0.0), (0.1, -0.2)])
def test_perspective(perspective: tuple[float, float]) -> None:
    to_page = sheet_map(12.0, perspective)
    segmentation = draw(to_page, 12.0)
    assert rms_mm(rectify(as_page(segmentation), segmentation).rectified, to_page) < 0.1


@pytest.mark.parametrize(("major", "minor"), [(1.0, 0.5), (1.0, 0.0)], ids=["both", "major lines only"])
def test_bent_sheet(major: float, minor: float) -> None:
    to_page = sheet_map(-8.0, (0.1, 0.1), (3.0, 6.0))
    segmentation = draw(to_page, -8.0, major=major, minor=minor)
    rectified = rectify(as_page(segmentation), segmentation).rectified
    assert rms_mm(rectified, to_page) < 0.2


def test_minor_lines_only() -> None:
    to_page = sheet_map(5.0, (0.1, 0.0))
    segmentation = draw(to_page, 5.0, major=0.0, minor=0.8)
    assert rms_mm(rectify(as_page(segmentation), segmentation).rectified, to_page, grid_mm=1.0) < 0.1


def test_bold_traces_do_not_outweigh_a_faint_grid() -> None:
    to_page = sheet_map(2.0, (0.05, 0.02), (4.0, 3.0))
    segmentation = draw(to_page, 2.0, major=0.12, minor=0.05, noise=0.04, level=0.5)
    assert rms_mm(rectify(as_page(segmentation), segmentation).rectified, to_page) < 0.1


def test_part_without_grid_follows_its_neighbours() -> None:
    to_page = sheet_map(10.0, sagitta_mm=(0.0, 3.0))
    segmentation = draw(to_page, 10.0)
    segmentation.grid[200:330, 300:480] = 0.0
    assert rms_mm(rectify(as_page(segmentation), segmentation).rectified, to_page) < 0.3


def test_flat_sheet_stays_flat_where_false_lines_stand() -> None:
    to_page = sheet_map(0.0)
    segmentation = draw(to_page, 0.0)
    corner = segmentation.grid[90:220, 80:240]
    corner[:] = 0.3 * cv2.resize(corner[:, :150], (160, 130))  # a faint haze of lines 7 % too far apart
    assert rms_mm(rectify(as_page(segmentation), segmentation).rectified, to_page) < 0.05


def test_flat_sheet_is_flat_beyond_its_grid() -> None:
    to_page = sheet_map(3.0)
    segmentation = draw(to_page, 3.0)
    segmentation.grid[:, :180] = 0.0
    assert rms_mm(rectify(as_page(segmentation), segmentation).rectified, to_page) < 0.05


def test_traces_run_across_after_a_quarter_turn() -> None:
    to_page = sheet_map(90.0)
    segmentation = draw(to_page, 90.0)
    rectified = rectify(as_page(segmentation), segmentation).rectified
    nodes, truth = true_paper(rectified, to_page)
    assert np.corrcoef(nodes[:, 0], truth[:, 0])[0, 1] ** 2 > 0.99


def test_canvas_covers_the_sheet_and_not_the_desk() -> None:
    to_page = sheet_map(0.0)
    segmentation = draw(to_page, 0.0, noise=0.0)
    rectified = rectify(as_page(segmentation), segmentation, px_per_mm=6.0).rectified
    height, width = rectified.pixels.shape[:2]
    assert SHEET_MM[0] <= width / 6.0 <= SHEET_MM[0] + 30
    assert SHEET_MM[1] <= height / 6.0 <= SHEET_MM[1] + 30


def test_whole_nodes_lie_on_major_lines() -> None:
    to_page = sheet_map(3.0)
    segmentation = draw(to_page, 3.0)
    sheet = rectify(as_page(segmentation), segmentation)
    assert not sheet.rectified.pixels.any()  # the bend network's nodes come first
    darkness = 255.0 - sheet.canvas(4.0)[..., 0].mean(axis=0)
    folded = darkness[: len(darkness) // 20 * 20].reshape(-1, 20).mean(axis=0)
    assert folded[[0, 19]].min() > 2 * np.median(folded)  # lines at whole multiples of 5 mm = 20 px


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_turn_keeps_the_geometry(quarter_turns: int) -> None:
    to_page = sheet_map(6.0, (0.1, 0.0), (2.0, 0.0))
    segmentation = draw(to_page, 6.0)
    page = as_page(segmentation)
    sheet = rectify(page, segmentation)
    upright = replace(sheet.rectified, pixels=sheet.canvas(5.0))
    turned = turn(upright, quarter_turns)
    points = np.random.default_rng(0).uniform(20, 90, (50, 2))
    assert np.allclose(page_to_paper(turned, paper_to_page(turned, points)), points, atol=0.01)
    assert turned.quarter_turns == (upright.quarter_turns + quarter_turns) % 4
    height, width = turned.pixels.shape[:2]
    x, y = (np.arange(20.0, side / 5 - 20, 0.2) + 0.1 for side in (width, height))
    patch = turned.pixels[100 : 100 + len(y), 100 : 100 + len(x)]
    assert np.abs(replace(sheet, rectified=turned).pixels(x, y).astype(int) - patch).mean() < 2
    back = turn(turned, 4 - quarter_turns)
    assert np.array_equal(back.pixels, upright.pixels)
    assert np.allclose(back.homography, upright.homography)


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_turn_keeps_the_doubt_of_the_bend_network(quarter_turns: int) -> None:
    flat = digitization().rectified
    scale = replace(flat.grid_scale, px_per_mm_y=4.2, doubt_mm=0.07)
    turned = turn(replace(flat, grid_scale=scale), quarter_turns).grid_scale
    swapped = quarter_turns % 2 == 1
    assert (turned.px_per_mm_x, turned.px_per_mm_y) == ((4.2, 4.0) if swapped else (4.0, 4.2))
    assert (turned.doubt_mm, turned.score, turned.source) == (0.07, 1.0, "grid")


def test_rows_sampled_finer_and_coarser_than_the_page_agree() -> None:
    to_page = sheet_map(4.0)
    segmentation = draw(to_page, 4.0, noise=0.0)
    page = as_page(segmentation)
    sheet = rectify(page, segmentation)
    y = np.arange(20.0, 80.0, 0.5) + 0.25
    fine = sheet.pixels(np.arange(20.0, 100.0, 0.05) + 0.025, y)
    coarse = sheet.pixels(np.arange(20.0, 100.0, 1.0) + 0.5, y)
    averaged = fine.reshape(len(y), -1, 20, 3).mean(axis=2)
    assert coarse.shape == averaged.shape
    assert np.abs(coarse - averaged).mean() < 6


def test_no_grid_falls_back_to_the_stated_resolution() -> None:
    blank = SegmentationMap(
        grid=np.zeros((300, 400), np.float32),
        trace=np.zeros((300, 400), np.float32),
        text=np.zeros((300, 400), np.float32),
        scale=0.5,
    )
    pixels = np.full((600, 800, 3), 255, np.uint8)
    rectified = rectify(PageImage(pixels=pixels, px_per_mm_hint=8.0), blank).rectified
    assert (rectified.grid_scale.source, rectified.grid_scale.score) == ("hint", 0.0)
    assert rectified.grid_scale.px_per_mm_x == pytest.approx(8.0)
    assert paper_to_page(rectified, np.array([10.0, 5.0])) == pytest.approx([79.5, 39.5])
    with pytest.raises(GridNotFound):
        rectify(PageImage(pixels=pixels), blank)


@pytest.mark.parametrize("degrees", [0.0, 3.0, -2.0])
@pytest.mark.parametrize("turned", [False, True])
def test_rows_without_a_grid_are_laid_level_at_a_guessed_scale(degrees: float, turned: bool) -> None:
    trace = np.zeros((600, 800), np.float32)
    x = np.arange(100.0, 700.0, 0.25)
    for row in (150.0, 300.0, 450.0):
        y = row + 25 * np.exp(-(((x % 97) - 40) ** 2) / 20)
        angle = np.deg2rad(degrees)
        across, down = x - 400, y - 300
        columns = 400 + across * np.cos(angle) - down * np.sin(angle)
        lines = 300 + across * np.sin(angle) + down * np.cos(angle)
        trace[np.round(lines).astype(int), np.round(columns).astype(int)] = 1.0
    trace = np.ascontiguousarray(np.rot90(trace)) if turned else trace
    # The grid map of a page without a grid is a haze, and its texture must not be taken for lines.
    haze = 0.43 + 0.02 * np.sin(np.arange(trace.shape[1]) * 2 * np.pi / 8) * np.ones((trace.shape[0], 1))
    segmentation = SegmentationMap(grid=haze.astype(np.float32), trace=trace, text=np.zeros_like(trace), scale=0.5)
    page = PageImage(pixels=np.full((2 * trace.shape[0], 2 * trace.shape[1], 3), 255, np.uint8))
    rectified = rectify(page, segmentation).rectified
    assert (rectified.grid_scale.source, rectified.grid_scale.score) == ("default", 0.0)
    assert rectified.grid_scale.px_per_mm_x == pytest.approx(2 * 600 / 250, rel=0.05)
    ends = np.array([[-290.0, 150.0], [290.0, 150.0]])  # where the lowest row begins and ends, off the middle
    angle = np.deg2rad(degrees)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    at = (ends @ rotation) * 2
    at = np.column_stack([at[:, 1], -at[:, 0]]) if turned else at
    centre = (np.array(page.pixels.shape[1::-1]) - 1) / 2
    (_, y0), (_, y1) = page_to_paper(rectified, at + centre)
    assert abs(y1 - y0) < 0.5


def test_a_sheet_taken_for_larger_shows_the_same_page() -> None:
    to_page = sheet_map(2.0)
    segmentation = draw(to_page, 2.0, noise=0.0)
    page = as_page(segmentation)
    sheet = rectify(page, segmentation)
    rescaled = rescale(sheet, 1.25, "columns")
    rectified, larger = sheet.rectified, rescaled.rectified
    points = np.random.default_rng(0).uniform(20, 90, (50, 2))
    assert np.allclose(paper_to_page(larger, points * 1.25), paper_to_page(rectified, points), atol=0.01)
    assert larger.grid_scale.px_per_mm_x == pytest.approx(rectified.grid_scale.px_per_mm_x / 1.25)
    assert larger.grid_scale.source == "columns"
    assert larger.pixels.shape[0] == pytest.approx(1.25 * rectified.pixels.shape[0], abs=1)
    x, y = np.arange(30.0, 90.0, 0.25), np.arange(30.0, 80.0, 0.25)
    assert np.array_equal(rescaled.pixels(x * 1.25, y * 1.25), sheet.pixels(x, y))


def test_a_sheet_that_leans_is_turned_upright() -> None:
    to_page = sheet_map(2.0)
    segmentation = draw(to_page, 2.0, noise=0.0)
    sheet = rectify(as_page(segmentation), segmentation)
    assert lean_back(sheet, 0.0) is sheet
    upright = lean_back(sheet, 0.01)
    line_mm = np.array([[40.0, 30.0], [40.0, 80.0], [90.0, 30.0]])
    before = page_to_paper(sheet.rectified, paper_to_page(upright.rectified, line_mm))
    assert before[1] - before[0] == pytest.approx([0.5, 50.0], abs=0.01)
    assert before[2] - before[0] == pytest.approx([50.0, -0.5], abs=0.01)
