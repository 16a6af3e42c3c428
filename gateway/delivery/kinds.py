"""The one place where a destination's settings become its kind."""

from __future__ import annotations

from typing import assert_never

from gateway.delivery.dicom import DicomKind
from gateway.delivery.dicomweb import DicomWebKind
from gateway.delivery.fhir import FhirKind
from gateway.delivery.folder import FolderKind
from gateway.delivery.hl7 import Hl7Kind
from gateway.delivery.kind import Kind
from gateway.errors import SettingsError
from gateway.settings import (
    Destination,
    DicomDestination,
    DicomWebDestination,
    FhirDestination,
    FolderDestination,
    Hl7Destination,
    Settings,
)


def kind_of(destination: Destination, settings: Settings) -> Kind:
    """Return what sends to a destination; nothing is connected yet."""
    match destination:
        case DicomDestination():
            return DicomKind(destination, settings.dicom)
        case DicomWebDestination():
            return DicomWebKind(destination)
        case Hl7Destination():
            return Hl7Kind(destination, settings.hl7.codes)
        case FhirDestination():
            return FhirKind(destination)
        case FolderDestination():
            return FolderKind(destination, settings.hl7.codes)
        case _:
            assert_never(destination)


def kind_named(name: str, settings: Settings) -> Kind:
    """Return the destination of that name; raise SettingsError where there is none."""
    for destination in settings.destinations:
        if destination.name == name:
            return kind_of(destination, settings)
    raise SettingsError(f"no destination is named {name}")
