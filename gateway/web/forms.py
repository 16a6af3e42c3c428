"""Forms, a person's decisions, taken only where they came from a page of ours; and the numbers in addresses."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import Annotated, BinaryIO
from urllib.parse import parse_qsl, urlsplit

from fastapi import Path, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from gateway.intake.arrivals import MAXIMUM_BYTES
from gateway.spool.folder import Spool

Number = Annotated[int, Path(ge=1, le=2**31 - 1)]  # of a page or a row, in an address: what a database's integer holds

_MAXIMUM_FORM_BYTES = 256 * 1024
_MOST_FIELDS = 1000
_FORM = "application/x-www-form-urlencoded"


def check_origin(request: Request) -> None:
    """Raise HTTPException where a request that changes something did not come from a page of ours."""
    same_site = request.headers.get("sec-fetch-site", "same-origin") == "same-origin"
    host = request.headers.get("host")
    if not (same_site and host and _host_of(request.headers.get("origin", "")) == host):
        raise HTTPException(403, "The form did not come from this page.")


async def body_on_disk(request: Request, spool: Spool, too_long: Exception) -> BinaryIO:
    """Return the body of a request as a file without a name; the caller closes it.

    Parameters
    ----------
    too_long
        What is raised where it has more bytes than a file that is taken in.

    Raises
    ------
    StorageError
        There is no space for it.
    """
    stated = request.headers.get("content-length", "")
    length = int(stated) if stated.isdecimal() else 0
    if length > MAXIMUM_BYTES:
        raise too_long
    spool.check_space(length)
    with ExitStack() as unless_whole:
        file = unless_whole.enter_context(closing(spool.temporary_file()))
        length = 0
        async for chunk in request.stream():
            length += len(chunk)
            if length > MAXIMUM_BYTES:
                raise too_long
            await run_in_threadpool(file.write, chunk)
        unless_whole.pop_all()
    return file


async def read_body(request: Request) -> None:
    """Read what a request sends, for `read_form` and `read_data`; raise HTTPException where it is too long."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAXIMUM_FORM_BYTES:
            raise HTTPException(413, "The form is too long.")
    request.state.body = body
    if request.headers.get("content-type", _FORM).partition(";")[0].strip() == _FORM:
        try:
            fields = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
        except ValueError:
            raise HTTPException(413, "The form has too many fields.") from None
        request.state.form = dict(fields)


async def read_form(request: Request) -> dict[str, str]:
    """Return a form's fields; `gateway.web.access` has checked where it comes from."""
    form: dict[str, str] = getattr(request.state, "form", {})
    return form


async def read_data(request: Request) -> bytes:
    """Return what a script of ours has sent; `gateway.web.access` has checked where it comes from."""
    body: bytes = request.state.body
    return body


def _host_of(origin: str) -> str:
    """Return host and port of an origin, "" where it is none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def back_to(path: str) -> Response:
    """Return the answer to a form that was carried out: the page it came from, by its path without the root path."""
    return RedirectResponse(path, status_code=303)
