"""A DIMSE archive as a source: C-FIND at every level, then C-MOVE to our listener, or C-GET (PS3.4 C.4.1 to C.4.3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context, build_role, evt
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from gateway.dicom.images.pages import (
    DOCUMENT_SOP_CLASSES,
    DOCUMENT_TRANSFER_SYNTAXES,
    IMAGE_SOP_CLASSES,
    IMAGE_TRANSFER_SYNTAXES,
)
from gateway.dicom.images.receive import answer_store
from gateway.dicom.network.association import associate
from gateway.dicom.network.find import Study, StudyQuery, find, find_studies
from gateway.domain.received import Keep
from gateway.errors import DeliveryDeferred, DeliveryRefused
from gateway.settings import DicomDestination

_MAXIMUM_MATCHES = 1_000_000
_UNCOMPRESSED = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
_SUCCESS, _SOME_FAILED, _UNKNOWN_DESTINATION = 0x0000, 0xB000, 0xA801
_PENDING = (0xFF00, 0xFF01)
_NEVER = {0x0122, 0x0124, _UNKNOWN_DESTINATION, *range(0xA900, 0xAA00), *range(0xC000, 0xD000)}  # tables C.4-2, C.4-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One object an archive has; `sop_class_uid` is "" where the archive does not say."""

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


class DimseArchive:
    """A DICOM destination asked for what it has.

    Parameters
    ----------
    move_to : str
        The AE title of our listener, which has to run while a peer with `retrieve = "move"` is fetched from.
    keep : Keep
        Keeps what a peer with `retrieve = "get"` sends on our own association.
    """

    def __init__(
        self, peer: DicomDestination, calling_ae_title: str, move_to: str, keep: Keep, maximum_object_mib: int
    ) -> None:
        self._peer = peer
        self._calling_ae_title = calling_ae_title
        self._move_to = move_to
        self._keep = keep
        self._maximum_object_mib = maximum_object_mib

    def studies(self, query: StudyQuery) -> Sequence[Study]:
        """Return the studies that match; raise as `find_studies` does."""
        return find_studies(self._peer, self._calling_ae_title, query, _MAXIMUM_MATCHES)

    def instances(self, study_instance_uid: str, modalities: Sequence[str]) -> Sequence[Instance]:
        """Return the objects of a study's series of these modalities (of all for none); raise as `studies` does."""
        return [
            Instance(
                study_instance_uid=study_instance_uid,
                series_instance_uid=series,
                sop_class_uid=_text(match, "SOPClassUID"),
                sop_instance_uid=_text(match, "SOPInstanceUID"),
            )
            for series in self._series(study_instance_uid, modalities)
            for match in self._find(
                "IMAGE",
                StudyInstanceUID=study_instance_uid,
                SeriesInstanceUID=series,
                SOPInstanceUID="",
                SOPClassUID="",
            )
        ]

    def fetch(self, instances: Sequence[Instance]) -> None:
        """Have objects of one study sent to us; what did not come is for the caller to find out.

        Raises
        ------
        DeliveryDeferred, DeliveryRefused
            The peer does not send, for now or ever.
        """
        for series, group in groupby(sorted(instances, key=_series_of), key=_series_of):
            members = list(group)
            identifier = Dataset()
            identifier.QueryRetrieveLevel = "IMAGE"
            identifier.StudyInstanceUID = UID(members[0].study_instance_uid)
            identifier.SeriesInstanceUID = UID(series)
            identifier.SOPInstanceUID = [UID(member.sop_instance_uid) for member in members]
            if self._peer.retrieve == "get":
                self._get(identifier, {member.sop_class_uid for member in members})
            else:
                self._move(identifier)

    def _series(self, study_instance_uid: str, modalities: Sequence[str]) -> Iterator[str]:
        found = self._find("SERIES", StudyInstanceUID=study_instance_uid, SeriesInstanceUID="", Modality="")
        for match in found:
            if not modalities or _text(match, "Modality") in modalities:
                yield _text(match, "SeriesInstanceUID")

    def _find(self, level: str, **keys: str) -> tuple[Dataset, ...]:
        identifier = Dataset()
        identifier.QueryRetrieveLevel = level
        for keyword, value in keys.items():
            setattr(identifier, keyword, value)
        model = StudyRootQueryRetrieveInformationModelFind
        return find(self._peer, self._calling_ae_title, model, identifier, _MAXIMUM_MATCHES)

    def _move(self, identifier: Dataset) -> None:
        model = StudyRootQueryRetrieveInformationModelMove
        association = associate(self._peer, self._calling_ae_title, [build_context(model, _UNCOMPRESSED)])
        try:
            self._check(association.send_c_move(identifier, self._move_to, model))
        finally:
            if association.is_established:
                association.release()

    def _get(self, identifier: Dataset, sop_classes: set[str]) -> None:
        model = StudyRootQueryRetrieveInformationModelGet
        known = (*IMAGE_SOP_CLASSES, *DOCUMENT_SOP_CLASSES)
        wanted = [uid for uid in known if "" in sop_classes or uid in sop_classes]
        association = associate(
            self._peer,
            self._calling_ae_title,
            [build_context(model, _UNCOMPRESSED), *_storage_contexts(wanted)],
            roles=[build_role(uid, scp_role=True) for uid in wanted],
            handlers=[
                (evt.EVT_C_STORE, lambda event: answer_store(event, self._keep, self._maximum_object_mib, "pull"))
            ],
            maximum_object_bytes=self._maximum_object_mib << 20,
        )
        try:
            self._check(association.send_c_get(identifier, model))
        finally:
            if association.is_established:
                association.release()

    def _check(self, answers: Iterable[tuple[Dataset, Dataset | None]]) -> None:
        """Follow a retrieval to its end."""
        name = self._peer.name
        try:
            codes = [status.get("Status") for status, _ in answers]
        except (ValueError, RuntimeError) as error:
            raise DeliveryDeferred(f"{name}: the association ended before the retrieval did") from error
        code = codes[-1] if codes else None
        if code in (_SUCCESS, _SOME_FAILED):
            return
        if code is None or code in _PENDING:
            raise DeliveryDeferred(f"{name}: the peer broke off a retrieval, or was silent")
        words = f"{name}: retrieval: status 0x{code:04X}"
        if code == _UNKNOWN_DESTINATION:
            words += f": it does not know {self._move_to}: have that AE title entered there with our address and port"
        elif self._peer.retrieve == "move":
            words += f": does the gateway run, and does the archive reach it as {self._move_to}?"
        kind = DeliveryRefused if code in _NEVER else DeliveryDeferred
        raise kind(words, response=f"0x{code:04X}")


def _storage_contexts(sop_classes: Sequence[str]) -> list[PresentationContext]:
    """Return a context for each compressed syntax, so that the archive sends every object as it has it."""
    contexts = []
    for sop_class in sop_classes:
        syntaxes = DOCUMENT_TRANSFER_SYNTAXES if sop_class in DOCUMENT_SOP_CLASSES else IMAGE_TRANSFER_SYNTAXES
        contexts.append(build_context(sop_class, _UNCOMPRESSED))
        contexts += [build_context(sop_class, syntax) for syntax in syntaxes if syntax not in _UNCOMPRESSED]
    return contexts[:127]


def _series_of(instance: Instance) -> str:
    return instance.series_instance_uid


def _text(match: Dataset, keyword: str) -> str:
    return str(match.get(keyword) or "")
