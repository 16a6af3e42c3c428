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
    EncapsulatedPDFStorage,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
)

from gateway import __version__
from gateway.dicom.objects.content_checker import check_values
from gateway.dicom.objects.modules import (
    MANUFACTURER,
    MODEL_NAME,
    ObjectHead,
    code,
    dicom_file,
    equipment,
    identity,
    in_zone,
    private_figures,
    put,
    series_and_instance,
    source_of,
    source_reference,
)
from gateway.dicom.objects.uids import derived_uid
from gateway.domain.artefact import version_of
from gateway.domain.context import StudyContext
from gateway.domain.digitized_page import DigitizedPage
from gateway.settings import ObjectSettings

Document = Literal["report", "overlay"]

REJECTED_FOR_QUALITY = ("113001", "Rejected for Quality Reasons")
REJECTED_FOR_SAFETY = ("113037", "Rejected for Patient Safety Reasons")  # the patient's identity was another
REPLACED = "Another digitization of the same page takes the place of these objects."

_IDENTITY = (
    "SpecificCharacterSet TimezoneOffsetFromUTC PatientName PatientID IssuerOfPatientID PatientBirthDate PatientSex "
    "StudyInstanceUID StudyDate StudyTime StudyID StudyDescription AccessionNumber ReferringPhysicianName"
).split()
_SOP_CLASS_AND_MODALITY = {"report": (EncapsulatedPDFStorage, "DOC"), "overlay": (SecondaryCaptureImageStorage, "OT")}
_VALUE_TYPES = {"ECG": "WAVEFORM", "OT": "IMAGE"}  # by Modality; all else: COMPOSITE


def document_sop_instance_uid(context: StudyContext, page_number: int, kind: Document, variant: str = "") -> str:
    """Return the SOP Instance UID of a page's report or overlay; `variant` tells a page's apart.

    Raises
    ------
    ValueError
        The context has no `source_sop_instance_uid` to derive it from.
    """
    variants = [variant] if variant else []
    return derived_uid(source_of(context), str(page_number), kind, __version__, *variants)


def encapsulated_report(page: DigitizedPage, objects: ObjectSettings) -> Dataset:
    """Return the page's PDF report as an Encapsulated PDF object (PS3.3 A.45.1); it refers to the page's waveform.

    Raises
    ------
    ValueError
        The context lacks a UID, or has a value that breaks its VR.
    """
    context, pdf = page.context, page.report_pdf
    dataset = _page_object(page, "report", objects)
    put(dataset, "AcquisitionDateTime", page.recorded.at)
    dataset.ConversionType = "WSD"
    dataset.BurnedInAnnotation = "YES"
    dataset.VerificationFlag = "VERIFIED" if page.final else "UNVERIFIED"
    dataset.DocumentTitle = "12-lead ECG digitized from paper"
    dataset.ConceptNameCodeSequence = code("11524-6", "LN", "EKG study")
    shown = Dataset()
    shown.ReferencedSOPClassUID = page.waveform_sop_class_uid
    shown.ReferencedSOPInstanceUID = page.waveform_sop_instance_uid
    shown.PurposeOfReferenceCodeSequence = code("121112", "DCM", "Source of Measurement")
    dataset.SourceInstanceSequence = [*source_reference(context), shown]
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    dataset.EncapsulatedDocumentLength = len(pdf)
    return dataset


def overlay_capture(page: DigitizedPage, objects: ObjectSettings) -> Dataset:
    """Return the page with the traces read from it as a Secondary Capture (PS3.3 A.8.1), uncompressed RGB.

    Raises
    ------
    ValueError
        The context lacks a UID, or has a value that breaks its VR.
    """
    pixels = np.asarray(Image.open(BytesIO(page.overlay_png)).convert("RGB"))
    dataset = _page_object(page, "overlay", objects)
    dataset.ConversionType = "WSD"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.PatientOrientation = None
    dataset.BodyPartExamined = "HEART"  # not paired: no Laterality
    dataset.BurnedInAnnotation = "YES"
    dataset.DerivationDescription = "Traces read from a picture of a paper ECG, drawn over it"
    if references := source_reference(page.context):
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
    rejected: Sequence[Dataset],
    title: tuple[str, str],
    *,
    number: int,
    created_at: datetime,
    objects: ObjectSettings,
    words: str = REPLACED,
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
    words : str
        Why, for a reader.
    """
    first = rejected[0]
    dataset = Dataset()
    for keyword in _IDENTITY:
        if keyword in first:
            dataset.add(first[keyword])
    head = ObjectHead(
        sop_class_uid=KeyObjectSelectionDocumentStorage,
        sop_instance_uid=derived_uid("rejection", *sorted(each.SOPInstanceUID for each in rejected)),
        modality="KO",
        series_instance_uid=derived_uid("rejections", first.StudyInstanceUID),
        series=objects.rejection,
        instance_number=number,
        created_at=in_zone(created_at, dataset.get("TimezoneOffsetFromUTC", "")),
    )
    series_and_instance(dataset, head)
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
    dataset.ContentSequence = [*_reason(title, words), *(_content(each) for each in rejected)]
    return dataset


def encode_document(dataset: Dataset) -> bytes:
    """Return the object as a DICOM file; raise ValueError where a value breaks its VR (it names no value)."""
    check_values(dataset)
    return dicom_file(dataset)


def _page_object(page: DigitizedPage, kind: Document, objects: ObjectSettings) -> Dataset:
    """Return what report and overlay have in common; each version of each kind has a series of its own."""
    context, version = page.context, _version(page, kind)
    sop_class_uid, modality = _SOP_CLASS_AND_MODALITY[kind]
    created_at = in_zone(page.created_at, context.timezone_offset_from_utc)
    versions = [version] if version else []
    head = ObjectHead(
        sop_class_uid=sop_class_uid,
        sop_instance_uid=document_sop_instance_uid(context, page.page_number, kind, version),
        modality=modality,
        series_instance_uid=derived_uid(source_of(context), "series", kind, __version__, *versions),
        series=objects.report if kind == "report" else objects.overlay,
        corrected=page.revision > 0,
        instance_number=objects.first_instance_number + page.page_number - 1,
        created_at=created_at,
    )
    dataset = identity(context)
    series_and_instance(dataset, head)
    equipment(dataset, context, created_at)
    private_figures(dataset, objects.private_creator, page)
    return dataset


def _version(page: DigitizedPage, kind: Document) -> str:
    """Return what tells a page's objects of one kind apart: an overlay stays as it is when a person confirms it."""
    return page.version if kind == "report" else version_of(page.revision, final=False)


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


def _reason(title: tuple[str, str], text: str) -> list[Dataset]:
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
    words.TextValue = text
    return [*items, words]


def _content(each: Dataset) -> Dataset:
    item = Dataset()
    item.RelationshipType = "CONTAINS"
    item.ValueType = _VALUE_TYPES.get(each.Modality, "COMPOSITE")
    item.ReferencedSOPSequence = [_reference(each)]
    return item
