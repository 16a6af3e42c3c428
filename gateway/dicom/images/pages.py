"""A DICOM image or Encapsulated PDF -> the pages it holds, and their identity.

`read_context` reads the header only: the SCP and the folder call it before they acknowledge.  `read_instance` decodes
the pixels too, in a child process of the worker.  Reading is tolerant of what the wild writes (wrong dates, odd
character sets, missing attributes) and strict about size: elements, items and the length of what is used are bounded
while they are read, and every frame's dimensions are checked against the limits, against the length of the pixel data
and against the header of the compressed stream before anything is decoded.

Which SOP Classes and transfer syntaxes the gateway takes is written here, once; the SCP offers exactly these.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from pydicom import config, dcmread
from pydicom import uid as u
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import data_element_generator, read_dataset
from pydicom.multival import MultiValue

from gateway.dicom.images.bounded import (
    MAXIMUM_ELEMENTS,
    MAXIMUM_MIB,
    MAXIMUM_SEQUENCE_BYTES,
    MAXIMUM_TEXT_BYTES,
    BoundedReader,
    Bounds,
)
from gateway.dicom.images.pixels import DECODE_ERRORS, decode_pages
from gateway.dicom.objects.uids import is_uid
from gateway.dicom.objects.values import is_date, is_date_time, is_offset, is_time
from gateway.domain.context import StudyContext
from gateway.domain.received import Data
from gateway.errors import GatewayError, StorageError, UndecodableDataset, UnsupportedSopClass
from pipeline import PageImage

IMAGE_SOP_CLASSES: tuple[u.UID, ...] = (
    u.SecondaryCaptureImageStorage,
    u.MultiFrameSingleBitSecondaryCaptureImageStorage,
    u.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    u.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    u.MultiFrameTrueColorSecondaryCaptureImageStorage,
    u.VLPhotographicImageStorage,
    u.ComputedRadiographyImageStorage,
    u.UltrasoundImageStorage,
)
DOCUMENT_SOP_CLASSES: tuple[u.UID, ...] = (u.EncapsulatedPDFStorage,)
WAVEFORM_SOP_CLASSES: tuple[u.UID, ...] = (  # recognised: they are signals already
    u.TwelveLeadECGWaveformStorage,
    u.GeneralECGWaveformStorage,
    u.AmbulatoryECGWaveformStorage,
    u.General32bitECGWaveformStorage,
)

DOCUMENT_TRANSFER_SYNTAXES: tuple[u.UID, ...] = (u.ExplicitVRLittleEndian, u.ImplicitVRLittleEndian)
IMAGE_TRANSFER_SYNTAXES: tuple[u.UID, ...] = (  # in order of preference; no Deflated (a bomb), no Big Endian
    *DOCUMENT_TRANSFER_SYNTAXES,
    u.RLELossless,
    u.JPEGLSLossless,
    u.JPEGLosslessSV1,
    u.JPEGLossless,
    u.JPEG2000Lossless,
    u.HTJ2KLossless,
    u.HTJ2KLosslessRPCL,
    u.JPEGBaseline8Bit,
    u.JPEGExtended12Bit,
    u.JPEGLSNearLossless,
    u.JPEG2000,
    u.HTJ2K,
)

_TEXT = {  # field of StudyContext <- attribute, as it is
    "patient_id": "PatientID",
    "issuer_of_patient_id": "IssuerOfPatientID",
    "patient_name": "PatientName",
    "study_id": "StudyID",
    "study_description": "StudyDescription",
    "accession_number": "AccessionNumber",
    "referring_physician_name": "ReferringPhysicianName",
    "institution_name": "InstitutionName",
    "placer_order_number": "PlacerOrderNumberImagingServiceRequest",
    "filler_order_number": "FillerOrderNumberImagingServiceRequest",
}
_UIDS = {
    "study_instance_uid": "StudyInstanceUID",
    "source_sop_class_uid": "SOPClassUID",
    "source_sop_instance_uid": "SOPInstanceUID",
    "source_series_instance_uid": "SeriesInstanceUID",
}
_DEVICE = (
    "ConversionType",
    "SecondaryCaptureDeviceManufacturer",
    "SecondaryCaptureDeviceManufacturerModelName",
    "Manufacturer",
    "ManufacturerModelName",
    "DeviceSerialNumber",
)
_OTHERS = (
    "SpecificCharacterSet",
    "PatientSex",
    "PatientBirthDate",
    "StudyDate",
    "StudyTime",
    "AcquisitionDateTime",
    "AcquisitionDate",
    "AcquisitionTime",
    "TimezoneOffsetFromUTC",
)
_USED = (*_TEXT.values(), *_UIDS.values(), *_DEVICE, *_OTHERS)  # what a context is made of, besides the requests
_REQUESTS = "RequestAttributesSequence"
_LIMITS = {**dict.fromkeys(_USED, MAXIMUM_TEXT_BYTES), _REQUESTS: MAXIMUM_SEQUENCE_BYTES}
_DESCRIPTIVE = (  # LO: what is longer than 64 characters (PS3.5 table 6.2-1) is cut, since it identifies nobody
    "study_description",
    "institution_name",
    "source_manufacturer",
    "source_manufacturer_model_name",
)
_SCANNED = {"SD", "DF"}  # ConversionType: scanned document, digitized film

UNDEFINED = 0xFFFFFFFF  # length
_LARGE_BYTES = 1 << 16  # of a value that `read_whole` leaves in its file
_SEX = re.compile(r"[MFO]")

# A value that breaks its VR is no reason to refuse a page, and pydicom's warnings would print the value.
config.settings.reading_validation_mode = config.IGNORE


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class DicomSource:
    """What one instance holds: pages, each decoded when it is asked for, or the bytes of a PDF still to be rendered."""

    context: StudyContext
    pages: Iterable[PageImage] = ()
    document: bytes | None = None


def read_context(data: Data) -> StudyContext:
    """Return the identity of the ECG in a DICOM file, from its header alone.

    Parameters
    ----------
    data : bytes or file
        A DICOM file (PS3.10): preamble, file meta information, data set.

    Raises
    ------
    UndecodableDataset
        The bytes are no DICOM file, or one in a transfer syntax the gateway does not read.
    """
    return study_context(_read(data, _lean_reader(data), stop_before_pixels=True, specific_tags=[*_LIMITS]))


def read_instance(data: bytes) -> DicomSource:
    """Return the pages of a DICOM file, every frame as a page in its order.

    Raises
    ------
    UnsupportedSopClass
        Its SOP Class holds no pages; the message says so for ECG waveforms, which are signals already.
    UndecodableDataset
        Its pixel data contradict its header, break a limit, or cannot be decoded.
    """
    dataset = _read(data, BoundedReader(data, Bounds(MAXIMUM_ELEMENTS, _LIMITS)))
    sop_class = _text(dataset, "SOPClassUID")
    if sop_class in WAVEFORM_SOP_CLASSES:
        raise UnsupportedSopClass("an ECG waveform object holds signals already; it is not digitized again")
    if sop_class in DOCUMENT_SOP_CLASSES:
        return DicomSource(context=study_context(dataset), document=_document(dataset))
    if sop_class not in IMAGE_SOP_CLASSES:
        raise UnsupportedSopClass(f"SOP Class {sop_class if is_uid(sop_class) else '(invalid)'} holds no pages")
    return DicomSource(context=study_context(dataset), pages=decode_pages(dataset))


def read_whole(data: Data) -> Dataset:
    """Return the data set of a DICOM file that does not end too early; large values are left in the file.

    Raises
    ------
    UndecodableDataset
        It ends too early, or cannot be parsed.
    """
    syntax, start = data_set_of(data)
    reader = _lean_reader(data)
    end = reader.seek(0, os.SEEK_END)
    reader.seek(start)
    implicit = syntax == u.ImplicitVRLittleEndian
    try:  # `dcmread` leaves out what ends too early
        file = cast(BinaryIO, reader)
        for raw in data_element_generator(file, implicit, is_little_endian=True, defer_size=_LARGE_BYTES):
            if isinstance(raw, RawDataElement) and raw.length != UNDEFINED and raw.value_tell + raw.length > end:
                raise EOFError
    except DECODE_ERRORS as error:
        raise _failure(error, reader, "the file is cut short, or cannot be parsed to its end") from error
    return _read(data, _lean_reader(data), defer_size=_LARGE_BYTES)


def _read(data: Data, reader: BoundedReader, **what: Any) -> Dataset:
    syntax, _ = data_set_of(data)
    if syntax not in IMAGE_TRANSFER_SYNTAXES:
        raise UndecodableDataset(f"transfer syntax {syntax if is_uid(syntax) else '(none)'} is not read here")
    reader.seek(0)
    try:
        return dcmread(reader, **what)
    except DECODE_ERRORS as error:
        raise _failure(error, reader, f"the data set cannot be parsed ({type(error).__name__})") from error


def _failure(error: Exception, reader: BoundedReader, otherwise: str) -> GatewayError:
    """Return what ended the reading; at the head of an item pydicom raises an OSError in its place."""
    cause = error.__context__ or error
    if isinstance(cause, StorageError):
        return cause
    if isinstance(cause, RecursionError):
        return UndecodableDataset("sequences are nested too deeply")
    return UndecodableDataset(reader.problem or otherwise)


def _lean_reader(data: Data) -> BoundedReader:
    """Return what reads an object of any size in little memory."""
    return BoundedReader(data, Bounds(MAXIMUM_ELEMENTS, _LIMITS, MAXIMUM_MIB))


def data_set_of(data: Data) -> tuple[str, int]:
    """Return the transfer syntax that a DICOM file names, and where its data set begins; nothing is inflated.

    Raises
    ------
    UndecodableDataset
        The bytes are no DICOM file.
    """
    buffer = BoundedReader(data, Bounds(MAXIMUM_ELEMENTS, maximum_mib=MAXIMUM_MIB))
    buffer.seek(128)
    if buffer.read(4) != b"DICM":
        raise UndecodableDataset("not a DICOM file: no DICM at byte 128")
    try:
        meta = read_dataset(
            cast(BinaryIO, buffer),
            is_implicit_VR=False,
            is_little_endian=True,
            stop_when=lambda tag, vr, length: tag >> 16 != 2,
        )
    except DECODE_ERRORS as error:
        raise _failure(error, buffer, f"the file meta information cannot be parsed ({type(error).__name__})") from error
    return _text(meta, "TransferSyntaxUID"), buffer.tell()


def study_context(dataset: Dataset) -> StudyContext:
    """Return the identity and the order that a data set states; a value in a wrong form counts as not known."""
    fields = {field: _text(dataset, keyword) for field, keyword in _TEXT.items()}
    fields |= {field: _matching(is_uid(text), text) for field, text in _each(dataset, _UIDS)}
    for role in ("placer", "filler"):  # an EI, where the order came by HL7: number^issuer (IHE RAD TF-2 appendix B)
        number, _, fields[f"{role}_order_issuer"] = fields[f"{role}_order_number"].partition("^")
        fields[f"{role}_order_number"] = number
    sex, offset = _text(dataset, "PatientSex"), _text(dataset, "TimezoneOffsetFromUTC")
    if _text(dataset, "ConversionType") in _SCANNED:
        fields |= _scanner(dataset)
    fields |= {field: fields[field][:64] for field in _DESCRIPTIVE if field in fields}
    return StudyContext(
        **fields,
        patient_birth_date=_date(dataset, "PatientBirthDate"),
        patient_sex=_matching(_SEX.fullmatch(sex), sex),
        study_date=_date(dataset, "StudyDate"),
        study_time=_time(dataset, "StudyTime"),
        acquisition_date_time=_recorded_at(dataset),
        timezone_offset_from_utc=_matching(is_offset(offset), offset),
        request_attributes_json=_request_attributes(dataset),
    )


def _each(dataset: Dataset, keywords: dict[str, str]) -> list[tuple[str, str]]:
    return [(field, _text(dataset, keyword)) for field, keyword in keywords.items()]


def _matching(valid: object, text: str) -> str:
    """Return `text` where it is valid and "" (not known) where it is not."""
    return text if valid else ""


def _text(dataset: Dataset, keyword: str) -> str:
    """Return a value as Unicode text, "" where it is absent or cannot be decoded."""
    try:
        value = dataset.get(keyword)
    except DECODE_ERRORS:
        return ""
    if value is None:
        return ""
    values = value if isinstance(value, MultiValue) else [value]
    return "\\".join(str(item) for item in values).strip(" \0")


def _date(dataset: Dataset, keyword: str) -> str:
    date = _text(dataset, keyword).replace(".", "")  # 1997.07.01 is the form before 1993
    return _matching(is_date(date), date)


def _time(dataset: Dataset, keyword: str) -> str:
    time = _text(dataset, keyword).replace(":", "")  # 10:15:30 likewise
    return _matching(is_time(time), time)


def _recorded_at(dataset: Dataset) -> str:
    """Return when the ECG was recorded; a photograph's acquisition is that of the photograph."""
    if _text(dataset, "SOPClassUID") == u.VLPhotographicImageStorage:
        return ""
    date_time = _text(dataset, "AcquisitionDateTime")
    if is_date_time(date_time):
        return date_time
    date = _date(dataset, "AcquisitionDate")
    return date + _time(dataset, "AcquisitionTime") if date else ""


def _scanner(dataset: Dataset) -> dict[str, str]:
    """Return the document scanner, from the SC Equipment module (C.8.6.1) or else General Equipment."""
    return {
        "source_manufacturer": _text(dataset, "SecondaryCaptureDeviceManufacturer") or _text(dataset, "Manufacturer"),
        "source_manufacturer_model_name": _text(dataset, "SecondaryCaptureDeviceManufacturerModelName")
        or _text(dataset, "ManufacturerModelName"),
        "source_device_serial_number": _text(dataset, "DeviceSerialNumber"),
    }


def _request_attributes(dataset: Dataset) -> str:
    try:
        items = dataset.get(_REQUESTS) or ()
        text = json.dumps([item.to_json_dict() for item in items]) if items else ""
    except DECODE_ERRORS:
        return ""
    if len(text) > 2 * MAXIMUM_SEQUENCE_BYTES:  # JSON is longer than DICOM; a sequence may not say its length
        raise UndecodableDataset(f"{_REQUESTS} is longer than {MAXIMUM_SEQUENCE_BYTES} bytes")
    return text


def _document(dataset: Dataset) -> bytes:
    """Return the PDF of an Encapsulated PDF object (C.24.2), without the byte that pads it to an even length."""
    try:
        data, length = dataset.get("EncapsulatedDocument"), dataset.get("EncapsulatedDocumentLength")
    except DECODE_ERRORS as error:
        raise UndecodableDataset(f"the encapsulated document cannot be read ({type(error).__name__})") from error
    if not isinstance(data, bytes) or not data:
        raise UndecodableDataset("the Encapsulated PDF object holds no document")
    if isinstance(length, int) and len(data) - 1 <= length <= len(data):
        return data[:length]
    return data
