"""Small made-up DICOM things the tests share: a context, records in three layouts, Secondary Capture files."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from gateway.dicom.images.pages import read_instance
from gateway.domain.context import StudyContext
from gateway.domain.digitized_page import DigitizedPage
from pipeline import LEADS, Calibration, EcgRecord, Lead, PageImage, Quality, heart_rate_per_minute

NOW = datetime(2026, 3, 1, 10, 15, 30, tzinfo=UTC)
COLUMNS = [
    (Lead.I, Lead.II, Lead.III),
    (Lead.AVR, Lead.AVL, Lead.AVF),
    (Lead.V1, Lead.V2, Lead.V3),
    (Lead.V4, Lead.V5, Lead.V6),
]

CONTEXT = StudyContext(
    patient_id="P-1001",
    issuer_of_patient_id="HOSP",
    patient_name="Muster^Zoë",
    patient_birth_date="19700102",
    patient_sex="F",
    study_instance_uid="2.25.1001",
    study_date="20260301",
    study_time="100000",
    study_id="S1",
    study_description="ECG",
    accession_number="A1001",
    referring_physician_name="Doc^Tor",
    acquisition_date_time="20260301093000",
    institution_name="General",
    source_sop_class_uid=SecondaryCaptureImageStorage,
    source_sop_instance_uid="2.25.1003",
    source_series_instance_uid="2.25.1002",
    source_manufacturer="Scanner Inc",
    source_manufacturer_model_name="S1",
    source_device_serial_number="42",
    request_attributes_json='[{"00401001": {"vr": "SH", "Value": ["RP1"]}}]',
)


def make_record(layout: str = "3x4+II", n_samples: int = 5000) -> EcgRecord:
    """A record of `layout`: 12x1 (all leads all the time), 6x2 (halves) or 3x4+II (quarters, II throughout)."""
    rng = np.random.default_rng(7)
    t = np.arange(n_samples) / 500.0
    signal = np.stack([np.sin(2 * np.pi * (1.2 + 0.1 * k) * t) for k in range(12)]) + 0.01 * rng.normal(
        size=(12, n_samples)
    )
    if layout != "12x1":
        for k, lead in enumerate(LEADS):
            if layout == "6x2":
                start, stop = (0, n_samples // 2) if k < 6 else (n_samples // 2, n_samples)
            elif lead is Lead.II:
                start, stop = 0, n_samples
            else:
                column = next(c for c, leads in enumerate(COLUMNS) if lead in leads)
                start, stop = column * n_samples // 4, (column + 1) * n_samples // 4
            signal[k, :start] = np.nan
            signal[k, stop:] = np.nan
    signal_mv = signal.astype(np.float32)
    return EcgRecord(
        signal_mv=signal_mv,
        confidence=np.where(np.isnan(signal_mv), 0, 0.9).astype(np.float32),
        leads=LEADS,
        sampling_frequency_hz=500.0,
        calibration=Calibration(speed_source="text", gain_source="pulse"),
    )


def with_extra_leads(record: EcgRecord, leads: tuple[Lead, ...]) -> EcgRecord:
    """The record with more leads, each half as tall as lead I."""
    more = np.repeat(0.5 * record.signal_mv[:1], len(leads), axis=0)
    return replace(
        record,
        signal_mv=np.vstack([record.signal_mv, more]),
        confidence=np.vstack([record.confidence, np.isfinite(more).astype(np.float32)]),
        leads=(*record.leads, *leads),
    )


def make_quality(**changes: object) -> Quality:
    values: dict[str, object] = {
        "coverage": dict.fromkeys(LEADS, 1.0),
        "confidence": dict.fromkeys(LEADS, 0.9),
        "einthoven_residual_mv": 0.02,
        "layout_score": 0.95,
        "estimated_snr_db": 17.3,
    }
    return Quality(**{**values, **changes})  # type: ignore[arg-type]


def make_page(record: EcgRecord | None = None, **changes: object) -> DigitizedPage:
    """A digitized page of `CONTEXT`, its heart rate measured."""
    record = record or make_record()
    values: dict[str, object] = {
        "job_id": "job",
        "page_number": 1,
        "context": CONTEXT,
        "created_at": NOW,
        "record": record,
        "quality": make_quality(),
        "layout_name": "3x4+R",
        "heart_rate_per_minute": heart_rate_per_minute(record),
    }
    return DigitizedPage(**(values | changes))  # type: ignore[arg-type]


def page_pixels(height: int = 48, width: int = 64) -> np.ndarray:
    """A tiny pink grid with a dark line: (H, W, 3) uint8 RGB, different in every corner."""
    pixels = np.full((height, width, 3), 250, np.uint8)
    pixels[::8] = (240, 170, 180)
    pixels[:, ::8] = (240, 170, 180)
    pixels[height // 3, : width // 2] = (10, 20, 30)
    pixels[:4, :4] = (255, 0, 0)
    pixels[-4:, -4:] = (0, 0, 255)
    return pixels


def secondary_capture(pixels: np.ndarray | None = None, **attributes: object) -> Dataset:
    """A Secondary Capture data set of (H, W, 3) RGB pixels; `attributes` replace or add, None deletes."""
    pixels = page_pixels() if pixels is None else pixels
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = "2.25.1003"
    dataset.StudyInstanceUID = "2.25.1001"
    dataset.SeriesInstanceUID = "2.25.1002"
    dataset.PatientID = "P-1001"
    dataset.PatientName = "Muster^Zoë"
    dataset.PatientBirthDate = "19700102"
    dataset.PatientSex = "F"
    dataset.StudyDate = "20260301"
    dataset.StudyTime = "100000"
    dataset.AccessionNumber = "A1001"
    dataset.ReferringPhysicianName = "Doc^Tor"
    dataset.StudyID = "S1"
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = 1
    dataset.Modality = "OT"
    dataset.ConversionType = "SD"
    dataset.SamplesPerPixel = pixels.shape[2]
    dataset.PhotometricInterpretation = "RGB" if pixels.shape[2] == 3 else "MONOCHROME2"
    if pixels.shape[2] == 3:
        dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = 0
    data = pixels.tobytes()
    dataset.add_new("PixelData", "OW" if pixels.dtype.itemsize == 2 else "OB", data + b"\0" * (len(data) % 2))
    for keyword, value in attributes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def part10(dataset: Dataset, transfer_syntax_uid: str = ExplicitVRLittleEndian) -> bytes:
    """The data set as a DICOM file."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def compressed(dataset: Dataset, transfer_syntax_uid: str) -> bytes:
    """The data set with its pixels compressed by pydicom, as a DICOM file."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.compress(transfer_syntax_uid, generate_instance_uid=False)
    return part10(dataset, transfer_syntax_uid)


def read_pages(data: bytes) -> list[PageImage]:
    """All pages of an image object, decoded in this process."""
    return list(read_instance(data).pages)
