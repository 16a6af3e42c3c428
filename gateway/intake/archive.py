"""The results of an archive run become jobs: nothing is digitized again, and live traffic goes first.

A file of the run is one job, with the results of its pages beside its source.  The same bytes under the same identity
are the same job, whichever run they come from, so an import may be ended at any time and started again.  While as many
jobs, or deliveries, wait as are allowed, nothing is taken in.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import PurePath
from typing import Protocol

from gateway.dicom.images.pages import read_context
from gateway.domain.context import StudyContext
from gateway.domain.identity import Evidence
from gateway.domain.received import ReceivedObject
from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.errors import IntakeError
from gateway.identity.forms import check_context
from gateway.intake.accept import Intake, media_type_of
from pipeline import DigitizationError

_POLL_S = 1.0
_LONGEST_NAME = 230  # characters of a file's name that are kept


class ArchivedFile(Protocol):
    """A file that a run has digitized."""

    @property
    def path(self) -> str:
        """Where it was."""
        ...

    @property
    def sha256(self) -> str:
        """Of its bytes then; "" where they were not read."""
        ...

    @property
    def patient(self) -> str:
        """The patient ID that the manifest states; "" where it states none."""
        ...

    @property
    def recorded_on(self) -> date | None:
        """The day of recording that the manifest states."""
        ...

    @property
    def was_read(self) -> bool:
        """Whether any page has a record."""
        ...

    @property
    def failures(self) -> Sequence[tuple[int | None, str]]:
        """The pages without a record (None: the whole file), each with its reason."""
        ...

    def read(self) -> bytes:
        """Read it as it is now; raise OSError."""
        ...

    def packed(self) -> bytes:
        """Return the results of all its pages for the worker; raise DigitizationError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is taken over, and how fast."""

    run: str  # its id
    actor: str
    destinations: tuple[str, ...] | None  # where the results go; None: everywhere
    watched: tuple[str, ...]  # the same by name
    backlog: int  # jobs, or deliveries to any of these, that may wait


@dataclass(slots=True, kw_only=True)
class Counts:
    """How far an import is, in files."""

    new: int = 0
    held: int = 0  # of these: a person must say whose they are
    known: int = 0  # jobs before
    left_out: int = 0
    failed_pages: int = 0  # of files that are jobs

    @property
    def files(self) -> int:
        """How many were looked at."""
        return self.new + self.known + self.left_out


def import_files(
    intake: Intake,
    files: Iterable[ArchivedFile],
    wanted: Wanted,
    said: Callable[[str], None],
    step: Callable[[Counts], None],
) -> Counts:
    """Take in what a run has digitized and is no job yet.

    Parameters
    ----------
    said
        Is told of every file, and every page of a job, without a result: its path and the reason.
    step
        Is called after every file, and while the import waits.

    Raises
    ------
    StorageError
        Spool or database cannot take it now; a later import continues where this one ended.
    """
    counts, room = Counts(), 0
    for file in files:
        if not file.was_read:
            counts.left_out += 1
            for page, reason in file.failures:
                said(f"{_place(file, page)}: {reason}")
        elif intake.store.jobs.find(_key(file)) is not None:
            counts.known += 1
        else:
            while room < 1:
                room = _room(intake, wanted)
                if room < 1:
                    step(counts)
                    time.sleep(_POLL_S)
            room -= 1
            try:
                _take(intake, file, wanted, counts)
            except (IntakeError, DigitizationError) as error:
                counts.left_out += 1
                said(f"{file.path}: {error}")
            else:
                for page, reason in file.failures:
                    counts.failed_pages += 1
                    said(f"{_place(file, page)}: {reason}")
        step(counts)
    return counts


def _take(intake: Intake, file: ArchivedFile, wanted: Wanted, counts: Counts) -> None:
    try:
        data = file.read()
    except OSError as error:
        raise IntakeError(f"the file cannot be read any more: {error.strerror or type(error).__name__}") from error
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise IntakeError("the file has changed since it was digitized")
    media_type = media_type_of(data)
    context, evidence = _identity(file)
    source_key = _key(file)
    if media_type == "application/dicom":
        context, evidence = _of_object(read_context(data), context, evidence)
        source_key = context.source_sop_instance_uid
        if not source_key:
            raise IntakeError("the DICOM file has no SOP Instance UID")
        if intake.store.jobs.find(source_key) is not None:
            counts.known += 1
            return
    received = ReceivedObject(
        source=f"archive:{wanted.run[:16]}",
        source_key=source_key,
        media_type=media_type,
        data=data,
        context=context,
        actor=wanted.actor,
        destinations=wanted.destinations,
        file_name=PurePath(file.path).name[:_LONGEST_NAME],
        results=file.packed(),
    )
    accepted = intake.accept(received, evidence)
    if accepted.duplicate:
        counts.known += 1
        return
    counts.new += 1
    counts.held += intake.store.jobs.get(accepted.job_id).status == JobStatus.NEEDS_REVIEW


def _identity(file: ArchivedFile) -> tuple[StudyContext, Evidence]:
    """Return what the manifest states; what has no valid form is not believed, and a person must decide."""
    day = f"{file.recorded_on:%Y%m%d}" if file.recorded_on else ""
    stated = StudyContext(patient_id=file.patient, acquisition_date_time=day)
    try:
        return check_context(stated, "what the manifest states"), Evidence()
    except IntakeError as error:
        return StudyContext(acquisition_date_time=day), Evidence(contradictions=(str(error),))


def _of_object(read: StudyContext, stated: StudyContext, evidence: Evidence) -> tuple[StudyContext, Evidence]:
    """Return the identity of a DICOM object: its own, completed by the manifest, which must not contradict it."""
    against = evidence.contradictions
    if read.patient_id and stated.patient_id and read.patient_id != stated.patient_id:
        against = (*against, "the manifest names another patient than the DICOM object")
    known = read.model_dump(exclude_defaults=True)
    return stated.model_copy(update=known), replace(evidence, contradictions=against)


def _key(file: ArchivedFile) -> str:
    """Return the key of a file's job, without reading the file: what was digitized, and for whom."""
    stated = "\0".join(("archive", file.patient, str(file.recorded_on or ""), file.sha256))
    return hashlib.sha256(stated.encode()).hexdigest()


def _room(intake: Intake, wanted: Wanted) -> int:
    """Return how many jobs may be taken in before the backlog is full."""
    waiting = [intake.queued()]
    for (status, destination), count in intake.store.deliveries.counts_by_destination().items():
        if status == DeliveryStatus.PENDING and destination in wanted.watched:
            waiting.append(count)
    return wanted.backlog - max(waiting)


def _place(file: ArchivedFile, page: int | None) -> str:
    return file.path if page is None else f"{file.path} page {page}"
