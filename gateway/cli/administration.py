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
