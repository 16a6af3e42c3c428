"""What is no ECG, or no file at all, ends with a reason a person understands, and the gateway goes on.

One gateway with its real digitizer takes everything there is, by watched folder and C-STORE, and a healthy page last.
"""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pypdfium2
import pytest
from pydicom import Dataset
from pydicom.uid import EncapsulatedPDFStorage

from gateway.domain.status import JobStatus
from gateway.store.tables import Job
from tests.acceptance.conftest import REAL, ROOT, Gateway, destinations
from tests.acceptance.peers import Ehr, Pacs, c_store, secondary_capture
from tests.waiting import PATIENCE_S, wait_for


def picture(width: int = 1400, height: int = 1000) -> np.ndarray:
    """White paper (H, W, 3)."""
    return np.full((height, width, 3), 255, dtype=np.uint8)


def cat() -> np.ndarray:
    """A cat as a child draws one, on grass: shapes and texture, no grid and no trace."""
    page = picture()
    page[:] = np.random.default_rng(5).integers(60, 110, page.shape, dtype=np.uint8)
    page[..., 1] += 80
    cv2.ellipse(page, (700, 600), (300, 220), 0, 0, 360, (190, 140, 90), -1)
    cv2.circle(page, (700, 350), 160, (200, 150, 100), -1)
    for side in (-1, 1):
        ear = np.array([(700 + side * 150, 300), (700 + side * 120, 120), (700 + side * 40, 230)])
        cv2.fillPoly(page, [ear], (190, 140, 90))
        cv2.circle(page, (700 + side * 60, 330), 25, (40, 160, 60), -1)
    return page


def letter() -> np.ndarray:
    """A page of print: no grid."""
    page = picture()
    for line in range(30):
        text = f"Dear colleague, this is line {line} of a letter that holds no recording."
        cv2.putText(page, text, (80, 80 + 30 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (20, 20, 20), 2)
    return page


def encode(suffix: str, pixels: np.ndarray) -> bytes:
    return bytes(cv2.imencode(suffix, pixels[..., ::-1])[1].tobytes())


def bomb() -> bytes:
    """A PNG of 20000 x 20000 pixels in a few kilobytes, valid to its last byte."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    row = bytes(1 + 20000 // 8)
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(row) for _ in range(20000)) + packer.flush()
    header = struct.pack(">IIBBBBB", 20000, 20000, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def pdf_without_pages() -> bytes:
    document = pypdfium2.PdfDocument.new()
    file = io.BytesIO()
    document.save(file)
    return bytes(file.getvalue())


ENCRYPTED_PDF = b"""%%PDF-1.4
1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj
2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]>>endobj
4 0 obj<</Filter/Standard/V 1/R 2/O<%s>/U<%s>/P -4>>endobj
trailer<</Root 1 0 R/Encrypt 4 0 R/ID[<00112233445566778899aabbccddeeff><00112233445566778899aabbccddeeff>]>>
%%%%EOF""" % (b"ab" * 32, b"cd" * 32)


@dataclass(frozen=True, kw_only=True)
class Bad:
    """A file, and what must be said about it: as a job's reason, or in the reason file beside the rejected original."""

    name: str
    data: bytes
    words: tuple[str, ...]  # any one of them
    rejected: bool = False


FILES = (
    Bad(name="truncated.jpg", data=encode(".jpg", letter())[:20000], words=("cut short",), rejected=True),
    Bad(name="empty.png", data=b"", words=("empty",), rejected=True),
    Bad(name="cat.jpg", data=encode(".jpg", cat()), words=("no ECG", "no row", "no grid", "No ")),
    Bad(name="letter.png", data=encode(".png", letter()), words=("no ECG", "no row", "no grid", "No ")),
    Bad(name="bomb.png", data=bomb(), words=("too large", "megapixels", "pixels")),
    Bad(name="encrypted.pdf", data=ENCRYPTED_PDF, words=("encrypted",)),
    Bad(name="nopage.pdf", data=pdf_without_pages(), words=("no page",)),
    Bad(name="text.png", data=b"this is no picture", words=("no DICOM, PDF, PNG",), rejected=True),
)


def encapsulated(document: bytes) -> Dataset:
    """The PDF as an Encapsulated PDF instance."""
    dataset = secondary_capture(picture(8, 8), SOPClassUID=EncapsulatedPDFStorage)
    for keyword in ("PixelData", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"):
        delattr(dataset, keyword)
    dataset.EncapsulatedDocument = document + b"\0" * (len(document) % 2)
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    return dataset


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    pacs, ehr = Pacs(), Ehr()
    gateway = Gateway(tmp_path_factory.mktemp("bad"), REAL, destinations=destinations(pacs, ehr))
    gateway.start()
    yield gateway
    assert gateway.stop() == 0
    assert pacs.received == [] or len(pacs.received) == 1  # the healthy page alone
    gateway.close()
    pacs.stop()
    ehr.stop()


def drop(gateway: Gateway, name: str, data: bytes) -> None:
    (gateway.inbox / f"{name}.json").write_text(json.dumps({"patient_id": name.replace(".", "-")}))
    (gateway.inbox / name).write_bytes(data)


def job_of(gateway: Gateway, patient_id: str) -> Job:
    """Return the job of that patient when it is over."""

    def over() -> Job | None:
        for job in gateway.jobs():
            if job.context.patient_id == patient_id and job.status not in (JobStatus.QUEUED, JobStatus.RUNNING):
                return job
        return None

    job = wait_for(f"the job of {patient_id}", over, 5 * PATIENCE_S)
    assert job is not None
    return job


@pytest.mark.parametrize("bad", FILES, ids=lambda bad: bad.name)
def test_bad_file_ends_with_a_reason(gateway: Gateway, bad: Bad) -> None:
    drop(gateway, bad.name, bad.data)
    if bad.rejected:
        file = gateway.inbox / "rejected" / f"{bad.name}.reason.txt"
        wait_for(f"{file.name}", file.exists)
        reason = wait_for("the reason", file.read_text)
    else:
        job = job_of(gateway, bad.name.replace(".", "-"))
        assert job.status == JobStatus.FAILED
        assert gateway.store.deliveries.of_job(job.id) == []
        reason = job.reason
    assert any(word in reason for word in bad.words), reason
    assert "internal error" not in reason and "Traceback" not in reason
    assert gateway.process.poll() is None


def test_dicom_whose_rows_do_not_match_its_pixels(gateway: Gateway) -> None:
    wrong = secondary_capture(picture(64, 48), patient_id="ROWS", Rows=4800)
    (status,) = c_store(gateway.port, wrong)
    assert status is not None
    if status == 0x0000:
        job = job_of(gateway, "ROWS")
        assert job.status == JobStatus.FAILED and "pixel" in job.reason.lower() and "internal" not in job.reason
    else:
        assert status & 0xF000 in (0xA000, 0xC000)


@pytest.mark.parametrize(
    ("name", "document", "word"), [("ENC", ENCRYPTED_PDF, "encrypted"), ("NONE", pdf_without_pages(), "no page")]
)
def test_dicom_with_a_bad_pdf_inside(gateway: Gateway, name: str, document: bytes, word: str) -> None:
    dataset = encapsulated(document)
    dataset.PatientID = name
    (status,) = c_store(gateway.port, dataset, sop_class=EncapsulatedPDFStorage)
    assert status == 0x0000
    job = job_of(gateway, name)
    assert job.status == JobStatus.FAILED and word in job.reason


def test_healthy_page_goes_through_after_all_that(gateway: Gateway, tmp_path: Path) -> None:
    page = tmp_path / "page.png"
    command = [sys.executable, "-m", "pipeline.training.drawing.sample", str(page), "--seed", "1"]
    subprocess.run(command, check=True, timeout=4 * PATIENCE_S, cwd=ROOT)
    drop(gateway, "healthy.png", page.read_bytes())
    job = job_of(gateway, "healthy-png")
    assert job.status in (JobStatus.DONE, JobStatus.NEEDS_REVIEW)
    (row,) = gateway.store.jobs.pages(job.id)
    assert row.waveform_sop_instance_uid and row.layout
    assert "worker_died" not in gateway.log
