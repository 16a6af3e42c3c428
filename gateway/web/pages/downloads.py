"""What a page became, as files to take away: waveform object, report, overlay, signals, messages."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
from fastapi import APIRouter, Response
from starlette.exceptions import HTTPException

from gateway.delivery.hl7 import message_about
from gateway.domain.artefact import Role, kept_name
from gateway.domain.recorded import believable
from gateway.errors import DeliveryRefused
from gateway.fhir.bundle import MEDIA_TYPE
from gateway.results.confirmation import kept_page, known_context
from gateway.results.fhir import fhir_bundle
from gateway.results.forms import PageForms, read_form
from gateway.results.kept import read_printed, read_result
from gateway.results.page import job_facts
from gateway.settings import Hl7Destination
from gateway.web.access import CurrentUser
from gateway.web.forms import Number
from gateway.web.pages.job import check_opens
from gateway.web.pages.words import DOWNLOADS
from gateway.web.site import Site


def routes(site: Site) -> APIRouter:
    """Return the routes of a page's files; a reviewer takes away what names the patient."""
    router = APIRouter()

    @router.get("/jobs/{job_id}/pages/{number}/download/{name}")
    def download(job_id: str, number: Number, name: str, user: CurrentUser) -> Response:
        check_opens(user)
        if name not in DOWNLOADS:
            raise HTTPException(404, f"There is no download {name[:40]}: there are {', '.join(DOWNLOADS)}.")
        media_type, made = _MADE[name]
        try:
            _, data = read_form(
                site.store, site.spool, site.settings, (job_id, number), lambda forms: made(site, forms)
            )
        except DeliveryRefused as error:
            raise HTTPException(404, f"It cannot be made: {error}.") from None
        headers = {"Content-Disposition": f'attachment; filename="{job_id[:8]}-page-{number}-{name}"'}
        return Response(data, media_type=media_type, headers=headers)

    return router


def _overlay(_site: Site, forms: PageForms) -> bytes:
    data = forms.spool.read(forms.job.id, kept_name(forms.page.page_number, Role.OVERLAY_PICTURE))
    if data is None:
        raise HTTPException(404, "There is no such picture.")
    return data


def _json(_site: Site, forms: PageForms) -> bytes:
    """Return figures and signals, without the patient; what was not printed or not readable is null."""
    record, _ = read_result(forms.npz(), forms.page.quality_json)
    page = forms.page
    signals = {
        lead.value: [None if np.isnan(value) else round(float(value), 4) for value in record.signal_mv[row]]
        for row, lead in enumerate(record.leads)
    }
    result = {
        "job": forms.job.id,
        "page": page.page_number,
        "certainty": forms.certainty,
        "revision": forms.job.revision,
        "reason": page.reason,
        "layout": page.layout,
        "estimated_snr_db": page.estimated_snr_db,
        "coverage": page.coverage,
        "quality": json.loads(page.quality_json),
        "waveform_sop_instance_uid": page.waveform_sop_instance_uid,
        "sampling_frequency_hz": record.sampling_frequency_hz,
        "signal_mv": signals,
    }
    return json.dumps(result, allow_nan=False).encode()


def _message(_site: Site, forms: PageForms) -> bytes:
    """Return the result as ORU^R01, headed as a destination's default; it is not the one that was sent."""
    facts = job_facts(forms.job, known_context(forms.job, forms.spool), forms.settings)
    printed = believable(read_printed(forms.page.quality_json), facts.context, forms.job.created_at)
    page = kept_page(facts, forms.spool, forms.page, printed, final=bool(forms.job.confirmed_by))
    destination = Hl7Destination(name="download", host="localhost", port=0)
    message = message_about(page, destination, forms.settings.hl7.codes, [])
    assert message.data is not None
    return message.data


def _bundle(site: Site, forms: PageForms) -> bytes:
    return fhir_bundle(site.store, site.spool, site.settings, forms.job.id, forms.page.page_number)


_MADE: dict[str, tuple[str, Callable[[Site, PageForms], bytes]]] = {
    "waveform.dcm": ("application/dicom", lambda _, forms: forms.dicom()),
    "report.pdf": ("application/pdf", lambda _, forms: forms.pdf()),
    "overlay.png": ("image/png", _overlay),
    "signals.csv": ("text/csv; charset=utf-8", lambda _, forms: forms.csv()),
    "result.json": ("application/json", _json),
    "message.hl7": ("x-application/hl7-v2+er7; charset=utf-8", _message),
    "bundle.fhir.json": (MEDIA_TYPE, _bundle),
}
