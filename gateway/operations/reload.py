"""How a reload is asked for and how its outcome comes back: a signal one way, a file in the storage folder the other.

The outcome names the time (of the monotonic clock, one for all processes) at which the settings file was about to be
read, so that nobody takes the outcome of an earlier reload for that of his own.
"""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from gateway.errors import StorageError
from gateway.spool.disk import write_durably
from gateway.spool.owner import owner

_POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one reload, in words, and when it began."""

    ok: bool
    words: str
    began_s: float


def leave_outcome(root: Path, outcome: Outcome, node: str = "") -> None:
    """Write the outcome where `ask_reload` looks for it; raise StorageError."""
    file = _file(root, node)
    try:
        write_durably(file, json.dumps(asdict(outcome)).encode())
    except OSError as error:
        raise StorageError(f"{file}: {error.strerror}") from error


def ask_reload(root: Path, timeout_s: float, node: str = "") -> Outcome:
    """Have the service of the folder `root` and this node read its settings again, and return what became of it.

    Raises
    ------
    StorageError
        No service runs there, it is another user's, or it did not answer in time.
    """
    process = owner(root, node)
    if process is None:
        raise StorageError(f"{root.resolve()}: no gateway runs on it")
    if not _is_safe(process):
        raise StorageError(f"process {process} knows no reload, SIGHUP would end it: restart it")
    asked_s = time.monotonic()
    try:
        os.kill(process, signal.SIGHUP)
    except OSError as error:
        raise StorageError(f"process {process} cannot be asked to reload: {error.strerror}") from error
    while time.monotonic() < asked_s + timeout_s:
        outcome = _outcome(_file(root, node))
        if outcome is not None and outcome.began_s >= asked_s:
            return outcome
        time.sleep(_POLL_S)
    raise StorageError(f"process {process} did not answer within {timeout_s:g} s: see its log")


def _is_safe(process: int) -> bool:
    """Return whether SIGHUP ends a process no more (proc(5)): it is blocked, ignored or caught."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return True
    masks = [
        int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigBlk", "SigIgn", "SigCgt"))
    ]
    return any(mask >> (signal.SIGHUP - 1) & 1 for mask in masks)


def _file(root: Path, node: str) -> Path:
    return root / (f"gateway-{node}.reload" if node else "gateway.reload")


def _outcome(file: Path) -> Outcome | None:
    try:
        return Outcome(**json.loads(file.read_bytes()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{file}: {error.strerror}") from error
