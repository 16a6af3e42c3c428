"""What is told to the site's audit repository besides the trail of the jobs (PS3.15 A.5)."""

from __future__ import annotations

from enum import StrEnum


class AuditKind(StrEnum):
    """The kinds of entry."""

    START = "START"  # the gateway
    STOP = "STOP"
    VIEW = "VIEW"  # a person saw the patient of a job, or what was received for it
    DECIDE = "DECIDE"  # a person decided about a job
    LOG_IN = "LOG_IN"
    LOG_OUT = "LOG_OUT"
    ACCOUNT = "ACCOUNT"  # what a person may do was changed
    ALERT = "ALERT"  # somebody tried what he may not
    PATIENT = "PATIENT"  # a message told of a patient
    QUERY = "QUERY"  # a worklist or archive was asked about a patient
    EXPORT = "EXPORT"  # a person took a copy of a list of jobs
    CONFIGURE = "CONFIGURE"  # a person paused or resumed a destination
