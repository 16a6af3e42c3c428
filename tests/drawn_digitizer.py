"""A digitizer that needs no network and reads pages that look like an ECG: for tests in a browser.

`drawn_page` makes the page, with the ink where `DrawnDigitizer` says that it is; one spike of ink is not in its record.
`python -m tests.drawn_digitizer serve FILE` is the gateway with it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from pipeline import (
    LEADS,
    Calibration,
    Corrections,
    Digitization,
    EcgRecord,
    Layout,
    Lead,
    LeadLabel,
    PageImage,
    TextLine,
    TraceSet,
)
from pipeline.datatypes import AuditMark, InkAudit, Mark
from tests.fake_digitizer import FakeDigitizer, as_stated, fake_digitization, main

PX_PER_MM = 6
WIDTH_MM, HEIGHT_MM = 290, 130
LEFT_MM, COLUMN_MM, ROW_MM, TOP_MM = 20.0, 62.5, 28.0, 30.0
SPIKE_MM = (LEFT_MM + 2 * COLUMN_MM + 31.0, TOP_MM + 4.0)  # x, and the y of its lower end, in V1
LAYOUT = Layout(
    name="3x4+1R",
    rows=(
        (Lead.I, Lead.AVR, Lead.V1, Lead.V4),
        (Lead.II, Lead.AVL, Lead.V2, Lead.V5),
        (Lead.III, Lead.AVF, Lead.V3, Lead.V6),
    ),
    rhythm=(Lead.II,),
)
STRANGER = "Patient ID: XR55231"  # printed on pages of an odd seed


def _signals() -> np.ndarray:
    """Ten seconds of twelve leads: a beat every 0.8 s."""
    time = np.arange(5000) / 500
    phase = time % 0.8
    bump = lambda at, width: np.exp(-(((phase - at) / width) ** 2))  # noqa: E731 - three bumps
    beat = 0.12 * bump(0.15, 0.03) + bump(0.32, 0.012) - 0.2 * bump(0.35, 0.012) + 0.25 * bump(0.55, 0.05)
    heights = [0.7, 1.1, 0.5, -0.9, 0.3, 0.8, -0.6, 0.4, 0.9, 1.4, 1.2, 0.9]
    return np.array([height * beat for height in heights], np.float32)


def _baselines() -> np.ndarray:
    return (TOP_MM + ROW_MM * np.arange(4)).astype(np.float32)


def _columns() -> tuple[tuple[float, float], ...]:
    return tuple((LEFT_MM + COLUMN_MM * k, LEFT_MM + COLUMN_MM * (k + 1)) for k in range(4))


def _rows_mm() -> np.ndarray:
    """The centre lines as printed: (4, n) paper y, 20 columns a millimetre from x = 0."""
    signals, rows = _signals(), np.full((4, round(20 * (LEFT_MM + 4 * COLUMN_MM)) + 1), np.nan, np.float32)
    first = round(20 * LEFT_MM)
    for number, baseline in enumerate(_baselines()):
        for k in range(4):
            lead = LAYOUT.rows[number][k] if number < 3 else Lead.II
            part = signals[LEADS.index(lead), 1250 * k : 1250 * (k + 1)]
            rows[number, first + 1250 * k : first + 1250 * (k + 1)] = baseline - 10 * part
    return rows


def drawn_page(seed: int = 0) -> bytes:
    """Return the page as a PNG file; seeds differ in a pixel, odd ones print another patient's ID."""
    pixels = np.full((HEIGHT_MM * PX_PER_MM, WIDTH_MM * PX_PER_MM, 3), 255, np.uint8)
    for step, colour in ((1, (222, 214, 250)), (5, (180, 168, 240))):
        for x in range(0, WIDTH_MM, step):
            pixels[:, x * PX_PER_MM] = colour
        for y in range(0, HEIGHT_MM, step):
            pixels[y * PX_PER_MM] = colour
    for row in _rows_mm():
        known = np.flatnonzero(np.isfinite(row))
        points = np.stack([known / 20 * PX_PER_MM, row[known] * PX_PER_MM], 1)
        cv2.polylines(pixels, [np.round(points * 16).astype(np.int32)], False, (30, 24, 24), 2, cv2.LINE_AA, 4)
    x, y = (round(value * PX_PER_MM) for value in SPIKE_MM)
    cv2.line(pixels, (x, y), (x, y - 11 * PX_PER_MM), (30, 24, 24), 1)
    for label in _labels():
        place = (round(label.x_mm * PX_PER_MM) - 12, round(label.y_mm * PX_PER_MM) + 8)
        cv2.putText(pixels, label.lead.value, place, cv2.FONT_HERSHEY_SIMPLEX, 0.7, (30, 24, 24), 2, cv2.LINE_AA)
    if seed % 2:
        cv2.putText(pixels, STRANGER, (150, 70), cv2.FONT_HERSHEY_SIMPLEX, 1.0, (30, 24, 24), 2, cv2.LINE_AA)
    pixels[0, :4, 0] = np.frombuffer(seed.to_bytes(4, "big"), np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def _labels() -> tuple[LeadLabel, ...]:
    cells = [(lead, k, i) for i, row in enumerate(LAYOUT.rows) for k, lead in enumerate(row)]
    return tuple(
        LeadLabel(lead=lead, x_mm=LEFT_MM + COLUMN_MM * k + 4, y_mm=TOP_MM + ROW_MM * i - 12, score=0.99)
        for lead, k, i in cells
    )


class DrawnDigitizer(FakeDigitizer):
    """Reads what `drawn_page` draws, without the spike."""

    def digitize(self, page: PageImage, *, default_calibration: Calibration, **more: Any) -> Digitization:
        made = fake_digitization(page, default_calibration)
        signal_mv = np.full((12, 5000), np.nan, np.float32)
        for row in LAYOUT.rows:
            for k, lead in enumerate(row):
                part = slice(1250 * k, 1250 * (k + 1))
                signal_mv[LEADS.index(lead), part] = _signals()[LEADS.index(lead), part]
        signal_mv[LEADS.index(Lead.II)] = _signals()[LEADS.index(Lead.II)]
        rows = _rows_mm()
        nodes = np.stack(np.meshgrid(np.arange(59) * 5.0, np.arange(27) * 5.0), axis=-1) * PX_PER_MM
        x, y = SPIKE_MM
        place: dict[str, float] = {
            "x0_mm": x - 0.2,
            "x1_mm": x + 0.2,
            "y0_mm": y - 11,
            "y1_mm": y,
            "reach_mm": 11.0,
            "missing_mm2": 9.0,
        }
        start_s = 5.0 + 31.0 / 25
        mark = AuditMark(
            kind=Mark.SPIKE,
            lead=Lead.V1,
            start_s=start_s,
            end_s=start_s + 0.02,
            doubtful=True,
            **place,
        )
        text = TextLine(text=STRANGER, x0_mm=25, y0_mm=7, x1_mm=90, y1_mm=12, score=0.99)
        plain = replace(
            made,
            rectified=replace(made.rectified, node_xy=nodes.astype(np.float32), node_mm=5.0),
            layout_match=replace(
                made.layout_match, layout=LAYOUT, column_mm=_columns(), rhythm=(Lead.II,), labels=_labels()
            ),
            traces=TraceSet(
                row_mm=rows,
                confidence=np.where(np.isfinite(rows), 0.95, 0.0).astype(np.float32),
                baseline_mm=_baselines(),
                x0_mm=0.0,
                columns_per_mm=20.0,
            ),
            record=EcgRecord(
                signal_mv=signal_mv,
                confidence=np.where(np.isfinite(signal_mv), 0.95, 0.0).astype(np.float32),
                leads=LEADS,
                sampling_frequency_hz=500.0,
                calibration=default_calibration,
            ),
            quality=replace(made.quality, warnings=("ink 11 mm tall at 6.2 s in V1 is not in the record",)),
            audit=InkAudit(marks=(mark,)),
            text=(text,) if page.pixels[0, 3, 2] % 2 else (),
        )
        return as_stated(plain, more.get("corrections") or Corrections())


if __name__ == "__main__":
    main("tests.drawn_digitizer", DrawnDigitizer)
