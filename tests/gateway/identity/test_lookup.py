"""Whose a folder's page is, from a code on it and from a worklist or archive that is asked by C-FIND."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import zxingcpp
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    ModalityWorklistInformationFind,
    StudyRootQueryRetrieveInformationModelFind,
)

from gateway.domain.context import StudyContext
from gateway.domain.identity import Decision, Evidence, PeerAnswer
from gateway.domain.status import JobStatus
from gateway.errors import DeliveryDeferred
from gateway.identity.decide import decide
from gateway.identity.lookup import Lookup
from gateway.identity.words import (
    AMBIGUOUS,
    CONTRADICTION,
    LOOKING_UP,
    NO_ANSWER,
    NO_IDENTITY,
    NOT_FOUND,
    OTHER_CODE,
    OTHER_PATIENT,
)
from gateway.intake.accept import Intake
from gateway.intake.folder import FolderWatcher
from gateway.settings import FolderSettings, LookupSettings, Settings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.store.tables import Job
from gateway.worker.worker import Worker
from pipeline import PageImage
from pipeline.source.codes import read_codes
from tests.fake_digitizer import FakeDigitizer, page_png
from tests.waiting import PATIENCE_S, eventually

CODES = r"(?P<accession_number>A\d+)|P(?P<patient_id>\d+)"


class Peer:
    """A worklist and archive on a real socket that answers what it is told to, whatever is asked."""

    def __init__(self) -> None:
        self.answers: list[Dataset] = []
        self.asked: list[tuple[str, Dataset]] = []
        self.status = 0x0000
        ae = AE("RIS")
        ae.add_supported_context(ModalityWorklistInformationFind)
        ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        self._server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, self._find)])
        self.port = int(self._server.server_address[1])

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        self.asked.append((event.request.AffectedSOPClassUID, event.identifier))
        for answer in self.answers:
            yield 0xFF00, answer
        yield self.status, None

    def close(self) -> None:
        self._server.shutdown()


@pytest.fixture
def peer(caplog: pytest.LogCaptureFixture) -> Iterator[Peer]:
    caplog.set_level(logging.CRITICAL, logger="pynetdicom")
    peer = Peer()
    yield peer
    peer.close()


def scheduled(accession: str = "A1", patient: str = "0042", **changes: object) -> Dataset:
    """A worklist item."""
    item, step = Dataset(), Dataset()
    item.SpecificCharacterSet = "ISO_IR 192"
    item.AccessionNumber, item.PatientID, item.IssuerOfPatientID = accession, patient, "HOSP"
    item.PatientName, item.PatientBirthDate, item.PatientSex = "Müller^Zoë", "19700102", "F"
    item.StudyInstanceUID = "2.25.77"
    item.RequestedProcedureID, item.RequestedProcedureDescription = "RP1", "Resting ECG"
    item.PlacerOrderNumberImagingServiceRequest = "PL1"
    step.ScheduledProcedureStepID = "SPS1"
    item.ScheduledProcedureStepSequence = [step]
    for keyword, value in changes.items():
        setattr(item, keyword, value)
    return item


class Ward:
    """A folder with its settings, a worker and whoever is asked."""

    def __init__(self, root: Path, store: Store, spool: Spool, intake: Intake, port: int, **folder: object) -> None:
        peer = {"host": "127.0.0.1", "port": port, "ae_title": "RIS", "timeout_s": PATIENCE_S}
        peer |= dict(folder.pop("peer", {}))  # type: ignore[call-overload]
        self.folder = FolderSettings.model_validate(
            {"path": root / "in", "create": True, "settle_s": 0.0, "lookup": peer if port else None} | folder
        )
        self.store = store
        self._settings = Settings(folders=(self.folder,))
        self._spool, self._intake = spool, intake
        peers = {f"folder:{self.folder.path}": self.folder.lookup} if self.folder.lookup else {}
        self.lookup = Lookup(store, peers, "ECGGW", first_s=0.0)

    def drop(self, data: bytes, name: str = "page.png", sidecar: str = "") -> Job:
        """Put a file into the folder and return its job."""
        watcher = FolderWatcher(self.folder, self._intake)
        watcher.start()
        try:
            if sidecar:
                (self.folder.path / f"{name}.json").write_text(sidecar)
            part = self.folder.path / f"{name}.part"
            part.write_bytes(data)
            part.rename(self.folder.path / name)
            eventually(lambda: bool(self.store.jobs.newest()))
        finally:
            watcher.stop()
        return self.job

    @property
    def job(self) -> Job:
        (job,) = self.store.jobs.newest()
        return job

    @property
    def context(self) -> StudyContext:
        return self.job.context

    def work(self) -> bool:
        return Worker(self._settings, self.store, self._spool, FakeDigitizer(), name="w").run_once()


@pytest.fixture
def ward(tmp_path: Path, store: Store, spool: Spool, intake: Intake) -> Callable[..., Ward]:
    return lambda port=0, **folder: Ward(tmp_path, store, spool, intake, port, **folder)


def coded_page(*texts: str, angle: float = 0.0) -> bytes:
    """A page with the first text as a bar code and the others as QR codes."""
    page = np.full((1200, 1200), 255, np.uint8)
    for number, text in enumerate(texts):
        kind = zxingcpp.BarcodeFormat.QRCode if number else zxingcpp.BarcodeFormat.Code128
        code = np.array(zxingcpp.create_barcode(text, kind).to_image(scale=3))
        page[60 + 300 * number :, 80:][: code.shape[0], : code.shape[1]] = code
    turn = cv2.getRotationMatrix2D((600, 600), angle, 1.0)
    return bytes(cv2.imencode(".png", cv2.warpAffine(page, turn, (1200, 1200), borderValue=255))[1].tobytes())


# -- codes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("angle", [0.0, 7.0, 90.0, 180.0])
def test_codes_are_read_at_any_angle_and_each_once(angle: float) -> None:
    image = cv2.imdecode(np.frombuffer(coded_page("A123", "P42", "P42", angle=angle), np.uint8), cv2.IMREAD_COLOR)
    assert set(read_codes(PageImage(pixels=image))) == {"A123", "P42"}
    assert read_codes(PageImage(pixels=np.full((50, 50, 3), 255, np.uint8))) == ()


def test_code_says_whose_page_it_is(ward: Callable[..., Ward]) -> None:
    room = ward(barcode_pattern=CODES)
    job = room.drop(coded_page("P904217", "form 7b"))
    assert (job.status, room.context) == (JobStatus.QUEUED, StudyContext())
    assert room.work()
    assert room.job.status == JobStatus.DONE and room.context.patient_id == "904217"
    assert "904217" not in "".join(event.detail for event in room.store.jobs.events(job.id))


def test_page_without_a_code_that_fits_waits_for_a_person(ward: Callable[..., Ward]) -> None:
    room = ward(barcode_pattern=CODES)
    room.drop(coded_page("form 7b"))
    room.work()
    assert (room.job.status, room.job.reason, room.job.unmatched) == (JobStatus.NEEDS_REVIEW, NO_IDENTITY, True)
    assert room.store.jobs.pages(room.job.id) == []


def test_codes_that_differ_leave_it_to_a_person(ward: Callable[..., Ward]) -> None:
    room = ward(barcode_pattern=CODES)
    room.drop(coded_page("P42", "P43"))
    room.work()
    assert room.job.unmatched and "different patients" in room.job.reason


def test_code_against_the_sidecar_holds_the_result(ward: Callable[..., Ward]) -> None:
    room = ward(barcode_pattern=CODES)
    room.drop(coded_page("P42"), sidecar='{"patient_id": "43"}')
    room.work()
    assert (room.job.status, room.job.reason) == (JobStatus.NEEDS_REVIEW, OTHER_CODE)
    assert room.store.jobs.pages(room.job.id) and not room.store.deliveries.of_job(room.job.id)


def test_without_a_pattern_codes_say_nothing(ward: Callable[..., Ward]) -> None:
    room = ward()
    assert room.drop(coded_page("P42")).reason == NO_IDENTITY
    assert not room.work()


# -- look-up -------------------------------------------------------------------------------------------------------


def test_code_leads_to_worklist_leads_to_patient(ward: Callable[..., Ward], peer: Peer) -> None:
    room = ward(peer.port, barcode_pattern=CODES)
    peer.answers = [scheduled(), scheduled("A2", "0043")]  # a peer that ignores the key
    room.drop(coded_page("A1"))
    room.work()
    assert (room.job.status, room.job.reason, room.job.unmatched) == (JobStatus.NEEDS_REVIEW, LOOKING_UP, True)
    room.lookup.run_once()
    assert room.job.status == JobStatus.QUEUED
    context = room.context
    assert (context.patient_id, context.issuer_of_patient_id, context.accession_number) == ("0042", "HOSP", "A1")
    assert (context.patient_name, context.patient_birth_date, context.patient_sex) == ("Müller^Zoë", "19700102", "F")
    assert (context.study_instance_uid, context.placer_order_number) == ("2.25.77", "PL1")
    assert context.study_description == "Resting ECG"
    assert '"RP1"' in context.request_attributes_json and '"SPS1"' in context.request_attributes_json
    room.work()
    assert room.job.status == JobStatus.DONE
    ((model, asked),) = peer.asked
    assert model == ModalityWorklistInformationFind and asked.AccessionNumber == "A1" and asked.PatientID == ""


def test_archive_tells_whose_a_patient_id_is_and_no_study(ward: Callable[..., Ward], peer: Peer) -> None:
    room = ward(peer.port, peer={"model": "study"})
    peer.answers = [scheduled("A1"), scheduled("A2", StudyInstanceUID="2.25.78")]
    assert room.drop(page_png(), sidecar='{"patient_id": "0042"}').reason == LOOKING_UP
    room.lookup.run_once()
    assert room.job.status == JobStatus.QUEUED
    assert (room.context.patient_name, room.context.study_instance_uid) == ("Müller^Zoë", "")
    ((model, asked),) = peer.asked
    assert model == StudyRootQueryRetrieveInformationModelFind
    assert (asked.QueryRetrieveLevel, asked.PatientID) == ("STUDY", "0042")


def test_unknown_number_waits_and_is_asked_again(ward: Callable[..., Ward], peer: Peer) -> None:
    room = ward(peer.port)
    room.drop(page_png(), sidecar='{"accession_number": "A1"}')
    room.lookup.run_once()
    assert room.job.reason == NOT_FOUND.format("worklist", "accession number")
    peer.answers = [scheduled()]
    room.lookup.run_once()
    assert room.job.status == JobStatus.QUEUED


def test_peer_that_is_down_or_refuses_is_asked_again(ward: Callable[..., Ward], peer: Peer) -> None:
    room = ward(peer.port)
    room.drop(page_png(), sidecar='{"accession_number": "A1"}')
    peer.status = 0xA700
    room.lookup.run_once()
    assert room.job.reason.startswith(NO_ANSWER.format("worklist", "")) and "0xA700" in room.job.reason
    peer.status, peer.answers = 0x0000, [scheduled()]
    room.lookup.run_once()
    assert room.job.status == JobStatus.QUEUED


def test_one_dead_peer_is_tried_once_for_all_its_pages(ward: Callable[..., Ward], store: Store) -> None:
    room = ward(1)
    for number in range(3):
        context = StudyContext(accession_number=f"A{number}")
        key = f"folder:{room.folder.path}"
        store.jobs.submit(
            Job(source=key, source_key=str(number), media_type="image/png", status=JobStatus.NEEDS_REVIEW,
                unmatched=True, context=context), "test"
        )  # fmt: skip
    asked: list[StudyContext] = []

    def fail(_: LookupSettings, __: str, context: StudyContext) -> tuple[StudyContext, ...]:
        asked.append(context)
        raise DeliveryDeferred("down")

    assert room.folder.lookup is not None
    Lookup(store, {key: room.folder.lookup}, "ECGGW", ask=fail, first_s=60.0).run_once()
    assert len(asked) == 1


def test_page_that_contradicts_the_answer_waits_for_a_person(ward: Callable[..., Ward], peer: Peer) -> None:
    room = ward(peer.port)
    peer.answers = [scheduled()]
    room.drop(page_png(), sidecar='{"accession_number": "A1", "patient_id": "9999"}')
    room.lookup.run_once()
    assert (room.job.reason, room.context.patient_name) == (OTHER_PATIENT, "")


def test_a_person_who_was_faster_is_not_overruled(ward: Callable[..., Ward], store: Store, peer: Peer) -> None:
    room = ward(peer.port)
    job = room.drop(page_png(), sidecar='{"accession_number": "A1"}')
    assert store.jobs.decide(job, Decision(context=StudyContext(patient_id="7")), "person") is not None
    assert store.jobs.decide(job, Decision(context=StudyContext(patient_id="0042")), "lookup") is None
    assert room.context.patient_id == "7"


def test_thread_asks_by_itself(ward: Callable[..., Ward], peer: Peer) -> None:
    room = ward(peer.port)
    peer.answers = [scheduled()]
    room.lookup.start()
    try:
        assert room.lookup.alive
        room.drop(page_png(), sidecar='{"accession_number": "A1"}')
        eventually(lambda: room.job.status == JobStatus.QUEUED)
    finally:
        room.lookup.stop()
    assert not room.lookup.alive


def resolve(page: StudyContext, found: Sequence[StudyContext], peer: str) -> Decision:
    return decide(page, Evidence(answer=PeerAnswer(peer=peer, found=tuple(found))))


def test_several_patients_under_one_number_are_nobody() -> None:
    page = StudyContext(accession_number="A1")
    found = [StudyContext(accession_number="A1", patient_id=number) for number in ("1", "2")]
    assert decide(
        page, Evidence(answer=PeerAnswer(peer="archive", found=tuple(found)))
    ).hold_reason == AMBIGUOUS.format("archive", "accession number")


def test_several_studies_of_one_order_leave_the_study_open() -> None:
    page = StudyContext(accession_number="A1")
    found = [StudyContext(accession_number="A1", patient_id="1", study_instance_uid=f"2.25.{n}") for n in (1, 2)]
    matched = resolve(page, found, "archive")
    assert matched.hold_reason == "" and matched.context == StudyContext(accession_number="A1", patient_id="1")


def test_record_that_differs_from_the_sidecar_is_named() -> None:
    page = StudyContext(patient_id="1", patient_birth_date="19700101")
    found = [StudyContext(patient_id="1", patient_birth_date="19800101", patient_name="A^B")]
    assert decide(
        page, Evidence(answer=PeerAnswer(peer="archive", found=tuple(found)))
    ).hold_reason == CONTRADICTION.format("birth date")


def test_patterns_are_checked() -> None:
    with pytest.raises(ValueError, match="needs a group"):
        FolderSettings(path=Path("x"), barcode_pattern=r"(?P<study_id>\d+)")
