"""DICOM waveform objects as truth: the ECG a cart sent beside the page it printed.

The only module of the pipeline that knows pydicom.  Digitizing pages must not need it, and DICOM is the gateway's
business; but who measures on an archive has waveforms and pages side by side, and a converter in the gateway, with a
file format in between, would be one more step for the same few lines (tests/test_architecture.py holds the line here).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.waveforms.numpy_handler import multiplex_array

from pipeline.datatypes import LEADS, FloatArray, Lead

# The numbers that MDC ("2:61") and SCP-ECG ("5.6.3-9-61") share, PS3.16 CID 3001.
_LEAD_NUMBERS = dict(zip((1, 2, 61, 62, 63, 64, 3, 4, 5, 6, 7, 8), LEADS, strict=True))
_TO_MILLIVOLT = {"uV": 1e-3, "mV": 1.0, "V": 1e3}


def is_waveform(path: Path) -> bool:
    """Tell whether a file is a DICOM object that holds a waveform."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        if file.read(132)[128:] != b"DICM":
            return False
    return "WaveformSequence" in pydicom.dcmread(path, specific_tags=["WaveformSequence"])


def _lead(channel: Dataset) -> Lead | None:
    """Return the lead of a channel by its code; None for anything else."""
    code = str(channel.ChannelSourceSequence[0].get("CodeValue", ""))
    number = code.replace(":", "-").rpartition("-")[2]
    return _LEAD_NUMBERS.get(int(number)) if number.isdigit() else None


def _channel_mv(channel: Dataset, counts: FloatArray, padding: int | None) -> FloatArray:
    """Bring one channel's samples (n,) to millivolts, PS3.3 C.10.9.1.4; padding becomes NaN."""
    units = str(channel.ChannelSensitivityUnitsSequence[0].CodeValue)
    if units not in _TO_MILLIVOLT:
        raise ValueError(f"a channel is in {units}, not in volts")
    factor = float(channel.ChannelSensitivity) * float(channel.get("ChannelSensitivityCorrectionFactor", 1))
    known = counts != padding if padding is not None else np.ones(counts.shape, bool)
    values = (counts * factor + float(channel.get("ChannelBaseline", 0))) * _TO_MILLIVOLT[units]
    return np.where(known, values, np.nan).astype(np.float32)


def _padding(group: Dataset) -> int | None:
    """Return the sample value that means "none": stored as bytes, or as the number itself."""
    value = group.get("WaveformPaddingValue")
    if isinstance(value, bytes):
        signed = group.WaveformSampleInterpretation in ("SB", "SS", "SL")
        return int.from_bytes(value[: group.WaveformBitsAllocated // 8], "little", signed=signed)
    return None if value is None else int(value)


def read_waveform(path: Path) -> tuple[FloatArray, float]:
    """Read the standard leads of a waveform object.

    Parameters
    ----------
    path : Path
        A DICOM file; its multiplex groups are laid on one time axis by their offsets.

    Returns
    -------
    signal_mv : (12, n) float32
        NaN where a lead was not recorded.
    sampling_frequency_hz : float

    Raises
    ------
    ValueError
        No group holds a standard lead, or groups differ in sampling frequency.
    """
    ds = pydicom.dcmread(path)
    stretches: list[tuple[Lead, int, FloatArray]] = []
    rates = set()
    for index, group in enumerate(ds.WaveformSequence):
        if group.get("WaveformOriginality", "ORIGINAL") != "ORIGINAL":
            continue  # median beats
        counts = np.asarray(multiplex_array(ds, index, as_raw=True))
        first = round(float(group.get("MultiplexGroupTimeOffset", 0) or 0) / 1000 * float(group.SamplingFrequency))
        for channel, column in zip(group.ChannelDefinitionSequence, counts.T, strict=True):
            lead = _lead(channel)
            if lead is not None:
                rates.add(float(group.SamplingFrequency))
                stretches.append((lead, first, _channel_mv(channel, column, _padding(group))))
    if len(rates) != 1:
        raise ValueError(f"{path}: {'groups differ in sampling frequency' if rates else 'no standard lead in it'}")
    signal_mv = np.full((len(LEADS), max(first + len(values) for _, first, values in stretches)), np.nan, np.float32)
    for lead, first, values in stretches:
        signal_mv[LEADS.index(lead), first : first + len(values)] = values
    return signal_mv, rates.pop()
