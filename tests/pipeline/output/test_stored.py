"""What an archive run keeps of a page is all that a gateway makes of it."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from datetime import date

import numpy as np
import pytest

from pipeline import Act, ByPerson, Digitization, DigitizationError, EcgRecord, Lead, PageImage, RectifiedPage, TraceSet
from pipeline.datatypes import (
    AuditMark,
    DrawnLine,
    InkAudit,
    Mark,
    PrintedValues,
    SecondPrint,
    SpikeMark,
    TextLine,
)
from pipeline.output.stored import StoredPage, StoredPages, pack_digitization
from tests.pipeline.paper_samples import digitization


@pytest.fixture(scope="module")
def read() -> Digitization:
    """A page of which everything is stated that can be."""
    plain = digitization()
    line = DrawnLine(row=1, first=7, y_mm=np.array([1.5, np.nan], np.float32))
    traces = replace(plain.traces, doubt_mm=plain.traces.row_mm * np.float32(0.01), lines=(line, line))
    traces = replace(traces, spikes=(SpikeMark(row=0, x_mm=20.0, tip_mm=11.0, score=0.8),))
    second = SecondPrint(
        lead=Lead.II, first_sample=5, signal_mv=np.ones(9, np.float32), agreement_db=np.float64(20.5), used=True
    )
    mark = AuditMark(
        kind=Mark.SPIKE, lead=Lead.V1, start_s=0.1, end_s=0.2, x0_mm=1.0, y0_mm=2.0, x1_mm=3.0, y1_mm=4.0,
        reach_mm=5.0, missing_mm2=6.0, doubtful=True,
    )  # fmt: skip
    record = replace(
        plain.record,
        second_prints=(second,),
        pacing=((Lead.V1, np.int64(12)),),
        by_person=(ByPerson(act=Act.DRAWN, lead=Lead.I, first_sample=1, stop_sample=3),),
    )
    return replace(
        plain,
        traces=traces,
        record=record,
        quality=replace(plain.quality, einthoven_residual_mv=float("nan")),
        audit=InkAudit(pen_mm=np.float32(0.25), marks=(mark,)),
        text=(TextLine(text="Name: DOE", x0_mm=1.0, y0_mm=2.0, x1_mm=3.0, y1_mm=4.0, score=0.9, sure=(0.5, 0.9)),),
        printed=PrintedValues(recorded_on=date(2020, 1, 2), may_be_recorded_on=(date(2020, 2, 1),), filters=("50 Hz",)),
        weights_sha256={"page": "ab"},
    )


def stored(read: Digitization, **changes: object) -> StoredPages:
    page = StoredPage(rest=pack_digitization(read), signal_mv=read.record.signal_mv, confidence=read.record.confidence)
    return StoredPages(run="id", version="1", pages={1: page, 2: StoredPage(reason="no ECG"), **changes})


def same(one: object, other: object, path: str = "") -> list[str]:
    """Name every field in which two values differ."""
    if is_dataclass(one):
        assert type(one) is type(other)
        names = [each.name for each in fields(one)]
        return [found for name in names for found in same(getattr(one, name), getattr(other, name), f"{path}.{name}")]
    if isinstance(one, np.ndarray):
        if other is None:
            return [path]
        assert isinstance(other, np.ndarray) and one.dtype == other.dtype
        return [] if np.array_equal(one, other, equal_nan=True) else [path]
    if isinstance(one, tuple):
        assert isinstance(other, tuple) and len(one) == len(other), path
        return [found for k, pair in enumerate(zip(one, other, strict=True)) for found in same(*pair, f"{path}[{k}]")]
    return [] if one == other or (one != one and other != other) else [path]


def test_everything_but_the_pictures_comes_back(read: Digitization) -> None:
    back = StoredPages.from_bytes(stored(read).to_bytes())
    assert (back.run, back.version) == ("id", "1")
    found = same(read, back.digitization(read.page))
    assert found == [".rectified.pixels", ".traces.row_mm", ".traces.confidence", ".traces.doubt_mm"]
    assert back.digitization(read.page).traces.row_mm == pytest.approx(read.traces.row_mm, abs=0.0051, nan_ok=True)
    assert back.digitization(read.page).traces.confidence == pytest.approx(read.traces.confidence, abs=0.002)


def test_no_field_is_forgotten() -> None:
    """A new field of these types must be stored, or be named here."""
    known = {
        PageImage: "pixels page_number px_per_mm_hint strokes",
        RectifiedPage: "node_xy node_mm pixels px_per_mm grid_scale homography quarter_turns",
        TraceSet: "row_mm confidence baseline_mm x0_mm columns_per_mm doubt_mm lines by_person spikes strokes",
        EcgRecord: "signal_mv confidence leads sampling_frequency_hz calibration second_prints by_person pacing",
        Digitization: "page rectified layout_match traces record quality weights_sha256 text printed audit corrections",
    }
    assert {kind: " ".join(each.name for each in fields(kind)) for kind in known} == known


def test_a_page_without_a_record_says_why(read: Digitization) -> None:
    pages = StoredPages.from_bytes(stored(read).to_bytes())
    with pytest.raises(DigitizationError, match="no ECG"):
        pages.digitization(replace(read.page, page_number=2))
    with pytest.raises(DigitizationError, match="have no such page"):
        pages.digitization(replace(read.page, page_number=3))


def test_another_picture_and_damaged_bytes_are_refused(read: Digitization) -> None:
    pages = stored(read)
    with pytest.raises(DigitizationError, match=r"the page has 1159x520 pixels, and was read from 1160x520"):
        pages.digitization(replace(read.page, pixels=read.page.pixels[:, 1:]))
    with pytest.raises(DigitizationError, match="cannot be read"):
        StoredPages.from_bytes(pages.to_bytes()[:-100])
    broken = StoredPages(run="id", version="1", pages={1: replace(pages.pages[1], rest=b"PK")})
    with pytest.raises(DigitizationError, match="cannot be read"):
        broken.digitization(read.page)
