"""Corrections: read strictly from JSON, refused with field, value and rule, checked against page and layout."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline import (
    CorrectionError,
    Corrections,
    Lead,
    LineByHand,
    Unreadable,
    check_corrections,
    corrections_json,
    load_layouts,
    parse_corrections,
)

PAGE = (1000, 800)
ROWS = [["I", "aVR", "V1", "V4"], ["II", "aVL", "V2", "V5"], ["III", "aVF", "V3", "V6"]]
ALL: dict[str, Any] = {
    "layout": "3x4+1R",
    "leads": ROWS,
    "rhythm": ["V1"],
    "together": True,
    "paper_speed_mm_per_s": 50,
    "gain_mm_per_mv": 5,
    "chest_gain_mm_per_mv": 2.5,
    "quarter_turns": 3,
    "mirrored": True,
    "corners_px": [[10, 10], [900, 12], [905, 700], [8, 698]],
    "not_ecg_px": [[[0, 0], [100, 0], [100, 50]]],
    "row_baselines_px": [[50, 100], [50, 200], [50, 300], [50, 400]],
    "column_edges_px": [[50, 100], [250, 100], [450, 100], [650, 100], [850, 100]],
    "lines": [{"row": 1, "points_px": [[60, 100], [70, 90.5], [80, 100]]}],
    "unreadable": [{"row": 2, "from_px": [60, 200], "to_px": [90, 200]}],
    "left_out": ["V6"],
}


def test_every_field_is_read_and_written_back() -> None:
    corrections = parse_corrections(json.loads(json.dumps(ALL)))
    assert corrections.leads is not None and corrections.leads[2] == (Lead.III, Lead.AVF, Lead.V3, Lead.V6)
    assert corrections.lines == (LineByHand(row=1, points_px=((60, 100), (70, 90.5), (80, 100))),)
    assert corrections.unreadable == (Unreadable(row=2, from_px=(60, 200), to_px=(90, 200)),)
    assert corrections_json(corrections) == ALL
    assert parse_corrections(corrections_json(corrections)) == corrections
    assert hash(parse_corrections(ALL)) == hash(corrections)


def test_nothing_stated_is_nothing() -> None:
    assert not parse_corrections({}) and not parse_corrections({"layout": None, "lines": []})
    assert corrections_json(Corrections()) == {}
    assert parse_corrections({"crop_px": [0, 0, 10, 10]}).crop_px == (0, 0, 10, 10)
    assert parse_corrections({"lines": [{"row": 1, "points_px": [[0, 0], [0, 0], [1, 1]]}]})
    assert Corrections(together=False) and Corrections(quarter_turns=0)


BROKEN: list[tuple[dict[str, Any], str, str, str]] = [
    ({"layout": ""}, "layout", "''", "name of a layout"),
    ({"layout": 3}, "layout", "3", "must be a text"),
    ({"leads": [["I", "II"], ["I", "III"]]}, "leads", "I more than once", "goes to rhythm"),
    ({"leads": [["I", "II"], ["III"]]}, "leads", "rows of [2, 1]", "same number"),
    ({"leads": [["I", "VV"]]}, "leads[0][1]", "'VV'", "must be one of I, II"),
    ({"leads": "I"}, "leads", "'I'", "must be a list"),
    ({"rhythm": ["II", "II"]}, "rhythm", "II more than once", "no two strips"),
    ({"together": "yes"}, "together", "'yes'", "true or false"),
    ({"paper_speed_mm_per_s": 0}, "paper_speed_mm_per_s", "0", "from 2 to 200"),
    ({"paper_speed_mm_per_s": True}, "paper_speed_mm_per_s", "True", "must be a number"),
    ({"paper_speed_mm_per_s": float("nan")}, "paper_speed_mm_per_s", "nan", "must be a number"),
    ({"gain_mm_per_mv": -10}, "gain_mm_per_mv", "-10", "from 1 to 50"),
    ({"chest_gain_mm_per_mv": 500}, "chest_gain_mm_per_mv", "500", "from 1 to 50"),
    ({"quarter_turns": 4}, "quarter_turns", "4", "0, 1, 2 or 3"),
    ({"quarter_turns": 1.0}, "quarter_turns", "1.0", "whole number"),
    ({"corners_px": [[0, 0], [9, 9], [9, 0], [0, 9]]}, "corners_px", "(9, 9)", "without crossing"),
    ({"corners_px": [[9, 0], [9, 9], [0, 9], [0, 0]]}, "corners_px", "(9, 0)", "from top left"),
    ({"corners_px": [[0, 0], [9, 0], [9, 9]]}, "corners_px", "3 points", "four points"),
    ({"corners_px": ALL["corners_px"], "crop_px": [0, 0, 9, 9]}, "crop_px", "(0, 0, 9, 9)", "one of them"),
    ({"crop_px": [9, 0, 0, 9]}, "crop_px", "(9, 0, 0, 9)", "left must be less"),
    ({"crop_px": [9, 0]}, "crop_px", "[9, 0]", "list of 4 numbers"),
    ({"not_ecg_px": [[[0, 0], [1, 1]]]}, "not_ecg_px[0]", "(0, 0) (1, 1)", "three different points"),
    ({"row_baselines_px": [[0, 0], [0, 0]]}, "row_baselines_px", "(0, 0) (0, 0)", "each once"),
    ({"column_edges_px": [[0, 0]]}, "column_edges_px", "(0, 0)", "2 different points at least"),
    ({"lines": [{"row": 0, "points_px": [[0, 0], [1, 1]]}]}, "lines[0].row", "0", "counted from 1"),
    ({"lines": [{"row": 1, "points_px": [[0, 0]]}]}, "lines[0].points_px", "(0, 0)", "2 different points at least"),
    ({"lines": [{"row": 1}]}, "lines[0].points_px", "None", "missing"),
    ({"lines": [{"row": 1, "points_px": [[0, "x"], [1, 1]]}]}, "lines[0].points_px[0][1]", "'x'", "a number"),
    ({"unreadable": [{"row": 1, "from_px": [1, 1], "to_px": [1, 1]}]}, "unreadable[0]", "(1, 1)", "each once"),
    ({"left_out": ["I", "I"]}, "left_out", "I more than once", "named once"),
    ({"left_out": [*Lead]}, "left_out", "all leads", "reject the page"),
    ({"speed": 25}, "speed", "25", "unknown; known are layout"),
]


@pytest.mark.parametrize(("content", "field", "value", "rule"), BROKEN, ids=[each[1] + each[2] for each in BROKEN])
def test_a_broken_rule_names_field_value_and_rule(content: dict[str, Any], field: str, value: str, rule: str) -> None:
    with pytest.raises(CorrectionError) as caught:
        parse_corrections(content)
    (broken,) = caught.value.broken
    assert broken.field == field
    assert value in broken.value
    assert rule in broken.rule
    assert str(caught.value) == f"{broken.field} is {broken.value}: {broken.rule}"


@pytest.mark.parametrize("content", [None, [], "x", 3])
def test_what_is_no_object_is_refused(content: object) -> None:
    with pytest.raises(CorrectionError, match="must be an object"):
        parse_corrections(content)


def test_every_broken_rule_is_named_at_once() -> None:
    with pytest.raises(CorrectionError) as caught:
        parse_corrections({"paper_speed_mm_per_s": 0, "gain_mm_per_mv": 0, "rhythm": ["I", "I"]})
    assert [each.field for each in caught.value.broken] == ["rhythm", "paper_speed_mm_per_s", "gain_mm_per_mv"]


def test_what_fits_page_and_layout_is_accepted() -> None:
    check_corrections(parse_corrections(ALL), PAGE, load_layouts())


@pytest.mark.parametrize(
    ("content", "found", "field", "rule"),
    [
        ({"layout": "5x5"}, "3x4", "layout", "must be one of 3x4+1R, 3x4"),
        ({"leads": [["I", "II"]]}, "3x4", "leads", "layout 3x4 has 3 rows of 4"),
        ({"layout": "6x2", "leads": ROWS}, "3x4", "leads", "layout 6x2 has 6 rows of 2"),
        ({"rhythm": ["II"]}, "3x4", "rhythm", "layout 3x4 has 0 rhythm strips"),
        ({"together": True}, "12x1", "together", "layout 12x1 has one column"),
        ({"row_baselines_px": [[1, 1]]}, "3x4", "row_baselines_px", "layout 3x4 needs 3"),
        ({"column_edges_px": [[1, 1], [2, 2]]}, "3x4", "column_edges_px", "layout 3x4 needs 5"),
        ({"lines": [{"row": 4, "points_px": [[0, 0], [1, 1]]}]}, "3x4", "lines[0].row", "has 3 rows"),
        (
            {"lines": [{"row": 1, "points_px": [[0, 0], [1002, 1]]}]},
            "",
            "lines[0].points_px[1]",
            "on the page of 1000 x 800",
        ),
        ({"crop_px": [0, 0, 10, 900]}, "", "crop_px", "on the page"),
        ({"not_ecg_px": [[[0, 0], [1, 1], [-9, 1]]]}, "", "not_ecg_px[0][2]", "on the page"),
    ],
)
def test_what_does_not_fit_page_or_layout_is_refused(
    content: dict[str, Any], found: str, field: str, rule: str
) -> None:
    with pytest.raises(CorrectionError) as caught:
        check_corrections(parse_corrections(content), PAGE, load_layouts(), found)
    (broken,) = caught.value.broken
    assert broken.field == field
    assert rule in broken.rule
