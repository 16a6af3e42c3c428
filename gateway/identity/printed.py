"""What a page says in print about its patient and its recording, for a reviewer to compare with the record.

What was read is shown as it was read; a value of a form that leaves no doubt is also given in DICOM's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from gateway.domain.context import StudyContext
from gateway.identity.print_check import agrees, labelled
from pipeline import TextLine

_BIRTH = re.compile(
    r"\b(?:dob|d\.o\.b\.|birth\s*date|date\s*of\s*birth|born|geb(?:oren|\.)?)\s*[:#]?\s*", re.IGNORECASE
)
_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_DATES = (
    re.compile(r"(?<!\d)(?P<y>\d{4})[-/.](?P<m>\d{1,2})[-/.](?P<d>\d{1,2})(?!\d(?!\d:))"),  # a time may follow at once
    re.compile(r"(?<!\d)(?P<d>\d{1,2})\.(?P<m>\d{1,2})\.(?P<y>\d{4})(?!\d)"),
    re.compile(r"(?<!\d)(?P<d>\d{1,2})[- ]?(?P<name>[A-Za-z]{3})[a-z]*[- ]?(?P<y>\d{4})(?!\d)"),
    re.compile(r"(?<!\d)(?P<a>\d{1,2})[/-](?P<b>\d{1,2})[/-](?P<y>\d{4})(?!\d)"),  # the order of day and month differs
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """A value on the page.

    Parameters
    ----------
    text
        As it was read.
    value
        In DICOM's form; "" where it has none without doubt.
    line
        Which line of print holds it: its index.
    """

    text: str
    value: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One field of the record beside the page."""

    field: str  # of `StudyContext`
    recorded: str
    printed: Printed | None
    differs: bool  # both are known, and not alike


def lines_of(geometry: bytes) -> tuple[TextLine, ...]:
    """Return the lines of print that were kept with a page's geometry."""
    kept = json.loads(geometry).get("text", ())
    names = ("x0_mm", "y0_mm", "x1_mm", "y1_mm")
    return tuple(
        TextLine(text=line["text"], score=line["score"], **dict(zip(names, line["mm"], strict=True))) for line in kept
    )


def compare(lines: Sequence[TextLine], context: StudyContext, prior_patient_ids: Sequence[str] = ()) -> list[Compared]:
    """Return the fields that tell patients apart, each as it is recorded and as it is printed."""
    found = {
        "patient_id": _number(lines, "patient_id"),
        "patient_name": _name(lines),
        "patient_birth_date": _birth_date(lines),
        "accession_number": _number(lines, "accession_number"),
    }
    compared = []
    for field, printed in found.items():
        recorded = getattr(context, field)
        known = (recorded, *prior_patient_ids) if field == "patient_id" else (recorded,)
        seen = "" if printed is None else printed.value or printed.text
        differs = bool(recorded and seen) and not any(agrees(field, seen, one) for one in known)
        compared.append(Compared(field=field, recorded=recorded, printed=printed, differs=differs))
    return compared


def line_of_date(lines: Sequence[TextLine], day: str) -> int | None:
    """Return which line of print has a date, a DA, that is no birth date; None where none has."""
    return next((number for number, line in enumerate(lines) if day in _dates(_BIRTH.split(line.text)[0])), None)


def _number(lines: Sequence[TextLine], field: str) -> Printed | None:
    for number, text in labelled(lines, field):
        found = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", text)
        if found and re.search(r"\d", found[0]):
            return Printed(text=found[0], value=found[0], line=number)
    return None


def _name(lines: Sequence[TextLine]) -> Printed | None:
    for number, text in labelled(lines, "patient_name"):
        family, comma, given = (part.strip() for part in text.partition(","))
        return Printed(text=text, value=f"{family}^{given}" if comma and given else "", line=number)
    return None


def _birth_date(lines: Sequence[TextLine]) -> Printed | None:
    for number, line in enumerate(lines):
        parts = _BIRTH.split(line.text, maxsplit=1)
        for date in _dates(parts[1]) if len(parts) > 1 else ():
            return Printed(text=parts[1].strip(), value=date, line=number)
    return None


def _dates(text: str) -> Iterator[str]:
    """Yield the dates of a text as DA; one whose day may be its month is left out."""
    for pattern in _DATES:
        for found in pattern.finditer(text):
            parts = found.groupdict()
            if "name" in parts:
                parts["m"] = str(_MONTHS.index(parts["name"].lower()) + 1) if parts["name"].lower() in _MONTHS else "0"
            if "a" in parts:
                a, b = int(parts["a"]), int(parts["b"])
                if a <= 12 and b <= 12 and a != b:
                    continue
                parts["d"], parts["m"] = (str(a), str(b)) if a > 12 else (str(b), str(a))
            try:
                date = datetime(int(parts["y"]), int(parts["m"]), int(parts["d"]))
            except ValueError:
                continue
            yield date.strftime("%Y%m%d")
