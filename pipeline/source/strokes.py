"""A PDF page goes in; the lines it was drawn with come out, in pixels of its picture.

Carts and archives write most PDFs as drawings.  Their points are exact, where a picture of them has pixels and the
stroke's width.  `rows.drawing` uses them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pypdfium2
import pypdfium2.raw as pdfium

from pipeline.datatypes import BUDGET
from pipeline.errors import PageUnreadable

Float64 = npt.NDArray[np.float64]
_Points = list[tuple[float, float]]

MAX_SEGMENTS = 100_000  # of a page; one with more is read as a picture, up to `BUDGET.pieces`


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
        Page pixels (x, y) of lines of 20 points and more, in drawing order; a piece that starts where the one before it
        ends belongs to the same line.  Empty if the page has more than `MAX_SEGMENTS` pieces.

    Raises
    ------
    PageUnreadable
        To draw the page would take long: it has more than `BUDGET.pieces`.
    """
    place = _to_pixels(page, width_px, height_px)
    lines: list[_Points] = []
    segments = others = 0
    _check_pieces(pdfium.FPDFPage_CountObjects(page.raw))
    try:
        for item in page.get_objects():
            path = item.type == pdfium.FPDF_PAGEOBJ_PATH
            segments += max(pdfium.FPDFPath_CountSegments(item.raw), 1) if path else 0
            others += not path
            _check_pieces(segments + others)
            if not path or segments > MAX_SEGMENTS:
                continue
            matrix, container = item.get_matrix(), item.container
            while container is not None:
                matrix, container = matrix.multiply(container.get_matrix()), container.container
            for points in _subpaths(item.raw):
                line = [matrix.on_point(*point) for point in points]
                if lines and np.hypot(line[0][0] - lines[-1][-1][0], line[0][1] - lines[-1][-1][1]) < 0.01:
                    lines[-1] += line[1:]
                else:
                    lines.append(line)
    except pypdfium2.PdfiumError:  # the picture is there to be read
        return ()
    if segments > MAX_SEGMENTS:
        return ()
    strokes = (np.array(line) @ place[:2] + place[2] for line in lines if len(line) >= 20)
    return tuple(stroke for stroke in strokes if np.isfinite(stroke).all())


def _check_pieces(count: int) -> None:
    if count > BUDGET.pieces:
        raise PageUnreadable(f"a page of the PDF is drawn with more than {BUDGET.pieces} points and objects")


def _to_pixels(page: pypdfium2.PdfPage, width_px: int, height_px: int, *, fine: int = 1000) -> Float64:
    """Return the affine map (3, 2) from page points to pixels; PDFium applies crop box and rotation."""
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
