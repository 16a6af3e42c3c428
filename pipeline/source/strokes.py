"""The lines a PDF was drawn with: where a page is a drawing and not a picture, the pen's own points are the signal.

Carts and archives write most PDFs as drawings.  Their points are exact, where a picture of them has pixels and the
stroke's width; so once the page has been read as any other, lines that run where a row was traced take its place.
Lines that nothing was traced under are left alone: what is not seen on the page is not in the record.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pypdfium2
import pypdfium2.raw as pdfium

from pipeline.datatypes import DrawnLine, PageImage, RectifiedPage, TraceSet

Float64 = npt.NDArray[np.float64]
_Points = list[tuple[float, float]]

MAX_SEGMENTS = 100_000  # of a page; one with more is read as a picture


def read_strokes(page: pypdfium2.PdfPage, width_px: int, height_px: int) -> tuple[Float64, ...]:
    """Read the stroked lines of a PDF page: what `pypdfium2` renders on `width_px` x `height_px` pixels.

    Parameters
    ----------
    page : pypdfium2.PdfPage
    width_px, height_px : int
        Size of the page's picture.

    Returns
    -------
    tuple of (n, 2) float64
        Page pixels (x, y) of lines of 20 points and more, in drawing order; pieces that begin where the one before
        ended are one line.  Empty where the page has more than `MAX_SEGMENTS` pieces.
    """
    place = _to_pixels(page, width_px, height_px)
    lines: list[_Points] = []
    left = MAX_SEGMENTS
    try:
        for item in page.get_objects(filter=[pdfium.FPDF_PAGEOBJ_PATH]):
            left -= max(pdfium.FPDFPath_CountSegments(item.raw), 1)
            if left < 0:
                return ()
            matrix, container = item.get_matrix(), item.container
            while container is not None:
                matrix, container = matrix.multiply(container.get_matrix()), container.container
            for points in _subpaths(item.raw):
                line = [matrix.on_point(*point) for point in points]
                if lines and np.hypot(line[0][0] - lines[-1][-1][0], line[0][1] - lines[-1][-1][1]) < 0.01:
                    lines[-1] += line[1:]
                else:
                    lines.append(line)
    except pypdfium2.PdfiumError:  # it was rendered: the picture is there to be read
        return ()
    strokes = (np.array(line) @ place[:2] + place[2] for line in lines if len(line) >= 20)
    return tuple(stroke for stroke in strokes if np.isfinite(stroke).all())


def _to_pixels(page: pypdfium2.PdfPage, width_px: int, height_px: int, *, fine: int = 1000) -> Float64:
    """Return what takes page points to pixels, (3, 2), for crop box and rotation are PDFium's to know."""
    x, y = ctypes.c_int(), ctypes.c_int()
    corners = []
    for point in ((0.0, 0.0), (100.0, 0.0), (0.0, 100.0)):
        pdfium.FPDF_PageToDevice(page.raw, 0, 0, width_px * fine, height_px * fine, 0, *point, x, y)
        corners.append((x.value / fine - 0.5, y.value / fine - 0.5))
    origin, right, up = np.array(corners)
    return np.stack([(right - origin) / 100, (up - origin) / 100, origin])


def _subpaths(path: pdfium.FPDF_PAGEOBJECT, *, steps: int = 8) -> Iterator[_Points]:
    """List the pieces of a stroked path, curves as `steps` chords each; nothing if the path is not stroked."""
    fill, stroked = ctypes.c_int(), ctypes.c_int()
    if not pdfium.FPDFPath_GetDrawMode(path, fill, stroked) or not stroked.value:
        return
    x, y = ctypes.c_float(), ctypes.c_float()
    points: _Points = []
    handles: _Points = []
    for k in range(pdfium.FPDFPath_CountSegments(path)):
        segment = pdfium.FPDFPath_GetPathSegment(path, k)
        kind = pdfium.FPDFPathSegment_GetType(segment)
        pdfium.FPDFPathSegment_GetPoint(segment, x, y)
        here = (x.value, y.value)
        if kind == pdfium.FPDF_SEGMENT_MOVETO or not points:
            if len(points) > 1:
                yield points
            points = [here]
        elif kind == pdfium.FPDF_SEGMENT_LINETO:
            points.append(here)
        else:  # a Bezier curve comes as three points, the last of them on the line
            handles.append(here)
            if len(handles) == 3:
                knots = np.array([points[-1], *handles])
                t = (np.arange(steps) + 1.0)[:, None] / steps
                curve = (1 - t) ** 3 * knots[0] + 3 * t * (1 - t) ** 2 * knots[1]
                curve = curve + 3 * t**2 * (1 - t) * knots[2] + t**3 * knots[3]
                points += [(float(a), float(b)) for a, b in curve]
                handles = []
    if len(points) > 1:
        yield points


def follow_strokes(
    traces: TraceSet,
    page: PageImage,
    rectified: RectifiedPage,
    *,
    shortest_mm: float = 15.0,
    near_mm: float = 0.3,
    share: float = 0.7,
) -> TraceSet:
    """Put the page's own lines in the place of what was traced along them.

    Parameters
    ----------
    traces : TraceSet
    page, rectified
        The page the rows were traced on, and its sheet.
    shortest_mm : float
        Lines less wide than this are left out: pulses, frames, print.
    near_mm, share : float
        A line is a row's that was traced along at least half of it, to `share` within `near_mm`.

    Returns
    -------
    TraceSet
        Every line begins on a column: it is moved by up to half of one, so that samples are points of the drawing.
        Where lines overlap, the later one counts from its start.
    """
    if not page.strokes:
        return traces
    flat = _to_flat_paper(rectified)
    drawn = []
    for stroke in page.strokes:
        points = _along_time(stroke @ flat[:2] + flat[2], shortest_mm)
        line = None if points is None else _along_row(points, traces, near_mm, share)
        drawn += [] if line is None else [line]
    if not drawn:
        return traces
    drawn.sort(key=lambda line: line.first)
    row_mm, confidence = traces.row_mm.copy(), traces.confidence.copy()
    doubt_mm = np.zeros_like(row_mm) if traces.doubt_mm is None else traces.doubt_mm.copy()
    for line in drawn:
        span = np.s_[line.row, line.first : line.stop]
        row_mm[span], confidence[span], doubt_mm[span] = line.y_mm, 1.0, 0.0
    return replace(traces, row_mm=row_mm, confidence=confidence, doubt_mm=doubt_mm, lines=tuple(drawn))


def _along_row(line: Float64, traces: TraceSet, near_mm: float, share: float) -> DrawnLine | None:
    """Lay a line (n, 2) in paper mm on the columns of the row that was traced along it; None if none was."""
    column = (line[:, 0] - traces.x0_mm) * traces.columns_per_mm
    beat = np.exp(2j * np.pi * column).mean()  # long where all points but a pulse's are whole columns apart
    column -= np.angle(beat) / (2 * np.pi) if abs(beat) > 0.7 else column[0] - round(column[0])
    first, last = max(round(column[0]), 0), min(int(column[-1] + 1e-2), traces.row_mm.shape[1] - 1)
    if first > last:
        return None
    y_mm = np.interp(np.arange(first, last + 1), column, line[:, 1]).astype(np.float32)
    rows = traces.row_mm[:, first : first + y_mm.size]
    traced, near = np.isfinite(rows).sum(1), (np.abs(rows - y_mm) < near_mm).sum(1)
    row = int(np.argmax(near))
    if 2 * traced[row] < y_mm.size or near[row] < share * traced[row]:
        return None
    return DrawnLine(row=row, first=first, y_mm=y_mm)


def _along_time(line: Float64, shortest_mm: float) -> Float64 | None:
    """Return a line (n, 2) in paper mm from left to right; None if it is short or does not run along time."""
    if line[-1, 0] < line[0, 0]:
        line = line[::-1]
    if line[-1, 0] - line[0, 0] < shortest_mm or np.diff(line[:, 0]).min() < -0.05:
        return None
    return np.column_stack([np.maximum.accumulate(line[:, 0]), line[:, 1]])


def _to_flat_paper(rectified: RectifiedPage) -> Float64:
    """Return what takes page pixels to paper mm, (3, 2): the lattice as one affine map, for a drawing has no bends."""
    n_i, n_j = rectified.node_xy.shape[:2]
    paper = np.stack(np.meshgrid(np.arange(n_j), np.arange(n_i)), -1).reshape(-1, 2) * rectified.node_mm
    terms = np.column_stack([rectified.node_xy.reshape(-1, 2).astype(np.float64), np.ones(len(paper))])
    kept = np.ones(len(paper), bool)
    for _ in range(5):
        fit, *_ = np.linalg.lstsq(terms[kept], paper[kept], rcond=None)
        off = np.linalg.norm(terms @ fit - paper, axis=1)
        kept = off <= 3 * np.median(off[kept]) + 1e-6
    return np.asarray(fit)
