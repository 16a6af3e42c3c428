"""The file of a job: its pages, the codes on them, and what is known about its identity."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.domain.context import StudyContext
from gateway.errors import IntakeError
from gateway.identity.decide import combined
from gateway.spool.folder import Spool
from gateway.spool.place import RESULTS
from gateway.store.tables import Job
from gateway.worker.decode import decode_object
from pipeline import PageImage
from pipeline.errors import DigitizationError
from pipeline.output.stored import StoredPages
from pipeline.source.bounded import read_bounded
from pipeline.source.codes import read_codes
from pipeline.source.page import load_pages


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSource:
    """What the file of a job holds; `context` is the job's, completed from the object itself.

    `results` are those that came with the file, None where its pages are to be digitized.
    """

    context: StudyContext
    pages: tuple[PageImage, ...]
    codes: tuple[str, ...]
    results: StoredPages | None = None


def read_source(job: Job, spool: Spool, *, with_codes: bool) -> JobSource:
    """Read the file of a job.

    Raises
    ------
    IntakeError
        The file is gone, or its object cannot be read.
    StorageError
        The spool cannot be reached.
    DigitizationError
        The file is no image or document that can be read, or the results that came with it cannot.
    """
    data = spool.read(job.id)
    if data is None:
        raise IntakeError("the job's file is gone")
    context = job.context
    if job.media_type == "application/dicom":
        parts = read_bounded(decode_object, data, errors=(IntakeError, DigitizationError))
        context = combined(next(part for part in parts if isinstance(part, StudyContext)), job.context)
        pages = [part for part in parts if isinstance(part, PageImage)]
    else:
        pages = load_pages(data)
    codes = [code for page in pages for code in read_codes(page)] if with_codes else []
    results = _results(job, spool) if job.imported else None
    return JobSource(context=context, pages=tuple(pages), codes=tuple(codes), results=results)


def _results(job: Job, spool: Spool) -> StoredPages:
    data = spool.read(job.id, RESULTS)
    if data is None:
        raise IntakeError("the results that came with the file are gone")
    return StoredPages.from_bytes(data)
