"""Whether a file is whole: a writer that is slow, or broke off, leaves one that ends too early."""

from __future__ import annotations

import struct

from gateway.dicom.images.pages import IMAGE_TRANSFER_SYNTAXES, data_set_of, read_whole
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


def what_is_missing(media_type: str, data: bytes) -> str:
    """Return why a file is not whole, "" where it is; only its ends and lengths are looked at."""
    if media_type == "application/dicom":
        return _dicom(data)
    missing = ""
    try:
        if media_type == "image/png":
            missing = _png(data)
        elif media_type == "image/jpeg":
            missing = _jpeg(data)
        elif media_type == "image/tiff":
            missing = _tiff(data)
        elif media_type == "image/bmp":
            missing = "" if struct.unpack_from("<I", data, 2)[0] <= len(data) else "it is shorter than its header says"
        elif media_type == "application/pdf":
            missing = "" if b"%%EOF" in data.rstrip(b"\0\r\n\t ")[-_PDF_TAIL:] else "%%EOF is missing"
    except struct.error:
        missing = "it ends within a header"
    return _CUT_SHORT.format(missing) if missing else ""


def _dicom(data: bytes) -> str:
    try:
        syntax, _ = data_set_of(data)
        if not syntax or syntax in IMAGE_TRANSFER_SYNTAXES:  # any other is refused for what it is
            read_whole(data)
    except IntakeError as error:
        return str(error)
    return ""


def _png(data: bytes) -> str:
    position = 8
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        position += 12 + length
        if kind == b"IEND":
            return "" if position <= len(data) else "IEND is cut"
    return "IEND is missing"


def _jpeg(data: bytes) -> str:
    """Look for the end of the image behind its first scan; a thumbnail in the header has an end of its own."""
    position = 2
    while position < len(data):
        mark, kind = struct.unpack_from("BB", data, position)
        if mark != 0xFF:
            return ""  # broken, but not cut short here
        if kind == 0xFF:
            position += 1
            continue
        if kind == 0xDA:
            return "" if data.find(b"\xff\xd9", position) >= 0 else "the end of the image (EOI) is missing"
        position += 2 + (0 if kind == 0x01 or 0xD0 <= kind <= 0xD9 else struct.unpack_from(">H", data, position + 2)[0])
    return "it ends before the image"


def _tiff(data: bytes) -> str:
    order = "<" if data[:2] == b"II" else ">"
    (directory,) = struct.unpack_from(order + "I", data, 4)
    for _ in range(_DIRECTORIES):
        if not directory:
            return ""
        (count,) = struct.unpack_from(order + "H", data, directory)
        tags = {}
        for number in range(count):
            tag, kind, length = struct.unpack_from(order + "HHI", data, directory + 2 + 12 * number)
            place = directory + 2 + 12 * number + 8
            if _SIZES.get(kind, 0) * length > 4:
                (place,) = struct.unpack_from(order + "I", data, place)
            if place + _SIZES.get(kind, 0) * length > len(data):
                return "a value lies behind its end"
            if tag in (*_PIECES, *_PIECES.values()) and kind in (3, 4):
                tags[tag] = struct.unpack_from(f"{order}{length}{'H' if kind == 3 else 'I'}", data, place)
        for offsets, lengths in _PIECES.items():
            pairs = zip(tags.get(offsets, ()), tags.get(lengths, ()), strict=False)
            if any(offset + size > len(data) for offset, size in pairs):
                return "a part of the image lies behind its end"
        (directory,) = struct.unpack_from(order + "I", data, directory + 2 + 12 * count)
    return ""
