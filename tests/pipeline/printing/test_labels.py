"""The shipped label and layout networks on drawn sheets: names, rows and pulses where they are printed."""

import cv2
import numpy as np
import pytest
import torch

from pipeline.datatypes import LEADS
from pipeline.networks.inference import load_network
from pipeline.networks.specification import LABEL, LAYOUT
from pipeline.printing.labels import read_labels
from pipeline.rows.marks import read_marks
from pipeline.training.drawing.sample import draw_sample
from pipeline.training.drawing.synth import INK_PX_PER_MM, DrawnPage


@pytest.fixture(scope="module")
def page() -> DrawnPage:
    return draw_sample(seed=3)


def _canvas(page: DrawnPage, px_per_mm: float) -> np.ndarray:
    scale = px_per_mm / INK_PX_PER_MM
    return np.asarray(cv2.resize(page.pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)


def test_names_are_found_where_they_stand(page: DrawnPage) -> None:
    network = load_network(LABEL, torch.device("cpu"))
    found = read_labels(_canvas(page, LABEL.px_per_mm), network)
    hits = 0
    for printed in page.labels:
        near = [
            label
            for label in found
            if label.lead == printed.lead and np.hypot(label.x_mm - printed.x_mm, label.y_mm - printed.y_mm) < 3
        ]
        hits += bool(near)
    assert hits >= len(page.labels) - 2


def test_names_do_not_read_upside_down(page: DrawnPage) -> None:
    network = load_network(LABEL, torch.device("cpu"))
    canvas = _canvas(page, LABEL.px_per_mm)
    ways = [read_labels(np.ascontiguousarray(np.rot90(canvas, quarter)), network) for quarter in (0, 2)]
    upright, turned = (sum(label.score for label in way if label.lead in LEADS[3:]) for way in ways)
    assert upright > 2 * turned + 2


def test_rows_and_pulses_are_found(page: DrawnPage) -> None:
    marks = read_marks(_canvas(page, LAYOUT.px_per_mm), load_network(LAYOUT, torch.device("cpu")))
    assert len(marks.rows) == len(page.rows)
    for row, drawn in zip(marks.rows, page.rows, strict=True):
        assert abs(row.baseline_mm - drawn.baseline_mm) < 2.0
        assert abs(row.x0_mm - drawn.segments[0].x0_mm) < 4 and abs(row.x1_mm - drawn.segments[-1].x1_mm) < 4
    assert len(marks.pulses) >= 3
