"""Page -> TextLine: what is printed beside the traces (names, measurements, "25 mm/s 10 mm/mV").

The page network has already said where print is; only there the recogniser looks, at the page's own pixels, sampled
upright through the lattice.  Lines are found on the sheet in millimetres: letters are 1.2 to 6 mm tall and close to
each other, while calibration pulses and separators stand taller and rules run longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.datatypes import ByteArray, StatedScale, TextLine
from pipeline.printing.recogniser import LINE_HEIGHT_PX, Recogniser
from pipeline.printing.statements import stated_scale
from pipeline.printing.weights import TEXT
from pipeline.runs import runs_of
from pipeline.sheet.paper import Sheet, page_to_paper, raster
from pipeline.threads import side_by_side

Mask = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TextRegion:
    """Where a line of print stands on the sheet, in mm."""

    x0_mm: float
    y0_mm: float
    x1_mm: float
    y1_mm: float

    @property
    def width_px(self) -> float:
        """Width of the picture that the recogniser will see; its time grows with it."""
        return LINE_HEIGHT_PX * (self.x1_mm - self.x0_mm) / (self.y1_mm - self.y0_mm)


def _bounds(sheet: Sheet) -> tuple[float, float, float, float]:
    """Bounds of the picture on the paper (x0, y0, x1, y1) in mm: headers stand outside the grid's canvas."""
    rectified = sheet.rectified
    h, w = sheet.page.pixels.shape[:2]
    corners = page_to_paper(rectified, np.array([[0, 0], [w - 1, 0], [0, h - 1], [w - 1, h - 1]], np.float64))
    size = np.array(rectified.pixels.shape[1::-1]) / rectified.px_per_mm
    low = np.maximum(np.nan_to_num(corners.min(0), nan=0.0), -TEXT.beyond_mm)
    high = np.minimum(np.nan_to_num(corners.max(0), nan=0.0), size + TEXT.beyond_mm)
    x0, y0 = np.minimum(low, 0.0)
    x1, y1 = np.maximum(high, size)
    return float(x0), float(y0), float(x1), float(y1)


@dataclass(frozen=True, eq=False, slots=True)
class Seen:
    """The maps of the page network through the lattice, headers and footers included."""

    x0_mm: float
    y0_mm: float
    y_mm: Float64  # (h,) of the middles of its pixels
    text: ByteArray  # (h, w)
    trace: ByteArray  # (h, w)


def look(sheet: Sheet) -> Seen:
    """See the maps of the page network on all of the picture."""
    x0, y0, x1, y1 = _bounds(sheet)
    y_mm = raster(y0, y1, TEXT.px_per_mm)
    seen = sheet.ink(raster(x0, x1, TEXT.px_per_mm), y_mm)
    return Seen(x0, y0, y_mm, seen[..., 0], seen[..., 1])


def _print_mask(seen: Seen, as_trace: bool) -> Mask:
    """Mark print (h, w); tall strokes and long rules left out.

    What may have been taken for trace counts with `as_trace`, near the upper and lower edge.
    """
    text, trace, y_mm = seen.text, seen.trace, seen.y_mm
    if as_trace:
        outer = np.minimum(y_mm - y_mm[0], y_mm[-1] - y_mm) < TEXT.outer_mm
        likely = (trace > 255 * TEXT.likely) & outer[:, None]
    else:
        likely = (text > 255 * TEXT.likely) | ((text > 255 * TEXT.faint) & (text > trace))
        likely &= text >= TEXT.beside_letters * _highest_near(text, TEXT.near_mm)
    mask = likely.astype(np.uint8)
    strokes = np.zeros(mask.shape, bool)
    tall_px, long_px = round(TEXT.stroke * TEXT.most_mm * TEXT.px_per_mm), round(TEXT.rule_mm * TEXT.px_per_mm)
    for kernel in (np.ones((tall_px, 1)), np.ones((1, long_px))):
        strokes |= cv2.morphologyEx(mask, cv2.MORPH_OPEN, kernel.astype(np.uint8)) > 0
    strokes = cv2.dilate(strokes.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return np.asarray((mask > 0) & ~strokes)


def _highest_near(text: ByteArray, near_mm: float) -> ByteArray:
    """Return the highest probability of print (h, w) within so many millimetres: beside letters grid lines fall off."""
    side_px = 2 * round(near_mm * TEXT.px_per_mm) + 1
    return np.asarray(cv2.dilate(text, np.ones((side_px, side_px), np.uint8)))


def _rows(ink: Mask, least_px: float) -> list[tuple[int, int]]:
    """Cut a block of print (h, w) into its lines: where hardly any ink stands between two of them.

    Each line then reaches to the last ink that is nearer to it than to its neighbours: ascenders are few.
    """
    profile = ink.sum(1)
    full = profile > TEXT.hollow * np.sort(profile)[-max(1, profile.size // 4) :].mean()
    cores = [(a, b) for a, b in runs_of(full) if b - a >= least_px / 2]
    middles = [(a[1] + b[0]) // 2 for a, b in pairwise(cores)]
    rows = []
    for top, bottom in zip([0, *middles], [*middles, profile.size], strict=True):
        inked = np.flatnonzero(profile[top:bottom])
        if inked.size and inked[-1] + 1 - inked[0] >= least_px:
            rows.append((top + int(inked[0]), top + int(inked[-1]) + 1))
    return rows


def find_text(seen: Seen, *, as_trace: bool = False) -> tuple[TextRegion, ...]:
    """Find the lines of print on the sheet, top to bottom; `as_trace`: what looks like them and was taken for trace."""
    px_per_mm, least_px = TEXT.px_per_mm, TEXT.least_mm * TEXT.px_per_mm
    x0, y0 = seen.x0_mm, seen.y0_mm
    mask = _print_mask(seen, as_trace)
    joined = cv2.morphologyEx(
        mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((1, round(TEXT.gap_mm * TEXT.px_per_mm)), np.uint8)
    )
    _, index, stats, _ = cv2.connectedComponentsWithStats(joined)
    regions = []
    for k in np.flatnonzero(stats[:, cv2.CC_STAT_HEIGHT] >= least_px):
        left, top, width, height = stats[k, :4]
        if k == 0:
            continue
        window = slice(top, top + height), slice(left, left + width)
        ink = mask[window] & (index[window] == k)
        for first, stop in _rows(ink, least_px):
            columns = np.flatnonzero(ink[first:stop].any(0))
            if stop - first > TEXT.most_mm * px_per_mm:
                continue
            regions.append(
                TextRegion(
                    x0_mm=x0 + float(left + columns[0]) / px_per_mm,
                    y0_mm=y0 + float(top + first) / px_per_mm,
                    x1_mm=x0 + float(left + columns[-1] + 1) / px_per_mm,
                    y1_mm=y0 + float(top + stop) / px_per_mm,
                )
            )
    return tuple(sorted(regions, key=lambda region: region.y0_mm))


def _crop(sheet: Sheet, region: TextRegion) -> ByteArray:
    """Sample a line of print from the page, upright, with a little paper around it."""
    pad_mm = 0.15 * (region.y1_mm - region.y0_mm) + 0.15
    px_per_mm = LINE_HEIGHT_PX / (region.y1_mm - region.y0_mm + 2 * pad_mm)
    height_mm = region.y1_mm - region.y0_mm
    # A statement may have lost a faint letter at its ends; a name stands alone, among traces.
    ends_mm = 0.8 * height_mm if region.x1_mm - region.x0_mm > 4 * height_mm else 2 * pad_mm
    x_mm = raster(region.x0_mm - ends_mm, region.x1_mm + ends_mm, px_per_mm)
    y_mm = raster(region.y0_mm - pad_mm, region.y1_mm + pad_mm, px_per_mm)
    return sheet.pixels(x_mm, y_mm)


def read_text(
    sheet: Sheet,
    recogniser: Recogniser,
    *,
    most_px: float = TEXT.most_px,
) -> tuple[TextLine, ...]:
    """Read what is printed on a page.

    Parameters
    ----------
    sheet : Sheet
        Turned upright.  Its text map says where print is.
    recogniser : Recogniser
    most_px : float
        Bound on the width of all lines together at the recogniser's scale, which bounds the time.  Lines nearest to the
        top and bottom edge come first: speed and gain stand there.

    Returns
    -------
    tuple of TextLine
        Top to bottom.  Where no speed and no gain is stated in print, a statement that the page network took for trace
        is looked for beside the upper and lower edge.  It may hold the patient's name: never to be logged.
    """
    seen = look(sheet)
    lines = _read(sheet, recogniser, find_text(seen), most_px)
    if stated_scale(lines) == StatedScale():
        taken_for_trace = [one for one in find_text(seen, as_trace=True) if one.width_px > TEXT.statement_px]
        again = _read(sheet, recogniser, taken_for_trace, TEXT.most_again_px)
        lines += [line for line in again if stated_scale([line]) != StatedScale()]
    return tuple(sorted(lines, key=lambda line: (line.y0_mm, line.x0_mm)))


def _read(sheet: Sheet, recogniser: Recogniser, regions: Sequence[TextRegion], most_px: float) -> list[TextLine]:
    """Read lines of print that lie from top to bottom, those nearest to the edges first, `most_px` of them at most."""
    if not regions:
        return []
    middle_mm = (regions[0].y0_mm + regions[-1].y1_mm) / 2
    outermost = sorted(regions, key=lambda region: -abs((region.y0_mm + region.y1_mm) / 2 - middle_mm))
    spent_px = accumulate(region.width_px for region in outermost)
    chosen = [region for region, spent in zip(outermost, spent_px, strict=True) if spent <= most_px]
    lines = []
    read = side_by_side(lambda region: recogniser.read(_crop(sheet, region)), chosen)
    for region, (text, sure) in zip(chosen, read, strict=True):
        score = float(np.mean(sure)) if sure else 0.0
        if score >= TEXT.least_score:
            lines.append(
                TextLine(
                    text=text,
                    x0_mm=region.x0_mm,
                    y0_mm=region.y0_mm,
                    x1_mm=region.x1_mm,
                    y1_mm=region.y1_mm,
                    score=score,
                    sure=sure,
                )
            )
    return lines
