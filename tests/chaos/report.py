"""What one fault did, as a row of the table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a fault did: in words, how many inputs it sent, and what was wrong already."""

    words: str
    inputs: int = 0
    problems: Sequence[str] = ()


@dataclass(slots=True, kw_only=True)
class Row:
    """One fault and what became of the gateway; `problems` are what must not be."""

    name: str
    done: str = ""
    inputs: int = 0
    acknowledged: int | None = None
    lost: int | None = None
    twice: int | None = None
    wrong: int | None = None
    slowest_s: float | None = None  # answer to the healthy peer
    outage_s: float | None = None  # the same while what it needs is taken away
    refused: int | None = None
    rest: str = ""
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


_HEAD = (
    "fault",
    "what was done",
    "inputs",
    "acknowledged",
    "lost",
    "twice",
    "wrong patient",
    "slowest healthy answer, s",
    "in the outage, s",
    "refused",
    "at rest: MiB, threads, descriptors",
)


def table(rows: Iterable[Row]) -> str:
    """Return the rows as a table in Markdown."""
    lines = [" | ".join(_HEAD), "|".join("---" for _ in _HEAD)]
    for row in rows:
        counts = [row.acknowledged, row.lost, row.twice, row.wrong]
        cells = [row.name, row.done, f"{row.inputs:,}" if row.inputs else "", *map(_number, counts)]
        cells += [_seconds(row.slowest_s), _seconds(row.outage_s), _number(row.refused), row.rest]
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" if number != 1 else f"|{line}|" for number, line in enumerate(lines))


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
