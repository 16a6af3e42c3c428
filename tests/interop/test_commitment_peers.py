"""Storage commitment with Orthanc: it commits what we sent, and asks us to commit what it sent."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.delivery.committer import Committer
from gateway.delivery.outbox import Outbox
from gateway.dicom.network.scp import StorageScp
from gateway.dicom.objects.waveform import build_waveform, encode
from gateway.domain.artefact import Role
from gateway.domain.context import StudyContext
from gateway.domain.received import ReceivedObject
from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.intake.accept import Intake
from gateway.settings import (
    CallerSettings,
    DicomDestination,
    DicomSettings,
    ObjectSettings,
    ReportSettings,
    RetrySettings,
)
from gateway.spool.folder import Spool
from gateway.store.jobs import JobResult
from gateway.store.store import Store
from gateway.store.tables import Delivery
from tests.gateway.delivery.destinations import kind
from tests.gateway.dicom.samples import make_page, part10, secondary_capture
from tests.interop.peers import Orthanc, free_port, running_orthanc
from tests.waiting import eventually

pytestmark = pytest.mark.interop


class Gateway:
    """Listener, outbox and committer beside one Orthanc."""

    def __init__(self, folder: Path, orthanc: Orthanc, port: int) -> None:
        self.store, self.spool = Store(folder / "gateway.db"), Spool(folder / "spool", 1)
        self.intake = Intake(self.spool, self.store)
        pacs = DicomDestination(
            name="pacs",
            host="127.0.0.1",
            port=orthanc.dicom_port,
            ae_title="ORTHANC",
            storage_commitment=True,
            retry=RetrySettings(first_s=0.2, maximum_s=0.2, attempts=5),
        )
        report = ReportSettings(port=orthanc.dicom_port)
        dicom = DicomSettings(port=port, callers=(CallerSettings(ae_title="ORTHANC", commitment=report),))
        self.committer = Committer(self.store, self.spool, dicom, [pacs], random.Random(1))
        self.outbox = Outbox(self.store, self.spool, [kind(pacs)], random.Random(1), poll_s=0.05)
        self.scp = StorageScp(dicom, self.intake.accept, self.spool, self.committer)

    def delivery(self) -> Delivery:
        """A waveform that waits to be sent."""
        job_id = self.intake.accept(
            ReceivedObject(
                source="submit",
                source_key="1",
                media_type="image/png",
                data=b"page",
                context=StudyContext(patient_id="4711"),
                destinations=None,
                actor="test",
            )
        ).job_id
        waveform = build_waveform(make_page(layout_name="3x4"), "12-lead", ObjectSettings())
        self.spool.write_artefact(job_id, "page-1.dcm", encode(waveform))
        assert self.store.jobs.claim("w", 60)
        made = Delivery(
            job_id=job_id,
            role=Role.WAVEFORM,
            page_number=1,
            destination="pacs",
            kind="dicom",
            artefact="page-1.dcm",
            identifier=str(waveform.SOPInstanceUID),
        )
        self.store.jobs.complete(job_id, "w", JobResult(status=JobStatus.DONE, deliveries=[made]))
        return self.now(job_id)

    def now(self, job_id: str) -> Delivery:
        (delivery,) = self.store.deliveries.of_job(job_id)
        return delivery


@pytest.fixture
def peers(tmp_path: Path) -> Iterator[tuple[Gateway, Orthanc]]:
    port = free_port()
    with running_orthanc(tmp_path, {"gateway": ("ECGGW", port)}) as orthanc:
        gateway = Gateway(tmp_path, orthanc, port)
        gateway.scp.start()
        yield gateway, orthanc
        gateway.outbox.stop()
        gateway.committer.stop()
        gateway.scp.stop(grace_s=1.0)
        gateway.store.close()


def test_orthanc_commits_what_we_sent(peers: tuple[Gateway, Orthanc]) -> None:
    gateway, orthanc = peers
    delivery = gateway.delivery()
    gateway.outbox.start()
    gateway.committer.start()
    eventually(lambda: gateway.now(delivery.job_id).status == DeliveryStatus.DELIVERED)
    assert len(orthanc.instances()) == 1
    trail = [event.action for event in gateway.store.jobs.events(delivery.job_id)]
    assert trail[-3:] == ["DELIVERY_STORE", "COMMITMENT_ASK", "DELIVERY_DELIVER"]


def test_what_orthanc_has_lost_is_sent_again_and_then_committed(peers: tuple[Gateway, Orthanc]) -> None:
    gateway, orthanc = peers
    delivery = gateway.delivery()
    gateway.outbox.start()
    eventually(lambda: gateway.now(delivery.job_id).status == DeliveryStatus.STORED)
    (instance,) = orthanc.instances()
    orthanc.request(f"/instances/{instance}", method="DELETE")
    gateway.committer.start()
    eventually(lambda: gateway.now(delivery.job_id).status == DeliveryStatus.DELIVERED)
    assert len(orthanc.instances()) == 1
    trail = [f"{event.action} {event.detail}" for event in gateway.store.jobs.events(delivery.job_id)]
    assert any(line.startswith("DELIVERY_DEFER") and "0x0112" in line for line in trail)


def test_orthanc_asks_us_to_commit_a_page(peers: tuple[Gateway, Orthanc]) -> None:
    gateway, orthanc = peers
    gateway.committer.start()
    page = secondary_capture(SOPInstanceUID="2.25.6001", StudyInstanceUID="2.25.6002")
    uploaded = json.loads(orthanc.request("/instances", part10(page)))
    body = {"Resources": [uploaded["ID"]], "Synchronous": True, "StorageCommitment": True}
    answer = json.loads(orthanc.request("/modalities/gateway/store", json.dumps(body).encode()))
    transaction = answer["StorageCommitmentTransactionUID"]

    def status() -> str:
        return str(json.loads(orthanc.request(f"/storage-commitment/{transaction}"))["Status"])

    eventually(lambda: status() != "Pending")
    assert status() == "Success"

    lost = {"DicomInstances": [[str(page.SOPClassUID), "2.25.6003"]]}
    asked = json.loads(orthanc.request("/modalities/gateway/storage-commitment", json.dumps(lost).encode()))
    transaction = asked["ID"]
    eventually(lambda: status() != "Pending")
    report = json.loads(orthanc.request(f"/storage-commitment/{transaction}"))
    assert report["Status"] == "Failure"
    assert "was not available" in report["Failures"][0]["Description"]
