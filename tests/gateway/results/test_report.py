"""The PDF report, read back by PDFium: words, scale, rows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from pypdfium2 import PdfDocument

from gateway.results.report import build_report, printable
from pipeline import LEADS
from tests.gateway.dicom.samples import CONTEXT, make_page, make_quality, make_record

PX_PER_MM = 8


def report(layout: str = "3x4+II", n_samples: int = 5000, **changes: object) -> bytes:
    context = CONTEXT.model_copy(update=changes.pop("context", {}))  # type: ignore[arg-type]
    record = changes.pop("record", make_record(layout, n_samples))
    quality = make_quality(**changes.pop("quality", {}))  # type: ignore[arg-type]
    page = make_page(record, quality=quality, context=context, layout_name="3x4+1R", **changes)  # type: ignore[arg-type]
    return build_report(page)


def words(pdf: bytes, page: int = 0) -> str:
    with PdfDocument(pdf) as document:
        text: str = document[page].get_textpage().get_text_range()
    return text


def ink(pdf: bytes) -> np.ndarray:
    """Where the first page is black: the traces and letters, not the grid."""
    with PdfDocument(pdf) as document:
        page = document[0]
        assert [round(side * 25.4 / 72) for side in page.get_size()] == [297, 210]
        pixels = page.render(scale=PX_PER_MM * 25.4 / 72).to_numpy()
    return pixels.max(axis=2) < 110


def test_header_says_who_what_and_how_well() -> None:
    text = words(report(quality={"warnings": ("lead V1 was hard to read",)}))
    for part in [
        "DIGITIZED FROM PAPER, unconfirmed",
        "Muster Zoë",
        "P-1001",
        "1970-01-02",
        "A1001",
        "2026-03-01 09:30",
    ]:
        assert part in text
    for part in ["17 dB", "25 mm/s", "10 mm/mV", "lead V1 was hard to read", "Heart rate not measured", "3x4+1R"]:
        assert part in text
    assert "confirmed by a person, corrected" in words(report(final=True, revision=1))


def test_a_name_the_font_lacks_is_not_mangled() -> None:
    assert "(see the DICOM or HL7 header)" in words(report(context={"patient_name": "山田^太郎"}))
    assert "Yamada Tarou" in words(report(context={"patient_name": "Yamada^Tarou=山田^太郎"}))
    assert printable("Zoë Łukasz") == "Zoë Łukasz"


def test_one_millivolt_is_ten_and_a_second_twenty_five_millimetres() -> None:
    record = make_record("12x1")
    record.signal_mv[:] = np.nan
    record.signal_mv[1] = 0.0
    record.signal_mv[1, 1000:3000] = 1.0  # 4 s at 1 mV
    black = ink(report(record=record))
    band = black[45 * PX_PER_MM : 195 * PX_PER_MM, 26 * PX_PER_MM :]
    lengths = band.sum(axis=1)
    high, low = (rows := np.flatnonzero(lengths > 0.9 * 100 * PX_PER_MM)).min(), rows.max()
    assert low - high == pytest.approx(10 * PX_PER_MM, abs=3)
    assert lengths[rows[0]] == pytest.approx(100 * PX_PER_MM, abs=12)  # 4 s


def test_leads_stand_as_on_paper_and_gaps_are_not_drawn() -> None:
    with PdfDocument(report("3x4+II")) as document:
        page = document[0].get_textpage()
        found = {}
        for lead in LEADS:
            search = page.search(lead.value, match_case=True, match_whole_word=True)
            while (hit := search.get_next()) is not None:
                left, bottom, *_ = page.get_charbox(hit[0])
                if bottom < 168 * 72 / 25.4:
                    found.setdefault(lead.value, []).append((round(left * 25.4 / 72), round(bottom * 25.4 / 72)))
    assert len(found["II"]) == 2  # in its column, and as the strip
    tops = [found[name][0] for name in ("I", "aVR", "V1", "V4")]
    assert len({y for _, y in tops}) == 1
    assert all(abs(b[0] - a[0] - 62.5) <= 1 for a, b in pairwise(tops))  # 2.5 s


def test_same_inputs_same_bytes_and_long_records_have_pages() -> None:
    assert report() == report()
    with PdfDocument(report("12x1", n_samples=6000)) as document:
        assert len(document) == 2
    assert "Page 2 of 2, from 10 s" in words(report("12x1", n_samples=6000), 1)
