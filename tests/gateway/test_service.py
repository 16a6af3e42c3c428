"""The composed service in this process: it starts whole, notices what dies, and stops in order."""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from gateway import service as service_module
from gateway.domain.account import AccountRole
from gateway.domain.artefact import Role
from gateway.domain.clock import utc_now
from gateway.domain.context import StudyContext
from gateway.domain.received import ReceivedObject
from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.intake.accept import Intake
from gateway.operations.backup import back_up, restore
from gateway.service import Service, notify
from gateway.settings import Settings, WorkerSettings
from gateway.spool.folder import Spool
from gateway.store.jobs import JobResult
from gateway.store.store import Store
from gateway.store.tables import Account, Delivery, Job, Page, new_id
from gateway.worker.supervisor import WorkerPool
from tests.acceptance.peers import free_port
from tests.fake_digitizer import page_png
from tests.tls_samples import Authority
from tests.waiting import PATIENCE_S, eventually, wait_for

SLEEPER = (sys.executable, "-c", "import time; time.sleep(600)")
BUSY = (sys.executable, "-c", "import time\nwhile True: time.sleep(0.001); sum(range(100_000))")
STUBBORN = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(600)",
)
FAILING = (sys.executable, "-c", "raise SystemExit(3)")


def settings_for(root: Path, **changes: Any) -> Settings:
    tree = {
        "dicom": {"port": free_port()},
        "web": {"port": free_port()},
        "storage": {"path": root, "minimum_free_mib": 0},
        "folders": ({"path": root / "inbox", "create": True, "settle_s": 0.1},),
        "worker": {"processes": 0},
    }
    return Settings.model_validate(tree | changes)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., tuple[Service, Settings]]]:
    services: list[Service] = []

    def start(command: Sequence[str] = SLEEPER, **changes: Any) -> tuple[Service, Settings]:
        settings = settings_for(tmp_path, **changes)
        services.append(Service(settings, worker_command=command))
        services[-1].start()
        return services[-1], settings

    yield start
    for service in services:
        service.stop()


@contextmanager
def stopped_when(service: Service, condition: Callable[[], bool], then_s: float = 0.0) -> Iterator[None]:
    """Asks the service to stop `then_s` after the condition holds, or when it does not come to hold."""

    def ask() -> None:
        try:
            eventually(condition)
            time.sleep(then_s)
        finally:
            service.ask_to_stop()

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        asking.join()


def health(settings: Settings) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{settings.web.port}/healthz", timeout=PATIENCE_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def echo(settings: Settings) -> bool:
    ae = AE("TEST")
    ae.add_requested_context(Verification)
    association = ae.associate("127.0.0.1", settings.dicom.port, ae_title="ECGGW")
    assert association.is_established
    status = association.send_c_echo()
    association.release()
    return bool(status.Status == 0x0000)


@pytest.mark.parametrize(
    ("files", "connections", "per_host", "warned"), [(456, 100, 50, 0), (396, 40, 20, 1), (64, 8, 4, 1)]
)
def test_few_open_files_are_kept_for_dicom_and_hl7(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    files: int,
    connections: int,
    per_host: int,
    warned: int,
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    made: list[tuple[str, int, int]] = []
    monkeypatch.setattr(service_module, "ConnectionLimit", lambda *limit: made.append(limit))
    Service(settings_for(tmp_path), worker_command=SLEEPER)._store.close()
    assert made == [("web", connections, per_host)]
    assert len([line for line in caplog.messages if f"Only {files} files may be open: 356 are kept" in line]) == warned


def test_started_service_answers_and_a_stopped_one_does_not(start: Callable[..., tuple[Service, Settings]]) -> None:
    before = set(threading.enumerate())
    service, settings = start()
    assert {"web", "dicom-scp"} <= {thread.name for thread in set(threading.enumerate()) - before}
    assert echo(settings) and health(settings)[0] == 200
    assert service.dead() == [] and service.problems() == []
    service.stop()
    for port in (settings.dicom.port, settings.web.port):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), PATIENCE_S).close()
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert left & {"web", "dicom-scp", "folder-inbox", "lookup", "commitment-results"} == set()


def test_pages_for_other_machines_wait_for_the_first_account(
    start: Callable[..., tuple[Service, Settings]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(service_module, "_RESCUE_S", 0.1)
    service, settings = start(web={"host": "0.0.0.0", "port": free_port()})
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", settings.web.port), PATIENCE_S).close()
    assert echo(settings) and service.dead() == []  # everything else runs
    (said,) = [line for line in caplog.messages if "web.host" in line]
    assert "ecg-gateway user add" in said
    store = Store(tmp_path / "gateway.db")
    store.accounts.add(Account(name="ann", role=AccountRole.ADMIN, password_hash="x"))
    store.close()
    with stopped_when(service, lambda: service._web is not None and service._web.alive):
        assert service.watch() == 0
    assert health(settings)[0] == 200


def test_first_start_prints_a_link_that_makes_the_first_account(
    start: Callable[..., tuple[Service, Settings]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    start()
    link = re.findall(r"http://127\.0\.0\.1:\d+/first/\S+", caplog.text)
    with urllib.request.urlopen(link[0], timeout=PATIENCE_S) as page:
        assert "First administrator" in page.read().decode()


def test_settings_that_changed_leave_no_delivery_behind(
    start: Callable[..., tuple[Service, Settings]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One waits for a commitment that is not asked for any more, one for a destination that is gone."""
    store = Store(tmp_path / "gateway.db")
    job, _ = store.jobs.submit(Job(source="s", source_key="k", media_type="image/png"), "test")
    assert store.jobs.claim("w", 60)
    sent = [
        Delivery(job_id=job.id, role=Role.WAVEFORM, page_number=1, destination=name, kind="dicom", artefact="x.dcm")
        for name in ("pacs", "gone")
    ]
    store.jobs.complete(job.id, "w", JobResult(status=JobStatus.DONE, deliveries=sent))
    stored, _ = store.deliveries.of_job(job.id)
    assert stored.id
    store.deliveries.stored(stored.id, "0x0000")
    pacs = {"kind": "dicom", "name": "pacs", "host": "127.0.0.1", "port": free_port(), "ae_title": "PACS"}
    start(destinations=(pacs,))
    assert [each.status for each in store.deliveries.of_job(job.id)] == [
        DeliveryStatus.DELIVERED,
        DeliveryStatus.PENDING,
    ]
    assert "1 deliveries wait for gone, which is no destination" in caplog.text
    store.close()


def test_orders_come_in_by_mllp_and_say_whose_a_scan_is(
    start: Callable[..., tuple[Service, Settings]], tmp_path: Path
) -> None:
    scans = {"path": tmp_path / "inbox", "create": True, "settle_s": 0.1, "identity": "filename"}
    pattern = "(?P<accession_number>A[0-9]+)"
    _, settings = start(hl7={"enabled": True, "port": free_port()}, folders=({**scans, "filename_pattern": pattern},))
    message = (
        b"MSH|^~\\&|RIS|H|ECGGW|H|20261122||ORM^O01|M1|P|2.3.1\rPID|1||P7^^^H^MR||Doe^Jane\r"
        b"ORC|NW|ORD1\rOBR|1|ORD1||EKG||||||||||||||A7\r"
    )
    with socket.create_connection(("127.0.0.1", settings.hl7.port), PATIENCE_S) as connection:
        connection.sendall(b"\x0b" + message + b"\x1c\r")
        assert b"MSA|AA|M1\r" in connection.recv(1000)
    (tmp_path / "inbox" / "A7.png").write_bytes(page_png())
    store = Store(tmp_path / "gateway.db")
    job = wait_for("the scan", lambda: next(iter(store.jobs.newest()), None))
    assert job.status == JobStatus.QUEUED
    assert job.context.patient_id == "P7"
    store.close()


def test_watch_ends_with_zero_when_asked(start: Callable[..., tuple[Service, Settings]]) -> None:
    service, _ = start()
    threading.Timer(0.7, service.ask_to_stop).start()
    assert service.watch() == 0


def test_certificates_that_end_are_warned_about(
    start: Callable[..., tuple[Service, Settings]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    identity = Authority(tmp_path / "ca").issue("gateway", days=10)
    tls = {"certificate_file": identity.certificate_file, "private_key_file": identity.private_key_file, "port": 0}
    service, _ = start(dicom={"port": free_port(), "tls": tls})

    def warnings() -> list[logging.LogRecord]:
        return [record for record in caplog.records if getattr(record, "action", "") == "certificate"]

    with stopped_when(service, lambda: len(warnings()) > 0, then_s=1.5):
        assert service.watch() == 0
    (warning,) = warnings()
    assert "gateway.pem expires on" in warning.getMessage()  # once, however often it looks


def test_part_that_dies_ends_the_service_and_shows_in_its_health(
    start: Callable[..., tuple[Service, Settings]],
) -> None:
    service, settings = start()
    next(iter(service._watchers.values())).stop()
    assert service.dead() == ["folder 1"]
    status, body = health(settings)
    assert status == 503 and "folder 1 does not run" in body
    assert service.watch() == 1


def test_worker_that_is_down_shows_in_the_health_and_ends_nothing(
    start: Callable[..., tuple[Service, Settings]],
) -> None:
    service, settings = start(worker={"processes": 1})
    (slot,) = service._workers._slots
    assert slot.process is not None
    slot.process.kill()
    slot.process.wait()
    service._workers.check()
    assert service.problems() == ["worker 0 is not running"] and service.dead() == []
    assert health(settings)[0] == 503
    with stopped_when(service, lambda: service.problems() == []):  # it was started again
        assert service.watch() == 0
    assert service.problems() == []


def test_a_lost_database_does_not_start_as_new(
    start: Callable[..., tuple[Service, Settings]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path / "spool", 0)
    job_id = new_id()
    spool.write_source(job_id, b"acknowledged")
    os.utime(spool.path / job_id, (0, 0))
    settings = settings_for(tmp_path)
    assert Service(settings, worker_command=SLEEPER).run() == 1
    assert "gateway.db is empty" in caplog.text and "serve --new" in caplog.text
    service = Service(settings, worker_command=SLEEPER, new=True)
    service.start()
    with stopped_when(service, lambda: spool.quarantined() == [job_id]):
        assert service.watch() == 0
    service.stop()
    assert spool.quarantined() == [job_id]


def test_workers_that_are_missing_show_in_the_health(
    start: Callable[..., tuple[Service, Settings]], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.web.pages.health._SILENCE_S", 0.5)
    service, settings = start(worker={"processes": 0, "lease_s": 0.1})
    assert service.problems() == []  # it may still come
    wait_for("the time to be over", service.problems)
    status, body = health(settings)
    assert status == 503 and "no worker was seen for 0 s" in body
    store.workers.seen("w1")
    assert service.problems() == []


def test_a_disk_that_fills_up_shows_in_the_health(
    start: Callable[..., tuple[Service, Settings]], tmp_path: Path
) -> None:
    full = {"path": tmp_path, "minimum_free_mib": 0, "purge_below_mib": 2**40, "purge_until_mib": 2**40}
    service, settings = start(storage=full)
    assert health(settings)[0] == 200
    with stopped_when(service, lambda: service.problems() != []):
        assert service.watch() == 0
    status, body = health(settings)
    assert status == 503 and "nothing more may be deleted: 0 jobs wait" in body


def test_the_backup_of_a_running_service_starts_elsewhere(
    start: Callable[..., tuple[Service, Settings]], tmp_path: Path, store: Store
) -> None:
    _, settings = start()
    accept(Intake(Spool(tmp_path / "spool", 0), store))
    back_up(settings.storage, Spool(tmp_path / "spool", 0), tmp_path / "backup.tar")
    elsewhere = settings_for(tmp_path / "elsewhere")
    restore(elsewhere.storage, tmp_path / "backup.tar")
    service = Service(elsewhere, worker_command=SLEEPER)
    service.start()
    try:
        assert health(elsewhere)[0] == 200 and service.problems() == []
        assert only_job_of(elsewhere) == store.jobs.newest()[0].id
    finally:
        service.stop()


def only_job_of(settings: Settings) -> str:
    store = Store.open(settings.storage)
    (job,) = store.jobs.newest()
    store.close()
    return job.id


def test_queue_that_does_not_move_shows_in_the_health(
    start: Callable[..., tuple[Service, Settings]], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, settings = start(worker={"processes": 0})
    intake = Intake(Spool(settings.storage.path / "spool", 0), store)
    accept(intake)
    assert health(settings)[0] == 200
    monkeypatch.setattr("gateway.web.pages.health.silence_s", lambda _worker: 0.3)
    time.sleep(0.4)
    status, body = health(settings)
    assert status == 503 and "none ended" in body
    assert store.jobs.claim("w1", 60.0)
    accept(intake, "2")
    assert health(settings)[0] == 200
    time.sleep(0.4)
    assert health(settings)[0] == 503
    store.jobs.fail(store.jobs.newest(JobStatus.RUNNING)[0].id, "w1", "no grid")
    assert health(settings)[0] == 200


def test_taken_port_is_told_and_what_was_started_is_stopped(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = settings_for(tmp_path, dicom={"port": taken.getsockname()[1]})
        service = Service(settings, worker_command=SLEEPER)
        with pytest.raises(OSError, match="in use"):
            service.start()
        service.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", settings.web.port), PATIENCE_S).close()


def test_result_for_a_folder_arrives_there(
    start: Callable[..., tuple[Service, Settings]], tmp_path: Path, store: Store
) -> None:
    (tmp_path / "out").mkdir()
    _, settings = start(destinations=[{"kind": "folder", "name": "drop", "path": tmp_path / "out"}])
    spool = Spool(settings.storage.path / "spool", 0)
    job_id = accept(Intake(spool, store))
    assert store.jobs.claim("w", 60.0) is not None
    spool.write_artefact(job_id, "page-1.txt", b"result")
    page = Page(job_id=job_id, page_number=1, status=JobStatus.DONE)
    delivery = Delivery(
        job_id=job_id, role=Role.WAVEFORM, page_number=1, destination="drop", kind="folder", artefact="page-1.txt"
    )
    store.jobs.complete(job_id, "w", JobResult(status=JobStatus.DONE, pages=[page], deliveries=[delivery]))
    wait_for("the delivery", lambda: store.deliveries.of_job(job_id)[0].status == DeliveryStatus.DELIVERED)
    assert [path.read_bytes() for path in (tmp_path / "out").iterdir()] == [b"result"]


def test_expired_lease_is_taken_back(start: Callable[..., tuple[Service, Settings]], store: Store) -> None:
    service, settings = start()
    job_id = accept(Intake(Spool(settings.storage.path / "spool", 0), store))
    assert store.jobs.claim("w", 0.1) is not None
    with stopped_when(service, lambda: store.jobs.get(job_id).status == JobStatus.QUEUED):
        service.watch()
    assert store.jobs.get(job_id).status == JobStatus.QUEUED


def test_lease_of_a_worker_that_runs_is_extended_though_it_does_not_itself(
    start: Callable[..., tuple[Service, Settings]], store: Store
) -> None:
    service, settings = start(worker={"processes": 1, "lease_s": PATIENCE_S}, command=BUSY)
    (slot,) = service._workers._slots
    intake = Intake(Spool(settings.storage.path / "spool", 0), store)
    running, silent = accept(intake), accept(intake, "2")
    claimed = [store.jobs.claim(name, 0.1) for name in (slot.name, "w")]
    assert [job and job.id for job in claimed] == [running, silent]
    with stopped_when(service, lambda: store.jobs.get(silent).status == JobStatus.QUEUED):
        service.watch()
    job = store.jobs.get(running)
    assert (job.status, job.worker) == (JobStatus.RUNNING, slot.name)
    assert job.lease_expires_at is not None and job.lease_expires_at > utc_now()


def test_what_a_clock_that_stood_ahead_put_off_goes_on(
    start: Callable[..., tuple[Service, Settings]], store: Store
) -> None:
    service, settings = start(worker={"processes": 0, "lease_s": 1.0})
    job_id = accept(Intake(Spool(settings.storage.path / "spool", 0), store))
    assert store.jobs.claim("w", 7200.0) is not None
    with stopped_when(service, lambda: store.jobs.get(job_id).status == JobStatus.QUEUED):
        service.watch()
    assert store.jobs.get(job_id).status == JobStatus.QUEUED


def accept(intake: Intake, source_key: str = "1") -> str:
    return intake.accept(
        ReceivedObject(
            source="submit",
            source_key=source_key,
            media_type="image/png",
            data=b"x",
            context=StudyContext(patient_id="P1"),
            destinations=None,
            actor="test",
        )
    ).job_id


def test_notify_speaks_to_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")  # nobody listens: nothing happens
    for address, seen_as in ((str(tmp_path / "notify"), None), ("@ecg-gateway-test", "\0ecg-gateway-test")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.bind(seen_as or address)
            monkeypatch.setenv("NOTIFY_SOCKET", address)
            notify("READY=1")
            systemd.settimeout(PATIENCE_S)
            assert systemd.recv(100) == b"READY=1"
    notify("WATCHDOG=1")  # systemd's end is gone: a warning, no more


# -- the worker pool --------------------------------------------------------------------------------------------------


@pytest.fixture
def pool(store: Store) -> Iterator[Callable[..., WorkerPool]]:
    pools: list[WorkerPool] = []

    def make(command: tuple[str, ...], count: int = 1, page_timeout_s: float = 300.0) -> WorkerPool:
        pools.append(WorkerPool(command, store, WorkerSettings(processes=count, page_timeout_s=page_timeout_s)))
        pools[-1].start()
        return pools[-1]

    yield make
    for made in pools:
        made.stop(grace_s=0.0)


def test_worker_that_cannot_start_is_tried_ever_more_rarely(pool: Callable[..., WorkerPool]) -> None:
    workers = pool(FAILING)
    (slot,) = workers._slots
    pauses = []
    for _ in range(3):
        assert slot.process is not None
        slot.process.wait(PATIENCE_S)
        workers.check()
        assert workers.problems() == ["worker 0 is not running"]
        pauses.append(slot.restart_s)
        slot.restart_at = 0.0
        workers.check()
    assert pauses == [0.5, 1.0, 2.0]


def test_job_of_a_dead_worker_goes_back_at_once_and_is_counted(
    pool: Callable[..., WorkerPool], store: Store, intake: Intake
) -> None:
    workers = pool(SLEEPER)
    (slot,) = workers._slots
    job_id = accept(intake)
    assert store.jobs.claim(slot.name, 600.0) is not None
    assert slot.process is not None
    slot.process.kill()
    slot.process.wait()
    workers.check()
    job: Job = store.jobs.get(job_id)
    assert (job.status, job.attempts) == (JobStatus.QUEUED, 1)


def test_pages_that_end_their_worker_do_not_keep_the_next_one_back(
    pool: Callable[..., WorkerPool], store: Store, intake: Intake
) -> None:
    workers = pool(SLEEPER, 2)
    slot, other = workers._slots
    assert other.process is not None
    for number in range(8):
        accept(intake, str(number))
        assert store.jobs.claim(slot.name, 600.0) is not None
        assert slot.process is not None
        slot.process.kill()
        slot.process.wait()
        workers.check()
        assert slot.process is None and slot.restart_at <= time.monotonic() + 1.0
        slot.restart_at = 0.0
        workers.check()
        assert other.process.poll() is None


def test_lease_of_a_stopped_worker_expires_and_the_worker_is_replaced(
    pool: Callable[..., WorkerPool], store: Store, intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.worker.supervisor._MARGIN_S", 0.0)
    workers = pool(BUSY, page_timeout_s=1.0)
    (slot,) = workers._slots
    job_id = accept(intake)
    assert store.jobs.claim(slot.name, 0.1) is not None

    def lease() -> datetime:
        lease = store.jobs.get(job_id).lease_expires_at
        assert lease is not None
        return lease

    first = lease()
    wait_for("the lease of a worker that computes", lambda: workers.extend() or lease() > first)
    assert slot.process is not None
    slot.process.send_signal(signal.SIGSTOP)
    wait_for("the stop", lambda: not slot.look())
    store.jobs.heartbeat(job_id, slot.name, 0.1)
    last = lease()
    wait_for("its end", lambda: workers.extend() or (slot.process and slot.process.poll()) == -signal.SIGKILL)
    assert lease() == last
    workers.check()
    job = store.jobs.get(job_id)
    assert (job.status, job.attempts) == (JobStatus.QUEUED, 1)


def test_lease_of_a_worker_that_works_at_something_else_expires(
    pool: Callable[..., WorkerPool], store: Store, intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gave the job up without being able to say so, and gets on."""
    monkeypatch.setattr("gateway.worker.supervisor._MARGIN_S", 0.0)
    workers = pool(BUSY, page_timeout_s=0.5)
    (slot,) = workers._slots
    job_id = accept(intake)
    assert store.jobs.claim(slot.name, 0.1) is not None
    time.sleep(0.6)
    for _ in range(3):
        workers.extend()
        time.sleep(0.05)
    assert store.jobs.rescue(3) == [job_id]


def test_worker_that_will_not_stop_is_killed_and_its_job_goes_back_uncounted(
    pool: Callable[..., WorkerPool], store: Store, intake: Intake, capfd: pytest.CaptureFixture[str]
) -> None:
    workers = pool(STUBBORN)
    (slot,) = workers._slots
    wait_for("the worker to be stubborn", lambda: capfd.readouterr().out)
    job_id = accept(intake)
    assert store.jobs.claim(slot.name, 600.0) is not None
    workers.stop(grace_s=0.3)
    assert slot.process is not None and slot.process.poll() == -9
    job = store.jobs.get(job_id)
    assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)


def test_health_body_is_json(start: Callable[..., tuple[Service, Settings]]) -> None:
    _, settings = start()
    assert isinstance(json.loads(health(settings)[1]), dict)
