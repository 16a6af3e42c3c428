"""`[[folders]]`: watched folders, how a file's patient is identified, and the peer that completes the identity."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from gateway.domain.context import StudyContext
from gateway.settings.section import AeTitle, Host, Name, Port, Section
from gateway.settings.source.mistakes import rule
from gateway.settings.tls import TlsClientSettings


class LookupSettings(Section):
    """The peer that completes a page's identity by C-FIND: a modality worklist, or an archive's studies."""

    model: Literal["worklist", "study"] = "worklist"
    host: Host
    port: Port
    ae_title: AeTitle
    calling_ae_title: AeTitle | None = None  # None: [dicom].ae_title
    timeout_s: float = Field(default=30.0, gt=0)
    tls: TlsClientSettings | None = None


class FolderSettings(Section):
    """A watched folder.  The identity is read from a sidecar, the file's name or a code on the page, never guessed."""

    path: Path
    create: bool = False  # make it where it is missing; else a missing folder is an error until it appears
    polling: bool = False  # for network shares, where the kernel reports nothing
    settle_s: float = Field(default=2.0, ge=0)
    incomplete_s: float = Field(default=600.0, gt=0)  # how long a file that ends too early may stay unchanged
    rescan_s: float = Field(default=30.0, gt=0)
    identity: Literal["sidecar", "filename", "sidecar_or_filename"] = "sidecar"
    filename_pattern: str = ""  # a regular expression with named groups, e.g. (?P<patient_id>\d+)_(?P<study_date>\d{8})
    barcode_pattern: str = ""  # likewise, for a bar code or QR code on the page; empty: codes are not read
    lookup: LookupSettings | None = None  # queried by accession number or patient ID
    destinations: tuple[Name, ...] | None = None  # None: every destination

    @model_validator(mode="after")
    def _patterns(self) -> FolderSettings:
        if self.identity != "sidecar":
            _check_pattern("filename_pattern", self.filename_pattern)
        elif self.filename_pattern:
            raise rule("is not used with identity = 'sidecar': set identity = 'filename'", "filename_pattern")
        if self.barcode_pattern:
            _check_pattern("barcode_pattern", self.barcode_pattern)
        return self


def _check_pattern(name: str, pattern: str) -> None:
    if not pattern:
        raise rule(f"needs {name}", "identity")
    try:
        groups = set(re.compile(pattern).groupindex)
    except re.error as error:
        raise rule(f"is no regular expression: {error}", name) from None
    if not {"patient_id", "accession_number"} & groups:
        raise rule("needs a group (?P<patient_id>...) or (?P<accession_number>...)", name)
    if unknown := sorted(groups - set(StudyContext.model_fields)):
        raise rule(f"has groups that are no field of an ECG: {', '.join(unknown)}", name)
