from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from gateway.hl7.transport.frames import FrameParser
from gateway.settings import Hl7Destination
from tests.databases import store  # noqa: F401 - these tests run on each database
from tests.waiting import PATIENCE_S

Script = Callable[[socket.socket, bytes], None]


@dataclass
class Peer:
    """A receiver that does with each message what its script says, then hangs up."""

    script: Script
    received: list[bytes] = field(default_factory=list)
    destination: Hl7Destination = field(init=False)
    impatient: Hl7Destination = field(init=False)

    def __post_init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.destination = Hl7Destination(
            name="ehr", host="127.0.0.1", port=self._socket.getsockname()[1], timeout_s=PATIENCE_S
        )
        self.impatient = self.destination.model_copy(update={"timeout_s": 0.5})
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(PATIENCE_S)
                parser = FrameParser()
                while data := connection.recv(65536):
                    if messages := parser.feed(data):
                        self.received += messages
                        self.script(connection, messages[0])
                        break

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE_S)
        self._socket.close()


@pytest.fixture
def start_peer() -> Iterator[Callable[[Script], Peer]]:
    peers: list[Peer] = []

    def start(script: Script) -> Peer:
        peers.append(Peer(script))
        return peers[-1]

    yield start
    for peer in peers:
        peer.close()
