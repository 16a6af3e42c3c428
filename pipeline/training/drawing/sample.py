"""python -m pipeline.training.drawing.sample FILE: draw a clean page of a simulated patient for the demonstration.

The heart does not exist and the print names no one.  The same seed gives the same page.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image, ImageDraw, ImageFont

from pipeline.training.drawing.style import PageStyle, training_layouts
from pipeline.training.drawing.synth import INK_PX_PER_MM, DrawnPage, draw_page
from pipeline.training.recordings.simulate import simulate_ecg

_DPI = INK_PX_PER_MM * 25.4


def draw_sample(seed: int, layout_name: str = "3x4+1R") -> DrawnPage:
    """Return a page of ten seconds at 25 mm/s and 10 mm/mV on red millimetre paper, with its truth.

    Parameters
    ----------
    seed : int
        The same seed gives the same page.
    layout_name : str
        One of the shipped layouts.
    """
    rng = np.random.default_rng(seed)
    signal_mv = simulate_ecg(rng, seconds=10.0, sampling_frequency_hz=500.0, disease="none")
    layout = next(layout for layout, _ in training_layouts() if layout.name == layout_name)
    return draw_page(signal_mv, layout, PageStyle(top_mm=35.0, bottom_mm=20.0, header=0, footer="none"), rng)


def write_sample(
    file: Annotated[Path, typer.Argument(help="Where the page goes: .png or .pdf.")],
    seed: int = 1,
    layout: Annotated[str, typer.Option(help="3x4+1R, 6x2, 12x1, ...")] = "3x4+1R",
) -> None:
    """Draw a page into a file that knows its resolution."""
    page = Image.fromarray(draw_sample(seed, layout).pixels)
    _print(page, 12, 8, "SIMULATED PATIENT", 4.0)
    _print(page, 12, 14, f"Drawn by a program from seed {seed}: no one's data", 3.0)
    _print(page, 12, page.height / INK_PX_PER_MM - 10, "25 mm/s   10 mm/mV", 3.0)
    if file.suffix == ".pdf":
        page.save(file, resolution=_DPI)
    else:
        page.save(file, dpi=(_DPI, _DPI))


def _print(page: Image.Image, x_mm: float, y_mm: float, text: str, height_mm: float) -> None:
    font = ImageFont.load_default(size=height_mm * INK_PX_PER_MM)
    place = (x_mm * INK_PX_PER_MM, y_mm * INK_PX_PER_MM)
    ImageDraw.Draw(page).text(place, text, fill=(15, 15, 20), font=font)


if __name__ == "__main__":
    typer.run(write_sample)
