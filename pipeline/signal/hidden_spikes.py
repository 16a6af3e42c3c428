"""Where a pacing spike may be missing: a pacemaker fires in all leads at once and at one place of every beat.

A lead without a spike where the pattern has one was either seen to have none, for its line is level there and nothing
stands on it, or it is named.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pipeline.datatypes import EcgRecord, LayoutMatch, Lead, TraceSet
from pipeline.pacing import awaited
from pipeline.signal.heart_rate import beats_of

_SAME_S = 0.012  # strokes so near in time are one firing
_BEFORE_S, _AFTER_S = 0.35, 0.1  # how far from its beat a pacemaker fires
_WAVE_S, _WAVE_MV = 0.02, 0.3  # a line that goes up or down by so much, so near, can hide a spike
_UNSEEN_MM = 1.5  # beside the ends of a lead's print, where separators stand
_SHARE = 0.5  # of the beats, that make a pattern


def hidden_spikes(record: EcgRecord) -> list[str]:
    """Name the leads in which pacing spikes may be missing, one statement for all.

    Parameters
    ----------
    record : EcgRecord

    Returns
    -------
    list of str
        Empty on a page without spikes, and where nothing is missing.
    """
    missing: dict[Lead, list[float]] = {}
    fired = _firings(record)
    places = [(at, True) for at in fired] + [(at, False) for at in _expected(record, fired)]
    for lead, signal in zip(record.leads, record.signal_mv, strict=True):
        own = [at for other, at in record.pacing if other is lead]
        printed = [(at, sure) for at, sure in sorted(places) if np.isfinite(signal[max(at - 2, 0) : at + 3]).any()]
        has = [_near(own, at, record.sampling_frequency_hz) for at, _ in printed]
        times = [
            at / record.sampling_frequency_hz
            for (at, sure), found in zip(printed, has, strict=True)
            if not found and ((sure and any(has)) or not _shows_none(record, signal, at))
        ]
        if times:
            missing[lead] = times
    if not missing:
        return []
    words = [
        f"{lead} at {times[0]:.1f} s" + (f" (and {len(times) - 1} more)" if len(times) > 1 else "")
        for lead, times in missing.items()
    ]
    return ["pacing spikes may be missing in " + ", ".join(words)]


def unread_strokes(match: LayoutMatch, traces: TraceSet) -> list[str]:
    """Name the leads with strokes that may be pacing spikes, on a page without any in its record.

    Parameters
    ----------
    match : LayoutMatch
    traces : TraceSet

    Returns
    -------
    list of str
    """
    leads = [
        lead
        for lead, row, (start, end) in match.stretches()
        if any(one.row == row and start <= one.x_mm <= end for one in traces.strokes)
    ]
    words = ", ".join(dict.fromkeys(leads))
    return [f"pacing spikes may be missing: thin strokes stand at one time in {words}"] if leads else []


def _near(samples: list[int], at: float, rate: float) -> bool:
    return any(abs(other - at) <= 2 * _SAME_S * rate for other in samples)


def _firings(record: EcgRecord) -> list[int]:
    """Return the samples at which leads have spikes, each firing once."""
    at = sorted(sample for _, sample in record.pacing)
    starts = [k for k in range(len(at)) if not k or at[k] - at[k - 1] > _SAME_S * record.sampling_frequency_hz]
    return [round(float(np.median(at[start:stop]))) for start, stop in pairwise([*starts, len(at)])]


def _expected(record: EcgRecord, fired: list[int]) -> list[int]:
    """Return where no lead has a spike and the pattern demands one."""
    rate = record.sampling_frequency_hz
    beats = beats_of(_without_spikes(record)) if fired else np.empty(0, np.intp)
    around = _BEFORE_S * rate, _AFTER_S * rate
    places = awaited(fired, beats, around=around, same=_SAME_S * rate, share=_SHARE)
    return [round(at) for at in places if 0 <= round(at) < record.signal_mv.shape[1]]


def _without_spikes(record: EcgRecord) -> EcgRecord:
    """Return the record with a straight line in place of its spikes."""
    signal = record.signal_mv.copy()
    for lead, at in record.pacing:
        row, first, last = record.leads.index(lead), max(at - 2, 0), min(at + 2, signal.shape[1] - 1)
        signal[row, first : last + 1] = np.linspace(signal[row, first], signal[row, last], last - first + 1)
    return replace(record, signal_mv=signal)


def _shows_none(record: EcgRecord, signal: npt.NDArray[np.float32], at: int) -> bool:
    """Tell whether a lead is seen to have no spike at a sample: its line is level and was looked at."""
    rate = record.sampling_frequency_hz
    end, reach = round(_UNSEEN_MM / record.calibration.paper_speed_mm_per_s * rate), round(_WAVE_S * rate)
    if at < end or at >= signal.size - end or not np.isfinite(signal[at - end : at + end + 1]).all():
        return False
    return bool(np.ptp(signal[at - reach : at + reach + 1]) < _WAVE_MV)
