"""What else a page becomes: an Encapsulated PDF of its report, a Secondary Capture of its overlay, a rejection note.

The rejection note is a Key Object Selection Document as IHE IOCM has it: it tells archive and viewers that objects sent
earlier are not to be used, and belongs to the patient and study that those were sent under.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from io import BytesIO
from typing import Literal

import numpy as np
from PIL import Image
from pydicom import Dataset
from pydicom.uid import (
    UID,
    EncapsulatedPDFStorage,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
)

from gateway import __version__
from gateway.dicom.objects.content_checker import check_values
from gateway.dicom.objects.modules import (
    MANUFACTURER,
    MODEL_NAME,
    code,
    dicom_file,
    equipment,
    identity,
    in_zone,
    private_figures,
    put,
    recorded_at,
    series_and_instance,
    source_of,
    source_reference,
)
from gateway.dicom.objects.uids import derived_uid
from gateway.domain.context import StudyContext
from gateway.settings import ObjectSettings
from pipeline import Quality

REJECTED_FOR_QUALITY = ("113001", "Rejected for Quality Reasons")
REJECTED_FOR_SAFETY = ("113037", "Rejected for Patient Safety Reasons")  # the patient's identity was another

_IDENTITY = (
    "SpecificCharacterSet TimezoneOffsetFromUTC PatientName PatientID IssuerOfPatientID PatientBirthDate PatientSex "
    "StudyInstanceUID StudyDate StudyTime StudyID StudyDescription AccessionNumber ReferringPhysicianName"
).split()
_VALUE_TYPES = {"ECG": "WAVEFORM", "OT": "IMAGE"}  # by Modality; all else: COMPOSITE


def document_sop_instance_uid(
    context: StudyContext, page_number: int, kind: Literal["report", "overlay"], variant: str = ""
) -> str:
    """Return the SOP Instance UID of a page's report or overlay; `variant` tells a page's apart.

    Raises
    ------
    ValueError
        The context has no `source_sop_instance_uid` to derive it from.
    """
    variants = [variant] if variant else []
    return derived_uid(source_of(context), str(page_number), kind, __version__, *variants)


def encapsulated_report(
    pdf: bytes,
    quality: Quality,
    context: StudyContext,
    *,
    page_number: int,
    layout_name: str,
    created_at: datetime,
    waveform: tuple[str, str],
    objects: ObjectSettings,
    variant: str = "",
    confirmed: bool = False,
) -> Dataset:
    """Return the report as an Encapsulated PDF object (PS3.3 A.45.1).

    Parameters
    ----------
    waveform : tuple[str, str]
        SOP Class and Instance UID of the waveform it shows.
    variant : str
        Tells the page's reports apart: revision and whether it is final; "" is the first.

    Raises
    ------
    ValueError
        The context lacks a UID, or has a value that breaks its VR.
    """
    dataset = _page_object(
        EncapsulatedPDFStorage,
        "report",
        "DOC",
        quality,
        context,
        page_number,
        layout_name,
        created_at,
        objects,
        variant,
    )
    put(dataset, "AcquisitionDateTime", recorded_at(context)[0])
    dataset.ConversionType = "WSD"
    dataset.BurnedInAnnotation = "YES"
    dataset.VerificationFlag = "VERIFIED" if confirmed else "UNVERIFIED"
    dataset.DocumentTitle = "12-lead ECG digitized from paper"
    dataset.ConceptNameCodeSequence = code("11524-6", "LN", "EKG study")
    shown = Dataset()
    shown.ReferencedSOPClassUID, shown.ReferencedSOPInstanceUID = waveform
    shown.PurposeOfReferenceCodeSequence = code("121112", "DCM", "Source of Measurement")
    dataset.SourceInstanceSequence = [*source_reference(context), shown]
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    dataset.EncapsulatedDocumentLength = len(pdf)
    return dataset


def overlay_capture(
    png: bytes,
    quality: Quality,
    context: StudyContext,
    *,
    page_number: int,
    layout_name: str,
    created_at: datetime,
    objects: ObjectSettings,
    variant: str = "",
) -> Dataset:
    """Return the page with the traces read from it as a Secondary Capture (PS3.3 A.8.1), uncompressed RGB.

    Raises
    ------
    ValueError
        The context lacks a UID, or has a value that breaks its VR.
    """
    pixels = np.asarray(Image.open(BytesIO(png)).convert("RGB"))
    dataset = _page_object(
        SecondaryCaptureImageStorage,
        "overlay",
        "OT",
        quality,
        context,
        page_number,
        layout_name,
        created_at,
        objects,
        variant,
    )
    dataset.ConversionType = "WSD"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.PatientOrientation = None
    dataset.BodyPartExamined = "HEART"  # not paired: no Laterality
    dataset.BurnedInAnnotation = "YES"
    dataset.DerivationDescription = "Traces read from a picture of a paper ECG, drawn over it"
    if references := source_reference(context):
        dataset.SourceImageSequence = references
    dataset.SamplesPerPixel = 3
    dataset.PhotometricInterpretation = "RGB"
    dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    data = pixels.tobytes()
    dataset.add_new("PixelData", "OW", data + b"\0" * (len(data) % 2))
    return dataset


def rejection_note(
    rejected: Sequence[Dataset], title: tuple[str, str], *, number: int, created_at: datetime, objects: ObjectSettings
) -> Dataset:
    """Return a Key Object Selection Document (PS3.3 A.35.4, TID 2010) that rejects objects sent earlier.

    Parameters
    ----------
    rejected : Sequence[Dataset]
        At least one; all of one patient and study, as they were sent.
    title : tuple[str, str]
        Code (DCM) and meaning: why.
    number : int
        Instance Number.
    """
    first = rejected[0]
    dataset = Dataset()
    for keyword in _IDENTITY:
        if keyword in first:
            dataset.add(first[keyword])
    dataset.SOPClassUID = KeyObjectSelectionDocumentStorage
    dataset.SOPInstanceUID = derived_uid("rejection", *sorted(each.SOPInstanceUID for each in rejected))
    series_and_instance(
        dataset,
        modality="KO",
        series_instance_uid=derived_uid("rejections", first.StudyInstanceUID),
        series=objects.rejection,
        revision=0,
        instance_number=number,
        created_at=in_zone(created_at, dataset.get("TimezoneOffsetFromUTC", "")),
    )
    dataset.ReferencedPerformedProcedureStepSequence = []
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = MODEL_NAME
    dataset.SoftwareVersions = __version__
    dataset.CurrentRequestedProcedureEvidenceSequence = [_evidence(rejected)]
    dataset.ValueType = "CONTAINER"
    dataset.ConceptNameCodeSequence = code(title[0], "DCM", title[1])
    dataset.ContinuityOfContent = "SEPARATE"
    template = Dataset()
    template.MappingResource = "DCMR"
    template.TemplateIdentifier = "2010"
    dataset.ContentTemplateSequence = [template]
    dataset.ContentSequence = [*_reason(title), *(_content(each) for each in rejected)]
    return dataset


def encode_document(dataset: Dataset) -> bytes:
    """Return the object as a DICOM file; raise ValueError where a value breaks its VR (it names no value)."""
    check_values(dataset)
    return dicom_file(dataset)


def _page_object(
    sop_class_uid: str,
    kind: Literal["report", "overlay"],
    modality: str,
    quality: Quality,
    context: StudyContext,
    page_number: int,
    layout_name: str,
    created_at: datetime,
    objects: ObjectSettings,
    variant: str,
) -> Dataset:
    """Return what report and overlay have in common; each kind has a series of its own."""
    dataset = identity(context)
    variants = [variant] if variant else []
    revision = variant.partition(".")[0]
    created_at = in_zone(created_at, context.timezone_offset_from_utc)
    dataset.SOPClassUID = UID(sop_class_uid)
    dataset.SOPInstanceUID = document_sop_instance_uid(context, page_number, kind, variant)
    series_and_instance(
        dataset,
        modality=modality,
        series_instance_uid=derived_uid(source_of(context), "series", kind, __version__, *variants),
        series=getattr(objects, kind),
        revision=int(revision.startswith("r")),
        instance_number=objects.first_instance_number + page_number - 1,
        created_at=created_at,
    )
    equipment(dataset, context, created_at)
    private_figures(dataset, objects.private_creator, quality, layout_name)
    return dataset


def _evidence(rejected: Sequence[Dataset]) -> Dataset:
    """Return the one study of the evidence (C.17.2.1), series by series."""
    study = Dataset()
    study.StudyInstanceUID = rejected[0].StudyInstanceUID
    study.ReferencedSeriesSequence = []
    for uid in dict.fromkeys(each.SeriesInstanceUID for each in rejected):
        series = Dataset()
        series.SeriesInstanceUID = uid
        series.ReferencedSOPSequence = [_reference(each) for each in rejected if each.SeriesInstanceUID == uid]
        study.ReferencedSeriesSequence.append(series)
    return study


def _reference(each: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = each.SOPClassUID
    item.ReferencedSOPInstanceUID = each.SOPInstanceUID
    return item


def _reason(title: tuple[str, str]) -> list[Dataset]:
    """Return why in the codes of CID 7011, for a quality reason, and in words."""
    items = []
    if title == REJECTED_FOR_QUALITY:
        modifier = Dataset()
        modifier.RelationshipType = "HAS CONCEPT MOD"
        modifier.ValueType = "CODE"
        modifier.ConceptNameCodeSequence = code("113011", "DCM", "Document Title Modifier")
        modifier.ConceptCodeSequence = code("111219", "DCM", "Inappropriate image processing")
        items.append(modifier)
    words = Dataset()
    words.RelationshipType = "CONTAINS"
    words.ValueType = "TEXT"
    words.ConceptNameCodeSequence = code("113012", "DCM", "Key Object Description")
    words.TextValue = "Another digitization of the same page takes the place of these objects."
    return [*items, words]


def _content(each: Dataset) -> Dataset:
    item = Dataset()
    item.RelationshipType = "CONTAINS"
    item.ValueType = _VALUE_TYPES.get(each.Modality, "COMPOSITE")
    item.ReferencedSOPSequence = [_reference(each)]
    return item
