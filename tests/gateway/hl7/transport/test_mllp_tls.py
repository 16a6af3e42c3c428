"""MLLP by TLS: both ends, with and without client certificates."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from gateway.errors import DeliveryDeferred
from gateway.hl7.inbound.acknowledgement import build_ack
from gateway.hl7.transport.client import MllpClient
from gateway.hl7.transport.mllp import MllpLimits, MllpListener
from gateway.security.tls import ListenerTls
from gateway.settings import Hl7Destination, TlsClientSettings, TlsListenerSettings
from tests.tls_samples import Authority, Identity
from tests.waiting import PATIENCE_S, SOON_S, eventually

MESSAGE = b"MSH|^~\\&|ECGGW|HOSP|EHR|HOSP|20261122101530+0100||ORU^R01^ORU_R01|GW42|P|2.5.1\r"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def ehr(authority: Authority) -> Identity:
    return authority.issue("ehr", "localhost", "127.0.0.1")


@pytest.fixture(scope="module")
def tls(authority: Authority, ehr: Identity) -> TlsClientSettings:
    """What a client that is let in has."""
    return TlsClientSettings(
        certificate_file=ehr.certificate_file, private_key_file=ehr.private_key_file, ca_file=authority.ca_file
    )


def accept(message: bytes) -> tuple[bytes]:
    return (build_ack(message, "AA"),)


@contextmanager
def listening(
    authority: Authority,
    identity: Identity,
    answer: Callable[[bytes], tuple[bytes]] = accept,
    idle_timeout_s: float = PATIENCE_S,
) -> Iterator[MllpListener]:
    tls = TlsListenerSettings(
        certificate_file=identity.certificate_file,
        private_key_file=identity.private_key_file,
        ca_file=authority.ca_file,
    )
    listener = MllpListener(
        "127.0.0.1",
        0,
        answer,
        tls=ListenerTls(tls),
        limits=MllpLimits(idle_timeout_s=idle_timeout_s),
    )
    listener.start()
    try:
        yield listener
    finally:
        listener.stop()


def destination(port: int, tls: TlsClientSettings | None) -> Hl7Destination:
    return Hl7Destination(name="ehr", host="127.0.0.1", port=port, tls=tls, timeout_s=PATIENCE_S)


def test_both_show_a_certificate_and_the_connection_is_kept(authority, ehr, tls):
    with listening(authority, ehr) as listener, closing(MllpClient(destination(listener.port, tls))) as client:
        for number in range(3):
            assert client.send(MESSAGE.replace(b"GW42", b"GW%d" % number)) == "AA"


@pytest.mark.parametrize("kind", ["no certificate", "plain", "stranger's authority"])
def test_who_is_not_let_in(authority, ehr, kind, tmp_path):
    tls = {
        "no certificate": TlsClientSettings(ca_file=authority.ca_file),
        "plain": None,
        "stranger's authority": TlsClientSettings(ca_file=Authority(tmp_path).ca_file),
    }[kind]
    with listening(authority, ehr) as listener, closing(MllpClient(destination(listener.port, tls))) as client:
        with pytest.raises(DeliveryDeferred):
            client.send(MESSAGE)


def test_certificate_file_that_is_gone_defers(authority, ehr, tmp_path):
    tls = TlsClientSettings(ca_file=tmp_path / "gone.pem")
    with listening(authority, ehr) as listener, closing(MllpClient(destination(listener.port, tls))) as client:
        with pytest.raises(DeliveryDeferred, match=r"gone\.pem"):
            client.send(MESSAGE)


def test_silent_client_holds_up_nobody(authority, ehr, tls):
    with listening(authority, ehr) as listener:
        port = listener.port
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as silent:
            with closing(MllpClient(destination(port, tls))) as client:
                assert client.send(MESSAGE) == "AA"
            with pytest.raises(BlockingIOError):  # it was not served because the other was gone
                silent.setblocking(False)
                silent.recv(1)


def test_silent_client_is_not_waited_for(authority, ehr):
    with listening(authority, ehr, idle_timeout_s=1.0) as listener:
        with socket.create_connection(("127.0.0.1", listener.port), PATIENCE_S) as silent:
            started = time.monotonic()
            assert silent.recv(1) == b""
            assert time.monotonic() - started < SOON_S


def test_stop_ends_a_handshake_under_way_and_lets_a_message_in_hand_be_answered(authority, ehr, tls):
    entered, leave, codes = threading.Event(), threading.Event(), []

    def slow(message: bytes) -> tuple[bytes]:
        entered.set()
        leave.wait(PATIENCE_S)
        return accept(message)

    with listening(authority, ehr, slow) as listener, closing(MllpClient(destination(listener.port, tls))) as client:
        sender = threading.Thread(target=lambda: codes.append(client.send(MESSAGE)))
        sender.start()
        assert entered.wait(PATIENCE_S)
        with socket.create_connection(("127.0.0.1", listener.port), PATIENCE_S) as silent:
            eventually(lambda: len(listener._connections) == 2)
            threading.Timer(0.5, leave.set).start()
            started = time.monotonic()
            listener.stop(timeout_s=PATIENCE_S)
            assert time.monotonic() - started < SOON_S
            while silent.recv(100):  # it is told why
                pass
        sender.join(PATIENCE_S)
    assert codes == ["AA"]
