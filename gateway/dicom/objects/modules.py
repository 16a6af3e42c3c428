"""Modules that all created objects share: patient and study, source, equipment, and the file format.

Identity and order are copied from the source, never invented (PS3.3 C.7.1.1, C.7.2.1); the equipment is this software
(C.7.5.1), with the scanner named where the source names it (C.12.1).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from io import BytesIO

from pydicom import dcmwrite
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from gateway import __version__
from gateway.dicom.objects.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from gateway.domain.context import StudyContext
from gateway.domain.digitized_page import DigitizedPage
from gateway.settings import SeriesSettings

MANUFACTURER = "ECG Gateway project"
MODEL_NAME = "ECG Gateway"
PRIVATE_GROUP = 0x0099

_COPIED = {  # attribute <- field of StudyContext; Type 2 (or 1), so empty where not known
    "PatientName": "patient_name",
    "PatientID": "patient_id",
    "PatientBirthDate": "patient_birth_date",
    "PatientSex": "patient_sex",
    "StudyInstanceUID": "study_instance_uid",
    "StudyDate": "study_date",
    "StudyTime": "study_time",
    "StudyID": "study_id",
    "AccessionNumber": "accession_number",
    "ReferringPhysicianName": "referring_physician_name",
}
_COPIED_IF_KNOWN = {  # Type 3
    "IssuerOfPatientID": "issuer_of_patient_id",
    "StudyDescription": "study_description",
    "TimezoneOffsetFromUTC": "timezone_offset_from_utc",
    "InstitutionName": "institution_name",
}


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class ObjectHead:
    """What an object is, and the series it belongs to: SOP Common, General Series (PS3.3 C.12.1, C.7.3.1).

    Parameters
    ----------
    series : SeriesSettings
        Series Number and Series Description.
    corrected : bool
        Whether the object replaces one that was sent before.
    created_at : datetime
        Content and instance creation, aware.
    """

    sop_class_uid: str
    sop_instance_uid: str
    modality: str
    series_instance_uid: str
    series: SeriesSettings
    instance_number: int
    created_at: datetime
    corrected: bool = False

    def __post_init__(self) -> None:
        """Refuse a time without time zone."""
        if self.created_at.tzinfo is None:
            raise ValueError("created_at must say its time zone")


def source_of(context: StudyContext) -> str:
    """Return the source's SOP Instance UID, which ours are derived from; raise ValueError where there is none."""
    if not context.source_sop_instance_uid:
        raise ValueError("the source has no SOP Instance UID to derive ours from")
    return context.source_sop_instance_uid


def identity(context: StudyContext) -> Dataset:
    """Return a data set with the Patient and General Study modules, and the order: all copied.

    Raises
    ------
    ValueError
        The study has no Study Instance UID.
    """
    if not context.study_instance_uid:
        raise ValueError("the study has no Study Instance UID")
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for keyword, field in _COPIED.items():
        put(dataset, keyword, getattr(context, field))
    for keyword, field in _COPIED_IF_KNOWN.items():
        if getattr(context, field):
            put(dataset, keyword, getattr(context, field))
    if context.request_attributes_json:
        items = json.loads(context.request_attributes_json)
        dataset.RequestAttributesSequence = [Dataset.from_json(item) for item in items]
    return dataset


def series_and_instance(dataset: Dataset, head: ObjectHead) -> None:
    """Fill in what the object is, its series, its number in that, and its dates."""
    dataset.SOPClassUID = UID(head.sop_class_uid)
    dataset.SOPInstanceUID = head.sop_instance_uid
    dataset.InstanceCreationDate = dataset.ContentDate = head.created_at.strftime("%Y%m%d")
    dataset.InstanceCreationTime = dataset.ContentTime = head.created_at.strftime("%H%M%S")
    dataset.Modality = head.modality
    dataset.SeriesInstanceUID = head.series_instance_uid
    dataset.SeriesNumber = head.series.number
    dataset.SeriesDescription = head.series.description + (", corrected" if head.corrected else "")
    dataset.InstanceNumber = head.instance_number


def related_series(dataset: Dataset, context: StudyContext) -> None:
    """Name the series the page came from (C.7.3.1)."""
    if context.source_series_instance_uid:
        related = Dataset()
        related.StudyInstanceUID = context.study_instance_uid
        related.SeriesInstanceUID = context.source_series_instance_uid
        related.PurposeOfReferenceCodeSequence = []
        dataset.RelatedSeriesSequence = [related]


def source_reference(context: StudyContext) -> list[Dataset]:
    """Return a reference to the object the page came in; none where it was no DICOM object."""
    if not context.source_sop_class_uid:
        return []
    source = Dataset()
    source.ReferencedSOPClassUID = context.source_sop_class_uid
    source.ReferencedSOPInstanceUID = context.source_sop_instance_uid
    source.PurposeOfReferenceCodeSequence = code("121324", "DCM", "Source image")
    return [source]


def equipment(dataset: Dataset, context: StudyContext, created_at: datetime) -> None:
    """General Equipment module (C.7.5.1) and the chain of equipment (C.12.1): scanner if known, then this software."""
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = MODEL_NAME
    dataset.SoftwareVersions = __version__
    chain = []
    if context.source_manufacturer and context.source_sop_class_uid:
        scanner = Dataset()
        scanner.PurposeOfReferenceCodeSequence = code("DOCD", "DCM", "Document Digitizer Equipment")
        put(scanner, "Manufacturer", context.source_manufacturer)
        if context.source_manufacturer_model_name:
            put(scanner, "ManufacturerModelName", context.source_manufacturer_model_name)
        if context.source_device_serial_number:
            put(scanner, "DeviceSerialNumber", context.source_device_serial_number)
        chain.append(scanner)
    ours = Dataset()
    ours.PurposeOfReferenceCodeSequence = code("109102", "DCM", "Processing Equipment")
    ours.Manufacturer = MANUFACTURER
    ours.ManufacturerModelName = MODEL_NAME
    ours.SoftwareVersions = __version__
    ours.ContributionDateTime = created_at.strftime("%Y%m%d%H%M%S%z")
    ours.ContributionDescription = "Signals digitized from a picture of a paper ECG"
    dataset.ContributingEquipmentSequence = [*chain, ours]


def private_figures(dataset: Dataset, creator: str, page: DigitizedPage) -> None:
    """Write the quality's figures for programs into a private block (PS3.5 section 7.8); none without a creator."""
    if not creator:
        return
    quality = page.quality
    coverage = list(quality.coverage.values())
    block = dataset.private_block(PRIVATE_GROUP, creator, create=True)
    block.add_new(0x01, "FD", quality.estimated_snr_db)
    block.add_new(0x02, "FD", sum(coverage) / len(coverage) if coverage else 0.0)
    block.add_new(0x03, "LO", page.layout_name[:64])
    block.add_new(0x04, "FD", quality.layout_score)


def in_zone(moment: datetime, offset: str) -> datetime:
    """Return `moment` in the zone that TimezoneOffsetFromUTC names; unchanged where it names none."""
    if not offset:
        return moment
    sign = -1 if offset.startswith("-") else 1
    return moment.astimezone(timezone(sign * timedelta(hours=int(offset[1:3]), minutes=int(offset[3:5]))))


def put(dataset: Dataset, keyword: str, value: str) -> None:
    """Add a copied value as it is; whether its VR allows it is for `check_values`, which does not print it."""
    tag = tag_for_keyword(keyword)
    assert tag is not None
    dataset.add(DataElement(tag, dictionary_VR(tag), value, validation_mode=IGNORE))


def code(value: str, scheme: str, meaning: str) -> list[Dataset]:
    """Return a code sequence's value: one item (PS3.3 section 8)."""
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = scheme
    item.CodeMeaning = meaning
    return [item]


def dicom_file(dataset: Dataset) -> bytes:
    """Return the object as a DICOM file (PS3.10) in Explicit VR Little Endian."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    file = Dataset(dataset)
    file.file_meta = meta
    buffer = BytesIO()
    dcmwrite(buffer, file, enforce_file_format=True)
    return buffer.getvalue()
