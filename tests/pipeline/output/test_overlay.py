from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.datatypes import SpikeMark
from pipeline.output.overlay import draw_overlay, write_png
from pipeline.source.page import load_pages
from tests.pipeline.paper_samples import digitization


@pytest.mark.parametrize("px_per_mm", [2.0, 8.0, 20.0])
def test_traces_are_drawn_where_they_were_read_whatever_the_page_s_size(px_per_mm: float) -> None:
    result = digitization(px_per_mm)
    drawn = draw_overlay(result)
    assert drawn.dtype == np.uint8
    assert drawn.shape == pytest.approx((130 * 8, 290 * 8, 3), abs=2)
    red = np.abs(drawn.astype(int) - (214, 39, 40)).max(-1) < 15  # lead I's colour
    y, x = np.nonzero(red)
    traces = result.traces
    column = np.round((x / 8 - traces.x0_mm) * traces.columns_per_mm).astype(int)
    on_trace = np.abs(y / 8 - traces.row_mm[0, np.clip(column, 0, traces.row_mm.shape[1] - 1)]) < 1.0
    in_name = (x / 8 < 17) & (y / 8 < 14)
    assert x.size > 500
    assert np.mean(on_trace | in_name) > 0.9
    assert x.max() / 8 < 12 + 62.5 + 1


def test_pacing_spikes_are_drawn_in_their_lead_s_colour() -> None:
    result = digitization(8.0)
    foot_mm = float(result.traces.row_mm[0, 800])
    x_mm = result.traces.x0_mm + 800 / result.traces.columns_per_mm
    spike = SpikeMark(row=0, x_mm=x_mm, tip_mm=foot_mm + 12.0, score=0.9)
    drawn = draw_overlay(replace(result, traces=replace(result.traces, spikes=(spike,))))
    stroke = drawn[round((foot_mm + 2.0) * 8) : round((foot_mm + 11.5) * 8), round(x_mm * 8)]
    assert (np.abs(stroke.astype(int) - (214, 39, 40)).max(-1) < 15).all()


def test_png_holds_the_same_picture() -> None:
    drawn = draw_overlay(digitization(4.0), px_per_mm=3.0)
    data = write_png(drawn)
    assert data.startswith(b"\x89PNG")
    assert np.array_equal(load_pages(data)[0].pixels, drawn)


def test_only_those_who_show_a_page_draw_one() -> None:
    root = Path(__file__).resolve().parents[3]
    sources = [path for package in ("pipeline", "gateway") for path in (root / package).rglob("*.py")]
    drawing = {path.relative_to(root).as_posix() for path in sources if "draw_overlay(" in path.read_text("utf-8")}
    assert drawing - {"pipeline/output/overlay.py"} == {
        "gateway/worker/worker.py",  # for the review page
        "pipeline/command_line.py",  # if it is asked for
        "pipeline/evaluation/bench.py",
        "pipeline/evaluation/cli.py",
    }  # an archive run draws none


def test_the_size_is_bounded() -> None:
    drawn = draw_overlay(digitization(8.0), max_pixels=100_000)
    assert drawn.shape[0] * drawn.shape[1] < 102_000
