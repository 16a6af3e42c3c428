from __future__ import annotations

import itertools
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from gateway.errors import DeliveryDeferred, DeliveryError, DeliveryRefused
from gateway.hl7.inbound.acknowledgement import build_ack
from gateway.hl7.transport.client import MllpClient
from gateway.hl7.transport.frames import FS_CR, VT, FrameParser, frame
from gateway.hl7.transport.mllp import MllpListener
from gateway.settings import Hl7Destination
from tests.waiting import PATIENCE_S, SOON_S

MESSAGE = b"MSH|^~\\&|ECGGW|HOSP|EHR|HOSP|20261122101530+0100||ORU^R01^ORU_R01|GW42|P|2.5.1\rPID|1||SECRET^^^H^MR\r"


def answer(code: str, control_id: bytes = b"GW42", tail: bytes = b"") -> bytes:
    return VT + b"MSH|^~\\&|E|H|G|H|20261122||ACK|X1|P|2.3\rMSA|" + code.encode() + b"|" + control_id + tail + FS_CR


def send(message: bytes, destination: Hl7Destination) -> str:
    """Send over a connection of its own."""
    with closing(MllpClient(destination)) as client:
        return client.send(message)


def other(number: int) -> tuple[bytes, bytes]:
    """Another message and its MSH-10."""
    control_id = f"GW{number}".encode()
    return MESSAGE.replace(b"GW42", control_id), control_id


@pytest.mark.parametrize("code", ["AA", "CA"])
def test_accepted(start_peer, code):
    peer = start_peer(lambda connection, message: connection.sendall(answer(code)))
    assert send(MESSAGE, peer.destination) == code
    assert peer.received == [MESSAGE]


@pytest.mark.parametrize("code", ["AR", "CR"])
def test_refused(start_peer, code):
    peer = start_peer(lambda connection, message: connection.sendall(answer(code, tail=b"|Mr SECRET is unknown")))
    with pytest.raises(DeliveryRefused, match=f"answered {code}$") as caught:
        send(MESSAGE, peer.destination)
    assert "SECRET" not in str(caught.value)
    assert caught.value.response == code


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (answer("AE"), "answered AE$"),
        (answer("CE"), "answered CE$"),
        (answer("AE", tail=b"\rERR|||206^Application record locked^HL70357|E"), "answered AE .error 206"),
        (answer("AE", tail=b"\rERR|^^^207&Application internal error&HL70357"), "answered AE .error 207"),
        (answer("ZZ"), "unknown code"),
        (answer("AA", b"GW41"), "MSA-2"),
        (answer("AA", b"GW4"), "MSA-2"),
        (answer("AA", b""), "MSA-2"),
        (answer("AR", b"GW41"), "MSA-2"),  # somebody else's refusal is not ours
        (answer("AA")[:-9], "closed"),  # half an answer
        (answer("AA")[1:], "closed"),  # no VT
        (b"", "closed"),
        (VT + b"hello" + FS_CR, "no acknowledgement"),
        (VT + MESSAGE + FS_CR, "no acknowledgement"),
        (VT + FS_CR, "no acknowledgement"),
    ],
)
def test_deferred(start_peer, reply, words):
    peer = start_peer(lambda connection, message: connection.sendall(reply))
    with pytest.raises(DeliveryDeferred, match=words):
        send(MESSAGE, peer.destination)


def test_answer_dribbles_in_among_garbage(start_peer):
    def dribble(connection: socket.socket, message: bytes) -> None:
        for byte in b"\x00\r\nhello" + answer("XX")[:20] + answer("AA"):
            connection.sendall(bytes([byte]))

    assert send(MESSAGE, start_peer(dribble).destination) == "AA"


def test_final_cr_of_the_frame_is_missing(start_peer):
    assert send(MESSAGE, start_peer(lambda connection, message: connection.sendall(answer("AA")[:-1])).destination)


def test_answer_in_a_batch(start_peer):
    def reply(connection: socket.socket, message: bytes) -> None:
        inner = answer("AA")[1:-2]
        connection.sendall(frame(b"FHS|^~\\&\rBHS|^~\\&\r" + inner + b"\rBTS|1\rFTS|1\r"))

    batch = b"FHS|^~\\&|A\rBHS|^~\\&|A\r" + MESSAGE + b"BTS|1\rFTS|1\r"
    assert send(batch, start_peer(reply).destination) == "AA"


# -- one connection for many messages ------------------------------------------------------------------------------


@contextmanager
def keeping_peer(
    reply: Callable[[socket.socket, int, bytes], bool], timeout_s: float = PATIENCE_S
) -> Iterator[tuple[MllpClient, list[int]]]:
    """A receiver that keeps its connections until `reply(connection, number of the message, MSH-10)` is False.

    Yields a client that waits `timeout_s` for an answer, and for each message received the number of the connection it
    came by.
    """
    came_by: list[int] = []

    def serve(connection: socket.socket, number: int) -> None:
        parser = FrameParser()
        with connection:
            connection.settimeout(PATIENCE_S)
            while data := connection.recv(65536):
                for message in parser.feed(data):
                    came_by.append(number)
                    if not reply(connection, len(came_by), message.split(b"|")[9]):
                        return

    def accept() -> None:
        for number in itertools.count(1):
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection, number), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=accept)
        thread.start()
        port = listening.getsockname()[1]
        destination = Hl7Destination(name="ehr", host="127.0.0.1", port=port, timeout_s=timeout_s)
        try:
            with closing(MllpClient(destination)) as client:
                yield client, came_by
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE_S)


def say(connection: socket.socket, *answers: bytes) -> bool:
    connection.sendall(b"".join(answers))
    return True


def test_one_connection_carries_many_messages():
    with keeping_peer(lambda connection, n, control_id: say(connection, answer("AA", control_id))) as (client, came_by):
        for number in range(5):
            assert client.send(other(number)[0]) == "AA"
    assert came_by == [1] * 5


@pytest.mark.parametrize("code", ["AE", "AR"])
def test_a_no_keeps_the_connection(code):
    codes = [code, "AA"]
    with keeping_peer(lambda c, n, control_id: say(c, answer(codes[n - 1], control_id))) as (client, came_by):
        with pytest.raises(DeliveryError, match=f"answered {code}"):
            client.send(other(1)[0])
        assert client.send(other(2)[0]) == "AA"
    assert came_by == [1, 1]


def test_peer_hung_up_between_messages():
    def once(connection: socket.socket, n: int, control_id: bytes) -> bool:
        say(connection, answer("AA", control_id))
        return False

    with keeping_peer(once) as (client, came_by):
        for number in range(3):
            assert client.send(other(number)[0]) == "AA"
            time.sleep(0.05)
    assert came_by == [1, 2, 3]


def test_peer_hung_up_as_the_next_message_came():
    """Whether it was taken is unknown: it is sent again at once, and the receiver knows the repeat by MSH-10."""
    with keeping_peer(lambda c, n, control_id: n != 2 and say(c, answer("AA", control_id))) as (client, came_by):
        assert client.send(other(1)[0]) == "AA"
        assert client.send(other(2)[0]) == "AA"
    assert came_by == [1, 1, 2]


def test_answers_that_come_twice_are_known():
    with keeping_peer(lambda c, n, control_id: say(c, *[answer("AA", control_id)] * 2)) as (client, came_by):
        for number in range(4):
            assert client.send(other(number)[0]) == "AA"
    assert came_by == [1] * 4


def test_late_answer_meets_a_closed_connection():
    given_up = threading.Event()

    def late_once(connection: socket.socket, n: int, control_id: bytes) -> bool:
        if n == 1:
            given_up.wait(PATIENCE_S)
        try:
            return say(connection, answer("AA", control_id))
        except OSError:
            return False

    with keeping_peer(late_once, timeout_s=3.0) as (client, came_by):
        with pytest.raises(DeliveryDeferred, match="no answer"):
            client.send(other(1)[0])
        given_up.set()
        assert client.send(other(2)[0]) == "AA"
    assert came_by == [1, 2]


def test_wrong_msa_2_closes_the_connection():
    def wrong_once(connection: socket.socket, n: int, control_id: bytes) -> bool:
        return say(connection, answer("AA", b"GW999" if n == 2 else control_id))

    with keeping_peer(wrong_once) as (client, came_by):
        assert client.send(other(1)[0]) == "AA"
        with pytest.raises(DeliveryDeferred, match="MSA-2"):
            client.send(other(2)[0])
        assert client.send(other(2)[0]) == "AA"
    assert came_by == [1, 1, 2]


def test_lf_segment_ends(start_peer):
    peer = start_peer(lambda connection, message: connection.sendall(answer("AA").replace(b"\rMSA", b"\nMSA")))
    assert send(MESSAGE, peer.destination) == "AA"


def test_answer_that_comes_twice_does_not_reach_the_next_message(start_peer):
    peer = start_peer(lambda connection, message: connection.sendall(answer("AA") * 2))
    assert send(MESSAGE, peer.destination) == "AA"
    with pytest.raises(DeliveryDeferred, match="MSA-2"):
        send(MESSAGE.replace(b"GW42", b"GW43"), peer.destination)


def test_silence(start_peer):
    def wait_for_hang_up(connection: socket.socket, message: bytes) -> None:
        assert connection.recv(1) == b""  # the sender closes

    peer = start_peer(wait_for_hang_up)
    started = time.monotonic()
    with pytest.raises(DeliveryDeferred, match=r"no answer within 0\.5 s"):
        send(MESSAGE, peer.impatient)
    assert time.monotonic() - started < SOON_S


def test_late_answer_then_resend(start_peer):
    given_up = threading.Event()

    def late(connection: socket.socket, message: bytes) -> None:
        given_up.wait(PATIENCE_S)
        try:
            connection.sendall(answer("AA"))
        except OSError:
            pass

    peer = start_peer(late)
    with pytest.raises(DeliveryDeferred):
        send(MESSAGE, peer.impatient)
    given_up.set()
    assert send(MESSAGE, peer.destination) == "AA"
    assert peer.received == [MESSAGE, MESSAGE]  # the same bytes: the receiver sees a repeat


def test_endless_dribble_ends_at_the_deadline(start_peer):
    def dribble(connection: socket.socket, message: bytes) -> None:
        try:
            while True:  # until the sender hangs up
                connection.sendall(VT + b"MSH|")
                time.sleep(0.05)
        except OSError:
            pass

    started = time.monotonic()
    with pytest.raises(DeliveryDeferred, match="no answer"):
        send(MESSAGE, start_peer(dribble).impatient)
    assert time.monotonic() - started < SOON_S


def test_endless_answer_is_bounded(start_peer):
    def flood(connection: socket.socket, message: bytes) -> None:
        try:
            connection.sendall(VT + bytes(40 * 1024 * 1024))
        except OSError:
            pass

    peer = start_peer(flood)
    with pytest.raises(DeliveryDeferred, match="too long"):
        send(MESSAGE, peer.destination)


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(DeliveryDeferred, match="refused"):
        send(MESSAGE, Hl7Destination(name="ehr", host="127.0.0.1", port=port))


def test_host_without_an_address():
    with pytest.raises(DeliveryDeferred):
        send(MESSAGE, Hl7Destination(name="ehr", host="no-such-host.invalid", port=2575))


@pytest.mark.parametrize("data", [b"", b"PID|1\r", b"MSH|^~\\&|A|B\r", MESSAGE + b"NTE|\x0b", MESSAGE + b"NTE|\x1c"])
def test_what_is_no_message_is_not_sent(start_peer, data):
    peer = start_peer(lambda connection, message: None)
    with pytest.raises(DeliveryRefused):
        send(data, peer.destination)
    assert peer.received == []


def test_logs_hold_no_bodies(start_peer, caplog):
    caplog.set_level(logging.DEBUG)

    def handler(message: bytes) -> tuple[bytes]:
        if b"GW13" in message:
            raise RuntimeError("planned")
        return (build_ack(message, "AA"),)

    listener = MllpListener("127.0.0.1", 0, handler)
    listener.start()
    try:
        destination = Hl7Destination(name="ehr", host="127.0.0.1", port=listener.port)
        send(MESSAGE, destination)
        with pytest.raises(DeliveryDeferred):
            send(MESSAGE.replace(b"GW42", b"GW13"), destination)
        with socket.create_connection(("127.0.0.1", listener.port)) as connection:
            connection.sendall(b"SECRET outside" + frame(MESSAGE))
            connection.recv(1000)
    finally:
        listener.stop()
    assert "outside of frames" in caplog.text
    assert "handler failed" in caplog.text
    assert "SECRET" not in caplog.text
