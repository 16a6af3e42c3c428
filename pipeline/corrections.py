"""Corrections as JSON: read strictly, written as they were read, and checked against the page they are for.

The form has the fields of `Corrections`, without those that are not stated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from pipeline.datatypes import Corrections, Layout, Lead, LineByHand, PagePoint, Unreadable
from pipeline.errors import BrokenRule, CorrectionError

T = TypeVar("T")

_FURTHEST_PX = 100_000


class _Reader:
    """Turns decoded JSON into values, and collects what breaks a rule."""

    def __init__(self) -> None:
        self.broken: list[BrokenRule] = []

    def wrong(self, where: str, value: object, rule: str) -> None:
        """Note one broken rule."""
        shown = repr(value)
        self.broken.append(BrokenRule(where, shown if len(shown) <= 60 else shown[:57] + "...", rule))

    def number(self, value: object, where: str) -> float:
        """Read a number."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
            self.wrong(where, value, "must be a number")
            return float("nan")
        return float(value)

    def integer(self, value: object, where: str) -> int:
        """Read a whole number."""
        if isinstance(value, bool) or not isinstance(value, int):
            self.wrong(where, value, "must be a whole number")
            return 0
        return value

    def boolean(self, value: object, where: str) -> bool:
        """Read true or false."""
        if not isinstance(value, bool):
            self.wrong(where, value, "must be true or false")
        return value is True

    def text(self, value: object, where: str) -> str:
        """Read a text."""
        if not isinstance(value, str):
            self.wrong(where, value, "must be a text")
        return str(value)

    def lead(self, value: object, where: str) -> Lead:
        """Read the name of a lead."""
        if not isinstance(value, str) or value not in set(Lead):
            self.wrong(where, value, f"must be one of {', '.join(Lead)}")
            return Lead.I
        return Lead(value)

    def coordinate(self, value: object, where: str) -> float:
        """Read a pixel coordinate."""
        number = self.number(value, where)
        if abs(number) > _FURTHEST_PX:
            self.wrong(where, value, f"must be at most {_FURTHEST_PX} pixels")
        return number

    def point(self, value: object, where: str) -> PagePoint:
        """Read a point."""
        x, y = self.exactly(2, self.coordinate, value, where) or (0.0, 0.0)
        return x, y

    def exactly(self, n: int, read: Callable[[object, str], T], value: object, where: str) -> tuple[T, ...]:
        """Read a list of a known length; () where it is not one."""
        if not isinstance(value, list | tuple) or len(value) != n:
            self.wrong(where, value, f"must be a list of {n} numbers")
            return ()
        return self.each(read, value, where)

    def each(self, read: Callable[[object, str], T], value: object, where: str) -> tuple[T, ...]:
        """Read a list."""
        if not isinstance(value, list | tuple):
            self.wrong(where, value, "must be a list")
            return ()
        return tuple(read(item, f"{where}[{k}]") for k, item in enumerate(value))

    def keys(self, value: object, where: str, known: Sequence[str], *, all_of_them: bool) -> dict[str, Any]:
        """Read an object with these keys."""
        if not isinstance(value, dict):
            self.wrong(where or "corrections", value, f"must be an object with {', '.join(known)}")
            return {}
        for key in value:
            if key not in known:
                self.wrong(f"{where}.{key}".lstrip("."), value[key], f"unknown; known are {', '.join(known)}")
        missing = [key for key in known if key not in value] if all_of_them else []
        for key in missing:
            self.wrong(f"{where}.{key}", None, "is missing")
        return {} if missing else {key: value[key] for key in known if key in value}

    def line(self, value: object, where: str) -> LineByHand:
        """Read a line that a person drew."""
        found = self.keys(value, where, ("row", "points_px"), all_of_them=True)
        return LineByHand(
            row=self.integer(found.get("row", 1), f"{where}.row"),
            points_px=self.each(self.point, found.get("points_px", ()), f"{where}.points_px"),
        )

    def stretch(self, value: object, where: str) -> Unreadable:
        """Read a stretch that nobody can read."""
        found = self.keys(value, where, ("row", "from_px", "to_px"), all_of_them=True)
        return Unreadable(
            row=self.integer(found.get("row", 1), f"{where}.row"),
            from_px=self.point(found.get("from_px", (0, 0)), f"{where}.from_px"),
            to_px=self.point(found.get("to_px", (1, 1)), f"{where}.to_px"),
        )

    def leads(self, value: object, where: str) -> tuple[Lead, ...]:
        """Read a list of leads."""
        return self.each(self.lead, value, where)

    def points(self, value: object, where: str) -> tuple[PagePoint, ...]:
        """Read a list of points."""
        return self.each(self.point, value, where)

    def read(self, name: str, value: object) -> object:
        """Read one field of `Corrections`."""
        readers: dict[str, Callable[[object, str], object]] = {
            "layout": self.text,
            "leads": lambda rows, where: self.each(self.leads, rows, where),
            "rhythm": self.leads,
            "together": self.boolean,
            "quarter_turns": self.integer,
            "mirrored": self.boolean,
            "corners_px": self.points,
            "crop_px": lambda box, where: self.exactly(4, self.coordinate, box, where),
            "not_ecg_px": lambda polygons, where: self.each(self.points, polygons, where),
            "row_baselines_px": self.points,
            "column_edges_px": self.points,
            "lines": lambda lines, where: self.each(self.line, lines, where),
            "unreadable": lambda parts, where: self.each(self.stretch, parts, where),
            "left_out": self.leads,
        }
        return readers.get(name, self.number)(value, name)


def parse_corrections(content: object) -> Corrections:
    """Read corrections from decoded JSON: an object with the fields of `Corrections`; null is as not stated.

    Raises
    ------
    CorrectionError
        Fields are unknown or break rules; the error names each field, value and rule.
    """
    reader = _Reader()
    stated = reader.keys(content, "", [each.name for each in fields(Corrections)], all_of_them=False)
    values: dict[str, Any] = {name: reader.read(name, value) for name, value in stated.items() if value is not None}
    if reader.broken:
        raise CorrectionError(reader.broken)
    return Corrections(**values)


def parse_pages(content: object) -> dict[int, Corrections]:
    """Read the corrections of a file from decoded JSON: page numbers, from 1, and the corrections of each.

    An object that is the corrections of one page is read as those of page 1.

    Raises
    ------
    CorrectionError
        As `parse_corrections`; a field is named with its page.
    """
    if not isinstance(content, dict) or not content or not all(str(key).isdecimal() for key in content):
        return {1: parse_corrections(content)}
    pages, broken = {}, []
    for key, value in content.items():
        try:
            pages[int(key)] = parse_corrections(value)
        except CorrectionError as error:
            broken += [BrokenRule(f"{key}.{each.field}".rstrip("."), each.value, each.rule) for each in error.broken]
        if int(key) < 1:
            broken.append(BrokenRule(key, "a page", "pages are numbered from 1"))
    if broken:
        raise CorrectionError(broken)
    return pages


def corrections_json(corrections: Corrections) -> dict[str, Any]:
    """Return corrections as an object for JSON: what is stated only; `parse_corrections` reads it back."""
    stated = {each.name: getattr(corrections, each.name) for each in fields(corrections)}
    return {
        name: _plain(value)
        for (name, value), each in zip(stated.items(), fields(corrections), strict=True)
        if value != each.default
    }


def _plain(value: object) -> object:
    """Return a value with lists and objects only."""
    if isinstance(value, LineByHand | Unreadable):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def check_corrections(
    corrections: Corrections, page_px: tuple[int, int], layouts: Sequence[Layout], found: str = ""
) -> None:
    """Check corrections against what they are for.

    Parameters
    ----------
    corrections : Corrections
    page_px : (width, height)
        Of the page.
    layouts : sequence of Layout
        Those of the file.
    found : str
        The layout that the page was read in; it holds where the corrections name none.  "": not known.

    Raises
    ------
    CorrectionError
        A point is outside the page, a layout is not in the file, or the leads do not have its shape.
    """
    broken = [*_outside(corrections, page_px), *_not_of_layout(corrections, layouts, found)]
    if broken:
        raise CorrectionError(broken)


def _points(corrections: Corrections) -> Iterator[tuple[str, PagePoint]]:
    """List every point with its field."""
    for name in ("corners_px", "row_baselines_px", "column_edges_px"):
        for k, point in enumerate(getattr(corrections, name) or ()):
            yield f"{name}[{k}]", point
    for j, polygon in enumerate(corrections.not_ecg_px):
        for k, point in enumerate(polygon):
            yield f"not_ecg_px[{j}][{k}]", point
    for j, line in enumerate(corrections.lines):
        for k, point in enumerate(line.points_px):
            yield f"lines[{j}].points_px[{k}]", point
    for j, part in enumerate(corrections.unreadable):
        yield f"unreadable[{j}].from_px", part.from_px
        yield f"unreadable[{j}].to_px", part.to_px
    if corrections.crop_px is not None:
        left, top, right, bottom = corrections.crop_px
        yield "crop_px", (left, top)
        yield "crop_px", (right, bottom)


def _outside(corrections: Corrections, page_px: tuple[int, int]) -> Iterator[BrokenRule]:
    width, height = page_px
    for name, (x, y) in _points(corrections):
        if not (-1 <= x <= width and -1 <= y <= height):
            yield BrokenRule(name, f"({x:g}, {y:g})", f"must be on the page of {width} x {height} pixels")


def _not_of_layout(corrections: Corrections, layouts: Sequence[Layout], found: str) -> Iterator[BrokenRule]:
    known = {layout.name: layout for layout in layouts}
    name = corrections.layout if corrections.layout is not None else found
    if corrections.layout is not None and corrections.layout not in known:
        yield BrokenRule("layout", repr(corrections.layout), f"must be one of {', '.join(known)}")
    layout = known.get(name)
    if layout is None:
        return
    yield from broken_by_layout(corrections, layout)


def broken_by_layout(corrections: Corrections, layout: Layout) -> Iterator[BrokenRule]:
    """List what does not have the shape of a layout."""
    rows, columns, strips = len(layout.rows), len(layout.rows[0]), len(layout.rhythm)
    if corrections.leads is not None and [len(row) for row in corrections.leads] != [columns] * rows:
        value = f"{len(corrections.leads)} rows of {len(corrections.leads[0])}"
        yield BrokenRule("leads", value, f"layout {layout.name} has {rows} rows of {columns}")
    if corrections.rhythm is not None and len(corrections.rhythm) != strips:
        rule = f"layout {layout.name} has {strips} rhythm strip{'' if strips == 1 else 's'}"
        yield BrokenRule("rhythm", f"{len(corrections.rhythm)} leads", rule)
    if corrections.together and columns == 1:
        yield BrokenRule("together", "true", f"layout {layout.name} has one column")
    for field, points, n in (
        ("row_baselines_px", corrections.row_baselines_px, layout.n_rows),
        ("column_edges_px", corrections.column_edges_px, columns + 1),
    ):
        if points is not None and len(points) != n:
            yield BrokenRule(field, f"{len(points)} points", f"layout {layout.name} needs {n}")
    for field, row in corrections.rows_named():
        if row > layout.n_rows:
            yield BrokenRule(field, str(row), f"layout {layout.name} has {layout.n_rows} rows")
