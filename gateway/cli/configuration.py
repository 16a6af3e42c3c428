"""`example-config`, `check-config`, `config show`, `reload`: settings there are, mistakes, what is in effect."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from gateway.cli.arguments import Config
from gateway.cli.output import show_steps
from gateway.delivery.dicom import report_step
from gateway.delivery.kinds import kind_of
from gateway.domain.clock import utc_now
from gateway.operations.check import surroundings
from gateway.operations.reload import ask_reload
from gateway.security.certificates import certificates
from gateway.settings import Settings, SettingsFile, examine, example_text, explained, load_settings

_WRONG = 2


def example_config() -> None:
    """Print a settings file that names and explains every setting, each with its default."""
    print(example_text(), end="")


def check_config(
    config: Config = None,
    peers: Annotated[bool, typer.Option("--peers", help="Check every destination, too, as `echo` does.")] = False,
) -> None:
    """Find every mistake of a settings file, on this machine and as this user: run it as the gateway's user.

    Exit status: 0 no mistake; 2 mistakes, a line each; 1 a destination failed (--peers). A warning is no mistake.
    """
    file = SettingsFile.read(config)
    examined = examine(Settings, file.tree)
    found = list(examined.mistakes)
    if examined.right is not None:
        found += examined.further(surroundings(examined.right, utc_now()))
    mistakes = [mistake for mistake in found if mistake.fatal]
    if mistakes:
        print(file.report(mistakes), file=sys.stderr)
    for warning in found:
        if not warning.fatal:
            print(f"warning: {file.words(warning)}", file=sys.stderr)
    if mistakes or examined.right is None:
        sys.exit(_WRONG)
    print(f"{file.place(())}: no mistakes")
    for peer in filter(None, (kind_of(each, examined.right).committing for each in examined.right.destinations)):
        print(f"{peer.name}: {report_step(peer, examined.right.dicom).found}")
    for certificate in certificates(examined.right, utc_now()):
        print(f"{certificate.file} ends on {certificate.not_after:%Y-%m-%d}")
    if peers:
        sys.exit(0 if _check_peers(examined.right) else 1)


def reload(
    config: Config = None,
    timeout: Annotated[float, typer.Option(min=1, help="How many seconds to wait for the outcome.")] = 60.0,
) -> None:
    """Have the running gateway follow its settings file, and print what changed and what needs a restart.

    Associations go on. A wrong file changes nothing. Exit status 0: changed; 1: it was refused; 2: the file is wrong.
    """
    storage = load_settings(config).storage
    outcome = ask_reload(storage.path, timeout, storage.node)
    print(outcome.words, file=sys.stdout if outcome.ok else sys.stderr)
    sys.exit(0 if outcome.ok else 1)


def _check_peers(settings: Settings) -> bool:
    """Check every destination; return whether none failed."""
    well = True
    for destination in settings.destinations:
        print(f"{destination.name} ({destination.kind})", flush=True)
        well &= show_steps(kind_of(destination, settings).check())
    return well


def config_show(config: Config = None) -> None:
    """Print every setting in effect, as TOML, with the line that it comes from; what may be secret is masked."""
    settings = load_settings(config)
    print(explained(settings, SettingsFile.read(config)))
