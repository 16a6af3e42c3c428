"""Every command under its heading in `--help`, and what an error becomes."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from gateway import __version__
from gateway.cli import users
from gateway.cli.administration import recover
from gateway.cli.configuration import check_config, config_show, example_config, reload
from gateway.cli.destinations import destinations, echo, find, pause, pull, resend, resume, send_test, undelivered
from gateway.cli.jobs import archive, cancel, import_run, jobs, retry, show, submit
from gateway.cli.options import with_options
from gateway.cli.review import confirm, correct, identify, merges, unmatched
from gateway.cli.run import demo, serve, worker
from gateway.cli.storage import backup, disk, hold, release, restore
from gateway.errors import GatewayError, SettingsError

PROGRAM = "ecg-gateway"
_GROUPS = {
    "Run": (serve, worker, demo),
    "Jobs": (submit, jobs, show, retry, cancel, hold, release),
    "Review": (unmatched, identify, correct, confirm, merges),
    "Destinations": (destinations, pause, resume, echo, send_test, find, pull, undelivered, resend),
    "Administration": (example_config, check_config, reload, backup, restore, recover, disk),
}

app = typer.Typer(
    name=PROGRAM,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 done; 1 something failed, the reason is on standard error; 2 the command line or the "
    "settings are wrong; 130 interrupted by Ctrl-C.",
)
for _panel, _commands in _GROUPS.items():
    for _command in _commands:
        app.command(rich_help_panel=_panel)(with_options(_command))

app.command("import", rich_help_panel="Jobs")(with_options(import_run))
_ALL_OPTIONS = {"allow_extra_args": True, "ignore_unknown_options": True}
app.command(rich_help_panel="Jobs", context_settings=_ALL_OPTIONS, add_help_option=False)(archive)

_config = typer.Typer(no_args_is_help=True, help="The settings in effect.")
_config.command("show")(with_options(config_show))
app.add_typer(_config, name="config", rich_help_panel="Administration")

_user = typer.Typer(no_args_is_help=True, help="Who may log in to the web pages.")
_user.command("add")(with_options(users.add))
_user.command("list")(with_options(users.show_all))
_user.command("disable")(with_options(users.disable))
_user.command("role")(with_options(users.role))
_user.command("password")(with_options(users.password))
app.add_typer(_user, name="user", rich_help_panel="Administration")

_token = typer.Typer(no_args_is_help=True, help="Which programs may use the REST interface.")
_token.command("add")(with_options(users.add_token))
_token.command("list")(with_options(users.show_tokens))
_token.command("revoke")(with_options(users.revoke_token))
app.add_typer(_token, name="token", rich_help_panel="Administration")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Turn pictures of ECGs into DICOM waveforms and HL7 messages.

    A job is accepted by its id, or by the first characters of its id: at least four, and enough to be unique.
    """


def run() -> int:
    """Run the command that the process was started with; return its exit status."""
    try:
        app(prog_name=PROGRAM)
    except GatewayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, SettingsError) else 1
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0
