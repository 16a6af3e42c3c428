"""What an inbound message says: ADT and orders become patient and order updates in DICOM's forms.

Taken are ADT^A01, A04, A05, A08, A28 and A31 (a patient), A34, A35, A36 and A40 (a merge), and ORM^O01, OMG^O19 and
OMI^O23 (orders).  An empty field says nothing; a field `""` says that there is no value (HL7 2.5.1 section
2.5.3).  Anything else is refused with the code of HL7 table 0357 that says why.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import TypeVar

from gateway.dicom.objects.forms import broken_rule
from gateway.dicom.objects.uids import is_uid
from gateway.domain.patients import OrderUpdate, PatientData, PatientMerge, PatientUpdate
from gateway.hl7.inbound.acknowledgement import Problem
from gateway.hl7.inbound.parsing import Message, Segment

PATIENT_EVENTS = ("A01", "A04", "A05", "A08", "A28", "A31")
MERGE_EVENTS = ("A34", "A35", "A36", "A40")
NOT_TAKEN = ("200", "201")  # table 0357: message type, event
ORDER_MESSAGES = {"ORM": "O01", "OMG": "O19", "OMI": "O23"}

_NULL = '""'
_SEXES = {"M": "M", "F": "F", "O": "O", "A": "O", "N": "O", "U": ""}  # table 0001 -> DICOM PatientSex
_CANCELLED = ("CA", "OC", "DC", "OD", "CR", "DR")  # ORC-1, table 0119


Place = tuple[Segment | str, int]  # a segment, or the name of the only one, and the number of its field; 0: all of it


class MessageRejected(Exception):
    """The message cannot be used; `code` is AE or AR, `problem` says why."""

    def __init__(self, code: str, error_code: str, words: str, place: Place | None = None) -> None:
        super().__init__(words)
        self.code = code
        segment, field = place or ("", 0)
        name, sequence = (segment, 1) if isinstance(segment, str) else (segment.name, segment.ordinal)
        self.problem = Problem(error_code=error_code, words=words, segment=name, sequence=sequence, field=field)


def check_kind(message: Message) -> None:
    """Raise MessageRejected (AR) for a message or event that is not taken; the MSH decides."""
    code, event = message.kind
    if code == "ADT":
        if event not in (*PATIENT_EVENTS, *MERGE_EVENTS):
            raise MessageRejected("AR", "201", "event not taken", ("MSH", 9))
    elif code not in ORDER_MESSAGES:
        raise MessageRejected("AR", "200", "message type not taken", ("MSH", 9))
    elif event not in ("", ORDER_MESSAGES[code]):
        raise MessageRejected("AR", "201", "event not taken", ("MSH", 9))


def read_updates(message: Message) -> list[PatientData]:
    """Return what a message says, in its order.

    Raises
    ------
    MessageRejected
        AR for a message or event that is not taken or has too much for one message, AE for one that lacks what it
        needs.
    """
    check_kind(message)
    code, event = message.kind
    if code != "ADT":
        return _orders(message)
    return [_patient(_required(message, "PID"))] if event in PATIENT_EVENTS else _merges(message, event)


def made_at(message: Message, received_at: datetime) -> datetime:
    """Return when a message was made: EVN-2, else MSH-7, never later than it was received.

    A time without a zone is this machine's.
    """
    event = message.first("EVN")
    for text in (event.text(2) if event else "", message.header.text(7)):
        if at := _moment(text):
            return min(at, received_at)
    return received_at


def _required(message: Message, name: str) -> Segment:
    segment = message.first(name)
    if segment is None:
        raise MessageRejected("AE", "100", f"no {name} segment", (name, 0))
    return segment


def _patient(pid: Segment) -> PatientUpdate:
    """Return what a PID says (HL7 2.5.1 section 3.4.2)."""
    found = _identifier(pid, (3, 2), "")
    if found is None:
        raise MessageRejected("AE", "101", "no patient ID in PID-3", (pid, 3))
    return PatientUpdate(
        patient_id=found[0],
        issuer_of_patient_id=found[1],
        patient_name=_fitting("patient_name", _stated(pid, 5, _person_name), (pid, 5)),
        patient_birth_date=_stated(pid, 7, lambda pid, number: _date(pid.text(number))),
        patient_sex=_stated(pid, 8, lambda pid, number: _SEXES.get(pid.text(number))),
    )


def _merges(message: Message, event: str, maximum: int = 100) -> list[PatientData]:
    """Return the patients of each PID, and the merge of the MRG that follows it (A35 merges accounts, not patients).

    `maximum` bounds the segments of each, for `_check_number`.
    """
    for name in ("PID", "MRG"):
        _check_number(message, name, maximum, "merges")
    updates: list[PatientData] = []
    surviving: PatientUpdate | None = None
    for segment in message.segments:
        if segment.name == "PID":
            surviving = _patient(segment)
            updates.append(surviving)
        elif segment.name == "MRG" and event != "A35":
            if surviving is None:
                raise MessageRejected("AE", "100", "MRG before PID", (segment, 0))
            prior = _identifier(segment, (1, 4), surviving.issuer_of_patient_id)
            if prior is None:
                raise MessageRejected("AE", "101", "no prior patient ID in MRG-1", (segment, 1))
            update = PatientUpdate(patient_id=prior[0], issuer_of_patient_id=prior[1])
            updates.append(PatientMerge(prior=update, surviving=surviving))
    if surviving is None or (event != "A35" and not any(isinstance(item, PatientMerge) for item in updates)):
        raise MessageRejected("AE", "100", "a merge needs PID and MRG")
    return updates


def _check_number(message: Message, name: str, maximum: int, what: str) -> None:
    """Raise MessageRejected (AR) for more segments of a name than one message may have.

    A message is one transaction, and nobody else writes while it lasts.  A real message has one merge and a few orders;
    100 of either take about a tenth of a second.
    """
    if sum(segment.name == name for segment in message.segments) > maximum:
        raise MessageRejected("AR", "207", f"more than {maximum} {what} in one message", (name, 0))


def _orders(message: Message, maximum: int = 100) -> list[PatientData]:
    """Return one update per ORC, with what the OBR and IPC (or, before 2.5, IHE's ZDS) after it add.

    `maximum` bounds the orders, for `_check_number`.
    """
    _check_number(message, "ORC", maximum, "orders")
    patient = _patient(_required(message, "PID"))
    visit = message.first("PV1")
    attending = _physician(visit, 8) if visit else None
    groups: list[dict[str, Segment]] = []
    for segment in message.segments:
        if segment.name == "ORC":
            groups.append({"ORC": segment})
        elif segment.name in ("OBR", "IPC", "ZDS") and groups:
            groups[-1].setdefault(segment.name, segment)
    if not groups:
        raise MessageRejected("AE", "100", "no ORC segment")
    return [_order(group, patient, attending) for group in groups]


def _order(group: dict[str, Segment], patient: PatientUpdate, attending: str | None) -> OrderUpdate:
    nothing = Segment("", (), "|^~\\&")
    orc, obr, ipc, zds = (group.get(name, nothing) for name in ("ORC", "OBR", "IPC", "ZDS"))
    placer = orc if orc.text(2) else obr
    filler = orc if orc.text(3) else obr
    accession: Place = (ipc, 1) if ipc.text(1) else (obr, 18)
    update = OrderUpdate(
        patient=patient,
        placer_order_number=_fitting("placer_order_number", placer.text(2), (placer, 2)),
        placer_order_issuer=_fitting("placer_order_issuer", _issuer(placer, 2), (placer, 2)),
        filler_order_number=_fitting("filler_order_number", filler.text(3), (filler, 3)),
        filler_order_issuer=_fitting("filler_order_issuer", _issuer(filler, 3), (filler, 3)),
        accession_number=_fitting("accession_number", ipc.text(1) or obr.text(18), accession),
        study_instance_uid=next((uid for uid in (ipc.text(3), zds.text(1)) if is_uid(uid)), ""),
        description=obr.text(4, 2) or obr.text(4, 5) or obr.text(4) or None,
        referring_physician_name=_physician(obr, 16) or _physician(orc, 12) or attending,
        cancelled=orc.text(1) in _CANCELLED or orc.text(5) == "CA",
    )
    if not (update.placer_order_number or update.filler_order_number or update.accession_number):
        raise MessageRejected("AE", "101", "the order has no number", (orc, 2))
    return update


Text = TypeVar("Text", str, str | None)


def _fitting(field: str, value: Text, place: Place) -> Text:
    """Return a value of a field of a context; raise MessageRejected where DICOM forbids it.

    A page could not be sent under it later, and only the sender can correct it.
    """
    if rule := broken_rule(field, value or ""):
        raise MessageRejected("AE", "102", f"{field} must be {rule}", place)
    return value


def _physician(segment: Segment, number: int) -> str | None:
    name = _stated(segment, number, _clinician)
    return _fitting("referring_physician_name", name, (segment, number))


def _issuer(segment: Segment, number: int) -> str:
    """Return who gave the number of an EI: namespace^universal ID^type, as much of it as there is."""
    return "^".join(_plain(segment.text(number, component)) for component in (2, 3, 4)).rstrip("^")


def _stated(segment: Segment, number: int, read: Callable[[Segment, int], str | None]) -> str | None:
    """Return what a field says: None where it is empty, "" where it says that there is no value."""
    field = segment.field(number)
    if field == _NULL:
        return ""
    return (read(segment, number) or None) if field else None


def _identifier(segment: Segment, numbers: Sequence[int], issuer: str) -> tuple[str, str] | None:
    """Return identifier and authority of the best CX in the first of some fields that has any."""
    for number in numbers:
        ranked = _ranked_identifiers(segment, number, issuer if number == numbers[0] else "")
        if ranked:
            *_, identifier, authority = min(ranked)
            place = (segment, number)
            return _fitting("patient_id", identifier, place), _fitting("issuer_of_patient_id", authority, place)
    return None


def _ranked_identifiers(segment: Segment, number: int, issuer: str) -> list[tuple[bool, int, int, str, str]]:
    """Return the identifiers of a field, the best of them least: `issuer`'s own, then a medical record number.

    The authority is its namespace, or its universal ID where it has none (HL7 2.5.1 section 2.A.14, HD).
    """
    ranked: list[tuple[bool, int, int, str, str]] = []
    for components in segment.repetitions(number):
        identifier = segment.part(components, 1)
        if not identifier or identifier == _NULL:
            continue
        authority = segment.part(components, 4) or segment.part(components, 4, 2)
        rank = {"MR": 0, "PI": 1, "PT": 1, "": 2}.get(segment.part(components, 5), 3)
        ranked.append((bool(issuer) and authority != issuer, rank, len(ranked), identifier, authority))
    return ranked


def _person_name(segment: Segment, number: int) -> str:
    """Return a DICOM PN from XPN: the legal name in up to three representations (PS3.5 section 6.2.1)."""
    groups: dict[str, str] = {}
    repetitions = segment.repetitions(number)
    for components in sorted(repetitions, key=lambda name: segment.part(name, 7) not in ("", "L")):
        family, given, middle, suffix, prefix = (_plain(segment.part(components, n)) for n in (1, 2, 3, 4, 5))
        name = "^".join([family, given, middle, prefix, suffix]).rstrip("^")
        if name:
            groups.setdefault(segment.part(components, 8) or "A", name)
    return "=".join(groups.get(code, "") for code in "AIP").rstrip("=")


def _clinician(segment: Segment, number: int) -> str:
    """Return a DICOM PN from XCN; the name begins at the second component."""
    for components in segment.repetitions(number):
        family, given, middle, suffix, prefix = (_plain(segment.part(components, n)) for n in (2, 3, 4, 5, 6))
        if name := "^".join([family, given, middle, prefix, suffix]).rstrip("^"):
            return name
    return ""


def _plain(text: str) -> str:
    """Return text as one component of a PN: what would break it (delimiters, control characters) is a space."""
    return "" if text == _NULL else " ".join(re.sub(r"[\x00-\x1f\x7f\\^=]", " ", text).split())


def _date(text: str) -> str | None:
    try:
        return datetime.strptime(text[:8], "%Y%m%d").strftime("%Y%m%d") if len(text) >= 8 else None
    except ValueError:
        return None


def _moment(text: str) -> datetime | None:
    """Return a TS to the second, aware; None where it is none, or no more than a day."""
    found = re.fullmatch(r"(\d{12})(\d\d)?(?:\.\d+)?([+-]\d{4})?", text)
    if not found:
        return None
    try:
        at = datetime.strptime(found[1] + (found[2] or "00"), "%Y%m%d%H%M%S")
        if not found[3]:
            return at.astimezone(UTC)
        offset = timedelta(hours=int(found[3][1:3]), minutes=int(found[3][3:]))
        return at.replace(tzinfo=timezone(offset if found[3][0] == "+" else -offset)).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None
