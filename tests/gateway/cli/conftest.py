"""A settings file, the command line on it, and jobs to list."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from gateway.domain.artefact import Role
from gateway.domain.context import StudyContext
from gateway.domain.status import JobStatus
from gateway.store.jobs import JobResult
from gateway.store.store import Store
from gateway.store.tables import Delivery, Job, Page

Run = Callable[..., tuple[int, str, str]]

SETTINGS = """
[storage]
path = "{path}"
minimum_free_mib = 0
[[dicom.callers]]
ae_title = "SCANNER"
hosts = ["10.0.0.0/8", "::1"]
[[destinations]]
kind = "dicom"
name = "pacs"
host = "127.0.0.1"
port = 104
ae_title = 'A "quoted" AE'
[[destinations]]
kind = "folder"
name = "drop"
path = "out"
[destinations.retry]
attempts = 7
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.toml"
    path.write_text(SETTINGS.format(path=tmp_path), encoding="utf-8")
    return path


@pytest.fixture
def run(config: Path, gateway_command: Run) -> Run:
    """`ecg-gateway COMMAND --config FILE ...` in this process: exit status, standard output, standard error."""
    return partial(gateway_command, config)


@pytest.fixture
def reviewed(store: Store) -> Job:
    """A job of a named patient that waits for review, with one page, and one delivery that the peer refused."""
    context = StudyContext(patient_id="PID77", patient_name="DOE^JANE", accession_number="A1")
    job, _ = store.jobs.submit(Job(source="submit", source_key="k", media_type="image/png", context=context), "cli")
    assert store.jobs.claim("w", 60.0) is not None
    page = Page(job_id=job.id, page_number=1, status=JobStatus.NEEDS_REVIEW, layout="3x4", estimated_snr_db=5.25)
    sent = Delivery(
        job_id=job.id,
        page_number=1,
        destination="pacs",
        kind="dicom",
        role=Role.WAVEFORM,
        artefact="a.dcm",
        identifier="2.25.7",
    )
    store.jobs.complete(
        job.id,
        "w",
        JobResult(status=JobStatus.NEEDS_REVIEW, reason="layout 3x4 is not certain", pages=[page], deliveries=[sent]),
    )
    (delivery,) = store.deliveries.of_job(job.id)
    assert delivery.id is not None
    store.deliveries.refuse(delivery.id, "pacs: status 0x0122", "0x0122")
    return job
