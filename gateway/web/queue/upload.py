"""Files that a person hands in: one request a file, answered when its job is committed."""

from __future__ import annotations

import json
from typing import BinaryIO
from urllib.parse import unquote

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from gateway.domain.context import StudyContext
from gateway.errors import IntakeError, StorageError
from gateway.identity.forms import PATIENT_FIELDS
from gateway.intake.accept import media_type_of
from gateway.intake.arrivals import MAXIMUM_BYTES
from gateway.intake.upload import Upload, take_in
from gateway.intake.whole import what_is_missing
from gateway.web.access import CurrentUser
from gateway.web.forms import body_on_disk
from gateway.web.site import Site


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
    """Return the body of a request as a file without a name; raise HTTPException where it cannot be taken."""
    too_long = HTTPException(413, f"The file is too large: at most {MAXIMUM_BYTES >> 20} MiB.")
    try:
        return await body_on_disk(request, site.spool, too_long)
    except StorageError as error:
        raise HTTPException(503, f"Not taken now: {error}. Drop it again later.") from None


def _stated(text: str) -> StudyContext:
    """Return the identity that the person stated, from JSON in a header."""
    try:
        fields = json.loads(unquote(text)) if text else {}
        return StudyContext(**{name: str(fields.get(name, "")).strip() for name in PATIENT_FIELDS})
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
