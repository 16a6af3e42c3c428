"""Databases of earlier versions are brought up to date with what is in them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

import gateway.store
from gateway.domain.status import JobStatus
from gateway.store.store import Store

_COLUMNS = "id, source, source_key, media_type, status, reason, attempts, study_context_json, destinations_json, worker"


def at_version(path: Path, version: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(gateway.store.__file__).with_name("migrations")))
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, version)
    engine.dispose()


def test_jobs_of_the_first_version_that_wait_for_an_identity_are_unmatched(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    at_version(path, "0001")
    rows = [
        ("nobody", "NEEDS_REVIEW", "{}"),
        ("doubtful", "NEEDS_REVIEW", '{"patient_id": "P1"}'),
        ("finished", "DONE", '{"patient_id": "P1"}'),
    ]
    with closing(sqlite3.connect(path)) as connection, connection:
        for job_id, status, context in rows:
            connection.execute(
                f"INSERT INTO job ({_COLUMNS}, created_at, updated_at) VALUES (?, 's', ?, 'image/png', ?, '', 1, ?, "
                "'null', '', '2026-01-01 00:00:00', '2026-01-01 00:00:00')",
                (job_id, job_id, status, context),
            )
        connection.execute(
            "INSERT INTO delivery (job_id, page_number, destination, kind, status, attempts, next_attempt_at, "
            "response, reason, artefact, identifier, created_at) VALUES ('finished', 1, 'ehr', 'hl7', 'DELIVERED', 1, "
            "'2026-01-01 00:00:00', 'AA', '', 'page-1.ehr.hl7', 'GW1', '2026-01-01 00:00:00')"
        )
    store = Store(path)
    assert [job.id for job in store.jobs.unmatched()] == ["nobody"]
    assert (store.jobs.get("finished").status, store.jobs.get("finished").revision) == (JobStatus.DONE, 0)
    assert [delivery.result_status for delivery in store.deliveries.of_job("finished")] == [""]
    store.close()


def test_patients_and_orders_of_before_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    at_version(path, "0003")
    with closing(sqlite3.connect(path)) as connection, connection:
        for number, into in ((1, None), (2, 1)):
            row = (number, f"P{number}", into)
            connection.execute("INSERT INTO patient VALUES (?, ?, '', 'A^B', '', '', ?, '2026-01-01 00:00:00')", row)
        connection.execute(
            "INSERT INTO patient_order VALUES (1, 2, 'ORD1', 'F1', 'A1', 'ECG', '', 0, '2026-01-01 00:00:00')"
        )
    store = Store(path)
    order, patient = store.patients.order("A1")
    assert (order.placer_order_number, order.placer_order_issuer, patient.patient_id) == ("ORD1", "", "P1")
    store.close()


def test_names_and_json_of_version_0005_become_columns(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    at_version(path, "0005")
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
    with closing(sqlite3.connect(path)) as database, database:
        for number, text in enumerate((context, "{}")):
            database.execute(
                f"INSERT INTO job ({_COLUMNS}, created_at, updated_at, unmatched, revision, confirmed_by)"
                " VALUES (?, 'submit', ?, 'image/png', 'DONE', '', 1, ?, 'null', '',"
                " '2026-01-02 03:04:05', '2026-01-02 03:04:05', 0, 0, '')",
                (f"job-{number}", f"key-{number}", text),
            )
        for name in names:
            destination = "r1" if name == "page-1.r1.hl7" else "ehr"
            database.execute(
                "INSERT INTO delivery (job_id, page_number, destination, kind, status, attempts, asked,"
                " next_attempt_at, response, reason, artefact, identifier, result_status, created_at)"
                " VALUES ('job-0', 1, ?, 'hl7',"
                " 'DELIVERED', 1, 0, '2026-01-02 03:04:05', 'AA', '', ?, '1', '', '2026-01-02 03:04:05')",
                (destination, name),
            )
    store = Store(path)
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
    with closing(sqlite3.connect(path)) as database:
        indexes = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    assert {"ix_job_patient_id", "ix_job_accession_number", "ix_job_study_date"} <= indexes
