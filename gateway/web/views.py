"""What the pages show: rows of the store turned into words and figures.

Patient data is in `PatientView` alone, and that is made only where the settings show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePath

from pydantic import BaseModel

from gateway.domain.artefact import Role, kept_name
from gateway.domain.clock import utc_now
from gateway.domain.status import DELIVERY_TRANSITIONS, UNSETTLED, DeliveryAction, DeliveryStatus, JobStatus
from gateway.settings import ReviewSettings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.store.tables import Delivery, Job, JobEvent, Page
from pipeline import LEADS

_STATUS_WORDS = {
    JobStatus.QUEUED: "Queued",
    JobStatus.RUNNING: "Running",
    JobStatus.DONE: "Done",
    JobStatus.NEEDS_REVIEW: "Needs review",
    JobStatus.FAILED: "Failed",
    JobStatus.CANCELLED: "Cancelled",
}
_DELIVERY_WORDS = {
    DeliveryStatus.PENDING: "pending",
    DeliveryStatus.STORED: "stored, not committed yet",
    DeliveryStatus.DELIVERED: "delivered",
    DeliveryStatus.REFUSED: "refused",
    DeliveryStatus.FAILED: "failed",
    DeliveryStatus.CANCELLED: "cancelled",
}
_KIND_WORDS = {"dicom": "DICOM C-STORE", "dicomweb": "DICOMweb STOW-RS", "hl7": "HL7"}
_RESULT_WORDS = {"": "", "P": ", preliminary", "F": ", final", "C": ", correction"}
_MOST_URGENT_FIRST = (
    DeliveryStatus.REFUSED,
    DeliveryStatus.FAILED,
    DeliveryStatus.PENDING,
    DeliveryStatus.STORED,
    DeliveryStatus.CANCELLED,
    DeliveryStatus.DELIVERED,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Badge:
    """A status in words, and the word its colour hangs on."""

    words: str
    tone: str  # "good" | "busy" | "warn" | "bad" | "idle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """One status to filter the queue by; None is every status."""

    status: JobStatus | None
    words: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """One line of the queue."""

    id: str
    status: Badge
    received_at: datetime
    age: str
    source: str
    layout: str
    estimated_snr: str
    coverage: str
    deliveries: tuple[Badge, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmatchedRow:
    """A job that waits until somebody says whose it is."""

    id: str
    age: str
    source: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeRow:
    """A job delivered under an identity that was merged; the identities are "" where patients are not shown."""

    number: int
    job_id: str
    when: str
    prior: str
    surviving: str


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
    facts: tuple[tuple[str, str], ...]
    patient: PatientView | None
    pages: tuple[PageView, ...]
    deliveries: tuple[DeliveryView, ...]
    events: tuple[JobEvent, ...]
    can_identify: bool
    can_confirm: bool
    working: bool  # the pages may still change
    unsettled: bool  # the deliveries may still change


class _QualityFigures(BaseModel):
    """`Page.quality_json`, as far as it is shown; a page that failed has none."""

    coverage: dict[str, float] = {}
    confidence: dict[str, float] = {}
    einthoven_residual_mv: float | None = None
    warnings: list[str] = []
    rhythm: list[str] = []
    paper_speed_mm_per_s: float | None = None
    paper_speed_source: str = ""
    gain_mm_per_mv: float | None = None
    gain_source: str = ""


def filters(store: Store) -> tuple[Filter, ...]:
    """Return the queue's filters with their counts, "All" first."""
    counts = store.jobs.counts()
    every = Filter(status=None, words="All", count=sum(counts.values()))
    return (every, *(Filter(status=s, words=_STATUS_WORDS[s], count=n) for s, n in counts.items()))


def delivery_totals(store: Store) -> tuple[Badge, ...]:
    """Return how many deliveries stand in each status that has any."""
    counts = store.deliveries.counts()
    return tuple(
        Badge(words=f"{count} {_DELIVERY_WORDS[status]}", tone=_delivery_tone(status))
        for status, count in counts.items()
        if count
    )


def job_row(store: Store, job: Job) -> JobRow:
    """Return one job as a line of the queue; of several pages the worst figures."""
    pages = store.jobs.pages(job.id)
    layouts = list(dict.fromkeys(page.layout for page in pages if page.layout))
    snrs = [page.estimated_snr_db for page in pages if page.estimated_snr_db is not None]
    coverages = [page.coverage for page in pages if page.coverage is not None]
    return JobRow(
        id=job.id,
        status=_job_badge(job.status),
        received_at=job.created_at,
        age=age_in_words((utc_now() - job.created_at).total_seconds()),
        source=_source_in_words(job.source),
        layout=", ".join(layouts) + (f" ({len(pages)} pages)" if len(pages) > 1 else ""),
        estimated_snr=f"{min(snrs):.1f} dB" if snrs else "",
        coverage=_per_cent(min(coverages)) if coverages else "",
        deliveries=_by_destination(store.deliveries.of_job(job.id)),
        reason=job.reason,
    )


def job_view(store: Store, spool: Spool, job: Job, review: ReviewSettings, show_patient: bool) -> JobView:
    """Return everything there is to show of one job."""
    deliveries, pages = store.deliveries.of_job(job.id), store.jobs.pages(job.id)
    facts = [
        ("Received", _clock(job.created_at)),
        ("Last change", _clock(job.updated_at)),
        ("Source", _source_in_words(job.source)),
        ("Type", job.media_type),
        ("Attempts", str(job.attempts)),
    ]
    if job.confirmed_by:
        facts.append(("Confirmed by", job.confirmed_by))
    return JobView(
        id=job.id,
        status=_job_badge(job.status),
        reason=job.reason,
        facts=(*facts, ("Worker", job.worker)) if job.worker else tuple(facts),
        patient=_patient(job) if show_patient else None,
        pages=tuple(_page_view(spool, page, review) for page in pages),
        deliveries=tuple(_delivery_view(delivery) for delivery in deliveries),
        events=tuple(store.jobs.events(job.id)),
        can_identify=job.status in (JobStatus.NEEDS_REVIEW, JobStatus.FAILED, JobStatus.CANCELLED),
        can_confirm=_can_confirm(job, pages),
        working=job.status in (JobStatus.QUEUED, JobStatus.RUNNING),
        unsettled=any(d.status in UNSETTLED for d in deliveries),
    )


def unmatched_rows(store: Store) -> tuple[UnmatchedRow, ...]:
    """Return the jobs that wait for an identity, oldest first."""
    return tuple(
        UnmatchedRow(
            id=job.id,
            age=age_in_words((utc_now() - job.created_at).total_seconds()),
            source=_source_in_words(job.source),
            reason=job.reason,
        )
        for job in store.jobs.unmatched()
    )


def merge_rows(store: Store, show_patient: bool) -> tuple[MergeRow, ...]:
    """Return what the archive must be told, oldest first."""
    return tuple(
        MergeRow(
            number=notice.id or 0,
            job_id=notice.job_id,
            when=_clock(notice.created_at),
            prior=f"{notice.prior_patient_id} {notice.prior_issuer}".strip() if show_patient else "",
            surviving=f"{notice.surviving_patient_id} {notice.surviving_issuer}".strip() if show_patient else "",
        )
        for notice in store.patients.merge_notices()
    )


def age_in_words(seconds: float) -> str:
    """Return a span in its largest unit, e.g. "3 min"."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(max(seconds, 0))} s"


def _can_confirm(job: Job, pages: Sequence[Page]) -> bool:
    """Tell whether there is a result that nobody has confirmed yet."""
    ended = job.status in (JobStatus.DONE, JobStatus.NEEDS_REVIEW) and not job.confirmed_by
    return ended and any(page.waveform_sop_instance_uid for page in pages)


def _job_badge(status: JobStatus) -> Badge:
    tones = {
        JobStatus.RUNNING: "busy",
        JobStatus.DONE: "good",
        JobStatus.NEEDS_REVIEW: "warn",
        JobStatus.FAILED: "bad",
    }
    return Badge(words=_STATUS_WORDS[status], tone=tones.get(status, "idle"))


def _delivery_tone(status: DeliveryStatus) -> str:
    tones = {
        DeliveryStatus.PENDING: "busy",
        DeliveryStatus.STORED: "busy",
        DeliveryStatus.DELIVERED: "good",
        DeliveryStatus.REFUSED: "bad",
        DeliveryStatus.FAILED: "bad",
    }
    return tones.get(status, "idle")


def _by_destination(deliveries: Sequence[Delivery]) -> tuple[Badge, ...]:
    """Return one badge a destination: its most urgent status, and of how many deliveries where there are several."""
    badges = []
    for destination in dict.fromkeys(delivery.destination for delivery in deliveries):
        statuses = [delivery.status for delivery in deliveries if delivery.destination == destination]
        status = next(status for status in _MOST_URGENT_FIRST if status in statuses)
        share = f" {statuses.count(status)}/{len(statuses)}" if len(statuses) > 1 else ""
        words = f"{destination} {_DELIVERY_WORDS[status]}{share}"
        badges.append(Badge(words=words, tone=_delivery_tone(status)))
    return tuple(badges)


def _delivery_view(delivery: Delivery) -> DeliveryView:
    when = ""
    if delivery.delivered_at is not None:
        when = _clock(delivery.delivered_at)
    elif delivery.status == DeliveryStatus.PENDING:
        when = f"next attempt {_clock(delivery.next_attempt_at)}"
    elif delivery.status == DeliveryStatus.STORED:
        when = f"asked again {_clock(delivery.next_attempt_at)}"
    return DeliveryView(
        page_number=delivery.page_number,
        destination=delivery.destination,
        kind=_KIND_WORDS.get(delivery.kind, delivery.kind) + _RESULT_WORDS[delivery.result_status],
        status=Badge(words=_DELIVERY_WORDS[delivery.status], tone=_delivery_tone(delivery.status)),
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
        ("Name", context.patient_name.split("=")[0].replace("^", " ").strip()),
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
        status=_job_badge(page.status),
        reason=page.reason,
        findings=_findings(page, figures, review),
        leads=tuple(
            LeadFigures(
                lead=lead.value,
                coverage=_per_cent(figures.coverage[lead]),
                confidence=_per_cent(figures.confidence.get(lead, 0.0)),
                low=figures.coverage[lead] < review.minimum_coverage,
            )
            for lead in LEADS
            if lead in figures.coverage
        ),
        warnings=tuple(figures.warnings),
        waveform_sop_instance_uid=page.waveform_sop_instance_uid,
        seconds="" if page.seconds is None else f"{page.seconds:.1f} s",
        has_page=spool.artefact_path(page.job_id, kept_name(page.page_number, Role.PAGE_PICTURE)).is_file(),
        has_overlay=spool.artefact_path(page.job_id, kept_name(page.page_number, Role.OVERLAY_PICTURE)).is_file(),
    )


def _findings(page: Page, figures: _QualityFigures, review: ReviewSettings) -> tuple[Finding, ...]:
    """Return the quality in words and numbers, most telling first."""
    findings = []
    if page.estimated_snr_db is not None:
        limit = review.minimum_estimated_snr_db
        words, tone = _grade(page.estimated_snr_db - limit, f"under the limit of {limit:g} dB", 6.0)
        findings.append(Finding(name="Estimated SNR", figure=f"{page.estimated_snr_db:.1f} dB", words=words, tone=tone))
    if page.coverage is not None:
        limit_words = f"under the limit of {_per_cent(review.minimum_coverage)}"
        words, tone = _grade(page.coverage - review.minimum_coverage, limit_words, 0.1)
        findings.append(Finding(name="Signal read", figure=_per_cent(page.coverage), words=words, tone=tone))
    if page.layout:
        rhythm = f"rhythm strip {', '.join(figures.rhythm)}" if figures.rhythm else "no rhythm strip"
        score = "" if page.layout_score is None else f", score {page.layout_score:.2f}"
        findings.append(Finding(name="Layout", figure=page.layout, words=rhythm + score, tone="idle"))
    if figures.einthoven_residual_mv is not None:
        words, tone = _grade(0.1 - figures.einthoven_residual_mv, "the limb leads contradict each other", 0.05)
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


def _source_in_words(source: str) -> str:
    kind, _, name = source.partition(":")
    return {"dicom": f"DICOM {name}", "dicomweb": f"DICOMweb {name}", "folder": f"Folder {PurePath(name).name}"}.get(
        kind, source
    )


def _per_cent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _clock(at: datetime) -> str:
    """Return a moment in the machine's time zone."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
