"""A person gives the identity of a held job."""

from __future__ import annotations

from gateway.domain.context import StudyContext
from gateway.domain.identity import Evidence
from gateway.errors import IllegalTransition, IntakeError
from gateway.identity.decide import decide
from gateway.identity.forms import check_context
from gateway.identity.orders import search
from gateway.store.store import Store


def identify(store: Store, job_id: str, stated: StudyContext, actor: str) -> None:
    """Give a held job its identity, and queue it again.

    Parameters
    ----------
    stated
        What a person states; what it leaves empty stays as it was, or comes from the patient's record or the order.

    Raises
    ------
    NotFound
        There is no such job.
    IntakeError
        A value breaks its form, nobody is named, or the patient's record or the order contradicts it.
    IllegalTransition
        The job runs, waits in the queue, or has ended well, or it changed at this moment.
    """
    check_context(stated, "the entry")
    job = store.jobs.get(job_id)
    evidence = search(store.patients, job.context, Evidence(stated=stated, by_person=True))
    decision = decide(job.context, evidence)
    if decision.hold_reason:
        raise IntakeError(decision.hold_reason)
    if store.jobs.decide(job, decision, actor) is None:
        raise IllegalTransition(f"job {job_id} has just changed")
