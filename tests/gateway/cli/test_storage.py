"""What is kept, and what that takes, at the command line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from gateway.domain.clock import utc_now
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.store.tables import Job, new_id

Run = Callable[..., tuple[int, str, str]]


def test_a_legal_hold_is_set_shown_and_ended(run: Run, store: Store, reviewed: Job) -> None:
    assert run("hold", reviewed.id[:8])[:2] == (0, f"job {reviewed.id} is on legal hold\n")
    assert "legal hold" in run("jobs")[1] and "files: legal hold" in run("show", reviewed.id)[1]
    assert json.loads(run("jobs", "--json")[1])[0]["legal_hold"] is True
    assert run("release", reviewed.id)[0] == 0
    assert "legal hold" not in run("jobs")[1] and not store.jobs.get(reviewed.id).legal_hold


def test_deleted_files_are_shown(run: Run, store: Store, reviewed: Job) -> None:
    store.jobs.cancel(reviewed.id, "cli")
    assert store.files.purge(reviewed.id, utc_now(), "retention", "too old")
    assert "deleted 20" in run("jobs")[1]
    status, _, errors = run("retry", reviewed.id)
    assert status == 1 and f"the files of job {reviewed.id} were deleted on" in errors


def test_disk_shows_what_fills_it(run: Run, config: Path, tmp_path: Path, spool: Spool, reviewed: Job) -> None:
    inbox = tmp_path / "in"
    config.write_text(config.read_text() + f'[[folders]]\npath = "{inbox}"\n[[folders]]\npath = "{tmp_path}/absent"\n')
    for name, size in (("done/a.png", 10), ("rejected/b.png", 20), ("rejected/b.png.reason.txt", 3), ("c.png", 5)):
        (inbox / name).parent.mkdir(parents=True, exist_ok=True)
        (inbox / name).write_bytes(bytes(size))
    spool.write_source(reviewed.id, b"12345")
    spool.write_artefact(reviewed.id, "page-1.dcm", b"123")
    shown = json.loads(run("disk", "--json")[1])
    found = {(each["what"], Path(each["where"]).name): (each["files"], each["bytes"]) for each in shown["used"]}
    assert found.pop(("database", "gateway.db"))[1] > 100_000
    assert found == {
        ("sources", "spool"): (1, 5),
        ("artefacts", "spool"): (1, 3),
        ("quarantine", "spool"): (0, 0),
        ("watched folder: waiting", "in"): (1, 5),
        ("watched folder: done", "in"): (1, 10),
        ("watched folder: rejected", "in"): (2, 23),
        **{(f"watched folder: {what}", "absent"): (0, 0) for what in ("waiting", "done", "rejected")},
    }
    assert shown["free_bytes"] > 0
    status, output, _ = run("disk")
    assert status == 0 and "MiB are free. Below 0 MiB, files of finished jobs are deleted" in output


def test_backup_and_restore(
    run: Run, config: Path, tmp_path: Path, spool: Spool, store: Store, reviewed: Job, gateway_command: Run
) -> None:
    spool.write_source(reviewed.id, b"12345")
    backup = tmp_path / "backup.tar"
    status, output, errors = run("backup", backup)
    assert (status, errors) == (0, "")
    assert output.startswith(f"{backup}: 1 jobs and 1 files of the spool, ") and "database version 0" in output
    status, _, errors = run("backup", backup)
    assert status == 1 and "backup.tar exists: a backup replaces no file" in errors
    status, _, errors = run("restore", backup)
    assert status == 1 and "gateway.db exists: a backup is restored only where there is no database" in errors
    status, output, errors = run("restore", backup, "--into", tmp_path / "into")
    assert (status, errors) == (0, "")
    assert output.startswith("restored what was there at 20") and output.endswith("UTC: 1 jobs\n")
    assert (tmp_path / "into" / "spool" / reviewed.id / "source").read_bytes() == b"12345"
    second = tmp_path / "second.toml"
    second.write_text(config.read_text().replace(f'path = "{tmp_path}"', f'path = "{tmp_path}/into"'))
    assert reviewed.id in gateway_command(second, "jobs")[1]


def test_restore_names_what_came_after_the_backup(run: Run, tmp_path: Path, spool: Spool, reviewed: Job) -> None:
    backup, late = tmp_path / "backup.tar", new_id()
    assert run("backup", backup)[0] == 0
    spool.write_source(late, b"page")
    os.utime(spool.path / late, (0, 0))
    (tmp_path / "into").mkdir()
    shutil.copytree(spool.path, tmp_path / "into" / "spool", copy_function=shutil.copy2)
    output = run("restore", backup, "--into", tmp_path / "into")[1]
    assert "1 folders in the spool belong to no job: `ecg-gateway recover` makes jobs of them" in output


def test_where_no_gateway_ran_nothing_is_made(run: Run, config: Path, tmp_path: Path) -> None:
    for command in (("backup", tmp_path / "backup.tar"), ("disk",)):
        status, _, errors = run(*command)
        assert status == 2 and "no gateway has run here" in errors
    assert os.listdir(tmp_path) == [config.name]
