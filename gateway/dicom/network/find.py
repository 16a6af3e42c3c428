"""C-FIND SCU (PS3.4 C.4.1, K.4.1): a query -> what a peer knows; `find_studies` asks at study level, Study Root."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
)

from gateway.dicom.network.association import associate
from gateway.errors import DeliveryDeferred, DeliveryError, DeliveryRefused
from gateway.settings import DicomDestination

_MESSAGE_ID = 1
_AFTER_CANCEL = 200  # matches that may still arrive before the peer handles the cancel request
_SUCCESS, _CANCELLED = 0x0000, 0xFE00
_PENDING = (0xFF00, 0xFF01)
_NEVER = {0x0122, 0x0124, *range(0xA900, 0xAA00), *range(0xC000, 0xD000)}  # table C.4-1

_COLUMNS = {  # field of Study <- attribute
    "study_instance_uid": "StudyInstanceUID",
    "study_date": "StudyDate",
    "modalities": "ModalitiesInStudy",
    "accession_number": "AccessionNumber",
    "study_description": "StudyDescription",
    "patient_id": "PatientID",
    "patient_name": "PatientName",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyQuery:
    """What to look for, each in the form of its attribute; "" matches everything (PS3.4 C.2.2.2)."""

    patient_id: str = ""
    study_date: str = ""  # YYYYMMDD or a range YYYYMMDD-YYYYMMDD
    accession_number: str = ""
    modalities: str = ""
    study_description: str = ""  # with * and ? as wild cards


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One match; "" where the peer says nothing, several values with a backslash between them."""

    study_instance_uid: str
    study_date: str
    modalities: str
    accession_number: str
    study_description: str
    patient_id: str
    patient_name: str


def find_studies(
    destination: DicomDestination, calling_ae_title: str, query: StudyQuery, limit: int
) -> tuple[Study, ...]:
    """Return the first `limit` studies that match.

    Raises
    ------
    NoConnection, AssociationRejected, NoContext
        See `gateway.dicom.association`.
    DeliveryDeferred, DeliveryRefused
        The peer answered a failure, `response` says which, or ended the association.
    """
    model = StudyRootQueryRetrieveInformationModelFind
    matches = find(destination, calling_ae_title, model, _identifier(query), limit)
    return tuple(Study(**{field: _text(match, keyword) for field, keyword in _COLUMNS.items()}) for match in matches)


def find(
    destination: DicomDestination, calling_ae_title: str, model: UID, identifier: Dataset, limit: int
) -> tuple[Dataset, ...]:
    """Return the first `limit` matches of an information model; raise as `find_studies` does."""
    contexts = [build_context(model, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])]
    association = associate(destination, calling_ae_title, contexts)
    try:
        matches = _matches(association, destination.name, model, identifier)
        found = tuple(islice(matches, limit))
        if len(found) == limit:
            _end(association, model, matches)
        return found
    finally:
        if association.is_established:
            association.release()


def _identifier(query: StudyQuery) -> Dataset:
    identifier = Dataset()
    identifier.SpecificCharacterSet = "ISO_IR 192"
    identifier.QueryRetrieveLevel = "STUDY"
    for field, keyword in _COLUMNS.items():
        setattr(identifier, keyword, getattr(query, field, ""))
    return identifier


def _matches(association: Association, name: str, model: UID, identifier: Dataset) -> Iterator[Dataset]:
    for status, match in association.send_c_find(identifier, model, msg_id=_MESSAGE_ID):
        code = status.get("Status")
        if code in _PENDING and match is not None:
            yield match
        elif code not in (_SUCCESS, _CANCELLED):
            raise _failure(name, code)


def _end(association: Association, model: UID, matches: Iterator[Dataset]) -> None:
    """Say that no more is wanted (C-CANCEL, PS3.7 9.3.2.3), and hear what was under way; abort where it does not end.

    A release in the midst of answers would wait for the last of them, or for ever.
    """
    with suppress(DeliveryError, RuntimeError, ValueError):
        if next(matches, None) is None:
            return
        association.send_c_cancel(_MESSAGE_ID, query_model=model)
        if next(islice(matches, _AFTER_CANCEL, None), None) is None:
            return
    if association.is_established:
        association.abort()


def _failure(name: str, code: int | None) -> DeliveryError:
    if code is None:
        return DeliveryDeferred(
            f"{name}: the peer broke off or was silent: it may not allow us (our AE title) to query"
        )
    kind = DeliveryRefused if code in _NEVER else DeliveryDeferred
    return kind(f"{name}: C-FIND status 0x{code:04X}", response=f"0x{code:04X}")


def _text(match: Dataset, keyword: str) -> str:
    value = match.get(keyword)
    values = [] if value is None else value if isinstance(value, MultiValue) else [value]
    return "\\".join(str(item) for item in values)
