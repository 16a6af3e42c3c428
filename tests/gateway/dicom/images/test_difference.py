"""Two files under one UID, whose values may be larger than the memory."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from gateway.dicom.images.difference import data_set_digest, differences
from gateway.dicom.images.pages import read_context
from tests.gateway.dicom.samples import compressed, part10, secondary_capture

PIXELS = np.random.default_rng(1).integers(0, 255, (300, 200, 3), np.uint8)
OTHER = PIXELS.copy()
OTHER[-1, -1, -1] ^= 1
MIB = 1 << 20


def test_large_values_are_compared_whatever_the_encoding() -> None:
    one = part10(secondary_capture(PIXELS), ExplicitVRLittleEndian)
    assert differences(one, part10(secondary_capture(PIXELS), ImplicitVRLittleEndian)) == ()
    assert differences(one, part10(secondary_capture(OTHER), ImplicitVRLittleEndian)) == ("pixel data",)


def test_large_compressed_values_are_compared() -> None:
    one = compressed(secondary_capture(PIXELS), RLELossless)
    assert differences(one, one) == ()
    assert differences(one, compressed(secondary_capture(OTHER), RLELossless)) == ("pixel data",)


def test_a_large_value_that_is_padded_is_the_same() -> None:
    document = b"%PDF-" + bytes(range(1, 256)) * 1000
    one, other = (
        part10(secondary_capture(EncapsulatedDocument=document + padding, PixelData=None)) for padding in (b"", b"\0")
    )
    assert differences(one, other) == ()


def test_sequences_that_would_take_gigabytes_to_compare_are_not() -> None:
    items = struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 8_000
    private = b"".join(
        struct.pack("<HH2sHL", 0x0009, 0x1000 + number, b"SQ", 0, len(items)) + items for number in range(200)
    )
    one, other = (part10(secondary_capture(PatientID=patient)) + private for patient in ("A", "B"))
    tracemalloc.start()
    assert differences(one, other) == ("one of the two cannot be compared",)
    assert tracemalloc.get_traced_memory()[1] < 64 * MIB
    tracemalloc.stop()


@pytest.fixture
def huge(tmp_path: Path) -> Iterator[BinaryIO]:
    """A file of 256 MiB that takes no room on the disk."""
    head = part10(secondary_capture(PixelData=None)) + struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 256 * MIB)
    with (tmp_path / "huge").open("w+b") as file:
        file.write(head)
        file.truncate(len(head) + 256 * MIB)
        yield file


def test_an_object_larger_than_the_memory_is_read_digested_and_compared(huge: BinaryIO) -> None:
    tracemalloc.start()
    assert read_context(huge).patient_id == "P-1001"
    assert len(data_set_digest(huge)) == 64
    assert differences(huge, part10(secondary_capture(PIXELS))) == ("other attributes", "pixel data")
    assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    tracemalloc.stop()
