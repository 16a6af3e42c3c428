"""The spool in a folder of this machine, or one that several machines share.

A file is written under a temporary name, fsynced and renamed, and its folder is fsynced.  The file is complete or
absent, and it survives a power failure after `write` has returned.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from gateway.domain.received import PIECE_BYTES, Data, opened
from gateway.errors import StorageError, UnreadableFile
from gateway.spool.place import JOB_ID, QUARANTINE, SOURCE


@contextmanager
def as_storage_error(kind: type[StorageError] = StorageError) -> Iterator[None]:
    """Raise StorageError, or a kind of it, in place of OSError, without the names in it."""
    try:
        yield
    except OSError as error:
        raise kind(f"spool: {error.strerror or type(error).__name__}") from error


class Disk:
    """A folder that contains one folder per job; created if missing (see `gateway.spool.place.Place`)."""

    on_disk = True

    @as_storage_error()
    def __init__(self, path: Path) -> None:
        self._path = path
        self.where = str(path)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_folder(path.parent)

    def check(self) -> None:
        """Nothing: a file system is taken to do what `fsync` and `rename` promise."""

    @as_storage_error()
    def write(self, folder: str, name: str, data: Data) -> None:
        """Store a file; no partial file remains."""
        path = self._path / folder
        new = not path.exists()
        try:
            path.mkdir(mode=0o700, exist_ok=True)
            write_durably(path / name, data)
            if new or name == SOURCE:  # who wrote the folder's name may have ended before it was durable
                sync_folder(self._path)
        except OSError:
            if new:
                shutil.rmtree(path, ignore_errors=True)
            raise

    @as_storage_error(UnreadableFile)
    def open(self, folder: str, name: str) -> BinaryIO | None:
        """Return a file; None where it is gone."""
        try:
            return (self._path / folder / name).open("rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    @as_storage_error()
    def has(self, folder: str, name: str) -> bool:
        """Return whether a file is there."""
        return (self._path / folder / name).is_file()

    @as_storage_error()
    def files(self, folder: str) -> dict[str, int]:
        """Return the size of each file of a folder."""
        found = {}
        try:
            names = os.listdir(self._path / folder)
        except FileNotFoundError:
            return {}
        for name in names:
            try:
                found[name] = (self._path / folder / name).lstat().st_size
            except FileNotFoundError:
                continue
        return found

    def everything(self) -> Iterator[tuple[str, str, int]]:
        """Yield folder, name and size of every file."""
        for inside in ("", QUARANTINE):
            for job_id in self.folders(inside):
                folder = os.path.join(inside, job_id)
                for name, size in self.files(folder).items():
                    yield folder, name, size

    @as_storage_error()
    def folders(self, inside: str = "") -> list[str]:
        """Return the job ids that have a folder."""
        try:
            return [name for name in sorted(os.listdir(self._path / inside)) if JOB_ID.fullmatch(name)]
        except FileNotFoundError:
            return []

    @as_storage_error()
    def unchanged(self, for_s: float, inside: str = "") -> list[str]:
        """Return the job ids whose folder did not change, or was moved there, so long ago."""
        newest = time.time() - for_s
        try:
            with os.scandir(self._path / inside) as entries:
                found = {entry.name: entry.stat() for entry in entries if JOB_ID.fullmatch(entry.name)}
        except FileNotFoundError:
            if not inside:
                raise
            return []
        times = {name: status.st_ctime if inside else status.st_mtime for name, status in found.items()}
        return sorted(name for name, changed in times.items() if changed < newest)

    @as_storage_error()
    def move(self, folder: str, target: str) -> None:
        """Move a folder by one rename."""
        old, new = self._path / folder, self._path / target
        new.parent.mkdir(mode=0o700, exist_ok=True)
        os.rename(old, new)
        sync_folder(new.parent)
        sync_folder(old.parent)

    @as_storage_error()
    def remove(self, folder: str) -> None:
        """Delete a folder."""
        try:
            shutil.rmtree(self._path / folder)
        except FileNotFoundError:
            return


def write_durably(path: Path, data: Data, mode: int = 0o600) -> None:
    """Write a file that is complete or absent and survives a power failure; raise OSError.

    `mode` has its permissions; the umask applies to them.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
        with open(descriptor, "wb") as file:
            shutil.copyfileobj(opened(data), file, PIECE_BYTES)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable; raise OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot; they keep names at once
            raise
    finally:
        os.close(descriptor)
