"""What a person corrects and decides by way of other software: the rules are those of the workbench.

A result is final only after two agreements, that the traces are those of the page and that this is the patient.  Every
change names the version of the job that the person saw; where the job has another one, nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from gateway.domain.account import ApiScope
from gateway.domain.review import Verdict
from gateway.errors import IllegalTransition
from gateway.results.confirmation import check_confirmable
from gateway.results.person import correct, corrections_of
from gateway.store.review import new_decision
from gateway.web.api.access import CurrentCaller, TokenAccess
from gateway.web.api.jobs import job_answer
from gateway.web.api.models import CorrectionsAnswer, JobAnswer, JobId, NoNul, PageNumber
from gateway.web.api.problems import ApiProblem, Fault, answers, broken, stale
from gateway.web.review.compared import patient_part
from gateway.web.site import Site
from pipeline import CorrectionError, corrections_json, parse_corrections

Version = Annotated[int, Field(ge=0, le=2**31 - 1, description="`version` of the job that the person saw.")]


class Decided(StrEnum):
    """What a person decides."""

    TRACES_AGREE = "TRACES_AGREE"  # the traces are those of the page
    TRACES_OPEN = "TRACES_OPEN"  # that is open again
    PATIENT_AGREE = "PATIENT_AGREE"  # this is the patient
    PATIENT_OPEN = "PATIENT_OPEN"
    ACCEPT = "ACCEPT"  # the result is final
    REJECT = "REJECT"
    SCAN_AGAIN = "SCAN_AGAIN"  # a rejection that asks for a new scan


class Stated(BaseModel):
    """What a person states about a page."""

    model_config = ConfigDict(extra="forbid")

    version: Version
    corrections: dict[str, Any] = Field(
        description="All of the page, as of `ecg-gateway correct`: they replace earlier ones; {} takes them back."
    )


class Decision(BaseModel):
    """What a person decides about a job."""

    model_config = ConfigDict(extra="forbid")

    version: Version
    decision: Decided
    reason: NoNul = Field(default="", description="Of a rejection.")
    patient_id: NoNul = Field(default="", description="Of PATIENT_AGREE: whose ECG it is. It must be the job's.")


def routes(site: Site, access: TokenAccess) -> APIRouter:
    """Return the routes of corrections and decisions."""
    router = APIRouter(tags=["Review"])
    writes, problems = [access.needs(ApiScope.REVIEW_WRITE)], answers(400, 404, 409, 413)

    @router.get(
        "/jobs/{job_id}/corrections", dependencies=[access.needs(ApiScope.RESULTS_READ)], responses=answers(404)
    )
    def get_corrections(job_id: JobId) -> CorrectionsAnswer:
        """Return what persons corrected on the pages of a job. Scope `results:read`."""
        version, job = site.store.review.version(job_id), site.store.jobs.get(job_id)
        pages = {number: corrections_json(each) for number, each in corrections_of(job).items()}
        return CorrectionsAnswer(version=version, pages=pages)

    @router.put("/jobs/{job_id}/pages/{number}/corrections", status_code=202, dependencies=writes, responses=problems)
    def put_corrections(job_id: JobId, number: PageNumber, stated: Stated, caller: CurrentCaller) -> JobAnswer:
        """Have a page read again with what a person states; the result waits for a decision. Scope `review:write`."""
        with _telling_changes(site, job_id, stated.version):
            try:
                pages = {number: parse_corrections(stated.corrections)}
                site.store.review.check(job_id, stated.version, caller.actor)
                correct(site.store, site.settings, job_id, pages, caller.actor, stated.version)
            except CorrectionError as error:
                raise broken(error) from None
        return job_answer(site, job_id, caller)

    @router.post("/jobs/{job_id}/decisions", dependencies=writes, responses=problems)
    def decide(job_id: JobId, decision: Decision, caller: CurrentCaller) -> JobAnswer:
        """Record what a person decides; ACCEPT and the rejections are carried out a minute later. Scope `review:write`.

        ACCEPT needs TRACES_AGREE and PATIENT_AGREE before it, each with the version that the answer before gave.
        """
        with _telling_changes(site, job_id, decision.version):
            _decide(site, job_id, decision, caller.actor)
        return job_answer(site, job_id, caller)

    @router.delete("/jobs/{job_id}/decisions", dependencies=writes, responses=problems)
    def take_back(job_id: JobId, caller: CurrentCaller) -> JobAnswer:
        """Take back the decision that waits to be carried out. Scope `review:write`."""
        if not site.store.review.undo(job_id, caller.actor):
            raise IllegalTransition("there is no decision that could still be taken back")
        return job_answer(site, job_id, caller)

    return router


@contextmanager
def _telling_changes(site: Site, job_id: str, version: int) -> Iterator[None]:
    """Have a change that the job does not take answered with what happened to the job since a version."""
    try:
        yield
    except IllegalTransition as error:
        raise stale(error, site.store.review.changes(job_id, version)) from None


def _decide(site: Site, job_id: str, decision: Decision, actor: str) -> None:
    review, version = site.store.review, decision.version
    match decision.decision:
        case Decided.TRACES_AGREE | Decided.TRACES_OPEN:
            review.agree(job_id, version, actor, traces=decision.decision == Decided.TRACES_AGREE)
        case Decided.PATIENT_OPEN:
            review.agree(job_id, version, actor, patient=False)
        case Decided.PATIENT_AGREE:
            _check_patient(site, job_id, decision)
            review.agree(job_id, version, actor, patient=True)
        case Decided.ACCEPT:
            check_confirmable(site.store, site.spool, site.settings, job_id)
            review.decide(job_id, version, new_decision(job_id, Verdict.ACCEPT, actor))
        case Decided.REJECT | Decided.SCAN_AGAIN:
            if not decision.reason.strip():
                rule = "a rejection needs one"
                raise ApiProblem(422, f"reason: {rule}", [Fault(field="reason", rule=rule)])
            verdict = Verdict(decision.decision)
            said = f"scan again: {decision.reason}" if verdict == Verdict.SCAN_AGAIN else decision.reason
            review.decide(job_id, version, new_decision(job_id, verdict, actor, said.strip()))


def _check_patient(site: Site, job_id: str, decision: Decision) -> None:
    """Raise where it is not certain that the person means this patient, and that the pages print no other one."""
    job = site.store.jobs.get(job_id)
    if not job.patient_id:
        raise IllegalTransition("the job has no patient ID yet")
    if decision.patient_id != job.patient_id:
        rule = "must be the patient ID of the job"
        raise ApiProblem(422, f"patient_id: {rule}", [Fault(field="patient_id", value=decision.patient_id, rule=rule)])
    for page in site.store.jobs.pages(job_id):
        differs = [row.field for row in patient_part(site, job, page.page_number).rows if row.differs]
        if differs:
            raise IllegalTransition(
                f"page {page.page_number} prints another {', '.join(differs)} than the record has: "
                "a person compares them in the workbench"
            )
