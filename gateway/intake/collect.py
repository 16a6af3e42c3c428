"""A folder that objects from an archive are kept in for `ecg-gateway archive`: no jobs are made of them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from gateway.domain.received import Accepted, ReceivedObject
from gateway.errors import IntakeError, StorageError
from gateway.spool.disk import write_durably

_UID = re.compile(r"\d+(\.\d+)*")  # PS3.5 section 9.1: nothing that a path could be made of


class Collection:
    """DICOM objects by their SOP Instance UID, in 256 folders.

    Raises
    ------
    StorageError
        The folder cannot be created.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{folder}: {error.strerror}") from error

    def accept(self, received: ReceivedObject) -> Accepted:
        """Keep an object; it is safe when this returns.

        Raises
        ------
        IntakeError
            Its SOP Instance UID is none.
        StorageError
            It cannot be written.
        """
        path = self._path(received.source_key)
        known = path.is_file()
        try:
            path.parent.mkdir(exist_ok=True)
            write_durably(path, received.data)
        except OSError as error:
            raise StorageError(f"{self._folder}: {error.strerror}") from error
        return Accepted(job_id="", duplicate=known)

    def has(self, sop_instance_uid: str) -> bool:
        """Return whether an object is here."""
        return self._path(sop_instance_uid).is_file()

    def is_known(self, sop_instance_uid: str) -> bool:
        """Return whether an object need not be fetched."""
        return self.has(sop_instance_uid)

    def queued(self) -> int:
        """Return how many jobs wait: there are none."""
        return 0

    def _path(self, sop_instance_uid: str) -> Path:
        if not _UID.fullmatch(sop_instance_uid):
            raise IntakeError("the archive names an object by what is no UID")
        part = hashlib.sha256(sop_instance_uid.encode()).hexdigest()[:2]
        return self._folder / part / f"{sop_instance_uid}.dcm"
