"""Audit messages arrive at rsyslog, by TLS and by UDP, as they were sent."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from gateway.audit.forwarder import AuditForwarder
from gateway.domain.audit import AuditKind
from gateway.settings import Settings
from gateway.store.store import Store
from gateway.store.tables import AuditEntry
from tests.gateway.audit.standard import problems
from tests.interop.peers import free_port
from tests.tls_samples import Authority
from tests.waiting import PATIENCE_S, eventually

pytestmark = pytest.mark.interop
_GNUTLS = next(iter(Path("/usr/lib").glob("*/rsyslog/lmnsd_gtls.so")), None)

if shutil.which("rsyslogd", path="/usr/sbin") is None or _GNUTLS is None:
    pytest.skip("rsyslog and rsyslog-gnutls are not installed", allow_module_level=True)

_CONFIG = """
global(workDirectory="{folder}" maxMessageSize="64k" parser.escapeControlCharactersOnReceive="off"
       defaultNetstreamDriverCAFile="{ca}" defaultNetstreamDriverCertFile="{certificate}"
       defaultNetstreamDriverKeyFile="{key}")
template(name="fields" type="string"
         string="%syslogfacility%\\t%syslogseverity%\\t%app-name%\\t%msgid%\\t%msg%\\n")
{input}
*.* action(type="omfile" file="{folder}/received" template="fields")
"""
_TLS = """
module(load="imtcp" StreamDriver.Name="gtls" StreamDriver.Mode="1" StreamDriver.AuthMode="x509/certvalid")
input(type="imtcp" port="{port}" address="127.0.0.1")
"""
_UDP = """
module(load="imudp")
input(type="imudp" port="{port}" address="127.0.0.1")
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "gateway.db")
    yield store
    store.close()


@contextmanager
def rsyslog(folder: Path, transport: str, port: int, authority: Authority) -> Iterator[Path]:
    """Run rsyslog; yield the file that it writes what it received into."""
    server = authority.issue("localhost", "localhost")
    text = (_TLS if transport == "tls" else _UDP).format(port=port)
    config = _CONFIG.format(
        folder=folder,
        ca=authority.ca_file,
        certificate=server.certificate_file,
        key=server.private_key_file,
        input=text,
    )
    (folder / "rsyslog.conf").write_text(config)
    command = ["/usr/sbin/rsyslogd", "-n", "-f", str(folder / "rsyslog.conf"), "-i", str(folder / "pid")]
    process = subprocess.Popen(command, env=os.environ | {"LC_ALL": "C.UTF-8"})
    try:
        eventually((folder / "pid").exists)
        yield folder / "received"
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@pytest.mark.parametrize("transport", ["tls", "udp"])
def test_messages_arrive(transport: str, store: Store, tmp_path: Path) -> None:
    authority, port = Authority(tmp_path), free_port()
    client = authority.issue("gateway", "gateway")
    audit = {"transport": transport, "host": "127.0.0.1", "port": port, "source_id": "ecggw"}
    tls = {"ca_file": authority.ca_file, "server_name": "localhost"} | vars(client)
    forwarder = AuditForwarder(store, lambda: Settings(audit=audit | {"tls": tls}), poll_s=0.05)
    with rsyslog(tmp_path, transport, port, authority) as received:
        forwarder.start()
        store.trail.record(AuditEntry(kind=AuditKind.LOG_IN, name="ann", full_name="Müster <Zoë>", address="10.1.2.3"))

        def lines() -> list[str]:
            text = received.read_text(encoding="utf-8") if received.exists() else ""
            return [line for line in text.splitlines() if "DICOM+RFC3881" in line]

        eventually(lambda: len(lines()) == 2)
        forwarder.stop()
        eventually(lambda: len(lines()) == 3)
    names = []
    for line in lines():
        facility, severity, application, message_id, text = line.split("\t")
        assert (facility, severity, application, message_id) == ("10", "5", "ecggw", "DICOM+RFC3881")
        xml = text[text.index("<?xml") :].encode()
        assert problems(xml) == []
        names += [each.attrib.get("UserName") for each in ET.fromstring(xml).findall("ActiveParticipant")]
    assert "Müster <Zoë>" in names
