"""The command `ecg-digitize archive`.  Ray and pyarrow are an extra: they are imported when it is called."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

import pipeline
from pipeline.datatypes import Calibration, PageImage
from pipeline.digitizer import Digitizer
from pipeline.source.page import load_pages

_REFUSED = 2


class Also(StrEnum):
    """What is written beside the rows."""

    WFDB = "wfdb"


@dataclass(frozen=True, slots=True)
class Decoder:
    """What reads the files, where another program calls the command: its context's `obj`."""

    decode: Callable[[bytes], Sequence[PageImage]]  # found by its name in other processes
    endings: tuple[str, ...]  # of the files of a folder, besides pictures and PDFs


def archive(
    context: typer.Context,
    source: Annotated[
        Path,
        typer.Argument(help="A folder, or a manifest (.csv, .parquet) with path and, if wanted, patient and date."),
    ],
    out: Annotated[str, typer.Option(metavar="DIR|s3://BUCKET/PREFIX", help="Folder of this run, and of no other.")],
    ray_address: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="A Ray cluster. Not set: Ray is started on this machine."),
    ] = None,
    actors: Annotated[
        int | None, typer.Option(min=1, help="Not set: as many as the cores, or the GPUs, allow.")
    ] = None,
    cores: Annotated[int, typer.Option(min=1, help="Cores of an actor.")] = 1,
    gpus: Annotated[
        float, typer.Option(min=0.0, help="GPUs of an actor; 0.25: four share one. 0: it digitizes on its cores.")
    ] = 0.0,
    page_seconds: Annotated[
        float, typer.Option(min=1.0, help="A page that takes longer has no record; its process is replaced.")
    ] = 300.0,
    also: Annotated[
        Also | None, typer.Option(help="Beside the Parquet files: a WFDB record for each page that was read.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Your own file of layouts. Not set: the one that comes with the program."),
    ] = None,
    paper_speed: Annotated[float, typer.Option(help="In mm/s, for a page that does not state it.")] = 25.0,
    gain: Annotated[float, typer.Option(help="In mm/mV, for a page that does not state it.")] = 10.0,
) -> None:
    """Digitize an archive on Ray: Parquet with one row a page, and a report.

    A run that was stopped, however it was, continues with the same command.  Exit status: 0 every page has a record;
    1 a page has none, or a row of the source was left out; 2 the command line is wrong, or the folder holds another
    run; 3 the run stopped before its end; 130 interrupted by Ctrl-C.
    """
    try:
        import ray.data  # noqa: F401 - it says at once that it is missing

        from pipeline.archive.flow import Crew
        from pipeline.archive.manifest import PICTURES
        from pipeline.archive.run import run
    except ImportError as error:
        print(f"{error}: pip install 'ecg-gateway[archive]'", file=sys.stderr)
        raise typer.Exit(_REFUSED) from error
    layouts = config and config.absolute()
    try:
        calibration = Calibration(paper_speed_mm_per_s=paper_speed, gain_mm_per_mv=gain)
        settings = {
            "version": pipeline.__version__,
            "paper speed": f"{paper_speed:g} mm/s",
            "gain": f"{gain:g} mm/mV",
            "also": also or "nothing",
            "layouts": hashlib.sha256(layouts.read_bytes()).hexdigest() if layouts else "of the program",
        }
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(_REFUSED) from error
    decoder = context.obj or Decoder(load_pages, ())
    crew = Crew(
        load=partial(Digitizer.load, "cuda" if gpus else "cpu", layouts),
        calibration=calibration,
        page_s=page_seconds,
        decode=decoder.decode,
        actors=actors,
        cores=cores,
        gpus=gpus,
        address=ray_address,
        wfdb=also is Also.WFDB,
    )
    raise typer.Exit(run(source, out, crew, settings, (*PICTURES, *decoder.endings)))
