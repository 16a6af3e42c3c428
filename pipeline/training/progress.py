"""Training histories -> one picture: every validation figure over the minutes trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure


def plot_progress(histories: Mapping[str, Sequence[Mapping[str, float]]], out: Path) -> None:
    """Draw runs, one a row: the loss on the left, the other figures on the right.

    Parameters
    ----------
    histories : mapping of str to sequence of mappings
        By the run's name, the entries of its ``history.json``: minutes, loss, and any validation figures.
    out : Path
        PNG, SVG or PDF.

    Raises
    ------
    ValueError
        If a run has no entry.
    """
    figure = Figure(figsize=(10, 3 * len(histories)), layout="constrained")
    axes = figure.subplots(len(histories), 2, squeeze=False)
    for (left, right), (name, history) in zip(axes, histories.items(), strict=True):
        if not history:
            raise ValueError(f"run {name} has no entry yet")
        minutes = [entry["minutes"] for entry in history]
        left.plot(minutes, [entry["loss"] for entry in history])
        left.set(title=f"{name}: loss", xlabel="minutes")
        for key in history[-1]:
            if key not in ("step", "minutes", "loss"):
                right.plot(minutes, [entry.get(key, float("nan")) for entry in history], label=key)
        right.set(title=f"{name}: validation", xlabel="minutes")
        right.legend()
    figure.savefig(out)
