"""The nouns of ECG paper: what each stage hands to the next.

Every type is frozen and checks shape and dtype when it is made.  Units are part of the field names.  Arrays are
indexed (row, column); y grows downward until `calibrate`, where millimetres become millivolts once.

Three frames are used:

* *page*: pixels of the image as it came in, (x, y) with the centre of the first pixel at (0, 0);
* *paper*: millimetres on the flattened sheet, x along time, y downward, origin at the canvas' top left corner;
* *canvas*: the page resampled on the paper frame, `px_per_mm` pixels a millimetre in both directions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from datetime import date, time
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.errors import BrokenRule, CorrectionError

if TYPE_CHECKING:
    import pandas

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]
Spans = tuple[tuple[float, float], ...]  # (start, end) of each column of a page, in mm or in s
PagePoint = tuple[float, float]  # (x, y) page px

# What ECG carts can be set to.
PAPER_SPEEDS_MM_PER_S = (5.0, 6.25, 10.0, 12.5, 25.0, 50.0, 100.0)
GAINS_MM_PER_MV = (2.5, 5.0, 10.0, 20.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileBudget:
    """What one file may cost to read.  A file that costs more is refused; the reason names the bound and its value."""

    pages: int = 200
    page_pixels: int = 100_000_000
    page_bytes: int = 400_000_000  # of a page as its file stores it, decoded: 16-bit channels take two bytes
    pixels: int = 600_000_000  # of all pages: they are kept at once, three bytes a pixel
    scans: int = 100  # of a JPEG, which decodes the whole picture in each: a progressive one has 10
    pieces: int = 1_000_000  # points of lines, and objects, on a page of a PDF: one with a drawn ECG has 100,000
    processor_s: int = 30  # of one page: an ordinary one takes 0.1 s
    seconds: float = 240.0  # by the clock, of the file: 60 pages take 10 s where nothing else runs
    memory_mib: int = 2048  # besides the pages that were read


BUDGET = FileBudget()


class Lead(StrEnum):
    """The twelve standard leads, in the order every record uses, then those that a page may show beside them."""

    I = "I"  # noqa: E741 - the lead's name
    II = "II"
    III = "III"
    AVR = "aVR"
    AVL = "aVL"
    AVF = "aVF"
    V1 = "V1"
    V2 = "V2"
    V3 = "V3"
    V4 = "V4"
    V5 = "V5"
    V6 = "V6"
    V3R = "V3R"  # right of the sternum
    V4R = "V4R"
    V5R = "V5R"
    V6R = "V6R"
    V7 = "V7"  # on the back
    V8 = "V8"
    V9 = "V9"
    D = "D"  # Nehb's: dorsal, anterior, inferior
    A = "A"
    J = "J"
    X = "X"  # Frank's
    Y = "Y"
    Z = "Z"
    UNNAMED_1 = "?1"  # on the page, but without a name that can be read
    UNNAMED_2 = "?2"
    UNNAMED_3 = "?3"
    UNNAMED_4 = "?4"
    UNNAMED_5 = "?5"
    UNNAMED_6 = "?6"
    UNNAMED_7 = "?7"


ALL_LEADS: tuple[Lead, ...] = tuple(Lead)
LEADS: tuple[Lead, ...] = ALL_LEADS[:12]  # the standard ones: every record has them
LIMB_LEADS: dict[Lead, tuple[float, float]] = {  # as sums of I and II (Einthoven, Goldberger)
    Lead.I: (1.0, 0.0),
    Lead.II: (0.0, 1.0),
    Lead.III: (-1.0, 1.0),
    Lead.AVR: (-0.5, -0.5),
    Lead.AVL: (1.0, -0.5),
    Lead.AVF: (-0.5, 1.0),
}
EXTRA_LEADS: tuple[Lead, ...] = ALL_LEADS[12:19]  # of the chest; a record has those that are on its page
NAMED_LEADS: tuple[Lead, ...] = LEADS + EXTRA_LEADS  # whose names the label network knows
OTHER_SYSTEMS: dict[str, tuple[Lead, ...]] = {"Nehb": ALL_LEADS[19:22], "Frank": ALL_LEADS[22:25]}
UNNAMED_LEADS: tuple[Lead, ...] = ALL_LEADS[25:]  # as many as there are extra ones


def record_leads(printed: Iterable[Lead]) -> tuple[Lead, ...]:
    """Return the leads of a page's record: the twelve standard ones, then what else is printed."""
    more = set(printed)
    return LEADS + tuple(lead for lead in ALL_LEADS[len(LEADS) :] if lead in more)


def in_order(signal_mv: FloatArray, leads: Sequence[Lead], wanted: Sequence[Lead]) -> FloatArray:
    """Return the rows of a signal (n_leads, n) of `leads` that belong to `wanted`; NaN for those it does not have."""
    rows = np.full((len(wanted), signal_mv.shape[1]), np.nan, np.float32)
    for row, lead in enumerate(wanted):
        if lead in leads:
            rows[row] = signal_mv[leads.index(lead)]
    return rows


def _check(name: str, array: npt.NDArray[np.generic], dtype: type[np.generic], ndim: int) -> None:
    """Raise ValueError unless `array` has the dtype and number of axes its field promises."""
    if array.dtype != dtype or array.ndim != ndim:
        raise ValueError(f"{name} must be {ndim}-D {dtype.__name__}, got {array.ndim}-D {array.dtype}")


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class PageImage:
    """One page as a picture.

    `px_per_mm_hint` is the resolution the file states (a PDF's is exact, a scanner's usually true, a camera's none).
    """

    pixels: ByteArray  # (H, W, 3) RGB
    page_number: int = 1
    px_per_mm_hint: float | None = None
    strokes: tuple[npt.NDArray[np.float64], ...] = ()  # (n, 2) page px each: the lines the page was drawn with (PDF)

    def __post_init__(self) -> None:
        _check("pixels", self.pixels, np.uint8, 3)
        if self.pixels.shape[2] != 3 or min(self.pixels.shape[:2]) < 1:
            raise ValueError(f"pixels must be (H, W, 3), got {self.pixels.shape}")


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class SegmentationMap:
    """Class probabilities of the page network, at its own resolution.

    A map pixel (x, y) shows page pixel ((x + 0.5) / scale - 0.5, (y + 0.5) / scale - 0.5).
    """

    grid: FloatArray  # (h, w) in [0, 1]
    trace: FloatArray  # (h, w) in [0, 1]
    text: FloatArray  # (h, w) in [0, 1]: lead labels, print, calibration pulses, separators
    scale: float  # map pixels per page pixel

    def __post_init__(self) -> None:
        for name in ("grid", "trace", "text"):
            array = getattr(self, name)
            _check(name, array, np.float32, 2)
            if array.shape != self.grid.shape:
                raise ValueError(f"{name} is {array.shape}, grid is {self.grid.shape}")


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class GridScale:
    """Mean page pixels per paper millimetre along the two paper axes, and how sure the grid finder is."""

    px_per_mm_x: float
    px_per_mm_y: float
    score: float  # in [0, 1]; 0 = no grid found
    source: str  # "grid" | "hint" (the file) | "columns" (and pulses) | "default" (a guess, until the page was read)
    doubt_mm: float | None = None  # how far off the bend network expects itself to be, median; None: not measured


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class RectifiedPage:
    """The flattened sheet: one composed map paper -> page, and the canvas sampled through it.

    `node_xy[i, j]` is the page pixel (x, y) under paper point (j * node_mm, i * node_mm).
    """

    node_xy: FloatArray  # (n_i, n_j, 2) page pixels
    node_mm: float  # lattice spacing in mm
    pixels: ByteArray  # (h, w, 3) canvas
    px_per_mm: float  # of the canvas
    grid_scale: GridScale
    homography: npt.NDArray[np.float64]  # (3, 3) paper mm -> page px, before the lattice refined it
    quarter_turns: int = 0  # how often the page was turned by 90 degrees (counter-clockwise) to stand upright

    def __post_init__(self) -> None:
        _check("node_xy", self.node_xy, np.float32, 3)
        _check("pixels", self.pixels, np.uint8, 3)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Layout:
    """Where leads are printed on the paper: rows of simultaneous or sequential columns, then full-width rhythm strips.

    A rhythm strip is a full-width row; `rhythm` holds the leads usually printed there, but any lead may be.
    """

    name: str
    rows: tuple[tuple[Lead, ...], ...]  # (n_rows, n_columns), top to bottom
    rhythm: tuple[Lead, ...] = ()
    inverted: frozenset[Lead] = frozenset()  # printed upside down, e.g. -aVR in Cabrera order
    sequential: bool = True  # column k starts where column k - 1 ends; False: every column starts at 0 s
    column_seconds: float = 2.5

    @property
    def n_rows(self) -> int:
        """Number of printed rows, rhythm strips included."""
        return len(self.rows) + len(self.rhythm)

    @property
    def leads(self) -> tuple[Lead, ...]:
        """Leads of the short columns, row by row."""
        return tuple(lead for row in self.rows for lead in row)

    @property
    def part(self) -> str:
        """Which part of a recording on several pages this is, in words; "" if the page has limb and chest leads."""
        limb = set(self.leads) & set(LEADS[:6])
        if limb and len(limb) < len(self.leads):
            return ""
        kind, other, number, half = ("limb", "chest", 1, LEADS[:6]) if limb else ("chest", "limb", 2, LEADS[6:])
        whole = set(half) <= set(self.leads)
        of = f"half of a recording (page {number} of 2)" if whole else "a part of a recording"
        return f"{of}: {kind} leads only, no {other} leads"


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class LeadLabel:
    """A printed lead name found on the canvas."""

    lead: Lead
    x_mm: float
    y_mm: float
    score: float  # in [0, 1]


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class RowBand:
    """A printed row as the layout network sees it, before anything is traced."""

    baseline_mm: float  # paper y
    x0_mm: float
    x1_mm: float
    boundaries_mm: tuple[float, ...] = ()  # paper x where a lead's stretch begins or the row ends
    score: float = 1.0


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class PulseBox:
    """A calibration pulse: its box on the paper frame in mm, feet included."""

    x0_mm: float
    y0_mm: float
    x1_mm: float
    y1_mm: float
    top_mm: float | None = None  # width of its flat top; None: not measured


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class PrintedMarks:
    """What the layout network finds on the canvas."""

    rows: tuple[RowBand, ...]  # top to bottom
    pulses: tuple[PulseBox, ...]


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class TextLine:
    """A line of print on the paper frame.  It may be the patient's name: never logged, nor shown by repr."""

    text: str = field(repr=False)
    x0_mm: float
    y0_mm: float
    x1_mm: float
    y1_mm: float
    score: float  # in [0, 1]: mean probability of its characters
    sure: tuple[float, ...] = field(default=(), repr=False)  # probability of each character; () = as `score`


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedScale:
    """The paper speed and the gain that the text of a page states; None: not stated, or stated in different ways.

    The printed heart rate says with the beats' distance how fast the paper ran.
    """

    speed_mm_per_s: float | None = None
    gain_mm_per_mv: float | None = None  # of the limb leads, or of all
    chest_gain_mm_per_mv: float | None = None  # where it is stated on its own
    heart_rate_per_minute: float | None = None
    reasons: tuple[str, ...] = ()  # statements that contradict each other, in words


@dataclass(frozen=True, slots=True, kw_only=True)
class PrintedValues:
    """What a page states in print about its recording, as printed: no measurement of ours.

    None, or nothing, where it is not printed, not read with certainty, or printed in different ways.  Axes are those of
    P, QRS and T.
    """

    recorded_on: date | None = None
    recorded_at: time | None = None  # by the cart's clock; known with the date only
    may_be_recorded_on: tuple[date, ...] = ()  # what a date can mean where nothing decides the order of day and month
    heart_rate_per_minute: float | None = None
    pr_ms: float | None = None
    qrs_ms: float | None = None
    qt_ms: float | None = None
    qtc_ms: float | None = None
    p_axis_deg: float | None = None
    qrs_axis_deg: float | None = None
    t_axis_deg: float | None = None
    age_years: float | None = None
    filters: tuple[str, ...] = ()  # in the page's words
    device: str = ""  # likewise
    reasons: tuple[str, ...] = ()  # why the time of recording is not known although dates are printed, in words


@dataclass(frozen=True, slots=True, kw_only=True)
class Beats:
    """How heartbeats look on the paper, whatever its speed and gain."""

    qrs_mm: float  # lag at which the rows' steepness is half as like itself: grows with the length of a QRS complex
    rr_mm: float | None  # from one beat to the next; None: they do not repeat
    height_mm: float  # of a lead, from its lowest to its highest point
    t_wave_mm: tuple[float, float] | None = None  # from a QRS complex to its T wave's top, and to the next complex


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class LayoutMatch:
    """The layout a page is printed in; if `certain` is False, a person must review it."""

    layout: Layout
    cost: float  # mean distance label - template in page widths, missing labels cost 0.5 (paper, Algorithm 1)
    score: float  # in [0, 1]
    certain: bool
    labels: tuple[LeadLabel, ...]
    rhythm: tuple[Lead, ...]  # the lead found in each rhythm strip
    reasons: tuple[str, ...] = ()  # why it is not certain, in words
    row_index: tuple[int, ...] = ()  # traced row of each printed row, -1 = missing; () = row i is traced row i
    column_mm: Spans = ()  # paper x where each column starts and ends; () = not measured
    beats: Beats | None = None  # of the short rows; None: no beat stands out

    @property
    def rows(self) -> tuple[int, ...]:
        """Traced row of each printed row, -1 = missing."""
        return self.row_index or tuple(range(self.layout.n_rows))

    def column_times(self, paper_speed_mm_per_s: float, *, within: float = 0.1) -> Spans:
        """List when each column starts and ends on the record's time axis, in s; empty if no column was measured.

        Column k starts at k times `column_seconds`, as the cart counts, unless the columns on the paper, without the
        gaps between them, differ from that by more than the share `within`.  Columns that were recorded together start
        together.

        Parameters
        ----------
        paper_speed_mm_per_s : float
        within : float
            Relative; set by hand. Carts print columns of 2.4 to 2.6 s for 2.5 s.
        """
        if not self.column_mm:
            return ()
        seconds = self.layout.column_seconds
        widths_mm = [end_mm - start_mm for start_mm, end_mm in self.column_mm[:-1]]  # the last may be cut
        if widths_mm:
            measured_s = float(np.median(widths_mm)) / paper_speed_mm_per_s
            seconds = seconds if abs(measured_s / seconds - 1) <= within else measured_s
        times = []
        for k, (start_mm, end_mm) in enumerate(self.column_mm):
            start_s = k * seconds if self.layout.sequential else 0.0
            times.append((start_s, start_s + (end_mm - start_mm) / paper_speed_mm_per_s))
        return tuple(times)

    def stretches(self) -> Iterator[tuple[Lead, int, tuple[float, float]]]:
        """List every printed stretch, short leads first: its lead, traced row and paper x from-to."""
        for index, leads in zip(self.rows, self.layout.rows, strict=False):
            for lead, span_mm in zip(leads, self.column_mm, strict=False):
                yield lead, index, span_mm
        if self.column_mm:
            whole = (self.column_mm[0][0], self.column_mm[-1][1])
            for index, lead in zip(self.rows[len(self.layout.rows) :], self.rhythm, strict=False):
                yield lead, index, whole


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class DrawnLine:
    """A line of a drawing that runs along a traced row."""

    row: int
    first: int  # column of its first point
    y_mm: FloatArray  # (n,) paper y at every column from there on

    @property
    def stop(self) -> int:
        """First column after it."""
        return self.first + self.y_mm.size


@dataclass(frozen=True, slots=True, kw_only=True)
class SpikeMark:
    """A pacing spike as printed: a stroke from the trace to its tip."""

    row: int  # of the trace set
    x_mm: float  # paper x
    tip_mm: float  # paper y of its far end
    score: float  # in [0, 1]


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class TraceSet:
    """The centre line of every printed row on the paper frame.

    Column k stands at paper x = x0_mm + k / columns_per_mm.
    """

    row_mm: FloatArray  # (n_rows, n_columns) paper y of the centre line; NaN = no trace
    confidence: FloatArray  # (n_rows, n_columns) in [0, 1]
    baseline_mm: FloatArray  # (n_rows,) paper y of each row's zero line
    x0_mm: float
    columns_per_mm: float
    doubt_mm: FloatArray | None = None  # (n_rows, n_columns) how far a column's own answer is off row_mm; None: unknown
    lines: tuple[DrawnLine, ...] = ()  # what the rows were taken from where the page is a drawing; lines may overlap
    by_person: ByteArray | None = None  # (n_rows, n_columns) 0, or the `Act` of a person by its number; None: all 0
    spikes: tuple[SpikeMark, ...] = ()  # pacing spikes, which `row_mm` leaves out; not where rows were taken from lines
    strokes: tuple[SpikeMark, ...] = ()  # what may be spikes on a page without: in several rows at once

    def __post_init__(self) -> None:
        _check("row_mm", self.row_mm, np.float32, 2)
        if self.confidence.shape != self.row_mm.shape:
            raise ValueError(f"confidence is {self.confidence.shape}, row_mm is {self.row_mm.shape}")

    def drawn(self) -> npt.NDArray[np.bool_]:
        """Mark what was taken from lines of a drawing: (n_rows, n_columns)."""
        there = np.zeros(self.row_mm.shape, bool)
        for line in self.lines:
            there[line.row, line.first : line.stop] = True
        return there

    def spikes_in(self, row: int, first: int, stop: int) -> list[tuple[int, SpikeMark]]:
        """List the pacing spikes of a row that stand in columns from `first` to before `stop`, each with its column."""
        own = [spike for spike in self.spikes if spike.row == row]
        at = [(round((spike.x_mm - self.x0_mm) * self.columns_per_mm), spike) for spike in own]
        return [(column, spike) for column, spike in at if first <= column < min(stop, self.row_mm.shape[1])]


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Calibration:
    """Paper speed and gain, and their sources: "default" | "text" | "pulse" | "columns" | "beats" | "person".

    Where several agree, the source is the strongest of them; a score says how sure all evidence together leaves us.
    """

    paper_speed_mm_per_s: float = 25.0
    gain_mm_per_mv: float = 10.0
    chest_gain_mm_per_mv: float | None = None  # None: as the limb leads
    speed_source: str = "default"
    gain_source: str = "default"
    speed_score: float = 0.0  # in [0, 1]; 0 = not read from the page
    gain_score: float = 0.0
    reasons: tuple[str, ...] = ()  # contradictions between the sources, in words


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class SecondPrint:
    """A lead's other print on the page: the short lead of a rhythm strip, on the record's time axis."""

    lead: Lead
    first_sample: int
    signal_mv: FloatArray  # (n,); NaN = not readable
    agreement_db: float  # power of the signal over that of the difference of the two prints
    used: bool  # it was read with more confidence and replaces the other print in the record


class Act(IntEnum):
    """What a person did with samples."""

    DRAWN = 1  # drew the line they are read from
    UNREADABLE = 2  # found that they cannot be read
    LEFT_OUT = 3  # did not accept the lead


@dataclass(frozen=True, slots=True, kw_only=True)
class ByPerson:
    """Samples of a lead that a person drew or took out."""

    act: Act
    lead: Lead
    first_sample: int
    stop_sample: int  # first behind them


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class EcgRecord:
    """The signals, on one time axis as printed: column k of a 3x4 page starts at 2.5 k s."""

    signal_mv: FloatArray  # (n_leads, n_samples); NaN = not printed or not readable
    confidence: FloatArray  # (n_leads, n_samples) in [0, 1]; 0 where the signal is NaN
    leads: tuple[Lead, ...]
    sampling_frequency_hz: float
    calibration: Calibration
    second_prints: tuple[SecondPrint, ...] = ()
    by_person: tuple[ByPerson, ...] = ()
    pacing: tuple[tuple[Lead, int], ...] = ()  # samples that are pacing spikes

    def __post_init__(self) -> None:
        _check("signal_mv", self.signal_mv, np.float32, 2)
        if self.signal_mv.shape[0] != len(self.leads):
            raise ValueError(f"signal_mv has {self.signal_mv.shape[0]} rows for {len(self.leads)} leads")
        if self.confidence.shape != self.signal_mv.shape:
            raise ValueError(f"confidence is {self.confidence.shape}, signal_mv is {self.signal_mv.shape}")

    def to_dataframe(self) -> pandas.DataFrame:
        """Return the signals as a pandas DataFrame.

        Returns
        -------
        pandas.DataFrame
            A row per sample with the index `time_s` in seconds; a column per lead, in mV and named after the lead.
            NaN = not printed or not readable.

        Raises
        ------
        ImportError
            pandas is not installed; it is no dependency of this package.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_dataframe() needs pandas, which is not installed: pip install pandas") from error
        time_s = np.arange(self.signal_mv.shape[1]) / self.sampling_frequency_hz
        index = pandas.Index(time_s, name="time_s")
        return pandas.DataFrame(self.signal_mv.T, index=index, columns=[lead.value for lead in self.leads])


class Mark(StrEnum):
    """What the ink audit finds: the first four are ink that is not in the record, the others are stretches of it."""

    SPIKE = "spike"  # a thin upright stroke
    WAVE = "wave"  # the rest of a wave that was cut off
    LINE = "line"  # a second line beside the trace, or one without any
    BLOT = "blot"  # a spot
    UNSUPPORTED = "unsupported"  # traced where no ink is
    SHARED = "shared"  # two rows follow the same ink
    CUT = "cut"  # a wave runs off the picture
    PRINT = "print"  # the record follows print


MARKS_OF_THE_LINE = (Mark.UNSUPPORTED, Mark.SHARED, Mark.CUT, Mark.PRINT)  # the record is wrong there


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class AuditMark:
    """One place where record and ink differ, on the paper frame and on the record's time axis."""

    kind: Mark
    lead: Lead
    start_s: float
    end_s: float
    x0_mm: float
    y0_mm: float
    x1_mm: float
    y1_mm: float
    reach_mm: float  # from the recorded line to the farthest ink; of a mark of the line itself its length
    missing_mm2: float  # sum over time of the squared distance from the recorded line, in mm^2 times mm of paper
    doubtful: bool  # it may be signal, so a person must look
    other: Lead | None = None  # that follows the same ink; of a shared trace


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class InkAudit:
    """The record drawn back onto its sheet, compared with the ink that is there; see `signal.audit`."""

    pen_mm: float = 0.0  # width of the pen's line; 0 = not measured
    marks: tuple[AuditMark, ...] = ()  # the largest first


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Quality:
    """What a person should know before trusting the record."""

    coverage: dict[Lead, float]  # share of the printed samples that were read, per lead
    confidence: dict[Lead, float]  # mean confidence over the read samples, per lead
    einthoven_residual_mv: float | None  # median |I + III - II|; None where never simultaneous
    layout_score: float
    estimated_snr_db: float
    warnings: tuple[str, ...] = ()  # reasons in words; each one asks for a review by a person
    notes: tuple[str, ...] = ()  # what a person should know besides; none asks for a review
    limb_leads_agree: bool | None = None  # as Einthoven and Goldberger demand, else a warning; None as the residual
    features: tuple[float, ...] = ()  # what the estimate is made of, of the rows as read; of `signal.quality.Features`


@dataclass(frozen=True, slots=True, kw_only=True)
class LineByHand:
    """A line that a person drew over the ink: it takes the place of what was traced in that stretch of its row."""

    row: int  # printed row from the top, counted from 1, rhythm strips included
    points_px: tuple[PagePoint, ...]  # along time, two at least


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A stretch of a row that a person cannot read: its samples are NaN."""

    row: int  # as of `LineByHand`
    from_px: PagePoint
    to_px: PagePoint


_SPEEDS_MM_PER_S = (2.0, 200.0)  # what a person may state; carts are within PAPER_SPEEDS_MM_PER_S
_GAINS_MM_PER_MV = (1.0, 50.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrections:
    """What a person states about a page.  None, or (), leaves it to the digitizer.

    Points are pixels of the page as it came in.  `crop_px` or `corners_px` cut the sheet out of the page, then it is
    mirrored, then turned.

    Raises
    ------
    CorrectionError
        Values break rules; the error names each field, value and rule.
    """

    layout: str | None = None  # name of a layout of the file
    leads: tuple[tuple[Lead, ...], ...] | None = None  # of the short columns: row by row, in the layout's shape
    rhythm: tuple[Lead, ...] | None = None  # of the rhythm strips, top to bottom
    together: bool | None = None  # the columns were recorded together
    paper_speed_mm_per_s: float | None = None
    gain_mm_per_mv: float | None = None  # of the limb leads, or of all
    chest_gain_mm_per_mv: float | None = None
    quarter_turns: int | None = None  # by 90 degrees, counter-clockwise, until the sheet stands upright
    mirrored: bool = False  # left and right are exchanged on the page
    corners_px: tuple[PagePoint, ...] | None = None  # of the sheet: top left, top right, bottom right, bottom left
    crop_px: tuple[float, float, float, float] | None = None  # left, top, right, bottom
    not_ecg_px: tuple[tuple[PagePoint, ...], ...] = ()  # polygons: parts of the page without an ECG
    row_baselines_px: tuple[PagePoint, ...] | None = None  # a point on the zero line of each row, top to bottom
    column_edges_px: tuple[PagePoint, ...] | None = None  # where each column starts, and where the last one ends
    lines: tuple[LineByHand, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()
    left_out: tuple[Lead, ...] = ()  # not accepted: they leave without a signal

    def __post_init__(self) -> None:
        broken = [*self._broken_names(), *self._broken_numbers(), *self._broken_cut(), *self._broken_points()]
        if broken:
            raise CorrectionError(broken)

    @property
    def cut(self) -> Corrections:
        """Those that change the pixels a page is read from."""
        return Corrections(
            quarter_turns=self.quarter_turns,
            mirrored=self.mirrored,
            corners_px=self.corners_px,
            crop_px=self.crop_px,
            not_ecg_px=self.not_ecg_px,
        )

    def __bool__(self) -> bool:
        """Tell whether anything is stated."""
        return any(getattr(self, each.name) != each.default for each in fields(self))

    def _broken_names(self) -> Iterator[BrokenRule]:
        if self.layout == "":
            yield BrokenRule("layout", "''", "must be the name of a layout")
        if self.leads is not None:
            widths = [len(row) for row in self.leads]
            if not widths or 0 in widths or len(set(widths)) > 1:
                yield BrokenRule("leads", f"rows of {widths}", "must be rows that all have the same number of leads")
            yield from _twice("leads", [lead for row in self.leads for lead in row], "a repeated lead goes to rhythm")
        yield from _twice("rhythm", self.rhythm or (), "no two strips show one lead")
        yield from _twice("left_out", self.left_out, "each lead is named once")
        if set(LEADS) <= set(self.left_out):
            yield BrokenRule("left_out", "all leads", "must leave one lead at least; else reject the page")

    def _broken_numbers(self) -> Iterator[BrokenRule]:
        ranges = {
            "paper_speed_mm_per_s": _SPEEDS_MM_PER_S,
            "gain_mm_per_mv": _GAINS_MM_PER_MV,
            "chest_gain_mm_per_mv": _GAINS_MM_PER_MV,
        }
        for name, (least, most) in ranges.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                yield BrokenRule(name, f"{value:g}", f"must be from {least:g} to {most:g}")
        if self.quarter_turns is not None and self.quarter_turns not in range(4):
            yield BrokenRule("quarter_turns", str(self.quarter_turns), "must be 0, 1, 2 or 3")
        for name, row in self.rows_named():
            if row < 1:
                yield BrokenRule(name, str(row), "rows are counted from 1")

    def rows_named(self) -> Iterator[tuple[str, int]]:
        """List the rows that lines and unreadable stretches name, each with its field."""
        yield from ((f"lines[{k}].row", line.row) for k, line in enumerate(self.lines))
        yield from ((f"unreadable[{k}].row", part.row) for k, part in enumerate(self.unreadable))

    def _broken_cut(self) -> Iterator[BrokenRule]:
        if self.corners_px is not None:
            if len(self.corners_px) != 4:
                yield BrokenRule("corners_px", f"{len(self.corners_px)} points", "must be four points")
            elif not _is_convex(self.corners_px):
                rule = "must go from top left to top right, bottom right and bottom left without crossing"
                yield BrokenRule("corners_px", _in_words(self.corners_px), rule)
            if self.crop_px is not None:
                yield BrokenRule("crop_px", _in_words([self.crop_px]), "corners cut the page already: give one of them")
        if self.crop_px is not None:
            left, top, right, bottom = self.crop_px
            if left >= right or top >= bottom:
                rule = "left must be less than right, top less than bottom"
                yield BrokenRule("crop_px", _in_words([self.crop_px]), rule)

    def _broken_points(self) -> Iterator[BrokenRule]:
        for k, polygon in enumerate(self.not_ecg_px):
            if len(set(polygon)) < 3:
                yield BrokenRule(f"not_ecg_px[{k}]", _in_words(polygon), "must have three different points at least")
        for name, points, least in (
            ("row_baselines_px", self.row_baselines_px, 1),
            ("column_edges_px", self.column_edges_px, 2),
            *((f"lines[{k}].points_px", line.points_px, 2) for k, line in enumerate(self.lines)),
            *((f"unreadable[{k}]", (part.from_px, part.to_px), 2) for k, part in enumerate(self.unreadable)),
        ):
            once = "" if "points_px" in name else ", each once"  # a hand that draws may rest
            if points is not None and (len(set(points)) < least or (once and len(set(points)) < len(points))):
                few = f"must have {least} different point{'s' if least > 1 else ''} at least{once}"
                yield BrokenRule(name, _in_words(points), few)


def _twice(name: str, leads: Sequence[Lead], rule: str) -> Iterator[BrokenRule]:
    """Find leads that are named more than once."""
    twice = [lead for lead in dict.fromkeys(leads) if leads.count(lead) > 1]
    if twice:
        yield BrokenRule(name, f"{', '.join(twice)} more than once", rule)


def _is_convex(corners: Sequence[PagePoint]) -> bool:
    """Tell whether four corners (y downward) run clockwise from the top left and enclose an area without crossing."""
    points = np.array(corners)
    side = np.roll(points, -1, 0) - points
    after = np.roll(side, -1, 0)
    turns = side[:, 0] * after[:, 1] - side[:, 1] * after[:, 0]
    first = int(np.argmin(points.sum(1)))
    return bool((turns > 0).all()) and first == 0


def _in_words(points: Sequence[tuple[float, ...]]) -> str:
    """Write points for a message."""
    return " ".join("(" + ", ".join(f"{value:g}" for value in point) + ")" for point in points) or "empty"


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Reading:
    """What was seen on a page before anything is in millivolts and seconds; corrections go on from here.

    Pixels and points are those of `page`: the sheet as corrections cut it out of the picture and turned it.
    """

    key: str  # of all that it depends on; two readings with one key are the same
    page: PageImage
    to_original: npt.NDArray[np.float64]  # (3, 3) pixels of `page` -> pixels of the page as it came in
    segmentation: SegmentationMap
    rectified: RectifiedPage
    labels: tuple[LeadLabel, ...]
    text: tuple[TextLine, ...] = field(repr=False)
    marks: PrintedMarks
    rows: tuple[RowBand, ...]  # that were found
    row_baselines_px: tuple[PagePoint, ...] | None  # that were stated, and traced in place of `rows`
    traces: TraceSet


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Digitization:
    """Everything that was read from one page; DICOM objects and HL7 messages are made of its `record`."""

    page: PageImage
    rectified: RectifiedPage
    layout_match: LayoutMatch
    traces: TraceSet
    record: EcgRecord
    quality: Quality
    weights_sha256: dict[str, str] = field(default_factory=dict)  # network name -> hash of its weights
    text: tuple[TextLine, ...] = field(default=(), repr=False)  # what is printed, top to bottom; may hold patient data
    printed: PrintedValues = field(default_factory=PrintedValues, repr=False)  # what `text` states of the recording
    audit: InkAudit = field(default_factory=InkAudit)
    corrections: Corrections = field(default_factory=Corrections)
