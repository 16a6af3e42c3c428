"""The outbox: every result arrives, in order, or a person can see why not."""

import random
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from unittest.mock import Mock

import pytest

from gateway.delivery.outbox import Outbox, backoff_s
from gateway.domain.artefact import Role
from gateway.domain.clock import utc_now
from gateway.domain.context import StudyContext
from gateway.domain.received import ReceivedObject
from gateway.domain.status import DeliveryStatus, JobStatus
from gateway.errors import (
    DeliveryDeferred,
    DeliveryRefused,
    IllegalTransition,
    NotReached,
    StorageError,
    UnreadableFile,
)
from gateway.intake.accept import Intake
from gateway.settings import RetrySettings
from gateway.spool.disk import Disk
from gateway.spool.folder import Spool
from gateway.store.deliveries import Deliveries
from gateway.store.jobs import JobResult
from gateway.store.store import Store
from gateway.store.tables import Delivery
from tests.fakes import FakeDestination, make_unreadable
from tests.waiting import PATIENCE_S, eventually

QUICK = RetrySettings(first_s=0.01, maximum_s=0.05, attempts=4)
SLOW = RetrySettings(first_s=3600, maximum_s=3600, attempts=4)


class House:
    """Store, spool, and jobs whose results wait to be sent."""

    def __init__(self, store: Store, spool: Spool) -> None:
        self.store, self.spool = store, spool
        self.outboxes: list[Outbox] = []
        self.jobs = 0

    def finished_job(self, *destinations: str) -> str:
        self.jobs += 1
        accepted = Intake(self.spool, self.store).accept(
            ReceivedObject(
                source="submit",
                source_key=str(self.jobs),
                media_type="image/png",
                data=b"page",
                context=StudyContext(patient_id="4711"),
                destinations=None,
                actor="test",
            )
        )
        self.spool.write_artefact(accepted.job_id, "page1.dcm", b"result %d" % self.jobs)
        assert self.store.jobs.claim("w", 60)
        deliveries = [
            Delivery(
                job_id=accepted.job_id,
                role=Role.WAVEFORM,
                page_number=1,
                destination=name,
                kind="dicom",
                artefact="page1.dcm",
                identifier=f"2.25.{self.jobs}",
            )
            for name in destinations
        ]
        self.store.jobs.complete(accepted.job_id, "w", JobResult(status=JobStatus.DONE, deliveries=deliveries))
        return accepted.job_id

    def outbox(self, retry: RetrySettings = QUICK, store: Store | None = None, **there: FakeDestination) -> Outbox:
        for name, destination in there.items():
            destination.name, destination.retry = name, retry
        outbox = Outbox(store or self.store, self.spool, list(there.values()), random.Random(1), poll_s=0.01)
        self.outboxes.append(outbox)
        outbox.start()
        return outbox

    def wait_for(self, job_id: str, *statuses: DeliveryStatus) -> list[Delivery]:
        eventually(lambda: [d.status for d in self.store.deliveries.of_job(job_id)] == list(statuses))
        return self.store.deliveries.of_job(job_id)


@pytest.fixture
def house(store: Store, spool: Spool) -> Iterator[House]:
    house = House(store, spool)
    yield house
    for outbox in house.outboxes:
        outbox.stop()


@pytest.mark.parametrize(("kind", "answer"), [("dicom", "0x0000"), ("hl7", "AA"), ("folder", "stored")])
def test_a_result_arrives_with_the_bytes_of_its_file(house: House, kind: str, answer: str) -> None:
    job_id = house.finished_job("there")
    there = FakeDestination(kind)
    house.outbox(there=there)
    (delivery,) = house.wait_for(job_id, DeliveryStatus.DELIVERED)
    assert delivery.response == answer and delivery.attempts == 1
    assert [(sent.artefact, sent.data, sent.identifier) for sent in there.sent] == [
        ("page1.dcm", b"result 1", "2.25.1")
    ]


def test_a_deferred_delivery_is_sent_again_with_the_same_bytes(house: House) -> None:
    job_id = house.finished_job("pacs")
    pacs = FakeDestination(script=[DeliveryDeferred("connection refused"), DeliveryDeferred("timeout")])
    house.outbox(pacs=pacs)
    (delivery,) = house.wait_for(job_id, DeliveryStatus.DELIVERED)
    assert delivery.attempts == 3 and delivery.reason == ""
    assert len(pacs.sent) == 3 and len(set(pacs.sent)) == 1


@pytest.mark.parametrize("error", [DeliveryDeferred, NotReached])
def test_attempts_are_bounded_and_the_next_one_goes_on(house: House, error: type[DeliveryDeferred]) -> None:
    lost = house.finished_job("pacs")
    house.outbox(pacs=FakeDestination(script=[error("connection refused")] * 4))
    (delivery,) = house.wait_for(lost, DeliveryStatus.FAILED)
    assert (delivery.attempts, delivery.reason) == (4, "connection refused")
    house.wait_for(house.finished_job("pacs"), DeliveryStatus.DELIVERED)


def test_a_refused_delivery_is_not_tried_again(house: House) -> None:
    job_id, next_one = house.finished_job("ehr"), house.finished_job("ehr")
    ehr = FakeDestination("hl7", [DeliveryRefused("unknown order", response="AR")])
    house.outbox(ehr=ehr)
    house.wait_for(next_one, DeliveryStatus.DELIVERED)
    (delivery,) = house.wait_for(job_id, DeliveryStatus.REFUSED)
    assert (delivery.response, delivery.reason) == ("AR", "unknown order")
    assert len(ehr.sent) == 2


def test_order_is_kept_for_each_destination(house: House) -> None:
    jobs = [house.finished_job("pacs") for _ in range(4)]
    pacs = FakeDestination(script=[DeliveryDeferred("busy"), "0x0000", DeliveryDeferred("busy")])
    house.outbox(pacs=pacs)
    house.wait_for(jobs[-1], DeliveryStatus.DELIVERED)
    assert [sent.identifier for sent in pacs.sent] == [f"2.25.{n}" for n in (1, 1, 2, 2, 3, 4)]


def test_an_object_that_is_always_put_off_holds_up_nobody(house: House) -> None:
    class Pacs(FakeDestination):
        def send(self, path: Path, delivery: Delivery) -> str:
            answer = super().send(path, delivery)
            if delivery.identifier == "2.25.1":
                raise DeliveryDeferred("status 0x0110", response="0x0110")
            return answer

    jobs = [house.finished_job("pacs") for _ in range(4)]
    retry = RetrySettings(first_s=0.1, maximum_s=3600, attempts=50)
    pacs = Pacs()
    house.outbox(retry, pacs=pacs)
    for job_id in jobs[1:]:
        house.wait_for(job_id, DeliveryStatus.DELIVERED)
    assert [sent.identifier for sent in pacs.sent][:2] == ["2.25.1"] * 2
    assert house.store.deliveries.of_job(jobs[0])[0].status == DeliveryStatus.PENDING


def test_a_destination_that_is_down_is_not_asked_for_every_delivery(house: House) -> None:
    jobs = [house.finished_job("pacs") for _ in range(20)]
    pacs = FakeDestination(script=[NotReached("connection refused")] * 1000)
    house.outbox(RetrySettings(first_s=0.05, maximum_s=3600, attempts=50), pacs=pacs)
    eventually(lambda: len(pacs.sent) == 4)  # after 0, 0.05, 0.15 and 0.35 s, more or less
    time.sleep(0.1)  # and then not for 0.3 s at least
    assert len(pacs.sent) == 4
    assert sum(house.store.deliveries.of_job(job_id)[0].attempts for job_id in jobs) == 4


def test_a_destination_that_is_reached_again_gets_all_that_waited(house: House) -> None:
    jobs = [house.finished_job("pacs") for _ in range(5)]
    house.outbox(pacs=FakeDestination(script=[NotReached("connection refused")] * 3))
    for job_id in jobs:
        house.wait_for(job_id, DeliveryStatus.DELIVERED)


def test_a_hanging_destination_holds_up_nobody_else(house: House) -> None:
    jobs = [house.finished_job("dead", "ehr") for _ in range(2)]
    dead = FakeDestination(open=False)
    house.outbox(dead=dead, ehr=FakeDestination("hl7"))
    house.wait_for(jobs[1], DeliveryStatus.PENDING, DeliveryStatus.DELIVERED)
    dead.gate.set()
    house.wait_for(jobs[1], DeliveryStatus.DELIVERED, DeliveryStatus.DELIVERED)


def test_a_sender_that_breaks_is_tried_again_later(house: House) -> None:
    job_id = house.finished_job("pacs")
    outbox = house.outbox(pacs=FakeDestination(script=[KeyError("patient name")]))
    (delivery,) = house.wait_for(job_id, DeliveryStatus.DELIVERED)
    assert delivery.attempts == 2 and outbox.alive
    assert any(event.detail == "pacs, page 1: internal error: KeyError" for event in house.store.jobs.events(job_id))


def test_a_missing_file_is_given_up(house: House) -> None:
    job_id = house.finished_job("pacs")
    house.spool.remove(job_id)
    house.outbox(pacs=FakeDestination())
    (delivery,) = house.wait_for(job_id, DeliveryStatus.FAILED)
    assert delivery.reason == "the file to send is gone"


def test_a_file_that_cannot_be_read_holds_up_nobody_and_is_given_up_at_last(house: House) -> None:
    first, second = house.finished_job("pacs"), house.finished_job("pacs")
    make_unreadable(house.spool.path / first / "page1.dcm")
    house.outbox(pacs=FakeDestination())
    house.wait_for(second, DeliveryStatus.DELIVERED)
    (delivery,) = house.wait_for(first, DeliveryStatus.FAILED)
    assert delivery.reason == "the file to send cannot be read: spool: Too many levels of symbolic links"
    assert delivery.attempts == QUICK.attempts


def test_a_spool_that_cannot_be_read_at_all_costs_no_attempt(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = house.finished_job("pacs")
    with monkeypatch.context() as broken:
        stale = Mock(side_effect=UnreadableFile("spool: Stale file handle"))
        broken.setattr(Disk, "open", stale)
        house.outbox(pacs=FakeDestination())
        eventually(lambda: stale.call_count >= 4)  # twice the file, and what is written to know
        (delivery,) = house.store.deliveries.of_job(job_id)
        assert (delivery.status, delivery.attempts) == (DeliveryStatus.PENDING, 0)
    house.wait_for(job_id, DeliveryStatus.DELIVERED)


def test_stop_waits_for_the_send_under_way_and_starts_no_other(house: House) -> None:
    first, second = house.finished_job("pacs"), house.finished_job("pacs")
    pacs = FakeDestination(open=False)
    outbox = house.outbox(pacs=pacs)
    assert pacs.sending.wait(PATIENCE_S) and outbox.alive
    stopper = threading.Thread(target=outbox.stop)
    stopper.start()
    stopper.join(0.1)
    assert stopper.is_alive()
    pacs.gate.set()
    stopper.join(PATIENCE_S)
    assert not stopper.is_alive() and not outbox.alive
    assert [house.store.deliveries.of_job(job)[0].status for job in (first, second)] == [
        DeliveryStatus.DELIVERED,
        DeliveryStatus.PENDING,
    ]


def test_what_was_sent_is_not_sent_again_while_the_database_cannot_record_it(house: House) -> None:
    class FailingDeliveries(Deliveries):
        failures = 5

        def delivered(self, delivery_id: int, response: str) -> None:
            if self.failures:
                self.failures -= 1
                raise StorageError("database: database or disk is full")
            super().delivered(delivery_id, response)

    failing = Store(house.store.database.url)
    failing.deliveries = FailingDeliveries(failing.database)
    job_id = house.finished_job("pacs")
    pacs = FakeDestination()
    house.outbox(store=failing, pacs=pacs)
    house.wait_for(job_id, DeliveryStatus.DELIVERED)
    assert failing.deliveries.failures == 0 and len(pacs.sent) == 1
    house.outboxes.pop().stop()
    failing.close()


def test_a_delivery_cancelled_while_it_is_sent_stops_nothing(house: House) -> None:
    job_id = house.finished_job("pacs")
    pacs = FakeDestination(script=[DeliveryRefused("no")], open=False)
    outbox = house.outbox(pacs=pacs)
    assert pacs.sending.wait(PATIENCE_S)
    (delivery,) = house.store.deliveries.of_job(job_id)
    assert delivery.id
    house.store.deliveries.delivered(delivery.id, "0x0000")  # somebody else settled it
    pacs.gate.set()
    house.wait_for(house.finished_job("pacs"), DeliveryStatus.DELIVERED)
    assert outbox.alive


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_thread_is_noticed(house: House) -> None:
    class BrokenDeliveries(Deliveries):
        def due(self, *_args: object, **_more: object) -> list[Delivery]:
            raise ZeroDivisionError

    broken = Store(house.store.database.url)
    broken.deliveries = BrokenDeliveries(broken.database)
    outbox = house.outbox(store=broken, pacs=FakeDestination())
    eventually(lambda: not outbox.alive)
    broken.close()


def test_a_restart_takes_up_what_was_left(house: House) -> None:
    job_id = house.finished_job("pacs")
    first = house.outbox(SLOW, pacs=FakeDestination(script=[DeliveryDeferred("down")]))
    eventually(lambda: house.store.deliveries.of_job(job_id)[0].attempts == 1)
    first.stop()
    (delivery,) = house.store.deliveries.of_job(job_id)
    assert delivery.next_attempt_at > utc_now() + timedelta(minutes=30)
    assert delivery.id
    house.store.deliveries.give_up(delivery.id, "a person stopped it")
    house.store.deliveries.retry(delivery.id, "cli")
    house.outbox(pacs=FakeDestination())
    house.wait_for(job_id, DeliveryStatus.DELIVERED)


def test_backoff_doubles_to_a_cap_with_a_quarter_of_jitter() -> None:
    retry = RetrySettings(first_s=10, maximum_s=100, attempts=10_000)
    for attempts, middle in [(0, 10), (1, 20), (3, 80), (4, 100), (5000, 100)]:
        pauses = [backoff_s(retry, attempts, random.Random(seed)) for seed in range(200)]
        assert min(pauses) >= 0.75 * middle and max(pauses) <= 1.25 * middle
        assert max(pauses) - min(pauses) > 0.4 * middle


# -- other destinations while it runs ---------------------------------------------------------------------------------


def named(name: str, **script: bool) -> FakeDestination:
    destination = FakeDestination(**script)
    destination.name, destination.retry = name, QUICK
    return destination


def test_destinations_come_and_go_while_it_runs(house: House) -> None:
    same = named("same")
    outbox = house.outbox(same=same, gone=named("gone"))
    new = named("new")
    outbox.replace([same, new])
    assert outbox.alive
    job_id = house.finished_job("same", "gone", "new")
    house.wait_for(job_id, DeliveryStatus.DELIVERED, DeliveryStatus.PENDING, DeliveryStatus.DELIVERED)
    outbox.replace([])
    outbox.replace([same, new, named("gone")])
    house.wait_for(job_id, *[DeliveryStatus.DELIVERED] * 3)
    assert outbox.alive and len(same.sent) == len(new.sent) == 1


def test_a_changed_destination_waits_for_what_is_being_sent(house: House) -> None:
    """Nothing is cut short, and nothing is sent twice at once."""
    old, new = named("pacs", open=False), named("pacs")
    outbox = house.outbox(pacs=old)
    first, second = house.finished_job("pacs"), house.finished_job("pacs")
    assert old.sending.wait(PATIENCE_S)
    outbox.replace([new])
    assert outbox.alive and not new.sending.wait(0.3)
    old.gate.set()
    for job_id in (first, second):
        house.wait_for(job_id, DeliveryStatus.DELIVERED)
    assert [len(old.sent), len(new.sent)] == [1, 1] and outbox.alive


def test_a_paused_destination_gets_nothing_until_it_is_resumed(house: House, store: Store) -> None:
    store.destinations.pause("pacs", "ann")
    job_id = house.finished_job("pacs", "ehr")
    pacs = FakeDestination(script=[DeliveryDeferred("busy")])
    house.outbox(pacs=pacs, ehr=FakeDestination("hl7"))
    house.wait_for(job_id, DeliveryStatus.PENDING, DeliveryStatus.DELIVERED)
    house.outboxes.pop().stop()
    house.outbox(pacs=pacs, ehr=FakeDestination("hl7"))  # a restart
    second = house.finished_job("ehr")
    house.wait_for(second, DeliveryStatus.DELIVERED)
    assert pacs.sent == []
    store.destinations.resume("pacs")
    house.wait_for(job_id, DeliveryStatus.DELIVERED, DeliveryStatus.DELIVERED)
    state = store.destinations.states()["pacs"]
    assert state.error == "busy" and state.failed_at and state.delivered_at and state.failed_at <= state.delivered_at
    for wrong in (lambda: store.destinations.resume("pacs"), lambda: store.destinations.resume("nobody")):
        with pytest.raises(IllegalTransition, match="is not paused"):
            wrong()
