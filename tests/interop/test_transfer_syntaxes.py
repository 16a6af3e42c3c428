"""One ECG page in every transfer syntax and pixel form, made by independent encoders, decoded and digitized.

Lossless pages come back pixel by pixel, so they hold the same ECG; lossy ones come back nearly, and are digitized to
nearly the same.
"""

from __future__ import annotations

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import HTJ2K, UID, HTJ2KLossless, HTJ2KLosslessRPCL

from gateway.dicom.images.pages import IMAGE_TRANSFER_SYNTAXES
from pipeline import Calibration
from pipeline.digitizer import Digitizer
from tests.gateway.dicom.samples import part10, read_pages, secondary_capture
from tests.interop.peers import run

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]

DCMTK = {
    "1.2.840.10008.1.2": ("dcmconv", "+ti"),
    "1.2.840.10008.1.2.1": ("dcmconv", "+te"),
    "1.2.840.10008.1.2.5": ("dcmcrle",),
    "1.2.840.10008.1.2.4.80": ("dcmcjpls", "+el"),
    "1.2.840.10008.1.2.4.81": ("dcmcjpls", "+en"),
    "1.2.840.10008.1.2.4.70": ("dcmcjpeg", "+e1"),
    "1.2.840.10008.1.2.4.57": ("dcmcjpeg", "+el", "+sv", "4"),
    "1.2.840.10008.1.2.4.50": ("dcmcjpeg", "+eb"),
    "1.2.840.10008.1.2.4.51": ("dcmcjpeg", "+ee"),
}
GDCM = {  # not RLE: GDCM 3.0.21 aborts on an odd number of pixels
    "1.2.840.10008.1.2.4.70": ("--jpeg",),
    "1.2.840.10008.1.2.4.80": ("--jpegls",),
    "1.2.840.10008.1.2.4.90": ("--j2k",),
    "1.2.840.10008.1.2.4.91": ("--j2k", "--lossy", "-r", "15"),
}
OPENJPH = (HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K)
LOSSY = {"1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.91", HTJ2K}


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """A drawn page, (H, W, 3) RGB, of odd height and width, at 127 dpi."""
    file = tmp_path_factory.mktemp("page") / "page.png"
    subprocess.run(
        [sys.executable, "-m", "pipeline.training.drawing.sample", str(file), "--seed", "1"], check=True, timeout=300
    )
    drawn = np.asarray(Image.open(file).convert("RGB"))
    return np.ascontiguousarray(drawn[: (drawn.shape[0] - 1) | 1, : (drawn.shape[1] - 1) | 1])


def encoded(encoder: str, syntax: str, pixels: np.ndarray, folder: Path) -> bytes:
    raw, made = folder / "raw.dcm", folder / "made.dcm"
    raw.write_bytes(part10(secondary_capture(pixels)))
    if encoder == "openjph":
        return by_openjph(syntax, pixels)
    if encoder == "dcmtk":
        program, *options = DCMTK[syntax]
        run(program, *options, raw, made)
    else:
        run("gdcmconv", *GDCM[syntax], raw, made)
    return made.read_bytes()


def by_openjph(syntax: str, pixels: np.ndarray) -> bytes:
    """High-Throughput JPEG 2000, which neither DCMTK nor GDCM writes."""
    codecs = pytest.importorskip(
        "imagecodecs", reason="imagecodecs (OpenJPH) is not installed: pip install imagecodecs"
    )
    lossless = syntax != HTJ2K
    stream = codecs.htj2k_encode(pixels, reversible=lossless, rgb=True)
    dataset = secondary_capture(pixels, PhotometricInterpretation="YBR_RCT" if lossless else "YBR_ICT")
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].VR = "OB"
    return part10(dataset, syntax)


MATRIX = [
    *[("dcmtk", syntax) for syntax in DCMTK],
    *[("gdcm", syntax) for syntax in GDCM],
    *[("openjph", syntax) for syntax in OPENJPH],
]


def test_every_accepted_syntax_is_in_the_matrix() -> None:
    assert {syntax for _, syntax in MATRIX} == set(IMAGE_TRANSFER_SYNTAXES)


@pytest.mark.parametrize(("encoder", "syntax"), [pair for pair in MATRIX if pair[1] not in LOSSY])
def test_lossless_pages_come_back_as_they_were(tmp_path: Path, pixels: np.ndarray, encoder: str, syntax: str) -> None:
    data = encoded(encoder, syntax, pixels, tmp_path)
    assert dcmread(BytesIO(data)).file_meta.TransferSyntaxUID == UID(syntax)
    assert np.array_equal(read_pages(data)[0].pixels, pixels)


@pytest.mark.parametrize(("encoder", "syntax"), [pair for pair in MATRIX if pair[1] in LOSSY])
def test_lossy_pages_come_back_nearly(tmp_path: Path, pixels: np.ndarray, encoder: str, syntax: str) -> None:
    data = encoded(encoder, syntax, pixels, tmp_path)
    assert dcmread(BytesIO(data)).file_meta.TransferSyntaxUID == UID(syntax)
    (page,) = read_pages(data)
    difference = np.abs(page.pixels.astype(int) - pixels)
    assert difference.any()
    assert difference.mean() < 6


# ---- digitized

SNR_DB = 12.0  # of what a lossy page gives against what the page itself gives; 18 to 22 dB when this was written


class Reader:
    """The networks as shipped, and what they read on the page itself, in mV."""

    def __init__(self, pixels: np.ndarray) -> None:
        drawn = Image.fromarray(pixels)
        small = drawn.resize((drawn.width * 6 // 10, drawn.height * 6 // 10), Image.Resampling.BOX)
        self.pixels = np.asarray(small)
        self._digitizer = Digitizer.load(device="cpu", layouts=None)
        self.expected = self.read(part10(secondary_capture(self.pixels)))

    def read(self, data: bytes) -> np.ndarray:
        (page,) = read_pages(data)
        return self._digitizer.digitize(page, default_calibration=Calibration()).record.signal_mv

    def check(self, data: bytes) -> None:
        found = self.read(data)
        n_samples = min(found.shape[1], self.expected.shape[1])
        found, expected = found[:, :n_samples], self.expected[:, :n_samples]
        both = ~(np.isnan(found) | np.isnan(expected))
        assert both.sum() > 0.95 * np.isfinite(self.expected).sum()
        noise = (found - expected)[both]
        assert 10 * np.log10((expected[both] ** 2).sum() / (noise**2).sum()) > SNR_DB


@pytest.fixture(scope="module")
def reader(pixels: np.ndarray) -> Reader:
    return Reader(pixels)


@pytest.mark.parametrize(("encoder", "syntax"), [pair for pair in MATRIX if pair[1] in LOSSY])
def test_lossy_pages_hold_the_same_ecg(tmp_path: Path, reader: Reader, encoder: str, syntax: str) -> None:
    reader.check(encoded(encoder, syntax, reader.pixels, tmp_path))


def test_a_page_of_single_bits_holds_the_same_ecg(reader: Reader) -> None:
    reader.check(single_bit(reader.pixels))


# ---- pixel forms


def gray(pixels: np.ndarray) -> bytes:
    return part10(secondary_capture(np.asarray(Image.fromarray(pixels).convert("L"))[:, :, np.newaxis]))


def inverted(pixels: np.ndarray) -> bytes:
    levels = 255 - np.asarray(Image.fromarray(pixels).convert("L"))
    return part10(secondary_capture(levels[:, :, np.newaxis], PhotometricInterpretation="MONOCHROME1"))


def sixteen_bits(pixels: np.ndarray) -> bytes:
    levels = np.asarray(Image.fromarray(pixels).convert("L")).astype(np.uint16) * 16
    return part10(secondary_capture(levels[:, :, np.newaxis], BitsStored=12, HighBit=11))


def single_bit(pixels: np.ndarray) -> bytes:
    """As a fax or a document scanner makes it: dithered, so that the grid stays."""
    bits = np.asarray(Image.fromarray(pixels).convert("1")).astype(np.uint8)
    dataset = secondary_capture(bits[:, :, np.newaxis])
    dataset.BitsAllocated = dataset.BitsStored = 1
    dataset.HighBit = 0
    raw = np.packbits(bits.ravel(), bitorder="little").tobytes()
    dataset.PixelData = raw + b"\0" * (len(raw) % 2)
    return part10(dataset)


def overlay(pixels: np.ndarray) -> bytes:
    """The whole page as an overlay plane of an image that is all black."""
    bits = ~np.asarray(Image.fromarray(pixels).convert("1"))
    dataset = secondary_capture(np.zeros((*bits.shape, 1), np.uint8))
    raw = np.packbits(bits.ravel(), bitorder="little").tobytes()
    for element, representation, value in (
        *[(0x10, "US", bits.shape[0]), (0x11, "US", bits.shape[1]), (0x40, "CS", "G"), (0x50, "SS", [1, 1])],
        *[(0x100, "US", 1), (0x102, "US", 0), (0x3000, "OW", raw + b"\0" * (len(raw) % 2))],
    ):
        dataset.add_new((0x6000, element), representation, value)
    return part10(dataset)


def test_pages_of_one_sample_are_the_same_in_every_width(pixels: np.ndarray) -> None:
    expected = np.asarray(Image.fromarray(pixels).convert("L"))
    for form in (gray, inverted):
        assert np.array_equal(read_pages(form(pixels))[0].pixels[:, :, 1], expected)
    stretched = read_pages(sixteen_bits(pixels))[0].pixels[:, :, 1].astype(float)
    assert np.corrcoef(stretched.ravel(), expected.ravel())[0, 1] > 0.9999
    over, single = (read_pages(form(pixels))[0].pixels for form in (overlay, single_bit))
    assert np.array_equal(over, single)
