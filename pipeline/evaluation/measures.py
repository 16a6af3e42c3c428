"""What a cardiologist reads from the curve, measured on the recorded and on the digitized signal: QRS, ST, spikes.

Beats are found on the truth.  Around each R peak, in every lead by itself, three heights are taken from the level
before the QRS.  IEC 60601-2-25 allows a measurement to be off by 25 uV or 5 %, whichever is more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.datatypes import FloatArray
from pipeline.runs import runs_of
from pipeline.training.recordings.pacing import split_spikes, steepest

MEASURES = ("QRS peak to peak", "largest deflection", "ST level")
_HZ = 500
# Windows around the R peak, in samples: the level before the QRS, the QRS complex, and ST 60 ms after its end.
_LEVEL, _QRS, _ST = (-60, -40), (-30, 31), (55, 66)
_TALL_UV = 300.0  # spikes from this height on must be found

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Beats:
    """`MEASURES` of every beat of a lead, in uV."""

    true_uv: Float64  # (n_beats, 3)
    read_uv: Float64  # (n_beats, 3); NaN = not read

    @classmethod
    def joined(cls, parts: Iterable[Beats]) -> Beats:
        """Put the beats of several leads together."""
        both = [(part.true_uv, part.read_uv) for part in parts] or [(np.zeros((0, 3)), np.zeros((0, 3)))]
        true, read = (np.concatenate(side) for side in zip(*both, strict=True))
        return cls(true_uv=true, read_uv=read)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpikeCount:
    """Pacing spikes of a lead: found means within 10 ms, of the right sign and at least half as high."""

    tall: int = 0  # of 0.3 mV and more
    tall_found: int = 0
    small: int = 0
    small_found: int = 0
    invented: int = 0  # strokes of one or two samples where there is no spike

    @classmethod
    def total(cls, counts: Iterable[SpikeCount]) -> SpikeCount:
        """Add counts up."""
        every = list(counts)
        names = ("tall", "tall_found", "small", "small_found", "invented")
        return cls(**{name: sum(getattr(count, name) for count in every) for name in names})


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One of `MEASURES` over many beats."""

    beats: int
    median_error_uv: float  # of what was read
    within_limits: float  # share of all beats, within 25 uV or 5 %; what was not read is not
    bias_uv: float  # mean error of what was read
    bias_share: float  # the same over the mean true size, in the true direction: -0.03 = 3 % too small
    median_bias_share: float  # median over the beats of their own: what misread beats do not move


def _known(signal_mv: FloatArray) -> FloatArray:
    """Bridge what is not known, (n_leads, n): gaps straight, ends level, an empty lead 0."""
    out = np.zeros_like(signal_mv, np.float32)
    at = np.arange(signal_mv.shape[1])
    for row, values in enumerate(signal_mv):
        there = np.isfinite(values)
        if there.any():
            out[row] = np.interp(at, at[there], values[there])
    return out


def find_spikes(signal_mv: FloatArray) -> npt.NDArray[np.int32]:
    """List the pacing spikes of a signal, (n, 3): lead, first sample, height in uV; its ends are left out.

    Parameters
    ----------
    signal_mv : (n_leads, n) float32
        At 500 Hz; NaN = not printed.
    """
    _, spikes = split_spikes(_known(signal_mv))
    found = [
        (lead, start, round(1000 * float(values[start:stop].mean())))
        for lead, values in enumerate(spikes)
        for start, stop in runs_of(values != 0)
        if np.isfinite(signal_mv[lead, max(start - 3, 0) : stop + 3]).all()
    ]
    return np.array(found, np.int32).reshape(-1, 3)


def beats_of(truth_mv: FloatArray, spikes: npt.NDArray[np.int32]) -> npt.NDArray[np.intp]:
    """Return the samples of the beats on a page; columns are printed one after the other, so that a lead has a part.

    Parameters
    ----------
    truth_mv : (n_leads, n) float32
        At 500 Hz; NaN = not printed.
    spikes : (n, 3) int32
        Which are no beats.
    """
    plain = truth_mv.copy()
    for lead, sample, _ in spikes:
        plain[lead, sample : sample + 2] = np.nan
    filled = _known(plain)
    size = np.ptp(filled, axis=1, keepdims=True)
    filled = np.where(np.isfinite(truth_mv), filled / np.maximum(size, 0.2), 0)
    steps = np.isfinite(truth_mv[:, 1:]) & np.isfinite(truth_mv[:, :-1])
    return steepest((np.abs(np.diff(filled, axis=1)) * steps).sum(0) / np.maximum(steps.sum(0), 1))


def _heights(
    signal_mv: Float64, at: int, without: npt.NDArray[np.bool_], direction: float = 0.0, *, most_lost: float = 0.1
) -> Float64:
    """Measure one beat of a lead, (3,) in uV; NaN where too little of it is there.

    The largest deflection is that in a `direction`, which is the truth's where a reading is measured: of an R and an S
    wave of nearly one height it must be the same that is compared.
    """
    windows = []
    for first, stop in (_LEVEL, _QRS, _ST):
        part = np.s_[max(at + first, 0) : max(at + stop, 0)]
        values = signal_mv[part][~without[part]]
        there = np.isfinite(values)
        if (
            len(signal_mv[part]) < stop - first
            or there.sum() < (1 - most_lost) * max(len(values), 1)
            or not there.any()
        ):
            return np.full(3, np.nan)
        windows.append(values[there])
    level, qrs, st = windows
    base = float(np.median(level))
    away = qrs - base
    largest = away[(np.sign(direction) * away if direction else np.abs(away)).argmax()]
    return 1000 * np.array([np.ptp(qrs), largest, np.median(st) - base])


def measure_beats(
    truth_mv: FloatArray,
    estimate_mv: FloatArray,
    beats: npt.NDArray[np.intp],
    spikes: npt.NDArray[np.int32],
    shift: int,
) -> Beats:
    """Measure every beat of one lead on both signals; what lies within 6 ms of a pacing spike is left out of both.

    Parameters
    ----------
    truth_mv, estimate_mv : (n,) and (m,) float32
        At 500 Hz; NaN = not printed, not read.
    beats : (k,) int
        Samples of the R peaks of the page.
    spikes : (j,) int
        Samples of the lead's pacing spikes.
    shift : int
        Samples by which the estimate comes late.
    """
    read = np.full(truth_mv.size, np.nan)
    source = np.arange(truth_mv.size) + shift
    there = (source >= 0) & (source < estimate_mv.size)
    read[there] = estimate_mv[source[there]]
    without = np.zeros(truth_mv.size, bool)
    for sample in spikes:
        without[max(sample - 3, 0) : sample + 5] = True
    truth = np.asarray(truth_mv, np.float64)
    peaks = _peaks(truth, beats, without)
    measured = [(at, true) for at in peaks if np.isfinite(true := _heights(truth, at, without)).all()]
    true_uv = np.array([true for _, true in measured]).reshape(-1, 3)
    read_uv = np.array([_heights(read, at, without, true[1]) for at, true in measured]).reshape(-1, 3)
    return Beats(true_uv=true_uv, read_uv=read_uv)


def _peaks(truth: Float64, beats: npt.NDArray[np.intp], without: npt.NDArray[np.bool_]) -> list[int]:
    """Move every beat to its largest deflection in this lead, by 40 ms at most."""
    peaks = []
    for beat in beats.tolist():
        near = np.arange(max(beat - 20, 0), min(beat + 21, truth.size))
        values = np.where(without[near], np.nan, truth[near])
        if np.isfinite(values).sum() > 20:
            peaks.append(int(near[np.nanargmax(np.abs(values - np.nanmedian(values)))]))
    return peaks


def _stroke(signal_mv: Float64, start: int, width: int) -> float:
    """Return the height of `width` samples over their neighbours, in mV."""
    around = signal_mv[[start - 1, start + width]].mean()
    return float(signal_mv[start : start + width].mean() - around)


def _is_found(estimate_mv: Float64, at: int, height_mv: float, reach: int = 5) -> bool:
    """Tell whether a stroke of at least half the height and of its sign stands within `reach` samples."""
    sign = np.sign(height_mv)
    heights = [
        sign * _stroke(estimate_mv, start, width)
        for width in (1, 2, 3)
        for start in range(max(at - reach, 1), min(at + reach + 1, estimate_mv.size - width))
    ]
    # beside a stroke that goes the other way, its neighbours stand out too, by half as much
    return bool(heights) and max(heights) >= abs(height_mv) / 2 and max(heights) > -min(heights)


def count_spikes(
    estimate_mv: FloatArray, spikes: npt.NDArray[np.int32], recorded: npt.NDArray[np.int32], shift: int
) -> SpikeCount:
    """Count the pacing spikes of one lead that were read, and the strokes that were invented.

    Parameters
    ----------
    estimate_mv : (m,) float32
        At 500 Hz; NaN = not read.
    spikes : (n, 2) int32
        Sample and height in uV of the lead's true spikes.
    recorded : (j,) int32
        Samples of strokes in the recording that are no pacing spikes; they are not invented either.
    shift : int
        Samples by which the estimate comes late.
    """
    filled = _known(estimate_mv[None])[0].astype(np.float64)
    at, height_uv = spikes[:, 0] + shift, spikes[:, 1]
    found = np.array([_is_found(filled, int(a), float(h) / 1000) for a, h in zip(at, height_uv, strict=True)], bool)
    tall = np.abs(height_uv) >= _TALL_UV
    strokes = find_spikes(estimate_mv[None])[:, 1]
    known = np.concatenate([at, recorded + shift])
    invented = sum(bool(np.all(np.abs(known - stroke) > 7)) for stroke in strokes)
    return SpikeCount(
        tall=int(tall.sum()),
        tall_found=int((tall & found).sum()),
        small=int((~tall).sum()),
        small_found=int((~tall & found).sum()),
        invented=invented,
    )


def figures(beats: Beats) -> list[Figures]:
    """Sum up beats, for each of `MEASURES`.

    Parameters
    ----------
    beats : Beats
    """
    summed = []
    for true, own in zip(beats.true_uv.T, beats.read_uv.T, strict=True):
        read = np.isfinite(own)
        error, size = (own - true)[read], np.abs(true[read])
        within = np.abs(error) <= np.maximum(25.0, 0.05 * size)
        outward = error * np.sign(true[read])
        summed.append(
            Figures(
                beats=true.size,
                median_error_uv=float(np.median(np.abs(error))) if error.size else float("nan"),
                within_limits=float(within.sum() / true.size) if true.size else float("nan"),
                bias_uv=float(error.mean()) if error.size else float("nan"),
                bias_share=float(outward.sum() / size.sum()) if size.sum() else float("nan"),
                median_bias_share=float(np.median(outward[size > 0] / size[size > 0])) if size.any() else float("nan"),
            )
        )
    return summed


def shift_figures(shifts_ms: Sequence[float]) -> tuple[float, float, float]:
    """Return mean, mean absolute and standard deviation of time shifts in ms; NaN where there are none.

    Parameters
    ----------
    shifts_ms : sequence of float
    """
    shifts = np.asarray(shifts_ms, np.float64)
    if not shifts.size:
        return (float("nan"),) * 3
    return float(shifts.mean()), float(np.abs(shifts).mean()), float(shifts.std())
