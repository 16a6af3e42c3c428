"""The report of a digitized page: its leads on ECG paper, true to scale, as a vector PDF.

A4 landscape, 25 mm a second and 10 mm a millivolt whatever the paper had; a page holds ten seconds.  Leads printed one
after the other share a row, as on the paper; leads printed all the time have rows of their own below.  Where nothing
was read nothing is drawn.  The header states the patient, that the ECG was digitized from paper, and the quality.  The
same inputs give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import reportlab
from reportlab import rl_config
from reportlab.lib.colors import Color
from reportlab.lib.pagesizes import A4, landscape
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

from gateway import __version__
from gateway.domain.digitized_page import DigitizedPage
from gateway.domain.recorded import Origin
from pipeline import ALL_LEADS, LEADS, EcgRecord, Lead

rl_config.useA85 = 0  # streams as bytes: a quarter less than as text

Float64 = npt.NDArray[np.float64]

MM_PER_S = 25.0
MM_PER_MV = 10.0
PAGE_S = 10.0
_FONT, _BOLD = "Vera", "VeraBd"  # come with reportlab, are embedded
_PAPER_X, _PAPER_Y, _PAPER_WIDTH, _PAPER_HEIGHT = 13.5, 12.0, 270.0, 155.0  # of the grid, in mm
_PULSE_S = 0.4  # room for the 1 mV pulse before each row
_STRIP_SHARE = 0.75  # of the record; a lead printed for longer gets a row of its own
_LINES = ((1, 0.08, Color(0.98, 0.78, 0.78)), (5, 0.18, Color(0.93, 0.55, 0.55)))  # every so many mm, width in mm


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A lead's part of a row, in samples of the record."""

    lead: Lead
    start: int
    stop: int


def build_report(page: DigitizedPage) -> bytes:
    """Return the report of one page as a PDF file."""
    record = page.record
    buffer = BytesIO()
    _load_fonts()
    canvas = Canvas(buffer, pagesize=landscape(A4), invariant=True)
    canvas.setTitle("ECG digitized from paper")
    canvas.setCreator(f"ECG Gateway {__version__}")
    head = _header(page)
    rows = _rows(record)
    page_samples = round(PAGE_S * record.sampling_frequency_hz)
    starts = range(0, record.signal_mv.shape[1], page_samples)
    for number, start in enumerate(starts, start=1):
        canvas.scale(mm, mm)
        _draw_header(canvas, head)
        _draw_grid(canvas)
        _draw_rows(canvas, record, rows, start, start + page_samples)
        _draw_footer(canvas, f"Page {number} of {len(starts)}, from {start / record.sampling_frequency_hz:g} s")
        canvas.showPage()
    canvas.save()
    return buffer.getvalue()


@cache
def _load_fonts() -> None:
    for name in (_FONT, _BOLD):
        pdfmetrics.registerFont(TTFont(name, str(Path(reportlab.__file__).parent / "fonts" / f"{name}.ttf")))


def printable(text: str) -> str:
    """Return `text` if the report's font has all its characters, else words that say it has not."""
    _load_fonts()
    glyphs = pdfmetrics.getFont(_FONT).face.charToGlyph
    return text if all(ord(character) in glyphs for character in text) else "(see the DICOM or HL7 header)"


def _header(page: DigitizedPage) -> tuple[str, list[str], list[str]]:
    """Return the plain words, what is said of the patient and what of the quality."""
    context, quality, calibration = page.context, page.quality, page.record.calibration
    rate = page.heart_rate_per_minute
    coverage = list(quality.coverage.values())
    name = context.patient_name.split("=")[0].replace("^", " ").strip()
    recorded = _date(page.recorded.at) + (", printed" if page.recorded.origin is Origin.PRINTED else "")
    state = "confirmed by a person" if page.final else "unconfirmed"
    patient = [
        f"Name  {printable(name) or '-'}",
        f"ID  {printable(context.patient_id)}   {printable(context.issuer_of_patient_id)}".rstrip(),
        f"Born  {_date(context.patient_birth_date)}   Sex  {context.patient_sex or '-'}",
        f"Accession  {printable(context.accession_number) or '-'}   Recorded  {recorded}",
    ]
    figures = [
        f"Layout {page.layout_name}; paper {calibration.paper_speed_mm_per_s:g} mm/s ({calibration.speed_source}), "
        f"{calibration.gain_mm_per_mv:g} mm/mV ({calibration.gain_source})",
        f"Estimated signal to noise {quality.estimated_snr_db:.0f} dB; "
        f"{100 * sum(coverage) / len(coverage) if coverage else 0:.0f} % of what is printed was read",
        f"Heart rate {rate:.0f} / min, measured" if rate is not None else "Heart rate not measured: not certain",
        "; ".join([*page.by_person, *page.left_out_words, *quality.warnings, *quality.notes]) or "No warnings",
    ]
    corrected = ", corrected" if page.revision else ""
    n_leads = len(page.record.leads)
    return f"{n_leads}-lead ECG - DIGITIZED FROM PAPER, {state}{corrected}", patient, figures


def _date(text: str) -> str:
    """Return a DA or DT as a person reads it."""
    digits = text[:14]
    if not digits.isascii() or not digits[:8].isdigit() or len(digits) < 8:
        return "-"
    day = f"{digits[:4]}-{digits[4:6]}-{digits[6:8]}"
    return f"{day} {digits[8:10]}:{digits[10:12]}" if digits[8:12].isdigit() and len(digits) >= 12 else day


def _draw_header(canvas: Canvas, head: tuple[str, list[str], list[str]]) -> None:
    title, patient, figures = head
    canvas.setFillGray(0)
    canvas.setFont(_BOLD, 4.2)
    canvas.drawString(_PAPER_X, 199.0, title)
    for x, lines, width in ((_PAPER_X, patient, 105.0), (_PAPER_X + 110.0, figures, 160.0)):
        for number, line in enumerate(lines):
            canvas.setFont(_FONT, 3.0)
            canvas.drawString(x, 192.5 - 5.0 * number, _fitted(line, width))


def _fitted(line: str, width: float) -> str:
    """Return a line cut to a width in mm, with dots where it was cut."""
    if pdfmetrics.stringWidth(line, _FONT, 3.0) <= width:
        return line
    while line and pdfmetrics.stringWidth(line + " ...", _FONT, 3.0) > width:
        line = line[:-1]
    return line + " ..."


def _draw_footer(canvas: Canvas, words: str) -> None:
    canvas.setFillGray(0)
    canvas.setFont(_FONT, 2.6)
    canvas.drawString(_PAPER_X, 6.5, f"{MM_PER_S:g} mm/s   {MM_PER_MV:g} mm/mV   printed at 100 %   {words}")
    canvas.drawRightString(_PAPER_X + _PAPER_WIDTH, 6.5, f"ECG Gateway {__version__}: not a diagnosis")


def _draw_grid(canvas: Canvas) -> None:
    right, top = _PAPER_X + _PAPER_WIDTH, _PAPER_Y + _PAPER_HEIGHT
    for step, width, colour in _LINES:
        canvas.setStrokeColor(colour)
        canvas.setLineWidth(width)
        xs = [_PAPER_X + step * k for k in range(int(_PAPER_WIDTH // step) + 1)]
        ys = [_PAPER_Y + step * k for k in range(int(_PAPER_HEIGHT // step) + 1)]
        canvas.lines([*((x, _PAPER_Y, x, top) for x in xs), *((_PAPER_X, y, right, y) for y in ys)])


def _rows(record: EcgRecord) -> list[list[_Stretch]]:
    """Return what is drawn in each row: columns as on the paper where they are regular, strips below."""
    stretches = [
        _Stretch(lead, int(read[0]), int(read[-1]) + 1)
        for lead in ALL_LEADS
        if lead in record.leads and (read := np.flatnonzero(~np.isnan(record.signal_mv[record.leads.index(lead)]))).size
    ]
    n_samples = record.signal_mv.shape[1]
    strips = [stretch for stretch in stretches if stretch.stop - stretch.start > _STRIP_SHARE * n_samples]
    short = [stretch for stretch in stretches if stretch not in strips]
    return [*(_grid_rows(stretches, strips, n_samples) or _packed(short)), *([strip] for strip in strips)]


def _grid_rows(
    stretches: Sequence[_Stretch], strips: Sequence[_Stretch], n_samples: int, tolerance_share: float = 0.1
) -> list[list[_Stretch]]:
    """Return the rows of a page of four or two columns in the usual order; none where the leads lie otherwise.

    A lead that has a strip is also in its column, as on paper.
    """
    for columns in (4, 2):
        width, height = n_samples / columns, len(LEADS) // columns
        rows: list[list[_Stretch]] = [[] for _ in range(height)]
        fits = len(stretches) > len(strips) and all(stretch.lead in LEADS for stretch in stretches)
        for stretch in stretches if fits else ():
            column, row = divmod(LEADS.index(stretch.lead), height)
            start, stop = round(column * width), round((column + 1) * width)
            slack = tolerance_share * width
            if stretch not in strips:
                fits = fits and stretch.start > start - slack and stretch.stop < stop + slack
                start, stop = stretch.start, stretch.stop
            rows[row].append(_Stretch(stretch.lead, start, stop))
        if fits:
            return rows
    return []


def _packed(stretches: Sequence[_Stretch]) -> list[list[_Stretch]]:
    """Return stretches in as few rows as keep them apart."""
    rows: list[list[_Stretch]] = []
    for stretch in sorted(stretches, key=lambda each: each.start):
        row = next((row for row in rows if row[-1].stop <= stretch.start), None)
        if row is None:
            rows.append([stretch])
        else:
            row.append(stretch)
    return rows


def _draw_rows(canvas: Canvas, record: EcgRecord, rows: Sequence[Sequence[_Stretch]], start: int, stop: int) -> None:
    """Draw the samples from `start` to before `stop` of every row."""
    pitch = _PAPER_HEIGHT / max(len(rows), 1)
    canvas.setLineJoin(1)
    canvas.setStrokeGray(0)
    canvas.setFillGray(0)
    for number, row in enumerate(rows):
        baseline = _PAPER_Y + _PAPER_HEIGHT - pitch * (number + 0.55)
        canvas.setLineWidth(0.2)
        x0 = _PAPER_X + MM_PER_S * _PULSE_S
        pulse = ((0.0, 0.0), (1.5, 0.0), (1.5, MM_PER_MV), (6.5, MM_PER_MV), (6.5, 0.0), (8.0, 0.0))
        _polyline(canvas, [(x0 - 9.0 + x, baseline + y) for x, y in pulse])
        for stretch in row:
            first, last = max(stretch.start, start), min(stretch.stop, stop)
            if first >= last:
                continue
            signal = record.signal_mv[record.leads.index(stretch.lead), first:last]
            x = x0 + np.arange(first - start, last - start) * (MM_PER_S / record.sampling_frequency_hz)
            _draw_signal(canvas, x.astype(np.float64), baseline + MM_PER_MV * signal.astype(np.float64))
            canvas.setFont(_BOLD, 3.2)
            canvas.drawString(float(x[0]) + 0.8, baseline + min(0.38 * pitch, 9.0), stretch.lead.value)


def _draw_signal(canvas: Canvas, x: Float64, y: Float64) -> None:
    read = ~np.isnan(y)
    for run in np.split(np.arange(y.size), np.flatnonzero(np.diff(read)) + 1):
        if read[run[0]]:
            _polyline(canvas, np.round(np.stack([x[run], y[run]], axis=1), 2).tolist())


def _polyline(canvas: Canvas, points: Sequence[Sequence[float]]) -> None:
    path = canvas.beginPath()
    path.moveTo(*points[0])
    for point in points[1:]:
        path.lineTo(*point)
    canvas.drawPath(path)
