"""A page's result in the forms that are taken out of the gateway: record, CSV, waveform object, report.

What a person rejected, and what is being read now, is no result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from gateway.dicom.objects.waveform import SopClass, waveform_sop_instance_uid
from gateway.domain.artefact import Artefact, Role, kept_name
from gateway.domain.status import JobStatus
from gateway.errors import IllegalTransition, NotFound
from gateway.results.confirmation import known_context
from gateway.results.kept import read_result
from gateway.results.page import job_facts
from gateway.settings import Settings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.store.tables import Job, Page
from pipeline import to_csv

_ENDED = (JobStatus.DONE, JobStatus.NEEDS_REVIEW)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageForms:
    """The files of one page's result.

    Raises
    ------
    NotFound
        By each method: the file is gone, or was not made.
    """

    job: Job
    page: Page
    spool: Spool
    settings: Settings

    @property
    def certainty(self) -> str:
        """What the result is, in a word: "final", "preliminary" or "doubtful"."""
        if self.job.confirmed_by:
            return "final"
        return "doubtful" if self.job.status == JobStatus.NEEDS_REVIEW else "preliminary"

    def npz(self) -> bytes:
        """Return the record as it is kept: signals, confidence, leads, sampling frequency."""
        return self._read(kept_name(self.page.page_number, Role.RECORD), "record")

    def csv(self) -> bytes:
        """Return the signals in mV over the time in s."""
        record, _ = read_result(self.npz(), self.page.quality_json)
        return to_csv(record).encode()

    def pdf(self) -> bytes:
        """Return the report."""
        return self._read(kept_name(self.page.page_number, Role.REPORT_PDF), "report")

    def dicom(self) -> bytes:
        """Return the waveform object that messages and reports refer to, as it is sent."""
        uid, number = self.page.waveform_sop_instance_uid, self.page.page_number
        if not uid:
            raise IllegalTransition("a waveform object is made when the patient is known")
        context = job_facts(self.job, known_context(self.job, self.spool), self.settings).context
        for kind in get_args(SopClass):  # the settings may want another one now
            if waveform_sop_instance_uid(context, number, kind, self.job.revision) == uid:
                made = Artefact(page_number=number, role=Role.WAVEFORM, variant=kind, revision=self.job.revision)
                return self._read(made.name, "waveform object")
        raise NotFound(f"page {number} of job {self.job.id} has no waveform object of its patient")

    def _read(self, name: str, what: str) -> bytes:
        data = self.spool.read(self.job.id, name)
        if data is None:
            gone = f", its files were deleted on {self.job.purged_at:%Y-%m-%d}" if self.job.purged_at else ""
            raise NotFound(f"page {self.page.page_number} of job {self.job.id} has no {what}{gone}")
        return data


def read_form(
    store: Store, spool: Spool, settings: Settings, where: tuple[str, int], form: Callable[[PageForms], bytes]
) -> tuple[PageForms, bytes]:
    """Return a page's result and one form of it, both of the same version of the job.

    Parameters
    ----------
    where
        The job's id and the page's number.

    Raises
    ------
    NotFound
        There is no such job, page or file.
    IllegalTransition
        The job has no result now: it waits, is being read, failed or was rejected.
    """
    job_id, number = where
    while True:
        version, job = store.jobs.version(job_id), store.jobs.get(job_id)
        if job.status not in _ENDED:
            raise IllegalTransition(f"job {job_id} has no result: it is {job.status}")
        page = next((each for each in store.jobs.pages(job_id) if each.page_number == number), None)
        if page is None or page.status == JobStatus.FAILED:
            raise NotFound(f"job {job_id} has no page {number} that was read")
        found = PageForms(job=job, page=page, spool=spool, settings=settings)
        data = form(found)
        if store.jobs.version(job_id) == version:
            return found, data
