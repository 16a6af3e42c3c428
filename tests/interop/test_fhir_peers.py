"""What an independent FHIR server makes of our Bundles: Medplum's router, which validates them by R4's definitions."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.delivery.fhir import FhirClient
from gateway.errors import DeliveryRefused
from gateway.fhir.bundle import transaction, withdrawal
from gateway.settings import FhirDestination
from tests.gateway.dicom.samples import NOW, make_page
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.interop
NODE = Path(__file__).parent / "node"
KINDS = ("Patient", "Device", "DiagnosticReport", "Observation", "DocumentReference", "Provenance")


@pytest.fixture
def url() -> Iterator[str]:
    node = shutil.which("node")
    if node is None or not (NODE / "node_modules" / "@medplum" / "fhir-router").is_dir():
        pytest.skip(f"@medplum/fhir-router is not installed: npm install --prefix {NODE}")
    server = subprocess.Popen([node, str(NODE / "fhir_server.cjs")], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}/fhir"
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def there(url: str, kind: str) -> list[dict[str, Any]]:
    found = httpx.get(f"{url}/{kind}", timeout=PATIENCE_S).json()
    return [entry["resource"] for entry in found.get("entry", [])]


@pytest.mark.parametrize("ids", ["server", "gateway"])
def test_each_resource_is_there_once_whatever_is_sent_again(url: str, ids: str) -> None:
    given = {"name": "fhir", "url": url, "patient_system": "urn:oid:1.2.3", "ids": ids, "timeout_s": PATIENCE_S}
    more = {"patient_systems": {"HOSP": "https://hosp.example/patients"}, "documents": ("report", "page")}
    destination = FhirDestination.model_validate(given | more | {"patient": "create"})
    client = FhirClient(destination)

    def sent(status: Any, **changes: object) -> bytes:
        page = make_page(report_pdf=b"%PDF", page_png=b"PNG", weights_sha256={"page": "ab" * 32}, **changes)
        return transaction(page, destination, status)

    for bundle in (
        sent("P"),
        sent("P"),
        sent("F", final=True),
        sent("C", final=True, revision=1),
        sent("C", final=True, revision=1),
    ):
        assert client.send(bundle) == "200"
    expected = Counter(Patient=1, Device=1, DiagnosticReport=1, Observation=2, DocumentReference=2, Provenance=3)
    assert Counter({kind: len(there(url, kind)) for kind in KINDS}) == expected
    (report,), (patient,) = there(url, "DiagnosticReport"), there(url, "Patient")
    assert report["status"] == "corrected"
    observations = there(url, "Observation")
    assert {f"Observation/{each['id']}" for each in observations} == {each["reference"] for each in report["result"]}
    assert {each["subject"]["reference"] for each in (report, *observations)} == {f"Patient/{patient['id']}"}
    assert client.send(withdrawal(sent("C", final=True, revision=1), NOW)) == "200"
    assert {each["status"] for each in there(url, "Observation")} == {"entered-in-error"}
    assert Counter({kind: len(there(url, kind)) for kind in KINDS}) == expected + Counter(Provenance=1)


def test_an_element_that_it_refuses_is_named(url: str) -> None:
    destination = FhirDestination(name="fhir", url=url, patient_system="urn:oid:1.2.3", patient="create")
    page = make_page(context=make_page().context.model_copy(update={"issuer_of_patient_id": ""}))
    bundle = json.loads(transaction(page, destination, "P"))
    bundle["entry"][2]["resource"]["status"] = "done"
    bundle["entry"][2]["resource"].pop("code")
    with pytest.raises(DeliveryRefused, match=r"HTTP status 400: .* at DiagnosticReport\.code"):
        FhirClient(destination).send(json.dumps(bundle).encode())
