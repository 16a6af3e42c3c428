"""Canvas -> PrintedMarks: rows, column starts and calibration pulses.

The paper counts rows after tracing; this network sees where they run before anything is traced.  It marks a pulse
with its feet.  Only the flat top is as long as the pulse, and some carts draw feet of several millimetres, so that
the top is measured on the page network's ink, in the upper half of the marked box, between the middles of the two
flanks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.datatypes import ByteArray, FloatArray, PrintedMarks, PulseBox, RowBand
from pipeline.networks.inference import Network
from pipeline.networks.specification import LAYOUT
from pipeline.runs import runs_of
from pipeline.sheet.paper import Sheet, raster

MM_PER_CELL = LAYOUT.cell_mm
_PX_PER_MM = 8.0  # of what a pulse is measured on


def read_marks(canvas: ByteArray, network: Network) -> PrintedMarks:
    """Find rows and pulses on a canvas.

    Parameters
    ----------
    canvas : (H, W, 3) uint8
        At the layout network's scale, its top left corner at paper (0, 0).
    network : Network
        The layout network.

    Returns
    -------
    PrintedMarks
    """
    (bands,) = network.run(canvas[None])
    h, w = -(-canvas.shape[0] // LAYOUT.stride_px), -(-canvas.shape[1] // LAYOUT.stride_px)
    lines = bands[0, :, :h, :w].sigmoid().numpy()
    rows = _rows(lines[0], lines[1])
    return PrintedMarks(rows=tuple(rows), pulses=tuple(apart(_pulses(lines[2]), [row.baseline_mm for row in rows])))


def _blobs(mask: npt.NDArray[np.bool_], weight: FloatArray) -> list[tuple[float, float, float, npt.NDArray[np.int32]]]:
    """Return (x, y, summed weight, box) of each connected blob; x and y in mm, weighted; box x, y, w, h, area."""
    count, index, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    rows, columns = np.nonzero(mask)
    own, shares = index[mask], weight[mask]
    total = np.bincount(own, shares, count)
    x, y = (np.bincount(own, shares * at, count) / np.maximum(total, 1e-9) for at in (columns, rows))
    return [
        (float((x[k] + 0.5) * MM_PER_CELL), float((y[k] + 0.5) * MM_PER_CELL), float(total[k]), stats[k])
        for k in range(1, count)
    ]


def _rows(band: FloatArray, boundary: FloatArray, *, shortest_mm: float = 18.0, same_mm: float = 3.5) -> list[RowBand]:
    """Join band blobs of one height into rows; attach the boundary marks near each."""
    reach = int(12 / MM_PER_CELL)
    joined = cv2.morphologyEx((band > 0.5).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((1, reach), np.uint8)) > 0
    pieces = [
        (y, stats[cv2.CC_STAT_LEFT] * MM_PER_CELL, (stats[cv2.CC_STAT_LEFT] + stats[cv2.CC_STAT_WIDTH]) * MM_PER_CELL)
        for _, y, total, stats in _blobs(joined, np.where(joined, np.maximum(band, 0.05), 0).astype(np.float32))
        if total > 4
    ]
    rows: list[list[tuple[float, float, float]]] = []
    for piece in sorted(pieces):
        if rows and abs(np.mean([p[0] for p in rows[-1]]) - piece[0]) < same_mm:
            rows[-1].append(piece)
        else:
            rows.append([piece])
    marks = [(x, y) for x, y, total, _ in _blobs(boundary > 0.4, boundary) if total * MM_PER_CELL**2 > 1.5]
    found = []
    for row in rows:
        lengths = np.array([p[2] - p[1] for p in row])
        baseline = float(np.average([p[0] for p in row], weights=lengths))
        if lengths.sum() >= shortest_mm:
            x0, x1 = min(p[1] for p in row), max(p[2] for p in row)
            near = sorted(x for x, y in marks if abs(y - baseline) < same_mm and x0 - 6 < x < x1 + 6)
            score = min(1.0, float(lengths.sum() / (x1 - x0)))
            found.append(RowBand(baseline_mm=baseline, x0_mm=x0, x1_mm=x1, boundaries_mm=tuple(near), score=score))
    return found


def _pulses(probability: FloatArray) -> list[PulseBox]:
    """Boxes of the calibration pulses."""
    boxes = []
    for _, _, _, stats in _blobs(probability > 0.5, probability):
        x, y, w, h, area = (float(v) for v in stats)
        if area * MM_PER_CELL**2 > 6 and area > 0.6 * w * h:
            x0, y0, x1, y1 = (v * MM_PER_CELL for v in (x, y, x + w, y + h))
            boxes.append(PulseBox(x0_mm=x0, y0_mm=y0, x1_mm=x1, y1_mm=y1))
    return boxes


def apart(pulses: Sequence[PulseBox], baselines_mm: Sequence[float], *, same_mm: float = 2.5) -> list[PulseBox]:
    """Separate pulses that touch: where rows are close, the foot of one pulse touches the top of the next.

    Each pulse stands on the baseline of its row, and all pulses of a stack are as tall as the uppermost.
    """
    single = []
    for box in pulses:
        feet = [y for y in sorted(baselines_mm) if box.y0_mm + same_mm < y < box.y1_mm - same_mm]
        feet.append(box.y1_mm)
        height_mm = feet[0] - box.y0_mm
        if min(np.diff(feet), default=0.0) < 0.8 * height_mm:
            single.append(box)  # no room for another
        else:
            single += [replace(box, y0_mm=foot - height_mm, y1_mm=foot) for foot in feet]
    return single


def _top_mm(pulse: PulseBox, sheet: Sheet) -> float | None:
    """Measure the top of a pulse; None where no two flanks with a bar between them are seen (cut off, written over).

    Other upright lines beside it, a rule of the form or the first wave, are not joined to it by a bar.
    """
    height_mm = pulse.y1_mm - pulse.y0_mm
    x_mm = raster(pulse.x0_mm - 1.0, pulse.x1_mm + 1.0, _PX_PER_MM)
    below_mm = pulse.y0_mm + 0.15 * height_mm
    upright = _ink(sheet.ink(x_mm, raster(below_mm, below_mm + 0.45 * height_mm, _PX_PER_MM))).mean(0)
    bar = _ink(sheet.ink(x_mm, raster(pulse.y0_mm - 0.8, pulse.y0_mm + 1.2, _PX_PER_MM))).max(0) > 80.0
    flank = upright > max(0.5 * float(upright.max()), 60.0)
    flanks = runs_of(flank)
    joined = [bar[left[1] : right[0]].mean() > 0.8 for left, right in pairwise(flanks)]
    tops = runs_of(np.array(joined, bool))
    if len(tops) != 1:
        return None
    first, last = tops[0]
    return float(sum(flanks[last]) - sum(flanks[first])) / 2 / _PX_PER_MM


def _ink(seen: ByteArray) -> npt.NDArray[np.float64]:
    """Text or trace, whichever it is taken for, (h, w) in [0, 255]."""
    return np.minimum(seen[..., 0].astype(np.float64) + seen[..., 1], 255)


def measure_pulses(sheet: Sheet, marks: PrintedMarks) -> PrintedMarks:
    """Measure the flat tops of calibration pulses.

    Parameters
    ----------
    sheet : Sheet
    marks : PrintedMarks
        With the boxes of the pulses.

    Returns
    -------
    PrintedMarks
        `top_mm` is set for each pulse whose top can be seen.
    """
    pulses = (replace(pulse, top_mm=_top_mm(pulse, sheet)) for pulse in marks.pulses)
    return replace(marks, pulses=tuple(pulses))
