"""The workbench of one page: everything on it, and how a form that cannot be carried out is answered.

A form that is refused comes back as the page with what was typed, the reason beside its field, and what changed
meanwhile: nothing that a person typed is lost.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from fastapi import Request, Response
from starlette.exceptions import HTTPException

from gateway.delivery.kinds import kind_of
from gateway.domain.artefact import Role, kept_name
from gateway.domain.clock import utc_now
from gateway.domain.digitized_page import acts_of
from gateway.domain.review import Stake, Verdict, stake_of
from gateway.domain.status import JobStatus
from gateway.errors import IllegalTransition
from gateway.identity.candidates import Found
from gateway.results.kept import read_result
from gateway.results.person import corrections_of
from gateway.store.store import Store
from gateway.store.tables import Job, JobEvent, Page, ReviewDecision
from gateway.web.access import current_user
from gateway.web.pages.job import Finding, findings_of
from gateway.web.pages.words import Badge, job_badge
from gateway.web.review.compared import PatientPart, patient_part
from gateway.web.site import Site
from pipeline import ALL_LEADS, LEADS, Corrections, Layout, corrections_json, load_layouts

_LONGEST_WORKLIST = 1000
_STAKES = {
    Stake.UNRANKED: ("Not ranked", "warn"),
    Stake.IDENTITY: ("Whose ECG?", "bad"),
    Stake.UNREAD: ("Not read", "bad"),
    Stake.INK: ("Missing ink", "bad"),
    Stake.LAYOUT: ("Layout", "warn"),
    Stake.SCALE: ("Speed or gain", "warn"),
    Stake.LOW: ("Low estimate", "warn"),
    Stake.OTHER: ("Doubtful", "warn"),
    Stake.NONE: ("To confirm", "idle"),
}
_DONE = {Verdict.ACCEPT: "accepted", Verdict.REJECT: "rejected", Verdict.SCAN_AGAIN: "sent back to be scanned again"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A request about one page of a job, and what is said about its form.

    Parameters
    ----------
    form
        What was sent; shown again.
    errors
        For a field, what is wrong with it.
    problem
        Why nothing was changed, in words.
    changes
        What happened to the job after the form was loaded.
    number
        That was searched for.
    candidates
        What was found under it; None where nothing was searched.
    """

    request: Request
    job_id: str
    form: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    changes: bool = False
    searched: str = ""
    candidates: Found | None = None

    @property
    def number(self) -> int:
        """The page, from 1."""
        text = self.form.get("page", "1")
        return int(text) if text.isascii() and text.isdigit() and 0 < len(text) < 7 else 1

    @property
    def version(self) -> int:
        """The version of the job that the form was filled in for; 0 is none."""
        text = self.form.get("version", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 18 else 0

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"/review/{self.job_id}" + (f"?page={self.number}" if self.number > 1 else "")

    def wrong(self, **errors: str) -> Answer:
        """Return the answer with what is wrong with its fields."""
        return replace(self, errors=errors, problem="Nothing was changed.")

    def refused(self, error: IllegalTransition) -> Answer:
        """Return the answer with why the store refused it."""
        return replace(self, problem=f"Nothing was changed: {error}.", changes=True)

    def found(self, searched: str, candidates: Found) -> Answer:
        """Return the answer with the patients that were found."""
        return replace(self, searched=searched, candidates=candidates)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocable:
    """A decision that can still be taken back."""

    job_id: str
    words: str
    seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """The jobs before and after one in the worklist; "" where there is none."""

    before: str
    after: str
    place: str  # "3 of 12"; "" where the job is not in the worklist


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFound:
    """What the gateway took a page for; "" where it did not say."""

    layout: str = ""
    speed: str = ""
    gain: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workbench:
    """Everything on the workbench of one page of a job."""

    id: str
    number: int
    numbers: tuple[int, ...]
    status: Badge
    stake: Badge
    reasons: tuple[str, ...]
    identity_reasons: tuple[str, ...]
    reviewer: str  # another person who has it open
    version: int
    neighbours: Neighbours
    readable: bool  # there is a record of the page
    pictured: bool
    working: bool  # it is being read now
    findings: tuple[Finding, ...]
    patient: PatientPart
    patient_known: bool
    traces_agreed_by: str
    patient_agreed_by: str
    confirmed_by: str
    decision: ReviewDecision | None
    sent_to: tuple[str, ...]  # destinations that have a result of the job
    untold: tuple[str, ...]  # those of them that a rejection cannot be told
    closed: bool  # nothing can be decided any more
    rejections: tuple[str, ...]
    corrections: str  # of the page, JSON
    acts: tuple[str, ...]  # what a person did with its samples, in words
    found: PageFound
    layouts: tuple[Layout, ...]
    lead_names: tuple[str, ...]
    leads: tuple[str, ...]  # of the page


def me(request: Request) -> str:
    """Return who asks, by name; raise HTTPException for a person who may not decide."""
    user = current_user(request)
    if not user.decides:
        raise HTTPException(403, f"{user.shown}, a {user.role}, may not review.")
    return user.name


def show(site: Site, answer: Answer) -> Response:
    """Return the workbench as the answer to a request."""
    store, actor = site.store, me(answer.request)
    bench = workbench_of(site, answer.job_id, answer.number, actor)
    shown = {
        "bench": bench,
        "answer": answer,
        "form": answer.form,
        "errors": answer.errors,
        "changed": _changes(store, answer),
        "revocable": revocable(store, actor),
        "shows": current_user(answer.request).sees_patients or answer.request.query_params.get("pictures") == "on",
    }
    status = 409 if answer.changes else 422 if answer.errors else 200
    return site.templates.TemplateResponse(answer.request, "review.html", shown, status_code=status)


def workbench_of(site: Site, job_id: str, number: int, actor: str) -> Workbench:
    """Return what the workbench shows of a page; raise HTTPException where the job has no such page."""
    store = site.store
    job, pages = store.jobs.get(job_id), store.jobs.pages(job_id)
    row = page_of(pages, number)
    if pages and row is None:
        raise HTTPException(404, "The job has no such page.")
    pictured = site.spool.has(job_id, kept_name(number, Role.GEOMETRY))
    readable = pictured and row is not None and row.status != JobStatus.FAILED
    reason = row.reason if row is not None and row.reason else job.reason
    said = [part for part in reason.split("; ") if part]
    decision = store.review.decision(job_id)
    sent_to = tuple(store.review.holders(job_id))
    told = {each.name for each in site.settings.destinations if kind_of(each, site.settings).withdraws}
    stated = corrections_of(job).get(number, Corrections())
    open_states = (JobStatus.NEEDS_REVIEW, JobStatus.DONE, JobStatus.FAILED)
    return Workbench(
        id=job.id,
        number=number,
        numbers=tuple(page.page_number for page in pages) or (1,),
        status=job_badge(job.status),
        stake=stake_badge(job),
        reasons=tuple(part for part in said if stake_of(part) != Stake.IDENTITY),
        identity_reasons=tuple(part for part in said if stake_of(part) == Stake.IDENTITY),
        reviewer=other_reviewer(job, actor),
        version=store.review.version(job_id),
        neighbours=neighbours(store, job_id, actor),
        readable=readable,
        pictured=pictured,
        working=job.status in (JobStatus.QUEUED, JobStatus.RUNNING),
        findings=findings_of(row, site.settings.review) if row is not None and readable else (),
        patient=patient_part(site, job, number),
        patient_known=bool(job.patient_id),
        traces_agreed_by=job.traces_agreed_by,
        patient_agreed_by=job.patient_agreed_by,
        confirmed_by=job.confirmed_by,
        decision=decision,
        sent_to=sent_to,
        untold=tuple(name for name in sent_to if name not in told),
        closed=job.status not in open_states
        or bool(job.confirmed_by)
        or job.purged_at is not None
        or decision is not None,
        rejections=site.settings.review.rejections,
        corrections=json.dumps(corrections_json(stated)),
        acts=_acts(site, row) if row is not None and readable else (),
        found=_found(row),
        layouts=load_layouts(site.settings.digitizer.layouts),
        lead_names=tuple(lead.value for lead in ALL_LEADS),
        leads=_leads(row, stated),
    )


def _found(row: Page | None) -> PageFound:
    """Return what the gateway took a page for."""
    if row is None:
        return PageFound()
    figures = json.loads(row.quality_json)
    speed, gain = figures.get("paper_speed_mm_per_s"), figures.get("gain_mm_per_mv")
    return PageFound(layout=row.layout, speed=f"{speed:g}" if speed else "", gain=f"{gain:g}" if gain else "")


def _acts(site: Site, row: Page) -> tuple[str, ...]:
    """Return what a person did with the samples of a page, in words."""
    npz = site.spool.read(row.job_id, kept_name(row.page_number, Role.RECORD))
    return acts_of(read_result(npz, row.quality_json)[0]) if npz is not None else ()


def _leads(row: Page | None, stated: Corrections) -> tuple[str, ...]:
    """Return the leads that a page was read to have, and those that a person has left out of it."""
    read = json.loads(row.quality_json).get("coverage", LEADS) if row is not None else LEADS
    return tuple(dict.fromkeys((*read, *stated.left_out)))


def page_of(pages: Sequence[Page], number: int) -> Page | None:
    """Return the page of a job with a number; None where it has none."""
    return next((page for page in pages if page.page_number == number), None)


def neighbours(store: Store, job_id: str, actor: str) -> Neighbours:
    """Return the jobs beside one in the worklist, without those that others have open."""
    found = store.review.worklist(_LONGEST_WORKLIST)
    ids = [each.id for each in found if each.id == job_id or not other_reviewer(each, actor)]
    if job_id not in ids:
        return Neighbours(before="", after=ids[0] if ids else "", place="")
    at = ids.index(job_id)
    return Neighbours(
        before=ids[at - 1] if at else "",
        after=ids[at + 1] if at + 1 < len(ids) else "",
        place=f"{at + 1} of {len(ids)}",
    )


def revocable(store: Store, actor: str) -> tuple[Revocable, ...]:
    """Return the decisions that a reviewer can still take back, the newest first."""
    now = utc_now()
    return tuple(
        Revocable(job_id=each.job_id, words=_DONE[each.verdict], seconds=int((each.due_at - now).total_seconds()))
        for each in store.review.revocable(actor)
    )


def stake_badge(job: Job) -> Badge:
    """Return what is at stake in a job, in words."""
    words, tone = _STAKES[Stake(job.stake)]
    return Badge(words=words, tone=tone)


def other_reviewer(job: Job, me: str) -> str:
    """Return who else has a job open now; "" where nobody has."""
    if job.reviewer in ("", me) or job.reviewer_until is None or job.reviewer_until <= utc_now():
        return ""
    return job.reviewer


def _changes(store: Store, answer: Answer) -> list[JobEvent]:
    if not answer.changes or not answer.version:
        return []
    return store.review.changes(answer.job_id, answer.version)
