"""The commands that measure: `python -m pipeline budget`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress

from pipeline.datatypes import FloatArray
from pipeline.digitize import Digitizer
from pipeline.evaluation.budget import budget_table, count_table, measure_page, page_table
from pipeline.training.records import load_records
from pipeline.training.render import draw_pictures
from pipeline.training.simulate import simulate_ecg

Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Signals = Annotated[
    Path | None, typer.Option(help="Folder of recordings to draw (those held back); hearts are simulated without it.")
]
_WIDTH = 230  # of a table of pages; a pipe says 80, which would wrap every row


def recordings(signals: Path | None) -> list[FloatArray]:
    """Return what is drawn: recordings of a folder that no network was trained on, or simulated hearts."""
    if signals is not None:
        return load_records(signals, "validation")
    return [simulate_ecg(np.random.default_rng(seed)) for seed in range(20)]


def budget(
    kind: Annotated[str, typer.Option(help="clean | scan | copy | photo")] = "scan",
    count: int = 8,
    seed: int = 0,
    signals: Signals = None,
    device: Device = "auto",
) -> None:
    """Draw pages and tell what each stage costs in dB: geometry, rows, layout, speed and gain, trace."""
    records = recordings(signals)
    digitizer = Digitizer.load(device=device)
    pages = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        pictures = draw_pictures(records, count=count, kind=kind, seed=seed)
        for picture in progress.track(pictures, total=count, description="measuring"):
            pages.append(measure_page(picture, digitizer))
    console = Console(width=max(Console().width, _WIDTH))
    for table in (page_table(pages), budget_table(pages), count_table(pages)):
        console.print(table)
