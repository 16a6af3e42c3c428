"""The numbers that weigh witnesses of speed and gain, bound the record and estimate its quality.

Each has its unit and its origin.  "By hand" means: set while single pages were studied, and not fitted.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessWeights:
    """How far each witness of paper speed and gain is believed.

    A likelihood says how often a page shows what it shows if the value is the one in question.
    """

    # What a witness measures.
    pulse_s: float = 0.2  # s, length of the calibration pulse of most carts; it is 1 mV high
    pulse_short_s: float = 0.05  # s, least: 2 and 3 mm at 25 mm/s are common
    pulse_mm: float = 5.0  # mm, its length on carts that draw it alike at every speed
    pulse_tolerance: float = 0.15  # relative, of height and length; by hand, values lie a factor of two apart
    column_tolerance: float = 0.12  # relative; carts print columns of 2.4 to 2.6 s for 2.5 s
    qrs_s: float = 0.032  # s, `Beats.qrs_mm`: 31.6 ms in 500 recordings, spread 15 %; 26 to 52 ms on 37 real pages
    rr_s: float = 0.85  # s, `Beats.rr_mm`: recordings of 2,065 people, spread 35 %
    t_s: float = 0.275  # s, from a QRS complex to its T wave's top, at one beat a second; 500 recordings
    t_power: float = 0.435  # of the beats' distance with which it grows; the same
    limb_mv: float = 0.8  # mV, height of limb leads in recordings, spread 25 %
    chest_mv: float = 1.5  # mV, the same of chest leads

    # How often carts are set so, beside the configured value, which weighs as much as all together; by hand.
    usual_speeds: tuple[float, ...] = (0.01, 0.01, 0.02, 0.1, 0.6, 0.25, 0.01)  # as PAPER_SPEEDS_MM_PER_S
    usual_gains: tuple[float, ...] = (0.02, 0.18, 0.65, 0.15)  # as GAINS_MM_PER_MV

    # Likelihoods of columns; by hand. 62.5 mm are 2.5 s at 25 mm/s, 1.25 s at 50 mm/s or 5 s at 12.5 mm/s.
    column_whole: float = 0.85  # the columns last as long as the layout says
    column_fitted: float = 0.3  # half or twice as long, to fit a sheet of the usual width (50 and 12.5 mm/s)
    column_part: float = 0.03  # half or twice as long at another speed
    column_other: float = 0.01

    # Likelihoods of pulses; by hand, carts differ in the length and hardly in the height.
    pulse_length: float = 0.7  # the pulse lasts 0.2 s
    pulse_length_odd: float = 0.2  # it is shorter, or 5 mm long
    pulse_length_other: float = 0.02
    pulse_height: float = 0.9  # the pulse is 1 mV high
    pulse_height_other: float = 0.02

    # Densities of beats over the logarithm of the size.
    qrs_share: float = 0.85  # of pages with a usual QRS complex; by hand
    qrs_spread: float = 0.2  # measured 0.15, more allowed by hand
    qrs_wide_share: float = 0.15  # of pages with a wide one: a finding; by hand
    qrs_wide: float = 1.5  # times as long; by hand
    qrs_wide_spread: float = 0.35  # by hand
    rr_spread: float = 0.35  # measured
    rr_printed_spread: float = 0.15  # of the beats' distance from that of the printed rate; by hand
    rr_miscounted: float = 0.1  # how often that distance is one of two beats, or of half a beat; by hand
    t_share: float = 0.75  # of pages whose T waves are found where they usually are; 93 % of recordings, fewer of pages
    t_spread: float = 0.12  # measured 0.10
    t_odd_spread: float = 0.5  # of the others; by hand
    height_spread: float = 0.4  # measured 0.25, more allowed by hand
    beats_least: float = 0.02  # share of the best that beats leave to every value: they rule nothing out; by hand

    # Likelihoods of text; by hand. A value of carts is hardly ever misread into another.
    text: float = 0.999  # the value itself
    text_lost_digit: float = 0.02  # a value that ends on the same digits: 25 passes for 5 at the edge of a line
    text_other: float = 0.001  # all other values together

    # Decisions.
    supports: float = 0.2  # share of its best likelihood from which on a witness does not contradict; by hand
    unasked: float = 0.5  # score where the page shows nothing
    sure: float = 0.75  # score, less of which is a doubt (docs/decisions/0008)
    sure_speed: float = 0.85  # the same of a speed; 25 real pages have 0.989 and more
    sure_by_beats: float = 0.92  # the same where only beats tell (docs/model-card.md)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordLimits:
    """How stretches become one record."""

    round_length: float = 0.015  # relative difference up to which the record has the usual length; by hand
    usual_s: tuple[float, ...] = (5.0, 10.0)  # s, beside what the layout says
    second_print: int = 50  # samples that two prints of a lead must share; 0.1 s at 500 Hz, by hand
    better: float = 0.1  # confidence by which the second print must exceed the first to replace it; by hand
    line_overlap_mm: float = 3.0  # mm by which a drawing's line may run past the next lead's start; by hand
    calm_s: float = 0.01  # s on both sides over which a slope is taken; the calmer half of the samples is the zero line


@dataclass(frozen=True, slots=True, kw_only=True)
class GridLineLimits:
    """When beats of a lead differ only where a heavy grid line runs."""

    pitch_mm: float = 5.0  # mm between heavy lines, which lie at multiples of it on the sheet
    beside_mm: float = (
        0.45  # mm from the middle of a line, within which it may hide a trace; by hand, lines are 0.6 wide
    )
    half_beat_mm: float = 3.0  # mm before and behind a beat's peak that are compared; by hand
    apart_mm: float = 6.0  # mm between two beats, at least; by hand
    highest: float = 0.995  # quantile of a lead's heights that is the height of its beats; by hand
    least_beat_mm: float = 3.0  # mm, height of a beat that is compared; by hand
    least_peak: float = 0.6  # of that height, at which a peak is a beat; by hand
    least_beats: int = 4  # of a lead; by hand
    shift: int = 6  # columns by which beats are moved onto each other; 0.3 mm, by hand
    elsewhere: float = 0.95  # quantile of the differences where no line runs; by hand
    least_mm: float = 1.5  # mm of difference at the line; by hand
    share: float = 0.25  # of the beat's height; by hand, an R wave under a line was read a third too low
    ratio: float = 4.0  # times the difference elsewhere; by hand


@dataclass(frozen=True, slots=True, kw_only=True)
class BeatLimits:
    """When a short stretch of a lead goes another way than the lead's other beats."""

    around_mm: float = 3.0  # mm before and behind it that the beats are laid over each other by; by hand
    shift_mm: float = 0.8  # mm by which they are moved; by hand
    least_mm: float = 1.0  # mm of difference; by hand
    ratio: float = 4.0  # times the difference of the others; by hand


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityWeights:
    """How the quality of a record is estimated, and what is worth a warning.

    Estimated SNR = intercept + coefficients . `Features`, in dB.  Fitted to 242 pages with truth whose speed and gain
    were read right (photographs, drawn scans, copies and photographs, all families, each family weighed alike; the fit
    also gave the offsets and noises below that say so).  The intercept is 0.3 dB lower than fitted, since an estimate
    that is too high does the harm.
    """

    intercept_db: float = -10.4  # fitted, less 0.3
    coefficients_db: tuple[float, ...] = (0.43, 0.54, 0.153)  # expected dB, limb dB, smooth dB

    # Where a feature cannot be measured, and its bounds.
    usual_limb_db: tuple[float, float, float] = (-15.8, 0.93, 0.33)  # dB of limb-lead sums where the page has none:
    # offset, and how they follow expected dB and smooth dB; fitted
    unknown_doubt_mm: float = 0.03  # mm of the bend network's doubt where there is no grid; fitted
    worst_sum_db: float = -10.0  # dB
    best_sum_db: float = 40.0  # dB, above this a self-check says no more; by hand
    worst_stretch_db: float = -5.0  # dB of a stretch that was not read; by hand
    best_stretch_db: float = 40.0  # dB; by hand
    least_smooth_db: float = 20.0  # dB, bounds of the smoothness; 23 to 59 on 158 pages
    best_smooth_db: float = 60.0
    least_mm: float = 0.01  # mm, error of the best read stroke; by hand
    sideways_mm: float = 0.009  # mm along time by which a point may be off; fitted
    sideways_bend: float = 2.0  # times the bend network's doubt, by which it may be off besides; fitted 2 to 3
    missing: float = 0.1  # of what the audit finds missing that nothing else shows; by hand, 0 to 0.2 fit alike
    spikes: float = 0.28  # of the power of the spikes that were read that others lack; fitted
    spikes_off: float = 2.0  # of that power, where all stand a sample off: missing there, and noise where they stand
    least_common_s: float = 0.5  # s that the leads of a sum must share; by hand
    least_strip_mm: float = 5.0  # mm that a strip and its short lead must share; by hand
    misread_db: float = 1.0  # dB of a record whose speed or gain is another: what is left of it; by hand
    worst_db: float = -5.0  # dB, bounds of the estimate
    best_db: float = 40.0

    # What is worth a warning.
    bad_db: float = 10.0  # dB, under which no record may leave unseen
    coverage: float = 0.9  # share of a lead that must be read; by hand
    confidence: float = 0.5  # mean confidence of a lead; by hand
    sums_db: float = 8.0  # dB of the limb-lead sums; by hand
    told_mv: float = 0.15  # mV by which other leads change one; by hand
    told_apart_s: float = 0.1  # s between two such places; by hand
    strip_db: float = 3.0  # dB of a strip against its short lead; by hand
    height_mv: float = 8.0  # mV that a lead reaches, more of which is rather another gain; by hand
    grid_score: float = 0.2  # of the grid finder; by hand
    doubtful_mm: float = 0.05  # mm of the bend network's doubt, from which on a grid may be made up; by hand
    stretched: float = 0.15  # relative difference of the two directions' scales; by hand


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLimits:
    """What the ink audit takes for ink, what explains a piece of it, and what sends a page to a person.

    All by hand, on 57 real pages and drawn ones with known omissions (`python -m pipeline evaluate-audit`).
    """

    # Ink: certainty of the page network in [0, 255], and darkness as a share of the pen's.
    sure: int = 110  # of the trace class: ink
    hint: int = 60  # of the trace or text class: enough to support a line of the record
    no_text: int = 80  # of the text class: less is no print
    faint: float = 0.25  # less is no stroke of a pen, whatever the network takes it for
    most_faint: float = 0.6  # the same where the grid is dark
    dark: float = 0.5  # as dark as the pen, where the grid is paler
    between: float = 0.45  # the same, as the share of the way from the grid to the pen
    shadow: float = 0.55  # broad ink paler than this is the shadow of a fold
    pale_grid: float = 0.75  # a darker grid is not told from the pen by its darkness
    supported: float = 0.3  # supports a line of the record
    thin: float = 0.2  # an upright stroke of a spike's width, over the paper on both sides of it
    ridge_mm: float = 0.7  # mm from such a stroke to the paper beside it
    least_thin_mm: float = 2.0  # mm, least height of such a stroke
    over_line: float = 2.0  # times the darkness of a line in its column, which such a stroke has besides
    bridge_mm: float = 4.0  # mm that a trace hides of an upright line
    most_rules: int = 5  # upright lines through all rows that a form has at most

    # Where ink is explained; mm.
    reach_mm: float = 40.0  # above the first and below the last row that waves may go
    sideways_mm: float = 0.45  # beside the record, along time
    upward_mm: float = 0.4  # beside half the pen's width, across time
    widest_pen_mm: float = 1.2
    edge_mm: float = 2.0  # from the start and the end of the rows
    separator_mm: float = 1.4  # from a column's boundary to the separator
    tick_mm: float = 1.2  # height of a separator in a row
    beside_mm: float = 0.4  # beside a separator
    level_mm: float = 8.0  # length of a level line of the grid
    pale_line: float = 0.8  # of the pen's darkness, below which a level line is one of the grid
    rule_mm: float = 30.0  # length of a level line that is a rule
    upright_mm: float = 45.0  # length of an upright line that is one of the grid, or a rule
    stands_out: float = 1.4  # times a long line's mean darkness, from which on a stroke on it is none of it
    on_print: float = 0.6  # share of a piece that lies on print and makes it print
    part_on_print: float = 0.3  # the same, with letters, of a piece that ends near them
    letter_mm: float = 1.5  # mm that such a piece goes on beyond them
    name_mm: float = 3.0  # mm that what the network takes for letters goes on beyond it
    least_names: int = 3  # names read that show where the others stand
    least_seen: float = 0.15  # share of a piece that the page network takes for trace
    returning: float = 0.75  # share of a piece's darkness that returns every 5 mm: it is a line of the grid
    ruled_mm: float = 8.0  # mm along and across time of a straight slanting line, which no wave is
    bow_mm: float = 0.5  # mm by which such a line is bent

    # What may be signal.
    touch_mm: float = 0.8  # mm from the explained band to an upright stroke that belongs to it
    close_mm: float = 0.3  # mm to ink of another shape
    thin_mm: float = 1.3  # mm, width of a spike
    steep_mm: float = 3.0  # mm that a line goes up or down beside the rest of a wave
    least_mm: float = 1.0  # mm, height of a piece
    lost_mm: float = 10.0  # mm beside a gap of the record that ink in it may lie
    seen_in_gap: float = 0.6  # share of a gap in which there is ink
    bare: float = 0.8  # share of a line beside the record that is seen as trace, while none is seen under the record
    long_mm: float = 25.0  # mm, length of a line away from all rows: shorter ones are scribbles
    least_mv: float = 0.25  # mV that ink reaches beyond the record; of a wave cut by 0.3 mV the tip is paler
    least_s: float = 0.1  # s of a second line, or of a line without ink
    as_one_mm: float = 0.5  # mm between two rows' lines that follow the same ink
    shared_mm: float = 1.5  # mm of paper along time that they do; rows that cross share less
    path_mm: float = 6.0  # mm along the line without ink, also where it runs steeply
    step_mm: float = 0.1  # mm between the places on the line that are looked at
    letters: int = 128  # of the text class, and no more of the trace class: a record runs on print
    along_mm: float = 1.5  # mm of paper along time that it does
    along_bow_mm: float = 1.0  # mm by which it bends there
    doubtful_confidence: float = 0.2  # of the samples beside it, at most


WITNESS = WitnessWeights()
RECORD = RecordLimits()
QUALITY = QualityWeights()
AUDIT = AuditLimits()
GRID_LINES = GridLineLimits()
BEATS = BeatLimits()
