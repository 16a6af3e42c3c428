"""Kinds of destination: what each is sent for a page, in which order, and under which names."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from gateway.delivery.sample_ecg import sample_page
from gateway.dicom.network.find import StudyQuery
from gateway.dicom.objects.page_objects import kept_object, make_object
from gateway.domain.artefact import Artefact, Role, kept_name
from gateway.errors import SettingsError
from gateway.settings import (
    Destination,
    DicomDestination,
    DicomWebDestination,
    FolderDestination,
    Hl7Destination,
    ObjectSettings,
)
from pipeline import heart_rate_per_minute
from tests.gateway.delivery.destinations import kind
from tests.gateway.dicom.samples import make_page

PACS = DicomDestination(name="pacs", host="h", port=1, ae_title="A", also=("report", "overlay"))
WEB = DicomWebDestination(name="web", url="http://h/x", sop_class="general", rejection_note=False)
EHR = Hl7Destination(name="ehr", host="h", port=1)
FILES = FolderDestination(name="files", path=Path("out"), also=("overlay",))


def png() -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (4, 2)).save(buffer, "PNG")
    return buffer.getvalue()


def names(destination: Destination, **changes: object) -> list[str]:
    page = make_page(report_pdf=b"%PDF", overlay_png=png(), **changes)
    there = kind(destination)
    objects = {each: make_object(page, each, ObjectSettings()) for each in there.objects}
    return [artefact.name for artefact in there.artefacts(page, objects, ())]


@pytest.mark.parametrize(
    ("destination", "preliminary", "final"),
    [
        (
            PACS,
            ["page-1.12-lead.dcm", "page-1.report.dcm", "page-1.overlay.dcm"],
            ["page-1.r2.12-lead.dcm", "page-1.r2.final.report.dcm", "page-1.r2.overlay.dcm"],
        ),
        (WEB, ["page-1.general.dcm"], ["page-1.r2.general.dcm"]),
        (EHR, ["page-1.ehr.hl7"], ["page-1.ehr.r2.final.hl7"]),
        (
            FILES,
            ["page-1.12-lead.dcm", "page-1.overlay.dcm", "page-1.files.hl7"],
            ["page-1.r2.12-lead.dcm", "page-1.r2.overlay.dcm", "page-1.files.r2.final.hl7"],
        ),
    ],
)
def test_what_each_kind_is_sent(destination: Destination, preliminary: list[str], final: list[str]) -> None:
    assert names(destination) == preliminary
    assert names(destination, revision=2, final=True) == final


def test_names_of_what_stays_and_of_rejections() -> None:
    roles = (Role.PAGE_PICTURE, Role.OVERLAY_PICTURE, Role.RECORD, Role.REPORT_PDF)
    kept = ["page-3.png", "page-3.overlay.png", "page-3.record.npz", "page-3.report.pdf"]
    assert [kept_name(3, role) for role in roles] == kept
    note = Artefact(page_number=3, role=Role.REJECTION, variant="pacs", revision=1)
    assert note.name == "page-3.r1.rejection.pacs.dcm"


def test_an_object_that_is_kept_is_known_by_the_same_name_and_uid() -> None:
    page = make_page(report_pdf=b"%PDF", overlay_png=png(), revision=1, final=True)
    for each in ("12-lead", "report", "overlay"):
        made, kept = make_object(page, each, ObjectSettings()), kept_object(page, each)
        assert (made.name, made.identifier, made.role) == (kept.name, kept.identifier, kept.role)
        assert made.data and kept.data is None


def test_what_a_kind_is_for() -> None:
    assert [kind(each).is_archive for each in (PACS, WEB, EHR, FILES)] == [True, True, False, False]
    assert [kind(each).rejection_note for each in (PACS, WEB, EHR, FILES)] == [True, False, False, False]
    committing = PACS.model_copy(update={"storage_commitment": True})
    assert [kind(each).committing for each in (PACS, committing, WEB, EHR, FILES)] == [None, committing] + [None] * 3


@pytest.mark.parametrize("destination", [EHR, FILES])
def test_what_is_no_archive_is_not_queried(destination: Destination) -> None:
    with pytest.raises(SettingsError, match="is no archive"):
        kind(destination).find(StudyQuery(), 3)


def test_the_test_ecg_has_the_rate_it_says() -> None:
    page = sample_page("pacs")
    assert page.heart_rate_per_minute == heart_rate_per_minute(page.record)
