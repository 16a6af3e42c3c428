"""DICOM as a destination: a PACS gets the waveform, and what else it wants of a page, by C-STORE (PS3.4 annex B)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from pydicom.uid import (
    UID,
    EncapsulatedPDFStorage,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
)
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

from gateway.delivery.kind import Kind, Objects
from gateway.delivery.sample_ecg import sample_page
from gateway.delivery.steps import STATUSES, Step, answer_advice, reach, sent_test
from gateway.dicom.network import scu
from gateway.dicom.network.association import AssociationRejected, NoConnection, NoContext, associate
from gateway.dicom.network.find import Study, StudyQuery, find_studies
from gateway.dicom.network.retrieve import DimseArchive
from gateway.dicom.objects.page_objects import make_object
from gateway.dicom.objects.waveform import SOP_CLASS_UIDS
from gateway.domain.artefact import Artefact
from gateway.domain.digitized_page import DigitizedPage
from gateway.domain.received import Keep
from gateway.errors import DeliveryError
from gateway.settings import DicomDestination, DicomSettings, ObjectDestination, ObjectSettings
from gateway.settings.section import is_loopback
from gateway.store.tables import Delivery

# (result, source, reason) of PS3.8 table 9-21
_REJECTIONS = {
    (1, 1, 2): "the peer does not know DICOM's application context: is it a DICOM archive?",
    (1, 1, 3): "the peer does not know us: have AE title {calling} (and this machine's address) entered there, "
    "or set calling_ae_title to one it knows",
    (1, 1, 7): "the peer has another AE title than {called}: set ae_title as it is written there",
    (2, 3, 1): "the peer is too busy: try again later",
    (2, 3, 2): "the peer has too many associations open: try again later, or have its limit raised",
}
_FIND_STATUSES = (
    (range(0xA700, 0xA800), "the peer is out of resources: ask for less, by date or patient"),
    (range(0xA900, 0xAA00), "the peer does not know one of the keys, or its form: ask by others"),
    (range(0xC000, 0xD000), "the peer cannot process the query: ask for less, and see its log"),
    *STATUSES[-2:],
)


class DicomKind(Kind):
    """A PACS; its storage commitment makes a delivery final where the settings ask for it."""

    is_archive = True

    def __init__(self, destination: DicomDestination, dicom: DicomSettings) -> None:
        super().__init__(destination)
        self.waveform, self.also = destination.sop_class, destination.also
        self.rejection_note = destination.rejection_note
        self.committing = destination if destination.storage_commitment else None
        self._destination = destination
        self._dicom = dicom
        self._calling_ae_title = destination.calling_ae_title or dicom.ae_title

    def artefacts(self, page: DigitizedPage, objects: Objects, earlier: Sequence[Delivery]) -> Iterator[Artefact]:
        """Yield the waveform, and what else is wanted of the page."""
        yield from (objects[kind] for kind in self.objects)

    def send(self, path: Path, delivery: Delivery) -> str:
        """Send the object by C-STORE and return the status."""
        return scu.send(path, self._destination, self._calling_ae_title)

    def check(self) -> Iterator[Step]:
        """Yield the steps up to C-ECHO, whether the peer takes what we send, and whether its results can arrive."""
        for step in self._reach():
            yield step
            if not step.ok:
                return
        yield from _verify(self._destination, self._calling_ae_title, self._dicom)

    def send_test(self) -> Iterator[Step]:
        """Yield the steps of `check`, then store the test ECG."""
        return sent_test(
            self.check(),
            "C-STORE",
            lambda: with_test_object(
                self._destination, lambda path: scu.send(path, self._destination, self._calling_ae_title)
            ),
        )

    def find(self, query: StudyQuery, limit: int) -> tuple[tuple[Study, ...], Iterable[Step]]:
        """Return the studies that match (C-FIND, Study Root), or the steps up to the one that fails."""
        try:
            return find_studies(self._destination, self._calling_ae_title, query, limit), ()
        except DeliveryError as error:
            return (), self._not_found(error)

    def archive(self, keep: Keep, maximum_object_mib: int) -> DimseArchive:
        """Return what fetches objects by C-MOVE or C-GET."""
        return DimseArchive(self._destination, self._calling_ae_title, self._dicom.ae_title, keep, maximum_object_mib)

    def _reach(self) -> Iterator[Step]:
        destination = self._destination
        return reach(destination.host, destination.port, destination.timeout_s, destination.tls)

    def _not_found(self, error: DeliveryError) -> Iterator[Step]:
        for step in self._reach():
            yield step
            if not step.ok:
                return
        if isinstance(error, NoContext):
            advice = "have queries (C-FIND, Study Root) allowed there for our AE title"
            yield Step(name="context", ok=False, found=str(error), advice=advice)
        elif isinstance(error, NoConnection | AssociationRejected):
            yield _not_associated(error, self._destination, self._calling_ae_title)
        else:
            advice = f"have AE title {self._calling_ae_title} allowed to query there"
            if error.response:
                advice = answer_advice(error.response, _FIND_STATUSES)
            yield Step(name="C-FIND", ok=False, found=str(error), advice=advice)


def report_step(destination: DicomDestination, dicom: DicomSettings) -> Step:
    """Return how the results of storage commitment reach us, and what stands in their way."""
    ports = ([str(dicom.port)] if dicom.plain else []) + ([f"{dicom.tls.port} (TLS)"] if dicom.tls else [])
    called = destination.calling_ae_title or dicom.ae_title
    found = (
        f"commitment results are taken of {destination.ae_title} from {destination.host}, "
        f"to {called} at {dicom.host}, port {' or '.join(ports)}"
    )
    hidden = is_loopback(dicom.host) and not is_loopback(destination.host)
    advice = (
        f"{destination.host} cannot reach {dicom.host}: set [dicom] host to the address that it knows, or to 0.0.0.0"
    )
    return Step(name="results", ok=not hidden, found=found, advice=advice if hidden else "")


def with_test_object(destination: ObjectDestination, send: Callable[[Path], str]) -> str:
    """Send the test ECG as the waveform object that a destination wants, and return the answer."""
    made = make_object(sample_page(destination.name), destination.sop_class, ObjectSettings())
    assert made.data is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "test.dcm"
        path.write_bytes(made.data)
        return send(path)


def _verify(destination: DicomDestination, calling_ae_title: str, dicom: DicomSettings) -> Iterator[Step]:
    wanted = _wanted(destination)
    contexts = [build_context(Verification), *(build_context(sop_class) for sop_class in wanted)]
    try:
        association = associate(destination, calling_ae_title, contexts)
    except (NoConnection, AssociationRejected, NoContext) as error:
        yield _not_associated(error, destination, calling_ae_title)
        return
    try:
        found = f"{calling_ae_title} to {destination.ae_title}"
        yield Step(name="association", ok=True, found=found)
        accepted = {context.abstract_syntax for context in association.accepted_contexts}
        for sop_class, advice in wanted.items():
            takes = sop_class in accepted
            yield Step(
                name="context",
                ok=takes or sop_class == KeyObjectSelectionDocumentStorage,  # nothing but corrections needs that
                found=f"the peer takes {'' if takes else 'no '}{UID(sop_class).name}",
                advice="" if takes else advice,
            )
        if Verification in accepted:
            yield _c_echo(association)
        if destination.storage_commitment:
            yield report_step(destination, dicom)
    finally:
        if association.is_established:
            association.release()


def _wanted(destination: DicomDestination) -> dict[str, str]:
    """Return what a destination must take of us, by SOP class, and what to do where it does not."""
    advice = "set sop_class to the other one, or have it configured there"
    wanted = dict.fromkeys(SOP_CLASS_UIDS[destination.sop_class], advice)
    for kind, sop_class in (("report", EncapsulatedPDFStorage), ("overlay", SecondaryCaptureImageStorage)):
        if kind in destination.also:
            wanted[sop_class] = f"have it configured there, or take {kind} out of also"
    if destination.storage_commitment:
        wanted[StorageCommitmentPushModel] = "have it configured there, or set storage_commitment = false"
    if destination.rejection_note:
        wanted[KeyObjectSelectionDocumentStorage] = (
            "a correction could not reject what it replaces: have it configured there, or set rejection_note = false"
        )
    return wanted


def _c_echo(association: Association) -> Step:
    status = association.send_c_echo().get("Status")
    if status == 0x0000:
        return Step(name="C-ECHO", ok=True, found="status 0x0000")
    found = "no answer" if status is None else f"status 0x{status:04X}"
    return Step(name="C-ECHO", ok=False, found=found, advice="see the peer's log")


def _not_associated(error: DeliveryError, destination: DicomDestination, calling_ae_title: str) -> Step:
    if isinstance(error, NoContext):
        advice = f"have {destination.sop_class} ECG storage configured at the peer, for our AE title"
        return Step(name="context", ok=False, found=str(error), advice=advice)
    advice = "is it the peer's DICOM port?  Some close it on AE titles they do not know" + (
        "" if destination.tls else ", or want TLS: then set [destinations.tls]"
    )
    if isinstance(error, AssociationRejected):
        advice = _REJECTIONS.get(error.rejection, "see the peer's log")
        advice = advice.format(calling=calling_ae_title, called=destination.ae_title)
    return Step(name="association", ok=False, found=str(error), advice=advice)
