"""The database is lost, or older than the spool: nothing is deleted, nothing starts as new, and jobs come back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.domain.status import JobStatus
from gateway.errors import StorageError
from gateway.intake.accept import Intake
from gateway.intake.recover import HELD, check_origin, recover, unexplained
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.store.tables import Job, new_id
from tests.fake_digitizer import page_png
from tests.fakes import make_unreadable
from tests.gateway.dicom.samples import part10, secondary_capture

Command = Callable[..., tuple[int, str, str]]


def lost(spool: Spool, data: bytes = b"", age_s: float = 3600.0) -> str:
    """Write a source whose job is in no database."""
    job_id = new_id()
    spool.write_source(job_id, data or part10(secondary_capture()))
    age(spool, job_id, age_s)
    return job_id


def age(spool: Spool, job_id: str, age_s: float) -> None:
    then = os.stat(spool.path).st_mtime - age_s
    os.utime(spool.path / job_id, (then, then))


def test_an_empty_database_beside_a_full_spool_is_refused(spool: Spool, store: Store) -> None:
    check_origin(spool, store)  # both are empty
    lost(spool, age_s=0)
    check_origin(spool, store)  # what a crash a moment ago left
    lost(spool)
    with pytest.raises(StorageError, match=r"is empty: the spool .* files of 1 jobs") as caught:
        check_origin(spool, store)
    assert str(spool.path) in str(caught.value) and "gateway" in str(caught.value)


def test_an_older_database_is_refused(spool: Spool, store: Store) -> None:
    store.jobs.submit(Job(source="submit", source_key="1", media_type="image/png"), "cli")
    job_id = lost(spool)
    check_origin(spool, store)  # an interrupted intake, perhaps
    spool.write_artefact(job_id, "page-1.dcm", b"result")
    age(spool, job_id, 3600)
    with pytest.raises(StorageError, match="may be older than the spool"):
        check_origin(spool, store)


def test_what_was_lost_is_a_job_again(spool: Spool, store: Store, intake: Intake) -> None:
    known = lost(spool)
    page = lost(spool, page_png())
    odd = lost(spool, b"no picture")
    stuck = lost(spool)
    make_unreadable(spool.path / stuck / "source")
    age(spool, stuck, 3600.0)
    os.makedirs(spool.path / "quarantine")
    assert spool.quarantine(known)
    found = {each.job_id: each for each in recover(intake, spool, store)}
    assert found.keys() == {known, page, odd, stuck}
    assert found[stuck].problem == "spool: Too many levels of symbolic links"
    shutil.rmtree(spool.path / "quarantine" / stuck)
    job = store.jobs.get(known)
    assert (job.status, job.context.patient_id, job.source_key) == (JobStatus.QUEUED, "P-1001", "2.25.1003")
    assert spool.read(known) == part10(secondary_capture())
    waiting = store.jobs.get(page)
    assert (waiting.status, waiting.reason, waiting.unmatched) == (JobStatus.NEEDS_REVIEW, HELD, True)
    assert "the file is no DICOM" in found[odd].problem and spool.quarantined() == [odd]
    check_origin(spool, store)
    assert unexplained(spool, store) == []
    again = lost(spool)
    results = {each.job_id: each for each in recover(intake, spool, store)}
    assert results[again].accepted is not None and results[again].accepted.job_id == known
    assert not (spool.path / again).exists() and spool.quarantined() == [odd]


def test_the_command_lists_and_recovers(gateway_command: Command, tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(f'[storage]\npath = "{tmp_path}"\nminimum_free_mib = 0\n', encoding="utf-8")
    job_id = lost(Spool(tmp_path / "spool", 0))
    status, output, _ = gateway_command(config, "recover", "--list")
    assert status == 0 and job_id in output
    assert gateway_command(config, "recover")[:2] == (0, f"job {job_id}\n")
    assert job_id in gateway_command(config, "jobs")[1]
