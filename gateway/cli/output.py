"""What commands print: tables for a person, JSON for a program, and the steps of a check.

The keys of the JSON are the names of the store's columns and stay as they are; a time is ISO 8601 in UTC.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from gateway.delivery.steps import Step
from gateway.domain.clock import utc_now
from gateway.store.tables import Delivery, Job, JobEvent, MergeNotice, Page

_JOB = {
    "id",
    "status",
    "reason",
    "source",
    "media_type",
    "attempts",
    "revision",
    "confirmed_by",
    "legal_hold",
    "purged_at",
    "created_at",
    "updated_at",
}
_PAGE = {
    "page_number",
    "status",
    "reason",
    "layout",
    "layout_score",
    "estimated_snr_db",
    "coverage",
    "waveform_sop_instance_uid",
    "seconds",
}
_DELIVERY = {
    "job_id",
    "page_number",
    "destination",
    "kind",
    "status",
    "attempts",
    "response",
    "reason",
    "identifier",
    "created_at",
    "next_attempt_at",
    "delivered_at",
}
_EVENT = {"at", "action", "actor", "detail"}
_MERGE = {"id", "job_id", "created_at"}
_MERGE_IDS = {"prior_patient_id", "prior_issuer", "surviving_patient_id", "surviving_issuer"}


def job_fields(job: Job) -> dict[str, Any]:
    """Return a job for JSON, without its patient."""
    return job.model_dump(mode="json", include=_JOB)


def page_fields(page: Page) -> dict[str, Any]:
    """Return a page for JSON."""
    return page.model_dump(mode="json", include=_PAGE)


def delivery_fields(delivery: Delivery) -> dict[str, Any]:
    """Return a delivery for JSON."""
    return delivery.model_dump(mode="json", include=_DELIVERY)


def event_fields(event: JobEvent) -> dict[str, Any]:
    """Return a line of a job's audit trail for JSON."""
    return event.model_dump(mode="json", include=_EVENT)


def merge_fields(notice: MergeNotice, *, patient: bool) -> dict[str, Any]:
    """Return a merge notice for JSON; the patient IDs only with `patient`."""
    return notice.model_dump(mode="json", include=_MERGE | _MERGE_IDS if patient else _MERGE)


def print_json(value: Any) -> None:
    """Print a value of plain types."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def console() -> Console:
    """Return a console that prints text as it is, and wraps it for a person's terminal only."""
    return Console(width=None if sys.stdout.isatty() else 1000, markup=False, highlight=False, emoji=False)


def print_table(table: Table) -> None:
    """Print a table."""
    console().print(table)


def print_steps(steps: Iterable[Step], *, as_json: bool = False) -> None:
    """Print each step when it is done; end the process, with exit status 1 if a step failed."""
    sys.exit(0 if show_steps(steps, as_json=as_json) else 1)


def show_steps(steps: Iterable[Step], *, as_json: bool = False) -> bool:
    """Print each step when it is done; return whether none failed."""
    done: list[Step] = []
    for step in steps:
        done.append(step)
        if not as_json:
            print(f"{'ok    ' if step.ok else 'FAILED'} {step.name}: {step.found}", flush=True)
            if step.advice:
                print(f"       what to do: {step.advice}")
    if as_json:
        print_json([asdict(step) for step in done])
    return all(step.ok for step in done)


def age(job: Job) -> str:
    """Return how old a job is, in words."""
    seconds = int((utc_now() - job.created_at).total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def files_in_words(job: Job) -> str:
    """Return what is special about the files of a job: that they were deleted, or are on legal hold."""
    if job.purged_at is not None:
        return f"deleted {job.purged_at:%Y-%m-%d %H:%M} UTC"
    return "legal hold" if job.legal_hold else ""


def figure(value: float | None, unit: str) -> str:
    """Return a measured value with its unit; "" where nothing was measured."""
    return "" if value is None else f"{value:.2f} {unit}".strip()
