"""What each idea is worth: the same pages read with one stage taken back to what the method's paper does.

    ours                        as `digitize` reads
    picture only                the lines of a drawn page (PDF) left aside; so do all below
    paper's extractor           components, snipping and assignment on the page network's trace map; column centroids
    lattice only                no bend network: nothing finer than the lattice's windows
    homography only             no lattice either: the sheet is taken as flat
    ink's centroid              rows and path by the trace network, the value from the ink's centroid around the path
    most probable bin           the network's best bin of every column by itself: no path, no mean

Each reading is done by a digitizer of its own, with other functions among its stages.  The networks answer each
question once a page, however many readings ask it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from torch import Tensor

from pipeline.datatypes import (
    ByteArray,
    Calibration,
    Digitization,
    FloatArray,
    PageImage,
    RowBand,
    SegmentationMap,
    TraceSet,
)
from pipeline.digitizer import Digitizer
from pipeline.errors import DigitizationError, TraceNotFound
from pipeline.networks.inference import Network
from pipeline.networks.specification import ROW_BINS
from pipeline.rows.components import sheet_lines
from pipeline.rows.trace import RowReader, RowReadings, own_doubt, posterior
from pipeline.sheet.paper import Sheet, apply_homography
from pipeline.sheet.rectify import rectify
from pipeline.stages import Stages

OURS = "ours"
_INK_PX_PER_MM = 6.0  # of the ink map the paper's extractor works on: the page network's own resolution


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Remembering(Network):
    """A network that answers the same question once."""

    answers: dict[bytes, tuple[Tensor, ...]] = field(default_factory=dict)

    def run(self, pixels: ByteArray) -> tuple[Tensor, ...]:
        """Run on pictures it has not seen, remember the others."""
        key = hashlib.blake2b(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).digest()
        if key not in self.answers:
            self.answers[key] = Network.run(self, pixels)  # a class with slots has no bare super()
        return self.answers[key]


def _remembering(network: Network) -> Network:
    """Return a network that remembers what it answered."""
    return _Remembering(**{part.name: getattr(network, part.name) for part in fields(Network) if part.init})


def bent_sheet(sheet: Sheet, network: Network) -> Sheet:
    """Leave the sheet as the lattice has it, and sample its canvas."""
    return sheet.sampled()


def flat_sheet(page: PageImage, segmentation: SegmentationMap, px_per_mm: float = 5.0) -> Sheet:
    """Rectify by the homography alone: the nodes where it puts them, not where the lattice moved them."""
    sheet = rectify(page, segmentation, px_per_mm)
    found = sheet.rectified
    n_i, n_j = found.node_xy.shape[:2]
    i, j = np.mgrid[:n_i, :n_j]
    nodes = apply_homography(found.homography, np.stack([j, i], -1) * found.node_mm).astype(np.float32)
    return replace(sheet, rectified=replace(found, node_xy=nodes))


def paper_traces(sheet: Sheet) -> TraceSet:
    """Trace as the paper does: lines of ink on the flattened trace map, their values weighted column centroids.

    Raises
    ------
    TraceNotFound
        There is no ink.
    """
    lines = sheet_lines(sheet, _INK_PX_PER_MM)
    if not lines:
        raise TraceNotFound("no line of ink was found on the page")
    y_mm = np.stack([(line.y + 0.5) / _INK_PX_PER_MM for line in lines]).astype(np.float32)
    return TraceSet(
        row_mm=y_mm,
        confidence=np.isfinite(y_mm).astype(np.float32),
        baseline_mm=np.nanmedian(y_mm, axis=1).astype(np.float32),
        x0_mm=0.5 / _INK_PX_PER_MM,
        columns_per_mm=_INK_PX_PER_MM,
    )


def trace_as_paper(sheet: Sheet, rows: Sequence[RowBand], network: Network, *, read: RowReader) -> TraceSet:
    """Trace by `paper_traces`, which finds the rows itself and needs no trace network."""
    return paper_traces(sheet)


def _log_p(strips: ByteArray, network: Network) -> tuple[FloatArray, FloatArray]:
    """Return the network's log probability of every bin (rows, bins, columns) and presence (rows, columns)."""
    n = strips.shape[2] * 2
    columns, presence = network.run(strips)
    return torch.log_softmax(columns[..., :n], 1).numpy(), presence[:, :n].sigmoid().numpy()


def _readings(y_bin: FloatArray, log_p: FloatArray, presence: FloatArray, reach: float = 3.0) -> RowReadings:
    """Give values y (rows, columns) the mass that the network sees near them."""
    near = np.abs(np.arange(ROW_BINS)[None, :, None] - y_bin[:, None, :]) <= reach
    return RowReadings(
        y_bin=y_bin.astype(np.float32),
        mass=np.where(near, np.exp(log_p), 0).sum(1),
        doubt_bin=own_doubt(log_p, y_bin),
        presence=presence,
    )


def rows_by_best_bin(strips: ByteArray, network: Network) -> RowReadings:
    """Read every column by itself: its most probable bin."""
    log_p, presence = _log_p(strips, network)
    return _readings(log_p.argmax(1).astype(np.float32), log_p, presence)


def rows_by_ink(strips: ByteArray, network: Network, *, reach_bins: int = 4) -> RowReadings:
    """Read the centroid of the ink within `reach_bins` of the network's path; the path itself where there is none.

    Ink is what is darker than half-way from the strip's paper to the darkest pixel near the path.
    """
    log_p, presence = _log_p(strips, network)
    path = posterior(log_p).argmax(2).T  # (rows, columns)
    dark = 255 - strips.mean(-1).repeat(2, axis=2)  # (rows, 2 bins, columns)
    offsets = np.arange(-2 * reach_bins, 2 * reach_bins + 2)
    at = np.clip(2 * path[:, None] + offsets[None, :, None], 0, dark.shape[1] - 1)  # pixels: two a bin
    near = np.take_along_axis(dark, at, 1) - np.median(dark, axis=1, keepdims=True)
    ink = np.clip(near - 0.5 * near.max(1, keepdims=True), 0, None)
    weight = ink.sum(1)
    centroid = (ink * at).sum(1) / np.maximum(weight, 1e-6) / 2 - 0.25
    return _readings(np.where(weight > 1, centroid, path).astype(np.float32), log_p, presence)


VARIANTS: dict[str, Callable[[Stages], Stages]] = {
    OURS: lambda stages: stages,
    "picture only": lambda stages: stages,
    "paper's extractor": lambda stages: replace(stages, trace_rows=trace_as_paper),
    "lattice only": lambda stages: replace(stages, unbend=bent_sheet),
    "homography only": lambda stages: replace(stages, rectify=flat_sheet, unbend=bent_sheet),
    "ink's centroid": lambda stages: replace(stages, read_rows=rows_by_ink),
    "most probable bin": lambda stages: replace(stages, read_rows=rows_by_best_bin),
}


def read_every_way(
    page: PageImage, digitizer: Digitizer, calibration: Calibration
) -> Iterator[tuple[str, Digitization | None]]:
    """Digitize a page once for each of `VARIANTS`: its name, and what was read or None where it failed."""
    own = digitizer.with_networks(_remembering)
    picture = replace(page, strokes=())
    for name, changed in VARIANTS.items():
        variant = replace(own, stages=changed(own.stages))
        try:
            result = variant.digitize(page if name == OURS else picture, default_calibration=calibration)
        except DigitizationError:
            result = None
        yield name, result
