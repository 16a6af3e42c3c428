"""From a drawn page to what a scanner, copier or telephone makes of it, with the truth carried along.

Three kinds of training sample come out, one per network: page crops (page frame, any rotation and perspective),
layout crops (canvas at `LAYOUT_PX_PER_MM`) and row crops (canvas at the trace network's resolution).  A canvas is never
perfectly flat: a small smooth residual warp stays in it, and the truth follows.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.datatypes import LEADS, ByteArray, FloatArray
from pipeline.training.synth import GRID, INK_PX_PER_MM, TEXT, TRACE, DrawnPage
from pipeline.unet import (
    LAYOUT_PX_PER_MM,
    PULSE_CLASS,
    ROW_BINS,
    ROW_HEIGHT_MM,
    TRACE_COLUMNS_PER_MM,
    TRACE_PX_PER_MM_X,
    TRACE_PX_PER_MM_Y,
)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class PageSample:
    """A crop in the page frame."""

    pixels: ByteArray  # (n, n, 3)
    classes: ByteArray  # (n, n, 3) share of grid, trace, text in [0, 255]


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class LayoutSample:
    """A crop of the canvas for the layout network."""

    pixels: ByteArray  # (n, n, 3)
    classes: ByteArray  # (n, n) 0 background, 1..12 leads, 13 pulse
    bands: ByteArray  # (n, n, 2) row band, column boundary in [0, 255]


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class RowSample:
    """A crop around one row for the trace network."""

    pixels: ByteArray  # (h, w, 3)
    y_bin: FloatArray  # (columns,) centre line in bins from the crop's top; NaN = none


class Warp:
    """A smooth displacement of the sheet in mm: a few long waves and, for paper that was folded, kinks."""

    def __init__(self, rng: np.random.Generator, amplitude_mm: float, kinks: int = 0, shortest_mm: float = 50.0) -> None:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """What the camera, scanner or copier does to colours."""

    kind: str  # clean | scan | copy | photo
    blur_mm: float
    motion_mm: float
    noise: float
    jpeg_quality: int  # 0 = none
    gamma: float
    contrast: float
    cast: tuple[float, float, float]
    grey: bool
    threshold: float  # > 0: a 1-bit copy
    light: float  # strength of the gradient
    shadows: int
    creases: int
    glare: float
    native_px_per_mm: float  # resolution the picture once had


def random_capture(rng: np.random.Generator) -> Capture:
    """Draw a capture from what reaches a PACS."""
    kind = str(rng.choice(["clean", "scan", "copy", "photo"], p=[0.18, 0.32, 0.14, 0.36]))
    photo = kind == "photo"
    dirty = kind != "clean"
    return Capture(
        kind=kind,
        blur_mm=float(rng.uniform(0, 0.22 if photo else 0.12)) if dirty else 0.0,
        motion_mm=float(rng.uniform(0, 0.5)) if photo and rng.random() < 0.2 else 0.0,
        noise=float(rng.uniform(0, 14 if photo else 8)) if dirty else 0.0,
        jpeg_quality=int(rng.integers(25, 96)) if rng.random() < 0.6 else 0,
        gamma=float(np.exp(rng.normal(0, 0.25))) if dirty else 1.0,
        contrast=float(rng.uniform(0.45, 1.05)) if photo else float(rng.uniform(0.8, 1.1)) if dirty else 1.0,
        cast=tuple(float(v) for v in rng.normal(1, 0.07, 3)) if photo else (1.0, 1.0, 1.0),
        grey=bool(kind == "copy" or rng.random() < 0.1),
        threshold=float(rng.uniform(0.35, 0.75)) if kind == "copy" and rng.random() < 0.5 else 0.0,
        light=float(rng.uniform(0, 0.5)) if photo else float(rng.uniform(0, 0.08)),
        shadows=int(rng.integers(0, 4)) if photo else 0,
        creases=int(rng.integers(0, 5)) if photo or (kind == "scan" and rng.random() < 0.3) else 0,
        glare=float(rng.uniform(0.1, 0.5)) if photo and rng.random() < 0.12 else 0.0,
        native_px_per_mm=float(rng.choice([rng.uniform(3.3, 6), rng.uniform(6, 13)], p=[0.25, 0.75])),
    )


def _lighting(capture: Capture, shape: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Return the light on every pixel, (h, w)."""
    h, w = shape
    y, x = np.mgrid[0:32, 0:32].astype(np.float32) / 31 - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    light = 1 + np.float32(capture.light) * (np.cos(angle) * x + np.sin(angle) * y - 0.3)
    light += np.float32(capture.light * 0.4) * np.sin(rng.uniform(1, 6) * x + rng.uniform(1, 6) * y + rng.uniform(0, 6)).astype(np.float32)
    light = cv2.resize(light.astype(np.float32), (w, h), interpolation=cv2.INTER_CUBIC)
    for _ in range(capture.shadows):
        mask = np.zeros((64, 64), np.float32)
        cv2.fillPoly(mask, [rng.integers(-30, 94, (4, 2)).astype(np.int32)], 1.0)
        mask = cv2.GaussianBlur(mask, (0, 0), float(rng.uniform(0.8, 8)))
        light *= 1 - np.float32(rng.uniform(0.05, 0.4)) * cv2.resize(mask, (w, h), interpolation=cv2.INTER_LINEAR)
    yy, xx = np.ogrid[0:h, 0:w]
    for _ in range(capture.creases):
        turn, at, width = rng.uniform(0, np.pi), rng.uniform(0, max(h, w)), rng.uniform(2, 25)
        distance = (np.cos(turn) * xx + np.sin(turn) * yy - at).astype(np.float32) / np.float32(width)
        light += np.float32(rng.normal(0, 0.12)) * np.exp(-(distance**2)) * np.sign(distance + rng.normal(0, 1))
    return np.clip(light, 0.15, 1.6)


def expose(pixels: ByteArray, capture: Capture, px_per_mm: float, rng: np.random.Generator) -> ByteArray:
    """Apply a capture to a picture whose scale is `px_per_mm`; (h, w, 3) uint8 in and out."""
    h, w = pixels.shape[:2]
    image = pixels
    if capture.native_px_per_mm < px_per_mm * 0.8:
        ratio = capture.native_px_per_mm / px_per_mm
        small = cv2.resize(image, (max(8, round(w * ratio)), max(8, round(h * ratio))), interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, (w, h), interpolation=int(rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC])))
    sigma = capture.blur_mm * px_per_mm
    if sigma > 0.25:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    reach = int(capture.motion_mm * px_per_mm)
    if reach >= 2:
        kernel = np.zeros((reach * 2 + 1, reach * 2 + 1), np.float32)
        turn = rng.uniform(0, np.pi)
        offset = np.array([np.cos(turn), np.sin(turn)]) * reach / 2
        cv2.line(kernel, tuple(int(v) for v in reach - offset), tuple(int(v) for v in reach + offset), 1.0, 1)
        image = cv2.filter2D(image, -1, kernel / kernel.sum())
    if capture.kind == "clean" and not capture.grey:
        return _jpeg(image, capture.jpeg_quality)
    value = image.astype(np.float32) / 255
    if capture.grey:
        value = np.repeat(value @ np.float32([[0.299], [0.587], [0.114]]), 3, axis=2)
    if capture.gamma != 1:
        value **= np.float32(capture.gamma)
    value = (value - 1) * np.float32(capture.contrast) + 1
    if capture.light > 0.02 or capture.shadows or capture.creases:
        value *= _lighting(capture, (h, w), rng)[..., None]
    value *= np.float32(capture.cast)
    if capture.glare:
        spot = np.exp(-(((np.arange(w) - rng.uniform(0, w)) / (0.2 * w)) ** 2)[None] - (((np.arange(h) - rng.uniform(0, h)) / (0.2 * h)) ** 2)[:, None])
        value += np.float32(capture.glare) * spot[..., None].astype(np.float32)
    if capture.noise:
        value += rng.standard_normal((h, w, 1 if capture.grey else 3), np.float32) * np.float32(capture.noise / 255)
    if capture.threshold:
        value = (value > np.median(value) * (0.4 + 0.5 * capture.threshold)).astype(np.float32)
        value = cv2.GaussianBlur(value, (0, 0), 0.45)
    return _jpeg((np.clip(value, 0, 1) * 255).astype(np.uint8), capture.jpeg_quality)


def _jpeg(image: ByteArray, quality: int) -> ByteArray:
    if not quality:
        return image
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(data, cv2.IMREAD_COLOR).astype(np.uint8, copy=False)


def _desk(shape: tuple[int, int], rng: np.random.Generator) -> ByteArray:
    """Return something a page may lie on, (h, w, 3)."""
    h, w = shape
    colour = rng.uniform(20, 235, 3) * rng.uniform(0.5, 1) if rng.random() < 0.5 else np.full(3, rng.uniform(0, 250))
    texture = np.zeros((h, w), np.float32)
    for cells in (4, 16, 64):
        shape_c = (cells, max(1, cells // int(rng.choice([1, 1, 8]))))
        texture += cv2.resize(rng.normal(0, 1, shape_c).astype(np.float32), (w, h), interpolation=cv2.INTER_CUBIC) * rng.uniform(0, 14)
    if rng.random() < 0.3:  # straight structures that are no grid
        turn = rng.uniform(0, np.pi)
        yy, xx = np.ogrid[0:h, 0:w]
        texture += 18 * np.sign(np.sin((np.cos(turn) * xx + np.sin(turn) * yy) * rng.uniform(0.03, 0.4)))
    return np.clip(colour + texture[..., None], 0, 255).astype(np.uint8)


def _class_shares(page: DrawnPage) -> ByteArray:
    return np.stack([(page.classes == k).view(np.uint8) * 255 for k in (GRID, TRACE, TEXT)], -1)


def page_samples(page: DrawnPage, size: int, count: int, rng: np.random.Generator) -> list[PageSample]:
    """Cut `count` crops of `size` pixels in the page frame, any rotation, perspective and bend."""
    shares = _class_shares(page)
    samples = []
    capture = random_capture(rng)
    photo = capture.kind == "photo"
    warp = Warp(rng, rng.uniform(0, 5) if photo else rng.uniform(0, 0.4), kinks=int(rng.integers(0, 4)) if photo else 0)
    turn = rng.choice(4, p=[0.7, 0.12, 0.06, 0.12]) * np.pi / 2 + (rng.normal(0, 0.2) if photo else rng.normal(0, 0.02))
    h, w = page.classes.shape
    for _ in range(count):
        scale = float(np.exp(rng.uniform(np.log(2.8), np.log(8.0))))
        u = (np.arange(0, 2 * size + 1, 16, dtype=np.float32) - size) / (2 * scale)  # mm from the crop's centre
        ux, uy = np.meshgrid(u, u)
        if photo:
            lean = rng.normal(0, 0.0012, 2)
            depth = np.maximum(1 + lean[0] * ux + lean[1] * uy, 0.4)
            ux, uy = ux / depth, uy / depth
        centre = rng.uniform([-8, -8], [page.style.width_mm + 8, page.style.height_mm + 8]) if rng.random() < 0.9 else rng.uniform(0, 60, 2)
        x = np.cos(turn) * ux - np.sin(turn) * uy + centre[0]
        y = np.sin(turn) * ux + np.cos(turn) * uy + centre[1]
        dx, dy = warp(x.astype(np.float32), y.astype(np.float32))
        map_x, map_y = (cv2.resize(((v + d) * INK_PX_PER_MM - 0.5).astype(np.float32), None, fx=16, fy=16, interpolation=cv2.INTER_LINEAR)[8 : 8 + 2 * size, 8 : 8 + 2 * size] for v, d in ((x, dx), (y, dy)))
        big = cv2.remap(page.pixels, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        outside = (map_x < 0) | (map_y < 0) | (map_x > w - 1) | (map_y > h - 1)
        if outside.any():
            big[outside] = _desk((2 * size, 2 * size), rng)[outside] if capture.kind in ("photo", "scan") else 255
        truth = cv2.remap(shares, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        picture = cv2.resize(big, (size, size), interpolation=cv2.INTER_AREA)
        samples.append(PageSample(pixels=expose(picture, capture, scale, rng), classes=cv2.resize(truth, (size, size), interpolation=cv2.INTER_AREA)))
    return samples


def _to_canvas(x_mm: FloatArray, y_mm: FloatArray, warp: Warp) -> tuple[FloatArray, FloatArray]:
    """Move drawn points to where the canvas shows them: canvas p shows paper p + warp(p), so p = paper - warp(p)."""
    dx, dy = warp(x_mm, y_mm)
    dx, dy = warp(x_mm - dx, y_mm - dy)
    return x_mm - dx, y_mm - dy


def layout_sample(page: DrawnPage, size: int, rng: np.random.Generator) -> LayoutSample:
    """Cut one crop of the canvas for the layout network; one in six is turned by 90, 180 or 270 degrees and empty."""
    r = LAYOUT_PX_PER_MM
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
    map_x, map_y = (x + dx) * np.float32(INK_PX_PER_MM) - np.float32(0.5), (y + dy) * np.float32(INK_PX_PER_MM) - np.float32(0.5)
    big = cv2.remap(page.pixels, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    h, w = page.classes.shape
    outside = (map_x < 0) | (map_y < 0) | (map_x > w - 1) | (map_y > h - 1)
    if outside.any():
        big[outside] = _desk((2 * size, 2 * size), rng)[outside] if rng.random() < 0.5 else 255
    pixels = expose(cv2.resize(big, (size, size), interpolation=cv2.INTER_AREA), capture, r, rng)
    quarter = int(rng.integers(1, 4)) if rng.random() < 0.16 else 0
    classes = np.zeros((size, size), np.uint8)
    bands = np.zeros((size, size, 2), np.uint8)
    if quarter:
        return LayoutSample(pixels=np.rot90(pixels, quarter).copy(), classes=classes, bands=bands)

    def to_px(x_mm: FloatArray, y_mm: FloatArray) -> FloatArray:
        cx, cy = _to_canvas(np.float32(x_mm), np.float32(y_mm), warp)
        return np.stack([(cx - x0) / stretch * r - 0.5, (cy - y0) / stretch * r - 0.5], -1)

    def fixed(points: FloatArray) -> np.ndarray:
        return np.round(np.clip(points, -4000, 4000) * 16).astype(np.int32)

    for row in page.rows:
        ends = [row.segments[0].x0_mm, row.segments[-1].x1_mm]
        line = np.linspace(*ends, 40)
        band = np.zeros((size, size), np.uint8)
        cv2.polylines(band, [fixed(to_px(line, np.full(40, row.baseline_mm)))], False, 255, round(2.4 * r), cv2.LINE_AA, shift=4)
        np.maximum(bands[..., 0], band, out=bands[..., 0])
        for at in [s.x0_mm for s in row.segments] + ends[1:]:
            mark = np.zeros((size, size), np.uint8)
            cv2.polylines(mark, [fixed(to_px(np.full(2, at), row.baseline_mm + np.array([-4.0, 4.0])))], False, 255, round(1.2 * r), cv2.LINE_AA, shift=4)
            np.maximum(bands[..., 1], mark, out=bands[..., 1])
    for px0, py0, px1, py1 in page.pulses:
        corners = to_px(np.array([px0, px1, px1, px0]), np.array([py0, py0, py1, py1]))
        cv2.fillPoly(classes, [fixed(corners)], PULSE_CLASS, shift=4)
    for label in page.labels:
        centre = to_px(np.array([label.x_mm]), np.array([label.y_mm]))[0]
        cv2.circle(classes, tuple(int(v) for v in fixed(centre)), round(page.style.label_mm * 0.5 * r * 16), LEADS.index(label.lead) + 1, -1, shift=4)
    return LayoutSample(pixels=pixels, classes=classes, bands=bands)


def row_samples(page: DrawnPage, width: int, count: int, rng: np.random.Generator) -> list[RowSample]:
    """Cut `count` crops around random rows for the trace network, `width` canvas pixels wide."""
    return [_row_sample(page, width, rng) for _ in range(count)]


def _row_sample(page: DrawnPage, width: int, rng: np.random.Generator) -> RowSample:
    height = round(ROW_HEIGHT_MM * TRACE_PX_PER_MM_Y)
    capture = random_capture(rng)
    photo = capture.kind == "photo"
    warp = Warp(rng, rng.uniform(0, 0.8) if photo else rng.uniform(0, 0.15), shortest_mm=40)
    row = page.rows[int(rng.integers(len(page.rows)))]
    span = width / TRACE_PX_PER_MM_X
    if rng.random() < 0.25:  # see the ends often: pulse and start, or the last sample
        x0 = rng.choice([row.segments[0].x0_mm, row.segments[-1].x1_mm]) - rng.uniform(0.1, 0.9) * span
    else:
        x0 = rng.uniform(row.segments[0].x0_mm - 6, max(row.segments[-1].x1_mm + 6 - span, row.segments[0].x0_mm))
    y0 = row.baseline_mm - ROW_HEIGHT_MM / 2 + rng.normal(0, 1.2)
    # paper -> picture: scale, slight or any rotation, a little shear
    scale = min(max(capture.native_px_per_mm, 3.3), 12.0)
    turn = float(rng.choice([0.0, rng.normal(0, 0.03), rng.uniform(-0.6, 0.6)], p=[0.3, 0.4, 0.3]))
    shear = rng.normal(0, 0.03) if photo else 0.0
    forward = scale * np.array([[np.cos(turn), -np.sin(turn) + shear], [np.sin(turn), np.cos(turn)]])
    corners = (forward @ (np.array([[-2, -2], [span + 2, -2], [span + 2, ROW_HEIGHT_MM + 2], [-2, ROW_HEIGHT_MM + 2]]) + [x0, y0]).T).T
    origin = np.floor(corners.min(0))
    size = np.ceil(corners.max(0) - origin).astype(int) + 1
    inverse = np.linalg.inv(forward)
    oversample = 2 if scale < 6 else 1  # the ink raster is finer than the picture: average, do not pick
    offset = INK_PX_PER_MM * inverse @ (origin + 0.5 / oversample) - 0.5
    matrix = np.hstack([inverse * INK_PX_PER_MM / oversample, offset[:, None]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    picture = cv2.warpAffine(page.pixels, matrix, tuple((size * oversample).tolist()), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    if oversample > 1:
        picture = cv2.resize(picture, tuple(size.tolist()), interpolation=cv2.INTER_AREA)
    picture = expose(picture, capture, scale, rng)
    # picture -> canvas, with the residual the rectifier leaves
    px, py = _canvas_points(x0, y0, width, height, warp)
    map_x = forward[0, 0] * px + forward[0, 1] * py - origin[0] - 0.5
    map_y = forward[1, 0] * px + forward[1, 1] * py - origin[1] - 0.5
    pixels = cv2.remap(picture, map_x.astype(np.float32), map_y.astype(np.float32), cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    line_x, line_y = _to_canvas(row.x_mm, row.y_mm, warp)
    at = x0 + (np.arange(width * 2) + 0.5) / TRACE_COLUMNS_PER_MM
    y_mm = np.interp(at, line_x, line_y, left=np.nan, right=np.nan)
    y_bin = (y_mm - y0) / ROW_HEIGHT_MM * ROW_BINS - 0.5
    y_bin[(y_bin < 0) | (y_bin > ROW_BINS - 1)] = np.nan
    return RowSample(pixels=pixels, y_bin=y_bin.astype(np.float32))


def _canvas_points(x0: float, y0: float, width: int, height: int, warp: Warp) -> tuple[FloatArray, FloatArray]:
    """Paper point (mm) under every canvas pixel of a row crop; the warp is smooth, so every 16th pixel will do."""
    step = 16
    gx = x0 + (np.arange(-(-width // step), dtype=np.float32) * step + step / 2) / TRACE_PX_PER_MM_X
    gy = y0 + (np.arange(-(-height // step), dtype=np.float32) * step + step / 2) / TRACE_PX_PER_MM_Y
    dx, dy = warp(*np.meshgrid(gx, gy))
    dx, dy = (cv2.resize(d, None, fx=step, fy=step, interpolation=cv2.INTER_LINEAR)[:height, :width] for d in (dx, dy))
    px = (x0 + (np.arange(width, dtype=np.float32) + 0.5) / TRACE_PX_PER_MM_X)[None] + dx
    py = (y0 + (np.arange(height, dtype=np.float32) + 0.5) / TRACE_PX_PER_MM_Y)[:, None] + dy
    return px, py
