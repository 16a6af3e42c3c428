"""A record as WFDB files: a header and signals of 16 bits (format 16; see header(5) and signal(5) of WFDB)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_LARGEST = 32767
_INVALID = -32768  # of format 16: nothing is known
_STEPS_PER_MV = 1000


def to_wfdb(
    name: str, signal_mv: npt.NDArray[np.float32], leads: Sequence[str], sampling_frequency_hz: float
) -> dict[str, bytes]:
    """Return the files of a record.

    Parameters
    ----------
    name : str
        Of the record: letters, digits, hyphens and underscores.
    signal_mv : (n_leads, n_samples)
        NaN = not printed or not readable.
    leads : sequence of str
        A name for each row.
    sampling_frequency_hz : float

    Returns
    -------
    dict of str to bytes
        By file name, `name`.hea and `name`.dat.  A step is 1 uV, and more where a signal exceeds 32 mV.
    """
    known = np.isfinite(signal_mv)
    peak_mv = float(np.abs(signal_mv[known]).max(initial=0.0))
    per_mv = min(_STEPS_PER_MV, math.floor(_LARGEST / max(peak_mv, 1e-9)))
    steps = np.where(known, np.round(np.nan_to_num(signal_mv) * per_mv), _INVALID).astype("<i2")
    lines = [f"{name} {len(leads)} {sampling_frequency_hz:g} {steps.shape[1]}"]
    for lead, row in zip(leads, steps, strict=True):
        checksum = int(row.sum(dtype=np.int64).astype(np.int16))
        first = int(row[0]) if row.size else 0
        lines.append(f"{name}.dat 16 {per_mv}(0)/mV 16 0 {first} {checksum} 0 {lead}")
    return {f"{name}.hea": ("\n".join(lines) + "\n").encode(), f"{name}.dat": steps.T.tobytes()}
