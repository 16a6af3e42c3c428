"""Scores as tables: per lead, per kind, layout, speed and gain of page, the worst pages, and layouts counted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from rich.table import Table

from pipeline.datatypes import ALL_LEADS, LEADS, Lead
from pipeline.evaluation.evaluate import PageScore, judge_estimate, left_in_silence
from pipeline.evaluation.measures import MEASURES, Beats, Figures, SpikeCount, figures, shift_figures
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
    """Sum up pages: by lead, by kind with one row for all, and by what is known of their print.

    Then, for the same groups, what a cardiologist measures, and times and pacing spikes.
    """
    leads = [(lead, [page.leads[lead] for page in pages if lead in page.leads], "") for lead in _shown(pages)]
    by_print = {
        "layout": _by(pages, lambda page: page.true_layout),
        "paper speed": _by(pages, lambda page: _known(page.true_speed_mm_per_s, "mm/s")),
        "gain": _by(pages, lambda page: _known(page.true_gain_mm_per_mv, "mm/mV")),
        "family": _by(pages, lambda page: page.family),
    }
    return [
        _table("Leads", "lead", leads),
        _table("Pages", "kind (pages)", [*_by(pages, lambda page: page.kind), _row("all", pages)]),
        *(_table(f"By {name}", f"{name} (pages)", rows) for name, rows in by_print.items() if rows),
        _beats_table(pages),
        _time_table(pages),
    ]


def _shown(pages: Sequence[PageScore]) -> list[Lead]:
    """List the standard leads, and the others that a page has."""
    return [lead for lead in ALL_LEADS if lead in LEADS or any(lead in page.leads for page in pages)]


def leads_of(pages: Sequence[PageScore]) -> dict[str, list[tuple[PageScore, Lead]]]:
    """Group the printed leads of pages: all, by kind and by family of page, and by lead; empty groups are left out.

    Parameters
    ----------
    pages : sequence of PageScore
    """
    groups = {name: [(page, lead) for page in group for lead in page.leads] for name, group in groups_of(pages).items()}
    groups |= {str(lead): [(page, lead) for page in pages if lead in page.leads] for lead in _shown(pages)}
    return {name: pairs for name, pairs in groups.items() if pairs}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What `measures` says of a group of leads."""

    heights: tuple[Figures, ...]  # for each of MEASURES
    shift_ms: tuple[float, float, float]  # mean, mean absolute, standard deviation, of the leads that were read
    spikes: SpikeCount


def measured(pairs: Sequence[tuple[PageScore, Lead]]) -> Measured:
    """Sum up a group of leads.

    Parameters
    ----------
    pairs : sequence of (PageScore, Lead)
    """
    read = [page.leads[lead].shift_ms for page, lead in pairs if page.leads[lead].coverage > 0]
    return Measured(
        heights=tuple(figures(Beats.joined(page.beats[lead] for page, lead in pairs if lead in page.beats))),
        shift_ms=shift_figures(read),
        spikes=SpikeCount.total(page.spikes[lead] for page, lead in pairs if lead in page.spikes),
    )


def _number(value: float, form: str) -> str:
    """Format a number; nothing where it is not known."""
    return format(value, form) if np.isfinite(value) else ""


def _beats_table(pages: Sequence[PageScore]) -> Table:
    """Show heights of beats against the truth: median error, share within 25 uV or 5 %, bias."""
    table = Table(title="Beats against the recording: QRS peak to peak, largest deflection, ST (within 25 uV or 5 %)")
    headings = (
        ("uV", "within %", "bias %", "median bias %"),
        ("uV", "within %", "bias %"),
        ("uV", "within %", "bias uV"),
    )
    table.add_column("leads of")
    table.add_column("beats", justify="right")
    for name, of in zip(("QRS", "defl.", "ST"), headings, strict=True):
        for heading in of:
            table.add_column(f"{name} {heading}", justify="right")
    for name, pairs in leads_of(pages).items():
        qrs, deflection, st = measured(pairs).heights
        biases = (
            (qrs, (100 * qrs.bias_share, 100 * qrs.median_bias_share)),
            (deflection, (100 * deflection.bias_share,)),
            (st, (st.bias_uv,)),
        )
        cells = [
            cell
            for of, values in biases
            for cell in (
                _number(of.median_error_uv, ".1f"),
                _number(100 * of.within_limits, ".1f"),
                *(_number(value, "+.1f") for value in values),
            )
        ]
        table.add_row(name, str(qrs.beats), *cells)
    return table


def _time_table(pages: Sequence[PageScore]) -> Table:
    """Show time shifts of leads, and pacing spikes found and invented."""
    table = Table(title="Time shifts and pacing spikes")
    table.add_column("leads of")
    for heading in (
        "shift ms", "|shift| ms", "s.d. ms", "spikes >= 0.3 mV", "found %", "smaller", "found %", "invented",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    for name, pairs in leads_of(pages).items():
        of = measured(pairs)
        spikes = of.spikes
        table.add_row(
            name,
            *(_number(value, form) for value, form in zip(of.shift_ms, ("+.2f", ".2f", ".2f"), strict=True)),
            str(spikes.tall),
            f"{100 * spikes.tall_found / spikes.tall:.1f}" if spikes.tall else "",
            str(spikes.small),
            f"{100 * spikes.small_found / spikes.small:.1f}" if spikes.small else "",
            str(spikes.invented),
        )
    return table


def groups_of(pages: Sequence[PageScore]) -> dict[str, list[PageScore]]:
    """Group pages: all, by kind and by family.

    Parameters
    ----------
    pages : sequence of PageScore
    """
    groups = {"all": list(pages)}
    for kind in sorted({page.kind for page in pages}):
        groups[f"kind {kind}"] = [page for page in pages if page.kind == kind]
    for family in sorted({page.family for page in pages} - {""}):
        groups[f"family {family}"] = [page for page in pages if page.family == family]
    return groups


def estimate_table(pages: Sequence[PageScore]) -> Table:
    """Compare the estimated with the true SNR, by kind and family, and count what left in silence.

    Parameters
    ----------
    pages : sequence of PageScore
    """
    table = Table(title="Estimated SNR (bias: estimated less true; 10th percentile: true less estimated)")
    headings = ("read", "rank correlation", "bias dB", "|error| dB", "10th percentile dB", "held", "silent < 10 dB")
    table.add_column("pages of")
    for heading in headings:
        table.add_column(heading, justify="right")
    for name, group in groups_of(pages).items():
        of = judge_estimate(group)
        table.add_row(
            name,
            str(of.pages),
            _number(of.rank_correlation, ".3f"),
            _number(of.bias_db, "+.2f"),
            _number(of.mean_error_db, ".2f"),
            _number(of.error_10th_db, "+.2f"),
            str(sum(page.held for page in group)),
            str(len(left_in_silence(group))),
        )
    return table


def silent_pages(pages: Sequence[PageScore]) -> Table:
    """List by name the pages under 10 dB that left without a warning; the table says so if there is none.

    Parameters
    ----------
    pages : sequence of PageScore
    """
    table = Table(title="Under 10 dB without a warning")
    for heading in ("page", "kind", "family", "SNR dB", "estimated dB"):
        table.add_column(heading)
    for page in left_in_silence(pages):
        table.add_row(page.name, page.kind, page.family, f"{page.snr_db:.2f}", f"{page.estimated_snr_db:.1f}")
    if not table.rows:
        table.add_row("none", "", "", "", "")
    return table


def to_json(pages: Sequence[PageScore]) -> str:
    """Write what the tables show of groups of leads, and every page's own score, as JSON; unknown numbers are null.

    Parameters
    ----------
    pages : sequence of PageScore
    """
    groups = {}
    for name, pairs in leads_of(pages).items():
        of = measured(pairs)
        groups[name] = {
            "leads": len(pairs),
            "snr_db": float(np.mean([page.leads[lead].snr_db for page, lead in pairs])),
            "heights": {measure: asdict(one) for measure, one in zip(MEASURES, of.heights, strict=True)},
            "shift_ms": dict(zip(("mean", "mean_absolute", "standard_deviation"), of.shift_ms, strict=True)),
            "spikes": asdict(of.spikes),
        }
    told = [
        {
            "page": page.name,
            "kind": page.kind,
            "family": page.family,
            "snr_db": page.snr_db,
            "estimated_snr_db": page.estimated_snr_db if page.layout else None,
            "layout": page.layout,
            "certain": page.certain,
            "held": page.held,
            "leads": {str(lead): asdict(score) for lead, score in page.leads.items()},
        }
        for page in pages
    ]
    estimate = {name: asdict(judge_estimate(group)) for name, group in groups_of(pages).items()}
    silent = [page.name for page in left_in_silence(pages)]
    known = {"groups": groups, "estimate": estimate, "under_10_db_without_a_warning": silent, "pages": told}
    return json.dumps(_plain(known), indent=1) + "\n"


def _plain(value: object) -> object:
    """Return a value as JSON has it: what is no number is null."""
    if isinstance(value, dict):
        return {key: _plain(own) for key, own in value.items()}
    if isinstance(value, list):
        return [_plain(own) for own in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


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
