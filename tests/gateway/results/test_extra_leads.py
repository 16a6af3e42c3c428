"""A page with more than the twelve leads: all of them leave where the destination takes them, else it is said."""

from __future__ import annotations

from io import BytesIO

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import GeneralECGWaveformStorage, TwelveLeadECGWaveformStorage
from pypdfium2 import PdfDocument

from gateway.domain.artefact import Role, kept_name
from gateway.domain.status import JobStatus
from gateway.intake.accept import Intake
from gateway.settings import DicomDestination
from gateway.spool.folder import Spool
from gateway.store.store import Store
from tests.fake_digitizer import Behaviour
from tests.gateway.results.test_confirmation import EHR, PACS, Bench

ANY = DicomDestination(name="any", host="127.0.0.1", port=104, ae_title="ANY", sop_class="12-lead-or-general")
SAID = "not in the waveform object, which has the twelve leads only: V7, V8, V9"


def waveform(bench: Bench, job_id: str) -> Dataset:
    (delivery,) = [each for each in bench.store.deliveries.of_job(job_id) if each.kind == "dicom"]
    return dcmread(BytesIO(bench.spool.read(job_id, delivery.artefact)))


def message(bench: Bench, job_id: str) -> str:
    (delivery,) = [each for each in bench.store.deliveries.of_job(job_id) if each.kind == "hl7"][-1:]
    return bench.spool.read(job_id, delivery.artefact).decode()


def report(pdf: bytes) -> str:
    with PdfDocument(pdf) as document:
        return str(document[0].get_textpage().get_text_range())


@pytest.mark.parametrize("sop_class", ["12-lead", "12-lead-or-general"])
def test_a_page_of_twelve_leads_is_a_12_lead_object_and_nothing_is_said(
    store: Store, spool: Spool, intake: Intake, sop_class: str
) -> None:
    bench = Bench(store, spool, intake, PACS if sop_class == "12-lead" else ANY, EHR)
    job_id = bench.digitized()
    assert bench.store.jobs.get(job_id).status == JobStatus.DONE
    assert waveform(bench, job_id).SOPClassUID == TwelveLeadECGWaveformStorage
    assert "twelve leads only" not in message(bench, job_id)


def test_leads_that_an_object_leaves_out_are_named_everywhere(store: Store, spool: Spool, intake: Intake) -> None:
    bench = Bench(store, spool, intake, PACS, EHR)
    job_id = bench.digitized(Behaviour.EXTRA)
    job = bench.store.jobs.get(job_id)
    assert (job.status, job.reason) == (JobStatus.NEEDS_REVIEW, SAID)  # and it is sent
    dataset = waveform(bench, job_id)
    assert dataset.SOPClassUID == TwelveLeadECGWaveformStorage
    assert dataset.WaveformSequence[0].NumberOfWaveformChannels == 12
    assert "not in this object of twelve leads: V7, V8, V9" in str(dataset.WaveformAnnotationSequence[0])
    assert SAID in message(bench, job_id)
    assert SAID in report(bench.spool.read(job_id, kept_name(1, Role.REPORT_PDF)))
    bench.confirm(job_id)
    assert SAID in message(bench, job_id)


def test_all_leads_leave_in_a_general_object_where_it_is_taken(store: Store, spool: Spool, intake: Intake) -> None:
    bench = Bench(store, spool, intake, ANY, EHR)
    job_id = bench.digitized(Behaviour.EXTRA)
    assert bench.store.jobs.get(job_id).status == JobStatus.DONE
    dataset = waveform(bench, job_id)
    assert dataset.SOPClassUID == GeneralECGWaveformStorage
    assert dataset.WaveformSequence[0].NumberOfWaveformChannels == 15
    assert "twelve leads only" not in message(bench, job_id) and "15 leads" in message(bench, job_id)
    text = report(bench.spool.read(job_id, kept_name(1, Role.REPORT_PDF)))
    assert text.startswith("15-lead ECG") and "V9" in text
