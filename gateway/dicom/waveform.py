"""EcgRecord + StudyContext -> 12-Lead or General ECG Waveform object (PS3.3 A.34.3, A.34.4).

One multiplex group of twelve channels at 500 Hz, because viewers show the first group only and expect twelve leads.
One count is one microvolt, correction factor 1, baseline 0, because some viewers ignore all three attributes.

Paper shows most leads for a part of the time.  Where a lead is not printed (or cannot be read) the sample holds the
padding value 0, a measured zero becomes +1 uV so that the two stay apart, and an annotation names every gap: a flat
line must never pass for asystole.  A lead the page does not show at all is one long gap.

Identity and order are copied from the source; nothing here is invented.  The same inputs give the same bytes.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from io import BytesIO
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydicom import dcmwrite
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, GeneralECGWaveformStorage, TwelveLeadECGWaveformStorage

from gateway import __version__
from gateway.dicom.iod import LEAD_CODES, check_waveform
from gateway.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, derived_uid
from gateway.models import StudyContext
from pipeline import LEADS, Calibration, EcgRecord, Lead, Quality

SopClass = Literal["12-lead", "general"]
Samples = npt.NDArray[np.int16]

SOP_CLASS_UIDS: dict[SopClass, str] = {
    "12-lead": TwelveLeadECGWaveformStorage,
    "general": GeneralECGWaveformStorage,
}
MANUFACTURER = "ECG Gateway project"
MODEL_NAME = "ECG Gateway"
SAMPLING_FREQUENCY_HZ = 500
MAXIMUM_12_LEAD_SAMPLES = 16384  # A.34.3.4.5
PADDING = 0

_COPIED = {  # attribute <- field of StudyContext; Type 2 (or 1), so empty where not known
    "PatientName": "patient_name",
    "PatientID": "patient_id",
    "PatientBirthDate": "patient_birth_date",
    "PatientSex": "patient_sex",
    "StudyInstanceUID": "study_instance_uid",
    "StudyDate": "study_date",
    "StudyTime": "study_time",
    "StudyID": "study_id",
    "AccessionNumber": "accession_number",
    "ReferringPhysicianName": "referring_physician_name",
}
_COPIED_IF_KNOWN = {  # Type 3
    "IssuerOfPatientID": "issuer_of_patient_id",
    "StudyDescription": "study_description",
    "TimezoneOffsetFromUTC": "timezone_offset_from_utc",
    "InstitutionName": "institution_name",
}
_CODE_OF_LEAD = {lead: code for code, lead in LEAD_CODES.items()}
_READ_FROM = {"default": "not read, assumed", "text": "read in print", "pulse": "read from the calibration pulse"}


def waveform_sop_instance_uid(context: StudyContext, page_number: int, sop_class: SopClass) -> str:
    """Return the SOP Instance UID of one page's waveform: derived from source, page, class and our version.

    Raises
    ------
    ValueError
        The context has no `source_sop_instance_uid` to derive it from.
    """
    return derived_uid(_source(context), str(page_number), sop_class, __version__)


def build_waveform(
    record: EcgRecord,
    quality: Quality,
    context: StudyContext,
    *,
    page_number: int,
    layout_name: str,
    sop_class: SopClass,
    created_at: datetime,
) -> Dataset:
    """Return the waveform object of one page.

    Parameters
    ----------
    record : EcgRecord
        Signals in mV at 500 Hz; leads the page does not show may be absent.
    quality : Quality
        Decides which channels are marked QUESTIONABLE.
    context : StudyContext
        Identity, order and source; needs `study_instance_uid` and `source_sop_instance_uid`.
    page_number : int
        From 1; becomes InstanceNumber.
    layout_name : str
        The layout the page was read in, for the annotation.
    sop_class : "12-lead" or "general"
        The SOP class the destination wants.
    created_at : datetime
        When the gateway took the page, aware: a second run then gives the same bytes.

    Raises
    ------
    ValueError
        The record is not at 500 Hz, longer than a 12-Lead object may be (16384 samples), or holds a voltage beyond the
        +-32.767 mV of 16 bits; or the context lacks a UID.  Nothing is truncated or clipped.
    """
    if not context.study_instance_uid:
        raise ValueError("the study has no Study Instance UID")
    if created_at.tzinfo is None:
        raise ValueError("created_at must say its time zone")
    samples = _samples(record, sop_class)
    gaps = {lead: _runs(samples[i] == PADDING) for i, lead in enumerate(LEADS)}
    created_at = _in_zone(created_at, context.timezone_offset_from_utc)

    dataset = _identity(context)
    _instance(dataset, context, page_number, sop_class, created_at)
    _equipment(dataset, context, created_at)
    dataset.AcquisitionContextSequence = [_lead_system()]
    dataset.WaveformSequence = [_group(samples, gaps, quality)]
    dataset.WaveformAnnotationSequence = [
        _text("\n".join([*_provenance(record.calibration, layout_name, context), *_printed(gaps, samples.shape[1])])),
        _text(
            f"Estimated by software: signal to noise {quality.estimated_snr_db:.0f} dB. " + " ".join(quality.warnings)
        ),
        *(_gap(number, gaps[lead]) for number, lead in enumerate(LEADS, start=1) if gaps[lead]),
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
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    file = Dataset(dataset)
    file.file_meta = meta
    buffer = BytesIO()
    dcmwrite(buffer, file, enforce_file_format=True)
    return buffer.getvalue()


def _source(context: StudyContext) -> str:
    if not context.source_sop_instance_uid:
        raise ValueError("the source has no SOP Instance UID to derive the waveform's from")
    return context.source_sop_instance_uid


def _samples(record: EcgRecord, sop_class: SopClass) -> Samples:
    """Return (12, n_samples) counts of 1 uV in the order of LEADS, PADDING where there is no signal."""
    n_samples = record.signal_mv.shape[1]
    if record.sampling_frequency_hz != SAMPLING_FREQUENCY_HZ:
        raise ValueError(f"the record is at {record.sampling_frequency_hz:g} Hz, {SAMPLING_FREQUENCY_HZ} Hz is written")
    if n_samples < 1 or (sop_class == "12-lead" and n_samples > MAXIMUM_12_LEAD_SAMPLES):
        raise ValueError(
            f"the record has {n_samples} samples a lead, a 12-Lead object holds 1 to {MAXIMUM_12_LEAD_SAMPLES}; "
            "send it as General ECG"
        )
    samples = np.full((len(LEADS), n_samples), PADDING, dtype=np.int16)
    for lead, signal_mv in zip(record.leads, record.signal_mv, strict=True):
        signal_uv = np.rint(signal_mv.astype(np.float64) * 1000.0)
        read = np.isfinite(signal_uv)
        peak_uv = float(np.abs(signal_uv[read]).max(initial=0.0))
        if peak_uv > np.iinfo(np.int16).max:
            raise ValueError(f"lead {lead} reaches {peak_uv / 1000:.1f} mV, 16 bits of 1 uV hold 32.767 mV")
        signal_uv[read & (signal_uv == PADDING)] = PADDING + 1
        samples[LEADS.index(lead), read] = signal_uv[read].astype(np.int16)
    return samples


def _runs(mask: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the runs of True as (first, last) sample positions, counted from 1, both ends inside."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return [(int(start) + 1, int(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def _in_zone(moment: datetime, offset: str) -> datetime:
    """Return `moment` in the zone that TimezoneOffsetFromUTC names; unchanged where it names none."""
    if not offset:
        return moment
    sign = -1 if offset.startswith("-") else 1
    return moment.astimezone(timezone(sign * timedelta(hours=int(offset[1:3]), minutes=int(offset[3:5]))))


def _put(dataset: Dataset, keyword: str, value: str) -> None:
    """Add a copied value as it is; whether its VR allows it is for `check_waveform`, which does not print it."""
    tag = tag_for_keyword(keyword)
    assert tag is not None
    dataset.add(DataElement(tag, dictionary_VR(tag), value, validation_mode=IGNORE))


def _code(value: str, scheme: str, meaning: str) -> list[Dataset]:
    """Return a code sequence's value: one item (PS3.3 section 8)."""
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = scheme
    item.CodeMeaning = meaning
    return [item]


def _identity(context: StudyContext) -> Dataset:
    """Patient and General Study modules (C.7.1.1, C.7.2.1), and the order: all copied."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for keyword, field in _COPIED.items():
        _put(dataset, keyword, getattr(context, field))
    for keyword, field in _COPIED_IF_KNOWN.items():
        if getattr(context, field):
            _put(dataset, keyword, getattr(context, field))
    if context.request_attributes_json:
        items = json.loads(context.request_attributes_json)
        dataset.RequestAttributesSequence = [Dataset.from_json(item) for item in items]
    return dataset


def _instance(
    dataset: Dataset, context: StudyContext, page_number: int, sop_class: SopClass, created_at: datetime
) -> None:
    """SOP Common, General Series and Waveform Identification modules (C.12.1, C.7.3.1, C.10.8)."""
    dataset.SOPClassUID = UID(SOP_CLASS_UIDS[sop_class])
    dataset.SOPInstanceUID = waveform_sop_instance_uid(context, page_number, sop_class)
    dataset.InstanceCreationDate = dataset.ContentDate = created_at.strftime("%Y%m%d")
    dataset.InstanceCreationTime = dataset.ContentTime = created_at.strftime("%H%M%S")
    dataset.Modality = "ECG"
    dataset.SeriesInstanceUID = derived_uid(_source(context), "series", sop_class, __version__)
    dataset.SeriesNumber = 1
    dataset.SeriesDescription = "12-lead ECG digitized from paper, unconfirmed"
    dataset.InstanceNumber = page_number
    _put(dataset, "AcquisitionDateTime", _recorded_at(context)[0] or created_at.strftime("%Y%m%d%H%M%S%z"))
    if context.source_series_instance_uid:
        related = Dataset()
        related.StudyInstanceUID = context.study_instance_uid
        related.SeriesInstanceUID = context.source_series_instance_uid
        related.PurposeOfReferenceCodeSequence = []
        dataset.RelatedSeriesSequence = [related]
    if context.source_sop_class_uid:
        source = Dataset()
        source.ReferencedSOPClassUID = context.source_sop_class_uid
        source.ReferencedSOPInstanceUID = context.source_sop_instance_uid
        source.PurposeOfReferenceCodeSequence = _code("121324", "DCM", "Source image")
        dataset.ReferencedInstanceSequence = [source]


def _recorded_at(context: StudyContext) -> tuple[str, str]:
    """Return when the ECG was recorded as a DT ("" = not known), and who says so, in words."""
    if context.acquisition_date_time:
        return context.acquisition_date_time, "as the source states"
    if context.study_date:
        return context.study_date + context.study_time, "not stated, the study's is given"
    return "", "not known, the time the gateway took the page is given"


def _equipment(dataset: Dataset, context: StudyContext, created_at: datetime) -> None:
    """General Equipment module (C.7.5.1) and the chain of equipment (C.12.1): scanner if known, then this software."""
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = MODEL_NAME
    dataset.SoftwareVersions = __version__
    chain = []
    if context.source_manufacturer and context.source_sop_class_uid:
        scanner = Dataset()
        scanner.PurposeOfReferenceCodeSequence = _code("DOCD", "DCM", "Document Digitizer Equipment")
        _put(scanner, "Manufacturer", context.source_manufacturer)
        if context.source_manufacturer_model_name:
            _put(scanner, "ManufacturerModelName", context.source_manufacturer_model_name)
        if context.source_device_serial_number:
            _put(scanner, "DeviceSerialNumber", context.source_device_serial_number)
        chain.append(scanner)
    ours = Dataset()
    ours.PurposeOfReferenceCodeSequence = _code("109102", "DCM", "Processing Equipment")
    ours.Manufacturer = MANUFACTURER
    ours.ManufacturerModelName = MODEL_NAME
    ours.SoftwareVersions = __version__
    ours.ContributionDateTime = created_at.strftime("%Y%m%d%H%M%S%z")
    ours.ContributionDescription = "Signals digitized from a picture of a paper ECG"
    dataset.ContributingEquipmentSequence = [*chain, ours]


def _lead_system() -> Dataset:
    """Acquisition context (TID 3401): a page does not say how the electrodes were placed."""
    item = Dataset()
    item.ValueType = "CODE"
    item.ConceptNameCodeSequence = _code("10:11345", "MDC", "Lead System")
    item.ConceptCodeSequence = _code("10:11264", "MDC", "Unspecified 12-lead system")
    return item


def _group(samples: Samples, gaps: dict[Lead, list[tuple[int, int]]], quality: Quality) -> Dataset:
    """Build the one multiplex group (C.10.9).

    DERIVED: the samples are neither measured at the patient nor copied from samples that were.
    """
    n_channels, n_samples = samples.shape
    group = Dataset()
    group.WaveformOriginality = "DERIVED"
    group.NumberOfWaveformChannels = n_channels
    group.NumberOfWaveformSamples = n_samples
    group.SamplingFrequency = SAMPLING_FREQUENCY_HZ
    group.MultiplexGroupLabel = "DIGITIZED PAPER"
    group.ChannelDefinitionSequence = [_channel(lead, _status(lead, gaps[lead], n_samples, quality)) for lead in LEADS]
    group.WaveformBitsAllocated = 16
    group.WaveformSampleInterpretation = "SS"
    group.add_new("WaveformPaddingValue", "OW", np.int16(PADDING).tobytes())
    group.add_new("WaveformData", "OW", samples.T.astype("<i2").tobytes())
    return group


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
    channel.ChannelSourceSequence = _code(_CODE_OF_LEAD[lead], "MDC", f"Lead {lead}")
    channel.ChannelSensitivity = 1
    channel.ChannelSensitivityUnitsSequence = _code("uV", "UCUM", "microvolt")
    channel.ChannelSensitivityCorrectionFactor = 1
    channel.ChannelBaseline = 0
    channel.ChannelSampleSkew = 0
    channel.WaveformBitsStored = 16
    channel.ChannelDerivationDescription = "Digitized from a picture of a paper ECG"
    return channel


def _provenance(calibration: Calibration, layout_name: str, context: StudyContext) -> list[str]:
    """Return in words how the samples came about, and what was read where."""
    gain = f"{calibration.gain_mm_per_mv:g} mm/mV"
    if calibration.chest_gain_mm_per_mv is not None:
        gain += f" (chest leads {calibration.chest_gain_mm_per_mv:g} mm/mV)"
    return [
        "Digitized from paper, unconfirmed. Flat parts marked as gaps are not printed on the page; they are no signal.",
        f"Layout {layout_name}. Paper speed {calibration.paper_speed_mm_per_s:g} mm/s "
        f"({_READ_FROM.get(calibration.speed_source, calibration.speed_source)}), gain {gain} "
        f"({_READ_FROM.get(calibration.gain_source, calibration.gain_source)}).",
        f"Time of recording: {_recorded_at(context)[1]}.",
    ]


def _printed(gaps: dict[Lead, list[tuple[int, int]]], n_samples: int) -> list[str]:
    """Return which leads are on the page, from where to where (gaps inside that span have their own annotation)."""
    spans = []
    for lead, runs in gaps.items():
        if runs == [(1, n_samples)]:
            continue
        first = runs[0][1] if runs and runs[0][0] == 1 else 0
        last = runs[-1][0] - 1 if runs and runs[-1][1] == n_samples else n_samples
        spans.append(f"{lead} {first / SAMPLING_FREQUENCY_HZ:.1f}-{last / SAMPLING_FREQUENCY_HZ:.1f}")
    return ["Printed (s): " + ", ".join(spans) + "."]


def _text(text: str) -> Dataset:
    """Annotate all channels of the group with a text (C.10.10)."""
    item = Dataset()
    item.UnformattedTextValue = text[:1024]  # ST
    item.ReferencedWaveformChannels = [1, 0]
    item.AnnotationGroupNumber = 1
    return item


def _gap(channel_number: int, runs: list[tuple[int, int]]) -> Dataset:
    """Annotate one channel's gaps (C.10.10)."""
    item = Dataset()
    item.ConceptNameCodeSequence = _code("10:11248", "MDC", "No ECG signal is available")
    item.ReferencedWaveformChannels = [1, channel_number]
    item.TemporalRangeType = "SEGMENT" if len(runs) == 1 else "MULTISEGMENT"
    item.ReferencedSamplePositions = [position for run in runs for position in run]
    item.AnnotationGroupNumber = 2
    return item
