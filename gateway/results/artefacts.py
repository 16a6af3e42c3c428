"""The DICOM objects of one page, by kind: the waveform in the form a destination wants, its report, its overlay."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from gateway.dicom.objects.documents import encapsulated_report, encode_document, overlay_capture
from gateway.dicom.objects.waveform import SOP_CLASS_UIDS, SopClass, build_waveform, encode
from gateway.domain.context import StudyContext
from gateway.settings import ObjectSettings
from pipeline import Digitization, LayoutMatch, Lead

ObjectKind = SopClass | Literal["report", "overlay"]


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class MadeObject:
    """A DICOM file and what it is known by."""

    sop_instance_uid: str
    name: str  # of the artefact
    data: bytes


def object_name(page_number: int, kind: ObjectKind, variant: str = "") -> str:
    """Return the artefact name of a page's object; `variant` is revision and whether it is final, "" the first."""
    return ".".join(part for part in (f"page-{page_number}", variant, kind, "dcm") if part)


def make_objects(
    digitization: Digitization,
    context: StudyContext,
    kinds: Iterable[ObjectKind],
    *,
    overlay_png: bytes,
    report_pdf: bytes,
    created_at: datetime,
    objects: ObjectSettings,
    revision: int,
) -> dict[ObjectKind, MadeObject]:
    """Return a page's objects, one of each kind; the first kind is a waveform, which the report refers to.

    Raises
    ------
    ValueError
        One cannot be made as the Standard wants it.
    """
    number, match = digitization.page.page_number, digitization.layout_match
    variant = f"r{revision}" if revision else ""
    made: dict[ObjectKind, MadeObject] = {}
    waveform = ("", "")
    for kind in kinds:
        if kind == "report":
            dataset = encapsulated_report(
                report_pdf,
                digitization.quality,
                context,
                page_number=number,
                layout_name=match.layout.name,
                created_at=created_at,
                waveform=waveform,
                objects=objects,
                variant=variant,
            )
            data = encode_document(dataset)
        elif kind == "overlay":
            dataset = overlay_capture(
                overlay_png,
                digitization.quality,
                context,
                page_number=number,
                layout_name=match.layout.name,
                created_at=created_at,
                objects=objects,
                variant=variant,
            )
            data = encode_document(dataset)
        else:
            dataset = build_waveform(
                digitization.record,
                digitization.quality,
                context,
                page_number=number,
                layout_name=match.layout.name,
                sop_class=kind,
                created_at=created_at,
                columns=printed_columns(match),
                objects=objects,
                revision=revision,
            )
            data = encode(dataset)
            waveform = (SOP_CLASS_UIDS[kind], str(dataset.SOPInstanceUID)) if not made else waveform
        uid = str(dataset.SOPInstanceUID)
        made[kind] = MadeObject(sop_instance_uid=uid, name=object_name(number, kind, variant), data=data)
    return made


def printed_columns(match: LayoutMatch) -> tuple[tuple[Lead, ...], ...]:
    """Return which leads are printed one below the other: every column, then the rhythm strips."""
    columns = tuple(zip(*match.layout.rows, strict=False))
    return (*columns, match.rhythm) if match.rhythm else columns
