"""Draw ECG pages: signals, a layout and a style in; a picture with exact truth out.

Everything is laid out in paper millimetres and painted once at `INK_PX_PER_MM`.  The page keeps the centre line of
every row as the polyline that was drawn, so the truth is exact at any resolution; `augment` carries it through the
camera.  The class picture follows the paper's four classes: background, grid, trace, text (with calibration pulses
and separators).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.datatypes import LEADS, ByteArray, Calibration, FloatArray, Layout, Lead, LeadLabel
from pipeline.runs import runs_of
from pipeline.training.drawing.style import CHEST, PageStyle, random_style, training_layouts
from pipeline.training.recordings.vary import random_signal

INK_PX_PER_MM = 10.0
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
    baseline_mm: float  # median of y_mm


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class DrawnPage:
    """A page with its truth."""

    pixels: ByteArray  # (H, W, 3) at INK_PX_PER_MM; pixel (i, j) shows paper ((j + .5) / R, (i + .5) / R) mm
    classes: ByteArray  # (H, W) BACKGROUND | GRID | TRACE | TEXT
    rows: tuple[DrawnRow, ...]
    labels: tuple[LeadLabel, ...]
    pulses: tuple[tuple[float, float, float, float], ...]  # x0, y0, x1, y1 in mm
    layout: Layout
    calibration: Calibration
    signal_mv: FloatArray  # (12, n) at 500 Hz as printed; NaN = not printed
    style: PageStyle


@lru_cache(maxsize=512)
def _font(path: str, size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size_px)


def text_mask(text: str, height_mm: float, font: str) -> ByteArray:
    """Return the ink of a line of print at INK_PX_PER_MM, (h, w) uint8.

    Parameters
    ----------
    text : str
    height_mm : float
        Of a capital letter.
    font : str
        A TrueType file; empty: the strokes that OpenCV draws.
    """
    if font:
        face = _font(font, max(6, round(height_mm * INK_PX_PER_MM * 1.38)))  # an em is about 1.38 cap heights
        x0, y0, x1, y1 = face.getbbox(text)
        image = Image.new("L", (max(1, int(x1 - x0) + 2), max(1, int(y1 - y0) + 2)))
        ImageDraw.Draw(image).text((1 - x0, 1 - y0), text, fill=255, font=face)
        return np.asarray(image, np.uint8)
    scale = height_mm * INK_PX_PER_MM / 21
    thickness = max(1, round(scale * 1.6))
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    mask = np.zeros((height + base + 2 * thickness, width + 2 * thickness), np.uint8)
    place = (thickness, height + thickness)
    cv2.putText(mask, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thickness, cv2.LINE_AA)
    return mask


def system_fonts() -> tuple[str, ...]:
    """Return the TrueType fonts of this machine that can print Latin text, sorted; empty where there are none."""
    found = []
    for path in sorted(Path("/usr/share/fonts").rglob("*.ttf")):
        if not any(word in path.name.lower() for word in ("symbol", "emoji", "awesome", "math", "dingbat")):
            found.append(str(path))
    return tuple(found)


def _paste(mask: ByteArray, stamp: ByteArray, x_mm: float, y_mm: float) -> tuple[float, float] | None:
    """Combine `stamp` into `mask` with its top left corner at (x, y) mm; return the visible centre in mm."""
    x, y = round(x_mm * INK_PX_PER_MM), round(y_mm * INK_PX_PER_MM)
    y0, x0 = max(y, 0), max(x, 0)
    y1, x1 = min(y + stamp.shape[0], mask.shape[0]), min(x + stamp.shape[1], mask.shape[1])
    if y1 - y0 < 0.6 * stamp.shape[0] or x1 - x0 < 0.6 * stamp.shape[1]:
        return None
    part = mask[y0:y1, x0:x1]
    np.maximum(part, stamp[y0 - y : y1 - y, x0 - x : x1 - x], out=part)
    return (x + stamp.shape[1] / 2) / INK_PX_PER_MM, (y + stamp.shape[0] / 2) / INK_PX_PER_MM


def _polyline(mask: ByteArray, x_mm: FloatArray, y_mm: FloatArray, width_mm: float) -> None:
    """Draw an anti-aliased line; thinner than a pixel becomes paler."""
    points = np.stack([x_mm, y_mm], -1) * INK_PX_PER_MM - 0.5
    limit = 4.0 * max(mask.shape)
    fixed = np.round(np.clip(points, -limit, limit) * 16).astype(np.int32)
    thickness = max(1, round(width_mm * INK_PX_PER_MM))
    cv2.polylines(mask, [fixed], False, 255, thickness, cv2.LINE_AA, shift=4)


def _comb(n: int, phase: float, pitch: float, width: float) -> FloatArray:
    """Opacity along one axis (n,) of lines `width` wide every `pitch` mm."""
    x = (np.arange(n) + 0.5) / INK_PX_PER_MM
    distance = np.abs((x - phase + pitch / 2) % pitch - pitch / 2)
    opacity = np.clip((width / 2 - distance) * INK_PX_PER_MM + 0.5, 0, min(1.0, width * INK_PX_PER_MM))
    return np.asarray(opacity, np.float32)


def _grid_alpha(style: PageStyle, shape: tuple[int, int]) -> FloatArray:
    """Opacity of the grid, (H, W)."""
    px, py = style.grid_phase
    alpha: FloatArray = np.zeros(shape, np.float32)
    if style.grid_minor:
        cx, cy = _comb(shape[1], px, 1.0, style.grid_minor_mm), _comb(shape[0], py, 1.0, style.grid_minor_mm)
        if style.grid_dotted:
            dx, dy = _comb(shape[1], px, 1.0, 0.25), _comb(shape[0], py, 1.0, 0.25)
            alpha = np.asarray(dy[:, None] * dx[None] * style.grid_minor, np.float32)
        else:
            alpha = np.asarray(np.maximum(cy[:, None], cx[None]) * style.grid_minor, np.float32)
    if style.grid_major:
        mx, my = _comb(shape[1], px, 5.0, style.grid_major_mm), _comb(shape[0], py, 5.0, style.grid_major_mm)
        if style.grid_dotted and style.grid_minor > 0.6:  # dotted majors: a dot every mm along the line
            mx2, my2 = _comb(shape[1], px, 1.0, 0.45), _comb(shape[0], py, 1.0, 0.45)
            major = np.maximum(my[:, None] * mx2[None], my2[:, None] * mx[None])
        else:
            major = np.maximum(my[:, None], mx[None])
        alpha = np.maximum(alpha, major * style.grid_major)
    if style.grid_box is not None:
        x0, y0, x1, y1 = (round(v * INK_PX_PER_MM) for v in style.grid_box)
        inside = np.zeros_like(alpha)
        inside[max(y0, 0) : y1, max(x0, 0) : x1] = alpha[max(y0, 0) : y1, max(x0, 0) : x1]
        thickness = max(1, round(style.grid_major_mm * INK_PX_PER_MM))
        cv2.rectangle(inside, (x0, y0), (x1, y1), style.grid_major or style.grid_minor, thickness)
        alpha = inside
    return alpha


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
        self.style, self.rng = style, rng
        self.shape = (round(style.height_mm * INK_PX_PER_MM), round(style.width_mm * INK_PX_PER_MM))
        self.trace = np.zeros(self.shape, np.uint8)
        self.text = np.zeros(self.shape, np.uint8)
        self.pulses: list[tuple[float, float, float, float]] = []
        self.labels: list[LeadLabel] = []
        self.pulse_width_mm = float(rng.choice([0.2 * style.speed_mm_per_s, 5.0, rng.uniform(2, 6)]))
        self.pulse_foot_mm = float(rng.choice([0.0, rng.uniform(0.5, 2.5)]))
        self.pulse_shift_mm = float(rng.uniform(6, 9))

    def words(self, n: int) -> str:
        picked = [str(w) for w in self.rng.choice(_WORDS, n)]
        return " ".join(w if self.rng.random() < 0.7 else str(self.rng.integers(1, 2000)) for w in picked)

    def pulse(self, x_mm: float, y_mm: float) -> None:
        width, foot, height = self.pulse_width_mm, self.pulse_foot_mm, self.style.gain_mm_per_mv
        x, y = _pulse_shape(x_mm, y_mm, width, height, foot)
        _polyline(self.text, x, y, self.style.stroke_mm)
        self.pulses.append((x_mm - foot, y_mm - height, x_mm + width + foot, y_mm))

    def label(self, lead: Lead, inverted: bool, x0_mm: float, y_mm: float, column: int) -> None:
        style, rng = self.style, self.rng
        mask = text_mask(("-" if inverted else "") + lead.value, style.label_mm, style.font)
        h, w = mask.shape[0] / INK_PX_PER_MM, mask.shape[1] / INK_PX_PER_MM
        x = x0_mm + rng.normal(1.0, 0.4) + style.label_shift_mm * column * 0.4
        place = {
            "above": (x, y_mm - h - self.label_rise),
            "below": (x, y_mm + self.label_rise * 0.7),
            "start": ((x0_mm - w - 1.0) if column == 0 else x, y_mm - h - 0.5),
            "shifted": (x + rng.normal(3, 2), y_mm - h - self.label_rise + rng.normal(0, 2)),
        }[style.label_place]
        centre = _paste(self.text, mask, *place)
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
        _polyline(self.text, np.array([x_mm, x_mm], np.float32), np.array([y0_mm, y1_mm], np.float32), width_mm)

    def print_lines(self) -> None:
        style, rng = self.style, self.rng
        size = float(rng.uniform(1.8, 3.4))
        top_mm = 3.0 + (1.7 * size if style.footer == "top" else 0.0)
        free_mm = 0.0  # print does not run over print
        for column_x in sorted(rng.uniform(3, style.width_mm * 0.8, size=int(rng.integers(1, 4)))):
            lines = [self.words(int(rng.integers(1, 5))) for _ in range(style.header)]
            stamps = [text_mask(words, size, style.font) for words in lines]
            x_mm = max(float(column_x), free_mm)
            for number, stamp in enumerate(stamps):
                _paste(self.text, stamp, x_mm, top_mm + number * size * 1.7)
            free_mm = x_mm + 3.0 + max((stamp.shape[1] for stamp in stamps), default=0) / INK_PX_PER_MM
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
            _polyline(self.text, np.array([left, right], np.float32), np.array([y, y], np.float32), thickness)
            if rng.random() < 0.3:
                below = np.array([y, min(y + rng.uniform(4, 15), style.top_mm)], np.float32)
                for x in (left, right, float(rng.uniform(left, right))):
                    _polyline(self.text, np.array([x, x], np.float32), below, thickness)

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
        mask = text_mask("  ".join(word for word in words if word), size_mm, style.font)
        room = max(style.width_mm - mask.shape[1] / INK_PX_PER_MM - 3, 3.5)
        y_mm = style.height_mm - size_mm * 1.6 if style.footer == "bottom" else 1.5
        _paste(self.text, mask, rng.uniform(3, room), y_mm)

    def disturb(self) -> None:
        style, rng = self.style, self.rng
        for _ in range(style.scribbles):
            n = int(rng.integers(6, 40))
            steps = np.cumsum(np.stack([rng.normal(1.2, 1.5, n), rng.normal(0, 2.2, n)], -1), 0)
            smooth = np.asarray(cv2.GaussianBlur(np.repeat(steps, 6, 0).astype(np.float32), (1, 9), 0), np.float32)
            smooth += rng.uniform([0, 0], [style.width_mm, style.height_mm])
            _polyline(self.text, smooth[:, 0], smooth[:, 1], float(rng.uniform(0.3, 0.8)))
        if style.barcode:
            x0, y0 = rng.uniform([5, 3], [style.width_mm * 0.7, max(style.top_mm - 15, 4)])
            bars = np.repeat((rng.random(60) < 0.5).astype(np.uint8) * 255, 5)
            _paste(self.text, np.tile(bars, (80, 1)), x0, y0)
        if style.stamp:
            self._stamp()

    def _stamp(self) -> None:
        """Press two words in a frame on the page, turned."""
        style, rng = self.style, self.rng
        mask = cv2.copyMakeBorder(text_mask(self.words(2), 6, style.font), 12, 12, 12, 12, cv2.BORDER_CONSTANT)
        cv2.rectangle(mask, (2, 2), (mask.shape[1] - 3, mask.shape[0] - 3), 255, 4)
        side = int(np.hypot(*mask.shape)) + 2
        square = np.zeros((side, side), np.uint8)
        oy, ox = (side - mask.shape[0]) // 2, (side - mask.shape[1]) // 2
        square[oy : oy + mask.shape[0], ox : ox + mask.shape[1]] = mask
        turn = cv2.getRotationMatrix2D((side / 2, side / 2), float(rng.uniform(-40, 40)), 1)
        turned = np.asarray(cv2.warpAffine(square, turn, (side, side)), np.uint8)
        _paste(self.text, turned, *rng.uniform([0, 0], [style.width_mm * 0.7, style.height_mm * 0.7]))


def _row_line(
    signals: FloatArray,
    layout: Layout,
    leads: tuple[Lead, ...],
    style: PageStyle,
    y_mm: float,
    seconds: float,
    clip: bool,
) -> tuple[FloatArray, FloatArray, tuple[Segment, ...], list[tuple[Lead, int, FloatArray]]]:
    """Lay one row out: polyline, segments, and per lead (lead, first sample, millivolts) as printed."""
    xs, ys, segments, printed = [], [], [], []
    n = round(seconds * 500)
    x0 = style.left_mm
    for column, lead in enumerate(leads):
        first = column * n if layout.sequential else 0
        mv = signals[LEADS.index(lead)][first : first + n]
        if len(mv) < 100:
            continue
        gain = style.gain_mm_per_mv * (style.chest_gain if lead in CHEST else 1.0)
        sign = -1.0 if lead in layout.inverted else 1.0
        x = x0 + np.arange(len(mv)) * (style.speed_mm_per_s / 500)
        y = y_mm - sign * mv * gain
        if clip:
            y = np.clip(y, y_mm - 25, y_mm + 25)
            mv = sign * (y_mm - y) / gain
        segments.append(Segment(lead=lead, x0_mm=float(x[0]), x1_mm=float(x[-1])))
        printed.append((lead, first, mv.astype(np.float32)))
        xs.append(x)
        ys.append(y)
        x0 = x[-1] + style.speed_mm_per_s / 500
        if style.column_gap_mm and column + 1 < len(leads):
            xs.append(np.array([x[-1] + 1e-3, x0 + style.column_gap_mm - 1e-3]))
            ys.append(np.array([np.nan, np.nan]))
            x0 += style.column_gap_mm
    return (
        np.concatenate(xs).astype(np.float32),
        np.concatenate(ys).astype(np.float32),
        tuple(segments),
        printed,
    )


def _compose(painter: _Painter, style: PageStyle, rng: np.random.Generator) -> tuple[ByteArray, ByteArray]:
    """Blend paper, grid, trace and text; return pixels and classes."""
    grid = _grid_alpha(style, painter.shape)
    trace = painter.trace.astype(np.float32) / 255
    classes = np.zeros(painter.shape, np.uint8)
    classes[grid > 0.15] = GRID
    classes[painter.text > 100] = TEXT
    classes[painter.trace > 100] = TRACE
    if style.broken:
        coarse = rng.random((painter.shape[0] // 20 + 1, painter.shape[1] // 20 + 1)).astype(np.float32)
        noise = np.asarray(cv2.resize(coarse, painter.shape[::-1], interpolation=cv2.INTER_CUBIC), np.float32)
        trace *= np.clip((noise - np.quantile(noise, style.broken)) * 8 + 0.5, 0.15, 1)
    ink = np.maximum(trace, painter.text.astype(np.float32) / 255) * style.ink_opacity
    pixels = np.empty((*painter.shape, 3), np.uint8)
    for channel in range(3):
        value = style.paper[channel] + (style.grid_colour[channel] - style.paper[channel]) * grid
        pixels[..., channel] = value + (style.ink[channel] - value) * ink
    return pixels, classes


def draw_page(signal_mv: FloatArray, layout: Layout, style: PageStyle, rng: np.random.Generator) -> DrawnPage:
    """Draw one page.

    Parameters
    ----------
    signal_mv : (12, n) float32
        At 500 Hz, standard lead order; at least as long as the layout's printed time.
    layout, style
        What to print and how.
    rng : numpy.random.Generator
        Places print, scribbles and calibration shapes.

    Returns
    -------
    DrawnPage
        Picture, classes and truth; the same arguments and generator state give the same page.
    """
    painter = _Painter(style, rng)
    level_mv = np.median(signal_mv, axis=1, keepdims=True)  # a cart's filter leaves little of it
    signal_mv = (signal_mv - level_mv + np.clip(level_mv, -0.3, 0.3)).astype(np.float32)
    n_columns = len(layout.rows[0])
    room = (style.width_mm - style.left_mm - 2) / style.speed_mm_per_s / n_columns
    recorded = signal_mv.shape[1] / 500 / (n_columns if layout.sequential else 1)
    seconds = min(style.column_seconds or layout.column_seconds, room, recorded)
    rows_of_leads = [(row, seconds) for row in layout.rows]
    rows_of_leads += [((lead,), min(seconds * n_columns, signal_mv.shape[1] / 500)) for lead in layout.rhythm]
    area = style.height_mm - style.top_mm - style.bottom_mm
    gap = area / len(rows_of_leads)
    whole = (style.top_mm, style.height_mm - style.bottom_mm)
    painter.label_rise = float(rng.uniform(1.5, max(2.0, min(9.0, gap * 0.35))))
    clip = bool(rng.random() < 0.2)
    truth = np.full((12, 5000), np.nan, np.float32)
    rows = []
    for index, (leads, row_seconds) in enumerate(rows_of_leads):
        y_mm = style.top_mm + (index + 0.5) * gap + rng.normal(0, gap * 0.04)
        x, y, segments, printed = _row_line(signal_mv, layout, leads, style, y_mm, row_seconds, clip)
        rows.append(DrawnRow(segments=segments, x_mm=x, y_mm=y, baseline_mm=float(np.nanmedian(y))))
        for start, stop in runs_of(np.isfinite(y)):
            _polyline(painter.trace, x[start:stop], y[start:stop], style.stroke_mm)
        for lead, first, mv in printed:
            row_truth = truth[LEADS.index(lead)]
            if np.isfinite(row_truth).sum() < len(mv):
                row_truth[first : first + len(mv)] = mv[: len(row_truth) - first]
        if style.pulse in ("left", "each"):
            painter.pulse(style.left_mm - painter.pulse_shift_mm, y_mm)
        elif style.pulse == "right":
            painter.pulse(min(x[-1] + rng.uniform(1, 3), style.width_mm - 7), y_mm)
        for column, segment in enumerate(segments):
            painter.label(segment.lead, segment.lead in layout.inverted, segment.x0_mm, y_mm, column)
            if column:
                painter.separator(segment.x0_mm - style.column_gap_mm / 2, y_mm, gap, whole)
    painter.print_lines()
    painter.disturb()
    pixels, classes = _compose(painter, style, rng)
    return DrawnPage(
        pixels=pixels,
        classes=classes,
        rows=tuple(rows),
        labels=tuple(painter.labels),
        pulses=tuple(painter.pulses),
        layout=replace(layout, column_seconds=seconds),
        calibration=Calibration(
            paper_speed_mm_per_s=style.speed_mm_per_s,
            gain_mm_per_mv=style.gain_mm_per_mv,
            chest_gain_mm_per_mv=None if style.chest_gain == 1 else style.gain_mm_per_mv * style.chest_gain,
        ),
        signal_mv=truth,
        style=style,
    )


def random_page(records: list[FloatArray], rng: np.random.Generator, fonts: tuple[str, ...]) -> DrawnPage:
    """Draw a random page of a random recording.

    Parameters
    ----------
    records : list of (12, n) float32
        In mV at 500 Hz.
    rng : Generator
        All chance comes from it.
    fonts : tuple of str
        Files of `system_fonts`.
    """
    layouts = training_layouts()
    weights = np.array([weight for _, weight in layouts])
    layout = layouts[int(rng.choice(len(layouts), p=weights / weights.sum()))][0]
    return draw_page(random_signal(records, rng), layout, random_style(rng, layout, fonts), rng)
