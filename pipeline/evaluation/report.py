"""An evaluation as one HTML file that needs nothing beside it: tables, distributions, and three pages to look at.

The figures are those of the method's paper: metrics per kind of page (its figure 2), time shifts (3), and recorded
against digitized signals of the best, the median and the worst page (4 to 6), here with the page itself.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from pipeline.datatypes import ALL_LEADS
from pipeline.evaluation.evaluate import Example, PageScore
from pipeline.evaluation.metrics import LeadScore
from pipeline.evaluation.truth import TRUTH_HZ

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2430; max-width: 1100px; margin: 2em auto; padding: 0 1em }
h1, h2 { font-weight: 600; line-height: 1.2 } h2 { margin-top: 2em }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums }
caption { text-align: left; font-weight: 600; padding-bottom: .3em }
th, td { padding: .2em .7em; border-bottom: 1px solid #dde3ea; text-align: right }
th:first-child, td:first-child { text-align: left } th { border-bottom: 2px solid #9fb0c0; font-weight: 500 }
img { max-width: 100%; display: block; margin: .5em 0 } .wide { overflow-x: auto }
p.note { color: #5a6878 }
"""


def _image(figure: Figure) -> str:
    """Return a figure as an HTML image that carries its own bytes."""
    file = BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return _embedded(file.getvalue(), "png", "figure")


def _embedded(data: bytes, kind: str, alt: str) -> str:
    return f'<img alt="{escape(alt)}" src="data:image/{kind};base64,{base64.b64encode(data).decode("ascii")}">'


def _html_table(table: Table) -> str:
    """Return a table of text cells as HTML."""
    head = "".join(f"<th>{escape(str(column.header))}</th>" for column in table.columns)
    cells = zip(*(column.cells for column in table.columns), strict=True)
    rows = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in cells)
    caption = f"<caption>{escape(str(table.title))}</caption>"
    return f'<div class="wide"><table>{caption}<tr>{head}</tr>{rows}</table></div>'


def _by_kind(pages: Sequence[PageScore]) -> dict[str, list[LeadScore]]:
    """Return the leads of every kind of page."""
    return {
        kind: [score for page in pages if page.kind == kind for score in page.leads.values()]
        for kind in sorted({page.kind for page in pages})
    }


def _histogram(axes: Axes, groups: dict[str, list[float]], low: float, high: float, label: str, unit: str) -> None:
    """Draw one histogram for each kind as shares of its leads; what lies outside counts at the edge."""
    bins = np.linspace(low, high, 31).tolist()
    for kind, values in groups.items():
        clipped = np.clip(values, low, high)
        middle = f"{kind}: median {np.median(values):.3g}{unit}"
        axes.hist(clipped, bins, weights=np.full(len(values), 1 / len(values)), alpha=0.5, label=middle)
    axes.set_xlabel(label)
    axes.set_ylabel("share of leads")
    axes.legend(fontsize=8)


def distributions(pages: Sequence[PageScore]) -> Figure:
    """Draw SNR, RMSE, correlation and shift of every lead, by kind of page."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots(2, 2).ravel()
    kinds = _by_kind(pages)
    rmse = {kind: [score.rmse_uv for score in scores] for kind, scores in kinds.items()}
    widest = float(np.quantile([value for values in rmse.values() for value in values], 0.97)) or 1.0
    snr = {kind: [score.snr_db for score in scores] for kind, scores in kinds.items()}
    _histogram(axes[0], snr, -5, 35, "SNR of a lead, dB", " dB")
    _histogram(axes[1], rmse, 0, widest, "RMSE of a lead, µV", " µV")
    correlation = {kind: [score.correlation for score in scores] for kind, scores in kinds.items()}
    _histogram(axes[2], correlation, 0, 1, "correlation of a lead", "")
    shift = {kind: [score.shift_ms for score in scores] for kind, scores in kinds.items()}
    _histogram(axes[3], shift, -100, 100, "shift of a lead, ms (positive: digitized came late)", " ms")
    return figure


def snr_by_lead(pages: Sequence[PageScore]) -> Figure:
    """Draw the spread of SNR for each lead: box from quarter to quarter, whiskers from 5 % to 95 %."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.subplots()
    leads = [lead for lead in ALL_LEADS if any(lead in page.leads for page in pages)]
    values = [[page.leads[lead].snr_db for page in pages if lead in page.leads] for lead in leads]
    axes.boxplot(values, whis=(5, 95), flierprops={"marker": ".", "markersize": 3})
    axes.set_xticks(range(1, len(leads) + 1), [str(lead) for lead in leads])
    axes.set_ylabel("SNR, dB")
    axes.grid(axis="y", alpha=0.3)
    return figure


def estimated_against_true(pages: Sequence[PageScore]) -> Figure:
    """Draw the SNR the digitizer estimated against the true one; pages whose layout was uncertain are hollow."""
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    axes = figure.subplots()
    for number, kind in enumerate(sorted({page.kind for page in pages})):
        for certain in (True, False):
            group = [page for page in pages if page.kind == kind and page.layout and page.certain == certain]
            axes.scatter(
                [page.snr_db for page in group],
                [page.estimated_snr_db for page in group],
                s=22,
                edgecolors=f"C{number}",
                facecolors=f"C{number}" if certain else "none",
                label=kind if certain else None,
            )
    limits = (-5, 35)
    axes.plot(limits, limits, color="grey", linewidth=0.7)
    axes.set(xlim=limits, ylim=limits, xlabel="true SNR, dB", ylabel="estimated SNR, dB", aspect="equal")
    axes.legend(fontsize=8)
    return figure


def signals(example: Example) -> Figure:
    """Draw every lead of a page as recorded and as digitized, levelled and shifted as they were scored."""
    leads = [lead for lead in example.truth.leads if lead in example.score.leads]
    columns = 2 if len(leads) > 3 else 1
    rows = -(-len(leads) // columns)
    figure = Figure(figsize=(11, 1.35 * rows + 0.4), layout="constrained")
    figure.supxlabel("time, s (signals in mV)", fontsize=8)
    for place, lead in enumerate(leads):
        axes = figure.add_subplot(rows, columns, 1 + place % rows * columns + place // rows)
        score = example.score.leads[lead]
        truth = example.truth.signal_mv[example.truth.leads.index(lead)].astype(np.float64)
        printed = np.flatnonzero(np.isfinite(truth))
        time = np.arange(truth.size) / TRUTH_HZ
        axes.plot(time, truth - np.nanmean(truth), color="#1c2430", linewidth=0.9, label="recorded")
        if example.estimate_mv is not None:
            read = example.estimate_mv[example.truth.leads.index(lead)].astype(np.float64)
            at = np.arange(read.size) / TRUTH_HZ - score.shift_ms / 1000
            near = (at >= time[printed[0]]) & (at <= time[printed[-1]])
            level = np.nanmean(read[near]) if np.isfinite(read[near]).any() else 0.0
            axes.plot(at[near], read[near] - level, color="#d6372c", linewidth=0.7, label="digitized")
        axes.set_xlim(time[printed[0]], time[printed[-1]])
        axes.set_ylabel(f"{lead}\n{score.snr_db:.1f} dB", rotation=0, ha="right", va="center", fontsize=8)
        axes.tick_params(labelsize=7)
        if place == 0:
            axes.legend(fontsize=7, loc="upper right", ncols=2)
    return figure


def _example(example: Example) -> str:
    score = example.score
    read = f", layout {score.layout}" + ("" if score.certain else " (not certain)") if score.layout else ""
    estimated = f", estimated {score.estimated_snr_db:.1f} dB" if score.layout else ""
    heading = (
        f"<h2>{escape(example.title)}</h2><p>{escape(score.name)}: {score.snr_db:.2f} dB{estimated}{escape(read)}</p>"
    )
    picture = "" if example.overlay_jpeg is None else _embedded(example.overlay_jpeg, "jpeg", "what was read")
    plot = _image(signals(example)) if score.leads else "<p>No lead of it is known.</p>"
    return heading + plot + picture


def html_report(title: str, pages: Sequence[PageScore], tables: Sequence[Table], examples: Sequence[Example]) -> str:
    """Return the report.

    Parameters
    ----------
    title : str
    pages : sequence of PageScore
        At least one, with a lead that is printed.
    tables : sequence of rich tables of text
    examples : sequence of Example
        Shown in this order.
    """
    parts = [f"<h1>{escape(title)}</h1>", *map(_html_table, tables)]
    parts += ["<h2>Distributions</h2>", _image(distributions(pages))]
    parts += ["<h2>SNR by lead</h2>", _image(snr_by_lead(pages))]
    if any(page.layout for page in pages):
        note = '<p class="note">Hollow: the layout was not certain.</p>'
        parts += ["<h2>Estimated against true SNR</h2>", note, _image(estimated_against_true(pages))]
    parts += [_example(example) for example in examples]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'
