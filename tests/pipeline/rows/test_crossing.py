"""Rows that touch others: lines that keep their direction."""

from itertools import pairwise, product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline.datatypes import ByteArray, RowBand, TraceSet
from pipeline.networks.inference import Network
from pipeline.networks.specification import ROW_BINS, ROW_COLUMNS_PER_MM, TRACE
from pipeline.rows.crossing import directed_posterior, hidden, on_own_ink, touching
from pipeline.rows.trace import RowReadings, posterior, trace_rows

BASELINES_MM = (80.0, 95.0)
LINE = np.rint(ROW_BINS / 2 + 4 * np.sin(np.arange(600) / 20)).astype(int)  # bins, of both rows
FEET = [*range(60, 360, 40), *range(440, 560, 40)]  # first columns of the lower row's waves
WIDE, HIGH = 6, 80  # columns and bins of a wave: 20 mm, over the upper row
SHARED = slice(300, 400)  # columns


def test_directed_posterior_sums_over_all_lines() -> None:
    bins, columns, price, turn = 4, 4, 0.3, 0.1
    log_p = np.random.default_rng(0).normal(size=(1, bins, columns)).astype(np.float32)
    weights = np.exp(log_p[0] - log_p[0].max(0))
    expected = np.zeros((columns, bins))
    for line, ways in product(product(range(bins), repeat=columns), product((-1, 1), repeat=columns)):
        weight = np.prod([weights[y, k] for k, y in enumerate(line)])
        for (here, there), (before, now) in zip(pairwise(line), pairwise(ways), strict=True):
            step = (there - here) * now
            weight *= 0 if step < 0 else np.exp(-price * step) * (1 - turn if before == now else turn)
        for k, y in enumerate(line):
            expected[k, y] += weight
    found = directed_posterior(log_p, price=price, turn=turn, least=0.0)[:, 0]
    assert np.abs(found - expected / expected.sum(1, keepdims=True)).max() < 1e-5


def test_directed_posterior_reads_rows_by_themselves() -> None:
    log_p = np.random.default_rng(1).normal(size=(3, 30, 50)).astype(np.float32)
    together = directed_posterior(log_p)
    assert all(np.allclose(together[:, k], directed_posterior(log_p[k : k + 1])[:, 0], atol=1e-6) for k in range(3))


def test_rows_touch_where_they_cross_or_come_near() -> None:
    x = np.arange(400)
    level = np.full(400, 50.0)
    stroke = np.where(x == 200, 45.0, 60.0)  # up to a row and beyond, within a column
    far = np.full(400, 80.0)
    assert touching(np.stack([level, stroke, far])) == [0, 1]
    assert touching(np.stack([level, level + 0.6])) == []
    assert touching(np.stack([level, np.where(x < 300, level, np.nan)])) == []  # one trace, followed twice
    assert touching(np.stack([np.where(x < 200, level, np.nan), np.where(x > 210, level, np.nan)])) == []


def test_ink_of_another_line_is_hidden() -> None:
    log_p = np.zeros((40, 50), np.float32)
    at_mm = np.arange(40, dtype=np.float32)
    line = np.where(np.arange(50) < 25, 10.0, np.nan).astype(np.float32)
    left = hidden(log_p, at_mm, line)
    assert (left[10, :25] < -10).all() and (left[[9, 11]] == 0).all() and (left[:, 30:] == 0).all()


def test_ink_is_a_rows_own_away_from_other_lines() -> None:
    ink = np.zeros((40, 50), np.uint8)
    ink[20] = 200
    y_mm = np.full(50, 20.0, np.float32)
    other = np.where(np.arange(50) < 25, 21.0, 30.0).astype(np.float32)
    own = on_own_ink(ink, y_mm, y_mm, other[None])
    assert not own[:25].any() and own[27:].all()
    assert not on_own_ink(np.zeros_like(ink), y_mm, y_mm, other[None]).any()


def _seen(*lines: np.ndarray) -> np.ndarray:
    """Answers (rows, bins, columns) of a network that sees these lines (n,) clearly."""
    log_p = np.full((len(lines), ROW_BINS, LINE.size), -14.0, np.float32)
    for row, line in enumerate(lines):
        for beside in (-1, 0, 1):
            log_p[row, line + beside, np.arange(LINE.size)] = -0.5
    return log_p


def _waves(*, crossing: bool) -> np.ndarray:
    """Answers for two rows, the lower one with tall waves, each within a blot from the row up to its tip.

    Only the tip is seen clearly.  The upper row may be seen to cross the lower one somewhere.
    """
    down = np.maximum(0, 70 - 35 * np.abs(np.arange(LINE.size) - 400)) if crossing else 0
    log_p = _seen(LINE + down, LINE)
    for first in FEET:
        foot, wave = LINE[first], slice(first, first + WIDE)
        log_p[1, :, wave] = -14.0
        log_p[1, foot - HIGH : foot + 1, wave] = -5.0
        log_p[1, foot - HIGH : foot - HIGH + 2, first + 2 : first + WIDE - 2] = -0.5
    return log_p


def _shared() -> np.ndarray:
    """Answers for two rows, of which the lower one sees its own line less than the upper row's for a while."""
    log_p = _seen(LINE, LINE)
    log_p[1, :, SHARED] -= 3.0
    between = round((BASELINES_MM[1] - BASELINES_MM[0]) / TRACE.cell_mm)
    for column in range(SHARED.start, SHARED.stop):
        upper = LINE[column] - between
        log_p[1, upper - 1 : upper + 2, column] = -0.5
    return log_p


def _traced(log_p: np.ndarray, *, known: bool = True, inked: tuple[int, ...] = (0, 1)) -> TraceSet:
    """Trace two rows from answers, which may be forgotten then; the page shows ink along some of their lines."""

    def read(strips: ByteArray, network: Network) -> RowReadings:
        own = np.full((len(strips), ROW_BINS, strips.shape[2] * 2), -14.0, np.float32)
        own[..., : log_p.shape[2]] = log_p[: len(strips)]
        p = posterior(own)
        bins = np.arange(p.shape[2], dtype=np.float32)
        y_bin = p @ bins
        mass = np.where(np.abs(bins - y_bin[..., None]) <= 3, p, 0).sum(2)
        presence = np.broadcast_to(np.arange(own.shape[2]) < log_p.shape[2], mass.T.shape).astype(np.float32)
        doubt = np.zeros_like(presence)
        seen = own if known else None
        return RowReadings(y_bin=y_bin.T, mass=mass.T, doubt_bin=doubt, presence=presence, log_p=seen)

    def white(x_mm: np.ndarray, y_mm: np.ndarray) -> np.ndarray:
        return np.full((len(y_mm), len(x_mm), 3), 255, np.uint8)

    def ink(x_mm: np.ndarray, y_mm: np.ndarray) -> np.ndarray:
        columns = np.clip(((x_mm - 15.0) * ROW_COLUMNS_PER_MM).astype(int), 0, LINE.size - 1)
        lines_mm = [BASELINES_MM[k] + (LINE[columns] + 0.5 - ROW_BINS / 2) * TRACE.cell_mm for k in inked]
        there = sum((np.abs(y_mm[:, None] - line) < 0.3 for line in lines_mm), np.zeros((y_mm.size, x_mm.size), bool))
        return np.repeat((255 * there).astype(np.uint8)[..., None], 3, 2)

    sheet: Any = SimpleNamespace(pixels=white, ink=ink, page=SimpleNamespace(strokes=()))
    rows = [RowBand(baseline_mm=baseline, x0_mm=20.0, x1_mm=40.0) for baseline in BASELINES_MM]
    network: Any = None
    return trace_rows(sheet, rows, network, read=read)


def test_a_row_that_crosses_another_is_read_up_to_its_tips() -> None:
    answers = _waves(crossing=True)
    before, after = _traced(answers, known=False), _traced(answers)
    for first in FEET:
        wave = slice(first, first + WIDE)
        tip_mm = before.row_mm[1, first - 5] - HIGH * TRACE.cell_mm
        assert before.row_mm[1, wave].min() > tip_mm + 10  # any height is as likely
        assert after.row_mm[1, wave].min() == pytest.approx(tip_mm, abs=1.5)
    assert (after.confidence <= before.confidence).all()


def test_rows_that_touch_no_other_stay_as_they_are() -> None:
    answers = _waves(crossing=False)
    assert np.array_equal(_traced(answers).row_mm, _traced(answers, known=False).row_mm, equal_nan=True)


def test_a_row_leaves_anothers_ink_for_its_own() -> None:
    before, after = _traced(_shared(), known=False), _traced(_shared())
    apart_mm = BASELINES_MM[1] - BASELINES_MM[0]
    middle = slice(SHARED.start + 2, SHARED.stop - 2)
    assert np.abs(np.diff(before.row_mm[:, middle], axis=0)).max() < 0.5
    assert np.abs(np.diff(after.row_mm[:, : LINE.size], axis=0) - apart_mm).max() < 0.5
    assert np.array_equal(after.row_mm[0], before.row_mm[0], equal_nan=True)
    assert (after.confidence[1, SHARED] <= 0.6).all()  # it is inferred


@pytest.mark.parametrize("inked", [(0,), ()])
def test_a_row_without_ink_of_its_own_stays(inked: tuple[int, ...]) -> None:
    after = _traced(_shared(), inked=inked)
    assert np.array_equal(after.row_mm, _traced(_shared(), known=False).row_mm, equal_nan=True)
