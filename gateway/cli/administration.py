"""`check-config`, `example-config`: the settings of this gateway, and all there are; `recover`: files without a job."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.table import Table

from gateway.cli.arguments import Config, open_spool, open_store
from gateway.cli.output import print_table
from gateway.delivery.dicom import report_step
from gateway.delivery.kinds import kind_of
from gateway.domain.clock import utc_now
from gateway.intake.accept import Intake
from gateway.intake.recover import recover as recover_files
from gateway.intake.recover import unexplained
from gateway.security.certificates import certificates, check_tls
from gateway.settings import example_text, load_settings, to_toml


def check_config(config: Config = None) -> None:
    """Check a settings file and the certificates it names, and print every setting in effect, as TOML."""
    settings = load_settings(config)
    check_tls(settings)
    print(to_toml(settings))
    for peer in filter(None, (kind_of(destination, settings).committing for destination in settings.destinations)):
        results = report_step(peer, settings.dicom)
        print(f"# {peer.name}: {results.found}")
        if not results.ok:
            print(f"warning: {peer.name}: {results.advice}", file=sys.stderr)
    for certificate in certificates(settings, utc_now()):
        if certificate.not_after is not None:
            print(f"# {certificate.file} ends on {certificate.not_after:%Y-%m-%d}")
        if certificate.problem:
            print(f"warning: {certificate.problem}", file=sys.stderr)


def example_config() -> None:
    """Print a settings file that names and explains every setting, each with its default."""
    print(example_text(), end="")


def recover(
    config: Config = None,
    only_list: Annotated[bool, typer.Option("--list", help="Only list the files.")] = False,
) -> None:
    """Make jobs of files in the spool that belong to no job: the database was lost, or is older than the spool.

    A DICOM object has its identity; any other file waits for a person.
    """
    settings = load_settings(config)
    spool, store = open_spool(settings), open_store(settings, create=True)
    if only_list:
        table = Table("job", "bytes", "file")
        paths = {job_id: spool.source_path(job_id) for job_id in unexplained(spool, store)}
        paths |= {job_id: spool.quarantined_path(job_id) for job_id in spool.quarantined()}
        for job_id, path in paths.items():
            table.add_row(job_id, str(path.stat().st_size) if path.exists() else "none", str(path))
        print_table(table)
        return
    failed = False
    for each in recover_files(Intake(spool, store), spool, store):
        if each.accepted is None:
            print(f"{spool.quarantined_path(each.job_id)}: {each.problem}", file=sys.stderr)
            failed = True
        else:
            print(f"job {each.accepted.job_id}{' (known before)' if each.accepted.duplicate else ''}")
    sys.exit(1 if failed else 0)
