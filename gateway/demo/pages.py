"""Two pages of simulated patients: drawn, sent by C-STORE as a scanner sends, put into a watched folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from pynetdicom import AE

from gateway.domain.context import StudyContext


def draw(file: Path, seed: int) -> None:
    """Draw one page in a process of its own: it loads OpenCV, which nothing else here needs."""
    command = [sys.executable, "-m", "pipeline.training.drawing.sample", str(file), "--seed", str(seed)]
    subprocess.run(command, check=True, timeout=120)


def send(page: Path, port: int) -> None:
    """Send a page as a scanner would: Secondary Capture, explicit VR little endian, RGB."""
    ae = AE("DEMOSCANNER")
    ae.add_requested_context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", port, ae_title="ECGGW")
    if not association.is_established:
        raise ConnectionError("the gateway took no association for Secondary Capture")
    try:
        status = association.send_c_store(_secondary_capture(page))
    finally:
        association.release()
    if not status or status.Status != 0x0000:
        raise ConnectionError(f"the gateway answered the C-STORE with {status.get('Status', 'nothing')}")


def _secondary_capture(page: Path) -> Dataset:
    pixels = np.asarray(Image.open(page).convert("RGB"))
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = SecondaryCaptureImageStorage
    ds.SOPInstanceUID = generate_uid()
    ds.StudyInstanceUID = generate_uid()
    ds.SeriesInstanceUID = generate_uid()
    ds.Modality = "OT"
    ds.ConversionType = "SD"
    ds.PatientName = "Simulated^Anna"
    ds.PatientID = "DEMO-1"
    ds.PatientBirthDate = "19610504"
    ds.PatientSex = "F"
    ds.StudyDate = "20260105"
    ds.StudyTime = "081500"
    ds.AcquisitionDateTime = "20260105081500"
    ds.AccessionNumber = "DEMO-A1"
    ds.ReferringPhysicianName = ""
    ds.StudyID = ""
    ds.SeriesNumber = 1
    ds.InstanceNumber = 1
    ds.SamplesPerPixel = 3
    ds.PlanarConfiguration = 0
    ds.PhotometricInterpretation = "RGB"
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit = 7
    ds.PixelRepresentation = 0
    ds.PixelData = pixels.tobytes()
    return ds


def drop(page: Path, inbox: Path) -> None:
    """Put a page into the watched folder, its identity first, and rename it into place whole."""
    identity = StudyContext(
        patient_id="DEMO-2",
        patient_name="Simulated^Bernd",
        patient_birth_date="19580917",
        patient_sex="M",
        accession_number="DEMO-A2",
        study_date="20260106",
        study_time="101500",
    )
    inbox.mkdir(exist_ok=True)
    (inbox / "page.pdf.json").write_text(identity.model_dump_json(exclude_defaults=True), encoding="utf-8")
    shutil.copyfile(page, inbox / ".page.pdf.part")
    (inbox / ".page.pdf.part").rename(inbox / "page.pdf")
