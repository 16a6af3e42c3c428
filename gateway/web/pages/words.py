"""What the pages say alike: states, sources, spans and moments, in words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePath

from gateway.domain.status import DeliveryStatus, JobStatus

STATUS_WORDS = {
    JobStatus.QUEUED: "Queued",
    JobStatus.RUNNING: "Running",
    JobStatus.DONE: "Done",
    JobStatus.NEEDS_REVIEW: "Needs review",
    JobStatus.FAILED: "Failed",
    JobStatus.CANCELLED: "Cancelled",
}
DELIVERY_WORDS = {
    DeliveryStatus.PENDING: "pending",
    DeliveryStatus.STORED: "stored, not committed yet",
    DeliveryStatus.DELIVERED: "delivered",
    DeliveryStatus.REFUSED: "refused",
    DeliveryStatus.FAILED: "failed",
    DeliveryStatus.CANCELLED: "cancelled",
}

DOWNLOADS = {  # of a page: the end of its address, and what a person calls it
    "waveform.dcm": "DICOM waveform",
    "report.pdf": "Report (PDF)",
    "overlay.png": "Overlay (PNG)",
    "signals.csv": "Signals (CSV)",
    "result.json": "Result (JSON)",
    "message.hl7": "HL7 message (ORU)",
    "bundle.fhir.json": "FHIR Bundle",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Badge:
    """A status in words, and the tone that gives its colour."""

    words: str
    tone: str  # "good" | "busy" | "warn" | "bad" | "idle"


def job_badge(status: JobStatus) -> Badge:
    """Return the badge of a job's status."""
    tones = {
        JobStatus.RUNNING: "busy",
        JobStatus.DONE: "good",
        JobStatus.NEEDS_REVIEW: "warn",
        JobStatus.FAILED: "bad",
    }
    return Badge(words=STATUS_WORDS[status], tone=tones.get(status, "idle"))


def delivery_tone(status: DeliveryStatus) -> str:
    """Return the tone of a delivery's status."""
    tones = {
        DeliveryStatus.PENDING: "busy",
        DeliveryStatus.STORED: "busy",
        DeliveryStatus.DELIVERED: "good",
        DeliveryStatus.REFUSED: "bad",
        DeliveryStatus.FAILED: "bad",
    }
    return tones.get(status, "idle")


def age_in_words(seconds: float) -> str:
    """Return a span in its largest unit, e.g. "3 min"."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(max(seconds, 0))} s"


def source_in_words(source: str) -> str:
    """Return where a job comes from; of a folder only the name."""
    kind, _, name = source.partition(":")
    return {"dicom": f"DICOM {name}", "dicomweb": f"DICOMweb {name}", "folder": f"Folder {PurePath(name).name}"}.get(
        kind, source
    )


def person_name(name: str) -> str:
    """Return a name in DICOM's form as people read it."""
    return " ".join(name.split("=")[0].replace("^", " ").split())


def per_cent(share: float) -> str:
    """Return a share of 1 in per cent."""
    return f"{100 * share:.0f} %"


def clock(at: datetime) -> str:
    """Return a moment in the machine's time zone."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
