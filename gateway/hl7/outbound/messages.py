r"""Results as HL7 v2 messages: a DigitizedPage becomes an ORU^R01, or an MDM^T02 where the receiver files documents.

Versions 2.5.1, 2.5 and 2.3.1; hl7apy parses and validates each message strictly before the destination's own mapping
is applied and it may go.  OBR-25 and every result's OBX-11 say P (preliminary) until a person has confirmed the result,
then F (final), and C (correction) where another result was sent before.  Same inputs give the same bytes, so a
receiver recognises a resend.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, replace
from typing import Literal

from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.exceptions import HL7apyException
from hl7apy.parser import parse_message

from gateway.domain.context import StudyContext
from gateway.domain.digitized_page import DigitizedPage
from gateway.domain.recorded import Origin
from gateway.errors import DeliveryRefused, IdentityMissing
from gateway.hl7.inbound.acknowledgement import timestamp
from gateway.hl7.inbound.parsing import CODECS
from gateway.hl7.outbound.fields import (
    assigning_authority,
    entity,
    escape,
    hierarchic,
    instant,
    observed_at,
    person_name,
    segment,
)
from gateway.hl7.outbound.mapping import apply_mapping, fill_template
from gateway.settings import Hl7CodeSettings, Hl7Destination

_PER_MINUTE = "/min^^UCUM"
ResultStatus = Literal["P", "F", "C"]  # HL7 tables 0085 and 0123


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class PageMessage:
    """What one message says: one page, and where the message stands among those about it.

    Parameters
    ----------
    page : DigitizedPage
        What is reported; its context needs a patient ID, its `created_at` is written in this machine's time zone.
    message_control_id : str
        MSH-10, 1 to 20 characters, the same for every resend.
    status : "P", "F" or "C"
        HL7 table 0123.
    replaces : str
        MSH-10 of the message about the page that the destination had before, "" for the first.
    """

    page: DigitizedPage
    message_control_id: str
    status: ResultStatus = "P"
    replaces: str = ""

    @property
    def note(self) -> str:
        """What a reader must know, in words."""
        corrected = "; corrected" if self.status == "C" else ""
        recorded = self.page.recorded
        dated = (
            f"; time of recording {recorded.words}" if recorded.origin is Origin.PRINTED or recorded.other_print else ""
        )
        return (
            f"Digitized from paper{corrected}; {'confirmed by a person' if self.page.final else 'unconfirmed'}{dated}"
        )


def message_control_id(job_id: str, page_number: int, destination: str, variant: str = "") -> str:
    """Return the MSH-10 of one page's result for one destination: always the same, 20 characters at most.

    `variant` tells the messages about one page apart: "" is the first.
    """
    key = "\n".join((job_id, str(page_number), destination, *([variant] if variant else [])))
    return "GW" + base64.b32encode(hashlib.sha256(key.encode()).digest()).decode("ascii")[:18]


def build_message(message: PageMessage, destination: Hl7Destination, codes: Hl7CodeSettings) -> bytes:
    """Return one page's result as an unframed message in the destination's character set, segments ended by CR.

    Raises
    ------
    IdentityMissing
        The context has no patient ID (PID-3 is required).
    DeliveryRefused
        The message would break the version's rules, e.g. a setting with more components than an HD has, or has
        characters that the character set lacks.

    Notes
    -----
    HL7 2.5.1 chapters 7.3.1 (ORU^R01), 9.6.2 (MDM^T02), 2.A.89 (XPN), 2.10.3 (batch); DICOM PS3.5 6.2 (PN, DA, TM, DT).
    """
    if not message.page.context.patient_id:
        raise IdentityMissing("no patient ID: PID-3 cannot be filled")
    if not 1 <= len(message.message_control_id) <= 20:
        raise ValueError(f"message_control_id must have 1 to 20 characters, got {len(message.message_control_id)}")
    # hl7apy's tables end a field at 64 KiB, which receivers do not: the report's beginning stands for it
    sample = replace(message, page=replace(message.page, report_pdf=message.page.report_pdf[:48]))
    _validate("\r".join(_segments(sample, destination, codes)), destination)
    segments = apply_mapping(_segments(message, destination, codes), destination.fields, _values(message))
    if destination.batch:
        segments = _batch(segments, message, destination)
    try:
        return ("\r".join(segments) + "\r").encode(CODECS[destination.character_set])
    except UnicodeEncodeError:
        lacking = f"{destination.name}: the message has characters that {destination.character_set} lacks"
        raise DeliveryRefused(lacking) from None


def _segments(message: PageMessage, destination: Hl7Destination, codes: Hl7CodeSettings) -> list[str]:
    body = _oru if destination.message == "ORU^R01" else _mdm
    return [_msh(message, destination), *body(message, destination, codes)]


def _values(message: PageMessage) -> dict[str, str]:
    """Return what a template may name (`gateway.settings.HL7_PLACEHOLDERS`)."""
    recorded = message.page.recorded
    known = recorded.origin in (Origin.STATED, Origin.PRINTED)
    return message.page.context.model_dump() | {
        "acquisition_date_time": recorded.at if known else "",
        "message_control_id": message.message_control_id,
        "result_status": message.status,
        "waveform_sop_instance_uid": message.page.waveform_sop_instance_uid,
    }


def _oru(message: PageMessage, destination: Hl7Destination, codes: Hl7CodeSettings) -> list[str]:
    pid, orc = _pid(message, destination), _orc(message, destination)
    return [pid, *orc, _obr(message, destination, codes), *_observations(message, destination, codes)]


def _mdm(message: PageMessage, destination: Hl7Destination, codes: Hl7CodeSettings) -> list[str]:
    """Return EVN, PID, PV1, TXA and the OBX of a document notification."""
    context, created_at = message.page.context, timestamp(message.page.created_at)
    embeds = destination.report == "embed" and bool(message.page.report_pdf)
    txa = {
        1: "1",
        2: "CD",  # table 0270: cardiodiagnostics
        3: "AP" if embeds else "TX",
        4: observed_at(message.page),
        6: created_at,
        12: f"{escape(message.message_control_id)}^{hierarchic(destination.sending_application)}",
        13: f"{escape(message.replaces)}^{hierarchic(destination.sending_application)}" if message.replaces else "",
        14: _placer(context),
        15: _filler(context, destination),
        17: "AU" if message.page.final else "PA",  # table 0271: authenticated, pre-authenticated
        19: "AV",
    }
    return [
        segment("EVN", {1: "T02", 2: created_at}),
        _pid(message, destination),
        segment("PV1", {1: "1", 2: "U"}),
        segment("TXA", txa),
        *_observations(message, destination, codes),
    ]


def _msh(message: PageMessage, destination: Hl7Destination) -> str:
    multi_byte = destination.character_set in ("ISO IR87", "ISO IR159")  # ASCII, and code extension by ISO 2022
    fields = {
        3: hierarchic(destination.sending_application),
        4: hierarchic(destination.sending_facility),
        5: hierarchic(destination.receiving_application),
        6: hierarchic(destination.receiving_facility),
        7: timestamp(message.page.created_at),
        9: "ORU^R01^ORU_R01" if destination.message == "ORU^R01" else "MDM^T02^MDM_T02",
        10: escape(message.message_control_id),
        11: "P",
        12: destination.version,
        18: f"ASCII~{destination.character_set}" if multi_byte else destination.character_set,
        20: "ISO 2022-1994" if multi_byte else "",
    }
    return segment("MSH", {number - 1: value for number, value in fields.items()} | {1: "^~\\&"})


def _pid(message: PageMessage, destination: Hl7Destination) -> str:
    context = message.page.context
    return segment(
        "PID",
        {
            1: "1",
            3: f"{escape(context.patient_id)}^^^{assigning_authority(context.issuer_of_patient_id)}^MR",
            5: person_name(context.patient_name, destination.character_set),
            7: instant(context.patient_birth_date)[:8],
            8: context.patient_sex if context.patient_sex in {"M", "F", "O"} else "",
        },
    )


def _placer(context: StudyContext) -> str:
    """Return ORC-2 / OBR-2 as it was ordered: a receiver finds its order by number and issuer."""
    return entity(context.placer_order_number, context.placer_order_issuer)


def _filler(context: StudyContext, destination: Hl7Destination) -> str:
    """Return ORC-3 / OBR-3 where the source names the order: as it was given, else the accession number as ours."""
    if context.filler_order_number:
        return entity(context.filler_order_number, context.filler_order_issuer)
    number = context.accession_number
    return f"{escape(number)}^{hierarchic(destination.sending_application)}" if number else ""


def _orc(message: PageMessage, destination: Hl7Destination) -> list[str]:
    """Return the ORC where there is an order to report on: SC (status changed), A (some results) or CM (completed)."""
    context = message.page.context
    filler = _filler(context, destination)
    if not (context.placer_order_number or filler):
        return []
    state = "CM" if message.page.final else "A"
    return [segment("ORC", {1: "SC", 2: _placer(context), 3: filler, 5: state})]


def _obr(message: PageMessage, destination: Hl7Destination, codes: Hl7CodeSettings) -> str:
    context = message.page.context
    own = f"{escape(message.message_control_id)}^{hierarchic(destination.sending_application)}"
    return segment(
        "OBR",
        {
            1: "1",
            2: _placer(context),
            3: _filler(context, destination) or own,
            4: codes.study,
            7: observed_at(message.page),
            18: escape(context.accession_number),
            22: timestamp(message.page.created_at),
            24: "EC",
            25: message.status,
        },
    )


def _observations(message: PageMessage, destination: Hl7Destination, codes: Hl7CodeSettings) -> list[str]:
    """Return every OBX; OBX-4 numbers those of the same OBX-3."""
    status = message.status
    rows: list[tuple[str, str, str, str]] = [  # OBX-2, OBX-3, OBX-5 (escaped), OBX-11
        ("ST", codes.dicom_study, escape(message.page.context.study_instance_uid), "O"),
        ("ST", codes.waveform, escape(message.page.waveform_sop_instance_uid), status),
    ]
    rate = message.page.heart_rate_per_minute
    if rate is not None:
        rows.append(("NM", codes.heart_rate, f"{rate:.0f}", status))
    if destination.report == "embed" and message.page.report_pdf:
        rows.append(
            (
                "ED",
                codes.report,
                f"^application^pdf^Base64^{base64.b64encode(message.page.report_pdf).decode()}",
                status,
            )
        )
    if destination.report == "link":
        address = escape(fill_template(destination.report_url, _values(message), url=True))
        rows.append(("RP", codes.report, f"{address}^^application^pdf", status))
    texts = [(codes.note, message.note)]
    texts += [(codes.quality, text) for text in (*message.page.quality_words, *message.page.by_person)]
    texts += [(codes.warning, text) for text in (*message.page.left_out_words, *message.page.warning_words)]
    rows += [("TX", code, escape(text), status) for code, text in texts]
    at = observed_at(message.page)
    sub_ids: dict[str, int] = {}
    observations = []
    for set_id, (value_type, code, value, row_status) in enumerate(rows, start=1):
        sub_id = sub_ids[code] = sub_ids.get(code, 0) + 1
        fields = {1: str(set_id), 2: value_type, 3: code, 4: str(sub_id), 5: value, 11: row_status, 14: at}
        if value_type == "NM":
            fields[6] = _PER_MINUTE
        observations.append(segment("OBX", fields))
    return observations


def _batch(segments: list[str], message: PageMessage, destination: Hl7Destination) -> list[str]:
    """Put one message into a batch and a file of its own (HL7 2.5.1 section 2.10.3)."""
    msh = segments[0].split("|")
    head = "|".join(["", *msh[1:7]])
    control_id = escape(message.message_control_id)
    return [f"FHS{head}", f"BHS{head}||||{control_id}", *segments, "BTS|1", "FTS|1"]


def _validate(message: str, destination: Hl7Destination) -> None:
    """Raise DeliveryRefused unless hl7apy accepts the message and writes it back as it is.

    hl7apy quotes the offending value, which may be a patient's: its message is not passed on.
    """
    try:
        parsed = parse_message(message, validation_level=VALIDATION_LEVEL.STRICT, find_groups=True)
        parsed.validate()
        same = parsed.to_er7() == message
    except (HL7apyException, ValueError) as error:
        breach = type(error).__name__
        what = destination.message.partition("^")[0]
        raise DeliveryRefused(f"{what} for {destination.name} breaks HL7 {destination.version}: {breach}") from None
    if not same:
        raise DeliveryRefused(
            f"message for {destination.name} is not HL7 {destination.version}: it reads back otherwise"
        )
