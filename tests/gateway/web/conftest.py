"""A gateway with jobs in every state, made through the store's own methods."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

import cv2
import numpy as np
import pytest

from gateway.domain.artefact import Role
from gateway.domain.clock import utc_now
from gateway.domain.context import StudyContext
from gateway.domain.status import JobStatus
from gateway.spool.folder import Spool
from gateway.store.jobs import JobResult
from gateway.store.store import Store
from gateway.store.tables import Delivery, Job, Page
from pipeline import LEADS

CONTEXT = StudyContext(
    patient_id="MRN-SECRET", patient_name="Secret^Ada", patient_birth_date="19610504", accession_number="ACC-SECRET"
)


@dataclass
class Sample:
    queued: str
    running: str
    done: str
    review: str
    failed: str


def picture(width: int = 600, height: int = 400) -> bytes:
    pixels = np.full((height, width, 3), 255, np.uint8)
    pixels[::20], pixels[:, ::20] = (220, 205, 250), (220, 205, 250)
    x = np.arange(width)
    y = height / 2 + 60 * np.exp(-(((x % 120) - 60.0) ** 2) / 30) * -1
    cv2.polylines(pixels, [np.stack([x, y], 1).astype(np.int32)], False, (30, 30, 30), 2)
    done, data = cv2.imencode(".png", pixels)
    assert done
    return bytes(data)


def quality(coverage: float) -> str:
    shares = {lead.value: 0.99 for lead in LEADS} | {"V3": coverage}
    return json.dumps(
        {
            "coverage": shares,
            "confidence": shares,
            "einthoven_residual_mv": 0.021,
            "limb_leads_agree": True,
            "layout_score": 0.93,
            "estimated_snr_db": 17.34,
            "warnings": [] if coverage > 0.8 else ["lead V3 was read to 42 %"],
            "rhythm": ["II"],
            "paper_speed_mm_per_s": 25.0,
            "paper_speed_source": "text",
            "gain_mm_per_mv": 10.0,
            "gain_source": "pulse",
            "weights_sha256": {},
        }
    )


def submit(store: Store, spool: Spool, source: str, minutes_ago: float = 0) -> str:
    job = Job(
        source=source,
        source_key=f"key-{source}-{minutes_ago}",
        media_type="application/dicom",
        context=CONTEXT,
        created_at=utc_now() - timedelta(minutes=minutes_ago),
    )
    spool.write_source(job.id, b"source")
    store.jobs.submit(job, "scp")
    return job.id


def add_page(job_id: str, number: int, coverage: float = 0.99, status: JobStatus = JobStatus.DONE) -> Page:
    return Page(
        job_id=job_id,
        page_number=number,
        status=status,
        layout="3x4+1",
        layout_score=0.93,
        estimated_snr_db=17.34,
        coverage=coverage,
        quality_json=quality(coverage),
        waveform_sop_instance_uid="2.25.1234567890",
        seconds=3.25,
    )


def add_delivery(job_id: str, number: int, destination: str, kind: str, identifier: str) -> Delivery:
    return Delivery(
        job_id=job_id,
        role=Role.WAVEFORM,
        page_number=number,
        destination=destination,
        kind=kind,
        artefact="x",
        identifier=identifier,
    )


def finish(store: Store, spool: Spool, job_id: str, coverage: float, status: JobStatus, reason: str = "") -> None:
    """Complete a job that is claimed by `w`, with one page, its pictures and three deliveries."""
    for name in ("page-1.png", "page-1.overlay.png"):
        spool.write_artefact(job_id, name, picture())
    deliveries = [
        add_delivery(job_id, 1, "pacs", "dicom", "2.25.1234567890"),
        add_delivery(job_id, 1, "ehr", "hl7", "GWABCDEF"),
        add_delivery(job_id, 1, "archive", "folder", "2.25.1234567890"),
    ]
    store.jobs.complete(
        job_id,
        "w",
        JobResult(status=status, reason=reason, pages=[add_page(job_id, 1, coverage, status)], deliveries=deliveries),
    )


@pytest.fixture
def add_job(store: Store, spool: Spool) -> Callable[[str, float], str]:
    return lambda source, minutes_ago: submit(store, spool, source, minutes_ago)


@pytest.fixture
def sample(store: Store, spool: Spool) -> Iterator[Sample]:
    done = submit(store, spool, "dicom:CART1", 50)
    assert store.jobs.claim("w", 60).id == done
    finish(store, spool, done, 0.99, JobStatus.DONE)
    pacs, ehr, archive = store.deliveries.of_job(done)
    store.deliveries.delivered(pacs.id, "0x0000")
    store.deliveries.refuse(ehr.id, "ehr: answered AR", "AR")
    store.deliveries.defer(archive.id, "archive: no space", utc_now() + timedelta(hours=1))
    review = submit(store, spool, "folder:/data/scans/ward 3", 40)
    assert store.jobs.claim("w", 60).id == review
    finish(store, spool, review, 0.42, JobStatus.NEEDS_REVIEW, "lead V3 was read to 42 %")
    failed = submit(store, spool, "dicom:CART2", 30)
    assert store.jobs.claim("w", 60).id == failed
    page = Page(job_id=failed, page_number=1, status=JobStatus.FAILED, reason="there is no ECG grid on the page")
    store.jobs.complete(failed, "w", JobResult(status=JobStatus.FAILED, reason=page.reason, pages=[page]))
    running = submit(store, spool, "dicom:CART1", 20)
    assert store.jobs.claim("worker-0-1234", 60).id == running
    queued = submit(store, spool, "folder:/data/scans/ward 3", 10)
    yield Sample(queued=queued, running=running, done=done, review=review, failed=failed)
