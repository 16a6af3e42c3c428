"""Draw ECG pages: signals, a layout and a style in; a picture with exact truth out.

Everything is laid out in paper millimetres and painted once at the style's `ink_px_per_mm`.  The page keeps the centre
line of every row as the polyline that was drawn, so the truth is exact at any resolution; `augment` carries it through
the camera.  The class picture follows the paper's four classes: background, grid, trace, text (with calibration pulses
and separators).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.datatypes import ALL_LEADS, ByteArray, Calibration, FloatArray, Layout, Lead, LeadLabel, record_leads
from pipeline.runs import runs_of
from pipeline.training.drawing.families import dress, random_families
from pipeline.training.drawing.headers import with_header
from pipeline.training.drawing.style import LIMB, PageStyle, random_style, training_layouts
from pipeline.training.recordings.pacing import beat_samples
from pipeline.training.recordings.simulate import every_lead
from pipeline.training.recordings.vary import random_signal

INK_PX_PER_MM = 10.0  # of a page, if its style does not say otherwise
BACKGROUND, GRID, TRACE, TEXT = range(4)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Segment:
    """One lead's stretch of a row."""

    lead: Lead
    x0_mm: float
    x1_mm: float


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class DrawnRow:
    """The centre line of a row as drawn; NaN in `y_mm` where nothing is printed."""

    segments: tuple[Segment, ...]
    x_mm: FloatArray  # (n,) strictly increasing
    y_mm: FloatArray  # (n,)
    line_mm: FloatArray  # (n,) y_mm without pacing spikes
    baseline_mm: float  # median of y_mm


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class DrawnSpike:
    """A pacing spike as printed."""

    row: int
    lead: Lead
    sample: int  # of the lead's signal, its first if there are two
    height_mv: float  # from its foot, with the sign it has in `DrawnPage.signal_mv`
    x_mm: float
    foot_mm: float
    tip_mm: float


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class DrawnPage:
    """A page with its truth."""

    pixels: ByteArray  # (H, W, 3); pixel (i, j) shows paper ((j + .5) / R, (i + .5) / R) mm, R its px_per_mm
    classes: ByteArray  # (H, W) BACKGROUND | GRID | TRACE | TEXT
    rows: tuple[DrawnRow, ...]
    labels: tuple[LeadLabel, ...]
    pulses: tuple[tuple[float, float, float, float], ...]  # x0, y0, x1, y1 in mm
    spikes: tuple[DrawnSpike, ...]
    layout: Layout
    calibration: Calibration
    signal_mv: FloatArray  # (n_leads, n) at 500 Hz as printed, in the order of `leads`; NaN = not printed
    style: PageStyle

    @property
    def leads(self) -> tuple[Lead, ...]:
        """Leads of the truth: the twelve standard ones, then what else is printed."""
        return record_leads((*self.layout.leads, *self.layout.rhythm))

    @property
    def px_per_mm(self) -> float:
        """Resolution of the picture."""
        return self.style.ink_px_per_mm

    def coarse(self) -> DrawnPage:
        """Return the page at INK_PX_PER_MM at most, for what needs no finer one."""
        if self.px_per_mm <= INK_PX_PER_MM:
            return self
        size = tuple(round(side * INK_PX_PER_MM / self.px_per_mm) for side in self.classes.shape[::-1])
        return replace(
            self,
            pixels=np.asarray(cv2.resize(self.pixels, size, interpolation=cv2.INTER_AREA), np.uint8),
            classes=np.asarray(cv2.resize(self.classes, size, interpolation=cv2.INTER_NEAREST), np.uint8),
            style=replace(self.style, ink_px_per_mm=INK_PX_PER_MM),
        )


@lru_cache(maxsize=512)
def _font(path: str, size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size_px)


def text_mask(text: str, height_mm: float, font: str, px_per_mm: float = INK_PX_PER_MM) -> ByteArray:
    """Return the ink of a line of print, (h, w) uint8.

    Parameters
    ----------
    text : str
    height_mm : float
        Of a capital letter.
    font : str
        A TrueType file; empty: the strokes that OpenCV draws.
    px_per_mm : float
    """
    if font:
        face = _font(font, max(6, round(height_mm * px_per_mm * 1.38)))  # an em is about 1.38 cap heights
        x0, y0, x1, y1 = face.getbbox(text)
        image = Image.new("L", (max(1, int(x1 - x0) + 2), max(1, int(y1 - y0) + 2)))
        ImageDraw.Draw(image).text((1 - x0, 1 - y0), text, fill=255, font=face)
        return np.asarray(image, np.uint8)
    scale = height_mm * px_per_mm / 21
    thickness = max(1, round(scale * 1.6))
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    mask = np.zeros((height + base + 2 * thickness, width + 2 * thickness), np.uint8)
    place = (thickness, height + thickness)
    cv2.putText(mask, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thickness, cv2.LINE_AA)
    return mask


def system_fonts() -> tuple[str, ...]:
    """Return the TrueType fonts of this machine that can print Latin text, sorted; empty where there are none."""
    paths = (str(path) for path in sorted(Path("/usr/share/fonts").rglob("*.ttf")))
    return tuple(path for path in paths if _prints_letters(path))


def _prints_letters(font: str, *, letters: str = "IVaRLF1") -> bool:
    """Tell whether lead names can be read in a font: what it lacks, it prints as one and the same box."""
    name = Path(font).name.lower()
    if any(word in name for word in ("symbol", "emoji", "awesome", "math", "dingbat")):
        return False
    return len({text_mask(letter, 3.0, font).tobytes() for letter in letters}) == len(letters)


def _paste(mask: ByteArray, stamp: ByteArray, x_mm: float, y_mm: float, px_per_mm: float) -> tuple[float, float] | None:
    """Combine `stamp` into `mask` with its top left corner at (x, y) mm; return the visible centre in mm."""
    x, y = round(x_mm * px_per_mm), round(y_mm * px_per_mm)
    y0, x0 = max(y, 0), max(x, 0)
    y1, x1 = min(y + stamp.shape[0], mask.shape[0]), min(x + stamp.shape[1], mask.shape[1])
    if y1 - y0 < 0.6 * stamp.shape[0] or x1 - x0 < 0.6 * stamp.shape[1]:
        return None
    part = mask[y0:y1, x0:x1]
    np.maximum(part, stamp[y0 - y : y1 - y, x0 - x : x1 - x], out=part)
    return (x + stamp.shape[1] / 2) / px_per_mm, (y + stamp.shape[0] / 2) / px_per_mm


def _polyline(
    mask: ByteArray, x_mm: FloatArray, y_mm: FloatArray, width_mm: float, px_per_mm: float, shade: int = 255
) -> None:
    """Draw an anti-aliased line, one pixel wide at least."""
    points = np.stack([x_mm, y_mm], -1) * px_per_mm - 0.5
    limit = 4.0 * max(mask.shape)
    fixed = np.round(np.clip(points, -limit, limit) * 16).astype(np.int32)
    thickness = max(1, round(width_mm * px_per_mm))
    cv2.polylines(mask, [fixed], False, shade, thickness, cv2.LINE_AA, shift=4)


def _comb(n: int, phase: float, pitch: float, width: float, px_per_mm: float, strength: float) -> ByteArray:
    """Opacity along one axis (n,) of lines `width` wide every `pitch` mm, in [0, 255]."""
    x = (np.arange(n) + 0.5) / px_per_mm
    distance = np.abs((x - phase + pitch / 2) % pitch - pitch / 2)
    opacity = np.clip((width / 2 - distance) * px_per_mm + 0.5, 0, min(1.0, width * px_per_mm))
    return np.asarray(np.rint(opacity * (255 * strength)), np.uint8)


def _crossed(down: ByteArray, across: ByteArray) -> ByteArray:
    """Return dots (H, W) where two combs meet."""
    return np.asarray(np.multiply.outer(down.astype(np.uint16), across) // 255, np.uint8)


def _grid_alpha(style: PageStyle, shape: tuple[int, int], rng: np.random.Generator) -> ByteArray:
    """Opacity of the grid, (H, W) in [0, 255]."""
    (px, py), scale = style.grid_phase, style.ink_px_per_mm

    def combs(pitch: float, width: float, strength: float) -> tuple[ByteArray, ByteArray]:
        """Lines down the page (W,) and across it (H,)."""
        down, across = (_comb(n, p, pitch, width, scale, strength) for n, p in zip(shape[::-1], (px, py), strict=True))
        return down, across

    alpha = np.zeros(shape, np.uint8)
    if style.grid_minor and style.grid_dotted:
        dots = combs(1.0, 0.25, style.grid_minor**0.5)
        alpha = _crossed(dots[1], dots[0])
    elif style.grid_minor:
        lines = combs(1.0, style.grid_minor_mm, style.grid_minor)
        alpha = np.maximum(lines[1][:, None], lines[0][None])
    if style.grid_major:
        lines = combs(5.0, style.grid_major_mm, style.grid_major)
        if style.grid_dotted and style.grid_minor > 0.6:  # dotted majors: a dot every mm along the line
            dots = combs(1.0, 0.45, 1.0)
            major = np.maximum(_crossed(lines[1], dots[0]), _crossed(dots[1], lines[0]))
            alpha = np.maximum(alpha, major)
        else:
            alpha = np.maximum(alpha, np.maximum(lines[1][:, None], lines[0][None]))
    if style.grid_dashed:
        alpha[_gaps(shape, style.grid_dashed, 0.8, scale, rng) > 0] = 0
    return alpha if style.grid_box is None else _boxed(alpha, style)


def _boxed(alpha: ByteArray, style: PageStyle) -> ByteArray:
    """Leave the grid inside the style's box and draw the box."""
    assert style.grid_box is not None
    x0, y0, x1, y1 = (round(v * style.ink_px_per_mm) for v in style.grid_box)
    inside = np.zeros_like(alpha)
    inside[max(y0, 0) : y1, max(x0, 0) : x1] = alpha[max(y0, 0) : y1, max(x0, 0) : x1]
    thickness = max(1, round(style.grid_major_mm * style.ink_px_per_mm))
    cv2.rectangle(inside, (x0, y0), (x1, y1), 255 * (style.grid_major or style.grid_minor), thickness)
    return inside


def _gaps(
    shape: tuple[int, int], share: float, size_mm: float, px_per_mm: float, rng: np.random.Generator
) -> FloatArray:
    """Return how far every pixel (H, W) lies inside a gap, below 0 outside; gaps cover a share of the page."""
    step = size_mm * px_per_mm
    coarse = rng.random((int(shape[0] / step) + 2, int(shape[1] / step) + 2), np.float32)
    smooth = cv2.resize(coarse, None, fx=step, fy=step, interpolation=cv2.INTER_LINEAR)
    return np.asarray(np.quantile(smooth[::7, ::7], share) - smooth[: shape[0], : shape[1]], np.float32)


def _pulse_shape(
    x_mm: float, y_mm: float, width_mm: float, height_mm: float, foot_mm: float
) -> tuple[FloatArray, FloatArray]:
    x = np.array([-foot_mm, 0, 0, width_mm, width_mm, width_mm + foot_mm]) + x_mm
    y = np.array([0, 0, -height_mm, -height_mm, 0, 0]) + y_mm
    return x.astype(np.float32), y.astype(np.float32)


_WORDS = (
    "Vent. rate PR interval QRS duration QT/QTc P-R-T axes Normal sinus rhythm ABNORMAL ECG Name ID Age Sex Male "
    "Female bpm ms 25 mm/s 10 mm/mV 0.05-150 Hz Filter 50 Hz Confirmed by Dr Left axis deviation Nonspecific ST T wave "
    "Hospital Ward Room Date Time Height cm kg Unconfirmed Diagnosis Technician Ref V 1.0 II III V5 aVL"
).split()


class _Painter:
    """Collects the ink of one page."""

    def __init__(self, style: PageStyle, rng: np.random.Generator) -> None:
        self.style, self.rng, self.px_per_mm = style, rng, style.ink_px_per_mm
        self.shape = (round(style.height_mm * self.px_per_mm), round(style.width_mm * self.px_per_mm))
        self.trace = np.zeros(self.shape, np.uint8)
        self.text = np.zeros(self.shape, np.uint8)
        self.pulses: list[tuple[float, float, float, float]] = []
        self.labels: list[LeadLabel] = []
        self.pulse_width_mm = float(rng.choice([0.2 * style.speed_mm_per_s, 5.0, rng.uniform(2, 6)]))
        self.pulse_foot_mm = float(rng.choice([0.0, rng.uniform(0.5, 2.5)]))
        touching = "names" in style.families and rng.random() < 0.5  # the pulse runs into the trace
        self.pulse_shift_mm = self.pulse_width_mm + self.pulse_foot_mm if touching else float(rng.uniform(6, 9))

    def line(self, x_mm: FloatArray, y_mm: FloatArray, width_mm: float) -> None:
        """Print a line that is no trace."""
        _polyline(self.text, x_mm, y_mm, width_mm, self.px_per_mm)

    def stamp(self, words: str, height_mm: float) -> ByteArray:
        """Return the ink of a line of print."""
        return text_mask(words, height_mm, self.style.font, self.px_per_mm)

    def paste(self, stamp: ByteArray, x_mm: float, y_mm: float) -> tuple[float, float] | None:
        """Print a stamp; return its centre in mm if it is on the page."""
        return _paste(self.text, stamp, x_mm, y_mm, self.px_per_mm)

    def words(self, n: int) -> str:
        picked = [str(w) for w in self.rng.choice(_WORDS, n)]
        return " ".join(w if self.rng.random() < 0.7 else str(self.rng.integers(1, 2000)) for w in picked)

    def pulse(self, x_mm: float, y_mm: float) -> None:
        width, foot, height = self.pulse_width_mm, self.pulse_foot_mm, self.style.gain_mm_per_mv
        x, y = _pulse_shape(x_mm, y_mm, width, height, foot)
        self.line(x, y, self.style.stroke_mm)
        self.pulses.append((x_mm - foot, y_mm - height, x_mm + width + foot, y_mm))

    def label(self, lead: Lead, inverted: bool, x0_mm: float, y_mm: float, column: int) -> None:
        style, rng = self.style, self.rng
        mask = self.stamp(("-" if inverted else "") + lead.value, style.label_mm)
        h, w = mask.shape[0] / self.px_per_mm, mask.shape[1] / self.px_per_mm
        x = x0_mm + rng.normal(1.0, 0.4) + style.label_shift_mm * column * 0.4
        place = {
            "above": (x, y_mm - h - self.label_rise),
            "below": (x, y_mm + self.label_rise * 0.7),
            "start": ((x0_mm - w - 1.0) if column == 0 else x, y_mm - h - 0.5),
            "on": (x + rng.uniform(0, 8), y_mm - h * rng.uniform(0.0, 1.0)),
            "shifted": (x + rng.normal(3, 2), y_mm - h - self.label_rise + rng.normal(0, 2)),
        }[style.label_place]
        centre = self.paste(mask, *place)
        if centre is not None:
            self.labels.append(LeadLabel(lead=lead, x_mm=centre[0], y_mm=centre[1], score=1.0))

    label_rise = 4.0

    def separator(self, x_mm: float, y_mm: float, row_gap_mm: float, whole: tuple[float, float]) -> None:
        kind = self.style.separator
        width = float(self.rng.uniform(0.25, 0.8))
        if kind == "tick":
            half = float(self.rng.uniform(1.5, 4.0))
            self._upright(x_mm, y_mm - half, y_mm + half, width)
        elif kind == "double":
            for sign in (-1, 1):
                a, b = 3.0 * sign, min(row_gap_mm * 0.3, 8.0) * sign
                self._upright(x_mm, y_mm + a, y_mm + b, width)
        elif kind == "line":
            self._upright(x_mm, *whole, width * 0.6)

    def _upright(self, x_mm: float, y0_mm: float, y1_mm: float, width_mm: float) -> None:
        self.line(np.array([x_mm, x_mm], np.float32), np.array([y0_mm, y1_mm], np.float32), width_mm)

    def print_lines(self) -> None:
        style, rng = self.style, self.rng
        size = float(rng.uniform(1.8, 3.4))
        top_mm = 3.0 + (1.7 * size if style.footer == "top" else 0.0)
        free_mm = 0.0  # print does not run over print
        for column_x in sorted(rng.uniform(3, style.width_mm * 0.8, size=int(rng.integers(1, 4)))):
            lines = [self.words(int(rng.integers(1, 5))) for _ in range(style.header)]
            stamps = [self.stamp(words, size) for words in lines]
            x_mm = max(float(column_x), free_mm)
            for number, stamp in enumerate(stamps):
                self.paste(stamp, x_mm, top_mm + number * size * 1.7)
            free_mm = x_mm + 3.0 + max((stamp.shape[1] for stamp in stamps), default=0) / self.px_per_mm
        for words in style.printed:
            self.paste(self.stamp(words.text, words.height_mm), words.x_mm, words.y_mm)
        if style.footer != "none":
            self._print_scale(size)
        if style.rules:
            self._rule(size)

    def _rule(self, size_mm: float) -> None:
        """Draw the lines of a form: under the header, around it, or above the footer."""
        style, rng = self.style, self.rng
        thickness = float(rng.uniform(0.15, 0.6))
        left, right = float(rng.uniform(2, 20)), style.width_mm - float(rng.uniform(2, 20))
        for _ in range(style.rules):
            y = float(rng.choice([rng.uniform(2, max(style.top_mm - 3, 4)), style.height_mm - size_mm * 2.5]))
            self.line(np.array([left, right], np.float32), np.array([y, y], np.float32), thickness)
            if rng.random() < 0.3:
                below = np.array([y, min(y + rng.uniform(4, 15), style.top_mm)], np.float32)
                for x in (left, right, float(rng.uniform(left, right))):
                    self.line(np.array([x, x], np.float32), below, thickness)

    def _print_scale(self, size_mm: float) -> None:
        """Print speed and gain as carts word them, with a filter or two."""
        style, rng = self.style, self.rng
        gap = str(rng.choice([" ", ""]))
        speed = f"{style.speed_mm_per_s:g}{gap}{rng.choice(['mm/s', 'mm/s', 'mm/sec'])}"
        gain = f"{style.gain_mm_per_mv:g}{gap}mm/mV"
        if style.chest_gain != 1:
            gain = f"Limb: {gain}  Chest: {style.gain_mm_per_mv * style.chest_gain:g}{gap}mm/mV"
        words = [speed, gain, str(rng.choice(["", "0.05-150 Hz", "F 60~ 0.5-40 Hz", "50 Hz", self.words(2)]))]
        if rng.random() < 0.3:
            words.reverse()
        mask = self.stamp("  ".join(word for word in words if word), size_mm)
        room = max(style.width_mm - mask.shape[1] / self.px_per_mm - 3, 3.5)
        y_mm = style.height_mm - size_mm * 1.6 if style.footer == "bottom" else 1.5
        self.paste(mask, rng.uniform(3, room), y_mm)

    def disturb(self) -> None:
        style, rng = self.style, self.rng
        for _ in range(style.scribbles):
            n = int(rng.integers(6, 40))
            steps = np.cumsum(np.stack([rng.normal(1.2, 1.5, n), rng.normal(0, 2.2, n)], -1), 0)
            smooth = np.asarray(cv2.GaussianBlur(np.repeat(steps, 6, 0).astype(np.float32), (1, 9), 0), np.float32)
            smooth += rng.uniform([0, 0], [style.width_mm, style.height_mm])
            self.line(smooth[:, 0], smooth[:, 1], float(rng.uniform(0.3, 0.8)))
        if style.barcode:
            x0, y0 = rng.uniform([5, 3], [style.width_mm * 0.7, max(style.top_mm - 15, 4)])
            bars = np.repeat((rng.random(60) < 0.5).astype(np.uint8) * 255, 5)
            self.paste(np.tile(bars, (80, 1)), x0, y0)
        if style.stamp:
            self._stamp()

    def _stamp(self) -> None:
        """Press two words in a frame on the page, turned."""
        style, rng = self.style, self.rng
        mask = cv2.copyMakeBorder(self.stamp(self.words(2), 6), 12, 12, 12, 12, cv2.BORDER_CONSTANT)
        cv2.rectangle(mask, (2, 2), (mask.shape[1] - 3, mask.shape[0] - 3), 255, 4)
        side = int(np.hypot(*mask.shape)) + 2
        square = np.zeros((side, side), np.uint8)
        oy, ox = (side - mask.shape[0]) // 2, (side - mask.shape[1]) // 2
        square[oy : oy + mask.shape[0], ox : ox + mask.shape[1]] = mask
        turn = cv2.getRotationMatrix2D((side / 2, side / 2), float(rng.uniform(-40, 40)), 1)
        turned = np.asarray(cv2.warpAffine(square, turn, (side, side)), np.uint8)
        self.paste(turned, *rng.uniform([0, 0], [style.width_mm * 0.7, style.height_mm * 0.7]))

    def marks(self, y_mm: float, beats_mm: FloatArray, spikes_mm: list[float], gap_mm: float) -> None:
        """Mark spikes, beats or seconds along a row, as carts do that analyse rhythm; none of it is signal."""
        style, rng = self.style, self.rng
        if style.marks == "strokes":
            top, length = y_mm + rng.uniform(0.2, 0.45) * gap_mm, rng.uniform(1.0, 3.5)
            for x in spikes_mm or beats_mm.tolist():
                self._upright(x, top, top + length, style.stroke_mm)
        elif style.marks == "letters":
            top, kinds = y_mm - rng.uniform(0.2, 0.45) * gap_mm, rng.choice(["N", "V", "A", "S", "P"], 4)
            for x in beats_mm.tolist():
                self.paste(self.stamp(str(rng.choice(kinds)), 2.0), x - 0.8, top)
        elif style.marks == "seconds":
            for x in np.arange(style.left_mm, style.width_mm, style.speed_mm_per_s):
                self._upright(x, y_mm + 0.4 * gap_mm, y_mm + 0.4 * gap_mm + 1.5, 0.3)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Printed:
    """One lead's stretch of a row before it is painted."""

    lead: Lead
    first: int  # sample
    mv: FloatArray  # (n,) as printed, with spikes


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Heart:
    """What is printed, in mV at 500 Hz."""

    signal_mv: FloatArray  # (n_leads, n) without spikes, in the order of ALL_LEADS
    spikes_mv: FloatArray  # (n_leads, n) the spikes alone
    highest_mm: float  # where the amplifier saturates, from the row's baseline

    def row(
        self, number: int, layout: Layout, leads: tuple[Lead, ...], style: PageStyle, y_mm: float, seconds: float
    ) -> tuple[DrawnRow, list[_Printed], list[DrawnSpike]]:
        """Lay one row out."""
        xs, lines, ys, segments, printed = [], [], [], [], []
        spikes: list[DrawnSpike] = []
        n, step = round(seconds * 500), style.speed_mm_per_s / 500
        x0 = style.left_mm
        for column, lead in enumerate(leads):
            first = column * n if layout.sequential else 0
            part = np.s_[ALL_LEADS.index(lead), first : first + n]
            mv = self.signal_mv[part]
            if len(mv) < 100:
                continue
            mm = style.gain_mm_per_mv * (1.0 if lead in LIMB else style.chest_gain)
            mm *= -1.0 if lead in layout.inverted else 1.0
            x = x0 + np.arange(len(mv)) * step
            line = y_mm - np.clip(mm * mv, -self.highest_mm, self.highest_mm)
            y = y_mm - np.clip(mm * (mv + self.spikes_mv[part]), -self.highest_mm, self.highest_mm)
            segments.append(Segment(lead=lead, x0_mm=float(x[0]), x1_mm=float(x[-1])))
            printed.append(_Printed(lead=lead, first=first, mv=((y_mm - y) / mm).astype(np.float32)))
            spikes += [
                DrawnSpike(
                    row=number,
                    lead=lead,
                    sample=first + start,
                    height_mv=float((line[start] - y[start]) / mm),
                    x_mm=float(x[start:stop].mean()),
                    foot_mm=float(line[start:stop].mean()),
                    tip_mm=float(y[start]),
                )
                for start, stop in runs_of(np.abs(y - line) > 0.05 * style.gain_mm_per_mv)
            ]
            xs.append(x)
            lines.append(line)
            ys.append(y)
            x0 = x[-1] + step
            if style.column_gap_mm and column + 1 < len(leads):
                xs.append(np.array([x[-1] + 1e-3, x0 + style.column_gap_mm - 1e-3]))
                lines.append(np.array([np.nan, np.nan]))
                ys.append(np.array([np.nan, np.nan]))
                x0 += style.column_gap_mm
        x_mm, line_mm, row_mm = (np.concatenate(v).astype(np.float32) for v in (xs, lines, ys))
        row = DrawnRow(
            segments=tuple(segments),
            x_mm=x_mm,
            y_mm=row_mm,
            line_mm=line_mm,
            baseline_mm=float(np.nanmedian(line_mm)),
        )
        return row, printed, spikes


def _compose(painter: _Painter, style: PageStyle, rng: np.random.Generator) -> tuple[ByteArray, ByteArray]:
    """Blend paper, grid, trace and text; return pixels and classes."""
    grid = _grid_alpha(style, painter.shape, rng)
    masks = [_dotted(mask, style) for mask in (painter.trace, painter.text)]
    at = np.flatnonzero(np.maximum(*masks).ravel() > 0)
    trace, text = (mask.ravel()[at] for mask in masks)
    classes = np.asarray(cv2.threshold(grid, 38, GRID, cv2.THRESH_BINARY)[1], np.uint8)
    classes.ravel()[at[text > 100]] = TEXT
    classes.ravel()[at[trace > 100]] = TRACE
    share = np.maximum(trace, text).astype(np.float32) * np.float32(style.ink_opacity / 255)
    if style.broken:
        gaps = _gaps(painter.shape, style.broken, style.broken_mm, style.ink_px_per_mm, rng).ravel()[at]
        share *= np.where(trace > 0, np.clip(0.5 - gaps * 8, 0.15, 1), np.float32(1))
    if style.fade:
        share *= 1 - np.float32(style.fade) * _blotches(painter.shape, rng).ravel()[at]
    if style.dead_dots:
        share[np.isin(at // painter.shape[1], rng.integers(0, painter.shape[0], style.dead_dots))] = 0
    steps = np.linspace(0, 1, 256)[:, None]
    paper, lines, ink_colour = (np.array(c, np.float32) for c in (style.paper, style.grid_colour, style.ink))
    shades = np.clip(paper + (lines - paper) * steps, 0, 255).astype(np.uint8)
    pixels = np.asarray(cv2.LUT(cv2.merge([grid] * 3), shades[None]), np.uint8)
    flat = pixels.reshape(-1, 3)
    below = flat[at].astype(np.float32)
    flat[at] = below + (ink_colour - below) * share[:, None]
    return _copy(pixels, style, rng) if style.copied else pixels, classes


def _dotted(mask: ByteArray, style: PageStyle) -> ByteArray:
    """Print a mask with the dots of a thermal head; unchanged by a smooth pen."""
    if not style.dots_per_mm:
        return mask
    dots = cv2.resize(
        mask, None, fx=style.dots_per_mm / style.ink_px_per_mm, fy=style.dots_per_mm / style.ink_px_per_mm
    )
    _, dots = cv2.threshold(dots, 90, 255, cv2.THRESH_BINARY)
    return np.asarray(cv2.resize(dots, mask.shape[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)


def _blotches(shape: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Return a smooth field (H, W) in [0, 1], centimetres wide."""
    coarse = rng.random((int(rng.integers(3, 8)), int(rng.integers(3, 10))), np.float32)
    return np.asarray(cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def _copy(pixels: ByteArray, style: PageStyle, rng: np.random.Generator) -> ByteArray:
    """Copy a page in black and white: what is near the copier's limit comes in dashes."""
    grey = cv2.GaussianBlur(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (0, 0), 0.06 * style.ink_px_per_mm)
    paper, ink = np.mean(style.paper), np.mean(style.ink)
    uneven = 0.12 * (_gaps(grey.shape[:2], 0.5, 3.0, style.ink_px_per_mm, rng) + _blotches(grey.shape[:2], rng) - 0.5)
    limit = paper - (paper - ink) * (style.copied + uneven)
    _, black = cv2.threshold((grey < limit).view(np.uint8), 0, 255, cv2.THRESH_BINARY_INV)
    return np.asarray(cv2.merge([black] * 3), np.uint8)


def draw_page(
    signal_mv: FloatArray,
    layout: Layout,
    style: PageStyle,
    rng: np.random.Generator,
    spikes_mv: FloatArray | None = None,
) -> DrawnPage:
    """Draw one page.

    Parameters
    ----------
    signal_mv : (12, n) float32
        At 500 Hz, standard lead order; at least as long as the layout's printed time.  Other leads follow from it.
    layout, style
        What to print and how.
    rng : numpy.random.Generator
        Places print, scribbles and calibration shapes.
    spikes_mv : (12, n) float32, optional
        Pacing spikes to print on top of the signal; see `pacing.split_spikes`.

    Returns
    -------
    DrawnPage
        Picture, classes and truth; the same arguments and generator state give the same page.
    """
    painter = _Painter(style, rng)
    level_mv = np.median(signal_mv, axis=1, keepdims=True)  # a cart's filter leaves little of it
    signal_mv = (signal_mv - level_mv + np.clip(level_mv, -0.3, 0.3)).astype(np.float32)
    spikes_mv = np.zeros_like(signal_mv) if spikes_mv is None else spikes_mv
    in_truth = record_leads((*layout.leads, *layout.rhythm))
    if len(in_truth) > len(signal_mv):
        signal_mv, spikes_mv = every_lead(signal_mv), every_lead(spikes_mv)
    n_columns = len(layout.rows[0])
    room = (style.width_mm - style.left_mm - 2) / style.speed_mm_per_s / n_columns
    recorded = signal_mv.shape[1] / 500 / (n_columns if layout.sequential else 1)
    seconds = min(style.column_seconds or layout.column_seconds, room, recorded)
    rows_of_leads = [(row, seconds) for row in layout.rows]
    rows_of_leads += [((lead,), min(seconds * n_columns, signal_mv.shape[1] / 500)) for lead in layout.rhythm]
    gap = (style.height_mm - style.top_mm - style.bottom_mm) / len(rows_of_leads)
    painter.label_rise = float(rng.uniform(1.5, max(2.0, min(9.0, gap * 0.35))))
    heart = _Heart(
        signal_mv=signal_mv,
        spikes_mv=spikes_mv,
        highest_mm=25.0 if rng.random() < 0.2 else np.inf,
    )
    truth = np.full((len(in_truth), 5000), np.nan, np.float32)
    rows, spikes, levels_mm = [], [], []
    for index, (leads, row_seconds) in enumerate(rows_of_leads):
        levels_mm.append(style.top_mm + (index + 0.5) * gap + rng.normal(0, gap * 0.04))
        row, printed, of_row = heart.row(index, layout, leads, style, levels_mm[-1], row_seconds)
        rows.append(row)
        spikes += of_row
        for part in printed:
            row_truth = truth[in_truth.index(part.lead)]
            if np.isfinite(row_truth).sum() < len(part.mv):
                row_truth[part.first : part.first + len(part.mv)] = part.mv[: len(row_truth) - part.first]
    _paint(painter, heart, layout, rows, spikes, levels_mm, gap)
    painter.print_lines()
    painter.disturb()
    pixels, classes = _compose(painter, style, rng)
    return DrawnPage(
        pixels=pixels,
        classes=classes,
        rows=tuple(rows),
        labels=tuple(painter.labels),
        pulses=tuple(painter.pulses),
        spikes=tuple(spikes),
        layout=replace(layout, column_seconds=seconds),
        calibration=Calibration(
            paper_speed_mm_per_s=style.speed_mm_per_s,
            gain_mm_per_mv=style.gain_mm_per_mv,
            chest_gain_mm_per_mv=None if style.chest_gain == 1 else style.gain_mm_per_mv * style.chest_gain,
        ),
        signal_mv=truth,
        style=style,
    )


def _paint(
    painter: _Painter,
    heart: _Heart,
    layout: Layout,
    rows: list[DrawnRow],
    spikes: list[DrawnSpike],
    levels_mm: list[float],
    gap_mm: float,
) -> None:
    """Paint rows with their spikes, pulses, names, separators and marks."""
    style, rng = painter.style, painter.rng
    whole = (style.top_mm, style.height_mm - style.bottom_mm)
    beats = beat_samples(heart.signal_mv) if style.marks in ("strokes", "letters") else np.zeros(0, np.intp)
    faint = max(110, round(255 * style.spike_opacity))
    for row in rows:
        for start, stop in runs_of(np.abs(row.y_mm - row.line_mm) > 0):
            part = np.s_[max(start - 1, 0) : stop + 1]  # from the foot before to the foot after
            known = np.isfinite(row.y_mm[part])
            x, y = row.x_mm[part][known], row.y_mm[part][known]
            _polyline(painter.trace, x, y, style.spike_mm, painter.px_per_mm, faint)
    for number, (row, y_mm) in enumerate(zip(rows, levels_mm, strict=True)):
        for start, stop in runs_of(np.isfinite(row.line_mm)):
            part = np.s_[start:stop]
            _polyline(painter.trace, row.x_mm[part], row.line_mm[part], style.stroke_mm, painter.px_per_mm)
        if style.pulse in ("left", "each"):
            painter.pulse(style.left_mm - painter.pulse_shift_mm, y_mm)
        elif style.pulse == "right":
            painter.pulse(min(row.x_mm[-1] + rng.uniform(1, 3), style.width_mm - 7), y_mm)
        for column, segment in enumerate(row.segments):
            painter.label(segment.lead, segment.lead in layout.inverted, segment.x0_mm, y_mm, column)
            if column:
                painter.separator(segment.x0_mm - style.column_gap_mm / 2, y_mm, gap_mm, whole)
        at_mm = style.left_mm + beats * (style.speed_mm_per_s / 500)
        at_mm = at_mm[at_mm < row.segments[-1].x1_mm].astype(np.float32)
        painter.marks(y_mm, at_mm, [spike.x_mm for spike in spikes if spike.row == number], gap_mm)


def random_page(
    records: list[FloatArray],
    rng: np.random.Generator,
    fonts: tuple[str, ...],
    families: frozenset[str] | None = None,
    *,
    layout_name: str = "",
    headed: bool = False,
) -> DrawnPage:
    """Draw a random page of a random recording.

    Parameters
    ----------
    records : list of (12, n) float32
        In mV at 500 Hz.
    rng : Generator
        All chance comes from it.
    fonts : tuple of str
        Files of `system_fonts`.
    families : frozenset of str, optional
        Of `families.FAMILIES`; None leaves them to chance, an empty set draws a usual page.
    layout_name : str
        Of the layouts that come with the package; "" leaves it to chance.
    headed : bool
        Print a header that states known values.
    """
    layouts = [(layout, weight) for layout, weight in training_layouts() if layout_name in ("", layout.name)]
    weights = np.array([weight for _, weight in layouts])
    layout = layouts[int(rng.choice(len(layouts), p=weights / weights.sum()))][0]
    shown = random_families(rng) if families is None else families
    signal_mv, spikes_mv = random_signal(records, rng, shown)
    style = dress(random_style(rng, layout, fonts), layout, shown, rng)
    if headed:
        beats = beat_samples(signal_mv)
        style = with_header(style, 60 * 500 / float(np.diff(beats).mean()) if beats.size > 1 else 60.0, rng)
    return draw_page(signal_mv, layout, style, rng, spikes_mv)
