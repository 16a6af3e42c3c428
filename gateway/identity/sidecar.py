"""Whose ECG it is: from a sidecar JSON, a file's name, a code or a person, in the forms DICOM wants, never guessed.

A sidecar's keys and a pattern's named groups are the fields of `StudyContext`; an unknown one is an error.  What
breaks the value representation of its attribute (PS3.5 section 6.2) is refused here, where somebody can mend it,
and not when the waveform is encoded.  Messages name the field and its rule, never the value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from pydantic import ValidationError

from gateway.dicom.objects.uids import is_uid
from gateway.dicom.objects.values import is_date, is_date_time, is_offset, is_time
from gateway.domain.context import StudyContext
from gateway.errors import IntakeError, SettingsError
from gateway.identity.orders import identified
from gateway.store.store import Store

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


def read_sidecar(data: bytes) -> StudyContext:
    """Return the identity a sidecar file states.

    Raises
    ------
    IntakeError
        It is no JSON object of `StudyContext` fields, or a value breaks its form; every breach is named.
    """
    try:
        context = StudyContext.model_validate_json(data.removeprefix(b"\xef\xbb\xbf"))
    except ValidationError as error:
        breaches = "; ".join(
            f"{'.'.join(str(part) for part in breach['loc']) or 'file'}: {breach['msg']}" for breach in error.errors()
        )
        raise IntakeError(f"the sidecar cannot be used: {breaches}") from None
    return check_context(context, "the sidecar")


def read_filename(pattern: re.Pattern[str], stem: str) -> StudyContext | None:
    """Return the identity a file's name states (`stem`: without its extension); None where `pattern` does not fit.

    Raises
    ------
    IntakeError
        A value breaks its form.
    """
    match = pattern.fullmatch(stem)
    if match is None:
        return None
    fields = {name: value for name, value in match.groupdict().items() if value is not None}
    return check_context(StudyContext(**fields), "the file's name")


def read_codes_told(pattern: re.Pattern[str], codes: Iterable[str]) -> StudyContext:
    """Return the identity that the codes on the pages of one file state together; an empty one where none fits.

    Raises
    ------
    IntakeError
        A value breaks its form, or two codes state different things.
    """
    told: dict[str, str] = {}
    for code in codes:
        found = pattern.fullmatch(code)
        for name, value in found.groupdict().items() if found else ():
            if value is not None and told.setdefault(name, value) != value:
                raise IntakeError("the codes on the pages name different patients or orders")
    return check_context(StudyContext(**told), "the code on the page")


def identify(store: Store, job_id: str, told: StudyContext, actor: str) -> None:
    """Say whose ECG a held job is, and queue it again.

    Parameters
    ----------
    told
        What a person says; what it leaves empty stays as it was, or comes from the patient's record or the order.

    Raises
    ------
    NotFound
        There is no such job.
    IntakeError
        A value breaks its form, nobody is named, or the patient's record or the order contradicts it.
    IllegalTransition
        The job runs, waits in the queue, or has ended well.
    """
    check_context(told, "what was told")
    before = store.jobs.get(job_id).context
    context, contradiction = identified(before, told, store.patients)
    if contradiction or not context.patient_id:
        raise IntakeError(contradiction or "no patient ID")
    store.jobs.identify(job_id, context, actor)


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Compile a pattern of the settings; raise SettingsError for a group that is no field of `StudyContext`."""
    compiled = re.compile(pattern)
    unknown = sorted(set(compiled.groupindex) - set(StudyContext.model_fields))
    if unknown:
        raise SettingsError(f"the pattern {pattern!r} has unknown groups {unknown}")
    return compiled


def check_context(context: StudyContext, origin: str) -> StudyContext:
    """Return a context whose every value has the form of its attribute; raise IntakeError, naming each that has not."""
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
