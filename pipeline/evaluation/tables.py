"""Scores as tables: per lead, per kind, layout, speed and gain of page, the worst pages, and layouts counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from rich.table import Table

from pipeline.datatypes import LEADS
from pipeline.evaluation.evaluate import PageScore
from pipeline.evaluation.metrics import LeadScore, pooled_db

_HEADINGS = ("leads", "SNR dB", "median", "RMSE uV", "corr.", "NaN %", "|shift| ms", "< 5 dB %", "pooled dB")


def _cells(scores: Sequence[LeadScore]) -> list[str]:
    """Summarise leads under `_HEADINGS`, but for the last."""
    snr = np.array([score.snr_db for score in scores])
    return [
        str(len(scores)),
        f"{snr.mean():.2f}",
        f"{np.median(snr):.2f}",
        f"{np.mean([score.rmse_uv for score in scores]):.1f}",
        f"{np.mean([score.correlation for score in scores]):.3f}",
        f"{100 * np.mean([1 - score.coverage for score in scores]):.2f}",
        f"{np.mean([abs(score.shift_ms) for score in scores]):.1f}",
        f"{100 * np.mean(snr < 5):.1f}",
    ]


def _table(title: str, first: str, groups: Iterable[tuple[str, Sequence[LeadScore], str]]) -> Table:
    """Build a table of groups of leads: (name, scores, pooled dB)."""
    table = Table(title=title)
    table.add_column(first)
    for heading in _HEADINGS:
        table.add_column(heading, justify="right")
    for name, scores, pooled in groups:
        if scores:
            table.add_row(name, *_cells(scores), pooled)
    return table


def _row(name: str, pages: Sequence[PageScore]) -> tuple[str, list[LeadScore], str]:
    scores = [score for page in pages for score in page.leads.values()]
    return f"{name} ({len(pages)})", scores, f"{pooled_db([page.power_ratio for page in pages]):.2f}"


def _by(pages: Sequence[PageScore], key: Callable[[PageScore], str]) -> list[tuple[str, list[LeadScore], str]]:
    """Return a row for each group of pages; those of which the key is not known are left out."""
    names = sorted({key(page) for page in pages} - {""})
    return [_row(name, [page for page in pages if key(page) == name]) for name in names]


def _known(true: float | None, unit: str) -> str:
    return "" if true is None else f"{true:4g} {unit}"


def tables(pages: Sequence[PageScore]) -> list[Table]:
    """Sum up pages: by lead, by kind with one row for all, and by true layout, speed and gain where they are known."""
    leads = [(lead, [page.leads[lead] for page in pages if lead in page.leads], "") for lead in LEADS]
    by_print = {
        "layout": _by(pages, lambda page: page.true_layout),
        "paper speed": _by(pages, lambda page: _known(page.true_speed_mm_per_s, "mm/s")),
        "gain": _by(pages, lambda page: _known(page.true_gain_mm_per_mv, "mm/mV")),
    }
    return [
        _table("Leads", "lead", leads),
        _table("Pages", "kind (pages)", [*_by(pages, lambda page: page.kind), _row("all", pages)]),
        *(_table(f"By {name}", f"{name} (pages)", rows) for name, rows in by_print.items() if rows),
    ]


def compared(title: str, variants: dict[str, list[PageScore]]) -> Table:
    """Compare several readings of the same pages, a row each."""
    return _table(title, "reading (pages)", [_row(name, pages) for name, pages in variants.items()])


def worst_pages(pages: Sequence[PageScore], count: int = 10) -> Table:
    """List the pages with the lowest mean SNR, and what was read of them."""
    table = Table(title="Worst pages")
    for heading in ("page", "kind", "SNR dB", "worst lead", "estimated dB", "layout", "certain", "mm/s", "mm/mV"):
        table.add_column(heading)

    def read_as(read: float | None, true: float | None) -> str:
        wrong = f" (is {true:g})" if read is not None and true is not None and read != true else ""
        return "" if read is None else f"{read:g}{wrong}"

    for page in sorted(pages, key=lambda page: page.snr_db)[:count]:
        worst = min(page.leads, key=lambda lead: page.leads[lead].snr_db, default=None)
        table.add_row(
            page.name,
            page.kind,
            f"{page.snr_db:.2f}",
            f"{worst} {page.leads[worst].snr_db:.1f}" if worst else "",
            f"{page.estimated_snr_db:.1f}" if page.layout else "",
            page.layout + (f" (is {page.true_layout})" if page.layout_right is False else ""),
            ("yes" if page.certain else "no") if page.layout else "",
            read_as(page.speed_mm_per_s, page.true_speed_mm_per_s),
            read_as(page.gain_mm_per_mv, page.true_gain_mm_per_mv),
        )
    return table


def layouts_counted(pages: Sequence[PageScore]) -> Table:
    """Count layouts, speeds and gains that were read right, and the wrong layouts that were flagged as uncertain."""
    table = Table(title="What the page says of itself")
    for heading in ("", "right", "wrong", "right but uncertain", "wrong and said so"):
        table.add_column(heading)
    judged = [page for page in pages if page.layout_right is not None]
    right = [page for page in judged if page.layout_right]
    wrong = [page for page in judged if not page.layout_right]
    doubted, said = (sum(not page.certain for page in group) for group in (right, wrong))
    table.add_row("layout", str(len(right)), str(len(wrong)), str(doubted), f"{said} of {len(wrong)}")
    scales = (
        ("speed", [(page.speed_mm_per_s, page.true_speed_mm_per_s) for page in pages]),
        ("gain", [(page.gain_mm_per_mv, page.true_gain_mm_per_mv) for page in pages]),
    )
    for name, pairs in scales:
        agree = [read == true for read, true in pairs if read is not None and true is not None]
        table.add_row(name, str(sum(agree)), str(len(agree) - sum(agree)), "", "")
    return table
