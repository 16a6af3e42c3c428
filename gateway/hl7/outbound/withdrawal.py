"""Withdrawal: the message about a result that a person rejected after it was sent.

It is the message that was sent, as the destination has it, without its values: a receiver finds the same patient, order
and observations (OBX-3, OBX-4), each with status X, "results cannot be obtained" (HL7 tables 0085 and 0123).
"""

from __future__ import annotations

from datetime import datetime

from gateway.domain.artefact import WITHDRAWN
from gateway.errors import DeliveryRefused
from gateway.hl7.inbound.acknowledgement import timestamp
from gateway.hl7.inbound.parsing import CODECS
from gateway.hl7.outbound.fields import escape
from gateway.hl7.outbound.mapping import set_field
from gateway.settings import Hl7CodeSettings, Hl7Destination


def build_withdrawal(
    sent: bytes, control_id: str, reason: str, at: datetime, destination: Hl7Destination, codes: Hl7CodeSettings
) -> bytes:
    """Return the message that withdraws one that was sent.

    Parameters
    ----------
    sent
        The message as it was sent, unframed.
    control_id
        MSH-10 of the withdrawal.
    reason
        Why, in words.
    at
        When the person decided, aware.

    Raises
    ------
    DeliveryRefused
        The message that was sent is not in the destination's character set.
    """
    codec = CODECS[destination.character_set]
    note = f"Withdrawn, do not use: rejected by a person ({escape(reason)})"
    try:
        segments = sent.decode(codec).rstrip("\r").split("\r")
    except UnicodeDecodeError:
        lacking = f"what was sent to {destination.name} is not in {destination.character_set}"
        raise DeliveryRefused(lacking) from None
    changed = "\r".join(_withdrawn(segment, control_id, timestamp(at), note, codes) for segment in segments) + "\r"
    return changed.encode(codec, "replace")  # only the reason is new


def _withdrawn(segment: str, control_id: str, at: str, note: str, codes: Hl7CodeSettings) -> str:
    parts = segment.split("|")
    if parts[0] == "OBX":
        return _observation(segment, parts, note, codes)
    changes: dict[tuple[int, int], str] = {
        "FHS": {(7, 0): at},
        "BHS": {(7, 0): at, (11, 0): control_id},
        "MSH": {(7, 0): at, (10, 0): control_id},
        "EVN": {(2, 0): at},
        "ORC": {(5, 0): "IP"},  # table 0038: in process, there is no result
        "OBR": {(22, 0): at, (25, 0): WITHDRAWN},
        "TXA": {(6, 0): at, (13, 0): parts[12] if len(parts) > 12 else "", (12, 1): control_id, (19, 0): "UN"},
    }.get(parts[0], {})
    for (field, component), value in changes.items():
        segment = set_field(segment, field, component, value)
    return segment


def _observation(segment: str, parts: list[str], note: str, codes: Hl7CodeSettings) -> str:
    """Return an OBX without its value; the study, whose status is O, and what names the waveform stay."""
    code, status = parts[3], parts[11] if len(parts) > 11 else ""
    if status == "O":
        return segment
    if code != codes.waveform:
        segment = set_field(segment, 5, 0, note if code == codes.note else "")
    return set_field(segment, 11, 0, WITHDRAWN)
