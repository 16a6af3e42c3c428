"""A file that ends too early is told from a whole one, wherever it was cut."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from gateway.intake.accept import media_type_of
from gateway.intake.whole import what_is_missing
from tests.gateway.dicom.samples import compressed, part10, secondary_capture

PIXELS = np.random.default_rng(1).integers(0, 255, (64, 48, 3), np.uint8)
PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\nstartxref\n0\n%%EOF\n"


def encoded(suffix: str) -> bytes:
    return bytes(cv2.imencode(suffix, PIXELS)[1].tobytes())


FILES = {
    "png": encoded(".png"),
    "jpeg": encoded(".jpg"),
    "tiff": encoded(".tiff"),
    "bmp": encoded(".bmp"),
    "pdf": PDF,
    "explicit": part10(secondary_capture(PIXELS), ExplicitVRLittleEndian),
    "implicit": part10(secondary_capture(PIXELS), ImplicitVRLittleEndian),
    "rle": compressed(secondary_capture(PIXELS), RLELossless),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_whole_file_is_told_from_one_that_was_cut(kind: str) -> None:
    data = FILES[kind]
    media_type = media_type_of(data)
    assert what_is_missing(media_type, data) == ""
    for part in (0.3, 0.6, 0.95):
        assert what_is_missing(media_type, data[: int(part * len(data))]), part


@pytest.mark.parametrize("kind", ["png", "jpeg", "pdf"])
def test_what_a_writer_added_behind_the_end_does_no_harm(kind: str) -> None:
    data = FILES[kind] + b"camera's own data" * 50
    assert what_is_missing(media_type_of(data), data) == ""


def test_the_end_of_a_thumbnail_is_not_the_end_of_a_photograph() -> None:
    jpeg = FILES["jpeg"]
    thumbnail = b"\xff\xe1" + (2 + len(jpeg)).to_bytes(2, "big") + jpeg
    photograph = jpeg[:2] + thumbnail + jpeg[2:]
    assert what_is_missing("image/jpeg", photograph) == ""
    assert "EOI" in what_is_missing("image/jpeg", photograph[:-20])
