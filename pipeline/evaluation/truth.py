"""What was recorded, from the forms it is published in: pages are scored against it.

    archive       ``truth.npz`` as `python -m pipeline.training render` writes it, and the development sets
    competition   the folder of the 2025 digitization competition: ``train.csv``, ``ID/ID.csv``, ``ID/ID-0003.png``
    WFDB          a folder of records (PTB-XL, PhysioNet Challenge 2024) with their images beside them
    DICOM         a folder of waveform objects with their images beside them

The name of a page starts with the name of its record: ``00017_hr-0.png`` belongs to ``00017_hr`` or ``00017``.
Records are read when they are needed, and resampled to `TRUTH_HZ` band-limited.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

from pipeline.datatypes import ALL_LEADS, LEADS, FloatArray, Layout, Lead
from pipeline.evaluation.dicom import is_waveform, read_waveform
from pipeline.training.recordings.wfdb import read_record

TRUTH_HZ = 500.0
PAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".pdf")
COMPETITION_KINDS = {
    "0001": "render",
    "0003": "colour scan",
    "0004": "B/W scan",
    "0005": "phone photo",
    "0006": "photo of a screen",
    "0009": "stained photo",
    "0010": "damaged photo",
    "0011": "mouldy colour scan",
    "0012": "mouldy B/W scan",
}
_NOT_PRINTED = -32768


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class PageTruth:
    """The signals of one page, and what is known of its print."""

    signal_mv: FloatArray  # (n_leads, n) at TRUTH_HZ; NaN = not printed
    leads: tuple[Lead, ...] = LEADS  # of its rows
    layout: str = ""  # "" = not known
    paper_speed_mm_per_s: float | None = None
    gain_mm_per_mv: float | None = None
    family: str = ""  # of drawn pages
    spikes: npt.NDArray[np.int32] | None = None  # (n, 3) pacing spikes: row, sample, uV; None = not listed


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Truth:
    """A set of records, each read when it is needed, and the pages beside them."""

    records: Mapping[str, Callable[[], PageTruth]]
    pages: tuple[Path, ...] = ()
    kinds: dict[str, str] = field(default_factory=dict)  # last part of a page's name -> kind of page

    def name_of(self, page: Path, page_number: int = 1) -> str:
        """Return the name of a page's record.

        From the second page of a file on, a record NAME-p2, NAME-p3... comes before NAME; so it does for a CSV that
        `digitize` named like that.

        Raises
        ------
        KeyError
            There is none.
        """
        stem, suffix = page.stem, f"-p{page_number}" if page_number > 1 else ""
        if named := re.fullmatch(r"(.+)(-p\d+)", stem):
            stem, suffix = named.groups()
        names = list(_prefixes(stem))
        for name in [*(name + suffix for name in names if suffix), *names]:
            if name in self.records:
                return name
        raise KeyError(f"{page}: no truth for id {names[-1]}")

    def find(self, page: Path, page_number: int = 1) -> PageTruth:
        """Read the truth of a page; raises KeyError where there is none, and ValueError where it is unusable."""
        return self.records[self.name_of(page, page_number)]()

    def kind(self, page: Path) -> str:
        """Name the kind of a page: by its own name where the set has such names, else the folder it lies in."""
        part = re.split("[-_]", re.sub(r"-p\d+$", "", page.stem))[-1]
        return f"{part} {self.kinds[part]}" if part in self.kinds else page.parent.name


def _prefixes(stem: str) -> Iterator[str]:
    """Yield a name, then what is left of it before its last _ or -, and so on."""
    while stem:
        yield stem
        stem = re.split(r"[-_](?=[^-_]*$)", stem)[0] if re.search("[-_]", stem) else ""


def to_truth_rate(signal_mv: FloatArray, sampling_frequency_hz: float) -> FloatArray:
    """Resample (12, n) to `TRUTH_HZ`, band-limited; what was NaN stays NaN.

    A gap is bridged before and cut out after, so that the time of every sample is exact.
    """
    ratio = Fraction(TRUTH_HZ / sampling_frequency_hz).limit_denominator(2000)
    if ratio == 1:
        return signal_mv
    at = np.arange(signal_mv.shape[1])
    n = -(-at.size * ratio.numerator // ratio.denominator)
    source = np.minimum(np.rint(np.arange(n) / float(ratio)).astype(np.int64), at.size - 1)
    out = np.full((signal_mv.shape[0], n), np.nan, np.float32)
    for row, values in enumerate(signal_mv):
        known = np.isfinite(values)
        if known.any():
            bridged = np.interp(at, at[known], values[known].astype(np.float64))
            resampled = resample_poly(bridged, ratio.numerator, ratio.denominator, padtype="line")
            out[row] = np.where(known[source], resampled[:n], np.nan)
    return out


def printed_as(truth: PageTruth, layout: Layout) -> PageTruth:
    """Keep of a whole recording what a page in `layout` shows: column k from k times its seconds, strips whole."""
    n = truth.signal_mv.shape[1]
    printed = np.zeros(truth.signal_mv.shape, bool)
    columns = len(layout.rows[0])
    for leads in layout.rows:
        for k, lead in enumerate(leads):
            start, stop = (round(edge * layout.column_seconds * TRUTH_HZ) for edge in (k, k + 1))
            first, last = (start, stop) if layout.sequential else (0, stop - start)
            if lead in truth.leads:
                printed[truth.leads.index(lead), first : min(last, n)] = True
    whole = round(layout.column_seconds * (columns if layout.sequential else 1) * TRUTH_HZ)
    for lead in layout.rhythm:
        printed[truth.leads.index(lead), :whole] = True
    signal_mv = np.where(printed, truth.signal_mv, np.nan).astype(np.float32)
    return replace(truth, signal_mv=signal_mv, layout=layout.name)


def _print_info(text: str) -> dict[str, dict[str, Any]]:
    """Read what an archive's `info` says page by page; {} where it is a note or anything else."""
    try:
        entries = json.loads(text)
    except ValueError:
        return {}
    entries = entries if isinstance(entries, list) else []
    return {str(entry["id"]): entry for entry in entries if isinstance(entry, dict) and "id" in entry}


def read_archive(path: Path) -> Truth:
    """Read ``truth.npz``.

    Parameters
    ----------
    path : Path
        An array ``r<id>`` for each page: (n_leads, n) int16 microvolts at 500 Hz, -32768 where nothing is printed.
        ``s<id>`` may list its pacing spikes, (n, 3): row, first sample, microvolts.  `info` may be a JSON list of
        objects with `id`, `layout`, `leads` (the twelve where it is missing), `paper_speed_mm_per_s`,
        `gain_mm_per_mv`, `family`.

    Raises
    ------
    ValueError
        It holds no such array, or one of another form.
    """
    with np.load(path) as archive:
        info = _print_info(str(archive["info"])) if "info" in archive.files else {}
        arrays = {name[1:]: archive[name] for name in archive.files if name.startswith("r")}
        spikes = {name: archive[f"s{name}"] for name in arrays if f"s{name}" in archive.files}
    leads = {name: tuple(info.get(name, {}).get("leads", LEADS)) for name in arrays}
    for name, counts in arrays.items():
        if counts.dtype != np.int16 or counts.ndim != 2 or counts.shape[0] != len(leads[name]):
            form = f"({len(leads[name])}, n) int16"
            raise ValueError(f"{path}: r{name} must be {form}, got {counts.shape} {counts.dtype}")
        if unknown := sorted(set(leads[name]) - set(ALL_LEADS)):
            raise ValueError(f"{path}: leads of {name}: {', '.join(map(str, unknown))} is no lead")
    if not arrays:
        raise ValueError(f"{path}: no array r<id> in it")

    def read(name: str) -> PageTruth:
        known = info.get(name, {})
        return PageTruth(
            signal_mv=np.where(arrays[name] == _NOT_PRINTED, np.nan, arrays[name] / 1000.0).astype(np.float32),
            leads=tuple(Lead(lead) for lead in leads[name]),
            layout=str(known.get("layout", "")),
            paper_speed_mm_per_s=known.get("paper_speed_mm_per_s"),
            gain_mm_per_mv=known.get("gain_mm_per_mv"),
            family=str(known.get("family", "")),
            spikes=spikes.get(name),
        )

    records = {name: partial(read, name) for name in arrays}
    return Truth(records=records, pages=_pages_beside(path.parent, set(records)))


def read_leads_csv(path: Path) -> FloatArray:
    """Read a competition record: one column a lead, mV, empty where not printed; (12, n).

    Raises
    ------
    ValueError
        A lead has no column, or a cell is no number.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    missing = [lead.value for lead in LEADS if not rows or lead.value not in rows[0]]
    if missing:
        raise ValueError(f"{path}: no column for {', '.join(missing)}")
    try:
        table = [[float(row[lead.value] or "nan") for lead in LEADS] for row in rows]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return np.array(table, np.float32).T


def read_competition(folder: Path) -> Truth:
    """Read the competition's folder: ``train.csv`` (id, fs, sig_len), ``ID/ID.csv`` and pages ``ID/ID-0001.png``."""
    with (folder / "train.csv").open(newline="", encoding="utf-8") as file:
        rates = {row["id"]: float(row["fs"]) for row in csv.DictReader(file)}

    def read(name: str) -> PageTruth:
        return PageTruth(signal_mv=to_truth_rate(read_leads_csv(folder / name / f"{name}.csv"), rates[name]))

    pages = [page for name in rates for page in sorted((folder / name).glob(f"{name}-*.png"))]
    return Truth(records={name: partial(read, name) for name in rates}, pages=tuple(pages), kinds=COMPETITION_KINDS)


def _of_files(folder: Path, files: list[Path], read: Callable[[Path], tuple[FloatArray, float]]) -> Truth:
    """Make a set of one file a record."""
    records = {path.stem: partial(_read_file, read, path) for path in files}
    return Truth(records=records, pages=_pages_beside(folder, set(records)))


def _read_file(read: Callable[[Path], tuple[FloatArray, float]], path: Path) -> PageTruth:
    return PageTruth(signal_mv=to_truth_rate(*read(path)))


def _pages_beside(folder: Path, names: set[str]) -> tuple[Path, ...]:
    """Find the pages at any depth of a folder that belong to one of `names`."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PAGE_SUFFIXES)
    return tuple(path for path in paths if any(name in names for name in _prefixes(path.stem)))


def read_truth(path: Path) -> Truth:
    """Read a set of records in any of the forms this module knows.

    Parameters
    ----------
    path : Path
        An npz archive, or a folder: with ``train.csv``, with WFDB headers or with DICOM waveforms, at any depth.

    Raises
    ------
    ValueError
        It is none of them; the message says what was looked for.
    """
    if not path.is_dir():
        return read_archive(path)
    if (path / "train.csv").exists():
        return read_competition(path)
    if headers := sorted(path.rglob("*.hea")):
        return _of_files(path, headers, read_record)
    if objects := [file for file in sorted(path.rglob("*")) if is_waveform(file)]:
        return _of_files(path, objects, read_waveform)
    raise ValueError(f"{path}: neither train.csv, nor WFDB headers (*.hea), nor DICOM waveforms in it")
