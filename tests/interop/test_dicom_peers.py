"""What independent DICOM software makes of us: dciodvfy, DCMTK and Orthanc.

DCMTK's dcmsend exits 0 when every C-STORE failed, so reports are read, not exit codes.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import HTJ2K, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, JPEG2000Lossless

from gateway.delivery.sample_ecg import TEST_PATIENT_ID
from gateway.dicom.images.pages import IMAGE_TRANSFER_SYNTAXES, read_instance
from gateway.dicom.network.find import StudyQuery, find_studies
from gateway.dicom.network.scp import StorageScp
from gateway.dicom.network.scu import send
from gateway.dicom.objects.waveform import build_waveform, encode
from gateway.intake.accept import Intake
from gateway.settings import CallerSettings, DicomDestination, DicomSettings, ObjectSettings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from pipeline import EcgRecord
from tests.gateway.delivery.destinations import kind
from tests.gateway.dicom.samples import (
    compressed,
    make_page,
    make_record,
    page_pixels,
    part10,
    read_pages,
    secondary_capture,
)
from tests.interop.peers import Orthanc, free_port, run, running_orthanc, tool
from tests.waiting import eventually

pytestmark = pytest.mark.interop


@dataclass
class Gateway:
    """Our SCP with a real spool and database."""

    port: int
    folder: Path

    def received(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted(self.folder.rglob("source*"))]


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    folder = tmp_path / "gateway"
    folder.mkdir()
    store = Store(folder / "gateway.db")
    settings = DicomSettings(port=0, callers=(CallerSettings(ae_title="CART1"), CallerSettings(ae_title="ORTHANC")))
    spool = Spool(folder / "spool", 1)
    scp = StorageScp(settings, Intake(spool, store).accept, spool)
    scp.start()
    yield Gateway(scp.port, folder)
    scp.stop()
    store.close()


def waveform_file(path: Path, layout: str, sop_class: str, record: EcgRecord | None = None) -> Path:
    page = make_page(record or make_record(layout), layout_name=layout)
    dataset = build_waveform(page, sop_class, ObjectSettings())  # type: ignore[arg-type]
    path.write_bytes(encode(dataset))
    return path


# ---- the object itself


@pytest.mark.parametrize("layout", ["3x4+II", "6x2", "12x1"])
@pytest.mark.parametrize("sop_class", ["12-lead", "general"])
def test_dciodvfy_finds_no_error(tmp_path: Path, layout: str, sop_class: str) -> None:
    said = run("dciodvfy", "-new", waveform_file(tmp_path / "w.dcm", layout, sop_class))
    assert {"12-lead": "TwelveLeadECG", "general": "GeneralECG"}[sop_class] in said
    assert "Error" not in said, said
    assert "Warning" not in said, said


def test_dciodvfy_does_find_errors(tmp_path: Path) -> None:
    dataset = dcmread(waveform_file(tmp_path / "w.dcm", "3x4+II", "12-lead"))
    del dataset.AcquisitionDateTime
    dataset.save_as(tmp_path / "broken.dcm")
    assert "Error" in run("dciodvfy", "-new", tmp_path / "broken.dcm", check=False)


# ---- C-ECHO and C-STORE into the gateway


def test_echoscu_is_answered_and_strangers_are_rejected(gateway: Gateway) -> None:
    run("echoscu", "-aet", "CART1", "-aec", "ECGGW", "127.0.0.1", gateway.port)
    said = run("echoscu", "-aet", "STRANGER", "-aec", "ECGGW", "127.0.0.1", gateway.port, check=False)
    assert "Calling AE Title Not Recognized" in said
    said = run("echoscu", "-aet", "CART1", "-aec", "OTHER", "127.0.0.1", gateway.port, check=False)
    assert "Called AE Title Not Recognized" in said


def photograph_like_pixels() -> np.ndarray:
    """Pixels that lossy coders keep within a few counts: no hard edges."""
    y, x = np.mgrid[:96, :128]
    return np.stack([100 + y // 2, 120 + x // 2, 200 - (x + y) // 4], axis=-1).astype(np.uint8)


# transfer syntax -> DCMTK program that makes it from uncompressed, and storescu's option to propose it
BY_DCMTK: dict[str, tuple[tuple[str, ...], str]] = {
    "1.2.840.10008.1.2.1": (("dcmconv", "+te"), "-xe"),
    "1.2.840.10008.1.2": (("dcmconv", "+ti"), "-xi"),
    "1.2.840.10008.1.2.5": (("dcmcrle",), "-xr"),
    "1.2.840.10008.1.2.4.80": (("dcmcjpls", "+el"), "-xt"),
    "1.2.840.10008.1.2.4.81": (("dcmcjpls", "+en"), "-xu"),
    "1.2.840.10008.1.2.4.70": (("dcmcjpeg", "+e1"), "-xs"),
    "1.2.840.10008.1.2.4.50": (("dcmcjpeg", "+eb"), "-xy"),
    "1.2.840.10008.1.2.4.51": (("dcmcjpeg", "+ee"), "-xx"),
}
LOSSY = ("1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")


@pytest.mark.parametrize("syntax", BY_DCMTK)
def test_storescu_sends_a_secondary_capture(gateway: Gateway, tmp_path: Path, syntax: str) -> None:
    (encoder, *options), proposal = BY_DCMTK[syntax]
    raw, made = tmp_path / "raw.dcm", tmp_path / "made.dcm"
    raw.write_bytes(part10(secondary_capture(photograph_like_pixels())))
    run(encoder, *options, raw, made)
    sent = dcmread(made)
    assert sent.file_meta.TransferSyntaxUID == syntax
    run("storescu", "-R", proposal, "-aet", "CART1", "-aec", "ECGGW", "127.0.0.1", gateway.port, made)
    (data,) = gateway.received()
    received = dcmread(BytesIO(data))
    assert received.file_meta.TransferSyntaxUID == syntax
    assert received.PixelData == sent.PixelData
    difference = read_pages(data)[0].pixels.astype(int) - photograph_like_pixels()
    assert np.abs(difference).max() <= (12 if syntax in LOSSY else 0)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEG2000])
def test_dcmsend_sends_jpeg_2000(gateway: Gateway, tmp_path: Path, syntax: str) -> None:
    made = tmp_path / "made.dcm"
    data = compressed(secondary_capture(photograph_like_pixels()), JPEG2000Lossless)
    made.write_bytes(part10(dcmread(BytesIO(data)), syntax))  # a lossless stream is a legal one of either syntax
    assert stored(dcmsend(gateway, made)) == 1
    (received,) = gateway.received()
    assert dcmread(BytesIO(received)).file_meta.TransferSyntaxUID == syntax
    assert np.array_equal(read_pages(received)[0].pixels, photograph_like_pixels())


def dcmsend(gateway: Gateway, *paths: Path) -> str:
    """Send without converting; the report, since the exit code is 0 even when nothing was stored."""
    return run("dcmsend", "-v", "-dn", "-aet", "CART1", "-aec", "ECGGW", "127.0.0.1", gateway.port, *paths, check=False)


def stored(report: str) -> int:
    found = re.search(r"with status SUCCESS\s*: (\d+)", report)
    return int(found[1]) if found else 0


def test_dcmsend_sends_jpeg_lossless_process_14(gateway: Gateway, tmp_path: Path) -> None:
    raw, made = tmp_path / "raw.dcm", tmp_path / "made.dcm"
    raw.write_bytes(part10(secondary_capture()))
    run("dcmcjpeg", "+el", "+sv", "4", raw, made)
    assert dcmread(made).file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.57"
    assert stored(dcmsend(gateway, made)) == 1
    (received,) = gateway.received()
    assert np.array_equal(read_pages(received)[0].pixels, page_pixels())


def test_every_accepted_syntax_is_sent_by_one_of_these_tests() -> None:
    by_others = {JPEG2000Lossless, JPEG2000, "1.2.840.10008.1.2.4.57"}
    no_peer_here_speaks = {HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K}  # DCMTK 3.6.7 is older than they are
    assert set(IMAGE_TRANSFER_SYNTAXES) == set(BY_DCMTK) | by_others | no_peer_here_speaks


def test_a_duplicate_is_answered_like_the_first(gateway: Gateway, tmp_path: Path) -> None:
    path = tmp_path / "sc.dcm"
    path.write_bytes(part10(secondary_capture()))
    for _ in range(2):
        assert stored(dcmsend(gateway, path)) == 1
    assert len(gateway.received()) == 1


def test_what_is_not_taken_is_refused_before_it_is_sent(gateway: Gateway, tmp_path: Path) -> None:
    assert stored(dcmsend(gateway, waveform_file(tmp_path / "w.dcm", "12x1", "12-lead"))) == 0
    assert gateway.received() == []


def test_pdf2dcm_becomes_a_document(gateway: Gateway, tmp_path: Path) -> None:
    pdf = tmp_path / "page.pdf"
    pdf.write_bytes(b"%PDF-1.4\n1 0 obj\n<</Type/Catalog>>\nendobj\ntrailer <</Root 1 0 R>>\n%%EOF\n")
    run("pdf2dcm", pdf, tmp_path / "pdf.dcm", "-k", "PatientID=P-1")
    run("storescu", "-aet", "CART1", "-aec", "ECGGW", "127.0.0.1", gateway.port, tmp_path / "pdf.dcm")
    (received,) = gateway.received()
    document = read_instance(received).document
    assert document is not None
    assert document.rstrip(b"\0") == pdf.read_bytes()


# ---- delivery


@pytest.fixture(scope="module")
def mover(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """DCMTK's storescp, as a store and as a C-MOVE destination: (port, folder of what it took)."""
    port, folder = free_port(), tmp_path_factory.mktemp("storescp")
    with subprocess.Popen([tool("storescp"), "-aet", "MOVER", "-od", str(folder), str(port)]) as process:
        wait_for_echo(port, "MOVER")
        yield port, folder
        process.terminate()


def stored_as(folder: Path, sop_instance_uid: str) -> Dataset:
    """The object storescp stored, taken out of its folder."""
    (path,) = [path for path in folder.iterdir() if path.name.endswith(sop_instance_uid)]
    dataset = dcmread(path)
    path.unlink()
    return dataset


def wait_for_echo(port: int, ae_title: str) -> None:
    echo_to_it = ("echoscu", "-v", "-aet", "CART1", "-aec", ae_title, "127.0.0.1", port)
    eventually(lambda: "Association Accepted" in run(*echo_to_it, check=False))


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory, mover: tuple[int, Path]) -> Iterator[Orthanc]:
    folder = tmp_path_factory.mktemp("orthanc")
    with running_orthanc(folder, {"mover": ("MOVER", mover[0])}, DicomAlwaysAllowFind=True) as orthanc:
        yield orthanc


def destination(port: int, ae_title: str) -> DicomDestination:
    return DicomDestination(name="pacs", host="127.0.0.1", port=port, ae_title=ae_title)


@pytest.mark.parametrize("sop_class", ["12-lead", "general"])
def test_storescp_takes_our_object(tmp_path: Path, mover: tuple[int, Path], sop_class: str) -> None:
    path = waveform_file(tmp_path / "w.dcm", "3x4+II", sop_class)
    assert send(path, destination(mover[0], "MOVER"), "ECGGW") == "0x0000"
    sent = dcmread(path)
    assert stored_as(mover[1], sent.SOPInstanceUID) == sent


def test_orthanc_stores_our_object_and_returns_its_samples_byte_for_byte(
    tmp_path: Path, orthanc: Orthanc, mover: tuple[int, Path]
) -> None:
    path = waveform_file(tmp_path / "w.dcm", "3x4+II", "12-lead")
    sent = dcmread(path)
    for _ in range(2):  # a repeat is recognised by its SOP Instance UID
        assert send(path, destination(orthanc.dicom_port, "ORTHANC"), "ECGGW") == "0x0000"
    (instance,) = orthanc.instances()
    returned = dcmread(BytesIO(orthanc.request(f"/instances/{instance}/file")))
    assert returned.WaveformSequence[0].WaveformData == sent.WaveformSequence[0].WaveformData
    assert returned == sent
    tags = json.loads(orthanc.request(f"/instances/{instance}/simplified-tags"))
    assert (tags["Modality"], tags["PatientName"], tags["PatientID"]) == ("ECG", "Muster^Zoë", "P-1001")

    run(
        *["movescu", "-S", "-aet", "MOVER", "-aec", "ORTHANC", "-aem", "MOVER"],
        *["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={sent.StudyInstanceUID}"],
        *["127.0.0.1", orthanc.dicom_port],
    )
    moved = stored_as(mover[1], sent.SOPInstanceUID)
    assert moved.WaveformSequence[0].WaveformData == sent.WaveformSequence[0].WaveformData


def test_orthanc_is_diagnosed_and_finds_the_test_ecg(orthanc: Orthanc) -> None:
    peer = destination(orthanc.dicom_port, "ORTHANC")
    assert [step for step in kind(peer).send_test() if not step.ok] == []
    (study,) = find_studies(peer, "ECGGW", StudyQuery(patient_id=TEST_PATIENT_ID, modalities="ECG"), limit=10)
    assert (study.patient_name, study.study_description) == ("TEST^GATEWAY", "TEST of the ECG gateway, no patient")
    assert find_studies(peer, "ECGGW", StudyQuery(patient_id="NOBODY"), limit=10) == ()
    (stored,) = [
        each
        for each in orthanc.instances()
        if TEST_PATIENT_ID.encode() in orthanc.request(f"/instances/{each}/simplified-tags")
    ]
    orthanc.request(f"/instances/{stored}", method="DELETE")


def test_orthanc_sends_a_page_to_the_gateway(tmp_path: Path, orthanc: Orthanc, gateway: Gateway) -> None:
    page = secondary_capture(SOPInstanceUID="2.25.5005", StudyInstanceUID="2.25.5006")
    uploaded = json.loads(orthanc.request("/instances", part10(page)))
    orthanc.request("/modalities/gateway", modality("ECGGW", gateway.port), method="PUT")
    answer = json.loads(orthanc.request("/modalities/gateway/store", uploaded["ID"].encode()))
    assert (answer["InstancesCount"], answer["FailedInstancesCount"]) == (1, 0)
    (received,) = gateway.received()
    assert np.array_equal(read_pages(received)[0].pixels, page_pixels())


def modality(ae_title: str, port: int) -> bytes:
    return json.dumps([ae_title, "127.0.0.1", port]).encode()
