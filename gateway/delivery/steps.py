"""The steps of a destination's check: name, TCP, TLS, and what the kind of destination adds.

A step is tried only if the one before it succeeded.  A step that fails says what was found and what to do about it.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from gateway.delivery.sample_ecg import TEST_PATIENT_ID
from gateway.errors import DeliveryError, SettingsError
from gateway.security.tls import client_context, server_name, words
from gateway.settings import TlsClientSettings

_ALERT_S = 0.3  # a TLS 1.3 server that does not like our certificate says so after the handshake

STATUSES = (
    (range(0xA700, 0xA800), "the peer is out of resources: its disk may be full"),
    (range(0xA900, 0xAA00), "the peer finds the object not to be what its SOP class says: see its log"),
    (range(0xC000, 0xD000), "the peer cannot read the object: see its log"),
    (range(0x0122, 0x0123), "the peer does not take this SOP class: set sop_class, or have it configured there"),
    (range(0x0124, 0x0125), "the peer does not allow this: have our AE title given the right there"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a check: what was found, and what to do if it failed."""

    name: str
    ok: bool
    found: str
    advice: str = ""


def reach(host: str, port: int, timeout_s: float, tls: TlsClientSettings | None) -> Iterator[Step]:
    """Yield the steps to a connection: name, TCP, and TLS where there are settings for it."""
    name = _resolve(host)
    yield name
    if not name.ok:
        return
    try:
        connection = socket.create_connection((host, port), timeout_s)
    except OSError as error:
        yield Step(name="TCP", ok=False, found=f"{host}:{port}: {words(error)}", advice=_tcp_advice(error, port))
        return
    with connection:
        yield Step(name="TCP", ok=True, found=f"{host}:{port} takes connections")
        if tls is not None:
            yield _handshake(connection, host, timeout_s, tls)


def _resolve(host: str) -> Step:
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError as error:
        advice = "check the spelling of host, and this machine's name servers; or write the address instead"
        return Step(name="name", ok=False, found=f"{host} cannot be resolved ({words(error)})", advice=advice)
    return Step(name="name", ok=True, found=f"{host} is {', '.join(sorted(found))}")


def _tcp_advice(error: OSError, port: int) -> str:
    if isinstance(error, ConnectionRefusedError):
        return f"the machine is there, but nothing listens on port {port}: check port, and that the peer's service runs"
    if isinstance(error, TimeoutError):
        return "nothing came back: check host, and that the firewalls between let this port through"
    return "check host, and this machine's network"


def _handshake(connection: socket.socket, host: str, timeout_s: float, tls: TlsClientSettings) -> Step:
    try:
        context = client_context(tls)
    except SettingsError as error:
        return Step(name="TLS", ok=False, found=str(error), advice="correct the file; check-config checks it too")
    connection.settimeout(timeout_s)
    agreed = False
    try:
        with context.wrap_socket(connection, server_hostname=server_name(tls, host)) as secure:
            agreed = True
            _await_alert(secure)
            cipher = secure.cipher()
            certificate = secure.getpeercert() or {}
            found = f"{secure.version()}, {cipher[0] if cipher else ''}, its certificate ends {certificate['notAfter']}"
            return Step(name="TLS", ok=True, found=found)
    except OSError as error:
        advice = _tls_advice(error, server_name(tls, host), agreed=agreed)
        return Step(name="TLS", ok=False, found=words(error), advice=advice)


def _await_alert(secure: ssl.SSLSocket) -> None:
    """Wait for the peer to object to our certificate; raise OSError when it does."""
    secure.settimeout(_ALERT_S)
    try:
        if not secure.recv(1):
            raise ConnectionResetError("closed after the handshake")
    except TimeoutError:
        return  # it waits for us to speak: all is well


def _tls_advice(error: OSError, name: str, *, agreed: bool) -> str:
    """Return what to do; `agreed`: the handshake was over, and the peer closed then."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if "mismatch" in error.verify_message:
            return f"its certificate is not for {name}: set server_name to the name that stands in it"
        if "expired" in error.verify_message:
            return "the peer's certificate has ended: have it renewed there"
        return "set ca_file to the authority that issued the peer's certificate"
    reason = (error.reason or "") if isinstance(error, ssl.SSLError) else ""
    if "PROTOCOL_VERSION" in reason or "HANDSHAKE_FAILURE" in reason:
        return "nothing in common: the peer must speak TLS 1.2 or 1.3 with ECDHE and AES-GCM; try the other profile"
    if "ALERT" in reason or agreed:
        return "the peer does not take our certificate: set certificate_file, and have its authority trusted there"
    return "the port does not speak TLS: use the peer's TLS port, or leave [destinations.tls] out"


def sent_test(
    check: Iterator[Step], name: str, send: Callable[[], str], advice: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Step]:
    """Yield the steps of a check, and then that of sending the test ECG; `advice` by the peer's answer."""
    for step in check:
        yield step
        if not step.ok:
            return
    try:
        answer = send()
    except DeliveryError as error:
        told = advice.get(error.response) or answer_advice(error.response)
        yield Step(name=name, ok=False, found=str(error), advice=told)
        return
    yield Step(name=name, ok=True, found=f"answered {answer}; delete patient {TEST_PATIENT_ID} there afterwards")


def answer_advice(response: str, statuses: Sequence[tuple[range, str]] = STATUSES) -> str:
    """Return what to do about a DICOM status ("0xA700") or an HL7 acknowledgement code ("AE")."""
    code = int(response, 16) if response.startswith("0x") else -1
    return next((advice for codes, advice in statuses if code in codes), "see the peer's log")
