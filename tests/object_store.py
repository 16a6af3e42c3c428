"""An object store of the tests' own: Ceph's (Debian's radosgw), with a monitor and one store in memory behind it.

It answers on a plain port and on one with TLS.  `stop` ends the gateway of the object store, and `start` brings it back
with what it had; the rest goes on running.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import s3fs

from gateway.settings import StorageSettings
from tests.tls_samples import Authority
from tests.waiting import PATIENCE_S, wait_for

ACCESS_KEY, SECRET_KEY = "AKOFTHETESTS", "s3cret/of+the/tests"
_PACKAGES = {"ceph-mon": "ceph-mon", "ceph-osd": "ceph-osd", "radosgw": "radosgw", "ceph": "ceph-common"}
_CONFIGURATION = """\
[global]
fsid = {identity}
mon host = v1:127.0.0.1:{monitor_port}/0
auth cluster required = none
auth service required = none
auth client required = none
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind msgr2 = false
run dir = {folder}
admin socket =
log file = {folder}/$name.log
mon data = {folder}/mon
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail warn = 1
mon data avail crit = 1
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 1073741824
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd crush update on start = false
osd class update on start = false
[client.rgw]
rgw data = {folder}/rgw
rgw frontends = beast endpoint=127.0.0.1:{port} ssl_endpoint=127.0.0.1:{tls_port} ssl_certificate={certificate} \
ssl_private_key={key}
"""


class ObjectStore:
    """One running object store, and its only user."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        authority = Authority(folder / "tls")
        self.ca_file = authority.ca_file
        identity = authority.issue("localhost", "127.0.0.1", "localhost")
        monitor_port, port, tls_port = _free_ports(3)
        self.endpoint, self.tls_endpoint = f"http://127.0.0.1:{port}", f"https://127.0.0.1:{tls_port}"
        self.credentials_file = folder / "credentials"
        self.credentials_file.write_text(
            f"[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
        )
        self._monitor = f"[v1:127.0.0.1:{monitor_port}]"
        self._identity = str(uuid.uuid4())
        (folder / "ceph.conf").write_text(
            _CONFIGURATION.format(
                identity=self._identity,
                folder=folder,
                monitor_port=monitor_port,
                port=port,
                tls_port=tls_port,
                certificate=identity.certificate_file,
                key=identity.private_key_file,
            )
        )
        for name in ("mon", "osd", "rgw"):
            (folder / name).mkdir()
        self._running = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    def create(self) -> None:
        """Make the cluster and the user, and start all of it."""
        disk = str(uuid.uuid4())
        self._run("monmaptool", "--create", "--fsid", self._identity, "--addv", "a", self._monitor, self._map)
        self._run("ceph-mon", "-i", "a", "--mkfs", "--monmap", self._map)
        self._spawn("ceph-mon", "-i", "a", "-f")
        self._command("osd", "new", disk)
        self._command("osd", "crush", "add", "0", "1.0", "host=a", "root=default")
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk)
        process = self._spawn("ceph-osd", "-i", "0", "-f")
        wait_for("the store behind it, or its end", lambda: process.poll() is not None or self._is_up(), 3 * PATIENCE_S)
        assert process.poll() is None, self._log("osd.0")[-2000:]
        self.start()
        user = ("--uid", "gateway", "--display-name", "gateway")
        keys = ("--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY)
        self._run("radosgw-admin", "-n", "client.rgw", "user", "create", *user, *keys)

    def start(self) -> None:
        """Start what answers, and wait until it does."""
        self._process = self._spawn("radosgw", "-n", "client.rgw", "-f")
        wait_for("the object store", self._answers, 2 * PATIENCE_S)

    def stop(self) -> None:
        """End what answers."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(PATIENCE_S)

    def close(self) -> None:
        """End everything."""
        self._running.close()

    @contextmanager
    def bucket(self) -> Iterator[dict[str, Any]]:
        """A new bucket, as the settings of `[storage]` that name a spool in it."""
        name = f"spool-{uuid.uuid4()}"
        self.client().call_s3("create_bucket", Bucket=name)
        yield {
            "spool": f"s3://{name}/ecg",
            "spool_endpoint": self.endpoint,
            "spool_credentials_file": str(self.credentials_file),
        }

    def client(self) -> s3fs.S3FileSystem:
        """What looks into it from outside."""
        return s3fs.S3FileSystem(
            key=ACCESS_KEY, secret=SECRET_KEY, endpoint_url=self.endpoint, use_listings_cache=False
        )

    def keys(self, settings: StorageSettings) -> list[str]:
        """The names of the objects below the prefix of a spool."""
        root = settings.spool.removeprefix("s3://")
        return sorted(path.removeprefix(f"{root}/") for path in self.client().find(root))

    @property
    def _map(self) -> Path:
        return self._folder / "monmap"

    def _command(self, *words: str) -> None:
        """Give the monitor a command; a client that does not know the cluster's id yet is refused, and repeats it."""
        command = ["ceph", "-c", self._folder / "ceph.conf", *words]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "timeout": PATIENCE_S, "check": False}
        wait_for(" ".join(words), lambda: subprocess.run(command, **quiet).returncode == 0)

    def _run(self, program: str, *arguments: str | Path) -> str:
        command = [program, "-c", self._folder / "ceph.conf", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"
        return done.stdout

    def _is_up(self) -> bool:
        return "booting -> active" in self._log("osd.0")

    def _log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text(errors="replace")

    def _spawn(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self._folder / f"{program}.out").open("ab") as log:
            command = [program, "-c", self._folder / "ceph.conf", *arguments]
            process = subprocess.Popen(command, stdout=log, stderr=log)
        self._running.callback(process.wait, PATIENCE_S)
        self._running.callback(process.kill)
        return process

    def _answers(self) -> bool:
        assert self._process is not None and self._process.poll() is None, (self._folder / "radosgw.out").read_text()
        try:
            return httpx.get(self.endpoint, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def running_object_store() -> Iterator[ObjectStore]:
    """Create and start an object store, and remove it at the end; skip where Ceph is not installed."""
    missing = sorted({package for program, package in _PACKAGES.items() if not shutil.which(program)})
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")
    with tempfile.TemporaryDirectory(prefix="ecg-gateway-ceph-") as folder:
        store = ObjectStore(Path(folder))
        try:
            store.create()
            yield store
        finally:
            store.close()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as taken:
        sockets = [taken.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(each.getsockname()[1]) for each in sockets]
