"""The numbers that decide what is print, what is a line of it and what is a lead name: unit and origin of each.

"By hand" means: set while single pages were studied, and not fitted.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TextLimits:
    """What is sought and read as a line of text."""

    px_per_mm: float = 5.0  # of the map on which print is sought; about the page network's own scale
    likely: float = 0.35  # probability of print; small and thin letters are less certain than bold ones; by hand
    faint: float = 0.2  # probability that suffices where a trace is less likely still; by hand
    beside_letters: float = 0.5  # of the highest probability near it, less of which is no letter; by hand
    near_mm: float = 2.0  # mm; by hand
    least_mm: float = 1.2  # mm, height of a line, ascenders and descenders included: carts print letters of 1.2 to 6 mm
    most_mm: float = 6.0  # mm; calibration pulses and separators stand taller
    stroke: float = 1.1  # times `most_mm`: an upright stroke from here on is no letter; by hand
    rule_mm: float = 12.0  # mm, length from which on a line across is a rule; by hand
    gap_mm: float = 3.0  # mm between words of one line, at most; by hand
    hollow: float = 0.12  # share of the ink of full lines, less of which parts two lines; by hand
    beyond_mm: float = 60.0  # mm around the canvas where headers and footers are sought; by hand
    most_px: float = 10000.0  # px, width of all lines together at the recogniser's scale: 0.8 s on one core
    least_score: float = 0.6  # of a line that is kept; by hand
    outer_mm: float = 20.0  # mm beside the upper and lower edge, where a statement taken for trace is sought; by hand
    statement_px: float = 200.0  # px, its width at the recogniser's scale, at least: four times its height; by hand
    most_again_px: float = 2000.0  # px, width of all that is read in search of it: 0.15 s on one core


@dataclass(frozen=True, slots=True, kw_only=True)
class NameLimits:
    """What is a lead name: seen by the label network, or stated in the text."""

    window: float = 0.5  # probability of a window that sees a name; the name is then the most likely one
    windows: int = 2  # windows that must agree: one alone is chance; by hand
    first_window: float = 0.25  # share of the score that a single window would have; by hand
    each_window: float = 0.25  # share that every window adds, up to 1; by hand
    text_score: float = 0.8  # of a line whose text is believed to be a name, or to be none; by hand
    longest: int = 5  # characters of a name, a stray one and a sign included; longer lines are no names
    ends_mm: float = 3.0  # mm from the ends of a longer line: a name may touch what follows it; by hand
    place_x_mm: float = 5.0  # mm within which a label and a line stand at one place; by hand
    place_y_mm: float = 4.0  # mm; by hand
    longer: float = 0.15  # score by which a "V3" must exceed a "V3R" at its place; by hand, two pages
    rows_mm: float = 8.0  # mm, least, between names of two rows; by hand


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueLimits:
    """What is believed of printed values: a date, a rate, an interval.  What is outside was misread."""

    sure: float = 0.8  # probability of every character of a value; by hand: what is doubtful is not read
    beside_mm: float = 35.0  # mm from a label to its value, or from a date to its time; by hand
    first_year: int = 1970  # of a recording, and the first that two digits can mean: carts print dates since then
    heart_rate_per_minute: tuple[float, float] = (15.0, 350.0)
    pr_ms: tuple[float, float] = (50.0, 600.0)
    qrs_ms: tuple[float, float] = (40.0, 300.0)
    qt_ms: tuple[float, float] = (150.0, 800.0)  # QTc too
    axis_deg: tuple[float, float] = (-180.0, 360.0)
    age_years: tuple[float, float] = (0.0, 120.0)


TEXT = TextLimits()
NAMES = NameLimits()
VALUES = ValueLimits()
