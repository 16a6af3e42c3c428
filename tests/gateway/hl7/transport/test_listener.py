from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from gateway.hl7.inbound.acknowledgement import build_ack, scan_acknowledgement
from gateway.hl7.transport.frames import FS, FS_CR, VT, FrameParser, FrameTooLong, frame
from gateway.hl7.transport.mllp import MllpLimits, MllpListener
from tests.waiting import PATIENCE_S, SOON_S

IDLE_S = 1.0


def message(control_id: str, tail: str = "") -> bytes:
    return f"MSH|^~\\&|A|B|C|D|20261122||ADT^A01^ADT_A01|{control_id}|P|2.5\rEVN||20261122{tail}\r".encode()


def accept(received: bytes) -> tuple[bytes]:
    if b"BOOM" in received:
        raise RuntimeError("planned")
    return (build_ack(received, "AA"),)


@pytest.fixture
def listener() -> Iterator[MllpListener]:
    listener = MllpListener(
        "127.0.0.1", 0, accept, limits=MllpLimits(idle_timeout_s=PATIENCE_S, maximum_frame_bytes=100_000)
    )
    listener.start()
    yield listener
    listener.stop()


@pytest.fixture
def impatient() -> Iterator[MllpListener]:
    listener = MllpListener("127.0.0.1", 0, accept, limits=MllpLimits(idle_timeout_s=IDLE_S))
    listener.start()
    yield listener
    listener.stop()


class Client:
    """Writes bytes as a test likes and reads answers."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self._parser = FrameParser()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def answers(self, count: int) -> list[tuple[str, str]]:
        """Return (MSA-1, MSA-2) of the next `count` answers, fewer if the connection ends."""
        found: list[tuple[str, str]] = []
        while len(found) < count and (data := self.socket.recv(65536)):
            for answer in self._parser.feed(data):
                ack = scan_acknowledgement(answer)
                assert ack is not None
                found.append((ack.code, ack.message_control_id.decode()))
        return found


def test_several_messages_in_one_segment(listener):
    with Client(listener.port) as client:
        client.socket.sendall(b"".join(frame(message(f"M{n}")) for n in range(5)))
        assert client.answers(5) == [("AA", f"M{n}") for n in range(5)]


def test_one_byte_per_segment_with_garbage_between_frames(listener):
    with Client(listener.port) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = b"\x00\x00\r\n" + frame(message("M1")) + b"noise\x1c\r\n" + frame(message("M2"))
        for byte in stream:
            client.socket.sendall(bytes([byte]))
        assert client.answers(2) == [("AA", "M1"), ("AA", "M2")]


def test_unfinished_frame_gives_way_to_the_next(listener):
    with Client(listener.port) as client:
        client.socket.sendall(VT + message("HALF") + frame(message("M2")))
        assert client.answers(1) == [("AA", "M2")]


def test_handler_error_is_answered_ae_and_the_connection_lives_on(listener):
    with Client(listener.port) as client:
        client.socket.sendall(frame(message("M1", "BOOM")) + frame(message("M2")))
        assert client.answers(2) == [("AE", "M1"), ("AA", "M2")]


def test_too_long_is_answered_ar_and_closed(listener):
    with Client(listener.port) as client:
        client.socket.sendall(VT + message("LONG") + bytes(200_000))
        assert client.answers(2) == [("AR", "LONG")]
    with Client(listener.port) as client:
        client.socket.sendall(frame(message("M2")))
        assert client.answers(1) == [("AA", "M2")]


def test_idle_connection_is_closed(impatient):
    started = time.monotonic()
    with Client(impatient.port) as client:
        client.socket.sendall(VT + b"MSH|")
        assert client.socket.recv(1) == b""
        assert IDLE_S * 0.9 < time.monotonic() - started < SOON_S


def test_half_a_message_then_hang_up_is_forgotten(listener):
    with Client(listener.port) as client:
        client.socket.sendall(VT + b"MSH|")
    with Client(listener.port) as client:
        client.socket.sendall(frame(message("M2")))
        assert client.answers(1) == [("AA", "M2")]


def test_connections_beyond_the_limit_are_closed():
    listener = MllpListener("127.0.0.1", 0, accept, limits=MllpLimits(maximum_connections=2))
    listener.start()
    try:
        with Client(listener.port) as first, Client(listener.port) as second:
            for client in (first, second):
                client.socket.sendall(frame(message("M1")))
                assert client.answers(1) == [("AA", "M1")]
            with Client(listener.port) as third:
                assert third.answers(1) == []
    finally:
        listener.stop()


def test_connections_of_one_address_are_limited():
    listener = MllpListener("127.0.0.1", 0, accept, limits=MllpLimits(maximum_connections_per_host=1))
    listener.start()
    try:
        with Client(listener.port) as first:
            first.socket.sendall(frame(message("M1")))
            assert first.answers(1) == [("AA", "M1")]
            with Client(listener.port) as second:
                assert second.answers(1) == []
            with socket.create_connection(("127.0.0.1", listener.port), PATIENCE_S, ("127.0.0.2", 0)) as other:
                other.sendall(frame(message("M2")))
                assert b"MSA|AA|M2" in other.recv(1000)
    finally:
        listener.stop()


def test_only_hosts_that_are_listed_may_connect():
    listener = MllpListener("127.0.0.1", 0, accept, limits=MllpLimits(hosts=("127.0.0.2/32",)))
    listener.start()
    try:
        with Client(listener.port) as stranger:
            assert stranger.answers(1) == []
        with socket.create_connection(("127.0.0.1", listener.port), PATIENCE_S, ("127.0.0.2", 0)) as known:
            known.sendall(frame(message("M2")))
            assert b"MSA|AA|M2" in known.recv(1000)
    finally:
        listener.stop()


def test_message_that_never_ends_is_closed_though_bytes_keep_coming(impatient):
    started = time.monotonic()
    with Client(impatient.port) as client:
        client.socket.sendall(VT)
        with pytest.raises(OSError):
            while time.monotonic() - started < SOON_S:
                client.socket.sendall(b"x")
                time.sleep(0.1)
        assert IDLE_S * 0.9 < time.monotonic() - started < SOON_S


def test_frame_without_its_final_cr(listener):
    with Client(listener.port) as client:
        client.socket.sendall(VT + message("M1") + FS)
        assert client.answers(1) == [("AA", "M1")]
        client.socket.sendall(b"\r" + frame(message("M2")))
        assert client.answers(1) == [("AA", "M2")]


def test_stop_lets_a_message_in_hand_be_answered():
    entered, leave = threading.Event(), threading.Event()

    def slow(received: bytes) -> tuple[bytes]:
        entered.set()
        leave.wait(PATIENCE_S)
        return (build_ack(received, "AA"),)

    listener = MllpListener("127.0.0.1", 0, slow)
    listener.start()
    port = listener.port
    with Client(port) as client:
        client.socket.sendall(frame(message("M1")))
        assert entered.wait(PATIENCE_S)
        threading.Timer(0.2, leave.set).start()
        listener.stop(timeout_s=PATIENCE_S)
        assert client.answers(1) == [("AA", "M1")]
    with pytest.raises(ConnectionRefusedError):
        Client(port)


def test_seeded_mutations_leave_the_listener_alive(listener):
    rng = random.Random(7)
    for _ in range(150):
        data = bytearray(frame(message("FUZZ", "x" * rng.randrange(50))))
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data))] = rng.choice([0x0B, 0x1C, 0x0D, 0x7C, 0, 255, rng.randrange(256)])
        with Client(listener.port) as client:
            client.socket.sendall(bytes(data))
            client.socket.shutdown(socket.SHUT_WR)
            while client.socket.recv(65536):
                pass
    with Client(listener.port) as client:
        client.socket.sendall(frame(message("M2")))
        assert client.answers(1) == [("AA", "M2")]


def test_parser_finds_the_same_frames_however_the_stream_is_cut():
    rng = random.Random(3)
    stream = b"".join(rng.choice([b"", b"\r\n", b"\x00x", VT, FS_CR]) + frame(message(f"M{n}")) for n in range(20))
    whole = FrameParser().feed(stream)
    assert whole == [message(f"M{n}") for n in range(20)]
    for _ in range(30):
        parser, found, at = FrameParser(), [], 0
        while at < len(stream):
            step = rng.randrange(1, 40)
            found += parser.feed(stream[at : at + step])
            at += step
        assert found == whole


def test_parser_bounds_its_memory():
    parser = FrameParser(maximum_frame_bytes=1000)
    for _ in range(100):
        assert parser.feed(b"x" * 900) == []  # garbage is not kept
    with pytest.raises(FrameTooLong) as caught:
        parser.feed(VT + message("M1") + b"x" * 1000)
    assert caught.value.head.startswith(b"MSH|")


def test_changed_limits_and_handler_hold_from_now_on_and_open_connections_go_on(listener):
    with Client(listener.port) as client:
        client.socket.sendall(frame(message("M1")))
        assert client.answers(1) == [("AA", "M1")]
        listener.take_up(lambda received: (build_ack(received, "AE"),), MllpLimits(hosts=("192.0.2.1",)))
        client.socket.sendall(frame(message("M2")))
        assert client.answers(1) == [("AE", "M2")]
        with Client(listener.port) as stranger:
            assert stranger.answers(1) == []


def test_large_messages_take_turns_and_small_ones_do_not_wait():
    large = frame(message("LARGE", "|" + "x" * 1_000_000))
    listener = MllpListener("127.0.0.1", 0, accept, limits=MllpLimits(idle_timeout_s=PATIENCE_S))
    listener.start()
    try:
        with Client(listener.port) as slow, Client(listener.port) as next_one, Client(listener.port) as small:
            slow.socket.sendall(large[:-2])
            time.sleep(0.2)  # it has its turn
            sender = threading.Thread(target=next_one.socket.sendall, args=(large,))
            sender.start()
            small.socket.sendall(frame(message("SMALL")))
            assert small.answers(1) == [("AA", "SMALL")]
            next_one.socket.settimeout(0.5)
            with pytest.raises(TimeoutError):
                next_one.answers(1)
            slow.socket.sendall(large[-2:])
            assert slow.answers(1) == [("AA", "LARGE")]
            next_one.socket.settimeout(SOON_S)
            assert next_one.answers(1) == [("AA", "LARGE")]
            sender.join()
    finally:
        listener.stop()


def test_a_large_message_that_is_broken_off_gives_its_turn_back():
    large = frame(message("LARGE", "|" + "x" * 1_000_000))
    listener = MllpListener("127.0.0.1", 0, accept, limits=MllpLimits(idle_timeout_s=PATIENCE_S))
    listener.start()
    try:
        with Client(listener.port) as broken:
            broken.socket.sendall(large[:-2])
        with Client(listener.port) as client:
            client.socket.sendall(large)
            client.socket.settimeout(SOON_S)
            assert client.answers(1) == [("AA", "LARGE")]
    finally:
        listener.stop()
