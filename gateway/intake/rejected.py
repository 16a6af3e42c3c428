"""The files that the watched folders have rejected, with their reasons."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.intake.folder import REASON, REJECTED
from gateway.settings import FolderSettings

_LONGEST_REASON = 2000  # bytes that are read


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedFile:
    """One file under `rejected/`; its name may name a patient."""

    folder: str
    name: str
    at: datetime
    reason: str


def rejected_files(folders: Sequence[FolderSettings], limit: int) -> tuple[list[RejectedFile], int]:
    """Return the newest rejected files, and how many there are; a folder that is not there has none."""
    found: list[tuple[float, FolderSettings, str]] = []
    for folder in folders:
        try:
            with os.scandir(folder.path / REJECTED) as entries:
                found += [
                    (entry.stat(follow_symlinks=False).st_ctime, folder, entry.name)
                    for entry in entries
                    if not entry.name.endswith((REASON, ".json")) and entry.is_file(follow_symlinks=False)
                ]
        except OSError:
            continue  # the health says that a folder is missing
    found.sort(key=lambda each: each[0], reverse=True)
    return [_rejected(*each) for each in found[:limit]], len(found)


def _rejected(at: float, folder: FolderSettings, name: str) -> RejectedFile:
    try:
        with open(folder.path / REJECTED / (name + REASON), "rb") as file:
            reason = file.read(_LONGEST_REASON).decode("utf-8", "replace").strip()
    except OSError:
        reason = ""
    shown = os.fsencode(name).decode("utf-8", "replace")
    return RejectedFile(folder=folder.path.name, name=shown, at=datetime.fromtimestamp(at, UTC), reason=reason)
