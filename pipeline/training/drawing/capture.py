"""What scanner, copier and telephone do to a picture: resolution, light, tone, noise, compression; and the desk."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.datatypes import ByteArray, FloatArray


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
    specks: int = 0  # dust, holes
    fax_lines: int = 0  # rows the scanner lost or doubled
    moire: float = 0.0  # strength of the fringes of a photographed screen
    native_px_per_mm: float  # resolution the picture once had


def _cast(rng: np.random.Generator) -> tuple[float, float, float]:
    red, green, blue = (float(v) for v in rng.normal(1, 0.07, 3))
    return red, green, blue


def random_capture(rng: np.random.Generator, *, finest_px_per_mm: float = 12.0) -> Capture:
    """Draw a capture from what reaches a PACS.

    Parameters
    ----------
    rng : Generator
        All chance comes from it.
    finest_px_per_mm : float
        Of a good picture.
    """
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
        cast=_cast(rng) if photo else (1.0, 1.0, 1.0),
        grey=bool(kind == "copy" or rng.random() < 0.1),
        threshold=float(rng.uniform(0.35, 0.75)) if kind == "copy" and rng.random() < 0.5 else 0.0,
        light=float(rng.uniform(0, 0.5)) if photo else float(rng.uniform(0, 0.08)),
        shadows=int(rng.integers(0, 4)) if photo else 0,
        creases=int(rng.integers(0, 5)) if photo or (kind == "scan" and rng.random() < 0.3) else 0,
        glare=float(rng.uniform(0.1, 0.5)) if photo and rng.random() < 0.12 else 0.0,
        specks=int(rng.integers(1, 30)) if dirty and not photo and rng.random() < 0.25 else 0,
        fax_lines=int(rng.integers(1, 6)) if kind == "copy" and rng.random() < 0.3 else 0,
        moire=float(rng.uniform(0.02, 0.12)) if photo and rng.random() < 0.08 else 0.0,
        native_px_per_mm=float(rng.choice([rng.uniform(3.3, 6), rng.uniform(6, finest_px_per_mm + 1)], p=[0.25, 0.75])),
    )


def _lighting(capture: Capture, shape: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Return the light on every pixel, (h, w)."""
    h, w = shape
    y, x = np.mgrid[0:32, 0:32].astype(np.float32) / 31 - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    light = 1 + np.float32(capture.light) * (np.cos(angle) * x + np.sin(angle) * y - 0.3)
    wave = np.sin(rng.uniform(1, 6) * x + rng.uniform(1, 6) * y + rng.uniform(0, 6)).astype(np.float32)
    light += np.float32(capture.light * 0.4) * wave
    light = np.asarray(cv2.resize(light.astype(np.float32), (w, h), interpolation=cv2.INTER_CUBIC), np.float32)
    for _ in range(capture.shadows):
        mask = np.zeros((64, 64), np.float32)
        cv2.fillPoly(mask, [rng.integers(-30, 94, (4, 2)).astype(np.int32)], 1.0)
        soft = cv2.GaussianBlur(mask, (0, 0), float(rng.uniform(0.8, 8)))
        depth = np.float32(rng.uniform(0.05, 0.4))
        light *= 1 - depth * np.asarray(cv2.resize(soft, (w, h), interpolation=cv2.INTER_LINEAR), np.float32)
    yy, xx = np.ogrid[0:h, 0:w]
    for _ in range(capture.creases):
        turn, at, width = rng.uniform(0, np.pi), rng.uniform(0, max(h, w)), rng.uniform(2, 25)
        distance = (np.cos(turn) * xx + np.sin(turn) * yy - at).astype(np.float32) / np.float32(width)
        light += np.float32(rng.normal(0, 0.12)) * np.exp(-(distance**2)) * np.sign(distance + rng.normal(0, 1))
    return np.asarray(np.clip(light, 0.15, 1.6), np.float32)


def expose(pixels: ByteArray, capture: Capture, px_per_mm: float, rng: np.random.Generator) -> ByteArray:
    """Apply a capture to a picture.

    Parameters
    ----------
    pixels : (h, w, 3) uint8
    capture : Capture
    px_per_mm : float
        Of the picture.
    rng : Generator
        All chance comes from it.

    Returns
    -------
    (h, w, 3) uint8
    """
    image = _optics(pixels, capture, px_per_mm, rng)
    if capture.kind == "clean" and not capture.grey:
        return _jpeg(image, capture.jpeg_quality)
    return _jpeg(_tones(image, capture, rng), capture.jpeg_quality)


def _optics(image: ByteArray, capture: Capture, px_per_mm: float, rng: np.random.Generator) -> ByteArray:
    """Lose resolution: few pixels, a soft lens, a moving hand."""
    h, w = image.shape[:2]
    if capture.native_px_per_mm < px_per_mm * 0.8:
        ratio = capture.native_px_per_mm / px_per_mm
        small = cv2.resize(image, (max(8, round(w * ratio)), max(8, round(h * ratio))), interpolation=cv2.INTER_AREA)
        kernel = int(rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC]))
        image = np.asarray(cv2.resize(small, (w, h), interpolation=kernel), np.uint8)
    sigma = capture.blur_mm * px_per_mm
    if sigma > 0.25:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)
    reach = int(capture.motion_mm * px_per_mm)
    if reach >= 2:
        image = np.asarray(cv2.filter2D(image, -1, _motion(reach, rng)), np.uint8)
    return image


def _motion(reach: int, rng: np.random.Generator) -> FloatArray:
    """Return the kernel of a hand that moves `reach` pixels."""
    kernel = np.zeros((reach * 2 + 1, reach * 2 + 1), np.float32)
    turn = rng.uniform(0, np.pi)
    dx, dy = np.cos(turn) * reach / 2, np.sin(turn) * reach / 2
    cv2.line(kernel, (int(reach - dx), int(reach - dy)), (int(reach + dx), int(reach + dy)), 1.0, 1)
    return np.asarray(kernel / kernel.sum(), np.float32)


def _tones(image: ByteArray, capture: Capture, rng: np.random.Generator) -> ByteArray:
    """Change brightness and colour: tone curve, light, cast, glare, noise, the copier's threshold."""
    h, w = image.shape[:2]
    value = image.astype(np.float32) / 255
    if capture.grey:
        value = np.repeat(value @ np.array([[0.299], [0.587], [0.114]], np.float32), 3, axis=2)
    if capture.gamma != 1:
        value **= np.float32(capture.gamma)
    value = (value - 1) * np.float32(capture.contrast) + 1
    if capture.light > 0.02 or capture.shadows or capture.creases:
        value *= _lighting(capture, (h, w), rng)[..., None]
    value *= np.array(capture.cast, np.float32)
    if capture.glare:
        along_x = ((np.arange(w) - rng.uniform(0, w)) / (0.2 * w)) ** 2
        along_y = ((np.arange(h) - rng.uniform(0, h)) / (0.2 * h)) ** 2
        spot = np.exp(-along_x[None] - along_y[:, None])
        value += np.float32(capture.glare) * spot[..., None].astype(np.float32)
    if capture.moire:
        value *= _moire(capture.moire, (h, w), rng)
    if capture.noise:
        value += rng.standard_normal((h, w, 1 if capture.grey else 3), np.float32) * np.float32(capture.noise / 255)
    if capture.threshold:
        bits = (value > np.median(value) * (0.4 + 0.5 * capture.threshold)).astype(np.float32)
        value = np.asarray(cv2.GaussianBlur(bits, (0, 0), 0.45), np.float32)
    littered = value.astype(np.float32)
    _litter(littered, capture, rng)
    return (np.clip(littered, 0, 1) * 255).astype(np.uint8)


def _moire(strength: float, shape: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Return the fringes between a screen's pixels and the camera's, (h, w, 3)."""
    yy, xx = np.ogrid[0 : shape[0], 0 : shape[1]]
    turn, length = rng.uniform(0, np.pi), rng.uniform(3, 14)
    phase = (np.cos(turn) * xx + np.sin(turn) * yy).astype(np.float32) * np.float32(2 * np.pi / length)
    bend = np.sin(yy * np.float32(rng.uniform(0, 0.02))) * np.float32(rng.uniform(0, 4))
    return np.stack([1 + np.float32(strength) * np.sin(phase + bend + shift) for shift in rng.uniform(0, 2, 3)], -1)


def _litter(value: FloatArray, capture: Capture, rng: np.random.Generator) -> None:
    """Put dust, holes and lost lines on a picture in [0, 1], in place."""
    h, w = value.shape[:2]
    for _ in range(capture.specks):
        shade = float(rng.choice([rng.uniform(0, 0.4), 1.0]))
        centre = (int(rng.integers(w)), int(rng.integers(h)))
        cv2.circle(value, centre, int(rng.choice([1, 1, 2, 5])), (shade,) * 3, -1, cv2.LINE_AA)
    for _ in range(capture.fax_lines):
        value[int(rng.integers(h))] = float(rng.choice([0.0, 1.0]))


def _jpeg(image: ByteArray, quality: int) -> ByteArray:
    if not quality:
        return image
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def desk(shape: tuple[int, int], rng: np.random.Generator) -> ByteArray:
    """Return something a page may lie on, (h, w, 3) uint8.

    Parameters
    ----------
    shape : (h, w)
    rng : Generator
        All chance comes from it.
    """
    h, w = shape
    colour = rng.uniform(20, 235, 3) * rng.uniform(0.5, 1) if rng.random() < 0.5 else np.full(3, rng.uniform(0, 250))
    texture = np.zeros((h, w), np.float32)
    for cells in (4, 16, 64):
        coarse = rng.normal(0, 1, (cells, max(1, cells // int(rng.choice([1, 1, 8])))))
        smooth = cv2.resize(coarse.astype(np.float32), (w, h), interpolation=cv2.INTER_CUBIC)
        texture += np.asarray(smooth, np.float32) * rng.uniform(0, 14)
    if rng.random() < 0.3:  # straight structures that are no grid
        turn = rng.uniform(0, np.pi)
        yy, xx = np.ogrid[0:h, 0:w]
        texture += 18 * np.sign(np.sin((np.cos(turn) * xx + np.sin(turn) * yy) * rng.uniform(0.03, 0.4)))
    return np.clip(colour + texture[..., None], 0, 255).astype(np.uint8)
