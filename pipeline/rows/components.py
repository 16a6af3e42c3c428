"""Ink map -> lines, after the paper (arXiv 2510.19590, "Segmentation-to-trace conversion").

Connected components of the trace map; a component whose column centroids leave its own ink holds several rows and is
snipped along the left-right path of least resistance, again and again; the pieces are rejoined by linear sum
assignment (modified Jonker-Volgenant) of right ends to left ends, with a weighted Manhattan cost, backward links at
double cost, and wrap-around links that are allowed in the matching and dropped after it.

The centroid of thick ink cuts peaks, so these lines serve association (which rows are there, and where), not values.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from pipeline.datatypes import FloatArray, RowBand
from pipeline.sheet.paper import Sheet, canvas_raster


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class InkLine:
    """One line of ink: for every column of the map a weighted mean row, NaN where it has none."""

    y: FloatArray  # (w,) map rows

    @property
    def ends(self) -> tuple[int, int]:
        """First and last column with ink."""
        columns = np.flatnonzero(np.isfinite(self.y))
        return int(columns[0]), int(columns[-1])


def _centroids(ink: FloatArray) -> FloatArray:
    """Weighted mean row of each column of (h, w); NaN where empty."""
    weight = ink.sum(0)
    rows = np.arange(ink.shape[0], dtype=np.float32)[:, None]
    return np.where(weight > 0, (ink * rows).sum(0) / np.maximum(weight, 1e-9), np.nan).astype(np.float32)


def _is_one_line(ink: FloatArray, *, share: float = 0.95) -> bool:
    """Whether in `share` of its columns the centroid of a component lies on its own ink."""
    y = _centroids(ink)
    columns = np.flatnonzero(np.isfinite(y))
    return bool((ink[np.rint(y[columns]).astype(int), columns] > 0).mean() >= share)


def _snip(ink: FloatArray, *, jump: int = 4) -> FloatArray:
    """Cut a component along the cheapest left-right path; the path's ink is removed.

    Cost is the ink crossed plus a price for straying to the border of the component, where nothing would be parted.
    """
    h, w = ink.shape
    border = np.linspace(-1, 1, h, dtype=np.float32) ** 6
    cost = ink + border[:, None] * 0.5
    total = cost[:, 0].copy()
    back = np.zeros((w, h), np.int32)
    rows = np.arange(h)
    for column in range(1, w):
        padded = np.pad(total, jump, constant_values=np.inf)
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * jump + 1)
        windows = windows + 0.02 * np.arange(-jump, jump + 1) ** 2
        step = windows.argmin(1)
        back[column] = np.clip(rows + step - jump, 0, h - 1)
        total = windows[rows, step] + cost[:, column]
    row = int(total.argmin())
    cut = ink.copy()
    for column in range(w - 1, -1, -1):
        cut[max(row - 1, 0) : row + 1, column] = 0
        row = int(back[column, row])
    return cut


def _pieces(ink: FloatArray, *, least: float, rounds: int) -> list[FloatArray]:
    """Components of the map (each an ink line (w,)), multi-row ones snipped up to `rounds` times."""
    waiting = [(ink, 0, 0, 0)]  # map, its row and column offset, rounds spent
    lines = []
    width = ink.shape[1]
    while waiting:
        part, top, left, spent = waiting.pop()
        count, index, stats, _ = cv2.connectedComponentsWithStats((part > 0).astype(np.uint8), connectivity=4)
        for k in range(1, count):
            x, y, w, h, area = (int(v) for v in stats[k])
            if area < least:
                continue
            piece = np.where(index[y : y + h, x : x + w] == k, part[y : y + h, x : x + w], 0).astype(np.float32)
            if spent < rounds and not _is_one_line(piece):
                waiting.append((_snip(piece), top + y, left + x, spent + 1))
                continue
            line = np.full(width, np.nan, np.float32)
            line[left + x : left + x + w] = _centroids(piece) + top + y
            lines.append(line)
    return lines


def _link(lines: list[FloatArray], width: int) -> list[list[int]]:
    """Chains of pieces that follow each other, by assignment of right ends to left ends."""
    ends = np.array([InkLine(y=line).ends for line in lines])
    first_y = np.array([line[a] for line, (a, _) in zip(lines, ends, strict=True)])
    last_y = np.array([line[b] for line, (_, b) in zip(lines, ends, strict=True)])
    dx = (ends[None, :, 0] - ends[:, None, 1]).astype(np.float64)  # from right end i to left end j
    wrapped = dx < -0.5 * width
    backward = (dx < 0) & ~wrapped
    along = np.where(wrapped, 0.5 * (dx + width), np.where(backward, -2.0 * dx, dx))
    cost = along + 3.0 * np.abs(first_y[None] - last_y[:, None])
    np.fill_diagonal(cost, np.where(np.diag(wrapped), np.diag(cost), 4.0 * width))
    followers = dict(zip(*(v.tolist() for v in linear_sum_assignment(cost)), strict=True))
    wanted = ~wrapped & (cost < 0.25 * width) & (dx > -20)
    links = {i: j for i, j in followers.items() if i != j and wanted[i, j]}
    chains = []
    for start in sorted(set(range(len(lines))) - set(links.values())):
        chain = [start]
        while chain[-1] in links and links[chain[-1]] not in chain:
            chain.append(links[chain[-1]])
        chains.append(chain)
    return chains


def ink_lines(
    trace_map: FloatArray, *, threshold: float = 0.3, rounds: int = 4, shortest: float = 0.2
) -> list[InkLine]:
    """Return the lines of ink on a rectified trace map, top to bottom.

    Parameters
    ----------
    trace_map : (h, w) float32 in [0, 1]
        Of the flat sheet.
    threshold : float
        Ink below it does not count.
    rounds : int
        How often a component may be snipped.
    shortest : float
        Lines shorter than this share of the longest are dropped.

    Returns
    -------
    list of InkLine
    """
    ink = np.where(trace_map > threshold, trace_map, 0).astype(np.float32)
    lines = _pieces(ink, least=12, rounds=rounds)
    if not lines:
        return []
    merged = []
    for chain in _link(lines, ink.shape[1]):
        y = lines[chain[0]].copy()
        for k in chain[1:]:
            y = np.where(np.isfinite(y), y, lines[k])
        merged.append(InkLine(y=y))
    lengths = [np.isfinite(line.y).sum() for line in merged]
    kept = [line for line, length in zip(merged, lengths, strict=True) if length > shortest * max(lengths)]
    return sorted(kept, key=lambda line: float(np.nanmedian(line.y)))


def sheet_lines(sheet: Sheet, px_per_mm: float) -> list[InkLine]:
    """Return the lines of ink on a sheet, top to bottom, from its trace map at `px_per_mm`."""
    ink = sheet.ink(*canvas_raster(sheet.rectified, px_per_mm))[..., 1] / np.float32(255)
    return ink_lines(ink.astype(np.float32))


def rows_of_ink(lines: list[InkLine], px_per_mm: float) -> tuple[RowBand, ...]:
    """Return a row for each line of ink: its median height and its ends on the paper frame.

    Parameters
    ----------
    lines : list of InkLine
    px_per_mm : float
        Resolution of the map the lines were found on.
    """
    bands = []
    for line in lines:
        first, last = line.ends
        baseline = (float(np.nanmedian(line.y)) + 0.5) / px_per_mm
        bands.append(RowBand(baseline_mm=baseline, x0_mm=first / px_per_mm, x1_mm=(last + 1) / px_per_mm, score=0.5))
    return tuple(bands)


def rows_from_ink(sheet: Sheet) -> tuple[RowBand, ...]:
    """Find the rows of a sheet from its ink, as the paper does: for sheets on which the layout network sees none."""
    px_per_mm = sheet.rectified.px_per_mm
    return rows_of_ink(sheet_lines(sheet, px_per_mm), px_per_mm)
