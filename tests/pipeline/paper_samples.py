"""Signals laid out on paper as a tracer would return them: what is known goes in, so what comes out can be judged."""

from collections.abc import Sequence

import numpy as np

from pipeline import (
    ALL_LEADS,
    Calibration,
    Digitization,
    GridScale,
    Layout,
    Lead,
    LeadLabel,
    PageImage,
    RectifiedPage,
    SegmentationMap,
    TraceSet,
)
from pipeline.datatypes import FloatArray, InkAudit
from pipeline.layout.file import load_layouts
from pipeline.layout.identify import identify_layout
from pipeline.sheet.paper import Sheet
from pipeline.signal.calibrate import calibrate
from pipeline.signal.quality import assess
from pipeline.training.recordings.simulate import every_lead, simulate_ecg


def printed(
    layout: Layout,
    signal_mv: FloatArray,
    *,
    speed: float = 25.0,
    gain: float = 10.0,
    columns_per_mm: float = 20.0,
    x0_mm: float = 12.0,
    row_pitch_mm: float = 25.0,
    margin_mm: float = 4.0,
    gap_mm: float = 0.0,
    rhythm: Sequence[Lead] | None = None,
    column_seconds: float | None = None,
    sampling_frequency_hz: float = 500.0,
) -> TraceSet:
    """Print `signal_mv` (12, n) in `layout`; samples between the recorded ones are interpolated band-limited."""
    seconds = column_seconds or layout.column_seconds
    n_columns = len(layout.rows[0])
    width_mm = n_columns * (seconds * speed + gap_mm) - gap_mm
    n = round((width_mm + 2 * margin_mm) * columns_per_mm)
    row_mm = np.full((layout.n_rows, n), np.nan, np.float32)
    baseline_mm = np.array([20.0 + row_pitch_mm * r for r in range(layout.n_rows)], np.float32)
    rate = columns_per_mm * speed
    every = every_lead(signal_mv)

    def put(row: int, lead: Lead, start_s: float, duration_s: float, at_mm: float) -> None:
        t = start_s + np.arange(round(duration_s * rate)) / rate
        y = sinc_at(every[ALL_LEADS.index(lead)], t * sampling_frequency_hz)
        first = round((margin_mm + at_mm) * columns_per_mm)
        sign = -1.0 if lead in layout.inverted and row < len(layout.rows) else 1.0
        stop = min(first + y.size, n)
        row_mm[row, first:stop] = (baseline_mm[row] - sign * gain * y)[: stop - first]

    for r, leads in enumerate(layout.rows):
        for c, lead in enumerate(leads):
            put(r, lead, c * seconds if layout.sequential else 0.0, seconds, c * (seconds * speed + gap_mm))
    for number, lead in enumerate(layout.rhythm if rhythm is None else rhythm):
        put(len(layout.rows) + number, lead, 0.0, width_mm / speed, 0.0)
    return TraceSet(
        row_mm=row_mm,
        confidence=np.where(np.isfinite(row_mm), 0.9, 0.0).astype(np.float32),
        baseline_mm=baseline_mm,
        x0_mm=x0_mm - margin_mm,
        columns_per_mm=columns_per_mm,
    )


def sinc_at(signal: FloatArray, position: FloatArray) -> FloatArray:
    """Band-limited values of `signal` at fractional sample positions (clipped at the ends)."""
    position = np.clip(position, 0, signal.size - 1)
    whole = np.round(position).astype(int)
    if np.abs(position - whole).max() < 1e-9:
        return signal[whole]
    taps = np.arange(-24, 25)
    index = whole[:, None] + taps
    offset = position[:, None] - index
    kernel = np.sinc(offset) * np.cos(np.pi * offset / 51) ** 2
    return (signal[np.clip(index, 0, signal.size - 1)] * kernel).sum(1) / kernel.sum(1)


def labels_of(
    layout: Layout,
    traces: TraceSet,
    *,
    rng: np.random.Generator | None = None,
    jitter_mm: float = 0.0,
    above_mm: float = 6.0,
    speed: float = 25.0,
    rhythm: Sequence[Lead] | None = None,
    start_mm: float = 12.0,
) -> list[LeadLabel]:
    """The names as printed: a little right of each column's start, `above_mm` over the zero line."""
    rng = rng or np.random.default_rng(0)
    labels = []
    pitch_mm = layout.column_seconds * speed
    spots = [(lead, r, c) for r, leads in enumerate(layout.rows) for c, lead in enumerate(leads)]
    spots += [(lead, len(layout.rows) + k, 0) for k, lead in enumerate(layout.rhythm if rhythm is None else rhythm)]
    for lead, r, c in spots:
        dx, dy = rng.normal(0, jitter_mm, 2) if jitter_mm else (0.0, 0.0)
        x_mm, y_mm = start_mm + 2.0 + c * pitch_mm + dx, float(traces.baseline_mm[r]) - above_mm + dy
        labels.append(LeadLabel(lead=lead, x_mm=x_mm, y_mm=y_mm, score=0.9))
    return labels


def blank_map() -> SegmentationMap:
    """What the page network says of an empty page."""
    nothing = np.zeros((4, 4), np.float32)
    return SegmentationMap(grid=nothing, trace=nothing, text=nothing, scale=1.0)


def sheet_of(digitization: Digitization) -> Sheet:
    """The sheet a page was read from, its maps empty."""
    return Sheet(page=digitization.page, segmentation=blank_map(), rectified=digitization.rectified)


def digitization(px_per_mm: float = 4.0, page_number: int = 1) -> Digitization:
    """A blank sheet of 290 x 130 mm, seen straight, with a known ECG read from it."""
    layouts = load_layouts()
    layout = next(layout for layout in layouts if layout.name == "3x4+1R")
    traces = printed(layout, simulate_ecg(np.random.default_rng(1), disease="none"))
    match = identify_layout(labels_of(layout, traces), traces, layouts)
    record = calibrate(traces, match, Calibration())
    grid = GridScale(px_per_mm_x=px_per_mm, px_per_mm_y=px_per_mm, score=1.0, source="grid")
    i, j = np.mgrid[0:27, 0:59]
    rectified = RectifiedPage(
        node_xy=np.stack([j * 5.0 * px_per_mm - 0.5, i * 5.0 * px_per_mm - 0.5], -1).astype(np.float32),
        node_mm=5.0,
        pixels=np.full((130, 290, 3), 255, np.uint8),
        px_per_mm=1.0,
        grid_scale=grid,
        homography=np.diag([px_per_mm, px_per_mm, 1.0]),
    )
    blank = np.full((round(130 * px_per_mm), round(290 * px_per_mm), 3), 255, np.uint8)
    return Digitization(
        page=PageImage(pixels=blank, page_number=page_number),
        rectified=rectified,
        layout_match=match,
        traces=traces,
        record=record,
        quality=assess(record, match, traces, grid, InkAudit()),
    )
