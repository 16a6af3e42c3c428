"""The settings: a TOML file comes in; one frozen, validated tree goes out, and is handed down as an argument.

An unknown key is an error, and every default is in this room.  The public names of its modules are also exported here,
so that a caller writes `from gateway.settings import X` for whichever section it needs; inside the room, modules import
from each other.
"""

from gateway.settings.changes import NEEDS_RESTART, Change, take_up
from gateway.settings.destinations import (
    HL7_PLACEHOLDERS,
    Destination,
    DicomDestination,
    DicomWebDestination,
    FhirDestination,
    FolderDestination,
    Hl7Destination,
    OAuth2Settings,
    ObjectDestination,
    RetrySettings,
)
from gateway.settings.dicom import CallerSettings, DicomSettings, DicomTlsSettings, ReportSettings
from gateway.settings.explain import example_text, explained, to_toml
from gateway.settings.folders import FolderSettings, LookupSettings
from gateway.settings.hl7 import Hl7CodeSettings, Hl7Settings
from gateway.settings.load import Settings, load_settings, unknown_time_zone
from gateway.settings.section import CharacterSet, is_loopback
from gateway.settings.site import (
    AuditSettings,
    DigitizerSettings,
    LogSettings,
    ObjectSettings,
    ReviewSettings,
    SeriesSettings,
    StorageSettings,
    WorkerSettings,
)
from gateway.settings.source.examine import examine
from gateway.settings.source.file import SettingsFile
from gateway.settings.source.mistakes import Mistake
from gateway.settings.source.positions import At
from gateway.settings.tls import TlsClientSettings, TlsListenerSettings, TlsSettings
from gateway.settings.web import OidcSettings, WebSettings

__all__ = [
    "HL7_PLACEHOLDERS",
    "NEEDS_RESTART",
    "At",
    "AuditSettings",
    "CallerSettings",
    "Change",
    "CharacterSet",
    "Destination",
    "DicomDestination",
    "DicomSettings",
    "DicomTlsSettings",
    "DicomWebDestination",
    "DigitizerSettings",
    "FhirDestination",
    "FolderDestination",
    "FolderSettings",
    "Hl7CodeSettings",
    "Hl7Destination",
    "Hl7Settings",
    "LogSettings",
    "LookupSettings",
    "Mistake",
    "OAuth2Settings",
    "ObjectDestination",
    "ObjectSettings",
    "OidcSettings",
    "ReportSettings",
    "RetrySettings",
    "ReviewSettings",
    "SeriesSettings",
    "Settings",
    "SettingsFile",
    "StorageSettings",
    "TlsClientSettings",
    "TlsListenerSettings",
    "TlsSettings",
    "WebSettings",
    "WorkerSettings",
    "examine",
    "example_text",
    "explained",
    "is_loopback",
    "load_settings",
    "take_up",
    "to_toml",
    "unknown_time_zone",
]
