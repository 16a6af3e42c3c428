"""A person gives the identity of a job."""

from __future__ import annotations

from gateway.domain.context import StudyContext
from gateway.domain.identity import Evidence
from gateway.errors import IllegalTransition, IntakeError
from gateway.identity.decide import decide
from gateway.identity.forms import check_context
from gateway.identity.orders import search
from gateway.store.store import Store

_ORDER = (
    "accession_number",
    "placer_order_number",
    "placer_order_issuer",
    "filler_order_number",
    "filler_order_issuer",
    "referring_physician_name",
    "request_attributes_json",
)


def identify(store: Store, job_id: str, stated: StudyContext, actor: str) -> None:
    """Give a job its identity, and queue it again.

    Parameters
    ----------
    stated
        What a person states; what it leaves empty stays as it was, or comes from the patient's record or the order.
        Nothing that was ordered for another patient stays.

    Raises
    ------
    NotFound
        There is no such job.
    IntakeError
        A value breaks its form, nobody is named, or the patient's record or the order contradicts it.
    IllegalTransition
        The job runs, waits in the queue, or was confirmed, or it changed at this moment.
    """
    check_context(stated, "the entry")
    job = store.jobs.get(job_id)
    if job.confirmed_by:
        raise IllegalTransition(f"{job.confirmed_by} has confirmed the result for this patient")
    known = job.context
    if stated.patient_id and known.patient_id and stated.patient_id != known.patient_id:  # what was ordered for another
        known = known.model_copy(update=dict.fromkeys(_ORDER, ""))
    evidence = search(store.patients, known, Evidence(stated=stated, by_person=True))
    decision = decide(known, evidence)
    if decision.hold_reason:
        raise IntakeError(decision.hold_reason)
    if store.jobs.decide(job, decision, actor, by_person=True) is None:
        raise IllegalTransition(f"job {job_id} has just changed")
