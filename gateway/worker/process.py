"""A worker process: its networks, its memory limit, its lanes, and its end."""

from __future__ import annotations

import logging
import os
import resource
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from gateway.errors import SettingsError
from gateway.logs import configure_logging
from gateway.settings import Settings, take_up
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.worker.lanes import Alarms, Lane, Turns
from gateway.worker.worker import PageDigitizer, Worker
from pipeline.errors import DigitizationError

logger = logging.getLogger(__name__)


class CurrentSettings:
    """The settings of a worker process: read again where SIGHUP asks for it.

    Parameters
    ----------
    reread
        Returns the settings as they are now; raises SettingsError, and those in effect stay.
    """

    def __init__(self, settings: Settings, reread: Callable[[], Settings]) -> None:
        self._settings = settings
        self._reread = reread
        self._lock = threading.Lock()

    def __call__(self) -> Settings:
        """Return the settings for the next job; every lane gets the new ones once SIGHUP has come."""
        with self._lock:
            if signal.sigtimedwait({signal.SIGHUP}, 0) is not None:
                self._take_up()
            return self._settings

    def _take_up(self) -> None:
        try:
            change = take_up(self._settings, self._reread())
        except SettingsError as error:
            logger.error("Settings not reloaded: %s", error, extra={"action": "reload"})
            return
        if change.settings.log != self._settings.log:
            configure_logging(change.settings.log)
        self._settings = change.settings
        logger.info("Settings reloaded", extra={"action": "reload"})
        if change.needs_restart:
            logger.warning("A restart is needed for %s", ", ".join(change.needs_restart), extra={"action": "reload"})


def run_worker(
    current: CurrentSettings,
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
    current : CurrentSettings
        What it works by.
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
    settings = current()
    limit_memory(settings.worker.memory_limit_mib)
    digitizer = digitizer or load_digitizer(settings)

    lanes = digitizer.pages_at_once
    alarms, turns = Alarms(), Turns(lanes)
    workers = [
        Worker(settings, store, spool, digitizer, name=name, lane=Lane(alarm=partial(alarms.set, lane), turns=turns))
        for lane in range(lanes)
    ]

    def stop(*_: object) -> None:
        for worker in workers:
            worker.stop()

    def run(worker: Worker) -> None:
        try:
            worker.run(orphaned=lambda: parent_pid is not None and os.getppid() != parent_pid, current=current)
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
    from pipeline.digitizer import Digitizer  # loads torch: only a process without a digitizer of its own pays for that
    from pipeline.networks.inference import share_processor

    share_processor(settings.worker.processes)
    try:
        return Digitizer.load(device=settings.digitizer.device, layouts=settings.digitizer.layouts)
    except (DigitizationError, OSError, ValueError) as error:
        raise SettingsError(f"the digitizer cannot start: {error}") from error


def check_layouts(path: Path) -> None:
    """Read a file of layouts; raise SettingsError where it is missing or wrong."""
    from pipeline.layout.file import load_layouts

    try:
        load_layouts(path)
    except OSError as error:
        raise SettingsError(f"the file cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(str(error)) from error


def limit_memory(mib: int) -> None:
    """Let this process own at most `mib` MiB of private memory; beyond it, allocations fail.

    RLIMIT_DATA, not RLIMIT_AS: a GPU driver reserves far more addresses than it ever fills, and a file that is mapped
    costs no memory.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = mib * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
