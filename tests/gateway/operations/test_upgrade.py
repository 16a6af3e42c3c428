"""An upgrade keeps everything, and the backup made before it brings the earlier version back."""

from __future__ import annotations

import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import URL, Connection, text

from gateway.domain.clock import utc_now
from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.errors import StorageError
from gateway.operations.backup import back_up, restore
from gateway.operations.retention import Retention
from gateway.settings import StorageSettings
from gateway.spool.folder import Spool
from gateway.store.backends import copies
from gateway.store.database import newest_version
from gateway.store.store import Store
from gateway.store.tables import new_id
from tests.gateway.store.test_migrations import at_version, connected, insert_delivery, insert_job

PREVIOUS = "0008"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "state" / "spool", 0)


@pytest.fixture
def settings(spool: Spool) -> StorageSettings:
    return StorageSettings(path=spool.path.parent, minimum_free_mib=0)


def url_of(settings: StorageSettings) -> URL:
    return URL.create("sqlite", database=str(settings.path / "gateway.db"))


def filled(url: URL, version: str, spool: Spool) -> dict[str, str]:
    """Make a database of an earlier version with jobs and deliveries in every state, and their files."""
    at_version(url, "0001")
    jobs = {str(status): new_id() for status in JobStatus} | {f"sent {state}": new_id() for state in DeliveryStatus}
    with connected(url) as connection:
        for status in JobStatus:
            insert_job(connection, jobs[status], status, '{"patient_id":"P1"}')
        for state in DeliveryStatus:
            insert_job(connection, jobs[f"sent {state}"], "DONE", '{"patient_id":"P1"}')
            insert_delivery(connection, jobs[f"sent {state}"], status=state, artefact="page-1.12-lead.dcm")
    at_version(url, version)
    for job_id in jobs.values():
        spool.write_source(job_id, b"source of " + job_id.encode())
    return jobs


def version_in(connection: Connection) -> str:
    return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())


@pytest.mark.parametrize("version", ["0001", PREVIOUS])
def test_the_upgrade_keeps_every_job_and_the_backup_brings_the_earlier_version_back(
    settings: StorageSettings, spool: Spool, tmp_path: Path, version: str
) -> None:
    jobs = filled(url_of(settings), version, spool)
    backup = tmp_path / "before-the-upgrade.tar"
    assert back_up(settings, spool, backup).database_version == version
    with connected(url_of(settings)) as connection:
        assert version_in(connection) == version  # a backup changes nothing
    store = Store.open(settings)  # the upgrade
    assert {name: str(store.jobs.get(job_id).status) for name, job_id in jobs.items()} == {
        name: "DONE" if name.startswith("sent ") else name for name in jobs
    }
    assert {str(d.status) for name in jobs for d in store.deliveries.of_job(jobs[name])} == {*map(str, DeliveryStatus)}
    assert not any(job.legal_hold or job.purged_at for job in store.jobs.newest())
    later = utc_now() + timedelta(seconds=1)
    finished = {"DONE", "CANCELLED", "sent DELIVERED", "sent CANCELLED"}
    assert set(store.files.purgeable(later, 100)) == {jobs[name] for name in finished}
    retention = Retention(spool, store, settings)
    retention.sweep()
    retention.purge()
    assert {path.parent.name for path in spool.files()} == {jobs[name] for name in jobs.keys() - finished}
    store.close()

    earlier = tmp_path / "earlier"  # the rollback, with any `tar`: the earlier program knows no `restore`
    earlier.mkdir()
    subprocess.run(["tar", "-xf", backup, "-C", earlier], check=True)
    with connected(URL.create("sqlite", database=str(earlier / "gateway.db"))) as connection:
        assert version_in(connection) == version
        counted = connection.execute(text("SELECT status, count(*) FROM job GROUP BY status")).all()
        assert dict(map(tuple, counted))["DONE"] == 1 + len(DeliveryStatus)
    assert {path.parent.name for path in Spool(earlier / "spool", 0).files()} == set(jobs.values())

    again = settings.model_copy(update={"path": tmp_path / "again"})  # and the way forward once more
    restore(again, backup)
    with connected(url_of(again)) as connection:
        assert version_in(connection) == newest_version()
    store = Store.open(again)
    assert store.jobs.counts()[JobStatus.DONE] == 1 + len(DeliveryStatus)
    store.close()


@pytest.mark.interop
def test_a_postgresql_database_of_an_earlier_version_is_upgraded_first(
    spool: Spool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with request.getfixturevalue("postgresql_server").database("template0") as url:
        jobs = filled(url, PREVIOUS, spool)
        with pytest.raises(StorageError, match=f"has version {PREVIOUS}, and only one of version {newest_version()}"):
            copies.save(url, tmp_path / "copy.db")
        store = Store(url)
        assert {store.jobs.get(job_id).legal_hold for job_id in jobs.values()} == {False}
        assert store.database.size_bytes() > 0
        store.close()
        assert copies.save(url, tmp_path / "second.db").rows["job"] == len(jobs)
