"""Where corrections lie on a page: refused before the page is read again, also on a bent and turned sheet."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gateway.results.placed import check_placed
from gateway.spool.folder import Spool
from gateway.store.tables import Job
from pipeline import CorrectionError, Corrections, LineByHand, Unreadable

ZOOM, NODE_MM = 0.5, 5.0


def page_px(x_mm: float, y_mm: float) -> tuple[float, float]:
    """The page pixel under a paper point: the sheet lies on its side and is bent by 2 mm."""
    bent = y_mm + 2 * np.sin(x_mm / 40)
    return 900 - 8 * bent, 100 + 8 * x_mm


@pytest.fixture
def job(spool: Spool) -> Job:
    job = Job(id="0" * 8 + "-0000-4000-8000-" + "0" * 12, source="s", source_key="k", media_type="image/png")
    nodes = [[page_px(NODE_MM * j, NODE_MM * i) for j in range(41)] for i in range(17)]
    xy = (np.array(nodes) + 0.5) * ZOOM
    geometry = {"zoom": ZOOM, "lattice": {"node_mm": NODE_MM, "xy": xy.round(1).tolist()}}
    spool.write_source(job.id, b"source")
    spool.write_artefact(job.id, "page-1.geometry.json", json.dumps(geometry).encode())
    return job


def line(row: int, *points: tuple[float, float]) -> LineByHand:
    return LineByHand(row=row, points_px=tuple(page_px(*point) for point in points))


def broken(spool: Spool, job: Job, **stated: object) -> list[str]:
    try:
        check_placed(spool, job, {1: Corrections(**stated)})  # type: ignore[arg-type]
    except CorrectionError as error:
        return [f"{each.field}: {each.rule}" for each in error.broken]
    return []


def test_what_is_in_order_passes(spool, job):
    rows = tuple(page_px(20, y) for y in (20, 40, 60))
    columns = tuple(page_px(x, 30) for x in (10, 70, 130, 190))
    lines = (line(1, (10, 20), (11, 8), (12, 20)), line(1, (12, 20), (15, 20)), line(2, (10, 40), (14, 41)))
    part = Unreadable(row=1, from_px=page_px(20, 20), to_px=page_px(15, 20))
    assert broken(spool, job, row_baselines_px=rows, column_edges_px=columns, lines=lines, unreadable=(part,)) == []


def test_rows_and_columns_out_of_order(spool, job):
    rows = tuple(page_px(20, y) for y in (20, 60, 40))
    columns = tuple(page_px(x, 30) for x in (10, 10.5, 130))
    assert broken(spool, job, row_baselines_px=rows, column_edges_px=columns) == [
        "row_baselines_px: rows must go from top to bottom, 1 mm apart at least",
        "column_edges_px: columns must go from left to right, 1 mm apart at least",
    ]


def test_lines_that_overlap_run_back_or_stand_still(spool, job):
    lines = (
        line(1, (10, 20), (30, 20)),
        line(1, (50, 20), (29, 20)),  # drawn from right to left
        line(2, (10, 40), (20, 40), (15, 40), (22, 40)),
        line(3, (10, 40), (10, 50)),
    )
    assert broken(spool, job, lines=lines) == [
        "lines[2]: must run along time, not back",
        "lines[3]: must be as long as a column of the trace (0.05 mm) at least",
        "lines[1]: must not overlap what is stated there already",
    ]


def test_page_that_is_now_turned_is_left_to_the_digitizer(spool, job):
    rows = tuple(page_px(20, y) for y in (20, 60, 40))
    assert broken(spool, job, row_baselines_px=rows, quarter_turns=1) == []
