"""What a spool asks of the place of its files: a folder (`gateway.spool.disk`) or a bucket (`gateway.spool.bucket`).

A *folder* here is a job id, or `quarantine/` and a job id; files have names of ours, and lie in folders of one level.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from gateway.domain.received import Data

JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SOURCE = "source"  # the file of a job as it was received
RESULTS = "results"  # of an archive run: they came with the source
QUARANTINE = "quarantine"


@dataclass(frozen=True, slots=True)
class Size:
    """How many files, and how many bytes they hold."""

    files: int = 0
    bytes: int = 0

    def __add__(self, other: Size) -> Size:
        return Size(self.files + other.files, self.bytes + other.bytes)


class Place(Protocol):
    """Keeps files; every method raises StorageError where the place cannot be reached, or does not do it now.

    Attributes
    ----------
    where : str
        What it is called where a person reads it.
    on_disk : bool
        Whether its files take the space of this machine's disk.
    """

    where: str
    on_disk: bool

    def check(self) -> None:
        """Raise StorageError where it does not keep what it promises."""
        ...

    def write(self, folder: str, name: str, data: Data) -> None:
        """Store a file in place of an earlier one: durable when this returns, and never there in part."""
        ...

    def open(self, folder: str, name: str) -> BinaryIO | None:
        """Return a file, which the caller closes; None where it is gone; UnreadableFile where it cannot be had."""
        ...

    def has(self, folder: str, name: str) -> bool:
        """Return whether a file is there."""
        ...

    def files(self, folder: str) -> dict[str, int]:
        """Return the size of each file of a folder by its name; one that is gone has none."""
        ...

    def everything(self) -> Iterator[tuple[str, str, int]]:
        """Yield folder, name and size of every file."""
        ...

    def folders(self, inside: str = "") -> list[str]:
        """Return the job ids that have a folder, or one in the quarantine, sorted."""
        ...

    def unchanged(self, for_s: float, inside: str = "") -> list[str]:
        """Return those in which nothing was made, replaced or deleted, or that were moved there, so long ago."""
        ...

    def move(self, folder: str, target: str) -> None:
        """Move a folder."""
        ...

    def remove(self, folder: str) -> None:
        """Delete a folder, if there is one."""
        ...
