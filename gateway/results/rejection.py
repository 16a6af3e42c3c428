"""Rejection: a person found that a page gives no result; destinations that have one of it are told.

Archives get a rejection note (IHE IOCM) about the objects that arrived there, receivers of messages a withdrawal of the
last message that did.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

from gateway.delivery.kind import Kind, Withdrawn
from gateway.domain.artefact import WITHDRAWN, Artefact, Role
from gateway.domain.clock import utc_now
from gateway.domain.status import has_arrived
from gateway.errors import DeliveryRefused, IllegalTransition, IntakeError
from gateway.results.confirmation import known_context
from gateway.results.correction import rejections
from gateway.results.fhir import withdrawals
from gateway.results.page import JobFacts, delivery_of, job_facts, write_artefacts
from gateway.settings import Settings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.store.tables import Delivery

logger = logging.getLogger(__name__)


def reject(store: Store, spool: Spool, settings: Settings, job_id: str, reason: str, actor: str) -> None:
    """End a job without a result; the trail names the destinations that have one of it and cannot be told.

    Raises
    ------
    NotFound
        There is no such job.
    IllegalTransition
        The job waits or runs.
    """
    job = store.jobs.get(job_id)
    try:
        context = known_context(job, spool)
    except (IllegalTransition, IntakeError):  # the object is gone, or cannot be read
        context = job.context
    sent = store.deliveries.of_job(job_id)
    facts = replace(job_facts(job, context, settings, sent), created_at=utc_now(), revision=job.revision + 1)
    words = f"A person rejected the digitization of this page: {reason}"
    notes, deliveries = rejections(facts, spool, sent, sent, facts.created_at, words)
    for kind in facts.destinations:
        for artefact in _withdrawals(facts, spool, kind, sent, reason):
            notes.append(artefact)
            deliveries.append(delivery_of(job_id, kind, artefact))
    for artefact, delivery in withdrawals(spool, settings, sent, facts.created_at):
        notes.append(artefact)
        deliveries.append(delivery)
    write_artefacts(spool, job_id, notes)
    untold = store.review.reject(job_id, reason, actor, deliveries)
    extra = {"action": "reject", "job_id": job_id}
    logger.info("Rejected; %d destinations are told, %d cannot be", len(deliveries), len(untold), extra=extra)


def _withdrawals(
    facts: JobFacts, spool: Spool, kind: Kind, sent: Sequence[Delivery], reason: str
) -> Iterator[Artefact]:
    """Yield what withdraws the last message about each page that arrived at a destination."""
    last = {
        each.page_number: each
        for each in sent
        if each.role == Role.MESSAGE and each.destination == kind.name and has_arrived(each.status, each.asked)
    }
    for delivery in last.values():
        if delivery.result_status == WITHDRAWN:
            continue  # it knows
        data = spool.read(facts.job_id, delivery.artefact)
        if data is None:
            logger.warning("Cannot withdraw what %s has: its file is gone", kind.name, extra={"action": "reject"})
            continue
        try:
            yield from kind.withdrawal(
                Withdrawn(delivery=delivery, sent=data, reason=reason, at=facts.created_at, revision=facts.revision)
            )
        except DeliveryRefused as error:
            logger.warning(
                "Cannot withdraw what %s has: %s", kind.name, type(error).__name__, extra={"action": "reject"}
            )
