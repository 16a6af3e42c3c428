"""Which files of a watched folder are ready to be taken.

A file is *ready* when it is whole, and was renamed into the folder, was closed after writing, or had one size and
time for `settle_s`; its sidecar gets as long to come.  One that the kernel reports as being written is not ready
before it is closed.  One that ends too early is waited for, and counts as ready when it did not change for
`incomplete_s`: then it is rejected with the reason.
"""

from __future__ import annotations

import os
import queue
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import BinaryIO

from watchdog.events import (
    EVENT_TYPE_CLOSED,
    EVENT_TYPE_CREATED,
    EVENT_TYPE_MODIFIED,
    EVENT_TYPE_MOVED,
    FileSystemEvent,
    FileSystemEventHandler,
)

from gateway.errors import IntakeError, StorageError
from gateway.intake.accept import media_type_of
from gateway.intake.whole import what_is_missing
from gateway.settings import FolderSettings

SIDECAR = ".json"
_TEMPORARY = (".part", ".tmp", "~")
MAXIMUM_BYTES = 512 * 1024 * 1024

Signature = tuple[int, int]  # size and mtime


class Writer(Enum):
    """What the kernel reported last of who writes a file; of a file on a network share it reports nothing."""

    UNKNOWN = auto()
    WRITING = auto()
    DONE = auto()


@dataclass(slots=True)
class Seen:
    """A file that is not taken yet: its size and mtime, since when (monotonic, s), and what is known of its writer."""

    signature: Signature
    since: float
    writer: Writer
    whole: bool | None = None  # None: not looked at


class Arrivals:
    """The files of one folder that are not taken yet.

    Parameters
    ----------
    settings : FolderSettings
        Of the folder.
    """

    def __init__(self, settings: FolderSettings) -> None:
        self._settings = settings
        self._path = settings.path
        self._sidecars = settings.identity != "filename"
        self._seen: dict[str, Seen] = {}

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._seen)

    def clear(self) -> None:
        """Forget all files: the folder is another one now."""
        self._seen.clear()

    def note(self, name: str, writer: Writer = Writer.UNKNOWN) -> None:
        """Remember how a file looks now, or forget one that is gone or is none."""
        if not name or name.startswith(".") or name.lower().endswith(_TEMPORARY):
            return
        try:
            status = os.lstat(self._path / name)
        except OSError:  # gone, or its sidecar's name would be too long for the file system
            self._seen.pop(name, None)
            return
        if not stat.S_ISREG(status.st_mode):
            return
        signature = signature_of(status)
        seen = self._seen.get(name)
        if seen is not None and seen.writer == Writer.DONE and seen.signature[0] == signature[0]:
            writer = Writer.DONE  # its times or permissions were set after it was closed
        elif seen is not None and writer == Writer.UNKNOWN:
            writer = seen.writer if seen.signature == signature or seen.writer == Writer.WRITING else writer
        if seen is None or seen.signature != signature:
            self._seen[name] = Seen(signature, time.monotonic(), writer)
        else:
            seen.writer = writer

    def ready(self) -> Iterator[str]:
        """Yield the names of ready files, the oldest first; each is forgotten as it is yielded."""
        for name in sorted(self._seen):
            self.note(name)
        for name in sorted(self._seen, key=lambda name: self._seen[name].signature[1]):
            if not self.is_sidecar(name) and self._is_ready(name):
                del self._seen[name]
                yield name

    def take_sidecar(self, name: str) -> bool:
        """Return whether a file has a sidecar in the folder, and forget it."""
        return self._sidecars and self._seen.pop(name + SIDECAR, None) is not None

    def is_sidecar(self, name: str) -> bool:
        """Return whether a file describes another one."""
        return self._sidecars and name.endswith(SIDECAR)

    def _is_ready(self, name: str) -> bool:
        seen = self._seen[name]
        if not self._is_written(seen) or not (self._is_whole(name) or self._is_given_up(seen)):
            return False
        if not self._sidecars:
            return True
        sidecar = name + SIDECAR
        self.note(sidecar)
        return self._is_written(self._seen[sidecar]) if sidecar in self._seen else self._is_unchanged(seen)

    def _is_written(self, seen: Seen) -> bool:
        if seen.writer == Writer.WRITING:
            return self._is_given_up(seen)
        return seen.writer == Writer.DONE or self._is_unchanged(seen)

    def _is_unchanged(self, seen: Seen) -> bool:
        return time.monotonic() - seen.since >= self._settings.settle_s

    def _is_given_up(self, seen: Seen) -> bool:
        return time.monotonic() - seen.since >= self._settings.incomplete_s

    def _is_whole(self, name: str) -> bool:
        """Return whether a file is whole, or is none that could be: then it is rejected with its own reason."""
        seen = self._seen[name]
        if seen.whole is None:
            try:
                with open_file(self._path / name) as file:
                    begun = os.fstat(file.fileno()).st_size > 0
                    seen.whole = begun and not what_is_missing(media_type_of(file), file)
            except (IntakeError, StorageError, OSError):
                seen.whole = True
        return seen.whole


class Listener(FileSystemEventHandler):
    """Passes on which file was reported, and what that says about its writer; polling never sees a file closed."""

    def __init__(self, events: queue.SimpleQueue[tuple[str, Writer]], *, polling: bool) -> None:
        self._events = events
        self._polling = polling

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Note a file; directories and mere readers are nothing to us."""
        if event.is_directory:
            return
        if event.event_type == EVENT_TYPE_MOVED:
            self._events.put((os.path.basename(os.fsdecode(event.dest_path)), Writer.DONE))
        elif event.event_type in (EVENT_TYPE_CREATED, EVENT_TYPE_MODIFIED, EVENT_TYPE_CLOSED):
            writer = Writer.UNKNOWN
            if event.event_type == EVENT_TYPE_CLOSED:
                writer = Writer.DONE
            elif event.event_type == EVENT_TYPE_MODIFIED and not self._polling:
                writer = Writer.WRITING
            self._events.put((os.path.basename(os.fsdecode(event.src_path)), writer))


def signature_of(status: os.stat_result) -> Signature:
    """Return what tells whether a file has changed."""
    return status.st_size, status.st_mtime_ns


@contextmanager
def open_file(path: Path) -> Iterator[BinaryIO]:
    """Have a file open; raise IntakeError where it may never be read, StorageError where not now."""
    try:
        file = open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    except PermissionError:
        raise IntakeError("the gateway has no permission to read the file") from None
    except OSError as error:
        raise StorageError(f"the file cannot be read: {error.strerror}") from error
    with file:
        if os.fstat(file.fileno()).st_size > MAXIMUM_BYTES:
            raise IntakeError(f"the file is larger than {MAXIMUM_BYTES // 1024**2} MiB")
        yield file
