"""What is to be digitized: a folder, or a table with `path` and optionally `patient` and `date`; entries come out.

A row that cannot be used is a `Problem` with its place and the rule; the others count.  A missing file is no problem of
the manifest: its row in the output says so.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import pyarrow
import pyarrow.fs
import pyarrow.parquet

PICTURES = (".bmp", ".jpeg", ".jpg", ".pdf", ".png", ".tif", ".tiff")
_COLUMNS = ("path", "patient", "date")
_SCHEMA = pyarrow.schema(
    [("path", pyarrow.string()), ("patient", pyarrow.string()), ("date", pyarrow.date32())],
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the archive."""

    path: str  # absolute, or the address of an object: s3://BUCKET/KEY
    patient: str | None = None
    recorded_on: date | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """A row, or a file of a folder, that is left out."""

    where: str
    rule: str

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.where}: {self.rule}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of an archive in their order, each once, and what was left out."""

    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...] = ()

    @property
    def id(self) -> str:
        """The SHA-256 of all entries: the id of the run."""
        digest = hashlib.sha256()
        for entry in self.entries:
            day = entry.recorded_on and entry.recorded_on.isoformat()
            digest.update(json.dumps([entry.path, entry.patient, day]).encode() + b"\n")
        return digest.hexdigest()

    def to_parquet(self, files_a_part: int) -> bytes:
        """Return the entries as a Parquet file: row group k holds the files of part k."""
        columns = {
            "path": [entry.path for entry in self.entries],
            "patient": [entry.patient for entry in self.entries],
            "date": [entry.recorded_on for entry in self.entries],
        }
        buffer = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(
            pyarrow.table(columns, _SCHEMA), buffer, row_group_size=files_a_part, compression="zstd"
        )
        return bytes(buffer.getvalue())


def entries_of(table: pyarrow.Table) -> list[Entry]:
    """Return the entries that `Manifest.to_parquet` wrote."""
    return [Entry(row["path"], row["patient"], row["date"]) for row in table.to_pylist()]


def read_file(path: str) -> bytes:
    """Read a file of an archive, or an object of an object store."""
    if "://" not in path:
        return Path(path).read_bytes()
    filesystem, place = pyarrow.fs.FileSystem.from_uri(path)
    with filesystem.open_input_stream(place, compression=None) as file:
        return bytes(file.read())


def read_source(source: Path, endings: Sequence[str] = PICTURES) -> Manifest:
    """Read a folder (all its files with these endings, at any depth) or a manifest (.csv, .parquet).

    Raises
    ------
    ValueError
        It is neither, has no column `path`, or holds nothing that can be digitized.
    OSError
        It cannot be read.
    """
    rows: Iterable[Entry | Problem]
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such folder or manifest")
    if source.is_dir():
        rows = _walk(source, tuple(endings))
    elif source.suffix.lower() == ".csv":
        rows = _read_csv(source)
    elif source.suffix.lower() == ".parquet":
        rows = _read_parquet(source)
    else:
        raise ValueError(f"{source}: must be a folder or a manifest named .csv or .parquet")
    manifest = _each_once(rows)
    if not manifest.entries:
        left_out = f": {len(manifest.problems)} left out, the first is {manifest.problems[0]}"
        raise ValueError(f"{source}: holds no file to digitize{left_out if manifest.problems else ''}")
    return manifest


def _each_once(rows: Iterable[Entry | Problem]) -> Manifest:
    entries: dict[str, Entry] = {}
    problems: list[Problem] = []
    for number, row in enumerate(rows, 1):
        if isinstance(row, Problem):
            problems.append(row)
        elif row.path in entries:
            problems.append(Problem(f"row {number}", f"{row.path} is listed before; it is digitized once"))
        else:
            entries[row.path] = row
    return Manifest(tuple(entries.values()), tuple(problems))


def _walk(folder: Path, endings: tuple[str, ...]) -> Iterator[Entry | Problem]:
    """List a folder in the order of its names; a link to a folder is not followed."""
    closed: list[Problem] = []

    def note(error: OSError) -> None:
        closed.append(Problem(str(error.filename), f"cannot be listed: {error.strerror}"))

    for place, folders, names in os.walk(folder.absolute(), onerror=note):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(place, name)
            if name.lower().endswith(endings):
                yield _entry(path, path, None, None, folder)
            else:
                yield Problem(path, f"is not named {', '.join(endings)}")
    yield from closed


def _read_csv(path: Path) -> Iterator[Entry | Problem]:
    """Read a CSV file with a header; a row that does not fit its columns, or runs over several lines, is a problem."""
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        _check_columns(path, header)
        while True:
            first = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Problem(f"lines {first} to {reader.line_num}", f"cannot be read: {error}")
                continue
            where = f"line {first}"
            if reader.line_num > first:
                where = f"lines {first} to {reader.line_num}"
                yield Problem(where, "a quotation mark is not closed: a row must be one line")
            elif len(cells) != len(header):
                yield Problem(where, f"has {len(cells)} cells, the header has {len(header)}")
            else:
                row = dict(zip(header, cells, strict=True))
                yield _entry(where, row["path"], row.get("patient"), row.get("date"), path.parent)


def _read_parquet(path: Path) -> Iterator[Entry | Problem]:
    try:
        file = pyarrow.parquet.ParquetFile(path)
        _check_columns(path, file.schema_arrow.names)
        columns = [name for name in _COLUMNS if name in file.schema_arrow.names]
        number = 0
        for batch in file.iter_batches(columns=columns):
            for row in batch.to_pylist():
                number += 1
                yield _entry(f"row {number}", row["path"], row.get("patient"), row.get("date"), path.parent)
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path}: {error}") from error


def _check_columns(path: Path, names: Iterable[str]) -> None:
    names = list(names)
    if "path" not in names:
        raise ValueError(f"{path}: has the columns {', '.join(names) or 'none'}: one must be named path")
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{path}: has the columns {', '.join(sorted(twice))} more than once")


def _entry(where: str, path: object, patient: object, day: object, folder: Path) -> Entry | Problem:
    """Return a row as an entry; a relative path is relative to the manifest."""
    if not isinstance(path, str) or not path.strip():
        return Problem(where, "has no path")
    text = f"{path}{'' if patient is None else patient}"
    if any("\udc80" <= each <= "\udcff" for each in text) or "\0" in text:
        return Problem(where, "is not UTF-8")
    try:
        recorded_on = _date(day)
    except ValueError:
        return Problem(where, f"the date is {day!r}: must be YYYY-MM-DD or YYYYMMDD")
    if "://" not in path:
        path = os.path.normpath(os.path.join(folder.absolute(), path))
    return Entry(path, None if patient in (None, "") else str(patient), recorded_on)


def _date(value: object) -> date | None:
    if value is None or value == "":
        return None
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    text = str(value).strip()
    return datetime.strptime(text, "%Y-%m-%d" if "-" in text else "%Y%m%d").date()
