"""How the pages of common carts look: weights and colours of lines, kind of grid, places of names, separators.

Each look is a rough one, and every page varies it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.training.drawing.style import Colour, PageStyle

_RED = (225.0, 110.0, 110.0)
_PINK = (250.0, 175.0, 180.0)
_ORANGE = (240.0, 165.0, 110.0)
_GREEN = (130.0, 195.0, 140.0)
_GREY = (150.0, 150.0, 150.0)


def _shade(colour: Colour, rng: np.random.Generator) -> Colour:
    red, green, blue = (float(v) for v in np.clip(np.array(colour) + rng.normal(0, 12, 3), 0, 245))
    return red, green, blue


def _look(
    style: PageStyle, rng: np.random.Generator, *, grid: Colour, pen: tuple[float, float], **changes: Any
) -> PageStyle:
    return replace(style, grid_colour=_shade(grid, rng), stroke_mm=float(rng.uniform(*pen)), **changes)


def _edan(style: PageStyle, rng: np.random.Generator) -> PageStyle:
    """Draw dots every millimetre, dotted lines every five; separators that touch the trace."""
    return _look(
        style,
        rng,
        grid=_PINK,
        pen=(0.18, 0.3),
        paper=(255.0, 255.0, 255.0),
        grid_minor=float(rng.uniform(0.65, 1.0)),
        grid_major=1.0,
        grid_dotted=True,
        grid_box=style.grid_box,
        separator=str(rng.choice(["double", "tick"])),
        label_place="above",
        label_mm=2.4,
        pulse="left",
    )


def _mortara(style: PageStyle, rng: np.random.Generator) -> PageStyle:
    """Draw a thin trace on a full red grid, names above, small."""
    return _look(
        style,
        rng,
        grid=_RED,
        pen=(0.12, 0.22),
        grid_minor=float(rng.uniform(0.35, 0.6)),
        grid_major=0.9,
        grid_dotted=False,
        separator="none",
        label_place="above",
        label_mm=2.2,
        pulse=str(rng.choice(["left", "right"])),
    )


def _philips(style: PageStyle, rng: np.random.Generator) -> PageStyle:
    """Draw an orange or pink grid of fine lines, short ticks between the leads, the pulse often at the end."""
    return _look(
        style,
        rng,
        grid=_ORANGE if rng.random() < 0.5 else _PINK,
        pen=(0.2, 0.32),
        grid_minor_mm=0.08,
        grid_minor=float(rng.uniform(0.5, 0.9)),
        grid_major_mm=0.2,
        grid_major=0.9,
        grid_dotted=bool(rng.random() < 0.3),
        separator="tick",
        label_place="above",
        label_mm=float(rng.uniform(2.2, 3.0)),
        pulse=str(rng.choice(["right", "left"])),
    )


def _nihon_kohden(style: PageStyle, rng: np.random.Generator) -> PageStyle:
    """Draw thermal paper with an orange or green grid, large names at the start of the lead, a tall pulse."""
    return _look(
        style,
        rng,
        grid=_ORANGE if rng.random() < 0.6 else _GREEN,
        pen=(0.2, 0.35),
        grid_minor=0.6,
        grid_major=0.95,
        grid_dotted=bool(rng.random() < 0.3),
        dots_per_mm=8.0,
        separator=str(rng.choice(["none", "line"])),
        label_place=str(rng.choice(["start", "above"])),
        label_mm=float(rng.uniform(3.0, 4.5)),
        pulse="left",
        font="",
    )


def _ge(style: PageStyle, rng: np.random.Generator) -> PageStyle:
    """Draw a pink or red grid, names above the start, small bars between the leads."""
    return _look(
        style,
        rng,
        grid=_PINK if rng.random() < 0.7 else _RED,
        pen=(0.22, 0.35),
        grid_minor=float(rng.uniform(0.5, 0.9)),
        grid_major=1.0,
        grid_dotted=False,
        separator=str(rng.choice(["tick", "double"])),
        label_place="above",
        label_mm=float(rng.uniform(2.2, 2.8)),
        pulse=str(rng.choice(["left", "none"])),
    )


def _schiller(style: PageStyle, rng: np.random.Generator) -> PageStyle:
    """Draw a thin trace, names left of the rows, a red grid on white."""
    return _look(
        style,
        rng,
        grid=_RED,
        pen=(0.12, 0.25),
        paper=(255.0, 255.0, 255.0),
        grid_minor=0.45,
        grid_major=0.8,
        grid_dotted=False,
        separator=str(rng.choice(["none", "tick"])),
        label_place="start",
        label_mm=2.8,
        pulse=str(rng.choice(["left", "right"])),
    )


def _chinese(style: PageStyle, rng: np.random.Generator) -> PageStyle:
    """Draw narrow thermal strips: dots or dashes, a thick stepped trace, long separators, names close to it."""
    return _look(
        style,
        rng,
        grid=_GREY if rng.random() < 0.5 else _PINK,
        pen=(0.25, 0.45),
        grid_minor=float(rng.uniform(0.6, 1.0)),
        grid_major=1.0,
        grid_dotted=bool(rng.random() < 0.7),
        grid_dashed=float(rng.uniform(0, 0.5)),
        dots_per_mm=8.0,
        separator=str(rng.choice(["line", "tick", "double"])),
        label_place=str(rng.choice(["on", "above", "below"])),
        label_mm=float(rng.uniform(2.0, 3.2)),
        pulse="left",
        font="",
    )


CARTS: dict[str, Callable[[PageStyle, np.random.Generator], PageStyle]] = {
    "edan": _edan,
    "mortara": _mortara,
    "philips": _philips,
    "nihon kohden": _nihon_kohden,
    "ge": _ge,
    "schiller": _schiller,
    "chinese": _chinese,
}
