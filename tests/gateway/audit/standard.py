"""What PS3.15 A.5.1 (the schema) and A.5.3 (each event's own table) require of an audit message, as data."""

from __future__ import annotations

import base64
import binascii
import re
from collections import Counter
from datetime import datetime
from xml.etree import ElementTree as ET

_CODED = ({"csd-code", "codeSystemName", "originalText"}, {"displayName"}, [])
# Of each element: attributes that must be, attributes that may be, its children in order with how often each may be.
SCHEMA: dict[str, tuple[set[str], set[str], list[tuple[str, int, int]]]] = {
    "AuditMessage": (
        set(),
        set(),
        [
            ("EventIdentification", 1, 1),
            ("ActiveParticipant", 1, 99),
            ("AuditSourceIdentification", 1, 1),
            ("ParticipantObjectIdentification", 0, 99),
        ],
    ),
    "EventIdentification": (
        {"EventDateTime", "EventOutcomeIndicator"},
        {"EventActionCode"},
        [("EventID", 1, 1), ("EventTypeCode", 0, 99), ("EventOutcomeDescription", 0, 1)],
    ),
    "EventID": _CODED,
    "EventTypeCode": _CODED,
    "EventOutcomeDescription": (set(), set(), []),
    "ActiveParticipant": (
        {"UserID", "UserIsRequestor"},
        {"AlternativeUserID", "UserName", "NetworkAccessPointID", "NetworkAccessPointTypeCode"},
        [("RoleIDCode", 0, 99), ("MediaIdentifier", 0, 1)],
    ),
    "RoleIDCode": _CODED,
    "MediaIdentifier": (set(), set(), [("MediaType", 1, 1)]),
    "MediaType": _CODED,
    "AuditSourceIdentification": (
        {"AuditSourceID"}, {"AuditEnterpriseSiteID"}, [("AuditSourceTypeCode", 0, 99)],
    ),
    "AuditSourceTypeCode": ({"csd-code"}, {"codeSystemName", "originalText", "displayName"}, []),
    "ParticipantObjectIdentification": (
        {"ParticipantObjectID"},
        {
            "ParticipantObjectTypeCode",
            "ParticipantObjectTypeCodeRole",
            "ParticipantObjectDataLifeCycle",
            "ParticipantObjectSensitivity",
        },
        [
            ("ParticipantObjectIDTypeCode", 1, 1),
            ("ParticipantObjectName", 0, 1),  # this or the next, and one of them
            ("ParticipantObjectQuery", 0, 1),
            ("ParticipantObjectDetail", 0, 99),
            ("ParticipantObjectDescription", 0, 99),
        ],
    ),
    "ParticipantObjectIDTypeCode": _CODED,
    "ParticipantObjectName": (set(), set(), []),
    "ParticipantObjectQuery": (set(), set(), []),
    "ParticipantObjectDetail": ({"type", "value"}, set(), []),
    "ParticipantObjectDescription": (set(), set(), [("Accession", 0, 99), ("SOPClass", 0, 99)]),
    "Accession": ({"Number"}, set(), []),
    "SOPClass": ({"NumberOfInstances"}, {"UID"}, []),
}  # fmt: skip
VALUES = {
    "EventActionCode": set("CRUDE"),
    "EventOutcomeIndicator": {"0", "4", "8", "12"},
    "UserIsRequestor": {"true", "false", "0", "1"},
    "NetworkAccessPointTypeCode": set("12345"),
    "ParticipantObjectTypeCode": set("1234"),
    "ParticipantObjectTypeCodeRole": {str(number) for number in range(1, 27)},
}
# Of each event: allowed actions, allowed types (None: any), roles that must take part, objects that must be there.
EVENTS: dict[str, tuple[str, set[str] | None, set[str], set[str]]] = {
    "110100": ("E", {"110120", "110121"}, {"110150"}, set()),
    "110103": ("CRUD", None, set(), {"110180", "2"}),
    "110104": ("CR", None, {"110152", "110153"}, {"110180", "2"}),
    "110106": ("R", None, set(), {"110180", "2"}),
    "110107": ("C", None, {"110155"}, {"110180", "2"}),
    "110110": ("CRUD", None, set(), {"2"}),
    "110112": ("E", None, {"110152", "110153"}, {"110181"}),
    "110113": ("E", {"110126", "110132", "110137"}, set(), {"110182"}),
    "110114": ("E", {"110122", "110123"}, set(), set()),
}


def problems(xml: bytes) -> list[str]:
    """Return where a message differs from the standard; empty where it does not."""
    root = ET.fromstring(xml)
    found = [] if root.tag == "AuditMessage" else [f"the root is {root.tag}"]
    for element in root.iter():
        found += _element(element)
    return found or _event(root)


def _element(element: ET.Element) -> list[str]:
    if element.tag not in SCHEMA:
        return [f"{element.tag} is not in the schema"]
    needed, optional, children = SCHEMA[element.tag]
    found = [f"{element.tag} lacks {name}" for name in needed - set(element.attrib)]
    found += [f"{element.tag} has {name}" for name in set(element.attrib) - needed - optional]
    found += [
        f"{name} = {element.attrib[name]}"
        for name, values in VALUES.items()
        if name in element.attrib and element.attrib[name] not in values
    ]
    names = [child.tag for child in element]
    order = [name for name, _, _ in children]
    if any(name not in order for name in names):
        return [*found, f"{element.tag} contains {names}"]
    if sorted(names, key=order.index) != names:
        found.append(f"{element.tag} has {names} in another order")
    counts = Counter(names)
    for name, least, most in children:
        if not least <= counts[name] <= most:
            found.append(f"{element.tag} has {counts[name]} {name}")
    if element.tag == "ParticipantObjectIdentification":
        if counts["ParticipantObjectName"] + counts["ParticipantObjectQuery"] != 1:
            found.append("neither a name nor a query, or both")
    return found + _types(element)


def _types(element: ET.Element) -> list[str]:
    """Return what is no date-time with a zone, no base64, no UID."""
    found = []
    moment = element.attrib.get("EventDateTime")
    if moment is not None and datetime.fromisoformat(moment).tzinfo is None:
        found.append(f"{moment} has no time zone")
    encoded = element.text if element.tag == "ParticipantObjectQuery" else element.attrib.get("value")
    if encoded is not None:
        try:
            base64.b64decode(encoded, validate=True)
        except binascii.Error:
            found.append(f"{encoded} is no base64")
    if "UID" in element.attrib and not re.fullmatch(r"[0-2](\.(0|[1-9]\d*))+", element.attrib["UID"]):
        found.append(f"{element.attrib['UID']} is no UID")
    return found


def _event(root: ET.Element) -> list[str]:
    event = root.find("EventIdentification")
    assert event is not None
    code = event.find("EventID").attrib["csd-code"]
    if code not in EVENTS:
        return [f"event {code}"]
    actions, kinds, roles, objects = EVENTS[code]
    found = [] if event.attrib["EventActionCode"] in actions else [f"action {event.attrib['EventActionCode']}"]
    if kinds is not None and event.find("EventTypeCode").attrib["csd-code"] not in kinds:
        found.append("another type")
    present = {role.attrib["csd-code"] for role in root.iterfind("ActiveParticipant/RoleIDCode")}
    found += [f"nobody has the role {role}" for role in roles - present]
    about = {
        kind.attrib["csd-code"] for kind in root.iterfind("ParticipantObjectIdentification/ParticipantObjectIDTypeCode")
    }
    found += [f"there is no object {kind}" for kind in objects - about]
    requestors = [each for each in root.iterfind("ActiveParticipant") if each.attrib["UserIsRequestor"] == "true"]
    if len(requestors) > 1:
        found.append("several requestors")
    return found
