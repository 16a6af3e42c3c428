"""A page digitized with corrections: each holds, and an earlier reading gives the same record sooner."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline import LEADS, CorrectionError, Digitization, Digitizer, Lead, PageImage, parse_corrections
from pipeline.command_line import app
from pipeline.evaluation.bench import draw_scan
from pipeline.output.files import to_json
from pipeline.sheet.paper import paper_to_page


@pytest.fixture(scope="module")
def digitizer() -> Digitizer:
    return Digitizer.load(device="cpu")


@pytest.fixture(scope="module")
def page() -> PageImage:
    return draw_scan(1500)


@pytest.fixture(scope="module")
def first(digitizer: Digitizer, page: PageImage) -> tuple[Digitization, bytes]:
    kept: list[bytes] = []
    return digitizer.digitize(page, keep=kept.append), kept[0]


@pytest.fixture(scope="module")
def plain(first: tuple[Digitization, bytes]) -> Digitization:
    return first[0]


@pytest.fixture(scope="module")
def known(first: tuple[Digitization, bytes]) -> bytes:
    """What was kept of the reading of the page."""
    return first[1]


def corrected(digitizer: Digitizer, page: PageImage, known: bytes, **content: Any) -> Digitization:
    return digitizer.digitize(page, corrections=parse_corrections(content), known=known)


def same(one: Digitization, other: Digitization) -> bool:
    signal = np.array_equal(one.record.signal_mv, other.record.signal_mv, equal_nan=True)
    return signal and np.array_equal(one.record.confidence, other.record.confidence) and to_json(one) == to_json(other)


def test_a_known_reading_gives_the_same_record_bit_for_bit(
    digitizer: Digitizer, page: PageImage, plain: Digitization, known: bytes
) -> None:
    content = {"layout": "3x4+1R", "rhythm": ["V1"], "paper_speed_mm_per_s": 50, "gain_mm_per_mv": 5}
    sooner = corrected(digitizer, page, known, **content)
    assert same(sooner, digitizer.digitize(page, corrections=parse_corrections(content)))
    assert same(corrected(digitizer, page, known), plain)


class NoNetwork(Exception):
    """A network was asked."""


def test_only_the_stages_that_depend_on_it_run_again(
    digitizer: Digitizer, page: PageImage, plain: Digitization, known: bytes
) -> None:
    def refuse(*_: object, **__: object) -> Any:
        raise NoNetwork

    stages = replace(digitizer.stages, segment=refuse, trace_rows=refuse, read_text=refuse, read_marks=refuse)
    late = replace(digitizer, stages=stages)
    corrected(late, page, known, layout="3x4", paper_speed_mm_per_s=50, gain_mm_per_mv=5, rhythm=None, left_out=["I"])
    other = PageImage(pixels=255 - page.pixels)
    for this, content in ((page, {"quarter_turns": 2}), (page, {"crop_px": [5, 5, 900, 900]}), (other, {})):
        with pytest.raises(NoNetwork):
            corrected(late, this, known, **content)
    for broken in (b"", b"x", known[:-9]):
        with pytest.raises(NoNetwork):
            late.digitize(page, known=broken)


def test_speed_and_gain_hold_and_are_not_doubted(
    digitizer: Digitizer, page: PageImage, plain: Digitization, known: bytes
) -> None:
    result = corrected(digitizer, page, known, paper_speed_mm_per_s=50, gain_mm_per_mv=5, chest_gain_mm_per_mv=2.5)
    calibration = result.record.calibration
    assert (calibration.speed_source, calibration.gain_source, calibration.reasons) == ("person", "person", ())
    assert (calibration.speed_score, calibration.gain_score) == (1.0, 1.0)
    limb, chest = (result.record.leads.index(lead) for lead in (Lead.II, Lead.V2))
    for row, factor in ((limb, 2.0), (chest, 4.0)):
        before, after = (np.nanmax(x.record.signal_mv[row]) for x in (plain, result))
        assert after == pytest.approx(factor * before, rel=0.03)
    assert result.record.signal_mv.shape[1] == plain.record.signal_mv.shape[1] / 2


def test_lead_names_hold(digitizer: Digitizer, page: PageImage, plain: Digitization, known: bytes) -> None:
    leads = [["V1", "V4", "I", "aVR"], ["V2", "V5", "II", "aVL"], ["V3", "V6", "III", "aVF"]]
    result = corrected(digitizer, page, known, leads=leads, rhythm=["V5"])
    match = result.layout_match
    assert (match.certain, match.rhythm, match.layout.name) == (True, (Lead.V5,), "3x4+1R")
    before, after = plain.record, result.record
    read = before.signal_mv[before.leads.index(Lead.I), 100:1200]
    assert np.array_equal(after.signal_mv[after.leads.index(Lead.V1), 100:1200], read)


def test_a_layout_holds_even_if_the_page_says_otherwise(
    digitizer: Digitizer, page: PageImage, plain: Digitization, known: bytes
) -> None:
    result = corrected(digitizer, page, known, layout="3x4")
    assert result.layout_match.layout.name == "3x4"
    assert result.layout_match.reasons == ("1 more row traced than the layout has",)


def test_columns_are_together_if_a_person_says_so(
    digitizer: Digitizer, page: PageImage, plain: Digitization, known: bytes
) -> None:
    together = corrected(digitizer, page, known, together=True)
    assert together.layout_match.certain
    v4 = np.flatnonzero(np.isfinite(together.record.signal_mv[together.record.leads.index(Lead.V4)]))
    assert v4[0] == 0 and v4.size == pytest.approx(1250, abs=20)


def test_a_lead_that_is_left_out_has_no_signal_and_asks_for_nothing(
    digitizer: Digitizer, page: PageImage, plain: Digitization, known: bytes
) -> None:
    result = corrected(digitizer, page, known, left_out=["V6"])
    row = result.record.leads.index(Lead.V6)
    assert np.isnan(result.record.signal_mv[row]).all() and Lead.V6 not in result.quality.coverage
    assert result.quality.warnings == plain.quality.warnings
    (said,) = json.loads(to_json(result))["by_person"]
    assert (said["act"], said["lead"]) == ("left_out", "V6") and said["end_s"] > said["start_s"]
    everything_else = [lead.value for lead in LEADS if lead != Lead.V6]
    only = corrected(digitizer, page, known, left_out=everything_else)
    assert np.isfinite(only.record.signal_mv).any(1).sum() == 1


@pytest.mark.parametrize(
    ("content", "field"),
    [({"layout": "7x7"}, "layout"), ({"rhythm": ["I", "II"]}, "rhythm"), ({"crop_px": [0, 0, 9, 9999]}, "crop_px")],
)
def test_what_does_not_fit_the_page_is_refused(
    digitizer: Digitizer, page: PageImage, plain: Digitization, known: bytes, content: dict[str, Any], field: str
) -> None:
    with pytest.raises(CorrectionError) as caught:
        corrected(digitizer, page, known, **content)
    assert caught.value.broken[0].field == field


def test_the_json_lists_the_corrections(
    digitizer: Digitizer, page: PageImage, plain: Digitization, known: bytes
) -> None:
    content = {"paper_speed_mm_per_s": 50.0, "rhythm": ["V1"]}
    assert json.loads(to_json(corrected(digitizer, page, known, **content)))["corrections"] == content
    assert json.loads(to_json(plain))["corrections"] == {}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"paper_speed_mm_per_s": 0}', "paper_speed_mm_per_s is 0: must be from 2 to 200"),
        ('{"2": {"gain_mm_per_mv": 0}}', "2.gain_mm_per_mv is 0: must be from 1 to 50"),
        ("{", "Expecting property name"),
    ],
)
def test_a_file_of_corrections_that_breaks_a_rule_ends_the_command(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "c.json").write_text(content)
    (tmp_path / "a.png").write_bytes(b"")
    arguments = ["digitize", str(tmp_path / "a.png"), "--out", str(tmp_path), "--corrections", str(tmp_path / "c.json")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_page_that_came_in_turned_mirrored_and_framed_is_read_the_same(
    digitizer: Digitizer, page: PageImage, plain: Digitization, known: bytes
) -> None:
    height, width = page.pixels.shape[:2]
    framed = np.full((height + 100, width + 150, 3), 120, np.uint8)
    framed[60 : 60 + height, 90 : 90 + width] = np.rot90(page.pixels, 2)[:, ::-1]
    crop = [90, 60, 90 + width, 60 + height]
    stated = parse_corrections({"crop_px": crop, "mirrored": True, "quarter_turns": 2})
    result = digitizer.digitize(PageImage(pixels=framed), corrections=stated)
    assert np.array_equal(result.record.signal_mv, plain.record.signal_mv, equal_nan=True)
    there = paper_to_page(plain.rectified, np.array([[50.0, 40.0]]))[0]
    here = paper_to_page(result.rectified, np.array([[50.0, 40.0]]))[0]
    assert here == pytest.approx((90 + there[0], 60 + height - 1 - there[1]), abs=0.01)


def test_rows_and_columns_are_read_where_a_person_puts_them(
    digitizer: Digitizer, page: PageImage, plain: Digitization, known: bytes
) -> None:
    match, traces = plain.layout_match, plain.traces
    baselines = [[match.column_mm[0][0] + 5, float(traces.baseline_mm[row]) + 1.5] for row in match.rows]
    edges = [[start + 2.0, 40.0] for start, _ in (*match.column_mm, (match.column_mm[-1][1] - 2.0, 0.0))]
    content = {
        "row_baselines_px": paper_to_page(plain.rectified, np.array(baselines)).tolist(),
        "column_edges_px": paper_to_page(plain.rectified, np.array(edges)).tolist(),
    }
    kept: list[bytes] = []
    stated = parse_corrections(content)
    result = digitizer.digitize(page, corrections=stated, known=known, keep=kept.append)
    assert (result.layout_match.rows, result.layout_match.certain) == ((0, 1, 2, 3), True)
    off_mm = np.array(result.layout_match.column_mm)[:, 0] - np.array(match.column_mm)[:, 0]
    assert off_mm == pytest.approx(2.0, abs=0.01)
    lead_i = result.record.signal_mv[0, :1000], plain.record.signal_mv[0, 40:1040]
    assert np.nanstd(lead_i[0] - lead_i[1]) < 0.15 * np.nanstd(lead_i[1])
    assert same(digitizer.digitize(page, corrections=stated, known=kept[0]), result)  # nothing is traced again
    assert same(digitizer.digitize(page, known=kept[0]), plain)  # and taken back


def test_a_drawn_line_and_an_unreadable_stretch_are_named_in_the_record(
    digitizer: Digitizer, page: PageImage, plain: Digitization, known: bytes
) -> None:
    match, traces = plain.layout_match, plain.traces
    start_mm, row = match.column_mm[1][0] + 10.0, match.rows[1]
    x_mm = np.arange(start_mm, start_mm + 25.0, 0.25)
    columns = np.round((x_mm - traces.x0_mm) * traces.columns_per_mm).astype(int)
    line = paper_to_page(plain.rectified, np.column_stack([x_mm, traces.row_mm[row, columns] + 0.2])).tolist()
    ends = paper_to_page(plain.rectified, np.array([[start_mm, 40.0], [start_mm + 10, 40.0]])).tolist()
    unreadable = {"row": 3, "from_px": ends[0], "to_px": ends[1]}
    result = corrected(digitizer, page, known, lines=[{"row": 2, "points_px": line}], unreadable=[unreadable])
    said = {each["act"]: each for each in json.loads(to_json(result))["by_person"]}
    assert {act: each["lead"] for act, each in said.items()} == {"drawn": "aVL", "unreadable": "aVF"}
    assert said["drawn"]["end_s"] - said["drawn"]["start_s"] == pytest.approx(0.99, abs=0.02)
    gone = result.record.signal_mv[result.record.leads.index(Lead.AVF)]
    span = slice(said["unreadable"]["first_sample"], said["unreadable"]["stop_sample"])
    assert np.isnan(gone[span]).all() and span.stop - span.start == pytest.approx(200, abs=4)
    avl = result.record.leads.index(Lead.AVL)
    part = slice(said["drawn"]["first_sample"], said["drawn"]["stop_sample"])
    off_mv = result.record.signal_mv[avl, part] - plain.record.signal_mv[avl, part]
    assert np.nanstd(off_mv) < 0.02 and (result.record.confidence[avl, part] > 0.9).all()
    assert not [mark for mark in result.audit.marks if mark.lead is Lead.AVF and mark.doubtful]
