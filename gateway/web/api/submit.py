"""Pages that are handed in: safe, and committed as a job, before they are acknowledged.

The same page with the same identity is the same job, however often it comes.  An idempotency key stands for one page
with its identity: with it, another page is refused, and a mistake of a client makes no second job.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import closing
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Header, Request, Response
from starlette.concurrency import run_in_threadpool

from gateway.domain.account import ApiScope
from gateway.domain.context import StudyContext
from gateway.domain.received import Accepted
from gateway.errors import IntakeError
from gateway.identity.forms import PATIENT_FIELDS, check_context
from gateway.intake.accept import file_key, media_type_of
from gateway.intake.upload import Upload, take_in
from gateway.intake.whole import what_is_missing
from gateway.web.api.access import PREFIX, Caller, CurrentCaller, TokenAccess
from gateway.web.api.body import FORM, Sent, read_parts, received
from gateway.web.api.models import Submitted
from gateway.web.api.problems import ApiProblem, Fault, answers
from gateway.web.site import Site

_DESTINATION = "destination"
_IDENTITY = (*PATIENT_FIELDS, "study_date", "acquisition_date_time")
_TYPES = (
    "application/dicom",
    "application/pdf",
    "image/png",
    "image/jpeg",
    "image/tiff",
    "image/bmp",
    "application/octet-stream",
)
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A DICOM object or a picture alone, or a form with the page and whose it is, in DICOM's forms.",
        "content": {
            FORM: {
                "schema": {
                    "type": "object",
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        **{name: {"type": "string"} for name in _IDENTITY},
                        _DESTINATION: {"type": "array", "items": {"type": "string"}},
                    },
                    "required": ["file"],
                    "additionalProperties": False,
                }
            },
            **dict.fromkeys(_TYPES, _BINARY),
        },
    }
}


def routes(site: Site, access: TokenAccess) -> APIRouter:
    """Return the route that takes pages."""
    router = APIRouter(tags=["Pages"], dependencies=[access.needs(ApiScope.PAGES_SUBMIT)])
    documented = {
        200: {"model": Submitted, "description": "The page was known, and is safe."},
        **answers(400, 413, 415),
    }

    @router.post("/jobs", status_code=201, responses=documented, openapi_extra=_BODY)
    async def submit_page(
        request: Request,
        response: Response,
        caller: CurrentCaller,
        idempotency_key: Annotated[
            str | None,
            Header(
                pattern=r"^[\x21-\x7e]{1,128}$",
                description="Stands for this page with this identity for 30 days; with another one it is refused.",
            ),
        ] = None,
    ) -> Submitted:
        """Take a page; it is safe when this answers. Scope `pages:submit`."""
        content_type = request.headers.get("content-type", "")
        kind = content_type.partition(";")[0].strip().lower()
        if kind not in (FORM, *_TYPES):
            raise ApiProblem(415, f"A page comes as {FORM} or as one of {', '.join(_TYPES)}.")
        with closing(await received(request, site.spool)) as body:
            accepted = await run_in_threadpool(_taken, site, caller, body, (kind, content_type), idempotency_key)
        response.status_code = 200 if accepted.duplicate else 201
        response.headers["Location"] = f"{PREFIX}/jobs/{accepted.job_id}"  # the root path comes before it
        return Submitted(job_id=accepted.job_id, duplicate=accepted.duplicate)

    return router


def _taken(site: Site, caller: Caller, body: BinaryIO, types: tuple[str, str], key: str | None) -> Accepted:
    kind, content_type = types
    if kind != FORM:
        return _accept(site, caller, Sent(file=body), key)
    sent = read_parts(body, content_type, site.spool)
    with closing(sent.file):
        return _accept(site, caller, sent, key)


def _accept(site: Site, caller: Caller, sent: Sent, key: str | None) -> Accepted:
    """Take a page.

    Raises
    ------
    ApiProblem, IntakeError
        It is none, or what is stated about it breaks a rule.
    StorageError
        It cannot be kept now.
    """
    stated, destinations = _stated(site, sent.fields)
    if missing := what_is_missing(media_type_of(sent.file), sent.file):
        raise IntakeError(missing)
    source = f"api:{caller.name}"
    if key is not None:
        same = json.dumps([file_key(source, stated, sent.file), destinations])
        if not site.store.tokens.take_key(caller.token, key, hashlib.sha256(same.encode()).hexdigest()):
            rule = "it stands for another page, identity or destination"
            raise ApiProblem(422, f"Idempotency-Key: {rule}", [Fault(field="Idempotency-Key", value=key, rule=rule)])
    handed_in = Upload(
        data=sent.file,
        file_name=sent.file_name,
        actor=caller.actor,
        stated=stated,
        source=source,
        destinations=destinations,
    )
    return take_in(site.intake, handed_in)


def _stated(site: Site, fields: Mapping[str, list[str]]) -> tuple[StudyContext, tuple[str, ...] | None]:
    """Return whose page it is and where its results go, as a form states it."""
    faults = [
        Fault(field=name, rule=f"unknown; known are file, {', '.join(_IDENTITY)}, {_DESTINATION}")
        for name in fields
        if name not in (*_IDENTITY, _DESTINATION)
    ]
    faults += [Fault(field=name, rule="is stated twice") for name in _IDENTITY if len(fields.get(name, ())) > 1]
    wanted = tuple(name for name in fields.get(_DESTINATION, ()) if name)
    known = [each.name for each in site.settings.destinations]
    faults += [
        Fault(field=_DESTINATION, value=name, rule=f"must be one of {', '.join(known) or 'none'}")
        for name in wanted
        if name not in known
    ]
    if faults:
        raise ApiProblem(422, f"{faults[0].field}: {faults[0].rule}", faults)
    context = StudyContext(**{name: fields[name][0].strip() for name in _IDENTITY if name in fields})
    return check_context(context, "what is stated"), wanted or None  # before a key stands for it
