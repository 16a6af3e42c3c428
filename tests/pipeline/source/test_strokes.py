import numpy as np
import numpy.typing as npt
import pypdfium2
import pytest
from reportlab.pdfgen.canvas import Canvas

import pipeline.source.strokes
from pipeline.source.page import decode_pages
from tests.pipeline.drawn_pages import MM, document, drawn, path

Float64 = npt.NDArray[np.float64]

PX = 300 / 25.4  # a millimetre of a page rendered at 300 dpi
WAVE = np.column_stack([np.linspace(20, 80, 61), 50 + 5 * np.sin(np.arange(61) / 5)])  # mm from the lower left corner


def on_page(points_mm: Float64, height_mm: float = 90) -> Float64:
    return np.column_stack([points_mm[:, 0], height_mm - points_mm[:, 1]]) * PX - 0.5


def test_a_line_is_where_its_picture_is() -> None:
    page = drawn(lambda canvas: path(canvas, WAVE))
    (stroke,) = page.strokes
    assert np.abs(stroke - on_page(WAVE)).max() < 0.6  # the page's last pixel is a part of one
    ink = 255 - page.pixels[..., 0].astype(np.float64)
    for x, y in stroke[5:-5:10]:
        column = ink[:, round(x)]
        assert abs(float(column @ np.arange(len(column)) / column.sum()) - y) < 1.0


def test_pieces_drawn_one_by_one_are_one_line() -> None:
    def draw(canvas: Canvas) -> None:
        for (x0, y0), (x1, y1) in zip(WAVE * MM, WAVE[1:] * MM, strict=False):
            canvas.line(x0, y0, x1, y1)
        canvas.line(0, 0, 100, 100)  # too few points for a signal

    (stroke,) = drawn(draw).strokes
    assert np.abs(stroke - on_page(WAVE)).max() < 0.6


def test_forms_and_curves_are_followed() -> None:
    def draw(canvas: Canvas) -> None:
        canvas.beginForm("sheet")
        path(canvas, WAVE)
        canvas.endForm()
        canvas.translate(10 * MM, 5 * MM)
        canvas.scale(0.5, 0.5)
        canvas.doForm("sheet")
        curves = canvas.beginPath()
        curves.moveTo(0, 0)
        for k in range(1, 4):
            x = 30.0 * k
            curves.curveTo(x - 20, 0, x - 10, 0, x, 0)
        canvas.drawPath(curves)

    form, curve = drawn(draw).strokes
    assert np.abs(form - on_page(WAVE / 2 + [10, 5])).max() < 0.6
    assert len(curve) == 25
    assert np.ptp(curve[:, 1]) < 0.01


def test_a_turned_page_turns_its_lines() -> None:
    def draw(canvas: Canvas) -> None:
        canvas.setPageRotation(90)  # reportlab swaps width and height
        path(canvas, WAVE)

    page = drawn(draw, width_mm=90, height_mm=120)
    assert page.pixels.shape[0] > page.pixels.shape[1]
    (stroke,) = page.strokes
    assert np.abs(stroke - np.column_stack([WAVE[:, 1], WAVE[:, 0]]) * PX + 0.5).max() < 0.6


def test_what_is_not_stroked_is_no_line() -> None:
    assert drawn(lambda canvas: path(canvas, WAVE, stroke=0, fill=1)).strokes == ()


def test_a_page_of_very_many_pieces_is_read_as_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.source.strokes, "MAX_SEGMENTS", 60)
    (page,) = decode_pages(document(lambda canvas: path(canvas, WAVE)))
    assert page.strokes == ()


def test_a_page_whose_objects_cannot_be_listed_is_read_as_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise pypdfium2.PdfiumError("Failed to get pageobject.")

    monkeypatch.setattr(pypdfium2.PdfPage, "get_objects", broken)
    (page,) = decode_pages(document(lambda canvas: path(canvas, WAVE)))
    assert page.strokes == ()
    assert page.pixels.min() < 100
