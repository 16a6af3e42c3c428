"""Pages and context from DICOM files: every pixel form, every lie, every odd character set."""

from __future__ import annotations

import base64
import json
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from pydicom import DataElement, Dataset
from pydicom.config import IGNORE
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    RLELossless,
    TwelveLeadECGWaveformStorage,
    VLPhotographicImageStorage,
)

from gateway.dicom.images.pages import read_context, read_instance, read_whole
from gateway.dicom.objects.waveform import build_waveform, encode
from gateway.errors import UndecodableDataset, UnsupportedSopClass
from gateway.settings import ObjectSettings
from tests.gateway.dicom.samples import (
    compressed,
    make_page,
    page_pixels,
    part10,
    read_pages,
    secondary_capture,
)

# 16 x 24 RGB, pixel (y, x) = (10 x, 15 y, 6 (x + y)), lossless High-Throughput JPEG 2000 (written with OpenJPH)
HTJ2K_FRAME = base64.b64decode(
    "/0//UQAvQAAAAAAYAAAAEAAAAAAAAAAAAAAAGAAAABAAAAAAAAAAAAADBwEBBwEBBwEB/1AACAACAAAAA/9SAAwAAgABAQUEBEAB"
    "/1wAEyBQWFhYWFhYWFhYWFhYUFBQ/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAVUAAf+TwBKA6QCHdADAEoDyAMd0"
    "AMASgPwAx3QAwAlAiAEHdADACUDMAQd0AMAJQFYBh3QAwAjgBMAXcwCiogBCNADACSAEwP0ncwCjowBCNADACWAE4PsAR3QAESP+"
    "AGI0AMAJoAVAoviAC3QAUAj6AOR3VQDACaAFQLb9gAt0ANEo+gDkd1UAwAmgBUha7YCLdACHh8MAAAB3VgDACeAFYAAA2KfCdQCm"
    "McaY4AD2AAHsuADACeAFYKqq2KfCdQDnOeec4AD2AAHsuADACogBWowx9tpwAnUAw2EYhuHgCPYQgey4AMAVUAWkqqrz8Cnp6eJ4"
    "ABAAAAAAAP7/HJ798nv3yey7AMAVcAWkkiRJ8/Cnp6dCeAAxIiIiIiL+/xye/fJ798nsuwDAFZAFoiIiIiLz8Kenp8J4AL27u7u7"
    "u/8cnv3ye/fJ7LsA/9k="
)


def one_page(data: bytes) -> np.ndarray:
    (page,) = read_pages(data)
    return page.pixels


def gray(values: np.ndarray, **attributes: object) -> np.ndarray:
    return one_page(part10(secondary_capture(values[:, :, np.newaxis], **attributes)))[:, :, 0]


def encapsulated(frame: bytes, syntax: str, **attributes: object) -> bytes:
    dataset = secondary_capture(**attributes)
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    return part10(dataset, syntax)


# ---- pixels


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_uncompressed_rgb_comes_back_as_it_is(syntax: str) -> None:
    assert np.array_equal(one_page(part10(secondary_capture(), syntax)), page_pixels())


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_lossless_rgb_comes_back_as_it_is(syntax: str) -> None:
    assert np.array_equal(one_page(compressed(secondary_capture(), syntax)), page_pixels())


@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2K])
def test_high_throughput_jpeg_2000_comes_back_as_it_is(syntax: str) -> None:
    y, x = np.mgrid[:16, :24]
    expected = np.stack([10 * x, 15 * y, 6 * (x + y)], axis=-1)
    assert np.array_equal(one_page(encapsulated(HTJ2K_FRAME, syntax, Rows=16, Columns=24)), expected)


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("SC_rgb_jpeg_gdcm.dcm", 0),  # JPEG lossless, process 14 selection value 1
        ("SC_rgb_jls_lossy_line.dcm", 2),  # JPEG-LS near-lossless
        ("SC_rgb_dcmtk_+eb+cr.dcm", 2),  # JPEG baseline, RGB
        ("SC_rgb_dcmtk_+eb+cy+s2.dcm", 5),  # JPEG baseline, YBR_FULL_422
        ("SC_rgb_dcmtk_+eb+cy+s4.dcm", 5),  # JPEG baseline, YBR_FULL, 4:2:0
        ("SC_ybr_full_422_uncompressed.dcm", 5),
        ("SC_rgb_rle_16bit.dcm", 0),
    ],
)
def test_colour_in_every_coding_shows_the_same_picture(name: str, tolerance: int) -> None:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    pixels = one_page(Path(path).read_bytes()).astype(int)
    assert pixels.shape == (100, 100, 3)
    bands = {5: (255, 0, 0), 25: (0, 255, 0), 45: (0, 0, 255), 75: (64, 64, 64)}
    for row, colour in bands.items():
        assert np.abs(pixels[row, 50] - colour).max() <= tolerance


def test_planar_configuration_one_is_interleaved() -> None:
    planes = np.ascontiguousarray(page_pixels().transpose(2, 0, 1))
    data = part10(secondary_capture(PlanarConfiguration=1, PixelData=planes.tobytes()))
    assert np.array_equal(one_page(data), page_pixels())


def test_monochrome_8_bits_keeps_its_range_and_monochrome1_is_inverted() -> None:
    ramp = np.tile(np.arange(50, 150, dtype=np.uint8), (4, 1))
    assert np.array_equal(gray(ramp), ramp)
    assert np.array_equal(gray(ramp, PhotometricInterpretation="MONOCHROME1"), 255 - ramp)


def test_16_bits_are_stretched_and_a_window_clips() -> None:
    ramp = np.tile(np.linspace(1000, 3000, 101).astype(np.uint16), (4, 1))
    stretched = gray(ramp, BitsStored=12, HighBit=11)
    assert (stretched[0, 0], stretched[0, 50], stretched[0, 100]) == (0, 128, 255)
    windowed = gray(ramp, BitsStored=12, HighBit=11, WindowCenter=1500, WindowWidth=200)
    assert windowed[0, 19] == 0 and windowed[0, 31] == 255
    assert 120 <= windowed[0, 25] <= 136


def test_rescale_comes_before_the_window() -> None:
    ramp = np.tile(np.arange(0, 200, dtype=np.uint8), (4, 1))
    window = {"RescaleSlope": 2, "RescaleIntercept": -100, "WindowCenter": 100, "WindowWidth": 100}
    shown = gray(ramp, **window)
    assert shown[0, 74] == 0 and shown[0, 126] == 255
    assert 120 <= shown[0, 100] <= 136


def test_a_blank_16_bit_page_is_white() -> None:
    assert gray(np.full((4, 100), 700, np.uint16)).min() == 255


def test_single_bit_frames_are_black_and_white() -> None:
    bits = (np.arange(8 * 16).reshape(8, 16) % 3 == 0).astype(np.uint8)
    dataset = secondary_capture(np.zeros((8, 16, 1), np.uint8))
    dataset.BitsAllocated = dataset.BitsStored = 1
    dataset.HighBit = 0
    dataset.PixelData = np.packbits(bits.ravel(), bitorder="little").tobytes()
    assert np.array_equal(one_page(part10(dataset))[:, :, 0], bits * 255)


def test_palette_colour_is_looked_up() -> None:
    indices = np.tile(np.arange(4, dtype=np.uint8), (2, 2))
    dataset = secondary_capture(indices[:, :, np.newaxis], PhotometricInterpretation="PALETTE COLOR")
    tables = {"Red": [255, 0, 0, 9], "Green": [0, 255, 0, 99], "Blue": [0, 0, 255, 199]}
    for colour, values in tables.items():
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [4, 0, 16])
        dataset.add_new(
            f"{colour}PaletteColorLookupTableData", "OW", struct.pack("<4H", *[value * 257 for value in values])
        )
    assert one_page(part10(dataset))[0, :4].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 99, 199]]


def test_frames_are_pages_in_order() -> None:
    frames = np.stack([page_pixels(), 255 - page_pixels()])
    dataset = secondary_capture(
        SOPClassUID=MultiFrameTrueColorSecondaryCaptureImageStorage, NumberOfFrames=2, PixelData=frames.tobytes()
    )
    pages = read_pages(part10(dataset))
    assert [page.page_number for page in pages] == [1, 2]
    assert all(np.array_equal(page.pixels, frame) for page, frame in zip(pages, frames, strict=True))


def test_pixels_that_are_not_square_are_made_square() -> None:
    twice_as_tall = part10(secondary_capture(PixelAspectRatio=[2, 1]))
    pixels = one_page(twice_as_tall)
    assert pixels.shape == (96, 64, 3)
    assert np.abs(pixels[::2].astype(int) - page_pixels()).max() <= 64
    assert np.array_equal(pixels[0], page_pixels()[0])
    spaced = read_pages(part10(secondary_capture(NominalScannedPixelSpacing=[2.0, 4.0])))[0]
    assert spaced.pixels.shape == (48, 128, 3)
    assert spaced.px_per_mm_hint is None  # half a pixel a millimetre is no scanner


@pytest.mark.parametrize(
    ("keyword", "spacing_mm", "expected"),
    [
        ("NominalScannedPixelSpacing", 0.25, 4.0),
        ("PixelSpacing", 0.125, 8.0),
        ("ImagerPixelSpacing", 0.25, 4.0),
        ("PixelSpacing", 1.0, None),  # a default nobody measured
        ("PixelSpacing", 0.01, None),  # 2540 dpi
        ("PixelSpacing", 0.02, None),  # 50 px/mm, but then the sheet is 20 mm wide
    ],
)
def test_resolution_is_taken_where_it_is_plausible(keyword: str, spacing_mm: float, expected: float | None) -> None:
    pixels = np.full((800, 1000, 1), 255, np.uint8)
    data = part10(secondary_capture(pixels, **{keyword: [spacing_mm, spacing_mm]}))
    assert read_pages(data)[0].px_per_mm_hint == expected


# ---- lies and limits


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"Rows": 47}, "9216 bytes, but 1 frames of 47 rows"),
        ({"Columns": 65}, "PixelData has 9216 bytes"),
        ({"NumberOfFrames": 2}, "2 frames of 48 rows"),
        ({"NumberOfFrames": 0}, "NumberOfFrames must be"),
        ({"NumberOfFrames": 2_000_000_000}, "NumberOfFrames must be"),
        ({"Rows": 0}, "Rows must be"),
        ({"Rows": None}, "Rows must be"),
        ({"Rows": 20000, "Columns": 20000}, "too many"),
        ({"BitsAllocated": 32, "BitsStored": 32}, "BitsAllocated must be"),
        ({"BitsStored": 12}, "are not read here"),
        ({"SamplesPerPixel": 2}, "are not read here"),
        ({"PixelData": None}, "no pixel data"),
        ({"PhotometricInterpretation": "HSV"}, "PhotometricInterpretation does not fit 3"),
        ({"PhotometricInterpretation": None}, "PhotometricInterpretation does not fit 3"),
    ],
)
def test_an_image_that_contradicts_itself_is_refused_with_the_numbers(
    attributes: dict[str, object], reason: str
) -> None:
    with pytest.raises(UndecodableDataset, match=reason):
        read_pages(part10(secondary_capture(**attributes)))


def test_rows_as_a_long_number_is_refused() -> None:
    dataset = secondary_capture(Rows=None)
    dataset.add_new("Rows", "UL", 0x10000)
    with pytest.raises(UndecodableDataset, match="Rows must be"):
        read_pages(part10(dataset))


def test_a_short_palette_is_refused() -> None:
    dataset = secondary_capture(np.full((2, 2, 1), 3, np.uint8), PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [4, 0, 16])
        dataset.add_new(f"{colour}PaletteColorLookupTableData", "OW", b"\0\0")
    with pytest.raises(UndecodableDataset, match="cannot be decoded"):
        read_pages(part10(dataset))


def test_a_compressed_frame_larger_than_it_says_is_refused_before_decoding() -> None:
    huge = HTJ2K_FRAME.replace(struct.pack(">II", 24, 16), struct.pack(">II", 60000, 60000), 1)
    with pytest.raises(UndecodableDataset, match="compressed as 60000 x 60000"):
        read_pages(encapsulated(huge, HTJ2KLossless, Rows=16, Columns=24))
    jpeg = b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 17, 8, 50000, 50001, 3) + b"\0" * 40
    with pytest.raises(UndecodableDataset, match="compressed as 50000 x 50001"):
        read_pages(encapsulated(jpeg, JPEGBaseline8Bit))


@pytest.mark.parametrize("frame", [b"\xff\xd8", b"\xff\xd8\xff\xd8\xff\xd8", b"\0\0", b"cat" * 99, HTJ2K_FRAME[:30]])
@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEG2000Lossless, RLELossless])
def test_rubbish_in_a_compressed_frame_is_refused(frame: bytes, syntax: str) -> None:
    with pytest.raises(UndecodableDataset):
        read_pages(encapsulated(frame, syntax))


def test_a_truncated_jpeg_is_refused_or_shown_but_does_not_escape() -> None:
    path = get_testdata_file("SC_rgb_jpeg_gdcm.dcm", download=False)
    assert isinstance(path, str)
    whole = read_pages(Path(path).read_bytes())
    frame_bytes = Path(path).read_bytes()[-2000:-1000]
    with pytest.raises(UndecodableDataset):
        read_pages(encapsulated(b"\xff\xd8" + frame_bytes, JPEGBaseline8Bit))
    assert whole


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom says that the file ends early
@pytest.mark.parametrize("length", [0, 100, 132, 140, 300, 700, -1, -5000])
def test_a_truncated_file_is_refused(length: int) -> None:
    with pytest.raises((UndecodableDataset, UnsupportedSopClass)):
        read_pages(part10(secondary_capture())[:length])


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom says what is wrong with the mutants
def test_mutated_files_are_read_or_refused_and_nothing_else() -> None:
    files = [
        part10(secondary_capture()),
        compressed(secondary_capture(), RLELossless),
        compressed(secondary_capture(), JPEG2000Lossless),
        encapsulated(HTJ2K_FRAME, HTJ2KLossless, Rows=16, Columns=24),
        encapsulated_pdf(b"%PDF-1.4 xx"),
    ]
    rng = np.random.default_rng(20260301)
    outcomes = set()
    for number in range(500):
        changed = bytearray(files[number % len(files)])
        for _ in range(int(rng.integers(1, 6))):
            changed[int(rng.integers(len(changed)))] = int(rng.integers(256))
        try:
            read_pages(bytes(changed))
            outcomes.add("read")
        except (UndecodableDataset, UnsupportedSopClass) as error:
            outcomes.add(type(error).__name__)
    assert outcomes == {"read", "UndecodableDataset", "UnsupportedSopClass"}


def test_deflated_and_big_endian_are_refused_before_they_are_inflated() -> None:
    deflated = part10(secondary_capture(), DeflatedExplicitVRLittleEndian)
    with pytest.raises(UndecodableDataset, match=r"1\.2\.840\.10008\.1\.2\.1\.99 is not read"):
        read_context(deflated)


def test_waveforms_are_recognised_and_other_classes_named() -> None:
    waveform = build_waveform(make_page(layout_name="3x4"), "12-lead", ObjectSettings())
    with pytest.raises(UnsupportedSopClass, match="signals already"):
        read_instance(encode(waveform))
    assert read_context(encode(waveform)).source_sop_class_uid == TwelveLeadECGWaveformStorage
    with pytest.raises(UnsupportedSopClass, match=r"1\.2\.840\.10008\.5\.1\.4\.1\.1\.2 holds no pages"):
        read_instance(part10(secondary_capture(SOPClassUID="1.2.840.10008.5.1.4.1.1.2")))


# ---- documents


def encapsulated_pdf(document: bytes, **attributes: object) -> bytes:
    dataset = Dataset()
    dataset.SOPClassUID = EncapsulatedPDFStorage
    dataset.SOPInstanceUID = "2.25.77"
    dataset.PatientID = "P-1"
    dataset.add_new("EncapsulatedDocument", "OB", document)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return part10(dataset)


def test_an_encapsulated_pdf_comes_back_without_its_padding() -> None:
    source = read_instance(encapsulated_pdf(b"%PDF-1.4 od", EncapsulatedDocumentLength=11))
    assert source.document == b"%PDF-1.4 od"
    assert list(source.pages) == []
    assert read_instance(encapsulated_pdf(b"%PDF-1.4 e", EncapsulatedDocumentLength=3)).document == b"%PDF-1.4 e"


def test_an_encapsulated_pdf_without_document_is_refused() -> None:
    with pytest.raises(UndecodableDataset, match="holds no document"):
        read_instance(encapsulated_pdf(b""))


# ---- context


def test_context_is_copied_from_the_header() -> None:
    item = Dataset()
    item.RequestedProcedureID = "RP1"
    dataset = secondary_capture(
        AcquisitionDateTime="20260301093000+0100",
        TimezoneOffsetFromUTC="+0100",
        IssuerOfPatientID="HOSP",
        InstitutionName="General",
        RequestAttributesSequence=[item],
        ConversionType="SD",
        Manufacturer="Camera",
        SecondaryCaptureDeviceManufacturer="Scanner Inc",
    )
    context = read_context(part10(dataset))
    assert (context.patient_id, context.patient_name, context.patient_sex) == ("P-1001", "Muster^Zoë", "F")
    assert (context.study_instance_uid, context.source_sop_instance_uid) == ("2.25.1001", "2.25.1003")
    assert context.acquisition_date_time == "20260301093000+0100"
    assert (context.timezone_offset_from_utc, context.issuer_of_patient_id) == ("+0100", "HOSP")
    assert json.loads(context.request_attributes_json)[0]["00401001"]["Value"] == ["RP1"]
    assert context.source_manufacturer == "Scanner Inc"
    assert read_instance(part10(dataset)).context == context


def test_order_numbers_may_say_who_gave_them() -> None:
    dataset = secondary_capture(
        PlacerOrderNumberImagingServiceRequest="ORD1^EHR^1.2.3^ISO", FillerOrderNumberImagingServiceRequest="F1"
    )
    context = read_context(part10(dataset))
    assert (context.placer_order_number, context.placer_order_issuer) == ("ORD1", "EHR^1.2.3^ISO")
    assert (context.filler_order_number, context.filler_order_issuer) == ("F1", "")


def test_only_a_scanned_document_names_a_scanner() -> None:
    dataset = secondary_capture(ConversionType="WSD", Manufacturer="Workstation")
    assert read_context(part10(dataset)).source_manufacturer == ""


def test_a_photograph_does_not_say_when_the_ecg_was_recorded() -> None:
    dataset = secondary_capture(SOPClassUID=VLPhotographicImageStorage, AcquisitionDateTime="20260301120000")
    assert read_context(part10(dataset)).acquisition_date_time == ""


@pytest.mark.parametrize(
    ("character_set", "encoded", "expected"),
    [
        ("ISO_IR 100", "Müller^Jörg".encode("latin-1"), "Müller^Jörg"),
        ("ISO_IR 144", "Иванов^Иван".encode("iso8859-5"), "Иванов^Иван"),
        ("ISO_IR 192", "山田^太郎".encode(), "山田^太郎"),
        ("GB18030", "王^小东".encode("gb18030"), "王^小东"),
        (
            ["", "ISO 2022 IR 87"],
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B",
            "Yamada^Tarou=山田^太郎",
        ),
    ],
)
def test_names_are_decoded_from_their_character_set(
    character_set: str | list[str], encoded: bytes, expected: str
) -> None:
    dataset = secondary_capture(SpecificCharacterSet="ISO_IR 100", PatientName="@" * (len(encoded) + len(encoded) % 2))
    data = part10(dataset).replace(
        b"@" * (len(encoded) + len(encoded) % 2), encoded.ljust(len(encoded) + len(encoded) % 2)
    )
    declared = secondary_capture(SpecificCharacterSet=character_set, PatientName="")
    old, new = (_character_set_element(value) for value in (dataset, declared))
    assert read_context(data.replace(old, new)).patient_name == expected


def _character_set_element(dataset: Dataset) -> bytes:
    values = dataset["SpecificCharacterSet"].value
    text = (values if isinstance(values, str) else "\\".join(values)).encode()
    text += b" " * (len(text) % 2)
    return b"\x08\x00\x05\x00CS" + struct.pack("<H", len(text)) + text


def test_values_that_break_their_vr_are_not_known_rather_than_an_error() -> None:
    dataset = secondary_capture()
    raw = part10(dataset)
    broken = (
        raw.replace(b"19700102", b"1970 1 2")
        .replace(b"CS\x02\x00F ", b"CS\x02\x00X ")
        .replace(b"100000", b"10:0AM")
        .replace(b"2.25.1002\0", b"../../etc\0")
    )
    assert broken != raw
    context = read_context(broken)
    assert (context.patient_birth_date, context.patient_sex, context.study_time) == ("", "", "")
    assert context.source_series_instance_uid == ""
    assert context.patient_id == "P-1001"


def test_dates_of_the_old_form_are_understood() -> None:
    raw = part10(secondary_capture(StudyDate="20260301", StudyTime="101530"))
    old = raw.replace(b"DA\x08\x0020260301", b"DA\x0a\x002026.03.01").replace(
        b"TM\x06\x00101530", b"TM\x08\x0010:15:30"
    )
    context = read_context(old)
    assert (context.study_date, context.study_time) == ("20260301", "101530")


def test_an_empty_header_gives_an_empty_context() -> None:
    dataset = Dataset()
    dataset.SOPClassUID = EncapsulatedPDFStorage
    dataset.SOPInstanceUID = "2.25.9"
    context = read_context(part10(dataset))
    assert (context.patient_id, context.study_instance_uid, context.acquisition_date_time) == ("", "", "")


# ---- what costs more than it is worth

UNDEFINED = 0xFFFFFFFF
ITEM, END = struct.pack("<HHL", 0xFFFE, 0xE000, 0), struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
OPEN = struct.pack("<HHL", 0xFFFE, 0xE000, UNDEFINED)
CLOSE = struct.pack("<HHL", 0xFFFE, 0xE00D, 0)


def long_element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr, 0, len(value) if length is None else length) + value


def with_elements(added: bytes) -> bytes:
    """A Secondary Capture with encoded elements before its Patient's Name."""
    data = part10(secondary_capture())
    at = data.index(b"\x10\x00\x10\x00PN")
    return data[:at] + added + data[at:]


NESTED = struct.pack("<HH2sHL", 8, 0x1140, b"SQ", 0, UNDEFINED) + OPEN
BOMBS = {
    "items": (long_element(0x00081140, b"SQ", ITEM * 1_500_000 + END, UNDEFINED), "more than 10000 elements and items"),
    "elements": (
        b"".join(struct.pack("<HH2sH", 9, number, b"LO", 0) for number in range(0x1000, 0xF000)),
        "more than 10000 elements and items",
    ),
    "depth": (NESTED * 3_000, "sequences are nested too deeply"),
    "text": (long_element(0x00081030, b"UT", b"x" * (64 << 20)), "StudyDescription is longer than 2048 bytes"),
    "character sets": (
        long_element(0x00080005, b"UT", b"ISO_IR 100\\" * 3_000_000),
        "SpecificCharacterSet is longer than 2048 bytes",
    ),
    "character sets of an item": (
        long_element(
            0x00081140, b"SQ", OPEN + long_element(0x00080005, b"UT", b"A\\" * 9_000_000) + CLOSE + END, UNDEFINED
        ),
        "SpecificCharacterSet is longer than 2048 bytes",
    ),
    "requests": (
        long_element(0x00400275, b"SQ", ITEM * 1_500_000),
        "RequestAttributesSequence is longer than 32768 bytes",
    ),
    "text of a request": (
        long_element(
            0x00400275, b"SQ", OPEN + long_element(0x00400007, b"UT", b"x" * 10_000_000) + CLOSE + END, UNDEFINED
        ),
        "RequestAttributesSequence is longer than 32768 bytes",
    ),
}


@pytest.mark.parametrize("read", [read_context, read_instance, read_whole])
@pytest.mark.parametrize("bomb", BOMBS)
def test_metadata_bomb_is_refused_with_the_bound_before_it_costs_anything(bomb: str, read: object) -> None:
    added, reason = BOMBS[bomb]
    if read is read_whole and bomb in ("text", "requests", "text of a request"):
        pytest.skip("large values are left in the file, and what is kept of the requests is not asked for")
    data = with_elements(added)
    begun = time.thread_time()
    with pytest.raises(UndecodableDataset, match=f"^{reason}$"):
        read(data)  # type: ignore[operator]
    assert time.thread_time() - begun < 5.0  # 10,000 items take half a second, all of a bomb's over a minute


@pytest.mark.parametrize(
    "added",
    [
        long_element(0x00081140, b"SQ", ITEM * 9_800 + END, UNDEFINED),
        long_element(0x00081140, b"SQ", ITEM * 1_000_000),  # nobody looks into it
        long_element(0x00081030, b"UT", b"x" * 2_048),
        long_element(0x00091001, b"UN", b"x" * 1_000_000),
    ],
    ids=["items", "items of a known length", "text", "private"],
)
def test_large_header_within_the_bounds_is_read(added: bytes) -> None:
    data = with_elements(added)
    assert read_context(data) == read_instance(data).context
    assert read_context(data).patient_id == "P-1001"


def test_description_is_cut_to_what_its_vr_allows() -> None:
    dataset = secondary_capture()
    dataset.add(DataElement("StudyDescription", "LO", "D" * 70, validation_mode=IGNORE))
    assert read_context(part10(dataset)).study_description == "D" * 64
