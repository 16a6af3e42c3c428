"""What each idea is worth: the same pages read with one stage taken back to what the method's paper does.

    ours                        as `digitize` reads
    picture only                the lines of a drawn page (PDF) left aside; so do all below
    paper's extractor           components, snipping and assignment on the page network's trace map; column centroids
    lattice only                no bend network: nothing finer than the lattice's windows
    homography only             no lattice either: the sheet is taken as flat
    ink's centroid              rows and path by the trace network, the value from the ink's centroid around the path
    most probable bin           the network's best bin of every column by itself: no path, no mean

The stages know nothing of it: for the time of one reading a function of the same form stands where `pipeline.digitize`
calls the stage.  The networks answer each question once a page, however many readings ask it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

import pipeline.digitize
import pipeline.printing.text
import pipeline.rows.trace
from pipeline.datatypes import (
    ByteArray,
    Calibration,
    Digitization,
    FloatArray,
    PageImage,
    RectifiedPage,
    RowBand,
    SegmentationMap,
    TraceSet,
)
from pipeline.digitize import Digitizer
from pipeline.errors import DigitizationError, TraceNotFound
from pipeline.networks.inference import Network
from pipeline.networks.specification import ROW_BINS
from pipeline.rows.components import ink_lines
from pipeline.rows.trace import RowReadings, Sampler, own_doubt, posterior
from pipeline.sheet.paper import apply_homography, canvas_raster, map_sampler, sample_paper
from pipeline.sheet.rectify import rectify

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


def _remembering(digitizer: Digitizer) -> Digitizer:
    """Return a digitizer whose networks remember, for one page."""

    def wrapped(network: Network) -> Network:
        return _Remembering(
            name=network.name,
            module=network.module,
            sha256=network.sha256,
            device=network.device,
            at_once=network.at_once,
        )

    return replace(
        digitizer,
        page_network=wrapped(digitizer.page_network),
        bend_network=wrapped(digitizer.bend_network),
        layout_network=wrapped(digitizer.layout_network),
        label_network=wrapped(digitizer.label_network),
        trace_network=wrapped(digitizer.trace_network),
    )


def bent_sheet(page: PageImage, rectified: RectifiedPage, network: Network) -> RectifiedPage:
    """Leave the sheet as the lattice has it."""
    return rectified


def flat_sheet(page: PageImage, segmentation: SegmentationMap, *, px_per_mm: float = 5.0) -> RectifiedPage:
    """Rectify by the homography alone: the nodes where it puts them, not where the lattice moved them."""
    found = rectify(page, segmentation, px_per_mm=px_per_mm)
    n_i, n_j = found.node_xy.shape[:2]
    i, j = np.mgrid[:n_i, :n_j]
    nodes = apply_homography(found.homography, np.stack([j, i], -1) * found.node_mm).astype(np.float32)
    flat = replace(found, node_xy=nodes)
    return replace(flat, pixels=sample_paper(page, flat, *canvas_raster(flat, px_per_mm)))


def paper_traces(segmentation: SegmentationMap, rectified: RectifiedPage) -> TraceSet:
    """Trace as the paper does: lines of ink on the flattened trace map, their values weighted column centroids.

    Raises
    ------
    TraceNotFound
        There is no ink.
    """
    sampled = map_sampler(segmentation, rectified)(*canvas_raster(rectified, _INK_PX_PER_MM))
    ink = sampled[..., 1] / np.float32(255)
    lines = ink_lines(ink.astype(np.float32))
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


@contextmanager
def _homography() -> Iterator[None]:
    """Let the homography alone flatten the sheet."""
    with (
        patch.object(pipeline.digitize, "rectify", flat_sheet),
        patch.object(pipeline.digitize, "unbend", bent_sheet),
    ):
        yield


@contextmanager
def _papers_extractor() -> Iterator[None]:
    """Let the paper's extractor trace: what it needs of the sheet is overheard where the print is read."""
    heard: dict[type, Any] = {}

    def overhear(*stage: object) -> object:
        heard.update({type(argument): argument for argument in stage})
        return read_text(*stage)

    def trace(sample: Sampler, rows: list[RowBand], network: Network) -> TraceSet:
        return paper_traces(heard[SegmentationMap], heard[RectifiedPage])

    read_text: Callable[..., object] = pipeline.printing.text.read_text
    with patch.object(pipeline.digitize, "read_text", overhear), patch.object(pipeline.digitize, "trace_rows", trace):
        yield


VARIANTS: dict[str, Callable[[], Any]] = {
    OURS: ExitStack,
    "picture only": ExitStack,
    "paper's extractor": _papers_extractor,
    "lattice only": lambda: patch.object(pipeline.digitize, "unbend", bent_sheet),
    "homography only": _homography,
    "ink's centroid": lambda: patch.object(pipeline.rows.trace, "read_rows", rows_by_ink),
    "most probable bin": lambda: patch.object(pipeline.rows.trace, "read_rows", rows_by_best_bin),
}


def read_every_way(
    page: PageImage, digitizer: Digitizer, calibration: Calibration
) -> Iterator[tuple[str, Digitization | None]]:
    """Digitize a page once for each of `VARIANTS`: its name, and what was read or None where it failed."""
    own = _remembering(digitizer)
    picture = replace(page, strokes=())
    for name, changed in VARIANTS.items():
        with changed():
            try:
                result = own.digitize(page if name == OURS else picture, default_calibration=calibration)
            except DigitizationError:
                result = None
        yield name, result
