"""A manifest is digitized on Ray, part by part: each part is one task of Ray Data and one file of the output.

Only numbers of parts travel through Ray.  An actor reads the entries of its part from the manifest, its process reads,
decodes and digitizes the files, and the actor writes the rows.  So no picture and no signal is ever in Ray's object
store.  If a node is lost, Ray gives its parts to another one: a part that is written twice is the same file.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet

from pipeline.archive.child import AnyDigitizer, Decode
from pipeline.archive.guard import Guard
from pipeline.archive.manifest import Manifest, entries_of
from pipeline.archive.output import MANIFEST, PROBLEMS, RUN, Output, OutputError
from pipeline.archive.rows import Row, to_parquet
from pipeline.datatypes import Calibration
from pipeline.output.wfdb import to_wfdb
from pipeline.source.page import load_pages
from pipeline.threads import cores_of

_MOST_FILES_A_PART = 32  # two minutes of a processor: what a killed run has to do again, for each actor
_LEAST_PARTS = 64
_OBJECT_STORE_BYTES = 256 << 20  # numbers only


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run over a manifest, as it stands in the output folder."""

    output: Output
    manifest_id: str
    files: int
    left_out: int  # of the source
    files_a_part: int

    @property
    def parts(self) -> int:
        """How many parts the manifest has."""
        return -(-self.files // self.files_a_part)

    def left(self) -> list[int]:
        """Return the parts that are not written yet."""
        return sorted(set(range(self.parts)) - self.output.parts())

    def files_of(self, parts: Sequence[int]) -> int:
        """Return how many files some parts have; the last one may have fewer than the others."""
        full = len(parts) * self.files_a_part
        return full - (self.parts * self.files_a_part - self.files if self.parts - 1 in parts else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """What digitizes, and where."""

    load: Callable[[], AnyDigitizer]  # called in a process of each actor; found by its name there
    calibration: Calibration
    page_s: float  # how long a page may take
    decode: Decode = load_pages  # found by its name, too
    actors: int | None = None  # None: as many as the cores, or the GPUs, allow
    cores: int = 1  # of an actor
    gpus: float = 0.0  # of an actor; 0.25: four share one
    address: str | None = None  # of a Ray cluster; None: Ray is started on this machine
    wfdb: bool = False  # also a WFDB record a page


@dataclass(frozen=True, slots=True)
class Written:
    """A part that is written."""

    number: int
    files: int
    pages: Counter[str]  # by outcome


def open_run(output: Output, manifest: Manifest, settings: dict[str, str]) -> Run:
    """Begin a run in an output folder, or continue the one that is there.

    Parameters
    ----------
    output : Output
    manifest : Manifest
    settings : dict
        What changes the rows besides the files: a run continues with the same values only.

    Returns
    -------
    Run

    Raises
    ------
    OutputError
        The folder holds another run.
    """
    stated = {"manifest": manifest.id, "files": len(manifest.entries), "settings": settings}
    known = output.read(RUN)
    if known is None:
        if output.parts():
            raise OutputError(f"{output.place} holds pages, but no {RUN}: choose another folder")
        files_a_part = max(1, min(_MOST_FILES_A_PART, len(manifest.entries) // _LEAST_PARTS))
        output.write(MANIFEST, manifest.to_parquet(files_a_part))
        output.write(PROBLEMS, _problems(manifest))
        made = {"left_out": len(manifest.problems), "files_a_part": files_a_part}
        known = json.dumps(stated | made, indent=2).encode()
        output.write(RUN, known)  # last: a folder without it is begun again
    run = json.loads(known)
    if run["manifest"] != stated["manifest"]:
        raise OutputError(
            f"{output.place} holds a run over {run['files']} files, and the source has {stated['files']}, or others: "
            f"choose another folder; to continue that run, give its own list as the source: {output.place}/{MANIFEST}"
        )
    for name, value in settings.items():
        if run["settings"].get(name) != value:
            raise OutputError(f"{output.place} holds a run with {name} {run['settings'].get(name)}, not {value}")
    return Run(
        output=output,
        manifest_id=run["manifest"],
        files=run["files"],
        left_out=run["left_out"],
        files_a_part=run["files_a_part"],
    )


def _problems(manifest: Manifest) -> bytes:
    columns = ([each.where for each in manifest.problems], [each.rule for each in manifest.problems])
    arrays = [pyarrow.array(column, pyarrow.string()) for column in columns]
    buffer = pyarrow.BufferOutputStream()
    pyarrow.csv.write_csv(pyarrow.table(arrays, ["where", "rule"]), buffer)
    return bytes(buffer.getvalue())


def digitize(run: Run, crew: Crew) -> Iterator[Written]:
    """Digitize the parts that are left; yields each as it is written.

    Raises
    ------
    ray.exceptions.RayError
        Ray cannot go on, or an actor cannot load its digitizer.
    """
    left = run.left()
    if not left:
        return
    with _ray(crew.address) as ray:
        import ray.data as data

        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        actors = min(crew.actors or _actors_that_fit(ray.cluster_resources(), crew), len(left))
        parts = data.from_items([{"number": number} for number in left], override_num_blocks=len(left)).map_batches(
            _Digitizing,
            fn_constructor_args=(run, crew),
            batch_size=1,
            compute=data.ActorPoolStrategy(size=actors),
            num_cpus=crew.cores,
            num_gpus=crew.gpus or None,
        )
        for batch in parts.iter_batches(batch_size=None, prefetch_batches=0):
            for number, files, pages in zip(batch["number"], batch["files"], batch["pages"], strict=True):
                yield Written(int(number), int(files), Counter(json.loads(pages)))


def _actors_that_fit(resources: dict[str, float], crew: Crew) -> int:
    fits = int(resources.get("CPU", 0) // crew.cores)
    if crew.gpus:
        fits = min(fits, int(resources.get("GPU", 0) // crew.gpus))
    return max(1, fits)  # Ray says what it lacks


@contextmanager
def _ray(address: str | None) -> Iterator[Any]:
    """Join a cluster, or start Ray on this machine; it ends with the run."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what Ray will do, and warns of otherwise
    import ray

    local = {"num_cpus": cores_of(), "include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    started = {} if address else local
    ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **started)
    try:
        yield ray
    finally:
        ray.shutdown()


class _Digitizing:
    """An actor of the pool: digitizes one part after the other."""

    def __init__(self, run: Run, crew: Crew) -> None:
        self._run = run
        self._wfdb = crew.wfdb
        self._guard = Guard(crew.load, crew.calibration, crew.page_s, crew.decode)
        self._manifest = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(run.output.read(MANIFEST)))

    def __call__(self, batch: dict[str, np.ndarray[Any, Any]]) -> dict[str, list[Any]]:
        done: dict[str, list[Any]] = {"number": [], "files": [], "pages": []}
        for number in batch["number"].tolist():
            entries = entries_of(self._manifest.read_row_group(number))
            rows = self._guard.digitize(entries)
            if self._wfdb:
                rows = [self._also_wfdb(number, k, row) for k, row in enumerate(rows)]
            self._run.output.write_part(number, to_parquet(rows))
            pages = Counter(str(row.outcome) for row in rows)
            done["number"].append(number)
            done["files"].append(len(entries))
            done["pages"].append(json.dumps(pages))
        return done

    def _also_wfdb(self, part: int, place: int, row: Row) -> Row:
        """Write the record of a row as WFDB files, before the row: what a row names is there."""
        if row.signal_mv is None or row.leads is None or row.sampling_frequency_hz is None:
            return row
        folder, name = self._run.output.folder_of("wfdb", part), f"{part:07d}-{place:03d}"
        for file, data in to_wfdb(name, np.stack(row.signal_mv), row.leads, row.sampling_frequency_hz).items():
            self._run.output.write(f"{folder}/{file}", data)
        return replace(row, wfdb=f"{folder}/{name}")
