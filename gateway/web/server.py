"""The web server: uvicorn in a thread of its own, with bounds on what a client may hold.

uvicorn accepts any number of connections, and waits for ever for the rest of a request.  Here

* a connection over the limits (in all, and from one address) is closed as it is accepted;
* the head of a request must arrive within `_HEAD_S`, its body within `_BODY_S` after that, a large one at `_BODY_RATE`
  or faster, and its answer must be taken within `_ANSWER_S`; otherwise the connection is closed;
* if the process has no file descriptor left, one line says so, and the next connection is accepted a second later.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
import threading
import time
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from gateway.security.connections import ConnectionLimit
from gateway.security.tls import ListenerTls

logger = logging.getLogger(__name__)

_HEAD_S = 10.0
_BODY_S = 30.0
_BODY_RATE = 32 * 1024  # bytes/s
_ANSWER_S = 120.0  # the largest file behind a page, by a slow line
_KEEP_ALIVE_S = 5
_BACKLOG = 128  # connections that the system keeps for us until they are accepted
_REST_S = 1.0  # asyncio looks again after this time where a connection could not be accepted


class WebServer:
    """Serves an application; it listens from `start` on, so that a taken port is noticed at once."""

    def __init__(
        self, app: FastAPI, host: str, port: int, limit: ConnectionLimit, tls: ListenerTls | None = None
    ) -> None:
        self._address = (host, port)
        self._limit = limit
        config = _Config(
            tls,
            app,
            http=_BoundedProtocol,
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # whoever is no proxy of ours could name any address
            lifespan="off",
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=3,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)
        self._socket: socket.socket | None = None

    @property
    def alive(self) -> bool:
        """Whether pages are served."""
        return self._thread.is_alive()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        assert self._socket is not None
        return int(self._socket.getsockname()[1])

    def start(self) -> None:
        """Listen; raises OSError where the address cannot be had."""
        listening = socket.create_server(self._address, backlog=_BACKLOG)
        self._socket = _Listener(self._limit, listening.detach())
        logger.info("Web page on port %d", self.port, extra={"action": "start"})
        self._thread.start()

    def stop(self) -> None:
        """Stop; requests that are being answered get their answer if it takes no longer than 3 s."""
        self._server.should_exit = True
        self._thread.join()
        if self._socket:
            self._socket.close()

    def _run(self) -> None:
        assert self._socket is not None
        self._server.run(sockets=[self._socket])


class _Config(uvicorn.Config):
    """Of a server whose certificates may be replaced while it runs."""

    def __init__(self, tls: ListenerTls | None, app: FastAPI, **options: Any) -> None:
        super().__init__(app, **options)
        self._tls = tls

    def load(self) -> None:
        """Load the application, and have every handshake take the certificates of that moment."""
        super().load()
        if self._tls is not None:
            self.ssl = self._tls.context()
            self.ssl.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        assert self._tls is not None
        connection.context = self._tls.context()


class _Listener(socket.socket):
    """Accepts connections within a limit."""

    def __init__(self, limit: ConnectionLimit, descriptor: int) -> None:
        super().__init__(fileno=descriptor)
        self._limit = limit
        self._rests_until = 0.0

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection.

        Raises
        ------
        OSError
            There is none, or there was one too many: asyncio comes again when the next one is there.
        """
        if time.monotonic() < self._rests_until:  # asyncio asks on in a loop
            raise BlockingIOError
        try:
            connection, address = super().accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._rests_until = time.monotonic() + _REST_S / 2
            raise
        if not self._limit.admit(address[0]):
            connection.close()
            raise ConnectionAbortedError
        return _Connection(self._limit, address[0], connection.detach()), address


class _Connection(socket.socket):
    """A connection that counts until it is closed."""

    def __init__(self, limit: ConnectionLimit, host: str, descriptor: int) -> None:
        super().__init__(fileno=descriptor)
        self._limit = limit
        self._host = host

    def close(self) -> None:
        """Close it, and let another one come in its place."""
        is_open = self.fileno() != -1
        super().close()
        if is_open:
            self._limit.leave(self._host)


class _BoundedProtocol(H11Protocol):
    """HTTP/1.1 whose requests must arrive, and whose answers must be taken, in time."""

    _waits_for: tuple[object, str] | None = None
    _deadline: asyncio.TimerHandle | None = None
    _since = 0.0  # when the waiting for the present thing began
    _arrived = 0  # bytes since then

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._arrived += len(data)
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request; where an answer was given or has begun, end the connection."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.abort()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Set the deadline of what comes next, unless it is the same that was waited for before."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            what, seconds = "the head of a request", _HEAD_S
        elif cycle.more_body:
            what, seconds = "the body of a request", _BODY_S
        else:
            what, seconds = "taking an answer", _ANSWER_S
        if self._waits_for == (cycle, what) or self.transport.is_closing():
            return
        if self._deadline is not None:
            self._deadline.cancel()
        self._waits_for = cycle, what
        self._since, self._arrived = self.loop.time(), 0
        self._deadline = self.loop.call_later(seconds, self._give_up, what, seconds)

    def _give_up(self, what: str, seconds: float) -> None:
        left_s = seconds + self._arrived / _BODY_RATE - (self.loop.time() - self._since)
        if what == "the body of a request" and left_s > 0:
            self._deadline = self.loop.call_later(left_s, self._give_up, what, seconds)
            return
        host = self.client[0] if self.client else "?"
        logger.info("Closed a web connection of %s: %s took over %g s", host, what, seconds, extra={"action": "web"})
        self.transport.abort()
