"""What a person, a sidecar, a file's name or a code says must have DICOM's forms.

Messages name the field and its rule (`gateway.dicom.objects.forms`), never the value.
"""

from __future__ import annotations

from gateway.dicom.objects.forms import broken_rule
from gateway.domain.context import StudyContext
from gateway.errors import IntakeError

PATIENT_FIELDS = (  # of a `StudyContext` that a person states with a page
    "patient_id",
    "issuer_of_patient_id",
    "patient_name",
    "patient_birth_date",
    "patient_sex",
    "accession_number",
)


def check_context(context: StudyContext, origin: str) -> StudyContext:
    """Return the context if every value has its attribute's form; else raise IntakeError, which names each breach."""
    breaches = [f"{field} must be {rule}" for field, value in context if (rule := broken_rule(field, value))]
    if breaches:
        raise IntakeError(f"{origin} cannot be used: {'; '.join(breaches)}")
    return context
