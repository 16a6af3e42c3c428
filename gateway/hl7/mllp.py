r"""MLLP (HL7 2.5.1 appendix C): messages on a TCP stream, framed as VT message FS CR.

`send` delivers one message and tells what its answer means; `MllpListener` takes messages and answers every one.
Frames are cut from bytes before anything is decoded.  What stands between frames is skipped; a VT inside a frame
starts a new one, because a message that was never finished was never acknowledged.

One connection carries one outgoing message.  Whatever goes wrong, the connection is closed, so an answer that comes
late can never be taken for the answer to the next message.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable

from gateway.errors import DeliveryDeferred, DeliveryRefused
from gateway.hl7.messages import build_ack, scan_acknowledgement, scan_header
from gateway.settings import Hl7Destination

logger = logging.getLogger(__name__)

VT = b"\x0b"
FS_CR = b"\x1c\r"
MAXIMUM_FRAME_BYTES = 16 * 1024 * 1024
_RECEIVE_BYTES = 64 * 1024
_HEAD_BYTES = 8 * 1024  # of a frame that is too long: enough for its MSH


class FrameTooLong(Exception):
    """A frame passes the limit; `head` holds its first bytes, so that it can be answered."""

    def __init__(self, head: bytes) -> None:
        super().__init__("MLLP frame too long")
        self.head = head


class FrameParser:
    """Cuts frames out of a byte stream, however it is sliced."""

    def __init__(self, maximum_frame_bytes: int = MAXIMUM_FRAME_BYTES) -> None:
        self._maximum = maximum_frame_bytes
        self._buffer = bytearray()
        self._searched = 0  # of the buffer, known to hold no end of frame
        self.skipped_bytes = 0  # stood outside of complete frames

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes of the stream and return the messages they complete.

        Raises
        ------
        FrameTooLong
            An unfinished frame passes the limit; the stream cannot be followed any further.
        """
        self._buffer += data
        messages = []
        while (end := self._buffer.find(FS_CR, max(self._searched - 1, 0))) >= 0:
            start = self._buffer.rfind(VT, 0, end)
            if start >= 0:
                messages.append(bytes(self._buffer[start + 1 : end]))
            self.skipped_bytes += start if start >= 0 else end + len(FS_CR)
            del self._buffer[: end + len(FS_CR)]
            self._searched = 0
        self._drop_garbage()
        if len(self._buffer) > self._maximum:
            raise FrameTooLong(bytes(self._buffer[1:_HEAD_BYTES]))
        return messages

    def _drop_garbage(self) -> None:
        """Keep of the unfinished rest only what a frame may still grow from."""
        start = self._buffer.rfind(VT, self._searched)
        if start < 0 and not self._buffer.startswith(VT):
            start = len(self._buffer)
        if start > 0:
            self.skipped_bytes += start
            del self._buffer[:start]
        self._searched = len(self._buffer)


def frame(message: bytes) -> bytes:
    """Return a message as an MLLP frame; raise ValueError if it holds a framing byte."""
    if VT in message or b"\x1c" in message:
        raise ValueError("a message cannot hold VT (0x0B) or FS (0x1C)")
    return VT + message + FS_CR


def send(data: bytes, destination: Hl7Destination) -> str:
    """Send one unframed message over a connection of its own and return its acknowledgement code.

    Connecting and sending may take `destination.timeout_s` each, and so may the whole answer, however it dribbles in.

    Returns
    -------
    str
        "AA" or "CA": the peer has the message.

    Raises
    ------
    DeliveryDeferred
        No connection, no or half an answer in time, an answer to another message (MSA-2), AE or CE.
    DeliveryRefused
        AR or CR, or `data` is no HL7 message.
    """
    header = scan_header(data)
    if header is None or not header.field(10):
        raise DeliveryRefused(f"{destination.name}: the stored message has no MSH-10")
    try:
        framed = frame(data)
    except ValueError as error:
        raise DeliveryRefused(f"{destination.name}: {error}") from None
    try:
        with socket.create_connection((destination.host, destination.port), destination.timeout_s) as connection:
            connection.sendall(framed)
            answer = _receive_answer(connection, destination)
    except TimeoutError:
        raise DeliveryDeferred(f"{destination.name}: no answer within {destination.timeout_s:g} s") from None
    except OSError as error:
        raise DeliveryDeferred(f"{destination.name}: {error.strerror or type(error).__name__}") from error
    return _judge(answer, header.field(10), destination.name)


def _receive_answer(connection: socket.socket, destination: Hl7Destination) -> bytes:
    """Return the first message that arrives whole before the deadline."""
    deadline = time.monotonic() + destination.timeout_s
    parser = FrameParser()
    while (left_s := deadline - time.monotonic()) > 0:
        connection.settimeout(left_s)
        data = connection.recv(_RECEIVE_BYTES)
        if not data:
            raise DeliveryDeferred(f"{destination.name}: the connection was closed before a whole answer came")
        try:
            messages = parser.feed(data)
        except FrameTooLong:
            raise DeliveryDeferred(f"{destination.name}: the answer is too long") from None
        if messages:
            return messages[0]
    raise TimeoutError


def _judge(answer: bytes, control_id: bytes, name: str) -> str:
    """Return AA or CA, or raise what any other answer means.  The peer's own words may name a patient: not quoted."""
    acknowledgement = scan_acknowledgement(answer)
    if acknowledgement is None:
        raise DeliveryDeferred(f"{name}: the answer is no acknowledgement")
    if acknowledgement.message_control_id != control_id:
        raise DeliveryDeferred(f"{name}: the answer's MSA-2 is not the MSH-10 sent")
    if acknowledgement.code in ("AA", "CA"):
        return acknowledgement.code
    if acknowledgement.code not in ("AE", "AR", "CE", "CR"):
        raise DeliveryDeferred(f"{name}: answered an unknown code")
    error = f" (error {acknowledgement.error_code})" if acknowledgement.error_code else ""
    kind = DeliveryRefused if acknowledgement.code in ("AR", "CR") else DeliveryDeferred
    raise kind(f"{name}: answered {acknowledgement.code}{error}", response=acknowledgement.code)


class MllpListener:
    """Takes messages on a TCP port and answers each with what `handler` returns for it.

    Parameters
    ----------
    host, port
        Where to listen; port 0 takes a free one (see `port`).
    handler
        Unframed message in, unframed answer out; called from one thread per connection.  When it raises, the sender
        gets AE.
    idle_timeout_s
        A connection without a byte for so long is closed.
    maximum_frame_bytes
        A longer message is answered AR and its connection closed.
    maximum_connections
        Further ones are closed at once.
    """

    def __init__(
        self,
        host: str,
        port: int,
        handler: Callable[[bytes], bytes],
        *,
        idle_timeout_s: float = 300.0,
        maximum_frame_bytes: int = MAXIMUM_FRAME_BYTES,
        maximum_connections: int = 50,
    ) -> None:
        self._address = (host, port)
        self._handler = handler
        self._idle_timeout_s = idle_timeout_s
        self._maximum_frame_bytes = maximum_frame_bytes
        self._maximum_connections = maximum_connections
        self._socket: socket.socket | None = None
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._lock = threading.Lock()
        self._acceptor = threading.Thread(target=self._accept, name="mllp-listener", daemon=True)

    @property
    def port(self) -> int:
        """The port listened on; raises RuntimeError before `start`."""
        if self._socket is None:
            raise RuntimeError("the listener is not started")
        return int(self._socket.getsockname()[1])

    def start(self) -> None:
        """Bind and listen; raises OSError where the address cannot be had."""
        self._socket = socket.create_server(self._address)
        self._socket.settimeout(0.2)  # how soon `stop` is noticed
        self._acceptor.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Stop listening; messages being handled get their answer if it comes within `timeout_s`."""
        if self._socket is None:
            return
        listening, self._socket = self._socket, None
        self._acceptor.join()
        listening.close()
        with self._lock:
            connections = dict(self._connections)
        for connection in connections:
            _shut_down(connection, socket.SHUT_RD)
        deadline = time.monotonic() + timeout_s
        for thread in connections.values():
            thread.join(max(deadline - time.monotonic(), 0))

    def _accept(self) -> None:
        while (listening := self._socket) is not None:
            try:
                connection, _ = listening.accept()
            except TimeoutError:
                continue
            except OSError as error:  # out of file descriptors, or the peer went away: neither may end the listener
                logger.warning("MLLP accept failed: %s", error.strerror, extra={"action": "mllp_accept_failed"})
                time.sleep(0.2)
                continue
            self._admit(connection)

    def _admit(self, connection: socket.socket) -> None:
        with self._lock:
            if len(self._connections) >= self._maximum_connections:
                logger.warning("MLLP connection refused: too many", extra={"action": "mllp_connection_refused"})
                connection.close()
                return
            thread = threading.Thread(target=self._serve, args=(connection,), name="mllp-connection", daemon=True)
            self._connections[connection] = thread
        thread.start()

    def _serve(self, connection: socket.socket) -> None:
        parser = FrameParser(self._maximum_frame_bytes)
        try:
            connection.settimeout(self._idle_timeout_s)
            while data := connection.recv(_RECEIVE_BYTES):
                for message in parser.feed(data):
                    connection.sendall(VT + self._answer(message) + FS_CR)
        except FrameTooLong as error:
            logger.warning("MLLP message too long", extra={"action": "mllp_message_refused"})
            self._refuse(connection, error.head)
        except OSError as error:  # TimeoutError among them
            logger.info("MLLP connection ended: %s", type(error).__name__, extra={"action": "mllp_connection_ended"})
        finally:
            if parser.skipped_bytes:
                logger.warning(
                    "MLLP connection had %d bytes outside of frames",
                    parser.skipped_bytes,
                    extra={"action": "mllp_bytes_skipped"},
                )
            with self._lock:
                del self._connections[connection]
            connection.close()

    def _answer(self, message: bytes) -> bytes:
        try:
            return self._handler(message)
        except Exception:  # the sender must get an answer whatever the handler meets
            logger.exception("MLLP handler failed", extra={"action": "mllp_handler_failed"})
            return build_ack(message, "AE")

    @staticmethod
    def _refuse(connection: socket.socket, head: bytes) -> None:
        """Answer AR, then read on for a moment: closing at once would reset the connection under the answer."""
        try:
            connection.sendall(VT + build_ack(head, "AR") + FS_CR)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(1.0)
            for _ in range(1024):
                if not connection.recv(_RECEIVE_BYTES):
                    break
        except OSError:
            pass  # the sender is gone, or still sending after a second


def _shut_down(connection: socket.socket, how: int) -> None:
    try:
        connection.shutdown(how)
    except OSError:
        pass  # already closed by its own thread
