"""Whose ECG it is, looked up: an order or a patient record completes what came with a page, or contradicts it.

A page that names an order gets the order's patient; one that names a patient gets the rest of the record.  Where the
two disagree nothing is guessed: the job waits for a person.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from gateway.domain.context import StudyContext
from gateway.store.tables import Order, Patient

NO_ORDER = "no order has this accession number yet: it goes on when one arrives, or when a person says whose it is"
CANCELLED = "the order with this accession number was cancelled"
OTHER_PATIENT = "the order with this accession number is for another patient than the page names"
CONTRADICTION = "the patient's record has another {} than the page names"


DEMOGRAPHICS = ("patient_id", "issuer_of_patient_id", "patient_name", "patient_birth_date", "patient_sex")


NO_IDENTITY = "nothing says whose ECG this is: there is no patient_id"
LOOKING_UP = "whose ECG this is, is being looked up"


class Match(NamedTuple):
    """What is known after the look-up, and why a person must look ("" = no reason)."""

    context: StudyContext
    hold_reason: str


class Directory(Protocol):
    """Where patients and orders are looked up."""

    def patient(self, patient_id: str, issuer: str = "") -> Patient | None:
        """Return the record of a patient ID, or the one it was merged into."""
        ...

    def order(self, number: str) -> tuple[Order, Patient] | None:
        """Return the order with this number, and its patient."""
        ...


def match(context: StudyContext, directory: Directory, *, registered: bool = False) -> Match:
    """Complete what is known of a page from the orders and patients that HL7 messages told.

    Without any such message the context comes back as it is; a patient or an order that is not known is no
    contradiction.  Reasons hold no patient data.

    Parameters
    ----------
    registered
        A system, not a person, said whose the page is (a DICOM object): its name and dates may be older than the
        record's, and are no contradiction.
    """
    found = directory.order(context.accession_number) if context.accession_number else None
    if found is not None:
        return _match_order(context, *found, directory, registered)
    if not context.patient_id:
        return Match(context, NO_ORDER if context.accession_number else "")
    patient = directory.patient(context.patient_id, context.issuer_of_patient_id)
    return Match(context, "") if patient is None else _match_patient(context, patient, registered)


def unmatched_reason(matched: Match, *, lookup: bool) -> str:
    """Return why a page must wait until somebody says whose it is; "" where that is known.

    Parameters
    ----------
    lookup
        There is a peer to ask: a patient of whom only the number is known waits for its answer.
    """
    context = matched.context
    if lookup and matched.hold_reason in ("", NO_ORDER) and not context.patient_name:
        if context.accession_number or context.patient_id:
            return LOOKING_UP
    return matched.hold_reason or ("" if context.patient_id else NO_IDENTITY)


def with_order(context: StudyContext, order: Order, patient: Patient) -> StudyContext:
    """Return the context with the order's patient and numbers; what the page names itself stays."""
    names = ["accession_number", "referring_physician_name", "study_instance_uid"]
    for role in ("placer", "filler"):
        number = getattr(context, f"{role}_order_number")
        if number in ("", getattr(order, f"{role}_order_number")):  # an issuer is that of its own number
            names += [f"{role}_order_number", f"{role}_order_issuer"]
    missing = {name: value for name in names if (value := getattr(order, name)) and not getattr(context, name)}
    return _with_patient(context.model_copy(update=missing), patient)


def with_told(read: StudyContext, told: StudyContext) -> StudyContext:
    """Return what an object says, with what was told about it before it.

    Where the two name different patients, nothing that the object says of its patient is kept.
    """
    if read.patient_id and told.patient_id and read.patient_id != told.patient_id:
        read = read.model_copy(update=dict.fromkeys(DEMOGRAPHICS, ""))
    return read.model_copy(update=told.model_dump(exclude_defaults=True))


def identified(before: StudyContext, told: StudyContext, directory: Directory) -> Match:
    """Return a job's context after a person has said whose it is.

    What `told` leaves empty stays as it was, unless another patient is named: then only the patient's record can add
    to it.
    """
    if before.patient_id and told.patient_id and before.patient_id != told.patient_id:
        before = before.model_copy(update=dict.fromkeys(DEMOGRAPHICS, ""))
    return match(before.model_copy(update=told.model_dump(exclude_defaults=True)), directory)


def same_issuer(one: str, other: str) -> bool:
    """Tell whether two issuers may be the same: one that is not named may be any."""
    return not one or not other or one == other


def _match_order(
    context: StudyContext, order: Order, patient: Patient, directory: Directory, registered: bool
) -> Match:
    if order.cancelled:
        return Match(context, CANCELLED)
    if not context.patient_id:
        return Match(with_order(context, order, patient), "")
    if not _is_named(context, patient):
        named = directory.patient(context.patient_id, context.issuer_of_patient_id)  # by a number of before a merge
        if named is None or (named.patient_id, named.issuer_of_patient_id) != _identity(patient):
            return Match(context, OTHER_PATIENT)
    matched = _match_patient(context, patient, registered)
    return matched if matched.hold_reason else Match(with_order(context, order, patient), "")


def _is_named(context: StudyContext, patient: Patient) -> bool:
    same = same_issuer(context.issuer_of_patient_id, patient.issuer_of_patient_id)
    return context.patient_id == patient.patient_id and same


def _identity(patient: Patient) -> tuple[str, str]:
    return patient.patient_id, patient.issuer_of_patient_id


def _match_patient(context: StudyContext, patient: Patient, registered: bool) -> Match:
    """Complete the context from the record, or say what contradicts it."""
    pairs = (
        ("birth date", context.patient_birth_date, patient.patient_birth_date),
        ("sex", context.patient_sex, patient.patient_sex),
        ("family name", _family_name(context.patient_name), _family_name(patient.patient_name)),
    )
    for what, told, known in pairs:
        if told and known and told != known and not registered:
            return Match(context, CONTRADICTION.format(what))
    return Match(_with_patient(context, patient), "")


def _with_patient(context: StudyContext, patient: Patient) -> StudyContext:
    identity = {"patient_id": patient.patient_id, "issuer_of_patient_id": patient.issuer_of_patient_id}
    for name in ("patient_name", "patient_birth_date", "patient_sex"):
        if not getattr(context, name):
            identity[name] = getattr(patient, name)
    return context.model_copy(update={name: value for name, value in identity.items() if value})


def _family_name(name: str) -> str:
    return name.split("=")[0].split("^")[0].strip().casefold()
