"""`submit`, `import`, `jobs`, `show`, `retry` and `cancel`: jobs from the file to the end."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from gateway.cli.arguments import AsJson, Config, Destinations, JobId, Limit, actor, find_job_id, open_spool, open_store
from gateway.cli.options import IdentityOptions
from gateway.cli.output import (
    age,
    console,
    delivery_fields,
    event_fields,
    figure,
    files_in_words,
    job_fields,
    page_fields,
    print_json,
    print_table,
)
from gateway.domain.status import JobStatus
from gateway.errors import IntakeError, SettingsError
from gateway.intake.accept import Intake
from gateway.intake.archive import Counts, Wanted, import_files
from gateway.intake.upload import Upload, take_in
from gateway.settings import Settings, load_settings
from gateway.store.tables import Delivery, JobEvent, Page

_A_LINE_S = 60.0  # between two lines about a long import


def submit(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", exists=True, dir_okay=False, help="The files to digitize.")
    ],
    identity: IdentityOptions,
    config: Config = None,
    destination: Destinations = None,
) -> None:
    """Accept files as jobs: PNG, JPEG, TIFF, BMP, PDF or DICOM."""
    settings = load_settings(config)
    _check_destinations(settings, destination)
    intake = Intake(open_spool(settings), open_store(settings, create=True))
    failed = False
    for path in files:
        try:
            upload = Upload(
                data=path.read_bytes(),
                file_name=os.fsencode(path.name).decode("utf-8", "replace"),
                actor=actor(),
                stated=identity.context(),
                destinations=tuple(destination) if destination else None,
            )
            accepted = take_in(intake, upload)
        except IntakeError as error:
            print(f"{path}: {error}", file=sys.stderr)
            failed = True
        else:
            print(f"{path}: job {accepted.job_id}{' (known before)' if accepted.duplicate else ''}")
    sys.exit(1 if failed else 0)


def archive(context: typer.Context) -> None:
    """Digitize an archive without jobs: as `ecg-digitize archive`, with its options; DICOM objects are read, too."""
    from gateway.worker.archive import run_archive

    run_archive(context.args, "ecg-gateway")


def import_run(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The output of `ecg-digitize archive`: DIR or s3://...")],
    config: Config = None,
    destination: Destinations = None,
    backlog: Annotated[
        int, typer.Option(min=1, help="While so many jobs are queued, or deliveries to a destination wait, pause.")
    ] = 100,
) -> None:
    """Make jobs of the results of an archive run, without digitizing its pages again; live traffic goes first.

    One that was stopped, however it was, continues with the same command.  What has no result, and what has changed
    since, is named on standard error.
    """
    from gateway.worker.archive import open_run

    settings = load_settings(config)
    _check_destinations(settings, destination)
    finished = open_run(run)
    intake = Intake(open_spool(settings), open_store(settings, create=True))
    wanted = Wanted(
        run=finished.id,
        actor=actor(),
        destinations=tuple(destination) if destination else None,
        watched=tuple(destination or (each.name for each in settings.destinations)),
        backlog=backlog,
    )
    spoken = time.monotonic()

    def step(counts: Counts) -> None:
        nonlocal spoken
        if time.monotonic() - spoken >= _A_LINE_S:
            spoken = time.monotonic()
            print(f"{counts.files} of {finished.files} files: {_in_words(counts)}", file=sys.stderr)

    counts = import_files(intake, finished.results(), wanted, lambda line: print(line, file=sys.stderr), step)
    print(f"{counts.files} of {finished.files} files: {_in_words(counts)}")
    if finished.missing:
        print(f"the run is not finished: {finished.missing} of {finished.parts} parts are not written", file=sys.stderr)
    sys.exit(1 if counts.left_out or counts.failed_pages or finished.missing else 0)


def jobs(
    config: Config = None,
    status: Annotated[JobStatus | None, typer.Option(case_sensitive=False, help="Only jobs in this state.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    found = open_store(load_settings(config)).jobs.newest(status=status, limit=limit)
    if as_json:
        print_json([job_fields(job) for job in found])
        return
    table = Table("job", "state", "age", "source", "attempts", "files", "reason")
    for job in found:
        table.add_row(job.id, job.status, age(job), job.source, str(job.attempts), files_in_words(job), job.reason)
    print_table(table)


def show(
    job: JobId,
    config: Config = None,
    patient: Annotated[bool, typer.Option("--patient", help="Print the patient and the study, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show one job: its pages, its deliveries and its audit trail."""
    settings = load_settings(config)
    store = open_store(settings)
    found = store.jobs.get(find_job_id(store, job))
    pages, deliveries = store.jobs.pages(found.id), store.deliveries.of_job(found.id)
    events = store.jobs.events(found.id)
    folder = open_spool(settings).where(found.id)
    context = found.context.model_dump(exclude_defaults=True) if patient else {}
    if as_json:
        parts = {
            **job_fields(found),
            "folder": folder,
            "pages": [page_fields(page) for page in pages],
            "deliveries": [delivery_fields(delivery) for delivery in deliveries],
            "events": [event_fields(event) for event in events],
        }
        print_json(parts | {"context": context} if patient else parts)
        return
    out = console()
    out.print(f"job {found.id}: {found.status}, {age(found)} old, attempt {found.attempts}")
    out.print(f"source {found.source} ({found.media_type}), files in {folder}")
    if files_in_words(found):
        out.print(f"files: {files_in_words(found)}")
    if found.reason:
        out.print(f"reason: {found.reason}")
    for field, value in context.items():
        out.print(f"{field}: {value}")
    for table in (_pages(pages), _deliveries(deliveries), _trail(events)):
        print_table(table)


def retry(job: JobId, config: Config = None) -> None:
    """Queue a job for another run: one that failed, waits for review, was cancelled or is done."""
    store = open_store(load_settings(config))
    job_id = find_job_id(store, job)
    store.jobs.retry(job_id, actor())
    print(f"job {job_id} is queued again")


def cancel(job: JobId, config: Config = None) -> None:
    """Cancel a job that does not run, and its deliveries that have not arrived."""
    store = open_store(load_settings(config))
    job_id = find_job_id(store, job)
    store.jobs.cancel(job_id, actor())
    print(f"job {job_id} is cancelled")


def _check_destinations(settings: Settings, names: list[str] | None) -> None:
    unknown = set(names or ()) - {known.name for known in settings.destinations}
    if unknown:
        raise SettingsError(f"no destination is named {', '.join(sorted(unknown))}")


def _in_words(counts: Counts) -> str:
    return (
        f"{counts.new} new jobs ({counts.held} held for a person, {counts.failed_pages} pages without a result), "
        f"{counts.known} known before, {counts.left_out} left out"
    )


def _pages(pages: list[Page]) -> Table:
    table = Table("page", "state", "layout", "est. SNR", "coverage", "seconds", "reason", title="pages")
    for page in pages:
        figures = (figure(page.estimated_snr_db, "dB"), figure(page.coverage, ""), figure(page.seconds, "s"))
        table.add_row(str(page.page_number), page.status, page.layout, *figures, page.reason)
    return table


def _deliveries(deliveries: list[Delivery]) -> Table:
    table = Table("page", "destination", "state", "attempts", "answer", "identifier", "reason", title="deliveries")
    for sent in deliveries:
        row = (str(sent.page_number), sent.destination, sent.status, str(sent.attempts), sent.response)
        table.add_row(*row, sent.identifier, sent.reason)
    return table


def _trail(events: list[JobEvent]) -> Table:
    table = Table("at (UTC)", "what", "who", "detail", title="trail")
    for event in events:
        table.add_row(f"{event.at:%Y-%m-%d %H:%M:%S}", event.action, event.actor, event.detail)
    return table
