"""How wide the flat top of each calibration pulse is: the layout network marks a pulse with its feet.

Only the top tells how long a pulse is, and some carts draw feet of several millimetres.  It is measured on the page
network's ink, in the upper half of the marked box, between the middles of the two flanks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pipeline.datatypes import ByteArray, PrintedMarks, PulseBox, RectifiedPage, SegmentationMap
from pipeline.paper import Points, map_sampler

Sampler = Callable[[Points, Points], ByteArray]  # of `paper.map_sampler`

_PX_PER_MM = 8.0


def _top_mm(pulse: PulseBox, sample: Sampler) -> float | None:
    """Measure the top of a pulse; None where not exactly two flanks are seen (cut off, written over)."""
    size_mm = pulse.x1_mm - pulse.x0_mm + 2.0, 0.45 * (pulse.y1_mm - pulse.y0_mm)
    columns, rows = (np.arange(max(2, round(mm * _PX_PER_MM))) + 0.5 for mm in size_mm)
    x_mm = pulse.x0_mm - 1.0 + columns / _PX_PER_MM
    y_mm = pulse.y0_mm + 0.15 * (pulse.y1_mm - pulse.y0_mm) + rows / _PX_PER_MM
    seen = sample(x_mm, y_mm)
    upright = np.minimum(seen[..., 0].astype(np.float64) + seen[..., 1], 255).mean(0)  # text or trace
    flank = upright > max(0.5 * float(upright.max()), 60.0)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flank.astype(np.int8), [0]])))
    return float(edges[2:].mean() - edges[:2].mean()) / _PX_PER_MM if edges.size == 4 else None


def measure_pulses(marks: PrintedMarks, segmentation: SegmentationMap, rectified: RectifiedPage) -> PrintedMarks:
    """Return the marks with the width of each pulse's top, where it can be seen."""
    sample = map_sampler(segmentation, rectified)
    pulses = (replace(pulse, top_mm=_top_mm(pulse, sample)) for pulse in marks.pulses)
    return replace(marks, pulses=tuple(pulses))
