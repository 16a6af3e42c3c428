"""The settings: a TOML file comes in; one frozen, validated tree goes out, and is handed down as an argument.

An unknown key is an error, and every default is in this room.  The public names of its modules are also exported here,
so that a caller writes `from gateway.settings import X` for whichever section it needs; inside the room, modules import
from each other.
"""

from gateway.settings.destinations import (
    HL7_PLACEHOLDERS,
    Destination,
    DicomDestination,
    DicomWebDestination,
    FolderDestination,
    Hl7Destination,
    ObjectDestination,
    RetrySettings,
)
from gateway.settings.dicom import CallerSettings, DicomSettings, DicomTlsSettings, ReportSettings
from gateway.settings.explain import example_text, to_toml
from gateway.settings.folders import FolderSettings, LookupSettings
from gateway.settings.hl7 import Hl7CodeSettings, Hl7Settings
from gateway.settings.load import Settings, load_settings
from gateway.settings.section import CharacterSet
from gateway.settings.site import (
    DigitizerSettings,
    LogSettings,
    ObjectSettings,
    ReviewSettings,
    SeriesSettings,
    StorageSettings,
    WebSettings,
    WorkerSettings,
)
from gateway.settings.tls import TlsClientSettings, TlsListenerSettings, TlsSettings

__all__ = [
    "HL7_PLACEHOLDERS",
    "CallerSettings",
    "CharacterSet",
    "Destination",
    "DicomDestination",
    "DicomSettings",
    "DicomTlsSettings",
    "DicomWebDestination",
    "DigitizerSettings",
    "FolderDestination",
    "FolderSettings",
    "Hl7CodeSettings",
    "Hl7Destination",
    "Hl7Settings",
    "LogSettings",
    "LookupSettings",
    "ObjectDestination",
    "ObjectSettings",
    "ReportSettings",
    "RetrySettings",
    "ReviewSettings",
    "SeriesSettings",
    "Settings",
    "StorageSettings",
    "TlsClientSettings",
    "TlsListenerSettings",
    "TlsSettings",
    "WebSettings",
    "WorkerSettings",
    "example_text",
    "load_settings",
    "to_toml",
]
