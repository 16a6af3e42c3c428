"""Pixel data of an image object -> pages as they would look on a screen: RGB, upright pixels, 8 bits.

First the sizes: Rows, Columns, frames and bits against the budget of a file, against the length of uncompressed pixel
data, and against the dimensions in every compressed stream's own header.  Then frame by frame: decode, rescale and
window (PS3.3 C.11.1, C.11.2), palette, MONOCHROME1 inverted, overlays drawn, pixels made square, and the resolution the
object states.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import get_expected_length, pixel_array
from pydicom.uid import HTJ2K, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, JPEG2000Lossless, RLELossless

from gateway.dicom.images.overlays import draw_overlays, unpack_frame
from gateway.errors import UndecodableDataset
from pipeline import BUDGET, PageImage

# What pydicom and its decoders raise on bytes that make no sense; the cause stays in the traceback.
DECODE_ERRORS: tuple[type[Exception], ...] = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError),
    *(struct.error, BytesLengthException, InvalidDicomError),
)

_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_ONE_SAMPLE = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_START_OF_FRAME = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # JPEG and JPEG-LS
_JPEG_2000 = (JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K)
_CODESTREAM = b"\xff\x4f\xff\x51"  # JPEG 2000: SOC, SIZ


def decode_pages(dataset: Dataset) -> Iterator[PageImage]:
    """Return every frame as a page, numbered from 1; a frame is decoded when it is asked for.

    Raises
    ------
    UndecodableDataset
        The image breaks a limit or contradicts itself; later, a frame cannot be decoded.
    """
    try:
        n_frames = _check_size(dataset)
        pixels_mm = _spacing(dataset)
    except DECODE_ERRORS as error:
        raise _undecodable(error) from error
    return (_page(dataset, index, pixels_mm) for index in range(n_frames))


def _page(dataset: Dataset, index: int, pixels_mm: tuple[float, float] | None) -> PageImage:
    try:
        return PageImage(
            pixels=_square(draw_overlays(_display(dataset, index), dataset, index), _aspect(dataset, pixels_mm)),
            page_number=index + 1,
            px_per_mm_hint=_px_per_mm(dataset, pixels_mm),
        )
    except DECODE_ERRORS as error:
        raise _undecodable(error) from error


def _undecodable(error: Exception) -> UndecodableDataset:
    return UndecodableDataset(f"the pixel data cannot be decoded ({type(error).__name__})")


def _check_size(dataset: Dataset) -> int:
    """Return the number of frames of an image; its size must be allowed and agree with its pixel data."""
    rows, columns = _count(dataset, "Rows", 65535), _count(dataset, "Columns", 65535)
    samples = _count(dataset, "SamplesPerPixel", 3)
    bits = _count(dataset, "BitsAllocated", 16)
    n_frames = _count(dataset, "NumberOfFrames", BUDGET.pages, default=1)
    if samples == 2 or bits not in (1, 8, 16) or not 1 <= _count(dataset, "BitsStored", 16) <= bits:
        raise UndecodableDataset(f"{samples} samples of {bits} bits a pixel are not read here")
    if dataset.get("PhotometricInterpretation") not in (_COLOUR if samples == 3 else _ONE_SAMPLE):
        raise UndecodableDataset(f"PhotometricInterpretation does not fit {samples} samples a pixel")
    if rows * columns > BUDGET.page_pixels or rows * columns * n_frames > BUDGET.pixels:
        raise UndecodableDataset(
            f"{n_frames} frames of {rows} x {columns} pixels are too many: at most {BUDGET.page_pixels} a frame and "
            f"{BUDGET.pixels} in all"
        )
    if not isinstance(dataset.get("PixelData"), bytes):
        raise UndecodableDataset("the image holds no pixel data")
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        _check_frames(dataset, rows, columns, n_frames)
    else:
        expected = get_expected_length(dataset)
        if len(dataset.PixelData) - expected not in (0, expected % 2):
            raise UndecodableDataset(
                f"PixelData has {len(dataset.PixelData)} bytes, but {n_frames} frames of {rows} rows, {columns} "
                f"columns, {samples} samples of {bits} bits take {expected}"
            )
    return n_frames


def _count(dataset: Dataset, keyword: str, maximum: int, default: int | None = None) -> int:
    value = dataset.get(keyword, default)
    if value is None and keyword in dataset and default is not None:
        value = default
    if not isinstance(value, int) or not 1 <= value <= maximum:
        raise UndecodableDataset(f"{keyword} must be a number from 1 to {maximum}")
    return int(value)


def _check_frames(dataset: Dataset, rows: int, columns: int, n_frames: int) -> None:
    """Compare the dimensions in every compressed frame's own header; a lie there is how a bomb looks."""
    frames = list(generate_frames(dataset.PixelData, number_of_frames=n_frames))
    if len(frames) != n_frames:
        raise UndecodableDataset(f"PixelData holds {len(frames)} frames, NumberOfFrames says {n_frames}")
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax == RLELossless:  # has no dimensions; two bytes become 128 at most
        needed = rows * columns * dataset.SamplesPerPixel * dataset.BitsAllocated // 8
        if any(64 * len(frame) < needed for frame in frames):
            raise UndecodableDataset(f"a frame is compressed to fewer bytes than {needed} pixel values can take")
        return
    for number, frame in enumerate(frames, start=1):
        if frame.count(b"\xff\xda") > BUDGET.scans and syntax not in _JPEG_2000:
            raise UndecodableDataset(f"frame {number} has more than {BUDGET.scans} JPEG scans")
        found = _j2k_size(frame) if syntax in _JPEG_2000 else _jpeg_size(frame)
        if found != (rows, columns):
            raise UndecodableDataset(
                f"frame {number} is compressed as {found[0]} x {found[1]} pixels, "
                f"but Rows and Columns are {rows} x {columns}"
            )


def _jpeg_size(frame: bytes) -> tuple[int, int]:
    """Return (rows, columns) from a JPEG or JPEG-LS stream's start of frame (ITU-T T.81 B.2.2)."""
    position = 2
    while frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker in _START_OF_FRAME:
            rows, columns = struct.unpack_from(">HH", frame, position + 5)
            return rows, columns
        else:
            position += 2 + struct.unpack_from(">H", frame, position + 2)[0]
    raise UndecodableDataset("a compressed frame is no JPEG stream")


def _j2k_size(frame: bytes) -> tuple[int, int]:
    """Return (rows, columns) from a JPEG 2000 codestream's SIZ segment (ITU-T T.800 A.5.1)."""
    x, y, x0, y0 = struct.unpack_from(">IIII", frame, frame.index(_CODESTREAM) + 8)
    return y - y0, x - x0


def _display(dataset: Dataset, index: int) -> npt.NDArray[np.uint8]:
    """Return frame `index` as (H, W, 3) RGB."""
    frame = _stored(dataset, index)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        frame = apply_color_lut(frame, dataset)
        return (frame >> 8 if frame.dtype == np.uint16 else frame).astype(np.uint8)
    if frame.ndim == 3:
        return (frame >> max(0, int(dataset.BitsStored) - 8)).astype(np.uint8)
    gray = _gray(dataset, frame)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        gray = 255 - gray
    return np.repeat(gray[:, :, np.newaxis], 3, axis=2)


def _stored(dataset: Dataset, index: int) -> npt.NDArray[Any]:
    """Return frame `index` as stored; YCbCr comes back as RGB."""
    if dataset.BitsAllocated == 1 and not dataset.file_meta.TransferSyntaxUID.is_compressed:
        return unpack_frame(dataset.PixelData, (dataset.Rows, dataset.Columns), index)  # pydicom wants whole bytes
    return pixel_array(dataset, index=index, decoding_plugin="pylibjpeg")


def _gray(dataset: Dataset, frame: npt.NDArray[np.generic], *, band: int = 256) -> npt.NDArray[np.uint8]:
    """Return (H, W) stored values after rescale and window, as 0 to 255; computed `band` rows at a time.

    8 bits without a window keep their range; anything else is stretched from its darkest to its brightest value.
    """
    windowed = "VOILUTSequence" in dataset or _first_number(dataset, "WindowWidth") >= 1

    def values(top: int) -> npt.NDArray[Any]:
        rescaled = apply_modality_lut(frame[top : top + band], dataset)
        return apply_voi_lut(rescaled, dataset) if windowed else rescaled

    tops = range(0, len(frame), band)
    low, high = 0.0, 2.0 ** int(dataset.BitsStored) - 1.0
    if windowed or high > 255 or dataset.get("PixelRepresentation") == 1 or "ModalityLUTSequence" in dataset:
        low = min(float(values(top).min()) for top in tops)
        high = max(float(values(top).max()) for top in tops)
    gray = np.full(frame.shape, 255, np.uint8)
    if high > low:
        for top in tops:
            gray[top : top + band] = np.clip(np.rint((values(top) - low) * (255.0 / (high - low))), 0, 255)
    return gray


def _first_number(dataset: Dataset, keyword: str) -> float:
    numbers = _numbers(dataset.get(keyword))
    return numbers[0] if numbers else 0.0


def _numbers(value: object) -> list[float]:
    if value is None or value == "":
        return []
    return [float(str(item)) for item in value] if hasattr(value, "__iter__") else [float(str(value))]


def _spacing(dataset: Dataset) -> tuple[float, float] | None:
    """Return (vertical, horizontal) mm between pixel centres on the paper, None where the object does not say."""
    items = [dataset]
    for shared in dataset.get("SharedFunctionalGroupsSequence") or ():
        items += list(shared.get("PixelMeasuresSequence") or ())
    for item in items:
        for keyword in ("NominalScannedPixelSpacing", "PixelSpacing", "ImagerPixelSpacing"):
            numbers = _numbers(item.get(keyword))
            if len(numbers) == 2 and min(numbers) > 0:
                return numbers[0], numbers[1]
    return None


def _aspect(dataset: Dataset, spacing_mm: tuple[float, float] | None) -> float:
    """Return the height of a pixel over its width (C.7.6.3.1.7); 1 where not said or not believable."""
    sides = spacing_mm or _numbers(dataset.get("PixelAspectRatio"))
    aspect = sides[0] / sides[1] if len(sides) == 2 and sides[1] > 0 else 1.0
    return aspect if 0.2 <= aspect <= 5 and abs(aspect - 1) > 0.01 else 1.0


def _px_per_mm(
    dataset: Dataset,
    spacing_mm: tuple[float, float] | None,
    range_px_per_mm: tuple[float, float] = (2.0, 60.0),
    range_page_mm: tuple[float, float] = (80.0, 2000.0),
) -> float | None:
    """Return the resolution, if a scanner could have it (50 to 1500 dpi) and the sheet then has a sheet's size."""
    if spacing_mm is None:
        return None
    page_mm = max(dataset.Rows * spacing_mm[0], dataset.Columns * spacing_mm[1])
    px_per_mm = 1.0 / min(spacing_mm)
    plausible = (
        range_px_per_mm[0] <= px_per_mm <= range_px_per_mm[1] and range_page_mm[0] <= page_mm <= range_page_mm[1]
    )
    return px_per_mm if plausible else None


def _square(pixels: npt.NDArray[np.uint8], aspect: float) -> npt.NDArray[np.uint8]:
    """Return the frame with square pixels: the longer side of a pixel is filled by linear interpolation."""
    if aspect == 1.0:
        return pixels
    axis, factor = (0, aspect) if aspect > 1 else (1, 1 / aspect)
    length = round(pixels.shape[axis] * factor)
    if length * pixels.shape[1 - axis] > BUDGET.page_pixels:
        raise UndecodableDataset(f"a frame with square pixels would have more than {BUDGET.page_pixels} of them")
    position = np.clip((np.arange(length) + 0.5) / factor - 0.5, 0, pixels.shape[axis] - 1)
    before = np.floor(position).astype(np.intp)
    after = np.minimum(before + 1, pixels.shape[axis] - 1)
    weight = (position - before).astype(np.float32).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
    mixed = pixels.take(before, axis) * (1 - weight) + pixels.take(after, axis) * weight
    square: npt.NDArray[np.uint8] = np.rint(mixed).astype(np.uint8)
    return square
