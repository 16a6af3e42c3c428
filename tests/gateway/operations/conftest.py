"""These tests run on each database; jobs in every state that retention and backup must tell apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from gateway.domain.artefact import Role
from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.spool.folder import Spool
from gateway.store.jobs import JobResult
from gateway.store.store import Store
from gateway.store.tables import Delivery, Job
from tests.databases import store  # noqa: F401

MakeJob = Callable[..., str]


@pytest.fixture
def make_job(store: Store, spool: Spool) -> MakeJob:  # noqa: F811
    """Make a job that ended in a state, with a source, an artefact, and one delivery for each of these states."""

    def make(status: JobStatus, deliveries: Sequence[DeliveryStatus] = (DeliveryStatus.DELIVERED,)) -> str:
        job = Job(
            source="submit", source_key=f"{status} {deliveries} {len(store.jobs.newest())}", media_type="image/png"
        )
        spool.write_source(job.id, b"source of " + job.id.encode())
        store.jobs.submit(job, "cli")
        if status == JobStatus.QUEUED:
            return job.id
        if status == JobStatus.CANCELLED:
            store.jobs.claim("w", 60)
            store.jobs.fail(job.id, "w", "no ECG")
            store.jobs.cancel(job.id, "cli")
            return job.id
        claimed = store.jobs.claim("w", 60)
        assert claimed is not None and claimed.id == job.id
        if status == JobStatus.RUNNING:
            return job.id
        spool.write_artefact(job.id, "page-1.dcm", b"result of " + job.id.encode())
        made = [
            Delivery(
                job_id=job.id,
                role=Role.WAVEFORM,
                page_number=1,
                destination=f"d{n}",
                kind="dicom",
                artefact="page-1.dcm",
            )
            for n, _ in enumerate(deliveries)
        ]
        store.jobs.complete(job.id, "w", JobResult(status=status, deliveries=made))
        for delivery, state in zip(store.deliveries.of_job(job.id), deliveries, strict=True):
            end(store, delivery, state)
        return job.id

    return make


def end(store: Store, delivery: Delivery, state: DeliveryStatus) -> None:  # noqa: F811
    assert delivery.id is not None
    match state:
        case DeliveryStatus.DELIVERED:
            store.deliveries.delivered(delivery.id, "0x0000")
        case DeliveryStatus.STORED:
            store.deliveries.stored(delivery.id, "0x0000")
        case DeliveryStatus.REFUSED:
            store.deliveries.refuse(delivery.id, "refused", "0x0122")
        case DeliveryStatus.FAILED:
            store.deliveries.give_up(delivery.id, "no answer")
        case _:
            assert state == DeliveryStatus.PENDING
