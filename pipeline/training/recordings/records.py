"""Recordings to draw: a folder in, 12-lead signals in millivolts at 500 Hz out.

Three kinds may lie in the folder, side by side:

* ``*.npz`` archives: `meta` (a JSON list with `fs` and `patient` or `record` per recording) and either arrays
  `x0000`... of int16 microvolts (12, n), or one `packed` block: eight independent leads, first differences, lzma.
  `on_shared_dev_page` marks a recording that is printed on a page to develop on: it is not trained on, in whichever
  archive it is.  `also_filtered` marks one that another archive holds: it is read there.  An `amplitude` of "synthetic"
  marks hearts of no one, split by their first label (a preset), so that variants of one are together; they are only
  trained on, so figures are those of real hearts;
* WFDB records (``*.hea``, at any depth), see `wfdb`; where PTB-XL's ``ptbxl_database.csv`` lies beside them it says
  which records are one patient's;
* CODE-15%, see `code15`: ``exams.csv`` and its ``*.hdf5`` parts.

What cannot be drawn is left out, and the log says why.
"""

from __future__ import annotations

import csv
import json
import logging
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import signal as sps

from pipeline.datatypes import FloatArray
from pipeline.training.recordings.code15 import EXAMS, read_exams
from pipeline.training.recordings.wfdb import RecordingUnusable, read_record

log = logging.getLogger(__name__)

SAMPLING_FREQUENCY_HZ = 500.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A recording that was found, not yet read; `read` gives (12, n) mV and Hz, or raises RecordingUnusable."""

    name: str
    patient: str  # decides training or validation
    for_training: bool = True
    for_validation: bool = True
    read: Callable[[], tuple[FloatArray, float]]


def _unpacked(differences: npt.NDArray[np.int16]) -> FloatArray:
    """Eight leads of differences (8, n) in uV -> (12, n) mV."""
    independent = np.cumsum(differences, axis=-1, dtype=np.int32)
    lead_1, lead_2 = independent[0], independent[1]
    limb = [lead_1, lead_2, lead_2 - lead_1, -(lead_1 + lead_2) / 2, lead_1 - lead_2 / 2, lead_2 - lead_1 / 2]
    return np.asarray(np.concatenate([limb, independent[2:]]).astype(np.float32) / 1000, np.float32)


def _archive(path: Path, on_pages: set[str]) -> Iterator[Recording]:
    with np.load(path) as archive:
        meta = json.loads(str(archive["meta"]))
        block = None
        if "packed" in archive:
            block = np.frombuffer(lzma.decompress(archive["packed"].tobytes()), np.int16).reshape(archive["shape"])
            meta = meta[: len(block)]

        def read(index: int, fs: float) -> tuple[FloatArray, float]:
            if block is not None:
                return _unpacked(block[index]), fs
            return archive[f"x{index:04d}"].astype(np.float32) / 1000, fs

        for index, entry in enumerate(meta):
            synthetic = str(entry.get("amplitude", "")).startswith("synthetic")
            group = entry["labels"][0] if synthetic else entry.get("patient") or entry["record"]
            if not entry.get("also_filtered"):
                yield Recording(
                    name=f"{path.name}[{index}]",
                    patient=f"{path.stem}/{group}",
                    for_training=entry["record"] not in on_pages,
                    for_validation=not synthetic,
                    read=partial(read, index, float(entry["fs"])),
                )


def _on_pages(path: Path) -> list[str]:
    """List the recordings that an archive says are printed on development pages."""
    with np.load(path) as archive:
        return [entry["record"] for entry in json.loads(str(archive["meta"])) if entry.get("on_shared_dev_page")]


def _wfdb(folder: Path) -> Iterator[Recording]:
    patients = {}
    for table in sorted(folder.rglob("ptbxl_database.csv")):
        with table.open(newline="", encoding="utf-8") as rows:
            for row in csv.DictReader(rows):
                for column in ("filename_lr", "filename_hr"):
                    patients[Path(row[column]).name] = f"ptbxl/{row['patient_id']}"
    for path in sorted(folder.rglob("*.hea")):
        name = path.relative_to(folder).as_posix()
        yield Recording(name=name, patient=patients.get(path.stem, name), read=partial(read_record, path))


def _code15(folder: Path) -> Iterator[Recording]:
    for exam in read_exams(folder) if (folder / EXAMS).exists() else ():
        yield Recording(name=f"exam {exam.exam_id}", patient=f"code15/{exam.patient_id}", read=exam.read)


def _recordings(folder: Path) -> Iterator[Recording]:
    archives = sorted(folder.glob("*.npz"))
    on_pages = {record for path in archives for record in _on_pages(path)}
    for path in archives:
        yield from _archive(path, on_pages)
    yield from _wfdb(folder)
    yield from _code15(folder)


def _drawable(signal_mv: FloatArray, fs: float, *, shortest_s: float = 5.0, flat_mv: float = 0.02) -> FloatArray:
    """Return the signal at 500 Hz, or raise RecordingUnusable."""
    if signal_mv.shape[1] < shortest_s * fs:
        raise RecordingUnusable(f"{signal_mv.shape[1] / fs:.1f} s are less than {shortest_s:g} s")
    if not np.isfinite(signal_mv).all():
        raise RecordingUnusable("samples are missing in it")
    if np.ptp(signal_mv, axis=1).min() <= flat_mv:
        raise RecordingUnusable("a lead is flat")
    if fs == SAMPLING_FREQUENCY_HZ:
        return signal_mv
    length = round(signal_mv.shape[1] * SAMPLING_FREQUENCY_HZ / fs)
    return np.asarray(sps.resample(signal_mv, length, axis=1), np.float32)


def load_records(folder: Path, part: str, validation_share: float = 0.1) -> list[FloatArray]:
    """Load every recording of one part of a folder.

    Parameters
    ----------
    folder : Path
        Holds ``*.npz`` archives, WFDB records or CODE-15%.
    part : {"train", "validation"}
        Split by a hash of the patient (or record, where the patient is not known), so that it never changes.

    Returns
    -------
    list of (12, n) float32
        Millivolts at 500 Hz, lead order I II III aVR aVL aVF V1..V6.

    Raises
    ------
    ValueError
        The folder has no usable recording.
    ImportError
        The folder holds CODE-15%, and h5py is not installed.
    """
    records = []
    for recording in _recordings(folder):
        is_validation = zlib.crc32(recording.patient.encode()) % 1000 < 1000 * validation_share
        wanted = recording.for_validation if part == "validation" else recording.for_training
        if is_validation == (part == "validation") and wanted:
            try:
                records.append(_drawable(*recording.read()))
            except RecordingUnusable as reason:
                log.warning(
                    "Recording %s is left out: %s", recording.name, reason, extra={"action": "recording-left-out"}
                )
    if not records:
        raise ValueError(f"{folder} holds no {part} recordings that can be drawn (*.npz, WFDB *.hea, or CODE-15%)")
    return records
