"""Who saw which patient, and who decided what: an audit entry for every request that did, when it has been answered."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

from fastapi import Request

from gateway.domain.account import Origin, User
from gateway.domain.audit import AuditKind
from gateway.errors import StorageError
from gateway.store.tables import AuditEntry
from gateway.store.trail import Trail

logger = logging.getLogger(__name__)

_ONE_LOOK_S = 60.0  # a page, its pictures and its file are one look at a job
_MOST_LOOKS = 10_000
_LEFT = "/review/{job_id}/leave"  # decides nothing
_WITHOUT_PATIENT = "/jobs/{job_id}"  # to whom may not see patients


def shows_patients(request: Request, job_ids: Iterable[str]) -> None:
    """Say that the answer to a request shows the patients of these jobs; a page of one job needs not say so."""
    request.state.shown_jobs = tuple(job_ids)


def decides_about(request: Request, job_ids: Iterable[str], detail: str) -> None:
    """Say that a request decided about these jobs; one about the job in its address needs not say so."""
    request.state.decided = tuple(job_ids), detail


class RequestAudit:
    """Keeps the audit entries of requests.

    Parameters
    ----------
    idle_s
        Returns after how long without a request a person who has logged in at a proxy comes anew, in s.
    """

    def __init__(self, trail: Trail, idle_s: Callable[[], float]) -> None:
        self._trail = trail
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._looks: OrderedDict[tuple[str, str, str], float] = OrderedDict()
        self._at_proxy: OrderedDict[tuple[str, str], float] = OrderedDict()

    def answered(self, request: Request, status: int) -> None:
        """Keep what a request that was answered has to be told of."""
        user: User | None = getattr(request.state, "user", None)
        route: str = getattr(request.state, "route", "")
        if user is None or not route:
            return
        job_id = str(getattr(request.state, "job_id", ""))
        try:
            if user.origin == Origin.PROXY and "hx-request" not in request.headers and self._has_come(user):
                self._keep(AuditKind.LOG_IN, user, "", "at the reverse proxy")
            if status == 403:
                self._keep(AuditKind.ALERT, user, job_id, f"refused: {request.method} {route}", failed=True)
            elif request.method not in ("GET", "HEAD"):
                if decided := getattr(request.state, "decided", None):
                    job_ids, detail = decided
                    entries = (audit_entry(AuditKind.DECIDE, user, job_id=each, detail=detail) for each in job_ids)
                    self._trail.record(*entries)
                if job_id and route != _LEFT:
                    detail = route.partition("{job_id}/")[2]
                    self._keep(AuditKind.DECIDE, user, job_id, detail, failed=status >= 400)
            elif status < 400 and "hx-request" not in request.headers:
                own = bool(job_id) and (user.sees_patients or route != _WITHOUT_PATIENT)
                shown = (*getattr(request.state, "shown_jobs", ()), *([job_id] if own else ()))
                new = [each for each in shown if self._is_new(user, each)]
                if new:
                    self._trail.record(*(audit_entry(AuditKind.VIEW, user, job_id=each) for each in new))
        except StorageError as error:
            logger.error("An access is not in the audit trail: %s", error, extra={"action": "audit"})

    def _keep(self, kind: AuditKind, user: User, job_id: str, detail: str, *, failed: bool = False) -> None:
        self._trail.record(audit_entry(kind, user, job_id=job_id, detail=detail, failed=failed))

    def _has_come(self, user: User) -> bool:
        """Return whether somebody who has logged in at a proxy comes for the first time, or after a session's time."""
        key, now = (user.name, user.address), time.monotonic()
        with self._lock:
            seen = self._at_proxy.get(key)
            self._at_proxy[key] = now
            self._at_proxy.move_to_end(key)
            if len(self._at_proxy) > _MOST_LOOKS:
                self._at_proxy.popitem(last=False)
        return seen is None or now - seen >= self._idle_s()

    def _is_new(self, user: User, job_id: str) -> bool:
        key, now = (user.name, user.address, job_id), time.monotonic()
        with self._lock:
            if now - self._looks.get(key, -_ONE_LOOK_S) < _ONE_LOOK_S:
                return False
            self._looks[key] = now
            self._looks.move_to_end(key)
            if len(self._looks) > _MOST_LOOKS:
                self._looks.popitem(last=False)
            return True


def audit_entry(kind: AuditKind, user: User, *, job_id: str = "", detail: str = "", failed: bool = False) -> AuditEntry:
    """Return an entry about what a person did."""
    return AuditEntry(
        kind=kind,
        name=user.name,
        full_name=user.full_name,
        address=user.address,
        job_id=job_id,
        detail=detail,
        failed=failed,
    )
