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
from datetime import datetime

import numpy as np
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.exceptions import HL7apyException
from hl7apy.parser import parse_message

from gateway.errors import DeliveryRefused, IdentityMissing
from gateway.hl7.acks import timestamp
from gateway.models import StudyContext
from gateway.settings import Hl7Destination
from pipeline import EcgRecord, Quality

UNCONFIRMED = "Digitized from paper; unconfirmed"

_SYSTEM = "99ECGGW"  # HL7 table 0396: 99zzz marks a local coding system
_ESCAPES = str.maketrans({"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"})


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


def _hierarchic(setting: str) -> str:
    """Return an HD from a setting: a name, or name^universal ID^type."""
    return "^".join(escape(part) for part in setting.split("^"))


def _msh(destination: Hl7Destination, control_id: str, created_at: datetime) -> str:
    fields = {
        3: _hierarchic(destination.sending_application),
        4: _hierarchic(destination.sending_facility),
        5: _hierarchic(destination.receiving_application),
        6: _hierarchic(destination.receiving_facility),
        7: timestamp(created_at),
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
            22: timestamp(created_at),
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
