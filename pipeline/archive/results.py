"""The output of a run, file by file, for a gateway that takes it over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow
import pyarrow.dataset

from pipeline.archive.manifest import read_file
from pipeline.archive.output import RUN, Output, OutputError
from pipeline.archive.rows import Outcome
from pipeline.errors import DigitizationError
from pipeline.output.stored import StoredPage, StoredPages

_LIGHT = ["path", "page", "patient", "date", "outcome", "reasons", "file_sha256"]
_HEAVY = ["for_gateway", "signal_mv", "confidence"]
_NOTHING = {"page": None, "patient": None, "date": None, "outcome": Outcome.FAILED, "file_sha256": None}


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run as far as it is written."""

    id: str
    version: str
    files: int
    parts: int  # of the whole run
    output: Output

    @property
    def missing(self) -> int:
        """How many parts are not written yet."""
        return self.parts - len(self.output.parts())

    def results(self) -> Iterator[FileResult]:
        """Yield what became of each file, in the order of the run; a part that is damaged counts as one failed file."""
        for fragment in self.output.pages().get_fragments():
            part = _Part(self, fragment)
            try:
                files = part.files()
            except (pyarrow.ArrowException, OSError) as error:
                reason = f"this part of the run cannot be read ({type(error).__name__})"
                files = [FileResult(part, 0, ({"path": fragment.path, "reasons": [reason], **_NOTHING},))]
            yield from files


def read_run(place: str) -> FinishedRun:
    """Open the output of a run: a folder, or `s3://BUCKET/PREFIX`.

    Raises
    ------
    OutputError
        There is none.
    """
    output = Output(place)
    known = output.read(RUN)
    if known is None:
        raise OutputError(f"{place} holds no archive run: there is no {RUN}")
    run = json.loads(known)
    parts = -(-run["files"] // run["files_a_part"])
    return FinishedRun(run["manifest"], run["settings"]["version"], run["files"], parts, output)


@dataclass(frozen=True, eq=False)
class _Part:
    """One file of the output."""

    run: FinishedRun
    fragment: pyarrow.dataset.Fragment

    def files(self) -> list[FileResult]:
        """Return the files of the part; what is large is read when it is asked for."""
        rows = self.fragment.to_table(columns=_LIGHT).to_pylist()
        found, first = [], 0
        for number in range(1, len(rows) + 1):
            if number == len(rows) or rows[number]["path"] != rows[first]["path"]:
                found.append(FileResult(self, first, tuple(rows[first:number])))
                first = number
        return found

    @cached_property
    def heavy(self) -> pyarrow.Table:
        """The columns that are large."""
        return self.fragment.to_table(columns=_HEAVY)


@dataclass(frozen=True, eq=False)
class FileResult:
    """What became of one file."""

    _part: _Part
    _first: int
    _rows: tuple[dict[str, Any], ...]

    @property
    def path(self) -> str:
        """Where the file was."""
        return str(self._rows[0]["path"])

    @property
    def sha256(self) -> str:
        """Of its bytes; "" where it was not read."""
        return self._rows[0]["file_sha256"] or ""

    @property
    def patient(self) -> str:
        """As the manifest states it; "" where it does not."""
        return self._rows[0]["patient"] or ""

    @property
    def recorded_on(self) -> date | None:
        """As the manifest states it."""
        day: date | None = self._rows[0]["date"]
        return day

    @property
    def was_read(self) -> bool:
        """Whether any page has a record."""
        return any(row["outcome"] != Outcome.FAILED for row in self._rows)

    @property
    def failures(self) -> tuple[tuple[int | None, str], ...]:
        """Pages without a record, with the reason; None is the whole file."""
        return tuple((row["page"], "; ".join(row["reasons"])) for row in self._rows if row["outcome"] == Outcome.FAILED)

    def read(self) -> bytes:
        """Read the file as it is now; raise OSError."""
        return read_file(self.path)

    def packed(self) -> bytes:
        """Return the results of all pages as bytes (`StoredPages`).

        Raises
        ------
        DigitizationError
            The rows cannot be read, or the run kept nothing for a gateway.
        """
        run = self._part.run
        pages: dict[int, StoredPage] = {}
        try:
            heavy = self._part.heavy
        except (pyarrow.ArrowException, OSError) as error:
            raise DigitizationError(f"this part of the run cannot be read ({type(error).__name__})") from error
        for number, row in enumerate(self._rows, self._first):
            if row["outcome"] == Outcome.FAILED:
                pages[row["page"]] = StoredPage(reason=f"not read in the archive run: {'; '.join(row['reasons'])}")
                continue
            rest = heavy["for_gateway"][number].as_py()
            if rest is None:
                raise DigitizationError("the run kept nothing for a gateway: an earlier version digitized it")
            signal_mv, confidence = (_array(heavy[name][number]) for name in ("signal_mv", "confidence"))
            pages[row["page"]] = StoredPage(rest=rest, signal_mv=signal_mv, confidence=confidence)
        return StoredPages(run=run.id, version=run.version, pages=pages).to_bytes()


def _array(cell: pyarrow.ListScalar) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return a list of leads as (leads, samples)."""
    leads = cell.values
    return np.asarray(leads.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(len(leads), -1)
