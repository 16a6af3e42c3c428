"""MLLP by TLS: both ends, with and without client certificates."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from gateway.errors import DeliveryDeferred
from gateway.hl7.acks import build_ack
from gateway.hl7.client import MllpClient
from gateway.hl7.mllp import MllpListener
from gateway.settings import Hl7Destination, TlsClientSettings, TlsListenerSettings
from gateway.tls import ListenerTls
from tests.tls_samples import Authority, Identity

MESSAGE = b"MSH|^~\\&|ECGGW|HOSP|EHR|HOSP|20261122101530+0100||ORU^R01^ORU_R01|GW42|P|2.5.1\r"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def ehr(authority: Authority) -> Identity:
    return authority.issue("ehr", "localhost", "127.0.0.1")


@contextmanager
def listening(authority: Authority, identity: Identity, idle_timeout_s: float = 5.0) -> Iterator[int]:
    tls = TlsListenerSettings(
        certificate_file=identity.certificate_file,
        private_key_file=identity.private_key_file,
        ca_file=authority.ca_file,
    )
    listener = MllpListener(
        "127.0.0.1",
        0,
        lambda message: (build_ack(message, "AA"),),
        tls=ListenerTls(tls),
        idle_timeout_s=idle_timeout_s,
    )
    listener.start()
    yield listener.port
    listener.stop()


def destination(port: int, tls: TlsClientSettings | None) -> Hl7Destination:
    return Hl7Destination(name="ehr", host="127.0.0.1", port=port, tls=tls, timeout_s=2.0)


def test_both_show_a_certificate_and_the_connection_is_kept(authority, ehr):
    tls = TlsClientSettings(
        certificate_file=ehr.certificate_file, private_key_file=ehr.private_key_file, ca_file=authority.ca_file
    )
    with listening(authority, ehr) as port, closing(MllpClient(destination(port, tls))) as client:
        for number in range(3):
            assert client.send(MESSAGE.replace(b"GW42", b"GW%d" % number)) == "AA"


@pytest.mark.parametrize("kind", ["no certificate", "plain", "stranger's authority"])
def test_who_is_not_let_in(authority, ehr, kind, tmp_path):
    tls = {
        "no certificate": TlsClientSettings(ca_file=authority.ca_file),
        "plain": None,
        "stranger's authority": TlsClientSettings(ca_file=Authority(tmp_path).ca_file),
    }[kind]
    with listening(authority, ehr) as port, closing(MllpClient(destination(port, tls))) as client:
        with pytest.raises(DeliveryDeferred):
            client.send(MESSAGE)


def test_certificate_file_that_is_gone_defers(authority, ehr, tmp_path):
    tls = TlsClientSettings(ca_file=tmp_path / "gone.pem")
    with listening(authority, ehr) as port, closing(MllpClient(destination(port, tls))) as client:
        with pytest.raises(DeliveryDeferred, match=r"gone\.pem"):
            client.send(MESSAGE)


def test_silent_client_holds_up_nobody(authority, ehr):
    tls = TlsClientSettings(
        certificate_file=ehr.certificate_file, private_key_file=ehr.private_key_file, ca_file=authority.ca_file
    )
    with listening(authority, ehr, idle_timeout_s=1.0) as port:
        with socket.create_connection(("127.0.0.1", port), 5) as silent:
            started = time.monotonic()
            with closing(MllpClient(destination(port, tls))) as client:
                assert client.send(MESSAGE) == "AA"
            assert time.monotonic() - started < 0.9
            assert silent.recv(1) == b""  # its handshake was not waited for any longer
            assert time.monotonic() - started < 3
