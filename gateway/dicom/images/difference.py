"""Two files under one SOP Instance UID: whether they hold the same object, and if not, in what they differ.

The difference is told in words without values, so that it may be logged and shown.
"""

from __future__ import annotations

import hashlib

from pydicom.tag import BaseTag

from gateway.dicom.images.pages import data_set_of, read_whole
from gateway.dicom.images.pixels import DECODE_ERRORS
from gateway.errors import UndecodableDataset

_UNREADABLE: tuple[type[Exception], ...] = (UndecodableDataset, *DECODE_ERRORS)
_PADDING = 0xFFFCFFFC  # Data Set Trailing Padding
_STUDY = {0x00080020, 0x00080030, 0x00080050, 0x0020000D, 0x00200010}  # date, time, accession number, UID, ID
_DOCUMENT = 0x00420011
_PIXELS = 0x7FE0


def data_set_digest(data: bytes) -> str:
    """Return the SHA-256 of the transfer syntax and the data set exactly as received.

    The file meta information is not part of it: whoever writes a file, or receives an object, makes its own.

    Raises
    ------
    UndecodableDataset
        The bytes are no DICOM file.
    """
    syntax, start = data_set_of(data)
    digest = hashlib.sha256(syntax.encode() + b"\0")
    digest.update(memoryview(data)[start:])
    return digest.hexdigest()


def differences(first: bytes, second: bytes) -> tuple[str, ...]:
    """Return in what two DICOM files differ, in words; empty if every attribute has the same value.

    Lengths of groups, padding and the transfer syntax alone make no difference.
    """
    try:
        one, other = _elements(first), _elements(second)
        tags = sorted(one.keys() | other.keys())
        found = [_word(tag) for tag in tags if not _equal(one.get(tag), other.get(tag))]
    except _UNREADABLE:
        return ("one of the two cannot be parsed to its end",)
    return tuple(dict.fromkeys(found))


def _elements(data: bytes) -> dict[BaseTag, object]:
    dataset = read_whole(data)
    return {tag: dataset[tag].value for tag in dataset.keys() if tag.element != 0 and tag != _PADDING}


def _equal(one: object, other: object) -> bool:
    if isinstance(one, bytes) and isinstance(other, bytes):
        return one.rstrip(b"\0") == other.rstrip(b"\0") if abs(len(one) - len(other)) == 1 else one == other
    return one == other


def _word(tag: BaseTag) -> str:
    if tag.group == 0x0010:
        return "patient"
    if tag in _STUDY:
        return "study"
    if tag.group == _PIXELS:
        return "pixel data"
    return "document" if tag == _DOCUMENT else "other attributes"
