"""Large objects on their way in: they are in a file, and what becomes of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from gateway.dicom.network.scp import StorageScp
from gateway.dicom.network.transport import SPILL_BYTES
from gateway.domain.received import Accepted, ReceivedObject
from gateway.errors import StorageError
from tests.gateway.dicom.samples import secondary_capture
from tests.gateway.dicom.scp_peers import (
    FakeIntake,
    FakeRoom,
    associate,
    encoded,
    listen,
    paused,
    send_bytes,
    store_pdus,
)
from tests.waiting import SOON_S, eventually

SMALL = encoded(secondary_capture())
LARGE = SMALL + bytes(3 * SPILL_BYTES)

Listen = Callable[..., StorageScp]


@pytest.fixture
def room() -> FakeRoom:
    return FakeRoom()


@pytest.fixture
def listening(room: FakeRoom, caplog: pytest.LogCaptureFixture) -> Iterator[Listen]:
    started: list[StorageScp] = []

    def start(intake: FakeIntake, **settings: object) -> StorageScp:
        started.append(listen(intake, room, **settings))
        return started[-1]

    caplog.set_level(logging.CRITICAL, logger="pynetdicom")  # it logs every broken connection with a traceback
    yield start
    for scp in started:
        scp.stop(grace_s=0.0)


def all_closed(room: FakeRoom) -> bool:
    return all(file.closed for file in room.files)


def test_only_a_large_object_goes_to_a_file_and_both_are_kept_as_sent(listening: Listen, room: FakeRoom) -> None:
    intake = FakeIntake()
    association = associate(listening(intake))
    assert send_bytes(association, SMALL).Status == 0x0000
    assert room.files == []
    assert send_bytes(association, LARGE).Status == 0x0000
    association.release()
    small, large = (taken["data"] for taken in intake.taken)
    assert isinstance(small, bytes) and isinstance(large, bytes)
    assert large == small + LARGE[len(SMALL) :]
    assert len(room.files) == 1 and all_closed(room)


def test_a_full_disk_is_told_the_sender_and_the_next_object_is_taken(listening: Listen, room: FakeRoom) -> None:
    intake = FakeIntake()
    association = associate(listening(intake))
    room.device = "/dev/full"
    assert send_bytes(association, LARGE).Status == 0xA700
    assert send_bytes(association, SMALL).Status == 0x0000
    room.device = ""
    assert send_bytes(association, LARGE).Status == 0x0000
    association.release()
    assert len(intake.taken) == 2 and all_closed(room)


def test_the_space_that_is_to_stay_free_stays_free(listening: Listen, room: FakeRoom) -> None:
    association = associate(listening(FakeIntake()))
    room.error = StorageError("too little space")
    assert send_bytes(association, LARGE).Status == 0xA700
    room.error = None
    assert send_bytes(association, LARGE).Status == 0x0000
    association.release()
    assert all_closed(room)


def test_an_object_over_the_limit_takes_no_space(listening: Listen, room: FakeRoom) -> None:
    association = paused(associate(listening(FakeIntake(), maximum_object_mib=2)))
    *pdus, last = store_pdus(association, "2.25.1", [LARGE[at : at + 65536] for at in range(0, len(LARGE), 65536)])
    for pdu in pdus:
        association.dul.socket.socket.sendall(pdu)
    eventually(lambda: room.files and all_closed(room), SOON_S)  # while the rest of it arrives
    association.dul.socket.socket.sendall(last)
    _, answer = association.dimse.get_msg(block=True)
    assert answer is not None and answer.Status == 0xC001


def test_an_object_that_is_broken_off_takes_no_space(listening: Listen, room: FakeRoom) -> None:
    association = associate(listening(FakeIntake()))
    *pdus, _ = store_pdus(association, "2.25.1", [LARGE[at : at + 65536] for at in range(0, len(LARGE), 65536)])
    for pdu in pdus:
        association.dul.socket.socket.sendall(pdu)
    eventually(lambda: room.files, SOON_S)
    assert not all_closed(room)
    association.abort()
    eventually(lambda: all_closed(room), SOON_S)


class SlowIntake(FakeIntake):
    """Keeps nothing before `gate` is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def accept(self, received: ReceivedObject) -> Accepted:
        assert self.gate.wait(SOON_S)
        return super().accept(received)


def test_a_peer_that_does_not_wait_for_answers_has_two_objects_here(listening: Listen, room: FakeRoom) -> None:
    intake = SlowIntake()
    association = paused(associate(listening(intake)))
    connection = association.dul.socket.socket

    def send() -> None:
        for number in range(1, 9):
            uid = f"2.25.{number}"
            data = encoded(secondary_capture(SOPInstanceUID=uid)) + bytes(2 * SPILL_BYTES)
            pieces = [data[at : at + 65536] for at in range(0, len(data), 65536)]
            for pdu in store_pdus(association, uid, pieces, number):
                connection.sendall(pdu)

    sender = threading.Thread(target=send)
    sender.start()
    eventually(lambda: len(room.files) == 2, SOON_S)
    sender.join(0.5)
    assert len(room.files) == 2 and sender.is_alive()
    intake.gate.set()
    answers = [association.dimse.get_msg(block=True)[1] for _ in range(8)]
    sender.join()
    assert [answer and answer.Status for answer in answers] == [0x0000] * 8
    assert [taken["source_key"] for taken in intake.taken] == [f"2.25.{number}" for number in range(1, 9)]
