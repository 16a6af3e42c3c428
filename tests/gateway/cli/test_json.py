"""Listings as JSON: stable keys, ISO 8601 times, and patient data only where `--patient` asks for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta

from gateway.domain.context import StudyContext
from gateway.domain.status import JobStatus
from gateway.store.store import Store
from gateway.store.tables import Job

Run = Callable[..., tuple[int, str, str]]

JOB = {"id", "status", "reason", "source", "media_type", "attempts", "revision", "confirmed_by"} | {
    "legal_hold",
    "purged_at",
    "created_at",
    "updated_at",
}
DELIVERY = {"job_id", "page_number", "destination", "kind", "status", "attempts", "response", "reason"} | {
    "identifier",
    "created_at",
    "next_attempt_at",
    "delivered_at",
}


def is_utc(text: str) -> bool:
    return datetime.fromisoformat(text).utcoffset() == timedelta(0)


def test_jobs(run: Run, reviewed: Job) -> None:
    status, output, errors = run("jobs", "--json")
    (job,) = json.loads(output)
    assert (status, errors) == (0, "") and set(job) == JOB
    assert (job["id"], job["status"], job["attempts"]) == (reviewed.id, "NEEDS_REVIEW", 1)
    assert is_utc(job["created_at"]) and is_utc(job["updated_at"])
    assert json.loads(run("jobs", "--json", "--status", "done")[1]) == []
    assert "PID77" not in output and "DOE" not in output


def test_show(run: Run, reviewed: Job) -> None:
    output = run("show", reviewed.id, "--json")[1]
    shown = json.loads(output)
    assert set(shown) == JOB | {"folder", "pages", "deliveries", "events"}
    assert shown["pages"][0]["estimated_snr_db"] == 5.25 and shown["pages"][0]["layout"] == "3x4"
    assert set(shown["deliveries"][0]) == DELIVERY and shown["deliveries"][0]["status"] == "REFUSED"
    assert shown["events"][0]["action"] == "RECEIVED" and is_utc(shown["events"][0]["at"])
    assert "PID77" not in output and "DOE" not in output
    named = json.loads(run("show", reviewed.id, "--json", "--patient")[1])
    assert named["context"] == {"patient_id": "PID77", "patient_name": "DOE^JANE", "accession_number": "A1"}


def test_undelivered(run: Run, reviewed: Job) -> None:
    (delivery,) = json.loads(run("undelivered", "--json")[1])
    assert set(delivery) == DELIVERY
    assert (delivery["job_id"], delivery["response"], delivery["delivered_at"]) == (reviewed.id, "0x0122", None)


def test_unmatched(run: Run, store: Store) -> None:
    context = StudyContext(accession_number="A7")
    job = Job(source="submit", source_key="k", media_type="image/png", context=context, unmatched=True)
    job.status, job.reason = JobStatus.NEEDS_REVIEW, "no order"
    store.jobs.submit(job, "cli")
    (listed,) = json.loads(run("unmatched", "--json")[1])
    assert set(listed) == JOB and listed["reason"] == "no order"
    (listed,) = json.loads(run("unmatched", "--json", "--patient")[1])
    assert (listed["patient_id"], listed["accession_number"]) == ("", "A7")


def test_an_empty_listing_is_an_empty_array(run: Run, store: Store) -> None:
    for command in ("jobs", "unmatched", "undelivered", "merges"):
        assert run(command, "--json")[:2] == (0, "[]\n")


def test_steps(run: Run, store: Store) -> None:
    status, output, _ = run("echo", "drop", "--json")
    (step,) = json.loads(output)
    assert set(step) == {"name", "ok", "found", "advice"} and status == (0 if step["ok"] else 1)
