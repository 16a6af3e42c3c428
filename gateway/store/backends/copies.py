"""A whole database as one SQLite file, whatever it is kept in: what a backup holds, and a restore puts back.

A SQLite database is copied as it stands at one moment, of whatever version it is.  The rows of a PostgreSQL database
are read in one snapshot, and written back in one transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, Connection, Table, insert, select, update
from sqlmodel import SQLModel

from gateway.errors import StorageError
from gateway.store.backends.postgresql import Postgresql
from gateway.store.backends.sqlite import Sqlite
from gateway.store.database import as_storage_error, migrate, newest_version, open_backend, version_of

_ROWS_AT_ONCE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What a copy holds: its version, and how many rows each table has."""

    version: str
    rows: dict[str, int]


def save(url: URL, path: Path) -> Copied:
    """Copy a database that may be in use into the new file `path`; nobody waits for it.

    Raises
    ------
    StorageError
        There is no such database, or it is a PostgreSQL database of another version.
    """
    with as_storage_error():
        if url.get_backend_name() == "sqlite":
            if not Path(url.database or "").exists():
                raise StorageError(f"there is no database {url.database}")
            with closing(sqlite3.connect(url.database or "")) as source:
                source.execute("VACUUM INTO ?", (str(path),))
        else:
            _save_rows(url, path)
        return _describe(path)


def bring_up_to_date(path: Path) -> None:
    """Bring a copy to the version of this gateway; it is one file again when this returns."""
    with _opened(_url(path)) as copy:
        migrate(copy)
    with as_storage_error(), closing(sqlite3.connect(path)) as plain:
        plain.execute("PRAGMA journal_mode=DELETE")


def check_empty(url: URL) -> None:
    """Raise StorageError where a PostgreSQL database holds anything; its tables are made where they are missing."""
    with _opened(url) as backend:
        migrate(backend)
        with as_storage_error(), backend.reader.connect() as connection:
            _check_empty(connection, url)


def load(path: Path, url: URL) -> None:
    """Put the rows of a copy, which is up to date, into an empty PostgreSQL database: all of them, or none."""
    with as_storage_error(), _opened(_url(path)) as copy, _opened(url) as backend:
        assert isinstance(backend, Postgresql)
        with copy.reader.connect() as source, backend.writer.begin() as target:
            _check_empty(target, url)
            _copy_rows(source, target)
            for table in _kept():
                backend.number_on(target, table)


def _save_rows(url: URL, path: Path) -> None:
    with _opened(url) as backend, backend.reader.connect() as source, _opened(_url(path)) as copy:
        found = version_of(source)
        if found != newest_version():
            raise StorageError(
                f"the database has version {found}, and only one of version {newest_version()} can be copied: use the "
                "gateway of its version, or start this one, which brings it up to date"
            )
        migrate(copy)
        with copy.writer.begin() as target:
            _copy_rows(source, target)
    bring_up_to_date(path)


@contextmanager
def _opened(url: URL) -> Iterator[Sqlite | Postgresql]:
    backend = open_backend(url)
    try:
        yield backend
    finally:
        backend.reader.dispose()


def _copy_rows(source: Connection, target: Connection) -> None:
    """Copy every row; a reference to another row of the same table is set when all of the table are there."""
    source = source.execution_options(yield_per=_ROWS_AT_ONCE)
    for table in _kept():
        own = [key.parent for key in table.foreign_keys if key.column.table is table]
        for rows in source.execute(select(table)).mappings().partitions():
            target.execute(insert(table), [dict(row) | {column.name: None for column in own} for row in rows])
        for column in own:
            referring = select(table.c.id, column).where(column.is_not(None))
            for number, other in source.execute(referring):
                target.execute(update(table).where(table.c.id == number).values({column.name: other}))


def _kept() -> list[Table]:
    """Return the tables whose rows a copy has: who runs the service, and with which duties, is of the moment."""
    return [table for table in SQLModel.metadata.sorted_tables if table.name not in ("node", "duty")]


def _check_empty(connection: Connection, url: URL) -> None:
    for table in _kept():
        if connection.execute(select(table).limit(1)).first() is not None:
            where = url.render_as_string(hide_password=True)
            raise StorageError(f"the database {where} is not empty: table {table.name} has rows")


def _describe(path: Path) -> Copied:
    with closing(sqlite3.connect(path)) as copy:
        (version,) = copy.execute("SELECT version_num FROM alembic_version").fetchone()
        names = [name for (name,) in copy.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]
        tables = [name for name in names if name != "alembic_version" and not name.startswith("sqlite_")]
        rows = {name: copy.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables}
    return Copied(version=version, rows=rows)


def _url(path: Path) -> URL:
    return URL.create("sqlite", database=str(path))
