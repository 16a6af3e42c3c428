"""The whole story on one screen: a page in, everything that was read from it out."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.datatypes import (
    LEADS,
    Calibration,
    Digitization,
    Layout,
    LeadLabel,
    PageImage,
    RectifiedPage,
    RowBand,
    SegmentationMap,
)
from pipeline.errors import DigitizationError, GridNotFound
from pipeline.layout.file import load_layouts
from pipeline.layout.identify import identify_layout
from pipeline.networks.inference import Network, choose_device, load_network
from pipeline.networks.specification import BEND, LABEL, LAYOUT, PAGE, TRACE
from pipeline.printing.labels import read_labels
from pipeline.printing.recogniser import Recogniser, load_recogniser
from pipeline.printing.statements import join_lead_names, stated_scale
from pipeline.printing.text import read_text
from pipeline.rows.components import ink_lines, rows_of_ink
from pipeline.rows.marks import read_marks
from pipeline.rows.pulses import measure_pulses
from pipeline.rows.trace import trace_rows
from pipeline.sheet.bend import unbend
from pipeline.sheet.paper import canvas_raster, map_sampler, rescale, sample_paper, turn
from pipeline.sheet.rectify import lay_flat, rectify
from pipeline.sheet.segment import segment
from pipeline.signal.calibrate import calibrate
from pipeline.signal.calibration import infer_calibration, true_scale
from pipeline.signal.quality import assess
from pipeline.source.strokes import follow_strokes

_DOUBTFUL_MM = 0.05  # from here on the bend network sees no grid where one was found: its lines may be made up


@dataclass(frozen=True, eq=False, slots=True)
class _Upright:
    """A flattened sheet that stands as its lead names read."""

    rectified: RectifiedPage
    labels: tuple[LeadLabel, ...]
    names: float  # sum over leads of the best name's score; I, II and III left out


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Digitizer:
    """The networks, the recogniser of print and the layouts, loaded once."""

    page_network: Network
    bend_network: Network
    layout_network: Network
    label_network: Network
    trace_network: Network
    recogniser: Recogniser
    layouts: tuple[Layout, ...]

    @classmethod
    def load(cls, device: str = "auto", layouts: Path | None = None) -> Digitizer:
        """Load the shipped weights onto a device ("auto", "cpu", "cuda") and the layouts (None: the shipped ones).

        Raises
        ------
        WeightsMismatch
            A weights file is missing or not the recorded one.
        ValueError
            The device is not there, or the layouts file breaks a rule.
        """
        chosen = choose_device(device)
        return cls(
            page_network=load_network(PAGE, chosen),
            bend_network=load_network(BEND, chosen),
            layout_network=load_network(LAYOUT, chosen),
            label_network=load_network(LABEL, chosen),
            trace_network=load_network(TRACE, chosen),
            recogniser=load_recogniser(),
            layouts=load_layouts(layouts),
        )

    def digitize(self, page: PageImage, *, default_calibration: Calibration | None = None) -> Digitization:
        """Turn one page into a record.

        Parameters
        ----------
        page : PageImage
        default_calibration : Calibration, optional
            Speed and gain where the page does not say; 25 mm/s and 10 mm/mV if not given.

        Raises
        ------
        DigitizationError
            GridNotFound, TraceNotFound or LayoutUnknown; the message says why in words.
        """
        segmentation = segment(page, self.page_network)
        default = default_calibration or Calibration()
        sheet = self._flatten(page, segmentation)
        if (sheet.rectified.grid_scale.doubt_mm or 0.0) < _DOUBTFUL_MM:
            return self._read(page, segmentation, sheet, default)
        flat = self._upright(page, lay_flat(page, segmentation, px_per_mm=LAYOUT.px_per_mm))
        readings: list[Digitization] = []
        errors: list[DigitizationError] = []
        for candidate in (sheet, flat):
            try:
                readings.append(self._read(page, segmentation, candidate, default))
            except DigitizationError as error:
                errors.append(error)
        if not readings:
            raise errors[0]
        return max(readings, key=lambda reading: reading.quality.estimated_snr_db)

    def _flatten(self, page: PageImage, segmentation: SegmentationMap, *, few: float = 2.0) -> _Upright:
        """Flatten the page by its grid, and by the grid for another where few names can be read on it.

        On a sheet of half a metre lines of 5 mm may be all that is seen, and pass for lines of 1 mm; or the other way
        round on a cutting.
        """
        best = self._by_grid(page, segmentation)
        found, scale = best.rectified, best.rectified.grid_scale
        side_mm = max(found.pixels.shape[:2]) / found.px_per_mm
        for factor in (5.0, 0.2):
            if best.names < few and scale.source == "grid" and 150.0 <= side_mm * factor <= 800.0:
                px_per_mm = (scale.px_per_mm_x * scale.px_per_mm_y) ** 0.5 / factor
                other = self._by_grid(replace(page, px_per_mm_hint=px_per_mm), segmentation)
                best = other if other.names >= few else best
        return best

    def _by_grid(self, page: PageImage, segmentation: SegmentationMap) -> _Upright:
        """Flatten the page by the grid that is found on it, down to wrinkles, and turn it upright."""
        flat = rectify(page, segmentation, px_per_mm=LAYOUT.px_per_mm)
        return self._upright(page, unbend(page, flat, self.bend_network))

    def _read(
        self,
        page: PageImage,
        segmentation: SegmentationMap,
        sheet: _Upright,
        default: Calibration,
        *,
        looks: int = 2,
        settled: float = 0.02,
    ) -> Digitization:
        """Read the flattened sheet; where its scale was a guess, again at the scale that what is printed tells.

        That is done once if the guess was right to `settled`, else `looks` times.
        """
        rectified, labels = sheet.rectified, sheet.labels
        text = read_text(page, segmentation, rectified, self.recogniser)
        marks = read_marks(rectified.pixels, self.layout_network)
        rows = marks.rows or _rows_of_ink(segmentation, rectified)
        traces = trace_rows(lambda x, y: sample_paper(page, rectified, x, y), rows, self.trace_network)
        traces = follow_strokes(traces, page, rectified)
        seen_mm = [x for row in marks.rows for x in row.boundaries_mm]
        match = identify_layout(join_lead_names(labels, text), traces, self.layouts, seen_mm=seen_mm)
        pulses = measure_pulses(marks, segmentation, rectified)
        if rectified.grid_scale.source == "default":
            named = {label.lead for label in match.labels} & set(match.layout.leads)
            if not match.column_mm or len(named) < min(4, len(match.layout.leads)):
                raise GridNotFound("no ECG grid and few lead names were found, and the file states no resolution")
            factor = true_scale(match, pulses, stated_scale(text), default)
            source = "default" if looks > 1 and abs(factor - 1) > settled else "columns"
            mended = self._upright(page, rescale(page, rectified, factor, source))
            return self._read(page, segmentation, mended, default, looks=looks - 1)
        calibration = infer_calibration(match, pulses, stated_scale(text), default)
        record = calibrate(traces, match, calibration)
        networks: list[Network | Recogniser] = [self.page_network, self.bend_network, self.layout_network]
        networks += [self.label_network, self.trace_network, self.recogniser]
        return Digitization(
            page=page,
            rectified=rectified,
            layout_match=match,
            traces=traces,
            record=record,
            quality=assess(record, match, traces, rectified.grid_scale),
            weights_sha256={network.name: network.sha256 for network in networks},
            text=text,
        )

    @property
    def pages_at_once(self) -> int:
        """How many pages to digitize side by side: a GPU gains from several, a processor is busy with one."""
        return self.page_network.at_once

    def digitize_batch(
        self, pages: Sequence[PageImage], *, default_calibration: Calibration | None = None
    ) -> list[Digitization | DigitizationError]:
        """Digitize pages side by side, `pages_at_once` at a time; the networks batch what waits for them.

        Returns
        -------
        list
            In the order of the pages, for each what `digitize` returns or the reason why there is nothing.
        """

        def outcome(page: PageImage) -> Digitization | DigitizationError:
            try:
                return self.digitize(page, default_calibration=default_calibration)
            except DigitizationError as error:
                return error

        with ThreadPoolExecutor(self.pages_at_once) as pool:
            return list(pool.map(outcome, pages))

    def _upright(self, page: PageImage, flat: RectifiedPage, *, enough: float = 3.0, clearly: float = 1.0) -> _Upright:
        """Turn the sheet so that its lead names read.

        It stays as it is unless another way up reads clearly better, and is laid on its side only where neither way
        up reads enough.
        """
        x_mm, y_mm = canvas_raster(flat, LABEL.px_per_mm)
        canvas = sample_paper(page, flat, x_mm, y_mm)
        best, most = 0, -1.0
        best_labels: tuple[LeadLabel, ...] = ()
        for quarter in (0, 2, 1, 3):
            settled = most + clearly >= len(LEADS[3:])  # none can read clearly better
            if settled or (quarter == 1 and most >= enough):
                break
            labels = read_labels(np.ascontiguousarray(np.rot90(canvas, quarter)), self.label_network)
            # I, II and III read the same on their heads
            evidence = sum(max((x.score for x in labels if x.lead == lead), default=0.0) for lead in LEADS[3:])
            if evidence > most + (clearly if quarter == 2 else 0.0 if quarter == 0 else 2 * clearly):
                best, best_labels, most = quarter, labels, evidence
        return _Upright(turn(flat, best), best_labels, most)


def _rows_of_ink(segmentation: SegmentationMap, rectified: RectifiedPage) -> tuple[RowBand, ...]:
    """Find the rows by the paper's way, from the ink: where the layout network saw none."""
    x_mm, y_mm = canvas_raster(rectified, rectified.px_per_mm)
    ink = map_sampler(segmentation, rectified)(x_mm, y_mm)[..., 1] / np.float32(255)
    return rows_of_ink(ink_lines(ink.astype(np.float32)), rectified.px_per_mm)
