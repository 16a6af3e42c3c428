"""Families of pages: what a share of the pages shows beyond the usual, alone or together, and by name to measure on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pipeline.datatypes import Layout
from pipeline.training.drawing.carts import CARTS
from pipeline.training.drawing.style import Colour, PageStyle

Dress = Callable[[PageStyle, Layout, np.random.Generator], PageStyle]


def _paced(style: PageStyle, layout: Layout, rng: np.random.Generator) -> PageStyle:
    """Draw spikes as wide as the pen or thinner, as dark or fainter; some carts mark them below the rows."""
    return replace(
        style,
        spike_mm=style.stroke_mm * float(rng.choice([1.0, rng.uniform(0.4, 1.0)])),
        spike_opacity=float(rng.choice([1.0, rng.uniform(0.45, 1.0)])),
        marks="strokes" if rng.random() < 0.25 else style.marks,
        gain_mm_per_mv=min(style.gain_mm_per_mv, 10.0),  # no higher than 30 mm
    )


def _tall(style: PageStyle, layout: Layout, rng: np.random.Generator) -> PageStyle:
    return replace(style, gain_mm_per_mv=10.0)


def _crossing(style: PageStyle, layout: Layout, rng: np.random.Generator) -> PageStyle:
    """Set rows 11 to 17 mm apart."""
    height = style.top_mm + style.bottom_mm + layout.n_rows * rng.uniform(11, 17)
    return _of_height(replace(style, gain_mm_per_mv=max(style.gain_mm_per_mv, 10.0)), height)


def _of_height(style: PageStyle, height_mm: float) -> PageStyle:
    if style.grid_box is None:
        return replace(style, height_mm=height_mm)
    x0, y0, x1, y1 = style.grid_box
    return replace(style, height_mm=height_mm, grid_box=(x0, y0, x1, y1 + height_mm - style.height_mm))


def _wander(style: PageStyle, layout: Layout, rng: np.random.Generator) -> PageStyle:
    return replace(style, gain_mm_per_mv=10.0)


def _grid(style: PageStyle, layout: Layout, rng: np.random.Generator) -> PageStyle:
    """Draw lines as thick and as dark as a trace."""
    shade = rng.uniform(0, 90)
    colour: Colour = (shade, shade, shade) if rng.random() < 0.6 else (rng.uniform(120, 220), shade, shade)
    return replace(
        style,
        grid_colour=colour,
        grid_major=float(rng.uniform(0.7, 1.0)),
        grid_major_mm=float(rng.uniform(0.25, 0.6)),
        grid_minor=float(rng.choice([0.0, rng.uniform(0.3, 0.9)], p=[0.3, 0.7])),
        grid_minor_mm=float(rng.uniform(0.08, 0.2)),
        grid_dotted=False,
        ink=(10.0, 10.0, 15.0),
    )


def _names(style: PageStyle, layout: Layout, rng: np.random.Generator) -> PageStyle:
    """Let names, separators, pulses and marks touch the trace."""
    return replace(
        style,
        label_place=str(rng.choice(["on", "above", "below"], p=[0.7, 0.15, 0.15])),
        label_mm=float(rng.uniform(2.5, 6.0)),
        font=style.font if rng.random() < 0.6 else "",
        separator=str(rng.choice(["tick", "double", "line", "none"], p=[0.5, 0.2, 0.2, 0.1])),
        pulse=str(rng.choice(["left", "each", "none"], p=[0.6, 0.2, 0.2])),
        marks=str(rng.choice(["strokes", "letters", "seconds", "none"], p=[0.3, 0.25, 0.15, 0.3])),
        scribbles=style.scribbles + int(rng.random() < 0.3),
    )


def _carts(style: PageStyle, layout: Layout, rng: np.random.Generator) -> PageStyle:
    return CARTS[str(rng.choice(list(CARTS)))](style, rng)


def _fade(style: PageStyle, layout: Layout, rng: np.random.Generator) -> PageStyle:
    """Age thermal paper: yellow, its ink brown, blue or grey and going."""
    paper = np.array([255, 250, 235]) - rng.uniform(0, [15, 25, 60])
    ink = np.array(((70, 55, 50), (60, 65, 100), (80, 80, 80))[int(rng.integers(3))]) + rng.uniform(-10, 30, 3)
    grid = np.minimum(np.array(style.grid_colour), paper - 15)
    return replace(
        style,
        paper=_colour(paper),
        ink=_colour(ink),
        grid_colour=_colour(grid),
        ink_opacity=float(rng.uniform(0.4, 0.9)),
        fade=float(rng.uniform(0.2, 0.75)),
        broken=float(rng.choice([0.0, rng.uniform(0.02, 0.12)])),
        dead_dots=int(rng.integers(1, 5)) if rng.random() < 0.5 else 0,
        dots_per_mm=8.0,
    )


def _colour(rgb: npt.NDArray[np.float64]) -> Colour:
    red, green, blue = (float(v) for v in np.clip(rgb, 0, 255))
    return red, green, blue


def _dashed(style: PageStyle, layout: Layout, rng: np.random.Generator) -> PageStyle:
    """Copy in black and white: grid lines in dashes or gone, the trace in pieces."""
    shade = rng.uniform(60, 200)
    return replace(
        style,
        paper=(255.0, 255.0, 255.0),
        grid_colour=(shade, shade, shade),
        grid_dashed=float(rng.uniform(0.0, 0.5)),
        ink=(15.0, 15.0, 15.0),
        ink_opacity=float(rng.uniform(0.75, 1.0)),
        broken=float(rng.uniform(0.05, 0.3)),
        broken_mm=float(rng.uniform(0.4, 1.2)),
        copied=float(rng.uniform(0.2, 0.6)),
    )


def _fine(style: PageStyle, layout: Layout, rng: np.random.Generator) -> PageStyle:
    """Take a pen of 0.1 mm and more, drawn and scanned at up to 600 dpi."""
    return replace(style, ink_px_per_mm=20.0, stroke_mm=float(rng.uniform(0.1, 0.25)))


# In the order they dress a page; the share of pages is that among the pages that show any.
FAMILIES: dict[str, tuple[float, Dress]] = {
    "carts": (0.36, _carts),
    "fine": (0.16, _fine),
    "grid": (0.16, _grid),
    "names": (0.22, _names),
    "fade": (0.14, _fade),
    "dashed": (0.14, _dashed),
    "tall": (0.2, _tall),
    "wander": (0.18, _wander),
    "crossing": (0.18, _crossing),
    "paced": (0.36, _paced),
}


def random_families(rng: np.random.Generator, usual: float = 0.45) -> frozenset[str]:
    """Draw the families of a page; none for a share of `usual`.

    Parameters
    ----------
    rng : Generator
        All chance comes from it.
    usual : float
    """
    if rng.random() < usual:
        return frozenset()
    return frozenset(name for name, (share, _) in FAMILIES.items() if rng.random() < share)


EVERY = "all"  # each family in turn
CHOICE = f"{', '.join(FAMILIES)}; {EVERY}: each in turn; not set: usual pages"


def family(name: str, number: int = 0) -> frozenset[str]:
    """Return the family of a page to draw by its name, "" for none.

    Parameters
    ----------
    name : str
        Of `FAMILIES`, or `EVERY`.
    number : int
        Of the page: with `EVERY` its family.

    Raises
    ------
    ValueError
        There is no such family.
    """
    if name and name != EVERY and name not in FAMILIES:
        raise ValueError(f"{name!r} is no family of pages; there are {', '.join(FAMILIES)}, {EVERY}")
    chosen = list(FAMILIES)[number % len(FAMILIES)] if name == EVERY else name
    return frozenset({chosen} if chosen else ())


def dress(style: PageStyle, layout: Layout, families: frozenset[str], rng: np.random.Generator) -> PageStyle:
    """Change a style into that of a page of some families.

    Parameters
    ----------
    style : PageStyle
    layout : Layout
    families : frozenset of str
    rng : Generator
        All chance comes from it.
    """
    for name, (_, change) in FAMILIES.items():
        if name in families:
            style = change(style, layout, rng)
    return replace(style, families=families)
