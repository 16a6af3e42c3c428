"""Destinations as the gateway sees them, from their settings alone."""

from __future__ import annotations

from gateway.delivery.kind import Kind
from gateway.delivery.kinds import kind_of
from gateway.settings import Destination, DicomSettings, Settings


def kind(destination: Destination, ae_title: str = "ECGGW") -> Kind:
    """What sends to a destination from a gateway of this AE title."""
    return kind_of(destination, Settings(dicom=DicomSettings(ae_title=ae_title)))
