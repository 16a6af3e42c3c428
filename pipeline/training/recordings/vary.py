"""One recording, many hearts and carts: the chance variation a signal gets before it is drawn."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.datatypes import FloatArray
from pipeline.runs import runs_of
from pipeline.training.recordings.pacing import beat_samples, pacing_spikes, split_spikes

_HIGHEST_MV = 6.0  # R waves of 60 mm at 10 mm/mV


def random_signal(
    records: list[FloatArray], rng: np.random.Generator, families: frozenset[str] = frozenset()
) -> tuple[FloatArray, FloatArray]:
    """Pick a recording and vary it: rate, amplitude, wander, noise, filters, thinning, reversal, flat leads.

    Parameters
    ----------
    records : list of (12, n) float32
        In mV at 500 Hz.
    rng : Generator
        All chance comes from it.
    families : frozenset of str
        What the page is to show: "paced", "tall", "crossing" and "wander" change the signal.

    Returns
    -------
    signal_mv : (12, n) float32
        Without pacing spikes.
    spikes_mv : (12, n) float32
        The pacing spikes alone, 0 elsewhere.
    """
    signal, spikes = _resampled(*split_spikes(records[int(rng.integers(len(records)))]), rng)
    signal *= float(rng.choice([1.0, rng.uniform(0.4, 1.0), rng.uniform(1.0, 2.2)], p=[0.5, 0.25, 0.25]))
    if "tall" in families:
        signal = _raised(signal * rng.uniform(1.5, 3.0), rng)
    elif "crossing" in families:
        signal *= rng.uniform(1.0, 2.2)
    signal *= min(1.0, _HIGHEST_MV / max(float(np.abs(signal).max()), 1e-6))
    if rng.random() < 0.1:  # arms exchanged
        for leads in (signal, spikes):
            leads[:6] = leads[[0, 2, 1, 4, 3, 5]]
            leads[0] *= -1
    if "paced" in families:
        spikes = pacing_spikes(signal, rng)
    signal += _disturbance(np.arange(signal.shape[1]) / 500, rng, loose="wander" in families)
    if rng.random() < 0.35:  # what the cart's filter or plotter left
        step = int(rng.choice([2, 4]))
        coarse = cv2.blur(signal.astype(np.float32), (step, 1))[:, ::step]
        grid = np.arange(signal.shape[1]) / step
        signal = np.stack([np.interp(grid, np.arange(coarse.shape[1]), row) for row in coarse])
    lead_1, lead_2 = signal[0], signal[1]  # what disturbs electrodes disturbs leads together: the limb leads add up
    signal[2:6] = lead_2 - lead_1, -(lead_1 + lead_2) / 2, lead_1 - lead_2 / 2, lead_2 - lead_1 / 2
    if rng.random() < 0.06:  # a lead is off
        off = rng.integers(12)
        signal[off] = rng.normal(0, 0.004, signal.shape[1])
        spikes[off] = 0
    signal -= np.median(signal, axis=1, keepdims=True) * float(rng.choice([0.0, 1.0]))
    return signal.astype(np.float32), spikes.astype(np.float32)


def _resampled(signal: FloatArray, spikes: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Change the heart rate, or let the recording start elsewhere."""
    n = signal.shape[1]
    if rng.random() < 0.5:  # heart rate
        factor = float(rng.uniform(0.75, 1.35))
        x = np.arange(5000) * factor % (2 * n - 2)
        x = np.where(x > n - 1, 2 * n - 2 - x, x)
        return np.stack([np.interp(x, np.arange(n), row) for row in signal]).astype(np.float32), _moved(spikes, x)
    seam = int(rng.integers(100, n - 100))
    signal, spikes = np.roll(signal, seam, axis=1), np.roll(spikes, seam, axis=1)
    ramp = np.clip((np.arange(n) - seam) / 100 + 0.5, 0, 1).astype(np.float32)
    near = (ramp > 0) & (ramp < 1)  # the end runs into the beginning within a fifth of a second
    before, after = signal[:, seam - 51 : seam - 50], signal[:, seam + 50 : seam + 51]
    signal[:, near] = before + (after - before) * ramp[near]
    return signal, spikes


def _moved(spikes: FloatArray, x: npt.NDArray[np.float64]) -> FloatArray:
    """Place spikes (12, n) on samples that show the old samples `x` (m,): a spike stays one or two samples wide."""
    moved = np.zeros((len(spikes), len(x)), np.float32)
    for start, stop in runs_of(np.any(spikes != 0, axis=0)):
        at = int(np.abs(x - start).argmin())
        shown = moved[:, at : at + stop - start]
        shown[:] = spikes[:, start : start + shown.shape[1]]
    return moved


def _raised(signal: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Lift or lower the ST segments of one in three, by up to 1.5 mV: from the QRS into the T wave."""
    if rng.random() > 0.35:
        return signal
    t = np.arange(int(rng.integers(120, 210)))
    shape = np.clip(t / rng.uniform(8, 25), 0, 1) * np.clip((t[-1] - t) / rng.uniform(40, 90), 0, 1)
    height = np.clip(rng.normal(0, 0.7, (12, 1)), -1.5, 1.5)
    start = int(rng.integers(8, 22))
    for beat in beat_samples(signal):
        at = slice(beat + start, beat + start + len(t))
        part = signal[:, at]
        part += height * shape[: part.shape[1]]
    return signal


def _disturbance(t: npt.NDArray[np.float64], rng: np.random.Generator, *, loose: bool) -> npt.NDArray[np.float64]:
    """Return what electrodes add, (12, n) mV: wander, more of it where they are loose, muscle and mains noise."""
    noise = np.zeros((12, t.size))
    if loose:
        noise += _wander(t, rng)
    elif rng.random() < 0.5:
        amplitude = rng.uniform(0, 0.35, (12, 1)) * (rng.random((12, 1)) < 0.6)
        noise += amplitude * np.sin(2 * np.pi * rng.uniform(0.08, 0.5) * t + rng.uniform(0, 6.28, (12, 1)))
    if rng.random() < 0.25:
        noise += rng.normal(0, rng.uniform(0.005, 0.05), noise.shape)
        noise += rng.uniform(0, 0.04) * np.sin(2 * np.pi * float(rng.choice([50, 60])) * t)
    return noise


def _wander(t: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return the wander of loose electrodes and deep breaths, (12, n) mV: up to 1.5 mV, at times with a jump."""
    reach = rng.uniform(0.3, 1.5, (12, 1)) * (rng.random((12, 1)) < 0.75)
    waves = np.sin(2 * np.pi * rng.uniform(0.05, 0.25, (12, 1)) * t + rng.uniform(0, 6.28, (12, 1)))
    waves += 0.4 * np.sin(2 * np.pi * rng.uniform(0.25, 0.6, (12, 1)) * t + rng.uniform(0, 6.28, (12, 1)))
    if rng.random() < 0.3:
        since = t - rng.uniform(0.5, t[-1])
        waves += rng.choice([-1.0, 1.0]) * np.where(since > 0, np.exp(-since / rng.uniform(0.3, 1.5)), 0)
    return np.asarray(np.clip(reach * waves / 1.4, -1.5, 1.5), np.float64)
