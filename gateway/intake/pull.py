"""History from an archive: find, leave out what is here already, fetch the rest in batches.

A pull may be ended at any time and asked for again: what arrived is a job, and a job's object is not fetched twice
unless its source was lost.
Long spans of study dates are asked for month by month, since archives cut long lists short without saying so.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from fnmatch import fnmatchcase
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from gateway.dicom.images.pages import DOCUMENT_SOP_CLASSES, IMAGE_SOP_CLASSES
from gateway.dicom.network.find import Study, StudyQuery
from gateway.dicom.network.retrieve import Instance
from gateway.errors import DeliveryDeferred, DeliveryRefused, SettingsError

_TAKEN = {"", *map(str, IMAGE_SOP_CLASSES), *map(str, DOCUMENT_SOP_CLASSES)}
_FAILURES_IN_A_ROW = 3
_POLL_S = 1.0
_LINE_S = 60.0  # where no terminal shows the bar


class Archive(Protocol):
    """Who has the history: `DimseArchive` or `WebArchive` of `gateway.dicom.network`."""

    def studies(self, query: StudyQuery) -> Sequence[Study]:
        """Return the studies that match (C-FIND or QIDO-RS)."""
        ...

    def instances(self, study_instance_uid: str, modalities: Sequence[str]) -> Sequence[Instance]:
        """Return the instances of one study that are of these modalities."""
        ...

    def fetch(self, instances: Sequence[Instance]) -> None:
        """Fetch instances (C-MOVE, C-GET or WADO-RS); each is kept before it is acknowledged."""
        ...


class Keeper(Protocol):
    """Who keeps what is fetched: `Intake`, or a `Collection`."""

    def has(self, sop_instance_uid: str, /) -> bool:
        """Return whether an object is here."""
        ...

    def is_known(self, sop_instance_uid: str, /) -> bool:
        """Return whether an object need not be fetched."""
        ...

    def queued(self) -> int:
        """Return how many jobs wait for a worker."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to pull, and how fast."""

    query: StudyQuery  # its `modalities` are taken from below
    modalities: tuple[str, ...] = ()
    batch: int = 20  # objects a retrieval
    pause_s: float = 0.0  # between two
    maximum_queued: int = 200  # jobs; while more wait, nothing is fetched


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a pull is."""

    doing: str = "asking"
    studies: int = 0
    studies_done: int = 0
    fetched: int = 0
    known: int = 0  # here before
    failed: int = 0  # did not arrive
    problem: str = ""  # the last one


def pull(archive: Archive, keeper: Keeper, wanted: Wanted, report: Callable[[Progress], None]) -> Progress:
    """Fetch what is wanted and is not here; `report` is called after every step.

    Raises
    ------
    DeliveryDeferred, DeliveryRefused
        The archive does not answer, or three studies in a row failed; a later pull continues where this one ended.
    """
    progress = Progress()
    studies: dict[str, Study] = {}
    for query in _queries(wanted):
        found = archive.studies(query)
        studies |= {study.study_instance_uid: study for study in found if _matches(study, wanted.query)}
        progress = replace(progress, studies=len(studies))
        report(progress)
    failures = 0
    for study in studies:
        try:
            progress = _pull_study(archive, keeper, wanted, study, progress, report)
            failures = 0
        except (DeliveryDeferred, DeliveryRefused) as error:  # of this study, perhaps: others may still come
            failures += 1
            if failures == _FAILURES_IN_A_ROW:
                raise
            progress = replace(progress, failed=progress.failed + 1, problem=str(error))
        progress = replace(progress, studies_done=progress.studies_done + 1)
        report(progress)
    return replace(progress, doing="done")


def show_pull(archive: Archive, keeper: Keeper, wanted: Wanted, console: Console) -> Progress:
    """Pull with a progress bar, or away from a terminal a line now and then; print what came of it, raise as `pull`."""
    columns = ("{task.description}", BarColumn(), "{task.completed}/{task.total} studies", TimeRemainingColumn())
    said, line_due = Progress(), time.monotonic() + _LINE_S
    try:
        with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
            task = bar.add_task("asking", total=None)

            def report(progress: Progress) -> None:
                nonlocal said, line_due
                said, words = progress, f"{progress.doing}: {_figures(progress)}"
                bar.update(task, description=words, total=progress.studies, completed=progress.studies_done)
                if not console.is_terminal and time.monotonic() >= line_due:
                    console.print(f"{progress.studies_done}/{progress.studies} studies, {words}")
                    line_due = time.monotonic() + _LINE_S

            end = pull(archive, keeper, wanted, report)
    except (DeliveryDeferred, DeliveryRefused):
        console.print(f"ended after {said.studies_done} of {said.studies} studies: {_figures(said)}")
        console.print("a repeated pull continues where this one ended")
        raise
    console.print(f"{end.studies} studies: {_figures(end)}")
    if end.problem:
        console.print(f"last problem: {end.problem}")
    return end


def _figures(progress: Progress) -> str:
    return f"{progress.fetched} fetched, {progress.known} known before, {progress.failed} failed"


def _pull_study(
    archive: Archive, keeper: Keeper, wanted: Wanted, study: str, progress: Progress, report: Callable[[Progress], None]
) -> Progress:
    """Fetch one study's missing objects."""
    instances = [each for each in archive.instances(study, wanted.modalities) if each.sop_class_uid in _TAKEN]
    missing = [each for each in instances if not keeper.is_known(each.sop_instance_uid)]
    progress = replace(progress, doing="fetching", known=progress.known + len(instances) - len(missing))
    for start in range(0, len(missing), wanted.batch):
        batch = missing[start : start + wanted.batch]
        while (queued := keeper.queued()) >= wanted.maximum_queued:
            report(replace(progress, doing=f"waiting: {queued} jobs are queued"))
            time.sleep(_POLL_S)
        archive.fetch(batch)
        arrived = sum(keeper.has(each.sop_instance_uid) for each in batch)
        lost = len(batch) - arrived
        progress = replace(progress, fetched=progress.fetched + arrived, failed=progress.failed + lost)
        if lost:
            progress = replace(progress, problem=f"{lost} of {len(batch)} objects of a study did not arrive")
        report(progress)
        time.sleep(wanted.pause_s)
    return progress


def _queries(wanted: Wanted) -> Iterator[StudyQuery]:
    """Yield one query a month and modality: a list of modalities is not a thing C-FIND has at study level."""
    for span in months(wanted.query.study_date):
        for modality in wanted.modalities or ("",):
            yield replace(wanted.query, study_date=span, modalities=modality)


def months(study_date: str) -> Iterator[str]:
    """Yield a range YYYYMMDD-YYYYMMDD in pieces of a month at most; anything else as it is."""
    if not re.fullmatch(r"\d{8}-\d{8}", study_date):
        yield study_date
        return
    try:
        first, last = (date.fromisoformat(part) for part in study_date.split("-"))
    except ValueError as error:
        raise SettingsError(f"{study_date} is no range of dates") from error
    while first <= last:
        end = min(last, (first.replace(day=1) + timedelta(days=32)).replace(day=1) - timedelta(days=1))
        yield f"{first:%Y%m%d}-{end:%Y%m%d}"
        first = end + timedelta(days=1)


def _matches(study: Study, query: StudyQuery) -> bool:
    """Look again whether the description fits: an archive may not know the key, and then matches everything."""
    pattern = query.study_description.upper().replace("[", "[[]")
    return not pattern or fnmatchcase(study.study_description.upper(), pattern)
