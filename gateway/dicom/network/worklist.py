"""The patient of a number: C-FIND to a modality worklist (PS3.4 annex K) or an archive's studies (annex C).

The peer is asked for one accession number, or one patient ID; what it answers is read as an object's header would be.
Its answers are checked against what was asked: there are peers that ignore a key and return everything.
"""

from __future__ import annotations

import contextlib

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pynetdicom.sop_class import ModalityWorklistInformationFind, StudyRootQueryRetrieveInformationModelFind

from gateway.dicom.images.pages import study_context
from gateway.dicom.network.find import find
from gateway.domain.context import StudyContext
from gateway.domain.identity import same_issuer
from gateway.settings import DicomDestination, LookupSettings

_LIMIT = 200  # answers; a patient has fewer studies of which all say the same of the patient

_PEER = ("host", "port", "ae_title", "timeout_s", "tls")
_PATIENT = "PatientID IssuerOfPatientID PatientName PatientBirthDate PatientSex".split()
_STUDY = "AccessionNumber StudyInstanceUID StudyDate StudyTime StudyID StudyDescription ReferringPhysicianName".split()
_REQUEST = (
    "AccessionNumber StudyInstanceUID ReferringPhysicianName RequestedProcedureID RequestedProcedureDescription "
    "PlacerOrderNumberImagingServiceRequest FillerOrderNumberImagingServiceRequest"
).split()
_STEP = "ScheduledProcedureStepID ScheduledProcedureStepDescription".split()


def ask(settings: LookupSettings, calling_ae_title: str, context: StudyContext) -> tuple[StudyContext, ...]:
    """Return what the peer has under the accession number of a page, or under its patient ID where it names no order.

    Raises
    ------
    DeliveryError
        The peer cannot be asked, or answers a failure; see `gateway.dicom.find.find_studies`.
    """
    peer = DicomDestination(name="lookup", **settings.model_dump(include=set(_PEER)))
    worklist = settings.model == "worklist"
    model = ModalityWorklistInformationFind if worklist else StudyRootQueryRetrieveInformationModelFind
    identifier = _worklist_keys() if worklist else _study_keys()
    if context.accession_number:
        identifier.AccessionNumber = context.accession_number
    else:
        identifier.PatientID = context.patient_id
    answers = find(peer, settings.calling_ae_title or calling_ae_title, model, identifier, _LIMIT)
    return tuple(found for answer in answers if _is_asked(found := _read(answer), context))


def _study_keys() -> Dataset:
    identifier = _keys([*_PATIENT, *_STUDY])
    identifier.SpecificCharacterSet = "ISO_IR 192"
    identifier.QueryRetrieveLevel = "STUDY"
    return identifier


def _worklist_keys() -> Dataset:
    identifier = _keys([*_PATIENT, *_REQUEST])
    identifier.SpecificCharacterSet = "ISO_IR 192"
    identifier.ScheduledProcedureStepSequence = [_keys([*_STEP, "Modality", "ScheduledProcedureStepStartDate"])]
    return identifier


def _keys(keywords: list[str]) -> Dataset:
    identifier = Dataset()
    for keyword in keywords:
        setattr(identifier, keyword, "")
    return identifier


def _read(answer: Dataset) -> StudyContext:
    """Return an answer in our terms; a scheduled step becomes an item of RequestAttributesSequence (PS3.3 C.7.3.1).

    There are peers that answer in the character set they were asked in and do not say so.
    """
    if "SpecificCharacterSet" not in answer:
        answer.walk(_as_utf_8)
    steps = answer.get("ScheduledProcedureStepSequence") or ()
    if steps:
        request = Dataset()
        for source, keyword in [(steps[0], keyword) for keyword in _STEP] + [(answer, "RequestedProcedureID")]:
            if source.get(keyword):
                request[keyword] = source[keyword]
        if len(request):
            answer.RequestAttributesSequence = [request]
        if "StudyDescription" not in answer and answer.get("RequestedProcedureDescription"):
            answer.StudyDescription = answer.RequestedProcedureDescription
    return study_context(answer)


def _as_utf_8(_: Dataset, element: DataElement) -> None:
    """Read a text as UTF-8 that was read as ISO 8859-1, which has a character for every byte; else leave it."""
    if element.VR in ("LO", "PN", "SH") and element.VM == 1:
        with contextlib.suppress(UnicodeError):
            element.value = str(element.value).encode("latin-1").decode("utf-8")


def _is_asked(found: StudyContext, context: StudyContext) -> bool:
    if not found.patient_id:
        return False
    if context.accession_number:
        return found.accession_number == context.accession_number
    same = same_issuer(found.issuer_of_patient_id, context.issuer_of_patient_id)
    return found.patient_id == context.patient_id and same
