"""A page digitized again: new objects, and a note that rejects those that were sent."""

from __future__ import annotations

from io import BytesIO

import pytest
from pydicom import Dataset, dcmread

from gateway.domain.status import DeliveryAction, DeliveryStatus
from gateway.intake.accept import Intake
from gateway.settings import DicomDestination, FolderDestination
from gateway.spool.folder import Spool
from gateway.store.commitments import Settlement
from gateway.store.store import Store
from gateway.store.tables import Delivery
from tests.fake_digitizer import Behaviour
from tests.gateway.results.test_confirmation import EHR, Bench

PACS = DicomDestination(
    name="pacs", host="127.0.0.1", port=104, ae_title="PACS", sop_class="12-lead-groups", also=("report", "overlay")
)
OLD_PACS = DicomDestination(name="old", host="127.0.0.1", port=104, ae_title="OLD", rejection_note=False)


@pytest.fixture
def bench(store: Store, spool: Spool, intake: Intake, tmp_path) -> Bench:  # type: ignore[no-untyped-def]
    folder = FolderDestination(name="folder", path=tmp_path, also=("report",))
    return Bench(store, spool, intake, PACS, OLD_PACS, EHR, folder)


def again(bench: Bench, job_id: str) -> None:
    bench.store.jobs.retry(job_id, "web")
    assert bench.worker.run_once()


def sent_to(bench: Bench, job_id: str, destination: str, status: DeliveryStatus | None = None) -> list[Delivery]:
    found = [each for each in bench.store.deliveries.of_job(job_id) if each.destination == destination]
    return [each for each in found if status in (None, each.status)]


def names(deliveries: list[Delivery]) -> list[str]:
    return [each.artefact for each in deliveries]


def read(bench: Bench, delivery: Delivery) -> Dataset:
    dataset = dcmread(BytesIO(bench.spool.read(delivery.job_id, delivery.artefact)))
    assert dataset.SOPInstanceUID == delivery.identifier
    return dataset


def test_each_destination_gets_the_objects_it_asks_for(bench: Bench) -> None:
    job_id = bench.digitized()
    assert names(sent_to(bench, job_id, "pacs")) == [
        "page-1.12-lead-groups.dcm",
        "page-1.report.dcm",
        "page-1.overlay.dcm",
    ]
    assert names(sent_to(bench, job_id, "old")) == ["page-1.12-lead.dcm"]
    folder = names(sent_to(bench, job_id, "folder"))
    assert folder[:2] == ["page-1.12-lead.dcm", "page-1.report.dcm"]
    assert folder[2].endswith(".hl7")
    for delivery in sent_to(bench, job_id, "pacs"):
        read(bench, delivery)


def test_confirmation_sends_the_confirmed_report_and_what_was_held_back(bench: Bench) -> None:
    job_id = bench.digitized(Behaviour.DOUBTFUL)
    assert bench.store.deliveries.of_job(job_id) == []
    bench.confirm(job_id)
    pacs = sent_to(bench, job_id, "pacs")
    assert sorted(names(pacs)) == ["page-1.12-lead-groups.dcm", "page-1.final.report.dcm", "page-1.overlay.dcm"]
    assert [read(bench, each).get("VerificationFlag") for each in pacs if "report" in each.artefact] == ["VERIFIED"]
    assert all(read(bench, each) for each in pacs)


def test_a_correction_rejects_what_arrived(bench: Bench) -> None:
    job_id = bench.digitized()
    first = sent_to(bench, job_id, "pacs")
    for delivery in first[:2]:  # the overlay never arrives
        bench.store.deliveries.delivered(delivery.id, "0x0000")
    again(bench, job_id)
    pending = sent_to(bench, job_id, "pacs", DeliveryStatus.PENDING)
    assert names(pending) == [
        "page-1.r1.12-lead-groups.dcm",
        "page-1.r1.report.dcm",
        "page-1.r1.overlay.dcm",
        "page-1.r1.rejection.pacs.dcm",
    ]
    note = read(bench, pending[-1])
    assert note.ConceptNameCodeSequence[0].CodeValue == "113001"
    items = [item for item in note.ContentSequence if "ReferencedSOPSequence" in item]
    rejected = [item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in items]
    assert rejected == [each.identifier for each in first[:2]]
    assert {each.identifier for each in pending}.isdisjoint(rejected)
    assert not [name for name in names(sent_to(bench, job_id, "old")) if "rejection" in name]


def test_a_second_correction_rejects_the_first_only(bench: Bench) -> None:
    job_id = bench.digitized()
    bench.deliver(job_id)
    again(bench, job_id)
    bench.deliver(job_id)
    again(bench, job_id)
    note = read(bench, sent_to(bench, job_id, "pacs", DeliveryStatus.PENDING)[-1])
    items = [item for item in note.ContentSequence if "ReferencedSOPSequence" in item]
    first = {each.identifier for each in sent_to(bench, job_id, "pacs") if ".r1." in each.artefact}
    assert {item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in items} < first
    assert len(items) == 3


def test_nothing_is_rejected_where_nothing_takes_its_place(bench: Bench) -> None:
    job_id = bench.digitized()
    bench.deliver(job_id)
    bench.confirm(job_id)
    assert not [name for name in names(bench.store.deliveries.of_job(job_id)) if "rejection" in name]


def test_an_object_whose_file_is_gone_stops_nothing(bench: Bench) -> None:
    job_id = bench.digitized()
    bench.deliver(job_id)
    (bench.spool.path / job_id / "page-1.12-lead-groups.dcm").unlink()
    again(bench, job_id)
    note = read(bench, sent_to(bench, job_id, "pacs", DeliveryStatus.PENDING)[-1])
    assert len([item for item in note.ContentSequence if "ReferencedSOPSequence" in item]) == 2


@pytest.mark.parametrize("given_up", [False, True])
def test_what_is_stored_and_not_committed_is_rejected_too(bench: Bench, given_up: bool) -> None:
    """The peer has it: a commitment that never came does not take it away again."""
    job_id = bench.digitized()
    delivery = sent_to(bench, job_id, "pacs")[0]
    assert delivery.id
    bench.store.deliveries.stored(delivery.id, "0x0000")
    if given_up:
        bench.store.commitments.ask("2.25.1", [delivery.id], delivery.created_at)
        gone = Settlement(delivery=delivery.id, action=DeliveryAction.GIVE_UP, reason="no report")
        bench.store.commitments.settle("2.25.1", [gone])
    again(bench, job_id)
    note = read(bench, sent_to(bench, job_id, "pacs", DeliveryStatus.PENDING)[-1])
    (item,) = [item for item in note.ContentSequence if "ReferencedSOPSequence" in item]
    assert item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == delivery.identifier
