"""How the grid's two families of lines converge: probability map in, homography out.

The method is that of "Digitizing paper ECGs at scale" (perspective correction): the Hough transform to the
angle-radius domain, first over all angles, then zoomed, and from there to the angle-angle domain, where a family of
nearly parallel lines, an almost straight streak theta(rho), becomes one point (theta at rho_min, theta at rho_max).

Two things differ.  The transform is taken tile by tile, so that bent paper does not smear it: within a tile lines are
straight.  And the variance along rho of a tile's Hough transform at angle theta is read from the tile's power spectrum
along the ray at theta (projection-slice theorem), which costs one FFT a tile and never thresholds the map, so a
saturated map does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy import fft, sparse

from pipeline.datatypes import FloatArray
from pipeline.threads import side_by_side

Matrix = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Perspective:
    """Homography from flat coordinates to map pixels: lines parallel to the axes, unit scale at the map's centre."""

    homography: Matrix  # (3, 3) flat px -> map px, up to the scale and offset along each axis
    contrast: float  # line energy along the two families over that along other directions; 1 = no direction stands out


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Tiles:
    power: FloatArray  # (n, size * (size // 2 + 1)) power spectra, rows shifted to start at -Nyquist
    centre: Matrix  # (n, 2) px from the map's centre
    size: int


def find_perspective(lines: FloatArray, *, tiles_across: int = 6) -> Perspective:
    """Find the homography that makes both families of grid lines parallel to the axes.

    Parameters
    ----------
    lines : (h, w) float32
        Line evidence, its local mean removed.
    tiles_across : int
        Tiles side by side along the longer side; neighbours overlap by half.  A tile must hold several lines 5 mm
        apart, and bent paper must be straight inside it.

    Returns
    -------
    Perspective
    """
    tiles = _power_spectra(lines, tiles_across)
    radius = 0.5 * float(np.hypot(*lines.shape))
    degrees = np.arange(-90.0, 90.0)
    energy = _ray_energy(tiles, np.deg2rad(degrees))
    score = _angle_angle(energy, tiles, degrees, np.arange(-24.0, 25.0, 2.0), radius)
    first, second = _two_families(score)
    families = [(float(degrees[centre]), -24.0 + 2.0 * spread) for centre, spread in (first, second)]
    zoomed = side_by_side(lambda family: _zoom(tiles, *family, radius), families)
    vanishing = [_vanishing_point(ends, radius) for ends, _ in zoomed]
    contrast = float(np.sqrt(np.prod([strength for _, strength in zoomed])))
    return Perspective(homography=_homography(vanishing, lines.shape), contrast=contrast)


def _power_spectra(lines: FloatArray, tiles_across: int) -> _Tiles:
    """Cut the map into half-overlapping Hann-windowed tiles and take their power spectra; empty tiles are left out."""
    size = max(32, 2 * fft.next_fast_len(max(lines.shape) // (2 * tiles_across), real=True))
    height, width = (max(size, int(np.ceil(n / (size // 2))) * (size // 2)) for n in lines.shape)
    top, left = (height - lines.shape[0]) // 2, (width - lines.shape[1]) // 2
    padded = np.zeros((height, width), np.float32)
    padded[top : top + lines.shape[0], left : left + lines.shape[1]] = lines
    views = np.lib.stride_tricks.sliding_window_view(padded, (size, size))[:: size // 2, :: size // 2]
    rows, columns = np.mgrid[: views.shape[0], : views.shape[1]] * (size // 2) + (size - 1) / 2
    centre = np.stack([columns - (width - 1) / 2, rows - (height - 1) / 2], axis=-1).reshape(-1, 2)
    tiles = views.reshape(-1, size, size)
    strength = np.einsum("nij,nij->n", tiles, tiles)
    keep = strength > 0.02 * strength.max(initial=0.0)
    hann = np.hanning(size + 1)[:size].astype(np.float32)
    power = np.concatenate(side_by_side(lambda some: _power(some, hann), np.array_split(tiles[keep], 4)))
    return _Tiles(power=power.reshape(len(power), -1), centre=centre[keep], size=size)


def _power(tiles: FloatArray, hann: FloatArray) -> FloatArray:
    """Return the power spectra of tiles (n, size, size) under a window (size,)."""
    spectrum = fft.rfft2(tiles * hann[:, None] * hann)
    return np.asarray(np.fft.fftshift(np.abs(spectrum).astype(np.float32) ** 2, axes=1))


def _ray_energy(tiles: _Tiles, theta: Matrix) -> Matrix:
    """Variance along rho of each tile's Hough transform at angles `theta` (n_theta,): (n_tiles, n_theta).

    The ramp weights the spectrum as a derivative along rho would, so that sharp lines outweigh shading.
    """
    half = tiles.size // 2
    radius = np.arange(3.0, 0.95 * half)
    # theta in [-90, 90] keeps the ray in the half plane that rfft2 computes; beyond it, turn by 180 degrees.
    theta = (theta + np.pi / 2) % np.pi - np.pi / 2
    x = np.outer(np.cos(theta), radius)
    y = np.outer(np.sin(theta), radius) + half
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    dx, dy = x - column, y - row
    corners, weights = [], []
    for step_y, weight_y in ((0, 1 - dy), (1, dy)):
        for step_x, weight_x in ((0, 1 - dx), (1, dx)):
            corners.append(np.minimum(row + step_y, tiles.size - 1) * (half + 1) + np.minimum(column + step_x, half))
            weights.append(weight_y * weight_x * radius)
    which = np.broadcast_to(np.arange(len(theta))[:, None], x.shape)
    matrix = sparse.csr_matrix(
        (np.stack(weights).ravel(), (np.stack([which] * 4).ravel(), np.stack(corners).ravel())),
        shape=(len(theta), tiles.power.shape[1]),
        dtype=np.float32,
    )
    energy = np.asarray((matrix @ tiles.power.T).T, np.float64)
    # The root keeps a few strong tiles (a separator, a table's edge) from outvoting the sheet.
    return np.sqrt(energy)


def _angle_angle(energy: Matrix, tiles: _Tiles, degrees: Matrix, spreads: Matrix, radius: float) -> Matrix:
    """Energy along every straight streak theta(rho): (n_theta at rho = 0, n_spreads).

    `spreads` are the differences in degrees between theta at rho_max and at rho_min.
    """
    theta = np.deg2rad(degrees)
    rho = (tiles.centre[:, :1] * np.cos(theta) + tiles.centre[:, 1:] * np.sin(theta)) / radius  # (n_tiles, n_theta)
    step = degrees[1] - degrees[0]
    tile = np.arange(len(energy))[:, None]
    score = np.empty((len(degrees), len(spreads)))
    for k, spread in enumerate(spreads):
        index = np.rint(np.arange(len(degrees)) + 0.5 * spread * rho / step).astype(int)
        score[:, k] = energy[tile, index % len(degrees)].sum(axis=0) * (1 - 0.004 * abs(spread))
    return score


def _two_families(score: Matrix) -> tuple[tuple[int, int], tuple[int, int]]:
    """Find the two strongest maxima (theta index, spread index) that lie 60 to 120 degrees apart (1 degree a step)."""
    best = score.max(axis=1)
    apart = np.arange(60, 121)
    partner = best[(np.arange(180)[:, None] + apart) % 180]
    # A small preference for right angles decides on dotted paper, where diagonals line up as well.
    total = best + (partner * (1 - 0.002 * np.abs(apart - 90))).max(axis=1)
    first = int(total.argmax())
    second = (first + int(apart[(partner[first] * (1 - 0.002 * np.abs(apart - 90))).argmax()])) % 180
    return (first, int(score[first].argmax())), (second, int(score[second].argmax()))


def _zoom(tiles: _Tiles, centre: float, spread: float, radius: float) -> tuple[tuple[float, float], float]:
    """Refine a family: (theta at rho_min, theta at rho_max) in radians, and its contrast against other angles."""
    reach = 0.5 * abs(spread) + 4.0
    fine = centre + np.arange(-reach, reach + 0.1, 0.125)
    energy = _ray_energy(tiles, np.deg2rad(fine))
    theta0 = np.deg2rad(centre)
    rho = (tiles.centre @ np.array([np.cos(theta0), np.sin(theta0)])) / radius
    starts, slopes = np.arange(-1.5, 1.51, 0.125), np.arange(spread - 3, spread + 3.01, 0.25)
    angle = starts[:, None, None] + 0.5 * slopes[:, None] * rho + reach  # (n_starts, n_slopes, n_tiles) from fine[0]
    index = np.clip(np.rint(angle / 0.125).astype(int), 0, len(fine) - 1)
    score = energy[np.arange(len(energy)), index].sum(axis=-1)
    i, k = np.unravel_index(int(score.argmax()), score.shape)
    start = centre + starts[i] + _vertex(score[:, k], int(i)) * 0.125
    slope = slopes[k] + _vertex(score[i], int(k)) * 0.25
    around = _ray_energy(tiles, np.deg2rad(centre + np.arange(15.0, 76.0, 5.0))).mean(axis=1).sum()
    ends = (float(np.deg2rad(start - 0.5 * slope)), float(np.deg2rad(start + 0.5 * slope)))
    return ends, float(score[i, k] / max(around, 1e-12))


def _vertex(values: Matrix, peak: int) -> float:
    """Offset of a parabola's vertex from its highest sample, in samples."""
    if not 0 < peak < len(values) - 1:
        return 0.0
    left, middle, right = values[peak - 1 : peak + 2]
    curvature = left - 2 * middle + right
    return float(0.5 * (left - right) / curvature) if curvature < 0 else 0.0


def _vanishing_point(ends: tuple[float, float], radius: float) -> Matrix:
    """Homogeneous point (3,), from the map's centre, where the lines at rho_min and rho_max meet."""
    low, high = (np.array([np.cos(t), np.sin(t), -rho]) for t, rho in zip(ends, (-radius, radius), strict=True))
    point = np.cross(low, high)
    if np.hypot(point[0], point[1]) < 1e-9:
        point = np.array([-low[1], low[0], 0.0])
    result: Matrix = point / np.hypot(point[0], point[1])
    return result


def _homography(vanishing: list[Matrix], shape: tuple[int, ...]) -> Matrix:
    """Flat pixels -> map pixels; x runs along the family nearest to the horizontal, y downward, no mirror."""
    along, down = sorted(vanishing, key=lambda point: -abs(point[0]))
    # H (1, 0, 0) and H (0, 1, 0) are the vanishing points; their length 1 in (x, y) makes the scale 1 at the centre.
    along = along * np.sign(along[0])
    down = down * np.sign(along[0] * down[1] - along[1] * down[0])
    homography = np.stack([along, down, np.array([0.0, 0.0, 1.0])], axis=1)
    to_map = np.array([[1.0, 0.0, (shape[1] - 1) / 2], [0.0, 1.0, (shape[0] - 1) / 2], [0.0, 0.0, 1.0]])
    result: Matrix = to_map @ homography
    return result


def line_evidence(grid: FloatArray, *, spread_px: float = 8.0) -> FloatArray:
    """Return the grid map (h, w) less its local mean: flat areas, saturated or empty, become zero."""
    result: FloatArray = np.asarray(grid - cv2.GaussianBlur(grid, (0, 0), spread_px), np.float32)
    return result
