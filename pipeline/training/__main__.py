"""python -m pipeline.training train|export|render: make the weights from recordings, and pages to measure them on."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated

import typer

from pipeline.networks.inference import WEIGHTS
from pipeline.training.drawing.families import CHOICE
from pipeline.training.drawing.families import family as named
from pipeline.training.drawing.render import render_pages
from pipeline.training.drawing.style import training_layouts
from pipeline.training.recordings.records import load_records
from pipeline.training.tasks import TASKS
from pipeline.training.train import export as export_weights
from pipeline.training.train import train as train_network

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)


@app.command()
def train(
    network: Annotated[str, typer.Argument(help=f"{' | '.join(TASKS)}, or all, one after the other")],
    signals: Annotated[Path, typer.Option(help="folder of recordings: npz, WFDB, PTB-XL, CODE-15")],
    out: Annotated[Path, typer.Option(help="folder for checkpoint and history; with all, one below it a network")],
    minutes: Annotated[float, typer.Option(help="training time in all")] = 60.0,
    start: Annotated[
        Path | None, typer.Option(help="folder of weights to start from, as pipeline/networks/weights")
    ] = None,
    batch: int = 12,
    lr: float = 2e-3,
    seed: int = 0,
    workers: int = 1,
    device: str = "cpu",
) -> None:
    """Train one network or all, or continue where the checkpoint stopped."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    everything = network == "all"
    if not everything and network not in TASKS:
        raise typer.BadParameter(f"{network!r} is no network; networks are {', '.join(TASKS)}")
    for name, task in TASKS.items() if everything else [(network, TASKS[network])]:
        folder = out / name if everything else out
        share = task.share if everything else 1.0
        train_network(
            task, signals, folder, minutes=minutes * share, batch=batch, lr=lr, seed=seed, workers=workers,
            device=device, start=start,
        )  # fmt: skip


@app.command()
def plot(
    runs: Annotated[list[Path], typer.Argument(help="folders of runs: each holds a history.json")],
    out: Annotated[Path, typer.Option(help="the picture")] = Path("progress.png"),
) -> None:
    """Draw how the validation figures of runs went over time."""
    from pipeline.training.progress import plot_progress  # needs matplotlib, which training does without

    plot_progress({run.name: json.loads((run / "history.json").read_text()) for run in runs}, out)


@app.command()
def export(network: str, checkpoint: Path, target: Path = WEIGHTS) -> None:
    """Write shipping weights (fp16) and their record."""
    export_weights(network, checkpoint, target)


@app.command()
def render(
    signals: Annotated[Path, typer.Option(help="folder of recordings (*.npz)")],
    out: Annotated[Path, typer.Option(help="folder for pages and truth.npz")],
    kind: Annotated[str, typer.Option(help="clean | scan | copy | photo")] = "scan",
    family: Annotated[str, typer.Option(help=CHOICE)] = "",
    layout: Annotated[str, typer.Option(help="name of a layout; not set: any")] = "",
    count: int = 20,
    seed: int = 0,
) -> None:
    """Draw whole pages of recordings the networks never saw, with their truth, for `python -m pipeline evaluate`."""
    try:
        named(family)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    names = [known.name for known, _ in training_layouts()]
    if layout and layout not in names:
        raise typer.BadParameter(f"{layout!r} is no layout; there are {', '.join(names)}")
    render_pages(
        load_records(signals, "validation"), out, count=count, kind=kind, seed=seed, family=family, layout=layout
    )


if __name__ == "__main__":
    app()
