"""Values of resources: DICOM's forms in FHIR's types, codes, identifiers and references."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from gateway.dicom.objects.uids import is_uid
from gateway.domain.context import StudyContext
from gateway.domain.digitized_page import DigitizedPage

LOINC = "http://loinc.org"
MDC = "urn:iso:std:iso:11073:10101"
UCUM = "http://unitsofmeasure.org"
TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
URI = "urn:ietf:rfc:3986"  # the system of an identifier that is a URI
DICOM_UID = "urn:dicom:uid"
_UNKNOWN = {"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}
_GENDERS = {"M": "male", "F": "female", "O": "other"}

Json = dict[str, Any]


def resource_id(*parts: str) -> str:
    """Return the UUID that belongs to `parts`; the same parts always give the same one."""
    return str(uuid.UUID(bytes=hashlib.sha256("\x1f".join(("fhir", *parts)).encode()).digest()[:16], version=4))


def concept(system: str, code: str, display: str) -> Json:
    """Return a CodeableConcept of one code."""
    return {"coding": [{"system": system, "code": code, "display": display}]}


def identifier(value: str, system: str = "", kind: str = "") -> Json:
    """Return an Identifier; `kind` is a code of HL7 table 0203."""
    made: Json = {"type": {"coding": [{"system": f"{TERMINOLOGY}/v2-0203", "code": kind}]}} if kind else {}
    return made | ({"system": system} if system else {}) | {"value": text(value)}


def uid_identifier(uid: str) -> Json:
    """Return a DICOM UID as an Identifier (FHIR R4 section ImagingStudy, 8.15.4)."""
    return identifier(f"urn:oid:{uid}", DICOM_UID)


def text(value: str) -> str:
    """Return a text without control characters and space around it: FHIR's string has neither."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", value).strip()


def query(parameter: str, system: str, value: str) -> str:
    """Return the search that finds what has one identifier or tag (FHIR R4 section 3.1.1.4.6, escaped as in .17)."""
    token = "|".join(re.sub(r"([\\,|$])", r"\\\1", part) for part in (system, value))
    return f"{parameter}={quote(token, safe='')}"


def date(da: str) -> str | None:
    """Return a DA as a date; None where it is none."""
    try:
        return datetime.strptime(da.strip(), "%Y%m%d").date().isoformat()
    except ValueError:
        return None


def effective(page: DigitizedPage) -> Json:
    """Return when the ECG was recorded as `effectiveDateTime`, or that this is not known.

    A time of day needs a zone: that of the source, else the gateway's own.  Without minutes the day stands alone.
    """
    found = _date_time(page.recorded.at, page.context.timezone_offset_from_utc)
    if found is None:
        return {"_effectiveDateTime": {"extension": [_UNKNOWN]}}
    return {"effectiveDateTime": found}


def _date_time(dt: str, offset: str) -> str | None:
    match = re.fullmatch(r"(\d{4,14})(?:\.\d{1,6})?([+-]\d{4})?\s*", dt)
    if match is None:
        return None
    digits, zone = match[1], match[2] or offset.strip()
    try:
        if len(digits) < 12:
            day = digits[:8]
            form = {4: "%Y", 6: "%Y-%m", 8: "%Y-%m-%d"}[len(day)]
            return datetime.strptime(day, form.replace("-", "")).strftime(form)
        stated = datetime.strptime(digits.ljust(14, "0"), "%Y%m%d%H%M%S")
        if re.fullmatch(r"[+-]\d{4}", zone):
            return datetime.strptime(f"{stated:%Y%m%d%H%M%S}{zone}", "%Y%m%d%H%M%S%z").isoformat()
        return stated.astimezone().isoformat()
    except (KeyError, ValueError, OverflowError):
        return None


def instant(at: datetime) -> str:
    """Return an aware time as an instant."""
    return at.isoformat(timespec="seconds")


def patient_identifier(context: StudyContext, systems: Mapping[str, str], default: str) -> Json | None:
    """Return the patient ID with the system of its issuer; None where that issuer has none.

    Parameters
    ----------
    systems
        Issuer -> system.
    default
        Of an ID without an issuer; "" = none.
    """
    issuer = context.issuer_of_patient_id
    own = f"urn:oid:{issuer}" if is_uid(issuer) else ""  # it is a universal ID
    system = systems.get(issuer, own) if issuer else default
    if issuer and not system:
        return None
    return identifier(context.patient_id, system, "MR")


def patient(context: StudyContext, identified: Json) -> Json:
    """Return the Patient of a page: identifier, name, birth date, gender, as far as they are known."""
    found: Json = {"resourceType": "Patient", "identifier": [identified]}
    if names := [name for group in context.patient_name.split("=")[:3] if (name := _human_name(group))]:
        found["name"] = names
    if born := date(context.patient_birth_date):
        found["birthDate"] = born
    if gender := _GENDERS.get(context.patient_sex):
        found["gender"] = gender
    return found


def _human_name(group: str) -> Json:
    """Return one group of a PN as a HumanName; empty where it says nothing."""
    family, given, middle, prefix, suffix = ([text(part) for part in group.split("^")] + [""] * 5)[:5]
    parts = {
        "family": family,
        "given": [part for part in (given, middle) if part],
        "prefix": [prefix] if prefix else [],
        "suffix": [suffix] if suffix else [],
    }
    return {key: value for key, value in parts.items() if value}
