"""The process that digitizes files for `guard`: a page may end it, or block it.

It is given a function that loads a digitizer, and then files.  It answers with what it knows as soon as it knows it, so
that the guard can tell which page it was busy with.  It ends with the process that gave it the files.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn, Protocol

import cv2

from pipeline.archive.manifest import Entry, read_file
from pipeline.archive.rows import DEFECT, MISSING, Row, failure, row_of
from pipeline.datatypes import Calibration, Digitization, PageImage
from pipeline.errors import DEFECTS, DigitizationError, TransientError

Decode = Callable[[bytes], Sequence[PageImage]]  # the bytes of a file become its pages; raises DigitizationError


class AnyDigitizer(Protocol):
    """What digitizes pages, several at a time."""

    @property
    def pages_at_once(self) -> int:
        """How many pages to digitize side by side."""

    def digitize(self, page: PageImage, *, default_calibration: Calibration) -> Digitization:
        """Turn one page into a record."""


@dataclass(frozen=True, slots=True)
class Task:
    """A file, or what is left of it."""

    number: int
    entry: Entry
    first_page: int
    alone: bool  # nothing runs beside it: a failure that depends on what else runs is final


@dataclass(frozen=True, slots=True)
class Opened:
    """The pages of a file are known; the digitizer is busy with the first of the task."""

    number: int
    pages: int


@dataclass(frozen=True, slots=True)
class Done:
    """A page has its row; the digitizer is busy with the next one."""

    number: int
    row: Row


@dataclass(frozen=True, slots=True)
class Closed:
    """Nothing is left of a file."""

    number: int


@dataclass(frozen=True, slots=True)
class Again:
    """A failure that depends on what else runs: the page is worth a second try, alone."""

    number: int


Answer = Opened | Done | Closed | Again


@dataclass(frozen=True, eq=False)
class _Lanes:
    """Threads that digitize the files of one queue; they share the networks."""

    digitizer: AnyDigitizer
    calibration: Calibration
    decode: Decode
    connection: Connection
    tasks: queue.SimpleQueue[Task] = field(default_factory=queue.SimpleQueue)
    sending: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        try:
            while True:
                self._digitize(self.tasks.get())
        finally:  # the guard must not wait for a thread that has ended
            os._exit(1)

    def _send(self, answer: Answer) -> None:
        with self.sending:
            self.connection.send(answer)

    def _digitize(self, task: Task) -> None:
        entry, sha256 = task.entry, None
        try:
            data = read_file(entry.path)
            sha256 = hashlib.sha256(data).hexdigest()
            pages = self.decode(data)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            self._send(Done(task.number, failure(entry, None, MISSING, "there is no such file")))
        except OSError as error:
            self._send(Done(task.number, failure(entry, None, MISSING, f"cannot be read: {error.strerror or error}")))
        except DigitizationError as error:
            if isinstance(error, TransientError) and not task.alone:
                self._send(Again(task.number))
                return
            self._send(Done(task.number, failure(entry, None, type(error).__name__, str(error), sha256)))
        else:
            self._send(Opened(task.number, len(pages)))
            for page in pages[task.first_page - 1 :]:
                row = self._row(entry, sha256, page, task.alone)
                if row is None:
                    self._send(Again(task.number))
                    return
                self._send(Done(task.number, row))
        self._send(Closed(task.number))

    def _row(self, entry: Entry, sha256: str, page: PageImage, alone: bool) -> Row | None:
        """Return the row of a page; None if it is worth a second try."""
        number = page.page_number
        try:
            return row_of(entry, sha256, self.digitizer.digitize(page, default_calibration=self.calibration))
        except DigitizationError as error:
            if isinstance(error, TransientError) and not alone:
                return None
            return failure(entry, number, type(error).__name__, str(error), sha256)
        except DEFECTS as error:  # its text may quote what is printed on the page
            at = traceback.extract_tb(error.__traceback__)[-1]
            reason = f"a defect of the program: {type(error).__name__} at {Path(at.filename).name}:{at.lineno}"
            return failure(entry, number, DEFECT, reason, sha256)


def serve(connection: Connection) -> NoReturn:
    """Load the digitizer, then digitize what comes, until nobody sends any more."""
    load: Callable[[], AnyDigitizer]
    load, calibration, decode = pickle.loads(connection.recv_bytes())
    if threads := os.environ.get("OMP_NUM_THREADS"):
        cv2.setNumThreads(int(threads))
    try:
        digitizer = load()
    except (DigitizationError, OSError, ValueError) as error:
        connection.send(str(error))
        sys.exit(1)
    lanes = _Lanes(digitizer, calibration, decode, connection)
    for _ in range(digitizer.pages_at_once):
        threading.Thread(target=lanes.run, daemon=True).start()
    connection.send(digitizer.pages_at_once)
    while True:
        try:
            lanes.tasks.put(connection.recv())
        except (EOFError, OSError):
            os._exit(0)
