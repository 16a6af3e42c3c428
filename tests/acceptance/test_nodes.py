"""Several machines on one database and one spool: each receives, and what one does for all goes over to another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from gateway.domain.status import DeliveryStatus, JobStatus
from tests.acceptance.conftest import Gateway, destinations
from tests.acceptance.peers import Ehr, Pacs, c_store, secondary_capture
from tests.fake_digitizer import page_pixels
from tests.postgresql import PASSWORD
from tests.waiting import wait_for

pytestmark = pytest.mark.interop


@pytest.fixture
def make_node(tmp_path: Path, postgresql_url: URL, pacs: Pacs, ehr: Ehr) -> Iterator[Callable[[str], Gateway]]:
    """Nodes that share database, spool, watched folder and destinations."""
    file = tmp_path / "database.pw"
    file.write_text(PASSWORD + "\n")
    address = postgresql_url._replace(password=None).render_as_string()
    made: list[Gateway] = []

    def make(name: str, **storage: Any) -> Gateway:
        root = tmp_path / name
        root.mkdir()
        shared = {"path": str(tmp_path / "var"), "database": address, "database_password_file": str(file), "node": name}
        folders = [{"path": str(tmp_path / "inbox"), "create": True, "settle_s": 0.2, "incomplete_s": 1.0}]
        made.append(Gateway(root, storage=shared | storage, folders=folders, destinations=destinations(pacs, ehr)))
        return made[-1]

    yield make
    for gateway in made:
        gateway.close()


def test_a_node_dies_and_another_goes_on(make_node: Callable[..., Gateway], pacs: Pacs, ehr: Ehr) -> None:
    """Both receive; each object is delivered once; what the dead node did for all, the other does after the lease."""
    a, b = make_node("a"), make_node("b")
    a.start()
    wait_for("its duties", lambda: {d.name for d in a.store.nodes.duties()} >= {"outbox pacs", "outbox ehr", "upkeep"})
    b.start()
    numbers = range(1, 5)
    for n in numbers:
        assert c_store((a if n % 2 else b).port, secondary_capture(page_pixels(seed=n))) == [0x0000]
    a.wait_until_settled(len(numbers))
    a.kill()
    assert c_store(b.port, secondary_capture(page_pixels(seed=9))) == [0x0000]
    jobs = b.wait_until_settled(len(numbers) + 1, timeout_s=120)
    assert {job.status for job in jobs} == {JobStatus.DONE}
    assert len(pacs.received) == len({o.SOPInstanceUID for o in pacs.received}) == len(jobs)
    assert len(ehr.received) == len(jobs)
    wait_for("all duties", lambda: {duty.node for duty in b.store.nodes.duties()} == {"b"})
    assert all(d.status == DeliveryStatus.DELIVERED for job in jobs for d in b.store.deliveries.of_job(job.id))
    a.start()  # it comes back, and leaves the duties where they are
    assert a.stop() == 0 and b.stop() == 0
    assert "Traceback" not in a.log + b.log


def test_two_machines_of_one_name(make_node: Callable[..., Gateway], tmp_path: Path) -> None:
    a = make_node("a")
    a.start()
    other = make_node("b", node="a", path=str(tmp_path / "elsewhere"))
    other.spawn()
    assert other.process.wait(60) == 1
    assert "give each machine its own [storage] node" in other.log
    assert a.stop() == 0
