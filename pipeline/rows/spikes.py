"""Pacing spikes: thin upright strokes of ink that stand on a row's line; the line may leave them out or follow them.

A spike is ink as wide as the pen, and one or two samples of the record: it is an object with a tip, not a place of the
line.  Every stroke is shown to a small network, from nearby and from afar; what it says of all strokes of a page
together decides, for a pacemaker fires in all leads at once, again and again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter1d, minimum_filter1d
from scipy.signal import find_peaks

from pipeline.datatypes import ByteArray, FloatArray
from pipeline.networks.unet import SpikeNetwork
from pipeline.rows.pen import PX_PER_MM_X, PX_PER_MM_Y, InkStrip

_INK = 0.3  # a faint spike of a thin pen is no darker
_GAP = 3  # pixels without ink that end a stroke
_WIDEST_MM = 0.3  # of what the line follows of a spike
_LONGEST_MARK_MM = 6.0  # of what carts print below the rows
_LEAST_MM = 1.2  # length of the shortest stroke, beyond the line's own ink
_HALF_WIDTH = 5  # columns on each side of a stroke's middle that may be its own
_MOST = 200  # strokes of a row; one that has more is full of grid, and only the thin ones are looked at
_WAVE = 24  # columns on each side in which a wave would show
_BESIDE_MM, _BESIDE_PX = 3.0, 10  # of a picture, beyond the foot and beyond the tip
_COARSE = 5  # columns in one of the far picture
_PAPER, _DARKEST = 64, 128  # levels in a picture: of paper, and of the pen's ink above that
_LINE_PX = 3.2  # of a line drawn into a picture: where it has faded to 1/e


@dataclass(frozen=True, slots=True, kw_only=True)
class Stroke:
    """A stroke on a row's line; places in pixels from the strip's first row."""

    column: int
    sign: int  # -1: above the line, 1: below it
    foot_px: float  # of the line, without what it follows of the stroke
    tip_px: float  # where its ink ends
    thin: bool = True  # no wider than a spike, and on no wave


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Side:
    """What stands above (-1) or below (1) a row's line, in every column (n,)."""

    level: FloatArray  # the line without what stands out of it, as narrow as a spike
    edge: FloatArray  # where the line's own ink ends
    length: FloatArray  # how far ink goes on from there, in pixels


def strokes_of(row: InkStrip) -> list[Stroke]:
    """Find what may be spikes of a row: wherever ink goes on beyond the line's own, farther than beside.

    Parameters
    ----------
    row : InkStrip
    """
    found = []
    for sign in (-1, 1):
        side = _side(row, sign)
        least = _LEAST_MM * PX_PER_MM_Y
        peaks, _ = find_peaks(np.pad(side.length, 1), height=least, prominence=least)
        highest: list[tuple[float, int]] = []
        for peak in (peaks - 1).tolist():
            first = max(peak - _HALF_WIDTH, 0)
            near = side.length[first : peak + _HALF_WIDTH + 1]
            tall = near >= 0.7 * side.length[peak]
            highest.append((float(near.max()), first + round(float(np.flatnonzero(tall).mean()))))
        kept: list[int] = []
        for length, column in sorted(highest, reverse=True):
            if all(abs(column - other) >= _HALF_WIDTH for other in kept):
                kept.append(column)
                level, tip = float(side.level[column]), float(side.edge[column]) + sign * length
                thin = _is_thin(row, side, column, length)
                found.append(Stroke(column=column, sign=sign, foot_px=level, tip_px=tip, thin=thin))
    if len(found) > _MOST:
        found = [one for one in found if one.thin]
    return sorted(found, key=lambda one: (one.column, one.sign))


def _is_thin(row: InkStrip, side: _Side, column: int, length: float) -> bool:
    """Tell whether a stroke is no wider than a spike's ink may be, and stands on no wave."""
    widest = _widest_px(row)
    near = slice(max(column - widest, 0), column + widest + 1)
    wave = slice(max(column - _WAVE, 0), column + _WAVE + 1)
    return bool((side.length[near] > 0.3 * length).sum() <= widest and np.ptp(side.level[wave]) <= 0.4 * length)


def _widest_px(row: InkStrip) -> int:
    """Return how many columns the ink of a stroke may take."""
    return round((row.pen.width_mm + 2.5 * row.pen.blur_mm + 0.15) * PX_PER_MM_X)


def pictures(row: InkStrip, strokes: Sequence[Stroke], others_px: FloatArray) -> ByteArray:
    """Show strokes to the network, each turned so that it stands up.

    The stroke itself always takes half of the height.  Its ink is red, the row's own line green and other rows' lines
    blue.  What is lost of its size stands beside the pictures as a number, with the width and blur of the pen.

    Parameters
    ----------
    row : InkStrip
    strokes : sequence of Stroke
    others_px : (n_others, n) float32
        The lines of the page's other rows, in pixels of this strip; NaN = none.

    Returns
    -------
    numpy.ndarray
        (n_strokes, 40, 124, 3) uint8.
    """
    shown = np.empty((len(strokes), SpikeNetwork.height_px, 124, 3), np.uint8)
    for picture, stroke in zip(shown, strokes, strict=True):
        picture[:, :-2] = _picture(row, stroke, others_px)
        beyond_mm = abs(stroke.tip_px - stroke.foot_px) / PX_PER_MM_Y
        picture[:, -2:] = np.clip((8 * beyond_mm, 200 * row.pen.width_mm, 400 * row.pen.blur_mm), 0, 255)
    return shown


def middle_of(row: InkStrip, stroke: Stroke, *, reach: int = 8, beside: int = 6) -> float:
    """Return the column in the middle of a stroke's ink, with its fraction: a sample is a column wide.

    Parameters
    ----------
    row : InkStrip
    stroke : Stroke
    reach, beside : int
        Columns on each side that may be its own, and of paper beside them.
    """
    height = stroke.tip_px - stroke.foot_px
    rows = np.round(stroke.foot_px + height * np.linspace(0.25, 0.95, 24)).astype(np.int64)
    off = np.arange(-reach - beside, reach + beside + 1)
    part = row.ink[rows.clip(0, len(row.ink) - 1)][:, (stroke.column + off).clip(0, row.ink.shape[1] - 1)]
    paper = np.median(np.concatenate([part[:, :beside], part[:, -beside:]], 1), 1, keepdims=True)
    ink = np.median((part - paper).clip(0), 0)[beside:-beside]
    return stroke.column + (float(ink @ off[beside:-beside]) / float(ink.sum()) if ink.sum() > 0 else 0.0)


def _picture(row: InkStrip, stroke: Stroke, others_px: FloatArray) -> ByteArray:
    """Show one stroke from nearby and from afar."""
    reach = (SpikeNetwork.far_px * _COARSE) // 2
    beside = round(_BESIDE_MM * PX_PER_MM_Y)
    upper, lower = sorted((round(stroke.foot_px), round(stroke.tip_px)))
    foot_out = int(stroke.sign > 0)  # the pixel of the foot is the line's
    rows = np.arange(upper - beside, max(lower, upper + 2) + beside) + foot_out
    columns = np.arange(stroke.column - reach, stroke.column + reach + 1)
    window = _window(row, rows, columns, others_px)
    if stroke.sign > 0:
        window = window[::-1]
    parts = np.split(window, [beside, len(rows) - beside])
    heights = _BESIDE_PX, SpikeNetwork.height_px - 2 * _BESIDE_PX, _BESIDE_PX
    near = slice(reach - SpikeNetwork.near_px // 2, reach + SpikeNetwork.near_px // 2 + 1)
    seen = [
        np.concatenate(
            [
                cv2.resize(np.ascontiguousarray(part[:, cut]), (width, height), interpolation=cv2.INTER_AREA)
                for part, height in zip(parts, heights, strict=True)
            ]
        )
        for cut, width in ((near, SpikeNetwork.near_px), (slice(None), SpikeNetwork.far_px))
    ]
    return np.asarray(np.concatenate(seen, 1), np.uint8)


def _window(
    row: InkStrip, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], others_px: FloatArray
) -> ByteArray:
    """Return ink, own line and others' lines (len(rows), len(columns), 3) of a part of a strip; paper outside."""
    height, width = row.ink.shape
    window = np.zeros((len(rows), len(columns), 3), np.uint8)
    window[..., 0] = _PAPER
    inside = np.ix_((rows >= 0) & (rows < height), (columns >= 0) & (columns < width))
    top, left = (int(np.searchsorted(at, 0)) for at in (rows, columns))
    part = row.ink[max(rows[0], 0) : max(rows[-1] + 1, 0), max(columns[0], 0) : columns[-1] + 1]
    ink = np.clip(part * np.float32(_DARKEST) + np.float32(_PAPER), 0, 255).astype(np.uint8)
    window[top : top + len(ink), left : left + ink.shape[1], 0] = ink
    there = columns[inside[1][0]]
    lines = [(1, np.where(row.there[there], row.y_px[there], np.nan)), *((2, line[there]) for line in others_px)]
    reach = np.arange(-5, 6)[:, None]
    for channel, line in lines:
        at = np.flatnonzero((line > rows[0] - 6) & (line < rows[-1] + 6))
        if at.size:
            near = np.round(line[at]).astype(np.int64) + reach
            shade = 255 * np.exp(-(((near - line[at]) / _LINE_PX) ** 2))
            shown = (near >= max(rows[0], 0)) & (near <= min(rows[-1], height - 1))
            cells = (near - rows[0])[shown], np.broadcast_to(left + at, near.shape)[shown], channel
            window[cells] = np.maximum(window[cells], shade[shown].astype(np.uint8))
    return window


def chances(
    row: npt.NDArray[np.int64],
    column: npt.NDArray[np.int64],
    height: npt.NDArray[np.float64],
    logit: FloatArray,
    *,
    weights: tuple[float, ...] = (0.49, 0.81, 0.14, 0.84, 0.42, -0.06, 0.23, -3.66),
    same: int = 6,
    apart: int = 24,
    ratio: float = 0.65,
) -> npt.NDArray[np.float64]:
    """Return the chance that each stroke of a page is a spike, (n,), from what the network says of all.

    Parameters
    ----------
    row, column : (n,) int
        The row that a stroke stands on, and where.
    height : (n,) float
        With its sign.
    logit : (n,) float32
        What the network says of it alone.
    weights : tuple of float
        Of its own logit, of the best and second in other rows at its time, of the best and third of its height in its
        own row, of spikes on the page and of rows at its time, and a constant; fitted on drawn pages.
    same : int
        Columns within which strokes are at one time.
    apart : int
        Columns beyond which they are at another.
    ratio : float
        Of the heights of strokes that are alike.
    """
    bounded = np.clip(logit, -7.0, 7.0)
    spike = 1 / (1 + np.exp(-logit.astype(np.float64)))
    chance = np.zeros(len(row))
    for n in np.flatnonzero(bounded > -4):
        far = np.abs(column - column[n])
        at_once = (far <= same) & (row != row[n])
        best = [float(bounded[at_once & (row == k)].max()) for k in np.unique(row[at_once])]
        times = height / height[n]
        alike = bounded[(row == row[n]) & (far > apart) & (times >= ratio) & (times <= 1 / ratio)]
        first, second, *_ = sorted([*best, -7.0, -7.0], reverse=True)
        own, _, third = sorted([*alike.tolist(), -7.0, -7.0, -7.0], reverse=True)[:3]
        page = np.log1p(min(float(spike[far > apart].sum()), 40.0))
        rows = np.log1p(sum(value > 0 for value in best))
        seen = (bounded[n], *((value + 7) / 7 for value in (first, second, own, third)), page, rows, 1.0)
        chance[n] = 1 / (1 + np.exp(-float(np.dot(weights, seen))))
    return chance


def level_of(y_px: FloatArray, sign: int) -> FloatArray:
    """Return a line (n,) without what stands out of it upwards (-1) or downwards (1) and is as narrow as a spike."""
    size = 2 * round(_WIDEST_MM * PX_PER_MM_X / 2) + 1
    inwards, outwards = (maximum_filter1d, minimum_filter1d) if sign < 0 else (minimum_filter1d, maximum_filter1d)
    return np.asarray(outwards(inwards(y_px, size), size), np.float32)


def marks_of(row: InkStrip, *, ink: float = 0.5, fewest: int = 4) -> npt.NDArray[np.int64]:
    """Find the strokes that some carts print below the rows, by the beats or spikes: top and bottom, (n, 2) in pixels.

    They stand by themselves, `fewest` or more at one height, which no spike does: the line that it stands on wanders.

    Parameters
    ----------
    row : InkStrip
    ink : float
        From where on a pixel is ink.
    fewest : int
    """
    _, _, stats, _ = cv2.connectedComponentsWithStats((row.ink > ink).astype(np.uint8))
    left, top, width, height = stats[1:, :4].T
    thin = (width <= _widest_px(row)) & (height > 1.5 * width * PX_PER_MM_Y / PX_PER_MM_X)
    short = (height >= _LEAST_MM * PX_PER_MM_Y) & (height <= _LONGEST_MARK_MM * PX_PER_MM_Y)
    left, ends = left[thin & short], np.stack([top, top + height], 1)[thin & short]
    if len(left) > 5 * _MOST:  # pieces of a grid
        return np.empty((0, 2), np.int64)
    alike = (np.abs(ends[:, None] - ends) <= 2).all(2) & (np.abs(left[:, None] - left) > 2 * _WAVE)
    return np.asarray(ends[alike.sum(1) >= fewest - 1], np.int64)


def is_mark(row: InkStrip, marks: npt.NDArray[np.int64], foot_px: float, tip_px: float) -> bool:
    """Tell whether a stroke is a mark that touches the row's line: it ends where marks do, and is no longer.

    Parameters
    ----------
    row : InkStrip
    marks : (n, 2) int64
        As `marks_of` finds them.
    foot_px, tip_px : float
    """
    near, far = marks.T if tip_px > foot_px else marks.T[::-1]
    touching_px = (0.5 * row.pen.width_mm + 2 * row.pen.blur_mm + 0.3) * PX_PER_MM_Y
    beyond = np.sign(tip_px - foot_px) * (near - foot_px)
    return bool(((np.abs(far - tip_px) <= 0.5 * PX_PER_MM_Y) & (beyond <= touching_px)).any())


def _side(row: InkStrip, sign: int) -> _Side:
    """Look at the ink beyond the line's own."""
    level = level_of(row.y_px, sign)
    # no farther, though blur shows there: a spike inside a QRS complex ends before the limb beside it
    beside = 2 * round((0.4 * row.pen.width_mm + 0.5 * row.pen.blur_mm) * PX_PER_MM_X) + 1
    outermost = minimum_filter1d if sign < 0 else maximum_filter1d
    half_px = (0.5 * row.pen.width_mm + row.pen.blur_mm) * PX_PER_MM_Y
    edge = np.asarray(outermost(level, beside) + sign * half_px, np.float32)
    return _Side(level=level, edge=edge, length=_stroke_px(row, edge, sign))


def _stroke_px(row: InkStrip, edge: FloatArray, sign: int, *, block: int = 32) -> FloatArray:
    """Return how far ink goes on beyond the line's own, which ends at `edge`, in every column (n,); 0: it does not."""
    height = len(row.ink)
    start = np.round(edge).astype(np.int64)
    ahead = start if sign > 0 else height - 1 - start  # of the strip's first row, in the direction of the ink
    length = np.minimum(height, height - ahead) - np.maximum(0, -ahead)  # to the strip's edge
    length = np.where(row.there, length.clip(0), 0).astype(np.float32)
    going_on = np.flatnonzero(row.there)
    for first in range(0, height - _GAP, block):  # most columns end in the first block
        starts = np.arange(first, min(first + block, height - _GAP))
        rows = start[going_on] + sign * np.arange(first, starts[-1] + _GAP)[:, None]
        blank = (row.ink[rows.clip(0, height - 1), going_on] < _INK) & (rows >= 0) & (rows < height)
        gone = np.logical_and.reduce([blank[k : k + len(starts)] for k in range(_GAP)])
        ends = gone.any(0)
        length[going_on[ends]] = starts[gone[:, ends].argmax(0)]
        going_on = going_on[~ends]
        if not going_on.size:
            break
    return length


def without_spikes(row: InkStrip, spikes: Sequence[tuple[int, int]], *, least_mm: float = 0.2) -> FloatArray:
    """Return the line (n,) in pixels without what it follows of spikes.

    Parameters
    ----------
    row : InkStrip
    spikes : sequence of tuple
        Column and sign: -1 for one that stands above the line.
    least_mm : float
        A line that still comes out towards a spike by this much goes straight on there.
    """
    line = row.y_px.copy()
    reach, side = round(_WIDEST_MM * PX_PER_MM_X), round((0.5 * row.pen.width_mm + 0.2) * PX_PER_MM_X)
    levels = {sign: level_of(line, sign) for sign in {sign for _, sign in spikes}}
    for column, sign in spikes:
        near, part = (slice(column - off, column + off + 1) for off in (max(reach, side), side))
        if near.start < 0 or near.stop > len(line) or not row.there[near].all():
            continue
        line[near] = levels[sign][near]
        out, ends = sign * line[column - 2 : column + 3], sign * line[[part.start, part.stop - 1]]
        if out.max() - ends.max() > least_mm * PX_PER_MM_Y:
            line[part] = np.linspace(line[part.start], line[part.stop - 1], 2 * side + 1)
    return line
