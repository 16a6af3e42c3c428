"""Results of a run that go on elsewhere: a digitization without its pictures and signals as bytes, and back.

`pack_digitization` leaves out what a row of an archive has in columns of its own (the signals), what the file of the
page gives again (its pixels), and what no later step asks for (`TraceSet.doubt_mm`).  `StoredPages` puts all pages of
one file together, for a program that has that file.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date, time
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from pipeline.datatypes import (
    ByPerson,
    Calibration,
    Digitization,
    DrawnLine,
    EcgRecord,
    FloatArray,
    GridScale,
    InkAudit,
    LayoutMatch,
    Lead,
    PageImage,
    PrintedValues,
    Quality,
    RectifiedPage,
    SecondPrint,
    SpikeMark,
    TextLine,
    TraceSet,
)
from pipeline.errors import DigitizationError

_FORM = 1  # of what is written here
# Lattice and traces serve to show a result on its page, so less than a pixel of a screen is enough.
_STEP_PX, _STEP_MM, _STEP_CONFIDENCE = 1 / 32, 0.01, 1 / 256
_NOTHING = np.iinfo(np.int32).min  # NaN


@dataclass(frozen=True, slots=True, kw_only=True)
class _Second:
    """A `SecondPrint` without its signal."""

    lead: Lead
    first_sample: int
    agreement_db: float
    used: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _About:
    """Everything of a digitization that is no array."""

    form: int = _FORM
    page_px: tuple[int, int]  # width, height
    match: LayoutMatch
    calibration: Calibration
    leads: tuple[Lead, ...]
    sampling_frequency_hz: float
    by_person: tuple[ByPerson, ...]
    pacing: tuple[tuple[Lead, int], ...]
    second_prints: tuple[_Second, ...]
    quality: Quality
    weights_sha256: dict[str, str]
    text: tuple[TextLine, ...]
    printed: PrintedValues
    audit: InkAudit
    scale: GridScale
    node_mm: float
    quarter_turns: int
    x0_mm: float
    columns_per_mm: float
    lines: tuple[tuple[int, int], ...]  # row and first column of each
    spikes: tuple[SpikeMark, ...]


_ABOUT = TypeAdapter(_About)


def pack_digitization(digitization: Digitization) -> bytes:
    """Return a digitization as bytes, without the pixels of the page and its sheet, and without signals and confidence.

    It holds the lines of print, so it may name the patient.
    """
    record, traces, rectified = digitization.record, digitization.traces, digitization.rectified
    height, width = digitization.page.pixels.shape[:2]
    about = _About(
        page_px=(width, height),
        match=digitization.layout_match,
        calibration=record.calibration,
        leads=record.leads,
        sampling_frequency_hz=record.sampling_frequency_hz,
        by_person=record.by_person,
        pacing=record.pacing,
        second_prints=tuple(
            _Second(lead=each.lead, first_sample=each.first_sample, agreement_db=each.agreement_db, used=each.used)
            for each in record.second_prints
        ),
        quality=digitization.quality,
        weights_sha256=digitization.weights_sha256,
        text=digitization.text,
        printed=digitization.printed,
        audit=digitization.audit,
        scale=rectified.grid_scale,
        node_mm=rectified.node_mm,
        quarter_turns=rectified.quarter_turns,
        x0_mm=traces.x0_mm,
        columns_per_mm=traces.columns_per_mm,
        lines=tuple((line.row, line.first) for line in traces.lines),
        spikes=traces.spikes,
    )
    arrays = {
        "about": np.frombuffer(json.dumps(asdict(about), default=_plain).encode(), np.uint8),
        "node_xy": _steps(rectified.node_xy, _STEP_PX),
        "homography": rectified.homography,
        "row_mm": _steps(traces.row_mm, _STEP_MM),
        "trace_confidence": _steps(traces.confidence, _STEP_CONFIDENCE),
        "baseline_mm": traces.baseline_mm,
    }
    arrays |= {f"line{k}": line.y_mm for k, line in enumerate(traces.lines)}
    arrays |= {f"second{k}": each.signal_mv for k, each in enumerate(record.second_prints)}
    return _to_npz(arrays)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class StoredPage:
    """The result of one page.

    Parameters
    ----------
    reason : str
        Why there is no record, in words; "" where there is one.
    rest : bytes
        What `pack_digitization` wrote.
    signal_mv, confidence : (n_leads, n_samples)
        Of the record.
    """

    reason: str = ""
    rest: bytes = field(default=b"", repr=False)
    signal_mv: FloatArray | None = None
    confidence: FloatArray | None = None


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class StoredPages:
    """The results of all pages of one file.

    Parameters
    ----------
    run : str
        The id of the run that read them.
    version : str
        Of the program that did.
    pages : Mapping of int to StoredPage
        By page number, from 1.
    """

    run: str
    version: str
    pages: Mapping[int, StoredPage]

    def to_bytes(self) -> bytes:
        """Return all of it as bytes."""
        reasons = {number: page.reason for number, page in self.pages.items()}
        about = json.dumps({"form": _FORM, "run": self.run, "version": self.version, "reasons": reasons})
        arrays: dict[str, npt.NDArray[np.generic]] = {"about": np.frombuffer(about.encode(), np.uint8)}
        for number, page in self.pages.items():
            if page.signal_mv is not None and page.confidence is not None:
                arrays[f"{number}.rest"] = np.frombuffer(page.rest, np.uint8)
                arrays[f"{number}.signal_mv"] = page.signal_mv
                arrays[f"{number}.confidence"] = page.confidence
        return _to_npz(arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> StoredPages:
        """Return what `to_bytes` wrote.

        Raises
        ------
        DigitizationError
            The bytes are damaged, or of another version.
        """
        try:
            arrays = _from_npz(data)
            about = json.loads(arrays["about"].tobytes())
            if about["form"] != _FORM:
                raise DigitizationError(f"stored results have form {about['form']}, this version reads {_FORM}")
            pages = {
                int(number): StoredPage(reason=reason)
                if reason
                else StoredPage(
                    rest=arrays[f"{number}.rest"].tobytes(),
                    signal_mv=arrays[f"{number}.signal_mv"],
                    confidence=arrays[f"{number}.confidence"],
                )
                for number, reason in about["reasons"].items()
            }
        except (zipfile.BadZipFile, OSError, ValueError, KeyError, EOFError) as error:
            raise DigitizationError(f"stored results cannot be read ({type(error).__name__})") from error
        return cls(run=about["run"], version=about["version"], pages=pages)

    def digitization(self, page: PageImage) -> Digitization:
        """Return what was read from a page; the picture of its flat sheet is blank.

        Raises
        ------
        DigitizationError
            Nothing was read from it, or from another picture.
        """
        stored = self.pages.get(page.page_number)
        if stored is None:
            raise DigitizationError("the stored results have no such page")
        if stored.reason:
            raise DigitizationError(stored.reason)
        try:
            arrays = _from_npz(stored.rest)
            about = _ABOUT.validate_python(json.loads(arrays["about"].tobytes()))
            return _digitization(about, arrays, stored, page)
        except (zipfile.BadZipFile, OSError, KeyError, EOFError, ValueError) as error:
            raise DigitizationError(f"stored results cannot be read ({type(error).__name__})") from error


def _digitization(
    about: _About, arrays: dict[str, npt.NDArray[np.generic]], stored: StoredPage, page: PageImage
) -> Digitization:
    height, width = page.pixels.shape[:2]
    if about.page_px != (width, height):
        was = "x".join(map(str, about.page_px))
        raise DigitizationError(f"the page has {width}x{height} pixels, and was read from {was}")
    assert stored.signal_mv is not None and stored.confidence is not None
    seconds = (
        SecondPrint(
            lead=each.lead,
            first_sample=each.first_sample,
            signal_mv=_floats(arrays[f"second{k}"]),
            agreement_db=each.agreement_db,
            used=each.used,
        )
        for k, each in enumerate(about.second_prints)
    )
    lines = (
        DrawnLine(row=row, first=first, y_mm=_floats(arrays[f"line{k}"])) for k, (row, first) in enumerate(about.lines)
    )
    return Digitization(
        page=page,
        rectified=RectifiedPage(
            node_xy=_values(arrays["node_xy"], _STEP_PX),
            node_mm=about.node_mm,
            pixels=np.zeros((1, 1, 3), np.uint8),
            px_per_mm=1.0,
            grid_scale=about.scale,
            homography=arrays["homography"].astype(np.float64),
            quarter_turns=about.quarter_turns,
        ),
        layout_match=about.match,
        traces=TraceSet(
            row_mm=_values(arrays["row_mm"], _STEP_MM),
            confidence=_values(arrays["trace_confidence"], _STEP_CONFIDENCE),
            baseline_mm=_floats(arrays["baseline_mm"]),
            x0_mm=about.x0_mm,
            columns_per_mm=about.columns_per_mm,
            lines=tuple(lines),
            spikes=about.spikes,
        ),
        record=EcgRecord(
            signal_mv=stored.signal_mv,
            confidence=stored.confidence,
            leads=about.leads,
            sampling_frequency_hz=about.sampling_frequency_hz,
            calibration=about.calibration,
            second_prints=tuple(seconds),
            by_person=about.by_person,
            pacing=about.pacing,
        ),
        quality=about.quality,
        weights_sha256=about.weights_sha256,
        text=about.text,
        printed=about.printed,
        audit=about.audit,
    )


def _to_npz(arrays: Mapping[str, Any]) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def _from_npz(data: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(data)) as stored:
        return dict(stored)


def _steps(array: FloatArray, step: float) -> npt.NDArray[np.int32]:
    """Return an array in whole steps, each as the difference to the one before: what varies slowly becomes small."""
    whole = np.where(np.isnan(array), _NOTHING, np.round(np.nan_to_num(array) / step)).astype(np.int32)
    return np.diff(whole, axis=1, prepend=np.int32(0))


def _values(steps: npt.NDArray[np.generic], step: float) -> FloatArray:
    whole = np.cumsum(steps, axis=1, dtype=np.int32)
    return np.where(whole == _NOTHING, np.nan, whole * step).astype(np.float32)


def _floats(array: npt.NDArray[np.generic]) -> FloatArray:
    return array.astype(np.float32, copy=False)


def _plain(value: object) -> object:
    """Return for JSON what it has no form for: sets, dates and NumPy's numbers."""
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"no JSON for {type(value).__name__}")
