"""The numbers that weigh evidence for a layout and bound its decisions: each with its unit and its origin.

"By hand" means: set while single pages were studied, and not fitted.  These numbers were measured together, last on 40
drawn scans (seeds 101 and 102: 37 of 40 layouts right).  Costs have the unit of Algorithm 1 in the paper that describes
the method (arXiv 2510.19590): page sizes; a missing name costs 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleLimits:
    """When a traced row is a form's rule and no lead (EDAN reports; drawn scans with rules; no lead is so flat)."""

    least_columns: int = 200  # columns, 10 mm: a shorter row is not judged; by hand
    pieces: int = 20  # that the row is cut into; by hand
    within_mm: float = 0.1  # mm by which ink of one straight line differs; by hand
    off_line: int = 3  # times `within_mm`: a piece further from the line is a wave that crosses; by hand
    share: float = 0.85  # of the pieces on one line, and of the columns that are level; by hand


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementWeights:
    """How names and rows on the paper are laid over the places of a layout."""

    missing_name: float = 0.5  # page sizes; lambda of Algorithm 1 in the method's paper (arXiv 2510.19590)
    near: float = 0.12  # page sizes between a name and its place, at most; by hand
    near_rows: float = 0.5  # rows, at most: further off a name is the next row's (one scan of 12 rows 2.1 -> 20.4 dB)
    other_extra: float = 0.003  # page sizes added where another extra lead's name stands: decides between equal fits
    strip_name: float = 0.3  # of a short lead's weight: strips are often printed without a name; by hand
    solid: float = 0.3  # share of the width that a row is traced on before it measures the pitch; by hand
    least_stretch: float = 0.6  # column pitches over that of the rows' width: less is no layout; by hand
    most_stretch: float = 1.6  # the same, more
    least_pitch: float = 0.7  # pitches of names over the pitch of the traced rows: less is no layout; by hand
    most_pitch: float = 1.4  # the same, more
    least_pitch_mm: float = 4.0  # mm between two rows; by hand
    own_row: float = 0.4  # row pitches: a traced row this near is the printed one; by hand, under half a row
    spread: float = 0.5  # cost of one pitch by which a row is off its place; by hand
    name_off: float = 0.7  # pitches by which names may stand off their rows; by hand (EDAN reports, twelve close rows)
    name_off_ramp: float = 0.25  # pitches over which that becomes the cost of a missing row; by hand
    name_distance: float = 0.05  # cost of one pitch between name and row: decides between equal fits; by hand


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnWeights:
    """How columns are laid over what shows where they start (columns of 60 PDFs: 0.31 -> 0.16 mm off)."""

    span_window_mm: float = 10.0  # mm behind the first (before the last) ink that must be traced; by hand
    span_share: float = 0.8  # of that window; by hand
    edge_tolerance_mm: float = 1.5  # mm within which ends of rows are one edge; by hand
    edge_quantile: float = 0.25  # of those: a tracer starts late rather than early; by hand
    pulse_within_mm: float = 13.0  # mm from the end of a row in which a pulse is sought; by hand
    pulse_height_mm: float = 3.5  # mm, least; a pulse of 5 mm/mV is 5 mm high
    pulse_top_mm: float = 2.5  # mm, least length of its top; by hand
    pulse_level_mm: float = 0.6  # mm by which 95 % of its top is level; by hand
    pulse_fall: float = 0.3  # of its height, at most, behind it; by hand
    gap_mm: float = 0.3  # mm, least width of a gap between columns; by hand
    gap_share: float = 0.6  # of the rows that are empty there; by hand
    gap: float = 1.0  # weight of 1 mm of gap that no row's line runs through; by hand, rows' steps count 1
    gap_blank: float = 0.28  # share of the rows that show nothing, more of which speaks for a gap; by hand
    widest_gap_mm: float = 3.6  # mm between two columns; by hand
    other_width: float = 0.06  # relative difference up to which a width that carts print is tried; by hand
    strip_ends_mm: float = 4.0  # mm by which strips end before columns that have gaps; without, 3.2 on photographs
    seen: float = 0.5  # confidence from which on a row is seen again behind a gap; by hand
    most_jump_mm: float = 2.0  # mm that one row adds to a common jump; by hand
    start_ink: float = 0.5  # weight of the first ink; by hand, rows count 1
    start_ink_spread_mm: float = 0.25  # mm, standard deviation; by hand
    end_ink: float = 0.25  # weight of the last ink, which may run into a pulse; by hand
    end_ink_spread_mm: float = 0.4  # mm; by hand
    mark: float = 0.8  # weight of a boundary that the layout network sees in every row; by hand
    mark_spread_mm: float = 0.4  # mm; by hand, a cell of its answer is 0.5 mm
    settle_near_mm: float = 0.8  # mm within which a mark may be that of a boundary already found; by hand
    settle_spread_mm: float = 0.05  # mm by which marks are off where they agree; median 0.007 to 0.047 mm on 20
    # photographs with separators, 0.05 to 0.2 mm on five of six drawn scans without
    settle_pitch: float = 0.0006  # relative difference from a usual pitch; 20 photographs: 0.0002
    settle_reach_mm: float = 0.6  # mm by which rows seen again may move a boundary beside a gap; by hand
    ink_early_mm: float = 0.04  # mm by which the first ink stands before its line: half a pen; 12 drawn pages
    settle_steps: int = 12  # of the fit, the first half with three times the spread; by hand
    strange: float = 0.4  # cost of a pitch that no cart prints; by hand
    strange_spread: float = 0.004  # relative difference that costs it in full; by hand
    guessed_spread: float = 0.012  # the same where the scale is a guess: rows measure a pitch to 0.8 % (13 copies)
    strange_most: float = 3.0  # times that cost, at most; by hand
    reach_mm: float = 1.5  # mm by which the start is searched; by hand
    stretch: float = 0.016  # relative, by which the pitch is searched; by hand
    cut_mm: float = 4.0  # mm of trace beyond the columns that count as fully unexplained; by hand
    short: float = 0.7  # cost of a page that ends before its columns do: it may be cut; by hand
    short_mm: float = 8.0  # mm missing that count as fully unexplained; by hand
    label_pitch: float = 0.6  # cost of a pitch that names contradict; they may be spaced wider than columns; by hand
    label_pitch_spread: float = 0.05  # relative difference that contradicts fully; by hand
    unusual_pitch: float = 0.4  # cost of a pitch that no cart prints; by hand
    whole_page: float = 0.015  # relative difference up to which the page's own width is taken; by hand
    shift_reach_mm: float = 9.0  # mm by which boundary marks may move the start; by hand (faint starts, 0.2 s late)
    shift_near_mm: float = 1.5  # mm within which a mark supports a column start; by hand
    shift_least: float = 2.0  # marks that must support a moved start; by hand
    shift_ratio: float = 1.5  # times the support of the start where it is, and one mark more; by hand
    drawn_reach_mm: float = 3.0  # mm within which the start of a drawing's line is the column's; by hand


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeLimits:
    """Where and how the edges of columns are measured."""

    reach_mm: float = 0.9  # mm from where a column was laid; by hand
    seen: float = 0.3  # confidence at which a row begins and ends; scatters least of 0.12 to 0.7 (97 drawn pages)
    step_mm: float = 0.6  # mm by which a row steps beyond its waves beside; by hand
    outside_mm: float = 1.2  # mm of paper looked at outside of a row's end; by hand
    inside_mm: float = 2.6  # mm inside; by hand
    beside_mm: float = 1.5  # mm of paper above and below the line; by hand
    settled_mm: float = 0.15  # mm behind the first trace from which on the line is believed; by hand
    line_px: int = 6  # tenths of a mm to both sides of the line that hold its ink; by hand
    ink_ahead_mm: float = 0.1  # mm by which ink stands before the tracer's start; 140 drawn pages
    ink_near_mm: float = 0.3  # mm further off it is something else; by hand


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleWeights:
    """How far each kind of edge stands off its sample: measured on 140 drawn pages and 20 photographs."""

    # in the order of `edges.Kind`; of what the tracer sees and of ink, beyond `seen_mm` and the pen's
    offset_mm: tuple[float, ...] = (0.0, -0.06, 0.0, 0.10, 0.0, 0.0, -0.028, -0.02)  # mm
    offset_doubt_mm: tuple[float, ...] = (0.02, 0.04, 0.02, 0.05, 0.012, 0.012, 0.012, 0.1)  # mm, least
    doubt_per_spread: float = 1.2  # doubt of a kind that scatters, per mm of its scatter
    seen_mm: float = 0.025  # mm by which the tracer sees a row beyond both of its ends
    seen_doubt_mm: float = 0.035
    pen_mm: float = 0.03  # mm by which ink stands out beyond both ends, and the share of a line's height of it
    pen_share: float = 0.162
    pen_doubt_mm: float = 0.03
    start_doubt_mm: float = 0.25  # mm by which columns were laid off
    usual_spread: float = 0.0001  # relative difference from the width that carts print; 0.00005 drawn, 0.0002 photos
    usual_spread_guessed: float = 0.0006  # the same where columns gave the scale; by hand
    exact_map_mm: float = 0.006  # doubt of the sheet's map; scans 0.003 to 0.006, photographs 0.006 to 0.013
    usual_pitch: float = 0.002  # relative difference up to which a pitch is taken for the usual one; by hand
    near: float = 0.06  # relative difference up to which a column may be of the usual width; by hand
    near_alone: float = 0.012  # the same for the one column of a page, which may be cut; by hand
    cost_of_gap: float = 6.0  # evidence that a gap needs which was not seen before; by hand
    cost_of_width: float = 12.0  # evidence that a width needs which carts do not print; by hand
    page_s: float = 10.0  # s that carts divide among columns
    least_gap_mm: float = 0.15  # mm; by hand
    least_hidden_mm: float = 0.2  # mm, of a gap that was not seen before; by hand
    most_gap_mm: float = 3.7  # mm; by hand
    beside_gap_mm: float = 0.5  # mm from the middle of a gap whose width is unknown, to both sides; by hand
    rows_with_gap: float = 0.4  # share of the rows that must show it; by hand
    least_seen_gap_mm: float = 0.4  # mm, on a page of unknown scale: the tracer leaves 0.2 mm without any; by hand
    gaps_agree_mm: float = 0.25  # mm by which its widths differ at most; by hand
    lean_over_mm: float = 20.0  # mm between two rows that tell how edges lean; by hand
    least_slopes: int = 5  # such pairs of rows; by hand
    lean_spread: float = 0.004  # by which they differ: 0.4 mm over a page; by hand
    most_lean: float = 0.03  # two degrees; by hand
    in_gap_mm: float = 0.4  # mm by which steps and marks are off where there is a gap; by hand
    most_mm: float = 1.0  # mm by which columns move at most; by hand
    mark_reach_mm: float = 0.9  # mm; by hand
    at_mark_mm: float = 0.4  # mm from a boundary within which a mark is explained; by hand
    pulse_mm: float = 10.0  # mm by which a calibration pulse may lead to a wrong start; by hand
    more_marks: float = 1.5  # times the marks explained, and two more, lay columns anew; 1 of 185 pages, rightly
    mark_spread_mm: float = 0.05  # mm by which marks of separators are off; 20 photographs
    mark_stretch_mm: float = 0.1  # mm between the first and the last, the same
    least_boundaries: int = 4  # with marks: fewer are even by chance; by hand
    least_steps: int = 3  # that show whether steps agree; by hand
    steps_agree_mm: float = 0.04  # mm by which they do; drawn pages 0.01 to 0.03, photographs over 0.05 but one
    lone_spread_mm: float = 0.05  # mm of an edge without another of its kind; by hand
    tie_mm: float = 0.001  # mm by which pitch and width differ without a gap
    steps: int = 14  # of the fit, ever narrower
    least_width_mm: float = 0.06  # mm, of the weights; by hand
    floor_mm: float = 0.05  # mm, of the evidence; by hand
    wrong: float = 0.1  # share of edges that are something else; by hand


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalWeights:
    """How sums of limb leads and the step of beats are judged."""

    least_known: float = 0.5  # share of a stretch that must be traced; by hand
    least_common: int = 100  # tenths of a mm that limb leads must share; 10 mm, by hand
    least_pair: int = 50  # tenths of a mm that two stretches must share; 5 mm, by hand
    in_step: int = 4  # tenths of a mm by which beats of one time differ at most; measured: 0.1 mm (12 pages)
    late_mm: float = 0.6  # mm by which the first column may start late; one copy 2.6 -> 18.6 dB, one scan 5.7 -> 26.7
    laid_off_mm: float = 1.2  # mm by which the pitch of columns may be off: enough for a doubt; by hand
    misread: float = 2.0  # times what is left over within columns may be left over across them; by hand
    misread_margin: float = 0.05  # share of the power; left across columns of one time: 0.01, of a regular rhythm: 0.16
    exact_within: float = 0.02  # share left within columns, at most, for columns surely of one time
    exact_ratio: float = 1.5  # times that across; the nearest other of 116 real pages and PDFs leaves twice as much
    exact_margin: float = 0.006  # share of the power, added to that
    whole_beats_mm: float = 2.0  # mm: a column that holds whole beats to this much proves little; by hand
    chance: float = 0.1  # evidence, at most, where whole beats fill the columns; below `DecisionWeights.together`
    likely_chance: float = 0.3  # the same where the signals agree exactly
    likely: float = 0.5  # evidence from the sums that counts as exact agreement there; by hand
    agree: float = 0.9  # correlation that is exact; one after the other at most 0.9, together 0.96 to 0.99 (12 pages)
    alike: float = 0.8  # correlation of beats that is no evidence either way where columns are laid off; by hand
    irregular: float = 0.1  # correlation by which beats agree less one beat further on, if no two alike are; by hand
    disagree: float = 0.07  # correlation by which beats elsewhere fit better, which disproves one time; by hand
    beats_centre: float = 0.6  # correlation that proves nothing; between 0.3 (apart) and 0.96 (together), 12 pages
    beats_slope: float = 2.5  # evidence per correlation beyond that: full at 1.0
    strip_start: float = 0.6  # correlation with the strip's start, more of which may be chance; by hand
    strip_margin: float = 0.1  # correlation by which the strip beside a column must agree less; by hand


@dataclass(frozen=True, slots=True, kw_only=True)
class BeatLimits:
    """When rows show beats, and how these are measured (500 recordings: QRS complex 31.6 ms, spread 15 %)."""

    shortest_mm: float = 40.0  # mm of rows, less of which shows too few beats; by hand
    least_known: float = 0.5  # share of a row that must be traced; by hand
    steepest: float = 0.98  # quantile of a row's slopes that counts as steepest; by hand
    half: float = 0.5  # autocorrelation at whose lag a QRS complex ends
    least_period: float = 4.0  # QRS lengths between two beats; 0.13 s, by hand
    most_period: float = 60.0  # the same, at most; 1.9 s
    repeats: float = 0.45  # autocorrelation, least, of beats that repeat; by hand
    first_peak: float = 0.75  # of the highest peak: the first one this high is one beat, the others are multiples
    complex_qrs: float = 1.5  # QRS lengths over which steepness is added up; by hand
    complex_quantile: float = 0.99  # of that, which is a complex's; by hand
    complex_share: float = 0.4  # of a complex's, at least; by hand
    least_complexes: int = 3  # that show where T waves are; by hand
    first_t_qrs: float = 2.5  # QRS lengths behind a complex at which a T wave's top may be; by hand
    longest_t: float = 0.65  # of the beats' distance up to which it may be; by hand
    t_smooth_qrs: float = 0.25  # QRS lengths, half of the mean taken along a beat; by hand
    outermost: float = 0.005  # share of the samples at top and bottom that do not count for the height; by hand
    least_lead_mm: float = 20.0  # mm of a lead, less of which shows no height; by hand


@dataclass(frozen=True, slots=True, kw_only=True)
class StripWeights:
    """How a rhythm strip is named: likeness to its own short lead is 0.99, to others up to 0.9 (vector PDFs)."""

    usual: float = 0.25  # likeness added for the layout's custom; by hand
    augmented: float = -0.1  # likeness added for aVR, aVL, aVF, which are hardly ever strips; by hand
    unseen: float = 0.6  # likeness of a labelled lead that is not printed short; by hand
    label: float = 0.3  # likeness added for a label of score 1; by hand
    bar_label: float = 0.05  # the same for "I" and "II": a pulse's edge or a steep wave may pass for them
    rival: float = 0.1  # likeness by which another lead must be more alike to be named as a doubt; by hand
    sure_label: float = 0.8  # score of a label whose contradiction is a doubt; by hand
    alike: float = 0.7  # likeness, least, to name a strip without a label; by hand
    place_x_mm: float = 5.0  # mm within which two labels stand at one place: every "III" contains a "II"
    place_y_mm: float = 3.0  # mm; by hand
    lag: int = 10  # tenths of a mm by which strip and short lead may be shifted; by hand


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionWeights:
    """How the evidence is added up, which layouts are compared, and which doubts are stated."""

    rows: float = 0.35  # cost of rows that fit nowhere; by hand
    sums: float = 0.2  # cost of limb leads that obey no sum; by hand
    step: float = 0.05  # cost of columns that beat against the layout; by hand, decides between equal names
    together: float = 0.15  # evidence from which on columns were recorded together; a regular rhythm shows less
    apart: float = 0.05  # evidence up to which there is no doubt that they were not
    reach: float = 0.2  # cost over the best up to which a layout's signals are weighed; by hand
    margin: float = 0.03  # cost between two layouts that leaves no doubt; by hand
    inverted_ratio: float = 2.0  # times the sums' rest that the other sign of a lead must leave; by hand
    inverted_margin: float = 0.003  # share of the power, added to that
    names_before_mm: float = 20.0  # mm before a column at which carts still print its name; by hand
    names_inside: float = 0.3  # column widths into it; by hand
    names_spaced: float = 0.1  # log of their distance over that of the columns; carts space them up to 7 % wider
    few_names: int = 2  # names that ask for a look
    few_share: float = 0.6  # of the layout's names, less of which are few: two of three tell a layout of three leads
    names_share: float = 0.5  # of the layout's names that must be found; by hand
    solid_row: float = 0.3  # share of the width that makes a spare row worth a word; by hand
    lawless: float = 0.25  # share the sums leave that is a doubt; near 0 in the right order, else tenths
    together_sure: float = 0.5  # evidence, less of which is a doubt about columns of one time; by hand
    stray_score: float = 0.6  # of a name worth a word where the layout has none; by hand
    around_rows: float = 0.8  # row pitches above and below the rows: further off is header or footer; by hand
    most_names: float = 0.8  # of the layout's names found: then stray ones are print; by hand
    stray_names: int = 2  # stray names that are no doubt; by hand
    below_score: float = 0.8  # of a name below the last row; by hand
    below_x_mm: float = 6.0  # mm off the first column; by hand
    below_rows: float = 0.35  # row pitches off the next row; by hand
    lawful_rows: float = 0.3  # cost of rows, less of which identifies a page without names; by hand
    lawful_sums: float = 0.15  # share left over by the sums, the same; a regular rhythm across columns leaves 0.16
    least_names: int = 3  # fewer, with rows of `unfit_rows`, are no ECG; by hand (pages that are no ECG)
    unfit_rows: float = 0.6  # cost of rows; by hand


RULE = RuleLimits()
PLACEMENT = PlacementWeights()
COLUMNS = ColumnWeights()
EDGES = EdgeLimits()
SETTLE = SettleWeights()
SIGNALS = SignalWeights()
BEATS = BeatLimits()
STRIPS = StripWeights()
DECISION = DecisionWeights()
