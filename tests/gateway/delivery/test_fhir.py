"""FHIR as a destination: whatever a server answers, nothing is lost and nothing doubled; errors name elements only."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.delivery.fhir import FhirClient
from gateway.delivery.outbox import Outbox
from gateway.domain.artefact import Role
from gateway.domain.context import StudyContext
from gateway.domain.received import ReceivedObject
from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.errors import DeliveryDeferred, DeliveryRefused, NotReached
from gateway.fhir.bundle import transaction
from gateway.intake.accept import Intake
from gateway.settings import FhirDestination
from gateway.spool.folder import Spool
from gateway.store.jobs import JobResult
from gateway.store.store import Store
from gateway.store.tables import Delivery
from tests.fhir_server import Answer, FhirServer, counts
from tests.gateway.delivery.destinations import kind
from tests.gateway.dicom.samples import make_page
from tests.waiting import PATIENCE_S, eventually

ONE_OF_EACH = {
    "Patient": 1,
    "Device": 1,
    "DiagnosticReport": 1,
    "Observation": 2,
    "DocumentReference": 1,
    "Provenance": 1,
}
QUICK = {"first_s": 0.01, "maximum_s": 0.05, "attempts": 6}
OUTCOME = {
    "resourceType": "OperationOutcome",
    "issue": [
        {
            "severity": "error",
            "code": "structure",
            "expression": ["Bundle.entry[3].resource.component[2].valueSampledData.data"],
            "diagnostics": "Muster Zoë P-1001 is not allowed",
        },
        {"severity": "error", "code": "P-1001 Muster", "expression": ["Patient.where(id='P-1001')"]},
        {"severity": "information", "code": "informational", "expression": ["Patient.name"]},
    ],
}


@pytest.fixture
def server() -> Iterator[FhirServer]:
    server = FhirServer()
    yield server
    server.close()


def destination(server: FhirServer, **changes: Any) -> FhirDestination:
    given = {
        "name": "fhir",
        "url": server.url,
        "patient_system": "urn:oid:1.2.3",
        "patient_systems": {"HOSP": "https://hosp.example/patients"},
        "patient": "create",
        "timeout_s": PATIENCE_S,
        "retry": QUICK,
    }
    return FhirDestination.model_validate(given | changes)


def bundle(destination: FhirDestination, **changes: object) -> bytes:
    page = make_page(report_pdf=b"%PDF", **changes)
    return transaction(page, destination, "C" if page.revision else "F" if page.final else "P")


@pytest.mark.parametrize("ids", ["server", "gateway"])
def test_a_repeat_doubles_nothing_and_a_correction_takes_the_place(server: FhirServer, ids: str) -> None:
    there = destination(server, ids=ids)
    client = FhirClient(there)
    assert [client.send(bundle(there)) for _ in range(2)] == ["200", "200"]
    assert counts(server) == ONE_OF_EACH
    named = {each["id"] for each in server.resources["Observation"]}
    client.send(bundle(there, final=True))
    client.send(bundle(there, final=True, revision=1))
    assert counts(server) == ONE_OF_EACH | {"Provenance": 3}
    assert {each["id"] for each in server.resources["Observation"]} == named
    assert [each["status"] for each in server.resources["DiagnosticReport"]] == ["corrected"]
    report = server.resources["DiagnosticReport"][0]
    assert report["subject"]["reference"] == f"Patient/{server.resources['Patient'][0]['id']}"


def test_the_patient_must_be_there_where_the_site_says_so(server: FhirServer) -> None:
    there = destination(server, patient="existing")
    with pytest.raises(DeliveryRefused, match="HTTP status 400: not-found"):
        FhirClient(there).send(bundle(there))
    assert counts(server).get("Observation", 0) == 0
    server.resources["Patient"] = [
        {"id": "p", "identifier": [{"system": "https://hosp.example/patients", "value": "P-1001"}]}
    ]
    assert FhirClient(there).send(bundle(there)) == "200"
    assert server.resources["Observation"][0]["subject"] == {"reference": "Patient/p"}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(409), DeliveryDeferred),
        (Answer(412), DeliveryRefused),
        (Answer(429, Retry_After="7"), NotReached),
        (Answer(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"), NotReached),
        (Answer(500, acts=True), DeliveryDeferred),
        (Answer(200, b"<html>", acts=True), DeliveryDeferred),
        (Answer(200, b"", acts=True, cut=True), DeliveryDeferred),
        (Answer(200, {"resourceType": "Bundle", "entry": []}, acts=True), DeliveryDeferred),
        (Answer(200, {"resourceType": "Bundle", "entry": [{"response": {"status": "409"}}]}), DeliveryDeferred),
        (Answer(200, {"resourceType": "Bundle", "entry": ["?"]}), DeliveryDeferred),
        (Answer(200, b"[]"), DeliveryDeferred),
        (Answer(0), DeliveryDeferred),  # nothing, before it acts
        (Answer(0, acts=True), DeliveryDeferred),  # and after
        (Answer(302, Location="/elsewhere"), DeliveryDeferred),
        (Answer(401), DeliveryDeferred),
        (Answer(404), DeliveryDeferred),
        (Answer(413), DeliveryRefused),
        (Answer(422, OUTCOME), DeliveryRefused),
        (Answer(400, b"\xff"), DeliveryRefused),
    ],
    ids=lambda each: f"{each.status}" if isinstance(each, Answer) else each.__name__,
)
def test_what_an_answer_means(server: FhirServer, answer: Answer, error: type[Exception]) -> None:
    there = destination(server)
    server.script = [answer]
    with pytest.raises(error) as raised:
        FhirClient(there).send(bundle(there))
    assert type(raised.value) is error
    assert getattr(raised.value, "wait_s", 0.0) == (7.0 if answer.status == 429 else 0.0)
    assert FhirClient(there).send(bundle(there)) == "200"
    assert counts(server) == ONE_OF_EACH


def test_a_refusal_names_the_element_and_no_patient(server: FhirServer) -> None:
    there = destination(server)
    server.script = [Answer(422, OUTCOME)]
    with pytest.raises(DeliveryRefused) as refused:
        FhirClient(there).send(bundle(there))
    expected = "fhir: HTTP status 422: structure at Observation.component[2].valueSampledData.data; error"
    assert (str(refused.value), refused.value.response) == (expected, "422")


def test_nothing_is_lost_and_nothing_doubled_by_the_outbox(
    server: FhirServer, store: Store, spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    there = destination(server)
    server.script = [
        Answer(409, OUTCOME),
        Answer(429, Retry_After="0"),
        Answer(500, acts=True),
        Answer(200, acts=True, cut=True),
        Answer(0, acts=True),
    ]
    job_id = finished_job(store, spool, bundle(there))
    outbox = Outbox(store, spool, [kind(there)], random.Random(1), poll_s=0.01)
    outbox.start()
    try:
        eventually(lambda: store.deliveries.of_job(job_id)[0].status == DeliveryStatus.DELIVERED)
        refused = finished_job(store, spool, bundle(there, job_id="another"))
        server.script = [Answer(412, OUTCOME)]
        eventually(lambda: store.deliveries.of_job(refused)[0].status != DeliveryStatus.PENDING)
    finally:
        outbox.stop()
    assert counts(server) == ONE_OF_EACH
    delivery = store.deliveries.of_job(refused)[0]
    assert delivery.status == DeliveryStatus.REFUSED
    trail = " ".join(event.detail for event in store.jobs.events(refused))
    assert "412" in trail and "Observation.component[2].valueSampledData.data" in trail
    for secret in ("Muster", "P-1001", "1970"):
        assert secret not in caplog.text and secret not in trail


def finished_job(store: Store, spool: Spool, data: bytes) -> str:
    """A job whose Bundle waits to be sent."""
    accepted = Intake(spool, store).accept(
        ReceivedObject(
            source="submit",
            source_key=str(hash(data)),
            media_type="image/png",
            data=b"page",
            context=StudyContext(patient_id="P-1001"),
            destinations=None,
            actor="test",
        )
    )
    spool.write_artefact(accepted.job_id, "page-1.fhir.json", data)
    assert store.jobs.claim("w", 60)
    waiting = Delivery(
        job_id=accepted.job_id,
        role=Role.MESSAGE,
        page_number=1,
        destination="fhir",
        kind="fhir",
        artefact="page-1.fhir.json",
    )
    store.jobs.complete(accepted.job_id, "w", JobResult(status=JobStatus.DONE, deliveries=[waiting]))
    return accepted.job_id


def test_a_peer_that_asks_for_time_gets_it_up_to_our_longest_pause(
    server: FhirServer, store: Store, spool: Spool
) -> None:
    there = destination(server, retry=QUICK | {"maximum_s": 3000.0})
    server.script = [Answer(429, Retry_After="2000")]
    job_id = finished_job(store, spool, bundle(there))
    outbox = Outbox(store, spool, [kind(there)], random.Random(1), poll_s=0.01)
    outbox.start()
    try:
        eventually(lambda: store.deliveries.of_job(job_id)[0].attempts == 1)
    finally:
        outbox.stop()
    (delivery,) = store.deliveries.of_job(job_id)
    (event,) = [each for each in store.jobs.events(job_id) if each.action == "DELIVERY_DEFER"]
    assert 1900 < (delivery.next_attempt_at - event.at).total_seconds() < 2100


def oauth2(server: FhirServer, tmp_path: Path) -> dict[str, str]:
    file = tmp_path / "secret"
    file.write_text("s:e c/r\n", encoding="utf-8")
    url = server.url.replace("/fhir", "/token")
    return {"token_url": url, "client_id": "gw", "client_secret_file": str(file), "scope": "system/*.write"}


def test_a_token_is_asked_for_kept_and_renewed_where_it_is_refused(server: FhirServer, tmp_path: Path) -> None:
    server.wants_token = True
    there = destination(server, oauth2=oauth2(server, tmp_path))
    client = FhirClient(there)
    for _ in range(2):
        client.send(bundle(there))
    assert server.tokens == ["token-1"]
    server.tokens.append("of another")  # ours ends
    client.send(bundle(there))
    assert len(server.tokens) == 3
    _, _, headers, body = server.requests[0]
    assert headers["authorization"] == "Basic Z3c6cyUzQWUlMjBjJTJGcg=="  # gw:s%3Ae%20c%2Fr
    assert b"grant_type=client_credentials&scope=system" in body
    assert counts(server) == ONE_OF_EACH


def test_a_token_that_is_not_given_is_no_refusal_of_the_bundle(server: FhirServer, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    there = destination(server, oauth2=oauth2(server, tmp_path) | {"token_url": server.url + "/metadata"})
    with pytest.raises(NotReached, match="token server answers HTTP status 200"):
        FhirClient(there).send(bundle(there))
    there = destination(server, token_file=str(tmp_path / "none"))
    with pytest.raises(NotReached, match="none cannot be read"):
        FhirClient(there).send(bundle(there))


def test_a_bearer_token_is_read_for_every_request(server: FhirServer, tmp_path: Path) -> None:
    server.wants_token, server.tokens = True, ["good"]
    file = tmp_path / "token"
    file.write_text("old", encoding="utf-8")
    there = destination(server, token_file=str(file))
    client = FhirClient(there)
    with pytest.raises(DeliveryDeferred, match="401"):
        client.send(bundle(there))
    file.write_text("good\n", encoding="utf-8")
    assert client.send(bundle(there)) == "200"


def test_the_steps_of_a_check_and_of_a_test(server: FhirServer, tmp_path: Path) -> None:
    server.wants_token = True
    there = destination(server, oauth2=oauth2(server, tmp_path), patient="existing")
    steps = list(kind(there).send_test())
    assert [step.name for step in steps] == ["name", "TCP", "token", "metadata", "transaction", "transaction"]
    assert all(step.ok for step in steps) and "4.0.1" in steps[3].found
    assert server.resources["Patient"][0]["identifier"][0]["value"] == "ECGGW-TEST"


@pytest.mark.parametrize(
    ("change", "name", "found"),
    [
        ({"fhirVersion": "5.0.0"}, "metadata", "5.0.0"),
        ({"rest": []}, "transaction", "does not say"),
        ({"resourceType": "Bundle"}, "metadata", "no CapabilityStatement"),
    ],
)
def test_a_check_says_what_does_not_fit(server: FhirServer, change: dict[str, Any], name: str, found: str) -> None:
    server.statement |= change
    last = list(kind(destination(server)).check())[-1]
    assert (last.name, last.ok) == (name, False) and found in last.found and last.advice


def test_a_test_that_is_refused_says_what_to_do(server: FhirServer) -> None:
    server.script = [Answer(403)]
    last = list(kind(destination(server)).send_test())[-1]
    assert (last.name, last.ok) == ("transaction", False) and "allowed there" in last.advice


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"patient_system": "mrn"}, "must be a URI"),
        ({"url": "http://fhir.example/r4", "token_file": "t"}, "https only"),
        ({"url": "http://fhir.example/r4", "tls": {}}, "https url"),
        ({"url": "https://fhir.example/r4?x"}, r"without user, \? and #"),
        (
            {
                "url": "https://fhir.example/r4",
                "oauth2": {"token_url": "http://other.example/token", "client_id": "a", "client_secret_file": "b"},
            },
            "secret leaves",
        ),
        (
            {
                "token_file": "t",
                "oauth2": {"token_url": "https://other.example/token", "client_id": "a", "client_secret_file": "b"},
            },
            "not both",
        ),
        ({"documents": ["picture"]}, "'report' or 'page'"),
    ],
)
def test_settings_that_cannot_be(server: FhirServer, changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        destination(server, **changes)


def test_what_is_sent_is_one_bundle_that_says_how_it_is_found(server: FhirServer) -> None:
    there = destination(server)
    (made,) = kind(there).artefacts(make_page(final=True, revision=2), {}, ())
    assert made.name == "page-1.fhir.r2.final.fhir.json" and made.result_status == "F"
    report = json.loads(made.data or b"")["entry"][2]["resource"]
    assert report["identifier"][0]["value"] == made.identifier
