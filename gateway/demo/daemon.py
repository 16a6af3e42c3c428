"""The gateway as a process of its own, with default settings except for a temporary folder and free ports."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pynetdicom import AE
from pynetdicom.sop_class import Verification

from gateway.demo.peers import Pacs

_START_TIMEOUT_S = 90.0
_STOP_TIMEOUT_S = 30.0


def free_ports(count: int) -> list[int]:
    """Return ports that are free now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(taken.getsockname()[1]) for taken in sockets]


def settings_text(root: Path, dicom_port: int, web_port: int, pacs_port: int, ehr_port: int) -> str:
    """Return the settings: the defaults, except for paths, ports and where results go."""
    inbox, var = json.dumps(str(root / "inbox")), json.dumps(str(root / "var"))  # a JSON string is a TOML string
    return f"""
dicom.port = {dicom_port}
web.port = {web_port}
storage.path = {var}

[[folders]]
path = {inbox}
create = true

[[destinations]]
kind = "dicom"
name = "pacs"
host = "127.0.0.1"
port = {pacs_port}
ae_title = "{Pacs.ae_title}"

[[destinations]]
kind = "hl7"
name = "ehr"
host = "127.0.0.1"
port = {ehr_port}
"""


@contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the gateway until the block ends."""
    with open(log, "wb") as file:
        daemon = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        try:
            yield daemon
        finally:
            daemon.terminate()
            try:
                daemon.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def wait_for_echo(daemon: subprocess.Popen[bytes], port: int) -> str:
    """Return "" as soon as the gateway answers C-ECHO, or why it never did."""
    ae = AE("DEMO")
    ae.add_requested_context(Verification)
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if daemon.poll() is not None:
            return f"the gateway ended with exit status {daemon.returncode}"
        if _is_open(port) and _echo(ae, port):
            return ""
        time.sleep(0.3)
    return f"the gateway did not answer C-ECHO within {_START_TIMEOUT_S:g} s"


def _is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


def _echo(ae: AE, port: int) -> bool:
    association = ae.associate("127.0.0.1", port, ae_title="ECGGW")
    if not association.is_established:
        return False
    status = association.send_c_echo()
    association.release()
    return bool(status) and status.Status == 0x0000
