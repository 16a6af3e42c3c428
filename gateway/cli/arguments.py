"""Arguments that many commands take, how a shell completes them, and how a short job id becomes the whole one.

A shell asks for completions while a person types: no completion prints an error, and none creates anything.
"""

from __future__ import annotations

import os
import pwd
from contextlib import closing, suppress
from pathlib import Path
from typing import Annotated

import typer

from gateway.errors import GatewayError, NotFound, SettingsError
from gateway.settings import Settings, load_settings
from gateway.spool.folder import Spool
from gateway.store.store import Store

_SHORTEST_ID = 4
_COMPLETIONS = 50


def _complete_job(context: typer.Context, incomplete: str) -> list[str]:
    with suppress(GatewayError), closing(open_store(_settings(context))) as store:
        return store.jobs.ids(incomplete, _COMPLETIONS)
    return []


def _complete_destination(context: typer.Context, incomplete: str) -> list[str]:
    with suppress(GatewayError):
        names = [destination.name for destination in _settings(context).destinations]
        return [name for name in names if name.startswith(incomplete)]
    return []


def _settings(context: typer.Context) -> Settings:
    """Return the settings that the command line names so far."""
    config = context.params.get("config")
    return load_settings(Path(config) if config else None)


Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="Settings in TOML. Not set: the default settings."),
]
DestinationName = Annotated[
    str,
    typer.Argument(metavar="DESTINATION", help="Its name in the settings.", autocompletion=_complete_destination),
]
OnlyDestination = Annotated[
    str | None,
    typer.Option("--destination", help="Only deliveries to this one.", autocompletion=_complete_destination),
]
Destinations = Annotated[
    list[str] | None,
    typer.Option(
        "--destination",
        help="Send only to this destination; may be given several times.",
        autocompletion=_complete_destination,
    ),
]
ArchiveName = Annotated[
    str,
    typer.Option(
        "--from", metavar="DESTINATION", help="Its name in the settings.", autocompletion=_complete_destination
    ),
]
JobId = Annotated[
    str, typer.Argument(metavar="JOB", help="The job's id, or its first characters.", autocompletion=_complete_job)
]
OptionalJobId = Annotated[
    str | None,
    typer.Argument(
        metavar="[JOB]", help="Only this job's deliveries.", show_default=False, autocompletion=_complete_job
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON; times are ISO 8601, in UTC.")]
MAXIMUM_NUMBER = 2**31 - 1  # of a row: what a database's integer holds
Limit = Annotated[int, typer.Option(min=1, max=MAXIMUM_NUMBER, help="How many at most.")]


def actor() -> str:
    """Return who gives a command, for the audit trail: the user of the system."""
    try:
        return f"cli:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        return f"cli:{os.getuid()}"


def open_store(settings: Settings, *, create: bool = False) -> Store:
    """Open the store of a gateway.

    Parameters
    ----------
    create
        Make an embedded database where there is none; a command that only reads or changes jobs must not.

    Raises
    ------
    SettingsError
        There is no database where the settings say, and none is to be made.
    """
    if not create:
        check_database(settings)
    return Store.open(settings.storage)


def check_database(settings: Settings) -> None:
    """Raise SettingsError where there is no embedded database that the settings name."""
    path = settings.storage.path / "gateway.db"
    if not (settings.storage.database or path.exists()):
        raise SettingsError(
            f"no gateway has run here: there is no database {path.resolve()}. "
            "Name the settings by --config FILE, or change to the gateway's folder"
        )


def open_spool(settings: Settings) -> Spool:
    """Open the jobs' files."""
    return Spool.open(settings.storage)


def find_job_id(store: Store, given: str) -> str:
    """Return the id of the one job whose id begins with `given`.

    Raises
    ------
    NotFound
        No id begins so, or more than one does, or fewer than four characters were given.
    """
    if store.jobs.exists(given):
        return given
    if len(given) < _SHORTEST_ID:
        raise NotFound(f"no job {given}: give at least {_SHORTEST_ID} characters of its id")
    found = store.jobs.ids(given)
    if not found:
        raise NotFound(f"no job {given}")
    if len(found) > 1:
        raise NotFound(f"{len(found)} jobs have an id that begins with {given}: give more characters")
    return found[0]
