"""The ink of a flat sheet beside the record that was drawn back onto it: a raster, what is ink on it, and its pieces.

Two witnesses say what is ink: the trace class of the page network, and the plain darkness of the page against the
paper around it, with coloured lines left out.  Darkness counts where the grid is paler than the pen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter1d, minimum_filter1d

from pipeline.datatypes import ByteArray, FloatArray, LayoutMatch, PulseBox, TextLine, TraceSet
from pipeline.runs import runs_of
from pipeline.sheet.paper import Sheet, print_boxes, raster, sample_nodes
from pipeline.signal.calibrate import Redrawn
from pipeline.signal.weights import AuditLimits
from pipeline.threads import side_by_side

Float64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

PX_PER_MM = 6.0  # the page network's own resolution
GRID_MM = 5.0  # from one heavy line of the grid to the next
LEAST_RETURNS = 4  # places at which a line of the grid is looked for


@dataclass(frozen=True, eq=False, slots=True)
class Raster:
    """The area of the rows as pixels, and the record drawn on it."""

    x_mm: Float64  # (w,)
    y_mm: Float64  # (h,)
    line_mm: FloatArray  # (n_stretches, w) paper y of each stretch of the record; NaN = none
    top_mm: FloatArray  # (n_stretches, w) highest point of the line within the pen's reach; inf = none
    bottom_mm: FloatArray  # (n_stretches, w) lowest point; -inf = none

    def rows_within(self, margin_mm: float) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Return the pixel rows, from and to, that each stretch covers in each column: (n_stretches, w), empty if none.

        Parameters
        ----------
        margin_mm : float
            Above and below the line.
        """
        known = np.isfinite(self.line_mm)
        top = np.where(known, self.top_mm - margin_mm - self.y_mm[0], 0.0) * PX_PER_MM
        bottom = np.where(known, self.bottom_mm + margin_mm - self.y_mm[0], -1.0) * PX_PER_MM
        first = np.clip(np.round(top), 0, self.y_mm.size).astype(np.intp)
        stop = np.clip(np.round(bottom) + 1, first, self.y_mm.size).astype(np.intp)
        return first, np.where(known, stop, first)

    def band(self, margin_mm: float) -> Mask:
        """Mark what lies within `margin_mm` of the drawn record: (h, w)."""
        change = np.zeros((self.y_mm.size + 1, self.x_mm.size), np.int16)
        columns = np.arange(self.x_mm.size)
        for first, stop in zip(*self.rows_within(margin_mm), strict=True):
            change[first, columns] += 1
            change[stop, columns] -= 1
        return np.asarray(np.cumsum(change[:-1], axis=0, dtype=np.int16) > 0)

    def box(self, x0_mm: float, y0_mm: float, x1_mm: float, y1_mm: float) -> tuple[slice, slice]:
        """Return the pixels of a box on paper as (rows, columns)."""
        x = np.round((np.array([x0_mm, x1_mm]) - self.x_mm[0]) * PX_PER_MM).clip(0, self.x_mm.size).astype(int)
        y = np.round((np.array([y0_mm, y1_mm]) - self.y_mm[0]) * PX_PER_MM).clip(0, self.y_mm.size).astype(int)
        return slice(y[0], y[1]), slice(x[0], x[1])


def draw(
    sheet: Sheet, stretches: Sequence[Redrawn], match: LayoutMatch, traces: TraceSet, limits: AuditLimits
) -> Raster:
    """Lay a raster over the rows of a sheet and draw the record on it."""
    height_mm = sheet.rectified.pixels.shape[0] / sheet.rectified.px_per_mm
    levels = [float(traces.baseline_mm[one.row]) for one in stretches]
    y0, y1 = max(min(levels) - limits.reach_mm, 0.0), min(max(levels) + limits.reach_mm, height_mm)
    x_mm, y_mm = raster(match.column_mm[0][0], match.column_mm[-1][1], PX_PER_MM), raster(y0, y1, PX_PER_MM)
    n = traces.row_mm.shape[1]
    lines = np.full((len(stretches), n), np.nan, np.float32)
    for line, one in zip(lines, stretches, strict=True):
        line[one.first : one.first + one.y_mm.size] = one.y_mm
    known = np.isfinite(lines)
    size = 2 * round(limits.sideways_mm * traces.columns_per_mm) + 1
    top = minimum_filter1d(np.where(known, lines, np.inf), size, axis=1, mode="nearest")
    bottom = maximum_filter1d(np.where(known, lines, -np.inf), size, axis=1, mode="nearest")
    _join(stretches, top, bottom, round(limits.separator_mm * traces.columns_per_mm))
    at = np.clip(np.round((x_mm - traces.x0_mm) * traces.columns_per_mm).astype(int), 0, n - 1)
    return Raster(x_mm, y_mm, lines[:, at], top[:, at], bottom[:, at])


def _join(stretches: Sequence[Redrawn], top: Float64, bottom: Float64, near: int) -> None:
    """Let a row's line go from one lead to the next where a column ends: many carts do not lift the pen."""
    for (k, one), (n, other) in permutations(enumerate(stretches), 2):
        stop = one.first + one.y_mm.size
        known, after = one.y_mm[np.isfinite(one.y_mm)], other.y_mm[np.isfinite(other.y_mm)]
        if one.row != other.row or abs(other.first - stop) > near or not known.size or not after.size:
            continue
        ends = known[-1], after[0]
        for row, columns in (
            (k, slice(max(stop - near, one.first), stop)),
            (n, slice(other.first, other.first + near)),
        ):
            top[row, columns] = np.minimum(top[row, columns], min(ends))
            bottom[row, columns] = np.maximum(bottom[row, columns], max(ends))


@dataclass(frozen=True, eq=False, slots=True)
class Ink:
    """What is seen on a raster, (h, w) each, and the pen that drew the record."""

    trace: ByteArray  # of the page network, 255 = certain
    text: ByteArray
    contrast: FloatArray  # how much darker than the paper around it, in [0, 1]
    pen_contrast: float
    pen_mm: float  # width of its line


def look(sheet: Sheet, raster: Raster) -> Ink:
    """Sample the maps of the page network and the darkness of the page; measure the pen where the record runs level."""
    parts: list[Callable[[], Any]] = [lambda: sheet.ink(raster.x_mm, raster.y_mm), lambda: _contrast(sheet, raster)]
    seen, contrast = side_by_side(lambda part: part(), parts)
    return Ink(seen[..., 1], seen[..., 0], contrast, *_pen(contrast, raster))


def _contrast(sheet: Sheet, raster: Raster) -> FloatArray:
    """Sample how much darker the page is than the paper around, (h, w), in [0, 1]."""
    node_xy, node_mm, scale = sheet.rectified.node_xy, sheet.rectified.node_mm, sheet.rectified.grid_scale
    page, shrink = sheet.page.pixels, PX_PER_MM / min(scale.px_per_mm_x, scale.px_per_mm_y)
    if shrink < 0.8:  # averaged before it is sampled: several times faster than the other way round
        page = np.asarray(cv2.resize(page, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA), np.uint8)
        node_xy = ((node_xy + 0.5) * shrink - 0.5).astype(np.float32)
    brightest = np.asarray(cv2.max(cv2.max(page[..., 0], page[..., 1]), page[..., 2]), np.uint8)
    light = sample_nodes(brightest, node_xy, raster.x_mm / node_mm, raster.y_mm / node_mm)
    coarse = cv2.resize(light, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    paper = cv2.resize(cv2.medianBlur(coarse, 11), light.shape[::-1], interpolation=cv2.INTER_LINEAR)
    shade = light.astype(np.float32) / np.maximum(paper.astype(np.float32), 1)
    return np.asarray(np.clip(1 - shade, 0, 1), np.float32)


def _pen(contrast: FloatArray, raster: Raster) -> tuple[float, float]:
    """Measure contrast and width of the line in the columns where the record runs level; zeros if it never does."""
    at = np.round((raster.line_mm - raster.y_mm[0]) * PX_PER_MM)
    level = np.isfinite(at) & (np.abs(np.gradient(raster.line_mm, axis=1)) * PX_PER_MM < 0.5)
    stretch, column = np.nonzero(level)
    if not column.size:
        return 0.0, 0.0
    rows = np.clip(at[stretch, column].astype(int)[:, None] + np.arange(-6, 7), 0, raster.y_mm.size - 1)
    across = contrast[rows, column[:, None]]
    darkest = across[:, 4:9].max(1)
    beside = np.minimum(np.median(across, axis=1), 0.5 * darkest)  # of the paper and of a line of the grid
    own = np.clip(across - beside[:, None], 0, None).sum(1)
    width_px = np.median(own / np.maximum(darkest - beside, 1e-3))
    return float(np.median(darkest)), float(width_px) / PX_PER_MM


@dataclass(frozen=True, eq=False, slots=True)
class Strokes:
    """Pixels that a pen drew: (h, w)."""

    seen: Mask  # trace by the page network, and no paler than the grid
    dark: Mask  # as dark as the pen
    thin: Mask  # upright strokes as thin as a spike and darker than the rest of their columns, however pale


def find_strokes(ink: Ink, raster: Raster, limits: AuditLimits) -> Strokes:
    """Tell ink from paper, grid and rules."""
    beside = ~raster.band(1.0) & (ink.text < limits.no_text)
    grid = float(np.quantile(ink.contrast[beside][::7], 0.97)) if beside.any() else 0.0
    pale = grid < limits.pale_grid * ink.pen_contrast
    faint = min(max(limits.faint * ink.pen_contrast, grid if pale else 0.0), limits.most_faint * ink.pen_contrast)
    edge = max(limits.dark * ink.pen_contrast, grid + limits.between * (ink.pen_contrast - grid))
    parts: list[Callable[[], Mask]] = [lambda: _rules(ink, limits), lambda: _thin(ink, beside, limits)]
    rules, thin = side_by_side(lambda part: part(), parts)
    seen = (ink.trace > limits.sure) & (ink.contrast > faint) & ~rules
    dark = (ink.contrast > edge) & ~rules if pale else np.zeros_like(seen)
    return Strokes(np.asarray(seen), np.asarray(dark), thin)


def _thin(ink: Ink, beside: Mask, limits: AuditLimits) -> Mask:
    """Mark thin upright strokes: a cart draws a spike paler than the trace, and often as pale as the grid.

    A line of the grid returns every 5 mm, one of a form is as dark as the pen or as dark all the way down.  Spikes of
    several rows may run into one line, as long as one of a form, but such lines are more than a form has.
    """
    side = round(limits.ridge_mm * PX_PER_MM)
    padded = np.pad(ink.contrast, ((0, 0), (side, side)), mode="edge")
    ridge = ink.contrast - np.maximum(padded[:, : -2 * side], padded[:, 2 * side :])
    tall = cv2.blur(ridge, (1, round(limits.least_thin_mm * PX_PER_MM)))
    columns = np.flatnonzero(beside[::6].any(0))
    if not columns.size:
        return np.zeros_like(beside)
    free = np.sort(np.where(beside[::6], tall[::6], np.nan)[:, columns], axis=0)  # NaN last: faster than nanquantile
    known, at = np.isfinite(free).sum(0) - 1, np.arange(ridge.shape[1])
    throughout, half = (
        np.interp(at, columns, free[(share * known).astype(np.intp), np.arange(columns.size)]) for share in (0.2, 0.5)
    )
    noise = 1.4826 * float(np.nanmedian(np.abs(free - half[columns])))
    steps = np.round(np.arange(-4, 5) * GRID_MM * PX_PER_MM).astype(np.intp)
    around = np.where((at + steps[:, None] >= 0) & (at + steps[:, None] < at.size), at + steps[:, None], at)
    of_line = np.maximum(np.median(maximum_filter1d(half, 3)[around], axis=0), throughout).clip(0)
    least = max(limits.thin * ink.pen_contrast, 5 * noise)
    over = tall - limits.over_line * maximum_filter1d(of_line, 3)
    thin = (over > least) & (ridge > least / 2)
    dark = (ink.contrast > limits.pale_line * ink.pen_contrast).astype(np.uint8)
    rules = _straight(dark, limits.upright_mm, upright=True)
    bridge = np.ones((round(limits.bridge_mm * PX_PER_MM), 1), np.uint8)  # where a trace crosses
    whole = np.asarray(cv2.morphologyEx(thin.astype(np.uint8), cv2.MORPH_CLOSE, bridge), np.uint8)
    long = _straight(whole, limits.upright_mm, upright=True)
    if len(runs_of(np.asarray(long.any(0)))) <= limits.most_rules:
        rules |= long
    beside_rules = cv2.dilate(rules.astype(np.uint8), np.ones((1, 2 * side + 1), np.uint8))
    return np.asarray(thin & (beside_rules == 0))


def _rules(ink: Ink, limits: AuditLimits) -> Mask:
    """Mark lines of the grid and of a form: level ones paler than the pen, and all that are longer than any wave."""
    line = (ink.contrast > limits.supported * ink.pen_contrast).astype(np.uint8)
    level = _straight(line, limits.level_mm, upright=False) & (ink.contrast < limits.pale_line * ink.pen_contrast)
    long = _long_line(ink.contrast, line, limits.rule_mm, limits.stands_out, upright=False)
    return np.asarray(level | long | _long_line(ink.contrast, line, limits.upright_mm, limits.stands_out, upright=True))


def _long_line(contrast: FloatArray, line: ByteArray, length_mm: float, stands_out: float, *, upright: bool) -> Mask:
    """Mark long straight lines; a stroke that lies on one and stands out against its mean is no part of it."""
    n = round(length_mm * PX_PER_MM)
    mean = cv2.blur(contrast, (1, n) if upright else (n, 1))
    return np.asarray(_straight(line, length_mm, upright=upright) & (contrast < stands_out * mean))


def _straight(mask: ByteArray, length_mm: float, *, upright: bool) -> Mask:
    """Keep straight lines of at least a length, which may lean by a pixel and have gaps of two."""
    n = round(length_mm * PX_PER_MM)
    near, along = ((5, 3), (n, 1)) if upright else ((3, 5), (1, n))
    wide = cv2.dilate(mask, np.ones(near, np.uint8))
    return np.asarray(cv2.morphologyEx(wide, cv2.MORPH_OPEN, np.ones(along, np.uint8)) > 0)


def print_mask(raster: Raster, match: LayoutMatch, pulses: Sequence[PulseBox], text: Sequence[TextLine]) -> Mask:
    """Mark lead names, print and calibration pulses: (h, w)."""
    marked = np.zeros((raster.y_mm.size, raster.x_mm.size), bool)
    for box in print_boxes(match, _whole_pulses(pulses), text, pulse_margin_mm=1.0):
        marked[raster.box(*box)] = True
    return marked


def _whole_pulses(pulses: Sequence[PulseBox], *, same_mm: float = 1.0) -> list[PulseBox]:
    """Let pulses that begin at one place end where two of them do: a name or the trace on a pulse hides its flank."""
    whole = []
    for pulse in pulses:
        ends = sorted(other.x1_mm for other in pulses if abs(other.x0_mm - pulse.x0_mm) <= same_mm)
        whole.append(replace(pulse, x1_mm=max(pulse.x1_mm, *ends[-2:-1])) if ends[1:] else pulse)
    return whole


def unread_names(raster: Raster, match: LayoutMatch, traces: TraceSet, limits: AuditLimits) -> Mask:
    """Mark where names that were not read are expected: beside their stretches as the names that were read: (h, w)."""
    marked = np.zeros((raster.y_mm.size, raster.x_mm.size), bool)
    starts = [
        (lead, span[0], float(traces.baseline_mm[row]))
        for lead, row, span in match.stretches()
        if 0 <= row < traces.baseline_mm.size
    ]
    found = []
    for name in match.labels:
        own = [(name.x_mm - x, name.y_mm - y) for lead, x, y in starts if lead is name.lead]
        found += [min(own, key=lambda off: off[0] ** 2 + off[1] ** 2)] if own else []
    if len(found) < limits.least_names:
        return marked
    right, down = np.median(found, axis=0).tolist()
    for lead, x, y in starts:
        at = x + right, y + down
        if not any(
            n.lead is lead and np.hypot(n.x_mm - at[0], n.y_mm - at[1]) < 2 * limits.name_mm for n in match.labels
        ):
            marked[raster.box(at[0] - 4.0, at[1] - 2.5, at[0] + 4.0, at[1] + 2.5)] = True
    return marked


def with_letters(printed: Mask, names: Mask, seen: ByteArray, limits: AuditLimits) -> Mask:
    """Let print go on where the page network sees letters that begin on it: (h, w).

    Parameters
    ----------
    printed : (h, w) bool
    names : (h, w) bool
        Where letters may begin as well.
    seen : (h, w) uint8
        The text class of the page network.
    limits : AuditLimits
    """
    size = 2 * round(limits.name_mm * PX_PER_MM) + 1
    near = cv2.dilate((printed | names).astype(np.uint8), np.ones((size, size), np.uint8))
    _, index = cv2.connectedComponents(((seen > limits.no_text) & (near > 0)).astype(np.uint8), connectivity=8)
    begun = np.zeros(int(index.max()) + 1, bool)
    begun[np.unique(index[printed | names])] = True
    begun[0] = False
    return np.asarray(printed | begun[index])


def separator_columns(
    left: Mask, raster: Raster, match: LayoutMatch, levels_mm: Sequence[float], limits: AuditLimits
) -> npt.NDArray[np.bool_]:
    """Mark the columns of separators: upright strokes at a column's boundary, at one place in two rows or more.

    Parameters
    ----------
    left : (h, w) bool
        Ink beside the record.
    raster : Raster
    match : LayoutMatch
    levels_mm : sequence of float
        Paper y of the rows.
    limits : AuditLimits

    Returns
    -------
    (w,) bool
    """
    marked = np.zeros(raster.x_mm.size, bool)
    rows_mm = np.unique(levels_mm)
    zones = np.digitize(raster.y_mm, (rows_mm[1:] + rows_mm[:-1]) / 2)
    starts, ends = [start for start, _ in match.column_mm], [end for _, end in match.column_mm]
    for before, after in zip([starts[0], *ends], [*starts, ends[-1]], strict=True):
        low, high = min(before, after) - limits.separator_mm, max(before, after) + limits.separator_mm
        first, stop = np.searchsorted(raster.x_mm, [low, high])
        tall_mm = np.stack([left[zones == zone, first:stop].sum(0) for zone in range(rows_mm.size)]) / PX_PER_MM
        if not tall_mm.size:
            continue
        tall_mm = maximum_filter1d(tall_mm, 3, axis=1)
        second = np.sort(tall_mm, axis=0)[-2:].min(0)  # of a page of one row that row's
        if second.max() >= limits.tick_mm:
            stroke = np.flatnonzero(second >= 0.5 * second.max())
            beside = round(limits.beside_mm * PX_PER_MM)
            marked[max(first + stroke[0] - beside, 0) : first + stroke[-1] + beside + 1] = True
    return marked


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Beside:
    """Ink beside the record, (h, w) each."""

    left: Mask  # what the record does not explain
    seen: Mask  # trace by the page network
    printed: Mask  # names, print and pulses
    letters: Mask  # the same, with what goes on beyond their boxes
    band: Mask  # what the record explains
    contrast: FloatArray


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Piece:
    """A connected piece of ink beside the record."""

    columns: slice  # of the raster
    top_mm: Float64  # (n,) its highest point in each column
    bottom_mm: Float64  # (n,) its lowest point
    x0_mm: float
    x1_mm: float
    seen: float  # share of its pixels that the page network takes for trace
    printed: float  # share of its pixels on print
    letters: float  # share of its pixels on print or letters
    beyond_mm: float  # how far its other pixels lie from those; inf if none lies on them
    contrast: float  # median over its pixels
    returning: float  # how dark, as a share of its own darkness, the page is where a line of the grid would return
    off_mm: float  # how far it lies beyond what the record explains, in any direction

    @property
    def y0_mm(self) -> float:
        """Upper end."""
        return float(self.top_mm.min())

    @property
    def y1_mm(self) -> float:
        """Lower end."""
        return float(self.bottom_mm.max())

    @property
    def width_mm(self) -> float:
        """Along time."""
        return self.x1_mm - self.x0_mm

    @property
    def height_mm(self) -> float:
        """Across it."""
        return self.y1_mm - self.y0_mm

    @property
    def bow_mm(self) -> float:
        """How far its middle leaves a straight line."""
        middle, x = (self.top_mm + self.bottom_mm) / 2, np.arange(self.top_mm.size) / PX_PER_MM
        return float(np.abs(middle - np.polyval(np.polyfit(x, middle, 1), x)).max()) if x.size > 2 else 0.0


def find_pieces(ink: Beside, raster: Raster, least_mm: tuple[float, float]) -> list[Piece]:
    """Split ink into connected pieces.

    Parameters
    ----------
    ink : Beside
    raster : Raster
    least_mm : (width, height)
        Pieces smaller than both are left out.

    Returns
    -------
    list of Piece
    """
    _, index, stats, _ = cv2.connectedComponentsWithStats(ink.left.astype(np.uint8), connectivity=8)
    off = cv2.distanceTransform((~ink.band).astype(np.uint8), cv2.DIST_L2, 5)
    sizes_mm = stats[1:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]] / PX_PER_MM
    edge_x, edge_y = raster.x_mm[0] - 0.5 / PX_PER_MM, raster.y_mm[0] - 0.5 / PX_PER_MM
    found = []
    for k in np.flatnonzero((sizes_mm >= least_mm).any(1)) + 1:
        x, y, w, h = (int(v) for v in stats[k, :4])
        box = np.s_[y : y + h, x : x + w]
        mask = index[box] == k
        top, bottom = y + mask.argmax(0), y + h - mask[::-1].argmax(0)
        found.append(
            Piece(
                columns=slice(x, x + w),
                top_mm=edge_y + top / PX_PER_MM,
                bottom_mm=edge_y + bottom / PX_PER_MM,
                x0_mm=float(edge_x + x / PX_PER_MM),
                x1_mm=float(edge_x + (x + w) / PX_PER_MM),
                seen=float(ink.seen[box][mask].mean()),
                printed=float(ink.printed[box][mask].mean()),
                letters=float(ink.letters[box][mask].mean()),
                beyond_mm=_beyond_mm(mask, ink.letters[box]),
                contrast=float(np.median(ink.contrast[box][mask])),
                returning=_returning(mask, ink, (y, x)),
                off_mm=float(off[box][mask].max()) / PX_PER_MM,
            )
        )
    return found


def _beyond_mm(mask: Mask, letters: Mask) -> float:
    """How far a piece reaches beyond the letters that it lies on, in mm; inf where it lies on none."""
    if not (mask & letters).any():
        return float("inf")
    away = cv2.distanceTransform((~letters).astype(np.uint8), cv2.DIST_L2, 3)
    return float(away[mask].max()) / PX_PER_MM


def _returning(mask: Mask, ink: Beside, corner: tuple[int, int]) -> float:
    """How dark the page is where a line of the grid would return, every 5 mm, as a share of a piece's own darkness.

    Along time for an upright piece, across it for a level one; the median counts, 0 where the record leaves too few
    places free.
    """
    (y, x), (h, w), axis = corner, mask.shape, int(mask.shape[0] >= mask.shape[1])
    own, shares = float(np.median(ink.contrast[y : y + h, x : x + w][mask])), []
    for step in (*range(-4, 0), *range(1, 5)):
        shift = round(step * GRID_MM * PX_PER_MM)
        best = 0.0
        for near in (-1, 0, 1):
            y0, x0 = (y, x + shift + near) if axis else (y + shift + near, x)
            if min(y0, x0) < 0 or y0 + h > ink.band.shape[0] or x0 + w > ink.band.shape[1]:
                break
            box = np.s_[y0 : y0 + h, x0 : x0 + w]
            free = mask & ~ink.band[box]
            if free.sum() < mask.sum() / 2:
                break
            best = max(best, float(np.median(ink.contrast[box][free])))
        else:
            shares.append(best / max(own, 1e-3))
    return float(np.median(shares)) if len(shares) >= LEAST_RETURNS else 0.0
