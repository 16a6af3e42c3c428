"""The geometry of a page: times, millivolts and places on the picture agree with the record."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from pipeline import Calibration, Lead, PageImage, TextLine
from pipeline.datatypes import AuditMark, InkAudit, Mark, SpikeMark
from pipeline.output.geometry import blank_geometry, page_geometry
from tests.fake_digitizer import fake_digitization

SPEED = 25.0
GAIN = 10.0


@pytest.fixture(scope="module")
def digitization():
    """A page of 8 pixels a millimetre whose three rows show what the record says."""
    made = fake_digitization(PageImage(pixels=np.full((800, 2400, 3), 255, np.uint8), page_number=1), Calibration())
    match = replace(made.layout_match, column_mm=tuple((20.0 + 62.5 * k, 82.5 + 62.5 * k) for k in range(4)))
    row_mm = np.full((3, 5400), np.nan, np.float32)
    baseline_mm = np.array([25.0, 50.0, 75.0], np.float32)
    for lead, row, (start_mm, _) in match.stretches():
        first = round(start_mm * 20)
        known = made.record.signal_mv[made.record.leads.index(lead)]
        part = known[np.isfinite(known)]
        row_mm[row, first : first + part.size] = baseline_mm[row] - GAIN * part
    row_mm[0, 800:840] = np.nan  # 2 mm, 0.08 s of lead I
    confidence = np.where(np.isfinite(row_mm), 0.9, 0.0).astype(np.float32)
    confidence[1, 2000:2100] = 0.2  # 5 mm of aVL
    traces = replace(
        made.traces, row_mm=row_mm, confidence=confidence, baseline_mm=baseline_mm, x0_mm=0.0, columns_per_mm=20.0
    )
    nodes = np.stack(np.meshgrid(np.arange(61) * 40.0, np.arange(21) * 40.0), axis=-1).astype(np.float32)
    mark = AuditMark(
        kind=Mark.SPIKE,
        lead=Lead.V1,
        start_s=5.5,
        end_s=5.52,
        x0_mm=157.5,
        y0_mm=15.0,
        x1_mm=158.0,
        y1_mm=25.0,
        reach_mm=10.0,
        missing_mm2=4.0,
        doubtful=True,
    )
    line = TextLine(text="ID: X", x0_mm=10, y0_mm=2, x1_mm=30, y1_mm=5, score=0.99)
    rectified = replace(made.rectified, node_xy=nodes, node_mm=5.0)
    audit = InkAudit(marks=(mark, replace(mark, doubtful=False)))
    return replace(made, rectified=rectified, layout_match=match, traces=traces, audit=audit, text=(line,))


@pytest.fixture(scope="module")
def geometry(digitization):
    return json.loads(page_geometry(digitization, 1200))  # half the page's width


def test_size_and_zoom(geometry, digitization):
    assert (geometry["width"], geometry["height"], geometry["zoom"]) == (1200, 400, 0.5)
    blank = json.loads(blank_geometry(digitization.page, 1200))
    assert blank == {"width": 1200, "height": 400, "zoom": 0.5}


def test_pacing_spikes_have_their_tips(geometry, digitization):
    spike = SpikeMark(row=1, x_mm=30.0, tip_mm=38.0, score=0.9)
    spiked = replace(digitization, traces=replace(digitization.traces, spikes=(spike,)))
    before, after = geometry["stretches"], json.loads(page_geometry(spiked, 1200))["stretches"]
    changed = [
        (old["lead"], column, new["xy"][column])
        for old, new in zip(before, after, strict=True)
        for column in range(len(old["xy"]))
        if old["xy"][column] != new["xy"][column]
    ]
    assert changed == [("II", 200, [120.2, 152.2])]  # 4 pixels a millimetre


def test_every_lead_lies_where_its_record_says(geometry, digitization):
    stretches = {each["lead"]: each for each in geometry["stretches"]}
    assert set(stretches) == {lead.value for lead in digitization.record.leads}
    for number, lead in enumerate(digitization.record.leads):
        stretch = stretches[lead.value]
        first = round(stretch["start_s"] * 500)
        for k in (100, 700, 1100):
            if stretch["xy"][k] is None:
                continue
            mv = digitization.record.signal_mv[number, first + k]
            x_mm = stretch["x0_mm"] + k * stretch["step_s"] * SPEED
            y_mm = stretch["zero_mm"] - mv * stretch["mm_per_mv"]
            assert stretch["xy"][k] == pytest.approx([(x_mm * 8 + 0.5) / 2, (y_mm * 8 + 0.5) / 2], abs=0.11)


def test_rows_and_columns_are_the_printed_ones(geometry):
    assert geometry["rows"] == [25.0, 50.0, 75.0]
    assert geometry["columns"][1] == [82.5, 145.0]
    assert [each["row"] for each in geometry["stretches"][:5]] == [0, 0, 0, 0, 1]


def test_doubts_are_the_audits_then_gaps_and_low_confidence(geometry):
    doubts = [(each["kind"], each["lead"]) for each in geometry["doubts"]]
    assert doubts == [("spike", "V1"), ("gap", "I"), ("unsure", "aVL")]
    gap = geometry["doubts"][1]
    assert (gap["start_s"], gap["end_s"]) == (0.8, 0.88)
    (x0, _), (x1, _), *_ = gap["box"]
    assert (x0, x1) == (pytest.approx((39 * 8 + 0.5) / 2, abs=0.2), pytest.approx((42.95 * 8 + 0.5) / 2, abs=0.2))


def test_print_is_kept_with_its_place(geometry):
    (line,) = geometry["text"]
    assert (line["text"], line["mm"]) == ("ID: X", [10, 2, 30, 5])
    assert line["box"][0] == pytest.approx([(9 * 8 + 0.5) / 2, (1 * 8 + 0.5) / 2], abs=0.11)
