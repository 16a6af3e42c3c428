"""DICOM over TLS, in and out: beside the plain port, who may come with which certificate, replaced files, bad peers."""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from gateway.dicom.network.scp import StorageScp, is_allowed
from gateway.dicom.network.scu import send
from gateway.errors import DeliveryDeferred, SettingsError
from gateway.security.tls import client_context
from gateway.settings import CallerSettings, DicomDestination, DicomTlsSettings, TlsClientSettings
from tests.gateway.dicom.samples import part10, secondary_capture
from tests.gateway.dicom.scp_peers import FakeIntake, associate, encoded, listen, rejection, store
from tests.tls_samples import Authority, Identity
from tests.waiting import PATIENCE_S, wait_for

CALLERS = (
    CallerSettings(ae_title="CART1", certificate_names=("cart1.example",)),
    CallerSettings(ae_title="CART2", certificate_names=("cart2.example", "spare.example")),
    CallerSettings(ae_title="OLD"),
)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="pynetdicom")
    caplog.set_level(logging.INFO, logger="gateway")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def cart1(authority: Authority) -> Identity:
    return authority.issue("cart1.example")


def listener(authority: Authority, identity: Identity, **more: Any) -> DicomTlsSettings:
    return DicomTlsSettings(
        port=0,
        certificate_file=identity.certificate_file,
        private_key_file=identity.private_key_file,
        **{"ca_file": authority.ca_file, **more},
    )


def client(authority: Authority, identity: Identity | None) -> TlsClientSettings:
    return TlsClientSettings(
        ca_file=authority.ca_file,
        certificate_file=identity.certificate_file if identity else None,
        private_key_file=identity.private_key_file if identity else None,
        server_name="localhost",
    )


@pytest.fixture(scope="module")
def scp(authority: Authority) -> Iterator[StorageScp]:
    tls = listener(authority, authority.issue("gateway", "localhost"))
    scp = listen(FakeIntake(), callers=CALLERS, tls=tls)
    yield scp
    scp.stop(grace_s=0.0)


# ---- coming in


def test_both_ports_serve_side_by_side(scp: StorageScp, authority: Authority, cart1: Identity) -> None:
    context = client_context(client(authority, cart1))
    assert scp.port != scp.tls_port
    plain, secure = associate(scp, calling="OLD"), associate(scp, tls=context)
    assert plain.is_established and secure.is_established
    secure.release()
    plain.release()
    assert store(scp, encoded(secondary_capture()), tls=context).Status == 0x0000


def test_a_caller_with_certificate_names_must_show_one_of_them(
    scp: StorageScp, authority: Authority, cart1: Identity
) -> None:
    context = client_context(client(authority, cart1))
    assert rejection(associate(scp, calling="CART2", tls=context)) == (0x01, 0x01, 0x03)  # another's certificate
    assert rejection(associate(scp, calling="CART1")) == (0x01, 0x01, 0x03)  # no certificate
    assert associate(scp, calling="OLD", tls=context).is_established  # is not bound to one


def test_a_peer_without_a_certificate_of_ours_is_not_let_in(
    scp: StorageScp, tmp_path: Path, authority: Authority
) -> None:
    stranger = Authority(tmp_path).issue("cart1.example")
    for identity in (None, stranger):
        association = associate(scp, calling="OLD", tls=client_context(client(authority, identity)))
        assert not association.is_established


@pytest.mark.parametrize(
    ("ae_title", "names", "allowed"),
    [
        ("CART1", {"Cart1.Example"}, True),
        ("CART1", {"cart1", "cart1.example"}, True),
        ("CART1", {"cart2.example"}, False),
        ("CART1", set(), False),
        ("CART2", {"spare.example"}, True),
        ("OLD", set(), True),
        ("OLD", {"anything"}, True),
        ("NEW", {"cart1.example"}, False),
    ],
)
def test_certificates_and_titles(ae_title: str, names: set[str], allowed: bool) -> None:
    assert is_allowed(CALLERS, ae_title, "192.0.2.1", frozenset(names)) is allowed


def test_only_the_tls_port(authority: Authority, cart1: Identity) -> None:
    scp = listen(FakeIntake(), plain=False, tls=listener(authority, authority.issue("gateway", "localhost")))
    try:
        assert associate(scp, tls=client_context(client(authority, cart1))).is_established
        assert not associate(scp).is_established
    finally:
        scp.stop(grace_s=0.0)


def test_new_certificates_are_used_and_open_associations_go_on(authority: Authority, cart1: Identity) -> None:
    first = authority.issue("gateway", "localhost", file="renewed")
    scp = listen(FakeIntake(), tls=listener(authority, first))
    context = client_context(client(authority, cart1))
    try:
        before = associate(scp, Verification, tls=context)
        second = authority.issue("gateway", "localhost", file="renewal")
        for new, old in (
            (second.certificate_file, first.certificate_file),
            (second.private_key_file, first.private_key_file),
        ):
            os.replace(new, old)
        after = associate(scp, Verification, tls=context)
        serials = [association.dul.socket.socket.getpeercert()["serialNumber"] for association in (before, after)]
        assert serials[0] != serials[1]
        assert before.send_c_echo().Status == after.send_c_echo().Status == 0x0000
        before.release()
        after.release()
    finally:
        scp.stop(grace_s=0.0)


def test_unusable_certificates_stop_the_start_and_leave_no_port_open(authority: Authority, tmp_path: Path) -> None:
    absent = Identity(tmp_path / "absent.pem", tmp_path / "absent.key")
    with pytest.raises(SettingsError, match=r"absent\.pem is no file"):
        listen(FakeIntake(), tls=listener(authority, absent))


def test_why_a_handshake_failed_is_logged(
    scp: StorageScp, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    associate(scp, tls=client_context(client(authority, None)))
    why = "TLS handshake with 127.0.0.1 failed: peer did not return a certificate"
    wait_for("the log", lambda: why in caplog.text)


# ---- going out


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.dcm"
    path.write_bytes(part10(secondary_capture()))
    return path


def pacs(port: int, tls: TlsClientSettings | None) -> DicomDestination:
    return DicomDestination(name="pacs", host="127.0.0.1", port=port, ae_title="ECGGW", timeout_s=PATIENCE_S, tls=tls)


def test_a_destination_with_tls_is_delivered_to(
    scp: StorageScp, authority: Authority, cart1: Identity, page: Path
) -> None:
    assert send(page, pacs(scp.tls_port, client(authority, cart1)), "CART1") == "0x0000"


def test_why_a_destination_is_not_reached_is_said(
    scp: StorageScp, tmp_path: Path, authority: Authority, cart1: Identity, page: Path
) -> None:
    def why(port: int, tls: TlsClientSettings) -> str:
        with pytest.raises(DeliveryDeferred) as raised:
            send(page, pacs(port, tls), "CART1")
        return str(raised.value)

    trusted = client(authority, cart1)
    other = Authority(tmp_path, "Other CA")
    assert "certificate not trusted: " in why(scp.tls_port, client(other, cart1))
    elsewhere = trusted.model_copy(update={"server_name": "pacs.example"})
    assert "Hostname mismatch, certificate is not valid for 'pacs.example'" in why(scp.tls_port, elsewhere)
    gone = trusted.model_copy(update={"certificate_file": tmp_path / "gone.pem"})
    assert "gone.pem is no file" in why(scp.tls_port, gone)
    assert "no association" in why(scp.port, trusted)  # TLS to a port that is plain
    assert "certificate required" in why(scp.tls_port, client(authority, None))


def test_a_plain_destination_that_speaks_tls_is_not_reached(scp: StorageScp, page: Path) -> None:
    with pytest.raises(DeliveryDeferred, match="no association"):
        send(page, pacs(scp.tls_port, None), "OLD")


def test_the_server_side_has_no_certificate_store_of_the_system(authority: Authority, cart1: Identity) -> None:
    """Only `ca_file` lets a client in: a public authority's certificate must not."""
    scp = listen(FakeIntake(), tls=listener(authority, authority.issue("gateway", "localhost")))
    acceptor, _ = scp._listening["dicom-tls-scp"]
    assert acceptor.tls is not None
    context = acceptor.tls.context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.cert_store_stats()["x509_ca"] == 1
    scp.stop(grace_s=0.0)
