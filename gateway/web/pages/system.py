"""The system: what should run and does, the nodes, the workers, and the files that were rejected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from gateway.domain.clock import utc_now
from gateway.intake.rejected import rejected_files
from gateway.operations.duties import LEASE_S
from gateway.web.access import CurrentUser
from gateway.web.pages.health import check_health, silence_s
from gateway.web.pages.words import age_in_words, clock
from gateway.web.site import Site

_REJECTED_SHOWN = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """A machine that runs the service; `duties`: what it does for all."""

    name: str
    version: str
    load: str
    age: str  # of its last sign
    tone: str
    state: str
    duties: str


def routes(site: Site) -> APIRouter:
    """Return the route of the system's page."""
    router, store = APIRouter(), site.store

    @router.get("/system", response_class=HTMLResponse)
    def system(request: Request, user: CurrentUser) -> Response:
        settings, now = site.settings, utc_now()
        rejected, count = rejected_files(settings.folders, _REJECTED_SHOWN)
        bound_s = silence_s(settings.worker)
        workers = []
        for worker, job in store.workers.all():
            silent_s = (now - worker.seen_at).total_seconds()
            workers.append(
                {"name": worker.name, "age": age_in_words(silent_s), "job": job, "silent": silent_s > bound_s}
            )
        shown = {
            "checks": check_health(store, site.spool, site.alive, settings).checks,
            "nodes": _nodes(site, now),
            "workers": workers,
            "rejected": [(each, clock(each.at)) for each in rejected],
            "rejected_count": count,
            "names": user.sees_patients,
        }
        return site.templates.TemplateResponse(request, "system.html", shown)

    return router


def _nodes(site: Site, now: datetime) -> Sequence[NodeRow]:
    """Return the nodes that share the database; none where one machine is alone."""
    duties: dict[str, list[str]] = {}
    for duty in site.store.nodes.duties():
        duties.setdefault(duty.node, []).append(duty.name)
    return [
        NodeRow(
            name=node.name,
            version=node.version,
            load=f"{node.load:.1f}",
            age=age_in_words((now - node.seen_at).total_seconds()),
            tone="idle" if node.stopped else "good" if (now - node.seen_at).total_seconds() < LEASE_S else "warn",
            state="stopped" if node.stopped else "",
            duties=", ".join(duties.get(node.name, ())),
        )
        for node in site.store.nodes.known()
        if node.name
    ]
