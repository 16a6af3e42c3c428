"""How printed ECGs look: the layouts to train on, and the paper, grid, ink, print and calibration of a page."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipeline.datatypes import LEADS, Layout, PrintedValues
from pipeline.layout.file import load_layouts

LIMB = LEADS[:6]

Colour = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrintedWords:
    """A line of print and the place of its upper left corner."""

    text: str
    x_mm: float
    y_mm: float
    height_mm: float  # of its letters


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class PageStyle:
    """How a page looks; lengths in millimetres, colours RGB in [0, 255], shares and strengths in [0, 1]."""

    width_mm: float = 280.0
    height_mm: float = 200.0
    ink_px_per_mm: float = 10.0  # resolution the page is drawn at
    families: frozenset[str] = frozenset()  # of `families.FAMILIES`
    paper: Colour = (255.0, 252.0, 250.0)
    grid_colour: Colour = (240.0, 150.0, 150.0)
    grid_minor: float = 0.5  # opacity of the 1 mm lines; 0 = none
    grid_major: float = 0.9
    grid_minor_mm: float = 0.12  # line widths
    grid_major_mm: float = 0.25
    grid_dotted: bool = False
    grid_dashed: float = 0.0  # share of its lines that is not there
    grid_box: tuple[float, float, float, float] | None = None  # x0, y0, x1, y1; None = the whole sheet
    grid_phase: tuple[float, float] = (0.0, 0.0)
    ink: Colour = (15.0, 15.0, 20.0)
    stroke_mm: float = 0.3
    ink_opacity: float = 1.0
    broken: float = 0.0  # share of the trace that faded away
    broken_mm: float = 2.0  # length of its gaps
    fade: float = 0.0  # how much of the ink went, at most, in wide blotches, as on thermal paper
    dead_dots: int = 0  # of the print head: white lines along time
    dots_per_mm: float = 0.0  # of the print head; 0 = a smooth pen
    copied: float = 0.0  # > 0: a 1-bit copy; how dark, from the paper (0) to the ink (1), is black
    spike_mm: float = 0.3  # width of pacing spikes
    spike_opacity: float = 1.0  # relative to the trace
    left_mm: float = 14.0  # where the signal starts
    top_mm: float = 50.0  # upper end of the signal area
    bottom_mm: float = 15.0  # margin under the signal area
    speed_mm_per_s: float = 25.0
    gain_mm_per_mv: float = 10.0
    chest_gain: float = 1.0  # relative to the limb leads
    pulse: str = "left"  # left | right | each | none
    separator: str = "none"  # none | tick | line | double
    column_gap_mm: float = 0.0
    column_seconds: float | None = None  # printed in a column; None = what the layout says
    label_place: str = "above"  # above | below | start | shifted | on
    label_mm: float = 3.0  # height of the letters
    label_shift_mm: float = 0.0  # extra x of every label after the first column, growing with the column
    font: str = ""  # path of a TrueType font; "" = a plotter font
    header: int = 6  # lines of print above
    printed: tuple[PrintedWords, ...] = ()  # and words that were chosen
    stated: PrintedValues = field(default_factory=PrintedValues)  # what these state
    footer: str = "bottom"  # where speed and gain are printed: bottom | top | none
    marks: str = "none"  # by the beats: none | strokes (below the rows) | letters | seconds
    rules: int = 0  # lines of a form
    scribbles: int = 0
    stamp: bool = False
    barcode: bool = False


_WEIGHTS = {"3x4+1R": 5.0, "3x4": 2.0, "3x4+3R": 2.0, "6x2": 2.0, "12x1": 2.0, "6x2+1R": 1.0, "3x4+2R": 1.0}


def training_layouts() -> list[tuple[Layout, float]]:
    """Return the layouts to train on, those that come with the package, each with its weight."""
    layouts = load_layouts()
    return [(layout, _WEIGHTS.get(layout.name, 0.4 if set(layout.leads) <= set(LEADS) else 0.1)) for layout in layouts]


_GRID_COLOURS = ((235, 90, 90), (240, 150, 80), (90, 190, 110), (110, 150, 230), (130, 130, 130), (40, 40, 40))
_INKS = ((10, 10, 15), (25, 25, 90), (60, 60, 70), (90, 40, 40))


def _colour(rgb: npt.NDArray[np.float64], low: float, high: float) -> Colour:
    red, green, blue = (float(v) for v in np.clip(rgb, low, high))
    return red, green, blue


def random_style(rng: np.random.Generator, layout: Layout, fonts: tuple[str, ...]) -> PageStyle:
    """Draw a style from what hospitals have.

    Parameters
    ----------
    rng : Generator
        All chance comes from it.
    layout : Layout
    fonts : tuple of str
        Files of `system_fonts`.
    """
    speed = float(rng.choice([25.0, 50.0, 12.5], p=[0.78, 0.18, 0.04]))
    gain = float(rng.choice([10.0, 5.0, 20.0], p=[0.8, 0.12, 0.08]))
    n_columns = len(layout.rows[0])
    if speed * layout.column_seconds * n_columns > 300 and rng.random() < 0.7:  # at 50 mm/s a page shows half the time
        column_seconds = layout.column_seconds / 2
    else:
        column_seconds = layout.column_seconds
    printed = speed * column_seconds * n_columns
    left = rng.uniform(8, 24)
    height = rng.uniform(150, 216) if rng.random() < 0.7 else rng.uniform(95, 150)
    top = min(rng.choice([rng.uniform(4, 15), rng.uniform(25, 75)]), height * 0.4)
    height = max(height, top + 22 + 11.0 * layout.n_rows)  # rows closer than a centimetre are on no paper
    base = np.array(_GRID_COLOURS[rng.choice(len(_GRID_COLOURS), p=[0.5, 0.13, 0.09, 0.08, 0.1, 0.1])])
    strength = rng.uniform(0.25, 1.0)
    grid_colour = 255 - (255 - np.clip(base + rng.normal(0, 20, 3), 0, 255)) * strength
    tint = rng.random() < 0.45
    paper = 255 - (255 - grid_colour) * (rng.uniform(0.05, 0.3) if tint else 0.0) - rng.uniform(0, 25 if tint else 6)
    kind = rng.choice(4, p=[0.6, 0.18, 0.14, 0.08])  # both lines, major only, dotted, minor only
    ink = _INKS[rng.choice(len(_INKS), p=[0.75, 0.12, 0.1, 0.03])]
    width = left + printed + rng.uniform(3, 22)
    margin = rng.uniform(2, 14)
    boxed = rng.random() < 0.35
    chest_gain = float(rng.choice([1.0, 0.5], p=[0.93, 0.07]))
    stated = [0.75, 0.15, 0.1] if chest_gain == 1 else [0.83, 0.17, 0.0]  # carts that change it say so
    return PageStyle(
        width_mm=float(width),
        height_mm=float(height),
        paper=_colour(paper, 120, 255),
        grid_colour=_colour(grid_colour, 0, 250),
        grid_minor=0.0 if kind == 1 else float(rng.uniform(0.3, 1.0)),
        grid_major=0.0 if kind == 3 else float(rng.uniform(0.55, 1.0)),
        grid_minor_mm=float(rng.uniform(0.06, 0.2)),
        grid_major_mm=float(rng.uniform(0.12, 0.45)),
        grid_dotted=bool(kind == 2),
        grid_box=(
            (margin, max(top - 12, 1), width - margin * rng.uniform(0.2, 1), height - rng.uniform(2, 10))
            if boxed
            else None
        ),
        grid_phase=(float(rng.uniform(0, 5)), float(rng.uniform(0, 5))),
        ink=ink,
        stroke_mm=float(rng.choice([rng.uniform(0.15, 0.35), rng.uniform(0.3, 0.6)])),
        ink_opacity=float(rng.choice([1.0, rng.uniform(0.45, 1.0)])),
        broken=float(rng.choice([0.0, rng.uniform(0.02, 0.15)], p=[0.85, 0.15])),
        left_mm=float(left),
        top_mm=float(top),
        bottom_mm=float(rng.uniform(4, 22)),
        speed_mm_per_s=speed,
        column_seconds=column_seconds,
        gain_mm_per_mv=gain,
        chest_gain=chest_gain,
        pulse=str(rng.choice(["left", "right", "each", "none"], p=[0.6, 0.08, 0.04, 0.28])),
        separator=str(rng.choice(["none", "tick", "line", "double"], p=[0.45, 0.35, 0.12, 0.08])),
        column_gap_mm=float(rng.choice([0.0, rng.uniform(0.3, 3.0)], p=[0.8, 0.2])),
        label_place=str(rng.choice(["above", "below", "start", "shifted"], p=[0.5, 0.2, 0.2, 0.1])),
        label_mm=float(rng.uniform(1.9, 4.2)),
        label_shift_mm=float(rng.choice([0.0, rng.uniform(-3, 8)], p=[0.85, 0.15])),
        font=str(rng.choice(fonts)) if fonts and rng.random() < 0.8 else "",
        header=int(rng.integers(0, 9)) if top > 20 else 0,
        footer=str(rng.choice(["bottom", "top", "none"], p=stated)),
        rules=int(rng.integers(1, 4)) if rng.random() < 0.3 else 0,
        scribbles=int(rng.choice([0, int(rng.integers(1, 4))], p=[0.75, 0.25])),
        stamp=bool(rng.random() < 0.08),
        barcode=bool(rng.random() < 0.1),
    )
