"""A backup: one tar file with the database, every file of the spool and, at its end, a manifest with their SHA-256.

The names in it are those below `[storage] path`, so that any `tar` can unpack it as well:

    gateway.db, spool/<job>/<file>, spool/quarantine/<job>/<file>, manifest.json
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.errors import StorageError
from gateway.spool.disk import sync_folder
from gateway.spool.folder import Spool

_DATABASE, _MANIFEST = "gateway.db", "manifest.json"
_MEMBER = re.compile(
    r"gateway\.db|manifest\.json|spool/(quarantine/)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/[^./][^/]*"
)
_BLOCK = 1024 * 1024


class Manifest(BaseModel):
    """What a backup says about itself."""

    model_config = ConfigDict(frozen=True)

    gateway: str  # the program that made it
    database_version: str
    made_at: datetime
    rows: dict[str, int]  # of each table
    sha256: dict[str, str]  # of each member


def write(file: Path, database: Path, spool: Spool, manifest: Manifest) -> Manifest:
    """Write a new archive, readable by its owner only; it is on disk when this returns.

    Parameters
    ----------
    database : Path
        A copy that nobody changes.  It is older than the files that are read now: whatever it names is there.
    manifest : Manifest
        Without the members.

    Returns
    -------
    Manifest
        With the members.

    Raises
    ------
    OSError
        It cannot be written, or a file of the spool cannot be read.
    """
    sha256: dict[str, str] = {}
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as output:
        with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name, path in ((_DATABASE, database), *_files(spool)):
                if digest := _add(tar, name, path):
                    sha256[name] = digest
            complete = manifest.model_copy(update={"sha256": sha256})
            text = complete.model_dump_json(indent=1).encode()
            tar.addfile(_entry(_MANIFEST, len(text), complete.made_at.timestamp()), io.BytesIO(text))
        output.flush()
        os.fsync(output.fileno())
    return complete


def check(file: Path) -> Manifest:
    """Read all of an archive, and return its manifest.

    Raises
    ------
    StorageError
        It cannot be read, is incomplete, or holds anything else than its manifest says.
    """
    found: dict[str, str] = {}
    manifest = None
    with _members(file) as members:
        for member, content in members:
            if member.name == _MANIFEST:
                manifest = content.read()
            else:
                found[member.name] = hashlib.file_digest(content, "sha256").hexdigest()  # type: ignore[arg-type]
    if manifest is None:
        raise StorageError(f"{file} is incomplete: it has no manifest")
    try:
        stated = Manifest.model_validate_json(manifest)
    except ValidationError as error:
        raise StorageError(f"{file}: the manifest is none: {error.errors()[0]['msg']}") from None
    wrong = [name for name in sorted(stated.sha256.keys() | found.keys()) if stated.sha256.get(name) != found.get(name)]
    if wrong:
        raise StorageError(f"{file} is damaged: {len(wrong)} members are not what the manifest says, first {wrong[0]}")
    return stated


def unpack(file: Path, root: Path, database: Path) -> int:
    """Put the files of a checked archive below `root`, and its database at `database`; they are on disk then.

    A file that is there already stays as it is: it is what a lost database left, and may be newer.

    Returns
    -------
    int
        How many files were there already.
    """
    kept = 0
    with _members(file) as members:
        for member, content in members:
            target = database if member.name == _DATABASE else root / member.name
            if member.name == _MANIFEST:
                continue
            if target.exists():
                kept += 1
                continue
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.tmp")
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as output:
                shutil.copyfileobj(content, output, _BLOCK)
            os.replace(temporary, target)
            os.utime(target.parent, (member.mtime, member.mtime))  # how old a folder is decides what becomes of it
    os.sync()
    return kept


def put_in_place(file: Path, target: Path) -> None:
    """Give a file that is on disk its name, durably; raise OSError."""
    os.rename(file, target)
    sync_folder(target.parent)


@contextmanager
def _members(file: Path) -> Iterator[Iterator[tuple[tarfile.TarInfo, IO[bytes]]]]:
    """Open an archive that holds regular files under the names of ours, each once; others are a StorageError."""
    try:
        with tarfile.open(file, "r:") as tar:
            yield _checked(file, tar)
    except OSError as error:
        raise StorageError(f"{error.filename or file}: {error.strerror or error}") from error
    except tarfile.TarError as error:
        raise StorageError(f"{file} is no whole backup: {error}") from error


def _checked(file: Path, tar: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    seen: set[str] = set()
    for member in tar:
        content = tar.extractfile(member) if member.isreg() and _MEMBER.fullmatch(member.name) else None
        if content is None or member.name in seen:
            raise StorageError(f"{file} is no backup of a gateway: it has a member {member.name!r}")
        seen.add(member.name)
        yield member, content


def _files(spool: Spool) -> Iterator[tuple[str, Path]]:
    for path in spool.files():
        yield f"spool/{path.relative_to(spool.path)}", path


def _add(tar: tarfile.TarFile, name: str, path: Path) -> str:
    """Add a file, and return its SHA-256; "" where it is gone: its object was not accepted after all."""
    try:
        source = _Hashing(path.open("rb", buffering=0))
    except FileNotFoundError:
        return ""
    with source.file:
        status = os.fstat(source.file.fileno())
        tar.addfile(_entry(name, status.st_size, status.st_mtime), source)
    return source.sha256.hexdigest()


class _Hashing:
    """A file that is hashed while it is read."""

    def __init__(self, file: io.FileIO) -> None:
        self.file = file
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size) or b""
        self.sha256.update(data)
        return data


def _entry(name: str, size: int, modified: float) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = size, int(modified), 0o600
    return entry
