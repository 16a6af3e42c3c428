"""The ink audit: every stroke of ink is accounted for.

The finished record is drawn back onto its flat sheet and compared with the ink that is there, both ways (analysis by
synthesis).  Ink that is left over, and is no name, print, pulse, separator, rule or grid, is *unexplained*.  A stretch
of the record without ink under it is *unsupported*.  A stretch in which two rows follow the same ink is *shared*: one
of them is misread.  A wave that runs off the picture is *cut*: nobody knows its height.  What may be signal is
doubtful: a person must look.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import cv2
import numpy as np

from pipeline.datatypes import (
    AuditMark,
    EcgRecord,
    InkAudit,
    LayoutMatch,
    Mark,
    PulseBox,
    TextLine,
    TraceSet,
)
from pipeline.runs import runs_as_one, runs_of
from pipeline.sheet.paper import Sheet, paper_to_page
from pipeline.signal.beats import is_unlike_others
from pipeline.signal.calibrate import Redrawn, redraw
from pipeline.signal.ink import (
    PX_PER_MM,
    Beside,
    Float64,
    Ink,
    Mask,
    Piece,
    Raster,
    draw,
    find_pieces,
    find_strokes,
    look,
    print_mask,
    separator_columns,
    unread_names,
    with_letters,
)
from pipeline.signal.weights import AUDIT, AuditLimits


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Scene:
    """A record on its sheet, and the ink beside it."""

    stretches: Sequence[Redrawn]
    raster: Raster
    ink: Ink
    margin_mm: float  # of the band around the record that explains ink
    band: Mask  # (h, w) that band
    letters: Mask  # (h, w) print, with what goes on beyond its boxes
    bare: Mask  # (n_stretches, w) where the page network sees no trace under a stretch
    speed: float  # mm/s
    columns_per_mm: float  # of the stretches
    limits: AuditLimits

    @property
    def pen_mm(self) -> float:
        """Width of the pen's line, as far as it is believed."""
        return min(self.ink.pen_mm, self.limits.widest_pen_mm)

    def span_mm(self, start: int, end: int) -> tuple[float, float]:
        """Return the paper x at which columns of the raster begin and end."""
        first, last = (float(self.raster.x_mm[0]) + (edge - 0.5) / PX_PER_MM for edge in (start, end))
        return first, last

    def is_long(self, piece: Piece) -> bool:
        """Tell whether a piece lasts long enough to be signal."""
        return piece.width_mm >= self.limits.least_s * self.speed

    def time(self, stretch: Redrawn, x_mm: float) -> float:
        """Return the record's time in s at a paper x of a stretch."""
        return stretch.start_s + (x_mm - stretch.x0_mm) / self.speed


@dataclass(frozen=True, eq=False, slots=True)
class _Owner:
    """The stretch that a piece of ink most likely belongs to."""

    stretch: int
    gap_mm: float  # from its explained band
    reach_mm: float  # from its line to the farthest ink
    missing_mm2: float
    steep: bool  # the line goes up or down beside the piece
    bare: float  # share of the piece's columns in which no trace is seen under the line


def _owners(piece: Piece, scene: _Scene) -> list[_Owner]:
    """Find the owners: of the stretches that a piece touches most the one that runs towards it, else the nearest.

    A thin upright stroke may be a spike of every row that it touches: spikes of close rows run into one line.
    """
    raster = scene.raster
    top, bottom = raster.top_mm[:, piece.columns], raster.bottom_mm[:, piece.columns]
    gaps = np.maximum(np.maximum(top - piece.bottom_mm, piece.top_mm - bottom) - scene.margin_mm, 0.0)
    gap = gaps.min(1)
    if not np.isfinite(gap).any():
        return []
    touched = np.flatnonzero(gap <= gap.min() + scene.limits.touch_mm)
    contact = (gaps[touched] <= scene.limits.close_mm).sum(1)
    touched = touched[contact >= 0.7 * contact.max()]
    best = int(max(touched, key=lambda k: _towards(piece, scene, int(k))))
    thin = _upright(piece, scene) and piece.width_mm <= scene.limits.thin_mm
    others = np.flatnonzero(gap <= scene.limits.touch_mm).tolist() if thin else []
    found = [_owned(piece, scene, k, float(gap[k])) for k in (best, *(k for k in others if k != best))]
    return [owner for owner in found if owner is not None]


def _owned(piece: Piece, scene: _Scene, stretch: int, gap_mm: float) -> _Owner | None:
    """Measure a piece against a stretch; None where they share no column."""
    top, bottom = scene.raster.top_mm[stretch, piece.columns], scene.raster.bottom_mm[stretch, piece.columns]
    off = np.maximum(top - piece.top_mm, piece.bottom_mm - bottom)
    off = np.maximum(off[np.isfinite(off)], 0.0)
    if not off.size:
        return None
    columns = max(off.size - scene.ink.pen_mm * PX_PER_MM, 1.0) / off.size  # a stroke is as wide as the pen
    missing = float((off.astype(np.float64) ** 2).sum()) / PX_PER_MM * columns
    bare = float(scene.bare[stretch, piece.columns].mean())
    return _Owner(stretch, gap_mm, float(off.max()), missing, _is_steep(piece, scene, stretch), bare)


def _is_steep(piece: Piece, scene: _Scene, stretch: int) -> bool:
    """Tell whether the line of a stretch goes up or down beside a piece."""
    near = scene.raster.line_mm[stretch, _beside(piece, scene)]
    return bool(np.nanmax(near) - np.nanmin(near) > scene.limits.steep_mm)


def _beside(piece: Piece, scene: _Scene) -> slice:
    """Return the columns of a piece and those close to it."""
    reach = round(scene.limits.thin_mm * PX_PER_MM)
    return slice(max(piece.columns.start - reach, 0), piece.columns.stop + reach)


def _towards(piece: Piece, scene: _Scene, stretch: int) -> float:
    """Return how far, in mm, the line of a stretch leaves its level beside a piece, in the direction of the piece."""
    line = scene.raster.line_mm[stretch]
    near = line[_beside(piece, scene)]
    if not np.isfinite(near).any():
        return -np.inf
    level = float(np.nanmedian(line))
    above = (piece.y0_mm + piece.y1_mm) / 2 < float(np.nanmedian(near))
    return float(level - np.nanmin(near)) if above else float(np.nanmax(near) - level)


def _kind(piece: Piece, owner: _Owner, scene: _Scene) -> Mark:
    """Name a piece by its shape."""
    if piece.height_mm >= 0.8 * piece.width_mm:
        thin = piece.width_mm <= scene.limits.thin_mm and not owner.steep
        return Mark.SPIKE if thin else Mark.WAVE
    return Mark.LINE if scene.is_long(piece) else Mark.BLOT


def _upright(piece: Piece, scene: _Scene) -> bool:
    """Tell whether a piece is an upright stroke."""
    return piece.height_mm >= 2 * max(piece.width_mm, scene.limits.least_mm)


def _is_no_stroke(piece: Piece, scene: _Scene) -> bool:
    """Tell whether a piece is a line of the grid, the rest of a letter, the edge of a drawn stroke, or a ruled line."""
    limits, pen_mm = scene.limits, scene.pen_mm
    size_mm = piece.width_mm, piece.height_mm
    grid = piece.returning >= limits.returning and min(size_mm) <= limits.thin_mm
    letter = piece.letters >= limits.part_on_print and piece.beyond_mm <= limits.letter_mm
    edge = piece.off_mm <= (pen_mm if max(size_mm) <= 2 * pen_mm else (pen_mm + 1 / PX_PER_MM) / 2)
    ruled = min(size_mm) >= limits.ruled_mm and piece.bow_mm <= limits.bow_mm
    return grid or letter or edge or ruled


def _doubtful(kind: Mark, piece: Piece, owner: _Owner, scene: _Scene) -> bool:
    """Tell whether a piece may be signal: it belongs to a row, and is tall or long enough to matter."""
    limits = scene.limits
    touches = owner.gap_mm <= (limits.touch_mm if _upright(piece, scene) else limits.close_mm)
    edges_mm = scene.raster.x_mm[0] + limits.edge_mm, scene.raster.x_mm[-1] - limits.edge_mm
    outside = piece.columns.start == 0 or piece.columns.stop == scene.raster.x_mm.size
    if outside or piece.x1_mm < edges_mm[0] or piece.x0_mm > edges_mm[1]:
        return False  # where the rows start and end: the flank of a pulse, a frame
    if _is_no_stroke(piece, scene):
        return False
    if piece.width_mm > limits.thin_mm and piece.contrast < limits.shadow * scene.ink.pen_contrast:
        return False  # the shadow of a fold
    instead = owner.bare >= limits.bare and owner.reach_mm <= limits.lost_mm and piece.seen >= limits.bare
    if instead and scene.is_long(piece):
        return True  # the trace runs here, and not where the record has it
    if kind is Mark.LINE:
        level = piece.height_mm <= limits.thin_mm / 2  # a line of the grid, if it is short
        beside = touches and not level and owner.reach_mm >= limits.least_mm
        return beside or piece.width_mm >= limits.long_mm
    least_mm = limits.least_mv * abs(scene.stretches[owner.stretch].mm_per_mv)
    return touches and owner.reach_mm >= least_mm and piece.height_mm >= min(limits.least_mm, 0.5 * least_mm)


def _unexplained(pieces: Sequence[Piece], scene: _Scene) -> Iterator[AuditMark]:
    """List the pieces of ink that belong to a row; what lies on print, or is dark but seen as no trace, is left out."""
    limits = scene.limits
    for piece in pieces:
        if piece.printed > limits.on_print:
            continue
        for owner in _owners(piece, scene):
            kind = _kind(piece, owner, scene)
            stands = _upright(piece, scene) and owner.gap_mm <= limits.touch_mm
            if piece.seen < limits.least_seen and not stands:
                continue
            one = scene.stretches[owner.stretch]
            yield AuditMark(
                kind=kind,
                lead=one.lead,
                start_s=scene.time(one, piece.x0_mm),
                end_s=scene.time(one, piece.x1_mm),
                x0_mm=piece.x0_mm,
                y0_mm=piece.y0_mm,
                x1_mm=piece.x1_mm,
                y1_mm=piece.y1_mm,
                reach_mm=owner.reach_mm,
                missing_mm2=owner.missing_mm2,
                doubtful=_doubtful(kind, piece, owner, scene),
            )


def _gaps(scene: _Scene) -> Iterator[AuditMark]:
    """List where the page network sees a trace beside the record, and the record has a gap or no trace under it."""
    raster, limits = scene.raster, scene.limits
    columns = np.arange(raster.x_mm.size)
    for one, line, bare in zip(scene.stretches, raster.line_mm, scene.bare, strict=True):
        known = np.isfinite(line)
        if not known.any():
            continue
        inside = (raster.x_mm >= one.x0_mm) & (raster.x_mm <= one.x1_mm)
        inner = (raster.x_mm >= one.x0_mm + limits.edge_mm) & (raster.x_mm <= one.x1_mm - limits.edge_mm)
        level = np.interp(columns, columns[known], line[known])
        runs = [(True, *run) for run in runs_of(inside & ~known)] + [(False, *run) for run in runs_of(inner & bare)]
        for gap, start, end in runs:
            x0, x1 = scene.span_mm(start, end)
            y0, y1 = float(level[start:end].min()) - limits.lost_mm, float(level[start:end].max()) + limits.lost_mm
            rows = raster.box(x0, y0, x1, y1)[0]
            ink = (scene.ink.trace[rows, start:end] > limits.sure) & ~scene.band[rows, start:end]
            ink &= gap | ~scene.letters[rows, start:end]
            hidden_mm = 0.0 if gap else 2 * limits.sideways_mm  # by the steps at both ends
            least = limits.seen_in_gap if gap else limits.bare
            if x1 - x0 >= limits.least_s * scene.speed - hidden_mm and ink.any(0).mean() > least:
                off = (ink * np.abs(raster.y_mm[rows, None] - level[start:end])).max(0)
                yield AuditMark(
                    kind=Mark.LINE,
                    lead=one.lead,
                    start_s=scene.time(one, x0),
                    end_s=scene.time(one, x1),
                    x0_mm=x0,
                    y0_mm=y0,
                    x1_mm=x1,
                    y1_mm=y1,
                    reach_mm=float(off.max()),
                    missing_mm2=float((off.astype(np.float64) ** 2).sum()) / PX_PER_MM,
                    doubtful=True,
                )


def _nothing_under(there: Mask, raster: Raster, margin_mm: float) -> Mask:
    """Mark where a stretch has nothing of `there` under it, within a margin: (n_stretches, w)."""
    count = np.zeros((there.shape[0] + 1, there.shape[1]), np.int32)
    np.cumsum(there, axis=0, out=count[1:])
    first, stop = raster.rows_within(margin_mm)
    columns = np.arange(there.shape[1])
    return np.asarray(np.isfinite(raster.line_mm) & (count[stop, columns] == count[first, columns]))


def _of_line(kind: Mark, one: Redrawn, scene: _Scene, x_mm: tuple[float, float], y_mm: Float64) -> AuditMark:
    """Mark a stretch of the record between two paper x; `y_mm` is its line there."""
    return AuditMark(
        kind=kind,
        lead=one.lead,
        start_s=scene.time(one, x_mm[0]),
        end_s=scene.time(one, x_mm[1]),
        x0_mm=x_mm[0],
        y0_mm=float(np.nanmin(y_mm)),
        x1_mm=x_mm[1],
        y1_mm=float(np.nanmax(y_mm)),
        reach_mm=x_mm[1] - x_mm[0],
        missing_mm2=0.0,
        doubtful=True,
    )


def _unsupported(scene: _Scene) -> Iterator[AuditMark]:
    """List the stretches of the record without ink under them."""
    limits, ink, raster = scene.limits, scene.ink, scene.raster
    there = (ink.trace > limits.hint) | (ink.text > limits.hint)
    there = np.asarray(there | (ink.contrast > limits.supported * ink.pen_contrast))
    nothing = _nothing_under(there, raster, scene.margin_mm)
    for one, line, bare in zip(scene.stretches, raster.line_mm, nothing, strict=True):
        for start, end in runs_of(bare):
            x0, x1 = scene.span_mm(start, end)
            if x1 - x0 >= limits.least_s * scene.speed:
                yield _of_line(Mark.UNSUPPORTED, one, scene, (x0, x1), line[start:end])
    yield from _bare_limbs(scene, there)


def _bare_limbs(scene: _Scene, there: Mask) -> Iterator[AuditMark]:
    """List the steep strokes of the record without ink beside them: up and down they are long, along time short."""
    limits, raster = scene.limits, scene.raster
    size = 2 * round(scene.margin_mm * PX_PER_MM) + 1
    near = cv2.dilate(there.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))) > 0
    for one in scene.stretches:
        known = np.flatnonzero(np.isfinite(one.y_mm))
        if not known.size:
            continue
        x_mm, y_mm = one.x0_mm + known / scene.columns_per_mm, one.y_mm[known]
        along = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x_mm), np.diff(y_mm)) * (np.diff(known) == 1))])
        at = np.arange(0.0, along[-1], limits.step_mm)
        x_mm, y_mm = np.interp(at, along, x_mm), np.interp(at, along, y_mm)
        columns = np.clip((x_mm - raster.x_mm[0]) * PX_PER_MM, 0, raster.x_mm.size - 1).round().astype(np.intp)
        rows = ((y_mm - raster.y_mm[0]) * PX_PER_MM).round().astype(np.intp)
        inside = (rows >= 0) & (rows < raster.y_mm.size)
        bare = np.zeros(at.size, bool)  # what the sheet does not show is not bare
        bare[inside] = ~near[rows[inside], columns[inside]]
        for start, end in runs_of(bare):
            span_mm = float(x_mm[start]), float(x_mm[end - 1])
            short = span_mm[1] - span_mm[0] < limits.least_s * scene.speed
            if short and (end - start) * limits.step_mm >= limits.path_mm:
                yield _of_line(Mark.UNSUPPORTED, one, scene, span_mm, y_mm[start:end])


def _on_print(scene: _Scene, printed: Mask) -> Iterator[AuditMark]:
    """List where the record follows the strokes of print up or down, and no other beat goes that way."""
    raster, limits = scene.raster, scene.limits
    columns = np.arange(raster.x_mm.size)
    for one, line in zip(scene.stretches, raster.line_mm, strict=True):
        rows = np.clip(np.nan_to_num((line - raster.y_mm[0]) * PX_PER_MM).round(), 0, raster.y_mm.size - 1)
        at = rows.astype(np.intp), columns
        letters = np.isfinite(line) & (scene.ink.text[at] > limits.letters) & (scene.ink.trace[at] < limits.letters)
        letters &= printed[at]
        for start, end in runs_of(letters):
            y = line[start:end]
            bow = np.abs(y - np.linspace(y[0], y[-1], y.size)).max()
            if end - start < limits.along_mm * PX_PER_MM or bow < limits.along_bow_mm:
                continue
            if is_unlike_others(-line, PX_PER_MM, start, end):
                yield _of_line(Mark.PRINT, one, scene, scene.span_mm(start, end), y)


def _cut(scene: _Scene, sheet: Sheet) -> Iterator[AuditMark]:
    """List where the record runs off the picture, and the gaps of the record behind such places."""
    raster = scene.raster
    height, width = sheet.page.pixels.shape[:2]
    for k, one in enumerate(scene.stretches):
        line = raster.line_mm[k]
        known = np.flatnonzero(np.isfinite(line))
        if not known.size:
            continue
        off = np.zeros(known.size, bool)
        for outward in (raster.top_mm[k, known] - scene.pen_mm / 2, raster.bottom_mm[k, known] + scene.pen_mm / 2):
            x_px, y_px = paper_to_page(sheet.rectified, np.column_stack([raster.x_mm[known], outward])).T
            off |= (x_px < 0) | (y_px < 0) | (x_px > width - 1) | (y_px > height - 1)
        outside = np.interp(np.arange(line.size), known, off, left=0, right=0) > 0
        for start, end in runs_of(outside):
            yield _of_line(Mark.CUT, one, scene, scene.span_mm(start, end), line[start:end])


def _shared(stretches: Sequence[Redrawn], traces: TraceSet, speed: float, limits: AuditLimits) -> Iterator[AuditMark]:
    """List where the traced lines of two rows follow the same ink, for both leads; a drawing's own lines may touch."""
    lines = np.where(traces.drawn(), np.nan, traces.row_mm)
    for pair in combinations(stretches, 2):
        first = max(one.first for one in pair)
        size = min(one.first + one.y_mm.size for one in pair) - first
        if pair[0].row == pair[1].row or size <= 0:
            continue
        rows = np.stack([lines[one.row, first : first + size] for one in pair])
        shortest = limits.shared_mm * traces.columns_per_mm
        for start, end in runs_as_one(rows[0], rows[1], near=limits.as_one_mm, shortest=shortest):
            x0, x1 = (traces.x0_mm + (first + edge - 0.5) / traces.columns_per_mm for edge in (start, end))
            for one, other in (pair, pair[::-1]):
                yield AuditMark(
                    kind=Mark.SHARED,
                    lead=one.lead,
                    start_s=one.start_s + (x0 - one.x0_mm) / speed,
                    end_s=one.start_s + (x1 - one.x0_mm) / speed,
                    x0_mm=x0,
                    y0_mm=float(rows[:, start:end].min()),
                    x1_mm=x1,
                    y1_mm=float(rows[:, start:end].max()),
                    reach_mm=x1 - x0,
                    missing_mm2=0.0,
                    doubtful=True,
                    other=other.lead,
                )


def audit(
    sheet: Sheet,
    record: EcgRecord,
    match: LayoutMatch,
    traces: TraceSet,
    pulses: Sequence[PulseBox],
    text: Sequence[TextLine],
    *,
    limits: AuditLimits = AUDIT,
) -> InkAudit:
    """Compare a record with the ink of its sheet.

    Parameters
    ----------
    sheet : Sheet
    record : EcgRecord
    match : LayoutMatch
    traces : TraceSet
        The rows the record was made of.
    pulses : sequence of PulseBox
        Calibration pulses, which are no signal.
    text : sequence of TextLine
        Print, which is none either.
    limits : AuditLimits

    Returns
    -------
    InkAudit
    """
    stretches = redraw(record, match, traces)
    if not stretches:
        return InkAudit()
    raster = draw(sheet, stretches, match, traces, limits)
    ink = look(sheet, raster)
    strokes = find_strokes(ink, raster, limits)
    printed = print_mask(raster, match, pulses, text)
    letters = with_letters(printed, unread_names(raster, match, traces, limits), ink.text, limits)
    margin_mm = min(ink.pen_mm, limits.widest_pen_mm) / 2 + limits.upward_mm
    scene = _Scene(
        stretches=stretches,
        raster=raster,
        ink=ink,
        margin_mm=margin_mm,
        band=raster.band(margin_mm),
        letters=letters,
        bare=_nothing_under(np.asarray(ink.trace > limits.hint), raster, margin_mm),
        speed=record.calibration.paper_speed_mm_per_s,
        columns_per_mm=traces.columns_per_mm,
        limits=limits,
    )
    left = (strokes.seen | ((strokes.dark | strokes.thin) & ~printed)) & ~scene.band
    levels_mm = [float(traces.baseline_mm[one.row]) for one in stretches]
    left[:, separator_columns(left, raster, match, levels_mm, limits)] = False
    least_mm = (limits.least_s * scene.speed, 0.6 * limits.least_mm)
    beside = Beside(
        left=left,
        seen=strokes.seen,
        printed=printed,
        letters=letters,
        band=scene.band,
        contrast=ink.contrast,
    )
    pieces = find_pieces(beside, raster, least_mm)
    marks = [
        *_unexplained(pieces, scene),
        *_gaps(scene),
        *_unsupported(scene),
        *_on_print(scene, beside.printed),
        *_cut(scene, sheet),
    ]
    marks += _shared(stretches, traces, scene.speed, limits)
    marks.sort(key=lambda mark: (not mark.doubtful, -mark.missing_mm2, -mark.reach_mm))
    return InkAudit(pen_mm=ink.pen_mm, marks=tuple(marks))


def lower_confidence(record: EcgRecord, found: InkAudit, *, limits: AuditLimits = AUDIT) -> EcgRecord:
    """Lower the confidence of the samples beside which the audit found something doubtful.

    Parameters
    ----------
    record : EcgRecord
    found : InkAudit
        Of the record.
    limits : AuditLimits

    Returns
    -------
    EcgRecord
    """
    confidence = record.confidence.copy()
    for mark in found.marks:
        if mark.doubtful:
            first = int(mark.start_s * record.sampling_frequency_hz)
            stop = int(np.ceil(mark.end_s * record.sampling_frequency_hz)) + 1
            part = confidence[record.leads.index(mark.lead), max(first, 0) : max(stop, 0)]
            np.minimum(part, limits.doubtful_confidence, out=part)
    return replace(record, confidence=confidence)
