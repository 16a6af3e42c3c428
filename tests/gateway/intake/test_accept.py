"""Intake: spool, then row, then yes; a repeat makes nothing new; a failure leaves nothing acknowledged."""

import os
import shutil
import threading
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from gateway.dicom.images.pages import read_context
from gateway.dicom.images.receive import announced_object
from gateway.dicom.network.scp import StorageScp
from gateway.domain.context import StudyContext
from gateway.domain.identity import Decide, Evidence
from gateway.domain.received import Accepted, ReceivedObject
from gateway.domain.status import JobStatus
from gateway.errors import IntakeError, StorageError
from gateway.intake.accept import Intake, file_key, media_type_of
from gateway.settings import DicomSettings
from gateway.spool.folder import Spool
from gateway.spool.place import SOURCE
from gateway.store.jobs import Jobs
from gateway.store.store import Store
from gateway.store.tables import Job
from tests.gateway.dicom.samples import part10, secondary_capture
from tests.gateway.dicom.scp_peers import encoded
from tests.gateway.dicom.scp_peers import store as c_store


def accept(
    intake: Intake,
    source_key: str = "1.2.3",
    source: str = "dicom:SCANNER",
    hold_reason: str = "",
    patient_id: str = "4711",
) -> Accepted:
    return intake.accept(
        ReceivedObject(
            source=source,
            source_key=source_key,
            media_type="application/dicom",
            data=b"bytes of " + source_key.encode(),
            context=StudyContext(patient_id=patient_id, patient_name="Möller^Zoë"),
            destinations=("pacs",),
            actor="scp",
        ),
        Evidence(contradictions=(hold_reason,) if hold_reason else ()),
    )


def test_what_is_accepted_is_in_spool_and_store(intake: Intake, spool: Spool, store: Store) -> None:
    accepted = accept(intake)
    assert not accepted.duplicate
    job = store.jobs.get(accepted.job_id)
    assert (job.source, job.source_key, job.status) == ("dicom:SCANNER", "1.2.3", JobStatus.QUEUED)
    assert job.context.patient_name == "Möller^Zoë"
    assert job.destinations_json == '["pacs"]'
    assert spool.read(job.id) == b"bytes of 1.2.3"


def test_without_identity_the_job_waits_for_a_person(intake: Intake, store: Store) -> None:
    job = store.jobs.get(accept(intake, patient_id="").job_id)
    assert job.status == JobStatus.NEEDS_REVIEW and "no patient ID" in job.reason
    told = store.jobs.get(accept(intake, "1.2.4", hold_reason="two patients on one page").job_id)
    assert (told.status, told.reason) == (JobStatus.NEEDS_REVIEW, "two patients on one page")


def test_a_duplicate_is_the_same_job_and_no_second_file(intake: Intake, spool: Spool, store: Store) -> None:
    first = accept(intake, source="dicom:A")
    again = accept(intake, source="dicom:B")
    assert again == Accepted(job_id=first.job_id, duplicate=True)
    assert os.listdir(spool.path) == [first.job_id]
    assert store.jobs.counts()[JobStatus.QUEUED] == 1


def object_of(pixel: int = 200, **attributes: object) -> bytes:
    return part10(secondary_capture(np.full((16, 16, 3), pixel, np.uint8), **attributes))


def send(intake: Intake, data: bytes) -> Accepted:
    context = read_context(data)
    return intake.accept(announced_object(data, context.source_sop_class_uid, "2.25.1003", "dicom:CART1", "scp"))


def fail(store: Store, job_id: str) -> None:
    claimed = store.jobs.claim("worker", 60)
    assert claimed is not None and claimed.id == job_id
    store.jobs.fail(job_id, "worker", "the file cannot be read")


def test_another_object_under_a_known_uid_is_kept_and_held(intake: Intake, spool: Spool, store: Store) -> None:
    first, second = object_of(), object_of(100, PatientID="P-9", PatientName="Other^One")
    job = send(intake, first)
    held = send(intake, second)
    assert not held.duplicate and held.job_id != job.job_id
    assert spool.read(job.job_id) == first
    assert spool.read(held.job_id) == second
    row = store.jobs.get(held.job_id)
    assert (row.status, row.unmatched) == (JobStatus.NEEDS_REVIEW, False)
    assert row.reason == (
        f"another object with the SOP Instance UID of job {job.job_id} was received; it differs in: patient, pixel data"
    )
    assert store.jobs.get(job.job_id).status == JobStatus.QUEUED
    assert send(intake, second) == Accepted(job_id=held.job_id, duplicate=True)
    assert send(intake, first) == Accepted(job_id=job.job_id, duplicate=True)


def test_c_store_drops_nothing_under_a_success(intake: Intake, spool: Spool, store: Store) -> None:
    scp = StorageScp(DicomSettings(port=0), intake.accept, spool)
    scp.start()
    try:
        first, second = secondary_capture(), secondary_capture(PatientID="P-9")
        answers = [c_store(scp, encoded(dataset)).Status for dataset in (first, second, first, second)]
        assert answers == [0x0000] * 4
        jobs = store.jobs.newest()
        assert sorted(job.context.patient_id for job in jobs) == ["P-1001", "P-9"]
        for job in jobs:
            assert read_context(spool.read(job.id)).patient_id == job.context.patient_id
        shutil.rmtree(spool.path)
        spool.path.mkdir()
        assert c_store(scp, encoded(first)).Status == 0x0000
        assert len(os.listdir(spool.path)) == 1
    finally:
        scp.stop(grace_s=0.0)


def test_the_same_object_in_another_encoding_is_a_repeat(intake: Intake, store: Store) -> None:
    first = send(intake, object_of())
    data = dcmread(BytesIO(object_of()))
    data.add_new(0xFFFCFFFC, "OB", bytes(10))
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        assert send(intake, part10(data, syntax)) == Accepted(job_id=first.job_id, duplicate=True)
    assert len(store.jobs.newest()) == 1


def test_a_whole_object_replaces_one_that_was_cut_short_and_failed(intake: Intake, spool: Spool, store: Store) -> None:
    whole = object_of()
    cut = whole[:-100]
    job_id = send(intake, cut).job_id
    fail(store, job_id)
    assert send(intake, whole) == Accepted(job_id=job_id, duplicate=True)
    assert spool.read(job_id) == whole
    assert store.jobs.get(job_id).status == JobStatus.QUEUED
    assert [file.read_bytes() for file in (spool.path / job_id).glob("earlier-source-*")] == [cut]
    assert "again, other bytes: the source was replaced" in [event.detail for event in store.jobs.events(job_id)]


def test_another_patient_under_the_uid_of_a_failed_job_is_kept_beside_it(intake: Intake, store: Store) -> None:
    job_id = send(intake, object_of()).job_id
    fail(store, job_id)
    assert send(intake, object_of(PatientID="P-9")).job_id != job_id
    assert store.jobs.get(job_id).status == JobStatus.FAILED


@pytest.mark.parametrize("damage", ["gone", "cut"])
@pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.FAILED, JobStatus.NEEDS_REVIEW])
def test_a_lost_source_is_replaced_by_the_next_repeat(
    intake: Intake, spool: Spool, store: Store, damage: str, status: JobStatus
) -> None:
    data = object_of(PatientID="" if status == JobStatus.NEEDS_REVIEW else "P-1001")
    job_id = send(intake, data).job_id
    if status == JobStatus.RUNNING:
        store.jobs.claim("worker", 60)
    elif status == JobStatus.FAILED:
        fail(store, job_id)
    path = spool.path / job_id / SOURCE
    path.write_bytes(data[:-1])
    if damage == "gone":
        shutil.rmtree(path.parent)
    assert not intake.has("2.25.1003")
    assert send(intake, data) == Accepted(job_id=job_id, duplicate=True)
    assert path.read_bytes() == data and intake.has("2.25.1003")
    waits = JobStatus.NEEDS_REVIEW if status == JobStatus.NEEDS_REVIEW else JobStatus.QUEUED
    assert store.jobs.get(job_id).status == waits


def test_a_job_whose_files_were_removed_after_its_end(intake: Intake, spool: Spool, store: Store) -> None:
    job_id = send(intake, object_of()).job_id
    store.jobs.cancel(job_id, "cli")
    spool.remove(job_id)
    assert send(intake, object_of()) == Accepted(job_id=job_id, duplicate=True)
    assert intake.has("2.25.1003") and store.jobs.get(job_id).status == JobStatus.CANCELLED
    other = store.jobs.get(send(intake, object_of(100)).job_id)
    assert other.status == JobStatus.NEEDS_REVIEW and "not kept any more" in other.reason


def test_a_file_that_failed_runs_again_when_it_comes_again(intake: Intake, store: Store) -> None:
    page = ReceivedObject(
        source="submit",
        source_key="hash",
        media_type="image/png",
        data=b"page",
        context=StudyContext(patient_id="1"),
        actor="cli",
    )
    job_id = intake.accept(page).job_id
    fail(store, job_id)
    assert intake.accept(page) == Accepted(job_id=job_id, duplicate=True)
    assert store.jobs.get(job_id).status == JobStatus.QUEUED


def test_senders_that_race_make_one_job(intake: Intake, spool: Spool) -> None:
    answers: list[Accepted] = []
    start = threading.Barrier(8)

    def send() -> None:
        start.wait()
        answers.append(accept(intake))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8 and len({answer.job_id for answer in answers}) == 1
    assert [answer.duplicate for answer in answers].count(False) == 1
    assert os.listdir(spool.path) == [answers[0].job_id]


def test_a_full_disk_is_told_the_sender_and_makes_no_job(store: Store, tmp_path: Path) -> None:
    intake = Intake(Spool(tmp_path / "spool", minimum_free_mib=10**9), store)
    with pytest.raises(StorageError):
        accept(intake)
    assert store.jobs.newest() == []


def test_a_database_that_fails_is_told_the_sender(spool: Spool, store: Store) -> None:
    class FailingJobs(Jobs):
        def submit(self, job: Job, actor: str, decide: Decide | None = None) -> tuple[Job, bool]:
            raise StorageError("database: disk I/O error")

    failing = Store(store.database.url)
    failing.jobs = FailingJobs(failing.database)
    intake = Intake(spool, failing)
    with pytest.raises(StorageError):
        accept(intake)
    assert os.listdir(spool.path) == []  # the sender is refused, and sends it again
    failing.close()


def test_the_key_of_a_file_tells_identities_and_sources_apart() -> None:
    page, context = b"page", StudyContext(patient_id="1")
    key = file_key("folder:/in", context, page)
    assert key == file_key("folder:/in", StudyContext(patient_id="1"), b"page")
    others = [
        file_key("folder:/other", context, page),
        file_key("folder:/in", StudyContext(patient_id="2"), page),
        file_key("folder:/in", StudyContext(), page),
        file_key("folder:/in", context, b"page2"),
    ]
    assert len({key, *others}) == 5


@pytest.mark.parametrize(
    ("start", "media_type"),
    [
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"II*\x00", "image/tiff"),
        (b"MM\x00*", "image/tiff"),
        (b"BM", "image/bmp"),
        (b"%PDF-1.4", "application/pdf"),
        (b"\xef\xbb\xbf%PDF-1.7", "application/pdf"),
        (bytes(128) + b"DICM", "application/dicom"),
        (b"%PDF-".ljust(128) + b"DICM", "application/dicom"),
    ],
)
def test_the_bytes_say_what_a_file_is(start: bytes, media_type: str) -> None:
    assert media_type_of(start + bytes(100)) == media_type


@pytest.mark.parametrize("data", [b"", b"hello", b"GIF89a", b"PK\x03\x04"])
def test_other_bytes_are_refused_in_words(data: bytes) -> None:
    with pytest.raises(IntakeError, match="the file is"):
        media_type_of(data)
