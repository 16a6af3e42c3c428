"""Which audit message an entry, or a line of a job's trail, becomes; many lines become none.

Persons who decide on the web pages are told by their entries, which have their address; the lines of the trail tell of
everything else: what was received and imported, what left, and the commands that decide.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.audit import messages as m
from gateway.dicom.objects.uids import derived_uid
from gateway.domain.audit import AuditKind
from gateway.domain.context import StudyContext
from gateway.settings import (
    DicomDestination,
    DicomWebDestination,
    FhirDestination,
    FolderDestination,
    Hl7Destination,
    Settings,
)
from gateway.store.tables import AuditEntry, Job, JobEvent

_TWELVE_LEAD = "1.2.840.10008.5.1.4.1.1.9.1.1"
_QUERIES = {"worklist": "1.2.840.10008.5.1.4.31", "study": "1.2.840.10008.5.1.4.1.2.2.1"}
_DELIVERED = {"DELIVERY_DELIVER": 0, "DELIVERY_STORE": 0, "DELIVERY_REFUSE": 8, "DELIVERY_GIVE_UP": 8}
_ALERTS = {
    AuditKind.ACCOUNT: m.USER_ATTRIBUTES,
    AuditKind.ALERT: m.RESTRICTED_FUNCTION,
    AuditKind.CONFIGURE: m.SOFTWARE_CONFIGURATION,
}
_PATIENT_CHANGED = ("MATCH", "MERGE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An audit message: its event, who took part, what it is about."""

    event: m.Event
    participants: tuple[m.Participant, ...]
    things: tuple[m.Thing, ...] = ()


class Words:
    """Finds the message of an entry or a line, by the settings in effect."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @property
    def source(self) -> tuple[str, str]:
        """Who reports: AuditSourceID and AuditEnterpriseSiteID."""
        return self._settings.audit.source_id, self._settings.audit.site_id

    def entry(self, entry: AuditEntry, job: Job | None) -> Told:
        """Return the message of an entry."""
        person = m.Participant(user_id=entry.name, name=entry.full_name, requestor=True, address=entry.address)
        outcome = 4 if entry.failed else 0
        match entry.kind:
            case AuditKind.START | AuditKind.STOP:
                kind = m.START if entry.kind == AuditKind.START else m.STOP
                event = m.Event(code=m.APPLICATION_ACTIVITY, action="E", at=entry.at, kind=kind)
                return Told(event=event, participants=(self._us(role=m.APPLICATION),))
            case AuditKind.VIEW | AuditKind.DECIDE:
                action = "R" if entry.kind == AuditKind.VIEW else "U"
                event = m.Event(
                    code=m.INSTANCES_ACCESSED, action=action, at=entry.at, outcome=outcome, words=entry.detail
                )
                return Told(event=event, participants=(person, self._us()), things=_things(job, entry))
            case AuditKind.LOG_IN | AuditKind.LOG_OUT:
                kind = m.LOG_IN if entry.kind == AuditKind.LOG_IN else m.LOG_OUT
                event = m.Event(
                    code=m.USER_AUTHENTICATION, action="E", at=entry.at, outcome=outcome, kind=kind, words=entry.detail
                )
                return Told(event=event, participants=(person, self._us()))
            case AuditKind.EXPORT:
                event = m.Event(code=m.EXPORT, action="R", at=entry.at, outcome=outcome, words=entry.detail)
                where = m.Participant(
                    user_id=entry.address, requestor=False, role=m.DESTINATION_MEDIA, address=entry.address, medium=True
                )
                return Told(
                    event=event, participants=(person, self._us(role=m.SOURCE), where), things=_things(job, entry)
                )
            case AuditKind.ACCOUNT | AuditKind.ALERT | AuditKind.CONFIGURE:
                kind = _ALERTS[entry.kind]
                event = m.Event(code=m.SECURITY_ALERT, action="E", at=entry.at, outcome=outcome, kind=kind)
                alert = m.node(socket.gethostname(), entry.detail)
                return Told(event=event, participants=(person, self._us()), things=(alert,))
            case AuditKind.PATIENT:
                event = m.Event(code=m.PATIENT_RECORD, action="U", at=entry.at, words=entry.detail)
                return Told(event=event, participants=(person, self._us()), things=_things(job, entry))
            case AuditKind.QUERY:
                return self._query(entry)

    def line(self, line: JobEvent, job: Job) -> Told | None:
        """Return the message of a line of a job's trail; None where it needs none."""
        if line.action == "RECEIVED":
            return self._received(line, job)
        if line.action in _DELIVERED and line.actor != "commitment":
            return self._delivered(line, job)
        if line.action in _PATIENT_CHANGED:
            event = m.Event(code=m.PATIENT_RECORD, action="U", at=line.at, words=line.detail)
            part = m.Participant(user_id=line.actor, requestor=True)
            return Told(event=event, participants=(part, self._us()), things=_things(job))
        if line.actor.startswith("cli:"):
            event = m.Event(code=m.INSTANCES_ACCESSED, action="U", at=line.at, words=line.action)
            person = m.Participant(user_id=line.actor, requestor=True, address=socket.gethostname())
            return Told(event=event, participants=(person, self._us()), things=_things(job))
        return None

    def _us(self, *, role: m.Code | None = None, requestor: bool = False) -> m.Participant:
        return m.Participant(
            user_id=self._settings.audit.source_id,
            alternative_id=f"AETITLES={self._settings.dicom.ae_title}",
            requestor=requestor,
            role=role,
            address=socket.gethostname(),
        )

    def _received(self, line: JobEvent, job: Job) -> Told:
        kind, _, name = job.source.partition(":")
        if kind in ("dicom", "dicomweb"):
            code, medium = m.INSTANCES_TRANSFERRED, False
        else:
            code, medium = m.IMPORT, True
        event = m.Event(code=code, action="C", at=line.at)
        sender = m.Participant(
            user_id=name or kind, requestor=not medium, role=m.SOURCE_MEDIA if medium else m.SOURCE, medium=medium
        )
        us = self._us(role=m.DESTINATION, requestor=medium)
        return Told(event=event, participants=(sender, us), things=_things(job, received=True))

    def _delivered(self, line: JobEvent, job: Job) -> Told:
        name = line.detail.partition(", page ")[0]
        destination = next((each for each in self._settings.destinations if each.name == name), None)
        match destination:
            case DicomDestination():
                code, identity, address = m.INSTANCES_TRANSFERRED, destination.ae_title, destination.host
            case DicomWebDestination():
                code, identity, address = m.INSTANCES_TRANSFERRED, destination.url, destination.host
            case Hl7Destination():
                receiver = f"{destination.receiving_application}|{destination.receiving_facility}"
                code, identity, address = m.EXPORT, receiver, destination.host
            case FhirDestination():
                code, identity, address = m.EXPORT, destination.url, destination.host
            case FolderDestination():
                code, identity, address = m.EXPORT, str(destination.path), ""
            case _:
                code, identity, address = m.EXPORT, name, ""  # it is no destination any more
        medium = isinstance(destination, FolderDestination)
        event = m.Event(code=code, action="R", at=line.at, outcome=_DELIVERED[line.action], words=line.detail)
        role = m.DESTINATION_MEDIA if medium else m.DESTINATION
        peer = m.Participant(user_id=identity, requestor=False, role=role, address=address, medium=medium)
        us = self._us(role=m.SOURCE, requestor=True)
        return Told(event=event, participants=(us, peer), things=_things(job))

    def _query(self, entry: AuditEntry) -> Told:
        """Return who asked a peer about whom; a person who had it asked comes first."""
        model, _, keys = entry.detail.partition(" ")
        event = m.Event(code=m.QUERY, action="E", at=entry.at, outcome=4 if entry.failed else 0)
        us = self._us(role=m.SOURCE, requestor=not entry.full_name)
        peer = m.Participant(user_id=entry.address, requestor=False, role=m.DESTINATION, address=entry.address)
        person = (m.Participant(user_id=entry.name, name=entry.full_name, requestor=True),) if entry.full_name else ()
        return Told(
            event=event, participants=(*person, us, peer), things=(m.query(_QUERIES.get(model, model), keys.encode()),)
        )


def _things(job: Job | None, entry: AuditEntry | None = None, *, received: bool = False) -> tuple[m.Thing, ...]:
    """Return the study and the patient of a job, or the patient of an entry that is about no job."""
    if job is None:
        if entry is None or not entry.patient_id:
            return ()
        return (m.patient(entry.patient_id, entry.issuer_of_patient_id, entry.patient_name),)
    context: StudyContext = job.context
    sop_class = context.source_sop_class_uid if received else _TWELVE_LEAD
    study = m.study(
        context.study_instance_uid or derived_uid("study", job.id),
        accession=context.accession_number,
        instances=((sop_class, 1),) if sop_class else (),
        job=job.id,
    )
    return study, m.patient(context.patient_id, context.issuer_of_patient_id, context.patient_name)


def rendered(told: Told, source: tuple[str, str]) -> bytes:
    """Return the XML of a message."""
    things: Sequence[m.Thing] = told.things
    return m.audit_message(told.event, told.participants, source, things)
