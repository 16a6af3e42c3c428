"""What arrives: objects and HL7 messages, before and after they are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import BinaryIO

from gateway.domain.context import StudyContext

PIECE_BYTES = 1 << 20  # of a file that are in memory at once

Data = bytes | BinaryIO  # what was received; what may be large is a file, and never in memory as a whole


def opened(data: Data) -> BinaryIO:
    """Return what was received as a file that stands at its beginning."""
    if isinstance(data, bytes):
        return BytesIO(data)
    data.seek(0)
    return data


def digest_of(file: BinaryIO, begin: bytes = b"", size: int | None = None) -> str:
    """Return the SHA-256 of `begin` and of what is left in a file, or of `size` bytes of it."""
    digest = hashlib.sha256(begin)
    while piece := file.read(PIECE_BYTES if size is None else min(PIECE_BYTES, size)):
        digest.update(piece)
        size = None if size is None else size - len(piece)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedObject:
    """One file or DICOM object on its way in.

    Parameters
    ----------
    source
        "dicom:<calling AE title>", "dicomweb:<name>", "folder:<path>", "archive:<run>" or "submit".
    source_key
        SOP Instance UID of a DICOM object, `gateway.intake.accept.file_key` of any other file.
    media_type
        "application/dicom", "application/pdf", "image/png", ...
    data
        The bytes as received, until the intake returns.
    context
        What the object, its name or its sidecar says about its identity.
    actor
        Who received it, for the audit trail.
    destinations
        Names of the destinations the results go to; None for all of them.
    file_name
        What the sender calls the file; "" for an object that comes without a file.
    results
        What an archive run has read from its pages, for the worker; b"" where they were not digitized yet.
    """

    source: str
    source_key: str
    media_type: str
    data: Data
    context: StudyContext
    actor: str
    destinations: tuple[str, ...] | None = None
    file_name: str = ""
    results: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The job that stands for what was sent, and whether it was there before."""

    job_id: str
    duplicate: bool


Keep = Callable[[ReceivedObject], Accepted]  # raises StorageError where the object cannot be kept now


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundMessage:
    """An HL7 message that is known to be usable.

    Parameters
    ----------
    digest
        SHA-256 of the segments after MSH: a sender may use a control ID twice.
    message_type
        As in "ADT^A08".
    data
        The message as received.
    answer
        The acknowledgements it gets, separated by FS (0x1C).
    """

    sending_application: str
    sending_facility: str
    control_id: str  # MSH-10
    digest: str
    message_type: str
    data: bytes
    answer: bytes
    received_at: datetime
