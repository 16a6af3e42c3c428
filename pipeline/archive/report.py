"""The rows of a run become one HTML file that needs nothing beside it: what was read, what was not, what to look at."""

from __future__ import annotations

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from pipeline.archive.output import Output
from pipeline.archive.rows import Outcome

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2430; max-width: 1100px; margin: 2em auto; padding: 0 1em }
h1, h2 { font-weight: 600; line-height: 1.2 } h2 { margin-top: 2em }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums }
th, td { padding: .2em .7em; border-bottom: 1px solid #dde3ea; text-align: right; vertical-align: top }
th:first-child, td:first-child, td.words { text-align: left } th { border-bottom: 2px solid #9fb0c0; font-weight: 500 }
td.bar { width: 40% } td.bar div { background: #3a7ca5; height: 1em }
td.words { overflow-wrap: anywhere }
"""
_SAMPLES = 5
_LOWEST = 20
_STEP_DB, _MOST_DB = 3, 30
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_COLUMNS = ["path", "page", "outcome", "cause", "reasons", "layout", "estimated_snr_db"]


@dataclass(eq=False, slots=True)
class Summary:
    """What a run's rows say together; its size does not depend on how many there are."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    layouts: Counter[str] = field(default_factory=Counter)
    histogram: Counter[int] = field(default_factory=Counter)  # of the estimated SNR, in steps of 3 dB
    reasons: Counter[tuple[Outcome, str]] = field(default_factory=Counter)  # without their numbers
    samples: dict[tuple[Outcome, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    lowest: list[tuple[float, str]] = field(default_factory=list)  # (-SNR, page) of those that pass as read

    def add(self, row: dict[str, Any]) -> None:
        """Count one row."""
        outcome, page = Outcome(row["outcome"]), row["page"]
        place = row["path"] if page is None else f"{row['path']} page {page}"
        self.outcomes[outcome] += 1
        if outcome is Outcome.FAILED:
            self.causes[row["cause"]] += 1
        else:
            self.layouts[row["layout"]] += 1
            self.histogram[max(0, min(_MOST_DB, int(row["estimated_snr_db"] // _STEP_DB * _STEP_DB)))] += 1
        if outcome is Outcome.READ:
            push = heapq.heappush if len(self.lowest) < _LOWEST else heapq.heappushpop
            push(self.lowest, (-row["estimated_snr_db"], place))
        for key in {(outcome, _NUMBER.sub("#", reason)) for reason in row["reasons"]}:
            self.reasons[key] += 1
            if len(self.samples[key]) < _SAMPLES:
                self.samples[key].append(place)


def summarise(output: Output) -> Summary:
    """Read the rows of a run, a few thousand at a time."""
    summary = Summary()
    for batch in output.pages().to_batches(columns=_COLUMNS, batch_size=4096, batch_readahead=1, fragment_readahead=1):
        for row in batch.to_pylist():
            summary.add(row)
    return summary


def to_html(summary: Summary, facts: dict[str, str]) -> str:
    """Write the report.

    Parameters
    ----------
    summary : Summary
    facts : dict
        What else is stated at the top, by name.

    Returns
    -------
    str
        HTML.  It names files, so it is as confidential as they are.
    """
    pages = summary.outcomes.total()
    rows = [(name, value) for name, value in facts.items()]
    rows += [(_WORDS[each], f"{summary.outcomes[each]} ({_share(summary.outcomes[each], pages)})") for each in Outcome]
    parts = [
        f"<h1>Archive: {pages} pages</h1>",
        _table((), rows),
        "<h2>Estimated SNR of the pages with a record</h2>",
        _bars([(_range(low), summary.histogram[low]) for low in range(0, _MOST_DB + 1, _STEP_DB)]),
        "<h2>Layouts</h2>",
        _bars(summary.layouts.most_common()),
        "<h2>Why pages have no record</h2>",
        _bars(summary.causes.most_common()),
        "<h2>Reasons, and pages to look at</h2>",
        _table(
            ("reason (# is a number)", "outcome", "pages", "for example"),
            [
                (reason, str(outcome), str(count), "\n".join(summary.samples[outcome, reason]))
                for (outcome, reason), count in summary.reasons.most_common()
            ],
        ),
        f"<h2>The {len(summary.lowest)} pages with the lowest estimate among those that nobody must look at</h2>",
        _table(("page", "dB"), [(place, f"{-snr:.1f}") for snr, place in sorted(summary.lowest, reverse=True)]),
    ]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Archive</title><style>{_STYLE}</style>'
        + "\n".join(parts)
        + "</html>\n"
    )


_WORDS = {Outcome.READ: "read", Outcome.REVIEW: "read, to be looked at", Outcome.FAILED: "no record"}


def _share(count: int, of: int) -> str:
    return f"{100 * count / of:.1f} %" if of else "0 %"


def _range(low: int) -> str:
    return f"{low} dB and more" if low == _MOST_DB else f"{'below' if low == 0 else f'{low} to'} {low + _STEP_DB} dB"


def _bars(rows: Sequence[tuple[str, int]]) -> str:
    most, total = max((count for _, count in rows), default=0), sum(count for _, count in rows)
    cells = "".join(
        f"<tr><td>{escape(name)}</td><td>{count}</td><td>{_share(count, total)}</td>"
        f'<td class="bar"><div style="width: {100 * count / max(most, 1):.1f}%"></div></td></tr>'
        for name, count in rows
    )
    return f"<table>{cells}</table>" if rows else "<p>None.</p>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = "".join(
        "<tr>" + "".join(f'<td class="words">{escape(cell).replace(chr(10), "<br>")}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    heads = "".join(f"<th>{escape(each)}</th>" for each in head)
    return f"<table>{f'<tr>{heads}</tr>' if head else ''}{cells}</table>" if cells else "<p>None.</p>"
