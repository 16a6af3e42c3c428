"""What the text of a page states: paper speed, gain and lead names.

Carts write "25 mm/s 10 mm/mV", "25mm/sec", "Limb: 10 mm/mV Chest: 5 mm/mV", "10/5mm/mV", "1mV = 10 mm" or "x0.5"; a
recogniser may turn 0 into O, 5 into S, mm into rnm and lose the stroke or the space between.  Only speeds and gains
that carts have count, so that a misread number is nothing rather than something false.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pipeline.datatypes import (
    EXTRA_LEADS,
    GAINS_MM_PER_MV,
    NAMED_LEADS,
    OTHER_SYSTEMS,
    PAPER_SPEEDS_MM_PER_S,
    Lead,
    LeadLabel,
    StatedScale,
    TextLine,
)
from pipeline.printing.rows import in_rows
from pipeline.printing.weights import NAMES

_NUMBER = r"(?:(?<![\w.,/|\\])[OoIlSsZz]|(?<![\d.,])\d)[\dOoIlSsZz]{0,2}(?:\s?[.,]\s?[\dOoIlSsZz]{1,2})?"
_M = r"(?:m|rn|n)"
_STROKE = r"\s*[/\\|]\s*"
_LOST_STROKE = r"\s*[/\\|1lIi!=:.\-]{0,3}\s*"
# Of "mm" a letter may be lost where the stroke is not, so that "25 ms" remains a time and "10 mV" a voltage.
_MM, _MM_OR_M_STROKE = rf"\s*\.?\s*{_M}\s?{_M}", rf"\s*\.?\s*{_M}\s?(?:{_M}|r)?{_STROKE}"
_SPEED = re.compile(rf"({_NUMBER})(?:{_MM_OR_M_STROKE}s|{_MM}{_LOST_STROKE}s(?:e[ckg])?(?![a-z]))", re.IGNORECASE)
_GAIN = re.compile(
    rf"({_NUMBER})(?:\s?/\s?({_NUMBER}))?(?:{_MM_OR_M_STROKE}|{_MM}{_LOST_STROKE}){_M}\s?[vy]", re.IGNORECASE
)
_STANDARD = re.compile(rf"(?<![\d.,])1\s?mV\s?[=:]\s?({_NUMBER})\s?mm", re.IGNORECASE)
_FACTOR = re.compile(r"(?<!\w)[x\u00d7]\s?(0[.,]25|1/4|0[.,]5|1/2|1|2)(?:[.,]0)?(?![\w.,/])", re.IGNORECASE)
_FACTORS = {"0.25": 2.5, "1/4": 2.5, "0.5": 5.0, "1/2": 5.0, "1": 10.0, "2": 20.0}  # of the usual 10 mm/mV
_LIMB = re.compile(r"limb|ext|periph|(?<![a-z])[le]\s?[:=]?\s?$|avf\s?[:=]?\s?$", re.IGNORECASE)
_CHEST = re.compile(r"chest|prec|thor|(?<![a-z])[cv]\s?[:=]?\s?$|v?6\s?[:=]\s?$|v1\s?[-~]\s?v?6", re.IGNORECASE)
_EDGE = re.compile(r"(?<=\d)[lI]$")
_DIGITS = str.maketrans("OoIlSsZz,", "00115522.", " ")
_STROKES = {Lead.I, Lead.II, Lead.III}
_NAMES = {lead.upper(): lead for lead in NAMED_LEADS} | {f"C{k}": Lead(f"V{k}") for k in range(1, 10)}
_NAMES |= {form: Lead(f"V{k}R") for k in range(3, 7) for form in (f"C{k}R", f"RV{k}", f"VR{k}")}
_OTHER_NAMES = {
    form + lead: lead
    for system, leads in OTHER_SYSTEMS.items()
    for lead in leads
    for form in ("", "V", "N", system.upper())
}


def _known(number: str, known: Sequence[float]) -> float | None:
    """Return the value of a number as recognised, if it is one that carts have.

    Where it is none, a stroke behind its digits is taken for the edge of the unit's first m: "25lmm/s" is 25 mm/s.
    """
    for digits in (number, _EDGE.sub("", number)):
        try:
            value = float(digits.translate(_DIGITS))
        except ValueError:
            continue
        if value in known:
            return value
    return None


def _gain(number: str) -> float | None:
    """Return a gain as recognised; of 10 the last digit may be lost, and no cart has a gain of 1 mm/mV."""
    return 10.0 if number.translate(_DIGITS) == "1" else _known(number, GAINS_MM_PER_MV)


def _speeds(text: str) -> Iterator[float]:
    for match in _SPEED.finditer(text):
        speed = _known(match[1], PAPER_SPEEDS_MM_PER_S)
        if speed is not None:
            yield speed


def _gains(text: str) -> Iterator[tuple[str, float]]:
    """Gains in a text, each with what it is stated for: "limb", "chest" or "" for all."""
    stop = 0
    for match in _GAIN.finditer(text):
        before, stop = text[stop : match.start()], match.end()
        limb, chest = _LIMB.search(before), _CHEST.search(before)
        values = [_gain(number) for number in match.groups() if number]
        if None in values:
            continue
        names = ["limb", "chest"] if len(values) == 2 else ["limb" if limb else "chest" if chest else ""]
        yield from ((name, value) for name, value in zip(names, values, strict=True) if value is not None)
    for match in _STANDARD.finditer(text):
        value = _known(match[1], GAINS_MM_PER_MV)
        if value is not None:
            yield "", value


def _one(values: set[float]) -> float | None:
    return values.copy().pop() if len(values) == 1 else None


def stated_scale(lines: Sequence[TextLine]) -> StatedScale:
    """Find the paper speed and the gain that the text of a page states.

    Parameters
    ----------
    lines : sequence of TextLine
        Everything that was recognised.

    Returns
    -------
    StatedScale
        A factor ("x0.5") counts as a gain only where none is stated in mm/mV.
    """
    rows = [row.text for row in in_rows(lines)]
    speeds = {speed for row in rows for speed in _speeds(row)}
    gains = [gain for row in rows for gain in _gains(row)]
    if not gains:
        gains = [("", _FACTORS[match[1].replace(",", ".")]) for row in rows for match in _FACTOR.finditer(row)]
    limb = {value for name, value in gains if name != "chest"}
    chest = {value for name, value in gains if name == "chest"}
    reasons = []
    if len(speeds) > 1:
        reasons.append(f"several paper speeds are printed: {' and '.join(f'{x:g}' for x in sorted(speeds))} mm/s")
    if len(limb) > 1 or len(chest) > 1:
        values = sorted(limb if len(limb) > 1 else chest)
        reasons.append(f"several gains are printed: {' and '.join(f'{x:g}' for x in values)} mm/mV")
    gain, chest_gain = _one(limb), _one(chest)
    return StatedScale(
        speed_mm_per_s=_one(speeds),
        gain_mm_per_mv=gain,
        chest_gain_mm_per_mv=chest_gain if chest_gain != gain else None,
        reasons=tuple(reasons),
    )


def lead_name(text: str) -> Lead | None:
    """Return the lead that a text names and nothing else: "V1", "AVR", "-aVR", "C4", "V3R"; None if it names none."""
    bare = _bare(text)
    return _NAMES.get("V1" if bare in ("VI", "CI") else bare)


def _bare(text: str) -> str:
    """Return a name as `_NAMES` writes it."""
    return re.sub(r"[\s.:_\-]", "", text).replace("l", "I").replace("|", "I").upper()


def _names_of_other_systems(lines: Sequence[TextLine]) -> list[LeadLabel]:
    """Find Nehb's and Frank's leads: letters that are names only where one stands below the other, as leads do."""
    labels = []
    for leads in OTHER_SYSTEMS.values():
        named = [(_OTHER_NAMES.get(_bare(line.text)), line) for line in lines]
        there = [_label(lead, line) for lead, line in named if lead in leads and lead is not None]
        labels += [
            label
            for label in there
            if any(
                other.lead != label.lead
                and abs(other.x_mm - label.x_mm) < NAMES.place_x_mm
                and abs(other.y_mm - label.y_mm) > NAMES.rows_mm
                for other in there
            )
        ]
    return labels


def _label(lead: Lead, line: TextLine) -> LeadLabel:
    """Return the name that a line of text is."""
    x_mm, y_mm = (line.x0_mm + line.x1_mm) / 2, (line.y0_mm + line.y1_mm) / 2
    return LeadLabel(lead=lead, x_mm=x_mm, y_mm=y_mm, score=line.score)


def _within(label: LeadLabel, line: TextLine) -> bool:
    """Tell whether a label stands inside a line of print, away from its ends: a name may touch what follows it."""
    inside = line.x0_mm + NAMES.ends_mm < label.x_mm < line.x1_mm - NAMES.ends_mm
    return inside and line.y0_mm < label.y_mm < line.y1_mm


def _at(label: LeadLabel, x_mm: float, y_mm: float) -> bool:
    """Tell whether a label stands at a place."""
    return abs(label.x_mm - x_mm) < NAMES.place_x_mm and abs(label.y_mm - y_mm) < NAMES.place_y_mm


def join_lead_names(labels: Sequence[LeadLabel], lines: Sequence[TextLine]) -> tuple[LeadLabel, ...]:
    """Join the lead names that the label network found with those that the text states.

    Parameters
    ----------
    labels : sequence of LeadLabel
        The names that the label network found.
    lines : sequence of TextLine
        The text of the page.

    Returns
    -------
    tuple of LeadLabel
        A name in the text replaces a label at its place that has a lower score and another name, or a part of it: the
        network may see the "V3" of a "V3R".  A label inside a longer line of text is no lead name.  I, II and III come
        from the label network only: a recogniser takes any upright stroke for an I.
    """
    sure = [line for line in lines if line.score >= NAMES.text_score]
    prose = [line for line in sure if len(line.text.replace(" ", "")) > NAMES.longest]
    kept = [label for label in labels if not any(_within(label, line) for line in prose)]
    for line in sure:
        lead = lead_name(line.text)
        if lead is None or lead in _STROKES:
            continue
        named = _label(lead, line)
        here = [label for label in kept if _at(label, named.x_mm, named.y_mm)]
        if any(label.lead == lead for label in here):
            continue
        if any(label.score >= line.score and not lead.startswith(label.lead) for label in here):
            continue
        kept = [label for label in kept if label not in here] + [named]
    names = [label for label in kept if not any(_is_outdone(label, other) for other in kept)]
    return (*names, *_names_of_other_systems(sure))


def _is_outdone(label: LeadLabel, other: LeadLabel) -> bool:
    """Tell whether of two labels at one place, where one begins as the other, the other is believed.

    That is the longer one, the "V3R" that begins with a "V3", unless it is clearly the less sure one.
    """
    if label.lead == other.lead or not _at(label, other.x_mm, other.y_mm):
        return False
    if other.lead in EXTRA_LEADS and other.lead.startswith(label.lead):
        return other.score >= label.score - NAMES.longer
    return label.lead in EXTRA_LEADS and label.lead.startswith(other.lead) and label.score < other.score - NAMES.longer
