"""The result of a page in every form; each says in a header, and in its name, how certain it is."""

from __future__ import annotations

import math
from collections.abc import Callable

from fastapi import APIRouter, Response

from gateway.domain.account import ApiScope
from gateway.fhir.bundle import MEDIA_TYPE
from gateway.results.fhir import fhir_bundle
from gateway.results.forms import PageForms, read_form
from gateway.results.kept import read_result
from gateway.web.api.access import TokenAccess
from gateway.web.api.models import ByPersonAnswer, JobId, LeadAnswer, PageNumber, ResultAnswer
from gateway.web.api.problems import answers
from gateway.web.site import Site
from pipeline import heart_rate_per_minute

_HEADER = "ECG-Result"
_HEADERS = {
    _HEADER: {
        "description": "final: a person has confirmed it; preliminary: nobody has; doubtful: it waits for a person.",
        "schema": {"type": "string", "enum": ["final", "preliminary", "doubtful"]},
    }
}
_PROBLEMS = answers(404, 409)
_Form = Callable[[Site, PageForms], bytes]
_FILES: dict[str, tuple[str, _Form, str]] = {
    "result.csv": (
        "text/csv",
        lambda _, forms: forms.csv(),
        "The signals in mV over `time_s`; empty where nothing is known",
    ),
    "result.npz": (
        "application/x-npz",
        lambda _, forms: forms.npz(),
        "The record for numpy: signals, confidence, leads",
    ),
    "result.dcm": ("application/dicom", lambda _, forms: forms.dicom(), "The waveform object that is sent to archives"),
    "report.pdf": ("application/pdf", lambda _, forms: forms.pdf(), "The report"),
    "result.fhir.json": (
        MEDIA_TYPE,
        lambda site, forms: fhir_bundle(site.store, forms.spool, forms.settings, forms.job.id, forms.page.page_number),
        "FHIR R4: the resources of the page as one Bundle",
    ),
}


def routes(site: Site, access: TokenAccess) -> APIRouter:
    """Return the routes of results."""
    router = APIRouter(tags=["Results"], dependencies=[access.needs(ApiScope.RESULTS_READ)])
    path = "/jobs/{job_id}/pages/{number}"

    @router.get(f"{path}/result.json", responses={200: {"headers": _HEADERS}, **_PROBLEMS})
    def result_json(job_id: JobId, number: PageNumber, response: Response) -> ResultAnswer:
        """Return the signals of a page and how well they were read. Scope `results:read`."""
        found, npz = read_form(site.store, site.spool, site.settings, (job_id, number), PageForms.npz)
        response.headers[_HEADER] = found.certainty
        return _result(found, npz)

    for name, (media_type, form, words) in _FILES.items():
        content = {media_type: {"schema": {"type": "object"}}} if media_type == MEDIA_TYPE else {}
        router.add_api_route(
            f"{path}/{name}",
            _file(site, name, form),
            name=name,
            operation_id=name.replace(".", "_") + "_file",
            description=f"{words}. Scope `results:read`.",
            response_class=_response_class(media_type),
            responses={200: {"description": words, "headers": _HEADERS, "content": content}, **_PROBLEMS},
        )
    return router


def _response_class(of: str) -> type[Response]:
    class File(Response):
        media_type = of

    return File


def _file(site: Site, name: str, form: _Form) -> Callable[..., Response]:
    ending = name.partition(".")[2]
    media_type = _FILES[name][0]

    def file(job_id: JobId, number: PageNumber) -> Response:
        where = (job_id, number)
        found, data = read_form(site.store, site.spool, site.settings, where, lambda forms: form(site, forms))
        called = f"{job_id}-page-{number}-{found.certainty}.{ending}"
        headers = {_HEADER: found.certainty, "Content-Disposition": f'attachment; filename="{called}"'}
        return Response(data, media_type=media_type, headers=headers)

    return file


def _result(found: PageForms, npz: bytes) -> ResultAnswer:
    job, page = found.job, found.page
    record, quality = read_result(npz, page.quality_json)
    calibration = record.calibration
    return ResultAnswer(
        job_id=job.id,
        page_number=page.page_number,
        revision=job.revision,
        final=found.certainty == "final",
        needs_review=found.certainty == "doubtful",
        reason=page.reason,
        layout=page.layout,
        sampling_frequency_hz=record.sampling_frequency_hz,
        heart_rate_per_minute=heart_rate_per_minute(record),
        paper_speed_mm_per_s=calibration.paper_speed_mm_per_s,
        paper_speed_source=calibration.speed_source,
        gain_mm_per_mv=calibration.gain_mm_per_mv,
        gain_source=calibration.gain_source,
        estimated_snr_db=quality.estimated_snr_db,
        warnings=list(quality.warnings),
        notes=list(quality.notes),
        by_person=[
            ByPersonAnswer(
                act=part.act.name.lower(),
                lead=part.lead,
                start_s=part.first_sample / record.sampling_frequency_hz,
                end_s=part.stop_sample / record.sampling_frequency_hz,
            )
            for part in record.by_person
        ],
        leads=[
            LeadAnswer(
                lead=lead,
                signal_mv=[None if math.isnan(value) else round(value, 4) for value in signal],
                coverage=quality.coverage.get(lead),
                confidence=quality.confidence.get(lead),
            )
            for lead, signal in zip(record.leads, record.signal_mv.tolist(), strict=True)
        ],
    )
