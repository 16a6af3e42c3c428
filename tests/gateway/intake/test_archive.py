"""What an archive run has read becomes jobs: each file once, nothing digitized again, what is doubtful held."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import cv2
import pytest

from gateway.domain.context import StudyContext
from gateway.domain.status import JobStatus
from gateway.intake.accept import Intake
from gateway.intake.recover import check_origin
from gateway.intake.upload import Upload, take_in
from gateway.results.person import correct
from gateway.settings import DicomDestination, Settings
from gateway.spool.folder import Spool
from gateway.store.queue.batches import Batch, BatchAction
from gateway.store.store import Store
from gateway.worker.archive import read_pages
from gateway.worker.worker import Worker
from pipeline import Calibration, Corrections, Digitization, Lead, PageImage, TextLine
from pipeline.archive.manifest import Entry
from pipeline.archive.output import RUN, Output
from pipeline.archive.rows import Row, failure, row_of, to_parquet
from tests.fake_digitizer import FakeDigitizer, fake_digitization, page_pixels, page_png
from tests.fakes import due_anywhere
from tests.gateway.dicom.samples import part10, secondary_capture
from tests.waiting import PATIENCE_S, wait_for

Command = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).resolve().parents[3]
PACS = DicomDestination(name="pacs", host="127.0.0.1", port=104, ae_title="PACS")
RUN_ID = "ab" * 32


class NoDigitizer(FakeDigitizer):
    """Fails the test where a page is digitized."""

    def digitize(self, page: PageImage, **more: Any) -> Digitization:
        raise AssertionError("a page was digitized again")


class Archive:
    """An archive run in `tmp_path`, and a gateway that takes it over."""

    def __init__(self, folder: Path, store: Store, spool: Spool) -> None:
        self.folder, self.store, self.spool = folder, store, spool
        self.output = Output(str(folder / "run"))
        self.rows: list[Row] = []
        self.config = folder / "gateway.toml"
        self.config.write_text(
            f'[storage]\npath = "{folder}"\nminimum_free_mib = 0\n'
            '[[destinations]]\nkind = "dicom"\nname = "pacs"\nhost = "127.0.0.1"\nport = 104\nae_title = "PACS"\n'
        )

    def add(self, name: str, *reads: Digitization | str, patient: str | None = "P1", day: date | None = None) -> Path:
        """Put a file into the run; each of `reads` is what was read of a page, or why nothing was."""
        path = self.folder / name
        if not path.exists():
            pages = [page_pixels(seed=10 * len(self.rows) + k)[..., ::-1] for k in range(len(reads))]
            path.write_bytes(bytes(cv2.imencodemulti(".tiff", pages)[1]))
        entry, data = Entry(str(path), patient, day), path.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        for page, read in zip(read_pages(data), reads, strict=True):
            result = read if isinstance(read, str) else replace(read, page=page)
            number = page.page_number
            self.rows.append(
                failure(entry, number, "TraceNotFound", result, sha256)
                if isinstance(result, str)
                else row_of(entry, sha256, result)
            )
        return path

    def write(self, parts: int = 1) -> None:
        """Write the run, all files in one part of `parts`."""
        files = len({row.path for row in self.rows})
        run = {"manifest": RUN_ID, "files": files * parts, "files_a_part": files, "settings": {"version": "9.9"}}
        self.output.write(RUN, json.dumps(run).encode())
        self.output.write_part(0, to_parquet(self.rows))

    def work(self, digitizer: FakeDigitizer | None = None, **settings: Any) -> None:
        """Finish all jobs that are queued."""
        known = Settings.model_validate({"destinations": (PACS,), "storage": {"path": self.folder}} | settings)
        worker = Worker(known, self.store, self.spool, digitizer or NoDigitizer(), name="w1")
        while worker.run_once():
            pass


@pytest.fixture
def archive(tmp_path: Path, sqlite_store: Store, spool: Spool) -> Archive:
    return Archive(tmp_path, sqlite_store, spool)  # the database that the command opens


@pytest.fixture(scope="module")
def read() -> Digitization:
    """What the fake digitizer makes of any of its pages."""
    return fake_digitization(PageImage(pixels=page_pixels()), Calibration())


def test_a_run_leaves_as_if_the_gateway_had_digitized_it(
    archive: Archive, read: Digitization, gateway_command: Command
) -> None:
    archive.add("a.tiff", read, "there is no ECG", patient="P1", day=date(2020, 1, 2))
    archive.add("b.tiff", "there is no ECG")
    archive.rows.append(failure(Entry("/scans/c.png"), None, "missing", "there is no such file"))
    archive.write()
    status, said, named = gateway_command(archive.config, "import", archive.output.place)
    assert (status, said) == (
        1,
        "3 of 3 files: 1 new jobs (0 held for a person, 1 pages without a result), 0 known before, 2 left out\n",
    )
    assert [line.rpartition("/")[2] for line in named.splitlines()] == [
        "a.tiff page 2: there is no ECG",
        "b.tiff page 1: there is no ECG",
        "c.png: there is no such file",
    ]
    (job,) = archive.store.jobs.newest()
    assert (job.source, job.file_name, job.context.patient_id) == (f"archive:{RUN_ID[:16]}", "a.tiff", "P1")
    archive.work()
    job = archive.store.jobs.get(job.id)
    assert job.status == JobStatus.NEEDS_REVIEW
    assert job.reason == "page 2: not read in the archive run: there is no ECG"
    first, second = archive.store.jobs.pages(job.id)
    assert (first.status, first.layout, first.seconds) == (JobStatus.DONE, "3x4", None)
    assert (second.status, second.seconds) == (JobStatus.FAILED, None)
    figures = json.loads(first.quality_json)
    assert figures["archive_run"] == {"id": RUN_ID, "version": "9.9"} and figures["weights_sha256"] == {
        "fake": "0" * 64
    }
    sent = [(each.artefact, each.page_number) for each in archive.store.deliveries.of_job(job.id)]
    assert sent == [("page-1.12-lead.dcm", 1)]
    assert f"page 1: read in archive run {RUN_ID}, version 9.9" in [e.detail for e in archive.store.jobs.events(job.id)]
    assert archive.spool.has(job.id, "page-1.overlay.png")
    assert gateway_command(archive.config, "import", archive.output.place)[1].startswith(
        "3 of 3 files: 0 new jobs (0 held for a person, 0 pages without a result), 1 known before, 2 left out"
    )


def test_what_a_person_must_decide_is_held(archive: Archive, read: Digitization, gateway_command: Command) -> None:
    line = TextLine(text="Patient ID: 7654321", x0_mm=0, y0_mm=0, x1_mm=9, y1_mm=3, score=0.99)
    undated = replace(read, printed=replace(read.printed, recorded_on=None, recorded_at=None))
    archive.add("none.tiff", read, patient=None)
    archive.add("form.tiff", read, patient="P\\1")
    archive.add("print.tiff", replace(read, text=(line,)), patient="1234567")
    archive.add("undated.tiff", undated)
    archive.add("dated.tiff", undated, day=date(2020, 1, 2))
    archive.add("doubtful.tiff", fake_digitization(read.page, Calibration(), doubtful=True))
    archive.write()
    status, said, _ = gateway_command(archive.config, "import", archive.output.place)
    assert status == 0 and "6 new jobs (2 held for a person" in said
    archive.work(review={"undated": "review"})
    jobs = {job.file_name.partition(".")[0]: job for job in archive.store.jobs.newest()}
    assert jobs["dated"].status == JobStatus.DONE
    reasons = {name: job.reason for name, job in jobs.items() if job.status == JobStatus.NEEDS_REVIEW}
    assert reasons.keys() == jobs.keys() - {"dated"}
    assert "manifest states cannot be used: patient_id must be" in reasons["form"] and jobs["form"].unmatched
    assert "prints another patient" in reasons["print"], reasons["print"]
    assert "the time of recording is not known" in reasons["undated"]
    assert "estimated SNR 3.0 dB is under the limit" in reasons["doubtful"]
    sent = {name for name, job in jobs.items() if archive.store.deliveries.of_job(job.id)}
    assert sent == {"dated"}


def test_a_file_that_is_gone_or_changed_is_named(
    archive: Archive, read: Digitization, gateway_command: Command
) -> None:
    archive.add("gone.tiff", read).unlink()
    archive.add("changed.tiff", read).write_bytes(page_png(seed=99))
    archive.add("good.tiff", read)
    archive.write(parts=2)
    Path(archive.output.place, "pages/group=00000/part-0000001.parquet").write_bytes(b"PAR1 is damaged")
    status, said, named = gateway_command(archive.config, "import", archive.output.place)
    assert status == 1 and "1 new jobs (0 held" in said and "3 left out" in said
    assert "gone.tiff: the file cannot be read any more: No such file" in named
    assert "changed.tiff: the file has changed since it was digitized" in named
    assert "part-0000001.parquet: this part of the run cannot be read" in named


def test_a_dicom_object_keeps_its_identity(archive: Archive, read: Digitization, gateway_command: Command) -> None:
    for uid, patient in (("2.25.1", "P-1001"), ("2.25.2", "P-1002"), ("2.25.3", None)):
        (archive.folder / f"{uid}.dcm").write_bytes(part10(secondary_capture(SOPInstanceUID=uid)))
        archive.add(f"{uid}.dcm", read, patient=patient)
    archive.write()
    status, said, _ = gateway_command(archive.config, "import", archive.output.place)
    assert status == 0 and "3 new jobs (1 held for a person" in said
    jobs = {job.source_key: job for job in archive.store.jobs.newest()}
    assert {key: job.reason for key, job in jobs.items() if job.status == JobStatus.NEEDS_REVIEW} == {
        "2.25.2": "the manifest names another patient than the DICOM object"
    }
    assert {(job.context.patient_id, job.context.study_instance_uid) for job in jobs.values()} == {
        ("P-1001", "2.25.1001")
    }
    archive.work()
    assert archive.store.jobs.get(jobs["2.25.1"].id).status == JobStatus.DONE
    assert "3 known before" in gateway_command(archive.config, "import", archive.output.place)[1]


def test_only_a_person_has_a_page_read_again(archive: Archive, read: Digitization, gateway_command: Command) -> None:
    archive.add("a.tiff", read, read)
    archive.write()
    gateway_command(archive.config, "import", archive.output.place)
    (job,) = archive.store.jobs.newest()
    archive.work()
    before = archive.store.jobs.pages(job.id)
    stated = Corrections(left_out=(Lead.V1,))
    correct(archive.store, Settings(), job.id, {2: stated}, "ann")
    archive.work(FakeDigitizer())
    first, second = archive.store.jobs.pages(job.id)
    assert first.quality_json == before[0].quality_json
    assert "archive_run" not in json.loads(second.quality_json) and second.seconds is not None
    archive.store.jobs.retry(job.id, "ann")
    archive.work(FakeDigitizer())
    assert all("archive_run" not in json.loads(page.quality_json) for page in archive.store.jobs.pages(job.id))


def test_a_batch_has_pages_read_again(archive: Archive, read: Digitization, gateway_command: Command) -> None:
    archive.add("a.tiff", read)
    archive.write()
    gateway_command(archive.config, "import", archive.output.place)
    (job,) = archive.store.jobs.newest()
    archive.work()
    archive.store.batches.apply(Batch(action=BatchAction.RETRY, job_ids=[job.id]), "ann")
    assert not archive.store.jobs.get(job.id).imported


def test_live_jobs_go_first_and_a_full_backlog_is_waited_for(
    archive: Archive, read: Digitization, monkeypatch: pytest.MonkeyPatch, gateway_command: Command
) -> None:
    for number in range(3):
        archive.add(f"{number}.tiff", read, patient=f"P{number}")
    archive.write()
    waits: list[int] = []

    def instead_of_sleep(_: float) -> None:
        """Let the worker work, and the outbox send, where the import waits; a live page comes between."""
        waits.append(archive.store.jobs.counts()[JobStatus.QUEUED])
        if len(waits) == 1:
            live = Upload(data=page_png(), file_name="", actor="test", stated=StudyContext(patient_id="LIVE"))
            live_job = take_in(Intake(archive.spool, archive.store), live).job_id
            claimed = archive.store.jobs.claim("w0", 60)
            assert claimed is not None and claimed.id == live_job
            archive.store.jobs.fail(live_job, "w0", "test")
        archive.work()
        if len(waits) % 2 == 0:  # until then its delivery is in the way
            for delivery in due_anywhere(archive.store):
                archive.store.deliveries.delivered(delivery.id or 0, "0x0000")

    monkeypatch.setattr("gateway.intake.archive.time.sleep", instead_of_sleep)
    assert gateway_command(archive.config, "import --backlog 1", archive.output.place)[0] == 0
    assert len(waits) == 4 and max(waits) == 1
    assert archive.store.jobs.counts()[JobStatus.DONE] == 2


def test_an_import_that_is_killed_continues(archive: Archive, read: Digitization, gateway_command: Command) -> None:
    for number in range(12):
        archive.add(f"{number}.tiff", read, patient=f"P{number}")
    archive.write()
    command = [sys.executable, "-m", "gateway", "import", "--config", str(archive.config), "--backlog", "5"]
    with subprocess.Popen([*command, archive.output.place], cwd=ROOT, stdout=subprocess.DEVNULL) as killed:
        try:
            wait_for("some jobs", lambda: len(archive.store.jobs.newest()) >= 3, 5 * PATIENCE_S)
        finally:
            killed.send_signal(signal.SIGKILL)
    before = {job.id for job in archive.store.jobs.newest()}
    assert 3 <= len(before) <= 5
    status, said, _ = gateway_command(archive.config, "import", archive.output.place)
    after = archive.store.jobs.newest()
    assert status == 0 and f"{12 - len(before)} new jobs" in said and f"{len(before)} known before" in said
    assert sorted(job.file_name for job in after) == sorted(f"{number}.tiff" for number in range(12))
    assert before <= {job.id for job in after}
    check_origin(archive.spool, archive.store)


def test_what_was_on_its_way_when_an_import_was_killed_does_not_stop_the_gateway(
    archive: Archive, read: Digitization, gateway_command: Command
) -> None:
    archive.add("a.tiff", read)
    archive.write()
    gateway_command(archive.config, "import", archive.output.place)
    (job,) = archive.store.jobs.newest()
    lost = archive.spool.path / ("0" * 8 + job.id[8:])
    shutil.copytree(archive.spool.path / job.id, lost)
    os.utime(lost, (0, 0))
    check_origin(archive.spool, archive.store)


@pytest.mark.parametrize(("place", "rule"), [("none", "holds no archive run"), (".", "holds no archive run")])
def test_a_folder_that_is_no_run_is_refused(archive: Archive, gateway_command: Command, place: str, rule: str) -> None:
    status, _, named = gateway_command(archive.config, "import", str(archive.folder / place))
    assert status == 1 and rule in named


def test_a_run_of_an_earlier_version_is_named(archive: Archive, read: Digitization, gateway_command: Command) -> None:
    archive.add("a.tiff", read)
    archive.rows = [replace(row, for_gateway=None) for row in archive.rows]
    archive.write()
    status, _, named = gateway_command(archive.config, "import", archive.output.place)
    assert status == 1 and "kept nothing for a gateway" in named
