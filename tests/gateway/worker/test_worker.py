"""The worker on real files, with a digitizer that does what the page tells it to."""

from __future__ import annotations

import hashlib
import io
import sqlite3
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydicom import dcmread

from gateway.domain.clock import utc_now
from gateway.domain.context import StudyContext
from gateway.domain.received import ReceivedObject
from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.errors import StorageError, UnreadableFile
from gateway.intake.accept import Intake
from gateway.settings import DicomDestination, FolderDestination, Hl7Destination, Settings
from gateway.spool.folder import Spool
from gateway.spool.place import SOURCE
from gateway.store.store import Store
from gateway.worker.worker import Worker
from pipeline import load_pages
from tests.fake_digitizer import Behaviour, FakeDigitizer, page_pixels, page_png
from tests.fakes import make_unreadable
from tests.gateway.dicom.samples import part10, secondary_capture
from tests.waiting import PATIENCE_S

PACS = DicomDestination(name="pacs", host="127.0.0.1", port=104, ae_title="PACS")
ARCHIVE = DicomDestination(name="archive", host="127.0.0.1", port=105, ae_title="ARC", sop_class="general")
EHR = Hl7Destination(name="ehr", host="127.0.0.1", port=2575)
PATIENT = StudyContext(patient_id="P1", patient_name="DOE^JANE", patient_birth_date="19700101", patient_sex="F")


class Bench:
    """A worker, and the door its jobs come in by."""

    def __init__(self, store: Store, spool: Spool, intake: Intake, tmp_path: Path) -> None:
        self.store, self.spool, self._intake, self._root = store, spool, intake, tmp_path
        self._sent = 0

    def worker(self, **changes: Any) -> Worker:
        settings = Settings.model_validate({"destinations": (PACS, EHR), "storage": {"path": self._root}} | changes)
        return Worker(settings, self.store, self.spool, FakeDigitizer(), name="w1")

    def submit(
        self, data: bytes, *, context: StudyContext = PATIENT, media_type: str = "image/png", **more: Any
    ) -> str:
        self._sent += 1
        key = f"{self._sent}-{hashlib.sha256(data).hexdigest()}"
        return self._intake.accept(
            ReceivedObject(
                source="submit",
                source_key=key,
                media_type=media_type,
                data=data,
                context=context,
                destinations=more.get("destinations"),
                actor="test",
            )
        ).job_id

    def files(self, job_id: str) -> dict[str, bytes]:
        folder = self.spool.path / job_id
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "source"}


@pytest.fixture
def bench(store: Store, spool: Spool, intake: Intake, tmp_path: Path) -> Bench:
    return Bench(store, spool, intake, tmp_path)


def tiff(*pages: np.ndarray) -> bytes:
    return bytes(cv2.imencodemulti(".tiff", [page[..., ::-1] for page in pages])[1].tobytes())


def test_nothing_to_do(bench: Bench) -> None:
    assert bench.worker().run_once() is False


def test_good_page_is_done_and_leaves_for_every_destination(bench: Bench) -> None:
    job_id = bench.submit(page_png())
    assert bench.worker().run_once()
    job = bench.store.jobs.get(job_id)
    assert (job.status, job.reason, job.worker) == (JobStatus.DONE, "", "")
    (page,) = bench.store.jobs.pages(job_id)
    assert (page.status, page.layout, page.coverage, page.estimated_snr_db) == (JobStatus.DONE, "3x4", 0.99, 20.0)
    files = bench.files(job_id)
    dataset = dcmread(io.BytesIO(files["page-1.12-lead.dcm"]))
    assert dataset.PatientID == "P1" and dataset.SOPInstanceUID == page.waveform_sop_instance_uid
    assert dataset.StudyInstanceUID.startswith("2.25.")
    assert "ReferencedInstanceSequence" not in dataset  # a PNG is no instance to refer to
    record = np.load(io.BytesIO(files["page-1.record.npz"]))
    assert record["signal_mv"].shape == (12, 5000) and float(record["sampling_frequency_hz"]) == 500.0
    assert files["page-1.overlay.png"].startswith(b"\x89PNG")
    sent = {d.destination: d for d in bench.store.deliveries.of_job(job_id)}
    assert set(sent) == {"pacs", "ehr"}
    assert sent["pacs"].artefact == "page-1.12-lead.dcm" and sent["pacs"].identifier == dataset.SOPInstanceUID
    assert sent["ehr"].identifier.encode() in files[sent["ehr"].artefact]
    assert all(d.status == DeliveryStatus.PENDING for d in sent.values())
    assert f"|{dataset.SOPInstanceUID}|".encode() in files["page-1.ehr.hl7"]
    assert b"|P|2.5.1" in files["page-1.ehr.hl7"] and b"unconfirmed" in files["page-1.ehr.hl7"]


def test_each_destination_gets_its_sop_class_and_a_folder_gets_both_files(bench: Bench, tmp_path: Path) -> None:
    folder = FolderDestination(name="drop", path=tmp_path / "out")
    job_id = bench.submit(page_png())
    bench.worker(destinations=(PACS, ARCHIVE, folder)).run_once()
    artefacts = [(d.destination, d.artefact) for d in bench.store.deliveries.of_job(job_id)]
    assert artefacts == [
        ("pacs", "page-1.12-lead.dcm"),
        ("archive", "page-1.general.dcm"),
        ("drop", "page-1.12-lead.dcm"),
        ("drop", "page-1.drop.hl7"),
    ]
    uids = {d.artefact: d.identifier for d in bench.store.deliveries.of_job(job_id)}
    assert uids["page-1.12-lead.dcm"] != uids["page-1.general.dcm"]
    assert set(uids) <= set(bench.files(job_id))


def test_job_with_named_destinations_goes_there_only(bench: Bench) -> None:
    job_id = bench.submit(page_png(), destinations=("ehr", "gone"))
    bench.worker().run_once()
    assert [d.destination for d in bench.store.deliveries.of_job(job_id)] == ["ehr"]
    job = bench.store.jobs.get(job_id)
    assert job.status == JobStatus.NEEDS_REVIEW and "destination not configured: gone" in job.reason


def test_second_run_makes_the_same_identifiers_and_bytes(bench: Bench) -> None:
    job_id = bench.submit(page_png(Behaviour.DOUBTFUL))
    worker = bench.worker(review={"deliver_doubtful": True})
    worker.run_once()
    before, sent = bench.files(job_id), bench.store.deliveries.of_job(job_id)
    time.sleep(1.1)  # a clock that shows in the files would have moved
    bench.store.jobs.retry(job_id, "test")
    worker.run_once()
    assert bench.files(job_id) == before
    assert [d.identifier for d in bench.store.deliveries.of_job(job_id)] == [d.identifier for d in sent]
    assert len(before) == 7


def test_doubtful_page_stays_in_the_house_unless_the_site_says_otherwise(bench: Bench) -> None:
    job_id = bench.submit(page_png(Behaviour.DOUBTFUL))
    bench.worker().run_once()
    job = bench.store.jobs.get(job_id)
    assert job.status == JobStatus.NEEDS_REVIEW
    assert "estimated SNR 3.0 dB is under the limit of 10 dB" in job.reason and "50%" in job.reason
    assert bench.store.deliveries.of_job(job_id) == []
    other = bench.submit(page_png(Behaviour.DOUBTFUL, seed=1))
    bench.worker(review={"deliver_doubtful": True}).run_once()
    assert bench.store.jobs.get(other).status == JobStatus.NEEDS_REVIEW
    assert [d.destination for d in bench.store.deliveries.of_job(other)] == ["pacs", "ehr"]
    assert b"Doubtful digitization" in bench.files(other)["page-1.ehr.hl7"]


def test_page_without_identity_is_digitized_but_makes_nobodys_waveform(bench: Bench) -> None:
    job_id = bench.submit(page_png(), context=StudyContext())
    bench.store.jobs.retry(job_id, "test")  # the intake holds it; a person wants to see what is on it
    bench.worker().run_once()
    job = bench.store.jobs.get(job_id)
    assert job.status == JobStatus.NEEDS_REVIEW and "no patient ID" in job.reason
    assert bench.store.deliveries.of_job(job_id) == []
    assert set(bench.files(job_id)) == {"page-1.geometry.json", "page-1.png", "page-1.overlay.png", "page-1.record.npz"}


def test_patient_id_alone_is_identity_enough(bench: Bench) -> None:
    job_id = bench.submit(page_png(), context=StudyContext(patient_id="P7"))
    bench.worker().run_once()
    assert bench.store.jobs.get(job_id).status == JobStatus.DONE
    assert [d.destination for d in bench.store.deliveries.of_job(job_id)] == ["pacs", "ehr"]


def test_job_without_any_ecg_fails_in_words(bench: Bench) -> None:
    job_id = bench.submit(page_png(Behaviour.NO_ECG))
    bench.worker().run_once()
    job = bench.store.jobs.get(job_id)
    assert (job.status, job.reason) == (JobStatus.FAILED, "there is no ECG on the page")
    (page,) = bench.store.jobs.pages(job_id)
    assert (page.status, page.reason) == (JobStatus.FAILED, "there is no ECG on the page")


def test_partly_bad_job_needs_review_and_its_good_pages_leave(bench: Bench) -> None:
    pages = [page_pixels(behaviour) for behaviour in (Behaviour.GOOD, Behaviour.NO_ECG, Behaviour.GOOD)]
    job_id = bench.submit(tiff(*pages), media_type="image/tiff")
    bench.worker().run_once()
    job = bench.store.jobs.get(job_id)
    assert (job.status, job.reason) == (JobStatus.NEEDS_REVIEW, "page 2: there is no ECG on the page")
    assert [page.status for page in bench.store.jobs.pages(job_id)] == ["DONE", "FAILED", "DONE"]
    assert {(d.page_number, d.destination) for d in bench.store.deliveries.of_job(job_id)} == {
        (1, "pacs"),
        (1, "ehr"),
        (3, "pacs"),
        (3, "ehr"),
    }
    uids = {page.waveform_sop_instance_uid for page in bench.store.jobs.pages(job_id)}
    assert len(uids) == 3  # two waveforms, and "" for the page without


def test_fault_of_ours_fails_the_page_and_quotes_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    job_id = bench.submit(tiff(page_pixels(Behaviour.BROKEN), page_pixels()), media_type="image/tiff")
    bench.worker().run_once()
    job = bench.store.jobs.get(job_id)
    assert job.status == JobStatus.NEEDS_REVIEW
    assert job.reason == "page 1: internal error in page 1 (KeyError); the worker's log says where"
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.exc_info is not None and "DOE" not in record.getMessage()


def test_page_that_needs_too_much_memory_fails_alone(bench: Bench) -> None:
    class Greedy(FakeDigitizer):
        def digitize(self, page: Any, *, default_calibration: Any, **more: Any) -> Any:
            raise MemoryError

    job_id = bench.submit(page_png())
    worker = bench.worker()
    worker._digitizer = Greedy()
    worker.run_once()
    assert bench.store.jobs.get(job_id).reason == "page 1 needs more memory than the 8192 MiB a worker may take"


def test_unreadable_file_fails_in_words(bench: Bench) -> None:
    for data, media_type in ((page_png()[:-40], "image/png"), (b"DICM", "application/dicom")):
        job_id = bench.submit(data, media_type=media_type)
        bench.worker().run_once()
        job = bench.store.jobs.get(job_id)
        assert job.status == JobStatus.FAILED and len(job.reason) > 10


def test_file_that_is_gone_fails_in_words(bench: Bench) -> None:
    job_id = bench.submit(page_png())
    (bench.spool.path / job_id / SOURCE).unlink()
    bench.worker().run_once()
    assert "file is gone" in bench.store.jobs.get(job_id).reason


def test_lost_lease_drops_the_result(bench: Bench) -> None:
    """Another worker was given the job meanwhile: nothing of ours may be stored."""
    job_id = bench.submit(page_png())

    class Robbed(FakeDigitizer):
        def digitize(self, page: Any, *, default_calibration: Any, **more: Any) -> Any:
            bench.store.jobs.heartbeat(job_id, "w1", 0.0)
            assert bench.store.jobs.rescue(3) == [job_id]
            taken = bench.store.jobs.claim("w2", 60.0)
            assert taken is not None and taken.attempts == 2
            return super().digitize(page, default_calibration=default_calibration, **more)

    worker = bench.worker()
    worker._digitizer = Robbed()
    assert worker.run_once()
    job = bench.store.jobs.get(job_id)
    assert (job.status, job.worker) == (JobStatus.RUNNING, "w2")
    assert bench.store.jobs.pages(job_id) == [] and bench.store.deliveries.of_job(job_id) == []


def test_lease_is_extended_while_a_page_takes_longer(bench: Bench) -> None:
    job_id = bench.submit(page_png())
    worker = bench.worker(worker={"lease_s": 6.0})
    begun, done = threading.Event(), threading.Event()

    class Waiting(FakeDigitizer):
        def digitize(self, page: Any, *, default_calibration: Any, **more: Any) -> Any:
            begun.set()
            done.wait(PATIENCE_S)
            return super().digitize(page, default_calibration=default_calibration, **more)

    def until() -> datetime:
        until = bench.store.jobs.get(job_id).lease_expires_at
        assert until is not None
        return until

    worker._digitizer = Waiting()
    thread = threading.Thread(target=worker.run_once)
    thread.start()
    assert begun.wait(PATIENCE_S)
    first, seen, rescued = until(), set(), []
    while utc_now() < first + timedelta(seconds=1):  # its first lease alone would be over
        rescued += bench.store.jobs.rescue(3)
        seen.add(until() if not rescued else first)
        time.sleep(0.1)
    done.set()
    thread.join(PATIENCE_S)
    assert rescued == []
    assert len(seen) >= 3  # extended several times a lease
    assert bench.store.jobs.get(job_id).status == JobStatus.DONE


def test_lease_that_storage_did_not_extend_is_tried_again_at_once(bench: Bench) -> None:
    """A lease of a minute is extended every 20 s: what failed then must not wait for the next turn."""
    job_id = bench.submit(page_png())
    worker = bench.worker(worker={"lease_s": 15.0})
    beats: list[float] = []
    again = threading.Event()
    heartbeat = bench.store.jobs.heartbeat

    def failing(*args: Any) -> bool:
        beats.append(time.monotonic())
        if len(beats) == 1:
            raise StorageError("database: database is locked")
        again.set()
        return heartbeat(*args)

    class Waiting(FakeDigitizer):
        def digitize(self, page: Any, *, default_calibration: Any, **more: Any) -> Any:
            assert again.wait(PATIENCE_S)
            return super().digitize(page, default_calibration=default_calibration, **more)

    bench.store.jobs.heartbeat = failing  # type: ignore[method-assign]
    worker._digitizer = Waiting()
    assert worker.run_once()
    assert beats[1] - beats[0] < 4.0  # and not 5 s
    assert bench.store.jobs.get(job_id).status == JobStatus.DONE


def test_result_that_a_locked_database_does_not_take_is_stored_when_it_is_free(bench: Bench, tmp_path: Path) -> None:
    """Another process holds the file for longer than the worker waits for its turn: a backup tool, say."""
    impatient = Store(tmp_path / "gateway.db", busy_timeout_s=0.05)
    job_id = bench.submit(page_png())
    load_pages(page_png())  # the process that reads files is there
    worker = bench.worker(worker={"page_timeout_s": 3.0, "lease_s": 60.0})
    other = sqlite3.connect(tmp_path / "gateway.db", isolation_level=None, check_same_thread=False)
    free = threading.Timer(4.0, other.execute, ["ROLLBACK"])  # longer than a page may take, too

    class Locking(FakeDigitizer):
        def digitize(self, page: Any, *, default_calibration: Any, **more: Any) -> Any:
            other.execute("BEGIN IMMEDIATE")
            free.start()
            return super().digitize(page, default_calibration=default_calibration, **more)

    worker._store, worker._digitizer = impatient, Locking()
    assert worker.run_once()
    free.join()
    other.close()
    impatient.close()
    assert bench.store.jobs.get(job_id).status == JobStatus.DONE
    assert bench.store.deliveries.of_job(job_id)


def test_kernel_is_told_to_end_what_hangs_and_told_when_it_is_over(bench: Bench) -> None:
    told: list[float] = []
    bench.submit(tiff(page_pixels(), page_pixels()), media_type="image/tiff")
    worker = bench.worker(worker={"page_timeout_s": 20.0})
    worker._alarm = told.append
    worker.run_once()
    assert told == [30.0, 30.0, 30.0, 0.0, 0.0]  # the file, two pages, the result, done


def test_stop_puts_a_job_with_pages_left_back_uncounted(bench: Bench) -> None:
    job_id = bench.submit(tiff(page_pixels(), page_pixels()), media_type="image/tiff")
    worker = bench.worker()

    class Stopping(FakeDigitizer):
        def digitize(self, page: Any, *, default_calibration: Any, **more: Any) -> Any:
            worker.stop()
            return super().digitize(page, default_calibration=default_calibration, **more)

    worker._digitizer = Stopping()
    worker.run()
    job = bench.store.jobs.get(job_id)
    assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)


def test_run_goes_on_where_storage_fails_and_ends_where_nobody_needs_it(bench: Bench) -> None:
    job_id = bench.submit(page_png())
    worker = bench.worker()
    full = [StorageError("spool: no space left")]
    write = bench.spool.write_artefact

    def write_artefact(*args: Any) -> Path:
        if full:
            raise full.pop()
        return write(*args)

    bench.spool.write_artefact = write_artefact  # type: ignore[method-assign]
    rounds = iter([False, True])
    worker.run(orphaned=lambda: next(rounds))
    job = bench.store.jobs.get(job_id)
    assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)  # put back: the page is not to blame
    worker.run_once()
    assert bench.store.jobs.get(job_id).status == JobStatus.DONE


def test_a_file_that_cannot_be_read_holds_up_nobody_and_its_job_fails_at_last(bench: Bench) -> None:
    first, second = bench.submit(page_png(seed=1)), bench.submit(page_png(seed=2))
    make_unreadable(bench.spool.path / first / "source")
    worker = bench.worker()
    with pytest.raises(UnreadableFile):
        worker.run_once()
    assert bench.store.jobs.get(first).status == JobStatus.QUEUED
    worker.run_once()
    assert bench.store.jobs.get(second).status == JobStatus.DONE
    for _ in range(2):
        with pytest.raises(UnreadableFile):
            worker.run_once()
    job = bench.store.jobs.get(first)
    assert (job.status, job.attempts) == (JobStatus.FAILED, 3)
    assert job.reason == "a file of the job cannot be read: spool: Too many levels of symbolic links"
    assert sorted(path.name for path in bench.spool.path.iterdir()) == sorted([first, second])  # no probe is left


def test_dicom_source_is_referred_to_and_told_identity_comes_first(bench: Bench) -> None:
    data = part10(secondary_capture(page_pixels()))
    told = StudyContext(patient_id="TOLD", patient_name="Told^Ann")
    job_id = bench.submit(data, context=told, media_type="application/dicom")
    bench.worker().run_once()
    assert bench.store.jobs.get(job_id).status == JobStatus.DONE
    source = dcmread(io.BytesIO(data))
    waveform = dcmread(io.BytesIO(bench.files(job_id)["page-1.12-lead.dcm"]))
    assert (waveform.PatientID, waveform.PatientName) == ("TOLD", "Told^Ann")
    assert source.PatientSex and not waveform.PatientSex  # nothing of the other patient's is mixed in
    assert waveform.StudyInstanceUID == source.StudyInstanceUID
    assert waveform.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
