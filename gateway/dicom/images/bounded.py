"""Encoded data sets that cannot make pydicom work without end: bytes or a file in, a file that it reads from out.

A few MiB hold a million elements or sequence items, which take pydicom a minute and gigabytes.  pydicom reads the head
of every element and item as 8 bytes of their own, so a file that counts these reads bounds both, at every depth, and
knows which attribute comes next.  What is read in all is bounded too where the object may be larger than the memory:
pydicom skips values that nobody asked for, but for those in sequences without a length.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from pydicom.datadict import keyword_for_tag, tag_for_keyword

from gateway.domain.received import Data, opened
from gateway.errors import StorageError

MAXIMUM_ELEMENTS = 10_000  # of an object, items included: a scanned page has 100, and 10,000 are read in half a second
MAXIMUM_TEXT_BYTES = 2_048  # of one value: the longest PN is 194 characters, of up to 8 bytes each with escapes
MAXIMUM_MIB = 16  # read of an object besides the values that are skipped
MAXIMUM_SEQUENCE_BYTES = 32_768  # of a sequence that is kept: a request's item has 1 KiB

PARSING = threading.Lock()  # what peers send, one at a time: it takes memory, and all share one processor anyway

_HEAD_BYTES = 8


class Bounds:
    """Raises ValueError where more is read than allowed; `problem` says what.

    Parameters
    ----------
    maximum_elements
        Elements and sequence items together.
    maximum_bytes
        Of the values of attributes, by their keywords.
    maximum_mib
        Of all that is read.
    """

    def __init__(
        self, maximum_elements: int, maximum_bytes: dict[str, int] | None = None, maximum_mib: int | None = None
    ) -> None:
        self.problem = ""
        self._elements = self._read = 0
        self._maximum_elements = maximum_elements
        self._maximum_bytes = {
            _encoded(tag_for_keyword(keyword) or 0): maximum for keyword, maximum in (maximum_bytes or {}).items()
        }
        self._maximum_mib = maximum_mib
        self._tag = b""

    def read(self, read: Callable[[int], bytes], size: int) -> bytes:
        """Return what `read` returns for `size`, if that is allowed."""
        if size == _HEAD_BYTES:
            self._elements += 1
            if self._elements > self._maximum_elements:
                self._refuse(f"more than {self._maximum_elements} elements and items")
            data = read(size)
            self._tag = data[:4]
            return data
        maximum = self._maximum_bytes.get(self._tag)
        if maximum is not None and size > maximum:
            tag = int.from_bytes(self._tag[:2], "little") << 16 | int.from_bytes(self._tag[2:], "little")
            self._refuse(f"{keyword_for_tag(tag)} is longer than {maximum} bytes")
        if self._maximum_mib is not None:
            self._read += size
            if size < 0 or self._read > self._maximum_mib << 20:
                self._refuse(f"more than {self._maximum_mib} MiB besides its large values")
        return read(size)

    def _refuse(self, problem: str) -> None:
        self.problem = problem
        raise ValueError(problem)


class BoundedReader:
    """What was received, as a file that is read within bounds."""

    def __init__(self, data: Data, bounds: Bounds) -> None:
        self._file = opened(data)
        self._bounds = bounds

    @property
    def problem(self) -> str:
        """What was more than allowed; "" where nothing was."""
        return self._bounds.problem

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes; raise ValueError where that is not allowed, StorageError where it fails."""
        return self._bounds.read(self._read, size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def _read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:  # pydicom raises OSError where a data set is wrong
            raise StorageError(f"a file cannot be read: {error.strerror}") from error


def _encoded(tag: int) -> bytes:
    """Return a tag as little endian data sets hold it."""
    return (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")
