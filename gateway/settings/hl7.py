"""`[hl7]`: the MLLP listener, and the codes of the messages that leave."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from gateway.settings.section import CharacterSet, Host, Port, Section, checked_networks, matching
from gateway.settings.tls import TlsListenerSettings

Hl7Code = Annotated[str, matching(r"[^|~\\\x00-\x1f]+", "must be code^text^coding system, without |, ~ and \\")]  # a CE


class Hl7CodeSettings(Section):
    """The codes in OBR-4 and OBX-3 of our messages; code^text^coding system."""

    study: Hl7Code = "11524-6^EKG study^LN"
    dicom_study: Hl7Code = "113014^DICOM Study^DCM"
    waveform: Hl7Code = "WAVEFORM^Waveform SOP Instance UID^99ECGGW"
    heart_rate: Hl7Code = "8867-4^Heart rate^LN"
    report: Hl7Code = "REPORT^ECG report^99ECGGW"
    note: Hl7Code = "NOTE^Note^99ECGGW"
    quality: Hl7Code = "QUALITY^Digitization quality^99ECGGW"
    warning: Hl7Code = "WARNING^Warning^99ECGGW"


class Hl7Settings(Section):
    """The MLLP listener for patients and orders, and the codes of our messages."""

    enabled: bool = False
    host: Host = "127.0.0.1"
    port: Port = 2575
    tls: TlsListenerSettings | None = None  # None: plain
    hosts: tuple[str, ...] = ()  # IP addresses or CIDR networks that may connect; empty: any
    maximum_connections: int = Field(default=50, ge=1)
    maximum_connections_per_host: int = Field(default=10, ge=1)
    idle_timeout_s: float = Field(default=300.0, gt=0)
    maximum_message_mib: int = Field(default=16, ge=1)
    character_set: CharacterSet = "UNICODE UTF-8"  # of a message without MSH-18
    other_messages: Literal["refuse", "acknowledge"] = "refuse"  # types and events that are not supported
    codes: Hl7CodeSettings = Hl7CodeSettings()

    @field_validator("hosts")
    @classmethod
    def _networks(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        return checked_networks(hosts)
