"""The resources of one page: DiagnosticReport, Observations, DocumentReferences, Device and Provenance (FHIR R4).

The ids are derived from the job, so a repeat, a confirmation and a correction speak of the same resources.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from gateway import __version__
from gateway.dicom.objects.content_checker import LEAD_CODES
from gateway.domain.digitized_page import DigitizedPage
from gateway.domain.recorded import Origin
from gateway.fhir.values import (
    LOINC,
    MDC,
    TERMINOLOGY,
    UCUM,
    URI,
    Json,
    concept,
    effective,
    identifier,
    instant,
    resource_id,
    text,
    uid_identifier,
)
from pipeline import Lead

MDC_ECG_ELEC_POTL = 131328  # the potential of lead n is this + n, n being its code of CID 3001
_MDC_OF_LEAD = {lead: MDC_ECG_ELEC_POTL + int(code.partition(":")[2]) for code, lead in LEAD_CODES.items()}
_UV_PER_MV = 1000.0
Document = Literal["report", "page"]
ResultStatus = Literal["P", "F", "C"]  # HL7 table 0123
_STATUS = {"P": "preliminary", "F": "final", "C": "corrected"}
_DOC_STATUS = {"P": "preliminary", "F": "final", "C": "amended"}
_EKG_STUDY = concept(LOINC, "11524-6", "EKG study")


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Resource:
    """A resource with the id that it has in a Bundle, and how it is found at a server."""

    id: str
    content: Json
    # renewed: one at a time, which is replaced; once: made unless it is there
    kept: Literal["renewed", "once"] = "renewed"

    @property
    def url(self) -> str:
        """What refers to it in a Bundle, and stands nowhere else: servers put their own reference wherever it does."""
        return f"urn:uuid:{resource_id('entry', self.id)}"

    @property
    def urn(self) -> str:
        """The identifier, or tag, that finds it at a server."""
        return f"urn:uuid:{self.id}"

    @property
    def type(self) -> str:
        """Its resource type."""
        return str(self.content["resourceType"])


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class PageResult:
    """What the resources of a page are made of.

    Parameters
    ----------
    subject : dict
        A Reference to the patient.
    status : "P", "F" or "C"
        HL7 table 0123; a correction that nobody has confirmed counts as preliminary.
    documents : sequence of "report" and "page"
        Which go along as a DocumentReference, where the page has them.
    """

    page: DigitizedPage
    subject: Json
    status: ResultStatus
    documents: Sequence[Document]

    @property
    def shown(self) -> ResultStatus:
        """What the statuses say."""
        return self.status if self.page.final else "P"

    def id(self, *parts: str) -> str:
        """Return the id of one of the page's resources."""
        return resource_id(self.page.job_id, str(self.page.page_number), *parts)


def report_url(job_id: str, page_number: int) -> str:
    """Return the identifier of a page's DiagnosticReport, whichever version."""
    return f"urn:uuid:{resource_id(job_id, str(page_number), 'report')}"


def resources(result: PageResult) -> list[Resource]:
    """Return all resources of a page but the patient."""
    device = _device(result.page)
    ecg = _ecg(result, device)
    rate = _heart_rate(result, ecg, device)
    report = _report(result, (ecg, rate))
    about = [report, ecg, rate, *_documents(result, report, device)]
    return [device, *about, _provenance(result, about, device)]


def _sentences(result: PageResult) -> str:
    """Return what a reader must know."""
    page, recorded = result.page, result.page.recorded
    lines = [
        f"Digitized from paper{', corrected' if result.status == 'C' else ''}; "
        f"{'confirmed by a person' if page.final else 'unconfirmed'}"
    ]
    if recorded.origin is not Origin.STATED or recorded.other_print:
        lines.append(f"Time of recording: {recorded.words}")
    return _text_of([*lines, *page.warning_words])


def _text_of(lines: Sequence[str]) -> str:
    """Return sentences as one text."""
    return ". ".join(text(line) for line in lines) + "."


def _report(result: PageResult, results: Sequence[Resource]) -> Resource:
    page, context = result.page, result.page.context
    own = result.id("report")
    return Resource(
        id=own,
        content={
            "resourceType": "DiagnosticReport",
            "identifier": [
                identifier(f"urn:uuid:{own}", URI),
                *([identifier(context.filler_order_number, kind="FILL")] if context.filler_order_number else []),
            ],
            **_based_on(result),
            "status": _STATUS[result.shown],
            "category": [concept(f"{TERMINOLOGY}/v2-0074", "EC", "Electrocardiac (e.g., EKG, EEC, Holter)")],
            "code": _EKG_STUDY | {"text": "ECG digitized from paper"},
            "subject": result.subject,
            **effective(page),
            "issued": instant(page.created_at),
            **({"performer": [{"display": name}]} if (name := text(context.institution_name)) else {}),
            "result": [{"reference": each.url} for each in results],
            "imagingStudy": [{"type": "ImagingStudy", "identifier": uid_identifier(context.study_instance_uid)}],
            "conclusion": _sentences(result),
            **({"presentedForm": [_pdf(page)]} if page.report_pdf else {}),
        },
    )


def _based_on(result: PageResult) -> Json:
    """Return the order, by its numbers: it is the orderer's resource, and not looked up."""
    context = result.page.context
    numbers = {"PLAC": context.placer_order_number, "ACSN": context.accession_number}
    orders = [
        {"type": "ServiceRequest", "identifier": identifier(number, kind=kind)}
        for kind, number in numbers.items()
        if text(number)
    ]
    return {"basedOn": orders} if orders else {}


def _ecg(result: PageResult, device: Resource) -> Resource:
    page, record = result.page, result.page.record
    codings = [
        *concept(MDC, str(MDC_ECG_ELEC_POTL), "MDC_ECG_ELEC_POTL")["coding"],
        *concept(LOINC, "34534-8", "12 lead EKG panel")["coding"],
    ]
    return _observation(
        result,
        "ecg",
        device,
        {
            "category": [concept(f"{TERMINOLOGY}/observation-category", "procedure", "Procedure")],
            "code": {"coding": codings, "text": "ECG"},
            "note": [{"text": text(line)} for line in (*page.quality_words, *page.by_person, *page.warning_words)],
            "component": [
                {
                    "code": _lead_code(lead),
                    "valueSampledData": {
                        "origin": {"value": 0, "unit": "uV", "system": UCUM, "code": "uV"},
                        "period": _number(1000 / record.sampling_frequency_hz),
                        "factor": 1,
                        "dimensions": 1,
                        "data": _samples(row),
                    },
                }
                for lead, row in zip(record.leads, record.signal_mv, strict=True)
            ],
        },
    )


def _lead_code(lead: Lead) -> Json:
    code = _MDC_OF_LEAD.get(lead)
    if code is None:
        return {"text": f"Lead {lead}"}
    return concept(MDC, str(code), f"MDC_ECG_ELEC_POTL_{lead.upper()}") | {"text": f"Lead {lead}"}


def _samples(row_mv: npt.NDArray[np.float32]) -> str:
    """Return the samples of a lead in whole microvolts; "E", error, where nothing is printed."""
    counts = np.rint(row_mv.astype(np.float64) * _UV_PER_MV)
    return " ".join("E" if np.isnan(count) else str(int(count)) for count in counts)


def _number(value: float) -> float | int:
    return int(value) if value == int(value) else value


def _heart_rate(result: PageResult, ecg: Resource, device: Resource) -> Resource:
    """Return the rate; where it is not certain, a rate that is not known takes the place of an earlier one."""
    rate = result.page.heart_rate_per_minute
    value: Json = {"dataAbsentReason": concept(f"{TERMINOLOGY}/data-absent-reason", "unknown", "Unknown")}
    if rate is not None:
        value = {"valueQuantity": {"value": round(rate), "unit": "/min", "system": UCUM, "code": "/min"}}
    return _observation(
        result,
        "heart-rate",
        device,
        {
            "category": [concept(f"{TERMINOLOGY}/observation-category", "vital-signs", "Vital Signs")],
            "code": concept(LOINC, "8867-4", "Heart rate"),
            "method": {"text": "Ventricular rate, measured on the digitized ECG"},
            "derivedFrom": [{"reference": ecg.url}],
            **value,
        },
    )


def _observation(result: PageResult, part: str, device: Resource, content: Json) -> Resource:
    own = result.id(part)
    return Resource(
        id=own,
        content={
            "resourceType": "Observation",
            "identifier": [identifier(f"urn:uuid:{own}", URI)],
            "status": _STATUS[result.shown],
            "subject": result.subject,
            **effective(result.page),
            "issued": instant(result.page.created_at),
            "device": {"reference": device.url},
            **content,
        },
    )


def _documents(result: PageResult, report: Resource, device: Resource) -> list[Resource]:
    page = result.page
    found: list[Resource] = []
    if "report" in result.documents and page.report_pdf:
        found.append(_document(result, "report-document", "Report of the digitized ECG", _pdf(page)))
    if "page" in result.documents and page.page_png:
        picture = _attachment(page.page_png, "image/png", "The page as it was read")
        found.append(_document(result, "page-document", "Page that the ECG was digitized from", picture))
    related: Json = {"related": [{"reference": report.url}]}
    for each in found:
        each.content.update(author=[{"reference": device.url}], context=related)
    return found


def _document(result: PageResult, part: str, description: str, attachment: Json) -> Resource:
    own = result.id(part)
    return Resource(
        id=own,
        content={
            "resourceType": "DocumentReference",
            "identifier": [identifier(f"urn:uuid:{own}", URI)],
            "status": "current",
            "docStatus": _DOC_STATUS[result.shown],
            "type": _EKG_STUDY,
            "subject": result.subject,
            "date": instant(result.page.created_at),
            "description": description,
            "content": [{"attachment": attachment}],
        },
    )


def _pdf(page: DigitizedPage) -> Json:
    return _attachment(page.report_pdf, "application/pdf", "ECG digitized from paper")


def _attachment(data: bytes, media_type: str, title: str) -> Json:
    return {"contentType": media_type, "data": base64.b64encode(data).decode(), "title": title}


def _device(page: DigitizedPage) -> Resource:
    """Return this software with its weights: another version, or other weights, is another device."""
    versions = {"software": __version__} | {
        f"weights of network {name}, SHA-256": value for name, value in sorted(page.weights_sha256.items())
    }
    own = resource_id("device", *(f"{name} {value}" for name, value in versions.items()))
    return Resource(
        id=own,
        kept="once",
        content={
            "resourceType": "Device",
            "identifier": [identifier(f"urn:uuid:{own}", URI)],
            "status": "active",
            "deviceName": [{"name": "ECG gateway", "type": "model-name"}],
            "type": {"text": "Software that digitizes ECGs from paper"},
            "version": [{"type": {"text": name}, "value": value} for name, value in versions.items()],
        },
    )


def _provenance(result: PageResult, about: Sequence[Resource], device: Resource) -> Resource:
    """Return who made this version of the resources; each has its own, told apart by a tag as it has no identifier."""
    page, own = result.page, result.id("provenance", result.page.version)
    agents = [{"type": _participant("assembler"), "who": {"reference": device.url}}]
    if page.final:
        agents.append({"type": _participant("verifier"), "who": {"display": "A person, at the gateway"}})
    source: Json = {}
    if page.context.source_sop_class_uid:  # else it was no DICOM object, and its UID is ours
        what = {"identifier": uid_identifier(page.context.source_sop_instance_uid), "display": "Page as received"}
        source = {"entity": [{"role": "source", "what": what}]}
    return Resource(
        id=own,
        kept="once",
        content={
            "resourceType": "Provenance",
            "meta": {"tag": [{"system": URI, "code": f"urn:uuid:{own}"}]},
            "target": [{"reference": each.url} for each in about],
            "recorded": instant(page.created_at),
            "agent": agents,
            **source,
        },
    )


def _participant(code: str) -> Json:
    return concept(f"{TERMINOLOGY}/provenance-participant-type", code, code.capitalize())
