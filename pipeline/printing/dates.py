"""The date and time of recording, as a page prints it.

Carts print dates in every order: 2021-04-03, 03.04.2021, 04/03/2021, 03-APR-2021, Apr 3, 2021.  A name of a month, a
year in front, points between the numbers and a day over 12 decide the order; so does another date of the page that is
written the same way.  Where nothing decides, the date is ambiguous, and no order is preferred.

Pages print other dates, too: of birth, of the print, of the report.  A date is the recording's if a label says so, or
if a time stands beside it and no label says otherwise; different dates that could be it leave it unknown.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, time
from enum import IntEnum
from typing import Literal

from pipeline.printing.rows import PrintedRow
from pipeline.printing.weights import VALUES

Order = Literal["dmy", "mdy", "ymd"]

_MONTHS = (  # English, German, French, Italian, Spanish, Portuguese, Dutch, Scandinavian; without accents
    "jan january januar jaenner janner janvier janv gennaio gen enero ene janeiro januari",
    "feb february februar fevrier fevr fev febbraio febrero fevereiro februari",
    "mar march maerz marz mrz mars marzo marco maart mrt marts",
    "apr april avril avr aprile abril abr",
    "may mai maggio mag mayo maio mei maj",
    "jun june juni juin giugno giu junio junho",
    "jul july juli juillet juil luglio lug julio julho",
    "aug august aout agosto ago augustus augusti",
    "sep sept september septembre settembre set septiembre setembro",
    "oct october okt oktober octobre ottobre ott octubre outubro out",
    "nov november novembre noviembre novembro",
    "dec december dez dezember decembre dicembre dic diciembre dezembro desember des",
)
_MONTH = {name: number for number, names in enumerate(_MONTHS, 1) for name in names.split()}

_START = r"(?<![\w.,/\-])(?<!\d:)"
_GAP = r" {0,2}"
_NAME = r"([^\W\d_]{3,10})\.?"
_MARK = rf"{_GAP}[-./,']?{_GAP}"
_YEAR = r"(\d{4})"
_ENDS = r"(?:(?=[.,]?\d\d:\d\d)|(?![\w/:]|[-.]\d))"  # a time may touch it
_FORMS: tuple[tuple[str, re.Pattern[str]], ...] = (  # the order of the groups, and the form
    ("ymd", re.compile(rf"{_START}{_YEAR}{_GAP}([-./]){_GAP}(\d\d?){_GAP}\2{_GAP}(\d\d?){_ENDS}")),
    ("ymd", re.compile(rf"{_START}{_YEAR}-(\d\d)-(\d\d)(?=T\d\d:)")),
    ("ynd", re.compile(rf"{_START}{_YEAR}{_MARK}{_NAME}{_MARK}(\d\d?){_ENDS}")),
    (
        "dny",
        re.compile(rf"{_START}(\d\d?)(?:st|nd|rd|th|er|\.)?{_MARK}(?:de )?{_NAME}{_MARK}(?:de )?(\d{{4}}|\d\d){_ENDS}"),
    ),
    ("ndy", re.compile(rf"(?<![^\W\d_]){_NAME}{_MARK}(\d\d?)(?:st|nd|rd|th)?{_MARK}{_YEAR}{_ENDS}")),
    ("?", re.compile(rf"{_START}(\d\d?){_GAP}([-./]){_GAP}(\d\d?){_GAP}\2{_GAP}{_YEAR}{_ENDS}")),
    ("?", re.compile(rf"{_START}(\d\d)([-./])(\d\d)\2(\d\d){_ENDS}")),
)
_CLOCK = (
    r"(\d\d?)[:h]([0-5]\d)(?:[:m]([0-5]\d)s?)?(?:[.,]\d{1,3})?"
    rf"{_GAP}(?:([ap])\.?{_GAP}m\b\.?)?(?![\w:]|[-./]\d|{_GAP}[ap]\b)"
)
_BETWEEN = r"[ .,;|\-@]{0,5}(?:at|um|a|om|kl\.?|alle|h|t)?[ :]{0,3}(?:(?:time|zeit|uhrzeit|heure|hora|ora)[ :.]{0,3})?"
_TIME_AFTER = re.compile(_BETWEEN + _CLOCK)  # of a date, in lower case and without accents
_TIME_BEFORE = re.compile(rf"(?<![\w.,:/\-]){_CLOCK}(?:uhr|h)?[ ,;|\-]{{0,5}}(?:on|am|le|den)?[ :]{{0,3}}$")

# What a label before a date says, without accents.  A label of none of these says nothing.
_OTHER = re.compile(
    r"birth|born|\bd\.? ?o\.? ?b\b|\bgeb|\bnaiss|\bnee?\b|\bnat[oa]\b|nascit|nascim|nacim|fodd|fodt|fodsel"
    r"|print|druck|imprim|stamp|report|befund|confirm|review|signed|order|admi|received|edited|calib|kalib|version|expir",
)
_RECORDED = re.compile(
    r"record|acqui|\bexam|aufnahme|aufgez|enregist|registr|esame|\btest|\becg|\bekg|untersuch|gemessen"
)
_DATE = re.compile(r"\b(?:date|datum|fecha|data|dato|le)\b[^a-z]*$")


_EDGE = re.compile(r"(?:^|\s\s)#$")  # of a line of print


class _Claim(IntEnum):
    """How strongly a date claims to be the recording's."""

    OTHER = 0  # a label says that it is another
    NONE = 1
    TIMED = 2  # a time stands beside it, or a label says that it is a date
    LABELLED = 3  # a label says that it is the recording's


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A date as printed: what it can mean, how it is written, and what else is said of it."""

    days: dict[str, date]  # by the order of its parts
    form: str  # the mark between its parts and the digits of its year; "" where the order is written out
    claim: _Claim
    at: tuple[time, ...]  # times beside it; several contradict each other


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingDate:
    """When a page was recorded, as printed; `may_be` and `reasons` say why it is not known."""

    on: date | None = None
    at: time | None = None
    may_be: tuple[date, ...] = ()
    reasons: tuple[str, ...] = ()


def plain(text: str) -> str:
    """Return a text in lower case and without accents, every character in its place."""
    return "".join(unicodedata.normalize("NFKD", character)[0].casefold()[:1] for character in text)


def recording_date(rows: Sequence[PrintedRow]) -> RecordingDate:
    """Find the date and time of recording in the rows of print of a page."""
    found = _settled([each for row in rows for each in _dates(row)])
    first = date(VALUES.first_year, 1, 1)
    claims = [each for each in found if each.claim >= _Claim.TIMED and max(each.days.values()) >= first]
    if not claims:
        return RecordingDate()
    strongest = [each for each in claims if each.claim == max(each.claim for each in claims)]
    meanings = {tuple(sorted(set(each.days.values()))) for each in strongest}
    if len(meanings) > 1:
        return RecordingDate(reasons=("different dates are printed, and nothing says which is the recording's",))
    days = meanings.pop()
    same = [each for each in claims if set(each.days.values()) == set(days)]
    times = {moment for each in (strongest if any(each.at for each in strongest) else same) for moment in each.at}
    at = times.pop() if len(times) == 1 else None
    if len(days) > 1:
        reason = "nothing says whether the day or the month of the printed date comes first"
        return RecordingDate(at=at, may_be=days, reasons=(reason,))
    return RecordingDate(on=days[0], at=at)


def _settled(found: Sequence[_Found]) -> list[_Found]:
    """Give dates that could be read in several ways the order that other dates of their form have."""
    orders: dict[str, set[str]] = {}
    for each in found:
        if each.form and len(each.days) == 1:
            orders.setdefault(each.form, set()).update(each.days)
    settled = []
    for each in found:
        known = orders.get(each.form, set()) & set(each.days)
        days = {order: each.days[order] for order in known} if len(known) == 1 else each.days
        settled.append(_Found(days=days, form=each.form, claim=each.claim, at=each.at))
    return settled


def _dates(row: PrintedRow) -> Iterator[_Found]:
    """Read every date of a row that is certain to its last character."""
    spans: list[tuple[int, int]] = []
    low = plain(row.text)
    for order, form in _FORMS:
        for match in form.finditer(row.text):
            start, stop = match.span()
            if any(start < b and a < stop for a, b in spans):
                continue
            days = _meanings(order, [part for part in match.groups() if part not in ("-", ".", "/")], match)
            if not days:
                continue
            spans.append((start, stop))
            if row.is_sure(start, stop) and not _may_be_cut(row.text, match):
                written = f"{match[2]}{len(match.groups()[-1])}" if order == "?" else ""
                before = low[max((b for a, b in spans if b <= start), default=0) : start]
                at = tuple(_times(row, start, stop))
                yield _Found(days=days, form=written, claim=_claim(before, timed=bool(at)), at=at)


def _may_be_cut(text: str, match: re.Match[str]) -> bool:
    """Tell whether a digit may be lost where a line of print ends: 1 of 11, or 19 of 1987."""
    numbers = re.findall(r"\d+", match[0])
    begins, ends = _EDGE.search(text[: match.start()] + "#"), _EDGE.search(text[match.end() :][::-1] + "#")
    century = numbers[-1] in ("19", "20") and all(len(number) < 3 for number in numbers)
    return bool((begins and len(numbers[0]) == 1) or (ends and (len(numbers[-1]) == 1 or century)))


def _meanings(order: str, parts: Sequence[str], match: re.Match[str]) -> dict[str, date]:
    """Return what the parts of a date can mean, by their order."""
    if order != "?":
        named = dict(zip(order, parts, strict=True))
        month = _MONTH.get(plain(named["n"])) if "n" in named else int(named["m"])
        day = _day(named["y"], month, named["d"])
        return {order: day} if day is not None else {}
    first, second, third = parts
    possible = {"dmy": _day(third, int(second), first)}
    if match[2] != ".":
        possible["mdy"] = _day(third, int(first), second)
    if len(third) == 2:
        possible["ymd"] = _day(first, int(second), third)
    return {order: day for order, day in possible.items() if day is not None}


def _day(year: str, month: int | None, day: str) -> date | None:
    number = int(year)
    if len(year) == 2:
        first = VALUES.first_year
        number = first + (number - first) % 100
    if month is None:
        return None
    try:
        return date(number, month, int(day))
    except ValueError:
        return None


def _claim(before: str, *, timed: bool) -> _Claim:
    """Say what the text before a date makes of it: what stands far left on the row does not count."""
    label = before.rpartition("\t")[2][-40:]
    other, recorded = ([*pattern.finditer(label)] for pattern in (_OTHER, _RECORDED))
    if other and (not recorded or recorded[-1].start() < other[-1].start()):
        return _Claim.OTHER
    if recorded:
        return _Claim.LABELLED
    return _Claim.TIMED if timed or _DATE.search(label) else _Claim.NONE


def _times(row: PrintedRow, start: int, stop: int) -> Iterator[time]:
    """Read the time that stands right after a date, or else right before it."""
    text = plain(row.text)
    match = _TIME_AFTER.match(text, stop) or _TIME_BEFORE.search(text, 0, start)
    moment = _moment(match) if match else None
    if match and moment is not None and row.is_sure(*match.span()):
        yield moment


def _moment(match: re.Match[str]) -> time | None:
    hour, half = int(match[1]), match[4] or ""
    if half:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half == "p" else 0)
    return time(hour, int(match[2]), int(match[3] or 0)) if hour < 24 else None
