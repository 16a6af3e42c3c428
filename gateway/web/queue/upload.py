"""Files that a person hands in: one request a file, answered when its job is committed."""

from __future__ import annotations

import json
from contextlib import ExitStack, closing
from typing import BinaryIO
from urllib.parse import unquote

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from gateway.domain.context import StudyContext
from gateway.errors import IntakeError, StorageError
from gateway.intake.accept import media_type_of
from gateway.intake.arrivals import MAXIMUM_BYTES
from gateway.intake.upload import Upload, take_in
from gateway.intake.whole import what_is_missing
from gateway.web.access import CurrentUser
from gateway.web.site import Site

_FIELDS = (
    "patient_id",
    "issuer_of_patient_id",
    "patient_name",
    "patient_birth_date",
    "patient_sex",
    "accession_number",
)


def routes(site: Site) -> APIRouter:
    """Return the target of the queue's upload."""
    router = APIRouter()

    @router.post("/upload")
    async def upload(request: Request, user: CurrentUser) -> Response:
        try:
            stated = _stated(request.headers.get("x-identity", ""))
            file = await _received(request, site)
        except HTTPException as error:
            return JSONResponse({"problem": error.detail}, status_code=error.status_code)
        with file:
            name = unquote(request.headers.get("x-file-name", ""))
            handed_in = Upload(data=file, file_name=name, actor=user.name, source="upload", stated=stated)
            return await run_in_threadpool(_take_in, site, handed_in)

    return router


async def _received(request: Request, site: Site) -> BinaryIO:
    """Return the body of a request as a file without a name; raise HTTPException where it is too long."""
    most = f"The file is too large: at most {MAXIMUM_BYTES >> 20} MiB."
    stated = request.headers.get("content-length", "")
    length = int(stated) if stated.isdecimal() else 0
    if length > MAXIMUM_BYTES:
        raise HTTPException(413, most)
    with ExitStack() as unless_whole:
        try:
            site.spool.check_space(length)
            file = unless_whole.enter_context(closing(site.spool.temporary_file()))
        except StorageError as error:
            raise HTTPException(503, f"Not taken now: {error}. Drop it again later.") from None
        length = 0
        async for chunk in request.stream():
            length += len(chunk)
            if length > MAXIMUM_BYTES:
                raise HTTPException(413, most)
            await run_in_threadpool(file.write, chunk)
        unless_whole.pop_all()
    return file


def _stated(text: str) -> StudyContext:
    """Return the identity that the person stated, from JSON in a header."""
    try:
        fields = json.loads(unquote(text)) if text else {}
        return StudyContext(**{name: str(fields.get(name, "")).strip() for name in _FIELDS})
    except (ValueError, AttributeError):
        raise HTTPException(422, "The patient is not stated as JSON.") from None


def _take_in(site: Site, upload: Upload) -> Response:
    """Take a file; what a person reads says why it was not taken."""
    try:
        if missing := what_is_missing(media_type_of(upload.data), upload.data):
            raise IntakeError(missing)
        accepted = take_in(site.intake, upload)
    except IntakeError as error:
        return JSONResponse({"problem": f"Not taken: {error}."}, status_code=422)
    except StorageError as error:
        return JSONResponse({"problem": f"Not taken now: {error}. Drop it again later."}, status_code=503)
    return JSONResponse({"job": accepted.job_id, "duplicate": accepted.duplicate})
