"""The identity of an ECG: one pure decision from a context and the evidence about it.

Orders, patient records, peers and persons complete what came with a page, or contradict it.  A page that names an
order gets the order's patient; a page that names a patient gets the rest of the patient's record.  Where two sources
disagree nothing is guessed: the job waits for a person.
"""

from __future__ import annotations

from dataclasses import replace

from gateway.dicom.objects.forms import broken_rule
from gateway.domain.context import StudyContext
from gateway.domain.identity import (
    DEMOGRAPHICS,
    Decision,
    Evidence,
    OrderRecord,
    PatientRecord,
    PeerAnswer,
    same_issuer,
)
from gateway.identity import words

_NUMBERS = ("placer_order_number", "placer_order_issuer", "filler_order_number", "filler_order_issuer")
_STUDY = ("study_instance_uid", "study_date", "study_time", "study_id", "study_description")
_REQUEST = (*_NUMBERS, "referring_physician_name", "request_attributes_json")

_Known = tuple[StudyContext, str]  # the context as far as it is known, and what contradicts it ("" = nothing)


def decide(context: StudyContext, evidence: Evidence) -> Decision:
    """Return the identity of an ECG, and why its job must wait.

    Parameters
    ----------
    context
        What is known before.
    evidence
        What else is known; `gateway.identity.orders.search` adds what the store knows.

    Notes
    -----
    Of a record that was kept before values were checked at the door, nothing is believed that DICOM forbids: what it
    would break waits for a person, whom it does not contradict.
    """
    if evidence.merged_into is not None:
        return Decision(context=_with_surviving(context, evidence.merged_into))
    stated = combined(context, evidence.stated)
    if evidence.answer is not None:
        known, contradiction = _by_peer(stated, evidence.answer)
    else:
        known, contradiction = _by_records(stated, evidence)
    missing = _missing(known, contradiction, evidence)
    hold_reason = "; ".join(evidence.contradictions) or missing
    return Decision(context=known, hold_reason=hold_reason, unmatched=bool(missing))


def combined(context: StudyContext, stated: StudyContext) -> StudyContext:
    """Return a context with what is stated about it; what the statement leaves empty stays.

    Where the two name different patients, nothing that the context says about its patient is kept.
    """
    if context.patient_id and stated.patient_id and context.patient_id != stated.patient_id:
        context = context.model_copy(update=dict.fromkeys(DEMOGRAPHICS, ""))
    return context.model_copy(update=stated.model_dump(exclude_defaults=True))


def _missing(context: StudyContext, contradiction: str, evidence: Evidence) -> str:
    """Return why the job waits until somebody gives its identity; "" where it need not."""
    named = bool(context.accession_number or context.patient_id)
    if evidence.codes_follow and not named:
        return ""
    if evidence.lookup and named and not context.patient_name and contradiction in ("", words.NO_ORDER):
        return words.LOOKING_UP
    if contradiction or context.patient_id:
        return contradiction
    return words.NOT_IN_STATEMENT if evidence.by_person else words.NO_IDENTITY


# -- from the orders and patients that HL7 messages described ----------------------------------------------------------


def _by_records(context: StudyContext, evidence: Evidence) -> _Known:
    """Complete the context; a patient or an order that is not known is no contradiction."""
    order, of_order = evidence.order or (None, None)
    of_order, patient = _usable(of_order), _usable(evidence.patient)
    if order is not None and of_order is not None:
        return _by_order(context, order, of_order, replace(evidence, patient=patient))
    if not context.patient_id:
        return context, words.NO_ORDER if context.accession_number else ""
    if patient is None:
        return context, ""
    return _by_patient(context, patient, registered=evidence.registered)


def _usable(record: PatientRecord | None) -> PatientRecord | None:
    """Return a record without the values that break their form; None where that is its patient ID."""
    if record is None or broken_rule("patient_id", record.patient_id):
        return None
    broken = [field for field in DEMOGRAPHICS if broken_rule(field, getattr(record, field))]
    return replace(record, **dict.fromkeys(broken, ""))


def _by_order(context: StudyContext, order: OrderRecord, patient: PatientRecord, evidence: Evidence) -> _Known:
    if order.cancelled:
        return context, words.CANCELLED
    if context.patient_id and not _names(context, patient):
        named = evidence.patient  # by a patient ID from before a merge
        if named is None or named.identity != patient.identity:
            return context, words.OTHER_PATIENT
    registered = evidence.registered and bool(context.patient_id)  # else the name is all that can contradict the number
    known, contradiction = _by_patient(context, patient, registered=registered)
    return (known, contradiction) if contradiction else (_with_order(context, order, patient), "")


def _names(context: StudyContext, patient: PatientRecord) -> bool:
    same = same_issuer(context.issuer_of_patient_id, patient.issuer_of_patient_id)
    return context.patient_id == patient.patient_id and same


def _by_patient(context: StudyContext, patient: PatientRecord, *, registered: bool) -> _Known:
    """Complete the context from the record, or say what contradicts it."""
    pairs = (
        ("birth date", context.patient_birth_date, patient.patient_birth_date),
        ("sex", context.patient_sex, patient.patient_sex),
        ("family name", _family_name(context.patient_name), _family_name(patient.patient_name)),
    )
    for what, stated, recorded in pairs:
        if stated and recorded and stated != recorded and not registered:
            return context, words.CONTRADICTION.format(what)
    return _with_patient(context, patient), ""


def _family_name(name: str) -> str:
    return name.split("=")[0].split("^")[0].strip().casefold()


def _with_order(context: StudyContext, order: OrderRecord, patient: PatientRecord) -> StudyContext:
    """Return the context with the order's patient and numbers; what the page names itself stays."""
    names = ["accession_number", "referring_physician_name", "study_instance_uid"]
    for role in ("placer", "filler"):
        number = getattr(context, f"{role}_order_number")
        if number in ("", getattr(order, f"{role}_order_number")):  # an issuer is the issuer of its own number
            names += [f"{role}_order_number", f"{role}_order_issuer"]
    missing = {name: value for name in names if (value := getattr(order, name)) and not getattr(context, name)}
    return _with_patient(context.model_copy(update=missing), patient)


def _with_patient(context: StudyContext, patient: PatientRecord) -> StudyContext:
    identity = {"patient_id": patient.patient_id, "issuer_of_patient_id": patient.issuer_of_patient_id}
    for name in ("patient_name", "patient_birth_date", "patient_sex"):
        if not getattr(context, name):
            identity[name] = getattr(patient, name)
    return context.model_copy(update={name: value for name, value in identity.items() if value})


def _with_surviving(context: StudyContext, patient: PatientRecord) -> StudyContext:
    """Return the context with the identity of the record that its patient was merged into."""
    demographics = {name: getattr(patient, name) or getattr(context, name) for name in DEMOGRAPHICS}
    identity = {"patient_id": patient.patient_id, "issuer_of_patient_id": patient.issuer_of_patient_id}
    return context.model_copy(update=demographics | identity)


# -- from the answer of a worklist or an archive -----------------------------------------------------------------------


def _by_peer(context: StudyContext, answer: PeerAnswer) -> _Known:
    """Complete the context from a peer's answer.

    Notes
    -----
    Only an accession number leads to a study: if only the patient ID is known, the rest of the patient's record is
    used, but no order and no study, because nothing says which of them the page belongs to.
    """
    if answer.problem:
        return context, words.NO_ANSWER.format(answer.peer, answer.problem)
    number = "accession number" if context.accession_number else "patient ID"
    if not answer.found:
        return context, words.NOT_FOUND.format(answer.peer, number)
    if len({(one.patient_id, one.issuer_of_patient_id) for one in answer.found}) > 1:
        return context, words.AMBIGUOUS.format(answer.peer, number)
    first = answer.found[0]
    known, contradiction = _by_records(context, _records_of(first, context))
    if contradiction or not context.accession_number:
        return known, contradiction
    names = list(_REQUEST if len(answer.found) == 1 else ())
    if len({one.study_instance_uid for one in answer.found}) == 1:
        names += _STUDY
    missing = {name: value for name in names if (value := getattr(first, name)) and not getattr(context, name)}
    return known.model_copy(update=missing), ""


def _records_of(found: StudyContext, context: StudyContext) -> Evidence:
    """Return one match of a peer as the order and the patient record of a context."""
    patient = PatientRecord(**{name: getattr(found, name) for name in DEMOGRAPHICS})
    names = ("accession_number", *_NUMBERS, "referring_physician_name")
    order = OrderRecord(**{name: getattr(found, name) for name in names})
    return Evidence(
        order=(order, patient) if context.accession_number else None,
        patient=patient if context.patient_id == patient.patient_id else None,
    )
