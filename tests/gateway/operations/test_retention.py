"""Old files of finished jobs are deleted, and say so; nothing that anybody may still need is."""

from __future__ import annotations

import logging
import os
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.domain import clock
from gateway.domain.clock import utc_now
from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.errors import IllegalTransition, StorageError
from gateway.operations.retention import Retention
from gateway.settings import StorageSettings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.store.tables import new_id
from tests.gateway.operations.conftest import MakeJob

NEEDED = [
    (JobStatus.QUEUED, ()),
    (JobStatus.RUNNING, ()),
    (JobStatus.NEEDS_REVIEW, ()),
    (JobStatus.FAILED, ()),
    (JobStatus.DONE, (DeliveryStatus.DELIVERED, DeliveryStatus.PENDING)),
    (JobStatus.DONE, (DeliveryStatus.STORED,)),
    (JobStatus.DONE, (DeliveryStatus.REFUSED, DeliveryStatus.DELIVERED)),
    (JobStatus.DONE, (DeliveryStatus.FAILED,)),
]


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> timedelta:
    """Retention sees the database 31 days later."""
    span = timedelta(days=31)
    monkeypatch.setattr("gateway.operations.retention.utc_now", lambda: clock.utc_now() + span)
    return span


def folders(spool: Spool) -> set[str]:
    return {name for name in os.listdir(spool.path) if name != "quarantine"}


def run(retention: Retention) -> None:
    retention.sweep()
    retention.purge()


class SmallDisk(Spool):
    """A disk on which everything else leaves `room_mib` for the jobs, each of which takes 1 MiB."""

    room_mib = 0

    def free_bytes(self) -> int:
        return (self.room_mib - len(folders(self))) * 1024 * 1024


def test_files_of_finished_jobs_are_deleted_after_their_time(
    store: Store, spool: Spool, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, cancelled = make_job(JobStatus.DONE), make_job(JobStatus.CANCELLED)
    retention = Retention(spool, store, StorageSettings(retention_days=30))
    run(retention)
    assert folders(spool) == {done, cancelled}
    monkeypatch.setattr("gateway.operations.retention.utc_now", lambda: utc_now() + timedelta(days=31))
    run(retention)
    assert folders(spool) == set()
    job, event = store.jobs.get(done), store.jobs.events(done)[-1]
    assert job.status == JobStatus.DONE and job.purged_at == pytest.approx(event.at, abs=timedelta(seconds=1))
    assert (event.action, event.actor) == ("PURGE", "retention")
    assert event.detail == "2 files with 92 bytes were deleted: the job ended more than 30 days ago"
    assert store.jobs.events(cancelled)[-1].detail.startswith("1 files with 46 bytes were deleted")
    with pytest.raises(IllegalTransition, match=f"the files of job {done} were deleted on"):
        store.jobs.retry(done, "cli")
    with pytest.raises(IllegalTransition, match="were deleted on"):
        store.files.hold(done, "cli")
    with pytest.raises(IllegalTransition, match="were deleted on"):
        store.jobs.confirm(done, [], "cli")
    events = len(store.jobs.events(done))
    run(retention)
    assert len(store.jobs.events(done)) == events and retention.problem == ""


@pytest.mark.parametrize(("status", "deliveries"), NEEDED)
def test_what_may_still_be_needed_is_never_deleted(
    store: Store,
    spool: Spool,
    make_job: MakeJob,
    later: timedelta,
    status: JobStatus,
    deliveries: tuple[DeliveryStatus, ...],
) -> None:
    job_id = make_job(status, deliveries)
    settings = StorageSettings(minimum_free_mib=1, purge_below_mib=2**40, purge_until_mib=2**40)
    retention = Retention(spool, store, settings)
    run(retention)
    assert folders(spool) == {job_id} and store.jobs.get(job_id).purged_at is None
    assert "nothing more may be deleted: 1 jobs wait" in retention.problem


def test_a_delivery_that_came_late_begins_the_time(store: Store, spool: Spool, make_job: MakeJob) -> None:
    job_id = make_job(JobStatus.DONE, (DeliveryStatus.PENDING,))
    (pending,) = store.deliveries.of_job(job_id)
    ended = utc_now()
    assert pending.id
    store.deliveries.delivered(pending.id, "0x0000")
    assert store.files.purgeable(ended, 10) == [] and store.files.purgeable(utc_now(), 10) == [job_id]


def test_a_legal_hold_keeps_the_files(store: Store, spool: Spool, make_job: MakeJob, later: timedelta) -> None:
    job_id = make_job(JobStatus.DONE)
    for _ in range(2):
        store.files.hold(job_id, "cli")
    retention = Retention(spool, store, StorageSettings())
    run(retention)
    assert folders(spool) == {job_id} and store.jobs.get(job_id).legal_hold
    store.files.release(job_id, "cli")
    run(retention)
    assert folders(spool) == set()
    assert [event.action for event in store.jobs.events(job_id)][-3:] == ["LEGAL_HOLD", "LEGAL_HOLD_END", "PURGE"]


def test_a_disk_that_fills_up_loses_the_oldest_finished_jobs_first(
    store: Store, tmp_path: Path, spool: Spool, make_job: MakeJob, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    jobs = [make_job(JobStatus.DONE) for _ in range(6)]
    waiting = make_job(JobStatus.NEEDS_REVIEW)
    disk = SmallDisk(spool.path, 1)
    settings = StorageSettings(minimum_free_mib=1, purge_below_mib=2, purge_until_mib=4)
    retention = Retention(disk, store, settings)
    disk.room_mib = 9  # 2 free: at the upper mark
    retention.purge()
    assert folders(spool) == {*jobs, waiting}
    disk.room_mib = 8
    retention.purge()
    assert folders(spool) == {*jobs[3:], waiting}  # 4 free
    assert store.jobs.events(jobs[0])[-1].detail.endswith("bytes were deleted: only 1 MiB of the disk were free")
    assert retention.problem == ""
    disk.room_mib = 1  # less than nothing
    retention.purge()
    assert folders(spool) == {waiting}
    assert retention.problem.startswith("0 MiB of the disk are free, less than purge_below_mib = 2")
    with pytest.raises(StorageError, match="must stay free"):  # the peer is answered 0xA700
        disk.write_source(new_id(), b"page")
    retention.purge()
    disk.room_mib = 9
    retention.purge()
    assert retention.problem == ""
    said = [record.message for record in caplog.records if "job_id" not in record.__dict__]
    assert [line.split(",")[0] for line in said] == [
        "1 MiB are free: files of finished jobs are deleted",
        "0 MiB of the disk are free",
        "There is enough free space again",
    ]


def test_files_that_no_job_explains_go_to_quarantine_and_stay(store: Store, spool: Spool) -> None:
    orphan, half = new_id(), new_id()
    spool.write_source(orphan, b"acknowledged, and then the database was lost")
    spool.write_artefact(orphan, "page-1.dcm", b"result")
    (spool.path / half).mkdir()
    (spool.path / half / ".source.tmp").write_bytes(b"was never whole")
    retention = Retention(spool, store, StorageSettings())
    run(retention)
    assert spool.quarantined() == []  # it may still be on its way
    for job_id in (orphan, half):
        os.utime(spool.path / job_id, (0, 0))
    run(retention)
    assert spool.quarantined() == [orphan] and folders(spool) == set()
    assert (spool.path / "quarantine" / orphan / "page-1.dcm").read_bytes() == b"result"


def test_quarantine_is_emptied_only_where_the_site_says_so(
    store: Store, spool: Spool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    orphan = new_id()
    spool.write_source(orphan, b"page")
    os.utime(spool.path / orphan, (0, 0))
    run(Retention(spool, store, StorageSettings()))
    kept_a_year = Retention(spool, store, StorageSettings(quarantine_days=365))
    run(kept_a_year)
    assert spool.quarantined() == [orphan]
    now = clock.utc_now().timestamp()
    monkeypatch.setattr("gateway.spool.disk.time.time", lambda: now + 366 * 86400)
    run(Retention(spool, store, StorageSettings()))
    assert spool.quarantined() == [orphan]
    run(kept_a_year)
    assert spool.quarantined() == []
    assert [r.job_id for r in caplog.records if r.message == "Deleted files in quarantine"] == [orphan]  # type: ignore[attr-defined]


def test_a_purge_that_was_interrupted_is_ended(store: Store, spool: Spool, make_job: MakeJob) -> None:
    job_id = make_job(JobStatus.DONE)
    assert store.files.purge(job_id, utc_now(), "retention", "and then the power failed")
    os.utime(spool.path / job_id, (0, 0))
    run(Retention(spool, store, StorageSettings()))
    assert folders(spool) == set()


def test_a_job_without_files_says_that_nothing_was_left(
    store: Store, spool: Spool, make_job: MakeJob, later: timedelta
) -> None:
    job_id = make_job(JobStatus.DONE)
    spool.remove(job_id)  # an earlier version did, and recorded nothing
    run(Retention(spool, store, StorageSettings()))
    assert store.jobs.events(job_id)[-1].detail == "no files were left: the job ended more than 30 days ago"


def test_nothing_is_deleted_during_a_backup(store: Store, spool: Spool, make_job: MakeJob, later: timedelta) -> None:
    job_id = make_job(JobStatus.DONE)
    retention = Retention(spool, store, StorageSettings())
    with spool.kept_whole():
        run(retention)
        assert folders(spool) == {job_id}
    run(retention)
    assert folders(spool) == set()


def test_the_marks_of_the_disk_are_in_order() -> None:
    assert StorageSettings().purge_marks_mib == (1024, 2048)
    assert StorageSettings(minimum_free_mib=0).purge_marks_mib == (0, 0)
    with pytest.raises(ValueError, match="purge_below_mib = 100, purge_until_mib = 200: none may be less"):
        StorageSettings(purge_below_mib=100)
