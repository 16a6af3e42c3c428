"""TLS contexts from settings, over real sockets: who is let in, which suites, how files are replaced."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.errors import SettingsError
from gateway.security.tls import (
    CIPHER_SUITES,
    ListenerTls,
    accept_tls,
    client_context,
    peer_names,
    server_context,
    server_name,
)
from gateway.settings import DicomSettings, DicomTlsSettings, TlsClientSettings, TlsListenerSettings
from tests.tls_samples import Authority, Identity
from tests.waiting import PATIENCE_S, SOON_S


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def gateway(authority: Authority) -> Identity:
    return authority.issue("gateway", "localhost", "127.0.0.1")


@pytest.fixture(scope="module")
def scanner(authority: Authority) -> Identity:
    return authority.issue("SCANNER1", "scanner1.example", "10.0.0.7")


def listener(identity: Identity, **more: Any) -> TlsListenerSettings:
    return TlsListenerSettings(
        certificate_file=identity.certificate_file, private_key_file=identity.private_key_file, **more
    )


def client(identity: Identity | None, **more: Any) -> TlsClientSettings:
    files = (
        {"certificate_file": identity.certificate_file, "private_key_file": identity.private_key_file}
        if identity
        else {}
    )
    return TlsClientSettings(**files, **more)


def handshake(
    server: ssl.SSLContext, peer: ssl.SSLContext, name: str = "localhost"
) -> tuple[frozenset[str], tuple[str, str]]:
    """Let them talk; the names the server knows the client by, and (protocol, cipher suite)."""
    listening = socket.create_server(("127.0.0.1", 0))
    seen: list[frozenset[str]] = []
    failed: list[OSError] = []

    def serve() -> None:
        connection, _ = listening.accept()
        try:
            with accept_tls(connection, server, PATIENCE_S) as secure:
                secure.do_handshake()
                seen.append(peer_names(secure))
                secure.sendall(b"hello")
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with (
            listening,
            socket.create_connection(listening.getsockname(), PATIENCE_S) as connection,
            peer.wrap_socket(connection, server_hostname=name) as secure,
        ):
            assert secure.recv(5) == b"hello"
            cipher = secure.cipher()
            assert cipher is not None
            return seen[0], (str(secure.version()), cipher[0])
    finally:
        thread.join()


def test_both_sides_know_each_other(authority: Authority, gateway: Identity, scanner: Identity) -> None:
    names, (version, _) = handshake(
        server_context(listener(gateway, ca_file=authority.ca_file)),
        client_context(client(scanner, ca_file=authority.ca_file)),
    )
    assert names == {"SCANNER1", "scanner1.example", "10.0.0.7"}
    assert version == "TLSv1.3"


def test_a_client_without_certificate_is_refused_unless_none_is_asked_for(
    authority: Authority, gateway: Identity
) -> None:
    anonymous = client_context(client(None, ca_file=authority.ca_file))
    with pytest.raises(OSError):
        handshake(server_context(listener(gateway, ca_file=authority.ca_file)), anonymous)
    names, _ = handshake(server_context(listener(gateway)), anonymous)
    assert names == frozenset()


def test_a_client_of_another_authority_is_refused(tmp_path: Path, authority: Authority, gateway: Identity) -> None:
    stranger = Authority(tmp_path, "Other CA").issue("SCANNER1")
    with pytest.raises(OSError):
        handshake(
            server_context(listener(gateway, ca_file=authority.ca_file)),
            client_context(client(stranger, ca_file=authority.ca_file)),
        )


def test_an_expired_client_is_refused(authority: Authority, gateway: Identity) -> None:
    old = authority.issue("OLD", days=-1)
    with pytest.raises(OSError):
        handshake(
            server_context(listener(gateway, ca_file=authority.ca_file)),
            client_context(client(old, ca_file=authority.ca_file)),
        )


def test_the_server_must_prove_its_name(authority: Authority, gateway: Identity) -> None:
    context = client_context(client(None, ca_file=authority.ca_file))
    with pytest.raises(ssl.SSLCertVerificationError, match="pacs"):
        handshake(server_context(listener(gateway)), context, "pacs")
    assert server_name(client(None), "10.0.0.9") == "10.0.0.9"
    assert server_name(client(None, server_name="pacs"), "10.0.0.9") == "pacs"


def test_a_server_of_an_unknown_authority_is_refused(gateway: Identity) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server_context(listener(gateway)), client_context(client(None)))


def old_client(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    return context


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # that is what is tested
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.parametrize("profile", CIPHER_SUITES)
def test_nothing_older_than_tls_1_2(gateway: Identity, version: ssl.TLSVersion, profile: str) -> None:
    with pytest.raises(OSError):
        handshake(server_context(listener(gateway, profile=profile)), old_client(version))


@pytest.mark.parametrize(
    ("profile", "kind", "suite", "agreed"),
    [
        ("bcp195", "rsa", "ECDHE-RSA-AES256-GCM-SHA384", True),
        ("bcp195", "ec", "ECDHE-ECDSA-AES128-GCM-SHA256", True),
        ("bcp195", "rsa", "ECDHE-RSA-CHACHA20-POLY1305", False),
        ("bcp195-modified", "rsa", "ECDHE-RSA-CHACHA20-POLY1305", True),
        ("bcp195-modified", "ec", "ECDHE-ECDSA-AES256-CCM", True),
        ("bcp195-modified", "rsa", "ECDHE-RSA-AES128-GCM-SHA256", True),
        ("bcp195", "rsa", "AES128-GCM-SHA256", False),  # static RSA
        ("bcp195-modified", "rsa", "DHE-RSA-AES256-GCM-SHA384", False),
        ("bcp195-modified", "rsa", "ECDHE-RSA-AES256-SHA384", False),  # CBC
    ],
)
def test_cipher_suites_of_the_profiles(authority: Authority, profile: str, kind: str, suite: str, agreed: bool) -> None:
    identity = authority.issue(f"gateway-{kind}", "localhost", kind=kind)
    peer = old_client(ssl.TLSVersion.TLSv1_2)
    peer.set_ciphers(suite)
    server = server_context(listener(identity, profile=profile))
    if agreed:
        assert handshake(server, peer)[1] == ("TLSv1.2", suite)
    else:
        with pytest.raises(OSError):
            handshake(server, peer)


def test_the_whole_handshake_has_one_deadline(gateway: Identity) -> None:
    context = server_context(listener(gateway))
    ours, theirs = socket.socketpair()
    stop = threading.Event()

    def trickle() -> None:
        try:
            for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500):
                theirs.sendall(bytes([byte]))
                if stop.wait(0.1):
                    return
        except OSError:
            return

    thread = threading.Thread(target=trickle)
    thread.start()
    started = time.monotonic()
    with accept_tls(ours, context, 0.5) as connection, pytest.raises(TimeoutError):
        connection.do_handshake()
    assert time.monotonic() - started < SOON_S  # bytes come for much longer
    stop.set()
    thread.join()
    theirs.close()


# ---- files


def test_an_encrypted_key_needs_its_password_file(tmp_path: Path, authority: Authority) -> None:
    identity = authority.issue("locked", password="secret")
    word = tmp_path / "password"
    word.write_text("secret\n")
    server_context(listener(identity, private_key_password_file=word))
    word.write_text("wrong")
    with pytest.raises(SettingsError, match=r"locked\.key"):
        server_context(listener(identity, private_key_password_file=word))
    with pytest.raises(SettingsError, match="is encrypted, and private_key_password_file is not set"):
        server_context(listener(identity))
    with pytest.raises(SettingsError, match=r"absent cannot be read"):
        server_context(listener(identity, private_key_password_file=tmp_path / "absent"))


def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, authority: Authority, gateway: Identity) -> None:
    other = authority.issue("other")
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    with pytest.raises(SettingsError, match="absent is no file"):
        server_context(listener(Identity(tmp_path / "absent", gateway.private_key_file)))
    with pytest.raises(SettingsError, match="key values mismatch"):
        server_context(listener(Identity(gateway.certificate_file, other.private_key_file)))
    with pytest.raises(SettingsError, match=r"ca_file .*empty\.pem"):
        server_context(listener(gateway, ca_file=empty))


def test_settings_that_cannot_work_are_refused(gateway: Identity) -> None:
    with pytest.raises(ValidationError, match="go together"):
        TlsClientSettings(certificate_file=gateway.certificate_file)
    with pytest.raises(ValidationError, match="nothing would be listened on"):
        DicomSettings(plain=False)
    with pytest.raises(ValidationError, match="certificate_names need"):
        DicomSettings.model_validate(
            {
                "callers": [{"ae_title": "CART1", "certificate_names": ["cart1"]}],
                "tls": DicomTlsSettings(**listener(gateway).model_dump()),
            }
        )


def replaced(target: Identity, source: Identity, *, key_first: bool = False) -> Iterator[None]:
    """Put `source`'s files in `target`'s place, one at a time."""
    pairs = [
        (source.certificate_file, target.certificate_file),
        (source.private_key_file, target.private_key_file),
    ]
    for new, old in reversed(pairs) if key_first else pairs:
        temporary = old.with_suffix(".new")
        temporary.write_bytes(new.read_bytes())
        os.replace(temporary, old)
        yield


@pytest.mark.parametrize("key_first", [False, True])
def test_replaced_files_are_used_once_they_fit_together(
    authority: Authority, key_first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    current = authority.issue("current", "old.example", file=f"current-{key_first}")
    tls = ListenerTls(listener(current))
    before = tls.context()
    assert tls.context() is before
    steps = replaced(current, authority.issue("next", "new.example"), key_first=key_first)
    next(steps)
    assert tls.context() is before  # half replaced
    assert "not reloaded" in caplog.text
    next(steps)
    after = tls.context()
    assert after is not before
    assert "Certificates reloaded" in caplog.text
    peer = client_context(client(None, ca_file=authority.ca_file))
    handshake(after, peer, "new.example")
    handshake(before, peer, "old.example")  # what is open goes on with what it has


def test_new_key_whose_password_comes_last(tmp_path: Path, authority: Authority) -> None:
    current = authority.issue("locked", "old.example", password="one")
    password = tmp_path / "password"
    password.write_text("one")
    tls = ListenerTls(listener(current, private_key_password_file=password))
    before = tls.context()
    for _ in replaced(current, authority.issue("unlocked", "new.example", password="other")):
        assert tls.context() is before
    password.write_text("other")
    after = tls.context()
    assert after is not before
    handshake(after, client_context(client(None, ca_file=authority.ca_file)), "new.example")


def test_files_that_vanish_change_nothing(authority: Authority) -> None:
    current = authority.issue("vanishing")
    tls = ListenerTls(listener(current))
    before = tls.context()
    current.certificate_file.unlink()
    assert tls.context() is before
