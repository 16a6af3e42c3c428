"""Beats that differ only where a grid line runs: there the line was taken for the trace, or cut it.

The beats of a lead are alike, and a heavy line every 5 mm falls on another part of each.  So what one beat shows beside
a line, the others show without one: a difference there, and nowhere else in the beat, is the line's.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.datatypes import LayoutMatch, TraceSet
from pipeline.signal.beats import find_beats
from pipeline.signal.weights import GRID_LINES

Float64 = npt.NDArray[np.float64]


def _typical(beats: Float64) -> Float64:
    """Return the median of beats (n_beats, k) at every place that enough of them show, else NaN."""
    known = np.isfinite(beats).sum(0) >= GRID_LINES.least_beats - 1
    typical = np.full(beats.shape[1], np.nan)
    typical[known] = np.nanmedian(beats[:, known], axis=0)
    return typical


def _differences(beat: Float64, line: npt.NDArray[np.bool_], typical: Float64) -> tuple[float, float, int]:
    """Measure how far a beat (k,) is off the typical one beside a line and elsewhere, in mm, and where beside a line.

    Both are 0 where beat and line share too little.
    """
    off = beat - typical
    clear, touched = off[~line & np.isfinite(off)], np.flatnonzero(line & np.isfinite(off))
    if clear.size < beat.size // 2 or not touched.size:
        return 0.0, 0.0, 0
    level = float(np.median(clear))
    worst = int(touched[np.abs(off[touched] - level).argmax()])
    return abs(float(off[worst]) - level), float(np.quantile(np.abs(clear - level), GRID_LINES.elsewhere)), worst


def _at_lines(height_mm: Float64, x_mm: Float64, columns_per_mm: float) -> list[float]:
    """Find where a lead's beats differ from its other beats beside a line, and there only: paper x, mm.

    A beat counts only if it differs however it is laid over the others.
    """
    half, reach = round(GRID_LINES.half_beat_mm * columns_per_mm), GRID_LINES.shift
    at = find_beats(height_mm, columns_per_mm)
    at = at[(at >= half + reach) & (at < height_mm.size - half - reach)]
    if at.size < GRID_LINES.least_beats:
        return []
    pitch = GRID_LINES.pitch_mm
    hidden = np.abs((x_mm + pitch / 2) % pitch - pitch / 2) < GRID_LINES.beside_mm
    places = np.arange(-half, half + 1)
    clear = np.where(hidden, np.nan, height_mm)[at[:, None] + places]
    found = []
    for k, centre in enumerate(at):
        typical = _typical(clear[np.arange(at.size) != k])
        if not np.isfinite(typical).any():
            continue
        windows = [centre + shift + places for shift in range(-reach, reach + 1)]
        ways = [_differences(height_mm[window], hidden[window], typical) for window in windows]
        least = max(GRID_LINES.least_mm, GRID_LINES.share * float(np.nanmax(typical) - np.nanmin(typical)))
        beside, _, worst = min(ways)
        if beside > max(least, GRID_LINES.ratio * min(elsewhere for _, elsewhere, _ in ways)):
            found.append(float(x_mm[windows[ways.index(min(ways))][worst]]))
    return found


def beats_cut_by_lines(match: LayoutMatch, traces: TraceSet, paper_speed_mm_per_s: float) -> list[str]:
    """Say in words which leads have beats that differ from their others only where a heavy grid line runs.

    Parameters
    ----------
    match : LayoutMatch
    traces : TraceSet
        On a sheet whose 5 mm lines lie at multiples of 5 mm.
    paper_speed_mm_per_s : float
    """
    times = match.column_times(paper_speed_mm_per_s)
    starts = {span: start_s for span, (start_s, _) in zip(match.column_mm, times, strict=False)}
    words = []
    for lead, row, span in match.stretches():
        first, stop = (round((edge - traces.x0_mm) * traces.columns_per_mm) for edge in span)
        first, stop = max(first, 0), min(stop, traces.row_mm.shape[1])
        if not 0 <= row < len(traces.row_mm) or not np.isfinite(traces.row_mm[row, first:stop]).any():
            continue
        height_mm = -traces.row_mm[row, first:stop].astype(np.float64)
        x_mm = traces.x0_mm + np.arange(first, stop) / traces.columns_per_mm
        start_s = starts.get(span, times[0][0])
        places = [
            start_s + (at - span[0]) / paper_speed_mm_per_s for at in _at_lines(height_mm, x_mm, traces.columns_per_mm)
        ]
        if places:
            seconds = ", ".join(f"{at:.1f}" for at in places)
            words.append(f"beats of lead {lead} differ from its others only where a grid line runs, at {seconds} s")
    return words
