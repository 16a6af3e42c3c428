"""Recordings to draw: folders of npz archives in, 12-lead signals in millivolts at 500 Hz out.

An archive holds `meta` (a JSON list with `fs` and `patient` or `record` per recording) and either arrays `x0000`...
of int16 microvolts (12, n), or one `packed` block: eight independent leads, first differences, lzma.
"""

from __future__ import annotations

import json
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import signal as sps

from pipeline.datatypes import FloatArray

SAMPLING_FREQUENCY_HZ = 500.0


def _archive(path: Path) -> Iterator[tuple[dict[str, Any], FloatArray]]:
    with np.load(path) as archive:
        meta = json.loads(str(archive["meta"]))
        if "packed" in archive:
            shape = archive["shape"]
            block = np.frombuffer(lzma.decompress(archive["packed"].tobytes()), np.int16).reshape(shape)
            for entry, differences in zip(meta, block, strict=False):
                independent = np.cumsum(differences, axis=-1, dtype=np.int32)
                lead_1, lead_2 = independent[0], independent[1]
                limb = [
                    lead_1,
                    lead_2,
                    lead_2 - lead_1,
                    -(lead_1 + lead_2) / 2,
                    lead_1 - lead_2 / 2,
                    lead_2 - lead_1 / 2,
                ]
                yield entry, (np.concatenate([limb, independent[2:]]).astype(np.float32) / 1000).astype(np.float32)
        else:
            for index, entry in enumerate(meta):
                yield entry, archive[f"x{index:04d}"].astype(np.float32) / 1000


def load_records(folder: Path, part: str, validation_share: float = 0.1) -> list[FloatArray]:
    """Load every recording of one part of a folder of archives.

    Parameters
    ----------
    folder : Path
        Holds ``*.npz`` archives.
    part : {"train", "validation"}
        Split by a hash of archive and patient (or record), so that it never changes and no patient is in both.

    Returns
    -------
    list of (12, n) float32
        Millivolts at 500 Hz, lead order I II III aVR aVL aVF V1..V6.

    Raises
    ------
    ValueError
        The folder has no usable recording.
    """
    records = []
    for path in sorted(folder.glob("*.npz")):
        for entry, signal_mv in _archive(path):
            key = f"{path.stem}/{entry.get('patient') or entry['record']}".encode()
            is_validation = zlib.crc32(key) % 1000 < 1000 * validation_share
            if is_validation == (part == "validation") and np.ptp(signal_mv, axis=1).min() > 0.02:
                fs = float(entry["fs"])
                if fs != SAMPLING_FREQUENCY_HZ:
                    length = round(signal_mv.shape[1] * SAMPLING_FREQUENCY_HZ / fs)
                    signal_mv = sps.resample(signal_mv, length, axis=1).astype(np.float32)
                records.append(signal_mv)
    if not records:
        raise ValueError(f"{folder} holds no {part} recordings (*.npz with meta and x0000... or packed)")
    return records
