"""One frozen, validated tree of settings, read from TOML.  Unknown keys are errors; every default is here.

`load_settings(None)` gives the embedded defaults: a gateway on loopback with no destinations.
"""

from __future__ import annotations

import re
import tomllib
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from gateway.domain.context import StudyContext
from gateway.errors import SettingsError

AeTitle = Annotated[str, Field(min_length=1, max_length=16, pattern=r"^[^\\\x00-\x1f]*[^\\\x00-\x20][^\\\x00-\x1f]*$")]
Port = Annotated[int, Field(ge=0, le=65535)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")]
CharacterSet = Literal[  # HL7 table 0211
    "ASCII",
    "8859/1",
    "8859/2",
    "8859/3",
    "8859/4",
    "8859/5",
    "8859/6",
    "8859/7",
    "8859/8",
    "8859/9",
    "8859/15",
    "ISO IR14",
    "ISO IR87",
    "ISO IR159",
    "GB 18030-2000",
    "KS X 1001",
    "BIG-5",
    "UNICODE",
    "UNICODE UTF-8",
]
LongString = Annotated[str, Field(max_length=53, pattern=r"^[^\\\x00-\x1f\x7f]*$")]  # an LO with room for ", corrected"
SeriesNumber = Annotated[int, Field(ge=0, le=2**31 - 1)]
Hl7Code = Annotated[str, Field(pattern=r"^[^|~\\\x00-\x1f]+$")]  # a CE: code^text^coding system
Hl7Path = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9]{2}(-[1-9]\d?(\.[1-9]\d?)?)?$")]  # "PV1", "PV1-2", "PV1-3.1"
Hl7Template = Annotated[str, Field(pattern=r"^[^\x00-\x1f]*$")]
HL7_PLACEHOLDERS = frozenset(StudyContext.model_fields) | {
    "message_control_id",
    "result_status",
    "waveform_sop_instance_uid",
}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TlsSettings(_Section):
    """One side of a TLS connection (see `gateway.tls`); every file is PEM."""

    profile: Literal["bcp195", "bcp195-modified"] = "bcp195"  # PS3.15 B.12, B.13
    certificate_file: Path | None = None  # ours first, then its chain
    private_key_file: Path | None = None
    private_key_password_file: Path | None = None  # where the key is encrypted
    ca_file: Path | None = None  # whose certificates are trusted


class TlsListenerSettings(TlsSettings):
    """The side that listens.  Without `ca_file` peers need no certificate."""

    certificate_file: Path
    private_key_file: Path


class TlsClientSettings(TlsSettings):
    """The side that connects.  Without `ca_file` the system's authorities are trusted."""

    server_name: str | None = Field(default=None, min_length=1)  # in the server's certificate; None: the host

    @model_validator(mode="after")
    def _pair(self) -> TlsClientSettings:
        if (self.certificate_file is None) != (self.private_key_file is None):
            raise ValueError("certificate_file and private_key_file go together")
        return self


class ReportSettings(_Section):
    """Where a modality listens for our storage commitment reports."""

    host: str | None = None  # None: where it asked from
    port: Port
    tls: TlsClientSettings | None = None


class CallerSettings(_Section):
    """One peer that may send to us.  Empty `hosts` means any address."""

    ae_title: AeTitle
    hosts: tuple[str, ...] = ()  # IP addresses or CIDR networks
    certificate_names: tuple[str, ...] = ()  # one must be in its certificate; empty: any certificate, or none
    commitment: ReportSettings | None = None  # None: it may not ask us to commit

    @field_validator("hosts")
    @classmethod
    def _networks(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        return _checked_networks(hosts)


class DicomTlsSettings(TlsListenerSettings):
    """The C-STORE / C-ECHO SCP's second port, which speaks TLS."""

    port: Port = 2762


class DicomSettings(_Section):
    """The C-STORE / C-ECHO SCP.  No `callers` means every calling AE title is taken."""

    ae_title: AeTitle = "ECGGW"
    host: str = "127.0.0.1"
    port: Port = 11112
    plain: bool = True  # false: `port` is not listened on, only [dicom.tls]
    tls: DicomTlsSettings | None = None
    callers: tuple[CallerSettings, ...] = ()
    maximum_associations: int = Field(default=25, ge=1)
    maximum_connections_per_host: int = Field(default=15, ge=1)
    timeout_s: float = Field(default=30.0, gt=0)
    maximum_object_mib: int = Field(default=512, ge=1)

    @model_validator(mode="after")
    def _listens(self) -> DicomSettings:
        if not self.plain and self.tls is None:
            raise ValueError("plain = false needs [dicom.tls]: nothing would be listened on")
        named = [caller.ae_title for caller in self.callers if caller.certificate_names]
        if named and (self.tls is None or self.tls.ca_file is None):
            raise ValueError(f"certificate_names of {named} need [dicom.tls] with a ca_file")
        return self


class Hl7CodeSettings(_Section):
    """What OBR-4 and OBX-3 of our messages say; code^text^coding system."""

    study: Hl7Code = "11524-6^EKG study^LN"
    dicom_study: Hl7Code = "113014^DICOM Study^DCM"
    waveform: Hl7Code = "WAVEFORM^Waveform SOP Instance UID^99ECGGW"
    heart_rate: Hl7Code = "8867-4^Heart rate^LN"
    report: Hl7Code = "REPORT^ECG report^99ECGGW"
    note: Hl7Code = "NOTE^Note^99ECGGW"
    quality: Hl7Code = "QUALITY^Digitization quality^99ECGGW"
    warning: Hl7Code = "WARNING^Warning^99ECGGW"


class Hl7Settings(_Section):
    """The MLLP listener that patients and orders come in by, and the codes of what goes out."""

    enabled: bool = False
    host: str = "127.0.0.1"
    port: Port = 2575
    tls: TlsListenerSettings | None = None  # None: plain
    hosts: tuple[str, ...] = ()  # IP addresses or CIDR networks that may connect; empty: any
    maximum_connections: int = Field(default=50, ge=1)
    maximum_connections_per_host: int = Field(default=10, ge=1)
    idle_timeout_s: float = Field(default=300.0, gt=0)
    maximum_message_mib: int = Field(default=16, ge=1)
    character_set: CharacterSet = "UNICODE UTF-8"  # of a message whose MSH-18 says nothing
    other_messages: Literal["refuse", "acknowledge"] = "refuse"  # types and events that are not taken
    codes: Hl7CodeSettings = Hl7CodeSettings()

    @field_validator("hosts")
    @classmethod
    def _networks(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        return _checked_networks(hosts)


class LookupSettings(_Section):
    """Whom a folder asks by C-FIND whose a page is: a modality worklist, or an archive's studies."""

    model: Literal["worklist", "study"] = "worklist"
    host: str
    port: Port
    ae_title: AeTitle
    calling_ae_title: AeTitle | None = None  # None: [dicom].ae_title
    timeout_s: float = Field(default=30.0, gt=0)
    tls: TlsClientSettings | None = None


class FolderSettings(_Section):
    """A watched folder.  Identity comes from a sidecar, a file's name or a code on the page, never from a guess."""

    path: Path
    polling: bool = False  # for network shares, where the kernel reports nothing
    settle_s: float = Field(default=2.0, ge=0)
    rescan_s: float = Field(default=30.0, gt=0)
    identity: Literal["sidecar", "filename", "sidecar_or_filename"] = "sidecar"
    filename_pattern: str = ""  # a regular expression with named groups, e.g. (?P<patient_id>\d+)_(?P<study_date>\d{8})
    barcode_pattern: str = ""  # likewise, of a bar code or QR code on the page; empty: codes are not read
    lookup: LookupSettings | None = None  # asked for what accession number or patient ID belong to
    destinations: tuple[Name, ...] | None = None  # None: every destination

    @model_validator(mode="after")
    def _patterns(self) -> FolderSettings:
        if self.identity != "sidecar":
            _check_pattern("filename_pattern", self.filename_pattern)
        if self.barcode_pattern:
            _check_pattern("barcode_pattern", self.barcode_pattern)
        return self


class RetrySettings(_Section):
    """Exponential backoff: first_s, doubled up to maximum_s, each jittered by +-25 %."""

    first_s: float = Field(default=10.0, gt=0)
    maximum_s: float = Field(default=3600.0, gt=0)
    attempts: int = Field(default=50, ge=1)


class _Destination(_Section):
    name: Name
    retry: RetrySettings = RetrySettings()


class ObjectDestination(_Destination):
    """Where DICOM objects go, and which."""

    sop_class: Literal["12-lead", "general", "12-lead-groups"] = "12-lead"  # the last: a group for each printed column
    also: tuple[Literal["report", "overlay"], ...] = ()  # Encapsulated PDF, Secondary Capture
    rejection_note: bool = True  # a Key Object rejects what a correction takes the place of


class DicomDestination(ObjectDestination):
    """A PACS that takes waveforms by C-STORE."""

    kind: Literal["dicom"] = "dicom"
    host: str
    port: Port
    ae_title: AeTitle
    calling_ae_title: AeTitle | None = None  # None: [dicom].ae_title
    storage_commitment: bool = False  # true: delivered when the peer says that it is committed
    commitment_wait_s: float = Field(default=600.0, gt=0)  # for the report, then it is asked again
    retrieve: Literal["move", "get"] = "move"  # how `pull` fetches from it
    timeout_s: float = Field(default=30.0, gt=0)
    tls: TlsClientSettings | None = None


class DicomWebDestination(ObjectDestination):
    """An archive that takes DICOM objects by STOW-RS, and is asked by QIDO-RS and WADO-RS (PS3.18)."""

    kind: Literal["dicomweb"] = "dicomweb"
    url: str = Field(pattern=r"^https?://[^/?#\s@]+(/[^?#\s]*)?$")  # of the service: /studies follows
    token_file: Path | None = None  # holds a bearer token
    username: str = ""
    password_file: Path | None = None  # for basic authentication
    timeout_s: float = Field(default=30.0, gt=0)
    tls: TlsClientSettings | None = None  # of https; None: the system's authorities

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

    @model_validator(mode="after")
    def _authentication(self) -> DicomWebDestination:
        if bool(self.username) != (self.password_file is not None):
            raise ValueError("username and password_file go together")
        if self.token_file and self.password_file:
            raise ValueError("token_file or password_file, not both")
        if not self.secure and self.tls is not None:
            raise ValueError("tls needs an https url")
        if not self.secure and (self.token_file or self.password_file) and not _is_loopback(self.host):
            raise ValueError("a token or password leaves this machine by https only")
        return self


class Hl7Destination(_Destination):
    """An EHR or interface engine that takes ORU^R01 or MDM^T02 over MLLP."""

    kind: Literal["hl7"] = "hl7"
    host: str
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
    fields: dict[Hl7Path, Hl7Template] = {}  # what is set or removed last, in this order
    timeout_s: float = Field(default=10.0, gt=0)
    tls: TlsClientSettings | None = None

    @model_validator(mode="after")
    def _templates(self) -> Hl7Destination:
        if self.report == "link" and not self.report_url:
            raise ValueError("report = 'link' needs report_url")
        for path, template in self.fields.items():
            if path in ("MSH", "MSH-1", "MSH-2", "MSH-10"):
                raise ValueError(f"{path} cannot be set")
            if "-" not in path and template:
                raise ValueError(f'{path} = {template!r}: a whole segment can only be removed (= "")')
        for template in (self.report_url, *self.fields.values()):
            unknown = set(re.findall(r"\{([^{}]*)\}", template)) - HL7_PLACEHOLDERS
            if unknown:
                raise ValueError(f"{template!r} has unknown placeholders {sorted(unknown)}")
        return self


class FolderDestination(ObjectDestination):
    """A folder that receives the DICOM objects and the ORU text as files."""

    kind: Literal["folder"] = "folder"
    path: Path


Destination = Annotated[
    DicomDestination | DicomWebDestination | Hl7Destination | FolderDestination, Field(discriminator="kind")
]


class SeriesSettings(_Section):
    """How one kind of object's series is numbered and described."""

    number: SeriesNumber
    description: LongString


class ObjectSettings(_Section):
    """What the objects that leave say of themselves, whoever they go to: one SOP Instance UID has one content."""

    first_instance_number: SeriesNumber = 1  # of page 1
    heart_rate: bool = True  # measured, annotated where it is certain
    private_creator: LongString = ""  # of a private block with the quality's figures; empty: no such block
    waveform: SeriesSettings = SeriesSettings(number=1, description="12-lead ECG digitized from paper, unconfirmed")
    report: SeriesSettings = SeriesSettings(number=2, description="Report of an ECG digitized from paper")
    overlay: SeriesSettings = SeriesSettings(number=3, description="ECG page with the traces read from it")
    rejection: SeriesSettings = SeriesSettings(number=4, description="Rejected digitizations")


class DigitizerSettings(_Section):
    """Defaults where the page itself does not say."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    paper_speed_mm_per_s: float = Field(default=25.0, gt=0)
    gain_mm_per_mv: float = Field(default=10.0, gt=0)
    layouts: Path | None = None  # None: the layouts shipped with the gateway


class ReviewSettings(_Section):
    """When a result is doubtful, and whether a doubtful one leaves the house."""

    minimum_estimated_snr_db: float = 8.0
    minimum_coverage: float = Field(default=0.8, ge=0, le=1)
    deliver_doubtful: bool = False
    check_print: bool = True  # print that plainly names another patient or order than the record holds the page


class WorkerSettings(_Section):
    """The digitizing process."""

    processes: int = Field(default=1, ge=0)  # started by `serve`; 0 where units of their own run the workers
    lease_s: float = Field(default=60.0, gt=0)
    maximum_attempts: int = Field(default=3, ge=1)
    page_timeout_s: float = Field(default=300.0, gt=0)
    memory_limit_mib: int = Field(default=8192, ge=1024)


class StorageSettings(_Section):
    """Where everything durable lives."""

    path: Path = Path("var")  # holds spool/, and gateway.db where `database` is empty
    database: str = ""  # empty: SQLite in `path`; or postgresql+psycopg://user@host:port/name
    database_password_file: Path | None = None  # holds its password
    minimum_free_mib: int = Field(default=512, ge=0)  # below it nothing is accepted
    retention_days: int = Field(default=30, ge=1)  # of finished jobs' files


class WebSettings(_Section):
    """The admin page.  Patient fields stay hidden unless `show_patient`."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Port = 8080
    show_patient: bool = False


class LogSettings(_Section):
    """How the log looks; it never holds patient data."""

    format: Literal["plain", "json"] = "plain"
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class Settings(_Section):
    """The whole tree."""

    dicom: DicomSettings = DicomSettings()
    hl7: Hl7Settings = Hl7Settings()
    folders: tuple[FolderSettings, ...] = (FolderSettings(path=Path("var/inbox")),)
    destinations: tuple[Destination, ...] = ()
    objects: ObjectSettings = ObjectSettings()
    digitizer: DigitizerSettings = DigitizerSettings()
    review: ReviewSettings = ReviewSettings()
    worker: WorkerSettings = WorkerSettings()
    storage: StorageSettings = StorageSettings()
    web: WebSettings = WebSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _names(self) -> Settings:
        names = [destination.name for destination in self.destinations]
        if len(set(names)) != len(names):
            raise ValueError(f"destination names must differ, got {names}")
        for folder in self.folders:
            unknown = set(folder.destinations or ()) - set(names)
            if unknown:
                raise ValueError(f"folder {folder.path} names unknown destinations {sorted(unknown)}")
        return self


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_pattern(name: str, pattern: str) -> None:
    try:
        groups = re.compile(pattern).groupindex
    except re.error as error:
        raise ValueError(f"{name} {pattern!r} is no regular expression: {error}") from None
    if not {"patient_id", "accession_number"} & set(groups):
        raise ValueError(f"{name} needs a group (?P<patient_id>...) or (?P<accession_number>...)")


def _checked_networks(hosts: tuple[str, ...]) -> tuple[str, ...]:
    for host in hosts:
        ip_network(host, strict=False)
    return hosts


def load_settings(path: Path | None) -> Settings:
    """Read settings from a TOML file; None gives the embedded defaults.

    Raises
    ------
    SettingsError
        The file cannot be read, is no TOML, has an unknown key, or a value breaks its rule; every breach is named.
    """
    if path is None:
        return Settings()
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        breaches = "; ".join(
            f"{'.'.join(str(part) for part in e['loc'])} = {e.get('input')!r}: {e['msg']}" for e in error.errors()
        )
        raise SettingsError(f"{path}: {breaches}") from error
