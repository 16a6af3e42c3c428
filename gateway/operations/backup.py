"""Backup and restore: the database and the spool of one moment, in one file.

The database is copied first and the spool after it, while nothing old is deleted: whatever a row of the copy names is
in the backup, and what came in between is there as files that belong to no job (`gateway.intake.recover`).  A restore
puts the database in place last: before that, a gateway does not start on what is there.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from gateway import __version__
from gateway.domain.clock import utc_now
from gateway.errors import StorageError
from gateway.settings import StorageSettings
from gateway.spool import archive
from gateway.spool.archive import Manifest
from gateway.spool.folder import Spool
from gateway.spool.owner import owned
from gateway.store.backends import copies
from gateway.store.database import check_version
from gateway.store.store import database_url


def back_up(settings: StorageSettings, spool: Spool, target: Path) -> Manifest:
    """Write a backup into the new file `target`, while the gateway runs or not; it is whole, or there is none.

    Raises
    ------
    StorageError
        `target` exists, or there is no database, or something cannot be read or written.
    """
    _check_on_disk(settings, "back up the object store by its own means, and the database by those of PostgreSQL")
    if target.exists():
        raise StorageError(f"{target} exists: a backup replaces no file")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as name, spool.kept_whole():
            folder = Path(name)
            copied = copies.save(database_url(settings), folder / "gateway.db")
            head = Manifest(
                gateway=__version__,
                database_version=copied.version,
                made_at=utc_now(),
                rows=copied.rows,
                sha256={},
            )
            manifest = archive.write(folder / "backup", folder / "gateway.db", spool, head)
            if target.exists():
                raise StorageError(f"{target} exists: a backup replaces no file")
            archive.put_in_place(folder / "backup", target)
    except OSError as error:
        raise StorageError(f"{error.filename or target}: {error.strerror or error}") from error
    return manifest


def restore(settings: StorageSettings, file: Path) -> tuple[Manifest, int]:
    """Put a backup where the settings say, where there is no database yet.

    Files that are in the spool already stay: a lost database left them.

    Returns
    -------
    tuple[Manifest, int]
        What the backup holds, and how many of its files were in the spool already.

    Raises
    ------
    StorageError
        The backup is damaged or of a newer gateway, or there is a database already, or a gateway runs there.
    """
    _check_on_disk(settings, "restore into a folder (`--into FOLDER`), and copy its spool/ to the bucket")
    manifest = archive.check(file)
    check_version(manifest.database_version, f"{file}, made by version {manifest.gateway} of the gateway")
    root = settings.path
    with owned(root, settings.node, alone=True):
        _check_empty(settings)
        folder = root / ".restore"
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
            kept = archive.unpack(file, root, folder / "gateway.db")
            copies.bring_up_to_date(folder / "gateway.db")
            if settings.database:
                copies.load(folder / "gateway.db", database_url(settings))
            else:
                archive.put_in_place(folder / "gateway.db", root / "gateway.db")
        except OSError as error:
            raise StorageError(f"{error.filename or root}: {error.strerror or error}") from error
        finally:
            with suppress(OSError):
                shutil.rmtree(folder)
    return manifest, kept


def _check_on_disk(settings: StorageSettings, instead: str) -> None:
    if settings.spool:
        raise StorageError(f"spool = '{settings.spool}': a backup is one file of a spool that is a folder; {instead}")


def _check_empty(settings: StorageSettings) -> None:
    if settings.database:
        copies.check_empty(database_url(settings))
        return
    for name in ("gateway.db", "gateway.db-wal", "gateway.db-shm"):  # SQLite would apply a log that was left behind
        path = settings.path / name
        if path.exists():
            raise StorageError(f"{path.resolve()} exists: a backup is restored only where there is no database")
