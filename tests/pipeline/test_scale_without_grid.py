"""Pages whose grid does not tell the scale: columns and pulses do, or the size of the lead names."""

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from pipeline import LEADS, Calibration, Corrections, Digitization, GridScale, Lead, PageImage
from pipeline.datatypes import FloatArray, Reading
from pipeline.digitizer import Digitizer, _Task
from pipeline.errors import DigitizationError, GridNotFound, TraceNotFound
from pipeline.evaluation.metrics import score_lead
from pipeline.training.recordings.simulate import simulate_ecg
from tests.pipeline.drawn_pages import STANDARD, ecg_page, snr_of_short_leads_db


@pytest.fixture(scope="module")
def digitizer() -> Digitizer:
    return Digitizer.load(device="cpu")


def lead_db(signal_mv: FloatArray, result: Digitization, lead: Lead) -> float:
    """SNR of a short lead, moved along time to fit best: a scale is known to some tenths of a percent."""
    column = next(leads.index(lead) for leads in STANDARD.rows if lead in leads)
    truth = np.full(signal_mv.shape[1], np.nan, np.float32)
    truth[1250 * column : 1250 * (column + 1)] = signal_mv[LEADS.index(lead), 1250 * column : 1250 * (column + 1)]
    score = score_lead(truth, result.record.signal_mv[LEADS.index(lead)], 500.0)
    assert score is not None
    return score.snr_db


def test_columns_give_the_scale_of_a_page_without_a_grid(digitizer: Digitizer) -> None:
    signal_mv = simulate_ecg(np.random.default_rng(4), disease="none")
    picture = ecg_page(signal_mv, lines_mm=()).pixels
    height, width = picture.shape[:2]
    tilt = cv2.getRotationMatrix2D((width / 2, height / 2), 1.5, 0.7)
    tilted = cv2.warpAffine(picture, tilt, (width, height), flags=cv2.INTER_AREA, borderValue=(255, 255, 255))
    result = digitizer.digitize(PageImage(pixels=np.ascontiguousarray(tilted)))
    scale = result.rectified.grid_scale
    assert (scale.source, scale.score) == ("columns", 0.0)
    assert scale.px_per_mm_x == pytest.approx(0.7 * width / 297, rel=0.01)
    assert any("scale is taken from columns" in warning for warning in result.quality.warnings)
    assert result.layout_match.layout.name == STANDARD.name
    assert np.mean([lead_db(signal_mv, result, lead) for lead in LEADS if lead != Lead.II]) > 12


def test_lines_of_5_mm_do_not_pass_for_lines_of_1_mm_on_a_long_sheet(digitizer: Digitizer) -> None:
    signal_mv = simulate_ecg(np.random.default_rng(4), disease="none")
    picture = ecg_page(signal_mv, speed=50.0, lines_mm=(5,)).pixels
    small = cv2.resize(picture, None, fx=0.45, fy=0.45, interpolation=cv2.INTER_AREA)
    result = digitizer.digitize(PageImage(pixels=small))
    assert result.rectified.grid_scale.px_per_mm_x == pytest.approx(small.shape[1] / 547, rel=0.01)
    assert result.record.calibration.paper_speed_mm_per_s == 50.0
    assert np.mean(list(snr_of_short_leads_db(signal_mv, result).values())) > 15


def test_curves_without_grid_and_lead_names_are_no_ecg(digitizer: Digitizer) -> None:
    rng = np.random.default_rng(1)
    pixels = np.full((1200, 1600, 3), 255, np.uint8)
    x = np.arange(1400)
    for row in range(3):
        y = 200 + 400 * row + 100 * np.sin(x / 60 * (row + 1)) + rng.normal(0, 5, x.size)
        cv2.polylines(pixels, [np.column_stack([x + 100, y]).astype(np.int32)], False, (30, 30, 200), 3, cv2.LINE_AA)
    cv2.line(pixels, (100, 50), (100, 1150), (0, 0, 0), 2)
    with pytest.raises(DigitizationError, match=r"few lead names|no lead name"):
        digitizer.digitize(PageImage(pixels=pixels))


@pytest.mark.parametrize(
    ("doubt_mm", "by_grid", "by_rows", "taken", "bent_mm"),
    [
        (0.01, 8.0, 12.0, "grid", 0.5),  # nobody asks
        (0.07, 8.0, 12.0, "rows", 0.5),
        (0.07, 12.0, 8.0, "grid", 0.5),
        (0.07, 12.0, 8.0, "rows", 1.1),  # rows that are straight without it
        (0.07, None, 8.0, "rows", 1.1),
        (0.07, 8.0, None, "grid", 1.1),
        (0.07, None, None, None, 0.5),
    ],
)
def test_a_grid_the_bend_network_does_not_see_must_read_better_than_none(
    digitizer: Digitizer,
    monkeypatch: pytest.MonkeyPatch,
    doubt_mm: float,
    by_grid: float | None,
    by_rows: float | None,
    taken: str | None,
    bent_mm: float,
) -> None:
    def sheet(source: str) -> SimpleNamespace:
        scale = GridScale(px_per_mm_x=8.0, px_per_mm_y=8.0, score=1.0, source=source, doubt_mm=doubt_mm)
        return SimpleNamespace(sheet=SimpleNamespace(rectified=SimpleNamespace(grid_scale=scale)))

    def finish(_self: object, _page: object, seen: SimpleNamespace, *_: object) -> SimpleNamespace:
        return seen

    def read(_self: object, candidate: SimpleNamespace, *_: object) -> SimpleNamespace:
        source = candidate.sheet.rectified.grid_scale.source
        estimate = {"grid": by_grid, "rows": by_rows}[source]
        if estimate is None:
            raise TraceNotFound(f"nothing by {source}")
        quality = SimpleNamespace(estimated_snr_db=estimate)
        bend_mm = bent_mm if source == "grid" else 0.3
        rectified = candidate.sheet.rectified
        return SimpleNamespace(
            source=source, quality=quality, row_baselines_px=None, traces=bend_mm, rectified=rectified
        )

    stages = replace(digitizer.stages, segment=lambda *_: None, lay_flat=lambda *_: None, bend_of_rows=float)
    digitizer = replace(digitizer, stages=stages)
    monkeypatch.setattr(Digitizer, "_flatten", lambda *_: sheet("grid"))
    monkeypatch.setattr(Digitizer, "_upright", lambda *_: sheet("rows"))
    monkeypatch.setattr(Digitizer, "_read", read)
    monkeypatch.setattr(Digitizer, "_finish", finish)
    page = PageImage(pixels=np.zeros((8, 8, 3), np.uint8))
    if taken is None:
        with pytest.raises(TraceNotFound, match="nothing by grid"):
            digitizer.digitize(page)
    else:
        assert digitizer.digitize(page).source == taken  # type: ignore[attr-defined]


def read_on_a_guess(
    digitizer: Digitizer,
    monkeypatch: pytest.MonkeyPatch,
    factors: list[float],
    leads: tuple[Lead, ...] = LEADS[:1],
    named: int = 1,
) -> tuple[Reading, list[str], list[tuple[float, str]]]:
    """Read a sheet whose scale is a guess: the last reading, where each scale came from, and the corrections."""
    labels = [SimpleNamespace(lead=lead) for lead in leads[:named]]
    match = SimpleNamespace(labels=labels, layout=SimpleNamespace(leads=leads), column_mm=((0.0, 1.0),))
    readings, corrections, left = [], [], iter(factors)

    def see(_self: object, upright: SimpleNamespace, *_: object) -> SimpleNamespace:
        readings.append(upright.sheet.rectified.grid_scale.source)
        rectified = upright.sheet.rectified
        marks = SimpleNamespace(rows=())
        return SimpleNamespace(rectified=rectified, marks=marks, traces=None, text=(), to_original=np.eye(3))

    def rescale(sheet: SimpleNamespace, factor: float, source: str) -> SimpleNamespace:
        corrections.append((factor, source))
        scale = GridScale(px_per_mm_x=8.0, px_per_mm_y=8.0, score=0.0, source=source)
        return SimpleNamespace(page=sheet.page, rectified=SimpleNamespace(grid_scale=scale))

    stages = replace(
        digitizer.stages,
        true_scale=lambda *_: next(left),
        rescale=rescale,
        put_where_stated=lambda match, *_: match,
        settle_columns=lambda match, *_: match,
        measure_lean=lambda *_: 0.0,
    )
    monkeypatch.setattr(Digitizer, "_match", lambda *_: match)
    monkeypatch.setattr(Digitizer, "_see", see)
    monkeypatch.setattr(Digitizer, "_upright", lambda _self, sheet, _stands: SimpleNamespace(sheet=sheet))
    guess = GridScale(px_per_mm_x=8.0, px_per_mm_y=8.0, score=0.0, source="default")
    page = PageImage(pixels=np.zeros((8, 8, 3), np.uint8))
    start = SimpleNamespace(sheet=SimpleNamespace(page=page, rectified=SimpleNamespace(grid_scale=guess)))
    result = replace(digitizer, stages=stages)._read(start, _Task(page, np.eye(3), "", Calibration(), Corrections()))
    return result, readings, corrections


@pytest.mark.parametrize(
    ("factors", "sources"),
    [
        ([1.01], ["columns"]),  # the guess was right
        ([1.5, 1.2], ["default", "columns"]),  # no third correction
        ([1.5, 1.0], ["default", "columns"]),
    ],
)
def test_a_guessed_scale_is_corrected_at_most_twice(
    digitizer: Digitizer, monkeypatch: pytest.MonkeyPatch, factors: list[float], sources: list[str]
) -> None:
    """Every reading corrects the scale of the one before it, and the last one counts."""
    result, readings, corrections = read_on_a_guess(digitizer, monkeypatch, factors)
    assert corrections == list(zip(factors, sources, strict=True))
    assert readings == ["default", *sources]
    assert result.rectified.grid_scale.source == "columns"


@pytest.mark.parametrize(("n_leads", "enough"), [(1, 1), (3, 2), (6, 4), (12, 4)])
def test_columns_are_relied_on_where_enough_names_were_found(
    digitizer: Digitizer, monkeypatch: pytest.MonkeyPatch, n_leads: int, enough: int
) -> None:
    read = read_on_a_guess(digitizer, monkeypatch, [1.0], LEADS[:n_leads], enough)
    assert read[0].rectified.grid_scale.source == "columns"
    with pytest.raises(GridNotFound, match="few lead names"):
        read_on_a_guess(digitizer, monkeypatch, [1.0], LEADS[:n_leads], enough - 1)
