"""The record beside the print of a page: whose ECG it is, and when it was recorded."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.domain.artefact import Role, kept_name
from gateway.domain.context import StudyContext
from gateway.domain.recorded import Origin, believable, recorded
from gateway.errors import IllegalTransition, IntakeError
from gateway.identity.printed import Compared, compare, line_of_date, lines_of
from gateway.results.confirmation import known_context
from gateway.results.kept import read_printed
from gateway.store.tables import Job
from gateway.web.pages.words import person_name
from gateway.web.site import Site

_NAMES = {
    "patient_id": "Patient ID",
    "patient_name": "Name",
    "patient_birth_date": "Birth date",
    "accession_number": "Accession",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One field, as it is recorded and as it is printed."""

    field: str
    name: str
    recorded: str
    printed: str
    value: str  # what is printed, in DICOM's form or as it was read
    line: int | None
    differs: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientPart:
    """What the workbench shows of the patient."""

    rows: tuple[Row, ...]
    date: str  # of the recording: YYYY-MM-DD, "" where nobody knows it
    time: str  # HH:MM:SS
    date_source: str
    date_line: int | None


def patient_part(site: Site, job: Job, number: int) -> PatientPart:
    """Return the record beside what a page prints."""
    context = context_of(site, job)
    geometry = site.spool.read(job.id, kept_name(number, Role.GEOMETRY))
    lines = lines_of(geometry) if geometry is not None else ()
    prior = site.store.patients.prior_ids(context.patient_id, context.issuer_of_patient_id)
    row = next((each for each in site.store.jobs.pages(job.id) if each.page_number == number), None)
    printed = read_printed(row.quality_json if row else "{}")
    found = recorded(context, believable(printed, context, job.created_at))
    at = found.at if found.origin in (Origin.STATED, Origin.PRINTED) else ""
    return PatientPart(
        rows=tuple(_row(each) for each in compare(lines, context, prior)),
        date=_dashed(at[:8]) if len(at) >= 8 else "",
        time=":".join((at[8:10], at[10:12], at[12:14] or "00")) if len(at) >= 12 else "",
        date_source=found.words if at else "",
        date_line=line_of_date(lines, f"{printed.recorded_on:%Y%m%d}") if printed.recorded_on else None,
    )


def context_of(site: Site, job: Job) -> StudyContext:
    """Return the identity of a job as far as it is known."""
    try:
        return known_context(job, site.spool)
    except (IllegalTransition, IntakeError):  # the object is gone, or cannot be read
        return job.context


def _row(each: Compared) -> Row:
    printed = each.printed
    return Row(
        field=each.field,
        name=_NAMES[each.field],
        recorded=_shown(each.field, each.recorded),
        printed="" if printed is None else printed.text,
        value="" if printed is None else printed.value or printed.text,
        line=None if printed is None else printed.line,
        differs=each.differs,
    )


def _shown(field: str, value: str) -> str:
    """Return a value of the record as people read it."""
    if field == "patient_name":
        return person_name(value)
    return _dashed(value) if field == "patient_birth_date" else value


def _dashed(date: str) -> str:
    return f"{date[:4]}-{date[4:6]}-{date[6:8]}" if len(date) == 8 else date
