"""The output folder of a run, on a disk or in an object store: files appear whole, and one run holds it at a time.

Part k of the manifest becomes the file of the same number.  It is there or it is not, so a run that was killed
continues with the parts that are missing; a part that is written twice is the same file.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.dataset
import pyarrow.fs

from pipeline.archive.rows import SCHEMA

MANIFEST, RUN, PROBLEMS, REPORT = "manifest.parquet", "run.json", "left-out.csv", "report.html"
_LOCK = "lock"
_PARTS_A_FOLDER = 1000
_PART = re.compile(r"part-(\d+)\.parquet$")
_BEAT_S = 10.0


class OutputError(Exception):
    """The output folder cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Output:
    """An output folder: a path, or `s3://BUCKET/PREFIX`."""

    place: str

    def write(self, name: str, data: bytes) -> None:
        """Write a file so that it is there as a whole, or not at all."""
        if not self._is_local:
            filesystem, root = self._filesystem()
            with filesystem.open_output_stream(f"{root}/{name}") as stream:  # an object appears when it is complete
                stream.write(data)
            return
        path = Path(self.place) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def read(self, name: str) -> bytes | None:
        """Return a file; None where there is none."""
        filesystem, root = self._filesystem()
        try:
            with filesystem.open_input_stream(f"{root}/{name}", compression=None) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def write_part(self, number: int, data: bytes) -> None:
        """Write the rows of a part."""
        self.write(f"{self.folder_of('pages', number)}/part-{number:07d}.parquet", data)

    def folder_of(self, kind: str, number: int) -> str:
        """Return the folder in which files of this kind lie for a part."""
        return f"{kind}/group={number // _PARTS_A_FOLDER:05d}"

    def parts(self) -> set[int]:
        """Return the numbers of the parts that are written."""
        return {int(match[1]) for path in self._files() if (match := _PART.search(path))}

    def pages(self) -> pyarrow.dataset.Dataset:
        """Return all rows that are written."""
        filesystem, _ = self._filesystem()
        paths = sorted(path for path in self._files() if _PART.search(path))
        return pyarrow.dataset.dataset(paths, SCHEMA, format="parquet", filesystem=filesystem)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for one run.

        A lock of the kernel on a disk ends with its process.  An object store has none: there a run that was killed
        holds its place until it is not heard for a while.

        Raises
        ------
        OutputError
            Another run holds it.
        """
        if not self._is_local:
            with self._lease():
                yield
            return
        Path(self.place).mkdir(parents=True, exist_ok=True)
        with (Path(self.place) / _LOCK).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OutputError(f"another run writes to {self.place}: wait for its end, or stop it") from None
            for left in Path(self.place).rglob(".*.tmp"):  # of a run that was killed
                left.unlink(missing_ok=True)
            yield

    @contextmanager
    def _lease(self, beat_s: float = _BEAT_S) -> Iterator[None]:
        """Write a word of our own again and again; a word of another that changes is a run that lives."""
        theirs = self.read(_LOCK)
        if theirs:
            time.sleep(2.5 * beat_s)
            if self.read(_LOCK) not in (theirs, None):
                raise OutputError(f"another run writes to {self.place}: wait for its end, or stop it")
        ours = os.urandom(8).hex()
        ended = threading.Event()
        self.write(_LOCK, f"{ours} 0".encode())
        if ended.wait(0.2 * beat_s) or not (self.read(_LOCK) or b"").startswith(ours.encode()):
            raise OutputError(f"another run has started to write to {self.place}")

        def beat() -> None:
            number = 0
            while not ended.wait(beat_s):
                number += 1
                self.write(_LOCK, f"{ours} {number}".encode())

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self.write(_LOCK, b"")

    @property
    def _is_local(self) -> bool:
        return "://" not in self.place

    def _filesystem(self) -> tuple[pyarrow.fs.FileSystem, str]:
        filesystem, root = pyarrow.fs.FileSystem.from_uri(self.place)
        return filesystem, root.rstrip("/")

    def _files(self) -> list[str]:
        filesystem, root = self._filesystem()
        found = filesystem.get_file_info(pyarrow.fs.FileSelector(f"{root}/pages", recursive=True, allow_not_found=True))
        return [each.path for each in found if each.type == pyarrow.fs.FileType.File]
