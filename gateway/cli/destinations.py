"""`destinations`, `pause`, `resume`, `echo`, `send-test`, `find`, `pull`, `undelivered`, `resend`: where results go."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from gateway.cli.arguments import (
    ArchiveName,
    AsJson,
    Config,
    DestinationName,
    Limit,
    OnlyDestination,
    OptionalJobId,
    actor,
    find_job_id,
    open_spool,
    open_store,
)
from gateway.cli.options import PullOptions, StudyOptions
from gateway.cli.output import console, delivery_fields, print_json, print_steps, print_table
from gateway.delivery.kinds import kind_named
from gateway.errors import SettingsError
from gateway.intake.accept import Intake
from gateway.intake.collect import Collection
from gateway.intake.pull import Wanted, show_pull
from gateway.settings import DicomDestination, load_settings
from gateway.store.tables import DestinationState


def destinations(config: Config = None, as_json: AsJson = False) -> None:
    """List the destinations: what waits for each, when something last arrived or failed, and which are paused."""
    settings = load_settings(config)
    store = open_store(settings)
    states, backlogs = store.destinations.states(), store.destinations.backlogs()
    found = [states.get(each.name, DestinationState(name=each.name)) for each in settings.destinations]
    waiting = {name: backlog.waiting for name, backlog in backlogs.items()}
    if as_json:
        print_json([each.model_dump(mode="json") | {"waiting": waiting.get(each.name, 0)} for each in found])
        return
    table = Table("destination", "state", "waiting", "last success", "last error")
    for each in found:
        state = f"paused by {each.paused_by}" if each.paused_at else "sends"
        delivered = f"{each.delivered_at:%Y-%m-%d %H:%M:%S} UTC" if each.delivered_at else ""
        error = f"{each.failed_at:%Y-%m-%d %H:%M:%S} UTC: {each.error}" if each.failed_at else ""
        table.add_row(each.name, state, str(waiting.get(each.name, 0)), delivered, error)
    print_table(table)


def pause(destination: DestinationName, config: Config = None) -> None:
    """Send nothing to a destination until `resume`, also after a restart. What waits for it is kept."""
    settings = load_settings(config)
    kind_named(destination, settings)
    open_store(settings).destinations.pause(destination, actor())
    print(f"{destination} is paused")


def resume(destination: DestinationName, config: Config = None) -> None:
    """Send to a paused destination again."""
    settings = load_settings(config)
    kind_named(destination, settings)
    open_store(settings).destinations.resume(destination)
    print(f"{destination} is sent to again")


def echo(destination: DestinationName, config: Config = None, as_json: AsJson = False) -> None:
    """Check a destination step by step, with advice for a step that fails. Nothing is stored there."""
    settings = load_settings(config)
    print_steps(kind_named(destination, settings).check(), as_json=as_json)


def send_test(destination: DestinationName, config: Config = None, as_json: AsJson = False) -> None:
    """Check a destination as `echo` does, then send it a simulated ECG of patient ECGGW-TEST."""
    settings = load_settings(config)
    print_steps(kind_named(destination, settings).send_test(), as_json=as_json)


def find(
    destination: DestinationName,
    studies: StudyOptions,
    config: Config = None,
    limit: Limit = 50,
    patient: Annotated[bool, typer.Option("--patient", help="Print the patients, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List an archive's studies (C-FIND Study Root, or QIDO-RS), with advice if the archive does not answer."""
    settings = load_settings(config)
    found, steps = kind_named(destination, settings).find(studies.query(studies.modality), limit)
    if steps:
        print_steps(steps, as_json=as_json)
    if as_json:
        hidden = set() if patient else {"patient_id", "patient_name"}
        print_json([{key: value for key, value in asdict(each).items() if key not in hidden} for each in found])
    else:
        whose = ("patient ID", "name") if patient else ()
        table = Table("date", "modalities", "accession number", "description", "Study Instance UID", *whose)
        for study in found:
            row = (study.study_date, study.modalities, study.accession_number, study.study_description)
            names = (study.patient_id, study.patient_name) if patient else ()
            table.add_row(*row, study.study_instance_uid, *names)
        print_table(table)
    if len(found) == limit:
        print(f"the first {limit}; there may be more: --limit", file=sys.stderr)


def pull(source: ArchiveName, studies: StudyOptions, how: PullOptions, config: Config = None) -> None:
    """Fetch old pages from an archive. What is here already is skipped, so a pull may be stopped and restarted."""
    settings = load_settings(config)
    modalities = tuple(part.strip() for part in studies.modality.split(",") if part.strip())
    wanted = Wanted(
        query=studies.query(),
        modalities=modalities,
        batch=how.batch,
        pause_s=how.pause,
        maximum_queued=how.queue,
    )
    kind = kind_named(source, settings)
    keeper: Intake | Collection
    if how.into is None:
        keeper = Intake(open_spool(settings), open_store(settings, create=True))
    else:
        peer = next(each for each in settings.destinations if each.name == source)
        if isinstance(peer, DicomDestination) and peer.retrieve == "move":
            raise SettingsError(
                f"{source} sends what is fetched to the gateway (C-MOVE): --into needs retrieve = 'get'"
            )
        keeper = Collection(how.into)
    archive = kind.archive(keeper.accept, settings.dicom.maximum_object_mib)
    end = show_pull(archive, keeper, wanted, console())
    sys.exit(1 if end.failed else 0)


def undelivered(config: Config = None, destination: OnlyDestination = None, as_json: AsJson = False) -> None:
    """List deliveries that a destination refused, or that failed in their last attempt."""
    settings = load_settings(config)
    store = open_store(settings)
    found = store.deliveries.undelivered(destination)
    if as_json:
        print_json([delivery_fields(delivery) for delivery in found])
    else:
        table = Table("job", "page", "destination", "state", "attempts", "answer", "reason")
        for sent in found:
            where = (sent.job_id, str(sent.page_number), sent.destination)
            table.add_row(*where, sent.status, str(sent.attempts), sent.response, sent.reason)
        print_table(table)
    waiting = store.deliveries.waiting_for_others({known.name for known in settings.destinations})
    for name, count in waiting.items():
        print(f"warning: {count} deliveries wait for {name}, which is no destination in the settings", file=sys.stderr)


def resend(job: OptionalJobId = None, config: Config = None, destination: OnlyDestination = None) -> None:
    """Send the same bytes again after a refusal or a last failed attempt, once the destination is fixed."""
    if job is None and destination is None:
        raise SettingsError("name a job, or --destination NAME; `undelivered` lists what can be sent again")
    store = open_store(load_settings(config))
    found = store.deliveries.undelivered(destination, None if job is None else find_job_id(store, job))
    for sent in found:
        assert sent.id is not None
        store.deliveries.retry(sent.id, actor())
    print(f"{len(found)} deliveries are sent again")
