"""How many pixels a millimetre is: a map of parallel grid lines in, GridScale out.

The method is that of "Digitizing paper ECGs at scale" (grid size extraction): per axis the autocorrelation of the
grid map's column or row sums, matched to a template of minor lines d and major lines 5 d.  The sums are taken over
narrow strips and their autocorrelations added, so that bent lines do not blur.

Which printed lines are 1 mm and which 5 mm apart decides everything after it, so the evidence is weighed openly: two
levels of lines in the ratio 1 : 5, the resolution the file states, and how wide ECG sheets are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy import fft

from pipeline.datatypes import GridScale
from pipeline.threads import side_by_side

Array = npt.NDArray[np.floating[Any]]
_FINE = 4  # autocorrelation lags per pixel


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Axis:
    """One axis' autocorrelation and the best comb in it."""

    lags: Array  # autocorrelation at lag k / _FINE px, 1 at lag 0
    pitch: float  # px
    score: float  # mean of peaks less troughs, about 1 for clean lines


def measure_grid(
    lines: npt.NDArray[np.float32], *, px_per_mm_hint: float | None = None, largest_anisotropy: float = 1.4
) -> GridScale | None:
    """Measure the pixels per millimetre of a map with grid lines parallel to its axes.

    Parameters
    ----------
    lines : (h, w) float32
        Line evidence, its local mean removed.
    px_per_mm_hint : float, optional
        Resolution that the file states, in pixels of this map.
    largest_anisotropy : float
        Largest ratio of the two axes: foreshortening that no vanishing point shows.

    Returns
    -------
    GridScale or None
        None if no periodic lines are found.
    """
    axes = side_by_side(_autocorrelation, [lines, lines.T])
    extent = _extent(lines)
    pitches = _joint_pitch(axes, largest_anisotropy)
    if pitches is None:
        return None
    combs = [
        _Axis(lags=lags, pitch=pitch, score=_comb(lags, np.array([pitch]))[0])
        for lags, pitch in zip(axes, pitches, strict=True)
    ]
    minor, odds = _millimetres_per_pitch(combs, extent, px_per_mm_hint)
    scales = [_refine(comb) / minor for comb in combs]
    periodic = float(np.clip(max(comb.score for comb in combs) / 0.15, 0, 1))
    certain = float(1 / (1 + np.exp(-abs(odds))))
    return GridScale(px_per_mm_x=scales[0], px_per_mm_y=scales[1], score=periodic * (2 * certain - 1), source="grid")


def _autocorrelation(lines: npt.NDArray[np.float32], *, strip_px: int = 12) -> Array:
    """Autocorrelation along x of the column sums of horizontal strips, added over the strips, 1 at lag 0."""
    n_strips = max(1, lines.shape[0] // strip_px)
    strips = lines[: n_strips * strip_px].reshape(n_strips, -1, lines.shape[1]).mean(axis=1)
    # A strip that a trace or a dark edge dominates must not outvote the others.
    strips = strips / np.maximum(np.sqrt(np.mean(strips**2, axis=1, keepdims=True)), 1e-6 + 0.3 * strips.std())
    width = lines.shape[1]
    n = fft.next_fast_len(2 * width, real=True)
    power = (np.abs(fft.rfft(strips, n)) ** 2).sum(axis=0)
    # Zero-padding the spectrum interpolates the lags exactly.
    lags = fft.irfft(power, n * _FINE)[: width * _FINE // 2] * _FINE
    unbiased = lags / (1 - np.arange(len(lags)) / (_FINE * width))
    return np.asarray(unbiased / max(unbiased[0], 1e-12), np.float64)


def _extent(lines: npt.NDArray[np.float32]) -> float:
    """Longer side, in pixels, of the area that has lines: 5 % to 95 % of their energy, grown to the full span.

    Energy is squared once more, so that a desk's grain, wide but faint beside the grid, does not count.
    """
    energy = cv2.blur(lines**2, (25, 25)) ** 2
    sides = []
    for axis in (0, 1):
        mass = np.cumsum(energy.sum(axis=axis))
        low, high = np.searchsorted(mass, [0.05 * mass[-1], 0.95 * mass[-1]])
        sides.append(float(high - low) / 0.9)
    return max(sides)


def _at(lags: Array, position: Array) -> Array:
    """Autocorrelation at `position` in pixels, linear between lags."""
    return np.interp(position * _FINE, np.arange(len(lags)), lags)


def _comb(lags: Array, pitch: Array, *, teeth: int = 8) -> Array:
    """Peaks at k d less the troughs half-way, tapered, for every candidate `pitch` d in pixels.

    Each tooth counts as much as the weaker of it and the next, so that a half, a third or a fifth of the pitch, which
    has lines under some of its teeth only, scores nothing.
    """
    k = np.arange(1, teeth + 2)
    position = np.multiply.outer(pitch, k)
    contrast = _at(lags, position) - 0.5 * (
        _at(lags, position - 0.5 * pitch[:, None]) + _at(lags, position + 0.5 * pitch[:, None])
    )
    taper = 1 - np.arange(teeth) / teeth
    usable = (position[:, 1:] + 0.5 * pitch[:, None] < (len(lags) - 1) / _FINE) * taper
    weaker = np.minimum(contrast[:, :-1], contrast[:, 1:])
    enough = usable.sum(axis=1) >= taper[:3].sum()
    return np.where(enough, (weaker * usable).sum(axis=1) / np.maximum(usable.sum(axis=1), 1e-9), 0.0)


def _joint_pitch(axes: list[Array], largest_anisotropy: float) -> tuple[float, float] | None:
    """Return the pitch of the strongest comb along both axes at once, in pixels."""
    longest = min(len(lags) for lags in axes) / _FINE / 2.5
    candidates = np.exp(np.arange(np.log(2.4), np.log(max(longest, 3.0)), 0.004))
    first, second = (np.maximum(_comb(lags, candidates), 0) for lags in axes)
    reach = int(np.log(largest_anisotropy) / 0.004)
    shifts = np.arange(-reach, reach + 1)
    padded = np.pad(second, reach)
    # (candidate of x, ratio): nearly square grids are the rule.
    partner = padded[np.arange(len(candidates))[:, None] + shifts + reach] * np.exp(-0.5 * (shifts * 0.004 / 0.25) ** 2)
    total = first + partner.max(axis=1)
    # Odd multiples of a pitch fit as well as the pitch itself: of equals, take the smallest.
    peaks = np.flatnonzero((total >= np.roll(total, 1)) & (total >= np.roll(total, -1)) & (total >= 0.85 * total.max()))
    if total.max() < 0.04 or not len(peaks):
        return None
    best = int(peaks[0])
    other = best + int(shifts[partner[best].argmax()])
    other = min(max(other, 0), len(candidates) - 1)
    pitch_x, pitch_y = float(candidates[best]), float(candidates[other])
    # An axis without lines of its own takes the other's.
    if first[best] < 0.15 * second[other]:
        pitch_x = pitch_y
    elif second[other] < 0.15 * first[best]:
        pitch_y = pitch_x
    return pitch_x, pitch_y


def _millimetres_per_pitch(combs: list[_Axis], extent_px: float, hint: float | None) -> tuple[float, float]:
    """Whether the pitch found is 1 or 5 mm, and the log odds of that.

    Evidence in log odds, positive for 5 mm: a finer comb at a fifth of the pitch, a coarser one at five times it, the
    stated resolution, and the sheet's width (log-normal about 230 mm; one of 55 mm or of 1.2 m is not believed).
    """
    pitch = float(np.sqrt(combs[0].pitch * combs[1].pitch))
    odds = 0.0
    finer = sum(_finer(comb) for comb in combs)
    coarser = sum(_coarser(comb) for comb in combs)
    if finer > 0.04:
        odds += 4.0 * min(finer / 0.1, 1.0)
    if coarser > 0.04:
        odds -= 4.0 * min(coarser / 0.1, 1.0)
    if hint is not None:
        odds += 6.0 * float(np.clip(_log_fit(pitch / hint / 5, 0.15) - _log_fit(pitch / hint, 0.15), -1, 1))
    odds += _width_fit(5 * extent_px / pitch) - _width_fit(extent_px / pitch)
    return (5.0 if odds > 0 else 1.0), odds


def _finer(comb: _Axis) -> float:
    """Contrast of a comb at a fifth of the pitch, leaving out the teeth the pitch itself explains."""
    d = comb.pitch / 5
    if d < 2.2:
        return 0.0
    k = np.array([1, 2, 3, 4, 6, 7, 8, 9]) * d
    reach = np.linspace(-0.02, 0.02, 9)[:, None] * comb.pitch / 5
    contrast = _at(comb.lags, k + reach) - 0.5 * (_at(comb.lags, k - d / 2) + _at(comb.lags, k + d / 2))
    return max(0.0, float(contrast.mean(axis=1).max()))


def _coarser(comb: _Axis) -> float:
    """How much the teeth at multiples of five stand above the others."""
    k = np.arange(1, 13)
    position = k * comb.pitch
    usable = position < (len(comb.lags) - 1) / _FINE
    fifth = usable & (k % 5 == 0)
    # Neighbours two teeth away on either side cancel the slow decay of the autocorrelation.
    near = usable & np.isin(k, [3, 4, 6, 7, 8, 9, 11, 12])
    if not fifth.any() or not near.any():
        return 0.0
    height = _at(comb.lags, position)
    return max(0.0, float(height[fifth].mean() - height[near].mean()))


def _log_fit(ratio: float, tolerance: float) -> float:
    return float(np.exp(-0.5 * (np.log(ratio) / tolerance) ** 2))


def _width_fit(width_mm: float) -> float:
    """Log likelihood of a sheet or a cutting of it being so wide; small cuttings are likelier than huge sheets."""
    ratio = np.log(width_mm / 230.0)
    return float(-0.5 * (ratio / (0.45 if ratio > 0 else 0.5)) ** 2)


def _refine(comb: _Axis) -> float:
    """Sharpen the pitch on teeth up to twelve periods away."""
    for reach in (0.02, 0.004):
        fine = comb.pitch * (1 + np.linspace(-reach, reach, 41))
        best = float(fine[_comb(comb.lags, fine, teeth=12).argmax()])
        comb = _Axis(lags=comb.lags, pitch=best, score=comb.score)
    return comb.pitch
