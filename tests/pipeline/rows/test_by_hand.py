"""Lines drawn by a person and stretches nobody can read: they follow the ink, and stay where they belong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline import CorrectionError, Digitization, PageImage, TraceSet, parse_corrections
from pipeline.datatypes import Act, DrawnLine, LayoutMatch
from pipeline.rows.by_hand import lay_by_hand, put_where_stated, snap, stated_rows
from pipeline.sheet.paper import Sheet, paper_to_page
from tests.pipeline.paper_samples import digitization, sheet_of

PX_PER_MM = 8.0


@pytest.fixture(scope="module")
def read() -> Digitization:
    """A sheet on which row 2 is drawn in ink, over a grid."""
    plain = digitization(px_per_mm=PX_PER_MM)
    pixels = np.full_like(plain.page.pixels, 250)
    step = round(PX_PER_MM)
    pixels[::step] = pixels[:, ::step] = (250, 190, 190)
    traces, row = plain.traces, plain.layout_match.rows[1]
    known = np.flatnonzero(np.isfinite(traces.row_mm[row]))
    x_mm = traces.x0_mm + known / traces.columns_per_mm
    points = paper_to_page(plain.rectified, np.column_stack([x_mm, traces.row_mm[row, known]]))
    cv2.polylines(pixels, [np.round(points * 16).astype(np.int32)], False, (20, 20, 20), 3, cv2.LINE_AA, 4)
    return replace(plain, page=PageImage(pixels=pixels))


def on_page(read: Digitization, x_mm: Any, y_mm: Any) -> list[list[float]]:
    return paper_to_page(read.rectified, np.column_stack([x_mm, y_mm])).tolist()


def laid(read: Digitization, traces: TraceSet | None = None, **content: Any) -> tuple[TraceSet, LayoutMatch]:
    corrections = parse_corrections(content)
    return lay_by_hand(traces or read.traces, read.layout_match, sheet_of(read), read.rectified, corrections)


def drawn(read: Digitization, off_mm: float = 0.3, start_mm: float = 80.0) -> tuple[slice, dict[str, Any]]:
    """A rough line along row 2, 30 mm long."""
    traces, row = read.traces, read.layout_match.rows[1]
    first = round((start_mm - traces.x0_mm) * traces.columns_per_mm)
    columns = np.arange(first, first + 600, 5)
    y_mm = traces.row_mm[row, columns] + np.random.default_rng(1).normal(0, off_mm, columns.size)
    points = on_page(read, traces.x0_mm + columns / traces.columns_per_mm, y_mm)
    return slice(int(columns[0]), int(columns[-1])), {"row": 2, "points_px": points}


def test_a_rough_line_moves_to_the_middle_of_the_ink(read: Digitization) -> None:
    part, line = drawn(read)
    row = read.layout_match.rows[1]
    lost = read.traces.row_mm.copy()
    lost[row, part] = np.nan
    traces, _ = laid(read, replace(read.traces, row_mm=lost), lines=[line])
    off_mm = traces.row_mm[row, part] - read.traces.row_mm[row, part]
    assert np.sqrt(np.mean(off_mm**2)) < 0.08
    assert (traces.confidence[row, part] == 1).all()
    assert traces.by_person is not None and (traces.by_person[row, part] == Act.DRAWN).all()
    assert (traces.by_person > 0).sum() == pytest.approx(part.stop - part.start, abs=2)


def test_a_line_without_ink_near_it_stays_where_it_was_drawn(read: Digitization) -> None:
    x_mm = np.arange(80.0, 90.0, 0.05)
    y_mm = np.full(x_mm.size, 61.3)
    blank = PageImage(pixels=np.full_like(read.page.pixels, 250))
    assert np.array_equal(snap(x_mm, y_mm, Sheet(page=blank, segmentation=None, rectified=read.rectified)), y_mm)  # type: ignore[arg-type]


def test_a_line_drawn_from_right_to_left_is_the_same(read: Digitization) -> None:
    _, line = drawn(read)
    back = {**line, "points_px": line["points_px"][::-1]}
    assert np.array_equal(laid(read, lines=[line])[0].row_mm, laid(read, lines=[back])[0].row_mm, equal_nan=True)


def test_an_unreadable_stretch_is_nan(read: Digitization) -> None:
    ends = on_page(read, [80.0, 90.0], [40.0, 40.0])
    row = read.layout_match.rows[0]
    traces, _ = laid(read, unreadable=[{"row": 1, "from_px": ends[1], "to_px": ends[0]}])
    gone = np.flatnonzero(np.isnan(traces.row_mm[row]) & np.isfinite(read.traces.row_mm[row]))
    assert gone.size == pytest.approx(200, abs=2)
    assert traces.by_person is not None and (traces.by_person[row, gone] == Act.UNREADABLE).all()


def test_a_row_that_was_not_traced_is_made_by_a_line(read: Digitization) -> None:
    _, line = drawn(read)
    match = read.layout_match
    missing = replace(match, row_index=(match.rows[0], -1, *match.rows[2:]))
    corrections = parse_corrections({"lines": [line]})
    traces, found = lay_by_hand(read.traces, missing, sheet_of(read), read.rectified, corrections)
    assert found.rows[1] == len(read.traces.row_mm) == len(traces.row_mm) - 1
    assert np.isfinite(traces.row_mm[-1]).sum() == pytest.approx(596, abs=3)


def test_a_drawing_s_own_line_gives_way(read: Digitization) -> None:
    _, line = drawn(read)
    rows = read.layout_match.rows
    lines = tuple(DrawnLine(row=row, first=1000, y_mm=np.zeros(5, np.float32)) for row in rows[:2])
    traces, _ = laid(read, replace(read.traces, lines=lines), lines=[line])
    assert [each.row for each in traces.lines] == [rows[0]]


def test_what_cannot_be_is_refused(read: Digitization) -> None:
    _, line = drawn(read)
    _, near = drawn(read, start_mm=90.0)
    points = line["points_px"]
    outside = on_page(read, [1.0, 2.0], [60.0, 60.0])
    ends = on_page(read, [85.0, 88.0], [60.0, 60.0])
    for content, field, rule in (
        ({"lines": [line, near]}, "lines[1].points_px", "overlap lines[0]"),
        (
            {"lines": [line], "unreadable": [{"row": 2, "from_px": ends[0], "to_px": ends[1]}]},
            "unreadable[0]",
            "overlap lines[0]",
        ),
        ({"lines": [{"row": 2, "points_px": [*points[:9], points[2], points[30]]}]}, "lines[0].points_px", "run along"),
        ({"lines": [{"row": 2, "points_px": outside}]}, "lines[0].points_px", "within the rows"),
    ):
        with pytest.raises(CorrectionError) as caught:
            laid(read, **content)
        assert caught.value.broken[0].field == field and rule in caught.value.broken[0].rule
    third = {**near, "row": 3}
    assert laid(read, lines=[line, third])  # another row's


def test_rows_and_columns_stand_where_they_are_stated(read: Digitization) -> None:
    baselines = [float(read.traces.baseline_mm[row]) for row in read.layout_match.rows]
    points = on_page(read, np.full(4, 30.0), baselines)
    rows = stated_rows([(x, y) for x, y in points], read.rectified, ())
    assert [row.baseline_mm for row in rows] == pytest.approx(baselines, abs=1e-3)
    edges = on_page(read, [14.0, 70.0, 140.0, 200.0, 262.0], np.full(5, 40.0))
    stated = parse_corrections({"column_edges_px": edges})
    match = put_where_stated(read.layout_match, read.traces, read.rectified, stated)
    assert np.array(match.column_mm) == pytest.approx(np.array([[14, 70], [70, 140], [140, 200], [200, 262]]), abs=1e-3)
    assert match.certain
    moved = [[x, y + 300.0] for x, y in points[3:]]
    stated = parse_corrections({"row_baselines_px": [*points[:3], *moved]})
    match = put_where_stated(read.layout_match, read.traces, read.rectified, stated)
    assert (match.rows, match.reasons) == ((0, 1, 2, -1), ("nothing was traced in 1 of 4 rows",))
    swapped = parse_corrections({"column_edges_px": [edges[1], edges[0], *edges[2:]]})
    with pytest.raises(CorrectionError, match="from left to right"):
        put_where_stated(read.layout_match, read.traces, read.rectified, swapped)
    with pytest.raises(CorrectionError, match="from top to bottom"):
        stated_rows([(x, y) for x, y in points[::-1]], read.rectified, ())
