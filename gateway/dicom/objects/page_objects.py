"""DigitizedPage -> its DICOM objects by kind: the waveform in the form a destination wants, its report, its overlay."""

from __future__ import annotations

from gateway.dicom.objects.documents import (
    Document,
    document_sop_instance_uid,
    encapsulated_report,
    encode_document,
    overlay_capture,
)
from gateway.dicom.objects.waveform import SopClass, build_waveform, encode, waveform_sop_instance_uid
from gateway.domain.artefact import Artefact, Role, version_of
from gateway.domain.digitized_page import DigitizedPage
from gateway.settings import ObjectSettings

ObjectKind = SopClass | Document


def make_object(page: DigitizedPage, kind: ObjectKind, objects: ObjectSettings) -> Artefact:
    """Return one object of a page, as the artefact that is kept and sent.

    Raises
    ------
    ValueError
        It cannot be made as the Standard wants it.
    """
    match kind:
        case "report":
            data = encode_document(encapsulated_report(page, objects))
        case "overlay":
            data = encode_document(overlay_capture(page, objects))
        case _:
            data = encode(build_waveform(page, kind, objects))
    return _artefact(page, kind, data)


def kept_object(page: DigitizedPage, kind: ObjectKind) -> Artefact:
    """Return an object that was made of the page before, without its content."""
    return _artefact(page, kind, None)


def _artefact(page: DigitizedPage, kind: ObjectKind, data: bytes | None) -> Artefact:
    """Return the artefact of an object; only a report becomes another one when a person confirms the result."""
    context, number, revision = page.context, page.page_number, page.revision
    if kind == "report" or kind == "overlay":
        role, final = Role(kind), page.final and kind == "report"
        uid = document_sop_instance_uid(context, number, kind, version_of(revision, final))
        return Artefact(page_number=number, role=role, data=data, revision=revision, final=final, identifier=uid)
    uid = waveform_sop_instance_uid(context, number, kind, revision)
    return Artefact(page_number=number, role=Role.WAVEFORM, data=data, variant=kind, revision=revision, identifier=uid)
