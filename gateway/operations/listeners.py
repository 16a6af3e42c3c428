"""Which process listens on a TCP port, and whose a connection on this machine is (proc(5)).

Of other users' processes the system may not tell which they are.
"""

from __future__ import annotations

import os
import pwd
from contextlib import suppress
from pathlib import Path

_LISTEN, _ESTABLISHED = "0A", "01"


def holder(port: int) -> tuple[int | None, str]:
    """Return the process that listens on a port and what to call it; None where the system does not tell."""
    sockets = {f"socket:[{inode}]" for table in ("tcp", "tcp6") for inode in _listening(table, port)}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(_target(file) in sockets for file in (process / "fd").iterdir()):
                name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
                return int(process.name), f"process {process.name} ({name})"
    return None, "another process"


def _target(file: Path) -> str:
    try:
        return os.readlink(file)
    except OSError:  # closed meanwhile
        return ""


def peer_user(port: int, our_port: int) -> str:
    """Return the user of this machine who holds the other end of a connection to `our_port`; "" where none does."""
    for table in ("tcp", "tcp6"):
        for fields in _connections(table):
            local, remote = (int(address.rpartition(":")[2], 16) for address in fields[1:3])
            if (local, remote, fields[3]) == (port, our_port, _ESTABLISHED):
                with suppress(KeyError):
                    return pwd.getpwuid(int(fields[7])).pw_name
    return ""


def _listening(table: str, port: int) -> list[str]:
    fields = _connections(table)
    return [each[9] for each in fields if each[3] == _LISTEN and int(each[1].rpartition(":")[2], 16) == port]


def _connections(table: str) -> list[list[str]]:
    try:
        lines = Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return []
    return [line.split() for line in lines]
