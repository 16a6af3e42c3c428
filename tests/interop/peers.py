"""Independent DICOM software to talk to: DCMTK, dicom3tools, Orthanc.  What is not installed is skipped, by name."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.waiting import PATIENCE_S, wait_for

PACKAGES = {  # all others: dcmtk
    "/usr/bin/dciodvfy": "dicom3tools",
    "/usr/bin/gdcmconv": "libgdcm-tools",
    "/usr/sbin/Orthanc": "orthanc",
}


def tool(name: str) -> str:
    """The path of a program, or a skip that says what to install.

    Always the system's: the virtual environment has programs of the same names.
    """
    path = f"/usr/sbin/{name}" if name == "Orthanc" else f"/usr/bin/{name}"
    if not Path(path).exists():
        pytest.skip(f"{PACKAGES.get(path, 'dcmtk')} is not installed: no {path}")
    return path


def run(name: str, *arguments: object, check: bool = True) -> str:
    """Run a program and return all it said."""
    command = [tool(name), *map(str, arguments)]
    limits = {"timeout": 2 * PATIENCE_S, "check": False}
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", **limits)
    said = done.stdout + done.stderr
    assert not check or done.returncode == 0, f"{name} ended with {done.returncode}: {said}"
    return said


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Orthanc:
    """A PACS with AE title ORTHANC, spoken to by DICOM and REST; its user, where it asks, is gateway, secret."""

    def __init__(self, dicom_port: int, http_port: int) -> None:
        self.dicom_port = dicom_port
        self.url = f"http://127.0.0.1:{http_port}"

    def request(self, path: str, body: bytes | None = None, method: str | None = None) -> bytes:
        login = {"Authorization": "Basic " + base64.b64encode(b"gateway:secret").decode()}
        request = urllib.request.Request(self.url + path, data=body, method=method, headers=login)
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            answer: bytes = response.read()
        return answer

    def instances(self) -> list[str]:
        ids: list[str] = json.loads(self.request("/instances"))
        return ids

    def is_up(self) -> bool:
        try:
            self.request("/system")
        except (urllib.error.URLError, ConnectionError):
            return False
        return True


@contextmanager
def running_orthanc(folder: Path, modalities: dict[str, tuple[str, int]], **more: object) -> Iterator[Orthanc]:
    """Start Orthanc in an empty folder; `modalities` are the peers it may send to: name -> (AE title, port).

    `more` goes into its configuration as it is.
    """
    program = tool("Orthanc")
    orthanc = Orthanc(free_port(), free_port())
    configuration = {
        "Name": "interop",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "DicomAet": "ORTHANC",
        "DicomPort": orthanc.dicom_port,
        "DicomCheckCalledAet": True,
        "HttpPort": int(orthanc.url.rpartition(":")[2]),
        "RemoteAccessAllowed": False,
        "DicomAlwaysAllowStore": True,
        "DicomModalities": {
            name: {"AET": title, "Host": "127.0.0.1", "Port": port, "AllowStorageCommitment": True}
            for name, (title, port) in modalities.items()
        },
        "Plugins": [],
        **more,
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    with (
        (folder / "orthanc.log").open("wb") as log,
        subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=log) as process,
    ):
        try:
            wait_for("Orthanc, or its end", lambda: orthanc.is_up() or process.poll() is not None)
            assert process.poll() is None, (folder / "orthanc.log").read_text()
            yield orthanc
        finally:
            process.terminate()
            process.wait(PATIENCE_S)
