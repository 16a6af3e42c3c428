"""How far a digitized ECG is from the recorded one.

Per lead, as the method's paper does: shift by at most 100 ms, centre both at zero over what is printed, then SNR, RMSE
and correlation.  A sample that is printed but was not read counts as 0 mV, so a dropped lead scores 0 dB instead of
leaving the mean.  Per page, as the 2025 digitization competition does: one power ratio over all leads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.datatypes import FloatArray

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeadScore:
    """One lead of one page."""

    snr_db: float
    rmse_uv: float
    correlation: float
    coverage: float  # share of the printed samples that were read
    shift_ms: float  # by how much the estimate came late


def _centred(values: Float64, known: npt.NDArray[np.bool_]) -> Float64:
    """Subtract the mean of the known samples; unknown ones become 0."""
    return np.where(known, values - values[known].mean(), 0.0) if known.any() else np.zeros_like(values)


def _shifted(signal: Float64, first: int, n: int) -> Float64:
    """Return `n` samples of `signal` from index `first`, NaN where there are none."""
    out = np.full(n, np.nan)
    start, stop = max(first, 0), min(first + n, signal.size)
    if stop > start:
        out[start - first : stop - first] = signal[start:stop]
    return out


def score_lead(
    truth_mv: FloatArray, estimate_mv: FloatArray, sampling_frequency_hz: float, *, max_shift_s: float = 0.1
) -> LeadScore | None:
    """Score one lead.

    Parameters
    ----------
    truth_mv, estimate_mv : (n,) and (m,) arrays
        On the same time axis; NaN = not printed, not read.
    sampling_frequency_hz : float
    max_shift_s : float
        The estimate may be shifted by this much to fit best.

    Returns
    -------
    LeadScore or None
        None if less than half a second of the lead is printed.
    """
    printed = np.flatnonzero(np.isfinite(truth_mv))
    if printed.size < sampling_frequency_hz // 2:
        return None
    first, n = int(printed[0]), int(printed[-1] - printed[0] + 1)
    window = np.asarray(truth_mv[first : first + n], np.float64)
    on_paper = np.isfinite(window)
    truth = _centred(window, on_paper)
    power = float((truth**2).sum())
    reach = int(max_shift_s * sampling_frequency_hz)
    best: tuple[float, int, Float64, float] | None = None
    for shift in range(-reach, reach + 1):
        values = _shifted(np.asarray(estimate_mv, np.float64), first + shift, n)
        known = np.isfinite(values) & on_paper
        if known.sum() < 10:
            continue
        estimate = _centred(values, known)
        error = float(((truth - estimate) ** 2).sum())
        if best is None or error < best[0]:
            best = (error, shift, estimate, float(known.sum() / on_paper.sum()))
    if best is None:
        return LeadScore(snr_db=0.0, rmse_uv=1e3 * (power / n) ** 0.5, correlation=0.0, coverage=0.0, shift_ms=0.0)
    error, shift, estimate, coverage = best
    varies = truth.std() > 0 and estimate.std() > 0
    return LeadScore(
        snr_db=float(10 * np.log10(power / max(error, 1e-12))) if power > 0 else 0.0,
        rmse_uv=1e3 * (error / n) ** 0.5,
        correlation=float(np.corrcoef(truth, estimate)[0, 1]) if varies else 0.0,
        coverage=coverage,
        shift_ms=1000.0 * shift / sampling_frequency_hz,
    )


def power_ratio(
    truth_mv: FloatArray,
    estimate_mv: FloatArray,
    sampling_frequency_hz: float,
    *,
    max_shift_s: float = 0.2,
    highest: float = 384.0,
) -> float:
    """Compute the competition's ratio of one page: signal power over error power, summed over all leads.

    Each lead is shifted to its highest cross-correlation and levelled first; the signal's mean counts as signal, and
    what a shift leaves empty counts as 0 mV.

    Parameters
    ----------
    truth_mv, estimate_mv : (n_leads, n) and (n_leads, m) arrays
    sampling_frequency_hz : float
    max_shift_s : float
    highest : float
        A page counts for no more than this.
    """
    signal, error = 0.0, 0.0
    reach = int(max_shift_s * sampling_frequency_hz)
    for lead_truth, lead_estimate in zip(truth_mv, estimate_mv, strict=True):
        printed = np.flatnonzero(np.isfinite(lead_truth))
        if printed.size == 0:
            continue
        first, n = int(printed[0]), int(printed[-1] - printed[0] + 1)
        truth = np.nan_to_num(np.asarray(lead_truth[first : first + n], np.float64))
        own = np.nan_to_num(_shifted(np.asarray(lead_estimate, np.float64), first, n))
        padded = np.concatenate([np.zeros(reach), own - own.mean(), np.zeros(reach)])
        likeness = np.correlate(padded, truth - truth.mean(), "valid")
        lag = int(np.argmax(likeness)) - reach
        moved = np.nan_to_num(_shifted(own, lag, n))
        moved = moved + (truth - moved).mean()
        signal += float((truth**2).sum())
        error += float(((truth - moved) ** 2).sum())
    return min(signal / max(error, 1e-12), highest) if signal > 0 else 0.0


def pooled_db(ratios: Sequence[float]) -> float:
    """Compute the competition's score of many pages: the mean of their power ratios, in dB (at most 25.84)."""
    return 10 * math.log10(max(sum(ratios) / len(ratios), 1e-12)) if ratios else float("nan")
