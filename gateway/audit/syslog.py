"""Audit messages on their way: syslog messages (RFC 5424) to a file, by UDP (RFC 5426) or by TLS (RFC 5425).

PS3.15 A.6 gives the header its values: facility 10 (security), MSGID "DICOM+RFC3881", and a text of UTF-8 with its
mark.  Syslog acknowledges nothing: a message that was written to a connection which breaks may be lost.  So every
connection is looked at before it is used again, and what was written to one that turned out broken is sent again.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

from gateway.errors import NotReached, SettingsError
from gateway.security.tls import client_context, server_name, words
from gateway.settings import AuditSettings

_FACILITY = 10
_SEVERITY = {0: 5, 4: 4, 8: 3, 12: 2}  # of an outcome: notice, warning, error, critical
_TIMEOUT_S = 10.0
_LARGEST_DATAGRAM = 65000


def frame(xml: bytes, at: datetime, outcome: int, source_id: str) -> bytes:
    """Return the syslog message of an audit message."""
    priority = _FACILITY * 8 + _SEVERITY[outcome]
    moment = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    header = f"<{priority}>1 {moment} {socket.gethostname()} {source_id} {os.getpid()} DICOM+RFC3881 - "
    return header.encode() + b"\xef\xbb\xbf" + xml.replace(b"\n", b" ")


class Sender:
    """Sends syslog messages where the settings say; not for several threads."""

    def __init__(self, settings: AuditSettings) -> None:
        self._settings = settings
        self._connection: ssl.SSLSocket | None = None

    def send(self, messages: Sequence[bytes]) -> None:
        """Send all of them.

        Raises
        ------
        NotReached
            They could not be sent, or perhaps not all: send them again.
        """
        try:
            match self._settings.transport:
                case "file":
                    self._append(messages)
                case "udp":
                    self._send_datagrams(messages)
                case "tls":
                    self._send_by_tls(messages)
        except OSError as error:
            self.close()
            raise NotReached(f"audit messages: {words(error)}") from error
        except SettingsError as error:
            raise NotReached(f"audit messages: {error}") from error

    def close(self) -> None:
        """End the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(OSError):
                connection.settimeout(1.0)
                connection.unwrap()
            connection.close()

    def _append(self, messages: Sequence[bytes]) -> None:
        assert self._settings.path is not None
        descriptor = os.open(self._settings.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write(b"".join(message + b"\n" for message in messages))
            file.flush()
            os.fsync(file.fileno())

    def _send_datagrams(self, messages: Sequence[bytes]) -> None:
        host, port = str(self._settings.host), self._settings.port
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, number) as sender:
            sender.connect(address)
            for message in messages:
                sender.send(message[:_LARGEST_DATAGRAM])

    def _send_by_tls(self, messages: Sequence[bytes]) -> None:
        connection = self._connected()
        for message in messages:
            connection.sendall(b"%d %b" % (len(message), message))
        self._check_alive(connection)

    def _connected(self) -> ssl.SSLSocket:
        if self._connection is not None:
            self._check_alive(self._connection)
            return self._connection
        host, tls = str(self._settings.host), self._settings.tls
        plain = socket.create_connection((host, self._settings.port), _TIMEOUT_S)
        try:
            self._connection = client_context(tls).wrap_socket(plain, server_hostname=server_name(tls, host))
        except (OSError, SettingsError):
            plain.close()
            raise
        return self._connection

    def _check_alive(self, connection: ssl.SSLSocket) -> None:
        """Raise OSError where the other side has ended the connection; it never sends anything else."""
        connection.settimeout(0.0)
        try:
            if not connection.recv(1):
                raise ConnectionResetError("the audit repository has ended the connection")
        except (ssl.SSLWantReadError, BlockingIOError):
            pass
        finally:
            connection.settimeout(_TIMEOUT_S)
