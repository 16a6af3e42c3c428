"""How far a record can be trusted: what was read, what contradicts itself, and an estimated SNR in dB.

An ECG on paper checks itself.  Limb leads printed at the same time obey Einthoven (I + III = II) and Goldberger
(aVR + aVL + aVF = 0), and a rhythm strip repeats a short lead: what is left over is misreading.  Together with the
tracer's doubt, that of the sheet's map and the record's smoothness it gives the estimate that sends a page to a person.
What the ink audit found and what stands in pacing spikes counts beside it: both can only lower the estimate.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter1d

from pipeline.datatypes import (
    MARKS_OF_THE_LINE,
    Act,
    AuditMark,
    Calibration,
    EcgRecord,
    GridScale,
    InkAudit,
    LayoutMatch,
    Lead,
    Mark,
    Quality,
    TraceSet,
)
from pipeline.runs import runs_of
from pipeline.signal.calibrate import gain_of
from pipeline.signal.grid_lines import beats_cut_by_lines
from pipeline.signal.hidden_spikes import hidden_spikes, unread_strokes
from pipeline.signal.weights import QUALITY, QualityWeights

Float64 = npt.NDArray[np.float64]

_EINTHOVEN = ((Lead.I, 1.0), (Lead.II, -1.0), (Lead.III, 1.0))
_GOLDBERGER = ((Lead.AVR, 1.0), (Lead.AVL, 1.0), (Lead.AVF, 1.0))


@dataclass(frozen=True, slots=True)
class Features:
    """What the estimate is made of; the order is that of its coefficients."""

    expected_db: float  # mean over the stretches printed, as the doubts of the tracer and of the sheet's map have it
    limb_db: float  # signal over what the limb-lead sums leave over, mean of both; where there is none, what the others
    # lead to expect
    smooth_db: float  # signal over the change of its slope from sample to sample: jitter of the reading, and what is
    # drawn too fine for the pen

    def vector(self) -> Float64:
        """Return the features as an array (5,), in the order of the fields."""
        return np.array(astuple(self), np.float64)


def _printed(record: EcgRecord, match: LayoutMatch) -> npt.NDArray[np.bool_]:
    """Mark what the layout says is printed: (n_leads, n_samples).  A lead that a person left out does not count."""
    printed = np.zeros(record.signal_mv.shape, bool)
    times = match.column_times(record.calibration.paper_speed_mm_per_s)
    rate = record.sampling_frequency_hz
    for leads in match.layout.rows:
        for lead, (start_s, end_s) in zip(leads, times, strict=False):
            printed[record.leads.index(lead), round(start_s * rate) : round(end_s * rate)] = True
    if times and match.rhythm:
        whole_s = (match.column_mm[-1][1] - match.column_mm[0][0]) / record.calibration.paper_speed_mm_per_s
        for lead in match.rhythm:
            printed[record.leads.index(lead), : round(whole_s * rate)] = True
    for part in record.by_person:
        if part.act is Act.LEFT_OUT:
            printed[record.leads.index(part.lead)] = False
    return printed


def _sum_residual(record: EcgRecord, terms: tuple[tuple[Lead, float], ...]) -> tuple[Float64, Float64] | None:
    """Return the leads of a sum that should be 0, (3, n), and the sum itself (n,), levels removed; None if never."""
    signals = np.stack([record.signal_mv[record.leads.index(lead)].astype(np.float64) for lead, _ in terms])
    both = np.isfinite(signals).all(0)
    if both.sum() < QUALITY.least_common_s * record.sampling_frequency_hz:
        return None
    signals = signals[:, both]
    signals = signals - np.median(signals, axis=1, keepdims=True)
    left = np.array([sign for _, sign in terms]) @ signals
    return signals, left - np.median(left)


def _decibel(signal_power: float, noise_power: float) -> float:
    """Power ratio in dB, between the worst and the best that a self-check can show."""
    ratio_db = 10 * np.log10(max(signal_power, 1e-12) / max(noise_power, 1e-12))
    return float(np.clip(ratio_db, QUALITY.worst_sum_db, QUALITY.best_sum_db))


def _limb_db(record: EcgRecord) -> list[float]:
    """Signal over noise as each limb-lead sum shows it: three leads' errors add up in each; empty if there is none."""
    sums = [found for terms in (_EINTHOVEN, _GOLDBERGER) if (found := _sum_residual(record, terms)) is not None]
    return [_decibel(float(np.mean(signals**2)), float(np.mean(left**2)) / 3.0) for signals, left in sums]


def _strip_db(match: LayoutMatch, traces: TraceSet) -> dict[Lead, float]:
    """Signal over noise for each rhythm strip whose lead is printed short above it; both prints' errors add up."""
    layout = match.layout
    rows = match.rows
    found: dict[Lead, float] = {}
    for strip, name in zip(rows[len(layout.rows) :], match.rhythm, strict=False):
        places = [
            (row, c) for row, leads in zip(rows, layout.rows, strict=False) for c, x in enumerate(leads) if x == name
        ]
        if not places or min(strip, places[0][0]) < 0 or not layout.sequential:
            continue
        row, c = places[0]
        start, stop = (round((edge - traces.x0_mm) * traces.columns_per_mm) for edge in match.column_mm[c])
        window = slice(max(start, 0), max(stop, 0))
        a, b = traces.row_mm[strip, window].astype(np.float64), traces.row_mm[row, window].astype(np.float64)
        both = np.isfinite(a) & np.isfinite(b)
        if both.sum() < QUALITY.least_strip_mm * traces.columns_per_mm:
            continue
        a, b = a[both], (-b[both] if name in layout.inverted else b[both])
        found[name] = _decibel(float(np.var(a) + np.var(b)) / 2, float(np.var(a - b)) / 2)
    return found


def _expected_db(match: LayoutMatch, traces: TraceSet, grid_scale: GridScale) -> float:
    """Mean over all stretches printed of signal over expected noise, in dB.

    Noise is the tracer's doubt, the error of the best read stroke, and the slope times how far off along time a point
    may be, the more so the less sure the sheet's map is; none where a drawing's own line was taken, and the whole
    signal where nothing was read.
    """
    found = []
    worst, best = QUALITY.worst_stretch_db, QUALITY.best_stretch_db
    bend_mm = QUALITY.unknown_doubt_mm if grid_scale.doubt_mm is None else grid_scale.doubt_mm
    least_mm, sideways_mm = QUALITY.least_mm, float(np.hypot(QUALITY.sideways_mm, QUALITY.sideways_bend * bend_mm))
    drawn = traces.drawn()
    for _, row, span in match.stretches():
        first, stop = (round((edge - traces.x0_mm) * traces.columns_per_mm) for edge in span)
        part = np.s_[row, max(first, 0) : max(stop, 0)]
        if not 0 <= row < len(traces.row_mm) or not np.isfinite(traces.row_mm[part]).any():
            found.append(worst)
            continue
        y = traces.row_mm[part].astype(np.float64)
        known = np.isfinite(y)
        at = np.arange(y.size)
        y = np.interp(at, at[known], y[known])
        slope = np.gradient(y) * traces.columns_per_mm if y.size > 1 else np.zeros(1)
        doubt_mm = 0.0 if traces.doubt_mm is None else traces.doubt_mm[part]
        signal = (y - y[known].mean()) ** 2
        noise = np.where(drawn[part], 0.0, doubt_mm**2 + least_mm**2 + (slope * sideways_mm) ** 2)
        noise = np.where(known, noise, signal)
        found.append(float(np.clip(10 * np.log10(max(signal.mean(), 1e-6) / max(noise.mean(), 1e-9)), worst, best)))
    return float(np.mean(found)) if found else worst


def _smooth_db(record: EcgRecord) -> float:
    """Power of the leads over that of their second difference, in dB, each the median over the leads."""
    signals = record.signal_mv[np.isfinite(record.signal_mv).sum(axis=1) > 2].astype(np.float64)
    change = np.abs(np.diff(signals, 2))
    jitter = [float(np.nanmedian(row)) for row in change if np.isfinite(row).any()]
    if not jitter:
        return QUALITY.least_smooth_db
    power = float(np.median(np.nanvar(signals, axis=1)))
    ratio_db = 10 * np.log10(max(power, 1e-12) / max(float(np.median(jitter)), 1e-9) ** 2)
    return float(np.clip(ratio_db, QUALITY.least_smooth_db, QUALITY.best_smooth_db))


def features(record: EcgRecord, match: LayoutMatch, traces: TraceSet, grid_scale: GridScale) -> Features:
    """Measure what the estimate of `assess` is made of; a fit of its coefficients uses the same numbers.

    Parameters
    ----------
    record : EcgRecord
    match : LayoutMatch
    traces : TraceSet
    grid_scale : GridScale
        With the doubt of the bend network.

    Returns
    -------
    Features
    """
    expected_db, smooth_db = _expected_db(match, traces, grid_scale), _smooth_db(record)
    offset_db, *slopes = QUALITY.usual_limb_db
    usual_db = offset_db + float(np.dot(slopes, (expected_db, smooth_db)))
    return Features(
        expected_db=expected_db, limb_db=float(np.mean(_limb_db(record) or [usual_db])), smooth_db=smooth_db
    )


def _scale_is_right(calibration: Calibration) -> float:
    """How likely speed and gain are both right; 1 if neither has a score."""
    known = [score for score in (calibration.speed_score, calibration.gain_score) if score > 0]
    return min(known, default=1.0)


def _missing_share(record: EcgRecord, audit: InkAudit, row: int) -> float:
    """Return the share of a lead's power that the audit misses: ink that is not in it, and samples without ink."""
    lead, rate, signal = record.leads[row], record.sampling_frequency_hz, record.signal_mv[row].astype(np.float64)
    power = np.nan_to_num(signal - np.nanmean(signal)) ** 2  # mV^2
    square_mm_s = gain_of(lead, record.calibration) ** 2 * record.calibration.paper_speed_mm_per_s
    missing, wrong = 0.0, np.zeros(power.size, bool)
    for mark in audit.marks:
        if mark.doubtful and mark.lead is lead:
            missing += mark.missing_mm2 / square_mm_s  # mV^2 s
            if mark.kind in MARKS_OF_THE_LINE:
                wrong[max(int(mark.start_s * rate), 0) : max(int(mark.end_s * rate), 0)] = True
    return (missing + float(power[wrong].sum()) / rate) / max(missing + float(power.sum()) / rate, 1e-12)


def _spike_share(record: EcgRecord, row: int) -> float:
    """Return the share of a lead's power that lies in the pacing spikes that were read."""
    signal = record.signal_mv[row].astype(np.float64)
    power = float(np.nansum((signal - np.nanmean(signal)) ** 2))
    high = 0.0
    for lead, at in record.pacing:
        near, around = (signal[max(at - reach, 0) : at + reach + 1] for reach in (2, 25))
        if lead is record.leads[row] and np.isfinite(near).any():
            high += float(np.nanmax(np.abs(near - np.nanmedian(around)))) ** 2
    return high / max(power, 1e-12)


def _less_missing(estimate_db: float, record: EcgRecord, audit: InkAudit, weights: QualityWeights) -> float:
    """Lower the estimate by what the audit found and by what stands in spikes: noise beside the noise expected.

    The limb-lead sums and the tracer's doubt show most of what is missing already.  Spikes they do not show: lost in
    all leads they leave no rest, and where some were read others were not, or not at their height.
    """
    noise = 10 ** (-estimate_db / 10)
    rows = np.flatnonzero(np.isfinite(record.signal_mv).any(axis=1)).tolist()
    more = [
        weights.missing * _missing_share(record, audit, row) + weights.spikes * _spike_share(record, row)
        for row in rows
    ]
    return float(np.mean([-10 * np.log10(noise + share) for share in more]))


def _span(mark: AuditMark) -> str:
    """Say in words when a mark is."""
    start, end = f"{mark.start_s:.1f}", f"{mark.end_s:.1f}"
    return f"at {start} s" if start == end else f"from {start} to {end} s"


def _places(marks: list[AuditMark], most: int) -> list[str]:
    """Say in words where record and ink differ, the largest first; the last statement counts the rest."""
    words = []
    for mark in marks[:most]:
        if mark.kind is Mark.UNSUPPORTED:
            words.append(f"lead {mark.lead} has no ink under it {_span(mark)}")
        elif mark.kind is Mark.PRINT:
            words.append(f"lead {mark.lead} follows print {_span(mark)}")
        elif mark.kind is Mark.SHARED:
            words.append(f"leads {mark.lead} and {mark.other} follow the same ink {_span(mark)}: one is misread")
        elif mark.kind is Mark.LINE:
            seconds = mark.end_s - mark.start_s
            words.append(f"a line of {seconds:.1f} s at {mark.start_s:.1f} s in {mark.lead} is not in the record")
        else:
            words.append(f"ink {mark.reach_mm:.0f} mm tall at {mark.start_s:.1f} s in {mark.lead} is not in the record")
    if len(marks) > most:
        words[-1] += f", and {len(marks) - most} more like it"
    return words


def _audit_warnings(audit: InkAudit) -> list[str]:
    """Name what the audit found doubtful: ink that is not in the record, and stretches of the record."""
    doubtful = [mark for mark in audit.marks if mark.doubtful]
    ink = [mark for mark in doubtful if mark.kind not in MARKS_OF_THE_LINE]
    bare, letters, shared, cut = (
        [mark for mark in doubtful if mark.kind is kind]
        for kind in (Mark.UNSUPPORTED, Mark.PRINT, Mark.SHARED, Mark.CUT)
    )
    once = {
        (mark.x0_mm, frozenset((mark.lead, mark.other))): mark for mark in reversed(shared)
    }  # each names both leads
    shared = [mark for mark in shared if mark in once.values()]
    warnings = _places(ink, 3) + _places(bare, 2) + _places(letters, 3) + _places(shared, 2)
    starts: dict[Lead, list[float]] = {}
    for mark in cut:
        starts.setdefault(mark.lead, []).append(mark.start_s)
    return warnings + [
        f"lead {lead} runs off the picture {_times(seconds)}: its height there is not known"
        for lead, seconds in starts.items()
    ]


def _times(seconds: list[float]) -> str:
    """Say in words when something is, up to three times."""
    at = ", ".join(f"{start:.1f}" for start in sorted(seconds)[:3])
    return f"at {at} s" + (f" and {len(seconds) - 3} more times" if len(seconds) > 3 else "")


def _told_warnings(record: EcgRecord, read: EcgRecord) -> list[str]:
    """Name the leads that were taken from others where that changes them much."""
    warnings = []
    for lead, now, before in zip(record.leads, record.signal_mv, read.signal_mv, strict=True):
        apart = round(QUALITY.told_apart_s * record.sampling_frequency_hz)
        moved = maximum_filter1d(np.abs(now - before) > QUALITY.told_mv, 2 * apart + 1)
        seconds = [(start + apart) / record.sampling_frequency_hz for start, _ in runs_of(moved)]
        if seconds:
            warnings.append(f"lead {lead} is taken from the leads that it must agree with {_times(seconds)}")
    return warnings


def _lead_warnings(coverage: dict[Lead, float], confidence: dict[Lead, float]) -> list[str]:
    """Name the leads that were read badly."""
    warnings = [
        f"only {100 * share:.0f} % of lead {lead} could be read"
        for lead, share in coverage.items()
        if share < QUALITY.coverage
    ]
    faint = [
        lead for lead, sure in confidence.items() if sure < QUALITY.confidence and coverage[lead] >= QUALITY.coverage
    ]
    return warnings + ([f"lead {', '.join(faint)} was hard to read"] if faint else [])


def _record_warnings(
    record: EcgRecord, match: LayoutMatch, limb_leads_agree: bool | None, strip_db: dict[Lead, float]
) -> list[str]:
    """Say where the record contradicts itself or what is plausible."""
    warnings = []
    if limb_leads_agree is False:
        warnings.append("the limb leads do not add up as Einthoven and Goldberger demand: one may be misread")
    warnings += [
        f"rhythm strip {lead} differs from lead {lead} in its column"
        for lead, db in strip_db.items()
        if db < QUALITY.strip_db
    ]
    height = np.max(np.abs(np.nan_to_num(record.signal_mv)), axis=1)
    for row in np.flatnonzero(height > QUALITY.height_mv):
        warnings.append(f"lead {record.leads[row]} reaches {height[row]:.1f} mV: the gain may be another")
    if len(match.layout.rows[0]) > 1 and record.calibration.speed_source == "default":
        speed = record.calibration.paper_speed_mm_per_s
        warnings.append(f"the columns fit no usual paper speed; {speed:g} mm/s was assumed")
    return warnings


def _grid_warnings(grid_scale: GridScale) -> list[str]:
    """Say where the scale is doubtful."""
    warnings = []
    made_up = (grid_scale.doubt_mm or 0.0) >= QUALITY.doubtful_mm
    if grid_scale.source != "grid" or grid_scale.score < QUALITY.grid_score or made_up:
        origin = {"hint": "taken from the file", "columns": "taken from columns and pulses"}
        warnings.append(f"the grid is hardly visible; the scale is {origin.get(grid_scale.source, 'doubtful')}")
    if abs(grid_scale.px_per_mm_x / grid_scale.px_per_mm_y - 1) > QUALITY.stretched:
        warnings.append("the page is stretched: its grid is not square")
    return warnings


def assess(
    record: EcgRecord,
    match: LayoutMatch,
    traces: TraceSet,
    grid_scale: GridScale,
    audit: InkAudit,
    read: EcgRecord | None = None,
    *,
    weights: QualityWeights = QUALITY,
) -> Quality:
    """Judge a record.

    Parameters
    ----------
    record : EcgRecord
    match : LayoutMatch
    traces : TraceSet
        As read.
    grid_scale : GridScale
    audit : InkAudit
        Of the record.
    read : EcgRecord, optional
        The record of the traces as read, if leads told each other something since: only this one tells whether leads
        agree by themselves.
    weights : QualityWeights
        Of the estimate.  As far as speed and gain are in doubt, the estimate is drawn towards that of a record whose
        scale is wrong.

    Returns
    -------
    Quality
        `warnings` say in words why a person should look; none means none is known.
    """
    read = record if read is None else read
    printed, known = _printed(record, match), np.isfinite(record.signal_mv)
    coverage, confidence = {}, {}
    for row, lead in enumerate(record.leads):
        if printed[row].any():
            coverage[lead] = float(known[row, printed[row]].mean())
            confidence[lead] = float(record.confidence[row, known[row]].mean()) if known[row].any() else 0.0
    measured = features(read, match, traces, grid_scale)
    estimate = weights.intercept_db + float(np.dot(weights.coefficients_db, measured.vector()))
    right = _scale_is_right(record.calibration)
    estimate = right * estimate + (1 - right) * min(estimate, weights.misread_db)
    worst = _less_missing(estimate, record, audit, replace(weights, spikes=QUALITY.spikes_off))
    estimate = _less_missing(estimate, record, audit, weights)
    einthoven, limb_db = _sum_residual(read, _EINTHOVEN), _limb_db(read)
    limb_leads_agree = min(limb_db) >= QUALITY.sums_db if limb_db else None
    warnings = [f"layout {match.layout.name} is uncertain: {reason}" for reason in match.reasons]
    warnings += _lead_warnings(coverage, confidence)
    warnings += _audit_warnings(audit)
    warnings += _told_warnings(record, read) + hidden_spikes(read) + unread_strokes(match, traces)
    if record.pacing and worst < QUALITY.bad_db:
        warnings.append(
            "pacing spikes are much of the signal and are placed to a sample only: compare their times with the paper"
        )
    warnings += _record_warnings(record, match, limb_leads_agree, _strip_db(match, traces))
    if grid_scale.source == "grid":
        warnings += beats_cut_by_lines(match, traces, record.calibration.paper_speed_mm_per_s)
    warnings += _grid_warnings(grid_scale)
    warnings += record.calibration.reasons
    return Quality(
        coverage=coverage,
        confidence=confidence,
        einthoven_residual_mv=None if einthoven is None else float(np.median(np.abs(einthoven[1]))),
        layout_score=match.score,
        estimated_snr_db=float(np.clip(estimate, weights.worst_db, weights.best_db)),
        warnings=tuple(warnings),
        notes=(match.layout.part,) if match.layout.part else (),
        limb_leads_agree=limb_leads_agree,
        features=tuple(measured.vector().tolist()),
    )
