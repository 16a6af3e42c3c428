"""The geometry of a page for a person who checks it: where on its picture every lead, name and doubtful place lies.

Everything is in pixels of the page's picture, (x, y) from its top left corner, or in paper millimetres with the lattice
that leads from the one to the other.  The time of every point is that of the record.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.datatypes import Digitization, Lead, PageImage
from pipeline.runs import runs_of
from pipeline.sheet.paper import paper_to_page

Float64 = npt.NDArray[np.float64]


def page_geometry(
    digitization: Digitization, width_px: int, *, least_confidence: float = 0.5, shortest_s: float = 0.06
) -> bytes:
    """Return the geometry of a page as JSON.

    Parameters
    ----------
    digitization : Digitization
    width_px : int
        Of the picture that the geometry is for.
    least_confidence : float
        A stretch below it is listed as doubtful. Set by hand: readings that are right are above it.
    shortest_s : float
        Shorter doubtful stretches are not listed: a person cannot see them.

    Returns
    -------
    bytes
        That of `blank_geometry`, and ``layout``; ``paper_speed_mm_per_s``, ``gain_mm_per_mv``,
        ``chest_gain_mm_per_mv``; ``lattice``: ``node_mm`` and ``xy``, (n_i, n_j, 2); ``rows``: paper y of each printed
        row's baseline, null where none was traced; ``columns``: paper x from-to; ``stretches``: ``lead``, ``row``
        (printed), ``x0_mm``, ``start_s``, ``step_s``, ``zero_mm`` (paper y of 0 mV), ``mm_per_mv`` (negative: upside
        down) and ``xy``, with the tips of pacing spikes (null where nothing was traced); ``labels``; ``text``;
        ``doubts``: what a person should look at, see `_doubt`.
    """
    match, traces, calibration = digitization.layout_match, digitization.traces, digitization.record.calibration
    place = _Place(digitization, width_px / digitization.page.pixels.shape[1])
    stretches, doubts = [], list(_marks(digitization, place))
    for each in _stretches(digitization):
        stretches.append(each.shown(place))
        doubts += each.doubts(place, least_confidence, shortest_s)
    return _encoded(
        _size(digitization.page, width_px)
        | {
            "layout": match.layout.name,
            "paper_speed_mm_per_s": calibration.paper_speed_mm_per_s,
            "gain_mm_per_mv": calibration.gain_mm_per_mv,
            "chest_gain_mm_per_mv": calibration.chest_gain_mm_per_mv,
            "lattice": {
                "node_mm": digitization.rectified.node_mm,
                "xy": _points((digitization.rectified.node_xy.astype(np.float64) + 0.5) * place.zoom),
            },
            "rows": [
                round(float(traces.baseline_mm[i]), 2) if 0 <= i < traces.baseline_mm.size else None for i in match.rows
            ],
            "columns": [[round(edge, 2) for edge in span] for span in match.column_mm],
            "stretches": stretches,
            "labels": [
                {"lead": label.lead.value, "xy": _points(place(np.array([[label.x_mm, label.y_mm]]))[0])}
                for label in match.labels
            ],
            "text": [
                {
                    "text": line.text,
                    "score": round(line.score, 3),
                    "mm": [round(edge, 2) for edge in (line.x0_mm, line.y0_mm, line.x1_mm, line.y1_mm)],
                    "box": place.box(line.x0_mm, line.y0_mm, line.x1_mm, line.y1_mm),
                }
                for line in digitization.text
            ],
            "doubts": doubts,
        }
    )


def blank_geometry(page: PageImage, width_px: int) -> bytes:
    """Return what is known of a page that could not be read: ``width`` and ``height`` of its picture, and ``zoom``.

    ``zoom`` is picture pixels per page pixel; the picture's origin is its corner, the page's the centre of a pixel.
    """
    return _encoded(_size(page, width_px))


def _size(page: PageImage, width_px: int) -> dict[str, Any]:
    height, width = page.pixels.shape[:2]
    zoom = width_px / width
    return {"width": width_px, "height": max(round(height * zoom), 1), "zoom": zoom}


@dataclass(frozen=True, eq=False, slots=True)
class _Place:
    """Leads from the paper to the page's picture."""

    digitization: Digitization
    zoom: float

    def __call__(self, xy_mm: Float64) -> Float64:
        """Return picture pixels (n, 2) of paper points (n, 2); NaN stays NaN."""
        known = np.isfinite(xy_mm).all(axis=1)
        placed = np.full(xy_mm.shape, np.nan)
        placed[known] = (paper_to_page(self.digitization.rectified, xy_mm[known]) + 0.5) * self.zoom
        return placed

    def box(self, x0_mm: float, y0_mm: float, x1_mm: float, y1_mm: float, margin_mm: float = 1.0) -> Any:
        """Return the corners of a box around a box on the paper."""
        x0, x1, y0, y1 = x0_mm - margin_mm, x1_mm + margin_mm, y0_mm - margin_mm, y1_mm + margin_mm
        return _points(self(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])))


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Stretch:
    """One printed stretch of a lead."""

    lead: Lead
    row: int  # printed
    x_mm: Float64
    y_mm: Float64  # NaN = not traced
    confidence: Float64
    start_s: float
    step_s: float
    zero_mm: float
    mm_per_mv: float

    def shown(self, place: _Place) -> dict[str, Any]:
        """Return the stretch as it is written."""
        return {
            "lead": self.lead.value,
            "row": self.row,
            "x0_mm": round(float(self.x_mm[0]), 3),
            "start_s": round(self.start_s, 4),
            "step_s": self.step_s,
            "zero_mm": round(self.zero_mm, 3),
            "mm_per_mv": self.mm_per_mv,
            "xy": _points(place(np.column_stack([self.x_mm, self.y_mm]))),
        }

    def doubts(self, place: _Place, least_confidence: float, shortest_s: float) -> Iterator[dict[str, Any]]:
        """List where nothing was traced, or not surely."""
        traced = np.isfinite(self.y_mm)
        around = np.where(traced, self.y_mm, self.zero_mm)
        for start, end in runs_of(~traced | (self.confidence < least_confidence)):
            if (end - start) * self.step_s >= shortest_s:
                x, y = self.x_mm[start:end], around[start:end]
                kind = "unsure" if traced[start:end].any() else "gap"
                span = (self.start_s + start * self.step_s, self.start_s + end * self.step_s)
                yield _doubt(kind, self.lead, span, place.box(x.min(), y.min(), x.max(), y.max()))


def _stretches(digitization: Digitization) -> Iterator[_Stretch]:
    """List every printed stretch that has a traced row."""
    match, traces, record = digitization.layout_match, digitization.traces, digitization.record
    speed = record.calibration.paper_speed_mm_per_s
    starts = {span: time[0] for span, time in zip(match.column_mm, match.column_times(speed), strict=True)}
    for lead, row, span_mm in match.stretches():
        if not 0 <= row < traces.row_mm.shape[0]:
            continue
        first, stop = (round((edge - traces.x0_mm) * traces.columns_per_mm) for edge in span_mm)
        first, stop = max(first, 0), min(stop, traces.row_mm.shape[1])
        if stop - first < 2:
            continue
        start_s = starts.get(span_mm, min(starts.values()))
        step_s = 1 / (traces.columns_per_mm * speed)
        y_mm = traces.row_mm[row, first:stop].astype(np.float64)
        for column, spike in traces.spikes_in(row, first, stop):
            y_mm[column - first] = spike.tip_mm
        mm_per_mv = _gain(lead, digitization) * (-1 if lead in match.layout.inverted else 1)
        if lead not in record.leads:
            continue
        known = record.signal_mv[record.leads.index(lead)].astype(np.float64)
        at = np.round((start_s + np.arange(stop - first) * step_s) * record.sampling_frequency_hz).astype(int)
        at = np.clip(at, 0, known.size - 1)
        zeros = (y_mm + mm_per_mv * known[at])[np.isfinite(y_mm) & np.isfinite(known[at])]
        yield _Stretch(
            lead=lead,
            row=match.rows.index(row),
            x_mm=traces.x0_mm + np.arange(first, stop) / traces.columns_per_mm,
            y_mm=y_mm,
            confidence=traces.confidence[row, first:stop].astype(np.float64),
            start_s=start_s,
            step_s=step_s,
            zero_mm=float(np.median(zeros)) if zeros.size else float(traces.baseline_mm[row]),
            mm_per_mv=mm_per_mv,
        )


def _gain(lead: Lead, digitization: Digitization) -> float:
    calibration = digitization.record.calibration
    chest = calibration.chest_gain_mm_per_mv
    return chest if chest is not None and lead.startswith("V") else calibration.gain_mm_per_mv


def _marks(digitization: Digitization, place: _Place) -> Iterator[dict[str, Any]]:
    """List what the ink audit holds for doubtful, the largest first."""
    for mark in digitization.audit.marks:
        if mark.doubtful:
            box = place.box(mark.x0_mm, mark.y0_mm, mark.x1_mm, mark.y1_mm)
            yield _doubt(mark.kind.value, mark.lead, (mark.start_s, mark.end_s), box)


def _doubt(kind: str, lead: Lead, span_s: tuple[float, float], box: Any) -> dict[str, Any]:
    """Return a place to look at: an audit `Mark`, "gap" (nothing was traced) or "unsure" (low confidence)."""
    start_s, end_s = (round(edge, 3) for edge in span_s)
    return {"kind": kind, "lead": lead.value, "start_s": start_s, "end_s": end_s, "box": box}


def _points(xy: Float64) -> Any:
    """Return points as nested lists, to a tenth of a pixel; null where there is none."""
    if xy.ndim > 1:
        return [_points(each) for each in xy]
    return [round(float(value), 1) for value in xy] if np.isfinite(xy).all() else None


def _encoded(geometry: dict[str, Any]) -> bytes:
    return json.dumps(geometry, separators=(",", ":")).encode()
