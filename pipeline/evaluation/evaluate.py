"""Pages with known truth: read it, score what was digitized, put the scores in tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.table import Table
from scipy.optimize import lsq_linear
from scipy.stats import spearmanr

from pipeline.datatypes import LEADS, Digitization, FloatArray, Lead
from pipeline.evaluation.metrics import LeadScore, pooled_db, power_ratio, score_lead
from pipeline.quality import Features, features

TRUTH_HZ = 500.0
_NOT_PRINTED = -32768


@dataclass(frozen=True, slots=True, kw_only=True)
class PageScore:
    """All leads of one page."""

    page: str
    kind: str  # the folder the page lies in
    leads: dict[Lead, LeadScore]
    power_ratio: float
    layout: str = ""  # as identified; "" = the page failed
    certain: bool = False
    estimated_snr_db: float = 0.0
    features: tuple[float, ...] = ()  # of `quality.Features`

    @property
    def snr_db(self) -> float:
        """Mean over the printed leads."""
        return float(np.mean([score.snr_db for score in self.leads.values()])) if self.leads else 0.0


def read_truth(path: Path) -> dict[str, FloatArray]:
    """Read the true signals of a set of pages.

    Parameters
    ----------
    path : Path
        An npz archive with an array ``r<id>`` for each page: (12, n) int16 microvolts at 500 Hz, -32768 where nothing
        is printed.

    Returns
    -------
    dict of str to (12, n) float32
        mV by page id, NaN where nothing is printed.

    Raises
    ------
    ValueError
        If the archive holds no such array.
    """
    truth: dict[str, FloatArray] = {}
    with np.load(path) as archive:
        for name in archive.files:
            if not name.startswith("r"):
                continue
            counts = archive[name]
            if counts.dtype != np.int16 or counts.ndim != 2 or counts.shape[0] != len(LEADS):
                raise ValueError(f"{path}: {name} must be (12, n) int16, got {counts.shape} {counts.dtype}")
            truth[name[1:]] = np.where(counts == _NOT_PRINTED, np.nan, counts / 1000.0).astype(np.float32)
    if not truth:
        raise ValueError(f"{path}: no array r<id> in it")
    return truth


def truth_of(page: Path, truth: dict[str, FloatArray]) -> FloatArray:
    """Find the truth of a page: its id is its name up to the first underscore.

    Raises
    ------
    KeyError
        If there is none.
    """
    page_id = page.stem.split("_")[0]
    if page_id not in truth:
        raise KeyError(f"{page}: no truth for id {page_id}")
    return truth[page_id]


def describe(score: PageScore, digitization: Digitization) -> PageScore:
    """Add to a page's score what the digitizer itself thought of it."""
    match, quality = digitization.layout_match, digitization.quality
    measured = features(digitization.record, match, digitization.traces, digitization.rectified.grid_scale)
    return replace(
        score,
        layout=match.layout.name,
        certain=match.certain,
        estimated_snr_db=quality.estimated_snr_db,
        features=tuple(measured.vector().tolist()),
    )


def score_page(page: Path, truth_mv: FloatArray, estimate_mv: FloatArray | None) -> PageScore:
    """Score one page at `TRUTH_HZ`; None, a page that failed, scores as if nothing had been read."""
    if estimate_mv is None:
        estimate_mv = np.full_like(truth_mv, np.nan)
    scores = {lead: score_lead(truth_mv[row], estimate_mv[row], TRUTH_HZ) for row, lead in enumerate(LEADS)}
    return PageScore(
        page=page.name,
        kind=page.parent.name,
        leads={lead: score for lead, score in scores.items() if score is not None},
        power_ratio=power_ratio(truth_mv, estimate_mv, TRUTH_HZ),
    )


def _cells(scores: Sequence[LeadScore]) -> list[str]:
    """Summarise leads: how many, mean and median SNR, RMSE, correlation, coverage, shift, share under 5 dB."""
    snr = np.array([score.snr_db for score in scores])
    return [
        str(len(scores)),
        f"{snr.mean():.2f}",
        f"{np.median(snr):.2f}",
        f"{np.mean([score.rmse_uv for score in scores]):.1f}",
        f"{np.mean([score.correlation for score in scores]):.3f}",
        f"{np.mean([score.coverage for score in scores]):.3f}",
        f"{np.mean([abs(score.shift_ms) for score in scores]):.1f}",
        f"{100 * np.mean(snr < 5):.1f}",
    ]


def _table(title: str, first: str, groups: Iterable[tuple[str, Sequence[LeadScore], str]]) -> Table:
    """Build a table of groups of leads: (name, scores, pooled dB)."""
    table = Table(title=title)
    table.add_column(first)
    headings = ("leads", "SNR dB", "median", "RMSE uV", "corr.", "coverage", "|shift| ms", "< 5 dB %", "pooled dB")
    for heading in headings:
        table.add_column(heading, justify="right")
    for name, scores, pooled in groups:
        if scores:
            table.add_row(name, *_cells(scores), pooled)
    return table


def tables(pages: Sequence[PageScore]) -> list[Table]:
    """Sum up pages: a table with one row a lead, and one with one row a kind of page and one for all."""
    by_lead: dict[Lead, list[LeadScore]] = defaultdict(list)
    by_kind: dict[str, list[PageScore]] = defaultdict(list)
    for page in pages:
        by_kind[page.kind].append(page)
        for lead, score in page.leads.items():
            by_lead[lead].append(score)

    def row(name: str, group: Sequence[PageScore]) -> tuple[str, list[LeadScore], str]:
        scores = [score for page in group for score in page.leads.values()]
        return f"{name} ({len(group)})", scores, f"{pooled_db([page.power_ratio for page in group]):.2f}"

    kinds = [row(kind, group) for kind, group in sorted(by_kind.items())]
    return [
        _table("Leads", "lead", [(lead, by_lead[lead], "") for lead in LEADS]),
        _table("Pages", "kind (pages)", [*kinds, row("all", pages)]),
    ]


def rank_correlation(pages: Sequence[PageScore]) -> float:
    """Spearman's correlation of the estimated with the true mean SNR over the pages that were read; NaN under three."""
    read = [page for page in pages if page.layout]
    if len(read) < 3:
        return float("nan")
    return float(spearmanr([page.estimated_snr_db for page in read], [page.snr_db for page in read]).statistic)


def fit_estimate(pages: Sequence[PageScore], *, ridge: float = 0.05) -> tuple[float, FloatArray, float]:
    """Fit the coefficients of `quality.assess`: least squares with a ridge, each feature with the sign it must have.

    Returns
    -------
    intercept_db, coefficients_db (n,), rank correlation of the left-out prediction of each page (leave one out)

    Raises
    ------
    ValueError
        Fewer pages were read than there are features and two.
    """
    read = [page for page in pages if page.layout]
    x = np.array([page.features for page in read], np.float64)
    y = np.array([page.snr_db for page in read])
    if len(read) < (x.shape[1] if read else 0) + 2:
        raise ValueError(f"{len(read)} pages were read: too few to fit")
    names = [field.name for field in fields(Features)]
    low = np.array([-np.inf if name == "doubtful_share" else 0.0 for name in names])
    high = np.array([0.0 if name == "doubtful_share" else np.inf for name in names])

    def solve(rows: npt.NDArray[np.bool_]) -> tuple[float, npt.NDArray[np.float64]]:
        mean, deviation = x[rows].mean(0), x[rows].std(0) + 1e-6
        z = np.vstack([(x[rows] - mean) / deviation, np.sqrt(ridge * rows.sum()) * np.eye(x.shape[1])])
        target = np.concatenate([y[rows] - y[rows].mean(), np.zeros(x.shape[1])])
        coefficients = lsq_linear(z, target, bounds=(low, high)).x / deviation
        return float(y[rows].mean() - coefficients @ mean), coefficients

    left_out = []
    for k in range(len(read)):
        intercept, coefficients = solve(np.arange(len(read)) != k)
        left_out.append(intercept + float(coefficients @ x[k]))
    intercept, coefficients = solve(np.ones(len(read), bool))
    return intercept, coefficients.astype(np.float32), float(spearmanr(left_out, y).statistic)
