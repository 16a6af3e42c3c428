"""The command line, as a person at a terminal uses it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.domain.artefact import Role
from gateway.domain.status import JobStatus
from gateway.identity.words import OTHER_PATIENT_ID
from gateway.settings import Settings
from gateway.spool.folder import Spool
from gateway.store.jobs import JobResult
from gateway.store.store import Store
from gateway.store.tables import Delivery, Job, Page
from gateway.worker.worker import Worker
from tests.fake_digitizer import FakeDigitizer, page_pixels, page_png
from tests.gateway.dicom.samples import part10, secondary_capture
from tests.waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[3]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.png"
    path.write_bytes(page_png())
    return path


def submitted(output: str) -> str:
    """The job id that `submit` printed last."""
    return output.strip().splitlines()[-1].split("job ")[1].split()[0]


def test_submit_makes_jobs_and_a_repeat_makes_none(run: Run, store: Store, page: Path) -> None:
    status, output, _ = run("submit", page, "--patient-id", "P1", "--patient-name", "DOE^JANE", "--destination", "drop")
    assert status == 0 and "P1" not in output and "DOE" not in output
    job = store.jobs.get(submitted(output))
    assert (job.status, job.source, job.media_type) == (JobStatus.QUEUED, "submit", "image/png")
    assert job.context.patient_name == "DOE^JANE"
    assert job.destinations_json == '["drop"]'
    _, again, _ = run("submit", page, "--patient-id", "P1", "--patient-name", "DOE^JANE")
    assert submitted(again) == job.id and "known before" in again
    assert len(store.jobs.newest()) == 1


def test_submit_without_identity_waits_for_a_person(run: Run, store: Store, page: Path) -> None:
    _, output, _ = run("submit", page)
    assert store.jobs.get(submitted(output)).status == JobStatus.NEEDS_REVIEW


def test_submit_takes_identity_from_a_dicom_file(run: Run, store: Store, tmp_path: Path) -> None:
    path = tmp_path / "page.dcm"
    path.write_bytes(part10(secondary_capture(page_pixels())))
    _, output, _ = run("submit", path, "--accession-number", "TOLD")
    job = store.jobs.get(submitted(output))
    context = job.context
    assert (context.patient_id, context.accession_number) == ("P-1001", "TOLD")
    assert job.source_key == context.source_sop_instance_uid == "2.25.1003"


def test_submit_names_each_bad_file_and_takes_the_others(run: Run, store: Store, page: Path, tmp_path: Path) -> None:
    empty, text = tmp_path / "empty.png", tmp_path / "notes.txt"
    empty.write_bytes(b"")
    text.write_text("no picture")
    status, output, errors = run("submit", empty, page, text, "--patient-id", "P1")
    assert status == 1
    assert "empty.png: the file is empty" in errors and "notes.txt: the file is no DICOM, PDF" in errors
    assert len(store.jobs.newest()) == 1 and "page.png: job" in output


def test_the_time_of_recording_is_stated_with_a_page_or_later(run: Run, store: Store, page: Path) -> None:
    status, _, errors = run("submit", page, "--patient-id", "P1", "--recorded-at", "22.3.2019")
    assert status == 1 and "acquisition_date_time must be a date-time YYYYMMDDHHMMSS" in errors
    assert store.jobs.newest() == []
    _, output, _ = run("submit", page, "--recorded-at", "20190322")
    job_id = submitted(output)
    assert store.jobs.get(job_id).context.acquisition_date_time == "20190322"
    assert run("identify", job_id, "--patient-id", "P1", "--recorded-at", "20190322101503")[0] == 0
    assert store.jobs.get(job_id).context.acquisition_date_time == "20190322101503"


def test_submit_refuses_an_unknown_destination(run: Run, store: Store, page: Path) -> None:
    status, _, errors = run("submit", page, "--patient-id", "P1", "--destination", "pcas")
    assert status == 2 and "pcas" in errors and store.jobs.newest() == []


def finish(store: Store, job_id: str) -> None:
    assert store.jobs.claim("w", 60.0) is not None
    page = Page(
        job_id=job_id, page_number=1, status=JobStatus.NEEDS_REVIEW, layout="3x4", estimated_snr_db=5.25, coverage=0.5
    )
    sent = Delivery(
        job_id=job_id,
        role=Role.WAVEFORM,
        page_number=1,
        destination="pacs",
        kind="dicom",
        artefact="a.dcm",
        identifier="2.25.7",
    )
    store.jobs.complete(
        job_id,
        "w",
        JobResult(
            status=JobStatus.NEEDS_REVIEW,
            reason="layout [bold]3x4[/bold] is not certain",
            pages=[page],
            deliveries=[sent],
        ),
    )


def test_jobs_lists_and_filters(run: Run, store: Store, page: Path) -> None:
    _, output, _ = run("submit", page, "--patient-id", "P1")
    job_id = submitted(output)
    finish(store, job_id)
    _, listed, _ = run("jobs")
    assert job_id in listed and "NEEDS_REVIEW" in listed and "layout [bold]3x4[/bold] is not certain" in listed
    assert job_id in run("jobs", "--status", "NEEDS_REVIEW")[1]
    assert job_id not in run("jobs", "--status", "DONE")[1]


def test_show_tells_all_but_whose_ecg_it_is_unless_asked(run: Run, store: Store, page: Path) -> None:
    _, output, _ = run("submit", page, "--patient-id", "PID77", "--patient-name", "DOE^JANE")
    job_id = submitted(output)
    finish(store, job_id)
    _, shown, _ = run("show", job_id)
    for word in ("NEEDS_REVIEW", "3x4", "5.25 dB", "pacs", "PENDING", "2.25.7", "RECEIVED", "CLAIM", "HOLD", "[bold]"):
        assert word in shown
    assert "PID77" not in shown and "DOE" not in shown
    _, shown, _ = run("show", job_id, "--patient")
    assert "patient_id: PID77" in shown and "patient_name: DOE^JANE" in shown


def test_retry_and_cancel(run: Run, store: Store, page: Path) -> None:
    _, output, _ = run("submit", page, "--patient-id", "P1")
    job_id = submitted(output)
    finish(store, job_id)
    assert run("retry", job_id)[0] == 0 and store.jobs.get(job_id).status == JobStatus.QUEUED
    assert run("cancel", job_id)[0] == 0 and store.jobs.get(job_id).status == JobStatus.CANCELLED
    status, _, errors = run("cancel", job_id)
    assert status == 1 and "CANCELLED job cannot CANCEL" in errors
    status, _, errors = run("show", "nonsense")
    assert status == 1 and "no job nonsense" in errors


def test_python_m_gateway_lists_its_commands() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=2 * PATIENCE_S
    )
    assert done.returncode == 0
    for command in ("serve", "worker", "submit", "jobs", "show", "retry", "cancel", "check-config", "demo"):
        assert command in done.stdout


def test_unmatched_job_is_identified_and_confirmed(run: Run, store: Store, spool: Spool, page: Path) -> None:
    _, output, _ = run("submit", page, "--accession-number", "A1")
    job_id = submitted(output)
    _, listed, _ = run("unmatched")
    assert job_id in listed and "A1" not in listed
    assert "A1" in run("unmatched", "--patient")[1]
    status, _, errors = run("identify", job_id, "--birth-date", "1961")
    assert status == 1 and "must be a date" in errors
    assert run("identify", job_id, "--patient-id", "P1")[0] == 0
    assert job_id not in run("unmatched")[1]
    assert Worker(Settings(), store, spool, FakeDigitizer(), name="w").run_once()
    assert run("confirm", job_id)[0] == 0
    job = store.jobs.get(job_id)
    assert job.confirmed_by.startswith("cli:")
    assert job.traces_agreed_by == job.patient_agreed_by == job.confirmed_by
    status, _, errors = run("merges", "--settle", "7")
    assert status == 1 and "no merge notice 7" in errors
    assert run("merges")[0] == 0


def test_patient_that_print_contradicts_is_confirmed_in_so_many_words(
    run: Run, store: Store, spool: Spool, page: Path
) -> None:
    job_id = submitted(run("submit", page, "--patient-id", "P1")[1])
    assert Worker(Settings(), store, spool, FakeDigitizer(), name="w").run_once()
    with store.database.write() as session:
        session.get(Job, job_id).reason = f"only 40 % was read; {OTHER_PATIENT_ID}"
    status, _, errors = run("confirm", job_id)
    assert status == 1 and OTHER_PATIENT_ID in errors and "--patient-is-right" in errors and "40 %" not in errors
    assert store.jobs.get(job_id).confirmed_by == ""
    assert run("confirm", job_id, "--patient-is-right")[0] == 0
    assert store.jobs.get(job_id).confirmed_by


def test_correct_queues_a_job_with_corrections_and_names_what_is_wrong(
    run: Run, store: Store, page: Path, tmp_path: Path
) -> None:
    job_id = submitted(run("submit", page, "--patient-id", "P1")[1])
    finish(store, job_id)
    stated = tmp_path / "corrections.json"
    stated.write_text('{"paper_speed_mm_per_s": 0, "rhythm": ["II", "II"]}')
    status, _, errors = run("correct", job_id, "--corrections", stated)
    assert status == 1 and "paper_speed_mm_per_s is 0: must be from 2 to 200" in errors
    assert "rhythm is II more than once: no two strips show one lead" in errors
    stated.write_text("{")
    assert run("correct", job_id, "--corrections", stated)[0] == 1
    assert store.jobs.get(job_id).status == JobStatus.NEEDS_REVIEW
    stated.write_text('{"1": {"paper_speed_mm_per_s": 50}}')
    status, output, _ = run("correct", job_id[:8], "--corrections", stated)
    assert (status, output) == (0, f"job {job_id} is queued again; confirm the result when it is right\n")
    assert store.jobs.get(job_id).corrections_json == '{"1": {"paper_speed_mm_per_s": 50.0}}'


def test_a_destination_is_paused_and_resumed(run: Run, store: Store) -> None:
    assert run("pause", "drop")[0] == 0
    status, output, _ = run("destinations")
    assert status == 0 and "paused by cli:" in output and "pacs" in output
    assert store.destinations.states()["drop"].paused_at is not None
    status, _, error = run("pause", "drop")
    assert status == 1 and "drop is paused since" in error
    assert run("resume", "drop")[0] == 0 and run("resume", "drop")[0] == 1
    assert run("pause", "nobody")[0] == 2
