"""Whose a folder's page is, asked at DCMTK's worklist server."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from gateway.dicom.network.worklist import ask
from gateway.domain.context import StudyContext
from gateway.domain.identity import Decision, Evidence, PeerAnswer
from gateway.errors import DeliveryError
from gateway.identity.decide import decide
from gateway.settings import LookupSettings
from tests.interop.peers import free_port, tool
from tests.waiting import PATIENCE_S, eventually

pytestmark = pytest.mark.interop


def scheduled(accession: str, patient: str, name: str) -> Dataset:
    item, step = Dataset(), Dataset()
    item.SpecificCharacterSet = "ISO_IR 192"
    item.AccessionNumber, item.PatientID, item.PatientName = accession, patient, name
    item.PatientBirthDate, item.PatientSex = "19700102", "F"
    item.StudyInstanceUID = f"2.25.{patient}"
    item.RequestedProcedureID, item.RequestedProcedureDescription = "RP1", "Resting ECG"
    step.Modality, step.ScheduledStationAETitle = "ECG", "CART"
    step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime = "20260301", "0900"
    step.ScheduledProcedureStepID, step.ScheduledProcedureStepDescription = "SPS1", "ECG at rest"
    item.ScheduledProcedureStepSequence = [step]
    return item


@pytest.fixture
def worklist(tmp_path: Path) -> Iterator[LookupSettings]:
    """DCMTK's wlmscpfs with two items."""
    folder = tmp_path / "RIS"
    folder.mkdir()
    (folder / "lockfile").touch()
    for item in (scheduled("A1", "1001", "Müller^Zoë"), scheduled("A2", "1002", "Wang^XiaoDong=王^小东")):
        item.file_meta = FileMetaDataset()
        item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        item.file_meta.MediaStorageSOPClassUID = UID("1.2.276.0.7230010.3.1.0.1")  # a file of DCMTK's own
        item.file_meta.MediaStorageSOPInstanceUID = UID("2.25.9")
        dcmwrite(folder / f"{item.AccessionNumber}.wl", item, enforce_file_format=True)
    port = free_port()
    server = subprocess.Popen([tool("wlmscpfs"), "-dfr", "-dfp", str(tmp_path), str(port)], stderr=subprocess.DEVNULL)
    settings = LookupSettings(host="127.0.0.1", port=port, ae_title="RIS", timeout_s=PATIENCE_S)
    try:
        eventually(lambda: answers(settings))
        yield settings
    finally:
        server.terminate()
        server.wait(PATIENCE_S)


def answers(settings: LookupSettings) -> bool:
    try:
        ask(settings, "ECGGW", StudyContext(accession_number="none"))
    except DeliveryError:
        return False
    return True


def resolve(page: StudyContext, found: Sequence[StudyContext], peer: str) -> Decision:
    return decide(page, Evidence(answer=PeerAnswer(peer=peer, found=tuple(found))))


def test_accession_number_leads_to_patient_and_order(worklist: LookupSettings) -> None:
    page = StudyContext(accession_number="A2")
    matched = resolve(page, ask(worklist, "ECGGW", page), "worklist")
    assert matched.hold_reason == ""
    context = matched.context
    assert (context.patient_id, context.patient_name) == ("1002", "Wang^XiaoDong=王^小东")
    assert (context.study_instance_uid, context.study_description) == ("2.25.1002", "Resting ECG")
    assert '"SPS1"' in context.request_attributes_json


def test_patient_id_leads_to_the_patient_alone(worklist: LookupSettings) -> None:
    page = StudyContext(patient_id="1001")
    context = resolve(page, ask(worklist, "ECGGW", page), "worklist").context
    assert (context.patient_name, context.patient_birth_date) == ("Müller^Zoë", "19700102")
    assert (context.study_instance_uid, context.accession_number) == ("", "")


def test_unknown_number_finds_nothing(worklist: LookupSettings) -> None:
    assert ask(worklist, "ECGGW", StudyContext(accession_number="A3")) == ()
