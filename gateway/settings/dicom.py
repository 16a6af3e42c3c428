"""`[dicom]`: the C-STORE and C-ECHO SCP, and the peers that may call it."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from gateway.settings.section import AeTitle, Host, Port, Section, checked_networks, overlap
from gateway.settings.source.mistakes import rule
from gateway.settings.tls import TlsClientSettings, TlsListenerSettings


class ReportSettings(Section):
    """Where a modality listens for our storage commitment results."""

    host: Host | None = None  # None: the address that it sent its request from
    port: Port
    tls: TlsClientSettings | None = None


class CallerSettings(Section):
    """One peer that may send to us.  Empty `hosts` means any address."""

    ae_title: AeTitle
    hosts: tuple[str, ...] = ()  # IP addresses or CIDR networks
    certificate_names: tuple[str, ...] = ()  # its certificate must contain one; empty: any certificate, or none
    commitment: ReportSettings | None = None  # None: it may not request storage commitment

    @field_validator("hosts")
    @classmethod
    def _networks(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        return checked_networks(hosts)


class DicomTlsSettings(TlsListenerSettings):
    """The C-STORE / C-ECHO SCP's second port, which speaks TLS."""

    port: Port = 2762


class DicomSettings(Section):
    """The C-STORE / C-ECHO SCP.  Without `callers`, every calling AE title is accepted."""

    ae_title: AeTitle = "ECGGW"
    host: Host = "127.0.0.1"
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
            raise rule(
                "plain = false needs [dicom.tls]: nothing would be listened on", "plain", others=(("dicom", "tls"),)
            )
        for number, caller in enumerate(self.callers):
            if caller.certificate_names and (self.tls is None or self.tls.ca_file is None):
                at = ("callers", number, "certificate_names")
                raise rule("certificate_names need [dicom.tls] with a ca_file", *at, others=(("dicom", "tls"),))
            for earlier, other in enumerate(self.callers[:number]):
                if other.ae_title.strip() == caller.ae_title.strip() and overlap(other.hosts, caller.hosts):
                    words = "is listed twice for the same addresses: each entry lets in what the other one keeps out"
                    others = (("dicom", "callers", earlier, "ae_title"),)
                    raise rule(words, "callers", number, "ae_title", others=others)
        return self
