"""`recover`: files without a job."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.table import Table

from gateway.cli.arguments import Config, open_spool, open_store
from gateway.cli.output import print_table
from gateway.intake.accept import Intake
from gateway.intake.recover import recover as recover_files
from gateway.intake.recover import unexplained
from gateway.settings import load_settings


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
        table = Table("job", "files", "bytes", "folder")
        found = dict.fromkeys(unexplained(spool, store), False) | dict.fromkeys(spool.quarantined(), True)
        for job_id, quarantined in found.items():
            size = spool.size(job_id, quarantined=quarantined)
            table.add_row(job_id, str(size.files), str(size.bytes), spool.where(job_id, quarantined=quarantined))
        print_table(table)
        return
    failed = False
    for each in recover_files(Intake(spool, store), spool, store):
        if each.accepted is None:
            print(f"{spool.where(each.job_id, quarantined=True)}: {each.problem}", file=sys.stderr)
            failed = True
        else:
            print(f"job {each.accepted.job_id}{' (known before)' if each.accepted.duplicate else ''}")
    sys.exit(1 if failed else 0)
