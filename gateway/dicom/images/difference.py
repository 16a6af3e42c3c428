"""Two files under one SOP Instance UID: whether they hold the same object, and if not, in what they differ.

The difference is told in words without values, so that it may be logged and shown.
"""

from __future__ import annotations

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.fileutil import read_undefined_length_value
from pydicom.tag import BaseTag, SequenceDelimiterTag

from gateway.dicom.images.pages import UNDEFINED, data_set_of, read_whole
from gateway.dicom.images.pixels import DECODE_ERRORS
from gateway.domain.received import Data, digest_of, opened
from gateway.errors import UndecodableDataset

_UNREADABLE: tuple[type[Exception], ...] = (UndecodableDataset, *DECODE_ERRORS)
_PADDING = 0xFFFCFFFC  # Data Set Trailing Padding
_STUDY = {0x00080020, 0x00080030, 0x00080050, 0x0020000D, 0x00200010}  # date, time, accession number, UID, ID
_DOCUMENT = 0x00420011
_PIXELS = 0x7FE0
_SEQUENCES_BYTES = 1 << 16  # of sequences that are compared item by item; a scanned page has a few KB


def data_set_digest(data: Data) -> str:
    """Return the SHA-256 of the transfer syntax and the data set exactly as received.

    The file meta information is not part of it: whoever writes a file, or receives an object, makes its own.

    Raises
    ------
    UndecodableDataset
        The bytes are no DICOM file.
    """
    syntax, start = data_set_of(data)
    file = opened(data)
    file.seek(start)
    return digest_of(file, syntax.encode() + b"\0")


def differences(first: Data, second: Data) -> tuple[str, ...]:
    """Return in what two DICOM files differ, in words; empty if every attribute has the same value.

    Lengths of groups, padding and the transfer syntax alone make no difference.
    """
    try:
        one, other = _elements(first), _elements(second)
        tags = sorted(one.keys() | other.keys())
        found = [_word(tag) for tag in tags if not _equal(one.get(tag), other.get(tag))]
    except _UNREADABLE:
        return ("one of the two cannot be compared",)
    return tuple(dict.fromkeys(found))


def _elements(data: Data) -> dict[BaseTag, object]:
    dataset = read_whole(data)
    if _unparsed_bytes(dataset) > _SEQUENCES_BYTES:
        raise UndecodableDataset("its sequences are too long to be compared")
    return {tag: _value(dataset, tag, data) for tag in dataset.keys() if tag.element != 0 and tag != _PADDING}


def _unparsed_bytes(dataset: Dataset) -> int:
    """Return how long the sequences are that pydicom parses when they are compared."""
    total = 0
    for element in dataset.values():
        if not isinstance(element, RawDataElement):
            total += sum(_unparsed_bytes(item) for item in element.value) if element.VR == "SQ" else 0
        elif element.value is not None and "SQ" in (element.VR, _known_vr(element.tag)):
            total += element.length
    return total


def _known_vr(tag: BaseTag) -> str:
    return dictionary_VR(tag) if dictionary_has_tag(tag) else ""


def _value(dataset: Dataset, tag: BaseTag, data: Data) -> object:
    """Return a value; of one that was left in the file, the hash without the byte that pads it."""
    raw = dataset.get_item(tag, keep_deferred=True)
    if not isinstance(raw, RawDataElement) or raw.value is not None or not raw.length:
        return dataset[tag].value
    file, length = opened(data), raw.length
    file.seek(raw.value_tell)
    if length == UNDEFINED:
        read_undefined_length_value(file, True, SequenceDelimiterTag, defer_size=0)
        length = file.tell() - raw.value_tell
    file.seek(raw.value_tell + length - 1)
    padding = file.read(1) == b"\0"
    file.seek(raw.value_tell)
    return digest_of(file, size=length - padding)


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
