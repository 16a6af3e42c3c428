"""WFDB records in, twelve leads in millivolts out: PTB-XL, LUDB, PTB, and what a site exports in that form.

A header (``.hea``) names signal files and says, per signal, format, gain, baseline, units and lead (WFDB manual,
``header(5)`` and ``signal(5)``).  Formats 16 and 212 are read, one segment, one sample per frame: what ECG archives
use.  Anything else is a `RecordingUnusable` that says why.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.datatypes import LEADS, FloatArray, Lead

DEFAULT_FS_HZ = 250.0  # header(5): where a header states none
DEFAULT_GAIN = 200.0  # counts per unit, where a header states none or 0
_MILLIVOLTS = {"mv": 1.0, "uv": 1e-3, "µv": 1e-3, "v": 1e3}
_BY_NAME = {lead.value.upper(): lead for lead in LEADS}
_FORMAT = re.compile(r"(?P<format>\d+)(x(?P<per_frame>\d+))?(:(?P<skew>\d+))?(\+(?P<offset>\d+))?$")
_GAIN = re.compile(r"(?P<gain>[-+.\deE]+)(\((?P<baseline>-?\d+)\))?(/(?P<units>\S+))?$")


class RecordingUnusable(ValueError):
    """A recording cannot be drawn; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One signal line of a header."""

    file: str
    format: int
    offset: int  # bytes before the first sample
    gain: float  # counts per unit
    baseline: int  # the count of 0 units
    units: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a header says."""

    sampling_frequency_hz: float
    n_samples: int | None  # None = not stated: as long as the file
    signals: tuple[Signal, ...]


def _signal(line: str) -> Signal:
    """Parse one signal line; fields left out take the defaults of header(5)."""
    fields = line.split(maxsplit=8)
    form = _FORMAT.match(fields[1]) if len(fields) > 1 else None
    if form is None:
        raise RecordingUnusable(f"signal line {line!r} names no format")
    if int(form["per_frame"] or 1) != 1 or int(form["skew"] or 0):
        raise RecordingUnusable(f"format {fields[1]} has several samples per frame or a skew")
    scale = _GAIN.match(fields[2]) if len(fields) > 2 else None
    adc_zero = int(fields[4]) if len(fields) > 4 else 0
    return Signal(
        file=Path(fields[0]).name,
        format=int(form["format"]),
        offset=int(form["offset"] or 0),
        gain=(float(scale["gain"]) if scale else 0.0) or DEFAULT_GAIN,
        baseline=int(scale["baseline"]) if scale and scale["baseline"] else adc_zero,
        units=(scale["units"] if scale and scale["units"] else "mV"),
        name=fields[8].strip() if len(fields) > 8 else "",
    )


def read_header(path: Path) -> Header:
    """Read a header.

    Parameters
    ----------
    path : Path
        A ``.hea`` file.

    Raises
    ------
    RecordingUnusable
        It is none, or has several segments or formats that are not read.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    fields = lines[0].split() if lines else []
    if len(fields) < 2 or "/" in fields[0]:
        raise RecordingUnusable("its header has several segments, or no record line")
    try:
        n_signals = int(fields[1])
        fs = float(re.split(r"[/(]", fields[2])[0]) if len(fields) > 2 else DEFAULT_FS_HZ
        n_samples = int(fields[3]) if len(fields) > 3 else 0
        signals = tuple(_signal(line) for line in lines[1 : 1 + n_signals])
    except ValueError as error:
        raise RecordingUnusable(f"its header breaks header(5): {error}") from error
    if len(signals) != n_signals or fs <= 0:
        raise RecordingUnusable(f"its header promises {n_signals} signals at {fs:g} Hz and describes {len(signals)}")
    return Header(sampling_frequency_hz=fs, n_samples=n_samples or None, signals=signals)


def _counts(data: bytes, number: int) -> npt.NDArray[np.float64]:
    """Decode the samples of a file in format 16 or 212; the value that means "no sample" becomes NaN."""
    if number == 16:
        counts = np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.float64)
        return np.where(counts == -32768, np.nan, counts)
    if number != 212:
        raise RecordingUnusable(f"signal format {number} is not read (16 and 212 are)")
    triples = np.frombuffer(data + bytes(-len(data) % 3), np.uint8).reshape(-1, 3).astype(np.int32)
    first = triples[:, 0] | (triples[:, 1] & 0x0F) << 8
    second = triples[:, 2] | (triples[:, 1] & 0xF0) << 4
    pairs = np.stack([first, second], -1).ravel()[: len(data) * 2 // 3]
    signed = np.where(pairs > 2047, pairs - 4096, pairs).astype(np.float64)
    return np.where(signed == -2048, np.nan, signed)


def _millivolts(folder: Path, signals: list[Signal], n_samples: int | None) -> dict[Lead, npt.NDArray[np.float64]]:
    """Read one signal file: its leads among `signals` (all that it holds, interleaved), each (n,) mV."""
    first = signals[0]
    if any((s.format, s.offset) != (first.format, first.offset) for s in signals):
        raise RecordingUnusable(f"{first.file} mixes formats")
    counts = _counts((folder / first.file).read_bytes()[first.offset :], first.format)
    length = n_samples or len(counts) // len(signals)
    if len(counts) < length * len(signals):
        raise RecordingUnusable(f"{first.file} holds {len(counts) // len(signals)} of {length} samples")
    frames = counts[: length * len(signals)].reshape(length, len(signals))
    leads = {}
    for signal, column in zip(signals, frames.T, strict=True):
        lead = _BY_NAME.get(signal.name.upper())
        if lead is not None:
            if signal.units.lower() not in _MILLIVOLTS:
                raise RecordingUnusable(f"lead {lead} is in {signal.units}, not in volts")
            leads[lead] = (column - signal.baseline) / signal.gain * _MILLIVOLTS[signal.units.lower()]
    return leads


def read_record(path: Path) -> tuple[FloatArray, float]:
    """Read the twelve standard leads of a record.

    Parameters
    ----------
    path : Path
        The ``.hea`` file; the signal files lie beside it.

    Returns
    -------
    signal_mv : (12, n) float32
        In the order of `LEADS`, whatever the order in the file; NaN where the file says "no sample".
    sampling_frequency_hz : float

    Raises
    ------
    RecordingUnusable
        A lead is missing, a file is missing or short, or it is in a form that is not read.
    """
    header = read_header(path)
    leads: dict[Lead, npt.NDArray[np.float64]] = {}
    try:
        for file in dict.fromkeys(signal.file for signal in header.signals):
            signals = [signal for signal in header.signals if signal.file == file]
            leads |= _millivolts(path.parent, signals, header.n_samples)
    except OSError as error:
        raise RecordingUnusable(f"its signal file cannot be read: {error.strerror}") from error
    missing = [lead.value for lead in LEADS if lead not in leads]
    if missing:
        raise RecordingUnusable(f"leads {', '.join(missing)} are missing")
    if len({len(leads[lead]) for lead in LEADS}) > 1:
        raise RecordingUnusable("its leads differ in length")
    return np.stack([leads[lead] for lead in LEADS]).astype(np.float32), header.sampling_frequency_hz
