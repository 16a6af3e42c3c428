"""FHIR of a job: from preliminary to final to corrected, withdrawn where the page is rejected, and as a download."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle as FhirBundle

from gateway.domain import review
from gateway.domain.review import Verdict
from gateway.domain.status import JobStatus
from gateway.errors import IllegalTransition, NotFound
from gateway.intake.accept import Intake
from gateway.results.decisions import carry_out
from gateway.results.fhir import fhir_bundle
from gateway.settings import FhirDestination
from gateway.spool.folder import Spool
from gateway.store import review as store_review
from gateway.store.review import new_decision
from gateway.store.store import Store
from tests.fake_digitizer import Behaviour
from tests.gateway.results.test_confirmation import EHR, Bench

SERVER = FhirDestination(
    name="fhir", url="http://127.0.0.1/fhir", patient_system="urn:oid:1.2.3", documents=("report", "page")
)


@pytest.fixture
def bench(store: Store, spool: Spool, intake: Intake) -> Bench:
    return Bench(store, spool, intake, SERVER, EHR)


def bundles(bench: Bench, job_id: str) -> list[tuple[str, str, str]]:
    """(status of the report, status in the row, status of the delivery) of every Bundle, in order."""
    found = []
    for delivery in bench.store.deliveries.of_job(job_id):
        if delivery.kind == "fhir":
            data = bench.spool.read(job_id, delivery.artefact)
            FhirBundle.model_validate_json(data)
            report = of_type(data, "DiagnosticReport")
            assert report["identifier"][0]["value"] == delivery.identifier
            found.append((report["status"], delivery.result_status, str(delivery.status)))
    return found


def of_type(data: bytes, kind: str) -> dict[str, Any]:
    return next(e["resource"] for e in json.loads(data)["entry"] if e["resource"]["resourceType"] == kind)


def test_preliminary_then_final_then_corrected(bench: Bench) -> None:
    job_id = bench.digitized()
    bench.deliver(job_id)
    bench.confirm(job_id)
    bench.deliver(job_id)
    bench.store.jobs.retry(job_id, "web")
    assert bench.worker.run_once()
    bench.confirm(job_id)
    assert bundles(bench, job_id) == [
        ("preliminary", "P", "DELIVERED"),
        ("final", "F", "DELIVERED"),
        ("preliminary", "C", "CANCELLED"),  # nobody had confirmed it
        ("corrected", "C", "PENDING"),
    ]
    identifiers = {each.identifier for each in bench.store.deliveries.of_job(job_id) if each.kind == "fhir"}
    assert len(identifiers) == 1


def test_the_final_bundle_has_page_and_report_and_weights(bench: Bench) -> None:
    job_id = bench.digitized()
    bench.confirm(job_id)
    delivery = [each for each in bench.store.deliveries.of_job(job_id) if each.kind == "fhir"][-1]
    sent = json.loads(bench.spool.read(job_id, delivery.artefact))
    types = [entry["resource"]["resourceType"] for entry in sent["entry"]]
    assert types.count("DocumentReference") == 2
    figures = json.loads(bench.store.jobs.pages(job_id)[0].quality_json)["weights_sha256"]
    assert len(sent["entry"][0]["resource"]["version"]) == 1 + len(figures)


def reject(bench: Bench, job_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_review, "UNDO", review.UNDO * 0)
    version = bench.store.review.version(job_id)
    bench.store.review.decide(job_id, version, new_decision(job_id, Verdict.REJECT, "web:a", "no ECG"))
    carry_out(bench.store, bench.spool, bench.settings)
    assert bench.store.jobs.get(job_id).status == JobStatus.CANCELLED


def test_a_page_that_is_rejected_is_withdrawn_where_it_arrived(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = bench.digitized()
    bench.deliver(job_id)
    reject(bench, job_id, monkeypatch)
    assert bundles(bench, job_id) == [("preliminary", "P", "DELIVERED"), ("entered-in-error", "W", "PENDING")]
    (event,) = [each for each in bench.store.jobs.events(job_id) if each.action in ("WITHDRAW", "NOT_TOLD")]
    assert event.action == "WITHDRAW" and "ehr" in event.detail


def test_what_may_have_arrived_is_withdrawn_and_what_never_left_is_not(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = bench.digitized()
    (delivery,) = [each for each in bench.store.deliveries.of_job(job_id) if each.kind == "fhir"]
    bench.store.deliveries.give_up(delivery.id, "no answer in time")  # it may have been carried out
    reject(bench, job_id, monkeypatch)
    assert bundles(bench, job_id)[-1][:2] == ("entered-in-error", "W")


def test_nothing_is_withdrawn_where_nothing_was_sent(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = bench.digitized(Behaviour.DOUBTFUL)
    reject(bench, job_id, monkeypatch)
    assert bundles(bench, job_id) == []


def test_download(bench: Bench) -> None:
    job_id = bench.digitized(Behaviour.DOUBTFUL)

    def download(page_number: int = 1) -> bytes:
        return fhir_bundle(bench.store, bench.spool, bench.settings, job_id, page_number)

    report = of_type(download(), "DiagnosticReport")
    assert report["status"] == "preliminary" and "compare with the paper" in report["conclusion"]
    bench.confirm(job_id)
    FhirBundle.model_validate_json(download())
    report = of_type(download(), "DiagnosticReport")
    assert report["status"] == "final" and "compare" not in report["conclusion"]
    assert download() == download()
    with pytest.raises(NotFound, match="page 2"):
        download(2)
    bench.store.jobs.retry(job_id, "web")
    with pytest.raises(IllegalTransition, match="page 1 has no result"):
        download()


def test_download_of_a_page_whose_patient_is_not_known(bench: Bench) -> None:
    job_id = bench.digitized(patient_id="")
    data = fhir_bundle(bench.store, bench.spool, bench.settings, job_id, 1)
    assert of_type(data, "Observation")["subject"] == {"display": "The patient is not known"}
