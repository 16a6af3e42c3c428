"""The store: one truth for state, shared by threads and processes."""

import itertools
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import URL, create_engine
from sqlmodel import SQLModel

from gateway.domain.artefact import Role
from gateway.domain.clock import utc_now
from gateway.domain.context import StudyContext
from gateway.domain.status import (
    DELIVERY_TRANSITIONS,
    JOB_TRANSITIONS,
    DeliveryAction,
    DeliveryStatus,
    JobAction,
    JobStatus,
    next_delivery_status,
    next_job_status,
)
from gateway.errors import IllegalTransition, NotFound, StorageError
from gateway.store.database import lock_job, newest_version
from gateway.store.jobs import JobResult
from gateway.store.store import Store
from gateway.store.tables import CommitmentRequest, Delivery, Job, Page, WorkerSeen
from tests.fakes import due_anywhere
from tests.waiting import PATIENCE_S

_keys = itertools.count()


def new_job(source: str = "dicom:SCANNER", source_key: str = "") -> Job:
    return Job(source=source, source_key=source_key or f"1.2.{next(_keys)}", media_type="application/dicom")


def submitted(store: Store) -> str:
    return store.jobs.submit(new_job(), "scp")[0].id


def claimed(store: Store, worker: str = "w1", lease_s: float = 60) -> str:
    submitted(store)
    job = store.jobs.claim(worker, lease_s)
    assert job is not None
    return job.id


def delivery(job_id: str, destination: str = "pacs", page_number: int = 1, identifier: str = "1.2.3") -> Delivery:
    return Delivery(
        job_id=job_id,
        role=Role.WAVEFORM,
        page_number=page_number,
        destination=destination,
        kind="dicom",
        artefact=f"page{page_number}.dcm",
        identifier=identifier,
    )


def page(job_id: str, number: int = 1) -> Page:
    return Page(job_id=job_id, page_number=number, status=JobStatus.DONE)


def done(store: Store, *destinations: str) -> list[Delivery]:
    """Complete a new job with one delivery for each destination."""
    job_id = claimed(store)
    store.jobs.complete(
        job_id,
        "w1",
        JobResult(
            status=JobStatus.DONE, pages=[page(job_id)], deliveries=[delivery(job_id, name) for name in destinations]
        ),
    )
    return store.deliveries.of_job(job_id)


def path_of(store: Store) -> Path:
    assert store.database.url.database
    return Path(store.database.url.database)


def actions(store: Store, job_id: str) -> list[str]:
    return [event.action for event in store.jobs.events(job_id)]


# -- submit --------------------------------------------------------------------------------------------------------


def test_submit_makes_one_job_whoever_sends_the_same_object(store: Store) -> None:
    first, new = store.jobs.submit(new_job("dicom:A", "1.2.840.1"), "scp")
    again, newer = store.jobs.submit(new_job("dicom:B", "1.2.840.1"), "scp")
    assert (new, newer) == (True, False)
    assert first.id == again.id and again.source == "dicom:A"
    assert store.jobs.counts()[JobStatus.QUEUED] == 1
    assert actions(store, first.id) == ["RECEIVED"]
    assert store.jobs.find("1.2.840.1") is not None and store.jobs.find("1.2.840.2") is None


def test_a_job_may_start_waiting_for_a_person_but_not_done(store: Store) -> None:
    held = new_job()
    held.status, held.reason = JobStatus.NEEDS_REVIEW, "no patient_id"
    job, _ = store.jobs.submit(held, "folder")
    assert store.jobs.get(job.id).reason == "no patient_id"
    assert actions(store, job.id) == ["RECEIVED", "HOLD"]
    assert store.jobs.claim("w1", 60) is None
    finished = new_job()
    finished.status = JobStatus.DONE
    with pytest.raises(IllegalTransition):
        store.jobs.submit(finished, "folder")


def test_rows_come_back_detached_and_in_utc(store: Store) -> None:
    job_id = submitted(store)
    before = store.jobs.get(job_id)
    store.jobs.claim("w1", 60)
    assert before.status == JobStatus.QUEUED
    assert before.created_at.utcoffset() == timedelta(0)
    assert store.jobs.get(job_id).status == JobStatus.RUNNING


# -- claim, lease --------------------------------------------------------------------------------------------------


def test_claim_takes_the_oldest_and_counts_the_attempt(store: Store) -> None:
    first, second = submitted(store), submitted(store)
    one, two, none = (store.jobs.claim("w1", 60) for _ in range(3))
    assert one is not None and two is not None and none is None
    assert [one.id, two.id] == [first, second]
    assert (one.status, one.attempts, one.worker) == (JobStatus.RUNNING, 1, "w1")
    assert one.lease_expires_at is not None and one.lease_expires_at > utc_now()


def test_a_job_that_ended_its_worker_waits_behind_those_that_wait_already_and_before_later_ones(store: Store) -> None:
    poison, waiting = submitted(store), submitted(store)
    taken = store.jobs.claim("w1", lease_s=-1)
    assert taken and taken.id == poison
    store.jobs.rescue(3)
    later = submitted(store)
    order = [store.jobs.claim("w1", 60) for _ in range(3)]
    assert [job and job.id for job in order] == [waiting, poison, later]


def test_heartbeat_extends_only_the_own_lease(store: Store) -> None:
    job_id = claimed(store, lease_s=1)
    assert store.jobs.heartbeat(job_id, "w1", 100)
    assert not store.jobs.heartbeat(job_id, "w2", 100)
    lease = store.jobs.get(job_id).lease_expires_at
    assert lease is not None and lease > utc_now() + timedelta(seconds=50)
    store.jobs.complete(job_id, "w1", JobResult(status=JobStatus.NEEDS_REVIEW, reason="no grid on the page"))
    assert not store.jobs.heartbeat(job_id, "w1", 100)


def test_release_does_not_count_the_attempt(store: Store) -> None:
    job_id = claimed(store)
    store.jobs.release(job_id, "w1", "worker stopped")
    job = store.jobs.get(job_id)
    assert (job.status, job.attempts, job.worker, job.lease_expires_at) == (JobStatus.QUEUED, 0, "", None)


def test_rescue_leaves_live_leases_alone(store: Store) -> None:
    job_id = claimed(store, lease_s=60)
    assert store.jobs.rescue(3) == []
    assert store.jobs.get(job_id).status == JobStatus.RUNNING


def test_a_lease_of_a_clock_that_stood_ahead_is_bounded(store: Store) -> None:
    ahead, usual = claimed(store, lease_s=7200), claimed(store, lease_s=60)
    before = store.jobs.get(usual).lease_expires_at
    assert store.jobs.bound_leases(60) == [ahead]
    lease = store.jobs.get(ahead).lease_expires_at
    assert lease is not None and lease <= utc_now() + timedelta(seconds=60)
    assert store.jobs.get(usual).lease_expires_at == before
    assert store.jobs.get(ahead).status == JobStatus.RUNNING and store.jobs.bound_leases(60) == []


def test_a_page_that_kills_its_worker_ends_failed(store: Store) -> None:
    job_id = submitted(store)
    for attempt in (1, 2, 3):
        job = store.jobs.claim(f"w{attempt}", lease_s=-1)  # a lease that is over when it starts: the worker died
        assert job is not None and job.attempts == attempt
        assert store.jobs.rescue(3) == [job_id]
    job = store.jobs.get(job_id)
    assert job.status == JobStatus.FAILED
    assert "attempt 3 of 3" in job.reason
    assert store.jobs.claim("w4", 60) is None
    assert actions(store, job_id) == ["RECEIVED", "CLAIM", "RELEASE", "CLAIM", "RELEASE", "CLAIM", "FAIL"]


def test_a_lost_lease_stores_nothing(store: Store) -> None:
    job_id = claimed(store, "w1", lease_s=-1)
    store.jobs.rescue(3)
    store.jobs.claim("w2", 60)
    for late in (
        lambda: store.jobs.complete(
            job_id, "w1", JobResult(status=JobStatus.DONE, pages=[page(job_id)], deliveries=[delivery(job_id)])
        ),
        lambda: store.jobs.complete(job_id, "w1", JobResult(status=JobStatus.NEEDS_REVIEW, reason="late")),
        lambda: store.jobs.fail(job_id, "w1", "late"),
        lambda: store.jobs.release(job_id, "w1", "late"),
    ):
        with pytest.raises(IllegalTransition, match="not leased to w1"):
            late()
    assert store.jobs.pages(job_id) == [] and store.deliveries.of_job(job_id) == []
    assert store.jobs.get(job_id).worker == "w2"


@pytest.mark.parametrize(
    ("store", "what"),
    [
        ("sqlite", "claim"),
        ("sqlite", "heartbeat"),
        pytest.param("postgresql", "heartbeat", marks=pytest.mark.interop),  # a claim waits for nobody there
    ],
    indirect=["store"],
)
def test_a_lease_begins_when_it_is_written_however_long_that_had_to_wait(store: Store, what: str) -> None:
    job_id = submitted(store)
    if what == "heartbeat":
        assert store.jobs.claim("w1", 60)
    lease = {"claim": lambda: store.jobs.claim("w1", 60), "heartbeat": lambda: store.jobs.heartbeat(job_id, "w1", 60)}[
        what
    ]
    thread = threading.Thread(target=lease)
    with store.database.write() as other:
        lock_job(other, job_id)
        thread.start()
        time.sleep(0.5)
        released = utc_now()
    thread.join()
    expires = store.jobs.get(job_id).lease_expires_at
    assert expires is not None and expires >= released + timedelta(seconds=60)


def _claim_all(url: URL, worker: str, start: Barrier, claims: "multiprocessing.SimpleQueue[list[str]]") -> None:
    store = Store(url)
    start.wait()
    mine: list[str] = []
    while (job := store.jobs.claim(worker, 60)) is not None:
        mine.append(job.id)
    claims.put(mine)


def test_eight_processes_claim_200_jobs_once_each(store: Store) -> None:
    ids = [submitted(store) for _ in range(200)]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gateway.store.store", "pytest"])
    claims: multiprocessing.SimpleQueue[list[str]] = context.SimpleQueue()
    start = context.Barrier(8, timeout=3 * PATIENCE_S)
    workers = [
        context.Process(target=_claim_all, args=(store.database.url, f"w{n}", start, claims), daemon=True)
        for n in range(8)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=3 * PATIENCE_S)
    taken = [claims.get() for _ in workers]
    assert sorted(itertools.chain.from_iterable(taken)) == sorted(ids)
    assert sum(bool(mine) for mine in taken) > 1  # they did compete
    assert {job.attempts for job in store.jobs.newest(limit=300)} == {1}


def test_threads_share_a_store(store: Store) -> None:
    def submit() -> None:
        for _ in range(10):
            submitted(store)

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.jobs.counts()[JobStatus.QUEUED] == 80


# -- complete ------------------------------------------------------------------------------------------------------


def test_complete_stores_result_and_deliveries_together(store: Store) -> None:
    job_id = claimed(store)
    store.jobs.complete(
        job_id,
        "w1",
        JobResult(
            status=JobStatus.DONE,
            pages=[page(job_id, 1), page(job_id, 2)],
            deliveries=[delivery(job_id, "pacs"), delivery(job_id, "ehr")],
        ),
    )
    assert store.jobs.get(job_id).status == JobStatus.DONE
    assert [p.page_number for p in store.jobs.pages(job_id)] == [1, 2]
    assert [d.destination for d in store.deliveries.of_job(job_id)] == ["pacs", "ehr"]
    assert actions(store, job_id) == ["RECEIVED", "CLAIM", "COMPLETE"]


def test_a_result_that_breaks_a_rule_changes_nothing(store: Store) -> None:
    job_id = claimed(store)
    with pytest.raises(StorageError):
        store.jobs.complete(
            job_id, "w1", JobResult(status=JobStatus.DONE, pages=[page(job_id), page(job_id)])
        )  # page 1 twice
    assert store.jobs.get(job_id).status == JobStatus.RUNNING
    assert store.jobs.pages(job_id) == []
    with pytest.raises(IllegalTransition):
        store.jobs.complete(job_id, "w1", JobResult(status=JobStatus.QUEUED))


def test_a_second_run_replaces_what_never_arrived(store: Store) -> None:
    job_id = claimed(store)
    results = [delivery(job_id, "pacs"), delivery(job_id, "ehr"), delivery(job_id, "share")]
    store.jobs.complete(
        job_id,
        "w1",
        JobResult(status=JobStatus.NEEDS_REVIEW, reason="layout uncertain", pages=[page(job_id)], deliveries=results),
    )
    pacs, ehr, share = store.deliveries.of_job(job_id)
    assert pacs.id and ehr.id and share.id
    store.deliveries.delivered(pacs.id, "0x0000")
    store.deliveries.refuse(ehr.id, "unknown patient", "AR")
    store.jobs.retry(job_id, "cli")
    assert store.jobs.get(job_id).attempts == 0
    assert due_anywhere(store) == []  # the old result is not sent while a new one is made
    store.jobs.claim("w1", 60)
    store.jobs.complete(job_id, "w1", JobResult(status=JobStatus.DONE, pages=[page(job_id)], deliveries=results))
    pacs, ehr, share = store.deliveries.of_job(job_id)
    assert [d.status for d in (pacs, ehr, share)] == [
        DeliveryStatus.DELIVERED,
        DeliveryStatus.PENDING,
        DeliveryStatus.PENDING,
    ]
    assert ehr.attempts == 0
    assert len(store.jobs.pages(job_id)) == 1


# -- a person ------------------------------------------------------------------------------------------------------


def test_retry_and_cancel_follow_the_table(store: Store) -> None:
    job_id = claimed(store)
    for change in (store.jobs.retry, store.jobs.cancel):
        with pytest.raises(IllegalTransition):
            change(job_id, "cli")
    store.jobs.fail(job_id, "w1", "page too large")
    store.jobs.cancel(job_id, "cli")
    assert store.jobs.get(job_id).status == JobStatus.CANCELLED
    store.jobs.retry(job_id, "cli")
    assert store.jobs.get(job_id).status == JobStatus.QUEUED


def test_every_pair_outside_the_tables_raises() -> None:
    for job_pair in itertools.product(JobStatus, JobAction):
        if job_pair not in JOB_TRANSITIONS:
            with pytest.raises(IllegalTransition):
                next_job_status(*job_pair)
    for delivery_pair in itertools.product(DeliveryStatus, DeliveryAction):
        if delivery_pair not in DELIVERY_TRANSITIONS:
            with pytest.raises(IllegalTransition):
                next_delivery_status(*delivery_pair)


def test_an_unknown_id_is_not_found(store: Store) -> None:
    for reader in (
        lambda: store.jobs.get("x"),
        lambda: store.jobs.retry("x", "cli"),
        lambda: store.deliveries.delivered(7, "AA"),
    ):
        with pytest.raises(NotFound):
            reader()


# -- workers -------------------------------------------------------------------------------------------------------


def test_the_last_sign_of_any_worker_is_known(store: Store) -> None:
    assert store.workers.last_seen() is None
    before = utc_now()
    for name in ("w1", "w2", "w1"):
        store.workers.seen(name)
    seen_at = store.workers.last_seen()
    assert seen_at is not None and seen_at >= before
    with store.database.write() as session:  # by a clock that stood ten years ahead
        session.add(WorkerSeen(name="w3", seen_at=before + timedelta(days=3650)))
    assert store.workers.last_seen() == seen_at


# -- deliveries ----------------------------------------------------------------------------------------------------


def test_a_deferred_delivery_blocks_its_destination_only(store: Store) -> None:
    first = done(store, "pacs", "ehr")
    second = done(store, "pacs", "ehr")
    assert {d.id for d in due_anywhere(store)} == {first[0].id, first[1].id}
    assert first[0].id and first[1].id
    later = utc_now() + timedelta(hours=1)
    store.deliveries.defer(first[0].id, "connection refused", later)
    store.deliveries.delivered(first[1].id, "AA")
    assert [d.id for d in due_anywhere(store)] == [second[1].id]
    assert {d.id for d in due_anywhere(store, later)} == {first[0].id, second[1].id}
    assert store.deliveries.due(utc_now(), "pacs") == []
    deferred = store.deliveries.of_job(first[0].job_id)[0]
    assert (deferred.status, deferred.attempts, deferred.reason) == (DeliveryStatus.PENDING, 1, "connection refused")


def test_a_delivery_that_failed_twice_steps_aside_but_not_from_its_page(store: Store) -> None:
    (first,), (second,) = done(store, "pacs"), done(store, "pacs")
    assert first.id and second.id
    later = utc_now() + timedelta(hours=1)
    for due in ([], [second.id]):
        store.deliveries.defer(first.id, "0x0110", later)
        assert [d.id for d in due_anywhere(store)] == due
    assert [d.id for d in due_anywhere(store, later)] == [second.id, first.id]  # what never failed goes first
    store.jobs.retry(first.job_id, "cli")  # nothing arrived: the same delivery again, and one more about its page
    claimed = store.jobs.claim("w1", 60)
    assert claimed
    note = delivery(claimed.id, "pacs")
    note.artefact = "page-1.r1.rejection.pacs.dcm"
    result = JobResult(status=JobStatus.DONE, deliveries=[delivery(claimed.id, "pacs"), note])
    store.jobs.complete(claimed.id, "w1", result)
    for _ in range(2):
        store.deliveries.defer(first.id, "0x0110", later)
    store.deliveries.delivered(second.id, "0x0000")
    assert due_anywhere(store) == []
    assert [d.id for d in due_anywhere(store, later)] == [first.id]
    store.deliveries.delivered(first.id, "0x0000")
    assert [d.artefact for d in due_anywhere(store)] == [note.artefact]


def test_a_delivery_put_off_by_a_clock_that_stood_ahead_is_due(store: Store) -> None:
    (ahead,), (usual,), (other,) = done(store, "pacs"), done(store, "pacs"), done(store, "ehr")
    assert ahead.id and usual.id and other.id
    for delivery_id, days in ((ahead.id, 3650.0), (usual.id, 0.04), (other.id, 3650.0)):
        store.deliveries.defer(delivery_id, "0xA700", utc_now() + timedelta(days=days))
    assert store.deliveries.bound_pauses("pacs", 4500) == 1
    assert [d.id for d in due_anywhere(store)] == [ahead.id]
    assert store.deliveries.bound_pauses("pacs", 4500) == 0


def test_a_commitment_result_put_off_by_a_clock_that_stood_ahead_is_due(store: Store) -> None:
    for uid, days in (("1.1", 3650.0), ("1.2", 0.04)):
        at = utc_now() + timedelta(days=days)
        store.commitments.add_request(
            CommitmentRequest(
                ae_title="CART", host="10.1.1.1", transaction_uid=uid, references_json="[]", next_attempt_at=at
            )
        )
    assert [request.transaction_uid for request in store.commitments.due_requests(utc_now(), 4500)] == ["1.1"]


@pytest.mark.parametrize("end", ["refuse", "give_up"])
def test_a_delivery_that_ended_blocks_nothing(store: Store, end: str) -> None:
    (first,), (second,) = done(store, "pacs"), done(store, "pacs")
    assert first.id
    if end == "refuse":
        store.deliveries.refuse(first.id, "not authorised", "0x0124")
    else:
        store.deliveries.give_up(first.id, "connection refused")
    assert [d.id for d in due_anywhere(store)] == [second.id]
    store.deliveries.retry(first.id, "cli")
    again = due_anywhere(store)[0]
    assert (again.id, again.attempts) == (first.id, 0)


def test_delivered_is_final_and_in_the_trail(store: Store) -> None:
    (sent,) = done(store, "pacs")
    assert sent.id
    store.deliveries.delivered(sent.id, "0x0000")
    (sent,) = store.deliveries.of_job(sent.job_id)
    assert sent.delivered_at is not None and sent.response == "0x0000"
    assert store.jobs.events(sent.job_id)[-1].detail == "pacs, page 1: 0x0000"
    for change in (
        lambda: store.deliveries.delivered(sent.id, "0x0000"),
        lambda: store.deliveries.refuse(sent.id, "", ""),
        lambda: store.deliveries.retry(sent.id, "cli"),
    ):
        with pytest.raises(IllegalTransition):
            change()


def test_cancelling_a_job_cancels_its_deliveries(store: Store) -> None:
    job_id = claimed(store)
    store.jobs.complete(
        job_id, "w1", JobResult(status=JobStatus.NEEDS_REVIEW, reason="doubtful", deliveries=[delivery(job_id)])
    )
    (pending,) = store.deliveries.of_job(job_id)
    store.jobs.cancel(job_id, "cli")
    assert due_anywhere(store) == []
    assert pending.id
    with pytest.raises(IllegalTransition):
        store.deliveries.defer(pending.id, "late", utc_now())
    store.deliveries.delivered(pending.id, "0x0000")  # the send was under way: what arrived has arrived
    assert store.deliveries.counts()[DeliveryStatus.DELIVERED] == 1


# -- readers -------------------------------------------------------------------------------------------------------


def test_readers_page_filter_and_count(store: Store) -> None:
    assert store.jobs.oldest_queued_age_s() == 0
    ids = [submitted(store) for _ in range(3)]
    store.jobs.claim("w1", 60)
    assert [job.id for job in store.jobs.newest(limit=2)] == [ids[2], ids[1]]
    assert [job.id for job in store.jobs.newest(limit=2, offset=2)] == [ids[0]]
    assert [job.id for job in store.jobs.newest(status=JobStatus.RUNNING)] == [ids[0]]
    assert store.jobs.counts() == {**dict.fromkeys(JobStatus, 0), JobStatus.QUEUED: 2, JobStatus.RUNNING: 1}
    assert store.jobs.oldest_queued_age_s() > 0


def test_figures_for_the_metrics(store: Store) -> None:
    assert store.jobs.digitization_seconds() == (0, 0.0)
    job_id = claimed(store)
    pages = [page(job_id, 1), page(job_id, 2), page(job_id, 3)]
    pages[0].seconds, pages[1].seconds = 1.5, 2.0  # page 3 failed before it began
    store.jobs.complete(
        job_id,
        "w1",
        JobResult(status=JobStatus.DONE, pages=pages, deliveries=[delivery(job_id, "pacs"), delivery(job_id, "ehr")]),
    )
    (sent, _) = store.deliveries.of_job(job_id)
    assert sent.id
    store.deliveries.delivered(sent.id, "0x0000")
    assert store.jobs.digitization_seconds() == (2, 3.5)
    assert store.deliveries.counts_by_destination() == {
        (DeliveryStatus.DELIVERED, "pacs"): 1,
        (DeliveryStatus.PENDING, "ehr"): 1,
    }


def test_finished_jobs_need_no_files_once_delivered(store: Store) -> None:
    (pending,) = done(store, "pacs")
    assert store.jobs.needs_files(pending.job_id)
    assert pending.id
    store.deliveries.delivered(pending.id, "0x0000")
    assert not store.jobs.needs_files(pending.job_id)
    assert store.jobs.needs_files(submitted(store))
    assert store.jobs.needs_files("unknown")
    assert store.jobs.unknown(["unknown", pending.job_id, *map(str, range(1000))])[:2] == ["unknown", "0"]


# -- the database --------------------------------------------------------------------------------------------------


def test_migrations_make_the_tables_the_models_describe(store: Store) -> None:
    engine = create_engine(store.database.url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), SQLModel.metadata) == []
    engine.dispose()


def test_stores_that_open_together_make_one_database(tmp_path: Path) -> None:
    opened: list[Store] = []
    threads = [threading.Thread(target=lambda: opened.append(Store(tmp_path / "new" / "gateway.db"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 6
    submitted(opened[0])
    assert all(store.jobs.counts()[JobStatus.QUEUED] == 1 for store in opened)
    for store in opened:
        store.close()


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_commits_are_durable(store: Store) -> None:
    store.database.ping()
    with store.database.read() as session:
        pragmas = {
            name: session.connection().exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    assert path_of(store).stat().st_mode & 0o077 == 0


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Store]:
    """A store whose database another process keeps locked."""
    store = Store(tmp_path / "gateway.db", busy_timeout_s=0.05)
    with closing(sqlite3.connect(path_of(store), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield store
    store.close()


def test_a_locked_database_is_a_storage_error_without_patient_data(locked: Store) -> None:
    job = new_job()
    job.context = StudyContext(patient_name="MARKED^NAME")
    with pytest.raises(StorageError, match="locked") as caught:
        locked.jobs.submit(job, "scp")
    assert "MARKED" not in f"{caught.value} {caught.value.__cause__}"
    with pytest.raises(StorageError):
        locked.database.ping()
    assert locked.jobs.newest() == []  # readers are not blocked


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_a_database_that_cannot_be_written_is_a_storage_error(store: Store) -> None:
    with closing(sqlite3.connect(path_of(store))) as other:
        other.execute("DROP TABLE jobevent")
    with pytest.raises(StorageError):
        store.jobs.submit(new_job(), "scp")
    assert store.jobs.counts()[JobStatus.QUEUED] == 0
    with store.database._backend.writer.connect() as connection:
        connection.exec_driver_sql("PRAGMA query_only=ON")
    with pytest.raises(StorageError, match="readonly"):
        store.database.ping()


def test_what_is_no_database_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "gateway.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StorageError):
        Store(tmp_path / "gateway.db")
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        Store(tmp_path / "file" / "gateway.db")


def test_a_newer_database_is_refused(store: Store) -> None:
    with store.database.write() as session:
        session.connection().exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StorageError, match="9999") as caught:
        Store(store.database.url)
    assert "newer gateway" in str(caught.value) and f"up to {newest_version()}" in str(caught.value)


_SUBMIT_FOREVER = """
import sys
from pathlib import Path
from gateway.store.tables import Job
from gateway.store.store import Store
store = Store(Path(sys.argv[1]))
for n in range(100000):
    store.jobs.submit(Job(source="dicom:A", source_key=f"1.{n}", media_type="application/dicom"), "scp")
    print(n, flush=True)
"""


def test_what_was_acknowledged_outlives_kill_9(tmp_path: Path) -> None:
    database = tmp_path / "gateway.db"
    process = subprocess.Popen([sys.executable, "-c", _SUBMIT_FOREVER, database], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(50):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    acknowledged = 50 + len(process.stdout.read().split())
    process.wait()
    process.stdout.close()
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("gateway.db", "gateway.db-wal"):  # without -shm: as after a reboot
        shutil.copy(tmp_path / name, copy)
    store = Store(copy / "gateway.db")
    keys = {job.source_key for job in store.jobs.newest(limit=100000)}
    assert {f"1.{n}" for n in range(acknowledged)} <= keys
    assert all(actions(store, job.id) == ["RECEIVED"] for job in store.jobs.newest(limit=100000))
    store.close()
