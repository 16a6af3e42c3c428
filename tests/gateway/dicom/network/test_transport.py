"""Attacks on the SCP's transport, each over real sockets, and a healthy peer that must be served meanwhile."""

from __future__ import annotations

import logging
import os
import resource
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pynetdicom import AE, build_context, evt
from pynetdicom.dsutils import decode

from gateway.dicom.network.scp import StorageScp
from gateway.dicom.network.transport import BoundedBuffer
from gateway.security.tls import client_context
from gateway.settings import DicomTlsSettings, TlsClientSettings
from tests.gateway.dicom.samples import secondary_capture
from tests.gateway.dicom.scp_peers import TIMEOUT_S, associate, encoded, listening, send_bytes
from tests.tls_samples import Authority
from tests.waiting import PATIENCE_S, SOON_S, eventually

HALF_A_REQUEST = b"\x01\x00" + struct.pack(">L", 200) + b"\0" * 68  # of an A-ASSOCIATE-RQ


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """pynetdicom logs every broken connection with a traceback."""
    caplog.set_level(logging.CRITICAL, logger="pynetdicom")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def tls_settings(authority: Authority) -> DicomTlsSettings:
    identity = authority.issue("gateway", "localhost")
    return DicomTlsSettings(
        port=0, certificate_file=identity.certificate_file, private_key_file=identity.private_key_file
    )


@pytest.fixture(scope="module")
def scp(tls_settings: DicomTlsSettings) -> Iterator[StorageScp]:
    """Waits for a peer so long that whoever were held up by another one would be too late."""
    with listening(tls=tls_settings, maximum_connections_per_host=100) as scp:
        yield scp


@pytest.fixture(scope="module")
def strict(tls_settings: DicomTlsSettings) -> Iterator[StorageScp]:
    """Waits `TIMEOUT_S` for a peer."""
    with listening(tls=tls_settings, maximum_connections_per_host=100, timeout_s=TIMEOUT_S) as scp:
        yield scp


@pytest.fixture(scope="module")
def tls(authority: Authority) -> ssl.SSLContext:
    """What a healthy TLS peer connects with."""
    return client_context(TlsClientSettings(ca_file=authority.ca_file))


def closed_within(connection: socket.socket, seconds: float) -> bool:
    connection.settimeout(seconds)
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def still_serves(scp: StorageScp, tls: ssl.SSLContext | None = None, source: str = "127.0.0.1") -> bool:
    """Whether a healthy peer, from another address if `source` says so, has an object stored in time."""
    started = time.monotonic()
    association = associate(scp, tls=tls, source=source)
    if not association.is_established:
        return False
    answer = send_bytes(association, encoded(secondary_capture()))
    association.release()
    return bool(answer.Status == 0x0000) and time.monotonic() - started < SOON_S


@contextmanager
def connections(port: int, count: int, source: str = "127.0.0.1") -> Iterator[list[socket.socket]]:
    """Open connections from a loopback address; whatever the other side does to them, they are closed at the end."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE_S, source_address=(source, 0)))
            for _ in range(count)
        ]


def closed(opened: list[socket.socket]) -> int:
    """How many of them the other side has closed by now."""
    return sum(closed_within(connection, 0.001) for connection in opened)


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged about connections over a limit."""
    return [record.getMessage() for record in caplog.records if getattr(record, "action", "") == "connection_refused"]


@pytest.mark.parametrize(
    "sent",
    [
        b"",  # connects and says nothing
        b"\x01\x00\x00\x00",  # half a header
        HALF_A_REQUEST,
        b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n",
        b"\x04\x00" + struct.pack(">L", 4) + b"\0\0\0\0",  # P-DATA before any association
    ],
)
def test_a_peer_that_stalls_or_lies_is_closed_and_others_are_served(
    scp: StorageScp, strict: StorageScp, sent: bytes, quiet: None
) -> None:
    with connections(scp.port, 1) as (waited_for,), connections(strict.port, 1) as (cut_off,):
        waited_for.sendall(sent)
        cut_off.sendall(sent)
        assert still_serves(scp)
        assert closed_within(cut_off, SOON_S)


def test_a_connection_is_served_whatever_the_number_of_its_descriptor(scp: StorageScp) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2000:
        pytest.skip("the system allows fewer than 2000 open files")
    with ExitStack() as others:
        for _ in range(1100):
            others.callback(os.close, os.dup(0))
        assert still_serves(scp)


def test_a_pdu_that_announces_4_gib_is_not_collected(scp: StorageScp, quiet: None) -> None:
    sent = 0
    with socket.create_connection(("127.0.0.1", scp.port)) as connection:
        connection.sendall(b"\x01\x00" + struct.pack(">L", 0xFFFFFFFF))
        with pytest.raises(OSError):
            while sent < 256 << 20:
                sent += connection.send(b"\0" * (1 << 20))
    assert sent < 64 << 20  # what fits in the sockets' buffers, and no more


def test_a_pdu_that_trickles_in_is_cut_off(strict: StorageScp, quiet: None) -> None:
    with socket.create_connection(("127.0.0.1", strict.port)) as connection:
        connection.sendall(b"\x01\x00" + struct.pack(">L", 1000))
        started = time.monotonic()
        closed = False
        while not closed and time.monotonic() - started < SOON_S:
            time.sleep(TIMEOUT_S / 5)
            try:
                connection.sendall(b"\0")
                connection.setblocking(False)
                closed = connection.recv(100) == b""
            except BlockingIOError:
                connection.setblocking(True)
            except OSError:
                closed = True
        assert closed


def test_an_endless_command_set_ends_the_association(scp: StorageScp, quiet: None) -> None:
    association = associate(scp)
    fragment = b"\x01" + b"\0" * 16000  # command, not the last
    pdv = struct.pack(">LB", len(fragment) + 1, 1) + fragment
    pdu = b"\x04\x00" + struct.pack(">L", len(pdv)) + pdv
    try:
        for _ in range(20):
            association.dul.socket.socket.sendall(pdu)
    except OSError:
        pass
    eventually(lambda: not association.is_established)
    assert association.is_aborted
    assert still_serves(scp)


def test_a_command_that_cannot_be_decoded_ends_its_association_in_order(
    scp: StorageScp, caplog: pytest.LogCaptureFixture
) -> None:
    association = associate(scp)
    association.dul.socket.socket.sendall(b"\x04\0\0\0\0\x0e\0\0\0\x0a\x01\x03" + bytes(8))  # one element of no name
    eventually(lambda: not association.is_established)
    assert association.is_aborted and still_serves(scp)
    assert "no DIMSE message" in caplog.text
    assert [record.name for record in caplog.records if record.exc_info] == []


def test_a_peer_that_breaks_off_before_it_is_answered_ends_no_thread(
    scp: StorageScp, caplog: pytest.LogCaptureFixture
) -> None:
    """A dead thread is an error of the test: pytest's warning."""
    request = recorded_store(scp)[0]

    def broken_off() -> bool:
        with socket.create_connection(("127.0.0.1", scp.port)) as connection:
            connection.sendall(request + b"\x09\0\0\0\0\0")  # then a PDU of an unknown type
            assert closed_within(connection, PATIENCE_S)
        return "Evt7 in Sta13" in caplog.text

    eventually(broken_off)
    assert still_serves(scp)


def recorded_store(scp: StorageScp) -> list[bytes]:
    """The PDUs of one good C-STORE as the sender wrote them: A-ASSOCIATE-RQ, P-DATA..., A-RELEASE-RQ."""
    pdus: list[bytes] = []
    ae = AE(ae_title="CART1")
    association = ae.associate(
        "127.0.0.1",
        scp.port,
        [build_context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian)],
        ae_title="ECGGW",
        evt_handlers=[(evt.EVT_DATA_SENT, lambda event: pdus.append(event.data))],
    )
    assert send_bytes(association, encoded(secondary_capture())).Status == 0x0000
    association.release()
    return pdus


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom says what is wrong with the mutants
def test_mutated_conversations_harm_nobody_else(scp: StorageScp, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    pdus = recorded_store(scp)
    assert len(pdus) >= 4
    rng = np.random.default_rng(20260301)
    before = threading.active_count()
    for _ in range(60):
        victim = int(rng.integers(len(pdus)))
        with socket.create_connection(("127.0.0.1", scp.port)) as connection:
            connection.settimeout(0.1)
            try:
                for number, pdu in enumerate(pdus):
                    connection.sendall(mutated(pdu, rng) if number == victim else pdu)
                    if number == 0:
                        connection.recv(4096)
                connection.recv(4096)
            except OSError:  # closed, or no answer
                continue
    assert still_serves(scp)
    eventually(lambda: threading.active_count() <= before, SOON_S)


def mutated(pdu: bytes, rng: np.random.Generator) -> bytes:
    """Change up to four bytes, most of them in the head, where the lengths and tags are."""
    changed = bytearray(pdu)
    for _ in range(int(rng.integers(1, 5))):
        limit = len(changed) if rng.random() < 0.3 else min(len(changed), 120)
        changed[int(rng.integers(limit))] = int(rng.integers(256))
    return bytes(changed)


# ---- many at once


def test_silent_clients_on_the_tls_port_hold_nobody_up(scp: StorageScp, tls: ssl.SSLContext, quiet: None) -> None:
    """Stock pynetdicom shakes hands in the thread that accepts: one silent client hangs all."""
    with connections(scp.tls_port, 12) as silent:
        assert still_serves(scp, tls=tls)
        assert closed(silent) == 0  # it was not served because they were gone


def test_silent_clients_on_the_tls_port_are_cut_off(strict: StorageScp) -> None:
    with connections(strict.tls_port, 12) as silent:
        eventually(lambda: closed(silent) == 12, SOON_S)


def test_a_tls_handshake_that_trickles_in_is_cut_off(strict: StorageScp, quiet: None) -> None:
    started = time.monotonic()
    with connections(strict.tls_port, 1) as (connection,):
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        while not closed_within(connection, TIMEOUT_S / 5) and time.monotonic() - started < SOON_S:
            try:
                connection.sendall(b"\0")
            except OSError:
                break
        assert TIMEOUT_S * 0.8 < time.monotonic() - started < SOON_S


@pytest.mark.parametrize("sent", [HALF_A_REQUEST, b"\x01\x00" + struct.pack(">L", 0xFFFFFFFF) + b"\0" * 100])
def test_half_a_pdu_inside_of_tls_times_out_too(
    scp: StorageScp, strict: StorageScp, tls: ssl.SSLContext, sent: bytes, quiet: None
) -> None:
    with ExitStack() as stack:
        for port in (scp.tls_port, strict.tls_port):
            (raw,) = stack.enter_context(connections(port, 1))
            connection = stack.enter_context(tls.wrap_socket(raw, server_hostname="localhost"))
            connection.sendall(sent)
        assert still_serves(scp, tls=tls)
        assert closed_within(connection, SOON_S)


@pytest.mark.parametrize("sent", [b"\x01\x00" + struct.pack(">L", 200), b"GET / HTTP/1.1\r\n\r\n"])
def test_what_is_no_tls_is_closed_at_once(scp: StorageScp, sent: bytes) -> None:
    with connections(scp.tls_port, 1) as (connection,):
        connection.sendall(sent)
        assert closed_within(connection, SOON_S)


def test_half_requests_of_many_peers_take_no_association_away(quiet: None) -> None:
    """Stock pynetdicom: two of them hold `maximum_associations = 2` for ever."""
    before = threading.active_count()
    with listening(maximum_associations=2) as scp, connections(scp.port, 6) as stalled:
        for connection in stalled:
            connection.sendall(HALF_A_REQUEST)
        eventually(lambda: threading.active_count() > before + 6)
        assert still_serves(scp)
        assert closed(stalled) == 0


def test_one_address_cannot_take_every_connection(caplog: pytest.LogCaptureFixture, quiet: None) -> None:
    caplog.set_level(logging.WARNING, logger="gateway")
    with listening(maximum_connections_per_host=5) as scp:
        before = threading.active_count()
        with connections(scp.port, 50, source="127.0.0.9") as idle:
            eventually(lambda: closed(idle) == 45, SOON_S)  # at once, not after the timeout
            assert threading.active_count() - before <= 5 * 3  # no thread was made for the others
            assert still_serves(scp, source="127.0.0.1")
            assert closed(idle) == 45
        (refusal,) = refusals(caplog)
        assert "127.0.0.9" in refusal
        eventually(lambda: still_serves(scp, source="127.0.0.9"))  # and it may come back


def test_many_addresses_cannot_take_every_thread(quiet: None) -> None:
    with listening(maximum_associations=2) as scp:  # so eight connections
        with ExitStack() as stack:
            idle = [
                connection
                for host in range(2, 8)
                for connection in stack.enter_context(connections(scp.port, 2, source=f"127.0.0.{host}"))
            ]
            eventually(lambda: closed(idle) == 4, SOON_S)
        eventually(lambda: still_serves(scp))


def test_connections_of_both_ports_count_together(tls_settings: DicomTlsSettings, quiet: None) -> None:
    with (
        listening(maximum_connections_per_host=5, tls=tls_settings) as scp,
        connections(scp.port, 3, "127.0.0.8") as plain,
        connections(scp.tls_port, 3, "127.0.0.8") as secure,
    ):
        eventually(lambda: closed(plain) + closed(secure) == 1, SOON_S)


@pytest.mark.parametrize("sent", [b"", HALF_A_REQUEST, b"GET / HTTP/1.1\r\n\r\n"])
def test_peers_that_come_and_go_leave_nothing_behind(sent: bytes, quiet: None) -> None:
    """Stock pynetdicom waits for their requests until the timeout: a check every second would take all places."""
    before = threading.active_count()
    with listening() as scp:
        for _ in range(10):
            with connections(scp.port, 1) as (connection,):
                connection.sendall(sent)
        eventually(lambda: threading.active_count() <= before + 1, SOON_S)  # the one that listens
        assert still_serves(scp)


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n\r\n"])
def test_a_connection_counts_no_more_when_its_peer_sees_it_closed(
    tls_settings: DicomTlsSettings, caplog: pytest.LogCaptureFixture, quiet: None, sent: bytes, secure: bool
) -> None:
    caplog.set_level(logging.WARNING, logger="gateway")
    with listening(maximum_connections_per_host=1, tls=tls_settings, timeout_s=0.2) as scp:
        for _ in range(15):
            with connections(scp.tls_port if secure else scp.port, 1) as (connection,):
                connection.sendall(sent)
                assert closed_within(connection, SOON_S)
    assert refusals(caplog) == []


def test_an_object_over_the_limit_is_not_collected(quiet: None) -> None:
    with listening(maximum_object_mib=1) as scp:
        association = associate(scp)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        data = encoded(secondary_capture()) + bytes(64 << 20)
        sent_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # ours to send
        assert send_bytes(association, data).Status == 0xC001
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before - sent_kib
        assert grown_kib < 150 << 10  # the sender's own fragments; the receiver holds 1 MiB
        association.release()
        assert still_serves(scp)


def test_stop_ends_connections_that_never_asked_for_anything(tls_settings: DicomTlsSettings, quiet: None) -> None:
    before = threading.active_count()
    with (
        listening(tls=tls_settings) as scp,
        connections(scp.port, 4) as plain,
        connections(scp.tls_port, 2) as secure,
    ):
        plain[0].sendall(HALF_A_REQUEST)
        plain[1].sendall(b"\x01")
        threads = 2 + 4 * 3 + 2  # that listen, that wait for an association, that shake hands
        eventually(lambda: threading.active_count() >= before + threads)
        started = time.monotonic()
        scp.stop(grace_s=0.1)
        assert time.monotonic() - started < SOON_S
        assert not scp.is_alive
        assert all(closed_within(connection, SOON_S) for connection in plain + secure)
        eventually(lambda: threading.active_count() <= before, SOON_S)


def test_stop_does_not_wait_for_the_rest_of_a_pdu(quiet: None) -> None:
    with listening() as scp:
        association = associate(scp)
        association.dul.socket.socket.sendall(b"\x04\x00" + struct.pack(">L", 500) + b"\0" * 20)
        started = time.monotonic()
        scp.stop(grace_s=0.1)
        assert time.monotonic() - started < SOON_S
        eventually(lambda: not association.is_established)


def test_items_of_a_message_are_bounded_while_it_is_decoded() -> None:
    """pynetdicom decodes what N-ACTION and N-EVENT-REPORT bring from the buffer that it arrived in."""
    buffer = BoundedBuffer(1 << 24)
    head = struct.pack("<HHL", 0x0008, 0x1199, 0xFFFFFFFF)
    buffer.write(head + struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 1_500_000)
    begun = time.thread_time()
    with pytest.raises(OSError):
        decode(buffer, is_implicit_vr=True, is_little_endian=True)
    assert time.thread_time() - begun < 5
    assert buffer.problem == "more than 50000 elements and items"
