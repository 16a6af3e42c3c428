"""FHIR of a job: a page's Bundle to keep, and the withdrawal of what servers were sent of a page that is rejected."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from gateway.delivery.kinds import kind_of
from gateway.domain.artefact import Artefact, Role
from gateway.domain.recorded import believable
from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.errors import IllegalTransition, NotFound
from gateway.fhir.bundle import collection, withdrawal
from gateway.results.confirmation import kept_page, known_context
from gateway.results.kept import read_printed
from gateway.results.page import delivery_of, job_facts
from gateway.settings import FhirDestination, Settings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.store.tables import Delivery

logger = logging.getLogger(__name__)
_WITHDRAWN = "W"  # HL7 table 0085


def fhir_bundle(store: Store, spool: Spool, settings: Settings, job_id: str, page_number: int) -> bytes:
    """Return a page's resources and documents as a Bundle of type collection, `gateway.fhir.bundle.MEDIA_TYPE`.

    Raises
    ------
    NotFound
        There is no such job or page.
    IllegalTransition
        The job has no result, the page was not read, or its files are gone.
    DeliveryRefused
        A value breaks FHIR's rules.
    """
    job = store.jobs.get(job_id)
    row = next((each for each in store.jobs.pages(job_id) if each.page_number == page_number), None)
    if row is None:
        raise NotFound(f"job {job_id} has no page {page_number}")
    if job.status not in (JobStatus.DONE, JobStatus.NEEDS_REVIEW) or row.status == JobStatus.FAILED:
        raise IllegalTransition(f"page {page_number} has no result")
    facts = job_facts(job, known_context(job, spool), settings)
    confirmed = [event.at for event in store.jobs.events(job_id) if event.action == "CONFIRM"]
    final = bool(job.confirmed_by)
    if final and confirmed:
        facts = replace(facts, created_at=confirmed[-1])
    printed = believable(read_printed(row.quality_json), facts.context, job.created_at)
    page = kept_page(facts, spool, row, printed, final=final)
    return collection(page, "C" if job.revision else "F" if final else "P")


def withdrawals(
    spool: Spool, settings: Settings, deliveries: Sequence[Delivery], at: datetime
) -> Iterator[tuple[Artefact, Delivery]]:
    """Yield what tells FHIR servers that all they were sent of a job was entered in error.

    A server may have what it did not acknowledge, so each is told that anything was on its way to.

    Parameters
    ----------
    deliveries
        All of the job, oldest first.
    at
        When it was rejected, aware.
    """
    servers = [destination for destination in settings.destinations if isinstance(destination, FhirDestination)]
    for server in servers:
        sent = {
            each.page_number: each for each in deliveries if each.destination == server.name and _may_be_there(each)
        }
        for last in sent.values():
            if last.result_status == _WITHDRAWN:
                continue
            bundle = spool.read(last.job_id, last.artefact)
            if bundle is None:
                logger.warning("Cannot withdraw a Bundle: its file is gone", extra={"action": "reject"})
                continue
            artefact = Artefact(
                page_number=last.page_number,
                role=Role.MESSAGE,
                data=withdrawal(bundle, at),
                variant=server.name,
                revision=last.revision,
                final=last.final,
                identifier=last.identifier,
                result_status=_WITHDRAWN,
                ending="withdrawn.fhir.json",
            )
            yield artefact, delivery_of(last.job_id, kind_of(server, settings), artefact)


def _may_be_there(delivery: Delivery) -> bool:
    on_its_way = delivery.attempts > 0 or delivery.status == DeliveryStatus.PENDING
    return on_its_way and delivery.status != DeliveryStatus.REFUSED
