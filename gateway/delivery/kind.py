"""The interface of a kind of destination; `gateway.delivery.kinds` selects the kind for a setting.

A new kind is a module with a subclass of `Kind`, a class of settings, and a case in `kind_of`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gateway.delivery.steps import Step
from gateway.dicom.network.dicomweb import WebArchive
from gateway.dicom.network.find import Study, StudyQuery
from gateway.dicom.network.retrieve import DimseArchive
from gateway.dicom.objects.documents import Document
from gateway.dicom.objects.page_objects import ObjectKind
from gateway.dicom.objects.waveform import SopClass
from gateway.domain.artefact import Artefact
from gateway.domain.digitized_page import DigitizedPage
from gateway.domain.received import Keep
from gateway.errors import SettingsError
from gateway.settings import Destination, DicomDestination
from gateway.store.tables import Delivery

JITTER = 0.25  # of the pauses between attempts
Objects = Mapping[ObjectKind, Artefact]


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Withdrawn:
    """A message that arrived, and is not to be used any more.

    Parameters
    ----------
    delivery
        What carried it.
    sent
        The message.
    reason
        Why, in words.
    at
        When a person decided so, aware.
    revision
        Of the job's result, without this one.
    """

    delivery: Delivery
    sent: bytes
    reason: str
    at: datetime
    revision: int


class Kind(ABC):
    """One destination: what it is sent, how it is sent, and whether it can be reached.

    Attributes
    ----------
    name : str
        The destination's name in the settings.
    word : str
        The kind, as the settings write it.
    retry : RetrySettings
        How often and how long a delivery is tried.
    waveform : SopClass or None
        In which form it wants the waveform object of a page; None where it takes no objects.
    also : tuple of "report" and "overlay"
        What other objects of a page it wants.
    is_archive : bool
        Whether it keeps DICOM objects: messages refer to the waveform of the first archive.
    rejection_note : bool
        Whether a Key Object rejects what a correction replaces there.
    committing : DicomDestination or None
        The peer to ask for storage commitment (PS3.4 annex J), if that is wanted.
    """

    waveform: SopClass | None = None
    also: tuple[Document, ...] = ()
    is_archive = False
    rejection_note = False
    committing: DicomDestination | None = None

    def __init__(self, destination: Destination) -> None:
        self.name = destination.name
        self.word = destination.kind
        self.retry = destination.retry

    @property
    def longest_pause_s(self) -> float:
        """How long at most a delivery waits for its next attempt, or for the answer about its commitment."""
        wait_s = self.committing.commitment_wait_s if self.committing else 0.0
        return max(self.retry.maximum_s * (1 + JITTER), wait_s)

    @property
    def withdraws(self) -> bool:
        """Whether it can be told that what it has is rejected."""
        return self.rejection_note

    @property
    def objects(self) -> tuple[ObjectKind, ...]:
        """DICOM objects of a page that must be made for it, the waveform first."""
        return () if self.waveform is None else (self.waveform, *self.also)

    @abstractmethod
    def artefacts(self, page: DigitizedPage, objects: Objects, earlier: Sequence[Delivery]) -> Iterator[Artefact]:
        """Yield what this destination is sent for a page, in the order it is sent.

        Parameters
        ----------
        page : DigitizedPage
            The page; it has a patient ID.
        objects : Mapping[ObjectKind, Artefact]
            The page's DICOM objects, those of `self.objects` among them.
        earlier : Sequence[Delivery]
            Messages about the page that arrived here before, oldest first.

        Raises
        ------
        DeliveryRefused
            One cannot be made as this destination wants it; those yielded before stand.
        """

    def withdrawal(self, withdrawn: Withdrawn) -> Iterator[Artefact]:
        """Yield what tells this destination that a message which arrived is not to be used any more.

        Raises
        ------
        DeliveryRefused
            It cannot be made.
        """
        yield from ()

    @abstractmethod
    def send(self, path: Path, delivery: Delivery) -> str:
        """Send one artefact file and return the peer's answer.

        Raises
        ------
        DeliveryDeferred
            Not now; it is tried again.
        DeliveryRefused
            Never as it stands.
        """

    @abstractmethod
    def check(self) -> Iterator[Step]:
        """Yield the steps of reaching it, up to the first that fails; nothing is stored there."""

    def send_test(self) -> Iterator[Step]:
        """Yield the steps of `check`, then send the test ECG.

        Raises
        ------
        SettingsError
            This kind has no such test.
        """
        raise SettingsError(f"{self.name} is of kind {self.word}: use `echo`, or submit a test page")

    def find(self, query: StudyQuery, limit: int) -> tuple[tuple[Study, ...], Iterable[Step]]:
        """Return the studies it has, and no steps; or none, and the steps up to the one that fails.

        Raises
        ------
        SettingsError
            It cannot be queried.
        """
        raise self._no_archive()

    def archive(self, keep: Keep, maximum_object_mib: int) -> DimseArchive | WebArchive:
        """Return what fetches objects from it.

        Raises
        ------
        SettingsError
            It cannot be queried.
        """
        raise self._no_archive()

    def close(self) -> None:  # noqa: B027 - most kinds keep nothing open
        """End a connection that is kept open."""

    def _no_archive(self) -> SettingsError:
        return SettingsError(f"{self.name} is no archive: its kind is {self.word}")
