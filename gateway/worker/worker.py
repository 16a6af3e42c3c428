"""The digitizing process: claim a job, read its pages, digitize each, complete the job, over and over.

A job is held under a lease that a thread of its own extends.  Who loses the lease drops the result: another worker
has the job.  A file is read in a child process, under its own budget.  A page may take `page_timeout_s` and the process
`memory_limit_mib`; beyond that the page fails or the process ends, and the attempt, counted when the job was claimed,
is used up.  Nothing here can harm reception: the database is all this process shares with the service.

Where the digitizer gains from several pages at once (on a GPU), the process works in as many lanes: threads that each
claim and finish jobs of their own and share the networks, which batch what waits.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

from gateway.domain.artefact import Artefact, Role, kept_name
from gateway.domain.clock import utc_now
from gateway.domain.context import StudyContext
from gateway.domain.status import JobStatus
from gateway.errors import IllegalTransition, IntakeError, StorageError, UnreadableFile
from gateway.identity.codes import contradicting_codes, decide_by_codes, read_codes_stated
from gateway.identity.print_check import contradictions
from gateway.logs import bind_job
from gateway.results.correction import rejections
from gateway.results.page import (
    ArchiveRun,
    JobFacts,
    PageResult,
    Pictures,
    failed_page,
    job_facts,
    job_outcome,
    page_result,
    write_artefacts,
)
from gateway.settings import FolderSettings, Settings
from gateway.spool.folder import Spool
from gateway.store.jobs import JobResult
from gateway.store.store import Store
from gateway.store.tables import Job
from gateway.worker.lanes import Lane
from gateway.worker.lease import Lease
from gateway.worker.source import JobSource, read_source
from pipeline import Calibration, Corrections, Digitization, PageImage
from pipeline.errors import DigitizationError, TransientError
from pipeline.output.geometry import blank_geometry, page_geometry
from pipeline.output.overlay import draw_overlay, reduce_page, write_png
from pipeline.output.stored import StoredPages
from pipeline.threads import side_by_side

logger = logging.getLogger(__name__)

_POLL_S = 0.5
_LONGEST_PAUSE_S = 10.0  # while the storage is not usable: each try is an entry in the trail of a job
_Read = Callable[[PageImage, Callable[[bytes], None]], Digitization]  # is given what to do with a new reading


class PageDigitizer(Protocol):
    """What the worker asks of the digitizer."""

    @property
    def pages_at_once(self) -> int:
        """How many threads may digitize side by side."""
        ...

    def digitize(
        self,
        page: PageImage,
        *,
        default_calibration: Calibration,
        corrections: Corrections,
        known: bytes,
        keep: Callable[[bytes], None],
    ) -> Digitization:
        """Return everything one page gave; raise DigitizationError where it cannot be read.

        `known` is what an earlier run was told to keep of its reading of the page, or b"".
        """
        ...


class Worker:
    """Takes jobs until it is stopped: one lane of the process.

    Parameters
    ----------
    name : str
        Who holds the lease; unique among all workers on this database.
    lane : Lane, optional
        Its place in the process; None where it works alone.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        spool: Spool,
        digitizer: PageDigitizer,
        *,
        name: str,
        lane: Lane | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._ear = store.database.ear()
        self._spool = spool
        self._digitizer = digitizer
        self._name = name
        lane = lane or Lane()
        self._alarm = lane.alarm
        self._turns = lane.turns
        self._stopping = threading.Event()
        self._current: Callable[[], Settings] = lambda: settings

    def stop(self) -> None:
        """Ask for the end: the page at hand is finished, a job with pages left goes back to the queue."""
        self._stopping.set()

    def run(self, orphaned: Callable[[], bool] = lambda: False, current: Callable[[], Settings] | None = None) -> None:
        """Work until `stop`, or until `orphaned` says that nobody needs this process any more.

        `current` returns the settings for the next job; None: they stay.
        """
        self._current = current or self._current
        logger.info("Worker started", extra={"action": "worker_start"})
        next_sign, pause_s = 0.0, _POLL_S
        while not self._stopping.is_set() and not orphaned():
            try:
                worked = self.run_once()
                if time.monotonic() >= next_sign:
                    self._store.workers.seen(self._name)
                    next_sign = time.monotonic() + self._settings.worker.lease_s / 3
                pause_s = _POLL_S
            except StorageError as error:
                logger.error("Storage is not usable: %s", error, extra={"action": "worker_storage"})
                worked, pause_s = False, min(2 * pause_s, _LONGEST_PAUSE_S)
            if not worked and pause_s > _POLL_S:
                self._stopping.wait(pause_s)
            elif not worked:
                self._ear.wait(self._stopping, _POLL_S)
        self._ear.close()
        logger.info("Worker stopped", extra={"action": "worker_stop"})

    def run_once(self) -> bool:
        """Take the oldest job and finish it; return whether there was one."""
        job = self._store.jobs.claim(self._name, self._settings.worker.lease_s)
        self._settings = self._current()  # after the claim: a job that came after a reload is treated by it
        if job is None:
            return False
        with bind_job(job.id), Lease(self._store, job, self._name, self._settings, self._alarm) as lease:
            logger.info("Claimed, attempt %d", job.attempts, extra={"action": "claim"})
            try:
                self._work_or_put_back(job, lease)
            except IllegalTransition:
                logger.warning("The lease is lost: the result is dropped", extra={"action": "lease_lost"})
        return True

    def _work_or_put_back(self, job: Job, lease: Lease) -> None:
        try:
            self._work(job, lease)
        except StorageError as error:  # a full disk, or a database that is away: nothing of this is the job's fault
            own = isinstance(error, UnreadableFile)  # or it is, of this one job
            reason = f"a file of the job cannot be read: {error}" if own else f"storage was not usable: {error}"
            if own and job.attempts >= self._settings.worker.maximum_attempts:
                self._settle(lease, lambda: self._store.jobs.fail(job.id, self._name, reason))
            else:
                self._settle(lease, lambda: self._store.jobs.release(job.id, self._name, reason, counted=own))
            raise

    def _settle(self, lease: Lease, step: Callable[[], None]) -> None:
        """Tell the store how the job ended, however long that takes: it is ours until then.

        Raises
        ------
        IllegalTransition
            The lease is lost.
        StorageError
            The worker is to stop; the lease will expire.
        """
        lease.rest()
        while True:
            try:
                return step()
            except StorageError as error:
                logger.error("Not recorded yet: %s", error, extra={"action": "worker_storage"})
                if lease.lost or self._stopping.wait(_POLL_S):
                    raise

    def _work(self, job: Job, lease: Lease) -> None:
        try:
            with self._turns.take(alone=self._alone(job)):
                lease.begin("reading the file")
                folder = self._folder(job)
                source = read_source(job, self._spool, with_codes=bool(folder and folder.barcode_pattern))
        except (TransientError, StorageError):  # no file can be read: this process ends, and the job is tried again
            raise
        except (DigitizationError, IntakeError) as error:
            reason = str(error)
        except MemoryError:
            reason = self._out_of_memory("the file")
        except Exception as error:  # noqa: BLE001 - a fault of ours must fail one job, not the queue
            reason = _broke("reading the file", error)
        else:
            job, context, against = self._identity(job, source)
            if job.status == JobStatus.RUNNING:
                earlier = self._store.deliveries.of_job(job.id)
                facts = replace(job_facts(job, context, self._settings, earlier), against=against)
                if source.results is not None:
                    facts = replace(facts, archive_run=ArchiveRun(source.results.run, source.results.version))
                self._digitize(job, lease, facts, source)
            return
        logger.warning("The file cannot be read", extra={"action": "fail"})
        self._settle(lease, lambda: self._store.jobs.fail(job.id, self._name, reason))

    def _digitize(self, job: Job, lease: Lease, facts: JobFacts, source: JobSource) -> None:
        results: list[PageResult] = []
        for image in source.pages:
            read = partial(self._read, facts, source.results)
            if self._stopping.is_set():
                self._settle(lease, lambda: self._store.jobs.release(job.id, self._name, "the worker was stopped"))
                logger.info("Put back: the worker is stopping", extra={"action": "release"})
                return
            if lease.lost:
                raise IllegalTransition(f"job {job.id} is not leased to {self._name}")
            try:
                result = self._page(facts, image, lease, read, alone=self._alone(job))
            except (TransientError, MemoryError):  # of a page that had neighbours
                result = self._page(facts, image, lease, read, alone=True)
            if not self._store.jobs.holds(job, self._name):  # another run's files, maybe another patient's, stay
                raise IllegalTransition(f"job {job.id} is not ours any more")
            write_artefacts(self._spool, job.id, result.artefacts)
            results.append(result)
        pages = [result.page for result in results]
        status, reason = job_outcome(facts, pages)
        deliveries = [delivery for result in results for delivery in result.deliveries]
        notes, rejecting = rejections(facts, self._spool, self._store.deliveries.of_job(job.id), deliveries, utc_now())
        write_artefacts(self._spool, job.id, notes)
        deliveries += rejecting
        said = [result.note for result in results if result.note]
        outcome = JobResult(pages=pages, deliveries=deliveries, status=status, reason=reason, notes=said)
        self._settle(lease, lambda: self._store.jobs.complete(job.id, self._name, outcome, job.context))
        logger.info(
            "Completed %s: %d pages, %d deliveries",
            status,
            len(pages),
            len(deliveries),
            extra={"action": "complete"},
        )

    def _folder(self, job: Job) -> FolderSettings | None:
        folders = self._settings.folders
        return next((folder for folder in folders if job.source == f"folder:{folder.path}"), None)

    def _identity(self, job: Job, source: JobSource) -> tuple[Job, StudyContext, tuple[str, ...]]:
        """Return the job, its identity, and what the codes on its pages say against that identity.

        The codes give the identity where nothing else does; the job is held where they do not give it, or not fully.

        Raises
        ------
        IllegalTransition
            The lease is lost, or the job is another patient's now.
        """
        folder, context = self._folder(job), source.context
        if folder is None or not folder.barcode_pattern:
            return job, context, ()
        codes = read_codes_stated(re.compile(folder.barcode_pattern), source.codes)
        if context.patient_id or context.accession_number:
            return job, context, contradicting_codes(context, codes, self._store.patients)
        decision = decide_by_codes(context, codes, self._store.patients, lookup=folder.lookup is not None)
        now = self._store.jobs.decide(job, decision, self._name, "a code on the page")
        if now is None:
            raise IllegalTransition(f"job {job.id} is not leased to {self._name} any more")
        return now, decision.context, ()

    def _alone(self, job: Job) -> bool:
        return self._turns.lanes == 1 or job.attempts > 1

    def _page(self, facts: JobFacts, image: PageImage, lease: Lease, read: _Read, *, alone: bool) -> PageResult:
        """Digitize one page; whatever goes wrong with it is its own failure, the job's other pages go on.

        Raises
        ------
        TransientError, MemoryError
            There was too little memory, and the page was not `alone`.
        """
        what = f"page {image.page_number}"
        with self._turns.take(alone=alone):
            lease.begin(what)
            return self._page_result(facts, image, what, read, alone=alone)

    def _read(
        self, facts: JobFacts, results: StoredPages | None, image: PageImage, keep: Callable[[bytes], None]
    ) -> Digitization:
        """Digitize a page; one that came with its result, and that nobody has corrected, is not digitized."""
        if results is not None and image.page_number not in facts.corrections:
            return results.digitization(image)
        defaults = self._settings.digitizer
        calibration = Calibration(
            paper_speed_mm_per_s=defaults.paper_speed_mm_per_s, gain_mm_per_mv=defaults.gain_mm_per_mv
        )
        return self._digitizer.digitize(
            image,
            default_calibration=calibration,
            corrections=facts.corrections.get(image.page_number, Corrections()),
            known=self._known(facts, image),
            keep=keep,
        )

    def _page_result(self, facts: JobFacts, image: PageImage, what: str, read: _Read, *, alone: bool) -> PageResult:
        started, kept = time.monotonic(), list[bytes]()
        try:
            digitization = read(image, kept.append)
            seconds = time.monotonic() - started
            shown = reduce_page(image)
            page, overlay = side_by_side(write_png, (shown, draw_overlay(digitization)))
            pictures = Pictures(page=page, overlay=overlay, geometry=page_geometry(digitization, shown.shape[1]))
            printed = self._printed(digitization, facts.context) if self._settings.review.check_print else ()
            result = page_result(facts, digitization, pictures, seconds, (*facts.against, *printed))
            return _with_reading(result, kept)
        except (TransientError, MemoryError) as error:
            if not alone:
                raise
            reason = str(error) if isinstance(error, TransientError) else self._out_of_memory(what)
        except DigitizationError as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001 - a fault of ours must fail one page, not the queue
            reason = _broke(what, error)
        shown = reduce_page(image)
        known = (write_png(shown), blank_geometry(image, shown.shape[1]))
        seconds = time.monotonic() - started
        return _with_reading(failed_page(facts, image.page_number, reason, seconds, known), kept)

    def _known(self, facts: JobFacts, image: PageImage) -> bytes:
        """Return the reading of a page that an earlier run kept; b"" where there is none, or nobody waits for it."""
        if not facts.corrections:
            return b""
        return self._spool.read(facts.job_id, kept_name(image.page_number, Role.READING)) or b""

    def _printed(self, digitization: Digitization, context: StudyContext) -> tuple[str, ...]:
        prior = self._store.patients.prior_ids(context.patient_id, context.issuer_of_patient_id)
        return contradictions(digitization.text, context, prior)

    def _out_of_memory(self, what: str) -> str:
        return f"{what} needs more memory than the {self._settings.worker.memory_limit_mib} MiB a worker may take"


def _with_reading(result: PageResult, kept: Sequence[bytes]) -> PageResult:
    """Return a page's result with what is kept of its reading, so that a correction goes on from it."""
    number = result.page.page_number
    readings = (Artefact(page_number=number, role=Role.READING, data=data) for data in kept)
    return replace(result, artefacts=(*result.artefacts, *readings))


def _broke(what: str, error: Exception) -> str:
    """Log where an unexpected error came from, and return the reason: without its text, which may quote data."""
    logger.exception("Internal error in %s", what, extra={"action": "broke"})
    return f"internal error in {what} ({type(error).__name__}); the worker's log says where"
