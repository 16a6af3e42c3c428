"""TLS for whatever listens or connects: contexts from settings, and files that may be replaced while it runs.

Two profiles of PS3.15 annex B, both TLS 1.2 or 1.3 and nothing older, and no static key exchange:

* `bcp195`: BCP 195 RFC 8996, 9325 (B.12), with the four TLS 1.2 cipher suites RFC 9325 recommends.  It is also what
  the retired non-downgrading and extended BCP 195 profiles (B.10, B.11) can talk to.
* `bcp195-modified`: Modified BCP 195 RFC 8996, 9325 (B.13), which permits more suites, still with ephemeral elliptic
  curve keys of 256 bits and more only.

A listener with a `ca_file` wants every peer to show a certificate from there; without one it encrypts and knows nobody.
`ListenerTls` looks at its files before every handshake: replaced ones are used from the next connection on, and
connections that are open keep what they have.
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
    """Return what a listener wraps accepted connections with; peers must show a certificate if there is a `ca_file`.

    Raises
    ------
    SettingsError
        A file cannot be read or does not hold what it should, or the key is not the certificate's.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, settings)
    context.options |= ssl.OP_NO_RENEGOTIATION
    if settings.ca_file is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(settings: TlsClientSettings) -> ssl.SSLContext:
    """Return what a client wraps its connection with; the server must prove its name (see `server_name`).

    Raises
    ------
    SettingsError
        As for `server_context`.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, settings)
    if settings.ca_file is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return context


def server_name(settings: TlsClientSettings, host: str) -> str:
    """Return the name that the server's certificate must hold."""
    return settings.server_name or host


def accept_tls(connection: socket.socket, context: ssl.SSLContext, timeout_s: float) -> ssl.SSLSocket:
    """Return the TLS end of a connection that a client has opened, for the caller to close, however it goes on.

    The caller's next call is its `do_handshake`.  All of that may take `timeout_s`, and raises OSError where it fails
    (ssl.SSLError) or takes too long (TimeoutError).

    Raises
    ------
    OSError
        The client is gone.
    """
    connection.settimeout(timeout_s)
    return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)


def peer_names(connection: ssl.SSLSocket) -> frozenset[str]:
    """Return what the peer's verified certificate calls it: subject common name, DNS names and IP addresses."""
    certificate: dict[str, Any] = dict(connection.getpeercert() or {})
    subject = [pair for group in certificate.get("subject", ()) for pair in group]
    names = [value for kind, value in subject if kind == "commonName"]
    names += [value for kind, value in certificate.get("subjectAltName", ()) if kind in ("DNS", "IP Address")]
    return frozenset(names)


def words(error: OSError) -> str:
    """Return what OpenSSL or the system says is wrong, without numbers and names of source files."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not trusted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
    return (reason or type(error).__name__).lower().replace("_", " ")


class ListenerTls:
    """The context for new connections, made anew after one of its files was replaced.

    Files that do not fit together (the certificate is new, the key still old) change nothing until they do.

    Raises
    ------
    SettingsError
        As `server_context`, when it is built; never later.
    """

    def __init__(self, settings: TlsListenerSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._seen = self._files()
        self._context = server_context(settings)

    def context(self) -> ssl.SSLContext:
        """Return the context to shake hands with now."""
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

    def read_password() -> str:  # asked for only where the key is encrypted; without it OpenSSL asks the terminal
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
