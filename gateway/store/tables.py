"""The database's tables and the words for their states.

A *job* is one accepted object (a DICOM instance or a file).  It has *pages*; every page that holds an ECG gives one
waveform.  A *delivery* is one page's result on its way to one destination.  *Job events* are the audit trail.
*Patients* and *orders* come from HL7 messages; they give the patient of a page that names only an order.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from sqlalchemy import Column, DateTime, Dialect, Enum, Index, String, UniqueConstraint, event, inspect
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, SQLModel

from gateway.domain.account import AccountRole, Origin
from gateway.domain.artefact import Role
from gateway.domain.audit import AuditKind
from gateway.domain.clock import utc_now
from gateway.domain.context import StudyContext
from gateway.domain.review import Stake, Verdict, stake_of
from gateway.domain.status import DeliveryStatus, JobStatus


def new_id() -> str:
    """Return a new job id: a random UUID, also the name of the job's spool folder."""
    return str(uuid.uuid4())


class UtcDateTime(TypeDecorator[datetime]):
    """An aware date-time, kept in UTC: the databases' own time zone changes nothing."""

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


class ContextText(TypeDecorator[StudyContext]):
    """A `StudyContext`, kept as JSON without what is not known."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: StudyContext | None, dialect: Dialect) -> str | None:
        """Return the JSON text."""
        return None if value is None else value.model_dump_json(exclude_defaults=True)

    def process_result_value(self, value: str | None, dialect: Dialect) -> StudyContext | None:
        """Return the value."""
        return None if value is None else StudyContext.model_validate_json(value)


# State words are text, not a type of the database's own: a new word needs no change of a type.
_JOB_STATUS = Enum(JobStatus, native_enum=False)
_DELIVERY_STATUS = Enum(DeliveryStatus, native_enum=False)
_VERDICT = Enum(Verdict, native_enum=False, length=16)
_ACCOUNT_ROLE = Enum(AccountRole, native_enum=False, length=16)
_AUDIT_KIND = Enum(AuditKind, native_enum=False, length=16)
_ORIGIN = Enum(Origin, native_enum=False, length=16)
_ROLE = Enum(Role, native_enum=False, length=16, values_callable=lambda roles: [role.value for role in roles])


class Job(SQLModel, table=True):
    """One accepted object.

    `source_key` alone is unique: the same SOP Instance UID is the same object whoever sends it.  Another object under
    the UID of a job has its digest behind the UID in its key.
    """

    __table_args__ = (
        Index("ix_job_state", "status", "created_at", "id"),
        Index("ix_job_source", "source", "created_at", "id"),
    )

    id: str = Field(default_factory=new_id, primary_key=True)
    source: str  # "dicom:<calling AE title>" | "folder:<path>" | "archive:<run>" | "submit"
    source_key: str = Field(unique=True)  # SOP Instance UID, or `gateway.intake.file_key` of a file
    source_digest: str = ""  # SHA-256 of what was received (`gateway.intake.accept.source_digest`); "" in old rows
    file_name: str = ""  # of a file, as it was sent: it may name a patient
    media_type: str  # "application/dicom" | "application/pdf" | "image/png" | ...
    status: JobStatus = Field(default=JobStatus.QUEUED, sa_column=Column(_JOB_STATUS, nullable=False))
    reason: str = ""  # why it needs a person or failed, in words, no patient data
    attempts: int = 0
    context: StudyContext = Field(default_factory=StudyContext, sa_type=ContextText)
    patient_id: str = Field(default="", index=True)  # this and the next two are `context`'s, to search by
    accession_number: str = Field(default="", index=True)
    study_date: str = Field(default="", index=True)
    search_text: str = ""  # `search_text` of the job
    destinations_json: str = "null"  # names, or null for every destination
    created_at: datetime = Field(default_factory=utc_now, index=True, sa_type=UtcDateTime)
    updated_at: datetime = Field(default_factory=utc_now, index=True, sa_type=UtcDateTime)
    lease_expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    worker: str = ""
    unmatched: bool = Field(default=False, index=True)  # waits for an order, or a person, to give the identity
    revision: int = 0  # how often it ran again after something of it had been delivered
    confirmed_by: str = ""  # who confirmed the result as it is now
    stake: int = Field(default=Stake.NONE, index=True)  # `gateway.domain.review.Stake` of `reason`, to sort by
    reviewer: str = ""  # who has it open for review, until `reviewer_until`
    reviewer_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    traces_agreed_by: str = ""  # who says that the traces of this result are those of the page
    patient_agreed_by: str = ""  # who says that this is the patient
    legal_hold: bool = False  # a person wants its files kept, whatever the retention says
    corrections_json: str = "{}"  # what a person corrected on its pages: by page number, as of `pipeline.Corrections`
    urgent: bool = False  # a person waits for the run
    imported: bool = False  # a run takes the results that came with it, until a person wants its pages read again
    purged_at: datetime | None = Field(default=None, index=True, sa_type=UtcDateTime)  # its files were deleted


def search_text(job: Job) -> str:
    """Return what a job is found by, in lower case: ids, name, numbers and UIDs, and the name of its file."""
    context = job.context
    names = (context.patient_id, context.patient_name, context.accession_number)
    words = (job.id, job.file_name, *names, context.study_instance_uid, context.source_sop_instance_uid)
    return "\n".join(words).replace("^", " ").lower()


@event.listens_for(Job, "before_insert")
@event.listens_for(Job, "before_update")
def _copy_search_fields(_mapper: object, _connection: object, job: Job) -> None:
    """Keep the columns that jobs are searched and sorted by equal to what they stand for."""
    job.patient_id = job.context.patient_id
    job.accession_number = job.context.accession_number
    job.study_date = job.context.study_date
    job.search_text = search_text(job)
    match job.status:
        case JobStatus.NEEDS_REVIEW:
            job.stake = stake_of(job.reason)
        case JobStatus.FAILED:
            job.stake = Stake.UNREAD
        case _:
            job.stake = Stake.NONE
    changes = inspect(job).attrs
    if changes.context.history.deleted and not changes.patient_agreed_by.history.added:
        job.patient_agreed_by = ""  # nobody has said so of the patient it has now


class ReviewDecision(SQLModel, table=True):
    """What a reviewer decided about a job, until it is carried out or taken back."""

    __tablename__ = "review_decision"

    job_id: str = Field(foreign_key="job.id", primary_key=True)
    verdict: Verdict = Field(sa_column=Column(_VERDICT, nullable=False))
    reason: str = ""  # of a rejection, in words
    actor: str
    version: int = 0  # of the job (`Review.version`) when it was taken: what happens after it voids it
    decided_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    due_at: datetime = Field(index=True, sa_type=UtcDateTime)


class Page(SQLModel, table=True):
    """One page (frame) of a job, and what became of it."""

    __table_args__ = (UniqueConstraint("job_id", "page_number"),)

    id: int | None = Field(default=None, primary_key=True)
    job_id: str = Field(foreign_key="job.id", index=True)
    page_number: int  # from 1
    status: JobStatus = Field(sa_column=Column(_JOB_STATUS, nullable=False))  # DONE | NEEDS_REVIEW | FAILED
    reason: str = ""
    layout: str = ""
    layout_score: float | None = None
    estimated_snr_db: float | None = None
    coverage: float | None = None  # mean over the layout's leads
    quality_json: str = "{}"
    waveform_sop_instance_uid: str = Field(default="", index=True)
    seconds: float | None = None  # digitization time


class Delivery(SQLModel, table=True):
    """One page's result on its way to one destination."""

    __table_args__ = (
        UniqueConstraint("job_id", "page_number", "destination", "artefact"),
        Index("ix_delivery_state", "status", "destination", "job_id"),
        Index("ix_delivery_line", "status", "destination", "attempts", "id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    job_id: str = Field(foreign_key="job.id", index=True)
    page_number: int
    destination: str = Field(index=True)
    kind: str  # "dicom" | "hl7" | "fhir" | ...
    status: DeliveryStatus = Field(default=DeliveryStatus.PENDING, sa_column=Column(_DELIVERY_STATUS, nullable=False))
    attempts: int = 0
    asked: int = 0  # how often the peer was asked to commit
    next_attempt_at: datetime = Field(default_factory=utc_now, index=True, sa_type=UtcDateTime)
    response: str = ""  # the peer's answer: "0x0000", "AA", ...; no message bodies
    reason: str = ""
    artefact: str = ""  # file in the job's spool folder that is sent, byte for byte, on every attempt
    # SOP Instance UID, MSH-10 or the identifier of a DiagnosticReport
    identifier: str = Field(default="", index=True)
    role: Role = Field(sa_column=Column(_ROLE, nullable=False))  # what the artefact is
    revision: int = 0  # of the job's result that it belongs to
    final: bool = False  # a person had confirmed the result
    result_status: str = ""  # of a message: "P", "F", "C", or "X" and "W", withdrawn (`Artefact`)
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    delivered_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class DestinationState(SQLModel, table=True):
    """How a destination fares, and whether a person has paused it; one that never had anything to send has no row."""

    __tablename__ = "destination_state"

    name: str = Field(primary_key=True)
    paused_at: datetime | None = Field(default=None, sa_type=UtcDateTime)  # None: it is not
    paused_by: str = ""
    delivered_at: datetime | None = Field(default=None, sa_type=UtcDateTime)  # when something arrived last
    failed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)  # when something last did not
    error: str = ""  # what was wrong then


class JobEvent(SQLModel, table=True):
    """The audit trail: what happened to a job, when, by whom."""

    id: int | None = Field(default=None, primary_key=True)
    job_id: str = Field(foreign_key="job.id", index=True)
    at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    action: str  # "RECEIVED", a JobAction, "DELIVERY_...", ...
    actor: str = ""  # "scp", "folder", "worker:<pid>", "outbox", "cli"
    detail: str = ""  # no patient data


class Patient(SQLModel, table=True):
    """A patient as HL7 messages describe one; fields in their DICOM form."""

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
    """An order as HL7 messages describe one; at least one of its numbers is not empty."""

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
    """A job with a result that was delivered under an identity that was merged later: the archive must follow."""

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


class WorkerSeen(SQLModel, table=True):
    """When a worker was last seen."""

    name: str = Field(primary_key=True)
    seen_at: datetime = Field(sa_type=UtcDateTime)


class Node(SQLModel, table=True):
    """A machine that runs the service, as it was last heard of."""

    name: str = Field(primary_key=True)  # `[storage] node`; "" where there is one machine
    instance: str  # of the process, random: another process of this name takes its place
    place: str  # "<host>:<storage path>": there the lock of the folder says whether a process of this name runs
    version: str  # of the gateway
    started_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    seen_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    load: float = 0.0  # runnable processes a processor, over the last minute
    stopped: bool = False  # by itself, in good order


class Duty(SQLModel, table=True):
    """What one node does for all, until its lease ends or it gives it back."""

    name: str = Field(primary_key=True)  # "outbox PACS", "folder /srv/scans", "upkeep", ...
    node: str
    instance: str
    until: datetime = Field(sa_type=UtcDateTime)


class Account(SQLModel, table=True):
    """A person who logs in with a password of ours."""

    name: str = Field(primary_key=True)  # `gateway.domain.account.account_name`
    full_name: str = ""
    role: AccountRole = Field(sa_column=Column(_ACCOUNT_ROLE, nullable=False))
    password_hash: str  # argon2, with its parameters and salt
    must_change: bool = False  # another person has set the password
    disabled: bool = False
    failures: int = 0  # log-ins in a row with a wrong password
    locked_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class WebSession(SQLModel, table=True):
    """A browser that a person has logged in with."""

    __tablename__ = "web_session"

    digest: str = Field(primary_key=True)  # SHA-256 of the id in its cookie
    name: str = Field(index=True)
    full_name: str = ""
    role: AccountRole = Field(sa_column=Column(_ACCOUNT_ROLE, nullable=False))
    origin: Origin = Field(sa_column=Column(_ORIGIN, nullable=False))
    opened_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    seen_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)  # when the person last did something


class ApiToken(SQLModel, table=True):
    """A program's token for the REST interface; one that ended stays, because its name is in the trail."""

    __tablename__ = "api_token"

    id: int | None = Field(default=None, primary_key=True)
    digest: str = Field(unique=True)  # SHA-256 of the token
    name: str  # what it is for
    owner: str = Field(index=True)  # who answers for it: an account, or a name where there is none
    scopes: str  # of `gateway.domain.account.ApiScope`, with spaces between
    created_by: str
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    expires_at: datetime = Field(sa_type=UtcDateTime)
    used_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    revoked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class SubmissionKey(SQLModel, table=True):
    """The idempotency key of something that was submitted with a token: it stands for this and nothing else."""

    __tablename__ = "submission_key"

    token: int = Field(foreign_key="api_token.id", primary_key=True)
    key: str = Field(primary_key=True)
    digest: str  # SHA-256 of the page, its identity and its destinations
    created_at: datetime = Field(default_factory=utc_now, index=True, sa_type=UtcDateTime)


class AuditEntry(SQLModel, table=True):
    """What the audit repository will be told, until it was told; the trail of the jobs stays where it is."""

    __tablename__ = "audit_entry"

    id: int | None = Field(default=None, primary_key=True)
    at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    kind: AuditKind = Field(sa_column=Column(_AUDIT_KIND, nullable=False))
    name: str = ""  # of the person, or the part of the gateway
    full_name: str = ""
    address: str = ""
    job_id: str = ""
    patient_id: str = ""  # of an entry that is about no job
    issuer_of_patient_id: str = ""
    patient_name: str = ""
    detail: str = ""
    failed: bool = False  # it was refused, or could not be done


class AuditPosition(SQLModel, table=True):
    """The newest line of the jobs' trail that the audit repository was told; no row: there is no repository."""

    __tablename__ = "audit_position"

    id: int = Field(primary_key=True)  # there is one row
    event: int
