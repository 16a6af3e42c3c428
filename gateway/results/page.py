"""What one digitized page becomes: its row, its files, and who gets them.

A page that was read gives a waveform object (one per SOP class asked for), a message for each HL7 destination, and the
deliveries that carry them.  Whether it may leave is decided here: a page without a patient's identity never does, a
doubtful one only where the site's rule says so.

Everything is a function of the job's row, the settings and the digitization, never of the clock: a second run after a
crash gives the same identifiers and the same bytes, so that a peer recognises a repeat.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from gateway.dicom.objects.documents import document_sop_instance_uid, encapsulated_report, encode_document
from gateway.dicom.objects.uids import derived_uid
from gateway.dicom.objects.waveform import SOP_CLASS_UIDS, SopClass, waveform_sop_instance_uid
from gateway.domain.artefact import Role
from gateway.domain.context import StudyContext
from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.errors import DeliveryRefused
from gateway.hl7.outbound.messages import Result, ResultStatus, build_message, message_control_id
from gateway.results.artefacts import MadeObject, ObjectKind, make_objects, object_name
from gateway.results.report import build_report
from gateway.settings import (
    Destination,
    FolderDestination,
    Hl7CodeSettings,
    Hl7Destination,
    ObjectDestination,
    ObjectSettings,
    ReviewSettings,
    Settings,
)
from gateway.store.tables import Delivery, Job, Page
from pipeline import Calibration, Digitization, EcgRecord, Lead, Quality

NO_IDENTITY = "no patient ID: whose ECG this is must be told by a person"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """What holds for every page of a job."""

    job_id: str
    created_at: datetime
    context: StudyContext  # with the UIDs of study and source, ours where the source has none
    destinations: tuple[Destination, ...]
    unknown_destinations: tuple[str, ...]  # asked for, but no longer configured
    review: ReviewSettings
    codes: Hl7CodeSettings
    objects: ObjectSettings
    revision: int = 0  # of the job's result, counted from the first that was delivered
    told: tuple[Delivery, ...] = ()  # messages of earlier results that arrived
    against: tuple[str, ...] = ()  # what codes on the pages say against the record, in words

    @property
    def sop_classes(self) -> tuple[SopClass, ...]:
        """SOP classes to build, the one that ORUs refer to first; 12-Lead where no PACS says otherwise."""
        archives = [d for d in self.destinations if not isinstance(d, FolderDestination)]
        asked = [d.sop_class for d in (*archives, *self.destinations) if isinstance(d, ObjectDestination)]
        return tuple(dict.fromkeys(asked)) or ("12-lead",)

    @property
    def object_kinds(self) -> tuple[ObjectKind, ...]:
        """Objects to build, waveforms first."""
        also = [kind for d in self.destinations if isinstance(d, ObjectDestination) for kind in d.also]
        return tuple(dict.fromkeys((*self.sop_classes, *also)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """A file of the job's spool folder."""

    name: str
    data: bytes


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class PageResult:
    """One page's row, files and deliveries."""

    page: Page
    artefacts: tuple[Artefact, ...] = ()
    deliveries: tuple[Delivery, ...] = ()


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class ReadPage:
    """What a message tells about a page that was read; `report` is its PDF report, if there is one."""

    number: int
    record: EcgRecord
    quality: Quality
    waveform_sop_instance_uid: str
    report: bytes | None = None
    layout_name: str = ""


def job_facts(job: Job, context: StudyContext, settings: Settings, deliveries: Sequence[Delivery] = ()) -> JobFacts:
    """Return what holds for every page of `job`; the UIDs its source does not have are derived from the job.

    `deliveries` are those of the job's earlier results.
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
        destinations=tuple(known[name] for name in names if name in known),
        unknown_destinations=tuple(name for name in names if name not in known),
        review=settings.review,
        codes=settings.hl7.codes,
        objects=settings.objects,
        revision=job.revision,
        told=tuple(d for d in deliveries if d.status == DeliveryStatus.DELIVERED and d.result_status),
    )


def failed_page(facts: JobFacts, page_number: int, reason: str, seconds: float, page_png: bytes) -> PageResult:
    """Return the result of a page that could not be read; `reason` says why, in words, and the picture is kept."""
    page = Page(
        job_id=facts.job_id, page_number=page_number, status=JobStatus.FAILED, reason=reason, seconds=round(seconds, 3)
    )
    return PageResult(page=page, artefacts=(Artefact(name=f"page-{page_number}.png", data=page_png),))


def page_result(
    facts: JobFacts,
    digitization: Digitization,
    pictures: tuple[bytes, bytes],
    seconds: float,
    contradictions: tuple[str, ...] = (),
) -> PageResult:
    """Return what a page that was read becomes.

    Parameters
    ----------
    pictures
        The page, and the recovered traces drawn over it, as PNG files.
    seconds
        How long the digitization took.
    contradictions
        What the page says against its record, in words: with any, nothing leaves before a person has confirmed it.
    """
    number = digitization.page.page_number
    artefacts = [
        Artefact(name=f"page-{number}.png", data=pictures[0]),
        Artefact(name=f"page-{number}.overlay.png", data=pictures[1]),
        Artefact(name=f"page-{number}.record.npz", data=record_npz(digitization.record)),
    ]
    deliveries: list[Delivery] = []
    reasons = list(doubts(digitization, facts.review))
    doubtful = bool(reasons)
    reasons += contradictions
    uid = ""
    if facts.context.patient_id:  # a waveform that is nobody's is not made
        report = _report(facts, digitization)
        try:
            objects = make_objects(
                digitization,
                facts.context,
                facts.object_kinds,
                overlay_png=pictures[1],
                report_pdf=report,
                created_at=facts.created_at,
                objects=facts.objects,
                revision=facts.revision,
            )
        except ValueError as error:
            reasons.append(f"no waveform object can be made: {error}")
        else:
            uid = objects[facts.sop_classes[0]].sop_instance_uid
            artefacts.append(Artefact(name=report_name(number), data=report))
            artefacts += [Artefact(name=each.name, data=each.data) for each in objects.values()]
            made, deliveries = _for_destinations(facts, digitization, objects, report, doubtful, reasons)
            artefacts += made
    quality = digitization.quality
    page = Page(
        job_id=facts.job_id,
        page_number=number,
        status=JobStatus.NEEDS_REVIEW if reasons else JobStatus.DONE,
        reason="; ".join(reasons),
        layout=digitization.layout_match.layout.name,
        layout_score=round(digitization.layout_match.score, 4),
        estimated_snr_db=round(quality.estimated_snr_db, 2),
        coverage=round(_mean_coverage(quality), 4),
        quality_json=quality_json(digitization),
        waveform_sop_instance_uid=uid,
        seconds=round(seconds, 3),
    )
    leaves = not contradictions and (not doubtful or facts.review.deliver_doubtful)
    return PageResult(page=page, artefacts=tuple(artefacts), deliveries=tuple(deliveries) if leaves else ())


def page_message(
    facts: JobFacts, page: ReadPage, destination: Destination, *, doubtful: bool, confirmed: bool = False
) -> tuple[Artefact, Delivery]:
    """Return the message about one page for one destination, and the delivery that carries it.

    It is preliminary until a person has confirmed the result, then final; a correction where the destination was told
    an earlier result.

    Raises
    ------
    DeliveryRefused
        The message cannot be made as the destination wants it.
    """
    revision = f"r{facts.revision}" if facts.revision else ""
    variant = ".".join(part for part in (revision, "final" if confirmed else "") if part)
    told = [d for d in facts.told if d.page_number == page.number and d.destination == destination.name]
    corrects = any(earlier.revision != facts.revision for earlier in told)
    status: ResultStatus = "C" if corrects else "F" if confirmed else "P"
    control_id = message_control_id(facts.job_id, page.number, destination.name, variant)
    result = Result(
        record=page.record,
        quality=page.quality,
        context=facts.context,
        study_instance_uid=facts.context.study_instance_uid,
        waveform_sop_instance_uid=page.waveform_sop_instance_uid,
        message_control_id=control_id,
        doubtful=doubtful,
        confirmed=confirmed,
        status=status,
        created_at=facts.created_at,
        report=page.report,
        replaces=told[-1].identifier if told else "",
    )
    name = ".".join(part for part in (f"page-{page.number}", destination.name, variant, "hl7") if part)
    artefact = Artefact(name=name, data=build_message(result, _hl7_form(destination), facts.codes))
    delivery = _delivery(facts, page.number, destination, artefact.name, control_id, Role.MESSAGE)
    delivery.result_status, delivery.final = status, confirmed
    return artefact, delivery


def final_deliveries(facts: JobFacts, page: ReadPage) -> tuple[list[Artefact], list[Delivery]]:
    """Return what a page that a person confirmed sends: final messages and reports, and objects that were held back.

    Raises
    ------
    DeliveryRefused
        A message cannot be made as its destination wants it.
    """
    revision = f"r{facts.revision}" if facts.revision else ""
    made, deliveries = _final_report(facts, page)
    for destination in facts.destinations:
        if isinstance(destination, ObjectDestination):
            name = object_name(page.number, destination.sop_class, revision)
            uid = waveform_sop_instance_uid(facts.context, page.number, destination.sop_class, facts.revision)
            deliveries.append(_delivery(facts, page.number, destination, name, uid, Role.WAVEFORM))
            if "overlay" in destination.also:
                name = object_name(page.number, "overlay", revision)
                uid = document_sop_instance_uid(facts.context, page.number, "overlay", revision)
                deliveries.append(_delivery(facts, page.number, destination, name, uid, Role.OVERLAY))
        if not isinstance(destination, ObjectDestination) or isinstance(destination, FolderDestination):
            message, delivery = page_message(facts, page, destination, doubtful=False, confirmed=True)
            made.append(message)
            deliveries.append(delivery)
    return made, deliveries


def _final_report(facts: JobFacts, page: ReadPage) -> tuple[list[Artefact], list[Delivery]]:
    """Return the report that says that a person confirmed it, as a file and, where asked for, as an object."""
    asking = [d for d in facts.destinations if isinstance(d, ObjectDestination) and "report" in d.also]
    if page.report is None:
        return [], []
    made = [Artefact(name=report_name(page.number), data=page.report)]
    if not asking:
        return made, []
    variant = f"r{facts.revision}.final" if facts.revision else "final"
    dataset = encapsulated_report(
        page.report,
        page.quality,
        facts.context,
        page_number=page.number,
        layout_name=page.layout_name,
        created_at=facts.created_at,
        waveform=(SOP_CLASS_UIDS[facts.sop_classes[0]], page.waveform_sop_instance_uid),
        objects=facts.objects,
        variant=variant,
        confirmed=True,
    )
    name = object_name(page.number, "report", variant)
    made.append(Artefact(name=name, data=encode_document(dataset)))
    uid = str(dataset.SOPInstanceUID)
    deliveries = [_delivery(facts, page.number, d, name, uid, Role.REPORT) for d in asking]
    for delivery in deliveries:
        delivery.final = True
    return made, deliveries


def job_outcome(facts: JobFacts, pages: Sequence[Page]) -> tuple[JobStatus, str]:
    """Return how a job ends, and why in words: FAILED where no page could be read, DONE where nothing is in doubt."""
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
    """Return the reasons, in words, why a person must look at a page; none means good enough."""
    quality, match = digitization.quality, digitization.layout_match
    reasons: list[str] = []
    if quality.estimated_snr_db < review.minimum_estimated_snr_db:
        limit = review.minimum_estimated_snr_db
        reasons.append(f"estimated SNR {quality.estimated_snr_db:.1f} dB is under the limit of {limit:g} dB")
    coverage = _mean_coverage(quality)
    if coverage < review.minimum_coverage:
        reasons.append(f"only {coverage:.0%} of the printed signal was read (limit {review.minimum_coverage:.0%})")
    if not match.certain:
        reasons.extend(match.reasons or (f"layout {match.layout.name} is not certain",))
    reasons.extend(quality.warnings)
    return tuple(dict.fromkeys(reasons))


def record_npz(record: EcgRecord) -> bytes:
    """Return a record as an .npz file: signal_mv, confidence (n_leads, n_samples), leads, sampling_frequency_hz."""
    file = io.BytesIO()
    np.savez_compressed(
        file,
        signal_mv=record.signal_mv,
        confidence=record.confidence,
        leads=np.array([lead.value for lead in record.leads]),
        sampling_frequency_hz=np.float64(record.sampling_frequency_hz),
        paper_speed_mm_per_s=np.float64(record.calibration.paper_speed_mm_per_s),
        gain_mm_per_mv=np.float64(record.calibration.gain_mm_per_mv),
    )
    return file.getvalue()


def read_result(npz: bytes, figures: str) -> tuple[EcgRecord, Quality]:
    """Return record and quality from what `record_npz` and `quality_json` kept."""
    kept = json.loads(figures)
    with np.load(io.BytesIO(npz)) as arrays:
        record = EcgRecord(
            signal_mv=arrays["signal_mv"],
            confidence=arrays["confidence"],
            leads=tuple(Lead(name) for name in arrays["leads"].tolist()),
            sampling_frequency_hz=float(arrays["sampling_frequency_hz"]),
            calibration=Calibration(
                paper_speed_mm_per_s=float(arrays["paper_speed_mm_per_s"]),
                gain_mm_per_mv=float(arrays["gain_mm_per_mv"]),
                speed_source=kept["paper_speed_source"],
                gain_source=kept["gain_source"],
            ),
        )
    quality = Quality(
        coverage={Lead(name): share for name, share in kept["coverage"].items()},
        confidence={Lead(name): share for name, share in kept["confidence"].items()},
        einthoven_residual_mv=kept["einthoven_residual_mv"],
        layout_score=kept["layout_score"],
        estimated_snr_db=kept["estimated_snr_db"],
        warnings=tuple(kept["warnings"]),
    )
    return record, quality


def report_name(page_number: int) -> str:
    """Return the artefact name of a page's PDF report."""
    return f"page-{page_number}.report.pdf"


def quality_json(digitization: Digitization) -> str:
    """Return the figures a person wants to see beside a page, as JSON."""
    quality, calibration = digitization.quality, digitization.record.calibration
    residual = quality.einthoven_residual_mv
    return json.dumps(
        {
            "coverage": {lead.value: round(share, 4) for lead, share in quality.coverage.items()},
            "confidence": {lead.value: round(share, 4) for lead, share in quality.confidence.items()},
            "einthoven_residual_mv": None if residual is None else round(residual, 4),
            "layout_score": round(quality.layout_score, 4),
            "estimated_snr_db": round(quality.estimated_snr_db, 2),
            "warnings": list(quality.warnings),
            "rhythm": [lead.value for lead in digitization.layout_match.rhythm],
            "paper_speed_mm_per_s": calibration.paper_speed_mm_per_s,
            "paper_speed_source": calibration.speed_source,
            "gain_mm_per_mv": calibration.gain_mm_per_mv,
            "gain_source": calibration.gain_source,
            "weights_sha256": digitization.weights_sha256,
        }
    )


def _mean_coverage(quality: Quality) -> float:
    return sum(quality.coverage.values()) / len(quality.coverage) if quality.coverage else 0.0


def _report(facts: JobFacts, digitization: Digitization) -> bytes:
    return build_report(
        digitization.record,
        digitization.quality,
        facts.context,
        layout_name=digitization.layout_match.layout.name,
        revision=facts.revision,
    )


def _for_destinations(
    facts: JobFacts,
    digitization: Digitization,
    objects: dict[ObjectKind, MadeObject],
    report: bytes,
    doubtful: bool,
    reasons: list[str],
) -> tuple[list[Artefact], list[Delivery]]:
    """Return the messages made and all deliveries; what cannot be made for one destination joins `reasons`."""
    made: list[Artefact] = []
    deliveries: list[Delivery] = []
    number = digitization.page.page_number
    for destination in facts.destinations:
        if isinstance(destination, ObjectDestination):
            wanted = [(Role.WAVEFORM, objects[destination.sop_class])]
            wanted += [(Role(kind), objects[kind]) for kind in destination.also]
            deliveries += [
                _delivery(facts, number, destination, each.name, each.sop_instance_uid, role) for role, each in wanted
            ]
        if not isinstance(destination, ObjectDestination) or isinstance(destination, FolderDestination):
            page = ReadPage(
                number=number,
                record=digitization.record,
                quality=digitization.quality,
                waveform_sop_instance_uid=objects[facts.sop_classes[0]].sop_instance_uid,
                report=report,
            )
            try:
                message, delivery = page_message(facts, page, destination, doubtful=doubtful)
            except DeliveryRefused as error:
                reasons.append(str(error))
                continue
            made.append(message)
            deliveries.append(delivery)
    return made, deliveries


def _delivery(
    facts: JobFacts, number: int, destination: Destination, artefact: str, identifier: str, role: Role
) -> Delivery:
    return Delivery(
        job_id=facts.job_id,
        page_number=number,
        destination=destination.name,
        kind=destination.kind,
        artefact=artefact,
        identifier=identifier,
        role=role,
        revision=facts.revision,
    )


def _hl7_form(destination: Destination) -> Hl7Destination:
    """Return how the message for `destination` is headed: a folder's as for an HL7 destination's defaults."""
    if isinstance(destination, Hl7Destination):
        return destination
    return Hl7Destination(name=destination.name, host="", port=0)
