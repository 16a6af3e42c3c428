"""The forms that DICOM wants of the fields of a context (PS3.5 section 6.2).

A value that breaks its value representation is refused where it arrives, where somebody can correct it, and not when
the waveform is encoded.  Messages name the field and its rule, never the value.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from gateway.dicom.objects.uids import is_uid
from gateway.dicom.objects.values import is_date, is_date_time, is_offset, is_time
from gateway.domain.context import StudyContext
from gateway.errors import IntakeError, SettingsError

_TEXT = r"[^\\\x00-\x1f\x7f]"

_FORMS: dict[str, tuple[Callable[[str], bool], str]] = {  # field -> form of its value, rule in words
    "patient_birth_date": (is_date, "a date YYYYMMDD"),
    "study_date": (is_date, "a date YYYYMMDD"),
    "study_time": (is_time, "a time HHMMSS"),
    "acquisition_date_time": (is_date_time, "a date-time YYYYMMDDHHMMSS"),
    "timezone_offset_from_utc": (is_offset, "an offset like +0100"),
}
_PATTERNS = {  # field -> pattern of its value, rule in words
    "patient_sex": ("[MFO]", "M, F or O"),
    "patient_name": (rf"{_TEXT}{{1,194}}", "a name like Family^Given of at most 194 characters"),
    "referring_physician_name": (rf"{_TEXT}{{1,194}}", "a name like Family^Given of at most 194 characters"),
    "accession_number": (rf"{_TEXT}{{1,16}}", "at most 16 characters without backslash"),
    "study_id": (rf"{_TEXT}{{1,16}}", "at most 16 characters without backslash"),
    "request_attributes_json": (r"\[.*\]", "a JSON array"),
}
_OTHER = (rf"{_TEXT}{{1,64}}", "at most 64 characters without backslash")


def check_context(context: StudyContext, origin: str) -> StudyContext:
    """Return the context if every value has its attribute's form; else raise IntakeError, which names each breach."""
    breaches: list[str] = []
    for field, value in context:
        if field.endswith("_uid"):
            fits, rule = is_uid(value), "a UID"
        elif field in _FORMS:
            form, rule = _FORMS[field]
            fits = form(value)
        else:
            pattern, rule = _PATTERNS.get(field, _OTHER)
            fits = re.fullmatch(pattern, value, re.DOTALL) is not None
        if value and not fits:
            breaches.append(f"{field} must be {rule}")
    if breaches:
        raise IntakeError(f"{origin} cannot be used: {'; '.join(breaches)}")
    return context


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Compile a pattern of the settings; raise SettingsError for a group that is no field of `StudyContext`."""
    compiled = re.compile(pattern)
    unknown = sorted(set(compiled.groupindex) - set(StudyContext.model_fields))
    if unknown:
        raise SettingsError(f"the pattern {pattern!r} has unknown groups {unknown}")
    return compiled
