"""The digitizing process: claim a job, read its pages, digitize each, complete the job, over and over.

A job is held under a lease that a thread of its own extends.  Who loses the lease drops the result: another worker
has the job.  A page may take `page_timeout_s` and the process `memory_limit_mib`; beyond that the page fails or the
process ends, and the attempt, counted when the job was claimed, is used up.  Nothing here can harm reception: the
database is all this process shares with the service.

Where the digitizer gains from several pages at once (on a GPU), the process works in as many lanes: threads that each
claim and finish jobs of their own and share the networks, which batch what waits.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Protocol, Self

from gateway.dicom.images.pages import read_instance
from gateway.domain.clock import utc_now
from gateway.domain.context import StudyContext
from gateway.domain.status import JobStatus
from gateway.errors import IllegalTransition, IntakeError, SettingsError, StorageError
from gateway.identity.orders import match, unmatched_reason, with_told
from gateway.identity.print_check import contradictions, other_code
from gateway.identity.sidecar import compile_pattern, read_codes_told
from gateway.logs import bind_job
from gateway.results.correction import rejections
from gateway.results.page import (
    JobFacts,
    PageResult,
    failed_page,
    job_facts,
    job_outcome,
    page_result,
    write_artefacts,
)
from gateway.settings import FolderSettings, Settings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.store.tables import Job
from gateway.worker.lanes import Alarms, Turns
from pipeline import Calibration, Digitization, PageImage
from pipeline.errors import DigitizationError, TransientError
from pipeline.output.overlay import draw_overlay, reduce_page, write_png
from pipeline.source.codes import read_codes
from pipeline.source.page import load_pages

logger = logging.getLogger(__name__)

EXIT_PAGE_TIMEOUT = 75
_ALARM_MARGIN_S = 10.0  # what the lease thread gets to end the process in order, before the kernel ends it
_POLL_S = 0.5


class PageDigitizer(Protocol):
    """What the worker asks of the digitizer."""

    @property
    def pages_at_once(self) -> int:
        """How many threads may digitize side by side."""
        ...

    def digitize(self, page: PageImage, *, default_calibration: Calibration) -> Digitization:
        """Return everything one page gave; raise DigitizationError where it cannot be read."""
        ...


class Worker:
    """Takes jobs until it is stopped: one lane of the process.

    Parameters
    ----------
    name : str
        Who holds the lease; unique among all workers on this database.
    alarm : Callable[[float], object]
        Tells the kernel to end this process in so many seconds (0 = never mind): the last resort for code that hangs
        without letting any other thread run.
    turns : Turns
        Shared by the lanes of a process.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        spool: Spool,
        digitizer: PageDigitizer,
        *,
        name: str,
        alarm: Callable[[float], object] = lambda _: None,
        turns: Turns | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._spool = spool
        self._digitizer = digitizer
        self._name = name
        self._alarm = alarm
        self._turns = turns or Turns()
        self._stopping = threading.Event()
        defaults = settings.digitizer
        self._calibration = Calibration(
            paper_speed_mm_per_s=defaults.paper_speed_mm_per_s, gain_mm_per_mv=defaults.gain_mm_per_mv
        )

    def stop(self) -> None:
        """Ask for the end: the page at hand is finished, a job with pages left goes back to the queue."""
        self._stopping.set()

    def run(self, orphaned: Callable[[], bool] = lambda: False) -> None:
        """Work until `stop`, or until `orphaned` says that nobody needs this process any more."""
        logger.info("Worker started", extra={"action": "worker_start"})
        while not self._stopping.is_set() and not orphaned():
            try:
                worked = self.run_once()
            except StorageError as error:  # an unfinished job comes back when its lease expires
                logger.error("Storage is not usable: %s", error, extra={"action": "worker_storage"})
                worked = False
            if not worked:
                self._stopping.wait(_POLL_S)
        logger.info("Worker stopped", extra={"action": "worker_stop"})

    def run_once(self) -> bool:
        """Take the oldest job and finish it; return whether there was one."""
        job = self._store.jobs.claim(self._name, self._settings.worker.lease_s)
        if job is None:
            return False
        with bind_job(job.id), _Lease(self._store, job, self._name, self._settings, self._alarm) as lease:
            logger.info("Claimed, attempt %d", job.attempts, extra={"action": "claim"})
            try:
                self._work(job, lease)
            except IllegalTransition:
                logger.warning("The lease is lost: the result is dropped", extra={"action": "lease_lost"})
        return True

    def _work(self, job: Job, lease: _Lease) -> None:
        try:
            with self._turns.take(alone=self._alone(job)):
                lease.begin("reading the file")
                context, images = self._load(job)
                codes = self._codes(job, images)
        except (DigitizationError, IntakeError) as error:
            reason = str(error)
        except MemoryError:
            reason = self._out_of_memory("the file")
        except StorageError:
            raise
        except Exception as error:  # noqa: BLE001 - a fault of ours must fail one job, not the queue
            reason = _broke("reading the file", error)
        else:
            job, context, against = self._whose(job, context, codes)
            if job.status == JobStatus.RUNNING:
                earlier = self._store.deliveries.of_job(job.id)
                facts = replace(job_facts(job, context, self._settings, earlier), against=against)
                self._digitize(job, lease, facts, images)
            return
        logger.warning("The file cannot be read", extra={"action": "fail"})
        self._store.jobs.fail(job.id, self._name, reason)

    def _digitize(self, job: Job, lease: _Lease, facts: JobFacts, images: list[PageImage]) -> None:
        results: list[PageResult] = []
        for image in images:
            if self._stopping.is_set():
                self._store.jobs.release(job.id, self._name, "the worker was stopped")
                logger.info("Put back: the worker is stopping", extra={"action": "release"})
                return
            if lease.lost:
                raise IllegalTransition(f"job {job.id} is not leased to {self._name}")
            try:
                result = self._page(facts, image, lease, alone=self._alone(job))
            except (TransientError, MemoryError):  # of a page that had neighbours
                result = self._page(facts, image, lease, alone=True)
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
        self._store.jobs.complete(job.id, self._name, pages, deliveries, status, reason, job.context)
        logger.info(
            "Completed %s: %d pages, %d deliveries",
            status,
            len(pages),
            len(deliveries),
            extra={"action": "complete"},
        )

    def _load(self, job: Job) -> tuple[StudyContext, list[PageImage]]:
        """Return whose ECG it is and its pages; what the intake was told comes before what the object says."""
        try:
            data = self._spool.source_path(job.id).read_bytes()
        except OSError as error:
            raise IntakeError(f"the job's file is gone: {error.strerror}") from error
        told = job.context
        if job.media_type != "application/dicom":
            return told, load_pages(data)
        source = read_instance(data)
        images = list(source.pages) if source.document is None else load_pages(source.document)
        return with_told(source.context, told), images

    def _folder(self, job: Job) -> FolderSettings | None:
        folders = self._settings.folders
        return next((folder for folder in folders if job.source == f"folder:{folder.path}"), None)

    def _codes(self, job: Job, images: list[PageImage]) -> list[str]:
        folder = self._folder(job)
        return [code for image in images for code in read_codes(image)] if folder and folder.barcode_pattern else []

    def _whose(self, job: Job, context: StudyContext, codes: list[str]) -> tuple[Job, StudyContext, tuple[str, ...]]:
        """Return the job, whose ECG it is, and what the codes on its pages say against that.

        Where nothing else says whose it is the codes do, and the job is held where they do not, or not enough.
        """
        folder = self._folder(job)
        if folder is None or not folder.barcode_pattern:
            return job, context, ()
        told, problem = StudyContext(), ""
        try:
            told = read_codes_told(compile_pattern(folder.barcode_pattern), codes)
        except IntakeError as error:
            problem = str(error)
        if context.patient_id or context.accession_number:
            return (
                job,
                context,
                (problem,) if problem else other_code(match(told, self._store.patients).context, context),
            )
        both = context.model_copy(update=told.model_dump(exclude_defaults=True))
        matched = match(both, self._store.patients)
        reason = problem or unmatched_reason(matched, lookup=folder.lookup is not None)
        return self._store.jobs.tell(job, self._name, matched.context, reason), matched.context, ()

    def _alone(self, job: Job) -> bool:
        return self._turns.lanes == 1 or job.attempts > 1

    def _page(self, facts: JobFacts, image: PageImage, lease: _Lease, *, alone: bool) -> PageResult:
        """Digitize one page; whatever goes wrong with it is its own failure, the job's other pages go on.

        Raises
        ------
        TransientError, MemoryError
            There was too little memory, and the page was not `alone`.
        """
        what = f"page {image.page_number}"
        with self._turns.take(alone=alone):
            lease.begin(what)
            return self._digitize_page(facts, image, what, alone=alone)

    def _digitize_page(self, facts: JobFacts, image: PageImage, what: str, *, alone: bool) -> PageResult:
        started = time.monotonic()
        try:
            digitization = self._digitizer.digitize(image, default_calibration=self._calibration)
            seconds = time.monotonic() - started
            pictures = (write_png(reduce_page(image)), write_png(draw_overlay(digitization)))
            printed = self._printed(digitization, facts.context) if self._settings.review.check_print else ()
            return page_result(facts, digitization, pictures, seconds, (*facts.against, *printed))
        except (TransientError, MemoryError) as error:
            if not alone:
                raise
            reason = str(error) if isinstance(error, TransientError) else self._out_of_memory(what)
        except DigitizationError as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001 - a fault of ours must fail one page, not the queue
            reason = _broke(what, error)
        return failed_page(facts, image.page_number, reason, time.monotonic() - started, write_png(reduce_page(image)))

    def _printed(self, digitization: Digitization, context: StudyContext) -> tuple[str, ...]:
        prior = self._store.patients.prior_ids(context.patient_id, context.issuer_of_patient_id)
        return contradictions(digitization.text, context, prior)

    def _out_of_memory(self, what: str) -> str:
        return f"{what} needs more memory than the {self._settings.worker.memory_limit_mib} MiB a worker may take"


class _Lease:
    """Keeps a job ours while it is worked on, and ends the process when a piece of the work takes too long."""

    def __init__(
        self, store: Store, job: Job, worker: str, settings: Settings, alarm: Callable[[float], object]
    ) -> None:
        self._store = store
        self._job = job
        self._worker = worker
        self._settings = settings.worker
        self._alarm = alarm
        self._work = ("", time.monotonic() + self._settings.page_timeout_s)  # what is done now, and its deadline
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self.lost = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._alarm(0.0)
        self._thread.join()

    def begin(self, what: str) -> None:
        """Start the clock for the next piece of work."""
        timeout_s = self._settings.page_timeout_s
        self._work = (what, time.monotonic() + timeout_s)
        self._alarm(timeout_s + _ALARM_MARGIN_S)

    def _run(self) -> None:
        beat_s = self._settings.lease_s / 3
        next_beat = time.monotonic() + beat_s
        while not self._done.wait(min(max(next_beat - time.monotonic(), 0.0), 0.5)):
            what, deadline = self._work
            now = time.monotonic()
            if now > deadline:
                self._time_out(what)
            if now >= next_beat:
                next_beat = now + (beat_s if self._beat() else min(beat_s, 0.5))

    def _beat(self) -> bool:
        """Extend the lease; return False where that has to be tried again soon, as long as it still may be in time."""
        try:
            self.lost = self.lost or not self._store.jobs.heartbeat(self._job.id, self._worker, self._settings.lease_s)
        except StorageError as error:
            logger.error("The lease was not extended: %s", error, extra={"action": "heartbeat", "job_id": self._job.id})
            return False
        return True

    def _time_out(self, what: str) -> None:
        """End the process; the last attempt takes the job with it, an earlier one leaves it to be tried again."""
        reason = f"{what} took longer than {self._settings.page_timeout_s:g} s"
        logger.error("Ending this worker: %s", reason, extra={"action": "page_timeout", "job_id": self._job.id})
        try:
            if self._job.attempts >= self._settings.maximum_attempts:
                self._store.jobs.fail(self._job.id, self._worker, reason)
        except (IllegalTransition, StorageError) as error:
            logger.error("Not recorded: %s", error, extra={"action": "page_timeout", "job_id": self._job.id})
        finally:
            os._exit(EXIT_PAGE_TIMEOUT)  # the page's thread cannot be interrupted


def run_worker(
    settings: Settings,
    store: Store,
    spool: Spool,
    *,
    name: str,
    parent_pid: int | None = None,
    digitizer: PageDigitizer | None = None,
) -> None:
    """Be a worker process until SIGTERM or SIGINT.

    Parameters
    ----------
    name : str
        Who holds the leases.
    parent_pid : int, optional
        The service that started this process: when it is gone, the worker ends too.
    digitizer : PageDigitizer, optional
        None loads the networks that the gateway ships.

    Raises
    ------
    SettingsError
        The networks or the layouts cannot be loaded.
    """
    for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT):  # no job to finish yet: just end
        signal.signal(number, signal.SIG_DFL)
    limit_memory(settings.worker.memory_limit_mib)
    digitizer = digitizer or load_digitizer(settings)

    lanes = digitizer.pages_at_once
    alarms, turns = Alarms(), Turns(lanes)
    workers = [
        Worker(settings, store, spool, digitizer, name=name, alarm=partial(alarms.set, lane), turns=turns)
        for lane in range(lanes)
    ]

    def stop(*_: object) -> None:
        for worker in workers:
            worker.stop()

    def run(worker: Worker) -> None:
        try:
            worker.run(orphaned=lambda: parent_pid is not None and os.getppid() != parent_pid)
        finally:
            stop()  # a lane that dies takes the process along: a whole one is started

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    threads = [threading.Thread(target=run, args=(worker,), name="lane") for worker in workers[1:]]
    for thread in threads:
        thread.start()
    run(workers[0])
    for thread in threads:
        thread.join()


def load_digitizer(settings: Settings) -> PageDigitizer:
    """Load the networks and layouts; raise SettingsError where they are missing or not what they should be."""
    from pipeline.digitizer import (
        Digitizer,
    )  # loads torch: seconds that nobody pays who brings a digitizer of their own
    from pipeline.networks.inference import share_processor

    share_processor(settings.worker.processes)
    try:
        return Digitizer.load(device=settings.digitizer.device, layouts=settings.digitizer.layouts)
    except (DigitizationError, OSError, ValueError) as error:
        raise SettingsError(f"the digitizer cannot start: {error}") from error


def limit_memory(mib: int) -> None:
    """Let this process own at most `mib` MiB of private memory; beyond it, allocations fail.

    RLIMIT_DATA, not RLIMIT_AS: a GPU driver reserves far more addresses than it ever fills, and a file that is mapped
    costs no memory.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = mib * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _broke(what: str, error: Exception) -> str:
    """Log where an unexpected error came from, and return what a person is told: not the text, it may quote data."""
    logger.exception("Internal error in %s", what, extra={"action": "broke"})
    return f"internal error in {what} ({type(error).__name__}); the worker's log says where"
