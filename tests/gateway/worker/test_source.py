"""DICOM objects that cost too much to decode, and a job whose file cannot be read."""

from __future__ import annotations

import io
import struct
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    EncapsulatedPDFStorage,
    JPEGBaseline8Bit,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    RLELossless,
)

from gateway.domain.context import StudyContext
from gateway.domain.received import ReceivedObject
from gateway.domain.status import JobStatus
from gateway.errors import IntakeError, UndecodableDataset
from gateway.intake.accept import Intake
from gateway.settings import Settings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.worker import worker as worker_module
from gateway.worker.decode import decode_object
from gateway.worker.worker import Worker
from pipeline import BUDGET, PageImage
from pipeline.datatypes import FileBudget
from pipeline.errors import DigitizationError, PageUnreadable, TransientError
from pipeline.source.bounded import read_bounded
from tests.fake_digitizer import FakeDigitizer, page_pixels, page_png
from tests.gateway.dicom.samples import part10, read_pages, secondary_capture
from tests.memory import forget_peak, peak_mib
from tests.waiting import SOON_S

PATIENT = StudyContext(patient_id="P1", patient_name="DOE^JANE")


def read(data: bytes, budget: FileBudget = BUDGET) -> tuple[StudyContext, list[PageImage]]:
    context, *pages = read_bounded(decode_object, data, errors=(IntakeError, DigitizationError), budget=budget)
    assert isinstance(context, StudyContext)
    return context, [page for page in pages if isinstance(page, PageImage)]


def encapsulated(frame: bytes, syntax: str, rows: int, columns: int) -> bytes:
    dataset = secondary_capture(np.zeros((4, 4, 1), np.uint8), Rows=rows, Columns=columns)
    dataset.PixelData = encapsulate([frame + b"\0" * (len(frame) % 2)])
    dataset["PixelData"].is_undefined_length = True
    return part10(dataset, syntax)


def nothing_in_rle(rows: int, columns: int) -> bytes:
    """White: two bytes for every 128 pixels."""
    row = b"\x81\0" * (columns // 128)
    return encapsulated(struct.pack("<16I", 1, 64, *[0] * 14) + row * rows, RLELossless, rows, columns)


def many_scans(scans: int) -> bytes:
    out = io.BytesIO()
    Image.new("L", (64, 64), 200).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    last = data[data.rfind(b"\xff\xda") : -2]
    return encapsulated(data[:-2] + last * scans + data[-2:], JPEGBaseline8Bit, 64, 64)


def document(pdf: bytes) -> bytes:
    dataset = secondary_capture(SOPClassUID=EncapsulatedPDFStorage)
    del dataset.PixelData
    dataset.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    return part10(dataset)


def many_pages(count: int) -> bytes:
    kids = b" ".join(b"3 0 R" for _ in range(count))
    return (
        b"%%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[%s]/Count %d>>endobj\n"
        b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 100 100]>>endobj\ntrailer<</Root 1 0 R>>\n%%%%EOF"
    ) % (kids, count)


@pytest.mark.parametrize(
    ("data", "error", "reason"),
    [
        (many_scans(BUDGET.scans), UndecodableDataset, "frame 1 has more than 100 JPEG scans"),
        (
            encapsulated(struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\0" * 9, RLELossless, 9000, 9000),
            UndecodableDataset,
            "a frame is compressed to fewer bytes than 81000000 pixel values can take",
        ),
        (
            part10(secondary_capture(NumberOfFrames=BUDGET.pages + 1)),
            UndecodableDataset,
            "NumberOfFrames must be a number from 1 to 200",
        ),
        (document(many_pages(BUDGET.pages + 1)), PageUnreadable, "the file has more than 200 pages"),
    ],
    ids=["scans", "RLE", "frames", "pages of a document"],
)
def test_bomb_is_refused_with_the_bound(data: bytes, error: type[Exception], reason: str) -> None:
    read(part10(secondary_capture()))
    before, start = forget_peak(), time.monotonic()
    with pytest.raises(error, match=f"^{reason}$"):
        read(data)
    assert time.monotonic() - start < SOON_S
    read(part10(secondary_capture()))
    assert peak_mib() - before < 64


def test_large_frame_of_nothing_takes_little_memory() -> None:
    data = nothing_in_rle(6000, 5888)  # 35 million pixels: A4 at 600 dpi
    with pytest.raises(PageUnreadable, match="reading it takes more than 192 MiB of memory"):
        read(data, replace(BUDGET, memory_mib=192))
    _, (page,) = read(data, replace(BUDGET, memory_mib=448))
    assert page.pixels.shape == (6000, 5888, 3) and not page.pixels.any()


def test_forty_frames_are_the_same_as_in_this_process() -> None:
    frames = np.random.default_rng(4).integers(0, 255, (40, 120, 160, 3), np.uint8)
    dataset = secondary_capture(
        frames[0],
        SOPClassUID=MultiFrameTrueColorSecondaryCaptureImageStorage,
        NumberOfFrames=40,
        PixelData=frames.tobytes(),
    )
    data = part10(dataset)
    context, pages = read(data)
    assert context.patient_id == "P-1001"
    assert [page.page_number for page in pages] == list(range(1, 41))
    assert all(np.array_equal(page.pixels, frame) for page, frame in zip(pages, frames, strict=True))
    assert all(np.array_equal(page.pixels, here.pixels) for page, here in zip(pages, read_pages(data), strict=True))


def test_rescaled_gray_is_the_same_in_every_band() -> None:
    stored = np.random.default_rng(5).integers(0, 65536, (700, 40, 1), np.uint16)
    rescale, window = {"RescaleSlope": "-0.37", "RescaleIntercept": "11"}, {"WindowWidth": 900, "WindowCenter": 7000}
    for attributes in ({}, rescale, window):
        data = part10(secondary_capture(stored, **attributes))
        whole = part10(secondary_capture(stored.reshape(100, 280, 1), **attributes))  # one band
        assert np.array_equal(read_pages(data)[0].pixels.reshape(100, 280, 3), read_pages(whole)[0].pixels)


def submit(intake: Intake, data: bytes, media_type: str) -> str:
    return intake.accept(
        ReceivedObject(
            source="submit",
            source_key=str(hash(data)),
            media_type=media_type,
            data=data,
            context=PATIENT,
            destinations=(),
            actor="test",
        )
    ).job_id


def test_bomb_fails_its_job_with_the_reason_and_the_next_is_done(store: Store, spool: Spool, intake: Intake) -> None:
    bomb = submit(intake, many_scans(BUDGET.scans), "application/dicom")
    page = submit(intake, part10(secondary_capture(page_pixels())), "application/dicom")
    worker = Worker(Settings(), store, spool, FakeDigitizer(), name="w1")
    while worker.run_once():
        pass
    job = store.jobs.get(bomb)
    assert (job.status, job.reason) == (JobStatus.FAILED, "frame 1 has more than 100 JPEG scans")
    assert store.jobs.get(page).status == JobStatus.DONE


def test_a_job_is_not_failed_where_no_file_can_be_read(
    store: Store, spool: Spool, intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_process(*_: object, **__: object) -> None:
        raise TransientError("the process that reads files cannot be started, or was killed")

    job_id = submit(intake, page_png(), "image/png")
    worker = Worker(Settings(), store, spool, FakeDigitizer(), name="w1")
    with monkeypatch.context() as patch:
        patch.setattr(worker_module, "read_source", no_process)
        with pytest.raises(TransientError):
            worker.run_once()
    assert store.jobs.get(job_id).status == JobStatus.RUNNING  # whoever starts a new process gives it back
    store.jobs.heartbeat(job_id, "w1", 0.0)
    assert store.jobs.rescue(3) == [job_id]
    assert worker.run_once()
    assert store.jobs.get(job_id).status == JobStatus.DONE
