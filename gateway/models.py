"""The database's tables and the words for their states.

A *job* is one accepted object (a DICOM instance or a file).  It has *pages*; every page that holds an ECG gives one
waveform.  A *delivery* is one page's result on its way to one destination.  *Job events* are the audit trail.
*Patients* and *orders* are what HL7 messages told; they say whose a page is that only names an order.

State changes go through the two tables below; an illegal pair raises `IllegalTransition`.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict
from sqlalchemy import DateTime, Dialect, UniqueConstraint
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, SQLModel

from gateway.errors import IllegalTransition


class JobStatus(StrEnum):
    """Where a job stands."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    DONE = "DONE"
    NEEDS_REVIEW = "NEEDS_REVIEW"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class JobAction(StrEnum):
    """What may happen to a job."""

    CLAIM = "CLAIM"  # a worker takes it
    COMPLETE = "COMPLETE"  # digitized, good enough
    HOLD = "HOLD"  # digitized or not, a person must look
    FAIL = "FAIL"  # given up
    RELEASE = "RELEASE"  # back to the queue: lease expired, worker stopped
    RETRY = "RETRY"  # a person asks for another run
    CANCEL = "CANCEL"  # a person drops it
    CONFIRM = "CONFIRM"  # a person has looked: the result is final
    REPOINT = "REPOINT"  # its patient was merged into another: what was made for the old one is made again


JOB_TRANSITIONS: dict[tuple[JobStatus, JobAction], JobStatus] = {
    (JobStatus.QUEUED, JobAction.CLAIM): JobStatus.RUNNING,
    (JobStatus.QUEUED, JobAction.HOLD): JobStatus.NEEDS_REVIEW,
    (JobStatus.QUEUED, JobAction.CANCEL): JobStatus.CANCELLED,
    (JobStatus.RUNNING, JobAction.COMPLETE): JobStatus.DONE,
    (JobStatus.RUNNING, JobAction.HOLD): JobStatus.NEEDS_REVIEW,
    (JobStatus.RUNNING, JobAction.FAIL): JobStatus.FAILED,
    (JobStatus.RUNNING, JobAction.RELEASE): JobStatus.QUEUED,
    (JobStatus.NEEDS_REVIEW, JobAction.RETRY): JobStatus.QUEUED,
    (JobStatus.NEEDS_REVIEW, JobAction.CANCEL): JobStatus.CANCELLED,
    (JobStatus.FAILED, JobAction.RETRY): JobStatus.QUEUED,
    (JobStatus.FAILED, JobAction.CANCEL): JobStatus.CANCELLED,
    (JobStatus.CANCELLED, JobAction.RETRY): JobStatus.QUEUED,
    (JobStatus.DONE, JobAction.RETRY): JobStatus.QUEUED,  # what was delivered will be corrected
    (JobStatus.DONE, JobAction.CONFIRM): JobStatus.DONE,
    (JobStatus.NEEDS_REVIEW, JobAction.CONFIRM): JobStatus.DONE,
    (JobStatus.QUEUED, JobAction.REPOINT): JobStatus.QUEUED,
    (JobStatus.RUNNING, JobAction.REPOINT): JobStatus.QUEUED,
    (JobStatus.DONE, JobAction.REPOINT): JobStatus.QUEUED,
    (JobStatus.NEEDS_REVIEW, JobAction.REPOINT): JobStatus.QUEUED,
}


class DeliveryStatus(StrEnum):
    """Where a delivery stands."""

    PENDING = "PENDING"
    STORED = "STORED"  # the peer took it, and has not committed to keep it yet
    DELIVERED = "DELIVERED"
    REFUSED = "REFUSED"
    FAILED = "FAILED"  # attempts used up
    CANCELLED = "CANCELLED"


class DeliveryAction(StrEnum):
    """What may happen to a delivery."""

    STORE = "STORE"  # the peer took it, and shall say that it is committed
    DELIVER = "DELIVER"
    DEFER = "DEFER"
    REFUSE = "REFUSE"
    GIVE_UP = "GIVE_UP"
    RETRY = "RETRY"
    CANCEL = "CANCEL"
    RENEW = "RENEW"  # the job ran again: its new result takes the place of one that never arrived


DELIVERY_TRANSITIONS: dict[tuple[DeliveryStatus, DeliveryAction], DeliveryStatus] = {
    (DeliveryStatus.PENDING, DeliveryAction.DELIVER): DeliveryStatus.DELIVERED,
    (DeliveryStatus.PENDING, DeliveryAction.STORE): DeliveryStatus.STORED,
    (DeliveryStatus.STORED, DeliveryAction.DELIVER): DeliveryStatus.DELIVERED,
    (DeliveryStatus.STORED, DeliveryAction.DEFER): DeliveryStatus.PENDING,  # the peer has lost it: it is sent again
    (DeliveryStatus.STORED, DeliveryAction.REFUSE): DeliveryStatus.REFUSED,
    (DeliveryStatus.STORED, DeliveryAction.GIVE_UP): DeliveryStatus.FAILED,
    (DeliveryStatus.PENDING, DeliveryAction.DEFER): DeliveryStatus.PENDING,
    (DeliveryStatus.PENDING, DeliveryAction.REFUSE): DeliveryStatus.REFUSED,
    (DeliveryStatus.PENDING, DeliveryAction.GIVE_UP): DeliveryStatus.FAILED,
    (DeliveryStatus.PENDING, DeliveryAction.CANCEL): DeliveryStatus.CANCELLED,
    # of a result whose place another one takes: it must not be sent again
    (DeliveryStatus.REFUSED, DeliveryAction.CANCEL): DeliveryStatus.CANCELLED,
    (DeliveryStatus.FAILED, DeliveryAction.CANCEL): DeliveryStatus.CANCELLED,
    (DeliveryStatus.REFUSED, DeliveryAction.RETRY): DeliveryStatus.PENDING,
    (DeliveryStatus.FAILED, DeliveryAction.RETRY): DeliveryStatus.PENDING,
    (DeliveryStatus.REFUSED, DeliveryAction.RENEW): DeliveryStatus.PENDING,
    (DeliveryStatus.FAILED, DeliveryAction.RENEW): DeliveryStatus.PENDING,
    (DeliveryStatus.CANCELLED, DeliveryAction.RENEW): DeliveryStatus.PENDING,
    # cancelled while the send was under way: what arrived has arrived
    (DeliveryStatus.CANCELLED, DeliveryAction.DELIVER): DeliveryStatus.DELIVERED,
    (DeliveryStatus.CANCELLED, DeliveryAction.STORE): DeliveryStatus.STORED,
    # a commitment that was given up, and reported after all
    (DeliveryStatus.FAILED, DeliveryAction.DELIVER): DeliveryStatus.DELIVERED,
}


def next_job_status(status: JobStatus, action: JobAction) -> JobStatus:
    """Return the status that follows; raise IllegalTransition where the table has none."""
    try:
        return JOB_TRANSITIONS[status, action]
    except KeyError:
        raise IllegalTransition(f"a {status} job cannot {action}") from None


def next_delivery_status(status: DeliveryStatus, action: DeliveryAction) -> DeliveryStatus:
    """Return the status that follows; raise IllegalTransition where the table has none."""
    try:
        return DELIVERY_TRANSITIONS[status, action]
    except KeyError:
        raise IllegalTransition(f"a {status} delivery cannot {action}") from None


class StudyContext(BaseModel):
    """Whose ECG it is and what it was ordered as: copied from the source, never invented.

    Fields carry the DICOM attribute's value in its DICOM form ("" = not known): PatientName as PN, dates as DA, times
    as TM, date-times as DT.  Strings are already decoded to Unicode.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    patient_id: str = ""
    issuer_of_patient_id: str = ""
    patient_name: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    study_instance_uid: str = ""
    study_date: str = ""
    study_time: str = ""
    study_id: str = ""
    study_description: str = ""
    accession_number: str = ""
    referring_physician_name: str = ""
    acquisition_date_time: str = ""  # when the ECG was recorded, if the source says so
    timezone_offset_from_utc: str = ""
    placer_order_number: str = ""
    placer_order_issuer: str = ""  # who gave it: namespace^universal ID^type (HL7 EI-2 to EI-4)
    filler_order_number: str = ""
    filler_order_issuer: str = ""  # likewise
    institution_name: str = ""
    source_sop_class_uid: str = ""
    source_sop_instance_uid: str = ""
    source_series_instance_uid: str = ""
    source_manufacturer: str = ""
    source_manufacturer_model_name: str = ""
    source_device_serial_number: str = ""
    request_attributes_json: str = ""  # RequestAttributesSequence items as a DICOM JSON array, or ""


def utc_now() -> datetime:
    """Return the time now, aware, in UTC."""
    return datetime.now(UTC)


def new_id() -> str:
    """Return a new job id: a random UUID, also the name of the job's spool folder."""
    return str(uuid.uuid4())


class UtcDateTime(TypeDecorator[datetime]):
    """An aware date-time, kept in UTC: SQLite itself forgets the time zone."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn an aware value into naive UTC; raise ValueError for a naive one."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a date-time without time zone")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the time zone back."""
        return None if value is None else value.replace(tzinfo=UTC)


class Job(SQLModel, table=True):
    """One accepted object.

    `source_key` alone is unique: the same SOP Instance UID is the same object whoever sends it.
    """

    id: str = Field(default_factory=new_id, primary_key=True)
    source: str  # "dicom:<calling AE title>" | "folder:<path>" | "submit"
    source_key: str = Field(unique=True)  # SOP Instance UID, or `gateway.intake.file_key` of a file
    media_type: str  # "application/dicom" | "application/pdf" | "image/png" | ...
    status: JobStatus = Field(default=JobStatus.QUEUED, index=True)
    reason: str = ""  # why it needs a person or failed, in words, no patient data
    attempts: int = 0
    study_context_json: str = "{}"
    destinations_json: str = "null"  # names, or null for every destination
    created_at: datetime = Field(default_factory=utc_now, index=True, sa_type=UtcDateTime)
    updated_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    lease_expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    worker: str = ""
    unmatched: bool = Field(default=False, index=True)  # waits for an order, or a person, to say whose it is
    revision: int = 0  # how often it ran again after something of it had been delivered
    confirmed_by: str = ""  # who looked at the result as it is now and found it right


class Page(SQLModel, table=True):
    """One page (frame) of a job, and what became of it."""

    __table_args__ = (UniqueConstraint("job_id", "page_number"),)

    id: int | None = Field(default=None, primary_key=True)
    job_id: str = Field(foreign_key="job.id", index=True)
    page_number: int  # from 1
    status: JobStatus  # DONE | NEEDS_REVIEW | FAILED
    reason: str = ""
    layout: str = ""
    layout_score: float | None = None
    estimated_snr_db: float | None = None
    coverage: float | None = None  # mean over the layout's leads
    quality_json: str = "{}"
    waveform_sop_instance_uid: str = ""
    seconds: float | None = None  # digitization time


class Delivery(SQLModel, table=True):
    """One page's result on its way to one destination."""

    __table_args__ = (UniqueConstraint("job_id", "page_number", "destination", "artefact"),)

    id: int | None = Field(default=None, primary_key=True)
    job_id: str = Field(foreign_key="job.id", index=True)
    page_number: int
    destination: str = Field(index=True)
    kind: str  # "dicom" | "hl7" | "folder"
    status: DeliveryStatus = Field(default=DeliveryStatus.PENDING, index=True)
    attempts: int = 0
    asked: int = 0  # how often the peer was asked to commit
    next_attempt_at: datetime = Field(default_factory=utc_now, index=True, sa_type=UtcDateTime)
    response: str = ""  # the peer's answer: "0x0000", "AA", ...; no message bodies
    reason: str = ""
    artefact: str = ""  # file in the job's spool folder that is sent, byte for byte, on every attempt
    identifier: str = ""  # SOP Instance UID or MSH-10
    result_status: str = ""  # of a message, HL7 table 0123: "P", "F" or "C"
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    delivered_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class JobEvent(SQLModel, table=True):
    """The audit trail: what happened to a job, when, by whom."""

    id: int | None = Field(default=None, primary_key=True)
    job_id: str = Field(foreign_key="job.id", index=True)
    at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    action: str  # "RECEIVED", a JobAction, "DELIVERY_...", ...
    actor: str = ""  # "scp", "folder", "worker:<pid>", "outbox", "cli"
    detail: str = ""  # no patient data


class PatientUpdate(BaseModel):
    """What one message says about a patient, in DICOM form; None: nothing, "": that there is none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    patient_id: str
    issuer_of_patient_id: str = ""
    patient_name: str | None = None
    patient_birth_date: str | None = None
    patient_sex: str | None = None


class PatientMerge(BaseModel):
    """One message's word that two records are the same person, and which of them goes on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prior: PatientUpdate
    surviving: PatientUpdate


class OrderUpdate(BaseModel):
    """What one message says about an order; a number that is not told is ""."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    patient: PatientUpdate
    placer_order_number: str = ""
    placer_order_issuer: str = ""
    filler_order_number: str = ""
    filler_order_issuer: str = ""
    accession_number: str = ""
    study_instance_uid: str = ""
    description: str | None = None
    referring_physician_name: str | None = None
    cancelled: bool = False


PatientData = PatientUpdate | PatientMerge | OrderUpdate


class Patient(SQLModel, table=True):
    """A patient as HL7 messages told; fields in their DICOM form."""

    __table_args__ = (UniqueConstraint("patient_id", "issuer_of_patient_id"),)

    id: int | None = Field(default=None, primary_key=True)
    patient_id: str
    issuer_of_patient_id: str = ""
    patient_name: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    merged_into: int | None = Field(default=None, foreign_key="patient.id")
    merged_at: datetime | None = Field(default=None, sa_type=UtcDateTime)  # when the newest word about that was made
    told_at: datetime = Field(sa_type=UtcDateTime)  # when the newest of the messages was made


class Order(SQLModel, table=True):
    """An order as HL7 messages told; at least one of its numbers is not empty."""

    __tablename__ = "patient_order"

    id: int | None = Field(default=None, primary_key=True)
    patient: int = Field(foreign_key="patient.id", index=True)
    placer_order_number: str = Field(default="", index=True)
    placer_order_issuer: str = ""
    filler_order_number: str = Field(default="", index=True)
    filler_order_issuer: str = ""
    accession_number: str = Field(default="", index=True)
    study_instance_uid: str = ""  # in which the order wants its result
    description: str = ""
    referring_physician_name: str = ""
    cancelled: bool = False
    told_at: datetime = Field(sa_type=UtcDateTime)


class ReceivedMessage(SQLModel, table=True):
    """An HL7 message that was taken, and what it was answered: a repeat gets the same answer and changes nothing."""

    __table_args__ = (UniqueConstraint("sending_application", "sending_facility", "control_id", "digest"),)

    id: int | None = Field(default=None, primary_key=True)
    sending_application: str
    sending_facility: str
    control_id: str  # MSH-10
    digest: str  # SHA-256 of the segments after MSH: a sender may use a number twice
    message_type: str  # "ADT^A08"
    data: bytes
    answer: bytes
    received_at: datetime = Field(default_factory=utc_now, index=True, sa_type=UtcDateTime)


class MergeNotice(SQLModel, table=True):
    """A job whose result was delivered under an identity that has since been merged: the archive must be told."""

    id: int | None = Field(default=None, primary_key=True)
    job_id: str = Field(foreign_key="job.id", index=True)
    prior_patient_id: str
    prior_issuer: str = ""
    surviving_patient_id: str
    surviving_issuer: str = ""
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    settled_by: str = ""  # who says that it is done


class Commitment(SQLModel, table=True):
    """One delivery in one request of ours to commit (PS3.4 annex J), and what was reported about it."""

    __table_args__ = (UniqueConstraint("transaction_uid", "delivery"),)

    id: int | None = Field(default=None, primary_key=True)
    transaction_uid: str
    delivery: int = Field(foreign_key="delivery.id", index=True)
    asked_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    reported_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    failure_reason: str = ""  # "0x0112"; "" is committed, or nothing reported yet


class CommitmentRequest(SQLModel, table=True):
    """A modality's request that we commit, until its report was taken there or given up."""

    __table_args__ = (UniqueConstraint("ae_title", "transaction_uid"),)

    id: int | None = Field(default=None, primary_key=True)
    ae_title: str
    host: str  # where it asked from
    transaction_uid: str
    references_json: str  # pairs of SOP class and SOP Instance UID
    asked_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    attempts: int = 0
    next_attempt_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    waiting: bool = Field(default=True, index=True)  # for its report
    reason: str = ""  # why the last attempt to report failed
