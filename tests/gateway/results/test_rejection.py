"""A page rejected after its result has left: archives get a note, receivers of messages a withdrawal."""

from __future__ import annotations

from io import BytesIO

import pytest
from pydicom import dcmread

from gateway.domain.artefact import Role
from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.intake.accept import Intake
from gateway.results.decisions import carry_out
from gateway.results.rejection import reject
from gateway.settings import DicomDestination, FolderDestination
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.store.tables import Delivery
from tests.gateway.results.test_confirmation import EHR, PACS, Bench

OLD_PACS = DicomDestination(name="old", host="127.0.0.1", port=104, ae_title="OLD", rejection_note=False)


@pytest.fixture
def bench(store: Store, spool: Spool, intake: Intake, tmp_path) -> Bench:  # type: ignore[no-untyped-def]
    return Bench(store, spool, intake, PACS, OLD_PACS, EHR, FolderDestination(name="folder", path=tmp_path))


def rejected(bench: Bench, job_id: str) -> list[Delivery]:
    reject(bench.store, bench.spool, bench.settings, job_id, "smudged: V4 & V5", "ann")
    return [each for each in bench.store.deliveries.of_job(job_id) if each.status == DeliveryStatus.PENDING]


def told(bench: Bench, job_id: str) -> dict[str, str]:
    events = bench.store.jobs.events(job_id)
    return {each.action: each.detail for each in events if each.action in ("WITHDRAW", "NOT_TOLD")}


def test_destinations_of_a_result_that_was_sent_are_told(bench: Bench) -> None:
    job_id = bench.digitized()
    bench.deliver(job_id)
    pending = rejected(bench, job_id)
    assert {(each.destination, each.role, each.result_status) for each in pending} == {
        ("pacs", Role.REJECTION, ""),
        ("ehr", Role.MESSAGE, "X"),
        ("folder", Role.MESSAGE, "X"),
    }
    assert told(bench, job_id) == {
        "WITHDRAW": "to ehr, folder, pacs",
        "NOT_TOLD": "these have a result of the page: old",
    }
    job = bench.store.jobs.get(job_id)
    assert (job.status, job.reason, job.revision) == (JobStatus.CANCELLED, "smudged: V4 & V5", 1)
    (note,) = [each for each in pending if each.destination == "pacs"]
    key = dcmread(BytesIO(bench.spool.read(job_id, note.artefact)))
    (words,) = [item.TextValue for item in key.ContentSequence if "TextValue" in item]
    assert words == "A person rejected the digitization of this page: smudged: V4 & V5"
    (message,) = [each for each in pending if each.destination == "ehr"]
    (sent,) = [each for each in bench.store.deliveries.of_job(job_id) if each.identifier and each.result_status == "P"][
        :1
    ]
    before, after = (bench.spool.read(job_id, each.artefact).decode().split("\r") for each in (sent, message))
    assert len(before) == len(after) and message.identifier != sent.identifier
    assert [line for line in before if line.startswith("PID")] == [line for line in after if line.startswith("PID")]
    assert not any("JVBER" in line or "|75|" in line for line in after)  # the report, the rate
    assert sum("rejected by a person (smudged: V4 \\T\\ V5)" in line for line in after) == 1


def test_nobody_is_told_of_what_never_left(bench: Bench) -> None:
    job_id = bench.digitized()
    assert rejected(bench, job_id) == [] and told(bench, job_id) == {}
    assert bench.store.jobs.get(job_id).revision == 0


def test_message_whose_file_is_gone_is_named_in_the_trail(bench: Bench) -> None:
    job_id = bench.digitized()
    bench.deliver(job_id)
    for each in bench.store.deliveries.of_job(job_id):
        (bench.spool.path / job_id / each.artefact).unlink(missing_ok=True)
    assert rejected(bench, job_id) == []
    assert told(bench, job_id) == {"NOT_TOLD": "these have a result of the page: ehr, folder, old, pacs"}


def test_page_read_again_after_a_rejection_has_identifiers_of_its_own(bench: Bench) -> None:
    job_id = bench.digitized()
    bench.deliver(job_id)
    withdrawals = rejected(bench, job_id)
    bench.deliver(job_id)
    bench.store.jobs.retry(job_id, "ann")
    assert bench.worker.run_once()
    again = [each for each in bench.store.deliveries.of_job(job_id) if each.status == DeliveryStatus.PENDING]
    assert {each.artefact for each in again}.isdisjoint(each.artefact for each in withdrawals)
    assert {each.identifier for each in again}.isdisjoint(each.identifier for each in withdrawals)
    assert [each.result_status for each in again if each.destination == "ehr"] == ["C"]
    assert not [each for each in again if each.role == Role.REJECTION]  # what was sent is rejected already
    assert rejected(bench, job_id) == []  # none of that has left
    events = [each.detail for each in bench.store.jobs.events(job_id) if each.action == "NOT_TOLD"]
    assert events == ["these have a result of the page: old"] * 2


def test_result_that_was_on_its_way_is_withdrawn_when_it_has_arrived(bench: Bench) -> None:
    job_id = bench.digitized()
    on_its_way = {each.destination: each for each in bench.store.deliveries.of_job(job_id)}
    assert rejected(bench, job_id) == []
    bench.store.deliveries.delivered(on_its_way["pacs"].id, "0000")
    carry_out(bench.store, bench.spool, bench.settings)
    bench.store.deliveries.delivered(on_its_way["ehr"].id, "AA")
    carry_out(bench.store, bench.spool, bench.settings)
    pending = [each for each in bench.store.deliveries.of_job(job_id) if each.status == DeliveryStatus.PENDING]
    assert [(each.destination, each.role, each.result_status) for each in pending] == [
        ("pacs", Role.REJECTION, ""),
        ("ehr", Role.MESSAGE, "X"),
    ]
    events = [(each.actor, each.detail) for each in bench.store.jobs.events(job_id) if each.action == "REJECT"]
    assert events == [("ann", "smudged: V4 & V5")] * 3
    assert bench.store.review.decision(job_id) is None and bench.store.review.holders(job_id) == ["ehr", "pacs"]
    bench.deliver(job_id)
    carry_out(bench.store, bench.spool, bench.settings)
    assert bench.store.review.holders(job_id) == []


def test_what_arrives_of_a_job_that_was_cancelled_or_read_again_is_no_rejection(bench: Bench) -> None:
    job_id = bench.digitized()
    (ehr,) = [each for each in bench.store.deliveries.of_job(job_id) if each.destination == "ehr"]
    rejected(bench, job_id)
    bench.store.jobs.retry(job_id, "ann")
    bench.store.deliveries.delivered(ehr.id, "AA")
    assert bench.store.review.decision(job_id) is None
