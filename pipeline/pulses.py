"""How wide the flat top of each calibration pulse is: the layout network marks a pulse with its feet.

Only the top tells how long a pulse is, and some carts draw feet of several millimetres.  It is measured on the page
network's ink, in the upper half of the marked box, between the middles of the two flanks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pipeline.datatypes import ByteArray, PrintedMarks, PulseBox, RectifiedPage, SegmentationMap
from pipeline.paper import Points, map_sampler

Sampler = Callable[[Points, Points], ByteArray]  # of `paper.map_sampler`

_PX_PER_MM = 8.0


def _top_mm(pulse: PulseBox, sample: Sampler) -> float | None:
    """Measure the top of a pulse; None where no two flanks with a bar between them are seen (cut off, written over).

    What else stands upright beside it, a form's rule or the first wave, has no bar to it.
    """
    height_mm = pulse.y1_mm - pulse.y0_mm
    x_mm = pulse.x0_mm - 1.0 + _raster(pulse.x1_mm - pulse.x0_mm + 2.0)
    upright = _ink(sample(x_mm, pulse.y0_mm + 0.15 * height_mm + _raster(0.45 * height_mm))).mean(0)
    bar = _ink(sample(x_mm, pulse.y0_mm - 0.8 + _raster(2.0))).max(0) > 80.0
    flank = upright > max(0.5 * float(upright.max()), 60.0)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flank.astype(np.int8), [0]])))
    begins, ends = edges[::2], edges[1::2]
    joined = [bar[end:begin].mean() > 0.8 for end, begin in zip(ends[:-1], begins[1:], strict=True)]
    tops = np.flatnonzero(np.diff(np.concatenate([[0], np.array(joined, np.int8), [0]])))
    if tops.size != 2:
        return None
    first, last = int(tops[0]), int(tops[1])
    return float(begins[last] + ends[last] - begins[first] - ends[first]) / 2 / _PX_PER_MM


def _raster(length_mm: float) -> npt.NDArray[np.float64]:
    """Return points (n,) that cover a length from 0 on, in mm."""
    return np.asarray((np.arange(max(2, round(length_mm * _PX_PER_MM))) + 0.5) / _PX_PER_MM, np.float64)


def _ink(seen: ByteArray) -> npt.NDArray[np.float64]:
    """Text or trace, whichever it is taken for, (h, w) in [0, 255]."""
    return np.minimum(seen[..., 0].astype(np.float64) + seen[..., 1], 255)


def measure_pulses(marks: PrintedMarks, segmentation: SegmentationMap, rectified: RectifiedPage) -> PrintedMarks:
    """Return the marks with the width of each pulse's top, where it can be seen."""
    sample = map_sampler(segmentation, rectified)
    pulses = (replace(pulse, top_mm=_top_mm(pulse, sample)) for pulse in marks.pulses)
    return replace(marks, pulses=tuple(pulses))
