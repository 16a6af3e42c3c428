"""`user`: who may log in to the web pages."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from gateway.cli.arguments import AsJson, Config, actor, open_store
from gateway.cli.output import print_json, print_table
from gateway.domain.account import AccountRole, account_name
from gateway.domain.audit import AuditKind
from gateway.errors import AccountError, NotFound
from gateway.security.passwords import check_password, hash_password
from gateway.settings import load_settings
from gateway.store.store import Store
from gateway.store.tables import Account, AuditEntry

UserName = Annotated[str, typer.Argument(metavar="NAME", help="The name for the log-in.")]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Holds the password in its first line; - is standard input. Not set: it is asked for."
    ),
]
_FIELDS = {"name", "full_name", "role", "disabled", "must_change", "locked_until", "created_at"}


def add(
    name: UserName,
    config: Config = None,
    role: Annotated[AccountRole, typer.Option(help="What the person may do.")] = AccountRole.VIEWER,
    full_name: Annotated[str, typer.Option(help="How pages name the person.")] = "",
    password_file: PasswordFile = None,
) -> None:
    """Add an account. The person changes the password at the first log-in."""
    try:
        name = account_name(name)
    except ValueError as error:
        raise AccountError(str(error)) from None
    store = open_store(load_settings(config), create=True)
    if store.accounts.get(name) is not None:
        raise AccountError(f"there is an account {name} already")
    hashed = _password_hash(name, password_file)
    store.accounts.add(Account(name=name, full_name=full_name, role=role, password_hash=hashed, must_change=True))
    _tell(store, f"{name} was added as {role}")
    print(f"{name}, {role}, may log in")


def show_all(config: Config = None, as_json: AsJson = False) -> None:
    """List the accounts."""
    accounts = open_store(load_settings(config)).accounts.all()
    if as_json:
        print_json([account.model_dump(mode="json", include=_FIELDS) for account in accounts])
        return
    table = Table("name", "full name", "role", "state")
    for account in accounts:
        state = "disabled" if account.disabled else "must change the password" if account.must_change else ""
        table.add_row(account.name, account.full_name, account.role, state)
    print_table(table)


def disable(
    name: UserName,
    config: Config = None,
    undo: Annotated[bool, typer.Option("--undo", help="Let the person log in again.")] = False,
) -> None:
    """End a person's sessions, and let nobody log in with the account. Its name stays in the trail."""
    store = open_store(load_settings(config))
    store.accounts.set_disabled(_known(store.accounts.get(name.lower()), name).name, disabled=not undo)
    _tell(store, f"{name.lower()} was {'enabled' if undo else 'disabled'}")
    print(f"{name.lower()} may {'log in again' if undo else 'not log in any more'}")


def role(
    name: UserName,
    role: Annotated[AccountRole, typer.Argument(help="What the person may do from now on.")],
    config: Config = None,
) -> None:
    """Give an account another role, from the next request on."""
    store = open_store(load_settings(config))
    store.accounts.set_role(_known(store.accounts.get(name.lower()), name).name, role)
    _tell(store, f"{name.lower()} is {role} now")
    print(f"{name.lower()} is {role}")


def password(name: UserName, config: Config = None, password_file: PasswordFile = None) -> None:
    """Set another password, and end the lock and the sessions of the account; the person changes it at the log-in."""
    store = open_store(load_settings(config))
    account = _known(store.accounts.get(name.lower()), name)
    store.accounts.set_password(account.name, _password_hash(account.name, password_file), must_change=True)
    _tell(store, f"{account.name} was given another password")
    print(f"{account.name} has another password")


def _tell(store: Store, detail: str) -> None:
    """Have the audit repository, where there is one, told what was changed."""
    store.trail.record(AuditEntry(kind=AuditKind.ACCOUNT, name=actor(), address=socket.gethostname(), detail=detail))


def _known(account: Account | None, name: str) -> Account:
    if account is None:
        raise NotFound(f"no account {name.lower()}")
    return account


def _password_hash(name: str, file: Path | None) -> str:
    """Return the hash of a password from a file or a person."""
    if file is None:
        given = str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    else:
        try:
            lines = (sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")).splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise AccountError(f"password_file {file} cannot be read: {error}") from error
        given = lines[0] if lines else ""
    check_password(given, name)
    return hash_password(given)
