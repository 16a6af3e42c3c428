"""A drawn sheet and its record: what is added to the one or taken from the other is found, what is no ECG is not."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest

from pipeline import Calibration, EcgRecord, GridScale, LayoutMatch, Lead, PageImage, RectifiedPage, TraceSet
from pipeline.datatypes import (
    ByteArray,
    DrawnLine,
    FloatArray,
    InkAudit,
    LeadLabel,
    Mark,
    PulseBox,
    SegmentationMap,
    TextLine,
)
from pipeline.layout.file import load_layouts
from pipeline.layout.identify import identify_layout
from pipeline.output.files import to_json
from pipeline.output.overlay import draw_overlay
from pipeline.runs import runs_of
from pipeline.sheet.paper import Sheet
from pipeline.signal.audit import audit, lower_confidence
from pipeline.signal.beats import find_beats
from pipeline.signal.calibrate import calibrate, redraw
from pipeline.signal.quality import assess
from pipeline.training.recordings.simulate import simulate_ecg
from tests.pipeline import paper_samples
from tests.pipeline.paper_samples import labels_of, printed

LAYOUTS = load_layouts()
NAMED = {layout.name: layout for layout in LAYOUTS}
PX = 8.0
GRID = GridScale(px_per_mm_x=PX, px_per_mm_y=PX, score=1.0, source="grid", doubt_mm=0.01)
HZ = 500.0


@dataclass
class Paper:
    """A sheet of 290 x 130 mm with a red grid that takes strokes of a pen; `seen_as` is what the page network sees."""

    pixels: ByteArray
    trace: FloatArray
    text: FloatArray

    @classmethod
    def blank(cls) -> "Paper":
        pixels = np.full((round(130 * PX), round(290 * PX), 3), 255, np.uint8)
        pixels[:: round(5 * PX)], pixels[:, :: round(5 * PX)] = (240, 120, 120), (240, 120, 120)
        nothing = np.zeros(pixels.shape[:2], np.float32)
        return cls(pixels, nothing.copy(), nothing.copy())

    def stroke(
        self, xy_mm: list[tuple[float, float]], *, seen_as: str = "trace", width_mm: float = 0.4, grey: int = 20
    ) -> None:
        points = [np.round(np.array(xy_mm) * PX - 0.5).astype(np.int32)]
        width = max(round(width_mm * PX), 1)
        cv2.polylines(self.pixels, points, False, (grey, grey, grey + 5), width)
        if seen_as != "grid":
            cv2.polylines(self.trace if seen_as == "trace" else self.text, points, False, 1.0, width)

    def sheet(self) -> Sheet:
        i, j = np.mgrid[0:27, 0:59]
        rectified = RectifiedPage(
            node_xy=np.stack([j * 5.0 * PX - 0.5, i * 5.0 * PX - 0.5], -1).astype(np.float32),
            node_mm=5.0,
            pixels=np.full((130, 290, 3), 255, np.uint8),
            px_per_mm=1.0,
            grid_scale=GRID,
            homography=np.diag([PX, PX, 1.0]),
        )
        maps = SegmentationMap(grid=np.zeros_like(self.trace), trace=self.trace, text=self.text, scale=1.0)
        return Sheet(page=PageImage(pixels=self.pixels), segmentation=maps, rectified=rectified)


@dataclass
class Case:
    """A page, its record, and what the audit says of them."""

    paper: Paper
    traces: TraceSet
    match: LayoutMatch
    record: EcgRecord
    pulses: tuple[PulseBox, ...] = ()
    text: tuple[TextLine, ...] = ()

    def audit(self) -> InkAudit:
        return audit(self.paper.sheet(), self.record, self.match, self.traces, self.pulses, self.text)

    def doubtful(self) -> list[tuple[Mark, Lead]]:
        return [(mark.kind, mark.lead) for mark in self.audit().marks if mark.doubtful]

    def at(self, lead: Lead, time_s: float) -> tuple[float, float]:
        """Paper x and y of a lead's line."""
        for one in redraw(self.record, self.match, self.traces):
            column = round((time_s - one.start_s) * 25 * self.traces.columns_per_mm)
            if one.lead is lead and 0 <= column < one.y_mm.size and one.row < 3:
                return one.x0_mm + column / self.traces.columns_per_mm, float(one.y_mm[column])
        raise AssertionError(f"{lead} is not printed at {time_s} s")

    def calm(self, lead: Lead) -> float:
        """A time at which the rows run level."""
        drawn = [one for one in redraw(self.record, self.match, self.traces) if one.lead is lead]
        first, stop = drawn[0].first, drawn[0].first + drawn[0].y_mm.size
        half = round(2.5 * self.traces.columns_per_mm)
        rows = self.traces.row_mm[:, first:stop]
        spread = [np.ptp(rows[:, k - half : k + half], axis=1).max() for k in range(half, rows.shape[1] - half)]
        return drawn[0].start_s + (half + int(np.argmin(spread))) / self.traces.columns_per_mm / 25

    def change(self, lead: Lead, start_s: float, end_s: float, how: Callable[[FloatArray], FloatArray]) -> None:
        """Change a stretch of a lead in the record; the page stays as it is."""
        signal = self.record.signal_mv.copy()
        part = signal[self.record.leads.index(lead), round(start_s * HZ) : round(end_s * HZ)]
        part[:] = how(part)
        self.record = replace(self.record, signal_mv=signal)


def drawn(step_mm: float = 0.0) -> Case:
    """A page of 3x4+1R; V4 stands `step_mm` below the leads before it, and the pen is not lifted."""
    layout = NAMED["3x4+1R"]
    traces = printed(layout, simulate_ecg(np.random.default_rng(3), disease="none"))
    match = identify_layout(labels_of(layout, traces), traces, LAYOUTS)
    first = round((match.column_mm[-1][0] - traces.x0_mm) * traces.columns_per_mm)
    traces.row_mm[0, first:] += np.float32(step_mm)
    match = identify_layout(labels_of(layout, traces), traces, LAYOUTS)
    paper = Paper.blank()
    x = traces.x0_mm + np.arange(traces.row_mm.shape[1]) / traces.columns_per_mm
    for row in traces.row_mm:
        for start, stop in runs_of(np.isfinite(row)):
            paper.stroke(list(zip(x[start:stop].tolist(), row[start:stop].tolist(), strict=True)))
    record = calibrate(traces, match, Calibration(speed_source="columns", gain_source="pulse"))
    return Case(paper, traces, match, record)


@pytest.fixture
def case() -> Case:
    return drawn()


def test_a_page_read_right_has_no_mark(case: Case) -> None:
    found = case.audit()
    assert [mark for mark in found.marks if mark.doubtful] == []
    assert found.pen_mm == pytest.approx(0.6, abs=0.15)


@pytest.mark.parametrize("seen_as", ["trace", "text"])
@pytest.mark.parametrize("height_mm", [3.5, 18.0])
def test_a_spike_that_is_not_in_the_record_is_found(case: Case, height_mm: float, seen_as: str) -> None:
    """The page network takes some spikes for print: what is as dark as the pen and stands on the trace counts too."""
    time_s = case.calm(Lead.V3)
    x, y = case.at(Lead.V3, time_s)
    case.paper.stroke([(x, y), (x, y - height_mm)], seen_as=seen_as, width_mm=0.25)
    (mark,) = [mark for mark in case.audit().marks if mark.doubtful]
    assert (mark.kind, mark.lead) == (Mark.SPIKE, Lead.V3)
    assert mark.start_s == pytest.approx(time_s, abs=0.03)
    assert mark.reach_mm == pytest.approx(height_mm, abs=0.4)


def test_the_rest_of_a_cut_wave_is_found(case: Case) -> None:
    ii = case.record.signal_mv[case.record.leads.index(Lead.II)]
    limit = float(np.nanmax(ii)) - 0.5
    case.change(Lead.II, 0, 10, lambda part: np.minimum(part, limit))
    marks = [mark for mark in case.audit().marks if mark.doubtful]
    assert marks and {mark.lead for mark in marks} == {Lead.II}
    assert {mark.kind for mark in marks} == {Mark.WAVE}
    assert max(mark.reach_mm for mark in marks) == pytest.approx(5.0, abs=1.0)


def test_a_lead_that_ends_as_a_level_line_is_found_both_ways(case: Case) -> None:
    case.change(Lead.V4, 8.75, 10.0, lambda part: np.full_like(part, 0.4))
    kinds = {kind for kind, lead in case.doubtful() if lead is Lead.V4}
    assert Mark.UNSUPPORTED in kinds and len(kinds) > 1


def _put_on(case: Case, row: int, other: int, x0_mm: float, x1_mm: float) -> None:
    """Let the line of one row follow the ink of another."""
    lines = case.traces.row_mm.copy()
    first, stop = (round((x - case.traces.x0_mm) * case.traces.columns_per_mm) for x in (x0_mm, x1_mm))
    lines[row, first:stop] = lines[other, first:stop] + np.float32(0.1)
    case.traces = replace(case.traces, row_mm=lines)


def test_two_rows_that_follow_the_same_ink_are_named(case: Case) -> None:
    x, _ = case.at(Lead.V5, 8.5)
    _put_on(case, 1, 2, x, x + 10)
    case.record = calibrate(case.traces, case.match, case.record.calibration)
    shared = [mark for mark in case.audit().marks if mark.kind is Mark.SHARED]
    assert {(mark.lead, mark.other) for mark in shared} == {(Lead.V5, Lead.V6), (Lead.V6, Lead.V5)}
    for mark in shared:
        assert mark.doubtful and mark.reach_mm == pytest.approx(10, abs=0.2)
        assert (mark.start_s, mark.end_s) == pytest.approx((8.5, 8.9), abs=0.02)
    found = InkAudit(marks=tuple(shared))
    quality = assess(case.record, case.match, case.traces, GRID, found)
    said = [words for words in quality.warnings if "the same ink" in words]
    assert said == ["leads V5 and V6 follow the same ink from 8.5 to 8.9 s: one is misread"]
    sure = lower_confidence(case.record, found).confidence[case.record.leads.index(Lead.V6)]
    assert sure[4260:4440].max() < 0.25


@pytest.mark.parametrize(("length_mm", "drawn"), [(1.0, False), (10.0, True)])
def test_rows_that_cross_or_that_a_drawing_lays_on_each_other_share_nothing(
    case: Case, length_mm: float, drawn: bool
) -> None:
    x, _ = case.at(Lead.V5, 8.5)
    _put_on(case, 1, 2, x, x + length_mm)
    if drawn:
        lines = tuple(DrawnLine(row=k, first=0, y_mm=row) for k, row in enumerate(case.traces.row_mm))
        case.traces = replace(case.traces, lines=lines)
    assert Mark.SHARED not in {mark.kind for mark in case.audit().marks}


def test_waves_that_run_off_the_picture_are_named(case: Case) -> None:
    top_mm = min(case.at(Lead.I, time_s)[1] for time_s in np.arange(0.1, 2.4, 0.01))
    sheet, off = case.paper.sheet(), round((top_mm + 2.0) * PX)
    cropped = replace(
        sheet,
        page=PageImage(pixels=sheet.page.pixels[off:]),
        segmentation=SegmentationMap(
            grid=sheet.segmentation.grid[off:], trace=case.paper.trace[off:], text=case.paper.text[off:], scale=1.0
        ),
        rectified=replace(sheet.rectified, node_xy=sheet.rectified.node_xy - np.float32([0, off])),
    )
    found = audit(cropped, case.record, case.match, case.traces, (), ())
    cut = [mark for mark in found.marks if mark.kind is Mark.CUT]
    assert cut and all(mark.doubtful and mark.end_s - mark.start_s < 0.3 for mark in cut)
    assert Lead.I in {mark.lead for mark in cut}
    quality = assess(case.record, case.match, case.traces, GRID, found)
    assert any(words.startswith("lead I runs off the picture at ") for words in quality.warnings)


@pytest.mark.parametrize(
    ("depth_mm", "every_beat", "named"), [(3.0, False, True), (0.5, False, False), (3.0, True, False)]
)
def test_a_record_that_follows_a_printed_letter_is_named(
    case: Case, depth_mm: float, every_beat: bool, named: bool
) -> None:
    """The page network takes a V on the trace for print; a straight stroke is none, nor what every beat shows."""
    lead = Lead.AVF
    row, time_s = case.record.leads.index(lead), case.calm(lead)
    x, y = case.at(lead, time_s)
    name = LeadLabel(lead=lead, x_mm=x, y_mm=y + 1, score=1.0)
    case.match = replace(case.match, labels=(*case.match.labels, name))
    times = np.arange(5000) / HZ
    phase_mm = (times - time_s) * 25
    if every_beat:
        beats = find_beats(case.record.signal_mv[row, 1250:2500].astype(np.float64) * 10, HZ / 25)
        period_mm = float(np.median(np.diff(beats))) / HZ * 25
        phase_mm = (phase_mm + period_mm / 2) % period_mm - period_mm / 2
    signal = case.record.signal_mv.copy()
    signal[row] -= (np.interp(phase_mm, [-2, 0, 2], [0, depth_mm, 0]) / 10).astype(np.float32)
    case.record = replace(case.record, signal_mv=signal)
    around = slice(round((y - 2) * PX), round((y + 4) * PX)), slice(round((x - 2.2) * PX), round((x + 2.2) * PX))
    case.paper.trace[around] = 0
    case.paper.stroke([(x - 2, y), (x, y + depth_mm), (x + 2, y)], seen_as="text")
    found = case.audit()
    assert (Mark.PRINT in {mark.kind for mark in found.marks}) == named
    quality = assess(case.record, case.match, case.traces, GRID, found)
    assert any(words.startswith("lead aVF follows print from ") for words in quality.warnings) == named


def test_an_invented_stroke_without_ink_is_found(case: Case) -> None:
    """It lasts for less than a tenth of a second, and is 12 mm long."""
    time_s = case.calm(Lead.AVL)
    case.change(Lead.AVL, time_s, time_s + 0.02, lambda part: part + np.float32(0.7))
    (lead,) = {mark.lead for mark in case.audit().marks if mark.kind is Mark.UNSUPPORTED}
    assert lead is Lead.AVL


def test_a_stretch_that_is_shifted_is_found(case: Case) -> None:
    case.change(Lead.AVL, 3.0, 3.4, lambda part: part + np.float32(0.4))
    assert {lead for _, lead in case.doubtful()} == {Lead.AVL}


@pytest.mark.parametrize("seconds", [0.2, 0.12])
def test_a_level_stretch_that_is_shifted_onto_the_grid_is_found(case: Case, seconds: float) -> None:
    """A heavy line of the grid under the record is no trace: the page network sees that beside it."""
    time_s = case.calm(Lead.V6)
    x, y = case.at(Lead.V6, time_s)
    case.change(Lead.V6, time_s - seconds / 2, time_s + seconds / 2, lambda part: part + np.float32(0.5))
    rows = slice(round((y - 6) * PX), round((y - 4) * PX))
    case.paper.pixels[rows, round((x - 5) * PX) : round((x + 5) * PX)] = (150, 110, 110)
    assert Lead.V6 in {lead for _, lead in case.doubtful()}


@pytest.mark.parametrize("seconds", [0.3, 1.5])
def test_a_gap_of_the_record_over_ink_is_found(case: Case, seconds: float) -> None:
    start_s = case.calm(Lead.V6) - 0.15
    case.change(Lead.V6, start_s, start_s + seconds, lambda part: np.full_like(part, np.nan))
    assert (Mark.LINE, Lead.V6) in case.doubtful()


def test_a_lead_without_a_sample_has_no_marks_of_its_line(case: Case) -> None:
    case.change(Lead.V6, 0.0, 10.0, lambda part: np.full_like(part, np.nan))
    assert Lead.V6 not in {mark.lead for mark in case.audit().marks if mark.kind in (Mark.UNSUPPORTED, Mark.CUT)}


@pytest.mark.parametrize("grid", [False, True])
def test_a_spike_as_pale_as_the_grid_is_found(case: Case, grid: bool) -> None:
    """A cart prints spikes thinner and paler than the trace; the page network takes them for lines of the grid."""
    time_s = case.calm(Lead.V3)
    x, y = case.at(Lead.V3, time_s)
    x = np.floor(x / 5) * 5 + 2.5  # between two lines of the grid
    if grid:
        case.paper.pixels[:: round(5 * PX)], case.paper.pixels[:, :: round(5 * PX)] = (165, 165, 165), (165, 165, 165)
    assert case.doubtful() == []
    case.paper.stroke([(x, y), (x, y - 12)], seen_as="grid", width_mm=0.25, grey=160)
    assert case.doubtful() == [(Mark.SPIKE, Lead.V3)]


@pytest.mark.parametrize(("count", "held"), [(2, False), (12, True)])
def test_pale_spikes_of_all_rows_that_run_into_one_line_are_no_rules(case: Case, count: int, held: bool) -> None:
    """A form has a few upright rules, a paced page has a line for every beat."""
    for x in 32.5 + 15.0 * np.arange(count):
        case.paper.stroke([(x, 12.0), (x, 118.0)], seen_as="grid", width_mm=0.25, grey=140)
    assert bool(case.doubtful()) is held


@pytest.mark.parametrize("darkness", [130, 60])
def test_a_spike_on_a_line_of_the_grid_is_found(case: Case, darkness: int) -> None:
    time_s = case.calm(Lead.V2)
    x, y = case.at(Lead.V2, time_s)
    case.paper.pixels[:, round(x * PX) - 1 : round(x * PX) + 2] = 255 - darkness
    assert case.doubtful() == []
    case.paper.stroke([(x, y), (x, y + 12)])
    assert case.doubtful() == [(Mark.SPIKE, Lead.V2)]


def test_dust_and_scribbles_between_the_rows_are_not_doubtful(case: Case) -> None:
    x, y = case.at(Lead.V1, case.calm(Lead.V1))
    case.paper.stroke([(x, y - 2.2), (x + 1.0, y - 2.2)], width_mm=1.2)
    case.paper.stroke([(x, y + 8), (x + 4, y + 11), (x + 9, y + 8.5), (x + 14, y + 10)])
    assert case.doubtful() == []


def test_what_is_printed_beside_the_signal_is_none(case: Case) -> None:
    """Separators, a pulse, print, a rule, an upright line over the page, and a line of the grid seen as trace."""
    for start, _ in case.match.column_mm[1:]:
        for level in case.traces.baseline_mm[:3].tolist():
            case.paper.stroke([(start, level - 4), (start, level + 4)], width_mm=0.8)
    x, y = case.at(Lead.I, 0.4)
    case.pulses = (PulseBox(x0_mm=x, y0_mm=y - 10, x1_mm=x + 5, y1_mm=y),)
    case.paper.stroke([(x, y), (x, y - 10), (x + 5, y - 10), (x + 5, y)])
    x, y = case.at(Lead.V2, 6.2)
    case.text = (TextLine(text="25 mm/s", x0_mm=x, y0_mm=y - 5, x1_mm=x + 4, y1_mm=y - 1, score=0.9),)
    case.paper.stroke([(x + 1, y - 1), (x + 3, y - 5)])
    case.paper.stroke([(20, 118), (260, 118)], width_mm=0.3)
    case.paper.stroke([(100, 0), (100, 129)], width_mm=0.3)
    case.paper.trace[round(40 * PX) : round(40 * PX) + 2, round(100 * PX) : round(140 * PX)] = 1.0
    assert case.doubtful() == []


def test_a_pulse_whose_flank_a_name_hides_is_as_wide_as_the_others(case: Case) -> None:
    starts = [case.at(lead, 0.4) for lead in (Lead.I, Lead.II, Lead.III)]
    for (x, y), seen_mm in zip(starts, (5.0, 5.0, 2.0), strict=True):
        case.pulses += (PulseBox(x0_mm=x, y0_mm=y - 10, x1_mm=x + seen_mm, y1_mm=y),)
        case.paper.stroke([(x, y), (x, y - 10), (x + 5, y - 10), (x + 5, y)])
    assert case.doubtful() == []


def test_a_letter_that_goes_on_beyond_its_box_is_print(case: Case) -> None:
    """A printed "V3" that is larger than its box stands on the trace; a spike at the same place is none of it."""
    time_s = case.calm(Lead.V3)
    x, y = case.at(Lead.V3, time_s)
    case.text = (TextLine(text="V", x0_mm=x - 4, y0_mm=y - 9, x1_mm=x - 1, y1_mm=y - 3, score=0.9),)
    case.paper.stroke([(x - 2, y - 4), (x, y - 4), (x, y)], seen_as="text")
    assert case.doubtful() == []
    case.paper.stroke([(x, y), (x, y - 18)], seen_as="text", width_mm=0.25)
    assert case.doubtful() == [(Mark.SPIKE, Lead.V3)]


def test_a_name_that_was_not_read_stands_where_the_others_do(case: Case) -> None:
    (name,) = [each for each in case.match.labels if each.lead is Lead.V3]
    case.match = replace(case.match, labels=tuple(each for each in case.match.labels if each is not name))
    _, y = case.at(Lead.V3, 5.0 + (name.x_mm - case.match.column_mm[2][0]) / 25)
    case.paper.stroke([(name.x_mm, name.y_mm), (name.x_mm, y)], seen_as="text")
    assert case.doubtful() == []


def test_a_line_of_the_grid_that_is_taken_for_trace_returns_every_5_mm(case: Case) -> None:
    x, y = case.at(Lead.V3, case.calm(Lead.V3))
    x = np.floor(x / 5) * 5
    for line in x + 5.0 * np.arange(-3, 4):
        case.paper.pixels[:, round(line * PX) - 1 : round(line * PX) + 2] = (150, 150, 150)
    for gap in np.arange((y + 1.0) % 8, 128, 8):  # too broken to be a rule
        case.paper.pixels[round(gap * PX) : round((gap + 1) * PX), round((x - 16) * PX) : round((x + 16) * PX)] = 255
    rows = slice(round((y - 5) * PX), round(y * PX))
    case.paper.trace[rows, round(x * PX) - 1 : round(x * PX) + 2] = 1.0
    assert case.doubtful() == []
    case.paper.stroke([(x, y), (x, y - 5)], width_mm=0.25)
    assert [lead for _, lead in case.doubtful()] == [Lead.V3]


def test_a_stroke_wider_than_the_pen_is_no_second_stroke(case: Case) -> None:
    """A copy bleeds: upright strokes are wider than level ones."""
    signal = case.record.signal_mv[case.record.leads.index(Lead.V5), round(7.6 * HZ) : round(9.8 * HZ)]
    time_s = 7.6 + int(np.nanargmax(signal)) / HZ
    (x, y), (_, foot) = case.at(Lead.V5, time_s), case.at(Lead.V5, time_s + 0.2)
    case.paper.stroke([(x, y), (x, foot)], width_mm=1.5)
    assert case.doubtful() == []


def test_the_pen_may_go_on_from_one_lead_to_the_next() -> None:
    assert drawn(step_mm=9.0).doubtful() == []


def test_a_ruled_line_across_a_trace_is_no_signal(case: Case) -> None:
    x, y = case.at(Lead.V1, 5.6)
    case.paper.stroke([(x, y - 3), (x + 22, y + 18)])
    assert case.doubtful() == []


def test_ink_that_no_row_owns_is_told_but_not_doubtful(case: Case) -> None:
    x, _ = case.at(Lead.V1, 6.0)
    case.paper.stroke([(x, 8.0), (x + 1.5, 9.5)])
    marks = case.audit().marks
    assert [mark.doubtful for mark in marks] == [False]


def test_doubtful_samples_lose_confidence_and_others_keep_it(case: Case) -> None:
    time_s = case.calm(Lead.V3)
    x, y = case.at(Lead.V3, time_s)
    case.paper.stroke([(x, y), (x, y - 9)])
    lowered = lower_confidence(case.record, case.audit()).confidence
    row = case.record.leads.index(Lead.V3)
    assert lowered[row, round(time_s * HZ)] < 0.3 < 0.8 < lowered[row, round((time_s - 0.1) * HZ)]
    changed = lowered != case.record.confidence
    assert changed[row].sum() < 30 and changed.sum() == changed[row].sum()


def test_the_warning_names_lead_and_second_and_the_estimate_falls(case: Case) -> None:
    clean = assess(case.record, case.match, case.traces, GRID, case.audit())
    time_s = case.calm(Lead.V3)
    x, y = case.at(Lead.V3, time_s)
    case.paper.stroke([(x, y), (x, y - 18)])
    cut = assess(case.record, case.match, case.traces, GRID, case.audit())
    assert clean.warnings == ()
    assert cut.warnings == (f"ink 18 mm tall at {time_s:.1f} s in V3 is not in the record",)
    assert cut.estimated_snr_db < clean.estimated_snr_db - 0.3


def test_many_marks_are_summed_up(case: Case) -> None:
    for lead, time_s in [(lead, t) for lead in (Lead.V1, Lead.V2, Lead.V3) for t in (5.4, 5.9, 6.4, 6.9)]:
        x, y = case.at(lead, time_s)
        case.paper.stroke([(x, y), (x, y + 7)])
    warnings = assess(case.record, case.match, case.traces, GRID, case.audit()).warnings
    assert len(warnings) == 3
    assert warnings[-1].endswith("is not in the record, and 9 more like it")


def test_an_estimate_without_findings_is_that_of_the_fit(case: Case) -> None:
    found = replace(case.audit(), marks=())
    alone = assess(case.record, case.match, case.traces, GRID, InkAudit()).estimated_snr_db
    assert assess(case.record, case.match, case.traces, GRID, found).estimated_snr_db == pytest.approx(alone)


@pytest.mark.parametrize("name", ["3x4+1R", "3x4 Cabrera", "6x2", "12x1"])
@pytest.mark.parametrize("chest_gain", [None, 5.0])
def test_redraw_is_the_reverse_of_calibrate(name: str, chest_gain: float | None) -> None:
    layout = NAMED[name]
    traces = printed(layout, simulate_ecg(np.random.default_rng(4), disease="none"))
    match = identify_layout(labels_of(layout, traces), traces, LAYOUTS)
    calibration = Calibration(chest_gain_mm_per_mv=chest_gain)
    drawn = redraw(calibrate(traces, match, calibration), match, traces)
    assert {one.lead for one in drawn} == set(layout.leads)
    for one in drawn:
        traced = traces.row_mm[one.row, one.first : one.first + one.y_mm.size]
        assert np.nanmax(np.abs(one.y_mm - traced)) < 0.02
        assert np.isfinite(one.y_mm[np.isfinite(traced)]).mean() > 0.98


def test_json_and_overlay_show_the_marks(case: Case) -> None:
    time_s = case.calm(Lead.V3)
    x, y = case.at(Lead.V3, time_s)
    case.paper.stroke([(x, y), (x, y - 9)])
    result = paper_samples.digitization()
    marked = replace(result, audit=case.audit())
    text = to_json(marked)
    assert '"kind": "spike"' in text and '"lead": "V3"' in text and '"unsupported": []' in text
    before, after = draw_overlay(result), draw_overlay(marked)
    red = (before != after).any(-1)
    rows, columns = np.nonzero(red)
    scale = before.shape[1] / 290
    assert abs(columns.mean() / scale - x) < 0.5 and abs(rows.mean() / scale - (y - 4.5)) < 1.5


def test_a_stroke_where_the_rows_start_is_not_doubtful(case: Case) -> None:
    """Beside the start stands the flank of a calibration pulse."""
    x, y = case.at(Lead.II, 0.05)
    case.paper.stroke([(x, y), (x, y - 9)])
    assert case.doubtful() == []
