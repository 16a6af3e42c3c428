"""`user` and `token`: who may log in to the web pages, and which programs may use the REST interface."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from gateway.cli.arguments import MAXIMUM_NUMBER, AsJson, Config, actor, open_store
from gateway.cli.output import print_json, print_table
from gateway.domain.account import AccountRole, ApiScope, account_name
from gateway.domain.audit import AuditKind
from gateway.errors import AccountError, NotFound
from gateway.operations.tokens import new_token, owner_name
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
_TOKEN_FIELDS = {"id", "name", "owner", "scopes", "created_by", "created_at", "expires_at", "used_at", "revoked_at"}
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


def add_token(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.")],
    owner: Annotated[str, typer.Option(help="Who answers for it: an account, or any name where there is none.")],
    scope: Annotated[list[ApiScope], typer.Option(help="What the program may do; may be given several times.")],
    config: Config = None,
    days: Annotated[int, typer.Option(help="How long it is valid.")] = 365,
) -> None:
    """Make a token for a program and print it. It is shown this once."""
    store = open_store(load_settings(config), create=True)
    owner = owner_name(owner)
    account = store.accounts.get(owner)
    if account is not None and (above := [each for each in scope if not account.role.covers(each.role)]):
        raise AccountError(f"the account {owner} is a {account.role}, and cannot have the scope {', '.join(above)}")
    secret, token = new_token(name, owner, scope, days, actor())
    store.tokens.add(token)
    _tell(store, f"token {token.name} of {token.owner} was made: {token.scopes}")
    print(secret)


def show_tokens(config: Config = None, as_json: AsJson = False) -> None:
    """List the tokens, the newest first; those that ended, too."""
    tokens = open_store(load_settings(config)).tokens.all()
    if as_json:
        print_json([token.model_dump(mode="json", include=_TOKEN_FIELDS) for token in tokens])
        return
    table = Table("number", "name", "owner", "scopes", "until (UTC)", "last used (UTC)")
    for token in tokens:
        until = "revoked" if token.revoked_at else f"{token.expires_at:%Y-%m-%d %H:%M}"
        used = f"{token.used_at:%Y-%m-%d %H:%M}" if token.used_at else "never"
        table.add_row(str(token.id), token.name, token.owner, token.scopes, until, used)
    print_table(table)


def revoke_token(
    number: Annotated[int, typer.Argument(min=1, max=MAXIMUM_NUMBER, help="Of `token list`.")], config: Config = None
) -> None:
    """End a token, from the next request on."""
    store = open_store(load_settings(config))
    token = store.tokens.revoke(number)
    _tell(store, f"token {token.name} of {token.owner} was revoked")
    print(f"the token {token.name} of {token.owner} is not valid any more")


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
