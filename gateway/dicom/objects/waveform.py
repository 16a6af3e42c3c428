"""DigitizedPage -> 12-Lead or General ECG Waveform object (PS3.3 A.34.3, A.34.4).

One multiplex group of twelve channels at 500 Hz, because viewers show the first group only and expect twelve leads; or,
where a destination asks for it, a group for each printed column and one for the rhythm strips (the example of
A.34.3.4.4).  A General object has a channel more for every other lead on the page (V3R, V7, ...); a 12-Lead object
says which it leaves out.  One count is one microvolt, correction factor 1, baseline 0, because some viewers ignore all
three.

Paper shows most leads for a part of the time.  Where a lead is not printed (or cannot be read) the sample holds the
padding value 0, a measured zero becomes +1 uV so that the two stay apart, and an annotation names every gap: a flat
line must never pass for asystole.  A lead the page does not show at all is one long gap.

Identity and order are copied from the source; nothing here is invented.  The same inputs give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import GeneralECGWaveformStorage, TwelveLeadECGWaveformStorage

from gateway import __version__
from gateway.dicom.objects.content_checker import LEAD_CODES, UNSPECIFIED_LEAD, check_waveform
from gateway.dicom.objects.modules import (
    ObjectHead,
    code,
    dicom_file,
    equipment,
    identity,
    in_zone,
    private_figures,
    put,
    related_series,
    series_and_instance,
    source_of,
    source_reference,
)
from gateway.dicom.objects.uids import derived_uid
from gateway.domain.context import StudyContext
from gateway.domain.digitized_page import DigitizedPage
from gateway.settings import ObjectSettings
from pipeline import LEADS, Act, ByPerson, EcgRecord, Lead, Quality

SopClass = Literal["12-lead", "general", "12-lead-groups", "12-lead-or-general"]
Samples = npt.NDArray[np.int16]

SOP_CLASS_UIDS: dict[SopClass, tuple[str, ...]] = {  # the last, where a page has more than the twelve leads
    "12-lead": (TwelveLeadECGWaveformStorage,),
    "general": (GeneralECGWaveformStorage,),
    "12-lead-groups": (TwelveLeadECGWaveformStorage,),
    "12-lead-or-general": (TwelveLeadECGWaveformStorage, GeneralECGWaveformStorage),
}
SAMPLING_FREQUENCY_HZ = 500
MAXIMUM_12_LEAD_SAMPLES = 16384  # A.34.3.4.5
MAXIMUM_12_LEAD_CHANNELS = 13  # A.34.3.4.4, in all groups
PADDING = 0

_CODE_OF_LEAD = {lead: code for code, lead in LEAD_CODES.items()}
_READ_FROM = {
    "default": "not read, assumed",
    "person": "stated by a person",
    "text": "read in print",
    "pulse": "read from the calibration pulse",
    "columns": "measured on the columns",
    "beats": "not read, assumed: the beats make it likely",
}

_ACTS = {
    Act.DRAWN: "Drawn by a person over the ink of the page; not traced by software.",
    Act.UNREADABLE: "A person found this part of the page unreadable.",
    Act.LEFT_OUT: "A person did not accept this lead: its samples are left out.",
}


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Group:
    """Leads that share a time window of the record."""

    leads: tuple[Lead, ...]
    first: int  # sample of the record that is the group's first
    samples: Samples  # (n_leads, n_samples)

    @property
    def gaps(self) -> list[list[tuple[int, int]]]:
        """For each lead the runs without a signal: (first, last) sample positions, counted from 1."""
        return [_runs(channel == PADDING) for channel in self.samples]


def waveform_sop_class_uid(record: EcgRecord, sop_class: SopClass) -> str:
    """Return the SOP Class UID of the waveform object that is made of a record in the form a destination wants."""
    return SOP_CLASS_UIDS[sop_class][-1 if _others(record) else 0]


def leads_left_out(record: EcgRecord, sop_class: SopClass) -> tuple[Lead, ...]:
    """Return the leads of a record that its waveform object does not have: a 12-Lead object has the twelve only."""
    general = waveform_sop_class_uid(record, sop_class) == GeneralECGWaveformStorage
    return () if general else _others(record)


def waveform_sop_instance_uid(context: StudyContext, page_number: int, sop_class: SopClass, revision: int = 0) -> str:
    """Return the SOP Instance UID of one page's waveform: derived from source, page, class and our version.

    Parameters
    ----------
    revision : int
        Of the result; a replacement is an object of its own.

    Raises
    ------
    ValueError
        The context has no `source_sop_instance_uid` to derive it from.
    """
    return derived_uid(source_of(context), str(page_number), sop_class, __version__, *_variant(revision))


def build_waveform(page: DigitizedPage, sop_class: SopClass, objects: ObjectSettings) -> Dataset:
    """Return the waveform object of one page (PS3.3 A.34.3, A.34.4).

    Parameters
    ----------
    page : DigitizedPage
        Its record is at 500 Hz (leads that the page does not show may be absent), its quality decides which channels
        are marked QUESTIONABLE; its context needs `study_instance_uid` and `source_sop_instance_uid`.
    sop_class : "12-lead", "general", "12-lead-groups" or "12-lead-or-general"
        What the destination wants; "12-lead-groups" has a group for each of the page's printed columns, the last is a
        General object where the page has more than the twelve leads.
    objects : ObjectSettings
        Numbers, descriptions and what is added.

    Raises
    ------
    ValueError
        The record is not at 500 Hz, longer than a 12-Lead object may be (16384 samples), or holds a voltage beyond the
        +-32.767 mV of 16 bits; or the context lacks a UID.  Nothing is truncated or clipped.
    """
    record, quality, context, revision = page.record, page.quality, page.context, page.revision
    dataset = identity(context)
    created_at = in_zone(page.created_at, context.timezone_offset_from_utc)
    class_uid = waveform_sop_class_uid(record, sop_class)
    leads = LEADS if class_uid == TwelveLeadECGWaveformStorage else (*LEADS, *_others(record))
    samples = _samples(record, leads, class_uid)
    groups = [_Group(leads=leads, first=0, samples=samples)]
    if sop_class == "12-lead-groups":
        groups = _columns(samples, page.columns) or groups

    head = ObjectHead(
        sop_class_uid=class_uid,
        sop_instance_uid=waveform_sop_instance_uid(context, page.page_number, sop_class, revision),
        modality="ECG",
        series_instance_uid=derived_uid(source_of(context), "series", sop_class, __version__, *_variant(revision)),
        series=objects.waveform,
        corrected=revision > 0,
        instance_number=objects.first_instance_number + page.page_number - 1,
        created_at=created_at,
    )
    series_and_instance(dataset, head)
    put(dataset, "AcquisitionDateTime", page.recorded.at or created_at.strftime("%Y%m%d%H%M%S%z"))
    related_series(dataset, context)
    if references := source_reference(context):
        dataset.ReferencedInstanceSequence = references
    equipment(dataset, context, created_at)
    private_figures(dataset, objects.private_creator, page)
    dataset.AcquisitionContextSequence = [_lead_system(more=leads != LEADS)]
    dataset.WaveformSequence = [_group(group, quality, timed=len(groups) > 1) for group in groups]
    everywhere = [number for group in range(1, len(groups) + 1) for number in (group, 0)]
    corrected = ["Corrected: takes the place of an earlier digitization of this page."] if revision else []
    left_out = leads_left_out(record, sop_class)
    missing = [f"On the page, but not in this object of twelve leads: {', '.join(left_out)}."] if left_out else []
    text = [*_provenance(page), *corrected, *missing, *quality.notes, *_printed(leads, samples)]
    rate = page.heart_rate_per_minute if objects.heart_rate else None
    dataset.WaveformAnnotationSequence = [
        _text("\n".join(text), everywhere),
        _text(
            f"Estimated by software: signal to noise {quality.estimated_snr_db:.0f} dB. " + " ".join(quality.warnings),
            everywhere,
        ),
        *_gaps(groups),
        *_by_person(record.by_person, groups),
        *([] if rate is None else [_rate(rate, everywhere)]),
    ]
    return dataset


def encode(dataset: Dataset) -> bytes:
    """Return the object as a DICOM file (PS3.10) in Explicit VR Little Endian.

    Raises
    ------
    ValueError
        `check_waveform` found a breach; nothing that breaks the Standard leaves.
    """
    check_waveform(dataset)
    return dicom_file(dataset)


def _variant(revision: int) -> tuple[str, ...]:
    return (f"r{revision}",) if revision else ()


def _others(record: EcgRecord) -> tuple[Lead, ...]:
    """Return the leads of a record beside the twelve; they are on the page, whether or not they were read."""
    return tuple(lead for lead in record.leads if lead not in LEADS)


def _samples(record: EcgRecord, leads: Sequence[Lead], class_uid: str) -> Samples:
    """Return (n_leads, n_samples) counts of 1 uV, PADDING where there is no signal."""
    n_samples = record.signal_mv.shape[1]
    if record.sampling_frequency_hz != SAMPLING_FREQUENCY_HZ:
        raise ValueError(f"the record is at {record.sampling_frequency_hz:g} Hz, {SAMPLING_FREQUENCY_HZ} Hz is written")
    if n_samples < 1 or (class_uid != GeneralECGWaveformStorage and n_samples > MAXIMUM_12_LEAD_SAMPLES):
        raise ValueError(
            f"the record has {n_samples} samples a lead, a 12-Lead object holds 1 to {MAXIMUM_12_LEAD_SAMPLES}; "
            "send it as General ECG"
        )
    samples = np.full((len(leads), n_samples), PADDING, dtype=np.int16)
    for lead, signal_mv in zip(record.leads, record.signal_mv, strict=True):
        if lead not in leads:
            continue
        signal_uv = np.rint(signal_mv.astype(np.float64) * 1000.0)
        read = np.isfinite(signal_uv)
        peak_uv = float(np.abs(signal_uv[read]).max(initial=0.0))
        if peak_uv > np.iinfo(np.int16).max:
            raise ValueError(f"lead {lead} reaches {peak_uv / 1000:.1f} mV, 16 bits of 1 uV hold 32.767 mV")
        signal_uv[read & (signal_uv == PADDING)] = PADDING + 1
        samples[leads.index(lead), read] = signal_uv[read].astype(np.int16)
    return samples


def _runs(mask: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the runs of True as (first, last) sample positions, counted from 1, both ends inside."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return [(int(start) + 1, int(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def _columns(samples: Samples, columns: Sequence[Sequence[Lead]]) -> list[_Group]:
    """Cut the record into groups of leads, each as long as they are printed; a group without a signal is left out.

    A lead printed in a column and as a rhythm strip is in both, as in the Standard's example, where the 13 channels of
    a 12-Lead object allow it; else in the rhythm strip only.
    """
    columns = [[lead for lead in column if lead in LEADS] for column in columns]
    strips = {lead for later in range(1, len(columns)) for lead in columns[later] if lead in _before(columns, later)}
    if sum(len(column) for column in columns) > MAXIMUM_12_LEAD_CHANNELS:
        columns = [*([lead for lead in column if lead not in strips] for column in columns[:-1]), columns[-1]]
    groups = []
    for number, column in enumerate(columns):
        leads = tuple(lead for lead in LEADS if lead in column)
        timing = [lead for lead in leads if lead not in strips or number == len(columns) - 1] or leads
        read = np.flatnonzero((samples[[LEADS.index(lead) for lead in timing]] != PADDING).any(axis=0))
        if read.size:
            window = slice(int(read[0]), int(read[-1]) + 1)
            rows = samples[[LEADS.index(lead) for lead in leads], window]
            groups.append(_Group(leads=leads, first=window.start, samples=rows))
    return groups


def _before(columns: Sequence[Sequence[Lead]], number: int) -> set[Lead]:
    return {lead for column in columns[:number] for lead in column}


def _lead_system(*, more: bool) -> Dataset:
    """Acquisition context (TID 3401): a page does not say how the electrodes were placed, only that there are more."""
    item = Dataset()
    item.ValueType = "CODE"
    item.ConceptNameCodeSequence = code("10:11345", "MDC", "Lead System")
    item.ConceptCodeSequence = (
        code("10:11290", "MDC", "Standard 12-lead with extra leads to the right and/or left sides")
        if more
        else code("10:11264", "MDC", "Unspecified 12-lead system")
    )
    return item


def _group(group: _Group, quality: Quality, *, timed: bool) -> Dataset:
    """Build one multiplex group (C.10.9).

    DERIVED: the samples are neither measured at the patient nor copied from samples that were.
    """
    n_channels, n_samples = group.samples.shape
    item = Dataset()
    if timed:
        item.MultiplexGroupTimeOffset = round(1000 * group.first / SAMPLING_FREQUENCY_HZ)
    item.WaveformOriginality = "DERIVED"
    item.NumberOfWaveformChannels = n_channels
    item.NumberOfWaveformSamples = n_samples
    item.SamplingFrequency = SAMPLING_FREQUENCY_HZ
    item.MultiplexGroupLabel = "DIGITIZED PAPER"
    item.ChannelDefinitionSequence = [
        _channel(lead, _status(lead, gaps, n_samples, quality))
        for lead, gaps in zip(group.leads, group.gaps, strict=True)
    ]
    item.WaveformBitsAllocated = 16
    item.WaveformSampleInterpretation = "SS"
    item.add_new("WaveformPaddingValue", "OW", np.int16(PADDING).tobytes())
    item.add_new("WaveformData", "OW", group.samples.T.astype("<i2").tobytes())
    return item


def _status(
    lead: Lead,
    gaps: list[tuple[int, int]],
    n_samples: int,
    quality: Quality,
    minimum_coverage: float = 0.8,
    minimum_confidence: float = 0.5,
) -> str:
    """Return the Channel Status: INVALID for a lead without any sample, QUESTIONABLE for one read badly."""
    if gaps == [(1, n_samples)]:
        return "INVALID"
    good = (
        quality.coverage.get(lead, 0.0) >= minimum_coverage and quality.confidence.get(lead, 0.0) >= minimum_confidence
    )
    return "OK" if good else "QUESTIONABLE"


def _channel(lead: Lead, status: str) -> Dataset:
    """One channel definition; the code meaning "Lead I" is what viewers label and sort by."""
    channel = Dataset()
    channel.ChannelLabel = str(lead)
    channel.ChannelStatus = status
    known = lead in _CODE_OF_LEAD
    meaning = f"Lead {lead}" if known else "Unspecified lead"
    channel.ChannelSourceSequence = code(_CODE_OF_LEAD[lead] if known else UNSPECIFIED_LEAD, "MDC", meaning)
    channel.ChannelSensitivity = 1
    channel.ChannelSensitivityUnitsSequence = code("uV", "UCUM", "microvolt")
    channel.ChannelSensitivityCorrectionFactor = 1
    channel.ChannelBaseline = 0
    channel.ChannelSampleSkew = 0
    channel.WaveformBitsStored = 16
    channel.ChannelDerivationDescription = "Digitized from a picture of a paper ECG"
    return channel


def _provenance(page: DigitizedPage) -> list[str]:
    """Return in words how the samples came about, and what was read where."""
    calibration = page.record.calibration
    gain = f"{calibration.gain_mm_per_mv:g} mm/mV"
    if calibration.chest_gain_mm_per_mv is not None:
        gain += f" (chest leads {calibration.chest_gain_mm_per_mv:g} mm/mV)"
    return [
        "Digitized from paper, unconfirmed. Flat parts marked as gaps are not printed on the page; they are no signal.",
        f"Layout {page.layout_name}. Paper speed {calibration.paper_speed_mm_per_s:g} mm/s "
        f"({_READ_FROM.get(calibration.speed_source, calibration.speed_source)}), gain {gain} "
        f"({_READ_FROM.get(calibration.gain_source, calibration.gain_source)}).",
        f"Time of recording: {page.recorded.words}.",
    ]


def _printed(leads: Sequence[Lead], samples: Samples) -> list[str]:
    """Return which leads are on the page, from where to where (gaps inside that span have their own annotation)."""
    spans = []
    for lead, channel in zip(leads, samples, strict=True):
        read = np.flatnonzero(channel != PADDING)
        if read.size:
            start_s, stop_s = read[0] / SAMPLING_FREQUENCY_HZ, (read[-1] + 1) / SAMPLING_FREQUENCY_HZ
            spans.append(f"{lead} {start_s:.1f}-{stop_s:.1f}")
    return ["Printed (s): " + ", ".join(spans) + "."]


def _text(text: str, channels: list[int]) -> Dataset:
    """Annotate channels, pairs of group and channel, with a text (C.10.10)."""
    item = Dataset()
    item.UnformattedTextValue = text[:1024]  # ST
    item.ReferencedWaveformChannels = channels
    item.AnnotationGroupNumber = 1
    return item


def _gaps(groups: Sequence[_Group]) -> list[Dataset]:
    """Annotate every channel's gaps (C.10.10)."""
    items = []
    for group_number, group in enumerate(groups, start=1):
        for channel_number, runs in enumerate(group.gaps, start=1):
            if not runs:
                continue
            item = Dataset()
            item.ConceptNameCodeSequence = code("10:11248", "MDC", "No ECG signal is available")
            item.ReferencedWaveformChannels = [group_number, channel_number]
            item.TemporalRangeType = "SEGMENT" if len(runs) == 1 else "MULTISEGMENT"
            item.ReferencedSamplePositions = [position for run in runs for position in run]
            item.AnnotationGroupNumber = 2
            items.append(item)
    return items


def _by_person(parts: Sequence[ByPerson], groups: Sequence[_Group]) -> list[Dataset]:
    """Annotate in each channel the samples that a person drew, could not read or left out (C.10.10)."""
    items = []
    for group_number, group in enumerate(groups, start=1):
        end = group.first + group.samples.shape[1]
        for channel_number, lead in enumerate(group.leads, start=1):
            for act, words in _ACTS.items():
                runs = [
                    (max(part.first_sample, group.first) - group.first + 1, min(part.stop_sample, end) - group.first)
                    for part in parts
                    if (part.act, part.lead) == (act, lead)
                    and part.first_sample < end
                    and part.stop_sample > group.first
                ]
                if runs:
                    item = _text(words, [group_number, channel_number])
                    item.TemporalRangeType = "SEGMENT" if len(runs) == 1 else "MULTISEGMENT"
                    item.ReferencedSamplePositions = [position for run in runs for position in run]
                    item.AnnotationGroupNumber = 4
                    items.append(item)
    return items


def _rate(rate_per_minute: float, channels: list[int]) -> Dataset:
    """Annotate the measured heart rate; viewers look for the meaning "VRate"."""
    item = Dataset()
    item.ConceptNameCodeSequence = code("2:16016", "MDC", "VRate")
    item.NumericValue = round(rate_per_minute)
    item.MeasurementUnitsCodeSequence = code("{H.B.}/min", "UCUM", "heart beats per minute")
    item.ReferencedWaveformChannels = channels
    item.AnnotationGroupNumber = 3
    return item
