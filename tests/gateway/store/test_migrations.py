"""Databases of earlier versions are brought up to date with what is in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import URL, Connection, create_engine, inspect, text
from sqlmodel import SQLModel

import gateway.store
from gateway.domain.artefact import Role
from gateway.domain.clock import utc_now
from gateway.domain.context import StudyContext
from gateway.domain.identity import Decision
from gateway.domain.patients import OrderUpdate, PatientMerge, PatientUpdate
from gateway.domain.received import InboundMessage
from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.identity.decide import decide
from gateway.store.commitments import Settlement
from gateway.store.jobs import JobResult
from gateway.store.store import Store
from gateway.store.tables import Delivery, Job, Page
from tests.fakes import due_anywhere


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.interop)])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[URL]:
    """A database in which nothing is."""
    if request.param == "sqlite":
        yield URL.create("sqlite", database=str(tmp_path / "gateway.db"))
    else:
        with request.getfixturevalue("postgresql_server").database("template0") as url:
            yield url


@contextmanager
def connected(url: URL) -> Iterator[Connection]:
    engine = create_engine(url)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def at_version(url: URL, version: str, change: Callable[[Config, str], None] = command.upgrade) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(gateway.store.__file__).with_name("migrations")))
    with connected(url) as connection:
        config.attributes["connection"] = connection
        change(config, version)


def insert(connection: Connection, table: str, **values: object) -> None:
    names = ", ".join(values)
    marks = ", ".join(f":{name}" for name in values)
    connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({marks})"), values)


def insert_job(connection: Connection, job_id: str, status: str, context: str, **more: object) -> None:
    values = {
        "id": job_id,
        "source": "submit",
        "source_key": f"key of {job_id}",
        "media_type": "image/png",
        "status": status,
        "reason": "",
        "attempts": 1,
        "study_context_json": context,
        "destinations_json": "null",
        "worker": "",
        "created_at": "2026-01-02 03:04:05",
        "updated_at": "2026-01-02 03:04:05",
    }
    insert(connection, "job", **values | more)


def insert_delivery(connection: Connection, job_id: str, **more: object) -> None:
    values = {
        "job_id": job_id,
        "page_number": 1,
        "destination": "ehr",
        "kind": "hl7",
        "status": "DELIVERED",
        "attempts": 1,
        "next_attempt_at": "2026-01-02 03:04:05",
        "response": "AA",
        "reason": "",
        "artefact": "page-1.ehr.hl7",
        "identifier": "GW1",
        "created_at": "2026-01-02 03:04:05",
    }
    insert(connection, "delivery", **values | more)


def test_the_migrations_can_be_taken_back_and_done_again(empty: URL) -> None:
    at_version(empty, "head")
    at_version(empty, "base", command.downgrade)
    with connected(empty) as connection:
        assert set(inspect(connection).get_table_names()) <= {"alembic_version"}
    Store(empty).close()
    with connected(empty) as connection:
        assert compare_metadata(MigrationContext.configure(connection), SQLModel.metadata) == []


def test_jobs_of_the_first_version_that_wait_for_an_identity_are_unmatched(empty: URL) -> None:
    at_version(empty, "0001")
    rows = [
        ("nobody", "NEEDS_REVIEW", "{}"),
        ("doubtful", "NEEDS_REVIEW", '{"patient_id": "P1"}'),
        ("finished", "DONE", '{"patient_id": "P1"}'),
    ]
    with connected(empty) as connection:
        for job_id, status, context in rows:
            insert_job(connection, job_id, status, context)
        insert_delivery(connection, "finished")
    store = Store(empty)
    assert [job.id for job in store.jobs.unmatched()] == ["nobody"]
    assert (store.jobs.get("finished").status, store.jobs.get("finished").revision) == (JobStatus.DONE, 0)
    assert [delivery.result_status for delivery in store.deliveries.of_job("finished")] == [""]
    store.close()


def test_patients_and_orders_of_before_are_kept(empty: URL) -> None:
    at_version(empty, "0003")
    with connected(empty) as connection:
        for number, into in ((1, None), (2, 1)):
            insert_patient(connection, number, f"P{number}", into)
        insert_order(connection, 2, "ORD1", "F1", "A1")
    store = Store(empty)
    order, patient = store.patients.order("A1")
    assert (order.placer_order_number, order.placer_order_issuer, patient.patient_id) == ("ORD1", "", "P1")
    store.close()


def insert_patient(connection: Connection, number: int, patient_id: str, into: int | None = None) -> None:
    names = {"issuer_of_patient_id": "", "patient_name": "A^B", "patient_birth_date": "", "patient_sex": ""}
    told = {"merged_into": into, "told_at": "2026-01-01 00:00:00"}
    insert(connection, "patient", id=number, patient_id=patient_id, **names, **told)


def insert_order(connection: Connection, patient: int, placer: str, filler: str, accession: str) -> None:
    numbers = {"placer_order_number": placer, "filler_order_number": filler, "accession_number": accession}
    rest = {"description": "ECG", "referring_physician_name": "", "cancelled": False, "told_at": "2026-01-01 00:00:00"}
    insert(connection, "patient_order", patient=patient, **numbers, **rest)


def test_names_and_json_of_version_0005_become_columns(empty: URL) -> None:
    at_version(empty, "0005")
    context = '{"patient_id":"P1","patient_name":"DOE^JANE","accession_number":"A1","study_date":"20250102"}'
    names = {
        "page-1.12-lead.dcm": ("waveform", 0, False),
        "page-1.r2.12-lead-groups.dcm": ("waveform", 2, False),
        "page-1.report.dcm": ("report", 0, False),
        "page-1.final.report.dcm": ("report", 0, True),
        "page-1.r1.final.report.dcm": ("report", 1, True),
        "page-3.r1.overlay.dcm": ("overlay", 1, False),
        "page-1.ehr.hl7": ("message", 0, False),
        "page-1.ehr.final.hl7": ("message", 0, True),
        "page-12.ehr.r10.final.hl7": ("message", 10, True),
        "page-1.r1.rejection.ehr.dcm": ("rejection", 1, False),
        "page-1.r1.hl7": ("message", 0, False),  # of a destination that is named like a revision
    }
    later = {"unmatched": False, "revision": 0, "confirmed_by": ""}
    with connected(empty) as connection:
        for number, json_text in enumerate((context, "{}")):
            insert_job(connection, f"job-{number}", "DONE", json_text, **later)
        for name in names:
            destination = "r1" if name == "page-1.r1.hl7" else "ehr"
            insert_delivery(connection, "job-0", destination=destination, artefact=name, asked=0, result_status="")
    store = Store(empty)
    found = {sent.artefact: (sent.role, sent.revision, sent.final) for sent in store.deliveries.of_job("job-0")}
    assert found == names
    job, other = store.jobs.get("job-0"), store.jobs.get("job-1")
    assert (job.context.patient_name, job.patient_id, job.accession_number, job.study_date) == (
        "DOE^JANE",
        "P1",
        "A1",
        "20250102",
    )
    assert (other.patient_id, other.accession_number, other.study_date) == ("", "", "")
    store.close()
    with connected(empty) as connection:
        indexes = {index["name"] for index in inspect(connection).get_indexes("job")}
    assert {"ix_job_patient_id", "ix_job_accession_number", "ix_job_study_date"} <= indexes


def test_the_work_of_version_0005_goes_on(empty: URL) -> None:
    """Jobs in every state, deliveries in every state, a patient, an order and a request to commit."""
    at_version(empty, "0005")
    context = '{"patient_id":"P1","patient_name":"DOE^JANE"}'
    with connected(empty) as connection:
        insert_patient(connection, 1, "P1")
        insert_patient(connection, 2, "P2")
        insert_order(connection, 2, "ORD1", "", "A2")
        for status in JobStatus:
            waiting = {"unmatched": False, "revision": 0, "confirmed_by": ""}
            insert_job(connection, str(status), status, context, **waiting)
        more = {"unmatched": True, "revision": 0, "confirmed_by": ""}
        insert_job(connection, "ordered", "NEEDS_REVIEW", '{"accession_number":"A9"}', **more)
        leased = "UPDATE job SET worker = 'w0', lease_expires_at = '2026-01-02 03:05:05' WHERE id = 'RUNNING'"
        connection.execute(text(leased))
        quality = {
            "layout": "3x4",
            "layout_score": 0.9,
            "estimated_snr_db": 20.0,
            "coverage": 1.0,
            "quality_json": "{}",
        }
        for job_id in ("DONE", "NEEDS_REVIEW"):
            page = {"page_number": 1, "status": job_id, "reason": "", "waveform_sop_instance_uid": "1.2", "seconds": 5}
            insert(connection, "page", job_id=job_id, **page, **quality)
        names = {"asked": 0, "result_status": "", "kind": "dicom"}
        for status in DeliveryStatus:
            insert_delivery(
                connection, "DONE", status=status, destination=str(status), artefact="page-1.12-lead.dcm", **names
            )
        insert_delivery(
            connection, "NEEDS_REVIEW", status="PENDING", destination="ehr", artefact="page-1.ehr.hl7", **names
        )
        moments = {"asked_at": "2026-01-02 03:04:05", "failure_reason": ""}
        (stored,) = connection.execute(text("SELECT id FROM delivery WHERE status = 'STORED'")).scalars()
        insert(connection, "commitment", transaction_uid="1.9", delivery=stored, **moments)

    store = Store(empty)
    jobs, now = store.jobs, utc_now()
    assert jobs.counts() == dict.fromkeys(JobStatus, 1) | {JobStatus.NEEDS_REVIEW: 2}
    assert [(page.status, page.seconds) for page in jobs.pages("DONE")] == [(JobStatus.DONE, 5.0)]
    assert jobs.get("DONE").created_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    # intake knows what it had, and takes what is new
    assert jobs.submit(Job(source="s", source_key="key of DONE", media_type="image/png"), "scp")[0].id == "DONE"
    assert jobs.submit(Job(source="s", source_key="new", media_type="image/png"), "scp")[1]
    # workers
    assert jobs.rescue(3) == ["RUNNING"]
    claimed, untried = jobs.claim("w1", 60), jobs.claim("w2", 60)
    assert claimed is not None and claimed.id == "QUEUED" and claimed.context.patient_name == "DOE^JANE"
    assert untried is not None and untried.source_key == "new"
    assert jobs.heartbeat(claimed.id, "w1", 60) and jobs.holds(claimed, "w1")
    made = Delivery(
        job_id=claimed.id,
        page_number=1,
        destination="pacs",
        kind="dicom",
        artefact="page-1.12-lead.dcm",
        role=Role.WAVEFORM,
    )
    page = Page(job_id=claimed.id, page_number=1, status=JobStatus.DONE)
    jobs.complete(claimed.id, "w1", JobResult(status=JobStatus.DONE, pages=[page], deliveries=[made]), claimed.context)
    # a person
    jobs.retry("FAILED", "cli")
    jobs.retry("CANCELLED", "cli")
    jobs.decide(jobs.get("ordered"), Decision(context=StudyContext(patient_id="P2")), "web")
    jobs.confirm("NEEDS_REVIEW", [], "web")
    # outbox
    due = {delivery.destination: delivery.id for delivery in due_anywhere(store)}
    assert set(due) == {"PENDING", "ehr", "pacs"}
    store.deliveries.delivered(due["PENDING"], "0x0000")
    store.deliveries.defer(due["ehr"], "connection refused", now)
    store.deliveries.retry(store.deliveries.undelivered("FAILED")[0].id, "cli")
    # storage commitment
    (asked,) = store.commitments.asked_for("1.9")
    assert asked.id and asked.role == Role.WAVEFORM
    store.commitments.settle("1.9", [Settlement(delivery=asked.id, action=None, next_attempt_at=now)])
    assert [delivery.id for delivery in store.commitments.due(now, "STORED", 10)] == [asked.id]
    assert store.commitments.deliver_unasked("STORED") == 1
    # HL7
    message = InboundMessage(
        sending_application="A",
        sending_facility="F",
        control_id="1",
        digest="",
        message_type="",
        data=b"",
        answer=b"",
        received_at=now,
    )
    order = OrderUpdate(patient=PatientUpdate(patient_id="P2"), placer_order_number="ORD1", accession_number="A2")
    merge = PatientMerge(prior=PatientUpdate(patient_id="P1"), surviving=PatientUpdate(patient_id="P2"))
    changed = store.patients.receive(message, [order, merge], now + timedelta(seconds=1), decide)
    assert set(changed) == {*map(str, JobStatus)}
    assert {jobs.get(job_id).patient_id for job_id in changed} == {"P2"}
    assert [notice.job_id for notice in store.patients.merge_notices()] == ["DONE"]
    store.patients.settle_merge(store.patients.merge_notices()[0].id, "cli")
    store.close()
