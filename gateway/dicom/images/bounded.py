"""Encoded data sets that cannot make pydicom work without end: bytes in, a stream that it reads from out.

A few MiB hold a million elements or sequence items, which take pydicom a minute and gigabytes.  pydicom reads the head
of every element and item as 8 bytes of their own, so a stream that counts these reads bounds both, at every depth, and
knows which attribute comes next.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

from pydicom.datadict import keyword_for_tag, tag_for_keyword

MAXIMUM_ELEMENTS = 10_000  # of an object, items included: a scanned page has 100, and 10,000 are read in half a second
MAXIMUM_TEXT_BYTES = 2_048  # of one value: the longest PN is 194 characters, of up to 8 bytes each with escapes
MAXIMUM_SEQUENCE_BYTES = 32_768  # of a sequence that is kept: a request's item has 1 KiB

_HEAD_BYTES = 8


class BoundedReader(BytesIO):
    """Raises ValueError where a reader asks for more elements, or for a longer value, than allowed; `problem` says why.

    Parameters
    ----------
    data
        What is read.
    maximum_elements
        Elements and sequence items together.
    maximum_bytes
        Of the values of attributes, by their keywords.
    """

    def __init__(
        self, data: bytes = b"", *, maximum_elements: int, maximum_bytes: dict[str, int] | None = None
    ) -> None:
        super().__init__(data)
        self.problem = ""
        self._elements = 0
        self._maximum_elements = maximum_elements
        self._maximum_bytes = {
            _encoded(tag_for_keyword(keyword) or 0): maximum for keyword, maximum in (maximum_bytes or {}).items()
        }
        self._tag = b""

    def read(self, size: Any = -1, /) -> bytes:
        """Read up to `size` bytes."""
        if size == _HEAD_BYTES:
            self._elements += 1
            if self._elements > self._maximum_elements:
                self._refuse(f"more than {self._maximum_elements} elements and items")
            data = super().read(size)
            self._tag = data[:4]
            return data
        maximum = self._maximum_bytes.get(self._tag)
        if maximum is not None and size is not None and size > maximum:
            tag = int.from_bytes(self._tag[:2], "little") << 16 | int.from_bytes(self._tag[2:], "little")
            self._refuse(f"{keyword_for_tag(tag)} is longer than {maximum} bytes")
        return super().read(size)

    def _refuse(self, problem: str) -> None:
        self.problem = problem
        raise ValueError(problem)


def _encoded(tag: int) -> bytes:
    """Return a tag as little endian data sets hold it."""
    return (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")
