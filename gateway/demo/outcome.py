"""What became of each page, as its receivers saw it, and the report about it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from rich.console import Console
from rich.table import Column, Table

from gateway.demo.peers import Ehr, Pacs
from gateway.domain.artefact import Role, kept_name
from gateway.domain.status import JobStatus
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.store.tables import Delivery, Job

N_JOBS = 2


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


def collect(job: Job, store: Store, spool: Spool, pacs: Pacs, ehr: Ehr, out: Path) -> Outcome:
    """Return what became of a job, and write its files to `out`."""
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
    overlay = spool.read(job.id, kept_name(1, Role.OVERLAY_PICTURE))
    if overlay is not None:
        (out / f"{name}.overlay.png").write_bytes(overlay)
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
    if len(outcomes) != N_JOBS:
        problems.append(f"{len(outcomes)} jobs instead of {N_JOBS}")
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
