"""Settings: what is refused, and how the reason reads."""

from __future__ import annotations

from pathlib import Path

import pytest

import gateway.settings
from gateway.errors import SettingsError
from gateway.settings import Settings, load_settings
from gateway.settings.addresses import is_loopback

POSTGRESQL = "postgresql+psycopg://ecggw@10.1.2.6:5432/ecggw?sslmode=verify-full"


def load(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "gateway.toml"
    file.write_text(text, encoding="utf-8")
    return load_settings(file)


def test_every_exported_name_is_there() -> None:
    assert [name for name in gateway.settings.__all__ if not hasattr(gateway.settings, name)] == []


def test_a_database_is_a_postgresql_url_and_its_password_a_file(tmp_path: Path) -> None:
    assert Settings().storage.database == ""
    text = f'[storage]\ndatabase = "{POSTGRESQL}"\ndatabase_password_file = "/etc/ecg-gateway/database.pw"\n'
    storage = load(tmp_path, text).storage
    assert storage.database == POSTGRESQL
    assert storage.database_password_file == Path("/etc/ecg-gateway/database.pw")
    socket = "postgresql+psycopg:///ecggw?host=/run/postgresql"
    assert load(tmp_path, f'[storage]\ndatabase = "{socket}"\n').storage.database == socket


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('database = "mysql://user@host/name"', "must be empty or postgresql"),
        ('database = "postgresql+psycopg://user@host"', "must be empty or postgresql"),
        ('database = "postgresql+psycopg://user@host:port/name"', "is no URL"),
        ('database = "postgresql+psycopg://user:s3cret@host/name"', "belongs into database_password_file"),
        ('database = "postgresql+psycopg://user@host/name?password=s3cret"', "belongs into database_password_file"),
    ],
)
def test_other_databases_are_refused_and_no_password_is_repeated(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(tmp_path, f"[storage]\n{text}\n")
    assert reason in str(refused.value) and "s3cret" not in str(refused.value)


def test_every_breach_is_named_with_its_value(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        load(tmp_path, "[dicom]\nport = 70000\nprot = 104\n[web]\nhost = 7\n")
    for words in ("dicom.port = 70000: ", "dicom.prot = 104: ", "web.host = 7: "):
        assert words in str(refused.value)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("pacs", False)],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
