"""From the database to the repository: what a job, a person and a message become; and a repository that is away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from gateway.audit.forwarder import AuditForwarder
from gateway.domain.account import AccountRole, Origin, User
from gateway.domain.artefact import Role
from gateway.domain.audit import AuditKind
from gateway.domain.context import StudyContext
from gateway.domain.status import JobStatus
from gateway.errors import NotReached
from gateway.hl7.inbound.receiver import Receiver
from gateway.identity.orders import Records
from gateway.settings import Settings
from gateway.store.jobs import JobResult
from gateway.store.store import Store
from gateway.store.tables import AuditEntry, Delivery, Job, Page
from gateway.web.audit import audit_entry
from tests.gateway.audit.conftest import lines, parsed
from tests.gateway.audit.standard import problems
from tests.waiting import eventually

ANN = User(name="ann", full_name="Dr Ann Lee", role=AccountRole.REVIEWER, origin=Origin.ACCOUNT, address="10.1.2.3")
CONTEXT = StudyContext(patient_id="P1", patient_name="Doe^Jane", accession_number="A1")


def settings(path: Path, **audit: Any) -> Settings:
    destinations = [
        {"kind": "dicom", "name": "pacs", "host": "10.1.2.9", "port": 104, "ae_title": "PACS"},
        {"kind": "hl7", "name": "ehr", "host": "10.1.2.8", "port": 2575},
        {"kind": "folder", "name": "drop", "path": "/srv/out"},
    ]
    return Settings(destinations=destinations, audit={"transport": "file", "path": path, **audit})


class Told:
    """One message, in the words that the tests need."""

    def __init__(self, message: bytes) -> None:
        self.priority, xml = parsed(message)
        assert problems(xml) == [], xml
        root = ET.fromstring(xml)
        event = root.find("EventIdentification")
        self.code = event.find("EventID").attrib["csd-code"]
        self.action = event.attrib["EventActionCode"]
        self.outcome = event.attrib["EventOutcomeIndicator"]
        self.kind = next((each.attrib["csd-code"] for each in event.iterfind("EventTypeCode")), "")
        self.words = event.findtext("EventOutcomeDescription", "")
        self.who = {
            each.attrib["UserID"]: each.attrib.get("NetworkAccessPointID", "")
            for each in root.iterfind("ActiveParticipant")
        }
        self.about = [each.attrib["ParticipantObjectID"] for each in root.iterfind("ParticipantObjectIdentification")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


@pytest.fixture
def forwarder(store: Store, path: Path) -> AuditForwarder:
    forwarder = AuditForwarder(store, lambda: settings(path))
    assert not forwarder.run_once()  # the trail is told from here on
    return forwarder


@pytest.fixture
def told(forwarder: AuditForwarder, path: Path) -> Callable[[], list[Told]]:
    def tell() -> list[Told]:
        before = len(lines(path))
        while forwarder.run_once():
            pass
        return [Told(line) for line in lines(path)[before:]]

    return tell


def submit(store: Store, source: str) -> str:
    job = Job(source=source, source_key=source, media_type="image/png", context=CONTEXT)
    store.jobs.submit(job, "scp" if source.startswith("dicom") else "folder")
    return job.id


def finish(store: Store, job_id: str) -> list[Delivery]:
    assert store.jobs.claim("w", 60.0).id == job_id
    page = Page(job_id=job_id, page_number=1, status=JobStatus.DONE, waveform_sop_instance_uid="1.2.3")
    deliveries = [
        Delivery(job_id=job_id, role=Role.WAVEFORM, page_number=1, destination=name, kind=kind, artefact=f"x-{name}")
        for name, kind in (("pacs", "dicom"), ("ehr", "hl7"), ("drop", "folder"))
    ]
    store.jobs.complete(job_id, "w", JobResult(status=JobStatus.DONE, reason="", pages=[page], deliveries=deliveries))
    return list(store.deliveries.of_job(job_id))


def test_what_was_received_and_what_left(store: Store, told: Callable[[], list[Told]]) -> None:
    job_id = submit(store, "dicom:SCANNER1")
    pacs, ehr, drop = finish(store, job_id)
    store.deliveries.delivered(pacs.id, "0x0000")
    store.deliveries.refuse(ehr.id, "answered AR", "AR")
    store.deliveries.delivered(drop.id, "")
    received, to_pacs, to_ehr, to_folder = told()
    assert (received.code, received.action, received.about[1]) == ("110104", "C", "P1")
    assert set(received.who) == {"SCANNER1", "ecg-gateway"}
    assert (to_pacs.code, to_pacs.action, to_pacs.who["PACS"], to_pacs.outcome) == ("110104", "R", "10.1.2.9", "0")
    assert (to_ehr.code, to_ehr.who["EHR|HOSPITAL"], to_ehr.outcome, to_ehr.priority) == ("110106", "10.1.2.8", "8", 83)
    assert (to_folder.code, "/srv/out" in to_folder.who) == ("110106", True)
    assert len({each.about[0] for each in (received, to_pacs, to_ehr, to_folder)}) == 1


def test_file_of_a_folder_is_an_import(store: Store, told: Callable[[], list[Told]]) -> None:
    submit(store, "folder:/srv/in")
    (imported,) = told()
    assert (imported.code, imported.action, "/srv/in" in imported.who) == ("110107", "C", True)


def test_command_that_decides(store: Store, told: Callable[[], list[Told]]) -> None:
    job_id = submit(store, "dicom:SCANNER1")
    store.jobs.cancel(job_id, "cli:ann")
    _, cancelled = told()
    assert (cancelled.code, cancelled.action, cancelled.words) == ("110103", "U", "CANCEL")
    assert "cli:ann" in cancelled.who


def test_what_persons_do(store: Store, told: Callable[[], list[Told]]) -> None:
    job_id = submit(store, "dicom:SCANNER1")
    told()
    for kind, more in (
        (AuditKind.VIEW, {"job_id": job_id}),
        (AuditKind.DECIDE, {"job_id": job_id, "detail": "confirmation"}),
        (AuditKind.LOG_IN, {}),
        (AuditKind.LOG_IN, {"failed": True, "detail": "wrong name or password"}),
        (AuditKind.LOG_OUT, {}),
        (AuditKind.ACCOUNT, {"detail": "bob was added as viewer"}),
        (AuditKind.ALERT, {"failed": True, "detail": "refused: GET /jobs/{job_id}/source"}),
    ):
        store.trail.record(audit_entry(kind, ANN, **more))
    seen, decided, came, failed, left, account, alert = told()
    assert (seen.code, seen.action, seen.who["ann"], seen.about[1]) == ("110103", "R", "10.1.2.3", "P1")
    assert (decided.code, decided.action, decided.words) == ("110103", "U", "confirmation")
    assert [(each.code, each.kind, each.outcome) for each in (came, failed, left)] == [
        ("110114", "110122", "0"),
        ("110114", "110122", "4"),
        ("110114", "110123", "0"),
    ]
    assert [(each.code, each.kind) for each in (account, alert)] == [("110113", "110137"), ("110113", "110132")]
    assert told() == [] and store.trail.waiting() == 0


def test_query(store: Store, told: Callable[[], list[Told]]) -> None:
    entry = AuditEntry(kind=AuditKind.QUERY, name="lookup", address="10.1.2.7", detail="worklist AccessionNumber=A1")
    store.trail.record(entry)
    (asked,) = told()
    assert (asked.code, asked.about) == ("110112", ["1.2.840.10008.5.1.4.31"])
    assert set(asked.who) == {"ecg-gateway", "10.1.2.7"}


def test_patient_of_a_message(store: Store, told: Callable[[], list[Told]]) -> None:
    receiver = Receiver(Records(store), "ASCII")
    receiver(b"MSH|^~\\&|ADT1|HOSP|C|D|||ADT^A08|1|P|2.5\rPID|1||P7^^^H||Right^Ann\r")
    receiver(b"MSH|^~\\&|ADT1|HOSP|C|D|||ADT^A40|2|P|2.5\rPID|1||P8\rMRG|P7\r")
    updated, surviving, prior = told()
    assert (updated.code, updated.about, updated.words) == ("110110", ["P7^^^H"], "ADT^A08")
    assert (surviving.about, prior.about, "ADT1|HOSP" in prior.who) == (["P8"], ["P7"], True)


def test_start_and_stop(store: Store, path: Path) -> None:
    forwarder = AuditForwarder(store, lambda: settings(path), poll_s=0.01)
    forwarder.start()
    eventually(lambda: len(lines(path)) == 1)
    forwarder.stop()
    assert [(each.code, each.kind) for each in map(Told, lines(path))] == [("110100", "110120"), ("110100", "110121")]


def test_repository_that_is_away_loses_nothing(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "later" / "audit.log"
    forwarder = AuditForwarder(store, lambda: settings(path), poll_s=0.01)
    forwarder.start()
    eventually(lambda: "no such file" in forwarder.problem)
    for number in range(250):
        store.trail.record(audit_entry(AuditKind.LOG_IN, ANN, detail=str(number)))
    forwarder.stop()
    assert store.trail.waiting() == 252  # start, stop
    path.parent.mkdir()
    again = AuditForwarder(store, lambda: settings(path))
    while again.run_once():
        pass
    assert [Told(line).words for line in lines(path)][1:251] == [str(number) for number in range(250)]
    assert len(lines(path)) == 252


def test_what_was_not_told_waits(store: Store, forwarder: AuditForwarder, path: Path) -> None:
    store.trail.record(audit_entry(AuditKind.LOG_IN, ANN))
    path.mkdir()
    with pytest.raises(NotReached):
        forwarder.run_once()
    assert store.trail.waiting() == 1


def test_without_a_repository_nothing_is_kept(store: Store, path: Path) -> None:
    current = [settings(path)]
    forwarder = AuditForwarder(store, lambda: current[0])
    forwarder.run_once()
    store.trail.record(audit_entry(AuditKind.LOG_IN, ANN))
    assert store.trail.waiting() == 1
    current[0] = Settings()
    assert not forwarder.run_once()
    store.trail.record(audit_entry(AuditKind.LOG_IN, ANN))
    submit(store, "dicom:SCANNER1")
    assert store.trail.waiting() == 0 and not path.exists()
    current[0] = settings(path)
    assert not forwarder.run_once()  # what happened before is not told
