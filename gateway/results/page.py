"""What one digitized page becomes: its row, its files, and its deliveries.

A page that was read gives a waveform object (one for each form that a destination wants), the other artefacts that
destinations want, and their deliveries.  This module decides whether they may be sent: a page without a patient ID is
never sent, a doubtful one only if the settings allow it.

All of it is a function of the job's row, the settings and the digitization, never of the clock: a second run after a
crash gives the same identifiers and the same bytes, so a peer recognises the repeat.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime

from gateway.delivery.kind import Kind
from gateway.delivery.kinds import kind_of
from gateway.dicom.objects.page_objects import ObjectKind, make_object
from gateway.dicom.objects.uids import derived_uid
from gateway.dicom.objects.waveform import (
    SopClass,
    leads_left_out,
    waveform_sop_class_uid,
    waveform_sop_instance_uid,
)
from gateway.domain.artefact import Artefact, Role
from gateway.domain.context import StudyContext
from gateway.domain.digitized_page import DigitizedPage
from gateway.domain.recorded import Origin, believable, not_known, recorded
from gateway.domain.status import ARRIVED, JobStatus
from gateway.errors import DeliveryRefused
from gateway.identity.words import NO_IDENTITY
from gateway.results.kept import quality_json, record_npz
from gateway.results.person import CONFIRM, corrections_of
from gateway.results.report import build_report
from gateway.settings import ObjectSettings, ReviewSettings, Settings
from gateway.spool.folder import Spool
from gateway.store.tables import Delivery, Job, Page
from pipeline import Corrections, Digitization, LayoutMatch, Lead, Quality, heart_rate_per_minute

_NOTED = (Origin.PRINTED, Origin.UNKNOWN)  # in the trail


@dataclass(frozen=True, slots=True)
class ArchiveRun:
    """The run of `ecg-digitize archive` that has read pages: its id, and the version of the program."""

    id: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """What is the same for every page of a job."""

    job_id: str
    created_at: datetime
    context: StudyContext  # with UIDs of study and source; they are derived from the job if the source has none
    destinations: tuple[Kind, ...]
    unknown_destinations: tuple[str, ...]  # named by the job, but not in the settings
    review: ReviewSettings
    objects: ObjectSettings
    revision: int = 0  # of the job's result, counted from the first that was delivered
    earlier: tuple[Delivery, ...] = ()  # of earlier results
    corrections: Mapping[int, Corrections] = field(default_factory=dict)  # of its pages, by number
    against: tuple[str, ...] = ()  # contradictions of codes on the pages to the record, in words
    archive_run: ArchiveRun | None = None  # that has read its pages, but for those that were corrected

    def run_of(self, page_number: int) -> ArchiveRun | None:
        """Return the archive run that has read a page; None where the gateway did."""
        return None if page_number in self.corrections else self.archive_run

    @property
    def sop_classes(self) -> tuple[SopClass, ...]:
        """Waveform objects to make of a page; 12-Lead where no destination says otherwise.

        Messages refer to the first: it is an archive's, if there is an archive.
        """
        archives = [kind for kind in self.destinations if kind.is_archive]
        wanted = [kind.waveform for kind in (*archives, *self.destinations) if kind.waveform is not None]
        return tuple(dict.fromkeys(wanted)) or ("12-lead",)

    @property
    def object_kinds(self) -> tuple[ObjectKind, ...]:
        """DICOM objects to make of a page, waveforms first."""
        also = [document for kind in self.destinations for document in kind.also]
        return tuple(dict.fromkeys((*self.sop_classes, *also)))


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Pictures:
    """What a person checks a page by.

    Parameters
    ----------
    page, overlay : bytes
        The page, and the recovered traces drawn over it, as PNG files.
    geometry : bytes
        Where on the picture of the page everything lies, as JSON.
    """

    page: bytes
    overlay: bytes
    geometry: bytes


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class PageResult:
    """One page's row, files and deliveries."""

    page: Page
    artefacts: tuple[Artefact, ...] = ()
    deliveries: tuple[Delivery, ...] = ()
    note: str = ""  # for the trail, without patient data


def job_facts(job: Job, context: StudyContext, settings: Settings, deliveries: Sequence[Delivery] = ()) -> JobFacts:
    """Return what is the same for every page of `job`; UIDs that its source does not have are derived from the job.

    Parameters
    ----------
    context : StudyContext
        The identity.
    deliveries : Sequence[Delivery]
        Those of the job's earlier results.
    """
    derived = {
        "study_instance_uid": context.study_instance_uid or derived_uid("study", job.id),
        "source_sop_instance_uid": context.source_sop_instance_uid or derived_uid("source", job.id),
    }
    asked: list[str] | None = json.loads(job.destinations_json)
    known = {destination.name: destination for destination in settings.destinations}
    names = list(known) if asked is None else asked
    return JobFacts(
        job_id=job.id,
        created_at=job.created_at,
        context=context.model_copy(update=derived),
        destinations=tuple(kind_of(known[name], settings) for name in names if name in known),
        unknown_destinations=tuple(name for name in names if name not in known),
        review=settings.review,
        objects=settings.objects,
        revision=job.revision,
        earlier=tuple(deliveries),
        corrections=corrections_of(job),
    )


def failed_page(
    facts: JobFacts, page_number: int, reason: str, seconds: float, known: tuple[bytes, bytes]
) -> PageResult:
    """Return the result of a page that could not be read; `reason` says why, in words.

    `known` is its picture and the size of that (`Pictures.geometry`): they are kept.
    """
    page = Page(
        job_id=facts.job_id,
        page_number=page_number,
        status=JobStatus.FAILED,
        reason=reason,
        seconds=None if facts.run_of(page_number) else round(seconds, 3),
    )
    kept = zip((Role.PAGE_PICTURE, Role.GEOMETRY), known, strict=True)
    artefacts = tuple(Artefact(page_number=page_number, role=role, data=data) for role, data in kept)
    return PageResult(page=page, artefacts=artefacts)


def page_result(
    facts: JobFacts,
    digitization: Digitization,
    pictures: Pictures,
    seconds: float,
    contradictions: tuple[str, ...] = (),
) -> PageResult:
    """Return what a page that was read becomes.

    Parameters
    ----------
    pictures
        What a person checks the page by.
    seconds
        How long the digitization took.
    contradictions
        What on the page contradicts its record, in words.  If there is any, or a page was corrected, nothing is sent
        before a confirmation; nor is anything if the time of recording is not known, where the settings hold such a
        page.
    """
    number, quality, match = digitization.page.page_number, digitization.quality, digitization.layout_match
    run = facts.run_of(number)
    artefacts = [
        Artefact(page_number=number, role=Role.PAGE_PICTURE, data=pictures.page),
        Artefact(page_number=number, role=Role.OVERLAY_PICTURE, data=pictures.overlay),
        Artefact(page_number=number, role=Role.GEOMETRY, data=pictures.geometry),
        Artefact(page_number=number, role=Role.RECORD, data=record_npz(digitization.record)),
    ]
    deliveries: list[Delivery] = []
    reasons = list(doubts(digitization, facts.review))
    doubtful = bool(reasons)
    reasons += [*contradictions, *([CONFIRM] if digitization.corrections else [])]
    printed = believable(digitization.printed, facts.context, facts.created_at)
    dated = recorded(facts.context, printed)
    undated = dated.origin is Origin.UNKNOWN and facts.review.undated == "review"
    if undated:
        reasons.append(not_known(printed))
    uid = ""
    if facts.context.patient_id:  # without a patient ID no object is made
        page = _digitized_page(facts, replace(digitization, printed=printed), pictures, doubtful=doubtful)
        try:
            objects = {kind: make_object(page, kind, facts.objects) for kind in facts.object_kinds}
        except ValueError as error:
            reasons.append(f"no waveform object can be made: {error}")
        else:
            uid = page.waveform_sop_instance_uid
            artefacts += [Artefact(page_number=number, role=Role.REPORT_PDF, data=page.report_pdf), *objects.values()]
            reasons += page.left_out_words
            made, deliveries = _for_destinations(facts, page, objects, reasons)
            artefacts += made
    row = Page(
        job_id=facts.job_id,
        page_number=number,
        status=JobStatus.NEEDS_REVIEW if reasons else JobStatus.DONE,
        reason="; ".join(reasons),
        layout=match.layout.name,
        layout_score=round(match.score, 4),
        estimated_snr_db=round(quality.estimated_snr_db, 2),
        coverage=round(_mean_coverage(quality), 4),
        quality_json=quality_json(digitization, asdict(run) if run else None),
        waveform_sop_instance_uid=uid,
        seconds=None if run else round(seconds, 3),
    )
    held = contradictions or undated or facts.corrections
    leaves = not held and (not doubtful or facts.review.deliver_doubtful)
    notes = [f"read in archive run {run.id}, version {run.version}"] if run else []
    notes += [f"time of recording {dated.origin}"] if dated.origin in _NOTED and not undated else []
    note = f"page {number}: {'; '.join(notes)}" if notes else ""
    return PageResult(page=row, artefacts=tuple(artefacts), deliveries=tuple(deliveries) if leaves else (), note=note)


def for_destination(
    facts: JobFacts, page: DigitizedPage, objects: Mapping[ObjectKind, Artefact], kind: Kind
) -> Iterator[tuple[Artefact, Delivery]]:
    """Yield what one destination is sent for a page, each with its delivery.

    Raises
    ------
    DeliveryRefused
        One cannot be made as the destination wants it; those yielded before stand.
    """
    earlier = [
        delivery
        for delivery in facts.earlier
        if delivery.role == Role.MESSAGE
        and delivery.status in ARRIVED
        and (delivery.page_number, delivery.destination) == (page.page_number, kind.name)
    ]
    for artefact in kind.artefacts(page, objects, earlier):
        yield artefact, delivery_of(facts.job_id, kind, artefact)


def write_artefacts(spool: Spool, job_id: str, artefacts: Iterable[Artefact]) -> None:
    """Write to a job's spool folder those artefacts that are not there yet."""
    for artefact in artefacts:
        if artefact.data is not None:
            spool.write_artefact(job_id, artefact.name, artefact.data)


def delivery_of(job_id: str, kind: Kind, artefact: Artefact) -> Delivery:
    """Return the delivery that carries an artefact to a destination."""
    return Delivery(
        job_id=job_id,
        page_number=artefact.page_number,
        destination=kind.name,
        kind=kind.word,
        artefact=artefact.name,
        identifier=artefact.identifier,
        role=artefact.role,
        revision=artefact.revision,
        final=artefact.final,
        result_status=artefact.result_status,
    )


def job_outcome(facts: JobFacts, pages: Sequence[Page]) -> tuple[JobStatus, str]:
    """Return the final status of a job with its reason: FAILED if no page was read, DONE if there is no doubt."""
    several = len(pages) > 1
    reasons = [f"page {page.page_number}: {page.reason}" if several else page.reason for page in pages if page.reason]
    if all(page.status == JobStatus.FAILED for page in pages):
        return JobStatus.FAILED, "; ".join(reasons) or "the file has no page"
    if facts.unknown_destinations:
        reasons.insert(0, f"destination not configured: {', '.join(facts.unknown_destinations)}")
    if not facts.context.patient_id:
        reasons.insert(0, NO_IDENTITY)
    return (JobStatus.NEEDS_REVIEW if reasons else JobStatus.DONE), "; ".join(reasons)


def doubts(digitization: Digitization, review: ReviewSettings) -> tuple[str, ...]:
    """Return the reasons, in words, why a person must review a page; none if the page is good enough."""
    quality, match = digitization.quality, digitization.layout_match
    reasons: list[str] = []
    if quality.estimated_snr_db < review.minimum_estimated_snr_db:
        limit = review.minimum_estimated_snr_db
        reasons.append(f"estimated SNR {quality.estimated_snr_db:.1f} dB is under the limit of {limit:g} dB")
    coverage = _mean_coverage(quality)
    if coverage < review.minimum_coverage:
        reasons.append(f"only {coverage:.0%} of the printed signal was read (limit {review.minimum_coverage:.0%})")
    if not match.certain:
        why = match.reasons or (f"layout {match.layout.name} is not certain",)
        reasons.extend(reason for reason in why if not any(said.endswith(reason) for said in quality.warnings))
    reasons.extend(quality.warnings)
    return tuple(dict.fromkeys(reasons))


def printed_columns(match: LayoutMatch) -> tuple[tuple[Lead, ...], ...]:
    """Return which leads are printed one below the other: every column, then the rhythm strips."""
    columns = tuple(zip(*match.layout.rows, strict=False))
    return (*columns, match.rhythm) if match.rhythm else columns


def _digitized_page(
    facts: JobFacts, digitization: Digitization, pictures: Pictures, *, doubtful: bool
) -> DigitizedPage:
    """Return the page with its report; the waveform it refers to follows from source, page and revision."""
    waveform, number = facts.sop_classes[0], digitization.page.page_number
    page = DigitizedPage(
        job_id=facts.job_id,
        page_number=number,
        context=facts.context,
        created_at=facts.created_at,
        record=digitization.record,
        quality=digitization.quality,
        layout_name=digitization.layout_match.layout.name,
        columns=printed_columns(digitization.layout_match),
        printed=digitization.printed,
        heart_rate_per_minute=heart_rate_per_minute(digitization.record),
        leads_left_out=leads_left_out(digitization.record, waveform),
        waveform_sop_class_uid=waveform_sop_class_uid(digitization.record, waveform),
        waveform_sop_instance_uid=waveform_sop_instance_uid(facts.context, number, waveform, facts.revision),
        weights_sha256=digitization.weights_sha256,
        page_png=pictures.page,
        overlay_png=pictures.overlay,
        revision=facts.revision,
        doubtful=doubtful,
    )
    return replace(page, report_pdf=build_report(page))


def _for_destinations(
    facts: JobFacts, page: DigitizedPage, objects: Mapping[ObjectKind, Artefact], reasons: list[str]
) -> tuple[list[Artefact], list[Delivery]]:
    """Return what is made beside the objects, and all deliveries; what one destination cannot get joins `reasons`."""
    made: list[tuple[Artefact, Delivery]] = []
    for kind in facts.destinations:
        try:
            for each in for_destination(facts, page, objects, kind):
                made.append(each)
        except DeliveryRefused as error:
            reasons.append(str(error))
    more = [artefact for artefact, _ in made if artefact not in objects.values()]
    return more, [delivery for _, delivery in made]


def _mean_coverage(quality: Quality) -> float:
    return sum(quality.coverage.values()) / len(quality.coverage) if quality.coverage else 0.0
