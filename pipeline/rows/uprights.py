"""The upright lines of the grid, taken out of the strips of rows before they are traced.

A steep wave beside an upright grid line is read too near to the line.  Such lines are told from waves and pacing
spikes: they run through all rows, and like lines stand 5 and 10 mm beside them.  How dark each column is beside its
neighbours, over most of all rows' height, is the line; it is taken out of the strips, in part where a pixel is darker
than the line, not at all where it is ink.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.datatypes import ByteArray, FloatArray
from pipeline.networks.specification import TRACE
from pipeline.threads import side_by_side


def upright_lines(strips: ByteArray, *, widest_mm: float = 1.3, share: float = 0.6, every: int = 8) -> FloatArray:
    """Measure how much of the paper's light upright lines let through.

    Parameters
    ----------
    strips : (n, h, w, 3) uint8
        All rows of a page, cut at the same paper columns.
    widest_mm : float
        Wider lines are left alone.
    share : float
        Of the height, at which a column is judged.
    every : int
        Pixel rows from one that is looked at to the next.

    Returns
    -------
    numpy.ndarray
        (w, 3), 1 where no line is.
    """
    seen = np.ascontiguousarray(strips[:, ::every]).reshape(-1, *strips.shape[2:])
    width = int(widest_mm * TRACE.px_per_mm_x) | 1
    light, at = np.sort(seen / np.maximum(_paper(seen, width), 1), axis=0), share * (len(seen) - 1)
    between = light[int(at) : int(at) + 2]  # sorted first: five times as fast as the quantile of all
    column = np.quantile(between, at - int(at), axis=0)[None].astype(np.float32)
    dark = 1 - np.clip(column / np.maximum(_paper(column, width), 0.2), 0.3, 1.0)[0]
    return np.asarray(1 - np.minimum(dark, _beside(dark, TRACE.px_per_mm_x)), np.float32)


def ink_without_lines(ink: FloatArray, px_per_mm: float, *, every: int = 5, least: float = 0.02) -> FloatArray:
    """Return the ink of a strip, (h, n), without that of upright grid lines; the pen's stays as dark as it is.

    Parameters
    ----------
    ink : (h, n) float32
        0 = paper, 1 = the pen's.
    px_per_mm : float
        Along the width.
    every : int
        Pixel rows from one that is looked at to the next: not a millimetre, or all may lie on level lines.
    least : float
        Ink of a line; columns with less are left as they are.
    """
    seen = ink[::every].copy()
    seen.sort(axis=0)  # several times as fast as the median
    dark = seen[len(seen) // 2].clip(0, 0.9)[:, None]
    line = np.minimum(dark, _beside(dark, px_per_mm))[:, 0]
    columns = np.flatnonzero(line > least)
    if columns.size == 0:
        return ink
    bare, part, line = ink.copy(), ink[:, columns], line[columns]
    bare[:, columns] = np.maximum((part - line) / (1 - line), np.minimum(part, 0))
    return bare


def _beside(dark: FloatArray, px_per_mm: float, *, grid_mm: float = 5.0) -> FloatArray:
    """Return how dark at least two of the columns are that stand 5 and 10 mm to both sides of each column (w, k)."""
    step = round(grid_mm * px_per_mm)
    near = np.pad(cv2.dilate(dark, np.ones((3, 1), np.uint8)), ((2 * step, 2 * step), (0, 0)))
    beside = np.stack([near[k * step : k * step + len(dark)] for k in (0, 1, 3, 4)])
    return np.asarray(np.sort(beside, axis=0)[-2], np.float32)


def _paper(picture: npt.NDArray[Any], width: int) -> FloatArray:
    """Return what (h, w, 3) shows without dark upright lines up to `width` pixels wide."""
    closed = cv2.morphologyEx(picture, cv2.MORPH_CLOSE, np.ones((1, width), np.uint8))
    return np.asarray(cv2.blur(closed, (2 * width + 1, 1)), np.float32)


def without_lines(
    strips: ByteArray, through: FloatArray, *, ink: float = 0.3, least: float = 0.98, block: int = 16
) -> ByteArray:
    """Take upright lines out of strips.

    Parameters
    ----------
    strips : (n, h, w, 3) uint8
    through : (w, 3) float32
        As `upright_lines` measures it.
    ink : float
        Of the paper's light, that the darkest ink sends back.
    least : float
        Columns that let more light through are left as they are.
    block : int
        Pixel rows at once, few enough for the processor's cache.

    Returns
    -------
    numpy.ndarray
        (n, h, w, 3) uint8.
    """
    columns = np.flatnonzero(through.min(1) < least)
    if columns.size == 0:
        return strips
    bare = strips.copy()

    def lighten(strip: ByteArray) -> None:
        level = _level(strip, columns)
        for first in range(0, len(strip), block):
            part, paper = strip[first : first + block], level[first : first + block]
            seen = part[:, columns].astype(np.float32)
            line, darkest = paper * through[columns], ink * paper
            free = seen - darkest
            free /= np.maximum(line - darkest, 1)
            np.clip(free, 0, 1, out=free)  # share of a pixel without ink
            paper -= line
            free *= paper
            free += seen
            part[:, columns] = np.clip(free, 0, 255, out=free)

    side_by_side(lighten, bare)
    return bare


def _level(strip: ByteArray, columns: npt.NDArray[np.intp], *, cell_px: int = 8) -> FloatArray:
    """Return the light of the blank paper around the pixels of some columns (m,) of a strip: (h, m, 3)."""
    height, width = strip.shape[:2]
    small = cv2.resize(strip, (max(width // cell_px, 1), max(height // cell_px, 1)), interpolation=cv2.INTER_AREA)
    small = cv2.blur(cv2.dilate(small, np.ones((3, 3), np.uint8)), (3, 3))
    near = small[:, np.minimum(columns // cell_px, small.shape[1] - 1)]
    return np.asarray(cv2.resize(near, (columns.size, height), interpolation=cv2.INTER_LINEAR), np.float32)
