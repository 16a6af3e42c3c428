"""The file of layouts: `config/layouts.toml`, or a site's own, to checked `Layout`s.

An error in the file names the layout and the rule it breaks, before any page is read.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pipeline.datatypes import ALL_LEADS, UNNAMED_LEADS, Layout, Lead

_PRINTED = tuple(lead for lead in ALL_LEADS if lead not in UNNAMED_LEADS)
_KEYS = {"name", "rows", "rhythm", "inverted", "sequential", "column_seconds"}


def default_path() -> Path:
    """Path of the file that comes with the package: beside this module where installed, in `config/` of a checkout."""
    installed = Path(__file__).with_name("layouts.toml")
    return installed if installed.is_file() else Path(__file__).resolve().parents[2] / "config" / "layouts.toml"


def _leads(value: Any, where: str) -> tuple[Lead, ...]:
    """Check a list of lead names."""
    if not isinstance(value, list):
        raise ValueError(f"{where} must be a list of leads, got {value!r}")
    for name in value:
        if name not in _PRINTED:
            raise ValueError(f"{where}: {name!r} is no lead; leads are {', '.join(_PRINTED)}")
    return tuple(Lead(name) for name in value)


def _rows(entry: dict[str, Any], where: str) -> tuple[tuple[Lead, ...], ...]:
    """Check the printed rows: a rectangle of leads, each once."""
    value = entry.get("rows")
    if not isinstance(value, list) or not value:
        raise ValueError(f"{where}: rows must be a list of rows of leads, got {value!r}")
    rows = tuple(_leads(row, f"{where}: row {number}") for number, row in enumerate(value, 1))
    if len({len(row) for row in rows}) != 1 or not rows[0]:
        raise ValueError(f"{where}: all rows must have the same number of columns, got {[len(row) for row in rows]}")
    leads = [lead for row in rows for lead in row]
    twice = sorted({lead for lead in leads if leads.count(lead) > 1})
    if twice:
        raise ValueError(f"{where}: {', '.join(twice)} stands in rows more than once; a repeated lead goes to rhythm")
    return rows


def _layout(entry: dict[str, Any], number: int) -> Layout:
    """Check one [[layout]] table."""
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError(f"layout {number} has no name")
    where = f"layout {name!r}"
    unknown = sorted(set(entry) - _KEYS)
    if unknown:
        raise ValueError(f"{where}: unknown key {', '.join(unknown)}; known are {', '.join(sorted(_KEYS))}")
    rows = _rows(entry, where)
    inverted = frozenset(_leads(entry.get("inverted", []), f"{where}: inverted"))
    if inverted - {lead for row in rows for lead in row}:
        raise ValueError(f"{where}: inverted names leads that its rows do not have")
    sequential = entry.get("sequential", True)
    if not isinstance(sequential, bool):
        raise ValueError(f"{where}: sequential must be true or false, got {sequential!r}")
    column_seconds = entry.get("column_seconds", 2.5)
    if isinstance(column_seconds, bool) or not isinstance(column_seconds, int | float) or not 0 < column_seconds <= 120:
        raise ValueError(f"{where}: column_seconds must be a number above 0, at most 120, got {column_seconds!r}")
    return Layout(
        name=name,
        rows=rows,
        rhythm=_leads(entry.get("rhythm", []), f"{where}: rhythm"),
        inverted=inverted,
        sequential=sequential,
        column_seconds=float(column_seconds),
    )


def load_layouts(path: Path | None = None) -> tuple[Layout, ...]:
    """Read the layouts a page may have.

    Parameters
    ----------
    path : Path, optional
        A TOML file of ``[[layout]]`` tables; None takes the one that comes with the package.

    Returns
    -------
    tuple of Layout
        In the file's order, which is the order of preference if the page does not decide.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is no TOML or breaks a rule; the message names the file, the layout and the rule.
    """
    path = path or default_path()
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        entries = content.get("layout")
        if set(content) - {"layout"} or not isinstance(entries, list) or not entries:
            raise ValueError("the file must hold [[layout]] tables and nothing else")
        layouts = tuple(_layout(entry, number) for number, entry in enumerate(entries, 1))
        names = [layout.name for layout in layouts]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"the name {twice[0]!r} is used more than once")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    return layouts
