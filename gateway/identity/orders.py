"""The orders and patients that HL7 messages described: searched for a page, and kept when a message arrives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from gateway.domain.context import StudyContext
from gateway.domain.identity import Evidence, OrderRecord, PatientRecord
from gateway.domain.patients import PatientData
from gateway.domain.received import InboundMessage
from gateway.identity.decide import combined, decide
from gateway.store.store import Store


class Directory(Protocol):
    """Where patients and orders are searched."""

    def patient(self, patient_id: str, issuer: str = "") -> PatientRecord | None:
        """Return the record of a patient ID, or the one it was merged into."""
        ...

    def order(self, number: str) -> tuple[OrderRecord, PatientRecord] | None:
        """Return the order with this number, and its patient."""
        ...


def search(directory: Directory, context: StudyContext, evidence: Evidence | None = None) -> Evidence:
    """Return evidence with the order and the patient record that a directory has for a context.

    Parameters
    ----------
    evidence
        What else is known; what it states about the context counts in the search.
    """
    evidence = evidence or Evidence()
    context = combined(context, evidence.stated)
    order = directory.order(context.accession_number) if context.accession_number else None
    patient = directory.patient(context.patient_id, context.issuer_of_patient_id) if context.patient_id else None
    return replace(evidence, order=order, patient=patient)


class Records:
    """Keeps what HL7 messages say: the receiver of messages calls it.

    A message, its answer, the records it changes and the decisions about jobs that follow from it are committed
    together.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def answer_to(self, message: InboundMessage) -> bytes | None:
        """Return what a message was answered that was received before; None where it is new."""
        return self._store.patients.answer_to(message)

    def is_outdated(self, updates: Sequence[PatientData], made_at: datetime) -> bool:
        """Return whether a newer message said otherwise: then that stands."""
        return self._store.patients.is_outdated(updates, made_at)

    def receive(self, message: InboundMessage, updates: Sequence[PatientData], made_at: datetime) -> list[str]:
        """Keep a message and do what it says; return the jobs that changed.

        Raises
        ------
        StorageError
            Nothing is kept.
        """
        return self._store.patients.receive(message, updates, made_at, decide)

    def match_waiting(self) -> list[str]:
        """Decide again about the jobs that wait for an order that is known; return their ids.

        Raises
        ------
        StorageError
            Nothing is changed.
        """
        return self._store.patients.match_waiting(decide)
