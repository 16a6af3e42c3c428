"""Bundles: every one validates, the record comes back, and each status, patient and time says what is known."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from fhir.resources.R4B.bundle import Bundle

from gateway.domain.digitized_page import DigitizedPage
from gateway.errors import DeliveryRefused, IdentityMissing
from gateway.fhir.bundle import collection, transaction, withdrawal
from gateway.fhir.values import query
from gateway.settings import FhirDestination
from pipeline import EXTRA_LEADS, LEADS, EcgRecord, Lead
from tests.gateway.dicom.samples import CONTEXT, NOW, make_page, make_record

SERVER = FhirDestination(
    name="fhir",
    url="http://127.0.0.1/fhir",
    patient_system="urn:oid:1.2.3",
    patient_systems={"HOSP": "https://hosp.example/patients"},
    documents=("report", "page"),
)
MDC = {  # ISO/IEEE 11073-10101
    "I": 131329, "II": 131330, "III": 131389, "aVR": 131390, "aVL": 131391, "aVF": 131392,
    "V1": 131331, "V2": 131332, "V3": 131333, "V4": 131334, "V5": 131335, "V6": 131336,
}  # fmt: skip


def page_of(record: EcgRecord | None = None, **changes: object) -> DigitizedPage:
    given: dict[str, object] = {"report_pdf": b"%PDF", "page_png": b"PNG", "weights_sha256": {"page": "ab" * 32}}
    return make_page(record, **(given | changes))


def read(data: bytes) -> dict[str, Any]:
    """The resources of a Bundle that fhir.resources takes, by type, and by code where there are several."""
    Bundle.model_validate_json(data)
    found: dict[str, Any] = {}
    for entry in json.loads(data)["entry"]:
        content = entry["resource"]
        kind = content["resourceType"]
        if kind == "Observation":
            kind = {"131328": "ecg", "8867-4": "rate"}[content["code"]["coding"][0]["code"]]
        if kind == "DocumentReference":
            kind = content["content"][0]["attachment"]["contentType"]
        assert kind not in found
        found[kind] = content | {"request": entry.get("request")}
    return found


def record_in(observation: dict[str, Any]) -> tuple[tuple[Lead, ...], np.ndarray, float]:
    """Leads, millivolts (n_leads, n_samples) and samples a second, as any reader of SampledData gets them."""
    leads, rows, periods = [], [], set()
    for component in observation["component"]:
        data = component["valueSampledData"]
        assert (data["dimensions"], data["origin"]["code"]) == (1, "uV")
        counts = np.array([np.nan if each == "E" else float(each) for each in data["data"].split(" ")])
        rows.append((counts * float(data["factor"]) + float(data["origin"]["value"])) / 1000)
        leads.append(Lead(component["code"]["text"].removeprefix("Lead ")))
        periods.add(float(data["period"]))
    (period_ms,) = periods
    return tuple(leads), np.array(rows), 1000 / period_ms


def odd_record(leads: tuple[Lead, ...] = LEADS) -> EcgRecord:
    """Noise of 3 mV, gaps of every length, leads that are not printed, and the largest swings."""
    rng = np.random.default_rng(1)
    signal = rng.normal(0, 3, (len(leads), 5000)).astype(np.float32)
    signal[2, 100:2600] = signal[3] = signal[4, :1] = signal[4, -1:] = np.nan
    signal[5, :4] = (32.767, -32.768, 0.0004999, -0.0004999)
    return EcgRecord(
        signal_mv=signal,
        confidence=np.ones_like(signal),
        leads=leads,
        sampling_frequency_hz=500.0,
        calibration=make_record().calibration,
    )


@pytest.mark.parametrize("leads", [LEADS, LEADS + EXTRA_LEADS])
def test_the_record_comes_back_within_a_microvolt(leads: tuple[Lead, ...]) -> None:
    record = odd_record(leads)
    found, signal_mv, rate = record_in(read(transaction(page_of(record), SERVER, "P"))["ecg"])
    assert (found, rate) == (leads, 500.0)
    back = signal_mv
    np.testing.assert_array_equal(np.isnan(back), np.isnan(record.signal_mv))
    assert np.nanmax(np.abs(back - record.signal_mv)) < 0.001


def test_leads_and_report_have_the_codes_of_the_standards() -> None:
    found = read(transaction(page_of(), SERVER, "P"))
    codes = {each["code"]["text"]: each["code"]["coding"][0] for each in found["ecg"]["component"]}
    assert {name.removeprefix("Lead "): int(code["code"]) for name, code in codes.items()} == MDC
    assert {code["system"] for code in codes.values()} == {"urn:iso:std:iso:11073:10101"}
    assert [each["code"] for each in found["ecg"]["code"]["coding"]] == ["131328", "34534-8"]
    assert found["DiagnosticReport"]["code"]["coding"][0] == {
        "system": "http://loinc.org", "code": "11524-6", "display": "EKG study",
    }  # fmt: skip
    assert {each["value"] for each in found["Device"]["version"]} >= {"ab" * 32}


@pytest.mark.parametrize(
    ("status", "final", "shown", "document"),
    [
        ("P", False, "preliminary", "preliminary"),
        ("F", True, "final", "final"),
        ("C", True, "corrected", "amended"),
        ("C", False, "preliminary", "preliminary"),  # nobody has confirmed the correction
    ],
)
def test_statuses(status: Any, final: bool, shown: str, document: str) -> None:
    found = read(transaction(page_of(final=final, revision=int(status == "C")), SERVER, status))
    assert {found[each]["status"] for each in ("DiagnosticReport", "ecg", "rate")} == {shown}
    assert {found[each]["docStatus"] for each in ("application/pdf", "image/png")} == {document}
    words = found["DiagnosticReport"]["conclusion"]
    assert ("confirmed by a person" in words) == final and ("corrected" in words) == (status == "C")
    assert ("verifier" in json.dumps(found["Provenance"])) == final


def test_what_is_renewed_keeps_its_identity_and_each_version_has_its_own_provenance() -> None:
    first = read(transaction(page_of(), SERVER, "P"))
    final = read(transaction(page_of(final=True, revision=1), SERVER, "C"))
    assert first.keys() == final.keys()
    requests = {kind: (first[kind]["request"], final[kind]["request"]) for kind in first}
    assert [kind for kind, (one, other) in requests.items() if one != other] == ["Provenance"]
    by_id = SERVER.model_copy(update={"ids": "gateway"})
    named = read(transaction(page_of(), by_id, "P"))
    assert named["ecg"]["request"] == {"method": "PUT", "url": f"Observation/{named['ecg']['id']}"}
    assert named["ecg"]["identifier"][0]["value"] == f"urn:uuid:{named['ecg']['id']}"


def test_the_same_page_gives_the_same_bytes() -> None:
    assert transaction(page_of(), SERVER, "P") == transaction(page_of(), SERVER, "P")
    other_page, other_job = page_of(page_number=2), page_of(job_id="another")
    ids = [read(transaction(each, SERVER, "P"))["ecg"]["identifier"] for each in (page_of(), other_page, other_job)]
    assert len({each[0]["value"] for each in ids}) == 3


def test_what_refers_to_an_entry_stands_in_references_only() -> None:
    """A server puts its own reference wherever it stands: an identifier of that value would find nothing again."""
    bundle = json.loads(transaction(page_of(), SERVER, "P"))
    for entry in bundle["entry"]:
        text = json.dumps(bundle).replace(f'"reference": "{entry["fullUrl"]}"', "")
        assert text.count(entry["fullUrl"]) == 1


def test_a_rate_that_is_not_certain_takes_the_place_of_an_earlier_one() -> None:
    found = read(transaction(page_of(heart_rate_per_minute=None), SERVER, "C"))["rate"]
    assert found["dataAbsentReason"]["coding"][0]["code"] == "unknown" and "valueQuantity" not in found
    quantity = read(transaction(page_of(heart_rate_per_minute=71.6), SERVER, "P"))["rate"]["valueQuantity"]
    assert (quantity["value"], quantity["code"]) == (72, "/min")


@pytest.mark.parametrize(
    ("stated", "zone", "expected"),
    [
        ("20260301093015.5+0130", "", "2026-03-01T09:30:15+01:30"),
        ("202603010930", "-0500", "2026-03-01T09:30:00-05:00"),
        ("2026030109", "-0500", "2026-03-01"),  # no minute is invented
        ("202603", "", "2026-03"),
        ("2026", "", "2026"),
        ("20260230", "", None),
        ("yesterday", "", None),
    ],
)
def test_time_of_recording(stated: str, zone: str, expected: str | None) -> None:
    context = CONTEXT.model_copy(update={"acquisition_date_time": stated, "timezone_offset_from_utc": zone})
    for content in (read(transaction(page_of(context=context), SERVER, "P"))[each] for each in ("ecg", "rate")):
        assert content.get("effectiveDateTime") == expected
        assert ("_effectiveDateTime" in content) == (expected is None)


def test_a_time_without_a_zone_has_that_of_this_machine() -> None:
    found = read(transaction(page_of(), SERVER, "P"))["ecg"]["effectiveDateTime"]
    assert datetime.fromisoformat(found) == datetime(2026, 3, 1, 9, 30).astimezone()


def test_a_time_that_only_the_study_gives_is_said_to_be_so() -> None:
    context = CONTEXT.model_copy(update={"acquisition_date_time": ""})
    assert "not stated" in read(transaction(page_of(context=context), SERVER, "P"))["DiagnosticReport"]["conclusion"]


def test_the_patient_is_named_as_the_site_says() -> None:
    search = query("identifier", "https://hosp.example/patients", "P-1001")
    existing = read(transaction(page_of(), SERVER, "P"))
    assert existing["ecg"]["subject"] == {"reference": f"Patient?{search}"} and "Patient" not in existing
    made = read(transaction(page_of(), SERVER.model_copy(update={"patient": "create"}), "P"))
    assert made["Patient"]["request"] == {"method": "POST", "url": "Patient", "ifNoneExist": search}
    assert made["Patient"]["name"] == [{"family": "Muster", "given": ["Zoë"]}]
    assert (made["Patient"]["birthDate"], made["Patient"]["gender"]) == ("1970-01-02", "female")
    named = read(transaction(page_of(), SERVER.model_copy(update={"patient": "identifier"}), "P"))
    assert named["ecg"]["subject"]["identifier"]["value"] == "P-1001"


def test_whose_number_it_is_must_be_known() -> None:
    without = page_of(context=CONTEXT.model_copy(update={"issuer_of_patient_id": ""}))
    assert "urn%3Aoid%3A1.2.3%7CP-1001" in read(transaction(without, SERVER, "P"))["ecg"]["subject"]["reference"]
    universal = page_of(context=CONTEXT.model_copy(update={"issuer_of_patient_id": "1.2.9"}))
    assert "urn%3Aoid%3A1.2.9%7C" in read(transaction(universal, SERVER, "P"))["ecg"]["subject"]["reference"]
    with pytest.raises(DeliveryRefused, match="patient_systems") as refused:
        transaction(page_of(context=CONTEXT.model_copy(update={"issuer_of_patient_id": "CLINIC"})), SERVER, "P")
    assert "P-1001" not in str(refused.value)
    with pytest.raises(IdentityMissing):
        transaction(page_of(context=CONTEXT.model_copy(update={"patient_id": ""})), SERVER, "P")


@pytest.mark.parametrize("odd", ["a,b", "a|b", "a\\b", "a$b", "a&b=c", "ä b", "+1"])
def test_any_patient_id_is_searched_as_it_is(odd: str) -> None:
    escaped = query("identifier", "urn:x", odd)
    assert all(character not in escaped.partition("=")[2] for character in "&+ |")


@pytest.mark.parametrize("name", ["", "^^^^", "Only", "A^B^C^D^E=山田^太郎", "x" * 200, "a\tb^\x07"])
@pytest.mark.parametrize("sex_and_birth", [("", ""), ("O", "19000229"), ("X", "2026")])
def test_every_identity_validates(name: str, sex_and_birth: tuple[str, str]) -> None:
    sex, birth = sex_and_birth
    changes = {"patient_name": name, "patient_sex": sex, "patient_birth_date": birth, "placer_order_number": " \t"}
    page = page_of(context=CONTEXT.model_copy(update=changes))
    read(transaction(page, SERVER.model_copy(update={"patient": "create"}), "P"))
    read(collection(page, "P"))


def test_a_value_that_breaks_a_rule_is_refused_by_its_place() -> None:
    broken = replace(page_of(), weights_sha256={"page": ""})
    with pytest.raises(DeliveryRefused, match=r"breaks FHIR's rules at entry\.0\.resource"):
        transaction(broken, SERVER, "P")


def test_a_collection_has_everything_and_asks_for_nothing() -> None:
    found = read(collection(page_of(final=True), "F"))
    assert {"Patient", "Device", "DiagnosticReport", "ecg", "rate", "application/pdf", "image/png", "Provenance"} == (
        found.keys()
    )
    assert {each["request"] for each in found.values()} == {None}
    unknown = read(collection(page_of(context=CONTEXT.model_copy(update={"patient_id": ""})), "P"))
    assert unknown["ecg"]["subject"] == {"display": "The patient is not known"}


@pytest.mark.parametrize("ids", ["server", "gateway"])
def test_a_withdrawal_says_that_all_was_entered_in_error(ids: str) -> None:
    sent = transaction(page_of(final=True), SERVER.model_copy(update={"ids": ids}), "F")
    before, after = read(sent), read(withdrawal(sent, NOW))
    for kind in ("DiagnosticReport", "ecg", "rate", "application/pdf", "image/png"):
        assert after[kind]["status"] == "entered-in-error" and after[kind]["request"] == before[kind]["request"]
    assert after["Provenance"]["activity"]["coding"][0]["code"] == "NULLIFY"
    assert after["Provenance"]["request"] != before["Provenance"]["request"]
    assert withdrawal(sent, NOW) == withdrawal(sent, NOW)
