"""Paper speed and gain: what text, calibration pulses, columns and beats say together.

Each source is a witness with a weight of its own:

* *text* states the value, and only values that carts have are read; it is hardly ever misread into another value.  It
  comes first.
* *the calibration pulse* is 1 mV high on every cart: for the gain it is nearly as good as text.  Its width is weaker:
  0.2 s on many carts, but less on others (2 and 3 mm at 25 mm/s are common), or 5 mm at every speed; it is never
  longer.
* *columns* are measured well but leave a factor of two open: 62.5 mm are 2.5 s at 25 mm/s, but also 1.25 s at 50 mm/s
  or 5 s at 12.5 mm/s.  A page of one column has no spacing at all.
* *beats* are nearly always of the usual length and height within a factor of two, and vary between patients within
  that.  They count for the speed if the text states none, and for the gain if no pulse was found either.  A
  printed heart rate says how far apart they are in time.  They never object: a wide QRS complex or a low voltage is a
  finding.

The configured value is the prior.  The value that explains all witnesses best is taken (Bayes' rule), and its score is
its probability.  A witness that contradicts the value, or a low score, is a reason for a review.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.datatypes import (
    GAINS_MM_PER_MV,
    PAPER_SPEEDS_MM_PER_S,
    Beats,
    Calibration,
    Corrections,
    LayoutMatch,
    PrintedMarks,
    StatedScale,
)
from pipeline.signal.weights import WITNESS

_USUAL_SPEEDS = dict(zip(PAPER_SPEEDS_MM_PER_S, WITNESS.usual_speeds, strict=True))
_USUAL_GAINS = dict(zip(GAINS_MM_PER_MV, WITNESS.usual_gains, strict=True))


@dataclass(frozen=True, slots=True)
class Witness:
    """What one source says: how likely it would show what it shows, under each possible value."""

    source: str  # "text" | "pulse" | "columns" | "beats"
    words: str  # what it shows, for a person
    likelihood: dict[float, float]

    def supports(self, value: float) -> bool:
        """Tell whether `value` explains what the source shows, if not best."""
        return self.source == "beats" or self.likelihood[value] >= WITNESS.supports * max(self.likelihood.values())

    @property
    def favours(self) -> float:
        """Return the value that explains it best."""
        return max(self.likelihood, key=lambda value: self.likelihood[value])


@dataclass(frozen=True, slots=True)
class Verdict:
    """The value all witnesses together leave, how sure it is, its strongest witness, and what speaks against it."""

    value: float
    score: float
    source: str
    reasons: tuple[str, ...]


def _near(a: float, b: float, tolerance: float) -> bool:
    return abs(a / b - 1) <= tolerance


def _common_size(sizes_mm: Sequence[float], tolerance: float) -> float | None:
    """Find the size that more than half of the measured ones have, within a relative tolerance."""
    for size in sizes_mm:
        together = [other for other in sizes_mm if _near(other, size, tolerance)]
        if 2 * len(together) > len(sizes_mm):
            return float(np.median(together))
    return None


def column_speed(match: LayoutMatch) -> float | None:
    """Return the paper speed at which the columns have their usual length, in mm/s; None for a page of one column."""
    starts_mm = [start for start, _ in match.column_mm]
    if len(starts_mm) < 2:
        return None
    return float(np.median(np.diff(starts_mm))) / match.layout.column_seconds


def _speed_of_columns(match: LayoutMatch) -> list[Witness]:
    """Take the columns as a witness; those that fit no speed say nothing (carts print columns of 2.4 to 2.6 s)."""
    seen, tolerance = column_speed(match), WITNESS.column_tolerance
    if seen is None or not any(_near(seen, speed, tolerance) for speed in PAPER_SPEEDS_MM_PER_S):
        return []
    likelihood = {}
    for speed in PAPER_SPEEDS_MM_PER_S:
        whole, half, double = (_near(seen, factor * speed, tolerance) for factor in (1.0, 0.5, 2.0))
        fitted = (half and speed == 50.0) or (double and speed == 12.5)  # to a sheet of the usual width
        part = WITNESS.column_part if half or double else WITNESS.column_other
        likelihood[speed] = WITNESS.column_whole if whole else WITNESS.column_fitted if fitted else part
    spacing_mm = seen * match.layout.column_seconds
    return [Witness("columns", f"the columns are {spacing_mm:.1f} mm apart", likelihood)]


def _speed_of_pulses(marks: PrintedMarks) -> list[Witness]:
    """Take the width of the pulses' tops as a witness; a width that no speed gives says nothing."""
    pulse_s, tolerance = WITNESS.pulse_s, WITNESS.pulse_tolerance
    width_mm = _common_size([pulse.top_mm for pulse in marks.pulses if pulse.top_mm is not None], tolerance)
    if width_mm is None or not any(_near(width_mm, pulse_s * speed, tolerance) for speed in PAPER_SPEEDS_MM_PER_S):
        return []
    likelihood = {}
    for speed in PAPER_SPEEDS_MM_PER_S:
        whole = _near(width_mm, pulse_s * speed, tolerance)
        shorter = WITNESS.pulse_short_s * speed <= width_mm < pulse_s * speed
        odd = shorter or _near(width_mm, WITNESS.pulse_mm, tolerance)
        other = WITNESS.pulse_length_odd if odd else WITNESS.pulse_length_other
        likelihood[speed] = WITNESS.pulse_length if whole else other
    return [Witness("pulse", f"the calibration pulse is {width_mm:.1f} mm wide", likelihood)]


def _gain_of_pulses(marks: PrintedMarks, chest_gain: float | None) -> list[Witness]:
    tolerance = WITNESS.pulse_tolerance
    height_mm = _common_size([pulse.y1_mm - pulse.y0_mm for pulse in marks.pulses], tolerance)
    if height_mm is None or not any(_near(height_mm, gain, tolerance) for gain in GAINS_MM_PER_MV):
        return []
    if chest_gain is not None and _near(height_mm, chest_gain, tolerance):
        return []  # it shows the chest leads' gain, and nothing of the others'
    likelihood = {
        gain: WITNESS.pulse_height if _near(height_mm, gain, tolerance) else WITNESS.pulse_height_other
        for gain in GAINS_MM_PER_MV
    }
    return [Witness("pulse", f"the calibration pulse is {height_mm:.1f} mm high", likelihood)]


def _bell(value: float, centre: float, spread: float) -> float:
    """Return the normal density of the logarithm of `value`, up to a constant."""
    return float(np.exp(-0.5 * (np.log(value / centre) / spread) ** 2) / spread)


def _beats_say(likelihood: dict[float, float], words: str) -> Witness:
    """Return beats as a witness that rules nothing out; `words` has a place for what they show best."""
    most = max(likelihood.values())
    likelihood = {value: max(share / most, WITNESS.beats_least) for value, share in likelihood.items()}
    return Witness("beats", words.format(max(likelihood, key=likelihood.__getitem__)), likelihood)


def _likely_period(period_s: float, rate_per_minute: float | None) -> float:
    """How likely beats are so far apart; a printed rate is that of this heart, but two beats may be taken for one."""
    if rate_per_minute is None:
        return _bell(period_s, WITNESS.rr_s, WITNESS.rr_spread)
    counted = ((1.0, 1.0), (2.0, WITNESS.rr_miscounted), (0.5, WITNESS.rr_miscounted))
    spread = WITNESS.rr_printed_spread
    return sum(share * _bell(period_s, beats * 60.0 / rate_per_minute, spread) for beats, share in counted)


def _likely_beats(beats: Beats, speed_mm_per_s: float, rate_per_minute: float | None) -> float:
    """How likely beats are as long and as far apart as they are, at a paper speed."""
    qrs_s = beats.qrs_mm / speed_mm_per_s
    usual = WITNESS.qrs_share * _bell(qrs_s, WITNESS.qrs_s, WITNESS.qrs_spread)
    wide = _bell(qrs_s, WITNESS.qrs_wide * WITNESS.qrs_s, WITNESS.qrs_wide_spread)
    likely = usual + WITNESS.qrs_wide_share * wide
    if beats.t_wave_mm is not None:
        t_s, period_s = (mm / speed_mm_per_s for mm in beats.t_wave_mm)
        usual_s = WITNESS.t_s * period_s**WITNESS.t_power
        likely *= WITNESS.t_share * _bell(t_s, usual_s, WITNESS.t_spread) + (1 - WITNESS.t_share) * _bell(
            t_s, usual_s, WITNESS.t_odd_spread
        )
    return likely if beats.rr_mm is None else likely * _likely_period(beats.rr_mm / speed_mm_per_s, rate_per_minute)


def _speed_of_beats(beats: Beats | None, rate_per_minute: float | None) -> list[Witness]:
    """Take length and rate of the beats as a witness."""
    if beats is None or beats.qrs_mm <= 0:
        return []
    likelihood = {speed: _likely_beats(beats, speed, rate_per_minute) for speed in PAPER_SPEEDS_MM_PER_S}
    return [_beats_say(likelihood, "the beats are as long as at {:g} mm/s")]


def _gain_of_beats(match: LayoutMatch) -> list[Witness]:
    """Take the height of the leads as a witness."""
    if match.beats is None or match.beats.height_mm <= 0:
        return []
    limb = sum(not lead.startswith("V") for lead in match.layout.leads) / len(match.layout.leads)
    usual_mv = limb * WITNESS.limb_mv + (1 - limb) * WITNESS.chest_mv
    height_mm, spread = match.beats.height_mm, WITNESS.height_spread
    likelihood = {gain: _bell(height_mm / gain, usual_mv, spread) for gain in GAINS_MM_PER_MV}
    return [_beats_say(likelihood, "the leads are as tall as at {:g} mm/mV")]


def _of_text(value: float | None, unit: str, known: Sequence[float]) -> list[Witness]:
    if value is None:
        return []
    rest = WITNESS.text_other / (len(known) - 1)
    # A first digit may be lost at the edge of a line: 25 passes for 5.
    likelihood = {x: WITNESS.text_lost_digit if f"{x:g}".endswith(f"{value:g}") else rest for x in known}
    likelihood[value] = WITNESS.text
    return [Witness("text", f"{value:g} {unit} is printed", likelihood)]


def _judge(
    witnesses: Sequence[Witness],
    usual: dict[float, float],
    configured: float,
    what: str,
    *,
    sure: float = WITNESS.sure,
) -> Verdict:
    """Weigh the witnesses against what is usual and what is configured; `what` has a place for the value in words.

    A score under `sure` is a doubt.  If beats are the only witness, they must confirm the configured value by
    `WitnessWeights.sure_by_beats`.
    """
    if not witnesses:
        return Verdict(configured, WITNESS.unasked, "default", ())
    belief = {value: share + (1.0 if value == configured else 0.0) for value, share in usual.items()}
    for witness in witnesses:
        belief = {value: share * witness.likelihood[value] for value, share in belief.items()}
    best = max(belief, key=lambda value: belief[value])
    score = belief[best] / sum(belief.values())
    agreeing = [witness for witness in witnesses if witness.favours == best]
    strongest = max(agreeing, key=lambda witness: (witness.source != "beats", witness.likelihood[best]), default=None)
    taken = what.format(best)
    if all(witness.source == "beats" for witness in witnesses):
        source = "default" if best == configured else "beats"
        doubt = f"nothing on the page states it, and the beats leave doubt: {taken} was taken"
        return Verdict(best, score, source, (doubt,) if score < WITNESS.sure_by_beats or best != configured else ())
    against = [f"{witness.words}, but {taken} was taken" for witness in witnesses if not witness.supports(best)]
    if score < sure and not against:
        against = [f"{taken} is not certain: {' and '.join(witness.words for witness in witnesses)}"]
    source = strongest.source if strongest else "default"
    if source == "beats" and best == configured:
        source = "default"  # confirmed, not read
    return Verdict(best, score, source, tuple(against))


def _judge_speed(printed: list[Witness], beats: Beats | None, rate: float | None, configured: float) -> Verdict:
    """Weigh what is printed and the beats; a T wave raises doubts, and silences none that beats raise without it."""
    what = "a paper speed of {:g} mm/s"
    speed, plain = (
        _judge([*printed, *_speed_of_beats(one, rate)], _USUAL_SPEEDS, configured, what, sure=WITNESS.sure_speed)
        for one in (beats, beats and replace(beats, t_wave_mm=None))
    )
    if speed.reasons:
        return speed
    if speed.value == plain.value:
        return replace(speed, score=min(speed.score, plain.score), reasons=plain.reasons)
    doubt = f"a paper speed of {speed.value:g} mm/s is not certain: but for T waves it looks like {plain.value:g} mm/s"
    return replace(speed, score=min(speed.score, 1 - plain.score), reasons=(doubt,))


def true_scale(match: LayoutMatch, marks: PrintedMarks, stated: StatedScale, default: Calibration) -> float:
    """Return how many millimetres one millimetre of a page really is, if its scale is a guess.

    Columns last as long as their layout says; with the paper speed that gives the scale.  At a stated 50 mm/s, and on a
    page of one column, they may also last half as long.  The speed is the stated one, else the usual one at which the
    calibration pulses have their proper height.  What pulses leave open the beats decide at a stated 50 mm/s,
    else the scale nearest to the guess is taken.

    Parameters
    ----------
    match : LayoutMatch
        Where the columns stand, on the guessed scale.
    marks : PrintedMarks
        The calibration pulses, on the guessed scale.
    stated : StatedScale
        What the text of the page states.
    default : Calibration
        What is configured.
    """
    single = len(match.column_mm) < 2
    columns_mm = match.column_mm if single else match.column_mm[:-1]  # the last one may be cut off
    width_mm = float(np.median([end - start for start, end in columns_mm]))  # gaps between columns are no time
    known = stated.speed_mm_per_s
    speeds = [default.paper_speed_mm_per_s, 25.0, 50.0] if known is None else [known]
    fitted = known == 50.0  # to a sheet of the usual width, often
    lengths_s = [match.layout.column_seconds / part for part in ((1, 2) if single or fitted else (1,))]
    scales = [seconds * speed / width_mm for speed in speeds for seconds in lengths_s]
    height_mm = _common_size([pulse.y1_mm - pulse.y0_mm for pulse in marks.pulses], WITNESS.pulse_tolerance)
    if height_mm is not None:
        proper = (stated.gain_mm_per_mv or default.gain_mm_per_mv) / height_mm
        nearest = min(scales, key=lambda scale: abs(np.log(scale / proper)))
        if _near(nearest, proper, WITNESS.pulse_tolerance):
            return nearest
    if fitted and match.beats is not None and match.beats.qrs_mm > 0:
        beats, rate = match.beats, stated.heart_rate_per_minute
        return max(scales, key=lambda scale: _likely_beats(beats, 50.0 / scale, rate))
    return min(scales, key=lambda scale: abs(np.log(scale))) if single else scales[0]


def infer_calibration(
    match: LayoutMatch,
    marks: PrintedMarks,
    stated: StatedScale,
    default: Calibration,
    corrections: Corrections = Corrections(),  # noqa: B008 - frozen
) -> Calibration:
    """Read speed and gain off the page, as far as it shows them.

    Parameters
    ----------
    match : LayoutMatch
        Where the columns stand.
    marks : PrintedMarks
        The calibration pulses are used.
    stated : StatedScale
        What the text of the page states.
    default : Calibration
        What is configured: it holds where the page says nothing, and is what a doubtful page is first believed to be.
    corrections : Corrections
        Speed and gain that a person states hold, and nothing contradicts them.

    Returns
    -------
    Calibration
        With the strongest source that supports each value ("person", "text", "pulse", "columns", or "default" where
        none does), a score for each, and reasons where sources contradict each other.
    """
    printed = [
        *_of_text(stated.speed_mm_per_s, "mm/s", PAPER_SPEEDS_MM_PER_S),
        *_speed_of_pulses(marks),
        *_speed_of_columns(match),
    ]
    beats = match.beats if stated.speed_mm_per_s is None else None
    speed = _judge_speed(printed, beats, stated.heart_rate_per_minute, default.paper_speed_mm_per_s)
    certain = [
        *_of_text(stated.gain_mm_per_mv, "mm/mV", GAINS_MM_PER_MV),
        *_gain_of_pulses(marks, stated.chest_gain_mm_per_mv),
    ]
    gain = _judge(
        certain or _gain_of_beats(match),
        _USUAL_GAINS,
        default.gain_mm_per_mv,
        "a gain of {:g} mm/mV",
    )
    chest = default.chest_gain_mm_per_mv
    if gain.source == "text" or stated.chest_gain_mm_per_mv is not None:
        chest = stated.chest_gain_mm_per_mv
    elif gain.source != "default":
        chest = None
    if corrections.paper_speed_mm_per_s is not None:
        speed = Verdict(corrections.paper_speed_mm_per_s, 1.0, "person", ())
    if corrections.gain_mm_per_mv is not None:
        gain, chest = Verdict(corrections.gain_mm_per_mv, 1.0, "person", ()), None
    if corrections.chest_gain_mm_per_mv is not None:
        chest = corrections.chest_gain_mm_per_mv
    both = speed.source == gain.source == "person"
    return Calibration(
        paper_speed_mm_per_s=speed.value,
        gain_mm_per_mv=gain.value,
        chest_gain_mm_per_mv=chest,
        speed_source=speed.source,
        gain_source=gain.source,
        speed_score=speed.score,
        gain_score=gain.score,
        reasons=(*(() if both else stated.reasons), *speed.reasons, *gain.reasons),
    )
