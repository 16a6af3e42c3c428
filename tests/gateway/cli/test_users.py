"""`user` and `token`: accounts and tokens are added, listed, changed and ended."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from gateway.domain.account import AccountRole
from gateway.security.passwords import digest, is_password
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


def test_token_is_printed_once_and_revoked(ann: None, run: Run, store: Store) -> None:
    status, output, _ = run("token add", "lab", "--owner", "Ann", "--scope", "results:read", "--scope", "jobs:read")
    (token,) = store.tokens.all()
    assert (status, token.digest) == (0, digest(output.strip()))
    assert (token.owner, token.scopes) == ("ann", "jobs:read results:read")
    for listed in (run("token list")[1], run("token list", "--json")[1]):
        assert "results:read" in listed and output.strip() not in listed and token.digest not in listed
    assert "is not valid any more" in run("token revoke", str(token.id))[1]
    assert "revoked" in run("token list")[1]
    assert "no valid token" in run("token revoke", str(token.id))[2]


def test_token_that_cannot_be_made(ann: None, run: Run, store: Store) -> None:
    run("user role", "ann", "viewer")
    lab = ("token add", "lab", "--scope", "review:write")
    assert "is a viewer, and cannot have the scope review:write" in run(*lab, "--owner", "ann")[2]
    assert "valid for 1 to 3650 days, got 0" in run(*lab, "--owner", "mirth", "--days", "0")[2]
    assert "no colon" in run(*lab, "--owner", "cli:root")[2]
    assert "letters" in run("token add", "/", "--owner", "mirth", "--scope", "jobs:read")[2]
    assert run(*lab, "--owner", "mirth")[0] == 0
    assert "mirth has a token lab already" in run(*lab, "--owner", "mirth")[2]
    assert len(store.tokens.all()) == 1
