"""The states of jobs and deliveries, and the allowed transitions; an illegal pair raises `IllegalTransition`."""

from __future__ import annotations

from enum import StrEnum

from gateway.errors import IllegalTransition


class JobStatus(StrEnum):
    """The state of a job."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    DONE = "DONE"
    NEEDS_REVIEW = "NEEDS_REVIEW"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class JobAction(StrEnum):
    """The events of a job."""

    CLAIM = "CLAIM"  # a worker takes it
    COMPLETE = "COMPLETE"  # digitized, and not doubtful
    HOLD = "HOLD"  # a person must decide, whether it was digitized or not
    FAIL = "FAIL"  # no result is possible
    RELEASE = "RELEASE"  # return to the queue: the lease expired, or the worker stopped
    RETRY = "RETRY"  # a person requests another run
    CANCEL = "CANCEL"  # a person cancels it
    REJECT = "REJECT"  # a person found that the page gives no result
    CONFIRM = "CONFIRM"  # a person checked the result: it is final
    CORRECT = "CORRECT"  # a person corrects how its pages are read
    REPOINT = "REPOINT"  # its patient was merged into another: the artefacts are made again for that one


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
    (JobStatus.DONE, JobAction.RETRY): JobStatus.QUEUED,  # the delivered result will be corrected
    (JobStatus.DONE, JobAction.REJECT): JobStatus.CANCELLED,
    (JobStatus.NEEDS_REVIEW, JobAction.REJECT): JobStatus.CANCELLED,
    (JobStatus.FAILED, JobAction.REJECT): JobStatus.CANCELLED,
    (JobStatus.CANCELLED, JobAction.REJECT): JobStatus.CANCELLED,  # what was on its way has arrived: it is withdrawn
    (JobStatus.DONE, JobAction.CONFIRM): JobStatus.DONE,
    (JobStatus.NEEDS_REVIEW, JobAction.CONFIRM): JobStatus.DONE,
    (JobStatus.NEEDS_REVIEW, JobAction.CORRECT): JobStatus.QUEUED,
    (JobStatus.FAILED, JobAction.CORRECT): JobStatus.QUEUED,
    (JobStatus.DONE, JobAction.CORRECT): JobStatus.QUEUED,
    (JobStatus.QUEUED, JobAction.REPOINT): JobStatus.QUEUED,
    (JobStatus.RUNNING, JobAction.REPOINT): JobStatus.QUEUED,
    (JobStatus.DONE, JobAction.REPOINT): JobStatus.QUEUED,
    (JobStatus.NEEDS_REVIEW, JobAction.REPOINT): JobStatus.QUEUED,
}


class DeliveryStatus(StrEnum):
    """The state of a delivery."""

    PENDING = "PENDING"
    STORED = "STORED"  # the peer has it, and has not committed it yet
    DELIVERED = "DELIVERED"
    REFUSED = "REFUSED"
    FAILED = "FAILED"  # all attempts were used
    CANCELLED = "CANCELLED"


ARRIVED = (DeliveryStatus.STORED, DeliveryStatus.DELIVERED)  # the peer has it, committed to keep it or not
UNSETTLED = (DeliveryStatus.PENDING, DeliveryStatus.STORED)  # something still happens without a person
UNDELIVERED = (DeliveryStatus.REFUSED, DeliveryStatus.FAILED)  # it ended without arriving; a person may send it again
CANCELLABLE = (DeliveryStatus.PENDING, *UNDELIVERED)  # it has not arrived, and could still be sent


def has_arrived(status: DeliveryStatus, asked: int) -> bool:
    """Return whether a delivery arrived at some time.

    A peer that was asked to commit had taken it, whatever became of that.
    """
    return status in ARRIVED or asked > 0


class DeliveryAction(StrEnum):
    """The events of a delivery."""

    STORE = "STORE"  # the peer has it, and must commit it
    DELIVER = "DELIVER"
    DEFER = "DEFER"
    REFUSE = "REFUSE"
    GIVE_UP = "GIVE_UP"
    RETRY = "RETRY"
    CANCEL = "CANCEL"
    RENEW = "RENEW"  # the job ran again: the new result replaces one that was never delivered


DELIVERY_TRANSITIONS: dict[tuple[DeliveryStatus, DeliveryAction], DeliveryStatus] = {
    (DeliveryStatus.PENDING, DeliveryAction.DELIVER): DeliveryStatus.DELIVERED,
    (DeliveryStatus.PENDING, DeliveryAction.STORE): DeliveryStatus.STORED,
    (DeliveryStatus.STORED, DeliveryAction.DELIVER): DeliveryStatus.DELIVERED,
    (DeliveryStatus.STORED, DeliveryAction.DEFER): DeliveryStatus.PENDING,  # the peer lost it: it is sent again
    (DeliveryStatus.STORED, DeliveryAction.REFUSE): DeliveryStatus.REFUSED,
    (DeliveryStatus.STORED, DeliveryAction.GIVE_UP): DeliveryStatus.FAILED,
    (DeliveryStatus.PENDING, DeliveryAction.DEFER): DeliveryStatus.PENDING,
    (DeliveryStatus.PENDING, DeliveryAction.REFUSE): DeliveryStatus.REFUSED,
    (DeliveryStatus.PENDING, DeliveryAction.GIVE_UP): DeliveryStatus.FAILED,
    (DeliveryStatus.PENDING, DeliveryAction.CANCEL): DeliveryStatus.CANCELLED,
    # another result replaced it: it must not be sent again
    (DeliveryStatus.REFUSED, DeliveryAction.CANCEL): DeliveryStatus.CANCELLED,
    (DeliveryStatus.FAILED, DeliveryAction.CANCEL): DeliveryStatus.CANCELLED,
    (DeliveryStatus.REFUSED, DeliveryAction.RETRY): DeliveryStatus.PENDING,
    (DeliveryStatus.FAILED, DeliveryAction.RETRY): DeliveryStatus.PENDING,
    (DeliveryStatus.REFUSED, DeliveryAction.RENEW): DeliveryStatus.PENDING,
    (DeliveryStatus.FAILED, DeliveryAction.RENEW): DeliveryStatus.PENDING,
    (DeliveryStatus.CANCELLED, DeliveryAction.RENEW): DeliveryStatus.PENDING,
    # cancelled during the send: it was delivered
    (DeliveryStatus.CANCELLED, DeliveryAction.DELIVER): DeliveryStatus.DELIVERED,
    (DeliveryStatus.CANCELLED, DeliveryAction.STORE): DeliveryStatus.STORED,
    # the commitment result arrived after the last attempt
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
