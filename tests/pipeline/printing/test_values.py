"""What carts print about a recording: read where it is certain, nothing where it is not."""

from dataclasses import asdict
from datetime import date, time
from typing import Any

import pytest

from pipeline import PrintedValues, TextLine
from pipeline.printing.values import printed_values


def page(*rows: str, sure: float = 0.98) -> PrintedValues:
    """Read rows of print; "|" parts what stands a little apart on a row."""
    lines = []
    for k, row in enumerate(rows):
        x_mm = 10.0
        for text in row.split("|"):
            width_mm = 2.0 * len(text)
            lines.append(
                TextLine(text=text, x0_mm=x_mm, x1_mm=x_mm + width_mm, y0_mm=4.0 * k, y1_mm=4.0 * k + 3, score=sure)
            )
            x_mm += width_mm + 8.0
    return printed_values(lines)


def told(values: PrintedValues) -> dict[str, Any]:
    return {name: value for name, value in asdict(values).items() if value not in (None, (), "")}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (
            (
                "Vent. rate|80|BPM",
                "PR interval|148|ms",
                "QRS duration|86|ms",
                "QT/QTc|394/454|ms",
                "P-R-T axes|56 -17 -40",
            ),
            (80, 148, 86, 394, 454, 56, -17, -40),
        ),
        (
            ("Vent.rate80BPM", "PRinterval148ms", "QRSduration86ms", "QT/QTc-Baz394/454ms", "P-R-T axes 56|-17|-40"),
            (80, 148, 86, 394, 454, 56, -17, -40),
        ),
        (
            ("HR : 80 bpm", "PR : 148 ms", "QRS : 86 ms", "QT/QTcBz : 394/454 ms", "P/QRS/T : 56/-17/-40 \u00b0"),
            (80, 148, 86, 394, 454, 56, -17, -40),
        ),
        (
            ("Rate 80", "Heart rate 80", "PR 148", "QRSD 86", "QT 394", "QTc 454", "QRS axis -17"),
            (80, None, 86, 394, 454, None, -17, None),
        ),
        (
            ("HF 80/min", "PQ 148 ms", "QRS 86 ms", "QT 394 ms", "QTc 454 ms"),
            (80, 148, 86, 394, 454, None, None, None),
        ),
        (("FC : 80 bpm", "PR 0,148 s", "QRS 0.09 s"), (80, 148, 90, None, None, None, None, None)),
        (("0.67~25Hz AC50 25mm/s 10mm/mV 4*2.5s+1r \u266580 SE-3 V1.0",), (80, *[None] * 7)),
        (("0.67~25Hz AC50 25mm/s 10mm/mV 4*2.5s+1r  80 SE-3 V1.0",), (80, *[None] * 7)),
    ],
)
def test_carts_state_rate_intervals_and_axes(rows: tuple[str, ...], expected: tuple[float | None, ...]) -> None:
    found = page(*rows)
    names = ("heart_rate_per_minute", "pr_ms", "qrs_ms", "qt_ms", "qtc_ms", "p_axis_deg", "qrs_axis_deg", "t_axis_deg")
    assert tuple(getattr(found, name) for name in names) == expected


@pytest.mark.parametrize(
    "row",
    [
        "Max HR 180",
        "Atrial rate 300 BPM",
        "HR 5",  # no heart does that
        "HR 80/min HR 90/min",  # which one?
        "HR 80.5",
        "HRV 80",
        "HR|" + " " * 30 + "|Room 80",
        "QRS 45",  # may be the axis
        "P-R-T axes",
        "PRT 45 ms",
        "QRS 1486 ms",
        "Page 1 of 2",
        "Room 80",
        "Vent. rate BPM",
    ],
)
def test_what_is_not_stated_for_certain_is_not_read(row: str) -> None:
    assert told(page(row)) == {}


def test_every_character_must_be_certain() -> None:
    assert told(page("HR 80 bpm", sure=0.7)) == {}


def test_age_filters_and_device_are_read_in_the_words_of_the_page() -> None:
    found = page("Age: 77 yrs", "0.67~25Hz AC50 25mm/s 10mm/mV|SE-3 V1.0 SEMIP V1.7", "2020-10-17 12:45:51 AM")
    assert told(found) == {
        "recorded_on": date(2020, 10, 17),
        "recorded_at": time(0, 45, 51),
        "age_years": 77,
        "filters": ("0.67~25Hz", "AC50"),
        "device": "SE-3",
    }
    assert page("Alter 56 Jahre").age_years == page("56 yr|Male").age_years == page("Age 56").age_years == 56
    assert page("Age: 150").age_years is None and page("ID: 56|Years").age_years is None
    assert page("40Hz|MAC5500 005E 12SL").device == "MAC5500" and page("F 0.05-150 Hz").filters == ("F 0.05-150 Hz",)
