"""What is known of a drawn page, in the words of the stages: its rows, columns, layout and sheet, in any frame.

The page frame is shared by what was drawn and what was found, so truth passes from the drawn sheet to the found one
through page pixels.

What is taken out of a digitized record is known as well: `measure_audit` tells what of it the ink audit finds.  So is
what a header states: `print_table` tells what of it was read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from rich.table import Table
from scipy.ndimage import maximum_filter1d, minimum_filter1d

from pipeline.datatypes import (
    LEADS,
    EcgRecord,
    FloatArray,
    GridScale,
    InkAudit,
    Layout,
    LayoutMatch,
    Lead,
    PageImage,
    PrintedValues,
    RectifiedPage,
    RowBand,
    TraceSet,
    in_order,
)
from pipeline.digitizer import Digitizer
from pipeline.errors import DigitizationError
from pipeline.networks.specification import ROW_COLUMNS_PER_MM
from pipeline.runs import runs_of
from pipeline.sheet.paper import page_to_paper
from pipeline.training.drawing.render import Picture

Points = npt.NDArray[np.floating[Any]]
NODE_MM = 5.0
_NOT_DRAWN = ("may_be_recorded_on", "filters", "device", "reasons")  # by `training.drawing.headers`
_SAMPLE_S = 1 / 500


def same_print(found: Layout, rhythm: tuple[object, ...], drawn: Layout) -> bool:
    """Tell whether two layouts print the same leads at the same places, however they are named.

    Lengths of columns are left out (a page may show less), and a single column is as well sequential as not.
    """
    return (
        found.rows == drawn.rows
        and found.inverted & set(found.leads) == drawn.inverted & set(drawn.leads)
        and rhythm == drawn.rhythm
        and (len(drawn.rows[0]) == 1 or found.sequential == drawn.sequential)
    )


@dataclass(frozen=True, eq=False)
class Drawn:
    """A drawn page as the stages would see it if none of them erred."""

    picture: Picture

    @cached_property
    def image(self) -> PageImage:
        """The picture as a page."""
        return PageImage(pixels=self.picture.pixels)

    def paper(self, xy_px: Points) -> FloatArray:
        """Drawn paper points (n, 2) mm under page pixels (n, 2), continued straight outside the picture."""
        h, w = self.picture.paper_mm.shape[:2]
        inside = np.clip(np.nan_to_num(xy_px), 0, [w - 1, h - 1]).astype(np.float32)
        known = cv2.remap(self.picture.paper_mm, inside[:, None, 0], inside[:, None, 1], cv2.INTER_LINEAR)[:, 0]
        return np.asarray(known + (xy_px - inside) @ self._affine[:2], np.float32)

    def pixels(self, xy_mm: Points, *, iterations: int = 15) -> Points:
        """Page pixels (n, 2) of drawn paper points (n, 2) mm, both (x, y)."""
        back = np.linalg.inv(self._affine[:2])
        xy_px = (xy_mm - self._affine[2]) @ back
        for _ in range(iterations):
            xy_px = xy_px + (xy_mm - self.paper(xy_px)) @ back
        result: Points = xy_px
        return result

    @cached_property
    def _affine(self) -> npt.NDArray[np.float64]:
        """Best affine map of the picture, (3, 2): (x px, y px, 1) @ map = paper mm."""
        h, w = self.picture.paper_mm.shape[:2]
        j, i = (
            v.ravel() for v in np.meshgrid(np.linspace(0, w - 1, 20, dtype=int), np.linspace(0, h - 1, 20, dtype=int))
        )
        solution = np.linalg.lstsq(np.column_stack([j, i, np.ones(j.size)]), self.picture.paper_mm[i, j], rcond=None)
        return np.asarray(solution[0], np.float64)

    @cached_property
    def sheet(self) -> RectifiedPage:
        """The drawn sheet, flattened without error; its canvas is empty."""
        style = self.picture.page.style
        n_i, n_j = (int(np.ceil(side / NODE_MM)) + 1 for side in (style.height_mm, style.width_mm))
        i, j = np.mgrid[:n_i, :n_j]
        nodes = self.pixels(np.stack([j.ravel(), i.ravel()], -1) * NODE_MM).reshape(n_i, n_j, 2)
        scale = self.picture.px_per_mm
        return RectifiedPage(
            node_xy=nodes.astype(np.float32),
            node_mm=NODE_MM,
            pixels=np.zeros((1, 1, 3), np.uint8),
            px_per_mm=scale,
            grid_scale=GridScale(px_per_mm_x=scale, px_per_mm_y=scale, score=1.0, source="grid"),
            homography=np.diag([scale, scale, 1.0]),
        )

    def _in(self, frame: RectifiedPage | None, xy_mm: Points) -> Points:
        """Drawn paper points in the paper frame that was found; None: in the drawn one."""
        return np.asarray(xy_mm) if frame is None else page_to_paper(frame, self.pixels(xy_mm))

    def rows(self, frame: RectifiedPage | None = None) -> tuple[RowBand, ...]:
        """Every row that was drawn, top to bottom as drawn.

        In the drawn frame they start half a column early, so that the tracer's columns fall on the drawn samples: half
        a sample off, which no shift by whole samples corrects, a sharp QRS scores 24 dB.
        """
        early = 0.5 / ROW_COLUMNS_PER_MM if frame is None else 0.0
        bands = []
        for row in self.picture.page.rows:
            x = np.linspace(row.segments[0].x0_mm, row.segments[-1].x1_mm, 20)
            at = self._in(frame, np.column_stack([x, np.full(x.size, row.baseline_mm)]))
            ends = np.sort(at[[0, -1], 0])
            bands.append(
                RowBand(
                    baseline_mm=float(np.median(at[:, 1])),
                    x0_mm=float(ends[0]) - early,
                    x1_mm=float(ends[1]),
                )
            )
        return tuple(bands)

    def match(self, traces: TraceSet, frame: RectifiedPage | None = None) -> LayoutMatch:
        """Return the layout as drawn, its rows looked up among `traces` and its columns in the given frame."""
        page = self.picture.page
        segments = max((row.segments for row in page.rows), key=len)
        middle = float(np.mean([row.baseline_mm for row in page.rows]))
        step = page.style.speed_mm_per_s * _SAMPLE_S
        edges = np.array([[s.x0_mm, s.x1_mm + step] for s in segments]).ravel()
        x = self._in(frame, np.column_stack([edges, np.full(edges.size, middle)]))[:, 0].reshape(-1, 2)
        return LayoutMatch(
            layout=page.layout,
            cost=0.0,
            score=1.0,
            certain=True,
            labels=(),
            rhythm=page.layout.rhythm,
            row_index=self.row_index(traces, frame),
            column_mm=tuple((float(start), float(end)) for start, end in x),
        )

    def row_index(self, traces: TraceSet, frame: RectifiedPage | None = None) -> tuple[int, ...]:
        """Traced row of every drawn row: the nearest baseline, at most a third of the rows' distance off; else -1."""
        drawn = np.array([row.baseline_mm for row in self.rows(frame)])
        reach = max(3.0, float(np.median(np.abs(np.diff(drawn)))) / 3) if drawn.size > 1 else 8.0
        distance = np.abs(drawn[:, None] - traces.baseline_mm[None, :])
        index = np.full(drawn.size, -1)
        while distance.size and distance.min() <= reach:
            row, found = np.unravel_index(int(distance.argmin()), distance.shape)
            index[row] = found
            distance[row], distance[:, found] = np.inf, np.inf
        return tuple(int(k) for k in index)

    def lines(self, traces: TraceSet) -> TraceSet:
        """Return the lines that were drawn on the columns of `traces`, which lie in the drawn frame."""
        at = traces.x0_mm + np.arange(traces.row_mm.shape[1]) / traces.columns_per_mm
        rows = self.picture.page.rows
        y = np.stack([np.interp(at, row.x_mm, row.y_mm, left=np.nan, right=np.nan) for row in rows]).astype(np.float32)
        return TraceSet(
            row_mm=y,
            confidence=np.isfinite(y).astype(np.float32),
            baseline_mm=np.array([row.baseline_mm for row in rows], np.float32),
            x0_mm=traces.x0_mm,
            columns_per_mm=traces.columns_per_mm,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Omission:
    """Something that is printed and not in the record."""

    kind: str  # "cut wave" | "level half" | "shifted" | "gap" | "lost spike"
    lead: Lead
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPage:
    """What the audit says of one drawn page."""

    name: str
    right: bool  # the record is within 0.3 mV of what was drawn, without a gap
    held: bool  # the audit found something doubtful before anything was taken out
    scribbled: bool  # a hand or a stamp drew on the page, so ink that is in no record is there
    omissions: tuple[tuple[Omission, bool], ...]  # each with whether it was found


def _within(signal: FloatArray, other: FloatArray, limit_mv: float, reach: int = 12) -> bool:
    """Tell whether a signal (n,) stays near another one, up to `reach` samples beside each sample."""
    size = 2 * reach + 1
    high = maximum_filter1d(np.nan_to_num(other, nan=-np.inf), size)
    low = minimum_filter1d(np.nan_to_num(other, nan=np.inf), size)
    known = np.isfinite(signal) & np.isfinite(high) & np.isfinite(low)
    return bool(((signal <= high + limit_mv) & (signal >= low - limit_mv))[known].all())


def is_right(
    record: EcgRecord,
    truth_mv: FloatArray,
    leads: Sequence[Lead] = LEADS,
    *,
    limit_mv: float = 0.3,
    gap_s: float = 0.1,
) -> bool:
    """Tell whether a record is within `limit_mv` of what was drawn and has no gap of `gap_s`, in every lead drawn."""
    for read, drawn in zip(in_order(record.signal_mv, record.leads, leads), truth_mv, strict=True):
        n = min(read.size, drawn.size)
        read, drawn = read[:n], drawn[:n]
        printed, both = np.isfinite(drawn), np.isfinite(read) & np.isfinite(drawn)
        gaps = [stop - start for start, stop in runs_of(printed & ~np.isfinite(read))]
        if max(gaps, default=0) >= gap_s * record.sampling_frequency_hz:
            return False
        if both.any():
            level = read - np.median(read[both] - drawn[both])
            if not (_within(level, drawn, limit_mv) and _within(drawn, level, limit_mv)):
                return False
    return True


def lost_spikes(record: EcgRecord, picture: Picture, *, least_mv: float = 0.3) -> list[Omission]:
    """List the pacing spikes of a drawn page that came back with less than half their height."""
    rate, found = record.sampling_frequency_hz, []
    for spike in picture.page.spikes:
        read = record.signal_mv[record.leads.index(spike.lead)]
        near, around = (read[max(spike.sample - k, 0) : spike.sample + k + 1] for k in (8, 25))
        if abs(spike.height_mv) >= least_mv and np.isfinite(near).any():
            height_mv = np.sign(spike.height_mv) * (near - np.nanmedian(around))
            if np.nanmax(height_mv) < abs(spike.height_mv) / 2:
                time_s = spike.sample / rate
                found.append(Omission(kind="lost spike", lead=spike.lead, start_s=time_s, end_s=time_s))
    return found


def take_out(
    record: EcgRecord, leads: Sequence[Lead], rng: np.random.Generator, *, least_mv: float = 0.3
) -> Iterator[tuple[Omission, EcgRecord]]:
    """Take something out of a record in four ways, each in a random lead.

    Parameters
    ----------
    record : EcgRecord
    leads : sequence of Lead
        Where it may be taken.
    rng : Generator
        All chance comes from it.
    least_mv : float
        A wave is cut by more than that, and a stretch is shifted by more.

    Yields
    ------
    tuple of Omission and EcgRecord
        What is missing, and the record without it.
    """
    rate = record.sampling_frequency_hz
    for kind in ("cut wave", "level half", "shifted", "gap"):
        lead = leads[int(rng.integers(len(leads)))]
        signal = record.signal_mv.copy()
        line = signal[record.leads.index(lead)]
        first, stop = max(runs_of(np.isfinite(line)), key=lambda run: run[1] - run[0], default=(0, 0))
        part = line[first:stop]
        if part.size < rate:
            continue
        length = int(rng.integers(round(0.12 * rate), round(0.6 * rate)))
        start = int(
            rng.integers(round(0.15 * rate), max(part.size - length - round(0.15 * rate), round(0.15 * rate) + 1))
        )
        if kind == "cut wave":
            sign = np.sign(part[int(np.abs(part).argmax())])
            height_mv = float(np.abs(part).max())
            kept_mv = height_mv - float(rng.uniform(least_mv, max(0.7 * height_mv, least_mv)))
            if kept_mv < 0.1:
                continue
            cut = np.flatnonzero(sign * part > kept_mv)  # of every beat that is as tall
            start, length = int(cut[0]), int(cut[-1] - cut[0]) + 1
            part[cut] = sign * kept_mv
        elif kind == "level half":
            start, length = part.size // 2, part.size - part.size // 2
            if np.ptp(part[start:]) < 2 * least_mv:
                continue
            part[start:] = np.median(part)
        elif kind == "shifted":
            part[start : start + length] += np.float32(rng.choice([-1, 1]) * rng.uniform(least_mv, 1.0))
        else:
            part[start : start + length] = np.nan
        times = (first + start) / rate, (first + start + length) / rate
        yield Omission(kind=kind, lead=lead, start_s=times[0], end_s=times[1]), replace(record, signal_mv=signal)


def _is_found(omission: Omission, audit: InkAudit, *, beside_s: float = 0.1) -> bool:
    """Tell whether an audit names an omission: its lead, and a time that overlaps."""
    return any(
        mark.doubtful
        and mark.lead is omission.lead
        and mark.start_s - beside_s <= omission.end_s
        and mark.end_s + beside_s >= omission.start_s
        for mark in audit.marks
    )


def measure_audit(picture: Picture, digitizer: Digitizer, rng: np.random.Generator) -> AuditPage | None:
    """Digitize a drawn page once, and take known things out of its record; None if it cannot be read."""
    asked: list[tuple[Any, ...]] = []

    def keeping(*question: Any) -> InkAudit:
        asked.append(question)
        return digitizer.stages.audit(*question)

    own = replace(digitizer, stages=replace(digitizer.stages, audit=keeping))
    try:
        result = own.digitize(Drawn(picture).image)
    except DigitizationError:
        return None
    sheet, record, *rest = next(question for question in asked if question[2] is result.layout_match)
    held = {mark.lead for mark in result.audit.marks if mark.doubtful}
    clean = [lead for lead in result.quality.coverage if lead not in held]
    omissions = [(spike, _is_found(spike, result.audit)) for spike in lost_spikes(record, picture)]
    if clean:
        for omission, without in take_out(record, clean, rng):
            omissions.append((omission, _is_found(omission, digitizer.stages.audit(sheet, without, *rest))))
    style = picture.page.style
    return AuditPage(
        name=picture.name,
        right=is_right(record, picture.page.signal_mv, picture.page.leads),
        held=bool(held),
        scribbled=bool(style.scribbles or style.stamp),
        omissions=tuple(omissions),
    )


def audit_tables(pages: Sequence[AuditPage]) -> list[Table]:
    """Return what the audit found of what is missing, and which pages it holds."""
    found = Table(title="Omissions")
    for heading in ("omission", "number", "found", "share"):
        found.add_column(heading)
    every = [item for page in pages for item in page.omissions]
    for kind in (*dict.fromkeys(omission.kind for omission, _ in every), "all"):
        hits = [hit for omission, hit in every if kind in (omission.kind, "all")]
        if hits:
            found.add_row(kind, str(len(hits)), str(sum(hits)), f"{np.mean(hits):.1%}")
    held = Table(title="Pages as they were read")
    for heading in ("pages", "number", "held by the audit"):
        held.add_column(heading)
    groups = {
        "right": [page for page in pages if page.right and not page.scribbled],
        "right, with scribbles or a stamp": [page for page in pages if page.right and page.scribbled],
        "not right": [page for page in pages if not page.right],
    }
    for name, group in groups.items():
        held.add_row(name, str(len(group)), str(sum(page.held for page in group)))
    return [found, held]


def print_table(read: Sequence[tuple[PrintedValues, PrintedValues]]) -> Table:
    """Return how often each printed value was read right, read wrong, found ambiguous, or missed.

    Parameters
    ----------
    read : sequence of tuple of PrintedValues
        What a page states, and what was read of it.
    """
    table = Table(title="Printed values")
    for heading in ("value", "printed", "right", "wrong", "ambiguous", "missed"):
        table.add_column(heading)
    for name in (each.name for each in fields(PrintedValues) if each.name not in _NOT_DRAWN):
        known = [(getattr(truth, name), getattr(found, name), found) for truth, found in read]
        printed = [(value, got, found) for value, got, found in known if value is not None]
        right = sum(got == value for value, got, _ in printed)
        wrong = sum(got is not None and got != value for value, got, _ in known)
        ambiguous = sum(name == "recorded_on" and value in found.may_be_recorded_on for value, _, found in printed)
        missed = sum(got is None for _, got, _ in printed) - ambiguous
        table.add_row(name, *(str(number) for number in (len(printed), right, wrong, ambiguous, missed)))
    return table
