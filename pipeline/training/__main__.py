"""python -m pipeline.training train|export|render: make the weights from recordings, and pages to measure them on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from pipeline.training.records import load_records
from pipeline.training.render import render_pages
from pipeline.training.train import export as export_weights
from pipeline.training.train import train as train_network

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)


@app.command()
def train(
    network: Annotated[str, typer.Argument(help="page | layout | label | trace")],
    signals: Annotated[Path, typer.Option(help="folder of recordings (*.npz)")],
    out: Annotated[Path, typer.Option(help="folder for checkpoint and history")],
    minutes: Annotated[float, typer.Option(help="training time in all")] = 60.0,
    batch: int = 12,
    lr: float = 2e-3,
    seed: int = 0,
    workers: int = 1,
    device: str = "cpu",
) -> None:
    """Train one network, or continue where its checkpoint stopped."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    train_network(network, signals, out, minutes=minutes, batch=batch, lr=lr, seed=seed, workers=workers, device=device)


@app.command()
def export(network: str, checkpoint: Path, target: Path = Path("pipeline/weights")) -> None:
    """Write shipping weights (fp16) and their record."""
    export_weights(network, checkpoint, target)


@app.command()
def render(
    signals: Annotated[Path, typer.Option(help="folder of recordings (*.npz)")],
    out: Annotated[Path, typer.Option(help="folder for pages and truth.npz")],
    kind: Annotated[str, typer.Option(help="clean | scan | copy | photo")] = "scan",
    count: int = 20,
    seed: int = 0,
) -> None:
    """Draw whole pages of recordings the networks never saw, with their truth, for `python -m pipeline evaluate`."""
    render_pages(load_records(signals, "validation"), out, count=count, kind=kind, seed=seed)


if __name__ == "__main__":
    app()
