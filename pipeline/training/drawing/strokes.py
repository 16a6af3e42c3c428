"""Strokes of drawn pages for the spike network: found on rows as the digitizer finds them, and their truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

from pipeline.datatypes import ByteArray, FloatArray
from pipeline.rows.pen import PX_PER_MM_X, PX_PER_MM_Y, ink_strip
from pipeline.rows.spikes import Stroke, pictures, strokes_of
from pipeline.training.drawing.capture import random_capture
from pipeline.training.drawing.render import photograph_flat
from pipeline.training.drawing.synth import INK_PX_PER_MM, DrawnPage, DrawnRow, DrawnSpike

_MARGIN_MM = 12.0  # of a row's strip, above and below its waves
_UNCLEAR = (0.45, 1.7)  # of a stroke's height: a spike that ends outside is part of another wave; it teaches nothing


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class StrokeSample:
    """A stroke as the spike network is shown it."""

    pixels: ByteArray  # (40, 124, 3)
    share: float  # height of the spike beside the stroke's; 0 = it is none


def stroke_samples(page: DrawnPage, count: int, rng: np.random.Generator) -> list[StrokeSample]:
    """Find strokes on the rows of a page, half of them spikes if there are so many.

    Parameters
    ----------
    page : DrawnPage
    count : int
        Of samples, at most.
    rng : Generator
        All chance comes from it.
    """
    finer = page.px_per_mm / INK_PX_PER_MM
    pixels, to_pixel = photograph_flat(page, random_capture(rng), finer * float(rng.uniform(5.0, 11.8)), rng)
    first = min(row.segments[0].x0_mm for row in page.rows)
    last = max(row.segments[-1].x1_mm for row in page.rows)
    x_mm = np.arange(first, last, 1 / PX_PER_MM_X)
    spikes = [[spike for spike in page.spikes if page.rows[spike.row] is row] for row in page.rows]
    row_mm = np.stack([_traced(row, x_mm, own, rng) for row, own in zip(page.rows, spikes, strict=True)])
    starts = np.array([segment.x0_mm for row in page.rows for segment in row.segments])
    clear = (np.abs(x_mm[:, None] - starts) > 1.5).all(1)
    samples = []
    for k in rng.permutation(len(row_mm)).tolist():
        there = np.isfinite(row_mm[k]) & clear
        if not there.any():
            continue
        top_mm, bottom_mm = np.nanmin(row_mm[k]) - _MARGIN_MM, np.nanmax(row_mm[k]) + _MARGIN_MM
        strip = _flat(pixels, to_pixel, x_mm, np.arange(top_mm, bottom_mm, 1 / PX_PER_MM_Y))
        lines_px = ((row_mm - top_mm) * PX_PER_MM_Y).astype(np.float32)
        ink = ink_strip(strip, np.where(there, lines_px[k], 0).astype(np.float32), there)
        if ink is not None:
            strokes = strokes_of(ink)
            shares = [_share(stroke, spikes[k], x_mm[0]) for stroke in strokes]
            shown = pictures(ink, strokes, np.delete(lines_px, k, 0))
            samples += [StrokeSample(pixels=a, share=b) for a, b in zip(shown, shares, strict=True) if b is not None]
    ordered = [samples[n] for n in rng.permutation(len(samples))]
    yes = [one for one in ordered if one.share > 0][: count // 2]
    return [*yes, *[one for one in ordered if one.share == 0][: count - len(yes)]]


def _traced(
    row: DrawnRow, x_mm: npt.NDArray[np.float64], spikes: Sequence[DrawnSpike], rng: np.random.Generator
) -> FloatArray:
    """Return a row's line (n,) as it is traced: smoother than drawn, trembling, drawn towards some of its spikes."""
    known = np.isfinite(row.line_mm)
    line = np.interp(x_mm, row.x_mm[known], row.line_mm[known])
    line = gaussian_filter1d(line, rng.uniform(0.7, 2.5))
    line += gaussian_filter1d(rng.normal(0, 1, len(line)), 8) * rng.uniform(0.05, 0.4)
    often = rng.random()
    for spike in spikes:
        height = spike.tip_mm - spike.foot_mm
        if rng.random() < max(often, 0.25 if abs(height) < 8 else 0.08):
            off = np.arange(len(line)) - (spike.x_mm - x_mm[0]) * PX_PER_MM_X
            share = rng.uniform(0.05, 1.0 if abs(height) < 8 else 0.5)
            line += share * height * np.exp(-0.5 * ((off - rng.normal(0, 1)) / rng.uniform(1.5, 4.0)) ** 2)
    within = np.zeros(len(line), bool)
    for segment in row.segments:
        within |= (x_mm >= segment.x0_mm) & (x_mm <= segment.x1_mm)
    return np.where(within, line, np.nan).astype(np.float32)


def _flat(
    pixels: ByteArray, to_pixel: npt.NDArray[np.float64], x_mm: npt.NDArray[np.float64], y_mm: npt.NDArray[np.float64]
) -> ByteArray:
    """Return the strip (len(y_mm), len(x_mm), 3) of a picture; `to_pixel` (2, 3) maps paper to its pixels."""
    steps = np.array([[1 / PX_PER_MM_X, 0, x_mm[0]], [0, 1 / PX_PER_MM_Y, y_mm[0]], [0, 0, 1]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    white = (255, 255, 255)
    size = (len(x_mm), len(y_mm))
    return np.asarray(cv2.warpAffine(pixels, to_pixel @ steps, size, flags=flags, borderValue=white), np.uint8)


def _share(stroke: Stroke, spikes: Sequence[DrawnSpike], x0_mm: float, *, same: int = 4) -> float | None:
    """Return how tall the spike is beside the stroke that shows it, 0 if it shows none, None if that is not clear."""
    height = abs(stroke.tip_px - stroke.foot_px) / PX_PER_MM_Y
    near = [
        (abs((spike.x_mm - x0_mm) * PX_PER_MM_X - stroke.column), abs(spike.tip_mm - spike.foot_mm))
        for spike in spikes
        if (spike.tip_mm < spike.foot_mm) == (stroke.sign < 0)
    ]
    off, true = min(near, default=(np.inf, 0.0))
    if off > same:
        return 0.0
    share = true / max(height, 0.1)
    return share if _UNCLEAR[0] <= share <= _UNCLEAR[1] else None
