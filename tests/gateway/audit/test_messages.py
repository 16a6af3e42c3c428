"""Audit messages and syslog messages: their form, their escapes, and each way out."""

from __future__ import annotations

import base64
import socket
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from pydicom.sr import _concepts_dict

from gateway.audit import messages as m
from gateway.audit.syslog import Sender, frame
from gateway.errors import NotReached
from gateway.security.tls import server_context
from gateway.settings import AuditSettings, TlsListenerSettings
from tests.gateway.audit.conftest import Repository, frames, lines, parsed
from tests.gateway.audit.standard import problems
from tests.tls_samples import Authority
from tests.waiting import PATIENCE_S, eventually

AT = datetime(2026, 11, 30, 1, 2, 3, 456000, tzinfo=UTC)
US = m.Participant(user_id="ecg-gateway", requestor=False, address="gateway.hospital.example")
PERSON = m.Participant(user_id="ann", name="Dr Ann <Lee>", requestor=True, address="10.1.2.3")
THINGS = (
    m.study("1.2.3", accession="A&1", instances=(("1.2.840.10008.5.1.4.1.1.9.1.1", 1),), job="j"),
    m.patient("P1", "HOSPITAL", 'Müster^"Zoë"\x00'),
)


def accessed() -> bytes:
    event = m.Event(code=m.INSTANCES_ACCESSED, action="R", at=AT)
    return m.audit_message(event, (PERSON, US), ("ecg-gateway", "SITE"), THINGS)


def test_codes_are_those_of_the_standard() -> None:
    concepts = _concepts_dict.concepts["DCM"].values()
    known = {code: meaning for codes in concepts for code, (meaning, _) in codes.items()}
    ours = [value for value in vars(m).values() if isinstance(value, m.Code) and value.scheme == "DCM"]
    assert len(ours) > 20
    assert {code.value: code.meaning for code in ours} == {code.value: known[code.value] for code in ours}


def test_message_has_the_form_of_the_standard() -> None:
    assert problems(accessed()) == []


def test_the_check_finds_what_is_wrong() -> None:
    good = accessed()
    for before, after in (
        (b'EventActionCode="R"', b'EventActionCode="X"'),
        (b'UserID="ann"', b'User="ann"'),
        (b"<ParticipantObjectName", b"<Another"),
        (b'"110180"', b'"110181"'),
        (b'Z" EventOutcome', b'" EventOutcome'),
        (b'UserIsRequestor="false"', b'UserIsRequestor="true"'),
    ):
        assert before in good
        broken = good.replace(before, after)
        if after == b"<Another":
            broken = broken.replace(b"</ParticipantObjectName", b"</Another")
        assert problems(broken), after


def test_names_are_text() -> None:
    root = ET.fromstring(accessed())
    assert root.find("ActiveParticipant").attrib["UserName"] == "Dr Ann <Lee>"
    assert root.findall("ParticipantObjectIdentification")[1].find("ParticipantObjectName").text == 'Müster^"Zoë"�'
    assert root.findall("ParticipantObjectIdentification")[1].attrib["ParticipantObjectID"] == "P1^^^HOSPITAL"
    assert root.find(".//Accession").attrib["Number"] == "A&1"
    detail = root.find(".//ParticipantObjectDetail").attrib
    assert (detail["type"], base64.b64decode(detail["value"])) == ("ECG gateway job", b"j")


def test_kind_of_address() -> None:
    root = ET.fromstring(accessed())
    codes = [each.attrib["NetworkAccessPointTypeCode"] for each in root.findall("ActiveParticipant")]
    assert codes == ["2", "1"]


@pytest.mark.parametrize(("outcome", "priority"), [(0, 85), (4, 84), (8, 83), (12, 82)])
def test_header(outcome: int, priority: int) -> None:
    message = frame(accessed(), AT, outcome, "ecg-gateway")
    assert message.startswith(f"<{priority}>1 2026-11-30T01:02:03.456Z {socket.gethostname()} ecg-gateway ".encode())
    assert parsed(message)[0] == priority and b"\n" not in message


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    sender = Sender(AuditSettings(transport="file", path=path))
    message = frame(accessed(), AT, 0, "x")
    sender.send([message])
    path.rename(tmp_path / "audit.log.1")  # as logrotate does
    sender.send([message, message])
    assert (len(lines(tmp_path / "audit.log.1")), len(lines(path))) == (1, 2)
    assert path.stat().st_mode & 0o777 == 0o600
    assert problems(parsed(lines(path)[0])[1]) == []
    with pytest.raises(NotReached, match="no such file"):
        Sender(AuditSettings(transport="file", path=tmp_path / "no" / "audit.log")).send([message])


def test_udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(PATIENCE_S)
        port = listening.getsockname()[1]
        Sender(AuditSettings(transport="udp", host="127.0.0.1", port=port)).send([frame(accessed(), AT, 0, "x")])
        assert problems(parsed(listening.recv(65536))[1]) == []


def test_tls_and_a_repository_that_was_away(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = server_context(TlsListenerSettings(**vars(authority.issue("localhost", "localhost"))))
    first = Repository(context)
    tls = {"ca_file": authority.ca_file, "server_name": "localhost"}
    sender = Sender(AuditSettings(transport="tls", host="127.0.0.1", port=first.port, tls=tls))
    message = frame(accessed(), AT, 0, "x")
    sender.send([message, message])
    eventually(lambda: len(frames(first.received)) == 2)
    first.close()

    def refused() -> bool:
        try:
            sender.send([message])
        except NotReached:
            return True
        return False

    eventually(refused)
    second = Repository(context, first.port)
    sender.send([message])
    eventually(lambda: frames(second.received) == [message])
    sender.close()
    second.close()


def test_tls_needs_a_certificate_that_is_trusted(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path / "a"), Authority(tmp_path / "b")
    repository = Repository(server_context(TlsListenerSettings(**vars(authority.issue("localhost", "localhost")))))
    tls = {"ca_file": other.ca_file, "server_name": "localhost"}
    sender = Sender(AuditSettings(transport="tls", host="127.0.0.1", port=repository.port, tls=tls))
    with pytest.raises(NotReached, match="certificate not trusted"):
        sender.send([b"x"])
    repository.close()
