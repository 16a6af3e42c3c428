"""History out of archives, and objects into them: Orthanc by DIMSE and DICOMweb, dcmqrscp by C-MOVE and C-GET."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless

from gateway.dicom.network import dicomweb as web
from gateway.dicom.network.dicomweb import WebArchive
from gateway.dicom.network.find import StudyQuery
from gateway.dicom.network.retrieve import DimseArchive
from gateway.dicom.network.scp import StorageScp
from gateway.dicom.objects.waveform import build_waveform, encode
from gateway.intake.accept import Intake
from gateway.intake.pull import Archive, Progress, Wanted, pull
from gateway.settings import DicomDestination, DicomSettings, DicomWebDestination, ObjectSettings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from tests.gateway.delivery.destinations import kind
from tests.gateway.dicom.samples import compressed, make_page, part10, secondary_capture
from tests.interop.peers import Orthanc, free_port, run, running_orthanc, tool
from tests.waiting import eventually

pytestmark = pytest.mark.interop

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
WANTED = Wanted(
    query=StudyQuery(study_date="20100101-20101231", study_description="*ECG*"), modalities=("OT", "ECG"), batch=2
)


def history(syntax: str = JPEG2000Lossless) -> dict[str, bytes]:
    """Seven pages of three studies, one in this syntax, by SOP Instance UID; five of them are wanted (2.25.80x)."""
    pages: dict[str, bytes] = {}

    def page(uid: str, study: str, date: str, description: str, modality: str) -> None:
        dataset = secondary_capture(
            SOPInstanceUID=uid,
            StudyInstanceUID=study,
            SeriesInstanceUID=f"{study}.{len(modality)}.{ord(modality[0])}",
            StudyDate=date,
            StudyDescription=description,
            Modality=modality,
        )
        compress = uid.endswith("805") and syntax != ExplicitVRLittleEndian
        pages[uid] = compressed(dataset, syntax) if compress else part10(dataset)

    for number in (1, 2, 3):
        page(f"2.25.80{number}", "2.25.8100", "20100215", "Resting ECG", "OT")
    page("2.25.901", "2.25.8100", "20100215", "Resting ECG", "XC")
    for number in (4, 5):
        page(f"2.25.80{number}", "2.25.8200", "20101231", "ECG at home", "OT")
    page("2.25.902", "2.25.8300", "20100216", "Chest", "OT")
    return pages


@dataclass
class Gateway:
    """Our listener with a store."""

    store: Store
    intake: Intake
    port: int
    folder: Path

    def dimse(self, port: int, ae_title: str, retrieve: str) -> Archive:
        peer = DicomDestination(name="pacs", host="127.0.0.1", port=port, ae_title=ae_title, retrieve=retrieve)  # type: ignore[arg-type]
        return DimseArchive(peer, "ECGGW", "ECGGW", self.intake.accept, 64)

    def pulled(self, archive: Archive, wanted: Wanted = WANTED) -> Progress:
        return pull(archive, self.intake, wanted, lambda progress: None)

    def uids(self) -> list[str]:
        return sorted(job.source_key for job in self.store.jobs.newest())


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    store = Store(tmp_path / "gateway.db")
    spool = Spool(tmp_path / "spool", 1)
    intake = Intake(spool, store)
    scp = StorageScp(DicomSettings(port=0), intake.accept, spool)
    scp.start()
    yield Gateway(store, intake, scp.port, tmp_path / "spool")
    scp.stop(grace_s=1.0)
    store.close()


ALL = [f"2.25.80{number}" for number in (1, 2, 3, 4, 5)]


def check_pull(gateway: Gateway, archive: Archive, syntax: str = JPEG2000Lossless) -> None:
    """What is wanted comes, all of it; a second time nothing does; one that was missing comes alone."""
    first = gateway.pulled(archive)
    assert gateway.uids() == ALL, first
    assert (first.studies, first.fetched, first.known, first.failed) == (2, 5, 0, 0), first
    again = gateway.pulled(archive)
    assert (again.fetched, again.known, again.failed) == (0, 5, 0)
    expected = history(syntax)
    for path in gateway.folder.rglob("source*"):
        data = path.read_bytes()
        received = dcmread(BytesIO(data))
        assert received == dcmread(BytesIO(expected[received.SOPInstanceUID]))


# ---- Orthanc


@pytest.fixture
def orthanc(tmp_path: Path, gateway: Gateway) -> Iterator[Orthanc]:
    more = {"DicomAlwaysAllowFind": True, "DicomAlwaysAllowGet": True, "DicomAlwaysAllowMove": True}
    folder = tmp_path / "orthanc"
    folder.mkdir()
    with running_orthanc(folder, {"gateway": ("ECGGW", gateway.port)}, **more) as orthanc:
        for data in history().values():
            orthanc.request("/instances", data)
        yield orthanc


@pytest.mark.parametrize("retrieve", ["move", "get"])
def test_orthanc_by_dimse(gateway: Gateway, orthanc: Orthanc, retrieve: str) -> None:
    check_pull(gateway, gateway.dimse(orthanc.dicom_port, "ORTHANC", retrieve))


def test_what_was_here_is_left_out(gateway: Gateway, orthanc: Orthanc) -> None:
    archive = gateway.dimse(orthanc.dicom_port, "ORTHANC", "get")
    some = Wanted(query=StudyQuery(study_date="20100215", study_description="*ECG*"), modalities=("OT",))
    assert gateway.pulled(archive, some).fetched == 3
    rest = gateway.pulled(archive)
    assert (rest.fetched, rest.known) == (2, 3)
    assert gateway.uids() == ALL


# ---- DICOMweb


@dataclass
class Web:
    """An Orthanc that speaks DICOMweb and asks for a password."""

    orthanc: Orthanc
    destination: DicomWebDestination
    wrong_word: DicomWebDestination


@pytest.fixture
def dicomweb(tmp_path: Path) -> Iterator[Web]:
    tool("Orthanc")
    if not PLUGIN.exists():
        pytest.skip(f"orthanc-dicomweb is not installed: no {PLUGIN}")
    (tmp_path / "word").write_text("secret\n")
    (tmp_path / "wrong").write_text("guess")
    folder = tmp_path / "orthanc"
    folder.mkdir()
    with running_orthanc(
        folder,
        {},
        Plugins=[str(PLUGIN)],
        DicomWeb={"Enable": True, "Root": "/dicom-web/"},
        AuthenticationEnabled=True,
        RegisteredUsers={"gateway": "secret"},
    ) as orthanc:
        destination = DicomWebDestination(
            name="web",
            url=f"{orthanc.url}/dicom-web",
            username="gateway",
            password_file=tmp_path / "word",
        )
        yield Web(
            orthanc,
            destination,
            destination.model_copy(update={"password_file": tmp_path / "wrong"}),
        )


def test_orthanc_stores_by_stow_and_gives_back_what_was_stored(dicomweb: Web, tmp_path: Path) -> None:
    waveform = build_waveform(make_page(layout_name="3x4"), "12-lead", ObjectSettings())
    path = tmp_path / "w.dcm"
    path.write_bytes(encode(waveform))
    for _ in range(2):  # a repeat is stored, too
        assert web.send(path, dicomweb.destination) == "200"
    (instance,) = dicomweb.orthanc.instances()
    assert dcmread(BytesIO(dicomweb.orthanc.request(f"/instances/{instance}/file"))) == dcmread(path)


def test_orthanc_is_diagnosed(dicomweb: Web) -> None:
    steps = list(kind(dicomweb.destination).send_test())
    assert [step.name for step in steps] == ["name", "TCP", "QIDO-RS", "STOW-RS"]
    assert all(step.ok for step in steps), steps
    *_, last = kind(dicomweb.wrong_word).check()
    assert (last.name, last.ok) == ("QIDO-RS", False) and "401" in last.found and "password_file" in last.advice


def test_orthanc_by_dicomweb(gateway: Gateway, dicomweb: Web) -> None:
    for data in history().values():
        dicomweb.orthanc.request("/instances", data)
    check_pull(gateway, WebArchive(dicomweb.destination, gateway.intake.accept, 64))


# ---- dcmqrscp


@pytest.fixture
def dcmqrscp(tmp_path: Path, gateway: Gateway) -> Iterator[int]:
    port, folder = free_port(), tmp_path / "dcmqrscp"
    folder.mkdir()
    configuration = tmp_path / "dcmqrscp.cfg"
    configuration.write_text(
        f"""NetworkTCPPort = {port}
MaxPDUSize = 16384
MaxAssociations = 16
HostTable BEGIN
gateway = (ECGGW, 127.0.0.1, {gateway.port})
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
ARCHIVE {folder} RW (200, 1024mb) ANY
AETable END
"""
    )
    with subprocess.Popen([tool("dcmqrscp"), "-c", str(configuration)]) as process:
        try:
            echo_to_it = ("echoscu", "-v", "-aec", "ARCHIVE", "127.0.0.1", port)
            eventually(lambda: "Association Accepted" in run(*echo_to_it, check=False))
            for uid, data in history(ExplicitVRLittleEndian).items():
                path = tmp_path / f"{uid}.dcm"
                path.write_bytes(data)
                run("storescu", "-aec", "ARCHIVE", "127.0.0.1", port, path)
            yield port
        finally:
            process.terminate()


@pytest.mark.parametrize("retrieve", ["move", "get"])
def test_dcmqrscp(gateway: Gateway, dcmqrscp: int, retrieve: str) -> None:
    check_pull(gateway, gateway.dimse(dcmqrscp, "ARCHIVE", retrieve), ExplicitVRLittleEndian)
