"""A backup holds the database and the spool of one moment; a restore loses nothing of it and sends nothing twice."""

from __future__ import annotations

import io
import json
import os
import random
import resource
import shutil
import stat
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL, select
from sqlmodel import SQLModel

from gateway.delivery.outbox import Outbox
from gateway.domain.clock import utc_now
from gateway.domain.context import StudyContext
from gateway.domain.patients import OrderUpdate, PatientMerge, PatientUpdate
from gateway.domain.received import InboundMessage, ReceivedObject
from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.errors import StorageError
from gateway.identity.decide import decide
from gateway.intake.accept import Intake
from gateway.intake.recover import check_origin, recover
from gateway.operations.backup import back_up, restore
from gateway.operations.retention import Retention
from gateway.settings import StorageSettings
from gateway.spool.folder import Spool
from gateway.spool.owner import owned
from gateway.store.backends import copies
from gateway.store.store import Store
from gateway.store.tables import new_id
from tests.fakes import FakeDestination
from tests.gateway.dicom.samples import part10, secondary_capture
from tests.gateway.operations.conftest import MakeJob
from tests.waiting import eventually


@pytest.fixture
def settings(store: Store, spool: Spool, tmp_path: Path) -> StorageSettings:
    """The settings of a gateway whose store and spool these are."""
    return settings_for(store.database.url, spool.path.parent)


def settings_for(url: URL, root: Path) -> StorageSettings:
    if url.get_backend_name() == "sqlite":
        return StorageSettings(path=root, minimum_free_mib=0)
    password = root / "password"
    password.write_text(url.password or "")
    plain = f"{url.drivername}://{url.username}@{url.host}:{url.port}/{url.database}"
    return StorageSettings(path=root, minimum_free_mib=0, database=plain, database_password_file=password)


@pytest.fixture
def elsewhere(store: Store, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[StorageSettings]:
    """The settings of another machine, with a database of the same kind in which nothing is."""
    root = tmp_path / "elsewhere"
    root.mkdir()
    if store.database.url.get_backend_name() == "sqlite":
        yield settings_for(store.database.url, root)
    else:
        with request.getfixturevalue("postgresql_server").database("template0") as url:
            yield settings_for(url, root)


@contextmanager
def opened(settings: StorageSettings) -> Iterator[tuple[Store, Spool]]:
    store = Store.open(settings)
    yield store, Spool(settings.path / "spool", 0)
    store.close()


def rows(store: Store) -> dict[str, list[tuple[object, ...]]]:
    with store.database.read() as session:
        connection = session.connection()
        return {
            table.name: sorted((tuple(row) for row in connection.execute(select(table))), key=repr)
            for table in SQLModel.metadata.sorted_tables
        }


def files(spool: Spool) -> dict[str, bytes]:
    return {str(path.relative_to(spool.path)): path.read_bytes() for path in spool.files()}


def everything(store: Store, make_job: MakeJob) -> dict[str, str]:
    """Make jobs and deliveries in every state, a merged patient, an order and its message."""
    jobs = {status: make_job(status) for status in JobStatus if status != JobStatus.QUEUED}
    jobs |= {f"sent {state}": make_job(JobStatus.DONE, (state,)) for state in DeliveryStatus if state != "CANCELLED"}
    jobs[JobStatus.QUEUED] = make_job(JobStatus.QUEUED)
    first, second = PatientUpdate(patient_id="P1", patient_name="MÜLLER^JÖRG"), PatientUpdate(patient_id="P2")
    order = OrderUpdate(patient=first, placer_order_number="ORD1", accession_number="A1")
    message = InboundMessage(
        sending_application="A",
        sending_facility="F",
        control_id="1",
        digest="",
        message_type="ADT^A40",
        data=b"MSH|\xff\x00",
        answer=b"MSA|AA",
        received_at=utc_now(),
    )
    store.patients.receive(message, [order, PatientMerge(prior=first, surviving=second)], utc_now(), decide)
    return jobs


def received(number: int) -> ReceivedObject:
    return ReceivedObject(
        source="submit",
        source_key=f"key {number}",
        media_type="image/png",
        data=b"page %d" % number,
        context=StudyContext(patient_id="P9"),
        actor="test",
    )


def repacked(backup: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """A backup of which something was changed."""
    with tarfile.open(backup) as tar:
        members = {each.name: tar.extractfile(each).read() for each in tar}  # type: ignore[union-attr]
    change(members)
    changed = backup.with_name("changed.tar")
    with tarfile.open(changed, "w") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return changed


def test_all_of_it_comes_back(
    store: Store, spool: Spool, make_job: MakeJob, settings: StorageSettings, elsewhere: StorageSettings, tmp_path: Path
) -> None:
    everything(store, make_job)
    lost = new_id()
    spool.write_source(lost, b"of no job")
    assert spool.quarantine(lost)
    backup = tmp_path / "backup.tar"
    manifest = back_up(settings, spool, backup)
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert manifest.rows["job"] == len(store.jobs.newest()) and manifest.rows["patient"] == 2
    assert [name for name in os.listdir(tmp_path) if "backup" in name] == ["backup.tar"]  # nothing beside it
    before = rows(store), files(spool)
    restored, kept = restore(elsewhere, backup)
    assert (restored, kept) == (manifest, 0)
    with opened(elsewhere) as (again, there):
        assert (rows(again), files(there)) == before
        check_origin(there, again)
        accepted = Intake(there, again).accept(received(1))  # a new number follows those that are there
        assert again.jobs.events(accepted.job_id)[0].action == "RECEIVED"
        assert not (elsewhere.path / ".restore").exists()
        assert all(path.stat().st_mode & 0o077 == 0 for path in there.files())


def test_a_backup_of_one_database_is_restored_into_the_other(
    store: Store, spool: Spool, make_job: MakeJob, settings: StorageSettings, tmp_path: Path
) -> None:
    everything(store, make_job)
    back_up(settings, spool, tmp_path / "backup.tar")
    embedded = StorageSettings(path=tmp_path / "into", minimum_free_mib=0)
    restore(embedded, tmp_path / "backup.tar")
    with opened(embedded) as (again, there):
        assert (rows(again), files(there)) == (rows(store), files(spool))


@pytest.mark.interop
def test_a_gateway_moves_from_sqlite_to_postgresql(
    sqlite_store: Store, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    spool = Spool(tmp_path / "spool", 0)
    job_id = Intake(spool, sqlite_store).accept(received(1)).job_id
    back_up(StorageSettings(path=tmp_path), spool, tmp_path / "backup.tar")
    with request.getfixturevalue("postgresql_server").database("template0") as url:
        moved = settings_for(url, tmp_path)
        assert restore(moved, tmp_path / "backup.tar")[1] == 1  # its spool stays where it is
        with opened(moved) as (again, there):
            assert rows(again) == rows(sqlite_store) and there.read(job_id) == b"page 1"


def test_a_backup_while_objects_arrive(
    store: Store, spool: Spool, settings: StorageSettings, elsewhere: StorageSettings, tmp_path: Path
) -> None:
    """Whatever was acknowledged before it is in it, with its file; what is in it without a job becomes one."""
    intake, stopping = Intake(spool, store), threading.Event()
    accepted: dict[str, int] = {}

    def arrive() -> None:
        number = 0
        while not stopping.is_set():
            accepted[intake.accept(received(number)).job_id] = number
            number += 1

    sender = threading.Thread(target=arrive)
    sender.start()
    try:
        eventually(lambda: len(accepted) > 20)
        before = dict(accepted)
        back_up(settings, spool, tmp_path / "backup.tar")
    finally:
        stopping.set()
        sender.join()
    restore(elsewhere, tmp_path / "backup.tar")
    with opened(elsewhere) as (again, there):
        jobs = {job.id for job in again.jobs.newest(limit=10**6)}
        assert before.keys() <= jobs <= accepted.keys()
        assert all(there.read(job_id) == b"page %d" % accepted[job_id] for job_id in jobs)


def test_what_ends_during_a_backup_keeps_its_files_until_it_is_written(
    store: Store,
    spool: Spool,
    settings: StorageSettings,
    make_job: MakeJob,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the copy of the database it still has to be delivered."""
    job_id = make_job(JobStatus.DONE, (DeliveryStatus.PENDING,))
    (pending,) = store.deliveries.of_job(job_id)
    full = Retention(spool, store, StorageSettings(minimum_free_mib=1, purge_below_mib=2**40, purge_until_mib=2**40))
    save = copies.save

    def save_and_go_on(url: URL, path: Path) -> copies.Copied:
        copied = save(url, path)
        assert pending.id
        store.deliveries.delivered(pending.id, "0x0000")
        full.purge()
        return copied

    monkeypatch.setattr(copies, "save", save_and_go_on)
    manifest = back_up(settings, spool, tmp_path / "backup.tar")
    assert {f"spool/{job_id}/source", f"spool/{job_id}/page-1.dcm"} < manifest.sha256.keys()
    full.purge()
    assert list(spool.files()) == []


def test_where_there_is_no_database_there_is_no_backup(spool: Spool, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"there is no database .*gateway\.db"):
        back_up(StorageSettings(path=tmp_path), spool, tmp_path / "backup.tar")
    assert sorted(os.listdir(tmp_path)) == ["spool", "spool.lock"]


def test_after_a_restore_nothing_is_sent_twice_unrecognised_and_no_page_is_lost(
    store: Store, spool: Spool, settings: StorageSettings, elsewhere: StorageSettings, make_job: MakeJob, tmp_path: Path
) -> None:
    """The database is lost, the spool is not: pages that came after the backup are there, and become jobs again."""
    sent_before = make_job(JobStatus.DONE, (DeliveryStatus.DELIVERED,))
    sent_after = make_job(JobStatus.DONE, (DeliveryStatus.PENDING,))
    back_up(settings, spool, tmp_path / "backup.tar")
    (pending,) = store.deliveries.of_job(sent_after)
    assert pending.id
    store.deliveries.delivered(pending.id, "0x0000")
    arrived_after = Intake(spool, store).accept(
        ReceivedObject(
            source="dicom:CART",
            source_key="2.25.1003",
            media_type="application/dicom",
            data=part10(secondary_capture()),
            context=StudyContext(patient_id="P-1001"),
            actor="scp",
        )
    )
    os.utime(spool.path / arrived_after.job_id, (0, 0))
    shutil.copytree(spool.path, elsewhere.path / "spool", copy_function=shutil.copy2)
    _, kept = restore(elsewhere, tmp_path / "backup.tar")
    assert kept == 4
    with opened(elsewhere) as (again, there):
        (made,) = recover(Intake(there, again), there, again)
        assert made.accepted and made.accepted.job_id == arrived_after.job_id
        assert again.jobs.get(arrived_after.job_id).status == JobStatus.QUEUED
        peer = FakeDestination()
        peer.name = "d0"
        outbox = Outbox(again, there, [peer], random.Random(1), poll_s=0.01)
        outbox.start()
        eventually(lambda: again.deliveries.of_job(sent_after)[0].status == DeliveryStatus.DELIVERED)
        outbox.stop()
        (sent,) = peer.sent  # the one that was delivered after the backup; the peer knows its identifier
        assert (sent.identifier, sent.data) == (pending.identifier, b"result of " + sent_after.encode())
        assert again.deliveries.of_job(sent_before)[0].attempts == 1


def test_a_file_is_not_replaced(store: Store, spool: Spool, settings: StorageSettings, tmp_path: Path) -> None:
    (tmp_path / "backup.tar").write_bytes(b"of yesterday")
    with pytest.raises(StorageError, match=r"backup\.tar exists: a backup replaces no file"):
        back_up(settings, spool, tmp_path / "backup.tar")
    assert (tmp_path / "backup.tar").read_bytes() == b"of yesterday"


def test_a_full_disk_leaves_no_half_backup(
    store: Store, spool: Spool, settings: StorageSettings, make_job: MakeJob, tmp_path: Path
) -> None:
    spool.write_source(make_job(JobStatus.QUEUED), bytes(3_000_000))
    (tmp_path / "backups").mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (100_000, 2_000_000):  # the copy of the database breaks off, then the archive
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(StorageError):
                back_up(settings, spool, tmp_path / "backups" / "backup.tar")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert os.listdir(tmp_path / "backups") == []


def test_a_spool_that_cannot_be_read_whole_is_no_backup(
    store: Store, spool: Spool, settings: StorageSettings, make_job: MakeJob, tmp_path: Path
) -> None:
    (spool.path / make_job(JobStatus.DONE) / "odd").mkdir()
    with pytest.raises(StorageError, match="odd is no plain file"):
        back_up(settings, spool, tmp_path / "backup.tar")
    assert not (tmp_path / "backup.tar").exists()


def truncate(backup: Path) -> Path:
    data = backup.read_bytes()
    backup.write_bytes(data[: len(data) // 2])
    return backup


def flip(backup: Path) -> Path:
    data = bytearray(backup.read_bytes())
    data[data.index(b"source of ")] ^= 1
    backup.write_bytes(data)
    return backup


def without_manifest(backup: Path) -> Path:
    return repacked(backup, lambda members: members.pop("manifest.json"))


def with_another(backup: Path) -> Path:
    return repacked(backup, lambda members: members.update({f"spool/{new_id()}/source": b"of somebody else"}))


def out_of_its_folder(backup: Path) -> Path:
    return repacked(backup, lambda members: members.update({f"spool/{new_id()}/../../../x": b"x"}))


def with_an_odd_manifest(backup: Path) -> Path:
    return repacked(backup, lambda members: members.update({"manifest.json": b"{}"}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncate, "is no whole backup|incomplete"),
        (flip, r"is damaged: 1 members are not what the manifest says, first spool/"),
        (without_manifest, "is incomplete: it has no manifest"),
        (with_another, "is damaged: 1 members"),
        (out_of_its_folder, r"is no backup of a gateway: it has a member 'spool/.*/\.\./"),
        (with_an_odd_manifest, "the manifest is none"),
    ],
)
def test_a_damaged_backup_is_refused_before_anything_is_written(
    sqlite_store: Store,
    tmp_path: Path,
    damage: Callable[[Path], Path],
    words: str,
) -> None:
    spool = Spool(tmp_path / "spool", 0)
    for number in range(2):
        Intake(spool, sqlite_store).accept(received(number))
    job_id = sqlite_store.jobs.newest()[0].id
    spool.write_artefact(job_id, "a.txt", b"source of " + bytes(20_000))
    back_up(StorageSettings(path=tmp_path), spool, tmp_path / "backup.tar")
    into = tmp_path / "into"
    with pytest.raises(StorageError, match=words):
        restore(StorageSettings(path=into), damage(tmp_path / "backup.tar"))
    assert not into.exists()


def test_no_backup_at_all_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no archive")
    with pytest.raises(StorageError, match="is no whole backup"):
        restore(StorageSettings(path=tmp_path / "into"), tmp_path / "notes.txt")
    with pytest.raises(StorageError, match="No such file"):
        restore(StorageSettings(path=tmp_path / "into"), tmp_path / "absent.tar")


def test_a_newer_backup_is_refused_with_both_versions(
    store: Store, spool: Spool, settings: StorageSettings, elsewhere: StorageSettings, tmp_path: Path
) -> None:
    back_up(settings, spool, tmp_path / "backup.tar")

    def newer(members: dict[str, bytes]) -> None:
        manifest = json.loads(members["manifest.json"]) | {"database_version": "9999", "gateway": "77.0"}
        members["manifest.json"] = json.dumps(manifest).encode()

    with pytest.raises(StorageError, match=r"version 77\.0 .* version 9999, .*knows versions up to 0\d\d\d"):
        restore(elsewhere, repacked(tmp_path / "backup.tar", newer))
    assert not (elsewhere.path / "spool").exists()


def test_a_restore_replaces_no_database(
    store: Store, spool: Spool, settings: StorageSettings, make_job: MakeJob, tmp_path: Path
) -> None:
    make_job(JobStatus.QUEUED)
    back_up(settings, spool, tmp_path / "backup.tar")
    before = rows(store)
    with pytest.raises(StorageError, match=r"exists: a backup is restored only where|is not empty: table job has rows"):
        restore(settings, tmp_path / "backup.tar")
    assert rows(store) == before


def test_a_restore_minds_what_is_left_of_a_database_and_who_runs_there(sqlite_store: Store, tmp_path: Path) -> None:
    back_up(StorageSettings(path=tmp_path), Spool(tmp_path / "spool", 0), tmp_path / "backup.tar")
    into = StorageSettings(path=tmp_path / "into")
    with owned(into.path), pytest.raises(StorageError, match="a gateway runs on it already"):
        restore(into, tmp_path / "backup.tar")
    (into.path / "gateway.db-wal").write_bytes(b"SQLite would apply it to the restored database")
    with pytest.raises(StorageError, match=r"gateway\.db-wal exists"):
        restore(into, tmp_path / "backup.tar")


def test_a_restore_that_breaks_off_can_be_done_again(
    store: Store, spool: Spool, settings: StorageSettings, elsewhere: StorageSettings, make_job: MakeJob, tmp_path: Path
) -> None:
    jobs = [make_job(JobStatus.DONE) for _ in range(5)]
    spool.write_artefact(max(jobs), "zz.dcm", bytes(3_000_000))
    back_up(settings, spool, tmp_path / "backup.tar")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))
    try:
        with pytest.raises(StorageError, match="File too large"):
            restore(elsewhere, tmp_path / "backup.tar")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (elsewhere.path / "gateway.db").exists()
    with opened(elsewhere) as (empty, there):
        for job_id in there.unchanged(for_s=-60):
            os.utime(there.path / job_id, (0, 0))
        with pytest.raises(StorageError, match="is empty: the spool"):  # no gateway starts on it
            check_origin(there, empty)
    if not elsewhere.database:
        (elsewhere.path / "gateway.db").unlink()
    restore(elsewhere, tmp_path / "backup.tar")
    with opened(elsewhere) as (again, there):
        assert (rows(again), files(there)) == (rows(store), files(spool))
