"""`hold`, `release`, `disk`, `backup`, `restore`: what is kept, what that takes, and how it survives a lost disk."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from gateway.cli.arguments import AsJson, Config, JobId, actor, check_database, find_job_id, open_spool, open_store
from gateway.cli.output import print_json, print_table
from gateway.intake.recover import unexplained
from gateway.operations.backup import back_up
from gateway.operations.backup import restore as restore_backup
from gateway.operations.disk import disk_use
from gateway.settings import StorageSettings, load_settings

_MIB = 1024 * 1024


def hold(job: JobId, config: Config = None) -> None:
    """Put a job on legal hold: its files are not deleted, however old they are or full the disk is."""
    store = open_store(load_settings(config))
    job_id = find_job_id(store, job)
    store.files.hold(job_id, actor())
    print(f"job {job_id} is on legal hold")


def release(job: JobId, config: Config = None) -> None:
    """End the legal hold of a job: its files are deleted when their time has come."""
    store = open_store(load_settings(config))
    job_id = find_job_id(store, job)
    store.files.release(job_id, actor())
    print(f"job {job_id} is not on legal hold")


def disk(config: Config = None, as_json: AsJson = False) -> None:
    """Show what fills the disk: files of jobs, quarantine, database, watched folders."""
    settings = load_settings(config)
    store, spool = open_store(settings), open_spool(settings)
    used, free_bytes = list(disk_use(settings, spool, store)), spool.free_bytes()
    if as_json:
        print_json({"free_bytes": free_bytes, "used": [asdict(each) for each in used]})
        return
    table = Table("what", "files", "MiB", "where")
    for each in used:
        table.add_row(each.what, "" if each.files is None else str(each.files), f"{each.bytes / _MIB:.1f}", each.where)
    print_table(table)
    if not spool.on_disk:
        least_mib = settings.storage.minimum_free_mib
        print(f"{free_bytes // _MIB} MiB are free here; below {least_mib} MiB, nothing is accepted.")
        return
    below_mib, until_mib = settings.storage.purge_marks_mib
    print(
        f"{free_bytes // _MIB} MiB are free. Below {below_mib} MiB, files of finished jobs are deleted until "
        f"{until_mib} MiB are free; below {settings.storage.minimum_free_mib} MiB, nothing is accepted."
    )


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The new file; it holds patient data.")],
    config: Config = None,
) -> None:
    """Write database and spool into one new file, also while the gateway runs."""
    settings = load_settings(config)
    check_database(settings)
    manifest = back_up(settings.storage, open_spool(settings), file)
    jobs = manifest.rows.get("job", 0)
    print(
        f"{file}: {jobs} jobs and {len(manifest.sha256) - 1} files of the spool, {file.stat().st_size / _MIB:.1f} MiB, "
        f"database version {manifest.database_version}"
    )


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="What `backup` wrote.")],
    config: Config = None,
    into: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Restore into this folder, with SQLite, instead of [storage] path."),
    ] = None,
) -> None:
    """Restore a backup where there is no database; it is checked first, and brought up to date."""
    settings = load_settings(config)
    if into is not None:
        settings = settings.model_copy(update={"storage": StorageSettings(path=into)})
    manifest, kept = restore_backup(settings.storage, file)
    print(f"restored what was there at {manifest.made_at:%Y-%m-%d %H:%M:%S} UTC: {manifest.rows.get('job', 0)} jobs")
    if kept:
        print(f"{kept} files were in the spool already and stay as they are")
    count = len(unexplained(open_spool(settings), open_store(settings)))
    if count:
        print(f"{count} folders in the spool belong to no job: `ecg-gateway recover` makes jobs of them")
