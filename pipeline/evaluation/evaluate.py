"""Score what was read from pages with known truth, and judge what the digitizer thought of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import lsq_linear
from scipy.stats import spearmanr

from pipeline.datatypes import Digitization, FloatArray, Lead
from pipeline.evaluation.measures import Beats, SpikeCount, beats_of, count_spikes, find_spikes, measure_beats
from pipeline.evaluation.metrics import LeadScore, power_ratio, score_lead
from pipeline.evaluation.truth import TRUTH_HZ, PageTruth
from pipeline.signal.quality import Features

_LEAST_ESTIMATE_DB, _LEAST_COVERAGE = 10.0, 0.8  # the gateway's usual limits of review


@dataclass(frozen=True, slots=True, kw_only=True)
class PageScore:
    """All leads of one page; `path` and `page_number` say where it came from."""

    path: Path
    page_number: int
    kind: str
    leads: dict[Lead, LeadScore]
    power_ratio: float
    beats: dict[Lead, Beats] = field(default_factory=dict)
    spikes: dict[Lead, SpikeCount] = field(default_factory=dict)
    family: str = ""  # of drawn pages
    true_layout: str = ""  # "" = not known
    true_speed_mm_per_s: float | None = None
    true_gain_mm_per_mv: float | None = None
    layout: str = ""  # as identified; "" = the page failed, or only its CSV was read
    certain: bool = False
    speed_mm_per_s: float | None = None  # as read
    gain_mm_per_mv: float | None = None
    estimated_snr_db: float = 0.0
    coverage: float = 0.0  # as the digitizer has it, mean over the leads
    warnings: tuple[str, ...] = ()
    features: tuple[float, ...] = ()  # of `quality.Features`

    @property
    def name(self) -> str:
        """The file, and the page in it from the second on."""
        return self.path.name if self.page_number == 1 else f"{self.path.name} p{self.page_number}"

    @property
    def snr_db(self) -> float:
        """Mean over the printed leads."""
        return float(np.mean([score.snr_db for score in self.leads.values()])) if self.leads else 0.0

    @property
    def held(self) -> bool:
        """Whether a person sees the page before it leaves, at the gateway's usual limits; a failed page never does."""
        doubtful = self.estimated_snr_db < _LEAST_ESTIMATE_DB or self.coverage < _LEAST_COVERAGE
        return not self.layout or not self.certain or bool(self.warnings) or doubtful

    @property
    def layout_right(self) -> bool | None:
        """Whether the layout is the true one; None where either is not known."""
        return self.layout == self.true_layout if self.layout and self.true_layout else None


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Example:
    """A page to look at: its signals as recorded and as read, and the page with what was read drawn over it."""

    title: str
    score: PageScore
    truth: PageTruth
    estimate_mv: FloatArray | None  # (n_leads, m), rows as the truth has them; None = the page failed
    overlay_jpeg: bytes | None  # None = only the signals are known


def score_page(
    page: Path, truth: PageTruth, estimate_mv: FloatArray | None, *, kind: str = "", page_number: int = 1
) -> PageScore:
    """Score one page at `TRUTH_HZ`; None, a page that failed, scores as if nothing had been read.

    The estimate's rows are those of `truth.leads`.  `kind` is the folder the page lies in, if not given.
    """
    truth_mv = truth.signal_mv
    if estimate_mv is None:
        estimate_mv = np.full_like(truth_mv, np.nan)
    scores = {lead: score_lead(truth_mv[row], estimate_mv[row], TRUTH_HZ) for row, lead in enumerate(truth.leads)}
    strokes = find_spikes(truth_mv)
    spikes = strokes if truth.spikes is None else truth.spikes
    page_beats = beats_of(truth_mv, spikes)
    beats, counts = {}, {}
    for row, lead in enumerate(truth.leads):
        if (score := scores[lead]) is not None:
            own = spikes[spikes[:, 0] == row, 1:]
            shift = round(score.shift_ms * TRUTH_HZ / 1000)
            beats[lead] = measure_beats(truth_mv[row], estimate_mv[row], page_beats, own[:, 0], shift)
            recorded = strokes[strokes[:, 0] == row, 1]
            counts[lead] = count_spikes(estimate_mv[row], own, recorded, shift)
    return PageScore(
        path=page,
        page_number=page_number,
        kind=kind or page.parent.name,
        leads={lead: score for lead, score in scores.items() if score is not None},
        power_ratio=power_ratio(truth_mv, estimate_mv, TRUTH_HZ),
        beats=beats,
        spikes=counts,
        family=truth.family,
        true_layout=truth.layout,
        true_speed_mm_per_s=truth.paper_speed_mm_per_s,
        true_gain_mm_per_mv=truth.gain_mm_per_mv,
    )


def describe(score: PageScore, digitization: Digitization) -> PageScore:
    """Add to a page's score what the digitizer itself thought of it."""
    match, quality, calibration = digitization.layout_match, digitization.quality, digitization.record.calibration
    return replace(
        score,
        layout=match.layout.name,
        certain=match.certain,
        speed_mm_per_s=calibration.paper_speed_mm_per_s,
        gain_mm_per_mv=calibration.gain_mm_per_mv,
        estimated_snr_db=quality.estimated_snr_db,
        coverage=sum(quality.coverage.values()) / max(len(quality.coverage), 1),
        warnings=quality.warnings,
        features=quality.features,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateFigures:
    """How well the estimated SNR of pages that were read tells the true one; NaN where too few pages were read."""

    pages: int
    rank_correlation: float  # Spearman's; of three pages and more
    bias_db: float  # mean of estimated less true
    mean_error_db: float  # mean of the absolute difference
    error_10th_db: float  # 10th percentile of true less estimated: one page in ten is worse than estimated by this much


def judge_estimate(pages: Sequence[PageScore]) -> EstimateFigures:
    """Compare the estimated with the true mean SNR of pages.

    Parameters
    ----------
    pages : sequence of PageScore
        Those that failed are left out.
    """
    read = [page for page in pages if page.layout]
    estimated = np.array([page.estimated_snr_db for page in read])
    true = np.array([page.snr_db for page in read])
    error = true - estimated
    differ = len(read) > 2 and np.ptp(estimated) > 0 and np.ptp(true) > 0
    return EstimateFigures(
        pages=len(read),
        rank_correlation=float(spearmanr(estimated, true).statistic) if differ else float("nan"),
        bias_db=float(-error.mean()) if read else float("nan"),
        mean_error_db=float(np.abs(error).mean()) if read else float("nan"),
        error_10th_db=float(np.quantile(error, 0.1)) if read else float("nan"),
    )


def left_in_silence(pages: Sequence[PageScore], limit_db: float = 10.0) -> list[PageScore]:
    """List the pages whose true SNR is under a limit and which no reason held for a person, worst first.

    Parameters
    ----------
    pages : sequence of PageScore
    limit_db : float
    """
    return sorted((page for page in pages if page.snr_db < limit_db and not page.held), key=lambda page: page.snr_db)


def _scale_right(page: PageScore) -> bool:
    """Tell whether speed and gain were read as they are, or are not known."""
    return page.true_speed_mm_per_s in (None, page.speed_mm_per_s) and page.true_gain_mm_per_mv in (
        None,
        page.gain_mm_per_mv,
    )


def fit_estimate(pages: Sequence[PageScore], *, ridge: float = 0.05) -> tuple[float, FloatArray, float]:
    """Fit the coefficients of `quality.assess`: least squares with a ridge, none negative.

    Pages whose speed or gain was misread are left out: `assess` weighs that by itself.

    Returns
    -------
    intercept_db, coefficients_db (n,), rank correlation of the left-out prediction of each page (leave one out)

    Raises
    ------
    ValueError
        Fewer pages were read than there are features and two.
    """
    read = [page for page in pages if page.layout and _scale_right(page)]
    if len(read) < len(fields(Features)) + 2:
        raise ValueError(f"{len(read)} pages were read: too few to fit")
    x = np.array([page.features for page in read], np.float64)
    y = np.array([page.snr_db for page in read])

    def solve(rows: npt.NDArray[np.bool_]) -> tuple[float, npt.NDArray[np.float64]]:
        mean, deviation = x[rows].mean(0), x[rows].std(0) + 1e-6
        z = np.vstack([(x[rows] - mean) / deviation, np.sqrt(ridge * rows.sum()) * np.eye(x.shape[1])])
        target = np.concatenate([y[rows] - y[rows].mean(), np.zeros(x.shape[1])])
        coefficients = lsq_linear(z, target, bounds=(0.0, np.inf)).x / deviation
        return float(y[rows].mean() - coefficients @ mean), coefficients

    left_out = []
    for k in range(len(read)):
        intercept, coefficients = solve(np.arange(len(read)) != k)
        left_out.append(intercept + float(coefficients @ x[k]))
    intercept, coefficients = solve(np.ones(len(read), bool))
    return intercept, coefficients.astype(np.float32), float(spearmanr(left_out, y).statistic)
