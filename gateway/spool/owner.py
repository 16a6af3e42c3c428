"""One service a folder and node: two on one state would receive, sweep and send side by side, and send all twice.

Several nodes that share the folder have a lock each; between them the database says who does what
(`gateway.operations.duties`).
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gateway.errors import StorageError

_ANY = "gateway*.lock"


@contextmanager
def owned(root: Path, node: str = "", *, alone: bool = False) -> Iterator[None]:
    """Be the one service of the folder `root` and this node inside the block; the kernel ends that with the process.

    Parameters
    ----------
    alone : bool
        No other node may have a service of the folder either.

    Raises
    ------
    StorageError
        Another service has it: its process is named; or the folder cannot be written.
    """
    path = root / _name(node)
    try:
        root.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)  # no child inherits it
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from error
    try:
        _lock(file, path)
        for other in root.glob(_ANY) if alone else ():
            if other != path and (process := owner(root, other.stem.removeprefix("gateway").removeprefix("-"))):
                raise StorageError(f"{root.resolve()}: a gateway runs on it already (process {process}, {other.name})")
        yield
    finally:
        os.close(file)


def owner(root: Path, node: str = "") -> int | None:
    """Return the process that is the service of the folder `root` and this node now; None where none is.

    Raises
    ------
    StorageError
        This user cannot tell.
    """
    try:
        file = os.open(root / _name(node), os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StorageError(f"{root / _name(node)}: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        found = re.match(r"process (\d+) ", os.read(file, 200).decode("ascii", "replace"))
        return int(found[1]) if found else None
    finally:
        os.close(file)
    return None


def _name(node: str) -> str:
    return f"gateway-{node}.lock" if node else "gateway.lock"


def _lock(file: int, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(file, 200).decode("ascii", "replace").strip() or "another process"
        raise StorageError(f"{path.parent.resolve()}: a gateway runs on it already ({holder})") from None
    except OSError as error:
        raise StorageError(f"{path.parent.resolve()}: {path.name} cannot be locked: {error.strerror}") from error
    with suppress(OSError):  # a full disk: the lock holds all the same
        os.ftruncate(file, 0)
        os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
