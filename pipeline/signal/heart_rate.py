"""The heart rate of a record, measured at its R peaks, said only where it is certain; and what is printed against it.

The slope of every lead that is printed at a moment (5 to 25 Hz, about a QRS's) is squared and joined into one curve, so
a page of short columns gives a curve as long as the page.  Beats are its peaks.  Peaks that depend on where exactly the
threshold lies are no certain beats, and a record with such peaks has no rate here: T waves as steep as QRS complexes,
noise, an arrest.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pipeline.datatypes import PAPER_SPEEDS_MM_PER_S, EcgRecord, PrintedValues
from pipeline.runs import runs_of

Float64 = npt.NDArray[np.float64]

_WINDOW_S = 0.10  # a QRS complex
_REFRACTORY_S = 0.25
_MINIMUM_S = 5.0
_MINIMUM_COVERAGE = 0.8
_MINIMUM_BEATS = 4
_THRESHOLDS = (0.25, 0.35, 0.5)  # of a typical beat's peak; all must find the same beats
_LIMITS_PER_MINUTE = (25.0, 220.0)
_MAXIMUM_GAP_RATIO = 1.7  # longest over median beat to beat time: twice hides a beat
_MAXIMUM_BUSY_SHARE = 0.4  # of the time, spent in beats; more is a wave, not complexes
_MOST_DIFFERENCE = 0.1  # of the measured rate from the printed one, relative


def heart_rate_per_minute(record: EcgRecord) -> float | None:
    """Measure the mean ventricular rate over a record.

    Parameters
    ----------
    record : EcgRecord

    Returns
    -------
    float or None
        Beats a minute; None where it is not certain.
    """
    fs = record.sampling_frequency_hz
    energy, seen = _slope_energy(record)
    if seen.sum() < max(_MINIMUM_S * fs, _MINIMUM_COVERAGE * seen.size):
        return None
    found = [_peaks(energy, share, fs) for share in _THRESHOLDS]
    beats = found[0]
    if len(beats) < _MINIMUM_BEATS or any(not np.array_equal(other, beats) for other in found[1:]):
        return None
    if (energy[seen] > _THRESHOLDS[0] * np.median(energy[beats])).mean() > _MAXIMUM_BUSY_SHARE:
        return None
    intervals = np.diff(beats)
    if intervals.max() > _MAXIMUM_GAP_RATIO * np.median(intervals):  # a beat may be hidden
        return None
    rate = 60.0 * fs / float(intervals.mean())
    return rate if _LIMITS_PER_MINUTE[0] <= rate <= _LIMITS_PER_MINUTE[1] else None


def beats_of(record: EcgRecord) -> npt.NDArray[np.int64]:
    """Return the samples of the beats of a record: where all leads together are steepest, certain or not.

    Parameters
    ----------
    record : EcgRecord
    """
    return _peaks(_slope_energy(record)[0], _THRESHOLDS[1], record.sampling_frequency_hz)


def check_printed_rate(record: EcgRecord, printed: PrintedValues) -> EcgRecord:
    """Compare the measured heart rate with the printed one: a wrong paper speed changes the one, and not the other.

    Parameters
    ----------
    record : EcgRecord
    printed : PrintedValues

    Returns
    -------
    EcgRecord
        With one more reason to doubt its calibration where they differ by more than 10 %.
    """
    stated, measured = printed.heart_rate_per_minute, heart_rate_per_minute(record)
    if stated is None or measured is None or abs(measured / stated - 1) <= _MOST_DIFFERENCE:
        return record
    calibration = record.calibration
    speed = calibration.paper_speed_mm_per_s
    reason = f"a heart rate of {stated:g}/min is printed, and {measured:.0f}/min measured"
    fitting = [x for x in PAPER_SPEEDS_MM_PER_S if abs(measured / stated * x / speed - 1) <= _MOST_DIFFERENCE]
    if fitting:
        reason += f": the paper speed may be {fitting[0]:g} mm/s, not {speed:g} mm/s"
    return replace(record, calibration=replace(calibration, reasons=(*calibration.reasons, reason)))


def _slope_energy(record: EcgRecord) -> tuple[Float64, npt.NDArray[np.bool_]]:
    """Return the joint squared slope of all leads (n_samples,), and where any lead has a signal."""
    fs = record.sampling_frequency_hz
    n_samples = record.signal_mv.shape[1]
    total, count = np.zeros(n_samples), np.zeros(n_samples)
    for signal in record.signal_mv.astype(np.float64):
        energy = np.full(n_samples, np.nan)
        for start, stop in runs_of(~np.isnan(signal)):
            if stop - start > 0.5 * fs:
                energy[start:stop] = _squared_slope(signal[start:stop], fs)
        read = ~np.isnan(energy)
        if read.sum() < fs:
            continue
        typical = np.percentile(energy[read], 98)
        if typical > 0:
            total[read] += np.minimum(energy[read] / typical, 2.0)
            count[read] += 1
    seen = count > 0
    window = np.ones(max(round(_WINDOW_S * fs), 1))
    mean = np.divide(total, count, out=np.zeros(n_samples), where=seen)
    return np.convolve(mean, window / window.size, mode="same"), seen


def _squared_slope(signal: Float64, fs: float) -> Float64:
    """Return the square of a lead's slope, smoothed against noise; in mV^2/s^2, ends set to 0."""
    width = max(round(0.02 * fs), 1)
    padded = np.pad(signal, 2 * width, mode="edge")
    box = np.ones(width) / width
    smooth = np.convolve(np.convolve(padded, box, mode="same"), box, mode="same")
    slope = np.gradient(smooth)[2 * width : -2 * width] * fs
    slope[:width] = slope[-width:] = 0.0
    squared: Float64 = slope**2
    return squared


def _peaks(energy: Float64, share: float, fs: float) -> npt.NDArray[np.int64]:
    """Return the samples of the peaks over `share` of a typical beat's, the higher first, none near a higher one."""
    is_peak = (energy[1:-1] >= energy[:-2]) & (energy[1:-1] > energy[2:])
    candidates = np.flatnonzero(is_peak) + 1
    blocks = [energy[start : start + round(1.5 * fs)].max() for start in range(0, energy.size, round(1.5 * fs))]
    candidates = candidates[energy[candidates] > share * np.median(blocks)]
    kept: list[int] = []
    for sample in candidates[np.argsort(-energy[candidates], kind="stable")].tolist():
        if all(abs(sample - other) > _REFRACTORY_S * fs for other in kept):
            kept.append(sample)
    return np.array(sorted(kept), dtype=np.int64)
