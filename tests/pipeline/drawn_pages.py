"""Pages drawn as PDFs, as carts write them."""

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from reportlab.pdfgen.canvas import Canvas

from pipeline import LEADS, PageImage
from pipeline.datatypes import FloatArray
from pipeline.layout import load_layouts
from pipeline.page import load_pages

MM = 72 / 25.4
STANDARD = next(layout for layout in load_layouts() if layout.name == "3x4+1R")


def drawn(draw: Callable[[Canvas], None], width_mm: float = 120, height_mm: float = 90) -> PageImage:
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=(width_mm * MM, height_mm * MM))
    draw(canvas)
    canvas.save()
    (page,) = load_pages(out.getvalue())
    return page


def path(canvas: Canvas, points_mm: npt.NDArray[np.float64]) -> None:
    line = canvas.beginPath()
    line.moveTo(*(points_mm[0] * MM))
    for point in points_mm[1:]:
        line.lineTo(*(point * MM))
    canvas.drawPath(line)


def ecg_page(signal_mv: FloatArray, *, grid: bool = True) -> PageImage:
    """Draw (12, 5000) mV at 500 Hz as a 3x4 page with strip II on A4."""

    def draw(canvas: Canvas) -> None:
        for step_mm, grey, width_mm in ((1, 0.8, 0.1), (5, 0.55, 0.2)) if grid else ():
            canvas.setStrokeColorRGB(1, grey, grey)
            canvas.setLineWidth(width_mm * MM)
            for x in np.arange(0, 298, step_mm):
                canvas.line(x * MM, 0, x * MM, 210 * MM)
            for y in np.arange(0, 211, step_mm):
                canvas.line(0, y * MM, 297 * MM, y * MM)
        canvas.setStrokeColorRGB(0, 0, 0)
        canvas.setLineWidth(0.25 * MM)
        for row, leads in enumerate([*STANDARD.rows, STANDARD.rhythm]):
            for k, lead in enumerate(leads):
                n = 5000 if row == 3 else 1250
                y_mm = 165 - 38 * row + 10 * signal_mv[LEADS.index(lead), 1250 * k : 1250 * k + n]
                path(canvas, np.column_stack([25.013 + 62.5 * k + np.arange(n) / 20, y_mm]))
                canvas.drawString((26 + 62.5 * k) * MM, (171 - 38 * row) * MM, lead)
        canvas.drawString(25 * MM, 10 * MM, "25 mm/s  10 mm/mV")

    return drawn(draw, 297, 210)
