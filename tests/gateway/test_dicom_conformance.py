"""The conformance statement names what the code offers, answers and sends."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.dicom import scp, scu
from gateway.dicom.pages import IMAGE_TRANSFER_SYNTAXES
from gateway.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from gateway.dicom.waveform import SOP_CLASS_UIDS

STATEMENT = (Path(__file__).resolve().parents[2] / "docs" / "conformance" / "dicom.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("uid", [*IMAGE_TRANSFER_SYNTAXES, *SOP_CLASS_UIDS.values(), IMPLEMENTATION_CLASS_UID])
def test_every_uid_is_named(uid: str) -> None:
    assert f"`{uid}`" in STATEMENT


def test_transfer_syntaxes_are_in_our_order() -> None:
    positions = [STATEMENT.index(f"| `{uid}` |") for uid in IMAGE_TRANSFER_SYNTAXES]
    assert positions == sorted(positions)


def test_every_status_we_answer_is_in_the_table() -> None:
    answered = {value for name, value in vars(scp).items() if name.isupper() and isinstance(value, int)}
    answered.discard(scp.MAXIMUM_PDU_SIZE)
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
