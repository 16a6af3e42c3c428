"""One job: its pages and their pictures, its deliveries, its trail, and the decisions a person may take about it.

Patient data is in `PatientView` alone, and that is made only where the settings show it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, StreamingResponse
from pydantic import BaseModel
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from gateway.domain.account import User
from gateway.domain.artefact import Role, kept_name
from gateway.domain.context import StudyContext
from gateway.domain.received import PIECE_BYTES, opened
from gateway.domain.status import DELIVERY_TRANSITIONS, UNSETTLED, DeliveryAction, DeliveryStatus, JobStatus
from gateway.errors import NotFound
from gateway.identity.forms import PATIENT_FIELDS
from gateway.identity.person import identify
from gateway.settings import ReviewSettings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.store.tables import Delivery, Job, JobEvent, Page
from gateway.web.access import CurrentUser
from gateway.web.forms import Number, back_to, read_form
from gateway.web.pages.words import (
    DELIVERY_WORDS,
    DOWNLOADS,
    Badge,
    clock,
    delivery_tone,
    job_badge,
    per_cent,
    person_name,
    source_in_words,
)
from gateway.web.site import Site
from pipeline import ALL_LEADS

_KIND_WORDS = {"dicom": "DICOM C-STORE", "dicomweb": "DICOMweb STOW-RS", "hl7": "HL7", "fhir": "FHIR"}
_RESULT_WORDS = {
    "": "",
    "P": ", preliminary",
    "F": ", final",
    "C": ", correction",
    "X": ", withdrawn",
    "W": ", withdrawn",
}
_LIMB_LEADS = {  # words and tone, from the same test as the digitizer's warning
    True: ("the limb leads add up", "good"),
    False: ("the limb leads do not add up", "warn"),
    None: ("", "idle"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LeadFigures:
    """How much of one lead was read, and how surely, in per cent."""

    lead: str
    coverage: str
    confidence: str
    low: bool  # under the site's limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One property of a page's result: the figure, and what it means."""

    name: str
    figure: str
    words: str
    tone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PageView:
    """One page and what became of it; picture names are "" where there is none."""

    number: int
    status: Badge
    reason: str
    findings: tuple[Finding, ...]
    leads: tuple[LeadFigures, ...]
    warnings: tuple[str, ...]
    waveform_sop_instance_uid: str
    seconds: str
    has_page: bool
    has_overlay: bool
    downloads: tuple[tuple[str, str], ...]  # the end of each address, and what it is in words


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryView:
    """One delivery and what the peer answered."""

    page_number: int
    destination: str
    kind: str
    status: Badge
    attempts: int
    response: str
    reason: str
    identifier: str
    when: str
    number: int
    can_resend: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientView:
    """Who the job says it is; shown only where the settings say so."""

    fields: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """Everything on one job's page."""

    id: str
    status: Badge
    reason: str
    purged: str  # when and why its files were deleted, and what they were; "" while it has them
    facts: tuple[tuple[str, str], ...]
    patient: PatientView | None
    pages: tuple[PageView, ...]
    deliveries: tuple[DeliveryView, ...]
    events: tuple[JobEvent, ...]
    names: dict[str, str]  # of the actors who are persons
    can_identify: bool
    can_confirm: bool
    working: bool  # the pages may still change
    unsettled: bool  # the deliveries may still change


class _QualityFigures(BaseModel):
    """`Page.quality_json`, as far as it is shown; a page that failed has none."""

    coverage: dict[str, float] = {}
    confidence: dict[str, float] = {}
    einthoven_residual_mv: float | None = None
    limb_leads_agree: bool | None = None  # earlier versions did not keep it
    warnings: list[str] = []
    notes: list[str] = []
    rhythm: list[str] = []
    paper_speed_mm_per_s: float | None = None
    paper_speed_source: str = ""
    gain_mm_per_mv: float | None = None
    gain_source: str = ""


def routes(site: Site) -> APIRouter:
    """Return the routes of a job's page, its file and its pictures."""
    router, store, spool = APIRouter(), site.store, site.spool

    @router.get("/jobs/{job_id}", response_class=HTMLResponse)
    def job(request: Request, job_id: str, user: CurrentUser, pictures: Literal["on", "off"] | None = None) -> Response:
        view = job_view(store, spool, store.jobs.get(job_id), site.settings.review, user)
        shown = user.opens_pages and (pictures == "on" or (pictures is None and user.sees_patients))
        return site.templates.TemplateResponse(request, "job.html", {"job": view, "pictures": "on" if shown else "off"})

    @router.get("/jobs/{job_id}/source")
    def source(job_id: str, user: CurrentUser) -> Response:
        check_opens(user)
        job = store.jobs.get(job_id)
        file = spool.open_file(job.id)
        if file is None:
            raise HTTPException(404, _purged(store, job) or "The file is gone.")
        headers = {
            "Content-Disposition": f'attachment; filename="{job.id}"',
            "Content-Length": str(file.seek(0, os.SEEK_END)),
        }
        pieces = iter(partial(opened(file).read, PIECE_BYTES), b"")
        return StreamingResponse(
            pieces, headers=headers, media_type=job.media_type, background=BackgroundTask(file.close)
        )

    @router.get("/jobs/{job_id}/pages/{number}/page.png")
    def page_image(job_id: str, number: Number, user: CurrentUser) -> Response:
        check_opens(user)
        return _picture(store, spool, job_id, kept_name(number, Role.PAGE_PICTURE))

    @router.get("/jobs/{job_id}/pages/{number}/overlay.png")
    def overlay_image(job_id: str, number: Number, user: CurrentUser) -> Response:
        check_opens(user)
        return _picture(store, spool, job_id, kept_name(number, Role.OVERLAY_PICTURE))

    return router


def decisions(site: Site) -> APIRouter:
    """Return the targets of the job page's forms: its identity, a delivery sent again."""
    router, store = APIRouter(), site.store

    @router.post("/jobs/{job_id}/identity")
    async def give_identity(request: Request, job_id: str, user: CurrentUser) -> Response:
        form = await read_form(request)
        stated = StudyContext(**{name: form.get(name, "").strip() for name in PATIENT_FIELDS})
        await run_in_threadpool(identify, store, job_id, stated, user.name)
        return back_to(f"/jobs/{job_id}")

    @router.post("/jobs/{job_id}/deliveries/{number}/again")
    async def send_again(request: Request, job_id: str, number: Number, user: CurrentUser) -> Response:
        await read_form(request)
        if number not in {delivery.id for delivery in await run_in_threadpool(store.deliveries.of_job, job_id)}:
            raise NotFound(f"job {job_id} has no delivery {number}")
        await run_in_threadpool(store.deliveries.retry, number, user.name)
        return back_to(f"/jobs/{job_id}")

    return router


def check_opens(user: User) -> None:
    """Raise HTTPException where a person may not see what a patient's name may be printed on."""
    if not user.opens_pages:
        raise HTTPException(403, f"{user.shown}, a {user.role}, may not see patients.")


def _picture(store: Store, spool: Spool, job_id: str, name: str) -> Response:
    data = spool.read(store.jobs.get(job_id).id, name)
    if data is None:
        raise HTTPException(404, "There is no such picture.")
    return Response(data, media_type="image/png")


def job_view(store: Store, spool: Spool, job: Job, review: ReviewSettings, user: User) -> JobView:
    """Return everything there is to show of one job."""
    deliveries, pages = store.deliveries.of_job(job.id), store.jobs.pages(job.id)
    facts = [
        ("Received", clock(job.created_at)),
        ("Last change", clock(job.updated_at)),
        ("Source", source_in_words(job.source)),
        *([("File", job.file_name)] if job.file_name and user.sees_patients else []),
        ("Type", job.media_type),
        ("Attempts", str(job.attempts)),
    ]
    if job.confirmed_by:
        facts.append(("Confirmed by", job.confirmed_by))
    if job.legal_hold:
        facts.append(("Legal hold", "the files are kept"))
    return JobView(
        id=job.id,
        status=job_badge(job.status),
        reason=job.reason,
        purged=_purged(store, job),
        facts=(*facts, ("Worker", job.worker)) if job.worker else tuple(facts),
        patient=_patient(job) if user.sees_patients else None,
        pages=tuple(_page_view(spool, page, review) for page in pages),
        deliveries=tuple(_delivery_view(delivery) for delivery in deliveries),
        events=tuple(store.jobs.events(job.id)),
        names={account.name: account.full_name for account in store.accounts.all() if account.full_name},
        can_identify=job.status in (JobStatus.NEEDS_REVIEW, JobStatus.FAILED, JobStatus.CANCELLED)
        and job.purged_at is None,
        can_confirm=_can_confirm(job, pages),
        working=job.status in (JobStatus.QUEUED, JobStatus.RUNNING),
        unsettled=any(d.status in UNSETTLED for d in deliveries),
    )


def _purged(store: Store, job: Job) -> str:
    """Return when the files of a job were deleted, what they were, and why; "" where they were not."""
    if job.purged_at is None:
        return ""
    details = [event.detail for event in store.jobs.events(job.id) if event.action == "PURGE"]
    return f"{clock(job.purged_at)}: {details[-1]}."


def _can_confirm(job: Job, pages: Sequence[Page]) -> bool:
    """Return whether there is a result that nobody has confirmed yet."""
    ended = job.status in (JobStatus.DONE, JobStatus.NEEDS_REVIEW) and not job.confirmed_by
    return ended and job.purged_at is None and any(page.waveform_sop_instance_uid for page in pages)


def _delivery_view(delivery: Delivery) -> DeliveryView:
    when = ""
    if delivery.delivered_at is not None:
        when = clock(delivery.delivered_at)
    elif delivery.status == DeliveryStatus.PENDING:
        when = f"next attempt {clock(delivery.next_attempt_at)}"
    elif delivery.status == DeliveryStatus.STORED:
        when = f"asked again {clock(delivery.next_attempt_at)}"
    return DeliveryView(
        page_number=delivery.page_number,
        destination=delivery.destination,
        kind=_KIND_WORDS.get(delivery.kind, delivery.kind) + _RESULT_WORDS[delivery.result_status],
        status=Badge(words=DELIVERY_WORDS[delivery.status], tone=delivery_tone(delivery.status)),
        attempts=delivery.attempts,
        response=delivery.response,
        reason=delivery.reason,
        identifier=delivery.identifier,
        when=when,
        number=delivery.id or 0,
        can_resend=(delivery.status, DeliveryAction.RETRY) in DELIVERY_TRANSITIONS,
    )


def _patient(job: Job) -> PatientView:
    context = job.context
    fields = (
        ("Patient ID", context.patient_id),
        ("Issuer", context.issuer_of_patient_id),
        ("Name", person_name(context.patient_name)),
        ("Birth date", context.patient_birth_date),
        ("Sex", context.patient_sex),
        ("Accession number", context.accession_number),
        ("Recorded", context.acquisition_date_time),
    )
    return PatientView(fields=tuple((name, value) for name, value in fields if value))


def _page_view(spool: Spool, page: Page, review: ReviewSettings) -> PageView:
    figures = _QualityFigures.model_validate_json(page.quality_json)
    return PageView(
        number=page.page_number,
        status=job_badge(page.status),
        reason=page.reason,
        findings=_findings(page, figures, review),
        leads=tuple(
            LeadFigures(
                lead=lead.value,
                coverage=per_cent(figures.coverage[lead]),
                confidence=per_cent(figures.confidence.get(lead, 0.0)),
                low=figures.coverage[lead] < review.minimum_coverage,
            )
            for lead in ALL_LEADS
            if lead in figures.coverage
        ),
        warnings=tuple(figures.warnings),
        waveform_sop_instance_uid=page.waveform_sop_instance_uid,
        seconds="" if page.seconds is None else f"{page.seconds:.1f} s",
        has_page=spool.has(page.job_id, kept_name(page.page_number, Role.PAGE_PICTURE)),
        has_overlay=spool.has(page.job_id, kept_name(page.page_number, Role.OVERLAY_PICTURE)),
        downloads=tuple(DOWNLOADS.items()) if _has_result(spool, page) else (),
    )


def _has_result(spool: Spool, page: Page) -> bool:
    return bool(page.waveform_sop_instance_uid) and spool.has(page.job_id, kept_name(page.page_number, Role.RECORD))


def findings_of(page: Page, review: ReviewSettings) -> tuple[Finding, ...]:
    """Return the quality of a page in words and numbers, the most important first."""
    return _findings(page, _QualityFigures.model_validate_json(page.quality_json), review)


def _findings(page: Page, figures: _QualityFigures, review: ReviewSettings) -> tuple[Finding, ...]:
    """Return the quality in words and numbers, the most important first."""
    findings = []
    if page.estimated_snr_db is not None:
        limit = review.minimum_estimated_snr_db
        words, tone = _grade(page.estimated_snr_db - limit, f"under the limit of {limit:g} dB", 6.0)
        findings.append(Finding(name="Estimated SNR", figure=f"{page.estimated_snr_db:.1f} dB", words=words, tone=tone))
    if page.coverage is not None:
        limit_words = f"under the limit of {per_cent(review.minimum_coverage)}"
        words, tone = _grade(page.coverage - review.minimum_coverage, limit_words, 0.1)
        findings.append(Finding(name="Signal read", figure=per_cent(page.coverage), words=words, tone=tone))
    if page.layout:
        rhythm = f"rhythm strip {', '.join(figures.rhythm)}" if figures.rhythm else "no rhythm strip"
        score = "" if page.layout_score is None else f", score {page.layout_score:.2f}"
        words = "; ".join([rhythm + score, *figures.notes])
        findings.append(Finding(name="Layout", figure=page.layout, words=words, tone="idle"))
    if figures.einthoven_residual_mv is not None:
        words, tone = _LIMB_LEADS[figures.limb_leads_agree]
        residual = f"{figures.einthoven_residual_mv:.3f} mV"
        findings.append(Finding(name="I + III - II", figure=residual, words=words, tone=tone))
    if figures.paper_speed_mm_per_s is not None:
        speed = f"{figures.paper_speed_mm_per_s:g} mm/s"
        words = _read_from(figures.paper_speed_source)
        findings.append(Finding(name="Paper speed", figure=speed, words=words, tone="idle"))
    if figures.gain_mm_per_mv is not None:
        gain = f"{figures.gain_mm_per_mv:g} mm/mV"
        findings.append(Finding(name="Gain", figure=gain, words=_read_from(figures.gain_source), tone="idle"))
    return tuple(findings)


def _grade(margin: float, bad: str, comfortable: float) -> tuple[str, str]:
    """Return words and tone for a figure that lies `margin` above its limit."""
    if margin < 0:
        return bad, "warn"
    return ("good", "good") if margin >= comfortable else ("fair", "idle")


def _read_from(source: str) -> str:
    return {
        "default": "assumed: the page does not say",
        "text": "printed on the page",
        "pulse": "measured on the calibration pulse",
        "columns": "measured on the columns",
        "beats": "assumed: the beats make it likely",
    }.get(source, source)
