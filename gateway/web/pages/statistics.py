"""Statistics: what was read lately, how well, how fast, and why pages needed a person, as plots and tables."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from gateway.domain.clock import utc_now
from gateway.domain.status import JobStatus
from gateway.store.queue.statistics import SNR_EDGES_DB, Day, Summary
from gateway.web.access import CurrentUser
from gateway.web.pages.words import source_in_words
from gateway.web.site import Site

_SPANS = (7, 30, 90)
_TALL, _WIDE = 120, 600  # of a plot, in its own units
_PARTS = ((JobStatus.DONE, "good"), (JobStatus.NEEDS_REVIEW, "warn"), (JobStatus.FAILED, "bad"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar, of parts that stand upon each other."""

    label: str
    words: str  # what a person reads when pointing at it
    x: float
    width: float
    parts: tuple[tuple[str, float, float], ...]  # tone, top, height


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """Bars on a common scale whose top is `most`."""

    bars: tuple[Bar, ...]
    most: int
    height: int = _TALL
    width: int = _WIDE


def routes(site: Site) -> APIRouter:
    """Return the route of the statistics."""
    router = APIRouter()

    @router.get("/statistics", response_class=HTMLResponse)
    def statistics(request: Request, _: CurrentUser) -> Response:
        written = request.query_params.get("days", "30")
        problem = "" if written in map(str, _SPANS) else f"{written[:20]} is no span: it is one of 7, 30 and 90 days."
        days = 30 if problem else int(written)
        start = (utc_now() - timedelta(days=days - 1)).replace(hour=0, minute=0, second=0, microsecond=0)
        summary = site.store.statistics.since(start)
        shown = {
            "days": days,
            "spans": _SPANS,
            "problem": problem,
            "summary": summary,
            "by_day": plot_days(_every_day(summary, days)),
            "quality": plot_quality(summary.quality),
            "source_in_words": source_in_words,
        }
        return site.templates.TemplateResponse(request, "statistics.html", shown, status_code=422 if problem else 200)

    return router


def _every_day(summary: Summary, days: int) -> list[Day]:
    """Return one entry for each day, with those on which nothing came."""
    found = {day.day: day for day in summary.days}
    today = utc_now().date()
    names = [(today - timedelta(days=back)).isoformat() for back in reversed(range(days))]
    return [found.get(name, Day(day=name, pages={})) for name in names]


def plot_days(days: list[Day]) -> Plot:
    """Return pages a day: done, to review, failed."""
    most = max([sum(day.pages.values()) for day in days] + [1])
    step = _WIDE / max(len(days), 1)
    bars = []
    for number, day in enumerate(days):
        parts: list[tuple[str, float, float]] = []
        base = float(_TALL)
        for status, tone in _PARTS:
            height = _TALL * day.pages.get(status, 0) / most
            base -= height
            parts.append((tone, round(base, 2), round(height, 2)))
        counts = ", ".join(f"{day.pages.get(status, 0)} {words}" for status, words in _WORDS.items())
        bars.append(
            Bar(
                label=day.day[5:],
                words=f"{day.day}: {counts}",
                x=round(number * step + 1, 2),
                width=round(step - 2, 2),
                parts=tuple(parts),
            )
        )
    return Plot(bars=tuple(bars), most=most)


_WORDS = {JobStatus.DONE: "done", JobStatus.NEEDS_REVIEW: "to review", JobStatus.FAILED: "failed"}


def plot_quality(counts: tuple[int, ...]) -> Plot:
    """Return pages in each class of estimated SNR."""
    most, step = max([*counts, 1]), _WIDE / len(counts)
    edges = [f"< {SNR_EDGES_DB[0]}"]
    edges += [f"{low} to {high}" for low, high in pairwise(SNR_EDGES_DB)]
    edges.append(f"≥ {SNR_EDGES_DB[-1]}")
    bars = []
    for number, (label, count) in enumerate(zip(edges, counts, strict=True)):
        height = round(_TALL * count / most, 2)
        bars.append(
            Bar(
                label=label.replace(" to ", "-").replace(" ", ""),
                words=f"{label} dB: {count} pages",
                x=round(number * step + 4, 2),
                width=round(step - 8, 2),
                parts=(("busy", _TALL - height, height),),
            )
        )
    return Plot(bars=tuple(bars), most=most)
