"""Pacing spikes: strokes of one or two samples, taken out of a recording or added to it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.signal import find_peaks

from pipeline.datatypes import FloatArray

_HIGHEST_MV = 3.0  # 30 mm at 10 mm/mV


def split_spikes(signal_mv: FloatArray, *, least_mv: float = 0.2) -> tuple[FloatArray, FloatArray]:
    """Take the strokes that go out and back within one or two samples out of a signal.

    A stroke stands on a level foot, which tells it from an R wave: a wave's flanks are as steep as its tip is narrow.

    Parameters
    ----------
    signal_mv : (n_leads, n) float32
        At 500 Hz.
    least_mv : float
        Height of the smallest stroke.

    Returns
    -------
    rest_mv : (n_leads, n) float32
        The signal with a straight line in place of every stroke.
    spikes_mv : (n_leads, n) float32
        The strokes, 0 elsewhere; both add up to the signal.
    """
    rest = np.asarray(signal_mv, np.float32).copy()
    for width in (1, 2):
        inner = rest.shape[1] - width - 3  # strokes that may start at sample 2 .. 2 + inner - 1
        before_2, before, first, last, after, after_2 = (
            rest[:, k : k + inner] for k in (0, 1, 2, 1 + width, 2 + width, 3 + width)
        )
        height = np.abs((first + last) / 2 - (before + after) / 2)
        stands = (
            (height > least_mv)
            & (np.abs(after - before) < 0.3 * height)
            & (np.abs(before - before_2) < 0.15 * height)
            & (np.abs(after_2 - after) < 0.15 * height)
            & (np.abs(last - first) < 0.5 * height)
        )
        for lead, start in zip(*np.nonzero(stands), strict=True):
            ends = rest[lead, [start + 1, start + 2 + width]]
            rest[lead, start + 2 : start + 2 + width] = np.linspace(ends[0], ends[1], width + 2)[1:-1]
    return rest, np.asarray(signal_mv - rest, np.float32)


def beat_samples(signal_mv: FloatArray) -> npt.NDArray[np.intp]:
    """Return the sample of every QRS complex: where all leads together are steepest.

    Parameters
    ----------
    signal_mv : (n_leads, n) float32
        At 500 Hz.
    """
    return steepest(np.abs(np.diff(signal_mv, axis=1)).sum(0))


def steepest(steep: FloatArray) -> npt.NDArray[np.intp]:
    """Return the sample of every QRS complex in the steepness of all leads together.

    Parameters
    ----------
    steep : (n,) float32
        At 500 Hz, of any unit.
    """
    smooth = np.convolve(steep, np.ones(25) / 25, "same")
    peaks, _ = find_peaks(smooth, height=0.35 * float(np.quantile(smooth, 0.99)), distance=125)
    return np.asarray(peaks, np.intp)


def _heights(rng: np.random.Generator) -> FloatArray:
    """Draw the height of one electrode's spikes in every lead, (12,) mV, either sign."""
    kind = rng.choice(["bipolar", "unipolar", "enhanced"], p=[0.3, 0.5, 0.2])
    if kind == "enhanced":  # the cart draws them itself, alike in all leads
        return np.full(12, rng.uniform(0.3, 1.5) * rng.choice([1.0, 1.0, -1.0]), np.float32)
    size = rng.uniform(0.1, 0.25) if kind == "bipolar" else np.exp(rng.uniform(np.log(0.3), np.log(_HIGHEST_MV)))
    height = size * rng.uniform(0.3, 1.0, 12) * rng.choice([-1.0, 1.0], 12)
    lead_1, lead_2 = height[:2]
    height[2:6] = lead_2 - lead_1, -(lead_1 + lead_2) / 2, lead_1 - lead_2 / 2, lead_2 - lead_1 / 2
    return np.asarray(np.clip(height, -_HIGHEST_MV, _HIGHEST_MV), np.float32)


def pacing_spikes(signal_mv: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Draw the spikes of a pacemaker into a heart's signal: before or inside the QRS, before the P wave, or unheeded.

    Parameters
    ----------
    signal_mv : (12, n) float32
        At 500 Hz; says where the beats are.
    rng : Generator
        All chance comes from it.

    Returns
    -------
    (12, n) float32
        The spikes in mV, 0 elsewhere; one or two samples each.
    """
    n = signal_mv.shape[1]
    spikes = np.zeros_like(signal_mv)
    mode = str(rng.choice(["ventricular", "atrial", "both", "unheeded"], p=[0.4, 0.15, 0.3, 0.15]))
    beats = beat_samples(signal_mv)
    if mode == "unheeded" or len(beats) < 3:
        beats = np.arange(int(rng.integers(0, 400)), n, int(rng.integers(250, 600)))
    inside = rng.random() < 0.2
    lag = int(rng.integers(-6, 7)) if inside else -int(rng.integers(12, 36))
    places = [] if mode == "atrial" else [lag]
    if mode in ("atrial", "both"):
        places.append(lag - int(rng.integers(50, 110)))
    for place in places:
        heights, width = _heights(rng), int(rng.choice([1, 2], p=[0.7, 0.3]))
        uneven = rng.random() < 0.3  # a spike shorter than a sample is seen at some height
        for beat in beats:
            at = int(beat) + place + int(rng.integers(-1, 2))
            if 3 <= at < n - 5 and rng.random() < 0.95:
                spikes[:, at : at + width] = (heights * (rng.uniform(0.6, 1.0) if uneven else 1.0))[:, None]
    return spikes
