"""What a page states about its recording: date and time, heart rate, intervals, axes, filters, device, age.

Carts print "Vent. rate 80 BPM", "HR: 80/min", a heart before a number, "PR 148 ms", "QT/QTc 394/454 ms", "QRSD 86",
"P-R-T axes 56 -17 -40".  A value counts if its label was read, every character of it is certain, it is one that a heart
can have, and no other value is printed for the same: a misread number is nothing rather than something false.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pipeline.datatypes import PrintedValues, TextLine
from pipeline.printing.dates import plain, recording_date
from pipeline.printing.rows import PrintedRow, in_rows
from pipeline.printing.weights import VALUES

_TO = r"[ :=.]{0,12}"  # from a label to its value; not farther away on the row
_END = r"(?![\w/:-]|[.,]\d)"
_MS = rf"{_TO}(\d{{2,3}}) ?(?:ms|msec|msek){_END}"
_MS_OR_BARE = rf"{_TO}(\d{{2,3}})(?: ?(?:ms|msec|msek))?{_END}"
_S = rf"{_TO}(0[.,]\d\d\d?) ?(?:s|sec){_END}"
_DURATION = r" ?(?:-? ?(?:interval|int\.?|intervall|intervalle|duration|dur\.?|dauer|zeit|duree|d))"
_BPM = r"(?:bpm|b/min|/ ?min|1/min|min-1|s/min|schl/min|batt/min|lpm)"
_YEARS = "yrs?|years?(?: old)?|jahre|ans|anni|jaar"
_DEGREES = r"(-?\d{1,3})(?: ?(?:°|deg|grad))?"

# On a row in lower case and without accents.
_PATTERNS: dict[str, tuple[str, ...]] = {
    "heart_rate_per_minute": (
        r"(?<![a-z])(?<!max )(?<!max\. )(?<!atrial )(?<!target )(?<!resp )(?<!resp\. )"
        r"(?:(?:vent(?:r|ricular)?\.? ?|heart ?|h\.? ?)rate|hr|vr|vf|hf|fc|herzfrequenz|kammerfrequenz"
        r"|frequence cardiaque|freq\.? card\.?|frecuencia cardiaca|frequenza cardiaca)"
        rf"(?: ?\(?{_BPM}\)?)?{_TO}(\d{{2,3}})(?: ?{_BPM})?{_END}",
        rf"[\u2665\u2661\u2764]{_TO}(\d{{2,3}})(?: ?{_BPM})?{_END}",
        rf"(?:^|\s\s)rate{_TO}(\d{{2,3}})(?: ?{_BPM})?{_END}",  # alone: "sampling rate" is none of a heart
        rf"^ ?(\d{{2,3}}) ?bpm{_END}",
        r"\ds\+\dr {1,3}(\d{2,3})(?= )",  # after the layout, "4*2.5s+1r": a heart that was not recognised
    ),
    "pr_ms": (rf"(?<![a-z\-])p[rq](?:{_DURATION}{_MS_OR_BARE}|{_MS})", rf"(?<![a-z\-])p[rq](?:{_DURATION})?{_S}"),
    "qrs_ms": (rf"(?<![a-z])qrs(?:{_DURATION}{_MS_OR_BARE}|{_MS})", rf"(?<![a-z])qrs(?:{_DURATION})?{_S}"),
    "qt_ms": (
        rf"(?<![a-z])qt(?:{_DURATION})?(?:{_MS}|{_TO}(\d{{3}}){_END})",
        r"(?<![a-z])qt ?/ ?qt ?c[a-z]{0,7}(?:[ -]?\(?[a-z]{1,6}\)?)?"
        + rf"{_TO}(\d{{3}})(?: ?ms)? ?/ ?\d{{3}}(?: ?ms)?{_END}",
    ),
    "qtc_ms": (
        rf"(?<![a-z/])(?<!/ )qt ?c[a-z]{{0,7}}(?: ?\([a-z]{{1,8}}\))?{_MS_OR_BARE}",
        r"(?<![a-z])qt ?/ ?qt ?c[a-z]{0,7}(?:[ -]?\(?[a-z]{1,6}\)?)?"
        + rf"{_TO}\d{{3}}(?: ?ms)? ?/ ?(\d{{3}})(?: ?ms)?{_END}",
    ),
    "p_axis_deg": (),
    "qrs_axis_deg": (rf"(?<![a-z])qrs[ -]?(?:axis|achse|axe|asse|eje){_TO}{_DEGREES}{_END}",),
    "t_axis_deg": (),
    "age_years": (
        rf"(?<![a-z])(?:age|alter|edad|eta|idade|leeftijd|alder){_TO}(\d{{1,3}})(?: ?(?:y|j|ar|anos|{_YEARS}))?{_END}",
        rf"(?<![\w.,/:\-])(\d{{1,3}}) ?(?:{_YEARS}|y\.?o\.?){_END}",
    ),
}
_AXES = re.compile(
    r"(?<![a-z])p ?[-/ ] ?(?:qrs|r) ?[-/ ] ?t(?: ?-?(?:axes|axis|achsen?|axe))?"
    rf"{_TO}{_DEGREES}[ /]{{1,8}}{_DEGREES}[ /]{{1,8}}{_DEGREES}{_END}"
)
_FILTERS = re.compile(
    r"(?<![\w.,/])(?:f:? ?)?(?:"
    r"\d{1,3}(?:[.,]\d{1,3})? ?(?:hz)? ?[-~] ?\d{2,3}(?:[.,]\d)? ?hz|\d{2,3} ?hz|ac ?[:=]? ?(?:50|60)(?: ?hz)?"
    r")(?!\w)"
)
_DEVICES = re.compile(
    r"(?<!\w)(?:mac ?-?(?:vu|\d{3,4})(?: ?hd| ?st)?|se-?\d{1,4}[a-z]{0,2}|eli ?-?\d{3}[a-z]?|tc ?-?\d{2}|cp ?\d{3}"
    r"|pagewriter(?: ?[a-z]{0,5}\d{0,3})|cardiovit(?: ?[a-z]{2}-?\d{1,3})?|cardiofax(?: ?\w{1,8})?|ecg-?\d{4}[a-z]?"
    r"|at-?10\d?(?: plus)?|fx-\d{4})(?!\w)"
)


def printed_values(lines: Sequence[TextLine]) -> PrintedValues:
    """Read what the text of a page states about its recording.

    Parameters
    ----------
    lines : sequence of TextLine
        Everything that was recognised.

    Returns
    -------
    PrintedValues
    """
    rows = in_rows(lines)
    when = recording_date(rows)
    found: dict[str, set[float]] = {name: set() for name in _PATTERNS}
    for row in rows:
        for name, value in _numbers(row):
            found[name].add(value)
    numbers = {name: values.copy().pop() for name, values in found.items() if len(values) == 1}
    devices = list(_words(rows, _DEVICES))
    return PrintedValues(
        recorded_on=when.on,
        recorded_at=when.at,
        may_be_recorded_on=when.may_be,
        filters=tuple(dict.fromkeys(_words(rows, _FILTERS))),
        device=devices[0] if devices else "",
        reasons=when.reasons,
        **numbers,
    )


def _numbers(row: PrintedRow) -> Iterator[tuple[str, float]]:
    """Yield what a row states, each value with its name."""
    text = plain(row.text)
    for name, patterns in _PATTERNS.items():
        for pattern in patterns:
            for match in re.finditer(pattern, text):
                yield from _certain(row, name, match, match.lastindex or 0)
    for match in _AXES.finditer(text):
        for group, name in enumerate(("p_axis_deg", "qrs_axis_deg", "t_axis_deg"), 1):
            yield from _certain(row, name, match, group)


def _certain(row: PrintedRow, name: str, match: re.Match[str], group: int) -> Iterator[tuple[str, float]]:
    """Yield the number of a group of a match if it was read with certainty and is one that a heart can have."""
    value = float(match[group].replace(",", "."))
    if name.endswith("_ms") and value < 1:
        value = round(1000 * value)
    limits = VALUES.qt_ms if name == "qtc_ms" else VALUES.axis_deg if name.endswith("_deg") else getattr(VALUES, name)
    if limits[0] <= value <= limits[1] and row.is_sure(*match.span(group)):
        yield name, value


def _words(rows: Sequence[PrintedRow], pattern: re.Pattern[str]) -> Iterator[str]:
    """Yield the parts of the text that fit a pattern, as printed."""
    for row in rows:
        for match in pattern.finditer(plain(row.text)):
            if row.is_sure(*match.span()):
                yield " ".join(row.text[match.start() : match.end()].split())
