"""What a site decides about its results and its machine: from the objects that are sent to the log."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, field_validator, model_validator

from gateway.settings.section import Host, Port, Section, matching
from gateway.settings.source.mistakes import rule
from gateway.settings.tls import TlsClientSettings

LongString = Annotated[str, Field(max_length=53, pattern=r"^[^\\\x00-\x1f\x7f]*$")]  # an LO with room for ", corrected"
SeriesNumber = Annotated[int, Field(ge=0, le=2**31 - 1)]


class SeriesSettings(Section):
    """How one kind of object's series is numbered and described."""

    number: SeriesNumber
    description: LongString


class ObjectSettings(Section):
    """What the created objects state about themselves; the same for every destination, as one UID has one content."""

    first_instance_number: SeriesNumber = 1  # of page 1
    heart_rate: bool = True  # measured, annotated where it is certain
    private_creator: LongString = ""  # of a private block with the quality's figures; empty: no such block
    waveform: SeriesSettings = SeriesSettings(number=1, description="12-lead ECG digitized from paper, unconfirmed")
    report: SeriesSettings = SeriesSettings(number=2, description="Report of an ECG digitized from paper")
    overlay: SeriesSettings = SeriesSettings(number=3, description="ECG page with the traces read from it")
    rejection: SeriesSettings = SeriesSettings(number=4, description="Rejected digitizations")


class DigitizerSettings(Section):
    """The digitizer, and its defaults for a page that does not state them."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    paper_speed_mm_per_s: float = Field(default=25.0, gt=0)
    gain_mm_per_mv: float = Field(default=10.0, gt=0)
    layouts: Path | None = None  # None: the layouts shipped with the gateway


class ReviewSettings(Section):
    """When a result is doubtful, and whether a doubtful result is delivered."""

    minimum_estimated_snr_db: float = 10.0
    minimum_coverage: float = Field(default=0.8, ge=0, le=1)
    deliver_doubtful: bool = False
    rejections: tuple[Annotated[str, Field(min_length=1, max_length=80)], ...] = (
        "not an ECG",
        "not readable",
        "a part of the ECG is missing",
        "the wrong page was scanned",
        "scanned twice",
    )  # the reasons that a reviewer chooses from
    check_print: bool = True  # a page that prints another patient or order than its record is held
    undated: Literal["review", "receipt"] = "review"  # held, or dated when it was received, where no date is known


class WorkerSettings(Section):
    """The digitizing process."""

    processes: int = Field(default=1, ge=0)  # started by `serve`; 0 where separate units run the workers
    lease_s: float = Field(default=60.0, gt=0)
    maximum_attempts: int = Field(default=3, ge=1)
    page_timeout_s: float = Field(default=300.0, gt=0)
    memory_limit_mib: int = Field(default=8192, ge=1024)


class StorageSettings(Section):
    """Where everything durable lives."""

    path: Path = Path("var")  # holds spool/, and gateway.db where `database` is empty
    database: str = ""  # empty: SQLite in `path`; or postgresql+psycopg://user@host:port/name
    database_password_file: Path | None = None  # holds its password
    spool: Annotated[
        str,
        matching(
            r"|s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9][A-Za-z0-9._-]*)*",
            "must be empty or s3://BUCKET or s3://BUCKET/PREFIX, without a slash at the end",
        ),
    ] = ""  # empty: the folder spool/ in `path`
    spool_endpoint: str = ""  # of the object store; empty: that of Amazon
    spool_region: str = ""
    spool_credentials_file: Path | None = None  # None: what the environment says
    spool_ca_file: Path | None = None  # PEM; whose certificates are trusted; None: the system's
    node: str = ""  # of those who share the database; "@hostname": as this machine
    minimum_free_mib: int = Field(default=512, ge=0)  # with less free space, nothing is accepted
    retention_days: int = Field(default=30, ge=1)  # of finished jobs' files, and of done/ in watched folders
    purge_below_mib: int | None = Field(default=None, ge=0)  # free space; None: 2 * minimum_free_mib
    purge_until_mib: int | None = Field(default=None, ge=0)  # None: 2 * purge_below_mib
    quarantine_days: int | None = Field(default=None, ge=1)  # None: what is in quarantine is never deleted

    @property
    def purge_marks_mib(self) -> tuple[int, int]:
        """The free space below which files of finished jobs are deleted before their time, and until which."""
        below = 2 * self.minimum_free_mib if self.purge_below_mib is None else self.purge_below_mib
        return below, 2 * below if self.purge_until_mib is None else self.purge_until_mib

    @model_validator(mode="after")
    def _marks(self) -> StorageSettings:
        below, until = self.purge_marks_mib
        if not self.minimum_free_mib <= below <= until:
            raise rule(
                f"minimum_free_mib = {self.minimum_free_mib}, purge_below_mib = {below}, purge_until_mib = {until}: "
                "none may be less than the one before it",
                "purge_below_mib" if below < self.minimum_free_mib else "purge_until_mib",
            )
        return self

    @model_validator(mode="after")
    def _shared(self) -> StorageSettings:
        if self.node and not self.database:
            raise rule(
                f"node = '{self.node}': several machines share a PostgreSQL database, and database is empty", "node"
            )
        return self

    @field_validator("node")
    @classmethod
    def _name(cls, node: str) -> str:
        name = socket.gethostname() if node == "@hostname" else node
        if re.fullmatch(r"[A-Za-z0-9._-]{0,63}", name) is None:
            found = f"; the host name is '{name}'" if name != node else ""
            raise rule(f"must be @hostname, or at most 63 letters, digits, ., - or _{found}")
        return name

    @model_validator(mode="after")
    def _object_store(self) -> StorageSettings:
        for name in ("spool_endpoint", "spool_region"):
            if getattr(self, name) and not self.spool:
                raise rule(f"{name} is of an object store, and spool is empty: the spool is a folder", name)
        return self

    @field_validator("spool_endpoint")
    @classmethod
    def _endpoint(cls, endpoint: str) -> str:
        try:
            url = urlsplit(endpoint)
            _ = url.port
        except ValueError as error:
            raise ValueError(f"spool_endpoint is no URL: {error}") from None
        if "@" in url.netloc:
            raise ValueError("credentials belong into spool_credentials_file, not into spool_endpoint")
        if endpoint and (url.scheme not in ("http", "https") or not url.hostname or url.path.strip("/") or url.query):
            raise ValueError("spool_endpoint must be empty or https://HOST, https://HOST:PORT or the same with http")
        return endpoint

    @field_validator("database")
    @classmethod
    def _url(cls, database: str) -> str:
        if not database:
            return database
        try:
            url = urlsplit(database)
            password, name = url.password, url.path.strip("/")
            _ = url.port
        except ValueError as error:
            raise ValueError(f"database is no URL: {error}") from None
        if url.scheme != "postgresql+psycopg" or not name:
            raise ValueError("database must be empty or postgresql+psycopg://user@host:port/name")
        if password is not None or "password" in parse_qs(url.query):
            raise ValueError("the password belongs into database_password_file, not into database")
        return database


class AuditSettings(Section):
    """Where DICOM audit messages go (PS3.15 A.5), as syslog (RFC 5424)."""

    transport: Literal["none", "file", "udp", "tls"] = "none"  # RFC 5426, RFC 5425
    path: Path | None = None  # of the file
    host: Host | None = None  # of the audit repository
    port: Port = 6514
    tls: TlsClientSettings = TlsClientSettings()
    source_id: Annotated[str, matching(r"[!-~]{1,48}", "must be 1 to 48 printable ASCII characters, no space")] = (
        "ecg-gateway"
    )
    site_id: str = ""  # the AuditEnterpriseSiteID

    @model_validator(mode="after")
    def _target(self) -> AuditSettings:
        if self.transport == "file" and self.path is None:
            raise rule("transport = 'file' needs path", "transport")
        if self.transport in ("udp", "tls") and self.host is None:
            raise rule(f"transport = '{self.transport}' needs host", "transport")
        return self


class LogSettings(Section):
    """How the log looks; it never holds patient data."""

    format: Literal["plain", "json"] = "plain"
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
