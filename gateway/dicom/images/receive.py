"""One object on its way in: bytes as received -> a DICOM file -> intake -> status.

C-STORE reaches us as the SCP, and again as the requestor of a C-GET; DICOMweb brings whole files.  The bytes of a data
set are never decoded and encoded again: the file that is spooled is a preamble, our file meta information, and exactly
what the sender sent.
"""

from __future__ import annotations

import io
import logging
from typing import Any, BinaryIO, cast

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.dsutils import encode_file_meta

from gateway.dicom.images.bounded import PARSING
from gateway.dicom.images.pages import read_context
from gateway.dicom.objects.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, is_uid
from gateway.domain.received import Data, Keep, ReceivedObject
from gateway.errors import IntakeError, StorageError, UndecodableDataset, UnsupportedSopClass

logger = logging.getLogger(__name__)

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
INVALID_SOP_INSTANCE = 0x0117
SOP_CLASS_NOT_SUPPORTED = 0x0122
OUT_OF_RESOURCES = 0xA700
DATA_SET_DOES_NOT_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
TOO_LARGE = 0xC001


class ContradictoryDataset(UndecodableDataset):
    """The data set is another object than the one that was announced."""


def answer_store(event: evt.Event, keep: Keep, maximum_object_mib: int, actor: str) -> Dataset:
    """Answer one C-STORE request (PS3.4 B.2.3): 0x0000 only after the object is on disk and its job committed."""
    try:
        return _store(event, keep, maximum_object_mib, actor)
    except (StorageError, OSError) as error:
        logger.error("Cannot store: %s", error, extra={"action": "scp_defer"})
        return status(OUT_OF_RESOURCES, "cannot be stored now, try again later")
    except UnsupportedSopClass as error:
        return _refuse(SOP_CLASS_NOT_SUPPORTED, str(error))
    except ContradictoryDataset as error:
        return _refuse(DATA_SET_DOES_NOT_MATCH, str(error))
    except IntakeError as error:
        return _refuse(CANNOT_UNDERSTAND, str(error))
    finally:
        event.request.DataSet.close()


def announced_object(data: Data, sop_class_uid: str, sop_instance_uid: str, source: str, actor: str) -> ReceivedObject:
    """Return a DICOM file that was announced as this object.

    Raises
    ------
    IntakeError
        It is another object, not of a class we take, or cannot be parsed.
    """
    with PARSING:
        context = read_context(data)
    if (context.source_sop_class_uid, context.source_sop_instance_uid) != (sop_class_uid, sop_instance_uid):
        raise ContradictoryDataset("SOP Class or Instance UID differs from the request's")
    return ReceivedObject(
        source=source,
        source_key=sop_instance_uid,
        media_type="application/dicom",
        data=data,
        context=context,
        actor=actor,
    )


def status(code: int, comment: str = "") -> Dataset:
    """Return the status of a response, with an Error Comment."""
    answer = Dataset()
    answer.Status = code
    if comment:
        answer.ErrorComment = comment[:64]  # LO
    return answer


def _store(event: evt.Event, keep: Keep, maximum_object_mib: int, actor: str) -> Dataset:
    request = event.request
    sop_class, sop_instance = str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID)
    if not is_uid(sop_instance):
        return _refuse(INVALID_SOP_INSTANCE, "the SOP Instance UID is no UID")
    if sop_class != event.context.abstract_syntax:
        return _refuse(SOP_CLASS_NOT_SUPPORTED, "the SOP Class is not that of the presentation context")
    if request.DataSet.overflowed:
        return _refuse(TOO_LARGE, f"larger than {maximum_object_mib} MiB")
    association = event.assoc
    peer = str((association.requestor if association.is_acceptor else association.acceptor).ae_title)
    data = _part10(request.DataSet.content(), sop_class, sop_instance, event.context.transfer_syntax, peer)
    keep(announced_object(data, sop_class, sop_instance, f"dicom:{peer}", actor))
    return status(SUCCESS)


class _Joined(io.RawIOBase):
    """A head and a file behind it, read as one file."""

    def __init__(self, head: bytes, file: BinaryIO) -> None:
        self._head = head
        self._file = file
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        size = len(buffer)
        piece = self._head[self._position : self._position + size]
        if not piece:
            self._file.seek(self._position - len(self._head))
            piece = self._file.read(size)
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position}.get(whence)
        if begin is None:
            begin = len(self._head) + self._file.seek(0, io.SEEK_END)
        self._position = begin + offset
        return self._position


def _part10(data_set: BinaryIO, sop_class: str, sop_instance: str, transfer_syntax: str, peer: str) -> BinaryIO:
    """Return a DICOM file (PS3.10 section 7.1) around the data set exactly as it was received."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(sop_instance)
    meta.TransferSyntaxUID = UID(transfer_syntax)
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    meta.SourceApplicationEntityTitle = peer
    head = b"".join((b"\0" * 128, b"DICM", encode_file_meta(meta)))
    return cast(BinaryIO, io.BufferedReader(_Joined(head, data_set)))


def _refuse(code: int, reason: str) -> Dataset:
    logger.warning("Refused an object, status 0x%04X: %s", code, reason, extra={"action": "scp_refuse"})
    return status(code, reason)
