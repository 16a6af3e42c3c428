"""The gateway's command line: run it, put files in, look at jobs, and decide about them.

Patient data is printed only where it is asked for by name (`show --patient`).
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from gateway.delivery.kinds import kind_named
from gateway.delivery.steps import Step
from gateway.dicom.images.pages import read_context
from gateway.dicom.network.find import StudyQuery
from gateway.domain.clock import utc_now
from gateway.domain.context import StudyContext
from gateway.domain.status import JobStatus
from gateway.errors import GatewayError, IntakeError, SettingsError
from gateway.identity.orders import with_told
from gateway.identity.sidecar import identify as identify_job
from gateway.intake.accept import Accepted, Intake, file_key, media_type_of
from gateway.intake.pull import Wanted, show_pull
from gateway.logs import configure_logging
from gateway.results.confirmation import confirm as confirm_job
from gateway.security.certificates import certificates, check_tls
from gateway.service import Service
from gateway.settings import Settings, load_settings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.store.tables import Job

app = typer.Typer(
    help="ECG gateway: pictures of ECGs in, waveforms out.", no_args_is_help=True, pretty_exceptions_enable=False
)
Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Settings in TOML; without it, the defaults.")
]
DestinationName = Annotated[str, typer.Argument(metavar="DESTINATION", help="Its name in the settings.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, as `jobs` prints it.")]


def main() -> None:
    """Run the command line; an error of ours is one line on stderr and exit status 1."""
    try:
        app()
    except GatewayError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


@app.command()
def serve(config: Config = None) -> None:
    """Run the gateway: receive, digitize, deliver, until SIGINT or SIGTERM."""
    settings = load_settings(config)
    configure_logging(settings.log)
    command = [sys.executable, "-m", "gateway", "worker", *(["--config", str(config)] if config else [])]
    sys.exit(Service(settings, worker_command=command).run())


@app.command()
def worker(
    config: Config = None,
    name: Annotated[str, typer.Option(help="Who holds the leases; unique among all workers.")] = "",
    parent: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run one worker: digitize queued jobs until SIGINT or SIGTERM.  `serve` starts its own."""
    from gateway.worker.worker import run_worker  # loads torch: nothing but this command needs it

    settings = load_settings(config)
    configure_logging(settings.log)
    store, spool = _open(settings)
    name = name or f"worker-{socket.gethostname()}-{os.getpid()}"
    run_worker(settings, store, spool, name=name, parent_pid=parent)


@app.command()
def submit(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", exists=True, dir_okay=False)],
    config: Config = None,
    patient_id: Annotated[str, typer.Option(help="Whose ECG it is (DICOM PatientID).")] = "",
    patient_name: Annotated[str, typer.Option(help="DICOM PatientName, e.g. DOE^JANE.")] = "",
    birth_date: Annotated[str, typer.Option(help="YYYYMMDD.")] = "",
    sex: Annotated[str, typer.Option(help="F, M or O.")] = "",
    accession_number: Annotated[str, typer.Option(help="The order's accession number.")] = "",
    study_date: Annotated[str, typer.Option(help="YYYYMMDD.")] = "",
    destination: Annotated[list[str] | None, typer.Option(help="Send there only; may be repeated.")] = None,
) -> None:
    """Put files in as jobs: PNG, JPEG, TIFF, BMP, PDF or DICOM."""
    settings = load_settings(config)
    unknown = set(destination or ()) - {known.name for known in settings.destinations}
    if unknown:
        raise SettingsError(f"no destination is named {', '.join(sorted(unknown))}")
    told = StudyContext(
        patient_id=patient_id,
        patient_name=patient_name,
        patient_birth_date=birth_date,
        patient_sex=sex,
        accession_number=accession_number,
        study_date=study_date,
    )
    store, spool = _open(settings)
    intake = Intake(spool, store)
    failed = False
    for path in files:
        try:
            accepted = _submit(intake, path.read_bytes(), told, tuple(destination) if destination else None)
        except IntakeError as error:
            print(f"{path}: {error}", file=sys.stderr)
            failed = True
        else:
            print(f"{path}: job {accepted.job_id}{' (known before)' if accepted.duplicate else ''}")
    sys.exit(1 if failed else 0)


@app.command()
def jobs(
    config: Config = None,
    status: Annotated[JobStatus | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1)] = 50,
) -> None:
    """List jobs, newest first."""
    store, _ = _open(load_settings(config))
    table = Table("job", "state", "age", "source", "attempts", "reason")
    for job in store.jobs.newest(status=status, limit=limit):
        table.add_row(job.id, job.status, _age(job), job.source, str(job.attempts), job.reason)
    _print(table)


@app.command()
def show(
    job: JobId,
    config: Config = None,
    patient: Annotated[bool, typer.Option("--patient", help="Print whose ECG it is, too.")] = False,
) -> None:
    """Show one job: its pages, deliveries and trail."""
    store, spool = _open(load_settings(config))
    found = store.jobs.get(job)
    console = _console()
    console.print(f"job {found.id}: {found.status}, {_age(found)} old, attempt {found.attempts}")
    console.print(f"source {found.source} ({found.media_type}), files in {spool.source_path(job).parent}")
    if found.reason:
        console.print(f"reason: {found.reason}")
    if patient:
        for field, value in found.context.model_dump(exclude_defaults=True).items():
            console.print(f"{field}: {value}")
    pages = Table("page", "state", "layout", "est. SNR", "coverage", "seconds", "reason", title="pages")
    for page in store.jobs.pages(job):
        figures = (_figure(page.estimated_snr_db, "dB"), _figure(page.coverage, ""), _figure(page.seconds, "s"))
        pages.add_row(str(page.page_number), page.status, page.layout, *figures, page.reason)
    deliveries = Table("page", "destination", "state", "attempts", "answer", "identifier", "reason", title="deliveries")
    for sent in store.deliveries.of_job(job):
        row = (str(sent.page_number), sent.destination, sent.status, str(sent.attempts), sent.response)
        deliveries.add_row(*row, sent.identifier, sent.reason)
    trail = Table("at (UTC)", "what", "who", "detail", title="trail")
    for event in store.jobs.events(job):
        trail.add_row(f"{event.at:%Y-%m-%d %H:%M:%S}", event.action, event.actor, event.detail)
    for table in (pages, deliveries, trail):
        _print(table)


@app.command()
def retry(job: JobId, config: Config = None) -> None:
    """Queue a job that failed, waits for review or was cancelled for another run."""
    store, _ = _open(load_settings(config))
    store.jobs.retry(job, "cli")
    print(f"job {job} is queued again")


@app.command()
def undelivered(
    config: Config = None,
    destination: Annotated[str | None, typer.Option(help="Only what was for this one.")] = None,
) -> None:
    """List what destinations refused, or what was given up after its last attempt."""
    settings = load_settings(config)
    store, _ = _open(settings)
    table = Table("job", "page", "destination", "state", "attempts", "answer", "reason")
    for sent in store.deliveries.undelivered(destination):
        where = (sent.job_id, str(sent.page_number), sent.destination)
        table.add_row(*where, sent.status, str(sent.attempts), sent.response, sent.reason)
    _print(table)
    for name, count in store.deliveries.waiting_for_others({known.name for known in settings.destinations}).items():
        print(f"warning: {count} deliveries wait for {name}, which is no destination in the settings", file=sys.stderr)


@app.command()
def resend(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="Only this job's.", show_default=False)] = None,
    config: Config = None,
    destination: Annotated[str | None, typer.Option(help="Only what was for this one.")] = None,
) -> None:
    """Send again what was refused or given up, the same bytes: after the destination, or its settings, were mended."""
    if job is None and destination is None:
        raise SettingsError("say what: a job, or --destination NAME; `undelivered` lists what there is")
    store, _ = _open(load_settings(config))
    if job is not None:
        store.jobs.get(job)
    found = store.deliveries.undelivered(destination, job)
    for sent in found:
        assert sent.id is not None
        store.deliveries.retry(sent.id, "cli")
    print(f"{len(found)} deliveries are sent again")


@app.command()
def unmatched(
    config: Config = None,
    patient: Annotated[bool, typer.Option("--patient", help="Print what the page names, too.")] = False,
) -> None:
    """List jobs that wait until an order, or a person (`identify`), says whose they are."""
    store, _ = _open(load_settings(config))
    table = Table("job", "age", "source", "reason", *(["patient ID", "accession number"] if patient else []))
    for job in store.jobs.unmatched():
        context = job.context
        named = [context.patient_id, context.accession_number] if patient else []
        table.add_row(job.id, _age(job), job.source, job.reason, *named)
    _print(table)


@app.command()
def identify(
    job: JobId,
    config: Config = None,
    patient_id: Annotated[str, typer.Option(help="Whose ECG it is (DICOM PatientID).")] = "",
    issuer: Annotated[str, typer.Option(help="Who gave that ID (DICOM IssuerOfPatientID).")] = "",
    patient_name: Annotated[str, typer.Option(help="DICOM PatientName, e.g. DOE^JANE.")] = "",
    birth_date: Annotated[str, typer.Option(help="YYYYMMDD.")] = "",
    sex: Annotated[str, typer.Option(help="F, M or O.")] = "",
    accession_number: Annotated[str, typer.Option(help="The order's accession number.")] = "",
) -> None:
    """Say whose ECG a held job is; what is left out stays, or comes from the patient's record or the order."""
    store, _ = _open(load_settings(config))
    told = StudyContext(
        patient_id=patient_id,
        issuer_of_patient_id=issuer,
        patient_name=patient_name,
        patient_birth_date=birth_date,
        patient_sex=sex,
        accession_number=accession_number,
    )
    identify_job(store, job, told, "cli")
    print(f"job {job} is queued again")


@app.command()
def confirm(job: JobId, config: Config = None) -> None:
    """Say that a job's result is right: it is sent as final, and leaves if it was held back."""
    settings = load_settings(config)
    store, spool = _open(settings)
    confirm_job(store, spool, settings, job, "cli")
    print(f"job {job} is confirmed")


@app.command()
def merges(
    config: Config = None,
    settle: Annotated[int | None, typer.Option(help="Number of a line that the archive knows of now.")] = None,
) -> None:
    """List what was delivered under a patient ID that has since been merged; prints patient IDs."""
    store, _ = _open(load_settings(config))
    if settle is not None:
        store.patients.settle_merge(settle, "cli")
    table = Table("number", "job", "merged at (UTC)", "delivered as", "now")
    for notice in store.patients.merge_notices():
        prior = "^".join(part for part in (notice.prior_patient_id, notice.prior_issuer) if part)
        now = "^".join(part for part in (notice.surviving_patient_id, notice.surviving_issuer) if part)
        table.add_row(str(notice.id), notice.job_id, f"{notice.created_at:%Y-%m-%d %H:%M}", prior, now)
    _print(table)


@app.command()
def cancel(job: JobId, config: Config = None) -> None:
    """Drop a job that does not run, and what it has not delivered yet."""
    store, _ = _open(load_settings(config))
    store.jobs.cancel(job, "cli")
    print(f"job {job} is cancelled")


@app.command()
def check_config(config: Config = None) -> None:
    """Check a settings file and the certificates it names, and print every setting in effect, as TOML."""
    settings = load_settings(config)
    check_tls(settings)
    print(to_toml(settings))
    for certificate in certificates(settings, utc_now()):
        if certificate.not_after is not None:
            print(f"# {certificate.file} ends on {certificate.not_after:%Y-%m-%d}")
        if certificate.problem:
            print(f"warning: {certificate.problem}", file=sys.stderr)


@app.command()
def echo(destination: DestinationName, config: Config = None) -> None:
    """Try a destination step by step, and say what to do about a step that fails; nothing is stored there."""
    settings = load_settings(config)
    _print_steps(kind_named(destination, settings).check())


@app.command()
def send_test(destination: DestinationName, config: Config = None) -> None:
    """Try a destination like `echo`, then send it a made-up ECG of patient ECGGW-TEST."""
    settings = load_settings(config)
    _print_steps(kind_named(destination, settings).send_test())


@app.command()
def find(
    destination: DestinationName,
    config: Config = None,
    patient_id: Annotated[str, typer.Option(help="DICOM PatientID.")] = "",
    study_date: Annotated[str, typer.Option(help="YYYYMMDD or YYYYMMDD-YYYYMMDD.")] = "",
    accession_number: Annotated[str, typer.Option()] = "",
    modality: Annotated[str, typer.Option(help="E.g. ECG.")] = "",
    description: Annotated[str, typer.Option(help="With * and ? as wild cards.")] = "",
    limit: Annotated[int, typer.Option(min=1)] = 50,
    patient: Annotated[bool, typer.Option("--patient", help="Print whose studies they are, too.")] = False,
) -> None:
    """Ask an archive which studies it has (C-FIND Study Root, or QIDO-RS); if it does not say, tell what to do."""
    settings = load_settings(config)
    query = StudyQuery(
        patient_id=patient_id,
        study_date=study_date,
        accession_number=accession_number,
        modalities=modality,
        study_description=description,
    )
    studies, steps = kind_named(destination, settings).find(query, limit)
    if steps:
        _print_steps(steps)
    whose = ("patient ID", "name") if patient else ()
    table = Table("date", "modalities", "accession number", "description", "Study Instance UID", *whose)
    for study in studies:
        row = (study.study_date, study.modalities, study.accession_number, study.study_description)
        names = (study.patient_id, study.patient_name) if patient else ()
        table.add_row(*row, study.study_instance_uid, *names)
    _print(table)
    if len(studies) == limit:
        print(f"the first {limit}; there may be more: --limit", file=sys.stderr)


@app.command()
def pull(
    source: Annotated[str, typer.Option("--from", metavar="DESTINATION", help="Its name in the settings.")],
    config: Config = None,
    study_date: Annotated[str, typer.Option(help="YYYYMMDD or YYYYMMDD-YYYYMMDD.")] = "",
    modality: Annotated[str, typer.Option(help="Of series, e.g. OT,SC,ECG; not set: all.")] = "",
    description: Annotated[str, typer.Option(help="Of the study, with * and ? as wild cards.")] = "",
    patient_id: Annotated[str, typer.Option(help="DICOM PatientID.")] = "",
    batch: Annotated[int, typer.Option(min=1, help="Objects fetched at once.")] = 20,
    pause: Annotated[float, typer.Option(min=0, help="Seconds between two batches.")] = 0.0,
    queue: Annotated[int, typer.Option(min=1, help="While more jobs wait, nothing is fetched.")] = 200,
) -> None:
    """Fetch old pages from an archive; what is here already is left out, so it may be ended and begun again."""
    settings = load_settings(config)
    store, spool = _open(settings)
    query = StudyQuery(study_date=study_date, study_description=description, patient_id=patient_id)
    modalities = tuple(part.strip() for part in modality.split(",") if part.strip())
    wanted = Wanted(query=query, modalities=modalities, batch=batch, pause_s=pause, maximum_queued=queue)
    archive = kind_named(source, settings).archive(Intake(spool, store), settings.dicom.maximum_object_mib)
    end = show_pull(archive, store, wanted, _console())
    sys.exit(1 if end.failed else 0)


@app.command()
def demo() -> None:
    """Show the whole way on simulated pages: in by DICOM and folder, out to a bundled PACS and HL7 listener."""
    from gateway.demo import run_demo  # draws pages: nothing but this command needs it

    sys.exit(run_demo())


def to_toml(settings: Settings) -> str:
    """Return settings as TOML that loads to the same settings; what is not set is a comment."""
    return "\n".join(_section(settings, "")).strip()


def _section(section: BaseModel, path: str) -> list[str]:
    """Return the lines of one table: its plain values first, then its sub-tables and arrays of tables."""
    plain: list[str] = []
    tables: list[str] = []
    for name in type(section).model_fields:
        value = getattr(section, name)
        inner = f"{path}.{name}" if path else name
        if isinstance(value, BaseModel):
            tables += ["", f"[{inner}]", *_section(value, inner)]
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            for item in value:
                tables += ["", f"[[{inner}]]", *_section(item, inner)]
        else:
            plain.append(f"# {name} is not set" if value is None else f"{name} = {_value(value)}")
    return plain + tables


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_value(key)} = {_value(item)}" for key, item in value.items()) + "}"
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)


def _submit(intake: Intake, data: bytes, told: StudyContext, destinations: tuple[str, ...] | None) -> Accepted:
    media_type = media_type_of(data)
    if media_type == "application/dicom":
        read = read_context(data)
        told = with_told(read, told)
        source_key = read.source_sop_instance_uid
    else:
        source_key = file_key("submit", told, data)
    return intake.accept(
        source="submit",
        source_key=source_key,
        media_type=media_type,
        data=data,
        context=told,
        destinations=destinations,
        actor="cli",
    )


def _print_steps(steps: Iterable[Step]) -> None:
    """Print each step when it is done; exit status 1 if one failed."""
    failed = False
    for step in steps:
        print(f"{'ok    ' if step.ok else 'FAILED'} {step.name}: {step.found}", flush=True)
        if step.advice:
            print(f"       what to do: {step.advice}")
        failed = failed or not step.ok
    sys.exit(1 if failed else 0)


def _open(settings: Settings) -> tuple[Store, Spool]:
    root = settings.storage.path
    return Store(root / "gateway.db"), Spool(root / "spool", settings.storage.minimum_free_mib)


def _age(job: Job) -> str:
    seconds = int((utc_now() - job.created_at).total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _figure(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.2f} {unit}".strip()


def _console() -> Console:
    """Return a console that prints text as it is, and wraps it for a person's terminal only."""
    return Console(width=None if sys.stdout.isatty() else 1000, markup=False, highlight=False, emoji=False)


def _print(table: Table) -> None:
    _console().print(table)
