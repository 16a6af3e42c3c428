"""A person has looked: what was preliminary becomes final, and what was held back leaves.

Messages are made again from the record that was kept, so nothing is digitized twice and what the person saw is what
is sent.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from gateway.dicom.images.pages import read_context
from gateway.domain.clock import utc_now
from gateway.domain.context import StudyContext
from gateway.domain.status import JobStatus
from gateway.errors import IllegalTransition
from gateway.identity.decide import combined
from gateway.results.correction import rejections
from gateway.results.page import JobFacts, ReadPage, final_deliveries, job_facts, read_result
from gateway.results.report import build_report
from gateway.settings import Settings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.store.tables import Delivery, Job, Page

logger = logging.getLogger(__name__)


def confirm(store: Store, spool: Spool, settings: Settings, job_id: str, actor: str) -> None:
    """Make a job's result final and send it to the job's destinations; one that is final already stays as it is.

    Raises
    ------
    NotFound
        There is no such job.
    IllegalTransition
        The job waits, runs, failed or was cancelled, has no page that was read, or its files are gone.
    DeliveryRefused
        A message cannot be made as its destination wants it; nothing is changed.
    """
    job = store.jobs.get(job_id)
    if job.status not in (JobStatus.DONE, JobStatus.NEEDS_REVIEW):
        raise IllegalTransition(f"a {job.status} job has nothing to confirm")
    if job.confirmed_by:
        return
    pages = [page for page in store.jobs.pages(job_id) if page.waveform_sop_instance_uid]
    if not pages:
        raise IllegalTransition("no page of this job gave a waveform for a patient")
    earlier = store.deliveries.of_job(job_id)
    facts = job_facts(job, known_context(job, spool), settings, earlier)
    facts = replace(facts, created_at=utc_now())  # when the status changed: MSH-7, OBR-22
    deliveries: list[Delivery] = []
    for page in pages:
        made, page_deliveries = final_deliveries(facts, _read_page(facts, spool, page))
        for artefact in made:
            spool.write_artefact(job_id, artefact.name, artefact.data)
        deliveries += page_deliveries
    notes, rejecting = rejections(facts, spool, earlier, deliveries, utc_now())
    for note in notes:
        spool.write_artefact(job_id, note.name, note.data)
    deliveries += rejecting
    store.jobs.confirm(job_id, deliveries, actor)
    logger.info("Confirmed, %d deliveries", len(deliveries), extra={"action": "confirm", "job_id": job_id})


def known_context(job: Job, spool: Spool) -> StudyContext:
    """Return all that is known of whose ECG a job is: what it was told comes before what its object says."""
    told = job.context
    if job.media_type != "application/dicom":
        return told
    try:
        read = read_context(spool.source_path(job.id).read_bytes())
    except OSError as error:
        raise IllegalTransition(f"the job's file is gone: {error.strerror}") from error
    return combined(read, told)


def _read_page(facts: JobFacts, spool: Spool, page: Page) -> ReadPage:
    try:
        npz = spool.artefact_path(facts.job_id, f"page-{page.page_number}.record.npz").read_bytes()
    except OSError as error:
        raise IllegalTransition(f"the record of page {page.page_number} is gone: {error.strerror}") from error
    record, quality = read_result(npz, page.quality_json)
    report = build_report(
        record, quality, facts.context, layout_name=page.layout, confirmed=True, revision=facts.revision
    )
    return ReadPage(
        number=page.page_number,
        record=record,
        quality=quality,
        waveform_sop_instance_uid=page.waveform_sop_instance_uid,
        report=report,
        layout_name=page.layout,
    )
