"""The worklist and its order, one reviewer at a time, two agreements before a decision, a minute to take it back."""

from __future__ import annotations

from datetime import timedelta

import pytest

from gateway.domain import review
from gateway.domain.clock import utc_now
from gateway.domain.context import StudyContext
from gateway.domain.review import Stake, Verdict, stake_of
from gateway.domain.status import JobStatus
from gateway.errors import IllegalTransition
from gateway.identity import words
from gateway.store import review as store_review
from gateway.store.jobs import JobResult
from gateway.store.review import new_decision
from gateway.store.tables import Job

REASONS = {
    "ink 13 mm tall at 2.4 s in I is not in the record": Stake.INK,
    "only 3 of 12 lead names found": Stake.LAYOUT,
    "rhythm strip 1 has no name and resembles no lead; taken as II": Stake.LAYOUT,
    "the columns fit no usual paper speed; 25 mm/s was assumed": Stake.SCALE,
    "several gains are printed: 5 and 10 mm/mV": Stake.SCALE,
    "estimated SNR 3.0 dB is under the limit of 10 dB": Stake.LOW,
    "only 50% of the printed signal was read (limit 80%)": Stake.LOW,
    "a new reason": Stake.OTHER,
}


def ended(store, status=JobStatus.NEEDS_REVIEW, reason="", minutes_ago=0.0, **context):
    context = StudyContext(**({"patient_id": "P1"} | context))
    at = utc_now() - timedelta(minutes=minutes_ago)
    key = f"{reason}-{minutes_ago}-{status}"
    job, _ = store.jobs.submit(
        Job(source="submit", source_key=key, media_type="x", context=context, created_at=at), "t"
    )
    assert store.jobs.claim("w", 60).id == job.id
    store.jobs.complete(job.id, "w", JobResult(status=status, reason=reason))
    return job.id


@pytest.mark.parametrize(("reason", "stake"), REASONS.items())
def test_stake_of_what_the_digitizer_says(reason, stake):
    assert stake_of(reason) == stake


def test_every_reason_about_the_identity_comes_first():
    said = [value for name, value in vars(words).items() if name.isupper()]
    assert len(said) > 10
    assert {stake_of(each) for each in said} == {Stake.IDENTITY}


def test_worst_of_several_reasons_counts():
    assert stake_of("estimated SNR 3.0 dB is low; a code on the page names another") == Stake.IDENTITY


def test_worklist_goes_by_stake_then_age(store):
    fine = ended(store, JobStatus.DONE, minutes_ago=90)
    low = ended(store, reason="estimated SNR 3.0 dB is under the limit of 10 dB", minutes_ago=80)
    ink = ended(store, reason="ink 13 mm tall at 2.4 s in I is not in the record", minutes_ago=10)
    older_ink = ended(store, reason="ink 9 mm tall at 1.0 s in V1 is not in the record", minutes_ago=20)
    unread = ended(store, JobStatus.FAILED, reason="there is no ECG grid on the page", minutes_ago=5)
    whose = ended(store, reason=words.OTHER_PATIENT_ID, minutes_ago=1)
    assert [job.id for job in store.review.worklist()] == [whose, unread, older_ink, ink, low, fine]
    assert [job.id for job in store.review.worklist(doubtful=True)] == [whose, unread, older_ink, ink, low]
    assert (store.review.count(), store.review.count(doubtful=True)) == (6, 5)


def test_one_reviewer_at_a_time(store, monkeypatch):
    job_id = ended(store)
    assert store.review.claim(job_id, "ann") == "ann"
    assert store.review.claim(job_id, "bob") == "ann"
    store.review.leave(job_id, "bob")  # not his
    assert store.review.claim(job_id, "bob") == "ann"
    store.review.leave(job_id, "ann")
    assert store.review.claim(job_id, "bob") == "bob"
    monkeypatch.setattr(store_review, "utc_now", lambda: utc_now() + review.CLAIM)
    assert store.review.claim(job_id, "ann") == "ann"


def test_take_over_is_in_the_trail(store):
    job_id = ended(store)
    store.review.claim(job_id, "ann")
    store.review.take_over(job_id, "bob")
    assert store.jobs.get(job_id).reviewer == "bob"
    assert ("TAKE_OVER", "bob", "from ann") in [(e.action, e.actor, e.detail) for e in store.jobs.events(job_id)]


def version(store, job_id):
    return store.review.version(job_id)


def test_accepted_only_after_both_agreements(store):
    job_id = ended(store)
    with pytest.raises(IllegalTransition, match="traces agree and its patient is right"):
        store.review.decide(job_id, version(store, job_id), new_decision(job_id, Verdict.ACCEPT, "ann"))
    store.review.agree(job_id, version(store, job_id), "ann", traces=True)
    with pytest.raises(IllegalTransition, match="traces agree and its patient is right"):
        store.review.decide(job_id, version(store, job_id), new_decision(job_id, Verdict.ACCEPT, "ann"))
    store.review.agree(job_id, version(store, job_id), "ann", patient=True)
    store.review.decide(job_id, version(store, job_id), new_decision(job_id, Verdict.ACCEPT, "ann"))
    assert store.review.worklist() == []
    job = store.jobs.get(job_id)
    assert (job.traces_agreed_by, job.patient_agreed_by, job.confirmed_by) == ("ann", "ann", "")


def test_decision_is_due_after_a_minute_and_can_be_taken_back_before(store):
    job_id = ended(store)
    store.review.decide(job_id, version(store, job_id), new_decision(job_id, Verdict.REJECT, "ann", "blurred"))
    assert store.review.due() == []
    (due,) = store.review.due(utc_now() + review.UNDO)
    assert (due.job_id, due.verdict, due.reason) == (job_id, Verdict.REJECT, "blurred")
    assert store.review.undo(job_id, "ann")
    assert not store.review.undo(job_id, "ann")
    assert store.review.due(utc_now() + review.UNDO) == []
    assert [job.id for job in store.review.worklist()] == [job_id]


def test_form_of_an_earlier_state_is_refused_and_told_what_changed(store):
    job_id = ended(store)
    seen = version(store, job_id)
    store.review.agree(job_id, seen, "ann", traces=True)
    with pytest.raises(IllegalTransition, match="changed since"):
        store.review.agree(job_id, seen, "ann", patient=True)
    assert [(event.action, event.actor) for event in store.review.changes(job_id, seen)] == [("TRACES_AGREE", "ann")]


def test_job_that_another_has_open_is_not_decided(store):
    job_id = ended(store)
    store.review.claim(job_id, "ann")
    with pytest.raises(IllegalTransition, match="ann has this job open"):
        store.review.agree(job_id, version(store, job_id), "bob", traces=True)


def test_new_run_asks_for_the_traces_again_and_a_new_patient_for_the_patient(store):
    job_id = ended(store, reason=words.NO_IDENTITY)
    store.review.agree(job_id, version(store, job_id), "ann", traces=True, patient=True)
    store.jobs.retry(job_id, "ann")
    job = store.jobs.get(job_id)
    assert (job.traces_agreed_by, job.patient_agreed_by) == ("", "ann")
    with store.database.write() as session:
        session.get(Job, job_id).context = StudyContext(patient_id="P2")
    assert store.jobs.get(job_id).patient_agreed_by == ""


def test_rejected_job_ends_with_its_reason(store):
    job_id = ended(store)
    assert store.review.reject(job_id, "blurred", "ann") == []
    job = store.jobs.get(job_id)
    assert (job.status, job.reason) == (JobStatus.CANCELLED, "blurred")
