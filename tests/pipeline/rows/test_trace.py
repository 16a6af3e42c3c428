"""From columns of probability to the line a pen drew."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.datatypes import RowBand
from pipeline.errors import TraceNotFound
from pipeline.networks.inference import Network
from pipeline.networks.specification import ROW_BINS, TRACE
from pipeline.rows.trace import _distinct, posterior, read_rows, trace_rows


class _InkReader(torch.nn.Module):
    """Stands for the trained network: the darker a bin, the more probable; presence where there is any ink."""

    multiple = 32

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ink = (0.5 - x.mean(1)).clamp(0)  # normalised white is +0.55
        columns = torch.nn.functional.avg_pool1d(ink.transpose(1, 2), 2).transpose(1, 2)
        columns = columns.repeat_interleave(2, 2)
        return torch.log(columns + 1e-4), (columns.amax(1) - 0.2) * 50


@pytest.fixture
def network() -> Network:
    return Network(name="trace", module=_InkReader(), sha256="", device=torch.device("cpu"))


def sampled(sample: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Any:
    """A sheet whose pixels are drawn when they are asked for."""
    return SimpleNamespace(pixels=sample, page=SimpleNamespace(strokes=()))


def _strip(y_mm: np.ndarray, width: int, top_mm: float) -> np.ndarray:
    """Draw a line (value per strip pixel column) on white."""
    rows = top_mm + (np.arange(2 * ROW_BINS) + 0.5) * TRACE.height_mm / (2 * ROW_BINS)
    ink = np.exp(-(((rows[:, None] - y_mm[None]) / 0.25) ** 2))
    return np.repeat((255 * (1 - np.nan_to_num(ink)))[..., None], 3, 2).astype(np.uint8)


def test_posterior_follows_a_connected_line_past_a_brighter_island() -> None:
    true = np.rint(60 + 30 * np.sin(np.arange(300) / 15)).astype(int)
    log_p = np.full((1, 120, 300), -8.0, np.float32)
    log_p[0, true, np.arange(300)] = -1.0
    log_p[0, 5, 100:110] = -0.5  # more probable, but far away
    assert np.array_equal(posterior(log_p)[:, 0].argmax(1), true)


def test_posterior_takes_a_steep_wave() -> None:
    true = np.full(200, 100)
    true[85:105] = 100 - 45 + np.abs(np.arange(20) - 9) * 5  # 0.9 mV up and down in 40 ms
    log_p = np.full((1, 120, 200), -12.0, np.float32)
    log_p[0, true, np.arange(200)] = -0.2
    assert np.array_equal(posterior(log_p)[:, 0].argmax(1), true)


def test_rows_are_read_at_sub_pixel(network: Network) -> None:
    x = np.arange(640)
    y = 100 + 4 * np.sin(x / 60)
    reading = read_rows(_strip(y, 640, 70.0)[None], network)
    y_mm = 70.0 + (reading.y_bin[0] + 0.5) * TRACE.height_mm / ROW_BINS
    assert np.abs(y_mm[::2] - y)[5:-5].max() < 0.06
    assert (reading.presence > 0.5).all()


def test_trace_rows_leaves_gaps_empty(network: Network) -> None:
    def sample(x_mm: np.ndarray, y_mm: np.ndarray) -> np.ndarray:
        line = np.where((x_mm > 30) & (x_mm < 90), 50 + np.sin(x_mm / 4), np.nan)
        ink = np.exp(-(((y_mm[:, None] - line[None]) / 0.25) ** 2))
        return np.repeat((255 * (1 - np.nan_to_num(ink)))[..., None], 3, 2).astype(np.uint8)

    traces = trace_rows(sampled(sample), [RowBand(baseline_mm=50.0, x0_mm=20, x1_mm=100)], network)
    x = traces.x0_mm + np.arange(traces.row_mm.shape[1]) / traces.columns_per_mm
    there = np.isfinite(traces.row_mm[0])
    assert abs(x[there].min() - 30) < 0.2 and abs(x[there].max() - 90) < 0.2
    assert np.abs(traces.row_mm[0, there] - 50 - np.sin(x[there] / 4)).max() < 0.06
    assert (traces.confidence[0, ~there] == 0).all()


def test_no_rows_is_an_error_in_words(network: Network) -> None:
    with pytest.raises(TraceNotFound, match="no row"):
        trace_rows(sampled(lambda x, y: np.zeros((1, 1, 3), np.uint8)), [], network)


def test_a_row_seen_twice_is_traced_once(network: Network) -> None:
    def sample(x_mm: np.ndarray, y_mm: np.ndarray) -> np.ndarray:
        ink = np.exp(-(((y_mm[:, None] - (50 + np.sin(x_mm / 4))[None]) / 0.25) ** 2))
        return np.repeat((255 * (1 - ink))[..., None], 3, 2).astype(np.uint8)

    bands = [RowBand(baseline_mm=y, x0_mm=20, x1_mm=100) for y in (48.0, 52.0)]
    assert trace_rows(sampled(sample), bands, network).row_mm.shape[0] == 1


def test_a_rule_of_the_form_is_no_row() -> None:
    x = np.arange(2000)
    beats = 20 - 5 * np.exp(-(((x % 400 - 200) / 6) ** 2))
    rule = 60 + 0.001 * x + 0.02 * np.sin(x)
    rows = np.stack([beats, rule, beats + 25]).astype(np.float32)
    assert _distinct(rows, np.ones_like(rows)) == [0, 2]


def test_of_two_readings_of_a_row_the_surer_is_kept() -> None:
    """A band beside a row sees it off its middle, where the network is unsure and loses parts."""
    x = np.arange(2000)
    beats = (20 - 5 * np.exp(-(((x % 400 - 200) / 6) ** 2))).astype(np.float32)
    unsure = np.where((x > 600) & (x < 900), np.nan, beats + 0.1).astype(np.float32)
    rows = np.stack([unsure, beats, beats + 25])
    confidence = np.stack([np.full(2000, 0.5), np.full(2000, 0.9), np.full(2000, 0.9)]).astype(np.float32)
    assert _distinct(rows, confidence) == [1, 2]
