"""What the ink of a row says beyond the network's line: tips of waves and pacing spikes, on strips drawn here."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from pipeline.datatypes import LEADS, TextLine, TraceSet
from pipeline.networks.inference import Network, load_network
from pipeline.networks.specification import SPIKE
from pipeline.rows.pen import PX_PER_MM_X, PX_PER_MM_Y, InkStrip, Pen, drawn, ink_strip
from pipeline.rows.refine import fit_ink, with_tips
from pipeline.rows.spikes import Stroke, chances, is_mark, marks_of, pictures, strokes_of, without_spikes
from pipeline.rows.steep import with_steep

N, HEIGHT, LEVEL = 2400, 320, 200.0  # columns, pixels, the zero line
NONE = np.zeros((0, N), np.float32)  # no other rows
UNSURE = np.zeros(N, np.float32)  # confidence
PAPER, GRID, INK = (np.array(c, np.float32) for c in ((250, 246, 240), (240, 170, 165), (40, 40, 50)))


def draw(x_px: np.ndarray, y_px: np.ndarray, shape: tuple[int, int], pen: Pen) -> np.ndarray:
    """Ink (h, w) of a line that is drawn, blurred and then seen at a strip's pixels."""
    scale = np.array([2.0, 5.0])  # 40 px/mm
    canvas = np.zeros((round(shape[0] * scale[1]), round(shape[1] * scale[0])), np.uint8)
    points = (np.stack([x_px, y_px], 1) + 0.5) * scale - 0.5
    width = max(1, round(pen.width_mm * 40))
    cv2.polylines(canvas, [np.round(points * 16).astype(np.int32)], False, 255, width, cv2.LINE_AA, shift=4)
    soft = cv2.GaussianBlur(canvas.astype(np.float32), (0, 0), pen.blur_mm * 40)
    return cv2.resize(soft, shape[::-1], interpolation=cv2.INTER_AREA) * np.float32(pen.darkness / 255)


def test_lines_are_drawn_as_blur_and_resize_have_them() -> None:
    pen = Pen(width_mm=0.35, blur_mm=0.08, darkness=0.9)
    x = np.arange(33.0)
    y = 30 - np.outer([0.0, 4.0, 9.0], np.clip(1 - np.abs(x - 16) / 8, 0, 1))
    one_by_one = [draw(x, line, (47, 33), pen) for line in y]
    assert np.allclose(drawn(x, y, (47, 33), pen), one_by_one, atol=1e-5)


def _line(tall_mm: float = 12.0, *, every: int = 400, half_mm: float = 1.0, seed: int = 0) -> np.ndarray:
    """A zero line that trembles a little, with triangular waves."""
    y = LEVEL + np.random.default_rng(seed).normal(0, 0.3, N)
    x = np.arange(N)
    for at in range(200, N - 100, every):
        y -= PX_PER_MM_Y * tall_mm * np.clip(1 - np.abs(x - at) / (half_mm * PX_PER_MM_X), 0, 1)
    return y.astype(np.float32)


def _strip(
    y: np.ndarray, pen: Pen, spikes: dict[int, float] | None = None, seed: int = 1, height: int = HEIGHT
) -> np.ndarray:
    """A strip of grid paper with the line, and spikes of so many mm up (negative: down) in columns."""
    x = np.arange(N, dtype=np.float64)
    cover = draw(x, y.astype(np.float64), (height, N), pen)
    for at, mm in (spikes or {}).items():
        stroke = draw(np.array([at, at], float), np.array([y[at], LEVEL - mm * PX_PER_MM_Y]), (height, N), pen)
        cover = np.maximum(cover, stroke)
    picture = np.broadcast_to(PAPER, (height, N, 3)).copy()
    picture[:, ::100] = picture[::40] = GRID
    picture = cv2.GaussianBlur(picture, (3, 3), 0)
    picture += np.clip(cover, 0, 1)[..., None] * (INK - picture)
    return np.clip(picture + np.random.default_rng(seed).normal(0, 4, picture.shape), 0, 255).astype(np.uint8)


def _seen(strip: np.ndarray, y: np.ndarray) -> InkStrip:
    row = ink_strip(strip, y.astype(np.float32), np.ones(N, bool))
    assert row is not None
    return row


@cache
def _network() -> Network:
    return load_network(SPIKE, torch.device("cpu"))


def _told(row: InkStrip) -> list[Stroke]:
    """The strokes of a row that the network takes for spikes, each seen alone."""
    strokes = strokes_of(row)
    if not strokes:
        return []
    (answers,) = _network().run(pictures(row, strokes, NONE))
    return [stroke for stroke, logit in zip(strokes, answers[:, 0].tolist(), strict=True) if logit > 0]


@pytest.mark.parametrize(("width", "blur"), [(0.2, 0.06), (0.35, 0.1), (0.5, 0.15)])
def test_pen_is_measured(width: float, blur: float) -> None:
    y = _line()
    pen = _seen(_strip(y, Pen(width_mm=width, blur_mm=blur, darkness=1.0)), y).pen
    assert pen.width_mm == pytest.approx(width, abs=0.1)
    assert pen.blur_mm == pytest.approx(blur, abs=0.07)


@pytest.mark.parametrize("lost_mm", [0.3, 0.7, 1.2])
def test_tips_that_were_read_too_low_are_put_where_their_ink_ends(lost_mm: float) -> None:
    y = _line()
    read = np.maximum(y, LEVEL - PX_PER_MM_Y * (12.0 - lost_mm)).astype(np.float32)  # a flat top
    row = _seen(_strip(y, Pen(width_mm=0.3, blur_mm=0.1, darkness=1.0)), read)
    fitted = with_tips(row, np.zeros(N, bool), NONE, UNSURE)
    tips = np.array([part.min() for part in np.split(fitted, np.arange(400, N, 400))])
    assert (LEVEL - tips) / PX_PER_MM_Y == pytest.approx(np.full(6, 12.0), abs=0.35)


def test_tips_that_are_right_stay() -> None:
    y = _line()
    row = _seen(_strip(y, Pen(width_mm=0.3, blur_mm=0.1, darkness=1.0)), y)
    assert np.abs(with_tips(row, np.zeros(N, bool), NONE, UNSURE) - y).max() < 0.2 * PX_PER_MM_Y


def test_a_tip_that_ends_at_another_rows_line_stays() -> None:
    y = _line(8.0)
    other = 2 * LEVEL - PX_PER_MM_Y * 14.0 - _line(5.5, seed=2)  # its waves down end half a millimetre above the tips
    pen = Pen(width_mm=0.5, blur_mm=0.12, darkness=1.0)
    row = _seen(np.minimum(_strip(y, pen), _strip(other, pen)), y)
    assert np.abs(with_tips(row, np.zeros(N, bool), NONE, UNSURE) - y).max() > 0.3 * PX_PER_MM_Y
    assert np.array_equal(with_tips(row, np.zeros(N, bool), other[None].astype(np.float32), UNSURE), y)


def test_a_tip_that_is_sure_stays_where_ink_goes_on_beyond_all_heights() -> None:
    y = _line()
    read = np.maximum(y, LEVEL - PX_PER_MM_Y * 9.0).astype(np.float32)  # three millimetres are missing
    row = _seen(_strip(y, Pen(width_mm=0.3, blur_mm=0.1, darkness=1.0)), read)
    near = np.full((1, N), np.nan, np.float32)
    for at in range(200, N - 100, 400):
        near[0, at + 12 : at + 20] = LEVEL - PX_PER_MM_Y * 11.0  # another row beside the tip
    sure = UNSURE + np.float32(0.6)
    for others, confidence in ((near, UNSURE), (NONE, sure)):
        taller = with_tips(row, np.zeros(N, bool), others, confidence)
        assert np.ptp(read) + 1.4 * PX_PER_MM_Y < np.ptp(taller)
    assert np.array_equal(with_tips(row, np.zeros(N, bool), near, sure), read)


def test_a_tip_stays_that_another_rows_stroke_passes_between_two_columns() -> None:
    y = _line(8.0)
    read = np.maximum(y, LEVEL - PX_PER_MM_Y * 7.3).astype(np.float32)
    row = _seen(_strip(y, Pen(width_mm=0.3, blur_mm=0.1, darkness=1.0)), read)
    alone = with_tips(row, np.zeros(N, bool), NONE, UNSURE)
    at = int(np.flatnonzero(alone != read)[0])
    at += int(alone[at : at + 100].argmin())  # the first tip
    stroke = np.where(np.arange(N) <= at, read[at] - PX_PER_MM_Y * 9, read[at] + PX_PER_MM_Y * 9)[None]
    beside = with_tips(row, np.zeros(N, bool), stroke.astype(np.float32), UNSURE)
    assert np.array_equal(beside[: at + 100], read[: at + 100])
    assert np.array_equal(beside[at + 100 :], alone[at + 100 :])


def _steep(strip: np.ndarray, read: np.ndarray, others: np.ndarray = NONE) -> np.ndarray:
    return with_steep(_seen(strip, read), others)


@pytest.mark.parametrize(
    "pen", [Pen(width_mm=0.6, blur_mm=0.1, darkness=1.0), Pen(width_mm=0.2, blur_mm=0.3, darkness=1.0)]
)
def test_rows_of_a_broad_pen_or_much_blur_are_left_as_they_were_read(pen: Pen) -> None:
    y = _line(14.0)
    read = np.maximum(y, LEVEL - PX_PER_MM_Y * 12.0)
    assert np.array_equal(_steep(_strip(y, pen), read), read)


def test_a_row_that_trembles_throughout_is_left_as_it_was_read() -> None:
    y = (LEVEL + 10 * np.sin(np.arange(N) * 2 * np.pi / 24)).astype(np.float32)
    read = (LEVEL + (y - LEVEL) / 2).astype(np.float32)
    strip = _strip(y, Pen(width_mm=0.3, blur_mm=0.06, darkness=1.0))
    level = ink_strip(strip, np.full(N, LEVEL, np.float32), np.ones(N, bool))
    assert level is not None
    assert np.array_equal(with_steep(replace(level, y_px=read), NONE), read)


@pytest.mark.parametrize("lost_mm", [2.0, 3.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_tips_that_were_cut_off_far_are_followed_up_and_down(lost_mm: float, sign: int) -> None:
    y = LEVEL + sign * (_line(14.0) - LEVEL)
    read = LEVEL + sign * np.maximum(sign * (y - LEVEL), -PX_PER_MM_Y * (14.0 - lost_mm))
    fitted = _steep(_strip(y, Pen(width_mm=0.3, blur_mm=0.1, darkness=1.0)), read)
    tips = [(sign * (LEVEL - part)).max() / PX_PER_MM_Y for part in np.split(fitted, np.arange(400, N, 400))]
    assert tips == pytest.approx([14.0] * 6, abs=0.4)


@pytest.mark.parametrize("late", [1, -1])
def test_a_thin_wave_that_was_read_beside_its_ink_is_moved_along_time(late: int) -> None:
    y = _line(8.0)
    read = np.roll(y, late)
    fitted = _steep(_strip(y, Pen(width_mm=0.2, blur_mm=0.06, darkness=1.0)), read)
    limbs = np.abs(np.gradient(y)) > 1.5
    assert np.abs(fitted - y)[limbs].mean() < 0.4 * np.abs(read - y)[limbs].mean()


def test_steep_lines_that_are_right_stay() -> None:
    y = _line()
    fitted = _steep(_strip(y, Pen(width_mm=0.3, blur_mm=0.1, darkness=1.0)), y)
    assert np.abs(fitted - y).max() < 0.25 * PX_PER_MM_Y


def test_what_is_not_the_rows_line_pulls_no_tip() -> None:
    y = _line()
    strip = _strip(y, Pen(width_mm=0.3, blur_mm=0.1, darkness=1.0))
    strip[:, 698:703] = INK.astype(np.uint8)  # a black line of the grid
    strip[120:280, 1004:1010] = INK.astype(np.uint8)  # a mark through a wave's foot
    strip[60:90, 1380:1420] = INK.astype(np.uint8)  # print on a tip
    assert np.abs(_steep(strip, y) - y).max() < 0.5 * PX_PER_MM_Y


def test_ink_of_another_row_is_not_followed() -> None:
    y = _line(10.0)
    other = LEVEL - PX_PER_MM_Y * 12.0 + 0.05 * PX_PER_MM_Y * np.sin(np.arange(N) / 40)  # above the tips, nearly level
    pen = Pen(width_mm=0.3, blur_mm=0.1, darkness=1.0)
    strip = np.minimum(_strip(y, pen), _strip(other.astype(np.float32), pen))
    fitted = _steep(strip, y, other[None].astype(np.float32))
    assert np.abs(fitted - y).max() < 0.5 * PX_PER_MM_Y


@pytest.mark.parametrize("mm", [3.0, 12.0, -3.0, -8.0])
def test_spikes_are_found_with_their_height(mm: float) -> None:
    y = _line()
    at = dict.fromkeys((60, 480, 890, 1330, 1740, 2130), mm)
    found = _told(_seen(_strip(y, Pen(width_mm=0.3, blur_mm=0.08, darkness=1.0), at), y))
    assert [spike.column for spike in found] == pytest.approx(list(at), abs=2)
    assert [(LEVEL - spike.tip_px) / PX_PER_MM_Y for spike in found] == pytest.approx([mm] * 6, abs=0.5)


def test_a_line_that_bends_towards_its_spike_is_laid_straight() -> None:
    y = _line()
    read = y.copy()
    read[476:485] -= 12  # what the network follows of a spike
    row = _seen(_strip(y, Pen(width_mm=0.3, blur_mm=0.08, darkness=1.0), {480: 12.0}), read)
    spikes = _told(row)
    assert [spike.column for spike in spikes] == pytest.approx([480], abs=2)
    assert np.abs(without_spikes(row, [(480, -1)]) - y).max() < 3


def test_a_spike_that_the_line_follows_is_a_spike_with_its_height() -> None:
    y = _line()
    read = y.copy()
    read[478:483] -= PX_PER_MM_Y * 6 * np.array([0.4, 1.0, 1.0, 1.0, 0.4])
    at = dict.fromkeys((60, 480, 890, 1330), 10.0)
    row = _seen(_strip(y, Pen(width_mm=0.3, blur_mm=0.08, darkness=1.0), at), read)
    found = _told(row)
    assert [spike.column for spike in found] == pytest.approx([*at], abs=2)
    assert [(LEVEL - spike.tip_px) / PX_PER_MM_Y for spike in found] == pytest.approx([10.0] * 4, abs=0.5)
    assert np.abs(without_spikes(row, [(480, -1)]) - y).max() < 3


@pytest.mark.parametrize("half_mm", [0.6, 1.0, 2.0])
def test_no_wave_is_taken_for_a_spike(half_mm: float) -> None:
    y = _line(half_mm=half_mm)
    read = np.maximum(y, LEVEL - PX_PER_MM_Y * 11.0).astype(np.float32)
    assert _told(_seen(_strip(y, Pen(width_mm=0.3, blur_mm=0.1, darkness=1.0)), read)) == []


def test_lines_that_go_on_are_no_spikes() -> None:
    y = _line()
    strip = _strip(y, Pen(width_mm=0.3, blur_mm=0.08, darkness=1.0))
    strip[:, 698:703] = INK.astype(np.uint8)  # a black line of the grid
    strip[120:280, 800:806] = INK.astype(np.uint8)  # a mark through the line
    assert _told(_seen(strip, y)) == []


def _on_marks() -> tuple[np.ndarray, np.ndarray]:
    """A line and its strip, with marks 3 mm tall below: the line goes down by 5 mm, and touches those on the right."""
    y = LEVEL + 20.0 * np.tanh((np.arange(N) - 1000) / 100)
    strip = _strip(y, Pen(width_mm=0.3, blur_mm=0.08, darkness=1.0), {1260: -9.0})
    for column in range(100, N - 60, 120):
        strip[222:246, column - 3 : column + 3] = INK.astype(np.uint8)
    return y, strip


def test_marks_below_a_row_are_told_from_spikes_where_its_line_touches_them() -> None:
    y, strip = _on_marks()
    row = _seen(strip, y)
    marks = marks_of(row)
    assert marks.tolist() == [pytest.approx([222, 246], abs=2)] * len(marks) and len(marks) > 8
    told = {one.column: is_mark(row, marks, one.foot_px, one.tip_px) for one in _told(row)}
    spike = min(told, key=lambda column: abs(column - 1260))
    assert abs(spike - 1260) <= 2 and not told.pop(spike)
    assert len(told) >= 3 and all(told.values())


def test_marks_that_a_row_touches_make_no_paced_page() -> None:
    y, strip = _on_marks()
    assert _fit(y, strip, []).spikes == ()


def test_too_little_of_a_line_is_no_row() -> None:
    y = _line()
    strip = _strip(y, Pen(width_mm=0.3, blur_mm=0.08, darkness=1.0))
    assert ink_strip(strip, y, np.arange(N) < 200) is None
    assert ink_strip(np.full_like(strip, 255), y, np.ones(N, bool)) is None


def _sheet(strip: np.ndarray, top_mm: float = 40.0) -> SimpleNamespace:
    """A sheet that shows the strip at `top_mm`, and takes its dark pixels for trace."""

    def at(x_mm: np.ndarray, y_mm: np.ndarray) -> np.ndarray:
        rows = np.round((y_mm - top_mm) * PX_PER_MM_Y).astype(int)
        columns = np.round(x_mm * PX_PER_MM_X).astype(int).clip(0, N - 1)
        shown = strip[rows.clip(0, len(strip) - 1)][:, columns]
        return np.where(((rows >= 0) & (rows < len(strip)))[:, None, None], shown, 255).astype(np.uint8)

    def ink(x_mm: np.ndarray, y_mm: np.ndarray) -> np.ndarray:
        dark = np.where(at(x_mm, y_mm).max(2) < 150, 255, 0).astype(np.uint8)
        return np.stack([np.zeros_like(dark), dark, np.zeros_like(dark)], 2)

    return SimpleNamespace(pixels=at, ink=ink)


def _match(
    rows: int, columns_mm: tuple[tuple[float, float], ...] = ((-5.0, 130.0),), *, sequential: bool = True
) -> SimpleNamespace:
    """A layout in which every row of every column is a lead of its own."""
    parts = [(row, span_mm) for row in range(rows) for span_mm in columns_mm]
    leads = [(lead, *part) for lead, part in zip(LEADS, parts, strict=False)]
    layout = SimpleNamespace(sequential=sequential, inverted=frozenset())
    return SimpleNamespace(column_mm=columns_mm, labels=(), layout=layout, stretches=lambda: leads)


def _rows_with(
    uprights_mm: list[tuple[float, float]],
    levels_mm: list[float],
    pale_mm: dict[tuple[float, float], float] | None = None,
    blots: tuple[tuple[slice, slice, float], ...] = (),
    match: SimpleNamespace | None = None,
    grid: float = 0.0,
) -> TraceSet:
    """Level rows on one sheet, every upright from y to y in mm at the same four times, and pale ones, fitted.

    Blots are parts of the picture that have so much ink; the upright lines of the grid are as dark as `grid`.
    """
    pen = Pen(width_mm=0.3, blur_mm=0.08, darkness=1.0)
    height, top_mm = 640, 40.0
    x = np.arange(N, dtype=np.float64)
    tremble = np.random.default_rng(3).normal(0, 0.3, N)
    lines = [(level - top_mm) * PX_PER_MM_Y + tremble for level in levels_mm]
    cover = np.maximum.reduce([draw(x, y, (height, N), pen) for y in lines])
    for column in (480, 890, 1330, 1740):
        for ends, dark in [*((each, 1.0) for each in uprights_mm), *(pale_mm or {}).items()]:
            y = (np.array(ends) - top_mm) * PX_PER_MM_Y
            cover = np.maximum(cover, dark * draw(np.full(2, float(column)), y, (height, N), pen))
    for column in range(10, N - 10, round(PX_PER_MM_X)):
        cover[:, column - 2 : column + 3] = np.maximum(cover[:, column - 2 : column + 3], grid)
    for rows, columns, dark in blots:
        cover[rows, columns] = dark
    picture = PAPER + np.clip(cover, 0, 1)[..., None] * (INK - PAPER)
    traces = TraceSet(
        row_mm=np.stack([top_mm + y / PX_PER_MM_Y for y in lines]).astype(np.float32),
        confidence=np.ones((len(lines), N), np.float32),
        baseline_mm=np.array(levels_mm, np.float32),
        x0_mm=0.0,
        columns_per_mm=PX_PER_MM_X,
    )
    sheet = _sheet(np.round(picture).astype(np.uint8), top_mm)
    return fit_ink(traces, sheet, match or _match(len(lines)), (), [], _network())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("uprights_mm", "tips_mm"),
    [
        ([(66.0, 90.0)], {0: 90.0}),  # down from the upper row through the lower
        ([(58.0, 82.0)], {1: 58.0}),  # up from the lower row through the upper
        ([(58.0, 66.0)], {0: 58.0}),
    ],
)
def test_strokes_that_cross_rows_have_their_owners(
    uprights_mm: list[tuple[float, float]], tips_mm: dict[int, float]
) -> None:
    spikes = _rows_with([*uprights_mm, (110.0, 102.0)], [66.0, 82.0, 110.0]).spikes  # the third row's stand alone
    expected = tips_mm | {2: 102.0}
    assert len(spikes) == 4 * len(expected)
    for spike in spikes:
        assert spike.tip_mm == pytest.approx(expected[spike.row], abs=0.6)


def test_complexes_that_reach_the_next_row_are_no_spikes() -> None:
    """Narrow and tall, at every beat, and read too low."""
    pen, top_mm = Pen(width_mm=0.3, blur_mm=0.08, darkness=1.0), 40.0
    upper, lower = _line(4.0), _line(17.0, half_mm=0.7, seed=4) + np.float32(128.0)
    picture = np.minimum(_strip(upper, pen, height=640), _strip(lower, pen, height=640))
    read = np.stack([upper, np.maximum(lower, lower.max() - 9 * PX_PER_MM_Y)])
    traces = TraceSet(
        row_mm=(top_mm + read / PX_PER_MM_Y).astype(np.float32),
        confidence=np.ones((2, N), np.float32),
        baseline_mm=np.array([65.0, 81.0], np.float32),
        x0_mm=0.0,
        columns_per_mm=PX_PER_MM_X,
    )
    assert fit_ink(traces, _sheet(picture, top_mm), _match(2), (), [], _network()).spikes == ()  # type: ignore[arg-type]


def _fitted(columns: list[int], mm: float, text: list[TextLine]) -> TraceSet:
    """One row with spikes `mm` tall in columns, fitted."""
    y = _line()
    return _fit(y, _strip(y, Pen(width_mm=0.3, blur_mm=0.08, darkness=1.0), dict.fromkeys(columns, mm)), text)


def _fit(y: np.ndarray, strip: np.ndarray, text: list[TextLine]) -> TraceSet:
    """One row that was read as y, fitted."""
    traces = TraceSet(
        row_mm=(40.0 + y[None] / PX_PER_MM_Y).astype(np.float32),
        confidence=np.ones((1, N), np.float32),
        baseline_mm=np.array([40.0 + LEVEL / PX_PER_MM_Y], np.float32),
        x0_mm=0.0,
        columns_per_mm=PX_PER_MM_X,
    )
    return fit_ink(traces, _sheet(strip), _match(1), (), text, _network())  # type: ignore[arg-type]


COLUMNS = [60, 480, 890, 1330, 1740]


@pytest.mark.parametrize(("count", "mm", "taken"), [(5, 10.0, 5), (3, 10.0, 0), (5, 2.2, 0)])
def test_a_page_with_few_or_small_strokes_is_no_paced_page(count: int, mm: float, taken: int) -> None:
    spikes = _fitted(COLUMNS[:count], mm, []).spikes
    assert [spike.x_mm * PX_PER_MM_X for spike in spikes] == pytest.approx(COLUMNS[:taken], abs=2)
    assert [spike.tip_mm for spike in spikes] == pytest.approx([40 + LEVEL / PX_PER_MM_Y - 10.0] * taken, abs=0.5)


def test_heavy_lines_of_the_grid_are_no_spikes() -> None:
    assert _fitted([100 * n + 30 for n in range(23)], 10.0, []).spikes == ()


@pytest.mark.parametrize("grid", [0.3, 0.5, 0.65])
def test_spikes_end_where_a_dark_line_of_the_grid_goes_on(grid: float) -> None:
    spikes = _rows_with([(66.0, 56.0), (110.0, 116.0)], [66.0, 110.0], grid=grid).spikes
    assert [spike.row for spike in spikes] == [0] * 4 + [1] * 4
    assert [spike.tip_mm for spike in spikes] == pytest.approx([56.0] * 4 + [116.0] * 4, abs=0.6)


def test_strokes_in_print_are_no_spikes() -> None:
    at_mm = [column / PX_PER_MM_X for column in COLUMNS]
    text = [TextLine(text="V", x0_mm=x - 2, x1_mm=x + 2, y0_mm=58, y1_mm=66, score=1.0) for x in at_mm]
    assert len(_fitted(COLUMNS, 4.0, []).spikes) == 5
    assert _fitted(COLUMNS, 4.0, text).spikes == ()


def test_a_pale_stroke_is_a_spike_with_its_height() -> None:
    pale = {(110.0, 100.0): 0.6, (103.0, 90.0): 0.28}  # and goes on more palely
    for uprights_mm in ([], [(66.0, 56.0)]):
        spikes = _rows_with(uprights_mm, [66.0, 110.0], pale).spikes
        assert sorted(spike.row for spike in spikes) == [0] * 4 * len(uprights_mm) + [1] * 4
        assert all(spike.tip_mm == pytest.approx((56.0, 100.0)[spike.row], abs=0.6) for spike in spikes)


def test_a_spike_whose_neighbour_begins_close_to_its_end_is_one() -> None:
    spikes = _rows_with([(66.0, 56.0), (80.0, 67.5)], [66.0, 80.0]).spikes
    assert sorted(spike.row for spike in spikes) == [0] * 4 + [1] * 4


def test_a_stroke_is_likelier_where_others_stand_at_its_time_or_are_alike() -> None:
    row, column = np.array([0, 1, 0, 0]), np.array([400, 402, 800, 1200])
    height, logit = np.array([-5.0, -9.0, -5.2, 5.0]), np.array([1.0, 4.0, 4.0, -6.0], np.float32)
    together = chances(row, column, height, logit)
    assert together[3] == 0  # the network rules it out
    without = [chances(row[keep], column[keep], height[keep], logit[keep])[0] for keep in ([0, 2, 3], [0, 1, 3])]
    assert together[0] > max(without) and min(without) > chances(row[:1], column[:1], height[:1], logit[:1])[0]


def test_spikes_of_a_firing_stand_at_one_place_of_all_rows() -> None:
    spikes = _rows_with([(66.0, 56.0), (82.0, 70.0), (110.0, 102.0)], [66.0, 82.0, 110.0]).spikes
    places = {round(spike.x_mm * PX_PER_MM_X, 2) for spike in spikes}
    assert len(spikes) == 12 and sorted(places) == pytest.approx([480, 890, 1330, 1740], abs=0.5)


def test_what_a_firing_lacks_in_a_lead_is_added_where_ink_hides_it() -> None:
    above = slice(round(26.0 * PX_PER_MM_Y), round(41.5 * PX_PER_MM_Y))  # of the second row's line
    blots = ((above, slice(860, 920), 1.0), (above, slice(1320, 1341), 0.0))
    spikes = _rows_with([(66.0, 56.0), (82.0, 70.0), (110.0, 102.0)], [66.0, 82.0, 110.0], blots=blots).spikes
    assert [(spike.row, round(spike.x_mm * PX_PER_MM_X / 10)) for spike in spikes] == [
        (row, column) for row in range(3) for column in (48, 89, 133, 174) if (row, column) != (1, 133)
    ]
    hidden = next(spike for spike in spikes if spike.row == 1 and 860 < spike.x_mm * PX_PER_MM_X < 920)
    assert hidden.tip_mm == pytest.approx(70.0, abs=0.6)
    assert hidden.score <= min(spike.score for spike in spikes if spike is not hidden)


def _rows_px(upper_mm: float, lower_mm: float) -> slice:
    """Rows of the picture that `_rows_with` draws."""
    return slice(round((upper_mm - 40.0) * PX_PER_MM_Y), round((lower_mm - 40.0) * PX_PER_MM_Y))


def test_a_hidden_spike_of_a_limb_lead_follows_from_the_others() -> None:
    uprights = [(78.0, 68.0), (92.0, 88.0), (100.0, 108.0)]  # II, III and aVR: 10, 4 and -8 mm; so I has 6
    hidden = tuple((_rows_px(52.0, 59.0), slice(at - 30, at + 30), 1.0) for at in (480, 890, 1330, 1740))
    spikes = _rows_with(uprights, [60.0, 78.0, 92.0, 100.0], blots=hidden).spikes
    assert [spike.row for spike in spikes] == [row for row in range(4) for _ in range(4)]
    assert [spike.tip_mm for spike in spikes[:4]] == pytest.approx([54.0] * 4, abs=0.8)


def test_a_broken_spike_is_as_tall_as_the_others_of_its_lead() -> None:
    gap = ((_rows_px(55.5, 57.5), slice(860, 920), 0.0),)
    spikes = _rows_with([(66.0, 50.0), (100.0, 92.0)], [66.0, 100.0], blots=gap).spikes
    assert [spike.tip_mm for spike in spikes if spike.row == 0] == pytest.approx([50.0] * 4, abs=0.6)


def test_a_firing_of_one_lead_that_no_pattern_awaits_is_not_completed() -> None:
    alone = ((_rows_px(56.0, 66.0), slice(1098, 1104), 1.0), (_rows_px(68.0, 81.0), slice(1080, 1120), 1.0))
    spikes = _rows_with([(66.0, 56.0), (82.0, 72.0)], [66.0, 82.0], blots=alone).spikes
    assert not any(spike.row == 1 and 1080 < spike.x_mm * PX_PER_MM_X < 1120 for spike in spikes)
    assert sum(spike.row == 1 for spike in spikes) == 4


def test_columns_that_were_recorded_together_fire_together() -> None:
    hidden = tuple((_rows_px(*ends), slice(1700, 1780), 1.0) for ends in ((54.0, 65.0), (80.0, 89.0)))
    columns_mm = ((5.0, 47.5), (47.5, 100.0))  # the third firing is the first again, the fourth the second
    for sequential, expected in ((True, 3), (False, 4)):
        match = _match(2, columns_mm, sequential=sequential)
        spikes = _rows_with([(66.0, 56.0), (90.0, 82.0)], [66.0, 90.0], blots=hidden, match=match).spikes
        assert [spike.row for spike in spikes] == [0] * expected + [1] * expected


def test_a_spike_inside_a_complex_is_shown_to_the_network() -> None:
    y = _line(12.0, half_mm=1.5)
    y[1000:] = y[0]
    at = 230  # on the way down from the tip at 200
    row = _seen(_strip(y, Pen(width_mm=0.3, blur_mm=0.08, darkness=1.0), {at: 10.5}), y)
    assert any(abs(stroke.column - at) <= 3 and stroke.sign < 0 for stroke in strokes_of(row))


@pytest.mark.parametrize("half_mm", [0.8, 1.0, 1.4])
def test_waves_that_were_not_traced_are_no_spikes(half_mm: float) -> None:
    strip = _strip(_line(half_mm=half_mm), Pen(width_mm=0.3, blur_mm=0.08, darkness=1.0))
    assert _fit(_line(0.0), strip, []).spikes == ()
