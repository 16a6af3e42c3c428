"""The MLLP client: one connection per destination, kept open, one message at a time.

Only an answer with the sent MSH-10 in MSA-2 counts.  Whatever else goes wrong, the connection is closed:
an answer that comes late can then never be taken for the answer to the next message.  What was sent may be sent again,
the same bytes with the same MSH-10, so a receiver knows the repeat.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time

from gateway.errors import DeliveryDeferred, DeliveryRefused, NotReached, SettingsError
from gateway.hl7.inbound.acknowledgement import scan_acknowledgement, scan_header, split_batch
from gateway.hl7.transport.frames import FrameParser, FrameTooLong, frame
from gateway.security.tls import client_context, server_name
from gateway.settings import Hl7Destination

logger = logging.getLogger(__name__)

_RECEIVE_BYTES = 64 * 1024


class _Gone(Exception):
    """The peer had closed the kept connection; nothing of an answer came."""


class MllpClient:
    """Sends messages to one destination; not for several threads at once."""

    def __init__(self, destination: Hl7Destination) -> None:
        self._destination = destination
        self._name = destination.name
        self._socket: socket.socket | None = None
        self._parser = FrameParser()
        self._answered: set[bytes] = set()  # MSH-10s answered on this connection: another answer to them is a repeat

    def send(self, data: bytes) -> str:
        """Send one unframed message and return its acknowledgement code.

        Connecting, the TLS handshake and sending may take `timeout_s` each, and so may the whole answer, however it
        dribbles in.  A kept connection that the peer has closed meanwhile is opened again, once.

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
        header = scan_header((split_batch(data) or [data])[0])
        if header is None or not header.field(10):
            raise DeliveryRefused(f"{self._name}: the stored message has no MSH-10")
        try:
            framed = frame(data)
        except ValueError as error:
            raise DeliveryRefused(f"{self._name}: {error}") from None
        try:
            return self._exchange(framed, header.field(10))
        except _Gone:
            return self._exchange(framed, header.field(10))

    def close(self) -> None:
        """Close the connection, if there is one; the next message opens another."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    def _exchange(self, framed: bytes, control_id: bytes) -> str:
        kept = self._socket is not None and self._still_open()
        if not kept:
            self.close()
        try:
            if self._socket is None:
                self._socket = self._reach()
            self._socket.settimeout(self._destination.timeout_s)
            self._socket.sendall(framed)
            answer = self._receive_answer(self._socket, control_id)
        except TimeoutError:
            self.close()
            raise DeliveryDeferred(f"{self._name}: no answer within {self._destination.timeout_s:g} s") from None
        except (ConnectionError, ssl.SSLEOFError) as error:
            self.close()
            if kept and not self._parser.unfinished:
                raise _Gone from error
            raise DeliveryDeferred(f"{self._name}: {_words(error)}") from error
        except OSError as error:
            self.close()
            raise DeliveryDeferred(f"{self._name}: {_words(error)}") from error
        except DeliveryDeferred:
            self.close()
            raise
        self._answered.add(control_id)
        return self._judge(answer)

    def _reach(self) -> socket.socket:
        try:
            return self._connect()
        except TimeoutError:
            raise NotReached(f"{self._name}: no answer within {self._destination.timeout_s:g} s") from None
        except SettingsError as error:
            raise NotReached(f"{self._name}: {error}") from error
        except OSError as error:
            raise NotReached(f"{self._name}: {_words(error)}") from error

    def _connect(self) -> socket.socket:
        self._parser = FrameParser()
        self._answered = set()
        destination = self._destination
        connection = socket.create_connection((destination.host, destination.port), destination.timeout_s)
        try:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if destination.tls is None:
                return connection
            context = client_context(destination.tls)
            return context.wrap_socket(connection, server_hostname=server_name(destination.tls, destination.host))
        except (OSError, SettingsError):
            connection.close()
            raise

    def _still_open(self) -> bool:
        """Read what came since the last answer: repeats of answers are dropped, and an end is noticed."""
        assert self._socket is not None
        try:
            self._socket.settimeout(0.0)
            while data := self._socket.recv(_RECEIVE_BYTES):
                self._parser.feed(data)
            return False
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        except (OSError, FrameTooLong):
            return False
        return not self._parser.unfinished

    def _receive_answer(self, connection: socket.socket, control_id: bytes) -> bytes:
        """Return the acknowledgement of this message; it must be whole before the deadline."""
        deadline = time.monotonic() + self._destination.timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            connection.settimeout(left_s)
            data = connection.recv(_RECEIVE_BYTES)
            if not data:
                raise ConnectionResetError("the connection was closed before a whole answer came")
            try:
                messages = self._parser.feed(data)
            except FrameTooLong:
                raise DeliveryDeferred(f"{self._name}: the answer is too long") from None
            for message in messages:
                if self._is_answer(message, control_id):
                    return message
        raise TimeoutError

    def _is_answer(self, message: bytes, control_id: bytes) -> bool:
        """Return whether an answer is for this message, not a repeat of an earlier one; raise where it is neither."""
        acknowledgement = scan_acknowledgement(message)
        if acknowledgement is None:
            raise DeliveryDeferred(f"{self._name}: the answer is no acknowledgement")
        if acknowledgement.message_control_id == control_id:
            return True
        if acknowledgement.message_control_id not in self._answered:
            raise DeliveryDeferred(f"{self._name}: the answer's MSA-2 is not the MSH-10 sent")
        logger.info("%s answered an earlier message again", self._name, extra={"action": "mllp_answer_repeated"})
        return False

    def _judge(self, answer: bytes) -> str:
        """Return AA or CA, or raise what any other answer means; the peer's words may name a patient: not quoted."""
        acknowledgement = scan_acknowledgement(answer)
        assert acknowledgement is not None
        if acknowledgement.code in ("AA", "CA"):
            return acknowledgement.code
        if acknowledgement.code not in ("AE", "AR", "CE", "CR"):
            self.close()
            raise DeliveryDeferred(f"{self._name}: answered an unknown code")
        error = f" (error {acknowledgement.error_code})" if acknowledgement.error_code else ""
        kind = DeliveryRefused if acknowledgement.code in ("AR", "CR") else DeliveryDeferred
        raise kind(f"{self._name}: answered {acknowledgement.code}{error}", response=acknowledgement.code)


def _words(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or type(error).__name__).lower().replace('_', ' ')}"
    return error.strerror or str(error) or type(error).__name__
