"""A worker process with several lanes: jobs side by side, and nobody pays for another's page."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.domain.context import StudyContext
from gateway.domain.received import ReceivedObject
from gateway.domain.status import JobStatus
from gateway.intake.accept import Intake
from gateway.settings import Settings
from gateway.spool.folder import Spool
from gateway.store.store import Store
from gateway.store.tables import Job
from gateway.worker.lanes import Alarms, Turns
from gateway.worker.process import CurrentSettings, run_worker
from pipeline.errors import DeviceError, DigitizationError, TraceNotFound, WeightsMismatch
from tests.fake_digitizer import Behaviour, FakeDigitizer, page_png
from tests.waiting import PATIENCE_S, eventually

LANES = 3


class Crowd(FakeDigitizer):
    """Counts who is digitizing at the same time; holds every page until `expected` have been there together."""

    pages_at_once = LANES

    def __init__(self, expected: int = 1) -> None:
        self.expected, self.now, self.most = expected, 0, 0
        self.alone: list[int] = []  # the marks of pages that had no neighbours
        self._changed = threading.Condition()

    def digitize(self, page: Any, *, default_calibration: Any, **more: Any) -> Any:
        with self._changed:
            self.now += 1
            self.most = max(self.most, self.now)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.most >= self.expected, PATIENCE_S)
            crowded = self.now > 1
        try:
            if not crowded:
                self.alone.append(int(page.pixels[1, 3, 0]))
            self.look(crowded)
            return super().digitize(page, default_calibration=default_calibration, **more)
        finally:
            with self._changed:
                self.now -= 1

    def look(self, crowded: bool) -> None:
        """What a test adds."""


@pytest.fixture
def signals() -> Iterator[None]:
    """Give the signals back that a worker takes."""
    numbers = (signal.SIGALRM, signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def submit(intake: Intake, number: int, behaviour: Behaviour = Behaviour.GOOD) -> str:
    return intake.accept(
        ReceivedObject(
            source="submit",
            source_key=f"page {number}",
            media_type="image/png",
            data=page_png(behaviour, number),
            context=StudyContext(patient_id="P1", patient_name="DOE^JANE"),
            destinations=(),
            actor="test",
        )
    ).job_id


def work(store: Store, spool: Spool, digitizer: Crowd, monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Be a worker process until no job waits or runs, and then until its SIGTERM is obeyed."""
    monkeypatch.setattr("gateway.worker.process.limit_memory", lambda mib: None)

    def ask() -> None:
        try:
            eventually(
                lambda: not any(store.jobs.newest(status=status) for status in (JobStatus.QUEUED, JobStatus.RUNNING))
            )
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=ask)
    asking.start()
    run_worker(CurrentSettings(Settings(), Settings), store, spool, name="w1", digitizer=digitizer)
    asking.join()
    return store.jobs.newest()


@pytest.mark.usefixtures("signals")
def test_queued_jobs_are_digitized_side_by_side(
    store: Store, spool: Spool, intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2 * LANES):
        submit(intake, number)
    digitizer = Crowd(expected=LANES)
    jobs = work(store, spool, digitizer, monkeypatch)
    assert [(job.status, job.attempts, job.reason) for job in jobs] == [(JobStatus.DONE, 1, "")] * (2 * LANES)
    assert digitizer.most == LANES


@pytest.mark.usefixtures("signals")
def test_page_that_breaks_leaves_those_beside_it_alone(
    store: Store, spool: Spool, intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    behaviours = (Behaviour.GOOD, Behaviour.BROKEN, Behaviour.GOOD)
    ids = [submit(intake, number, behaviour) for number, behaviour in enumerate(behaviours)]
    digitizer = Crowd(expected=LANES)
    work(store, spool, digitizer, monkeypatch)
    assert digitizer.most == LANES
    assert [store.jobs.get(job_id).status for job_id in ids] == [JobStatus.DONE, JobStatus.FAILED, JobStatus.DONE]


@pytest.mark.parametrize("fault", [MemoryError, lambda: DeviceError("the device's memory is full")])
@pytest.mark.usefixtures("signals")
def test_page_that_lacks_memory_beside_others_is_tried_alone(
    store: Store, spool: Spool, intake: Intake, monkeypatch: pytest.MonkeyPatch, fault: Any
) -> None:
    class Full(Crowd):
        def look(self, crowded: bool) -> None:
            if crowded:
                raise fault()

    for number in range(LANES):
        submit(intake, number)
    digitizer = Full(expected=LANES)
    jobs = work(store, spool, digitizer, monkeypatch)
    assert [job.status for job in jobs] == [JobStatus.DONE] * LANES
    assert digitizer.most == LANES and digitizer.alone


@pytest.mark.parametrize("fault", [TraceNotFound("there is no trace"), WeightsMismatch("other weights")], ids=type)
@pytest.mark.usefixtures("signals")
def test_page_whose_failure_is_its_own_is_not_tried_again(
    store: Store, spool: Spool, intake: Intake, monkeypatch: pytest.MonkeyPatch, fault: DigitizationError
) -> None:
    class Unreadable(Crowd):
        def look(self, crowded: bool) -> None:
            tries.append(crowded)
            raise fault

    tries: list[bool] = []
    for number in range(LANES):
        submit(intake, number)
    jobs = work(store, spool, Unreadable(expected=LANES), monkeypatch)
    assert [(job.status, job.reason) for job in jobs] == [(JobStatus.FAILED, str(fault))] * LANES
    assert len(tries) == LANES


@pytest.mark.usefixtures("signals")
def test_job_that_was_tried_before_works_alone(
    store: Store, spool: Spool, intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    suspect = submit(intake, 0)
    assert store.jobs.claim("dead", -1.0) is not None and store.jobs.rescue(3) == [suspect]
    for number in range(1, LANES):
        submit(intake, number)
    digitizer = Crowd()
    jobs = work(store, spool, digitizer, monkeypatch)
    assert [job.status for job in jobs] == [JobStatus.DONE] * LANES
    assert 0 in digitizer.alone


def test_turns_of_those_who_want_to_be_alone_come_and_are_theirs() -> None:
    turns, order = Turns(2), []
    together, entered = threading.Event(), threading.Event()

    def side_by_side() -> None:
        with turns.take(alone=False):
            entered.set()
            together.wait(PATIENCE_S)
            order.append("first")

    def alone() -> None:
        with turns.take(alone=True):
            order.append("alone")

    def late() -> None:
        with turns.take(alone=False):
            order.append("late")

    threads = [threading.Thread(target=target) for target in (side_by_side, alone, late)]
    threads[0].start()
    assert entered.wait(PATIENCE_S)
    threads[1].start()
    eventually(lambda: turns._wanting_alone)
    threads[2].start()
    time.sleep(0.1)  # it may go wrong now
    together.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert order == ["first", "alone", "late"]


def test_timer_goes_off_for_the_lane_that_is_due_first(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    monkeypatch.setattr(signal, "setitimer", lambda which, seconds: told.append(seconds))
    alarms = Alarms()
    alarms.set(0, 100.0)
    alarms.set(1, 50.0)
    alarms.set(1, 0.0)
    alarms.set(0, 0.0)
    assert told == pytest.approx([100.0, 50.0, 100.0, 0.0], abs=20.0)
