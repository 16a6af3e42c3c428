"""What is deleted, when, and what never is.

    files of a finished job         after `retention_days`; before, the oldest first, while their disk is nearly full
    files that no job explains      go to quarantine after a day, and are deleted only after `quarantine_days`
    anything else of a job          never: undelivered, uncommitted, waiting, FAILED, or on legal hold

The store records that the files are deleted before they are: a job that lost them says so.  While a backup runs,
nothing is deleted.
"""

from __future__ import annotations

import logging
import time
from datetime import datetime, timedelta

from gateway.domain.clock import utc_now
from gateway.settings import StorageSettings
from gateway.spool.folder import Spool
from gateway.store.store import Store

logger = logging.getLogger(__name__)

_DAY_S = 86400.0
_AT_ONCE = 50  # jobs asked for
_TURN_S = 1.0  # how long one call may delete: the thread has other duties
_MIB = 1024 * 1024


class Retention:
    """Deletes what is not needed any more; `purge` is called every few seconds, `sweep` every hour."""

    def __init__(self, spool: Spool, store: Store, settings: StorageSettings) -> None:
        self._spool = spool
        self._store = store
        self._settings = settings
        self._old = False  # there may be jobs past their time
        self._full = False  # the disk is, and was not yet emptied to its lower mark
        self._problem = ""

    def take_up(self, settings: StorageSettings) -> None:
        """Follow changed times and marks."""
        self._settings = settings

    @property
    def problem(self) -> str:
        """Why the disk fills up and cannot be emptied, in words; "" where it does not."""
        return self._problem

    def sweep(self) -> None:
        """Look for files that no job explains, for what a purge left, and for jobs past their time."""
        with self._spool.may_delete() as allowed:
            if not allowed:
                return
            unchanged = self._spool.unchanged(_DAY_S)
            for job_id in self._store.jobs.unknown(unchanged):
                if self._spool.quarantine(job_id):
                    logger.warning("Quarantined files without a job", extra={"action": "quarantine", "job_id": job_id})
            for job_id in self._store.files.purged(unchanged):
                self._spool.remove(job_id)
            if self._settings.quarantine_days is not None:
                for job_id in self._spool.prune_quarantine(self._settings.quarantine_days * _DAY_S):
                    logger.warning("Deleted files in quarantine", extra={"action": "purge", "job_id": job_id})
        self._old = True

    def purge(self) -> None:
        """Delete files of finished jobs for a second at most: past their time, or while the disk is nearly full."""
        with self._spool.may_delete() as allowed:
            if not allowed:
                return
            end = time.monotonic() + _TURN_S
            days = self._settings.retention_days
            if self._old:
                before = utc_now() - timedelta(days=days)
                self._old = self._purge(before, f"the job ended more than {days} days ago", end)
            self._relieve(end)

    def _relieve(self, end: float) -> None:
        """Delete files of the oldest finished jobs from the upper mark of the disk down to the lower one."""
        if not self._spool.on_disk:
            return  # that would free nothing here
        below_mib, until_mib = self._settings.purge_marks_mib
        free_mib = self._spool.free_bytes() // _MIB
        if free_mib < below_mib and not self._full:
            logger.warning("%d MiB are free: files of finished jobs are deleted", free_mib, extra={"action": "purge"})
        self._full = free_mib < (until_mib if self._full else below_mib)
        more = self._full
        while more and time.monotonic() < end and self._spool.free_bytes() < until_mib * _MIB:
            more = self._purge_some(utc_now(), f"only {free_mib} MiB of the disk were free", 1)
        self._report(nothing_left=self._full and not more)

    def _report(self, *, nothing_left: bool) -> None:
        below_mib, _ = self._settings.purge_marks_mib
        free_mib = self._spool.free_bytes() // _MIB
        problem = ""
        if nothing_left and free_mib < below_mib:
            problem = (
                f"{free_mib} MiB of the disk are free, less than purge_below_mib = {below_mib}, and nothing more may "
                f"be deleted: {self._store.files.count()} jobs wait, have something to deliver, failed or are on legal "
                f"hold; below {self._settings.minimum_free_mib} MiB nothing is accepted"
            )
        if bool(problem) != bool(self._problem):
            level = logging.ERROR if problem else logging.INFO
            logger.log(level, problem or "There is enough free space again", extra={"action": "purge"})
        self._problem = problem

    def _purge(self, before: datetime, why: str, end: float) -> bool:
        """Delete until `end`; return whether there may be more."""
        while time.monotonic() < end:
            if not self._purge_some(before, why, _AT_ONCE):
                return False
        return True

    def _purge_some(self, before: datetime, why: str, limit: int) -> bool:
        """Delete the files of some jobs; return whether there were any."""
        found = self._store.files.purgeable(before, limit)
        for job_id in found:
            size = self._spool.size(job_id)
            what = f"{size.files} files with {size.bytes} bytes were deleted" if size.files else "no files were left"
            if self._store.files.purge(job_id, before, "retention", f"{what}: {why}"):
                self._spool.remove(job_id)
                logger.info("Deleted the files of a job: %s", why, extra={"action": "purge", "job_id": job_id})
        return bool(found)
