"""Whether a file is whole: a writer that is slow, or broke off, leaves one that ends too early."""

from __future__ import annotations

import os
import struct
from typing import Any, BinaryIO

from gateway.dicom.images.pages import IMAGE_TRANSFER_SYNTAXES, data_set_of, read_whole
from gateway.domain.received import PIECE_BYTES, Data, opened
from gateway.errors import IntakeError

_CUT_SHORT = "the file is cut short: {}"
_PDF_TAIL = 4096  # bytes in which the last %%EOF is; ISO 32000-1 has 1024, some writers add more
_PIECES = {273: 279, 324: 325}  # TIFF: StripOffsets and TileOffsets, and the tags with their lengths
_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
}  # TIFF: bytes of a value by its type
_DIRECTORIES = 10_000  # of a TIFF; more is a loop
_PARTS = 100_000  # of a TIFF's image, or chunks of a PNG, that are looked at


def what_is_missing(media_type: str, data: Data) -> str:
    """Return why a file is not whole, "" where it is; only its ends and lengths are looked at."""
    if media_type == "application/dicom":
        return _dicom(data)
    missing, file = "", opened(data)
    size = file.seek(0, os.SEEK_END)
    try:
        if media_type == "image/png":
            missing = _png(file, size)
        elif media_type == "image/jpeg":
            missing = _jpeg(file, size)
        elif media_type == "image/tiff":
            missing = _tiff(file, size)
        elif media_type == "image/bmp":
            missing = "" if _unpacked("<I", file, 2)[0] <= size else "it is shorter than its header says"
        elif media_type == "application/pdf":
            end = _read(file, max(0, size - PIECE_BYTES), PIECE_BYTES)
            missing = "" if b"%%EOF" in end.rstrip(b"\0\r\n\t ")[-_PDF_TAIL:] else "%%EOF is missing"
    except struct.error:
        missing = "it ends within a header"
    return _CUT_SHORT.format(missing) if missing else ""


def _read(file: BinaryIO, position: int, size: int) -> bytes:
    file.seek(position)
    return file.read(size)


def _unpacked(form: str, file: BinaryIO, position: int) -> tuple[Any, ...]:
    return struct.unpack(form, _read(file, position, struct.calcsize(form)))


def _dicom(data: Data) -> str:
    try:
        syntax, _ = data_set_of(data)
        if not syntax or syntax in IMAGE_TRANSFER_SYNTAXES:  # any other is refused for what it is
            read_whole(data)
    except IntakeError as error:
        return str(error)
    return ""


def _png(file: BinaryIO, size: int) -> str:
    position = 8
    for _ in range(_PARTS):
        if position >= size:
            return "IEND is missing"
        length, kind = _unpacked(">I4s", file, position)
        position += 12 + length
        if kind == b"IEND":
            return "" if position <= size else "IEND is cut"
    return ""


def _jpeg(file: BinaryIO, size: int) -> str:
    """Look for the end of the image behind its first scan; a thumbnail in the header has an end of its own."""
    position = 2
    while position < size:
        mark, kind = _unpacked("BB", file, position)
        if mark != 0xFF:
            return ""  # broken, but not cut short here
        if kind == 0xFF:
            position += 1
            continue
        if kind == 0xDA:
            return "" if _holds(file, b"\xff\xd9", position, size) else "the end of the image (EOI) is missing"
        position += 2 + (0 if kind == 0x01 or 0xD0 <= kind <= 0xD9 else _unpacked(">H", file, position + 2)[0])
    return "it ends before the image"


def _holds(file: BinaryIO, pair: bytes, begin: int, end: int) -> bool:
    """Return whether two bytes stand in a part of a file; its end is looked at first."""
    while end > begin:
        start = max(begin, end - PIECE_BYTES)
        if pair in _read(file, start, end + 1 - start):
            return True
        end = start
    return False


def _tiff(file: BinaryIO, size: int) -> str:
    order = "<" if _read(file, 0, 2) == b"II" else ">"
    (directory,) = _unpacked(order + "I", file, 4)
    for _ in range(_DIRECTORIES):
        if not directory:
            return ""
        (count,) = _unpacked(order + "H", file, directory)
        tags = {}
        for number in range(count):
            tag, kind, length = _unpacked(order + "HHI", file, directory + 2 + 12 * number)
            place = directory + 2 + 12 * number + 8
            if _SIZES.get(kind, 0) * length > 4:
                (place,) = _unpacked(order + "I", file, place)
            if place + _SIZES.get(kind, 0) * length > size:
                return "a value lies behind its end"
            if tag in (*_PIECES, *_PIECES.values()) and kind in (3, 4) and length <= _PARTS:
                tags[tag] = _unpacked(f"{order}{length}{'H' if kind == 3 else 'I'}", file, place)
        for offsets, lengths in _PIECES.items():
            pairs = zip(tags.get(offsets, ()), tags.get(lengths, ()), strict=False)
            if any(offset + extent > size for offset, extent in pairs):
                return "a part of the image lies behind its end"
        (directory,) = _unpacked(order + "I", file, directory + 2 + 12 * count)
    return ""
