"""The whole story on one screen: a page in, everything that was read from it out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from pipeline.datatypes import (
    LEADS,
    Calibration,
    Digitization,
    Layout,
    LayoutMatch,
    LeadLabel,
    PageImage,
    PrintedMarks,
    PrintedValues,
    SegmentationMap,
    StatedScale,
    TextLine,
    TraceSet,
)
from pipeline.errors import DigitizationError, GridNotFound
from pipeline.layout.file import load_layouts
from pipeline.networks.inference import Network, choose_device, load_network
from pipeline.networks.specification import BEND, LABEL, LAYOUT, PAGE, SPECIFICATIONS, TRACE, Specification
from pipeline.printing.recogniser import Recogniser, load_recogniser
from pipeline.sheet.paper import Sheet, turn
from pipeline.stages import SHIPPED, Stages


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Upright:
    """A flat sheet that stands as its lead names read."""

    sheet: Sheet
    labels: tuple[LeadLabel, ...]
    names: float  # sum over leads of the best name's score; I, II and III left out


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Seen:
    """What was read from a sheet in millimetres, before anything is in millivolts and seconds."""

    text: tuple[TextLine, ...]
    printed: PrintedValues
    stated: StatedScale
    marks: PrintedMarks
    traces: TraceSet
    match: LayoutMatch


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Digitizer:
    """The networks, the recogniser of print and the layouts, loaded once, and the stages that use them."""

    networks: Mapping[Specification, Network]
    recogniser: Recogniser
    layouts: tuple[Layout, ...]
    stages: Stages = SHIPPED

    @classmethod
    def load(cls, device: str = "auto", layouts: Path | None = None) -> Digitizer:
        """Load the shipped weights and the layouts.

        Parameters
        ----------
        device : {"auto", "cpu", "cuda"}
            "auto" takes CUDA if a device is there.
        layouts : Path, optional
            A layouts file; the shipped one if not given.

        Returns
        -------
        Digitizer

        Raises
        ------
        WeightsMismatch
            A weights file is missing or not the recorded one.
        ValueError
            The device is not there, or the layouts file breaks a rule.
        """
        chosen = choose_device(device)
        return cls(
            networks={specification: load_network(specification, chosen) for specification in SPECIFICATIONS},
            recogniser=load_recogniser(),
            layouts=load_layouts(layouts),
        )

    def with_networks(self, wrap: Callable[[Network], Network]) -> Digitizer:
        """Return a digitizer with other networks, for example to measure them.

        Parameters
        ----------
        wrap : callable
            Returns the replacement of a network.

        Returns
        -------
        Digitizer
        """
        return replace(self, networks={key: wrap(network) for key, network in self.networks.items()})

    @property
    def pages_at_once(self) -> int:
        """How many pages to digitize side by side: a GPU gains from several, a processor is busy with one."""
        return self.networks[PAGE].at_once

    def digitize(self, page: PageImage, *, default_calibration: Calibration | None = None) -> Digitization:
        """Turn one page into a record.

        The page is segmented and flattened.  Every candidate for its flat sheet is read, and the reading with the
        highest estimated SNR is kept.

        Parameters
        ----------
        page : PageImage
        default_calibration : Calibration, optional
            Speed and gain where the page does not say; 25 mm/s and 10 mm/mV if not given.

        Returns
        -------
        Digitization

        Raises
        ------
        DigitizationError
            GridNotFound, TraceNotFound or LayoutUnknown; the message says why in words.
        """
        segmentation = self.stages.segment(page, self.networks[PAGE])
        readings: list[Digitization] = []
        errors: list[DigitizationError] = []
        for candidate in self._candidates(page, segmentation):
            try:
                readings.append(self._read(candidate, default_calibration or Calibration()))
            except DigitizationError as error:
                errors.append(error)
        if not readings:
            raise errors[0]
        return max(readings, key=lambda reading: reading.quality.estimated_snr_db)

    def read_print(self, page: PageImage) -> PrintedValues:
        """Read what a page states in print, and nothing else, on its first flat sheet.

        Parameters
        ----------
        page : PageImage

        Returns
        -------
        PrintedValues

        Raises
        ------
        DigitizationError
            The page cannot be flattened.
        """
        upright = self._candidates(page, self.stages.segment(page, self.networks[PAGE]))[0]
        return self.stages.printed_values(self.stages.read_text(upright.sheet, self.recogniser))

    def _candidates(
        self, page: PageImage, segmentation: SegmentationMap, *, doubtful_mm: float = 0.05
    ) -> list[_Upright]:
        """Flatten the page by its grid, and also without it if the bend network's doubt reaches `doubtful_mm`.

        From there on the network sees no grid where one was found: its lines may be an artefact.
        """
        by_grid = self._flatten(page, segmentation)
        if (by_grid.sheet.rectified.grid_scale.doubt_mm or 0.0) < doubtful_mm:
            return [by_grid]
        return [by_grid, self._upright(self.stages.lay_flat(page, segmentation, LAYOUT.px_per_mm))]

    def _flatten(self, page: PageImage, segmentation: SegmentationMap, *, few: float = 2.0) -> _Upright:
        """Flatten the page by its grid; if few names can be read then, try the lines as those of the other grid.

        On a sheet of half a metre only lines of 5 mm may be visible, and pass for lines of 1 mm; on a cutting it may
        be the other way round.  If no try shows enough names, the first one is kept.
        """
        first = self._by_grid(page, segmentation)
        found, scale = first.sheet.rectified, first.sheet.rectified.grid_scale
        side_mm = max(found.pixels.shape[:2]) / found.px_per_mm
        for factor in (5.0, 0.2):
            if first.names < few and scale.source == "grid" and 150.0 <= side_mm * factor <= 800.0:
                px_per_mm = (scale.px_per_mm_x * scale.px_per_mm_y) ** 0.5 / factor
                other = self._by_grid(replace(page, px_per_mm_hint=px_per_mm), segmentation)
                if other.names >= few:
                    return replace(other, sheet=replace(other.sheet, page=page))
        return first

    def _by_grid(self, page: PageImage, segmentation: SegmentationMap) -> _Upright:
        """Flatten the page by the grid that is found on it, down to wrinkles, and turn it upright."""
        flat = self.stages.rectify(page, segmentation, LAYOUT.px_per_mm)
        return self._upright(self.stages.unbend(flat, self.networks[BEND]))

    def _upright(self, flat: Sheet, *, enough: float = 3.0, clearly: float = 1.0) -> _Upright:
        """Turn the sheet so that its lead names read.

        It stays as it is unless another way up reads clearly better.  It is laid on its side only if neither way up
        reads enough.
        """
        canvas = flat.canvas(LABEL.px_per_mm)
        best, most = 0, -1.0
        best_labels: tuple[LeadLabel, ...] = ()
        for quarter in (0, 2, 1, 3):
            settled = most + clearly >= len(LEADS[3:])  # none can read clearly better
            if settled or (quarter == 1 and most >= enough):
                break
            labels = self.stages.read_labels(np.ascontiguousarray(np.rot90(canvas, quarter)), self.networks[LABEL])
            # I, II and III read the same upside down
            evidence = sum(max((x.score for x in labels if x.lead == lead), default=0.0) for lead in LEADS[3:])
            if evidence > most + (clearly if quarter == 2 else 0.0 if quarter == 0 else 2 * clearly):
                best, best_labels, most = quarter, labels, evidence
        upright = replace(flat, rectified=turn(flat.rectified, best))
        return _Upright(sheet=upright, labels=best_labels, names=most)

    def _read(self, upright: _Upright, default: Calibration) -> Digitization:
        """Read an upright sheet; if its scale was a guess, correct it by what was read, at most twice, and read again.

        A second correction follows only if the first one was large.
        """
        seen = self._see(upright)
        for last in (False, True):
            if upright.sheet.rectified.grid_scale.source == "default":
                upright = self._to_scale(upright, seen, default, last=last)
                seen = self._see(upright)
        calibration = self.stages.infer_calibration(seen.match, seen.marks, seen.stated, default)
        record = self.stages.calibrate(seen.traces, seen.match, calibration)
        record = self.stages.check_printed_rate(record, seen.printed)
        audit = self.stages.audit(upright.sheet, record, seen.match, seen.traces, seen.marks.pulses, seen.text)
        record = self.stages.lower_confidence(record, audit)
        rectified = upright.sheet.rectified
        weights = {network.name: network.sha256 for network in self.networks.values()}
        weights[self.recogniser.name] = self.recogniser.sha256
        return Digitization(
            page=upright.sheet.page,
            rectified=rectified,
            layout_match=seen.match,
            traces=seen.traces,
            record=record,
            quality=self.stages.assess(record, seen.match, seen.traces, rectified.grid_scale, audit),
            weights_sha256=weights,
            text=seen.text,
            printed=seen.printed,
            audit=audit,
        )

    def _see(self, upright: _Upright) -> _Seen:
        """Read print, rows and layout of an upright sheet."""
        stages, sheet = self.stages, upright.sheet
        text = stages.read_text(sheet, self.recogniser)
        marks = stages.read_marks(sheet.rectified.pixels, self.networks[LAYOUT])
        rows = marks.rows or stages.rows_from_ink(sheet)
        traces = stages.trace_rows(sheet, rows, self.networks[TRACE], read=stages.read_rows)
        traces = stages.follow_strokes(traces, sheet)
        seen_mm = [x for row in marks.rows for x in row.boundaries_mm]
        labels = stages.join_lead_names(upright.labels, text)
        match = stages.identify_layout(labels, traces, self.layouts, seen_mm=seen_mm)
        pulses, printed = stages.measure_pulses(sheet, marks), stages.printed_values(text)
        stated = replace(stages.stated_scale(text), heart_rate_per_minute=printed.heart_rate_per_minute)
        traces = stages.fit_ink(traces, sheet, match, pulses.pulses, text)
        return _Seen(text=text, printed=printed, stated=stated, marks=pulses, traces=traces, match=match)

    def _to_scale(
        self, upright: _Upright, seen: _Seen, default: Calibration, *, last: bool, settled: float = 0.02
    ) -> _Upright:
        """Correct a guessed scale by what was read; it counts as known if the guess was right to `settled`, or `last`.

        Raises
        ------
        GridNotFound
            Too few lead names were found to rely on the columns.
        """
        match = seen.match
        named = {label.lead for label in match.labels} & set(match.layout.leads)
        if not match.column_mm or len(named) < min(4, len(match.layout.leads)):
            raise GridNotFound("no ECG grid and few lead names were found, and the file states no resolution")
        factor = self.stages.true_scale(match, seen.marks, seen.stated, default)
        source = "columns" if last or abs(factor - 1) <= settled else "default"
        return self._upright(self.stages.rescale(upright.sheet, factor, source))

    def digitize_batch(
        self, pages: Sequence[PageImage], *, default_calibration: Calibration | None = None
    ) -> list[Digitization | DigitizationError]:
        """Digitize pages side by side, `pages_at_once` at a time; the networks batch what waits for them.

        Parameters
        ----------
        pages : sequence of PageImage
        default_calibration : Calibration, optional
            As for `digitize`.

        Returns
        -------
        list of Digitization or DigitizationError
            In the order of the pages; an error stands in the place of a page that failed.
        """

        def outcome(page: PageImage) -> Digitization | DigitizationError:
            try:
                return self.digitize(page, default_calibration=default_calibration)
            except DigitizationError as error:
                return error

        with ThreadPoolExecutor(self.pages_at_once) as pool:
            return list(pool.map(outcome, pages))


@cache
def _shipped() -> Digitizer:
    """Load the shipped digitizer once per process."""
    return Digitizer.load()


def digitize(
    page: PageImage, digitizer: Digitizer | None = None, *, default_calibration: Calibration | None = None
) -> Digitization:
    """Turn one page into a record.

    Parameters
    ----------
    page : PageImage
        One of `load_pages`.
    digitizer : Digitizer, optional
        The shipped one if not given: it is loaded at the first call, which takes seconds, and kept.
    default_calibration : Calibration, optional
        Speed and gain where the page does not say; 25 mm/s and 10 mm/mV if not given.

    Returns
    -------
    Digitization

    Raises
    ------
    DigitizationError
        The page cannot become a record; the message says why in words.
    """
    return (digitizer or _shipped()).digitize(page, default_calibration=default_calibration)
