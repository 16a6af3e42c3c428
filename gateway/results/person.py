"""A person corrects how the pages of a job are read: checked, stored with the job, and queued before the others.

The revised result waits until a person confirms it; it then takes the place of what was sent before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from gateway.errors import IllegalTransition, NotFound
from gateway.settings import Settings
from gateway.store.store import Store
from gateway.store.tables import Job, Page
from pipeline import (
    BrokenRule,
    CorrectionError,
    Corrections,
    check_corrections,
    corrections_json,
    load_layouts,
    parse_pages,
)

CONFIRM = "corrected by a person: the result leaves when it is confirmed"


def corrections_of(job: Job) -> dict[int, Corrections]:
    """Return what a person corrected on the pages of a job, by page number."""
    return {number: each for number, each in parse_pages(json.loads(job.corrections_json)).items() if each}


def correct(
    store: Store,
    settings: Settings,
    job_id: str,
    pages: Mapping[int, Corrections],
    actor: str,
    version: int | None = None,
) -> None:
    """Digitize a job again with what a person states about its pages.

    Parameters
    ----------
    pages
        All corrections of each page that is named: they replace earlier ones, and empty ones take them back.  Pages
        that are not named keep theirs.
    version
        Of the job that the person saw (`store.jobs.version`); None where any will do.

    Raises
    ------
    NotFound
        There is no such job, or no such page.
    CorrectionError
        What is stated does not fit its page or its layout: the error names field, value and rule.
    IllegalTransition
        The job has changed since, and the error says how; or it cannot be digitized again now.
    """
    job = store.jobs.get(job_id)
    rows = {row.page_number: row for row in store.jobs.pages(job_id)}
    if missing := [str(number) for number in pages if number not in rows]:
        raise NotFound(f"job {job_id} has no page {', '.join(missing)} that was digitized")
    if job.unmatched and job.patient_id:
        raise IllegalTransition(f"job {job_id} waits for its identity: give it one first")
    before = corrections_of(job)
    for number, stated in pages.items():
        _check(stated, before.get(number, Corrections()), rows[number], settings)
    all_of_them = {number: each for number, each in {**before, **pages}.items() if each}
    text = json.dumps({str(number): corrections_json(each) for number, each in sorted(all_of_them.items())})
    store.jobs.correct(job, text, actor, _in_words(pages), version)


def _check(stated: Corrections, before: Corrections, row: Page, settings: Settings) -> None:
    """Raise CorrectionError where corrections do not fit the page as it was read."""
    width, height = json.loads(row.quality_json).get("page_px", (None, None))
    if width is not None:
        check_corrections(stated, (width, height), load_layouts(settings.digitizer.layouts), row.layout)
    elif stated.layout not in (None, *(known := [each.name for each in load_layouts(settings.digitizer.layouts)])):
        raise CorrectionError([BrokenRule("layout", repr(stated.layout), f"must be one of {', '.join(known)}")])
    if not (stated.layout or stated.leads or stated.rhythm):
        _check_left_out(stated, [*json.loads(row.quality_json).get("coverage", {}), *before.left_out])


def _check_left_out(stated: Corrections, read: Sequence[str]) -> None:
    """Raise CorrectionError where no lead of a page would be left, or one that is left out is not on it."""
    if read and (missing := [lead.value for lead in stated.left_out if lead not in read]):
        raise CorrectionError([BrokenRule("left_out", ", ".join(missing), "must be on the page")])
    if read and set(read) <= set(stated.left_out):
        rule = "a lead with a signal must remain; else reject the page"
        raise CorrectionError([BrokenRule("left_out", "every lead of the page", rule)])


def _in_words(pages: Mapping[int, Corrections]) -> str:
    """Return for the audit trail what was stated: fields, and the values of those that are short."""
    return "; ".join(
        f"page {number}: {', '.join(map(_field, corrections_json(each).items())) or 'nothing any more'}"
        for number, each in sorted(pages.items())
    )


def _field(item: tuple[str, object]) -> str:
    name, value = item
    return f"{name} {value}" if isinstance(value, str | int | float) else name
