"""CODE-15% (Ribeiro et al. 2021, zenodo.org/records/4916206): ``exams.csv`` and HDF5 parts.

A part holds `exam_id` (N,) and `tracings` (N, 4096, 12): millivolts at 400 Hz in the order of `LEADS`, zeros before
and after an exam that is shorter.  Reading it needs h5py, which nothing else here does, so it is not a dependency.
"""

from __future__ import annotations

import csv
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.datatypes import FloatArray

EXAMS = "exams.csv"
SAMPLING_FREQUENCY_HZ = 400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Exam:
    """One exam of a part that is open."""

    exam_id: str
    patient_id: str
    tracings: Any  # h5py.Dataset (N, 4096, 12)
    index: int

    def read(self) -> tuple[FloatArray, float]:
        """Return (12, n) mV without the padding, and Hz; n is 0 where the part holds nothing but zeros."""
        signal_mv = np.asarray(self.tracings[self.index], np.float32).T
        printed = np.flatnonzero(np.any(signal_mv != 0, axis=0))
        first, last = (printed[0], printed[-1] + 1) if printed.size else (0, 0)
        return np.ascontiguousarray(signal_mv[:, first:last]), SAMPLING_FREQUENCY_HZ


def read_exams(folder: Path) -> Iterator[Exam]:
    """Yield the exams of every part in a folder, each readable until the next one is taken.

    Raises
    ------
    ImportError
        h5py is not installed.
    """
    try:
        h5py = importlib.import_module("h5py")
    except ImportError as error:
        raise ImportError(f"{folder} holds CODE-15%, which is HDF5: install h5py (pip install h5py)") from error
    with (folder / EXAMS).open(newline="", encoding="utf-8") as rows:
        patients = {row["exam_id"]: row["patient_id"] for row in csv.DictReader(rows)}
    for path in sorted(folder.glob("*.hdf5")):
        with h5py.File(path, "r") as part:
            for index, number in enumerate(np.asarray(part["exam_id"])):
                exam_id = str(int(number))
                if exam_id in patients:  # a part may end with a row of exam 0
                    yield Exam(exam_id=exam_id, patient_id=patients[exam_id], tracings=part["tracings"], index=index)
