"""Millimetres on paper to millivolts and seconds: the only place where the one becomes the other.

A column of paper speed v and gain g holds (x - x_start) / v seconds and (zero - y) / g millivolts.  Each lead ends on
the record's own 500 Hz grid by band-limited resampling, never by smoothing.  Where the tracer's columns are as many as
the samples (20 a millimetre at 25 mm/s) they are only moved, by a spline, to where the lead's own samples stand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from scipy.ndimage import shift
from scipy.signal import resample_poly

from pipeline.datatypes import (
    Act,
    ByPerson,
    ByteArray,
    Calibration,
    EcgRecord,
    FloatArray,
    LayoutMatch,
    Lead,
    SecondPrint,
    Spans,
    TraceSet,
    record_leads,
)
from pipeline.errors import TraceNotFound
from pipeline.runs import runs_of
from pipeline.signal.weights import RECORD

Float64 = npt.NDArray[np.float64]

_LIMB = frozenset({Lead.I, Lead.II, Lead.III, Lead.AVR, Lead.AVL, Lead.AVF})


@dataclass(frozen=True, eq=False, slots=True)
class Redrawn:
    """One printed stretch of a lead, drawn from the record back onto the sheet."""

    lead: Lead
    row: int  # of the traces
    start_s: float  # of its first column on the record's time axis
    first: int  # column of the traces at which it starts
    x0_mm: float  # paper x of that column
    x1_mm: float  # paper x of its end
    y_mm: Float64  # (n,) paper y at every column from there on; NaN = not in the record
    mm_per_mv: float  # negative for a lead that is printed upside down


@dataclass(frozen=True, slots=True)
class _Stretch:
    """One printed stretch of one lead on the record's grid."""

    lead: Lead
    first: int  # sample index of its start
    signal_mv: Float64  # (n,), zero line at 0, NaN = not traced
    confidence: Float64  # (n,)
    by_person: ByteArray  # (n,) 0, or the number of an `Act`
    spikes: tuple[int, ...] = ()  # samples of pacing spikes


def gain_of(lead: Lead, calibration: Calibration) -> float:
    """Return the gain of a lead in mm/mV: a cart may print the chest leads with another."""
    chest = calibration.chest_gain_mm_per_mv
    return chest if chest is not None and lead not in _LIMB else calibration.gain_mm_per_mv


def _resample(
    values: Float64, confidence: Float64, by_person: ByteArray, ratio: Fraction
) -> tuple[Float64, Float64, ByteArray]:
    """Resample by `ratio` (out / in), band-limited; what was NaN stays NaN."""
    known = np.isfinite(values)
    if ratio == 1:
        return values, confidence, by_person
    at = np.arange(values.size)
    filled = np.interp(at, at[known], values[known]) if known.any() else np.zeros(values.size)
    out = resample_poly(filled, ratio.numerator, ratio.denominator, padtype="line")
    source = np.minimum(np.round(np.arange(out.size) / float(ratio)).astype(np.int64), values.size - 1)
    return np.where(known[source], out, np.nan), confidence[source], by_person[source]


def _moved(values: Float64, columns: float) -> Float64:
    """Read values (n,) a part of a column further on, by a spline; what was NaN stays NaN."""
    known = np.isfinite(values)
    if abs(columns) < 0.01 or known.sum() < 4:
        return values
    at = np.arange(values.size)
    filled = np.interp(at, at[known], values[known])
    return np.where(known, shift(filled, -columns, order=5, mode="nearest"), np.nan)


def _zero_line(signal_mv: Float64, sampling_frequency_hz: float) -> float:
    """Estimate the isoelectric level: the median over the calmer half of the samples, which leaves the QRS out."""
    half = max(round(RECORD.calm_s * sampling_frequency_hz), 1)
    if signal_mv.size <= 4 * half:
        return float(np.nanmedian(signal_mv))
    slope = np.full(signal_mv.size, np.inf)
    slope[half:-half] = np.abs(signal_mv[2 * half :] - signal_mv[: -2 * half])
    calm = np.isfinite(slope) & np.isfinite(signal_mv)
    if not calm.any():
        return float(np.nanmedian(signal_mv))
    calm &= slope <= np.median(slope[calm])
    return float(np.median(signal_mv[calm]))


def _in_step(
    traces: TraceSet, match: LayoutMatch, samples_per_mm: float, *, fewest: int = 4, alike: float = 0.4
) -> TraceSet:
    """Move all pacing spikes by the part of a sample that is common to them, if one is.

    Spikes stand on the recording's samples.  Where the columns start half a sample early or late, some would be rounded
    up and some down, and two pulses of one pacemaker would stand a sample closer than they were.
    """
    firings = np.unique([spike.x_mm for spike in traces.spikes])
    if firings.size < fewest:
        return traces
    starts_mm = np.array([start for start, _ in match.column_mm])
    start_mm = starts_mm[(np.searchsorted(starts_mm, firings, "right") - 1).clip(0)]
    turned = np.exp(2j * np.pi * (firings - start_mm) * samples_per_mm).mean()
    if abs(turned) < alike:
        return traces
    beyond_mm = float(np.angle(turned)) / (2 * np.pi * samples_per_mm)
    return replace(traces, spikes=tuple(replace(one, x_mm=one.x_mm - beyond_mm) for one in traces.spikes))


def _cut(
    traces: TraceSet,
    index: int,
    lead: Lead,
    span_mm: tuple[float, float],
    start_s: float,
    mm_per_mv: float,
    ratio: Fraction,
    sampling_frequency_hz: float,
) -> _Stretch | None:
    """Cut one stretch out of a traced row and put it on the record's grid; None if nothing of it is traced."""
    first, stop = (round((edge - traces.x0_mm) * traces.columns_per_mm) for edge in span_mm)
    first, stop = max(first, 0), min(stop, traces.row_mm.shape[1])
    if index < 0 or stop <= first:
        return None
    if not np.isfinite(traces.row_mm[index, first:stop]).any() and traces.by_person is None:
        return None
    y_mm, confidence = (part[index, first:stop].astype(np.float64) for part in (traces.row_mm, traces.confidence))
    untouched = np.zeros(y_mm.size, np.uint8)
    by_person = untouched if traces.by_person is None else traces.by_person[index, first:stop]
    for line in traces.lines:  # a drawing's line is the whole lead; its end may lie behind the next lead's start
        ends_mm = (line.stop - stop) / traces.columns_per_mm
        if line.row == index and line.first == first and abs(ends_mm) <= RECORD.line_overlap_mm:
            y_mm, confidence = line.y_mm.astype(np.float64), np.ones(line.y_mm.size)
            by_person = np.zeros(line.y_mm.size, np.uint8)
    start = (span_mm[0] - traces.x0_mm) * traces.columns_per_mm  # mostly between two columns
    signal_mv = _moved((traces.baseline_mm[index].astype(np.float64) - y_mm) / mm_per_mv, start - round(start))
    signal_mv, confidence, by_person = _resample(signal_mv, confidence, by_person, ratio)
    zero_mv = _zero_line(signal_mv, sampling_frequency_hz) if np.isfinite(signal_mv).any() else 0.0
    spikes = []
    for spike in traces.spikes:  # one sample each, after resampling: a band limit would spread them
        column = (spike.x_mm - traces.x0_mm) * traces.columns_per_mm - start
        at = round(column * float(ratio))
        if spike.row == index and 0 <= at < signal_mv.size:
            signal_mv[at] = (float(traces.baseline_mm[index]) - spike.tip_mm) / mm_per_mv
            confidence[at] = spike.score
            spikes.append(at)
    first_sample = round(start_s * sampling_frequency_hz)
    return _Stretch(lead, first_sample, signal_mv - zero_mv, confidence, by_person, tuple(spikes))


def _stretches(
    traces: TraceSet, match: LayoutMatch, times: Spans, calibration: Calibration, sampling_frequency_hz: float
) -> Iterator[_Stretch]:
    """Cut every rhythm strip, then every short lead."""
    layout, speed = match.layout, calibration.paper_speed_mm_per_s
    rows = match.rows
    rate = traces.columns_per_mm * speed
    ratio = Fraction(sampling_frequency_hz / rate).limit_denominator(500)

    def cut(index: int, lead: Lead, span_mm: tuple[float, float], start_s: float, sign: float) -> Iterator[_Stretch]:
        if index < traces.row_mm.shape[0]:
            mm_per_mv = sign * gain_of(lead, calibration)
            stretch = _cut(traces, index, lead, span_mm, start_s, mm_per_mv, ratio, sampling_frequency_hz)
            yield from () if stretch is None else (stretch,)

    whole = (match.column_mm[0][0], match.column_mm[-1][1])
    for index, lead in zip(rows[len(layout.rows) :], match.rhythm, strict=False):
        yield from cut(index, lead, whole, times[0][0], 1.0)
    for index, leads in zip(rows, layout.rows, strict=False):
        for lead, span_mm, (start_s, _) in zip(leads, match.column_mm, times, strict=True):
            yield from cut(index, lead, span_mm, start_s, -1.0 if lead in layout.inverted else 1.0)


def _n_samples(match: LayoutMatch, times: Spans, speed: float, sampling_frequency_hz: float) -> int:
    """Count the record's samples: to the end of what is printed, or the usual length it is close to."""
    printed_s = (match.column_mm[-1][1] - match.column_mm[0][0]) / speed if match.layout.rhythm else 0.0
    end_s = max(printed_s, *(end for _, end in times), 0.0)
    seconds = match.layout.column_seconds
    nominal = [seconds * len(match.column_mm) if match.layout.sequential else seconds, *RECORD.usual_s]
    round_s = min(nominal, key=lambda known: abs(end_s / known - 1))
    return round((round_s if abs(end_s / round_s - 1) <= RECORD.round_length else end_s) * sampling_frequency_hz)


def _lay(signal: Float64, confidence: Float64, by_person: ByteArray, stretch: _Stretch) -> SecondPrint | None:
    """Lay a stretch into a lead's (n,) arrays: where they are empty, and where it was read with more confidence.

    What a person drew comes before what was traced.  A second print of the same lead (a rhythm strip and its short
    lead) is first levelled with what is there, and returned.
    """
    stop = min(stretch.first + stretch.signal_mv.size, signal.size)
    there, sure = signal[stretch.first : stop], confidence[stretch.first : stop]
    new, new_sure = stretch.signal_mv[: there.size], stretch.confidence[: there.size]
    both = np.isfinite(there) & np.isfinite(new)
    second = int(both.sum()) > RECORD.second_print
    better = second and bool(new_sure[both].mean() > sure[both].mean() + RECORD.better)
    agreement_db = 0.0
    if second:
        new = new - np.median(new[both] - there[both])
        power, difference = float(np.var(there[both])), float(np.var(new[both] - there[both]))
        agreement_db = float(10 * np.log10(max(power, 1e-9) / max(difference, 1e-9)))
    acts, act = by_person[stretch.first : stop], stretch.by_person[: there.size]
    drawn = (act == Act.DRAWN) & (acts != Act.DRAWN)
    take = np.isfinite(new) & (~np.isfinite(there) | (better & (acts != Act.DRAWN)) | drawn)
    there[take], sure[take], acts[take] = new[take], new_sure[take], act[take]
    neither = ~np.isfinite(there) & (act == Act.UNREADABLE)
    acts[neither] = Act.UNREADABLE
    if not second:
        return None
    return SecondPrint(
        lead=stretch.lead,
        first_sample=stretch.first,
        signal_mv=new.astype(np.float32),
        agreement_db=agreement_db,
        used=better,
    )


def _prints(record: EcgRecord, lead: Lead) -> list[Float64]:
    """List what the record has of a lead: the signal, then its second prints, each (n_samples,)."""
    prints = [record.signal_mv[record.leads.index(lead)].astype(np.float64)]
    for second in record.second_prints:
        if second.lead == lead:
            other = np.full(prints[0].size, np.nan)
            part = other[second.first_sample : second.first_sample + second.signal_mv.size]
            part[:] = second.signal_mv[: part.size]
            prints.append(other)
    return prints


def redraw(record: EcgRecord, match: LayoutMatch, traces: TraceSet) -> list[Redrawn]:
    """Draw a record back onto its sheet: the reverse of `calibrate`.

    Parameters
    ----------
    record : EcgRecord
    match : LayoutMatch
    traces : TraceSet
        The rows the record was made of.  They give the columns, and the height of each lead's zero line.

    Returns
    -------
    list of Redrawn
        Every printed stretch whose row was traced, short leads first.  Where a lead is printed twice, the print that
        is nearer to the traced row is drawn.
    """
    calibration, rate = record.calibration, record.sampling_frequency_hz
    speed = calibration.paper_speed_mm_per_s
    times = match.column_times(speed)
    starts = {span: start for span, (start, _) in zip(match.column_mm, times, strict=False)}
    drawn = []
    for lead, row, span in match.stretches():
        if not 0 <= row < len(traces.row_mm):
            continue
        edges = (round((edge - traces.x0_mm) * traces.columns_per_mm) for edge in span)
        first, stop = (min(max(edge, 0), traces.row_mm.shape[1]) for edge in edges)
        if traces.lines:  # a drawing's line may end behind the next lead's start
            stop = min(stop + round(RECORD.line_overlap_mm * traces.columns_per_mm), traces.row_mm.shape[1])
        start_s = starts.get(span, times[0][0])
        # a sample is drawn at the nearest column: between two, a spike of one sample would lose its height
        at = start_s * rate + np.arange(stop - first) / traces.columns_per_mm / speed * rate
        inverted = lead in match.layout.inverted and row in match.rows[: len(match.layout.rows)]
        mm_per_mv = gain_of(lead, calibration) * (-1.0 if inverted else 1.0)
        traced = traces.row_mm[row, first:stop].astype(np.float64)
        ways = [_level(-mm_per_mv * _at(signal, at), traced) for signal in _prints(record, lead)]
        y_mm = min(ways, key=lambda way: _distance(way, traced))
        x0_mm, x1_mm = (traces.x0_mm + column / traces.columns_per_mm for column in (first, stop))
        drawn.append(Redrawn(lead, row, start_s, first, x0_mm, x1_mm, y_mm, mm_per_mv))
    return drawn


def _at(signal: Float64, at: Float64) -> Float64:
    """Return a signal at fractional samples, linear between them; NaN beside what is NaN."""
    whole = np.arange(signal.size)
    return np.asarray(np.interp(at, whole, signal, left=np.nan, right=np.nan))


def _level(y_mm: Float64, traced: Float64) -> Float64:
    """Move a line to the height of the traced one: by the median, which a missing stretch does not move."""
    difference = traced - y_mm
    known = np.isfinite(difference)
    return y_mm + np.median(difference[known]) if known.any() else np.full(y_mm.size, np.nan)


def _distance(y_mm: Float64, traced: Float64) -> float:
    """Mean distance of a line from the traced one; what the line lacks counts as far away."""
    known = np.isfinite(traced)
    off = np.minimum(np.abs(np.nan_to_num(y_mm[known], nan=1e3) - traced[known]), 1e3)
    return float(off.mean()) if off.size else 1e3


def calibrate(
    traces: TraceSet, match: LayoutMatch, calibration: Calibration, *, sampling_frequency_hz: float = 500.0
) -> EcgRecord:
    """Turn the traced rows of a page into signals.

    Parameters
    ----------
    traces : TraceSet
    match : LayoutMatch
        Says which row and column is which lead and where the columns stand.
    calibration : Calibration
        Paper speed and gain; a separate gain for the chest leads, if the cart used one.
    sampling_frequency_hz : float
        Of the record.

    Returns
    -------
    EcgRecord
        The twelve standard leads, then what else the layout prints, on one time axis, as printed; NaN where a lead is
        not printed or could not be traced.  A lead that is printed twice (short and as a rhythm strip) has the strip,
        filled from the short print where the strip is missing or plainly worse; the short print is kept beside it.

    Raises
    ------
    TraceNotFound
        If nothing is traced where the layout has leads.
    """
    if not match.column_mm:
        raise TraceNotFound("no row is traced where the layout has leads")
    times = match.column_times(calibration.paper_speed_mm_per_s)
    n = _n_samples(match, times, calibration.paper_speed_mm_per_s, sampling_frequency_hz)
    leads = record_leads((*match.layout.leads, *match.rhythm))
    signal: FloatArray = np.full((len(leads), n), np.nan, np.float32)
    confidence = np.zeros((len(leads), n), np.float32)
    by_person = np.zeros(signal.shape, np.uint8)
    second_prints = []
    pacing: set[tuple[Lead, int]] = set()
    traces = _in_step(traces, match, sampling_frequency_hz / calibration.paper_speed_mm_per_s)
    for stretch in _stretches(traces, match, times, calibration, sampling_frequency_hz):
        row = leads.index(stretch.lead)
        pacing |= {(stretch.lead, stretch.first + at) for at in stretch.spikes if stretch.first + at < n}
        second = _lay(signal[row], confidence[row], by_person[row], stretch)
        second_prints += [] if second is None else [second]
    if not np.isfinite(signal).any():
        raise TraceNotFound("no row is traced where the layout has leads")
    confidence[~np.isfinite(signal)] = 0.0
    return EcgRecord(
        signal_mv=signal,
        confidence=confidence,
        leads=leads,
        sampling_frequency_hz=sampling_frequency_hz,
        calibration=calibration,
        second_prints=tuple(second_prints),
        by_person=tuple(
            ByPerson(act=act, lead=lead, first_sample=first, stop_sample=stop)
            for lead, acts in zip(leads, by_person, strict=True)
            for act in (Act.DRAWN, Act.UNREADABLE)
            for first, stop in runs_of(acts == act)
        ),
        pacing=tuple(sorted(pacing, key=lambda spike: (leads.index(spike[0]), spike[1]))),
    )
