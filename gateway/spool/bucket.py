"""The spool in a bucket of an object store, by the S3 API: `[storage] spool = "s3://bucket/prefix"`.

A file is one object, written by one PUT with the MD5 of its bytes: the store has all of it or nothing, and it is
durable when the PUT is answered.  A file that is read goes through a temporary file on this machine, without a name.

A failure is a StorageError with the kind of the failure and the code of the store, and nothing else of its answer.
"""

from __future__ import annotations

import base64
import configparser
import hashlib
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, BinaryIO

from gateway.domain.received import PIECE_BYTES, Data, opened
from gateway.errors import StorageError, UnreadableFile
from gateway.settings import StorageSettings
from gateway.spool.place import JOB_ID, QUARANTINE

_CONNECT_S, _ANSWER_S = 4, 30
_ATTEMPTS = 2  # of a request; what fails then is tried again by whoever asked for it
_AT_ONCE = 64  # connections
_LISTED = 1000  # objects in an answer: the most that S3 lists
_KEYS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")


class Bucket:
    """The objects below a prefix (see `gateway.spool.place.Place`).

    Parameters
    ----------
    settings : StorageSettings
        With `spool`.
    local : Path
        A folder of this machine for what is read.

    Raises
    ------
    StorageError
        The libraries are not installed, or the credentials cannot be read.
    """

    on_disk = False

    def __init__(self, settings: StorageSettings, local: Path) -> None:
        try:
            from aiohttp import ClientError
            from botocore.exceptions import BotoCoreError
            from s3fs import S3FileSystem
        except ImportError as error:
            raise StorageError(
                f"spool = '{settings.spool}': {error.name} is not installed: install 'ecg-gateway[s3]'"
            ) from error
        self.where = settings.spool.rstrip("/")
        self._local = local
        self._bucket, _, prefix = self.where.removeprefix("s3://").partition("/")
        self._prefix = prefix and f"{prefix}/"
        self._failures = (OSError, BotoCoreError, ClientError)
        self._store = S3FileSystem(
            endpoint_url=settings.spool_endpoint or None,
            **_credentials(settings.spool_credentials_file),
            client_kwargs={
                "region_name": settings.spool_region or None,
                "verify": str(settings.spool_ca_file) if settings.spool_ca_file else None,
            },
            config_kwargs={
                "connect_timeout": _CONNECT_S,
                "read_timeout": _ANSWER_S,
                "max_pool_connections": _AT_ONCE,
                "retries": {"total_max_attempts": _ATTEMPTS, "mode": "standard"},
                "request_checksum_calculation": "when_required",  # not every store knows the newer ones
                "response_checksum_validation": "when_required",
            },
            max_concurrency=1,
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        self._store.retries = 1  # a body that was sent is rewound only by the library below

    def check(self) -> None:
        """Write, replace, list, read and delete an object: each must be seen at once."""
        folder, name = f".probe-{uuid.uuid4()}", "file"
        rule = "the object store must show at once what was written, replaced or deleted"
        try:
            for data in (b"first", b"second"):
                self.write(folder, name, data)
                file = self.open(folder, name)
                if file is None or not self.has(folder, name) or list(self.files(folder)) != [name]:
                    raise StorageError(f"{rule}: an object is missing that was written")
                with file:
                    if file.read() != data:
                        raise StorageError(f"{rule}: an object is not what was written")
            self.remove(folder)
            if self.has(folder, name) or self.open(folder, name):
                raise StorageError(f"{rule}: an object is there that was deleted")
        except StorageError as error:
            raise StorageError(f"spool = '{self.where}': {str(error).removeprefix('spool: ')}") from error

    def write(self, folder: str, name: str, data: Data) -> None:
        """Store a file by one PUT; the store refuses bytes that are not those of the MD5."""
        md5 = hashlib.md5(usedforsecurity=False)
        body = opened(data)
        while piece := body.read(PIECE_BYTES):
            md5.update(piece)
        body.seek(0)
        digest = base64.b64encode(md5.digest()).decode()
        self._call("put_object", Key=self._key(folder, name), Body=body, ContentMD5=digest)

    def open(self, folder: str, name: str) -> BinaryIO | None:
        """Return a file, as one of this machine that has no name; None where it is gone."""
        with ExitStack() as unless_read, self._as_storage_error("get_object", UnreadableFile):
            file = unless_read.enter_context(closing(tempfile.TemporaryFile(dir=self._local)))
            try:
                self._store.get_file(f"{self._bucket}/{self._key(folder, name)}", f"/proc/self/fd/{file.fileno()}")
            except FileNotFoundError as error:
                if _code(error) == "NoSuchKey":
                    return None
                raise
            unless_read.pop_all()
            file.seek(0)
        return file

    def has(self, folder: str, name: str) -> bool:
        """Return whether a file is there; a list tells an object that is missing from a bucket that is."""
        key = self._key(folder, name)
        found = self._call("list_objects_v2", Prefix=key, MaxKeys=1).get("Contents", [])
        return any(each["Key"] == key for each in found)

    def files(self, folder: str) -> dict[str, int]:
        """Return the size of each file of a folder."""
        return {name: each["Size"] for _, name, each in self._list(folder)}

    def everything(self) -> Iterator[tuple[str, str, int]]:
        """Yield folder, name and size of every file."""
        for folder, name, each in self._list():
            yield folder, name, each["Size"]

    def folders(self, inside: str = "") -> list[str]:
        """Return the job ids that have a folder."""
        return sorted({job_id for folder, _, _ in self._list(inside) if (job_id := _job_id(folder, inside))})

    def unchanged(self, for_s: float, inside: str = "") -> list[str]:
        """Return the job ids of which no object was written so long ago."""
        newest: dict[str, float] = {}
        for folder, _, each in self._list(inside):
            if job_id := _job_id(folder, inside):
                newest[job_id] = max(newest.get(job_id, 0.0), each["LastModified"].timestamp())
        before = self._now() - for_s
        return sorted(job_id for job_id, changed in newest.items() if changed < before)

    def move(self, folder: str, target: str) -> None:
        """Copy every file, then delete those that were copied: a repeat ends what was interrupted."""
        names = list(self.files(folder))
        for name in names:
            source = {"Bucket": self._bucket, "Key": self._key(folder, name)}
            self._call("copy_object", CopySource=source, Key=self._key(target, name))
        self._delete(folder, names)

    def remove(self, folder: str) -> None:
        """Delete a folder."""
        self._delete(folder, list(self.files(folder)))

    def _delete(self, folder: str, names: list[str]) -> None:
        for name in names:
            self._call("delete_object", Key=self._key(folder, name))

    def _list(self, inside: str = "") -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Yield folder, name and facts of every object, or of those in a folder."""
        prefix = self._prefix + (inside and f"{inside}/")
        more: dict[str, Any] = {}
        while True:
            answer = self._call("list_objects_v2", Prefix=prefix, MaxKeys=_LISTED, **more)
            for each in answer.get("Contents", []):
                folder, _, name = each["Key"].removeprefix(self._prefix).rpartition("/")
                if inside or _job_id(folder) or _job_id(folder, QUARANTINE):
                    yield folder, name, each
            if not answer.get("IsTruncated"):
                return
            more = {"ContinuationToken": answer["NextContinuationToken"]}

    def _now(self) -> float:
        """Return the time by the clock of the store, which the times of its objects go by."""
        answer = self._call("list_objects_v2", MaxKeys=1)
        return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()

    def _key(self, folder: str, name: str) -> str:
        return f"{self._prefix}{folder}/{name}"

    def _call(self, method: str, **arguments: Any) -> dict[str, Any]:
        with self._as_storage_error(method):
            answer: dict[str, Any] = self._store.call_s3(method, Bucket=self._bucket, **arguments)
        return answer

    @contextmanager
    def _as_storage_error(self, method: str, kind: type[StorageError] = StorageError) -> Iterator[None]:
        try:
            yield
        except self._failures as error:
            raise kind(f"spool: {method}: {_code(error) or type(error).__name__}") from None


def _code(error: BaseException) -> str:
    """Return the error code of an answer; "" where there is none, or it is none of the standard's form."""
    answer = getattr(error.__cause__, "response", None) or {}
    code = str(answer.get("Error", {}).get("Code", ""))
    return code if code.isalnum() and len(code) <= 60 else ""


def _job_id(folder: str, inside: str = "") -> str:
    """Return the job id that a folder is named by; "" where it is none of those `inside`."""
    name = folder.removeprefix(inside and f"{inside}/")
    return name if JOB_ID.fullmatch(name) else ""


def _credentials(file: Path | None) -> dict[str, str]:
    """Return what a file of the form of `~/.aws/credentials` states; without a file nothing: the environment does."""
    if file is None:
        return {}
    parser = configparser.ConfigParser(interpolation=None)
    rule = "must have a section [default] with aws_access_key_id and aws_secret_access_key"
    try:
        parser.read_string(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise StorageError(f"spool_credentials_file = '{file}': {error.strerror}") from None
    except (configparser.Error, UnicodeDecodeError):
        raise StorageError(f"spool_credentials_file = '{file}': {rule}") from None
    stated = dict(parser["default"]) if parser.has_section("default") else {}
    if not all(stated.get(name) for name in _KEYS[:2]):
        raise StorageError(f"spool_credentials_file = '{file}': {rule}")
    return {name: stated[key] for name, key in zip(("key", "secret", "token"), _KEYS, strict=True) if stated.get(key)}
