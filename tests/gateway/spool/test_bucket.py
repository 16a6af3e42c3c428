"""The spool in an object store: one that cannot be reached, and a real one, where it does the same as on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.errors import SettingsError, StorageError
from gateway.intake.accept import Intake
from gateway.operations.backup import back_up, restore
from gateway.operations.retention import Retention
from gateway.settings import StorageSettings
from gateway.spool import bucket as bucket_module
from gateway.spool.folder import Spool
from gateway.spool.place import Size
from gateway.store.store import Store
from gateway.store.tables import new_id
from tests.fake_digitizer import page_png
from tests.fakes import FakeDestination
from tests.gateway.delivery.test_outbox import House
from tests.gateway.web.test_web_app import client_for
from tests.gateway.worker.test_worker import Bench
from tests.object_store import ACCESS_KEY, SECRET_KEY, ObjectStore
from tests.waiting import eventually


def settings_in(folder: Path, **storage: Any) -> StorageSettings:
    file = folder / "credentials"
    file.write_text(f"[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n")
    stated = {"spool": "s3://bucket/ecg", "spool_endpoint": "http://127.0.0.1:9", "spool_credentials_file": file}
    return StorageSettings(**{"path": folder / "var", "minimum_free_mib": 0} | stated | storage)


@pytest.fixture
def away(tmp_path: Path) -> Spool:
    """A spool in an object store that is not there."""
    return Spool.open(settings_in(tmp_path))


@pytest.fixture
def there(tmp_path: Path, bucket: dict[str, Any]) -> Spool:
    """A spool in a real one."""
    return Spool.open(StorageSettings(path=tmp_path / "var", minimum_free_mib=0, **bucket))


# -- without one ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "use",
    [
        lambda spool: spool.check(),
        lambda spool: spool.write_source(new_id(), b"page"),
        lambda spool: spool.read(new_id()),
        lambda spool: spool.has(new_id()),
        lambda spool: spool.unchanged(0),
    ],
)
def test_away_is_a_storage_error_and_never_a_file_that_is_gone(away: Spool, use: Callable[[Spool], object]) -> None:
    with pytest.raises(StorageError, match="EndpointConnectionError") as refused:
        use(away)
    assert SECRET_KEY not in str(refused.value) and list(away.path.iterdir()) == []


def test_credentials_that_are_none_are_named(tmp_path: Path) -> None:
    file = tmp_path / "other"
    for content in ("", "[default]\naws_access_key_id = A\n", "no section", "[default]\naws_access_key_id = %(x)s\n"):
        file.write_text(content)
        with pytest.raises(StorageError, match=r"other': must have a section \[default\] with aws_access_key_id and"):
            Spool.open(settings_in(tmp_path, spool_credentials_file=file))
    with pytest.raises(StorageError, match="absent': No such file"):
        Spool.open(settings_in(tmp_path, spool_credentials_file=tmp_path / "absent"))


def test_a_job_is_put_back_and_no_attempt_counts(store: Store, away: Spool, tmp_path: Path) -> None:
    on_disk = Spool(tmp_path / "spool", 0)
    job_id = Bench(store, on_disk, Intake(on_disk, store), tmp_path).submit(page_png())
    with pytest.raises(StorageError, match="EndpointConnectionError"):
        Bench(store, away, Intake(away, store), tmp_path).worker().run_once()
    job = store.jobs.get(job_id)
    assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)


def test_a_delivery_waits_and_no_attempt_counts(store: Store, spool: Spool, away: Spool, caplog: Any) -> None:
    job_id = House(store, spool).finished_job("pacs")
    house, pacs = House(store, away), FakeDestination("dicom")
    outbox = house.outbox(pacs=pacs)
    eventually(lambda: "Cannot read what is to be sent: spool: get_object" in caplog.text)
    outbox.stop()
    (delivery,) = store.deliveries.of_job(job_id)
    assert (delivery.status, delivery.attempts, pacs.sent) == (DeliveryStatus.PENDING, 0, [])


def test_pages_say_that_it_is_away(store: Store, spool: Spool, away: Spool, tmp_path: Path) -> None:
    job_id = Bench(store, spool, Intake(spool, store), tmp_path).submit(page_png())
    with client_for(store, away) as client:
        assert client.get(f"/jobs/{job_id}/source").status_code == 503
        health = client.get("/healthz")
    assert health.status_code == 503
    (check,) = [check for check in health.json()["checks"] if check["name"] == "spool"]
    assert "EndpointConnectionError" in check["detail"]


def test_backup_and_restore_are_for_folders(tmp_path: Path, away: Spool) -> None:
    settings = settings_in(tmp_path)
    with pytest.raises(StorageError, match=r"spool = 's3://bucket/ecg': a backup is one file .* by its own means"):
        back_up(settings, away, tmp_path / "backup.tar")
    with pytest.raises(StorageError, match=r"restore into a folder \(`--into FOLDER`\)"):
        restore(settings, tmp_path / "backup.tar")


def test_the_libraries_are_named_where_they_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    with pytest.raises(StorageError, match=r"s3fs is not installed: install 'ecg-gateway\[s3\]'"):
        Spool.open(settings_in(tmp_path))


# -- on a real one ----------------------------------------------------------------------------------------------------


@pytest.mark.interop
def test_files_have_the_names_that_they_have_on_disk(there: Spool, tmp_path: Path, object_store: ObjectStore) -> None:
    there.check()
    on_disk, job_id, lost = Spool(tmp_path / "spool", 0), new_id(), new_id()
    for spool in (there, on_disk):
        for each in (job_id, lost):
            spool.write_source(each, b"page")
        spool.write_artefact(job_id, "page-1.dcm", b"one")
        spool.write_artefact(job_id, "page-1.dcm", b"two!")
        assert spool.quarantine(lost) and spool.quarantined() == [lost] and spool.read_quarantined(lost) == b"page"
        assert (spool.read(job_id), spool.read(job_id, "page-1.dcm")) == (b"page", b"two!")
        assert spool.read(job_id, "page-1.d") is None and not spool.has(job_id, "page-1.d")
        assert spool.usage() == {"sources": Size(1, 4), "artefacts": Size(1, 4), "quarantine": Size(1, 4)}
        assert spool.size(job_id) == Size(2, 8) and spool.size(lost, quarantined=True) == Size(1, 4)
        assert spool.holds_results(job_id) and not spool.holds_results(new_id())
        with spool.fetched(job_id, "page-1.dcm") as path:
            assert path is not None and path.read_bytes() == b"two!"
    names = sorted(str(path.relative_to(on_disk.path)) for path in on_disk.files())
    root = there.where().removeprefix("s3://")
    assert sorted(path.removeprefix(f"{root}/") for path in object_store.client().find(root)) == names
    there.release(lost)
    assert there.read(lost) == b"page" and there.quarantined() == []
    there.remove(job_id)
    there.remove(job_id)
    assert there.read(job_id) is None and there.unchanged(-60) == [lost] and there.unchanged(60) == []
    assert list(there.path.iterdir()) == []


@pytest.mark.interop
def test_more_objects_than_one_answer_lists(there: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_module, "_LISTED", 10)
    jobs = sorted(new_id() for _ in range(13))
    for job_id in jobs:
        there.write_source(job_id, b"page")
    assert there.unchanged(-60) == jobs and there.usage()["sources"] == Size(13, 52)
    for n in range(12):
        there.write_artefact(jobs[0], f"page-{n}.png", b"1")
    assert there.quarantine(jobs[0]) and there.size(jobs[0], quarantined=True) == Size(13, 16)
    assert there.prune_quarantine(-60) == [jobs[0]] and there.size(jobs[0], quarantined=True) == Size()


@pytest.mark.interop
def test_a_large_file_goes_through_the_disk(there: Spool) -> None:
    job_id, piece = new_id(), bytes(range(256)) * 4096
    with tempfile.TemporaryFile() as file:
        for _ in range(24):
            file.write(piece)
        there.write_source(job_id, file)
    with there.open_file(job_id) as read:
        assert all(read.read(len(piece)) == piece for _ in range(24)) and not read.read(1)


@pytest.mark.interop
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"spool": "s3://absent-bucket/ecg"}, "spool = 's3://absent-bucket/ecg': put_object: NoSuchBucket"),
        ({"spool_credentials_file": "wrong"}, "put_object: (SignatureDoesNotMatch|InvalidAccessKeyId)"),
        ({"spool_endpoint": "tls"}, "put_object: SSLError"),
    ],
)
def test_what_is_wrong_is_named(
    there: Spool,
    tmp_path: Path,
    bucket: dict[str, Any],
    object_store: ObjectStore,
    change: dict[str, str],
    words: str,
) -> None:
    (tmp_path / "wrong").write_text(f"[default]\naws_access_key_id={ACCESS_KEY}\naws_secret_access_key=no\n")
    values = {"wrong": str(tmp_path / "wrong"), "tls": object_store.tls_endpoint}
    changed = {name: values.get(value, value) for name, value in change.items()}
    spool = Spool.open(StorageSettings(path=tmp_path / "var", minimum_free_mib=0, **bucket | changed))
    with pytest.raises(StorageError, match=words) as refused:
        spool.check()
    assert SECRET_KEY not in str(refused.value)
    if "spool_endpoint" not in change:
        with pytest.raises(StorageError):
            spool.read(new_id())  # and not: the file is gone


@pytest.mark.interop
def test_a_full_disk_here_takes_no_file_from_there(store: Store, there: Spool, tmp_path: Path, bucket: Any) -> None:
    settings = StorageSettings(path=tmp_path / "var", minimum_free_mib=10**9, **bucket)
    full, job_id = Spool.open(settings), new_id()
    there.write_source(job_id, b"page")
    keeper = Retention(full, store, settings)
    keeper.purge()
    assert full.read(job_id) == b"page" and keeper.problem == ""
    with pytest.raises(StorageError, match="must stay free"):
        full.write_source(new_id(), b"page")


def test_settings_of_an_object_store(tmp_path: Path) -> None:
    from gateway.settings import load_settings

    for text, words in (
        ('spool = "bucket"', "must be empty or s3://BUCKET"),
        ('spool = "s3://bucket/a/"', "must be empty or s3://BUCKET"),
        ('spool = "s3://bucket/../b"', "must be empty or s3://BUCKET"),
        ('spool_region = "eu"', "spool is empty"),
        ('spool = "s3://bucket"\nspool_endpoint = "https://user:s3cret@host"', "belong into spool_credentials_file"),
        ('spool = "s3://bucket"\nspool_endpoint = "host:9000"', "must be empty or https://HOST"),
        ('spool = "s3://bucket"\nspool_endpoint = "https://host:port"', "is no URL"),
    ):
        file = tmp_path / "gateway.toml"
        file.write_text(f"[storage]\n{text}\n")
        with pytest.raises(SettingsError) as refused:
            load_settings(file)
        assert words in str(refused.value) and "s3cret" not in str(refused.value)
