"""Web clients that never finish a request stop neither DICOM, nor HL7, nor the page for others."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from pynetdicom.sop_class import Verification

from gateway.dicom.network.transport import Requestor
from gateway.hl7.transport.frames import frame
from tests.acceptance.conftest import Gateway
from tests.waiting import PATIENCE_S, eventually

OPEN_FILES = 512
HALF_OPEN = 700
OTHER = "127.0.0.2"  # the address of those who behave
ANSWER_S = 2.0
HALF_A_REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "
ADT = b"MSH|^~\\&|EHR|HOSP|ECGGW|HOSP|20261122101530||ADT^A08|M%d|P|2.5.1\rEVN|A08\rPID|1||P1^^^HOSP^MR||Muster^Zoe\r"


@pytest.fixture
def gateway(make_gateway: Callable[..., Gateway], monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    """A gateway that may have `OPEN_FILES` open files, and was started with fewer."""
    gateway = make_gateway(destinations=[], hl7={"enabled": True}, worker={"processes": 0}, folders=[])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * HALF_OPEN:
        pytest.skip(f"this test opens {HALF_OPEN} connections, and the system allows {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gateway.start(limits=(OPEN_FILES // 2, OPEN_FILES))
    yield gateway
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def half_open(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Connections of one address with half a request each."""
    opened: list[socket.socket] = []
    try:
        for _ in range(count):
            opened.append(socket.create_connection(("127.0.0.1", port), PATIENCE_S))
            try:
                opened[-1].sendall(HALF_A_REQUEST)
            except OSError:
                continue  # closed already: it is one too many
        yield opened
    finally:
        for connection in opened:
            connection.close()


def is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def echo(gateway: Gateway) -> None:
    ae = Requestor(ae_title="CART")
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ANSWER_S
    ae.add_requested_context(Verification)
    association = ae.associate("127.0.0.1", gateway.port, ae_title="ECGGW", bind_address=(OTHER, 0))
    assert association.is_established
    assert association.send_c_echo().Status == 0x0000
    association.release()


def hl7(gateway: Gateway, number: int) -> None:
    with socket.create_connection(("127.0.0.1", gateway.hl7_port), ANSWER_S, source_address=(OTHER, 0)) as connection:
        connection.sendall(frame(ADT % number))
        assert b"MSA|AA" in connection.recv(4096)


def health(gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.web_port), ANSWER_S, source_address=(OTHER, 0)) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")


def everybody_is_answered(gateway: Gateway, number: int) -> None:
    for ask in (echo, lambda gateway: hl7(gateway, number), health):
        started = time.monotonic()
        ask(gateway)
        assert time.monotonic() - started < ANSWER_S


def test_half_sent_requests_stop_nobody(gateway: Gateway) -> None:
    everybody_is_answered(gateway, 0)
    with half_open(gateway.web_port, HALF_OPEN) as opened:
        for number in range(1, 6):
            everybody_is_answered(gateway, number)
            time.sleep(0.5)
        assert sum(not is_closed(connection) for connection in opened) <= 50  # of one address
        eventually(lambda: all(is_closed(connection) for connection in opened))  # a head takes 10 s at most
        everybody_is_answered(gateway, 6)
    assert f"Open files: at most {OPEN_FILES} (before: {OPEN_FILES // 2})" in gateway.log
    errors = [line for line in gateway.log.splitlines() if " ERROR " in line]
    assert errors == []
    assert len(gateway.log.splitlines()) < 100
