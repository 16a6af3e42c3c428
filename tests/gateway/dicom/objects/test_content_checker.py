"""Our own checker: a good object passes, and each single mutation of it is named."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable

import pytest
from pydicom import Dataset
from pydicom.sr.codedict import codes

from gateway.dicom.objects.content_checker import _GROUP_TYPE_1, _ROOT_TYPE_1, _ROOT_TYPE_2, LEAD_CODES, check_waveform
from gateway.dicom.objects.waveform import build_waveform
from gateway.settings import ObjectSettings
from tests.gateway.dicom.samples import make_page

Mutation = Callable[[Dataset], None]


def good(sop_class: str = "12-lead") -> Dataset:
    return build_waveform(make_page(), sop_class, ObjectSettings())  # type: ignore[arg-type]


def group(dataset: Dataset) -> Dataset:
    item: Dataset = dataset.WaveformSequence[0]
    return item


def channel(dataset: Dataset) -> Dataset:
    item: Dataset = group(dataset).ChannelDefinitionSequence[0]
    return item


def channels(dataset: Dataset, count: int) -> None:
    definitions = group(dataset).ChannelDefinitionSequence
    group(dataset).ChannelDefinitionSequence = [copy.deepcopy(definitions[i % 12]) for i in range(count)]
    group(dataset).NumberOfWaveformChannels = count
    group(dataset).WaveformData = b"\1\0" * 5000 * count


def put(item: Callable[[Dataset], Dataset], keyword: str, value: object) -> Mutation:
    return lambda dataset: setattr(item(dataset), keyword, value)


def drop(item: Callable[[Dataset], Dataset], keyword: str) -> Mutation:
    return lambda dataset: delattr(item(dataset), keyword)


def root(dataset: Dataset) -> Dataset:
    return dataset


def text(dataset: Dataset) -> Dataset:
    item: Dataset = dataset.WaveformAnnotationSequence[0]
    return item


def gap(dataset: Dataset) -> Dataset:
    item: Dataset = dataset.WaveformAnnotationSequence[2]
    return item


def lead(dataset: Dataset) -> Dataset:
    item: Dataset = channel(dataset).ChannelSourceSequence[0]
    return item


MUTANTS: dict[str, tuple[Mutation, str]] = {
    # the eight that a general validator misses
    "50 Hz": (put(group, "SamplingFrequency", 50), "50 Hz"),
    "2000 Hz": (put(group, "SamplingFrequency", 2000), "2000 Hz"),
    "modality": (put(root, "Modality", "OT"), "Modality is 'OT'"),
    "24 channels": (lambda d: channels(d, 24), "24 channels in all groups"),
    "6 groups": (lambda d: put(root, "WaveformSequence", [group(d)] * 6)(d), "6 items"),
    "20000 samples": (put(group, "NumberOfWaveformSamples", 20000), "NumberOfWaveformSamples is 20000"),
    "short data": (lambda d: put(group, "WaveformData", group(d).WaveformData[:-2])(d), "119998 bytes"),
    "unknown lead": (put(lead, "CodeValue", "2:999"), "no lead of CID 3001"),
    # the rest of the constraints
    "other class": (put(root, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.9.2.1"), "neither 12-Lead nor General"),
    "laterality": (put(root, "Laterality", ""), "Laterality"),
    "14 channels": (lambda d: channels(d, 14), "at most 13"),
    "channel count": (put(group, "NumberOfWaveformChannels", 11), "is 11 for 12 definitions"),
    "originality": (put(group, "WaveformOriginality", "COPIED"), "WaveformOriginality"),
    "bits": (put(group, "WaveformBitsAllocated", 8), "WaveformBitsAllocated"),
    "interpretation": (put(group, "WaveformSampleInterpretation", "US"), "'SS'"),
    "padding": (put(group, "WaveformPaddingValue", b"\0\0\0\0"), "WaveformPaddingValue"),
    "bits stored": (put(channel, "WaveformBitsStored", 12), "WaveformBitsStored"),
    "two sources": (lambda d: put(channel, "ChannelSourceSequence", [lead(d)] * 2)(d), "2 items"),
    "no skew": (drop(channel, "ChannelSampleSkew"), "ChannelTimeSkew"),
    "no unit": (drop(channel, "ChannelSensitivityUnitsSequence"), "ChannelSensitivityUnitsSequence"),
    "status": (put(channel, "ChannelStatus", "GOOD"), "ChannelStatus"),
    "code without meaning": (drop(lead, "CodeMeaning"), "CodeMeaning"),
    "text and concept": (lambda d: put(text, "ConceptNameCodeSequence", gap(d).ConceptNameCodeSequence)(d), "one of"),
    "no channels": (drop(gap, "ReferencedWaveformChannels"), "ReferencedWaveformChannels"),
    "channel 13": (put(gap, "ReferencedWaveformChannels", [1, 13]), "channel 13 of 12"),
    "group 2": (put(gap, "ReferencedWaveformChannels", [2, 1]), "group 2 of 1"),
    "position 0": (put(gap, "ReferencedSamplePositions", [0, 5]), "1 to 5000"),
    "position 5001": (put(gap, "ReferencedSamplePositions", [1, 5001]), "1 to 5000"),
    "three positions": (put(gap, "ReferencedSamplePositions", [1, 2, 3]), "SEGMENT has 2"),
    "no positions": (drop(gap, "ReferencedSamplePositions"), "without ReferencedSamplePositions"),
    "range type": (put(gap, "TemporalRangeType", "SPAN"), "'SPAN'"),
    "no range type": (drop(gap, "TemporalRangeType"), "without TemporalRangeType"),
    "source without class": (
        lambda d: delattr(d.ReferencedInstanceSequence[0], "ReferencedSOPClassUID"),
        "ReferencedSOP",
    ),
    "equipment without maker": (lambda d: delattr(d.ContributingEquipmentSequence[0], "Manufacturer"), "Manufacturer"),
}
MUTANTS |= {f"without {k}": (drop(root, k), f"{k} .Type 1. is absent") for k in _ROOT_TYPE_1}
MUTANTS |= {f"without {k}": (drop(root, k), f"{k} .Type 2. is absent") for k in _ROOT_TYPE_2}
MUTANTS |= {f"without {k}": (drop(group, k), f"{k} .Type 1. is absent") for k in _GROUP_TYPE_1}
MUTANTS |= {f"empty {k}": (put(root, k, None), f"{k} .Type 1. is empty") for k in _ROOT_TYPE_1}


@pytest.mark.parametrize("sop_class", ["12-lead", "general"])
def test_our_objects_pass(sop_class: str) -> None:
    check_waveform(good(sop_class))


@pytest.mark.parametrize("name", MUTANTS)
def test_each_mutant_is_named(name: str) -> None:
    mutate, expected = MUTANTS[name]
    dataset = good()
    mutate(dataset)
    with pytest.raises(ValueError, match=expected):
        check_waveform(dataset)


def test_a_bad_value_is_named_by_attribute_only() -> None:
    dataset = good()
    dataset["PatientID"]._value = "SECRET" * 20  # past pydicom's own check, as a tolerant reader would leave it
    dataset["StudyInstanceUID"]._value = "1.2.../../x"
    with pytest.raises(ValueError, match="PatientID has a value") as caught:
        check_waveform(dataset)
    assert "StudyInstanceUID has a value" in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_general_ecg_limits_differ() -> None:
    dataset = good("general")
    channels(dataset, 24)
    check_waveform(dataset)
    channels(dataset, 25)
    with pytest.raises(ValueError, match="25 channels, 1 to 24"):
        check_waveform(dataset)
    dataset = good("general")
    dataset.WaveformSequence = [group(dataset)] * 5
    with pytest.raises(ValueError, match="at most 4"):
        check_waveform(dataset)


def test_every_breach_is_in_one_message() -> None:
    dataset = good()
    dataset.Modality = "OT"
    group(dataset).SamplingFrequency = 50
    with pytest.raises(ValueError, match=r"(?s)Modality.*50 Hz"):
        check_waveform(dataset)


def test_lead_codes_are_those_of_the_context_group() -> None:
    concepts = [getattr(codes.cid3001, keyword) for keyword in codes.cid3001.dir()]
    meanings = {code.value: code.meaning for code in concepts if code.scheme_designator == "MDC"}
    for value, name in LEAD_CODES.items():
        assert re.split(r",| \(", meanings[value])[0].removeprefix("Lead ") == name
