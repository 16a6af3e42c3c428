"""The daemon with its spool in an object store: the promise holds there, and while the object store is away."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import URL

from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.operations import retention
from gateway.settings import load_settings
from gateway.spool.folder import Spool
from tests.acceptance.conftest import Gateway, destinations
from tests.acceptance.peers import Ehr, Pacs, c_store, secondary_capture
from tests.fake_digitizer import Behaviour, page_pixels, page_png
from tests.object_store import SECRET_KEY, ObjectStore
from tests.postgresql import PASSWORD
from tests.waiting import wait_for

pytestmark = pytest.mark.interop

MakeGateway = Callable[..., Gateway]


@pytest.fixture
def make_gateway(make_gateway: MakeGateway, bucket: dict[str, Any]) -> MakeGateway:
    def make(**settings: Any) -> Gateway:
        return make_gateway(**settings | {"storage": bucket | settings.get("storage", {})})

    return make


def objects_of(gateway: Gateway, store: ObjectStore) -> list[str]:
    return store.keys(load_settings(gateway.config).storage)


def test_a_page_comes_in_and_its_result_goes_out(
    make_gateway: MakeGateway, object_store: ObjectStore, pacs: Pacs, ehr: Ehr
) -> None:
    """By TLS.  Nothing of the page lies on the machine afterwards, and no secret is in the log."""
    tls = {"spool_endpoint": object_store.tls_endpoint, "spool_ca_file": str(object_store.ca_file)}
    gateway = make_gateway(storage=tls, log={"level": "DEBUG"})
    gateway.start()
    assert c_store(gateway.port, secondary_capture(page_pixels())) == [0x0000]
    (job,) = gateway.wait_until_settled(1)
    assert job.status == JobStatus.DONE
    assert len(pacs.received) == 1 and len(ehr.received) == 1
    assert {f"{job.id}/source", f"{job.id}/page-1.record.npz"} <= set(objects_of(gateway, object_store))
    assert list((gateway.root / "var" / "spool").iterdir()) == []
    assert gateway.stop() == 0
    assert SECRET_KEY not in gateway.log and "Traceback" not in gateway.log and " ERROR " not in gateway.log


def test_the_object_store_goes_away_and_comes_back(
    make_gateway: MakeGateway, object_store: ObjectStore, pacs: Pacs, ehr: Ehr
) -> None:
    """Nothing is taken meanwhile by any way in; what was taken waits, does not fail, and is delivered in the end."""
    gateway = make_gateway()
    gateway.start()
    sources = [secondary_capture(page_pixels(Behaviour.SLOW, seed=seed)) for seed in range(2)]
    assert c_store(gateway.port, *sources) == [0x0000, 0x0000]
    gateway.wait_for_job(JobStatus.RUNNING)
    late = secondary_capture(page_pixels(seed=9))
    object_store.stop()
    try:
        assert c_store(gateway.port, late) == [0xA700]
        (gateway.inbox / "P7.png").write_bytes(page_png(seed=7))
        wait_for("a job to be put back", lambda: "storage was not usable" in str(events(gateway)))
        wait_for("the watched folder to leave its file", lambda: "A file must wait: spool" in gateway.log)
        assert health(gateway) == 503
        assert len(gateway.jobs()) == 2
        assert {job.status for job in gateway.jobs()} <= {JobStatus.QUEUED, JobStatus.RUNNING}
    finally:
        object_store.start()
    wait_for("the object to be taken", lambda: c_store(gateway.port, late) == [0x0000])
    assert health(gateway) == 200
    jobs = gateway.wait_until_settled(4, timeout_s=180)
    assert all(d.status == DeliveryStatus.DELIVERED for job in jobs for d in gateway.store.deliveries.of_job(job.id))
    assert len(set(pacs.uids)) == len({job.source_key for job in jobs if job.source.startswith("dicom")}) == 3
    assert max(job.attempts for job in jobs) == 1


def health(gateway: Gateway) -> int:
    return httpx.get(f"http://127.0.0.1:{gateway.web_port}/healthz", trust_env=False, timeout=60).status_code


def events(gateway: Gateway) -> list[str]:
    return [event.detail for job in gateway.jobs() for event in gateway.store.jobs.events(job.id)]


def test_killed_between_the_put_and_the_commit(
    make_gateway: MakeGateway, object_store: ObjectStore, pacs: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody was told that it is kept: the peer sends it again, there is one job, and what was left goes away."""
    gateway = make_gateway()
    gateway.start()
    source = secondary_capture(page_pixels())
    with sqlite3.connect(gateway.root / "var" / "gateway.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")  # the commit waits for this
        sending = threading.Thread(target=c_store, args=(gateway.port, source))
        sending.start()
        wait_for("the object", lambda: objects_of(gateway, object_store))
        gateway.kill()
        other.execute("ROLLBACK")
    other.close()
    sending.join()
    (left,) = objects_of(gateway, object_store)
    gateway.start()
    assert gateway.jobs() == []
    assert c_store(gateway.port, source) == [0x0000]
    (job,) = gateway.wait_until_settled(1)
    assert job.status == JobStatus.DONE and len(pacs.uids) == 1
    assert gateway.stop() == 0
    spool = Spool.open(load_settings(gateway.config).storage)
    monkeypatch.setattr(retention, "_DAY_S", -60.0)
    keeper = retention.Retention(spool, gateway.store, load_settings(gateway.config).storage)
    keeper.sweep()
    assert f"quarantine/{left}" in objects_of(gateway, object_store)
    assert {job.id} == {name.partition("/")[0] for name in objects_of(gateway, object_store)} - {"quarantine"}


def test_two_gateways_on_one_database_and_one_bucket(
    tmp_path: Path, postgresql_url: URL, bucket: dict[str, Any], pacs: Pacs, ehr: Ehr
) -> None:
    """Each has a disk of its own; one dies, and the other ends what it had taken."""
    password = tmp_path / "database.pw"
    password.write_text(PASSWORD + "\n")
    address = postgresql_url._replace(password=None).render_as_string()
    nodes = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        database = {"database": address, "database_password_file": str(password), "node": name}
        workers = {"lease_s": 5.0, "processes": 1}
        nodes.append(
            Gateway(tmp_path / name, storage=bucket | database, worker=workers, destinations=destinations(pacs, ehr))
        )
    try:
        for node in nodes:
            node.start()
        a, b = nodes
        for n in range(4):
            assert c_store((a, b)[n % 2].port, secondary_capture(page_pixels(seed=n))) == [0x0000]
        assert c_store(a.port, secondary_capture(page_pixels(Behaviour.SLOW, seed=8))) == [0x0000]
        a.kill()
        jobs = b.wait_until_settled(5, timeout_s=180)
        assert {job.status for job in jobs} == {JobStatus.DONE}
        assert len(set(pacs.uids)) == 5
        assert b.stop() == 0 and "Traceback" not in a.log + b.log
    finally:
        for node in nodes:
            node.close()


def test_files_of_the_time_before_stop_the_start(make_gateway: MakeGateway) -> None:
    gateway = make_gateway()
    Spool(gateway.root / "var" / "spool", 0).write_source("00000000-0000-4000-8000-000000000001", b"page")
    gateway.spawn()
    assert gateway.process.wait(120) == 1
    assert "holds the files of 1 jobs of the time before" in gateway.log
