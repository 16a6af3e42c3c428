"""Jobs by the thousand: what a filter finds, in which order, and how much there is of it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from gateway.domain.clock import utc_now
from gateway.domain.context import StudyContext
from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.store.queue.search import JobFilter, Order
from gateway.store.store import Store
from gateway.store.tables import Job
from tests.many_jobs import fill

COUNT = 240


@pytest.fixture
def many(store: Store) -> Store:
    fill(store, COUNT)
    return store


def numbers(
    store: Store, wanted: JobFilter, order: Order = Order.NEWEST, limit: int = 10, offset: int = 0
) -> list[int]:
    found = store.search.page(wanted, order, limit, offset)
    return [int(each.job.patient_id.removeprefix("P")) for each in found]


def test_every_word_is_found_wherever_it_stands(many: Store) -> None:
    one = many.search.page(JobFilter(), Order.NEWEST, 1, 18)[0]
    name = one.job.context.patient_name.split("^")[0]
    for text in (
        "P000018",
        "p000018",
        "A000018",
        "scan_000018.png",
        "1.2.826.0.1.18",
        one.job.id[:8].upper(),
        "ehr-18",
    ):
        assert numbers(many, JobFilter(text=text))[0] == 18, text
    assert numbers(many, JobFilter(text="2.25.18")) == [18]  # of the waveform: the whole UID
    assert numbers(many, JobFilter(text=f"000018 {name.lower()}")) == [18]
    assert numbers(many, JobFilter(text="000018 nobody")) == []
    assert numbers(many, JobFilter(text="%")) == numbers(many, JobFilter(text="0_0")) == []  # no wild cards


def test_who_may_not_see_patients_does_not_find_them_either(many: Store) -> None:
    one = many.search.page(JobFilter(), Order.NEWEST, 1, 18)[0].job
    for text in ("P000018", "A000018", "scan_000018", one.context.patient_name.split("^")[0]):
        assert numbers(many, JobFilter(text=text, sees_patients=False)) == [], text
    for text in (one.id, "2.25.18", "pacs-18"):
        assert numbers(many, JobFilter(text=text, sees_patients=False)) == [18]


def test_filters_hold_together(many: Store) -> None:
    now = utc_now()
    refused = JobFilter(delivery=DeliveryStatus.REFUSED, destination="ehr")
    assert numbers(many, refused) == [7, 47, 87, 127, 167, 207]
    assert numbers(many, JobFilter(delivery=DeliveryStatus.REFUSED, destination="pacs")) == []
    assert numbers(many, JobFilter(status=JobStatus.FAILED)) == [49, 99, 149, 199]
    assert numbers(many, JobFilter(source="dicom:CART1", since=now - timedelta(minutes=41))) == [0, 4, 8]
    assert numbers(many, JobFilter(until=now - timedelta(minutes=41)), limit=1) == [9]


def test_what_went_wrong_comes_first_and_pages_do_not_overlap(many: Store) -> None:
    wrong = [7, 47, 49, 87, 99, 127, 149, 167, 199, 207]
    assert numbers(many, JobFilter(), Order.FAILURES, 12) == [*wrong, 0, 1]
    seen = [n for offset in range(0, COUNT, 7) for n in numbers(many, JobFilter(), Order.FAILURES, 7, offset)]
    assert sorted(seen) == list(range(COUNT)) and seen[:10] == wrong
    assert numbers(many, JobFilter(), Order.OLDEST, 2) == [239, 238]
    assert numbers(many, JobFilter(), Order.PATIENT, 2) == [0, 1]
    assert numbers(many, JobFilter(), Order.SOURCE, 2) == [0, 4]
    assert [each.job.patient_id for each in many.search.all(JobFilter())] == [f"P{n:06d}" for n in range(COUNT)]


def test_totals_count_jobs_pages_and_deliveries_of_what_matches(many: Store) -> None:
    totals = many.search.totals(JobFilter())
    assert (totals.jobs, totals.pages) == (COUNT, COUNT)
    assert totals.by_status[JobStatus.FAILED] == 4 and totals.by_status[JobStatus.CANCELLED] == 0
    assert totals.deliveries[DeliveryStatus.REFUSED, "ehr"] == 6
    totals = many.search.totals(JobFilter(source="submit", status=JobStatus.DONE))
    assert totals.jobs == totals.by_status[JobStatus.DONE] < COUNT / 4
    assert totals.deliveries[DeliveryStatus.DELIVERED, "pacs"] == totals.jobs == totals.pages
    assert totals.by_status[JobStatus.NEEDS_REVIEW] > 0  # as if no status were named: each is a link


def test_words_follow_the_identity(store: Store) -> None:
    job, _ = store.jobs.submit(Job(source="submit", source_key="1", media_type="image/png", file_name="Ä.PNG"), "cli")
    assert numbers_of(store, "ä.png") == [job.id]
    with store.database.write() as session:
        found = session.get_one(Job, job.id)
        found.context = StudyContext(patient_id="MRN-1", patient_name="Grün^Åse=漢^字")
    for text in ("mrn-1", "grün åse", "漢 字"):
        assert numbers_of(store, text) == [job.id], text


def numbers_of(store: Store, text: str) -> list[str]:
    return store.search.ids(JobFilter(text=text))
