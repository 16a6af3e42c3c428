r"""HL7 v2 content: an EcgRecord becomes an ORU^R01; any message becomes its ACK.

Results leave as ORU^R01 in version 2.5.1, 2.5 or 2.3.1; hl7apy parses and validates each one strictly before it may
go.  Nobody has confirmed what is sent: OBR-25 and every result's OBX-11 say P (preliminary).  Same inputs give the
same bytes, so a receiver recognises a resend.

What arrives is read with our own scan of the MSH, MSA and ERR segments, in bytes: a message in a version or character
set nobody here knows still gets its answer.
"""

from __future__ import annotations

import base64
import hashlib
import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.exceptions import HL7apyException
from hl7apy.parser import parse_message

from gateway.errors import DeliveryRefused, IdentityMissing
from gateway.models import StudyContext
from gateway.settings import Hl7Destination
from pipeline import EcgRecord, Quality

AckCode = Literal["AA", "AE", "AR", "CA", "CE", "CR"]
UNCONFIRMED = "Digitized from paper; unconfirmed"

_SYSTEM = "99ECGGW"  # HL7 table 0396: 99zzz marks a local coding system
_ESCAPES = str.maketrans({"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"})
_ERRORS = {  # HL7 table 0357
    "100": "Segment sequence error",
    "101": "Required field missing",
    "102": "Data type error",
    "103": "Table value not found",
    "200": "Unsupported message type",
    "201": "Unsupported event code",
    "202": "Unsupported processing id",
    "203": "Unsupported version id",
    "204": "Unknown key identifier",
    "205": "Duplicate key identifier",
    "206": "Application record locked",
    "207": "Application internal error",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The parts of an MSH segment that decide how to answer, as the bytes received."""

    field_separator: bytes
    encoding_characters: bytes  # MSH-2
    fields: tuple[bytes, ...]  # fields[n] is MSH-n; MSH-1 is the separator itself

    def field(self, number: int) -> bytes:
        """Return MSH-`number`, b"" where the segment ends earlier."""
        return self.fields[number] if number < len(self.fields) else b""

    @property
    def component_separator(self) -> bytes:
        """First of the encoding characters, b"^" where there is none."""
        return self.encoding_characters[:1] or b"^"


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """What a peer answered: MSA-1, MSA-2 and the error code of ERR, if it is a number (table 0357)."""

    code: str
    message_control_id: bytes
    error_code: str


def message_control_id(job_id: str, page_number: int, destination: str) -> str:
    """Return the MSH-10 of one page's result for one destination: always the same, 20 characters at most."""
    digest = hashlib.sha256(f"{job_id}\n{page_number}\n{destination}".encode()).digest()
    return "GW" + base64.b32encode(digest).decode("ascii")[:18]


def build_oru(
    *,
    record: EcgRecord,
    quality: Quality,
    context: StudyContext,
    study_instance_uid: str,
    waveform_sop_instance_uid: str,
    message_control_id: str,
    destination: Hl7Destination,
    doubtful: bool,
    created_at: datetime,
) -> bytes:
    """Return one page's result as an unframed ORU^R01 in UTF-8, segments ended by CR.

    Parameters
    ----------
    record, quality
        What was digitized; signals in mV, time in s.
    context
        Whose ECG it is; values in their DICOM form.
    message_control_id
        MSH-10, 1 to 20 characters, the same for every resend.
    doubtful
        True adds the quality's warnings and each lead's coverage.
    created_at
        When the result was made (aware); written in this machine's time zone.

    Raises
    ------
    IdentityMissing
        The context has no patient ID (PID-3 is required).
    DeliveryRefused
        The message would break the version's rules, e.g. a setting with more components than an HD has.

    Notes
    -----
    HL7 2.5.1 chapter 7.3.1 (ORU^R01), 2.A.89 (XPN); DICOM PS3.5 6.2 (PN, DA, TM, DT).
    """
    if not context.patient_id:
        raise IdentityMissing("no patient ID: PID-3 cannot be filled")
    if not 1 <= len(message_control_id) <= 20:
        raise ValueError(f"message_control_id must have 1 to 20 characters, got {len(message_control_id)}")
    observed_at = _observed_at(context)
    segments = [
        _msh(destination, message_control_id, created_at),
        _pid(context),
        *_orc(context, destination),
        _obr(context, destination, message_control_id, observed_at, created_at),
        _obx(1, "ST", "113014^DICOM Study^DCM", 1, study_instance_uid, "O", observed_at),
    ]
    lines = [("ST", "WAVEFORM^Waveform SOP Instance UID", waveform_sop_instance_uid), ("TX", "NOTE^Note", UNCONFIRMED)]
    lines += [("TX", "QUALITY^Digitization quality", text) for text in _quality_lines(record, quality)]
    if doubtful:
        lines += [("TX", "WARNING^Warning", text) for text in _warning_lines(quality)]
    sub_ids: dict[str, int] = {}
    for set_id, (value_type, identifier, text) in enumerate(lines, start=2):
        sub_id = sub_ids[identifier] = sub_ids.get(identifier, 0) + 1
        segments.append(_obx(set_id, value_type, f"{identifier}^{_SYSTEM}", sub_id, text, "P", observed_at))
    message = "\r".join(segments)
    _validate(message, destination)
    return (message + "\r").encode("utf-8")


def escape(text: str) -> str:
    r"""Return text as HL7 data: delimiters as \F\ \S\ \T\ \R\ \E\, control characters (CR, LF, VT, FS...) as spaces.

    HL7 2.5.1 section 2.7.1.
    """
    return re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", text).strip().translate(_ESCAPES)


def _segment(name: str, fields: dict[int, str]) -> str:
    """Join numbered fields, already escaped, into a segment; empty ones at its end are left out."""
    return "|".join([name, *(fields.get(number, "") for number in range(1, max(fields) + 1))]).rstrip("|")


def _timestamp(at: datetime) -> str:
    """Return a TS to the second with its zone (HL7 2.5.1 2.A.77), in this machine's time zone."""
    return at.astimezone().strftime("%Y%m%d%H%M%S%z")


def _hierarchic(setting: str) -> str:
    """Return an HD from a setting: a name, or name^universal ID^type."""
    return "^".join(escape(part) for part in setting.split("^"))


def _msh(destination: Hl7Destination, control_id: str, created_at: datetime) -> str:
    fields = {
        3: _hierarchic(destination.sending_application),
        4: _hierarchic(destination.sending_facility),
        5: _hierarchic(destination.receiving_application),
        6: _hierarchic(destination.receiving_facility),
        7: _timestamp(created_at),
        9: "ORU^R01^ORU_R01",
        10: escape(control_id),
        11: "P",
        12: destination.version,
        18: "UNICODE UTF-8",
    }
    return _segment("MSH", {number - 1: value for number, value in fields.items()} | {1: "^~\\&"})


def _pid(context: StudyContext) -> str:
    return _segment(
        "PID",
        {
            1: "1",
            3: f"{escape(context.patient_id)}^^^{_assigning_authority(context.issuer_of_patient_id)}^MR",
            5: _person_name(context.patient_name),
            7: _instant(context.patient_birth_date)[:8],
            8: context.patient_sex if context.patient_sex in {"M", "F", "O"} else "",
        },
    )


def _assigning_authority(issuer: str) -> str:
    """Return CX-4 from Issuer of Patient ID: a namespace, or a universal ID where it is too long for one (20)."""
    name = escape(issuer)
    if len(name) <= 20:
        return name
    return f"&{name}&{'ISO' if re.fullmatch('[0-9.]+', name) else 'L'}"


def _person_name(name: str) -> str:
    """Return a DICOM PN as XPN: family^given^middle^suffix^prefix; ideographic and phonetic groups as repetitions.

    PN orders prefix before suffix, XPN suffix before prefix.  XPN-8 names the representation (table 0465).  PID-5 may
    not be empty: a name that is not known is one of type U, unspecified (table 0200).
    """
    repetitions = []
    for group, representation in zip(name.split("="), "AIP", strict=False):
        family, given, middle, prefix, suffix = ([escape(part) for part in group.split("^")] + [""] * 5)[:5]
        parts = [family, given, middle, suffix, prefix]
        if representation != "A":
            parts += ["", "", representation]
        if any(parts[:5]):
            repetitions.append("^".join(parts).rstrip("^"))
    return "~".join(repetitions) or "^^^^^^U"


def _filler(context: StudyContext, destination: Hl7Destination) -> str:
    """Return ORC-3 / OBR-3 where the source names the order; an EI of number and our application."""
    number = context.filler_order_number or context.accession_number
    return f"{escape(number)}^{_hierarchic(destination.sending_application)}" if number else ""


def _orc(context: StudyContext, destination: Hl7Destination) -> list[str]:
    """Return the ORC where there is an order to report on: SC (status changed), A (some results available)."""
    filler = _filler(context, destination)
    if not (context.placer_order_number or filler):
        return []
    return [_segment("ORC", {1: "SC", 2: escape(context.placer_order_number), 3: filler, 5: "A"})]


def _obr(
    context: StudyContext, destination: Hl7Destination, control_id: str, observed_at: str, created_at: datetime
) -> str:
    filler = _filler(context, destination)
    return _segment(
        "OBR",
        {
            1: "1",
            2: escape(context.placer_order_number),
            3: filler or f"{escape(control_id)}^{_hierarchic(destination.sending_application)}",
            4: "11524-6^EKG study^LN",
            7: observed_at,
            18: escape(context.accession_number),
            22: _timestamp(created_at),
            24: "EC",
            25: "P",
        },
    )


def _obx(set_id: int, value_type: str, identifier: str, sub_id: int, text: str, status: str, observed_at: str) -> str:
    fields = {1: str(set_id), 2: value_type, 3: identifier, 4: str(sub_id), 5: escape(text), 11: status}
    return _segment("OBX", fields | ({14: observed_at} if observed_at else {}))


def _observed_at(context: StudyContext) -> str:
    """Return when the ECG was recorded as a TS to the second, "" where nothing says so.

    The zone is the source's; where it states none, none is invented: HL7 then takes that of MSH-7, the machine's own.
    """
    stated = context.acquisition_date_time
    if not stated and context.study_date:
        stated = context.study_date + context.study_time
    at = _instant(stated)
    zone = stated[-5:] if stated[-5:-4] in ("+", "-") else context.timezone_offset_from_utc
    return at + zone if len(at) > 8 and re.fullmatch(r"[+-]\d{4}", zone) else at


def _instant(text: str) -> str:
    """Return the date and time of a DA or DT to the second, as precise as it is; "" where it is no such instant."""
    digits = re.split(r"[.+-]", text, maxsplit=1)[0]
    if not re.fullmatch("[0-9]+", digits):
        return ""
    try:
        datetime.strptime(digits, "%Y%m%d%H%M%S"[: len(digits) - 2])
    except ValueError:
        return ""
    return digits


def _quality_lines(record: EcgRecord, quality: Quality) -> list[str]:
    """Return what was read and how well, in words."""
    calibration = record.calibration
    seconds = record.signal_mv.shape[1] / record.sampling_frequency_hz
    printed = [lead.value for lead, row in zip(record.leads, record.signal_mv, strict=True) if not np.isnan(row).all()]
    return [
        f"Estimated SNR {quality.estimated_snr_db:.1f} dB",
        f"Layout: {len(printed)} leads in {seconds:g} s ({' '.join(printed)}); layout score {quality.layout_score:.2f}",
        f"Paper speed {calibration.paper_speed_mm_per_s:g} mm/s ({calibration.speed_source}); "
        f"gain {calibration.gain_mm_per_mv:g} mm/mV ({calibration.gain_source})",
    ]


def _warning_lines(quality: Quality) -> list[str]:
    """Return why a person must look, in words."""
    coverage = ", ".join(f"{lead.value} {100 * share:.0f} %" for lead, share in quality.coverage.items())
    lines = ["Doubtful digitization: compare with the paper before use", *quality.warnings]
    return [*lines, f"Read of each printed lead: {coverage}"] if coverage else lines


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
        raise DeliveryRefused(f"ORU for {destination.name} breaks HL7 {destination.version}: {breach}") from None
    if not same:
        raise DeliveryRefused(f"ORU for {destination.name} is not HL7 {destination.version}: it reads back differently")


def scan_header(message: bytes) -> Header | None:
    """Return the MSH of a message in any version, None where there is none (HL7 2.5.1 section 2.14.9)."""
    line = re.split(rb"[\r\n]", message.lstrip(b"\xef\xbb\xbf\r\n\t \x00"), maxsplit=1)[0]
    if not line.startswith(b"MSH") or len(line) < 8:
        return None
    separator = line[3:4]
    parts = line.split(separator)
    return Header(field_separator=separator, encoding_characters=parts[1], fields=(parts[0], separator, *parts[1:]))


def scan_acknowledgement(message: bytes) -> Acknowledgement | None:
    """Return the MSA and ERR of an answer in any version, None where it is no acknowledgement."""
    header = scan_header(message)
    if header is None:
        return None
    segments = [line.split(header.field_separator) for line in re.split(rb"[\r\n]+", message)]
    msa = next((fields for fields in segments if fields[0] == b"MSA" and len(fields) > 2), None)
    if msa is None:
        return None
    err = next((fields for fields in segments if fields[0] == b"ERR"), [])
    found = re.search(rb"\b\d{3}\b", err[3] if len(err) > 3 else b"".join(err[1:2]))
    return Acknowledgement(
        code=msa[1].decode("ascii", "replace"),
        message_control_id=msa[2],
        error_code=found.group().decode("ascii") if found else "",
    )


def build_ack(message: bytes, code: AckCode, *, error_code: str = "207", created_at: datetime | None = None) -> bytes:
    """Return the ACK to any message in its own delimiters and version; codes other than AA and CA add an ERR.

    Parameters
    ----------
    message
        As received, unframed; where it has no MSH the answer has the default delimiters, version 2.5.1 and an
        empty MSA-2.
    code
        MSA-1 (HL7 table 0008).
    error_code
        ERR-3 (HL7 table 0357), written unless the code is AA or CA.
    created_at
        MSH-7; None: now.

    Notes
    -----
    HL7 2.5.1 sections 2.9.2 and 2.14.8; ERR has another shape before version 2.5.
    """
    header = scan_header(message) or Header(field_separator=b"|", encoding_characters=b"^~\\&", fields=())
    component = header.component_separator
    version = header.field(12) or b"2.5.1"
    trigger = header.field(9).split(component)[1:2]
    fields = [
        b"MSH",
        header.encoding_characters,
        *(header.field(number) for number in (5, 6, 3, 4)),
        _timestamp(created_at or datetime.now(UTC)).encode("ascii"),
        b"",
        component.join([b"ACK", *trigger, b"ACK"] if trigger else [b"ACK"]),
        b"A" + uuid.uuid4().hex[:19].encode("ascii"),
        header.field(11) or b"P",
        version,
    ]
    if header.field(18):
        fields += [b""] * 5 + [header.field(18)]
    segments = [fields, [b"MSA", code.encode("ascii"), header.field(10)]]
    if code not in ("AA", "CA"):
        coded = [error_code.encode("ascii"), _ERRORS[error_code].encode("ascii"), b"HL70357"]
        if version.split(component)[0] < b"2.5":
            sub_component = header.encoding_characters[3:4] or b"&"
            segments.append([b"ERR", component * 3 + sub_component.join(coded)])
        else:
            segments.append([b"ERR", b"", b"", component.join(coded), b"E"])
    return b"".join(header.field_separator.join(segment) + b"\r" for segment in segments)
