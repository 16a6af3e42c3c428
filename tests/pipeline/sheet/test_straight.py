"""Rows that bend alike, and rows that only wander."""

import numpy as np
import pytest

from pipeline import TraceSet
from pipeline.sheet.straight import bend_of_rows


def rows_of(bends_mm: list[np.ndarray], *, unread: slice = slice(0, 0)) -> TraceSet:  # type: ignore[type-arg]
    rows = np.stack([20.0 * (k + 1) + 0.002 * np.arange(5000) + bend for k, bend in enumerate(bends_mm)])
    rows[:, unread] = np.nan
    return TraceSet(
        row_mm=rows.astype(np.float32),
        confidence=np.ones(rows.shape, np.float32),
        baseline_mm=np.arange(20.0, 20.0 * len(rows) + 1, 20.0, dtype=np.float32),
        x0_mm=0.0,
        columns_per_mm=20.0,
    )


def test_a_bend_that_all_rows_share_is_measured_and_their_own_wander_is_not() -> None:
    x = np.linspace(0.0, 1.0, 5000)
    shared = 2.0 * np.sin(2 * np.pi * 2 * x)
    assert bend_of_rows(rows_of([shared] * 4)) == pytest.approx(1.4, abs=0.1)
    assert bend_of_rows(rows_of([shared] * 4, unread=slice(0, 900))) == pytest.approx(1.4, abs=0.3)
    wander = [2.0 * np.sin(2 * np.pi * (k * x + k / 7)) for k in (1, 2, 3, 5, 7)]
    assert bend_of_rows(rows_of(wander)) == pytest.approx(0.9, abs=0.1)
    assert bend_of_rows(rows_of([0.0 * x] * 3)) == pytest.approx(0.0, abs=0.01)


def test_one_row_alone_says_nothing() -> None:
    assert bend_of_rows(rows_of([np.linspace(0.0, 9.0, 5000) ** 2])) is None
