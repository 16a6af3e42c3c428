r"""Fields of an outgoing message: text escaped, DICOM's values in HL7's types."""

from __future__ import annotations

import re
from datetime import datetime

from gateway.domain.digitized_page import DigitizedPage
from gateway.hl7.inbound.parsing import CODECS

_ESCAPES = str.maketrans({"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"})


def escape(text: str) -> str:
    r"""Return text as HL7 data: delimiters as \F\ \S\ \T\ \R\ \E\, control characters (CR, LF, VT, FS...) as spaces.

    HL7 2.5.1 section 2.7.1.
    """
    return re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", text).strip().translate(_ESCAPES)


def segment(name: str, fields: dict[int, str]) -> str:
    """Join numbered fields, already escaped, into a segment; empty ones at its end are left out."""
    return "|".join([name, *(fields.get(number, "") for number in range(1, max(fields) + 1))]).rstrip("|")


def hierarchic(setting: str) -> str:
    """Return an HD from a setting: a name, or name^universal ID^type."""
    return "^".join(escape(part) for part in setting.split("^"))


def entity(number: str, issuer: str) -> str:
    """Return a number and who gave it (namespace^universal ID^type) as an EI; "" where there is no number."""
    parts = [number, *issuer.split("^")[:3]] if number else []
    return "^".join(escape(part) for part in parts).rstrip("^")


def assigning_authority(issuer: str) -> str:
    """Return CX-4 from Issuer of Patient ID: a namespace, or a universal ID where it is too long for one (20)."""
    name = escape(issuer)
    if len(name) <= 20:
        return name
    return f"&{name}&{'ISO' if re.fullmatch('[0-9.]+', name) else 'L'}"


def person_name(name: str, character_set: str) -> str:
    """Return a DICOM PN as XPN: family^given^middle^suffix^prefix; ideographic and phonetic groups as repetitions.

    PN orders prefix before suffix, XPN suffix before prefix.  XPN-8 names the representation (table 0465); one that
    `character_set` (table 0211) cannot write is left out where another says the name.  PID-5 may not be empty: a name
    that is not known is one of type U, unspecified (table 0200).
    """
    repetitions = []
    for group, representation in zip(name.split("="), "AIP", strict=False):
        family, given, middle, prefix, suffix = ([escape(part) for part in group.split("^")] + [""] * 5)[:5]
        parts = [family, given, middle, suffix, prefix]
        if representation != "A":
            parts += ["", "", representation]
        if any(parts[:5]):
            repetitions.append("^".join(parts).rstrip("^"))
    writable = [repetition for repetition in repetitions if can_write(repetition, character_set)]
    return "~".join(writable or repetitions) or "^^^^^^U"


def can_write(text: str, character_set: str) -> bool:
    """Tell whether a character set of HL7 table 0211 has every character of a text."""
    try:
        text.encode(CODECS[character_set])
    except UnicodeEncodeError:
        return False
    return True


def observed_at(page: DigitizedPage) -> str:
    """Return when the ECG was recorded as a TS to the second, "" where nothing says so.

    The zone is the source's; where it states none, none is invented: HL7 then takes that of MSH-7, the machine's own.
    """
    stated = page.recorded.at
    at = instant(stated)
    zone = stated[-5:] if stated[-5:-4] in ("+", "-") else page.context.timezone_offset_from_utc
    return at + zone if len(at) > 8 and re.fullmatch(r"[+-]\d{4}", zone) else at


def instant(text: str) -> str:
    """Return the date and time of a DA or DT to the second, as precise as it is; "" where it is no such instant."""
    digits = re.split(r"[.+-]", text, maxsplit=1)[0]
    if not re.fullmatch("[0-9]+", digits):
        return ""
    try:
        datetime.strptime(digits, "%Y%m%d%H%M%S"[: len(digits) - 2])
    except ValueError:
        return ""
    return digits
