"""The forms that DICOM wants of the fields of a context (PS3.5 section 6.2).

A value that breaks its value representation is refused where it arrives, where somebody can correct it, and not when
the waveform is encoded.  Rules are in words and never hold the value.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from gateway.dicom.objects.uids import is_uid
from gateway.dicom.objects.values import is_date, is_date_time, is_offset, is_time

_TEXT = r"[^\\\x00-\x1f\x7f]"
_GROUP = r"[^\\=\x00-\x1f\x7f]"  # of a PN: alphabetic, ideographic or phonetic
_CLEAN = "without backslash and control characters"
_NAME = (
    rf"{_GROUP}{{0,64}}(={_GROUP}{{0,64}}){{0,2}}",
    f"a DICOM name of at most 64 characters a group {_CLEAN}",
)

_FORMS: dict[str, tuple[Callable[[str], bool], str]] = {  # field -> form of its value, rule in words
    "patient_birth_date": (is_date, "a date YYYYMMDD"),
    "study_date": (is_date, "a date YYYYMMDD"),
    "study_time": (is_time, "a time HHMMSS"),
    "acquisition_date_time": (is_date_time, "a date-time YYYYMMDDHHMMSS"),
    "timezone_offset_from_utc": (is_offset, "an offset like +0100"),
}
_PATTERNS = {  # field -> pattern of its value, rule in words
    "patient_sex": ("[MFO]", "M, F or O"),
    "patient_name": _NAME,
    "referring_physician_name": _NAME,
    "accession_number": (rf"{_TEXT}{{1,16}}", f"at most 16 characters {_CLEAN}"),
    "study_id": (rf"{_TEXT}{{1,16}}", f"at most 16 characters {_CLEAN}"),
    "request_attributes_json": (r"\[.*\]", "a JSON array"),
}
_OTHER = (rf"{_TEXT}{{1,64}}", f"at most 64 characters {_CLEAN}")


def broken_rule(field: str, value: str) -> str:
    """Return the rule that a value of a field of `StudyContext` breaks, in words; "" where it breaks none."""
    if not value:
        return ""
    if field.endswith("_uid"):
        fits, rule = is_uid(value), "a UID"
    elif field in _FORMS:
        form, rule = _FORMS[field]
        fits = form(value)
    else:
        pattern, rule = _PATTERNS.get(field, _OTHER)
        fits = re.fullmatch(pattern, value, re.DOTALL) is not None
    return "" if fits else rule
