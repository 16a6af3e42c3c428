"""Overlay planes (PS3.3 C.9.2) drawn into their frame: a page, or the trace on it, may be kept in one.

Only graphics (type G) are drawn, a region of interest is not.  A frame of one value is no picture but the carrier of
its overlay: it becomes white paper with black ink, whatever its value.  On any other frame the overlay is drawn in
black where the frame is mostly bright, and in white where it is mostly dark.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from gateway.errors import UndecodableDataset
from pipeline import BUDGET

Mask = npt.NDArray[np.bool_]

_NOTHING: Mask = np.zeros((0, 0), np.bool_)
_GROUPS = range(0x6000, 0x6020, 2)
_ROWS, _COLUMNS, _FRAMES, _TYPE, _ORIGIN, _FIRST_FRAME = 0x10, 0x11, 0x15, 0x40, 0x50, 0x51
_BIT_POSITION, _DATA = 0x102, 0x3000


def draw_overlays(pixels: npt.NDArray[np.uint8], dataset: Dataset, index: int) -> npt.NDArray[np.uint8]:
    """Return frame `index`, (H, W, 3) RGB, with its overlays; the frame itself where it has none.

    Raises
    ------
    UndecodableDataset
        An overlay's data are shorter than its size says.
    """
    drawn = np.zeros(pixels.shape[:2], np.bool_)
    for group in _GROUPS:
        if _value(dataset, group, _TYPE) == "G":
            _place(drawn, _plane(dataset, group, index), _numbers(dataset, group, _ORIGIN) or [1, 1])
    if not drawn.any():
        return pixels
    if (pixels == pixels[0, 0]).all():
        pixels, ink = np.full_like(pixels, 255), 0
    else:
        ink = 0 if np.median(pixels) >= 128 else 255
    return np.where(drawn[:, :, np.newaxis], np.uint8(ink), pixels)


def _plane(dataset: Dataset, group: int, index: int) -> Mask:
    """Return the overlay of frame `index`; (0, 0) where this frame has none."""
    rows, columns = (_numbers(dataset, group, element) for element in (_ROWS, _COLUMNS))
    if not rows or not columns:
        return _NOTHING
    if rows[0] * columns[0] > BUDGET.page_pixels:
        raise UndecodableDataset(f"overlay {group:04X} has more than {BUDGET.page_pixels} pixels")
    shape = rows[0], columns[0]
    if (group, _DATA) not in dataset:
        return _embedded(dataset, group, index, shape)
    frames = _numbers(dataset, group, _FRAMES) or [0]
    if frames[0]:
        index -= (_numbers(dataset, group, _FIRST_FRAME) or [1])[0] - 1
        if not 0 <= index < frames[0]:
            return _NOTHING
    else:
        index = 0  # one plane, on every frame
    return unpack_frame(dataset[group, _DATA].value, shape, index).astype(np.bool_)


def _embedded(dataset: Dataset, group: int, index: int, shape: tuple[int, int]) -> Mask:
    """Return an overlay from unused bits of uncompressed pixel data, as it was done until 2004."""
    position = (_numbers(dataset, group, _BIT_POSITION) or [0])[0]
    native = not dataset.file_meta.TransferSyntaxUID.is_compressed and dataset.SamplesPerPixel == 1
    unused = dataset.BitsStored <= position < dataset.BitsAllocated
    if not native or not unused or shape != (dataset.Rows, dataset.Columns):
        return _NOTHING  # a description without data, as some archives leave behind
    words = np.frombuffer(dataset.PixelData, np.uint16 if dataset.BitsAllocated == 16 else np.uint8)
    size = shape[0] * shape[1]
    return (words[index * size : (index + 1) * size].reshape(shape) >> position & 1).astype(np.bool_)


def _place(drawn: Mask, plane: Mask, origin: list[int]) -> None:
    """Add a plane with its upper left pixel at `origin`, counted from 1, which may be outside of the frame."""
    top, left = origin[0] - 1, origin[1] - 1
    target = drawn[max(top, 0) : max(top + plane.shape[0], 0), max(left, 0) : max(left + plane.shape[1], 0)]
    source = plane[max(-top, 0) :, max(-left, 0) :][: target.shape[0], : target.shape[1]]
    target |= source


def unpack_frame(data: object, shape: tuple[int, int], index: int) -> npt.NDArray[np.uint8]:
    """Return frame `index` of packed single bits as (rows, columns) of 0 and 1 (PS3.5 8.1.1).

    Frames follow each other without a gap, so one may begin in the middle of a byte.

    Raises
    ------
    UndecodableDataset
        The data end before the frame does.
    """
    size = shape[0] * shape[1]
    first, last = index * size, (index + 1) * size
    if not isinstance(data, bytes) or 8 * len(data) < last:
        raise UndecodableDataset(f"single bits: {shape[0]} x {shape[1]} pixels need more data than there are")
    packed = np.frombuffer(data, np.uint8)[first // 8 : (last + 7) // 8]
    return np.unpackbits(packed, bitorder="little")[first % 8 :][:size].reshape(shape)


def _value(dataset: Dataset, group: int, element: int) -> object:
    found = dataset.get((group, element))
    return None if found is None else found.value


def _numbers(dataset: Dataset, group: int, element: int) -> list[int]:
    value = _value(dataset, group, element)
    if value is None or value == "":
        return []
    return [int(str(item)) for item in value] if isinstance(value, list | MultiValue) else [int(str(value))]
