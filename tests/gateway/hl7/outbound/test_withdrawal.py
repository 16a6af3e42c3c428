"""The withdrawal of a message: valid as the message was, with its patient and without its values."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message

from gateway.errors import DeliveryRefused
from gateway.hl7.outbound.withdrawal import build_withdrawal
from gateway.settings import Hl7CodeSettings, Hl7Destination
from tests.gateway.hl7.outbound.test_messages import built, segments

AT = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)


def withdrawn(sent: bytes, reason: str = "smudged", **destination: Any) -> bytes:
    receiver = Hl7Destination(name="ehr", host="h", port=1, **destination)
    return build_withdrawal(sent, "GWXYZ", reason, AT, receiver, Hl7CodeSettings())


@pytest.mark.parametrize("kind", ["ORU^R01", "MDM^T02"])
@pytest.mark.parametrize("version", ["2.3.1", "2.5", "2.5.1"])
def test_withdrawal_is_valid_in_its_version(version: str, kind: str) -> None:
    sent = built(destination={"version": version, "message": kind, "report": "embed"}, report_pdf=b"%PDF-1.4")
    message = withdrawn(sent, version=version, message=kind)
    parsed = parse_message(message.decode().rstrip("\r"), validation_level=VALIDATION_LEVEL.STRICT, find_groups=True)
    parsed.validate()
    assert parsed.to_er7() == message.decode().rstrip("\r")
    assert segments(message, "MSH")[0][10] == "GWXYZ" and b"GWABC" not in message.split(b"PID")[0]
    assert segments(message, "PID") == segments(sent, "PID")
    before, after = segments(sent, "OBX"), segments(message, "OBX")
    assert [each[1:5] for each in after] == [each[1:5] for each in before]
    assert [each[11] for each in after] == ["O"] + ["X"] * (len(before) - 1)
    kept = [each[5] for each in after if each[5]]
    assert kept == ["1.2.3", "2.25.99", "Withdrawn, do not use: rejected by a person (smudged)"]
    if kind == "MDM^T02":
        (txa,) = segments(message, "TXA")
        assert (txa[12], txa[13], txa[19]) == ("GWXYZ^ECGGW", "GWABC^ECGGW", "UN")
    else:
        assert segments(message, "OBR")[0][25] == "X" and segments(message, "ORC")[0][5] == "IP"


def test_withdrawal_of_a_batch_is_a_batch_with_its_number() -> None:
    message = withdrawn(built(destination={"batch": True}), batch=True).decode()
    lines = message.split("\r")
    assert [line[:3] for line in lines[:3]] == ["FHS", "BHS", "MSH"] and lines[1].endswith("|GWXYZ")
    assert lines[0].split("|")[6] == lines[2].split("|")[6]  # the moment


def test_reason_cannot_break_out_of_its_field_and_keeps_to_the_character_set() -> None:
    sent = built(destination={"character_set": "8859/1"})
    message = withdrawn(sent, "a|b\rOBX|9 Ж", character_set="8859/1").decode("latin-1")
    assert "(a\\F\\b OBX\\F\\9 ?)" in message
    assert message.count("\rOBX|") == sent.count(b"\rOBX|")


def test_message_in_another_character_set_is_not_withdrawn_by_guesses() -> None:
    with pytest.raises(DeliveryRefused, match="not in UNICODE UTF-8"):
        withdrawn("PID|1||P1||Müster\r".encode("latin-1"))
