"""What fills the disk: the files of jobs, the database, the watched folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import StorageError
from gateway.settings import Settings
from gateway.spool.folder import Spool
from gateway.spool.place import Size
from gateway.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What one kind of files takes; `files` is None of the database."""

    what: str
    where: str
    files: int | None
    bytes: int


def disk_use(settings: Settings, spool: Spool, store: Store) -> Iterator[Used]:
    """Yield what takes space; the gateway writes its log to standard error, into no file.

    Raises
    ------
    StorageError
        A folder cannot be read, or the database does not answer.
    """
    for what, size in spool.usage().items():
        yield Used(what=what, where=spool.where(), files=size.files, bytes=size.bytes)
    where = store.database.url.render_as_string(hide_password=True)
    yield Used(what="database", where=where, files=None, bytes=store.database.size_bytes())
    for folder in settings.folders:
        for what, size in _inbox(folder.path).items():
            yield Used(what=f"watched folder: {what}", where=str(folder.path), files=size.files, bytes=size.bytes)


def _inbox(path: Path) -> dict[str, Size]:
    """Return what waits in a watched folder, and what `done/` and `rejected/` hold; a missing one holds nothing."""
    found = {"waiting": Size(), "done": Size(), "rejected": Size()}
    for place, _, names in os.walk(path, onerror=_fail):
        top = Path(place).relative_to(path).parts[:1]
        what = top[0] if top and top[0] in found else "waiting"
        for name in names:
            try:
                found[what] += Size(1, os.lstat(os.path.join(place, name)).st_size)
            except FileNotFoundError:
                continue
    return found


def _fail(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise StorageError(f"{error.filename}: {error.strerror}") from error
