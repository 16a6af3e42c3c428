"""A PostgreSQL server of the tests' own: Debian's, in a temporary folder, on the loopback interface.

It refuses to run as root; root gives it to the user `postgres`.  Its time zone and its defaults are as different from
ours as they can be, so that nothing depends on them by accident.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL

from gateway.store.store import Store
from tests.waiting import PATIENCE_S, wait_for

PASSWORD = "of the tests: 'quoted' and @/:%"
_ADMINISTRATOR, _USER, _TEMPLATE = "administrator", "gateway", "newest_schema"
_DEFAULTS = {
    "fsync": "off",  # a test ends no power
    "timezone": "Asia/Kathmandu",
    "default_transaction_isolation": "serializable",
    "synchronous_commit": "off",
    "max_connections": "100",
    "log_min_messages": "fatal",
}


class Server:
    """One running server.

    Parameters
    ----------
    folder
        Holds the cluster; `postgres` can write there.
    programs
        Where `initdb` and `postgres` are.
    """

    def __init__(self, folder: Path, programs: Path) -> None:
        self._folder, self._programs = folder, programs
        self._data = folder / "data"
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.port = int(taken.getsockname()[1])
        self._numbers = itertools.count()
        self._process: subprocess.Popen[bytes] | None = None

    def create(self) -> None:
        """Make the cluster, its users, and the database that the tests' databases are copies of."""
        password = self._folder / "password"
        password.write_text(PASSWORD + "\n")
        own = ("-U", _ADMINISTRATOR, "-A", "scram-sha-256", "--pwfile", password, "-E", "UTF8", "--locale", "C", "-N")
        done = subprocess.run(
            [self._programs / "initdb", "-D", self._data, *own], capture_output=True, text=True, check=False, **_user()
        )
        assert done.returncode == 0, done.stdout + done.stderr
        self.start()
        self.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(_USER), sql.Literal(PASSWORD)))
        self._create_database(_TEMPLATE, "template1")
        Store(self.url(_TEMPLATE)).close()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        own = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": ""} | _DEFAULTS
        options = itertools.chain.from_iterable(("-c", f"{name}={value}") for name, value in own.items())
        with (self._folder / "log.txt").open("ab") as log:
            command = [self._programs / "postgres", "-D", self._data, *options]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **_user())
        wait_for("the PostgreSQL server", self._answers)

    def stop(self) -> None:
        """Stop it; transactions that are open are rolled back."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait(PATIENCE_S)

    def execute(self, statement: str | sql.Composable, database: str = "postgres") -> list[tuple[object, ...]]:
        """Do something as the administrator."""
        with psycopg.connect(self._address(_ADMINISTRATOR, database), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def url(self, database: str) -> URL:
        """Where the gateway finds a database, with the password."""
        place = {"host": "127.0.0.1", "port": self.port, "database": database}
        return URL.create("postgresql+psycopg", username=_USER, password=PASSWORD, **place)

    @contextmanager
    def database(self, template: str = _TEMPLATE) -> Iterator[URL]:
        """A database of its own; `template0` for an empty one."""
        name = f"test_{next(self._numbers)}"
        self._create_database(name, template)
        yield self.url(name)
        self.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _create_database(self, name: str, template: str) -> None:
        names = (sql.Identifier(each) for each in (name, template, _USER))
        self.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}").format(*names))

    def _address(self, user: str, database: str) -> str:
        place = {"host": "127.0.0.1", "port": self.port, "user": user, "password": PASSWORD, "dbname": database}
        return psycopg.conninfo.make_conninfo(**place)

    def _answers(self) -> bool:
        assert self._process is not None and self._process.poll() is None, (self._folder / "log.txt").read_text()
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def running_server() -> Iterator[Server]:
    """Create and start a server, and remove it at the end; skip where PostgreSQL is not installed."""
    programs = _programs()
    with tempfile.TemporaryDirectory(prefix="ecg-gateway-postgresql-") as folder:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        server = Server(Path(folder), programs)
        server.create()
        yield server
        server.stop()


def _programs() -> Path:
    """Return the folder of Debian's newest server; skip, saying what to install."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if not found:
        pytest.skip("postgresql is not installed: no /usr/lib/postgresql/*/bin/initdb")
    return found[-1].parent


def _user() -> dict[str, object]:
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam("postgres")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": [], "cwd": "/"}
