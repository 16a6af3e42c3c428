"""The ink of one row: how dark it is, how wide the pen, and what a line looks like that is drawn with it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter1d

from pipeline.datatypes import ByteArray, FloatArray
from pipeline.networks.specification import ROW_COLUMNS_PER_MM
from pipeline.rows.uprights import ink_without_lines

Float64 = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

PX_PER_MM_X, PX_PER_MM_Y = ROW_COLUMNS_PER_MM, 8.0  # of a strip: a pixel for every column of the trace
_DRAWN_PX_PER_MM = 40.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pen:
    """What draws a row."""

    width_mm: float
    blur_mm: float  # standard deviation
    darkness: float  # of covered paper; the centre of a level line has 1


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class InkStrip:
    """A row's strip as ink."""

    ink: FloatArray  # (h, n), 0 = paper, 1 = the centre of a level line
    y_px: FloatArray  # (n,) the line; pixel centres are whole numbers
    there: Flags  # (n,) where the line is printed
    pen: Pen


def ink_strip(strip: ByteArray, y_px: FloatArray, there: Flags, *, least_mm: float = 20.0) -> InkStrip | None:
    """See a strip as ink, its upright grid lines left out; None where less than `least_mm` of a level line is printed.

    Parameters
    ----------
    strip : (h, n, 3) uint8
        RGB, PX_PER_MM_X by PX_PER_MM_Y.
    y_px : (n,) float32
        The line, in pixels from the strip's first.
    there : (n,) bool
        Where it is printed.
    """
    slope = np.abs(uniform_filter1d(np.gradient(y_px), 11))
    inside = there & (y_px > 21) & (y_px < len(strip) - 22)
    level = np.flatnonzero(inside & (slope < 0.1))
    if len(level) < least_mm * PX_PER_MM_X:
        return None
    ink = _unmixed(strip, y_px, level)
    if ink is None:
        return None
    ink = ink_without_lines(ink, PX_PER_MM_X)
    pen = _measured(ink, y_px, level, np.flatnonzero(inside & (slope > 2)))
    return None if pen is None else InkStrip(ink=ink, y_px=y_px, there=there, pen=pen)


def _unmixed(strip: ByteArray, y_px: FloatArray, level: npt.NDArray[np.int64]) -> FloatArray | None:
    """Return the ink of every pixel (h, n): the mixture of colours that best tells a line from paper and grid.

    None where the line is no darker than paper.
    """
    at = level[::3]
    rows = np.round(y_px[at]).astype(np.int64)
    line = strip[rows, at].astype(np.float64)
    beside = np.concatenate([strip[rows + k, at] for k in (*range(-20, -7), *range(8, 21))]).astype(np.float64)
    spread = np.cov(beside.T) + 16 * np.eye(3)
    paper = np.median(beside, 0)
    towards = paper - line.mean(0)
    weights = np.linalg.solve(spread, towards)
    plain = float(towards @ weights)
    if plain < 1:
        return None
    weights /= plain
    return np.asarray(float(paper @ weights) - strip @ weights.astype(np.float32), np.float32)


def _measured(
    ink: FloatArray, y_px: FloatArray, level: npt.NDArray[np.int64], steep: npt.NDArray[np.int64], *, reach: int = 8
) -> Pen | None:
    """Measure the pen across its level stretches, and how dark covered paper is where waves are steep."""
    offsets = np.arange(-reach, reach + 1)
    across = ink[np.round(y_px[level]).astype(np.int64)[:, None] + offsets, level[:, None]].astype(np.float64)
    across = (across - np.median(across[:, [0, 1, -2, -1]], 1, keepdims=True)).clip(0)
    totals = across.sum(1)
    low, high = np.quantile(totals, [0.1, 0.4])  # a shaking line is tall in its columns
    thin = across[(totals >= low) & (totals <= high) & (totals > 0)]
    if not len(thin):
        return None
    centres = thin @ offsets / thin.sum(1)
    variance = float(np.median((thin * (offsets - centres[:, None]) ** 2).sum(1) / thin.sum(1))) / PX_PER_MM_Y**2
    total = float(np.median(thin.sum(1))) / PX_PER_MM_Y
    darkest = float(np.quantile(ink[np.round(y_px[steep]).astype(np.int64), steep], 0.9)) if len(steep) > 20 else 0.0
    darkness = max(darkest, float(np.median(thin.max(1))))
    if len(steep) > 20:  # across the limbs of steep waves, where a shaking line is as thin as its pen
        columns = np.clip(steep[:, None] + np.arange(-10, 11), 0, ink.shape[1] - 1)
        limbs = ink[np.round(y_px[steep]).astype(np.int64)[:, None], columns].clip(0).sum(1) / PX_PER_MM_X
        total = min(total, float(np.quantile(limbs, 0.2)))
    width = total / darkness
    return Pen(width_mm=width, blur_mm=float(np.sqrt(max(variance - width**2 / 12, 0.03**2))), darkness=darkness)


def drawn(x_px: Float64, y_px: Float64, shape: tuple[int, int], pen: Pen) -> FloatArray:
    """Draw lines, x (n,) and y (k, n), with a pen: ink of k patches (k, h, w) of a strip, at the strip's pixels."""
    scale_x, scale_y = _DRAWN_PX_PER_MM / PX_PER_MM_X, _DRAWN_PX_PER_MM / PX_PER_MM_Y
    fine = round(shape[0] * scale_y), round(shape[1] * scale_x)
    canvas = np.zeros((len(y_px), *fine), np.uint8)
    width = max(1, round(pen.width_mm * _DRAWN_PX_PER_MM))
    for picture, y in zip(canvas, y_px, strict=True):
        points = np.stack([(x_px + 0.5) * scale_x - 0.5, (y + 0.5) * scale_y - 0.5], 1)
        cv2.polylines(picture, [np.round(points * 16).astype(np.int32)], False, 255, width, cv2.LINE_AA, shift=4)
    down, across = (_seen_through(*sizes, pen.blur_mm) for sizes in zip(fine, shape, strict=True))
    return np.asarray(down @ canvas.astype(np.float32) @ across.T * np.float32(pen.darkness / 255))


@lru_cache(maxsize=64)
def _seen_through(fine: int, n: int, blur_mm: float) -> FloatArray:
    """Return the matrix (n, fine) that blurs what is drawn at `fine` pixels and averages it over the strip's `n`."""
    sigma = blur_mm * _DRAWN_PX_PER_MM
    blurred = cv2.GaussianBlur(np.eye(fine, dtype=np.float32), (1, round(8 * sigma + 1) | 1), sigma)
    return np.asarray(cv2.resize(blurred, (fine, n), interpolation=cv2.INTER_AREA))
