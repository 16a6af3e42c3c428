"""Pages drawn as PDFs, as carts write them."""

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from reportlab.pdfgen.canvas import Canvas

from pipeline import LEADS, Digitization, Lead, PageImage
from pipeline.datatypes import FloatArray
from pipeline.layout.file import load_layouts
from pipeline.source.page import load_pages

MM = 72 / 25.4
STANDARD = next(layout for layout in load_layouts() if layout.name == "3x4+1R")


def document(draw: Callable[[Canvas], None], width_mm: float = 120, height_mm: float = 90) -> bytes:
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=(width_mm * MM, height_mm * MM))
    draw(canvas)
    canvas.save()
    return out.getvalue()


def drawn(draw: Callable[[Canvas], None], width_mm: float = 120, height_mm: float = 90) -> PageImage:
    (page,) = load_pages(document(draw, width_mm, height_mm))
    return page


def path(canvas: Canvas, points_mm: npt.NDArray[np.float64], *, stroke: int = 1, fill: int = 0) -> None:
    line = canvas.beginPath()
    line.moveTo(*(points_mm[0] * MM))
    for point in points_mm[1:]:
        line.lineTo(*(point * MM))
    canvas.drawPath(line, stroke=stroke, fill=fill)


def ecg_page(signal_mv: FloatArray, *, speed: float = 25.0, lines_mm: tuple[int, ...] = (1, 5)) -> PageImage:
    """Draw (12, 5000) mV at 500 Hz as a 3x4 page with strip II, the grid's lines every `lines_mm`."""
    width_mm = 47 + 10 * speed

    def draw(canvas: Canvas) -> None:
        for step_mm in lines_mm:
            shade = 0.8 if step_mm == 1 else 0.55
            canvas.setStrokeColorRGB(1, shade, shade)
            canvas.setLineWidth((0.1 if step_mm == 1 else 0.2) * MM)
            for x in np.arange(0, width_mm + 1, step_mm):
                canvas.line(x * MM, 0, x * MM, 210 * MM)
            for y in np.arange(0, 211, step_mm):
                canvas.line(0, y * MM, width_mm * MM, y * MM)
        canvas.setStrokeColorRGB(0, 0, 0)
        canvas.setLineWidth(0.25 * MM)
        for row, leads in enumerate([*STANDARD.rows, STANDARD.rhythm]):
            for k, lead in enumerate(leads):
                n = 5000 if row == 3 else 1250
                y_mm = 165 - 38 * row + 10 * signal_mv[LEADS.index(lead), 1250 * k : 1250 * k + n]
                x_mm = 25.013 + 2.5 * k * speed
                path(canvas, np.column_stack([x_mm + np.arange(n) * speed / 500, y_mm]))
                canvas.drawString((x_mm + 1) * MM, (171 - 38 * row) * MM, lead)
        canvas.drawString(25 * MM, 10 * MM, f"{speed:g} mm/s  10 mm/mV")

    return drawn(draw, width_mm, 210)


def snr_of_short_leads_db(signal_mv: FloatArray, result: Digitization) -> dict[Lead, float]:
    """SNR of each short lead of an `ecg_page`, levels removed; what was not read counts as that level."""
    snr_db = {}
    for leads in STANDARD.rows:
        for k, lead in enumerate(leads):
            part = np.s_[LEADS.index(lead), 1250 * k : 1250 * (k + 1)]
            told, read = signal_mv[part], result.record.signal_mv[part]
            error = np.nan_to_num(read - np.nanmean(read)) - (told - told.mean())
            snr_db[lead] = float(10 * np.log10(np.var(told) / np.mean(error**2)))
    return snr_db
