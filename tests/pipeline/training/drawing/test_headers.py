"""Headers with known values: what they state is read from their words, or not at all."""

from dataclasses import fields, replace

import numpy as np

from pipeline import PrintedValues, TextLine
from pipeline.evaluation.drawn import print_table
from pipeline.printing.values import printed_values
from pipeline.training.drawing.headers import with_header
from pipeline.training.drawing.style import PageStyle, PrintedWords

_NUMBERS = [each.name for each in fields(PrintedValues) if each.name.endswith(("_ms", "_deg", "_minute", "_years"))]


def line(words: PrintedWords) -> TextLine:
    width_mm = 0.8 * words.height_mm * len(words.text)
    return TextLine(
        text=words.text,
        x0_mm=words.x_mm,
        x1_mm=words.x_mm + width_mm,
        y0_mm=words.y_mm,
        y1_mm=words.y_mm + words.height_mm,
        score=0.98,
    )


def headers(count: int) -> list[tuple[PrintedValues, PrintedValues]]:
    """What headers state, and what is read of their words."""
    found = []
    for seed in range(count):
        style = with_header(PageStyle(font="a font"), 72.4, np.random.default_rng(seed))
        found.append((style.stated, printed_values([line(words) for words in style.printed])))
    return found


def test_nothing_is_read_that_is_not_stated_and_little_is_missed() -> None:
    right = ambiguous = missed = 0
    for stated, found in headers(300):
        for name in _NUMBERS:
            assert getattr(found, name) in (getattr(stated, name), None), (name, stated, found)
            missed += getattr(found, name) != getattr(stated, name)
        assert found.recorded_at in (stated.recorded_at, None)
        if found.recorded_on is None:
            assert stated.recorded_on in found.may_be_recorded_on
            ambiguous += 1
        else:
            assert found.recorded_on == stated.recorded_on
            right += 1
    assert right > 240 and ambiguous > 10 and missed < 100  # PR without a unit may be a pulse rate


def test_a_header_has_room_above_the_rows() -> None:
    style = with_header(PageStyle(top_mm=5.0, height_mm=100.0), 72.4, np.random.default_rng(1))
    assert max(words.y_mm + words.height_mm for words in style.printed if words.x_mm < 100) < style.top_mm
    assert style.height_mm - style.top_mm == 95.0


def test_the_table_counts_right_wrong_ambiguous_and_missed() -> None:
    (stated, found), *_ = headers(1)
    day = stated.recorded_on
    assert day is not None
    pages = [
        (stated, found),
        (stated, replace(found, heart_rate_per_minute=99.0)),
        (stated, replace(found, heart_rate_per_minute=None, recorded_on=None, may_be_recorded_on=(day,))),
    ]
    table = print_table(pages)
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    assert ("heart_rate_per_minute", "3", "1", "1", "0", "1") in rows
    assert ("recorded_on", "3", "2", "0", "1", "0") in rows
