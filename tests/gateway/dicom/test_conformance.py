"""The conformance statement names what the code offers, answers and sends."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.uid import EncapsulatedPDFStorage, KeyObjectSelectionDocumentStorage, SecondaryCaptureImageStorage
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    ModalityWorklistInformationFind,
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from gateway.dicom.images import receive
from gateway.dicom.images.pages import IMAGE_TRANSFER_SYNTAXES
from gateway.dicom.network import commitment, scp, scu
from gateway.dicom.network import dicomweb as web
from gateway.dicom.objects.documents import (
    REJECTED_FOR_QUALITY,
    REJECTED_FOR_SAFETY,
    encapsulated_report,
    overlay_capture,
    rejection_note,
)
from gateway.dicom.objects.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from gateway.dicom.objects.waveform import SOP_CLASS_UIDS, build_waveform
from gateway.domain.context import StudyContext
from gateway.security.certificates import EXPIRY_WARNING
from gateway.security.tls import CIPHER_SUITES, client_context
from gateway.settings import DicomSettings, DicomTlsSettings, ObjectSettings, TlsClientSettings, TlsSettings
from tests.gateway.dicom.samples import COLUMNS, CONTEXT, NOW, make_page, make_record

STATEMENT = (Path(__file__).resolve().parents[3] / "docs" / "conformance" / "dicom.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "uid", [*IMAGE_TRANSFER_SYNTAXES, *chain.from_iterable(SOP_CLASS_UIDS.values()), IMPLEMENTATION_CLASS_UID]
)
def test_every_uid_is_named(uid: str) -> None:
    assert f"`{uid}`" in STATEMENT


def test_transfer_syntaxes_are_in_our_order() -> None:
    positions = [STATEMENT.index(f"| `{uid}` |") for uid in IMAGE_TRANSFER_SYNTAXES]
    assert positions == sorted(positions)


def test_every_status_we_answer_is_in_the_table() -> None:
    answered = {
        value for name, value in vars(receive).items() if name[0] != "_" and name.isupper() and isinstance(value, int)
    }
    assert len(answered) == 8
    for status in answered:
        assert f"| {status:04X} |" in STATEMENT


def test_every_answer_we_understand_is_in_the_table() -> None:
    ranges = {status >> 8: f"{status >> 8:X}xx" for status in range(0xA900, 0xAA00)}
    for status in scu._STORED | scu._NEVER:
        text = "Cxxx" if status >= 0xC000 else ranges.get(status >> 8, f"{status:04X}")
        assert text in STATEMENT


def test_version_name_and_pdu_length_are_named() -> None:
    assert f"`{IMPLEMENTATION_VERSION_NAME}`" in STATEMENT
    assert f"| {scp.MAXIMUM_PDU_SIZE} |" in STATEMENT


def test_security_profiles_are_as_in_the_code() -> None:
    assert set(CIPHER_SUITES) == set(get_args(TlsSettings.model_fields["profile"].annotation))
    rows = {row.split("`")[1]: row for row in STATEMENT.splitlines() if row.startswith("| `bcp195")}
    assert set(rows) == set(CIPHER_SUITES)
    recommended = CIPHER_SUITES["bcp195"].split(":")
    assert re.findall(r"ECDHE-[A-Z0-9-]+", rows["bcp195"]) == recommended
    more = CIPHER_SUITES["bcp195-modified"].split(":")
    assert recommended + re.findall(r"ECDHE-[A-Z0-9-]+", rows["bcp195-modified"]) == more
    assert f"from {EXPIRY_WARNING.days} days before" in STATEMENT


def test_tls_1_3_suites_are_as_openssl_offers_them() -> None:
    context = client_context(TlsClientSettings())
    offered = [suite["name"] for suite in context.get_ciphers() if suite["protocol"] == "TLSv1.3"]
    assert sorted(offered) == sorted(re.findall(r"TLS_[A-Z0-9]+_[A-Z0-9_]+_SHA[0-9]+", STATEMENT))


def test_limits_are_as_in_the_settings() -> None:
    defaults = DicomSettings()
    assert f"`maximum_connections_per_host`, {defaults.maximum_connections_per_host} from one" in STATEMENT
    assert f"`maximum_associations`, {defaults.maximum_associations}, on both" in STATEMENT
    assert f"also port {DicomTlsSettings.model_fields['port'].default} for TLS" in STATEMENT
    assert scp._CONNECTIONS_PER_ASSOCIATION == 4 and "four times `maximum_associations`" in STATEMENT


@pytest.mark.parametrize(
    "uid",
    [
        Verification,
        ModalityWorklistInformationFind,
        StudyRootQueryRetrieveInformationModelFind,
        StorageCommitmentPushModel,
        StudyRootQueryRetrieveInformationModelGet,
        StudyRootQueryRetrieveInformationModelMove,
    ],
)
def test_classes_we_use_as_scu_are_in_the_table(uid: str) -> None:
    (row,) = [row for row in STATEMENT.splitlines() if f"| `{uid}` |" in row]
    assert row.split("|")[3].strip() == "yes"


def test_shape_is_that_of_ps3_2() -> None:
    """Annex A of PS3.2: numbered sections, none missing, none twice."""
    numbers = re.findall(r"^##+ ([0-9.]+?)\.? ", STATEMENT, re.MULTILINE)
    assert [number for number in numbers if "." not in number] == [str(number) for number in range(1, 9)]
    assert len(set(numbers)) == len(numbers)
    assert {"4.1.1", "4.1.2", "4.1.3", "4.2.1", "4.2.2", "4.2.3", "4.2.4", "4.3", "4.4", "8.1.1"} <= set(numbers)
    for number, following in itertools.pairwise(tuple(int(part) for part in number.split(".")) for number in numbers):
        assert number < following, f"{following} stands after {number}"


def test_storage_commitment_is_as_in_the_code() -> None:
    refusing = ", ".join(f"{status:04X}" for status in sorted(commitment._NEVER))
    assert f"| {refusing}; no presentation context accepted |" in STATEMENT
    section = STATEMENT.partition("##### 4.2.4.5")[2].partition("### 4.3")[0]
    statuses = re.findall(r"^\| ([0-9A-F]{4}) \|", section, re.MULTILINE)
    answered = (*(0x0000, 0x0110, 0x0112, 0x0115, 0x0123), commitment.NOT_AUTHORIZED)
    assert statuses == [f"{status:04X}" for status in answered]
    assert f"more than {commitment.MAXIMUM_REFERENCES}," in section


def _presence(data_sets: list[Dataset], path: str = "") -> dict[str, str]:
    """Every attribute of one kind of object, by its path: ALWAYS, VNAP, ANAP or EMPTY (PS3.2 annex A)."""
    found: dict[str, list[bool]] = {}
    for data_set in data_sets:
        for element in data_set:
            if element.tag.is_private:
                continue
            found.setdefault(element.keyword, []).append(not element.is_empty)
    marks = {}
    for keyword, filled in found.items():
        name = f"{path}{keyword}"
        whole = len(filled) == len(data_sets)
        marks[name] = ("ALWAYS" if all(filled) else "VNAP" if any(filled) else "EMPTY") if whole else "ANAP"
        items = [item for data_set in data_sets for item in _items(data_set, keyword)]
        if keyword != "RequestAttributesSequence" and not any("CodeValue" in item for item in items):
            marks |= _presence(items, f"{name} > ")
    return marks


def _items(data_set: Dataset, keyword: str) -> list[Dataset]:
    return list(data_set[keyword].value) if keyword in data_set and data_set[keyword].VR == "SQ" else []


def created_objects() -> dict[str, list[Dataset]]:
    """Of each kind of object one with everything that can be known, and one with as little as possible."""
    little = StudyContext(patient_id="P", study_instance_uid="2.25.1", source_sop_instance_uid="2.25.2")
    much = CONTEXT.model_copy(update={"timezone_offset_from_utc": "+0100"})
    png = BytesIO()
    Image.new("RGB", (4, 2)).save(png, "PNG")
    made: dict[str, list[Dataset]] = {"waveform": [], "report": [], "overlay": [], "rejection": []}
    beats = np.exp(-(((np.arange(5000) / 500.0) % 0.8 - 0.4) ** 2) / (2 * 0.015**2)).astype(np.float32)
    paced = replace(make_record("12x1"), signal_mv=np.tile(beats, (12, 1)))
    for context, record in ((little, make_record("12x1")), (much, make_record()), (much, paced)):
        page = make_page(
            record,
            context=context,
            layout_name="3x4",
            columns=COLUMNS,
            report_pdf=b"%PDF",
            overlay_png=png.getvalue(),
        )
        settings = ObjectSettings()
        for sop_class in SOP_CLASS_UIDS:
            made["waveform"].append(build_waveform(page, sop_class, settings))
        shown = made["waveform"][-1]
        page = replace(page, waveform_sop_class_uid=shown.SOPClassUID, waveform_sop_instance_uid=shown.SOPInstanceUID)
        made["report"].append(encapsulated_report(page, settings))
        made["overlay"].append(overlay_capture(page, settings))
        for title in (REJECTED_FOR_QUALITY, REJECTED_FOR_SAFETY):
            made["rejection"].append(
                rejection_note(made["waveform"][-1:], title, number=1, created_at=NOW, objects=settings)
            )
    return made


def test_attributes_of_created_objects_are_those_of_the_table() -> None:
    """Section 8.1.4: path, presence in waveform, report, overlay and rejection, source of the value."""
    section = STATEMENT[STATEMENT.index("8.1.4 Attributes") :]
    section = section[: section.index("\n### ")]
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in section.splitlines() if row.startswith("| `")]
    stated = {row[0].strip("`"): row[1:5] for row in rows}
    kinds = [_presence(data_sets) for data_sets in created_objects().values()]
    paths = list(dict.fromkeys(path for kind in kinds for path in kind))
    assert stated == {path: [kind.get(path, "") for kind in kinds] for path in paths}
    assert len(stated) == len(rows) > 100
    assert all(len(row) == 6 and row[5] for row in rows), "every attribute has a source"


def test_dicomweb_is_as_in_the_code() -> None:
    (row,) = [row for row in STATEMENT.splitlines() if row.startswith("| Store (STOW-RS)")]
    assert f"; {', '.join(map(str, sorted(web._NEVER)))} refuse" in row
    assert f"{', '.join(map(str, web._STORED_OR_REPORTED[:2]))} and {web._STORED_OR_REPORTED[2]} are read" in row
    assert f"pages of {web._PAGE} |" in STATEMENT
    assert f"An answer over {web.MAXIMUM_BYTES >> 20} MiB" in STATEMENT


def test_every_kind_of_object_that_leaves_is_sent_by_the_table() -> None:
    for uid in (EncapsulatedPDFStorage, SecondaryCaptureImageStorage, KeyObjectSelectionDocumentStorage):
        (row,) = [row for row in STATEMENT.splitlines() if f"| `{uid}` |" in row]
        assert row.split("|")[3].strip() == "yes"
