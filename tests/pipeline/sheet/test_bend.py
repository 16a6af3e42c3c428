"""What the lattice left over, mended by a network that is told what to answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.datatypes import GridScale
from pipeline.networks.inference import Network
from pipeline.sheet.bend import averaged, unbend
from pipeline.sheet.paper import paper_to_page
from tests.pipeline.paper_samples import digitization, sheet_of

DOUBT_MM = 0.02


def moved_by(x_mm: np.ndarray, y_mm: np.ndarray) -> np.ndarray:
    """How far the paper is off, (2, ...): long waves, the same order as a fold's."""
    return np.stack([0.3 * np.sin(x_mm / 20 + y_mm / 35), 0.2 * np.cos(x_mm / 30)])


class _Oracle(torch.nn.Module):
    multiple = 64

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, columns = x.shape[2] // 8, x.shape[3] // 8
        y_mm, x_mm = np.mgrid[:rows, :columns] + 0.5
        doubt = np.full((2, rows, columns), np.log(DOUBT_MM))
        return torch.from_numpy(np.concatenate([moved_by(x_mm, y_mm), doubt]))[None]


def oracle() -> Network:
    return Network(name="bend", module=_Oracle(), sha256="", device=torch.device("cpu"))


def test_nodes_move_to_where_the_paper_is() -> None:
    sheet = sheet_of(digitization())
    flat = sheet.rectified
    mended = unbend(sheet, oracle(), again_mm=1.0).rectified
    assert mended.node_mm == 2.5 and mended.pixels.shape == flat.pixels.shape
    assert mended.grid_scale.doubt_mm == pytest.approx(DOUBT_MM)
    seen_mm = np.random.default_rng(0).uniform([10, 10], [280, 120], (200, 2))
    paper_mm = seen_mm + moved_by(*seen_mm.T).T
    off_px = paper_to_page(mended, paper_mm) - paper_to_page(flat, seen_mm)
    assert np.abs(off_px).max() / flat.grid_scale.px_per_mm_x < 0.03


def test_what_moved_far_is_looked_at_again() -> None:
    flat = sheet_of(digitization())
    once, twice = (unbend(flat, oracle(), again_mm=again, passes=2).rectified for again in (1.0, 0.1))
    moved = np.abs(twice.node_xy - once.node_xy).max() / flat.rectified.grid_scale.px_per_mm_x
    assert 0.2 < moved < 0.4  # the oracle says the same again


def test_a_sheet_without_a_grid_stays_as_it_is() -> None:
    flat = sheet_of(digitization())
    scale = GridScale(px_per_mm_x=4.0, px_per_mm_y=4.0, score=0.0, source="hint")
    bare = replace(flat, rectified=replace(flat.rectified, grid_scale=scale))
    assert unbend(bare, oracle()) is bare


def test_sure_answers_count_and_doubtful_ones_follow() -> None:
    rng = np.random.default_rng(1)
    sure = rng.random((2, 40, 50)) < 0.5
    sure[:, 15:30, 20:40] = False  # a stamp hides the grid
    shift = np.where(sure, 0.2, rng.normal(0, 0.5, sure.shape)).astype(np.float32)
    field = averaged(shift, np.where(sure, 0.02, 0.6).astype(np.float32))
    assert field.shape == (40, 50, 2)
    assert np.abs(field - 0.2).max() < 0.08
