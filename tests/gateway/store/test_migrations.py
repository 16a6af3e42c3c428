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
from gateway.store.jobs import Store

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
    assert [job.id for job in store.unmatched_jobs()] == ["nobody"]
    assert (store.job("finished").status, store.job("finished").revision) == (JobStatus.DONE, 0)
    assert [delivery.result_status for delivery in store.deliveries("finished")] == [""]
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
    order, patient = store.order("A1")
    assert (order.placer_order_number, order.placer_order_issuer, patient.patient_id) == ("ORD1", "", "P1")
    store.close()
