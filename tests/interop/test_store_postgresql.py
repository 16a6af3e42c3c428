"""What the store does on PostgreSQL alone: locks, races, lost connections, errors without values.

The store's own tests, and those of other rooms, run on PostgreSQL too: see tests/databases.py.
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, timedelta
from pathlib import Path

import pytest
from sqlalchemy import URL, text

from gateway.domain.clock import utc_now
from gateway.domain.context import StudyContext
from gateway.domain.patients import OrderUpdate, PatientMerge, PatientUpdate
from gateway.domain.received import InboundMessage
from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.errors import IllegalTransition, StorageError
from gateway.identity.decide import decide
from gateway.settings import StorageSettings
from gateway.store.commitments import Settlement
from gateway.store.database import lock_job
from gateway.store.jobs import JobResult
from gateway.store.store import Store
from gateway.store.tables import CommitmentRequest, Delivery, Job, Page, Patient
from tests.gateway.store.test_store import claimed, delivery, new_job, page, submitted
from tests.postgresql import PASSWORD, Server
from tests.waiting import PATIENCE_S, wait_for

pytestmark = pytest.mark.interop


@pytest.fixture
def store(postgresql_store: Store) -> Store:
    return postgresql_store


@pytest.fixture
def hasty(postgresql_url: URL) -> Iterator[Store]:
    """A second process's store, which waits for nobody."""
    store = Store(postgresql_url, busy_timeout_s=0.1)
    yield store
    store.close()


def done(pages: Sequence[Page], deliveries: Sequence[Delivery]) -> JobResult:
    return JobResult(status=JobStatus.DONE, pages=pages, deliveries=deliveries)


def at_once(*works: Callable[[], object]) -> None:
    """Do all of it in threads that begin together; raise what one of them raised."""
    start = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> None:
        start.wait()
        work()

    with ThreadPoolExecutor(len(works)) as pool:
        for running in [pool.submit(run, work) for work in works]:
            running.result(PATIENCE_S)


def message(control_id: str) -> InboundMessage:
    return InboundMessage(
        sending_application="A",
        sending_facility="F",
        control_id=control_id,
        digest="",
        message_type="ADT^A08",
        data=b"",
        answer=b"",
        received_at=utc_now(),
    )


# -- what the server is asked for ----------------------------------------------------------------------------------


def test_commits_are_durable_and_nothing_waits_without_end(store: Store) -> None:
    """Whatever the server's defaults are: here they are all different."""
    names = ("synchronous_commit", "transaction_isolation", "lock_timeout", "transaction_read_only")
    with store.database.write() as session:
        found = [session.connection().exec_driver_sql(f"SHOW {name}").scalar_one() for name in names]
    assert found == ["on", "read committed", "10s", "off"]
    with store.database.read() as session:
        found = [session.connection().exec_driver_sql(f"SHOW {name}").scalar_one() for name in names]
        assert session.connection().exec_driver_sql("SHOW statement_timeout").scalar_one() == "30s"
    assert found == ["on", "repeatable read", "10s", "on"]


def test_moments_are_stored_in_utc_whatever_the_time_zone_of_the_server(
    store: Store, postgresql_server: Server
) -> None:
    job = store.jobs.get(submitted(store))
    ((stored, zone),) = postgresql_server.execute(
        "SELECT created_at, current_setting('TimeZone') FROM job", store.database.url.database
    )
    assert zone == "Asia/Kathmandu"
    assert stored.replace(tzinfo=UTC) == job.created_at


def test_the_password_comes_from_a_file(postgresql_url: URL, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    settings = StorageSettings(
        path=tmp_path,
        database=postgresql_url._replace(password=None).render_as_string(),
        database_password_file=file,
    )
    store = Store.open(settings)
    store.database.ping()
    store.close()
    assert [path.name for path in tmp_path.iterdir()] == ["password"]
    file.write_text("another")
    with pytest.raises(StorageError, match="password authentication failed") as caught:
        Store.open(settings)
    assert "another" not in str(caught.value)
    file.unlink()
    with pytest.raises(StorageError, match="No such file"):
        Store.open(settings)


def test_a_server_that_does_not_answer_is_a_storage_error(postgresql_url: URL) -> None:
    with pytest.raises(StorageError, match="refused") as caught:
        Store(postgresql_url.set(port=1))
    assert PASSWORD not in str(caught.value)


# -- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO patient VALUES (1, 'P1', '', 'MARKED^NAME', '', '', NULL, '2026-01-01'), "
        "(1, 'P1', '', 'MARKED^NAME', '', '', NULL, '2026-01-01')",
        "INSERT INTO patient_order (patient, description) VALUES (999, 'MARKED^NAME')",
        "SELECT CAST('MARKED^NAME' AS integer)",
        "SELECT CAST('MARKED^NAME' AS timestamp)",
        "INSERT INTO delivery (job_id, role) VALUES ('MARKED^NAME', 'MARKED^NAME MARKED^NAME')",
    ],
)
def test_errors_hold_no_values(store: Store, statement: str) -> None:
    with pytest.raises(StorageError) as caught, store.database.write() as session:
        session.connection().execute(text(statement))
    assert "MARKED" not in "".join(traceback.format_exception(caught.value)).replace(statement, "")
    assert "MARKED" not in str(caught.value)


def test_a_repeated_key_is_named_by_its_rule_alone(store: Store) -> None:
    moment = utc_now()
    with pytest.raises(StorageError, match="patient_patient_id_issuer_of_patient_id_key") as caught:
        with store.database.write() as session:
            for _ in range(2):
                session.add(Patient(patient_id="MARKED-1", patient_name="MARKED^NAME", told_at=moment))
    assert "MARKED" not in "".join(traceback.format_exception(caught.value))


def test_a_database_that_cannot_be_written_is_a_storage_error(store: Store, postgresql_server: Server) -> None:
    name = store.database.url.database
    postgresql_server.execute("DROP TABLE jobevent", name)
    with pytest.raises(StorageError):
        store.jobs.submit(new_job(), "scp")
    assert store.jobs.counts()[JobStatus.QUEUED] == 0
    postgresql_server.execute("REVOKE ALL ON alembic_version FROM gateway", name)
    with pytest.raises(StorageError, match="permission denied"):
        store.database.ping()


# -- locks ---------------------------------------------------------------------------------------------------------


def test_a_locked_job_is_a_storage_error_and_blocks_no_reader(store: Store, hasty: Store) -> None:
    job_id = claimed(store)
    with store.database.write() as session:
        lock_job(session, job_id)
        with pytest.raises(StorageError, match="lock timeout"):
            hasty.jobs.cancel(job_id, "cli")
        assert hasty.jobs.get(job_id).status == JobStatus.RUNNING
        hasty.jobs.submit(new_job(), "scp")
        hasty.database.ping()
    assert hasty.jobs.heartbeat(job_id, "w1", 60)


def test_a_claim_takes_the_next_job_where_somebody_changes_the_oldest(store: Store, hasty: Store) -> None:
    first, second = submitted(store), submitted(store)
    with store.database.write() as session:
        lock_job(session, first)
        job = hasty.jobs.claim("w1", 60)
        assert job is not None and job.id == second
        assert hasty.jobs.claim("w1", 60) is None
    job = hasty.jobs.claim("w1", 60)
    assert job is not None and job.id == first


def test_a_job_cancelled_while_it_is_claimed_is_one_or_the_other(store: Store, hasty: Store) -> None:
    for _ in range(30):
        job_id = submitted(store)
        cancelled = []

        def cancel(job_id: str = job_id, cancelled: list[bool] = cancelled) -> None:
            try:
                store.jobs.cancel(job_id, "cli")
                cancelled.append(True)
            except IllegalTransition:
                cancelled.append(False)

        at_once(cancel, lambda: hasty.jobs.claim("w1", 60))
        assert store.jobs.get(job_id).status == (JobStatus.CANCELLED if cancelled[0] else JobStatus.RUNNING)


def test_one_object_sent_over_eight_connections_is_one_job(postgresql_url: URL) -> None:
    stores = [Store(postgresql_url) for _ in range(8)]
    for number in range(20):
        answers: list[tuple[str, bool]] = []

        def submit(store: Store, key: str = f"1.{number}", answers: list[tuple[str, bool]] = answers) -> None:
            job, new = store.jobs.submit(new_job(source_key=key), "scp")
            answers.append((job.id, new))

        at_once(*(lambda store=store: submit(store) for store in stores))
        assert len({job_id for job_id, _ in answers}) == 1
        assert [new for _, new in answers].count(True) == 1
    assert stores[0].jobs.counts()[JobStatus.QUEUED] == 20
    for store in stores:
        store.close()


def test_eight_senders_that_name_one_patient_make_one_record(postgresql_url: URL) -> None:
    stores = [Store(postgresql_url) for _ in range(8)]
    start = utc_now()

    def tell(number: int) -> None:
        for repeat in range(10):
            update = PatientUpdate(patient_id=f"P{repeat}", patient_name=f"NAME^{number}")
            order = OrderUpdate(patient=update, placer_order_number=f"O{repeat}", accession_number=f"A{repeat}")
            told_at = start + timedelta(seconds=number)
            stores[number].patients.receive(message(f"{number}-{repeat}"), [order], told_at, decide)

    at_once(*(lambda number=number: tell(number) for number in range(8)))
    for repeat in range(10):
        found = stores[0].patients.order(f"A{repeat}")
        assert found is not None and found[1].patient_name == "NAME^7"  # the newest, whichever came last
    for store in stores:
        store.close()


def test_one_message_over_two_connections_counts_once(store: Store) -> None:
    outcomes: list[bool] = []

    def receive(of: Store) -> None:
        try:
            of.patients.receive(message("1"), [PatientUpdate(patient_id="P1")], utc_now(), decide)
            outcomes.append(True)
        except StorageError:
            outcomes.append(False)

    other = Store(store.database.url)
    at_once(lambda: receive(store), lambda: receive(other))
    other.close()
    assert sorted(outcomes) == [False, True]


def test_one_request_to_commit_over_two_connections_is_kept_once(store: Store, hasty: Store) -> None:
    def request() -> CommitmentRequest:
        return CommitmentRequest(ae_title="SCANNER", host="127.0.0.1", transaction_uid="1.5", references_json="[]")

    at_once(*(lambda of=of: of.commitments.add_request(request()) for of in (store, hasty)))
    assert len(store.commitments.due_requests(utc_now(), 4500)) == 1


def test_a_merge_and_a_delivery_at_once_leave_a_notice_where_something_arrived(store: Store) -> None:
    other = Store(store.database.url)
    for number in range(20):
        job = new_job()
        job.context = StudyContext(patient_id=f"OLD{number}")
        store.jobs.submit(job, "scp")
        taken = store.jobs.claim("w1", 60)
        assert taken is not None
        store.jobs.complete(taken.id, "w1", done([page(taken.id)], [delivery(taken.id)]))
        (sent,) = store.deliveries.of_job(taken.id)
        merge = PatientMerge(
            prior=PatientUpdate(patient_id=f"OLD{number}"), surviving=PatientUpdate(patient_id=f"NEW{number}")
        )
        at_once(
            lambda sent=sent: store.deliveries.delivered(sent.id, "0x0000"),
            lambda number=number, merge=merge: other.patients.receive(message(str(number)), [merge], utc_now(), decide),
        )
        assert store.jobs.get(taken.id).patient_id == f"NEW{number}"
        assert store.deliveries.of_job(taken.id)[0].status == DeliveryStatus.DELIVERED
        assert store.patients.merge_notices()[-1].job_id == taken.id
        if store.jobs.get(taken.id).status == JobStatus.QUEUED:
            store.jobs.cancel(taken.id, "cli")
    other.close()


def test_writers_of_every_kind_never_wait_for_each_other_in_a_circle(postgresql_url: URL) -> None:
    """A deadlock would be a StorageError, after a second."""
    stores = [Store(postgresql_url, busy_timeout_s=PATIENCE_S) for _ in range(6)]
    jobs: list[str] = []
    for number in range(12):
        job = new_job()
        job.context = StudyContext(patient_id=f"P{number % 3}")
        jobs.append(stores[0].jobs.submit(job, "scp")[0].id)
    until = time.monotonic() + 6

    def work(number: int) -> None:
        rng, count = random.Random(number), 0
        while time.monotonic() < until:
            count += 1
            try:
                change_something(stores[number], rng.choice(jobs), rng, f"{number}-{count}")
            except IllegalTransition:
                continue

    at_once(*(lambda number=number: work(number) for number in range(len(stores))))
    actions = {event.action for job_id in jobs for event in stores[0].jobs.events(job_id)}
    assert {"CLAIM", "COMPLETE", "RELEASE", "RETRY", "MERGE", "COMMITMENT_ASK", "DELIVERY_STORE"} <= actions
    for store in stores:
        store.close()


def change_something(store: Store, job_id: str, rng: random.Random, mark: str) -> None:
    ids = [each.id for each in store.deliveries.of_job(job_id) if each.id]
    rng.shuffle(ids)
    one, two = (PatientUpdate(patient_id=f"P{number}") for number in rng.sample(range(3), 2))
    changes: list[Callable[[], object]] = [
        lambda: run_a_job(store, mark),
        lambda: run_a_job(store, mark),
        lambda: store.jobs.claim(mark, lease_s=0.0),
        lambda: store.jobs.retry(job_id, "cli"),
        lambda: store.jobs.confirm(job_id, [], "web"),
        lambda: store.jobs.rescue(1000),
        lambda: [store.deliveries.stored(each, "0x0000") for each in ids],
        lambda: [store.deliveries.give_up(each, "down") for each in ids],
        lambda: store.commitments.ask(f"1.{mark}", ids, utc_now()),
        lambda: store.commitments.settle("", [Settlement(delivery=each, action=None) for each in ids]),
        lambda: store.commitments.deliver_unasked("ehr"),
        lambda: store.patients.receive(message(mark), [PatientMerge(prior=one, surviving=two)], utc_now(), decide),
    ]
    rng.choice(changes)()


def run_a_job(store: Store, worker: str) -> None:
    job = store.jobs.claim(worker, lease_s=PATIENCE_S)
    if job is not None:
        made = [delivery(job.id, name) for name in ("pacs", "ehr")]
        store.jobs.complete(job.id, worker, done([page(job.id)], made), job.context)


# -- lost connections ----------------------------------------------------------------------------------------------


def test_the_next_call_after_a_lost_connection_is_answered(store: Store, postgresql_server: Server) -> None:
    job_id = submitted(store)
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gateway'"
    postgresql_server.execute(others)
    assert store.jobs.get(job_id).status == JobStatus.QUEUED  # it was idle
    with pytest.raises(StorageError), store.database.write() as session:
        session.add(new_job())
        postgresql_server.execute(others)
    assert store.jobs.counts()[JobStatus.QUEUED] == 1
    assert store.jobs.claim("w1", 60) is not None


def test_a_server_that_was_restarted_is_used_again(store: Store, postgresql_server: Server) -> None:
    job_id = submitted(store)
    postgresql_server.stop()
    try:
        for _ in range(2):
            with pytest.raises(StorageError, match="refused"):
                store.database.ping()
    finally:
        postgresql_server.start()
    store.database.ping()
    assert store.jobs.get(job_id).status == JobStatus.QUEUED


_SUBMIT_FOREVER = """
import sys
from sqlalchemy import make_url
from gateway.store.tables import Job
from gateway.store.store import Store
store = Store(make_url(sys.stdin.readline().strip()))
for n in range(100000):
    store.jobs.submit(Job(source="dicom:A", source_key=f"1.{n}", media_type="application/dicom"), "scp")
    print(n, flush=True)
"""


def test_what_was_acknowledged_outlives_kill_9_of_the_writer(store: Store) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", _SUBMIT_FOREVER], **pipes) as process:
        process.stdin.write(store.database.url.render_as_string(hide_password=False) + "\n")
        process.stdin.flush()
        for _ in range(50):
            process.stdout.readline()
        process.kill()
        acknowledged = 50 + len(process.stdout.read().split())
    jobs = wait_for("every commit", lambda: store.jobs.newest(limit=100000))
    assert {f"1.{n}" for n in range(acknowledged)} <= {job.source_key for job in jobs}
    assert all([event.action for event in store.jobs.events(job.id)] == ["RECEIVED"] for job in jobs)
    another = Job(source="dicom:A", source_key=f"1.{len(jobs)}", media_type="application/dicom")
    assert store.jobs.submit(another, "scp")[0].id  # no lock of the dead process is left


def test_a_worker_hears_of_a_job_on_another_machine(store: Store, hasty: Store) -> None:
    """It is asked for at once: when it comes, when it comes back, and after the server dropped the connection."""
    ear, stopping = hasty.database.ear(), threading.Event()

    def heard(what: Callable[[], object]) -> None:
        began = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(lambda: (began.set(), ear.wait(stopping, 10 * PATIENCE_S)))
            began.wait(PATIENCE_S)
            what()
            waiting.result(PATIENCE_S)

    ear.wait(stopping, 10 * PATIENCE_S)  # it begins to listen, and what is there already is asked for
    heard(lambda: store.jobs.submit(new_job("1"), "test"))
    job = hasty.jobs.claim("w", 60)
    assert job is not None
    heard(lambda: hasty.jobs.release(job.id, "w", "stopped"))
    with store.database.write() as session:
        mine = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'LISTEN %'"
        assert session.execute(text(mine)).scalar_one() == 1
    ear.wait(stopping, 0.01)  # a failure is no hint, and no end
    ear.wait(stopping, 10 * PATIENCE_S)
    heard(lambda: store.jobs.submit(new_job("2"), "test"))
    stopping.set()
    ear.wait(stopping, 0.01)
    ear.close()


def test_a_worker_that_hears_nothing_asks_all_the_same(hasty: Store) -> None:
    ear, stopping = hasty.database.ear(), threading.Event()
    for _ in range(2):
        ear.wait(stopping, 0.01)
    ear.close()
