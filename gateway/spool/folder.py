"""The durable files of a job: one folder per job id, with `source` and the artefacts made from it.

They are in a folder of the disk, or in a bucket of an object store, under the same names.  A file is complete or
absent, and it is durable when `write_source` has returned.  Every name is built from our own, never from those of a
peer.  Only this room touches the files.

A folder that belongs to no job is never deleted: it goes to `quarantine/`, inside the spool.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Self, TypeVar

from gateway.domain.received import Data, opened
from gateway.errors import StorageError, UnreadableFile
from gateway.settings import StorageSettings
from gateway.spool.bucket import Bucket
from gateway.spool.disk import Disk, as_storage_error
from gateway.spool.place import JOB_ID, QUARANTINE, RESULTS, SOURCE, Place, Size

_ARTEFACT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MIB = 1024 * 1024
_T = TypeVar("_T")


class Spool:
    """The store of all files of jobs.

    Parameters
    ----------
    path : Path
        A folder of this machine, created if missing: it has what is on its way, and without a bucket the files.
    minimum_free_mib : int
        A source that would leave less free space than this, in MiB, is not stored; the space is for artefacts.
    bucket : Bucket, optional
        What has the files instead.

    Raises
    ------
    StorageError
        The folder cannot be created.
    """

    def __init__(self, path: Path, minimum_free_mib: int, bucket: Bucket | None = None) -> None:
        self.path = path
        self._minimum_free_bytes = minimum_free_mib * _MIB
        self._disk = Disk(path)
        self._place: Place = bucket or self._disk

    @classmethod
    def open(cls, settings: StorageSettings) -> Self:
        """Open the spool that the settings name."""
        path = settings.path / "spool"
        return cls(path, settings.minimum_free_mib, Bucket(settings, path) if settings.spool else None)

    @property
    def on_disk(self) -> bool:
        """Whether the files of jobs take the space of this machine's disk."""
        return self._place.on_disk

    def check(self) -> None:
        """Raise StorageError where files would not be kept as promised, or those of before lie in another place."""
        self._place.check()
        if not self.on_disk and (left := [*self._disk.folders(), *self._disk.folders(QUARANTINE)]):
            raise StorageError(
                f"spool = '{self._place.where}': {self.path.resolve()} holds the files of {len(left)} jobs of the time "
                "before. Copy what is in it to the bucket, under the same names, then remove it"
            )

    def _alone(self, have: Callable[[], _T]) -> _T:
        """Return what `have` reads; let its UnreadableFile mean that one file is alone in that.

        Raises
        ------
        UnreadableFile
            It cannot be read, twice, while another file can.
        StorageError
            No file can be read.
        """
        try:
            return have()
        except UnreadableFile as error:
            if not self._answers():
                raise StorageError(str(error)) from error
        return have()  # the spool may have come back between the two

    def _answers(self) -> bool:
        """Return whether a file that is written now can be read."""
        folder = f".probe-{uuid.uuid4()}"
        try:
            self._place.write(folder, SOURCE, b"probe")
            read = _read(self._place.open(folder, SOURCE))
            self._place.remove(folder)
        except StorageError:
            return False
        return read == b"probe"

    def check_space(self, size: int = 0) -> None:
        """Raise StorageError if `size` more bytes would leave less than the minimum free."""
        free = self.free_bytes()
        if free - size < self._minimum_free_bytes:
            raise StorageError(f"spool: {free // _MIB} MiB free, {self._minimum_free_bytes // _MIB} MiB must stay free")

    @as_storage_error()
    def free_bytes(self) -> int:
        """Return how much space is free where things are on their way, and where the files are, if they are on disk."""
        return shutil.disk_usage(self.path).free

    @as_storage_error()
    def temporary_file(self) -> BinaryIO:
        """Return a file for what is on its way in; it has no name, and is gone when it is closed."""
        return tempfile.TemporaryFile(dir=self.path)

    def write_source(self, job_id: str, data: Data) -> None:
        """Store the bytes of a job as received, in place of earlier ones; they are durable when this returns.

        Raises
        ------
        StorageError
            There is too little space, or the file cannot be written; no partial file remains.
        """
        folder = _folder(job_id)
        self.check_space(opened(data).seek(0, os.SEEK_END))
        self._place.write(folder, SOURCE, data)

    def write_artefact(self, job_id: str, name: str, data: Data) -> None:
        """Store a file made from the source under `name`; it replaces an earlier one.

        Raises
        ------
        ValueError
            `name` has other characters than letters, digits, dot, dash and underscore.
        StorageError
            The file cannot be written.
        """
        if name == SOURCE:
            raise ValueError(f"{name!r} is no artefact name")
        self._place.write(_folder(job_id), _name(name), data)

    def open_file(self, job_id: str, name: str = SOURCE) -> BinaryIO | None:
        """Return a file of a job; None where it is gone.

        Raises
        ------
        ValueError
            `name` is none of a file of a job.
        UnreadableFile
            It cannot be read now, while others can.
        StorageError
            No file can.
        """
        return self._alone(lambda: self._place.open(_folder(job_id), _name(name)))

    def read(self, job_id: str, name: str = SOURCE) -> bytes | None:
        """Return the bytes of a file of a job; None where it is gone; raise what `open_file` raises."""
        return self._alone(lambda: _read(self._place.open(_folder(job_id), _name(name))))

    @contextmanager
    def fetched(self, job_id: str, name: str) -> Iterator[Path | None]:
        """Have a file of a job under a path, which only this process can open, in the block; None where it is gone."""
        file = self.open_file(job_id, name)
        if file is None:
            yield None
            return
        with file:
            yield Path(f"/proc/self/fd/{file.fileno()}")  # nothing is left behind, even by a process that is killed

    def has(self, job_id: str, name: str = SOURCE) -> bool:
        """Return whether a file of a job is there."""
        return self._place.has(_folder(job_id), _name(name))

    def remove(self, job_id: str) -> None:
        """Delete a job's folder, if there is one."""
        self._place.remove(_folder(job_id))

    def unchanged(self, for_s: float) -> list[str]:
        """Return the jobs with a folder in which nothing was made, replaced or deleted for so long."""
        return self._place.unchanged(for_s)

    def where(self, job_id: str = "", *, quarantined: bool = False) -> str:
        """Return how a person finds a job's folder, or all of them."""
        return "/".join(filter(None, (self._place.where, QUARANTINE * quarantined, job_id)))

    def size(self, job_id: str, *, quarantined: bool = False) -> Size:
        """Return what a job has in its folder."""
        sizes = self._place.files(_quarantined(job_id) if quarantined else _folder(job_id)).values()
        return Size(len(sizes), sum(sizes))

    def usage(self) -> dict[str, Size]:
        """Return what sources, artefacts and the quarantine hold."""
        found = {"sources": Size(), "artefacts": Size(), "quarantine": Size()}
        for folder, name, size in self._place.everything():
            what = QUARANTINE if folder.startswith(QUARANTINE) else "sources" if name == SOURCE else "artefacts"
            found[what] += Size(1, size)
        return found

    def files(self) -> Iterator[Path]:
        """Yield every whole file of the jobs and of the quarantine; raise StorageError where one is no plain file."""
        for inside in ("", QUARANTINE):
            for job_id in self._disk.folders(inside):
                folder = self.path / inside / job_id
                for name in _whole(self._disk.files(str(folder.relative_to(self.path)))):
                    if (folder / name).is_symlink() or not (folder / name).is_file():
                        raise StorageError(f"spool: {folder / name} is no plain file")
                    yield folder / name

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
        return any(name not in (SOURCE, RESULTS) for name in _whole(self._place.files(_folder(job_id))))

    def quarantine(self, job_id: str) -> bool:
        """Move a folder that no job explains out of the way; one without a whole file is deleted.

        Returns
        -------
        bool
            Whether it was moved.
        """
        folder = _folder(job_id)
        if not _whole(self._place.files(folder)):
            self.remove(job_id)
            return False
        self._place.move(folder, _quarantined(job_id))
        return True

    def release(self, job_id: str) -> None:
        """Move a folder back from quarantine."""
        self._place.move(_quarantined(job_id), _folder(job_id))

    def quarantined(self) -> list[str]:
        """Return what is in quarantine, each by the id of the job that it was received for."""
        return self._place.folders(QUARANTINE)

    def read_quarantined(self, job_id: str) -> bytes | None:
        """Return the bytes of a source in quarantine; None where there are none; raise what `open_file` raises."""
        return self._alone(lambda: _read(self._place.open(_quarantined(job_id), SOURCE)))

    def prune_quarantine(self, older_than_s: float) -> list[str]:
        """Delete what was moved into quarantine so long ago; return the ids of the jobs it was received for."""
        old = self._place.unchanged(older_than_s, QUARANTINE)
        for job_id in old:
            self._place.remove(_quarantined(job_id))
        return old

    @contextmanager
    def _lock(self, how: int) -> Iterator[bool]:
        """Take the lock between backup and deletion; say whether it was had."""
        with as_storage_error():
            file = os.open(self.path.with_name(f"{self.path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            with as_storage_error():
                try:
                    fcntl.flock(file, how)
                    locked = True
                except BlockingIOError:
                    locked = False
            yield locked
        finally:
            os.close(file)


def _folder(job_id: str) -> str:
    if not JOB_ID.fullmatch(job_id):
        raise ValueError(f"{job_id!r} is no job id")
    return job_id


def _quarantined(job_id: str) -> str:
    return f"{QUARANTINE}/{_folder(job_id)}"


def _name(name: str) -> str:
    if not _ARTEFACT.fullmatch(name) or name.endswith(".tmp"):
        raise ValueError(f"{name!r} is no artefact name")
    return name


def _whole(names: dict[str, int]) -> list[str]:
    """Return the names of files that are not what an interrupted write left."""
    return sorted(name for name in names if not name.startswith("."))


def _read(file: BinaryIO | None) -> bytes | None:
    if file is None:
        return None
    with file, as_storage_error(UnreadableFile):
        return file.read()
