"""make demo: the whole way on simulated pages, with real peers on loopback, in about a minute.

A page goes in by C-STORE as Secondary Capture, another as PDF through the watched folder.  The daemon runs as a process
of its own on its defaults, except for a temporary data folder and free ports.  A receiving PACS and an HL7 listener run
here; what they received, not what the daemon says it sent, is printed and left in the output folder.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import GeneralECGWaveformStorage, TwelveLeadECGWaveformStorage, Verification
from rich.console import Console
from rich.table import Column, Table

from gateway.domain.artefact import Role, kept_name
from gateway.domain.context import StudyContext
from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.hl7.inbound.acknowledgement import build_ack, scan_header
from gateway.hl7.transport.mllp import MllpListener
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.store.tables import Delivery, Job

_START_TIMEOUT_S = 90.0
_WORK_TIMEOUT_S = 300.0
_STOP_TIMEOUT_S = 30.0
_N_JOBS = 2
_SERVE = (sys.executable, "-m", "gateway", "serve", "--config")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One job as its receivers saw it; what is missing is "" and named in `problems`."""

    name: str  # of its files in the output folder
    job_id: str
    source: str
    layout: str
    leads: str
    estimated_snr: str
    waveform_sop_instance_uid: str
    ack_code: str
    seconds: str
    problems: tuple[str, ...]


class Pacs:
    """A C-STORE SCP for ECG waveforms that keeps what it gets, by SOP Instance UID, as DICOM files."""

    ae_title = "DEMOPACS"

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        ae = AE(self.ae_title)
        for sop_class in (TwelveLeadECGWaveformStorage, GeneralECGWaveformStorage, Verification):
            ae.add_supported_context(sop_class)
        self._server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self._keep)])
        self.port = int(self._server.server_address[1])

    def _keep(self, event: evt.Event) -> int:
        self.files[str(event.request.AffectedSOPInstanceUID)] = event.encoded_dataset()
        return 0x0000

    def stop(self) -> None:
        """Close the port and every association."""
        self._server.shutdown()


class Ehr:
    """An HL7 listener that keeps what it gets, by MSH-10, and answers AA."""

    def __init__(self) -> None:
        self.messages: dict[str, bytes] = {}
        self._listener = MllpListener("127.0.0.1", 0, self._keep)
        self._listener.start()
        self.port = self._listener.port

    def _keep(self, message: bytes) -> tuple[bytes]:
        header = scan_header(message)
        if header is None:
            return (build_ack(message, "AR", error_code="100"),)
        self.messages[header.field(10).decode("ascii", "replace")] = message
        return (build_ack(message, "AA"),)

    def stop(self) -> None:
        """Close the port and every connection."""
        self._listener.stop()


def run_demo(out: Path = Path("demo-out"), daemon_command: Sequence[str] = _SERVE) -> int:
    """Run the demonstration and leave its results in `out`.

    Parameters
    ----------
    daemon_command
        Starts the gateway; the path of a settings file is added.

    Returns
    -------
    int
        0 when both pages came out at both receivers; 1 when anything is missing, which is then said.
    """
    console = Console(highlight=False)
    out.mkdir(parents=True, exist_ok=True)
    console.print("Drawing two pages of simulated patients")
    page_png, page_pdf = out / "c-store.page.png", out / "folder.page.pdf"
    _draw(page_png, seed=1)
    _draw(page_pdf, seed=2)
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ecg-gateway-demo-")))
        pacs, ehr = Pacs(), Ehr()
        stack.callback(pacs.stop)
        stack.callback(ehr.stop)
        dicom_port, web_port = _free_ports(2)
        config = root / "gateway.toml"
        config.write_text(_toml(root, dicom_port, web_port, pacs.port, ehr.port), encoding="utf-8")
        console.print("Starting the gateway, a receiving PACS and an HL7 listener")
        daemon = stack.enter_context(_daemon([*daemon_command, str(config)], out / "gateway.log"))
        problem = _wait_for_echo(daemon, dicom_port)
        if not problem:
            console.print("Sending one page by C-STORE, dropping the other into the watched folder")
            _send(page_png, dicom_port)
            _drop(page_pdf, root / "inbox")
            console.print(f"Waiting for both; the queue is at http://127.0.0.1:{web_port}/ meanwhile")
            store = Store(root / "var" / "gateway.db")
            stack.callback(store.close)
            problem = _wait_until_settled(daemon, store)
            spool = Spool(root / "var" / "spool", minimum_free_mib=0)
            outcomes = [_outcome(job, store, spool, pacs, ehr, out) for job in reversed(store.jobs.newest())]
        else:
            outcomes = []
    return report(console, out, outcomes, problem)


def _draw(file: Path, seed: int) -> None:
    command = [sys.executable, "-m", "pipeline.training.sample", str(file), "--seed", str(seed)]
    subprocess.run(command, check=True, timeout=120)


def _free_ports(count: int) -> list[int]:
    """Return ports nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(taken.getsockname()[1]) for taken in sockets]


def _toml(root: Path, dicom_port: int, web_port: int, pacs_port: int, ehr_port: int) -> str:
    """Return the settings: the defaults, except for paths, ports and where results go."""
    inbox, var = json.dumps(str(root / "inbox")), json.dumps(str(root / "var"))  # a JSON string is a TOML string
    return f"""
dicom.port = {dicom_port}
web.port = {web_port}
storage.path = {var}

[[folders]]
path = {inbox}

[[destinations]]
kind = "dicom"
name = "pacs"
host = "127.0.0.1"
port = {pacs_port}
ae_title = "{Pacs.ae_title}"

[[destinations]]
kind = "hl7"
name = "ehr"
host = "127.0.0.1"
port = {ehr_port}
"""


@contextmanager
def _daemon(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the gateway until the block ends."""
    with open(log, "wb") as file:
        daemon = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        try:
            yield daemon
        finally:
            daemon.terminate()
            try:
                daemon.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _wait_for_echo(daemon: subprocess.Popen[bytes], port: int) -> str:
    """Return "" as soon as the gateway answers C-ECHO, or why it never did."""
    ae = AE("DEMO")
    ae.add_requested_context(Verification)
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if daemon.poll() is not None:
            return f"the gateway ended with exit status {daemon.returncode}"
        if _is_open(port) and _echo(ae, port):
            return ""
        time.sleep(0.3)
    return f"the gateway did not answer C-ECHO within {_START_TIMEOUT_S:g} s"


def _is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


def _echo(ae: AE, port: int) -> bool:
    association = ae.associate("127.0.0.1", port, ae_title="ECGGW")
    if not association.is_established:
        return False
    status = association.send_c_echo()
    association.release()
    return bool(status) and status.Status == 0x0000


def _send(page: Path, port: int) -> None:
    """Send a page as a scanner would: Secondary Capture, explicit VR little endian, RGB."""
    ae = AE("DEMOSCANNER")
    ae.add_requested_context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", port, ae_title="ECGGW")
    if not association.is_established:
        raise ConnectionError("the gateway took no association for Secondary Capture")
    try:
        status = association.send_c_store(_secondary_capture(page))
    finally:
        association.release()
    if not status or status.Status != 0x0000:
        raise ConnectionError(f"the gateway answered the C-STORE with {status.get('Status', 'nothing')}")


def _secondary_capture(page: Path) -> Dataset:
    pixels = np.asarray(Image.open(page).convert("RGB"))
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = SecondaryCaptureImageStorage
    ds.SOPInstanceUID = generate_uid()
    ds.StudyInstanceUID = generate_uid()
    ds.SeriesInstanceUID = generate_uid()
    ds.Modality = "OT"
    ds.ConversionType = "SD"
    ds.PatientName = "Simulated^Anna"
    ds.PatientID = "DEMO-1"
    ds.PatientBirthDate = "19610504"
    ds.PatientSex = "F"
    ds.StudyDate = "20260105"
    ds.StudyTime = "081500"
    ds.AcquisitionDateTime = "20260105081500"
    ds.AccessionNumber = "DEMO-A1"
    ds.ReferringPhysicianName = ""
    ds.StudyID = ""
    ds.SeriesNumber = 1
    ds.InstanceNumber = 1
    ds.SamplesPerPixel = 3
    ds.PlanarConfiguration = 0
    ds.PhotometricInterpretation = "RGB"
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit = 7
    ds.PixelRepresentation = 0
    ds.PixelData = pixels.tobytes()
    return ds


def _drop(page: Path, inbox: Path) -> None:
    """Put a page into the watched folder, its identity first, and rename it into place whole."""
    identity = StudyContext(
        patient_id="DEMO-2",
        patient_name="Simulated^Bernd",
        patient_birth_date="19580917",
        patient_sex="M",
        accession_number="DEMO-A2",
        study_date="20260106",
        study_time="101500",
    )
    inbox.mkdir(exist_ok=True)
    (inbox / "page.pdf.json").write_text(identity.model_dump_json(exclude_defaults=True), encoding="utf-8")
    shutil.copyfile(page, inbox / ".page.pdf.part")
    (inbox / ".page.pdf.part").rename(inbox / "page.pdf")


def _wait_until_settled(daemon: subprocess.Popen[bytes], store: Store) -> str:
    """Return "" as soon as both jobs are through and nothing is left to deliver, or why that never came."""
    deadline = time.monotonic() + _WORK_TIMEOUT_S
    while time.monotonic() < deadline:
        jobs = store.jobs.newest()
        if len(jobs) >= _N_JOBS and all(_is_settled(job, store.deliveries.of_job(job.id)) for job in jobs):
            return ""
        if daemon.poll() is not None:
            return f"the gateway ended with exit status {daemon.returncode}"
        time.sleep(0.3)
    return f"the jobs did not end within {_WORK_TIMEOUT_S:g} s"


def _is_settled(job: Job, deliveries: list[Delivery]) -> bool:
    working = job.status in (JobStatus.QUEUED, JobStatus.RUNNING)
    return not working and all(delivery.status != DeliveryStatus.PENDING for delivery in deliveries)


def _outcome(job: Job, store: Store, spool: Spool, pacs: Pacs, ehr: Ehr, out: Path) -> Outcome:
    """Return what became of a job, and leave its files in `out`."""
    name = "c-store" if job.source.startswith("dicom:") else "folder"
    pages, deliveries = store.jobs.pages(job.id), store.deliveries.of_job(job.id)
    page = pages[0] if pages else None
    problems = [] if job.status == JobStatus.DONE else [f"the job is {job.status}: {job.reason or 'no reason given'}"]
    uid = leads = ack_code = ""
    waveform = pacs.files.get(page.waveform_sop_instance_uid) if page else None
    if waveform is None:
        problems.append("the PACS received no waveform")
    else:
        (out / f"{name}.waveform.dcm").write_bytes(waveform)
        received = dcmread(BytesIO(waveform))
        uid = str(received.SOPInstanceUID)
        leads = str(received.WaveformSequence[0].NumberOfWaveformChannels)
    sent = next((delivery for delivery in deliveries if delivery.kind == "hl7"), None)
    message = ehr.messages.get(sent.identifier) if sent else None
    if message is None or sent is None:
        problems.append("the HL7 listener received no ORU^R01")
    else:
        (out / f"{name}.oru.txt").write_bytes(message.replace(b"\r", b"\n"))
        ack_code = sent.response
    overlay = spool.artefact_path(job.id, kept_name(1, Role.OVERLAY_PICTURE))
    if overlay.is_file():
        shutil.copyfile(overlay, out / f"{name}.overlay.png")
    else:
        problems.append("there is no overlay")
    return Outcome(
        name=name,
        job_id=job.id,
        source=f"C-STORE from {job.source.removeprefix('dicom:')}" if name == "c-store" else "watched folder, PDF",
        layout=page.layout if page else "",
        leads=leads,
        estimated_snr="" if page is None or page.estimated_snr_db is None else f"{page.estimated_snr_db:.1f} dB",
        waveform_sop_instance_uid=uid,
        ack_code=ack_code,
        seconds=_seconds(job, deliveries),
        problems=tuple(problems),
    )


def _seconds(job: Job, deliveries: list[Delivery]) -> str:
    """Return how long it took from the job's acceptance until the last receiver had its result."""
    ends = [delivery.delivered_at for delivery in deliveries if delivery.delivered_at is not None]
    return f"{(max(ends) - job.created_at).total_seconds():.1f}" if ends else ""


def report(console: Console, out: Path, outcomes: list[Outcome], problem: str) -> int:
    """Print the table, where the files are and what is missing; return the exit status."""
    columns = [Column(outcome.name, overflow="fold") for outcome in outcomes]
    table = Table("", *columns, title="From paper to PACS and EHR")
    for words, field in (
        ("job", "job_id"),
        ("source", "source"),
        ("layout", "layout"),
        ("leads", "leads"),
        ("estimated SNR", "estimated_snr"),
        ("waveform SOP Instance UID at the PACS", "waveform_sop_instance_uid"),
        ("ACK code", "ack_code"),
        ("seconds", "seconds"),
    ):
        table.add_row(words, *(getattr(outcome, field) or "-" for outcome in outcomes))
    if outcomes:
        console.print(table)
    problems = [problem] if problem else []
    problems += [f"{outcome.name}: {words}" for outcome in outcomes for words in outcome.problems]
    if len(outcomes) != _N_JOBS:
        problems.append(f"{len(outcomes)} jobs instead of {_N_JOBS}")
    for words in problems:
        console.print(f"Missing: {words}", style="bold red", markup=False, soft_wrap=True)
    if problems:
        console.print(f"The gateway's log is {out / 'gateway.log'}")
        return 1
    console.print(
        f"""
Look at the results in {out}/:
  *.page.*        what was sent
  *.overlay.png   the recovered traces drawn over the page: any picture viewer
  *.waveform.dcm  the 12-lead waveform as the PACS received it: any DICOM ECG viewer (OHIF, Weasis), or
                  {sys.executable} -m pydicom show {out}/c-store.waveform.dcm
  *.oru.txt       the ORU^R01 as the HL7 listener received it, one segment a line: any text viewer""",
        soft_wrap=True,
    )
    return 0
