"""The files of a page: their state in fields, and the one place where their names are made.  No name is parsed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What an artefact is."""

    # these are sent
    WAVEFORM = "waveform"
    REPORT = "report"  # the PDF report as an Encapsulated PDF object
    OVERLAY = "overlay"  # the page with its traces as a Secondary Capture object
    MESSAGE = "message"
    REJECTION = "rejection"  # a Key Object that rejects what was sent before
    # these are kept only
    PAGE_PICTURE = "page-picture"  # PNG
    OVERLAY_PICTURE = "overlay-picture"  # PNG
    RECORD = "record"  # the signals, .npz
    GEOMETRY = "geometry"  # where on the page's picture everything lies, JSON
    REPORT_PDF = "report-pdf"
    READING = "reading"  # what was seen on the page, for a correction to go on from


WITHDRAWN = "X"  # the result status of a message that withdraws another (HL7 tables 0085 and 0123)
WITHDRAWALS = (WITHDRAWN, "W")  # "W" at a FHIR server

_KEPT = {
    Role.PAGE_PICTURE: "png",
    Role.OVERLAY_PICTURE: "overlay.png",
    Role.RECORD: "record.npz",
    Role.GEOMETRY: "geometry.json",
    Role.REPORT_PDF: "report.pdf",
    Role.READING: "reading.bin",
}


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Artefact:
    """A file of a job's spool folder that was made of one page.

    Parameters
    ----------
    page_number : int
        From 1.
    role : Role
        What it is.
    data : bytes or None
        The file's content; None where the file is already in the spool.
    variant : str
        Tells artefacts of one role apart: the waveform's form ("12-lead", ...), or the name of the one destination
        that a message or a rejection is for.
    revision : int
        Of the job's result; 0 is the first.
    final : bool
        Whether a person has confirmed the result.
    identifier : str
        SOP Instance UID, MSH-10 or the identifier of a DiagnosticReport, of those that leave.
    result_status : str
        Of a message: "P", "F", "C" or "X", withdrawn (HL7 table 0123); "W", withdrawn at a FHIR server.
    ending : str
        Of the file's name: "dcm", or what a message is written in ("hl7", "fhir.json", ...).
    """

    page_number: int
    role: Role
    data: bytes | None = None
    variant: str = ""
    revision: int = 0
    final: bool = False
    identifier: str = ""
    result_status: str = ""
    ending: str = "dcm"

    @property
    def name(self) -> str:
        """The file's name in the job's spool folder."""
        if self.role in _KEPT:
            parts = ["", _KEPT[self.role]]
        elif self.role == Role.MESSAGE:
            parts = [self.variant, version_of(self.revision, self.final), self.ending]
        elif self.role == Role.REJECTION:
            parts = [version_of(self.revision, self.final), self.role, self.variant, self.ending]
        else:
            parts = [version_of(self.revision, self.final), self.variant or self.role, self.ending]
        return ".".join(part for part in (f"page-{self.page_number}", *parts) if part)


def kept_name(page_number: int, role: Role) -> str:
    """Return the file name of what is kept of a page, and does not leave."""
    return Artefact(page_number=page_number, role=role).name


def version_of(revision: int, final: bool) -> str:
    """Return what tells the versions of a page's artefact apart: "" is the first, preliminary one."""
    return ".".join(part for part in (f"r{revision}" if revision else "", "final" if final else "") if part)
