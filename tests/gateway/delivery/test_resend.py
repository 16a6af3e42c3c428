"""What a destination refused, or never answered, is sent again by a person; what another result replaced is not."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import pytest

from gateway.domain.status import DeliveryStatus
from gateway.errors import IllegalTransition
from gateway.intake.accept import Intake
from gateway.settings import DicomDestination
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.store.tables import Delivery
from tests.fakes import due_anywhere
from tests.gateway.results.test_confirmation import EHR, Bench
from tests.gateway.web.test_web_decisions import OURSELVES, opened

Run = Callable[..., tuple[int, str, str]]
PACS = DicomDestination(name="pacs", host="127.0.0.1", port=104, ae_title="PACS")


@pytest.fixture
def store(sqlite_store: Store) -> Store:
    """On the file that the command opens."""
    return sqlite_store


@pytest.fixture
def bench(store: Store, spool: Spool, intake: Intake) -> Bench:
    return Bench(store, spool, intake, PACS, EHR)


@pytest.fixture
def run(tmp_path: Path, gateway_command: Run) -> Run:
    config = tmp_path / "gateway.toml"
    config.write_text(f'[storage]\npath = "{tmp_path}"\n')
    return partial(gateway_command, config)


def failed(bench: Bench) -> tuple[str, Delivery, Delivery]:
    """A job that the PACS refused and whose EHR was given up on."""
    job_id = bench.digitized()
    pacs, ehr = bench.store.deliveries.of_job(job_id)
    assert pacs.id and ehr.id
    bench.store.deliveries.refuse(pacs.id, "pacs: status 0x0122", "0x0122")
    bench.store.deliveries.give_up(ehr.id, "ehr: connection refused")
    return job_id, pacs, ehr


def test_what_was_not_taken_is_listed_and_sent_again(bench: Bench, run: Run) -> None:
    job_id, pacs, ehr = failed(bench)
    _, listed, _ = run("undelivered")
    assert listed.count(job_id) == 2 and "0x0122" in listed and "connection refused" in listed
    assert run("undelivered", "--destination", "ehr")[1].count(job_id) == 1
    assert "1 deliveries" in run("resend", "--destination", "ehr")[1]
    assert [due.id for due in due_anywhere(bench.store)] == [ehr.id]
    assert "1 deliveries" in run("resend", job_id)[1]
    again = bench.store.deliveries.of_job(job_id)
    assert [(each.status, each.attempts) for each in again] == [(DeliveryStatus.PENDING, 0)] * 2
    assert [each.artefact for each in again] == [pacs.artefact, ehr.artefact]  # the same bytes: nothing was made anew
    assert bench.store.jobs.get(job_id).revision == 0
    assert job_id not in run("undelivered")[1]


def test_what_waits_for_a_destination_that_is_gone_is_named(bench: Bench, run: Run) -> None:
    bench.digitized()
    _, _, errors = run("undelivered")  # its settings have no destinations
    assert "1 deliveries wait for pacs, which is no destination" in errors and "wait for ehr" in errors


def test_a_resend_must_say_what(bench: Bench, run: Run) -> None:
    assert run("resend")[0] == 2
    status, _, errors = run("resend", "nonsense")
    assert status == 1 and "no job nonsense" in errors


def test_the_admin_page_sends_again(bench: Bench, store: Store, spool: Spool) -> None:
    job_id, _, _ = failed(bench)
    with opened(store, spool) as client:
        targets = re.findall(r'action="(/jobs/[^"]*/again)"', client.get(f"/jobs/{job_id}").text)
        assert len(targets) == 2
        assert "Send again" in client.post(targets[0]).text  # the other one
        assert client.post(targets[0]).status_code == 409  # it waits already
        assert client.post(targets[1], headers={"Origin": "http://evil.example"}).status_code == 403
        assert client.post(f"/jobs/{job_id}/deliveries/999/again").status_code == 404
        assert client.post(targets[1].replace(job_id, "another")).status_code == 404
    assert [each.status for each in store.deliveries.of_job(job_id)] == ["PENDING", "FAILED"]
    trail = [(event.action, event.actor) for event in store.jobs.events(job_id)]
    assert ("DELIVERY_RETRY", OURSELVES) in trail
    with opened(store, spool, host="0.0.0.0") as client:
        assert "/again" not in httpx.get(f"{client.base_url}/jobs/{job_id}", trust_env=False).text


def test_what_another_run_replaces_cannot_be_sent_again(bench: Bench) -> None:
    job_id = bench.digitized()
    pacs, ehr = bench.store.deliveries.of_job(job_id)
    assert pacs.id and ehr.id
    bench.store.deliveries.refuse(pacs.id, "no", "0x0122")
    bench.store.deliveries.delivered(ehr.id, "AA")
    bench.store.jobs.retry(job_id, "web")
    assert bench.worker.run_once()
    with pytest.raises(IllegalTransition):
        bench.store.deliveries.retry(pacs.id, "cli")
    assert bench.store.deliveries.undelivered() == []


def test_a_preliminary_message_cannot_follow_the_final_one(bench: Bench) -> None:
    job_id, pacs, ehr = failed(bench)
    bench.confirm(job_id)
    assert ehr.id and pacs.id
    with pytest.raises(IllegalTransition):
        bench.store.deliveries.retry(ehr.id, "cli")
    found = {each.artefact: each.status for each in bench.store.deliveries.of_job(job_id)}
    assert found[pacs.artefact] == DeliveryStatus.PENDING  # confirmed: what was refused leaves again
    assert found[ehr.artefact] == DeliveryStatus.CANCELLED
