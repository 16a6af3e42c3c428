"""The one map between the flattened sheet and the picture it came from.

`RectifiedPage.node_xy` says which page pixel lies under every paper node; between nodes the map is a separable cubic
(Catmull-Rom), beyond them it continues straight.  Any stage may ask for paper points in page pixels, for page pixels in
paper millimetres, or, from a `Sheet`, for the page's own pixels sampled on any paper raster: geometry has the lattice's
resolution, pixels have the picture's, and the page is resampled once only.

Canvas pixel (column c, row r) shows paper point ((c + 0.5) / px_per_mm, (r + 0.5) / px_per_mm).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.datatypes import ByteArray, LayoutMatch, PageImage, PulseBox, RectifiedPage, SegmentationMap, TextLine

Points = npt.NDArray[np.floating[Any]]
_WHITE = (255, 255, 255)


def cubic_weights(position: Points, n_nodes: int) -> tuple[npt.NDArray[np.intp], Points]:
    """Node indices (n, 4) and weights (n, 4) that interpolate a lattice at `position` (n,), in node spacings.

    Catmull-Rom inside; outside the first and last node the outermost segment is continued as a straight line.
    """
    cell = np.clip(np.floor(position), 0, max(n_nodes - 2, 0)).astype(np.intp)
    t = position - cell
    inside = np.clip(t, 0.0, 1.0)
    square, cube = inside**2, inside**3
    weight = np.stack(
        [
            0.5 * (-cube + 2 * square - inside),
            0.5 * (3 * cube - 5 * square + 2),
            0.5 * (-3 * cube + 4 * square + inside),
            0.5 * (cube - square),
        ],
        axis=-1,
    )
    weight[:, 1] -= t - inside
    weight[:, 2] += t - inside
    # A segment at the border has no outer neighbour: mirror it linearly (p[-1] = 2 p[0] - p[1]).
    first, last = cell == 0, cell >= n_nodes - 2
    weight[first, 1] += 2 * weight[first, 0]
    weight[first, 2] -= weight[first, 0]
    weight[first, 0] = 0
    weight[last, 2] += 2 * weight[last, 3]
    weight[last, 1] -= weight[last, 3]
    weight[last, 3] = 0
    index = np.clip(cell[:, None] + np.arange(-1, 3), 0, n_nodes - 1)
    return index, weight


def interpolate_raster(nodes: Points, rows: Points, columns: Points) -> npt.NDArray[np.float32]:
    """Interpolate `nodes` (n_i, n_j, c) at every crossing of `rows` (h,) and `columns` (w,): (h, w, c).

    Positions are in node spacings.
    """
    return np.stack(interpolate_planes(nodes, rows, columns), axis=-1)


def interpolate_planes(
    nodes: Points, rows: Points, columns: Points, *, block: int = 256
) -> list[npt.NDArray[np.float32]]:
    """Interpolate as `interpolate_raster` does: one (h, w) for each c.

    Columns are taken in blocks, which need the nodes near them only.
    """
    down, across = (
        _matrix(np.asarray(position, np.float64), n_nodes)
        for position, n_nodes in ((rows, nodes.shape[0]), (columns, nodes.shape[1]))
    )
    # The last product is the large one: single precision there keeps a thousandth of a pixel at 8000 px.
    halfway = [(down @ nodes[..., c]).astype(np.float32) for c in range(nodes.shape[2])]
    planes = [np.empty((len(rows), len(columns)), np.float32) for _ in halfway]
    for start in range(0, len(columns), block):
        part = np.ascontiguousarray(across[start : start + block].astype(np.float32).T)
        used = np.flatnonzero(part.any(1))
        span = slice(used[0], used[-1] + 1)
        for plane, half in zip(planes, halfway, strict=True):
            np.matmul(half[:, span], part[span], out=plane[:, start : start + block])
    return planes


def _matrix(position: Points, n_nodes: int) -> npt.NDArray[np.float64]:
    """Return the weights (n, n_nodes) of `cubic_weights` as a matrix."""
    index, weight = cubic_weights(position, n_nodes)
    matrix = np.zeros((len(position), n_nodes))
    np.add.at(matrix, (np.arange(len(position))[:, None], index), weight)
    return matrix


def interpolate_points(nodes: Points, points: Points) -> Points:
    """Interpolate `nodes` (n_i, n_j, c) at `points` (n, 2) = (column, row) in node spacings: (n, c)."""
    j, across = cubic_weights(points[:, 0], nodes.shape[1])
    i, down = cubic_weights(points[:, 1], nodes.shape[0])
    values = nodes[i[:, :, None], j[:, None, :]].astype(np.float64)
    result: Points = np.einsum("nijc,ni,nj->nc", values, down, across)
    return result


def apply_homography(homography: Points, points: Points) -> Points:
    """Map `points` (..., 2) through a 3 x 3 homography."""
    mapped = points @ homography[:, :2].T + homography[:, 2]
    result: Points = mapped[..., :2] / mapped[..., 2:]
    return result


def paper_to_page(rectified: RectifiedPage, xy_mm: Points) -> Points:
    """Page pixels (..., 2) under paper points `xy_mm` (..., 2), both (x, y)."""
    flat = np.asarray(xy_mm, np.float64).reshape(-1, 2) / rectified.node_mm
    return interpolate_points(rectified.node_xy, flat).reshape(np.shape(xy_mm))


def page_to_paper(rectified: RectifiedPage, xy_px: Points, *, iterations: int = 12) -> Points:
    """Paper points in mm (..., 2) of page pixels `xy_px` (..., 2), both (x, y).

    The homography carries each step back to paper, so that a few iterations suffice (to 0.001 mm for smooth sheets).
    """
    inverse = np.linalg.inv(rectified.homography)
    target = apply_homography(inverse, np.asarray(xy_px, np.float64).reshape(-1, 2))
    paper = target.copy()
    for _ in range(iterations):
        paper += target - apply_homography(inverse, paper_to_page(rectified, paper))
    return paper.reshape(np.shape(xy_px))


def sample_nodes(pixels: ByteArray, node_xy: Points, columns: Points, rows: Points) -> ByteArray:
    """Sample a page through a lattice at `rows` (h,) x `columns` (w,), evenly spaced, in node spacings: (h, w, 3).

    Where the page has more pixels than the raster, each axis is supersampled by a whole factor and averaged; elsewhere
    the page is interpolated with a cubic.  Outside the picture the sheet is white.
    """
    factors = [_shrink(node_xy, columns, 1), _shrink(node_xy, rows, 0)]
    fine = [_supersample(position, factor) for position, factor in zip((columns, rows), factors, strict=True)]
    x, y = interpolate_planes(node_xy, fine[1], fine[0])
    method = cv2.INTER_LINEAR if max(factors) > 1 else cv2.INTER_CUBIC
    sampled = cv2.remap(pixels, x, y, method, borderMode=cv2.BORDER_CONSTANT, borderValue=_WHITE)
    if max(factors) > 1:
        sampled = cv2.resize(sampled, (len(columns), len(rows)), interpolation=cv2.INTER_AREA)
    return np.asarray(sampled, np.uint8)


def raster(start_mm: float, end_mm: float, px_per_mm: float) -> npt.NDArray[np.float64]:
    """Return the paper coordinates (n,) of the pixels that cover a stretch, two at least."""
    n = max(2, round((end_mm - start_mm) * px_per_mm))
    return np.asarray(start_mm + (np.arange(n) + 0.5) / px_per_mm, np.float64)


def canvas_raster(
    rectified: RectifiedPage, px_per_mm: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return paper columns (w,) and rows (h,) in mm of a canvas of the whole sheet."""
    height, width = (round(side * px_per_mm / rectified.px_per_mm) for side in rectified.pixels.shape[:2])
    return (np.arange(width) + 0.5) / px_per_mm, (np.arange(height) + 0.5) / px_per_mm


@dataclass(frozen=True, eq=False, kw_only=True)
class Sheet:
    """A page, what the page network sees on it, and its flat sheet: what stages read, they sample through one map.

    Attributes
    ----------
    page : PageImage
    segmentation : SegmentationMap
    rectified : RectifiedPage
    """

    page: PageImage
    segmentation: SegmentationMap
    rectified: RectifiedPage

    def pixels(self, x_mm: Points, y_mm: Points) -> ByteArray:
        """Sample the page's own pixels.

        Parameters
        ----------
        x_mm, y_mm : (w,) and (h,) float
            Paper columns and rows, each evenly spaced.

        Returns
        -------
        numpy.ndarray
            (h, w, 3) uint8 RGB; white outside the picture.
        """
        columns, rows = (np.asarray(mm, np.float64) / self.rectified.node_mm for mm in (x_mm, y_mm))
        return sample_nodes(self.page.pixels, self.rectified.node_xy, columns, rows)

    def ink(self, x_mm: Points, y_mm: Points) -> ByteArray:
        """Sample the maps of the page network.

        Parameters
        ----------
        x_mm, y_mm : (w,) and (h,) float
            Paper columns and rows, each evenly spaced.

        Returns
        -------
        numpy.ndarray
            (h, w, 3) uint8: text, trace and grid, 255 = certain; 0 outside the picture.
        """
        blank, node_xy = self._maps
        node_mm = self.rectified.node_mm
        return np.asarray(255 - sample_nodes(blank, node_xy, x_mm / node_mm, y_mm / node_mm))

    def canvas(self, px_per_mm: float) -> ByteArray:
        """Sample the page's own pixels over the whole sheet: (h, w, 3) uint8 RGB."""
        return self.pixels(*canvas_raster(self.rectified, px_per_mm))

    def sampled(self) -> Sheet:
        """Return the sheet with its canvas sampled at the canvas's own resolution."""
        pixels = self.canvas(self.rectified.px_per_mm)
        return replace(self, rectified=replace(self.rectified, pixels=pixels))

    @cached_property
    def _maps(self) -> tuple[ByteArray, Points]:
        """Text, trace and grid (h, w, 3), inverted so that the white outside means nothing, and the nodes on them."""
        maps = self.segmentation
        stacked = np.stack([maps.text, maps.trace, maps.grid], -1)
        np.subtract(1, stacked, out=stacked)
        stacked *= 255
        return stacked.astype(np.uint8), (self.rectified.node_xy + 0.5) * maps.scale - 0.5


def print_boxes(
    match: LayoutMatch, pulses: Sequence[PulseBox], text: Sequence[TextLine], *, pulse_margin_mm: float
) -> list[tuple[float, float, float, float]]:
    """Find what is covered by lead names, print and calibration pulses.

    Parameters
    ----------
    match : LayoutMatch
    pulses, text : sequence
    pulse_margin_mm : float
        Paper around a pulse that belongs to it.

    Returns
    -------
    list of tuple
        Boxes x0, y0, x1, y1 in paper mm.
    """
    boxes = [(name.x_mm - 4.0, name.y_mm - 2.5, name.x_mm + 4.0, name.y_mm + 2.5) for name in match.labels]
    boxes += [(line.x0_mm - 0.5, line.y0_mm - 0.5, line.x1_mm + 0.5, line.y1_mm + 0.5) for line in text]
    around = pulse_margin_mm
    boxes += [(box.x0_mm - around, box.y0_mm - around, box.x1_mm + around, box.y1_mm + around) for box in pulses]
    return boxes


def turn(rectified: RectifiedPage, quarter_turns: int) -> RectifiedPage:
    """Turn a flat sheet; nothing is fitted or sampled again.

    Parameters
    ----------
    rectified : RectifiedPage
    quarter_turns : int
        Turns of 90 degrees, counter-clockwise.

    Returns
    -------
    RectifiedPage
    """
    turns = quarter_turns % 4
    homography = rectified.homography
    n_i, n_j = rectified.node_xy.shape[:2]
    for _ in range(turns):
        # New paper (x', y') shows what stood at (x, y) = (width - y', x').
        width = (n_j - 1) * rectified.node_mm
        homography = homography @ np.array([[0.0, -1.0, width], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        n_i, n_j = n_j, n_i
    scale = rectified.grid_scale
    if turns % 2:
        scale = replace(scale, px_per_mm_x=scale.px_per_mm_y, px_per_mm_y=scale.px_per_mm_x)
    return replace(
        rectified,
        node_xy=np.ascontiguousarray(np.rot90(rectified.node_xy, turns)),
        pixels=np.ascontiguousarray(np.rot90(rectified.pixels, turns)),
        homography=homography,
        grid_scale=scale,
        quarter_turns=(rectified.quarter_turns + turns) % 4,
    )


def rescale(sheet: Sheet, factor: float, source: str) -> Sheet:
    """Correct the scale of a sheet and sample its canvas again.

    Parameters
    ----------
    sheet : Sheet
    factor : float
        True millimetres of one millimetre of `sheet`.
    source : str
        Where the factor comes from: the `source` of the new `GridScale`.

    Returns
    -------
    Sheet
    """
    rectified = sheet.rectified
    old, px_per_mm = rectified.grid_scale, rectified.px_per_mm
    larger = replace(
        rectified,
        node_mm=rectified.node_mm * factor,
        px_per_mm=px_per_mm / factor,
        homography=rectified.homography @ np.diag([1 / factor, 1 / factor, 1.0]),
        grid_scale=replace(
            old, px_per_mm_x=old.px_per_mm_x / factor, px_per_mm_y=old.px_per_mm_y / factor, source=source
        ),
    )
    pixels = replace(sheet, rectified=larger).canvas(px_per_mm)
    return replace(sheet, rectified=replace(larger, pixels=pixels, px_per_mm=px_per_mm))


def lean_back(sheet: Sheet, lean: float) -> Sheet:
    """Turn a sheet so that what leaned stands upright, and sample its canvas again.

    Parameters
    ----------
    sheet : Sheet
    lean : float
        By how many millimetres an upright line moves to the right for each one down.

    Returns
    -------
    Sheet
    """
    if not lean:
        return sheet
    rectified = sheet.rectified
    n_i, n_j = rectified.node_xy.shape[:2]
    centre_mm = np.array([n_j - 1, n_i - 1]) * rectified.node_mm / 2
    along = np.array([[1.0, lean], [-lean, 1.0]]) / np.hypot(1.0, lean)
    turned = np.eye(3)
    turned[:2, :2], turned[:2, 2] = along, centre_mm - along @ centre_mm
    i, j = np.mgrid[:n_i, :n_j]
    nodes = paper_to_page(rectified, apply_homography(turned, np.stack([j, i], -1) * rectified.node_mm))
    leaned = replace(rectified, node_xy=nodes.astype(np.float32), homography=rectified.homography @ turned)
    pixels = replace(sheet, rectified=leaned).canvas(rectified.px_per_mm)
    return replace(sheet, rectified=replace(leaned, pixels=pixels))


def _shrink(node_xy: Points, position: Points, axis: int) -> int:
    """How many page pixels one raster step covers along `axis`, as a whole factor (1 when enlarging)."""
    if len(position) < 2:
        return 1
    step_px = np.linalg.norm(np.diff(node_xy, axis=axis), axis=-1)
    return max(1, round(float(np.median(step_px) * abs(position[1] - position[0]))))


def _supersample(position: Points, factor: int) -> Points:
    """`factor` evenly spaced positions in each step of `position`."""
    if factor == 1:
        return position
    step = position[1] - position[0]
    offsets = ((np.arange(factor) + 0.5) / factor - 0.5) * step
    fine: Points = (position[:, None] + offsets).ravel()
    return fine
