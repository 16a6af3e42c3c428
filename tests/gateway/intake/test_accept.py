"""Intake: spool, then row, then yes; a repeat makes nothing new; a failure leaves nothing acknowledged."""

import os
import threading
from pathlib import Path

import pytest

from gateway.domain.context import StudyContext
from gateway.domain.identity import Evidence
from gateway.domain.received import Accepted, ReceivedObject
from gateway.domain.status import JobStatus
from gateway.errors import IntakeError, StorageError
from gateway.intake.accept import Intake, file_key, media_type_of
from gateway.spool.folder import Spool
from gateway.store.jobs import Jobs
from gateway.store.store import Store
from gateway.store.tables import Job


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
    assert spool.source_path(job.id).read_bytes() == b"bytes of 1.2.3"


def test_without_identity_the_job_waits_for_a_person(intake: Intake, store: Store) -> None:
    job = store.jobs.get(accept(intake, patient_id="").job_id)
    assert job.status == JobStatus.NEEDS_REVIEW and "no patient_id" in job.reason
    told = store.jobs.get(accept(intake, "1.2.4", hold_reason="two patients on one page").job_id)
    assert (told.status, told.reason) == (JobStatus.NEEDS_REVIEW, "two patients on one page")


def test_a_duplicate_is_the_same_job_and_no_second_file(intake: Intake, spool: Spool, store: Store) -> None:
    first = accept(intake, source="dicom:A")
    again = accept(intake, source="dicom:B")
    assert again == Accepted(job_id=first.job_id, duplicate=True)
    assert os.listdir(spool.path) == [first.job_id]
    assert store.jobs.counts()[JobStatus.QUEUED] == 1


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
        def submit(self, job: Job, actor: str) -> tuple[Job, bool]:
            raise StorageError("database: disk I/O error")

    failing = Store(store.database.url)
    failing.jobs = FailingJobs(failing.database)
    intake = Intake(spool, failing)
    with pytest.raises(StorageError):
        accept(intake)
    (orphan,) = os.listdir(spool.path)
    assert intake.sweep(retention_days=30) == []  # it may still be on its way
    os.utime(spool.path / orphan, (0, 0))
    assert intake.sweep(retention_days=30) == [orphan]
    assert os.listdir(spool.path) == []
    failing.close()


def test_sweep_keeps_what_is_not_finished(intake: Intake, spool: Spool, store: Store) -> None:
    waiting, finished = accept(intake, "1.1").job_id, accept(intake, "1.2").job_id
    store.jobs.cancel(finished, "cli")
    for job_id in (waiting, finished):
        os.utime(spool.path / job_id, (0, 0))
    assert intake.sweep(retention_days=30) == [finished]
    assert os.listdir(spool.path) == [waiting]
    assert store.jobs.get(finished).status == JobStatus.CANCELLED  # the row and its trail stay


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
