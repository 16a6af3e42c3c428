"""TLS of a listener and of a client (PS3.15 B.12, B.13): certificates, keys and whom to trust."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from gateway.settings.section import Section
from gateway.settings.source.mistakes import rule


class TlsSettings(Section):
    """One side of a TLS connection (see `gateway.security.tls`); every file is PEM."""

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
            raise rule(
                "certificate_file and private_key_file go together",
                "certificate_file" if self.certificate_file else "private_key_file",
            )
        return self
