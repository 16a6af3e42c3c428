"""The target of the workbench's corrections: what a person states about a page, which is then read again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from gateway.errors import IllegalTransition
from gateway.results.person import correct
from gateway.results.placed import check_placed
from gateway.web.forms import back_to, read_form
from gateway.web.review.bench import Answer, me, show
from gateway.web.site import Site
from pipeline import BrokenRule, CorrectionError, parse_corrections


def routes(site: Site) -> APIRouter:
    """Return the target of the form."""
    router = APIRouter()

    @router.post("/review/{job_id}/corrections")
    async def corrections(request: Request, job_id: str) -> Response:
        answer = Answer(request=request, job_id=job_id, form=await read_form(request))
        return await run_in_threadpool(_correct, site, answer)

    return router


def _correct(site: Site, answer: Answer) -> Response:
    store, actor = site.store, me(answer.request)
    try:
        stated = parse_corrections(json.loads(answer.form.get("corrections", "")))
        store.review.check(answer.job_id, answer.version, actor)
        check_placed(site.spool, store.jobs.get(answer.job_id), {answer.number: stated})
        correct(store, site.settings, answer.job_id, {answer.number: stated}, actor, answer.version)
    except CorrectionError as error:
        return show(site, answer.wrong(**_by_field(error.broken)))
    except ValueError:
        return show(site, answer.wrong(corrections="The corrections are not complete: load the page again."))
    except IllegalTransition as error:
        return show(site, answer.refused(error))
    return back_to(answer.address)


def _by_field(broken: Iterable[BrokenRule]) -> dict[str, str]:
    """Return what is wrong with each field of the form, in words."""
    words: dict[str, str] = {}
    for each in broken:
        name, *numbers = re.split(r"[\[\].]+", each.field)
        count = next((int(number) + 1 for number in numbers if number.isdecimal()), 0)
        where = f"No. {count}: " if count else ""
        words[name] = "; ".join([*([words[name]] if name in words else []), f"{where}{each.value} {each.rule}"])
    return words
