"""The conformance statement names what the code offers, answers and sends."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import get_args

import pytest
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from gateway.certificates import EXPIRY_WARNING
from gateway.dicom import commitment, receive, scp, scu
from gateway.dicom.pages import IMAGE_TRANSFER_SYNTAXES
from gateway.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from gateway.dicom.waveform import SOP_CLASS_UIDS
from gateway.settings import DicomSettings, DicomTlsSettings, TlsClientSettings, TlsSettings
from gateway.tls import CIPHER_SUITES, client_context

STATEMENT = (Path(__file__).resolve().parents[2] / "docs" / "conformance" / "dicom.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("uid", [*IMAGE_TRANSFER_SYNTAXES, *SOP_CLASS_UIDS.values(), IMPLEMENTATION_CLASS_UID])
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


@pytest.mark.parametrize("uid", [Verification, StudyRootQueryRetrieveInformationModelFind, StorageCommitmentPushModel])
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
