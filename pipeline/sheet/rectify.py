"""Flatten the sheet: page and segmentation in, Sheet out.

    perspective   two families of lines -> homography, up to the scale of each axis   (perspective.py)
    grid size     pitch of the parallel lines -> millimetres                          (grid.py)
    lattice       bends and folds -> one page pixel for every 5 mm node               (lattice.py)
    here          which way traces run, where the sheet ends

The first two steps are those of "Digitizing paper ECGs at scale"; the third replaces its homography-only correction.
Geometry is found on the page network's maps at low resolution; the canvas is sampled once, from the page itself.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.datatypes import FloatArray, GridScale, PageImage, RectifiedPage, SegmentationMap
from pipeline.errors import GridNotFound
from pipeline.sheet.grid import measure_grid
from pipeline.sheet.lattice import NODE_MM, fit_lattice
from pipeline.sheet.paper import Sheet, apply_homography, interpolate_planes, interpolate_raster, turn
from pipeline.sheet.perspective import find_perspective, line_evidence
from pipeline.threads import side_by_side

Array = npt.NDArray[np.floating[Any]]

log = logging.getLogger(__name__)

_WORK_PX = 1536  # longer side of the map the perspective is found on
_LATTICE_PX_PER_MM = 5.0  # at most; finer maps are reduced before the lattice is fitted


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Found:
    """The sheet on the page, before it is cut out: nodes in page pixels and how clear the grid is at each."""

    node_xy: Array  # (n_i, n_j, 2) page px
    clarity: Array  # (n_i, n_j)
    homography: Array  # (3, 3) paper mm -> page px
    score: float
    source: str


def rectify(page: PageImage, segmentation: SegmentationMap, px_per_mm: float = 5.0) -> Sheet:
    """Flatten a page by its grid.

    The canvas covers what has grid or trace and a margin; traces run along x.  Only the print can show whether the
    sheet is upright or upside down: see `sheet.paper.turn`.  A page without a grid is flattened by `lay_flat`.

    Parameters
    ----------
    page : PageImage
    segmentation : SegmentationMap
    px_per_mm : float
        Resolution of the canvas along both axes.

    Returns
    -------
    Sheet
        The source of its scale is "grid" if a grid was found.  Its canvas is empty then: it is sampled when the sheet
        is unbent.

    Raises
    ------
    GridNotFound
        If there is neither a grid, a stated resolution nor a trace.
    """
    found = _sheet_from_grid(page, segmentation) if _shows_grid(segmentation.grid) else None
    if found is None:
        return lay_flat(page, segmentation, px_per_mm)
    return _level(page, segmentation, found, px_per_mm)


def lay_flat(page: PageImage, segmentation: SegmentationMap, px_per_mm: float = 5.0) -> Sheet:
    """Flatten a page without its grid: it is taken as flat and turned until its rows are level.

    Parameters
    ----------
    page : PageImage
    segmentation : SegmentationMap
    px_per_mm : float
        Resolution of the canvas along both axes.

    Returns
    -------
    Sheet
        At the resolution that the file states (source "hint", score 0), or as if the longest row were as long as most
        are (source "default", a guess).

    Raises
    ------
    GridNotFound
        If there is neither a stated resolution nor a trace.
    """
    return _level(page, segmentation, _flat_sheet(page, segmentation), px_per_mm).sampled()


def _level(page: PageImage, segmentation: SegmentationMap, found: _Found, px_per_mm: float) -> Sheet:
    """Cut the sheet out and lay it so that its traces run across."""
    log.info("Sheet found", extra={"action": "rectify", "grid_source": found.source, "grid_score": found.score})
    rectified = _cut_out(page, segmentation, found, px_per_mm)
    if _runs_down(segmentation, rectified):
        rectified = turn(rectified, 1)
    return Sheet(page=page, segmentation=segmentation, rectified=rectified)


def _sheet_from_grid(page: PageImage, segmentation: SegmentationMap) -> _Found | None:
    """Perspective, grid size and lattice; None where the page shows no periodic lines."""
    lines, scale = _reduce(_bare(segmentation), segmentation.scale, _WORK_PX / max(segmentation.grid.shape))
    evidence = line_evidence(lines)
    if float(evidence.std()) < 1e-4:
        return None
    perspective = find_perspective(evidence)
    flat, offset = _flat_canvas(evidence, perspective.homography)
    hint = None if page.px_per_mm_hint is None else page.px_per_mm_hint * scale
    grid = measure_grid(flat, px_per_mm_hint=hint)
    if grid is None or perspective.contrast < 1.15:
        return None
    # Paper mm -> flat px -> map px.
    millimetres = np.diag([grid.px_per_mm_x, grid.px_per_mm_y, 1.0])
    homography = perspective.homography @ offset @ millimetres
    finest = _LATTICE_PX_PER_MM / max(grid.px_per_mm_x, grid.px_per_mm_y)
    lines, fine_scale = _reduce(lines, scale, finest)
    homography = _map_to_map(fine_scale / scale) @ homography
    evidence = line_evidence(lines, spread_px=1.6 * min(_LATTICE_PX_PER_MM, grid.px_per_mm_x))
    lattice = fit_lattice(
        evidence, homography, keep=_trace_corners(segmentation.trace, fine_scale / segmentation.scale)
    )
    to_page = _map_to_map(1 / fine_scale)
    return _Found(
        node_xy=lattice.node_xy * to_page[0, 0] + to_page[0, 2],
        clarity=lattice.clarity,
        homography=to_page @ lattice.homography,
        score=grid.score,
        source="grid",
    )


def _bare(segmentation: SegmentationMap, *, spread_px: float = 6.0) -> FloatArray:
    """Return the grid map (h, w) with what is printed over it filled in by the grid around.

    A bold trace leaves a gap in the grid that outweighs a faint line by far, and rows and beats repeat as lines do.
    """
    ink = cv2.dilate(segmentation.trace + segmentation.text, np.ones((3, 3), np.uint8))
    free = np.clip(1 - 2 * ink, 0, 1)
    both = [segmentation.grid * free, free]
    around, share = side_by_side(lambda seen: cv2.GaussianBlur(seen, (0, 0), spread_px), both)
    mean = around / np.maximum(share, 1e-3)
    return np.asarray(mean + free * (segmentation.grid - mean), np.float32)


def _trace_corners(trace: FloatArray, factor: float) -> Array | None:
    """Corners (4, 2) of what has trace, stray pixels left out, on a map `factor` times as large; None without any."""
    y, x = np.nonzero(trace > 0.5)
    if len(x) < 100:
        return None
    (x0, x1), (y0, y1) = np.quantile(x, [0.005, 0.995]) * factor, np.quantile(y, [0.005, 0.995]) * factor
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def _reduce(lines: FloatArray, scale: float, factor: float) -> tuple[FloatArray, float]:
    """Shrink a map by `factor` (by area; never enlarge); returns it with its new scale."""
    if factor >= 0.95:
        return lines, scale
    size = (round(lines.shape[1] * factor), round(lines.shape[0] * factor))
    reduced = cv2.resize(lines, size, interpolation=cv2.INTER_AREA)
    return np.asarray(reduced, np.float32), scale * size[0] / lines.shape[1]


def _map_to_map(factor: float) -> Array:
    """Pixel coordinates of a map -> those of the same map `factor` times as large (pixel centres on whole numbers)."""
    shift = (factor - 1) / 2
    return np.array([[factor, 0.0, shift], [0.0, factor, shift], [0.0, 0.0, 1.0]])


def _flat_canvas(evidence: FloatArray, homography: Array) -> tuple[FloatArray, Array]:
    """Return the map seen through the homography, and the translation from the canvas to flat pixels."""
    height, width = evidence.shape
    corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]], np.float64)
    flat = corners @ np.linalg.inv(homography).T
    flat = flat[:, :2] / flat[:, 2:]
    reach = 0.75 * float(np.hypot(width, height))
    low, high = np.maximum(flat.min(axis=0), -reach), np.minimum(flat.max(axis=0), reach)
    offset = np.array([[1.0, 0.0, low[0]], [0.0, 1.0, low[1]], [0.0, 0.0, 1.0]])
    size = (int(high[0] - low[0]) + 1, int(high[1] - low[1]) + 1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpPerspective(evidence, homography @ offset, size, flags=flags), np.float32), offset


def _shows_grid(grid: FloatArray, *, contrast: float = 0.06) -> bool:
    """Tell whether lines stand out on a grid map (h, w): without a grid it is a haze, and lines in it are false."""
    height, width = grid.shape
    inner = grid[height // 6 : height - height // 6, width // 6 : width - width // 6]
    usual, lines = np.quantile(inner, [0.5, 0.95])
    return bool(lines - usual > contrast)


def _flat_sheet(page: PageImage, segmentation: SegmentationMap, *, row_mm: float = 250.0) -> _Found:
    """Take a page without a grid as flat; if its file states no resolution, take its traces as `row_mm` long."""
    source, px_per_mm = "hint", page.px_per_mm_hint
    if px_per_mm is None:
        corners = _trace_corners(segmentation.trace, 1 / segmentation.scale)
        if corners is None:
            raise GridNotFound("no ECG grid was found on the page, and its file states no resolution")
        source, px_per_mm = "default", float(np.ptp(corners, axis=0).max()) / row_mm
    height, width = page.pixels.shape[:2]
    angle = _skew(segmentation.trace)
    cos, sin = np.cos(angle), np.sin(angle)
    across, down = width * cos + height * abs(sin), width * abs(sin) + height * cos  # px of the page as it is turned
    centre = np.array([[1.0, 0.0, -across / 2], [0.0, 1.0, -down / 2], [0.0, 0.0, 1.0]])
    turned = np.array([[cos, -sin, width / 2 - 0.5], [sin, cos, height / 2 - 0.5], [0.0, 0.0, 1.0]])
    homography = turned @ centre @ np.diag([px_per_mm, px_per_mm, 1.0])
    n_i, n_j = (int(np.ceil(n / px_per_mm / NODE_MM)) + 1 for n in (down, across))
    i, j = np.mgrid[:n_i, :n_j]
    return _Found(
        node_xy=apply_homography(homography, np.stack([j, i], axis=-1) * NODE_MM),
        clarity=np.zeros((n_i, n_j)),
        homography=homography,
        score=0.0,
        source=source,
    )


def _skew(trace: FloatArray, *, most_deg: float = 6.0, step_deg: float = 0.1, work_px: int = 600) -> float:
    """Return the angle (radians, clockwise) by which the rows of a trace map are off the nearer axis of the picture.

    Turned level, rows fall on few lines of the map and leave the others empty: the sum of squares is largest.
    """
    small, _ = _reduce(trace, 1.0, work_px / max(trace.shape))
    y, x = (at.astype(np.float64) for at in np.nonzero(small > 0.25))
    if len(x) < 100:
        return 0.0
    weight = small[small > 0.25]
    angles = np.deg2rad(np.arange(-most_deg, most_deg + step_deg / 2, step_deg))

    def levelled(along: Array, across: Array) -> tuple[float, float]:
        """Return the largest sum of squares, and its angle."""
        lines = (np.round(across * np.cos(a) - along * np.sin(a)).astype(int) + work_px for a in angles)
        sums = [float((np.bincount(line, weight) ** 2).sum()) for line in lines]
        return max(sums), float(angles[int(np.argmax(sums))])

    return max(levelled(x, y), levelled(y, small.shape[1] - x))[1]


def _cut_out(page: PageImage, segmentation: SegmentationMap, found: _Found, px_per_mm: float) -> RectifiedPage:
    """Crop the sheet to grid and trace, a whole number of nodes; the canvas is empty."""
    rows, columns = _crop(page, segmentation, found)
    nodes = interpolate_raster(found.node_xy, rows.astype(np.float64), columns.astype(np.float64))
    spacing_x, spacing_y = (
        float(np.median(np.linalg.norm(np.diff(nodes, axis=axis), axis=-1))) / NODE_MM for axis in (1, 0)
    )
    height, width = (round((len(index) - 1) * NODE_MM * px_per_mm) for index in (rows, columns))
    shift = np.array([[1.0, 0.0, columns[0] * NODE_MM], [0.0, 1.0, rows[0] * NODE_MM], [0.0, 0.0, 1.0]])
    return RectifiedPage(
        node_xy=nodes,
        node_mm=NODE_MM,
        pixels=np.zeros((height, width, 3), np.uint8),
        px_per_mm=px_per_mm,
        grid_scale=GridScale(px_per_mm_x=spacing_x, px_per_mm_y=spacing_y, score=found.score, source=found.source),
        homography=found.homography @ shift,
    )


def _crop(
    page: PageImage, segmentation: SegmentationMap, found: _Found, *, margin: int = 2
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Node rows and columns of the canvas: all that has grid or trace, and `margin` nodes more inside the picture."""
    if found.source != "grid":
        return np.arange(found.node_xy.shape[0]), np.arange(found.node_xy.shape[1])
    clear = found.clarity > max(2.5, 0.3 * float(np.quantile(found.clarity, 0.95)))
    trace = _flatten(segmentation.trace, segmentation.scale, found.node_xy, 5)
    inked = np.pad(trace.reshape(trace.shape[0] // 5, 5, -1, 5).mean(axis=(1, 3)) > 0.05, ((0, 1), (0, 1)))
    height, width = page.pixels.shape[:2]
    x, y = found.node_xy[..., 0], found.node_xy[..., 1]
    inside = (x > -1) & (x < width) & (y > -1) & (y < height)
    sheet_mask = _largest_parts((clear | inked) & inside)
    spans = []
    for axis in (1, 0):
        where = np.flatnonzero(sheet_mask.any(axis=axis))
        low, high = (where[0], where[-1]) if len(where) else (0, sheet_mask.shape[1 - axis] - 1)
        seen = np.flatnonzero(inside.any(axis=axis)) if inside.any() else np.array([low, high])
        low, high = max(low - margin, min(seen[0] - 1, low)), min(high + margin, max(seen[-1] + 1, high))
        spans.append(np.arange(low, high + 1))
    return spans[0], spans[1]


def _largest_parts(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Keep the parts of a mask that are no specks: a twentieth of the largest one or more, small gaps closed."""
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    count, label, stats, _ = cv2.connectedComponentsWithStats(closed)
    if count < 2:
        return mask
    area = stats[1:, cv2.CC_STAT_AREA]
    result: npt.NDArray[np.bool_] = mask & np.isin(label, 1 + np.flatnonzero(area > 0.05 * area.max()))
    return result


def _flatten(values: FloatArray, scale: float, node_xy: Array, per_node: int) -> FloatArray:
    """Return a map seen through the lattice, `per_node` samples per node spacing, half a sample off the first node."""
    rows, columns = ((np.arange((n - 1) * per_node) + 0.5) / per_node for n in node_xy.shape[:2])
    x, y = ((plane + 0.5) * np.float32(scale) - np.float32(0.5) for plane in interpolate_planes(node_xy, rows, columns))
    return np.asarray(cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT), np.float32)


def _runs_down(segmentation: SegmentationMap, rectified: RectifiedPage) -> bool:
    """Whether the traces run down the canvas instead of across it.

    Across the time axis a sheet shows the same number of traces everywhere; along it, none between two rows and many
    through the beats.  So the strokes met on a line are counted: their number varies less along the time axis.
    """
    trace = _flatten(segmentation.trace, segmentation.scale, rectified.node_xy, 10)
    balance = 0.0
    for threshold in (0.15, 0.25):  # low: a baseline that is hardly seen counts as much as a bold beat
        across, down = (_stroke_variation(ink) for ink in (trace > threshold, (trace > threshold).T))
        balance += across - down
    return balance > 0


def _stroke_variation(ink: npt.NDArray[np.bool_]) -> float:
    """Coefficient of variation of the number of strokes met in each column; 0 where hardly anything is drawn."""
    strokes = np.count_nonzero(ink[1:] & ~ink[:-1], axis=0)
    where = np.flatnonzero(strokes)
    if len(where) < 20:
        return 0.0
    low, high = np.quantile(where, [0.03, 0.97]).astype(int)
    strokes = strokes[low : high + 1]
    return float(strokes.std() / strokes.mean())
