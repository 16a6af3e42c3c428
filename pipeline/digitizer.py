"""The whole story on one screen: a page in, everything that was read from it out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline import __version__
from pipeline.corrections import check_corrections
from pipeline.datatypes import (
    LEADS,
    Calibration,
    Corrections,
    Digitization,
    Layout,
    LayoutMatch,
    LeadLabel,
    PageImage,
    PagePoint,
    PrintedValues,
    Reading,
    RowBand,
    SegmentationMap,
    TraceSet,
)
from pipeline.errors import DigitizationError, GridNotFound
from pipeline.layout.file import load_layouts
from pipeline.networks.inference import Network, choose_device, keep_memory, load_network
from pipeline.networks.specification import BEND, LABEL, LAYOUT, PAGE, SPECIFICATIONS, SPIKE, TRACE, Specification
from pipeline.output.reading import pack_reading, unpack_reading
from pipeline.printing.recogniser import Recogniser, load_recogniser
from pipeline.sheet.cut import in_original
from pipeline.sheet.paper import Sheet, turn
from pipeline.stages import SHIPPED, Stages

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Upright:
    """A flat sheet that stands as its lead names read."""

    sheet: Sheet
    labels: tuple[LeadLabel, ...]
    names: float  # sum over leads of the best name's score; I, II and III left out


@dataclass(frozen=True, eq=False, slots=True)
class _Task:
    """What a reading is made of besides networks."""

    page: PageImage  # the sheet, cut out of the page as it came in
    to_original: Float64
    key: str
    default: Calibration
    corrections: Corrections


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Digitizer:
    """The networks, the recogniser of print and the layouts, loaded once, and the stages that use them."""

    networks: Mapping[Specification, Network]
    recogniser: Recogniser
    layouts: tuple[Layout, ...]
    stages: Stages = SHIPPED

    @classmethod
    def load(cls, device: str = "auto", layouts: Path | None = None) -> Digitizer:
        """Load the shipped weights and the layouts; from then on the process keeps the memory of a page for the next.

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
        keep_memory()
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

    def digitize(
        self,
        page: PageImage,
        *,
        default_calibration: Calibration | None = None,
        corrections: Corrections | None = None,
        known: bytes = b"",
        keep: Callable[[bytes], None] | None = None,
    ) -> Digitization:
        """Turn one page into a record.

        The page is segmented and flattened.  Every candidate for its flat sheet is read, and the reading with the
        highest estimated SNR is kept.

        Parameters
        ----------
        page : PageImage
        default_calibration : Calibration, optional
            Speed and gain where the page does not say; 25 mm/s and 10 mm/mV if not given.
        corrections : Corrections, optional
            What a person states about the page.
        known : bytes
            A reading of this page that was kept (`output.reading`): the result is the same, and comes sooner.  One of
            another page, of other weights or of another cut of the sheet is left aside.
        keep : callable, optional
            Is given a new reading, to be kept for the next run, before a record is made of it.

        Returns
        -------
        Digitization

        Raises
        ------
        DigitizationError
            GridNotFound, TraceNotFound, LayoutUnknown or CorrectionError; the message says why in words.
        """
        default, corrections = default_calibration or Calibration(), corrections or Corrections()
        check_corrections(corrections, page.pixels.shape[1::-1], self.layouts)
        cut, to_original = self.stages.cut_sheet(page, corrections)
        key = self._key(page, default, corrections)
        task = _Task(cut, to_original, key, default, corrections)
        stored = unpack_reading(known, key, cut, to_original) if known else None
        seen = self._at_stated_rows(stored or self._best_reading(page, task), corrections)
        if keep is not None and seen is not stored and (data := pack_reading(seen)):
            keep(data)
        return self._finish(page, seen, default, corrections)

    def _key(self, page: PageImage, default: Calibration, corrections: Corrections) -> str:
        """Return what tells apart readings of a page that may differ."""
        layouts = [(layout.name, layout.rows, layout.rhythm, sorted(layout.inverted)) for layout in self.layouts]
        hashes = [network.sha256 for network in self.networks.values()]
        parts = (__version__, hashes, self.recogniser.sha256, layouts, default, page.px_per_mm_hint, corrections.cut)
        digest = hashlib.sha256(np.ascontiguousarray(page.pixels).data)
        digest.update(repr((page.pixels.shape, *parts)).encode())
        return digest.hexdigest()

    def _best_reading(self, page: PageImage, task: _Task) -> Reading:
        """See what is on a page, before anything is in millivolts and seconds.

        Of several candidates for the flat sheet the one is kept whose record has the highest estimated SNR as it would
        be without corrections: so an earlier reading stays the best one.  It is read again with what is stated if its
        scale depends on that, or if none could be read without.
        """
        segmentation = self.stages.segment(task.page, self.networks[PAGE])
        candidates = self._candidates(task.page, segmentation, task.corrections)
        plain = replace(task, corrections=task.corrections.cut)
        readings, errors = self._read_each(candidates, plain)
        if not readings:
            stated, _ = self._read_each(candidates, task) if task.corrections != plain.corrections else ([], [])
            if not stated:
                raise errors[0]
            return stated[0][1]
        readings = self._believable(readings)
        best = readings[0]
        if len(readings) > 1:
            best = max(readings, key=lambda each: self._estimate_db(page, each[1], task.default))
        if task.corrections == plain.corrections or best[1].rectified.grid_scale.source != "columns":
            return best[1]
        return self._read(best[0], task)

    def _read_each(
        self, candidates: Sequence[_Upright], task: _Task
    ) -> tuple[list[tuple[_Upright, Reading]], list[DigitizationError]]:
        """Read the candidates: those that could be read with their readings, and the errors of the others."""
        readings: list[tuple[_Upright, Reading]] = []
        errors: list[DigitizationError] = []
        for candidate in candidates:
            try:
                readings.append((candidate, self._read(candidate, task)))
            except DigitizationError as error:
                errors.append(error)
        return readings, errors

    def _believable(
        self, readings: list[tuple[_Upright, Reading]], *, times: float = 2.0, more_mm: float = 0.3
    ) -> list[tuple[_Upright, Reading]]:
        """Leave out readings by a grid that is made up: their rows bend alike, those of the sheet laid flat do not."""
        bends_mm = [self.stages.bend_of_rows(reading.traces) for _, reading in readings] if len(readings) > 1 else []
        by_grid = [reading.rectified.grid_scale.source == "grid" for _, reading in readings]
        flat_mm = [mm for mm, grid in zip(bends_mm, by_grid, strict=False) if mm is not None and not grid]
        if not flat_mm:
            return readings
        most_mm = times * min(flat_mm) + more_mm
        kept = zip(readings, bends_mm, by_grid, strict=True)
        return [each for each, mm, grid in kept if not grid or mm is None or mm <= most_mm]

    def _at_stated_rows(self, seen: Reading, corrections: Corrections) -> Reading:
        """Trace the rows again where a person states others than those that were traced."""
        points_px = corrections.row_baselines_px
        if seen.row_baselines_px == points_px:
            return seen
        sheet = Sheet(page=seen.page, segmentation=seen.segmentation, rectified=seen.rectified)
        traces = self._trace(sheet, seen.to_original, seen.rows, points_px)
        return replace(seen, row_baselines_px=points_px, traces=traces)

    def _estimate_db(self, page: PageImage, reading: Reading, default: Calibration) -> float:
        """Return the estimated SNR of a reading; that of one that gives no record is lower than any."""
        try:
            return self._finish(page, reading, default, Corrections()).quality.estimated_snr_db
        except DigitizationError:
            return -np.inf

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
        upright = self._candidates(page, self.stages.segment(page, self.networks[PAGE]), Corrections())[0]
        return self.stages.printed_values(self.stages.read_text(upright.sheet, self.recogniser))

    def _candidates(
        self,
        page: PageImage,
        segmentation: SegmentationMap,
        corrections: Corrections,
        *,
        doubtful_mm: float = 0.05,
    ) -> list[_Upright]:
        """Flatten the page by its grid, and also without it if the bend network's doubt reaches `doubtful_mm`.

        From there on the network sees no grid where one was found: its lines may be an artefact.
        """
        stands = corrections.quarter_turns is not None
        by_grid = self._flatten(page, segmentation, stands)
        if (by_grid.sheet.rectified.grid_scale.doubt_mm or 0.0) < doubtful_mm:
            return [by_grid]
        flat = self.stages.lay_flat(page, segmentation, LAYOUT.px_per_mm)
        return [by_grid, self._upright(flat, stands)]

    def _flatten(self, page: PageImage, segmentation: SegmentationMap, stands: bool, *, few: float = 2.0) -> _Upright:
        """Flatten the page by its grid; if few names can be read then, try the lines as those of the other grid.

        On a sheet of half a metre only lines of 5 mm may be visible, and pass for lines of 1 mm; on a cutting it may
        be the other way round.  If no try shows enough names, the first one is kept.
        """
        first = self._by_grid(page, segmentation, stands)
        found, scale = first.sheet.rectified, first.sheet.rectified.grid_scale
        side_mm = max(found.pixels.shape[:2]) / found.px_per_mm
        for factor in (5.0, 0.2):
            if first.names < few and scale.source == "grid" and 150.0 <= side_mm * factor <= 800.0:
                px_per_mm = (scale.px_per_mm_x * scale.px_per_mm_y) ** 0.5 / factor
                other = self._by_grid(replace(page, px_per_mm_hint=px_per_mm), segmentation, stands)
                if other.names >= few:
                    return replace(other, sheet=replace(other.sheet, page=page))
        return first

    def _by_grid(self, page: PageImage, segmentation: SegmentationMap, stands: bool) -> _Upright:
        """Flatten the page by the grid that is found on it, down to wrinkles, and turn it upright."""
        flat = self.stages.rectify(page, segmentation, LAYOUT.px_per_mm)
        return self._upright(self.stages.unbend(flat, self.networks[BEND]), stands)

    def _upright(self, flat: Sheet, stands: bool, *, enough: float = 3.0, clearly: float = 1.0) -> _Upright:
        """Turn the sheet so that its lead names read.

        It stays as it is unless another way up reads clearly better.  It is laid on its side only if neither way up
        reads enough.  If a person states that the page `stands`, it stays as it came in.
        """
        if stands:
            flat = replace(flat, rectified=turn(flat.rectified, -flat.rectified.quarter_turns))
        canvas = flat.canvas(LABEL.px_per_mm)
        best, most = 0, -1.0
        best_labels: tuple[LeadLabel, ...] = ()
        for quarter in (0,) if stands else (0, 2, 1, 3):
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

    def _read(self, upright: _Upright, task: _Task) -> Reading:
        """Read an upright sheet; if its scale was a guess, correct it by what was read, at most twice, and read again.

        A second correction follows only if the first one was large.
        """
        seen = self._see(upright, task)
        for last in (False, True):
            if upright.sheet.rectified.grid_scale.source == "default":
                upright = self._to_scale(upright, seen, task, last=last)
                seen = self._see(upright, task)
        return seen

    def _see(self, upright: _Upright, task: _Task) -> Reading:
        """Read print, pulses and rows of an upright sheet."""
        stages, sheet = self.stages, upright.sheet
        text = stages.read_text(sheet, self.recogniser)
        marks = stages.read_marks(sheet.rectified.pixels, self.networks[LAYOUT])
        rows = tuple(marks.rows or stages.rows_from_ink(sheet))
        points_px = task.corrections.row_baselines_px
        return Reading(
            key=task.key,
            page=sheet.page,
            to_original=task.to_original,
            segmentation=sheet.segmentation,
            rectified=sheet.rectified,
            labels=upright.labels,
            text=text,
            marks=stages.measure_pulses(sheet, marks),
            rows=rows,
            row_baselines_px=points_px,
            traces=self._trace(sheet, task.to_original, rows, points_px),
        )

    def _trace(
        self,
        sheet: Sheet,
        to_original: Float64,
        rows: Sequence[RowBand],
        points_px: Sequence[PagePoint] | None,
    ) -> TraceSet:
        """Trace rows: those that were found, or those with a zero line through each of the points of the page."""
        stages = self.stages
        if points_px is not None:
            rows = stages.stated_rows(points_px, in_original(sheet.rectified, to_original), rows)
        traces = stages.trace_rows(sheet, rows, self.networks[TRACE], read=stages.read_rows)
        return stages.follow_strokes(traces, sheet)

    def _match(self, seen: Reading, corrections: Corrections) -> LayoutMatch:
        """Find the layout, as far as it is not stated."""
        seen_mm = [x for row in seen.marks.rows for x in row.boundaries_mm]
        labels = self.stages.join_lead_names(seen.labels, seen.text)
        guessed = seen.rectified.grid_scale.source == "default"
        return self.stages.identify_layout(
            labels, seen.traces, self.layouts, seen_mm=seen_mm, guessed=guessed, stated=corrections
        )

    def _finish(self, page: PageImage, seen: Reading, default: Calibration, corrections: Corrections) -> Digitization:
        """Make the record of what was seen on a page."""
        stages, sheet = self.stages, Sheet(page=seen.page, segmentation=seen.segmentation, rectified=seen.rectified)
        rectified = in_original(seen.rectified, seen.to_original, corrections.quarter_turns or 0)
        seen_mm = [x for row in seen.marks.rows for x in row.boundaries_mm]
        printed = stages.printed_values(seen.text)
        stated = replace(stages.stated_scale(seen.text), heart_rate_per_minute=printed.heart_rate_per_minute)
        laid = self._match(seen, corrections)
        speed = stages.infer_calibration(laid, seen.marks, stated, default, corrections).paper_speed_mm_per_s
        match = stages.settle_columns(laid, seen.traces, sheet, seen_mm, speed)
        match = stages.put_where_stated(match, seen.traces, rectified, corrections)
        traces = stages.fit_ink(seen.traces, sheet, match, seen.marks.pulses, seen.text, self.networks[SPIKE])
        traces, match = stages.lay_by_hand(traces, match, sheet, rectified, corrections)
        calibration = stages.infer_calibration(match, seen.marks, stated, default, corrections)
        told = stages.tell_from_others(traces, match)
        record = stages.check_printed_rate(stages.calibrate(told, match, calibration), printed)
        audit = stages.audit(sheet, record, match, told, seen.marks.pulses, seen.text)
        read = record if told is traces else stages.calibrate(traces, match, calibration)
        read, _ = stages.leave_out(read, audit, corrections)
        record, audit = stages.leave_out(record, audit, corrections)
        record = stages.lower_confidence(record, audit)
        weights = {network.name: network.sha256 for network in self.networks.values()}
        weights[self.recogniser.name] = self.recogniser.sha256
        return Digitization(
            page=page,
            rectified=rectified,
            layout_match=match,
            traces=told,
            record=record,
            quality=stages.assess(record, match, traces, rectified.grid_scale, audit, read),
            weights_sha256=weights,
            text=seen.text,
            printed=printed,
            audit=audit,
            corrections=corrections,
        )

    def _to_scale(
        self,
        upright: _Upright,
        seen: Reading,
        task: _Task,
        *,
        last: bool,
        settled: float = 0.02,
        enough: int = 4,
        share: float = 0.6,
    ) -> _Upright:
        """Correct a guessed scale, and a lean, by what was read; the scale is known if right to `settled`, or `last`.

        That takes `enough` lead names, or this `share` of those that the layout has: two tell a layout of three leads.

        Raises
        ------
        GridNotFound
            Too few lead names were found to rely on the columns.
        """
        corrections = task.corrections
        rectified = in_original(seen.rectified, seen.to_original)
        seen_mm = [x for row in seen.marks.rows for x in row.boundaries_mm]
        laid = self._match(seen, corrections)
        match = self.stages.settle_columns(laid, seen.traces, upright.sheet, seen_mm, None)  # no speed without a scale
        match = self.stages.put_where_stated(match, seen.traces, rectified, corrections)
        named = {label.lead for label in match.labels} & set(match.layout.leads)
        few = len(named) < min(enough, share * len(match.layout.leads)) and corrections.layout is None
        if not match.column_mm or few:
            raise GridNotFound("no ECG grid and few lead names were found, and the file states no resolution")
        stated = self.stages.stated_scale(seen.text)
        stated = replace(
            stated,
            speed_mm_per_s=corrections.paper_speed_mm_per_s or stated.speed_mm_per_s,
            gain_mm_per_mv=corrections.gain_mm_per_mv or stated.gain_mm_per_mv,
        )
        factor = self.stages.true_scale(match, seen.marks, stated, task.default)
        source = "columns" if last or abs(factor - 1) <= settled else "default"
        stands = corrections.quarter_turns is not None
        level = self.stages.lean_back(upright.sheet, self.stages.measure_lean(match, seen.traces, upright.sheet))
        return self._upright(self.stages.rescale(level, factor, source), stands)

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
    page: PageImage,
    digitizer: Digitizer | None = None,
    *,
    default_calibration: Calibration | None = None,
    corrections: Corrections | None = None,
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
    corrections : Corrections, optional
        What a person states about the page.

    Returns
    -------
    Digitization

    Raises
    ------
    DigitizationError
        The page cannot become a record; the message says why in words.
    """
    digitizer = digitizer or _shipped()
    return digitizer.digitize(page, default_calibration=default_calibration, corrections=corrections)
