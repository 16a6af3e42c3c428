"""The system: what should run and does, the workers, and the files that were rejected."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from gateway.domain.clock import utc_now
from gateway.intake.rejected import rejected_files
from gateway.web.access import CurrentUser
from gateway.web.pages.health import check_health, silence_s
from gateway.web.pages.words import age_in_words, clock
from gateway.web.site import Site

_REJECTED_SHOWN = 200


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
            "workers": workers,
            "rejected": [(each, clock(each.at)) for each in rejected],
            "rejected_count": count,
            "names": user.sees_patients,
        }
        return site.templates.TemplateResponse(request, "system.html", shown)

    return router
