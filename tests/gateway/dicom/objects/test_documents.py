"""Encapsulated report, overlay and rejection note: what a reader of the files finds in them."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread

from gateway.dicom.objects.documents import (
    REJECTED_FOR_QUALITY,
    REJECTED_FOR_SAFETY,
    document_sop_instance_uid,
    encapsulated_report,
    encode_document,
    overlay_capture,
    rejection_note,
)
from gateway.domain.context import StudyContext
from gateway.settings import ObjectSettings
from tests.gateway.dicom.samples import CONTEXT, NOW, make_page, page_pixels

WAVEFORM = ("1.2.840.10008.5.1.4.1.1.9.1.1", "2.25.77")
PDF = b"%PDF-1.4 odd"[:-1]


def png() -> bytes:
    buffer = BytesIO()
    Image.fromarray(page_pixels(49, 63)).save(buffer, "PNG")
    return buffer.getvalue()


def report(context: StudyContext = CONTEXT, **changes: object) -> Dataset:
    shown = dict(zip(("waveform_sop_class_uid", "waveform_sop_instance_uid"), WAVEFORM, strict=True))
    return encapsulated_report(make_page(context=context, report_pdf=PDF, **(shown | changes)), ObjectSettings())


def overlay(revision: int = 0) -> Dataset:
    return overlay_capture(make_page(overlay_png=png(), revision=revision), ObjectSettings())


def read_back(dataset: Dataset) -> Dataset:
    return dcmread(BytesIO(encode_document(dataset)))


def test_report_holds_the_pdf_and_says_what_it_shows() -> None:
    dataset = read_back(report())
    assert dataset.EncapsulatedDocument[: dataset.EncapsulatedDocumentLength] == PDF
    assert (dataset.Modality, dataset.MIMETypeOfEncapsulatedDocument) == ("DOC", "application/pdf")
    assert (dataset.VerificationFlag, dataset.BurnedInAnnotation) == ("UNVERIFIED", "YES")
    assert (dataset.PatientID, dataset.StudyInstanceUID) == ("P-1001", "2.25.1001")
    assert [each.ReferencedSOPInstanceUID for each in dataset.SourceInstanceSequence] == ["2.25.1003", "2.25.77"]
    assert dataset.SOPInstanceUID == document_sop_instance_uid(CONTEXT, 1, "report")


def test_confirmed_report_is_another_object() -> None:
    final = report(final=True)
    assert final.VerificationFlag == "VERIFIED"
    assert final.SOPInstanceUID != report().SOPInstanceUID
    assert final.SeriesDescription == report().SeriesDescription
    assert report(revision=1).SeriesDescription.endswith(", corrected")


def test_overlay_is_the_picture_pixel_by_pixel() -> None:
    dataset = read_back(overlay())
    assert np.array_equal(dataset.pixel_array, page_pixels(49, 63))
    assert (dataset.ConversionType, dataset.BurnedInAnnotation) == ("WSD", "YES")
    assert dataset.SourceImageSequence[0].ReferencedSOPInstanceUID == "2.25.1003"


def test_each_kind_has_a_series_of_its_own() -> None:
    made = [report(), overlay()]
    assert len({each.SeriesInstanceUID for each in made}) == 2
    assert [(each.SeriesNumber, each.InstanceNumber) for each in made] == [(2, 1), (3, 1)]


def test_same_inputs_same_bytes() -> None:
    assert encode_document(report()) == encode_document(report())
    assert encode_document(overlay()) == encode_document(overlay())


@pytest.mark.parametrize("title", [REJECTED_FOR_QUALITY, REJECTED_FOR_SAFETY])
def test_rejection_note_names_every_object_and_why(title: tuple[str, str]) -> None:
    sent = [read_back(report()), read_back(overlay())]
    note = read_back(rejection_note(sent, title, number=3, created_at=NOW, objects=ObjectSettings()))
    assert (note.Modality, note.ValueType, note.InstanceNumber) == ("KO", "CONTAINER", 3)
    assert (note.ConceptNameCodeSequence[0].CodeValue, note.ConceptNameCodeSequence[0].CodeMeaning) == title
    assert (note.PatientID, note.StudyInstanceUID) == ("P-1001", "2.25.1001")
    contents = [item for item in note.ContentSequence if "ReferencedSOPSequence" in item]
    assert [item.ValueType for item in contents] == ["COMPOSITE", "IMAGE"]
    (study,) = note.CurrentRequestedProcedureEvidenceSequence
    evidence = [item for series in study.ReferencedSeriesSequence for item in series.ReferencedSOPSequence]
    uids = [each.SOPInstanceUID for each in sent]
    assert [item.ReferencedSOPInstanceUID for item in evidence] == uids
    assert [item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in contents] == uids


def test_identity_that_breaks_its_vr_is_refused_without_being_named() -> None:
    with pytest.raises(ValueError, match="AccessionNumber") as caught:
        encode_document(report(CONTEXT.model_copy(update={"accession_number": "SECRET-" + "7" * 20})))
    assert "SECRET" not in str(caught.value)
