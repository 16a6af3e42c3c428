"""Confirmation: a person has reviewed a result; preliminary messages become final, and held artefacts are sent.

Messages are made again from the record that was kept: nothing is digitized twice, and what the person saw is sent.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace

from gateway.dicom.images.pages import read_context
from gateway.dicom.objects.page_objects import kept_object, make_object
from gateway.dicom.objects.waveform import leads_left_out, waveform_sop_class_uid
from gateway.domain.artefact import Artefact, Role, kept_name
from gateway.domain.clock import utc_now
from gateway.domain.context import StudyContext
from gateway.domain.digitized_page import DigitizedPage
from gateway.domain.recorded import Origin, believable, not_known, recorded
from gateway.domain.review import Stake, stake_of
from gateway.domain.status import JobStatus
from gateway.errors import IllegalTransition
from gateway.identity.decide import combined
from gateway.results.correction import rejections
from gateway.results.kept import read_printed, read_result
from gateway.results.page import JobFacts, for_destination, job_facts, write_artefacts
from gateway.results.report import build_report
from gateway.settings import Settings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.store.tables import Delivery, Job, Page
from pipeline import PrintedValues, heart_rate_per_minute

logger = logging.getLogger(__name__)


def confirm(store: Store, spool: Spool, settings: Settings, job_id: str, actor: str) -> None:
    """Make a job's result final and send it to the job's destinations; one that is final already stays as it is.

    Raises
    ------
    NotFound
        There is no such job.
    IllegalTransition
        The job waits, runs, failed or was cancelled, has no page that was read, or its files are gone; or it waits
        because nobody knows when it was recorded.
    DeliveryRefused
        A message cannot be made as its destination wants it; nothing is changed.
    """
    job = store.jobs.get(job_id)
    if job.confirmed_by and job.status == JobStatus.DONE:
        return
    rows, facts, printed = _confirmable(store, spool, settings, job)
    facts = replace(facts, created_at=utc_now())  # when the status changed: MSH-7, OBR-22
    deliveries: list[Delivery] = []
    for row in rows:
        page = kept_page(facts, spool, row, printed[row.page_number], final=True)
        made = sorted(_final(facts, page), key=lambda each: each[0].role != Role.REPORT)  # reports leave first
        report = Artefact(page_number=page.page_number, role=Role.REPORT_PDF, data=page.report_pdf)
        write_artefacts(spool, job_id, [report, *(artefact for artefact, _ in made)])
        deliveries += [delivery for _, delivery in made]
    notes, rejecting = rejections(facts, spool, facts.earlier, deliveries, utc_now())
    write_artefacts(spool, job_id, notes)
    deliveries += rejecting
    store.jobs.confirm(job_id, deliveries, actor)
    logger.info("Confirmed, %d deliveries", len(deliveries), extra={"action": "confirm", "job_id": job_id})


def check_confirmable(store: Store, spool: Spool, settings: Settings, job_id: str) -> None:
    """Raise IllegalTransition where a job's result cannot be confirmed: see `confirm`."""
    _confirmable(store, spool, settings, store.jobs.get(job_id))


def check_patient(store: Store, job_id: str) -> None:
    """Raise IllegalTransition where something speaks against the patient of a job, and nobody has compared them."""
    job = store.jobs.get(job_id)
    against = [each for each in job.reason.split("; ") if each and stake_of(each) is Stake.IDENTITY]
    if against and not job.patient_agreed_by:
        why = f"it is not certain whose ECG this is ({'; '.join(against)})"
        raise IllegalTransition(f"{why}: compare page and record, then `confirm JOB --patient-is-right`")


def _confirmable(
    store: Store, spool: Spool, settings: Settings, job: Job
) -> tuple[list[Page], JobFacts, dict[int, PrintedValues]]:
    """Return the pages of a job that may be confirmed, what is the same for all, and what each prints of its time."""
    if job.status not in (JobStatus.DONE, JobStatus.NEEDS_REVIEW):
        raise IllegalTransition(f"a {job.status} job has nothing to confirm")
    rows = [row for row in store.jobs.pages(job.id) if row.waveform_sop_instance_uid]
    if not rows:
        raise IllegalTransition("no page of this job gave a waveform for a patient")
    facts = job_facts(job, known_context(job, spool), settings, store.deliveries.of_job(job.id))
    printed = {
        row.page_number: believable(read_printed(row.quality_json), facts.context, job.created_at) for row in rows
    }
    if job.status == JobStatus.NEEDS_REVIEW and settings.review.undated == "review":
        _check_dated(facts.context, printed.values())
    return rows, facts, printed


def known_context(job: Job, spool: Spool) -> StudyContext:
    """Return the identity of a job: what the intake received has priority over what the object itself says."""
    stated = job.context
    if job.media_type != "application/dicom":
        return stated
    file = spool.open_file(job.id)
    if file is None:
        raise IllegalTransition("the job's file is gone")
    with file:
        return combined(read_context(file), stated)


def _check_dated(context: StudyContext, pages: Iterable[PrintedValues]) -> None:
    """Raise IllegalTransition if the objects of a page are dated by nothing: they are made again with the date."""
    for printed in pages:
        if recorded(context, printed).origin is Origin.UNKNOWN:
            raise IllegalTransition(f"{not_known(printed)}: `ecg-gateway identify JOB --recorded-at YYYYMMDDHHMMSS`")


def kept_page(facts: JobFacts, spool: Spool, row: Page, printed: PrintedValues, *, final: bool) -> DigitizedPage:
    """Return a page from what was kept, with its report; raise IllegalTransition where its record is gone."""
    npz = spool.read(facts.job_id, kept_name(row.page_number, Role.RECORD))
    if npz is None:
        raise IllegalTransition(f"the record of page {row.page_number} is gone")
    record, quality = read_result(npz, row.quality_json)
    page = DigitizedPage(
        job_id=facts.job_id,
        page_number=row.page_number,
        context=facts.context,
        created_at=facts.created_at,
        record=record,
        quality=quality,
        layout_name=row.layout,
        printed=printed,
        heart_rate_per_minute=heart_rate_per_minute(record),
        waveform_sop_class_uid=waveform_sop_class_uid(record, facts.sop_classes[0]),
        leads_left_out=leads_left_out(record, facts.sop_classes[0]),
        waveform_sop_instance_uid=row.waveform_sop_instance_uid,
        weights_sha256=json.loads(row.quality_json).get("weights_sha256", {}),
        page_png=spool.read(facts.job_id, kept_name(row.page_number, Role.PAGE_PICTURE)) or b"",
        revision=facts.revision,
        final=final,
        doubtful=row.status == JobStatus.NEEDS_REVIEW,
    )
    return replace(page, report_pdf=build_report(page))


def _final(facts: JobFacts, page: DigitizedPage) -> Iterator[tuple[Artefact, Delivery]]:
    """Yield what the destinations are sent for a confirmed page: final messages and reports, and held objects.

    Raises
    ------
    DeliveryRefused
        A message cannot be made as its destination wants it.
    """
    objects = {kind: kept_object(page, kind) for kind in facts.object_kinds}
    if "report" in objects:
        objects["report"] = make_object(page, "report", facts.objects)
    for kind in facts.destinations:
        yield from for_destination(facts, page, objects, kind)
