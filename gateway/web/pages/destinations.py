"""The destinations: what waits for each, when something last arrived or failed; tests, and pauses."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from gateway.delivery.kinds import kind_named
from gateway.domain.account import User
from gateway.domain.audit import AuditKind
from gateway.domain.clock import utc_now
from gateway.domain.status import DeliveryStatus
from gateway.security.certificates import Certificate, certificates
from gateway.store.tables import DestinationState
from gateway.web.access import CurrentUser
from gateway.web.audit import audit_entry
from gateway.web.forms import back_to
from gateway.web.pages.words import DELIVERY_WORDS, Badge, age_in_words, clock, delivery_tone
from gateway.web.site import Site

_SHOWN = (DeliveryStatus.PENDING, DeliveryStatus.STORED, DeliveryStatus.REFUSED, DeliveryStatus.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationRow:
    """One destination; texts are "" where there is nothing to say."""

    name: str
    kind: str
    known: bool  # it is in the settings
    paused: str  # since when, by whom
    counts: tuple[tuple[Badge, str], ...]  # each with its place in the queue
    oldest: str
    delivered: str
    error: str
    failed: str
    certificates: tuple[Certificate, ...]


def routes(site: Site) -> APIRouter:
    """Return the routes of the destinations' page."""
    router, store = APIRouter(), site.store

    @router.get("/destinations", response_class=HTMLResponse)
    def destinations(request: Request, _: CurrentUser) -> Response:
        return site.templates.TemplateResponse(request, "destinations.html", {"rows": rows(site)})

    @router.post("/destinations/{name}/test", response_class=HTMLResponse)
    async def test(request: Request, name: str, _: CurrentUser) -> Response:
        return await run_in_threadpool(_test, site, request, name)

    @router.post("/destinations/{name}/pause")
    async def pause(name: str, user: CurrentUser) -> Response:
        _check(site, name, user)
        await run_in_threadpool(store.destinations.pause, name, user.name)
        await run_in_threadpool(store.trail.record, audit_entry(AuditKind.CONFIGURE, user, detail=f"pause {name}"))
        return back_to("/destinations")

    @router.post("/destinations/{name}/resume")
    async def resume(name: str, user: CurrentUser) -> Response:
        _check(site, name, user)
        await run_in_threadpool(store.destinations.resume, name)
        await run_in_threadpool(store.trail.record, audit_entry(AuditKind.CONFIGURE, user, detail=f"resume {name}"))
        return back_to("/destinations")

    return router


def rows(site: Site) -> list[DestinationRow]:
    """Return every destination of the settings, then those that something still waits for."""
    states, backlogs, now = site.store.destinations.states(), site.store.destinations.backlogs(), utc_now()
    known = {destination.name: destination for destination in site.settings.destinations}
    gone = [name for name, backlog in backlogs.items() if name not in known and backlog.oldest is not None]
    found = []
    for name in (*known, *sorted(gone)):
        state = states.get(name, DestinationState(name=name))
        backlog = backlogs.get(name)
        counts = backlog.counts if backlog else {}
        found.append(
            DestinationRow(
                name=name,
                kind=known[name].kind if name in known else "",
                known=name in known,
                paused=f"since {clock(state.paused_at)}, by {state.paused_by}" if state.paused_at else "",
                counts=tuple(
                    (
                        Badge(words=f"{counts[status]} {DELIVERY_WORDS[status]}", tone=delivery_tone(status)),
                        status.value,
                    )
                    for status in _SHOWN
                    if counts.get(status)
                ),
                oldest=age_in_words((now - backlog.oldest).total_seconds()) if backlog and backlog.oldest else "",
                delivered=clock(state.delivered_at) if state.delivered_at else "",
                error=state.error,
                failed=clock(state.failed_at) if state.failed_at else "",
                certificates=certificates(known[name], now) if name in known else (),
            )
        )
    return found


def _check(site: Site, name: str, user: User) -> None:
    if not user.administers:
        raise HTTPException(403, f"{user.shown}, a {user.role}, may not pause destinations.")
    if name not in {destination.name for destination in site.settings.destinations}:
        raise HTTPException(404, f"No destination is named {name[:40]}.")


def _test(site: Site, request: Request, name: str) -> Response:
    """Return the page with the steps of reaching a destination; nothing is stored there."""
    if name not in {destination.name for destination in site.settings.destinations}:
        raise HTTPException(404, f"No destination is named {name[:40]}.")
    steps = list(kind_named(name, site.settings).check())
    shown = {"rows": rows(site), "tested": name, "steps": steps}
    return site.templates.TemplateResponse(request, "destinations.html", shown)
