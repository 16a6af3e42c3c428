"""The overlay: what was read, drawn over its page, so that a person can check a digitization.

It shows the traces and their pacing spikes in one colour per lead, their names at their start, the fitted grid every
5 mm, a ring around every lead name that was found, and a box around every place where the ink audit found something
doubtful.  This is the only drawing code of the pipeline; nothing is computed from what is drawn.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.datatypes import ALL_LEADS, AuditMark, ByteArray, Digitization, Lead, PageImage, TraceSet
from pipeline.runs import runs_of
from pipeline.sheet.paper import paper_to_page
from pipeline.threads import side_by_side

Float64 = npt.NDArray[np.float64]
Colour = tuple[int, int, int]

# RGB, twelve that stay apart on pink paper and from each other side by side.
_COLOURS: tuple[Colour, ...] = (
    (214, 39, 40),
    (31, 119, 180),
    (44, 140, 44),
    (148, 60, 189),
    (200, 100, 0),
    (0, 140, 150),
    (120, 70, 50),
    (220, 20, 160),
    (70, 70, 200),
    (110, 130, 0),
    (0, 100, 70),
    (160, 0, 60),
)
_GRID: Colour = (60, 170, 110)
_LABEL: Colour = (0, 90, 255)
_UNUSED: Colour = (130, 130, 130)
_DOUBT: Colour = (255, 0, 0)
_SHIFT = 4  # fractional bits of OpenCV's coordinates


def _colour(lead: Lead) -> Colour:
    """Return a lead's colour; leads beside the twelve share theirs."""
    return _COLOURS[ALL_LEADS.index(lead) % len(_COLOURS)]


class _Canvas:
    """The page, paled and brought to a legible size, that takes drawings in paper millimetres."""

    def __init__(self, digitization: Digitization, px_per_mm: float, max_pixels: int) -> None:
        page = digitization.page.pixels
        scale = digitization.rectified.grid_scale
        zoom = px_per_mm / max((scale.px_per_mm_x + scale.px_per_mm_y) / 2, 1e-6)
        zoom = min(max(zoom, 0.05), (max_pixels / (page.shape[0] * page.shape[1])) ** 0.5)
        method = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
        size = (max(round(page.shape[1] * zoom), 1), max(round(page.shape[0] * zoom), 1))
        self.pixels = cv2.addWeighted(
            cv2.resize(page, size, interpolation=method), 0.6, np.full((size[1], size[0], 3), 255, np.uint8), 0.4, 0
        )
        self.zoom = zoom
        self.px_per_mm = zoom * (scale.px_per_mm_x + scale.px_per_mm_y) / 2
        self.rectified = digitization.rectified

    def place(self, xy_mm: Float64) -> Float64:
        """Drawing pixels (..., 2) of paper points (..., 2)."""
        placed: Float64 = (paper_to_page(self.rectified, xy_mm) + 0.5) * self.zoom - 0.5
        return placed

    def line(self, xy_mm: Float64, colour: Colour, width_mm: float) -> None:
        """Draw a line through paper points; at least one pixel wide."""
        self.draw(self.place(xy_mm), colour, width_mm)

    def draw(self, xy_px: Float64, colour: Colour, width_mm: float) -> None:
        """Draw a line through drawing pixels."""
        points = np.round(xy_px * (1 << _SHIFT))
        points = np.clip(points, -(1 << 24), 1 << 24).astype(np.int32)
        width = max(round(width_mm * self.px_per_mm), 1)
        cv2.polylines(self.pixels, [points], False, colour, width, cv2.LINE_AA, _SHIFT)

    def write(self, text: str, xy_mm: tuple[float, float], colour: Colour, height_mm: float = 3.0) -> None:
        """Write with the lower left corner at a paper point, haloed in white."""
        size = max(height_mm * self.px_per_mm, 9.0) / 22.0
        x, y = np.round(self.place(np.array([xy_mm]))[0]).clip(-(1 << 20), 1 << 20).astype(int).tolist()
        for ink, extra in (((255, 255, 255), 3), (colour, 0)):
            width = max(round(size * 2), 1) + extra
            cv2.putText(self.pixels, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, ink, width, cv2.LINE_AA)


def _draw_grid(canvas: _Canvas, step_mm: float = 5.0) -> None:
    """Draw the fitted lattice, thin, every `step_mm`."""
    n_i, n_j = canvas.rectified.node_xy.shape[:2]
    height_mm, width_mm = (n_i - 1) * canvas.rectified.node_mm, (n_j - 1) * canvas.rectified.node_mm
    xs, ys = np.arange(0.0, width_mm + 0.01, step_mm), np.arange(0.0, height_mm + 0.01, step_mm)
    paper = canvas.pixels.copy()
    crossings_px = canvas.place(np.stack(np.meshgrid(xs, ys), -1))
    for line_px in (*crossings_px.swapaxes(0, 1), *crossings_px):
        canvas.draw(line_px, _GRID, 0.0)
    canvas.pixels = cv2.addWeighted(canvas.pixels, 0.5, paper, 0.5, 0)


def _placed(canvas: _Canvas, x_mm: Float64, row_mm: Float64) -> Float64:
    """Return the drawing pixels (n, 2) of a row, NaN where it is not traced."""
    there = np.isfinite(row_mm)
    row_px = np.full((x_mm.size, 2), np.nan)
    row_px[there] = canvas.place(np.column_stack([x_mm, row_mm])[there])
    return row_px


def _draw_row(canvas: _Canvas, row_px: Float64, columns: slice, colour: Colour) -> None:
    """Draw the traced pieces of a row (n, 2), NaN = not traced, in some of its columns."""
    for start, end in runs_of(np.isfinite(row_px[columns, 0])):
        if end - start > 1:
            canvas.draw(row_px[columns][start:end], colour, 0.22)


def _draw_spikes(canvas: _Canvas, traces: TraceSet, row: int, columns: slice, colour: Colour) -> None:
    """Draw the pacing spikes of a row in some of its columns, from the trace to their tips."""
    for column, spike in traces.spikes_in(row, columns.start, columns.stop):
        foot_mm = float(traces.row_mm[row, column])
        if np.isfinite(foot_mm):
            canvas.line(np.array([[spike.x_mm, foot_mm], [spike.x_mm, spike.tip_mm]]), colour, 0.35)


def _draw_doubt(canvas: _Canvas, mark: AuditMark, margin_mm: float = 1.0) -> None:
    """Draw a box around a place where record and ink differ."""
    x0, x1 = mark.x0_mm - margin_mm, mark.x1_mm + margin_mm
    y0, y1 = mark.y0_mm - margin_mm, mark.y1_mm + margin_mm
    canvas.line(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]), _DOUBT, 0.4)


def draw_overlay(digitization: Digitization, *, px_per_mm: float = 8.0, max_pixels: int = 4_000_000) -> ByteArray:
    """Draw what was read over the page.

    Parameters
    ----------
    digitization : Digitization
    px_per_mm : float
        Resolution of the drawing: small pages are enlarged and large ones reduced to it.
    max_pixels : int
        Upper bound of the drawing's size; it comes before `px_per_mm`.

    Returns
    -------
    numpy.ndarray
        (H, W, 3) uint8 RGB, oriented as the page came in.
    """
    canvas = _Canvas(digitization, px_per_mm, max_pixels)
    _draw_grid(canvas)
    traces = digitization.traces
    x_mm = traces.x0_mm + np.arange(traces.row_mm.shape[1]) / traces.columns_per_mm
    rows_px = side_by_side(lambda row: _placed(canvas, x_mm, row), traces.row_mm.astype(np.float64))
    for row_px in rows_px:
        _draw_row(canvas, row_px, slice(None), _UNUSED)
    stretches = [item for item in digitization.layout_match.stretches() if 0 <= item[1] < traces.row_mm.shape[0]]
    for lead, index, span_mm in stretches:
        columns = slice(*(max(round((edge - traces.x0_mm) * traces.columns_per_mm), 0) for edge in span_mm))
        _draw_row(canvas, rows_px[index], columns, _colour(lead))
        _draw_spikes(canvas, traces, index, columns, _colour(lead))
    angle = np.linspace(0, 2 * np.pi, 25)
    for label in digitization.layout_match.labels:
        ring = np.column_stack([label.x_mm + 3.5 * np.cos(angle), label.y_mm + 3.5 * np.sin(angle)])
        canvas.line(ring, _LABEL, 0.2)
    for lead, index, (start_mm, _) in stretches:
        canvas.write(
            lead,
            (start_mm + 1.0, float(traces.baseline_mm[index]) - 7.0),
            _colour(lead),
        )
    for mark in digitization.audit.marks:
        if mark.doubtful:
            _draw_doubt(canvas, mark)
    return np.asarray(canvas.pixels, np.uint8)


def reduce_page(page: PageImage, *, max_pixels: int = 4_000_000) -> ByteArray:
    """Bring a page to a size a browser shows well: (H, W, 3) uint8, never enlarged."""
    zoom = min(1.0, (max_pixels / (page.pixels.shape[0] * page.pixels.shape[1])) ** 0.5)
    size = (max(round(page.pixels.shape[1] * zoom), 1), max(round(page.pixels.shape[0] * zoom), 1))
    return np.asarray(cv2.resize(page.pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def write_png(pixels: ByteArray) -> bytes:
    """Encode an (H, W, 3) RGB picture as PNG."""
    # One filter for all lines: choosing the best of five for each costs as long as the compression.
    settings = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]
    done, data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), settings)
    if not done:
        raise ValueError(f"a picture of {pixels.shape} cannot be written as PNG")
    return bytes(data)
