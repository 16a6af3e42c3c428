"""Print: found where the text map says, read through the lattice, and understood."""

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest

from pipeline import GridScale, Lead, LeadLabel, PageImage, RectifiedPage, SegmentationMap, TextLine
from pipeline.datatypes import NAMED_LEADS
from pipeline.errors import WeightsMismatch
from pipeline.printing import recogniser as recogniser_module
from pipeline.printing.recogniser import Recogniser, load_recogniser
from pipeline.printing.statements import join_lead_names, lead_name, stated_scale
from pipeline.printing.text import Seen, find_text, look, read_text
from pipeline.sheet.paper import Sheet

PX_PER_MM = 8.0
WIDTH_MM, HEIGHT_MM = 150.0, 70.0


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    return load_recogniser()


def put(picture: np.ndarray, text: str, x_mm: float, y_mm: float, height_mm: float = 2.5) -> None:
    """Print `text` with its baseline at (x, y)."""
    scale = height_mm * PX_PER_MM / 21
    place = round(x_mm * PX_PER_MM), round(y_mm * PX_PER_MM)
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (20, 20, 20), round(scale * 1.8), cv2.LINE_AA)


def flat(quarter_turns: int = 0) -> tuple[np.ndarray, RectifiedPage]:
    """A white page, and the map that a picture turned by `quarter_turns` would have to the sheet."""
    i, j = np.mgrid[0 : HEIGHT_MM + 1 : 5, 0 : WIDTH_MM + 1 : 5]
    x, y = j * PX_PER_MM - 0.5, i * PX_PER_MM - 0.5
    homography = np.diag([PX_PER_MM, PX_PER_MM, 1.0])
    if quarter_turns == 2:
        x, y = WIDTH_MM * PX_PER_MM - 1 - x, HEIGHT_MM * PX_PER_MM - 1 - y
        homography = np.array(
            [[-PX_PER_MM, 0, WIDTH_MM * PX_PER_MM - 1], [0, -PX_PER_MM, HEIGHT_MM * PX_PER_MM - 1], [0, 0, 1.0]]
        )
    rectified = RectifiedPage(
        node_xy=np.stack([x, y], -1).astype(np.float32),
        node_mm=5.0,
        pixels=np.full((round(HEIGHT_MM * 4), round(WIDTH_MM * 4), 3), 255, np.uint8),
        px_per_mm=4.0,
        grid_scale=GridScale(px_per_mm_x=PX_PER_MM, px_per_mm_y=PX_PER_MM, score=1.0, source="grid"),
        homography=homography,
        quarter_turns=quarter_turns,
    )
    return np.full((round(HEIGHT_MM * PX_PER_MM), round(WIDTH_MM * PX_PER_MM), 3), 250, np.uint8), rectified


def seen(picture: np.ndarray, rectified: RectifiedPage, ignore: Sequence[tuple[slice, slice]] = ()) -> Sheet:
    """The sheet, with the text map of a network that takes all ink for print but in `ignore`."""
    ink = cv2.resize(255 - picture[..., 0], None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA).astype(np.float32) / 230
    text = np.clip(ink - 0.03, 0, 1)
    for window in ignore:
        text[window] = 0
    nothing = np.zeros_like(text)
    maps = SegmentationMap(grid=nothing, trace=nothing, text=text, scale=0.7)
    return Sheet(page=PageImage(pixels=picture), segmentation=maps, rectified=rectified)


def lines(*texts: str, y_mm: float = 100.0, score: float = 0.98) -> tuple[TextLine, ...]:
    """Lines of print beside each other."""
    return tuple(
        TextLine(text=text, x0_mm=10 + 40 * k, x1_mm=30 + 40 * k, y0_mm=y_mm, y1_mm=y_mm + 2.5, score=score)
        for k, text in enumerate(texts)
    )


@pytest.mark.parametrize("quarter_turns", [0, 2])
def test_print_is_found_and_read_upright(recogniser: Recogniser, quarter_turns: int) -> None:
    picture, rectified = flat(quarter_turns)
    put(picture, "Vent. rate 61 BPM", 5, 8)
    put(picture, "PR interval 146 ms", 5, 12.5)
    put(picture, "25 mm/s  10 mm/mV", 60, 66)
    cv2.line(picture, (40, 130), (1100, 130), (20, 20, 20), 5)  # a rule
    cv2.rectangle(picture, (80, 240), (120, 320), (20, 20, 20), 3)  # a pulse, 5 mm x 10 mm
    cv2.line(picture, (600, 160), (600, 480), (20, 20, 20), 4)  # a separator
    if quarter_turns:
        picture = np.ascontiguousarray(np.rot90(picture, 2))
    sheet = seen(picture, rectified)
    found = read_text(sheet, recogniser)
    assert [line.text.replace(" ", "") for line in found] == ["Vent.rate61BPM", "PRinterval146ms", "25mm/s10mm/mV"]
    footer = found[-1]
    assert footer.y0_mm == pytest.approx(63.5, abs=0.8) and footer.x0_mm == pytest.approx(60, abs=1)
    assert 35 < footer.x1_mm - footer.x0_mm < 60 and footer.score > 0.8
    assert stated_scale(found).speed_mm_per_s == 25.0 and stated_scale(found).gain_mm_per_mv == 10.0


def test_grid_lines_that_half_look_like_print_do_not_hide_it() -> None:
    text = np.zeros((150, 400), np.uint8)
    text[45:76, 51:290:26] = 120  # every 5 mm, down into the print
    text[75:90, 50:290:2] = 250
    found = find_text(Seen(0.0, 0.0, np.arange(150) / 5, text, np.zeros_like(text)))
    assert any(line.x1_mm - line.x0_mm > 40 and line.y1_mm - line.y0_mm < 5 for line in found)


def test_print_outside_the_canvas_is_read_too(recogniser: Recogniser) -> None:
    picture, rectified = flat()
    put(picture, "50 mm/s 5 mm/mV", 20, 6)
    low = RectifiedPage(
        node_xy=rectified.node_xy[3:],  # the sheet starts 15 mm lower
        node_mm=5.0,
        pixels=rectified.pixels[60:],
        px_per_mm=4.0,
        grid_scale=rectified.grid_scale,
        homography=rectified.homography @ np.array([[1, 0, 0], [0, 1, 15.0], [0, 0, 1]]),
    )
    (line,) = read_text(seen(picture, low), recogniser)
    assert line.y1_mm < 0 and stated_scale([line]).speed_mm_per_s == 50.0


def test_only_what_the_page_network_calls_print_is_looked_at(recogniser: Recogniser) -> None:
    picture, rectified = flat()
    put(picture, "25 mm/s", 10, 20)
    put(picture, "10 mm/mV", 10, 50)
    sheet = seen(picture, rectified, ignore=[(slice(0, 180), slice(None))])
    assert [line.text for line in read_text(sheet, recogniser)] == ["10 mm/mV"]
    blank = seen(flat()[0], rectified)
    assert find_text(look(blank)) == ()
    assert read_text(blank, recogniser) == ()


def test_a_statement_that_was_taken_for_trace_is_read_beside_the_edges(recogniser: Recogniser) -> None:
    picture, rectified = flat()
    put(picture, "50 mm/s 10 mm/mV", 30, 66)
    put(picture, "25 mm/s 10 mm/mV", 30, 35)  # in the middle, where traces are
    put(picture, "Ward 4", 100, 66)
    sheet = seen(picture, rectified)
    maps = sheet.segmentation
    sheet = replace(sheet, segmentation=replace(maps, trace=maps.text, text=maps.trace))
    (line,) = read_text(sheet, recogniser)
    assert (stated_scale([line]).speed_mm_per_s, stated_scale([line]).gain_mm_per_mv) == (50.0, 10.0)
    assert line.y0_mm > 60


def test_time_is_bounded_and_the_edges_come_first(recogniser: Recogniser) -> None:
    picture, rectified = flat()
    for k in range(12):
        put(picture, f"25 mm/s line {k}", 5 + 20 * (k % 2), 6 + 5.4 * k)
    sheet = seen(picture, rectified)
    assert len(find_text(look(sheet))) == 12
    found = read_text(sheet, recogniser, most_px=2000)
    assert 2 <= len(found) <= 6
    assert found[0].y0_mm < 10 and found[-1].y0_mm > 60


def test_a_package_without_its_model_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recogniser_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsMismatch, match="rapidocr"):
        load_recogniser()


@pytest.mark.parametrize(
    ("text", "speed", "gain", "chest"),
    [
        ("25 mm/s", 25.0, None, None),
        ("25mm/sec", 25.0, None, None),
        ("50 mm/s", 50.0, None, None),
        ("12.5mm/s", 12.5, None, None),
        ("12,5 mm/s", 12.5, None, None),
        ("25 MM/SEC 10 MM/MV", 25.0, 10.0, None),
        ("10 mm/mV", None, 10.0, None),
        ("10.0mm/mV", None, 10.0, None),
        ("5 mm/mV", None, 5.0, None),
        ("2.5mm/mV", None, 2.5, None),
        ("25 mm/s 10 mm/mV 0.5-40 Hz", 25.0, 10.0, None),
        ("AC50 25mm/s 10mm/mV 4*2.5s+1r 101 SE-3 V1.0", 25.0, 10.0, None),
        ("Speed: 25 mm/sec Limb: 10 mm/mV Chest: 10 mm/mV", 25.0, 10.0, None),
        ("Limb: 10 mm/mV Chest: 5 mm/mV", None, 10.0, 5.0),
        ("L:10mm/mV C:5mm/mV", None, 10.0, 5.0),
        ("I-aVF 10mm/mV V1-V6 5mm/mV", None, 10.0, 5.0),
        ("10/5mm/mV", None, 10.0, 5.0),
        ("25 mm/sed Limb: 1 mm/mV Chest: 5 mm/mV", 25.0, 10.0, 5.0),  # a lost digit
        ("1mV = 10 mm", None, 10.0, None),
        ("10 mm/1mV", None, 10.0, None),
        ("x0.5", None, 5.0, None),
        ("25mm/s x1/2", 25.0, 5.0, None),
        # what a recogniser makes of it
        ("1O mm/mV 2S mrn/s", 25.0, 10.0, None),
        ("25mms 10mmmV", 25.0, 10.0, None),
        ("25mm/s10mm/mV", 25.0, 10.0, None),
        ("25 mmis 10 mmimV", 25.0, 10.0, None),
        ("Gain10mm/mV Speed25mm/s", 25.0, 10.0, None),
        ("10.mm/mV 25.mm/sec", 25.0, 10.0, None),
        ("25 m/s 10 m/mV", 25.0, 10.0, None),
        ("25lmm/s 10I mm/mV", 25.0, 10.0, None),
        # what states neither
        ("PR 100 ms QRS 10 ms 25 msec", None, None, None),
        ("10 mV 5 mmHg 120 mmHg", None, None, None),
        ("ST 5 mm segment, 10 mm", None, None, None),
        ("125mm/s 15 mm/mV 1985025mm/s", None, None, None),
        ("3x4 4x2.5s 2x10s 0.5-40 Hz", None, None, None),
        ("x1 10 mm/mV x2", None, 10.0, None),
        ("251 mm/s 1lmm/mV 2Olmm/s", None, None, None),
    ],
)
def test_speed_and_gain_in_words(text: str, speed: float | None, gain: float | None, chest: float | None) -> None:
    stated = stated_scale(lines(text))
    assert (stated.speed_mm_per_s, stated.gain_mm_per_mv, stated.chest_gain_mm_per_mv) == (speed, gain, chest)
    assert stated.reasons == ()


def test_a_statement_may_stand_in_pieces_beside_each_other_but_not_below() -> None:
    pieces = stated_scale(lines("Limb:", "10 mm/mV", "Chest:", "5 mm/mV", "Speed:", "25", "mm/s"))
    assert (pieces.speed_mm_per_s, pieces.gain_mm_per_mv, pieces.chest_gain_mm_per_mv) == (25.0, 10.0, 5.0)
    below = stated_scale([*lines("25"), *lines("mm/s", y_mm=105.0)])
    assert below.speed_mm_per_s is None


def test_statements_that_differ_are_no_statement() -> None:
    stated = stated_scale([*lines("25 mm/s 10 mm/mV"), *lines("50 mm/s 10 mm/mV", y_mm=20.0)])
    assert (stated.speed_mm_per_s, stated.gain_mm_per_mv) == (None, 10.0)
    assert stated.reasons == ("several paper speeds are printed: 25 and 50 mm/s",)


@pytest.mark.parametrize(
    ("text", "lead"),
    [
        *((lead.value, lead) for lead in NAMED_LEADS),
        ("AVR", Lead.AVR),
        ("-aVR", Lead.AVR),
        ("aVF:", Lead.AVF),
        ("VI", Lead.V1),
        ("Vl", Lead.V1),
        ("C4", Lead.V4),
        ("ll", Lead.II),
        ("I aVR", None),
        ("C7", Lead.V7),
        ("v3r", Lead.V3R),
        ("RV4", Lead.V4R),
        ("V10", None),
        ("D", None),
        ("CVR", None),
        ("V1 25 mm/s", None),
        ("", None),
    ],
)
def test_lead_names(text: str, lead: Lead | None) -> None:
    assert lead_name(text) == lead


def test_recognised_names_join_those_seen() -> None:
    def label(lead: Lead, x_mm: float, score: float) -> LeadLabel:
        return LeadLabel(lead=lead, x_mm=x_mm, y_mm=101.0, score=score)

    seen_names = (label(Lead.V1, 20.0, 0.6), label(Lead.V3, 60.0, 0.6), label(Lead.AVL, 100.0, 0.99))
    joined = join_lead_names(seen_names, lines("V1", "V2", "aVF", "V4", "III"))
    got = [(x.lead, round(x.x_mm)) for x in joined]
    # V1 is known, V2 was seen as V3 less surely, aVL was seen more surely than aVF, V4 is new, III may be strokes
    assert got == [(Lead.V1, 20), (Lead.AVL, 100), (Lead.V2, 60), (Lead.V4, 140)]
    assert join_lead_names(seen_names, lines("V2", "V6", score=0.7)) == seen_names


def test_a_recognised_name_of_an_extra_lead_replaces_the_part_of_it_that_was_seen() -> None:
    part = LeadLabel(lead=Lead.V3, x_mm=20.0, y_mm=101.0, score=0.99)
    (joined,) = join_lead_names([part], lines("V3R"))
    assert joined.lead == Lead.V3R
    whole, apart = replace(part, lead=Lead.V3R, x_mm=23.0), replace(part, x_mm=80.0)
    assert join_lead_names([part, whole, apart], []) == (whole, apart)
    unsure = replace(whole, score=0.7)
    assert join_lead_names([part, unsure], []) == (part,)


def test_single_letters_are_leads_only_where_one_stands_below_another() -> None:
    def letters(*places: tuple[str, float, float]) -> list[TextLine]:
        return [
            TextLine(text=text, x0_mm=x - 1, x1_mm=x + 1, y0_mm=y - 1, y1_mm=y + 1, score=0.95) for text, x, y in places
        ]

    below = letters(("D", 200.0, 40.0), ("A", 201.0, 70.0), ("J", 200.0, 100.0), ("X", 20.0, 10.0))
    assert [label.lead for label in join_lead_names([], below)] == [Lead.D, Lead.A, Lead.J]
    beside = letters(("A", 20.0, 40.0), ("A", 40.0, 40.0), ("D", 60.0, 40.0))  # marks of beats
    assert join_lead_names([], beside) == ()


def test_a_name_seen_within_a_longer_line_of_print_is_none() -> None:
    line = TextLine(text="Left axis deviation V3 ABNORMAL", x0_mm=20.0, x1_mm=70.0, y0_mm=10.0, y1_mm=13.0, score=0.95)
    inside = LeadLabel(lead=Lead.V3, x_mm=52.0, y_mm=11.5, score=0.9)
    beside = LeadLabel(lead=Lead.V1, x_mm=52.0, y_mm=18.0, score=0.9)
    at_its_end = LeadLabel(lead=Lead.V2, x_mm=69.0, y_mm=11.5, score=0.9)
    assert join_lead_names([inside, beside, at_its_end], [line]) == (beside, at_its_end)


def test_a_patients_name_does_not_slip_into_a_log() -> None:
    (line,) = lines("DOE, JANE")
    assert "DOE" not in repr(line) and "JANE" not in str(line)
