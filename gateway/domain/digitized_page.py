"""One digitized page of one patient: the input of DICOM objects, HL7 messages and the PDF report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from gateway.domain.artefact import version_of
from gateway.domain.context import StudyContext
from gateway.domain.recorded import Recorded, recorded
from pipeline import LEADS, Act, EcgRecord, Lead, PrintedValues, Quality

_ACTS = {
    Act.DRAWN: "Drawn by a person, not traced by software",
    Act.UNREADABLE: "Found unreadable by a person",
    Act.LEFT_OUT: "Not accepted by a person, left out",
}


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class DigitizedPage:
    """A page that was read, with its identity.

    The worker builds it from a digitization, a confirmation from the record that was kept.

    Parameters
    ----------
    job_id : str
        The job that the page belongs to.
    page_number : int
        From 1.
    context : StudyContext
        Identity, order and source, in the forms of DICOM.
    created_at : datetime
        When the result was made, aware: when the gateway took the page, or when a person confirmed the result.
    record : EcgRecord
        Signals in mV, (n_leads, n_samples); NaN where nothing is printed.
    quality : Quality
        How well the page was read.
    layout_name : str
        The layout that the page was read in.
    columns : tuple of tuples of Lead
        For each printed column its leads; the rhythm strips are the last.
    printed : PrintedValues
        What the page prints of its recording, as far as it can be.
    heart_rate_per_minute : float or None
        Measured ventricular rate; None where it is not certain.
    waveform_sop_class_uid, waveform_sop_instance_uid : str
        The waveform object that messages and the report refer to.
    leads_left_out : tuple of Lead
        Leads of the page that this object does not have.
    weights_sha256 : Mapping of str to str
        Name of each network that read the page -> hash of its weights.
    page_png : bytes
        The page as it was read; b"" where it is not needed again.
    overlay_png : bytes
        The page with the traces drawn over it; b"" where it is not needed again.
    report_pdf : bytes
        The PDF report; b"" where there is none.
    revision : int
        Of the job's result; from 1 where another was sent before.
    final : bool
        Whether a person has confirmed the result.
    doubtful : bool
        Whether the quality asks for a person.
    """

    job_id: str
    page_number: int
    context: StudyContext
    created_at: datetime
    record: EcgRecord
    quality: Quality
    layout_name: str
    columns: tuple[tuple[Lead, ...], ...] = (LEADS,)
    printed: PrintedValues = field(default_factory=PrintedValues)
    heart_rate_per_minute: float | None = None
    waveform_sop_class_uid: str = ""
    waveform_sop_instance_uid: str = ""
    leads_left_out: tuple[Lead, ...] = ()
    weights_sha256: Mapping[str, str] = field(default_factory=dict)
    page_png: bytes = b""
    overlay_png: bytes = b""
    report_pdf: bytes = b""
    revision: int = 0
    final: bool = False
    doubtful: bool = False

    def __post_init__(self) -> None:
        """Check page number and time zone."""
        if self.page_number < 1:
            raise ValueError(f"pages are numbered from 1, got {self.page_number}")
        if self.created_at.tzinfo is None:
            raise ValueError("created_at must say its time zone")

    @property
    def left_out_words(self) -> list[str]:
        """Which leads the waveform object does not have, in words; nothing where it has all."""
        names = ", ".join(self.leads_left_out)
        return [f"not in the waveform object, which has the twelve leads only: {names}"] if names else []

    @property
    def recorded(self) -> Recorded:
        """When the ECG was recorded."""
        return recorded(self.context, self.printed)

    @property
    def version(self) -> str:
        """What tells the versions of the page's result apart: "" is the first, preliminary one."""
        return version_of(self.revision, self.final)

    @property
    def by_person(self) -> tuple[str, ...]:
        """What a person did with samples: `acts_of`."""
        return acts_of(self.record)

    @property
    def quality_words(self) -> list[str]:
        """What was read and how well, a sentence each."""
        record, calibration = self.record, self.record.calibration
        seconds = record.signal_mv.shape[1] / record.sampling_frequency_hz
        rows = zip(record.leads, record.signal_mv, strict=True)
        printed = [lead.value for lead, row in rows if not np.isnan(row).all()]
        return [
            *self.quality.notes,
            f"Estimated SNR {self.quality.estimated_snr_db:.1f} dB",
            f"Layout: {len(printed)} leads in {seconds:g} s ({' '.join(printed)}); "
            f"layout score {self.quality.layout_score:.2f}",
            f"Paper speed {calibration.paper_speed_mm_per_s:g} mm/s ({calibration.speed_source}); "
            f"gain {calibration.gain_mm_per_mv:g} mm/mV ({calibration.gain_source})",
        ]

    @property
    def warning_words(self) -> list[str]:
        """Why a person must look, a sentence each; nothing where there is no doubt, or a person has confirmed it."""
        if self.final or not self.doubtful:
            return []
        shares = self.quality.coverage.items()
        coverage = ", ".join(f"{lead.value} {100 * share:.0f} %" for lead, share in shares)
        lines = ["Doubtful digitization: compare with the paper before use", *self.quality.warnings]
        return [*lines, f"Read of each printed lead: {coverage}"] if coverage else lines


def acts_of(record: EcgRecord) -> tuple[str, ...]:
    """Return what a person did with samples, a sentence each: which leads, and from where to where."""
    rate = record.sampling_frequency_hz
    said = {
        words: [
            f"{part.lead} {part.first_sample / rate:.1f}-{part.stop_sample / rate:.1f} s"
            for part in record.by_person
            if part.act is act
        ]
        for act, words in _ACTS.items()
    }
    return tuple(f"{words}: {', '.join(parts)}" for words, parts in said.items() if parts)
