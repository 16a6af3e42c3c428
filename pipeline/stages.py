"""The stages of the digitizer as one value.

A stage is a function from data types to a data type.  `SHIPPED` lists the ones the product runs; an evaluation takes
`dataclasses.replace(stages, ...)` to run others or to measure them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pipeline.datatypes import (
    ByteArray,
    Calibration,
    Corrections,
    EcgRecord,
    GridScale,
    InkAudit,
    Layout,
    LayoutMatch,
    LeadLabel,
    PageImage,
    PagePoint,
    PrintedMarks,
    PrintedValues,
    PulseBox,
    Quality,
    RectifiedPage,
    RowBand,
    SegmentationMap,
    StatedScale,
    TextLine,
    TraceSet,
)
from pipeline.layout.identify import identify_layout
from pipeline.layout.settle import measure_lean, settle_columns
from pipeline.networks.inference import Network
from pipeline.printing.labels import read_labels
from pipeline.printing.recogniser import Recogniser
from pipeline.printing.statements import join_lead_names, stated_scale
from pipeline.printing.text import read_text
from pipeline.printing.values import printed_values
from pipeline.rows.by_hand import lay_by_hand, put_where_stated, stated_rows
from pipeline.rows.components import rows_from_ink
from pipeline.rows.drawing import follow_strokes
from pipeline.rows.marks import measure_pulses, read_marks
from pipeline.rows.refine import fit_ink
from pipeline.rows.trace import RowReader, read_rows, trace_rows
from pipeline.sheet.bend import unbend
from pipeline.sheet.cut import cut_sheet
from pipeline.sheet.paper import Sheet, lean_back, rescale
from pipeline.sheet.rectify import lay_flat, rectify
from pipeline.sheet.segment import segment
from pipeline.sheet.straight import bend_of_rows
from pipeline.signal.accept import leave_out
from pipeline.signal.agreement import tell_from_others
from pipeline.signal.audit import audit, lower_confidence
from pipeline.signal.calibrate import calibrate
from pipeline.signal.calibration import infer_calibration, true_scale
from pipeline.signal.heart_rate import check_printed_rate
from pipeline.signal.quality import assess


class RowTracer(Protocol):
    """Form of `rows.trace.trace_rows`."""

    def __call__(self, sheet: Sheet, rows: Sequence[RowBand], network: Network, /, *, read: RowReader) -> TraceSet:
        """Trace rows; `read` reads their strips."""
        ...


class LayoutFinder(Protocol):
    """Form of `layout.identify.identify_layout`."""

    def __call__(
        self,
        labels: Sequence[LeadLabel],
        traces: TraceSet,
        layouts: Sequence[Layout],
        /,
        *,
        seen_mm: Sequence[float],
        guessed: bool,
        stated: Corrections,
    ) -> LayoutMatch:
        """Find the layout; `seen_mm` is the paper x of the boundaries that were seen; the scale may be `guessed`."""
        ...


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Stages:
    """The functions a `Digitizer` composes, in the order in which it calls them."""

    cut_sheet: Callable[[PageImage, Corrections], tuple[PageImage, npt.NDArray[np.float64]]]
    segment: Callable[[PageImage, Network], SegmentationMap]
    rectify: Callable[[PageImage, SegmentationMap, float], Sheet]  # the float: canvas pixels per mm
    lay_flat: Callable[[PageImage, SegmentationMap, float], Sheet]
    unbend: Callable[[Sheet, Network], Sheet]
    bend_of_rows: Callable[[TraceSet], float | None]
    read_labels: Callable[[ByteArray, Network], tuple[LeadLabel, ...]]
    read_text: Callable[[Sheet, Recogniser], tuple[TextLine, ...]]
    printed_values: Callable[[Sequence[TextLine]], PrintedValues]
    read_marks: Callable[[ByteArray, Network], PrintedMarks]
    rows_from_ink: Callable[[Sheet], tuple[RowBand, ...]]
    stated_rows: Callable[[Sequence[PagePoint], RectifiedPage, Sequence[RowBand]], Sequence[RowBand]]
    trace_rows: RowTracer
    read_rows: RowReader  # called by `trace_rows`
    follow_strokes: Callable[[TraceSet, Sheet], TraceSet]
    join_lead_names: Callable[[Sequence[LeadLabel], Sequence[TextLine]], tuple[LeadLabel, ...]]
    identify_layout: LayoutFinder
    settle_columns: Callable[[LayoutMatch, TraceSet, Sheet, Sequence[float], float | None], LayoutMatch]
    put_where_stated: Callable[[LayoutMatch, TraceSet, RectifiedPage, Corrections], LayoutMatch]
    lay_by_hand: Callable[[TraceSet, LayoutMatch, Sheet, RectifiedPage, Corrections], tuple[TraceSet, LayoutMatch]]
    measure_pulses: Callable[[Sheet, PrintedMarks], PrintedMarks]
    stated_scale: Callable[[Sequence[TextLine]], StatedScale]
    fit_ink: Callable[[TraceSet, Sheet, LayoutMatch, Sequence[PulseBox], Sequence[TextLine], Network], TraceSet]
    true_scale: Callable[[LayoutMatch, PrintedMarks, StatedScale, Calibration], float]
    rescale: Callable[[Sheet, float, str], Sheet]
    measure_lean: Callable[[LayoutMatch, TraceSet, Sheet], float]
    lean_back: Callable[[Sheet, float], Sheet]
    infer_calibration: Callable[[LayoutMatch, PrintedMarks, StatedScale, Calibration, Corrections], Calibration]
    tell_from_others: Callable[[TraceSet, LayoutMatch], TraceSet]
    calibrate: Callable[[TraceSet, LayoutMatch, Calibration], EcgRecord]
    check_printed_rate: Callable[[EcgRecord, PrintedValues], EcgRecord]
    audit: Callable[[Sheet, EcgRecord, LayoutMatch, TraceSet, Sequence[PulseBox], Sequence[TextLine]], InkAudit]
    leave_out: Callable[[EcgRecord, InkAudit, Corrections], tuple[EcgRecord, InkAudit]]
    lower_confidence: Callable[[EcgRecord, InkAudit], EcgRecord]
    assess: Callable[[EcgRecord, LayoutMatch, TraceSet, GridScale, InkAudit, EcgRecord], Quality]  # last: as read


SHIPPED = Stages(
    cut_sheet=cut_sheet,
    segment=segment,
    rectify=rectify,
    lay_flat=lay_flat,
    unbend=unbend,
    bend_of_rows=bend_of_rows,
    read_labels=read_labels,
    read_text=read_text,
    printed_values=printed_values,
    read_marks=read_marks,
    rows_from_ink=rows_from_ink,
    stated_rows=stated_rows,
    trace_rows=trace_rows,
    read_rows=read_rows,
    follow_strokes=follow_strokes,
    join_lead_names=join_lead_names,
    identify_layout=identify_layout,
    settle_columns=settle_columns,
    put_where_stated=put_where_stated,
    lay_by_hand=lay_by_hand,
    measure_pulses=measure_pulses,
    stated_scale=stated_scale,
    fit_ink=fit_ink,
    true_scale=true_scale,
    rescale=rescale,
    measure_lean=measure_lean,
    lean_back=lean_back,
    infer_calibration=infer_calibration,
    tell_from_others=tell_from_others,
    calibrate=calibrate,
    check_printed_rate=check_printed_rate,
    audit=audit,
    leave_out=leave_out,
    lower_confidence=lower_confidence,
    assess=assess,
)
