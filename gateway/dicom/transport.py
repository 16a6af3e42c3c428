"""pynetdicom's server and requestor, with bounds on what a peer may make us hold or wait for.

Stock pynetdicom 3.0 buffers whatever length a PDU announces (4 GiB), waits for ever for the rest of a PDU, and collects
a data set of any size.  Here a PDU is at most `MAXIMUM_PDU_BYTES` and must arrive within the network timeout, a command
set is at most `MAXIMUM_COMMAND_BYTES`, and of a data set beyond the limit the rest is dropped as it comes in, so that
the sender still gets its answer.
"""

from __future__ import annotations

import socket
import time
from io import BytesIO
from socketserver import BaseServer
from typing import Any

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AddressInformation, AssociationSocket, RequestHandler, ThreadedAssociationServer

MAXIMUM_PDU_BYTES = 1 << 20  # far above the 128 KiB we ask for and any A-ASSOCIATE-RQ
MAXIMUM_COMMAND_BYTES = 1 << 16


class Acceptor(ThreadedAssociationServer):  # type: ignore[misc]
    """Listens, and gives every connection bounded parts.

    Parameters
    ----------
    maximum_object_bytes : int
        The largest data set that is kept.
    """

    def __init__(self, *args: Any, maximum_object_bytes: int, **kwargs: Any) -> None:
        self.maximum_object_bytes = maximum_object_bytes
        super().__init__(*args, request_handler=_BoundedRequestHandler, **kwargs)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection on which no single call waits longer than the network timeout."""
        connection, address = super().get_request()
        connection.settimeout(self.ae.network_timeout)
        return connection, address

    def shutdown(self) -> None:
        """Stop listening; associations that are open go on."""
        BaseServer.shutdown(self)
        self.server_close()


class Requestor(AE):  # type: ignore[misc]
    """An application entity whose associations are bounded too."""

    def _create_socket(self, assoc: Association, address: AddressInformation, tls_args: Any) -> AssociationSocket:
        connection = BoundedSocket(assoc, address=address)
        connection.tls_args = tls_args
        return connection


class BoundedSocket(AssociationSocket):  # type: ignore[misc]
    """A connection that takes PDUs up to `MAXIMUM_PDU_BYTES`, each within the network timeout."""

    def recv(self, nr_bytes: int) -> bytearray:
        """Read `nr_bytes`, all of them within the network timeout; fewer only where the peer closed.

        Raises
        ------
        OSError
            The PDU is longer than allowed, or did not arrive in time: pynetdicom then closes the connection.
        """
        if nr_bytes > MAXIMUM_PDU_BYTES:
            raise OSError(f"a PDU of {nr_bytes} bytes is longer than {MAXIMUM_PDU_BYTES}")
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
        super()._shutdown_socket()
        if connection is not None:
            connection.close()


class BoundedBuffer(BytesIO):
    """Holds up to `limit` bytes; what comes after is dropped, and `overflowed` tells."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self.overflowed = False

    def write(self, data: Any) -> int:
        """Add `data`, or drop it and everything after it."""
        if self.overflowed or self.tell() + len(data) > self._limit:
            self.overflowed = True
            return len(data)
        return super().write(data)


class _BoundedRequestHandler(RequestHandler):  # type: ignore[misc]
    server: Acceptor

    def _create_association(self) -> Association:
        association = super()._create_association()
        association.dul.event_queue.get_nowait()  # the stock socket's "connection open"; ours brings its own
        association.dul.socket = BoundedSocket(association, client_socket=self.request)
        association.dimse = _BoundedDimse(association, self.server.maximum_object_bytes)
        return association


class _BoundedDimse(DIMSEServiceProvider):  # type: ignore[misc]
    message: DIMSEMessage | None

    def __init__(self, association: Association, maximum_object_bytes: int) -> None:
        super().__init__(association)
        self._maximum_object_bytes = maximum_object_bytes

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Add a piece to the message it belongs to (PS3.8 annex E)."""
        if self.message is None:
            message = DIMSEMessage()
            message.encoded_command_set = BoundedBuffer(MAXIMUM_COMMAND_BYTES)
            message.data_set = BoundedBuffer(self._maximum_object_bytes)
            self.message = message
        super().receive_primitive(primitive)
        if self.message is not None and self.message.encoded_command_set.overflowed:
            self.dul.event_queue.put("Evt19")  # an invalid PDU: the association is aborted
