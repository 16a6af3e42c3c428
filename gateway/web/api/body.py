"""What is handed in, as a body of its own or as a part of a form (RFC 7578): on the disk, not in memory."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from email.message import Message
from typing import BinaryIO

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as AsgiMessage

from gateway.domain.received import PIECE_BYTES
from gateway.intake.arrivals import MAXIMUM_BYTES
from gateway.spool.folder import Spool
from gateway.web.api.problems import ApiProblem, Fault
from gateway.web.forms import body_on_disk

FORM = "multipart/form-data"
_MOST_JSON_BYTES = 256 * 1024
_MOST_PARTS = 100
_LONGEST_FIELD = 4096
_BOUNDARY = re.compile(r"[A-Za-z0-9'()+_,./:=? -]{0,69}[A-Za-z0-9'()+_,./:=?-]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A file that was sent, and the fields of its form by name."""

    file: BinaryIO
    file_name: str = ""
    fields: dict[str, list[str]] = field(default_factory=dict)


class ShortBodies:
    """ASGI middleware: a body that is read into memory ends with a problem where it is too long."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        length = 0

        async def bounded() -> AsgiMessage:
            nonlocal length
            message = await receive()
            length += len(message.get("body", b""))
            if length > _MOST_JSON_BYTES:
                raise HTTPException(413, f"A body of JSON has at most {_MOST_JSON_BYTES // 1024} KiB.")
            return message

        hands_in = scope["type"] == "http" and scope["method"] == "POST" and scope["path"].endswith("/jobs")
        await self._app(scope, receive if hands_in else bounded, send)


async def received(request: Request, spool: Spool) -> BinaryIO:
    """Return the body of a request as a file without a name; the caller closes it.

    Raises
    ------
    ApiProblem
        It is too long.
    StorageError
        There is no space for it.
    """
    too_long = ApiProblem(413, f"A body has at most {MAXIMUM_BYTES // 1024**2} MiB.")
    return await body_on_disk(request, spool, too_long)


def read_parts(body: BinaryIO, content_type: str, spool: Spool) -> Sent:
    """Return the one file of a form, as a file without a name, and the form's fields; the caller closes it.

    Raises
    ------
    ApiProblem
        The body is no such form, or has no file or several.
    """
    head = Message()
    head["Content-Type"] = content_type
    boundary = head.get_param("boundary")
    if not isinstance(boundary, str) or _BOUNDARY.fullmatch(boundary) is None:
        raise ApiProblem(400, "The content type of the form names no boundary.")
    body.seek(0, 2)
    if body.tell() == 0:
        raise ApiProblem(400, "The form is empty.")
    found: list[tuple[str, int, int]] = []
    fields: dict[str, list[str]] = {}
    with closing(mmap.mmap(body.fileno(), 0, access=mmap.ACCESS_READ)) as data:
        for number, (disposition, start, end) in enumerate(_parts(data, boundary.encode())):
            if number >= _MOST_PARTS:
                raise ApiProblem(413, f"A form has at most {_MOST_PARTS} parts.")
            name = _parameter(disposition, "name")
            if disposition.get_filename() is not None or name == "file":
                found.append((disposition.get_filename() or "", start, end))
                if name != "file" or len(found) > 1:
                    rule = "a form has one file, with the name `file`"
                    raise ApiProblem(422, f"{name}: {rule}", [Fault(field=name, rule=rule)])
            elif end - start > _LONGEST_FIELD:
                raise ApiProblem(422, f"{name}: a field has at most {_LONGEST_FIELD} bytes.")
            else:
                fields.setdefault(name, []).append(_text(data[start:end], name))
        if not found:
            raise ApiProblem(422, "file: the form has none", [Fault(field="file", rule="the form must have one")])
        file_name, start, end = found[0]
        return Sent(file=_copied(data, start, end, spool), file_name=file_name, fields=fields)


def _parts(data: mmap.mmap, boundary: bytes) -> Iterator[tuple[Message, int, int]]:
    """Yield the head of each part, and where its content begins and ends."""
    delimiter = b"--" + boundary
    at = data.find(delimiter)
    if at != 0 and (at < 0 or data[at - 2 : at] != b"\r\n"):
        raise ApiProblem(400, "The form has no part: its boundary is not in it.")
    while data[at + len(delimiter) : at + len(delimiter) + 2] != b"--":
        head_end = data.find(b"\r\n\r\n", at)
        next_one = data.find(b"\r\n" + delimiter, head_end + 2)
        if head_end < 0 or next_one < 0:
            raise ApiProblem(400, "The form is cut short: a part of it has no end.")
        yield _head(bytes(data[at + len(delimiter) : head_end])), head_end + 4, next_one
        at = next_one + 2


def _head(text: bytes) -> Message:
    """Return the Content-Disposition of a part, as a message that has it."""
    for line in text.decode("utf-8", "replace").split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-disposition":
            head = Message()
            head["Content-Disposition"] = value.strip()
            return head
    raise ApiProblem(400, "A part of the form has no Content-Disposition.")


def _parameter(head: Message, name: str) -> str:
    value = head.get_param(name, "", header="content-disposition")
    return value if isinstance(value, str) else ""


def _text(value: bytes, name: str) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise ApiProblem(422, f"{name}: the text must be UTF-8", [Fault(field=name, rule="must be UTF-8")]) from None


def _copied(data: mmap.mmap, start: int, end: int, spool: Spool) -> BinaryIO:
    with ExitStack() as unless_whole:
        file = unless_whole.enter_context(closing(spool.temporary_file()))
        for at in range(start, end, PIECE_BYTES):
            file.write(data[at : min(at + PIECE_BYTES, end)])
        unless_whole.pop_all()
    return file
