"""Headers of carts with known values: date and time in every order, rate, intervals and axes in several languages.

They are for measuring how print is read (`python -m pipeline evaluate-print`); pages to train on have words by chance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta

import numpy as np

from pipeline.datatypes import PrintedValues
from pipeline.training.drawing.style import PageStyle, PrintedWords

_GERMAN = "Jan. Feb. M\u00e4rz April Mai Juni Juli Aug. Sept. Okt. Nov. Dez.".split()
_FRENCH = "janvier f\u00e9vrier mars avril mai juin juillet ao\u00fbt septembre octobre novembre d\u00e9cembre".split()
_DATES: tuple[Callable[[date], str], ...] = (
    lambda day: f"{day:%Y-%m-%d}",
    lambda day: f"{day:%Y/%m/%d}",
    lambda day: f"{day:%d.%m.%Y}",
    lambda day: f"{day:%d/%m/%Y}",
    lambda day: f"{day:%m/%d/%Y}",
    lambda day: f"{day:%d-%m-%Y}",
    lambda day: f"{day:%d-%b-%Y}".upper(),
    lambda day: f"{day:%d %b %Y}",
    lambda day: f"{day:%b %d, %Y}",
    lambda day: f"{day.day:02d}. {_GERMAN[day.month - 1]} {day.year}",
    lambda day: f"{day.day:02d} {_FRENCH[day.month - 1]} {day.year}",
)
_TIMES = ("%H:%M:%S", "%H:%M", "%I:%M:%S %p")
_LABELS = ("", "", "Date: ", "Datum: ", "Recorded: ", "Acquired: ", "Aufnahme: ")
Table = tuple[tuple[str, ...], ...]


def _table(kind: int, v: PrintedValues) -> Table:
    """Return rows of cells as a make of cart words them."""
    rate, pr, qrs = (f"{value:.0f}" for value in (v.heart_rate_per_minute, v.pr_ms, v.qrs_ms))
    qt, qtc, age = (f"{value:.0f}" for value in (v.qt_ms, v.qtc_ms, v.age_years))
    p, r, t = (f"{value:.0f}" for value in (v.p_axis_deg, v.qrs_axis_deg, v.t_axis_deg))
    tables: tuple[Table, ...] = (
        (
            ("Vent. rate", rate, "BPM"),
            ("PR interval", pr, "ms"),
            ("QRS duration", qrs, "ms"),
            ("QT/QTc", f"{qt}/{qtc}", "ms"),
            ("P-R-T axes", f"{p} {r}", t),
            (f"{age} yr",),
        ),
        (
            (f"HR : {rate} bpm", f"Age: {age}"),
            (f"PR : {pr} ms", f"QRS : {qrs} ms"),
            (f"QT/QTcBz : {qt}/{qtc} ms",),
            (f"P/QRS/T : {p}/{r}/{t}",),
        ),
        (("Rate", rate), ("PR", pr), ("QRSD", qrs), ("QT", qt), ("QTc", qtc), ("QRS axis", r), (f"{age} years",)),
        ((f"HF {rate}/min", f"PQ {pr} ms", f"QRS {qrs} ms"), (f"QT {qt} ms", f"QTc {qtc} ms", f"Alter: {age} Jahre")),
        ((f"FC {rate} bpm", f"PR {pr} ms", f"QRS {qrs} ms"), (f"QT/QTc {qt}/{qtc} ms", f"{age} ans")),
    )
    return tables[kind]


def with_header(style: PageStyle, rate_per_minute: float, rng: np.random.Generator) -> PageStyle:
    """Return a style whose pages have a header that states known values, and other dates beside that of the recording.

    Parameters
    ----------
    style : PageStyle
    rate_per_minute : float
        Of the recording.
    rng : Generator
        All chance comes from it.
    """
    at = datetime(1990, 1, 1) + timedelta(seconds=int(rng.integers(35 * 365 * 86400)))
    form = _DATES[int(rng.integers(len(_DATES)))]
    clock = str(rng.choice(_TIMES))
    kind = int(rng.integers(5))
    axes = [float(value) for value in rng.integers(-90, 120, 3)]
    stated = PrintedValues(
        recorded_on=at.date(),
        recorded_at=at.time() if "S" in clock else at.replace(second=0).time(),
        heart_rate_per_minute=float(round(rate_per_minute)),
        pr_ms=float(rng.integers(100, 260)),
        qrs_ms=float(rng.integers(70, 180)),
        qt_ms=float(rng.integers(300, 520)),
        qtc_ms=float(rng.integers(360, 560)),
        p_axis_deg=axes[0],
        qrs_axis_deg=axes[1],
        t_axis_deg=axes[2],
        age_years=float(rng.integers(18, 95)),
    )
    rows = list(_table(kind, stated))
    dated: list[tuple[str, ...]] = [(f"{rng.choice(_LABELS)}{form(at.date())} {at.strftime(clock)}",)]
    if rng.random() < 0.4:
        dated.append((f"DOB: {form(date(1930, 1, 1) + timedelta(days=int(rng.integers(20000))))}",))
    if rng.random() < 0.3:
        later = at + timedelta(days=int(rng.integers(1, 900)))
        dated.append((f"Printed: {form(later.date())} {later.strftime(clock)}",))
    if kind > 1:  # tables that state some of the values
        stated = replace(stated, p_axis_deg=None, t_axis_deg=None, qrs_axis_deg=axes[1] if kind == 2 else None)
    if not style.font:  # a plotter font has no accents
        rows, dated = ([tuple(map(_without_accents, row)) for row in part] for part in (rows, dated))
    size_mm, top_mm = float(rng.uniform(1.8, 3.0)), 4.0
    words: list[PrintedWords] = []
    for x_mm, part in ((6.0, rows), (130.0, dated)):
        for number, row in enumerate(part):
            for column, text in enumerate(row):
                place = (x_mm + column * size_mm * 14.0, top_mm + number * size_mm * 1.8)
                words.append(PrintedWords(text=text, x_mm=place[0], y_mm=place[1], height_mm=size_mm))
    lower_mm = max(top_mm + len(rows) * size_mm * 1.8 + 6.0 - style.top_mm, 0.0)
    return replace(
        style,
        width_mm=max(style.width_mm, 220.0),
        height_mm=style.height_mm + lower_mm,
        top_mm=style.top_mm + lower_mm,
        header=0,
        rules=0,
        footer="bottom",
        printed=tuple(words),
        stated=stated,
    )


def _without_accents(text: str) -> str:
    return text.translate(str.maketrans("\u00e4\u00e9\u00fb", "aeu"))
