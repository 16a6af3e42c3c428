"""C-MOVE and C-GET from an archive that answers what it is told to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from gateway.dicom.network.retrieve import DimseArchive, Instance
from gateway.errors import DeliveryDeferred, DeliveryError, DeliveryRefused
from gateway.intake.accept import Intake
from gateway.settings import DicomDestination
from gateway.store.store import Store
from tests.gateway.dicom.samples import part10, secondary_capture
from tests.waiting import PATIENCE_S

PAGE = dcmread(BytesIO(part10(secondary_capture())))
INSTANCE = Instance(
    study_instance_uid=PAGE.StudyInstanceUID,
    series_instance_uid=PAGE.SeriesInstanceUID,
    sop_class_uid=SecondaryCaptureImageStorage,
    sop_instance_uid=PAGE.SOPInstanceUID,
)
Answers = list[tuple[Any, Any]]


class Peer:
    """An archive with one page; `answers` are what its C-GET yields, C-MOVE always fails."""

    def __init__(self) -> None:
        self.answers: Answers = []
        self.asked: list[Dataset] = []
        self.abort = False
        ae = AE(ae_title="PACS")
        for model in (
            StudyRootQueryRetrieveInformationModelFind,
            StudyRootQueryRetrieveInformationModelMove,
            StudyRootQueryRetrieveInformationModelGet,
        ):
            ae.add_supported_context(model, ExplicitVRLittleEndian)
        ae.add_supported_context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian, scu_role=True, scp_role=True)
        handlers = [(evt.EVT_C_MOVE, self._move), (evt.EVT_C_GET, self._get), (evt.EVT_C_FIND, self._find)]
        self._server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port = int(self._server.server_address[1])

    def _move(self, event: evt.Event) -> Iterator[Any]:
        self.asked.append(event.identifier)
        if self.abort:
            event.assoc.abort()
        if event.move_destination != "NOBODY":
            raise RuntimeError("an archive that cannot send answers Cxxx")
        yield None, None

    def _get(self, event: evt.Event) -> Iterator[Any]:
        self.asked.append(event.identifier)
        yield len(self.answers)
        yield from self.answers

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        asked, found = event.identifier, Dataset()
        found.SeriesInstanceUID, found.Modality = PAGE.SeriesInstanceUID, "OT"
        if asked.QueryRetrieveLevel == "IMAGE":
            found.SOPInstanceUID, found.SOPClassUID = PAGE.SOPInstanceUID, PAGE.SOPClassUID
        yield 0xFF00, found

    def close(self) -> None:
        self._server.shutdown()


@pytest.fixture
def peer(caplog: pytest.LogCaptureFixture) -> Iterator[Peer]:
    caplog.set_level(logging.CRITICAL, logger="pynetdicom")
    peer = Peer()
    yield peer
    peer.close()


@pytest.fixture
def archive(peer: Peer, intake: Intake) -> Callable[..., DimseArchive]:
    def make(retrieve: str, move_to: str = "ECGGW") -> DimseArchive:
        destination = DicomDestination(
            name="pacs", host="127.0.0.1", port=peer.port, ae_title="PACS", retrieve=retrieve, timeout_s=PATIENCE_S
        )  # type: ignore[arg-type]
        return DimseArchive(destination, "ECGGW", move_to, intake.accept, 64)

    return make


def test_what_comes_on_our_own_association_is_a_job(
    peer: Peer, archive: Callable[..., DimseArchive], store: Store
) -> None:
    assert list(archive("get").instances(PAGE.StudyInstanceUID, ["OT"])) == [INSTANCE]
    assert list(archive("get").instances(PAGE.StudyInstanceUID, ["SC"])) == []
    peer.answers = [(0xFF00, PAGE)]
    archive("get").fetch([INSTANCE])
    job = store.jobs.find(PAGE.SOPInstanceUID)
    assert job is not None and job.source == "dicom:PACS"
    (asked,) = peer.asked
    assert (asked.QueryRetrieveLevel, asked.SOPInstanceUID) == ("IMAGE", PAGE.SOPInstanceUID)


def test_objects_are_asked_for_series_by_series(peer: Peer, archive: Callable[..., DimseArchive]) -> None:
    others = [
        Instance(
            study_instance_uid="2.25.1",
            series_instance_uid=f"2.25.{series}",
            sop_class_uid=SecondaryCaptureImageStorage,
            sop_instance_uid=f"2.25.{series}.{number}",
        )
        for series, number in ((8, 1), (9, 1), (8, 2))
    ]
    archive("get").fetch(others)
    assert [(asked.SeriesInstanceUID, list(asked.SOPInstanceUID)) for asked in peer.asked[:1]] == [
        ("2.25.8", ["2.25.8.1", "2.25.8.2"])
    ]
    assert (peer.asked[1].SeriesInstanceUID, peer.asked[1].SOPInstanceUID) == ("2.25.9", "2.25.9.1")


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (0xC000, DeliveryRefused, "0xC000"),
        (0xA900, DeliveryRefused, "0xA900"),
        (0x0124, DeliveryRefused, "0x0124"),
        (0xA702, DeliveryDeferred, "0xA702"),
    ],
)
def test_a_retrieval_that_fails_says_why(
    peer: Peer, archive: Callable[..., DimseArchive], status: int, error: type[DeliveryError], words: str
) -> None:
    peer.answers = [(status, Dataset())]
    with pytest.raises(error, match=words):
        archive("get").fetch([INSTANCE])


def test_an_archive_that_cannot_send_says_what_to_look_at(archive: Callable[..., DimseArchive]) -> None:
    with pytest.raises(DeliveryRefused, match="does the gateway run, and does the archive reach it as ECGGW"):
        archive("move").fetch([INSTANCE])


def test_an_archive_that_does_not_know_us_says_what_to_enter_there(archive: Callable[..., DimseArchive]) -> None:
    with pytest.raises(DeliveryRefused, match="does not know NOBODY: have that AE title entered there"):
        archive("move", "NOBODY").fetch([INSTANCE])


def test_an_archive_that_breaks_off_is_asked_again_later(peer: Peer, archive: Callable[..., DimseArchive]) -> None:
    peer.abort = True
    with pytest.raises(DeliveryDeferred, match="broke off"):
        archive("move").fetch([INSTANCE])
