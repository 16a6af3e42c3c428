"""The watched folder, and the folder that results are dropped into.

A file is *ready* when it was renamed into the folder, was closed after writing, or did not change for `settle_s`;
its sidecar gets as long to come.  A ready file is claimed by renaming it into a folder of its own under
`processing/`, taken in, and moved to `done/` or, with `<name>.reason.txt` beside it, to `rejected/`:

    inbox/page.png [page.png.json]  ->  inbox/processing/<claim>/  ->  inbox/done/ | inbox/rejected/

The outcome is written into the claim before anything moves on, so a crash at any point neither loses a file nor
takes it twice: what is left under `processing/` is taken up at the next start.  The kernel reports nothing about
network shares, and a report may be missed: every `rescan_s` the folder is read anew.

File names may hold a patient's identity; they never reach the log.
"""

from __future__ import annotations

import logging
import os
import queue
import shutil
import stat
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from watchdog.events import (
    EVENT_TYPE_CLOSED,
    EVENT_TYPE_CREATED,
    EVENT_TYPE_MODIFIED,
    EVENT_TYPE_MOVED,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify import InotifyObserver
from watchdog.observers.polling import PollingObserver

from gateway.dicom.images.pages import read_context
from gateway.domain.context import StudyContext
from gateway.domain.identity import Evidence
from gateway.domain.received import Accepted, ReceivedObject
from gateway.errors import IntakeError, StorageError
from gateway.identity.filename import read_filename
from gateway.identity.forms import compile_pattern
from gateway.identity.sidecar import read_sidecar
from gateway.intake.accept import Intake, file_key, media_type_of
from gateway.settings import FolderSettings
from gateway.spool.folder import write_durably

logger = logging.getLogger(__name__)

_PROCESSING, _DONE, _REJECTED = "processing", "done", "rejected"
_OUTCOME = ".outcome"  # in a claim: "" for done, else the reason it was rejected
_ATTEMPT = ".attempt"  # in a claim, numbered: begun and not ended; a file that kills the process stops at three
_MAXIMUM_ATTEMPTS = 3
_MAXIMUM_BYTES = 512 * 1024 * 1024
_MAXIMUM_NAME = 230  # bytes of a file's name that leave room for the claim's mark and ".reason.txt"
_TEMPORARY = (".part", ".tmp", "~")
_SIDECAR = ".json"


@dataclass(slots=True)
class _Seen:
    """A file that is not taken yet: its size and mtime, since when (monotonic, s), and whether its writer is done."""

    signature: tuple[int, int]
    since: float
    settled: bool


class FolderWatcher:
    """Takes in what appears in one folder, in a thread of its own.

    Raises
    ------
    SettingsError
        A pattern names a group that is no field of `StudyContext`.
    """

    def __init__(self, settings: FolderSettings, intake: Intake) -> None:
        self._settings = settings
        self._intake = intake
        self._path = settings.path
        self._sidecars = settings.identity != "filename"
        self._pattern = None if settings.identity == "sidecar" else compile_pattern(settings.filename_pattern)
        compile_pattern(settings.barcode_pattern)  # of the worker: a wrong one is reported here
        self._seen: dict[str, _Seen] = {}
        self._events: queue.SimpleQueue[tuple[str, bool]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"folder-{self._path.name}", daemon=True)
        self._observer: BaseObserver = (
            PollingObserver() if settings.polling else InotifyObserver(generate_full_events=True)
        )

    @property
    def alive(self) -> bool:
        """Whether the folder is watched; False before `start` and after `stop` too."""
        return self._thread.is_alive() and self._observer.is_alive() and not self._stopping.is_set()

    def start(self) -> None:
        """Begin to watch; raise StorageError where the folder cannot be made or watched."""
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            for name in (_PROCESSING, _DONE, _REJECTED):
                (self._path / name).mkdir(exist_ok=True)
            self._observer.schedule(_Listener(self._events), str(self._path))
            self._observer.start()
        except OSError as error:
            raise StorageError(f"folder {self._path}: {error.strerror}") from error
        self._thread.start()

    def stop(self) -> None:
        """Stop; return when the file at hand is done."""
        self._stopping.set()
        self._events.put(("", False))
        if self._observer.is_alive():
            self._observer.stop()
            self._observer.join()
        if self._thread.is_alive():
            self._thread.join()

    def prune(self, retention_days: int) -> int:
        """Delete the files that were put into `done/` so long ago; return how many.

        A job has its own copy of them.  The time of the last change of the inode counts, which is that of the move.
        """
        oldest = time.time() - retention_days * 86400
        done, pruned = self._path / _DONE, 0
        try:
            with os.scandir(done) as entries:
                old = [each for each in entries if each.stat(follow_symlinks=False).st_ctime < oldest]
            for entry in old:
                if entry.is_file(follow_symlinks=False):
                    os.unlink(entry)
                    pruned += 1
        except OSError as error:
            logger.warning("Cannot delete old files of %s: %s", done, error.strerror, extra={"action": "folder"})
        if pruned:
            logger.info("Deleted %d old files of %s", pruned, done, extra={"action": "sweep"})
        return pruned

    # -- what is ready --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        tick_s = min(max(self._settings.settle_s / 4, 0.05), 0.5)
        next_scan = time.monotonic()
        while not self._stopping.is_set():
            try:
                if time.monotonic() >= next_scan:
                    next_scan = time.monotonic() + self._settings.rescan_s
                    self._scan()
                self._take_ready()
            except OSError as error:
                logger.error("Folder %s: %s", self._path, error.strerror, extra={"action": "folder"})
            self._listen(tick_s if self._seen else max(0.0, next_scan - time.monotonic()))

    def _listen(self, timeout_s: float) -> None:
        """Wait for the first report, then note all that have come."""
        try:
            name, settled = self._events.get(timeout=timeout_s)
            while True:
                self._note(name, settled)
                name, settled = self._events.get_nowait()
        except queue.Empty:
            return

    def _scan(self) -> None:
        """Take up what an earlier attempt left, and note what is in the folder."""
        for claim in sorted((self._path / _PROCESSING).iterdir()):
            self._process(claim)
        for name in os.listdir(self._path):
            self._note(name, settled=False)

    def _note(self, name: str, settled: bool) -> None:
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
        signature = (status.st_size, status.st_mtime_ns)
        seen = self._seen.get(name)
        if seen is None or seen.signature != signature:
            self._seen[name] = _Seen(signature, time.monotonic(), settled)
        elif settled:
            seen.settled = True

    def _take_ready(self) -> None:
        for name in sorted(self._seen):
            self._note(name, settled=False)
        for name in sorted(self._seen, key=lambda name: self._seen[name].signature[1]):
            if self._stopping.is_set():
                return
            if not self._is_sidecar(name) and self._is_ready(name):
                del self._seen[name]
                self._claim(name)

    def _is_sidecar(self, name: str) -> bool:
        return self._sidecars and name.endswith(_SIDECAR)

    def _is_ready(self, name: str) -> bool:
        if not self._is_unchanged(name) and not self._seen[name].settled:
            return False
        if not self._sidecars:
            return True
        sidecar = name + _SIDECAR
        self._note(sidecar, settled=False)
        if sidecar in self._seen:
            return self._seen[sidecar].settled or self._is_unchanged(sidecar)
        return self._is_unchanged(name)

    def _is_unchanged(self, name: str) -> bool:
        return time.monotonic() - self._seen[name].since >= self._settings.settle_s

    # -- claim, take in, put away ---------------------------------------------------------------------------------

    def _claim(self, name: str) -> None:
        """Make a file ours; its sidecar goes first, and comes back should the file have gone."""
        claim = self._path / _PROCESSING / str(uuid.uuid4())
        claim.mkdir(parents=True)
        if self._sidecars and name + _SIDECAR in self._seen:
            del self._seen[name + _SIDECAR]
            (self._path / (name + _SIDECAR)).rename(claim / (name + _SIDECAR))
        try:
            (self._path / name).rename(claim / name)
        except FileNotFoundError:
            logger.info("A file went before it was taken", extra={"action": "folder"})
        self._process(claim)

    def _process(self, claim: Path) -> None:
        """Bring one claim to its end; what cannot be stored now is left for the next scan."""
        if not (claim / _OUTCOME).exists():
            original = self._original(claim)
            if original is None:
                self._give_back(claim)
                return
            attempt = claim / f"{_ATTEMPT}{len(list(claim.glob(_ATTEMPT + '*')))}"
            try:
                reason = self._take_in(original, attempt)
                write_durably(claim / _OUTCOME, reason.encode())
            except (StorageError, OSError) as error:
                attempt.unlink(missing_ok=True)
                text = error.strerror if isinstance(error, OSError) else error
                logger.error("A file must wait: %s", text, extra={"action": "folder"})
                return
        self._put_away(claim)

    def _original(self, claim: Path) -> Path | None:
        files = [path for path in claim.iterdir() if not path.name.startswith(".") and not self._is_sidecar(path.name)]
        return files[0] if files else None

    def _take_in(self, original: Path, attempt: Path) -> str:
        """Accept a file; return why it was rejected, "" if it was not."""
        if attempt.name == f"{_ATTEMPT}{_MAXIMUM_ATTEMPTS}":
            return f"the gateway crashed {_MAXIMUM_ATTEMPTS} times while it read this file"
        attempt.touch()
        try:
            accepted = self._accept(original)
        except IntakeError as error:
            logger.warning("Rejected a file from %s: %s", self._path, error, extra={"action": "reject"})
            return str(error)
        logger.info("Took a file from %s", self._path, extra={"action": "folder", "job_id": accepted.job_id})
        return ""

    def _accept(self, original: Path) -> Accepted:
        if len(os.fsencode(original.name)) > _MAXIMUM_NAME:
            raise IntakeError(f"the file's name is longer than {_MAXIMUM_NAME} bytes")
        data = _read(original)
        source = f"folder:{self._path}"
        media_type = media_type_of(data)
        if media_type == "application/dicom":
            context = read_context(data)
            source_key = context.source_sop_instance_uid
            if not source_key:
                raise IntakeError("the DICOM file has no SOP Instance UID")
        else:
            context = self._identity(original)
            source_key = file_key(source, context, data)
        received = ReceivedObject(
            source=source,
            source_key=source_key,
            media_type=media_type,
            data=data,
            context=context,
            actor="folder",
            destinations=self._settings.destinations,
        )
        evidence = Evidence(
            lookup=self._settings.lookup is not None,
            codes_follow=bool(self._settings.barcode_pattern) and media_type != "application/dicom",
        )
        return self._intake.accept(received, evidence)

    def _identity(self, original: Path) -> StudyContext:
        """Return what sidecar or file name say; an empty context where they say nothing."""
        sidecar = original.with_name(original.name + _SIDECAR)
        if self._sidecars and sidecar.exists():
            return read_sidecar(_read(sidecar))
        named = read_filename(self._pattern, original.stem) if self._pattern else None
        return named or StudyContext()

    def _give_back(self, claim: Path) -> None:
        """Return the sidecar of a file that was not claimed to where that file is, and end the claim."""
        for sidecar in [path for path in claim.iterdir() if not path.name.startswith(".")]:
            inbox = self._path / sidecar.name
            if inbox.with_suffix("").exists() and not inbox.exists():
                sidecar.rename(inbox)
            else:
                write_durably(claim / _OUTCOME, b"the file that this sidecar describes is gone")
                self._put_away(claim)
                return
        shutil.rmtree(claim)

    def _put_away(self, claim: Path) -> None:
        """Move what a claim holds to `done/` or `rejected/`, never over a file that is there."""
        reason = (claim / _OUTCOME).read_text(encoding="utf-8")
        target = self._path / (_REJECTED if reason else _DONE)
        target.mkdir(exist_ok=True)
        for path in sorted(path for path in claim.iterdir() if not path.name.startswith(".")):
            name = _free_name(target, path.name, claim.name)
            if reason and not self._is_sidecar(name):
                (target / f"{name}.reason.txt").write_text(reason + "\n", encoding="utf-8")
            path.rename(target / name)
        shutil.rmtree(claim)


class _Listener(FileSystemEventHandler):
    """Passes on which file the kernel reported, and whether its writer is done with it."""

    def __init__(self, events: queue.SimpleQueue[tuple[str, bool]]) -> None:
        self._events = events

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Note a file; directories and mere readers are nothing to us."""
        if event.is_directory:
            return
        if event.event_type == EVENT_TYPE_MOVED:
            self._events.put((os.path.basename(os.fsdecode(event.dest_path)), True))
        elif event.event_type in (EVENT_TYPE_CREATED, EVENT_TYPE_MODIFIED, EVENT_TYPE_CLOSED):
            settled = event.event_type == EVENT_TYPE_CLOSED
            self._events.put((os.path.basename(os.fsdecode(event.src_path)), settled))


def _free_name(target: Path, name: str, token: str) -> str:
    """Return a name nothing in `target` has yet, short enough to leave room for what is added to it."""
    if len(os.fsencode(name)) > _MAXIMUM_NAME:
        return token + Path(name).suffix[:20]
    return f"{token[:8]}-{name}" if (target / name).exists() else name


def _read(path: Path) -> bytes:
    """Return a file's bytes; raise IntakeError where they may never be had, StorageError where not now."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            if os.fstat(file.fileno()).st_size > _MAXIMUM_BYTES:
                raise IntakeError(f"the file is larger than {_MAXIMUM_BYTES // 1024**2} MiB")
            return file.read()
    except PermissionError:
        raise IntakeError("the gateway has no permission to read the file") from None
    except OSError as error:
        raise StorageError(f"the file cannot be read: {error.strerror}") from error
