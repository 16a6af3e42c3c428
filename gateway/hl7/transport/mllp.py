"""The MLLP listener: takes messages on a TCP port, plain or by TLS, and answers every one.

A connection may bring any number of messages; they are answered in order.  Who may connect, how many at once, how
long a message may be and how long it may take to come are bounded, so that no peer can hold up another.  Large
messages take turns, since each may take a hundred MiB while it is read.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from gateway.hl7.inbound.acknowledgement import Problem, build_ack
from gateway.hl7.transport.frames import MAXIMUM_FRAME_BYTES, FrameParser, FrameTooLong, frame
from gateway.security.tls import ListenerTls, accept_tls

logger = logging.getLogger(__name__)

_RECEIVE_BYTES = 64 * 1024
_HANDSHAKE_S = 10.0
_LARGE_BYTES = 512 * 1024  # of a message that takes a turn; patients and orders have a few KiB


@dataclass(slots=True, eq=False)
class _Connection:
    socket: socket.socket
    host: str
    thread: threading.Thread | None = None


class _Turn:
    """The turn of one connection to receive a large message."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._is_ours = False

    def follow(self, size: int, deadline: float) -> None:
        """Wait for the turn when the message at hand has become large, give it back when there is none."""
        if not size:
            self.end()
        elif size > _LARGE_BYTES and not self._is_ours:
            self._is_ours = self._lock.acquire(timeout=max(deadline - time.monotonic(), 0))
            if not self._is_ours:
                raise TimeoutError

    def end(self) -> None:
        if self._is_ours:
            self._is_ours = False
            self._lock.release()


@dataclass(frozen=True, slots=True, kw_only=True)
class MllpLimits:
    """What one peer may ask of the listener, so that none can hold up another.

    Parameters
    ----------
    hosts
        IP addresses or CIDR networks that may connect; empty: any.
    idle_timeout_s
        A connection without a byte for so long is closed, and so is one with a message that takes longer to arrive.
    maximum_frame_bytes
        A longer message is answered AR and its connection closed.
    maximum_connections, maximum_connections_per_host
        Further ones are closed at once.
    """

    hosts: tuple[str, ...] = ()
    idle_timeout_s: float = 300.0
    maximum_frame_bytes: int = MAXIMUM_FRAME_BYTES
    maximum_connections: int = 50
    maximum_connections_per_host: int = 10


class MllpListener:
    """Takes messages on a TCP port and answers each with what `handler` returns for it.

    Parameters
    ----------
    host, port
        Where to listen; port 0 takes a free one (see `port`).
    handler
        Unframed message in, unframed answers out; called from one thread per connection.  When it raises, the sender
        gets AE.
    tls
        Certificates of a TLS port; None: the port is plain.
    limits
        What one peer may ask; None: the defaults.
    """

    def __init__(
        self,
        host: str,
        port: int,
        handler: Callable[[bytes], Sequence[bytes]],
        *,
        tls: ListenerTls | None = None,
        limits: MllpLimits | None = None,
    ) -> None:
        self._address = (host, port)
        self._handler = handler
        self._tls = tls
        self._limits = limits or MllpLimits()
        self._socket: socket.socket | None = None
        self._connections: set[_Connection] = set()
        self._lock = threading.Lock()
        self._large = threading.Lock()  # held while a large message comes and is answered
        self._acceptor = threading.Thread(target=self._accept, name="mllp-listener", daemon=True)

    @property
    def port(self) -> int:
        """The port listened on; raises RuntimeError before `start`."""
        if self._socket is None:
            raise RuntimeError("the listener is not started")
        return int(self._socket.getsockname()[1])

    @property
    def alive(self) -> bool:
        """Whether messages are taken; False before `start` and after `stop` too."""
        return self._acceptor.is_alive() and self._socket is not None

    def start(self) -> None:
        """Bind and listen; raises OSError where the address cannot be had."""
        self._socket = socket.create_server(self._address)
        self._socket.settimeout(0.2)  # how soon `stop` is noticed
        self._acceptor.start()

    def take_up(self, handler: Callable[[bytes], Sequence[bytes]], limits: MllpLimits) -> None:
        """Follow a changed handler and changed limits; connections that are open stay."""
        self._handler, self._limits = handler, limits

    def stop(self, timeout_s: float = 5.0) -> None:
        """Stop listening; messages being handled get their answer if it comes within `timeout_s`."""
        if self._socket is None:
            return
        listening, self._socket = self._socket, None
        self._acceptor.join()
        listening.close()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            _shut_down(connection.socket, socket.SHUT_RD)
        deadline = time.monotonic() + timeout_s
        for connection in connections:
            if connection.thread is not None:
                connection.thread.join(max(deadline - time.monotonic(), 0))

    def _accept(self) -> None:
        while (listening := self._socket) is not None:
            try:
                accepted, address = listening.accept()
            except TimeoutError:
                continue
            except OSError as error:  # out of file descriptors, or the peer went away: neither may end the listener
                logger.warning("MLLP accept failed: %s", error.strerror, extra={"action": "mllp_accept_failed"})
                time.sleep(0.2)
                continue
            self._admit(_Connection(accepted, str(address[0])))

    def _admit(self, connection: _Connection) -> None:
        """Give a connection a thread, or close it."""
        with self._lock:
            same_host = sum(other.host == connection.host for other in self._connections)
            if not self._may_connect(connection.host):
                refusal = "it is not in hosts"
            elif (
                len(self._connections) >= self._limits.maximum_connections
                or same_host >= self._limits.maximum_connections_per_host
            ):
                refusal = "too many are open"
            else:
                refusal = ""
                self._connections.add(connection)
        if refusal:
            logger.warning(
                "MLLP connection from %s refused: %s",
                connection.host,
                refusal,
                extra={"action": "mllp_connection_refused"},
            )
            connection.socket.close()
            return
        connection.thread = threading.Thread(target=self._run, args=(connection,), name="mllp-connection", daemon=True)
        try:
            connection.thread.start()
        except RuntimeError:  # the system has no thread left
            self._close(connection)

    def _may_connect(self, host: str) -> bool:
        address = ip_address(host.partition("%")[0])
        hosts = self._limits.hosts
        return not hosts or any(address in ip_network(host, strict=False) for host in hosts)

    def _run(self, connection: _Connection) -> None:
        try:
            if self._tls is not None:
                timeout_s = min(_HANDSHAKE_S, self._limits.idle_timeout_s)
                secure = accept_tls(connection.socket, self._tls.context(), timeout_s)
                connection.socket = secure
                secure.do_handshake()
            self._serve(connection.socket)
        except OSError as error:  # TimeoutError and ssl.SSLError among them
            logger.info("MLLP connection ended: %s", type(error).__name__, extra={"action": "mllp_connection_ended"})
        finally:
            self._close(connection)

    def _serve(self, connection: socket.socket) -> None:
        parser = FrameParser(self._limits.maximum_frame_bytes)
        deadline = time.monotonic() + self._limits.idle_timeout_s  # of the message, once it has begun
        turn = _Turn(self._large)
        try:
            while True:
                now = time.monotonic()
                if not parser.unfinished:
                    deadline = now + self._limits.idle_timeout_s
                elif now >= deadline:
                    raise TimeoutError
                connection.settimeout(deadline - now)
                data = connection.recv(_RECEIVE_BYTES)
                if not data:
                    return
                self._answer_all(connection, parser.feed(data))
                turn.follow(parser.size, deadline)
        except FrameTooLong as error:
            logger.warning("MLLP message too long", extra={"action": "mllp_message_refused"})
            self._refuse(connection, error.head)
        finally:
            turn.end()
            if parser.skipped_bytes:
                logger.warning(
                    "MLLP connection had %d bytes outside of frames",
                    parser.skipped_bytes,
                    extra={"action": "mllp_bytes_skipped"},
                )

    def _answer_all(self, connection: socket.socket, messages: list[bytes]) -> None:
        """Answer messages; none of them is in memory any more afterwards."""
        connection.settimeout(self._limits.idle_timeout_s)
        for message in messages:
            for answer in self._answer(message):
                connection.sendall(frame(answer))

    def _answer(self, message: bytes) -> Sequence[bytes]:
        try:
            return self._handler(message)
        except Exception:  # the sender must get an answer whatever the handler meets
            logger.exception("MLLP handler failed", extra={"action": "mllp_handler_failed"})
            return (build_ack(message, "AE"),)

    def _close(self, connection: _Connection) -> None:
        with self._lock:
            self._connections.discard(connection)
        connection.socket.close()

    def _refuse(self, connection: socket.socket, head: bytes) -> None:
        """Answer AR, then read on for a moment: closing at once would reset the connection under the answer."""
        try:
            problem = Problem(words=f"longer than {self._limits.maximum_frame_bytes} bytes")
            connection.sendall(frame(build_ack(head, "AR", problem=problem)))
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(1.0)
            for _ in range(1024):
                if not connection.recv(_RECEIVE_BYTES):
                    break
        except OSError:
            pass  # the sender is gone, or still sending after a second


def _shut_down(connection: socket.socket, how: int) -> None:
    try:
        socket.socket.shutdown(connection, how)  # ssl's own also drops the encryption, and an answer is yet to be sent
    except OSError:
        pass  # already closed by its own thread
