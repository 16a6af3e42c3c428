"""What one digitized page becomes: its row, its files, and who gets them.

A page that was read gives a waveform object (one per SOP class asked for), an ORU^R01 for each HL7 destination, and the
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

from gateway.dicom.uids import derived_uid
from gateway.dicom.waveform import SopClass, build_waveform, encode
from gateway.errors import DeliveryRefused
from gateway.hl7.messages import build_oru, message_control_id
from gateway.models import Delivery, Job, JobStatus, Page, StudyContext
from gateway.settings import Destination, DicomDestination, Hl7Destination, ReviewSettings, Settings
from pipeline import Digitization, EcgRecord, Quality

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

    @property
    def sop_classes(self) -> tuple[SopClass, ...]:
        """SOP classes to build, the one that ORUs refer to first; 12-Lead where no PACS says otherwise."""
        asked = [d.sop_class for d in self.destinations if isinstance(d, DicomDestination)]
        return tuple(dict.fromkeys(asked)) or ("12-lead",)


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


def job_facts(job: Job, context: StudyContext, settings: Settings) -> JobFacts:
    """Return what holds for every page of `job`; the UIDs its source does not have are derived from the job."""
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
    )


def failed_page(facts: JobFacts, page_number: int, reason: str, seconds: float, page_png: bytes) -> PageResult:
    """Return the result of a page that could not be read; `reason` says why, in words, and the picture is kept."""
    page = Page(
        job_id=facts.job_id, page_number=page_number, status=JobStatus.FAILED, reason=reason, seconds=round(seconds, 3)
    )
    return PageResult(page=page, artefacts=(Artefact(name=f"page-{page_number}.png", data=page_png),))


def page_result(
    facts: JobFacts, digitization: Digitization, pictures: tuple[bytes, bytes], seconds: float
) -> PageResult:
    """Return what a page that was read becomes.

    Parameters
    ----------
    pictures
        The page, and the recovered traces drawn over it, as PNG files.
    seconds
        How long the digitization took.
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
    uid = ""
    if facts.context.patient_id:  # a waveform that is nobody's is not made
        try:
            waveforms = _waveforms(facts, digitization)
        except ValueError as error:
            reasons.append(f"no waveform object can be made: {error}")
        else:
            uid = waveforms[facts.sop_classes[0]][0]
            artefacts += [artefact for _, artefact in waveforms.values()]
            made, deliveries = _for_destinations(facts, digitization, waveforms, doubtful, reasons)
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
    leaves = not doubtful or facts.review.deliver_doubtful
    return PageResult(page=page, artefacts=tuple(artefacts), deliveries=tuple(deliveries) if leaves else ())


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


def _waveforms(facts: JobFacts, digitization: Digitization) -> dict[SopClass, tuple[str, Artefact]]:
    """Return SOP Instance UID and file of the waveform in every SOP class asked for."""
    waveforms: dict[SopClass, tuple[str, Artefact]] = {}
    number = digitization.page.page_number
    for sop_class in facts.sop_classes:
        dataset = build_waveform(
            digitization.record,
            digitization.quality,
            facts.context,
            page_number=number,
            layout_name=digitization.layout_match.layout.name,
            sop_class=sop_class,
            created_at=facts.created_at,
        )
        artefact = Artefact(name=f"page-{number}.{sop_class}.dcm", data=encode(dataset))
        waveforms[sop_class] = str(dataset.SOPInstanceUID), artefact
    return waveforms


def _for_destinations(
    facts: JobFacts,
    digitization: Digitization,
    waveforms: dict[SopClass, tuple[str, Artefact]],
    doubtful: bool,
    reasons: list[str],
) -> tuple[list[Artefact], list[Delivery]]:
    """Return the messages made and all deliveries; what cannot be made for one destination joins `reasons`."""
    made: list[Artefact] = []
    deliveries: list[Delivery] = []
    for destination in facts.destinations:
        sop_class = destination.sop_class if isinstance(destination, DicomDestination) else facts.sop_classes[0]
        uid, waveform = waveforms[sop_class]
        if not isinstance(destination, Hl7Destination):  # a folder gets both, waveform and message
            deliveries.append(_delivery(facts, digitization, destination, waveform.name, uid))
        if not isinstance(destination, DicomDestination):
            control_id = message_control_id(facts.job_id, digitization.page.page_number, destination.name)
            try:
                message = _message(facts, digitization, destination, uid, control_id, doubtful)
            except DeliveryRefused as error:
                reasons.append(str(error))
                continue
            made.append(message)
            deliveries.append(_delivery(facts, digitization, destination, message.name, control_id))
    return made, deliveries


def _delivery(
    facts: JobFacts, digitization: Digitization, destination: Destination, artefact: str, identifier: str
) -> Delivery:
    return Delivery(
        job_id=facts.job_id,
        page_number=digitization.page.page_number,
        destination=destination.name,
        kind=destination.kind,
        artefact=artefact,
        identifier=identifier,
    )


def _message(
    facts: JobFacts, digitization: Digitization, destination: Destination, uid: str, control_id: str, doubtful: bool
) -> Artefact:
    message = build_oru(
        record=digitization.record,
        quality=digitization.quality,
        context=facts.context,
        study_instance_uid=facts.context.study_instance_uid,
        waveform_sop_instance_uid=uid,
        message_control_id=control_id,
        destination=_hl7_form(destination),
        doubtful=doubtful,
        created_at=facts.created_at,
    )
    return Artefact(name=f"page-{digitization.page.page_number}.{destination.name}.hl7", data=message)


def _hl7_form(destination: Destination) -> Hl7Destination:
    """Return how the message for `destination` is headed: a folder's as for an HL7 destination's defaults."""
    if isinstance(destination, Hl7Destination):
        return destination
    return Hl7Destination(name=destination.name, host="", port=0)
