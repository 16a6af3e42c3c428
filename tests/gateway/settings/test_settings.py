"""Settings: what is refused, and how the reason reads."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import gateway.settings
from gateway.errors import SettingsError
from gateway.settings import FolderDestination, Settings, load_settings
from gateway.settings.section import is_loopback

POSTGRESQL = "postgresql+psycopg://ecggw@10.1.2.6:5432/ecggw?sslmode=verify-full"


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Be a folder whose files' paths are shown whole in a message."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


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


def test_nodes_with_one_file_are_named_by_their_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f'[storage]\ndatabase = "{POSTGRESQL}"\nnode = "@hostname"\n'
    monkeypatch.setattr("socket.gethostname", lambda: "ecg-gateway-1")
    assert load(tmp_path, text).storage.node == "ecg-gateway-1"
    monkeypatch.setattr("socket.gethostname", lambda: "ecg gateway")
    with pytest.raises(SettingsError) as refused:
        load(tmp_path, text)
    assert "storage.node = '@hostname'" in str(refused.value) and "ecg gateway" in str(refused.value)


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        (["var"], "folders.1.path = '{}/var': is or contains the storage path {}/var (line 2)"),
        (["."], "folders.1.path = '{}': is or contains the storage path {}/var (line 2)"),
        (["var/spool"], "folders.1.path = '{}/var/spool': is, contains or lies inside the spool"),
        (["var/spool/in"], "lies inside the spool"),
        (["in", "other/../in"], "lies inside folder {}/in"),
        (["in", "in/done"], "lies inside folder {}/in"),
        (["in/sub", "in"], "lies inside folder {}/in/sub"),
        (["link"], "is or contains the storage path"),
    ],
)
def test_a_folder_that_would_take_other_files_is_refused(short_path: Path, paths: list[str], reason: str) -> None:
    (short_path / "var").mkdir()
    (short_path / "link").symlink_to("var")
    text = f'[storage]\npath = "{short_path}/var"\n' + "".join(
        f'[[folders]]\npath = "{short_path / path}"\n' for path in paths
    )
    with pytest.raises(SettingsError) as refused:
        load(short_path, text)
    assert reason.replace("{}", str(short_path)) in str(refused.value)
    assert "ae_title" not in str(refused.value)  # the other settings are not repeated


def test_folders_beside_each_other_are_taken(tmp_path: Path) -> None:
    paths = ("var/inbox", "var/inbox2", "in")
    text = '[storage]\npath = "var"\n' + "".join(f'[[folders]]\npath = "{path}"\n' for path in paths)
    assert [str(folder.path) for folder in load(tmp_path, text).folders] == list(paths)


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


def test_without_a_file_results_are_kept_where_a_newcomer_finds_them() -> None:
    (results,) = load_settings(None).destinations
    assert isinstance(results, FolderDestination)
    assert results.path == Path("var/results") and results.create
    assert Settings().destinations == ()  # a file decides alone where its results go
