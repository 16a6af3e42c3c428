"""From a drawn page to what a scanner, copier or telephone makes of it, with the truth carried along.

Five kinds of training sample come out, one per network: page crops (page frame, any rotation and perspective),
bend and layout crops, label windows and row crops (canvas at those networks' resolution).  A canvas is never perfectly
flat: a small residual warp stays in it, and the truth follows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.datatypes import NAMED_LEADS, ByteArray, FloatArray
from pipeline.networks import specification as networks
from pipeline.training.drawing.capture import Capture, desk, expose, random_capture
from pipeline.training.drawing.synth import GRID, TEXT, TRACE, DrawnPage, DrawnRow

Points = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class PageSample:
    """A crop in the page frame."""

    pixels: ByteArray  # (n, n, 3)
    classes: ByteArray  # (n, n, 3) share of grid, trace, text in [0, 255]


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class BendSample:
    """A crop of the canvas for the bend network."""

    pixels: ByteArray  # (n, n, 3)
    shift_mm: FloatArray  # (n / 8, n / 8, 2) paper x, y shown by each cell, less where the canvas has it


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class LayoutSample:
    """A crop of the canvas for the layout network."""

    pixels: ByteArray  # (n, n, 3)
    bands: ByteArray  # (n, n, 3) row band, column boundary, calibration pulse in [0, 255]


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class RowSample:
    """A crop around one row for the trace network."""

    pixels: ByteArray  # (h, w, 3)
    y_bin: FloatArray  # (columns,) centre line without spikes in bins from the crop's top; NaN = none
    spike_bin: FloatArray  # (columns, 2) foot and tip of a pacing spike in bins, in its nearest column; NaN = none


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class LabelSample:
    """A window of the canvas for the label network."""

    pixels: ByteArray  # (48, 96, 3)
    lead: int  # 1..19 in the order of NAMED_LEADS; 0 = no lead name stands here, or none that is upright


class Warp:
    """A smooth displacement of the sheet in mm: a few long waves and, for paper that was folded, kinks."""

    def __init__(
        self, rng: np.random.Generator, amplitude_mm: float, *, kinks: int = 0, shortest_mm: float = 50.0
    ) -> None:
        n = 4
        length = rng.uniform(shortest_mm, 300, n)
        angle = rng.uniform(0, 2 * np.pi, n)
        self.k = np.stack([np.cos(angle), np.sin(angle)], -1) * (2 * np.pi / length)[:, None]
        self.phase = rng.uniform(0, 2 * np.pi, n)
        self.amplitude = rng.normal(0, amplitude_mm / n, (n, 2))
        turn = rng.uniform(0, np.pi, kinks)
        self.kink_normal = np.stack([np.cos(turn), np.sin(turn)], -1)
        self.kink_at = rng.uniform(0, 200, kinks)
        self.kink = rng.normal(0, 0.02, (kinks, 2)) * min(amplitude_mm, 1.0)

    def __call__(self, x_mm: FloatArray, y_mm: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return (dx, dy) at the points."""
        dx, dy = np.zeros_like(x_mm), np.zeros_like(y_mm)
        for k, phase, (ax, ay) in zip(self.k, self.phase, self.amplitude, strict=True):
            wave = np.sin(k[0] * x_mm + k[1] * y_mm + phase).astype(np.float32)
            dx += np.float32(ax) * wave
            dy += np.float32(ay) * wave
        for normal, at, (ax, ay) in zip(self.kink_normal, self.kink_at, self.kink, strict=True):
            side = np.abs(normal[0] * x_mm + normal[1] * y_mm - at).astype(np.float32)
            dx += np.float32(ax) * side
            dy += np.float32(ay) * side
        return dx, dy


def _residual_bend(
    rng: np.random.Generator, size_mm: float, strength: float
) -> Callable[[FloatArray, FloatArray], FloatArray]:
    """Return a field (..., 2) in mm as a lattice of 5 mm leaves it: a slant, waves, wrinkles, and cusps at folds."""
    offset, slope = rng.normal(0, 0.15, 2), rng.normal(0, 0.006, (2, 2))
    waves = []
    for length in rng.uniform(12, 80, 4):
        turn, phase = rng.uniform(0, 2 * np.pi, 2)
        k = np.array([np.cos(turn), np.sin(turn)]) * (2 * np.pi / length)
        waves.append((k, phase, rng.normal(0, min(0.15, 0.006 * length), 2)))
    wrinkles = [
        (rng.uniform(0, size_mm, 2), rng.uniform(2.5, 10), rng.normal(0, 0.25, 2)) for _ in range(rng.integers(4))
    ]
    folds = []
    for _ in range(rng.integers(3)):
        turn = rng.uniform(0, np.pi)
        normal = np.array([np.cos(turn), np.sin(turn)])
        through = rng.uniform(0, size_mm, 2)
        folds.append((normal, through @ normal, rng.uniform(2.5, 15), rng.normal(0, 0.35, 2)))

    def field(x_mm: FloatArray, y_mm: FloatArray) -> FloatArray:
        xy = np.stack([x_mm, y_mm], -1)
        moved = offset + (xy - size_mm / 2) @ slope
        for k, phase, amplitude in waves:
            moved = moved + np.sin(xy @ k + phase)[..., None] * amplitude
        for centre, radius, amplitude in wrinkles:
            moved = moved + np.exp(-((xy - centre) ** 2).sum(-1) / (2 * radius**2))[..., None] * amplitude
        for normal, at, reach, amplitude in folds:
            moved = moved + np.exp(-np.abs(xy @ normal - at) / reach)[..., None] * amplitude
        return np.asarray(strength * moved, np.float32)

    return field


def bend_sample(page: DrawnPage, size: int, rng: np.random.Generator) -> BendSample:
    """Cut one crop of the canvas for the bend network, any way up; its first pixel is where a 5 mm line belongs.

    Parameters
    ----------
    page : DrawnPage
    size : int
        Pixels, both sides.
    rng : Generator
        All chance comes from it.
    """
    page = page.coarse()
    capture = random_capture(rng)
    photo = capture.kind == "photo"
    span, cell = size / networks.BEND.px_per_mm, networks.BEND.stride_px
    curled = photo and rng.random() < 0.3  # near a lifted edge the lattice is millimetres off
    strength = rng.uniform(1.2, 4.0) if curled else rng.uniform(0.3, 1.2) if photo else rng.uniform(0, 0.5)
    field = _residual_bend(rng, span, strength)
    nodes = np.arange(-1, size // cell + 1, dtype=np.float32) + 0.5  # middles of the cells of 1 mm
    at_x, at_y = np.meshgrid(nodes, nodes)
    shift = field(at_x, at_y)
    turn = float(rng.choice([0.0, rng.normal(0, 0.06), rng.uniform(-0.6, 0.6)], p=[0.3, 0.5, 0.2]))
    quarter = int(rng.choice(4, p=[0.6, 0.14, 0.12, 0.14]))
    turned = np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), quarter)
    extent = np.array([page.style.width_mm, page.style.height_mm])
    centre = rng.uniform(-0.1 * span, extent + 0.1 * span)
    lines = np.array(page.style.grid_phase)  # where the page's 5 mm lines are
    origin = np.round((centre - turned @ np.full(2, span / 2) - lines) / 5) * 5 + lines
    paper = (np.stack([at_x, at_y], -1) + shift) @ turned.T + origin
    forward = _to_picture(capture, turn, rng.normal(0, 0.03) if photo else 0.0)
    low, high = paper.min((0, 1)) - 1, paper.max((0, 1)) + 1
    picture, corner = _photographed(page, capture, (low[0], low[1], high[0], high[1]), forward, rng)
    seen = (paper @ forward.T - corner - 0.5).astype(np.float32)
    inner = slice(cell, cell + size)
    raster = np.asarray(cv2.resize(seen, None, fx=cell, fy=cell, interpolation=cv2.INTER_LINEAR))
    raster = raster[inner, inner]
    pixels = cv2.remap(picture, raster[..., 0], raster[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return BendSample(pixels=np.asarray(pixels, np.uint8), shift_mm=shift[1:-1, 1:-1])


def _class_shares(page: DrawnPage) -> ByteArray:
    return np.stack([(page.classes == k).view(np.uint8) * 255 for k in (GRID, TRACE, TEXT)], -1)


def supersampling(ink_px_per_mm: float, px_per_mm: float) -> int:
    """Return how many steps a side a picture's pixel is sampled in: the ink raster is finer, so average, do not pick.

    Parameters
    ----------
    ink_px_per_mm, px_per_mm : float
        Of the drawn page and of the picture of it.
    """
    return max(1, int(np.ceil(0.6 * ink_px_per_mm / px_per_mm)))


def _halved(picture: cv2.typing.MatLike, steps: int = 2) -> ByteArray:
    """Average `steps` x `steps` pixels."""
    size = (picture.shape[1] // steps, picture.shape[0] // steps)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _through(page: DrawnPage, map_x: FloatArray, map_y: FloatArray) -> tuple[ByteArray, npt.NDArray[np.bool_]]:
    """Return the page seen through a map (h, w) of its pixels, and where the map leaves the page."""
    h, w = page.classes.shape
    picture = cv2.remap(page.pixels, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    outside = (map_x < 0) | (map_y < 0) | (map_x > w - 1) | (map_y > h - 1)
    return np.asarray(picture, np.uint8), outside


def page_samples(page: DrawnPage, size: int, count: int, rng: np.random.Generator) -> list[PageSample]:
    """Cut crops in the page frame, in any rotation, perspective and bend.

    Parameters
    ----------
    page : DrawnPage
    size : int
        Pixels, both sides.
    count : int
        Crops of one capture.
    rng : Generator
        All chance comes from it.
    """
    page = page.coarse()
    shares = _class_shares(page)
    capture = random_capture(rng)
    photo = capture.kind == "photo"
    bend_mm, kinks = (rng.uniform(0, 5), int(rng.integers(0, 4))) if photo else (rng.uniform(0, 0.4), 0)
    warp = Warp(rng, bend_mm, kinks=kinks)
    turn = rng.choice(4, p=[0.7, 0.12, 0.06, 0.12]) * np.pi / 2 + rng.normal(0, 0.2 if photo else 0.02)
    return [_page_sample(page, shares, size, capture, warp, turn, rng) for _ in range(count)]


def _page_sample(
    page: DrawnPage,
    shares: ByteArray,
    size: int,
    capture: Capture,
    warp: Warp,
    turn: float,
    rng: np.random.Generator,
) -> PageSample:
    scale = float(np.exp(rng.uniform(np.log(2.8), np.log(8.0))))
    u = (np.arange(0, 2 * size + 1, 16, dtype=np.float32) - size) / (2 * scale)  # mm from the crop's centre
    ux, uy = np.meshgrid(u, u)
    if capture.kind == "photo":
        lean = rng.normal(0, 0.0012, 2)
        depth = np.maximum(1 + lean[0] * ux + lean[1] * uy, 0.4)
        ux, uy = ux / depth, uy / depth
    if rng.random() < 0.9:
        centre = rng.uniform([-8, -8], [page.style.width_mm + 8, page.style.height_mm + 8])
    else:
        centre = rng.uniform(0, 60, 2)
    x = np.cos(turn) * ux - np.sin(turn) * uy + centre[0]
    y = np.sin(turn) * ux + np.cos(turn) * uy + centre[1]
    dx, dy = warp(x.astype(np.float32), y.astype(np.float32))
    map_x, map_y = (_every_pixel((v + d) * page.px_per_mm - 0.5, 2 * size) for v, d in ((x, dx), (y, dy)))
    big, outside = _through(page, map_x, map_y)
    if outside.any():
        big[outside] = desk((2 * size, 2 * size), rng)[outside] if capture.kind in ("photo", "scan") else 255
    truth = cv2.remap(shares, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    if capture.kind == "photo" and rng.random() < 0.12:
        held = finger(2 * size, 2 * scale, rng)
        skin = np.array([1.0, 0.78, 0.65]) * rng.uniform(90, 235)
        big = np.asarray(big * (1 - held[..., None]) + skin * held[..., None], np.uint8)
        truth[held > 0.3] = 0
    return PageSample(pixels=expose(_halved(big), capture, scale, rng), classes=_halved(truth))


def finger(size: int, px_per_mm: float, rng: np.random.Generator) -> FloatArray:
    """Return what a fingertip that holds the page hides of a crop, (size, size) in [0, 1].

    Parameters
    ----------
    size : int
        Pixels, both sides.
    px_per_mm : float
    rng : Generator
        All chance comes from it.
    """
    mask = np.zeros((size, size), np.float32)
    border, along = float(rng.choice([-0.1, 1.1])), rng.uniform(0, 1)
    root = np.array([border, along] if rng.random() < 0.5 else [along, border])
    tip = root + (rng.uniform(0.2, 0.8, 2) - root) * rng.uniform(0.2, 0.7)
    ends = [(round(x), round(y)) for x, y in (np.stack([root, tip]) * size).tolist()]
    cv2.line(mask, ends[0], ends[1], 1.0, max(1, round(rng.uniform(12, 20) * px_per_mm)), cv2.LINE_AA)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), max(0.4 * px_per_mm, 0.5)), np.float32)


def _every_pixel(nodes: npt.NDArray[np.floating], size: int) -> FloatArray:
    """Interpolate a map known at every 16th pixel, (size, size)."""
    whole = cv2.resize(nodes.astype(np.float32), None, fx=16, fy=16, interpolation=cv2.INTER_LINEAR)
    return np.asarray(whole[8 : 8 + size, 8 : 8 + size], np.float32)


def _to_canvas(x_mm: FloatArray, y_mm: FloatArray, warp: Warp) -> tuple[FloatArray, FloatArray]:
    """Move drawn points to where the canvas shows them: canvas p shows paper p + warp(p), so p = paper - warp(p)."""
    dx, dy = warp(x_mm, y_mm)
    dx, dy = warp(x_mm - dx, y_mm - dy)
    return x_mm - dx, y_mm - dy


def layout_sample(page: DrawnPage, size: int, rng: np.random.Generator) -> LayoutSample:
    """Cut one crop of the canvas for the layout network; one in six is turned by 90, 180 or 270 degrees and empty.

    Parameters
    ----------
    page : DrawnPage
    size : int
        Pixels, both sides.
    rng : Generator
        All chance comes from it.
    """
    page = page.coarse()
    r = networks.LAYOUT.px_per_mm
    span = size / r
    capture = random_capture(rng)
    warp = Warp(rng, rng.uniform(0, 1.0) if capture.kind == "photo" else rng.uniform(0, 0.2))
    stretch = np.exp(rng.normal(0, 0.03))
    low = np.array([-0.3 * span, -0.3 * span])
    high = np.maximum(np.array([page.style.width_mm, page.style.height_mm]) - 0.7 * span, low + 1)
    x0, y0 = rng.uniform(low, high)
    grid = (np.arange(2 * size) + 0.5) / (2 * r) * stretch
    x, y = np.meshgrid((grid + x0).astype(np.float32), (grid + y0).astype(np.float32))
    dx, dy = warp(x, y)
    map_x = (x + dx) * np.float32(page.px_per_mm) - np.float32(0.5)
    map_y = (y + dy) * np.float32(page.px_per_mm) - np.float32(0.5)
    big, outside = _through(page, map_x, map_y)
    if outside.any():
        big[outside] = desk((2 * size, 2 * size), rng)[outside] if rng.random() < 0.5 else 255
    pixels = expose(_halved(big), capture, r, rng)
    quarter = int(rng.integers(1, 4)) if rng.random() < 0.16 else 0
    if quarter:
        return LayoutSample(pixels=np.rot90(pixels, quarter).copy(), bands=np.zeros((size, size, 3), np.uint8))

    def fixed(x_mm: Points, y_mm: Points) -> npt.NDArray[np.int32]:
        """Return points of the sheet as cv2's sixteenths of a crop pixel, (n, 2)."""
        cx, cy = _to_canvas(np.asarray(x_mm, np.float32), np.asarray(y_mm, np.float32), warp)
        points = np.stack([(cx - x0) / stretch * r - 0.5, (cy - y0) / stretch * r - 0.5], -1)
        return np.asarray(np.round(np.clip(points, -4000, 4000) * 16), np.int32)

    return LayoutSample(pixels=pixels, bands=_bands(page, size, fixed))


def _bands(page: DrawnPage, size: int, fixed: Callable[[Points, Points], npt.NDArray[np.int32]]) -> ByteArray:
    """Draw where rows run, where columns start and end, and where calibration pulses stand, (size, size, 3)."""
    bands = np.zeros((size, size, 3), np.uint8)

    def draw(channel: int, points: npt.NDArray[np.int32], width_mm: float) -> None:
        mark = np.zeros((size, size), np.uint8)
        cv2.polylines(mark, [points], False, 255, round(width_mm * networks.LAYOUT.px_per_mm), cv2.LINE_AA, shift=4)
        np.maximum(bands[..., channel], mark, out=bands[..., channel])

    for row in page.rows:
        first, last = row.segments[0].x0_mm, row.segments[-1].x1_mm
        draw(0, fixed(np.linspace(first, last, 40), np.full(40, row.baseline_mm)), 2.4)
        for at in [*(s.x0_mm for s in row.segments), last]:
            draw(1, fixed(np.full(2, at), row.baseline_mm + np.array([-4.0, 4.0])), 1.2)
    pulses = np.zeros((size, size), np.uint8)
    for px0, py0, px1, py1 in page.pulses:
        corners = fixed(np.array([px0, px1, px1, px0]), np.array([py0, py0, py1, py1]))
        cv2.fillPoly(pulses, [corners], 255, shift=4)
    bands[..., 2] = pulses
    return bands


def row_samples(page: DrawnPage, width: int, count: int, rng: np.random.Generator) -> list[RowSample]:
    """Cut crops around random rows for the trace network.

    Parameters
    ----------
    page : DrawnPage
    width : int
        Pixels of the canvas.
    count : int
    rng : Generator
        All chance comes from it.
    """
    return [_row_sample(page, width, rng) for _ in range(count)]


def _row_sample(page: DrawnPage, width: int, rng: np.random.Generator) -> RowSample:
    height = networks.TRACE.crop_px[0]
    finest = 1.2 * page.px_per_mm
    capture = random_capture(rng, finest_px_per_mm=finest)
    photo = capture.kind == "photo"
    warp = Warp(rng, rng.uniform(0, 0.8) if photo else rng.uniform(0, 0.15), shortest_mm=40)
    row = page.rows[int(rng.integers(len(page.rows)))]
    span = width / networks.TRACE.px_per_mm_x
    if rng.random() < 0.35:  # see the ends often: pulse and start, or the last sample
        x0 = rng.choice([row.segments[0].x0_mm, row.segments[-1].x1_mm]) - rng.uniform(0.1, 0.9) * span
    else:
        x0 = rng.uniform(row.segments[0].x0_mm - 6, max(row.segments[-1].x1_mm + 6 - span, row.segments[0].x0_mm))
    y0 = row.baseline_mm - networks.TRACE.height_mm / 2 + rng.normal(0, 1.2)
    turn = float(rng.choice([0.0, rng.normal(0, 0.03), rng.uniform(-0.6, 0.6)], p=[0.3, 0.4, 0.3]))
    forward = _to_picture(capture, turn, rng.normal(0, 0.03) if photo else 0.0, finest_px_per_mm=finest)
    box = (x0 - 2, y0 - 2, x0 + span + 2, y0 + networks.TRACE.height_mm + 2)
    picture, origin = _photographed(page, capture, box, forward, rng)
    # picture -> canvas, with the residual the rectifier leaves; a finer picture is averaged, as the tracer's strips are
    scale = float(np.sqrt(abs(np.linalg.det(forward))))
    fx, fy = (max(1, round(scale / step)) for step in (networks.TRACE.px_per_mm_x, networks.TRACE.px_per_mm_y))
    px, py = _canvas_points(x0, y0, width, height, warp, (fx, fy))
    map_x = forward[0, 0] * px + forward[0, 1] * py - origin[0] - 0.5
    map_y = forward[1, 0] * px + forward[1, 1] * py - origin[1] - 0.5
    raster_x, raster_y = map_x.astype(np.float32), map_y.astype(np.float32)
    method = cv2.INTER_CUBIC if fx * fy == 1 else cv2.INTER_LINEAR
    pixels = cv2.remap(picture, raster_x, raster_y, method, borderMode=cv2.BORDER_REPLICATE)
    if fx * fy > 1:
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    line_x, line_y = _to_canvas(row.x_mm, row.line_mm, warp)
    n_columns = round(width / networks.TRACE.px_per_mm_x * networks.ROW_COLUMNS_PER_MM)
    at = x0 + (np.arange(n_columns) + 0.5) / networks.ROW_COLUMNS_PER_MM
    y_bin = _bins(np.interp(at, line_x, line_y, left=np.nan, right=np.nan), y0)
    return RowSample(
        pixels=np.asarray(pixels, np.uint8),
        y_bin=np.clip(y_bin, 0, networks.ROW_BINS - 1).astype(np.float32),
        spike_bin=_spikes(page, row, at, y0, warp),
    )


def _bins(y_mm: Points, y0_mm: float) -> Points:
    """Return heights on the canvas in bins of the trace network, from the top of a crop."""
    return (y_mm - y0_mm) / networks.TRACE.height_mm * networks.ROW_BINS - 0.5


def _spikes(page: DrawnPage, row: DrawnRow, at_mm: Points, y0_mm: float, warp: Warp) -> FloatArray:
    """Return foot and tip in bins of every spike of a row in its nearest column of `at_mm` (n,), NaN elsewhere."""
    spike_bin = np.full((len(at_mm), 2), np.nan, np.float32)
    step = at_mm[1] - at_mm[0]
    for spike in page.spikes:
        if page.rows[spike.row] is row:
            x, y = _to_canvas(
                np.full(2, spike.x_mm, np.float32), np.array([spike.foot_mm, spike.tip_mm], np.float32), warp
            )
            column = round(float((x.mean() - at_mm[0]) / step))
            if 0 <= column < len(at_mm):
                spike_bin[column] = _bins(y.astype(np.float64), y0_mm)
    return spike_bin


def _to_picture(
    capture: Capture, turn: float, shear: float = 0.0, *, finest_px_per_mm: float = 12.0
) -> npt.NDArray[np.float64]:
    """Return the linear map from paper mm to pixels of a picture (2, 2): its resolution, a rotation, a little shear."""
    scale = min(max(capture.native_px_per_mm, 3.3), finest_px_per_mm)
    return scale * np.array([[np.cos(turn), -np.sin(turn) + shear], [np.sin(turn), np.cos(turn)]])


def _photographed(
    page: DrawnPage,
    capture: Capture,
    box: tuple[float, float, float, float],
    forward: npt.NDArray[np.float64],
    rng: np.random.Generator,
) -> tuple[ByteArray, npt.NDArray[np.float64]]:
    """Take a picture of a box (x0, y0, x1, y1 in mm) of the page through the linear map `forward` (px per mm).

    Returns the picture (h, w, 3) and the map's value (x, y) at its top left corner.
    """
    x0, y0, x1, y1 = box
    corners = (forward @ np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]).T).T
    origin = np.floor(corners.min(0))
    picture_w, picture_h = (int(v) + 1 for v in np.ceil(corners.max(0) - origin))
    inverse = np.linalg.inv(forward)
    scale = float(np.sqrt(abs(np.linalg.det(forward))))
    oversample = supersampling(page.px_per_mm, scale)
    offset = page.px_per_mm * inverse @ (origin + 0.5 / oversample) - 0.5
    matrix = np.hstack([inverse * page.px_per_mm / oversample, offset[:, None]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    raster = (picture_w * oversample, picture_h * oversample)
    drawn = cv2.warpAffine(page.pixels, matrix, raster, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    inside = x0 > 0 and y0 > 0 and x1 < page.style.width_mm and y1 < page.style.height_mm
    if not inside and capture.kind in ("photo", "scan") and rng.random() < 0.7:
        off_page = (
            cv2.warpAffine(
                page.classes,
                matrix,
                raster,
                flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=255,
            )
            == 255
        )
        drawn[off_page] = desk((raster[1], raster[0]), rng)[off_page]
    picture = np.asarray(drawn, np.uint8) if oversample == 1 else _halved(drawn, oversample)
    return expose(picture, capture, scale, rng), origin


def label_samples(page: DrawnPage, rng: np.random.Generator) -> list[LabelSample]:
    """Cut windows around every lead name, some of them turned, and as many around other print and trace.

    Parameters
    ----------
    page : DrawnPage
    rng : Generator
        All chance comes from it.
    """
    page = page.coarse()
    samples = []
    ink = np.flatnonzero(page.classes.ravel() >= TRACE)
    text = np.flatnonzero(page.classes.ravel() == TEXT)
    names = np.array([[label.x_mm, label.y_mm] for label in page.labels]).reshape(-1, 2)
    for label in page.labels:
        at = np.array([label.x_mm, label.y_mm]) + rng.normal(0, 1, 2) * (0.8, 0.45)
        quarter = int(rng.choice([0, 1, 2, 3], p=[0.76, 0.05, 0.14, 0.05]))
        lead = 0 if quarter or label.lead not in NAMED_LEADS else NAMED_LEADS.index(label.lead) + 1
        samples.append(LabelSample(pixels=_window(page, at, quarter, rng), lead=lead))
        pool = text if text.size and rng.random() < 0.6 else ink
        i, j = np.divmod(int(pool[int(rng.integers(pool.size))]), page.classes.shape[1])
        at = np.array([j, i]) / page.px_per_mm + rng.normal(0, 1.5, 2)
        if np.min(np.hypot(*(names - at).T)) > 6:
            samples.append(LabelSample(pixels=_window(page, at, 0, rng), lead=0))
    return samples


def _window(page: DrawnPage, centre_mm: Points, quarter: int, rng: np.random.Generator) -> ByteArray:
    """Show the paper around a point as the label network's canvas does, (48, 96, 3)."""
    capture = random_capture(rng)
    height, width = networks.LABEL.crop_px
    turn = rng.normal(0, 0.03) if rng.random() < 0.7 else rng.uniform(-0.6, 0.6)
    forward = _to_picture(capture, turn)
    box = (centre_mm[0] - 8, centre_mm[1] - 8, centre_mm[0] + 8, centre_mm[1] + 8)
    picture, origin = _photographed(page, capture, box, forward, rng)
    # canvas -> picture: quarter turns and the small scale error the rectifier leaves
    angle = quarter * np.pi / 2
    turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = forward @ turned * np.exp(rng.normal(0, 0.04)) / networks.LABEL.px_per_mm
    corner = forward @ centre_mm - origin - linear @ np.array([width / 2, height / 2])
    matrix = np.hstack([linear, (corner + linear @ np.array([0.5, 0.5]) - 0.5)[:, None]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return np.asarray(
        cv2.warpAffine(picture, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE), np.uint8
    )


def _canvas_points(
    x0: float, y0: float, width: int, height: int, warp: Warp, finer: tuple[int, int]
) -> tuple[FloatArray, FloatArray]:
    """Paper point (mm) under every canvas pixel of a row crop; the warp is smooth, so every 16th pixel will do."""
    step = 16
    width, height = width * finer[0], height * finer[1]
    across, down = networks.TRACE.px_per_mm_x * finer[0], networks.TRACE.px_per_mm_y * finer[1]
    gx = x0 + (np.arange(-(-width // step), dtype=np.float32) * step + step / 2) / across
    gy = y0 + (np.arange(-(-height // step), dtype=np.float32) * step + step / 2) / down
    dx, dy = (
        np.asarray(cv2.resize(d, None, fx=step, fy=step, interpolation=cv2.INTER_LINEAR), d.dtype)[:height, :width]
        for d in warp(*np.meshgrid(gx, gy))
    )
    px = (x0 + (np.arange(width, dtype=np.float32) + 0.5) / across)[None] + dx
    py = (y0 + (np.arange(height, dtype=np.float32) + 0.5) / down)[:, None] + dy
    return px, py
