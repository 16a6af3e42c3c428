"""The rules of identity, one line each: what is known, what the evidence is, what is decided."""

from __future__ import annotations

from dataclasses import replace

import pytest

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
from gateway.identity.decide import combined, decide

ANN = PatientRecord(
    patient_id="P1",
    issuer_of_patient_id="HOSP",
    patient_name="Muster^Ann",
    patient_birth_date="19700101",
    patient_sex="F",
)
BOB = PatientRecord(patient_id="P2", patient_name="Other^Bob")
ORDER = OrderRecord(
    accession_number="A1",
    placer_order_number="ORD1",
    placer_order_issuer="HIS",
    study_instance_uid="2.25.1",
    referring_physician_name="House^Gregory",
)
SCHEDULED = StudyContext(
    accession_number="A1",
    patient_id="P1",
    patient_name="Muster^Ann",
    study_instance_uid="2.25.1",
    study_description="Resting ECG",
    placer_order_number="ORD1",
    referring_physician_name="House^Gregory",
)
NOBODY = StudyContext()


def page(**known: str) -> StudyContext:
    return StudyContext(**known)


def answered(*found: StudyContext, problem: str = "") -> Evidence:
    return Evidence(answer=PeerAnswer(peer="worklist", found=found, problem=problem))


HELD: dict[str, tuple[StudyContext, Evidence, str, bool]] = {
    # what the rule is about: what is known, the evidence, why the job waits, whether it waits for an identity
    "nothing is known": (NOBODY, Evidence(), words.NO_IDENTITY, True),
    "a person states nothing": (NOBODY, Evidence(by_person=True), words.NOT_IN_STATEMENT, True),
    "the order is not known yet": (page(accession_number="A1"), Evidence(), words.NO_ORDER, True),
    "the order was cancelled": (
        page(accession_number="A1"),
        Evidence(order=(replace(ORDER, cancelled=True), ANN)),
        words.CANCELLED,
        True,
    ),
    "the order is for another patient": (
        page(accession_number="A1", patient_id="P2"),
        Evidence(order=(ORDER, ANN), patient=BOB),
        words.OTHER_PATIENT,
        True,
    ),
    "the order's patient has the ID from another issuer": (
        page(accession_number="A1", patient_id="P1", issuer_of_patient_id="CLINIC"),
        Evidence(order=(ORDER, ANN)),
        words.OTHER_PATIENT,
        True,
    ),
    "the order's patient was born on another day": (
        page(accession_number="A1", patient_id="P1", patient_birth_date="19800101"),
        Evidence(order=(ORDER, ANN), patient=ANN),
        words.CONTRADICTION.format("birth date"),
        True,
    ),
    "the record has another sex": (
        page(patient_id="P1", patient_sex="M"),
        Evidence(patient=ANN),
        words.CONTRADICTION.format("sex"),
        True,
    ),
    "the record has another family name": (
        page(patient_id="P1", patient_name="Maiden^Ann"),
        Evidence(patient=ANN),
        words.CONTRADICTION.format("family name"),
        True,
    ),
    "a person contradicts the record": (
        page(),
        Evidence(stated=page(patient_id="P1", patient_sex="M"), by_person=True, patient=ANN),
        words.CONTRADICTION.format("sex"),
        True,
    ),
    "a peer can be asked about an order": (
        page(accession_number="A1"),
        Evidence(lookup=True),
        words.LOOKING_UP,
        True,
    ),
    "a peer can be asked about a patient": (page(patient_id="P1"), Evidence(lookup=True), words.LOOKING_UP, True),
    "a peer is not asked about nobody": (NOBODY, Evidence(lookup=True), words.NO_IDENTITY, True),
    "a peer is not asked where the order was cancelled": (
        page(accession_number="A1"),
        Evidence(lookup=True, order=(replace(ORDER, cancelled=True), ANN)),
        words.CANCELLED,
        True,
    ),
    "an object without patient ID names another person than its order": (
        page(accession_number="A1", patient_name="Other^Bob"),
        Evidence(registered=True, order=(ORDER, ANN)),
        words.CONTRADICTION.format("family name"),
        True,
    ),
    "a page without patient ID has another birth date than its order": (
        page(accession_number="A1", patient_birth_date="19800101"),
        Evidence(order=(ORDER, ANN)),
        words.CONTRADICTION.format("birth date"),
        True,
    ),
    "the patient of the order was kept with an ID that breaks its form": (
        page(accession_number="A1"),
        Evidence(order=(ORDER, replace(ANN, patient_id="P" * 65))),
        words.NO_ORDER,
        True,
    ),
    "a person must review another matter first": (
        page(patient_id="P1"),
        Evidence(contradictions=("two patients on one page",)),
        "two patients on one page",
        False,
    ),
    "the codes contradict each other": (
        NOBODY,
        Evidence(contradictions=(words.SEVERAL_CODES,)),
        words.SEVERAL_CODES,
        True,
    ),
    "codes follow, but the order is not known": (
        page(accession_number="A1"),
        Evidence(codes_follow=True),
        words.NO_ORDER,
        True,
    ),
    "the peer does not answer": (
        page(accession_number="A1"),
        answered(problem="no connection"),
        words.NO_ANSWER.format("worklist", "no connection"),
        True,
    ),
    "the peer does not know the order": (
        page(accession_number="A1"),
        answered(),
        words.NOT_FOUND.format("worklist", "accession number"),
        True,
    ),
    "the peer does not know the patient": (
        page(patient_id="P1"),
        answered(),
        words.NOT_FOUND.format("worklist", "patient ID"),
        True,
    ),
    "the peer knows several patients": (
        page(accession_number="A1"),
        answered(SCHEDULED, SCHEDULED.model_copy(update={"patient_id": "P2"})),
        words.AMBIGUOUS.format("worklist", "accession number"),
        True,
    ),
    "the peer names another patient": (
        page(accession_number="A1", patient_id="P9"),
        answered(SCHEDULED),
        words.OTHER_PATIENT,
        True,
    ),
}


@pytest.mark.parametrize("rule", HELD)
def test_what_is_held(rule: str) -> None:
    context, evidence, reason, unmatched = HELD[rule]
    decision = decide(context, evidence)
    assert (decision.hold_reason, decision.unmatched) == (reason, unmatched)


@pytest.mark.parametrize("rule", HELD)
def test_what_is_held_takes_nothing_from_records(rule: str) -> None:
    context, evidence, _, _ = HELD[rule]
    assert decide(context, evidence).context == combined(context, evidence.stated)


CONTINUES: dict[str, tuple[StudyContext, Evidence, StudyContext]] = {
    # what the rule is about: what is known, the evidence, the identity that is decided
    "a patient without a record": (page(patient_id="P9"), Evidence(), page(patient_id="P9")),
    "a patient without a record, whose order is not known": (
        page(patient_id="P9", accession_number="A9"),
        Evidence(),
        page(patient_id="P9", accession_number="A9"),
    ),
    "a patient with a record": (
        page(patient_id="P1"),
        Evidence(patient=ANN),
        page(**{name: getattr(ANN, name) for name in DEMOGRAPHICS}),
    ),
    "a patient who was merged": (
        page(patient_id="P0"),
        Evidence(patient=ANN),
        page(**{name: getattr(ANN, name) for name in DEMOGRAPHICS}),
    ),
    "another given name of the same family": (
        page(patient_id="P1", patient_name="MUSTER^A"),
        Evidence(patient=ANN),
        page(**{name: getattr(ANN, name) for name in DEMOGRAPHICS} | {"patient_name": "MUSTER^A"}),
    ),
    "an older name that a system gave": (
        page(patient_id="P1", patient_name="Maiden^Ann", patient_sex="O"),
        Evidence(patient=ANN, registered=True),
        page(
            patient_id="P1",
            issuer_of_patient_id="HOSP",
            patient_name="Maiden^Ann",
            patient_birth_date="19700101",
            patient_sex="O",
        ),
    ),
    "an order gives its patient and its numbers": (
        page(accession_number="A1"),
        Evidence(order=(ORDER, BOB)),
        page(
            accession_number="A1",
            patient_id="P2",
            patient_name="Other^Bob",
            placer_order_number="ORD1",
            placer_order_issuer="HIS",
            study_instance_uid="2.25.1",
            referring_physician_name="House^Gregory",
        ),
    ),
    "an object without patient ID gets the patient of its order": (
        page(accession_number="A1", patient_name="MUSTER^A"),
        Evidence(registered=True, order=(OrderRecord(accession_number="A1"), ANN)),
        page(
            accession_number="A1",
            **{name: getattr(ANN, name) for name in DEMOGRAPHICS} | {"patient_name": "MUSTER^A"},
        ),
    ),
    "an order known by another number keeps the page's own": (
        page(accession_number="ORD1", placer_order_number="X7", study_instance_uid="2.25.9"),
        Evidence(order=(ORDER, BOB)),
        page(
            accession_number="ORD1",
            patient_id="P2",
            patient_name="Other^Bob",
            placer_order_number="X7",
            study_instance_uid="2.25.9",
            referring_physician_name="House^Gregory",
        ),
    ),
    "a patient ID from before a merge fits the order": (
        page(accession_number="A1", patient_id="P0"),
        Evidence(order=(replace(ORDER, placer_order_number="", placer_order_issuer=""), BOB), patient=BOB),
        page(
            accession_number="A1",
            patient_id="P2",
            patient_name="Other^Bob",
            study_instance_uid="2.25.1",
            referring_physician_name="House^Gregory",
        ),
    ),
    "codes follow": (NOBODY, Evidence(codes_follow=True), NOBODY),
    "a peer can be asked, but the name is known": (
        page(patient_id="P1", patient_name="A^B"),
        Evidence(lookup=True),
        page(patient_id="P1", patient_name="A^B"),
    ),
    "a code states the patient": (
        page(study_id="7"),
        Evidence(stated=page(patient_id="P2"), patient=BOB),
        page(study_id="7", patient_id="P2", patient_name="Other^Bob"),
    ),
    "a person states another patient": (
        page(patient_id="P1", patient_name="Muster^Ann", patient_sex="F", accession_number="A1"),
        Evidence(stated=page(patient_id="P2"), by_person=True, patient=BOB),
        page(patient_id="P2", patient_name="Other^Bob", accession_number="A1"),
    ),
    "a person states what was missing": (
        page(patient_id="P9", patient_sex="F"),
        Evidence(stated=page(patient_name="A^B"), by_person=True),
        page(patient_id="P9", patient_sex="F", patient_name="A^B"),
    ),
    "the peer knows the order": (page(accession_number="A1"), answered(SCHEDULED), SCHEDULED),
    "the peer knows the order in several studies": (
        page(accession_number="A1"),
        answered(SCHEDULED, SCHEDULED.model_copy(update={"study_instance_uid": "2.25.2"})),
        SCHEDULED.model_copy(update={"study_instance_uid": "", "study_description": ""}),
    ),
    "the peer knows the patient, and no order follows": (
        page(patient_id="P1"),
        answered(SCHEDULED),
        page(patient_id="P1", patient_name="Muster^Ann"),
    ),
    "the patient was merged into another": (
        page(patient_id="P1", issuer_of_patient_id="HOSP", patient_name="Muster^Ann", patient_sex="F"),
        Evidence(merged_into=BOB),
        page(patient_id="P2", patient_name="Other^Bob", patient_sex="F"),
    ),
}


@pytest.mark.parametrize("rule", CONTINUES)
def test_what_continues(rule: str) -> None:
    context, evidence, identity = CONTINUES[rule]
    assert decide(context, evidence) == Decision(context=identity)


def test_a_context_of_another_patient_keeps_nothing_of_its_patient() -> None:
    known = page(patient_id="P1", patient_name="A^B", patient_birth_date="19700101", study_id="7")
    assert combined(known, page(patient_id="P2")) == page(patient_id="P2", study_id="7")
    assert combined(known, page(patient_sex="F")) == known.model_copy(update={"patient_sex": "F"})


def test_an_issuer_that_is_not_named_may_be_any() -> None:
    assert same_issuer("", "HOSP") and same_issuer("HOSP", "") and same_issuer("HOSP", "HOSP")
    assert not same_issuer("HOSP", "CLINIC")
