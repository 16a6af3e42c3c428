from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from pipeline import Digitization, PageImage
from pipeline.datatypes import ByteArray, InkAudit, RectifiedPage, TraceSet
from pipeline.errors import GridNotFound
from pipeline.evaluation.budget import LEVELS, budget_table, count_table, measure_geometry, measure_page, page_table
from pipeline.evaluation.drawn import Drawn, same_print
from pipeline.layout.file import load_layouts
from pipeline.networks.specification import PAGE, ROW_BINS, TRACE
from pipeline.sheet.paper import turn
from pipeline.signal.calibrate import calibrate
from pipeline.signal.quality import assess
from pipeline.training.drawing.render import Picture, draw_pictures
from pipeline.training.recordings.simulate import simulate_ecg

HEARTS = [simulate_ecg(np.random.default_rng(seed), disease="none") for seed in range(2)]


@pytest.fixture(scope="module")
def photo() -> Picture:
    return next(iter(draw_pictures(HEARTS, count=1, kind="photo", seed=3)))


class InkNetwork:
    """Finds the darkest ink of every column: a trace network that needs no training."""

    def run(self, pixels: ByteArray) -> tuple[torch.Tensor, ...]:
        dark = 255.0 - torch.from_numpy(pixels).float().mean(-1)
        bins = dark.reshape(dark.shape[0], ROW_BINS, 2, -1).mean(2).repeat_interleave(2, -1)
        return bins / 8, torch.full((bins.shape[0], bins.shape[2]), 9.0)


class BlankNetwork:
    """Sees background everywhere."""

    def run(self, pixels: ByteArray) -> tuple[torch.Tensor, ...]:
        logits = torch.zeros(1, 4, *pixels.shape[1:3])
        logits[:, 0] = 50
        return (logits,)


@dataclass
class FakeDigitizer:
    """Reads exactly what was drawn, or gives up."""

    drawn: Drawn
    gives_up: bool = False
    networks: Any = field(default_factory=lambda: {PAGE: BlankNetwork(), TRACE: InkNetwork()})

    def digitize(self, page: PageImage) -> Digitization:
        if self.gives_up:
            raise GridNotFound("there is no ECG grid on the page")
        calibration = self.drawn.picture.page.calibration
        sheet, traces = self.drawn.sheet, blank_traces(self.drawn)
        traces = self.drawn.lines(traces)
        match = self.drawn.match(traces)
        record = calibrate(traces, match, calibration)
        return Digitization(
            page=page,
            rectified=sheet,
            layout_match=match,
            traces=traces,
            record=record,
            quality=assess(record, match, traces, sheet.grid_scale, InkAudit()),
        )


def blank_traces(drawn: Drawn) -> TraceSet:
    """Columns that fall on the drawn samples."""
    row = drawn.rows()[0]
    n = round((row.x1_mm - row.x0_mm + 10) * 20)
    blank = np.zeros((1, n), np.float32)
    return TraceSet(
        row_mm=blank, confidence=blank, baseline_mm=blank[:, 0], x0_mm=row.x0_mm + 0.025 - 5, columns_per_mm=20.0
    )


def test_paper_goes_to_the_page_and_back(photo: Picture) -> None:
    drawn = Drawn(photo)
    points = np.random.default_rng(0).uniform([5, 5], [photo.page.style.width_mm - 5, 90], (50, 2))
    assert np.abs(drawn.paper(drawn.pixels(points)) - points).max() < 0.01


def test_geometry_errors_are_measured(photo: Picture) -> None:
    drawn = Drawn(photo)
    exact = measure_geometry(drawn, drawn.sheet)
    assert exact is not None and exact.quarter_turns == 0
    assert abs(exact.scale_x) < 1e-4 and abs(exact.scale_y) < 1e-4 and exact.bend_mm < 0.02

    def warped(sheet: RectifiedPage, node_mm: float, wave_px: float) -> RectifiedPage:
        j = np.arange(sheet.node_xy.shape[1])
        nodes = sheet.node_xy.copy()
        nodes[..., 1] += wave_px * np.sin(j * 0.9).astype(np.float32)
        return replace(sheet, node_xy=nodes, node_mm=node_mm)

    # nodes taken for 4.9 mm apart are 5: a millimetre has 5 / 4.9 times the pixels
    small = measure_geometry(drawn, warped(drawn.sheet, 4.9, 0.0))
    assert small is not None and small.scale_x == pytest.approx(5 / 4.9 - 1, abs=1e-3)
    bent = measure_geometry(drawn, warped(drawn.sheet, 5.0, photo.px_per_mm))
    assert bent is not None and bent.bend_mm == pytest.approx(2**-0.5, rel=0.2)
    for turns in range(4):
        turned = turn(drawn.sheet, turns)
        found = measure_geometry(drawn, turned)
        assert found is not None and found.quarter_turns == -turns % 4
        upright = measure_geometry(drawn, turn(turned, found.quarter_turns))
        assert upright is not None and upright.quarter_turns == 0


def test_layouts_are_compared_by_what_they_print() -> None:
    layouts = {layout.name: layout for layout in load_layouts()}
    plain, strip = layouts["3x4"], layouts["3x4+1R"]
    assert same_print(plain, (), replace(plain, name="another name", column_seconds=2.4))
    assert not same_print(strip, strip.rhythm, plain)
    assert not same_print(strip, ("V1",), strip)
    assert not same_print(layouts["3x4 simultaneous"], (), plain)


def test_a_perfect_reading_costs_nothing_and_every_stage_is_right(photo: Picture) -> None:
    page = measure_page(photo, FakeDigitizer(Drawn(photo)))  # type: ignore[arg-type]
    assert len(page.snr_db) == len(LEVELS)
    drawn_line, trace, _, rows, layout, calibrated = page.snr_db
    assert drawn_line > 25 and drawn_line == pytest.approx(layout) == pytest.approx(calibrated)
    assert rows > 40  # the true columns stand between a line's own: its samples are interpolated
    assert trace < drawn_line
    assert page.rows_found == len(photo.page.rows) and page.rows_extra == 0
    assert page.layout_right and page.certain and page.speed_right and page.gain_right and not page.failure
    assert page.coverage == 1.0 and page.trace_mm < 5


def test_a_page_that_was_given_up_costs_everything_from_there(photo: Picture) -> None:
    page = measure_page(photo, FakeDigitizer(Drawn(photo), gives_up=True))  # type: ignore[arg-type]
    assert page.geometry is None and page.snr_db[2:] == (0.0,) * 4 and page.snr_db[0] > 25
    good = measure_page(photo, FakeDigitizer(Drawn(photo)))  # type: ignore[arg-type]
    console = Console(width=260)
    with console.capture() as captured:
        for table in (page_table([page, good]), budget_table([page, good]), count_table([page, good])):
            console.print(table)
    text = captured.get()
    assert all(level in text for level in LEVELS)
    assert "there is no ECG grid on the page" in text and "1 of 2" in text and "Error budget of 2 pages" in text
