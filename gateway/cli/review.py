"""`unmatched`, `identify`, `correct`, `confirm` and `merges`: what waits for a person's decision."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from gateway.cli.arguments import MAXIMUM_NUMBER, AsJson, Config, JobId, actor, find_job_id, open_spool, open_store
from gateway.cli.options import IdentityOptions
from gateway.cli.output import age, job_fields, merge_fields, print_json, print_table
from gateway.errors import IntakeError
from gateway.identity.person import identify as identify_job
from gateway.results.confirmation import check_confirmable, check_patient
from gateway.results.confirmation import confirm as confirm_job
from gateway.results.person import correct as correct_job
from gateway.results.placed import check_placed
from gateway.settings import load_settings
from pipeline import CorrectionError, parse_pages


def unmatched(
    config: Config = None,
    patient: Annotated[bool, typer.Option("--patient", help="Print the identity known so far, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List jobs that wait for their identity: from an order, or from a person (`identify`)."""
    found = open_store(load_settings(config)).jobs.unmatched()
    if as_json:
        fields = {"patient_id", "accession_number"}
        print_json([job_fields(job) | (job.context.model_dump(include=fields) if patient else {}) for job in found])
        return
    table = Table("job", "age", "source", "reason", *(["patient ID", "accession number"] if patient else []))
    for job in found:
        known = [job.context.patient_id, job.context.accession_number] if patient else []
        table.add_row(job.id, age(job), job.source, job.reason, *known)
    print_table(table)


def identify(job: JobId, identity: IdentityOptions, config: Config = None) -> None:
    """State the identity, or the time of recording, of a job that waits. What is left out is kept or looked up."""
    store = open_store(load_settings(config))
    job_id = find_job_id(store, job)
    identify_job(store, job_id, identity.context(), actor())
    print(f"job {job_id} is queued again")


def confirm(
    job: JobId,
    config: Config = None,
    patient_is_right: Annotated[
        bool,
        typer.Option("--patient-is-right", help="You compared page and record: it is this patient's ECG."),
    ] = False,
) -> None:
    """Confirm a job's result: its traces agree with the page, and it is sent as final, also where it was held."""
    settings = load_settings(config)
    store, spool = open_store(settings), open_spool(settings)
    job_id = find_job_id(store, job)
    check_confirmable(store, spool, settings, job_id)
    if not patient_is_right:
        check_patient(store, job_id)
    if not store.jobs.get(job_id).confirmed_by:
        store.review.agree(job_id, store.review.version(job_id), actor(), traces=True, patient=True)
    confirm_job(store, spool, settings, job_id, actor())
    print(f"job {job_id} is confirmed")


def correct(
    job: JobId,
    corrections: Annotated[
        Path,
        typer.Option(metavar="FILE", help='JSON: what is to be corrected on page 1, or on each page ({"2": {...}}).'),
    ],
    config: Config = None,
) -> None:
    """Digitize a job again with corrections of its pages; the result leaves when it is confirmed."""
    settings = load_settings(config)
    store = open_store(settings)
    job_id = find_job_id(store, job)
    try:
        pages = parse_pages(json.loads(corrections.read_text(encoding="utf-8")))
        check_placed(open_spool(settings), store.jobs.get(job_id), pages)
        correct_job(store, settings, job_id, pages, actor())
    except CorrectionError as error:
        for each in error.broken:
            print(f"{corrections}: {each}", file=sys.stderr)
        raise typer.Exit(1) from error
    except (OSError, ValueError) as error:
        raise IntakeError(f"{corrections}: {error}") from error
    print(f"job {job_id} is queued again; confirm the result when it is right")


def merges(
    config: Config = None,
    settle: Annotated[
        int | None,
        typer.Option(min=1, max=MAXIMUM_NUMBER, help="The number of a line that the archive has been informed of."),
    ] = None,
    patient: Annotated[bool, typer.Option("--patient", help="With --json: print the patient IDs, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List results that were delivered under a patient ID that has since been merged. The table shows patient IDs."""
    store = open_store(load_settings(config))
    if settle is not None:
        store.patients.settle_merge(settle, actor())
    notices = store.patients.merge_notices()
    if as_json:
        print_json([merge_fields(notice, patient=patient) for notice in notices])
        return
    table = Table("number", "job", "merged at (UTC)", "delivered as", "now")
    for notice in notices:
        prior = "^".join(part for part in (notice.prior_patient_id, notice.prior_issuer) if part)
        now = "^".join(part for part in (notice.surviving_patient_id, notice.surviving_issuer) if part)
        table.add_row(str(notice.id), notice.job_id, f"{notice.created_at:%Y-%m-%d %H:%M}", prior, now)
    print_table(table)
