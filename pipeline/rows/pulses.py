"""How wide the flat top of each calibration pulse is: the layout network marks a pulse with its feet.

Only the top is as long as the pulse, and some carts draw feet of several millimetres.  It is measured on the page
network's ink, in the upper half of the marked box, between the middles of the two flanks.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pipeline.datatypes import ByteArray, PrintedMarks, PulseBox
from pipeline.runs import runs_of
from pipeline.sheet.paper import Sheet, raster

_PX_PER_MM = 8.0


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
