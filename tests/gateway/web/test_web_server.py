"""What a client may hold of the web server: connections, and the time of a request."""

from __future__ import annotations

import errno
import http.client
import logging
import os
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI, Request, Response

from gateway.security.connections import ConnectionLimit
from gateway.security.tls import ListenerTls
from gateway.settings import TlsListenerSettings
from gateway.web import server
from gateway.web.server import WebServer
from tests.tls_samples import Authority
from tests.waiting import PATIENCE_S, SOON_S, eventually

QUICK_S = 0.5
BIG = 64 << 20


def application() -> FastAPI:
    app = FastAPI()

    @app.get("/hello")
    def hello() -> str:
        return "hello"

    @app.get("/big")
    def big() -> Response:
        return Response(bytes(BIG))

    @app.post("/length")
    async def length(request: Request) -> int:
        return len(await request.body())

    return app


@pytest.fixture
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    """A server for six connections, four of one address."""
    web = WebServer(application(), "127.0.0.1", 0, ConnectionLimit("web", 6, 4))
    web.start()
    assert web._socket is not None
    yield int(web._socket.getsockname()[1])
    web.stop()


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch, port: int) -> int:
    """The server, with little time."""
    for name in ("_HEAD_S", "_BODY_S", "_ANSWER_S"):
        monkeypatch.setattr(server, name, QUICK_S)
    return port


def connect(port: int, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), SOON_S, source_address=(source, 0))


def hello(port: int, source: str = "127.0.0.1") -> int:
    with connect(port, source) as connection:
        try:
            connection.sendall(b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = connection.recv(4096)
        except ConnectionError:
            return 0
    return int(answer.split()[1]) if answer else 0


def is_closed(connection: socket.socket) -> bool:
    """Whether the server closes a connection without an answer."""
    try:
        return connection.recv(4096) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /hello HTTP/1.1\r\nHost: x\r\nX: ",
        b"POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc",
        b"POST /length HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ],
)
def test_a_request_that_does_not_arrive_is_cut_off(strict: int, sent: bytes) -> None:
    with connect(strict) as connection:
        connection.sendall(sent)
        assert is_closed(connection)
    assert hello(strict) == 200


def test_a_broken_body_behind_its_answer_ends_the_connection_and_no_more(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(port) as connection:
        connection.sendall(b"POST /hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 405")
        connection.sendall(b"no chunk\r\n")
        eventually(lambda: is_closed(connection), SOON_S)
    assert hello(port) == 200
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_head_that_trickles_in_is_cut_off(strict: int) -> None:
    started = time.monotonic()
    with connect(strict) as connection, pytest.raises(OSError):
        connection.sendall(b"GET /hello HTTP/1.1\r\nX: ")
        while time.monotonic() - started < SOON_S:
            connection.sendall(b"x")
            time.sleep(QUICK_S / 5)


def test_the_next_request_of_a_connection_has_its_own_time(strict: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", strict, timeout=SOON_S)
    for _ in range(3):
        connection.request("POST", "/length", b"abc")
        assert connection.getresponse().read() == b"3"
        time.sleep(QUICK_S / 2)
    connection.sock.sendall(b"GET /hello")
    assert is_closed(connection.sock)
    connection.close()


def test_an_answer_that_is_not_taken_is_cut_off(strict: int) -> None:
    with connect(strict) as connection:
        connection.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(4 * QUICK_S)
        taken = 0
        try:
            while data := connection.recv(1 << 20):
                taken += len(data)
        except ConnectionResetError:
            pass
        assert taken < BIG


def test_connections_of_one_address_leave_room_for_others(port: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    opened = [connect(port) for _ in range(4)]
    over = [connect(port) for _ in range(30)]
    assert all(is_closed(connection) for connection in over)
    assert hello(port, "127.0.0.2") == 200
    assert caplog.messages == ["Closing web connections: 4 are open, 4 of them from 127.0.0.1"]
    opened += [connect(port, "127.0.0.2") for _ in range(2)]
    with connect(port, "127.0.0.3") as last:
        assert is_closed(last)  # six are open
    for connection in [*opened, *over]:
        connection.close()
    eventually(lambda: hello(port) == 200, PATIENCE_S)


def test_without_a_descriptor_the_next_is_accepted_a_moment_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def accept(_: socket.socket) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    listening = server._Listener(ConnectionLimit("web", 1, 1), socket.create_server(("127.0.0.1", 0)).detach())
    monkeypatch.setattr(socket.socket, "accept", accept)
    with listening:
        with pytest.raises(OSError, match="open files"):
            listening.accept()
        for _ in range(1000):  # asyncio asks as often as its backlog is long
            with pytest.raises(BlockingIOError):
                listening.accept()


def test_pages_by_tls_and_new_certificates_without_a_restart(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    before = authority.issue("first", "localhost", file="server")
    tls = ListenerTls(TlsListenerSettings(**vars(before)))
    pages = WebServer(application(), "127.0.0.1", 0, ConnectionLimit("web", 10, 10), tls)
    pages.start()
    try:

        def name() -> str:
            context = ssl.create_default_context(cafile=str(authority.ca_file))
            with socket.create_connection(("127.0.0.1", pages.port), PATIENCE_S) as plain:
                with context.wrap_socket(plain, server_hostname="localhost") as connection:
                    connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    assert connection.recv(100).startswith(b"HTTP/1.1 404")
                    (subject,) = [pair for group in connection.getpeercert()["subject"] for pair in group]
                    return subject[1]

        assert name() == "first"
        authority.issue("second", "localhost", file="server")
        assert name() == "second"
    finally:
        pages.stop()
