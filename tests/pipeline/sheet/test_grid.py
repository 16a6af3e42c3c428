"""Known spacing in, GridScale out: within half a per cent, and never wrong by the factor of five."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.sheet.grid import measure_grid


def lines(
    px_per_mm: float, *, major: float = 1.0, minor: float = 0.5, width_mm: float = 250.0, height_mm: float = 150.0
) -> npt.NDArray[np.float32]:
    """Line evidence of a grid parallel to the axes, with noise."""

    def along(mm: float) -> npt.NDArray[np.float64]:
        x = (np.arange(int(mm * px_per_mm)) + 0.37) / px_per_mm
        profile = [
            weight * np.exp(-0.5 * ((x - np.round(x / period) * period) / 0.14) ** 2)
            for period, weight in ((5.0, major), (1.0, minor))
        ]
        return np.maximum(*profile)

    grid = np.maximum(along(height_mm)[:, None], along(width_mm)[None, :])
    noisy = grid - grid.mean() + 0.2 * np.random.default_rng(3).normal(size=grid.shape)
    return noisy.astype(np.float32)


@pytest.mark.parametrize("px_per_mm", [2.9, 3.6, 5.0, 6.3])
@pytest.mark.parametrize(
    ("major", "minor"), [(1.0, 0.5), (1.0, 0.2), (1.0, 0.0), (0.0, 0.8)], ids=["both", "faint", "major", "minor"]
)
def test_spacing(px_per_mm: float, major: float, minor: float) -> None:
    scale = measure_grid(lines(px_per_mm, major=major, minor=minor))
    assert scale is not None
    assert scale.px_per_mm_x == pytest.approx(px_per_mm, rel=0.005)
    assert scale.px_per_mm_y == pytest.approx(px_per_mm, rel=0.005)
    assert scale.score > 0.5


def test_axes_are_measured_apart() -> None:
    stretched = np.repeat(lines(3.0), 2, axis=0)[::1]
    squeezed = stretched.reshape(stretched.shape[0] // 2, 2, -1).mean(axis=1)
    tall = np.asarray(
        [np.interp(np.arange(0, len(c) - 1, 0.85), np.arange(len(c)), c) for c in squeezed.T], np.float32
    ).T
    scale = measure_grid(np.ascontiguousarray(tall))
    assert scale is not None
    assert scale.px_per_mm_x == pytest.approx(3.0, rel=0.005)
    assert scale.px_per_mm_y == pytest.approx(3.0 / 0.85, rel=0.005)


def test_stated_resolution_settles_a_small_cutting() -> None:
    cutting = lines(4.0, minor=0.0, width_mm=420.0, height_mm=120.0)  # 84 boxes: could be 84 mm or 420 mm
    doubtful = measure_grid(cutting)
    stated = measure_grid(cutting, px_per_mm_hint=4.0)
    assert doubtful is not None and stated is not None
    assert stated.px_per_mm_x == pytest.approx(4.0, rel=0.005)
    assert stated.score > doubtful.score


def test_a_sheet_of_bare_5_mm_lines_is_no_sheet_of_52_mm() -> None:
    bare = lines(5.6, minor=0.0, width_mm=260.0, height_mm=170.0)
    bare[:, ::140] *= 1.5  # every fifth line happens to be stronger
    bare[::140] *= 1.5
    scale = measure_grid(bare)
    assert scale is not None and scale.px_per_mm_x == pytest.approx(5.6, rel=0.005)


def test_noise_is_no_grid() -> None:
    noise = np.random.default_rng(1).normal(size=(400, 600)).astype(np.float32)
    assert measure_grid(noise) is None
