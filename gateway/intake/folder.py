"""The watched folder.

`gateway.intake.arrivals` says which files are ready.  A ready file is claimed by renaming it into a folder of its own
under `processing/`, taken in, and moved to `done/` or, with `<name>.reason.txt` beside it, to `rejected/`:

    inbox/page.png [page.png.json]  ->  inbox/processing/<claim>/  ->  inbox/done/ | inbox/rejected/

The outcome is written into the claim before anything moves on, so a crash at any point neither loses a file nor
takes it twice: what is left under `processing/` is taken up at the next start.  A file that changes after it was taken
(its writer had it open still) goes back into the folder and is taken again: it is another file.

The kernel reports nothing about network shares, and a report may be missed: every `rescan_s` the folder is read anew.

File names may hold a patient's identity; they never reach the log.
"""

from __future__ import annotations

import logging
import os
import queue
import re
import shutil
import stat
import threading
import time
import uuid
from pathlib import Path
from typing import BinaryIO

from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify import InotifyObserver
from watchdog.observers.polling import PollingObserver

from gateway.dicom.images.pages import read_context
from gateway.domain.context import StudyContext
from gateway.domain.identity import Evidence
from gateway.domain.received import Accepted, ReceivedObject
from gateway.errors import IntakeError, StorageError
from gateway.identity.filename import read_filename
from gateway.identity.sidecar import read_sidecar
from gateway.intake.accept import Intake, file_key, media_type_of
from gateway.intake.arrivals import SIDECAR, Arrivals, Listener, Signature, Writer, open_file, signature_of
from gateway.intake.whole import what_is_missing
from gateway.settings import FolderSettings
from gateway.spool.disk import write_durably
from gateway.threads import OnDuty, always

logger = logging.getLogger(__name__)

_PROCESSING, _DONE, REJECTED = "processing", "done", "rejected"
REASON = ".reason.txt"  # follows the name of a rejected file
_OUTCOME = ".outcome"  # in a claim: "" for done, else the reason it was rejected
_ATTEMPT = ".attempt"  # in a claim, numbered: begun and not ended; a file that kills the process stops at three
_MAXIMUM_ATTEMPTS = 3
_MISSING_S = 2.0  # how often a missing folder is looked for
_SIDECAR_BYTES = 1 << 20
_MAXIMUM_NAME = 230  # bytes of a file's name that leave room for the claim's mark and ".reason.txt"


class FolderWatcher:
    """Takes in what appears in one folder, in a thread of its own, while `on_duty` tells that this node does."""

    def __init__(self, settings: FolderSettings, intake: Intake, on_duty: OnDuty = always) -> None:
        self._settings = settings
        self._on_duty = on_duty
        self._intake = intake
        self._path = settings.path
        self._sidecars = settings.identity != "filename"
        self._pattern = None if settings.identity == "sidecar" else re.compile(settings.filename_pattern)
        self._arrivals = Arrivals(settings)
        self._put: dict[Path, tuple[Signature, float]] = {}  # what was put away: how it looked, and when
        self._events: queue.SimpleQueue[tuple[str, Writer]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"folder-{self._path.name}", daemon=True)
        self._observer: BaseObserver | None = None
        self._place: tuple[int, int] | None = None  # device and inode: another file system may be mounted there
        self._problem = ""

    @property
    def problem(self) -> str:
        """Why the folder cannot be watched now, in words; "" where it is."""
        return self._problem

    @property
    def alive(self) -> bool:
        """Whether the folder is watched; False before `start` and after `stop` too."""
        observed = self._observer is None or self._observer.is_alive()
        return self._thread.is_alive() and observed and not self._stopping.is_set()

    def start(self) -> None:
        """Begin to watch, as soon as the folder is there; raise StorageError where it cannot be made or watched."""
        try:
            if self._settings.create:
                self._path.mkdir(parents=True, exist_ok=True)
            self._follow()
        except OSError as error:
            raise StorageError(f"folder {self._path}: {error.strerror}") from error
        self._thread.start()

    def stop(self) -> None:
        """Stop; return when the file at hand is done."""
        self._stopping.set()
        self._events.put(("", Writer.UNKNOWN))
        if self._thread.is_alive():
            self._thread.join()
        self._unwatch()

    # -- the folder may be missing, or not mounted ----------------------------------------------------------------

    def _follow(self) -> bool:
        """Watch the folder that is at the path now; return whether there is one."""
        place = _place(self._path)
        if place is None:
            problem = f"folder {self._path} is missing: is it mounted?"
        elif place == self._place:
            problem = ""
        elif self._place and not self._settings.create and not (self._path / _PROCESSING).is_dir():
            problem = f"folder {self._path} is another one now, without {_PROCESSING}/: is it mounted?"
        else:
            problem = ""
            self._unwatch()
            self._watch()
            self._place = place
        if problem != self._problem:
            self._problem = problem
            level = logging.ERROR if problem else logging.INFO
            logger.log(level, problem or f"folder {self._path} is there again", extra={"action": "folder"})
        return not problem

    def _watch(self) -> None:
        for name in (_PROCESSING, _DONE, REJECTED):
            (self._path / name).mkdir(exist_ok=True)
        observer = PollingObserver() if self._settings.polling else InotifyObserver(generate_full_events=True)
        observer.schedule(Listener(self._events, polling=self._settings.polling), str(self._path))
        observer.start()
        self._observer = observer

    def _unwatch(self) -> None:
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
        self._observer = None
        self._arrivals.clear()
        self._put.clear()

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
            if not self._on_duty():
                self._unwatch()
                self._place = None
                next_scan = time.monotonic()  # what another node has begun is taken up with the duty
                self._stopping.wait(tick_s)
                continue
            try:
                if not self._follow():
                    next_scan = time.monotonic()  # read it as soon as it is there
                    self._stopping.wait(min(_MISSING_S, self._settings.rescan_s))
                    continue
                if time.monotonic() >= next_scan:
                    next_scan = time.monotonic() + self._settings.rescan_s
                    self._scan()
                self._take_ready()
            except OSError as error:
                logger.error("Folder %s: %s", self._path, error.strerror, extra={"action": "folder"})
                self._stopping.wait(tick_s)
            except ValueError as error:  # of one file: its claim is rejected after three attempts
                logger.error("Folder %s: %s", self._path, type(error).__name__, extra={"action": "folder"})
            self._listen(tick_s if self._arrivals else max(0.0, next_scan - time.monotonic()))

    def _listen(self, timeout_s: float) -> None:
        """Wait for the first report, then note all that have come."""
        try:
            name, writer = self._events.get(timeout=timeout_s)
            while True:
                self._arrivals.note(name, writer)
                name, writer = self._events.get_nowait()
        except queue.Empty:
            return

    def _scan(self) -> None:
        """Take up what an earlier attempt left, and note what is in the folder."""
        for claim in sorted((self._path / _PROCESSING).iterdir()):
            self._process(claim)
        self._take_back()
        for name in os.listdir(self._path):
            self._arrivals.note(name)

    def _take_ready(self) -> None:
        for name in self._arrivals.ready():
            self._claim(name)
            if self._stopping.is_set() or not self._on_duty():
                return

    # -- claim, take in, put away ---------------------------------------------------------------------------------

    def _claim(self, name: str) -> None:
        """Make a file ours; its sidecar goes first, and comes back should the file have gone."""
        claim = self._path / _PROCESSING / str(uuid.uuid4())
        claim.parent.mkdir(exist_ok=True)
        claim.mkdir()
        if self._arrivals.take_sidecar(name):
            (self._path / (name + SIDECAR)).rename(claim / (name + SIDECAR))
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
                before = signature_of(os.lstat(original))
                reason = self._take_in(original, attempt)
                if signature_of(os.lstat(original)) != before:
                    logger.warning("A file changed while it was taken: it is taken again", extra={"action": "folder"})
                    attempt.unlink(missing_ok=True)
                    return
                write_durably(claim / _OUTCOME, reason.encode())
            except (StorageError, OSError) as error:
                attempt.unlink(missing_ok=True)
                text = error.strerror if isinstance(error, OSError) else error
                logger.error("A file must wait: %s", text, extra={"action": "folder"})
                return
        self._put_away(claim)

    def _original(self, claim: Path) -> Path | None:
        files = [
            path
            for path in claim.iterdir()
            if not path.name.startswith(".") and not self._arrivals.is_sidecar(path.name)
        ]
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
        with open_file(original) as file:
            return self._accept_data(original, file)

    def _accept_data(self, original: Path, data: BinaryIO) -> Accepted:
        source = f"folder:{self._path}"
        media_type = media_type_of(data)
        if missing := what_is_missing(media_type, data):
            raise IntakeError(missing)
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
            file_name=os.fsencode(original.name).decode("utf-8", "replace"),
        )
        evidence = Evidence(
            lookup=self._settings.lookup is not None,
            codes_follow=bool(self._settings.barcode_pattern) and media_type != "application/dicom",
        )
        return self._intake.accept(received, evidence)

    def _identity(self, original: Path) -> StudyContext:
        """Return what sidecar or file name say; an empty context where they say nothing."""
        sidecar = original.with_name(original.name + SIDECAR)
        if self._sidecars and sidecar.exists():
            with open_file(sidecar) as file:
                stated = file.read(_SIDECAR_BYTES + 1)
            if len(stated) > _SIDECAR_BYTES:
                raise IntakeError(f"the sidecar is larger than {_SIDECAR_BYTES >> 20} MiB")
            return read_sidecar(stated)
        if self._pattern and not _is_unicode(original.name):
            raise IntakeError("the file's name is not in UTF-8, and the identity is read from it: rename the file")
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
        target = self._path / (REJECTED if reason else _DONE)
        target.mkdir(exist_ok=True)
        for path in sorted(path for path in claim.iterdir() if not path.name.startswith(".")):
            name = _free_name(target, path.name, claim.name)
            if reason and not self._arrivals.is_sidecar(name):
                (target / (name + REASON)).write_text(reason + "\n", encoding="utf-8")
            path.rename(target / name)
            self._put[target / name] = (signature_of(os.lstat(target / name)), time.monotonic())
        shutil.rmtree(claim)

    def _take_back(self) -> None:
        """Return what changed after it was put away to the folder: its writer was not done."""
        for path, (signature, when) in list(self._put.items()):
            try:
                changed = signature_of(os.lstat(path)) != signature
            except FileNotFoundError:
                del self._put[path]
                continue
            if changed and not (self._path / path.name).exists():
                logger.warning("A file changed after it was taken: it is taken again", extra={"action": "folder"})
                path.with_name(path.name + REASON).unlink(missing_ok=True)
                sidecar = path.with_name(path.name + SIDECAR)
                if self._sidecars and sidecar.exists() and not (self._path / sidecar.name).exists():
                    sidecar.rename(self._path / sidecar.name)
                path.rename(self._path / path.name)
                del self._put[path]
            elif time.monotonic() - when >= self._settings.incomplete_s:
                del self._put[path]


def _place(path: Path) -> tuple[int, int] | None:
    """Return what tells a folder from every other; None where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISDIR(status.st_mode) else None


def _is_unicode(name: str) -> bool:
    """Return whether a file's name is text; bytes that are not UTF-8 must reach no object, database or log."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _free_name(target: Path, name: str, token: str) -> str:
    """Return a name nothing in `target` has yet, short enough to leave room for what is added to it."""
    if len(os.fsencode(name)) > _MAXIMUM_NAME:
        return token + Path(name).suffix[:20]
    return f"{token[:8]}-{name}" if (target / name).exists() else name
