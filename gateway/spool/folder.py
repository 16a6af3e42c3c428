"""The durable files of a job: one folder per job id, with `source` and the artefacts made from it.

A file is written under a temporary name, fsynced and renamed, and its folder is fsynced.  The file is complete or
absent, and it survives a power failure after `write_source` has returned.  Every path is built from our own names,
never from those of a peer.  Only this module touches the files.

A folder that belongs to no job is never deleted: it goes to `quarantine/`, inside the spool, so that the move is one
rename.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gateway.domain.received import PIECE_BYTES, Data, opened
from gateway.errors import StorageError

_SOURCE = "source"
_QUARANTINE = "quarantine"
_JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ARTEFACT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Size:
    """How many files, and how many bytes they hold."""

    files: int = 0
    bytes: int = 0

    def __add__(self, other: Size) -> Size:
        return Size(self.files + other.files, self.bytes + other.bytes)


class Spool:
    """The store of all files of jobs.

    Parameters
    ----------
    path : Path
        The folder that contains one folder per job; created if missing.
    minimum_free_mib : int
        A source that would leave less free space than this, in MiB, is not stored; the space is for artefacts.

    Raises
    ------
    StorageError
        The folder cannot be created.
    """

    def __init__(self, path: Path, minimum_free_mib: int) -> None:
        self.path = path
        self._minimum_free_bytes = minimum_free_mib * _MIB
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_folder(path.parent)
        except OSError as error:
            raise _storage_error(error) from error

    def check_space(self, size: int = 0) -> None:
        """Raise StorageError if `size` more bytes would leave less than the minimum free."""
        free = self.free_bytes()
        if free - size < self._minimum_free_bytes:
            raise StorageError(f"spool: {free // _MIB} MiB free, {self._minimum_free_bytes // _MIB} MiB must stay free")

    def free_bytes(self) -> int:
        """Return how much space is free where the spool is."""
        try:
            return shutil.disk_usage(self.path).free
        except OSError as error:
            raise _storage_error(error) from error

    def temporary_file(self) -> BinaryIO:
        """Return a file for what is on its way in; it has no name, and is gone when it is closed."""
        try:
            return tempfile.TemporaryFile(dir=self.path)
        except OSError as error:
            raise _storage_error(error) from error

    def write_source(self, job_id: str, data: Data) -> Path:
        """Store the bytes of a job as received, in place of earlier ones; they are durable when this returns.

        Raises
        ------
        StorageError
            There is too little space, or the file cannot be written; no partial file remains.
        """
        path = self.source_path(job_id)
        self.check_space(opened(data).seek(0, os.SEEK_END))
        new = not path.parent.exists()
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            write_durably(path, data)
            sync_folder(self.path)
        except OSError as error:
            if new:
                shutil.rmtree(path.parent, ignore_errors=True)
            raise _storage_error(error) from error
        return path

    def open_source(self, job_id: str) -> BinaryIO | None:
        """Return the file of a job as received; None where it is gone or cannot be opened."""
        try:
            return self.source_path(job_id).open("rb")
        except OSError:
            return None

    def source_path(self, job_id: str) -> Path:
        """Return the path of the source of a job, whether it exists or not."""
        return self._folder(job_id) / _SOURCE

    def write_artefact(self, job_id: str, name: str, data: Data) -> Path:
        """Store a file made from the source under `name`; it replaces an earlier one.

        Raises
        ------
        ValueError
            `name` has other characters than letters, digits, dot, dash and underscore.
        StorageError
            The file cannot be written.
        """
        path = self.artefact_path(job_id, name)
        try:
            write_durably(path, data)
        except OSError as error:
            raise _storage_error(error) from error
        return path

    def artefact_path(self, job_id: str, name: str) -> Path:
        """Return the path of an artefact, whether it exists or not; raise ValueError for an invalid name."""
        if not _ARTEFACT.fullmatch(name) or name == _SOURCE or name.endswith(".tmp"):
            raise ValueError(f"{name!r} is no artefact name")
        return self._folder(job_id) / name

    def remove(self, job_id: str) -> None:
        """Delete a job's folder, if there is one."""
        try:
            shutil.rmtree(self._folder(job_id))
        except FileNotFoundError:
            return
        except OSError as error:
            raise _storage_error(error) from error

    def unchanged(self, for_s: float) -> list[str]:
        """Return the jobs with a folder in which nothing was made, replaced or deleted for so long."""
        newest = time.time() - for_s
        try:
            with os.scandir(self.path) as entries:
                return sorted(e.name for e in entries if _JOB_ID.fullmatch(e.name) and e.stat().st_mtime < newest)
        except OSError as error:
            raise _storage_error(error) from error

    def size(self, job_id: str) -> Size:
        """Return what a job has in its folder."""
        return _size(self._folder(job_id))

    def usage(self) -> dict[str, Size]:
        """Return what sources, artefacts and the quarantine hold."""
        found = {"sources": Size(), "artefacts": Size(), "quarantine": Size()}
        for folder in self._folders(self.path):
            source = _size_of_file(folder / _SOURCE)
            everything = _size(folder)
            found["sources"] += source
            found["artefacts"] += Size(everything.files - source.files, everything.bytes - source.bytes)
        for folder in self._folders(self.path / _QUARANTINE):
            found["quarantine"] += _size(folder)
        return found

    def files(self) -> Iterator[Path]:
        """Yield every whole file of the jobs and of the quarantine; raise StorageError where one is no plain file."""
        for folder in (*self._folders(self.path), *self._folders(self.path / _QUARANTINE)):
            try:
                with os.scandir(folder) as found:
                    entries = sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda e: e.name)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise _storage_error(error) from error
            for entry in entries:
                if not entry.is_file(follow_symlinks=False):
                    raise StorageError(f"spool: {entry.path} is no plain file")
                yield Path(entry.path)

    @contextmanager
    def kept_whole(self) -> Iterator[None]:
        """While the block runs, nothing is deleted, whatever the retention says."""
        with self._lock(fcntl.LOCK_SH):
            yield

    @contextmanager
    def may_delete(self) -> Iterator[bool]:
        """Say whether files may be deleted or moved now: no backup runs, and none begins while the block runs."""
        with self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB) as locked:
            yield locked

    def holds_results(self, job_id: str) -> bool:
        """Return whether anything was made of a job's source: then there was a job."""
        return any(name != _SOURCE for name in self._files(self._folder(job_id)))

    def quarantine(self, job_id: str) -> bool:
        """Move a folder that no job explains out of the way; one without a whole file is deleted.

        Returns
        -------
        bool
            Whether it was moved.
        """
        folder = self._folder(job_id)
        if not self._files(folder):
            self.remove(job_id)
            return False
        self._move(folder, self._quarantined(job_id))
        return True

    def release(self, job_id: str) -> None:
        """Move a folder back from quarantine."""
        self._move(self._quarantined(job_id), self._folder(job_id))

    def quarantined(self) -> list[str]:
        """Return what is in quarantine, each by the id of the job that it was received for."""
        return [folder.name for folder in self._folders(self.path / _QUARANTINE)]

    def quarantined_path(self, job_id: str) -> Path:
        """Return the path of a source in quarantine, whether it exists or not."""
        return self._quarantined(job_id) / _SOURCE

    def read_quarantined(self, job_id: str) -> bytes | None:
        """Return the bytes of a source in quarantine; None where there are none, or they cannot be read."""
        try:
            return self.quarantined_path(job_id).read_bytes()
        except OSError:
            return None

    def prune_quarantine(self, older_than_s: float) -> list[str]:
        """Delete what was moved into quarantine so long ago; return the ids of the jobs it was received for."""
        newest = time.time() - older_than_s
        try:
            old = [job_id for job_id in self.quarantined() if self._quarantined(job_id).stat().st_ctime < newest]
            for job_id in old:
                shutil.rmtree(self._quarantined(job_id))
        except OSError as error:
            raise _storage_error(error) from error
        return old

    @contextmanager
    def _lock(self, how: int) -> Iterator[bool]:
        """Take the lock between backup and deletion; say whether it was had."""
        try:
            file = os.open(self.path.with_name(f"{self.path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(file, how)
                locked = True
            except BlockingIOError:
                locked = False
        except OSError as error:
            raise _storage_error(error) from error
        try:
            yield locked
        finally:
            os.close(file)

    def _folders(self, path: Path) -> list[Path]:
        try:
            return [path / name for name in sorted(os.listdir(path)) if _JOB_ID.fullmatch(name)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _storage_error(error) from error

    def _move(self, folder: Path, target: Path) -> None:
        try:
            target.parent.mkdir(mode=0o700, exist_ok=True)
            os.rename(folder, target)
            sync_folder(target.parent)
            sync_folder(folder.parent)
        except OSError as error:
            raise _storage_error(error) from error

    def _files(self, folder: Path) -> list[str]:
        try:
            return [name for name in os.listdir(folder) if not name.startswith(".")]
        except OSError as error:
            raise _storage_error(error) from error

    def _quarantined(self, job_id: str) -> Path:
        return self.path / _QUARANTINE / self._folder(job_id).name

    def _folder(self, job_id: str) -> Path:
        if not _JOB_ID.fullmatch(job_id):
            raise ValueError(f"{job_id!r} is no job id")
        return self.path / job_id


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


def _size(folder: Path) -> Size:
    """Return what lies in a folder; files that are gone by then do not count."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return Size()
    except OSError as error:
        raise _storage_error(error) from error
    return sum((_size_of_file(folder / name) for name in names), Size())


def _size_of_file(path: Path) -> Size:
    try:
        return Size(1, path.stat().st_size)
    except FileNotFoundError:
        return Size()


def _storage_error(error: OSError) -> StorageError:
    return StorageError(f"spool: {error.strerror or type(error).__name__}")
