from __future__ import annotations

import logging
import socket
import time

import pytest

from gateway.errors import DeliveryDeferred, DeliveryRefused
from gateway.hl7.messages import build_ack
from gateway.hl7.mllp import FS_CR, VT, MllpListener, frame, send
from gateway.settings import Hl7Destination

MESSAGE = b"MSH|^~\\&|ECGGW|HOSP|EHR|HOSP|20261122101530+0100||ORU^R01^ORU_R01|GW42|P|2.5.1\rPID|1||SECRET^^^H^MR\r"


def answer(code: str, control_id: bytes = b"GW42", tail: bytes = b"") -> bytes:
    return VT + b"MSH|^~\\&|E|H|G|H|20261122||ACK|X1|P|2.3\rMSA|" + code.encode() + b"|" + control_id + tail + FS_CR


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
        (answer("AA")[:-1], "closed"),  # FS without CR
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
        send(MESSAGE, peer.destination)
    assert time.monotonic() - started < 2


def test_late_answer_then_resend(start_peer):
    replies = iter([0.8, 0.0])

    def late(connection: socket.socket, message: bytes) -> None:
        time.sleep(next(replies))
        try:
            connection.sendall(answer("AA"))
        except OSError:
            pass

    peer = start_peer(late)
    with pytest.raises(DeliveryDeferred):
        send(MESSAGE, peer.destination)
    assert send(MESSAGE, peer.destination) == "AA"
    assert peer.received == [MESSAGE, MESSAGE]  # the same bytes: the receiver sees a repeat


def test_endless_dribble_ends_at_the_deadline(start_peer):
    def dribble(connection: socket.socket, message: bytes) -> None:
        try:
            for _ in range(40):
                connection.sendall(VT + b"MSH|")
                time.sleep(0.05)
        except OSError:
            pass

    started = time.monotonic()
    with pytest.raises(DeliveryDeferred, match="no answer"):
        send(MESSAGE, start_peer(dribble).destination)
    assert time.monotonic() - started < 1.5


def test_endless_answer_is_bounded(start_peer):
    def flood(connection: socket.socket, message: bytes) -> None:
        try:
            connection.sendall(VT + bytes(40 * 1024 * 1024))
        except OSError:
            pass

    peer = start_peer(flood)
    destination = peer.destination.model_copy(update={"timeout_s": 30.0})
    with pytest.raises(DeliveryDeferred, match="too long"):
        send(MESSAGE, destination)


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

    def handler(message: bytes) -> bytes:
        if b"GW13" in message:
            raise RuntimeError("planned")
        return build_ack(message, "AA")

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
