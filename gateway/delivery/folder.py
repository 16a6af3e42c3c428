"""A folder as a destination: it receives the DICOM objects and the message of every page as files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from gateway.delivery.hl7 import message_about, withdrawal_of
from gateway.delivery.kind import Kind, Objects, Withdrawn
from gateway.delivery.steps import Step
from gateway.domain.artefact import Artefact
from gateway.domain.digitized_page import DigitizedPage
from gateway.errors import DeliveryDeferred, NotReached
from gateway.security.tls import words
from gateway.settings import FolderDestination, Hl7CodeSettings, Hl7Destination
from gateway.spool.disk import write_durably
from gateway.store.tables import Delivery


class FolderKind(Kind):
    """A folder: one file for each object and message."""

    def __init__(self, destination: FolderDestination, codes: Hl7CodeSettings) -> None:
        super().__init__(destination)
        self.waveform, self.also = destination.sop_class, destination.also
        self._path, self._create = destination.path, destination.create
        self._codes = codes
        self._message = Hl7Destination(
            name=destination.name, host="localhost", port=0
        )  # headed as an HL7 destination's default

    def artefacts(self, page: DigitizedPage, objects: Objects, earlier: Sequence[Delivery]) -> Iterator[Artefact]:
        """Yield the waveform, what else is wanted of the page as objects, and an ORU^R01."""
        yield from (objects[kind] for kind in self.objects)
        yield message_about(page, self._message, self._codes, earlier)

    @property
    def withdraws(self) -> bool:
        """Whether it can be told that what it has is rejected: by a message."""
        return True

    def withdrawal(self, withdrawn: Withdrawn) -> Iterator[Artefact]:
        """Yield the message that withdraws another."""
        yield withdrawal_of(withdrawn, self._message, self._codes)

    def send(self, path: Path, delivery: Delivery) -> str:
        """Write the artefact into the folder; see `deliver_to_folder`."""
        try:
            self._make()
        except OSError as error:
            raise NotReached(f"the destination folder cannot be made: {error.strerror}") from error
        return deliver_to_folder(self._path, path, delivery)

    def _make(self) -> None:
        if self._create:
            self._path.mkdir(mode=0o750, parents=True, exist_ok=True)

    def check(self) -> Iterator[Step]:
        """Yield whether the folder can be written to."""
        try:
            self._make()
            with tempfile.TemporaryFile(dir=self._path) as file:
                file.write(b"test")
        except OSError as error:
            found = f"{self._path} is no folder we can write to: {words(error)}"
            yield Step(name="folder", ok=False, found=found, advice="make it, mount it, or allow us to")
        else:
            yield Step(name="folder", ok=True, found=f"{self._path} can be written to")


def deliver_to_folder(folder: Path, artefact: Path, delivery: Delivery) -> str:
    """Write a result into a folder, whole or not at all, as `<job id>-<artefact>`; a repeat writes the same file.

    The folder must exist: one that is missing may be a share that is not mounted.  Owner and group may read the file,
    and nobody else: it names a patient.

    Returns
    -------
    str
        "stored".

    Raises
    ------
    NotReached
        The folder is not there.
    DeliveryDeferred
        It cannot take the file now.
    """
    if not folder.is_dir():
        raise NotReached("the destination folder is not there")
    try:
        write_durably(folder / f"{delivery.job_id}-{delivery.artefact}", artefact.read_bytes(), mode=0o640)
    except OSError as error:
        raise DeliveryDeferred(f"the destination folder cannot take it: {error.strerror}") from error
    return "stored"
