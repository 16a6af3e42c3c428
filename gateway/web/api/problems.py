"""Every answer that is an error, as problem details (RFC 9457): what is wrong, with which value, by which rule."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from gateway.errors import DeliveryRefused, IllegalTransition, IntakeError, NotFound, StorageError
from gateway.store.tables import JobEvent
from pipeline import BrokenRule, CorrectionError

MEDIA_TYPE = "application/problem+json"
_LONGEST_VALUE = 60
_RETRY_S = 5
_MEANINGS = {
    400: "The request cannot be read.",
    401: "There is no token, or it is not valid any more.",
    403: "The token lacks the scope.",
    404: "There is no such job, page or file.",
    409: "It cannot be done as the job is now; `changes` says what happened to it since the version that was named.",
    413: "The body is too long.",
    415: "The body is of a type that is not taken.",
    422: "A value breaks a rule; `errors` names it.",
    429: "The address has sent too many wrong tokens.",
    503: "Database or disk cannot do it now: try again.",
}
_EVERYWHERE = (401, 403, 422, 429, 503)


class Fault(BaseModel):
    """One value that breaks a rule."""

    field: str
    value: str = ""
    rule: str


class Change(BaseModel):
    """What happened to a job."""

    at: datetime
    action: str
    actor: str
    detail: str


class Problem(BaseModel):
    """An error."""

    type: str = Field(default="about:blank", description="What kind it is; `about:blank`: what the status says.")
    title: str
    status: int
    detail: str = Field(description="What is wrong with this request, in words.")
    errors: list[Fault] = Field(default=[], description="Each value that breaks a rule.")
    changes: list[Change] = Field(default=[], description="What happened to the job since the version that was named.")


class ApiProblem(Exception):
    """Ends a request with a problem."""

    def __init__(self, status: int, detail: str, errors: Sequence[Fault] = (), **headers: str) -> None:
        super().__init__(detail)
        self.problem = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, errors=list(errors))
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def stale(error: IllegalTransition, changes: Iterable[JobEvent]) -> ApiProblem:
    """Return the problem of what cannot be done as the job is now, with what happened to it meanwhile."""
    told = ApiProblem(409, f"Nothing was changed: {error}.")
    told.problem.changes = [
        Change(at=each.at, action=each.action, actor=each.actor, detail=each.detail) for each in changes
    ]
    if told.problem.changes:
        told.problem.type = "urn:ecg-gateway:problem:job-has-changed"
    return told


def broken(error: CorrectionError) -> ApiProblem:
    """Return the problem of corrections that break rules."""
    faults = [_fault(each) for each in error.broken]
    return ApiProblem(422, "The corrections do not fit the page.", faults)


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of a route's problems: of these, and of those that every route has."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": _MEANINGS[status], "content": content} for status in sorted({*statuses, *_EVERYWHERE})
    }


def explain_problems(api: FastAPI) -> None:
    """Have every error answered as a problem."""

    @api.exception_handler(ApiProblem)
    def told(_request: Request, error: ApiProblem) -> Response:
        return _answer(error.problem, error.headers)

    @api.exception_handler(HTTPException)
    def http_error(_request: Request, error: HTTPException) -> Response:
        words = {404: "There is nothing at this address.", 405: "The address does not take this method."}
        return _of_status(error.status_code, words.get(error.status_code, str(error.detail)), error.headers)

    @api.exception_handler(RequestValidationError)
    def invalid(_request: Request, error: RequestValidationError) -> Response:
        faults = [_breach(each) for each in error.errors()]
        detail = f"{faults[0].field}: {faults[0].rule}" if faults else "The request breaks a rule."
        problem = Problem(title=HTTPStatus(422).phrase, status=422, detail=detail, errors=faults)
        return _answer(problem, {})

    @api.exception_handler(NotFound)
    def not_found(_request: Request, error: NotFound) -> Response:
        return _of_status(404, f"There is none: {error}.")

    @api.exception_handler(IntakeError)
    def no_page(_request: Request, error: IntakeError) -> Response:
        return _of_status(422, f"Nothing was taken: {error}.")

    @api.exception_handler(IllegalTransition)
    @api.exception_handler(DeliveryRefused)
    def refused(_request: Request, error: Exception) -> Response:
        return _of_status(409, f"Nothing was changed: {error}.")

    @api.exception_handler(StorageError)
    def storage_error(_request: Request, _error: StorageError) -> Response:
        words = "Database or disk cannot do this now. Nothing was taken."
        return _of_status(503, words, {"Retry-After": str(_RETRY_S)})

    @api.exception_handler(Exception)
    def fault(_request: Request, _error: Exception) -> Response:
        return _of_status(500, "The gateway has a fault. Its log says which.")


def _answer(problem: Problem, headers: Mapping[str, str] | None) -> Response:
    content = problem.model_dump(mode="json", exclude_defaults=True) | {"type": problem.type}
    text = json.dumps(content)  # in ASCII: what is no Unicode was refused, and is shown here
    return Response(text, problem.status, headers=headers, media_type=MEDIA_TYPE)


def _of_status(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    return _answer(Problem(title=HTTPStatus(status).phrase, status=status, detail=detail), headers)


def _breach(error: Mapping[str, Any]) -> Fault:
    """Return what is wrong with a part of a request, from the words of pydantic."""
    where = [str(part) for part in error["loc"]]
    value = error.get("input")
    shown = "" if value is None or isinstance(value, dict | list) else str(value)
    return Fault(field=".".join(where[1:] or where), value=shown[:_LONGEST_VALUE], rule=str(error["msg"]))


def _fault(each: BrokenRule) -> Fault:
    return Fault(field=each.field, value=str(each.value), rule=each.rule)
