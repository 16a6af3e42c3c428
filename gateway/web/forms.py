"""Forms, a person's decisions, taken only where they came from a page of ours; and the numbers in addresses."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from fastapi import Path, Request, Response
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException

Number = Annotated[int, Path(ge=1, le=2**31 - 1)]  # of a page or a row, in an address: what a database's integer holds

ACTOR = "web"  # who decided, in the audit trail
_MAXIMUM_FORM_BYTES = 64 * 1024


async def read_form(request: Request) -> dict[str, str]:
    """Return a form's fields; raise HTTPException where it did not come from a page of ours."""
    same_site = request.headers.get("sec-fetch-site", "same-origin") == "same-origin"
    host = request.headers.get("host")
    if not (same_site and host and _host_of(request.headers.get("origin", "")) == host):
        raise HTTPException(403, "The form did not come from this page.")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAXIMUM_FORM_BYTES:
            raise HTTPException(413, "The form is too long.")
    return dict(parse_qsl(body.decode("utf-8", "replace")))


def _host_of(origin: str) -> str:
    """Return host and port of an origin, "" where it is none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def back_to(path: str) -> Response:
    """Return the answer to a form that was carried out: the page it came from."""
    return RedirectResponse(path, status_code=303)
