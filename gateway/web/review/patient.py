"""The target of the workbench's form about the patient: a search, a choice, an entry."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from gateway.domain.context import StudyContext
from gateway.errors import IllegalTransition, IntakeError
from gateway.identity.candidates import Found, find_candidates
from gateway.identity.forms import PATIENT_FIELDS
from gateway.identity.person import identify
from gateway.web.access import current_user
from gateway.web.forms import back_to, read_form
from gateway.web.review.bench import Answer, me, show
from gateway.web.review.compared import PatientPart, context_of, patient_part
from gateway.web.site import Site


def routes(site: Site) -> APIRouter:
    """Return the target of the workbench's form about the patient."""
    router = APIRouter()

    @router.post("/review/{job_id}/patient")
    async def patient(request: Request, job_id: str) -> Response:
        answer = Answer(request=request, job_id=job_id, form=await read_form(request))
        return await run_in_threadpool(_answered, site, answer)

    return router


def _answered(site: Site, answer: Answer) -> Response:
    actions = {"search": _search, "take": _take_entry, "open": _open}
    try:
        return actions.get(answer.form.get("action", ""), _agree)(site, answer)
    except IllegalTransition as error:
        return show(site, answer.refused(error))
    except IntakeError as error:
        return show(site, answer.wrong(patient=f"{error}."))


def _agree(site: Site, answer: Answer) -> Response:
    """Record that this is the patient, if everything that differs was chosen from the record; else look it up."""
    job, form = site.store.jobs.get(answer.job_id), answer.form
    part = patient_part(site, job, answer.number)
    choices = {row.field: form.get(f"choice_{row.field}", "") for row in part.rows if row.differs}
    if missing := {f"choice_{field}": "Which is right?" for field, choice in choices.items() if not choice}:
        return show(site, answer.wrong(**missing))
    if "page" in choices.values():
        values = {row.field: row.value for row in part.rows}
        return _found(site, answer, values["patient_id"] or values["accession_number"])
    if not job.patient_id:
        return show(site, answer.wrong(patient="The job has no patient yet: search for one, or enter it."))
    return _take(site, answer, StudyContext(acquisition_date_time=_new_time(form, part)))


def _search(site: Site, answer: Answer) -> Response:
    return _found(site, answer, answer.form.get("number", "").strip())


def _found(site: Site, answer: Answer, number: str) -> Response:
    job = site.store.jobs.get(answer.job_id)
    found = find_candidates(site.store, site.settings, job, number, current_user(answer.request)) if number else Found()
    return show(site, answer.found(number, found))


def _take_entry(site: Site, answer: Answer) -> Response:
    fields = {name: answer.form.get(name, "").strip() for name in PATIENT_FIELDS}
    fields["patient_birth_date"] = fields["patient_birth_date"].replace("-", "")
    if not fields["patient_id"]:
        return show(site, answer.wrong(patient_id="A patient ID is needed."))
    part = patient_part(site, site.store.jobs.get(answer.job_id), answer.number)
    return _take(site, answer, StudyContext(**fields, acquisition_date_time=_new_time(answer.form, part)))


def _take(site: Site, answer: Answer, stated: StudyContext) -> Response:
    """Make a job what a person states, if that is new, and record that this is its patient."""
    store, actor = site.store, me(answer.request)
    store.review.check(answer.job_id, answer.version, actor)
    known = context_of(site, store.jobs.get(answer.job_id))
    if any(value and value != getattr(known, name) for name, value in stated):
        identify(store, answer.job_id, stated, actor)
    else:
        store.review.agree(answer.job_id, answer.version, actor, patient=True)
    return back_to(answer.address)


def _open(site: Site, answer: Answer) -> Response:
    site.store.review.agree(answer.job_id, answer.version, me(answer.request), patient=False)
    return back_to(answer.address)


def _new_time(form: Mapping[str, str], part: PatientPart) -> str:
    """Return the date and time of a form; "" where they are still those that were known, or printed."""
    at = stated_time(form)
    return "" if at == stated_time({"date": part.date, "time": part.time}) else at


def stated_time(form: Mapping[str, str]) -> str:
    """Return the date and time of a form as DICOM's DT.

    Raises
    ------
    IntakeError
        There is a time without a date.
    """
    date, time = form.get("date", "").replace("-", ""), form.get("time", "").replace(":", "")
    if time and not date:
        raise IntakeError("a time needs its date")
    return date + (time.ljust(6, "0") if time else "")
