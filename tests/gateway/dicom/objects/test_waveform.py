"""The waveform object: what a reader of the file finds in it."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from io import BytesIO

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import GeneralECGWaveformStorage, TwelveLeadECGWaveformStorage

from gateway.dicom.objects.uids import derived_uid, is_uid
from gateway.dicom.objects.waveform import build_waveform, encode, leads_left_out, waveform_sop_instance_uid
from gateway.settings import ObjectSettings, SeriesSettings
from pipeline import LEADS, EcgRecord, Lead
from tests.gateway.dicom.samples import COLUMNS, CONTEXT, make_page, make_quality, make_record, with_extra_leads
from tests.pipeline.signal.test_heart_rate import ecg


def build(
    record: EcgRecord | None = None,
    sop_class: str = "12-lead",
    objects: ObjectSettings = ObjectSettings(),  # noqa: B008 - frozen
    **changes: object,
) -> Dataset:
    return build_waveform(make_page(record, **changes), sop_class, objects)  # type: ignore[arg-type]


def read_back(dataset: Dataset) -> Dataset:
    return dcmread(BytesIO(encode(dataset)))


def with_signal(record: EcgRecord, lead: Lead, values: dict[int, float]) -> EcgRecord:
    signal_mv = record.signal_mv.copy()
    for index, value in values.items():
        signal_mv[LEADS.index(lead), index] = value
    return dataclasses.replace(record, signal_mv=signal_mv)


def gap_items(dataset: Dataset) -> dict[int, Dataset]:
    items = [item for item in dataset.WaveformAnnotationSequence if "ConceptNameCodeSequence" in item]
    return {item.ReferencedWaveformChannels[1]: item for item in items}


@pytest.mark.parametrize("layout", ["3x4+II", "6x2", "12x1"])
@pytest.mark.parametrize("sop_class", ["12-lead", "general"])
def test_samples_come_back_to_half_a_microvolt(layout: str, sop_class: str) -> None:
    record = make_record(layout)
    dataset = read_back(build(record, sop_class=sop_class))
    counts = np.frombuffer(dataset.WaveformSequence[0].WaveformData, "<i2").reshape(-1, 12).T
    printed = ~np.isnan(record.signal_mv)
    assert np.array_equal(counts != 0, printed)
    difference_uv = counts[printed] - record.signal_mv[printed] * 1000.0
    measured_zero = counts[printed] == 1
    assert np.abs(difference_uv[~measured_zero]).max() <= 0.51
    assert np.abs(difference_uv[measured_zero]).max() <= 1.51
    assert np.allclose(dataset.waveform_array(0).T, counts)  # pydicom applies sensitivity, correction and baseline


def test_one_group_of_twelve_channels_at_one_microvolt_a_count() -> None:
    dataset = read_back(build())
    (group,) = dataset.WaveformSequence
    assert (group.NumberOfWaveformChannels, group.NumberOfWaveformSamples, group.SamplingFrequency) == (12, 5000, 500)
    assert group.WaveformOriginality == "DERIVED"
    assert group.WaveformPaddingValue == b"\0\0"
    meanings = [channel.ChannelSourceSequence[0].CodeMeaning for channel in group.ChannelDefinitionSequence]
    assert meanings == [f"Lead {lead}" for lead in LEADS]
    for channel in group.ChannelDefinitionSequence:
        assert channel.ChannelSensitivity == channel.ChannelSensitivityCorrectionFactor == 1
        assert channel.ChannelBaseline == 0
        assert channel.ChannelSensitivityUnitsSequence[0].CodeValue == "uV"


def test_a_measured_zero_is_not_padding() -> None:
    dataset = build(with_signal(make_record("12x1"), Lead.I, {10: 0.0, 11: 0.0004, 12: -0.0004}))
    counts = np.frombuffer(dataset.WaveformSequence[0].WaveformData, "<i2").reshape(-1, 12)
    assert counts[10:13, 0].tolist() == [1, 1, 1]
    assert gap_items(dataset) == {}


def test_every_gap_is_annotated_and_the_rhythm_lead_has_none() -> None:
    gaps = gap_items(build(make_record("3x4+II")))
    assert sorted(gaps) == [1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]  # all but II
    assert list(gaps[1].ReferencedSamplePositions) == [1251, 5000]
    assert gaps[1].TemporalRangeType == "SEGMENT"
    assert list(gaps[4].ReferencedSamplePositions) == [1, 1250, 2501, 5000]
    assert gaps[4].TemporalRangeType == "MULTISEGMENT"
    assert gaps[4].ConceptNameCodeSequence[0].CodeMeaning == "No ECG signal is available"


def test_a_hole_of_one_sample_is_a_gap() -> None:
    gaps = gap_items(build(with_signal(make_record("12x1"), Lead.V3, {100: np.nan})))
    assert list(gaps[9].ReferencedSamplePositions) == [101, 101]


def test_leads_not_on_the_page_are_channels_of_padding_marked_invalid() -> None:
    record = make_record("12x1")
    limb = dataclasses.replace(
        record, signal_mv=record.signal_mv[:6], confidence=record.confidence[:6], leads=LEADS[:6]
    )
    dataset = read_back(build(limb))
    channels = dataset.WaveformSequence[0].ChannelDefinitionSequence
    assert [channel.ChannelStatus for channel in channels] == ["OK"] * 6 + ["INVALID"] * 6
    assert list(gap_items(dataset)[12].ReferencedSamplePositions) == [1, 5000]


EXTRA = (Lead.V3R, Lead.V4R, Lead.V7, Lead.V9, Lead.UNNAMED_1)


@pytest.mark.parametrize("sop_class", ["general", "12-lead-or-general"])
def test_a_general_object_has_every_lead_of_the_page(sop_class: str) -> None:
    record = with_extra_leads(make_record("6x2"), EXTRA)
    dataset = read_back(build(record, sop_class=sop_class))
    assert dataset.SOPClassUID == GeneralECGWaveformStorage
    (group,) = dataset.WaveformSequence
    sources = [channel.ChannelSourceSequence[0] for channel in group.ChannelDefinitionSequence]
    assert [source.CodeMeaning for source in sources[:-1]] == [f"Lead {lead}" for lead in record.leads[:-1]]
    assert [source.CodeValue for source in sources[12:]] == ["2:11", "2:12", "2:9", "2:67", "2:0"]
    counts = np.frombuffer(group.WaveformData, "<i2").reshape(-1, 17).T
    printed = ~np.isnan(record.signal_mv)
    assert np.abs(counts[printed] - 1000.0 * record.signal_mv[printed]).max() <= 1.51
    assert leads_left_out(record, sop_class) == ()  # type: ignore[arg-type]
    assert "V9 0.0-5.0" in dataset.WaveformAnnotationSequence[0].UnformattedTextValue
    assert dataset.AcquisitionContextSequence[0].ConceptCodeSequence[0].CodeValue == "10:11290"


@pytest.mark.parametrize("sop_class", ["12-lead", "12-lead-groups"])
def test_a_12_lead_object_says_which_leads_it_leaves_out(sop_class: str) -> None:
    record = with_extra_leads(make_record("6x2"), EXTRA)
    dataset = read_back(build(record, sop_class=sop_class, columns=(LEADS[:6], (*LEADS[6:], *EXTRA))))
    assert dataset.SOPClassUID == TwelveLeadECGWaveformStorage
    assert sum(group.NumberOfWaveformChannels for group in dataset.WaveformSequence) == 12
    assert "not in this object of twelve leads: V3R, V4R, V7, V9, ?1" in str(dataset.WaveformAnnotationSequence[0])
    assert leads_left_out(record, sop_class) == EXTRA  # type: ignore[arg-type]


def test_a_page_of_the_twelve_leads_is_a_12_lead_object() -> None:
    assert build(sop_class="12-lead-or-general").SOPClassUID == TwelveLeadECGWaveformStorage


def test_badly_read_leads_are_questionable() -> None:
    quality = make_quality(
        coverage={**dict.fromkeys(LEADS, 1.0), Lead.V1: 0.5}, confidence={**dict.fromkeys(LEADS, 0.9), Lead.AVR: 0.2}
    )
    channels = build(quality=quality).WaveformSequence[0].ChannelDefinitionSequence
    status = {channel.ChannelLabel: channel.ChannelStatus for channel in channels}
    assert {label for label, value in status.items() if value == "QUESTIONABLE"} == {"V1", "aVR"}


def test_identity_and_order_are_copied_and_the_source_is_referenced() -> None:
    dataset = read_back(build())
    assert (dataset.PatientID, str(dataset.PatientName), dataset.PatientSex) == ("P-1001", "Muster^Zoë", "F")
    assert (dataset.StudyInstanceUID, dataset.AccessionNumber) == ("2.25.1001", "A1001")
    assert dataset.SpecificCharacterSet == "ISO_IR 192"
    assert dataset.RequestAttributesSequence[0].RequestedProcedureID == "RP1"
    source = dataset.ReferencedInstanceSequence[0]
    assert source.ReferencedSOPInstanceUID == "2.25.1003"
    assert source.PurposeOfReferenceCodeSequence[0].CodeValue == "121324"
    assert dataset.SeriesInstanceUID not in ("2.25.1002", dataset.SOPInstanceUID)
    purposes = [item.PurposeOfReferenceCodeSequence[0].CodeValue for item in dataset.ContributingEquipmentSequence]
    assert purposes == ["DOCD", "109102"]
    assert dataset.AcquisitionDateTime == "20260301093000"


def test_a_source_that_is_no_dicom_object_is_not_referenced() -> None:
    dataset = build(context=CONTEXT.model_copy(update={"source_sop_class_uid": "", "source_series_instance_uid": ""}))
    assert "ReferencedInstanceSequence" not in dataset
    assert "RelatedSeriesSequence" not in dataset
    encode(dataset)


@pytest.mark.parametrize(
    ("update", "expected", "words"),
    [
        ({"acquisition_date_time": ""}, "20260301100000", "not stated"),
        ({"acquisition_date_time": "", "study_date": ""}, "20260301101530+0000", "not known"),
        (
            {"acquisition_date_time": "", "study_date": "", "timezone_offset_from_utc": "-0330"},
            "20260301064530-0330",
            "not known",
        ),
    ],
)
def test_time_of_recording_says_where_it_is_from(update: dict[str, str], expected: str, words: str) -> None:
    dataset = build(context=CONTEXT.model_copy(update=update))
    assert dataset.AcquisitionDateTime == expected
    assert words in dataset.WaveformAnnotationSequence[0].UnformattedTextValue


def test_the_text_says_paper_unconfirmed_layout_speed_and_gain() -> None:
    text = build().WaveformAnnotationSequence[0].UnformattedTextValue
    for words in ["Digitized from paper, unconfirmed", "3x4+R", "25 mm/s (read in print)", "10 mm/mV (read from the"]:
        assert words in text
    assert "II 0.0-10.0" in text and "aVR 2.5-5.0" in text


def test_same_inputs_same_bytes_and_uids_tell_pages_classes_and_sources_apart() -> None:
    assert encode(build()) == encode(build())
    other = CONTEXT.model_copy(update={"source_sop_instance_uid": "2.25.1004"})
    uids = {
        waveform_sop_instance_uid(CONTEXT, 1, "12-lead"),
        waveform_sop_instance_uid(CONTEXT, 2, "12-lead"),
        waveform_sop_instance_uid(CONTEXT, 1, "general"),
        waveform_sop_instance_uid(other, 1, "12-lead"),
    }
    assert len(uids) == 4
    assert all(is_uid(uid) for uid in uids)
    assert build().SOPInstanceUID == waveform_sop_instance_uid(CONTEXT, 1, "12-lead")


def test_derived_uids_keep_parts_apart() -> None:
    assert derived_uid("ab", "c") != derived_uid("a", "bc")


def test_a_page_longer_than_a_12_lead_object_is_refused_not_cut() -> None:
    record = make_record("12x1", n_samples=16385)
    with pytest.raises(ValueError, match="16385 samples"):
        build(record)
    assert read_back(build(record, sop_class="general")).WaveformSequence[0].NumberOfWaveformSamples == 16385


@pytest.mark.parametrize("voltage_mv", [32.768, -40.0])
def test_voltage_beyond_16_bits_is_refused_not_clipped(voltage_mv: float) -> None:
    with pytest.raises(ValueError, match="lead aVL reaches"):
        build(with_signal(make_record("12x1"), Lead.AVL, {5: voltage_mv}))


def test_missing_uids_naive_time_and_other_rates_are_refused() -> None:
    with pytest.raises(ValueError, match="Study Instance UID"):
        build(context=CONTEXT.model_copy(update={"study_instance_uid": ""}))
    with pytest.raises(ValueError, match="SOP Instance UID"):
        build(context=CONTEXT.model_copy(update={"source_sop_instance_uid": ""}))
    with pytest.raises(ValueError, match="time zone"):
        build(created_at=datetime(2026, 3, 1))
    with pytest.raises(ValueError, match="250 Hz"):
        build(dataclasses.replace(make_record(), sampling_frequency_hz=250.0))


def test_identity_that_breaks_its_vr_is_refused_without_being_named() -> None:
    context = CONTEXT.model_copy(update={"accession_number": "SECRET-" + "7" * 20})
    with pytest.raises(ValueError, match="AccessionNumber") as caught:
        encode(build(context=context))
    assert "SECRET" not in str(caught.value)


def test_groups_are_the_printed_columns_and_the_strip() -> None:
    record = make_record("3x4+II")
    dataset = read_back(build(record, sop_class="12-lead-groups", columns=(*COLUMNS, (Lead.II,))))
    groups = dataset.WaveformSequence
    assert [group.NumberOfWaveformChannels for group in groups] == [3, 3, 3, 3, 1]
    assert [group.MultiplexGroupTimeOffset for group in groups] == [0, 2500, 5000, 7500, 0]
    assert [group.NumberOfWaveformSamples for group in groups] == [1250] * 4 + [5000]
    labels = [[channel.ChannelLabel for channel in group.ChannelDefinitionSequence] for group in groups]
    assert labels == [[lead.value for lead in leads] for leads in (*COLUMNS, (Lead.II,))]
    for number, group in enumerate(groups):
        start = 1250 * (number % 4)
        counts = dataset.waveform_array(number)
        for channel, label in enumerate(labels[number]):
            signal = record.signal_mv[LEADS.index(Lead(label)), start : start + group.NumberOfWaveformSamples]
            assert np.nanmax(np.abs(counts[:, channel] - 1000 * signal)) <= 1.51
    assert gap_items(dataset) == {}  # nothing is missing in any group


def test_three_strips_leave_their_columns_since_13_channels_are_all() -> None:
    record = make_record("3x4+II")
    for lead in (Lead.V1, Lead.V5):
        record.signal_mv[LEADS.index(lead)] = record.signal_mv[1]
    strips = (Lead.V1, Lead.II, Lead.V5)
    groups = build(record, sop_class="12-lead-groups", columns=(*COLUMNS, strips)).WaveformSequence
    assert [group.NumberOfWaveformChannels for group in groups] == [2, 3, 2, 2, 3]


def test_certain_heart_rate_is_annotated_and_can_be_left_out() -> None:
    (rate,) = [i for i in build(ecg([60 / 75] * 12)).WaveformAnnotationSequence if "NumericValue" in i]
    concept, units = rate.ConceptNameCodeSequence[0], rate.MeasurementUnitsCodeSequence[0]
    assert (concept.CodeValue, concept.CodingSchemeDesignator, concept.CodeMeaning) == ("2:16016", "MDC", "VRate")
    assert (units.CodeValue, units.CodingSchemeDesignator) == ("{H.B.}/min", "UCUM")
    assert rate.NumericValue == 75
    encode(build(ecg([60 / 75] * 12)))
    silent = build(ecg([60 / 75] * 12), objects=ObjectSettings(heart_rate=False))
    assert not [item for item in silent.WaveformAnnotationSequence if "NumericValue" in item]
    assert not [item for item in build().WaveformAnnotationSequence if "NumericValue" in item]


def test_a_correction_is_another_object_and_says_so() -> None:
    first, second = build(), build(revision=1)
    assert first.SOPInstanceUID != second.SOPInstanceUID == waveform_sop_instance_uid(CONTEXT, 1, "12-lead", 1)
    assert first.SeriesInstanceUID != second.SeriesInstanceUID
    assert second.SeriesDescription == first.SeriesDescription + ", corrected"
    assert "takes the place of an earlier" in second.WaveformAnnotationSequence[0].UnformattedTextValue


def test_numbers_descriptions_and_private_figures_are_configurable() -> None:
    objects = ObjectSettings(
        first_instance_number=100,
        private_creator="SITE 1",
        waveform=SeriesSettings(number=900, description="EKG aus Papier"),
    )
    dataset = read_back(build(page_number=2, objects=objects))
    assert (dataset.SeriesNumber, dataset.InstanceNumber) == (900, 101)
    assert dataset.SeriesDescription == "EKG aus Papier"
    block = dataset.private_block(0x0099, "SITE 1")
    assert [block[element].value for element in (1, 2, 3, 4)] == [17.3, 1.0, "3x4+R", 0.95]
    assert not [element for element in build() if element.tag.is_private]
