"""A page as a row of the output: what was read from it, or why nothing was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from pipeline.archive.manifest import Entry
from pipeline.datatypes import Digitization
from pipeline.output.files import to_json
from pipeline.output.stored import pack_digitization

_SIGNALS = pyarrow.list_(pyarrow.list_(pyarrow.float32()))
SCHEMA = pyarrow.schema(
    [
        ("path", pyarrow.string()),
        ("page", pyarrow.int32()),  # of the file, from 1; null: the whole file failed
        ("patient", pyarrow.string()),  # as the manifest states it, like the date
        ("date", pyarrow.date32()),
        ("outcome", pyarrow.string()),  # `Outcome`
        ("cause", pyarrow.string()),  # of a failure: `CRASHED`, `TIMED_OUT`, `MISSING`, or the name of the error
        ("reasons", pyarrow.list_(pyarrow.string())),  # in words: of the failure, or why a person must look
        ("file_sha256", pyarrow.string()),
        ("layout", pyarrow.string()),
        ("estimated_snr_db", pyarrow.float32()),
        ("sampling_frequency_hz", pyarrow.float64()),
        ("leads", pyarrow.list_(pyarrow.string())),
        ("signal_mv", _SIGNALS),  # (leads, samples); NaN: not printed or not readable
        ("confidence", _SIGNALS),  # (leads, samples), 0 to 1
        ("details", pyarrow.string()),  # JSON as `ecg-digitize digitize` writes it: quality, audit, calibration, ...
        ("wfdb", pyarrow.string()),  # the record as WFDB files, where they are wanted: path in the output, no ending
        ("for_gateway", pyarrow.binary()),  # what else a gateway needs (`pack_digitization`); with the lines of print
    ]
)
CRASHED, TIMED_OUT, MISSING, DEFECT = "crashed", "timed out", "missing", "defect"


class Outcome(StrEnum):
    """What became of a page."""

    READ = "read"
    REVIEW = "review"  # there is a record, and a person must look at it
    FAILED = "failed"


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Row:
    """One page."""

    path: str
    page: int | None
    patient: str | None = None
    date: date | None = None
    outcome: Outcome
    cause: str | None = None
    reasons: Sequence[str] = ()
    file_sha256: str | None = None
    layout: str | None = None
    estimated_snr_db: float | None = None
    sampling_frequency_hz: float | None = None
    leads: Sequence[str] | None = None
    signal_mv: Sequence[np.ndarray[Any, Any]] | None = None
    confidence: Sequence[np.ndarray[Any, Any]] | None = None
    details: str | None = None
    wfdb: str | None = None
    for_gateway: bytes | None = None


def row_of(entry: Entry, file_sha256: str, result: Digitization) -> Row:
    """Return the row of a page that was read."""
    record, warnings = result.record, result.quality.warnings
    return Row(
        path=entry.path,
        page=result.page.page_number,
        patient=entry.patient,
        date=entry.recorded_on,
        outcome=Outcome.REVIEW if warnings else Outcome.READ,
        reasons=warnings,
        file_sha256=file_sha256,
        layout=result.layout_match.layout.name,
        estimated_snr_db=result.quality.estimated_snr_db,
        sampling_frequency_hz=record.sampling_frequency_hz,
        leads=[str(lead) for lead in record.leads],
        signal_mv=list(record.signal_mv),
        confidence=list(record.confidence),
        details=to_json(result),
        for_gateway=pack_digitization(result),
    )


def failure(entry: Entry, page: int | None, cause: str, reason: str, file_sha256: str | None = None) -> Row:
    """Return the row of a page, or of a file, that could not be read."""
    return Row(
        path=entry.path,
        page=page,
        patient=entry.patient,
        date=entry.recorded_on,
        outcome=Outcome.FAILED,
        cause=cause,
        reasons=[reason],
        file_sha256=file_sha256,
    )


def to_parquet(rows: Sequence[Row]) -> bytes:
    """Return rows as a Parquet file."""
    columns = {
        name: pyarrow.array([getattr(row, name) for row in rows], SCHEMA.field(name).type) for name in SCHEMA.names
    }
    buffer = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(columns, SCHEMA), buffer, compression="zstd")
    return bytes(buffer.getvalue())
