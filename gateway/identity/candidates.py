"""Whose ECG a page may be: what a reviewer finds under a number, among the orders received and at the folder's peer."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.domain.account import User
from gateway.domain.context import StudyContext
from gateway.domain.identity import DEMOGRAPHICS
from gateway.errors import DeliveryError
from gateway.identity.lookup import audited_ask
from gateway.settings import Settings
from gateway.store.store import Store
from gateway.store.tables import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A patient, maybe with an order, and who names them."""

    source: str
    context: StudyContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was found, and which source could not be asked, in words."""

    candidates: tuple[Candidate, ...] = ()
    problems: tuple[str, ...] = ()


def find_candidates(store: Store, settings: Settings, job: Job, number: str, user: User | None = None) -> Found:
    """Return the patients under a patient ID, and under an accession, placer or filler number.

    Parameters
    ----------
    user
        Who searches: named to the audit repository if a peer is asked.
    """
    found: list[Candidate] = []
    problems: list[str] = []
    if (patient := store.patients.patient(number)) is not None:
        fields = {name: getattr(patient, name) for name in DEMOGRAPHICS}
        found.append(Candidate(source="patients received", context=StudyContext(**fields)))
    if (known := store.patients.order(number)) is not None:
        order, patient = known
        fields = {name: getattr(patient, name) for name in DEMOGRAPHICS}
        found.append(
            Candidate(source="orders received", context=StudyContext(accession_number=order.accession_number, **fields))
        )
    folder = next((each for each in settings.folders if job.source == f"folder:{each.path}"), None)
    if folder is not None and folder.lookup is not None:
        peer = folder.lookup.model.replace("study", "archive")
        for asked in (StudyContext(patient_id=number), StudyContext(accession_number=number[:16])):
            try:
                answers = audited_ask(store.trail, folder.lookup, settings.dicom.ae_title, asked, user)
            except DeliveryError as error:
                problems.append(f"the {peer} could not be asked: {error}")
                break
            found += [Candidate(source=peer, context=each) for each in answers]
    unique = {(each.source, _key(each.context)): each for each in found}
    return Found(candidates=tuple(unique.values()), problems=tuple(problems))


def _key(context: StudyContext) -> tuple[str, str, str]:
    return context.patient_id, context.issuer_of_patient_id, context.accession_number
