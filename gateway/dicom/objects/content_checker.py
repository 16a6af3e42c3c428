"""Check a 12-Lead or General ECG Waveform object before it leaves.

Two halves: the attributes the module tables of PS3.3 A.34.3 demand (Type 1 present with a value, Type 2 present), and
the content constraints of A.34.3.4 and A.34.4.4 with the consistency rules of the Waveform module (C.10.9) and the
Waveform Annotation module (C.10.10).  The latter is what general validators miss: sampling frequency, number of groups
and channels, number of samples against the length of the data, codes of leads.

Every breach is collected, so one look at the message is enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydicom.config import RAISE
from pydicom.datadict import dictionary_VM
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import GeneralECGWaveformStorage, TwelveLeadECGWaveformStorage
from pydicom.valuerep import validate_value

from gateway.dicom.objects.uids import is_uid
from pipeline import Lead

LEAD_CODES: dict[str, Lead] = {  # CID 3001, coding scheme MDC
    "2:1": Lead.I,
    "2:2": Lead.II,
    "2:61": Lead.III,
    "2:62": Lead.AVR,
    "2:63": Lead.AVL,
    "2:64": Lead.AVF,
    "2:3": Lead.V1,
    "2:4": Lead.V2,
    "2:5": Lead.V3,
    "2:6": Lead.V4,
    "2:7": Lead.V5,
    "2:8": Lead.V6,
    "2:11": Lead.V3R,
    "2:12": Lead.V4R,
    "2:13": Lead.V5R,
    "2:14": Lead.V6R,
    "2:9": Lead.V7,
    "2:66": Lead.V8,
    "2:67": Lead.V9,
    "2:70": Lead.D,
    "2:71": Lead.A,
    "2:72": Lead.J,
    "2:16": Lead.X,
    "2:17": Lead.Y,
    "2:18": Lead.Z,
}
UNSPECIFIED_LEAD = "2:0"  # of the same; a lead whose name could not be read

_ROOT_TYPE_1 = (
    "SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID Modality InstanceNumber ContentDate ContentTime "
    "AcquisitionDateTime WaveformSequence"
).split()
_ROOT_TYPE_2 = (
    "PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime AccessionNumber ReferringPhysicianName "
    "StudyID SeriesNumber Manufacturer AcquisitionContextSequence"
).split()
_GROUP_TYPE_1 = (
    "WaveformOriginality NumberOfWaveformChannels NumberOfWaveformSamples SamplingFrequency ChannelDefinitionSequence "
    "WaveformBitsAllocated WaveformSampleInterpretation WaveformData"
).split()
_CHANNEL_TYPE_1 = "ChannelSourceSequence WaveformBitsStored".split()
_SENSITIVITY = (
    "ChannelSensitivity ChannelSensitivityUnitsSequence ChannelSensitivityCorrectionFactor ChannelBaseline".split()
)
_CODE_TYPE_1 = "CodeValue CodingSchemeDesignator CodeMeaning".split()
_SEQUENCE_ITEM_TYPE_1 = {
    "ReferencedInstanceSequence": "ReferencedSOPClassUID ReferencedSOPInstanceUID PurposeOfReferenceCodeSequence",
    "ContributingEquipmentSequence": "PurposeOfReferenceCodeSequence Manufacturer",
    "AcquisitionContextSequence": "ValueType ConceptNameCodeSequence",
    "RelatedSeriesSequence": "StudyInstanceUID SeriesInstanceUID",
}
_CODED = (
    "ChannelSourceSequence ChannelSensitivityUnitsSequence ConceptNameCodeSequence ConceptCodeSequence "
    "MeasurementUnitsCodeSequence"
).split()
_CHANNEL_STATUS = {"OK", "TEST DATA", "DISCONNECTED", "QUESTIONABLE", "INVALID", "UNCALIBRATED", "UNZEROED"}
_ONE_LINE = {"AE", "CS", "LO", "PN", "SH"}  # no control characters, with UTF-8 not even ESC
_TEMPORAL_RANGE_TYPES = {"POINT", "MULTIPOINT", "SEGMENT", "MULTISEGMENT", "BEGIN", "END"}


def check_waveform(dataset: Dataset) -> None:
    """Check that a data set is a 12-Lead (A.34.3) or General (A.34.4) ECG Waveform object.

    Raises
    ------
    ValueError
        The data set breaks the Standard; the message names every breach, and no patient data.
    """
    breaches = [*_root(dataset), *_values(dataset)]
    for number, group in enumerate(dataset.get("WaveformSequence") or (), start=1):
        breaches += [f"group {number}: {breach}" for breach in _group(group, dataset.get("SOPClassUID", ""))]
    for number, annotation in enumerate(dataset.get("WaveformAnnotationSequence") or (), start=1):
        breaches += [f"annotation {number}: {breach}" for breach in _annotation(annotation, dataset)]
    if breaches:
        raise ValueError("not a valid ECG waveform object: " + "; ".join(breaches))


def check_values(dataset: Dataset) -> None:
    """Check every value against its VR, and every code for its parts.

    Raises
    ------
    ValueError
        The message names every attribute whose value is wrong, and no value.
    """
    if breaches := list(_values(dataset)):
        raise ValueError("; ".join(breaches))


def _missing(item: Dataset, type_1: list[str], type_2: list[str] | tuple[str, ...] = ()) -> Iterator[str]:
    """Name the Type 1 attributes that are absent or empty and the Type 2 attributes that are absent."""
    for keyword in type_1:
        if keyword not in item:
            yield f"{keyword} (Type 1) is absent"
        elif item[keyword].is_empty:
            yield f"{keyword} (Type 1) is empty"
    for keyword in type_2:
        if keyword not in item:
            yield f"{keyword} (Type 2) is absent"


def _root(dataset: Dataset) -> Iterator[str]:
    yield from _missing(dataset, _ROOT_TYPE_1, _ROOT_TYPE_2)
    sop_class = dataset.get("SOPClassUID", "")
    if sop_class not in (TwelveLeadECGWaveformStorage, GeneralECGWaveformStorage):
        yield f"SOPClassUID {sop_class!r} is neither 12-Lead nor General ECG Waveform Storage"
    if dataset.get("Modality") != "ECG":
        yield f"Modality is {dataset.get('Modality')!r}, must be 'ECG'"
    if "Laterality" in dataset:
        yield "Laterality must be absent: an ECG is not of a paired body part"
    groups = dataset.get("WaveformSequence") or ()
    maximum = 5 if sop_class == TwelveLeadECGWaveformStorage else 4
    if len(groups) > maximum:
        yield f"WaveformSequence has {len(groups)} items, at most {maximum} are allowed"
    channels = sum(len(group.get("ChannelDefinitionSequence") or ()) for group in groups)
    if sop_class == TwelveLeadECGWaveformStorage and channels > 13:
        yield f"{channels} channels in all groups, a 12-Lead object holds at most 13"
    for keyword, names in _SEQUENCE_ITEM_TYPE_1.items():
        for number, item in enumerate(dataset.get(keyword) or (), start=1):
            yield from (f"{keyword} item {number}: {breach}" for breach in _missing(item, names.split()))


def _values(dataset: Dataset) -> Iterator[str]:
    """Check every value against its VR, and every code for its three Type 1 parts."""
    for element in dataset:
        name = element.keyword or str(element.tag)
        if element.VR == "SQ":
            for number, item in enumerate(element.value, start=1):
                if name in _CODED or name == "PurposeOfReferenceCodeSequence":
                    yield from (f"{name}: {breach}" for breach in _missing(item, _CODE_TYPE_1))
                yield from (f"{name} item {number}: {breach}" for breach in _values(item))
        elif not _follows_vr(element):
            yield f"{name} has a value that its VR {element.VR} forbids"


def _follows_vr(element: DataElement) -> bool:
    if element.is_empty or element.VR in ("OB", "OW", "UN"):
        return True
    if element.VM > 1 and not element.tag.is_private and dictionary_VM(element.tag) == "1":
        return False  # a backslash in a value
    for value in element.value if element.VM > 1 else [element.value]:
        if element.VR in _ONE_LINE and any(ord(character) < 32 or ord(character) == 127 for character in str(value)):
            return False
        if element.VR == "UI" and not is_uid(str(value)):
            return False
        try:
            validate_value(element.VR, str(value) if element.VR in ("DS", "IS", "PN") else value, RAISE)
        except ValueError:
            return False
    return True


def _group(group: Dataset, sop_class: str) -> Iterator[str]:
    yield from _missing(group, _GROUP_TYPE_1)
    channels = group.get("ChannelDefinitionSequence") or ()
    samples = int(group.get("NumberOfWaveformSamples") or 0)
    frequency = float(group.get("SamplingFrequency") or 0)
    twelve_lead = sop_class == TwelveLeadECGWaveformStorage
    maximum = 13 if twelve_lead else 24
    if group.get("NumberOfWaveformChannels") != len(channels):
        yield f"NumberOfWaveformChannels is {group.get('NumberOfWaveformChannels')} for {len(channels)} definitions"
    if not 1 <= len(channels) <= maximum:
        yield f"{len(channels)} channels, 1 to {maximum} are allowed"
    if not 200 <= frequency <= 1000:
        yield f"SamplingFrequency is {frequency:g} Hz, 200 to 1000 Hz are allowed"
    if samples < 1 or (twelve_lead and samples > 16384):
        yield f"NumberOfWaveformSamples is {samples}, 1 to 16384 are allowed"
    yield from _samples(group, len(channels), samples)
    for number, channel in enumerate(channels, start=1):
        yield from (f"channel {number}: {breach}" for breach in _channel(channel))


def _samples(group: Dataset, n_channels: int, n_samples: int) -> Iterator[str]:
    if group.get("WaveformOriginality") not in ("ORIGINAL", "DERIVED"):
        yield f"WaveformOriginality is {group.get('WaveformOriginality')!r}, must be 'ORIGINAL' or 'DERIVED'"
    if (group.get("WaveformBitsAllocated"), group.get("WaveformSampleInterpretation")) != (16, "SS"):
        yield "WaveformBitsAllocated and WaveformSampleInterpretation must be 16 and 'SS'"
    expected = 2 * n_channels * n_samples
    if len(group.get("WaveformData") or b"") != expected:
        yield f"WaveformData has {len(group.get('WaveformData') or b'')} bytes, {expected} follow from the counts"
    if "WaveformPaddingValue" in group and len(group.WaveformPaddingValue or b"") != 2:
        yield "WaveformPaddingValue must be one 16-bit sample"


def _channel(channel: Dataset) -> Iterator[str]:
    yield from _missing(channel, _CHANNEL_TYPE_1)
    sources = channel.get("ChannelSourceSequence") or ()
    if len(sources) != 1:
        yield f"ChannelSourceSequence has {len(sources)} items, must be one"
    for source in sources:
        code = (source.get("CodeValue"), source.get("CodingSchemeDesignator"))
        if code[1] != "MDC" or code[0] not in (*LEAD_CODES, UNSPECIFIED_LEAD):
            yield f"ChannelSourceSequence {code} is no lead of CID 3001"
    if channel.get("WaveformBitsStored") != 16:
        yield f"WaveformBitsStored is {channel.get('WaveformBitsStored')}, must be 16"
    yield from _missing(channel, _SENSITIVITY)  # 1C: present together, for samples with a unit
    if ("ChannelSampleSkew" in channel) == ("ChannelTimeSkew" in channel):
        yield "one of ChannelSampleSkew and ChannelTimeSkew must be present"
    if channel.get("ChannelStatus", "OK") not in _CHANNEL_STATUS:
        yield f"ChannelStatus {channel.ChannelStatus!r} is not defined"


def _annotation(annotation: Dataset, dataset: Dataset) -> Iterator[str]:
    if ("UnformattedTextValue" in annotation) == ("ConceptNameCodeSequence" in annotation):
        yield "one of UnformattedTextValue and ConceptNameCodeSequence must be present"
    yield from _missing(annotation, ["ReferencedWaveformChannels"])
    channels = _many(annotation.get("ReferencedWaveformChannels"))
    groups = dataset.get("WaveformSequence") or ()
    if len(channels) % 2:
        yield "ReferencedWaveformChannels must be pairs of group and channel"
    for group, channel in zip(channels[::2], channels[1::2], strict=False):
        if not 1 <= group <= len(groups):
            yield f"ReferencedWaveformChannels names group {group} of {len(groups)}"
            continue
        count = int(groups[group - 1].get("NumberOfWaveformChannels") or 0)
        if not 0 <= channel <= count:
            yield f"ReferencedWaveformChannels names channel {channel} of {count}"
        yield from _positions(annotation, int(groups[group - 1].get("NumberOfWaveformSamples") or 0))


def _positions(annotation: Dataset, n_samples: int) -> Iterator[str]:
    positions = _many(annotation.get("ReferencedSamplePositions"))
    range_type = annotation.get("TemporalRangeType")
    if range_type is None:
        if positions:
            yield "ReferencedSamplePositions without TemporalRangeType"
        return
    if range_type not in _TEMPORAL_RANGE_TYPES:
        yield f"TemporalRangeType {range_type!r} is not defined"
    if not positions:
        yield f"TemporalRangeType {range_type} without ReferencedSamplePositions"
    if range_type == "SEGMENT" and len(positions) != 2:
        yield f"a SEGMENT has 2 positions, not {len(positions)}"
    if range_type == "MULTISEGMENT" and len(positions) % 2:
        yield f"a MULTISEGMENT has pairs of positions, not {len(positions)}"
    if any(not 1 <= position <= n_samples for position in positions):
        yield f"ReferencedSamplePositions must lie in 1 to {n_samples}"


def _many(value: int | Sequence[int] | None) -> list[int]:
    """Return the integers of a value that pydicom gives as None, one number or many."""
    if value is None:
        return []
    return [value] if isinstance(value, int) else [int(number) for number in value]
