"""The whole story on one screen: a page in, everything that was read from it out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.calibrate import calibrate, infer_calibration
from pipeline.datatypes import (
    Calibration,
    Digitization,
    Layout,
    PageImage,
    PrintedMarks,
    RectifiedPage,
)
from pipeline.errors import TraceNotFound
from pipeline.inference import Network, choose_device, load_network
from pipeline.layout import identify_layout, load_layouts
from pipeline.marks import read_marks
from pipeline.paper import sample_paper, turn
from pipeline.quality import assess
from pipeline.rectify import rectify
from pipeline.segment import segment
from pipeline.trace import trace_rows
from pipeline.unet import LAYOUT_PX_PER_MM


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Digitizer:
    """The three networks and the layouts, loaded once."""

    page_network: Network
    layout_network: Network
    trace_network: Network
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
            page_network=load_network("page", chosen),
            layout_network=load_network("layout", chosen),
            trace_network=load_network("trace", chosen),
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
        flat = rectify(page, segmentation, px_per_mm=LAYOUT_PX_PER_MM)
        rectified, marks = self._upright(flat)
        if not marks.rows:
            raise TraceNotFound("no row of an ECG was found on the page")
        traces = trace_rows(lambda x, y: sample_paper(page, rectified, x, y), marks.rows, self.trace_network)
        seen_mm = [x for row in marks.rows for x in row.boundaries_mm]
        match = identify_layout(marks.labels, traces, self.layouts, seen_mm=seen_mm)
        calibration = infer_calibration(traces, match, marks, default_calibration or Calibration())
        record = calibrate(traces, match, calibration)
        networks = (self.page_network, self.layout_network, self.trace_network)
        return Digitization(
            page=page,
            rectified=rectified,
            layout_match=match,
            traces=traces,
            record=record,
            quality=assess(record, match, traces, rectified.grid_scale),
            weights_sha256={network.name: network.sha256 for network in networks},
        )

    def _upright(self, flat: RectifiedPage, *, enough: float = 1.5) -> tuple[RectifiedPage, PrintedMarks]:
        """Turn the sheet so that its lead names read; the other three turns are tried until one is clearly better."""
        best: tuple[float, RectifiedPage, PrintedMarks] | None = None
        tried = []
        for quarter in (0, 2, 1, 3):
            sheet = turn(flat, quarter)
            marks = read_marks(sheet.pixels, self.layout_network)
            tried.append(marks.evidence)
            if best is None or marks.evidence > best[0]:
                best = (marks.evidence, sheet, marks)
            if len(tried) >= 2 and best[0] > 6 and best[0] > enough * np.sort(tried)[-2]:
                break
        assert best is not None
        return best[1], best[2]
