"""pynetdicom's server and requestor, with bounds on what a peer may make us hold or wait for.

Stock pynetdicom 3.0 shakes hands for TLS in the thread that accepts, without a timeout, so that one silent client stops
all of them; buffers whatever length a PDU announces (4 GiB); waits for ever for the rest of a PDU; collects a data set
of any size; and waits for the association request of a peer that has gone.  Here

* a connection over the limits (in all, and from one address) is closed as it comes, before a thread is made for it,
  and one that we close counts no more by the time the peer can see that;
* the threads of a connection end with it;
* the TLS handshake has a thread of its own and must end within the network timeout;
* a PDU is at most `MAXIMUM_PDU_BYTES` and must arrive within the network timeout;
* of what is decoded, elements and items are at most `MAXIMUM_MESSAGE_ELEMENTS`;
* an answer to a peer that broke off before it, and a command set that cannot be decoded, end the association in order;
* a command set is at most `MAXIMUM_COMMAND_BYTES`, and of a data set beyond the limit the rest is dropped as it comes
  in, so that the sender still gets its answer;
* an object that is larger than `SPILL_BYTES` goes to a file as it comes in;
* nothing more is read from a peer while a request of its waits for the one before.

A requestor's association has the same bounds, and says in `BoundedSocket.error` why it has no connection any more.
"""

from __future__ import annotations

import logging
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from socketserver import BaseServer
from typing import Any, BinaryIO, Protocol

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.fsm import TRANSITION_TABLE, StateMachine
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import (
    T_CONNECT,
    AddressInformation,
    AssociationSocket,
    RequestHandler,
    ThreadedAssociationServer,
)

from gateway.dicom.images.bounded import Bounds
from gateway.dicom.images.pixels import DECODE_ERRORS
from gateway.errors import StorageError
from gateway.security.connections import ConnectionLimit
from gateway.security.tls import ListenerTls, accept_tls, words

logger = logging.getLogger(__name__)

MAXIMUM_PDU_BYTES = 1 << 20  # far above the 128 KiB we ask for and any A-ASSOCIATE-RQ
MAXIMUM_COMMAND_BYTES = 1 << 16
MAXIMUM_INFORMATION_BYTES = 1 << 22  # of any data set but an object's: storage commitment of 15,000 objects has 2.3 MB
MAXIMUM_MESSAGE_ELEMENTS = 50_000  # items included: storage commitment of 15,000 objects
SPILL_BYTES = 1 << 20  # of an object in memory: each association may have two, one at the intake and one that arrives
_CHECK_S = 0.1  # how soon it is noticed that a connection has ended


class Room(Protocol):
    """Where objects are kept on their way in."""

    def check_space(self, size: int = 0) -> None:
        """Raise StorageError if there is no room for `size` more bytes."""
        ...

    def temporary_file(self) -> BinaryIO:
        """Return a file that nobody else sees, and that is gone when it is closed; raise StorageError."""
        ...


class Acceptor(ThreadedAssociationServer):  # type: ignore[misc]
    """Listens, and gives every connection bounded parts.

    Parameters
    ----------
    maximum_object_bytes : int
        The largest object that is kept.
    room : Room
        Where it is kept on its way in.
    limit : ConnectionLimit
        Who may connect.
    tls : ListenerTls | None
        What to shake hands with; None: the port is plain.
    """

    daemon_threads = True  # each waits for its association, and none of them for `shutdown`
    request_queue_size = 64

    def __init__(
        self,
        *args: Any,
        maximum_object_bytes: int,
        room: Room,
        limit: ConnectionLimit,
        tls: ListenerTls | None,
        **kwargs: Any,
    ) -> None:
        self.maximum_object_bytes = maximum_object_bytes
        self.room = room
        self.limit = limit
        self.tls = tls
        self.serving: set[_BoundedRequestHandler] = set()
        self.ended = False
        super().__init__(*args, request_handler=_BoundedRequestHandler, **kwargs)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection on which no single call waits longer than the network timeout."""
        try:
            connection, address = super().get_request()
        except OSError:  # out of file descriptors, say: the port stays ready, and asking at once would spin
            time.sleep(0.1)
            raise
        connection.settimeout(self.ae.network_timeout)
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Return whether the connection is within the limits; if not it is closed."""
        return self.limit.admit(client_address[0])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Make a thread for a connection."""
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the system has no thread left
            self.limit.leave(client_address[0])
            raise

    def shutdown(self) -> None:
        """Stop listening; associations that are open go on."""
        BaseServer.shutdown(self)
        self.server_close()

    def hang_up(self) -> bool:
        """End every connection under whoever waits for it, in an association or not; return whether any is left."""
        self.ended = True
        for handler in tuple(self.serving):
            hang_up(handler.request)
        return bool(self.serving)


class Requestor(AE):  # type: ignore[misc]
    """An application entity with bounded associations, too."""

    maximum_object_bytes = 0

    def _create_socket(self, assoc: Association, address: AddressInformation, tls_args: Any) -> AssociationSocket:
        assoc.dimse = _BoundedDimse(assoc, self.maximum_object_bytes, None)
        assoc.dul.state_machine = _StateMachine(assoc.dul)
        connection = BoundedSocket(assoc, address=address)
        connection.tls_args = tls_args
        return connection


class BoundedSocket(AssociationSocket):  # type: ignore[misc]
    """A connection that takes PDUs up to `MAXIMUM_PDU_BYTES`, each within the network timeout.

    `error` is what went wrong on it, if anything did.
    """

    socket: Any
    error: OSError | None = None
    on_close: Callable[[], None] | None = None  # called when it is about to be closed, perhaps more than once

    def connect(self, primitive: T_CONNECT) -> None:
        """Connect, and shake hands where there are `tls_args`; each may take the connection timeout."""
        connection = self.socket
        try:
            connection.settimeout(self.assoc.connection_timeout)
            connection.connect(primitive.address_info.as_tuple)
            if self.tls_args:
                context, server_name = self.tls_args
                connection = context.wrap_socket(connection, server_hostname=server_name)
        except OSError as error:
            self.error = error
            connection.close()
            self.socket = None
            primitive.result = "Evt17"
        else:
            connection.settimeout(self.assoc.network_timeout)
            self.socket = connection
            self.assoc.requestor.address_info = AddressInformation.from_tuple(connection.getsockname())
            self._is_connected = True
            primitive.result = "Evt2"
        self.provider_queue.put(primitive)
        self._ready.set()

    @property
    def ready(self) -> bool:
        """Whether something is to be read: not while a request of the peer waits for the one before to be answered.

        The stock socket asks `select`, which knows descriptors to 1023 only.
        """
        connection = self.socket
        waits = self.assoc.is_acceptor and not self.assoc.dimse.msg_queue.empty()
        if connection is None or not self._is_connected or waits:
            return False
        poll = select.poll()
        try:
            poll.register(connection, select.POLLIN)
            found = bool(poll.poll(0))
        except (OSError, ValueError):  # it is closed
            self.event_queue.put("Evt17")
            return False
        return found or (isinstance(connection, ssl.SSLSocket) and bool(connection.pending()))

    def recv(self, nr_bytes: int) -> bytearray:
        """Read `nr_bytes`, all of them within the network timeout; fewer only where the peer closed.

        Raises
        ------
        OSError
            The PDU is longer than allowed, or did not arrive in time: pynetdicom then closes the connection.
        """
        if nr_bytes > MAXIMUM_PDU_BYTES:
            raise OSError(f"a PDU of {nr_bytes} bytes is longer than {MAXIMUM_PDU_BYTES}")
        try:
            return self._recv(nr_bytes)
        except OSError as error:
            self.error = error
            raise

    def _recv(self, nr_bytes: int) -> bytearray:
        connection, timeout_s = self.socket, self.assoc.network_timeout
        deadline = time.monotonic() + timeout_s
        received = bytearray()
        while len(received) < nr_bytes:
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                raise TimeoutError(f"a PDU took longer than {timeout_s:g} s")
            connection.settimeout(remaining_s)
            chunk = connection.recv(min(nr_bytes - len(received), 1 << 16))
            if not chunk:
                break
            received += chunk
        connection.settimeout(timeout_s)
        return received

    def _shutdown_socket(self) -> None:
        """Close the connection, also one that was never made, which the stock socket leaves open."""
        connection = self.socket
        if self.on_close is not None:
            self.on_close()
        super()._shutdown_socket()
        if connection is not None:
            connection.close()


def hang_up(connection: socket.socket) -> None:
    """End a connection under whoever waits for it: they see it closed."""
    with suppress(OSError):  # closed already
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class BoundedBuffer(BytesIO):
    """Holds up to `limit` bytes; the rest is dropped, and `overflowed` is set.  What reads it is bounded too.

    pynetdicom takes nothing but a BytesIO for a data set.  That of an object, which only we read, may go to a file.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._bounds = Bounds(MAXIMUM_MESSAGE_ELEMENTS)
        self._limit = limit
        self._size = 0
        self._room: Room | None = None
        self._file: BinaryIO | None = None
        self._error: StorageError | None = None
        self.overflowed = False

    @property
    def problem(self) -> str:
        """What was more than allowed when it was read; "" where nothing was."""
        return self._bounds.problem

    def allow(self, limit: int, room: Room | None) -> None:
        """Hold up to `limit` bytes, in a file if they are more than `SPILL_BYTES` and there is room for one."""
        self._limit, self._room = limit, room

    def content(self) -> BinaryIO:
        """Return what was written, as a file at its beginning; raise StorageError where it could not be written."""
        file = self._file or self
        if self._error is None:
            try:
                file.seek(0)  # what is buffered is written now
            except OSError as error:
                self._fail(error)
        if self._error is not None:
            raise self._error
        return file

    def read(self, size: Any = -1, /) -> bytes:
        """Read up to `size` bytes of what is in memory."""
        return self._bounds.read(super().read, size)

    def write(self, data: Any) -> int:
        """Add `data`, or drop it and everything after it."""
        if not self.overflowed and self._error is None:
            self._size += len(data)
            self.overflowed = self._size > self._limit
            if self.overflowed:
                self._drop()
            elif self._room is None or self._size <= SPILL_BYTES:
                super().write(data)
            else:
                self._write_to_file(self._room, data)
        return len(data)

    def close(self) -> None:
        """Forget everything."""
        if not self.closed:
            self._drop()
        super().close()

    def _write_to_file(self, room: Room, data: Any) -> None:
        try:
            room.check_space(len(data))
            if self._file is None:
                self._file = room.temporary_file()
                with self.getbuffer() as begin:
                    self._file.write(begin)
                self.truncate(0)
            self._file.write(data)
        except (OSError, StorageError) as error:
            self._fail(error)

    def _fail(self, error: OSError | StorageError) -> None:
        if isinstance(error, OSError):
            error = StorageError(f"an object on its way in: {error.strerror}")
        self._error = error
        self._drop()

    def _drop(self) -> None:
        """Free what is held."""
        self.truncate(0)
        if self._file is not None:
            with suppress(OSError):  # what was not written yet is not wanted any more
                self._file.close()


class _BoundedRequestHandler(RequestHandler):  # type: ignore[misc]
    server: Acceptor
    request: Any

    def setup(self) -> None:
        """Be one of those who can be hung up on."""
        self._left = threading.Lock()  # acquired once and for good: by whoever takes the connection out of the count
        self.server.serving.add(self)

    def handle(self) -> None:
        """Shake hands if the port asks for it, then serve the association to its end."""
        if self.server.ended:
            return
        if self.server.tls is not None:
            try:
                self.request = accept_tls(self.request, self.server.tls.context(), self.ae.network_timeout)
                self.request.do_handshake()
            except OSError as error:
                logger.warning(
                    "TLS handshake with %s failed: %s",
                    *(self.client_address[0], words(error)),
                    extra={"action": "tls_refused"},
                )
                return
        association = self._create_association()
        association.start()
        while association.is_alive() and (association.dul.is_alive() or not association._dul_ready.is_set()):
            association.join(_CHECK_S)
        association.dul.to_user_queue.put(None)  # "no request came", should it wait for one: the connection has ended
        association.join()
        association.dimse.close()

    def finish(self) -> None:
        """Close the connection, whatever state its association ended in."""
        self._leave()
        self.request.close()
        self.server.serving.discard(self)

    def _leave(self) -> None:
        """Let another connection come in this one's place."""
        if self._left.acquire(blocking=False):
            self.server.limit.leave(self.client_address[0])

    def _create_association(self) -> Association:
        association = super()._create_association()
        association.dul.event_queue.get_nowait()  # the stock socket's "connection open"; ours brings its own
        connection = BoundedSocket(association, client_socket=self.request)
        connection.on_close = self._leave
        association.dul.socket = connection
        association.dimse = _BoundedDimse(association, self.server.maximum_object_bytes, self.server.room)
        association.dul.state_machine = _StateMachine(association.dul)
        return association


class _StateMachine(StateMachine):  # type: ignore[misc]
    def do_action(self, event: str) -> None:
        """Act on an event; one that its state does not know (PS3.8 table 9-10) ends the connection.

        So it is with an answer of ours after the peer broke the protocol or off.  Stock pynetdicom lets the thread die.
        """
        if (event, self.current_state) in TRANSITION_TABLE:
            super().do_action(event)
        else:
            logger.warning(
                "Ending a connection that its peer broke (%s in %s)",
                *(event, self.current_state),
                extra={"action": "protocol"},
            )
            self.dul.kill_dul()


class _BoundedDimse(DIMSEServiceProvider):  # type: ignore[misc]
    message: DIMSEMessage | None

    def __init__(self, association: Association, maximum_object_bytes: int, room: Room | None) -> None:
        super().__init__(association)
        self._maximum_object_bytes = maximum_object_bytes
        self._room = room

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Add a piece to the message it belongs to (PS3.8 annex E)."""
        if self.message is None:
            message = DIMSEMessage()
            message.encoded_command_set = BoundedBuffer(MAXIMUM_COMMAND_BYTES)
            message.data_set = BoundedBuffer(MAXIMUM_INFORMATION_BYTES)
            self.message = message
        try:
            super().receive_primitive(primitive)
        except DECODE_ERRORS as error:
            what = type(error).__name__
            logger.warning("Ending an association: no DIMSE message (%s)", what, extra={"action": "protocol"})
            self.message = None
            self.dul.event_queue.put("Evt19")
        if isinstance(self.message, C_STORE_RQ):
            self.message.data_set.allow(self._maximum_object_bytes, self._room)
        if self.message is not None and self.message.encoded_command_set.overflowed:
            self.dul.event_queue.put("Evt19")  # an invalid PDU: the association is aborted

    def close(self) -> None:
        """Free what arrived in part, or too late to be answered."""
        if self.message is not None:
            self.message.data_set.close()
        while not self.msg_queue.empty():
            _, request = self.msg_queue.get_nowait()
            if isinstance(request, C_STORE):
                request.DataSet.close()
