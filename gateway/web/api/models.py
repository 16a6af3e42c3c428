"""What the REST interface answers, as values; `version` names the state of a job that a change is made for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import Path
from pydantic import BaseModel, Field

from gateway.domain.context import StudyContext
from gateway.domain.review import Verdict
from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.store.tables import Delivery, Job, JobEvent, Page, ReviewDecision

JobId = Annotated[str, Path(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", description="A UUID.")]
PageNumber = Annotated[int, Path(ge=1, le=2**31 - 1, description="From 1.")]
NoNul = Annotated[str, Field(pattern=r"^[^\x00]*$", max_length=256)]


class PageAnswer(BaseModel):
    """A page, and what became of it; figures are null where it was not read."""

    page_number: int
    status: JobStatus
    reason: str = Field(description='Why a person must see it, or it was not read; "": nothing is doubtful.')
    layout: str
    estimated_snr_db: float | None
    coverage: float | None = Field(description="Share of the printed signal that was read.")
    waveform_sop_instance_uid: str
    seconds: float | None = Field(description="How long the digitization took.")

    @classmethod
    def of(cls, page: Page) -> PageAnswer:
        """Return a page."""
        return cls(**page.model_dump(include=set(cls.model_fields)))


class DeliveryAnswer(BaseModel):
    """One result on its way to one destination."""

    page_number: int
    destination: str
    kind: str
    status: DeliveryStatus
    attempts: int
    response: str = Field(description="The answer of the peer.")
    reason: str
    identifier: str = Field(description="SOP Instance UID, or MSH-10.")
    created_at: datetime
    delivered_at: datetime | None

    @classmethod
    def of(cls, delivery: Delivery) -> DeliveryAnswer:
        """Return a delivery."""
        return cls(**delivery.model_dump(include=set(cls.model_fields)))


class EventAnswer(BaseModel):
    """One line of the trail; without patients."""

    id: int
    job_id: str
    at: datetime
    action: str
    actor: str
    detail: str

    @classmethod
    def of(cls, event: JobEvent) -> EventAnswer:
        """Return a line."""
        return cls(**event.model_dump(include=set(cls.model_fields)))


class JobSummary(BaseModel):
    """A job."""

    id: str
    status: JobStatus
    reason: str = Field(description="Why it needs a person, or failed.")
    final: bool = Field(description="A person has confirmed the result.")
    source: str
    media_type: str
    revision: int = Field(description="How often it was read again after something of it had been delivered.")
    created_at: datetime
    updated_at: datetime
    patient: StudyContext | None = Field(description="Null without the scope results:read.")
    file_name: str | None = Field(description="As it was sent. Null without the scope results:read.")
    pages: list[PageAnswer]
    deliveries: list[DeliveryAnswer]


class DecisionAnswer(BaseModel):
    """A decision that waits to be carried out."""

    verdict: Verdict
    reason: str
    actor: str
    due_at: datetime = Field(description="Until then it can be taken back, and nothing has left.")

    @classmethod
    def of(cls, decision: ReviewDecision | None) -> DecisionAnswer | None:
        """Return a decision."""
        return None if decision is None else cls(**decision.model_dump(include=set(cls.model_fields)))


class JobAnswer(JobSummary):
    """A job with its trail and what was decided."""

    version: int = Field(description="Name it in a correction or a decision.")
    traces_agreed_by: str
    patient_agreed_by: str
    confirmed_by: str
    decision: DecisionAnswer | None
    events: list[EventAnswer]


class JobList(BaseModel):
    """Jobs, the newest first."""

    jobs: list[JobSummary]
    next: str | None = Field(description="The cursor of what follows; null: nothing follows.")


class Submitted(BaseModel):
    """What stands for a page that was handed in: it is safe."""

    job_id: str
    duplicate: bool = Field(description="The page was known, with this identity: nothing is new.")


class LeadAnswer(BaseModel):
    """The signal of one lead."""

    lead: str
    signal_mv: list[float | None] = Field(description="Null where nothing is printed or known.")
    coverage: float | None
    confidence: float | None


class ByPersonAnswer(BaseModel):
    """Samples that a person drew, could not read, or left out."""

    act: str
    lead: str
    start_s: float
    end_s: float


class ResultAnswer(BaseModel):
    """What was read from a page."""

    job_id: str
    page_number: int
    revision: int
    final: bool = Field(description="A person has confirmed it.")
    needs_review: bool = Field(description="Something is doubtful, and no person has confirmed it.")
    reason: str = Field(description="What is doubtful.")
    layout: str
    sampling_frequency_hz: float
    heart_rate_per_minute: float | None
    paper_speed_mm_per_s: float
    paper_speed_source: str
    gain_mm_per_mv: float
    gain_source: str
    estimated_snr_db: float
    warnings: list[str]
    notes: list[str]
    by_person: list[ByPersonAnswer]
    leads: list[LeadAnswer]


class CorrectionsAnswer(BaseModel):
    """What persons corrected on the pages of a job."""

    version: int
    pages: dict[int, dict[str, Any]] = Field(description="By page number; the fields of `Corrections`.")


def summary(job: Job, pages: Sequence[Page], deliveries: Sequence[Delivery], *, patient: bool) -> JobSummary:
    """Return a job, with its patient or without."""
    return JobSummary(
        id=job.id,
        status=job.status,
        reason=job.reason,
        final=bool(job.confirmed_by),
        source=job.source,
        media_type=job.media_type,
        revision=job.revision,
        created_at=job.created_at,
        updated_at=job.updated_at,
        patient=job.context if patient else None,
        file_name=job.file_name if patient else None,
        pages=[PageAnswer.of(page) for page in pages],
        deliveries=[DeliveryAnswer.of(each) for each in deliveries],
    )
