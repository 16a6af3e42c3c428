"""DICOMweb as a destination: an archive gets the waveform, and what else it wants of a page, by STOW-RS (PS3.18)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gateway.delivery.dicom import with_test_object
from gateway.delivery.kind import Kind, Objects
from gateway.delivery.steps import Step, reach, sent_test
from gateway.dicom.network import dicomweb
from gateway.dicom.network.find import Study, StudyQuery
from gateway.domain.artefact import Artefact
from gateway.domain.digitized_page import DigitizedPage
from gateway.domain.received import Keep
from gateway.errors import DeliveryError
from gateway.settings import DicomWebDestination, TlsClientSettings
from gateway.store.tables import Delivery

_HTTP_ADVICE = {
    "401": "set token_file, or username and password_file, to what the server knows",
    "403": "have this user allowed there to query and store",
    "404": "nothing is at url: it is the path above /studies",
}


class DicomWebKind(Kind):
    """An archive behind HTTP; PS3.18 has no storage commitment."""

    is_archive = True

    def __init__(self, destination: DicomWebDestination) -> None:
        super().__init__(destination)
        self.waveform, self.also = destination.sop_class, destination.also
        self.rejection_note = destination.rejection_note
        self._destination = destination

    def artefacts(self, page: DigitizedPage, objects: Objects, earlier: Sequence[Delivery]) -> Iterator[Artefact]:
        """Yield the waveform, and what else is wanted of the page."""
        yield from (objects[kind] for kind in self.objects)

    def send(self, path: Path, delivery: Delivery) -> str:
        """Store the object by STOW-RS and return the HTTP status."""
        return dicomweb.send(path, self._destination)

    def check(self) -> Iterator[Step]:
        """Yield the steps up to a query (QIDO-RS) that is answered."""
        for step in self._reach():
            yield step
            if not step.ok:
                return
        try:
            dicomweb.check(self._destination)
        except DeliveryError as error:
            yield _not_answered(error)
        else:
            yield Step(name="QIDO-RS", ok=True, found="the server answers queries")

    def send_test(self) -> Iterator[Step]:
        """Yield the steps of `check`, then store the test ECG."""
        return sent_test(
            self.check(),
            "STOW-RS",
            lambda: with_test_object(self._destination, lambda path: dicomweb.send(path, self._destination)),
        )

    def find(self, query: StudyQuery, limit: int) -> tuple[tuple[Study, ...], Iterable[Step]]:
        """Return the studies that match (QIDO-RS), or the steps up to the one that fails."""
        try:
            return dicomweb.find_studies(self._destination, query, limit), ()
        except DeliveryError as error:
            return (), self._not_found(error)

    def archive(self, keep: Keep, maximum_object_mib: int) -> dicomweb.WebArchive:
        """Return what fetches objects by WADO-RS."""
        return dicomweb.WebArchive(self._destination, keep, maximum_object_mib)

    def _reach(self) -> Iterator[Step]:
        destination = self._destination
        tls = destination.tls
        if destination.secure:
            tls = tls or TlsClientSettings()
        return reach(destination.host, destination.port, destination.timeout_s, tls)

    def _not_found(self, error: DeliveryError) -> Iterator[Step]:
        for step in self._reach():
            yield step
            if not step.ok:
                return
        yield _not_answered(error)


def _not_answered(error: DeliveryError) -> Step:
    advice = _HTTP_ADVICE.get(error.response, "is url that of a DICOMweb service?  See the server's log")
    return Step(name="QIDO-RS", ok=False, found=str(error), advice=advice)
