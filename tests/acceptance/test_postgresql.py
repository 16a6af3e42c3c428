"""The daemon with its state in PostgreSQL: the promise of test_nothing_is_lost.py holds there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from gateway.domain.status import JobStatus
from tests.acceptance import test_nothing_is_lost as promise
from tests.acceptance.conftest import Gateway
from tests.acceptance.peers import Ehr, Pacs, c_store, secondary_capture
from tests.fake_digitizer import page_pixels
from tests.postgresql import PASSWORD, Server
from tests.waiting import wait_for

pytestmark = pytest.mark.interop

MakeGateway = Callable[..., Gateway]


@pytest.fixture
def make_gateway(make_gateway: MakeGateway, postgresql_url: URL, tmp_path: Path) -> MakeGateway:
    """Gateways that know the database by its address, and its password by a file."""
    file = tmp_path / "database.pw"
    file.write_text(PASSWORD + "\n")
    address = postgresql_url._replace(password=None).render_as_string()
    storage = {"database": address, "database_password_file": str(file)}

    def make(**settings: Any) -> Gateway:
        return make_gateway(**settings | {"storage": storage})

    return make


test_service_killed_right_after_the_c_store_response = promise.test_service_killed_right_after_the_c_store_response
test_worker_killed_in_the_middle_of_a_job = promise.test_worker_killed_in_the_middle_of_a_job
test_service_killed_in_the_middle_of_the_deliveries = promise.test_service_killed_in_the_middle_of_the_deliveries


def test_a_page_comes_in_and_its_result_goes_out(make_gateway: MakeGateway, pacs: Pacs, ehr: Ehr) -> None:
    gateway = make_gateway()
    gateway.start()
    assert c_store(gateway.port, secondary_capture(page_pixels())) == [0x0000]
    (job,) = gateway.wait_until_settled(1)
    assert job.status == JobStatus.DONE
    assert len(pacs.received) == 1 and len(ehr.received) == 1
    assert not (gateway.root / "var" / "gateway.db").exists()
    assert gateway.stop() == 0
    assert "Traceback" not in gateway.log and "ERROR" not in gateway.log


def test_the_database_is_restarted_under_the_daemon(
    make_gateway: MakeGateway, pacs: Pacs, postgresql_server: Server
) -> None:
    """While it is away nothing is acknowledged; when it is back everything continues by itself."""
    gateway = make_gateway()
    gateway.start()
    postgresql_server.stop()
    try:
        refused = secondary_capture(page_pixels(seed=1))
        assert c_store(gateway.port, refused) == [0xA700]
    finally:
        postgresql_server.start()
    wait_for("the object to be taken", lambda: c_store(gateway.port, refused) == [0x0000])
    (job,) = gateway.wait_until_settled(1)
    assert job.status == JobStatus.DONE and len(pacs.received) == 1
