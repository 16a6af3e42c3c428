"""When the certificates in the settings end, who is told, and what cannot be used."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.errors import SettingsError
from gateway.security.certificates import Certificate, certificates
from gateway.security.tls import check_tls
from gateway.settings import (
    DicomDestination,
    DicomSettings,
    DicomTlsSettings,
    FolderDestination,
    Settings,
    TlsClientSettings,
)
from tests.tls_samples import Authority, Identity

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def settings(identity: Identity, ca_file: Path | None = None) -> Settings:
    """The same certificate for both directions."""
    files = {"certificate_file": identity.certificate_file, "private_key_file": identity.private_key_file}
    pacs = DicomDestination(
        name="pacs", host="pacs", port=104, ae_title="PACS", tls=TlsClientSettings(**files, ca_file=ca_file)
    )
    return Settings(
        dicom=DicomSettings(tls=DicomTlsSettings(**files, ca_file=ca_file)),
        destinations=(FolderDestination(name="out", path=Path("out")), pacs),
    )


@pytest.mark.parametrize(
    ("days", "words", "usable"), [(40.0, "", True), (29.0, " expires on ", True), (-1.0, " expired on ", False)]
)
def test_a_certificate_that_ends_is_said_in_time(authority: Authority, days: float, words: str, usable: bool) -> None:
    identity = authority.issue("ending", days=days)
    (found,) = certificates(settings(identity), NOW)
    assert found.not_after is not None
    assert abs(found.not_after - NOW - timedelta(days=days)) < timedelta(
        hours=6
    )  # NOW is when the tests were collected
    assert found.usable is usable
    assert found.problem == (f"{identity.certificate_file}{words}{found.not_after:%Y-%m-%d}" if words else "")


def test_every_file_is_looked_at_once(authority: Authority) -> None:
    identity = authority.issue("gateway")
    found = certificates(settings(identity, authority.ca_file), NOW)
    assert {certificate.file for certificate in found} == {identity.certificate_file, authority.ca_file}
    assert len(found) == 2
    assert certificates(Settings(), NOW) == ()


def test_a_chain_ends_with_its_first_and_the_authorities_with_their_last(tmp_path: Path, authority: Authority) -> None:
    long, short = authority.issue("long", days=300), authority.issue("short", days=10)
    text = long.certificate_file.read_bytes() + short.certificate_file.read_bytes()
    chain, trusted = tmp_path / "chain.pem", tmp_path / "trusted.pem"
    chain.write_bytes(text)
    trusted.write_bytes(text)
    found = {each.file: each for each in certificates(settings(Identity(chain, long.private_key_file), trusted), NOW)}
    assert "expires on" in found[chain].problem
    assert found[trusted].problem == ""


def test_what_cannot_be_read_is_a_problem(tmp_path: Path, authority: Authority) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    for file, words in ((empty, "holds no PEM certificate"), (tmp_path / "absent", "no such file")):
        (found,) = certificates(settings(Identity(file, file)), NOW)
        assert found == Certificate(file=file, not_after=None, problem=found.problem, usable=False)
        assert words in found.problem


def test_both_sides_are_tried(tmp_path: Path, authority: Authority) -> None:
    identity, other = authority.issue("gateway"), authority.issue("other")
    good = settings(identity, authority.ca_file).dicom.tls
    assert good is not None
    check_tls(good)
    mixed = TlsClientSettings(certificate_file=identity.certificate_file, private_key_file=other.private_key_file)
    with pytest.raises(SettingsError, match="mismatch"):
        check_tls(mixed)
    with pytest.raises(SettingsError, match="is no file"):
        check_tls(good.model_copy(update={"certificate_file": tmp_path / "absent"}))
