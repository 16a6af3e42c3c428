"""Pages in the rarer forms of pixel data: overlays, single bits off the byte, odd sizes, palettes and YCbCr."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.pixels.processing import convert_color_space
from pydicom.uid import JPEG2000Lossless, RLELossless

from gateway.errors import UndecodableDataset
from tests.gateway.dicom.samples import compressed, page_pixels, part10, read_pages, secondary_capture

ODD = page_pixels(47, 63)


def page(data: bytes, number: int = 1) -> np.ndarray:
    return read_pages(data)[number - 1].pixels


def even(raw: bytes) -> bytes:
    return raw + b"\0" * (len(raw) % 2)


def packed(bits: np.ndarray) -> bytes:
    return even(np.packbits(bits.ravel(), bitorder="little").tobytes())


# ---- single bits


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("shape", [(1, 7, 13), (3, 7, 13), (2, 8, 16)])
def test_single_bit_frames_may_begin_inside_a_byte(shape: tuple[int, int, int], photometric: str) -> None:
    bits = (np.arange(np.prod(shape)).reshape(shape) % 3 == 0).astype(np.uint8)
    dataset = secondary_capture(np.zeros((*shape[1:], 1), np.uint8), PhotometricInterpretation=photometric)
    dataset.BitsAllocated = dataset.BitsStored = 1
    dataset.HighBit = 0
    dataset.NumberOfFrames = shape[0]
    dataset.PixelData = packed(bits)
    expected = (bits if photometric == "MONOCHROME2" else 1 - bits) * 255
    pages = read_pages(part10(dataset))
    assert len(pages) == shape[0]
    assert all(np.array_equal(page.pixels[:, :, 0], frame) for page, frame in zip(pages, expected, strict=True))


# ---- odd sizes, YCbCr, bits


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_odd_sizes_are_whole(syntax: str) -> None:
    assert np.array_equal(page(part10(secondary_capture(ODD))), ODD)
    assert np.array_equal(page(compressed(secondary_capture(ODD), syntax)), ODD)


@pytest.mark.parametrize("planar", [0, 1])
def test_ybr_full_is_shown_as_rgb(planar: int) -> None:
    ybr = convert_color_space(ODD, "RGB", "YBR_FULL")
    dataset = secondary_capture(ybr, PhotometricInterpretation="YBR_FULL", PlanarConfiguration=planar)
    if planar:
        dataset.PixelData = even(np.ascontiguousarray(ybr.transpose(2, 0, 1)).tobytes())
    assert np.abs(page(part10(dataset)).astype(int) - ODD).max() <= 1
    if not planar:
        assert np.abs(page(compressed(dataset, RLELossless)).astype(int) - ODD).max() <= 1


def test_twelve_bits_of_sixteen_in_colour() -> None:
    dataset = secondary_capture(ODD.astype(np.uint16) * 16, BitsStored=12, HighBit=11)
    assert np.array_equal(page(part10(dataset)), ODD)


def test_signed_values_are_stretched() -> None:
    ramp = np.tile(np.linspace(-900, 900, 61).astype(np.int16), (4, 1))[:, :, np.newaxis]
    shown = page(part10(secondary_capture(ramp, PixelRepresentation=1)))[0, :, 0]
    assert (shown[0], shown[30], shown[60]) == (0, 128, 255)


# ---- palettes

COLOURS = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 99, 199]]


def palette(indices: np.ndarray, first: int, bits: int) -> Dataset:
    dataset = secondary_capture(np.tile(indices, (2, 1))[:, :, np.newaxis], PhotometricInterpretation="PALETTE COLOR")
    for channel, colour in enumerate(("Red", "Green", "Blue")):
        values = [entry[channel] * (257 if bits == 16 else 1) for entry in COLOURS]
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [4, first, bits])
        data = struct.pack("<4H", *values) if bits == 16 else bytes(values)
        dataset.add_new(f"{colour}PaletteColorLookupTableData", "OW", data)
    return dataset


@pytest.mark.parametrize(("kind", "first"), [(np.uint8, 0), (np.uint8, 100), (np.uint16, 1000)])
@pytest.mark.parametrize("bits", [8, 16])
def test_palettes_of_either_width(kind: type, first: int, bits: int) -> None:
    dataset = palette(np.arange(first, first + 4, dtype=kind), first, bits)
    assert page(part10(dataset))[0].tolist() == COLOURS


def test_values_beside_the_palette_take_its_ends() -> None:
    dataset = palette(np.array([0, 100, 103, 250], dtype=np.uint8), 100, 16)
    assert page(part10(dataset))[0].tolist() == [COLOURS[0], COLOURS[0], COLOURS[3], COLOURS[3]]


def test_segmented_palettes() -> None:
    indices = np.tile(np.arange(4, dtype=np.uint8), (2, 1))[:, :, np.newaxis]
    dataset = secondary_capture(indices, PhotometricInterpretation="PALETTE COLOR")
    for colour, (start, end) in {"Red": (0, 255), "Green": (0, 255), "Blue": (255, 0)}.items():
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [4, 0, 16])
        segments = struct.pack("<6H", 0, 1, start * 257, 1, 3, end * 257)  # one value, then a line
        dataset.add_new(f"Segmented{colour}PaletteColorLookupTableData", "OW", segments)
    assert page(part10(dataset))[0].tolist() == [[0, 0, 255], [85, 85, 170], [170, 170, 85], [255, 255, 0]]


# ---- overlays

TRACE = np.zeros((47, 63), np.uint8)
TRACE[20:22] = 1
TRACE[5:30, 31] = 1


def with_overlay(dataset: Dataset, bits: np.ndarray, group: int = 0x6000, **elements: object) -> Dataset:
    """Add an overlay plane of `bits`, (rows, columns) or (frames, rows, columns)."""
    values: dict[str, object] = {"Type": "G", "Origin": [1, 1], "Data": packed(bits), **elements}
    dataset.add_new((group, 0x10), "US", bits.shape[-2])
    dataset.add_new((group, 0x11), "US", bits.shape[-1])
    dataset.add_new((group, 0x40), "CS", values["Type"])
    dataset.add_new((group, 0x50), "SS", values["Origin"])
    dataset.add_new((group, 0x100), "US", values.get("BitsAllocated", 1))
    dataset.add_new((group, 0x102), "US", values.get("BitPosition", 0))
    if bits.ndim == 3:
        dataset.add_new((group, 0x15), "IS", bits.shape[0])
        dataset.add_new((group, 0x51), "US", values.get("FirstFrame", 1))
    if values["Data"] is not None:
        dataset.add_new((group, 0x3000), "OW", values["Data"])
    return dataset


def inked(paper: np.ndarray, bits: np.ndarray, ink: int) -> np.ndarray:
    return np.where(bits[:, :, np.newaxis].astype(bool), np.uint8(ink), paper)


def test_an_overlay_is_drawn_on_its_page() -> None:
    assert np.array_equal(page(part10(with_overlay(secondary_capture(ODD), TRACE))), inked(ODD, TRACE, 0))
    dark = (ODD // 4).astype(np.uint8)
    assert np.array_equal(page(part10(with_overlay(secondary_capture(dark), TRACE))), inked(dark, TRACE, 255))


@pytest.mark.parametrize("value", [0, 255, 90])
def test_a_page_that_is_all_overlay_becomes_black_on_white(value: int) -> None:
    blank = np.full((47, 63, 1), value, np.uint8)
    white = np.full((47, 63, 3), 255, np.uint8)
    assert np.array_equal(page(part10(with_overlay(secondary_capture(blank), TRACE))), inked(white, TRACE, 0))


def test_several_planes_and_regions_of_interest() -> None:
    other = TRACE[:, ::-1].copy()
    dataset = with_overlay(with_overlay(secondary_capture(ODD), TRACE), other, group=0x601E)
    roi = with_overlay(dataset, np.ones_like(TRACE), group=0x6002, Type="R")
    assert np.array_equal(page(part10(roi)), inked(ODD, TRACE | other, 0))


@pytest.mark.parametrize("origin", [(1, 1), (3, 5), (-4, -9), (0, 60), (40, 1), (300, 300), (-300, 1)])
def test_an_overlay_stands_at_its_origin(origin: tuple[int, int]) -> None:
    expected = np.zeros((47 + 1200, 63 + 1200), np.uint8)
    top, left = 600 + origin[0] - 1, 600 + origin[1] - 1
    expected[top : top + 47, left : left + 63] = TRACE
    seen = expected[600:647, 600:663]
    data = part10(with_overlay(secondary_capture(ODD), TRACE, Origin=list(origin)))
    assert np.array_equal(page(data), inked(ODD, seen, 0))


def test_an_overlay_of_several_frames_goes_to_its_own() -> None:
    frames = np.stack([ODD, ODD, ODD])
    dataset = secondary_capture(NumberOfFrames=3, Rows=47, Columns=63, PixelData=even(frames.tobytes()))
    planes = np.stack([TRACE, TRACE[::-1]])
    data = part10(with_overlay(dataset, planes, FirstFrame=2))
    assert np.array_equal(page(data, 1), ODD)
    assert np.array_equal(page(data, 2), inked(ODD, planes[0], 0))
    assert np.array_equal(page(data, 3), inked(ODD, planes[1], 0))
    everywhere = part10(with_overlay(dataset.copy(), TRACE, group=0x6004))
    assert np.array_equal(page(everywhere, 1), inked(ODD, TRACE, 0))


def test_an_overlay_in_unused_bits() -> None:
    gray = np.tile(np.arange(0, 63 * 60, 60, dtype=np.uint16), (47, 1))
    dataset = secondary_capture((gray | TRACE.astype(np.uint16) << 12)[:, :, np.newaxis], BitsStored=12, HighBit=11)
    plain = page(part10(secondary_capture(gray[:, :, np.newaxis], BitsStored=12, HighBit=11)))
    data = part10(with_overlay(dataset, TRACE, Data=None, BitsAllocated=16, BitPosition=12))
    assert np.array_equal(page(data), inked(plain, TRACE, 0 if np.median(plain) >= 128 else 255))


def test_an_overlay_without_data_is_no_reason_to_refuse_the_page() -> None:
    assert np.array_equal(page(part10(with_overlay(secondary_capture(ODD), TRACE, Data=None))), ODD)


def test_an_overlay_that_lies_about_its_size_is_refused() -> None:
    with pytest.raises(UndecodableDataset, match="need more data"):
        page(part10(with_overlay(secondary_capture(ODD), TRACE, Data=b"\0" * 10)))
    huge = with_overlay(secondary_capture(ODD), TRACE)
    huge[0x6000, 0x10].value = huge[0x6000, 0x11].value = 60000
    with pytest.raises(UndecodableDataset, match="more than 100000000 pixels"):
        page(part10(huge))
