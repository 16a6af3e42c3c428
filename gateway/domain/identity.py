"""What is known about the identity of an ECG, and what was decided from it.

`gateway.identity` collects `Evidence` and makes a `Decision` of it; the store applies the decision to a job.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields

from gateway.domain.context import StudyContext


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientRecord:
    """A patient as HL7 messages or a peer describe one; fields in DICOM form, "" = not known."""

    patient_id: str
    issuer_of_patient_id: str = ""
    patient_name: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""

    @property
    def identity(self) -> tuple[str, str]:
        """Patient ID and its issuer."""
        return self.patient_id, self.issuer_of_patient_id


DEMOGRAPHICS = tuple(each.name for each in fields(PatientRecord))  # the fields of a context that describe a patient


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRecord:
    """An order as HL7 messages or a peer describe one; "" = not known."""

    placer_order_number: str = ""
    placer_order_issuer: str = ""
    filler_order_number: str = ""
    filler_order_issuer: str = ""
    accession_number: str = ""
    study_instance_uid: str = ""  # the study that the result of the order belongs to
    description: str = ""
    referring_physician_name: str = ""
    cancelled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAnswer:
    """What a worklist or an archive answered to the question about one page.

    Parameters
    ----------
    peer
        "worklist" or "archive".
    found
        Its matches, all under the number that was asked for.
    problem
        Why there is no answer; "" where there is one.
    """

    peer: str
    found: tuple[StudyContext, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything besides the context that decides the identity of an ECG.

    Parameters
    ----------
    stated
        What a person, or a code on the page, states; it comes before the context.
    by_person
        A person made the statement.
    order
        The order with the accession number of the page, and its patient; None where there is none, or several.
    patient
        The record of the page's patient ID, or the record it was merged into; None where there is none, or several.
    answer
        What a worklist or an archive answered; the context is completed from it and from no other record.
    merged_into
        The record that replaces the patient of the context, after a merge.
    registered
        A system, not a person, gave the identity (a DICOM object): with its patient ID, its name and dates may be older
        than those of the record, and are no contradiction.
    lookup
        A worklist or an archive can be asked about the page.
    codes_follow
        The worker will look for codes on the page.
    contradictions
        Other reasons why a person must review the job first.
    """

    stated: StudyContext = field(default_factory=StudyContext)
    by_person: bool = False
    order: tuple[OrderRecord, PatientRecord] | None = None
    patient: PatientRecord | None = None
    answer: PeerAnswer | None = None
    merged_into: PatientRecord | None = None
    registered: bool = False
    lookup: bool = False
    codes_follow: bool = False
    contradictions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The identity of an ECG as far as it is known, and why the job must wait.

    Parameters
    ----------
    hold_reason
        Why the job waits, without patient data; "" where it continues.
    unmatched
        The job waits for an order, a peer or a person to give the identity.
    """

    context: StudyContext
    hold_reason: str = ""
    unmatched: bool = False


Decide = Callable[[StudyContext, Evidence], Decision]


def same_issuer(one: str, other: str) -> bool:
    """Return whether two issuers may be the same: an issuer that is not named may be any."""
    return not one or not other or one == other
