"""Audit messages as XML: the schema of PS3.15 A.5.1, the events of A.5.3.

A message names the event, who took part, who reports it, and what it is about.  Text is escaped, and what XML cannot
hold is replaced, so that no name breaks a message.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from xml.etree import ElementTree as ET

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Code:
    """A coded value: its code, its scheme, its meaning."""

    value: str
    scheme: str
    meaning: str


def _dcm(value: str, meaning: str) -> Code:
    return Code(value, "DCM", meaning)


APPLICATION_ACTIVITY = _dcm("110100", "Application Activity")
INSTANCES_ACCESSED = _dcm("110103", "DICOM Instances Accessed")
INSTANCES_TRANSFERRED = _dcm("110104", "DICOM Instances Transferred")
EXPORT = _dcm("110106", "Export")
IMPORT = _dcm("110107", "Import")
PATIENT_RECORD = _dcm("110110", "Patient Record")
QUERY = _dcm("110112", "Query")
SECURITY_ALERT = _dcm("110113", "Security Alert")
USER_AUTHENTICATION = _dcm("110114", "User Authentication")

START, STOP = _dcm("110120", "Application Start"), _dcm("110121", "Application Stop")
LOG_IN, LOG_OUT = _dcm("110122", "Login"), _dcm("110123", "Logout")
RESTRICTED_FUNCTION = _dcm("110132", "Use of Restricted Function")
SOFTWARE_CONFIGURATION = _dcm("110131", "Software Configuration")
USER_ATTRIBUTES = _dcm("110137", "User Security Attributes Changed")

APPLICATION, LAUNCHER = _dcm("110150", "Application"), _dcm("110151", "Application Launcher")
DESTINATION, SOURCE = _dcm("110152", "Destination Role ID"), _dcm("110153", "Source Role ID")
SOURCE_MEDIA, DESTINATION_MEDIA = _dcm("110155", "Source Media"), _dcm("110154", "Destination Media")
_STUDY = _dcm("110180", "Study Instance UID")
_SOP_CLASS = _dcm("110181", "SOP Class UID")
_NODE = _dcm("110182", "Node ID")
_PATIENT_NUMBER = Code("2", "RFC-3881", "Patient Number")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What happened.

    Parameters
    ----------
    action
        "C", "R", "U", "D" or "E": created, read, updated, deleted, executed.
    outcome
        0 success, 4 minor, 8 serious, 12 major failure.
    """

    code: Code
    action: str
    at: datetime
    outcome: int = 0
    kind: Code | None = None
    words: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """Who took part: a person, a program, a peer, or a medium."""

    user_id: str
    requestor: bool
    role: Code | None = None
    name: str = ""
    alternative_id: str = ""
    address: str = ""  # an IP address or the name of a machine
    medium: bool = False  # a folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """What it is about; built by `study`, `patient`, `query` and `node`."""

    id: str
    kind: Code
    type: str
    role: str
    name: str = ""
    query: bytes | None = None
    accession: str = ""
    instances: tuple[tuple[str, int], ...] = ()  # SOP class, number of instances
    details: tuple[tuple[str, str], ...] = ()


def study(uid: str, *, accession: str = "", instances: tuple[tuple[str, int], ...] = (), job: str = "") -> Thing:
    """Return a study; `job` is the job of ours that its ECG went through."""
    details = (("ECG gateway job", job),) if job else ()
    return Thing(id=uid, kind=_STUDY, type="2", role="3", accession=accession, instances=instances, details=details)


def patient(patient_id: str, issuer: str, name: str) -> Thing:
    """Return a patient."""
    number = f"{patient_id}^^^{issuer}" if issuer else patient_id
    return Thing(id=number, kind=_PATIENT_NUMBER, type="1", role="1", name=name)


def query(sop_class: str, keys: bytes) -> Thing:
    """Return a query: its SOP class, and what was asked."""
    return Thing(id=sop_class, kind=_SOP_CLASS, type="2", role="3", query=keys)


def node(name: str, description: str) -> Thing:
    """Return the machine that an alert is about, with what is wrong."""
    return Thing(id=name, kind=_NODE, type="2", role="13", details=(("Alert Description", description),))


def audit_message(
    event: Event, participants: Sequence[Participant], source: tuple[str, str], things: Sequence[Thing] = ()
) -> bytes:
    """Return the XML of a message.

    Parameters
    ----------
    source
        AuditSourceID and AuditEnterpriseSiteID of who reports.
    """
    root = ET.Element("AuditMessage")
    moment = event.at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    identification = _add(
        root,
        "EventIdentification",
        EventActionCode=event.action,
        EventDateTime=moment,
        EventOutcomeIndicator=str(event.outcome),
    )
    _add_code(identification, "EventID", event.code)
    if event.kind is not None:
        _add_code(identification, "EventTypeCode", event.kind)
    if event.words:
        _add(identification, "EventOutcomeDescription").text = _text(event.words)
    for each in participants:
        _add_participant(root, each)
    source_id, site_id = source
    reporter = _add(root, "AuditSourceIdentification", AuditEnterpriseSiteID=site_id, AuditSourceID=source_id)
    _add(reporter, "AuditSourceTypeCode", **{"csd-code": "4"})
    for thing in things:
        _add_thing(root, thing)
    xml: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return xml


def _add_participant(root: ET.Element, each: Participant) -> None:
    element = _add(
        root,
        "ActiveParticipant",
        UserID=each.user_id or "unknown",
        AlternativeUserID=each.alternative_id,
        UserName=each.name,
        UserIsRequestor="true" if each.requestor else "false",
        NetworkAccessPointID=each.address,
        NetworkAccessPointTypeCode=("2" if _is_ip(each.address) else "1") if each.address else "",
    )
    if each.role is not None:
        _add_code(element, "RoleIDCode", each.role)
    if each.medium:
        _add_code(_add(element, "MediaIdentifier"), "MediaType", _dcm("110037", "URI"))


def _add_thing(root: ET.Element, thing: Thing) -> None:
    element = _add(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=thing.id or "unknown",
        ParticipantObjectTypeCode=thing.type,
        ParticipantObjectTypeCodeRole=thing.role,
    )
    _add_code(element, "ParticipantObjectIDTypeCode", thing.kind)
    if thing.query is None:
        _add(element, "ParticipantObjectName").text = _text(thing.name)
    else:
        _add(element, "ParticipantObjectQuery").text = base64.b64encode(thing.query).decode()
    for kind, value in thing.details:
        encoded = base64.b64encode(value.encode()).decode()
        _add(element, "ParticipantObjectDetail", type=kind, value=encoded)
    if thing.accession or thing.instances:
        description = _add(element, "ParticipantObjectDescription")
        if thing.accession:
            _add(description, "Accession", Number=thing.accession)
        for sop_class, count in thing.instances:
            _add(description, "SOPClass", UID=sop_class, NumberOfInstances=str(count))


def _add(parent: ET.Element, name: str, **attributes: str) -> ET.Element:
    """Add an element with those of its attributes that have a value."""
    return ET.SubElement(parent, name, {key: _text(value) for key, value in attributes.items() if value})


def _add_code(parent: ET.Element, name: str, code: Code) -> None:
    _add(parent, name, **{"csd-code": code.value, "codeSystemName": code.scheme, "originalText": code.meaning})


def _text(value: str) -> str:
    return _NO_XML.sub("�", value)


def _is_ip(address: str) -> bool:
    try:
        ip_address(address)
    except ValueError:
        return False
    return True
