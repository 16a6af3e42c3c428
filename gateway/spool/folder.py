"""The durable files of a job: one folder per job id, with `source` and the artefacts made from it.

A file is written under a temporary name, fsynced and renamed, and its folder is fsynced.  The file is complete or
absent, and it survives a power failure after `write_source` has returned.  Every path is built from our own names,
never from those of a peer.  Only this module touches the files.

A folder that belongs to no job is never deleted: it goes to `quarantine/`, inside the spool, so that the move is one
rename.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from gateway.domain.received import PIECE_BYTES, Data, opened
from gateway.errors import StorageError

_SOURCE = "source"
_QUARANTINE = "quarantine"
_JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ARTEFACT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MIB = 1024 * 1024


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
        try:
            free = shutil.disk_usage(self.path).free
        except OSError as error:
            raise _storage_error(error) from error
        if free - size < self._minimum_free_bytes:
            raise StorageError(f"spool: {free // _MIB} MiB free, {self._minimum_free_bytes // _MIB} MiB must stay free")

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

    def orphans(self, known: Callable[[str], bool], older_than_s: float) -> list[str]:
        """Return the jobs with a folder that is not needed: unchanged for `older_than_s` and not `known`."""
        newest = time.time() - older_than_s
        try:
            with os.scandir(self.path) as entries:
                old = [e.name for e in entries if _JOB_ID.fullmatch(e.name) and e.stat().st_mtime < newest]
        except OSError as error:
            raise _storage_error(error) from error
        return [job_id for job_id in sorted(old) if not known(job_id)]

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
        try:
            return sorted(name for name in os.listdir(self.path / _QUARANTINE) if _JOB_ID.fullmatch(name))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _storage_error(error) from error

    def quarantined_path(self, job_id: str) -> Path:
        """Return the path of a source in quarantine, whether it exists or not."""
        return self._quarantined(job_id) / _SOURCE

    def read_quarantined(self, job_id: str) -> bytes | None:
        """Return the bytes of a source in quarantine; None where there are none, or they cannot be read."""
        try:
            return self.quarantined_path(job_id).read_bytes()
        except OSError:
            return None

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


def _storage_error(error: OSError) -> StorageError:
    return StorageError(f"spool: {error.strerror or type(error).__name__}")
