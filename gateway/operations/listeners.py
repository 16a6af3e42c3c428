"""Which process listens on a TCP port (proc(5)); of other users' processes the system may not tell."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_LISTEN = "0A"


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


def _listening(table: str, port: int) -> list[str]:
    try:
        lines = Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return []
    fields = [line.split() for line in lines]
    return [each[9] for each in fields if each[3] == _LISTEN and int(each[1].rpartition(":")[2], 16) == port]
