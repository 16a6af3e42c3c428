"""`user`: accounts are added, listed, given another role or password, and disabled."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from gateway.domain.account import AccountRole
from gateway.security.passwords import is_password
from gateway.store.store import Store
from tests.gateway.cli.conftest import Run

PASSWORD = "correct horse battery"


@pytest.fixture
def password(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\nnot this\n", encoding="utf-8")
    return file


@pytest.fixture
def ann(run: Run, password: Path) -> None:
    arguments = ("Ann", "--role", "reviewer", "--full-name", "Dr Ann Lee", "--password-file", password)
    assert run("user add", *arguments) == (0, "ann, reviewer, may log in\n", "")


def test_account_is_made_with_a_password_that_its_owner_must_change(ann: None, store: Store) -> None:
    account = store.accounts.get("ann")
    assert (account.role, account.full_name, account.must_change) == (AccountRole.REVIEWER, "Dr Ann Lee", True)
    assert is_password(account.password_hash, PASSWORD) and PASSWORD not in account.password_hash


def test_list_has_no_hash(ann: None, run: Run) -> None:
    status, output, _ = run("user list")
    assert status == 0 and "Dr Ann Lee" in output and "must change" in output and "argon2" not in output
    (listed,) = json.loads(run("user list", "--json")[1])
    assert (listed["name"], listed["role"]) == ("ann", "reviewer") and "password_hash" not in listed


def test_disable_and_back(ann: None, run: Run, store: Store) -> None:
    assert store.accounts.exist()
    assert run("user disable", "ann")[0] == 0
    assert store.accounts.get("ann").disabled and not store.accounts.exist()
    assert run("user disable", "ann", "--undo")[0] == 0
    assert store.accounts.exist()


def test_role_and_password(ann: None, run: Run, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("user role", "ann", "admin")[0] == 0
    assert store.accounts.get("ann").role == AccountRole.ADMIN
    monkeypatch.setattr(sys, "stdin", io.StringIO("another horse battery\n"))
    assert run("user password", "ann", "--password-file", "-")[0] == 0
    assert is_password(store.accounts.get("ann").password_hash, "another horse battery")


@pytest.mark.parametrize(
    ("command", "arguments", "words"),
    [
        ("user add", ["ann"], "there is an account ann already"),
        ("user add", ["Ann Lee"], "a name has 1 to 64 letters"),
        ("user add", ["cli"], "a part of the gateway"),
        ("user add", ["bob", "--password-file", "SHORT"], "a password has 12 to 256 characters"),
        ("user add", ["bob", "--password-file", "absent"], "password_file absent cannot be read"),
        ("user disable", ["bob"], "no account bob"),
        ("user password", ["bob"], "no account bob"),
        ("user role", ["bob", "admin"], "no account bob"),
    ],
)
def test_what_cannot_be(
    ann: None, run: Run, tmp_path: Path, command: str, arguments: list[str], words: str, store: Store
) -> None:
    (tmp_path / "short").write_text("short")
    given = [str(tmp_path / "short") if argument == "SHORT" else argument for argument in arguments]
    status, _, errors = run(command, *given)
    assert (status, words in errors) == (1, True), errors
    assert [account.name for account in store.accounts.all()] == ["ann"]
