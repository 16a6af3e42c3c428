"""TLS for listeners and clients: contexts from settings; the files may be replaced while the gateway runs.

Two profiles of PS3.15 annex B.  Both have TLS 1.2 or 1.3 and nothing older, and no static key exchange:

* `bcp195`: BCP 195 RFC 8996, 9325 (B.12), with the four TLS 1.2 cipher suites that RFC 9325 recommends.  Peers of the
  retired non-downgrading and extended BCP 195 profiles (B.10, B.11) can use it too.
* `bcp195-modified`: Modified BCP 195 RFC 8996, 9325 (B.13), which permits more suites, also only with ephemeral
  elliptic curve keys of 256 bits and more.

A listener with a `ca_file` requires a certificate of that authority from every peer.  Without `ca_file` it encrypts and
identifies nobody.  `ListenerTls` checks its files before every handshake.  Replaced files apply from the next
connection on; open connections keep their context.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

from gateway.errors import SettingsError
from gateway.settings import TlsClientSettings, TlsListenerSettings, TlsSettings

logger = logging.getLogger(__name__)

# For TLS 1.2; those of TLS 1.3 are OpenSSL's: AES-256-GCM, ChaCha20-Poly1305, AES-128-GCM.
_RECOMMENDED = "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:" + (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"
)
CIPHER_SUITES = {
    "bcp195": _RECOMMENDED,
    "bcp195-modified": _RECOMMENDED
    + ":ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
    + ":ECDHE-ECDSA-AES256-CCM:ECDHE-ECDSA-AES256-CCM8:ECDHE-ECDSA-AES128-CCM:ECDHE-ECDSA-AES128-CCM8",
}


def server_context(settings: TlsListenerSettings) -> ssl.SSLContext:
    """Return the context of a listener; peers must present a certificate if there is a `ca_file`.

    Raises
    ------
    SettingsError
        A file cannot be read or has the wrong content, or the key does not belong to the certificate.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, settings)
    context.options |= ssl.OP_NO_RENEGOTIATION
    if settings.ca_file is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(settings: TlsClientSettings) -> ssl.SSLContext:
    """Return the context of a client; the server must prove its name (see `server_name`).

    Raises
    ------
    SettingsError
        As for `server_context`.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, settings)
    if settings.ca_file is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return context


def check_tls(settings: TlsSettings) -> None:
    """Try the files of a TLS section; raise SettingsError, as `server_context`, if they cannot be used."""
    if isinstance(settings, TlsListenerSettings):
        server_context(settings)
    elif isinstance(settings, TlsClientSettings):
        client_context(settings)


def server_name(settings: TlsClientSettings, host: str) -> str:
    """Return the name that must be in the certificate of the server."""
    return settings.server_name or host


def accept_tls(connection: socket.socket, context: ssl.SSLContext, timeout_s: float) -> ssl.SSLSocket:
    """Return the TLS end of a connection that a client has opened.  The caller must close it in any case.

    The caller then calls `do_handshake`.  Together they may take `timeout_s`.  The handshake raises OSError if it fails
    (ssl.SSLError) or takes too long (TimeoutError).

    Raises
    ------
    OSError
        The client is gone.
    """
    connection.settimeout(timeout_s)
    return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)


def peer_names(connection: ssl.SSLSocket) -> frozenset[str]:
    """Return the names in the verified certificate of the peer: subject common name, DNS names and IP addresses."""
    certificate: dict[str, Any] = dict(connection.getpeercert() or {})
    subject = [pair for group in certificate.get("subject", ()) for pair in group]
    names = [value for kind, value in subject if kind == "commonName"]
    names += [value for kind, value in certificate.get("subjectAltName", ()) if kind in ("DNS", "IP Address")]
    return frozenset(names)


def words(error: OSError) -> str:
    """Return the reason that OpenSSL or the system states, without numbers and names of source files."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not trusted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
    return (reason or type(error).__name__).lower().replace("_", " ")


class ListenerTls:
    """The context for new connections; it is created again after one of its files was replaced.

    Files that do not match (the certificate is new, the key is still old) change nothing until they match.

    Raises
    ------
    SettingsError
        As for `server_context`, in the constructor only.
    """

    def __init__(self, settings: TlsListenerSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._seen = self._files()
        self._context = server_context(settings)

    def context(self) -> ssl.SSLContext:
        """Return the context for the next handshake."""
        with self._lock:
            files = self._files()
            if files != self._seen:
                self._seen = files
                try:
                    self._context = server_context(self._settings)
                except SettingsError as error:
                    logger.error("Certificates not reloaded: %s", error, extra={"action": "tls_reload_failed"})
                else:
                    logger.info("Certificates reloaded", extra={"action": "tls_reload"})
            return self._context

    def _files(self) -> tuple[tuple[int, int, int] | None, ...]:
        settings = self._settings
        key, password = settings.private_key_file, settings.private_key_password_file
        paths = (settings.certificate_file, key, password, settings.ca_file)
        return tuple(_stamp(path) for path in paths if path is not None)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _context(protocol: int, settings: TlsSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHER_SUITES[settings.profile])
    if settings.certificate_file is not None:
        _load_certificate(context, settings)
    if settings.ca_file is not None:
        try:
            context.load_verify_locations(settings.ca_file)
        except OSError as error:  # ssl.SSLError among them
            raise SettingsError(f"ca_file {settings.ca_file}: {words(error)}") from error
    return context


def _load_certificate(context: ssl.SSLContext, settings: TlsSettings) -> None:
    certificate, key, password = (
        settings.certificate_file,
        settings.private_key_file,
        settings.private_key_password_file,
    )
    assert certificate is not None and key is not None

    def read_password() -> str:  # called only for an encrypted key; without it OpenSSL asks at the terminal
        if password is None:
            raise SettingsError(f"private_key_file {key} is encrypted, and private_key_password_file is not set")
        try:
            return password.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"private_key_password_file {password} cannot be read") from error

    for path in (certificate, key):
        if not path.is_file():
            raise SettingsError(f"{path} is no file")
    try:
        context.load_cert_chain(certificate, key, read_password)
    except OSError as error:
        raise SettingsError(f"certificate_file {certificate} with private_key_file {key}: {words(error)}") from error
