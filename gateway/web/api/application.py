"""The application behind `/api/v1`: its routes, its problems, and its description (OpenAPI)."""

from __future__ import annotations

import re
from typing import Any

from fastapi import FastAPI
from starlette.routing import Mount

from gateway import __version__
from gateway.web.api import jobs, results, review, submit
from gateway.web.api.access import PREFIX, TokenAccess
from gateway.web.api.body import ShortBodies
from gateway.web.api.problems import Problem, explain_problems
from gateway.web.site import Site

_ABOUT = """
Pages in, results out, corrections and decisions. Every request has a token (`Authorization: Bearer TOKEN`) with the
scope that the operation names. Errors are problem details (RFC 9457).
"""


def mounted(site: Site) -> Mount:
    """Return the interface at its place; whatever is asked for there, it answers, also what has a line break in it."""
    mount = Mount(PREFIX, app=_application(site))
    mount.path_regex = re.compile(mount.path_regex.pattern, re.DOTALL)
    return mount


def _application(site: Site) -> FastAPI:
    api = FastAPI(title="ECG gateway", version=__version__, description=_ABOUT, docs_url=None, redoc_url=None)
    api.add_middleware(ShortBodies)
    explain_problems(api)
    access = TokenAccess(site)
    for part in (submit, jobs, results, review):
        api.include_router(part.routes(site, access))
    described = api.openapi

    def openapi() -> dict[str, Any]:
        schema = described()
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas = schema["components"]["schemas"]
        schemas.update(problem.pop("$defs"), Problem=problem)
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        return schema

    api.openapi = openapi  # type: ignore[method-assign]
    return api
