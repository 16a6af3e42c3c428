"""Bundles: the resources of a page as one transaction for a server, or as a collection to keep.

A transaction may be repeated: a resource is replaced where the server has it, found by an identifier that is derived
from the job (conditional update, FHIR R4 section 3.1.0.4.3), or by an id of ours where the server lets us name
resources.  Device, Provenance and patient are made only where they are not there (conditional create, 3.1.0.8.1).
Same inputs give the same bytes.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Literal

from fhir.resources.R4B.bundle import Bundle
from pydantic import ValidationError

from gateway.domain.digitized_page import DigitizedPage
from gateway.errors import DeliveryRefused, IdentityMissing
from gateway.fhir.resources import PageResult, Resource, ResultStatus, resources
from gateway.fhir.values import (
    TERMINOLOGY,
    URI,
    Json,
    concept,
    identifier,
    instant,
    patient,
    patient_identifier,
    query,
    resource_id,
)
from gateway.settings import FhirDestination

MEDIA_TYPE = "application/fhir+json"
_WITHDRAWN = {"DiagnosticReport": ("status",), "Observation": ("status",), "DocumentReference": ("status", "docStatus")}


def transaction(page: DigitizedPage, destination: FhirDestination, status: ResultStatus) -> bytes:
    """Return what a server is sent for a page: a transaction Bundle as JSON.

    Raises
    ------
    IdentityMissing
        The context has no patient ID.
    DeliveryRefused
        The issuer of the patient ID has no system in the settings, or a value breaks FHIR's rules.
    """
    context = page.context
    if not context.patient_id:
        raise IdentityMissing("no patient ID: the resources would have no subject")
    identified = patient_identifier(context, destination.patient_systems, destination.patient_system)
    if identified is None:
        raise DeliveryRefused(
            f"{destination.name}: the issuer of the patient ID is not in patient_systems: whose number is it?"
        )
    entries: list[Json] = []
    subject: Json
    search = query("identifier", identified["system"], identified["value"])
    match destination.patient:
        case "create":
            own = Resource(id=resource_id("patient", search), content=patient(context, identified), kept="once")
            entries.append(_entry(own, {"method": "POST", "url": "Patient", "ifNoneExist": search}))
            subject = {"reference": own.url}
        case "existing":
            subject = {"reference": f"Patient?{search}"}
        case "identifier":
            subject = {"type": "Patient", "identifier": identified}
    result = PageResult(page=page, subject=subject, status=status, documents=destination.documents)
    entries += [_sent(resource, destination.ids) for resource in resources(result)]
    return _encoded(entries, "transaction", destination.name)


def collection(page: DigitizedPage, status: ResultStatus) -> bytes:
    """Return all resources of a page with its documents, as a Bundle to keep.

    Raises
    ------
    DeliveryRefused
        A value breaks FHIR's rules.
    """
    context = page.context
    entries: list[Json] = []
    subject: Json = {"display": "The patient is not known"}
    if context.patient_id:
        identified = patient_identifier(context, {}, "") or {
            **identifier(context.patient_id, kind="MR"),
            "assigner": {"display": context.issuer_of_patient_id},
        }
        key = (context.issuer_of_patient_id, context.patient_id)
        own = Resource(id=resource_id("patient", *key), content=patient(context, identified))
        entries.append(_entry(own))
        subject = {"reference": own.url}
    result = PageResult(page=page, subject=subject, status=status, documents=("report", "page"))
    entries += [_entry(resource) for resource in resources(result)]
    return _encoded(entries, "collection", "FHIR")


def withdrawal(sent: bytes, at: datetime) -> bytes:
    """Return the transaction that says of all that an earlier one sent: entered in error; `at`: when, aware."""
    bundle: Json = json.loads(sent)
    for entry in bundle["entry"]:
        content = entry["resource"]
        for element in _WITHDRAWN.get(content["resourceType"], ()):
            content[element] = "entered-in-error"
        if content["resourceType"] == "Provenance":
            _tell_withdrawal(entry, at)
    return _encoded(bundle["entry"], "transaction", "FHIR")


def _tell_withdrawal(entry: Json, at: datetime) -> None:
    content = entry["resource"]
    own = Resource(id=resource_id("withdrawal", entry["fullUrl"]), content=content)
    content["meta"]["tag"][0]["code"], entry["fullUrl"] = own.urn, own.url
    content["recorded"] = instant(at)
    content["activity"] = concept(f"{TERMINOLOGY}/v3-DataOperation", "NULLIFY", "nullify")
    if "id" in content:
        content["id"], entry["request"]["url"] = own.id, f"Provenance/{own.id}"
    else:
        entry["request"]["ifNoneExist"] = query("_tag", URI, own.urn)


def _sent(resource: Resource, ids: Literal["server", "gateway"]) -> Json:
    """Return the entry that makes a resource, or replaces it."""
    kind = resource.type
    if ids == "gateway" and kind != "Device":
        content = {"resourceType": kind, "id": resource.id} | resource.content
        named = Resource(id=resource.id, content=content)
        return _entry(named, {"method": "PUT", "url": f"{kind}/{resource.id}"})
    search = query("_tag" if kind == "Provenance" else "identifier", URI, resource.urn)
    if resource.kept == "once":
        return _entry(resource, {"method": "POST", "url": kind, "ifNoneExist": search})
    return _entry(resource, {"method": "PUT", "url": f"{kind}?{search}"})


def _entry(resource: Resource, request: Json | None = None) -> Json:
    return {"fullUrl": resource.url, "resource": resource.content} | ({"request": request} if request else {})


def _encoded(entries: list[Json], kind: str, name: str) -> bytes:
    """Return a Bundle as JSON after fhir.resources has checked it; its error quotes values, and is not passed on."""
    try:
        bundle = Bundle.model_validate({"resourceType": "Bundle", "type": kind, "entry": entries})
    except ValidationError as error:
        places = "; ".join(".".join(map(str, each["loc"])) for each in error.errors()[:3])
        raise DeliveryRefused(f"{name}: the Bundle breaks FHIR's rules at {places}") from None
    return bundle.model_dump_json().encode()
