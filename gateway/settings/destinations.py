"""`[[destinations]]`: where results go; one class for each kind of destination."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from gateway.domain.context import StudyContext
from gateway.settings.section import AeTitle, CharacterSet, Host, Name, Port, Section, is_loopback, matching
from gateway.settings.source.mistakes import rule
from gateway.settings.tls import TlsClientSettings

Hl7Path = Annotated[
    str, matching(r"[A-Z][A-Z0-9]{2}(-[1-9]\d?(\.[1-9]\d?)?)?", "must be a segment or field: PV1, PV1-2 or PV1-3.1")
]
Hl7Template = Annotated[str, matching(r"[^\x00-\x1f]*", "must not hold control characters")]
WebAddress = Annotated[
    str,
    matching(r"https?://[^/?#\s@]+(/[^?#\s]*)?", "must be http(s)://host[:port]/path, without user, ? and #"),
]
Uri = Annotated[str, matching(r"(https?://|urn:)[^\s|]+", "must be a URI: http(s)://..., urn:oid:... or urn:uuid:...")]
HL7_PLACEHOLDERS = frozenset(StudyContext.model_fields) | {
    "message_control_id",
    "result_status",
    "waveform_sop_instance_uid",
}


class RetrySettings(Section):
    """Exponential backoff: first_s, doubled up to maximum_s, each jittered by +-25 %."""

    first_s: float = Field(default=10.0, gt=0)
    maximum_s: float = Field(default=3600.0, gt=0)
    attempts: int = Field(default=50, ge=1)


class DestinationSection(Section):
    """What every destination has."""

    name: Name
    retry: RetrySettings = RetrySettings()


class ObjectDestination(DestinationSection):
    """A destination of DICOM objects, and which it gets."""

    # groups: one for each printed column; or-general: a General ECG where the page has more than the twelve leads
    sop_class: Literal["12-lead", "general", "12-lead-groups", "12-lead-or-general"] = "12-lead"
    also: tuple[Literal["report", "overlay"], ...] = ()  # Encapsulated PDF, Secondary Capture
    rejection_note: bool = True  # a Key Object rejects what a correction replaces


class DicomDestination(ObjectDestination):
    """A PACS that receives waveforms by C-STORE."""

    kind: Literal["dicom"] = "dicom"
    host: Host
    port: Port
    ae_title: AeTitle
    calling_ae_title: AeTitle | None = None  # None: [dicom].ae_title
    storage_commitment: bool = False  # true: delivered when the peer has committed to storage
    commitment_wait_s: float = Field(default=600.0, gt=0)  # for the result, then the request is repeated
    retrieve: Literal["move", "get"] = "move"  # how `pull` fetches from it
    timeout_s: float = Field(default=30.0, gt=0)
    tls: TlsClientSettings | None = None


class _AtUrl:
    """A section whose peer is named by its `url`."""

    url: str

    @property
    def host(self) -> str:
        """The host of `url`."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The port of `url`."""
        return urlsplit(self.url).port or (443 if self.secure else 80)

    @property
    def secure(self) -> bool:
        """Whether `url` is https."""
        return self.url.startswith("https:")


class DicomWebDestination(ObjectDestination, _AtUrl):
    """An archive that receives DICOM objects by STOW-RS, and is queried by QIDO-RS and WADO-RS (PS3.18)."""

    kind: Literal["dicomweb"] = "dicomweb"
    url: WebAddress  # of the service: /studies follows
    token_file: Path | None = None  # holds a bearer token
    username: str = ""
    password_file: Path | None = None  # for basic authentication
    timeout_s: float = Field(default=30.0, gt=0)
    tls: TlsClientSettings | None = None  # of https; None: the system's authorities

    @model_validator(mode="after")
    def _authentication(self) -> DicomWebDestination:
        if bool(self.username) != (self.password_file is not None):
            raise rule("username and password_file go together", "username" if self.username else "password_file")
        if self.token_file and self.password_file:
            raise rule("token_file or password_file, not both", "token_file")
        if not self.secure and self.tls is not None:
            raise rule("tls needs an https url", "url")
        if not self.secure and (self.token_file or self.password_file) and not is_loopback(self.host):
            raise rule("a token or password leaves this machine by https only", "url")
        return self


class Hl7Destination(DestinationSection):
    """An EHR or interface engine that receives ORU^R01 or MDM^T02 over MLLP."""

    kind: Literal["hl7"] = "hl7"
    host: Host
    port: Port
    version: Literal["2.3.1", "2.5", "2.5.1"] = "2.5.1"
    message: Literal["ORU^R01", "MDM^T02"] = "ORU^R01"
    character_set: CharacterSet = "UNICODE UTF-8"
    sending_application: str = "ECGGW"
    sending_facility: str = "HOSPITAL"
    receiving_application: str = "EHR"
    receiving_facility: str = "HOSPITAL"
    report: Literal["none", "embed", "link"] = "none"  # the PDF report: as ED, or as RP to `report_url`
    report_url: Hl7Template = ""
    batch: bool = False  # true: each message in a file and batch of its own (FHS, BHS)
    fields: dict[Hl7Path, Hl7Template] = Field(default={})  # fields that are set or removed last, in this order
    timeout_s: float = Field(default=10.0, gt=0)
    tls: TlsClientSettings | None = None

    @model_validator(mode="after")
    def _templates(self) -> Hl7Destination:
        if self.report == "link" and not self.report_url:
            raise rule("report = 'link' needs report_url", "report")
        for path, template in self.fields.items():
            if path in ("MSH", "MSH-1", "MSH-2", "MSH-10"):
                raise rule(f"{path} cannot be set", "fields", path)
            if "-" not in path and template:
                raise rule('a whole segment can only be removed (= "")', "fields", path)
        templates = {("report_url",): self.report_url} | {("fields", path): text for path, text in self.fields.items()}
        for at, template in templates.items():
            unknown = set(re.findall(r"\{([^{}]*)\}", template)) - HL7_PLACEHOLDERS
            if unknown:
                raise rule(f"has unknown placeholders {sorted(unknown)}", *at)
        return self


class OAuth2Settings(Section):
    """The client credentials grant (RFC 6749 section 4.4): who asks which server for a token."""

    token_url: WebAddress
    client_id: str = Field(min_length=1)
    client_secret_file: Path
    scope: str = ""


class FhirDestination(DestinationSection, _AtUrl):
    """A FHIR R4 server that receives one transaction Bundle a page."""

    kind: Literal["fhir"] = "fhir"
    url: WebAddress  # of the service: /metadata follows
    patient_system: Uri  # of patient IDs without an issuer
    patient_systems: dict[str, Uri] = Field(default={})  # issuer of a patient ID -> system
    # existing: the server must know the patient; create: made where it does not; identifier: named, and not looked up
    patient: Literal["existing", "create", "identifier"] = "existing"
    ids: Literal["server", "gateway"] = "server"  # who names resources; gateway: it must allow to create by update
    documents: tuple[Literal["report", "page"], ...] = ("report",)  # that go along as a DocumentReference
    token_file: Path | None = None  # holds a bearer token
    oauth2: OAuth2Settings | None = None
    timeout_s: float = Field(default=30.0, gt=0)
    tls: TlsClientSettings | None = None  # of https; None: the system's authorities

    @model_validator(mode="after")
    def _authentication(self) -> FhirDestination:
        if self.token_file and self.oauth2:
            raise rule("token_file or oauth2, not both", "token_file")
        if not self.secure and self.tls is not None:
            raise rule("tls needs an https url", "url")
        if not self.secure and (self.token_file or self.oauth2) and not is_loopback(self.host):
            raise rule("a token leaves this machine by https only", "url")
        if self.oauth2 and not self.oauth2.token_url.startswith("https:"):
            if not is_loopback(urlsplit(self.oauth2.token_url).hostname or ""):
                raise rule("a client secret leaves this machine by https only", "oauth2", "token_url")
        return self


class FolderDestination(ObjectDestination):
    """A folder that receives the DICOM objects and the ORU text as files."""

    kind: Literal["folder"] = "folder"
    path: Path
    create: bool = False  # make it where it is missing; else a missing folder may be a share that is not mounted


Destination = Annotated[
    DicomDestination | DicomWebDestination | Hl7Destination | FhirDestination | FolderDestination,
    Field(discriminator="kind"),
]
