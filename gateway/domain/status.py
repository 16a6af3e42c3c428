"""The states of jobs and deliveries, and what may happen in each: an illegal pair raises `IllegalTransition`."""

from __future__ import annotations

from enum import StrEnum

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
