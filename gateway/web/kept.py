"""Forms that arrived without their session: kept through the log-in, and shown to be sent again.

What was typed travels in hidden fields of the log-in page, back to the browser that sent it; nothing is stored.
"""

from __future__ import annotations

import json

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from gateway.security.passwords import SHORTEST
from gateway.web.access import Kept, LogInNeeded, PageIsStale, PasswordMustChange
from gateway.web.forms import back_to
from gateway.web.site import Site


def explain_sessions(app: FastAPI, site: Site) -> None:
    """Answer requests whose session is missing, or another one than their page's."""

    @app.exception_handler(LogInNeeded)
    def log_in_needed(request: Request, error: LogInNeeded) -> Response:
        lost = "Your session has ended. Nothing was changed, and what you typed is kept: log in to go on."
        return log_in_page(site, request, error.kept, lost if error.kept.form is not None else "")

    @app.exception_handler(PageIsStale)
    def page_is_stale(request: Request, error: PageIsStale) -> Response:
        return after_log_in(site, request, error.kept, request.state.user.shown)

    @app.exception_handler(PasswordMustChange)
    def must_change(_request: Request, _error: PasswordMustChange) -> Response:
        return back_to("/account")


def kept_form(form: dict[str, str]) -> Kept:
    """Return what the hidden fields of a log-in page keep."""
    target, text = _inside(form.get("target", "/")), form.get("kept", "")
    if not text:
        return Kept(target=target)
    try:
        fields = json.loads(text)
    except ValueError:
        fields = None
    if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
        raise HTTPException(422, "The form is not one of ours.")
    return Kept(target=target, form=fields)


def log_in_page(
    site: Site, request: Request, kept: Kept, words: str = "", name: str = "", status: int = 401
) -> Response:
    """Return the page that asks for name and password."""
    shown = _hidden(kept) | {"words": words, "name": name}
    return site.templates.TemplateResponse(request, "login.html", shown, status_code=status)


def account_page(site: Site, request: Request, kept: Kept, words: str = "") -> Response:
    """Return the page of one's own account."""
    shown = _hidden(kept) | {"words": words, "shortest": SHORTEST}
    return site.templates.TemplateResponse(request, "account.html", shown, status_code=422 if words else 200)


def after_log_in(site: Site, request: Request, kept: Kept, who: str) -> Response:
    """Return the page that was asked for, or the form that was sent, for `who` to look at, and to send or to leave."""
    if kept.form is None:
        return back_to(_inside(kept.target))
    shown = {"target": _inside(kept.target), "fields": kept.form, "who": who}
    return site.templates.TemplateResponse(request, "send_again.html", shown, status_code=409)


def _hidden(kept: Kept) -> dict[str, str]:
    return {"target": _inside(kept.target), "kept": "" if kept.form is None else json.dumps(kept.form)}


def _inside(target: str) -> str:
    """Return a path of ours; "/" for anything that a browser would take for another place."""
    ours = target.startswith("/") and not target.startswith(("//", "/login", "/logout"))
    return target if ours and "\\" not in target and target.isprintable() else "/"
