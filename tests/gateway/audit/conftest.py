"""A repository's end: what arrives by UDP, TLS or in a file."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from pathlib import Path

from tests.waiting import PATIENCE_S

_HEADER = re.compile(rb"<(\d+)>1 (\S+Z) (\S+) (\S+) (\d+) DICOM\+RFC3881 - \xef\xbb\xbf(<\?xml.*)", re.S)


def parsed(message: bytes) -> tuple[int, bytes]:
    """The priority and the XML of a syslog message."""
    found = _HEADER.fullmatch(message)
    assert found is not None, message[:200]
    return int(found[1]), found[6]


def frames(data: bytes) -> list[bytes]:
    """The messages of an RFC 5425 stream."""
    found = []
    while data:
        length, _, rest = data.partition(b" ")
        found.append(rest[: int(length)])
        assert len(found[-1]) == int(length)
        data = rest[int(length) :]
    return found


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines() if path.exists() else []


class Repository:
    """A TLS server that takes what is sent until the connection ends, connection after connection."""

    def __init__(self, context: ssl.SSLContext, port: int = 0) -> None:
        self._listening = socket.create_server(("127.0.0.1", port))
        self._context = context
        self.port = self._listening.getsockname()[1]
        self.received = b""
        self._open: list[ssl.SSLSocket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listening.accept()
                connection = self._context.wrap_socket(plain, server_side=True)
            except OSError:
                if self._listening.fileno() == -1:
                    return
                continue
            self._open.append(connection)
            try:
                while data := connection.recv(65536):
                    self.received += data
            except OSError:
                pass

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for connection in self._open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            connection.close()
        self._thread.join(PATIENCE_S)
