"""The date of recording: every order and language, never a guess, and never the date of something else."""

from datetime import date, time

import pytest

from pipeline import TextLine
from pipeline.printing.dates import RecordingDate, recording_date
from pipeline.printing.rows import in_rows

MARCH = date(2019, 3, 22)
LATE = time(10, 15, 3)


def line(text: str, x_mm: float = 10.0, y_mm: float = 5.0, sure: tuple[float, ...] = ()) -> TextLine:
    return TextLine(
        text=text, x0_mm=x_mm, x1_mm=x_mm + 2 * len(text), y0_mm=y_mm, y1_mm=y_mm + 3, score=0.98, sure=sure
    )


def read(*texts: str) -> RecordingDate:
    """Read texts that stand one below the other."""
    return recording_date(in_rows([line(text, y_mm=5.0 * k) for k, text in enumerate(texts)]))


@pytest.mark.parametrize(
    "text",
    [
        "2019-03-22 10:15:03",
        "2019/03/22 10:15:03",
        "2019.3.22 10:15:03",
        "2019-03-22T10:15:03",
        "Date:2019-03-22,10:15:03",
        "2019-03-2210:15:03",
        "2019-03-22.10:15:03",
        "22.03.2019 10:15:03",
        "22.3.2019, 10:15:03 Uhr",
        "22/03/2019 10:15:03",
        "03/22/2019 10:15:03 AM",
        "22-MAR-2019 10:15:03",
        "22MAR2019 10:15:03",
        "22 March 2019 10:15:03",
        "March 22, 2019 10:15:03",
        "Mar 22 2019 at 10:15:03",
        "22. M\u00e4rz 2019 um 10:15:03",
        "22 mars 2019 \u00e0 10:15:03",
        "22 marzo 2019 10:15:03",
        "22 de mar\u00e7o de 2019 10:15:03",
        "22 maart 2019 10:15:03",
        "2019-Mar-22 10:15:03",
        "10:15:03 22-Mar-2019",
        "Aufnahme: 22.03.2019 10:15:03",
        "Recorded 22 Mar 2019 10:15:03",
        "Date: 22 Mar 2019  Time: 10:15:03",
    ],
)
def test_dates_are_read_in_every_order_and_language(text: str) -> None:
    assert read(text) == RecordingDate(on=MARCH, at=LATE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("am 5. Jan. 1999 08:00", date(1999, 1, 5)),
        ("12. J\u00e4nner 2020 08:00", date(2020, 1, 12)),
        ("12 f\u00e9vr. 2020 08:00", date(2020, 2, 12)),
        ("12 MAI 2020 08:00", date(2020, 5, 12)),
        ("12 juin 2020 08:00", date(2020, 6, 12)),
        ("12 juil. 2020 08:00", date(2020, 7, 12)),
        ("12 ao\u00fbt 2020 08:00", date(2020, 8, 12)),
        ("12 okt 2020 08:00", date(2020, 10, 12)),
        ("12-Dez-2020 08:00", date(2020, 12, 12)),
        ("12 ene 2020 08:00", date(2020, 1, 12)),
        ("12 ott 2020 08:00", date(2020, 10, 12)),
        ("25-DEC-98 08:00", date(1998, 12, 25)),
    ],
)
def test_names_of_months(text: str, expected: date) -> None:
    assert read(text) == RecordingDate(on=expected, at=time(8))


@pytest.mark.parametrize(
    ("clock", "expected"),
    [
        ("12:45:51 AM", time(0, 45, 51)),
        ("12:45 pm", time(12, 45)),
        ("01:05 P.M.", time(13, 5)),
        ("10h15", time(10, 15)),
        ("9:15", time(9, 15)),
        ("23:59:59", time(23, 59, 59)),
        ("25:00", None),
        ("13:05 PM", None),
        ("12:45 P", None),  # cut off
        ("10:75", None),
    ],
)
def test_clocks_of_twelve_and_of_twenty_four_hours(clock: str, expected: time | None) -> None:
    assert read(f"Date: 2019-03-22 {clock}") == RecordingDate(on=MARCH, at=expected)


def test_a_date_that_can_be_read_in_two_ways_is_not_read() -> None:
    found = read("03/04/2021 10:15:03")
    assert (found.on, found.at, found.may_be) == (None, LATE, (date(2021, 3, 4), date(2021, 4, 3)))
    assert found.reasons == ("nothing says whether the day or the month of the printed date comes first",)
    assert read("03-04-2021 10:15").may_be == found.may_be
    assert read("22.03.19 10:15").may_be == (date(2019, 3, 22), date(2022, 3, 19))
    assert read("04/04/2021 10:15").on == date(2021, 4, 4)  # whichever comes first
    assert read("03.04.2021 10:15").on == date(2021, 4, 3)  # with points the day does


@pytest.mark.parametrize(
    ("born", "expected"),
    [
        ("DOB: 23/11/1956", date(2021, 4, 3)),
        ("DOB: 11/23/1956", date(2021, 3, 4)),
        ("DOB: 11/10/1956", None),  # says nothing
        ("DOB: 23-11-1956", None),  # is written otherwise
    ],
)
def test_another_date_of_the_page_decides_the_order(born: str, expected: date | None) -> None:
    assert read(born, "03/04/2021 10:15:03").on == expected


def test_pages_that_contradict_themselves_about_the_order_decide_nothing() -> None:
    assert read("DOB: 23/11/1956", "Printed 11/23/2021", "03/04/2021 10:15:03").on is None


@pytest.mark.parametrize(
    "text",
    [
        "DOB: 22-MAR-2019",
        "Date of birth 22.03.2019",
        "Geb.: 22.03.2019",
        "N\u00e9e le 22/03/2019",
        "Printed: 22-MAR-2019 10:15:03",
        "Report confirmed 22-MAR-2019 10:15",
        "22-MAR-2019",  # a date alone may be any
        "Dr Muster 22.03.2019",
        "V1.02.2019 10:15",
        "P-R-T axes 10 -12 -40",
        "31/02/2019 10:15",
        "22 Mag 1e9 10:15",
        "1-MAR-2019 10:15",  # of 11 or 21 or 31: a digit may be lost where the line begins
        "Date: 22-MAR-19",  # or the century of a year, the rest of which was cut off
        "Date: 2019-03-2",
        "Date: 22-MAR-201",
    ],
)
def test_no_date_of_something_else_and_no_part_of_one(text: str) -> None:
    assert read(text) == RecordingDate()


def test_labels_and_times_stand_beside_a_date_and_not_far_away() -> None:
    assert recording_date(in_rows([line("2020-10-20"), line("02:57:21 AM", x_mm=35.0)])).at == time(2, 57, 21)
    assert recording_date(in_rows([line("2020-10-21"), line("02:57:21 AM", x_mm=120.0)])) == RecordingDate()
    assert recording_date(in_rows([line("Date"), line("21.10.2020", x_mm=22.0)])).on == date(2020, 10, 21)
    assert recording_date(in_rows([line("Date"), line("21.10.2020", x_mm=122.0)])).on is None


def test_of_several_dates_the_label_decides_or_none_is_taken() -> None:
    recorded, later = "Recorded: 22-MAR-2019 10:15:03", "24-MAR-2019 11:02"
    assert read(recorded, later).on == MARCH
    found = read("22-MAR-2019 10:15:03", later)
    assert found == RecordingDate(reasons=("different dates are printed, and nothing says which is the recording's",))
    assert read("22-MAR-2019 10:15:03", "Printed " + later).on == MARCH
    assert read("22-MAR-2019 10:15:03", "2019-03-22 10:15:03") == RecordingDate(on=MARCH, at=LATE)
    assert read("22-MAR-2019 10:15:03", "22-MAR-2019 11:02") == RecordingDate(on=MARCH)  # which time is not known


def test_a_date_that_was_not_read_for_certain_is_none() -> None:
    text = "Date: 2019-03-22 10:15:03"
    doubt = tuple(0.7 if k == text.index("9") else 0.99 for k in range(len(text)))
    assert recording_date(in_rows([line(text, sure=doubt)])) == RecordingDate()
    doubt = tuple(0.7 if k == text.index("-") else 0.99 for k in range(len(text)))
    assert recording_date(in_rows([line(text, sure=doubt)])).on == MARCH
    doubt = tuple(0.7 if k == text.index(":03") + 1 else 0.99 for k in range(len(text)))
    assert recording_date(in_rows([line(text, sure=doubt)])) == RecordingDate(on=MARCH)
