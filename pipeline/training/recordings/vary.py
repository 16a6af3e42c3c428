"""One recording, many hearts and carts: the chance variation a signal gets before it is drawn."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.datatypes import FloatArray


def random_signal(records: list[FloatArray], rng: np.random.Generator) -> FloatArray:
    """Pick a recording and vary it: rate, amplitude, wander, noise, filters, thinning, reversal, flat leads.

    Parameters
    ----------
    records : list of (12, n) float32
        In mV at 500 Hz.
    rng : Generator
        All chance comes from it.

    Returns
    -------
    (12, n) float32 in mV
    """
    signal = records[int(rng.integers(len(records)))].copy()
    if rng.random() < 0.5:  # heart rate
        factor = float(rng.uniform(0.75, 1.35))
        x = np.arange(5000) * factor % (2 * signal.shape[1] - 2)
        x = np.where(x > signal.shape[1] - 1, 2 * signal.shape[1] - 2 - x, x)
        signal = np.stack([np.interp(x, np.arange(signal.shape[1]), row) for row in signal]).astype(np.float32)
    else:
        seam = int(rng.integers(100, signal.shape[1] - 100))
        signal = np.roll(signal, seam, axis=1)
        ramp = np.clip((np.arange(signal.shape[1]) - seam) / 100 + 0.5, 0, 1).astype(np.float32)
        near = (ramp > 0) & (ramp < 1)  # the end runs into the beginning within a fifth of a second
        before, after = signal[:, seam - 51 : seam - 50], signal[:, seam + 50 : seam + 51]
        signal[:, near] = before + (after - before) * ramp[near]
    signal *= float(rng.choice([1.0, rng.uniform(0.4, 1.0), rng.uniform(1.0, 2.2)], p=[0.5, 0.25, 0.25]))
    if rng.random() < 0.1:  # arms exchanged
        signal[:6] = signal[[0, 2, 1, 4, 3, 5]]
        signal[0] *= -1
    t = np.arange(signal.shape[1]) / 500
    if rng.random() < 0.5:  # baseline wander
        amplitude = rng.uniform(0, 0.35, (12, 1)) * (rng.random((12, 1)) < 0.6)
        signal += amplitude * np.sin(2 * np.pi * rng.uniform(0.08, 0.5) * t + rng.uniform(0, 6.28, (12, 1)))
    if rng.random() < 0.25:  # muscle and mains noise
        signal += rng.normal(0, rng.uniform(0.005, 0.05), signal.shape)
        signal += rng.uniform(0, 0.04) * np.sin(2 * np.pi * float(rng.choice([50, 60])) * t)
    if rng.random() < 0.04:  # pacing spikes
        start, period = int(rng.integers(0, 300)), int(rng.integers(300, 600))
        for k in range(start, signal.shape[1] - 2, period):
            signal[:, k : k + 2] += rng.uniform(-2.5, 2.5, (12, 1))
    if rng.random() < 0.35:  # what the cart's filter or plotter left
        step = int(rng.choice([2, 4]))
        coarse = cv2.blur(signal.astype(np.float32), (step, 1))[:, ::step]
        grid = np.arange(signal.shape[1]) / step
        signal = np.stack([np.interp(grid, np.arange(coarse.shape[1]), row) for row in coarse])
    lead_1, lead_2 = signal[0], signal[1]  # what disturbs electrodes disturbs leads together: the limb leads add up
    signal[2:6] = lead_2 - lead_1, -(lead_1 + lead_2) / 2, lead_1 - lead_2 / 2, lead_2 - lead_1 / 2
    if rng.random() < 0.06:  # a lead is off
        signal[rng.integers(12)] = rng.normal(0, 0.004, signal.shape[1])
    signal -= np.median(signal, axis=1, keepdims=True) * float(rng.choice([0.0, 1.0]))
    return signal.astype(np.float32)
